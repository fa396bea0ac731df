"""Make the environment that the course runs in: `scripts/setup` calls this with Python 3.11 and nothing else.

Every step leaves a stamp in the environment when it is done, so that a second call has nothing to do and
an interrupted one goes on where it stopped. Standard library only.

Environment variables: ATLAS_VENV, where the virtual environment is made instead of `.venv` in the repository.
"""

import argparse
import contextlib
import errno
import functools
import getpass
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = Path(os.environ.get("ATLAS_VENV") or ROOT / ".venv").absolute()
PYTHON = VENV / "bin" / "python"
ISOLATED = ("-I", "-X", "utf8")  # from what is set for other Pythons, and from the locale (a path may not fit into it)
STATE = VENV / ".setup"  # stamps, the lock against a second set-up, pip's temporary files
LOG = ROOT / ".atlas" / "setup.log"
LOCKS = ROOT / "scripts" / "locks"

# Beside a CUDA build of torch, TensorFlow has an environment of its own, because the CUDA libraries that torch 2.13
# (CUDA 13) and TensorFlow 2.21 (CUDA 12) bring as wheels overwrite each other's files (nvidia/nccl/lib/libnccl.so.2).
# The kernel goes there for the workshops that say so (scripts/atlas/kernel.py).
TENSORFLOW_PYTHON = VENV.with_name(VENV.name + "-tensorflow") / "bin" / "python"
# The locks' platforms, as in [tool.uv] of pyproject.toml, and the glibc that the wheels of both frameworks need.
PLATFORMS = {("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")}
GLIBC = (2, 28)
# Every Python of the environment runs these lines. OpenMP's threads spin while they wait, by default; where a second
# program wants a core, two spinning threads train ten times slower than two that sleep (measured on 2 cores). OpenBLAS,
# NumPy's, spins whatever one sets: one thread. torch has threads of its own and keeps both cores.
# The others take back what a person has set for other work, where it would break the course: another backend for Keras
# (which is not installed), the settings of Keras, IPython and Matplotlib in the home folder, and in a kernel a program
# that begins first and a Matplotlib that draws elsewhere than in the notebook.
AT_EVERY_START = """\
import os; os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE"); os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import os; os.environ["KERAS_BACKEND"] = "tensorflow"; os.environ.pop("TF_USE_LEGACY_KERAS", None)
import os, sys; os.environ.setdefault("KERAS_HOME", os.path.join(sys.prefix, "share", "keras"))
import os, sys; os.environ.setdefault("IPYTHONDIR", os.path.join(sys.prefix, "share", "ipython"))
import os; os.environ.setdefault("MATPLOTLIBRC", os.devnull)
import os, sys; [os.environ.pop(n, 0) for n in ("MPLBACKEND", "PYTHONSTARTUP") if "ipykernel_launcher" in sys.orig_argv]
"""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
# measured: the environment, pip's cache and what pip unpacks on the way, with a margin
NEEDED_GB = {"cpu": 5.5, "cuda": 16.5, "cuda-tensorflow": 14.0}
MEMORY_STOP_GB, MEMORY_WARN_GB = 3.0, 7.0
# what pip says when no package index can be reached
NO_INDEX = (
    r"NewConnectionError|Max retries|timed out|Temporary failure|ConnectionError|ProxyError|No matching distribution"
)
# of what a person has set for pip: where packages come from, and how they are fetched; not what is installed, nor where
PIP_KEPT = {
    f"PIP_{name}"
    for name in (
        *("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "TRUSTED_HOST", "PROXY", "CERT", "CLIENT_CERT"),
        *("TIMEOUT", "DEFAULT_TIMEOUT", "RETRIES", "CACHE_DIR", "NO_CACHE_DIR", "CONFIG_FILE", "KEYRING_PROVIDER"),
    )
}
CERTIFICATES = {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "PIP_CLIENT_CERT"}
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Stop(Exception):
    """Set-up cannot go on; the message says why and what the person can do."""


class CommandFailed(Exception):
    """A command of a step failed; carries the end of what it printed."""


# --- checks: before anything is downloaded ---------------------------------------------------------------------------


def check_platform() -> None:
    """Stop where no wheels are: pip would only say that it finds none, after minutes."""
    if sys.platform in ("win32", "cygwin", "msys"):
        raise Stop(
            "this is a Python of Windows; the course runs in the Linux that Windows brings along (WSL).\n"
            "  In PowerShell: wsl --install        then open Ubuntu from the start menu, clone the repository there\n"
            "  (in its home folder, not under /mnt/c) and call scripts/start in it.\n"
            "Or open the repository in Codespaces or a Dev Container: nothing else is needed there."
        )
    known = (sys.platform, platform.machine()) in PLATFORMS and sys.maxsize > 2**32
    library, version = platform.libc_ver() if sys.platform == "linux" else ("", "")
    if known and sys.platform == "linux":
        known = library == "glibc" and tuple(map(int, version.split(".")[:2])) >= GLIBC
    if not known:
        described = f"{platform.system()} on {platform.machine()} {platform.architecture()[0]}".strip()
        described += f" with {library or 'another C library than glibc'} {version}".rstrip() * (sys.platform == "linux")
        raise Stop(
            f"for this Python ({described}) there is no PyTorch and TensorFlow.\n"
            "  They are made for Linux with glibc 2.28 or newer (x86_64, aarch64) and for Macs with Apple silicon\n"
            "  (on such a Mac this Python is one for Intel: install one for arm64).\n"
            "Or open the repository in Codespaces or a Dev Container: there it does not matter."
        )


def check_place() -> None:
    """Stop where the course or its environment cannot live: before anything is made, and each time."""
    for folder in (ROOT, ROOT / ".atlas", LOG, VENV, STATE, STATE / "lock"):
        nearest = existing(folder)
        if not os.access(nearest, os.W_OK):
            raise Stop(refused(nearest))
    if os.pathsep in str(VENV):
        raise Stop(f"{VENV}: with a `{os.pathsep}` in its path no environment works. {elsewhere()}")
    if os.statvfs(existing(VENV)).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise Stop(f"{VENV} would lie on a disk from which nothing may be run (noexec). {elsewhere()}")


def check_links() -> None:
    """Stop where an environment cannot be made because the file system knows no symbolic links (exFAT, some shares)."""
    link = STATE / "link"
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(STATE)
        link.unlink()
    except OSError as error:
        if error.errno in FULL:
            raise
        raise Stop(f"{VENV} would lie on a disk without symbolic links. {elsewhere()}") from None


def refused(path: Path) -> str:
    """What to do about a file or folder that may not be written."""
    if os.statvfs(existing(path)).f_flag & os.ST_RDONLY:
        return f"{path} lies on a disk that can only be read. Copy the course's folder to a place of your own."
    me, owner = user(), "somebody else"
    with contextlib.suppress(OSError, KeyError):
        owner = path.owner()
    mine = VENV if path.is_relative_to(VENV) else ROOT
    return (
        f"{path} cannot be written: it belongs to {owner}, and you are {me}.\n"
        f"  To make it yours: sudo chown -R {shlex.quote(me)} {shlex.quote(str(mine))}\n"
        "  Or copy the course's folder to a place of your own, and go on there."
    )


def elsewhere() -> str:
    return "Put the environment elsewhere: ATLAS_VENV=/another/place/atlas scripts/start"


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, as in some containers
        return str(os.getuid())


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path


def check_python() -> str:
    if sys.version_info[:2] != (3, 11):
        raise Stop(f"this is Python {platform.python_version()}; the course needs 3.11. scripts/setup looks for it.")
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise Stop(
                f"Python {platform.python_version()} has no `{module}` module.\n"
                "  Debian, Ubuntu: sudo apt install python3.11-venv\n"
                "  elsewhere: install Python 3.11 from python.org, brew or conda\nThen call the same command again."
            )
    return f"Python {platform.python_version()}"


def free_gb(folder: Path) -> float:
    return shutil.disk_usage(existing(folder)).free / 1e9


def check_disk(needed: float) -> str:
    free = free_gb(VENV)
    if free < needed:
        raise Stop(
            f"{free:.1f} GB are free where {VENV} goes; set-up needs {needed:.1f} GB.\n"
            "  See what is large: du -xhd1 ~ | sort -h        pip's downloads: pip cache purge\n"
            "  Or put the environment on another disk: ATLAS_VENV=/other/disk/atlas scripts/setup"
        )
    return f"{free:.0f} GB of disk free ({needed:.0f} needed)"


def memory_gb() -> float:
    """Memory of the machine, or of the container if that has less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # "max", or no cgroup v2
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total / 1e9


def check_memory() -> str:
    memory = memory_gb()
    if memory < MEMORY_STOP_GB:
        raise Stop(
            f"{memory:.1f} GB of memory; a workshop needs {MEMORY_STOP_GB:.0f} GB, 8 GB are comfortable.\n"
            "  In Docker Desktop: Settings, Resources, Memory. In Codespaces: choose the machine with 8 GB."
        )
    if memory < MEMORY_WARN_GB:
        return f"{memory:.1f} GB of memory: enough for one notebook at a time, close others (8 GB are comfortable)"
    return f"{memory:.0f} GB of memory"


# --- running commands, with something to look at ---------------------------------------------------------------------


def quiet_environment() -> dict[str, str]:
    """The environment for what is called here: the user's, without what would install something else, or elsewhere."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_")) or k in PIP_KEPT}
    for name in CERTIFICATES & keep.keys():
        if not os.path.exists(keep[name]):
            del keep[name]
    quiet = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    return keep | quiet | {"PIP_USER": "0", "PYTHONUTF8": "1", "TMPDIR": str(STATE / "tmp")}


def run(*command: object, check: bool = True) -> str:
    """Run a command, its output into the log; a line on the terminal shows that it lives. Returns what it printed."""
    LOG.parent.mkdir(exist_ok=True)
    (STATE / "tmp").mkdir(parents=True, exist_ok=True)
    with LOG.open("a+b") as log:
        log.write(os.fsencode("\n$ " + " ".join(map(str, command)) + "\n"))
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=quiet_environment(), cwd=ROOT
        )
        try:
            while True:
                try:
                    process.wait(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    display.tick(log.name)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        log.seek(begin)
        output = log.read().decode(errors="replace")
    if check and process.returncode:
        raise CommandFailed(output)
    return output


def pip(*arguments: object) -> str:
    return run(PYTHON, *ISOLATED, "-m", "pip", *arguments)


@functools.cache
def check_pip_configuration() -> None:
    """A variable can be left out of pip's environment; what its own files say cannot, without their package index."""
    found = re.findall(r"^(?:global|install)\.(?:target|prefix|root|python|no-binary)=.*", pip("config", "list"), re.M)
    if found:
        raise Stop(
            f"pip's own configuration would install something else, or elsewhere: {', '.join(found)}\n"
            f"  To take that out: python3 -m pip config unset {found[0].partition('=')[0]}\n"
            "  Where it stands: python3 -m pip config debug\n"
            "  To do without it this time: PIP_CONFIG_FILE=/dev/null scripts/setup"
        )


class Display:
    """Progress: one line that moves on a terminal, one plain line a step elsewhere."""

    def __init__(self) -> None:
        self.label = ""
        self.begin = self.next_sign = 0.0
        self.moving = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    @contextlib.contextmanager
    def step(self, label: str) -> Iterator[None]:
        self.label, self.begin = label, time.monotonic()
        self.next_sign = self.begin + 20
        self.tick()
        yield
        print(f"{self.clear()}{label}: {time.monotonic() - self.begin:.1f} s", flush=True)

    def clear(self) -> str:
        return "\r\033[K" if self.moving else ""

    def tick(self, log: str | None = None) -> None:
        now = time.monotonic()
        if self.moving:
            activity = last_line(Path(log)) if log else ""
            line = f"{self.label} {now - self.begin:4.0f} s  {activity}"
            print(self.clear() + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)
        elif now > self.next_sign:
            print(f"{self.label}: {now - self.begin:.0f} s so far", flush=True)
            self.next_sign = now + 20


display = Display()


def last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def diagnose(output: str) -> str:
    """What to do about a command that failed, from what it printed."""
    end = "\n".join("    " + line for line in output.strip().splitlines()[-6:])
    if re.search("No space left on device|Disk quota exceeded", output) or free_gb(VENV) < 0.1:
        cure = disk_is_full()
    elif re.search("Permission denied|Read-only file system", output):
        cure = f"{VENV} cannot be written. {elsewhere()}"
    elif "DO NOT MATCH THE HASHES" in output:
        cure = (
            "A downloaded file is not the one that the lock names: a broken download, or a mirror that changes files.\n"
            "Call the same command again with PIP_NO_CACHE_DIR=1; if it stays, ask whoever runs the package index."
        )
    elif re.search("CERTIFICATE_VERIFY_FAILED|TLS CA certificate bundle", output):
        cure = (
            "The package index shows a certificate that pip does not trust, or pip is told of one that is not there:\n"
            "`pip config list` (cert) and SSL_CERT_FILE, REQUESTS_CA_BUNDLE say which; behind a company's proxy it is "
            "the company's.\nThen call the same command again."
        )
    elif re.search(NO_INDEX, output):
        proxies = sorted(name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy"))
        proxy = f"{' and '.join(proxies)}: is that proxy there?" if proxies else "behind a proxy: set HTTPS_PROXY"
        cure = (
            f"The package index did not answer, or does not have the package. Check the network ({proxy};\n"
            "a company's index: `pip config set global.index-url ...`), then call the same command again."
        )
    else:
        fresh = f"rm -rf {shlex.quote(str(VENV))}"
        cure = f"Call the same command again; if it stays, `{fresh}` makes a fresh start."
    return f"a command failed:\n{end}\n{cure} What is done stays done.\nEverything that was printed: {LOG}"


def disk_is_full() -> str:
    return f"The disk is full ({free_gb(VENV):.1f} GB free). Make room, then call the same command again."


def explain(error: Exception) -> str:
    """Why set-up stopped, and what to do."""
    if isinstance(error, CommandFailed):
        return diagnose(str(error))
    if isinstance(error, Stop):
        return str(error)
    if error.errno in FULL:
        return f"{error}\n{disk_is_full()} What is done stays done."
    if error.errno in REFUSED:
        return refused(Path(error.filename or VENV))
    return str(error)


# --- steps -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    name: str
    title: str
    key: Callable[[], str]  # what the step depends on: it is done if the stamp says the same
    run: Callable[[], None]

    @property
    def done(self) -> bool:
        with contextlib.suppress(OSError):
            return (STATE / self.name).read_text() == self.key()
        return False

    def stamp(self) -> None:
        (STATE / self.name).write_text(self.key())


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(p) for p in parts]).encode()).hexdigest()


def accelerator() -> str:
    """What this environment was asked to be; a later call without --accelerator stays with it."""
    with contextlib.suppress(OSError):
        return (STATE / "accelerator").read_text()
    return "cpu"


def lock() -> Path:
    return LOCKS / f"{accelerator()}.txt"


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def torch_pin() -> str:
    return next(d for d in pyproject()["project"]["dependencies"] if d.startswith("torch=="))


def works() -> bool:
    """Is VENV a virtual environment that runs, of this Python version, and at the place it was made for?"""
    try:
        question = "import sys; print(sys.prefix, *sys.version_info[:2])"
        command = [PYTHON, *ISOLATED, "-c", question]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return answer.stdout.split("\n")[0] == f"{VENV} 3 11" and str(VENV) in (VENV / "bin" / "pip").read_text()
    except (OSError, subprocess.TimeoutExpired):
        return False


def refuse_foreign_folder() -> None:
    """Never empty a folder that is something else: a virtual environment has pyvenv.cfg, a half-made one our stamps."""
    made = (VENV / "pyvenv.cfg").exists() or (STATE / "accelerator").exists()
    if VENV.exists() and not made and {path.name for path in VENV.iterdir()} - {STATE.name}:
        raise Stop(
            f"{VENV} holds files and is not a virtual environment: not touched. Set ATLAS_VENV to another place."
        )


def clear_environment() -> None:
    """Empty VENV, except for the lock that this process holds."""
    for path in (*VENV.iterdir(), *STATE.iterdir()):
        if path not in (STATE, STATE / "lock", STATE / "accelerator"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def make_venv() -> None:
    check_links()
    clear_environment()
    run(sys.executable, "-m", "venv", VENV)


def remove_half_installed() -> None:
    """After a kill: forget what pip did not finish (it writes INSTALLER last), so that it is installed again."""
    for packages in VENV.glob("lib/python*/site-packages"):
        for info in packages.glob("*.dist-info"):
            if not (info / "INSTALLER").exists():
                shutil.rmtree(info)
        for remains in packages.glob("~*"):
            shutil.rmtree(remains) if remains.is_dir() else remains.unlink()


def install(requirements: Path, *options: object) -> None:
    remove_half_installed()
    check_pip_configuration()
    # pip would compile on one core while it installs: trim_and_compile does it on all
    pip("install", "--no-deps", "--no-compile", "--require-hashes", "-r", requirements, *options)


def update_pip() -> None:
    """The pinned pip, from the lock: an older one cannot learn a wheel's requirements without downloading the wheel."""
    block = re.search(r"^pip==.*?(?=^\S)", lock().read_text(), re.MULTILINE | re.DOTALL)
    (STATE / "pip.txt").write_text(block[0])
    install(STATE / "pip.txt")


def torch_report(options: tuple[str, ...]) -> dict | None:
    """What pip would install as torch: its report (version, file, hash, requirements), or None if it finds nothing."""
    report = STATE / "torch.json"
    report.unlink(missing_ok=True)
    look = ("install", "--dry-run", "--ignore-installed", "--no-deps", "--use-feature=fast-deps", "--report", report)
    with contextlib.suppress(CommandFailed):
        pip(*look, *options, torch_pin())
        return json.loads(report.read_text())["install"][0]
    return None


def cuda_requirements(report: dict) -> list[str]:
    """Names of the NVIDIA and Triton packages that this torch wants on this machine."""
    sys.path[:0] = map(str, VENV.glob("lib/python*/site-packages"))
    try:
        from pip._vendor.packaging.requirements import Requirement
    finally:
        del sys.path[0]
    wanted = (Requirement(text) for text in report["metadata"].get("requires_dist", ()))
    named = [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [name for name in named if re.match(r"nvidia-|cuda-|triton|pytorch-triton", name)]


def known_hashes() -> dict[str, str]:
    lines = (line.split() for line in (LOCKS / "torch-cpu.sha256").read_text().splitlines())
    return {file: sha256 for sha256, file in lines}


def install_torch() -> None:
    """torch, CPU build: from PyTorch's CPU index if it answers within seconds, else from where pip is told to look."""
    refused = None
    for options in (("--index-url", CPU_INDEX, "--timeout", "5", "--retries", "0"), ()):
        report = torch_report(options)
        if report is None:
            continue
        if cuda := cuda_requirements(report):
            refused = f"torch {report['metadata']['version']} there wants {len(cuda)} CUDA packages, {cuda[0]} for one"
            continue
        source = report["download_info"]
        file = source["url"].split("#")[0].rsplit("/", 1)[-1].replace("%2B", "+")
        sha256 = source["archive_info"].get("hashes", {}).get("sha256")
        if sha256 is None:
            raise Stop(f"the package index gives no SHA-256 for {source['url']}: it cannot be verified.")
        if known_hashes().get(file, sha256) != sha256:
            raise Stop(f"{source['url']} has SHA-256 {sha256}, not the one in scripts/locks/torch-cpu.sha256.")
        (STATE / "torch.txt").write_text(f"torch=={report['metadata']['version']} --hash=sha256:{sha256}\n")
        # of a silent index only the search is told: asked again, pip would wait for it five times
        return install(STATE / "torch.txt", *(options[:2] if "pytorch.org/" in source["url"] else ()))
    if refused is None:
        raise Stop(diagnose(last_output()))
    raise Stop(
        f"pip would install a CUDA build: {refused}, about 5 GB in all. Nothing was downloaded.\n"
        f"  The CPU build is at {CPU_INDEX}, which did not answer. Either let this machine reach it,\n"
        "  or put its wheel into a folder and call: PIP_FIND_LINKS=/that/folder scripts/setup\n"
        "  or, if you want CUDA on this machine: scripts/setup --accelerator cuda"
    )


def last_output() -> str:
    return LOG.read_text(errors="replace").rsplit("\n$ ", 1)[-1]


def install_packages() -> None:
    install(lock())
    check_requirements()


def check_requirements() -> None:
    """`pip check`, apart from what is left out on purpose: the programs that packages with weights ask for."""
    overrides = (LOCKS / "without-what-weights-ask.txt").read_text()
    left_out = "|".join(re.findall(r"^([\w-]+) ;", overrides, re.MULTILINE))
    meant = rf"No broken requirements found\.|\S+ \S+ requires ({left_out}), which is not installed\."
    output = run(PYTHON, *ISOLATED, "-m", "pip", "check", check=False)
    if wrong := [line for line in output.splitlines() if line.strip() and not re.fullmatch(meant, line)]:
        raise CommandFailed("\n".join(wrong))


def trim_and_compile() -> None:
    """Take out what no learner imports, then bytecode on all cores: without it `import torch` computes 4.4 s instead of
    1.9, `import tensorflow` 12 instead of 4.5. Some files are templates and do not compile: no matter.

    Measured: headers 350 MB (nothing reads them without a compiler), packages' own tests 120 MB, torch's tests and test
    programs 130 MB, onnx's 18 MB, libclang 62 MB (TensorFlow names it and never loads it), and torchao's libraries for
    CUDA 13 MB: without CUDA their loading fails, with two warnings at each import.
    """
    for packages in VENV.glob("lib/python3.*/site-packages"):
        unused = ["test", "**/tests", "**/*.a", "torch/test", "onnx/backend/test/data", "clang/native"]
        unused += [f"torch/bin/{name}" for name in ("*Test", "test_*", "*.ptl", "protoc*")]
        if not shutil.which("g++"):
            unused += ["torch/include", "tensorflow/include"]
        if accelerator() == "cpu":
            unused += ["torchao/_C_cutlass*", "torchao/_C_mxfp8*"]
        for path in [path for pattern in unused for path in packages.glob(pattern)]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    run(PYTHON, *ISOLATED, "-m", "compileall", "-q", "-j", "0", "-x", "/testing/", VENV / "lib", check=False)


def install_course() -> None:
    pip("install", "--no-deps", "--no-build-isolation", "--no-index", "-e", ROOT)
    # once more than pip's own .pth, which Python misreads where the path has other letters than the locale
    path = f"import os, sys; p = os.fsdecode({os.fsencode(ROOT / 'scripts')!r}); p in sys.path or sys.path.append(p)\n"
    (VENV / "lib" / "python3.11" / "site-packages" / "openmlatlas.pth").write_text(AT_EVERY_START + path)


def tensorflow() -> list[Path]:
    """The Python of TensorFlow's own environment, where it has one."""
    return [TENSORFLOW_PYTHON] if accelerator() == "cuda" and TENSORFLOW_PYTHON.exists() else []


def install_kernel() -> None:
    run(PYTHON, *ISOLATED, "-m", "atlas.kernel", *tensorflow())


def data_state() -> str:
    files = sorted(path for path in (ROOT / "datasets").rglob("*") if path.is_file())
    return digest(*((path.relative_to(ROOT), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


def verify_data() -> None:
    try:
        run(VENV / "bin" / "atlas", "data", "verify")
    except CommandFailed as failed:
        if "Traceback" in str(failed):
            raise
        cure = "`git checkout -- datasets` restores it."
        if not (ROOT / ".git").exists():
            cure = "Unpack the download again, and copy its folder `datasets` over this one."
        raise Stop(f"the data that ships with the course is not as it should be:\n{failed}\n  {cure}") from None


def steps(only_environment: bool = False, data: bool = True) -> list[Step]:
    def packages_key() -> str:
        return digest(torch_pin(), lock().read_text())

    def course_key() -> str:
        return digest(ROOT, AT_EVERY_START, pyproject()["project"]["version"], pyproject()["project"]["scripts"])

    def kernel_key() -> str:
        names = (ROOT / "scripts" / "atlas" / name for name in ("kernel.py", "course.py"))
        return digest(packages_key(), tensorflow(), *(path.read_text() for path in names))

    environment = [
        Step("venv", "virtual environment", lambda: digest(VENV), make_venv),
        Step("pip", "pip", lambda: digest(re.search(r"^pip==\S+", lock().read_text(), re.MULTILINE)[0]), update_pip),
        Step("torch", "PyTorch, CPU build", lambda: digest(torch_pin()), install_torch),
        Step("packages", "TensorFlow, Jupyter and the rest, from the lock", packages_key, install_packages),
        Step("bytecode", "trimming and compiling", packages_key, trim_and_compile),
    ]
    if accelerator() != "cpu":  # the lock for cuda holds torch and what it needs; beside TensorFlow's CUDA none goes
        environment = [step for step in environment if step.name != "torch"]
    if only_environment:
        return environment
    here = [
        Step("course", "the course's own package", course_key, install_course),
        Step("kernel", "Jupyter kernel", kernel_key, install_kernel),
    ]
    if accelerator() == "cuda-tensorflow":  # a kernel of the environment beside it, which offers and verifies
        return environment + here[:1]
    verify = (
        [Step("data", "verifying the data", data_state, verify_data)] if data and (ROOT / "datasets").exists() else []
    )
    return environment + here + verify


def choose_accelerator(asked: str | None) -> None:
    if asked in (None, accelerator()):
        return
    if asked != "cpu" and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Stop(f"--accelerator {asked} is for Linux on x86_64. On a Mac the default uses the GPU (MPS) already.")
    if (STATE / "packages").exists():  # never two builds of torch on one disk
        clear_environment()
    (STATE / "accelerator").write_text(asked)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the lock: a second set-up of the same environment waits for the first."""
    import fcntl  # Windows has none; check_platform has spoken by now

    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another set-up of this environment is at work: waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # some network drives
            print("this disk has no locks: see that no second set-up of this environment runs", flush=True)
        yield


def restore_execute_bits() -> None:
    """Give back to the scripts what Windows or a browser took; in a repository it is its owner's to commit."""
    if (ROOT / ".git").exists():
        return
    for file in (*ROOT.glob("scripts/*"), *ROOT.glob(".devcontainer/*")):
        if file.is_file() and not os.access(file, os.X_OK) and file.read_bytes()[:2] == b"#!":
            file.chmod(file.stat().st_mode | 0o111)


def adopt_or_reset() -> None:
    """Before the steps: a moved, broken or half-made environment is made again; a good one of other make is kept."""
    made_here = Step("venv", "", lambda: digest(VENV), make_venv)
    if works() and (made_here.done or not (STATE / "accelerator").exists()):
        return made_here.stamp()
    if made_here.done or (VENV / "pyvenv.cfg").exists():
        print(f"{VENV} was moved, damaged or left half made: making it again")
    (STATE / "venv").unlink(missing_ok=True)


def set_up(arguments: argparse.Namespace) -> None:
    begin = time.monotonic()
    restore_execute_bits()
    choose_accelerator(arguments.accelerator)
    adopt_or_reset()
    (STATE / "accelerator").write_text(accelerator())
    plan = steps(arguments.only == "environment", arguments.data)
    pending = [step for step in plan if not step.done]
    if {"torch", "packages"} & {step.name for step in pending}:
        print("\n".join("  " + line for line in checks(accelerator())))
    for number, step in enumerate(plan, 1):
        if not step.done:
            with display.step(f"[{number}/{len(plan)}] {step.title}"):
                step.run()
                step.stamp()
    shutil.rmtree(STATE / "tmp", ignore_errors=True)
    if pending:
        print(f"Set up in {time.monotonic() - begin:.0f} s.", end=" ")
    start = "scripts/start" if os.access(ROOT / "scripts" / "start", os.X_OK) else "sh scripts/start"
    print(f"Ready. Type: {start}" if arguments.only is None else "The environment is ready.")


def checks(accelerator: str) -> list[str]:
    return [check_python(), check_disk(NEEDED_GB[accelerator]), check_memory()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/setup", description="Make the environment that the course runs in.")
    parser.add_argument("--accelerator", choices=tuple(NEEDED_GB), help="which build (default: cpu, or as made)")
    parser.add_argument("--check", action="store_true", help="only check Python, disk and memory")
    parser.add_argument("--only", choices=("environment",), help="leave out the course itself (for an image's layer)")
    parser.add_argument("--no-data", dest="data", action="store_false", help="leave out verifying the data")
    arguments = parser.parse_args()
    try:
        check_platform()
        if arguments.check:
            print("\n".join(checks(arguments.accelerator or accelerator())))
        else:
            check_place()
            refuse_foreign_folder()
            with alone():
                set_up(arguments)
    except (Stop, CommandFailed, OSError) as problem:
        print(f"{display.clear()}set-up stopped: {explain(problem)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{display.clear()}stopped; call the same command again to go on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
