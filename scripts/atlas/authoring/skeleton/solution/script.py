"""{{title}} as a program: it learns the mean of some numbers.

python {{script}}                         train; keeps runs/mean.npz, draws runs/mean.png
python {{script}} --resume --epochs 12    go on with that training, to 12 epochs
"""

import argparse
from pathlib import Path

import numpy as np

from atlas import plot, program

CONFIG = {"examples": 1000, "seed": 0}


def second_step(x):
    """Halve every entry.

    x: (B, D). Returns (B, D).
    """
    # TODO: halve every entry.
    ### BEGIN SOLUTION
    return x / 2
    ### END SOLUTION


def train(options, config, saved):
    """Train until options.epochs are done, or go on with the checkpoint `saved`; one checkpoint an epoch.

    Returns the weights, (1, 3), and the history.
    """
    rng = np.random.default_rng(config["seed"])
    x = rng.normal(1, 1, (config["examples"], 3))  # (B, D)
    weights, history = np.zeros((1, 3)), {"train loss": []}
    if saved:
        (weights,), history = saved["weights"], saved["history"]
        rng.bit_generator.state = saved["random"]
    for epoch in range(len(history["train loss"]) + 1, options.epochs + 1):
        for batch in program.progress(np.split(rng.permutation(x), range(100, len(x), 100)), f"epoch {epoch}"):
            weights = weights - 0.1 * second_step(2 * (weights - batch.mean(0, keepdims=True)))
        history["train loss"].append(float(((x - weights) ** 2).mean()))
        random = rng.bit_generator.state
        checkpoint = {"weights": [weights], "history": history, "random": random, "config": config}
        program.save_arrays(options.checkpoint, checkpoint)
        print(f"epoch {epoch:3}   train loss {history['train loss'][-1]:.4g}")
    return weights, history


def draw(path, history):
    """Write the figure: how the training went."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    plot.curves(history, ylabel="squared error", title="Training", ax=figure.subplots())
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--epochs", type=program.number(int, 1, 1000), default=6, help="train until so many are done (6)")
    add("--examples", type=program.number(int, 1, 10_000), help=f"numbers to learn from ({CONFIG['examples']})")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of examples and order (0)")
    add("--device", choices=["auto", "cpu"], default="auto", help="NumPy computes on the processor, always")
    add("--checkpoint", type=Path, default=Path("runs/mean.npz"), metavar="PATH", help="kept here (runs/mean.npz)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    saved = program.load_arrays(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    program.reserve(options)
    weights, history = train(options, config, saved)
    print(f"means {weights.round(2).tolist()}; checkpoint {options.checkpoint}")
    draw(options.figure or options.checkpoint.with_suffix(".png"), history)


if __name__ == "__main__":
    program.run(main)
