"""Answers to the exercises of backpropagation: wrong ones named for the misconception, and right ones."""

import itertools
import math
from collections import Counter

import numpy as np
import scipy.special
import torch
from torch.nn import functional as F

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ Value


class Base:
    """A right Value, of which each answer below replaces a method; operations make the answer's own class."""

    def __init__(self, data, parents=()):
        self.data, self.grad, self.parents, self.push = float(data), 0.0, parents, lambda: None

    def lift(self, x):
        return x if isinstance(x, Base) else type(self)(x)

    def make(self, data, parents, push):
        out = type(self)(data, parents)
        out.push = lambda: push(out)
        return out

    def unary(self, data, slope):
        def push(out):
            self.grad += slope(out) * out.grad

        return self.make(data, (self,), push)

    def __add__(self, other):
        other = self.lift(other)

        def push(out):
            self.grad += out.grad
            other.grad += out.grad

        return self.make(self.data + other.data, (self, other), push)

    def __mul__(self, other):
        other = self.lift(other)

        def push(out):
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        return self.make(self.data * other.data, (self, other), push)

    def __pow__(self, n):
        return self.unary(self.data**n, lambda out: n * self.data ** (n - 1))

    def exp(self):
        return self.unary(math.exp(self.data), lambda out: out.data)

    def relu(self):
        return self.unary(max(0.0, self.data), lambda out: self.data > 0)

    def tanh(self):
        return self.unary(math.tanh(self.data), lambda out: 1 - out.data**2)

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -self.lift(other)

    def __truediv__(self, other):
        return self * self.lift(other) ** -1

    def __radd__(self, other):
        return self + other

    def __rmul__(self, other):
        return self * other

    def __rsub__(self, other):
        return -self + other

    def __rtruediv__(self, other):
        return self**-1 * other


@wrong("Value", says="The shares are swapped")
class OwnDataForTheOthers(Base):
    def __mul__(self, other):
        other = self.lift(other)

        def push(out):
            self.grad += self.data * out.grad
            other.grad += other.data * out.grad

        return self.make(self.data * other.data, (self, other), push)


@wrong("Value", says="It overwrites the parent's grad")
class Overwrites(Base):
    def __mul__(self, other):
        other = self.lift(other)

        def push(out):
            self.grad = other.data * out.grad
            other.grad = self.data * out.grad

        return self.make(self.data * other.data, (self, other), push)


@wrong("Value", says="The line `out.push = push` is missing")
class PushNotKept(Base):
    def __mul__(self, other):
        other = self.lift(other)
        out = type(self)(self.data * other.data, (self, other))

        def push():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        return out


@wrong("Value", says="is out.grad, 0 until then, read before push runs?")
class ReadsOutGradTooEarly(Base):
    def __mul__(self, other):
        other = self.lift(other)
        out = type(self)(self.data * other.data, (self, other))
        shares = other.data * out.grad, self.data * out.grad

        def push():
            self.grad += shares[0]
            other.grad += shares[1]

        out.push = push
        return out


@wrong("Value", says="A gradient that arrives may be negative, and passes")
class CutsTheGradientThatArrives(Base):
    def relu(self):
        def push(out):
            self.grad += max(0.0, out.grad) if self.data > 0 else 0.0

        return self.make(max(0.0, self.data), (self,), push)


@wrong("Value", says="counts with its sign")
class TakesTheSizeOfWhatArrives(Base):
    def exp(self):
        def push(out):
            self.grad += out.data * abs(out.grad)

        return self.make(math.exp(self.data), (self,), push)


@wrong("Value", says="A plain number is no parent")
class ExponentAsAParent(Base):
    def __pow__(self, n):
        def push(out):
            self.grad += n * self.data ** (n - 1) * out.grad

        return self.make(self.data**n, (self, n), push)


@wrong("Value", says="n is a plain number, and no parent")
class ExponentAsAParentOfItsOwnMaking(Base):
    def __pow__(self, n):
        def push(out):
            self.grad += n * self.data ** (n - 1) * out.grad

        return self.make(self.data**n, (self, self.lift(n)), push)


@wrong("Value", says="math.tanh(x) needs no such power")
class TanhByPowers(Base):
    def tanh(self):
        e = math.exp(2 * self.data)
        return self.unary((e - 1) / (e + 1), lambda out: 1 - out.data**2)


@wrong("Value", says="other = as_value(other) first")
class NoPlainFactor(Base):
    def __mul__(self, other):
        def push(out):
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        return self.make(self.data * other.data, (self, other), push)


@wrong("Value", says="push, without parentheses")
class PushCalledAtOnce(Base):
    def exp(self):
        out = type(self)(math.exp(self.data), (self,))

        def push():
            self.grad += out.data * out.grad

        out.push = push()
        return out


@wrong("Value", says="it gets both shares")
class AddsOnlyOnceWhereBothAreOne(Base):
    def __mul__(self, other):
        other = self.lift(other)

        def push(out):
            mine, others = self.grad, other.grad
            self.grad = mine + other.data * out.grad
            other.grad = others + self.data * out.grad

        return self.make(self.data * other.data, (self, other), push)


@wrong("Value", says="has to end with `return out`")
class ReluGivesNothing(Base):
    def relu(self):
        self.unary(max(0.0, self.data), lambda out: self.data > 0)


@right("Value")
class AsItShouldBe(Base):
    pass


@wrong("Value", says="ZeroDivisionError")
class PowerDividesByTheNumber(Base):
    def __pow__(self, n):
        return self.unary(self.data**n, lambda out: n * out.data / self.data)


@wrong("Value", says="leaves self.data alone")
class ReluCutsItsParent(Base):
    def relu(self):
        self.data = max(0.0, self.data)
        return self.unary(self.data, lambda out: self.data > 0)


@right("Value")
class PowersByThemselves(Base):
    def __mul__(self, other):
        other = self.lift(other)
        x, y = self.data, other.data
        out = type(self)(x * y, [self, other])

        def push():
            for parent, slope in ((self, y), (other, x)):
                parent.grad = parent.grad + slope * out.grad

        out.push = push
        return out

    def __pow__(self, n):
        return self.unary(math.pow(self.data, n), lambda out: n * math.pow(self.data, n - 1))

    def tanh(self):
        return self.unary(math.tanh(self.data), lambda out: 1 / math.cosh(self.data) ** 2)


@right("Value")
class WithNumPy(Base):
    def exp(self):
        return self.unary(np.exp(self.data), lambda out: np.exp(self.data))

    def relu(self):
        return self.unary(self.data if self.data > 0 else 0.0, lambda out: 1.0 if self.data > 0 else 0.0)

    def tanh(self):
        return self.unary(np.tanh(self.data), lambda out: 1 - np.tanh(self.data) ** 2)


@right("Value")
class PutTogether(Base):
    def tanh(self):
        sign = math.copysign(2, self.data)
        e = (self * -sign).exp()  # of a negative number: it does not overflow
        return (1 - e) / (1 + e) * (sign / 2)

    def relu(self):
        return self * float(self.data > 0)


@right("Value")
class ParentsAsSet(Base):
    def __mul__(self, other):
        other = self.lift(other)
        out = type(self)(self.data * other.data, {self, other})

        def push():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        out.push = push
        return out


# ------------------------------------------------------------------------------------------------ backward


def topological(root):
    order, visited, stack = [], set(), [(root, False)]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif value not in visited:
            visited.add(value)
            stack.append((value, True))
            stack.extend((parent, False) for parent in value.parents)
    return order


@wrong("backward", says="Old gradients are still in it")
def never_reset(root):
    root.grad = 1.0
    for value in reversed(topological(root)):
        value.push()


@wrong("backward", says="root.grad = 1")
def seed_forgotten(root):
    order = topological(root)
    for value in order:
        value.grad = 0.0
    for value in reversed(order):
        value.push()


@wrong("backward", says="root.grad = 1")
def seed_before_the_reset(root):
    order = topological(root)
    root.grad = 1.0
    for value in order:
        value.grad = 0.0
    for value in reversed(order):
        value.push()


@wrong("backward", says="calls itself")
def recursive(root):
    order, visited = [], set()

    def visit(value):
        if value not in visited:
            visited.add(value)
            for parent in value.parents:
                visit(parent)
            order.append(value)

    visit(root)
    for value in order:
        value.grad = 0.0
    root.grad = 1.0
    for value in reversed(order):
        value.push()


@wrong("backward", says="push more than once")
def walks_along_every_path(root):
    for value in topological(root):
        value.grad = 0.0
    root.grad = 1.0
    queue = [root]
    while queue:
        value = queue.pop(0)
        value.push()
        queue.extend(value.parents)


@wrong("backward", says="Only the root pushes")
def one_push(root):
    for value in topological(root):
        value.grad = 0.0
    root.grad = 1.0
    root.push()


@wrong("backward", says="returns nothing")
def returns_the_order(root):
    order = topological(root)
    for value in order:
        value.grad = 0.0
    root.grad = 1.0
    for value in reversed(order):
        value.push()
    return order


@wrong("backward", says="keep the values themselves in the set")
def visited_by_number(root):
    order, visited, stack = [], set(), [(root, False)]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif value.data not in visited:
            visited.add(value.data)
            stack.append((value, True))
            stack.extend((parent, False) for parent in value.parents)
    for value in order:
        value.grad = 0.0
    root.grad = 1.0
    for value in reversed(order):
        value.push()


@right("backward")
def by_counting_users(root):
    users, seen, stack = Counter(), {root}, [root]
    while stack:
        for parent in stack.pop().parents:
            users[parent] += 1
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    for value in seen:
        value.grad = 0.0
    root.grad = 1.0
    ready = [root]
    while ready:
        value = ready.pop()
        value.push()
        for parent in value.parents:
            users[parent] -= 1
            if users[parent] == 0:
                ready.append(parent)


@right("backward")
def by_the_library(root):
    from graphlib import TopologicalSorter

    graph, stack = {root: root.parents}, [root]
    while stack:
        for parent in stack.pop().parents:
            if parent not in graph:
                graph[parent] = parent.parents
                stack.append(parent)
    order = list(TopologicalSorter(graph).static_order())
    for value in order:
        value.grad = 0.0
    root.grad = 1.0
    for value in order[::-1]:
        value.push()


@right("backward")
def with_iterators(root):
    order, visited, stack = [], {id(root)}, [(root, iter(root.parents))]
    while stack:
        value, parents = stack[-1]
        for parent in parents:
            if id(parent) not in visited:
                visited.add(id(parent))
                stack.append((parent, iter(parent.parents)))
                break
        else:
            order.insert(0, value)
            stack.pop()
    for value in order:
        value.grad = float(value is root)
    for value in order:
        value.push()


# ------------------------------------------------------------------------------------------------ gradient_check


def each_entry(f, x, difference):
    gradient = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        e = np.zeros(x.shape)
        e[i] = 1
        gradient[i] = difference(e)
    return gradient


@wrong("gradient_check", says="one-sided difference")
def forward_difference(f, x, h=1e-5):
    return each_entry(f, x, lambda e: (f(x + h * e) - f(x)) / h)


@wrong("gradient_check", says="divide by 2h")
def divides_by_h(f, x, h=1e-5):
    return each_entry(f, x, lambda e: (f(x + h * e) - f(x - h * e)) / h)


@wrong("gradient_check", says="One side is h away, the other 0")
def one_side_over_two(f, x, h=1e-5):
    return each_entry(f, x, lambda e: (f(x + h * e) - f(x)) / (2 * h))


@wrong("gradient_check", says="goes h/2 up and down")
def half_a_step(f, x, h=1e-5):
    return each_entry(f, x, lambda e: (f(x + h / 2 * e) - f(x - h / 2 * e)) / h)


@wrong("gradient_check", says="The sign is turned round")
def lower_minus_higher(f, x, h=1e-5):
    return each_entry(f, x, lambda e: (f(x - h * e) - f(x + h * e)) / (2 * h))


@wrong("gradient_check", says="changes its input x")
def in_place_and_left_there(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        x[i] += h
        up = f(x)
        x[i] -= 2 * h
        gradient[i] = (up - f(x)) / (2 * h)
        x[i] += h  # nearly what it was
    return gradient


@wrong("gradient_check", says="return")
def prints_it(f, x, h=1e-5):
    print(each_entry(f, x, lambda e: (f(x + h * e) - f(x - h * e)) / (2 * h)))


@wrong("gradient_check", says="never reaches x")
def in_a_flat_copy(f, x, h=1e-5):
    flat, gradient = x.ravel(), []
    for i, kept in enumerate(flat.tolist()):
        flat[i] = kept + h
        up = f(x)
        flat[i] = kept - h
        gradient.append((up - f(x)) / (2 * h))
        flat[i] = kept
    return np.reshape(gradient, x.shape)


@right("gradient_check")
def unit_vectors(f, x, h=1e-5):
    return each_entry(f, x, lambda e: (f(x + h * e) - f(x - h * e)) / (2 * h))


@right("gradient_check")
def in_place_and_put_back(f, x, h=1e-5):
    gradient = np.empty(x.shape)
    for i in np.ndindex(x.shape):
        kept = x[i]
        x[i] = kept + h
        up = f(x)
        x[i] = kept - h
        down = f(x)
        x[i] = kept
        gradient[i] = (up - down) / h / 2
    return gradient


@right("gradient_check")
def flattened(f, x, h=1e-5):
    flat = x.ravel()
    moved = [flat + sign * h * row for row in np.eye(flat.size) for sign in (1, -1)]
    values = np.array([f(each.reshape(x.shape)) for each in moved]).reshape(-1, 2)
    return ((values[:, 0] - values[:, 1]) / (2 * h)).reshape(x.shape)


# ------------------------------------------------------------------------------------------------ unbroadcast


def ones_of(shape):
    return tuple(axis for axis, size in enumerate(shape) if size == 1)


def front(gradient, shape):
    return tuple(range(gradient.ndim - len(shape)))


@wrong("unbroadcast", says="Axes of length 1 were stretched, too")
def new_axes_only(gradient, shape):
    while gradient.ndim > len(shape):
        gradient = gradient.sum(axis=0)
    return gradient


@wrong("unbroadcast", says="It averages")
def mean_for_sum(gradient, shape):
    return gradient.mean(axis=front(gradient, shape)).mean(axis=ones_of(shape), keepdims=True)


@wrong("unbroadcast", says="shapes are aligned at the right")
def axes_at_the_end(gradient, shape):
    while gradient.ndim > len(shape):
        gradient = gradient.sum(axis=-1)
    return gradient.sum(axis=ones_of(shape), keepdims=True)


@wrong("unbroadcast", says="one axis at most")
def one_axis_off(gradient, shape):
    if gradient.ndim != len(shape):
        gradient = gradient.sum(axis=0)
    for axis in ones_of(shape):
        gradient = gradient.sum(axis=axis, keepdims=True)
    return gradient


@wrong("unbroadcast", says="keepdims")
def axes_of_length_one_dropped(gradient, shape):
    return gradient.sum(axis=front(gradient, shape)).sum(axis=ones_of(shape))


@wrong("unbroadcast", says="picks one of the repetitions")
def first_of_each(gradient, shape):
    gradient = gradient[(0,) * (gradient.ndim - len(shape))]
    return gradient[tuple(slice(1) if size == 1 else slice(None) for size in shape)]


@wrong("unbroadcast", says="The axes in front have to go")
def keeps_every_axis(gradient, shape):
    padded = (1,) * (gradient.ndim - len(shape)) + tuple(shape)
    return gradient.sum(axis=ones_of(padded), keepdims=True)


@wrong("unbroadcast", says="picks one of the repetitions")
def resized(gradient, shape):
    return np.resize(gradient, shape)


@right("unbroadcast")
def axis_by_axis(gradient, shape):
    while gradient.ndim > len(shape):
        gradient = gradient.sum(axis=0)
    for axis, size in enumerate(shape):
        if size == 1:
            gradient = gradient.sum(axis=axis, keepdims=True)
    return gradient


@right("unbroadcast")
def sum_and_reshape(gradient, shape):
    padded = (1,) * (gradient.ndim - len(shape)) + tuple(shape)
    axes = tuple(i for i, (wide, size) in enumerate(zip(gradient.shape, padded, strict=True)) if wide != size)
    return gradient.sum(axis=axes).reshape(shape)


@right("unbroadcast")
def by_autograd(gradient, shape):
    leaf = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    (leaf + torch.zeros(gradient.shape)).backward(torch.tensor(gradient))
    return leaf.grad


# ------------------------------------------------------------------------------------------------ linear_backward


@wrong("linear_backward", says="It is transposed: dW has the shape of W")
def weights_transposed(dZ, X, W):
    return dZ @ W, X.T @ dZ, dZ.sum(axis=0)


@wrong("linear_backward", says="once is enough")
def divides_by_the_batch(dZ, X, W):
    return dZ @ W, dZ.T @ X / len(X), dZ.mean(axis=0)


@wrong("linear_backward", says="the mean over the batch: contributions add up")
def mean_of_the_bias(dZ, X, W):
    return dZ @ W, dZ.T @ X, dZ.mean(axis=0)


@wrong("linear_backward", says="It sums over the outputs")
def bias_over_the_wrong_axis(dZ, X, W):
    return dZ @ W, dZ.T @ X, dZ.sum(axis=1)


@wrong("linear_backward", says="Two shapes do not fit")
def input_by_transposed_weights(dZ, X, W):
    return dZ @ W.T, dZ.T @ X, dZ.sum(axis=0)


@wrong("linear_backward", says="expected (dX, dW, db)")
def only_what_is_learned(dZ, X, W):
    return dZ.T @ X, dZ.sum(axis=0)


@wrong("linear_backward", says="wrong sign")
def downhill_already(dZ, X, W):
    return dZ @ W, -dZ.T @ X, -dZ.sum(axis=0)


@wrong("linear_backward", says="An axis of length 1 is missing")
def squeezed(dZ, X, W):
    return dZ @ W, (dZ.T @ X).squeeze(), dZ.sum(axis=0)


@right("linear_backward")
def with_einsum(dZ, X, W):
    return np.einsum("bk,kd->bd", dZ, W), np.einsum("bk,bd->kd", dZ, X), np.einsum("bk->k", dZ)


@right("linear_backward")
def example_by_example(dZ, X, W):
    dW = sum(np.outer(d, x) for d, x in zip(dZ, X, strict=True))
    return [[d @ column for column in W.T] for d in dZ], dW, sum(dZ)


@right("linear_backward")
def transposed_twice(dZ, X, W):
    return (W.T @ dZ.T).T, (X.T @ dZ).T, np.ones(len(X)) @ dZ


# ------------------------------------------------------------------------------------------------ p - y


def probabilities(Z):
    return scipy.special.softmax(Z, axis=1)


@wrong("softmax_cross_entropy_backward", says="divide by B")
def sum_of_the_batch(Z, y):
    P = probabilities(Z)
    P[np.arange(len(y)), y] -= 1
    return P


@wrong("softmax_cross_entropy_backward", says="The truth is not subtracted")
def only_p(Z, y):
    return probabilities(Z) / len(y)


@wrong("softmax_cross_entropy_backward", says="The sign is turned round")
def truth_minus_p(Z, y):
    return (np.eye(Z.shape[1])[y] - probabilities(Z)) / len(y)


@wrong("softmax_cross_entropy_backward", says="Softmax runs over the batch")
def softmax_down_the_columns(Z, y):
    return (scipy.special.softmax(Z, axis=0) - np.eye(Z.shape[1])[y]) / len(y)


@wrong("softmax_cross_entropy_backward", says="takes these columns in every row")
def all_rows_of_the_columns(Z, y):
    P = probabilities(Z)
    P[:, y] -= 1
    return P / len(y)


@wrong("softmax_cross_entropy_backward", says="exp overflows")
def no_shift(Z, y):
    E = np.exp(Z)
    P = E / E.sum(axis=1, keepdims=True)
    P[np.arange(len(y)), y] -= 1
    return P / len(y)


@wrong("softmax_cross_entropy_backward", says="subtract each row's own")
def one_shift_for_all(Z, y):
    E = np.exp(Z - Z.max())
    P = E / E.sum(axis=1, keepdims=True)
    P[np.arange(len(y)), y] -= 1
    return P / len(y)


@wrong("softmax_cross_entropy_backward", says="changes its input Z")
def in_the_logits(Z, y):
    Z -= Z.max(axis=1, keepdims=True)
    P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    P[np.arange(len(y)), y] -= 1
    return P / len(y)


@right("softmax_cross_entropy_backward")
def with_one_hot(Z, y):
    return (probabilities(Z) - np.eye(Z.shape[1])[y]) / len(y)


@right("softmax_cross_entropy_backward")
def by_logarithms(Z, y):
    log_p = Z - scipy.special.logsumexp(Z, axis=1)[:, None]
    return (np.exp(log_p) - (np.arange(Z.shape[1]) == y[:, None])) / Z.shape[0]


@right("softmax_cross_entropy_backward")
def row_by_row(Z, y):
    rows = []
    for z, k in zip(Z, y, strict=True):
        e = [math.exp(v - max(z)) for v in z]
        rows.append([(v / sum(e) - (j == k)) / len(y) for j, v in enumerate(e)])
    return rows


# ------------------------------------------------------------------------------------------------ mlp_gradients


def run(X, y, layers, last_relu=False):
    inputs = [X]
    for n, (W, b) in enumerate(layers):
        Z = inputs[-1] @ W.T + b
        inputs.append(np.maximum(0, Z) if last_relu or n + 1 < len(layers) else Z)
    Z = inputs.pop()
    loss = (scipy.special.logsumexp(Z, axis=1) - Z[np.arange(len(y)), y]).mean()
    return inputs, Z, loss


def descend(inputs, layers, dZ, mask=lambda A: A > 0, factor=1.0):
    gradients = []
    for (W, _), A in zip(layers[::-1], inputs[::-1], strict=True):
        gradients.insert(0, (dZ.T @ A * factor, dZ.sum(0) * factor))
        dZ = (dZ @ W) * mask(A)
    return gradients


def p_minus_y(Z, y):
    return (probabilities(Z) - np.eye(Z.shape[1])[y]) / len(y)


@wrong("mlp_gradients", says="ReLU's mask is missing")
def mask_forgotten(X, y, layers):
    inputs, Z, loss = run(X, y, layers)
    return loss, descend(inputs, layers, p_minus_y(Z, y), mask=lambda A: 1)


@wrong("mlp_gradients", says="turn the list round")
def in_the_order_of_backward(X, y, layers):
    inputs, Z, loss = run(X, y, layers)
    return loss, descend(inputs, layers, p_minus_y(Z, y))[::-1]


@wrong("mlp_gradients", says="The 1/B of the mean is in p − y already")
def mean_in_each_layer(X, y, layers):
    inputs, Z, loss = run(X, y, layers)
    return loss, descend(inputs, layers, p_minus_y(Z, y), factor=1 / len(y))


@wrong("mlp_gradients", says="exp of a large number overflows")
def loss_not_shifted(X, y, layers):
    inputs, Z, _ = run(X, y, layers)
    P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
    return -np.log(P[np.arange(len(y)), y]).mean(), descend(inputs, layers, p_minus_y(Z, y))


@wrong("mlp_gradients", says="The layers after it are right")
def mask_of_the_gradient(X, y, layers):
    inputs, Z, loss = run(X, y, layers)
    gradients, dZ = [], p_minus_y(Z, y)
    for (W, _), A in zip(layers[::-1], inputs[::-1], strict=True):
        gradients.insert(0, (dZ.T @ A, dZ.sum(0)))
        dZ = np.maximum(0, dZ @ W)
    return loss, gradients


@wrong("mlp_gradients", says="changes its input layers")
def steps_in_place(X, y, layers):
    inputs, Z, loss = run(X, y, layers)
    gradients = descend(inputs, layers, p_minus_y(Z, y))
    for (W, b), (dW, db) in zip(layers, gradients, strict=True):
        W -= 0.1 * dW
        b -= 0.1 * db
    return loss, gradients


@wrong("mlp_gradients", says="is a pair, (dW, db)")
def one_flat_list(X, y, layers):
    inputs, Z, loss = run(X, y, layers)
    return loss, [array for pair in descend(inputs, layers, p_minus_y(Z, y)) for array in pair]


@wrong("mlp_gradients", says="one loss for each example")
def loss_without_mean(X, y, layers):
    inputs, Z, _ = run(X, y, layers)
    losses = scipy.special.logsumexp(Z, axis=1) - Z[np.arange(len(y)), y]
    return losses, descend(inputs, layers, p_minus_y(Z, y))


@right("mlp_gradients")
def with_masks_kept(X, y, layers):
    inputs, masks, A = [], [], X
    for W, b in layers:
        inputs.append(A)
        Z = A @ W.T + b
        masks.append(Z > 0)
        A = Z * masks[-1]
    loss = float((scipy.special.logsumexp(Z, axis=1) - Z[np.arange(len(y)), y]).mean())
    d, gradients = p_minus_y(Z, y), [None] * len(layers)
    for n in reversed(range(len(layers))):
        gradients[n] = [d.T @ inputs[n], d.sum(axis=0)]
        if n:
            d = d @ layers[n][0] * masks[n - 1]
    return loss, gradients


@right("mlp_gradients")
def by_recursion(X, y, layers):
    def go(A, n):
        W, b = layers[n]
        Z = A @ W.T + b
        if n + 1 == len(layers):
            value, dZ, rest = (scipy.special.logsumexp(Z, axis=1) - Z[np.arange(len(y)), y]).mean(), p_minus_y(Z, y), []
        else:
            value, dA, rest = go(np.maximum(Z, 0), n + 1)
            dZ = np.where(Z > 0, dA, 0)
        return value, dZ @ W, [(dZ.T @ A, dZ.sum(0)), *rest]

    loss, _, gradients = go(X, 0)
    return loss, gradients


@right("mlp_gradients")
def by_torch(X, y, layers):
    tensors = [[torch.tensor(a, requires_grad=True) for a in layer] for layer in layers]
    A = torch.tensor(X)
    for n, (W, b) in enumerate(tensors):
        A = F.linear(A.relu() if n else A, W, b)
    loss = F.cross_entropy(A, torch.tensor(y))
    loss.backward()
    return loss.item(), [(W.grad, b.grad) for W, b in tensors]


# ------------------------------------------------------------------------------------------------ momentum_step


@wrong("momentum_step", says="an average")
def average_of_gradients(W, g, V, eta, mu):
    V = mu * V + (1 - mu) * g
    return W - eta * V, V


@wrong("momentum_step", says="η is inside V")
def rate_in_the_velocity(W, g, V, eta, mu):
    V = mu * V + eta * g
    return W - V, V


@wrong("momentum_step", says="V = μV − ηg with W + V is another convention")
def ball_downhill(W, g, V, eta, mu):
    V = mu * V - eta * g
    return W + V, V


@wrong("momentum_step", says="W moves by the old V")
def weights_first(W, g, V, eta, mu):
    return W - eta * V, mu * V + g


@wrong("momentum_step", says="W goes uphill")
def plus(W, g, V, eta, mu):
    V = mu * V + g
    return W + eta * V, V


@wrong("momentum_step", says="Nesterov")
def looks_ahead(W, g, V, eta, mu):
    V = mu * V + g
    return W - eta * (g + mu * V), V


@wrong("momentum_step", says="changes its input V")
def in_place(W, g, V, eta, mu):
    V *= mu
    V += g
    return W - eta * V, V


@wrong("momentum_step", says="expected (W, V)")
def weights_only(W, g, V, eta, mu):
    return W - eta * (mu * V + g)


@right("momentum_step")
def new_names(W, g, V, eta, mu):
    velocity = np.add(mu * V, g)
    return np.subtract(W, eta * velocity), velocity


@right("momentum_step")
def written_out(W, g, V, eta, mu):
    return W - eta * mu * V - eta * g, V * mu + g


@right("momentum_step")
def in_copies(W, g, V, eta, mu):
    W, V = W.copy(), V.copy()
    V *= mu
    V += g
    W -= eta * V
    return W, V


@right("momentum_step")
def entry_by_entry(W, g, V, eta, mu):
    new_W, new_V = np.empty_like(W), np.empty_like(V)
    for i in itertools.product(*map(range, W.shape)):
        new_V[i] = mu * V[i] + g[i]
        new_W[i] = W[i] - eta * new_V[i]
    return [new_W, new_V]


@wrong("unbroadcast", says="only once the axes in front are gone")
def ones_before_front(gradient, shape):
    for axis, size in enumerate(shape):
        if size == 1:
            gradient = gradient.sum(axis=axis, keepdims=True)
    while gradient.ndim > len(shape):
        gradient = gradient.sum(axis=0)
    return gradient


@wrong("softmax_cross_entropy_backward", says="y.max() + 1 is not the number of classes")
def classes_of_the_batch(Z, y):
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return (E / E.sum(axis=1, keepdims=True) - np.eye(y.max() + 1)[y]) / len(y)
