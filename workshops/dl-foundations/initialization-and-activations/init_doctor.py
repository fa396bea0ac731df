"""Examine a network before it is trained: does its signal survive, forward and back? Repair it, and train it to see.

python init_doctor.py                                   30 ReLU layers with He weights; draws runs/doctor.png
python init_doctor.py --activation relu --init torch    the same with the defaults of torch.nn.Linear
python init_doctor.py --init torch --repair --epochs 2  scale each layer on real digits, then train; keeps runs/doctor.pt
python init_doctor.py --examine runs/doctor.pt          examine the trained network
"""

import argparse
import math
import pickle
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import atlas
from atlas import plot

ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "leaky": F.leaky_relu}
ACTIVATIONS |= {"gelu": F.gelu, "silu": F.silu}
SPREADS = {
    "small": lambda n_in, n_out: 0.01,
    "torch": lambda n_in, n_out: math.sqrt(1 / (3 * n_in)),
    "lecun": lambda n_in, n_out: math.sqrt(1 / n_in),
    "glorot": lambda n_in, n_out: math.sqrt(2 / (n_in + n_out)),
    "he": lambda n_in, n_out: math.sqrt(2 / n_in),
}
INITS = [*SPREADS, "orthogonal"]
TINY = 1e-3  # a slope below it lets no gradient through


# ------------------------------------------------------------------------------------------------ the network


def draw_weights(widths, init, generator):
    """One W (out, in) for each layer of these widths; the last layer, which has no activation, is LeCun's."""
    weights = []
    for number, (n_in, n_out) in enumerate(zip(widths[:-1], widths[1:], strict=True), 2):
        W = torch.randn(n_out, n_in, generator=generator)
        if number == len(widths):
            weights.append(W * SPREADS["lecun"](n_in, n_out))
        elif init == "orthogonal":
            weights.append(nn.init.orthogonal_(W, math.sqrt(2), generator=generator))
        else:
            weights.append(W * SPREADS[init](n_in, n_out))
    return weights


def unit_variance(weights, X, phi):
    """Scale each layer's weights by one number, so that its z has root mean square 1 on the data X.

    weights: list of tensors W (out, in). X: (B, in of the first layer). phi: the activation between the layers, a function.
    Returns a new list; what was passed in stays as it is.
    """
    # TODO: layer by layer: z = A Wᵀ, its root mean square over all examples and units, W divided by it, and on to
    #       what the scaled layer hands to the next one.
    raise NotImplementedError("unit_variance")


class Network(nn.Module):
    """An MLP with the given weights; biases begin at 0. `forward` also keeps the z of each layer in `self.z`."""

    def __init__(self, weights, activation):
        super().__init__()
        self.W = nn.ParameterList(nn.Parameter(W.clone()) for W in weights)
        self.b = nn.ParameterList(nn.Parameter(W.new_zeros(len(W))) for W in weights)
        self.phi = ACTIVATIONS[activation]

    def forward(self, x):
        self.z, a = [], x
        for W, b in zip(self.W, self.b, strict=True):
            self.z.append(F.linear(a, W, b))  # (B, out)
            a = self.phi(self.z[-1])
        return self.z[-1]  # (B, 10), the last layer has no activation


# ------------------------------------------------------------------------------------------------ the examination


def examine(network, x, y):
    """What each layer does with x (B, D) and y (B,): a list of dicts with mean, size, stuck, dead, gradient."""
    loss = F.cross_entropy(network(x), y)
    gradients = torch.autograd.grad(loss, network.z)
    findings = []
    for number, (z, gradient) in enumerate(zip(network.z, gradients, strict=True), 1):
        stuck = torch.zeros_like(z, dtype=torch.bool)
        if number < len(network.z):
            at = z.detach().requires_grad_()
            stuck = torch.autograd.grad(network.phi(at).sum(), at)[0].abs() < TINY  # (B, out)
        findings.append(
            {
                "mean": z.mean().item(),
                "size": z.square().mean().sqrt().item(),
                "stuck": stuck.float().mean().item(),
                "dead": stuck.all(0).float().mean().item(),
                "gradient": gradient.square().sum(1).mean().sqrt().item() * len(x),  # of one example's loss
            }
        )
    return findings


def verdict(findings):
    """One line on what the numbers of `examine` mean."""
    sizes, gradients = ([layer[key] for layer in findings] for key in ("size", "gradient"))
    if not all(map(math.isfinite, sizes + gradients)):
        return "Ill: some numbers are infinite or NaN. Make the weights smaller."
    hidden = findings[:-1]
    dead = max((layer["dead"] for layer in hidden), default=0)
    if min(sizes) < 1e-4:
        return f"Ill: the signal vanishes on its way forward (z has size {min(sizes):.0e}). Make the weights larger, or --repair."
    if max(sizes) > 1e4:
        return f"Ill: the signal explodes on its way forward (z has size {max(sizes):.0e}). Make the weights smaller."
    if gradients[0] < 1e-4 * gradients[-1]:
        return f"Ill: the gradient vanishes on its way back (factor {gradients[0] / gradients[-1]:.0e})."
    if gradients[0] > 1e4 * gradients[-1]:
        return f"Ill: the gradient explodes on its way back (factor {gradients[0] / gradients[-1]:.0e})."
    if dead > 0.5:
        return f"Ill: in one layer {dead:.0%} of the units are dead."
    ratio = max(max(sizes) / min(sizes), gradients[0] / gradients[-1], gradients[-1] / max(gradients[0], 1e-300))
    if ratio > 30:
        return f"So-so: a factor of {ratio:.0f} between layers. It may train, slowly."
    return "Healthy: the signal arrives, forward and back."


def report(findings, title):
    """Print the findings, at most about 16 lines of them, and the verdict."""
    print(f"{title}\nlayer   mean z   size z   stuck    dead   gradient")
    step = max(1, len(findings) // 15)
    for number, layer in enumerate(findings, 1):
        if number % step == 1 or step == 1 or number == len(findings):
            print(
                f"{number:5} {layer['mean']:8.1e} {layer['size']:8.1e} {layer['stuck']:7.1%} {layer['dead']:7.1%}"
                f" {layer['gradient']:10.1e}"
            )
    print(verdict(findings))


def draw(path, examinations):
    """Write the figure: size of z and of its gradient, and stuck entries, by layer; examinations: title → findings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    for ax, (key, label) in zip(
        figure.subplots(1, 3),
        {"size": "size of z", "gradient": "norm of the gradient of z", "stuck": "stuck entries (%)"}.items(),
        strict=True,
    ):
        factor, scale = (100, "linear") if key == "stuck" else (1, "log")
        lines = {
            title: [factor * (layer[key] or math.nan) if scale == "log" else factor * layer[key] for layer in findings]
            for title, findings in examinations.items()
        }
        plot.curves(lines, xlabel="layer", ylabel=label, yscale=scale, title=label.capitalize(), ax=ax)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:  # ValueError: a format that matplotlib does not know
        sys.exit(f"Cannot draw {path}: {error}. Choose another place with --figure.")
    print(f"figure {path}")


# ------------------------------------------------------------------------------------------------ training


def load_data(limit, device):
    """Train, validation and test split, each (x (N, 784) with mean square 1, y (N,)), on the device."""
    mnist = atlas.data.load("mnist")
    x, x_test = (
        (torch.tensor(images, dtype=torch.float32, device=device).flatten(1) / 255 - 0.1307) / 0.3081
        for images in (mnist.x_train, mnist.x_test)
    )
    y, y_test = (torch.tensor(labels, device=device) for labels in (mnist.y_train, mnist.y_test))
    return {"train": (x[:limit], y[:limit]), "val": (x[55_000:], y[55_000:]), "test": (x_test, y_test)}


def train(network, x, y, epochs, lr, val):
    """Gradient descent with momentum, in batches of 64, as many epochs; prints the validation accuracy of each."""
    optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9)
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(x)).to(x.device)
        for batch in tqdm(order.split(64), f"epoch {epoch}", leave=False, disable=None):  # None: quiet without terminal
            loss = F.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(
            f"epoch {epoch:3}   training loss {loss.item():.3f}   validation accuracy {accuracy(network, *val):.2f} %"
        )


@torch.no_grad()
def accuracy(network, x, y):
    """In per cent."""
    return 100 * (network(x).argmax(1) == y).float().mean().item()


def save(path, network, config):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"network": network.state_dict(), "config": config}, path)
    except (OSError, RuntimeError) as error:
        sys.exit(f"Cannot write {path}: {error}. Choose another place with --checkpoint.")


def load(path, device):
    """The network of a checkpoint, and its configuration; ends the program where there is none."""
    try:
        saved = torch.load(path, map_location=device, weights_only=True)  # data only: it cannot run foreign code
        states, config = saved["network"], saved["config"]
        network = Network([states[f"W.{i}"] for i in range(config["depth"] + 1)], config["activation"])
        network.load_state_dict(states)
        return network.to(device), config
    except FileNotFoundError:
        sys.exit(f"There is no checkpoint {path} yet. Train one first: python init_doctor.py --epochs 2")
    except (OSError, RuntimeError, EOFError, LookupError, TypeError, pickle.UnpicklingError):
        sys.exit(f"{path} is damaged, or no checkpoint of this program. Move it away, and train a new one.")


# ------------------------------------------------------------------------------------------------ the program


def number(kind, low, high):
    """An argparse type: a number of this kind from low to high."""

    def parse(text):
        if not low <= kind(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low:,} to {high:,}")
        return kind(text)

    parse.__name__ = "whole number" if kind is int else "number"  # what argparse calls it in its messages
    return parse


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--activation", choices=ACTIVATIONS, default="relu", help="after each hidden layer (relu)")
    add("--init", choices=INITS, default="he", help="of the weights (he)")
    add("--depth", type=number(int, 1, 200), default=30, help="hidden layers (30)")
    add("--width", type=number(int, 1, 5_000), default=100, help="units in each (100)")
    add("--repair", action="store_true", help="scale each layer to unit variance on real digits first")
    add("--epochs", type=number(int, 0, 1000), default=0, help="train so long after the examination (0)")
    add("--lr", type=number(float, 1e-7, 10), default=3e-3, help="learning rate (0.003)")
    add("--limit", type=number(int, 500, 55_000), default=12_000, help="images to train on (12,000)")
    add("--seed", type=number(int, 0, 2**32 - 1), default=0, help="of weights and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/doctor.pt"), metavar="PATH", help="kept here (runs/doctor.pt)")
    add("--figure", type=Path, default=Path("runs/doctor.png"), metavar="PATH", help="drawn here (runs/doctor.png)")
    add("--examine", type=Path, metavar="PATH", help="examine the network of this checkpoint, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    try:
        device = atlas.device(None if options.device == "auto" else options.device)
    except ValueError as error:
        parser.error(str(error))
    data = load_data(options.limit, device)
    x, y = (part[:500] for part in data["train"])
    if options.examine:
        network, config = load(options.examine, device)
        findings = examine(network, x, y)
        report(findings, f"{options.examine}: {config['activation']}, {config['depth']} hidden layers, trained")
        return draw(options.figure, {"trained": findings})

    torch.manual_seed(options.seed)
    widths = [x.shape[1]] + [options.width] * options.depth + [10]
    weights = draw_weights(widths, options.init, torch.Generator().manual_seed(options.seed))
    network = Network(weights, options.activation).to(device)
    title = f"{options.init} weights"
    examinations = {title: examine(network, x, y)}
    report(examinations[title], f"{title}: {options.activation}, {options.depth} hidden layers of {options.width}")
    if options.repair:
        weights = unit_variance([W.to(device) for W in weights], x, ACTIVATIONS[options.activation])
        network = Network(weights, options.activation).to(device)
        examinations["repaired"] = examine(network, x, y)
        report(examinations["repaired"], "\nrepaired")
    if options.epochs:
        print()
        try:
            train(network, *data["train"], options.epochs, options.lr, data["val"])
        except KeyboardInterrupt:
            sys.exit("\nStopped.")
        save(options.checkpoint, network, {"activation": options.activation, "depth": options.depth})
        print(f"test accuracy {accuracy(network, *data['test']):.2f} %; checkpoint {options.checkpoint}")
        examinations["trained"] = examine(network, x, y)
    draw(options.figure, examinations)


if __name__ == "__main__":
    main()
