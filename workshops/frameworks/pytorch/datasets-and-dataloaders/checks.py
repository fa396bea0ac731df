"""The checks of datasets-and-dataloaders: one for each exercise, with its hints. `lab.check` runs them.

Files are real ones in a temporary folder, worker processes are real, and so are threads. Whatever could wait for ever
is waited for with a timeout.
"""

import contextlib
import functools
import gc
import inspect
import itertools
import os
import queue
import random
import tempfile
import threading
import time
import traceback
import zlib
from pathlib import Path

import numpy as np

from atlas.checking import Complaint, array, exercise, expect, governed, limit, parts, tensor, torch_generator
from atlas.checking.world import generator_states, replaced

# ------------------------------------------------------------------------------------------------ FolderDataset


def _on_white(image):
    """The authority: each pixel's own formula, in double precision."""
    pixels = np.asarray(image.convert("RGBA"), float)  # (H, W, 4)
    opacity = pixels[..., 3:] / 255
    return (opacity * pixels[..., :3] + (1 - opacity) * 255).transpose(2, 0, 1)


def _pictures(rng):
    """name → a PIL image: every mode, no two sizes alike, none a square."""
    from PIL import Image

    def noise(channels, size):
        pixels = rng.integers(0, 256, (size, size + 3, channels), dtype=np.uint8)
        if channels in (2, 4):
            pixels[0, :2, -1] = 0, 255  # one pixel is not seen at all, and one is all that is seen
        return Image.fromarray(pixels.squeeze())

    palette = Image.fromarray(rng.integers(0, 4, (6, 5), dtype=np.uint8), "P")
    palette.putpalette(rng.integers(0, 256, 12).tolist())
    palette.info["transparency"] = 2
    return {
        "dogs/b.png": noise(4, 4),
        "dogs/a.png": noise(3, 7),
        "cats/2.png": noise(1, 5),
        "cats/10.png": palette,
        "ants/Z.png": noise(4, 3),
        "ants/k.png": noise(2, 8),
        "ants/b.png": noise(4, 9),
    }


@contextlib.contextmanager
def _folder(pictures):
    """A folder with these pictures, written in their order, and with what is none."""
    with tempfile.TemporaryDirectory() as top:
        root = Path(top)
        for name, picture in pictures.items():
            (root / name).parent.mkdir(exist_ok=True)
            picture.save(root / name)
        (root / "readme.txt").write_text("no class")
        (root / "stray.png").write_bytes((root / "dogs/a.png").read_bytes())  # in no class
        (root / "dogs/notes.txt").write_text("no picture")
        (root / "bats").mkdir()  # a class without a picture
        (root / "cats/old").mkdir()
        (root / "cats/old/1.png").write_bytes((root / "dogs/a.png").read_bytes())  # not directly in a class
        yield root


@exercise(
    hints=[
        "sorted(...) around root.iterdir() and around folder.glob('*.png'); the picture itself waits until d[i] is asked for.",
        "with Image.open(path) as image: image = image.convert('RGBA') decodes it, so a broken file shows there: all of it inside the try.",
        "white = Image.new('RGBA', image.size, 'white'); Image.alpha_composite(white, image).convert('RGB') is the picture; np.array, from_numpy, permute(2, 0, 1).",
    ],
    seconds=30,  # PIL and torch may be imported here for the first time
)
def FolderDataset(learner, rng):
    import torch
    from PIL import Image

    pictures = _pictures(rng)
    names = sorted(pictures)
    with _folder(pictures) as root:
        dataset = learner(root)
        expect.equal(list(dataset.classes), ["ants", "bats", "cats", "dogs"], why="classes: the folders, sorted",
                     source="the folders", likely=_of_classes)  # fmt: skip
        mine = [Path(path).relative_to(root).as_posix() for path in dataset.paths]
        expect.equal(mine, names, why="paths: the .png files in class folders, sorted", source="the files",
                     likely=lambda yours, expected: _of_paths(yours, expected))  # fmt: skip
        for path in dataset.paths:
            expect.kind(path, Path, "paths is a list of Path", likely="glob gives Paths: keep them as they are.")
        labels = [["ants", "bats", "cats", "dogs"].index(name.split("/")[0]) for name in names]
        likely = "The index in classes: a class without pictures has its number too."
        expect.equal(list(dataset.labels), labels, why="labels: the index in classes", source="the folders",
                     likely=likely)  # fmt: skip
        expect.equal(len(dataset), len(names), why="len(d) is the number of pictures", source="the files")
        for i, name in enumerate(names):
            why = f"d[{i}], {name}, mode {pictures[name].mode}"
            _demand_picture(dataset[i], pictures[name], labels[i], why)
        likely = "Index the list of paths as it is: lists know negative numbers."
        why = "d[-1] is the last picture"
        try:
            last = dataset[-1]
        except IndexError as error:
            raise Complaint(why, [f"yours    IndexError: {error}", "expected what a list gives"], likely) from None
        _demand_picture(last, pictures[names[-1]], labels[-1], why)
        why = "d[len(d)] raises IndexError: a for loop over the data set ends by it"

        def likely(got, _):
            if isinstance(got, ValueError):
                return "self.paths[i] raises it by itself: outside of the try, for no file is broken there."
            return "The list of paths raises it by itself, if it is asked for i as it is: without %, min or max."

        expect.raises(IndexError, lambda: dataset[len(names)], why, likely=likely)

        other = _pictures(rng)[names[0]]
        other.save(root / names[0])
        why = "d[0] after its file was replaced: the file is read anew each time"
        given, _ = expect.parts(dataset[0], ("image", "label"), why)
        likely = "Is the picture opened in __init__, or kept?"
        expect.close(given, _on_white(other), why=why, source="the new file", atol=1.01, likely=likely)
        pictures[names[0]].save(root / names[0])

        seen = []
        doubled = learner(str(root), lambda image: (seen.append(image), "made")[1])
        handed = "It is handed PIL's picture. First the tensor is made, then comes the transform."
        try:
            got = expect.parts(doubled[3], ("image", "label"), "with a transform, d[3]")
        except Exception:
            if seen:
                expect.kind(seen[-1], torch.Tensor, "the transform is handed the image as a tensor", likely=handed)
            raise
        likely = "return self.transform(image) if self.transform else image, ..."
        expect.true(got[0] == "made", "with a transform, the image is what transform(image) returns", likely=likely)
        expect.equal(got[1], labels[3], why="with a transform, the label stays", source="the folders")
        expect.kind(seen[-1], torch.Tensor, "the transform is handed the image as a tensor", likely=handed)
        expect.close(seen[-1], _on_white(pictures[names[3]]), why="the transform is handed the image, uint8 (3, H, W)",
                     source="the file", atol=1.01)  # fmt: skip
        expect.dtype(seen[-1], torch.uint8, "the transform is handed the image, uint8 (3, H, W)")

        def fails(_image):
            raise KeyError("of the transform")

        why = "what the transform raises is left as it is"
        likely = "Is the transform called inside the try? Only reading belongs there."
        expect.raises(KeyError, lambda: learner(root, fails)[0], why, likely=likely)
        _demand_broken(learner, root, rng)


def _demand_picture(given, picture, label, why):
    import torch

    expected = _on_white(picture)
    image, mine = expect.parts(given, ("image", "label"), f"{why}: (image, label)")
    tensor(image, f"{why}: the image")
    turned = "Channels first: permute(2, 0, 1) of (H, W, 3)." if expected.shape[1:] == image.shape[:2] else ""
    four = "The opacity is still there: after alpha_composite, .convert('RGB')." if 4 in image.shape else ""
    expect.shape(image, expected.shape, f"{why}: the image is (3, H, W)", likely=turned or four)
    expect.dtype(image, torch.uint8, f"{why}: the image is uint8, 0 to 255")
    likely = lambda yours, _: _of_opacity(yours, picture)  # noqa: E731
    expect.close(image, expected, why=f"{why}: on white", source="a/255·c + (1 - a/255)·255", atol=1.01, likely=likely)
    likely = "labels[i] as it is: the loader's collate makes a tensor of a batch's labels."
    expect.kind(mine, int, f"{why}: the label is an int", likely=likely)
    expect.equal(mine, label, why=f"{why}: the label", source="the folder")


def _of_opacity(yours, picture):
    """What was done with the fourth channel, as the result shows it."""
    pixels = np.asarray(picture.convert("RGBA"), float).transpose(2, 0, 1)
    colours, opacity = pixels[:3], pixels[3:] / 255
    near = lambda other: np.abs(yours - other).max() < 1.01  # noqa: E731
    if near(colours):
        if picture.mode == "RGBA":
            return (
                "Opacity is computed with, not dropped: convert('RGB') throws it away. Image.alpha_composite on white."
            )
        return "Other modes have an opacity too: any mode first becomes 'RGBA', and then comes Image.alpha_composite."
    expected = opacity * colours + (1 - opacity) * 255
    if near(expected.transpose(1, 2, 0).reshape(expected.shape)):
        return (
            "Its numbers are there, in another order: (H, W, 3) becomes (3, H, W) by permute(2, 0, 1), not by reshape."
        )
    if near(np.full_like(colours, 255)):
        return "All is white: Image.alpha_composite(white, image) puts the second on the first."
    if near(opacity * colours) or near(np.where(opacity > 0, colours, 0)):
        return "It is on black, or on nothing. The ground is white: Image.new('RGBA', image.size, 'white')."
    if any(near(np.where(opacity > least, colours, 255)) for least in (0, 0.25, 0.5)):
        return "Pixels are either opaque or white here. Half transparent ones mix: Image.alpha_composite does it."
    return ""


def _rewritten(content, change):
    """The same PNG with other chunks for its pixels: those that change(pixels) gives, by name and with their sums."""
    at = content.index(b"IDAT") - 4
    length = int.from_bytes(content[at : at + 4], "big")
    pixels, rest = content[at + 8 : at + 8 + length], content[at + 12 + length :]

    def chunk(name, data):
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    return content[:at] + b"".join(chunk(*each) for each in change(pixels)) + rest


def _other_name(pixels):
    half = len(pixels) // 2
    return (b"IDAT", pixels[:half]), (b"\x00\x01\x02\x03", pixels[half:])


def _no_pixels(pixels):
    return [(b"IDAT", pixels[:100] + bytes(each ^ 255 for each in pixels[100:]))]


def _of_broken(got, kind):
    """Why a broken file of this kind does not give a ValueError with its path."""
    if isinstance(got, ValueError):
        if "whole.png" in str(got):
            return "The whole path, not the name."
        return "A ValueError comes, and its message does not name the file: the path belongs into it."
    if isinstance(got, OSError | SyntaxError):
        return (
            f"{type(got).__name__} comes out as it is. Either its line is outside of the try (open reads the head,"
            " convert or load the pixels), or except does not name it: OSError and SyntaxError may come, except"
            " Exception takes both."
        )
    if isinstance(got, Exception):
        return ""
    if got is None:
        return "It returns None in the except. Raise there: raise ValueError(f'{path} ...') from error"
    if kind in ("a text file", "an empty file"):
        return "A broken picture is not to be replaced or skipped: raise ValueError with its path."
    return (
        "Half a picture is none: ImageFile.LOAD_TRUNCATED_IMAGES = True tells PIL to be silent about it. Leave it out."
    )


def _demand_broken(learner, root, rng):
    """Broken files of six kinds: each is told when it is asked for, by its path."""
    from PIL import Image

    big = Image.fromarray(rng.integers(0, 256, (60, 60, 4), dtype=np.uint8))
    big.save(root / "cats/whole.png")
    content = (root / "cats/whole.png").read_bytes()
    kinds = {
        "a text file": b"Dear reader",
        "an empty file": b"",
        "a file cut in half": content[: len(content) // 2],
        "a file with a damaged head": content[:12] + b"XXXX" + content[16:],
        "a file damaged between its pixels": _rewritten(content, _other_name),
        "a file whose pixels cannot be unpacked": _rewritten(content, _no_pixels),
    }
    for kind, damaged in kinds.items():
        (root / "cats/whole.png").write_bytes(damaged)
        opened = "No picture is opened in __init__: a broken one is told when d[i] asks for it."
        try:
            dataset = learner(root)
        except (OSError, SyntaxError, ValueError) as error:
            shown = [f"yours    {type(error).__name__}: {error}"]
            raise Complaint(f"{kind} named .png: the data set is made all the same", shown, opened) from None
        found = [Path(path).name for path in dataset.paths]
        if "whole.png" not in found:
            shown = [f"yours    {len(found)} paths, without cats/whole.png"]
            raise Complaint(f"{kind} named .png is in paths like the others", shown, opened)
        i = found.index("whole.png")
        why = f"{kind} named .png: d[i] raises ValueError with its path"
        for part in (r"whole\.png", "cats"):
            likely = lambda got, _, kind=kind: _of_broken(got, kind)  # noqa: E731
            expect.raises(ValueError, lambda d=dataset, i=i: d[i], why, match=part, likely=likely)
        expect.parts(dataset[i - 1], ("image", "label"), f"beside {kind}, other pictures are read")


def _of_classes(yours, expected):
    if set(yours) == set(expected):
        return "In this order the folders happened to come. Sort them: another machine lists them otherwise."
    if all(isinstance(each, Path) for each in yours):
        return "They are Paths, and classes are their names: each.name."
    if set(yours) < set(expected):
        return "An empty folder is a class too."
    return "Only folders are classes: each.is_dir()."


def _of_paths(yours, expected):
    if sorted(yours) == expected:
        return "All are there, in another order: class by class, and by name within a class (sorted)."
    if any(not name.endswith(".png") for name in yours):
        return "Only names that end in .png."
    if "stray.png" in yours:
        return "A picture that lies in no class folder is passed over."
    if "cats/old/1.png" in yours:
        return "Only files directly in a class folder: glob, not rglob, and no **."
    return ""


# ------------------------------------------------------------------------------------------------ collate_padded


def _rows_filled(rows, T, pad):
    import torch

    x = torch.full((len(rows), T), pad, dtype=rows[0].dtype)
    for i, row in enumerate(rows):
        x[i, : len(row)] = row
    return x


def _mask_of(x, lengths, pad):
    import torch

    return torch.arange(x.shape[1]) < lengths[:, None]


@parts
def _collated(
    batch,
    pad=0,
    *,
    order=lambda batch: batch,
    width=lambda rows: max(map(len, rows)),
    fill=_rows_filled,
    mask=_mask_of,
    lengths=lambda rows, T, pad: [len(row) for row in rows],
    labels=lambda y: y,
):
    import torch

    rows, y = zip(*order(batch), strict=True)
    T = width(rows)
    x, n = fill([row[:T] for row in rows], T, pad), torch.tensor(lengths(rows, T, pad))
    return x, mask(x, torch.tensor([len(row) for row in rows]), pad), n, torch.tensor(labels(y))


def _padded_left(rows, T, pad):
    x = _rows_filled(rows, T, pad)
    for i, row in enumerate(rows):
        x[i] = pad
        x[i, T - len(row) :] = row
    return x


def _last_repeated(rows, T, pad):
    x = _rows_filled(rows, T, pad)
    for i, row in enumerate(rows):
        if len(row):
            x[i, len(row) :] = row[-1]
    return x


@exercise(
    hints=[
        "zip(*batch) takes rows and labels apart. How long is each row, and which is the longest?",
        "x = torch.full((B, T), pad, dtype=...) and x[i, :len(row)] = row for each row.",
        "mask = torch.arange(T) < lengths[:, None] compares (T,) with (B, 1). At the end: return x, mask, lengths, torch.tensor(labels)",
    ],
    mistakes=_collated.mistakes(
        order={
            "The rows were sorted by length. They stay in the order of the list.": (
                lambda batch: sorted(batch, key=lambda pair: -len(pair[0]))
            ),
            "The rows were sorted by length, the shortest first. They stay in the order of the list.": (
                lambda batch: sorted(batch, key=lambda pair: len(pair[0]))
            ),
            "Empty rows are left out. They are examples too: a row of `pad`, the mask False, the length 0.": (
                lambda batch: [pair for pair in batch if len(pair[0])]
            ),
        },
        width={
            "All rows are cut to the shortest. T is the longest.": lambda rows: min(map(len, rows)),
            "T is made at least 1. The longest row may be empty: then x and mask are (B, 0).": (
                lambda rows: max(1, *map(len, rows))
            ),
        },
        fill={
            "The filler stands in front. It comes after each row's end.": _padded_left,
            "Each row is filled up with its last entry. The filler is `pad`.": _last_repeated,
        },
        returns={
            "mask and lengths have changed places: return x, mask, lengths, y.": lambda all: [
                all[k] for k in (0, 2, 1, 3)
            ],
            "y stands before mask and lengths: return x, mask, lengths, y.": lambda all: [all[k] for k in (0, 3, 1, 2)],
            "lengths and y have changed places: return x, mask, lengths, y.": lambda all: [
                all[k] for k in (0, 1, 3, 2)
            ],
            "The rows went through float32, and are rounded to its 24 bits: make x with their own dtype.": (
                lambda all: [all[0].float().to(all[0].dtype), *all[1:]]
            ),
        },
        mask={
            "The mask is where x is not `pad`, and so takes real values that equal it for filler. It comes from the lengths.": (
                lambda x, lengths, pad: x != pad
            ),
            "The mask is where x is not 0, and so takes real zeros for filler. It comes from the lengths.": (
                lambda x, lengths, pad: x != 0
            ),
            "The mask is turned round: True is for what is real.": lambda x, n, pad: ~_mask_of(x, n, pad),
            "The mask ends one place too late: arange(T) < length, not <=.": (
                lambda x, lengths, pad: _mask_of(x, lengths + 1, pad)
            ),
            "The mask ends one place too early: arange(T) < length.": (
                lambda x, lengths, pad: _mask_of(x, lengths - 1, pad)
            ),
        },
        lengths={
            "lengths says T for each row. Each row's own length is asked for.": lambda rows, T, pad: [T] * len(rows),
            "lengths counts the entries that are not `pad`. A row may hold that value: its length is len(row).": (
                lambda rows, T, pad: [int((row != pad).sum()) for row in rows]
            ),
        },
        pad={"pad is an argument; this fills with 0 whatever it is.": 0},
        together={
            "x is as wide as the longest row and one more.": {"width": lambda rows: max(map(len, rows)) + 1},
            "lengths counts the entries that are not `pad`, and the mask goes by it. A row may hold that value: its length is len(row).": {
                "lengths": lambda rows, T, pad: [int((row != pad).sum()) for row in rows],
                "mask": lambda x, lengths, pad: _mask_of(x, (x != pad).sum(1), pad),
            },
        },
    ),
    new=True,
    seconds=30,
)
def collate_padded(learner, rng):
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def demand(lengths, why, pad=0, dtype=torch.int64, low=0, high=9):
        rows = [torch.tensor(rng.integers(low, high, T)).to(dtype) for T in lengths]
        if dtype.is_floating_point:
            rows = [row / 7 for row in rows]
        y = rng.integers(0, 5, len(rows)).tolist()
        given = learner(list(zip(rows, y, strict=True)), pad)
        given = expect.parts(given, ("x", "mask", "lengths", "y"), f"{why}: four results")
        for name, each in zip(("x", "mask", "lengths", "y"), given, strict=True):
            tensor(each, f"{why}: {name}")
        x, mask, n, labels = given
        likely = "Make x with dtype=rows[0].dtype: torch.zeros is float32 unless told, torch.full goes by pad."
        expect.dtype(x, dtype, f"{why}: x has the dtype of the rows", likely=likely)
        expected = pad_sequence(rows, True, pad)
        expect.equal(x, expected, why=f"{why}: x", source="torch's pad_sequence")
        likely = "The rows went through float64, and are rounded to its 53 bits: make x with their own dtype."
        expect.true(torch.equal(x, expected), f"{why}: x, to the last digit", likely=likely)
        wanted = [[t < T for t in range(max(lengths))] for T in lengths]
        expect.equal(mask, np.array(wanted, bool).reshape(len(lengths), max(lengths)),
                     why=f"{why}: mask", source="counted")  # fmt: skip
        expect.dtype(mask, torch.bool, f"{why}: the mask is bool")
        expect.equal(n, lengths, why=f"{why}: lengths", source="counted")
        expect.dtype(n, torch.int64, f"{why}: lengths is int64")
        expect.equal(labels, y, why=f"{why}: y", source="the labels, in order")
        expect.dtype(labels, torch.int64, f"{why}: y is int64")

    demand([3, 5, 1, 4], "four rows")
    demand([2, 4, 7], "rows with -1 as the filler", pad=-1, low=-1)
    demand([2, 6, 3], "rows in which the filler's value, 4, is real too", pad=4)
    demand([4, 1, 2], "the longest first")
    demand([3, 3, 3], "rows of one length")
    demand([5], "a batch of one")
    demand([0, 3, 0], "with empty rows")
    demand([0, 0], "all rows empty: T is 0")
    demand([2, 4], "rows of float32", dtype=torch.float32)
    demand([4, 2], "rows of float64", dtype=torch.float64)
    demand([3, 2], "large whole numbers", low=2**60, high=2**61)
    demand([25, 1], "a longer row than before")
    rows = [(torch.tensor([1, 2]), 1), (torch.tensor([3]), 0)]
    x, *_ = learner(rows)
    expect.equal(x, [[1, 2], [3, 0]], why="without pad the filler is 0", source="by hand")


# ------------------------------------------------------------------------------------------------ BalancedSampler


class _Sampler:
    """A balanced sampler with parts to replace."""

    rounds = True  # whole rounds of a small class, then the rest

    def __init__(self, labels, per_class, seed=0):
        import torch

        self.labels, self.per_class, self.seed = torch.as_tensor(labels), per_class, seed
        self.generator = torch.Generator().manual_seed(seed)

    def classes(self):
        return [(self.labels == c).nonzero()[:, 0] for c in self.labels.unique()]

    def epoch(self):
        pass

    def __len__(self):
        return self.per_class * len(self.classes())

    def draw(self, indices):
        import torch

        taken, left = [], self.per_class
        while left > 0:
            taken.append(indices[torch.randperm(len(indices), generator=self.generator)[:left]])
            left -= len(indices)
        return torch.cat(taken)

    def mix(self, taken):
        import torch

        return taken[torch.randperm(len(taken), generator=self.generator)]

    def __iter__(self):
        import torch

        self.epoch()
        yield from self.mix(torch.cat([self.draw(indices) for indices in self.classes()])).tolist()


def _drawn_with_replacement(self, indices):
    import torch

    return indices[torch.randint(len(indices), (self.per_class,), generator=self.generator)]


def _same_epoch(self):
    self.generator.manual_seed(self.seed)


def _epoch(sampler):
    """The indices of the next epoch."""
    iterator = sampler.__iter__() if hasattr(sampler, "__iter__") else iter(sampler)
    if not hasattr(iterator, "__next__"):
        shown = [f"yours    {type(iterator).__name__}", "expected an iterator"]
        raise Complaint("__iter__ gives an iterator", shown, "yield from the list, or return iter(...) of it.")
    return list(iterator)


def _demand_gaps(learner, labels, error):
    """Complain of gaps in the numbers of the classes if it is only they that raise the error."""
    import torch

    try:
        _epoch(learner(torch.tensor(np.unique(labels, return_inverse=True)[1]), 10))
    except Exception:
        return
    shown = [f"yours    {type(error).__name__}: {error}", "expected an epoch, as with the numbers 0, 1, 2"]
    likely = "Which numbers there are, labels.unique() says: not range(K), nor range(labels.max() + 1)."
    raise Complaint("classes 3, 7 and 8: the numbers may have gaps", shown, likely) from None


@exercise(
    hints=[
        "Keep for each class the indices of its examples, and a torch.Generator seeded in __init__. Draw in __iter__.",
        "torch.randperm(n, generator=self.generator)[:m] takes m different ones. For n < m: whole permutations until less than n are missing.",
        "At the end of __iter__: taken = torch.cat(taken); yield from taken[torch.randperm(len(taken), generator=self.generator)].tolist()",
    ],
    mistakes=parts(_Sampler).mistakes(
        draw={
            "It draws with replacement where there are enough examples, so that some come twice and others not: take m different ones.": (
                _drawn_with_replacement
            ),
            "It takes the same examples of a large class in each epoch: draw them anew, torch.randperm(n)[:m].": (
                lambda self, indices: indices.repeat(1 + self.per_class // len(indices))[: self.per_class]
            ),
        },
        mix={
            "The classes come one after the other. A batch would be all of one class: shuffle all indices of the epoch.": (
                lambda self, taken: taken
            ),
        },
        epoch={"Each epoch is the same: the generator is seeded in __init__, once, and not in __iter__.": _same_epoch},
        __len__={
            "len is the number of labels. An epoch has per_class times the number of classes.": (
                lambda self: len(self.labels)
            ),
            "len is that of one class. An epoch has per_class times the number of classes.": (
                lambda self: self.per_class
            ),
        },
    ),
    seconds=30,
)
def BalancedSampler(learner, rng):
    import torch

    counts = {3: 20, 7: 4, 8: 10}  # numbers with gaps; m = 10 asks for fewer, more and all of them
    labels = rng.permutation(np.repeat(list(counts), list(counts.values())))
    numbers = {c: np.flatnonzero(labels == c) for c in counts}

    def epoch(sampler, m, why):
        before, taken = generator_states(), _epoch(sampler)
        likely = "Hand generator=self.generator to each torch.randperm; np.random and random are not needed."
        expect.true(before == generator_states(), f"{why}: all chance comes from its own generator", likely=likely)
        for each in taken[:1]:
            expect.kind(each, int, f"{why}: indices are int", likely="yield from ....tolist()")
        sizes = [int((labels == c).sum()) for c in counts]
        likely = {
            sum(
                min(m, n) for n in sizes
            ): "A class with fewer than m examples is not repeated: each has to come m times.",
            sum(
                m if n >= m else m // n * n for n in sizes
            ): "The remainder is missing: m // n rounds of n, and m % n once more.",
            3 * m: "len(s) and what comes out differ.",
            m * len(labels): (
                "Each label is taken for a class of its own: set() of a tensor has as many members as the tensor has"
                " entries, for no two tensors are the same. labels.unique()."
            ),
        }.get(len(taken), "")
        expect.equal([len(taken), len(sampler)], [3 * m, 3 * m], why=f"{why}: indices in an epoch, and len(s)",
                     source="m for each class", likely=likely)  # fmt: skip
        often = {int(c): int((labels[taken] == c).sum()) for c in counts}
        likely = ""
        if max(taken) < max(sizes) < len(labels):
            likely = f"All are below {max(sizes)}: places within a class? indices[...] makes indices of labels of them."
        expect.equal(often, dict.fromkeys(counts, m), why=f"{why}: how often each class comes", source="m times",
                     likely=likely)  # fmt: skip
        return taken

    def rounds(taken, when):
        """Whole rounds of each class, and of its remainder different ones."""
        for c, several in (
            (3, "20, so ten different ones"),
            (8, "10, so each once"),
            (7, "4, so each twice or three times"),
        ):
            often = np.sort(np.bincount(taken, minlength=len(labels))[numbers[c]])
            n, (whole, rest) = counts[c], divmod(10, counts[c])
            expected = [whole] * (n - rest) + [whole + 1] * rest
            likely = (
                "Of a class with fewer than m, whole permutations first: each comes equally often, or once more. Are"
                " copies shuffled together and cut, or is the remainder drawn with replacement?"
            )
            if n >= 10:
                likely = "Draw without replacement where there are enough: torch.randperm(n)[:m]."
            why = f"how often the examples of a class come of which there are {several}{when}"
            expect.equal(often, expected, why=why, source="m/n, rounded down or up", likely=likely)

    try:
        sampler = learner(torch.tensor(labels), 10)
        taken = epoch(sampler, 10, "labels with gaps, m = 10")
    except (Complaint, NotImplementedError):
        raise
    except Exception as error:
        _demand_gaps(learner, labels, error)
        raise
    rounds(taken, "")
    changes = int(np.count_nonzero(np.diff(labels[taken])))
    why = "the classes are mixed: neighbours of different classes"
    if not 11 <= changes <= 28:
        likely = (
            "The classes come in turn. Put their indices behind each other, and shuffle them all."
            if changes > 28
            else "Shuffle the whole epoch, not each class for itself."
        )
        expect.true(False, why, f"yours    {changes} of 29", "expected about 20", likely=likely)

    second = _epoch(sampler)
    shown = [f"yours    {taken[:6]}, then {second[:6]}"]
    likely = "Seed in __init__, draw in __iter__."
    expect.true(taken != second, "the second epoch differs from the first", *shown, likely=likely)
    twin = learner(torch.tensor(labels), 10, 0)
    same = [_epoch(twin) == taken, _epoch(twin) == second]
    likely = "Is the generator seeded with seed, torch.Generator().manual_seed(seed), and shared with no other sampler?"
    why = "a second sampler with the same seed gives the same epochs; seed is 0 unless given"
    expect.true(all(same), why, likely=likely)
    likely = "Is the seed that is given used?"
    other = _epoch(learner(torch.tensor(labels), 10, 5))
    shown = [f"yours    {other[:6]} for seed 5, {taken[:6]} for seed 0"]
    expect.true(other != taken, "another seed gives another epoch", *shown, likely=likely)
    many = [learner(torch.tensor(labels), 10, seed) for seed in (0, 0)]
    mixed = [_epoch(next_one) for next_one in (many[0], many[1], many[0], many[1])]
    why = "two samplers that take turns do not disturb each other"
    likely = "They share a generator: one of the class, or outside of it? Make it in __init__, self.generator = ..."
    expect.true(mixed[0] == mixed[1] == taken and mixed[2] == mixed[3] == second, why, likely=likely)

    begun = [each for each, _ in zip(sampler.__iter__(), range(8), strict=False)]
    likely = "Does the generator, or a count of epochs, move on at the end of __iter__ only? At its beginning."
    after = _epoch(sampler)[:8]
    shown = [f"yours    {begun}, then {after}"]
    expect.true(begun != after, "the epoch after one that was left early differs from it", *shown, likely=likely)

    seen = np.zeros(len(labels), int)
    extra = np.zeros(len(labels), int)
    for _ in range(40):
        taken = _epoch(sampler)
        rounds(taken, ", in many epochs")
        often = np.bincount(taken, minlength=len(labels))
        seen += often > 0
        extra += often > 2
    likely = "Which ones are taken is drawn anew in each epoch."
    shown = [f"yours    in {' '.join(map(str, seen))} epochs"]
    expect.true(seen.min() > 0, "in 40 epochs each example comes at least once", *shown, likely=likely)
    few = extra[numbers[7]]
    why = "of the four rare examples another two come a third time in each epoch"
    expect.true(few.min() > 4, why, f"yours    {few} times in 40 epochs", likely="The remainder is drawn too.")

    one = _epoch(learner([1, 0, 1], 3))
    expect.equal(sorted(one.count(i) for i in range(3)), [1, 2, 3], why="labels as a list, m = 3: one label of"
                 " class 0, two of class 1", source="by hand")  # fmt: skip
    labels, counts = np.array([0, 1, 2] * 4), {0: 4, 1: 4, 2: 4}
    epoch(learner(labels, 2, 1), 2, "labels as an array, m = 2")


# ------------------------------------------------------------------------------------------------ random_shift_crop


@parts
def _shifted(
    images,
    pad,
    generator,
    fill=0.0,
    *,
    offsets=lambda torch, n, B, g: torch.randint(n, (2, B), generator=g),
    count=lambda pad: 2 * pad + 1,
    around=lambda x, pad, fill: _around(x, pad, fill),
    returns_dtype=lambda out, images: out,
):
    import torch

    B, _, H, W = images.shape
    padded = around(images, pad, fill)
    top, left = offsets(torch, count(pad), B, generator)
    out = [padded[b, :, i : i + H, j : j + W] for b, (i, j) in enumerate(zip(top.tolist(), left.tolist(), strict=True))]
    return returns_dtype(torch.stack(out) if out else images.clone(), images)


def _around(x, pad, fill):
    from torch.nn import functional

    return functional.pad(x, (pad, pad, pad, pad), value=fill)


def _at_the_edge(x, pad, fill):
    from torch.nn import functional

    return functional.pad(x.double(), (pad, pad, pad, pad), mode="replicate").to(x.dtype)


_FILLED = "Pixels of the image that are 0 become `fill` too. It belongs outside only: functional.pad(..., value=fill)."


def _all_zeros_filled(x, pad, fill):
    padded = _around(x, pad, 0)
    return padded.masked_fill(padded == 0, fill)


def _sides_swapped(images, pad, generator, fill=0.0):
    """H and W have changed places: images.shape is B, C, H, W, rows before columns."""
    import torch

    B, C, W, H = images.shape
    top, left = torch.randint(2 * pad + 1, (2, B), generator=generator)
    rows, columns = top[:, None] + torch.arange(H), left[:, None] + torch.arange(W)
    b, c = torch.arange(B)[:, None, None, None], torch.arange(C)[:, None, None]
    return _around(images, pad, fill)[b, c, rows[:, None, :, None], columns[:, None, None, :]]


def _rolled(images, pad, generator, fill=0.0):
    """What leaves at one edge comes in at the other, as torch.roll does it. At the edges comes in `fill`: pad first."""
    import torch

    B = len(images)
    top, left = torch.randint(2 * pad + 1, (2, B), generator=generator)
    moves = zip(images, (pad - top).tolist(), (pad - left).tolist(), strict=True)
    return torch.stack([image.roll((i, j), (1, 2)) for image, i, j in moves]) if B else images.clone()


def _of_no_cut(image, out, pad, fill):
    """What was done to an image (C, H, W) that is not its padded self, cut at one place."""
    C, H, W = image.shape
    places = list(itertools.product(range(2 * pad + 1), repeat=2))

    def cut(padded, out):
        """Whether it is what stands at one place of the padded image."""
        return any(bool((padded[:, i : i + H, j : j + W] == out).all()) for i, j in places)

    padded = _around(image, pad, fill)
    below_0 = itertools.product(range(-pad, pad + 1), repeat=2)
    if any(bool((padded.roll((-i, -j), (1, 2))[:, :H, :W] == out).all()) for i, j in below_0):
        return "Its offset is below 0, which counts from the end: offsets are 0, ..., 2·pad, not -pad, ..., pad."
    if cut(padded, out.flip(-1)) or cut(padded, out.flip(-2)):
        return "It is mirrored. Here images only move."
    if all(cut(padded[c : c + 1], out[c : c + 1]) for c in range(C)):
        return "Each channel has a shift of its own. All channels of an image move together."
    if cut(padded.float().to(image.dtype), out):
        return "Its values went through float32, and are rounded: the dtype of images is kept all the way."
    if cut(_around(image, pad, 0), out):
        return "At the edges comes in 0 and not `fill`."
    if cut(_around(image, pad, int(fill)), out):
        return "At the edges comes in `fill` as a whole number: it is used as it is."
    if cut(_all_zeros_filled(image, pad, fill), out):
        return _FILLED
    if cut(_at_the_edge(image[None], pad, fill)[0], out):
        return "At the edges the border pixels are repeated. `fill` comes in there."
    if any(bool((out == image.roll((i - pad, j - pad), (1, 2))).all()) for i, j in places):
        return " ".join(_rolled.__doc__.split())
    return "Compare one image with its padded self: do all channels move together, does `fill` come in at the edges?"


def _columns_padded(images, pad, generator, fill=0.0):
    """Only columns are padded: functional.pad takes two numbers for each axis from the last on, so (pad, pad, pad, pad)."""
    import torch
    from torch.nn import functional

    B, C, H, W = images.shape
    padded = functional.pad(images, (pad, pad), value=fill)
    top, left = torch.randint(2 * pad + 1, (2, B), generator=generator)
    rows, columns = (top[:, None] + torch.arange(H))[:, None, :, None], (left[:, None] + torch.arange(W))[:, None, None]
    return padded[torch.arange(B)[:, None, None, None], torch.arange(C)[:, None, None], rows, columns]


@exercise(
    hints=[
        "Pad all images once: functional.pad(images, (pad, pad, pad, pad), value=fill). Then cut out of each one at its own corner.",
        "top and left are torch.randint(2 * pad + 1, (B,), generator=generator). Rows of image b: top[b] + 0, ..., H - 1.",
        "b (B,1,1,1), c (C,1,1), rows (B,1,H,1) and columns (B,1,1,W) broadcast: padded[b, c, rows, columns] has (B, C, H, W).",
    ],
    mistakes=_shifted.mistakes(
        _rolled,
        _sides_swapped,
        _columns_padded,
        offsets={
            "All images of the batch have one shift. Each has its own: offsets of shape (B,).": (
                lambda torch, n, B, g: torch.randint(n, (2, 1), generator=g).expand(2, B)
            ),
            "Row and column offset are the same number, so images move along a diagonal only: draw two.": (
                lambda torch, n, B, g: torch.randint(n, (B,), generator=g).expand(2, B)
            ),
            "Only columns move. Rows have an offset of their own.": (
                lambda torch, n, B, g: torch.stack([torch.full((B,), n // 2), torch.randint(n, (B,), generator=g)])
            ),
            "Only rows move. Columns have an offset of their own.": (
                lambda torch, n, B, g: torch.stack([torch.randint(n, (B,), generator=g), torch.full((B,), n // 2)])
            ),
        },
        count={
            "The last offset, 2·pad, never comes: randint's upper end is not included, so 2 * pad + 1.": lambda pad: (
                max(2 * pad, 1)
            ),
            "Offsets run from 0 to pad only, so that images move in one direction: 0, ..., 2·pad.": lambda pad: pad + 1,
        },
        fill={"At the edges comes in 0, whatever `fill` is.": 0.0},
        around={
            "At the edges the border pixels are repeated. `fill` comes in there.": _at_the_edge,
            _FILLED: _all_zeros_filled,
        },
    ),
    new=True,
    seconds=30,
)
def random_shift_crop(learner, rng):
    import torch
    from torch.nn import functional

    def shifts(images, out, pad, fill, why):
        """Row and column offset of each image, found by trying all: (B, 2)."""
        tensor(out, why)
        B, C, H, W = images.shape
        likely = ""
        if tuple(out.shape) == (B, C, B, H, W):
            likely = (
                "Every image comes at the places of all: padded[:, :, rows, columns] does not bind b to its own rows."
                " Index the first two axes too: padded[b, c, rows, columns] with b of shape (B, 1, 1, 1), c (C, 1, 1)."
            )
        if tuple(out.shape) == (B, H, W, C):
            likely = (
                "The axis of a slice (:) between index arrays goes to the end. An index array for the channels too,"
                " (C, 1, 1), or .permute(0, 3, 1, 2) afterwards."
            )
        expect.shape(out, tuple(images.shape), f"{why}: the shape stays", likely=likely)
        expect.dtype(out, images.dtype, f"{why}: the dtype stays")
        padded = functional.pad(images, (pad,) * 4, value=fill)
        found = np.full((len(images), 2), -1)
        for i, j in itertools.product(range(2 * pad + 1), repeat=2):
            equal = (padded[:, :, i : i + H, j : j + W] == out).flatten(1).all(1).numpy()
            found[equal] = i, j
        bad = np.flatnonzero(found[:, 0] < 0)
        if len(bad):
            likely = _of_no_cut(images[bad[0]], out[bad[0]], pad, fill)
            details = [f"yours    {len(bad)} of {len(images)} images are none", "expected each image, moved"]
            raise Complaint(f"{why}: each image is its padded self, cut at one place", details, likely, out)
        return found

    images = torch.tensor(1 + rng.random((1500, 2, 4, 5)))
    out = learner(images, 2, torch_generator(int(rng.integers(1000))))
    found = shifts(images, out, 2, 0.0, "1,500 images, pad 2")
    counts = np.zeros((5, 5), int)
    np.add.at(counts, tuple(found.T), 1)
    if not 25 <= counts.min() <= counts.max() <= 105:
        likely = (
            "Uniform, rows and columns by themselves: torch.randint(2 * pad + 1, (B,), generator=generator), twice."
        )
        shown = ["yours    " + " / ".join(" ".join(map(str, row)) for row in counts), "expected about 60 each"]
        raise Complaint("how often each of the 25 offsets comes, row by row", shown, likely, counts)
    few = torch.tensor(1 + rng.random((3, 1, 6, 4)))
    few[:, :, ::2, 1:3] = 0  # black pixels, which are no fill
    governed(lambda g: learner(few, 2, g, 0.5), why="the generator decides", make=torch_generator)
    draws = [learner(few, 2, torch_generator(seed), 0.5) for seed in range(12)]
    found = np.concatenate([shifts(few, each, 2, 0.5, "three images, pad 2, fill 0.5") for each in draws])
    likely = "Offsets are 0, ..., 2·pad."
    expect.true(len({tuple(each) for each in found}) > 12, "with pad 2 many offsets come", likely=likely)
    still = learner(few, 0, torch_generator(0), 0.5)
    likely = {_FILLED: few.masked_fill(few == 0, 0.5)}
    expect.equal(still, few, why="with pad 0 nothing moves", source="the images", likely=likely)
    grey = torch.tensor(rng.integers(0, 256, (4, 3, 5, 7)), dtype=torch.uint8)
    shifts(grey, learner(grey, 3, torch_generator(1), 255), 3, 255, "uint8, fill 255")
    shifts(grey[:1], learner(grey[:1], 3, torch_generator(2), 7), 3, 7, "a batch of one")
    single = few.float()
    shifts(single, learner(single, 1, torch_generator(3)), 1, 0.0, "float32")


# ------------------------------------------------------------------------------------------------ group_split


def _colliding(count):
    """Names whose hashes end in the same bits: the order of a set of them is that in which they came in."""
    every = (f"pig {k}" for k in itertools.count())
    return list(itertools.islice((name for name in every if hash(name) % 256 == 3), count))


@parts
def _split(
    groups,
    share,
    seed=0,
    *,
    names=lambda groups: sorted(set(groups)),
    shuffle=lambda names, seed: list(np.random.default_rng(seed).permutation(names)),
    enough=lambda held, items, groups, names, share: items >= share * len(groups),
):
    every = names(groups)
    held, items = [], 0
    for name in shuffle(every, seed):
        if enough(held, items, groups, every, share):
            break
        held.append(name)
        items += list(groups).count(name)
    sides = (
        [i for i, name in enumerate(groups) if name not in held],
        [i for i, name in enumerate(groups) if name in held],
    )
    return sides


@contextlib.contextmanager
def _another_process(learner):
    """In the module of the learner's function hash() gives what it would in another process: text is salted there."""
    names = getattr(learner, "__globals__", {})

    def salted(value, plain=hash):
        return plain(value if isinstance(value, int | float) else ("another process", repr(value)))

    if "hash" in names:
        yield
        return
    names["hash"] = salted
    try:
        yield
    finally:
        del names["hash"]


_SALTED = "hash() of a text, or of a tuple with one, is another number in each process: no seed governs it."


def _by_item(groups, share, seed=0):
    """Items are dealt, not groups, so that one group can be on both sides. Shuffle the distinct names, and deal those."""
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    k = int(np.ceil(share * len(groups)))
    return sorted(order[k:]), sorted(order[:k])


def _choosing(choose, words):
    """A mistake that holds out the names that choose(shuffled names, sizes, need, rng) gives."""

    def mistake(groups, share, seed=0):
        rng, names = np.random.default_rng(seed), sorted(set(groups))
        sizes = {name: groups.count(name) for name in names}
        held = set(choose(names, sizes, share * len(groups), rng))
        return [i for i, g in enumerate(groups) if g not in held], [i for i, g in enumerate(groups) if g in held]

    mistake.__doc__ = words
    return mistake


def _until_it_would_pass(names, sizes, need, rng, skip=False):
    items = 0
    for name in rng.permutation(names).tolist():
        if items + sizes[name] <= need:
            items += sizes[name]
            yield name
        elif not skip:
            return


def _drawn_again(names, sizes, need, rng):
    items = 0
    while items < need:
        name = names[rng.integers(len(names))]
        items += sizes[name]
        yield name


def _cut_group(groups, share, seed=0):
    """The last group is cut, so that just the share is held out, and is on both sides: all of it is held out."""
    _, held = _split(groups, share, seed)
    at = int(np.ceil(share * len(groups)))
    names = [groups[i] for i in held]
    order = [name for name in np.random.default_rng(seed).permutation(sorted(set(groups))).tolist() if name in names]
    held = sorted(held, key=lambda i: order.index(groups[i]))[:at]
    return [i for i in range(len(groups)) if i not in held], sorted(held)


def _of_sides(groups, rest, held, share):
    """Why a split is not one of whole groups, with enough and no more."""
    need = share * len(groups)
    torn = {groups[i] for i in rest} & {groups[i] for i in held}
    if torn:
        pairs = [k for k in range(1, len(groups)) if groups[k] == groups[k - 1]]
        if len(pairs) > 1 and all((k in held) == (k - 1 in held) for k in pairs):
            return (
                "What stands side by side stays together, the rest of a group does not: groupby sees only neighbours."
            )
        if len(torn) == 1 and len(held) == np.ceil(need):
            return " ".join(_cut_group.__doc__.split())
        return "A group is on both sides: deal names, not items."
    if len(held) < need:
        return (
            f"{len(held)} items are held out, share · N is {need:g}. Deal on, whole groups, each once, none skipped,"
            " until the items (not the groups) reach it: the group that passes it is held out too."
        )
    if not rest and len(set(groups)) > 1:
        return "All items are held out. Does the loop stop? Are names compared whole? 'pig 1' and 'pig 2' are two."
    return f"Without one of its groups, held still has share · N = {need:g} items: stop as soon as it is reached."


@exercise(
    hints=[
        "Not items are shuffled but names: the distinct ones, in a fixed order first (sorted), then by the seed.",
        "Go through the shuffled names; stop as soon as the items of those held out are at least share * len(groups).",
        "held is a set of names: rest = [i for i, name in enumerate(groups) if name not in held], and the other list likewise.",
    ],
    mistakes=_split.mistakes(
        _by_item,
        _cut_group,
        _choosing(
            _until_it_would_pass,
            "It stops before share · N would be passed. At least so many: the group that passes it is held out too.",
        ),
        _choosing(
            functools.partial(_until_it_would_pass, skip=True),
            "Groups that would pass share · N are skipped. At least so many: the first that passes it is the last.",
        ),
        _choosing(
            lambda names, sizes, need, rng: np.array(names)[
                rng.random(len(names)) < need / sum(sizes.values())
            ].tolist(),
            "A coin is tossed for each group, so that the share is met only on average. Deal until it is reached.",
        ),
        _choosing(
            _drawn_again,
            "Groups are drawn with replacement: one that comes again is counted again, and too few are held out.",
        ),
        returns={
            "The two lists are in the wrong order: the rest first, then what is held out.": lambda both: both[::-1]
        },
        names={
            "The names are dealt in the order in which they first appear, shuffled: with the items in another order the same seed gives other groups. Sort them first.": (
                lambda groups: list(dict.fromkeys(groups))
            ),
            "A name is dealt as often as it has items, and what it brings is counted again each time. Deal distinct names: sorted(set(groups)).": (
                sorted
            ),
            "A set of names has another order in each process, so that the same seed gives other groups. Sort the names first.": (
                lambda groups: list(set(groups))
            ),
        },
        shuffle={
            "The names are not shuffled: the first of the alphabet are always held out.": lambda names, seed: names,
        },
        enough={
            "share · N is rounded, so that 2.4 items ask for two. At least share · N items are to be held out.": (
                lambda held, items, groups, names, share: items >= round(share * len(groups))
            ),
            "It stops one group too early: at least share · N items are to be held out.": (
                lambda held, items, groups, names, share: items >= share * len(groups) - 1
            ),
            "The share is taken of the groups. It is a share of the items: count them.": (
                lambda held, items, groups, names, share: len(held) >= share * len(names)
            ),
            "It goes on when the share is reached exactly: stop at >=, not only at >.": (
                lambda held, items, groups, names, share: items > share * len(groups)
            ),
            "The share is held back for training, and the rest is held out: turn it round.": (
                lambda held, items, groups, names, share: items >= (1 - share) * len(groups)
            ),
        },
    ),
)
def group_split(learner, rng):
    def form(groups, share, seed, why):
        """The two lists, each of the right form."""
        try:
            given = learner(groups, share, seed)
        except Complaint as complaint:
            if "a second call gave another" in complaint.why:
                complaint.reading = "Is all chance seeded by seed, anew in each call: np.random.default_rng(seed)?"
            raise
        rest, held = expect.parts(given, ("rest", "held"), f"{why}: two lists")
        for name, each in (("rest", rest), ("held", held)):
            expect.kind(each, list, f"{why}: {name} is a list of int", likely=".tolist() makes one of an array.")
            for index in each[:1]:
                expect.kind(index, int, f"{why}: {name} is a list of int", likely="int(i), or .tolist() of an array.")
            expect.equal(each, sorted(each), why=f"{why}: {name} is ascending", source="sorted")
        expect.equal(sorted([*rest, *held]), list(range(len(groups))), why=f"{why}: each item is on one side, once",
                     source="all indices")  # fmt: skip
        return rest, held

    def split(groups, share, seed, why, beside=()):
        """The names that are held out. beside: other results, by which a known mistake is told from one like it."""
        rest, held = form(groups, share, seed, why)
        both = {groups[i] for i in rest} & {groups[i] for i in held}
        likely = lambda *_: _of_sides(groups, rest, held, share)  # noqa: E731
        sizes = [groups.count(name) for name in {groups[i] for i in held}]
        few = len(held) < share * len(groups)
        many = not few and len(held) - min(sizes, default=0) >= share * len(groups) and all(
            len(held) - size >= share * len(groups) for size in sizes)  # fmt: skip
        found = {"groups on both sides": sorted(both), "at least share · N items are held out": not few,
                 "no group more than that": not many, "held": [held, *beside]}  # fmt: skip
        expected = {"groups on both sides": [], "at least share · N items are held out": True,
                    "no group more than that": True, "held": [held, *beside]}  # fmt: skip
        expect.equal(found, expected, why=f"{why}: whole groups, at least share · N items, and no group more",
                     source="counted", likely=likely)  # fmt: skip
        return frozenset(groups[i] for i in held)

    def names(sizes, distinct="dkabmzcqxe"):
        groups = [name for name, size in zip(distinct, sizes, strict=False) for _ in range(size)]
        return [groups[i] for i in rng.permutation(len(groups))]

    groups = names([3, 1, 4, 2, 2, 1, 2, 1])
    why = "16 items in 8 groups, share 0.3"
    beside = [form(groups, 0.3, seed, why)[1] for seed in range(12)]
    drawn = [split(groups, 0.3, seed, why, beside) for seed in range(40)]
    likely = "Shuffle the names by np.random.default_rng(seed); sizes and the alphabet have no say."
    every, why = frozenset().union(*drawn), "other seeds give other splits, and each group is held out for some of them"
    expect.true(len(every) == 8 and len(set(drawn)) > 3, why, likely=likely)
    groups = names([3, 1, 4, 2, 2, 1, 2, 1], _colliding(8))
    for seed in range(8):
        first, turned = (split(sorted(groups, reverse=way), 0.3, seed, "items in any order") for way in (True, False))
        likely = "Before they are shuffled, sort the distinct names: the order of a set, or of first appearance, is no order."
        why = "the same seed gives the same groups, in any order of the items"
        expect.equal(sorted(turned), sorted(first), why=why, source="the same items, sorted", likely=likely)
        with _another_process(learner):
            other = split(sorted(groups, reverse=True), 0.3, seed, "in another process")
        why = "the same seed gives the same groups in any process"
        expect.equal(sorted(other), sorted(first), why=why, source="this process", likely=_SALTED)
    for sizes, share in (
        ([1] * 10, 0.3),
        ([1] * 8, 0.3),
        ([1] * 6, 0.2),
        ([2] * 5, 0.6),
        ([7, 1, 1, 1], 0.1),
        ([5, 5], 0.9),
        ([4], 0.5),
    ):
        for seed in range(3):
            split(names(sizes), share, seed, f"groups of {', '.join(map(str, sizes))} items, share {share}")
    groups = names([2, 2, 2])
    default = learner(groups, 0.5)
    expect.equal(list(default), list(learner(groups, 0.5, 0)), why="seed is 0 unless given", source="the same call")


# ------------------------------------------------------------------------------------------------ seed_worker


class _Chance:
    """A data set that draws from its own generator; made in the check, used in worker processes."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.rng.random()


def _as_worker(learner, worker_id, seed):
    """What a data set draws after the learner's function has run as in worker `worker_id` with this torch seed."""
    import torch
    from torch.utils.data._utils import worker

    dataset = _Chance(_COPIED)
    copied = dataset.rng
    torch.manual_seed(seed)
    np.random.seed((seed + 12345 + 777 * worker_id) % 2**32)  # PyTorch seeds both by seed and id
    random.seed(seed + 777 * worker_id)
    info = worker.WorkerInfo(id=worker_id, num_workers=2, seed=seed, dataset=dataset)
    with replaced(worker, "_worker_info", info), replaced(os, "getpid", lambda: next(_PROCESSES)):
        try:
            given = learner(worker_id)
        except NameError as error:
            likely = "No variable of this program is the worker's copy. That is get_worker_info().dataset."
            if "data" not in (error.name or ""):
                raise
            raise Complaint("the worker's data set is found", [f"yours    NameError: {error}"], likely) from None
    likely = ""
    if isinstance(given, np.random.Generator) and dataset.rng is copied:
        likely = "The generator is made and returned, but not set: get_worker_info().dataset.rng = ..."
    expect.true(given is None, "nothing is returned", f"yours    {type(given).__name__}", likely=likely)
    if not isinstance(dataset.rng, np.random.Generator):
        kind = type(dataset.rng)
        shown = [f"yours    {kind.__module__}.{kind.__name__}", "expected np.random.Generator"]
        likely = "The attribute is set, and not to what the data set draws from: np.random.default_rng(...)"
        if isinstance(dataset.rng, torch.Generator):
            likely = "A torch.Generator has other methods. The data set draws from NumPy's: np.random.default_rng(...)"
        raise Complaint("the data set's rng is a np.random.Generator", shown, likely)
    return [float(dataset.rng.random()) for _ in range(4)]


_COPIED = 7**20
"""The seed of the data set's own generator, as it is copied into each worker."""
_PROCESSES = itertools.count(5003)


def _giving(make, words):
    def mistake(worker_id):
        from torch.utils.data import get_worker_info

        make(worker_id, get_worker_info())

    mistake.__doc__ = words
    return mistake


def _set(rng):
    return lambda worker_id, info: setattr(info.dataset, "rng", rng(worker_id, info))


@exercise(
    hints=[
        "Which object is this worker's copy of the data set? get_worker_info() knows. Which number differs between workers and epochs?",
        "torch.initial_seed() is the seed that the loader gave to this worker. np.random.default_rng takes a number that large.",
        "get_worker_info().dataset.rng = np.random.default_rng(torch.initial_seed())",
    ],
    mistakes=[
        _giving(
            lambda worker_id, info: np.random.seed(info.seed % 2**32),
            "The data set's own generator is still the old one, the same in each worker: set get_worker_info().dataset.rng."
            " NumPy's global one and Python's random, PyTorch seeds by itself.",
        ),
        _giving(
            lambda worker_id, info: setattr(info, "rng", np.random.default_rng(info.seed)),
            "rng belongs to the data set, not to the info about the worker: get_worker_info().dataset.rng = ...",
        ),
    ],
    random=True,
    changes=("seed",),
    seconds=40,
)
def seed_worker(learner, rng):
    import torch
    from torch.utils.data import DataLoader

    base = int(rng.integers(2**40, 2**60))
    later, alike = base + 10 * int(rng.integers(2**30, 2**40)) + 3, base + 2**20 * 63000
    old = [float(each) for each in np.random.default_rng(_COPIED).random(4)]
    drawn = {}
    for name, worker_id, seed in (
        ("0", 0, base),
        ("1", 1, base + 1),
        ("0, next epoch", 0, later),
        ("0, an epoch whose seed ends in the same digits", 0, alike),
        ("1, same seed", 1, base),
        ("again", 0, base),
    ):
        drawn[name] = _as_worker(learner, worker_id, seed)
        why = f"worker {name}: its rng is another one than that of the copied data set"
        found = {"as copied": drawn[name] == old, "draws": drawn[name]}
        likely = "Is a generator made, but not set? get_worker_info().dataset.rng = ..."
        expect.equal(found, {"as copied": False, "draws": drawn[name]}, why=why, source="what its own generator draws",
                     likely=likely)  # fmt: skip
    first, other, epoch, alike, same_seed, again = drawn.values()
    if first == other:
        likely = "All workers get one seed. torch.initial_seed() as it is has the id in it: base + id."
        if first == epoch:
            likely = "A fixed seed: all workers and all epochs draw the same. Take torch.initial_seed()."
        shown = [f"yours    {first[0]:.6f} in worker 0, {other[0]:.6f} in worker 1"]
        raise Complaint("the other worker draws other numbers", shown, likely)
    shown = [f"yours    {first[0]:.6f} in one epoch, {epoch[0]:.6f} in the next"]
    why = "the next epoch, with another torch seed, draws other numbers"
    likely = (
        "Seeded by the worker's id, or by what is copied: workers differ, and each epoch repeats the one before."
        " torch.initial_seed() differs in both."
    )
    expect.true(first != epoch, why, *shown, likely=likely)
    likely = (
        "Only the last digits of the seed are used (%, & or a slice): epochs then share them by chance."
        " default_rng takes all of torch.initial_seed()."
    )
    expect.true(first != alike, "a torch seed with the same last digits gives other numbers", likely=likely)
    why = "the same torch seed gives the same numbers in another run"
    likely = "default_rng() without a number, the clock, torch.seed() and the process's number are new in each run."
    expect.true(first == again, why, likely=likely)
    with _another_process(learner):
        salted = _as_worker(learner, 0, base)
    expect.true(first == salted, why, likely=_SALTED)
    likely = (
        "They depend on more than torch.initial_seed(): on the id, which is in that seed already, or on a global"
        " generator of NumPy or Python?"
    )
    expect.true(first == same_seed, "the torch seed alone decides: another worker with the same one draws the same",
                likely=likely)  # fmt: skip

    def real(seed, epochs):
        """Two worker processes that draw, four numbers an epoch."""
        loader = DataLoader(
            _Chance(), batch_size=None, num_workers=2, worker_init_fn=learner, multiprocessing_context=_fork(), timeout=20,
            generator=torch_generator(seed),
        )  # fmt: skip
        return [[float(each) for each in loader] for _ in range(epochs)]

    if _fork():
        (first, second), (again,) = real(3, 2), real(3, 1)
        expect.equal(len({*first, *second}), 8, why="real workers: eight draws in two epochs, all different",
                     source="two processes")  # fmt: skip
        expect.equal(first, again, why="real workers: the loader's generator governs them", source="two processes")
        torch.manual_seed(0)


def _fork():
    import multiprocessing

    return "fork" if "fork" in multiprocessing.get_all_start_methods() else None


# ------------------------------------------------------------------------------------------------ Prefetcher

_PATIENCE = 4.0  # seconds until something that does not come will not come; a right answer takes milliseconds


_PAUSE = 0.25  # seconds for which a slow source, or a slow consumer, lets the other side wait


class _Source:
    """Batches that count how many of them were taken, and by which threads; raises after the last if told to.

    preparing: an item is being made, for a while. over: the last one was taken.
    """

    def __init__(self, items, error=None, at_once=False, pause_before=None):
        self.items, self.error, self.at_once, self.taken, self.threads = items, error, at_once, 0, set()
        self.pause_before, self.preparing, self.over = pause_before, threading.Event(), threading.Event()

    def __iter__(self):
        if self.at_once:
            raise self.error
        return self._walk()

    def _walk(self):
        for item in self.items:
            if self.pause_before is not None and item == self.pause_before:
                self.preparing.set()
                time.sleep(_PAUSE)
            self.taken += 1
            self.threads.add(threading.get_ident())
            yield item
        self.over.set()
        if self.error:
            raise self.error


def _come(condition, seconds=_PATIENCE):
    """Whether a condition comes true in time; it does not any more where no other thread computes for half a second."""

    def computed():
        return time.process_time() - time.thread_time()

    begin = since = time.monotonic()
    before = computed()
    while not condition():
        now = time.monotonic()
        if computed() > before + 2e-4:
            since, before = now, computed()
        if now > begin + seconds or now > since + 0.5:
            return False
        time.sleep(0.001)
    return True


_DIED = []
"""The exceptions of which threads died during a check."""


@contextlib.contextmanager
def _threads():
    """Notes the threads that are started, makes them daemons, and ends those that still run at the end."""
    started, start = [], threading.Thread.start
    _DIED.clear()

    def noted(thread):
        thread.daemon = True
        started.append(thread)
        start(thread)

    def died(report):
        if issubclass(report.exc_type, Exception):  # and not the end of a thread of an earlier run
            _DIED.append(report.exc_value)

    with replaced(threading.Thread, "start", noted), replaced(threading, "excepthook", died):
        try:
            yield started
        finally:
            limit.end(started)


@contextlib.contextmanager
def _hurried(started):
    """In these threads the timeout of a queue is over at once: so a short wait tries what a long one would."""

    def hurried(method, must_wait, missing):
        def call(self, *args, **options):
            given = inspect.signature(method).bind(self, *args, **options).arguments
            if given.get("timeout") and must_wait(self) and threading.current_thread() in started:
                time.sleep(0.001)
                raise missing
            return method(self, *args, **options)

        return call

    put = hurried(queue.Queue.put, queue.Queue.full, queue.Full)
    get = hurried(queue.Queue.get, queue.Queue.empty, queue.Empty)
    with replaced(queue.Queue, "put", put), replaced(queue.Queue, "get", get):
        yield


_WAITING = (
    "Waiting is no failure: after queue.Full the same item is put again, as long as there is no stop sign, and get()"
    " needs no timeout."
)


def _raised(error, why):
    """Raise what came out of the learner's code; that a queue is full or empty, as a complaint."""
    if isinstance(error, queue.Full | queue.Empty):
        raise Complaint(f"{why}: nothing is raised", [f"yours    queue.{type(error).__name__}"], _WAITING)
    raise error


def _of_the_source(error):
    """Whether it is the exception of the check's own source."""
    return [*traceback.walk_tb(error.__traceback__)][-1][0].f_code.co_filename == _raised.__code__.co_filename


def _in_time(code, why, likely):
    """What code() gives, or what it raises, raised; run in a thread of its own, for it may wait for ever.

    Where it does because a thread died of the learner's own lines, what that died of is raised.
    """
    result = []

    def run():
        try:
            result.append((code(), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    _come(lambda: not thread.is_alive())
    if not result:
        for error in _DIED:
            if not _of_the_source(error):
                _raised(error, why)
        details = ["yours    nothing came", "expected an end"]
        raise Complaint(f"{why}: the consumer waits for ever", details, likely() if callable(likely) else likely)
    value, error = result[0]
    if isinstance(error, StopIteration):
        raise Complaint(f"{why}: an item comes", ["yours    none, the iteration is over"], likely)
    if error is not None:
        _raised(error, why)
    return value


def _collected(prefetcher, items, *, caught=()):
    """All items, put into the list, and what was raised after them, of the kinds that are to be caught."""
    try:
        for item in prefetcher:
            items.append(item)
            if len(items) > 60:
                raise Complaint(
                    "the iteration ends", ["yours    more items than there are"], "Where does the loop end?"
                )
    except (Complaint, NotImplementedError):
        raise
    except caught as error:
        return items, error
    return items, None


@exercise(
    hints=[
        "Three parts in __iter__: a queue.Queue(self.ahead) and a threading.Event; a function for the thread; a loop that gets and yields.",
        "The thread: try: for item in self.batches: put(('item', item)); if stop.is_set(): return; after the loop put(('end', None)); except BaseException as error: put(('error', error)).",
        "put tries q.put(pair, timeout=0.05) while not stop.is_set(), passing over queue.Full. Around the loop that yields: try: ... finally: stop.set(); thread.join()",
    ],
    seconds=60,  # of waiting, at most: a right answer takes a fraction of one
)
def Prefetcher(learner, rng):
    import torch

    with _threads() as started:
        for n, ahead in ((20, 3), (1, 2), (0, 2), (5, 1), (3, 50)):
            source, why, consumer, begun = _Source(list(range(n))), f"{n} items, ahead {ahead}", [], len(started)

            def consume(source=source, ahead=ahead, consumer=consumer):
                consumer.append(threading.get_ident())
                before, prefetcher = len(started), learner(source, ahead)
                if len(started) > before or source.taken:
                    shown = [f"yours    {len(started) - before} threads started, {source.taken} items taken"]
                    likely = "Queue, stop sign and thread belong to __iter__; __init__ only keeps batches and ahead."
                    raise Complaint("nothing is started or taken before iteration", shown, likely)
                iterator = iter(prefetcher)
                if iterator is prefetcher:
                    likely = "Two loops would share it. Make __iter__ a generator: no __next__, but yield."
                    raise Complaint("each iteration has an iterator of its own", ["yours    self"], likely)
                return _collected(iterator, [])

            def likely(source=source, consumer=consumer, begun=begun):
                if not source.threads.isdisjoint(consumer):
                    return (
                        "The consumer's own thread walks through batches, before there is another: target=fill hands"
                        " the function over, target=fill() calls it."
                    )
                if len(started) == begun + 1:
                    return "No thread is started: Thread(target=fill) makes one, and its start() sets it going."
                return _NO_END

            items, _ = _in_time(consume, why, likely)
            _demand_all(items, list(range(n)), why)
            if n == 20:
                alone = len(started) == 2 and len(source.threads) == 1 and source.threads.isdisjoint(consumer)
                shown = [f"yours    {len(started) - 1} started"]
                likely = "threading.Thread(target=...).start(), and the loop over batches in its function."
                expect.true(alone, f"{why}: one other thread walks through batches", *shown, likely=likely)
        _demand_no_thread(started, "after the last item")
        with _hurried(started):
            _demand_patience(learner)
        _demand_odd_items(learner, torch)
        _demand_errors(learner, started)
        _demand_bounds(learner)
        _demand_early_end(learner, started)
        _demand_close(learner, started)
        _demand_independence(learner)


_NO_END = "Is the end sent through the queue, after the last item, when `batches` is exhausted?"


def _demand_all(items, expected, why):
    """All items, each once, in order; what is wrong is read off those that came."""
    likely = ""
    if items and all(isinstance(each, tuple) for each in items) and [each[-1] for each in items] == expected:
        likely = "The pairs come out. Yield what is in them, the second part."
    elif len(items) < len(expected) and items == expected[: len(items)]:
        likely = (
            "The last items are lost. An empty queue is no end, nor is a dead thread: q.empty(), a timeout of get,"
            " thread.is_alive(). The end is a sign in the queue, behind the items."
        )
    elif items != sorted(items):
        likely = (
            "They came in another order: is it a LifoQueue or PriorityQueue, or do several threads take from batches?"
        )
    elif items == sorted(set(items) & set(expected)):
        likely = "Some in between are lost: after queue.Full the same item has to be put again, not the next one."
    elif len(set(items)) < len(items):
        likely = "Some come twice. Each item is put once, and taken once."
    place = next((k for k, pair in enumerate(zip(items, expected, strict=False)) if pair[0] != pair[1]), None)
    start = max(0, (len(items) if place is None else place) - 2)
    shown = [f"{name:8} {len(each)} items{f', from the {start + 1}th' if start else ''}: {each[start : start + 8]}"
             for name, each in (("yours", items), ("expected", expected))]  # fmt: skip
    if items != expected:
        raise Complaint(f"{why}: all items, each once, in order", shown, likely)


def _demand_patience(learner):
    """A consumer and then a source that let the other side wait."""
    why = "a consumer that is slow at first, then a slow source, ahead 1"

    def slowly():
        items = []
        for item in learner(_Source(list(range(8)), pause_before=6), 1):
            items.append(item)
            if item == 0:
                time.sleep(_PAUSE)
        return items

    _demand_all(_in_time(slowly, why, _WAITING), list(range(8)), why)


def _demand_odd_items(learner, torch):
    error = ValueError("an item that is an exception")
    items = [None, False, error, torch.tensor([1, 2]), np.array([1, 2]), (), ("end", None), "end", StopIteration, 0]
    why = "items of all kinds: None, an exception, a tensor, an array, tuples, 'end'"
    likely = "None, or another item, is taken for the end: put pairs, what kind and what, into the queue."
    got, raised = _in_time(lambda: _collected(learner(_Source(items), 2), [], caught=Exception), why, likely)
    if raised is not None:
        wrong = "An exception that is an item is handed over like any other: pairs tell what kind it is."
        if raised is not error:
            wrong = (
                "Items are not to be compared with ==, nor asked whether they are true: put pairs, what kind and what."
            )
        raise Complaint(f"{why}: nothing is raised", [f"yours    {type(raised).__name__}: {raised}"], wrong)
    if len(got) == len(items):
        likely = "As many come out, but not the same objects: hand on the item itself, no copy of it."
    same = len(got) == len(items) and all(a is b for a, b in zip(got, items, strict=True))
    expect.true(same, f"{why}: the same objects come out", f"yours    {len(got)} of {len(items)}", likely=likely)


def _demand_errors(learner, started):
    for kind in (ValueError, OSError, RuntimeError):
        error, why = kind("in the source"), f"{kind.__name__} after three items"

        items = []

        def consume(error=error, items=items):
            return _collected(learner(_Source([1, 2, 3], error), 2), items, caught=Exception)

        def likely(error=error, items=items):
            if any(each is error for each in items):
                return (
                    "It came through the queue and was yielded like an item. Raise it: the pair says what kind it is."
                )
            if error in _DIED:
                return "The thread died of it, and nobody told the consumer: catch it, send it through the queue, raise it there."
            return "It was caught, and the consumer does not know: send it through the queue, raise it there."

        _, raised = _in_time(consume, why, likely)
        if raised is None:
            shown = [f"yours    {items}, and a quiet end", f"expected [1, 2, 3], then {kind.__name__}"]
            swallowed = likely() if error in items else "Swallowed: half a data set looks like all."
            raise Complaint(f"{why}: it is raised in the consumer", shown, swallowed)
        shown = [f"yours    {type(raised).__name__}: {raised}"]
        likely = "Another is raised in its place: raise the object that was caught, as it is."
        expect.true(
            type(raised) is kind and str(raised) == str(error),
            f"{why}: that one is raised, in the consumer",
            *shown,
            likely=likely,
        )
        likely = "Send it through the queue, behind the items."
        expect.true(items == [1, 2, 3], f"{why}: the items before it come first", f"yours    {items}", likely=likely)
    error, why = ValueError("at the very beginning"), "batches whose iter() raises"
    likely = "Is iter(batches), or the for, outside of the thread's try?"

    def begin():
        try:
            prefetcher = learner(_Source([], error, at_once=True), 2)
        except ValueError:
            begun = "iter(batches) is called in __init__: it is used up after one iteration. It belongs to the thread."
            raise Complaint(f"{why}: not before the iteration", ["yours    in __init__"], begun) from None
        return _collected(prefetcher, [], caught=Exception)

    _, raised = _in_time(begin, why, likely)
    shown = [f"yours    {type(raised).__name__}: {raised}" if raised else "yours    nothing is raised"]
    expect.true(raised is error, f"{why}: that is raised in the consumer", *shown, likely=likely)
    _demand_no_thread(started, "after an exception")


def _demand_bounds(learner):
    for ahead in (1, 4):
        source = _Source(list(range(40)))
        prefetcher = learner(source, ahead)
        expect.true(source.taken == 0, "nothing is taken from batches before iteration", likely="Begin in __iter__.")
        iterator = iter(prefetcher)
        for consumed in (1, 2):
            why = f"ahead {ahead}, {consumed} consumed"
            _in_time(lambda i=iterator: next(i), why, "Does the thread run?")
            likely = "Does the thread go on while the consumer works, up to `ahead` items? Is `ahead` used?"
            reached = _come(lambda s=source, n=consumed + ahead: s.taken >= n)
            shown = [f"yours    {source.taken} taken from batches", f"expected {consumed + ahead} or one more"]
            expect.true(reached, f"{why}: the next ones are prepared meanwhile", *shown, likely=likely)
            time.sleep(0.02)
            shown[0] = f"yours    {source.taken} taken from batches"
            likely = (
                "The queue has no bound, or another one: queue.Queue(self.ahead). All of it in memory is no prefetch."
            )
            expect.true(
                source.taken <= consumed + ahead + 1, f"{why}: no more than `ahead` wait", *shown, likely=likely
            )
        _in_time(lambda i=iterator: _close(i), "closed early", _STAYS)
    source = _Source(list(range(40)))
    iterator = iter(learner(source))
    _in_time(lambda: next(iterator), "without `ahead`", "Does the thread run?")
    fine = _come(lambda: source.taken >= 3) and not _come(lambda: source.taken > 4, 0.02)
    expect.true(fine, "ahead is 2 unless given", f"yours    {source.taken} taken after the first")
    _in_time(lambda: _close(iterator), "closed early", _STAYS)


def _close(iterator):
    getattr(iterator, "close", int)()


_STAYS = (
    "put() waits where the queue is full, and nobody takes any more. Put with a timeout, look at a threading.Event in"
    " between, and set it in the generator's finally, before join()."
)


def _demand_early_end(learner, started):
    for source, words in ((_Source(list(range(40))), "40 items"), (_Source(itertools.count()), "an endless source")):

        def leave(source=source):
            for item in learner(source, 2):
                if item == 3:
                    break

        _in_time(leave, f"{words}, a break after the fourth", _STAYS)
        _demand_no_thread(started, f"{words}, after a break in the consumer")
        likely = (
            "After the break the thread went on taking. The loop over batches looks at a stop sign too, after each put."
        )
        expect.true(source.taken <= 8, f"{words}: after a break nothing more is taken", likely=likely)


def _demand_close(learner, started):
    """Closed while the thread is at its last put, and while it prepares an item."""
    for error, sign in ((None, "the end"), (ValueError("in the source"), "an exception")):
        source, why = _Source([0, 1, 2], error), f"closed after one of three items, while {sign} waits to be put"
        iterator = iter(learner(source, 2))
        _in_time(lambda i=iterator: next(i), why, "Does the thread run?")
        if source.over.wait(_PAUSE):
            time.sleep(0.02)  # until it has come from there to its put
        likely = f"Each put looks at the stop sign, with a timeout, that of {sign} too: a bare q.put waits for ever."
        _in_time(lambda i=iterator: _close(i), why, likely)
        _demand_no_thread(started, why, likely)
    source, why = _Source(list(range(9)), pause_before=2), "closed while the thread prepares an item"
    iterator = iter(learner(source, 2))
    _in_time(lambda: next(iterator), why, "Does the thread run?")
    source.preparing.wait(_PATIENCE)
    _in_time(lambda: _close(iterator), why, _STAYS)
    likely = "It goes on beside what follows. In the generator's finally: stop.set(), and then thread.join()."
    alive = [thread for thread in started if thread.is_alive()]
    expect.true(not alive, f"{why}: the thread has ended when close() is over", "yours    it still runs", likely=likely)


def _demand_no_thread(started, when, likely=None):
    left = [thread for thread in started if thread.is_alive()]
    if not _come(lambda: not any(thread.is_alive() for thread in left), 0.5):
        gc.collect()  # an iterator in a ring of references
    if not _come(lambda: not any(thread.is_alive() for thread in left), _PATIENCE / 2):
        raise Complaint(f"{when}: no thread is left", ["yours    a thread still waits or runs"], likely or _STAYS)


def _demand_independence(learner):
    prefetcher = learner([1, 2, 3], 2)
    for turn in ("first", "second"):
        likely = (
            "Queue, stop sign and thread are made in __iter__, new each time: a sign stays set, a generator is used up."
        )
        items, _ = _in_time(lambda: _collected(prefetcher, []), f"the {turn} time over one Prefetcher", likely)
        if items != [1, 2, 3]:
            shown = [f"yours    {items}", "expected [1, 2, 3]"]
            raise Complaint(f"the {turn} iteration gives all items", shown, likely)
    why = "two iterations at once over one Prefetcher"
    likely = "Queue and thread are to be those of one iteration: local variables of __iter__, not attributes of self."
    pairs = _in_time(lambda: list(zip(prefetcher, prefetcher, strict=False)), why, likely)
    if pairs != [(1, 1), (2, 2), (3, 3)]:
        raise Complaint(f"{why} do not disturb each other", [f"yours    {pairs}"], likely)
    why = "one iteration that is closed while another runs"
    likely = "A stop sign for all iterations stops all: queue, Event and thread are local variables of __iter__."
    rest = _in_time(lambda: _closed_beside(learner(list(range(12)), 2)), why, likely)
    shown = [f"yours    {rest} in the other", f"expected {list(range(12))}"]
    expect.true(rest == list(range(12)), f"{why}: the other goes on to its end", *shown, likely=likely)


def _closed_beside(prefetcher):
    """What one iteration gives, beside which a second one is begun and closed."""
    one, other = iter(prefetcher), iter(prefetcher)
    items = [next(one)]
    next(other)
    _close(other)
    del other
    return [*items, *one]


# ------------------------------------------------------------------------------------------------ near_duplicates


@parts
def _near(
    a,
    b,
    most,
    *,
    distance=lambda a, b: (a[:, None] != b[None]).sum(-1),
    near=lambda d, most: d <= most,
    which=lambda close: np.triu(close, 1),
    order=lambda pairs: pairs,
):
    return order([(int(i), int(j)) for i, j in np.argwhere(which(near(distance(a, b), most)))])


def _product(dtype):
    """Distances from the product of rows of 1 and -1: 64 less twice the bits that differ."""

    def distance(a, b):
        s, t = (2 * each.astype(dtype) - dtype(1) for each in (a, b))
        return (dtype(64) - s @ t.T) // dtype(2)

    return distance


def _of_pairs(given, expected, apart, most):
    """What the pairs that are missing, or too many, have in common."""
    missing = [pair for pair in expected if pair not in given]
    extra = [pair for pair in given if pair not in expected]
    firsts, seconds = {i for i, _ in given}, {j for _, j in given}
    if not missing and not extra:
        twice = "Some pairs come more than once." if len(given) > len(expected) else ""
        return twice or "All pairs are there, in another order: by i, then by j."
    if any(i >= j for i, j in extra):
        return "A pair is (i, j) with i < j, once: not (i, i), not (j, i)."
    if missing and extra:
        return ""
    if extra and all(apart[j, i] <= most for i, j in extra):
        return "It takes a[j] with b[i] too. Asked for is a[i] with b[j] alone, for i < j."
    if missing and all(j == i + 1 for i, j in given) and all(j > i + 1 for i, j in missing):
        return "Only neighbours are compared. Every i goes with every j above it."
    if missing and {i for i, _ in missing} <= firsts and len(firsts) == len(given):
        return "Each i has one partner only: the search goes on after the first."
    if missing and {i for i, _ in missing} <= seconds:
        return "Is a picture passed over once it is in a pair? All pairs are asked for."
    return ""


def _told(pairs, apart):
    return [f"({i}, {j}), {apart[i, j]} bits differ" for i, j in pairs[:2]]


def _with_chains(d, most):
    close = (d <= most) | (d <= most).T
    for k in range(len(close)):
        close |= close[:, [k]] & close[[k]]
    return close


@exercise(
    hints=[
        "The distance of two rows is the number of entries in which they differ: (x != y).sum().",
        "a[:, None] != b[None] compares every row with every other: (N, N, 64). Its sum over the last axis is (N, N).",
        "np.argwhere(np.triu(distances <= most, 1)) gives the pairs with i < j in order; make tuples of int of them.",
    ],
    mistakes=_near.mistakes(
        near={
            "Distances that equal `most` count too: <=, not <.": lambda d, most: d < most,
            "It adds what a chain of pairs joins. Asked for are the pairs that are near themselves.": _with_chains,
            "Equal hashes are left out. 0 bits are at most `most` too: the pair is i < j, not distance > 0.": (
                lambda d, most: (d <= most) & (d > 0)
            ),
            "Only equal hashes are found. At most `most` bits may differ.": lambda d, most: d == 0,
            "It returns the pairs that differ much. Near are those with at most `most` different bits.": (
                lambda d, most: d >= most
            ),
        },
        which={
            "A picture is paired with itself. Only pairs with i < j.": lambda close: np.triu(close),
            "Each pair comes twice, (i, j) and (j, i), or with i > j. Only pairs with i < j.": (
                lambda close: close & ~np.eye(len(close), dtype=bool)
            ),
            "All pairs are returned, (i, i) and (j, i) too. Only pairs with i < j.": lambda close: close,
            "The pairs have i > j. Asked for are those with i < j: a[i] against b[j].": lambda close: np.tril(
                close, -1
            ),
        },
        distance={
            "It compares rows of a with each other. Row i of a is to be compared with row j of b.": (
                lambda a, b: (a[:, None] != a[None]).sum(-1)
            ),
            "It compares rows of b with each other. Row i of a is to be compared with row j of b.": (
                lambda a, b: (b[:, None] != b[None]).sum(-1)
            ),
            "It compares b[i] with a[j]. Asked for is a[i] with b[j].": lambda a, b: (b[:, None] != a[None]).sum(-1),
            "It counts the bits in which both are 1, or are equal. Count those that differ.": (
                lambda a, b: (a[:, None] == b[None]).sum(-1)
            ),
            "Distances are never above 1: is it a mean, or a product of bool arrays? most is a number of bits.": (
                lambda a, b: (a[:, None] != b[None]).mean(-1)
            ),
            "It counts only bits that are 1 in a and 0 in b. Those that are 0 in a and 1 in b differ too.": (
                lambda a, b: (a[:, None] & ~b[None]).sum(-1)
            ),
            "It counts only bits that are 0 in a and 1 in b. Those that are 1 in a and 0 in b differ too.": (
                lambda a, b: (~a[:, None] & b[None]).sum(-1)
            ),
            "It takes the bits that are 1 in both from their number, so that bits that are 0 in both count too. Count those that differ: a != b.": (
                lambda a, b: a.shape[1] - a.astype(int) @ b.astype(int).T
            ),
            "In uint8, 0 - 1 is 255, and the sum is no number of bits: compare with !=.": (
                lambda a, b: (a.astype(np.uint8)[:, None] - b.astype(np.uint8)[None]).sum(-1)
            ),
            "Differences of 1 and -1 cancel in the sum: take their absolute values, or compare with !=.": (
                lambda a, b: (a.astype(int)[:, None] - b.astype(int)[None]).sum(-1)
            ),
            "int8 holds numbers up to 127, and the distance of opposite hashes overflows it: a wider dtype.": (
                _product(np.int8)
            ),
        },
        order={
            "They are sorted as text, where 10 comes before 2. Sort the pairs of numbers.": (
                lambda pairs: sorted(pairs, key=str)
            ),
        },
        returns={"The pairs are (j, i). Return (i, j) with i < j.": lambda pairs: [(j, i) for i, j in pairs]},
    ),
)
def near_duplicates(learner, rng):
    def demand(a, b, most, why):
        N = len(a)
        expected = [(i, j) for i in range(N) for j in range(i + 1, N) if sum(x != y for x, y in zip(a[i], b[j], strict=True)) <= most]  # fmt: skip
        given = learner(a, b, most)
        expect.kind(given, list, f"{why}: a list")
        for pair in given[:1]:
            expect.kind(pair, tuple, f"{why}: pairs are tuples")
            for index in pair:
                expect.kind(index, int, f"{why}: of int", likely="int(i), for JSON knows no NumPy numbers.")
        for pair in given:
            if len(pair) != 2 or not all(0 <= index < N for index in pair):
                likely = "The numbers of two rows: i of a, j of b."
                raise Complaint(f"{why}: pairs of rows", [f"yours    {pair}, of {N} rows"], likely, given)
        if given != expected:
            apart = (a[:, None] != b[None]).sum(-1)
            reading = _of_pairs(given, expected, apart, most)
            found = {
                "missing": _told([pair for pair in expected if pair not in given], apart),
                "too many": _told([pair for pair in given if pair not in expected], apart),
                "in order, each once": given == sorted(set(given)),
                "pairs": given,
            }
            wanted = {"missing": [], "too many": [], "in order, each once": True, "pairs": given}
            expect.equal(found, wanted, why=f"{why}: the pairs", source="bit by bit", likely=reading)

    def near(bits, flips):
        """The same hashes with so many bits flipped, row by row."""
        changed = bits.copy()
        for row, n in zip(changed, flips, strict=True):
            places = rng.permutation(64)[:n]
            row[places] = ~row[places]
        return changed

    first = rng.random((1, 64)) < 0.5
    bits = np.concatenate([near(np.repeat(first, 7, 0), [0, 2, 5, 40, 1, 8, 9]), rng.random((1, 64)) < 0.5])
    demand(bits, bits, 5, "eight hashes, most 5")
    mirrored = np.concatenate([rng.random((3, 64)) < 0.5, near(bits[:5], [3, 0, 4, 1, 5])])
    demand(bits, mirrored, 6, "hashes against those of mirrored pictures, most 6")
    demand(mirrored, bits, 6, "the other way round, most 6")
    three = np.repeat(first, 3, 0)
    demand(three, ~three, 6, "hashes against their opposites, most 6")
    demand(bits, bits, 0, "most 0: equal hashes only")
    twelve = near(np.repeat(first, 12, 0), [3, 40, 1, 1, 2, 40, 3, 2, 0, 1, 40, 2])
    demand(twelve, twelve, 5, "twelve hashes, most 5")
    demand(three, three, 0, "three equal hashes")
    demand(bits[:1], bits[:1], 64, "one picture has no pair")
    demand(bits[:4], bits[:4], 64, "most 64: all pairs")
