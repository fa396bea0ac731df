"""Make a classifier of a folder of pictures: a probe on EfficientNet-Lite0's features, then careful fine-tuning.

python finetune.py                                 the stamps that come with the course; keeps runs/finetune.pt
python finetune.py --folder photos                 yours: a folder for each class, with png, jpg or webp files
python finetune.py --folder photos --epochs 0      the probe alone: seconds
python finetune.py --cache runs/features.npz       keep the features there: another run computes only what is new
python finetune.py --resume --epochs 8             go on with that training, to 8 epochs
python finetune.py --predict a.jpg b.jpg           what is on pictures of yours

Beside the checkpoint it draws a figure and writes a model card (runs/finetune.md) with gaps for what only you know.
Pictures of one thing are kept on one side of the split: files of one class called cup-1.jpg, cup-2.jpg, ... are taken
for one thing, and so are files with the same bytes. The stamps have groups of their own.
"""

import argparse
import hashlib
import json
import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageOps
from torch import nn

import atlas
from atlas import plot, program

CONFIG = {
    "folder": "",
    "size": 96,
    "frozen": 13,
    "lr": 1e-4,
    "decay": 1.0,
    "batch_size": 16,
    "seed": 0,
    "limit": 10_000,
}
SPLIT = {"val": 0.2, "test": 0.2}  # shares of each class's things
CS = (0.01, 0.1, 1, 10, 100)
RATE_DECAY = 0.8  # of the learning rate, epoch by epoch: it has no end built in, so training can go on
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


# ------------------------------------------------------------------------------------------------ features


def cached_features(paths, settings, cache, compute):
    """Features of picture files, of which only what is new is computed.

    paths: list of N paths. settings: dict of text and numbers, of which the features depend, such as {"size": 96}.
    cache: dict, from text (64 hexadecimal digits) to an array (D,); it gets an entry for each new picture, and loses
    none. A picture is known if the cache got a picture with the same bytes under the same settings, in whatever order
    these are written, and whatever its file was called then. Two settings that differ never share an entry.
    compute: function of a list of paths, which gives an array (M, D), a row for each. It is called once at most, with
    each new picture once (one of its `paths`, where several have the same bytes), and never with an empty list.
    Returns an array (N, D) of the dtype that compute gave, row n for paths[n].
    """
    # TODO: a key for each path: hashlib.sha256 of its bytes and of the settings (json.dumps, keys sorted), hexdigest().
    ### BEGIN SOLUTION
    said = json.dumps(settings, sort_keys=True).encode()
    keys = [hashlib.sha256(hashlib.sha256(Path(path).read_bytes()).digest() + said).hexdigest() for path in paths]
    new = {key: path for key, path in zip(keys, paths, strict=True) if key not in cache}
    if new:
        cache.update(zip(new, compute(list(new.values())), strict=True))
    return np.stack([cache[key] for key in keys])
    ### END SOLUTION


def load_network():
    """EfficientNet-Lite0 with ImageNet's weights as features (18 stages), pool, flatten, head."""
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(atlas.data.load("efficientnet-lite0").tensors)
    stem, last = (
        nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6()),
        nn.Sequential(net._conv_head, net._bn1, nn.ReLU6()),
    )
    model = nn.Sequential()
    model.features = nn.Sequential(stem, *net._blocks, last)
    model.pool, model.flatten, model.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), net._fc
    return model.eval().to(memory_format=torch.channels_last)


def read_picture(path, size):
    """An image file as the network wants it, (3, size, size): on white, turned upright, padded to a square."""
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGBA")
    except FileNotFoundError:
        sys.exit(f"There is no file {path}.")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        sys.exit(f"{path} is not an image that can be read: {error}")
    square = Image.new("RGBA", (max(picture.size),) * 2, "white")
    square.alpha_composite(picture, tuple((square.width - n) // 2 for n in picture.size))
    pixels = np.asarray(square.convert("RGB").resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return torch.tensor((pixels - 127) / 128).permute(2, 0, 1)


def frozen_maps(base, paths, config, cache):
    """What comes out of the frozen stages for each picture, (N, C, H', W')."""
    frozen = base.features[: config["frozen"]].eval()
    with torch.no_grad():
        shape = frozen(torch.zeros(1, 3, config["size"], config["size"])).shape[1:]

    def compute(new):
        parts = []
        for some in program.progress([new[n : n + 32] for n in range(0, len(new), 32)], "features"):
            batch = torch.stack([read_picture(path, config["size"]) for path in some])
            with torch.no_grad():
                parts.append(frozen(batch.contiguous(memory_format=torch.channels_last)).flatten(1))
        return torch.cat(parts).numpy()

    settings = {"network": "efficientnet-lite0", "size": config["size"], "stages": config["frozen"]}
    return torch.tensor(cached_features(paths, settings, cache, compute)).view(-1, *shape)


def open_cache(path):
    """The features kept at `path`; none where there is no such file, or no path."""
    if path is None or not path.exists():
        return {}
    with program.reading(path), np.load(path, allow_pickle=False) as file:
        return {str(key): row for key, rows in zip(file["keys"], file["rows"], strict=True) for row in [rows]}


def keep_cache(path, cache):
    """Write the cache; one file holds features of one length."""
    lengths = {row.size for row in cache.values()}
    if len(lengths) > 1:
        sys.exit(f"{path} holds features of another --size or --frozen. Name another file with --cache.")
    with program.writing(path, "cache") as part, part.open("wb") as file:
        np.savez(file, keys=np.array(list(cache)), rows=np.stack(list(cache.values())))


# ------------------------------------------------------------------------------------------------ the folder


def find_pictures(folder, limit):
    """Paths, labels, groups and the names of the classes; ends the program where there is too little."""
    if not folder:
        stamps = atlas.data.load("stamps")
        paths, labels, groups, classes = list(stamps.paths), stamps.labels, list(stamps.groups), stamps.classes
    else:
        folder = Path(folder)
        if not folder.is_dir():
            sys.exit(f"There is no folder {folder}. Name one that has a folder for each class: --folder")
        found = {
            each.name: sorted(p for p in each.iterdir() if p.suffix.lower() in ENDINGS)
            for each in sorted(folder.iterdir())
            if each.is_dir() and not each.name.startswith(".")
        }
        classes = tuple(name for name, pictures in found.items() if pictures)
        paths = [path for name in classes for path in found[name]]
        labels = np.array([classes.index(path.parent.name) for path in paths], int)
        groups = groups_of(paths)
    first = np.concatenate([[], *(np.flatnonzero(labels == c)[:limit] for c in range(len(classes)))]).astype(int)
    paths, labels, groups = [paths[n] for n in first], labels[first], [groups[n] for n in first]
    for c, name in enumerate(classes):
        if len({g for g, label in zip(groups, labels, strict=True) if label == c}) < 3:
            sys.exit(f"{name} has fewer than 3 different things: one each for training, validation and test.")
    if len(classes) < 2:
        sys.exit(
            f"{folder} has pictures ({', '.join(ENDINGS)}) in {len(classes)} class folders; at least 2 are needed."
        )
    return paths, labels, groups, classes


def groups_of(paths):
    """What belongs together: same bytes, or cup-1.jpg and cup-2.jpg in one folder."""
    groups, seen = [], {}
    for path in paths:
        numbered = re.fullmatch(r"(.+)-\d+", path.stem)
        group = f"{path.parent.name}/{numbered[1] if numbered else path.stem}"
        groups.append(seen.setdefault(hashlib.sha256(path.read_bytes()).digest(), group))
    return groups


def split(labels, groups, seed):
    """Part → numbers of its pictures: things of each class, shuffled, go to val, test and train; none to two."""
    groups, rng = np.array(groups), np.random.default_rng(seed)
    parts = {"train": [], "val": [], "test": []}
    for c in np.unique(labels):
        things = rng.permutation(np.unique(groups[labels == c]))
        n_val, n_test = (max(1, round(share * len(things))) for share in SPLIT.values())
        for name, of in zip(("val", "test", "train"), np.split(things, [n_val, n_val + n_test]), strict=True):
            parts[name] += [n for n in np.flatnonzero(labels == c) if groups[n] in of]
    return {name: np.array(sorted(numbers)) for name, numbers in parts.items()}


# ------------------------------------------------------------------------------------------------ training


def make_top(base, config, classes):
    """The stages that are not frozen and a head for these classes: frozen_maps to logits."""
    top = nn.Sequential()
    top.features, top.pool, top.flatten = base.features[config["frozen"] :], base.pool, base.flatten
    top.head = nn.Linear(1280, classes)
    return top


def start_from_probe(top, maps, labels, seed):
    """Fit logistic regression to the features, its C chosen on folds, and put it into the head. Returns C."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    with torch.no_grad():
        X = torch.cat([top.flatten(top.pool(top.features(part))) for part in maps.split(64)]).cpu().numpy()
    fewest, C = np.bincount(labels).min(), 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if fewest > 1:
            folds = StratifiedKFold(min(4, fewest), shuffle=True, random_state=seed)
            C = max(
                CS, key=lambda C: cross_val_score(LogisticRegression(C=C, max_iter=500), X, labels, cv=folds).mean()
            )
        probe = LogisticRegression(C=C, max_iter=2000).fit(X, labels)
    W, b = torch.tensor(probe.coef_), torch.tensor(probe.intercept_)
    if len(W) == 1:  # two classes: one score, for the second
        W, b = torch.cat([-W, W]) / 2, torch.cat([-b, b]) / 2
    with torch.no_grad():
        top.head.weight.copy_(W)
        top.head.bias.copy_(b)
    return C


def make_optimizer(top, config):
    """AdamW with a group for each stage, whose rate falls by `decay` from the head to the input."""
    parts = [top.head, *reversed(top.features)]
    groups = [{"params": list(p.parameters()), "lr": config["lr"] * config["decay"] ** n} for n, p in enumerate(parts)]
    return torch.optim.AdamW(groups, weight_decay=0.01)


def train_epoch(top, maps, labels, optimizer, config, epoch):
    """Each picture once, in a new order. Returns the mean loss. Batch norm keeps its statistics."""
    top.eval()
    rates, total = [config["lr"] * config["decay"] ** n for n in range(len(optimizer.param_groups))], 0.0
    batches = torch.randperm(len(maps)).split(config["batch_size"])
    for n, batch in enumerate(program.progress(batches, f"epoch {epoch}"), 1):
        warm = min(1.0, n / len(batches)) if epoch == 1 else 1.0
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * warm * RATE_DECAY ** (epoch - 1)
        batch = batch.to(maps.device)
        loss = nn.functional.cross_entropy(top(maps[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(maps)


@torch.no_grad()
def predict(top, maps):
    """Logits (N, K), in batches, in evaluation mode."""
    top.eval()
    return torch.cat([top(part) for part in maps.split(64)])


def evaluate(top, maps, labels):
    """Loss and accuracy in per cent."""
    logits = predict(top, maps)
    return nn.functional.cross_entropy(logits, labels).item(), 100 * (logits.argmax(1) == labels).float().mean().item()


def train(options, config, data, base, classes, device, saved=None):
    """Probe, then fine-tune until options.epochs are done, or go on with the checkpoint `saved`; one checkpoint an epoch.

    Returns the network with the weights that were best on the validation pictures (the probe's, if no epoch beat
    them), and the checkpoint.
    """
    torch.manual_seed(config["seed"])
    top = make_top(base, config, len(classes)).to(device)
    if saved:
        with program.reading(options.checkpoint):
            top.load_state_dict(saved["model"])
            optimizer = make_optimizer(top, config)
            optimizer.load_state_dict(saved["optimizer"])
            torch.set_rng_state(saved["random"])
            keep = {name: saved[name] for name in ("history", "probe", "best", "best_accuracy", "best_epoch")}
    else:
        C = start_from_probe(top, data["train"][0], data["train"][1].cpu().numpy(), config["seed"])
        loss, accuracy = evaluate(top, *data["val"])
        print(f"probe       C {C:g}   val loss {loss:.4g}   val accuracy {accuracy:.4g}")
        optimizer = make_optimizer(top, config)
        probe = {"C": float(C), "val loss": loss, "val accuracy": accuracy}
        keep = {"history": {"train loss": [], "val loss": [], "val accuracy": []}, "probe": probe}
        keep |= {"best": copied(top), "best_accuracy": accuracy, "best_epoch": 0}
    history = keep["history"]

    def checkpoint():
        facts = {"classes": list(classes), "random": torch.get_rng_state(), "config": config}
        return {"model": top.state_dict(), "optimizer": optimizer.state_dict(), **facts, **keep}

    for epoch in range(len(history["val loss"]) + 1, options.epochs + 1):
        loss = train_epoch(top, *data["train"], optimizer, config, epoch)
        for name, value in zip(history, (loss, *evaluate(top, *data["val"])), strict=True):
            history[name].append(value)
        if history["val accuracy"][-1] > keep["best_accuracy"]:
            keep |= {"best": copied(top), "best_accuracy": history["val accuracy"][-1], "best_epoch": epoch}
        program.save(options.checkpoint, checkpoint())
        line = "   ".join(f"{name} {values[-1]:.4g}" for name, values in history.items())
        print(f"epoch {epoch:3}   {line}   computed {time.process_time():.0f} s", flush=True)
    if not history["val loss"]:
        program.save(options.checkpoint, checkpoint())
    done = checkpoint()
    top.load_state_dict(keep["best"])
    return top, done


def copied(top):
    return {name: tensor.clone() for name, tensor in top.state_dict().items()}


# ------------------------------------------------------------------------------------------------ the program


def classify(paths, checkpoint):
    """Print, for each image file, the three likeliest classes."""
    saved, base = program.load(checkpoint, CONFIG), load_network()
    config = saved["config"]
    with program.reading(checkpoint):
        top = make_top(base, config, len(saved["classes"]))
        top.load_state_dict(saved["best"])
    for path in paths:
        p = predict(top, frozen_maps(base, [path], config, {})).softmax(1)[0]
        best = p.topk(min(3, len(p))).indices.tolist()
        print(f"{path}: " + "   ".join(f"{saved['classes'][k]} {100 * p[k]:.1f} %" for k in best))


def interval(right, n):
    """Wilson's 95 % interval of a share, in per cent."""
    z, p = 1.96, right / n
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return tuple(100 * (middle + side * half) / (1 + z * z / n) for side in (-1, 1))


CARD = """# Model card: {title}

**What it is.** A classifier of pictures into {count} classes: {classes}. EfficientNet-Lite0 (weights learned on
ImageNet, licence Apache-2.0), pictures of {size} × {size} pixels, stages 0 to {last} frozen; {how}.

**What it is for.** (to be written by you: who uses it, for which decision, with which pictures)

**What it is not for.** Pictures of anything else: it has no answer "none of these" and gives one of the {count} with
much confidence. (to be written by you: uses that you rule out)

## Data

{data}, {pictures} pictures of {things} different things. Things, not pictures, were divided into training {train},
validation {val} and test {test}. (to be written by you: who took the pictures, when, of what, with whose consent, under
which licence, and what is missing)

## How well it works

On the {test} test pictures, by which nothing was chosen: **{accuracy:.1f} %** right (95 % interval {low:.0f} to
{high:.0f} %); always saying "{common}" is right in {majority:.1f} %. The probe alone reaches {probe_val:.1f} % on the
validation pictures, the weights kept here {best_val:.1f} %.

| class | right | of | taken for |
|---|---:|---:|---|
{rows}

## Where it fails

(to be written by you, after a look at the errors in the figure) Of the pictures that it gets wrong it is on average
{wrong_sure:.0f} % sure, of those that it gets right {right_sure:.0f} %. ImageNet's skew is in its features: what was photographed,
where, and how it was labelled.

## How to make it again

`{command}`, seed {seed}, {epochs} epochs.
"""


def write_card(path, top, done, data, classes, groups, options):
    """The model card: what was measured, and gaps for what only its author knows."""
    (maps, y), config = data["test"], done["config"]
    p = predict(top, maps).softmax(1).cpu().numpy()
    y, said, sure = y.cpu().numpy(), p.argmax(1), p.max(1)
    right, rows = said == y, []
    for c, name in enumerate(classes):
        wrong = [classes[k] for k in said[(y == c) & ~right]]
        taken = ", ".join(f"{other} {wrong.count(other)}" for other in sorted(set(wrong)))
        rows.append(f"| {name} | {(right & (y == c)).sum()} | {(y == c).sum()} | {taken} |")
    counts = np.bincount(y, minlength=len(classes))
    low, high = interval(right.sum(), len(y))
    epoch = done["best_epoch"]
    how = f"the weights of epoch {epoch} of fine-tuning, which began from a linear probe" if epoch else "a linear probe"
    given = [f"--{name.replace('_', '-')} {config[name]}" for name in CONFIG if config[name] != CONFIG[name]]
    text = CARD.format(
        title=Path(config["folder"]).name or "the stamps",
        count=len(classes),
        classes=", ".join(classes),
        size=config["size"],
        last=config["frozen"] - 1,
        how=how,
        data=config["folder"] or "Tux Paint's photographs (the course's stamps, licence GPL-2.0-or-later)",
        pictures=sum(len(part[1]) for part in data.values()),
        things=len(set(groups)),
        **{name: len(part[1]) for name, part in data.items()},
        accuracy=100 * right.mean(),
        low=low,
        high=high,
        common=classes[counts.argmax()],
        majority=100 * counts.max() / len(y),
        probe_val=done["probe"]["val accuracy"],
        best_val=done["best_accuracy"],
        rows="\n".join(rows),
        wrong_sure=100 * sure[~right].mean() if (~right).any() else 0,
        right_sure=100 * sure[right].mean() if right.any() else 0,
        command=" ".join(["python finetune.py", f"--epochs {len(done['history']['val loss'])}", *given]),
        seed=config["seed"],
        epochs=len(done["history"]["val loss"]),
    )
    with program.writing(path, "model") as part:
        part.write_text(text, encoding="utf-8")
    print(f"test accuracy {100 * right.mean():.2f} % (95 % interval {low:.0f} to {high:.0f} %)\nmodel card {path}")


def draw(path, top, done, data, classes):
    """Write the figure: how fine-tuning went from the probe on, and what is mistaken for what on the test pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    curves, confusion = figure.subplots(1, 2)
    epochs, accuracies = range(len(done["history"]["val loss"]) + 1), done["history"]["val accuracy"]
    shown = {"validation": (list(epochs), [done["probe"]["val accuracy"], *accuracies])}
    title = f"Epoch 0 is the probe; kept is epoch {done['best_epoch']}"
    plot.curves(shown, ylabel="accuracy (%)", title=title, ax=curves)
    maps, y = data["test"]
    said = predict(top, maps).argmax(1)
    title = f"{100 * (said == y).float().mean():.1f} % of {len(y)} test pictures"
    plot.confusion(y.cpu(), said.cpu(), classes, title=title, ax=confusion)
    program.save_figure(figure, path)


def parse(arguments):
    """The options of the command line, and the parser, for what is found wrong with them later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", metavar="FOLDER", help="with a folder for each class (the course's stamps)")
    add("--epochs", type=program.number(int, 0, 1000), default=4, help="fine-tune until so many are done (4)")
    add("--lr", type=program.number(float, 1e-7, 1), help=f"learning rate of the head ({CONFIG['lr']})")
    add("--decay", type=program.number(float, 0.01, 1), help="factor of the rate from stage to stage, downwards (1)")
    add("--frozen", type=program.number(int, 1, 17), help=f"so many of the 18 stages do not learn ({CONFIG['frozen']})")
    add("--size", type=program.number(int, 32, 512), help=f"pixels of a side ({CONFIG['size']})")
    add("--batch-size", type=program.number(int, 1, 1000), help=f"pictures in a step ({CONFIG['batch_size']})")
    add("--limit", type=program.number(int, 3, 10_000), help="take so many pictures of a class at most (all)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), help="of split, folds and order (0)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    add("--cache", type=Path, metavar="PATH", help="keep features there, .npz, and take those that are (not kept)")
    add("--checkpoint", type=Path, default=Path("runs/finetune.pt"), metavar="PATH", help="here (runs/finetune.pt)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the checkpoint, .png)")
    add("--model", type=Path, metavar="PATH", help="the model card (beside the checkpoint, .md)")
    add("--resume", action="store_true", help="go on with the checkpoint's training, as it was configured")
    add("--overwrite", action="store_true", help="train anew in place of the checkpoint that is there")
    add("--predict", type=Path, nargs="+", metavar="IMAGE", help="say what is on these pictures, and end")
    return parser.parse_args(arguments), parser


def main(arguments=None):
    options, parser = parse(arguments)
    device = program.device(parser, options.device)
    if options.predict:
        return classify(options.predict, options.checkpoint)
    saved = program.load(options.checkpoint, CONFIG) if options.resume else None
    config = program.settings(parser, options, CONFIG, saved)
    paths, labels, groups, classes = find_pictures(config["folder"], config["limit"])
    if saved and saved.get("classes") != list(classes):
        sys.exit(f"{options.checkpoint} was trained on other classes: {', '.join(saved.get('classes', ()))}.")
    program.reserve(options)
    base, cache = load_network(), open_cache(options.cache)
    maps = frozen_maps(base, paths, config, cache)
    if options.cache:
        keep_cache(options.cache, cache)
    parts = split(labels, groups, config["seed"])
    y = torch.tensor(labels)
    data = {name: (maps[rows].to(device), y[rows].to(device)) for name, rows in parts.items()}
    print(", ".join(f"{name} {len(rows)}" for name, rows in parts.items()) + f" pictures, {len(classes)} classes")
    top, done = train(options, config, data, base, classes, device, saved)
    write_card(options.model or options.checkpoint.with_suffix(".md"), top, done, data, classes, groups, options)
    draw(options.figure or options.checkpoint.with_suffix(".png"), top, done, data, classes)
    print(f"checkpoint {options.checkpoint}")


if __name__ == "__main__":
    program.run(main)
