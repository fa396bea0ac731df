"""A data set of one's own, with a data sheet: the project's reference.

Takes a folder of pictures (the course's stamps unless --folder names another), plants copies in it whose twins are
known, and asks at which number of bits a difference hash finds them without calling strangers the same. Then it packs
the folder, splits it by groups of near duplicates, looks for what still leaks, and measures a loader that reads the
packed file from disk against the same batches from memory. Writes own_dataset.{npy,json,png} and datasheet.md to --out.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pack_folder
import torch
from PIL import Image, ImageEnhance

from atlas import data, plot

SHEET = """# Data sheet: {name}

**Motivation.** Why was it collected, by whom, for which task? To be written by hand: no program knows it.

**Composition.** {count} pictures in {classes} classes: {counts}. Files that could not be read: {broken}.
Sizes {small} to {large} pixels. Near duplicates: {pairs} pairs in {groups} groups (hashes that differ in at most {most} of 64 bits).

**Collection and licence.** {licence}

**Preprocessing.** On white, in the middle of a white square, scaled to {size} x {size}, uint8, packed as {packed}.

**Split.** {held} pictures held out, in whole groups, seed {seed}. Pairs of near duplicates across the split: {across}.

**What it should not be used for.** {majority}: whoever always says so is right in {share:.0%} of the cases.

**Loader.** {ratio:.0%} of the speed of the same batches from memory.
"""
CHANGES = {
    "half the size": lambda p: p.resize((max(1, p.width // 2), max(1, p.height // 2))),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.3),
    "as JPEG": lambda p: p,
    "mirrored": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "border cut": lambda p: p.crop((p.width // 20, p.height // 20, p.width - p.width // 20, p.height - p.height // 20)),
}


def planted(pictures, seed, every):
    """Bits of changed copies: {change: (numbers of the pictures, their copies' hashes)}."""
    chosen = np.random.default_rng(seed).permutation(len(pictures))[: len(pictures) // every]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, change in CHANGES.items():
            hashes = []
            for i in chosen:
                path = Path(folder) / ("copy.jpg" if name == "as JPEG" else "copy.png")
                change(pictures[i]).save(path, **({"quality": 40} if name == "as JPEG" else {}))
                hashes.append(pack_folder.difference_hash(pack_folder.read(path)))
            found[name] = chosen, np.stack(hashes)
    return found


def calibrate(pictures, seed, every):
    """For each number of bits: the share of copies found, by change, and pairs of different pictures called the same."""
    bits = np.stack([pack_folder.difference_hash(p) for p in pictures])
    flipped = [pack_folder.difference_hash(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for p in pictures]
    mirrored = np.stack(flipped)
    limits = list(range(0, 17))
    recall = {}
    for name, (chosen, hashes) in planted(pictures, seed, every).items():
        straight = (bits[chosen] != hashes).sum(1)
        apart = np.minimum(straight, (mirrored[chosen] != hashes).sum(1))
        recall[name] = [float((apart <= most).mean()) for most in limits]
    strangers = []
    for most in limits:
        pairs = {*pack_folder.near_duplicates(bits, bits, most), *pack_folder.near_duplicates(bits, mirrored, most)}
        strangers.append(len(pairs))
    return limits, recall, strangers


def batches(pixels, labels, order, size, seed):
    """Batches (B, 3, S, S) float, each image moved by up to 3 pixels; pixels: an array in memory or in a file."""
    generator, pad = torch.Generator().manual_seed(seed), 3
    for rows in np.array_split(order, max(1, len(order) // size)):
        x = torch.from_numpy(pixels[np.sort(rows)]).float() / 255  # sorted, so that the file is read forwards
        B, C, H, W = x.shape
        x = torch.nn.functional.pad(x, (pad,) * 4, value=1.0)
        top, left = torch.randint(2 * pad + 1, (2, B), generator=generator)
        i, j = top[:, None] + torch.arange(H), left[:, None] + torch.arange(W)
        b, c = torch.arange(B)[:, None, None, None], torch.arange(C)[:, None, None]
        yield x[b, c, i[:, None, :, None], j[:, None, None, :]], labels[np.sort(rows)]


def speeds_of(places, labels, order, passes):
    """Images a second by place, the median of several passes, which take turns: another program's load hits both."""
    rates = {name: [] for name in places}
    for seed in range(passes):
        for name, pixels in places.items():
            start = time.perf_counter()
            count = sum(len(x) for x, _ in batches(pixels, labels, order, 64, seed))
            rates[name].append(count / (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in rates.items()}


def draw(path, limits, recall, strangers, chosen):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, values), colour, mark in zip(recall.items(), plot.COLOURS, plot.MARKERS, strict=False):
        left.plot(limits, [100 * each for each in values], color=colour, marker=mark, markersize=4, label=name)
    left.axvline(chosen, color="0.5", linestyle=":")
    left.set(xlabel="bits that may differ", ylabel="copies found (%)", ylim=(-3, 103))
    left.set_title(f"With {chosen} bits most copies are found, a cut border is not", loc="left", size=11, weight="bold")
    left.legend(frameon=False, loc="lower right")
    right.plot(limits, strangers, color=plot.COLOURS[1])
    right.axvline(chosen, color="0.5", linestyle=":")
    right.set(xlabel="bits that may differ", ylabel="pairs called the same")
    right.set_yscale("symlog")
    right.set_ylim(0)
    right.set_title("More bits join strangers", loc="left", size=11, weight="bold")
    figure.savefig(path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="a folder for each class (the course's stamps)")
    parser.add_argument("--size", type=int, default=48, help="width and height in the pack (48)")
    parser.add_argument("--most", type=int, default=4, help="bits in which near duplicates may differ (4)")
    parser.add_argument("--seed", type=int, default=0, help="of copies and split (0)")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the results (runs)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: fewer copies, fewer passes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = options.folder or data.fetch("stamps")
    options.out.mkdir(parents=True, exist_ok=True)

    pixels, report = pack_folder.look(folder, options.size, options.most)
    pictures = [pack_folder.read(folder / name) for name in report["files"]]
    limits, recall, strangers = calibrate(pictures, options.seed, 6 if options.quick else 1)
    print(f"{'bits':>4} {'pairs':>6}  copies found: {', '.join(recall)}")
    for i, most in enumerate(limits[:13:2]):
        print(f"{most:4} {strangers[2 * i]:6}  " + "  ".join(f"{values[2 * i]:4.0%}" for values in recall.values()))

    held = pack_folder.split(report["groups"], 0.2, options.seed)
    across = sum((i in held) != (j in held) for i, j in report["pairs"])
    random_held = set(np.random.default_rng(options.seed).permutation(len(pixels))[: len(held)].tolist())
    leaking = sum((i in random_held) != (j in random_held) for i, j in report["pairs"])
    print(f"pairs across the split: {across} by groups, {leaking} by file, of {len(report['pairs'])}")

    packed, labels = options.out / "own_dataset.npy", np.array(report["labels"])
    np.save(packed, pixels)
    order = np.random.default_rng(options.seed).permutation(
        np.repeat(np.arange(len(pixels)), 2 if options.quick else 8)
    )
    passes = 5 if options.quick else 9
    mapped = np.load(packed, mmap_mode="r")
    speeds = speeds_of({"memory": pixels, "packed file": mapped}, labels, order, passes)
    ratio = speeds["packed file"] / speeds["memory"]
    print(", ".join(f"{name} {value:,.0f} images/s" for name, value in speeds.items()), f"= {ratio:.0%}")

    counts = np.bincount(labels, minlength=len(report["classes"]))
    sizes = [picture.size for picture in pictures]
    facts = {
        "name": folder.name,
        "count": len(pixels),
        "classes": len(report["classes"]),
        "counts": ", ".join(f"{n} {name}" for name, n in zip(report["classes"], counts, strict=True)),
        "broken": len(report["broken"]),
        "small": "{} x {}".format(*min(sizes)),
        "large": "{} x {}".format(*max(sizes)),
        "pairs": len(report["pairs"]),
        "groups": len({g for g in report["groups"] if report["groups"].count(g) > 1}),
        "most": options.most,
        "licence": "To be written by hand." if options.folder else f"Tux Paint stamps, {data.find('stamps').licence}.",
        "size": options.size,
        "packed": packed.name,
        "held": len(held),
        "seed": options.seed,
        "across": across,
        "majority": f"{report['classes'][int(counts.argmax())]} are the largest class",
        "share": counts.max() / counts.sum(),
        "ratio": ratio,
    }
    (options.out / "datasheet.md").write_text(SHEET.format(**facts))
    results = {"limits": limits, "recall": recall, "pairs": strangers, "speeds": speeds, "held out": held}
    (options.out / "own_dataset.json").write_text(json.dumps(results, indent=1))
    draw(options.out / "own_dataset.png", limits, recall, strangers, options.most)
    named = itertools.islice(report["pairs"], 10)
    print("the first pairs:", "; ".join(" = ".join(Path(report["files"][k]).stem for k in pair) for pair in named))
    print(f"written to {options.out}: own_dataset.npy, own_dataset.json, own_dataset.png, datasheet.md")


if __name__ == "__main__":
    main()
