"""scripts/bench measures what the README reports. That it runs and measures everything is tested; how fast, never."""

import os
import subprocess
import sys

import pytest

from atlas import course

BENCH = course.root() / "scripts" / "bench"
MEASURED = [
    "import atlas",
    "import torch",
    "import tensorflow",
    "the first plot, with matplotlib's import",
    "the next plot",
    "atlas",
    "atlas --help",
    "batches sliced from a tensor, as the workshop does",
    "DataLoader with a transform for each image, 0 workers",
    "DataLoader with a transform for each image, 2 workers",
    "keras.fit",
]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    environment = os.environ | {"ATLAS_STATE": str(state), "COLUMNS": "80"}
    run = subprocess.run(
        [sys.executable, BENCH, "--quick"], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr
    assert not list(state.iterdir()), "a benchmark must not count as a learner's progress"
    return run


def rows(text):
    """The tables' rows: what was measured, and its numbers."""
    cells = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in text.splitlines() if "|" in line]
    return {what: numbers for what, *numbers in cells if numbers and numbers[0][:1].isdigit()}


def test_everything_is_measured(printed):
    measured = rows(printed.stdout)
    assert set(MEASURED) <= set(measured)
    assert all(float(seconds) > 0 for seconds, *_ in measured.values())


def test_ratios_are_to_the_workshops_way_and_every_way_learns(printed):
    first, *others = [numbers for numbers in rows(printed.stdout).values() if len(numbers) == 3]
    assert first[1] == "1.0" and len(others) == 3
    for seconds, ratio, accuracy in [first, *others]:
        assert float(ratio) == pytest.approx(float(seconds) / float(first[0]), rel=0.02, abs=0.06)
        assert float(accuracy.rstrip("%")) > 60, "10 % is chance; after 3,000 images it is over 80 %"


def test_the_checks_are_measured_over_the_learners_own_code_median_and_worst(printed):
    exercises = [
        exercise.name for workshop in course.workshops() if not workshop.planned for exercise in workshop.exercises
    ]
    measured = rows(printed.stdout)
    median = float(measured[f"lab.check, again: median of {len(exercises)} exercises"][0])
    (worst,) = (row for row in measured if row.startswith("lab.check, again: the worst, "))
    assert worst.rpartition(" ")[2] in exercises
    assert 0 < median <= float(measured[worst][0])


def test_the_machine_is_described_and_nothing_else_is_printed(printed):
    machine = printed.stdout.splitlines()[0]
    for word in ("cores", "GB", "load", "Python 3.11", "torch 2", "tensorflow", "numpy"):
        assert word in machine
    assert printed.stderr == "", "TensorFlow's noise is kept away"


def test_help_says_what_it_does():
    run = subprocess.run([sys.executable, BENCH, "--help"], capture_output=True, text=True, check=True)
    assert "--quick" in run.stdout and "one machine, one run" in run.stdout
