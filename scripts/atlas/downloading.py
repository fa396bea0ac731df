"""Download a file once, from the first of several mirrors that gives it whole and in time.

pooch keeps the half-finished file apart and compares the SHA-256 before the file gets its name; here is what it
does not do: give up a mirror that hangs, crawls or sends something else, and say why in a few words.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 20.0  # seconds without an answer, or at less than SLOWEST, after which a mirror is given up
SLOWEST = 50_000  # bytes a second
MARGIN = 200_000_000  # bytes of disk that a download leaves free


class NotDownloaded(Exception):
    """No mirror gave the file, or there is no room for it; the message says why, a line for each mirror."""


class _GivenUp(Exception):
    """This mirror will not do; the message says why."""


def download(mirrors: tuple[str, ...], target: Path, size: int, sha256: str, title: str) -> None:
    """Put the file of `size` bytes with this SHA-256 at `target`, or raise NotDownloaded and leave nothing there.

    Prints which mirror is used and why one was given up. The caller holds the folder's lock (see locked()).
    """
    import pooch

    free = shutil.disk_usage(target.parent).free
    if free < size + MARGIN:
        raise NotDownloaded(
            f"It needs {megabytes(size + MARGIN)} of free disk (with a margin); {target.parent} has {megabytes(free)}."
        )
    pooch.get_logger().setLevel("ERROR")  # it reports every step; the lines below say what a learner needs
    incoming = target.parent / ".incoming"  # also holds what a killed download left, and is removed with it
    failures = []
    try:
        for url in mirrors:
            print(f"Downloading {title} ({megabytes(size)}) from {url}", flush=True)
            try:
                pooch.retrieve(url, f"sha256:{sha256}", fname=target.name, path=incoming, downloader=_Mirror(size))
            except Exception as error:
                reason = _why(error)
                failures.append(f"{url}: {reason}")
                print(f"  given up: {reason}", flush=True)
            else:
                os.replace(incoming / target.name, target)
                return
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    raise NotDownloaded("\n".join(failures))


class _Mirror:
    """A downloader as pooch wants it: called with (url, path, pooch), it writes the file, or raises."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, url: str, path: str, pooch=None) -> None:
        import requests

        answer = requests.get(url, stream=True, timeout=PATIENCE, headers={"Accept-Encoding": "identity"})
        with answer, open(path, "wb") as file:
            answer.raise_for_status()
            if int(answer.headers.get("Content-Length", self.size)) != self.size:
                raise _GivenUp("it sends a file of another size (perhaps a login page of this network)")
            received = 0
            for chunk in _in_time(answer.raw, self.size):
                file.write(chunk)
                received += len(chunk)
                if received > self.size:
                    raise _GivenUp(f"it sends more than {megabytes(self.size)}")


def _in_time(raw, size: int) -> Iterator[bytes]:
    """The chunks of an urllib3 response as they come, with a progress bar; _GivenUp if they come too slowly."""
    from tqdm import tqdm

    since, received = time.monotonic(), 0  # in the present stretch of PATIENCE seconds
    with tqdm(total=size, unit="B", unit_scale=True, disable=not _watched(), leave=False) as bar:
        while chunk := raw.read1(1 << 16):  # read1 returns what is there, so that a trickle is noticed
            yield chunk
            bar.update(len(chunk))
            received += len(chunk)
            if time.monotonic() - since > PATIENCE:
                if received < SLOWEST * PATIENCE:
                    raise _GivenUp(f"too slow (under {SLOWEST // 1000} kB a second)")
                since, received = time.monotonic(), 0


def _watched() -> bool:
    """Whether somebody looks on: a terminal or a notebook, and not CI, whose logs a bar would fill."""
    return not os.environ.get("CI") and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def _why(error: Exception) -> str:
    """Why a mirror was given up, in a few words; raises the error if it is not the mirror's fault."""
    import requests
    import urllib3

    match error:
        case _GivenUp():
            return str(error)
        case requests.HTTPError():
            return f"it answers {error.response.status_code} {error.response.reason}"
        case requests.Timeout() | urllib3.exceptions.TimeoutError():
            return f"no answer for {PATIENCE:.0f} seconds"
        case requests.exceptions.SSLError():
            return "its certificate is not accepted (perhaps a proxy of this network)"
        case requests.ConnectionError():
            return "no connection"
        case urllib3.exceptions.HTTPError():
            return "it broke off"
        case requests.RequestException():
            return f"no download ({type(error).__name__})"
        case ValueError():  # pooch: the SHA-256 differs
            return "it sends a damaged file (another SHA-256)"
    raise error


@contextlib.contextmanager
def locked(folder: Path, title: str) -> Iterator[None]:
    """Hold `folder` (made if need be) so that two programs do not download the same thing; waits for the other one."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        print(f"Another program is downloading {title}; waiting for it.", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def set_aside(path: Path) -> Path:
    """Rename a damaged file to `<name>.damaged`, in place of an earlier one; its new path."""
    aside = path.with_name(path.name + ".damaged")
    os.replace(path, aside)
    return aside


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
