"""Train an MLP on MNIST, go on with its training, and read digits in image files.

python train_mlp.py                        train; keeps runs/mlp.pt, draws runs/mlp.png
python train_mlp.py --resume --epochs 12   go on with that training, to 12 epochs
python train_mlp.py --sample digit.png     draw a test digit as a camera might see it
python train_mlp.py --predict digit.png    read the digit in an image file of yours
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

import atlas
from atlas import plot, program

CONFIG = {"width": 256, "depth": 1, "lr": 6e-3, "batch_size": 128, "seed": 0, "limit": 55_000}
DECAY = 0.65  # of the learning rate, epoch by epoch: unlike one-cycle it has no end built in, so training can go on


# ------------------------------------------------------------------------------------------------ pictures


def border(picture):
    """The pixels along the four edges of a picture (H, W), as (2H + 2W,): nearly all of them show paper."""
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def place_like_mnist(ink):
    """Fit ink (H, W), 0 where there is none, into 20 × 20, proportions kept, centre of mass in the middle of 28 × 28.

    Returns (28, 28) float32. MNIST was made this way (LeCun, Bottou, Bengio and Haffner, 1998).
    """
    if not ink.any():
        return np.zeros((28, 28), np.float32)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # (h, w)
    width, height = (max(1, round(20 * side / max(digit.shape))) for side in digit.shape[::-1])
    image = Image.fromarray(digit.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    small = np.asarray(image)  # (height, width), the longer of them 20
    canvas = np.zeros((28, 28), np.float32)
    centre = [(np.indices(small.shape)[axis] * small).sum() / small.sum() for axis in (0, 1)]
    top, left = (int(np.clip(round(14 - c), 0, 28 - side)) for c, side in zip(centre, small.shape, strict=True))
    canvas[top : top + height, left : left + width] = small
    return canvas


def prepare_image(pixels):
    """Turn a picture of one digit into what the network was trained on: light ink on black, like MNIST.

    pixels: (H, W) uint8, 0 black to 255 white. Ink may be darker or lighter than the paper, the paper of any grey.
    Returns (28, 28) float32 in 0...1. Raises ValueError for an empty page: no pixel is 0.1 (of 0...1) off the paper.
    """
    # TODO: 1. Scale to 0...1. The paper's grey is the median of the border.
    #       2. Ink is what lies furthest from the paper, upwards or downwards: measure it so that ink counts positive.
    #       3. An empty page is a ValueError with a message. Else stretch, so that the strongest ink is 1, and set to 0
    #          what is below 0.25: paper is never quite even. Then place_like_mnist does the rest.
    ### BEGIN SOLUTION
    ink = pixels / 255 - np.median(border(pixels)) / 255  # (H, W), paper is 0
    if -ink.min() > ink.max():
        ink = -ink
    if ink.max() < 0.1:
        raise ValueError("the page is empty: ink and paper are nearly the same grey")
    ink = ink / ink.max()
    return place_like_mnist(np.where(ink < 0.25, 0, ink))
    ### END SOLUTION


def photograph(digit, rng):
    """Draw an MNIST digit (28, 28) uint8 as a camera might see it: (H, W) uint8, dark ink on grey, uneven paper."""
    zoom = int(rng.integers(3, 7))
    height, width = rng.integers(28 * zoom, 45 * zoom, size=2)
    top, left = rng.integers(0, height - 28 * zoom + 1), rng.integers(0, width - 28 * zoom + 1)
    ink = np.zeros((height, width))
    large = Image.fromarray(digit).resize((28 * zoom, 28 * zoom), Image.Resampling.BICUBIC)
    ink[top : top + 28 * zoom, left : left + 28 * zoom] = np.asarray(large) / 255
    shade = np.linspace(-0.03, 0.03, width) + rng.normal(0, 0.01, (height, width))  # light from one side, and noise
    picture = rng.uniform(0.45, 0.9) + shade - rng.uniform(0.35, 0.4) * ink
    return (255 * picture.clip(0, 1)).astype(np.uint8)


def sample(path, rng):
    """Write a photograph of a test digit to `path`."""
    try:
        Image.fromarray(photograph(rng.choice(atlas.data.load("mnist").x_test), rng)).save(path)
    except (OSError, ValueError) as error:  # ValueError: an unknown format
        sys.exit(f"Cannot write {path}: {error}")
    print(f"{path} is drawn; to read it: python train_mlp.py --predict {path}")


def read_picture(path):
    """The grey values (H, W) uint8 of an image file, turned upright; what is transparent counts as white paper."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGBA")
    except FileNotFoundError:
        sys.exit(f"There is no file {path}.")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        sys.exit(f"{path} is not an image that can be read: {error}")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("L"))


# ------------------------------------------------------------------------------------------------ training


def make_model(width, depth):
    """`depth` hidden layers of `width` neurons: images (B, 28, 28) in 0...1 to logits (B, 10)."""
    widths = [28 * 28] + [width] * depth
    layers = [nn.Flatten()]  # (B, 784)
    for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]  # (B, width)
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))  # (B, 10)


def load_data(limit, device):
    """Train, validation and test split, each (x (N, 28, 28) float32 in 0...1, y (N,) int64) on the device."""
    mnist = atlas.data.load("mnist")
    x, x_test = (torch.tensor(x, dtype=torch.float32, device=device) / 255 for x in (mnist.x_train, mnist.x_test))
    y, y_test = (torch.tensor(y, device=device) for y in (mnist.y_train, mnist.y_test))
    return {"train": (x[:limit], y[:limit]), "val": (x[55_000:], y[55_000:]), "test": (x_test, y_test)}


def train_epoch(model, x, y, optimizer, batch_size, label):
    """Each example once, in a new order, in batches. Returns the mean loss."""
    total = 0.0
    order = torch.randperm(len(x)).to(x.device)  # drawn on the CPU: its generator's state is in the checkpoint
    for batch in program.progress(order.split(batch_size), label):
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(x)


@torch.no_grad()
def evaluate(model, x, y):
    """Loss and accuracy in per cent."""
    logits = model(x)  # (N, 10)
    return nn.functional.cross_entropy(logits, y).item(), 100 * (logits.argmax(1) == y).float().mean().item()


def train(options, config, device, saved=None):
    """Train until options.epochs are done, or go on with the training of the checkpoint `saved`; one checkpoint an epoch.

    Returns the model, the data and the history.
    """
    torch.manual_seed(config["seed"])
    model = make_model(config["width"], config["depth"]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, DECAY)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    history = {"train loss": [], "val loss": [], "val accuracy": []}
    if saved:
        with program.reading(options.checkpoint):
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            history = saved["history"]
            torch.set_rng_state(saved["random"])
    data = load_data(config["limit"], device)
    for epoch in range(len(history["val loss"]) + 1, options.epochs + 1):
        loss = train_epoch(model, *data["train"], optimizer, config["batch_size"], f"epoch {epoch}")
        schedule.step()
        for name, value in zip(history, (loss, *evaluate(model, *data["val"])), strict=True):
            history[name].append(value)
        states = {name: part.state_dict() for name, part in parts.items()}
        random = torch.get_rng_state()
        program.save(options.checkpoint, {**states, "history": history, "random": random, "config": config})
        print(f"epoch {epoch:3}   " + "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items()))
    return model, data, history


# ------------------------------------------------------------------------------------------------ the program


def predict(paths, checkpoint):
    """Print, for each image file, the digit and the probabilities of all ten."""
    saved = program.load(checkpoint, CONFIG)
    model = make_model(saved["config"]["width"], saved["config"]["depth"])
    with program.reading(checkpoint):
        model.load_state_dict(saved["model"])
    for path in paths:
        try:
            picture = prepare_image(read_picture(path))  # (28, 28)
        except ValueError as error:
            sys.exit(f"{path}: {error}")
        with torch.no_grad():
            p = model(torch.tensor(picture)[None]).softmax(1)[0]  # (10,)
        print(f"{path}: {p.argmax()}   " + "  ".join(f"{digit}: {100 * each:.1f} %" for digit, each in enumerate(p)))


def draw(path, model, history, x, y):
    """Write the figure: how the training went, and what is mistaken for what on x (N, 28, 28), y (N,)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    curves, confusion = figure.subplots(1, 2)
    losses = {"train": history["train loss"], "validation": history["val loss"]}
    plot.curves(losses, ylabel="cross-entropy", yscale="log", title="Training", ax=curves)
    accuracy = evaluate(model, x, y)[1]
    plot.confusion(y, model(x).argmax(1), title=f"{accuracy:.2f} % of {len(y):,} test digits", ax=confusion)
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--epochs", type=program.number(int, 1, 1000), default=8, help="train until so many are done (8)")
    add("--lr", type=program.number(float, 1e-6, 1), help=f"learning rate of the first epoch ({CONFIG['lr']})")
    add("--batch-size", type=program.number(int, 1, 55_000), help=f"examples in a step ({CONFIG['batch_size']})")
    add("--width", type=program.number(int, 1, 10_000), help=f"neurons in a hidden layer ({CONFIG['width']})")
    add("--depth", type=program.number(int, 0, 20), help=f"hidden layers ({CONFIG['depth']})")
    add("--limit", type=program.number(int, 1, 55_000), help="train on so many images only (55,000)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/mlp.pt"), metavar="PATH", help="kept here (runs/mlp.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--sample", type=Path, metavar="PATH", help="draw a test digit as a picture to try --predict on, and end")
    add("--predict", type=Path, nargs="+", metavar="IMAGE", help="read the digits in these files, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.predict:
        return predict(options.predict, options.checkpoint)
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    rng = np.random.default_rng(config["seed"])
    if options.sample:
        return sample(options.sample, rng)
    program.reserve(options)
    model, data, history = train(options, config, device, saved)
    x, y = data["test"]
    print(f"test accuracy {evaluate(model, x, y)[1]:.2f} %; checkpoint {options.checkpoint}")
    draw(options.figure or options.checkpoint.with_suffix(".png"), model, history, x, y)
    pictures = [photograph((255 * digit).byte().numpy(), rng) for digit in x[:500].cpu()]
    prepared = torch.tensor(np.stack([prepare_image(picture) for picture in pictures]), device=device)  # (500, 28, 28)
    print(f"as photographs, 500 of them: {evaluate(model, prepared, y[:500])[1]:.1f} %")


if __name__ == "__main__":
    program.run(main)
