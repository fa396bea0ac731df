"""Each pre-commit hook really runs, without a network: it lets good files pass and stops bad ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import skeleton_kit

REPOSITORY = Path(__file__).parents[1]
CONFIG = REPOSITORY / ".pre-commit-config.yaml"
HOOKS = {hook["id"]: hook for repo in yaml.safe_load(CONFIG.read_text())["repos"] for hook in repo["hooks"]}
GOOD_WORKFLOW = "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps: [{run: 'true'}]\n"
# hook: file, content that passes, content that does not
FILES = {
    "ruff": ("a.py", "print(1)\n", "import os\n"),
    "ruff-format": ("a.py", "x = 1\n", "x=1\n"),
    "shellcheck": ("a.sh", '#!/bin/sh\necho "$1"\n', "#!/bin/sh\necho $1\n"),
    "workflows": (".github/workflows/a.yml", GOOD_WORKFLOW, GOOD_WORKFLOW.replace("steps", "stepz")),
    "large-files": ("a.bin", "x", "x" * 1_100_000),
    "large-datasets": ("datasets/a.bin", "x" * 1_100_000, "x" * 41_100_000),
    "merge-markers": ("a.md", "one\n", "<<<<<<< ours\none\n=======\ntwo\n>>>>>>> theirs\n"),
    "private-paths": ("a.md", "see /opt/venv and /home/vscode/x\n", "see " + "/home/" + "ada/course\n"),
}


@pytest.fixture
def repository(tmp_path):
    for file in (CONFIG, REPOSITORY / "pyproject.toml"):
        shutil.copy(file, tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def passes(repository: Path, hook: str) -> tuple[bool, str]:
    """Run one hook on everything that is staged, with the network closed and a home of its own."""
    subprocess.run(["git", "add", "-A"], cwd=repository, check=True)
    closed = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "PIP_NO_INDEX": "1"}
    places = {"ATLAS_VENV": sys.prefix, "PRE_COMMIT_HOME": str(repository.with_name("pre-commit"))}
    command = [Path(sys.prefix) / "bin" / "pre-commit", "run", hook, "--all-files"]
    process = subprocess.run(command, cwd=repository, env=os.environ | closed | places, capture_output=True, text=True)
    output = process.stdout + process.stderr
    assert "Skipped" not in output, "the hook saw no file"
    return process.returncode == 0, output


@pytest.mark.parametrize("hook", FILES)
def test_a_hook_lets_a_good_file_pass_and_stops_a_bad_one(repository, hook):
    name, good, bad = FILES[hook]
    file = repository / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(good)
    passed, output = passes(repository, hook)
    assert passed, output
    file.write_text(bad)
    assert not passes(repository, hook)[0]


def test_a_generated_file_edited_by_hand_is_stopped(repository, monkeypatch):
    kit = skeleton_kit.make(repository, monkeypatch)
    passed, output = passes(kit, "build")
    assert passed, output
    notebook = next((kit / skeleton_kit.WORKSHOP).glob("*.ipynb"))
    notebook.write_text(notebook.read_text().replace('"outputs": []', '"outputs": [{"output_type": "stream"}]', 1))
    assert not passes(kit, "build")[0]


def test_every_hook_is_tried_and_needs_no_network():
    assert set(HOOKS) == {*FILES, "build"}
    assert all(hook["language"] in ("system", "pygrep") for hook in HOOKS.values())


def test_the_hooks_pass_on_this_repository(tmp_path):
    where = REPOSITORY
    if not (REPOSITORY / ".git").exists():  # a zip download
        where = tmp_path / "kit"
        shutil.copytree(REPOSITORY, where, ignore=shutil.ignore_patterns("datasets", ".venv", ".atlas"))
        subprocess.run("git init -q && git add -A", shell=True, cwd=where, check=True)
    for hook in ("merge-markers", "private-paths"):
        command = [Path(sys.prefix) / "bin" / "pre-commit", "run", hook, "--all-files"]
        process = subprocess.run(
            command, cwd=where, env=os.environ | {"ATLAS_VENV": sys.prefix}, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stdout
