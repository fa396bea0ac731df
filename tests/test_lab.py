"""What a learner holds: check, hint, solution and catch_up; and how definitions are read without running the rest."""

import inspect
import json
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest

from atlas import checking, lab, progress
from atlas.course import CourseError
from made_up import FIRST, answer


@pytest.fixture
def desk(small_course):
    """The lab of the made-up workshop."""
    return lab.open("perceptron-and-mlp")


def exercises():
    return progress.read()["workshops"]["perceptron-and-mlp"]["exercises"]


def perceptron_step(numbers):
    return sum(numbers)


def multiply(numbers):
    return sum(numbers)


# ---------------------------------------------------------------------------------------------- in a learner's hands


def test_opening_shows_title_minutes_data_and_progress(desk, capsys):
    desk.check(perceptron_step)
    capsys.readouterr()
    lab.open("perceptron-and-mlp")
    shown = capsys.readouterr().out
    for fragment in ("Sums and Products", "60 min", "data: mnist", "1 of 3 exercises passed", "lab.check(f)"):
        assert fragment in shown


def test_a_check_shows_its_verdict_and_records_it(desk, capsys):
    desk.check(multiply)
    assert "✘ multiply   multiplies" in capsys.readouterr().out
    desk.check(perceptron_step)
    assert "✔ perceptron_step   passed" in capsys.readouterr().out
    assert {name: each["status"] for name, each in exercises().items()} == {
        "multiply": "failed",
        "perceptron_step": "passed",
    }


def test_a_check_that_breaks_is_no_attempt(desk, capsys, monkeypatch):
    check = desk.checks["multiply"]
    broken = checking.Check("multiply", lambda learner, rng: [][0], check.hints, (), 1)
    monkeypatch.setattr(checking.place, "is_learners", lambda file: False)
    desk.checks["multiply"] = broken
    desk.check(multiply)
    assert "the check itself failed" in capsys.readouterr().out
    assert "exercises" not in progress.read()["workshops"]["perceptron-and-mlp"]


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        (None, "Hand in a function of yours, such as lab.check(perceptron_step)"),
        ("multiply", "without quotation marks: lab.check(multiply)"),
        (7.5, "This is 7.500"),
        (lambda x: x, "This is a lambda"),
        (print, "no exercise called print"),
        (SimpleNamespace(__name__="multiplyy"), "Did you mean multiply?"),
        (type("multiply", (), {})(), "Hand in the class itself, not one of its objects"),
    ],
)
def test_whatever_else_is_handed_in_gets_told_what_to_hand_in(desk, capsys, given, fragment):
    desk.check(given)
    assert fragment in capsys.readouterr().out
    assert "exercises" not in progress.read()["workshops"]["perceptron-and-mlp"]


def test_a_strict_check_raises_and_says_why(desk, monkeypatch):
    monkeypatch.setenv("ATLAS_STRICT", "1")
    with pytest.raises(checking.CheckFailed, match="✘ multiply"):
        desk.check(multiply)
    with pytest.raises(checking.CheckFailed, match="no exercise called print"):
        desk.check(print)
    desk.check(perceptron_step)


def test_hints_go_on_and_begin_again(desk, capsys):
    for _ in range(3):
        desk.hint(multiply)
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith("Hint")] == [
        "Hint 1 of 2 to multiply",
        "Hint 2 of 2 to multiply",
        "Hint 1 of 2 to multiply",
    ]
    desk.hint("dance")
    assert "no exercise called dance" in capsys.readouterr().out


def test_without_a_place_for_progress_the_course_goes_on(desk, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ATLAS_STATE", str(tmp_path / "file" / "below"))
    desk.check(perceptron_step)
    desk.hint("multiply")
    desk.hint("multiply")
    shown = capsys.readouterr().out
    assert "✔ perceptron_step" in shown and "Hint 2 of 2 to multiply" in shown


@pytest.mark.parametrize(("name", "code"), [("multiply", "product *= number"), ("count_down", "range(n, 0, -1)")])
def test_the_solution_of_notebook_and_script_is_shown_without_markers(desk, capsys, name, code):
    desk.solution(name)
    shown = capsys.readouterr().out
    assert f"def {name}" in shown and code in shown and "###" not in shown


@pytest.mark.parametrize("name", ["multiply", "count_down"])
def test_catching_up_hands_out_the_reference_and_counts_as_caught_up(desk, name):
    reference = desk.catch_up(name)
    assert checking.run_check(desk.checks[name], reference).passed
    assert exercises()[name]["status"] == "caught_up"


def test_missing_solutions_are_told_with_the_command_that_brings_them_back(desk, capsys, small_course):
    (small_course / "solutions" / FIRST / "count.py").unlink()
    assert desk.catch_up("count_down") is None
    desk.solution("count_down")
    assert capsys.readouterr().out.count("git checkout -- solutions") == 2


def test_in_a_notebook_the_verdict_is_html_with_the_same_words(desk, monkeypatch):
    shown = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=lambda data, raw: shown.append(data)))
    desk.check(multiply)
    (data,) = shown
    assert "✘ multiply" in data["text/plain"] and "expected 42" in data["text/html"]


def test_opening_a_workshop_imports_no_framework(small_course):
    program = (
        "import sys, atlas; lab = atlas.open('perceptron-and-mlp'); lab.hint('multiply')\n"
        "sys.exit(' '.join({'torch', 'tensorflow', 'pandas', 'matplotlib', 'IPython', 'rich'} & {*sys.modules}) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# ---------------------------------------------------------------------------------------------- reading files


def notebook(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


def script(tmp_path, text):
    file = tmp_path / "train.py"
    file.write_text(text)
    return file


def test_only_definitions_are_run(tmp_path):
    found = lab.collect(
        script(
            tmp_path,
            "import math\n"
            "print('never')\n"
            "raise SystemExit\n"
            "while True: pass\n"
            "SIDE: int = 28\n"
            "INPUTS = SIDE * SIDE\n"
            "A, (B, C) = 1, (-2, [3])\n"
            "KIND = math.pi\n"
            "if (n := 5): pass\n"
            "data = open('missing')\n"
            "SIDE += 1\n"
            "NAMES = {'a': [1, 2]} \n"
            "try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\n"
            "def area(): return INPUTS\n"
            "def area(): return INPUTS + 1\n"
            "if __name__ == '__main__': print('never')\n",
        )
    )
    assert found["area"]() == 28 * 28 + 1
    assert (found["A"], found["B"], found["C"], found["NAMES"], found["nowhere"]) == (1, -2, [3], {"a": [1, 2]}, None)
    assert "n" not in found and "data" not in found and found.problems == []


def test_decorators_dataclasses_and_annotations_of_the_future_work(tmp_path):
    found = lab.collect(
        script(
            tmp_path,
            "from __future__ import annotations\n"
            "from dataclasses import dataclass\n"
            "from functools import cache\n"
            "from typing import TYPE_CHECKING, ClassVar\n"
            "if TYPE_CHECKING:\n    from nowhere import Tensor\n"
            "@dataclass\nclass Point:\n    x: int\n    kind: ClassVar[str] = 'p'\n"
            "@cache\ndef origin(at: Tensor = 0) -> Point: return Point(at)\n",
        )
    )
    assert found["origin"]().x == 0
    assert inspect.getsource(found["Point"]).startswith("@dataclass")


def test_what_only_a_full_run_provides_is_left_out_and_named(tmp_path):
    found = lab.collect(script(tmp_path, "base = type('Base', (), {})\nclass Mine(base): pass\ndef f(): return 1\n"))
    assert found["f"]() == 1 and "Mine" not in found
    assert found.problems == ["train.py, line 2: Mine is not defined: NameError: name 'base' is not defined"]


def test_a_notebooks_magics_await_and_other_languages_are_no_obstacle(tmp_path):
    found = lab.collect(
        notebook(
            tmp_path / "n.ipynb",
            "%matplotlib inline\n!pip list \\\n  --quiet\nfiles = !ls\n%timeit 1 + 1\nx = %time 3\ndef a(): return 1",
            "%%time\n\ndef b(): return 2",
            "%%bash\nwhile true; do",
            "await something()\ny = await other()\nprint?\ndef c():\n    %time\n    return 3",
        )
    )
    assert [found[name]() for name in "ab"] == [1, 2] and "c" in found and found.problems == []


def test_a_syntax_error_hides_one_cell_of_a_notebook_and_is_named(tmp_path):
    found = lab.collect(notebook(tmp_path / "n.ipynb", "def a(): return 1", "def b(:\n  1", "def c(): return 3"))
    assert found["a"]() == 1 and found["c"]() == 3
    (problem,) = found.problems
    assert problem.startswith("n.ipynb, code cell 2, line 1: ") and "def b(:" in problem


def test_a_syntax_error_in_a_script_names_the_line(tmp_path):
    with pytest.raises(CourseError, match=r"train.py, line 2: .*def b\(:"):
        lab.collect(script(tmp_path, "def a(): return 1\ndef b(:\n"))


def test_a_missing_module_names_the_line_and_the_doctor(tmp_path):
    with pytest.raises(CourseError, match=r"train.py, line 2: No module named 'nowhere'.*atlas doctor"):
        lab.collect(script(tmp_path, "import math\nimport nowhere\n"))


@pytest.mark.parametrize("text", ["", "no notebook", "[]", json.dumps({"cells": 3})])
def test_a_damaged_notebook_names_the_command_that_replaces_it(tmp_path, text):
    file = tmp_path / "n.ipynb"
    file.write_text(text)
    with pytest.raises(CourseError, match="atlas reset n"):
        lab.collect(file)


def test_a_message_names_the_line_in_the_cell_of_the_notebook(small_course):
    answer(small_course, multiply="product = 1\n    return product / 0")
    found = lab.collect(small_course / "workshops" / FIRST / "perceptron-and-mlp.ipynb")
    said = checking.run_check(lab.Lab(lab.course.find("perceptron")).checks["multiply"], found["multiply"]).text()
    assert "of perceptron-and-mlp.ipynb, code cell 3, in multiply:  return product / 0" in said


def test_a_definition_is_shown_with_its_decorators_and_the_last_one_counts(tmp_path):
    file = script(tmp_path, "def f(): return 0\n\n@first\n@second(\n  1)\ndef f():\n    return 1\n\nprint(f)\n")
    assert lab.definition(file, "f") == "@first\n@second(\n  1)\ndef f():\n    return 1"
    with pytest.raises(CourseError, match="defines no g"):
        lab.definition(file, "g")
