"""Which training images made this answer? Influence by conjugate gradient, judged by leaving images out: the reference.

Softmax regression with weight decay on a few hundred digits of MNIST. For some test images it predicts, for each
training image, how much the loss of the test image would change without it (Koh and Liang, 2017): g_testᵀ H⁻¹ g_i / N,
with H⁻¹ g_test from conjugate gradient on Hessian-vector products. Then it trains anew without single images, and
compares. Rivals: the same without the Hessian, and the training image's own loss.
Writes influence.{json,png} to --out.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import atlas
from atlas import plot


def load_data(limit, tests):
    """Training and test images (N, 785), in [0, 1] with a last column of ones for the bias, and labels."""
    mnist = atlas.data.load("mnist")
    parts = []
    for x, y, n in ((mnist.x_train, mnist.y_train, limit), (mnist.x_test, mnist.y_test, tests)):
        x = torch.tensor(x[:n]).flatten(1).double() / 255
        parts += [torch.cat([x, torch.ones(n, 1, dtype=x.dtype)], 1), torch.tensor(y[:n])]
    return parts


def objective(w, x, y, decay, keep=None):
    """Mean cross-entropy over all N (terms may be left out, the N stays) plus the penalty. w: (785, 10)."""
    losses = F.cross_entropy(x @ w, y, reduction="none")
    return (losses if keep is None else losses[keep]).sum() / len(x) + decay / 2 * (w**2).sum()


def minimise(start, x, y, decay, keep=None):
    """The minimum by Newton's method, until the gradient is almost 0: what leaving one out changes is small.

    Each step solves H s = g by conjugate gradient, and is halved until the objective falls.
    """
    w = start.clone()
    for _ in range(50):
        at = w.clone().requires_grad_()
        loss = objective(at, x, y, decay, keep)
        (g,) = torch.autograd.grad(loss, at, create_graph=True)
        if g.norm() < 1e-9:
            break
        s, _ = conjugate_gradient(lambda v, g=g, at=at: hessian_times(g, at, v), g.detach(), tol=1e-4)
        rate = 1.0
        while objective(w - rate * s, x, y, decay, keep) > loss and rate > 1e-6:
            rate /= 2
        w = w - rate * s
    return w


def hessian_times(gradient, w, v):
    """H v, from a gradient that still has its graph."""
    return torch.autograd.grad((gradient * v).sum(), w, retain_graph=True)[0]


def conjugate_gradient(product, b, steps=500, tol=1e-8):
    """Solve H s = b for a symmetric, positive H known by its products. Returns s and the number of products."""
    s, residual = torch.zeros_like(b), b.clone()
    way, square = residual.clone(), (b * b).sum()
    products = 0
    while products < steps:
        image = product(way)
        products += 1
        length = square / (way * image).sum()
        s, residual = s + length * way, residual - length * image
        before, square = square, (residual * residual).sum()
        if square.sqrt() <= tol * b.norm():
            break
        way = residual + square / before * way
    return s, products


def gradients_of_each(w, x, y):
    """∂ℓ_i/∂w of each example without the penalty, (N, 785, 10): an outer product of x_i and p - e_y."""
    errors = (x @ w).softmax(1) - F.one_hot(y, 10)
    return torch.einsum("ni,no->nio", x, errors)


def influences(w, x, y, x_test, y_test, decay):
    """Predicted change of one test image's loss when training image i is left out: with H, and without. (N,) each."""
    w = w.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(w, x, y, decay), w, create_graph=True)
    test = gradients_of_each(w.detach(), x_test[None], y_test[None])[0]
    solved, products = conjugate_gradient(lambda v: hessian_times(gradient, w, v), test)
    each = gradients_of_each(w.detach(), x, y)
    with_H, without = (torch.einsum("nio,io->n", each, v) / len(x) for v in (solved, test))
    return with_H, without, products


def study(limit, tests, left_out, decay):
    """For the `tests` test images with the largest loss: predictions, and the truth for `left_out` training images."""
    x, y, x_test, y_test = load_data(limit, 500)
    w = minimise(torch.zeros(785, 10, dtype=x.dtype), x, y, decay)
    losses = F.cross_entropy(x_test @ w, y_test, reduction="none")
    accuracy = (x_test @ w).argmax(1).eq(y_test).double().mean().item()
    print(f"{limit} training images, test accuracy {accuracy:.1%} on 500; the hardest test images:")
    own = F.cross_entropy(x @ w, y, reduction="none")
    cases = []
    for t in losses.topk(tests).indices.tolist():
        with_H, without, products = influences(w, x, y, x_test[t], y_test[t], decay)
        half = left_out // 2  # the most influential, and others at random
        chosen = with_H.abs().topk(half).indices.tolist()
        others = torch.randperm(limit, generator=torch.Generator().manual_seed(t)).tolist()
        chosen += [i for i in others if i not in chosen][: left_out - half]
        truth = []
        for i in chosen:
            keep = torch.arange(limit) != i
            changed = F.cross_entropy(x_test[t] @ minimise(w, x, y, decay, keep), y_test[t])
            truth.append((changed - losses[t]).item())
        scores = {"H⁻¹": with_H, "without H": without, "own loss": own}
        found = {name: np.corrcoef(score[chosen], truth)[0, 1] for name, score in scores.items()}
        words = "   ".join(f"{name} {value:.3f}" for name, value in found.items())
        slope = float(np.polyfit(with_H[chosen], truth, 1)[0])
        print(f"image {t:3}, loss {losses[t]:.2f}, {products} products; correlation with leaving out: {words}")
        print(f"           true changes are {slope:.2f} times the predicted ones")
        cases.append(
            {"image": t, "truth": truth, "predicted": with_H[chosen].tolist(), "plain": without[chosen].tolist()}
            | {"correlation": found, "products": products, "slope": slope}
        )
    return cases


def draw(path, cases):
    """Predicted against true change, one point for each image that was left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for ax, name, title in zip(
        figure.subplots(1, 2),
        ("predicted", "plain"),
        ("With H⁻¹: right order, too small", "Without H: not even the order"),
        strict=True,
    ):
        for case, colour, mark in zip(cases, plot.COLOURS, plot.MARKERS, strict=False):
            ax.plot(case[name], case["truth"], mark, color=colour, markersize=4, label=f"test image {case['image']}")
        low, high = min(min(c["truth"]) for c in cases), max(max(c["truth"]) for c in cases)
        ax.plot([low, high], [low, high], color="0.6", linewidth=1)
        ax.set(xlabel="predicted change of the test loss", ylabel="change after training anew")
        ax.set_title(title, loc="left", size=11, weight="bold")
        ax.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=400, help="training images (400)")
    parser.add_argument("--tests", type=int, default=3, help="test images to explain (3)")
    parser.add_argument("--left-out", type=int, default=40, help="training images to leave out, for each (40)")
    parser.add_argument("--decay", type=float, default=0.01, help="weight decay λ (0.01)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the results (runs)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: 150 images, 1 test image, 8 left out")
    options = parser.parse_args(arguments)
    if options.quick:
        options.limit, options.tests, options.left_out = 150, 1, 8
    cases = study(options.limit, options.tests, options.left_out, options.decay)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "influence.json").write_text(json.dumps(cases, indent=2))
        draw(options.out / "influence.png", cases)
    except OSError as error:
        sys.exit(f"Cannot write to {options.out}: {error}. Choose another place with --out.")
    print(f"written to {options.out}: influence.json, influence.png")


if __name__ == "__main__":
    main()
