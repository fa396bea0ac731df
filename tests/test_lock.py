"""The locks pin and hash everything that pyproject.toml asks for, on each platform that the course offers."""

import importlib.machinery
import importlib.util
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
LOCKS = REPOSITORY / "scripts" / "locks"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
PLATFORMS = {
    "linux-x86_64": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "linux-aarch64": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    "macos-arm64": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9", "implementation_name": "cpython", "extra": ""}
CUDA = re.compile(r"nvidia-|cuda-|triton")

_loader = importlib.machinery.SourceFileLoader("lock_script", str(REPOSITORY / "scripts" / "lock"))
lock_script = importlib.util.module_from_spec(importlib.util.spec_from_loader("lock_script", _loader))
_loader.exec_module(lock_script)


def entries(lock: str, folder: Path = LOCKS) -> list[str]:
    """The lock's requirements, each with its hashes, on one line."""
    lines = [line for line in (folder / lock).read_text().splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def pins(lock: str, platform: str) -> dict[str, str]:
    """Name to version of what the lock installs on that platform."""
    pinned = {}
    for entry in entries(lock):
        requirement = Requirement(entry.split(" --hash")[0])
        if requirement.marker is None or requirement.marker.evaluate(PYTHON | PLATFORMS[platform]):
            assert requirement.name not in pinned, f"{requirement.name} is pinned twice for {platform}"
            pinned[requirement.name] = str(requirement.specifier).removeprefix("==")
    return pinned


def wanted(requirements: list[str], platform: str) -> list[Requirement]:
    parsed = map(Requirement, requirements)
    return [r for r in parsed if r.marker is None or r.marker.evaluate(PYTHON | PLATFORMS[platform])]


def unmet(requirements: list[Requirement], pinned: dict[str, str]) -> list[str]:
    return [str(r) for r in requirements if r.name not in pinned or not r.specifier.contains(pinned[r.name])]


each_lock = pytest.mark.parametrize("lock", ["cpu.txt", "cuda.txt", "cuda-tensorflow.txt"])
each_platform = pytest.mark.parametrize("platform", PLATFORMS)


@each_lock
def test_the_lock_was_made_from_the_present_pyproject(lock):
    made_from = re.search(r"^# inputs: (\w+)$", (LOCKS / lock).read_text(), re.MULTILINE)[1]
    assert made_from == lock_script.inputs(), "run: .venv/bin/python scripts/lock"


@each_platform
def test_every_dependency_is_pinned_to_a_version_that_fits(platform):
    direct = [r for r in wanted(PROJECT["dependencies"], platform) if r.name != "torch"]
    assert len(direct) > 30
    assert unmet(direct, pins("cpu.txt", platform)) == []


def test_the_cuda_lock_holds_torch_and_what_it_needs():
    pinned = pins("cuda.txt", "linux-x86_64")
    assert unmet(wanted(PROJECT["dependencies"], "linux-x86_64"), pinned) == []
    assert any(CUDA.match(name) for name in pinned)
    assert "tensorflow-cpu" in pinned and not [name for name in pinned if name.endswith("-cu12")]


def test_tensorflows_cuda_has_a_lock_of_its_own_with_the_same_tensorflow_and_no_torch():
    pinned = pins("cuda-tensorflow.txt", "linux-x86_64")
    assert pinned["tensorflow"] == pins("cuda.txt", "linux-x86_64")["tensorflow-cpu"]
    assert not {"torch", "triton", "tensorflow-cpu"} & set(pinned)
    required = {canonicalize_name(r.name) for r in wanted(metadata.requires("tensorflow-cpu"), "linux-x86_64")}
    assert required <= set(pinned)


def test_the_two_cuda_builds_are_kept_apart_because_they_bring_the_same_libraries_in_two_versions():
    def libraries(lock: str, suffix: str) -> set[str]:
        return {name.removesuffix(suffix) for name in pins(lock, "linux-x86_64") if name.endswith(suffix)}

    twice = libraries("cuda.txt", "-cu13") & libraries("cuda-tensorflow.txt", "-cu12")
    assert twice >= {"nvidia-cudnn", "nvidia-nccl"}, "no longer: one environment may hold both then"


@each_platform
def test_the_cpu_lock_holds_neither_torch_nor_cuda(platform):
    assert [name for name in pins("cpu.txt", platform) if name == "torch" or CUDA.match(name)] == []


@each_platform
def test_what_torch_requires_is_in_the_lock_although_torch_is_not(platform):
    required = [r for r in wanted(metadata.requires("torch"), platform) if not CUDA.match(r.name)]
    assert len(required) >= 5
    assert unmet(required, pins("cpu.txt", platform)) == []


def test_torch_is_pinned_exactly_and_installed_in_that_version():
    assert f"torch=={metadata.version('torch').split('+')[0]}" in PROJECT["dependencies"]


@each_lock
def test_every_entry_is_one_exact_version_with_hashes(lock):
    wrong = [
        e for e in entries(lock) if not re.fullmatch(r"[\w.-]+==[^\s*]+( ; .+?)?( +--hash=sha256:[0-9a-f]{64})+", e)
    ]
    assert wrong == []


@each_lock
def test_no_address_host_or_path_stands_in_a_lock(lock):
    assert not re.search(r"://|index|find-links|\.org|\.com|/\w", (LOCKS / lock).read_text().split("\n", 1)[1])


@each_lock
def test_the_present_index_still_resolves_to_the_lock(lock, tmp_path):
    (tmp_path / lock).write_text((LOCKS / lock).read_text())
    try:
        lock_script.write(lock, tmp_path)
    except lock_script.subprocess.CalledProcessError as failed:
        if re.search(r"error sending request|dns error|Could not connect|network", str(failed.stderr)):
            pytest.skip("no package index answers")
        raise AssertionError(failed.stderr) from None
    resolved, kept = ({e.split(" --hash")[0].strip() for e in entries(lock, folder)} for folder in (tmp_path, LOCKS))
    assert resolved == kept, "run: .venv/bin/python scripts/lock"  # hashes may differ: files are added to old releases
