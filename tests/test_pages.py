"""A notebook is legible where learners read it: the README is a click away, nothing is cut off, nothing stray."""

import nbformat
import pytest

import skeleton_kit
from atlas import build
from atlas.authoring import pages
from skeleton_kit import SOLUTION, WORKSHOP, edit

SOURCE = f"{SOLUTION}/cnn-basics.py"


@pytest.fixture
def kit(tmp_path, monkeypatch):
    return skeleton_kit.make(tmp_path, monkeypatch)


def found() -> list[str]:
    build.build()
    return [f"{problem.path}: {problem.what}" for problem in pages.shortfalls(skeleton_kit.workshop())]


def test_a_skeleton_is_legible(kit):
    assert found() == []


def test_the_first_cell_links_the_readme(kit):
    edit(kit, SOURCE, "[README](README.md)", "README")
    assert found() == [f"{WORKSHOP}/cnn-basics.ipynb: does not link its README in the first cell"]


def test_a_command_for_the_terminal_says_in_which_folder(kit):
    edit(
        kit,
        SOURCE,
        "# What the learner can do now",
        "#     python train_cnn_basics.py\n#\n# What the learner can do now",
    )
    assert found() == [f"{WORKSHOP}/cnn-basics.ipynb: says python train_cnn_basics.py, but not in which folder"]
    edit(kit, SOURCE, "# What the learner can do now", f"# `cd {WORKSHOP}`. What the learner can do now")
    assert found() == []


def test_a_line_of_code_that_is_cut_off_at_the_right_is_named_but_not_one_of_text_or_of_the_instructor(kit):
    wide = "x" * 101
    edit(kit, SOURCE, "    x: (B, D). Returns (B, D).", f"    x: (B, D). Returns (B, D). {wide}")
    edit(kit, SOURCE, "# What do you see?", f"# What do you see? {wide}")
    edit(kit, SOURCE, '"the example in the text"', f'"the example in the text {wide}"')
    (shortfall,) = found()
    assert shortfall.startswith(
        f"{SOURCE}: a line of code has 132 columns, not 100 at most: x: (B, D). Returns (B, D)."
    )


def test_sections_are_found_by_their_headings_with_the_opening_in_the_first(kit):
    build.build()
    first, second, *_ = pages.sections(skeleton_kit.workshop())
    assert (first.title, first.minutes) == ("What this is about", 10) and "All derivations" in first.text
    assert any("atlas.open" in source for source in first.code)
    assert (second.title, second.minutes) == ("The first step", 15)
    assert not any("the example in the text" in source for source in second.code)


def cell(source: str, *outputs) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, outputs=[nbformat.v4.new_output(*one[:1], **one[1]) for one in outputs])


FIGURE = ("display_data", {"data": {"image/png": "", "text/plain": "<Figure size 640x480 with 1 Axes>"}})


@pytest.mark.parametrize(
    ("text", "drawn", "stray"),
    [
        ("Text(0.5, 1.0, 'Loss')", True, True),
        ("[<matplotlib.lines.Line2D at 0x7f>]", False, True),
        ("<Axes: title={'left': 'Loss'}>", False, True),
        ("3", True, True),
        ("3", False, False),
        ("mnist: x_train (60000, 28, 28)", False, False),
    ],
)
def test_a_cell_that_draws_leaves_nothing_but_its_figure(text, drawn, stray):
    outputs = [("execute_result", {"data": {"text/plain": text}}), *([FIGURE] if drawn else [])]
    assert bool(pages.strays([cell("import x\nax.set_title('Loss')", *outputs)])) is stray


def test_a_formula_with_a_smaller_sign_hides_no_words():
    assert pages.count_words("It is stuck if $|s| < 0.001$ there.\n\n<details>Folded</details>") == 7
