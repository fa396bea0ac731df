"""A notebook as a learner sees it in JupyterLab and VS Code: its sections, and what must not be in the way there."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from atlas import build, course
from atlas.build import Problem
from atlas.course import Workshop

COLUMNS = 100
"""So much of a line is to be seen in a window of 1,400 pixels beside the file browser."""

_HEADING = re.compile(r"^## (?:\d+ · )?(?P<title>.+?)(?: \((?P<minutes>\d+) min\))?\s*$")
_FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
_DRAWING = re.compile(r"^\W*(?:Text\(|<(?:Axes|matplotlib\.)|array\()")


@dataclass
class Section:
    """What stands below one `## ` heading; the first one holds the notebook's opening too."""

    title: str  # without number, minutes and backticks
    minutes: int | None
    text: str = ""
    code: list[str] = field(default_factory=list)


def sections(workshop: Workshop) -> list[Section]:
    """The sections of the starter notebook, in order."""
    found: list[Section] = []
    opening = Section("", None)
    for kind, source in cells(workshop.notebook):
        if kind == "code":
            (found[-1] if found else opening).code.append(source)
            continue
        for part in re.split(r"^(?=## )", source, flags=re.MULTILINE):
            heading = _HEADING.match(part.partition("\n")[0])
            if heading:
                minutes = heading["minutes"]
                found.append(Section(heading["title"].replace("`", ""), int(minutes) if minutes else None))
                part = part.partition("\n")[2]
            (found[-1] if found else opening).text += f"{part}\n"
    if found:
        found[0].text = opening.text + found[0].text
        found[0].code = opening.code + found[0].code
    return found


def cells(path: Path) -> list[tuple[str, str]]:
    """(type, source) of a notebook's cells, but for those of the instructor; none where it cannot be read."""
    try:
        return [
            (cell["cell_type"], "".join(cell["source"]))
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if build.INSTRUCTOR not in cell["metadata"].get("tags", [])
        ]
    except (OSError, ValueError, KeyError):
        return []


def count_words(markdown: str) -> int:
    """Words of the prose: without code, generated tables, HTML, link targets; a formula counts as one."""
    text = re.sub(r"<!-- atlas:(\w+) -->.*?<!-- /atlas:\1 -->", "", markdown, flags=re.DOTALL)
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", " formula ", text, flags=re.DOTALL)  # before HTML: it has < and >
    text = re.sub(r"<!--.*?-->|<[^>]+>", " ", text, flags=re.DOTALL)
    return len(re.findall(r"[^\W_][^\s|]*", text))


def unfolded(markdown: str) -> str:
    """The text without its folded answers."""
    return _FOLDED.sub("", markdown)


# ---------------------------------------------------------------------------------------------- rules


def shortfalls(workshop: Workshop) -> Iterator[Problem]:
    """The README is linked in the first cell, commands say where they run, no code is cut off at the right."""
    shown, source = _shown(workshop.notebook), f"edit {_shown(workshop.source)}, then atlas build"
    texts, folder = [text for kind, text in cells(workshop.notebook) if kind == "markdown"], _shown(workshop.folder)
    if texts and "](README.md)" not in texts[0]:
        yield Problem(shown, "does not link its README in the first cell", f"write [README](README.md); {source}")
    if any(f"python {workshop.script}" in text and f"cd {folder}" not in text for text in texts):
        what = f"says python {workshop.script}, but not in which folder"
        yield Problem(shown, what, f"write above it: in its folder (from the course's: `cd {folder}`); {source}")
    for kind, text in cells(workshop.solution_folder / workshop.notebook.name):
        for line in text.splitlines() if kind == "code" else ():
            if len(line) > COLUMNS:
                what = f"a line of code has {len(line)} columns, not {COLUMNS} at most: {line.strip()[:60]}..."
                yield Problem(_shown(workshop.source), what, "break it, then atlas build")


def strays(executed: Iterable) -> list[str]:
    """What cells that draw leave besides their figure, such as `Text(0.5, 1.0, 'Loss')`, by their last line."""
    found = []
    for cell in executed:
        outputs = cell.get("outputs", [])
        drawn = any("image/png" in output.get("data", {}) for output in outputs)
        for output in outputs:
            text = output.get("data", {}).get("text/plain", "")
            if output.output_type == "execute_result" and (drawn or _DRAWING.match(text)):
                last = cell.source.rstrip().rpartition("\n")[2]
                found.append(f"stray output {text[:40]} below a figure; write `_ = ...` before: {last.strip()}")
    return found


def _shown(path: Path) -> str:
    return path.relative_to(course.root()).as_posix()
