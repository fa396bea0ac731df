"""What every script of a workshop promises: it explains itself, loses nothing, and says of a slip what to do.

Driven by workshop.toml: a new workshop needs no new test. What its script `leaves` says which of these it is held to;
its training is that of `script_test`, two epochs of it. The skeleton of `atlas new` keeps the promises from the start.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import skeleton_kit
from atlas import course, program
from atlas.authoring import runs

FREE = ("PATH", "IMAGE", "FILE", "FOLDER", "TEXT")  # the metavar of an option that takes any word
SCRIPTS = [workshop for workshop in course.workshops() if workshop.script]
TRAINING = [workshop for workshop in SCRIPTS if "checkpoint" in workshop.leaves]


def scripts(workshops: list[course.Workshop]) -> pytest.MarkDecorator:
    """One test for each script; None is the skeleton's."""
    names = [*(workshop.script for workshop in workshops), "skeleton"]
    return pytest.mark.parametrize("script", [*workshops, None], ids=names, indirect=True)


each_script, each_training = scripts(SCRIPTS), scripts(TRAINING)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def one_line(self) -> str:
        """What stands on stderr, where that is one line."""
        (line,) = self.err.splitlines()
        return line


class Script:
    """A solved script, run by a process of tests/script_runner.py."""

    def __init__(self, workshop: course.Workshop, folder: Path, runner: subprocess.Popen):
        self.workshop, self.folder, self._runner = workshop, folder, runner
        self.training = [*workshop.script_test, "--epochs", "2"]
        self._path = str(workshop.solution_folder / workshop.script)  # ATLAS_ROOT is the skeleton's only now

    def run(self, *arguments: object, folder: Path, interrupted: bool = False) -> Ended:
        folder.mkdir(parents=True, exist_ok=True)
        case = {"script": self._path, "datasets": self.workshop.datasets, "interrupted": interrupted}
        case |= {"arguments": [str(each) for each in arguments], "folder": str(folder)}
        print(json.dumps(case), file=self._runner.stdin, flush=True)
        ended = Ended(*json.loads(self._runner.stdout.readline()))
        assert "Traceback" not in ended.err, ended.err
        return ended

    def options(self) -> dict[str, tuple[str, str]]:
        """Option → what it takes, and what --help says about it; those of a subcommand that script_test names, too."""
        commands = [word for word in self.workshop.script_test[:1] if not word.startswith("-")]
        found = {}
        for arguments in {("--help",), (*commands, "--help")}:
            ended = self.run(*arguments, folder=self.folder)
            assert ended.code == 0
            for entry in re.split(r"\n  (?=-)", ended.out.split("\noptions:")[1])[1:]:
                usage, said = re.fullmatch(r"(.*?)(?:\s{2,}(.*))?", entry.strip(), re.DOTALL).groups()
                option, *takes = usage.rpartition(", ")[2].split(maxsplit=1)
                found[option] = ("".join(takes), said or "")
        return found

    def straight(self) -> Path:
        """Where it has trained for two epochs in one go."""
        folder = self.folder / "straight"
        if not folder.exists():
            ended = self.run(*self.training, folder=folder)
            assert (ended.code, ended.err) == (0, ""), "it ends well, and its bar keeps quiet where no terminal is"
        return folder

    def stopped(self) -> tuple[Path, Ended]:
        """Where it was to train anew in place of a file that was there, and Ctrl-C came in the second epoch."""
        folder = self.folder / "stopped"
        there = folder / self.checkpoint().relative_to(self.straight())
        there.parent.mkdir(parents=True)
        there.write_bytes(b"there before")
        return folder, self.run(*self.training, "--overwrite", folder=folder, interrupted=True)

    def checkpoint(self) -> Path:
        (path,) = left(self.straight())["checkpoint"]
        return path


@pytest.fixture(scope="module")
def runner():
    """Kernel → the process that runs its scripts: one for torch, one for TensorFlow."""
    command, started = [sys.executable, Path(__file__).with_name("script_runner.py")], {}
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # what is computed here is too small for two cores

    def of(kernel: str) -> subprocess.Popen:
        if kernel not in started:
            started[kernel] = subprocess.Popen(
                command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        return started[kernel]

    yield of
    for process in started.values():
        process.communicate()


@pytest.fixture(scope="module")
def script(request, runner, tmp_path_factory):
    workshop = request.param
    if workshop is None:
        with pytest.MonkeyPatch.context() as patch:
            skeleton_kit.make(tmp_path_factory.mktemp("kit"), patch)
            workshop = skeleton_kit.workshop()
            return Script(workshop, tmp_path_factory.mktemp("script"), runner(workshop.kernel))
    return Script(workshop, tmp_path_factory.mktemp("script"), runner(workshop.kernel))


def left(folder: Path) -> dict[str, list[Path]]:
    """Kind, as `leaves` names it → the files of that kind below the folder."""
    return runs.kinds(path for path in folder.rglob("*") if path.is_file())


def contents(checkpoint: Path) -> dict:
    """All that a checkpoint holds, name by name."""
    if checkpoint.suffix == ".npz":
        with np.load(checkpoint, allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
        return parts | flat(json.loads(str(parts.pop("facts"))))
    import torch

    return flat(torch.load(checkpoint, weights_only=True))


def flat(tree: object, name: str = "") -> dict:
    """A tree of dicts, lists and tuples as {"a/0/b": leaf}."""
    if not isinstance(tree, dict | list | tuple):
        return {name: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {path: leaf for key, each in items for path, leaf in flat(each, f"{name}/{key}").items()}


def same(a: object, b: object) -> bool:
    """Equal, numbers but for rounding: another order of summation is no other training; None is as good as False."""
    if a is None or b is None:
        return not a and not b
    try:
        return bool(np.allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-5, atol=1e-7))
    except (TypeError, ValueError):
        return a == b


# ------------------------------------------------------------------------------------ every script


@each_script
def test_help_explains_every_option_and_names_the_place_of_all_that_is_left(script):
    options = script.options()
    assert [option for option, (_, said) in options.items() if not said] == [], "options without an explanation"
    wanted = {f"--{kind}" for kind in script.workshop.leaves}
    if "checkpoint" in script.workshop.leaves:
        wanted |= {"--epochs", "--seed", "--device", "--resume", "--overwrite"}
    assert sorted(wanted - options.keys()) == [], "options that are called so in all scripts"


@each_script
def test_a_value_that_makes_no_sense_gets_one_message_and_nothing_is_done(script, tmp_path):
    for option, (takes, _) in script.options().items():
        if takes and takes.split()[0] not in FREE:
            for value in ("nonsense", "nan", "-1000000"):
                ended = script.run(*script.workshop.script_test, option, value, folder=tmp_path)
                assert ended.code == 2, f"{option} {value}"
                assert option in ended.err or value in ended.err
    unknown = script.run("--nonsense", folder=tmp_path)
    assert unknown.code == 2 and "--nonsense" in unknown.err
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------ every script that trains


@each_training
def test_training_leaves_what_the_workshop_says_below_runs_and_nothing_else(script):
    assert sorted(left(script.straight())) == sorted(script.workshop.leaves)
    assert [path.name for path in script.straight().iterdir()] == ["runs"]


@each_training
def test_ctrl_c_keeps_the_last_whole_epoch_and_resumed_it_ends_as_training_in_one_go_does(script):
    folder, ended = script.stopped()
    checkpoint = folder / script.checkpoint().relative_to(script.straight())
    assert ended.code == 130
    assert f"Stopped. {checkpoint.relative_to(folder)} holds every whole epoch: --resume goes on." in ended.err
    assert left(folder) == {"checkpoint": [checkpoint]}, "no figure of half a training, and no part of a file"
    whole = contents(script.checkpoint())
    in_one_go = [name for name in whole if name.startswith("/history")]
    assert [name for name in contents(checkpoint) if name.startswith("/history")] == in_one_go[::2], "one epoch of two"

    assert script.run(*script.training, "--resume", folder=folder).code == 0
    resumed = contents(checkpoint)
    assert resumed.keys() == whole.keys()
    assert [name for name in whole if not same(resumed[name], whole[name])] == []


@each_training
def test_a_checkpoint_that_is_there_is_lost_only_if_asked(script, tmp_path):
    folder = shutil.copytree(script.straight(), tmp_path / "again")
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    ended = script.run(*script.training, folder=folder)
    assert ended.code == 1
    assert "is there already: --resume goes on with it, --overwrite trains anew" in ended.one_line
    ended = script.run(*script.training, "--resume", folder=folder)
    assert ended.code == 2 and "2 epochs are done already: ask for more with --epochs" in ended.err
    ended = script.run(*script.training, "--epochs", "3", "--resume", "--seed", "7", folder=folder)
    assert ended.code == 2 and "has seed 0; leave it out, or leave out --resume" in ended.err
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


@each_training
def test_a_damaged_or_foreign_checkpoint_is_told_in_a_line_and_left_as_it_is(script, tmp_path):
    import torch

    whole = script.checkpoint().read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "text": b"Dear reader,", "empty": b""}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
    other = {"config": {"other": 1}, "history": {"loss": [1.0]}}
    torch.save({"weights": torch.ones(2)}, tmp_path / "weights")
    program.save(tmp_path / "torch", other)
    program.save_arrays(tmp_path / "arrays", other)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path in before:
        ended = script.run(*script.training, "--resume", "--checkpoint", path.name, folder=tmp_path)
        assert ended.code == 1
        said = f"{path.name} is damaged, or no checkpoint of this program. Move it away, and train a new one."
        assert ended.one_line == said
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@each_training
def test_where_there_is_no_checkpoint_resume_says_how_to_make_one(script, tmp_path):
    for path in ("none.pt", "none/none.pt"):
        ended = script.run(*script.training, "--resume", "--checkpoint", path, folder=tmp_path)
        assert ended.code == 1
        train = f"python {script.workshop.script} --checkpoint {path}"
        assert ended.one_line == f"There is no checkpoint {path} yet. Train one first: {train}"
    assert "cannot be read" in script.run("--resume", "--checkpoint", tmp_path, folder=tmp_path).one_line


@each_training
def test_a_place_that_cannot_be_written_is_said_before_anything_is_trained(script, tmp_path):
    (tmp_path / "file").touch()
    for kind, name in (("checkpoint", "checkpoint.pt"), ("figure", "figure.png")):
        for folder in ("../file", "/proc") if kind in script.workshop.leaves else ():
            ended = script.run(*script.training, f"--{kind}", f"{folder}/{name}", folder=tmp_path / "here")
            assert (ended.code, ended.out) == (1, "")
            assert f"Cannot write {folder}/{name}: " in ended.one_line
            assert f"choose another place with --{kind}" in ended.one_line
    if "figure" in script.workshop.leaves:
        ended = script.run(*script.training, "--figure", "figure.abc", folder=tmp_path / "here")
        assert ended.code == 2 and "figure.abc does not end in .png, .svg or .pdf" in ended.err
    assert not list((tmp_path / "here").rglob("*.*"))
