"""`atlas doctor`: looks at everything that the course needs from the machine, and says the one command that helps.

A check is a small function that returns its Findings. Whatever may crash or hang (a framework, Jupyter) runs in a
process of its own, all at once, so that a broken one is a finding and takes nothing else with it.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from atlas import hardware, progress, settings, surroundings
from atlas.course import KERNEL, KERNEL_TITLE, CourseError, root, state_dir, workshops

OK, WARNING, PROBLEM = "ok", "warning", "problem"
TENSORFLOW_PYTHON = Path(f"{sys.prefix}-tensorflow") / "bin" / "python"
"""Beside a CUDA build of torch, TensorFlow has an environment of its own (scripts/environment.py says why)."""
STAMPS = Path(sys.prefix) / ".setup"
"""Where scripts/setup notes which of its steps are done; without its stamp a step is done again."""
IMPORT_SECONDS = 120.0
GIB = 2**30
MEMORY_NEEDED = 3 * GIB
"""What a solved notebook may take at most."""
DISK_NEEDED = 1 * GIB
DISK_ELSEWHERE = GIB // 10
"""For the home folder and the one for temporary files."""
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Finding:
    """What was looked at and found; a problem has the command that repairs it."""

    status: str  # OK, WARNING or PROBLEM
    name: str
    text: str
    remedy: str = ""


def examine(full: bool = False) -> Iterator[Finding]:
    """All findings, the most fundamental first. `full` compares the checksums of all data too."""
    probes = {name: _start(code, _python_of(name)) for name, code in _PROBES.items()}
    devices, loaded = {}, set()

    def framework(name: str, check: Callable[[dict, str], list[Finding]]) -> list[Finding]:
        answer, trouble = _result(probes[name])
        loaded.update(answer.get("modules", []))
        devices[name] = [each for each in answer.get("devices", []) if "mps" not in each]
        return check(answer, trouble)

    checks: dict[str, Callable[[], list[Finding]]] = {
        "Python": interpreter,
        "folder": folder,
        "home": home,
        "packages": packages,
        "kernel": lambda: kernels(*_result(probes["kernels"])),
        "torch": lambda: framework("torch", torch),
        "tensorflow": lambda: framework("tensorflow", tensorflow),
        "GPU": lambda: gpu(accelerator(), devices.get("torch", []), devices.get("tensorflow", [])),
        "imports": lambda: imports(loaded),
        "settings": set_elsewhere,
        "memory": memory,
        "disk": disk,
        "data": lambda: data(full),
        "git": git,
        "progress": progress_file,
    }
    try:
        for name, check in checks.items():
            try:
                yield from check()
            except Exception as error:  # such as a package that the check itself needs
                yield Finding(PROBLEM, name, f"cannot be looked at: {type(error).__name__}: {error}", again())
    finally:
        for probe in probes.values():
            probe.kill()


def verdict(findings: list[Finding]) -> Finding:
    """The last line: "ready", or the command that helps most, which is that of the first problem."""
    problems = [finding for finding in findings if finding.status == PROBLEM]
    if not problems:
        return Finding(OK, "ready", "You can begin: atlas start")
    return Finding(PROBLEM, "not ready", f"First: {problems[0].remedy}", problems[0].remedy)


# ------------------------------------------------------------------------------------------------ the environment


def interpreter() -> list[Finding]:
    """Python's version against pyproject.toml, and whether it is the one of the kit's own environment."""
    import tomllib

    from packaging.specifiers import SpecifierSet

    version = ".".join(map(str, sys.version_info[:3]))
    wanted = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    if version not in SpecifierSet(wanted):
        return [Finding(PROBLEM, "Python", f"{version} at {sys.executable}; the course needs {wanted}", again())]
    if sys.prefix == sys.base_prefix:
        text = f"{version} at {sys.executable}, which is not in an environment of its own"
        return [Finding(PROBLEM, "Python", text, again())]
    if Path(sys.prefix).resolve() != Path(os.environ.get("ATLAS_VENV") or root() / ".venv").resolve():
        return [Finding(WARNING, "Python", f"{version} in {sys.prefix}, not in the kit's own .venv", again())]
    return [Finding(OK, "Python", f"{version} in {_shown(Path(sys.prefix))}")]


def packages() -> list[Finding]:
    """What is installed against the lock, and torch against pyproject.toml."""
    wanted = pinned()
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]  # and not what PYTHONPATH names
    installed = {_canonical(each.metadata["Name"]): each.version for each in metadata.distributions(path=places)}
    missing = [name for name in wanted if name not in installed]
    # "2.13.0+cpu" is the CPU build of 2.13.0
    wrong = [
        f"{name} {installed[name]} instead of {version}"
        for name, version in wanted.items()
        if name in installed and installed[name].partition("+")[0] != version.partition("+")[0]
    ]
    if missing or wrong:
        parts = [f"missing: {_some(missing)}"] if missing else []
        parts += [f"other versions: {_some(wrong)}"] if wrong else []
        return [Finding(PROBLEM, "packages", f"{'; '.join(parts)} (of {len(wanted)})", again("torch", "packages"))]
    return [Finding(OK, "packages", f"all {len(wanted)} as in the lock")]


def pinned() -> dict[str, str]:
    """Package → version, for this platform: the lock, and torch, which pyproject.toml pins by itself."""
    import tomllib

    from packaging.requirements import Requirement

    lock = (root() / "scripts" / "locks" / f"{accelerator()}.txt").read_text(encoding="utf-8")
    project = tomllib.loads((root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = re.findall(r"^[\w.-]+==[^\\\n]+", lock, re.MULTILINE)
    lines += [line for line in project["dependencies"] if line.startswith("torch==")]
    requirements = [Requirement(line) for line in lines]
    return {
        _canonical(each.name): str(next(iter(each.specifier)).version)
        for each in requirements
        if each.marker is None or each.marker.evaluate()
    }


def accelerator() -> str:
    """Which build the environment was asked to be: cpu, or cuda."""
    chosen = STAMPS / "accelerator"
    return chosen.read_text(encoding="utf-8").strip() if chosen.exists() else "cpu"


def kernels(answer: dict, trouble: str) -> list[Finding]:
    """What Jupyter offers: the kit's kernel, run by this interpreter, and none that no notebook names."""
    if trouble:
        return [
            Finding(PROBLEM, "kernel", f"Jupyter does not list its kernels: {trouble}", again("packages", "kernel"))
        ]
    specs = answer["kernelspecs"]
    remedy = again("kernel")
    if KERNEL not in specs:
        return [Finding(PROBLEM, "kernel", f"{KERNEL} is not registered (there are: {_some(sorted(specs))})", remedy)]
    python = Path(specs[KERNEL]["spec"]["argv"][0])
    if not python.exists():
        return [Finding(PROBLEM, "kernel", f"{KERNEL} starts {python}, which does not exist", remedy)]
    if python.parent.resolve() != Path(sys.executable).parent.resolve():
        return [Finding(PROBLEM, "kernel", f"{KERNEL} starts {python}, another Python than this one", remedy)]
    findings = [Finding(OK, "kernel", f"{KERNEL}, started by this Python")]
    if others := sorted(set(specs) - {KERNEL}):
        text = f"{len(others)} more on offer: {_some(others)}. In a notebook choose {KERNEL_TITLE}"
        findings.append(Finding(WARNING, "kernels", text))
    return findings


# ------------------------------------------------------------------------------------------------ whose it is


def folder() -> list[Finding]:
    """Whether the learner may write what the course writes; and start its scripts."""
    try:
        state = state_dir()
    except OSError as error:
        return [_refused(Path(error.filename or root()))]
    there = [each for each in workshops() if not each.planned]
    places = [root(), state, *(each.folder for each in there), *(each.notebook for each in there)]
    places += [each.folder / each.script for each in there if each.script]
    for place in [*places, *(each for each in state.iterdir() if each.is_file())]:
        if place.exists() and not os.access(place, os.W_OK):
            return [_refused(place)]
    findings = [Finding(OK, "folder", str(root()))]
    scripts = [root() / "scripts" / name for name in ("start", "setup", "test")]
    if lost := [_shown(each) for each in scripts if each.exists() and not os.access(each, os.X_OK)]:
        text = f"{_some(lost)} cannot be started by name (a zip or an upload lost that): type sh {lost[0]}, or once: "
        remedy = f"chmod +x {' '.join(lost)}"
        findings.append(Finding(WARNING, "scripts", text + remedy, remedy))
    return findings


def _refused(place: Path) -> Finding:
    if os.statvfs(_existing(place)).f_flag & os.ST_RDONLY:
        text = f"{place} lies on a disk that can only be read"
        return Finding(PROBLEM, "folder", text, "copy the course's folder to a place of your own")
    owner = "somebody else"
    with contextlib.suppress(OSError, KeyError):
        owner = place.owner()
    whole = root() if place.is_relative_to(root()) else place
    text = f"{place} belongs to {owner} and cannot be written by you"
    return Finding(PROBLEM, "folder", text, f"sudo chown -R $(id -u) {shlex.quote(str(whole))}")


def home() -> list[Finding]:
    """Whether the home folder, where Jupyter keeps its files, is there or can be made; nothing where it is."""
    try:
        place = Path.home()
    except RuntimeError:
        text = "HOME is not set"
    else:
        if os.access(_existing(place), os.W_OK):
            return []
        text = f"{place} is missing or cannot be written"
    remedy = f"export HOME={shlex.quote(str(_home_instead()))}"
    text += f"; Jupyter and Matplotlib keep files at home. scripts/start uses another place; here: {remedy}"
    return [Finding(WARNING, "home", text, remedy)]


def _home_instead() -> Path:
    """Where scripts/start puts the home folder of somebody who has none."""
    return root() / ".atlas" / "home"


def _existing(place: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    return place


# ------------------------------------------------------------------------------------------------ what is set


def imports(loaded: Iterable[str]) -> list[Finding]:
    """Files that are imported in the place of a package: beside a notebook, or where PYTHONPATH leads.

    `loaded`: the modules that the frameworks load; another of Python's own may well be hidden, and nobody notices.
    """
    named = {os.path.abspath(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each}
    hiding, folders = {}, {}
    for place in [Path.cwd(), root(), *(each.folder for each in workshops() if not each.planned)]:
        hiding.update((shadow.path, shadow) for shadow in surroundings.shadows(place))
    for path, shadow in hiding.items():
        if shadow.module not in sys.stdlib_module_names or shadow.module in loaded:
            folders.setdefault(os.path.dirname(path), []).append(shadow)
    findings = []
    for place, found in folders.items():
        names = _some([each.module for each in found])
        if place in named:
            stands = settings.where("PYTHONPATH")
            text = f"{place}, which PYTHONPATH names{f' in {stands}' if stands else ''}, hides the course's {names}"
            findings.append(Finding(PROBLEM, "imports", f"{text}: unset PYTHONPATH", "unset PYTHONPATH"))
        else:
            files = _some([_shown(Path(each.path)) for each in found])
            them = "them" if len(found) > 1 else "it"
            text = f"{files} hides {names} from what runs in that folder: rename {them}"
            findings.append(Finding(PROBLEM, "imports", text, f"rename {files}"))
    return findings


def set_elsewhere() -> list[Finding]:
    """What a person has set for other work and what changes the course; nothing where there is none."""
    folders = [root(), *(each.folder for each in workshops() if not each.planned)]
    found = settings.found(folders, hardware.cores())
    return [Finding(WARNING, "settings", f"{each.says}. Without it: {each.cure}", each.cure) for each in found]


# ------------------------------------------------------------------------------------------------ the frameworks

_TORCH = """
import json, sys, torch
devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
devices += ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []
torch.ones(2, 2) @ torch.ones(2, 2)
print(json.dumps({"version": torch.__version__, "devices": devices, "threads": torch.get_num_threads(),
                  "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""
_TENSORFLOW = """
import json, sys, tensorflow as tf
devices = [tf.config.experimental.get_device_details(d).get("device_name", d.name)
           for d in tf.config.list_physical_devices("GPU")]
tf.ones((2, 2)) @ tf.ones((2, 2))
print(json.dumps({"version": tf.__version__, "devices": devices,
                  "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""
_KERNELS = """
from jupyter_client.kernelspecapp import KernelSpecApp
KernelSpecApp.launch_instance(["list", "--json"])
"""
_PROBES = {"torch": _TORCH, "tensorflow": _TENSORFLOW, "kernels": _KERNELS}


def torch(answer: dict, trouble: str) -> list[Finding]:
    """PyTorch's version and devices, as a process of its own found them."""
    if trouble:
        return [_blame("torch", trouble)]
    return [Finding(OK, "torch", f"{answer['version']}, {_devices(answer)}, {answer['threads']} threads")]


def tensorflow(answer: dict, trouble: str) -> list[Finding]:
    """TensorFlow's version and devices, as a process of its own found them."""
    if trouble:
        return [_blame("tensorflow", trouble)]
    return [Finding(OK, "tensorflow", f"{answer['version']}, {_devices(answer)}")]


FREE = "shut down other kernels and programs, then: atlas doctor"
NOT_THE_ENVIRONMENTS = {
    "SIGKILL": FREE,
    "annot allocate memory": FREE,
    "MemoryError": FREE,
    "does not come up within": "close other programs (the machine is busy, or its disk slow), then: atlas doctor",
    "No space left": "free some disk, then: atlas doctor",
    "Disk quota": "free some disk, then: atlas doctor",
    "failed to map segment": "ATLAS_VENV=/another/disk/atlas scripts/setup (nothing may be run from this one: noexec)",
    "SIGILL": "use the course in a codespace: this processor lacks instructions (AVX) that the wheels are made of",
}
"""What a framework's trouble says → what helps, where the environment is as it should be."""
REACHES_FRAMEWORKS = r"TF_|TORCH|PYTORCH|XLA_|CUDA|NVIDIA|NCCL|LD_|DYLD_|OMP_(?!WAIT)|KMP_|MKL_|GOMP|MALLOC|GLIBC"


def _blame(name: str, trouble: str) -> Finding:
    """Why a framework does not work: the machine, what is set in this terminal, or else the environment itself."""
    for sign, remedy in NOT_THE_ENVIRONMENTS.items():
        if sign in trouble:
            return Finding(PROBLEM, name, trouble, remedy)
    if found := _culprits(name):
        stands = [f"{each} ({settings.where(each) or 'set in this terminal'})" for each in found]
        cures = [settings.UTF8 if each == "LC_ALL" else f"unset {each}" for each in found]
        return Finding(PROBLEM, name, f"{trouble}; not so without {_some(stands)}", "; ".join(cures))
    return Finding(PROBLEM, name, trouble, anew())


def _culprits(name: str) -> list[str]:
    """The variables without which the framework works: a single one where that is enough, none if it is not they.

    LC_ALL stands for a locale other than UTF-8, in which TensorFlow does not find its files in a folder called Übung.
    """
    suspects = sorted(each for each in os.environ if re.match(REACHES_FRAMEWORKS, each))
    if settings.foreign_encoding():
        suspects.insert(0, "LC_ALL")

    def works_without(some: list[str]) -> bool:
        bare = {key: value for key, value in os.environ.items() if key not in some}
        if "LC_ALL" in some:
            bare["LC_ALL"] = "C.UTF-8"
        return not _result(_start(_PROBES[name], _python_of(name), bare))[1]

    if not suspects or not works_without(suspects):
        return []
    return next(([each] for each in suspects if works_without([each])), suspects)


def _devices(answer: dict) -> str:
    return ", ".join([*answer["devices"], "CPU"])


def _python_of(probe: str) -> Path:
    own = probe == "tensorflow" and accelerator() == "cuda" and TENSORFLOW_PYTHON.exists()
    return TENSORFLOW_PYTHON if own else Path(sys.executable)


def _start(code: str, python: Path = Path(sys.executable), variables: dict | None = None) -> subprocess.Popen:
    # files would be needed for long output; the probes write less than a pipe holds, and communicate() empties it.
    # -I: what is looked at is the environment, not what PYTHONPATH or the current folder put before it; see imports()
    variables = dict(os.environ) if variables is None else variables
    if home():
        variables["HOME"] = str(_home_instead())
    return subprocess.Popen(
        [python, "-I", "-c", code],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


def _result(probe: subprocess.Popen) -> tuple[dict, str]:
    """The JSON that a probe printed last, or {} and what went wrong in one line."""
    try:
        output, noise = probe.communicate(timeout=IMPORT_SECONDS)
    except subprocess.TimeoutExpired:
        probe.kill()
        return {}, f"does not come up within {IMPORT_SECONDS:g} s"
    if probe.returncode < 0:
        return {}, f"crashes ({signal.Signals(-probe.returncode).name})"
    if probe.returncode:
        return {}, f"cannot be used: {(noise.strip().splitlines() or ['no message'])[-1]}"
    return json.loads(output[output.index("{") :]), ""


# ------------------------------------------------------------------------------------------------ the GPU

QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader")
NEEDS = {"torch": ("13", 580, 7.5), "TensorFlow": ("12", 525, 6.0)}
"""Framework → major version of its CUDA wheels, and the oldest driver and compute capability that run them (NVIDIA's
table of minor version compatibility; CUDA 13 has dropped Maxwell, Pascal and Volta)."""
DRIVER_FILES = ("dev/nvidiactl", "dev/dxg")  # Linux; Windows' WSL
HOW_TO = "README.md, GPU, says what each system needs"


def gpu(build: str, torch_devices: list[str], tensorflow_devices: list[str]) -> list[Finding]:
    """The NVIDIA GPU as its driver describes it, and which framework does not use it and why. The CPU serves always."""
    if build == "cpu" and not shutil.which("nvidia-smi"):
        return []
    problem, cards = nvidia_smi()
    if build == "cpu":
        text = "is here, and this environment is the CPU build: with the CUDA container or `scripts/setup --accelerator"
        return [] if problem else [Finding(OK, "GPU", f"{cards[0][0]} {text} cuda` it is used")]
    if problem:
        return [Finding(WARNING, "GPU", f"{problem}; the CPU serves meanwhile")]
    name, driver, capability, size = cards[0]
    findings = []
    for framework, devices in (("torch", torch_devices), ("TensorFlow", tensorflow_devices)):
        cuda, oldest_driver, oldest_card = NEEDS[framework]
        if float(driver.split(".")[0]) < oldest_driver:
            reason = f"the driver {driver} is too old for CUDA {cuda}: install {oldest_driver} or newer on the host"
        elif float(capability) < oldest_card:
            reason = f"the card is too old for CUDA {cuda} (compute capability {capability}, {oldest_card} needed)"
        elif not devices and os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1", "NoDevFiles"):
            reason = f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}, which hides the card: unset it"
        elif not devices:
            reason = "driver and card would do: rebuild the container, or `scripts/setup --accelerator cuda`"
        else:
            continue
        findings.append(Finding(WARNING, "GPU", f"{framework} computes on the CPU; {reason}"))
    if len(findings) == len(NEEDS):
        return findings
    more = f" and {len(cards) - 1} more" if len(cards) > 1 else ""
    used = "" if findings else ", used by torch and TensorFlow"
    return [Finding(OK, "GPU", f"{name}, {size}{more}, driver {driver}{used}"), *findings]


def nvidia_smi() -> tuple[str, list[list[str]]]:
    """What is wrong, in one sentence; else for each GPU its name, driver, compute capability and memory."""
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, errors="replace", timeout=30)
    except FileNotFoundError:
        if any((Path("/") / file).exists() for file in DRIVER_FILES):
            return f"the driver is here and nvidia-smi is not: update the NVIDIA Container Toolkit ({HOW_TO})", []
        return (
            "none to be seen: the machine has no NVIDIA GPU; or, in a container, the NVIDIA Container Toolkit is "
            f"missing on the host ({HOW_TO})"
        ), []
    except subprocess.TimeoutExpired:
        return "nvidia-smi does not answer: the driver hangs; restart the machine", []
    said = " ".join((answer.stdout + answer.stderr).split())
    if answer.returncode == 0 and "," in answer.stdout:
        return "", [[field.strip() for field in line.split(",")] for line in answer.stdout.strip().splitlines()]
    cures = {
        "version mismatch": "the driver was updated while in use: restart the machine",
        "Unknown Error": "the container has lost the GPU: restart the container",
        "couldn't communicate": "the host's driver is not running: install or load it there",
        "is not a valid field": f"the driver is too old: install {NEEDS['torch'][1]} or newer on the host",
        "No devices": "the driver finds no GPU: is it switched off, or given to another machine?",
    }
    cure = next((cure for sign, cure in cures.items() if sign in said), HOW_TO)
    return f"{cure} (nvidia-smi says: {said})", []


# ------------------------------------------------------------------------------------------------ the machine


def memory() -> list[Finding]:
    """Free and total memory, within the container's limit where there is one."""
    free, total = memory_bytes()
    text = f"{free / GIB:.1f} GB free of {total / GIB:.1f} GB"
    if free < MEMORY_NEEDED:
        return [Finding(WARNING, "memory", f"{text}; a notebook may need 3 GB: shut down other kernels and programs")]
    return [Finding(OK, "memory", text)]


def memory_bytes() -> tuple[int, int]:
    """(free, total), the smaller of the machine's and the control group's (version 2, then 1)."""
    import psutil

    machine = psutil.virtual_memory()
    free, total = machine.available, machine.total
    for limit_file, used_file, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            limit, used = int((CGROUP / limit_file).read_text()), int((CGROUP / used_file).read_text())
            # cached files count as used, but give way when memory is asked for
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", (CGROUP / stat).read_text(), re.MULTILINE)
        except (OSError, ValueError):  # not this version; or "max", no limit
            continue
        if limit < total:
            return min(free, limit - used + int(cached[1] if cached else 0)), limit
    return free, total


def disk() -> list[Finding]:
    """Free disk where the repository lies, and for what programs keep at home and for the moment."""
    usage = shutil.disk_usage(root())
    text = f"{usage.free / GIB:.1f} GB free of {usage.total / GIB:.0f} GB"
    if usage.free < DISK_NEEDED:
        return [Finding(PROBLEM, "disk", text, f"free some disk: at least {DISK_NEEDED // GIB} GB are needed")]
    for place in (_existing(Path(os.path.expanduser("~"))), Path(tempfile.gettempdir())):
        if shutil.disk_usage(place).free < DISK_ELSEWHERE:
            return [Finding(PROBLEM, "disk", f"{place} is full", f"free some disk there: du -xhd1 {place} | sort -h")]
    return [Finding(OK, "disk", text)]


# ------------------------------------------------------------------------------------------------ the repository


def data(full: bool = False) -> list[Finding]:
    """Whether the data that ships is there in full size; with `full` its checksums too."""
    from atlas import data

    try:
        entries = data.catalog()
        here = [entry for entry in entries.values() if entry.expected]
        if full:
            broken = [(str(finding.file.name) + " " + finding.problem, finding.repair) for finding in data.verify()]
        else:
            broken = [
                (f"{each.name} is missing or damaged", f"atlas data verify {each.name}")
                for each in here
                if not each.is_here()
            ]
    except CourseError as error:
        text, _, repair = str(error).partition("\nTo repair: ")
        return [Finding(PROBLEM, "data", text, _without_git(repair))]
    if broken:
        return [Finding(PROBLEM, "data", _some([text for text, _ in broken]), _without_git(broken[0][1]))]
    how = "checksums right" if full else "sizes right (checksums: atlas doctor --full)"
    return [Finding(OK, "data", f"{_some([each.name for each in here])}; {how}")]


def _without_git(repair: str) -> str:
    """In a copy that was downloaded as a zip there is nothing to check out from."""
    if (root() / ".git").exists() or not repair.startswith("git checkout -- "):
        return repair
    return f"download the course again, and copy {repair.removeprefix('git checkout -- ')} from there"


def git() -> list[Finding]:
    """Whether this is a git repository, its branch, and how many files the learner changed."""
    try:
        branch = _git("rev-parse", "--abbrev-ref", "HEAD").strip()
        changes = len(_git("status", "--porcelain").splitlines())
    except FileNotFoundError:
        return [Finding(WARNING, "git", "is not installed; without it the kit cannot be updated")]
    except subprocess.SubprocessError as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        return [Finding(WARNING, "git", f"no repository to update from: {reason}")]
    return [Finding(OK, "git", f"branch {branch}, {changes or 'no'} changed file{'' if changes == 1 else 's'}")]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(root()), *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, encoding="utf-8", errors="replace", timeout=30
    ).stdout


def progress_file() -> list[Finding]:
    """Whether progress can be read and written."""
    try:
        folder = state_dir()
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} is not writable")
    except OSError as error:
        return [Finding(WARNING, "progress", f"cannot be kept: {error}")]
    trouble = progress.trouble() or _lock_trouble(folder)
    if trouble:
        return [Finding(WARNING, "progress", trouble)]
    count = len(progress.read()["workshops"])
    return [Finding(OK, "progress", f"{count or 'no'} workshop{'' if count == 1 else 's'} begun")]


def _lock_trouble(folder: Path) -> str:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / "progress.lock", timeout=0):
            return ""
    except Timeout:
        return ""
    except OSError as error:
        cure = 'export ATLAS_STATE="$HOME/.atlas"'
        return f"{folder} lies on a disk without locks ({error.strerror}); to keep progress elsewhere: {cure}"


def again(*steps: str) -> str:
    """The command that does steps of the set-up again."""
    setup = root() / "scripts" / "setup"
    command = "sh scripts/setup" if setup.exists() and not os.access(setup, os.X_OK) else "scripts/setup"
    stamps = [shlex.quote(_shown(STAMPS / step)) for step in steps if (STAMPS / step).exists()]
    return f"rm -f {' '.join(stamps)} && {command}" if stamps else command


def anew() -> str:
    """The command that makes the environment anew: for what is installed as in the lock and still does not work."""
    return f"rm -rf {shlex.quote(_shown(Path(sys.prefix)))} && {again()}"


def _shown(path: Path) -> str:
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else str(path)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _some(items: list[str], most: int = 5) -> str:
    """The items, or the first few and how many more."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more if items else "none"
