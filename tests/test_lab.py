"""What a learner holds: check, hint, solution and catch_up."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from atlas import checking, course, lab, progress
from made_up import FIRST, write


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
        (SimpleNamespace(__name__="multiplyy"), "Did you mean 'multiply'?"),
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
        "Hint 1 of 2 to multiply, from the first again: you have seen them all",
    ]
    assert shown.count("`atlas solution multiply`") == 1
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
    (small_course / ".git").mkdir()
    (small_course / "solutions" / FIRST / "count.py").unlink()
    assert desk.catch_up("count_down") is None
    desk.solution("count_down")
    assert capsys.readouterr().out.count("git restore solutions") == 2


def test_in_a_notebook_the_verdict_is_html_with_the_same_words(desk, monkeypatch):
    shown = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=lambda data, raw: shown.append(data)))
    desk.check(multiply)
    (data,) = shown
    assert "✘ multiply" in data["text/plain"] and "expected 42" in data["text/html"]


def test_what_stands_in_backticks_is_code_in_a_notebook(desk, monkeypatch):
    shown = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=lambda data, raw: shown.append(data)))
    check = desk.checks["multiply"]
    desk.checks["multiply"] = replace(check, hints=("Use `a < b` twice.\nThen `b`.",))
    desk.hint("multiply")
    (data,) = shown
    assert "Use <code>a &lt; b</code> twice.<br>Then <code>b</code>." in data["text/html"]
    assert "`a < b`" in data["text/plain"]


def run(folder, *cells):
    """The outputs of cells in a kernel of their own, one list a cell."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(book, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": folder}})
    client.execute()
    return [cell.outputs for cell in book.cells]


def test_a_cell_that_needs_an_exercise_not_yet_written_says_so_and_every_other_error_is_as_ever(small_course):
    stub = "import matplotlib.pyplot as plt\ndef multiply(numbers):\n    raise NotImplementedError('multiply')\n"
    stub += "class count_down:\n    def step(self):\n        raise NotImplementedError('count_down.step')"
    *_, drawn, method, other, error, wrong_name = run(
        small_course,
        "import atlas\nlab = atlas.open('perceptron-and-mlp')",
        stub,
        "plt.figure()\nplt.plot([1, 2])\nmultiply([2])",
        "count_down().step()",
        "def later():\n    raise NotImplementedError('later')\nlater()",
        "1 / 0",
        "atlas.open('perceptrn-and-mlp')",
    )
    (said,) = drawn  # and no figure
    assert (said.ename, said.evalue) == ("NotImplementedError", "multiply"), "an error to whatever runs the notebook"
    assert said.traceback == [
        "NotImplementedError: multiply is not written yet, and this cell needs it.",
        'Do the exercise "Multiply" first: lab.hint(multiply) helps. Or go on with the answer:',
        'multiply = lab.catch_up("multiply")',
    ]
    assert 'count_down = lab.catch_up("count_down")' in method[0].traceback
    assert "later()" in "".join(other[0].traceback) and len(other[0].traceback) > 3
    assert "ZeroDivisionError" in error[0].traceback[-1]
    assert wrong_name[0].traceback == [
        "There is no workshop 'perceptrn-and-mlp'. Did you mean 'perceptron-and-mlp'? `atlas` lists them all."
    ]


@pytest.mark.parametrize("module", ["torch", "numpy"])
def test_a_file_of_the_learners_that_hides_a_package_is_named_and_nothing_is_a_traceback(small_course, module):
    file = write(small_course / "workshops" / FIRST / f"{module}.py", "")
    checks = file.with_name("checks.py")
    checks.write_text("import torch\ntorch.nn.Linear\n" + checks.read_text())
    imported, opened = run(file.parent, "import atlas", "lab = atlas.open('perceptron-and-mlp')")
    assert f"{module}.py in this folder hides the package {module}: rename {module}.py" in imported[0].text
    (error,) = [output for output in opened if output.output_type == "error"]
    assert len(error.traceback) == 1 and str(file) in error.traceback[0]


def test_checks_that_are_not_the_kits_any_more_are_named_with_the_cure(small_course):
    (small_course / ".git").mkdir()
    file = small_course / "workshops" / FIRST / "checks.py"
    for text, why in (("x = ", "cannot be used: SyntaxError"), ("", "has no check for perceptron_step")):
        file.write_text(text)
        with pytest.raises(course.CourseError, match=f"{why}.*git restore workshops/{FIRST}/checks.py"):
            lab.open("perceptron-and-mlp")
    (small_course / ".git").rmdir()
    with pytest.raises(
        course.CourseError, match=r"download the kit once more and copy workshops/.*/checks\.py out of it"
    ):
        lab.open("perceptron-and-mlp")


def test_letters_that_a_terminal_lacks_are_others_that_say_the_same(small_course):
    program = "import atlas; lab = atlas.open('1'); lab.check(len)\nprint('✔ ✘ ○ … → é ŷ')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "+ x o ... -> e y"


def test_opening_a_workshop_imports_no_framework(small_course):
    program = (
        "import sys, atlas; lab = atlas.open('perceptron-and-mlp'); lab.hint('multiply')\n"
        "sys.exit(' '.join({'torch', 'tensorflow', 'pandas', 'matplotlib', 'IPython', 'rich'} & {*sys.modules}) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
