"""How many minutes a section takes a stranger, estimated from what stands there, and the agenda held against that.

A class works through the notebook: one section is one item of the agenda. The README is read before or after and takes
none of these minutes. What counts, in minutes, for a section of the starter notebook:

    words / 180                   all that is to be read, folded answers too
    + SECONDS_A_LINE / 60         for each line of given code that is not blank: read, not studied
    + minutes of its exercises    as workshop.toml says: think, write, look at the check, mend
    + seconds of its long cells   as the text before them says ("about 20 s"), which `untold` holds against the clock
    + LOOK                        run the cells, look at the figures, answer the question

The two constants were fitted by least squares to the 20 sections of initialization-and-activations and
regularization-dropout-batchnorm as they were when two people tried them; the other rates are given. What is left: 1.0
minutes for a section (root mean square; the worst is 2.9 too few), 2 % for either workshop. Nothing here depends on the
machine, so `atlas validate` says the same everywhere.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from atlas import course
from atlas.authoring import pages
from atlas.authoring.pages import Section
from atlas.build import Problem
from atlas.course import AgendaItem, Workshop

WORDS_A_MINUTE = 180
SECONDS_A_LINE = 3.4
LOOK = 2.3
TOLERANCE = 0.15
"""An item may have so much less than its estimate."""
LONG = 8
"""Seconds after which a cell has to say beforehand how long it takes, and to show that it is getting on."""
SLACK = 1.5
"""A cell may take so many times what its text says: machines differ."""

_TOLD = re.compile(r"\babout (\d+) s\b", re.IGNORECASE)
_TIME = re.compile(r"^\| *(\d+:\d\d) *\|", re.MULTILINE)


def estimate(workshop: Workshop, item: AgendaItem, section: Section) -> dict[str, float]:
    """The minutes that a section takes, by what takes them."""
    minutes = {exercise.name: exercise.minutes for exercise in workshop.exercises}
    lines = sum(bool(line.strip()) for source in section.code for line in source.splitlines())
    return {
        "words": pages.count_words(section.text) / WORDS_A_MINUTE,
        "given code": lines * SECONDS_A_LINE / 60,
        "exercises": float(sum(minutes[name] for name in item.exercises)),
        "long cells": told(section.text) / 60,
        "looking": LOOK,
    }


def told(text: str) -> int:
    """The seconds that a text announces for the cells that follow it; 0 where it says nothing."""
    return sum(map(int, _TOLD.findall(pages.unfolded(text))))


def shortfalls(workshop: Workshop) -> Iterator[Problem]:
    """Where sections, agenda and the instructor's plan disagree, and which items have too few minutes."""
    if not workshop.notebook.exists():
        return
    source = f"edit {_shown(workshop.source)}, then atlas build"
    sections, items = pages.sections(workshop), [item for item in workshop.agenda if item.kind != "break"]
    breaks = [before.title for before, after in pairwise(workshop.agenda) if after.kind == "break"]
    titles, planned = [section.title for section in sections], [item.title for item in items]
    if titles != planned:
        missing = [title for title in planned if title not in titles] or [t for t in titles if t not in planned]
        what = f"its sections are not the items of the agenda in order: {(missing or planned)[0]!r}"
        yield Problem(
            _shown(workshop.notebook), what, f"give each item its `## ` heading with the same title; {source}"
        )
        return
    for item, section in zip(items, sections, strict=True):
        if section.minutes not in (None, item.minutes):
            what = f"section {item.title!r} says {section.minutes} min, the agenda {item.minutes}"
            yield Problem(_shown(workshop.notebook), what, source)
        if ("**Break.**" in section.text) != (item.title in breaks):
            what = f"says **Break.** after {item.title!r} and the agenda does not, or the reverse"
            yield Problem(_shown(workshop.notebook), what, source)
        parts = estimate(workshop, item, section)
        needed = sum(parts.values())
        if item.minutes < (1 - TOLERANCE) * needed:
            listed = ", ".join(f"{what} {minutes:.1f}" for what, minutes in parts.items() if minutes)
            what = f"agenda item {item.title!r} has {item.minutes} minutes and needs about {needed:.0f} ({listed})"
            yield Problem(_shown(workshop.folder / "workshop.toml"), what, "cut the section, or give it more minutes")
    yield from _plan(workshop)
    yield from _still(workshop)


def untold(executed: Iterable) -> list[str]:
    """Cells of a run that took longer than the text before them says.

    executed: (cell, seconds of computing) in order; seconds are 0 for Markdown.
    """
    found, before = [], ""
    for cell, seconds in executed:
        if cell.cell_type == "markdown":
            before = cell.source
            continue
        expected = told(before)
        if seconds > SLACK * max(expected, LONG):
            said = f"about {expected} s" if expected else "nothing of it"
            first = cell.source.partition("\n")[0]
            found.append(f"the cell that begins {first!r} computes {seconds:.0f} s, the text before it says {said}")
        before = ""
    return found


def _plan(workshop: Workshop) -> Iterator[Problem]:
    """The instructor's minute by minute has a row at the beginning of each item."""
    path = workshop.solution_folder / "INSTRUCTOR.md"
    times = _TIME.findall(path.read_text(encoding="utf-8")) if path.exists() else []
    begin = 0
    for item in workshop.agenda:
        time = f"{begin // 60}:{begin % 60:02d}"
        if times and time not in times:
            what = f"has no row for {time}, when {item.title!r} begins"
            yield Problem(_shown(path), what, "bring the table in step with the agenda")
        begin += item.minutes


def _still(workshop: Workshop) -> Iterator[Problem]:
    """Long cells in which nothing moves while they run."""
    before = ""
    for kind, source in pages.cells(workshop.notebook):
        if kind == "markdown":
            before = source
            continue
        if told(before) >= LONG and not _prints_in_a_loop(source):
            what = f"a cell of about {told(before)} s shows no progress: {source.partition(chr(10))[0]}"
            repair = f"print a line in its loop; edit {_shown(workshop.source)}, then atlas build"
            yield Problem(_shown(workshop.notebook), what, repair)
        before = ""


def _prints_in_a_loop(source: str) -> bool:
    python = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)  # magics
    loops = [node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.For | ast.While)]
    return any(getattr(node, "id", None) == "print" for loop in loops for node in ast.walk(loop))


def _shown(path: Path) -> str:
    return path.relative_to(course.root()).as_posix()
