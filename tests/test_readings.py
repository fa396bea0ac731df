"""What a learner reads about a mistake that no author foresaw: it is true, and mostly it names the mistake."""

import inspect

import numpy as np
import pytest

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


def all_pairs(a, b):
    return ((a - b[:, None]) ** 2).mean()


UNFORESEEN = {
    "softmax over the wrong axis": (softmax, lambda z: softmax(z.T).T, (LOGITS,), "wrong axis"),
    "softmax over everything": (softmax, lambda z: np.exp(z) / np.exp(z).sum(), (LOGITS,), "is an axis= missing"),
    "no division": (softmax, lambda z: np.exp(z), (LOGITS,), "division by the sum left out"),
    "log of it": (softmax, lambda z: np.log(softmax(z)), (LOGITS,), "logarithm"),
    "never filled": (softmax, never_filled, (LOGITS,), "ever filled in"),
    "bias left out": (forward, lambda x, w, b: x @ w.T, (X, W, B), "Adding b"),
    "bias subtracted": (forward, lambda x, w, b: x @ w.T - b, (X, W, B), "twice b"),
    "bias twice": (forward, lambda x, w, b: x @ w.T + 2 * b, (X, W, B), "once too often"),
    "transposed result": (forward, lambda x, w, b: forward(x, w, b).T, (X, W, B), "transpose"),
    "first row only": (forward, lambda x, w, b: forward(x[:1], w, b)[0], (X, W, B), "return inside the loop"),
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
    ("result", "fragment"),
    [
        ((1.0, "a"), "tuple of 2"),
        (np.sum, "parentheses after its name missing"),
        ((n for n in range(3)), "generator"),
        ([[1], [2, 3]], "different lengths"),
    ],
)
def test_a_result_that_is_no_array_is_told_what_it_is(result, fragment):
    assert fragment in readings.of_types(result)


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
