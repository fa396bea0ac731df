"""The script of optimization-sgd-adam: it finds a rate, resumes exactly, and explains slips."""

import importlib.util

import numpy as np
import pytest

from atlas import course

torch = pytest.importorskip("torch")

SOURCE = course.find("optimization-sgd-adam").solution_folder / "lr_finder.py"
SMALL = ["--limit", "1000", "--width", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("lr_finder", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = torch.get_rng_state()
    yield
    torch.set_rng_state(random)


def test_one_epoch_and_one_resumed_equal_two_straight(script):
    script.main([*SMALL, "--lr", "0.003", "--epochs", "2", "--checkpoint", "straight.pt"])
    script.main([*SMALL, "--lr", "0.003", "--epochs", "1", "--checkpoint", "halved.pt"])
    torch.manual_seed(99)  # another process has another state
    script.main(["--resume", "--epochs", "2", "--device", "cpu", "--checkpoint", "halved.pt"])
    straight, halved = (torch.load(f"{name}.pt", weights_only=True)["model"] for name in ("straight", "halved"))
    assert all(torch.equal(straight[name], halved[name]) for name in straight)


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "adam", "adamw"])
def test_the_found_rate_lies_inside_the_tested_range_and_a_figure_is_drawn(script, tmp_path, capsys, optimiser):
    script.main([*SMALL, "--optimiser", optimiser, "--find-only"])
    _, low, high = script.OPTIMISERS[optimiser]
    assert low < float(capsys.readouterr().out.split("rate ")[1].split()[0]) < high / 3
    assert (tmp_path / "runs/fashion.png").stat().st_size > 1000


def test_a_test_that_diverges_is_cut_where_it_does(script):
    x, y = 30 * torch.randn(200, 784), torch.randint(10, (200,))
    config = {**script.CONFIG, "optimiser": "sgd", "width": 16}
    rates, losses = script.range_test(config, x, y, torch.device("cpu"))
    assert len(rates) == len(losses)
    over = np.flatnonzero(~np.isfinite(losses))
    assert over.size and (over == np.arange(over[0], len(losses))).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume"], "no checkpoint"),
        (["--find-only", "--lr", "0.1"], "leave out"),
        (["--lr", "0"], "not from"),
        (["--device", "toaster"], "toaster"),
    ],
)
def test_a_slip_is_explained_without_a_traceback(script, capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        script.main(arguments)
    said = capsys.readouterr().err + str(caught.value.code)
    assert words in said
    assert "Traceback" not in said


def test_a_damaged_checkpoint_is_said_to_be_one(script, tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    with pytest.raises(SystemExit, match="damaged"):
        script.main(["--resume", "--checkpoint", "bad.pt"])
