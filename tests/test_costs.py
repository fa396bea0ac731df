"""What the tests of a workshop compute is told and held to a budget; a run that fails says on what machine."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import costs
import parts
from atlas.authoring import runs
from made_up import write

CONFTEST = """
import os
import costs
from atlas.authoring import runs
pytest_plugins = ["parts", "costs"]
runs.WORKSHOP_SECONDS = {seconds}
costs.LONGER.clear()
os.getloadavg = lambda: ({load}, {load}, {load})
"""
TESTS = """
import time

def test_counting():
    assert sum(range(10**7))

def test_failing():
    assert {good}

def test_waiting():
    print("waiting", flush=True)
    time.sleep({wait})
"""


@pytest.fixture
def run(small_course):
    """Run the tests of the made-up course's script; what they wrote."""

    def start(*arguments: str, seconds=1.0, load=0.1, good=True, wait=0) -> subprocess.Popen:
        write(small_course / "conftest.py", CONFTEST.format(seconds=seconds, load=load))
        write(small_course / "test_count.py", TESTS.format(good=good, wait=wait))
        command = [sys.executable, "-m", "pytest", "-p", "no:nbmake", "-p", "no:cacheprovider", *arguments]
        path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    return start


def ended(process: subprocess.Popen) -> tuple[int, str]:
    written, _ = process.communicate(timeout=60)
    return process.returncode, written


def test_the_end_tells_what_each_workshop_cost(run):
    code, written = ended(run(seconds=100))
    assert code == 0 and "(of 100 for a workshop)" in written
    assert "perceptron-and-mlp" in written.split("seconds of computing")[1]


@pytest.mark.parametrize("how", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_a_workshop_that_computes_more_than_its_share_makes_the_run_fail(run, how):
    code, written = ended(run(*how, seconds=0.01))
    assert code == 1 and "perceptron-and-mlp is over 0.01 s, and the run failed" in written


def test_what_a_slow_machine_adds_is_told_and_does_not_fail_but_what_one_workshop_adds_does():
    def account(**times) -> costs.Account:
        made = costs.Account()
        for name, ratio in times.items():
            made._seconds[name]["proofs"] = ratio * runs.WORKSHOP_SECONDS
        made._seconds[costs.KIT][""] = 9 * runs.WORKSHOP_SECONDS
        return made

    usual = {name: 1.0 for name in "abcd"}
    assert account(**usual, e=1.4).over() == ["e"] and account(**usual, e=1.4).too_much() == []
    assert account(**usual, e=1.6).too_much() == ["e"] and account(e=1.6).too_much() == ["e"]
    slow = {name: 2.0 for name in "abcd"}
    assert account(**slow, e=2.8).too_much() == [] and account(**slow, e=3.2).too_much() == ["e"]
    fast = {name: 0.5 for name in "abcd"}
    assert account(**fast, e=1.4).too_much() == []  # a fast machine takes nobody's allowance


@pytest.mark.parametrize(("good", "load", "told"), [(False, 9.5, True), (False, 0.1, False), (True, 9.5, False)])
def test_a_run_that_fails_on_a_busy_machine_names_the_load(run, good, load, told):
    _, written = ended(run(good=good, load=load))
    assert ("the machine was busy: load average 9.5 on" in written) == told


def test_a_run_that_is_ended_by_force_says_which_test_was_running(run):
    process = run("-s", wait=60)
    assert any("waiting" in line for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    code, written = ended(process)
    assert code == 2 and time.monotonic() - began < 30
    assert "ended by force after 2 tests; these were running" in written
    assert "test_count.py::test_waiting, for " in written


def test_two_workers_share_the_work_by_what_is_prepared_together(run, small_course):
    """A file's tests are one worker's, a workshop's proofs too; a workshop's runs are for whoever is free."""
    proofs = "import pytest\n\n@pytest.mark.parametrize('n', range(3))\n@pytest.mark.parametrize('w', {})\n"
    two = ["cnn-basics-relu", "cnn-basics-pool", "attention-basics-mask"]
    write(small_course / "test_proofs.py", proofs.format(two) + "def test_it(w, n): pass")
    for name in ("one", "two", "three"):
        write(small_course / f"test_{name}.py", "def test_a(): pass\ndef test_b(): pass\ndef test_c(): pass")
    _, written = ended(run("-n", "2", "-v", seconds=100))
    workers: dict[str, set[str]] = {}
    for worker, test in re.findall(r"\[(gw\d)\].* PASSED (\S+)", written):
        workers.setdefault(parts.unit(test), set()).add(worker)
    assert {"test_one.py", "test_two.py", "test_proofs.py cnn-basics", "test_proofs.py attention-basics"} <= {*workers}
    assert all(len(by) == 1 for by in workers.values())
    assert parts.unit("tests/test_workshops.py::test_a[x]") != parts.unit("tests/test_workshops.py::test_b[x]")


def test_a_test_that_hangs_is_ended_and_named_and_the_others_run(run, small_course):
    write(
        small_course / "test_hang.py",
        "import threading\n\ndef test_it():\n    threading.Event().wait()\n\ndef test_b(): pass",
    )
    limit = ("-o", "faulthandler_timeout=2", "-o", "faulthandler_exit_on_timeout=true")
    _, written = ended(run("-n", "2", *limit, seconds=100))
    assert re.search(r"FAILED test_hang.py::test_it - worker 'gw\d' crashed", written)
    assert "1 failed, 4 passed" in written
