"""What README.md tells people to type works, and what it links to is there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]

# proven elsewhere: too long, or it would download
ELSEWHERE = {
    "scripts/start": "test_setup.py and test_cli.py",
    "scripts/test": "it is running this test",
    "scripts/bench": "test_bench.py",
    "scripts/lock": "test_lock.py",
    "atlas data fetch cifar10": "test_data.py and test_cli.py",
}
SAY_YES = {"atlas reset perceptron-and-mlp": ["--yes"]}
STARTER_IS_NOT_PASSED = {"atlas check perceptron-and-mlp"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the course to work in; the data is a link."""
    root = tmp_path_factory.mktemp("readme")
    ignore = shutil.ignore_patterns("__pycache__", "runs", ".ipynb_checkpoints")
    for folder in ("workshops", "solutions", "tests/wrong_answers"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignore)
    for file in ("README.md", "pyproject.toml", "tests/answers.py"):
        shutil.copy(ROOT / file, root / file)
    (root / "datasets").symlink_to(ROOT / "datasets")
    return root


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE])
def test_each_command_of_the_readme_works(command, copy):
    tool, *arguments = command.split()
    assert tool == "atlas", f"{command}: say in this file where it is proven"
    executable = Path(sys.executable).parent / tool
    done = subprocess.run(
        [executable, *arguments, *SAY_YES.get(command, [])],
        cwd=copy,
        env={**os.environ, "ATLAS_ROOT": str(copy), "ATLAS_STATE": str(copy / ".atlas"), "TERM_PROGRAM": "vscode"},
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
    )
    wanted = (1,) if command in STARTER_IS_NOT_PASSED else (0,)
    if command == "atlas doctor":  # the copy is no git repository, and this machine may be short of memory
        wanted = (0, 1)
    assert done.returncode in wanted, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr


def test_commands_proven_elsewhere_are_in_the_readme():
    assert set(ELSEWHERE) <= set(COMMANDS)
    for command in ELSEWHERE:
        if command.startswith("scripts/"):
            assert os.access(ROOT / command, os.X_OK), command


def test_the_python_of_the_readme_names_what_a_lab_has():
    from atlas.lab import Lab

    calls = set(re.findall(r"lab\.(\w+)\(", README))
    assert calls >= {"check", "hint", "solution", "catch_up"}
    assert all(hasattr(Lab, call) for call in calls)


def texts():
    """Each text with links, and the folder that they are relative to; a notebook's source stands for the starter."""
    yield ROOT / "README.md", ROOT
    for folder in sorted(path.parent for path in (ROOT / "workshops").rglob("workshop.toml")):
        solution = ROOT / "solutions" / folder.relative_to(ROOT / "workshops")
        yield folder / "README.md", folder
        yield solution / "INSTRUCTOR.md", solution
        yield solution / f"{folder.name}.py", folder


@pytest.mark.parametrize(("text", "folder"), list(texts()), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(text, folder):
    content = text.read_text(encoding="utf-8")
    if text.suffix == ".py":
        content = "\n".join(line for line in content.splitlines() if line.startswith("# "))
    headings = [line.lstrip("# ").lower() for line in content.splitlines() if line.startswith("#")]
    anchors = {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (folder / target.partition("#")[0]).exists(), target
