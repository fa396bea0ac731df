"""Opens a notebook: in JupyterLab on a free port with a token, or, where the terminal is VS Code's, in the editor."""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from atlas.course import CourseError, root, state_dir

START_SECONDS = 90.0
STOP_SECONDS = 10.0


def in_editor() -> bool:
    """Whether this terminal belongs to VS Code, to a codespace or to a dev container."""
    variables = os.environ
    return variables.get("TERM_PROGRAM") == "vscode" or "CODESPACES" in variables or "REMOTE_CONTAINERS" in variables


def open_in_editor(notebook: Path, open_it: bool) -> None:
    """Say which file to open; with `open_it`, open it where VS Code's command is at hand."""
    code = shutil.which("code") if open_it else None
    shown = notebook.relative_to(root()).as_posix()
    if code and subprocess.run([code, "-r", str(notebook)], check=False, capture_output=True).returncode == 0:
        print(f"VS Code opens {shown}")
    else:
        print(f"In VS Code, open this file (Ctrl-P, then paste its name):\n\n  {shown}\n")


def jupyter_lab(notebook: Path, browser: bool) -> None:
    """Run JupyterLab on the notebook until Ctrl-C; prints its address with the token as soon as it answers."""
    token, log = secrets.token_urlsafe(24), state_dir() / "jupyter.log"
    page = f"/lab/tree/{quote(notebook.relative_to(root()).as_posix())}"
    print("JupyterLab is starting ...", flush=True)
    with log.open("w") as out, _signals_as_interrupt():
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab"),
                f"--ServerApp.root_dir={root()}",
                f"--LabApp.default_url={page}",
                *([] if browser else ["--no-browser"]),
                *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            ],
            env={**os.environ, "JUPYTER_TOKEN": token, "PATH": _path()},
            cwd=root(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends JupyterLab in order
        )
        try:
            port = _wait_until_it_answers(server, log)
            print(
                f"JupyterLab is running. Open this address in a browser on this machine:\n\n"
                f"  http://127.0.0.1:{port}{page}?token={token}\n\n"
                f"Whoever has the address can run code here: keep it to yourself.\n"
                f"Ctrl-C ends JupyterLab; what you saved stays.",
                flush=True,
            )
            server.wait()
        except KeyboardInterrupt:
            print("\nJupyterLab ends.", flush=True)
        finally:
            _end(server)
    if server.returncode not in (0, -signal.SIGTERM, -signal.SIGKILL):
        raise CourseError(f"JupyterLab ended by itself. The end of {log}:\n{_tail(log)}")


def _path() -> str:
    """PATH with this environment first, so that `python` and `atlas` in JupyterLab's terminals are the kit's."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _wait_until_it_answers(server: subprocess.Popen, log: Path) -> int:
    """The port that JupyterLab took, the first free one from 8888: a file named by its process tells."""
    from jupyter_core.paths import jupyter_runtime_dir

    info = Path(jupyter_runtime_dir()) / f"jpserver-{server.pid}.json"
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            port = json.loads(info.read_text(encoding="utf-8"))["port"]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/api")
            if connection.getresponse().status == 200:
                return port
        if time.monotonic() > deadline:
            raise CourseError(f"JupyterLab did not answer within {START_SECONDS:g} s. The end of {log}:\n{_tail(log)}")
        time.sleep(0.1)
    raise CourseError(f"JupyterLab did not start; `atlas doctor` looks for the cause. The end of {log}:\n{_tail(log)}")


def _end(server: subprocess.Popen) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _tail(log: Path) -> str:
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-8:])


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Let a closed terminal or `kill` end JupyterLab too, as Ctrl-C does."""

    def interrupt(*_):
        raise KeyboardInterrupt

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
