"""The script of datasets-and-dataloaders packs a folder; what is common to all is in test_scripts.py."""

import json

import numpy as np
import pytest
from PIL import Image

from atlas import course

SOURCE = course.find("datasets-and-dataloaders").solution_folder / "pack_folder.py"


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two classes: a picture with its mirror image and a smaller copy, a stranger, a broken file, and what is none."""
    monkeypatch.chdir(tmp_path)
    chance = np.random.default_rng(0)
    big, stranger = (Image.fromarray(chance.integers(0, 256, (8, 9, 3), dtype=np.uint8)) for _ in range(2))
    big, stranger = (each.resize((90, 80), Image.Resampling.NEAREST) for each in (big, stranger))
    for name, picture in {
        "cats/a.png": big,
        "cats/b.jpg": big.resize((45, 40)),
        "dogs/c.png": big.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "dogs/d.PNG": stranger,
    }.items():
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "given" / name)
    (tmp_path / "given/dogs/e.png").write_bytes((tmp_path / "given/cats/a.png").read_bytes()[:200])
    (tmp_path / "given/dogs/notes.txt").write_text("no picture")
    return tmp_path / "given"


def report(path="runs/pictures.json"):
    with open(path) as file:
        return json.load(file)


def test_copies_and_mirror_images_are_one_group_and_a_stranger_is_none_of_it(script, pictures, capsys):
    script.main(["--folder", str(pictures), "--share", "0.3"])
    said, found = capsys.readouterr().out, report()
    assert found["files"] == ["cats/a.png", "cats/b.jpg", "dogs/c.png", "dogs/d.PNG"]
    assert (found["classes"], found["labels"]) == (["cats", "dogs"], [0, 0, 1, 1])
    assert found["pairs"] == [[0, 1], [0, 2], [1, 2]]
    assert found["groups"][0] == found["groups"][1] == found["groups"][2] != found["groups"][3]
    assert found["held out"] in ([0, 1, 2], [0, 1, 2, 3])
    assert "3 pairs of near duplicates, in 1 groups of 3 pictures" in said


def test_a_broken_file_is_named_and_the_others_are_packed(script, pictures, capsys):
    script.main(["--folder", str(pictures), "--size", "16"])
    assert list(report()["broken"]) == ["dogs/e.png"]
    assert "broken: dogs/e.png" in capsys.readouterr().out
    packed = np.load("runs/pictures.npy", mmap_mode="r")
    assert (packed.shape, packed.dtype) == ((4, 3, 16, 16), np.uint8)
    assert packed[:, :, 0].mean() > 200 > packed[:, :, 8].mean(), "white above a picture that is wider than high"


def test_transparent_parts_become_white(script, pictures):
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    clear.save(pictures / "cats/clear.png")
    assert np.asarray(script.read(pictures / "cats/clear.png")).min() == 255


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_a_split_holds_out_whole_groups_and_at_least_the_share(script, share):
    groups = [0, 1, 1, 3, 3, 3, 6, 7, 8, 8]
    held = script.split(groups, share, seed=0)
    assert len(held) >= share * len(groups)
    assert not {groups[i] for i in held} & {groups[i] for i in range(len(groups)) if i not in held}
    assert held == script.split(groups, share, seed=0)


def test_a_chain_of_pairs_is_one_group(script):
    groups = script.joined(5, [(0, 1), (3, 4), (1, 3)])
    assert groups[0] == groups[1] == groups[3] == groups[4] != groups[2]


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: (folder / "cats").mkdir(parents=True)])
def test_a_folder_without_pictures_is_told(script, tmp_path, make):
    make(tmp_path / "none")
    with pytest.raises(SystemExit, match="none"):
        script.main(["--folder", str(tmp_path / "none")])
