"""What a learner holds: `lab = atlas.open("perceptron-and-mlp")`, then check, hint, solution, catch_up."""

import html
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from atlas import checking, course, progress, surroundings
from atlas.collect import collect, definition


def open(name: str) -> "Lab":
    """Open a workshop: shows its banner (what, how long, device, data, progress) and returns its Lab.

    name: "perceptron-and-mlp" or "dl-foundations/perceptron-and-mlp".
    In a notebook, an error that comes from an exercise not yet written is from then on told in a sentence.
    """
    workshop = course.find(name)
    progress.opened(workshop.name)
    lab = Lab(workshop)
    try:
        lab._banner()
    except Exception as error:  # such as a torch that is none
        if hidden := surroundings.shadows():
            raise surroundings.Hidden(hidden) from error
        raise
    _explain_stubs(workshop)
    return lab


def load_checks(workshop: course.Workshop) -> dict[str, checking.Check]:
    """The workshop's checks by exercise; CourseError where its checks.py is not what the kit put there."""
    file = workshop.folder / "checks.py"
    try:
        checks = checking.load_checks(workshop.folder)
        missing = [exercise.name for exercise in workshop.exercises if exercise.name not in checks]
        why = f"has no check for {', '.join(missing)}" if missing else ""
    except Exception as error:
        if hidden := surroundings.shadows(workshop.folder):
            raise surroundings.Hidden(hidden) from error
        why = f"cannot be used: {type(error).__name__}: {error}"
    if why:
        raise course.CourseError(f"{file} {why}. To get the kit's own back: {course.bring_back(file)}")
    return checks


class Lab:
    """One workshop in a learner's hands. Nothing here raises for a slip of the learner's; it says what to do."""

    def __init__(self, workshop: course.Workshop):
        self.workshop = workshop
        self.checks = load_checks(workshop)
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
        if outcome.status == checking.BROKEN and (hidden := surroundings.shadows(self.workshop.folder)):
            _note("First mend this", "\n".join(map(str, hidden)))

    def hint(self, exercise: Any = None) -> None:
        """Show the next hint to an exercise, a little more each time; after the last one they begin again."""
        check = self._find(exercise, by_name=True)
        if check is None:
            return
        used = max(progress.record_hint(self.workshop.name, check.name), self._hints[check.name])
        self._hints[check.name] = used + 1
        number = used % len(check.hints)
        title = f"Hint {number + 1} of {len(check.hints)} to {check.name}"
        again = number == 0 and used > 0
        if again:
            title += ", from the first again: you have seen them all"
        answer = f"`lab.solution({check.name})`" if _notebook() else f"`atlas solution {check.name}`"
        _note(title, check.hints[number] + (f"\nStill stuck? {answer} shows one way to write it." if again else ""))

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
            reference = collect(self._source(check.name), [check.name])[check.name]
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
        guess = course.did_you_mean(name, self.checks)
        return f"{self.workshop.name} has no exercise called {name}.{guess} Its exercises: {known}."

    def _source(self, exercise: str) -> Path:
        where = next((e.where for e in self.workshop.exercises if e.name == exercise), "notebook")
        file = self.workshop.source if where == "notebook" else self.workshop.solution_folder / where
        if not file.exists():
            raise course.CourseError(
                f"{file.name} is missing. To get the answers back: {course.bring_back('solutions')}"
            )
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


# ------------------------------------------------------------------------------------------------ in a notebook


def _notebook() -> Any:
    """The IPython shell of the notebook in which this runs, or None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None


def _explain_stubs(workshop: course.Workshop) -> None:
    """Let the notebook say what to do where a cell needs an exercise that is not written yet.

    The cell still ends in its NotImplementedError; instead of the traceback it shows a sentence, and the figures that
    it had only begun are not shown.
    """
    shell = _notebook()
    if not hasattr(shell, "set_custom_exc"):
        return
    titles = {exercise.name: exercise.title for exercise in workshop.exercises}

    def explain(shell, kind, error, trace, tb_offset=None):
        missing = str(error)
        exercise, _, method = missing.partition(".")
        if exercise in titles and (not method or method.isidentifier()):
            text = f"{kind.__name__}: {missing} is not written yet, and this cell needs it.\n"
            text += (
                f'Do the exercise "{titles[exercise]}" first: lab.hint({exercise}) helps. Or go on with the answer:\n'
            )
            text += f'{exercise} = lab.catch_up("{exercise}")'
            error._render_traceback_ = text.splitlines
            pyplot = sys.modules.get("matplotlib.pyplot")
            if pyplot and "inline" in pyplot.get_backend():
                pyplot.close("all")
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)

    shell.set_custom_exc((NotImplementedError,), explain)


# ------------------------------------------------------------------------------------------------ showing


def _note(title: str, text: str = "", code: str = "") -> None:
    body = (text or code).splitlines()
    rich = re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text)).replace("\n", "<br>")
    heading = f"<b>{html.escape(title)}</b>" + (f"<br>{rich}" if text else "")
    _show("\n".join([title, *(f"  {line}" for line in body)]), checking.card(heading, pre=code))


def _show(text: str, as_html: str) -> None:
    """HTML where a notebook displays it, plain text elsewhere."""
    if _notebook():
        from IPython.display import display

        display({"text/html": as_html, "text/plain": text}, raw=True)
    else:
        surroundings.print_plainly(sys.stdout)
        print(text)
