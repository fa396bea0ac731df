"""What a learner holds in a notebook: `lab = atlas.open("perceptron-and-mlp")`, then check, hint, solution, catch_up."""

import ast
import difflib
import html
import linecache
import types
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

    def __repr__(self) -> str:
        return f"Lab({self.workshop.id}): check, hint, solution, catch_up, agenda, device"

    @property
    def device(self):
        """The torch.device to compute on: cuda, mps or cpu."""
        from atlas import hardware

        return hardware.device()

    def check(self, given: Any) -> None:
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

    def hint(self, exercise: Any) -> None:
        """Show the next hint to an exercise, a little more each time; after the last one they begin again."""
        check = self._find(exercise, by_name=True)
        if check is None:
            return
        number = (progress.record_hint(self.workshop.name, check.name) - 1) % len(check.hints)
        _note(f"Hint {number + 1} of {len(check.hints)} to {check.name}", check.hints[number])

    def solution(self, exercise: Any) -> None:
        """Show the reference code of an exercise. Another way of writing it may be as good: the check decides."""
        check = self._find(exercise, by_name=True)
        if check is None:
            return
        code = definition(self._source(check.name), check.name)
        _note(f"One solution to {check.name}", code.replace("### BEGIN SOLUTION", "").replace("### END SOLUTION", ""), code=True)

    def catch_up(self, exercise: Any) -> Any:
        """The reference function or class itself, so that you can go on: `step = lab.catch_up("step")`."""
        check = self._find(exercise, by_name=True)
        if check is None:
            return None
        reference = collect(self._source(check.name))[check.name]
        progress.record(self.workshop.name, check.name, "caught_up")
        _note(f"Caught up on {check.name}", "You hold the reference now. Come back to this one when there is time.")
        return reference

    def agenda(self) -> None:
        """Show the timetable of this workshop."""
        from atlas import agenda

        text = agenda.render(agenda.plan([self.workshop]))
        _show(text, f'<pre style="{checking._PRE}">{html.escape(text)}</pre>')

    # ---- the parts

    def _find(self, given: Any, by_name: bool = False) -> checking.Check | None:
        """The check that belongs to `given`, or None after a message that says what to hand in."""
        name = given if isinstance(given, str) else getattr(given, "__name__", None)
        known = ", ".join(self.checks)
        if isinstance(given, str) and not by_name and given in self.checks:
            problem = f"Hand in the function itself, without quotation marks: lab.check({given})"
        elif name in self.checks:
            return self.checks[name]
        elif name is None:
            problem = f"Hand in the function itself, not its result ({checking._summary(given)}): no parentheses after its name."
        else:
            near = difflib.get_close_matches(name, self.checks, 1, 0.5)
            guess = f"Did you mean {near[0]}? " if near else ""
            problem = f"{self.workshop.name} has no exercise called {name}. {guess}Its exercises: {known}."
        if checking.strict():
            raise checking.CheckFailed(problem)
        _note("Nothing checked" if not by_name else "No such exercise", problem)
        return None

    def _source(self, exercise: str) -> Path:
        where = next((e.where for e in self.workshop.exercises if e.name == exercise), "notebook")
        file = self.workshop.source if where == "notebook" else self.workshop.solution_folder / where
        if not file.exists():
            raise course.CourseError(f"the answers are not here: {file} is missing. `git checkout -- solutions` brings them back.")
        return file

    def _banner(self) -> None:
        from atlas import hardware

        done = progress.read()["workshops"].get(self.workshop.name, {}).get("exercises", {})
        passed = sum(done.get(name, {}).get("status") == "passed" for name in self.checks)
        data = ", ".join(self.workshop.datasets) or "none"
        facts = (
            f"{self.workshop.minutes} min · {hardware.describe()} · data: {data} · "
            f"{passed} of {len(self.checks)} exercises passed"
        )
        use = "lab.check(f) checks, lab.hint(f) helps, lab.solution(f) shows the answer, lab.agenda() the timetable."
        _show(
            f"{self.workshop.title}\n  {facts}\n  {use}",
            f'<div style="border-left:4px solid #3b7dd8;padding:.35em .8em;background:#3b7dd818">'
            f"<b>{html.escape(self.workshop.title)}</b><br>{html.escape(facts)}<br>{html.escape(use)}</div>",
        )


def collect(path: Path) -> dict[str, Any]:
    """What a script or notebook defines, without running its other lines.

    Runs only imports, functions, classes and assignments of literals, so a training loop costs nothing here.
    Returns name -> object, without those definitions that need something only a full run provides.
    Raises CourseError where the file has a syntax error or a missing import, naming the line.
    """
    text = _code(path)
    try:
        tree = ast.parse(text, str(path))
    except SyntaxError as error:
        raise course.CourseError(f"{path.name}, line {error.lineno}: {error.msg}:  {(error.text or '').strip()}") from None
    module = types.ModuleType(path.stem.replace("-", "_"))
    module.__file__ = str(path)
    linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
    for node in tree.body:
        if _declares(node):
            try:
                exec(compile(ast.Module([node], []), str(path), "exec"), vars(module))
            except ImportError as error:
                raise course.CourseError(f"{path.name}, line {node.lineno}: {error}. `atlas doctor` tells what is missing.") from None
            except Exception:  # such as a base class or a decorator that only a full run makes
                continue
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}


def definition(path: Path, name: str) -> str:
    """The source text of the function or class `name` in a script or py:percent file."""
    text = _code(path)
    node = next(n for n in ast.parse(text).body if getattr(n, "name", None) == name)
    return "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])


def _code(path: Path) -> str:
    """The Python text of a script, or of a notebook's code cells without magics."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    import json

    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (ValueError, KeyError):
        fix = f"`atlas reset {path.stem}` keeps a copy and puts a fresh one there."
        raise course.CourseError(f"{path.name} is not a notebook any more. {fix}") from None
    lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)


def _declares(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef):
        return True
    if isinstance(node, ast.Assign):
        try:
            ast.literal_eval(node.value)
        except ValueError:
            return False
        return True
    return False


def _note(title: str, text: str, code: bool = False) -> None:
    body = f'<pre style="{checking._PRE}">{html.escape(text)}</pre>' if code else html.escape(text)
    _show(
        f"{title}\n" + "\n".join(f"  {line}" for line in text.splitlines()),
        f'<div style="border-left:4px solid #8a8f98;padding:.35em .8em;margin:.3em 0;background:#8a8f9818">'
        f"<b>{html.escape(title)}</b><br>{body}</div>",
    )


def _show(text: str, as_html: str) -> None:
    """HTML where a notebook displays it, plain text elsewhere."""
    import sys

    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None and hasattr(shell, "kernel"):
        from IPython.display import display

        display({"text/html": as_html, "text/plain": text}, raw=True)
    else:
        print(text)
