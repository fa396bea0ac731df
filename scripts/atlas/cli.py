"""The command line: `atlas` and its commands. Each says what it did in words, and after a slip what was meant.

Exit codes: 0 done; 1 something is not as it should be (not passed, damaged, not ready); 2 a slip in what was typed.
Modules that take long to import are imported in the commands that need them.
"""

import os
import sys
from collections import Counter
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from atlas import surroundings

try:
    from typing import Annotated

    import typer

    from atlas import course, progress
    from atlas.course import CourseError, Workshop
except Exception as missing:
    if surroundings.shadows():  # `import atlas` has named them
        sys.exit(f"atlas: {missing}. First mend what is named above.")
    if not isinstance(missing, ModuleNotFoundError):
        raise
    sys.exit(f"atlas: {missing}. This environment is not complete; to repair it: scripts/setup")

_SETTINGS = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings=_SETTINGS,
    help="""OpenMLAtlas Deep Learning. Without a command: the path of 23 workshops, and how far you are.

    WORKSHOP is a number, a name or the beginning of one, or a path; left out, it is the one in whose folder you are,
    else the next that you have not completed.""",
    epilog="Example: atlas start perceptron-and-mlp",
)
data_app = typer.Typer(rich_markup_mode=None, context_settings=_SETTINGS, help="List, fetch and verify the datasets.")


def _workshop_names(incomplete: str) -> list[str]:
    """For the shell's completion: the workshops that are there."""
    names = [each.name for each in course.workshops() if not each.planned]
    return [name for name in names if name.startswith(incomplete)]


def _exercise_names(incomplete: str) -> list[str]:
    """For the shell's completion."""
    names = [exercise.name for each in course.workshops() for exercise in each.exercises]
    return [name for name in names if name.startswith(incomplete)]


def _either(incomplete: str) -> list[str]:
    """For the shell's completion, where the workshop may be left out."""
    return _workshop_names(incomplete) + _exercise_names(incomplete)


Name = Annotated[str | None, typer.Argument(metavar="WORKSHOP", hidden=True, autocompletion=_workshop_names)]
Either = Annotated[str | None, typer.Argument(metavar="WORKSHOP", hidden=True, autocompletion=_either)]
Names = Annotated[list[str] | None, typer.Argument(metavar="WORKSHOP", hidden=True, autocompletion=_workshop_names)]
Exercises = Annotated[list[str] | None, typer.Argument(metavar="EXERCISE", hidden=True, autocompletion=_exercise_names)]
Datasets = Annotated[list[str] | None, typer.Argument(metavar="DATASET", hidden=True)]


def main(arguments: list[str] | None = None) -> None:
    """The console entry: runs the command and exits; no exception of it reaches the terminal as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        surroundings.print_plainly(stream)
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if "_ATLAS_COMPLETE" in os.environ:  # the shell asks what could come next
            typer.completion.completion_init()
            app(arguments, prog_name="atlas")
        elif arguments:
            app(arguments, prog_name="atlas")
        else:  # what one types most often: without the pydantic that typer loads to parse arguments, 0.1 s
            path()
    except (CourseError, surroundings.Hidden) as error:
        _error(str(error))
        sys.exit(2)
    except BrokenPipeError:  # the reader has seen enough, as in `atlas | head`; nothing is left to flush at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _error(f"{error}\n`atlas doctor` looks at disk, rights and what is missing.")
        sys.exit(1)
    except Exception as error:
        if hidden := surroundings.shadows():
            _error("\n".join(map(str, hidden)))
            sys.exit(2)
        _error(f"This is the kit's fault, not yours: {type(error).__name__}: {error}\n{_keep_traceback()}")
        sys.exit(1)


# ------------------------------------------------------------------------------------------------ learners


def path() -> None:
    """Show the path with one's progress: `atlas` without a command."""
    _show_path(course.workshops(), progress.read())


@app.command(epilog="Example: atlas start perceptron-and-mlp")
def start(
    name: Name = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser too, or only print.")] = True,
    lab: Annotated[bool, typer.Option("--lab", help="In JupyterLab even where the terminal is VS Code's.")] = False,
) -> None:
    """Open the next workshop, or the one you name.

    In JupyterLab, until Ctrl-C; where the terminal is VS Code's, in VS Code.
    """
    from atlas import launch

    workshop = _there(course.find(name) if name else _current())
    if not workshop.notebook.exists():
        raise CourseError(f"{_shown(workshop.notebook)} is missing. To get a fresh one: atlas reset {workshop.name}")
    print(f"{workshop.title}, {workshop.minutes} min. {workshop.summary}")
    if launch.in_editor() and not lab:
        launch.open_in_editor(workshop.notebook, open_it=browser)
    else:
        launch.jupyter_lab(workshop.notebook, browser)


@app.command(epilog="Example: atlas check perceptron-and-mlp perceptron_step")
def check(name: Either = None, exercises: Exercises = None) -> None:
    """Check what you wrote in notebook and script.

    All exercises of the workshop, or those that you name. Save the files first. Only what the exercises need of them
    is run.
    """
    from atlas import checking, collect, lab

    workshop, chosen = _workshop_and_exercises(name, exercises)
    for hidden in surroundings.shadows(workshop.folder):
        _error(str(hidden))
    checks = lab.load_checks(workshop)
    before = progress.statuses(workshop, progress.read())
    passed = 0
    for where in dict.fromkeys(each.where for each in chosen):
        file = workshop.notebook if where == "notebook" else workshop.folder / where
        names = [each.name for each in chosen if each.where == where]
        shown = _shown(file)
        if not file.exists():
            _error(f"{shown} is missing. To get a fresh one: atlas reset {workshop.name}")
            continue
        try:
            with collect.beside(file.parent):
                found = collect.collect(file, names)
                for problem in found.problems:
                    _error(problem)
                for exercise in names:
                    if exercise not in found:
                        _outcome("error", f"! {exercise}   is not defined in {shown}, or only by running all of it")
                        continue
                    outcome = checking.run_check(checks[exercise], found[exercise])
                    if outcome.status in progress.STATUSES:
                        progress.record(workshop.name, exercise, outcome.status)
                    _outcome(outcome.status, outcome.text())
                    if before[exercise] == "passed" and outcome.status in (checking.FAILED, checking.UNTOUCHED):
                        print("  You passed it before, and progress keeps that: the file has been changed since.")
                    passed += outcome.passed
        except CourseError as error:
            _error(str(error))
    print(f"\n{passed} of {len(chosen)} passed.", end=" ")
    if passed < len(chosen):
        print(f"A hint: atlas hint {workshop.name}")
        raise typer.Exit(1)
    print("What comes next: atlas")


@app.command(epilog="Example: atlas hint perceptron-and-mlp perceptron_step")
def hint(name: Either = None, exercises: Exercises = None) -> None:
    """Show the next hint, a little more each time.

    To the exercise you name, else to the first that you have not passed.
    """
    from atlas.lab import Lab

    workshop, chosen = _workshop_and_exercises(name, exercises)
    done = progress.statuses(workshop, progress.read())
    open_ones = [each for each in chosen if done[each.name] != "passed"]
    Lab(workshop).hint((open_ones or chosen)[0].name)


@app.command(epilog="Example: atlas solution perceptron-and-mlp perceptron_step")
def solution(name: Either = None, exercises: Exercises = None) -> None:
    """Show one way to write the exercise that you name.

    Another may be as good: the check decides.
    """
    from atlas.lab import Lab

    workshop, chosen = _workshop_and_exercises(name, exercises)
    if len(chosen) > 1 and not exercises:
        raise CourseError(f"Say which: atlas solution {workshop.name} {'|'.join(each.name for each in chosen)}")
    for exercise in chosen:
        Lab(workshop).solution(exercise.name)


@app.command(epilog="Example: atlas reset perceptron-and-mlp")
def reset(
    name: Name = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    forget: Annotated[bool, typer.Option("--progress", help="Forget the progress in this workshop too.")] = False,
) -> None:
    """Begin a workshop anew; keeps a copy of your files.

    Puts a fresh notebook and script there. Progress stays, unless --progress is given.
    """
    from atlas.reset import changed, reset, starters

    workshop = _there(course.find(name) if name else _current())
    fresh = starters(workshop)
    worked_in = changed(fresh)
    if not worked_in and not forget:
        print(f"{workshop.name} is as fresh as on the first day: nothing to do.")
        return
    question = f"Put {', '.join(map(_shown, worked_in)) or 'no file'} back to the start (a copy of yours is kept)"
    question += " and forget the progress" if forget else ""
    if not yes and not typer.confirm(f"{question}?"):
        print("Nothing was changed.")
        return
    if worked_in:
        print(f"Your files are kept in {_shown(reset(fresh))}")
        print(f"Fresh: {', '.join(map(_shown, fresh))}. If one is open, close it without saving and open it again.")
        kept = list(progress.statuses(workshop, progress.read()).values()).count("passed")
        if kept and not forget:
            print(f"Progress still says {kept} passed, and `atlas check` will not, until they are solved anew.")
            print(f"To forget it too: atlas reset {workshop.name} --progress")
    if forget:
        progress.forget(workshop.name)
        print(f"The progress in {workshop.name} is forgotten.")


@app.command("progress", epilog="Example: atlas progress perceptron-and-mlp")
def show_progress(
    names: Names = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the progress file instead.")] = False,
) -> None:
    """Show the state of each exercise, attempts and hints.

    In the workshops that you have begun, or in those that you name (a track's name stands for all of its workshops).
    """
    recorded = progress.read()
    if as_json:
        import json

        print(json.dumps(recorded, indent=2, sort_keys=True, ensure_ascii=False))
        return
    chosen = (
        course.select(names) if names else [each for each in course.workshops() if each.name in recorded["workshops"]]
    )
    if not chosen:
        print("Nothing begun yet. To begin: atlas start")
    for workshop in chosen:
        _show_workshop(workshop, recorded)


@app.command("agenda", epilog="Example: atlas agenda perceptron-and-mlp --start 09:00")
def show_agenda(
    names: Names = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="When it begins, such as 09:00.")] = None,
) -> None:
    """Print the timetable of workshops or tracks.

    Several are put one after the other, with breaks between. With --start on the clock: with lunch, and with what does
    not fit into a day on the next one.
    """
    from atlas import agenda

    chosen = course.select(names) if names else [_current()]
    there = [each for each in chosen if not each.planned]
    rows = agenda.plan(there or chosen, start)
    print(agenda.render(rows, _console().width))
    if left_out := [each.name for each in chosen if each.planned]:
        print(f"\nPlanned, and so left out: {', '.join(left_out)}")


@app.command("doctor", epilog="Example: atlas doctor --full")
def examine(
    full: Annotated[bool, typer.Option("--full", help="Compare the checksums of all data too.")] = False,
) -> None:
    """Look at everything the course needs; say what helps.

    Python, packages, kernel, PyTorch and TensorFlow with their devices, memory, disk, data, git, progress.
    """
    from atlas import doctor

    console, findings = _console(), []
    for finding in doctor.examine(full):
        findings.append(finding)
        _finding(console, finding)
    verdict = doctor.verdict(findings)
    _finding(console, verdict)
    raise typer.Exit(verdict.status != doctor.OK)


# ------------------------------------------------------------------------------------------------ data

app.add_typer(data_app, name="data", epilog="Example: atlas data fetch mnist")


@data_app.callback(invoke_without_command=True)
def data_callback(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        data_list()


@data_app.command("list", epilog="Example: atlas data list")
def data_list() -> None:
    """Show datasets and weights: size, licence, whether here."""
    from atlas import data

    table = _table("dataset", "MB", "here", "what it is", "licence")
    absent = []
    for entry in data.catalog().values():
        here = entry.is_here()
        table.add_row(entry.name, f"{entry.bytes / 1e6:.1f}", "yes" if here else "no", entry.title, entry.licence)
        if not here:
            absent.append(f"{entry.name} is not here. To get it: {data.repair(entry)}")
    _console().print(table)
    for line in absent:
        print(line)


@data_app.command("fetch", epilog="Example: atlas data fetch mnist")
def data_fetch(names: Annotated[list[str], typer.Argument(metavar="DATASET", hidden=True)]) -> None:
    """Download datasets that do not ship with the kit."""
    from atlas import data

    for name in names:
        print(f"{name}: here and whole, in {_shown(data.fetch(name))}")


@data_app.command("verify", epilog="Example: atlas data verify mnist")
def data_verify(names: Datasets = None) -> None:
    """Compare each file with the catalog's SHA-256."""
    from atlas import data

    findings = [finding for name in names or [None] for finding in data.verify(name)]
    shown = Counter()
    for finding in findings:
        shown[finding.dataset] += 1
        if shown[finding.dataset] <= 3:
            _error(str(finding))
    for name, count in shown.items():
        if count > 3:
            _error(f"{count - 3} more files of {name} are not as they should be. The same command repairs them.")
    if findings:
        raise typer.Exit(1)
    print(f"{', '.join(names) if names else 'All data that is here'}: every file as in the catalog.")


# ------------------------------------------------------------------------------------------------ maintainers


@app.command(epilog="Example: atlas build --check")
def build(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a generated file differs.")] = False,
) -> None:
    """For maintainers: write what is generated."""
    from atlas import build

    problems = build.build(check=check)
    for problem in problems:
        print(problem)
    if not all(problem.done for problem in problems):
        raise typer.Exit(1)
    print("Every generated file is in step with its source.")


@app.command(epilog="Example: atlas validate perceptron-and-mlp")
def validate(
    names: Names = None,
    notebooks: Annotated[bool, typer.Option("--notebooks", help="Run notebooks, scripts and projects too.")] = False,
) -> None:
    """For maintainers: are the workshops complete?

    Counts their parts and proves each exercise; with --notebooks runs everything, which takes minutes.
    """
    from atlas.authoring import validate

    report = validate.validate([each.id for each in course.select(names)] if names else None, notebooks)
    print(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command(epilog="Example: atlas new computer-vision/cnn-basics")
def new(workshop: Annotated[str, typer.Argument(metavar="TRACK/WORKSHOP", hidden=True)]) -> None:
    """For maintainers: begin a planned workshop."""
    from atlas.authoring import scaffold

    for file in scaffold.new(course.find(workshop).id):
        print(_shown(file))


# ------------------------------------------------------------------------------------------------ which workshop


def _current() -> Workshop:
    """The workshop in whose folder you are, else the next one."""
    workshop = course.here() or _next(course.workshops(), progress.read())
    if workshop is None:
        raise CourseError("You have been through all that is there, so say which workshop. `atlas` lists them.")
    return workshop


def _next(workshops: list[Workshop], recorded: dict) -> Workshop | None:
    """The first that is there and not complete."""
    return next((each for each in workshops if not each.planned and not progress.complete(each, recorded)), None)


def _there(workshop: Workshop) -> Workshop:
    if workshop.planned:
        raise CourseError(f"{workshop.name} is planned and not there yet. `atlas` shows those that are.")
    return workshop


def _workshop_and_exercises(name: str | None, names: list[str] | None) -> tuple[Workshop, list[course.Exercise]]:
    """What `[WORKSHOP] [EXERCISE]...` means: either may be left out; without exercises all of the workshop's."""
    workshop, names = _split([name, *(names or [])] if name else [])
    _there(workshop)
    chosen = [workshop.exercise(name) for name in names] or list(workshop.exercises)
    if not chosen:
        raise CourseError(f"{workshop.name} has no exercises yet.")
    return workshop, chosen


def _split(words: list[str]) -> tuple[Workshop, list[str]]:
    if not words:
        return _current(), []
    if words[0] in course.PATH or words[0] in (id.rpartition("/")[2] for id in course.PATH):
        return course.find(words[0]), words[1:]
    workshops = course.workshops()
    owners = [each for each in workshops if words[0] in (exercise.name for exercise in each.exercises)]
    if not owners:
        try:
            return course.find(words[0]), words[1:]
        except course.NoSuchWorkshop:
            exercises = [exercise.name for each in workshops for exercise in each.exercises]
            meant = course.did_you_mean(words[0], exercises + [each.name for each in workshops])
            where = " `atlas` lists the workshops, `atlas progress WORKSHOP` its exercises." if not meant else ""
            raise CourseError(f"There is no workshop and no exercise {words[0]!r}.{meant}{where}") from None
    if len(owners) == 1:
        return owners[0], words
    if course.here() in owners:
        return course.here(), words
    recorded = progress.read()["workshops"]
    touched = {each.name: _last_touched(recorded.get(each.name, {})) for each in owners}
    latest = max(owners, key=lambda each: touched[each.name])
    if not touched[latest.name]:
        either = " or ".join(f"{each.name} {words[0]}" for each in owners)
        raise CourseError(f"{len(owners)} workshops have an exercise {words[0]}. Say which: {either}.")
    return latest, words


def _last_touched(workshop: dict) -> str:
    """When somebody opened it or did an exercise of it, as the recorded text, which sorts by time; "" for never."""
    return max([workshop.get("opened", ""), *(each.get("last", "") for each in workshop.get("exercises", {}).values())])


# ------------------------------------------------------------------------------------------------ how it looks

_MARKS = {"ok": ("✔", "green"), "warning": ("!", "yellow"), "problem": ("✘", "red")}
_COLOURS = {"passed": "green", "failed": "red", "caught_up": "yellow", "error": "magenta", "untouched": "dim"}
_NUMBERS = ("#", "MB", "attempts", "hints")
_LABELS = {"passed": "✔ passed", "failed": "✘ not yet", "caught_up": "→ caught up", "untouched": "○ not attempted"}


def _console(stderr: bool = False):
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _table(*columns: str):
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in _NUMBERS else "left")
    return table


def _show_path(workshops: list[Workshop], recorded: dict) -> None:
    from rich.text import Text

    following = _next(workshops, recorded)
    table = _table("#", "", "workshop", "time", "passed")
    table.columns[2].no_wrap = table.columns[3].no_wrap = True
    for number, workshop in enumerate(workshops, 1):
        if number == 1 or workshop.track != workshops[number - 2].track:
            table.add_row("", "", Text(course.TRACKS[workshop.track], "bold"))
        if workshop.planned:
            table.add_row(str(number), "", Text(workshop.name, "dim"), Text("planned", "dim"))
            continue
        done = list(progress.statuses(workshop, recorded).values())
        complete = done and progress.complete(workshop, recorded)
        mark = Text("✔", "green") if complete else Text("▶" if workshop == following else "", "cyan")
        count = f"{done.count('passed')}/{len(done)}"
        caught_up = f" (+{done.count('caught_up')} caught up)" if "caught_up" in done else ""
        table.add_row(str(number), mark, workshop.name, f"{workshop.minutes} min", count + caught_up)
    console = _console()
    console.print(table)
    print()
    if following is None:
        print("You have been through all that is there.")
        return
    begun = following.name in recorded["workshops"]
    console.print(f"{'Go on with' if begun else 'Next:'} {following.title}. Type:  atlas start", soft_wrap=True)
    if begun:
        print("To check what you wrote, type:  atlas check")


def _show_workshop(workshop: Workshop, recorded: dict) -> None:
    from rich.text import Text

    done = progress.statuses(workshop, recorded)
    entries = recorded["workshops"].get(workshop.name, {}).get("exercises", {})
    print(f"{workshop.title}: {list(done.values()).count('passed')} of {len(done)} passed")
    table = _table("  exercise", "state", "attempts", "hints", "first passed")
    for name, status in done.items():
        entry = entries.get(name, {})
        first = entry.get("first_passed", "").replace("T", " ")[:16]
        state = Text(_LABELS[status], _COLOURS[status])
        table.add_row(f"  {name}", state, str(entry.get("attempts", 0)), str(entry.get("hints", 0)), first)
    _console().print(table)
    print()


def _outcome(status: str, text: str) -> None:
    from rich.text import Text

    head, _, rest = text.partition("\n")
    console = _console()
    console.print(Text(head, _COLOURS.get(status, "")), soft_wrap=True)
    if rest:
        console.print(Text(rest), soft_wrap=True)


def _finding(console, finding) -> None:
    from rich.table import Table
    from rich.text import Text

    mark, colour = _MARKS[finding.status]
    line = Table.grid(padding=(0, 1))
    for width in (1, 10, None):
        line.add_column(width=width, overflow="fold")
    line.add_row(Text(mark, colour), finding.name, finding.text)
    console.print(line)


def _error(message: str) -> None:
    sys.stdout.flush()
    _console(stderr=True).print(message, style="red", soft_wrap=True)


def _keep_traceback() -> str:
    """Keep the traceback in a file; returns how to report it."""
    import traceback

    text = traceback.format_exc()
    with suppress(OSError):
        file = course.state_dir() / f"traceback-{datetime.now():%Y%m%d-%H%M%S-%f}.txt"
        file.write_text(f"{sys.argv}\n{sys.version}\n\n{text}", encoding="utf-8")
        return f"Please report it as an issue of the kit's repository, with this file: {_shown(file)}"
    return f"Please report it as an issue of the kit's repository, with this:\n{text}"


def _shown(file: Path) -> str:
    """A path as one would type it from here."""
    with suppress(ValueError):
        return os.path.relpath(file) if file.is_relative_to(course.root()) else str(file)
    return str(file)
