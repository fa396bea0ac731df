"""Look at a folder of pictures before you train on it, and pack it into one array.

python pack_folder.py                        the stamps that come with the course
python pack_folder.py --folder FOLDER        yours: a folder for each class, with png, jpg, gif, bmp or webp files
python pack_folder.py --most 0               call only those the same whose hashes are equal

Writes an array, uint8 (N, 3, size, size), that numpy.load(path, mmap_mode="r") opens at once; a report with classes,
labels, files, groups of near duplicates, a split that keeps groups together, and what is broken; and a figure.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from atlas import data, plot, program

ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")


# ------------------------------------------------------------------------------------------------ near duplicates


def near_duplicates(a, b, most):
    """Pairs of pictures whose hashes differ in few bits.

    a, b: bool (N, 64), row i of both belongs to picture i; b is a again, or the hashes of the mirrored pictures.
    Returns a list of (i, j), ints with i < j, in rising order (by i, then by j): all pairs for which a[i] and b[j]
    differ in at most `most` of the 64 bits.
    """
    # TODO: the distances of all pairs, (N, N); which of them are small enough, with i < j?
    raise NotImplementedError("near_duplicates")


def difference_hash(picture):
    """64 bits of an RGB picture: for 8 × 9 grey values, whether the right neighbour is brighter. bool (64,)."""
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), int)
    return (grey[:, 1:] > grey[:, :-1] + 1).ravel()  # a step of 1 is rounding


def joined(N, pairs):
    """The number of each picture's group, (N,): pictures that a chain of pairs joins have the same one."""
    group = list(range(N))
    for i, j in pairs:
        old, new = group[j], group[i]
        if old != new:
            group = [new if each == old else each for each in group]
    return group


# ------------------------------------------------------------------------------------------------ the folder


def pictures_of(folder):
    """(path, class) of each picture, sorted; ends the program where there are none."""
    if not folder.is_dir():
        sys.exit(f"There is no folder {folder}. Name one that has a folder for each class: --folder")
    classes = sorted(each for each in folder.iterdir() if each.is_dir())
    found = [(path, each.name) for each in classes for path in sorted(each.iterdir())]
    found = [(path, name) for path, name in found if path.suffix.lower() in ENDINGS]
    if not found:
        sys.exit(f"{folder} has no pictures in class folders ({', '.join(ENDINGS)}).")
    return found


def read(path):
    """The picture on white, in RGB. ValueError where the file is broken."""
    try:
        with Image.open(path) as image:
            image = image.convert("RGBA")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def squared(picture, size):
    """In the middle of a white square, scaled to size × size."""
    square = Image.new("RGB", (max(picture.size),) * 2, "white")
    square.paste(picture, tuple((square.width - each) // 2 for each in picture.size))
    return square.resize((size, size), Image.Resampling.BOX)


def look(folder, size, most):
    """Read all pictures. Returns the array (N, 3, size, size) and the report without a split."""
    whole, broken, pixels, bits, mirrored = [], {}, [], [], []
    for path, name in program.progress(pictures_of(folder), "reading"):
        where = path.relative_to(folder).as_posix()
        try:
            picture = read(path)
        except ValueError as error:
            broken[where] = str(error).replace(str(folder), folder.name)
            continue
        whole.append((where, name))
        pixels.append(np.asarray(squared(picture, size)).transpose(2, 0, 1))
        bits.append(difference_hash(picture))
        mirrored.append(difference_hash(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))
    if not whole:
        sys.exit(f"None of the {len(broken)} pictures in {folder} can be read: {next(iter(broken.values()))}")
    bits, mirrored = np.stack(bits), np.stack(mirrored)
    pairs = sorted({*near_duplicates(bits, bits, most), *near_duplicates(bits, mirrored, most)})
    classes = sorted({name for _, name in whole})
    report = {
        "classes": classes,
        "labels": [classes.index(name) for _, name in whole],
        "files": [where for where, _ in whole],
        "broken": broken,
        "pairs": pairs,
        "groups": joined(len(whole), pairs),
    }
    return np.stack(pixels), report


def split(groups, share, seed):
    """Numbers of the held-out pictures, at least that share of all, in whole groups."""
    members, held = Counter(groups), []
    for group in np.random.default_rng(seed).permutation(sorted(members)):
        if len(held) >= share * len(groups):
            break
        held += [i for i, each in enumerate(groups) if each == group]
    return sorted(map(int, held))


# ------------------------------------------------------------------------------------------------ the program


def draw(path, pixels, report):
    """Left how many pictures each class has, right the first pairs that look the same."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    counts, pairs = figure.subplots(1, 2)
    numbers = np.bincount(report["labels"], minlength=len(report["classes"]))
    bars = counts.barh(report["classes"], numbers, color=plot.COLOURS[0])
    counts.bar_label(bars, padding=2)
    counts.invert_yaxis()
    counts.set(xlabel="pictures", xlim=(0, 1.15 * numbers.max()))
    counts.set_title(f"{len(pixels)} pictures, {len(report['broken'])} broken", loc="left", weight="bold")
    shown = report["pairs"][:8]
    pairs.set_axis_off()
    title = (
        f"{len(report['pairs'])} pairs of near duplicates{', the first' if len(report['pairs']) > len(shown) else ''}"
    )
    pairs.set_title(title, loc="left", weight="bold")
    if shown:
        rows = [np.concatenate([pixels[i] for i in side], 2) for side in zip(*shown, strict=True)]
        pairs.imshow(np.concatenate(rows, 1).transpose(1, 2, 0))
    program.save_figure(figure, path)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, metavar="FOLDER", help="with a folder for each class (the course's stamps)")
    add("--size", type=program.number(int, 1, 2048), default=32, help="width and height in the array (32)")
    add("--most", type=program.number(int, 0, 64), default=4, help="bits in which near duplicates may differ (4)")
    add("--share", type=program.number(float, 0, 1), default=0.2, help="of the pictures to hold out (0.2)")
    add("--seed", type=program.number(int, 0, 2**32 - 1), default=0, help="of the split (0)")
    add("--arrays", type=Path, default=Path("runs/pictures.npy"), metavar="PATH", help="array (runs/pictures.npy)")
    add("--records", type=Path, metavar="PATH", help="report (beside the array, .json)")
    add("--figure", type=program.figure, metavar="PATH", help="drawn here (beside the array, .png)")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    pixels, report = look(options.folder or data.fetch("stamps"), options.size, options.most)
    report["held out"] = split(report["groups"], options.share, options.seed)
    for where, why in report["broken"].items():
        print(f"broken: {where}: {why}")
    print(f"{len(pixels)} pictures in {len(report['classes'])} classes, {len(report['broken'])} broken")
    several = [count for count in Counter(report["groups"]).values() if count > 1]
    print(f"{len(report['pairs'])} pairs of near duplicates, in {len(several)} groups of {sum(several)} pictures")
    print(f"held out: {len(report['held out'])} pictures, in whole groups")
    with program.writing(options.arrays, "arrays") as part, part.open("wb") as file:
        np.save(file, pixels)
    with program.writing(options.records or options.arrays.with_suffix(".json"), "records") as part:
        part.write_text(json.dumps(report, indent=1))
    draw(options.figure or options.arrays.with_suffix(".png"), pixels, report)
    print(f"array {options.arrays}, {pixels.nbytes / 1e6:.1f} MB")


if __name__ == "__main__":
    program.run(main)
