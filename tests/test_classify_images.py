"""The script of cnn-basics: its network is the notebook's, its form can be read, its checkpoints hold what they say.

What it has in common with others is in test_scripts.py.
"""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atlas import course
from atlas.collect import collect

torch = pytest.importorskip("torch")

WORKSHOP = course.find("cnn-basics")
pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
CHECKPOINTS = WORKSHOP.folder / "checkpoints"


def module(name):
    spec = importlib.util.spec_from_file_location(name, WORKSHOP.solution_folder / f"{name}.py")
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def script():
    yield module("classify_images")
    del sys.modules["classify_images"]


@pytest.mark.parametrize("name", ["cnn", "cnn-mean", "cnn-shift"])
def test_a_checkpoint_is_what_its_log_says_and_fits_the_notebooks_network(script, name):
    saved = torch.load(CHECKPOINTS / f"{name}.pt", weights_only=True)
    log = (CHECKPOINTS / f"{name}.txt").read_text()
    assert f"--seed {saved['config']['seed']}" in log and f"--epochs {len(saved['history']['val loss'])} " in log
    assert ("--mean" in log, "--shift 4" in log) == (saved["config"]["mean"], saved["config"]["shift"] == 4)
    model = script.make_model(saved["config"], saved["shape"], 10)
    notebooks = collect(WORKSHOP.source, ["SmallCNN"])["SmallCNN"](mean=saved["config"]["mean"])
    for each in (model, notebooks):
        each.load_state_dict(saved["model"])
    data, _ = script.load_data("fashion-mnist", 10, torch.device("cpu"))
    x, y = data["test"][0][:300], data["test"][1][:300]
    torch.testing.assert_close(script.predict(notebooks, x), script.predict(model, x), rtol=1e-3, atol=1e-4)
    said = float(re.search(r"test accuracy (\S+) %", log)[1])
    assert script.evaluate(model, x, y)[1] == pytest.approx(said, abs=5)


def test_the_small_cnn_is_right_in_at_least_91_of_100_cases():
    said = float(re.search(r"test accuracy (\S+) %", (CHECKPOINTS / "cnn.txt").read_text())[1])
    assert said >= 91


def test_a_picture_of_the_training_set_saved_on_white_is_classified_as_it_is(script, capsys):
    data, classes = script.load_data("fashion-mnist", 10, torch.device("cpu"))
    saved = torch.load(CHECKPOINTS / "cnn.pt", weights_only=True)
    x, y = data["test"][0][:30], data["test"][1][:30]
    for n, image in enumerate(x):
        pixels = (255 * (1 - image[0])).byte().numpy()  # dark on light, three times as large
        Image.fromarray(pixels).resize((84, 84), Image.Resampling.BICUBIC).save(f"{n}.png")
    script.main(["--predict", *(f"{n}.png" for n in range(30)), "--checkpoint", str(CHECKPOINTS / "cnn.pt")])
    lines = capsys.readouterr().out.splitlines()
    right = [f": {classes[k]} " in line for line, k in zip(lines, y, strict=True)]
    assert np.mean(right) > 0.7
    assert saved["classes"] == list(classes)


def test_what_is_no_picture_is_told_in_a_sentence(script):
    with pytest.raises(SystemExit, match=r"There is no file none\.png"):
        script.main(["--predict", "none.png", "--checkpoint", str(CHECKPOINTS / "cnn.pt")])


def test_a_data_set_that_is_not_here_is_not_fetched_unasked(script, monkeypatch):
    import atlas

    entry = atlas.data.find("cifar10")
    if entry.is_here():
        pytest.skip("somebody has fetched it")
    with pytest.raises(SystemExit, match="atlas data fetch cifar10"):
        script.main(["--dataset", "cifar10", "--epochs", "1"])


def test_colour_pictures_go_through_the_same_network(script):
    colour = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    x = script.as_batch(colour, torch.device("cpu"))
    assert x.shape == (5, 3, 32, 32)
    assert torch.equal(x[2, 1], torch.tensor(colour[2, :, :, 1]) / 255)
    assert script.predict(script.make_model(script.CONFIG, (3, 32, 32), 7), x).shape == (5, 7)


def test_a_form_is_found_and_its_empty_boxes_are(script):
    script.main(["--form", "form.png", "--seed", "3"])
    written = np.array(json.loads(Path("form.json").read_text()))
    assert written.shape == (8, 10) and 0 < (written == -1).sum() < 40
    reader = module("project_form_reader")
    picture = np.asarray(Image.open("form.png"))
    boxes = reader.cut_boxes(reader.straighten(picture, reader.ink_of(picture)))
    empty = np.array([reader.centre(box) is None for box in boxes])
    assert (empty == (written.ravel() == -1)).mean() > 0.97


def test_a_photograph_without_marks_is_told(script):
    reader = module("project_form_reader")
    with pytest.raises(ValueError, match="0 marks found, not 4"):
        reader.find_marks(reader.ink_of(np.full((300, 300), 200, np.uint8)))


def test_perspective_takes_the_corners_to_their_places(script):
    square, seen = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]), np.array([(3, 1), (9, 2), (8, 7), (2, 9)])
    a, b, c, d, e, f, g, h = script.perspective(square, seen)
    for (x, y), target in zip(square, seen, strict=True):
        w = g * x + h * y + 1
        assert ((a * x + b * y + c) / w, (d * x + e * y + f) / w) == pytest.approx(target)
