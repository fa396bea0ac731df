"""The learner's progress, in one readable file under .atlas/ that survives what happens to files.

Every change reads, changes and atomically replaces the file under a lock, so that two kernels at once lose nothing, and
a kill at any moment leaves the old file or the new one. A file that cannot be understood is set aside, not overwritten.
On a file system without locks it is kept too; then two notebooks at the same moment may disturb each other.
Nothing here raises in a learner's hands: what cannot be kept is said once on stderr, and the course goes on.

    {"version": 1, "workshops": {name: {"opened": iso, "exercises":
        {exercise: {"status", "attempts", "hints", "first_passed": iso, "last": iso}}}}}
"""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from atlas.course import Workshop, root, state_dir

VERSION = 1
STATUSES = ("untouched", "failed", "caught_up", "passed")
"""From worst to best: a status never goes back."""
LOCK_SECONDS = 5.0

_said: set[str] = set()


class _Damaged(Exception):
    """The file is not a progress file."""


class _Newer(Exception):
    """The file was written by a newer version of the kit."""


def read() -> dict:
    """All progress; an empty one when there is none yet. A damaged file is set aside first."""
    try:
        return _parse(_file())
    except _Damaged:
        return _change(lambda data: data)
    except (_Newer, OSError) as error:
        _say(_not_kept(error))
        return _empty()


def record(workshop: str, exercise: str, status: str, **extra) -> None:
    """Note the outcome of a check (or a catch-up); what is passed stays passed. `extra` is kept beside it as given."""
    if status not in STATUSES:
        raise ValueError(f"status {status!r} is none of {', '.join(STATUSES)}")

    def change(data: dict) -> None:
        entry = _entry(data, workshop, exercise)
        entry.update(extra)
        entry["status"] = max(entry["status"], status, key=STATUSES.index)
        entry["attempts"] += status in ("failed", "passed")
        entry["last"] = _now()
        if status == "passed":
            entry.setdefault("first_passed", entry["last"])

    _change(change)


def record_hint(workshop: str, exercise: str) -> int:
    """Count one more hint; returns how many were used before it."""

    def change(data: dict) -> None:
        _entry(data, workshop, exercise)["hints"] += 1

    return _entry(_change(change), workshop, exercise)["hints"] - 1


def opened(workshop: str) -> None:
    """Note when the workshop was opened for the first time."""
    _change(lambda data: _workshop(data, workshop).setdefault("opened", _now()))


def forget(workshop: str) -> None:
    """Take the workshop's progress back to nothing."""
    _change(lambda data: data["workshops"].pop(_name(workshop), None))


def trouble() -> str:
    """What is wrong with the file, in a sentence, or nothing; changes nothing."""
    try:
        _parse(_file())
    except _Damaged as damage:
        return f"{_file()} is damaged ({damage}); it is set aside at the next check"
    except (_Newer, OSError) as error:
        return str(error)
    return ""


def statuses(workshop: Workshop, data: dict) -> dict[str, str]:
    """Status by exercise, in the workshop's order; "untouched" where nothing is recorded."""
    recorded = data["workshops"].get(workshop.name, {}).get("exercises", {})
    return {each.name: recorded.get(each.name, {}).get("status", "untouched") for each in workshop.exercises}


def complete(workshop: Workshop, data: dict) -> bool:
    """Whether every exercise is passed or caught up; a planned workshop never is."""
    return not workshop.planned and all(
        status in ("passed", "caught_up") for status in statuses(workshop, data).values()
    )


def _change(change: Callable[[dict], object]) -> dict:
    """Apply the change to the file under the lock; returns the data as it is then, kept or not."""
    data = _empty()
    try:
        file = _file()
        with _locked(file):
            try:
                data = _parse(file)
            except _Damaged as damage:
                _set_aside(file, damage)
            before = _text(data)
            change(data)
            if _text(data) != before:
                _replace(file, _text(data))
    except (_Newer, OSError) as error:
        change(data)
        _say(_not_kept(error))
    return data


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout  # 30 ms that a mere read does not need

    lock = FileLock(
        file.with_suffix(".lock"), timeout=LOCK_SECONDS, fallback_to_soft=False
    )  # a soft one survives a kill
    try:
        lock.acquire()
    except Timeout:
        raise OSError(f"another program has held {file.with_suffix('.lock')} for {LOCK_SECONDS:g} s") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        _say(f"{file.parent} lies where files cannot be locked. Progress is kept; work in one notebook at a time.")
    try:
        yield
    finally:
        lock.release()


_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What flock raises on a network drive or a shared folder that has none."""


def _not_kept(error: Exception) -> str:
    text = f"Progress is not kept: {error}. The course goes on without it."
    if getattr(error, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS):
        text += " To keep it: sudo chown -R $USER . in the course's folder, or set ATLAS_STATE to a folder of yours."
    return text


def _parse(file: Path) -> dict:
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return _empty()
    except (ValueError, RecursionError) as error:
        raise _Damaged(str(error)) from error
    version = data.get("version") if isinstance(data, dict) else None
    if type(version) is not int or version < VERSION:
        raise _Damaged(f"version is {version!r}, not {VERSION}")
    if version > VERSION:
        raise _Newer(f"{file} was written by a newer kit (format {version}); update this one{_by_git()}")
    if not _well_formed(data):
        raise _Damaged("not the layout of a progress file")
    return data


def _by_git() -> str:
    return ": git pull" if (root() / ".git").exists() else ""


def _well_formed(data: dict) -> bool:
    workshops = data.get("workshops")
    if not isinstance(workshops, dict) or not all(isinstance(each, dict) for each in workshops.values()):
        return False
    exercises = [each.get("exercises", {}) for each in workshops.values()]
    if not all(isinstance(each, dict) for each in exercises):
        return False
    return all(
        isinstance(entry, dict)
        and entry.get("status") in STATUSES
        and type(entry.get("attempts")) is int
        and type(entry.get("hints")) is int
        for each in exercises
        for entry in each.values()
    )


def _set_aside(file: Path, damage: _Damaged) -> None:
    stamp, count = datetime.now().strftime("%Y%m%d-%H%M%S"), 0
    aside = file.with_name(f"progress.damaged-{stamp}.json")
    while aside.exists():
        count += 1
        aside = file.with_name(f"progress.damaged-{stamp}-{count}.json")
    file.rename(aside)
    _say(f"{file.name} was damaged ({damage}); it is kept as {aside}, and progress starts afresh.")


def _replace(file: Path, text: str) -> None:
    # always the same temporary name: the lock protects it, and a kill leaves one leftover at most
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


def _empty() -> dict:
    return {"version": VERSION, "workshops": {}}


def _workshop(data: dict, workshop: str) -> dict:
    return data["workshops"].setdefault(_name(workshop), {})


def _entry(data: dict, workshop: str, exercise: str) -> dict:
    exercises = _workshop(data, workshop).setdefault("exercises", {})
    return exercises.setdefault(exercise, {"status": "untouched", "attempts": 0, "hints": 0})


def _name(workshop: str) -> str:
    return workshop.rpartition("/")[2]


def _file() -> Path:
    return state_dir() / "progress.json"


def _text(data: dict) -> str:
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _say(message: str) -> None:
    """Once a process: a read-only folder would otherwise complain after every check."""
    if message not in _said:
        _said.add(message)
        print(message, file=sys.stderr)
