"""The script of optimization-sgd-adam finds a rate; what it has in common with others is in test_scripts.py."""

import numpy as np
import pytest

from atlas import course

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SOURCE = course.find("optimization-sgd-adam").solution_folder / "lr_finder.py"
SMALL = ["--limit", "1000", "--width", "16", "--device", "cpu"]


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "adam", "adamw"])
def test_the_found_rate_lies_inside_the_tested_range_and_a_figure_is_drawn(script, tmp_path, capsys, optimiser):
    script.main([*SMALL, "--optimiser", optimiser, "--find-only"])
    _, low, high = script.OPTIMISERS[optimiser]
    assert low < float(capsys.readouterr().out.split("rate ")[1].split()[0]) < high / 3
    assert (tmp_path / "runs/fashion.png").stat().st_size > 1000


def test_a_test_that_diverges_is_cut_where_it_does(script):
    torch.manual_seed(0)  # whatever tests ran before: some draws do not diverge
    x, y = 30 * torch.randn(200, 784), torch.randint(10, (200,))
    config = {**script.CONFIG, "optimiser": "sgd", "width": 16}
    rates, losses = script.range_test(config, x, y, torch.device("cpu"))
    assert len(rates) == len(losses)
    over = np.flatnonzero(~np.isfinite(losses))
    assert over.size and (over == np.arange(over[0], len(losses))).all()


def test_looking_for_a_rate_goes_with_no_rate_and_no_checkpoint(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--find-only", "--lr", "0.1"])
    assert "leave out --resume and --lr" in capsys.readouterr().err


def test_a_resumed_training_keeps_the_rate_that_was_found(script, capsys):
    script.main([*SMALL, "--epochs", "1"])
    found = torch.load("runs/fashion.pt", weights_only=True)["config"]["lr"]
    script.main(["--resume", "--epochs", "2", "--device", "cpu"])
    assert torch.load("runs/fashion.pt", weights_only=True)["config"]["lr"] == found
    assert capsys.readouterr().out.count("range test") == 1
