"""The script of sequence-to-sequence: its words, its decoding held to brute force, rules, checkpoints, and the project.

What it has in common with others is in test_scripts.py.
"""

import importlib.util
import itertools
import json
import math
import re
import sys
from pathlib import Path

import pytest

from atlas import course

torch = pytest.importorskip("torch")

WORKSHOP = course.find("sequence-to-sequence")
SOURCE = WORKSHOP.solution_folder / "say.py"
CHECKPOINTS = sorted((WORKSHOP.folder / "checkpoints").glob("*.pt"))

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture(scope="module")
def words(script):
    return script.load_words()


def small(script, symbols=6, width=8):
    torch.manual_seed(0)
    model = script.Speaker(symbols, width).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    return model


def test_words_have_39_phonemes_and_69_with_stress_and_none_is_too_long(script, words):
    splits, symbols = words
    assert symbols[:3] == ["<pad>", "<bos>", "<eos>"] and len(symbols) == 3 + 39
    assert len(script.load_words(stress=True)[1]) == 3 + 69
    assert max(len(said) for _, all_of in splits["long"] + splits["test"] for said in all_of) <= script.LIMIT
    assert {len(word) for word, _ in splits["train"]} == set(range(2, 15))


def test_batches_hold_each_word_once_and_targets_are_inputs_moved_by_one(script, words):
    splits, symbols = words
    pairs = splits["train"][:50]
    seen = []
    for letters, lengths, inputs, targets in script.batches_of(pairs, symbols, 8, torch.Generator().manual_seed(0)):
        for row, n, read, say in zip(letters, lengths, inputs, targets, strict=True):
            word = "".join(chr(96 + c) for c in row[:n])
            assert not row[n:].any()
            said = [symbols[p] for p in say if p > script.EOS]
            assert read[0] == script.BOS and torch.equal(read[1 : len(said) + 1], say[: len(said)])
            assert say[len(said)] == script.EOS and not say[len(said) + 1 :].any() and not read[len(said) + 1 :].any()
            seen.append((word, said))
    assert sorted(seen) == sorted((word, all_of[0]) for word, all_of in pairs)


def test_what_is_said_of_a_word_does_not_depend_on_the_others(script):
    model = small(script)
    together = script.greedy(model, *script.letters_of(["of", "encyclopedia", "to"]))
    assert together == [script.greedy(model, *script.letters_of([w]))[0] for w in ("of", "encyclopedia", "to")]


def test_a_wide_beam_finds_the_best_of_all_and_the_narrowest_is_greedy(script, monkeypatch):
    monkeypatch.setattr(script, "LIMIT", 3)
    model = small(script, symbols=5)
    letters, lengths = script.letters_of(["whale"])
    state = model.encode(letters, lengths)

    def score(said, ended):
        inputs = torch.tensor([[script.BOS, *said][: len(said) + ended]])
        log_p = model(letters, lengths, inputs).log_softmax(2)[0]
        return sum(log_p[n, k].item() for n, k in enumerate([*said, script.EOS][: len(said) + ended]))

    symbols = [0, 1, 3, 4]
    with torch.no_grad():
        every = [(score(said, True), list(said)) for n in range(3) for said in itertools.product(symbols, repeat=n)]
        every += [(score(said, False), list(said)) for said in itertools.product(symbols, repeat=3)]
    best = sorted(every, reverse=True)[:4]
    found = script.beam_search(model.step, state, 200)[:4]
    assert [said for _, said in found] == [said for _, said in best]
    assert [s for s, _ in found] == pytest.approx([s for s, _ in best], abs=1e-4)
    narrow = script.beam_search(model.step, state, 1)[0][1]
    assert [p for p in narrow if p != script.PAD] == script.greedy(model, letters, lengths)[0]


def test_rules_learn_what_never_varies_and_say_the_word_that_they_know(script):
    pairs = [(w, [list(w.upper())]) for w in ("bat", "tab", "cat", "act", "tact", "bact")] + [("box", [list("BOKS")])]
    rules = script.Rules(pairs)
    assert rules("cab") == ["C", "A", "B"] and rules("box") == ["B", "O", "K", "S"]
    assert rules("zzz") == []


def test_error_rates_take_the_nearest_pronunciation(script):
    pairs = [("a", [["AH"], ["EY"]]), ("the", [["DH", "AH"], ["DH", "IY"]])]
    assert script.error_rates([["EY"], ["DH", "IY"]], pairs) == (0, 1)
    assert script.error_rates([[], ["D", "IY"]], pairs) == (2 / 3, 0)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_is_what_its_log_says(script, words, path):
    model, symbols, saved = script.restore(path)
    splits, log = words[0], path.with_suffix(".txt").read_text()
    config, command = saved["config"], log.splitlines()[0]
    assert f"--seed {config['seed']} " in command and f"--decay {config['decay']:g} " in command
    assert f"--epochs {len(saved['history']['val loss'])} " in command
    assert (f"--words {config['words']} " in command) == (config["words"] < 113_871)
    said = float(re.search(r"test: phoneme error rate (\S+),", log)[1])
    some = splits["test"][:300]
    rate, _ = script.error_rates(script.pronounce(model, symbols, [word for word, _ in some]), some)
    assert rate == pytest.approx(said, abs=0.05)


def test_it_trains_says_exports_and_measures(script, capsys):
    script.main(["--words", "200", "--width", "16", "--device", "cpu"])
    script.main(["--export", "half.pt"])
    assert torch.load("half.pt", weights_only=True)["model"]["out.weight"].dtype == torch.float16
    capsys.readouterr()
    script.main(["--say", "knight", "Whale", "--beam", "3", "--alpha", "0.6", "--checkpoint", "half.pt"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::3]] == ["knight", "Whale"] and len(lines) == 6
    scores = [float(re.search(r"score +(\S+)", line)[1]) for line in lines]
    assert scores[:3] == sorted(scores[:3], reverse=True) and all(math.isfinite(s) for s in scores)
    script.main(["--say", "knight", "--checkpoint", "half.pt"])
    assert capsys.readouterr().out.startswith("knight")


def test_a_word_that_is_none_is_told_in_a_sentence(script):
    with pytest.raises(SystemExit, match="'naïve' has something other than the letters a to z"):
        script.main(["--say", "naïve"])


def test_the_project_writes_its_numbers(script, monkeypatch):
    monkeypatch.syspath_prepend(WORKSHOP.solution_folder)
    spec = importlib.util.spec_from_file_location("stress_under_test", WORKSHOP.solution_folder / WORKSHOP.project)
    project = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(project)
    assert project.marks(["R", "EH1", "K", "ER0", "D"]) == "10" and project.bare(["EH1", "K"]) == ["EH", "K"]
    assert project.commonest_marks(
        [("a", [["EH1", "ER0"]]), ("b", [["IH0", "K", "AO1"]])] * 2 + [("c", [["AA1"]])]
    ) == {
        2: "10",
        1: "1",
    }
    test = [("record", [["R", "EH1", "K", "ER0", "D"]]), ("be", [["B", "IY1"]])]
    found = project.measure([["R", "EH0", "K", "ER1", "D"], ["B", "IY1"]], test, {2: "10"})
    assert found["with"] == (2 / 7, 0.5) and found["without"] == (0, 1)
    assert (found["marks right"], found["commonest"], found["of"]) == (0, 1, 1)
    sys.modules.pop("say", None)
    project.main(["--quick", "--out", "out"])
    assert {"rules", "network", "taught without"} == set(json.loads(Path("out/stress.json").read_text()))
    assert Path("out/stress.png").exists()
