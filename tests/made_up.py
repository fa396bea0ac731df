"""A small made-up course in a temporary folder, for tests: two workshops of the path are there, 21 are planned."""

import json
from pathlib import Path

import pytest

FIRST, SECOND = "dl-foundations/perceptron-and-mlp", "dl-foundations/backpropagation"

WORKSHOP = """
title = "Sums and Products"
minutes = 60
summary = "You build a sum."
needs = ["Counting"]
datasets = ["mnist"]
script = "count.py"
leaves = []

[[agenda]]
title = "Talk about sums"
minutes = 20
kind = "talk"

[[agenda]]
title = "Write a sum, and after it a product that is so long in its title that it has to be wrapped somewhere"
minutes = 40
kind = "exercise"
exercises = ["perceptron_step", "multiply", "count_down"]

[[exercise]]
name = "perceptron_step"
title = "Add up"
minutes = 5

[[exercise]]
name = "multiply"
title = "Multiply"
minutes = 5
where = "notebook"

[[exercise]]
name = "count_down"
title = "Count down"
minutes = 5
where = "count.py"
"""

SECOND_WORKSHOP = """
title = "Second"
minutes = 90
summary = "You build a second."

[[agenda]]
title = "All of it"
minutes = 90
kind = "exercise"
exercises = ["double"]

[[exercise]]
name = "double"
title = "Double"
minutes = 5
"""

CHECKS = """
from atlas.checking import exercise, expect


@exercise(hints=["Sums begin at zero.", "Use sum()."])
def perceptron_step(learner, rng):
    expect.close(learner([1, 2, 4]), 7, why="adds up", source="by hand")


@exercise(hints=["Products begin at one.", "Use math.prod()."])
def multiply(learner, rng):
    expect.close(learner([2, 3, 7]), 42, why="multiplies", source="by hand")


@exercise(hints=["Ranges go down too.", "range(n, 0, -1)"])
def count_down(learner, rng):
    expect.true(list(learner(3)) == [3, 2, 1], "counts down")
"""

SOURCE = '''
# %% [markdown]
# # Sums and products

# %%
import atlas

lab = atlas.open("perceptron-and-mlp")


# %%
def perceptron_step(numbers):
    """The sum of the numbers."""
    # TODO: add them up.
    ### BEGIN SOLUTION
    return sum(numbers)
    ### END SOLUTION


# %%
def multiply(numbers):
    """The product of the numbers."""
    # TODO: multiply them.
    ### BEGIN SOLUTION
    product = 1
    for number in numbers:
        product *= number
    return product
    ### END SOLUTION
'''

SCRIPT = '''
"""Counts down."""


def count_down(n):
    """n, n - 1, ... 1"""
    # TODO: count down.
    ### BEGIN SOLUTION
    return range(n, 0, -1)
    ### END SOLUTION


if __name__ == "__main__":
    print(*count_down(3))
'''

CATALOG = """
[mnist]
title = "MNIST"
about = "A tiny dataset."
licence = "CC0-1.0"
licence_file = "LICENSE.txt"
source = "made up"
taken_from = "made up"
made = "made up"
how = "shipped"
format = "idx"
shape = [1, 1]
dtype = "uint8"
range = [0, 255]
splits = { train = 1, test = 1 }
classes = ["a"]
mean = [0.0]
std = [1.0]
files = [{ name = "tiny.bin", bytes = 5, sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" }]
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def answer(root: Path, **bodies: str) -> None:
    """Write answers as a learner would: exercise → body (one line), in the notebook or in the script."""
    for name, body in bodies.items():
        folder = root / "workshops" / FIRST
        file = folder / ("count.py" if name == "count_down" else "perceptron-and-mlp.ipynb")
        text = file.read_text(encoding="utf-8")
        stub = f'raise NotImplementedError("{name}")'
        stub, body = (json.dumps(stub)[1:-1], json.dumps(body)[1:-1]) if file.suffix == ".ipynb" else (stub, body)
        assert stub in text
        file.write_text(text.replace(stub, body), encoding="utf-8")


@pytest.fixture
def small_course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the made-up course, with ATLAS_ROOT set and the current directory there; progress is empty."""
    from atlas import course, progress, reset

    root = tmp_path / "course"
    write(root / "workshops" / FIRST / "workshop.toml", WORKSHOP)
    write(root / "workshops" / FIRST / "checks.py", CHECKS)
    write(root / "solutions" / FIRST / "perceptron-and-mlp.py", SOURCE.lstrip())
    write(root / "solutions" / FIRST / "count.py", SCRIPT.lstrip())
    write(root / "workshops" / SECOND / "workshop.toml", SECOND_WORKSHOP)
    write(root / "datasets" / "catalog.toml", CATALOG)
    write(root / "datasets" / "mnist" / "tiny.bin", "hello")
    for variable in ("ATLAS_STATE", "TERM_PROGRAM", "CODESPACES", "REMOTE_CONTAINERS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ATLAS_ROOT", str(root))
    monkeypatch.chdir(root)
    monkeypatch.setattr(progress, "_said", set())
    for path, text in reset.starters(course.load(FIRST)).items():
        write(path, text)
    return root
