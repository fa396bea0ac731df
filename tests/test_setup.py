"""scripts/setup on a made-up machine: the scripts are the real ones, the environment's Python is a stand-in."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pip
import pytest

import environment

REPOSITORY = Path(__file__).parents[1]
CPU_WHEEL = {
    "download_info": {"url": "file:///torch-2.13.0%2Bcpu-any.whl", "archive_info": {"hashes": {"sha256": "5e" * 32}}},
    "metadata": {"version": "2.13.0+cpu", "requires_dist": ["filelock", 'nvidia-nccl; platform_system == "Plan9"']},
}
CUDA_WHEEL = {
    "download_info": {"url": "https://index.example/torch-2.13.0.whl", "archive_info": {"hashes": {"sha256": "bad"}}},
    "metadata": {"version": "2.13.0", "requires_dist": ["filelock", "nvidia-nccl-cu13==2.29.7", "triton==3.7.1"]},
}
FAKE_PYTHON = """\
#!{python} -IS
import json, pathlib, sys, time
here = pathlib.Path({folder!r})
command = " ".join(sys.argv[1:])
if "-c" in sys.argv:
    print({venv!r}, 3, 11)
    sys.exit()
with (here / "calls").open("a") as calls:
    calls.write(command + "\\n")
behaviour = json.loads((here / "behaviour.json").read_text())
for word, (seconds, output, code) in behaviour["commands"].items():
    if word in command:
        print(output)
        time.sleep(seconds)
        sys.exit(code)
if "--report" in sys.argv:
    report = pathlib.Path(sys.argv[sys.argv.index("--report") + 1])
    report.write_text(json.dumps({{"install": [behaviour["torch"]]}}))
"""


class Machine:
    """A checkout as an image's first layer has it, and an environment whose python only notes what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.venv = folder, folder / "checkout", folder / "a venv"
        for name in ("pyproject.toml", "scripts/setup", "scripts/environment.py", "scripts/locks", "scripts/atlas"):
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, target)
        self.packages = self.venv / "lib" / "python3.11" / "site-packages"
        self.packages.mkdir(parents=True)
        (self.packages / "pip").symlink_to(Path(pip.__file__).parent)
        (self.venv / "bin").mkdir()
        (self.venv / "pyvenv.cfg").touch()
        (self.venv / "bin" / "pip").write_text(f"#!{self.venv}/bin/python")
        python = self.venv / "bin" / "python"
        python.write_text(FAKE_PYTHON.format(python=sys.executable, folder=str(folder), venv=str(self.venv)))
        python.chmod(0o755)
        self.behaves()

    def behaves(self, torch: dict = CPU_WHEEL, **commands: tuple[float, str, int]) -> None:
        """What pip finds as torch; and for commands that contain a word: seconds, output and exit code."""
        (self.folder / "behaviour.json").write_text(json.dumps({"torch": torch, "commands": commands}))

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen(
            [self.root / "scripts" / "setup", *arguments],
            env=os.environ | {"ATLAS_VENV": str(self.venv)} | variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def set_up(self, *arguments: str, **variables: str) -> tuple[int, str]:
        process = self.start(*arguments, **variables)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def calls(self, word: str = "") -> list[str]:
        file = self.folder / "calls"
        return [line for line in file.read_text().splitlines() if word in line] if file.exists() else []

    def wait_for_call(self, word: str) -> None:
        for _ in range(200):
            if self.calls(word):
                return
            time.sleep(0.05)
        raise AssertionError(f"no call with {word!r}: {self.calls()}")


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.fixture
def here(machine, monkeypatch):
    """The module itself, at work on the made-up machine."""
    places = {"ROOT": machine.root, "VENV": machine.venv, "STATE": machine.venv / ".setup"}
    places |= {"PYTHON": machine.venv / "bin" / "python", "LOG": machine.root / ".atlas" / "setup.log"}
    for name, place in places.items():
        monkeypatch.setattr(environment, name, place)
    return environment


def test_it_names_each_step_and_says_what_to_type_next(machine):
    code, output = machine.set_up()
    assert code == 0
    for step in ("pip", "PyTorch, CPU build", "from the lock", "compiling", "own package", "Jupyter kernel"):
        assert step in output
    assert output.strip().splitlines()[-1].endswith("Type: scripts/start")


def test_torch_comes_first_then_the_whole_lock_by_hash_and_without_dependencies(machine):
    machine.set_up()
    installs = [call for call in machine.calls("--require-hashes")]
    assert [call.split(" -r ")[1].split(".txt")[0].rsplit("/")[-1] for call in installs] == ["pip", "torch", "cpu"]
    assert all("--no-deps" in call for call in installs)
    assert not any("--index-url" in call for call in installs), (
        "a wheel from elsewhere: nobody waits for that index again"
    )


def test_a_second_call_does_nothing_and_costs_less_than_a_second_of_computing(machine):
    machine.set_up()
    before = machine.calls()
    begin = os.times()
    code, output = machine.set_up()
    end = os.times()
    assert end.children_user + end.children_system - begin.children_user - begin.children_system < 1
    assert (code, output) == (0, "Ready. Type: scripts/start\n")
    assert machine.calls() == before


def test_a_new_lock_installs_packages_again_and_torch_not(machine):
    machine.set_up()
    lock = machine.root / "scripts" / "locks" / "cpu.txt"
    lock.write_text(lock.read_text() + "# newer\n")
    machine.set_up()
    assert len(machine.calls("cpu.txt")) == 2
    assert len(machine.calls("torch.txt")) == 1


def test_killed_in_the_middle_it_goes_on_there_and_forgets_what_pip_left_half_installed(machine):
    machine.behaves(**{"cpu.txt": (60, "installing", 0)})
    process = machine.start()
    machine.wait_for_call("cpu.txt")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    half, whole = machine.packages / "half-1.0.dist-info", machine.packages / "whole-1.0.dist-info"
    for info in (half, whole):
        info.mkdir()
    (whole / "INSTALLER").write_text("pip")
    (machine.packages / "~umpy").mkdir()

    machine.behaves()
    code, _ = machine.set_up()
    assert code == 0
    assert len(machine.calls("torch.txt")) == 1
    assert len(machine.calls("cpu.txt")) == 2
    assert [path.name for path in machine.packages.glob("*info")] == [whole.name]
    assert not list(machine.packages.glob("~*"))


def test_of_two_set_ups_at_once_one_works_and_the_other_waits(machine):
    machine.behaves(**{"cpu.txt": (1, "", 0)})
    first = machine.start()
    machine.wait_for_call("cpu.txt")
    code, output = machine.set_up()
    assert first.wait() == code == 0
    assert "waiting" in output
    assert len(machine.calls("cpu.txt")) == 1


def test_a_cuda_build_by_accident_is_refused_before_anything_is_downloaded(machine):
    machine.behaves(torch=CUDA_WHEEL)
    code, output = machine.set_up()
    assert code == 1
    assert "CUDA" in output and "nvidia-nccl-cu13" in output and "--accelerator cuda" in output
    assert not machine.calls("torch.txt")
    assert all("--dry-run" in call for call in machine.calls("torch=="))


def test_asked_for_cuda_it_takes_the_other_lock_and_remembers(here, monkeypatch):
    monkeypatch.setattr(here.sys, "platform", "linux")
    monkeypatch.setattr(here.platform, "machine", lambda: "x86_64")
    here.STATE.mkdir()
    here.choose_accelerator("cuda")
    here.choose_accelerator(None)
    assert here.lock().name == "cuda.txt"
    assert "torch" not in [step.name for step in here.steps()]


def test_a_changed_accelerator_never_leaves_two_builds_of_torch(machine, here, monkeypatch):
    monkeypatch.setattr(here.sys, "platform", "linux")
    monkeypatch.setattr(here.platform, "machine", lambda: "x86_64")
    machine.set_up()
    (machine.packages / "torch").mkdir()
    here.choose_accelerator("cpu")
    assert (machine.packages / "torch").exists()
    here.choose_accelerator("cuda")
    assert not machine.packages.exists()


def test_when_the_cpu_index_is_silent_torch_comes_from_where_pip_is_told_to_look(machine):
    machine.behaves(**{"--index-url": (0, "NewConnectionError", 1)})
    code, _ = machine.set_up()
    assert code == 0
    assert "--index-url" not in machine.calls("torch.txt")[0]


def test_a_wheel_that_the_cpu_index_has_is_taken_from_there(machine):
    wheel = json.loads(json.dumps(CPU_WHEEL))
    wheel["download_info"]["url"] = f"{environment.CPU_INDEX}/torch-2.13.0%2Bcpu-any.whl"
    machine.behaves(torch=wheel)
    machine.set_up()
    assert f"--index-url {environment.CPU_INDEX}" in machine.calls("torch.txt")[0]


def test_a_known_wheel_with_another_hash_is_not_installed(machine):
    (machine.root / "scripts/locks/torch-cpu.sha256").write_text("0" * 64 + "  torch-2.13.0+cpu-any.whl\n")
    code, output = machine.set_up()
    assert code == 1 and "SHA-256" in output
    assert not machine.calls("torch.txt")


@pytest.mark.parametrize(
    ("printed", "cure"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("Retrying (Retry(total=0)) after NewConnectionError('Temporary failure in name resolution')", "network"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "not the one that the lock names"),
        ("ERROR: something new", "rm -rf"),
    ],
)
def test_a_failed_step_shows_what_pip_said_and_what_to_do(machine, printed, cure):
    machine.behaves(**{"cpu.txt": (0, printed, 1)})
    code, output = machine.set_up()
    assert code == 1
    assert printed in output and cure in output and "call the same command again" in output.lower().replace("\n", " ")
    assert "Traceback" not in output
    assert printed in (machine.root / ".atlas" / "setup.log").read_text()


def test_the_environment_alone_needs_no_course(machine):
    code, output = machine.set_up("--only", "environment")
    assert code == 0 and "environment is ready" in output
    assert not machine.calls("-e ")
    machine.set_up()
    assert len(machine.calls("-e ")) == 1
    assert len(machine.calls("cpu.txt")) == 1


def test_the_data_is_verified_when_it_changed(machine):
    (machine.root / "datasets").mkdir()
    (machine.root / "datasets" / "catalog.toml").touch()
    atlas = machine.venv / "bin" / "atlas"
    atlas.symlink_to(machine.venv / "bin" / "python")
    machine.set_up()
    machine.set_up()
    assert machine.calls("data verify") == ["data verify"]
    (machine.root / "datasets" / "digits.gz").write_text("damaged")
    machine.behaves(**{"data verify": (0, "digits.gz: wrong checksum", 1)})
    code, output = machine.set_up()
    assert code == 1
    assert "digits.gz: wrong checksum" in output and "git checkout -- datasets" in output


def test_without_python_3_11_it_says_how_to_get_it(machine, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "cat"):
        (tools / name).symlink_to(shutil.which(name))
    python = tools / "python3"
    python.write_text("#!/bin/sh\n[ $1 = --version ] && echo Python 3.13.2\nexit 1\n")
    python.chmod(0o755)
    code, output = machine.set_up(PATH=str(tools))
    assert code == 1
    assert "Python 3.13.2" in output and "apt install python3.11" in output


def test_a_python3_of_the_right_version_will_do_where_python3_11_is_an_empty_shim(machine, tmp_path):
    shim = tmp_path / "tools" / "python3.11"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho command not found >&2\nexit 127\n")
    shim.chmod(0o755)
    (shim.parent / "python3").symlink_to(sys.executable)
    code, _ = machine.set_up("--check", PATH=f"{shim.parent}:{os.environ['PATH']}")
    assert code == 0


def test_check_only_looks(machine):
    code, output = machine.set_up("--check")
    assert code == 0 and "Python 3.11" in output and "disk" in output and "memory" in output
    assert not machine.calls()


def test_too_little_disk_stops_with_the_figures(here, monkeypatch):
    monkeypatch.setattr(here, "free_gb", lambda folder: 1.5)
    with pytest.raises(here.Stop, match=r"1.5 GB are free .* needs 5.0 GB(.|\n)*pip cache purge"):
        here.check_disk(5.0)


@pytest.mark.parametrize(("memory", "said"), [(4.0, "one notebook at a time"), (16.0, "16 GB of memory")])
def test_little_memory_is_a_warning(here, monkeypatch, memory, said):
    monkeypatch.setattr(here, "memory_gb", lambda: memory)
    assert said in here.check_memory()


def test_too_little_memory_stops(here, monkeypatch):
    monkeypatch.setattr(here, "memory_gb", lambda: 2.0)
    with pytest.raises(here.Stop, match=r"2\.0 GB of memory"):
        here.check_memory()


def test_without_the_venv_module_it_names_debians_package(here, monkeypatch):
    monkeypatch.setattr(here.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(here.Stop, match=r"apt install python3\.11-venv"):
        here.check_python()


def test_a_moved_environment_is_made_again(machine, here):
    machine.set_up()
    moved = machine.venv.rename(machine.folder / "elsewhere")
    for name, place in {"VENV": moved, "STATE": moved / ".setup", "PYTHON": moved / "bin" / "python"}.items():
        setattr(here, name, place)
    here.adopt_or_reset()
    here.clear_environment()
    assert not next(step for step in here.steps() if step.name == "venv").done
    assert {path.name for path in moved.rglob("*")} == {".setup", "accelerator", "lock"}


def test_an_environment_half_made_by_an_interrupted_set_up_is_made_again_and_one_of_other_make_kept(machine, here):
    here.STATE.mkdir()
    here.adopt_or_reset()
    assert (here.STATE / "venv").exists()
    machine.set_up()
    (here.STATE / "venv").unlink()
    here.adopt_or_reset()
    assert not (here.STATE / "venv").exists()


def test_an_environment_without_a_working_python_is_not_kept(machine, here):
    machine.set_up()
    assert here.works()
    here.PYTHON.write_text("#!/nowhere/python\n")
    assert not here.works()


def test_a_folder_that_is_no_environment_is_never_emptied(machine):
    (machine.venv / "pyvenv.cfg").unlink()
    (machine.venv / "thesis.txt").write_text("ten years of work")
    code, output = machine.set_up()
    assert code == 1 and "not touched" in output
    assert (machine.venv / "thesis.txt").exists() and not machine.calls()


def test_what_a_user_has_set_for_other_pythons_does_not_get_in(here, monkeypatch):
    for name, value in {"PYTHONPATH": "/other", "PIP_TARGET": "/other", "PIP_USER": "1", "PIP_INDEX_URL": "x"}.items():
        monkeypatch.setenv(name, value)
    used = here.quiet_environment()
    assert "PYTHONPATH" not in used and "PIP_TARGET" not in used
    assert used["PIP_USER"] == "0" and used["PIP_INDEX_URL"] == "x"


def test_beside_a_cuda_build_of_torch_the_kernel_is_told_where_tensorflows_environment_is(machine, here, monkeypatch):
    own = machine.folder / "own" / "python"
    own.parent.mkdir()
    own.touch()
    monkeypatch.setattr(here, "TENSORFLOW_PYTHON", own)
    here.STATE.mkdir()
    for accelerator, told in (("cpu", []), ("cuda", [own])):
        (here.STATE / "accelerator").write_text(accelerator)
        before = here.steps()[-1].key()
        assert here.tensorflow() == told
        here.install_kernel()
        assert machine.calls("atlas.kernel")[-1].split("atlas.kernel ")[1:] == [str(each) for each in told]
    own.unlink()
    assert here.tensorflow() == [], "a half-made one is not offered"
    assert here.steps()[-1].key() != before, "and once it is made the kernel is registered anew"


def test_tensorflows_own_environment_has_no_torch_and_offers_no_kernel_itself(here):
    here.STATE.mkdir()
    (here.STATE / "accelerator").write_text("cuda-tensorflow")
    assert here.lock().name == "cuda-tensorflow.txt"
    assert [step.name for step in here.steps()] == ["venv", "pip", "packages", "bytecode", "course"]


def test_no_python_of_this_environment_lets_waiting_threads_spin_unless_told_to():
    asked = "import os; print(os.environ['OMP_WAIT_POLICY'], os.environ['OPENBLAS_NUM_THREADS'])"
    bare = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS")}
    for env, said in ((bare, "PASSIVE 1"), ({**bare, "OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE 1")):
        done = subprocess.run([sys.executable, "-c", asked], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == said
