"""JupyterLab as `atlas start` opens it: its terminals have the course's commands, whatever a person's own files say.

The servers and shells are real; a person's own files are made up.
"""

import asyncio
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from atlas import course, launch
from made_up import FIRST, write

ATLAS = Path(sys.executable).with_name("atlas")
QUESTION = 'echo; echo "<$(command -v python)|$(command -v atlas)|$PWD|$MINE>"'
ELSEWHERE = "export PATH=/usr/local/bin:/usr/bin:/bin MINE=kept\n"
"""What a profile may do: make PATH anew. Everything else in it is to be kept."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home whose files make PATH anew for each shell, and with a Jupyter of its own that nobody else could enter."""
    home = tmp_path / "home"
    for file in (".profile", ".bash_profile", ".bashrc", ".zshrc", ".zprofile"):
        write(home / file, ELSEWHERE)
    write(home / ".config" / "fish" / "config.fish", "set -gx PATH /usr/local/bin /usr/bin /bin; set -gx MINE kept\n")
    own = {"base_url": "/mine", "certfile": "/no/such.pem", "password": "sha1:0:0", "port": 1, "ip": "10.0.0.1"}
    write(home / ".jupyter" / "jupyter_server_config.json", json.dumps({"ServerApp": own, "MultiKernelManager": 1}))
    write(home / ".jupyter" / "jupyter_lab_config.py", "raise SystemExit('not the course')\n")
    write(home / ".ipython" / "profile_default" / "startup" / "0.py", "raise SystemExit('not the course')\n")
    variables = {"HOME": str(home), "JUPYTER_TOKEN": "mine", "JUPYTER_PORT": "1", "JUPYTER_PATH": str(home)}
    variables |= {"JUPYTER_GATEWAY_URL": "http://127.0.0.1:1", "JUPYTER_CONFIG_PATH": str(home / ".jupyter")}
    for name in ("ZDOTDIR", "ENV", "CODESPACE_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return home


# ------------------------------------------------------------------------------------------------ for real


def answer(shown: str) -> str:
    """The line <...> of what a terminal shows, without what steers its screen; the echo of what was typed is none."""
    plain = re.sub(r"\x1b(\[[?>=\d;]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|[=>(]B?)|\r", "", shown)
    found = re.search(r"^<.*>", plain, re.MULTILINE)
    return found[0] if found else ""


class Lab:
    """A JupyterLab as `atlas start` prints it: its address, and what it answers."""

    def __init__(self, *options: str) -> None:
        command = [ATLAS, "start", "--no-browser", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said = ""
        while "Ctrl-C ends" not in self.said:
            line = self.process.stdout.readline()
            assert line, f"JupyterLab does not start:\n{self.said}"
            self.said += line
        self.page, self.token = re.search(r"(https?://\S+)\?token=(\S+)", self.said).groups()
        self.port = int(re.search(r"[:-](\d+)[/.]", self.page)[1])

    def open(self, path: str, method: str = "GET", **headers: str):
        headers = {"Authorization": f"token {self.token}"} | headers
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", method=method, headers=headers)
        return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30)

    def ask(self, path: str, method: str = "GET"):
        with self.open(path, method) as answered:
            return json.load(answered)

    def as_a_browser(self, host: str, origin: str) -> dict[str, str]:
        """The headers of a page that was opened with the token: from then on a browser has a cookie instead."""
        with self.open(f"lab?token={self.token}", Authorization="", Host=host) as page:
            cookies = page.headers.get_all("Set-Cookie")
        return {"Host": host, "Origin": origin, "Cookie": "; ".join(each.partition(";")[0] for each in cookies)}

    def in_a_terminal(self, typed: str, headers: dict[str, str] | None = None) -> str:
        """What a new terminal answers to what was typed, a line <...>."""
        name = self.ask("api/terminals", "POST")["name"]
        address = f"ws://127.0.0.1:{self.port}/terminals/websocket/{name}"

        async def talk() -> str:
            request = HTTPRequest(address, headers=headers or {"Authorization": f"token {self.token}"})
            socket = await websocket_connect(request)
            await socket.write_message(json.dumps(["stdin", typed + "\r"]))
            shown = ""
            while not (found := answer(shown)):
                kind, *content = json.loads(await asyncio.wait_for(socket.read_message(), 60))
                shown += content[0] if kind == "stdout" else ""
            socket.close()
            return found

        return asyncio.run(talk())

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)


@pytest.fixture
def lab():
    """Start a JupyterLab; it ends with the test."""
    labs = []

    def start(*options: str) -> Lab:
        labs.append(Lab(*options))
        return labs[-1]

    yield start
    for each in labs:
        each.end()


def test_jupyterlab_is_the_courses_whatever_a_person_has_set_for_their_own(small_course, home, lab, monkeypatch):
    monkeypatch.setenv("SHELL", shutil.which("bash"))
    before = set(home.rglob("*"))
    here = lab()
    assert here.page.startswith("http://127.0.0.1:") and here.ask("api/status")["kernels"] == 0
    assert here.token not in json.dumps(dict(os.environ)) and here.token != "mine"
    kernel = here.ask("api/kernels", "POST")
    assert here.ask(f"api/kernels/{kernel['id']}")["name"] == course.KERNEL
    folder = small_course / "workshops" / FIRST
    assert here.in_a_terminal(QUESTION) == f"<{launch.BIN}/python|{launch.BIN}/atlas|{folder}|kept>"
    new = [str(file.relative_to(home)) for file in set(home.rglob("*")) - before]
    assert not [file for file in new if re.search("jupyter|ipython", file)], "nothing is left in a person's home"


def test_in_a_codespace_jupyterlab_has_githubs_address_and_lets_its_pages_in(small_course, home, lab, monkeypatch):
    monkeypatch.setenv("SHELL", shutil.which("bash"))
    monkeypatch.setenv("CODESPACES", "true")
    monkeypatch.setenv("CODESPACE_NAME", "fuzzy-0-robot")
    here = lab("--lab")
    assert here.page.startswith(f"https://fuzzy-0-robot-{here.port}.app.github.dev/lab/tree/workshops/")
    public = f"fuzzy-0-robot-{here.port}.app.github.dev"
    for host, origin in [
        (public, f"https://{public}"),
        (f"localhost:{here.port}", f"https://{public}"),
        (public, f"http://localhost:{here.port}"),
    ]:
        assert here.in_a_terminal("echo; echo '<'in'>'", here.as_a_browser(host, origin)) == "<in>"
    with pytest.raises(HTTPClientError, match="403"):
        here.in_a_terminal("exit", here.as_a_browser(public, f"https://{public}.elsewhere.org"))


# ------------------------------------------------------------------------------------------------ shells


def shown_by(command: list[str], typed: str) -> str:
    """What a shell on a terminal of its own shows, up to a line <...>."""
    pid, terminal = pty.fork()
    if not pid:
        os.execvp(command[0], command)
    try:
        os.write(terminal, f"{typed}\n".encode())
        shown, until = "", time.monotonic() + 30
        while time.monotonic() < until and not (found := answer(shown)):
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 4096).decode(errors="replace")
        assert found, shown
        return found
    finally:
        os.close(terminal)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("name", ["bash", "dash", "sh", "zsh", "fish", "ksh"])
def test_a_terminal_has_the_environment_in_each_shell_and_keeps_what_the_persons_files_set(home, monkeypatch, name):
    if not (shell := shutil.which(name)):
        pytest.skip(f"there is no {name} on this machine")
    monkeypatch.setenv("SHELL", shell)
    monkeypatch.setenv("TERM", "dumb")
    python, atlas, _, mine = shown_by(launch.shell_command(), QUESTION)[1:-1].split("|")
    assert (python, atlas) == (f"{launch.BIN}/python", f"{launch.BIN}/atlas")
    assert mine == "kept" or name in ("dash", "sh", "ksh"), "a shell that is not a login shell reads no file there"


def test_zsh_keeps_its_files_and_its_history_where_the_person_has_them(home, tmp_path, monkeypatch):
    if not (shell := shutil.which("zsh")):
        pytest.skip("there is no zsh on this machine")
    monkeypatch.setenv("SHELL", shell)
    write(home / ".zshenv", f"ZDOTDIR={tmp_path}/z\n")
    write(tmp_path / "z" / ".zshrc", "MINE=there\n")
    asked = 'HISTFILE=${HISTFILE:-none}; echo "<$MINE|$ZDOTDIR|$HISTFILE|$(command -v atlas)>"'
    mine, files, history, atlas = shown_by(launch.shell_command(), asked)[1:-1].split("|")
    assert (mine, files, atlas) == ("there", f"{tmp_path}/z", f"{launch.BIN}/atlas")
    assert str(launch.SHELLS) not in history


@pytest.mark.parametrize("shell", ["/no/such/shell", ""])
def test_a_shell_that_is_not_there_is_replaced_by_one_that_is(monkeypatch, shell):
    monkeypatch.setenv("SHELL", shell)
    assert shutil.which("bash") in launch.shell_command()
