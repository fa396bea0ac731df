"""The notebooks, scripts and projects of every workshop that is there run offline, as a learner's do.

Driven by workshop.toml: a new workshop needs no new test.
"""

import pytest

from atlas import build, course
from atlas.authoring import completeness, runs
from proof_summary import record

WORKSHOPS = [workshop for workshop in course.workshops() if not workshop.planned]

each_workshop = pytest.mark.parametrize("workshop", WORKSHOPS, ids=lambda workshop: workshop.name)


def test_every_generated_file_is_in_step_with_its_source():
    assert not _told(build.build(check=True))


def test_no_file_lies_in_the_workshops_that_belongs_to_none():
    assert not _told(completeness.strays())


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


def _ran(run: runs.Run, record_property) -> None:
    record(record_property, "run", [run])
    assert not run.error, run.error
