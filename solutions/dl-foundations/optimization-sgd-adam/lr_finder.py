"""Find a learning rate by a range test, and train an MLP on Fashion-MNIST with it.

python lr_finder.py                          range test, then training; keeps runs/fashion.pt, draws runs/fashion.png
python lr_finder.py --optimiser sgd          the same for another optimiser (sgd, momentum, adam, adamw)
python lr_finder.py --find-only              only the range test and its figure
python lr_finder.py --lr 0.01                no range test: this rate
python lr_finder.py --resume --epochs 10     go on with that training, to 10 epochs

A training that is kept is lost only with --overwrite.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

import atlas
from atlas import plot, program

OPTIMISERS = {  # name: (torch's optimiser, lowest and highest rate of its range test)
    "sgd": (lambda p: torch.optim.SGD(p), 1e-3, 30.0),
    "momentum": (lambda p: torch.optim.SGD(p, momentum=0.9), 1e-4, 10.0),
    "adam": (lambda p: torch.optim.Adam(p), 1e-6, 1.0),
    "adamw": (lambda p: torch.optim.AdamW(p, weight_decay=0.1), 1e-6, 1.0),
}
CONFIG = {"optimiser": "adamw", "lr": None, "width": 128, "batch_size": 128, "seed": 0, "limit": 50_000}
DECAY = 0.7  # of the learning rate, epoch by epoch: it has no end built in, so training can go on


# ------------------------------------------------------------------------------------------------ the range test


def suggest_rate(rates, losses, beta=0.9, backoff=3.0):
    """A learning rate from a range test: where the smoothed loss is lowest, and a step back from there.

    rates, losses: (n,), by rising rate. The run is over at the first loss that is NaN or infinite, whatever follows.
    beta: how much of itself the running mean keeps, corrected as Adam's is. backoff: what the rate is divided by.
    Returns a number.
    """
    # TODO: 1. Cut the losses at the first that is not finite.
    #       2. Smooth them: m ← βm + (1 - β)·loss from m = 0, and divide by 1 - βᵗ, t = 1, 2, ...
    #       3. The rate where the smoothed loss is lowest, divided by backoff.
    ### BEGIN SOLUTION
    finite = np.isfinite(losses)
    over = len(losses) if finite.all() else int(np.argmin(finite))
    mean, smoothed = 0.0, []
    for t, loss in enumerate(losses[:over], 1):
        mean = beta * mean + (1 - beta) * loss
        smoothed.append(mean / (1 - beta**t))
    return rates[int(np.argmin(smoothed))] / backoff
    ### END SOLUTION


def range_test(config, x, y, device, steps=150):
    """Train a throw-away network while the rate grows by a constant factor. Returns rates and losses, (steps,)."""
    torch.manual_seed(config["seed"])
    make, low, high = OPTIMISERS[config["optimiser"]]
    model = make_model(config["width"]).to(device)
    optimizer = make(model.parameters())
    rates, losses = np.geomspace(low, high, steps), np.full(steps, np.nan)
    for t in program.progress(range(steps), "range test"):
        set_rate(optimizer, rates[t])
        batch = torch.randint(len(x), (config["batch_size"],)).to(device)
        losses[t] = step(model, optimizer, x[batch], y[batch])
        if not losses[t] < 10 * losses[0]:  # it has diverged; NaN included
            losses[t] = np.inf
            break
    return rates, losses


# ------------------------------------------------------------------------------------------------ training


def make_model(width):
    """Images (B, 784), standardised, to logits (B, 10)."""
    return nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


def load_data(limit, device):
    """Train, validation and test split, each (x (N, 784) float32, y (N,) int64) on the device."""
    fashion = atlas.data.load("fashion-mnist")
    x, x_test = (
        torch.tensor(x, dtype=torch.float32, device=device).flatten(1) for x in (fashion.x_train, fashion.x_test)
    )
    y, y_test = (torch.tensor(y, device=device) for y in (fashion.y_train, fashion.y_test))
    mean, spread = x[:limit].mean(), x[:limit].std()  # of the training images only
    x, x_test = (x - mean) / spread, (x_test - mean) / spread
    return {"train": (x[:limit], y[:limit]), "val": (x[50_000:], y[50_000:]), "test": (x_test, y_test)}


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = float(rate)


def step(model, optimizer, x, y):
    """One step on one batch. Returns the loss."""
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def evaluate(model, x, y):
    """Loss and accuracy in per cent."""
    logits = model(x)  # (N, 10)
    return nn.functional.cross_entropy(logits, y).item(), 100 * (logits.argmax(1) == y).float().mean().item()


def train(options, config, data, device, saved):
    """Train until options.epochs are done, or go on with the training of the checkpoint `saved`; one checkpoint an epoch.

    The rate rises to config["lr"] over the first half epoch and then falls by DECAY an epoch. Returns model, history.
    """
    torch.manual_seed(config["seed"])
    model = make_model(config["width"]).to(device)
    optimizer = OPTIMISERS[config["optimiser"]][0](model.parameters())
    history = {"train loss": [], "val loss": [], "val accuracy": []}
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            history = saved["history"]
            torch.set_rng_state(saved["random"])
    x, y = data["train"]
    warmup = max(1, len(x) // config["batch_size"] // 2)  # steps
    for epoch in range(len(history["val loss"]) + 1, options.epochs + 1):
        total, batches = 0.0, torch.randperm(len(x)).to(device).split(config["batch_size"])
        for t, batch in enumerate(program.progress(batches, f"epoch {epoch}"), 1):
            rise = min(1.0, t / warmup) if epoch == 1 else 1.0
            set_rate(optimizer, config["lr"] * rise * DECAY ** (epoch - 1))
            total += step(model, optimizer, x[batch], y[batch]) * len(batch)
        for name, value in zip(history, (total / len(x), *evaluate(model, *data["val"])), strict=True):
            history[name].append(value)
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
        program.save(options.checkpoint, {**states, "history": history, "config": config})
        print(f"epoch {epoch:3}   " + "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items()))
    return model, history


# ------------------------------------------------------------------------------------------------ the program


def draw(path, tested, rate, history):
    """Write the figure: the range test with the chosen rate, and the training, as far as there is either."""
    from matplotlib.figure import Figure

    panels = [bool(tested), bool(history)]
    figure = Figure(figsize=(6 * sum(panels), 4.5), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, sum(panels))))
    if tested:
        ax, (rates, losses) = axes.pop(0), tested
        ax.semilogx(rates, losses, color=plot.COLOURS[0])
        ax.axvline(rate, color=plot.COLOURS[1], linestyle=":")
        ax.set(xlabel="learning rate η", ylabel="loss of the batch", ylim=(0, 2 * losses[0]))
        ax.set_title(f"Range test: η = {rate:.2g}", loc="left", size=11, weight="bold")
    if history:
        curves = {"train": history["train loss"], "validation": history["val loss"]}
        plot.curves(curves, ylabel="cross-entropy", title=f"Training with η = {rate:.2g}", ax=axes.pop(0))
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--optimiser", choices=OPTIMISERS, help=f"({CONFIG['optimiser']})")
    add("--epochs", type=program.number(int, 1, 1000), default=6, help="train until so many are done (6)")
    add("--lr", type=program.number(float, 1e-9, 100), help="highest learning rate (found by the range test)")
    add("--batch-size", type=program.number(int, 1, 50_000), help=f"examples in a step ({CONFIG['batch_size']})")
    add("--width", type=program.number(int, 1, 10_000), help=f"hidden neurons ({CONFIG['width']})")
    add("--limit", type=program.number(int, 2, 50_000), help="train on so many images only (50,000)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/fashion.pt"), metavar="PATH", help="kept here (runs/fashion.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--find-only", action="store_true", help="find a rate, draw the range test, and end")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    if options.find_only and (options.resume or options.lr):
        parser.error("--find-only looks for a rate; leave out --resume and --lr")
    device = program.device(parser, options.device)
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    if not options.find_only:
        program.reserve(options)
    data = load_data(config["limit"], device)
    tested, history = None, None
    if config["lr"] is None:
        tested = range_test(config, *data["train"], device)
        config["lr"] = float(suggest_rate(*tested))
        print(f"range test of {config['optimiser']}: highest learning rate {config['lr']:.2g}")
    if not options.find_only:
        model, history = train(options, config, data, device, saved)
        print(f"test accuracy {evaluate(model, *data['test'])[1]:.2f} %; checkpoint {options.checkpoint}")
    draw(options.figure or options.checkpoint.with_suffix(".png"), tested, config["lr"], history)


if __name__ == "__main__":
    program.run(main)
