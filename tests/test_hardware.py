"""The device, the threads and the seeds: found out quietly, and said in words that help."""

import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from atlas import hardware


@pytest.fixture(autouse=True)
def _a_machine_of_its_own(monkeypatch, tmp_path):
    """No variables from outside, no cgroup, no driver, nothing remembered; torch's threads as before."""
    monkeypatch.delenv("ATLAS_DEVICE", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "DRIVERS", (tmp_path / "nvidiactl",))
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    hardware._trouble.cache_clear()
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    hardware._trouble.cache_clear()


def limit(files):
    for name, content in files.items():
        file = hardware.CGROUP / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 16),
        ({"cpu.max": "max 100000\n"}, 16),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "nonsense"}, 16),
    ],
)
def test_threads_are_the_cores_that_the_container_may_use(files, cores):
    limit(files)
    assert hardware.threads() == cores


def test_threads_are_the_cores_that_affinity_allows(monkeypatch):
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda pid: {3, 7, 9}, raising=False)
    assert hardware.threads() == 3


@pytest.mark.parametrize(("asked", "cores"), [("3", 3), ("5,2", 5), ("", 16), ("all", 16), ("0", 16)])
def test_omp_num_threads_has_the_last_word(monkeypatch, asked, cores):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert hardware.threads() == cores


def test_device_sets_torchs_threads():
    limit({"cpu.max": "100000 100000"})
    hardware.device()
    assert torch.get_num_threads() == 1


def test_device_is_the_cpu_and_silent_where_a_cuda_build_finds_no_driver(monkeypatch, capfd):
    def no_driver():
        warnings.warn("CUDA initialization: Found no NVIDIA driver on your system.", stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", no_driver)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hardware.device() == torch.device("cpu")
    assert capfd.readouterr() == ("", "")


def test_a_gpu_that_is_there_but_does_not_compute_is_not_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # this build of torch still can't compute on it
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert hardware.device() == torch.device("cpu")


@pytest.mark.parametrize("working", ["cuda", "mps"])
def test_a_gpu_that_computes_is_chosen(monkeypatch, working):
    monkeypatch.setattr(hardware, "_trouble", pretend({"cpu", working}))
    assert hardware.device() == torch.device(working)


def test_cuda_comes_before_mps(monkeypatch):
    monkeypatch.setattr(hardware, "_trouble", pretend({"cpu", "cuda", "mps"}))
    assert hardware.device() == torch.device("cuda")


def pretend(working):
    """A stand-in for hardware._trouble on a machine with these devices."""
    trouble = lambda name: "" if name.split(":")[0] in working else "not there"  # noqa: E731
    trouble.cache_clear = lambda: None
    return trouble


def test_atlas_device_overrides_and_an_argument_overrides_that(monkeypatch):
    monkeypatch.setattr(hardware, "_trouble", pretend({"cpu", "cuda", "mps"}))
    monkeypatch.setenv("ATLAS_DEVICE", "cpu")
    assert hardware.device() == torch.device("cpu")
    assert hardware.device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda", "cuda:x", "mps", "gpu", "xpu"])
def test_a_device_that_does_not_work_is_refused_with_those_that_do(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("ATLAS_DEVICE", name)
    with pytest.raises(
        ValueError, match=rf"(?s)ATLAS_DEVICE is '{name}'.*choose cpu, or `unset ATLAS_DEVICE`"
    ) as refused:
        hardware.device()
    assert len(str(refused.value).splitlines()[0]) < 120, "torch's own message lists twenty kinds of device"
    assert hardware.describe() == f"{name} (ATLAS_DEVICE; does not work here), 16 cores"


def test_the_machine_in_a_few_words(monkeypatch):
    monkeypatch.setattr(hardware, "_trouble", pretend({"cpu"}))
    assert hardware.describe() == "CPU, 16 cores"
    limit({"cpu.max": "100000 100000"})
    assert hardware.describe() == "CPU, 1 core"


@pytest.mark.parametrize(
    ("build", "driver", "says"),
    [("2.13.0", True, "NVIDIA GPU"), ("2.13.0+cpu", True, "CPU"), ("2.13.0", False, "CPU")],
)
def test_before_torch_is_loaded_a_gpu_is_guessed_from_driver_and_build(monkeypatch, tmp_path, build, driver, says):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(hardware.importlib.metadata, "version", lambda package: build)
    if driver:
        (tmp_path / "nvidiactl").touch()
    assert hardware.describe() == f"{says}, 16 cores"
    assert "torch" not in sys.modules


def test_neither_the_banner_nor_a_seed_imports_a_framework():
    code = (
        "import sys; from atlas import hardware; hardware.describe(); hardware.seed(1);"
        "sys.exit(any(m in sys.modules for m in ('torch', 'tensorflow')))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ATLAS_DEVICE"}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    def draw(n):
        assert hardware.seed(n) is None
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    first, again, other = draw(3), draw(3), draw(4)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_tensorflow_is_seeded_where_it_is_loaded(monkeypatch):
    seeds = []

    class Random:
        set_seed = staticmethod(seeds.append)

    class TensorFlow:
        random = Random

    monkeypatch.setitem(sys.modules, "tensorflow", TensorFlow)
    hardware.seed(7)
    assert seeds == [7]
