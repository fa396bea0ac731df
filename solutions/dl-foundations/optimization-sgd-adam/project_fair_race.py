"""Is the newer optimiser better? A fair race: the project's reference.

Momentum, AdamW and Lion (Chen et al., 2023) train the same MLP on 10,000 images of Fashion-MNIST. Each gets the same
random search: learning rates drawn log-uniformly from three decades. Reports the expected best validation accuracy
for each number of trials (Dodge et al., 2019), and the test accuracy of the best rate over new seeds.
Writes fair_race.{json,png} to --out.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import lr_finder
import numpy as np
import torch

import atlas
from atlas import plot


class Lion(torch.optim.Optimizer):
    """Lion: the sign of an interpolation between momentum and gradient, with decoupled weight decay."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for w in group["params"]:
                m = self.state[w].setdefault("m", torch.zeros_like(w))
                way = (beta1 * m + (1 - beta1) * w.grad).sign()
                w.sub_(group["lr"] * (way + group["weight_decay"] * w))
                m.mul_(beta2).add_(w.grad, alpha=1 - beta2)


RACERS = {  # name: (optimiser, lowest and highest rate of its search, three decades each)
    "momentum": (lambda p: torch.optim.SGD(p, momentum=0.9), 1e-3, 1.0),
    "AdamW": (lambda p: torch.optim.AdamW(p, weight_decay=0.1), 1e-4, 1e-1),
    "Lion": (lambda p: Lion(p, weight_decay=0.1), 1e-5, 1e-2),
}


def train(name, rate, data, epochs, seed, batch_size=128):
    """Train with warm-up over a tenth of the steps, then cosine. Returns the model."""
    x, y = data["train"]
    torch.manual_seed(seed)
    model = lr_finder.make_model(128).to(x.device)
    optimizer = RACERS[name][0](model.parameters())
    steps = epochs * math.ceil(len(x) / batch_size)
    warmup, t = steps // 10, 0
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).to(x.device).split(batch_size):
            fall = (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) / 2
            lr_finder.set_rate(optimizer, rate * ((t + 1) / warmup if t < warmup else fall))
            lr_finder.step(model, optimizer, x[batch], y[batch])
            t += 1
    return model


def expected_best(scores):
    """The expected best of k = 1, ..., n scores drawn with replacement from these n. Returns (n,)."""
    scores, n = np.sort(scores), len(scores)
    i = np.arange(1, n + 1)
    return np.array([(scores * ((i / n) ** k - ((i - 1) / n) ** k)).sum() for k in i])


def race(data, trials, seeds, epochs, seed):
    """Search, then the final. Returns, by name, rates, scores (validation, in per cent), best rate and test scores."""
    results = {}
    for name, (_, low, high) in RACERS.items():
        exponents = np.random.default_rng(seed).uniform(size=trials)  # the same draws for all
        rates = low * (high / low) ** exponents
        scores = [lr_finder.evaluate(train(name, r, data, epochs, seed), *data["val"])[1] for r in rates]
        best = float(rates[int(np.argmax(scores))])
        finals = [
            lr_finder.evaluate(train(name, best, data, epochs, 100 + 10 * seed + s), *data["test"])[1]
            for s in range(seeds)
        ]
        results[name] = {"rates": rates.tolist(), "scores": scores, "best": best, "test": finals}
        spread = f"{np.mean(finals):.1f} ± {np.std(finals, ddof=1):.1f} %"
        share = np.mean(np.array(scores) > max(scores) - 2)
        two = expected_best(scores)[1]
        print(
            f"{name:9} best rate {best:.2g}   validation {max(scores):.1f} %   test {spread} ({seeds} seeds)   "
            f"within 2 points of its best: {share:.0%} of the rates   expected best of 2: {two:.1f} %"
        )
    return results


def draw(path, results):
    """Left every trial, right the expected best for a budget of k trials."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour, mark in zip(results, plot.COLOURS, plot.MARKERS, strict=False):
        left.semilogx(results[name]["rates"], results[name]["scores"], mark, color=colour, label=name)
    left.set(xlabel="highest learning rate η", ylabel="validation accuracy (%)", ylim=(60, 90))
    left.set_title("Every trial", loc="left", size=11, weight="bold")
    left.legend(frameon=False)
    curves = {name: expected_best(result["scores"]) for name, result in results.items()}
    plot.curves(
        curves,
        xlabel="trials",
        ylabel="expected best validation accuracy (%)",
        title="What a search of this size brings",
        ax=right,
    )
    figure.savefig(path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12, help="learning rates for each optimiser (12)")
    parser.add_argument("--seeds", type=int, default=4, help="trainings for each in the final (4)")
    parser.add_argument("--epochs", type=int, default=3, help="(3)")
    parser.add_argument("--seed", type=int, default=0, help="of the search (0)")
    parser.add_argument("--device", default=None, help="cpu, cuda or mps")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the results (runs)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: 3 trials, 2 seeds, 1 epoch")
    options = parser.parse_args(arguments)
    if options.quick:
        options.trials, options.seeds, options.epochs = 3, 2, 1
    data = lr_finder.load_data(10_000, atlas.device(options.device))
    results = race(data, options.trials, options.seeds, options.epochs, options.seed)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "fair_race.json").write_text(json.dumps(results, indent=2))
        draw(options.out / "fair_race.png", results)
    except OSError as error:
        sys.exit(f"Cannot write to {options.out}: {error}. Choose another place with --out.")
    print(f"written to {options.out}: fair_race.json, fair_race.png")


if __name__ == "__main__":
    main()
