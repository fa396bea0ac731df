"""The script of attention-basics: sequences repeat, nothing looks ahead, and the strip is kept from epoch to epoch.

What it has in common with others is in test_scripts.py.
"""

import importlib.util
from pathlib import Path

import pytest

from atlas import course

torch = pytest.importorskip("torch")

WORKSHOP = course.find("attention-basics")
SOURCE = WORKSHOP.solution_folder / "watch_copy.py"
pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SMALL = ["--width", "8", "--steps", "2", "--batch-size", "4", "--device", "cpu"]


def generator():
    return torch.Generator().manual_seed(0)


def test_a_sequence_is_different_tokens_and_then_the_same_again(script):
    x, period = script.copies(50, torch.arange(10, 21), generator())
    assert x.shape == (50, 40) and set(period.tolist()) == set(range(10, 21))
    for row, n in zip(x, period.tolist(), strict=True):
        assert len(row[:n].unique()) == n and torch.equal(row[n:], row[:-n]) and row.max() < script.TOKENS


def test_what_is_right_counts_only_what_can_be_known(script):
    class Knows(torch.nn.Module):
        def forward(self, x):
            """The token after the last occurrence of each, where there is one, else token 0."""
            logits = torch.zeros(*x.shape, script.TOKENS)
            for b, row in enumerate(x.tolist()):
                for t, token in enumerate(row):
                    before = [s for s in range(t) if row[s] == token]
                    logits[b, t, row[before[-1] + 1] if before else 0] = 1
            return logits, []

    assert script.right(Knows(), 12, count=5) == script.right(Knows(), 30, count=5) == 1.0


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 4)])
def test_nothing_looks_ahead(script, layers, heads):
    torch.manual_seed(0)
    model = script.Copier(layers, heads, 8).eval()
    x = script.copies(3, torch.tensor([14]), generator())[0]
    changed = x.clone()
    changed[:, 25] = (changed[:, 25] + 1) % script.TOKENS
    (before, maps), (after, _) = model(x), model(changed)
    torch.testing.assert_close(before[:, :25], after[:, :25])
    assert not torch.allclose(before[:, 25:], after[:, 25:])
    assert [tuple(each.shape) for each in maps] == [(3, heads, 40, 40)] * layers
    assert all(not each.triu(1).any() for each in maps)


def test_the_strip_holds_each_epoch_and_goes_on(script, capsys):
    script.main([*SMALL, "--epochs", "2", "--heads", "2"])
    first = torch.load("runs/copy.pt", weights_only=True)
    assert first["strip"].shape == (3, 4, 40, 40)  # before training and two epochs; 2 layers of 2 heads
    script.main(["--resume", "--epochs", "3", "--device", "cpu"])
    strip = torch.load("runs/copy.pt", weights_only=True)["strip"]
    assert len(strip) == 4 and torch.equal(strip[:3], first["strip"])
    script.main([*SMALL, "--epochs", "3", "--heads", "2", "--checkpoint", "runs/whole.pt"])
    torch.testing.assert_close(torch.load("runs/whole.pt", weights_only=True)["strip"], strip)
    capsys.readouterr()
    script.main(["--test"])
    assert len(capsys.readouterr().out.splitlines()) == len(script.EXAM)


def test_slips_are_told_in_a_sentence(script, capsys):
    for arguments, told in (
        (["--heads", "3"], "no multiple of --heads 3"),
        (["--period", "39"], "neither random nor a whole number"),
        (["--period", "some"], "neither random nor a whole number"),
    ):
        with pytest.raises(SystemExit):
            script.main([*SMALL, *arguments])
        assert told in capsys.readouterr().err


def test_the_project_asks_for_what_was_told():
    spec = importlib.util.spec_from_file_location("project_recall", Path(SOURCE).with_name("project_recall.py"))
    project = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(project)
    x, answers = project.draw(100, 5, generator())
    assert x.shape == (100, 15) and answers.shape == (100, 5)
    for row, wanted in zip(x.tolist(), answers.tolist(), strict=True):
        keys, values = row[:10:2], row[1:10:2]
        assert len(set(keys)) == 5 and max(keys) < 32 <= min(values)
        assert [values[keys.index(asked)] for asked in row[10:]] == wanted
