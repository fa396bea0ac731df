"""Opens a notebook: in JupyterLab on a free port with a token, or, where the terminal is VS Code's, in the editor."""

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from atlas.course import CourseError, root, state_dir

BIN = Path(sys.prefix) / "bin"
SHELLS = Path(__file__).with_name("terminal")
"""What shells read in JupyterLab's terminals."""
NOT_INHERITED = ("JUPYTER", "JPY_", "IPYTHON", "PYTHONHOME")
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
    print(
        "While it is open, a new terminal (Ctrl-Shift-`) begins in its folder. "
        f"JupyterLab instead: atlas start {notebook.stem} --lab"
    )


def jupyter_lab(notebook: Path, browser: bool) -> None:
    """Run JupyterLab on the notebook until Ctrl-C; prints its address with the token as soon as it answers."""
    token, log = secrets.token_urlsafe(24), state_dir() / "jupyter.log"
    page = f"/lab/tree/{quote(notebook.relative_to(root()).as_posix())}"
    print("JupyterLab is starting ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="atlas-jupyter-") as folder, log.open("w") as out, _signals_as_interrupt():
        settings = Path(folder) / "jupyter_server_config.json"
        settings.touch(mode=0o600)  # the token is in it
        settings.write_text(json.dumps(_settings(page, token, browser)), encoding="utf-8")
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab"],
            env=_environment(Path(folder)),
            cwd=notebook.parent,  # a terminal begins here, where the workshop's script is
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends JupyterLab in order
        )
        try:
            port = _wait_until_it_answers(server, log, Path(folder) / f"jpserver-{server.pid}.json")
            where = "a browser" if _codespace() else "a browser on this machine"
            print(
                f"JupyterLab is running. Open this address in {where}:\n\n"
                f"  {_address(port)}{page}?token={token}\n\n"
                f"Whoever has the address can run code here: keep it to yourself.\n"
                f"A terminal in it (File, New, Terminal) has the course's commands and begins beside the notebook.\n"
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


def _environment(folder: Path) -> dict[str, str]:
    """What JupyterLab, its kernels and terminals inherit: this environment first, and nothing of a Jupyter elsewhere.

    A person's own Jupyter may have a password, a certificate, another base_url, other kernels and extensions. None of
    it is read; what one sets in the course's JupyterLab is kept in the course.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    kept = state_dir() / "jupyter"
    return {
        **inherited,
        "PATH": os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)]),
        "VIRTUAL_ENV": sys.prefix,
        "JUPYTER_CONFIG_DIR": str(folder),
        "JUPYTER_RUNTIME_DIR": str(folder),
        "JUPYTER_DATA_DIR": str(kept / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(kept / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(kept / "workspaces"),
        "IPYTHONDIR": str(kept / "ipython"),
    }


def _settings(page: str, token: str, browser: bool) -> dict:
    """JupyterLab's settings; what a machine's administrator may have set for all (/etc/jupyter) is set here again."""
    server = {
        **{"ip": "127.0.0.1", "port": 8888, "port_retries": 50, "sock": "", "base_url": "/", "custom_display_url": ""},
        **{"certfile": "", "keyfile": "", "client_ca": "", "open_browser": browser, "root_dir": str(root())},
        "allow_root": hasattr(os, "geteuid") and os.geteuid() == 0,
        "terminado_settings": {"shell_command": shell_command()},
    }
    if _codespace():  # the browser comes through GitHub, which changes the request's Host, or Origin, or neither
        forwarded = re.escape(_address("PORT")).replace("PORT", r"\d+")
        server |= {"allow_remote_access": True, "allow_origin_pat": rf"({forwarded}|https?://localhost:\d+)$"}
    return {
        "ServerApp": server,
        "LabApp": {"default_url": page},
        "IdentityProvider": {"token": token},
        "PasswordIdentityProvider": {"hashed_password": ""},
    }


def shell_command() -> list[str]:
    """How a terminal starts: the person's own shell, with this environment in front of all that its files set.

    A login shell, which JupyterLab would start by itself, makes PATH anew; so do many a ~/.bashrc and ~/.zshrc.
    """
    shell = shutil.which(os.environ.get("SHELL", "")) or shutil.which("bash") or "sh"
    begin = ["env", f"ATLAS_BIN={BIN}"]
    match re.sub(r"\W.*", "", Path(shell).name):
        case "bash":
            return [*begin, shell, "--rcfile", str(SHELLS / "bash"), "-i"]
        case "zsh":
            own = f"ATLAS_ZDOTDIR={os.environ.get('ZDOTDIR', '')}"
            return [*begin, own, f"ZDOTDIR={SHELLS / 'zsh'}", shell, "-i"]
        case "fish":
            return [*begin, shell, "-C", "set -gx PATH $ATLAS_BIN $PATH"]
        case "sh" | "dash" | "ash" | "ksh" | "ksh93" | "mksh":
            return [*begin, f"ENV={SHELLS / 'sh'}", shell, "-i"]
    return [shell]  # inherits PATH


def _codespace() -> str:
    return os.environ.get("CODESPACE_NAME", "") if os.environ.get("CODESPACES") == "true" else ""


def _address(port: int | str) -> str:
    """Where the browser finds a port; a codespace's ports have names at GitHub."""
    domain = os.environ.get("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN", "app.github.dev")
    return f"https://{_codespace()}-{port}.{domain}" if _codespace() else f"http://127.0.0.1:{port}"


def _wait_until_it_answers(server: subprocess.Popen, log: Path, info: Path) -> int:
    """The port that JupyterLab took, the first free one from 8888, as its file tells."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            port = json.loads(info.read_text(encoding="utf-8"))["port"]
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
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
