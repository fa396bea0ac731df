"""The five proofs of an exercise: its solution passes, its starter counts as untouched, wrong answers fail with a
message that names the mistake, right ones written otherwise pass, and each known mistake is told its own sentence.
"""

import importlib
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from atlas import checking, course
from atlas.authoring import completeness
from atlas.collect import collect
from atlas.course import Exercise, Workshop

KINDS = ("solution", "starter", "wrong", "right", "mistake")
SEEDS = range(5)
NAMED = 0.8
"""The share of a workshop's wrong answers whose message must name the mistake."""


@dataclass(frozen=True)
class Proof:
    """One answer under one check. `named`: for a wrong answer, whether the message names the mistake."""

    workshop: str
    exercise: str
    kind: str
    answer: str
    ok: bool
    why: str = ""
    named: bool = False


@dataclass(frozen=True)
class Material:
    """What the proofs of a workshop run on: checks, reference and starter objects by name, and registered answers."""

    workshop: Workshop
    checks: MappingProxyType
    solution: MappingProxyType
    starter: MappingProxyType
    answers: tuple


def material(workshop: Workshop) -> Material:
    """Load it. Raises what loading raises, CourseError and OSError among it."""
    names = [exercise.name for exercise in workshop.exercises]
    solution, starter = collect(workshop.source, names), collect(workshop.notebook, names)
    if workshop.script:
        solution = _of(workshop, solution, collect(workshop.solution_folder / workshop.script, names))
        starter = _of(workshop, starter, collect(workshop.folder / workshop.script, names))
    checks = checking.load_checks(workshop.folder)
    maps = (MappingProxyType(found) for found in (checks, solution, starter))
    return Material(workshop, *maps, tuple(load_answers(workshop)))


def load_answers(workshop: Workshop) -> list:
    """The registered answers to the workshop's exercises (tests/answers.py); none where the file is missing."""
    file = completeness.answers_file(workshop)
    if not file.exists():
        return []
    folder = str(course.root() / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("answers").load(file)


def prove(given: Material, exercise: Exercise, kind: str) -> list[Proof]:
    """The proofs of one kind for one exercise, one for each answer (for the solution: for each seed)."""
    if exercise.name not in given.checks:
        return [_proof(given, exercise, kind, "", False, "there is no check")]
    if kind in ("solution", "starter"):
        return _prove_ours(given, exercise, kind)
    if kind == "mistake":
        return [_prove_mistake(given, exercise, one) for one in given.checks[exercise.name].mistakes]
    answers = [one for one in given.answers if one.exercise == exercise.name and one.correct == (kind == "right")]
    return [(_prove_right if one.correct else _prove_wrong)(given, exercise, one) for one in answers]


def named_share(proofs: list[Proof]) -> float:
    """The share of the wrong answers whose message names the mistake; 1 where there are none."""
    wrong = [proof for proof in proofs if proof.kind == "wrong"]
    return sum(proof.named for proof in wrong) / len(wrong) if wrong else 1.0


def _prove_ours(given: Material, exercise: Exercise, kind: str) -> list[Proof]:
    code = (given.solution if kind == "solution" else given.starter).get(exercise.name)
    if code is None:
        why = f"the {kind} defines no {exercise.name} that can be taken out without running the rest"
        return [_proof(given, exercise, kind, "", False, why)]
    wanted, seeds = (checking.PASSED, SEEDS) if kind == "solution" else (checking.UNTOUCHED, [0])
    outcomes = [(seed, _run(given, exercise, code, seed)) for seed in seeds]
    return [
        _proof(given, exercise, kind, f"seed {seed}", outcome.status == wanted, outcome.text())
        for seed, outcome in outcomes
    ]


def _prove_right(given: Material, exercise: Exercise, answer: Any) -> Proof:
    outcomes = [_run(given, exercise, answer.code, seed) for seed in SEEDS]
    rejected = [outcome.text() for outcome in outcomes if not outcome.passed]
    return _proof(given, exercise, "right", answer.name, not rejected, "\n".join(rejected[:1]))


def _prove_wrong(given: Material, exercise: Exercise, answer: Any) -> Proof:
    outcome = _run(given, exercise, answer.code, 0)
    named = answer.says is not None and answer.says in outcome.text()
    if outcome.status != checking.FAILED:
        return _proof(given, exercise, "wrong", answer.name, False, f"was not rejected: {outcome.text()}")
    why = "" if named or answer.says is None else f"does not say {answer.says!r} but:\n{outcome.text()}"
    return _proof(given, exercise, "wrong", answer.name, not why, why, named)


def _prove_mistake(given: Material, exercise: Exercise, mistake: Any) -> Proof:
    """It fails, and what is said is its own sentence: so it differs from what is right and from those before it."""
    sentence = " ".join(mistake.__doc__.split())
    outcome = _run(given, exercise, mistake, 0)
    told = outcome.status == checking.FAILED and outcome.details[-1:] == (sentence,)
    return _proof(given, exercise, "mistake", sentence, told, f"is not told so but:\n{outcome.text()}")


def _run(given: Material, exercise: Exercise, code: Any, seed: int) -> checking.Outcome:
    return checking.run_check(given.checks[exercise.name], code, seed)


def _proof(given: Material, exercise: Exercise, kind: str, answer: str, ok: bool, why: str, named=False) -> Proof:
    return Proof(given.workshop.name, exercise.name, kind, answer, ok, "" if ok else why, named)


def _of(workshop: Workshop, notebook: dict[str, Any], script: dict[str, Any]) -> dict[str, Any]:
    """Both files' objects; an exercise's comes from where the exercise is."""
    of_script = {exercise.name for exercise in workshop.exercises if exercise.where != "notebook"}
    return {**script, **notebook, **{name: script[name] for name in of_script if name in script}}
