"""The script of pytorch-basics: one file for three commands; what all scripts promise is in test_scripts.py."""

import subprocess
import sys

import pytest

from atlas import course

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SOURCE = course.find("pytorch-basics").solution_folder / "classify.py"
SMALL = ["--limit", "1000", "--width", "16", "--device", "cpu"]


def test_what_one_process_saves_another_loads_by_torch_alone(script):
    model = script.ResidualMLP(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(3, 784)).sum().backward()
    optimizer.step()
    script.save_checkpoint(script.Path("model.pt"), model, optimizer, {"epoch": 3})
    code = """
import torch
saved = torch.load("model.pt", weights_only=True)
total = float(saved["model"]["last.weight"].double().sum())
print(saved["epoch"], sorted(saved), repr(total), len(saved["optimizer"]["state"]))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    total = float(model.last.weight.detach().double().sum())
    assert said == f"3 ['epoch', 'model', 'optimizer'] {total!r} {len(list(model.parameters()))}"


def test_evaluate_and_predict_use_the_file_that_train_wrote(script, capsys, tmp_path):
    from PIL import Image

    script.main(["train", *SMALL, "--epochs", "1"])
    trained = capsys.readouterr().out.split("test accuracy ")[1].split()[0]
    script.main(["evaluate", "--device", "cpu"])
    said = capsys.readouterr().out
    assert said.splitlines()[0] == f"test accuracy {trained} %" and len(said.splitlines()) == 11
    script.main(["predict", "--device", "cpu"])
    assert len(capsys.readouterr().out.splitlines()) == 10
    Image.new("L", (50, 40), 200).save("coat.png")
    script.main(["predict", "--device", "cpu", "--image", "coat.png"])
    assert capsys.readouterr().out.count("%") == 3
    with pytest.raises(SystemExit, match="cannot be read as a picture"):
        script.read_image("none.png")


def test_a_checkpoint_that_is_missing_or_foreign_is_told_before_anything_is_evaluated(script):
    with pytest.raises(SystemExit, match="There is no checkpoint"):
        script.main(["evaluate", "--device", "cpu"])
    (script.Path("runs")).mkdir()
    torch.save({"weights": torch.ones(2)}, "runs/classify.pt")
    with pytest.raises(SystemExit, match="no checkpoint of this program"):
        script.main(["predict", "--device", "cpu"])
