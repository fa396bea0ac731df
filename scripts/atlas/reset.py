"""Puts fresh starters in the place of a learner's files, after keeping a copy of these."""

import os
import shutil
from datetime import datetime
from pathlib import Path

from atlas import build
from atlas.course import CourseError, Workshop, bring_back, root, state_dir


def starters(workshop: Workshop) -> dict[Path, str]:
    """The learner's files of a workshop → what they contain at first, made from the solutions."""
    fresh = {workshop.notebook: build.notebooks(*_source(workshop.source))[1]}
    if workshop.script:
        fresh[workshop.folder / workshop.script] = build.starter(*_source(workshop.solution_folder / workshop.script))
    return fresh


def changed(fresh: dict[Path, str]) -> list[Path]:
    """Those of the learner's files that are not as at first."""
    return [path for path, text in fresh.items() if not path.exists() or path.read_bytes() != text.encode()]


def reset(fresh: dict[Path, str]) -> Path:
    """Copy the files to a new folder under .atlas/backups/, then write them fresh; returns that folder."""
    backup = _new_folder(state_dir() / "backups")
    for path in fresh:
        if path.exists():
            kept = backup / path.relative_to(root())
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, kept)
    for path, text in fresh.items():
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(text.encode())
        temporary.replace(path)
    return backup


def _source(path: Path) -> tuple[str, str]:
    shown = path.relative_to(root()).as_posix()
    if not path.exists():
        raise CourseError(
            f"{shown} is missing, which the fresh files are made from. To get it back: {bring_back(path)}"
        )
    return path.read_text(encoding="utf-8"), shown


def _new_folder(parent: Path) -> Path:
    stamp, number = datetime.now().strftime("%Y%m%d-%H%M%S"), 0
    while True:
        folder = parent / (f"{stamp}-{number}" if number else stamp)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder
