"""Classify Fashion-MNIST with a residual MLP: one program, one file for all that it does.

python classify.py train                      train; keeps runs/classify.pt, draws runs/classify.png
python classify.py train --resume --epochs 20 go on with that training, to 20 epochs
python classify.py evaluate                   test accuracy, class by class
python classify.py predict                    what it takes the first test images for
python classify.py predict --image shoe.png   the same for a picture: one article, bright on black

A training that is kept is lost only with --overwrite.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import atlas
from atlas import plot, program

CONFIG = {"width": 128, "depth": 2, "lr": 0.05, "batch_size": 128, "seed": 0, "limit": 50_000}
DECAY = 0.8  # of the learning rate, epoch by epoch: it has no end built in, so training can go on


# ------------------------------------------------------------------------------------------------ the checkpoint


def save_checkpoint(path, model, optimizer, facts):
    """Write {"model": ..., "optimizer": ..., **facts} to path by torch.save: the states of both, and facts.

    path: a pathlib.Path in a folder that is there; a file of that name is replaced. facts: a dict of plain data and
    tensors.
    All or nothing: if anything goes wrong, the error reaches the caller, what was at path stays as it was, and no
    other file is left behind. None is left behind when all goes well, either.
    """
    # TODO: write to another name in the same folder, then os.replace(part, path). If either fails, Ctrl-C (no
    # Exception) included, remove the part: try, finally.
    raise NotImplementedError("save_checkpoint")


def load_checkpoint(path, model, optimizer=None):
    """Restore model (and optimizer, where one is given) from the file that save_checkpoint wrote; return its facts.

    Read with weights_only=True, onto the CPU; load_state_dict moves to where the model is. Returns all that is
    neither the model's nor the optimizer's. All or nothing: where state_dict() of the file's model has other names or
    shapes than that of this one, buffers included, ValueError that names the path and one tensor that does not fit;
    model and optimizer stay as they were. The optimizer's state fits where the model does.
    """
    # TODO: read, compare names and shapes with those of model.state_dict(), and only then load.
    raise NotImplementedError("load_checkpoint")


# ------------------------------------------------------------------------------------------------ the model


class Standardise(nn.Module):
    """Subtract the mean of the training pixels, divide by their spread: buffers, so they are in the checkpoint."""

    def __init__(self):
        super().__init__()
        self.mean, self.spread = nn.Buffer(torch.zeros(())), nn.Buffer(torch.ones(()))

    def fit(self, x):
        self.mean.copy_(x.mean())
        self.spread.copy_(x.std())

    def forward(self, x):
        return (x - self.mean) / self.spread


class ResidualMLP(nn.Module):
    """Standardised images (B, 784), values 0 to 1, to logits (B, 10); `depth` layers with a way around them."""

    def __init__(self, width, depth):
        super().__init__()
        self.standardise = Standardise()
        self.first, self.last = nn.Linear(784, width), nn.Linear(width, 10)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        a = functional.relu(self.first(self.standardise(x)))  # (B, width)
        for layer in self.layers:
            a = a + functional.relu(layer(a))
        return self.last(a)


def load_data(limit, device):
    """Train, validation and test split, each (x (N, 784) float32 from 0 to 1, y (N,) int64) on the device."""
    fashion = atlas.data.load("fashion-mnist")
    parts = {
        "train": (fashion.x_train[:limit], fashion.y_train[:limit]),
        "val": (fashion.x_train[50_000:], fashion.y_train[50_000:]),
        "test": (fashion.x_test, fashion.y_test),
    }
    return {name: (pixels(x, device), torch.tensor(y, device=device)) for name, (x, y) in parts.items()}


def pixels(images, device):
    """(N, 28, 28) uint8 as (N, 784) float32 from 0 to 1."""
    return torch.tensor(images, dtype=torch.float32, device=device).flatten(1) / 255


@torch.no_grad()
def evaluate(model, x, y):
    """Loss, and accuracy in per cent."""
    model.eval()
    logits = model(x)  # (N, 10)
    return functional.cross_entropy(logits, y).item(), 100 * (logits.argmax(1) == y).float().mean().item()


# ------------------------------------------------------------------------------------------------ train


def train(options, config, device):
    """Train until options.epochs are done, or with options.resume from the checkpoint on; one checkpoint an epoch.

    Draws the figure, and prints the test accuracy.
    """
    data = load_data(config["limit"], device)
    x, y = data["train"]
    torch.manual_seed(config["seed"])
    model = ResidualMLP(config["width"], config["depth"]).to(device)
    model.standardise.fit(x)
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)
    history = {"train loss": [], "val loss": [], "val accuracy": []}
    if options.resume:
        with program.reading(options.checkpoint):
            facts = load_checkpoint(options.checkpoint, model, optimizer)
            history = facts["history"]
            torch.set_rng_state(facts["random"])
    for epoch in range(len(history["val loss"]) + 1, options.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = config["lr"] * DECAY ** (epoch - 1)
        model.train()
        total, batches = 0.0, torch.randperm(len(x)).to(device).split(config["batch_size"])
        for batch in program.progress(batches, f"epoch {epoch}"):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        for name, value in zip(history, (total / len(x), *evaluate(model, *data["val"])), strict=True):
            history[name].append(value)
        facts = {"config": config, "history": history, "random": torch.get_rng_state()}
        with program.writing(options.checkpoint) as place:  # says of a full disk what to do
            save_checkpoint(place, model, optimizer, facts)
        print(f"epoch {epoch:3}   " + "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items()))
    print(f"test accuracy {evaluate(model, *data['test'])[1]:.2f} %; checkpoint {options.checkpoint}")
    draw(options.figure or options.checkpoint.with_suffix(".png"), history)


def draw(path, history):
    """Write the figure: losses left, accuracy right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    losses = {"train": history["train loss"], "validation": history["val loss"]}
    plot.curves(losses, ylabel="cross-entropy", title="Loss", ax=left)
    plot.curves({"validation": history["val accuracy"]}, ylabel="accuracy (%)", title="Accuracy", ax=right)
    program.save_figure(figure, path)


# ------------------------------------------------------------------------------------------------ evaluate, predict


def trained(options, device):
    """The checkpoint's model, for use."""
    config = program.load(options.checkpoint, CONFIG)["config"]
    with program.reading(options.checkpoint):
        model = ResidualMLP(config["width"], config["depth"]).to(device)
        load_checkpoint(options.checkpoint, model)
    return model.eval()


def report(options, device):
    """Print the test accuracy, and that of each class with the class it is most often mistaken for."""
    fashion = atlas.data.load("fashion-mnist")
    classes, x, y = fashion.classes, pixels(fashion.x_test, device), torch.tensor(fashion.y_test, device=device)
    model = trained(options, device)
    with torch.no_grad():
        predicted = model(x).argmax(1)
    print(f"test accuracy {100 * (predicted == y).float().mean().item():.2f} %")
    for k, name in enumerate(classes):
        counts = torch.bincount(predicted[y == k], minlength=len(classes))
        share, counts[k] = counts[k] / counts.sum(), 0
        print(f"{name:12} {100 * share.item():5.1f} %   most often taken for {classes[int(counts.argmax())]}")


@torch.no_grad()
def predict(options, device):
    """Print the three likeliest classes of the picture, or of the first ten test images."""
    fashion = atlas.data.load("fashion-mnist")
    classes = fashion.classes
    x = pixels(read_image(options.image) if options.image else fashion.x_test[:10], device)
    for n, row in enumerate(trained(options, device)(x).softmax(1)):
        best = row.topk(3)
        likely = (f"{classes[k]} {100 * p:.0f} %" for p, k in zip(best.values, best.indices, strict=True))
        print(f"{options.image or f'test image {n}'}: {', '.join(likely)}")


def read_image(path):
    """A picture as (1, 28, 28) uint8; ends the program where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L").resize((28, 28)))[None]
    except OSError as error:
        sys.exit(f"{path} cannot be read as a picture: {error}")


# ------------------------------------------------------------------------------------------------ the program


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("command", choices=["train", "evaluate", "predict"], nargs="?", default="train", help="(train)")
    add("--epochs", type=program.number(int, 1, 1000), default=8, help="train until so many are done (8)")
    add("--lr", type=program.number(float, 1e-9, 100), help=f"learning rate of the first epoch ({CONFIG['lr']})")
    add("--batch-size", type=program.number(int, 1, 50_000), help=f"examples in a step ({CONFIG['batch_size']})")
    add("--width", type=program.number(int, 1, 10_000), help=f"hidden neurons in a layer ({CONFIG['width']})")
    add("--depth", type=program.number(int, 0, 1000), help=f"layers with a way around them ({CONFIG['depth']})")
    add("--limit", type=program.number(int, 2, 50_000), help="train on so many images only (50,000)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    place = Path("runs/classify.pt")
    add("--checkpoint", type=Path, default=place, metavar="PATH", help=f"written, or read, here ({place})")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--image", metavar="IMAGE", help="predict: a picture, one article bright on black")
    add("--resume", action="store_true", help="train: go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train: anew in place of the checkpoint that is there")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.command == "evaluate":
        return report(options, device)
    if options.command == "predict":
        return predict(options, device)
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    program.reserve(options)
    train(options, config, device)


if __name__ == "__main__":
    program.run(main)
