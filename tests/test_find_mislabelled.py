"""The script of tensors-and-autograd finds planted labels; what it has in common with others is in test_scripts.py."""

import csv

import pytest

from atlas import course

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SOURCE = course.find("tensors-and-autograd").solution_folder / "find_mislabelled.py"
SMALL = ["--limit", "1000", "--epochs", "2", "--device", "cpu", "--plant", "0.03"]


def lines(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("score", ["loss", "gradient"])
def test_the_list_is_sorted_and_planted_labels_come_first(script, score):
    script.main([*SMALL, "--score", score])
    found = lines("runs/labels.csv")
    scores = [float(line["score"]) for line in found]
    assert scores == sorted(scores, reverse=True)
    assert sorted(int(line["image"]) for line in found) == list(range(1000))
    planted = [int(line["planted"]) for line in found]
    assert sum(planted) == 30
    assert sum(planted[:30]) > 8, "chance finds one"


def test_lengths_are_those_of_the_gradients_one_by_one(script):
    torch.manual_seed(0)
    model = script.make_model(6).double()
    x, y = torch.randn(5, 784, dtype=torch.float64), torch.randint(10, (5,))
    lengths = script.scores_of(model, x, y)[0]["gradient"]
    for a, b, length in zip(x, y, lengths, strict=True):
        loss = torch.nn.functional.cross_entropy(model(a[None]), b[None])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        assert length == pytest.approx(sum((g**2).sum() for g in gradients).sqrt())


def test_without_planting_no_label_is_changed_and_nothing_is_claimed(script, capsys):
    script.main([*SMALL[:-2], "--data", "mnist"])
    said = capsys.readouterr().out
    assert "planted" not in said and "chance" not in said
    assert {line["planted"] for line in lines("runs/labels.csv")} == {"0"}


def test_planted_labels_are_always_other_classes_and_follow_the_seed(script):
    true = torch.arange(1000) % 10
    planted = script.plant(true, 0.2, 3)
    assert (planted != true).sum() == 200
    assert torch.equal(planted, script.plant(true, 0.2, 3))
    assert not torch.equal(planted, script.plant(true, 0.2, 4))
    assert planted.min() >= 0 and planted.max() <= 9


def test_resumed_it_ranks_the_same_planted_labels(script):
    script.main(SMALL)
    before = {line["image"] for line in lines("runs/labels.csv") if line["planted"] == "1"}
    script.main(["--resume", "--epochs", "3", "--device", "cpu"])
    after = {line["image"] for line in lines("runs/labels.csv") if line["planted"] == "1"}
    assert before == after
