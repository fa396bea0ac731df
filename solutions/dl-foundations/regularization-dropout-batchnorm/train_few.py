"""Train an MLP on a few labelled images of Fashion-MNIST, with any mixture of regularisers.

python train_few.py                                       1,000 images, nothing against overfitting
python train_few.py --dropout 0.3 --shift 1               with dropout, and images moved by up to a pixel
python train_few.py --batch-norm --weight-decay 1 --patience 8    stops early, and restores the best weights
python train_few.py --resume --epochs 80                  go on with the kept training, to 80 epochs
python train_few.py --predict 8                           what the kept network says about 8 test images

A training that is kept is lost only with --overwrite.
"""

import argparse
import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

import atlas
from atlas import plot, program

CONFIG = {
    **{"images": 1000, "width": 256, "dropout": 0.0, "batch_norm": False, "weight_decay": 0.0, "shift": 0},
    **{"smoothing": 0.0, "patience": 0, "lr": 2e-3, "batch_size": 100, "seed": 0},
}
DECAY = 0.93  # of the learning rate, epoch by epoch: it has no end built in, so training can stop early or go on


# ------------------------------------------------------------------------------------------------ the loss


def smoothed_cross_entropy(logits, y, smoothing):
    """The mean cross-entropy of a batch with smoothed labels.

    logits: (B, K). y: (B,), the right classes, whole numbers. smoothing: ε, from 0 to 1.
    The target of an image is ε/K for each of the K classes, and 1 - ε more for the right one; its loss is
    -Σₖ tₖ log pₖ with p = softmax of its logits. Returns a tensor of no axes.
    """
    # TODO: log p (functional.log_softmax stays exact for large logits), the two parts of the sum, and their mean.
    ### BEGIN SOLUTION
    log_p = functional.log_softmax(logits, 1)  # (B, K)
    of_the_right_class = log_p[torch.arange(len(y), device=y.device), y]  # (B,)
    return -((1 - smoothing) * of_the_right_class + smoothing * log_p.mean(1)).mean()
    ### END SOLUTION


# ------------------------------------------------------------------------------------------------ data and model


def load_data(images, seed, device):
    """Train, validation and test split, each (x (N, 28, 28) standardised, y (N,)), and the value of the background.

    The training images are drawn by seed from the first 50,000; validation are the next 5,000.
    """
    fashion = atlas.data.load("fashion-mnist")
    x, x_test = (torch.tensor(x, dtype=torch.float32, device=device) for x in (fashion.x_train, fashion.x_test))
    y, y_test = (torch.tensor(y, device=device) for y in (fashion.y_train, fashion.y_test))
    drawn = torch.randperm(50_000, generator=torch.Generator().manual_seed(seed))[:images].to(device)
    mean, spread = x[drawn].mean(), x[drawn].std()  # of the training images only
    x, x_test = (x - mean) / spread, (x_test - mean) / spread
    splits = {"train": (x[drawn], y[drawn]), "val": (x[50_000:55_000], y[50_000:55_000]), "test": (x_test, y_test)}
    return splits, -(mean / spread).item()


def make_model(config):
    """Images (B, 28, 28) to logits (B, 10), by two hidden layers."""
    layers, inputs, width = [nn.Flatten()], 784, config["width"]
    for _ in range(2):
        norm = [nn.BatchNorm1d(width)] if config["batch_norm"] else []
        drop = [nn.Dropout(config["dropout"])] if config["dropout"] else []
        layers += [nn.Linear(inputs, width), *norm, nn.ReLU(), *drop]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(width, 10))


def shifted(x, pixels, background):
    """Each image of a batch (B, 28, 28) moved at random by up to so many pixels in both directions."""
    B, side = len(x), torch.arange(28, device=x.device)
    padded = functional.pad(x, (pixels,) * 4, value=background)
    rows, columns = (side + torch.randint(2 * pixels + 1, (B, 1), device=x.device) for _ in range(2))  # (B, 28)
    return padded[torch.arange(B, device=x.device)[:, None, None], rows[:, :, None], columns[:, None, :]]


@torch.no_grad()
def predict(model, x):
    """Probabilities (N, 10), in evaluation mode."""
    model.eval()
    return torch.cat([model(part) for part in x.split(1000)]).softmax(1)


def scores(probabilities, y, bins=15):
    """Loss, accuracy and expected calibration error in per cent."""
    confidence, predicted = probabilities.max(1)
    right = (predicted == y).float()
    which = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, device=y.device).index_add_(0, which, right - confidence)
    loss = functional.nll_loss(probabilities.clamp_min(1e-30).log(), y)
    return loss.item(), 100 * right.mean().item(), 100 * gaps.abs().sum().item() / len(y)


# ------------------------------------------------------------------------------------------------ training


def batches(n, size):
    """Indices in random order, in parts of size; a rest of one image goes with the part before: batch norm needs two."""
    parts = list(torch.randperm(n).split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def train(options, config, data, background, device, saved):
    """Train, or go on with the training of the checkpoint `saved`; one checkpoint an epoch.

    Returns the model to use and the history. With patience the model is that of the lowest validation loss, otherwise
    that of the last epoch.
    """
    torch.manual_seed(config["seed"])
    model = make_model(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=config["weight_decay"], fused=True)
    history, best = {"train loss": [], "val loss": [], "val accuracy": []}, None
    if saved:
        with program.reading(options.checkpoint):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            history, best = saved["history"], saved["best"]
            torch.set_rng_state(saved["random"])
    (x, y), losses = data["train"], history["val loss"]
    for epoch in program.progress(range(len(losses) + 1, options.epochs + 1), "epochs"):
        if over(losses, config["patience"]):
            break
        model.train()
        optimizer.param_groups[0]["lr"] = config["lr"] * DECAY ** (epoch - 1)
        for batch in batches(len(x), config["batch_size"]):
            batch = batch.to(device)
            images = shifted(x[batch], config["shift"], background) if config["shift"] else x[batch]
            loss = smoothed_cross_entropy(model(images), y[batch], config["smoothing"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        results = (scores(predict(model, x), y)[0], *scores(predict(model, data["val"][0]), data["val"][1])[:2])
        for name, value in zip(history, results, strict=True):
            history[name].append(value)
        if losses.index(min(losses)) == len(losses) - 1:
            best = copy.deepcopy(model.state_dict())
        states = {"model": model.state_dict(), "best": best, "optimizer": optimizer.state_dict()}
        random = torch.get_rng_state()
        program.save(options.checkpoint, {**states, "history": history, "random": random, "config": config})
    if config["patience"] and best:
        model.load_state_dict(best)
    return model, history


def over(losses, patience):
    """Whether the lowest loss lies `patience` epochs back; never with patience 0."""
    return bool(patience and losses) and len(losses) - 1 - losses.index(min(losses)) >= patience


# ------------------------------------------------------------------------------------------------ the program


def draw(path, history, probabilities, y, bins=10):
    """Write the figure: both losses with the best epoch ringed, and accuracy against confidence on test images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = {"train": history["train loss"], "val": history["val loss"]}
    plot.curves(curves, ylabel="cross-entropy", title="Training", best="min", ax=left)
    confidence, predicted = probabilities.max(1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    right.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for inside in (which == m for m in range(bins)):
        if inside.any():
            accuracy, share = (predicted == y)[inside].float().mean().item(), inside.float().mean().item()
            right.scatter(confidence[inside].mean().item(), accuracy, s=8 + 400 * share, color=plot.COLOURS[0])
    right.set(xlabel="confidence", ylabel="accuracy on test images", xlim=(0.1, 1.04), ylim=(0, 1.04))
    right.set_title("As sure as it should be? Larger dots, more images", loc="left", size=11, weight="bold")
    program.save_figure(figure, path)


def show(path, n, device):
    """Print what the kept network says about the first n test images, and how sure it is."""
    saved, classes = program.load(path, CONFIG), atlas.data.load("fashion-mnist").classes
    config = saved["config"]
    model = make_model(config).to(device)
    with program.reading(path):
        model.load_state_dict(saved["best" if config["patience"] else "model"])
    data, _ = load_data(config["images"], config["seed"], device)
    x, y = (part[:n] for part in data["test"])
    for sure, said, label in zip(*predict(model, x).max(1), y, strict=True):
        print(f"{classes[said]:12} {sure:6.1%}" + ("" if said == label else f"   wrong: {classes[label]}"))


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=program.number(int, 2, 50_000), help="labelled images to train on (1,000)")
    add("--dropout", type=program.number(float, 0, 0.95), help="probability to drop a hidden activation (0)")
    add("--batch-norm", action="store_true", default=None, help="batch norm in both hidden layers")
    add("--weight-decay", type=program.number(float, 0, 100), help="λ of AdamW (0)")
    add("--shift", type=program.number(int, 0, 10), help="move training images by up to so many pixels (0)")
    add("--smoothing", type=program.number(float, 0, 1), help="ε of the labels (0)")
    add("--patience", type=program.number(int, 0, 1000), help="stop so many epochs after the best one; 0 never (0)")
    add("--epochs", type=program.number(int, 1, 1000), default=40, help="train until so many are done (40)")
    add("--lr", type=program.number(float, 1e-9, 100), help="first learning rate (0.002)")
    add("--batch-size", type=program.number(int, 2, 50_000), help="examples in a step (100)")
    add("--width", type=program.number(int, 1, 10_000), help="hidden neurons in a layer (256)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of images, weights and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--checkpoint", type=Path, default=Path("runs/few.pt"), metavar="PATH", help="kept here (runs/few.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--predict", type=program.number(int, 1, 10_000), metavar="N", help="look at the first N test images, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    torch.set_num_threads(1)  # layers this small are slower on two cores
    if options.predict:
        return show(options.checkpoint, options.predict, device)
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    if saved and over(saved["history"]["val loss"], config["patience"]):
        parser.error("the training stopped early; train anew with more --patience")
    program.reserve(options)
    data, background = load_data(config["images"], config["seed"], device)
    model, history = train(options, config, data, background, device, saved)
    losses = history["val loss"]
    used = losses.index(min(losses)) + 1 if config["patience"] else len(losses)
    probabilities = predict(model, data["test"][0])
    loss, accuracy, calibration = scores(probabilities, data["test"][1])
    print(
        f"epochs {len(losses)}, weights of epoch {used}; validation accuracy {history['val accuracy'][used - 1]:.2f} %"
    )
    print(f"test accuracy {accuracy:.2f} %, loss {loss:.3f}, calibration error {calibration:.1f} %")
    print(f"checkpoint {options.checkpoint}")
    draw(options.figure or options.checkpoint.with_suffix(".png"), history, probabilities, data["test"][1])


if __name__ == "__main__":
    program.run(main)
