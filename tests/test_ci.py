"""CI runs what a person runs; its workflow can do little and changes only when we change it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import parts
from atlas.authoring import parts as authoring_parts
from made_up import SECOND_WORKSHOP

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
WORKFLOW = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> {calls}
env | grep '^ATLAS_' >> {variables}
[ "$(basename "$0")" != "$FAILS" ]
"""


@pytest.fixture
def checkout(tmp_path):
    """The three commands, with a set-up and tools that only note how they are called."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".ci").mkdir()
    for name in ("scripts/start", "scripts/environment.py", "scripts/test", ".ci/run"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "scripts" / "environment.py").touch()  # by which scripts/start knows where it is
    tools = [tmp_path / "scripts" / "setup"]
    tools += [tmp_path / ".venv" / "bin" / name for name in ("ruff", "atlas", "python")]
    for tool in tools:
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(TOOL.format(calls=tmp_path / "calls", variables=tmp_path / "variables"))
        tool.chmod(0o755)
    return tmp_path


def called(checkout: Path, *command: str, **variables: str) -> tuple[int, list[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATLAS_")}
    process = subprocess.run([checkout / command[0], *command[1:]], env=environment | variables, capture_output=True)
    return process.returncode, (checkout / "calls").read_text().splitlines()


def test_scripts_test_sets_up_checks_everything_and_ends_with_pytest(checkout):
    code, calls = called(checkout, "scripts/test")
    assert code == 0
    assert calls[:-1] == ["setup ", "ruff check .", "ruff format --check .", "atlas build --check", "atlas data verify"]
    assert calls[-1].startswith("python -m pytest")


def test_fast_leaves_out_what_is_slow_and_pytest_gets_the_rest(checkout):
    _, calls = called(checkout, "scripts/test", "--fast", "tests/test_lock.py", "-x")
    assert calls[-1].endswith("-m not slow tests/test_lock.py -x")


@pytest.mark.parametrize("tool", ["setup", "ruff", "atlas", "python"])
def test_it_fails_when_a_part_fails(checkout, tool):
    assert called(checkout, "scripts/test", FAILS=tool)[0] != 0


def test_what_a_person_has_set_for_the_course_does_not_reach_the_tests(checkout):
    called(checkout, "scripts/test", ATLAS_STRICT="1", ATLAS_ROOT="/elsewhere")
    assert (checkout / "variables").read_text() == ""


def test_tests_never_use_the_learners_own_progress():
    assert not Path(os.environ["ATLAS_STATE"]).is_relative_to(REPOSITORY)


def test_scripts_start_sets_up_and_opens_the_named_workshop(checkout):
    code, calls = called(checkout, "scripts/start", "perceptron-and-mlp", "--no-browser")
    assert (code, calls) == (0, ["setup ", "atlas start perceptron-and-mlp --no-browser"])


@pytest.mark.parametrize("arguments", [(), ("--part", "kit")])
def test_ci_run_is_scripts_test(checkout, arguments):
    calls = called(checkout, ".ci/run", *arguments)[1]
    assert calls == called(checkout, "scripts/test", *arguments)[1][:6]
    assert calls[-1].endswith(" ".join(("-m ", *arguments)))


def test_the_workflow_runs_each_part_on_every_push_and_pull_request():
    assert {"push", "pull_request", "schedule"} <= set(WORKFLOW[True])  # YAML reads `on` as true
    test = WORKFLOW["jobs"]["test"]
    assert test["strategy"] == {"fail-fast": False, "matrix": {"part": "${{ fromJSON(needs.parts.outputs.names) }}"}}
    (step,) = [step for step in test["steps"] if ".ci/run" in step.get("run", "")]
    assert (step["run"], step["env"]) == ('.ci/run --part "$PART"', {"PART": "${{ matrix.part }}"})


def test_the_parts_are_computed_from_the_workshops_that_are_there_by_a_python_without_packages(small_course, tmp_path):
    another = small_course / "workshops" / "computer-vision" / "cnn-basics" / "workshop.toml"
    another.parent.mkdir(parents=True)
    another.write_text(SECOND_WORKSHOP)
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    job = WORKFLOW["jobs"]["parts"]
    (step,) = [step for step in job["steps"] if "run" in step]
    assert job["outputs"] == {"names": f"${{{{ steps.{step['id']}.outputs.names }}}}"}
    told = tmp_path / "told"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ATLAS_ROOT": small_course, "GITHUB_OUTPUT": told}
    subprocess.run(["bash", "-e", "-c", step["run"]], cwd=REPOSITORY, env=environment, check=True)
    assert told.read_text() == 'names=["kit", "dl-foundations", "computer-vision"]\n'


def test_each_test_is_in_exactly_one_job_of_ci(request, monkeypatch):
    every = request.config.stash[parts.EVERY]
    picked = []
    for part in authoring_parts.names():
        monkeypatch.setattr(request.config.option, "part", part)
        monkeypatch.setattr(request.config.hook, "pytest_deselected", lambda items: None)
        monkeypatch.delattr(request.config, "workerinput", raising=False)
        items = list(every)
        parts.pytest_collection_modifyitems(request.config, items)
        picked += items
    assert sorted(picked, key=id) == sorted(every, key=id)


def test_a_part_is_what_tests_the_workshops_of_a_track_or_the_kit():
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:nbmake"]
    files = ("tests/test_workshops.py", "tests/test_proofs.py", "tests/test_train_mlp.py", "tests/test_ci.py")
    collected = {
        part: subprocess.run([*command, "--part", part, *files], cwd=REPOSITORY, capture_output=True, text=True).stdout
        for part in ("kit", "dl-foundations")
    }
    assert "test_ci.py" in collected["kit"] and "in_step_with_its_source" in collected["kit"]
    assert "[perceptron-and-mlp" not in collected["kit"] and "test_train_mlp.py" not in collected["kit"]
    assert "test_train_mlp.py" in collected["dl-foundations"] and "[perceptron-and-mlp" in collected["dl-foundations"]
    assert "test_ci.py" not in collected["dl-foundations"]


def test_the_weekly_job_takes_newest_frameworks_and_never_a_cuda_build():
    install = next(step["run"] for step in STEPS if "--upgrade" in step.get("run", ""))
    assert "torch tensorflow-cpu" in install and "==" not in install and "whl/cpu" in install


def test_every_action_is_pinned_by_its_commit_with_its_tag_beside_it():
    text = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text()
    used = re.findall(r"uses: (.+)", text)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)


def test_the_workflow_may_only_read_and_always_ends():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("permissions" not in job and job["timeout-minutes"] <= 60 for job in WORKFLOW["jobs"].values())
    checkouts = [step for step in STEPS if step.get("uses", "").startswith("actions/checkout")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize(
    ("schema", "file"),
    [("vendor.github-workflows", ".github/workflows/ci.yml"), ("vendor.dependabot", ".github/dependabot.yml")],
)
def test_githubs_files_follow_their_schema(schema, file):
    command = [BIN / "check-jsonschema", "--builtin-schema", schema, REPOSITORY / file]
    linted = subprocess.run(command, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


def shell_scripts() -> list[Path]:
    ignored = {line.strip("/") for line in (REPOSITORY / ".gitignore").read_text().splitlines()}
    folders = [each for each in REPOSITORY.iterdir() if each.name not in ignored | {".git", "datasets"}]
    files = [file for folder in folders for file in [folder, *folder.rglob("*")] if file.is_file()]
    return [file for file in files if re.match(rb"#!.*\b(ba)?sh\b", file.read_bytes()[:60])]


def test_every_shell_script_is_clean_and_executable():
    scripts = shell_scripts()
    assert REPOSITORY / "scripts" / "test" in scripts
    linted = subprocess.run([BIN / "shellcheck", *scripts], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout
    assert [script.name for script in scripts if not os.access(script, os.X_OK)] == []
