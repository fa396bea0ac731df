"""What a learner holds: `lab = atlas.open("perceptron-and-mlp")`, then check, hint, solution, catch_up."""

import __future__

import ast
import contextlib
import difflib
import html
import json
import linecache
import re
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

from atlas import checking, course, progress


def open(name: str) -> "Lab":
    """Open a workshop: shows its banner (what, how long, device, data, progress) and returns its Lab.

    name: "perceptron-and-mlp" or "dl-foundations/perceptron-and-mlp".
    """
    workshop = course.find(name)
    progress.opened(workshop.name)
    lab = Lab(workshop)
    lab._banner()
    return lab


class Lab:
    """One workshop in a learner's hands. Nothing here raises for a slip of the learner's; it says what to do."""

    def __init__(self, workshop: course.Workshop):
        self.workshop = workshop
        self.checks = checking.load_checks(workshop.folder)
        self._hints = Counter()  # so that hints go on where progress cannot be kept

    def __repr__(self) -> str:
        return f"Lab({self.workshop.id}): check, hint, solution, catch_up, agenda, device"

    @property
    def device(self):
        """The torch.device to compute on: cuda, mps or cpu."""
        from atlas import hardware

        return hardware.device()

    def check(self, given: Any = None) -> None:
        """Check your function or class and show the verdict; raises CheckFailed only where ATLAS_STRICT=1."""
        check = self._find(given)
        if check is None:
            return
        outcome = checking.run_check(check, given)
        if outcome.status != checking.BROKEN:
            progress.record(self.workshop.name, check.name, outcome.status)
        if checking.strict() and not outcome.passed:
            raise checking.CheckFailed(outcome.text())
        _show(outcome.text(), outcome.html())

    def hint(self, exercise: Any = None) -> None:
        """Show the next hint to an exercise, a little more each time; after the last one they begin again."""
        check = self._find(exercise, by_name=True)
        if check is None:
            return
        used = max(progress.record_hint(self.workshop.name, check.name), self._hints[check.name])
        self._hints[check.name] = used + 1
        number = used % len(check.hints)
        _note(f"Hint {number + 1} of {len(check.hints)} to {check.name}", check.hints[number])

    def solution(self, exercise: Any = None) -> None:
        """Show the reference code of an exercise. Another way of writing it may be as good: the check decides."""
        check = self._find(exercise, by_name=True)
        if check is None:
            return
        try:
            code = definition(self._source(check.name), check.name)
        except course.CourseError as error:
            _note("No solution to show", str(error))
            return
        lines = [line for line in code.splitlines() if line.strip() not in ("### BEGIN SOLUTION", "### END SOLUTION")]
        _note(f"One solution to {check.name}", code="\n".join(lines))

    def catch_up(self, exercise: Any = None) -> Any:
        """The reference function or class itself, so that you can go on: `step = lab.catch_up("step")`.

        Returns None, after a message, where there is no such exercise.
        """
        check = self._find(exercise, by_name=True)
        if check is None:
            return None
        try:
            reference = collect(self._source(check.name))[check.name]
        except (course.CourseError, KeyError) as error:
            _note("No solution to hand out", str(error))
            return None
        progress.record(self.workshop.name, check.name, "caught_up")
        _note(f"Caught up on {check.name}", "You hold the reference now. Come back to this one when there is time.")
        return reference

    def agenda(self) -> None:
        """Show the timetable of this workshop."""
        from atlas import agenda

        text = agenda.render(agenda.plan([self.workshop]))
        _show(text, checking.card("<b>Agenda</b>", pre=text))

    # ---- the parts

    def _find(self, given: Any, by_name: bool = False) -> checking.Check | None:
        """The check that belongs to `given`, or None after a message that says what to hand in."""
        name = given if isinstance(given, str) else getattr(given, "__name__", None)
        if name in self.checks and (by_name or not isinstance(given, str)):
            return self.checks[name]
        problem = self._problem(given, name, "" if by_name else "itself, ")
        if checking.strict():
            raise checking.CheckFailed(problem)
        _note("No such exercise" if by_name else "Nothing checked", problem)
        return None

    def _problem(self, given: Any, name: str | None, itself: str) -> str:
        """What is wrong with `given`, in which no exercise is recognised, and what to hand in instead."""
        known = ", ".join(self.checks)
        if given is None:
            return f"Hand in a function of yours, such as lab.check({next(iter(self.checks))}). The exercises: {known}."
        if name in self.checks:
            return f"Hand in the function {itself}without quotation marks: lab.check({name})"
        kind = type(given).__name__
        if kind in self.checks:
            return f"Hand in the class {itself}not one of its objects: lab.check({kind})"
        if name is None or name == "<lambda>":
            what = "a lambda" if name else checking.summary(given)
            return f"This is {what}. Hand in the function {itself}by its name and without parentheses: one of {known}."
        near = difflib.get_close_matches(name, self.checks, 1, 0.5)
        guess = f"Did you mean {near[0]}? " if near else ""
        return f"{self.workshop.name} has no exercise called {name}. {guess}Its exercises: {known}."

    def _source(self, exercise: str) -> Path:
        where = next((e.where for e in self.workshop.exercises if e.name == exercise), "notebook")
        file = self.workshop.source if where == "notebook" else self.workshop.solution_folder / where
        if not file.exists():
            raise course.CourseError(f"{file.name} is missing. To bring the answers back: git checkout -- solutions")
        return file

    def _banner(self) -> None:
        from atlas import hardware

        statuses = progress.statuses(self.workshop, progress.read()).values()
        passed = sum(status == "passed" for status in statuses)
        data = ", ".join(self.workshop.datasets) or "none"
        facts = f"{self.workshop.minutes} min · {hardware.describe()} · data: {data} · "
        facts += f"{passed} of {len(statuses)} exercises passed"
        use = "lab.check(f) checks, lab.hint(f) helps, lab.solution(f) shows the answer, lab.agenda() the timetable."
        title = f"<b>{html.escape(self.workshop.title)}</b><br>{html.escape(facts)}"
        _show(f"{self.workshop.title}\n  {facts}\n  {use}", checking.card(title, use, colour="#3b7dd8"))


# ------------------------------------------------------------------------------------------------ reading files


class Definitions(dict):
    """Name → object, as `collect` found them; `problems` says, a line each, what it could not take and why."""

    def __init__(self):
        super().__init__()
        self.problems: list[str] = []


def collect(path: Path) -> Definitions:
    """What a script or notebook defines, without running its other lines.

    Runs only imports, functions, classes and constants (literals, and arithmetic on them and on names that are known),
    so a training loop costs nothing here. What needs something that only a full run provides is left out; so is a
    notebook cell with a syntax error. Both are in `.problems` of the result.
    Raises CourseError where a script has a syntax error, where a module is missing, or where it is no notebook at all.
    """
    module = types.ModuleType(f"atlas_collected_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    found, flags = Definitions(), 0
    for name, text in _chunks(path):
        try:
            tree = ast.parse(text, name)
        except SyntaxError as error:
            problem = f"{Path(name).name}, line {error.lineno}: {error.msg}:  {(error.text or '').strip()}"
            if path.suffix != ".ipynb":
                raise course.CourseError(problem) from None
            found.problems.append(problem)
            continue
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        for node in filter(_declares, tree.body):
            if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                flags |= sum(getattr(__future__, each.name).compiler_flag for each in node.names)
            where = f"{Path(name).name}, line {node.lineno}"
            try:
                exec(compile(ast.Module([node], []), name, "exec", flags, dont_inherit=True), vars(module))
            except ImportError as error:
                raise course.CourseError(f"{where}: {error}. `atlas doctor` tells what is missing.") from None
            except Exception as error:  # such as a base class or a decorator that only a full run makes
                if hasattr(node, "name"):
                    found.problems.append(f"{where}: {node.name} is not defined: {type(error).__name__}: {error}")
    found.update((name, value) for name, value in vars(module).items() if not name.startswith("__"))
    return found


def definition(path: Path, name: str) -> str:
    """The source text of the function or class `name` in a script or notebook, decorators included.

    Raises CourseError where there is none; the last one where there are several.
    """
    for _, text in reversed(_chunks(path)):
        with contextlib.suppress(SyntaxError):
            for node in reversed(ast.parse(text).body):
                if getattr(node, "name", None) == name:
                    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    raise course.CourseError(f"{path.name} defines no {name}.")


def _chunks(path: Path) -> list[tuple[str, str]]:
    """What a script, or each code cell of a notebook, is called in messages, and its Python text."""
    if path.suffix != ".ipynb":
        return [(str(path), path.read_text(encoding="utf-8"))]
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        fix = f"`atlas reset {path.stem}` keeps a copy and puts a fresh one there."
        raise course.CourseError(f"{path.name} is not a notebook any more. {fix}") from None
    return [(f"{path}, code cell {number}", _python(source)) for number, source in enumerate(sources, 1)]


def _python(cell: str) -> str:
    """A cell's text with IPython's own syntax made Python, line by line; a cell in another language is empty."""
    try:
        ast.parse(cell)
        return cell
    except SyntaxError:
        if cell.lstrip().startswith("%%"):
            magic, _, rest = cell.lstrip().partition("\n")
            return f"\n{_python(rest)}" if magic.split()[0] in ("%%time", "%%timeit", "%%capture", "%%prun") else ""
        from IPython.core.inputtransformer2 import TransformerManager

        return TransformerManager().transform_cell(cell)


_CONSTANT = (
    *(ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Name, ast.Attribute, ast.Starred),
    *(ast.UnaryOp, ast.BinOp, ast.unaryop, ast.operator, ast.expr_context),
)


def _declares(node: ast.stmt) -> bool:
    """Whether a statement only declares: an import (also one in a try), a function, a class, a constant."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return True
    if isinstance(node, ast.Try):
        parts = [
            *node.body,
            *node.orelse,
            *node.finalbody,
            *(each for handler in node.handlers for each in handler.body),
        ]
        return all(map(_declares, parts))
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = all(isinstance(each, ast.Name | ast.Tuple | ast.List) for each in targets)
        return names and all(isinstance(each, _CONSTANT) for each in ast.walk(node.value))
    return False


# ------------------------------------------------------------------------------------------------ showing


def _note(title: str, text: str = "", code: str = "") -> None:
    body = (text or code).splitlines()
    _show(
        "\n".join([title, *(f"  {line}" for line in body)]), checking.card(f"<b>{html.escape(title)}</b>", text, code)
    )


def _show(text: str, as_html: str) -> None:
    """HTML where a notebook displays it, plain text elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and hasattr(shell, "kernel"):
        from IPython.display import display

        display({"text/html": as_html, "text/plain": text}, raw=True)
    else:
        print(text)
