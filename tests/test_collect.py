"""The command line sees what a notebook's kernel sees, without running what an exercise does not need."""

import inspect
import json
import os
import sys
import time
from pathlib import Path

import nbformat
import pytest

from atlas import checking, collect, course, lab
from atlas.course import CourseError
from made_up import FIRST, answer, write


def notebook(path: Path, *cells: str) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


@pytest.fixture
def of(tmp_path):
    """What is collected from a script with this text."""

    def collected(text: str, *names: str) -> collect.Definitions:
        return collect.collect(write(tmp_path / "train.py", text), names or ["f"])

    return collected


# ---------------------------------------------------------------------------------------------- what is found


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("SIDE: int = 28\nINPUTS = SIDE * SIDE\ndef f(): return INPUTS", 784),
        ("import math\nROOT = math.sqrt(16)\ndef f(): return ROOT", 4),
        ("def f(): return g()\ng = lambda: LATER\nLATER = max(3, 4)", 4),
        ("f = lambda: 7", 7),
        ("from functools import partial\nf = partial(max, 3, 4)", 4),
        ("def f(): raise NotImplementedError('f')\nf = lambda: 7", 7),
        ("squares = [n * n for n in range(4)]\ndef f(): return sum(squares)", 14),
        ("table = {}\nfor n in range(3):\n    table[n] = n + 1\ndef f(): return table[2]", 3),
        ("cache = []\ncache.append(5)\ndef f(): return cache[0]", 5),
        ("total = 0\nfor n in range(4):\n    total += n\ndef f(): return total", 6),
        ("if True:\n    WIDTH = 3\nelse:\n    WIDTH = 4\ndef f(): return WIDTH", 3),
        ("try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\ndef f(): return nowhere", None),
        ("with open(__file__) as file:\n    first = file.readline()\ndef f(): return first[:4]", "with"),
        ("if (n := 5) > 4: pass\ndef f(): return n", 5),
        ("n = 0\ndef begin():\n    global n\n    n = 9\nbegin()\ndef f(): return n", 9),
        ("count = 0\ndef f():\n    global count\n    count += 1\n    return count", 1),
        ("class Value:\n    pass\nValue.__abs__ = lambda self: 8\ndef f(): return abs(Value())", 8),
        ("class Value:\n    pass\nsetattr(Value, 'data', 2)\ndef f(): return Value.data", 2),
        ("def twice(g): return lambda: 2 * g()\n@twice\ndef f(): return 4", 8),
        ("def f(): return 4\ndef twice(g): return lambda: 2 * g()\nf = twice(f)", 8),
        ("from math import *\ndef f(): return floor(2.5)", 2),
        ("match (1, 2):\n    case (a, b):\n        pass\ndef f(): return b", 2),
        ("def f(): return 1\ndef f(): return INPUTS + 1\nINPUTS = 1", 2),
    ],
)
def test_what_an_exercise_reads_is_there_however_it_was_made(of, text, result):
    found = of(text)
    assert found["f"]() == result
    assert found.problems == []


def test_nothing_that_is_not_needed_is_run(of, tmp_path, capsys):
    found = of(
        "import nowhere\n"
        "print('never')\n"
        "raise SystemExit\n"
        "while True: pass\n"
        f"open({str(tmp_path / 'was-run')!r}, 'w')\n"
        "history = [1 / 0 for epoch in range(10)]\n"
        "def f(x): return x\n"
        "f(1 / 0)\n"
        "for f in []: 1 / 0\n"
        "f = f(1 / 0)\n"
        "if __name__ == '__main__': print('never')\n"
    )
    assert found["f"](3) == 3
    assert found.problems == [] and not (tmp_path / "was-run").exists() and capsys.readouterr().out == ""


def test_a_function_that_a_later_line_replaces_by_a_number_stays_a_function(of):
    assert of("def f(): return 1\nvalue = 3\nf = value\n")["f"]() == 1


def test_what_a_needed_line_prints_is_not_shown(of, capsys):
    assert of("def noisy():\n    print('loud')\n    return 1\nN = noisy()\ndef f(): return N")["f"]() == 1
    assert capsys.readouterr().out == ""


def test_decorators_dataclasses_and_annotations_of_the_future_work(of):
    found = of(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from functools import cache\n"
        "from typing import TYPE_CHECKING, ClassVar\n"
        "if TYPE_CHECKING:\n    from nowhere import Tensor\n"
        "@dataclass\nclass Point:\n    x: int\n    kind: ClassVar[str] = 'p'\n"
        "@cache\ndef origin(at: Tensor = 0) -> Point: return Point(at)\n",
        "origin",
    )
    assert found["origin"]().x == 0
    assert inspect.getsource(found["Point"]).startswith("@dataclass")
    assert found.problems == []


# ---------------------------------------------------------------------------------------------- beside the file


def test_a_module_beside_the_notebook_and_what_lies_in_its_folder_are_seen(tmp_path):
    write(tmp_path / "my_neuron.py", "def neuron(x): return 2 * x\n")
    write(tmp_path / "my_layers" / "__init__.py", "from my_neuron import neuron\n")
    write(tmp_path / "weights.txt", "5")
    text = "from my_layers import neuron\nW = int(open('weights.txt').read())\ndef f():\n    import my_neuron\n"
    file = notebook(tmp_path / "n.ipynb", text + "    return my_neuron.neuron(W)")
    before = os.getcwd(), list(sys.path), set(sys.modules)
    with collect.beside(tmp_path):
        assert collect.collect(file, ["f"])["f"]() == 10
    assert (os.getcwd(), sys.path) == before[:2]
    assert not {"my_neuron", "my_layers"} & set(sys.modules)


def test_two_workshops_may_each_have_a_module_of_the_same_name(tmp_path):
    for number in (1, 2):
        folder = write(tmp_path / str(number) / "helper.py", f"N = {number}\n").parent
        write(folder / "lib" / "deeper.py", f"N = {number}\n")
        text = "import sys\nsys.path.append('lib')\nimport helper, deeper\ndef f(): return helper.N + deeper.N"
        with collect.beside(folder):
            assert collect.collect(notebook(folder / "n.ipynb", text), ["f"])["f"]() == 2 * number
    assert "helper" not in sys.modules and "deeper" not in sys.modules


def test_catching_up_in_the_notebook_counts_in_the_terminal_too(small_course):
    file = small_course / "workshops" / FIRST / "perceptron-and-mlp.ipynb"
    cells = nbformat.read(file, 4)
    cells.cells.append(nbformat.v4.new_code_cell('multiply = lab.catch_up("multiply")\nlab.check(1 / 0)'))
    nbformat.write(cells, file)
    found = collect.collect(file, ["multiply"])
    assert found["multiply"]([2, 5]) == 10 and found.problems == []


# ---------------------------------------------------------------------------------------------- what is left out


def test_what_fails_is_left_out_and_named_with_its_line_and_the_rest_is_there(of):
    found = of("base = undefined\nclass Mine(base): pass\ndef f(): return 1\n", "f", "Mine")
    assert found["f"]() == 1 and "Mine" not in found
    assert found.problems == [
        "train.py, line 1: base is left out: NameError: name 'undefined' is not defined",
        "train.py, line 2: Mine is left out: NameError: name 'base' is not defined",
    ]


SWALLOWING = "try:\n    while True: n = 1\nexcept BaseException:\n    while True: n = 2"


@pytest.mark.parametrize(
    "endless", ["while True: n = 1", "n = [1 for _ in iter(int, 1)]", "import time\nn = time.sleep(9)", SWALLOWING]
)
def test_what_takes_too_long_is_ended_and_named(of, monkeypatch, endless):
    monkeypatch.setattr(collect, "SECONDS", 0.2)
    began = time.monotonic()
    found = of(f"{endless}\ndef f(): return n\ndef g(): return 2", "f", "g")
    assert time.monotonic() - began < 5
    assert found["g"]() == 2
    (problem,) = found.problems
    assert "n is left out: it takes over 0.2 s" in problem


def test_a_constant_that_needs_an_exercise_not_yet_written_says_which(of):
    found = of("def g(): raise NotImplementedError('g')\nN = g()\ndef f(): return N")
    assert found.problems == ["train.py, line 2: N is left out: it needs g, which is not written yet"]


def test_what_only_a_program_sets_is_named_with_the_line(of):
    found = of("if __name__ == '__main__':\n    rate = 0.1\ndef f(): return rate\n")
    assert found.problems == ["train.py, line 1: rate is left out: it is set only in a part that was not run"]


def test_a_module_that_is_nowhere_is_named_and_hides_no_other_exercise(of):
    found = of("import math\nimport nowhere\ndef f(): return nowhere.x\ndef g(): return math.pi", "f", "g")
    assert found["g"]() > 3
    (problem,) = found.problems
    assert problem.startswith("train.py, line 2: nowhere is left out: No module named 'nowhere'. It is neither beside")


def test_an_exit_at_the_top_of_a_file_is_no_exit_of_the_check(of):
    assert "n is left out: SystemExit" in of("n = exit()\ndef f(): return n").problems[0]


# ---------------------------------------------------------------------------------------------- notebooks


def test_a_notebooks_magics_await_and_other_languages_are_no_obstacle(tmp_path):
    file = notebook(
        tmp_path / "n.ipynb",
        "%matplotlib inline\n!pip list \\\n  --quiet\nfiles = !ls\n%timeit 1 + 1\nx = %time 3\ndef a(): return 1",
        "%%time\n\ndef b(): return 2",
        "%%bash\nwhile true; do",
        "await something()\ny = await other()\nprint?\ndef c():\n    %time\n    return 3",
        "async def four(): return 4\nz = await four()\ndef d():\n    display(z)\n    return z",
        "def e(): return x",
    )
    found = collect.collect(file, "abcde")
    assert [found[name]() for name in "abd"] == [1, 2, 4] and "c" in found
    assert found.problems == ["n.ipynb, code cell 1, line 5: x is left out: only a notebook can run its magic (%...)"]


def test_a_notebooks_source_may_await_between_its_cells_and_a_script_may_not(tmp_path):
    file, code = tmp_path / "source.py", "async def two(): return 2\nx = await two()\ndef a(): return x\n"
    file.write_text(f"# %% [markdown]\n# Text\n\n# %%\n{code}")
    assert collect.collect(file, ["a"])["a"]() == 2
    file.write_text(code)
    with pytest.raises(course.CourseError, match="line 2: 'await' outside function"):
        collect.collect(file, ["a"])


def test_what_another_file_would_bring_by_magic_is_named(tmp_path):
    file = notebook(tmp_path / "n.ipynb", "%run helpers.py", "def a(): return helper()")
    assert collect.collect(file, ["a"]).problems == [
        "n.ipynb, code cell 1, line 1: helper is left out: only a notebook can run its magic (%...). "
        "Import its file instead"
    ]


def test_a_syntax_error_hides_one_cell_of_a_notebook_and_is_named(tmp_path):
    file = notebook(tmp_path / "n.ipynb", "def a(): return 1", "def b(:\n  1", "def c(): return 3", "return 4")
    found = collect.collect(file, "ac")
    assert found["a"]() == 1 and found["c"]() == 3
    first, second = found.problems
    assert first.startswith("n.ipynb, code cell 2, line 1: ") and "def b(:" in first
    assert second.startswith("n.ipynb, code cell 4, line 1: 'return' outside function")


def test_a_syntax_error_in_a_script_names_the_line(of):
    with pytest.raises(CourseError, match=r"train.py, line 2: .*def b\(:"):
        of("def a(): return 1\ndef b(:\n")


@pytest.mark.parametrize("text", ["", "no notebook", "[]", json.dumps({"cells": 3})])
def test_a_damaged_notebook_names_the_command_that_replaces_it(tmp_path, text):
    with pytest.raises(CourseError, match="atlas reset n"):
        collect.collect(write(tmp_path / "n.ipynb", text), ["f"])


def test_a_message_names_the_line_in_the_cell_of_the_notebook(small_course):
    answer(small_course, multiply="product = 1\n    return product / 0")
    found = collect.collect(small_course / "workshops" / FIRST / "perceptron-and-mlp.ipynb", ["multiply"])
    said = checking.run_check(lab.Lab(course.find("perceptron")).checks["multiply"], found["multiply"]).text()
    assert "of perceptron-and-mlp.ipynb, code cell 3, in multiply:  return product / 0" in said


# ---------------------------------------------------------------------------------------------- encodings

ACCENT = "NAME = 'Zoé'  # größer\ndef f(): return NAME\n"


@pytest.mark.parametrize(
    "data",
    [
        ACCENT.encode(),
        ACCENT.encode("utf-8-sig"),
        ("# -*- coding: latin-1 -*-\n" + ACCENT).encode("latin-1"),
        ACCENT.replace("\n", "\r\n").encode(),
    ],
)
def test_a_script_is_read_as_python_reads_it(tmp_path, data):
    (tmp_path / "train.py").write_bytes(data)
    assert collect.collect(tmp_path / "train.py", ["f"])["f"]() == "Zoé"


@pytest.mark.parametrize("name", ["train.py", "n.ipynb"])
@pytest.mark.parametrize(("encoding", "said"), [("latin-1", "iconv -f cp1252"), ("utf-16", "iconv -f utf-16")])
def test_a_file_in_another_encoding_is_told_with_the_way_back_and_not_touched(tmp_path, name, encoding, said):
    file = notebook(tmp_path / name, ACCENT) if name == "n.ipynb" else write(tmp_path / name, ACCENT)
    data = file.read_text(encoding="utf-8").encode(encoding)
    file.write_bytes(data)
    with pytest.raises(CourseError, match="Nothing of it is lost") as told:
        collect.collect(file, ["f"])
    assert said in str(told.value) and "Save with Encoding" in str(told.value) and "reset" not in str(told.value)
    assert file.read_bytes() == data


# ---------------------------------------------------------------------------------------------- definitions


def test_a_definition_is_shown_with_its_decorators_and_the_last_one_counts(tmp_path):
    file = write(tmp_path / "t.py", "def f(): return 0\n\n@first\n@second(\n  1)\ndef f():\n    return 1\n\nprint(f)\n")
    assert collect.definition(file, "f") == "@first\n@second(\n  1)\ndef f():\n    return 1"
    with pytest.raises(CourseError, match="defines no g"):
        collect.definition(file, "g")


@pytest.mark.parametrize(
    "workshop", [each for each in course.workshops() if not each.planned], ids=lambda each: each.name
)
def test_every_exercise_of_the_course_is_found_without_running_anything_long(workshop, monkeypatch):
    monkeypatch.setattr(collect, "SECONDS", 2.0)
    for folder, book in (
        (workshop.solution_folder, workshop.source.name),
        (workshop.solution_folder, workshop.notebook.name),
        (workshop.folder, workshop.notebook.name),
    ):
        for where in {exercise.where for exercise in workshop.exercises}:
            names = [exercise.name for exercise in workshop.exercises if exercise.where == where]
            found = collect.collect(folder / (book if where == "notebook" else where), names)
            assert found.problems == []
            assert set(names) <= set(found)
