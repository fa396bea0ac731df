"""Runs notebooks and scripts as a learner would, the network off, and measures them against the budgets.

Each runs in a fresh copy of the learner's folder, so that nothing is left behind in the repository, and on one core, so
that two can run side by side. What is measured is computing: the clock says how busy the machine is with other things.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from atlas import build, course, hardware
from atlas.authoring import minutes, pages
from atlas.authoring.offline import without_network
from atlas.course import Workshop

SECONDS, CELL_SECONDS, PEAK_MB = 120, 45, 3000
"""The budget of a solved notebook on a machine that does nothing else; scripts have its seconds too."""
WORKSHOP_SECONDS = 110
"""What all that proves a workshop may compute: 23 of them in half an hour on two cores."""
PATIENCE = 3
"""A run is ended by force after so many times its budget: other programs may hold the cores."""
NO_WINDOW = {"MPLBACKEND": "Agg"}
ONE_CORE = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
LAST_LINES = 100
"""So much of what a run wrote is shown when it fails."""


@dataclass(frozen=True)
class Run:
    """One run and what it took; `error` is empty when it went as it must."""

    workshop: str
    what: str
    file: str  # relative to the repository
    seconds: float  # by the clock
    computed: float  # seconds of computing, by the process and its children
    peak_mb: int  # resident memory of the process and its children, at its highest
    network: str  # how it was off
    error: str = ""
    slowest_cell: float = 0.0  # its seconds of computing


@dataclass(frozen=True)
class _Ended:
    code: int
    output: str  # the end of it
    seconds: float
    computed: float
    peak_mb: int
    network: str
    load: str  # what else the machine did meanwhile; empty where that was little


def run_all(workshop: Workshop) -> Iterator[Run]:
    """Every run that proves a workshop."""
    yield solved_notebook(workshop)
    yield starter_notebook(workshop)
    if workshop.script:
        yield from (starter_script_help(workshop), starter_script(workshop), solved_script(workshop))
    if workshop.project:
        yield project(workshop)


def solved_notebook(workshop: Workshop) -> Run:
    """The solved notebook by nbmake: no error, every check passed (strict), within the budgets, nothing stray below a
    figure, no cell longer than the text says. Kept in the report."""
    with _folder(workshop, solved=True) as folder:
        ended, cells = _nbmake(folder / workshop.notebook.name, strict=True)
    run = _run(workshop, "solved notebook", workshop.solution_folder / workshop.notebook.name, ended)
    run = replace(run, slowest_cell=max(map(_computing, cells), default=0.0))
    _report(run)
    if ended.code:
        return _judged(run, ended, *_errors(cells), ended.output)
    untold = minutes.untold([(cell, _computing(cell)) for cell in cells])
    return _judged(run, ended, _over_budget(run), *pages.strays(cells), *untold)


def starter_notebook(workshop: Workshop) -> Run:
    """The starter notebook ends in one error, the NotImplementedError of its first exercise, and not before."""
    with _folder(workshop) as folder:
        ended, cells = _nbmake(folder / workshop.notebook.name, strict=False)
    first = build.regions(workshop.source.read_text(encoding="utf-8"), workshop.source.name)[0].exercise
    errors = _errors(cells)
    expected = f"NotImplementedError: {first}"
    good = len(errors) == 1 and errors[0].partition(".")[0] == expected
    run = _run(workshop, "starter notebook", workshop.notebook, ended)
    return _judged(run, ended, "" if good else _instead(expected, errors, ended))


def starter_script_help(workshop: Workshop) -> Run:
    """The starter script explains itself before anything is written."""
    with _folder(workshop) as folder:
        ended = _python([workshop.script, "--help"], folder, PATIENCE * SECONDS, NO_WINDOW)
    good = ended.code == 0 and "usage" in ended.output.lower()
    run = _run(workshop, "starter script --help", workshop.folder / workshop.script, ended)
    return _judged(run, ended, "" if good else f"--help failed:\n{ended.output}")


def starter_script(workshop: Workshop) -> Run:
    """The starter script ends in the NotImplementedError of one of its exercises."""
    with _folder(workshop) as folder:
        ended = _python([workshop.script, *workshop.script_test], folder, PATIENCE * SECONDS, NO_WINDOW)
    last = ended.output.strip().rpartition("\n")[2]
    names = [exercise.name for exercise in workshop.exercises if exercise.where == workshop.script]
    kind, _, missing = last.partition(": ")
    good = ended.code and kind == "NotImplementedError" and re.match(r"\w*", missing)[0] in names
    run = _run(workshop, "starter script", workshop.folder / workshop.script, ended)
    return _judged(run, ended, "" if good else _instead(f"NotImplementedError: {' or '.join(names)}", [last], ended))


def solved_script(workshop: Workshop) -> Run:
    """The solved script runs with `script_test` of workshop.toml, and leaves exactly what `leaves` says."""
    with _folder(workshop, solved=True) as folder:
        before = _below(folder)
        ended = _python([workshop.script, *workshop.script_test], folder, PATIENCE * SECONDS, NO_WINDOW)
        made = {kind: [path.name for path in paths] for kind, paths in kinds(_below(folder) - before).items()}
    run = _run(workshop, "solved script", workshop.solution_folder / workshop.script, ended)
    return _judged(run, ended, *([ended.output] if ended.code else _otherwise(made, workshop.leaves)))


def project(workshop: Workshop) -> Run:
    """The project's reference runs with `project_test` of workshop.toml."""
    with _folder(workshop, solved=True) as folder:
        ended = _python([workshop.project, *workshop.project_test], folder, PATIENCE * SECONDS, NO_WINDOW)
    run = _run(workshop, "project", workshop.solution_folder / workshop.project, ended)
    return _judged(run, ended, ended.output if ended.code else "")


def kinds(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Kind of what a script leaves → the files of that kind, by how their names end; "" for those of none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(paths):
        kind = next((kind for kind, endings in course.LEAVES.items() if path.name.endswith(endings)), "")
        found.setdefault(kind, []).append(path)
    return found


def _otherwise(made: dict[str, list[str]], leaves: tuple[str, ...]) -> Iterator[str]:
    """What was left otherwise than workshop.toml says."""
    for kind in leaves:
        if kind not in made:
            yield f"it left no {kind} ({', '.join(course.LEAVES[kind])}) below its folder, and workshop.toml says so"
    for kind in sorted(made.keys() - set(leaves)):
        what = f"of kind {kind}" if kind else "of no known kind"
        yield f"it left {', '.join(made[kind])}, {what}, and `leaves` in workshop.toml does not say so"


# ---------------------------------------------------------------------------------------------- running


@contextlib.contextmanager
def _folder(workshop: Workshop, solved: bool = False) -> Iterator[Path]:
    """A copy of the learner's folder; `solved` puts the solutions over the starters."""
    with tempfile.TemporaryDirectory(prefix="atlas-run-") as top:
        folder = Path(top) / workshop.name
        unwanted = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(workshop.folder, folder, ignore=unwanted)
        if solved:
            shutil.copytree(workshop.solution_folder, folder, ignore=unwanted, dirs_exist_ok=True)
        yield folder


def _nbmake(notebook: Path, strict: bool) -> tuple[_Ended, list]:
    """Run a notebook by nbmake; its cells with their outputs."""
    import nbformat

    options = ["--nbmake", "--overwrite", f"--nbmake-timeout={PATIENCE * CELL_SECONDS}", "-p", "no:cacheprovider"]
    plugins = ["-p", "nbmake.pytest_plugin", "-p", "atlas.authoring.telling"]
    command = ["-m", "pytest", *plugins, "-q", "-s", *options, notebook.name]
    env = {"JUPYTER_PATH": "", "JUPYTER_PREFER_ENV_PATH": "1", "IPYTHONDIR": str(notebook.parent / ".ipython")}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the others take 2 s to load
    ended = _python(command, notebook.parent, PATIENCE * SECONDS, env | ({"ATLAS_STRICT": "1"} if strict else {}))
    return ended, nbformat.read(notebook, as_version=4).cells


def _python(arguments: list[str], folder: Path, limit: float, env: dict[str, str]) -> _Ended:
    """Run this Python in `folder` without network; ended by force after `limit` seconds."""
    command, network_env, network = without_network([sys.executable, *arguments])
    ours = {"ATLAS_ROOT": str(course.root()), "ATLAS_STATE": str(folder / ".atlas"), "PYTHONFAULTHANDLER": "1"}
    not_inherited = ("ATLAS_STRICT", "MPLBACKEND", "PYTEST")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(not_inherited)}
    with tempfile.TemporaryFile() as output:
        began, computed, others = time.monotonic(), _computed(), _processes()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=inherited | ours | ONE_CORE | env | network_env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        peak, tree = _watch(process, began + limit)
        seconds = time.monotonic() - began
        output.seek(0)
        text = "\n".join(output.read().decode(errors="replace").splitlines()[-LAST_LINES:])
    code = process.returncode
    if seconds > limit:
        text += f"\nended by force after {limit:g} s; above is what it wrote last, and which line it was in"
        code = code or -signal.SIGKILL  # a parent that outlived its children for a moment may have ended in peace
    computed = _computed() - computed
    load = _load(others, tree, seconds, computed)
    return _Ended(code, text, round(seconds, 1), round(computed, 1), round(peak / 1e6), network, load)


def _computed() -> float:
    """Seconds that ended child processes, theirs among them, have computed."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(process: subprocess.Popen, until: float) -> tuple[int, set[int]]:
    """Wait for the end, or bring it about; the highest resident memory of the process tree seen on the way, bytes, and
    the numbers of its processes."""
    import psutil

    peak, seen, top = 0, set(), psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            tree = [top, *top.children(recursive=True)]
            peak = max(peak, sum(map(_resident, tree)))
            seen.update(each.pid for each in tree)
        if time.monotonic() > until:
            _end(top)
            process.wait()
        time.sleep(0.1)
    return peak, seen


def _end(top) -> None:
    """End a process and its children by force. Those that have none compute: they say first where they are."""
    import psutil

    with contextlib.suppress(psutil.Error):
        tree = [top, *top.children(recursive=True)]  # a kernel has a session of its own, so this is not its group
        computing = [each for each in tree if not each.children()]
        for how, which in ((signal.SIGABRT, computing), (signal.SIGKILL, tree)):  # faulthandler answers the first
            for each in which:
                with contextlib.suppress(psutil.Error):
                    each.send_signal(how)
            psutil.wait_procs(computing, timeout=2)


def _processes() -> dict[tuple[int, float], tuple[str, float]]:
    """Each process of the machine (its number and when it began), its name and the seconds it has computed."""
    import psutil

    found = {}
    for each in psutil.process_iter(["name", "cpu_times", "create_time"]):
        if each.info["cpu_times"]:
            times = each.info["cpu_times"]
            found[each.pid, each.info["create_time"]] = (each.info["name"], times.user + times.system)
    return found


def _load(before: dict, ours: set[int], seconds: float, computed: float) -> str:
    """What else kept the machine busy while a run took `seconds`; "" where there was a core for it."""
    busy = Counter(
        name
        for key, (name, used) in _processes().items()
        if key[0] not in ours | {os.getpid()} and used - before.get(key, (name, 0.0))[1] > 0.1 * seconds
    )
    cores, average = hardware.cores(), os.getloadavg()[0]
    if average <= cores and busy.total() < cores:
        return ""
    named = ", ".join(f"{name} ({number})" for name, number in busy.most_common(4)) or "none"
    got = f"this run got {computed / seconds:.0%} of one"
    return (
        f"The machine was busy: load average {average:.1f} on {cores} cores; {got}. "
        f"Other processes that computed for a tenth of its time or more: {named}"
    )


def _resident(process) -> int:
    import psutil

    try:
        return process.memory_info().rss
    except psutil.Error:  # it ended meanwhile
        return 0


# ---------------------------------------------------------------------------------------------- judging


def _run(workshop: Workshop, what: str, path: Path, ended: _Ended) -> Run:
    shown = path.relative_to(course.root()).as_posix()
    return Run(workshop.name, what, shown, ended.seconds, ended.computed, ended.peak_mb, ended.network)


def _judged(run: Run, ended: _Ended, *errors: str) -> Run:
    """The run with what went wrong in it; the machine's load belongs to that."""
    told = [error for error in errors if error]
    return replace(run, error="\n".join([*told, *([ended.load] if told and ended.load else [])]))


def _over_budget(run: Run) -> str:
    """What exceeded the budget. Seconds are of computing where the clock counted more: alone on the machine, it would
    have taken no more than those."""
    budgets = (
        ("it took", min(run.seconds, run.computed), SECONDS, "s"),
        ("its slowest cell took", run.slowest_cell, CELL_SECONDS, "s"),
        ("it needed", run.peak_mb, PEAK_MB, "MB"),
    )
    return "\n".join(f"{what} {used:g} {unit}, not {most}" for what, used, most, unit in budgets if used > most)


def _errors(cells: list) -> list[str]:
    """ "Name: value" of each error among the outputs."""
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]


def _instead(expected: str, errors: list[str], ended: _Ended) -> str:
    return f"should end in {expected}, ended in {'; '.join(errors) or 'no error'} (exit {ended.code})\n{ended.output}"


def _computing(cell) -> float:
    """Seconds of computing that a cell took, as telling.py noted them; 0 for what was not run."""
    return cell.metadata.get("computed", 0.0)


def _below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def _report(run: Run) -> None:
    """Put the run into .atlas/test-report/notebooks.json in place of an earlier one."""
    from filelock import FileLock

    file = course.root() / ".atlas" / "test-report" / "notebooks.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    entry = {
        "notebook": run.file,
        "seconds": run.seconds,
        "computed": run.computed,
        "slowest_cell": run.slowest_cell,
        "peak_mb": run.peak_mb,
        "network": run.network,
    }
    with FileLock(f"{file}.lock"):
        others = json.loads(file.read_text()) if file.exists() else []
        entries = [entry, *(other for other in others if other["notebook"] != run.file)]
        file.write_text(json.dumps(sorted(entries, key=lambda each: each["notebook"]), indent=1) + "\n")
