"""The checks of {{title}}: expected values come from an authority other than the reference solution."""

from atlas.checking import agree, exercise, floats, parts


@parts
def _doubled(x, *, double=lambda x: x + x):
    return double(x)


@exercise(
    hints=[
        "A nudge: which operation does this to every entry at once?",
        "Nearly the code: multiply the whole array.",
    ],
    mistakes=_doubled.mistakes(
        double={"Each entry is multiplied by itself: x · x, where x + x is meant.": lambda x: x * x},
        returns={"The rows are doubled, not the entries: there are twice as many.": lambda y: [*y, *y]},
    ),
)
def first_step(learner, rng):
    agree(learner, lambda x: x + x, rng, why="every entry is doubled", source="x + x", x=floats("B", "D"))


@exercise(
    hints=[
        "A nudge: this one undoes the first.",
        "Nearly the code: divide the whole array.",
    ],
)
def second_step(learner, rng):
    agree(learner, lambda x: 0.5 * x, rng, why="every entry is halved", source="half of x", x=floats("B", "D"))
