"""Layer norm in the engine of numpy_mlp.py, proven by a gradient check, and what it is good for: the project's reference.

First every gradient of the new operation is held against central differences and against PyTorch. Then deep MLPs with and
without it train from weights that are too small, right and too large, with the same three learning rates each. Writes
layer_norm.{json,png} to --out.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy_mlp import Node, cross_entropy, differences, load_data, make_model, momentum_step
from threadpoolctl import threadpool_limits

import atlas

EPSILON = 1e-5

# ------------------------------------------------------------------------------------------------ the operation


def layer_norm(x, gamma, beta, epsilon=EPSILON):
    """Each row of x (B, n) with mean 0 and variance 1, times gamma (n,), plus beta (n,); all three are Nodes.

    With x̂ = (x − mean)/σ and g the gradient of x̂, the one of x is (g − mean(g) − x̂·mean(g·x̂))/σ, row by row.
    """
    centred = x.data - x.data.mean(axis=1, keepdims=True)  # (B, n)
    sigma = np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)  # (B, 1)
    normed = centred / sigma
    out = Node(gamma.data * normed + beta.data, (x, gamma, beta))

    def push():
        gamma.receive(out.grad * normed)
        beta.receive(out.grad)
        g = out.grad * gamma.data
        shift, tilt = g.mean(axis=1, keepdims=True), (g * normed).mean(axis=1, keepdims=True)
        x.receive((g - shift - normed * tilt) / sigma)

    out.push = push
    return out


def with_constants(x, gamma, beta, epsilon=EPSILON):
    """Layer norm with a backward pass that takes mean and σ for constants: the check has to find it."""
    out = layer_norm(x, gamma, beta, epsilon)
    sigma = np.sqrt(x.data.var(axis=1, keepdims=True) + epsilon)

    def push():
        gamma.receive(out.grad * (x.data - x.data.mean(axis=1, keepdims=True)) / sigma)
        beta.receive(out.grad)
        x.receive(out.grad * gamma.data / sigma)

    out.push = push
    return out


# ------------------------------------------------------------------------------------------------ the proof


def largest_difference(operation, rng, shape=(4, 6), epsilon=0.1):
    """The largest difference of x's, gamma's and beta's gradients to central differences, relative to the largest entry.

    epsilon is large on purpose: one in the wrong place shows. The loss weighs the entries differently, so that no two
    gradients are alike.
    """
    arrays = [rng.normal(size=shape), rng.normal(size=shape[1]), rng.normal(size=shape[1])]
    weights = Node(rng.normal(size=shape))

    def loss(nodes):
        weighted = operation(*nodes, epsilon) * weights
        total = Node(np.ones((1, shape[0]))) @ weighted @ Node(np.ones((shape[1], 1)))
        return total * total  # so that the gradient that arrives is not the weights alone

    nodes = [Node(array) for array in arrays]
    loss(nodes).backward()
    worst = 0.0
    for node, array in zip(nodes, arrays, strict=True):
        expected = differences(lambda: loss([Node(each) for each in arrays]).data.item(), array)
        worst = max(worst, np.abs(node.grad - expected).max() / np.abs(expected).max())
    return worst


def difference_to_torch(rng, shape=(4, 6)):
    """The largest difference of output and gradients to torch.nn.functional.layer_norm."""
    arrays = [rng.normal(size=shape), rng.normal(size=shape[1]), rng.normal(size=shape[1])]
    nodes, tensors = [Node(each) for each in arrays], [torch.tensor(each, requires_grad=True) for each in arrays]
    y = rng.integers(shape[1], size=shape[0])
    cross_entropy(mine := layer_norm(*nodes), y).backward()
    theirs = torch.nn.functional.layer_norm(tensors[0], shape[1:], *tensors[1:], eps=EPSILON)
    torch.nn.functional.cross_entropy(theirs, torch.tensor(y)).backward()
    pairs = [(mine.data, theirs.detach())] + [(n.grad, t.grad) for n, t in zip(nodes, tensors, strict=True)]
    return max(np.abs(a - b.numpy()).max() for a, b in pairs)


# ------------------------------------------------------------------------------------------------ the experiment


def forward(weights, norms, x):
    """Logits (B, 10), a Node. weights: W1, b1, ...; norms: gamma and beta for each hidden layer, or none."""
    A = Node(x)
    for n in range(0, len(weights), 2):
        A = A @ weights[n].T + weights[n + 1]
        if n + 2 < len(weights):
            A = (layer_norm(A, norms[n], norms[n + 1]) if norms else A).relu()
    return A


def train(data, depth, width, scale, normed, eta, epochs, seed):
    """Train with momentum from weights `scale` times √(2/in). Returns validation accuracy; guessing is 0.1."""
    rng = np.random.default_rng(seed)
    arrays = [np.float32(scale) * each for each in make_model(width, depth, rng)]
    count = len(arrays)
    arrays += [each for _ in range(depth if normed else 0) for each in (np.ones(width, "f4"), np.zeros(width, "f4"))]
    velocity = [np.zeros_like(each) for each in arrays]
    x, y = data["train"]
    with np.errstate(all="ignore"):  # what blows up is a result here
        for _ in range(epochs):
            order = rng.permutation(len(x))
            for batch in np.split(order, range(64, len(x), 64)):
                nodes = [Node(each) for each in arrays]
                cross_entropy(forward(nodes[:count], nodes[count:], x[batch]), y[batch]).backward()
                steps = [
                    momentum_step(node.data, node.grad, V, np.float32(eta), np.float32(0.9))
                    for node, V in zip(nodes, velocity, strict=True)
                ]
                arrays, velocity = map(list, zip(*steps, strict=True))
        nodes = [Node(each) for each in arrays]
        logits = forward(nodes[:count], nodes[count:], data["val"][0]).data
    return float(np.mean(logits.argmax(1) == data["val"][1])) if np.isfinite(logits).all() else 0.1


def draw(path, results, scales, depth):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    for normed, marker, colour in ((True, "o-", atlas.plot.COLOURS[0]), (False, "s--", atlas.plot.COLOURS[1])):
        best = [100 * max(r["accuracy"] for r in results if r["normed"] == normed and r["scale"] == s) for s in scales]
        ax.semilogx(scales, best, marker, color=colour, label="layer norm" if normed else "without")
    ax.axhline(10, color="0.6", linestyle=":")
    ax.set_xticks(scales, [f"{scale:g}" for scale in scales])
    ax.minorticks_off()
    ax.set(xlabel="standard deviation of the first weights ÷ √(2/in)", ylabel="validation accuracy (%)", ylim=(0, 100))
    title = f"{depth} hidden layers: with layer norm the start hardly matters"
    ax.set_title(title, loc="left", weight="bold", fontsize=11)
    ax.legend(frameon=False, loc="center left")
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for what is written (runs)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="fewer starts, fewer images: seconds")
    options = parser.parse_args()
    threadpool_limits(1, "blas")
    rng = np.random.default_rng(options.seed)

    right, wrong = largest_difference(layer_norm, rng), largest_difference(with_constants, rng)
    to_torch = difference_to_torch(rng)
    print(f"layer norm: to central differences {right:.1e}, to PyTorch {to_torch:.1e}; a wrong one: {wrong:.1e}")
    assert right < 1e-6 and to_torch < 1e-12 and wrong > 1e-2

    depth, width, scales, epochs = 12, 64, [0.25, 0.5, 1.0, 2.0, 4.0], 3
    rates, limit = (0.003, 0.01, 0.03), 6000
    if options.quick:
        scales, rates, limit, epochs = [0.25, 1.0], (0.01,), 3000, 2
    data, start, results = load_data(limit), time.perf_counter(), []
    print(f"\n{'weights':>8} {'η':>6} {'without':>8} {'layer norm':>11}")
    for scale in scales:
        for eta in rates:
            row = [train(data, depth, width, scale, normed, eta, epochs, options.seed) for normed in (False, True)]
            results += [
                {"scale": scale, "eta": eta, "normed": normed, "accuracy": accuracy}
                for normed, accuracy in zip((False, True), row, strict=True)
            ]
            print(f"{scale:8g} {eta:6g} {row[0]:8.1%} {row[1]:11.1%}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    report = {"gradient_check": right, "to_torch": to_torch, "wrong_one": wrong, "runs": results}
    (options.out / "layer_norm.json").write_text(json.dumps(report, indent=1))
    draw(options.out / "layer_norm.png", results, scales, depth)
    print(f"\n{time.perf_counter() - start:.0f} s; {options.out / 'layer_norm.json'}, {options.out / 'layer_norm.png'}")


if __name__ == "__main__":
    main()
