"""The one kernel of all notebooks: scripts/setup registers it, and where there are two environments it finds its own.

Editors choose a kernel without a question only where there is one. VS Code counts an environment and a kernelspec of
another name than Jupyter's own as two (tests/test_kernels.py says what it counts), so the kernel has Jupyter's own.
"""

import contextlib
import json
import os
import shutil
import sys
import tomllib
from pathlib import Path

from atlas.course import ENVIRONMENTS, KERNEL, KERNEL_TITLE, root

TORCH, TENSORFLOW = ENVIRONMENTS


def register(tensorflow: str = "") -> None:
    """Make it the one kernel of this environment, and Jupyter offer no other.

    `tensorflow` is the Python of TensorFlow's own environment, where that has one (scripts/environment.py says why).
    """
    from ipykernel import kernelspec

    prefix = Path(sys.prefix)
    shutil.rmtree(prefix / "share" / "jupyter" / "kernels", ignore_errors=True)
    kernelspec.install(prefix=sys.prefix, kernel_name=KERNEL, display_name=KERNEL_TITLE)
    only = {"KernelSpecManager": {"ensure_native_kernel": False, "allowed_kernelspecs": [KERNEL]}}
    _write(prefix / "etc" / "jupyter" / "jupyter_config.json", json.dumps(only, indent=2))
    lab = {
        # no pop-up about news, no look for updates: both need the network, and neither is the learner's business
        "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
        # the theory opens as it is to be read; "Open With, Editor" shows the source
        "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
    }
    _write(prefix / "share" / "jupyter" / "lab" / "settings" / "overrides.json", json.dumps(lab, indent=2))
    switch = prefix / "etc" / "ipython" / "ipython_kernel_config.py"
    if tensorflow:
        _write(
            switch, f"# every kernel reads this as it starts\nfrom atlas import kernel\n\nkernel.enter({tensorflow!r})"
        )
    else:
        switch.unlink(missing_ok=True)


def enter(tensorflow: str) -> None:
    """Go on as TensorFlow's Python if that is what the workshop here names.

    No editor tells a kernel its notebook, but each starts it in the notebook's folder. The process stays the same one,
    with its connection file and its signals. Where nothing is known it stays torch's, which has TensorFlow for the CPU.
    """
    if environment(Path.cwd()) == TENSORFLOW and os.access(tensorflow, os.X_OK):
        os.environ["PATH"] = os.pathsep.join([str(Path(tensorflow).parent), os.environ.get("PATH", os.defpath)])
        os.execv(tensorflow, [tensorflow, *sys.orig_argv[1:]])


def environment(folder: Path) -> str:
    """The environment that the workshop of a folder names, which may be that of its solutions; else torch's."""
    if folder.is_relative_to(root() / "solutions"):
        folder = root() / "workshops" / folder.relative_to(root() / "solutions")
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError, ValueError):
            return tomllib.loads((place / "workshop.toml").read_text(encoding="utf-8")).get("kernel", TORCH)
    return TORCH


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    register(*sys.argv[1:])
