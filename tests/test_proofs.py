"""Every exercise of every workshop that is there is proven: what is right passes, what is wrong fails and is told why.

Driven by workshop.toml: a new workshop needs no new test.
"""

from functools import cache

import pytest

from atlas import course
from atlas.authoring import completeness, proofs
from proof_summary import record

WORKSHOPS = [workshop for workshop in course.workshops() if not workshop.planned]
EXERCISES = [(workshop, exercise) for workshop in WORKSHOPS for exercise in workshop.exercises]

pytestmark = pytest.mark.kind("proofs")
material = cache(proofs.material)
prove = cache(lambda workshop, exercise, kind: proofs.prove(material(workshop), exercise, kind))

each_workshop = pytest.mark.parametrize("workshop", WORKSHOPS, ids=lambda workshop: workshop.name)
each_exercise = pytest.mark.parametrize(
    ("workshop", "exercise"), EXERCISES, ids=[f"{workshop.name}-{exercise.name}" for workshop, exercise in EXERCISES]
)


@each_workshop
def test_a_workshop_has_all_its_parts_and_no_unknown_file(workshop):
    assert not _told(completeness.shortfalls(workshop, proofs.load_answers(workshop)))


@each_exercise
def test_the_solution_passes_its_check_over_several_seeds(workshop, exercise, record_property):
    _proven(workshop, exercise, "solution", record_property)


@each_exercise
def test_the_starter_counts_as_not_attempted(workshop, exercise, record_property):
    _proven(workshop, exercise, "starter", record_property)


@each_exercise
def test_wrong_answers_fail_with_the_message_that_they_are_owed(workshop, exercise, record_property):
    _proven(workshop, exercise, "wrong", record_property)


@each_exercise
def test_right_answers_written_otherwise_pass(workshop, exercise, record_property):
    _proven(workshop, exercise, "right", record_property)


@each_exercise
def test_each_known_mistake_fails_and_is_told_its_own_sentence(workshop, exercise, record_property):
    _proven(workshop, exercise, "mistake", record_property)


@each_workshop
def test_four_of_five_messages_to_wrong_answers_name_the_mistake(workshop):
    proven = [proof for exercise in workshop.exercises for proof in prove(workshop, exercise, "wrong")]
    unnamed = [f"{proof.exercise}: {proof.answer}" for proof in proven if not proof.named]
    assert proofs.named_share(proven) >= proofs.NAMED, f"these get no message that names them: {unnamed}"


def _told(problems) -> str:
    return "\n".join(map(str, problems))


def _proven(workshop, exercise, kind, record_property) -> None:
    proven = prove(workshop, exercise, kind)
    record(record_property, "proof", proven)
    assert proven or kind == "mistake", f"no {kind} answer to {exercise.name} is registered"
    failed = [f"{proof.answer}: {proof.why}" for proof in proven if not proof.ok]
    assert not failed, "\n".join(failed)
