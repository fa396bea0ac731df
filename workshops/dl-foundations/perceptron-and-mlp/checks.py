"""The checks of perceptron-and-mlp: one for each exercise, with its hints. `lab.check` runs them."""

import dis
import math
from functools import partial

import numpy as np

from atlas.checking import (
    Tape,
    agree,
    around,
    array,
    cases,
    counts,
    exercise,
    expect,
    floats,
    labels,
    module_gradients,
    numbers,
    parts,
    same,
)

# ------------------------------------------------------------------------------------------------ perceptron_step


@parts
def _stepped(
    w,
    b,
    x,
    y,
    eta,
    *,
    wrong=lambda z, y: y * z <= 0,
    score=lambda w, b, x, y: w @ x + b,
    size=lambda y, z: y,
    add=lambda old, step: old + step,
    bias=lambda step, x: step,
):
    if not wrong(score(w, b, x, y), y):
        return w, b
    step = eta * size(y, w @ x + b)
    return add(w, step * x), add(b, bias(step, x))


def _repeated(w, b, x, y, eta):
    """It steps until the neuron is right. One call is one step: an `if`, not a `while`."""
    while y * (w @ x + b) <= 0:
        w, b = _stepped(w, b, x, y, eta)
    return w, b


def _decided_afterwards(w, b, x, y, eta):
    """It leaves the weights where the step would put the neuron right. Whether it is wrong, the old w and b decide."""
    new_w, new_b = w + eta * y * x, b + eta * y
    return (w, b) if y * (new_w @ x + new_b) > 0 else (new_w, new_b)


def _bias_decided_afterwards(w, b, x, y, eta):
    """The bias moves only where the neuron is still wrong after w has moved: decide once, then change both."""
    new_w, new_b = _stepped(w, b, x, y, eta)
    return (new_w, new_b) if y * (new_w @ x + b) <= 0 else (new_w, b)


_UNDECIDED = "With z = 0 the neuron is undecided, a mistake for either label"
_TWICE = "The step is twice too long: with labels ±1, y - ŷ is ±2 on a mistake. The rule adds η·y·x."
_LEAST_SQUARES = "The step is η·(y - z)·x, the rule of least squares. Here it is η·y·x, however wrong the neuron is."
_ZERO_OR_ONE = "With y = -1 it moves although the neuron is right. Is an answer of 0, or z itself, compared with -1?"


@exercise(
    hints=[
        "The neuron is wrong or undecided exactly when y·z ≤ 0, with z = w·x + b. Try it on y = -1 and z = -1.5.",
        "Two cases, two returns: where y·z ≤ 0 return new values, else the ones you were given. `w @ x` is the dot product.",
        "On a mistake: return w + eta * y * x and b + eta * y. Write w + ..., not w += ..., which would change the caller's array.",
    ],
    mistakes=_stepped.mistakes(
        _repeated,
        _decided_afterwards,
        _bias_decided_afterwards,
        returns={"It returns (b, w); the order is (w, b).": lambda both: both[::-1]},
        wrong={
            "It moves the weights although the neuron is right. Where y·z > 0 nothing changes.": lambda z, y: True,
            "It leaves the weights although the neuron is wrong: y·z ≤ 0. Is it turned round?": lambda z, y: y * z > 0,
            f"{_UNDECIDED}: y·z ≤ 0, not < 0. From zero weights it would never start.": lambda z, y: y * z < 0,
            f"{_UNDECIDED}, and this moves for y = -1 only: is 0 an answer of +1?": lambda z, y: (z >= 0) != (y > 0),
            f"{_UNDECIDED}, and this moves for y = +1 only: is 0 an answer of -1?": lambda z, y: (z > 0) != (y > 0),
            "It also moves where the neuron is right by less than 1; here y·z > 0 suffices.": lambda z, y: y * z < 1,
            _ZERO_OR_ONE: lambda z, y: int(z > 0) != y,
            "With y = -1 it stays although the neuron is wrong: look at y·z, not at z.": lambda z, y: z <= 0,
        },
        score={
            "Whether the neuron is wrong depends on z = w·x + b; the bias is left out.": lambda w, b, x, y: w @ x,
            "In the decision y multiplies w·x but not b: y·(w·x + b).": lambda w, b, x, y: w @ x + b * y,
            "In z the bias counts once for each feature; it is added once to the sum.": lambda w, b, x, y: (
                w * x + b
            ).sum(),
        },
        size={
            "The step lacks the label: with y = -1 the weights move away from x. Add η·y·x, and η·y.": lambda y, z: 1,
            "It moves the wrong way: the rule adds η·y·x, so that y·z grows.": lambda y, z: -y,
            _TWICE: lambda y, z: 2 * y,
            f"{_TWICE} ": lambda y, z: y - np.sign(z),
            "Where z = 0, y - sign(z) is only half of what it is elsewhere.": lambda y, z: (y - np.sign(z)) / 2,
            _LEAST_SQUARES: lambda y, z: y - z,
        },
        eta={"The learning rate η is missing: the step is η·y·x, not y·x.": 1.0},
        add={"It returns the step alone: add it to w, and to b.": lambda old, step: step},
        bias={
            "The bias never changes. It is the weight of an input that is always 1: add η·y.": lambda step, x: 0,
            "The bias moves once for each feature; it moves by η·y once.": lambda step, x: len(x) * step,
            "The bias moves by y. η is missing: it moves by η·y, as the weights by η·y·x.": lambda step, x: np.sign(
                step
            ),
            "The bias moves by η. y is missing: it moves by η·y, as the weights by η·y·x.": lambda step, x: abs(step),
            "The bias moves the wrong way: add η·y, as for an input that is always 1.": lambda step, x: -step,
        },
        together={
            "With y = -1 the step is twice too long, with y = +1 it is not: is ŷ 0 or 1 in y - ŷ? The rule adds η·y·x.": {
                "wrong": lambda z, y: int(z > 0) != y,
                "size": lambda y, z: y - int(z > 0),
            },
            f"{_LEAST_SQUARES} ": {"wrong": lambda z, y: True, "size": lambda y, z: y - z},
            f"{_TWICE}  ": {"wrong": lambda z, y: (z > 0) != (y > 0), "size": lambda y, z: 2 * y},
        },
    ),
)
def perceptron_step(learner, rng):
    def demand(w, b, x, y, eta, why, guess=lambda new, expected: ""):
        def fault(new, expected):
            """What the learner's step on w is, beside the right one."""
            if words := guess(new, expected):
                return words
            if not moved:
                return "Nothing changes here: return w and b as they were given."
            if np.shape(new) != np.shape(w) or not x @ x:
                return ""
            if same(new, w):
                return "It leaves the weights although the neuron is wrong: y·z ≤ 0 here."
            taken = (new - w) @ x / (x @ x)
            if same(new, w + taken * x):
                return f"Yours adds {taken:.3g}·x to w. Here η·y is {eta * y:.3g}."
            return "What yours adds to w is no multiple of x. The rule adds η·y, a number, times x."

        moved = y * (math.fsum(w * x) + b) <= 0
        by_hand = [wi + moved * eta * y * xi for wi, xi in zip(w.tolist(), x.tolist(), strict=True)]
        new_w, new_b = expect.parts(learner(w, b, x, y, eta), ("w", "b"), "the step returns the weights and the bias")
        expect.close(new_w, by_hand, why=f"{why}: w", source="the rule, entry by entry", likely=fault)
        weight = "The weights are right, the bias is not: it is the weight of an input that is always 1."
        likely = lambda given, expected: "" if given.shape else weight  # noqa: E731
        expect.close(new_b, b + moved * eta * y, why=f"{why}: b", source="the rule", likely=likely)

    x = rng.normal(size=5)
    x *= math.sqrt(2 / (x @ x))  # ‖x‖² = 2: a step raises y·z by 3η

    def weights(score):
        """Random weights with w·x = score."""
        w = rng.normal(size=5)
        return w + (score - w @ x) / 2 * x

    demand(weights(-2.7), 0.2, x, 1, 0.3, "far on the wrong side, y = +1: one step towards x")  # three make it right
    demand(weights(-0.7), 0.2, x, 1, 0.4, "wrong with y = +1: it moves towards x")  # one step makes it right
    demand(weights(0.6), 0.2, x, -1, 0.5, "wrong with y = -1: it moves away from x")
    demand(weights(2), 0.5, x, 1, 0.3, "right with y = +1: nothing changes")
    demand(weights(-2), 0.5, x, -1, 0.3, "right with y = -1: nothing changes")
    demand(weights(0.3), 0.2, x, 1, 0.3, "right, if only just: nothing changes")
    demand(weights(-1), 1.5, x, 1, 0.3, "right because of the bias: nothing changes")
    demand(weights(-1), 1.5, x, -1, 0.3, "wrong because of the bias: it moves")
    for y in (-1, 1):
        demand(np.zeros(5), 0.0, x, y, 0.7, f"undecided (z = 0) counts as wrong, y = {y:+}")
        for score in around(0.0):
            demand(np.array([2.0, -2]), y * score, np.ones(2), y, 0.7, f"y·z = {score:g}, y = {y:+}")
    demand(np.array([2.0, -1]), -0.5, np.array([1.0, 1]), -1, 0.1, "the example above: wrong, so it moves")
    kinds = {"w": floats("D", draw=lambda rng, shape: rng.normal(size=shape)), "x": floats("D")}
    for case in cases(rng, **kinds, b=numbers(-2, 2), eta=numbers(0.1, 2)):
        w, inputs, b, eta = case.inputs
        for y in (-1, 1):
            demand(w, b, inputs, y, eta, f"random numbers{case}, y = {y:+}", case.likely)


# ------------------------------------------------------------------------------------------------ mistake_bound


_lengths = partial(np.linalg.norm, axis=1)


def _first(values):
    return values[0]


def _itself(value):
    return value


@parts
def _bound(
    X,
    y,
    w,
    *,
    lengths=_lengths,
    longest=np.max,
    scores=lambda X, y, w: y * (X @ w),
    worst=np.min,
    length=np.linalg.norm,
    fraction=lambda R, gamma: (R / gamma) ** 2,
    promised=lambda gamma: gamma > 0,
):
    R, gamma = longest(lengths(X)), worst(scores(X, y, w)) / length(w)
    return fraction(R, gamma) if promised(gamma) else np.inf


_LABELS = "Does each label meet the w·x of its own row?"
_NO_PROMISE = "γ ≤ 0 means that w does not separate the classes: then there is no promise, and the bound is np.inf."
_EACH = "It is the largest (R/γ)² of single examples. R is the largest length of all, γ the smallest margin of all."


@exercise(
    hints=[
        "R is the largest length among the rows of X, γ the smallest y·(w·x)/‖w‖. Redo the example by hand first.",
        "np.linalg.norm(X, axis=1) gives the length of each row; X @ w all dot products at once, shape (N,).",
        "gamma = (y * (X @ w)).min() / np.linalg.norm(w). Return (R / gamma) ** 2 if gamma > 0, else np.inf.",
    ],
    mistakes=_bound.mistakes(
        lengths={
            "R is taken over columns (axis=0). An example is a row.": partial(np.linalg.norm, axis=0),
            "R is the norm of the whole matrix; it should be the largest length of a row.": np.linalg.norm,
            "R is the largest entry; it should be the largest length of a row.": np.ravel,
            "R lacks its square root: a length is the root of a sum of squares.": lambda X: (X**2).sum(axis=1),
            "R counts the bias's constant 1 once more; X has it already.": lambda X: np.hypot(1, _lengths(X)),
            "R leaves the last column out; the bias's constant 1 counts.": lambda X: _lengths(X[:, :-1]),
        },
        longest={
            "R is the length of the longest example, not of the shortest.": np.min,
            "R is the length of the longest example, not the average: the promise is for all.": np.mean,
        },
        worst={
            "γ is the margin of the worst example (min), not of the best one (max).": np.max,
            "γ is the margin of the worst example (min), not the average.": np.mean,
        },
        length={
            "γ is a distance: divide y·(w·x) by ‖w‖. A longer w must not change the bound.": lambda w: 1.0,
            "γ divides by ‖w‖, not by ‖w‖².": lambda w: w @ w,
            "‖w‖ leaves the last entry out; the bias is a part of w.": lambda w: np.linalg.norm(w[:-1]),
        },
        scores={
            f"The labels are left out of γ: it is y·(w·x). {_LABELS}": lambda X, y, w: X @ w,
            f"y as a column makes (N, N) of two (N,). {_LABELS}": lambda X, y, w: y[:, None] * (X @ w),
            "An example on the wrong side has a negative margin; this takes |w·x|.": lambda X, y, w: np.abs(X @ w),
            "Examples are divided by their lengths; only ‖w‖ belongs there.": lambda X, y, w: y * (X @ w) / _lengths(X),
        },
        fraction={
            "R/γ is not squared yet.": lambda R, gamma: R / gamma,
            "Only R is squared: the bound is (R/γ)², so γ is squared too.": lambda R, gamma: R**2 / gamma,
            "The fraction is upside down: R/γ, which is at least 1.": lambda R, gamma: (gamma / R) ** 2,
        },
        promised={_NO_PROMISE: lambda gamma: True},
        together={
            "R and γ come from a single example: is the loop left too early?": {"longest": _first, "worst": _first},
            "The last column, and the last entry of w, are left out; the bias is a part of both.": {
                "lengths": lambda X: _lengths(X[:, :-1]),
                "length": lambda w: np.linalg.norm(w[:-1]),
            },
            _EACH: {
                **dict.fromkeys(("longest", "worst"), _itself),
                "fraction": lambda R, gamma: ((R / gamma) ** 2).max(),
                "promised": lambda gamma: (gamma > 0).all(),
            },
        },
    ),
)
def mistake_bound(learner, rng):
    def by_example(X, y, w):
        """R and γ, one example after the other."""
        lengths = [math.sqrt(math.fsum(row * row)) for row in X]
        margins = [label * math.fsum(row * w) for row, label in zip(X, y, strict=True)]
        return max(lengths), min(margins) / math.sqrt(math.fsum(w * w))

    def demand(X, y, w, why, source="computed example by example", rtol=1e-5, guess=None):
        R, gamma = by_example(*(np.asarray(each, float) for each in (X, y, w)))

        def likely(given, expected):
            if given.size != 1:
                return "One number is wanted: the bound."
            if guess and (words := guess(given, expected)):
                return words
            if given == np.round(given) and abs(given - expected) < 1:
                return "It is a whole number; the bound need not be one."
            if np.isinf(given):
                return f"This w separates the classes: every y·(w·x) is positive. {_LABELS}"
            if given <= 0:
                return ""
            root = math.sqrt(given.item())
            return f"R is {R:.3f} and γ {gamma:.3f}: with this R your γ is {R / root:.3f}, or with this γ your R {root * gamma:.3f}."

        expect.close(learner(X, y, w), (R / gamma) ** 2, why=why, source=source, likely=likely, rtol=rtol)

    def demand_none(X, y, w, why):
        expect.equal(learner(X, y, w), np.inf, why=why, source="the theorem asks for γ > 0", likely=_NO_PROMISE)

    w = rng.normal(size=3) * 4
    y = np.array([1, -1, -1, 1, -1, 1, 1])
    X = rng.normal(size=(7, 3))
    X -= np.outer(X @ w - y * rng.uniform(1.5, 9, 7), w) / (w @ w)  # margins between 1.5 and 9, over ‖w‖
    middle = np.linalg.norm(X, axis=1).argsort()[3]
    X[[0, middle]], y[[0, middle]] = X[[middle, 0]], y[[middle, 0]]  # the first is neither longest nor shortest
    demand(X, y, w, "(R/γ)² on 7 random examples")
    demand(X, y, 3 * w, "a longer w, same direction: same bound", "γ divides by ‖w‖")
    demand(np.array([[3.0, 4], [-1, 0]]), np.array([1, -1]), np.array([2.0, 0]), "the example above", "by hand")
    flipped = np.where(np.arange(7) == (y * (X @ w)).argmin(), -y, y)
    demand_none(X, flipped, w, "one of 7 on the wrong side: no promise")
    for gamma in around(0.0, 1e-4):
        ask = demand if gamma > 0 else demand_none
        ask(np.array([[1.0, 5], [gamma, 2]]), np.ones(2), np.array([1.0, 0]), f"margins 1 and {gamma:g}")
    without = {"zeros": "a w of zeros is no direction", "ties": "with halves an example may lie on the border"}
    without["apart"] = "a margin is then a small difference of large numbers"
    for case in cases(rng, X=floats("N", "D"), w=floats("D"), without=without):
        X, w = case.inputs
        scores = case.exact[0] @ case.exact[1]
        if np.abs(scores).min() < 1e-9:
            continue  # whole numbers may meet the border by chance
        y = np.where(scores > 0, 1, -1)  # w separates them so
        rtol = 1e-3 if case.family == "single" else 1e-5  # a small margin is a difference of large numbers
        demand(X, y, w, f"separated examples{case}", rtol=rtol, guess=case.likely)
        y[-1] *= -1
        demand_none(X, y, w, f"the last on the wrong side{case}: no promise")


# ------------------------------------------------------------------------------------------------ xor_network

_INPUTS = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
_XOR = (0, 1, 1, 0)
_TABLES = {
    (0, 0, 0, 0): "Your network always says 0.",
    (1, 1, 1, 1): "Your network always says 1. Should the output's bias be negative, so that it starts from 'no'?",
    (0, 1, 1, 1): "Your network computes OR: right but for (1, 1).",
    (0, 0, 0, 1): "Your network computes AND: it says 1 only where both inputs are on.",
    (1, 0, 0, 1): "Your network computes the opposite of XOR: turn the signs of the output layer, and mind its bias.",
    (0, 0, 1, 0): "Your network says 'first and not second'; the other half, 'second and not first', is missing.",
    (0, 1, 0, 0): "Your network says 'second and not first'; the other half, 'first and not second', is missing.",
}
_ARRAYS = {
    "W1": ((2, 2), "One row for each hidden neuron, one column for each input: np.array([[…, …], […, …]])."),
    "b1": ((2,), "One number for each hidden neuron: np.array([…, …])."),
    "W2": ((1, 2), "One row for the one output neuron, one column for each hidden one: np.array([[…, …]])."),
    "b2": ((1,), "One number for the one output neuron, in an array all the same: np.array([…])."),
}
_MISREAD = {
    "It would be XOR with W1 transposed: each hidden neuron has a row of W1, not a column.": {"turn": np.transpose},
    "It would be XOR if a neuron were 1 at z = 0 too. Here it is 1 only where z > 0: move the biases off the border.": {
        "step": lambda z: (z >= 0) * 1.0
    },
    "It would be XOR with ReLU. Here a hidden neuron says 0 or 1, however large z is.": {
        "phi": lambda z: z.clip(min=0)
    },
    "It would be XOR for inputs -1 and +1. Here they are 0 and 1, which moves the biases.": {"X": 2 * _INPUTS - 1},
    "It would be XOR if hidden neurons said -1 and +1. Here they say 0 and 1, which moves the output's bias.": {
        "phi": lambda z: 2.0 * (z > 0) - 1
    },
}


def _run_network(W1, b1, W2, b2, X=_INPUTS, turn=np.asarray, step=lambda z: (z > 0) * 1.0, phi=None):
    """The hidden answers (4, 2), the output's z (4,) and what it says for the four inputs."""
    hidden = (phi or step)(np.einsum("hd,nd->nh", turn(W1), X) + b1)
    z = np.einsum("kh,nh->n", W2, hidden) + b2
    return hidden, z, step(z).astype(int)


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
    what = _TABLES.get(tuple(said), "")
    return f"{what} The hidden layer is good: other W2 and b2 make XOR of its answers.".lstrip()


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
    hidden, z, said = _run_network(*layers)
    rows = [
        f"x = ({x[0]:.0f}, {x[1]:.0f})   hidden a = ({a[0]:.0f}, {a[1]:.0f})   z = {v:+.2f}   says {s}, XOR is {t}"
        for x, a, v, s, t in zip(_INPUTS, hidden, z, said, _XOR, strict=True)
    ]
    misread = (words for words, way in _MISREAD.items() if tuple(_run_network(*layers, **way)[2]) == _XOR)
    likely = next(misread, "") or _fault_of_a_layer(hidden, said)
    expect.true(tuple(said) == _XOR, "the network says 1 exactly where one input is on", *rows, likely=likely)


# ------------------------------------------------------------------------------------------------ mlp_forward


def _relu(z):
    return z.clip(min=0)


def _softmax_of(z):
    E = math.e ** (z - z.max())
    return E / E.sum(1)[:, None]


def _sigmoid(z):
    return 1 / (1 + math.e**-z)


def _through(X, layers, phi=_relu, end=_itself, layer=lambda A, W, b: A @ W.T + b):
    """A network, of arrays or tensors."""
    A = X
    for W, b in layers[:-1]:
        A = phi(layer(A, W, b))
    return end(layer(A, *layers[-1]))


def _with(**settings):
    return partial(_through, **settings)


def _bias_after_relu(X, layers):
    for W, b in layers[:-1]:
        X = _relu(X @ W.T) + b
    return _through(X, layers[-1:])


def _relu_once(X, layers):
    first = _through(X, layers[:1], end=_relu if len(layers) > 1 else _itself)
    return _through(first, layers[1:], phi=_itself) if len(layers) > 1 else first


def _linear_at_the_end(X, layers):
    return _through(_through(X, layers[:-1]) if len(layers) > 1 else X, layers[-1:])


_LAST = "It belongs behind each layer but the last."
_ROWS = "Here examples are rows: A @ W.T."
_NETWORKS = {
    "The last layer has no ReLU: logits may be negative. Yours are cut off at 0.": _with(end=_relu),
    "There is no ReLU between the layers. Without it, all layers together are one.": _with(phi=_itself),
    "It returns probabilities. Logits are wanted: no softmax here.": _with(end=_softmax_of),
    "It returns the index of the largest logit. All logits are wanted.": _with(end=lambda z: z.argmax(1)),
    f"ReLU is applied to the data too. {_LAST}": lambda X, layers: _through(_relu(X), layers),
    f"The layer before the last has no ReLU. {_LAST}": _linear_at_the_end,
    f"Only the first layer has a ReLU. {_LAST}": _relu_once,
    "This is a sigmoid network; here φ is ReLU, max(0, z).": _with(phi=_sigmoid),
    "This is a tanh network; here φ is ReLU, max(0, z).": _with(phi=lambda z: 2 * _sigmoid(2 * z) - 1),
    "That is a leaky ReLU. Here φ is ReLU, max(0, z): 0 for every negative z.": _with(
        phi=lambda z: z * ((z > 0) + 0.01 * (z <= 0))
    ),
    "Hidden values above 6 are cut off: ReLU has no upper limit.": _with(phi=lambda z: z.clip(0, 6)),
    "This is section 4's step function; ReLU keeps positive z as they are.": _with(phi=lambda z: 1.0 * (z > 0)),
    "The biases are left out: z = Wx + b.": _with(layer=lambda A, W, b: A @ W.T),
    "The last layer's bias is missing.": lambda X, layers: _through(X, layers) - layers[-1][1],
    "It stops before the last layer.": lambda X, layers: _relu(_through(X, layers[:-1])),
}
_NETWORKS_OF_ARRAYS = {
    **_NETWORKS,
    "The bias is added after ReLU. First z = Wx + b, then ReLU of z.": _bias_after_relu,
    "The weights are not transposed. W is (out, in): A @ W.T.": _with(layer=lambda A, W, b: A @ W + b),
    f"W @ A takes columns for examples. {_ROWS}": _with(layer=lambda A, W, b: W @ A + b),
    f"W @ A takes columns for examples, and so does b[:, None]. {_ROWS}": _with(
        layer=lambda A, W, b: W @ A + b[:, None]
    ),
    "Each entry of b went to an example; it belongs to a neuron. Neurons are the columns of A @ W.T, where + b is right, and the rows of W @ A.T, where b[:, None] is.": _with(
        layer=lambda A, W, b: A @ W.T + b[:, None]
    ),
    "Each layer begins with X again: it takes what the layer before it returned.": lambda X, layers: _through(
        X, layers[-2:]
    ),
    "It stops after the first layer: is the return inside the loop?": lambda X, layers: _relu(_through(X, layers[:1])),
    "It uses the first and the last layer only. There may be any number between them.": lambda X, layers: _through(
        X, [layers[0], layers[-1]]
    ),
    "No layer as wide as the last gets a ReLU. The last is known by its place in the list, not by its width.": (
        lambda X, layers: _through(X, layers, phi=lambda z: z if z.shape[1] == len(layers[-1][1]) else _relu(z))
    ),
    "It stops after two layers. There may be any number.": lambda X, layers: _through(X, layers[:2]),
    "It is the transpose of the right result: examples are rows.": lambda X, layers: _through(X, layers).T,
}


@parts
def _forward(X, layers, *, network=_through):
    return network(X, layers)


def _of_another_layer(yours, layers, rows):
    """What the shape of a result of the network tells, where it is that of hidden layers or of one example."""
    hidden = [len(b) for _, b in layers[:-1]]
    if yours.shape == (1, len(layers[-1][1])) and rows > 1:
        return "There is a single row: is the return inside the loop over the examples, or each row overwritten?"
    if yours.ndim == 2 and yours.shape[1] != len(layers[-1][1]) and yours.shape[1] in hidden:
        return f"It has the width of hidden layer {hidden.index(yours.shape[1]) + 1} of {len(hidden)}. Which layer comes last?"
    return ""


def _by_neuron(X, layers):
    """The authority: one neuron after the other, and no matrix."""
    rows = []
    for a in np.asarray(X, float).tolist():
        for number, (W, b) in enumerate(layers, 1):
            z = [math.fsum(map(float.__mul__, row, a)) + c for row, c in zip(W.tolist(), b.tolist(), strict=True)]
            a = z if number == len(layers) else [max(0.0, v) for v in z]
        rows.append(a)
    return np.array(rows)


@exercise(
    hints=[
        "Keep one variable A, at first X. Each layer replaces it. Which layer is treated differently?",
        "With rows as examples a layer is A @ W.T + b, shape (B, out). ReLU is np.maximum(0, ...), with two arguments.",
        "for W, b in layers[:-1]: A = np.maximum(0, A @ W.T + b). Then the last pair, layers[-1], without ReLU.",
    ],
    mistakes=_forward.mistakes(network=_NETWORKS_OF_ARRAYS),
)
def mlp_forward(learner, rng):
    right = set()  # numbers of layers

    def exact(layers):
        return [(np.asarray(W, float), np.asarray(b, float)) for W, b in layers]

    def where_it_begins(X, layers):
        fewer = [same(learner(X, layers[:n]), _by_neuron(X, exact(layers[:n]))) for n in (1, 2)]
        if len(layers) in right:
            return ""
        if not fewer[0] and fewer[1]:
            return "Two layers are right, one alone and three are not: is their number built in?"
        if not fewer[0]:
            return "A network of one layer is wrong: z = Wx + b, and nothing else."
        if not fewer[1]:
            return "One layer alone is right, two are not: what comes between them, and what does the second one get?"
        return (
            "Two layers are right, three are not: is every hidden layer treated alike, and given what came before it?"
        )

    def demand(X, layers, why, guess=None):
        def likely(yours, expected):
            if words := _of_another_layer(yours, layers, len(X)):
                return words
            if guess or yours.shape != expected.shape:
                return guess(yours, expected) if guess else ""
            try:
                return where_it_begins(X, layers)
            except Exception:  # fewer layers may be another mistake, told further down
                return ""

        expected = _by_neuron(X, exact(layers))
        expect.close(learner(X, layers), expected, why=why, source="neuron by neuron", rtol=1e-4, likely=likely)
        right.add(len(layers))

    def network(*widths):
        return [(rng.normal(size=(n_out, n_in)), rng.normal(size=n_out)) for n_in, n_out in zip(widths, widths[1:])]  # noqa: B905

    demand(rng.normal(size=(5, 5)), network(5, 5, 5, 5), "5 examples, three layers of 5")  # no slip in a shape raises
    demand(rng.normal(size=(5, 3)), network(3, 6, 2), "5 examples, one hidden layer of 6")
    demand(rng.normal(size=(4, 3)), network(3, 7, 5, 2), "4 examples, two hidden layers")
    demand(rng.normal(size=(4, 3)), network(3, 2), "no hidden layer at all: one linear layer")
    example = [(np.array([[1.0, 0], [1, 1], [0, -1]]), np.array([0.0, 0, 1])), (np.array([[2.0, 5, -1]]), np.zeros(1))]
    demand(np.array([[1.0, -2]]), example, "the example above")
    own = {"draw": lambda rng, shape: rng.normal(size=shape)}  # fractions, also where the data are whole numbers
    hidden = {"W1": floats("H", "D", **own), "b1": floats("H", **own)}
    for case in cases(rng, X=floats("B", "D"), **hidden, W2=floats("K", "H", **own), b2=floats("K", **own)):
        X, *arrays = case.inputs
        demand(X, list(zip(arrays[::2], arrays[1::2], strict=True)), f"one hidden layer{case}", case.likely)
    layer = network(4, 4)[0]
    twice = "Is the last layer found by its arrays (is, ==, index)? Count the layers."
    demand(rng.normal(size=(3, 4)), [layer] * 3, "three layers that share W and b", lambda *_: twice)
    for case in cases(rng, X=floats("B", "D"), W=floats("K", "D"), b=floats("K")):
        X, *layer = case.inputs
        demand(X, [tuple(layer)], f"no hidden layer{case}", case.likely)


# ------------------------------------------------------------------------------------------------ softmax


def _line(of, axis=1):
    """The largest, or the sum, of each row, as a column: keepdims=True."""
    return lambda Z, *_: of(Z, axis=axis, keepdims=True)


_row_max, _row_sum = _line(np.max), _line(np.sum)


@parts
def _softmax(Z, *, of=_itself, shift=_row_max, above=lambda E, Z: E, below=_row_sum, divide=lambda E, total: E / total):
    Z = of(Z)
    E = np.exp(Z - shift(Z))
    return divide(above(E, Z), below(E, Z))


def _sigmoid_of_each(Z):
    """This is the sigmoid of each logit by itself. Softmax compares it with the others of its row."""
    return _sigmoid(Z)


def _without_exp(Z):
    """It divides the logits themselves by their sum. Exponentiate first: probabilities are positive."""
    return Z / Z.sum(axis=1, keepdims=True)


def _nan_swept_away(Z):
    """NaN is swept away, and a row of zeros is left: its e^z are ∞, or all 0. Shift the row before exp, then none is."""
    return np.nan_to_num(np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True))


_ROW = "keepdims=True keeps it (B, 1)."
_OVERFLOW = "exp overflows: e^1000 is too large for a float, and ∞/∞ is NaN. Subtract each row's largest logit first."
_ONE_FOR_ALL = "It subtracts one logit from the whole batch: a row far below gives 0/0. Each row has its own maximum."
_TO_ZERO = (
    "Where a row is far below 0, every e^z is rounded to 0. Subtract its maximum, whatever its sign, not |z| or 0."
)
_BY_COLUMNS = "It adds up over the examples (axis 0). Each row is one example, and its entries add up to 1: axis=1."
_WHOLE = "It divides by the sum over the whole batch. Each row has a sum of its own: axis=1, keepdims=True."
_SCALED = "It divides by the maximum, which changes the probabilities. Only *subtracting* a number leaves them so."
_CLIPPED = "It clips the logits: (1002, 1001, 1000) become the same. Subtracting each row's maximum loses nothing."


@exercise(
    hints=[
        "Adding the same number to all logits of a row changes nothing. Which number makes the largest exponent 0?",
        "Z.max(axis=1, keepdims=True) has shape (B, 1), and Z minus it works row by row. Without keepdims it would be (B,).",
        "E = np.exp(Z - Z.max(axis=1, keepdims=True)), then E divided by E.sum(axis=1, keepdims=True).",
    ],
    mistakes=_softmax.mistakes(
        _sigmoid_of_each,
        _without_exp,
        _nan_swept_away,
        shift={
            _OVERFLOW: lambda Z: 0,
            _ONE_FOR_ALL: np.max,
            _TO_ZERO: lambda Z: _row_max(Z).clip(min=0),
            "It subtracts the mean. A row with one very large logit still overflows.": _line(np.mean),
            "It subtracts the minimum, so exponents are positive and overflow.": _line(np.min),
            f"Z.max(1) is (B,) and meets the columns: row 2's maximum goes to column 2. {_ROW}": partial(
                np.max, axis=1
            ),
            "It subtracts each column's maximum. A row has one shift: axis=1.": _line(np.max, axis=0),
        },
        below={
            _BY_COLUMNS: _line(np.sum, axis=0),
            _WHOLE: lambda E, Z: E.sum(),
            f"The sums, (B,), meet the columns: row 2's sum divides column 2. {_ROW}": lambda E, Z: E.sum(axis=1),
            "It shifts the numerator but not the sum below it. Both need the shift.": lambda E, Z: _row_sum(np.exp(Z)),
        },
        above={"It shifts the sum but not the numerator above it. Both need the shift.": lambda E, Z: np.exp(Z)},
        of={
            _SCALED: lambda Z: Z / _row_max(Z),
            _CLIPPED: lambda Z: Z.clip(-500, 500),
            "It takes exp of -z: the largest logit gets the smallest probability.": lambda Z: -Z,
        },
        divide={
            "The rows do not add up to 1: the division by the sum is missing.": lambda E, total: E,
            "The largest logit gets everything. Softmax gives every class a share.": lambda E, total: 1.0 * (E == 1),
            "These are the logarithms of the probabilities.": lambda E, total: np.log(E / total),
        },
        together={
            f"{_BY_COLUMNS} ": {"shift": _line(np.max, axis=0), "below": _line(np.sum, axis=0)},
            f"{_BY_COLUMNS}  ": {"shift": lambda Z: 0, "below": _line(np.sum, axis=0)},
            f"{_WHOLE} ": {"shift": np.max, "below": lambda E, Z: E.sum()},
            f"Maximum and sum, of shape (B,), meet the columns of Z, not its rows. {_ROW}": {
                "shift": partial(np.max, axis=1),
                "below": lambda E, Z: E.sum(axis=1),
            },
        },
    ),
)
def softmax(learner, rng):
    from scipy.special import softmax as reference

    def likely(yours, expected):
        if np.isnan(yours).any() or (yours.shape == expected.shape and not yours.any(axis=1).all()):
            return "A row of NaN or zeros comes of ∞/∞, 0/0 or 1/∞. Shift each row so that its largest exponent is 0."
        return ""

    def demand(Z, why, rtol=1e-5, likely=likely):
        expected = reference(np.asarray(Z, float), axis=1)
        expect.close(learner(Z), expected, why=why, source="scipy.special.softmax", rtol=rtol, likely=likely)

    demand(rng.normal(size=(4, 4)) * 2, "4 rows of 4 logits, each row by itself")  # no slip in a shape raises
    demand(rng.normal(size=(5, 3)) * 2, "5 rows of 3 logits, each row by itself")
    demand(np.array([[2.0, 1, 0]]), "the example above")
    demand(np.array([[1002.0, 1001, 1000], [0.5, 0.1, 0.2]]), "logits near 1000: only differences count", 1e-3)
    far = np.array([[-300.0, 600, 350, -400], [-1002, -1000, -1001, -1003]])
    demand(far, "logits from -1003 to 600, one row far above the other", 1e-3)
    for case in cases(rng, Z=floats("B", "K")):
        guess = lambda yours, expected, case=case: case.likely(yours, expected) or likely(yours, expected)  # noqa: E731
        demand(*case.inputs, f"each row by itself{case}", _near(case), guess)


def _near(case):
    """How exact e^z can be: near ±1000 the logits themselves are rounded, for whom computes in single precision."""
    return 1e-3 if case.family in ("far", "apart") else 1e-5


# ------------------------------------------------------------------------------------------------ cross_entropy


def _log_sum(Z, m=_row_max):
    return (m(Z) + np.log(np.exp(Z - m(Z)).sum(axis=1, keepdims=True)))[:, 0]


def _right(values, y):
    return values[np.arange(len(y)), y]


@parts
def _loss(Z, y, *, log_sum=_log_sum, logit=_right, mean=lambda losses, K: losses.mean(), whole=None):
    return whole(Z, y) if whole else mean(log_sum(Z) - logit(Z, y), Z.shape[1])


def _of_p(use):
    """A loss from the softmax p (B, K), the p of the right classes (B,), and the one-hot targets (B, K)."""
    return lambda Z, y: use(_softmax(Z), _right(_softmax(Z), y), np.eye(Z.shape[1])[y])


_FORMULA = "exp overflows in the log-sum-exp: subtract m, each row's largest logit, inside, and add it back outside."
_BATCH_M = "It subtracts the largest logit of the whole batch: a row far below it gives log 0. Each row has its own m."
_ZERO_M = "Where all logits of a row are far below 0, an m of 0 gives log 0. m is its maximum, whatever its sign."
_LARGEST = (
    "m is the row's largest logit, not the largest absolute value: in a row of -1000s all exponentials would be 0."
)
_ROUNDED = "It takes the logarithm of a probability that was rounded to 0. Log-sum-exp minus the right logit never is."
_OVERFLOWS = "e^1000 overflows, and ∞/∞ is NaN. No softmax here: log-sum-exp, with each row's largest logit taken out."
_ALL_LABELS = "Z[:, y] takes, for every row, the columns of all labels: (B, B). Z[np.arange(B), y] is one a row."
_WHOLE_ROWS = "Z[y] takes whole rows, those with the numbers in y. Z[np.arange(B), y] is one entry a row."


@exercise(
    hints=[
        "The loss of one row is log-sum-exp of its logits minus the logit of its right class. No softmax is needed.",
        "m = Z.max(axis=1) is (B,). m + np.log(np.exp(Z - m[:, None]).sum(axis=1)) is log-sum-exp of each row, also (B,).",
        "Z[np.arange(len(y)), y] picks from row i the entry y[i], (B,). Subtract it from log-sum-exp and take .mean().",
    ],
    mistakes=_loss.mistakes(
        mean={
            "It adds up the losses of the batch; the mean is wanted.": lambda losses, K: losses.sum(),
            "It returns one loss for each example; average them.": lambda losses, K: losses,
            "The minus is missing: a logarithm of a probability is negative.": lambda losses, K: -losses.mean(),
            "It is the loss of the first example alone: is the return inside the loop?": lambda losses, K: losses[0],
            "It is the loss of the last example alone: is each one added up?": lambda losses, K: losses[-1],
            "Only the first example counts, divided by B: is the return inside the loop?": lambda losses, K: (
                losses[0] / len(losses)
            ),
            "These are bits (logarithm to base 2); the natural one is wanted.": lambda losses, K: (
                losses.mean() / math.log(2)
            ),
            "It divides by B·K. Each example has one loss: divide by B.": lambda losses, K: losses.mean() / K,
        },
        log_sum={
            _FORMULA: partial(_log_sum, m=lambda Z: 0),
            _BATCH_M: partial(_log_sum, m=np.max),
            _LARGEST: partial(_log_sum, m=lambda Z: np.abs(Z).max(axis=1, keepdims=True)),
            _ZERO_M: partial(_log_sum, m=lambda Z: _row_max(Z).clip(min=0)),
            "m is subtracted inside the log-sum-exp but not added back outside.": lambda Z: _log_sum(Z) - Z.max(axis=1),
            "m is added outside but not subtracted inside; or z_y is taken from the shifted logits.": lambda Z: (
                _log_sum(Z) + Z.max(axis=1)
            ),
            "m is subtracted outside the logarithm; it is added back there.": lambda Z: _log_sum(Z) - 2 * Z.max(axis=1),
            "The logarithm is to base 2, np.log2; the natural one is wanted.": lambda Z: (
                Z.max(axis=1) + (_log_sum(Z) - Z.max(axis=1)) / math.log(2)
            ),
            "The sum of exponentials lacks its logarithm.": lambda Z: np.exp(Z).sum(axis=1),
            "It takes the largest logit where log-sum-exp belongs.": lambda Z: Z.max(axis=1),
            "The log-sum-exp of the row is missing; this is minus the right logit.": lambda Z: 0,
            "It sums exp over the whole batch; each row has its own.": lambda Z: np.log(np.exp(Z).sum()),
            "m, of shape (B,), meets the columns of Z. Write m[:, None] inside, which is (B, 1).": (
                lambda Z: Z.max(axis=1) + np.log(np.exp(Z - Z.max(axis=1)).sum(axis=1))
            ),
        },
        logit={
            "It uses the largest logit as if it were the right one; y says which.": lambda Z, y: Z.max(axis=1),
            _ALL_LABELS: lambda Z, y: Z[:, y].mean(),
            _WHOLE_ROWS: lambda Z, y: Z[y % len(y)].mean(),
            "All classes count in this mean; only the right one should.": lambda Z, y: Z.mean(axis=1),
            "Labels count from 0: class y is column y.": lambda Z, y: _right(Z, y - 1),
            "The logit of the right class is not subtracted.": lambda Z, y: 0,
            "The right logit is added where it should be subtracted.": lambda Z, y: -_right(Z, y),
        },
        whole={
            _ROUNDED: _of_p(lambda p, right, target: -np.log(right).mean()),
            _OVERFLOWS: lambda Z, y: -np.log(_right(np.exp(Z) / _row_sum(np.exp(Z)), y)).mean(),
            "The softmax runs over the examples (axis=0). Each row is one example: axis=1.": (
                lambda Z, y: (_log_sum(Z.T)[y % Z.shape[1]] - _right(Z, y)).mean()
            ),
            "This averages -p. Cross-entropy takes -log p.": _of_p(lambda p, right, target: -right.mean()),
            "It subtracts each column's maximum. Only a shift that is the same along a row cancels: axis=1, keepdims=True.": (
                lambda Z, y: _loss(Z - Z.max(axis=0), y)
            ),
            "It takes the logarithm of the mean. First the loss of each example, then the mean.": (
                _of_p(lambda p, right, target: -np.log(right.mean()))
            ),
            "This is a mean squared error of the probabilities. Take -log p of the right class.": (
                _of_p(lambda p, right, target: ((p - target) ** 2).mean())
            ),
            "Softmax is applied twice: log-sum-exp takes the logits as they are.": (
                _of_p(lambda p, right, target: (_log_sum(p) - right).mean())
            ),
            "It multiplies by the label. y is a position, not a factor: Z[np.arange(B), y].": (
                lambda Z, y: -(y[:, None] * (Z - _log_sum(Z)[:, None])).sum(1).mean()
            ),
        },
    ),
)
def cross_entropy(learner, rng):
    from scipy.special import log_softmax

    def demand(Z, y, why, rtol=1e-5, guess=None):
        rows = np.asarray(Z, float)
        expected = -sum(log_softmax(row)[label] for row, label in zip(rows, y, strict=True)) / len(y)

        def likely(given, expected):
            if guess and (words := guess(given, expected)):
                return words
            if given.shape:
                return ""
            if np.abs(rows).max() < 100:
                if len(y) == 1:
                    return ""
                if same(learner(Z[:1], y[:1]), -log_softmax(rows[0])[y[0]]):
                    return "For a single row it is right: look at the axes, and at how several losses become one."
                return "It is wrong for a single row already: compare its parts with the example above."
            if 0 < given < expected and (floor := math.exp(-given.item() * len(y))) > 1e-50:
                return f"It is -log of {floor:.0e}: a small number in the logarithm, or a clip, hides the true loss."
            if 0 < given < expected:
                return f"It ends at {given:g}: are the logits clipped, or is the log term left out? Differences between logits count, however large."
            return ""

        source = "scipy.special.log_softmax"
        expect.close(learner(Z, y), expected, why=why, source=source, rtol=rtol, atol=rtol, likely=likely)

    for y, K in (np.array([1, 5, 0, 2, 2, 4]), 6), (np.array([2, 0, 1, 0, 2]), 3):  # in 6 × 6 no slip in a shape raises
        Z, rows = rng.normal(size=(len(y), K)) * 2, np.arange(len(y))
        middle = Z.argsort(axis=1)[:, K // 2]
        Z[rows, y], Z[rows, middle] = Z[rows, middle], Z[rows, y]  # the right logit is neither largest nor smallest
        demand(Z, y, f"{len(y)} rows of {K} logits")
    demand(np.array([[2.0, 1, 0]]), np.array([1]), "the example above")
    demand(np.array([[1000.0, 0]]), np.array([0]), "logits (1000, 0), class 0 right: the loss is 0")
    demand(np.array([[1000.0, 0]]), np.array([1]), "logits (1000, 0), class 1 right: the loss is 1000")
    far = np.array([[1000.0, -1000, 0], [-1000, -1001, -1002]])
    demand(far, np.array([2, 1]), "logits of ±1000, one row far above the other")
    for case in cases(rng, Z=floats("B", "K"), y=labels("B", below="K")):
        demand(*case.inputs, f"random logits{case}", _near(case), case.likely)


# ------------------------------------------------------------------------------------------------ MLP


@parts
def _mlp(widths, *, network=_through):
    from torch import nn

    model = nn.Sequential(*(nn.Linear(n_in, n_out) for n_in, n_out in zip(widths[:-1], widths[1:], strict=True)))
    model.forward = lambda x: network(x.flatten(1), [(layer.weight, layer.bias) for layer in model])
    return model


def _fault_in_parameters(shapes, widths, wanted):
    sizes = {n for shape in shapes for n in shape} - {*widths}
    if not shapes:
        return "There are none. Layers in a plain list, in an attribute of the class, or made in forward, are not registered: in __init__, self.layers = nn.ModuleList(...)."
    if shapes == wanted[::2]:
        return "The biases are missing."
    if [shape for shape in shapes if len(shape) > 1] == wanted[::2] and len(shapes) != len(wanted):
        if len(shapes) < len(wanted):
            return "The matrices are all there, a bias is missing: every layer has one, the last too."
        return "There is more than weights and biases: other layers that learn, such as batch norm? nn.Linear alone is wanted."
    if sizes:
        return f"{sorted(sizes)} are not in widths. Are sizes written as numbers, not taken from widths?"
    if len(shapes) == 2 and len({*widths}) == 1:
        return "One layer is there for all of them: each pair of neighbours has a layer of its own, also where widths repeat."
    if shapes == wanted[-2:]:
        return "Only the last layer is registered. Are the others in a plain list, or overwritten in the loop?"
    if len(shapes) != len(wanted):
        if len(shapes) > len(wanted):
            return "Too many layers: one for each pair of neighbours in widths, in a list that no other model shares."
        return "Too few layers: one for each pair of neighbours in widths, and each an object of its own."
    if sorted(shapes) == sorted(wanted):
        return "All are there, in another order. Create the layers in the order in which forward uses them, each weight with its bias."
    return "nn.Linear takes (n_in, n_out) in this order, and keeps a weight of shape (n_out, n_in)."


@exercise(
    hints=[
        "[784, 256, 10] has two neighbouring pairs: (784, 256) and (256, 10). zip(widths[:-1], widths[1:]) gives them.",
        "self.layers = nn.ModuleList(...) with one nn.Linear(n_in, n_out) for each pair. A plain list would hide the weights.",
        "forward: a = x.flatten(1); for layer in self.layers[:-1]: a = torch.relu(layer(a)); return self.layers[-1](a).",
    ],
    mistakes=_mlp.mistakes(
        network={
            **_NETWORKS,
            "It returns the logarithms of probabilities. Logits are wanted: no log_softmax here.": _with(
                end=lambda z: z.log_softmax(1)
            ),
            "It divides by 255; the images are between 0 and 1 already, where they are loaded.": lambda x, layers: (
                _through(x / 255, layers)
            ),
        }
    ),
    seconds=30,  # torch.nn may be imported here for the first time
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
        shown = f"yours    {shapes}", f"expected {wanted}"
        likely = partial(_fault_in_parameters, shapes, widths, wanted)
        expect.true(shapes == wanted, f"MLP({widths}) has these parameters, in order", *shown, likely=likely)
        return model

    def fill(model):
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.tensor(rng.normal(size=tuple(p.shape))))

    def demand(widths, shape, why):
        model, twin = build(widths), build(widths)
        fill(model)
        values = [p.detach().clone() for p in model.parameters()]
        fill(twin)
        shared = any(not torch.equal(p, old) for p, old in zip(model.parameters(), values, strict=True))
        likely = "Are they made outside of __init__, in the class or a default? Make new ones for each model, in self."
        expect.true(not shared, "two models have weights of their own", likely=likely)
        layers = list(zip(values[::2], values[1::2], strict=True))
        x = torch.tensor(rng.normal(size=shape), dtype=torch.float32)

        def likely(yours, expected):
            if yours.ndim == 1 and len(yours) == widths[-1]:
                return "The axis of the batch is gone: flatten() and squeeze() take it too. flatten(1) keeps axis 0."
            if yours.ndim == 3:
                return "nn.Linear works on the last axis alone, here on rows of pixels. Flatten each example first."
            if not same(model(x), model(x)):
                return "Twice the same input gives different logits. Is there dropout, or a random number, in forward?"
            return _of_another_layer(yours, layers, len(x))

        expected = _by_neuron(x.reshape(len(x), -1).numpy(), [(W.numpy().astype(float), b.numpy()) for W, b in layers])
        for mode in ("training", "evaluation"):
            given, rule = model.train(mode == "training")(x), f"{why}, in {mode}"
            expect.kind(given, torch.Tensor, rule, likely="Return the tensor itself: the loss needs its gradients.")
            expect.close(given, expected, why=rule, source="neuron by neuron", rtol=1e-3, atol=1e-4, likely=likely)
        theirs = [nn.Flatten()]
        for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
            theirs += [nn.Linear(n_in, n_out), nn.ReLU()]
        theirs = nn.Sequential(*theirs[:-1])
        theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
        module_gradients(model, theirs, x, rng, why=why)

    demand([4, 6, 3], (1, 4), "a batch of one row of 4 numbers")
    demand([4, 6, 3], (5, 4), "rows of 4 numbers, one hidden layer")
    demand([5, 5, 5, 5, 5], (5, 5), "rows of 5 numbers, three hidden layers of 5")
    demand([4, 6, 5, 3], (5, 4), "rows of 4 numbers, two hidden layers")
    demand([4, 3], (5, 4), "no hidden layer: MLP([4, 3]) is one linear layer")
    demand([4, 3, 1], (5, 4), "a single logit")
    demand([4, 5, 2], (3, 1, 4), "images of 1 × 4 pixels are flattened, example by example")
    demand([6, 5, 2], (4, 2, 3), "images of 2 × 3 pixels are flattened, example by example")
    demand([9, 3, 3], (1, 3, 3), "one image of 3 × 3 pixels")


# ------------------------------------------------------------------------------------------------ train_epoch


def _cross_entropy(logits, y, **settings):
    from torch.nn import functional as F

    return F.cross_entropy(logits, y, **settings)


@parts
def _epoch(
    model,
    x,
    y,
    optimizer,
    batch_size=128,
    schedule=None,
    *,
    loss=_cross_entropy,
    moves="zero_grad backward step turn",
    at_the_end="",
    add=lambda total, loss, n, size: total + loss * n,
    mean=lambda total, N, count: total / N,
):
    import torch

    model.train()
    total, batches = 0.0, torch.randperm(len(x)).split(batch_size)
    does = {"zero_grad": optimizer.zero_grad, "step": optimizer.step}
    does["turn"] = schedule.step if schedule is not None else lambda: None
    for batch in batches:
        value = loss(model(x[batch]), y[batch])
        does["backward"] = partial(value.backward, retain_graph=True)
        for move in moves.split():
            does[move]()
        total = add(total, value.item(), len(batch), batch_size)
    for move in at_the_end.split():
        does[move]()
    return mean(total, len(x), len(batches))


def _fault_in_batches(batches, N, B):
    """Why the batches are not N examples, each once, B at a time."""
    order, sizes = [i for batch in batches for i in batch], [len(batch) for batch in batches]
    if 0 in sizes:
        return f"{N} is a multiple of {B}, and a last batch without examples comes after the others."
    if sizes == [N]:
        return "All examples went through in one batch: split the order into pieces of batch_size."
    if sizes == [B]:
        return "Only the first batch was used: is the return inside the loop?"
    if sizes == [B] * (N // B):
        return f"{N} is no multiple of {B}: the last, smaller batch is left out."
    if sorted(order) == sorted([*range(N)] * 2):
        return "Every example twice: one call is one epoch, with one pass over the examples."
    if sorted(order) == list(range(N)) and len(sizes) == B:
        return "These are batch_size batches; wanted are batches of batch_size examples (split, not chunk)."
    if len({*order}) == len(order) < N:
        return f"Left out: {sorted({*range(N)} - {*order})}. Does the loop reach the end of the order?"
    if sizes and max(sizes) <= B and len(sizes) == -(-N // B):
        return "Shuffle once for each epoch, before the loop: torch.randperm has each example once; each batch takes the next piece of that order."
    return "Each batch takes the next piece of the shuffled order: no example twice, none left out."


@exercise(
    hints=[
        "order = torch.randperm(len(x)) is the shuffled list of examples, order.split(batch_size) its batches. Index x and y alike.",
        "In each batch, in this order: loss, optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step() if there is one.",
        "nn.functional.cross_entropy(model(x[batch]), y[batch]) is a mean over the batch: add loss.item() * len(batch) to total.",
    ],
    mistakes=_epoch.mistakes(
        loss={
            "The loss is a sum over the batch; take the mean, as cross_entropy does.": (
                partial(_cross_entropy, reduction="sum")
            ),
            "The loss grows by these steps: is there a minus before it?": lambda z, y: -_cross_entropy(z, y),
            "It is divided by the size of the batch; cross_entropy is a mean already.": (
                lambda z, y: _cross_entropy(z, y) / len(y)
            ),
            "The model gives logits and cross_entropy expects logits: no softmax in between.": (
                lambda z, y: _cross_entropy(z.softmax(1), y)
            ),
        },
        moves={
            "Gradients add up from batch to batch: optimizer.zero_grad() is missing in the loop.": "backward step turn",
            "What was in .grad before counts in the first step: optimizer.zero_grad() comes before backward(), not after the step.": "backward step zero_grad turn",
            "It is twice the gradient: is backward() called twice?": "zero_grad backward backward step turn",
            "First optimizer.step(), then schedule.step().": "turn zero_grad backward step",
            "schedule.step() is called twice for each batch.": "zero_grad backward step turn turn",
        },
        schedule={"schedule.step() is never called: after each batch, in the loop.": None},
        add={
            "cross_entropy is a mean over its batch: multiply by len(batch) before adding up.": (
                lambda total, loss, n, size: total + loss
            ),
            "The last batch is smaller: multiply by len(batch), not by batch_size.": (
                lambda total, loss, n, size: total + loss * size
            ),
            "It is the loss of the last batch alone: add up with +=, over all of them.": (
                lambda total, loss, n, size: loss * n
            ),
        },
        mean={
            "It is the sum over the examples, not yet divided by their number.": lambda total, N, count: total,
            "It is divided by the number of batches; the sum over examples is divided by their number.": (
                lambda total, N, count: total / count
            ),
        },
        together={
            "It is stepped after each batch, in the loop; this steps the schedule once, at the end.": {
                "moves": "zero_grad backward step",
                "at_the_end": "turn",
            },
            "One optimizer.step() for each batch, inside the loop; this takes one at the end.": {
                "moves": "backward",
                "at_the_end": "step turn zero_grad",
            },
            "The batches count alike in this mean; the last is smaller, and its examples would count more.": {
                "add": lambda total, loss, n, size: total + loss,
                "mean": lambda total, N, count: total / count,
            },
            "It is the loss of the last batch alone: add up with +=, over all batches.": {
                "add": lambda total, loss, n, size: loss,
                "mean": lambda total, N, count: total,
            },
        },
    ),
    changes=("weights", "gradients", "mode", "optimizer"),
    seconds=60,  # the first use of torch.optim imports for seconds
)
def train_epoch(learner, rng):
    import torch
    from torch import nn

    B = 4

    def run(x, y, epochs=1, scheduled=True):
        """What the learner's loop does with x and y, and returns."""
        tape = Tape()
        model = nn.Sequential(tape.layer(), nn.Flatten(), nn.Linear(x[0].numel(), 3), nn.Linear(3, 4))
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.tensor(rng.normal(size=tuple(p.shape)) / 2))
        model[2].bias.requires_grad_(False)  # frozen, as in fine-tuning
        for p in model.parameters():
            if p.requires_grad:
                p.grad = torch.ones_like(p)  # of a backward() before, which the epoch has to forget
        optimizer = tape.optimizer(torch.optim.SGD(model.parameters(), lr=1.0))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 - 0.1 * t)
        schedules = [tape.schedule(schedule)] if scheduled else []
        for _ in range(epochs):
            model.eval()  # as evaluate() leaves it
            before = [p.detach().clone() for p in model.parameters()]
            result = learner(model, x, y, optimizer, B, *schedules)
        tape.moved = any(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
        return tape, result

    def gradients(step, x, y):
        """Of the mean loss over x and y at the step's weights, in a row, without those of the frozen ones; and the loss."""
        W1, b1, W2, b2 = (w.clone().requires_grad_() for w in step.weights)
        loss = nn.functional.cross_entropy((x.flatten(1) @ W1.T + b1) @ W2.T + b2, y)
        return torch.cat([g.ravel() for g in torch.autograd.grad(loss, (W1, W2, b2))]), loss.item()

    def numbered(N):
        """Examples of two axes whose first number tells which they are, and their labels."""
        x = torch.tensor(rng.normal(size=(N, 2, 3)), dtype=torch.float32)
        x[:, 0, 0] = torch.arange(N)
        return x, torch.tensor(rng.permutation(np.arange(N) % 4))

    def numbers_of(tape):
        """The numbers of the examples in each batch."""
        return [batch[:, 0, 0].round().long().tolist() for batch in tape.batches()]

    def in_a_row(batches):
        return [i for batch in batches for i in batch]

    def stored(order):
        """Whether six in ten are followed by a neighbour: of ten that are shuffled it is one order in a hundred."""
        return sum(abs(i - j) == 1 for i, j in zip(order[:-1], order[1:], strict=True)) >= 0.6 * len(order)

    def demand_batches(N):
        """Demand the right batches, modes and steps; return x, y, batches and tape."""
        x, y = numbered(N)
        tape, _ = run(x, y)
        batches = numbers_of(tape)
        order, sizes = in_a_row(batches), [len(batch) for batch in batches]
        shown = f"your batches, by the numbers of the examples: {batches}"
        likely = "model(...) is never called: is the loop over the batches missing?"
        expect.true(batches, f"the model sees {N} examples", likely=likely)
        likely = _fault_in_batches(batches, N, B)
        if tape.passes[-1].steps == len(tape.steps) > 0 and len(batches) > 1:
            likely = "After the last step the model runs again. total adds up the losses that the steps used; nothing else is due."
        expect.true(sorted(order) == list(range(N)), f"each of {N} examples is used exactly once", shown, likely=likely)
        if N > 8 and len(batches) > 1:
            likely = "They came in the order in which they are stored: shuffle the examples, torch.randperm(len(x))."
            if order != sorted(order):
                likely = (
                    "The batches are shuffled, the examples are not: neighbours stay together. Shuffle the examples."
                )
            again = stored(order) and stored(in_a_row(numbers_of(run(*numbered(10 * B))[0])))
            expect.true(not again, "the order is random", shown, likely=likely)
        wanted = [len(batch) for batch in torch.arange(N).split(B)]
        likely = _fault_in_batches(batches, N, B)
        expect.true(sizes == wanted, f"batches of {wanted} for {N} examples", shown, likely=likely)
        likely = "Something switches it to evaluation, or model.train() is gone. Dropout, among others, would then do nothing."
        expect.true(all(each.training for each in tape.passes), "the model is in training mode", likely=likely)
        likely = "One optimizer.step() for each batch, inside the loop."
        if not tape.steps:
            likely = "optimizer.step() is never called: the weights stay as they are."
            if tape.moved:
                likely = "The weights change, but not by the optimizer that was passed in: use that one."
        why = f"one step for each batch of {N} examples"
        expect.equal(len(tape.steps), len(batches), why=why, source="counting", likely=likely)
        return x, y, batches, tape

    def demand_steps(N):
        """All examples alike, so that the order does not matter: each step, its rate, and the mean loss."""
        x, y = numbered(N)
        tape, result = run(x[-1:].expand_as(x).clone(), y[-1:].expand_as(y).clone())
        losses = []
        for number, step in enumerate(tape.steps, 1):
            expected, loss = gradients(step, x[-1:], y[-1:])
            found = [step.gradients[i] for i in (0, 2, 3)]
            why = f"{N} examples, all alike: the gradient at step {number}"
            likely = "There are none: loss.backward() comes before optimizer.step(), zero_grad() before both."
            expect.true(all(g is not None for g in found), f"{why} is there", likely=likely)
            source = "torch.autograd.grad on the mean loss of that batch"
            expect.close(torch.cat([g.ravel() for g in found]), expected, why=why, source=source, rtol=1e-3, atol=1e-4)
            losses.append(loss)
        likely = "loss.item() is the number inside a tensor." if torch.is_tensor(result) else "One number is wanted."
        expect.kind(result, float, "the mean loss is a Python float", likely=likely)
        sizes = [len(batch) for batch in torch.arange(N).split(B)]
        why, source = f"{N} examples: the mean loss over all of them", "the batch losses, weighted by size"
        expect.close(result, np.average(losses, weights=sizes), why=why, source=source, rtol=1e-4, atol=1e-6)
        why = f"{N} examples: schedule.step() comes after so many steps of the optimizer"
        likely = "One schedule.step() after each batch, the last and smaller one included."
        expect.equal(tape.turns, list(range(1, len(sizes) + 1)), why=why, source="after each batch", likely=likely)

    seen = [demand_batches(N) for N in (10, *counts(B))]
    for N in (10, *counts(B)):
        demand_steps(N)
    for x, y, batches, tape in seen:
        for batch, step in zip(batches, tape.steps, strict=True):
            found = torch.cat([step.gradients[i].ravel() for i in (0, 2, 3)])
            likely = "Are these the gradients for other labels? x and y must be shuffled alike, by one order."
            source, why = "torch.autograd.grad on that batch", "the gradient at each step is that of its own batch"
            expected = gradients(step, x[batch], y[batch])[0]
            expect.close(found, expected, why=why, source=source, rtol=1e-3, atol=1e-4, likely=likely)
    try:
        tape, _ = run(*numbered(10), epochs=2, scheduled=False)
    except AttributeError as error:
        likely = "Where none is given, schedule is None, and None has no step(): ask first."
        expect.true("NoneType" not in str(error), "it works without a schedule", str(error), likely=likely)
        raise
    order = in_a_row(numbers_of(tape))
    lines = f"first epoch:  {order[:10]}", f"second epoch: {order[10:]}"
    likely = "Is the generator seeded inside the function, or an order kept from an earlier call? Then every epoch is the same."
    expect.true(order[:10] != order[10:], "each epoch has an order of its own", *lines, likely=likely)


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


def _corner(x):
    return x[0, 0]


def _cut(ink):
    return np.where(ink < 0.25, 0, ink)


def _turned(ink, paper):
    return -ink if -ink.min() > ink.max() else ink


def _as_it_is(ink, paper):
    return ink


def _wrapped(pixels, paper):
    up, down = pixels - np.uint8(paper(pixels)), np.uint8(paper(pixels)) - pixels
    return (up if up.max() > down.max() else down) / 255


@parts
def _prepared(
    pixels,
    *,
    paper=lambda x: np.median(_edge(x)),
    off=lambda pixels, paper: pixels / 255 - paper(pixels / 255),
    turned=_turned,
    empty=lambda ink, difference: ink.max() < 0.1,
    stretched=lambda ink: ink / ink.max() if ink.max() > 0 else ink,
    cut=_cut,
    placed=_placed,
):
    difference = off(pixels, paper)
    ink = turned(difference, paper(pixels / 255))
    if empty(ink, difference):
        raise ValueError("the page is empty")
    return placed(cut(stretched(ink)))


_FLIPPED = "It turns light and dark round (255 - pixels) on every picture, and never takes the paper's grey away."
_ALWAYS_TURNED = (
    "Are light and dark always turned round? This picture has light ink on dark paper already, and plenty of it."
)
_NO_INK = {
    _ALWAYS_TURNED: "The ink is lighter than the paper here. Are light and dark always turned round, or is only dark ink looked for where emptiness is asked?"
}
_SHADOW = "It takes paper below 0.5 for dark. White paper in a shadow is darker: see which way ink lies furthest."
_BOTH = "It takes |difference|: what is lighter than the paper and what is darker both count as ink. Only one is."
_MAJORITY = "It takes for ink what more pixels are, lighter or darker. Ink is what lies furthest from the paper."
_MEAN_OF_BORDER = "It takes the mean of the border for the paper; ink that touches it pulls it away. Take the median."
_MIN_TO_MAX = "It stretches from darkest to lightest, so that a reflection decides what 0 is. Paper has to be 0."
_UNEVEN = "Uneven paper counts as ink: what is below 0.25 of the strongest ink has to become 0"
_FAINT = "The ink is not stretched: faint ink stays faint. Divide by its maximum"
_WRAPS = "uint8 arithmetic wraps round: 60 - 200 is 116 there. Divide by 255 first, which makes floats."


@exercise(
    hints=[
        "Begin with x = pixels / 255 and paper = np.median(border(x)). Then x - paper is 0 on paper; which sign has ink?",
        "ink = x - paper. If -ink.min() > ink.max(), the ink is darker than the paper: ink = -ink. Empty: ink.max() < 0.1.",
        "After the `raise ValueError(...)`: ink = ink / ink.max(), then return place_like_mnist(np.where(ink < 0.25, 0, ink)).",
    ],
    mistakes=_prepared.mistakes(
        returns={
            "It comes out as dark ink on white: MNIST is light ink on black, ink near 1 and paper 0.": lambda p: 1 - p,
            "The values go up to 255; the network was trained on 0 to 1.": lambda p: 255 * p,
            "Everything is 0 or 1: the greys at the edge of the ink are lost.": lambda p: 1.0 * (p > 0),
        },
        turned={
            "Dark ink on light paper is not turned round: ink has to count positive there too.": _as_it_is,
            _ALWAYS_TURNED: lambda ink, paper: -ink,
            _SHADOW: lambda ink, paper: -ink if paper > 0.5 else ink,
            _BOTH: lambda ink, paper: np.abs(ink),
            _MAJORITY: lambda ink, paper: -ink if (ink < 0).sum() > (ink > 0).sum() else ink,
        },
        paper={
            "It takes one corner pixel for the paper, and here that has a stain. Take the border's median.": _corner,
            "It takes the mean of the whole page for the paper, with the ink in it. Take the border's median.": np.mean,
            _MEAN_OF_BORDER: lambda x: _edge(x).mean(),
            "It takes the median of the whole page for the paper, and here more than half is ink. Take the border's.": np.median,
            "It takes one side of the border for the paper, and here ink touches that side. Take all four.": (
                lambda x: np.median(x[0])
            ),
        },
        stretched={f"{_FAINT}.": _itself, _MIN_TO_MAX: lambda ink: (ink - ink.min()) / np.ptp(ink)},
        cut={
            f"{_UNEVEN}.": lambda ink: ink.clip(min=0),
            f"{_UNEVEN}; and negative numbers stay.": _itself,
            "The limit of what counts as ink is 0.25 of the strongest; 0.1 is that of an empty page.": lambda ink: (
                np.where(ink < 0.1, 0, ink)
            ),
        },
        empty={
            "The limit of an empty page is 0.1 off the paper; this one is higher.": lambda ink, d: ink.max() < 0.12,
            "An empty page is asked by the distance from the paper; from the darkest pixel to the lightest is up to twice as far.": (
                lambda ink, d: np.ptp(d) < 0.1
            ),
            "Only ink that is darker than the paper keeps a page from being empty here; light ink does so too.": (
                lambda ink, d: -d.min() < 0.1
            ),
            "Only ink that is lighter than the paper keeps a page from being empty here; dark ink does so too.": (
                lambda ink, d: d.max() < 0.1
            ),
        },
        together={
            "It cuts at 0.25 after placing, which has mixed the greys: cut before.": {
                "cut": lambda ink: ink.clip(min=0),
                "placed": lambda ink: np.where(_placed(ink) < 0.25, 0, _placed(ink)),
            },
            f"{_FAINT}; then cut.": {"stretched": _itself, "cut": lambda ink: ink.clip(min=0)},
            "It cuts at 0.25 before it stretches, so that faint ink is cut off as well: stretch first.": {
                "stretched": lambda ink: _cut(ink) / max(_cut(ink).max(), 1e-9),
                "cut": _itself,
            },
            "The paper is still there: its grey has to become 0. Subtract it before you stretch.": {
                "off": lambda pixels, paper: 1 - pixels / 255 if paper(pixels) > 127 else pixels / 255,
                "turned": _as_it_is,
            },
            _FLIPPED: {"off": lambda pixels, paper: 1 - pixels / 255, "turned": _as_it_is, "stretched": _itself},
            _WRAPS: {"off": lambda pixels, paper: (pixels - np.uint8(paper(pixels))) / 255, "turned": _as_it_is},
            f"{_WRAPS}  ": {"off": _wrapped, "turned": _as_it_is},
            f"{_WRAPS} ": {"off": lambda pixels, paper: (np.uint8(paper(pixels)) - pixels) / 255, "turned": _as_it_is},
        },
    ),
)
def prepare_image(learner, rng):
    stroke = np.zeros((20, 13))  # asymmetric, so that its centre of mass is not the middle of its box
    stroke[:3] = stroke[3:, 8:11] = stroke[17:, 6:11] = 1
    while True:
        seven = stroke * rng.choice([0.35, 0.6, 0.8, 1], size=stroke.shape)  # ink has greys
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
        try:
            given = learner(pixels)
        except ValueError as error:
            if not by_hand(error) and not direction:
                raise
            shown = (
                f"greys from {pixels.min()} to {pixels.max()}, the border's median is {np.median(_edge(pixels)):.0f}"
            )
            likely = (
                _NO_INK.get(direction, direction)
                or "Empty means: even the strongest ink is less than 0.1 (of 0...1) off the paper."
            )
            expect.true(False, f"{why}: yours raises ValueError", shown, likely=likely)
            return
        if getattr(given, "shape", ()) == pixels.shape != (28, 28):
            expect.shape(given, (28, 28), why, likely="End with `return place_like_mnist(...)`: it crops and centres.")

        def likely(yours, expected):
            return "" if np.nan_to_num(yours).any() else direction

        source = "the digit that was drawn"
        expect.close(given, _in_the_middle(digit), why=why, source=source, rtol=0, atol=atol, likely=likely)
        likely = "place_like_mnist gives float32, as a network takes it: .astype and NumPy's own numbers change that."
        expect.dtype(given, np.float32, f"{why}: float32", likely=likely)

    below = "Dark ink lies below the paper, where x - paper is negative: turn the sign round, so that ink is positive."
    demand(drawn(seven, 0, 255), seven, "white ink on black, in a corner: it only moves to the middle", _ALWAYS_TURNED)
    demand(drawn(seven, 255, 0), seven, "black ink on white paper", below)
    demand(drawn(seven, 200, 60), seven, "dark-grey ink on light-grey paper", below)
    demand(drawn(seven, 40, 180), seven, "light-grey ink on dark-grey paper", _ALWAYS_TURNED)
    demand(drawn(seven, 105, 15), seven, "black ink on white paper in a shadow, which is darker than 0.5", _SHADOW)
    demand(drawn(seven, 130, 250), seven, "white ink on paper that is lighter than 0.5")
    demand(drawn(seven, 170, 135), seven, "faint ink", atol=0.05)

    stained = drawn(seven, 190, 60)
    stained[0, 0] = 165
    demand(stained, seven, "a stain in one corner, fainter than a quarter of the ink")
    reflection = drawn(seven, 170, 60)
    reflection[23:32, 2:29] = 205  # 35 up over a wide field, where the ink goes 110 down
    demand(reflection, seven, "a reflection, lighter than the paper, is no ink")
    shadow = drawn(seven, 90, 200)
    shadow[23:32, 2:29] = 55
    demand(shadow, seven, "a shadow, darker than the paper, is no ink where the ink is light")
    uneven = drawn(seven, 180, 60)
    uneven = np.where(uneven == 180, uneven + rng.integers(-12, 13, size=uneven.shape), uneven).astype(np.uint8)
    demand(uneven, seven, "uneven paper is no ink", atol=0.05)
    touching = drawn(seven, 210, 30, (24, 15), 0, 1)
    for turns, side in enumerate(("above", "to the left", "below", "to the right")):
        page = np.ascontiguousarray(np.rot90(touching, turns))
        demand(page, np.rot90(seven, turns), f"ink that touches the border {side}", below)
    demand(np.asfortranarray(drawn(seven, 255, 0, (28, 28), 4, 7)), seven, "28 × 28 already", below)

    block = np.ones((20, 13))
    block[:9, 8:] = 0
    demand(drawn(block, 230, 40, (22, 16), 1, 2), block, "ink on more than half of the picture: the border is paper")
    demand(drawn(seven, 220, 20, (120, 160), 40, 50), seven, "ink on one pixel in a hundred", below)
    lying = np.rot90(seven)  # (13, 20)
    large = drawn(np.kron(lying, np.ones((4, 4))), 230, 20, (90, 140), 30, 7)
    demand(large, lying, "four times as large, and wider than tall", atol=0.1)
    demand(drawn(stroke, 140, 113), stroke, "the faintest dark ink, 27 of 255 off the paper")
    demand(drawn(stroke, 140, 167), stroke, "the faintest light ink, 27 of 255 off the paper")

    likely = "Nothing there is 0.1 (of 0...1) off the paper: raise ValueError before you divide by the strongest ink."
    for page, why in (
        (np.full((30, 41), 140, np.uint8), "an empty grey page"),
        (np.zeros((30, 41), np.uint8), "an empty black page"),
        (rng.integers(130, 146, size=(30, 41)).astype(np.uint8), "an empty page of uneven grey, 130 to 145"),
        (rng.integers(115, 146, size=(30, 41)).astype(np.uint8), "an empty page of uneven grey, 115 to 145"),
        (drawn(stroke, 140, 116), "a shade of 24 of 255 off the paper"),
        (drawn(stroke, 140, 164), "a gleam of 24 of 255 off the paper"),
    ):
        error = expect.raises(ValueError, lambda page=page: learner(page), f"{why} is a ValueError", likely=likely)
        expect.true(by_hand(error), f"{why}: you raise it", f"it came by itself: {error}", likely=likely)
        expect.true(bool(str(error)), f"{why}: the ValueError says what is wrong", likely='raise ValueError("...")')
