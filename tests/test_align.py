"""The script of attention-for-sequences: padding is never looked at, rules align, and what it says can be read.

What it has in common with others is in test_scripts.py.
"""

import functools
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from atlas import course

torch = pytest.importorskip("torch")

WORKSHOP = course.find("attention-for-sequences")
SOURCE = WORKSHOP.solution_folder / "align.py"
CHECKPOINTS = [p for p in sorted((WORKSHOP.folder / "checkpoints").glob("*.pt")) if p.stem != "rules"]
pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SMALL = ["--width", "16", "--words", "300", "--device", "cpu"]
ATTENTIONS = ["dot", "additive", "mean", "none"]


@pytest.fixture(scope="module", autouse=True)
def words_are_read_once(script):
    script.load_words = functools.cache(script.load_words)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_padding_changes_nothing(script, attention):
    torch.manual_seed(0)
    model = script.Speaker(42, 16, attention).eval()
    alone, lengths = script.letters_of(["knight"])
    together, both = script.letters_of(["knight", "acknowledgement"])
    inputs = torch.tensor([[1, 5, 9, 7]])
    one, two = model(alone, lengths, inputs), model(together, both, inputs.expand(2, -1))
    torch.testing.assert_close(one[0], two[0])
    rows, maps = script.greedy(model, together, both)
    (row,), (weights,) = script.greedy(model, alone, lengths)
    assert row == rows[0]
    if attention != "none":
        assert weights.shape == (len(row), 6)
        torch.testing.assert_close(weights.sum(1), torch.ones(len(row)))
        torch.testing.assert_close(weights, maps[0])


def test_step_by_step_is_what_all_at_once_is(script):
    torch.manual_seed(0)
    model = script.Speaker(42, 16, "dot").eval()
    (row,), _ = script.greedy(model, *script.letters_of(["colonel"]))
    inputs = torch.tensor([[script.BOS, *row]])
    with torch.no_grad():
        logits = model(*script.letters_of(["colonel"]), inputs)
    assert logits[0].argmax(1)[: len(row)].tolist() == row


def test_scores_are_what_their_formulas_say(script):
    torch.manual_seed(0)
    q, k = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    dot, additive = script.Dot(8), script.Additive(8, hidden=4)
    one = q[1, 2] @ dot.W @ k[1, 4] / 8**0.5
    assert dot(q, k)[1, 2, 4].item() == pytest.approx(one.item(), rel=1e-4)
    one = (q[1, 2] @ additive.W_q + k[1, 4] @ additive.W_k).tanh() @ additive.v
    assert additive(q, k)[1, 2, 4].item() == pytest.approx(one.item(), rel=1e-4)
    assert not script.Mean(8)(q, k).any() and script.Mean(8)(q, k).shape == (2, 3, 5)


def test_rules_align_each_phoneme_with_a_letter_and_never_backwards(script):
    words, _ = script.load_words()
    rules = script.Rules(words["train"][:1500])
    for word, said in (("night", "N AY T"), ("box", "B AA K S"), ("sip", "S IH P")):
        letters = rules.letters(word, said.split())
        assert len(letters) == len(said.split()) and letters == sorted(letters) and max(letters) < len(word)
    assert rules.letters("sip", ["S", "IH", "P"]) == [0, 1, 2]
    assert rules.letters("a", ["AH"] * 9) is None


def test_a_checkpoint_exported_in_half_precision_says_the_same_and_draws(script, capsys):
    script.main([*SMALL, "--epochs", "1"])
    saved = torch.load("runs/align.pt", weights_only=True)
    assert len(saved["steps"]) == 3 and len(saved["history"]["val loss"]) == 1
    script.main(["--export", "runs/half.pt"])
    assert Path("runs/half.pt").stat().st_size < 0.3 * Path("runs/align.pt").stat().st_size
    capsys.readouterr()
    script.main(["--say", "Knight", "a", "--checkpoint", "runs/half.pt"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("knight") and lines[1] == "        k   n   i   g   h   t"
    assert Path("runs/align-say.png").exists()


def test_without_attention_it_speaks_and_has_nothing_to_show(script, capsys):
    script.main([*SMALL, "--attention", "none"])
    capsys.readouterr()
    script.main(["--say", "knight", "--figure", "map.png"])
    assert len(capsys.readouterr().out.splitlines()) == 1 and not Path("map.png").exists()


def test_slips_are_told_in_a_sentence(script, capsys):
    with pytest.raises(SystemExit, match="something other than the letters"):
        script.main(["--say", "don't"])
    with pytest.raises(SystemExit):
        script.main(["--width", "15"])
    assert "it has to be even" in capsys.readouterr().err


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_is_what_its_log_says(script, path):
    model, symbols, saved = script.restore(path)
    log, config = path.with_suffix(".txt").read_text(), saved["config"]
    command = log.splitlines()[0]
    assert f"--decay {config['decay']:g} " in command and f"--seed {config['seed']} " in command
    assert (f"--attention {config['attention']} " in command) == (config["attention"] != "dot")
    assert (f"--words {config['words']} " in command) == (config["words"] < 113_871)
    assert (f"--lr {config['lr']:g} " in command) == (config["lr"] != script.CONFIG["lr"])
    some = script.load_words()[0]["test"][:300]
    rate, _ = script.error_rates(script.pronounce(model, symbols, [word for word, _ in some])[0], some)
    assert rate == pytest.approx(float(re.search(r"test: phoneme error rate (\S+),", log)[1]), abs=0.05)


def test_the_rules_answers_are_exported(script):
    script.main(["--rules", "300", "--export", "rules.pt"])
    kept = torch.load("rules.pt", weights_only=True)
    assert [len(kept["answers"][name]) for name in ("test", "long")] == [2000, 596] and len(kept["letters"]) == 2000


def test_the_project_counts_homophones_as_right(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "align", script)
    spec = importlib.util.spec_from_file_location("project_spelling", WORKSHOP.solution_folder / "project_spelling.py")
    project = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(project)
    words, symbols = script.load_words()
    same_sound = project.homophones(words)
    assert {"night", "knight"} <= same_sound["N", "AY", "T"]
    sounds, lengths = project.sounds_of([["N", "AY", "T"], ["AH"]], symbols)
    assert sounds.shape == (2, 3) and lengths.tolist() == [3, 1]
    listener = script.Speaker(len(symbols), 16, "dot")
    pairs = [("knight", [["N", "AY", "T"]]), ("box", [["B", "AA", "K", "S"]])]
    found = project.measure(["night", "bo"], pairs, same_sound, listener, symbols)
    assert found["right"] == 0.5 and found["letter error"] == pytest.approx(1 / 8)
