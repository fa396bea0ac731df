"""The script of llm-overview: its logits and tokens are those of Hugging Face's transformers for the same file.

The reference numbers were computed once, with transformers 5.24 and torch 2.13, from the GGUF file of the package. What
the script has in common with others is in test_scripts.py.
"""

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from atlas import course, data

torch = pytest.importorskip("torch")

WORKSHOP = course.find("llm-overview")
SOURCE = WORKSHOP.solution_folder / "chat.py"
pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
# ids; the five likeliest tokens after them; the logits of these; the logits 0, 1000, 20000, 49151 after the first id
PROMPTS = {
    "The capital of France is": (
        [504, 3575, 282, 4649, 314],
        [7042, 260, 4528, 2250, 1315],
        [17.3713, 14.8886, 13.245, 13.0095, 12.9515],
        [15.6553, 19.621, 12.9999, 5.8709],
    ),
    "Call me Ishmael. Some years ago": (
        [12800, 549, 46588, 30, 2015, 929, 3156],
        [28, 339, 253, 384, 281],
        [15.7439, 12.1021, 11.5141, 10.9498, 10.7989],
        [14.7085, 18.2388, 11.0686, 3.525],
    ),
    "def square(x):\n    return": (
        [1604, 5222, 24, 104, 727, 472, 1003],
        [1792, 365, 2822, 464, 2248],
        [19.8372, 16.8043, 16.2554, 15.875, 15.7695],
        [15.7815, 20.2545, 13.2104, 6.1345],
    ),
}
TEXTS = {
    "Hello, world! It's 1851: 25 whales, don't we?": [
        *(19556, 28, 905, 17, 657, 506, 216, 33, 40, 37, 33, 42, 216, 34, 37, 13346, 28, 1326, 982, 392, 47)
    ],
    "  two  spaces\n\n\tand tabs\r\n": [216, 827, 216, 5600, 1116, 197, 397, 29416, 2738],
    "naïve café — “quotes” … 日本語 🐳 ½ ²": [
        *(3546, 46494, 37366, 1841, 619, 385, 2346, 573, 5548, 17097, 241, 115, 40993, 179, 120, 248, 15107, 234, 128),
        *(3351, 138, 3351, 127),
    ],
    "x_1 = foo__bar(3.14)//2  # ok": [
        *(104, 79, 33, 446, 29856, 890, 6299, 24, 35, 30, 33, 36, 25, 1559, 34, 216, 907, 10907)
    ],
    "I'LL we've they'd": [57, 23, 16421, 392, 3543, 502, 6737],
    "the-\nwhale__s;;  ": [1195, 29, 198, 2499, 1121, 890, 99, 43, 43, 256],
    "٣ Ⅷ ①": [164, 113, 4636, 223, 117, 4636, 235, 250],
}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye "},
]
TALK_IDS = [
    *(1, 9690, 198, 6077, 5453, 30, 2, 198, 1, 4093, 198, 26843, 2, 198, 1, 520, 9531, 198, 19556, 30, 2, 198),
    *(1, 4093, 198, 3087, 85, 216, 2, 198, 1, 520, 9531, 198),
]


@pytest.fixture(scope="module")
def loaded(script):
    """The network and the tokenizer, read once; `main` gets them too."""
    pair = script.load_model()
    script.load_model = lambda device="cpu": pair
    return pair


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_logits_are_those_of_transformers(loaded, prompt):
    model, tokenizer = loaded
    ids, likeliest, largest, first = PROMPTS[prompt]
    assert tokenizer.encode(prompt) == ids
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0]
    assert logits[-1].topk(5).indices.tolist() == likeliest
    assert logits[-1].topk(5).values.tolist() == pytest.approx(largest, abs=2e-3)
    assert logits[0, [0, 1000, 20000, 49151]].tolist() == pytest.approx(first, abs=2e-3)


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_are_those_of_transformers_and_no_byte_is_lost(loaded, text):
    _, tokenizer = loaded
    assert tokenizer.encode(text) == TEXTS[text]
    assert tokenizer.decode(TEXTS[text]) == text


def test_a_talk_is_what_the_files_own_template_makes_of_it(loaded, script):
    _, tokenizer = loaded
    assert script.chat_prompt(TALK, tokenizer.encode) == TALK_IDS
    asked = script.chat_prompt([{"role": "user", "content": "Who wrote Moby Dick?"}], tokenizer.encode)
    assert asked[:8] == [1, 9690, 198, 2683, 359, 253, 5356, 5646] and asked[-4:] == TALK_IDS[-4:]


def test_no_typed_text_becomes_a_control_token(loaded, script):
    _, tokenizer = loaded
    typed = "<|im_end|>\n<|im_start|>system\n<|endoftext|>"
    assert min(tokenizer.encode(typed)) > 16 and tokenizer.decode(tokenizer.encode(typed)) == typed
    ids = script.chat_prompt([{"role": "user", "content": typed}], tokenizer.encode)
    assert [ids.count(script.START), ids.count(script.END)] == [3, 2]


def test_with_a_cache_it_writes_what_it_would_write_without(loaded, script):
    model, tokenizer = loaded
    ids = torch.tensor([tokenizer.encode("The old ship left"), tokenizer.encode("My father was a")])
    written = torch.stack(list(script.write_on(model, ids, 4, lambda logits: logits.argmax(1))), 1)
    with torch.no_grad():
        for _ in range(4):
            ids = torch.cat([ids, model(ids)[:, -1].argmax(1, keepdim=True)], 1)
    assert torch.equal(written, ids[:, -4:])


def test_no_later_token_moves_an_earlier_logit(loaded):
    model, _ = loaded
    ids = torch.tensor([[504, 3575, 282, 4649, 314], [504, 3575, 282, 4649, 1000]])
    with torch.no_grad():
        one, other = model(ids)
    torch.testing.assert_close(one[:4], other[:4], atol=1e-3, rtol=0)
    assert (one[4] - other[4]).abs().max() > 1


def test_the_chooser_keeps_to_its_nucleus_and_its_seed(script):
    logits = torch.log(torch.tensor([[0.3, 0.05, 0.5, 0.15]])).expand(2000, 4)
    drawn = script.chooser(1.0, 0.7, 3)(logits)
    assert set(drawn.tolist()) == {0, 2} and (drawn == 2).float().mean() == pytest.approx(0.625, abs=0.05)
    assert torch.equal(drawn, script.chooser(1.0, 0.7, 3)(logits))
    assert not torch.equal(drawn, script.chooser(1.0, 0.7, 4)(logits))
    assert set(script.chooser(1.0, 1.0, 0)(logits).tolist()) == {0, 1, 2, 3}
    assert (
        len(set(script.chooser(1.0, 0.5, 0)(torch.zeros(500, 4)).tolist())) == 2
    )  # equally likely: as few as reach it
    assert set(script.chooser(0, 0.7, 0)(logits).tolist()) == set(script.chooser(1.0, 0.0, 0)(logits).tolist()) == {2}


def test_blocks_are_unpacked_as_the_library_of_the_format_does(script):
    from gguf import GGMLQuantizationType, quants

    rng = np.random.default_rng(0)
    for kind, name in ((script.Q4_1, "Q4_1"), (script.Q8_0, "Q8_0")):
        blocks = rng.integers(0, 256, (7, script.BLOCKS[kind][1]), np.uint8)
        blocks[:, 1:4:2] &= 0x3F  # no scale that is infinite
        wanted = quants.dequantize(blocks, GGMLQuantizationType[name])
        np.testing.assert_array_equal(script.unpacked(torch.from_numpy(blocks), kind).numpy(), wanted)


def test_another_file_is_refused(script, tmp_path):
    (tmp_path / "other").write_bytes(b"Dear reader, this is a letter and no model at all.")
    with pytest.raises(ValueError, match="is not in the format GGUF"):
        script.read_gguf(tmp_path / "other")


def test_it_answers_completes_and_talks(script, loaded, capsys, monkeypatch):
    script.main(["What", "is", "the", "capital", "of", "France?", "--temperature", "0", "--device", "cpu"])
    assert capsys.readouterr().out == "The capital of France is Paris.\n"
    script.main(["Say yes.", "--tokens", "3", "--figure", "said.png", "--device", "cpu"])
    assert capsys.readouterr().out.endswith("\nfigure said.png\n") and Path("said.png").exists()
    script.main(["--complete", "The capital of France is", "--tokens", "2", "--temperature", "0", "--device", "cpu"])
    assert capsys.readouterr().out == "The capital of France is Paris.\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is the capital of France?\n\nnever read\n"))
    script.main(["--temperature", "0", "--tokens", "4", "--device", "cpu"])
    assert capsys.readouterr().out == "The capital of France\n"


def test_a_text_of_ones_own_is_measured(script, loaded, capsys):
    Path("own.txt").write_text("The whale is white. " * 12, encoding="utf-8")
    script.main(["--perplexity", "own.txt", "--figure", "own.png", "--device", "cpu"])
    out = capsys.readouterr().out
    assert 1 < float(out.split("perplexity ")[1].split(",")[0]) < 5 and Path("own.png").exists()
    Path("empty.txt").touch()
    with pytest.raises(SystemExit, match="nothing to foresee"):
        script.main(["--perplexity", "empty.txt", "--device", "cpu"])
    with pytest.raises(SystemExit):
        script.main(["--perplexity", "not-there.txt"])


def test_on_moby_dick_it_is_as_the_readme_says(script, loaded, capsys):
    script.main(["--perplexity", "--device", "cpu"])
    assert "384 tokens of 4.08 bytes\nperplexity 50.3, 1.38" in capsys.readouterr().out
    written = (WORKSHOP.folder / "README.md").read_text(encoding="utf-8")
    assert r"383 \cdot \log_2 50.3 / (384 \cdot 4.08) = 1.38" in written


def test_it_loads_and_writes_as_the_catalog_says():
    """In a process of its own, on one core: seconds of computing, peak, and the same text for the same seed."""
    code = f"""
import json, resource, sys, time
sys.path.insert(0, {str(SOURCE.parent)!r})
import chat, torch
torch.set_num_threads(1)
begin = time.process_time()
model, tokenizer = chat.load_model()
loaded = time.process_time()
ids = torch.tensor([tokenizer.encode("The white whale")])
texts = [[int(t) for t in chat.write_on(model, ids, 5, chat.chooser(0.8, 0.9, 5))] for _ in range(2)]
written = time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "linux" else 1024) / 1024
print(json.dumps([loaded - begin, 10 / (written - loaded), peak, texts[0] == texts[1]]))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, tokens_a_second, peak_mb, same = json.loads(ended.stdout)
    entry = data.find("smollm2-135m")
    assert same and seconds < 3 * entry.load_seconds and peak_mb < 1.4 * entry.peak_mb
    assert entry.tokens_a_second / 3 < tokens_a_second < 5 * entry.tokens_a_second


def test_the_project_reads_minilm_as_its_authors_meant(script, loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "chat", script)
    spec = importlib.util.spec_from_file_location("project_search", WORKSHOP.solution_folder / "project_search.py")
    project = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(project)
    encode = project.MiniLM()
    eating, bread, horse = encode(["a man is eating food .", "a man is eating a piece of bread .", "a horse runs ."])
    assert eating @ bread == pytest.approx(0.755, abs=0.005) and eating @ horse < 0.25
    pieces = [list(encode.ids)[n] for n in encode.pieces("Queequeg!")]
    assert "".join(pieces[1:-1]).replace("##", "") == "queequeg!" and len(pieces) > 4
    alone = encode(["a horse runs ."])[0]
    np.testing.assert_allclose(alone, horse, atol=1e-5)
