"""What the course's scripts have in common, so that model, loop and options are what one reads in them.

A script that trains promises its user (tests/test_scripts.py holds each script to it):

- A slip gets one message that says what to do, never a traceback.
- --checkpoint is there after each epoch, whole at any moment; Ctrl-C ends with code 130, and --resume goes on as if
  nothing had happened.
- A checkpoint that is there already is lost only with --overwrite.
- A damaged checkpoint, or another program's, is left as it is.

What a script leaves, by `leaves` in its workshop.toml, lies where the option of that name says: --figure, --checkpoint,
--records, --model, --arrays. A checkpoint is a dict: its "config" holds the values of the options that make the
training what it is, its "history" lists with one entry an epoch, and the rest is what resuming needs. torch keeps it by
`save`, NumPy by `save_arrays`, and so does Keras, with lists of `variable.numpy()` of model and optimizer. Light: no
framework is imported before something needs it.
"""

import argparse
import contextlib
import errno
import io
import json
import os
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas.course import LEAVES

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

_begun: Path | None = None  # the checkpoint that this run writes or goes on with: what Ctrl-C leaves


def run(main: Callable[[], Any]) -> None:
    """Run a script's main function; Ctrl-C ends it with a sentence and exit code 130, an open TODO with another."""
    try:
        main()
    except NotImplementedError as error:
        if not str(error).replace(".", "").isidentifier():  # what a framework has not implemented
            raise
        sys.exit(f"NotImplementedError: {error} is not written yet. Its TODO is in {Path(sys.argv[0]).name}.")
    except KeyboardInterrupt:
        kept = f" {_begun} holds every whole epoch: --resume goes on." if _begun else ""
        print(f"\nStopped.{kept}", file=sys.stderr)
        sys.exit(130)


# ---------------------------------------------------------------------------------------------- options


def number(kind: type, low: float, high: float) -> Callable[[str], int | float]:
    """An argparse type: a number of this kind, int or float, from low to high."""

    def parse(text: str) -> int | float:
        if not low <= kind(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is not from {low:,} to {high:,}")
        return kind(text)

    parse.__name__ = "whole number" if kind is int else "number"  # what argparse calls it in its messages
    return parse


def figure(text: str) -> Path:
    """An argparse type: the path of a figure."""
    *others, last = LEAVES["figure"]
    if not text.endswith((*others, last)):
        raise argparse.ArgumentTypeError(f"{text} does not end in {', '.join(others)} or {last}")
    return Path(text)


def device(parser: argparse.ArgumentParser, name: str) -> "torch.device":
    """The device of --device, "auto" for the best there is; ends the program where it does not work here."""
    from atlas import hardware

    try:
        return hardware.device(None if name == "auto" else name)
    except ValueError as error:
        parser.error(str(error))


def settings(parser: argparse.ArgumentParser, options: argparse.Namespace, defaults: dict, saved: dict | None) -> dict:
    """The configuration of a training, with the names of `defaults`: from the options, by default None each.

    saved: the checkpoint to go on with, whose configuration it is then. Ends the program where the options
    contradict it, or ask for no more --epochs than it has.
    """
    given = {name: getattr(options, name) for name in defaults}
    if not saved:
        return {name: default if given[name] is None else given[name] for name, default in defaults.items()}
    for name, value in saved["config"].items():
        if given[name] not in (None, value):
            parser.error(f"the checkpoint's training has {name} {value}; leave it out, or leave out --resume")
    done = max(map(len, saved["history"].values()))
    if done >= options.epochs:
        parser.error(f"{done} epochs are done already: ask for more with --epochs")
    return saved["config"]


def reserve(options: argparse.Namespace) -> None:
    """Before a training: ends the program where it would overwrite a checkpoint unasked, or could not write."""
    global _begun
    path = options.checkpoint
    if path.exists() and not (options.resume or options.overwrite):
        sys.exit(
            f"{path} is there already: --resume goes on with it, --overwrite trains anew in its place, and"
            " --checkpoint names another place."
        )
    for option in ("checkpoint", "figure"):
        if place := getattr(options, option):
            with _told(place, option):
                place.parent.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=place.parent).close()
    _begun = path if options.resume else None


def text(config: dict, least: int) -> tuple[list["torch.Tensor"], str]:
    """What a model of characters learns from: train, validation and test text as ids, int64 (N,), and the alphabet.

    config["text"]: a file in UTF-8, cut into 90, 5 and 5 %, or None for Moby Dick in its own parts; config["limit"]:
    the most characters of a part, or None. Ends the program where a part has fewer than `least`.
    """
    import torch

    from atlas import data

    if config["text"]:
        try:
            whole = Path(config["text"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            sys.exit(f"{config['text']} cannot be read as text in UTF-8: {error}")
        cuts = int(0.9 * len(whole)), int(0.95 * len(whole))
    else:
        whole = (book := data.load("moby-dick")).text
        cuts = len(book.train), len(book.train) + len(book.valid)
    parts = [part[: config["limit"]] for part in (whole[: cuts[0]], whole[cuts[0] : cuts[1]], whole[cuts[1] :])]
    if min(map(len, parts)) < least:
        sys.exit(
            f"{config['text'] or 'the text'} is too short: {sum(map(len, parts)):,} characters with --limit, and each"
            f" of its three parts needs {least:,}."
        )
    alphabet = "".join(sorted(set(whole)))
    number = {c: k for k, c in enumerate(alphabet)}
    return [torch.tensor([number[c] for c in part]) for part in parts], alphabet


# ---------------------------------------------------------------------------------------------- checkpoints


def save(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint of torch."""
    import torch

    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)  # torch's own way to a file does not say what is wrong with a disk
    with writing(path) as part:
        part.write_bytes(buffer.getbuffer())


def load(path: Path, defaults: dict) -> dict:
    """The checkpoint at `path`, on the CPU; ends the program where there is none with the names of `defaults`."""
    import torch

    with reading(path):
        saved = torch.load(path, map_location="cpu", weights_only=True)  # data only: it cannot run foreign code
        return _own(saved, defaults)


def save_arrays(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint whose parts are lists of arrays, or what JSON can hold, into one .npz file."""
    import numpy as np

    arrays, facts = {}, {}
    for name, part in checkpoint.items():
        if isinstance(part, list) and part:
            arrays |= {f"{name}/{n}": array for n, array in enumerate(part)}
        else:
            facts[name] = part
    with writing(path) as part, part.open("wb") as file:
        np.savez(file, facts=json.dumps(facts), **arrays)


def load_arrays(path: Path, defaults: dict) -> dict:
    """What save_arrays was given; ends the program as `load` does."""
    import numpy as np

    with reading(path), np.load(path, allow_pickle=False) as file:  # data only: it cannot run foreign code
        saved = json.loads(str(file["facts"]))
        for key in file.files:  # in the order in which they were written
            if key != "facts":
                saved.setdefault(key.rpartition("/")[0], []).append(file[key])
        return _own(saved, defaults)


def _own(saved: dict, defaults: dict) -> dict:
    if saved["config"].keys() != defaults.keys() or not saved["history"]:
        raise ValueError("the checkpoint of another program")
    return saved


@contextlib.contextmanager
def writing(path: Path, option: str = "checkpoint") -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at the end: all of it or nothing, whatever happens.

    Its name ends as that of `path` does. Ends the program where that cannot be written; `option` names the place.
    """
    global _begun
    part = path.with_name(f"part-of-{path.name}")
    try:
        with _told(path, option):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, path)
    finally:
        if part.is_file():
            part.unlink()
    if option == "checkpoint":
        _begun = path


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Around what reads a checkpoint and restores from it: what is wrong with the file is said in a sentence."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        script = Path(sys.argv[0]).name
        sys.exit(f"There is no checkpoint {path} yet. Train one first: python {script} --checkpoint {path}")
    except (
        *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError),
        *(pickle.UnpicklingError, zipfile.BadZipFile),
    ) as error:
        cut_short = isinstance(error, OSError) and error.errno == errno.EINVAL  # what torch says of a small file's half
        if isinstance(error, OSError) and error.errno and not cut_short:
            sys.exit(f"{path} cannot be read: {error.strerror}.")
        sys.exit(f"{path} is damaged, or no checkpoint of this program. Move it away, and train a new one.")


@contextlib.contextmanager
def _told(path: Path, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        sys.exit(f"Cannot write {path}: {why}. Make room, or choose another place with --{option}.")


# ---------------------------------------------------------------------------------------------- bar and figure


def progress(steps: Iterable, label: str) -> Iterable:
    """The same steps, with a bar while they last; quiet where no terminal is."""
    from tqdm import tqdm

    return tqdm(steps, label, leave=False, disable=None)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write the figure, and say where it is."""
    with writing(path, "figure") as part:
        figure.savefig(part)
    print(f"figure {path}")
