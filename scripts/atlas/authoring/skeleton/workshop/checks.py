"""The checks of {{title}}: expected values come from an authority other than the reference solution."""

from atlas.checking import exercise, expect


def squares(x):
    """Each entry is multiplied by itself: x · x, where x + x is meant."""
    return x * x


@exercise(
    mistakes=[squares],
    hints=[
        "A nudge: which operation does this to every entry at once?",
        "Nearly the code: multiply the whole array.",
    ],
)
def first_step(learner, rng):
    x = rng.normal(size=(3, 5))  # unequal dimensions: an exchange of axes shows
    expect.close(learner(x), x + x, why="every entry is doubled", source="x + x")


@exercise(
    hints=[
        "A nudge: this one undoes the first.",
        "Nearly the code: divide the whole array.",
    ],
)
def second_step(learner, rng):
    x = rng.normal(size=(3, 5))
    expect.close(learner(x + x), x, why="every entry is halved", source="x, that was doubled")
