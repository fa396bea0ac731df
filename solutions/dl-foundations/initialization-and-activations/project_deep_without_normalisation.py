"""The project's reference: how deep can plain, scaled and residual networks be, and still learn without normalisation?

python project_deep_without_normalisation.py           depths 10, 20, 40; three seeds
python project_deep_without_normalisation.py --quick   depths 10 and 20, one seed, 1,000 images
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

import atlas

WIDTH = 64
KINDS = ("torch", "he", "lsuv", "residual, α = 1", "residual, α = 1/√L")
RATES = (0.001, 0.004, 0.016)


def load_data(limit, device):
    """Train, validation and test split, each (x (N, 784) with mean square 1, y (N,))."""
    mnist = atlas.data.load("mnist")
    x, x_test = (
        (torch.tensor(images, dtype=torch.float32, device=device).flatten(1) / 255 - 0.1307) / 0.3081
        for images in (mnist.x_train, mnist.x_test)
    )
    y, y_test = (torch.tensor(labels, device=device) for labels in (mnist.y_train, mnist.y_test))
    return {"train": (x[:limit], y[:limit]), "val": (x[55_000:57_000], y[55_000:57_000]), "test": (x_test, y_test)}


def make_parameters(kind, depth, x, generator):
    """First layer, `depth` further layers (two matrices each if residual), output layer; with biases of 0."""
    shapes = [(WIDTH, 784)] + [(WIDTH, WIDTH)] * (depth * (2 if kind.startswith("residual") else 1)) + [(10, WIDTH)]
    gains = [2.0] * len(shapes)
    gains[-1] = 1.0
    if kind == "torch":
        gains = [1 / 3] * len(shapes)
    if kind.startswith("residual"):
        gains[2:-1:2] = [1.0] * depth  # V of each layer: LeCun, it has no activation behind it
    weights = [
        torch.randn(shape, generator=generator).to(x.device) * math.sqrt(gain / shape[1])
        for shape, gain in zip(shapes, gains, strict=True)
    ]
    if kind == "lsuv":
        a = x[:500]
        for number, W in enumerate(weights):
            z = a @ W.T
            weights[number] = W / z.square().mean().sqrt()
            a = torch.relu(a @ weights[number].T)
    return [p.requires_grad_() for W in weights for p in (W, torch.zeros(len(W), device=x.device))]


def forward(parameters, x, kind):
    """Logits (B, 10)."""
    pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
    a = torch.relu(F.linear(x, *pairs[0]))
    if kind.startswith("residual"):
        blocks = list(zip(pairs[1:-1:2], pairs[2:-1:2], strict=True))
        alpha = 1.0 if kind.endswith("= 1") else 1 / math.sqrt(len(blocks))
        for first, second in blocks:
            a = a + alpha * F.linear(torch.relu(F.linear(a, *first)), *second)
    else:
        for pair in pairs[1:-1]:
            a = torch.relu(F.linear(a, *pair))
    return F.linear(a, *pairs[-1])


@torch.no_grad()
def accuracy(parameters, kind, x, y):
    return (forward(parameters, x, kind).argmax(1) == y).float().mean().item()


def train(kind, depth, rate, data, epochs, seed):
    """Momentum descent; returns the parameters, or None where the loss left the numbers."""
    generator = torch.Generator().manual_seed(seed)
    x, y = data["train"]
    parameters = make_parameters(kind, depth, x, generator)
    optimizer = torch.optim.SGD(parameters, rate, momentum=0.9)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).to(x.device).split(64):
            loss = F.cross_entropy(forward(parameters, x[batch], kind), y[batch])
            if not torch.isfinite(loss):
                return None
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return parameters


def measure(kind, depth, data, epochs, seed):
    """Test accuracy with the rate that is best on the validation images, 0.1 where none ends with numbers."""
    trained = [train(kind, depth, rate, data, epochs, seed) for rate in RATES]
    scored = [(accuracy(p, kind, *data["val"]), number) for number, p in enumerate(trained) if p is not None]
    if not scored:
        return 0.1
    return accuracy(trained[max(scored)[1]], kind, *data["test"])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="depths 10 and 20, one seed, 1,000 images")
    parser.add_argument("--figure", type=Path, default=Path("runs/depths.png"), metavar="PATH")
    options = parser.parse_args(arguments)
    depths, seeds, limit = ((10, 20), 1, 1_000) if options.quick else ((10, 20, 40), 3, 3_000)
    data = load_data(limit, atlas.device())
    print("test accuracy (%), mean and standard deviation over seeds, by number of layers")
    print(f"{'':20}" + "".join(f"{depth:>13}" for depth in depths))
    table = {}
    for kind in KINDS:
        table[kind] = np.array(
            [[100 * measure(kind, depth, data, 2, seed) for seed in range(seeds)] for depth in depths]
        )
        print(f"{kind:20}" + "".join(f"{row.mean():7.1f} ± {row.std():3.1f}" for row in table[kind]), flush=True)
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    for kind, marker in zip(KINDS, "ovsD^", strict=True):
        ax.errorbar(depths, table[kind].mean(1), table[kind].std(1), marker=marker, capsize=3, label=kind)
    ax.set(xlabel="layers", ylabel="test accuracy (%)", xscale="log", ylim=(0, 100))
    ax.set_xticks(depths, depths)
    ax.set_title("How deep, without normalisation?", loc="left", weight="bold", fontsize=11)
    ax.legend(frameon=False)
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure)
    print(f"figure {options.figure}")


if __name__ == "__main__":
    main()
