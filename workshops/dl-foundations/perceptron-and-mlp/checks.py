"""The checks of perceptron-and-mlp: one for each exercise, with its hints. `lab.check` runs them."""

import math

import numpy as np

from atlas.checking import array, exercise, expect

# ------------------------------------------------------------------------------------------------ perceptron_step


def updates_always(w, b, x, y, eta):
    """It moves the weights although the neuron is right on this example. Right means y·z > 0, and then nothing changes."""
    return w + eta * y * x, b + eta * y


def updates_when_right(w, b, x, y, eta):
    """It moves the weights when the neuron is right, and leaves them when it is wrong: the condition is turned round."""
    return updates_always(w, b, x, y, eta) if y * (w @ x + b) > 0 else (w, b)


def moves_away(w, b, x, y, eta):
    """It moves the wrong way: the rule adds η·y·x, so that y·z grows."""
    return (w - eta * y * x, b - eta * y) if y * (w @ x + b) <= 0 else (w, b)


def forgets_y(w, b, x, y, eta):
    """The step lacks the label: with y = -1 the weights have to move away from x. Add η·y·x, and η·y to the bias."""
    return (w + eta * x, b + eta) if y * (w @ x + b) <= 0 else (w, b)


def forgets_bias(w, b, x, y, eta):
    """The bias never changes. It is a weight too, on an input that is always 1: it moves by η·y."""
    return (w + eta * y * x, b) if y * (w @ x + b) <= 0 else (w, b)


def bias_without_eta(w, b, x, y, eta):
    """The bias moves by y; the learning rate is missing there: it moves by η·y."""
    return (w + eta * y * x, b + y) if y * (w @ x + b) <= 0 else (w, b)


def forgets_eta(w, b, x, y, eta):
    """The learning rate η is missing: the step is η·y·x, not y·x."""
    return (w + y * x, b + y) if y * (w @ x + b) <= 0 else (w, b)


def ignores_undecided(w, b, x, y, eta):
    """With z = 0 the neuron is undecided, and that counts as a mistake: y·z ≤ 0, not < 0. From zero weights it would never start."""
    return (w + eta * y * x, b + eta * y) if y * (w @ x + b) < 0 else (w, b)


def decides_without_bias(w, b, x, y, eta):
    """Whether the neuron is wrong depends on z = w·x + b; the bias is left out of the decision."""
    return (w + eta * y * x, b + eta * y) if y * (w @ x) <= 0 else (w, b)


def wants_a_margin(w, b, x, y, eta):
    """It also moves when the neuron is right by less than 1. That is the rule of a support vector machine; here y·z > 0 suffices."""
    return (w + eta * y * x, b + eta * y) if y * (w @ x + b) < 1 else (w, b)


def step_doubled(w, b, x, y, eta):
    """The step is twice too long. With labels -1 and +1, y - ŷ is ±2 on a mistake; the rule adds η·y·x."""
    return (w + 2 * eta * y * x, b + 2 * eta * y) if y * (w @ x + b) <= 0 else (w, b)


def decides_by_z(w, b, x, y, eta):
    """It calls the neuron wrong whenever z ≤ 0. With y = -1 a negative z is right: look at the sign of y·z."""
    return (w + eta * y * x, b + eta * y) if w @ x + b <= 0 else (w, b)


def bias_by_x(w, b, x, y, eta):
    """The bias has become an array: it moves by the number η·y; x belongs to the weights' step only."""
    return (w + eta * y * x, b + eta * y * x) if y * (w @ x + b) <= 0 else (w, b)


@exercise(
    hints=[
        "The neuron is wrong or undecided exactly when y·z ≤ 0, with z = w·x + b. Try it on y = -1 and z = -1.5.",
        "Two cases, two returns: where y·z ≤ 0 return new values, else the ones you were given. `w @ x` is the dot product.",
        "On a mistake: return w + eta * y * x and b + eta * y. Write w + ..., not w += ..., which would change the caller's array.",
    ],
    mistakes=[
        updates_always,
        updates_when_right,
        moves_away,
        forgets_y,
        forgets_bias,
        bias_without_eta,
        forgets_eta,
        ignores_undecided,
        decides_without_bias,
        wants_a_margin,
        step_doubled,
        decides_by_z,
        bias_by_x,
    ],
)
def perceptron_step(learner, rng):
    def demand(w, b, x, y, eta, moved, why):
        new_w, new_b = expect.parts(learner(w, b, x, y, eta), ("w", "b"), "the step returns the weights and the bias")
        by_hand = [wi + moved * eta * y * xi for wi, xi in zip(w, x, strict=True)]
        expect.close(new_w, by_hand, why=f"{why}: w", source="the rule, entry by entry")
        expect.close(new_b, b + moved * eta * y, why=f"{why}: b", source="the rule")

    demand(np.array([2.0, -1]), -0.5, np.array([1.0, 1]), -1, 0.1, 1, "the example above: wrong, so it moves")
    x = rng.normal(size=5) + 0.1
    demand(-x / (x @ x), 0.2, x, 1, 0.3, 1, "wrong with y = +1: it moves towards x")
    demand(x / (x @ x), 0.4, x, -1, 0.3, 1, "wrong with y = -1: it moves away from x")
    demand(2 * x / (x @ x), 0.5, x, 1, 0.3, 0, "right with y = +1: nothing changes")
    demand(-2 * x / (x @ x), 0.5, x, -1, 0.3, 0, "right with y = -1: nothing changes")
    demand(0.3 * x / (x @ x), 0.2, x, 1, 0.3, 0, "right, if only just: nothing changes")
    demand(-x / (x @ x), 1.5, x, 1, 0.3, 0, "right because of the bias: nothing changes")
    demand(np.zeros(5), 0.0, x, -1, 0.7, 1, "undecided (z = 0) counts as wrong")


# ------------------------------------------------------------------------------------------------ mistake_bound


def _margins(X, y, w):
    return y * (X @ w)


def _largest(X):
    return np.linalg.norm(X, axis=1).max()


def w_not_normalised(X, y, w):
    """γ is a distance: divide y·(w·x) by ‖w‖. Doubling w must not change the bound."""
    return (_largest(X) / _margins(X, y, w).min()) ** 2


def divided_by_w_squared(X, y, w):
    """γ divides by ‖w‖, not by ‖w‖²: check with the example, where w = (2, 0)."""
    return (_largest(X) / (_margins(X, y, w).min() / (w @ w))) ** 2


def not_squared(X, y, w):
    """R/γ is not squared yet."""
    return _largest(X) / (_margins(X, y, w).min() / np.linalg.norm(w))


def radius_squared_only(X, y, w):
    """Only R is squared: the bound is (R/γ)², so γ is squared too."""
    return _largest(X) ** 2 / (_margins(X, y, w).min() / np.linalg.norm(w))


def mean_radius(X, y, w):
    """R is the length of the longest example, not of the average one: the promise must hold for all."""
    return (np.linalg.norm(X, axis=1).mean() / (_margins(X, y, w).min() / np.linalg.norm(w))) ** 2


def norm_of_matrix(X, y, w):
    """R is the norm of the whole matrix; it should be the largest norm of a row: np.linalg.norm(X, axis=1)."""
    return (np.linalg.norm(X) / (_margins(X, y, w).min() / np.linalg.norm(w))) ** 2


def norm_of_columns(X, y, w):
    """R is taken over columns (axis=0). An example is a row: the norm runs over axis=1."""
    return (np.linalg.norm(X, axis=0).max() / (_margins(X, y, w).min() / np.linalg.norm(w))) ** 2


def best_margin(X, y, w):
    """γ is the margin of the worst example (min), not of the best one (max)."""
    return (_largest(X) / (_margins(X, y, w).max() / np.linalg.norm(w))) ** 2


def mean_margin(X, y, w):
    """γ is the margin of the worst example (min), not the average."""
    return (_largest(X) / (_margins(X, y, w).mean() / np.linalg.norm(w))) ** 2


def margin_without_side(X, y, w):
    """It takes |w·x| for the margin. An example on the wrong side has a negative margin: y·(w·x) keeps the sign."""
    return (_largest(X) / (np.abs(X @ w).min() / np.linalg.norm(w))) ** 2


def margin_without_labels(X, y, w):
    """The labels are not used: the margin is y·(w·x), positive on the right side."""
    gamma = (X @ w).min() / np.linalg.norm(w)
    return (_largest(X) / gamma) ** 2


def promises_without_separation(X, y, w):
    """γ ≤ 0 means that w does not separate the classes: then there is no promise, and the bound is np.inf."""
    return (_largest(X) / (_margins(X, y, w).min() / np.linalg.norm(w))) ** 2


def upside_down(X, y, w):
    """The fraction is upside down: R/γ, at least 1, since no margin exceeds the length of its example."""
    return ((_margins(X, y, w).min() / np.linalg.norm(w)) / _largest(X)) ** 2


@exercise(
    hints=[
        "R is the largest length among the rows of X, γ the smallest y·(w·x)/‖w‖. Redo the example by hand first.",
        "np.linalg.norm(X, axis=1) gives the length of each row; X @ w all dot products at once, shape (N,).",
        "gamma = (y * (X @ w)).min() / np.linalg.norm(w). Return (R / gamma) ** 2 if gamma > 0, else np.inf.",
    ],
    mistakes=[
        w_not_normalised,
        divided_by_w_squared,
        not_squared,
        radius_squared_only,
        mean_radius,
        norm_of_matrix,
        norm_of_columns,
        best_margin,
        mean_margin,
        margin_without_side,
        margin_without_labels,
        promises_without_separation,
        upside_down,
    ],
)
def mistake_bound(learner, rng):
    example = np.array([[3.0, 4], [-1, 0]]), np.array([1, -1]), np.array([2.0, 0])
    expect.close(learner(*example), 25.0, why="the example above", source="by hand: R = 5, γ = 1")

    w = rng.normal(size=3) * 4
    y = np.array([1, -1, -1, 1, -1, 1, 1])
    X = rng.normal(size=(7, 3))
    X -= np.outer(X @ w - y * rng.uniform(1.5, 9, 7), w) / (w @ w)  # margins between 1.5 and 9, over ‖w‖
    longest = max(math.sqrt(sum(entry * entry for entry in row)) for row in X)
    worst = min(label * math.fsum(row * w) for row, label in zip(X, y, strict=True)) / math.sqrt(math.fsum(w * w))
    bound = longest**2 / worst**2
    expect.close(learner(X, y, w), bound, why="(R/γ)² on 7 random examples", source="computed example by example")
    expect.close(learner(X, y, 3 * w), bound, why="a longer w, same direction: same bound", source="γ divides by ‖w‖")

    wrong_side = y.copy()
    wrong_side[2] = 1
    given = learner(X, wrong_side, w)
    expect.equal(given, np.inf, why="w does not separate these: no promise", source="the theorem asks for γ > 0")


# ------------------------------------------------------------------------------------------------ xor_network

_INPUTS = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
_TABLES = {
    (0, 0, 0, 0): "Your network always says 0: no output weight lifts z above 0. Follow one input through by hand.",
    (1, 1, 1, 1): "Your network always says 1. Should the output's bias be negative, so that it starts from 'no'?",
    (
        0,
        1,
        1,
        1,
    ): "Your network computes OR: right but for (1, 1). The neuron that notices 'both' has to speak against.",
    (0, 0, 0, 1): "Your network computes AND: it says 1 only where both inputs are on.",
    (1, 0, 0, 1): "Your network computes the opposite of XOR: turn the signs of the output layer, and mind its bias.",
    (1, 1, 1, 0): "Your network computes NAND: right but for (0, 0), where neither input is on.",
    (1, 0, 0, 0): "Your network computes NOR: right only where XOR is 0.",
    (0, 0, 1, 1): "Your network repeats the first input: (0, 1) and (1, 1) come out wrong.",
    (0, 1, 0, 1): "Your network repeats the second input: (1, 0) and (1, 1) come out wrong.",
    (0, 0, 1, 0): "Your network says 'first and not second'; the other half, 'second and not first', is missing.",
    (0, 1, 0, 0): "Your network says 'second and not first'; the other half, 'first and not second', is missing.",
}


@exercise(
    hints=[
        "XOR = (at least one input on) and not (both on). Each bracket is one line: x1 + x2 > something.",
        "First row of W1 and b1: z = x1 + x2 - 0.5 is positive from one input on. Second: which bias fires only for two?",
        "W1 is all ones with b1 = (-0.5, -1.5); the output wants a1 without a2: weights (1, -1). Its bias is yours to find.",
    ],
)
def xor_network(learner, rng):
    names = ("W1", "b1", "W2", "b2")
    layers = expect.parts(learner(), names, "the network has four arrays")
    shapes = {"W1": (2, 2), "b1": (2,), "W2": (1, 2), "b2": (1,)}
    for name, given in zip(names, layers, strict=True):
        expect.shape(given, shapes[name], f"{name} has shape {shapes[name]}")
        expect.finite(given, f"{name} is finite")
    W1, b1, W2, b2 = map(array, layers)
    hidden = (np.einsum("hd,nd->nh", W1, _INPUTS) + b1 > 0).astype(int)
    z = np.einsum("kh,nh->n", W2, hidden) + b2
    said = tuple(int(v) for v in z > 0)
    rows = [
        f"x = ({x[0]:.0f}, {x[1]:.0f})   hidden a = ({a[0]}, {a[1]})   z = {v:+.2f}   says {s}, XOR is {t}"
        for x, a, v, s, t in zip(_INPUTS, hidden, z, said, (0, 1, 1, 0), strict=True)
    ]
    expect.true(
        said == (0, 1, 1, 0),
        "the network says 1 exactly where one input is on",
        *rows,
        likely=_TABLES.get(said, "Follow the wrong rows through: which hidden neuron should have spoken, and did not?"),
    )


# ------------------------------------------------------------------------------------------------ mlp_forward


def _forward(X, layers, phi=lambda z: np.maximum(0, z), last=lambda z: z, bias=True):
    A = X
    for W, b in layers[:-1]:
        A = phi(A @ W.T + bias * b)
    W, b = layers[-1]
    return last(A @ W.T + bias * b)


def relu_on_the_output(X, layers):
    """The last layer has no ReLU: logits may be negative. Yours are cut off at 0."""
    return _forward(X, layers, last=lambda z: np.maximum(0, z))


def no_relu(X, layers):
    """There is no ReLU between the layers. Without it, all layers together are one."""
    return _forward(X, layers, phi=lambda z: z)


def no_bias(X, layers):
    """The biases are left out: z = Wx + b."""
    return _forward(X, layers, bias=False)


def relu_before_the_layer(X, layers):
    """ReLU is applied to the inputs of a layer, the data included. It belongs behind each layer but the last."""
    A = X
    for W, b in layers:
        A = np.maximum(0, A) @ W.T + b
    return A


def only_the_last_layer_free_of_bias(X, layers):
    """The last layer's bias is missing."""
    return _forward(X, layers) - layers[-1][1]


def sigmoid_for_relu(X, layers):
    """This is a sigmoid network; here φ is ReLU, max(0, z)."""
    return _forward(X, layers, phi=lambda z: 1 / (1 + np.exp(-z)))


def tanh_for_relu(X, layers):
    """This is a tanh network; here φ is ReLU, max(0, z)."""
    return _forward(X, layers, phi=np.tanh)


def step_for_relu(X, layers):
    """This is the step function of section 4; here φ is ReLU, max(0, z), which keeps positive values as they are."""
    return _forward(X, layers, phi=lambda z: (z > 0).astype(float))


def absolute_for_relu(X, layers):
    """This takes |z|; ReLU turns negative values into 0."""
    return _forward(X, layers, phi=np.abs)


def softmax_at_the_end(X, layers):
    """It returns probabilities. Logits are wanted: no softmax here."""
    z = _forward(X, layers)
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def stops_before_the_last(X, layers):
    """It stops before the last layer."""
    A = X
    for W, b in layers[:-1]:
        A = np.maximum(0, A @ W.T + b)
    return A


@exercise(
    hints=[
        "Keep one variable A, at first X. Each layer replaces it. Which layer is treated differently?",
        "With rows as examples a layer is A @ W.T + b, shape (B, out). ReLU is np.maximum(0, ...), with two arguments.",
        "for W, b in layers[:-1]: A = np.maximum(0, A @ W.T + b). Then the last pair, layers[-1], without ReLU.",
    ],
    mistakes=[
        relu_on_the_output,
        no_relu,
        no_bias,
        relu_before_the_layer,
        only_the_last_layer_free_of_bias,
        sigmoid_for_relu,
        tanh_for_relu,
        step_for_relu,
        absolute_for_relu,
        softmax_at_the_end,
        stops_before_the_last,
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

    def network(*widths):
        return [(rng.normal(size=(n_out, n_in)), rng.normal(size=n_out)) for n_in, n_out in zip(widths, widths[1:])]  # noqa: B905

    def demand(X, layers, why):
        expect.close(learner(X, layers), neuron_by_neuron(X, layers), why=why, source="neuron by neuron", rtol=1e-4)

    example = [(np.array([[1.0, 0], [1, 1], [0, -1]]), np.array([0.0, 0, 1])), (np.array([[2.0, 5, -1]]), np.zeros(1))]
    demand(np.array([[1.0, -2]]), example, "the example above")
    demand(rng.normal(size=(5, 3)), network(3, 6, 2), "5 examples, one hidden layer of 6")
    demand(rng.normal(size=(4, 3)), network(3, 7, 5, 2), "4 examples, two hidden layers")
    demand(rng.normal(size=(4, 3)), network(3, 2), "no hidden layer at all: one linear layer")


# ------------------------------------------------------------------------------------------------ softmax


def _softmax(Z, axis=1, shift=None):
    shift = Z.max(axis=axis, keepdims=True) if shift is None else shift
    E = np.exp(Z - shift)
    return E / E.sum(axis=axis, keepdims=True)


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
        logarithm,
        not_divided,
        divides_without_exp,
    ],
)
def softmax(learner, rng):
    from scipy.special import softmax as reference

    def demand(Z, why):
        expect.close(learner(Z), reference(Z, axis=1), why=why, source="scipy.special.softmax")

    demand(np.array([[2.0, 1, 0]]), "the example above")
    demand(rng.normal(size=(5, 3)) * 2, "5 rows of 3 logits, each row by itself")
    demand(rng.normal(size=(4, 4)) * 2, "4 rows of 4 logits, each row by itself")
    demand(np.array([[1002.0, 1001, 1000], [0.5, 0.1, 0.2]]), "logits near 1000: only differences count")
    demand(np.array([[1000.0, -1000, 0], [-1002, -1001, -1000]]), "logits of ±1000, one row far above the other")


# ------------------------------------------------------------------------------------------------ cross_entropy


def _losses(Z, y):
    m = Z.max(1, keepdims=True)
    return (m + np.log(np.exp(Z - m).sum(1, keepdims=True)))[:, 0] - Z[np.arange(len(y)), y]


def summed(Z, y):
    """It adds up the losses of the batch; the mean is wanted."""
    return _losses(Z, y).sum()


def not_averaged(Z, y):
    """It returns one loss for each example; average them."""
    return _losses(Z, y)


def sign_lost(Z, y):
    """The minus is missing: a logarithm of a probability is negative, a loss is not."""
    return -_losses(Z, y).mean()


def log_of_softmax(Z, y):
    """It takes the logarithm of a probability that has been rounded to 0. Use log-sum-exp minus the right logit instead."""
    return -np.log(_softmax(Z)[np.arange(len(y)), y]).mean()


def epsilon_inside(Z, y):
    """A small number inside the logarithm hides the infinity but gives a wrong loss: log-sum-exp minus the right logit is exact."""
    return -np.log(_softmax(Z)[np.arange(len(y)), y] + 1e-12).mean()


def probabilities_clipped(Z, y):
    """Clipping the probabilities hides the infinity but gives a wrong loss: log-sum-exp minus the right logit is exact."""
    return -np.log(np.clip(_softmax(Z)[np.arange(len(y)), y], 1e-12, 1)).mean()


def no_max_in_log_sum_exp(Z, y):
    """exp overflows in the log-sum-exp: subtract m, each row's largest logit, inside, and add it back outside."""
    return (np.log(np.exp(Z).sum(1)) - Z[np.arange(len(y)), y]).mean()


def max_not_added_back(Z, y):
    """m is subtracted inside the log-sum-exp but not added back outside."""
    return (_losses(Z, y) - Z.max(1)).mean()


def batch_maximum(Z, y):
    """It subtracts the largest logit of the whole batch: a row far below it gives log 0. Each row has its own m."""
    return (Z.max() + np.log(np.exp(Z - Z.max()).sum(1)) - Z[np.arange(len(y)), y]).mean()


def all_pairs(Z, y):
    """Z[:, y] takes, for every row, the columns of all labels: (B, B). One entry for each row is Z[np.arange(B), y]."""
    m = Z.max(1, keepdims=True)
    return ((m + np.log(np.exp(Z - m).sum(1, keepdims=True))) - Z[:, y]).mean()


def mean_over_classes(Z, y):
    """It divides by B·K. Each example has one loss: divide by B."""
    return _losses(Z, y).mean() / Z.shape[1]


def largest_for_right(Z, y):
    """It uses the largest logit as if it were the right one; y says which class is right."""
    return _losses(Z, Z.argmax(1)).mean()


def base_two(Z, y):
    """These are bits (logarithm to base 2); the natural logarithm is wanted."""
    return _losses(Z, y).mean() / np.log(2)


def only_the_logit(Z, y):
    """This is minus the right logit; the log-sum-exp of the row is missing."""
    return -Z[np.arange(len(y)), y].mean()


def one_minus_p(Z, y):
    """This averages 1 - p. Cross-entropy takes -log p."""
    return (1 - _softmax(Z)[np.arange(len(y)), y]).mean()


@exercise(
    hints=[
        "The loss of one row is log-sum-exp of its logits minus the logit of its right class. No softmax is needed.",
        "m = Z.max(axis=1) is (B,). m + np.log(np.exp(Z - m[:, None]).sum(axis=1)) is log-sum-exp of each row, also (B,).",
        "Z[np.arange(len(y)), y] picks from row i the entry y[i], (B,). Subtract it from log-sum-exp and take .mean().",
    ],
    mistakes=[
        summed,
        not_averaged,
        sign_lost,
        log_of_softmax,
        epsilon_inside,
        probabilities_clipped,
        no_max_in_log_sum_exp,
        max_not_added_back,
        batch_maximum,
        all_pairs,
        mean_over_classes,
        largest_for_right,
        base_two,
        only_the_logit,
        one_minus_p,
    ],
)
def cross_entropy(learner, rng):
    from scipy.special import log_softmax

    def demand(Z, y, why):
        y = np.array(y)
        expected = -sum(log_softmax(row)[label] for row, label in zip(Z, y, strict=True)) / len(y)
        expect.close(learner(Z, y), expected, why=why, source="scipy.special.log_softmax")

    demand(np.array([[2.0, 1, 0]]), [1], "the example above")
    demand(rng.normal(size=(5, 3)) * 2, [2, 0, 1, 0, 2], "5 rows of 3 logits")
    demand(rng.normal(size=(3, 3)) * 2, [1, 2, 0], "3 rows of 3 logits")
    demand(np.array([[1000.0, 0]]), [1], "logits (1000, 0), class 1 right: the loss is 1000")
    demand(
        np.array([[1000.0, -1000, 0], [-1000, -1001, -1002]]), [2, 1], "logits of ±1000, one row far above the other"
    )


# ------------------------------------------------------------------------------------------------ MLP


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
        expect.kind(model, nn.Module, "MLP is an nn.Module")
        shapes = [tuple(p.shape) for p in model.parameters()]
        wanted = [
            shape for n_in, n_out in zip(widths[:-1], widths[1:], strict=True) for shape in ((n_out, n_in), (n_out,))
        ]
        if not shapes:
            likely = (
                "There are none: layers in a plain Python list are not registered. Use nn.ModuleList or nn.Sequential."
            )
        elif shapes == [s for s in wanted if len(s) == 2]:
            likely = "The biases are missing."
        elif len(shapes) < len(wanted):
            likely = "Too few layers: one for each pair of neighbours in widths, the last pair included."
        elif len(shapes) > len(wanted):
            likely = "Too many layers: one for each pair of neighbours in widths."
        else:
            likely = "nn.Linear takes (n_in, n_out) in this order, and keeps a weight of shape (n_out, n_in)."
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
        given = model(torch.tensor(x, dtype=torch.float32))
        expect.kind(given, torch.Tensor, why)
        expected = _forward(rows, layers)
        likely = ""
        for variant in (
            relu_on_the_output,
            no_relu,
            sigmoid_for_relu,
            tanh_for_relu,
            softmax_at_the_end,
            relu_before_the_layer,
            stops_before_the_last,
            _log_softmax_at_the_end,
        ):
            result = variant(rows, layers)
            if result.shape == tuple(given.shape) and np.allclose(result, given.detach().numpy(), 1e-3, 1e-4):
                likely = " ".join(variant.__doc__.split())
                break
        expect.close(given, expected, why=why, source="z = Wx + b in NumPy", rtol=1e-3, atol=1e-4, likely=likely)
        expect.true(
            given.requires_grad, "gradients reach the weights", likely="Is there a detach() or no_grad() in forward?"
        )

    x = rng.normal(size=(5, 4))
    demand([4, 6, 3], x, "rows of 4 numbers, one hidden layer")
    demand([4, 6, 5, 3], x, "rows of 4 numbers, two hidden layers")
    demand([4, 3], x, "no hidden layer: MLP([4, 3]) is one linear layer")
    demand([6, 5, 2], rng.normal(size=(4, 2, 3)), "images of 2 × 3 pixels are flattened, example by example")


def _log_softmax_at_the_end(X, layers):
    """It returns log-probabilities. Logits are wanted: the loss takes care of the softmax."""
    return np.log(softmax_at_the_end(X, layers))


# ------------------------------------------------------------------------------------------------ train_epoch


@exercise(
    hints=[
        "order = torch.randperm(len(x)) is the shuffled list of examples, order.split(batch_size) its batches. Index x and y alike.",
        "In each batch, in this order: loss, optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step() if there is one.",
        "nn.functional.cross_entropy(model(x[batch]), y[batch]) is a mean over the batch: add loss.item() * len(batch) to total.",
    ],
)
def train_epoch(learner, rng):
    import torch
    from torch import nn

    class Watched(nn.Module):
        """A linear model that remembers what it was shown."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.seen = []

        def forward(self, x):
            self.seen.append(x.detach().clone())
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

    result = learner(model, x, y, optimizer, B, schedule)
    batches = model.seen
    order = [int(i) for batch in batches for i in batch[:, 0].round()] if batches else []
    sizes = [len(batch) for batch in batches]

    expect.true(
        batches,
        "the model sees the examples",
        likely="model(...) is never called: is the loop over the batches missing?",
    )
    if len(order) < N:
        likely = (
            f"{N} is no multiple of {B}: the last, smaller batch is left out."
            if len(order) == 8
            else "Some are missing."
        )
    elif sizes == [N]:
        likely = "All examples went through in one batch: split the order into pieces of batch_size."
    else:
        likely = "Each batch takes the next piece of the shuffled order: no example twice, none left out."
    expect.true(
        sorted(order) == list(range(N)),
        "each of 10 examples is used exactly once",
        f"examples in order: {order}",
        likely=likely,
    )
    expect.true(sizes == [4, 4, 2], "batches of 4, 4 and 2 for 10 examples", f"your batches: {sizes}", likely=likely)
    expect.true(
        order != list(range(N)),
        "the order is random",
        f"examples in order: {order}",
        likely="They came in the order in which they are stored: shuffle with torch.randperm.",
    )
    likely = "optimizer.step() is never called: the weights stay as they are."
    if optimizer.record:
        likely = "One optimizer.step() for each batch, inside the loop."
    steps = len(optimizer.record)
    expect.true(steps == 3, "one step for each of the three batches", f"your steps: {steps}", likely=likely)

    total, gradient_sum, unshuffled = 0.0, None, 0
    for batch, (weights, gradients) in zip(batches, optimizer.record, strict=True):
        labels = y[batch[:, 0].round().long()]
        here = [w.clone().requires_grad_() for w in weights]
        logits = batch @ here[0].T + here[1]
        loss = nn.functional.cross_entropy(logits, labels)
        expected = torch.autograd.grad(loss, here, retain_graph=True)
        expect.true(
            gradients[0] is not None,
            "each step has gradients to work with",
            likely="There were none at the first step: loss.backward() comes before optimizer.step(), zero_grad() before both.",
        )
        gradient_sum = expected[0] if gradient_sum is None else gradient_sum + expected[0]
        variants = {
            "Gradients add up from batch to batch: optimizer.zero_grad() is missing in the loop.": gradient_sum,
            "The loss is a sum over the batch; take the mean, as cross_entropy does.": len(batch) * expected[0],
            "The model gives logits and cross_entropy expects logits: no softmax in between.": torch.autograd.grad(
                nn.functional.cross_entropy(logits.softmax(1), labels), here, retain_graph=True
            )[0],
            "The labels do not belong to these inputs: index y with the same batch as x.": torch.autograd.grad(
                nn.functional.cross_entropy(logits, y[unshuffled : unshuffled + len(batch)]), here, retain_graph=True
            )[0],
            "They are 0: zero_grad() stands between backward() and step().": torch.zeros_like(expected[0]),
        }
        unshuffled += len(batch)
        matches = [text for text, other in variants.items() if torch.allclose(gradients[0], other, 1e-3, 1e-5)]
        expect.close(
            gradients[0],
            expected[0],
            why="the gradient at each step is that of its own batch",
            source="torch.autograd.grad on that batch",
            rtol=1e-3,
            atol=1e-5,
            likely=matches[0] if matches else "",
        )
        total += loss.item() * len(batch)

    expect.kind(result, float, "the mean loss is a Python float", likely="loss.item() is the number inside a tensor.")
    by_batches = sum(
        float(nn.functional.cross_entropy(b @ w[0].T + w[1], y[b[:, 0].round().long()]))
        for b, (w, _) in zip(batches, optimizer.record, strict=True)
    )
    likely = ""
    if np.isclose(result, by_batches / N, 1e-4):
        likely = "cross_entropy is a mean over its batch: multiply by len(batch) before adding up."
    elif np.isclose(result, by_batches * B / N, 1e-4):
        likely = "The last batch is smaller: multiply by len(batch), not by batch_size."
    elif result == 0:
        likely = "Nothing is added to total."
    expect.close(
        result,
        total / N,
        why="the mean loss over all examples",
        source="the batch losses, weighted by size",
        rtol=1e-4,
        likely=likely,
    )

    likely = (
        "schedule.step() is never called." if schedule.steps == 0 else "It is stepped after each batch, in the loop."
    )
    expect.true(
        schedule.steps == 3,
        "the schedule is stepped after each batch",
        f"your schedule steps: {schedule.steps}",
        likely=likely,
    )
    expect.true(
        not schedule.early,
        "the schedule is stepped after the optimizer",
        likely="First optimizer.step(), then schedule.step().",
    )

    model.seen.clear()
    learner(model, x, y, optimizer, B)
    again = [int(i) for batch in model.seen for i in batch[:, 0].round()]
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
    import traceback

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
        last = traceback.extract_tb(error.__traceback__)[-1]
        return last.line.startswith("raise") and "site-packages" not in last.filename

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
