"""`atlas validate`: whether workshops are complete and their exercises proven, as a report for maintainers."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from atlas import course
from atlas.authoring import completeness, proofs, runs
from atlas.authoring.proofs import Proof
from atlas.authoring.runs import Run
from atlas.build import Problem
from atlas.course import CourseError, Workshop


@dataclass
class Report:
    """What was found; `str(report)` is what a maintainer reads."""

    problems: list[Problem] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and all(proof.ok for proof in self.proofs) and not any(run.error for run in self.runs)

    def __str__(self) -> str:
        parts = [proof_table(self.proofs), run_table(self.runs)]
        parts += [
            f"{proof.workshop}: {proof.exercise}, {proof.kind} {proof.answer}: {proof.why}"
            for proof in self.proofs
            if not proof.ok
        ]
        parts += [f"{run.file}: {run.what}: {run.error}" for run in self.runs if run.error]
        parts += [str(problem) for problem in self.problems]
        parts.append("Complete and proven." if self.ok else f"{self._failures()} to repair.")
        return "\n".join(part for part in parts if part)

    def _failures(self) -> str:
        proofs_failed, runs_failed = (
            sum(not proof.ok for proof in self.proofs),
            sum(bool(run.error) for run in self.runs),
        )
        return f"{len(self.problems)} shortfalls, {proofs_failed} proofs, {runs_failed} runs"


def validate(names: list[str] | None = None, notebooks: bool = False) -> Report:
    """Count the parts of the workshops and prove their exercises.

    names: of workshops; none for all that are not planned, and for files that belong to no workshop.
    notebooks: run notebooks, scripts and projects too (a minute or two for each workshop).
    CourseError: a name that is none, or of a planned workshop.
    """
    report = Report()
    if names:
        workshops = [course.find(name) for name in names]
        for workshop in workshops:
            if workshop.planned:
                raise CourseError(f"{workshop.id} is planned. To begin it: atlas new {workshop.id}")
    else:
        workshops = [workshop for workshop in course.workshops() if not workshop.planned]
        report.problems += completeness.strays()
    for workshop in workshops:
        _validate(workshop, notebooks, report)
    return report


def _validate(workshop: Workshop, notebooks: bool, report: Report) -> None:
    answers = completeness.answers_file(workshop).relative_to(course.root()).as_posix()
    try:
        given = proofs.material(workshop)
    except Exception as error:  # whatever the files of a maintainer raise when they are loaded
        report.problems += completeness.shortfalls(workshop, [])
        what = f"its exercises cannot be proven: {type(error).__name__}: {error}"
        report.problems.append(Problem(f"workshops/{workshop.id}", what, f"mend it; atlas validate {workshop.name}"))
        return
    report.problems += completeness.shortfalls(workshop, given.answers)
    proven = [
        proof
        for exercise in workshop.exercises
        for kind in proofs.KINDS
        for proof in proofs.prove(given, exercise, kind)
    ]
    report.proofs += proven
    share = proofs.named_share(proven)
    if share < proofs.NAMED:
        what = f"{share:.0%} of the messages to wrong answers name the mistake, not {proofs.NAMED:.0%}"
        report.problems.append(Problem(answers, what, "teach checks.py those mistakes"))
    if notebooks:
        report.runs += runs.run_all(workshop)


def proof_table(proven: Iterable[Proof]) -> str:
    """Exercises × the kinds of proofs, each as "proven of all", and the share of messages that name the mistake."""
    proven = list(proven)
    rows = []
    for workshop in dict.fromkeys(proof.workshop for proof in proven):
        of_workshop = [proof for proof in proven if proof.workshop == workshop]
        for exercise in dict.fromkeys(proof.exercise for proof in of_workshop):
            rows.append([exercise, *_proof_cells([proof for proof in of_workshop if proof.exercise == exercise])])
        rows.append([workshop, *_proof_cells(of_workshop)])
    return _table(["exercise", *proofs.KINDS, "message names the mistake"], rows)


def run_table(ran: Iterable[Run]) -> str:
    """What each run took, beside its budget."""
    limits = f"computed (of {runs.SECONDS} s)", f"slowest cell (of {runs.CELL_SECONDS})", f"peak MB (of {runs.PEAK_MB})"
    rows = [
        [
            run.workshop,
            run.what,
            f"{run.seconds:.1f}",
            f"{run.computed:.1f}",
            f"{run.slowest_cell or '':}",
            f"{run.peak_mb}",
            run.network,
        ]
        + ["failed" if run.error else "as it must"]
        for run in ran
    ]
    return _table(["workshop", "run", "seconds", *limits, "network off by", "ended"], rows)


def cost_table(seconds: dict[str, dict[str, float]]) -> str:
    """Seconds of computing: workshop (or what else) → kind → seconds, each workshop's sum beside its budget."""
    kinds = list(dict.fromkeys(kind for each in seconds.values() for kind in each if kind))
    rows = [
        [name, *(f"{of[kind]:.0f}" if kind in of else "" for kind in kinds), f"{sum(of.values()):.0f}"]
        for name, of in seconds.items()
    ]
    return _table(["", *kinds, f"in all (of {runs.WORKSHOP_SECONDS} for a workshop)"], rows)


def _proof_cells(proven: list[Proof]) -> list[str]:
    cells = []
    for kind in proofs.KINDS:
        of_kind = [proof.ok for proof in proven if proof.kind == kind]
        cells.append(f"{sum(of_kind)}/{len(of_kind)}")
    return [*cells, f"{proofs.named_share(proven):.0%}"]


def _table(columns: list[str], rows: list[list[str]]) -> str:
    """A plain-text table; nothing where there are no rows."""
    if not rows:
        return ""
    from io import StringIO

    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=box.SIMPLE)
    for row in rows:
        table.add_row(*row)
    out = StringIO()
    Console(file=out, width=140).print(table)
    return out.getvalue()
