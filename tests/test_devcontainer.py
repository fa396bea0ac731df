"""The container: its configuration says what it means, its image holds what it should, and (slow) it really starts.

The devcontainer CLI accepts any key and any value, so a slip is found here or by a learner.
"""

import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from atlas import cli

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / ".devcontainer"
BIN = Path(sys.executable).parent
TOOL = REPOSITORY.parent / "shared" / "tools" / "devcontainer-up"
IMAGE_MB = 4000
BOTH = ["devcontainer.json", "cuda/devcontainer.json"]


def read(path: Path):
    """Strict JSON with comments: no trailing comma, no key twice, no single quotes."""

    def once(pairs):
        keys = [key for key, _ in pairs]
        assert len(keys) == len(set(keys)), f"a key stands twice among {keys} in {path.name}"
        return dict(pairs)

    text = re.sub(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', r"\1", path.read_text(), flags=re.DOTALL)
    return json.loads(text, object_pairs_hook=once)


def closed(properties: dict, *optional: str) -> dict:
    """The schema of an object that has these keys and no others."""
    required = [key for key in properties if key not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


TEXT, FLAG = {"type": "string", "minLength": 1}, {"type": "boolean"}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True}
SIZE = {"type": "string", "pattern": r"^\d+(kb|mb|gb|tb)$"}
PORT = closed({"label": TEXT, "onAutoForward": {"enum": ["notify", "openBrowser", "openPreview", "silent", "ignore"]}})
SCHEMA = closed(
    {
        "name": TEXT,
        "build": closed(
            {"dockerfile": TEXT, "context": TEXT, "args": closed({"ACCELERATOR": {"enum": ["cpu", "cuda"]}})}
        ),
        "hostRequirements": closed(
            {"cpus": {"type": "integer"}, "memory": SIZE, "storage": SIZE, "gpu": {"const": "optional"}}
        ),
        "init": FLAG,
        "runArgs": TEXTS,
        "remoteUser": {"const": "vscode"},
        "containerEnv": {"type": "object", "additionalProperties": TEXT},
        "updateContentCommand": TEXT,
        "postCreateCommand": TEXT,
        "postAttachCommand": TEXT,
        "portsAttributes": {"type": "object", "patternProperties": {r"^\d+$": PORT}, "additionalProperties": False},
        "otherPortsAttributes": closed({"onAutoForward": PORT["properties"]["onAutoForward"]}),
        "customizations": closed(
            {
                "codespaces": closed({"openFiles": TEXTS}),
                "vscode": closed({"extensions": TEXTS, "settings": {"type": "object"}}),
            }
        ),
    }
)


@pytest.fixture(params=BOTH)
def config(request) -> dict:
    return read(FOLDER / request.param)


# ------------------------------------------------------------------------------------------------ what is written


@pytest.mark.parametrize("text", ['{"a": 1,}', '{"a": 1, "a": 2}', "{'a': 1}", '{"a": 1} x'])
def test_what_is_not_strict_json_with_comments_is_noticed(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises((ValueError, AssertionError)):
        read(file)
    file.write_text('{"a": "http://b" /* not c */, // not d\n"e": 1}')
    assert read(file) == {"a": "http://b", "e": 1}


def test_only_known_keys_are_used_and_each_has_a_value_that_it_may_have(config):
    jsonschema.validate(config, SCHEMA)


@pytest.mark.parametrize("file", BOTH)
def test_the_files_that_a_configuration_names_are_there(file):
    config, here = read(FOLDER / file), (FOLDER / file).parent
    assert (here / config["build"]["dockerfile"]).samefile(FOLDER / "Dockerfile")
    assert (here / config["build"]["context"]).samefile(REPOSITORY)
    for command in (config["updateContentCommand"], config["postCreateCommand"]):
        shell, script = command.split()
        assert shell == "bash" and (REPOSITORY / script).exists(), "by name it fails without its execute bit"
    assert all((REPOSITORY / name).exists() for name in config["customizations"]["codespaces"]["openFiles"])


def test_the_smallest_codespace_is_enough_and_a_gpu_is_never_demanded():
    config = read(FOLDER / "devcontainer.json")
    assert config["hostRequirements"] == {"cpus": 2, "memory": "8gb", "storage": "32gb", "gpu": "optional"}
    assert {port: each["label"] for port, each in config["portsAttributes"].items()} == {
        "8888": "JupyterLab",
        "6006": "TensorBoard",
    }


def test_nothing_asks_for_privileges_features_or_docker_inside(config):
    text = json.dumps(config)
    assert not re.search("privileged|docker.sock|features|cap-add|seccomp", text)


def test_the_cuda_configuration_differs_in_nothing_else():
    cpu, cuda = (read(FOLDER / name) for name in BOTH)
    assert cuda["build"]["args"] == {"ACCELERATOR": "cuda"}
    for config in (cpu, cuda):
        del config["name"], config["build"], config["hostRequirements"]["storage"]
        config["containerEnv"].pop("NVIDIA_DRIVER_CAPABILITIES", None)
    assert cpu == cuda


# ------------------------------------------------------------------------------------------------ VS Code


@pytest.mark.parametrize("file", ["settings", "extensions", "tasks", "launch"])
def test_vs_codes_own_files_are_strict_json_with_comments(file):
    assert read(REPOSITORY / ".vscode" / f"{file}.json")


def test_the_recommended_extensions_are_those_that_the_container_installs(config):
    recommended = read(REPOSITORY / ".vscode" / "extensions.json")["recommendations"]
    assert recommended == config["customizations"]["vscode"]["extensions"]


def test_every_task_runs_a_command_that_there_is():
    tasks = read(REPOSITORY / ".vscode" / "tasks.json")["tasks"]
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    for task in tasks:
        if task["command"] == "atlas":
            assert task["args"][0] in known, task["label"]
        else:
            assert os.access(REPOSITORY / task["command"], os.X_OK), task["label"]
    assert {"Check this workshop", "Next hint", "Progress", "Run the tests"} <= {task["label"] for task in tasks}


def test_settings_of_the_folder_do_not_say_where_python_is_which_differs_in_the_container():
    assert not [key for key in read(REPOSITORY / ".vscode" / "settings.json") if key.startswith("python.default")]


# ------------------------------------------------------------------------------------------------ the image


def test_the_dockerfile_and_its_scripts_are_clean():
    linted = subprocess.run([BIN / "hadolint", FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    linted = subprocess.run([BIN / "shellcheck", "-s", "bash", FOLDER / "bashrc"], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


def test_nothing_that_is_edited_from_day_to_day_gets_into_the_image():
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines and all((REPOSITORY / path).exists() for path in allowed)
    assert not [path for path in allowed if re.match(r"workshops|solutions|datasets|tests|scripts(/atlas.*)?$", path)]
    copied = re.findall(r"^COPY (\S+) ", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert copied and all(any(path.startswith(source) for path in allowed) for source in copied)


def test_the_image_installs_by_scripts_setup_alone_and_runs_as_its_user():
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert "scripts/setup --only environment" in dockerfile and not re.search(r"\b(pip|uv) ", dockerfile)
    assert re.findall(r"^FROM (.*)", dockerfile, re.MULTILINE) == ["debian:bookworm-slim"]
    assert re.findall(r"^USER (.*)", dockerfile, re.MULTILINE)[-1] == "vscode"


# ------------------------------------------------------------------------------------------------ in a terminal


@pytest.fixture
def terminal(tmp_path):
    """Type into a bash that has read the container's bashrc: what it prints."""

    def type_in(commands: str) -> str:
        shell = ["bash", "--norc", "-c", f"PS1=x; . {FOLDER / 'bashrc'}; {commands}"]
        environment = {"HOME": str(tmp_path), "ATLAS_VENV": str(BIN.parent), "PATH": os.environ["PATH"]}
        return subprocess.run(shell, env=environment, capture_output=True, text=True, check=True).stdout

    return type_in


def test_the_first_terminal_and_no_other_says_what_to_type(terminal):
    assert "atlas start" in terminal("true")
    assert terminal("true") == ""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("atlas sta", "start"),
        ("atlas start perc", "perceptron-and-mlp"),
        ("atlas hint perceptron_s", "perceptron_step"),
    ],
)
def test_atlas_is_completed_with_commands_workshops_and_exercises(terminal, typed, offered):
    terminal("true")
    words = typed.split()
    line = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _atlas_completion; echo ${{COMPREPLY[*]}}"
    assert terminal(line).split() == [offered]


def test_a_step_that_fails_says_how_to_recover(tmp_path):
    (tmp_path / ".devcontainer").mkdir()
    (tmp_path / "scripts").mkdir()
    prepare = tmp_path / ".devcontainer" / "prepare"
    prepare.write_text((FOLDER / "prepare").read_text())  # without its execute bit, as after an upload in the browser
    setup = tmp_path / "scripts" / "setup"
    setup.write_text('#!/bin/sh\necho "$ATLAS_VENV" >> calls\nexit 1\n')
    environment = os.environ | {"ATLAS_VENV": str(tmp_path / "venv")}
    command = ["bash", prepare]
    failed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1 and "scripts/setup     goes on" in failed.stderr and "Rebuild" in failed.stderr
    (tmp_path / "venv-tensorflow").mkdir()
    setup.write_text('#!/bin/sh\nexpr "$ATLAS_VENV" : ".*/venv$"\n')
    failed = subprocess.run(command, env=environment, capture_output=True)
    assert failed.returncode == 1, "one of two environments has failed"
    setup.write_text('#!/bin/sh\necho "$ATLAS_VENV" >> calls\n')
    subprocess.run(command, env=environment, check=True)
    assert (tmp_path / "calls").read_text().split()[1:] == [f"{tmp_path}/venv-tensorflow", f"{tmp_path}/venv"]


# ------------------------------------------------------------------------------------------------ on GitHub

WORKFLOW = REPOSITORY / ".github" / "workflows" / "devcontainer.yml"


def test_the_workflow_follows_its_schema_and_pins_every_action_by_its_commit():
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW]
    linted = subprocess.run(command, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    used = re.findall(r"uses: (.+)", WORKFLOW.read_text())
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)


def test_the_workflow_builds_verifies_and_pushes_only_when_asked_by_hand():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] <= 60 and job["permissions"] == {"contents": "read", "packages": "write"}
    build = next(step["with"] for step in job["steps"] if "devcontainers/ci" in step.get("uses", ""))
    assert build["runCmd"] == ".devcontainer/verify"
    assert "inputs.push" in build["push"] and "never" in build["push"]


def test_the_repositorys_address_stands_in_one_place_and_the_readme_follows():
    address = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address)
    readme = (REPOSITORY / "README.md").read_text()
    block = readme.split("<!-- atlas:badges -->")[1].split("<!-- /atlas:badges -->")[0]
    assert f"codespaces.new/{address.removeprefix('https://github.com/')}" in block and f"url={address})" in block


# ------------------------------------------------------------------------------------------------ for real

_loader = importlib.machinery.SourceFileLoader("verify", str(FOLDER / "verify"))
verify = importlib.util.module_from_spec(importlib.util.spec_from_loader("verify", _loader))
_loader.exec_module(verify)


def test_verify_refuses_another_user_and_another_python(monkeypatch, tmp_path):
    monkeypatch.setattr(verify.os, "getuid", lambda: 0)
    with pytest.raises(verify.Wrong, match="runs as root, and must run as vscode"):
        verify.user()
    monkeypatch.setattr(verify.os, "getuid", lambda: 1000)
    monkeypatch.setattr(verify.pwd, "getpwuid", lambda _: verify.pwd.struct_passwd(["vscode", "", 1000, 1000, *"abc"]))
    with pytest.raises(verify.Wrong, match="python3 on PATH"):
        verify.user()
    monkeypatch.setattr(verify, "VENV", Path(sys.prefix))
    monkeypatch.setattr(verify, "writable", lambda path: False)
    with pytest.raises(verify.Wrong, match="cannot install packages"):
        verify.user()


def test_verify_reports_every_check_that_fails_with_its_reason_and_exits_1(monkeypatch, capsys):
    def broken() -> str:
        raise verify.Wrong("the roof leaks")

    monkeypatch.setattr(verify, "CHECKS", {"good": lambda: "fine", "broken": broken, "odd": lambda: 1 / 0})
    monkeypatch.setattr(sys, "argv", ["verify"])
    assert verify.main() == 1
    said = capsys.readouterr().out
    assert "✔ good" in said and "the roof leaks" in said and "ZeroDivisionError" in said
    assert "not as it should be: broken, odd" in said
    monkeypatch.setattr(sys, "argv", ["verify", "good"])
    assert verify.main() == 0
    monkeypatch.setattr(sys, "argv", ["verify", "bad"])
    assert verify.main() == 2


@pytest.mark.slow
@pytest.mark.skipif(not TOOL.exists(), reason="the tool that starts a container here is not beside the checkout")
def test_the_container_builds_starts_and_serves_and_verify_notices_what_is_broken(record_property):
    begin = time.monotonic()
    command = [TOOL, REPOSITORY, "--", "bash", "-c", ".devcontainer/verify && tests/broken_container"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if ran.returncode == 75:
        pytest.skip(ran.stdout.strip())
    told = f"{ran.stdout}{time.monotonic() - begin:.0f} s in all\n"
    record_property("container", told)
    assert ran.returncode == 0, told + ran.stderr
    megabytes = int(re.search(r"image (\d+) MB above its base", ran.stdout)[1])
    assert megabytes < IMAGE_MB, f"see trim_and_compile in scripts/environment.py for what may go\n{told}"
