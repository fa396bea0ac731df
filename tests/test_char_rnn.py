"""The script of rnn-lstm-gru: its table is a probability, its measure is right, and what it ships fits.

What it has in common with others is in test_scripts.py.
"""

import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from atlas import course, program

torch = pytest.importorskip("torch")

WORKSHOP = course.find("rnn-lstm-gru")
SOURCE = WORKSHOP.solution_folder / "char_rnn.py"
pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SMALL = ["--width", "8", "--embed", "4", "--limit", "2000", "--device", "cpu", "--epochs", "1"]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_table_s_probabilities_add_up_to_one_after_any_context(script, order):
    rng = np.random.default_rng(0)
    text = rng.choice(4, size=300, p=[0.5, 0.3, 0.15, 0.05])
    table = script.KneserNey(text, 5, order)  # the fifth symbol never comes
    for context in ([], [4, 4, 4, 4], [0], *itertools.islice(itertools.product(range(5), repeat=4), 0, 625, 13)):
        p = table.next(np.array(context, int))
        assert p.sum() == pytest.approx(1) and (p > 0).all()


def test_the_table_is_the_formula_s(script):
    text = [0, 1, 0, 1, 0, 2, 0, 1, 2, 2, 0]
    table, d, V = script.KneserNey(text, 3, 2, 0.7), 0.7, 3
    pairs = list(zip(text[:-1], text[1:], strict=True))
    kinds = set(pairs)
    for c, s in itertools.product(range(3), repeat=2):
        before = sum(pair[1] == s for pair in kinds)  # different symbols before s
        lower = max(before - d, 0) / len(kinds) + d * 3 / len(kinds) / V
        n, of = pairs.count((c, s)), sum(pair[0] == c for pair in pairs)
        expected = max(n - d, 0) / of + d * sum(pair[0] == c for pair in kinds) / of * lower
        assert table.next(np.array([c]))[s] == pytest.approx(expected)


def test_the_table_s_bits_are_those_of_its_probabilities(script):
    rng = np.random.default_rng(1)
    text, other = rng.integers(6, size=400), rng.integers(6, size=12)
    table = script.KneserNey(text, 6, 4)
    singly = [-math.log2(table.next(other[:k])[other[k]]) for k in range(1, 12)]
    np.testing.assert_allclose(table.bits(other), singly)


def test_evaluating_in_windows_is_one_pass_over_the_text(script):
    torch.manual_seed(0)
    for cell in script.CELLS:
        model = script.CharModel(5, script.CONFIG | {"cell": cell, "width": 6, "embed": 3}).eval()
        ids = torch.randint(5, (31,))
        with torch.no_grad():
            nats = torch.nn.functional.cross_entropy(model(ids[None, :-1])[0][0], ids[1:]).item()
        assert script.evaluate(model, ids, window=7) == pytest.approx(nats / math.log(2), rel=1e-5)


def test_forget_gates_begin_open(script):
    torch.manual_seed(0)
    bias = script.CharModel(5, script.CONFIG | {"cell": "lstm"}).rnn.bias_ih_l0.view(4, -1).mean(1)
    assert bias[1] > 0.9 and bias[[0, 2, 3]].abs().max() < 0.1


def test_a_text_of_one_s_own_is_learned_and_written_on_and_the_generator_decides(script, capsys):
    Path("own.txt").write_text("so long, and so on; " * 200, encoding="utf-8")
    script.main(["--text", "own.txt", "--cell", "gru", *SMALL, "--slim", "slim.pt"])
    said = capsys.readouterr().out
    assert re.search(r"test: gru \d\.\d{3} bits per character, Kneser–Ney \d-gram 0\.\d{3}", said)
    assert Path("runs/char_rnn.png").exists()
    ask = ["--checkpoint", "slim.pt", "--prompt", "so ", "--length", "30"]
    texts = []
    for seed in ("1", "1", "2"):
        script.main([*ask, "--seed", seed])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2] and texts[0].startswith("so ") and len(texts[0]) == 34
    with pytest.raises(SystemExit):
        script.main([*ask[:2], "--prompt", "Ω"])
    assert "never seen: ['Ω']" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="damaged, or no checkpoint"):
        script.main(["--checkpoint", "slim.pt", "--resume", "--text", "own.txt", "--epochs", "2"])


def test_slips_are_told_in_a_sentence(script):
    with pytest.raises(SystemExit, match=r"nowhere\.txt cannot be read as text in UTF-8"):
        script.main(["--text", "nowhere.txt"])
    Path("short.txt").write_text("too short", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"short\.txt is too short"):
        script.main(["--text", "short.txt"])


def test_what_is_shipped_was_made_by_it_and_reaches_what_its_log_says(script):
    folder = WORKSHOP.folder / "checkpoints"
    model, alphabet = script.load_model(folder / "char-lstm.pt")
    parts, whole = program.text(script.CONFIG, 2)
    assert alphabet == whole
    log = (folder / "char-lstm.txt").read_text()
    kept = min(float(value) for value in re.findall(r"valid bits (\S+)", log))
    assert script.evaluate(model, parts[1], 16) == pytest.approx(kept, abs=0.002)


def test_the_project_counts_names_as_they_begin_and_end_and_writes_its_numbers(script, monkeypatch, capsys):
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, "char_rnn", script)
    monkeypatch.syspath_prepend(str(WORKSHOP.solution_folder))
    project = importlib.import_module("project_new_names")
    try:
        rows = project.encode(["ab", "aba", "b"])
        table = project.count(rows, 3, 0.5)
        p = project.by_table(table, rows)
        np.testing.assert_allclose(p.sum(2), 1)
        assert p[0, 0].argmax() == 1 and p[0, 1].argmax() == 2  # names begin with a, and b follows
        assert p[0, 0, 0] < 0.1, "no name is empty"
        assert len(project.bits(p, rows)) == 3 + 4 + 2
        project.main(["--quick", "--out", "out"])
    finally:
        del sys.modules["project_new_names"]
    written = json.loads(Path("out/new_names.json").read_text())
    bits = {kind: each["test bits"] for kind, each in written["kinds"].items()}
    assert bits["mixture"] < bits["network"] and "good of drawn" in capsys.readouterr().out
    assert Path("out/new_names.png").exists()
