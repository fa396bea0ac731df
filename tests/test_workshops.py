"""Every workshop that is there is complete, its exercises are proven, and its notebooks and scripts run offline.

Driven by workshop.toml: a new workshop needs no new test.
"""

from functools import cache

import pytest

from atlas import build, course
from atlas.authoring import completeness, proofs, runs
from proof_summary import record

WORKSHOPS = [workshop for workshop in course.workshops() if not workshop.planned]
EXERCISES = [(workshop, exercise) for workshop in WORKSHOPS for exercise in workshop.exercises]

material = cache(proofs.material)
prove = cache(lambda workshop, exercise, kind: proofs.prove(material(workshop), exercise, kind))

each_workshop = pytest.mark.parametrize("workshop", WORKSHOPS, ids=lambda workshop: workshop.name)
each_exercise = pytest.mark.parametrize(
    ("workshop", "exercise"), EXERCISES, ids=[f"{workshop.name}-{exercise.name}" for workshop, exercise in EXERCISES]
)
proof = pytest.mark.kind("proofs")


def test_every_generated_file_is_in_step_with_its_source():
    assert not _told(build.build(check=True))


def test_no_file_lies_in_the_workshops_that_belongs_to_none():
    assert not _told(completeness.strays())


@proof
@each_workshop
def test_a_workshop_has_all_its_parts_and_no_unknown_file(workshop):
    assert not _told(completeness.shortfalls(workshop, proofs.load_answers(workshop)))


@proof
@each_exercise
def test_the_solution_passes_its_check_over_several_seeds(workshop, exercise, record_property):
    _proven(workshop, exercise, "solution", record_property)


@proof
@each_exercise
def test_the_starter_counts_as_not_attempted(workshop, exercise, record_property):
    _proven(workshop, exercise, "starter", record_property)


@proof
@each_exercise
def test_wrong_answers_fail_with_the_message_that_they_are_owed(workshop, exercise, record_property):
    _proven(workshop, exercise, "wrong", record_property)


@proof
@each_exercise
def test_right_answers_written_otherwise_pass(workshop, exercise, record_property):
    _proven(workshop, exercise, "right", record_property)


@proof
@each_exercise
def test_each_known_mistake_fails_and_is_told_its_own_sentence(workshop, exercise, record_property):
    _proven(workshop, exercise, "mistake", record_property)


@proof
@each_workshop
def test_four_of_five_messages_to_wrong_answers_name_the_mistake(workshop):
    proven = [proof for exercise in workshop.exercises for proof in prove(workshop, exercise, "wrong")]
    unnamed = [f"{proof.exercise}: {proof.answer}" for proof in proven if not proof.named]
    assert proofs.named_share(proven) >= proofs.NAMED, f"these get no message that names them: {unnamed}"


@pytest.mark.slow
@pytest.mark.kind("solved notebook")
@each_workshop
def test_the_solved_notebook_runs_offline_within_time_and_memory(workshop, record_property):
    _ran(runs.solved_notebook(workshop), record_property)


@pytest.mark.kind("starters")
@each_workshop
def test_the_starter_notebook_runs_to_its_first_todo_without_any_other_error(workshop, record_property):
    _ran(runs.starter_notebook(workshop), record_property)


@pytest.mark.kind("starters")
@each_workshop
def test_the_starter_script_explains_itself_and_stops_at_its_todo(workshop, record_property):
    _ran(runs.starter_script_help(workshop), record_property)
    _ran(runs.starter_script(workshop), record_property)


@pytest.mark.kind("script")
@each_workshop
def test_the_solved_script_runs_and_leaves_what_its_workshop_says(workshop, record_property):
    _ran(runs.solved_script(workshop), record_property)


@pytest.mark.kind("project")
@each_workshop
def test_the_reference_of_the_project_runs(workshop, record_property):
    _ran(runs.project(workshop), record_property)


def _told(problems) -> str:
    return "\n".join(map(str, problems))


def _proven(workshop, exercise, kind, record_property) -> None:
    proven = prove(workshop, exercise, kind)
    record(record_property, "proof", proven)
    assert proven or kind == "mistake", f"no {kind} answer to {exercise.name} is registered"
    failed = [f"{proof.answer}: {proof.why}" for proof in proven if not proof.ok]
    assert not failed, "\n".join(failed)


def _ran(run: runs.Run, record_property) -> None:
    record(record_property, "run", [run])
    assert not run.error, run.error
