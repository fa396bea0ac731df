"""A pytest plugin: what each workshop costs in seconds of computing, by kind and in all, and the kit's own tests.

Computing, not the clock: other programs may hold the cores. Each test is charged with all that its process and the
processes it started have computed since the test before it. A workshop that needs far more than its share of half an
hour makes the run fail, the last thing that is told. A run that fails on a busy machine says so, and one that is ended
by force names the tests that ran.
"""

import os
import signal
import statistics
import time
from collections import defaultdict

import pytest

from atlas import hardware
from atlas.authoring import runs, validate
from parts import workshop_of

KIT = "the kit itself"
NOISE = 1.5
"""So many times its seconds a workshop may take before the run fails, and more on a machine on which all take longer:
the same code computes longer where others use the same cores and caches (a notebook 67 s at a load of 3, 95 s at 8, on
2 cores), and the load average of a container is not its neighbours'."""

ENOUGH = 5
"""Of so many workshops the middle one tells how slow the machine is."""

LONGER = {
    "transfer-learning": 205,
    "initialization-and-activations": 175,
    "perceptron-and-mlp": 145,
    "regularization-dropout-batchnorm": 185,
    "optimization-sgd-adam": 145,
    "modern-cnns-resnet-densenet": 150,
    "rnn-lstm-gru": 150,
    "training-loops": 130,
    "sequence-to-sequence": 180,
    "attention-for-sequences": 165,
    "attention-basics": 115,
    "transformer-architecture": 155,
    "llm-overview": 180,
    "pytorch-model-export-deployment": 120,
}
"""These take longer, by what their notebooks train: seconds on a processor without AVX-512 (Zen 3, 2.45 GHz), two
thirds of them on one with it. They are told at the end of each run until they are shortened; a test that trains less
than the learner does would prove something else."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kind(name): how a test proves a workshop; a column of the table of costs")
    config.pluginmanager.register(Charge())
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Account())
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the end is told


class Charge:
    """Notes in each report what was computed for it."""

    def __init__(self):
        self._before = _computed()

    def pytest_collection_finish(self) -> None:
        self._before = _computed()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item):
        report = yield
        now = _computed()
        workshop, kind = workshop_of(item), item.get_closest_marker("kind")
        of = (workshop.name, kind.args[0] if kind else "script") if workshop else (KIT, "")
        report.user_properties.append(("computed", (*of, now - self._before)))
        self._before = now
        return report


class Account:
    """Adds up, tells, and judges; also which tests are running, should the run be ended by force."""

    def __init__(self):
        self._seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._running: dict[str, float] = {}
        self._done = 0

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        self._done += 1

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "computed":
                workshop, kind, seconds = value
                self._seconds[workshop][kind] += seconds

    def over(self) -> list[str]:
        """The workshops that computed more than their share."""
        return [name for name, seconds in self._sums().items() if seconds > runs.WORKSHOP_SECONDS]

    def too_much(self) -> list[str]:
        """Those that made the run fail: far above what they are known to take, as long as on this machine all take."""
        times = {name: seconds / LONGER.get(name, runs.WORKSHOP_SECONDS) for name, seconds in self._sums().items()}
        machine = max(1, statistics.median(times.values())) if len(times) >= ENOUGH else 1
        return [name for name, ratio in times.items() if ratio > NOISE * machine]

    def _sums(self) -> dict[str, float]:
        return {name: sum(kinds.values()) for name, kinds in self._seconds.items() if name != KIT}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self.too_much():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter, exitstatus: int) -> None:
        if any(name != KIT for name in self._seconds):
            terminalreporter.section("seconds of computing")
            terminalreporter.write(validate.cost_table(self._seconds))
        for name in self.over():
            failed = name in self.too_much()
            known = "as is known of it" if name in LONGER else "by no more than other programs or the processor may add"
            told = "and the run failed" if failed else known
            line = f"{name} is over {runs.WORKSHOP_SECONDS} s, {told}"
            terminalreporter.write_line(line, red=failed, yellow=not failed)
        load, cores = os.getloadavg()[0], hardware.cores()
        if exitstatus and load > cores + 1:
            told = f"the machine was busy: load average {load:.1f} on {cores} cores; what took long may be its fault"
            terminalreporter.write_line(told, yellow=True)
        if exitstatus == pytest.ExitCode.INTERRUPTED:
            terminalreporter.section(f"ended by force after {self._done} tests; these were running")
            for nodeid, began in self._running.items():
                terminalreporter.write_line(f"{nodeid}, for {time.monotonic() - began:.0f} s")


def _computed() -> float:
    """Seconds that this process and all that it has started have computed."""
    import psutil

    seconds = sum(os.times()[:4])
    for each in psutil.Process().children(recursive=True):
        try:
            seconds += sum(each.cpu_times()[:4])
        except psutil.Error:  # it ended meanwhile
            continue
    return seconds
