"""Answers to the exercises of perceptron-and-mlp: wrong ones named for the misconception, and right ones."""

import random

import numpy as np
import scipy.special
import torch
from torch import nn
from torch.nn import functional as F

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ perceptron_step


@wrong("perceptron_step", says="undecided")
def undecided_counts_as_right(w, b, x, y, eta):
    if y * (w @ x + b) < 0:
        return w + eta * y * x, b + eta * y
    return w, b


@wrong("perceptron_step", says="undecided")
def zero_is_class_plus(w, b, x, y, eta):
    y_hat = 1 if w @ x + b >= 0 else -1
    if y_hat != y:
        return w + eta * y * x, b + eta * y
    return w, b


@wrong("perceptron_step", says="y multiplies w·x but not b")
def brackets_forgotten(w, b, x, y, eta):
    if y * w @ x + b <= 0:
        return w + eta * y * x, b + eta * y
    return w, b


@wrong("perceptron_step", says="changes its input w")
def writes_into_the_callers_array(w, b, x, y, eta):
    if y * (w @ x + b) <= 0:
        w += eta * y * x
        b += eta * y
    return w, b


@wrong("perceptron_step", says="one branch end without it")
def returns_only_after_a_mistake(w, b, x, y, eta):
    if y * (w @ x + b) <= 0:
        return w + eta * y * x, b + eta * y


@wrong("perceptron_step", says="twice too long")
def difference_of_labels(w, b, x, y, eta):
    y_hat = 1 if w @ x + b > 0 else -1
    return w + eta * (y - y_hat) * x, b + eta * (y - y_hat)


@wrong("perceptron_step", says="Yours adds 0.1·x to w. Here η·y is 0.3")
def learning_rate_written_as_a_number(w, b, x, y, eta):
    if y * (w @ x + b) <= 0:
        return w + 0.1 * y * x, b + 0.1 * y
    return w, b


@wrong("perceptron_step", says="truth value of an array")
def product_entry_by_entry(w, b, x, y, eta):
    if y * (w * x + b) <= 0:
        return w + eta * y * x, b + eta * y
    return w, b


@wrong("perceptron_step", says="goes wrong for whole numbers")
def step_kept_in_an_array_like_x(w, b, x, y, eta):
    step = np.zeros_like(x)
    if y * (w @ x + b) <= 0:
        step[:] = eta * y * x
        b = b + eta * y
    return w + step, b


@wrong("perceptron_step", says="Nothing changes here")
def a_small_margin(w, b, x, y, eta):
    if y * (w @ x + b) < 0.01:
        return w + eta * y * x, b + eta * y
    return w, b


@right("perceptron_step")
def without_an_if(w, b, x, y, eta):
    wrong_side = y * (np.dot(w, x) + b) <= 0
    return w + wrong_side * eta * y * x, b + wrong_side * eta * y


@right("perceptron_step")
def in_a_copy(w, b, x, y, eta):
    w = np.array(w, dtype=float)
    if y * (sum(wd * xd for wd, xd in zip(w, x, strict=True)) + b) <= 0:
        w += eta * y * x
        b += eta * y
    return w, b


@right("perceptron_step")
def by_the_sign(w, b, x, y, eta):
    if np.sign(np.einsum("d,d", w, x) + b) != y:
        return [wd + eta * y * xd for wd, xd in zip(w, x, strict=True)], b + eta * y
    return w, b


@right("perceptron_step")
def case_by_case(w, b, x, y, eta):
    z = w.T @ x + b
    if y == 1 and z <= 0:
        return w + eta * x, b + eta
    if y == -1 and z >= 0:
        return w - eta * x, b - eta
    return w, b


@right("perceptron_step")
def with_tensors(w, b, x, y, eta):
    w, x = torch.as_tensor(w), torch.as_tensor(x)
    return (w, b) if y * ((w * x).sum() + b) > 0 else (w + eta * y * x, b + eta * y)


# ------------------------------------------------------------------------------------------------ mistake_bound


def longest(X):
    return np.linalg.norm(X, axis=1).max()


def margin(X, y, w):
    return (y * (X @ w)).min() / np.linalg.norm(w)


def bound(R, gamma):
    return (R / gamma) ** 2 if gamma > 0 else np.inf


@wrong("mistake_bound", says="divide y·(w·x) by ‖w‖")
def margin_depends_on_the_length_of_w(X, y, w):
    return bound(longest(X), (y * (X @ w)).min())


@wrong("mistake_bound", says="Does each label meet")
def labels_as_a_column(X, y, w):
    return bound(longest(X), (y[:, None] * (X @ w)).min() / np.linalg.norm(w))


@wrong("mistake_bound", says="negative margin")
def distance_without_a_side(X, y, w):
    return bound(longest(X), np.abs(X @ w).min() / np.linalg.norm(w))


@wrong("mistake_bound", says="loop left too early")
def returns_in_the_loop(X, y, w):
    R, gamma = 0, np.inf
    for xi, yi in zip(X, y, strict=True):
        R = max(R, np.linalg.norm(xi))
        gamma = min(gamma, yi * (xi @ w) / np.linalg.norm(w))
        return bound(R, gamma)


@wrong("mistake_bound", says="One number is wanted")
def returns_both_parts(X, y, w):
    return longest(X), margin(X, y, w)


@wrong("mistake_bound", says="It is a whole number")
def counts_are_integers(X, y, w):
    result = bound(longest(X), margin(X, y, w))
    return int(result) if result < np.inf else result


@wrong("mistake_bound", says=None)  # it shows the learner's own error; the docstring asks for np.inf
def refuses_what_is_not_separated(X, y, w):
    if margin(X, y, w) <= 0:
        raise ValueError("w does not separate the classes")
    return bound(longest(X), margin(X, y, w))


@wrong("mistake_bound", says="no promise, and the bound is np.inf")
def on_the_border_is_left_out(X, y, w):
    margins = y * (X @ w) / np.linalg.norm(w)
    if (margins < 0).any():
        return np.inf
    return (longest(X) / margins[margins > 0].min()) ** 2


@right("mistake_bound")
def with_a_unit_direction(X, y, w):
    margins = y * (X @ (w / np.sqrt(w @ w)))
    if (margins <= 0).any():
        return float("inf")
    return (X**2).sum(axis=1).max() / margins.min() ** 2


@right("mistake_bound")
def example_by_example(X, y, w):
    R2, gamma = 0.0, float("inf")
    for xi, yi in zip(X, y, strict=True):
        R2 = max(R2, sum(v * v for v in xi))
        gamma = min(gamma, yi * sum(a * b for a, b in zip(xi, w, strict=True)) / sum(v * v for v in w) ** 0.5)
    return float(R2 / gamma**2) if gamma > 0 else float("inf")


@right("mistake_bound")
def both_norms_at_once(X, y, w):
    gamma = np.einsum("n,nd,d->n", y, X, w).min()
    return np.where(gamma > 0, np.einsum("nd,nd->n", X, X).max() * (w @ w) / np.where(gamma > 0, gamma, 1) ** 2, np.inf)


@right("mistake_bound")
def in_single_precision(X, y, w):
    return bound(longest(X.astype(np.float32)), margin(X.astype(np.float32), y, w.astype(np.float32)))


# ------------------------------------------------------------------------------------------------ xor_network


def network(W1, b1, W2, b2):
    return tuple(np.array(values, dtype=float) for values in (W1, b1, W2, b2))


@wrong("xor_network", says="computes OR")
def adds_both_neurons():
    return network([[1, 1], [1, 1]], [-0.5, -1.5], [[1, 1]], [-0.5])


@wrong("xor_network", says="1 at z = 0 too")
def fires_at_zero():
    return network([[1, 1], [1, 1]], [-1, -2], [[1, -1]], [-1])


@wrong("xor_network", says="with ReLU")
def meant_for_relu():
    return network([[2, 2], [2, 2]], [0, -2], [[1, -2]], [-1])


@wrong("xor_network", says="inputs -1 and +1")
def meant_for_signs():
    return network([[1, 1], [1, 1]], [1, -1], [[1, -1]], [-0.5])


@wrong("xor_network", says="W1 transposed")
def a_column_for_each_neuron():
    return network([[1, -1], [1, -1]], [-0.5, 1.5], [[1, 1]], [-1.5])


@wrong("xor_network", says="W1 and b1 must tell them apart")
def two_alike():
    return network([[1, 1], [1, 1]], [-0.5, -0.5], [[1, -1]], [-0.5])


@wrong("xor_network", says="hand on the inputs")
def hidden_neurons_copy():
    return network([[1, 0], [0, 1]], [-0.5, -0.5], [[1, 1]], [-0.5])


@wrong("xor_network", says="in an array all the same")
def output_bias_a_number():
    return np.ones((2, 2)), np.array([-0.5, -1.5]), np.array([[1.0, -1]]), -0.5


@wrong("xor_network", says="in another order")
def weights_first():
    W1, b1, W2, b2 = network([[1, 1], [1, 1]], [-0.5, -1.5], [[1, -1]], [-0.5])
    return W1, W2, b1, b2


@wrong("xor_network", says="random numbers")
def hopes_for_luck():
    return network(*(np.random.normal(size=shape) for shape in ((2, 2), 2, (1, 2), 1)))


@right("xor_network")
def or_and_nand():
    return network([[1, 1], [-1, -1]], [-0.5, 1.5], [[1, 1]], [-1.5])


@right("xor_network")
def one_without_the_other():
    return tuple(np.array(values) for values in ([[1, -1], [-1, 1]], [0, 0], [[1, 1]], [0]))  # integers


@right("xor_network")
def large_and_uneven():
    return network([[1e6, 1e6], [1e6, 1e6]], [-3e5, -1.2e6], [[5, -1000]], [-1])


@right("xor_network")
def biases_on_the_border():
    return list(network([[1, 1], [1, 1]], [0, -1], [[1, -2]], [0]))


# ------------------------------------------------------------------------------------------------ mlp_forward


def relu(z):
    return np.maximum(0, z)


@wrong("mlp_forward", says="transpose of the right result")
def stays_transposed(X, layers):
    A = X.T
    for W, b in layers[:-1]:
        A = relu(W @ A + b[:, None])
    return layers[-1][0] @ A + layers[-1][1][:, None]


@wrong("mlp_forward", says="There may be any number")
def exactly_two_layers(X, layers):
    (W1, b1), (W2, b2) = layers[0], layers[1]
    return relu(X @ W1.T + b1) @ W2.T + b2


@wrong("mlp_forward", says="begins with X again")
def result_not_handed_on(X, layers):
    for W, b in layers[:-1]:
        A = relu(X @ W.T + b)
    return A @ layers[-1][0].T + layers[-1][1]


@wrong("mlp_forward", says="No layer as wide as the last gets a ReLU")
def last_layer_told_by_its_shape(X, layers):
    for W, b in layers:
        X = X @ W.T + b
        if b.shape != layers[-1][1].shape:
            X = relu(X)
    return X


@wrong("mlp_forward", says="truth value of an array")
def pythons_own_max(X, layers):
    for W, b in layers[:-1]:
        X = max(0, X @ W.T + b)
    return X @ layers[-1][0].T + layers[-1][1]


@wrong("mlp_forward", says="changes its input layers")
def pops_the_last_layer(X, layers):
    W_last, b_last = layers.pop()
    for W, b in layers:
        X = relu(X @ W.T + b)
    return X @ W_last.T + b_last


@wrong("mlp_forward", says=None)  # "cannot access local variable 'A'", at the right line, but with advice on spelling
def needs_a_hidden_layer(X, layers):
    for W, b in layers[:-1]:
        A = X = relu(X @ W.T + b)
    return A @ layers[-1][0].T + layers[-1][1]


@wrong("mlp_forward", says="goes wrong for whole numbers")
def results_in_an_array_like_the_data(X, layers):
    logits = np.zeros((len(X), len(layers[-1][1])), dtype=X.dtype)
    for i, a in enumerate(X):
        for W, b in layers[:-1]:
            a = relu(W @ a + b)
        logits[i] = layers[-1][0] @ a + layers[-1][1]
    return logits


@wrong("mlp_forward", says="Hidden values above 6 are cut off")
def cut_off_above_too(X, layers):
    for W, b in layers[:-1]:
        X = np.clip(X @ W.T + b, 0, 6)
    return X @ layers[-1][0].T + layers[-1][1]


@right("mlp_forward")
def example_by_example_forward(X, layers):
    out = []
    for x in X:
        for i, (W, b) in enumerate(layers, 1):
            x = W @ x + b
            x = x * (x > 0) if i < len(layers) else x
        out.append(x)
    return np.array(out)


@right("mlp_forward")
def forward_with_tensors(X, layers):
    A = torch.as_tensor(X, dtype=torch.float64)
    for i, (W, b) in enumerate(layers):
        A = F.linear(A.relu() if i else A, torch.tensor(W, dtype=A.dtype), torch.tensor(b, dtype=A.dtype))
    return A


@right("mlp_forward")
def columns_then_turned(X, layers):
    A = X.T
    for W, b in layers[:-1]:
        A = (W @ A + b[:, None]).clip(min=0)
    W, b = layers[-1]
    return (W @ A + b[:, None]).T


@right("mlp_forward")
def recursive(X, layers):
    (W, b), *others = layers
    Z = np.einsum("bi,oi->bo", X, W) + b
    return recursive(np.where(Z > 0, Z, 0), others) if others else Z


@right("mlp_forward")
def keeps_the_last_z(X, layers):
    A = X.astype(np.float32)
    for W, b in layers:
        Z = A @ W.astype(np.float32).T + b.astype(np.float32)
        A = (Z + abs(Z)) / 2
    return Z


# ------------------------------------------------------------------------------------------------ softmax


@wrong("softmax", says="exp overflows")
def by_the_formula(Z):
    return np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)


@wrong("softmax", says="one logit from the whole batch")
def one_maximum_for_all(Z):
    E = np.exp(Z - Z.max())
    return E / E.sum(axis=1, keepdims=True)


@wrong("softmax", says="keepdims=True")
def keepdims_forgotten(Z):
    E = np.exp(Z - Z.max(axis=1))
    return E / E.sum(axis=1)


@wrong("softmax", says="divides by the maximum")
def scaled_not_shifted(Z):
    E = np.exp(Z / Z.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


@wrong("softmax", says="whatever its sign, not |z|")
def shifts_by_the_largest_size(Z):
    E = np.exp(Z - np.abs(Z).max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


@wrong("softmax", says="first row of the right result")
def first_row_only(Z):
    for z in Z:
        e = np.exp(z - z.max())
        return e / e.sum()


@wrong("softmax", says="Where a row is far below 0")
def shifts_only_what_is_large(Z):
    if Z.max() > 700:
        Z = Z - Z.max(axis=1, keepdims=True)
    E = np.exp(Z)
    return E / E.sum(axis=1, keepdims=True)


@wrong("softmax", says="goes wrong for whole numbers")
def rows_in_an_array_like_z(Z):
    P = np.zeros_like(Z)
    for i, z in enumerate(Z):
        P[i] = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    return P


@wrong("softmax", says="its largest exponent is 0")
def shifts_by_the_first(Z):
    E = np.exp(Z - Z[:, :1])
    return E / E.sum(axis=1, keepdims=True)


@right("softmax")
def by_scipy(Z):
    return scipy.special.softmax(Z, axis=1)


@right("softmax")
def by_torch(Z):
    return torch.softmax(torch.tensor(Z, dtype=torch.float64), dim=-1)


@right("softmax")
def row_by_row(Z):
    rows = []
    for z in Z:
        e = [np.exp(v - max(z)) for v in z]
        rows.append([v / sum(e) for v in e])
    return rows


@right("softmax")
def by_differences(Z):
    with np.errstate(over="ignore"):
        return 1 / np.exp(Z[:, None, :] - Z[:, :, None]).sum(axis=2)


@right("softmax")
def by_log_sum_exp(Z):
    Z = Z.astype(np.float32)
    return np.exp(Z - np.logaddexp.reduce(Z, axis=1)[:, np.newaxis])


# ------------------------------------------------------------------------------------------------ cross_entropy


def probabilities(Z):
    return scipy.special.softmax(Z, axis=1)


def log_sum_exp(Z):
    return scipy.special.logsumexp(Z, axis=1)


def of_the_right_class(values, y):
    return values[np.arange(len(y)), y]


@wrong("cross_entropy", says="was rounded to 0")
def logarithm_of_a_softmax(Z, y):
    return -np.log(of_the_right_class(probabilities(Z), y)).mean()


@wrong("cross_entropy", says="a small number in the logarithm")
def epsilon_in_the_logarithm(Z, y):
    return -np.log(of_the_right_class(probabilities(Z), y) + 1e-9).mean()


@wrong("cross_entropy", says="columns of all labels")
def every_row_with_every_label(Z, y):
    return (log_sum_exp(Z)[:, None] - Z[:, y]).mean()


@wrong("cross_entropy", says="Write m[:, None]")
def maxima_along_the_wrong_axis(Z, y):
    m = Z.max(axis=1)
    return (m + np.log(np.exp(Z - m).sum(axis=1)) - of_the_right_class(Z, y)).mean()


@wrong("cross_entropy", says="shapes (6,10) (6,6)")
def always_ten_classes(Z, y):
    return -(np.eye(10)[y] * scipy.special.log_softmax(Z, axis=1)).sum() / len(y)


@right("cross_entropy")
def loss_by_torch(Z, y):
    return F.cross_entropy(torch.tensor(Z, dtype=torch.float64), torch.tensor(y))


@right("cross_entropy")
def added_up_row_by_row(Z, y):
    total = 0.0
    for z, label in zip(Z, y, strict=True):
        total += max(z) + np.log(sum(np.exp(v - max(z)) for v in z)) - z[label]
    return total / len(y)


@right("cross_entropy")
def with_one_hot(Z, y):
    log_p = Z - log_sum_exp(Z)[:, None]
    return -(np.eye(Z.shape[1])[y] * log_p).sum() / Z.shape[0]


@wrong("cross_entropy", says="where a lone number is wanted")
def one_entry_for_a_number(Z, y):
    return with_one_hot(Z, y)[None]


@wrong("cross_entropy", says="goes wrong for whole numbers")
def losses_in_an_array_like_z(Z, y):
    losses = np.zeros_like(Z[:, 0])
    for i, z in enumerate(Z):
        losses[i] = z.max() + np.log(np.exp(z - z.max()).sum()) - z[y[i]]
    return losses.mean()


@wrong("cross_entropy", says="are the logits clipped")
def clipped_logits(Z, y):
    Z = np.clip(Z, -500, 500)
    return (np.log(np.exp(Z).sum(axis=1)) - of_the_right_class(Z, y)).mean()


@right("cross_entropy")
def relative_to_the_right_logit(Z, y):
    Z = Z.astype(np.float32)
    return np.logaddexp.reduce(Z - np.take_along_axis(Z, y[:, None], 1), axis=1).mean()


# ------------------------------------------------------------------------------------------------ MLP


class Layers(nn.Module):
    """What the answers below share that differ in `forward` only."""

    def __init__(self, widths):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in zip(widths[:-1], widths[1:], strict=True))

    def through(self, a):
        for layer in self.layers[:-1]:
            a = torch.relu(layer(a))
        return self.layers[-1](a)


@wrong("MLP", says="in a plain list")
class PlainList(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.layers = [nn.Linear(widths[i], widths[i + 1]) for i in range(len(widths) - 1)]

    def forward(self, x):
        return nn.Sequential(nn.Flatten(), *self.layers)(x)


@wrong("MLP", says="overwritten in the loop")
class OneAttributeForAll(nn.Module):
    def __init__(self, widths):
        super().__init__()
        for n, m in zip(widths[:-1], widths[1:], strict=True):
            self.layer = nn.Linear(n, m)

    def forward(self, x):
        return self.layer(x.flatten(1))


@wrong("MLP", says="Flatten each example first")
class NoFlatten(Layers):
    def forward(self, x):
        return self.through(x)


@wrong("MLP", says="The axis of the batch is gone")
class Squeezes(Layers):
    def forward(self, x):
        return self.through(x.flatten(1)).squeeze()


@wrong("MLP", says="a bias is missing")
class LastWithoutBias(Layers):
    def __init__(self, widths):
        super().__init__(widths)
        self.layers[-1] = nn.Linear(*widths[-2:], bias=False)


@wrong("MLP", says="also where widths repeat")
class OneLayerForEachPairOfWidths(Layers):
    def __init__(self, widths):
        super().__init__(widths)
        first = {tuple(layer.weight.shape): layer for layer in reversed(self.layers)}
        self.layers = nn.ModuleList(first[tuple(layer.weight.shape)] for layer in self.layers)

    def forward(self, x):
        return self.through(x.flatten(1))


@wrong("MLP", says="batch norm")
class BatchNormBetween(Layers):
    def __init__(self, widths):
        super().__init__(widths)
        self.norm = nn.BatchNorm1d(widths[1])


@wrong("MLP", says="Only the first layer has a ReLU")
class ReluOnce(Layers):
    def forward(self, x):
        first, *others = self.layers
        a = first(x.flatten(1))
        return nn.Sequential(*others)(torch.relu(a)) if others else a


@wrong("MLP", says="no log_softmax")
class LogSoftmax(Layers):
    def forward(self, x):
        return F.log_softmax(self.through(x.flatten(1)), 1)


@wrong("MLP", says="between 0 and 1 already")
class DividesOnceMore(Layers):
    def forward(self, x):
        return self.through(x.flatten(1) / 255)


@wrong("MLP", says="Are sizes written as numbers")
class FixedSizes(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.hidden, self.out = nn.Linear(784, 256), nn.Linear(256, 10)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x.flatten(1))))


@wrong("MLP", says="before Module.__init__()")
class SuperForgotten(nn.Module):
    def __init__(self, widths):
        self.layers = nn.ModuleList()


@wrong("MLP", says="dropout")
class WithDropout(Layers):
    def forward(self, x):
        return self.through(F.dropout(x.flatten(1), 0.5, self.training))


@wrong("MLP", says=".data")
class HiddenLayersNeverLearn(Layers):
    def forward(self, x):
        a = x.flatten(1)
        for layer in self.layers[:-1]:
            a = torch.relu(F.linear(a, layer.weight.data, layer.bias.data))
        return self.layers[-1](a)


@wrong("MLP", says="in evaluation")
class ProbabilitiesInEvaluation(Layers):
    def forward(self, x):
        logits = self.through(x.flatten(1))
        return logits if self.training else logits.softmax(1)


@wrong("MLP", says="no other model shares")
class LayersOfTheClass(nn.Module):
    layers = nn.ModuleList()

    def __init__(self, widths):
        super().__init__()
        for n, m in zip(widths[:-1], widths[1:], strict=True):
            self.layers.append(nn.Linear(n, m))
        self.stack = self.layers

    def forward(self, x):
        return Layers.through(self, x.flatten(1))


@wrong("MLP", says="in another order")
class OutputRegisteredFirst(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.out = nn.Linear(widths[-2], widths[-1])
        self.hidden = Layers(widths[:-1]).layers

    def forward(self, x):
        return self.out(nn.Sequential(nn.Flatten(), *self.hidden)(x))


@right("MLP")
class IsASequential(nn.Sequential):
    def __init__(self, widths):
        parts = [nn.Flatten()]
        for i in range(len(widths) - 1):
            parts += [nn.Linear(widths[i], widths[i + 1]), nn.ReLU()]
        super().__init__(*parts[:-1])


@right("MLP")
class NumberedAttributes(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.count = len(widths) - 1
        for i in range(self.count):
            setattr(self, f"fc{i}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x):
        x = x.reshape(x.shape[0], -1)
        for i in range(self.count):
            x = getattr(self, f"fc{i}")(x if i == 0 else F.relu(x))
        return x


@right("MLP")
class OwnParameters(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.pairs = nn.ParameterList()
        for n, m in zip(widths[:-1], widths[1:], strict=True):
            self.pairs.extend([nn.Parameter(torch.randn(m, n) / n**0.5), nn.Parameter(torch.zeros(m))])

    def forward(self, x):
        a = x.view(len(x), -1)
        for i in range(0, len(self.pairs), 2):
            a = F.linear(a.clamp(min=0) if i else a, self.pairs[i], self.pairs[i + 1])
        return a


@right("MLP")
class HiddenAndOutput(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(widths[i], widths[i + 1]) for i in range(len(widths) - 2)])
        self.out = nn.Linear(widths[-2], widths[-1])
        self.phi = nn.ReLU(inplace=True)

    def forward(self, x):
        if x.ndim > 2:
            x = torch.flatten(x, start_dim=1)
        for layer in self.hidden:
            x = self.phi(layer(x))
        return self.out(x)


# ------------------------------------------------------------------------------------------------ train_epoch


def shuffled(x, batch_size):
    return torch.randperm(len(x)).split(batch_size)


def step_on(loss, optimizer, schedule):
    """The three lines that most answers get right; returns the loss as a number."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if schedule is not None:
        schedule.step()
    return loss.item()


@wrong("train_epoch", says="order in which they are stored")
def unshuffled(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total = 0.0
    for i in range(0, len(x), batch_size):
        xb, yb = x[i : i + batch_size], y[i : i + batch_size]
        total += step_on(F.cross_entropy(model(xb), yb), optimizer, schedule) * len(xb)
    return total / len(x)


@wrong("train_epoch", says="zero_grad() before both")
def forgets_what_it_computed(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    for batch in shuffled(x, batch_size):
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.zero_grad()
        optimizer.step()


@wrong("train_epoch", says="What was in .grad before counts in the first step")
def clears_after_the_step(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total = 0.0
    for batch in shuffled(x, batch_size):
        loss = F.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if schedule is not None:
            schedule.step()
        total += loss.item() * len(batch)
    return total / len(x)


@wrong("train_epoch", says="after each batch, in the loop")
def schedule_once_an_epoch(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total = 0.0
    for batch in shuffled(x, batch_size):
        total += step_on(F.cross_entropy(model(x[batch]), y[batch]), optimizer, None) * len(batch)
    schedule.step()
    return total / len(x)


@wrong("train_epoch", says="a last batch without examples")
def the_rest_apart(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total, order = 0.0, torch.randperm(len(x))
    whole = len(x) // batch_size * batch_size
    for batch in [*order[:whole].reshape(-1, batch_size), order[whole:]]:
        total += step_on(F.cross_entropy(model(x[batch]), y[batch]), optimizer, schedule) * len(batch)
    return total / len(x)


@wrong("train_epoch", says="neighbours stay together")
def begins_somewhere(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total, order = 0.0, torch.arange(len(x)).roll(random.randrange(len(x)))
    for batch in order.split(batch_size):
        total += step_on(F.cross_entropy(model(x[batch]), y[batch]), optimizer, schedule) * len(batch)
    return total / len(x)


@wrong("train_epoch", says="schedule is None")
def schedule_taken_for_granted(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total = 0.0
    for batch in shuffled(x, batch_size):
        total += step_on(F.cross_entropy(model(x[batch]), y[batch]), optimizer, None) * len(batch)
        schedule.step()
    return total / len(x)


@wrong("train_epoch", says="smaller batch is left out")
def last_batch_dropped(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total, order = 0.0, torch.randperm(len(x))
    for i in range(len(x) // batch_size):
        batch = order[i * batch_size : (i + 1) * batch_size]
        total += step_on(F.cross_entropy(model(x[batch]), y[batch]), optimizer, schedule) * len(batch)
    return total / len(x)


@wrong("train_epoch", says="the number inside a tensor")
def keeps_the_graph(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total = 0.0
    for batch in shuffled(x, batch_size):
        loss = F.cross_entropy(model(x[batch]), y[batch])
        step_on(loss, optimizer, schedule)
        total += loss * len(batch)
    return total / len(x)


@wrong("train_epoch", says="shuffled alike")
def two_orders(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total = 0.0
    for bx, by in zip(shuffled(x, batch_size), shuffled(y, batch_size), strict=True):
        total += step_on(F.cross_entropy(model(x[bx]), y[by]), optimizer, schedule) * len(bx)
    return total / len(x)


@wrong("train_epoch", says="Shuffle once for each epoch")
def shuffles_for_each_batch(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total = 0.0
    for i in range(0, len(x), batch_size):
        batch = torch.randperm(len(x))[i : i + batch_size]
        total += step_on(F.cross_entropy(model(x[batch]), y[batch]), optimizer, schedule) * len(batch)
    return total / len(x)


@wrong("train_epoch", says="seeded inside the function")
def the_same_order_each_time(model, x, y, optimizer, batch_size=128, schedule=None):
    torch.manual_seed(0)
    return by_the_data_loader(model, x, y, optimizer, batch_size, schedule)


@wrong("train_epoch", says="not by the optimizer that was passed in")
def an_optimizer_of_its_own(model, x, y, optimizer, batch_size=128, schedule=None):
    return by_the_data_loader(model, x, y, torch.optim.SGD(model.parameters(), 0.1), batch_size, schedule)


@right("train_epoch")
def by_the_data_loader(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    total = 0.0
    data = torch.utils.data.TensorDataset(x, y)
    for xb, yb in torch.utils.data.DataLoader(data, batch_size=batch_size, shuffle=True):
        total += step_on(nn.CrossEntropyLoss()(model(xb), yb), optimizer, schedule) * xb.size(0)
    return total / len(x)


@right("train_epoch")
def by_numpy_and_averages(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    order, losses, sizes = np.random.default_rng().permutation(len(x)), [], []
    for i in range(0, len(x), batch_size):
        batch = torch.from_numpy(order[i : i + batch_size])
        losses.append(step_on(F.nll_loss(F.log_softmax(model(x[batch]), 1), y[batch]), optimizer, schedule))
        sizes.append(len(batch))
    return float(np.average(losses, weights=sizes))


@right("train_epoch")
def looks_twice_at_a_shuffled_copy(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    order = torch.randperm(len(y))
    total, x, y = torch.zeros(()), x[order], y[order]
    for xb, yb in zip(x.split(batch_size), y.split(batch_size), strict=True):
        loss = (torch.logsumexp(model(xb), 1) - model(xb).gather(1, yb[:, None])[:, 0]).mean()
        step_on(loss, optimizer, schedule)
        total += loss.detach() * len(xb)
    return (total / len(x)).item()


@right("train_epoch")
def clears_gradients_afterwards(model, x, y, optimizer, batch_size=128, schedule=None):
    model.train()
    order, total = list(range(len(x))), 0.0
    random.shuffle(order)
    model.zero_grad()
    for k in range(-(-len(x) // batch_size)):
        batch = order[k * batch_size : (k + 1) * batch_size]
        losses = F.cross_entropy(model(x[batch]), y[batch], reduction="none")
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        if schedule:
            schedule.step()
        total += losses.sum().item()
    return total / len(x)


# ------------------------------------------------------------------------------------------------ prepare_image


def border(picture):
    """As in the script."""
    return np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])


def place_like_mnist(ink):
    """The script's own, which a learner gets ready-made."""
    from atlas import course
    from atlas.collect import collect

    file = course.find("perceptron-and-mlp").solution_folder / "train_mlp.py"
    return collect(file, ["place_like_mnist"])["place_like_mnist"](ink)


@wrong("prepare_image", says="White paper in a shadow is darker")
def paper_above_half(pixels):
    x = pixels / 255
    paper = np.median(border(x))
    ink = paper - x if paper > 0.5 else x - paper
    if ink.max() < 0.1:
        raise ValueError("nothing drawn")
    ink = (ink / ink.max()).clip(0, 1)
    return place_like_mnist(ink * (ink >= 0.25))


@wrong("prepare_image", says="Uneven paper counts as ink")
def never_cuts(pixels):
    x = pixels / 255
    ink = x - np.median(border(x))
    ink = -ink if -ink.min() > ink.max() else ink
    if ink.max() < 0.1:
        raise ValueError("nothing drawn")
    return place_like_mnist(np.clip(ink / ink.max(), 0, None))


@wrong("prepare_image", says="Paper has to be 0")
def stretches_min_to_max(pixels):
    x = pixels.astype(float)
    paper = np.median(border(x))
    if paper - x.min() > x.max() - paper:
        x = 255 - x
    if np.ptp(x) < 25.5:
        raise ValueError("nothing drawn")
    x = (x - x.min()) / (x.max() - x.min())
    return place_like_mnist(np.where(x < 0.25, 0, x))


@wrong("prepare_image", says="uint8 arithmetic wraps round")
def subtracts_in_uint8(pixels):
    paper = np.median(border(pixels)).astype(np.uint8)
    ink = (pixels - paper) / 255
    if ink.max() < 0.1:
        raise ValueError("nothing drawn")
    ink = ink / ink.max()
    return place_like_mnist(np.where(ink < 0.25, 0, ink))


@wrong("prepare_image", says="it crops and centres")
def does_not_place(pixels):
    x = pixels / 255
    ink = x - np.median(border(x))
    ink = -ink if -ink.min() > ink.max() else ink
    if ink.max() < 0.1:
        raise ValueError("nothing drawn")
    ink = ink / ink.max()
    return np.where(ink < 0.25, 0, ink)


@wrong("prepare_image", says="raise ValueError before you divide")
def never_looks_for_empty_pages(pixels):
    x = pixels / 255
    ink = x - np.median(border(x))
    ink = -ink if -ink.min() > ink.max() else ink
    ink = ink / ink.max()
    return place_like_mnist(np.where(ink < 0.25, 0, ink))


def from_paper(pixels, paper, rows=slice(None)):
    """Right for the right paper and all rows."""
    ink = pixels[rows] / 255 - paper
    ink = -ink if -ink.min() > ink.max() else ink
    if ink.max() < 0.1:
        raise ValueError("nothing drawn")
    return place_like_mnist(np.where(ink / ink.max() < 0.25, 0, ink / ink.max()))


def from_the_right_paper(pixels, empty):
    """Right but for the question of emptiness, which is asked of the difference from the paper."""
    ink = pixels / 255 - np.median(border(pixels / 255))
    if empty(ink):
        raise ValueError("no ink on this page")
    ink = -ink if -ink.min() > ink.max() else ink
    return place_like_mnist(np.where(ink < 0.25 * ink.max(), 0, ink / ink.max()))


@wrong("prepare_image", says="up to twice as far")
def empty_by_the_range(pixels):
    return from_the_right_paper(pixels, lambda ink: np.ptp(ink) < 0.1)


@wrong("prepare_image", says="Only ink that is darker than the paper")
def only_dark_ink_is_looked_for(pixels):
    return from_the_right_paper(pixels, lambda ink: -ink.min() < 0.1)


@wrong("prepare_image", says="ink that touches it pulls it away")
def the_mean_of_the_border(pixels):
    return from_paper(pixels, border(pixels / 255).mean())


@wrong("prepare_image", says="It takes one side of the border")
def the_upper_edge_alone(pixels):
    return from_paper(pixels, np.median(pixels[0] / 255))


@wrong("prepare_image", says="ink that touches the border above")
def the_edges_cut_off(pixels):
    return from_paper(pixels, np.median(border(pixels / 255)), slice(1, -1))


@wrong("prepare_image", says="changes its input pixels")
def writes_into_the_picture(pixels):
    pixels[pixels > 250] = 250
    return with_the_whole_page(pixels)


@wrong("prepare_image", says="the median of the whole page")
def with_the_whole_page(pixels):
    x = pixels.astype(np.float32)
    paper = np.median(x)
    if x.max() - paper < paper - x.min():
        x, paper = 255 - x, 255 - paper
    if x.max() - paper < 25.5:
        raise ValueError("nothing is drawn here")
    ink = np.clip((x - paper) / (x.max() - paper), 0, 1)
    ink[ink < 0.25] = 0
    return place_like_mnist(ink)


@right("prepare_image")
def with_its_own_placing(pixels):
    from scipy import ndimage

    x = pixels.astype(float) / 255.0
    paper = np.sort(border(x))[len(border(x)) // 2]
    low, high = paper - x.min(), x.max() - paper
    if max(low, high) < 0.1:
        raise ValueError("nothing is drawn here")
    ink = (paper - x) / low if low > high else (x - paper) / high
    ink = ink * (ink > 0.25)
    box = ndimage.find_objects((ink > 0).astype(int))[0]
    digit = ink[box]
    small = ndimage.zoom(digit, 20 / max(digit.shape), order=1, grid_mode=True, mode="nearest")
    row, column = ndimage.center_of_mass(small)
    canvas = np.zeros((28, 28), np.float32)
    top, left = round(14 - row), round(14 - column)
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


@right("prepare_image")
def raises_in_one_line(pixels):
    x = pixels / 255
    difference = x - np.median(border(x))
    ink = difference if difference.max() > -difference.min() else -difference
    if ink.max() < 0.1: raise ValueError("nothing is drawn here")  # noqa: E701  # fmt: skip
    ink = ink / ink.max()
    return place_like_mnist(np.where(ink < 0.25, 0, ink))


@right("prepare_image")
def as_a_tensor(pixels):
    import torch

    x = torch.tensor(pixels) / 255
    difference = x - torch.tensor(border(pixels) / 255.0).median()
    ink = max(difference, -difference, key=lambda each: float(each.max()))
    if ink.max() < 0.1:
        raise ValueError("nothing is drawn here")
    ink = torch.where(ink < 0.25 * ink.max(), 0, ink) / ink.max()
    return torch.tensor(place_like_mnist(ink.numpy()))


@wrong("mlp_forward", says="found by its arrays")
def last_by_identity(X, layers):
    for W, b in layers:
        X = X @ W.T + b
        if W is not layers[-1][0]:
            X = np.maximum(X, 0)
    return X


@wrong("mlp_forward", says="squeeze, which takes away")
def squeezed(X, layers):
    for W, b in layers[:-1]:
        X = np.maximum(X @ W.T + b, 0)
    return np.squeeze(X @ layers[-1][0].T + layers[-1][1])


@wrong("cross_entropy", says="not the largest absolute value")
def largest_absolute(Z, y):
    m = np.abs(Z).max(axis=1)
    return (m + np.log(np.exp(Z - m[:, None]).sum(axis=1)) - Z[np.arange(len(y)), y]).mean()


@wrong("cross_entropy", says="an array made like the input")
def exponentials_like_the_logits(Z, y):
    E, m = np.empty_like(Z), Z.max(axis=1)
    E[:] = np.exp(Z - m[:, None])
    return (m + np.log(E.sum(axis=1)) - Z[np.arange(len(y)), y]).mean()
