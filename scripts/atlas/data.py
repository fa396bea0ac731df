"""Real data, as datasets/catalog.toml describes it.

    from atlas import data
    mnist = data.load("mnist")    # mnist.x_train (60000, 28, 28) uint8, mnist.y_train (60000,) int64, ...

Shipped sets lie in the repository and need no network; the others are fetched once, see atlas.downloading.
Every load holds the files to the catalog's SHA-256 first.
"""

import difflib
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.course import CourseError, root

if TYPE_CHECKING:
    import numpy as np

LFS_POINTER = b"version https://git-lfs"


class DataError(CourseError):
    """Data that is not there or not as it should be; the message says what to do."""


@dataclass(frozen=True)
class File:
    name: str
    bytes: int
    sha256: str
    content_md5: str | None = None  # the published MD5 of the uncompressed file


@dataclass(frozen=True)
class Entry:
    """One dataset of the catalog; the fields are explained at the top of datasets/catalog.toml."""

    name: str
    title: str
    about: str
    licence: str
    source: str
    taken_from: str
    how: str  # "shipped" or "download"
    format: str
    shape: tuple[int, ...]  # of one image
    dtype: str
    range: tuple[int, int]
    splits: Mapping[str, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: tuple[File, ...]
    mirrors: tuple[str, ...] = ()
    licence_file: str | None = None

    @property
    def folder(self) -> Path:
        """Where its files are, or will be."""
        datasets = root() / "datasets"
        return datasets / self.name if self.how == "shipped" else datasets / "downloads" / self.name

    @property
    def bytes(self) -> int:
        """The size of all its files on disk."""
        return sum(file.bytes for file in self.files)

    def is_here(self) -> bool:
        """Whether each file is there in its full size (a quick look; verify() also compares the SHA-256)."""
        paths = [(self.folder / file.name, file.bytes) for file in self.files]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)


@dataclass(frozen=True)
class Finding:
    """A file that is not as the catalog says."""

    dataset: str
    file: Path
    problem: str  # continues a sentence that starts with the file
    repair: str  # the command, or what to do

    def __str__(self) -> str:
        return f"{_shown(self.file)} {self.problem}. To repair: {self.repair}"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, in memory. The arrays are this caller's own: changing them changes nobody else's.

    x_train, x_test: uint8 in 0 ... 255, (N, H, W) for grey and (N, H, W, C) for colour
    y_train, y_test: int64 (N,), the index of the class in `classes`
    """

    name: str
    x_train: "np.ndarray"
    y_train: "np.ndarray"
    x_test: "np.ndarray"
    y_test: "np.ndarray"
    classes: tuple[str, ...]
    licence: str
    source: str

    def __repr__(self) -> str:
        return (
            f"{self.name}: x_train {self.x_train.shape}, x_test {self.x_test.shape}, {self.x_train.dtype} 0 ... 255; "
            f"{len(self.classes)} classes ({', '.join(self.classes)}); licence: {self.licence}"
        )


def catalog() -> dict[str, Entry]:
    """All datasets by name, in the catalog's order. DataError if the catalog is missing or broken."""
    path = root() / "datasets" / "catalog.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: _entry(name, table) for name, table in tables.items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise DataError(f"{_shown(path)} cannot be read: {error}\nTo repair: {_checkout(path)}") from error


def _entry(name: str, table: dict) -> Entry:
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    fields["files"] = tuple(File(**file) for file in table.get("files", []))
    return Entry(name=name, **fields)


def find(name: str) -> Entry:
    """The dataset of that name; DataError with "did you mean" if there is none."""
    entries = catalog()
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name.lower().replace("_", "-"), entries, n=1)
    meant = f'; did you mean "{close[0]}"?' if close else "."
    raise DataError(f'There is no dataset "{name}"{meant} There are: {", ".join(entries)}.')


def load(name: str, *, fetch: bool = True) -> Dataset:
    """The dataset `name` (see `atlas data list`), its files checked.

    fetch: download a set that is not shipped and not here yet; with False that is a DataError.
    DataError: unknown name, missing or damaged file, download failed; the message says what to do.
    """
    from atlas.formats import READERS

    entry = find(name)
    _ensure(entry, fetch)
    x_train, y_train, x_test, y_test = READERS[entry.format](entry.folder)
    return Dataset(entry.name, x_train, y_train, x_test, y_test, entry.classes, entry.licence, entry.source)


def fetch(name: str) -> Path:
    """Make sure that the files of `name` are here and whole; their folder. Prints what it does when it downloads.

    A damaged download is set aside and fetched again; a damaged shipped file is a DataError with the repair command.
    """
    entry = find(name)
    _ensure(entry, fetch=True)
    return entry.folder


def verify(name: str | None = None) -> list[Finding]:
    """What is not as the catalog says (presence, size, SHA-256), in one dataset or in all; empty if all is well.

    A download that was never fetched counts only when it is asked for by name.
    """
    if name is not None:
        return _check(find(name))
    return [
        finding
        for entry in catalog().values()
        if entry.how == "shipped" or any((entry.folder / file.name).exists() for file in entry.files)
        for finding in _check(entry)
    ]


def _check(entry: Entry) -> list[Finding]:
    return [
        Finding(entry.name, entry.folder / file.name, problem, _repair(entry, problem))
        for file in entry.files
        if (problem := _problem(entry.folder / file.name, file))
    ]


def _problem(path: Path, file: File) -> str | None:
    """What is wrong with this file, or None; the SHA-256 takes about 1 ms a MB."""
    if not path.is_file():
        return "is missing"
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            return "is a git-lfs pointer, not the data"
        size = path.stat().st_size
        if size != file.bytes:
            return f"is damaged: it has {size:,} bytes instead of {file.bytes:,}"
        stream.seek(0)
        if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
            return "is damaged: its SHA-256 is not the catalog's"
    return None


def _repair(entry: Entry, problem: str) -> str:
    if entry.how == "download":
        return f"atlas data fetch {entry.name}"
    pull = "git lfs pull, or " if "git-lfs" in problem else ""
    return pull + _checkout(entry.folder)


def _ensure(entry: Entry, fetch: bool) -> None:
    """The files are here and whole, or DataError; the lock is only taken where something is to be fetched."""
    findings = _check(entry)
    if findings and fetch and entry.how == "download":
        _download(entry)
        findings = _check(entry)
    if findings:
        problems = [f"{_shown(finding.file)} {finding.problem}." for finding in findings]
        raise DataError("\n".join([*problems, f"To repair: {findings[0].repair}"]))


def _checkout(path: Path) -> str:
    return f"git checkout -- {_shown(path)}"


def _shown(path: Path) -> str:
    """As seen from the repository, for messages."""
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else str(path)


def _download(entry: Entry) -> None:
    """Fetch what is missing or damaged; looked at again under the lock, since another program may have done it."""
    from atlas import downloading

    try:
        with downloading.locked(entry.folder, entry.title):
            for file in entry.files:
                path = entry.folder / file.name
                problem = _problem(path, file)
                if problem is None:
                    continue
                if path.exists():
                    aside = downloading.set_aside(path)
                    print(f"{_shown(path)} {problem}; set aside as {aside.name} and fetched again.")
                downloading.download(entry.mirrors, path, file.bytes, file.sha256, entry.title)
    except downloading.NotDownloaded as error:
        raise DataError(f"{entry.title} could not be downloaded:\n{_indented(error)}\n{_by_hand(entry)}") from None
    except OSError as error:
        raise DataError(
            f"{entry.title} cannot be kept in {_shown(entry.folder)}: {error}\n{_by_hand(entry)}"
        ) from error


def _by_hand(entry: Entry) -> str:
    """What to do where nothing can be downloaded."""
    files = "\n".join(
        f"  {_shown(entry.folder / file.name)}   ({file.bytes:,} bytes, SHA-256 {file.sha256})" for file in entry.files
    )
    return (
        f"To try again: atlas data fetch {entry.name}\n"
        f"Without a network: fetch it on another computer, from one of\n{_indented(chr(10).join(entry.mirrors))}\n"
        f"put it here as\n{files}\nand then: atlas data verify {entry.name}"
    )


def _indented(text: object) -> str:
    return "\n".join(f"  {line}" for line in str(text).splitlines())
