"""The script of modern-cnns-resnet-densenet: its networks, what it counts, its checkpoints and what the notebook reads.

What it has in common with others is in test_scripts.py.
"""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from atlas import course
from atlas.collect import collect

torch = pytest.importorskip("torch")

WORKSHOP = course.find("modern-cnns-resnet-densenet")
CHECKPOINTS = sorted((WORKSHOP.folder / "checkpoints").glob("*.pt"))
SHAPE = (1, 28, 28)


def module(name):
    spec = importlib.util.spec_from_file_location(name, WORKSHOP.solution_folder / f"{name}.py")
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def script():
    yield module("compare_architectures")
    del sys.modules["compare_architectures"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = torch.get_rng_state()
    yield
    torch.set_rng_state(random)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_is_what_its_log_says(script, path):
    model, saved = script.restore(path)
    log = path.with_suffix(".txt").read_text()
    config = saved["config"]
    assert config["network"] == path.stem and f"--seed {config['seed']}" in log
    assert f"--lr {config['lr']:g} " in log.splitlines()[0]
    assert f"--epochs {len(saved['history']['val loss'])} " in log.splitlines()[0]
    said = float(re.search(r"test accuracy (\S+) %", log)[1])
    data, _ = script.load_data("fashion-mnist", 10, torch.device("cpu"))
    x, y = data["test"]
    assert script.evaluate(model, x[:300], y[:300])[1] == pytest.approx(said, abs=6)
    tried = re.findall(r"--lr (\S+) --limit.*\nepoch .* val accuracy (\S+)", log)
    best = max(tried, key=lambda each: float(each[1]))
    assert len(tried) == 3 and float(best[0]) == config["lr"], "the rate is the best of three, by validation"


def test_the_weights_of_the_checkpoints_fit_the_learners_classes(script):
    names = ("ResidualBlock", "DenseBlock", "SqueezeExcite", "ViTEmbedding", "separable")
    mine = collect(WORKSHOP.source, list(names))
    pairs = {
        "ResidualBlock": (mine["ResidualBlock"](3, 5, 2), script.Residual(3, 5, 2)),
        "DenseBlock": (mine["DenseBlock"](3, 2, 4), script.Concatenate(3, 2, 4)),
        "SqueezeExcite": (mine["SqueezeExcite"](8, 2), script.Squeeze(8, 2)),
        "ViTEmbedding": (mine["ViTEmbedding"](1, 8, 4, 6), script.Embedding(1, 8, 4, 6)),
        "separable": (mine["separable"](3, 5, 3, 2), script.Separable(3, 5, 2)),
    }
    for name, (learners, scripts) in pairs.items():
        learners.load_state_dict(scripts.state_dict())
        x = torch.rand(2, 1 if name == "ViTEmbedding" else 8 if name == "SqueezeExcite" else 3, 8, 8)
        torch.testing.assert_close(learners(x), scripts(x), msg=name)


def test_multiplications_are_those_that_torch_counts(script):
    from torch.utils.flop_counter import FlopCounterMode

    for network in (*script.BLOCKS, "small-cnn"):
        model = script.make_model(script.CONFIG | {"network": network, "width": 8}, SHAPE, 10).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, *SHAPE))
        assert script.count_macs(model, SHAPE) == counter.get_total_flops() // 2, network


def test_the_vits_multiplications_are_those_of_the_readme(script):
    model = script.make_model(script.CONFIG | {"network": "vit", "width": 48, "depth": 4}, SHAPE, 10)
    assert script.count_macs(model, SHAPE) == 4_684_512
    assert "4{,}684{,}512" in (WORKSHOP.folder / "README.md").read_text()


def test_patches_that_do_not_fill_the_picture_are_told(script):
    with pytest.raises(SystemExit, match="Patches of 5 pixels do not fill pictures of 28"):
        script.main(["--network", "vit", "--patch", "5", "--epochs", "1", "--limit", "10"])


def test_colour_pictures_go_through_every_network(script):
    x = torch.rand(2, 3, 32, 32)
    for network in (*script.BLOCKS, "small-cnn", "vit"):
        model = script.make_model(script.CONFIG | {"network": network, "width": 8, "depth": 1}, (3, 32, 32), 7)
        assert script.predict(model, x).shape == (2, 7), network


def test_a_data_set_that_is_not_here_is_not_fetched_unasked(script):
    import atlas

    if atlas.data.find("cifar10").is_here():
        pytest.skip("somebody has fetched it")
    with pytest.raises(SystemExit, match="atlas data fetch cifar10"):
        script.main(["--dataset", "cifar10", "--epochs", "1"])


def test_the_table_has_a_line_for_each_checkpoint_and_a_figure(script, monkeypatch, capsys):
    few = {"test": (torch.rand(20, *SHAPE), torch.arange(20) % 10)}
    monkeypatch.setattr(script, "load_data", lambda *_: (few, None))
    script.main(["--table", *map(str, CHECKPOINTS[:2])])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == [path.stem for path in CHECKPOINTS[:2]]
    assert Path("runs/table.png").exists()


def test_the_project_takes_the_widest_network_within_the_price(script):
    project = module("project_under_a_price")
    for network in ("residual", "mbconv"):
        config = project.candidate(network, 2, 500_000)
        costs = [
            script.count_macs(script.make_model(config | {"width": config["width"] + more}, SHAPE, 10), SHAPE)
            for more in (0, 1)
        ]
        assert costs[0] <= 500_000 < costs[1]
    assert project.candidate("residual", 50, 500_000) is None
