"""Examine a network before it is trained: does its signal survive, forward and back? Repair it, and train it to see.

python init_doctor.py                                   30 ReLU layers with He weights; draws runs/doctor.png
python init_doctor.py --activation relu --init torch    the same with the defaults of torch.nn.Linear
python init_doctor.py --init torch --repair --epochs 2  scale each layer on real digits, then train; keeps runs/doctor.pt
python init_doctor.py --resume --epochs 4               go on with that training, to 4 epochs
python init_doctor.py --examine runs/doctor.pt          examine the trained network

A training that is kept is lost only with --overwrite.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import atlas
from atlas import plot, program

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
CONFIG = {"activation": "relu", "init": "he", "depth": 30, "width": 100, "repair": False}
CONFIG |= {"lr": 3e-3, "limit": 12_000, "seed": 0}


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
    program.save_figure(figure, path)


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


def train(network, data, options, config, saved):
    """Train until options.epochs are done, or go on with the training of the checkpoint `saved`; one checkpoint an epoch.

    Gradient descent with momentum, in batches of 64. Prints the validation accuracy of each epoch.
    """
    optimizer = torch.optim.SGD(network.parameters(), config["lr"], momentum=0.9)
    history = {"train loss": [], "val accuracy": []}
    if saved:
        with program.reading(options.checkpoint):
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
            history = saved["history"]
            torch.set_rng_state(saved["random"])
    x, y = data["train"]
    for epoch in range(len(history["train loss"]) + 1, options.epochs + 1):
        order = torch.randperm(len(x)).to(x.device)
        for batch in program.progress(order.split(64), f"epoch {epoch}"):
            loss = F.cross_entropy(network(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        history["train loss"].append(loss.item())
        history["val accuracy"].append(accuracy(network, *data["val"]))
        states = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
        program.save(options.checkpoint, {**states, "history": history, "config": config})
        print(f"epoch {epoch:3}   " + "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items()))


@torch.no_grad()
def accuracy(network, x, y):
    """In per cent."""
    return 100 * (network(x).argmax(1) == y).float().mean().item()


# ------------------------------------------------------------------------------------------------ the program


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--activation", choices=ACTIVATIONS, help=f"after each hidden layer ({CONFIG['activation']})")
    add("--init", choices=INITS, help=f"of the weights ({CONFIG['init']})")
    add("--depth", type=program.number(int, 1, 200), help=f"hidden layers ({CONFIG['depth']})")
    add("--width", type=program.number(int, 1, 5_000), help=f"units in each ({CONFIG['width']})")
    add("--repair", action="store_true", default=None, help="scale each layer to unit variance on real digits first")
    add("--epochs", type=program.number(int, 0, 1000), default=0, help="then train until so many are done (0)")
    add("--lr", type=program.number(float, 1e-7, 10), help=f"learning rate ({CONFIG['lr']})")
    add("--limit", type=program.number(int, 500, 55_000), help="images to train on (12,000)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/doctor.pt"), metavar="PATH", help="kept here (runs/doctor.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--examine", type=Path, metavar="PATH", help="examine the network of this checkpoint, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    figure = options.figure or options.checkpoint.with_suffix(".png")
    if options.examine:
        saved = program.load(options.examine, CONFIG)
        config = saved["config"]
    else:
        saved = program.load(options.checkpoint, CONFIG) if options.resume else None
        config = program.settings(parser, options, CONFIG, saved)
        if options.epochs:
            program.reserve(options)
    activation, depth, width, init = (config[name] for name in ("activation", "depth", "width", "init"))
    data = load_data(config["limit"], device)
    x, y = (part[:500] for part in data["train"])
    torch.manual_seed(config["seed"])
    weights = draw_weights([x.shape[1]] + [width] * depth + [10], init, torch.Generator().manual_seed(config["seed"]))
    network = Network(weights, activation).to(device)
    if options.examine:
        with program.reading(options.examine):
            network.load_state_dict(saved["network"])
        findings = examine(network, x, y)
        report(findings, f"{options.examine}: {activation}, {depth} hidden layers, trained")
        return draw(figure, {"trained": findings})

    examinations = {f"{init} weights": examine(network, x, y)}
    report(examinations[f"{init} weights"], f"{init} weights: {activation}, {depth} hidden layers of {width}")
    if config["repair"]:
        network = Network(unit_variance([W.to(device) for W in weights], x, ACTIVATIONS[activation]), activation)
        examinations["repaired"] = examine(network, x, y)
        report(examinations["repaired"], "\nrepaired")
    if options.epochs:
        print()
        train(network, data, options, config, saved)
        print(f"test accuracy {accuracy(network, *data['test']):.2f} %; checkpoint {options.checkpoint}")
        examinations["trained"] = examine(network, x, y)
    draw(figure, examinations)


if __name__ == "__main__":
    program.run(main)
