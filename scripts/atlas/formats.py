"""What a dataset becomes in memory: one type for each kind of data, one reader for each `format` in the catalog.

A reader takes the catalog's entry, whose files are already verified, and returns fresh, writable arrays.
ValueError: a file is not what its format or its entry says. Weights are read in atlas.weights.
"""

import csv
import gzip
import hashlib
import io
import lzma
import pickle
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from atlas.data import Entry

LARGEST_MEMBER = 64_000_000  # bytes; a CIFAR batch has 31 MB


# ------------------------------------------------------------------------------------------------ what load gives


@dataclass(frozen=True, eq=False, repr=False)
class Loaded:
    """What every kind has. The contents are this caller's own: changing them changes nobody else's."""

    name: str
    licence: str
    source: str

    def __repr__(self) -> str:
        return f"{self.name}: {self.says()}; licence: {self.licence}"


@dataclass(frozen=True, eq=False, repr=False)
class Images(Loaded):
    """Images of one size, and labels.

    x_train, x_test: uint8 in 0 ... 255, (N, H, W) for grey and (N, H, W, C) for colour
    y_train, y_test: int64 (N,), the index of the class in `classes`
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]

    def says(self) -> str:
        shapes = f"x_train {self.x_train.shape}, x_test {self.x_test.shape}, {self.x_train.dtype} 0 ... 255"
        return f"{shapes}; {len(self.classes)} classes ({', '.join(self.classes)})"


@dataclass(frozen=True, eq=False, repr=False)
class Pictures(Loaded):
    """Pictures of several sizes in class folders, N in all; not split, since the workshops split them anew.

    paths: the PNG files; images: their pixels, uint8 (H, W, 4): red, green, blue, opacity (0 is transparent)
    labels: int64 (N,), the index of the class in `classes`, which are the folders' names
    groups: what is to be seen, such as "birds/heron"; pictures of one group never belong on both sides of a split
    """

    paths: tuple[Path, ...]
    images: list[np.ndarray]
    labels: np.ndarray
    classes: tuple[str, ...]
    groups: tuple[str, ...]

    def says(self) -> str:
        counts = zip(self.classes, np.bincount(self.labels), strict=True)
        return f"{len(self.paths)} pictures: {', '.join(f'{count} {name}' for name, count in counts)}"


@dataclass(frozen=True, eq=False, repr=False)
class Text(Loaded):
    """A long text.

    text: all of it; train, valid, test: its parts, cut by position in this order
    chapters: (heading, what follows), in order
    """

    text: str
    train: str
    valid: str
    test: str
    chapters: tuple[tuple[str, str], ...]

    def says(self) -> str:
        parts = ", ".join(f"{len(part):,}" for part in (self.train, self.valid, self.test))
        return f"{parts} characters (train, valid, test), {len(set(self.text))} distinct; {len(self.chapters)} chapters"


@dataclass(frozen=True, eq=False, repr=False)
class Words(Loaded):
    """Words with a label each, in the order of a hash, so that the first n of a split are a fair sample.

    x_train, x_valid, x_test: tuples of str
    y_train, y_valid, y_test: int64 (N,), the index of the class in `classes`
    """

    x_train: tuple[str, ...]
    y_train: np.ndarray
    x_valid: tuple[str, ...]
    y_valid: np.ndarray
    x_test: tuple[str, ...]
    y_test: np.ndarray
    classes: tuple[str, ...]

    def says(self) -> str:
        sizes = ", ".join(f"{len(part):,}" for part in (self.x_train, self.x_valid, self.x_test))
        return f"{sizes} words (train, valid, test); {len(self.classes)} classes ({', '.join(self.classes)})"


Pair = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False, repr=False)
class Pairs(Loaded):
    """Texts and what each becomes: (text, (answer, ...)), one right answer or more.

    train, valid, test: no text is in two of them; in the order of a hash, so that the first n are a fair sample
    more: further splits by name, of texts that are in none of the three
    """

    train: tuple[Pair, ...]
    valid: tuple[Pair, ...]
    test: tuple[Pair, ...]
    more: dict[str, tuple[Pair, ...]] = field(default_factory=dict)

    def says(self) -> str:
        parts = {"train": self.train, "valid": self.valid, "test": self.test} | self.more
        return ", ".join(f"{len(part):,} in {name}" for name, part in parts.items())


@dataclass(frozen=True, eq=False, repr=False)
class Series(Loaded):
    """A quantity over time, N points in the order of time.

    times: datetime64[s] (N,); values: float32 (N,), in `unit`
    train, valid, test: slices of both, in this order: values[series.train]
    """

    times: np.ndarray
    values: np.ndarray
    train: slice
    valid: slice
    test: slice
    unit: str

    def says(self) -> str:
        first, last = self.times[[0, -1]].astype("datetime64[D]")
        return f"{len(self.values):,} points from {first} to {last}, in {self.unit}"


@dataclass(frozen=True, eq=False, repr=False)
class Table(Loaded):
    """Rows and columns.

    columns: name to array (N,): float64 with NaN where a number is missing, or str with "" where a word is
    train, valid, test: int64, the rows of each split: columns["body_mass_g"][table.train]
    """

    columns: dict[str, np.ndarray]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def says(self) -> str:
        return f"{len(self.train) + len(self.valid) + len(self.test)} rows; columns: {', '.join(self.columns)}"


# ------------------------------------------------------------------------------------------------ images


def read_idx(entry: "Entry") -> Images:
    """The four files of MNIST's layout, format: http://yann.lecun.com/exdb/mnist/ (images (N, H, W))."""
    arrays = []
    for split in ("train", "t10k"):
        arrays.append(_idx_array(entry.folder / f"{split}-images-idx3-ubyte.gz"))
        arrays.append(_idx_array(entry.folder / f"{split}-labels-idx1-ubyte.gz").astype(np.int64))
    return Images(*common(entry), *arrays, entry.classes)


def _idx_array(path: Path) -> np.ndarray:
    content = bytearray(gzip.decompress(path.read_bytes()))  # a bytearray, so that the array can be written to
    zeros, kind, ndim = int.from_bytes(content[:2]), content[2], content[3]
    if zeros != 0 or kind != 0x08:
        raise ValueError(f"{path.name} is not an idx file of unsigned bytes")
    start = 4 + 4 * ndim
    shape = np.frombuffer(content[4:start], ">u4").astype(int)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_cifar(entry: "Entry") -> Images:
    """`cifar-10-python.tar.gz`, format: https://www.cs.toronto.edu/~kriz/cifar.html: images (N, 32, 32, 3).

    It is read in memory, never unpacked to disk, and its pickles may hold nothing but data.
    """
    wanted = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    batches = {}
    with tarfile.open(entry.folder / "cifar-10-python.tar.gz") as archive:
        for member in archive:
            name = member.name.removeprefix("cifar-10-batches-py/")
            if name in wanted and member.isfile():
                if member.size > LARGEST_MEMBER:
                    raise ValueError(f"{member.name} has {member.size:,} bytes, more than a batch can have")
                batches[name] = _cifar_batch(archive.extractfile(member).read())
    missing = [name for name in wanted if name not in batches]
    if missing:
        raise ValueError(f"the archive lacks {', '.join(missing)}")
    x, y = zip(*(batches[name] for name in wanted), strict=True)
    return Images(*common(entry), np.concatenate(x[:5]), np.concatenate(y[:5]), x[5], y[5], entry.classes)


def _cifar_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) and labels (N,); in the file an image is a row: all red, then all green, then all blue."""
    batch = unpickle_data(content)
    images = batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(batch[b"labels"], np.int64)


def unpickle_data(content: bytes):
    """A pickle of dicts, lists, numbers, bytes and numeric arrays; ValueError if it asks for anything else.

    Unpickling calls whatever the file names, so only what builds an array is let through.
    """
    return _DataUnpickler(io.BytesIO(content), encoding="bytes").load()


_reconstruct = np.empty(0).__reduce__()[0]  # numpy's own function that an array's pickle calls


class _DataUnpickler(pickle.Unpickler):
    ALLOWED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # written by numpy 1, as in the official archive
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # written by numpy 2
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise ValueError(f"refused: the pickle asks for {module}.{name}, which is not data")
        return self.ALLOWED[module, name]


def read_pictures(entry: "Entry") -> Pictures:
    """PNG files, `<class>/<what>[-_<which>].png`: what and class make the group."""
    from PIL import Image, UnidentifiedImageError

    paths = tuple(sorted(entry.folder / file.name for file in entry.files))
    images = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                images.append(np.array(picture.convert("RGBA")))
        except UnidentifiedImageError:
            raise ValueError(f"{path.name} is not a picture") from None
    _hold_count(entry, len(paths), "pictures", "all")
    labels = np.array([entry.classes.index(path.parent.name) for path in paths], np.int64)
    groups = tuple(f"{path.parent.name}/{re.split('[-_]', path.stem)[0].lower()}" for path in paths)
    return Pictures(*common(entry), paths, images, labels, entry.classes, groups)


# ------------------------------------------------------------------------------------------------ words and texts


def read_text(entry: "Entry") -> Text:
    """One UTF-8 text, packed with xz; `heading` is the regular expression of a chapter's first line."""
    text = _unpacked(entry.folder / entry.files[0].name)
    pieces = re.split(f"^({entry.heading})$", text, flags=re.MULTILINE)[1:]
    chapters = tuple((heading, body.strip("\n")) for heading, body in zip(pieces[::2], pieces[1::2], strict=True))
    parts = [text[part] for part in _by_position(entry, len(text), "characters")]
    return Text(*common(entry), text, *parts, chapters)


def read_words(entry: "Entry") -> Words:
    """Lines of word, tab, class; packed with xz."""
    labels = {}
    for word, name in _lines(entry.folder / entry.files[0].name):
        if name not in entry.classes or word in labels:
            raise ValueError(f"{entry.files[0].name} has {word!r} twice, or in no class of the catalog ({name!r})")
        labels[word] = entry.classes.index(name)
    fields = []
    for split in _by_hash(entry, labels, "words"):
        fields += [tuple(split), np.array([labels[word] for word in split], np.int64)]
    return Words(*common(entry), *fields, entry.classes)


def read_pairs(entry: "Entry") -> Pairs:
    """Lines of text, tab, answer; packed with xz. Lines with the same text are one pair with several answers.

    The first file is split by the texts' hash; each further one is the split that it is named after.
    """
    first, *further = [_answers(entry.folder / file.name) for file in entry.files]
    names = [file.name.split(".")[0] for file in entry.files[1:]]
    more = {name: tuple(pairs.items()) for name, pairs in zip(names, further, strict=True)}
    for name, pairs in more.items():
        _hold_count(entry, len(pairs), "texts", name)
    splits = [tuple((text, first[text]) for text in split) for split in _by_hash(entry, first, "texts")]
    return Pairs(*common(entry), *splits, more)


def _answers(path: Path) -> dict[str, tuple[str, ...]]:
    answers = {}
    for text, answer in _lines(path):
        answers.setdefault(text, []).append(answer)
    return {text: tuple(several) for text, several in answers.items()}


def _unpacked(path: Path) -> str:
    try:
        return lzma.decompress(path.read_bytes()).decode("utf-8")
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not a text packed with xz: {error}") from None


def _lines(path: Path) -> Iterable[list[str]]:
    """The two columns of each line."""
    for number, line in enumerate(_unpacked(path).splitlines(), 1):
        columns = line.split("\t")
        if len(columns) != 2 or not all(columns):
            raise ValueError(f"{path.name}, line {number}, is not two texts with a tab between: {line[:60]!r}")
        yield columns


# ------------------------------------------------------------------------------------------------ numbers


def read_series(entry: "Entry") -> Series:
    """CSV with a header, packed with gzip: time (ISO 8601, UTC), value."""
    header, *rows = _csv(gzip.decompress((entry.folder / entry.files[0].name).read_bytes()), entry.files[0].name)
    if len(header) != 2:
        raise ValueError(f"{entry.files[0].name} has {len(header)} columns, not a time and a value")
    times = np.array([time.removesuffix("Z") for time, _ in rows], "datetime64[s]")
    if (np.diff(times) < np.timedelta64(0)).any():
        raise ValueError(f"{entry.files[0].name} is not in the order of time")
    values = np.array([value for _, value in rows], np.float32)
    return Series(*common(entry), times, values, *_by_position(entry, len(rows), "points"), entry.unit)


def read_table(entry: "Entry") -> Table:
    """CSV with a header. A column is of numbers if all its entries are, apart from missing ones."""
    header, *rows = _csv((entry.folder / entry.files[0].name).read_bytes(), entry.files[0].name)
    columns = {name: _column(cells) for name, cells in zip(header, zip(*rows, strict=True), strict=True)}
    splits = _by_hash(entry, {str(row): row for row in range(len(rows))}, "rows")
    return Table(*common(entry), columns, *(np.array([int(row) for row in split]) for split in splits))


def _column(cells: tuple[str, ...]) -> np.ndarray:
    try:
        return np.array([cell or "nan" for cell in cells], np.float64)
    except ValueError:
        return np.array(cells)


def _csv(content: bytes, name: str) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"))))
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(f"{name}, line {number}, has {len(row)} columns, and the header has {len(rows[0])}")
    return rows


# ------------------------------------------------------------------------------------------------ splits


def common(entry: "Entry") -> tuple[str, str, str]:
    return entry.name, entry.licence, entry.source


THREE = ("train", "valid", "test")


def _hold_count(entry: "Entry", count: int, what: str, *splits: str) -> None:
    """As many as the catalog says of these splits together."""
    said = sum(entry.splits.get(split, 0) for split in splits)
    if count != said:
        raise ValueError(f"{entry.name} has {count:,} {what}, the catalog says {said:,} ({' + '.join(splits)})")


def _by_position(entry: "Entry", count: int, what: str) -> tuple[slice, slice, slice]:
    """train, valid and test, one after the other."""
    _hold_count(entry, count, what, *THREE)
    train, valid = entry.splits["train"], entry.splits["valid"]
    return slice(0, train), slice(train, train + valid), slice(train + valid, count)


def _by_hash(entry: "Entry", keys: Iterable[str], what: str) -> tuple[list[str], list[str], list[str]]:
    """train, valid and test of these keys: in the order of their SHA-256, test first, then valid, and train the rest.

    So where a key goes depends on its text alone, not on the order or the alphabet.
    """
    order = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())
    _hold_count(entry, len(order), what, *THREE)
    test, valid = entry.splits["test"], entry.splits["valid"]
    return order[test + valid :], order[test : test + valid], order[:test]


READERS = {
    "idx": read_idx,
    "cifar-python": read_cifar,
    "pictures": read_pictures,
    "text": read_text,
    "words": read_words,
    "pairs": read_pairs,
    "series": read_series,
    "table": read_table,
}
