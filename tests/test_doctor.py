"""`atlas doctor` finds what is wrong and names the command that repairs it. Faults are simulated; none is caused."""

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atlas import doctor, progress, settings
from atlas.course import KERNEL
from atlas.doctor import OK, PROBLEM, WARNING, Finding

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def kit(small_course, monkeypatch):
    """The made-up course with the real pyproject.toml and lock, and probes that answer at once."""
    shutil.copy(REPOSITORY / "pyproject.toml", small_course)
    shutil.copytree(REPOSITORY / "scripts" / "locks", small_course / "scripts" / "locks")
    monkeypatch.setattr(doctor, "_PROBES", answers())
    monkeypatch.setattr(settings, "found", lambda *_: [])  # what this machine sets is looked at in test_settings.py
    monkeypatch.setattr(doctor, "REACHES_FRAMEWORKS", "BREAKS_")
    monkeypatch.setattr(settings, "foreign_encoding", lambda: "")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("ATLAS_VENV", sys.prefix)
    (small_course / ".git").mkdir()
    return small_course


def answers(**instead: str) -> dict[str, str]:
    """Code for the probes, by name; `instead` replaces some."""
    spec = {"spec": {"argv": [sys.executable, "-m", "ipykernel_launcher"], "display_name": "OpenMLAtlas"}}
    found = {
        "torch": {"version": "2.13.0+cpu", "devices": [], "threads": 2},
        "tensorflow": {"version": "2.21.0", "devices": ["NVIDIA T4"]},
        "kernels": {"kernelspecs": {KERNEL: spec}},
    }
    return {name: f"print({json.dumps(answer)!r})" for name, answer in found.items()} | instead


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def found(name: str) -> Finding:
    return next(finding for finding in doctor.examine() if finding.name == name)


def test_a_sound_machine_is_ready(kit):
    findings = list(doctor.examine(full=True))
    assert [finding.name for finding in findings] == [
        *("Python", "folder", "packages", "kernel", "torch", "tensorflow", "memory", "disk", "data", "git", "progress")
    ]
    assert not [finding for finding in findings if finding.status == PROBLEM]
    assert doctor.verdict(findings).name == "ready"
    assert found("torch").text == "2.13.0+cpu, CPU, 2 threads"
    assert found("tensorflow").text == "2.21.0, NVIDIA T4, CPU"


def test_the_verdict_is_the_remedy_of_the_first_problem():
    findings = [Finding(OK, "a", ""), Finding(WARNING, "b", "", "no"), Finding(PROBLEM, "c", "", "this")]
    verdict = doctor.verdict([*findings, Finding(PROBLEM, "d", "", "that")])
    assert (verdict.status, verdict.text) == (PROBLEM, "First: this")
    assert doctor.verdict(findings[:2]).status == OK, "a warning prevents nothing"


def test_a_python_of_another_version_or_without_environment_is_a_problem(kit, monkeypatch):
    (kit / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.12"\n')
    assert only(doctor.interpreter()).status == PROBLEM
    assert "the course needs >=3.12" in only(doctor.interpreter()).text
    shutil.copy(REPOSITORY / "pyproject.toml", kit)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert "not in an environment of its own" in only(doctor.interpreter()).text
    assert only(doctor.interpreter()).remedy == "scripts/setup"


def test_another_environment_than_the_kits_is_a_warning(kit, monkeypatch):
    monkeypatch.delenv("ATLAS_VENV")
    assert only(doctor.interpreter()).status == WARNING
    assert "not in the kit's own .venv" in only(doctor.interpreter()).text


def test_missing_packages_and_other_versions_are_a_problem(kit):
    lock = kit / "scripts" / "locks" / "cpu.txt"
    text = lock.read_text()
    lock.write_text("no-such-package==1.0 \\\n    --hash=sha256:00\n" + text.replace("\nrich==", "\nrich==0.0.1+"))
    finding = only(doctor.packages())
    assert finding.status == PROBLEM
    assert "missing: no-such-package" in finding.text
    assert "rich 15.0.0 instead of 0.0.1" in finding.text
    assert "scripts/setup" in finding.remedy


def test_packages_for_other_platforms_are_not_missed(kit):
    pinned = doctor.pinned()
    assert {"torch", "numpy", "rich"} <= set(pinned)
    assert len(pinned) > 100
    lock = kit / "scripts" / "locks" / "cpu.txt"
    lock.write_text("elsewhere==1.0 ; sys_platform == 'never' \\\n    --hash=sha256:00\n")
    assert set(doctor.pinned()) == {"torch"}


def test_the_lock_is_that_of_the_accelerator_chosen_at_set_up(kit, monkeypatch):
    monkeypatch.setattr(doctor, "STAMPS", kit)
    (kit / "accelerator").write_text("cuda\n")
    (kit / "scripts" / "locks" / "cuda.txt").write_text("only-cuda==1.0\n")
    assert set(doctor.pinned()) == {"only-cuda", "torch"}


def test_a_kernel_that_is_missing_or_starts_another_python_is_a_problem(kit):
    def kernel(name: str, python: str) -> dict:
        return {"kernelspecs": {name: {"spec": {"argv": [python], "display_name": "Python"}}}}

    missing = only(doctor.kernels(kernel("conda", sys.executable), ""))
    assert (missing.status, missing.text) == (PROBLEM, "python3 is not registered (there are: conda)")
    gone = only(doctor.kernels(kernel(KERNEL, "/no/such/python"), ""))
    assert "does not exist" in gone.text
    other = only(doctor.kernels(kernel(KERNEL, shutil.which("sh")), ""))
    assert "another Python than this one" in other.text
    assert "scripts/setup" in missing.remedy and missing.remedy == gone.remedy == other.remedy
    silent = only(doctor.kernels({}, "crashes (SIGSEGV)"))
    assert (silent.status, "crashes" in silent.text) == (PROBLEM, True)


def test_more_kernels_than_the_kits_are_a_warning(kit):
    spec = {"spec": {"argv": [sys.executable], "display_name": "OpenMLAtlas"}}
    sound, more = doctor.kernels({"kernelspecs": {KERNEL: spec, "conda": spec}}, "")
    assert (sound.status, more.status) == (OK, WARNING)
    assert more.text == "1 more on offer: conda. In a notebook choose OpenMLAtlas (Python 3.11)"


@pytest.mark.parametrize(
    ("code", "says", "cure"),
    [
        ("import no_such", "cannot be used: ModuleNotFoundError: No module named 'no_such'", "rm -rf"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashes (SIGSEGV)", "rm -rf"),
        ("import sys; sys.exit(3)", "cannot be used: no message", "rm -rf"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "crashes (SIGILL)", "in a codespace"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crashes (SIGKILL)", "shut down other kernels"),
        ("import time; time.sleep(60)", "does not come up within 1 s", "close other programs"),
        ("raise OSError(28, 'No space left on device')", "No space left on device", "free some disk"),
        ("raise MemoryError('too big')", "MemoryError: too big", "shut down other kernels"),
    ],
)
def test_a_framework_that_is_broken_takes_nothing_else_with_it(kit, monkeypatch, code, says, cure):
    """And the environment is thrown away for its own faults alone."""
    monkeypatch.setattr(doctor, "IMPORT_SECONDS", 1.0)
    monkeypatch.setattr(doctor, "_PROBES", answers(tensorflow=code))
    findings = {finding.name: finding for finding in doctor.examine()}
    assert says in findings["tensorflow"].text
    assert findings["tensorflow"].status == PROBLEM
    assert cure in findings["tensorflow"].remedy
    assert ("rm -rf" in findings["tensorflow"].remedy) == (cure == "rm -rf")
    assert findings["torch"].status == findings["data"].status == OK
    assert len(findings) == 11


# ------------------------------------------------------------------------------------------------ who and where one is


@pytest.fixture
def not_mine(monkeypatch):
    """Let what lies at or below a path belong to somebody else, also where the tests run as root."""

    def refuse(*places: Path) -> None:
        def access(path, mode) -> bool:
            return mode != os.W_OK or not any(Path(path).is_relative_to(place) for place in places)

        monkeypatch.setattr(os, "access", access)

    return refuse


def test_a_course_that_belongs_to_somebody_else_is_a_problem_before_it_is_started(kit, not_mine):
    notebook = next(kit.glob("workshops/**/*.ipynb"))
    log = kit / ".atlas" / "jupyter.log"
    log.parent.mkdir(exist_ok=True)
    log.touch()
    for place in (kit, kit / ".atlas", log, notebook.parent, notebook, next(notebook.parent.glob("count.py"))):
        not_mine(place)
        finding = only(doctor.folder())
        assert finding.status == PROBLEM
        assert finding.text == f"{place} belongs to {place.owner()} and cannot be written by you"
        assert finding.remedy == f"sudo chown -R $(id -u) {kit}"
    assert doctor.verdict(list(doctor.examine())).status == PROBLEM


def test_a_disk_that_can_only_be_read_is_not_to_be_made_ones_own(kit, not_mine, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: type("Disk", (), {"f_flag": os.ST_RDONLY}))
    not_mine(kit)
    assert only(doctor.folder()).remedy == "copy the course's folder to a place of your own"


def test_progress_that_goes_to_a_place_that_cannot_be_is_a_problem(kit, monkeypatch):
    (kit / "a file").touch()
    monkeypatch.setenv("ATLAS_STATE", str(kit / "a file" / "below"))
    assert only(doctor.folder()).status == PROBLEM


def test_without_a_home_folder_it_says_which_one_would_do(kit, not_mine, monkeypatch):
    assert doctor.home() == []
    monkeypatch.setenv("HOME", str(kit / "nowhere" / "at all"))
    assert doctor.home() == [], "what is missing and can be made is made when it is needed"
    not_mine(kit)
    finding = only(doctor.home())
    assert (finding.status, finding.remedy) == (WARNING, f"export HOME={kit}/.atlas/home")
    assert "nowhere/at all is missing or cannot be written" in finding.text

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert "HOME is not set" in only(doctor.home()).text


def test_a_framework_is_tried_with_a_home_folder_that_it_can_use(kit, monkeypatch):
    monkeypatch.setattr(doctor, "home", lambda: [Finding(WARNING, "home", "none")])
    answer, _ = doctor._result(doctor._start("import os; print('{\"home\": \"' + os.environ['HOME'] + '\"}')"))
    assert answer["home"] == f"{kit}/.atlas/home"


def test_scripts_without_their_execute_bit_are_a_warning_with_two_ways_out(kit):
    setup = kit / "scripts" / "setup"
    setup.write_text("#!/bin/sh\n")
    setup.chmod(0o644)
    _, finding = doctor.folder()
    assert (finding.status, finding.remedy) == (WARNING, "chmod +x scripts/setup")
    assert "type sh scripts/setup" in finding.text
    assert doctor.again() == "sh scripts/setup", "a remedy that cannot be called is none"
    setup.chmod(0o755)
    assert doctor.again() == "scripts/setup" and len(doctor.folder()) == 1


def test_a_disk_without_locks_is_a_warning_that_says_where_progress_can_be_kept(kit, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    finding = only(doctor.progress_file())
    assert (finding.status, "without locks" in finding.text) == (WARNING, True)
    assert 'export ATLAS_STATE="$HOME/.atlas"' in finding.text


@pytest.mark.parametrize("full", ["home", "temporary"])
def test_a_full_home_or_temporary_folder_is_a_problem_though_the_courses_disk_has_room(kit, monkeypatch, full):
    monkeypatch.setenv("HOME", str(kit / "home"))
    monkeypatch.setattr(doctor.tempfile, "gettempdir", lambda: str(kit / "temporary"))
    (kit / "home").mkdir()

    def usage(place) -> object:
        return shutil._ntuple_diskusage(2**40, 0, 0 if Path(place).name == full else 2**39)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    finding = only(doctor.disk())
    assert (finding.status, finding.text) == (PROBLEM, f"{kit / full} is full")


def test_no_command_that_deletes_is_printed_with_a_path_that_a_shell_would_split(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "my course's" / ".venv"))
    assert shlex.split(doctor.anew())[:3] == ["rm", "-rf", str(tmp_path / "my course's" / ".venv")]
    monkeypatch.setattr(doctor, "STAMPS", tmp_path / "my course's")
    (tmp_path / "my course's").mkdir()
    (tmp_path / "my course's" / "kernel").touch()
    assert shlex.split(doctor.again("kernel"))[:3] == ["rm", "-f", str(tmp_path / "my course's" / "kernel")]


# ------------------------------------------------------------------------------------------------ what is set


def test_a_module_beside_a_notebook_or_on_pythonpath_is_to_be_renamed_and_the_environment_to_be_kept(kit, monkeypatch):
    folder = next(kit.glob("workshops/**/*.ipynb")).parent
    other = kit / "elsewhere"
    (other / "numpy").mkdir(parents=True)
    for file in (folder / "torch.py", folder / "test.py", folder / "my_neuron.py", other / "numpy" / "__init__.py"):
        file.touch()
    monkeypatch.setenv("PYTHONPATH", str(other))
    monkeypatch.syspath_prepend(other)
    monkeypatch.setattr(doctor, "_PROBES", answers(torch="import torch, numpy; print('{}')"))
    findings = {finding.name: finding for finding in doctor.examine()}
    assert "rm -rf" not in "".join(finding.remedy for finding in findings.values())
    by_pythonpath, beside = sorted(doctor.imports(["random"]), key=lambda finding: "rename" in finding.remedy)
    assert by_pythonpath.text == f"{other}, which PYTHONPATH names, hides the course's numpy: unset PYTHONPATH"
    shown = (folder / "torch.py").relative_to(kit)
    assert beside.text == f"{shown} hides torch from what runs in that folder: rename it", "no framework loads `test`"
    assert (beside.status, beside.remedy) == (PROBLEM, f"rename {shown}")
    (folder / "random.py").touch()
    assert "random" in "".join(finding.text for finding in doctor.imports(["random"]))


def test_packages_are_counted_in_the_environment_and_not_on_pythonpath(kit, monkeypatch):
    lock = kit / "scripts" / "locks" / "cpu.txt"
    lock.write_text("elsewhere==1.0 \\\n    --hash=sha256:00\n" + lock.read_text())
    info = kit / "other" / "elsewhere-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(info.parent)
    assert "missing: elsewhere" in only(doctor.packages()).text


@pytest.mark.parametrize("set_here", [("BREAKS_IT",), ("BREAKS_IT", "BREAKS_NOTHING"), ("BREAKS_NOTHING",)])
def test_a_framework_that_a_variable_breaks_has_that_variable_for_its_cure(kit, monkeypatch, set_here):
    breaks = "import os, sys; sys.exit('Unknown flag') if 'BREAKS_IT' in os.environ else print('{}')"
    probe = breaks if "BREAKS_IT" in set_here else "import sys; sys.exit('Unknown flag')"
    monkeypatch.setattr(doctor, "_PROBES", answers(tensorflow=probe))
    for name in set_here:
        monkeypatch.setenv(name, "1")
    finding = found("tensorflow")
    assert finding.status == PROBLEM and "Unknown flag" in finding.text
    if "BREAKS_IT" in set_here:
        assert finding.remedy == "unset BREAKS_IT"
        assert finding.text.endswith("not so without BREAKS_IT (set in this terminal)")
    else:
        assert "rm -rf" in finding.remedy


def test_a_framework_that_needs_another_locale_gets_it_for_a_cure(kit, monkeypatch):
    monkeypatch.setattr(settings, "foreign_encoding", lambda: "ISO-8859-1")
    monkeypatch.setenv("LC_ALL", "POSIX")
    fails = "import os, sys; sys.exit('not found') if os.environ['LC_ALL'] == 'POSIX' else print('{}')"
    monkeypatch.setattr(doctor, "_PROBES", answers(torch=fails))
    assert found("torch").remedy == "export LC_ALL=C.UTF-8"


def test_what_is_set_elsewhere_is_a_warning_with_its_cure(kit, monkeypatch):
    said = settings.Setting("PYTHONOPTIMIZE is set to '2': Python leaves out every `assert`", "unset PYTHONOPTIMIZE")
    monkeypatch.setattr(settings, "found", lambda *_: [said])
    finding = found("settings")
    assert (finding.status, finding.remedy) == (WARNING, "unset PYTHONOPTIMIZE")
    assert finding.text.endswith("every `assert`. Without it: unset PYTHONOPTIMIZE")


def test_noise_around_a_frameworks_answer_is_swallowed(kit, monkeypatch, capfd):
    noisy = answers()["tensorflow"]
    noisy = f"import sys; print('noise ' * 30_000, file=sys.stderr); print('a greeting'); {noisy}"
    monkeypatch.setattr(doctor, "_PROBES", answers(tensorflow=noisy))
    assert found("tensorflow").status == OK
    assert capfd.readouterr() == ("", "")


def test_a_check_that_fails_itself_is_a_problem_and_the_others_go_on(kit):
    (kit / "pyproject.toml").unlink()
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["Python"].status == PROBLEM
    assert "cannot be looked at: FileNotFoundError" in findings["Python"].text
    assert findings["progress"].status == OK


@pytest.mark.parametrize("version", [1, 2])
def test_memory_is_that_of_the_container(kit, monkeypatch, tmp_path, version):
    files = {
        1: ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
        2: ("memory.max", "memory.current", "memory.stat"),
    }[version]
    cached = {1: "total_inactive_file", 2: "inactive_file"}[version]
    (tmp_path / "memory").mkdir()
    for name, content in zip(files, (2 * 10**9, 15 * 10**8, f"anon 3\n{cached} 500000000\n"), strict=True):
        (tmp_path / name).write_text(str(content))
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    assert doctor.memory_bytes() == (10**9, 2 * 10**9)
    finding = only(doctor.memory())
    assert (finding.status, finding.text.split(";")[0]) == (WARNING, "0.9 GB free of 1.9 GB")


def test_without_a_limit_memory_is_that_of_the_machine(kit, monkeypatch, tmp_path):
    import psutil

    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor.memory_bytes()[1] == psutil.virtual_memory().total


def test_a_full_disk_is_a_problem(kit, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(32 * 2**30, 32 * 2**30, 2**28))
    finding = only(doctor.disk())
    assert (finding.status, finding.text) == (PROBLEM, "0.2 GB free of 32 GB")
    assert "free some disk" in finding.remedy


def test_damaged_data_is_a_problem(kit):
    data = kit / "datasets" / "mnist" / "tiny.bin"
    data.write_text("hallo")
    assert only(doctor.data()).status == OK, "the quick look compares sizes"
    finding = only(doctor.data(full=True))
    assert (finding.status, finding.remedy) == (PROBLEM, "git checkout -- datasets/mnist")
    data.write_text("hell")
    assert only(doctor.data()).status == PROBLEM
    assert "mnist is missing or damaged" in only(doctor.data()).text
    data.unlink()
    assert only(doctor.data()).status == PROBLEM


def test_in_a_copy_without_git_nothing_is_to_be_checked_out(kit):
    (kit / "datasets" / "mnist" / "tiny.bin").write_text("hallo")
    (kit / ".git").rmdir()
    remedy = only(doctor.data(full=True)).remedy
    assert remedy == "download the course again, and copy datasets/mnist from there"


def test_a_broken_catalog_is_a_problem(kit):
    (kit / "datasets" / "catalog.toml").write_text("[mnist")
    finding = only(doctor.data())
    assert (finding.status, finding.remedy) == (PROBLEM, "git checkout -- datasets/catalog.toml")
    assert "\n" not in finding.text


def test_git_tells_branch_and_changes_and_is_not_needed(kit, monkeypatch):
    (kit / ".git").rmdir()
    assert only(doctor.git()).status == WARNING
    assert "no repository to update from" in only(doctor.git()).text
    subprocess.run(["git", "init", "-q", "-b", "mine", str(kit)], check=True)
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(kit), *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert only(doctor.git()).text == "branch mine, 5 changed files"
    monkeypatch.setenv("PATH", "")
    assert only(doctor.git()) == Finding(WARNING, "git", "is not installed; without it the kit cannot be updated")


def test_a_damaged_progress_file_is_a_warning_and_left_as_it_is(kit):
    assert only(doctor.progress_file()).text == "no workshops begun"
    progress.opened("w")
    assert only(doctor.progress_file()).text == "1 workshop begun"
    (kit / ".atlas" / "progress.json").write_text("{")
    finding = only(doctor.progress_file())
    assert (finding.status, "is damaged" in finding.text) == (WARNING, True)
    assert (kit / ".atlas" / "progress.json").read_text() == "{"


def test_the_remedy_does_again_what_the_set_up_believes_done(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "STAMPS", tmp_path)
    assert doctor.again("torch", "packages") == "scripts/setup"
    (tmp_path / "packages").write_text("")
    assert doctor.again("torch", "packages") == f"rm -f {tmp_path}/packages && scripts/setup"


# what nvidia-smi prints, and with what it exits
RTX = "NVIDIA GeForce RTX 4070, 580.95.05, 8.9, 12282 MiB"
SMI = {
    "two cards": (f"{RTX}\n{RTX}", 0),
    "good": (RTX, 0),
    "driver of 2023": ("NVIDIA GeForce RTX 3090, 535.183.01, 8.6, 24576 MiB", 0),
    "driver of 2022": ("Tesla T4, 470.256.02, 7.5, 15360 MiB", 0),
    "driver of 2021": ('Field "compute_cap" is not a valid field to query.', 2),
    "old card": ("NVIDIA GeForce GTX 1080 Ti, 580.95.05, 6.1, 11264 MiB", 0),
    "not loaded": (
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
        "Make sure that the latest NVIDIA driver is installed and running.",
        9,
    ),
    "updated": ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.183", 18),
    "lost": ("Failed to initialize NVML: Unknown Error", 255),
    "off": ("No devices were found", 6),
}


@pytest.fixture
def nvidia(monkeypatch, tmp_path):
    """What the doctor says of the GPU where nvidia-smi prints so, and these frameworks have found a device."""

    def examine(recorded: str | None, torch: bool = False, tensorflow: bool = False, build: str = "cuda"):
        monkeypatch.setenv("PATH", str(tmp_path))
        if recorded:
            text, code = SMI[recorded]
            (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho {shlex.quote(text)}\nexit {code}\n")
            (tmp_path / "nvidia-smi").chmod(0o755)
        return doctor.gpu(build, ["cuda"] * torch, ["cuda"] * tensorflow)

    return examine


def test_a_gpu_that_both_frameworks_use_is_named(nvidia):
    finding = only(nvidia("good", torch=True, tensorflow=True))
    assert finding.status == OK
    assert finding.text == "NVIDIA GeForce RTX 4070, 12282 MiB, driver 580.95.05, used by torch and TensorFlow"
    assert "and 1 more" in only(nvidia("two cards", torch=True, tensorflow=True)).text


def test_a_driver_that_is_too_old_for_torch_alone_is_told_with_the_one_to_install(nvidia):
    card, torch = nvidia("driver of 2023", tensorflow=True)
    assert (card.status, torch.status) == (OK, WARNING) and "used by" not in card.text
    assert torch.text.startswith("torch computes on the CPU; the driver 535.183.01 is too old for CUDA 13: install 580")


@pytest.mark.parametrize("recorded", ["driver of 2022", "driver of 2021"])
def test_a_driver_that_is_too_old_for_both_is_no_ok(nvidia, recorded):
    findings = nvidia(recorded)
    assert {finding.status for finding in findings} == {WARNING}
    assert all("too old" in finding.text for finding in findings) and "580" in findings[0].text


def test_a_card_that_cuda_13_has_dropped_is_told_apart_from_an_old_driver(nvidia):
    _, torch = nvidia("old card", tensorflow=True)
    assert "the card is too old for CUDA 13 (compute capability 6.1, 7.5 needed)" in torch.text


@pytest.mark.parametrize(("sees", "blind"), [("torch", "TensorFlow"), ("tensorflow", "torch")])
def test_only_one_framework_that_sees_the_gpu_is_a_warning_about_the_other(nvidia, sees, blind):
    card, finding = nvidia("good", **{sees: True})
    assert (card.status, finding.status) == (OK, WARNING)
    assert finding.text.startswith(f"{blind} computes on the CPU; driver and card would do")


def test_a_card_that_a_variable_hides_is_not_blamed_on_the_environment(nvidia, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    for finding in nvidia("good"):
        assert "CUDA_VISIBLE_DEVICES is '-1', which hides the card: unset it" in finding.text


def test_without_the_container_toolkit_it_says_so_and_that_the_cpu_serves(nvidia, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "DRIVER_FILES", ())
    finding = only(nvidia(None))
    assert finding.status == WARNING
    assert "Container Toolkit is missing on the host" in finding.text and "the CPU serves" in finding.text
    monkeypatch.setattr(doctor, "DRIVER_FILES", (str(tmp_path),))
    assert "the driver is here and nvidia-smi is not" in only(nvidia(None)).text


@pytest.mark.parametrize(
    ("recorded", "cure"),
    [
        ("not loaded", "install or load it there"),
        ("updated", "restart the machine"),
        ("lost", "restart the container"),
        ("off", "is it switched off"),
    ],
)
def test_what_nvidia_smi_complains_about_is_repeated_with_its_cure(nvidia, recorded, cure):
    finding = only(nvidia(recorded))
    assert finding.status == WARNING
    assert cure in finding.text and SMI[recorded][0].split("'")[0].split("\n")[0] in finding.text


def test_the_cpu_build_mentions_a_gpu_that_it_does_not_use_and_no_other(nvidia):
    assert nvidia(None, build="cpu") == nvidia("lost", build="cpu") == []
    finding = only(nvidia("good", build="cpu"))
    assert (finding.status, "--accelerator cuda" in finding.text) == (OK, True)


def test_in_a_cuda_build_tensorflow_is_looked_at_in_its_own_environment(kit, monkeypatch, tmp_path):
    own = tmp_path / "own-python"
    monkeypatch.setattr(doctor, "TENSORFLOW_PYTHON", own)
    monkeypatch.setattr(doctor, "accelerator", lambda: "cuda")
    assert doctor._python_of("tensorflow") == Path(sys.executable)
    own.touch()
    assert doctor._python_of("tensorflow") == own
    assert doctor._python_of("torch") == Path(sys.executable)


def test_the_real_probes_answer_on_this_machine():
    probes = {name: doctor._start(code) for name, code in doctor._PROBES.items()}
    results = {name: doctor._result(probe) for name, probe in probes.items()}
    assert [trouble for _, trouble in results.values()] == ["", "", ""]
    assert only(doctor.torch(*results["torch"])).text.startswith("2.")
    assert only(doctor.tensorflow(*results["tensorflow"])).text.startswith("2.")
    assert "kernelspecs" in results["kernels"][0]
