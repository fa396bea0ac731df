"""What a person has set for other work and what reaches into the course: variables, a locale, files beside a notebook.

Each is named with where it stands, what it does here and how to do without it. What is neutralised is not named:
scripts/setup and scripts/start leave out what is meant for other Pythons, and each Python of the environment leaves out
the settings of Keras, Matplotlib and IPython in the home folder (scripts/environment.py, AT_EVERY_START).
"""

import locale
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Setting(NamedTuple):
    """One thing that is set, in a sentence, and the command that sets it back."""

    says: str
    cure: str


CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
VARIABLES = {
    "PYTHONOPTIMIZE": (r"[^0]", "Python leaves out every `assert`"),
    "PYTHONWARNINGS": (r"\berror\b", "a mere warning of a library ends the program"),
    "PYTHONSAFEPATH": (r".", "a script does not find the modules beside it"),
    "OMP_WAIT_POLICY": (r"(?i)active", "threads that wait take the cores from those that compute"),
    "TF_ENABLE_ONEDNN_OPTS": (r"0", "TensorFlow's convolutions take twice as long"),
    "ATEN_CPU_CAPABILITY": (r"default", "PyTorch leaves the processor's fast instructions unused"),
    "CUDA_LAUNCH_BLOCKING": (r"1", "the GPU waits for Python after each operation"),
    "MATPLOTLIBRC": (r".", "figures may look other than the text says"),
}
"""Variable → what its value looks like where it does harm, and the harm."""
UTF8 = "export LC_ALL=C.UTF-8"
STARTUP = (".bashrc", ".bash_profile", ".bash_login", ".profile", ".zshenv", ".zprofile", ".zshrc")
"""What shells read in the home folder."""


def found(folders: Iterable[Path], cores: int) -> list[Setting]:
    """All that is set and does harm here. `folders`: where notebooks lie; `cores`: how many the machine lets us use."""
    settings = [
        _variable(name, harm)
        for name, (harmful, harm) in VARIABLES.items()
        if (value := os.environ.get(name)) and re.search(harmful, value) and value != os.devnull
    ]
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if threads.isdecimal() and 0 < int(threads) < cores:
        settings.append(_variable("OMP_NUM_THREADS", f"training uses {threads} of {cores} cores"))
    for name in CERTIFICATES:
        if (place := os.environ.get(name)) and not os.path.exists(place):
            settings.append(_variable(name, "that is not there, and so downloads fail"))
    return settings + _python() + _locale() + [each for folder in folders for each in _beside(folder)]


def where(name: str) -> str:
    """The file and line where a shell sets the variable, such as "~/.bashrc, line 12", or nothing."""
    home = Path(os.path.expanduser("~"))
    files = [*(home / each for each in STARTUP), home / ".config/fish/config.fish", Path("/etc/environment")]
    for file in [*files, *sorted(Path("/etc/profile.d").glob("*.sh"))]:
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for number, line in enumerate(lines, 1):
            if re.match(rf"[^#]*\b{name}[= ]", line):
                shown = f"~/{file.relative_to(home)}" if file.is_relative_to(home) else str(file)
                return f"{shown}, line {number}"
    return ""


def _variable(name: str, harm: str) -> Setting:
    place = where(name)
    stands = f" (it stands in {place})" if place else ""
    return Setting(f"{name} is set to {os.environ[name]!r}{stands}: {harm}", f"unset {name}")


def _python() -> list[Setting]:
    """Another environment is active, so that `python` in this terminal is not the course's."""
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        other, python = os.environ.get(name), shutil.which("python")
        ours = python and Path(python).parent.resolve() == Path(sys.prefix, "bin").resolve()
        if other and not ours and Path(other).resolve() != Path(sys.prefix).resolve():
            activate = shlex.quote(f"{sys.prefix}/bin/activate")
            return [Setting(f"`python` in this terminal is that of {other}, not the course's", f"source {activate}")]
    return []


def foreign_encoding() -> str:
    """How text files and file names are read here where that is not UTF-8; else nothing."""
    encoding = "utf-8" if sys.flags.utf8_mode else locale.getencoding()
    return "" if encoding.lower().replace("-", "") == "utf8" else encoding


def _locale() -> list[Setting]:
    encoding = foreign_encoding()
    return [Setting(f"files are read as {encoding} here, and the course's are UTF-8", UTF8)] if encoding else []


def _beside(folder: Path) -> list[Setting]:
    file = folder / "matplotlibrc"
    return [Setting(f"{file} changes the figures of what runs there", f"rename {file}")] if file.is_file() else []
