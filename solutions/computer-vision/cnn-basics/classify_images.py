"""Train a small CNN on pictures, go on with its training, and classify image files.

python classify_images.py                          train on Fashion-MNIST; keeps runs/cnn.pt, draws runs/cnn.png
python classify_images.py --flip --shift 2         the same with pictures mirrored and moved at random
python classify_images.py --dataset mnist          digits; cifar10 after: atlas data fetch cifar10
python classify_images.py --resume --epochs 12     go on with that training, to 12 epochs
python classify_images.py --predict shoe.png       what is on a picture of yours
python classify_images.py --form form.png          draw a form filled in by hand, as photographed (for the project)

The checkpoints of the workshop were made by this program; the text file beside each has the command and its log.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

import atlas
from atlas import plot, program

CONFIG = {"dataset": "fashion-mnist", "width": 16, "mean": False, "flip": False, "shift": 0}
CONFIG |= {"lr": 1e-2, "batch_size": 128, "seed": 0, "limit": 60_000}
DECAY = 0.6  # of the learning rate, epoch by epoch: it has no end built in, so training can go on
VALIDATION = 5000  # so many pictures at the end of the training set are for validation


# ------------------------------------------------------------------------------------------------ pictures


def augment(x, flip, shift, generator):
    """Mirror and move each picture of a batch at random, each in its own way; what comes in at the edges is 0.

    x: (B, C, H, W). flip: whether pictures are mirrored left to right, each with probability 1/2. shift: each picture
    moves by -shift, ..., shift pixels down and, drawn apart, to the right; all 2·shift + 1 steps are equally likely,
    and all its channels move alike. generator: torch.Generator on the CPU, from which everything is drawn.
    Returns a new tensor like x.
    """
    # TODO: without a loop over pictures. Which row, and which column, of the padded picture does each pixel come from?
    ### BEGIN SOLUTION
    B, C, H, W = x.shape
    top, left = torch.randint(2 * shift + 1, (2, B, 1), generator=generator)  # (B, 1) each
    rows, columns = top + torch.arange(H), left + torch.arange(W)  # (B, H), (B, W)
    if flip:
        mirrored = torch.rand(B, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = rows.to(x.device), columns.to(x.device)
    image, channel = torch.arange(B)[:, None, None, None], torch.arange(C)[:, None, None]
    padded = nn.functional.pad(x, [shift] * 4)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
    ### END SOLUTION


def read_picture(path, shape):
    """An image file as (C, H, W) in 0...1, made like the training pictures: grey ones have a dark background."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB" if shape[0] == 3 else "L")
    except FileNotFoundError:
        sys.exit(f"There is no file {path}.")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        sys.exit(f"{path} is not an image that can be read: {error}")
    pixels = np.asarray(image)
    if shape[0] == 1:
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        if np.median(border) > 127:
            image = ImageOps.invert(image)
    image = ImageOps.pad(image, shape[:0:-1])  # the whole picture, with bars where it is not square
    return torch.tensor(np.asarray(image)).reshape(shape[1], shape[2], -1).permute(2, 0, 1) / 255


# ------------------------------------------------------------------------------------------------ training


def make_model(config, shape, classes):
    """The network of the workshop: pictures (B, C, H, W) in 0...1 to logits (B, classes).

    Its weights stand in the same order as in the notebook's SmallCNN, and with the same names.
    """
    (C, H, W), width = shape, config["width"]

    def block(n_in, n_out, kernel, stride):
        conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)  # batch norm has a bias
        return conv, nn.BatchNorm2d(n_out), nn.ReLU()

    features = nn.Sequential(
        *block(C, width, 5, 2),  # (B, width, H/2, W/2)
        *block(width, 2 * width, 3, 1),
        nn.MaxPool2d(2),  # (B, 2 width, H/4, W/4)
        *block(2 * width, 4 * width, 3, 1),  # (B, 4 width, H/4, W/4)
    )
    model = nn.Sequential()
    model.features = features
    model.pool = nn.AdaptiveAvgPool2d(1) if config["mean"] else nn.Identity()
    model.flatten = nn.Flatten()
    with torch.no_grad():
        n = model.eval()(torch.zeros(1, C, H, W)).shape[1]
    model.head = nn.Linear(n, classes)
    return model.to(memory_format=torch.channels_last)


def as_batch(images, device):
    """uint8 (N, H, W) or (N, H, W, 3) as float (N, C, H, W) in 0...1 on the device."""
    x = torch.tensor(images, device=device)
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return (x / 255).contiguous(memory_format=torch.channels_last)


def load_data(name, limit, device):
    """Train, validation and test split, each (x (N, C, H, W), y (N,)), and the names of the classes."""
    try:
        loaded = atlas.data.load(name, fetch=False)
    except atlas.data.DataError as error:
        sys.exit(str(error))
    y, y_test = (torch.tensor(y, device=device) for y in (loaded.y_train, loaded.y_test))
    of_train = min(limit, len(y) - VALIDATION)
    data = {"train": (as_batch(loaded.x_train[:of_train], device), y[:of_train])}
    data["val"] = as_batch(loaded.x_train[-VALIDATION:], device), y[-VALIDATION:]
    data["test"] = as_batch(loaded.x_test, device), y_test
    return data, loaded.classes


def train_epoch(model, x, y, optimizer, config, epoch):
    """Each picture once, in a new order, in batches, augmented. Returns the mean loss."""
    model.train()
    total, batch_size = 0.0, config["batch_size"]
    order = torch.randperm(len(x)).to(x.device)  # drawn on the CPU: its generator's state is in the checkpoint
    batches = order.split(batch_size)
    for n, batch in enumerate(program.progress(batches, f"epoch {epoch}"), 1):
        warm = min(1.0, 2 * n / len(batches)) if epoch == 1 else 1.0
        for group in optimizer.param_groups:
            group["lr"] = config["lr"] * warm * DECAY ** (epoch - 1)
        images = augment(x[batch], config["flip"], config["shift"], torch.default_generator)
        loss = nn.functional.cross_entropy(model(images), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(x)


@torch.no_grad()
def predict(model, x):
    """Logits (N, K), in batches, in evaluation mode."""
    model.eval()
    return torch.cat([model(batch) for batch in x.split(1000)])


def evaluate(model, x, y):
    """Loss and accuracy in per cent."""
    logits = predict(model, x)
    return nn.functional.cross_entropy(logits, y).item(), 100 * (logits.argmax(1) == y).float().mean().item()


def train(options, config, data, classes, device, saved=None):
    """Train until options.epochs are done, or go on with the checkpoint `saved`; one checkpoint an epoch.

    Returns the model and the history.
    """
    torch.manual_seed(config["seed"])
    shape = tuple(data["train"][0].shape[1:])
    model = make_model(config, shape, len(classes)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=0.05)
    history = {"train loss": [], "val loss": [], "val accuracy": []}
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            history = saved["history"]
            torch.set_rng_state(saved["random"])
    for epoch in range(len(history["val loss"]) + 1, options.epochs + 1):
        loss = train_epoch(model, *data["train"], optimizer, config, epoch)
        for name, value in zip(history, (loss, *evaluate(model, *data["val"])), strict=True):
            history[name].append(value)
        states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        facts = {"shape": shape, "classes": list(classes), "random": torch.get_rng_state()}
        program.save(options.checkpoint, {**states, **facts, "history": history, "config": config})
        line = "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
        print(f"epoch {epoch:3}   {line}   computed {time.process_time():.0f} s", flush=True)
    return model, history


# ------------------------------------------------------------------------------------------------ the program


def classify(paths, checkpoint):
    """Print, for each image file, the three likeliest classes."""
    saved = program.load(checkpoint, CONFIG)
    with program.reading(checkpoint):
        model = make_model(saved["config"], saved["shape"], len(saved["classes"]))
        model.load_state_dict(saved["model"])
    for path in paths:
        p = predict(model, read_picture(path, saved["shape"])[None]).softmax(1)[0]
        best = p.topk(3).indices.tolist()
        print(f"{path}: " + "   ".join(f"{saved['classes'][k]} {100 * p[k]:.1f} %" for k in best))


def draw(path, model, history, data, classes):
    """Write the figure: how the training went, and what is mistaken for what on the test pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    curves, confusion = figure.subplots(1, 2)
    losses = {"train": history["train loss"], "validation": history["val loss"]}
    plot.curves(losses, ylabel="cross-entropy", title="Training", ax=curves)
    logits, y = predict(model, data[0]), data[1]
    accuracy = 100 * (logits.argmax(1) == y).float().mean().item()
    print(f"test accuracy {accuracy:.2f} %")
    title = f"{accuracy:.2f} % of {len(y):,} test pictures"
    plot.confusion(y.cpu(), logits.argmax(1).cpu(), classes, title=title, ax=confusion)
    program.save_figure(figure, path)


FORM = {"rows": 8, "columns": 10, "box": 44, "pitch": 60, "margin": 70, "mark": 22}
"""The printed form in pixels: a mark at each corner, boxes of side `box` with their left edges `pitch` apart."""


def form_size():
    """Height and width of the printed form; the marks' centres lie at margin/2 from its edges."""
    high, wide = ((n - 1) * FORM["pitch"] + FORM["box"] for n in (FORM["rows"], FORM["columns"]))
    return high + 2 * FORM["margin"], wide + 2 * FORM["margin"]


def photograph_form(images, labels, rng):
    """A form filled in with digits (N, 28, 28) uint8, as photographed: aslant, in uneven light, with noise.

    Returns the picture (H, W) uint8 and what was written, (rows, columns), -1 where a box is empty.
    """
    height, width = form_size()
    box, pitch, margin, mark = (FORM[name] for name in ("box", "pitch", "margin", "mark"))
    page, half = np.zeros((height, width)), (margin - mark) // 2  # ink: 0 none, 1 black
    for top in (half, height - half - mark):
        for left in (half, width - half - mark):
            page[top : top + mark, left : left + mark] = 1
    written = np.full((FORM["rows"], FORM["columns"]), -1)
    for row, column in np.ndindex(written.shape):
        top, left = margin + row * pitch, margin + column * pitch
        page[top : top + box, left : left + box] = 0.45
        page[top + 2 : top + box - 2, left + 2 : left + box - 2] = 0
        if rng.random() < 0.15:
            continue
        n = rng.integers(len(labels))
        side = int(rng.integers(26, 40))
        digit = Image.fromarray(images[n]).resize((side, side), Image.Resampling.BICUBIC)
        y, x = (start + int(rng.integers(2, box - side - 1)) for start in (top, left))
        ink = np.asarray(digit) / 255 * rng.uniform(0.6, 0.95)
        page[y : y + side, x : x + side] = np.maximum(page[y : y + side, x : x + side], ink)
        written[row, column] = labels[n]
    border = 60
    page = np.pad(page, border)
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (page.shape[1], page.shape[0])
    seen = corners + rng.uniform(-35, 35, (4, 2))
    coefficients = perspective(seen, corners)  # where in the page a pixel of the photograph comes from
    size = page.shape[::-1]
    ink = Image.fromarray(page.astype(np.float32)).transform(
        size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC
    )
    light = np.add.outer(np.linspace(-1, 1, size[1]) * rng.uniform(-0.1, 0.1), np.linspace(-1, 1, size[0]) * 0.12)
    paper = rng.uniform(0.7, 0.8) + light
    picture = paper * (1 - 0.85 * np.asarray(ink)) + rng.normal(0, 0.02, paper.shape)
    return (255 * picture.clip(0, 1)).astype(np.uint8), written


def perspective(source, target):
    """The eight numbers (a, ..., h) that take points (x, y) of `source` to `target`, (4, 2) each.

    x' = (ax + by + c)/(gx + hy + 1), y' = (dx + ey + f)/(gx + hy + 1), as PIL's perspective has them.
    """
    rows, values = [], []
    for (x, y), (to_x, to_y) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -x * to_x, -y * to_x], [0, 0, 0, x, y, 1, -x * to_y, -y * to_y]]
        values += [to_x, to_y]
    return np.linalg.solve(np.array(rows, float), np.array(values, float))


def draw_form(path, rng):
    """Write a form with MNIST's test digits, and beside it a JSON file with what was written."""
    mnist = atlas.data.load("mnist")
    picture, written = photograph_form(mnist.x_test, mnist.y_test, rng)
    try:
        Image.fromarray(picture).save(path)
        path.with_suffix(".json").write_text(json.dumps(written.tolist()) + "\n")
    except (OSError, ValueError) as error:  # ValueError: an unknown format
        sys.exit(f"Cannot write {path}: {error}")
    print(f"{path} is drawn; what was written in it: {path.with_suffix('.json')}")


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", choices=["fashion-mnist", "mnist", "cifar10"], help="what to learn (fashion-mnist)")
    add("--epochs", type=program.number(int, 1, 1000), default=6, help="train until so many are done (6)")
    add("--lr", type=program.number(float, 1e-6, 1), help=f"highest learning rate ({CONFIG['lr']})")
    add("--batch-size", type=program.number(int, 2, 10_000), help=f"pictures in a step ({CONFIG['batch_size']})")
    add("--width", type=program.number(int, 1, 512), help=f"channels of the first layer ({CONFIG['width']})")
    add("--mean", action="store_true", default=None, help="average each map over its places before the last layer")
    add("--flip", action="store_true", default=None, help="mirror pictures at random")
    add("--shift", type=program.number(int, 0, 14), help="move pictures at random by up to so many pixels (0)")
    add("--limit", type=program.number(int, 1, 60_000), help="train on so many pictures only (all)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of weights, order and augmentation (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/cnn.pt"), metavar="PATH", help="kept here (runs/cnn.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--predict", type=Path, nargs="+", metavar="IMAGE", help="say what is on these pictures, and end")
    add("--form", type=Path, metavar="PATH", help="draw a photographed form with digits there, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.predict:
        return classify(options.predict, options.checkpoint)
    if options.form:
        return draw_form(options.form, np.random.default_rng(options.seed))
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    data, classes = load_data(config["dataset"], config["limit"], device)
    program.reserve(options)
    model, history = train(options, config, data, classes, device, saved)
    draw(options.figure or options.checkpoint.with_suffix(".png"), model, history, data["test"], classes)
    print(f"checkpoint {options.checkpoint}")


if __name__ == "__main__":
    program.run(main)
