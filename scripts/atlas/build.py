"""Writes what is generated: solved and starter notebooks, starter scripts, and the tables in the READMEs.

One source, two versions. In `solutions/<id>/<workshop>.py` (py:percent) and `solutions/<id>/<script>.py` these lines

    # TODO: what the learner is to write
    ### BEGIN SOLUTION
    return x + 1
    ### END SOLUTION

become, in the starter, the TODO and `raise NotImplementedError("<name>")`, where the name is that of the function
around it, for a method "Class.method". The exercise is what stands before the first dot. Cells tagged `instructor`
are left out of the starter. A comment `# %name` at the start of a line of a notebook's source is a magic.

For maintainers. A generated file that was changed since `atlas build` last wrote it (a starter notebook that somebody
worked in) is kept in `.atlas/backups/` before it is overwritten, and the result says where.
"""

import ast
import hashlib
import io
import json
import os
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from atlas import course
from atlas.course import CourseError, Workshop

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
INSTRUCTOR = "instructor"

_LIKE_A_MARKER = re.compile(r"(?i:#\s*(?:begin|end)[\s_]*solution\b)|(?:BEGIN|END)[\s_]+SOLUTION")
_MAGIC = re.compile(r"^# (?=%{1,2}[A-Za-z])", re.MULTILINE)
_CELL = re.compile(r"\s*# ?%%(\s|$)")


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be on disk, and what repairs it."""

    path: str  # relative to the repository, or path:line
    what: str
    repair: str
    done: bool = False  # `build` has repaired it
    backup: str = ""  # where `build` kept what it overwrote

    def __str__(self) -> str:
        if not self.done:
            return f"{self.path}: {self.what}\n    repair: {self.repair}"
        kept = f" (changed since the last build: kept as {self.backup})" if self.backup else ""
        return f"{self.path}: written, was {self.what}{kept}"


class SourceError(CourseError):
    """A source that no starter can be made from; names file and line."""

    def __init__(self, file: str, line: int, what: str):
        super().__init__(f"{file}:{line}: {what}")
        self.file, self.line, self.what = file, line, what


@dataclass(frozen=True)
class Region:
    """What a learner writes: the lines from the BEGIN to the END marker (counted from 1), and whose body it is."""

    begin: int
    end: int
    name: str

    @property
    def exercise(self) -> str:
        return self.name.partition(".")[0]


def build(check: bool = False) -> list[Problem]:
    """Bring every generated file into step with its source.

    Returns one Problem for each file that was missing or differed (written now: `done`), and for each that only a
    person can repair (an orphan, a README without its block). With `check` nothing is written and nothing is `done`.
    Raises SourceError where a source has bad markers.
    """
    problems, expected = [], set()
    for path, content in _generated():
        expected.add(path)
        if isinstance(content, Problem):
            problems.append(content)
        elif not path.exists() or path.read_bytes() != content.encode():
            problem = Problem(_shown(path), "different from its source" if path.exists() else "missing", "atlas build")
            problems.append(problem if check else replace(problem, done=True, backup=_write(path, content)))
    return problems + [_orphan(path) for path in _in_place_of_generated() if path not in expected]


# ---------------------------------------------------------------------------------------------- starters


def starter(text: str, file: str) -> str:
    """The starter of a Python source: each region replaced, everything else kept to the byte.

    `file` is for the message of the SourceError that bad markers raise.
    """
    lines = _lines(text)
    for region in reversed(regions(text, file)):
        marker = lines[region.begin - 1]
        indent = marker[: len(marker) - len(marker.lstrip())]
        ending = re.search(r"[\r\n]*$", lines[region.end - 1])[0]
        lines[region.begin - 1 : region.end] = [f'{indent}raise NotImplementedError("{region.name}"){ending}']
    made = "".join(lines)
    _parse(made, f"{file} (its starter)")
    return made


def regions(text: str, file: str) -> list[Region]:
    """The regions of a source in file order; SourceError where a marker is not as it should be."""
    tree, lines, comments = _parse(text, file), _lines(text), _comment_lines(text)
    found = []
    for begin, end in _marked(lines, comments, file):
        if not _has_todo(begin, comments):
            raise SourceError(file, begin, "no `# TODO: ...` comment stands directly above this BEGIN marker")
        for number in range(begin, end):
            if _CELL.match(lines[number]):
                raise SourceError(file, number + 1, f"a cell begins inside the region of line {begin}; end it before")
        found.append(Region(begin, end, _owner(tree, begin, end, lines, comments, file)))
    return found


def _marked(lines: list[str], comments: dict[int, str], file: str) -> list[tuple[int, int]]:
    """Line numbers of the BEGIN and END markers, balanced and not nested."""
    pairs, begin = [], 0
    for number, line in enumerate(lines, 1):
        marker = comments.get(number)
        if marker not in (BEGIN, END):
            if _LIKE_A_MARKER.search(line):
                what = f"this looks like a marker; `{BEGIN}` or `{END}` must be a comment on a line of its own"
                raise SourceError(file, number, what)
        elif marker == BEGIN:
            if begin:
                raise SourceError(file, number, f"BEGIN inside the region of line {begin}; regions do not nest")
            begin = number
        else:
            if not begin:
                raise SourceError(file, number, "END without a BEGIN above it")
            pairs.append((begin, number))
            begin = 0
    if begin:
        raise SourceError(file, begin, "BEGIN without an END below it")
    return pairs


def _has_todo(begin: int, comments: dict[int, str]) -> bool:
    number = begin - 1
    while number in comments and not comments[number].startswith("# TODO"):
        number -= 1
    return number in comments


def _owner(tree: ast.Module, begin: int, end: int, lines: list[str], comments: dict[int, str], file: str) -> str:
    """The dotted name of the function whose statements stand between two markers."""
    held = list(_held(tree, begin, end))
    if not held:
        raise SourceError(file, begin, "the region holds no statement; put the reference answer between the markers")
    if len(held) > 1:
        raise SourceError(file, begin, "the region runs over several blocks; it holds statements of one")
    statements, owners = held[0]
    if not owners or isinstance(owners[-1], ast.ClassDef):
        raise SourceError(file, begin, "the region is in no function; a learner writes a function's or method's body")
    covered = {number for one in statements for number in range(_first_line(one), one.end_lineno + 1)}
    code = {number for number in range(begin + 1, end) if lines[number - 1].strip() and number not in comments}
    if end in covered or not code <= covered:
        raise SourceError(file, begin, "the region cuts a statement in two; it holds whole statements")
    for number in (begin, end):
        indent = lines[number - 1][: -len(lines[number - 1].lstrip())]
        if indent != lines[_first_line(statements[0]) - 1][: statements[0].col_offset]:
            raise SourceError(file, number, "the marker is not indented as the statements between the markers")
    return ".".join(owner.name for owner in owners)


def _held(node: ast.AST, begin: int, end: int, owners: tuple = ()) -> Iterator[tuple[list[ast.stmt], tuple]]:
    """The outermost statements that begin between two lines, by block, with the functions and classes around them."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        owners = (*owners, node)

    def is_held(child) -> bool:
        return isinstance(child, ast.stmt) and begin < _first_line(child) < end

    for _, value in ast.iter_fields(node):
        held = [child for child in value if is_held(child)] if isinstance(value, list) else []
        if held:
            yield held, owners
    for child in ast.iter_child_nodes(node):
        if not is_held(child):
            yield from _held(child, begin, end, owners)


def _first_line(statement: ast.stmt) -> int:
    return min(node.lineno for node in (statement, *getattr(statement, "decorator_list", ())))


def _parse(text: str, file: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise SourceError(
            file, getattr(error, "lineno", None) or 1, f"is not Python: {getattr(error, 'msg', error)}"
        ) from error


def _comment_lines(text: str) -> dict[int, str]:
    """Line number → comment, for lines that hold nothing else; a line inside a string is none."""
    tokens = tokenize.generate_tokens(io.StringIO(text, newline="").readline)
    return {
        token.start[0]: token.string.rstrip()
        for token in tokens
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
    }


def _lines(text: str) -> list[str]:
    """Lines with their endings, split where Python splits (not at form feeds or Unicode separators)."""
    return io.StringIO(text, newline="").readlines()


# ---------------------------------------------------------------------------------------------- notebooks


def notebooks(text: str, file: str) -> tuple[str, str]:
    """The solved and the starter notebook (as JSON texts) of a py:percent source."""
    solved, begun = _cells(text), _cells(starter(text, file))
    comments = _comment_lines(text)
    for number, line in enumerate(_lines(text), 1):
        if _MAGIC.match(line) and number not in comments:
            raise SourceError(file, number, "a line inside a string looks like a magic; indent it or word it otherwise")
    seen: Counter = Counter()
    for cell, starter_cell in zip(solved, begun, strict=True):
        content = f"{cell.cell_type}\n{cell.source}"
        seen[content] += 1
        cell.id = starter_cell.id = hashlib.sha256(f"{seen[content]}\n{content}".encode()).hexdigest()[:12]
    left = [cell for cell in begun if INSTRUCTOR not in cell.metadata.get("tags", [])]
    return _json(solved), _json(left)


def _cells(text: str) -> list:
    """The cells of a py:percent source; of their metadata only the tags are kept."""
    import jupytext
    from nbformat import v4

    # jupytext's guess of what is a magic takes comments such as "# ls is ..." for commands
    fmt = {"extension": ".py", "format_name": "percent", "comment_magics": False}
    cells = []
    for cell in jupytext.reads("\n".join(line.rstrip("\r\n") for line in _lines(text)) + "\n", fmt=fmt).cells:
        tags = {"tags": list(cell.metadata["tags"])} if "tags" in cell.metadata else {}
        make = {"code": v4.new_code_cell, "markdown": v4.new_markdown_cell, "raw": v4.new_raw_cell}[cell.cell_type]
        source = _MAGIC.sub("", cell.source) if cell.cell_type == "code" else cell.source
        cells.append(make(source, metadata=tags))
    return cells


def _json(cells: list) -> str:
    import nbformat

    metadata = {
        "kernelspec": {"display_name": course.KERNEL_TITLE, "language": "python", "name": course.KERNEL},
        "language_info": {"name": "python"},
    }
    notebook = nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})
    return nbformat.writes(notebook) + "\n"


# ---------------------------------------------------------------------------------------------- READMEs


def agenda_table(workshop: Workshop) -> str:
    """The agenda as a Markdown table, with the time since the beginning."""
    rows = ["| from | minutes | what | how | exercises |", "|---:|---:|---|---|---|"]
    begin = 0
    for item in workshop.agenda:
        names = ", ".join(f"`{name}`" for name in item.exercises)
        rows.append(f"| {_clock(begin)} | {item.minutes} | {_cell(item.title)} | {item.kind} | {names} |")
        begin += item.minutes
    return "\n".join([*rows, f"| {_clock(begin)} | | end | | |"])


def workshops_table(workshops: list[Workshop]) -> str:
    """The path as a Markdown table; a planned workshop has no link and no minutes."""
    rows = ["| # | workshop | minutes | what you build | status |", "|---:|---|---:|---|---|"]
    for number, workshop in enumerate(workshops, 1):
        title = _cell(workshop.title)
        if workshop.planned:
            rows.append(f"| {number} | {title} | | | planned |")
        else:
            link = f"[{title}](workshops/{workshop.id}/README.md)"
            rows.append(f"| {number} | {link} | {workshop.minutes} | {_cell(workshop.summary)} | ready |")
    return "\n".join(rows)


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02d}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def badges(repository: str) -> str:
    """The links that open the repository (its address on GitHub) in a codespace and in a local container."""
    name = repository.removeprefix("https://github.com/")
    picture = "https://img.shields.io/static/v1?label=Dev%20Containers&message=Open&color=blue"
    volume = (
        f"https://vscode.dev/redirect?url=vscode://ms-vscode-remote.remote-containers/cloneInVolume?url={repository}"
    )
    return (
        "[![Open in GitHub Codespaces](https://github.com/codespaces/badge.svg)]"
        f"(https://codespaces.new/{name}?quickstart=1)\n[![Open in Dev Containers]({picture})]({volume})"
    )


def _repository() -> str | None:
    """The one place where the address on GitHub stands: project.urls in pyproject.toml."""
    import tomllib

    project = course.root() / "pyproject.toml"
    return tomllib.loads(_read(project))["project"].get("urls", {}).get("Repository") if project.exists() else None


def _readme(path: Path, **blocks: str) -> str | Problem:
    """The README with each block `<!-- atlas:name --> ... <!-- /atlas:name -->` filled."""
    if not path.exists():
        lines = " and ".join(f"<!-- atlas:{block} -->, <!-- /atlas:{block} -->" for block in blocks)
        return Problem(_shown(path), "missing", f"write it, with the lines {lines}")
    text = path.read_bytes().decode()
    for block, content in blocks.items():
        opening, closing = f"<!-- atlas:{block} -->", f"<!-- /atlas:{block} -->"
        if text.count(opening) != 1 or text.count(closing) != 1 or text.index(opening) > text.index(closing):
            return Problem(_shown(path), f"has not one block {opening}", f"put the lines {opening} and {closing} there")
        before, _, rest = text.partition(opening)
        text = f"{before}{opening}\n{content}\n{closing}{rest.partition(closing)[2]}"
    return text


# ---------------------------------------------------------------------------------------------- on disk


def _generated() -> Iterator[tuple[Path, str | Problem]]:
    """Each generated file with its content, or with what prevents it."""
    workshops = course.workshops()
    readme, repository = course.root() / "README.md", _repository()
    wanted = repository and readme.exists() and "<!-- atlas:badges -->" in readme.read_text(encoding="utf-8")
    links = {"badges": badges(repository)} if wanted else {}
    yield readme, _readme(readme, workshops=workshops_table(workshops), **links)
    for workshop in workshops:
        if not workshop.planned:
            yield from _of_workshop(workshop)


def _of_workshop(workshop: Workshop) -> Iterator[tuple[Path, str | Problem]]:
    readme = workshop.folder / "README.md"
    yield readme, _readme(readme, agenda=agenda_table(workshop))
    solved = workshop.solution_folder / workshop.notebook.name
    if workshop.source.exists():
        contents = notebooks(_read(workshop.source), _shown(workshop.source))
        yield from zip((solved, workshop.notebook), contents, strict=True)
    else:
        # the notebooks are then orphans too, but are not to be removed for that
        yield solved, _missing(workshop.source)
        yield workshop.notebook, _missing(workshop.source)
    if workshop.script:
        source = workshop.solution_folder / workshop.script
        content = starter(_read(source), _shown(source)) if source.exists() else _missing(source)
        yield workshop.folder / workshop.script, content


def _missing(source: Path) -> Problem:
    return Problem(_shown(source), "missing", f"git restore {_shown(source)}, or write it")


def _in_place_of_generated() -> list[Path]:
    """Files that lie where only generated ones belong: notebooks, and scripts in the learner's folders."""
    top = course.root()
    found = [*top.glob("workshops/**/*.ipynb"), *top.glob("solutions/**/*.ipynb"), *top.glob("workshops/**/*.py")]
    kept = [path for path in found if not any(part.startswith(".") for part in path.relative_to(top).parts)]
    return sorted(path for path in kept if path.name != "checks.py")


def _orphan(path: Path) -> Problem:
    return Problem(_shown(path), "no source makes this file", f"git rm --cached {_shown(path)}, and move it elsewhere")


def _write(path: Path, content: str) -> str:
    """Write atomically; returns where the file was backed up that somebody had changed, or nothing."""
    backup = _back_up(path) if path.suffix != ".md" else ""  # in a README only the block is written anew
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content.encode())
    os.replace(temporary, path)
    _remember(path)
    return backup


def _back_up(path: Path) -> str:
    from datetime import datetime

    if not path.exists() or _hash(path) == _built().get(_shown(path)):
        return ""
    kept = course.state_dir() / "backups" / f"{datetime.now():%Y%m%d-%H%M%S}" / _shown(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(path.read_bytes())
    return _shown(kept)


def _built() -> dict[str, str]:
    """Path → hash of each file as `build` last wrote it."""
    try:
        return json.loads((course.state_dir() / "built.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _remember(path: Path) -> None:
    built = {**_built(), _shown(path): _hash(path)}
    (course.state_dir() / "built.json").write_text(json.dumps(built, indent=1, sort_keys=True), encoding="utf-8")


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise SourceError(_shown(path), 1, f"is not UTF-8: {error}") from error


def _shown(path: Path) -> str:
    return path.relative_to(course.root()).as_posix() if path.is_relative_to(course.root()) else str(path)
