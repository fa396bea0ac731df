"""What a learner reads about a mistake that no author foresaw: it is true, and mostly it names the mistake."""

import inspect
import re

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies

from atlas.checking import exercise, expect, readings, run_check

RNG = np.random.default_rng(0)
LOGITS, LABELS = 3 * RNG.normal(size=(5, 3)), np.array([2, 0, 1, 1, 2])
W, B, X = RNG.normal(size=(3, 4)), RNG.normal(size=3), RNG.normal(size=(5, 4))
GRADIENT, VELOCITY = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4))


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def forward(x, w, b):
    return x @ w.T + b


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_hot(labels, k):
    return np.eye(k)[labels]


def cross_entropy(z, y):
    return -np.log(softmax(z)[np.arange(len(y)), y]).mean()


def gradient_of_loss(z, y):
    return (softmax(z) - one_hot(y, z.shape[1])) / len(y)


def mse(a, b):
    return ((a - b) ** 2).mean()


def sgd(w, g, lr):
    return w - lr * g


def momentum(v, g, mu):
    return mu * v + g


def standardise(x):
    return (x - x.mean(0)) / x.std(0)


def attention(q, k):
    return q @ k.T / np.sqrt(q.shape[1])


def predict(z):
    return z.argmax(1)


def accuracy(z, y):
    return (z.argmax(1) == y).mean()


def distances(x, w):
    return ((x[:, None] - w[None]) ** 2).sum(-1)


def dropout(x, keep):
    return x * (np.arange(x.size).reshape(x.shape) % 3 > 0) / keep


def row_wise(x):
    return np.linalg.norm(x, axis=1)


def lengths(x):
    return np.array([np.linalg.norm(x**n) for n in (1, 2, 3)])


def mean_sizes(x):
    return np.array([np.sqrt(np.mean(x ** (2 * n))) for n in (1, 2, 3)])


def after_first_row(x):
    for row in x:
        return np.linalg.norm(row)


def only_last(x):
    for row in x:
        result = np.linalg.norm(row)
    return result


def as_integers(x):
    return relu(x).astype(int)


def never_filled(z):
    return np.zeros_like(z)


def products_of_rows(x):
    return x[:, None] * np.arange(1.0, 4.0)[:, None]


def added_up_in_a_loop(x):
    total, rows = 0, []
    for row in products_of_rows(x):
        total = total + row
        rows.append(total)
    return np.array(rows)


def added_up_in_grad(x):
    w, rows = torch.ones(3, 4, requires_grad=True), []
    for row in products_of_rows(x):
        (w * torch.tensor(row)).sum().backward()
        rows.append(w.grad.numpy().copy())
    return np.array(rows)


def of_another_tensor(x):
    w, other = (torch.ones(5, 3, 4, requires_grad=True) for _ in range(2))
    return torch.autograd.grad((other**2).sum(), w, materialize_grads=True)[0].numpy()


def nothing_in_front(x):
    return products_of_rows(x)[:0]


def filtered_away(x):
    return products_of_rows(x)[x[:, 0] > 1e9]


def rounds(x):
    n = 0
    while n < 9:
        n += 1
        if n == 2:
            break
    return n


def all_pairs(a, b):
    return ((a - b[:, None]) ** 2).mean()


UNFORESEEN = {
    "softmax over the wrong axis": (softmax, lambda z: softmax(z.T).T, (LOGITS,), "wrong axis"),
    "softmax over everything": (softmax, lambda z: np.exp(z) / np.exp(z).sum(), (LOGITS,), "is an axis= missing"),
    "no division": (softmax, lambda z: np.exp(z), (LOGITS,), "what is each divided by"),
    "log of it": (softmax, lambda z: np.log(softmax(z)), (LOGITS,), "logarithm"),
    "never filled": (softmax, never_filled, (LOGITS,), "ever filled in"),
    "bias left out": (forward, lambda x, w, b: x @ w.T, (X, W, B), "Adding b"),
    "bias subtracted": (forward, lambda x, w, b: x @ w.T - b, (X, W, B), "twice b"),
    "bias twice": (forward, lambda x, w, b: x @ w.T + 2 * b, (X, W, B), "once too often"),
    "transposed result": (forward, lambda x, w, b: forward(x, w, b).T, (X, W, B), "transpose"),
    "first row only": (forward, lambda x, w, b: forward(x[:1], w, b)[0], (X, W, B), ("It is the first row of the right "
"result: is only one")),
    "negative slope kept": (relu, np.abs, (X,), "without its signs|x is negative"),
    "no-op": (relu, lambda x: x, (X,), "It is x as it was given"),
    "minimum": (relu, lambda x: np.minimum(x, 0), (X,), "other of two parts"),
    "integers": (relu, as_integers, (10 * X,), "whole numbers"),
    "wrong sign in exp": (sigmoid, lambda x: 1 / (1 + np.exp(x)), (X,), "1 minus the right result"),
    "upside down": (sigmoid, lambda x: 1 + np.exp(-x), (X,), "1 divided by"),
    "one-hot transposed": (one_hot, lambda labels, k: np.eye(k)[labels].T, (LABELS, 3), "transpose"),
    "one-hot shifted": (one_hot, lambda labels, k: np.eye(k)[labels - 1], (LABELS, 3), "axis 1"),
    "sum for mean": (cross_entropy, lambda z, y: cross_entropy(z, y) * len(y), (LOGITS, LABELS), "is the length"),
    "no minus": (cross_entropy, lambda z, y: -cross_entropy(z, y), (LOGITS, LABELS), "wrong sign"),
    "log base 2": (cross_entropy, lambda z, y: cross_entropy(z, y) / np.log(2), (LOGITS, LABELS), "ln 2"),
    "gradient not averaged": (gradient_of_loss, lambda z, y: 5 * gradient_of_loss(z, y), (LOGITS, LABELS), "axis 0"),
    "labels forgotten": (gradient_of_loss, lambda z, y: softmax(z) / 5, (LOGITS, LABELS), "wrong"),
    "gradient, signs": (gradient_of_loss, lambda z, y: -gradient_of_loss(z, y), (LOGITS, LABELS), "wrong sign"),
    "sum of squares": (mse, lambda a, b: ((a - b) ** 2).sum(), (B, W[:, 0]), "length of axis 0"),
    "half": (mse, lambda a, b: ((a - b) ** 2).mean() / 2, (B, W[:, 0]), "½"),
    "root": (mse, lambda a, b: np.sqrt(mse(a, b)), (B, W[:, 0]), "square root"),
    "not averaged": (mse, lambda a, b: (a - b) ** 2, (B, W[:, 0]), "averaged over axis 0"),
    "step uphill": (sgd, lambda w, g, lr: w + lr * g, (W, GRADIENT, 0.03), "wrong direction"),
    "no learning rate": (sgd, lambda w, g, lr: w - g, (W, GRADIENT, 0.03), "the value of lr"),
    "only the step": (sgd, lambda w, g, lr: -lr * g, (W, GRADIENT, 0.03), "Adding w"),
    "velocity not damped": (momentum, lambda v, g, mu: v + g, (VELOCITY, GRADIENT, 0.9), "1 over the value of mu"),
    "gradient forgotten": (momentum, lambda v, g, mu: mu * v, (VELOCITY, GRADIENT, 0.9), "Adding g"),
    "gradient subtracted": (momentum, lambda v, g, mu: mu * v - g, (VELOCITY, GRADIENT, 0.9), "twice g"),
    "n - 1": (standardise, lambda x: (x - x.mean(0)) / x.std(0, ddof=1), (X,), "ddof"),
    "over the features": (standardise, lambda x: standardise(x.T).T, (X,), "wrong axis"),
    "not divided": (standardise, lambda x: x - x.mean(0), (X,), "Each column is off by one factor"),
    "not centred": (standardise, lambda x: x / x.std(0), (X,), "Each column is off by one number"),
    "not scaled": (attention, lambda q, k: q @ k.T, (X, W), "square root of 4"),
    "scaled by d": (attention, lambda q, k: q @ k.T / 4, (X, W), "square root of 4"),
    "queries and keys swapped": (attention, lambda q, k: attention(k, q), (X, W), "transpose"),
    "max for argmax": (predict, lambda z: z.max(1), (LOGITS,), "max for argmax"),
    "argmax over the batch": (predict, lambda z: z.argmax(0), (LOGITS,), "axis=0 meant for axis=1"),
    "argmax of all": (predict, lambda z: z.argmax(), (LOGITS,), "single number"),
    "labels from 1": (predict, lambda z: z.argmax(1) + 1, (LOGITS,), "off by the same 1"),
    "count for share": (accuracy, lambda z, y: (z.argmax(1) == y).sum() * 1.0, (LOGITS, LABELS), "length of axis 0"),
    "error for accuracy": (accuracy, lambda z, y: (z.argmax(1) != y).mean(), (LOGITS, LABELS), ""),
    "not summed": (distances, lambda x, w: (x[:, None] - w[None]) ** 2, (X, W), "summed over axis 2"),
    "root of distances": (distances, lambda x, w: np.sqrt(distances(x, w)), (X, W), "square root"),
    "summed over the batch": (distances, lambda x, w: ((x[:, None] - w) ** 2).sum(1), (X, W), "as long as one of x"),
    "not divided by keep": (dropout, lambda x, keep: dropout(x, keep) * keep, (X, 0.8), "Divided by keep"),
    "multiplied by keep": (dropout, lambda x, keep: dropout(x, keep) * keep**2, (X, 0.8), "keep squared"),
    "return in the loop": (row_wise, after_first_row, (X,), "return inside the loop"),
    "overwritten": (row_wise, only_last, (X,), "a row overwritten"),
    "cut off above": (row_wise, lambda x: np.minimum(row_wise(x), np.median(row_wise(x))), (X,), "nothing of it goes"),
    "all squares for their mean": (mean_sizes, lengths, (X,), "the square root of 20, the number of ent"),
    "squared norms": (row_wise, lambda x: (x**2).sum(1), (X,), "square of the right"),
    "keepdims": (row_wise, lambda x: np.linalg.norm(x, axis=1, keepdims=True), (X,), "too many: keepdims"),
    "columns for rows": (row_wise, lambda x: np.linalg.norm(x, axis=0), (X,), "axis=0 meant for axis=1"),
    "reversed": (row_wise, lambda x: np.linalg.norm(x, axis=1)[::-1], (X,), "reverse order"),
    "sorted": (row_wise, lambda x: np.sort(np.linalg.norm(x, axis=1)), (X,), "their order is not"),
    "shifted by one": (row_wise, lambda x: np.roll(np.linalg.norm(x, axis=1), 1), (X,), "one place too far later"),
    "last one left out": (row_wise, lambda x: np.linalg.norm(x[:-1], axis=1), (X,), "last entry along axis 0"),
    "broadcast to a square": (row_wise, lambda x: np.add.outer(row_wise(x) / 2, row_wise(x) / 2), (X,), "diagonal"),
    "repeated": (row_wise, lambda x: np.full(5, row_wise(x)[0]), (X,), "Every entry is the same"),
    "first only right": (row_wise, lambda x: row_wise(x) * [1, 2, 2, 2, 2], (X,), "4 of 5 entries"),
    "adds up in a loop": (products_of_rows, added_up_in_a_loop, (X,), "axis 0: is something not set back"),
    "adds up in .grad": (products_of_rows, added_up_in_grad, (X,), "along axis 0: is .grad not cleared"),
    "gradient of another tensor": (products_of_rows, of_another_tensor, (X,), "0: does what is differentiated depend"),
    "empty": (products_of_rows, nothing_in_front, (X,), "It is empty: print each .shape"),
    "filtered away": (products_of_rows, filtered_away, (X,), "It is empty: is a filter too strict?"),
    "a round too few": (lambda x: 3, rounds, (X,), "does the loop end a round too early?"),
    "pairs of all": (mse, all_pairs, (B, W[:, 0]), ""),
}  # fmt: skip


def message(right, wrong, inputs):
    """The last line that a learner reads who wrote `wrong` for `right`."""

    @exercise(hints=["."])
    def task(learner, rng):
        expect.close(learner(*inputs), right(*inputs), why="it must be right", source="the definition")

    wrong.__signature__ = inspect.signature(right)
    outcome = run_check(task, wrong)
    assert outcome.status == "failed"
    return "" if outcome.details[-1].startswith(("yours", "expected")) else outcome.details[-1]


@pytest.mark.parametrize("mistake", [name for name, case in UNFORESEEN.items() if case[3]])
def test_a_mistake_that_nobody_foresaw_is_named_from_the_numbers(mistake):
    right, wrong, inputs, fragments = UNFORESEEN[mistake]
    said = message(right, wrong, inputs)
    assert any(fragment in said for fragment in fragments.split("|")), said


def test_four_of_five_unforeseen_mistakes_are_named():
    vague = {"labels forgotten", "first only right"}
    named = [case for name, case in UNFORESEEN.items() if case[3] and name not in vague]
    assert len(named) >= 0.8 * len(UNFORESEEN)


@pytest.mark.parametrize("shape", [(), (2,), (7,), (3, 4), (4, 4), (2, 3, 5)])
def test_unrelated_numbers_get_no_explanation(shape):
    rng = np.random.default_rng(1)
    for _ in range(50):
        yours, expected = rng.normal(size=shape), rng.normal(size=shape)
        inputs = {
            "x": rng.normal(size=shape),
            "w": rng.normal(size=(4, 3)),
            "b": rng.normal(size=3),
            "lr": np.array(0.1),
        }
        assert readings.of_values(yours, expected, np.zeros(shape, bool), inputs) == ""


def test_two_round_numbers_that_happen_to_fit_get_no_explanation():
    inputs = {"x": np.array([1.0, 2.0]), "n": np.array(3.0)}
    for yours, expected in ((4.0, 1.0), (5.0, 2.0)):
        assert readings.of_values(np.array(yours), np.array(expected), np.array(False), inputs) == ""


@pytest.mark.parametrize(
    ("yours", "expected"),
    [
        ([0.0, 0.0, 1.0, 0.0], [0.375, 0.0, 0.625, 0.0]),  # no rounding: one was left out
        ([0.375, 0.0, 0.625, 0.0], [0.0, 0.0, 1.0, 0.0]),  # no / for //: probabilities
        (6.84, 4.0),  # a perplexity of 4 is whole by accident
    ],
)
def test_numbers_that_are_whole_by_accident_get_no_explanation(yours, expected):
    yours, expected = np.array(yours), np.array(expected)
    assert readings.of_values(yours, expected, yours == expected, {"p": np.array(0.7)}) == ""


@pytest.mark.parametrize(
    ("result", "fragment"),
    [
        ((1.0, "a"), "tuple of 2"),
        (np.sum, "parentheses after its name missing"),
        (len, "It is a function, not what it gives"),
        (dict, "It is a class, not what it gives"),
        ({"w": 1}, "It is a dict"),
        ([[1], [2, 3]], "Its rows have between 1 and 2 entries"),
        ([1.0, None], "Entry 1 of the list is None"),
        (["1", 2.0], "Entry 0 of the list is text"),
    ],
)
def test_a_result_that_is_no_array_is_told_what_it_is(result, fragment):
    assert fragment in readings.of_types(result)


def of_numbers(yours, expected, inputs=None, **options):
    """The reading of a wrong result, as `expect` puts it together."""
    yours, expected = np.asarray(yours), np.asarray(expected)
    good, inputs = np.isclose(yours, expected, 1e-5, 1e-7), inputs or {}
    told = readings.of_values(yours, expected, good, inputs, **options)
    return told or readings.of_places(yours, expected, good, inputs)


THREE = np.array([0.25, 1.7, 3.3])


@pytest.mark.parametrize(
    ("yours", "expected", "said", "unsaid"),
    [
        (THREE * (1 + 1e-6), THREE, "It is right to 1e-06 of the largest entry", "without its signs|Nearly|transpose"),
        (THREE * (1 + 2e-3), THREE, "Every entry is 1.002 times", "Nearly"),
        (THREE + [-1e-2, 2e-2, -1e-2], THREE, "No entry is off by more than 0.6% of the largest", "Nearly right"),
        (np.zeros(3, bool), np.array([True, False, True]), "Every entry is False", "is 0"),
        (np.ones(3, bool), np.array([True, False, True]), "Every entry is True", "the same"),
        (np.abs(THREE) + [0, 0, 1], THREE, "1 of 3 entries is wrong (2): what sets it apart?", "without its signs"),
        (np.array([1, 0, 1]), np.array([0, 1, 1]), "2 of 3 entries are wrong", "their order"),
        (np.array([7, 2, 3]), np.array([2, 3, 4]), "3 of 3|^$", "one place too far"),
        (np.array(4), np.array(3), "It is 1 more than the right number", "times"),
        (np.array([2.5, 0.5]), np.array([2, 1]), "The right entries are whole|1 of 2|^$", "Whole numbers are wanted"),
        (np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[1.0, 2.0], [3.0, 4.0]]), "Row 1 of 2 wrong|1 of 4", "Each row"),
    ],
)
def test_a_reading_does_not_say_more_than_the_numbers(yours, expected, said, unsaid):
    told = of_numbers(yours, expected)
    assert re.search(said if said.endswith("^$") else "|".join(map(re.escape, said.split("|"))), told), told
    assert not re.search(unsaid, told), told


def test_a_tiny_step_in_the_wrong_direction_is_no_rounding_and_no_unchanged_input():
    w, g = RNG.normal(size=5), RNG.normal(size=5)
    told = of_numbers(w + 1e-6 * g, w - 1e-6 * g, {"w": w})
    assert told == "From w it goes the right distance in the wrong direction: + and − swapped?"


def test_a_factor_that_may_come_from_many_places_is_told_without_any():
    inputs = {"x": np.ones((4, 4)), "k": np.array(4.0), "n": np.array(16.0)}
    told = of_numbers(4 * THREE, THREE, {**inputs, "y": np.ones(16)})
    assert told == "Every entry is 4 times the right one: is a factor missing, or one too many?"


def test_a_factor_of_2_is_not_blamed_on_a_length_that_is_2_by_chance():
    told = of_numbers(THREE / 2, THREE, {"x": np.ones((2, 3)), "w": np.ones((3, 5))})
    assert told == "Every entry is 0.5 times the right one: is a factor missing, or one too many?"


def test_a_missing_factor_has_its_sign():
    assert "that is minus the value of mu" in of_numbers(-0.9 * THREE, THREE, {"mu": np.array(0.9)})


def test_whole_numbers_are_asked_for_only_where_the_check_wants_them():
    expected = np.array([3, 1, 4])
    assert "max for argmax" in of_numbers([0.3, 1.2, 4.1], expected, whole=True)
    assert of_numbers([1.5, 0.5, 2.0], expected).startswith("Every entry is 0.5 times")


# ---------------------------------------------------------------------------------------------- what is in the code


def loop_less(x):
    return x.mean()


def with_loop(x):
    for row in x:
        return np.array([row.mean()])


def with_keepdims(x):
    return x.mean(1, keepdims=True)


def with_none(x):
    return x.mean(1)[:, None]


def axes_added(x):
    return x.mean(1)[None, :, None]


def transposed(x):
    return x[:, 1:].reshape(3, 1, 1).transpose(1, 0, 2)


def nothing_left(x):
    return x[:, 0] - x[:, 0]


def with_item(x):
    return x[0, 0]


def squeezable(x):
    return x.reshape(-1, 1)[:3]


def integer_division(x):
    return (x[:, 0] // 1).astype(int)


def first_part(x):
    return x * 3.7


def cast(x):
    return x[:, 0].astype(int)


POSITIVE = np.array([[1.5, 2.25], [3.75, 4.5], [5.3, 0.7]])


@pytest.mark.parametrize(
    ("wrong", "right", "said", "unsaid"),
    [
        (with_loop, lambda x: x * 7, "There are too few|shape|return", "keepdims"),
        (with_keepdims, lambda x: x.mean(1), "keepdims=True that should not be", "None"),
        (with_none, lambda x: x.mean(1), "a [:, None] or [None] too many", "keepdims"),
        (loop_less, lambda x: x[:, 0] * 3.7, "It is a single number: is an axis= missing or wrong", "index"),
        (with_item, lambda x: x[:, 0] * 3.7, "It is a single number: an index too many?", "axis="),
        (axes_added, lambda x: x[:, :1, None] * 3.7, "another place: is the None in [:, None]", "exchanged"),
        (transposed, lambda x: x[:, :1, None] * 3.7, "another place: are two axes exchanged", "None"),
        (nothing_left, lambda x: x[:, 0], "Every entry is 0, which it should not be.", "filled in"),
        (integer_division, lambda x: x[:, 0], "is an integer array, or // for /?", "astype"),
        (cast, lambda x: x[:, 0], "is an integer array?", "//"),
        (first_part, lambda x: np.hstack([x, x**2, x**3]), "Write the shape of each", "should a sum or product"),
    ],
)
def test_a_way_of_writing_is_named_only_where_it_is_in_the_code(wrong, right, said, unsaid):
    told = message(right, wrong, (POSITIVE,))
    assert any(each in told for each in said.split("|")), told
    assert unsaid not in told


def over_two_axes(x):
    return x.mean((0, 1))[1:]


def one_more(x):
    return x[:4, 0, 0] * 2.9


def test_one_entry_more_may_be_an_axis_left_by_a_mean():
    told = message(lambda x: x[:, 0, 0] * 3.7, over_two_axes, (np.arange(70.0).reshape(5, 2, 7),))
    assert "a sum or mean leave another axis" in told, told
    told = message(lambda x: x[:3, 0, 0] * 3.7, one_more, (np.arange(60.0).reshape(6, 2, 5),))
    assert told.endswith("look at both ends of the range or slice."), told


def test_nan_is_asked_about_only_by_what_is_in_the_code():
    @exercise(hints=["."])
    def task(learner, rng):
        import torch

        expect.finite(learner(torch.zeros(2)), "finite everywhere")

    def only_log(x):
        return x.log()

    assert "Such entries come of a logarithm of 0: where" in run_check(task, only_log).text()


# ---------------------------------------------------------------------------------------------- facts


def times(yours, expected, found):
    return np.allclose(yours, float(found[1]) * expected, 2e-3, 1e-3 * np.abs(yours).max())


def fits(a, b):
    return np.allclose(a, b, 1e-3, 1e-5 * max(np.abs(b).max(initial=0), 1e-12))


def summed(measure, value):
    def true(yours, expected, inputs, found):
        lines = {"the columns": 0, "the rows": 1, "the entries": 0}
        mine, right = (
            (lines.get(found[1], -1), lines.get(found[2], -1)) if found.lastindex > 1 else (None, lines[found[1]])
        )
        return (
            np.allclose(measure(expected, right), value, 0, 1e-3)
            and not np.allclose(measure(yours, right), value, 0, 1e-4)
            and (mine is None or np.allclose(measure(yours, mine), value, 0, 1e-3))
        )

    return true


def lines_off(yours, expected, inputs, found):
    axis = 1 if found[1] == "row" else 0
    if found[2] == "number":
        return fits(yours, expected + (yours - expected).mean(axis, keepdims=True)) and not (yours == expected).all()
    largest = np.expand_dims(np.abs(expected).argmax(axis), axis)
    factor = np.take_along_axis(yours, largest, axis) / np.take_along_axis(expected, largest, axis)
    return fits(yours, factor * expected)


def just_those(yours, expected, inputs, found):
    wrong = ~np.isclose(yours, expected, 1e-5, 1e-7)
    of = expected if found[1] == "the right result" else inputs[found[1]]
    return (wrong == {"negative": of < 0, "positive": of > 0, "0": of == 0}[found[2]]).all()


FACTS = {
    r"Every entry is False": lambda y, e, i, f: not y.any() and y.dtype == bool,
    r"Every entry is True": lambda y, e, i, f: y.all() and y.dtype == bool,
    r"(Every entry|It) is 0:": lambda y, e, i, f: not y.any() and y.dtype != bool,
    r"It is True and False": lambda y, e, i, f: y.dtype == bool and not np.isin(e, (0, 1)).all(),
    r"The entries are the right ones without their fractions": lambda y, e, i, f: (
        y.dtype.kind in "iu" and (np.abs(y - e) < 1).all()
    ),
    r"It is (\w) as it was given": lambda y, e, i, f: np.array_equal(y, i[f[1]]),
    r"Right size, wrong sign": lambda y, e, i, f: fits(y, -e),
    r"Every entry is the same, (.*):": lambda y, e, i, f: np.ptp(y) < 1e-6 * np.abs(y).max() and np.ptp(e) > 0,
    r"It is the transpose": lambda y, e, i, f: y.ndim > 1 and fits(y, e.T) and not np.array_equal(y, e),
    r"It is in reverse order along axis (\d)": lambda y, e, i, f: fits(y, np.flip(e, int(f[1]))),
    r"Every entry stands one place too far later along axis (\d)": lambda y, e, i, f: fits(
        np.moveaxis(y, int(f[1]), 0)[1:], np.moveaxis(e, int(f[1]), 0)[:-1]
    ),
    r"Every entry stands one place too far earlier along axis (\d)": lambda y, e, i, f: fits(
        np.moveaxis(y, int(f[1]), 0)[:-1], np.moveaxis(e, int(f[1]), 0)[1:]
    ),
    r"The entries are right, their order is not": lambda y, e, i, f: fits(np.sort(y, None), np.sort(e, None)),
    r"In yours (the \w+) add up to 1, where (the \w+) should": summed(np.sum, 1),
    r"In yours (the \w+) have mean 0, where (the \w+) should": summed(np.mean, 0),
    r"In yours all entries together add up to 1": lambda y, e, i, f: np.isclose(y.sum(), 1, 0, 1e-3),
    r"Right is that (the \w+) add up to 1": summed(np.sum, 1),
    r"Adding (\w) would": lambda y, e, i, f: any(fits(y + o, e) for o in readings._fitted(i[f[1]], y.shape)),
    r"Without (\w) added": lambda y, e, i, f: any(fits(y - o, e) for o in readings._fitted(i[f[1]], y.shape)),
    r"It is off by twice (\w)": lambda y, e, i, f: any(
        fits(np.abs(y - e), 2 * np.abs(o) + 0 * y) for o in readings._fitted(i[f[1]], y.shape)
    ),
    r"Together with the right result it makes (\w)": lambda y, e, i, f: any(
        fits(y + e, o + 0 * y) for o in readings._fitted(i[f[1]], y.shape)
    ),
    r"Multiplied by (\w) it": lambda y, e, i, f: any(fits(y * o, e) for o in readings._fitted(i[f[1]], y.shape)),
    r"Divided by (\w) it": lambda y, e, i, f: any(fits(y / o, e) for o in readings._fitted(i[f[1]], y.shape)),
    r"It is off by (\w) squared": lambda y, e, i, f: any(
        fits(y * o**2, e) or fits(y / o**2, e) for o in readings._fitted(i[f[1]], y.shape)
    ),
    r"Every entry is (\S+) times the right one": lambda y, e, i, f: times(y, e, f) and float(f[1]) != 1,
    r"It is (\S+) times the right number": lambda y, e, i, f: times(y, e, f) and float(f[1]) != 1,
    r"From (\w) it goes the right distance": lambda y, e, i, f: fits(y - i[f[1]], i[f[1]] - e),
    r"From (\w) its step is (\S+) times": lambda y, e, i, f: np.allclose(
        y - i[f[1]], float(f[2]) * (e - i[f[1]]), 5e-3, 1e-3 * np.abs(y - i[f[1]]).max()
    ),
    r"Every entry is off by the same (\S+):": lambda y, e, i, f: np.allclose(
        y - e, float(f[1]), 1e-2, 1e-4 * np.abs(y - e).max()
    ),
    r"It is 1 (more|less) than": lambda y, e, i, f: y - e == (1 if f[1] == "more" else -1),
    r"Each (row|column) is off by one (number|factor)": lines_off,
    r"It is right to (\S+) of the largest": lambda y, e, i, f: np.abs(y - e).max() <= 1.5e-4 * np.abs(e).max(),
    r"No entry is off by more than (\S+)% of": lambda y, e, i, f: (
        np.abs(y - e).max() / np.abs(e).max() * 100 <= float(f[1]) + 0.06
    ),
    r"The right entries are whole numbers, and yours have": lambda y, e, i, f: not (e % 1).any() and (y % 1).any(),
    r"\d+ of \d+ entries (?:is|are) wrong: just those where (the right result|\w) is (\w+)": just_those,
    r"(\d+) of (\d+) entries (?:is|are) wrong": lambda y, e, i, f: (
        (int(f[1]), int(f[2])) == ((~np.isclose(y, e, 1e-5, 1e-7)).sum(), y.size)
    ),
    r"Only row (\d+) is right": lambda y, e, i, f: [*np.isclose(y, e, 1e-5, 1e-7).all(1).nonzero()[0]] == [int(f[1])],
    r"Only column (\d+) is right": lambda y, e, i, f: (
        [*np.isclose(y, e, 1e-5, 1e-7).all(0).nonzero()[0]] == [int(f[1])]
    ),
    r"Row ([\d, ]+) of": lambda y, e, i, f: (
        f[1].split(", ") == [str(r) for r in (~np.isclose(y, e, 1e-5, 1e-7)).any(1).nonzero()[0]]
    ),
    r"Column ([\d, ]+) of": lambda y, e, i, f: (
        f[1].split(", ") == [str(c) for c in (~np.isclose(y, e, 1e-5, 1e-7)).any(0).nonzero()[0]]
    ),
    r"It is the exponential": lambda y, e, i, f: fits(y, np.exp(e)),
    r"It is the logarithm": lambda y, e, i, f: fits(y, np.log(e)),
    r"It is the square of": lambda y, e, i, f: fits(y, e**2),
    r"It is the square root": lambda y, e, i, f: fits(y, np.sqrt(e)),
    r"It is 1 divided by": lambda y, e, i, f: fits(y, 1 / e),
    r"It is 1 minus": lambda y, e, i, f: fits(y, 1 - e),
    r"It is the right result without its signs": lambda y, e, i, f: fits(y, np.abs(e)) and (e < 0).any(),
    r"It is the right result with its negative": lambda y, e, i, f: fits(y, np.maximum(e, 0)) and (e < 0).any(),
    r"It is the sign": lambda y, e, i, f: fits(y, np.sign(e)),
    r"It is the running sum of the right result(?: along axis (\d))?": lambda y, e, i, f: fits(
        y, np.add.accumulate(e, int(f[1] or 0))
    ),
    r"It is the right result with −1 and \+1": lambda y, e, i, f: (
        np.isin(e, (-1, 1)).all() and np.isin(y, (0, 1)).all()
    ),
    r"It is the right result with 0 and 1": lambda y, e, i, f: np.isin(e, (0, 1)).all() and np.isin(y, (-1, 1)).all(),
    r"It is right (up|down) to (\S+), and nothing of it goes further": lambda y, e, i, f: fits(
        y, np.minimum(e, y.max()) if f[1] == "up" else np.maximum(e, y.min())
    ),
    r"It is the right result rounded": lambda y, e, i, f: fits(y, np.round(e)),
    r"It is the right result with its fractions cut": lambda y, e, i, f: fits(y, np.trunc(e)),
}
"""What a reading states → whether it is so, computed in another way than the reading does."""

WAYS = [
    lambda e, x, k: e + k,
    lambda e, x, k: e * k,
    lambda e, x, k: e + x,
    lambda e, x, k: e - x,
    lambda e, x, k: e * x,
    lambda e, x, k: x,
    lambda e, x, k: -e,
    lambda e, x, k: 2 * x - e,
    lambda e, x, k: np.abs(e),
    lambda e, x, k: np.maximum(e, 0),
    lambda e, x, k: np.minimum(e, k),
    lambda e, x, k: np.maximum(e, k),
    lambda e, x, k: np.round(e),
    lambda e, x, k: np.trunc(e).astype(int),
    lambda e, x, k: e > 0,
    lambda e, x, k: np.flip(e, 0),
    lambda e, x, k: np.roll(e, 1, 0),
    lambda e, x, k: e[::-1, ::-1] if e.ndim > 1 else e,
    lambda e, x, k: np.sort(e, None).reshape(e.shape),
    lambda e, x, k: np.where(x > 0, e, k),
    lambda e, x, k: np.where(np.arange(e.size).reshape(e.shape) == 0, k, e),
    lambda e, x, k: e * (1 + 1e-6 * np.sign(x)),
    lambda e, x, k: e.astype(np.float32) * np.float32(1.0001),
    lambda e, x, k: e + 0.01 * x,
    lambda e, x, k: e + e.mean(-1, keepdims=True),
    lambda e, x, k: e * np.arange(1, len(e) + 1).reshape([-1] + [1] * (e.ndim - 1)),
    lambda e, x, k: np.cumsum(e, -1),
    lambda e, x, k: np.cumsum(e, 0),
    lambda e, x, k: np.exp(e),
    lambda e, x, k: e**2,
    lambda e, x, k: e / e.sum(0),
    lambda e, x, k: e / e.sum(),
    lambda e, x, k: np.zeros_like(e),
    lambda e, x, k: np.full_like(e, k),
    lambda e, x, k: x * k,
]

ENTRIES = strategies.one_of(
    strategies.integers(-3, 3).map(float),
    strategies.floats(-4, 4).map(lambda v: round(v, 2)),
    strategies.floats(-4, 4).map(lambda v: round(v, 6)),
    strategies.sampled_from([0.0, 1.0, 0.5, 1e-3, 100.0]),
)


@strategies.composite
def wrong_results(draw):
    shape = draw(strategies.sampled_from([(1,), (2,), (3,), (5,), (2, 2), (3, 2), (3, 3), (2, 4)]))
    size = int(np.prod(shape))
    expected, x = (np.array(draw(strategies.lists(ENTRIES, min_size=size, max_size=size))).reshape(shape) for _ in "ex")
    if draw(strategies.booleans()):
        expected = expected / np.where(expected.sum(-1, keepdims=True) == 0, 1, expected.sum(-1, keepdims=True))
    k = draw(ENTRIES)
    with np.errstate(all="ignore"):
        yours = np.asarray(expected)
        for way in draw(strategies.lists(strategies.sampled_from(WAYS), min_size=1, max_size=2)):
            yours = np.asarray(way(yours.astype(float), x, k))
    return yours, expected, {"x": x, "k": np.array(k)}


@hypothesis.settings(max_examples=1500, deadline=None, derandomize=True)
@hypothesis.given(wrong_results())
def test_what_a_reading_states_is_so(case):
    yours, expected, inputs = case
    if not np.isfinite(yours).all() or np.isclose(yours, expected, 1e-5, 1e-7).all():
        return
    told = of_numbers(yours, expected, inputs)
    if not told:
        return
    for fact, holds in FACTS.items():
        if found := re.match(fact, told):
            with np.errstate(all="ignore"):
                assert holds(yours, expected, inputs, found), told
            return
    raise AssertionError(f"no fact is known for {told!r}: a new sentence needs one")


def along(axis):
    return None if axis == "all axes" else int(axis.removeprefix("axis "))


def gone(shape, axis):
    return (*shape[:axis], *shape[axis + 1 :])


REDUCED = {"summed": np.sum, "averaged": np.mean}

FACTS_OF_SHAPES = {
    r"It is empty": lambda y, e, f: y.size == 0,
    r"It is the transpose": lambda y, e, f: fits(y.T, e),
    r"The numbers are right\. (.*)": lambda y, e, f: fits(y.ravel(), e.ravel()) and is_so_of_shapes(f[1], y, e),
    r"It is the right result (\w+) over (\w+ \w+)": lambda y, e, f: fits(
        y.ravel(), REDUCED[f[1]](e, along(f[2])).ravel()
    ),
    r"It would be right (\w+) over (\w+ \w+)": lambda y, e, f: fits(REDUCED[f[1]](y, along(f[2])).ravel(), e.ravel()),
    r"It is the (first|last) row": lambda y, e, f: fits(y, e[0 if f[1] == "first" else -1]),
    r"The (first|last) entry along axis 0 is missing": lambda y, e, f: fits(y, e[1:] if f[1] == "first" else e[:-1]),
    r"The right numbers are on the diagonal": lambda y, e, f: fits(np.diagonal(y), e.ravel()),
    r"The numbers and their order are right": lambda y, e, f: fits(y.ravel(), e.ravel()),
    r"It is an array with one entry where a lone": lambda y, e, f: y.size == 1 and e.shape == () != y.shape,
    r"The axes are swapped": lambda y, e, f: y.shape == e.shape[::-1],
    r"Did \((\d+),\) meet": lambda y, e, f: y.shape == (int(f[1]),) * 2 and e.size == int(f[1]),
    r"The axis of length 1 stands in another place": lambda y, e, f: (
        y.ndim == e.ndim and 1 in y.shape and y.size == e.size
    ),
    r"There is an axis of length 1 too many": lambda y, e, f: y.ndim > e.ndim and 1 in y.shape,
    r"An axis of length 1 is missing": lambda y, e, f: y.ndim < e.ndim and 1 in e.shape,
    r"It is a single number": lambda y, e, f: y.shape == (),
    r"The first axis is gone": lambda y, e, f: (
        y.shape == e.shape[1:] and all(gone(e.shape, axis) != y.shape for axis in range(1, e.ndim))
    ),
    r"There is a first axis too many": lambda y, e, f: (
        y.shape[1:] == e.shape and all(gone(y.shape, axis) != e.shape for axis in range(1, y.ndim))
    ),
    r"It has the length of the other axis": lambda y, e, f: y.ndim == e.ndim == 1 and {*y.shape, *e.shape} == {3, 4},
    r"Axis (\d) is as long as one of x": lambda y, e, f: y.shape[int(f[1])] in (3, 4) and y.shape != e.shape,
    r"Axis (\d) has length 1 where (\d+) are wanted": lambda y, e, f: (
        y.ndim == e.ndim and y.shape[int(f[1])] == 1 and e.shape[int(f[1])] == int(f[2])
    ),
    r"The two last axes are equally long in yours": lambda y, e, f: (
        y.ndim == e.ndim > 2 and y.shape[-1] == y.shape[-2] and e.shape[-1] != e.shape[-2]
    ),
    r"There is one entry (more|fewer) along axis (\d)": lambda y, e, f: (
        y.shape[int(f[2])] - e.shape[int(f[2])] == (1 if f[1] == "more" else -1)
    ),
    r"The number of entries is right": lambda y, e, f: y.size == e.size,
    r"An axis is lost": lambda y, e, f: y.ndim == e.ndim - 1,
    r"There are too few axes": lambda y, e, f: y.ndim < e.ndim - 1,
    r"There is an axis too many": lambda y, e, f: y.ndim == e.ndim + 1,
    r"There are too many axes": lambda y, e, f: y.ndim > e.ndim + 1,
    r"Write the shape of each": lambda y, e, f: True,
}


def is_so_of_shapes(told, yours, expected):
    for fact, holds in FACTS_OF_SHAPES.items():
        if found := re.match(fact, told):
            return holds(yours, expected, found)
    raise AssertionError(f"no fact is known for {told!r}: a new sentence needs one")


SHAPES = [(), (1,), (2,), (3,), (4,), (1, 1), (1, 3), (3, 1), (2, 3), (3, 2), (3, 3), (3, 4), (4, 3), (2, 2, 3), (0,)]
SHAPES += [(2, 3, 3)]

REARRANGED = [
    lambda e, shape: np.resize(e, shape),
    lambda e, shape: e.T,
    lambda e, shape: e.sum(-1) if e.ndim else e[None],
    lambda e, shape: e.mean(0) if e.ndim and e.size else e,
    lambda e, shape: e.sum(),
    lambda e, shape: e[0] if e.size and e.ndim else e,
    lambda e, shape: e[1:] if e.ndim else e,
    lambda e, shape: e[..., None],
    lambda e, shape: e[None],
    lambda e, shape: np.diag(e) if e.ndim == 1 else e.ravel(),
    lambda e, shape: np.add.outer(e, e) if e.ndim == 1 else e,
    lambda e, shape: np.stack([e, e]) / 2,
]


@hypothesis.settings(max_examples=800, deadline=None, derandomize=True)
@hypothesis.given(
    strategies.sampled_from(SHAPES),
    strategies.sampled_from(SHAPES),
    strategies.sampled_from(REARRANGED),
    strategies.lists(ENTRIES, min_size=12, max_size=12),
)
def test_what_a_reading_states_of_shapes_is_so(shape, other, way, entries):
    expected = np.resize(np.array(entries), shape)
    yours = np.asarray(way(expected, other))
    if yours.shape != expected.shape:
        told = readings.of_arrangement(yours, expected, {"x": np.zeros((3, 4))})
        assert is_so_of_shapes(told, yours, expected), told
        told = readings.of_shapes(yours.shape, expected.shape, {"x": np.zeros((3, 4))})
        assert is_so_of_shapes(told, yours, expected), told


@pytest.mark.parametrize(
    ("computation", "fragment"),
    [
        (lambda x: np.exp(x * 1e4), "exp of a large number overflows"),
        (lambda x: np.log(x - 1), "logarithm met 0"),
        (lambda x: np.sqrt(-x), "negative number"),
        (lambda x: x / (x - x), "divided by 0"),
    ],
)
def test_nan_and_infinity_are_traced_to_the_operation(computation, fragment):
    @exercise(hints=["."])
    def task(learner, rng):
        expect.finite(learner(np.ones(3)), "finite everywhere")

    outcome = run_check(task, computation)
    assert outcome.status == "failed" and fragment in outcome.details[-1]
