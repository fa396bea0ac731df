"""The script of training-loops: killed at any moment and resumed, it ends with the same weights, to the bit.

What it has in common with other scripts is in test_scripts.py. Here processes really are killed, by SIGKILL.
"""

import functools
import importlib
import importlib.util
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from atlas import course
from atlas.authoring.offline import without_network

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SOURCE = course.find("training-loops").solution_folder / "train.py"
SMALL = ["--limit", "600", "--width", "16", "--device", "cpu", "--epochs", "3", "--every", "4"]  # 6 steps an epoch
STEPS = 18
fork = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def script(script):
    """The script, with what it imports and reads there already, so that its forks need not wait for it."""
    importlib.import_module("torch._dynamo")  # what the first optimizer imports
    script.read = functools.cache(script.load_data)
    return script


@pytest.fixture(scope="module")
def in_one_go(script, tmp_path_factory):
    """The checkpoint of a training that nobody disturbed."""
    path = tmp_path_factory.mktemp("straight") / "straight.pt"
    assert in_a_process(script, path) == 0
    return states(path)


def in_a_process(script, path, *more, kill=None):
    """Train in a process of its own; its exit code. kill: around which checkpoint it is killed, see `die`."""
    return code_of(begun(script, path, *more, kill=kill))


def begun(script, path, *more, kill=None, env=None):
    def run():
        os.setsid()
        os.environ.update(env or {})
        if kill:
            die(*kill)
        script.load_data, script.draw = script.read, lambda *_: None
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            script.main([*SMALL, "--checkpoint", str(path), *more])
        os._exit(0)

    script.read(600, torch.device("cpu"))
    process = fork.Process(target=run)
    process.start()
    return process


def code_of(process):
    process.join(100)
    process.kill()
    process.join()
    return process.exitcode


def on_two(script, path, *more, kill=None):
    """Train in two processes, with the variables that torchrun would set; their exit codes. kill: for rank 1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [{**env, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    kills = [None, kill]
    processes = [begun(script, path, *more, kill=each, env=own) for each, own in zip(kills, ranks, strict=True)]
    return [code_of(process) for process in processes]


def die(moment, number):
    """Have this process killed around its checkpoint of that number: before it, half-way through, or behind it.

    moment "step": at the beginning of the step of that number; a process that writes no checkpoints has steps too.
    """
    if moment == "step":
        step, steps = torch.optim.SGD.step, iter(range(1, 1000))

        def stepping(*args, **kwargs):
            if next(steps) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*args, **kwargs)

        torch.optim.SGD.step = stepping
        return
    save, replace, count = torch.save, os.replace, iter(range(1, 1000))

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def saving(checkpoint, file):
        saving.now = next(count)
        if moment == "before" and saving.now == number:
            kill()
        save(checkpoint, file)

    def replacing(source, target):
        if saving.now == number and moment == "half-way":
            with open(source, "r+b") as file:
                file.truncate(1000)  # as if the disk had got only this
            kill()
        replace(source, target)
        if saving.now == number and moment == "behind":
            kill()

    torch.save, os.replace = saving, replacing


def states(path):
    return torch.load(path, weights_only=True)


def flat(tree, name=""):
    if not isinstance(tree, dict | list | tuple):
        return {name: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {path: leaf for key, each in items for path, leaf in flat(each, f"{name}/{key}").items()}


def differing(a, b):
    """What of two checkpoints differs in a bit; their names have to be the same."""
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    return [key for key in a if not (torch.equal(a[key], b[key]) if torch.is_tensor(a[key]) else a[key] == b[key])]


@pytest.mark.parametrize(
    ("moment", "number"), [("behind", 1), ("half-way", 2), ("before", 3), ("half-way", 4), ("behind", 5)]
)
def test_killed_around_a_checkpoint_and_resumed_it_ends_with_the_same_bits(script, in_one_go, moment, number):
    assert in_a_process(script, "run.pt", kill=(moment, number)) == -signal.SIGKILL
    done = states("run.pt")["step"]
    assert 0 < done < STEPS
    assert in_a_process(script, "run.pt", "--resume") == 0
    assert differing(states("run.pt"), in_one_go) == []


def test_killed_again_and_again_at_whatever_moment_it_ends_with_the_same_bits(script, in_one_go):
    for wait in (0.02, 0.05, 0.1, 0.15):
        process = begun(script, "run.pt", *resume())
        process.join(wait)
        process.kill()
        process.join()
    done = states("run.pt")["step"] if os.path.exists("run.pt") else 0
    if done < STEPS:
        assert in_a_process(script, "run.pt", *resume()) == 0
    assert differing(states("run.pt"), in_one_go) == []


def resume():
    return ["--resume"] if os.path.exists("run.pt") else []


def test_another_seed_and_a_forgotten_state_do_show(script, in_one_go):
    """The comparison can fail: a run that resumes without its momentum is another one."""
    assert in_a_process(script, "run.pt", kill=("behind", 2)) == -signal.SIGKILL
    kept = states("run.pt")
    kept["optimizer"]["state"] = {}
    torch.save(kept, "run.pt")
    assert in_a_process(script, "run.pt", "--resume") == 0
    assert any("/model/" in key for key in differing(states("run.pt"), in_one_go))


# ------------------------------------------------------------------------------------ two processes


def test_of_two_processes_one_is_killed_and_resumed_by_torchrun_both_end_with_the_same_bits(script):
    """Two are started as torchrun starts them, which saves its seconds; the resumed ones by torchrun itself."""
    assert on_two(script, "straight.pt") == [0, 0]
    first, second = on_two(script, "run.pt", kill=("step", 11))
    assert second == -signal.SIGKILL
    assert first != 0, "the other one does not wait for ever"
    assert states("run.pt")["step"] == 8, "the last checkpoint before"

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", str(SOURCE), *SMALL, "--checkpoint", "run.pt", "--resume"]
    command, env, _ = without_network(command)
    env = os.environ | {"OMP_NUM_THREADS": "1", "ATLAS_ROOT": str(course.root())} | env
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = process.communicate(timeout=200)
    finally:
        process.terminate()  # torchrun ends what it has started
        process.wait()
    assert process.returncode == 0, said
    assert said.count("epoch   3") == said.count("weights") == 1, "only one of them prints"
    assert differing(states("run.pt"), states("straight.pt")) == []
    assert len(states("run.pt")["random"]) == 2, "each process has generators of its own"


def test_a_run_on_two_processes_is_not_resumed_on_one(script, capsys):
    assert in_a_process(script, "run.pt", "--epochs", "1") == 0
    kept = states("run.pt")
    kept["config"]["processes"] = 2
    torch.save(kept, "run.pt")
    with pytest.raises(SystemExit):
        script.main([*SMALL, "--resume", "--checkpoint", "run.pt"])
    assert "has 2 processes: torchrun --nproc-per-node 2, as before" in capsys.readouterr().err


def test_a_batch_that_cannot_be_divided_is_refused(script, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(SystemExit):
        script.main([*SMALL, "--checkpoint", "run.pt"])
    assert "--batch-size 100 cannot be divided among 3 processes" in capsys.readouterr().err


# ------------------------------------------------------------------------------------ TensorBoard


def test_tensorboard_reads_what_was_written_each_step_once_also_after_a_kill(script, in_one_go):
    pytest.importorskip("tensorboard")
    assert in_a_process(script, "run.pt", "--tensorboard", "board", kill=("before", 4)) == -signal.SIGKILL
    assert in_a_process(script, "run.pt", "--tensorboard", "board", "--resume") == 0
    sys.modules.setdefault("tensorboard.compat.notf", type(sys)("notf"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("board")
    events.Reload()
    losses = events.Scalars("val loss")
    assert [each.step for each in losses] == [5, 11, 17]
    assert [each.value for each in losses] == pytest.approx(in_one_go["history"]["val loss"])
    steps = [each.step for each in events.Scalars("loss of a batch")]
    assert steps == sorted(set(steps)) == [0, 10]


# ------------------------------------------------------------------------------------ what is left


def test_the_averaged_weights_are_the_ones_that_are_measured(script, capsys):
    script.main([*SMALL, "--checkpoint", "run.pt"])
    said, kept = capsys.readouterr().out, states("run.pt")
    run = script.new_run(kept["config"], 6, torch.device("cpu"))
    run["mean"].load_state_dict(kept["mean"])
    data = script.load_data(600, torch.device("cpu"))
    assert f"test accuracy {script.evaluate(run['mean'], *data['test'])[1]:.2f} %" in said
    assert f"weights {script.fingerprint(run['mean'])}" in said
    assert os.path.getsize("run.png") > 1000
