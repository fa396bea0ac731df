"""`atlas new`: the skeleton of a workshop builds, opens, and is called incomplete with a precise list."""

import re

import nbformat
import pytest

import skeleton_kit
from atlas import build, course, lab
from atlas.authoring import scaffold, validate

LACKS = """\
workshops/W/README.md: has N words, not 1200 to 2500
workshops/W/README.md: has 1 outcome, not 3 to 6
workshops/W/README.md: has 1 resource, not 5 to 10
workshops/W/figures: has 1 SVG figures, not 2 or more
workshops/W/workshop.toml: has 1 notebook exercise, not 4 to 8
workshops/W/cnn-basics.ipynb: has 0 cells that plot, not 4 or more
workshops/W/cnn-basics.ipynb: has 1 questions with a folded answer (<details>), not 4 or more
solutions/W/INSTRUCTOR.md: has 1 misconceptions, not 3
solutions/W/INSTRUCTOR.md: has a quiz of 1 numbered questions, not 5
workshops/W/workshop.toml: names no dataset
tests/wrong_answers/cnn-basics.py: has 1 wrong answers to first_step, not 5 or more
tests/wrong_answers/cnn-basics.py: has 1 right answers to first_step, not 2 or more
tests/wrong_answers/cnn-basics.py: has 0 wrong answers to second_step, not 5 or more
tests/wrong_answers/cnn-basics.py: has 0 right answers to second_step, not 2 or more
"""


@pytest.fixture
def kit(tmp_path, monkeypatch):
    return skeleton_kit.make(tmp_path, monkeypatch)


def test_a_skeleton_builds(kit):
    assert build.build(check=True) == []
    starter = nbformat.read(skeleton_kit.workshop().notebook, as_version=4)
    assert 'raise NotImplementedError("first_step")' in "\n".join(cell.source for cell in starter.cells)


def test_a_skeleton_opens(kit, capsys):
    opened = lab.open("cnn-basics")
    assert set(opened.checks) == {"first_step", "second_step"}
    assert "CNN Basics" in capsys.readouterr().out


def test_a_skeleton_is_incomplete_and_the_list_of_what_it_lacks_is_exact(kit):
    report = validate.validate()
    found = "".join(f"{problem.path}: {problem.what}\n" for problem in report.problems)
    assert re.sub(r"has \d+ words", "has N words", found).replace(skeleton_kit.ID, "W") == LACKS
    assert not report.ok and all(problem.repair for problem in report.problems)


def test_what_is_there_in_a_skeleton_is_proven(kit):
    report = validate.validate(["cnn-basics"])
    assert len(report.proofs) == 2 * 5 + 2 + 1 + 1 + 2
    assert [proof for proof in report.proofs if not proof.ok] == []


def test_no_placeholder_is_left_in_a_skeleton(kit):
    written = [path for path in kit.rglob("*") if path.is_file() and skeleton_kit.ID.split("/")[1] in str(path)]
    assert written and not [path for path in written if "{{" in path.read_text()]


def test_only_workshops_of_the_path_can_be_begun(kit):
    with pytest.raises(course.CourseError, match="Did you mean 'computer-vision/cnn-basics'"):
        scaffold.new("computer-vision/cnn-basic")


def test_a_workshop_that_is_begun_is_left_alone(kit):
    readme = skeleton_kit.workshop().folder / "README.md"
    readme.write_text("my own work")
    with pytest.raises(course.CourseError, match="begun already"):
        scaffold.new(skeleton_kit.ID)
    assert readme.read_text() == "my own work"
