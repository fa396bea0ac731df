"""The script of transformer-architecture: nothing leaks back, the cache changes nothing, positions are what they say.

What it has in common with others is in test_scripts.py.
"""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from atlas import course, program

torch = pytest.importorskip("torch")

WORKSHOP = course.find("transformer-architecture")
SOURCE = WORKSHOP.solution_folder / "gpt.py"
CHECKPOINTS = sorted((WORKSHOP.folder / "checkpoints").glob("*.pt"))
pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
POSITIONS = ["rope", "sinusoidal", "learned", "none"]
SMALL = ["--width", "16", "--layers", "1", "--window", "16", "--limit", "2000", "--device", "cpu"]


def small(script, positions="rope", **more):
    """A network whose weights are large enough for differences to be seen."""
    torch.manual_seed(0)
    model = script.GPT(11, script.CONFIG | {"width": 16, "positions": positions, "window": 12} | more).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape)
    return model


@pytest.mark.parametrize("positions", POSITIONS)
def test_no_output_hangs_on_a_later_input(script, positions):
    model = small(script, positions)
    ids = torch.randint(11, (2, 9))
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    with torch.no_grad():
        one, two = model(ids)[0], model(changed)[0]
    torch.testing.assert_close(one[:, :5], two[:, :5])
    assert (one[:, 5:] - two[:, 5:]).abs().max() > 0.1


@pytest.mark.parametrize("positions", POSITIONS)
def test_in_pieces_it_is_what_all_at_once_is(script, positions):
    model, ids = small(script, positions), torch.randint(11, (2, 9))
    with torch.no_grad():
        whole, caches, found = model(ids)[0], None, []
        for piece in ids.split([4, 1, 3, 1], 1):
            logits, caches = model(piece, caches)
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-5, rtol=1e-4)


def test_without_positions_the_order_before_matters_less_than_with_them(script):
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    swapped = torch.tensor([[2, 1, 3, 4, 5, 6]])
    for positions in POSITIONS:
        model = small(script, positions, layers=1)
        with torch.no_grad():
            moved = (model(ids)[0] - model(swapped)[0])[0, -1].abs().max()
        assert (moved < 1e-5) == (positions == "none")


def test_a_layer_is_pytorchs_where_nothing_is_turned(script):
    block = small(script, "none", layers=1).blocks[0]
    theirs = torch.nn.TransformerEncoderLayer(16, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    pairs = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.out.",
        "linear1.": "mlp.0.",
        "linear2.": "mlp.2.",
        "norm1.": "norm1.",
        "norm2.": "norm2.",
    }
    mine = block.state_dict()
    theirs.load_state_dict({a + kind: mine[b + kind] for a, b in pairs.items() for kind in ("weight", "bias")})
    x = torch.randn(2, 7, 16)
    later = torch.ones(7, 7, dtype=torch.bool).triu(1)
    with torch.no_grad():
        torch.testing.assert_close(block(x)[0], theirs(x, src_mask=later), atol=1e-5, rtol=1e-4)


def test_windows_that_overlap_give_more_context(script):
    model, ids = small(script), torch.randint(11, (60,))
    whole = script.window_loss(model, ids, 59, 59)
    with torch.no_grad():
        logits = model(ids[None, :-1])[0][0]
    assert whole == pytest.approx(torch.nn.functional.cross_entropy(logits, ids[1:]).item(), rel=1e-5)
    side_by_side = script.window_loss(model, ids[:57], 8, 8)
    assert side_by_side == pytest.approx(script.quick_loss(model, ids[:57], 8), rel=1e-5)


def test_it_writes_beyond_its_window_and_the_same_again(script, capsys):
    script.main([*SMALL, "--epochs", "1"])
    texts = []
    for _ in range(2):
        capsys.readouterr()
        script.main(["--prompt", "Call me Ishmael. Some years ago", "--length", "40", "--seed", "3"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and len(texts[0]) == 31 + 40 + 1 and texts[0].startswith("Call me Ishmael.")


def test_slips_are_told_in_a_sentence(script, capsys):
    for arguments, said in [
        (["--width", "18"], "shared by 4 heads"),
        (["--width", "12"], "an even number for each"),
        (["--window", "16", "--stride", "20"], "skip characters"),
    ]:
        with pytest.raises(SystemExit):
            script.main(arguments)
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit, match="its three parts needs 128"):
        script.main(["--limit", "100"])


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_is_what_its_log_says(script, path):
    model, alphabet, config = script.restore(path)
    log = path.with_suffix(".txt").read_text()
    command = log.splitlines()[0]
    for name, option in [("width", "--width"), ("layers", "--layers"), ("window", "--window"), ("seed", "--seed")]:
        assert f"{option} {config[name]} " in command + " "
    parts, theirs = program.text(config, 2)
    assert theirs == alphabet and path.stat().st_size < 2e6
    window = config["window"]
    found = script.bits(script.window_loss(model, parts[2][:6000], window, window // 2))
    assert found == pytest.approx(float(re.search(r"test: (\S+) bits", log)[1]), abs=0.15)


def test_the_projects_decoder_sees_neither_padding_nor_what_comes_later(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "gpt", script)
    spec = importlib.util.spec_from_file_location("project_speak", Path(SOURCE).with_name("project_speak.py"))
    project = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(project)
    torch.manual_seed(0)
    model = project.Speaker(42, 16, 1).eval()
    inputs = torch.tensor([[1, 5, 9, 7]])
    with torch.no_grad():
        alone = model.decode(inputs, *model.encode(project.letters_of(["knight"])))
        both = project.letters_of(["knight", "acknowledgement"])
        together = model.decode(inputs.expand(2, -1), *model.encode(both))
        cut = model.decode(inputs[:, :2], *model.encode(project.letters_of(["knight"])))
    torch.testing.assert_close(alone[0], together[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone[:, :2], cut, atol=1e-5, rtol=1e-4)
