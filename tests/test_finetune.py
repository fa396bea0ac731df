"""The script of transfer-learning: the network is what the weights say, splits and caches keep their word.

What it has in common with others is in test_scripts.py.
"""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atlas
from atlas import course

torch = pytest.importorskip("torch")

WORKSHOP = course.find("transfer-learning")
SMALL = ["--size", "32", "--frozen", "16", "--limit", "5", "--device", "cpu"]


def module(name):
    spec = importlib.util.spec_from_file_location(name, WORKSHOP.solution_folder / f"{name}.py")
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def script():
    yield module("finetune")
    del sys.modules["finetune"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    torch.set_rng_state(random)
    torch.set_num_threads(threads)


def stamp(name):
    return next(path for path in atlas.data.load("stamps").paths if path.stem == name)


def own_folder(sides=((40, 30), (30, 50), (64, 64))):
    """Two classes of plain pictures of several sizes, six things each, one of them twice."""
    rng = np.random.default_rng(0)
    for c, name in enumerate(("dark", "light")):
        (folder := Path("own") / name).mkdir(parents=True)
        for n in range(6):
            grey = rng.integers(120 * c, 120 * c + 60, (*sides[n % 3], 3), np.uint8)
            Image.fromarray(grey).save(folder / f"thing{n}.png")
        shutil.copy(folder / "thing0.png", folder / "zcopy.png")
    return "own"


def test_the_weights_fit_the_network_and_it_knows_what_imagenet_has(script):
    numbers = {"zebra": 340, "koala": 105, "banana": 954, "broccoli": 937, "teapot": 849, "firetruck": 555}
    network = script.load_network()
    x = torch.stack([script.read_picture(stamp(name), 224) for name in numbers])
    with torch.no_grad():
        assert network(x).argmax(1).tolist() == list(numbers.values())
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name("efficientnet-lite0").eval()
    whole.load_state_dict(atlas.data.load("efficientnet-lite0").tensors)
    with torch.no_grad():
        torch.testing.assert_close(network(x[:2]), whole(x[:2]))
    assert len(network.features) == 18 and network.head.weight.shape == (1000, 1280)


def test_things_are_divided_and_not_pictures(script):
    paths, labels, groups, classes = script.find_pictures("", 10_000)
    assert len(paths) == 219 and len(classes) == 7
    for seed in range(3):
        parts = script.split(labels, groups, seed)
        assert sorted(np.concatenate(list(parts.values()))) == list(range(219))
        things = [{groups[n] for n in rows} for rows in parts.values()]
        assert not (things[0] & things[1] or things[0] & things[2] or things[1] & things[2])
        assert all(set(labels[rows]) == set(range(7)) for rows in parts.values())


def test_copies_and_numbered_files_are_one_thing_and_a_camera_s_names_are_not(script):
    folder = Path(own_folder()) / "dark"
    for n, name in enumerate(("cup-1.png", "cup-2.png", "IMG_1.png", "IMG_2.png")):
        Image.new("RGB", (9, 9), (n, 7, 7)).save(folder / name)
    names = ["thing0", "zcopy", "cup-1", "cup-2", "IMG_1", "IMG_2"]
    groups = script.groups_of([folder / f"{name}.png" for name in names])
    assert groups[0] == groups[1] and groups[2] == groups[3] and len(set(groups)) == 4


def test_a_folder_of_one_s_own_becomes_a_classifier_that_predicts_and_a_second_run_computes_nothing(script, capsys):
    run = ["--folder", own_folder(), "--epochs", "1", "--cache", "runs/features.npz", "--size", "32", "--device", "cpu"]
    script.main(run)
    card = Path("runs/finetune.md").read_text()
    assert "2 classes: dark, light" in card and "14 pictures of 12 different things" in card
    kept = Path("runs/features.npz").read_bytes()
    computed = []
    read, script.read_picture = script.read_picture, lambda *_: computed.append(1)
    try:
        script.main([*run, "--overwrite"])
    finally:
        script.read_picture = read
    assert not computed
    with np.load("runs/features.npz") as file:
        assert len(file["keys"]) == 12, "copies share an entry"
    assert Path("runs/features.npz").read_bytes() == kept
    Image.new("RGBA", (300, 20), (200, 200, 200, 255)).save("new.png")
    capsys.readouterr()
    script.main(["--predict", "new.png"])
    assert re.fullmatch(r"new\.png: (dark|light) \d+\.\d %   (dark|light) \d+\.\d %\n", capsys.readouterr().out)


def test_without_epochs_it_is_the_probe_and_the_card_says_what_was_measured(script, capsys):
    script.main([*SMALL, "--epochs", "0"])
    saved = torch.load("runs/finetune.pt", weights_only=True)
    assert saved["history"]["val loss"] == [] and saved["best_epoch"] == 0
    assert all(torch.equal(saved["model"][name], saved["best"][name]) for name in saved["best"])
    card, said = Path("runs/finetune.md").read_text(), capsys.readouterr().out
    accuracy = re.search(r"test accuracy (\S+) %", said)[1]
    assert f"**{float(accuracy):.1f} %** right" in card and "a linear probe" in card
    right = sum(int(n) for n in re.findall(r"^\| \w+ \| (\d+) \|", card, re.MULTILINE))
    of = sum(int(n) for n in re.findall(r"^\| \w+ \| \d+ \| (\d+) \|", card, re.MULTILINE))
    assert 100 * right / of == pytest.approx(float(accuracy), abs=0.01)
    assert card.count("to be written by you") == 4


def test_frozen_stages_and_all_statistics_stay_and_the_kept_weights_are_the_best(script):
    script.main([*SMALL, "--epochs", "2", "--lr", "0.01"])
    saved, base = torch.load("runs/finetune.pt", weights_only=True), script.load_network()
    before = script.make_top(base, saved["config"], 7).state_dict()
    moved = {name for name, value in saved["model"].items() if not torch.equal(value, before[name])}
    assert not [name for name in moved if "running" in name or "num_batches" in name]
    assert any(name.startswith("features.") for name in moved)
    assert saved["best_accuracy"] == max(saved["probe"]["val accuracy"], *saved["history"]["val accuracy"])


def test_slips_are_told_in_a_sentence(script):
    with pytest.raises(SystemExit, match=r"There is no folder nowhere\. Name one"):
        script.main(["--folder", "nowhere"])
    own_folder()
    for path in list(Path("own/light").glob("thing[2-5].png")):
        path.unlink()
    with pytest.raises(SystemExit, match="light has fewer than 3 different things"):
        script.main(["--folder", "own"])
    shutil.rmtree("own/light")
    with pytest.raises(SystemExit, match="in 1 class folders; at least 2 are needed"):
        script.main(["--folder", "own"])
    Path("no.png").write_text("Dear reader,")
    with pytest.raises(SystemExit, match=r"no\.png is not an image that can be read"):
        script.read_picture(Path("no.png"), 32)
    with pytest.raises(SystemExit, match=r"There is no file none\.png"):
        script.read_picture(Path("none.png"), 32)


def test_wilson_s_interval_is_the_textbook_s(script):
    assert script.interval(8, 10) == pytest.approx((49.0, 94.3), abs=0.1)
    low, high = script.interval(10, 10)
    assert low == pytest.approx(72.2, abs=0.1) and high == pytest.approx(100)


def test_a_power_law_is_found_again_and_forecast(script):
    project = module("project_learning_curve")
    counts = [1, 2, 4, 8]
    found = 0.5 * np.array(counts)[:, None] ** -0.4 * np.ones((1, 5))
    assert project.power_law(counts, found.mean(1)) == pytest.approx((0.5, 0.4))
    middle, low, high = project.forecast(counts, found, 16, np.random.default_rng(0), times=20)
    assert middle == pytest.approx(low) == pytest.approx(high) == pytest.approx(0.5 * 16**-0.4)


def test_the_project_writes_its_numbers(script, capsys):
    module("project_learning_curve").main(["--quick", "--folder", own_folder(), "--out", "out"])
    written = json.loads(Path("out/learning_curve.json").read_text())
    assert len(written["errors"]) == len(written["counts"]) and "pictures for each point" in capsys.readouterr().out
    assert Path("out/learning_curve.png").exists()
