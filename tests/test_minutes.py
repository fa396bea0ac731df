"""The agenda is held against what stands in the notebook, and the clock against what the text promises."""

# ruff: noqa: E501 (one case a line)

import nbformat
import pytest

import skeleton_kit
from atlas import build
from atlas.authoring import minutes, pages, runs
from skeleton_kit import SOLUTION, WORKSHOP, edit

TOML, SOURCE, GUIDE = f"{WORKSHOP}/workshop.toml", f"{SOLUTION}/cnn-basics.py", f"{SOLUTION}/INSTRUCTOR.md"
LONG_CELL = "# %% [markdown]\n# Training takes about 20 s.\n\n# %%\nfor epoch in range(2):\n    {}\n\n# %% [markdown]\n"


@pytest.fixture
def kit(tmp_path, monkeypatch):
    return skeleton_kit.make(tmp_path, monkeypatch)


def found() -> list[str]:
    build.build()
    return [f"{problem.path}: {problem.what}" for problem in minutes.shortfalls(skeleton_kit.workshop())]


def last_section(kit, text: str) -> None:
    """Put text before the notebook's last section."""
    edit(kit, SOURCE, "# %% [markdown]\n# ## 4 · What came out (10 min)", f"{text}# ## 4 · What came out (10 min)")


def test_a_skeletons_agenda_has_minutes_enough(kit):
    assert found() == []


def test_an_item_with_too_few_minutes_is_named_with_what_takes_them(kit):
    edit(kit, SOURCE, "What the learner can do now", "word " * 1800 + "What the learner can do now")
    (shortfall,) = found()
    assert shortfall.startswith(f"{TOML}: agenda item 'What came out' has 10 minutes and needs about 12 (words 10.1,")


def test_exercises_given_code_and_announced_seconds_take_minutes(kit):
    last_section(kit, LONG_CELL.format("print(epoch)"))
    build.build()
    workshop = skeleton_kit.workshop()
    first, program = (pages.sections(workshop)[place] for place in (1, 2))
    parts = minutes.estimate(workshop, workshop.agenda[1], first)
    assert parts["exercises"] == 6 and parts["given code"] == pytest.approx(8 * minutes.SECONDS_A_LINE / 60)
    assert minutes.estimate(workshop, workshop.agenda[3], program)["long cells"] == pytest.approx((20 + 20) / 60)


def test_a_folded_answer_is_read_but_announces_no_seconds():
    text = "about 10 s <details><summary>Answer</summary>about 90 s</details>"
    assert minutes.told(text) == 10 and pages.count_words(text) == 7


@pytest.mark.parametrize(
    ("file", "old", "new", "finds"),
    [
        (SOURCE, "2 · The first step", "2 · The first", "sections are not the items of the agenda in order: 'The first step'"),
        (TOML, 'title = "What came out"', 'title = "What comes"', "sections are not the items of the agenda in order: 'What comes'"),
        (SOURCE, "step (15 min)", "step (9 min)", "section 'The first step' says 9 min, the agenda 15"),
        (SOURCE, "**Break.**", "**Brake.**", "says **Break.** after 'The first step' and the agenda does not, or the reverse"),
        (GUIDE, "What to say", "| 0:00 | a | b |\n| 0:12 | a | b |\n\nWhat to say", "has no row for 0:10, when 'The first step' begins"),
    ],
    ids=["a section under another name", "an item without section", "another number of minutes", "a break", "the instructor's plan"],
)  # fmt: skip
def test_agenda_sections_and_the_instructors_plan_agree(kit, file, old, new, finds):
    edit(kit, file, old, new)
    assert any(finds in shortfall for shortfall in found())


def test_a_long_cell_shows_that_it_is_getting_on(kit):
    last_section(kit, LONG_CELL.format("epoch += 1"))
    assert found() == [f"{WORKSHOP}/cnn-basics.ipynb: a cell of about 20 s shows no progress: for epoch in range(2):"]
    edit(kit, SOURCE, "epoch += 1", "print(epoch)\n# %matplotlib inline")
    assert found() == []


@pytest.mark.parametrize(
    ("text", "seconds", "says"),
    [
        ("Now train.", 13, ["computes 13 s, the text before it says nothing of it"]),
        ("Now train.", 11, []),
        ("It takes about 20 s.", 31, ["computes 31 s, the text before it says about 20 s"]),
        ("About 20 s, then look.", 29, []),
    ],
    ids=["untold", "short", "told too few", "told"],
)
def test_a_cell_takes_no_longer_than_the_text_before_it_says(text, seconds, says):
    ran = [(nbformat.v4.new_markdown_cell(text), 0), (nbformat.v4.new_code_cell("train()\nplot()"), seconds)]
    told = minutes.untold(ran)
    assert len(told) == len(says) and all(part in sentence for part, sentence in zip(says, told, strict=True))


def test_what_a_text_says_of_one_cell_does_not_hold_for_the_next():
    cells = [nbformat.v4.new_markdown_cell("about 30 s"), *map(nbformat.v4.new_code_cell, ("first()", "second()"))]
    (told,) = minutes.untold(zip(cells, (0, 30, 30), strict=True))
    assert "'second()'" in told


def test_a_run_of_the_solved_notebook_tells_of_untold_seconds_and_strays(kit, monkeypatch):
    monkeypatch.setattr(minutes, "LONG", 0.2)
    slow = "import matplotlib.pyplot as plt; plt.plot([1, 2]); sum(range(3 * 10**7)); plt.title('x')"
    edit(kit, f"{SOLUTION}/cnn-basics.ipynb", "first_step(np.arange(6.0).reshape(2, 3))", slow)
    error = runs.solved_notebook(skeleton_kit.workshop()).error
    assert "stray output Text(0.5, 1.0, 'x')" in error and "the text before it says nothing of it" in error
