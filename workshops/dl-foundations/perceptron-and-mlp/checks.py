"""The checks of perceptron-and-mlp: one for each exercise, with its hints. `lab.check` runs them."""

import contextlib
import dis
import itertools
import math
from functools import partial

import numpy as np

from atlas.checking import array, exercise, expect, same


def _numbers(given):
    """What came back as an array, empty where it is none: `expect` says so."""
    try:
        return array(given)
    except TypeError:
        return np.empty(0)


def _slips(given, compute, *tables):
    """Which slips give what was given: words from the tables, or "" where none fit or all is right.

    A table maps the words for each slip to what it makes, "" to what is right; `compute` puts one of each together.
    The fewest slips are said, two at most.
    """
    given = _numbers(given)
    rtol = 1e-4 if given.dtype.itemsize < 8 else 1e-6
    choices = [choice for choice in itertools.product(*map(dict.items, tables)) if sum(bool(w) for w, _ in choice) <= 2]
    with np.errstate(all="ignore"):
        for choice in sorted(choices, key=lambda choice: sum(bool(words) for words, _ in choice)):
            with contextlib.suppress(ValueError, IndexError):  # not every slip fits every shape
                guess = np.asarray(compute(*(made for _, made in choice)), float)
                if guess.shape == given.shape and np.allclose(guess, given, rtol, rtol * np.abs(guess).max(initial=0)):
                    return " ".join(filter(None, (words for words, _ in choice)))
    return ""


# ------------------------------------------------------------------------------------------------ perceptron_step


def updates_always(w, b, x, y, eta):
    """It moves the weights although the neuron is right on this example. Right means y·z > 0, and then nothing changes."""
    return w + eta * y * x, b + eta * y


def updates_when_right(w, b, x, y, eta):
    """It leaves the weights although the neuron is wrong: y·z ≤ 0 here. Is the condition turned round?"""
    return updates_always(w, b, x, y, eta) if y * (w @ x + b) > 0 else (w, b)


def decides_afterwards(w, b, x, y, eta):
    """It leaves the weights where the step would put the neuron right. Whether it is wrong, the old w and b decide."""
    new_w, new_b = updates_always(w, b, x, y, eta)
    return (w, b) if y * (new_w @ x + new_b) > 0 else (new_w, new_b)


def repeats_the_step(w, b, x, y, eta):
    """It steps until the neuron is right. One call is one step: an `if`, not a `while`."""
    while y * (w @ x + b) <= 0:
        w, b = updates_always(w, b, x, y, eta)
    return w, b


def moves_away(w, b, x, y, eta):
    """It moves the wrong way: the rule adds η·y·x, so that y·z grows."""
    return (w - eta * y * x, b - eta * y) if y * (w @ x + b) <= 0 else (w, b)


def forgets_y(w, b, x, y, eta):
    """The step lacks the label: with y = -1 the weights have to move away from x. Add η·y·x, and η·y to the bias."""
    return (w + eta * x, b + eta) if y * (w @ x + b) <= 0 else (w, b)


def forgets_bias(w, b, x, y, eta):
    """The bias never changes. It is a weight too, on an input that is always 1: it moves by η·y."""
    return (w + eta * y * x, b) if y * (w @ x + b) <= 0 else (w, b)


def forgets_eta(w, b, x, y, eta):
    """The learning rate η is missing: the step is η·y·x, not y·x."""
    return (w + y * x, b + y) if y * (w @ x + b) <= 0 else (w, b)


def step_doubled(w, b, x, y, eta):
    """The step is twice too long. With labels -1 and +1, y - ŷ is ±2 on a mistake; the rule adds η·y·x."""
    return (w + 2 * eta * y * x, b + 2 * eta * y) if y * (w @ x + b) <= 0 else (w, b)


def steps_by_the_error(w, b, x, y, eta):
    """The step is η·(y - z)·x. That is the rule of least squares; here every step is η·y·x, however wrong the neuron is."""
    error = y - (w @ x + b)
    return w + eta * error * x, b + eta * error


def ignores_undecided(w, b, x, y, eta):
    """With z = 0 the neuron is undecided, a mistake for either label: y·z ≤ 0, not < 0. From zero weights it would never start."""
    return (w + eta * y * x, b + eta * y) if y * (w @ x + b) < 0 else (w, b)


def decides_without_bias(w, b, x, y, eta):
    """Whether the neuron is wrong depends on z = w·x + b; the bias is left out of the decision."""
    return (w + eta * y * x, b + eta * y) if y * (w @ x) <= 0 else (w, b)


def brackets_missing(w, b, x, y, eta):
    """The label multiplies w·x but not b in the decision: y·(w·x + b) needs its brackets."""
    return (w + eta * y * x, b + eta * y) if y * w @ x + b <= 0 else (w, b)


def wants_a_margin(w, b, x, y, eta):
    """It also moves when the neuron is right by less than 1. That is the rule of a support vector machine; here y·z > 0 suffices."""
    return (w + eta * y * x, b + eta * y) if y * (w @ x + b) < 1 else (w, b)


def answers_zero_or_one(w, b, x, y, eta):
    """With y = -1 it moves the weights although the neuron is right. Is an answer of 0, or z itself, compared with -1?"""
    return (w + eta * y * x, b + eta * y) if (w @ x + b > 0) != (y == 1) or y == -1 else (w, b)


def decides_by_z(w, b, x, y, eta):
    """With y = -1 it leaves the weights although the neuron is wrong. There z > 0 is the mistake: look at the sign of y·z."""
    return (w + eta * y * x, b + eta * y) if w @ x + b <= 0 else (w, b)


def bias_by_x(w, b, x, y, eta):
    """The bias has become an array: it moves by the number η·y; x belongs to the weights' step only."""
    return (w + eta * y * x, b + eta * y * x) if y * (w @ x + b) <= 0 else (w, b)


def _fault_in_the_step(new_w, w, x, step):
    """What the learner's step on w is, beside the right one."""
    if np.shape(new_w) != w.shape or not step:
        return "" if step else "Nothing changes here: return w and b as they were given."
    taken = (np.asarray(new_w, float) - w) @ x / (x @ x)
    if np.allclose(new_w, step * x):
        return "It returns the step alone: add it to w, and to b."
    if np.allclose(new_w, w):
        return "It leaves the weights although the neuron is wrong: y·z ≤ 0 here."
    if np.allclose(new_w, w + taken * x):
        return f"Yours adds {taken:.3g}·x to w. Here η·y is {step:.3g}."
    return "What yours adds to w is no multiple of x. The rule adds η·y, a number, times x."


@exercise(
    hints=[
        "The neuron is wrong or undecided exactly when y·z ≤ 0, with z = w·x + b. Try it on y = -1 and z = -1.5.",
        "Two cases, two returns: where y·z ≤ 0 return new values, else the ones you were given. `w @ x` is the dot product.",
        "On a mistake: return w + eta * y * x and b + eta * y. Write w + ..., not w += ..., which would change the caller's array.",
    ],
    mistakes=[
        updates_always,
        updates_when_right,
        decides_afterwards,
        repeats_the_step,
        moves_away,
        forgets_y,
        forgets_bias,
        forgets_eta,
        step_doubled,
        steps_by_the_error,
        ignores_undecided,
        decides_without_bias,
        brackets_missing,
        wants_a_margin,
        answers_zero_or_one,
        decides_by_z,
        bias_by_x,
    ],
)
def perceptron_step(learner, rng):
    x = rng.normal(size=5)
    x *= math.sqrt(2 / (x @ x))  # ‖x‖² = 2: a step raises y·z by 3η

    def weights(score):
        """Random weights with w·x = score."""
        w = rng.normal(size=5)
        return w + (score - w @ x) / 2 * x

    def demand(w, b, x, y, eta, moved, why):
        new_w, new_b = expect.parts(learner(w, b, x, y, eta), ("w", "b"), "the step returns the weights and the bias")
        step = moved * eta * y
        by_hand = [wi + step * xi for wi, xi in zip(w, x, strict=True)]
        swapped = "It returns (b, w); the order is (w, b)." if np.ndim(new_w) < np.ndim(new_b) else ""
        likely = swapped or _fault_in_the_step(new_w, w, x, step)
        expect.close(new_w, by_hand, why=f"{why}: w", source="the rule, entry by entry", likely=likely)
        likely = "The weights are right, the bias is not: it is the weight of an input that is always 1."
        if step and same(new_b, b):
            likely = "The weights move, the bias does not: is it decided a second time, with the new w?"
        expect.close(new_b, b + step, why=f"{why}: b", source="the rule", likely=likely)

    demand(weights(-2.7), 0.2, x, 1, 0.3, 1, "far on the wrong side, y = +1: one step towards x")  # three make it right
    demand(weights(-0.7), 0.2, x, 1, 0.4, 1, "wrong with y = +1: it moves towards x")  # one step makes it right
    demand(weights(0.6), 0.2, x, -1, 0.5, 1, "wrong with y = -1: it moves away from x")
    demand(weights(2), 0.5, x, 1, 0.3, 0, "right with y = +1: nothing changes")
    demand(weights(-2), 0.5, x, -1, 0.3, 0, "right with y = -1: nothing changes")
    demand(weights(0.3), 0.2, x, 1, 0.3, 0, "right, if only just: nothing changes")
    demand(weights(-1), 1.5, x, 1, 0.3, 0, "right because of the bias: nothing changes")
    demand(weights(-1), 1.5, x, -1, 0.3, 1, "wrong because of the bias: it moves")
    for y in (-1, 1):
        demand(np.zeros(5), 0.0, x, y, 0.7, 1, "undecided (z = 0) counts as wrong")
    demand(np.array([2.0, -1]), -0.5, np.array([1.0, 1]), -1, 0.1, 1, "the example above: wrong, so it moves")


# ------------------------------------------------------------------------------------------------ mistake_bound

_FRACTIONS = {
    "": lambda R, gamma: (R / gamma) ** 2,
    "It is cut to a whole number; the bound need not be one.": lambda R, gamma: (R / gamma) ** 2 // 1,
    "It is rounded to a whole number; the bound need not be one.": lambda R, gamma: np.round((R / gamma) ** 2),
    "R/γ is not squared yet.": lambda R, gamma: R / gamma,
    "Only R is squared: the bound is (R/γ)², so γ is squared too.": lambda R, gamma: R**2 / gamma,
    "Only γ is squared: the bound is (R/γ)², so R is squared too.": lambda R, gamma: R / gamma**2,
    "The fraction is upside down: no margin exceeds the length of its example, so R/γ is at least 1.": (
        lambda R, gamma: (gamma / R) ** 2
    ),
}


def _slips_in_the_bound(given, X, y, w):
    lengths, scores, norm = np.linalg.norm(X, axis=1), y * (X @ w), np.linalg.norm(w)
    radii = {
        "": lengths.max(),
        "R is taken over columns (axis=0). An example is a row.": np.linalg.norm(X, axis=0).max(),
        "R is the norm of the whole matrix; it should be the largest length of a row.": np.linalg.norm(X),
        "R is the length of the longest example, not of the shortest.": lengths.min(),
        "R is the length of the longest example, not the average: the promise is for all.": lengths.mean(),
        "R comes from a single example: is the loop left too early?": lengths[0],
        "R is the largest entry; it should be the largest length of a row.": X.max(),
        "R is the largest |entry|; it should be the largest length of a row.": np.abs(X).max(),
        "R lacks its square root: a length is the root of a sum of squares.": (lengths**2).max(),
        "R adds up entries without squaring them.": np.abs(X).sum(1).max(),
        "R counts the bias's constant 1 once more; X has it already.": math.hypot(1, lengths.max()),
        "R leaves the last column out; the bias's constant 1 counts.": np.linalg.norm(X[:, :-1], axis=1).max(),
    }
    gammas = {
        "": scores.min() / norm,
        "γ is a distance: divide y·(w·x) by ‖w‖. A longer w must not change the bound.": scores.min(),
        "γ divides by ‖w‖, not by ‖w‖².": scores.min() / norm**2,
        "‖w‖ adds up entries without squaring them.": scores.min() / np.abs(w).sum(),
        "‖w‖ leaves the last entry out; the bias is a part of w.": scores.min() / np.linalg.norm(w[:-1]),
        "γ is the margin of the worst example (min), not of the best one (max).": scores.max() / norm,
        "γ is the margin of the worst example (min), not the average.": scores.mean() / norm,
        "γ is the margin of the worst example (min); this adds them up.": scores.sum() / norm,
        "γ comes from a single example: is the loop left too early?": scores[0] / norm,
        "γ divides by the length of each example; only ‖w‖ belongs there.": (scores / lengths).min() / norm,
    }
    return _slips(given, lambda R, gamma, fraction: fraction(R, gamma), radii, gammas, _FRACTIONS)


@exercise(
    hints=[
        "R is the largest length among the rows of X, γ the smallest y·(w·x)/‖w‖. Redo the example by hand first.",
        "np.linalg.norm(X, axis=1) gives the length of each row; X @ w all dot products at once, shape (N,).",
        "gamma = (y * (X @ w)).min() / np.linalg.norm(w). Return (R / gamma) ** 2 if gamma > 0, else np.inf.",
    ],
)
def mistake_bound(learner, rng):
    def demand(X, y, w, R, gamma, why, source):
        given = learner(X, y, w)
        likely = ""
        if _numbers(given).size > 1:
            likely = "One number is wanted: the bound."
        elif same(given, np.inf):
            likely = (
                "This w separates the classes: every y·(w·x) is positive. Does each label meet the w·x of its own row?"
            )
        else:
            likely = _slips_in_the_bound(given, X, y, w)
            if not likely and _numbers(given).size and _numbers(given).item() > 0:
                root = math.sqrt(_numbers(given).item())
                likely = f"R is {R:.3f} and γ {gamma:.3f}: with this R your γ is {R / root:.3f}, or with this γ your R {root * gamma:.3f}."
        expect.close(given, R**2 / gamma**2, why=why, source=source, likely=likely)

    w = rng.normal(size=3) * 4
    y = np.array([1, -1, -1, 1, -1, 1, 1])
    X = rng.normal(size=(7, 3))
    X -= np.outer(X @ w - y * rng.uniform(1.5, 9, 7), w) / (w @ w)  # margins between 1.5 and 9, over ‖w‖
    middle = np.linalg.norm(X, axis=1).argsort()[3]
    X[[0, middle]], y[[0, middle]] = X[[middle, 0]], y[[middle, 0]]  # the first is neither longest nor shortest
    longest = max(math.sqrt(sum(entry * entry for entry in row)) for row in X)
    worst = min(label * math.fsum(row * w) for row, label in zip(X, y, strict=True)) / math.sqrt(math.fsum(w * w))
    demand(X, y, w, longest, worst, "(R/γ)² on 7 random examples", "computed example by example")
    demand(X, y, 3 * w, longest, worst, "a longer w, same direction: same bound", "γ divides by ‖w‖")
    demand(np.array([[3.0, 4], [-1, 0]]), np.array([1, -1]), np.array([2.0, 0]), 5, 1, "the example above", "by hand")

    y[2] *= -1
    given = learner(X, y, w)
    likely = "γ ≤ 0 means that w does not separate the classes: then there is no promise, and the bound is np.inf."
    if same(given, (longest / worst) ** 2):
        likely = "One label was turned round, and the bound stays. An example on the wrong side has a negative margin."
    expect.equal(given, np.inf, why="not separated: no promise", source="the theorem asks for γ > 0", likely=likely)
    given = learner(np.array([[1.0, 0], [0, 1]]), np.array([1, -1]), np.array([1.0, 0]))
    expect.equal(
        given, np.inf, why="γ = 0: no promise", source="the theorem asks for γ > 0", likely="γ ≤ 0, not γ < 0."
    )


# ------------------------------------------------------------------------------------------------ xor_network

_INPUTS = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
_XOR = (0, 1, 1, 0)
_TABLES = {
    (0, 0, 0, 0): "Your network always says 0.",
    (1, 1, 1, 1): "Your network always says 1. Should the output's bias be negative, so that it starts from 'no'?",
    (0, 1, 1, 1): "Your network computes OR: right but for (1, 1).",
    (0, 0, 0, 1): "Your network computes AND: it says 1 only where both inputs are on.",
    (1, 0, 0, 1): "Your network computes the opposite of XOR: turn the signs of the output layer, and mind its bias.",
    (1, 1, 1, 0): "Your network computes NAND: right but for (0, 0), where neither input is on.",
    (1, 0, 0, 0): "Your network computes NOR: right only at (1, 1).",
    (0, 0, 1, 1): "Your network repeats the first input: (0, 1) and (1, 1) come out wrong.",
    (0, 1, 0, 1): "Your network repeats the second input: (1, 0) and (1, 1) come out wrong.",
    (0, 0, 1, 0): "Your network says 'first and not second'; the other half, 'second and not first', is missing.",
    (0, 1, 0, 0): "Your network says 'second and not first'; the other half, 'first and not second', is missing.",
}
_ARRAYS = {
    "W1": ((2, 2), "One row for each hidden neuron, one column for each input: np.array([[…, …], […, …]])."),
    "b1": ((2,), "One number for each hidden neuron: np.array([…, …])."),
    "W2": ((1, 2), "One row for the one output neuron, one column for each hidden one: np.array([[…, …]])."),
    "b2": ((1,), "One number for the one output neuron, in an array all the same: np.array([…])."),
}


def _step(z):
    return (z > 0).astype(float)


def _run_network(W1, b1, W2, b2, X=_INPUTS, phi=_step):
    """The hidden answers (4, 2) and the output's z (4,) for the four inputs."""
    hidden = phi(np.einsum("hd,nd->nh", W1, X) + b1)
    return hidden, np.einsum("kh,nh->n", W2, hidden) + b2


def _misread(W1, b1, W2, b2):
    """What the weights would be right for, if not for this network; "" where none of these."""
    readings = {
        "It would be XOR with W1 transposed: each hidden neuron has a row of W1, not a column.": (
            _run_network(W1.T, b1, W2, b2)[1] > 0
        ),
        "It would be XOR if a neuron were 1 at z = 0 too. Here it is 1 only where z > 0: move the biases off the border.": (
            _run_network(W1, b1, W2, b2, phi=lambda z: z >= 0)[1] >= 0
        ),
        "It would be XOR with ReLU. Here a hidden neuron says 0 or 1, however large z is.": (
            _run_network(W1, b1, W2, b2, phi=lambda z: np.maximum(0, z))[1] > 0
        ),
        "It would be XOR for inputs -1 and +1. Here they are 0 and 1, which moves the biases.": (
            _run_network(W1, b1, W2, b2, X=2 * _INPUTS - 1)[1] > 0
        ),
        "It would be XOR if hidden neurons said -1 and +1. Here they say 0 and 1, which moves the output's bias.": (
            _run_network(W1, b1, W2, b2, phi=lambda z: 2 * _step(z) - 1)[1] > 0
        ),
    }
    return next((words for words, said in readings.items() if tuple(said.astype(int)) == _XOR), "")


def _fault_of_a_layer(hidden, said):
    """Which layer to look at: the hidden one where it gives two inputs of different XOR the same a, else the output."""
    by_answer = {}
    for x, a, target in zip(_INPUTS.astype(int).tolist(), hidden.astype(int).tolist(), _XOR, strict=True):
        other, other_target = by_answer.setdefault(tuple(a), (x, target))
        if other_target != target:
            told = f"Your hidden layer answers {tuple(a)} to {tuple(other)} and to {tuple(x)}"
            return f"{told}, which need different outputs: W1 and b1 must tell them apart."
    if len(by_answer) == 4:
        return "Your hidden neurons hand on the inputs, one each, and that is XOR again: let each look at both."
    what = _TABLES.get(tuple(said), "Two of the four come out wrong.")
    return f"{what} The hidden layer is good: other W2 and b2 make XOR of its answers."


@exercise(
    hints=[
        "XOR = (at least one input on) and not (both on). Each bracket is one line: x1 + x2 > something.",
        "First row of W1 and b1: z = x1 + x2 - 0.5 is positive from one input on. Second: which bias fires only for two?",
        "W1 is all ones with b1 = (-0.5, -1.5); the output wants a1 without a2: weights (1, -1). Its bias is yours to find.",
    ],
)
def xor_network(learner, rng):
    layers = expect.parts(learner(), tuple(_ARRAYS), "the network has four arrays")
    for given, (name, (_, words)) in zip(layers, _ARRAYS.items(), strict=True):
        expect.kind(given, np.ndarray, f"{name} is a NumPy array", likely=words)
    swapped = sorted(given.shape for given in layers) == sorted(shape for shape, _ in _ARRAYS.values())
    for given, (name, (shape, words)) in zip(layers, _ARRAYS.items(), strict=True):
        likely = words if not swapped else f"All four are there, in another order than {', '.join(_ARRAYS)}."
        expect.shape(given, shape, f"{name} has shape {shape}", likely=likely)
        expect.finite(given, f"{name} is finite")
    layers = [array(given).astype(float) for given in layers]
    hidden, z = _run_network(*layers)
    said = _step(z).astype(int)
    rows = [
        f"x = ({x[0]:.0f}, {x[1]:.0f})   hidden a = ({a[0]:.0f}, {a[1]:.0f})   z = {v:+.2f}   says {s}, XOR is {t}"
        for x, a, v, s, t in zip(_INPUTS, hidden, z, said, _XOR, strict=True)
    ]
    likely = _misread(*layers) or _fault_of_a_layer(hidden, said)
    expect.true(tuple(said) == _XOR, "the network says 1 exactly where one input is on", *rows, likely=likely)


# ------------------------------------------------------------------------------------------------ mlp_forward


def _relu(z):
    return np.maximum(0, z)


def _softmax(Z, axis=1, shift=None):
    shift = Z.max(axis=axis, keepdims=True) if shift is None else shift
    E = np.exp(Z - shift)
    return E / E.sum(axis=axis, keepdims=True)


def _forward(X, layers, phi=_relu, end=lambda z: z, layer=lambda A, W, b: A @ W.T + b):
    A = X
    for W, b in layers[:-1]:
        A = phi(layer(A, W, b))
    return end(layer(A, *layers[-1]))


def _relu_once(X, layers):
    (W, b), *others = layers
    return _forward(_relu(X @ W.T + b), others, phi=lambda z: z)


def _bias_after_relu(X, layers):
    A = X
    for W, b in layers[:-1]:
        A = _relu(A @ W.T) + b
    return _forward(A, layers[-1:])


_NETWORKS = {
    "The last layer has no ReLU: logits may be negative. Yours are cut off at 0.": partial(_forward, end=_relu),
    "There is no ReLU between the layers. Without it, all layers together are one.": partial(_forward, phi=lambda z: z),
    "It returns probabilities. Logits are wanted: no softmax here.": partial(_forward, end=_softmax),
    "It returns log-probabilities. Logits are wanted: the loss takes care of the softmax.": (
        partial(_forward, end=lambda z: np.log(_softmax(z)))
    ),
    "It returns the index of the largest logit. All logits are wanted.": partial(_forward, end=lambda z: z.argmax(1)),
    "ReLU is applied to the inputs of a layer, the data included. It belongs behind each layer but the last.": (
        lambda X, layers: _forward(_relu(X), layers)
    ),
    "ReLU comes after the first layer only. It belongs behind each layer but the last.": _relu_once,
    "The layer before the last has no ReLU. It belongs behind each layer but the last.": (
        lambda X, layers: _forward(_forward(X, layers[:-1]), layers[-1:])
    ),
    "The bias is added after ReLU. First z = Wx + b, then ReLU of z.": _bias_after_relu,
    "This is a sigmoid network; here φ is ReLU, max(0, z).": partial(_forward, phi=lambda z: 1 / (1 + np.exp(-z))),
    "This is a tanh network; here φ is ReLU, max(0, z).": partial(_forward, phi=np.tanh),
    "This is the step function of section 4; ReLU, max(0, z), keeps positive values as they are.": (
        partial(_forward, phi=_step)
    ),
    "This takes |z|; ReLU turns negative values into 0.": partial(_forward, phi=np.abs),
    "This keeps the negative values, min(0, z); ReLU keeps the positive ones.": (
        partial(_forward, phi=lambda z: np.minimum(0, z))
    ),
    "Negative values are made smaller (leaky ReLU); ReLU turns them into 0.": (
        partial(_forward, phi=lambda z: np.where(z > 0, z, 0.01 * z))
    ),
    "The biases are left out: z = Wx + b.": partial(_forward, layer=lambda A, W, b: A @ W.T),
    "The last layer's bias is missing.": lambda X, layers: _forward(X, layers) - layers[-1][1],
    "Only the last layer's bias is used; each layer has one.": (
        lambda X, layers: _forward(X, [(W, 0 * b) for W, b in layers]) + layers[-1][1]
    ),
    "The biases are subtracted: z = Wx + b.": partial(_forward, layer=lambda A, W, b: A @ W.T - b),
    "The weights are not transposed. W is (out, in) and examples are rows: A @ W.T.": (
        partial(_forward, layer=lambda A, W, b: A @ W + b)
    ),
    "W @ A takes columns for examples. Here examples are rows: A @ W.T.": (
        partial(_forward, layer=lambda A, W, b: W @ A + b)
    ),
    "W @ A takes columns for examples. Here examples are rows, in X and in the result.": (
        partial(_forward, layer=lambda A, W, b: W @ A + b[:, None])
    ),
    "b has one entry for each output, a column. As b[:, None] it is added along the examples.": (
        partial(_forward, layer=lambda A, W, b: A @ W.T + b[:, None])
    ),
    "Each layer begins with X again: it takes what the layer before it returned.": (
        lambda X, layers: _forward(X, layers[-2:])
    ),
    "It stops before the last layer.": lambda X, layers: _relu(_forward(X, layers[:-1])),
    "It stops after the first layer: is the return inside the loop?": lambda X, layers: _relu(_forward(X, layers[:1])),
    "It stops after two layers. There may be any number.": lambda X, layers: _forward(X, layers[:2]),
    "It is the transpose of the right result: examples are rows.": lambda X, layers: _forward(X, layers).T,
    "The last layer is computed with the weights of the one before.": lambda X, layers: _forward(
        X, [*layers[:-1], *layers[-2:-1]]
    ),
    "The last layer is computed twice.": lambda X, layers: _forward(X, [*layers, layers[-1]]),
    "It returns X as it was given.": lambda X, layers: X,
}


def _slips_in_the_network(given, X, layers):
    likely = _slips(given, lambda network: network(X, layers), _NETWORKS)
    hidden = [len(b) for _, b in layers[:-1]]
    if np.shape(given) == (1, len(layers[-1][1])) and len(X) > 1:
        return "There is a single row: is the return inside the loop over the examples, or each row overwritten?"
    if not likely and np.ndim(given) == 2 and given.shape[1] != len(layers[-1][1]) and given.shape[1] in hidden:
        return f"It has the width of hidden layer {hidden.index(given.shape[1]) + 1} of {len(hidden)}. Which layer comes last?"
    return likely


@exercise(
    hints=[
        "Keep one variable A, at first X. Each layer replaces it. Which layer is treated differently?",
        "With rows as examples a layer is A @ W.T + b, shape (B, out). ReLU is np.maximum(0, ...), with two arguments.",
        "for W, b in layers[:-1]: A = np.maximum(0, A @ W.T + b). Then the last pair, layers[-1], without ReLU.",
    ],
)
def mlp_forward(learner, rng):
    def neuron_by_neuron(X, layers):
        rows = []
        for a in X.tolist():
            for number, (W, b) in enumerate(layers, 1):
                z = [math.fsum(w * v for w, v in zip(row, a, strict=True)) + c for row, c in zip(W, b, strict=True)]
                a = z if number == len(layers) else [max(0.0, v) for v in z]
            rows.append(a)
        return np.array(rows)

    def where_it_begins(X, layers):
        fewer = [(learner(X, layers[:n]), neuron_by_neuron(X, layers[:n])) for n in (1, 2)]
        one, two = (np.allclose(_numbers(given), expected, 1e-4, 1e-6) for given, expected in fewer)
        if not one:
            return "A network of one layer is wrong already: z = Wx + b, and nothing else."
        if not two:
            return "One layer alone is right, two are not: what comes between them, and what does the second one get?"
        return (
            "Two layers are right, three are not: is every hidden layer treated alike, and given what came before it?"
        )

    def network(*widths):
        return [(rng.normal(size=(n_out, n_in)), rng.normal(size=n_out)) for n_in, n_out in zip(widths, widths[1:])]  # noqa: B905

    def demand(X, layers, why):
        given, expected = learner(X, layers), neuron_by_neuron(X, layers)
        likely = _slips_in_the_network(given, X, layers)
        if not likely and np.shape(given) == expected.shape and not np.allclose(_numbers(given), expected, 1e-4, 1e-6):
            with contextlib.suppress(Exception):  # fewer layers may be another mistake, told further down
                likely = where_it_begins(X, layers)
        expect.close(given, expected, why=why, source="neuron by neuron", rtol=1e-4, likely=likely)

    demand(rng.normal(size=(5, 5)), network(5, 5, 5, 5), "5 examples, three layers of 5")  # no slip in a shape raises
    demand(rng.normal(size=(5, 3)), network(3, 6, 2), "5 examples, one hidden layer of 6")
    demand(rng.normal(size=(4, 3)), network(3, 7, 5, 2), "4 examples, two hidden layers")
    demand(rng.normal(size=(4, 3)), network(3, 2), "no hidden layer at all: one linear layer")
    example = [(np.array([[1.0, 0], [1, 1], [0, -1]]), np.array([0.0, 0, 1])), (np.array([[2.0, 5, -1]]), np.zeros(1))]
    demand(np.array([[1.0, -2]]), example, "the example above")


# ------------------------------------------------------------------------------------------------ softmax


def over_columns(Z):
    """It adds up over the examples (axis 0). Each row is one example, and its entries must add up to 1: axis=1."""
    return _softmax(Z, axis=0)


def over_everything(Z):
    """It divides by the sum over the whole batch. Each row has a sum of its own: axis=1, keepdims=True."""
    E = np.exp(Z - Z.max())
    return E / E.sum()


def no_shift(Z):
    """exp overflows: e^1000 is too large for a float, and ∞/∞ is NaN. Subtract each row's largest logit first."""
    return _softmax(Z, shift=0)


def shift_by_the_batch(Z):
    """It subtracts the largest logit of the whole batch: a row far below it underflows to 0/0. Subtract each row's own maximum."""
    return _softmax(Z, shift=Z.max())


def shift_by_the_mean(Z):
    """It subtracts the mean. A row with one very large logit still overflows: subtract the maximum."""
    return _softmax(Z, shift=Z.mean(axis=1, keepdims=True))


def shift_by_the_minimum(Z):
    """It subtracts the minimum, so exponents are positive and overflow. Subtract the maximum: then all are at most 0."""
    return _softmax(Z, shift=Z.min(axis=1, keepdims=True))


def divides_the_logits(Z):
    """It divides the logits by their maximum, which changes the probabilities. Only *subtracting* a number leaves them as they are."""
    return _softmax(Z / Z.max(axis=1, keepdims=True))


def clips(Z):
    """It clips the logits: (1002, 1001, 1000) all become the same. Subtracting each row's maximum loses nothing."""
    return _softmax(np.clip(Z, -500, 500))


def maximum_as_a_row(Z):
    """Z.max(1) has shape (B,) and meets the columns of Z: row 2's maximum goes to column 2. keepdims=True keeps it (B, 1)."""
    return _softmax(Z, shift=Z.max(1))


def sum_as_a_row(Z):
    """The sums, of shape (B,), meet the columns: row 2's sum divides column 2. keepdims=True keeps them (B, 1)."""
    E = np.exp(Z - Z.max(1, keepdims=True))
    return E / E.sum(1)


def both_as_rows(Z):
    """Maximum and sum, of shape (B,), meet the columns of Z, not its rows. keepdims=True keeps them (B, 1)."""
    E = np.exp(Z - Z.max(1))
    return E / E.sum(1)


def shift_by_columns(Z):
    """It subtracts each column's maximum, which changes the probabilities. A row may be shifted, by one number: axis=1."""
    return _softmax(Z, shift=Z.max(0))


def shift_above_only(Z):
    """It shifts the numerator but not the sum below it. The shift cancels only if both have it."""
    return np.exp(Z - Z.max(1, keepdims=True)) / np.exp(Z).sum(1, keepdims=True)


def shift_below_only(Z):
    """It shifts the sum but not the numerator above it. The shift cancels only if both have it."""
    return np.exp(Z) / np.exp(Z - Z.max(1, keepdims=True)).sum(1, keepdims=True)


def shift_after_exp(Z):
    """It subtracts the maximum after exp. Subtract it from the logits."""
    E = np.exp(Z)
    E = E - E.max(1, keepdims=True)
    return E / E.sum(1, keepdims=True)


def negative_exponents(Z):
    """It takes exp of -z: the largest logit gets the smallest probability."""
    return _softmax(-Z)


def sigmoid_of_each(Z):
    """This is the sigmoid of each logit by itself. Softmax compares it with the others of its row."""
    return 1 / (1 + np.exp(-Z))


def all_to_the_largest(Z):
    """The largest logit gets everything. Softmax gives every class a share."""
    return (Z.max(1, keepdims=True) == Z).astype(float)


def logarithm(Z):
    """These are the logarithms of the probabilities."""
    return Z - Z.max(1, keepdims=True) - np.log(np.exp(Z - Z.max(1, keepdims=True)).sum(1, keepdims=True))


def not_divided(Z):
    """The rows do not add up to 1: the division by the sum is missing."""
    return np.exp(Z - Z.max(1, keepdims=True))


def divides_without_exp(Z):
    """It divides the logits themselves by their sum. Exponentiate first: probabilities are positive."""
    return Z / Z.sum(1, keepdims=True)


@exercise(
    hints=[
        "Adding the same number to all logits of a row changes nothing. Which number makes the largest exponent 0?",
        "Z.max(axis=1, keepdims=True) has shape (B, 1), and Z minus it works row by row. Without keepdims it would be (B,).",
        "E = np.exp(Z - Z.max(axis=1, keepdims=True)), then E divided by E.sum(axis=1, keepdims=True).",
    ],
    mistakes=[
        over_columns,
        over_everything,
        no_shift,
        shift_by_the_batch,
        shift_by_the_mean,
        shift_by_the_minimum,
        divides_the_logits,
        clips,
        maximum_as_a_row,
        sum_as_a_row,
        both_as_rows,
        shift_by_columns,
        shift_above_only,
        shift_below_only,
        shift_after_exp,
        negative_exponents,
        sigmoid_of_each,
        all_to_the_largest,
        logarithm,
        not_divided,
        divides_without_exp,
    ],
)
def softmax(learner, rng):
    from scipy.special import softmax as reference

    def demand(Z, why):
        given = learner(Z)
        likely, numbers = "", _numbers(given)
        if np.isnan(numbers).any():
            likely = (
                "∞/∞, or 0/0 where every e^z of a row is rounded to 0. Shift a row so that its largest exponent is 0."
            )
        elif Z.max() > 100 and numbers.shape == Z.shape and not numbers.any(axis=1).all():
            likely = "A row of zeros is what an overflow leaves: e^1000 is ∞, and 1/∞ is 0. Shift the row before exp."
        expected = reference(Z, axis=1)
        expect.close(given, expected, why=why, source="scipy.special.softmax", rtol=1e-4, likely=likely)

    demand(rng.normal(size=(4, 4)) * 2, "4 rows of 4 logits, each row by itself")
    demand(rng.normal(size=(5, 3)) * 2, "5 rows of 3 logits, each row by itself")
    demand(np.array([[2.0, 1, 0]]), "the example above")
    demand(np.array([[1002.0, 1001, 1000], [0.5, 0.1, 0.2]]), "logits near 1000: only differences count")
    demand(np.array([[1000.0, -1000, 0], [-1002, -1001, -1000]]), "logits of ±1000, one row far above the other")


# ------------------------------------------------------------------------------------------------ cross_entropy


def log_of_softmax(Z, y):
    """It takes the logarithm of a probability that has been rounded to 0. Use log-sum-exp minus the right logit instead."""
    return -np.log(_softmax(Z)[np.arange(len(y)), y]).mean()


def log_of_overflowing_softmax(Z, y):
    """e^1000 overflows, and ∞/∞ is NaN. No softmax here: log-sum-exp, with each row's largest logit taken out."""
    return -np.log(_softmax(Z, shift=0)[np.arange(len(y)), y]).mean()


def no_max_in_log_sum_exp(Z, y):
    """exp overflows in the log-sum-exp: subtract m, each row's largest logit, inside, and add it back outside."""
    return (np.log(np.exp(Z).sum(1)) - Z[np.arange(len(y)), y]).mean()


def batch_maximum(Z, y):
    """It subtracts the largest logit of the whole batch: a row far below it gives log 0. Each row has its own m."""
    return (Z.max() + np.log(np.exp(Z - Z.max()).sum(1)) - Z[np.arange(len(y)), y]).mean()


_MEANS = {
    "": np.mean,
    "It adds up the losses of the batch; the mean is wanted.": np.sum,
    "It returns one loss for each example; average them.": lambda losses: losses,
    "The minus is missing: a logarithm of a probability is negative, a loss is not.": lambda losses: -losses.mean(),
    "It adds up the logarithms, without the minus; the mean of -log p is wanted.": lambda losses: -losses.sum(),
    "It is the loss of the first example alone: is the return inside the loop?": lambda losses: losses[0],
    "It is the loss of the last example alone: is each one added up?": lambda losses: losses[-1],
    "It is the loss of the last example alone, divided by B: is each one added up?": lambda losses: (
        losses[-1] / len(losses)
    ),
    "These are bits (logarithm to base 2); the natural logarithm is wanted.": lambda losses: losses.mean() / np.log(2),
    "This is the logarithm to base 10; the natural one is wanted.": lambda losses: losses.mean() / np.log(10),
}


def _slips_in_the_loss(given, Z, y):
    (B, K), rows, m = Z.shape, np.arange(len(y)), Z.max(1)
    E, p = np.exp(Z - m[:, None]), _softmax(Z)
    right = m + np.log(E.sum(1))
    over_columns, over_all = np.log(np.exp(Z).sum(0)), np.log(np.exp(Z).sum())
    log_sum_exp = {
        "": right,
        "m is subtracted inside the log-sum-exp but not added back outside.": right - m,
        "m is added outside but not subtracted inside.": right + m,
        "m is subtracted outside as well; there it is added back.": right - 2 * m,
        "The logarithm of the sum of exponentials is missing.": m + E.sum(1),
        "The sum of exponentials lacks its logarithm.": np.exp(Z).sum(1),
        "It takes the largest logit where log-sum-exp belongs.": m,
        "The log-sum-exp of the row is missing; this is minus the right logit.": np.zeros(B),
        "It sums exp over the whole batch. Each row has a log-sum-exp of its own: axis=1.": np.full(B, over_all),
        "It sums exp over the examples (axis=0). Each row has a log-sum-exp of its own: axis=1.": (
            np.full(B, over_columns.mean())
        ),
        "The softmax runs over the examples (axis=0). Each row is one example: axis=1.": over_columns[y],
        "m, of shape (B,), meets the columns of Z. Write m[:, None] inside, which is (B, 1).": (
            m + np.log(np.exp(Z - m).sum(1)) if B == K else right
        ),
        "Inside is the logarithm to base 2; the natural one is wanted.": m + np.log2(E.sum(1)),
        "log1p adds a 1 to the sum; it is log here.": m + np.log1p(E.sum(1)),
    }
    logit = {
        "": Z[rows, y],
        "It uses the largest logit as if it were the right one; y says which class is right.": m,
        "Z[:, y] takes, for every row, the columns of all labels: (B, B). One entry for each row is Z[np.arange(B), y].": (
            np.full(B, Z[:, y].mean())
        ),
        "Z[y] takes the rows with the numbers in y. From each row one entry is wanted: Z[np.arange(B), y].": (
            np.full(B, Z[y % B].mean())
        ),
        "All classes count in this mean; only the right one should.": Z.mean(1),
        "Labels count from 0: class y is column y.": Z[rows, y - 1],
        "Row and column are swapped: Z[np.arange(B), y].": Z[y % B, rows % K],
        "The logit of the right class is not subtracted.": np.zeros(B),
        "It is added where it should be subtracted: log-sum-exp minus the right logit.": -Z[rows, y],
    }
    right_p, target = p[rows, y], np.eye(K)[y]
    others = {
        "It divides by B·K. Each example has one loss: divide by B.": (right - Z[rows, y]).sum() / (B * K),
        "It divides by K, the number of classes. There are B losses: divide by B.": (right - Z[rows, y]).sum() / K,
        "This averages -p. Cross-entropy takes -log p.": -right_p.mean(),
        "This averages 1 - p. Cross-entropy takes -log p.": 1 - right_p.mean(),
        "It takes the logarithm of the mean. First the loss of each example, then the mean.": -np.log(right_p.mean()),
        "This is a mean squared error of the probabilities. Cross-entropy takes -log p of the right class.": (
            ((p - target) ** 2).mean()
        ),
        "This is the entropy of the probabilities: y is not used.": -(p * np.log(p)).sum(1).mean(),
        "Softmax is applied twice: log-sum-exp takes the logits as they are.": (
            (np.log(np.exp(p).sum(1)) - right_p).mean()
        ),
        "It multiplies by the label. y is a position, not a factor: Z[np.arange(B), y].": (
            -(y[:, None] * np.log(p)).sum(1).mean()
        ),
        "It adds the logarithms for all classes. Only the right class counts.": -np.log(p).sum(1).mean(),
        "The wrong classes count too, as in a yes-no loss for each class. Only the right class counts.": (
            -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(1).mean()
        ),
        "It is cut off to a whole number: / divides, // cuts.": (right - Z[rows, y]).mean() // 1,
    }
    return _slips(given, lambda lse, z, mean: mean(lse - z), log_sum_exp, logit, _MEANS) or _slips(
        given, lambda value: value, others
    )


@exercise(
    hints=[
        "The loss of one row is log-sum-exp of its logits minus the logit of its right class. No softmax is needed.",
        "m = Z.max(axis=1) is (B,). m + np.log(np.exp(Z - m[:, None]).sum(axis=1)) is log-sum-exp of each row, also (B,).",
        "Z[np.arange(len(y)), y] picks from row i the entry y[i], (B,). Subtract it from log-sum-exp and take .mean().",
    ],
    mistakes=[log_of_overflowing_softmax, no_max_in_log_sum_exp, log_of_softmax, batch_maximum],
)
def cross_entropy(learner, rng):
    from scipy.special import log_softmax

    def demand(Z, y, why):
        y = np.array(y)
        expected = -sum(log_softmax(row)[label] for row, label in zip(Z, y, strict=True)) / len(y)
        given = learner(Z, y)
        likely = ""
        if np.abs(Z).max() < 100:
            likely = _slips_in_the_loss(given, Z, y)
            if not likely and len(y) > 1 and np.shape(_numbers(given)) == () and not same(given, expected):
                likely = "It is wrong for a single row already: compare its parts with the example above."
                if same(learner(Z[:1], y[:1]), -log_softmax(Z[0])[y[0]]):
                    likely = "For a single row it is right: look at the axes, and at how several losses become one."
        elif _numbers(given).size == 1 and 0 < _numbers(given) < expected:
            floor = math.exp(-_numbers(given).item() * len(y))
            if floor > 1e-50:
                likely = f"It is -log of {floor:.0e}: a small number in the logarithm, or a clip, hides the true loss."
        expect.close(given, expected, why=why, source="scipy.special.log_softmax", likely=likely)

    for y, K in ([1, 5, 0, 2, 2, 4], 6), ([2, 0, 1, 0, 2], 3):
        Z, rows = rng.normal(size=(len(y), K)) * 2, np.arange(len(y))
        middle = Z.argsort(axis=1)[:, K // 2]
        Z[rows, y], Z[rows, middle] = Z[rows, middle], Z[rows, y]  # the right logit is neither largest nor smallest
        demand(Z, y, f"{len(y)} rows of {K} logits")
    demand(np.array([[2.0, 1, 0]]), [1], "the example above")
    demand(np.array([[1000.0, 0]]), [0], "logits (1000, 0), class 0 right: the loss is 0")
    demand(np.array([[1000.0, 0]]), [1], "logits (1000, 0), class 1 right: the loss is 1000")
    demand(
        np.array([[1000.0, -1000, 0], [-1000, -1001, -1002]]), [2, 1], "logits of ±1000, one row far above the other"
    )


# ------------------------------------------------------------------------------------------------ MLP


def _fault_in_parameters(shapes, widths, wanted):
    sizes = {n for shape in shapes for n in shape} - {*widths}
    if not shapes:
        return "There are none. Layers in a plain list, or made in forward, are not registered: nn.ModuleList, nn.Sequential."
    if shapes == [shape for shape in wanted if len(shape) == 2]:
        return "The biases are missing."
    if sizes:
        return (
            f"{', '.join(map(str, sorted(sizes)))}: not in widths. Are sizes written as numbers, not taken from widths?"
        )
    if len(shapes) < len(wanted) and shapes == wanted[-2:]:
        return "Only the last layer is registered. Are the others in a plain list, or overwritten in the loop?"
    if len(shapes) < len(wanted):
        return "Too few layers: one for each pair of neighbours in widths, the last included, and each an object of its own."
    if len(shapes) > len(wanted):
        return "Too many layers: one for each pair of neighbours in widths."
    if sorted(shapes) == sorted(wanted):
        return "All are there, in another order. Create the layers in the order in which forward uses them."
    return "nn.Linear takes (n_in, n_out) in this order, and keeps a weight of shape (n_out, n_in)."


@exercise(
    hints=[
        "[784, 256, 10] has two neighbouring pairs: (784, 256) and (256, 10). zip(widths[:-1], widths[1:]) gives them.",
        "self.layers = nn.ModuleList(...) with one nn.Linear(n_in, n_out) for each pair. A plain list would hide the weights.",
        "forward: a = x.flatten(1); for layer in self.layers[:-1]: a = torch.relu(layer(a)); return self.layers[-1](a).",
    ],
)
def MLP(learner, rng):
    import torch
    from torch import nn

    def build(widths):
        model = learner(widths)
        expect.kind(model, nn.Module, "MLP is an nn.Module", likely="Its first line: class MLP(nn.Module).")
        shapes = [tuple(p.shape) for p in model.parameters()]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        wanted = [shape for n_in, n_out in pairs for shape in ((n_out, n_in), (n_out,))]
        likely = _fault_in_parameters(shapes, widths, wanted)
        shown = f"yours    {shapes}", f"expected {wanted}"
        expect.true(shapes == wanted, f"MLP({widths}) has these parameters, in order", *shown, likely=likely)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.tensor(rng.normal(size=tuple(p.shape))))
        return model

    def demand(widths, x, why):
        model = build(widths)
        parameters = [p.detach().numpy().astype(float) for p in model.parameters()]
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        rows = x.reshape(len(x), -1).astype(float)
        given, again = (model(torch.tensor(x, dtype=torch.float32)) for _ in range(2))
        expect.kind(given, torch.Tensor, why, likely="Return the tensor itself: the loss needs its gradients.")
        likely = _slips_in_the_network(given, rows, layers)
        if given.ndim == 1 and len(given) == widths[-1]:
            likely = (
                "The axis of the batch is gone: flatten(), squeeze() and means take it too. flatten(1) keeps axis 0."
            )
        elif given.ndim == 3:
            likely = "The images keep their rows and columns: nn.Linear works on the last axis alone. Flatten each example first."
        elif not same(given, again):
            likely = "Twice the same input gives different logits. Is there dropout, or a random number, in forward?"
        expect.close(
            given, _forward(rows, layers), why=why, source="z = Wx + b in NumPy", rtol=1e-3, atol=1e-4, likely=likely
        )
        likely = "Is there a detach(), a no_grad(), or a detour by NumPy in forward?"
        expect.true(given.requires_grad, "gradients reach the weights", likely=likely)
        given.square().sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        expect.true(not without, "gradients reach all weights", f"none reach {', '.join(without)}", likely=likely)

    x = rng.normal(size=(5, 4))
    demand([4, 6, 3], x[:1], "a batch of one row of 4 numbers")
    demand([4, 6, 3], x, "rows of 4 numbers, one hidden layer")
    demand([5, 5, 5, 5, 3], rng.normal(size=(4, 5)), "rows of 5 numbers, three hidden layers of 5")
    demand([4, 6, 5, 3], x, "rows of 4 numbers, two hidden layers")
    demand([4, 3], x, "no hidden layer: MLP([4, 3]) is one linear layer")
    demand([4, 5, 2], rng.normal(size=(3, 1, 4)), "images of 1 × 4 pixels are flattened, example by example")
    demand([6, 5, 2], rng.normal(size=(4, 2, 3)), "images of 2 × 3 pixels are flattened, example by example")


# ------------------------------------------------------------------------------------------------ train_epoch


def _fault_in_batches(batches, N, B):
    """Why the batches are not N examples, each once, B at a time."""
    order, sizes = [i for batch in batches for i in batch], [len(batch) for batch in batches]
    if sizes == [N]:
        return "All examples went through in one batch: split the order into pieces of batch_size."
    if sizes == [B]:
        return "Only the first batch was used: is the return inside the loop?"
    if sizes == [B] * (N // B):
        return f"{N} is no multiple of {B}: the last, smaller batch is left out."
    if sizes == [1] * N:
        return "The loop goes example by example: take batch_size of them at a time."
    if sorted(order) == sorted([*range(N)] * 2):
        return "Every example twice: one call is one epoch, with one pass over the examples."
    if sorted(order) == list(range(N)) and len(sizes) == B:
        return "These are batch_size batches; wanted are batches of batch_size examples (split, not chunk)."
    if len({*order}) == len(order) < N:
        return f"Left out: {sorted({*range(N)} - {*order})}. Does the loop reach the end of the order?"
    if max(sizes) <= B and len(sizes) == -(-N // B):
        return "Shuffle once for each epoch, before the loop; each batch takes the next piece of that order."
    return "Each batch takes the next piece of the shuffled order: no example twice, none left out."


@exercise(
    hints=[
        "order = torch.randperm(len(x)) is the shuffled list of examples, order.split(batch_size) its batches. Index x and y alike.",
        "In each batch, in this order: loss, optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step() if there is one.",
        "nn.functional.cross_entropy(model(x[batch]), y[batch]) is a mean over the batch: add loss.item() * len(batch) to total.",
    ],
    changes=("weights", "gradients", "mode", "optimizer"),
)
def train_epoch(learner, rng):
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Watched(nn.Module):
        """A linear model that remembers what it was shown, in which mode, and after how many steps."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.seen, self.training_modes = [], set()

        def forward(self, x):
            shown = (len(optimizer.record), x[:, 0].round().long().tolist())
            if shown not in self.seen:  # a second look at the same batch, for its accuracy say, is nobody's business
                self.seen.append(shown)
            self.training_modes.add(self.training)
            return self.linear(x)

    class Recorder(torch.optim.SGD):
        """SGD that remembers weights and gradients before each step."""

        def __init__(self, model):
            super().__init__(model.parameters(), lr=0.5)
            self.model, self.record = model, []

        def step(self, closure=None):
            weights = [p.detach().clone() for p in self.model.parameters()]
            gradients = [None if p.grad is None else p.grad.detach().clone() for p in self.model.parameters()]
            self.record.append((weights, gradients))
            super().step()

    class Counter:
        def __init__(self, optimizer):
            self.optimizer, self.steps, self.early = optimizer, 0, False

        def step(self):
            self.steps += 1
            self.early = self.early or self.steps > len(self.optimizer.record)

    N, B = 10, 4
    x = torch.tensor(rng.normal(size=(N, 3)), dtype=torch.float32)
    x[:, 0] = torch.arange(N)  # tells which example it is
    y = torch.tensor(rng.permutation(np.arange(N) % 4))
    model = Watched()
    optimizer = Recorder(model)
    schedule = Counter(optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    model.eval()  # as evaluate() leaves it

    result = learner(model, x, y, optimizer, B, schedule)
    steps = len(optimizer.record)
    batches = [batch for _, batch in model.seen]
    order, sizes = [i for batch in batches for i in batch], [len(batch) for batch in batches]
    shown = f"your batches, by the numbers of the examples: {batches}"

    likely = "model(...) is never called: is the loop over the batches missing?"
    expect.true(batches, "the model sees the examples", likely=likely)
    likely = _fault_in_batches(batches, N, B)
    if model.seen[-1][0] == steps > 0 and len(batches) > 1:
        likely = "After the last step the model runs again. total adds up the losses that the steps used; nothing else is due."
    expect.true(sorted(order) == list(range(N)), "each of 10 examples is used exactly once", shown, likely=likely)
    stored = max(sizes) > 1 and all(batch == list(range(batch[0], batch[0] + len(batch))) for batch in batches)
    likely = "They came in the order in which they are stored: shuffle with torch.randperm."
    if order != sorted(order):
        likely = "The batches are shuffled, the examples are not: each batch holds neighbours. Shuffle the examples."
    expect.true(not stored or len(batches) == 1, "the order is random", shown, likely=likely)
    likely = _fault_in_batches(batches, N, B)
    expect.true(sizes == [4, 4, 2], "batches of 4, 4 and 2 for 10 examples", shown, likely=likely)
    likely = (
        "Something switches it to evaluation, or model.train() is gone. Dropout, among others, would then do nothing."
    )
    expect.true(model.training_modes == {True}, "the model is in training mode", likely=likely)

    likely = "One optimizer.step() for each batch, inside the loop."
    if not steps:
        moved = any(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
        likely = "optimizer.step() is never called: the weights stay as they are."
        likely = "The weights change, but not by the optimizer that was passed in: use that one." if moved else likely
    expect.true(steps == 3, "one step for each of the three batches", f"your steps: {steps}", likely=likely)

    losses, gradient_sum, begin = [], None, 0
    for batch, (weights, gradients) in zip(batches, optimizer.record, strict=True):
        here = [w.clone().requires_grad_() for w in weights]
        logits = x[batch] @ here[0].T + here[1]
        loss = F.cross_entropy(logits, y[batch])

        def gradient(loss, here=here):
            return torch.autograd.grad(loss, here, retain_graph=True)[0]

        expected = gradient(loss)
        likely = (
            "There were none at the first step: loss.backward() comes before optimizer.step(), zero_grad() before both."
        )
        expect.true(gradients[0] is not None, "each step has gradients to work with", likely=likely)
        gradient_sum = expected if gradient_sum is None else gradient_sum + expected
        one_hot = F.one_hot(y[batch], 4).float()
        slips = {
            "": expected,
            "Gradients add up from batch to batch: optimizer.zero_grad() is missing in the loop.": gradient_sum,
            "The loss is a sum over the batch; take the mean, as cross_entropy does.": len(batch) * expected,
            "It is twice the gradient: is backward() called twice?": 2 * expected,
            "The loss grows by these steps: is there a minus before it?": -expected,
            "It is divided by the number of all examples; the loss to follow is the mean over the batch.": (
                len(batch) / N * expected
            ),
            "It is divided by the size of the batch; cross_entropy is a mean already.": expected / len(batch),
            "The model gives logits and cross_entropy expects logits: no softmax in between.": (
                gradient(F.cross_entropy(logits.softmax(1), y[batch]))
            ),
            "nll_loss takes log-probabilities. The model gives logits: cross_entropy takes those.": (
                gradient(F.nll_loss(logits, y[batch]))
            ),
            "This is the gradient of a squared error; the loss is the cross-entropy.": gradient(
                F.mse_loss(logits, one_hot)
            ),
            "This is the gradient of a squared error of the probabilities; the loss is the cross-entropy.": (
                gradient(F.mse_loss(logits.softmax(1), one_hot))
            ),
            "The labels do not belong to these inputs: index y with the same batch as x.": (
                gradient(F.cross_entropy(logits, y[begin : begin + len(batch)]))
            ),
            "They are 0: zero_grad() stands between backward() and step().": torch.zeros_like(expected),
        }
        begin += len(batch)
        likely = _slips(gradients[0], lambda slip: slip.detach().numpy(), slips)
        counts = len(batch) * (
            logits.softmax(1).mean(0) - gradients[1]
        )  # how often each class is among the labels used
        if not likely and torch.allclose(counts, counts.round(), atol=1e-3) and counts.min() > -0.5:
            likely = (
                "These are the gradients for other labels: x and y must be shuffled alike, by one and the same order."
            )
        expect.close(
            gradients[0],
            expected,
            why="the gradient at each step is that of its own batch",
            source="torch.autograd.grad on that batch",
            rtol=1e-3,
            atol=1e-5,
            likely=likely,
        )
        losses.append(loss.item())

    likely = (
        "loss.item() is the number inside a tensor." if isinstance(result, torch.Tensor) else "One number is wanted."
    )
    expect.kind(result, float, "the mean loss is a Python float", likely=likely)
    weighted = np.multiply(losses, sizes)
    slips = {
        "": weighted.sum() / N,
        "cross_entropy is a mean over its batch: multiply by len(batch) before adding up.": sum(losses) / N,
        "The last batch is smaller: multiply by len(batch), not by batch_size.": sum(losses) * B / N,
        "The batches count alike in this mean; the last is smaller, and its examples would count more.": np.mean(
            losses
        ),
        "It is the loss of the last batch alone: add up with +=, over all batches.": losses[-1],
        "It is the loss of the last batch alone: add up with +=, over all of them.": weighted[-1] / N,
        "It is the sum over the examples, not yet divided by their number.": weighted.sum(),
        "It is divided by the number of examples twice.": weighted.sum() / N**2,
        "Nothing is added to total.": 0.0,
    }
    likely = _slips(np.float32(result), lambda slip: slip, slips)
    source = "the batch losses, weighted by size"
    expect.close(
        result, weighted.sum() / N, why="the mean loss over all examples", source=source, rtol=1e-4, likely=likely
    )

    done = f"your schedule steps: {schedule.steps}"
    likely = "It is stepped after each batch, in the loop." if schedule.steps else "schedule.step() is never called."
    expect.true(schedule.steps == 3, "the schedule is stepped after each batch", done, likely=likely)
    likely = "First optimizer.step(), then schedule.step()."
    expect.true(not schedule.early, "the schedule is stepped after the optimizer", likely=likely)

    model.seen.clear()
    try:
        learner(model, x, y, optimizer, B)
    except AttributeError as error:
        likely = "Where none is given, schedule is None, and None has no step(): ask first."
        expect.true("NoneType" not in str(error), "it works without a schedule", str(error), likely=likely)
        raise
    again = [i for _, batch in model.seen for i in batch]
    expect.true(
        again != order,
        "each epoch has an order of its own",
        f"first epoch:  {order}",
        f"second epoch: {again}",
        likely="Is the generator seeded inside the function? Then every epoch is the same.",
    )


# ------------------------------------------------------------------------------------------------ prepare_image


def _placed(ink):
    """What the script's place_like_mnist does."""
    from PIL import Image

    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not rows.size:
        return np.zeros((28, 28), np.float32)
    digit = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    width, height = (max(1, round(20 * side / max(digit.shape))) for side in digit.shape[::-1])
    resized = Image.fromarray(digit.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return _in_the_middle(np.asarray(resized))


def _in_the_middle(digit):
    """(h, w), at most 28 × 28, with its centre of mass in the middle of 28 × 28."""
    canvas = np.zeros((28, 28), np.float32)
    rows, columns = np.indices(digit.shape)
    centre = (rows * digit).sum() / digit.sum(), (columns * digit).sum() / digit.sum()
    top, left = (int(np.clip(round(14 - c), 0, 28 - side)) for c, side in zip(centre, digit.shape, strict=True))
    canvas[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return canvas


def _edge(pixels):
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _prepared(pixels, paper=None, up=None, stretch=True, cut=0.25):
    """The right steps, each of which a mistake below replaces. up: whether ink is lighter than the paper."""
    ink = pixels / 255 - (np.median(_edge(pixels)) / 255 if paper is None else paper)
    if not (ink.max() >= -ink.min() if up is None else up):
        ink = -ink
    if stretch:
        ink = ink / ink.max() if ink.max() > 0 else ink
    return _placed(np.where(ink < cut, 0, ink))


def never_turned_round(pixels):
    """Dark ink on light paper is not turned round: ink has to count positive, whether it is darker or lighter."""
    return _prepared(pixels, up=True)


def always_turned_round(pixels):
    """Light and dark are always turned round. This picture has light ink on dark paper already: look at the border."""
    return _prepared(pixels, up=False)


def inverted_without_paper(pixels):
    """It turns light and dark round (255 - pixels) on every picture, and never takes the paper's grey away."""
    x = 1 - pixels / 255
    return _placed(np.where(x < 0.25, 0, x))


def compares_with_half(pixels):
    """It takes paper below 0.5 for dark. In a shadow white paper is darker than that: see which way ink lies furthest."""
    return _prepared(pixels, up=np.median(_edge(pixels)) < 127.5)


def not_stretched(pixels):
    """The ink is not stretched: faint ink stays faint. Divide by its maximum, so that the strongest is 1."""
    return _prepared(pixels, stretch=False)


def not_stretched_nor_cut(pixels):
    """The ink is not stretched: faint ink stays faint. Divide by its maximum, so that the strongest is 1; then cut."""
    return _prepared(pixels, stretch=False, cut=0)


def paper_not_subtracted(pixels):
    """The paper is still there: its grey has to become 0. Subtract it before you stretch."""
    x = pixels / 255
    if np.median(_edge(x)) > 0.5:
        x = 1 - x
    x = x / x.max()
    return _placed(np.where(x < 0.25, 0, x))


def not_cut(pixels):
    """Uneven paper counts as ink: what is below 0.25 of the strongest ink has to become 0."""
    return _prepared(pixels, cut=0)


def cut_before_stretching(pixels):
    """It cuts at 0.25 before it stretches, so that faint ink is cut off as well: stretch first."""
    ink = pixels / 255 - np.median(_edge(pixels)) / 255
    ink = -ink if -ink.min() > ink.max() else ink
    ink = np.where(ink < 0.25, 0, ink)
    return _placed(ink / max(ink.max(), 1e-9))


def both_ways(pixels):
    """It takes |difference|: what is lighter than the paper and what is darker both count as ink. Only one is."""
    ink = np.abs(pixels / 255 - np.median(_edge(pixels)) / 255)
    ink = ink / ink.max() if ink.max() > 0 else ink
    return _placed(np.where(ink < 0.25, 0, ink))


def from_darkest_to_lightest(pixels):
    """It stretches from the darkest to the lightest pixel, so that a reflection decides what 0 is. Paper has to be 0."""
    x = pixels / 255
    if np.median(_edge(x)) - x.min() > x.max() - np.median(_edge(x)):
        x = 1 - x
    x = (x - x.min()) / max(np.ptp(x), 1e-9)
    return _placed(np.where(x < 0.25, 0, x))


def black_and_white(pixels):
    """Everything is 0 or 1: the greys at the edge of the ink are lost. MNIST has them; keep what is above 0.25."""
    return (_prepared(pixels) > 0).astype(np.float32)


def one_corner(pixels):
    """It takes one corner pixel for the paper, and here that has a stain. The median of the whole border is safer."""
    return _prepared(pixels, paper=pixels[0, 0] / 255)


def mean_of_the_page(pixels):
    """It takes the mean of the whole page for the paper; that has the ink in it. The median of the border has not."""
    return _prepared(pixels, paper=pixels.mean() / 255)


def wraps_round(pixels):
    """uint8 arithmetic wraps round: 60 - 200 is 116 there. Divide by 255 first, which makes floats."""
    ink = (pixels - np.uint8(np.median(_edge(pixels)))) / 255
    return _prepared((255 * ink).astype(np.uint8), paper=0, up=True)


def wraps_round_downwards(pixels):
    """uint8 arithmetic wraps round: 60 - 200 is 116 there. Divide by 255 first, which makes floats."""
    ink = (np.uint8(np.median(_edge(pixels))) - pixels) / 255
    return _prepared((255 * ink).astype(np.uint8), paper=0, up=True)


def dark_on_light(pixels):
    """It comes out as dark ink on white: MNIST is light ink on black, ink near 1 and paper 0."""
    return 1 - _prepared(pixels)


def up_to_255(pixels):
    """The values go up to 255; the network was trained on 0 to 1."""
    return 255 * _prepared(pixels)


def squeezed(pixels):
    """The whole picture is squeezed into 28 × 28: proportions are lost, and the digit is where it was. Use place_like_mnist."""
    from PIL import Image

    ink = pixels / 255 - np.median(_edge(pixels)) / 255
    ink = -ink if -ink.min() > ink.max() else ink
    ink = np.where(ink < 0.25 * ink.max(), 0, ink / ink.max())
    return np.asarray(Image.fromarray(ink.astype(np.float32)).resize((28, 28), Image.Resampling.BILINEAR))


@exercise(
    hints=[
        "Begin with x = pixels / 255 and paper = np.median(border(x)). Then x - paper is 0 on paper; which sign has ink?",
        "ink = x - paper. If -ink.min() > ink.max(), the ink is darker than the paper: ink = -ink. Empty: ink.max() < 0.1.",
        "After the `raise ValueError(...)`: ink = ink / ink.max(), then return place_like_mnist(np.where(ink < 0.25, 0, ink)).",
    ],
    mistakes=[
        never_turned_round,
        always_turned_round,
        inverted_without_paper,
        compares_with_half,
        not_stretched,
        not_stretched_nor_cut,
        paper_not_subtracted,
        not_cut,
        cut_before_stretching,
        both_ways,
        from_darkest_to_lightest,
        black_and_white,
        one_corner,
        mean_of_the_page,
        wraps_round,
        wraps_round_downwards,
        dark_on_light,
        up_to_255,
        squeezed,
    ],
)
def prepare_image(learner, rng):

    stroke = np.zeros((20, 13))  # asymmetric, so that its centre of mass is not the middle of its box
    stroke[:3] = stroke[3:, 8:11] = stroke[17:, 6:11] = 1
    while True:
        seven = stroke * rng.choice([0.45, 0.6, 0.8, 1], size=stroke.shape)  # ink has greys
        seven[0, 0] = seven[19, 6] = seven[0, 12] = 1
        fractions = [(indices * seven).sum() / seven.sum() % 1 for indices in np.indices(seven.shape)]
        if all(abs(fraction - 0.5) > 0.15 for fraction in fractions):  # rounding puts it in one place only
            break

    def drawn(digit, paper, ink, shape=(33, 46), top=2, left=30):
        page = np.zeros(shape)
        page[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
        return np.rint(paper + (ink - paper) * page).astype(np.uint8)

    def by_hand(error):
        """Whether a `raise` of the learner's threw it: the statement, wherever it stands in its line."""
        last = error.__traceback__
        while last.tb_next:
            last = last.tb_next
        code = last.tb_frame.f_code
        return dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS" and "site-packages" not in code.co_filename

    def demand(pixels, digit, why, direction="", atol=0.02):
        shown = f"greys from {pixels.min()} to {pixels.max()}, the border's median is {np.median(_edge(pixels)):.0f}"
        try:
            given = learner(pixels)
        except ValueError as error:
            if not by_hand(error):
                raise
            likely = direction or "Empty means: even the strongest ink is less than 0.1 (of 0...1) off the paper."
            expect.true(
                False, f"{why}: yours says that the page is empty", shown, f"ValueError: {error}", likely=likely
            )
        if np.shape(given) == pixels.shape:
            expect.shape(given, (28, 28), why, likely="End with `return place_like_mnist(...)`: it crops and centres.")
        hollow = given is not None and not np.nan_to_num(array(given)).any()
        expected, source = _in_the_middle(digit), "the digit that was drawn"
        expect.close(given, expected, why=why, source=source, rtol=0, atol=atol, likely=direction if hollow else "")
        expect.dtype(given, float, why)

    below = (
        "Dark ink lies below the paper, so x - paper is negative there: turn the sign round, so that ink is positive."
    )
    demand(drawn(seven, 0, 255), seven, "white ink on black, in a corner: it only moves to the middle")
    demand(drawn(seven, 255, 0), seven, "black ink on white paper", below)
    demand(drawn(seven, 200, 60), seven, "dark-grey ink on light-grey paper", below)
    demand(drawn(seven, 40, 180), seven, "light-grey ink on dark-grey paper")
    shadow = " ".join(compares_with_half.__doc__.split())
    demand(drawn(seven, 105, 15), seven, "black ink on white paper in a shadow, which is darker than 0.5", shadow)
    demand(drawn(seven, 170, 135), seven, "faint ink", atol=0.05)

    stained = drawn(seven, 190, 60)
    stained[0, 0] = 165
    demand(stained, seven, "a stain in one corner, fainter than a quarter of the ink")
    reflection = drawn(seven, 170, 60)
    reflection[24:31, 3:17] = 225  # 55 up, where the ink goes 110 down
    demand(reflection, seven, "a reflection, lighter than the paper, is no ink")
    uneven = drawn(seven, 180, 60)
    uneven = np.where(uneven == 180, uneven + rng.integers(-12, 13, size=uneven.shape), uneven).astype(np.uint8)
    demand(uneven, seven, "uneven paper is no ink", atol=0.05)

    lying = np.rot90(seven)  # (13, 20)
    large = drawn(np.kron(lying, np.ones((4, 4))), 230, 20, (90, 140), 30, 7)
    demand(large, lying, "four times as large, and wider than tall", atol=0.1)

    likely = "Nothing there is 0.1 (of 0...1) off the paper: raise ValueError before you divide by the strongest ink."
    for page, why in (
        (np.full((30, 41), 140, np.uint8), "an empty grey page"),
        (rng.integers(130, 146, size=(30, 41)).astype(np.uint8), "an empty page of uneven grey, 130 to 145"),
    ):
        try:
            given = learner(page)
        except ValueError as error:
            expect.true(
                by_hand(error), f"{why} is a ValueError that you raise", f"it came by itself: {error}", likely=likely
            )
            expect.true(str(error), f"{why}: the ValueError says what is wrong", likely='raise ValueError("...")')
            continue
        yours = "None" if given is None else f"values from {array(given).min():.3g} to {array(given).max():.3g}"
        expect.true(False, f"{why} is a ValueError", f"yours returns {yours}", likely=likely)
