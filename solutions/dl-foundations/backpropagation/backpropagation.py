# %% [markdown]
# # Backpropagation
#
# Last time one line was taken on trust: `loss.backward()` found 203,530 derivatives in a few milliseconds. Now you write that line yourself:
# first for single numbers, in an engine that differentiates any formula, then for arrays, fast enough to train a network on all of MNIST with nothing but NumPy.
# All derivations are in the [README](README.md); forward pass, softmax and cross-entropy are in
# [perceptron-and-mlp](../perceptron-and-mlp/README.md).

# %%
import math
import weakref

import matplotlib.pyplot as plt
import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint_sequential

import atlas
from atlas import plot

lab = atlas.open("backpropagation")
mnist = atlas.data.load("mnist")
mnist

# %% [markdown]
# ## 1 · Derivatives flow along a graph (5 min)
#
# Every formula is a graph of small operations. Take $L = (a b + c)^2$ with $a = 2$, $b = -3$, $c = 10$. Forward, from the leaves to the end:
# $d = ab = -6$, $e = d + c = 4$, $L = e^2 = 16$.
#
# How does $L$ change with each number? Begin at the end, where it is plain: $\partial L / \partial L = 1$. Then one operation at a time, backwards, with the chain rule:
#
# | step | local derivative | so |
# |---|---|---|
# | $L = e^2$ | $\partial L/\partial e = 2e = 8$ | $\bar e = 8$ |
# | $e = d + c$ | $\partial e/\partial d = 1$, $\partial e / \partial c = 1$ | $\bar d = 8$, $\bar c = 8$ |
# | $d = a b$ | $\partial d/\partial a = b = -3$, $\partial d/\partial b = a = 2$ | $\bar a = -24$, $\bar b = 16$ |
#
# $\bar v$ is short for $\partial L / \partial v$, the *gradient* of $v$. Each operation needs to know its own local derivative, and the gradient that arrives
# from the operation that used it. It multiplies the two and hands the product on. That is all of backpropagation.
#
# If a number is used twice, $L$ depends on it along two paths, and the contributions **add up**: for $L = a \cdot a$ it is $\bar a = a + a = 2a$.
#
# ![The graph of L = (ab + c)². Black numbers run forward from a, b, c to L = 16; orange numbers run back from 1 at L to −24, 16 and 8 at the leaves.](figures/graph.svg)

# %%
a, b, c = 2.0, -3.0, 10.0
h = 1e-6
L = (a * b + c) ** 2
print(f"L = {L}. It changes by so much for each unit of")
print(f"a: {(((a + h) * b + c) ** 2 - L) / h:8.3f}")
print(f"b: {((a * (b + h) + c) ** 2 - L) / h:8.3f}")
print(f"c: {((a * b + c + h) ** 2 - L) / h:8.3f}")

# %% [markdown]
# ## 2 · A value that remembers where it came from (19 min)
#
# We wrap each number in a `Value`. It keeps its `data`, its gradient `grad` (0 at first), the values that it was computed from (`parents`), and a small function `push` that takes the gradient of this
# value and adds each parent's share to the parent's `grad`. An operation makes a new `Value` and its `push` together. Addition is written for you:
#
# - forward: `self.data + other.data`;
# - local derivatives: 1 for both, so `push` adds `out.grad` to both gradients. It **adds** (`+=`): the parent may be used elsewhere too.
#
# The others follow the same pattern. Their local derivatives:
#
# | operation | forward | derivative |
# |---|---|---|
# | $xy$ | `x * y` | $y$ for $x$, and $x$ for $y$ |
# | $x^n$, $n$ a fixed number | `x ** n` | $n x^{n-1}$ |
# | $e^x$ | `math.exp(x)` | $e^x$, the result itself |
# | $\max(0, x)$ | `max(0.0, x)` | 1 where $x > 0$, else 0 |
# | $\tanh x$ | `math.tanh(x)` | $1 - \tanh^2 x$, from the result too |


# %%
class Value:
    """A number in a graph of operations.

    data: the number. grad: the derivative of the end result by it, once `backward` has run.
    parents: the values that it was computed from. push: adds this value's grad, times the local
    derivative, to each parent's grad.
    """

    def __init__(self, data, parents=()):
        self.data = float(data)
        self.grad = 0.0
        self.parents = parents
        self.push = lambda: None

    def __repr__(self):
        return f"Value({self.data:.4g}, grad={self.grad:.4g})"

    def __add__(self, other):
        other = as_value(other)
        out = Value(self.data + other.data, (self, other))

        def push():
            self.grad += out.grad
            other.grad += out.grad

        out.push = push
        return out

    def __mul__(self, other):
        other = as_value(other)
        # TODO: like __add__: the product, its two parents, and a push with the local derivatives.
        ### BEGIN SOLUTION
        out = Value(self.data * other.data, (self, other))

        def push():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad

        out.push = push
        return out
        ### END SOLUTION

    def __pow__(self, n):
        # TODO: self to the power n, where n is a plain number (not a Value). One parent.
        ### BEGIN SOLUTION
        out = Value(self.data**n, (self,))

        def push():
            self.grad += n * self.data ** (n - 1) * out.grad

        out.push = push
        return out
        ### END SOLUTION

    def exp(self):
        # TODO: e to the power of self.
        ### BEGIN SOLUTION
        out = Value(math.exp(self.data), (self,))

        def push():
            self.grad += out.data * out.grad

        out.push = push
        return out
        ### END SOLUTION

    def relu(self):
        # TODO: self where it is positive, else 0.
        ### BEGIN SOLUTION
        out = Value(max(0.0, self.data), (self,))

        def push():
            self.grad += (self.data > 0) * out.grad

        out.push = push
        return out
        ### END SOLUTION

    def tanh(self):
        # TODO: the hyperbolic tangent of self.
        ### BEGIN SOLUTION
        out = Value(math.tanh(self.data), (self,))

        def push():
            self.grad += (1 - out.data**2) * out.grad

        out.push = push
        return out
        ### END SOLUTION

    # the rest follows from these
    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -as_value(other)

    def __truediv__(self, other):
        return self * as_value(other) ** -1

    # Python asks these where a number stands on the left, as in 2 * v
    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other):
        return -self + other

    def __rtruediv__(self, other):
        return self**-1 * other


def as_value(x):
    """x itself if it is a Value, else a new Value of the number x."""
    return x if isinstance(x, Value) else Value(x)


lab.check(Value)

# %% [markdown]
# Try it on the formula above: forward happens as you write it, backward by hand, from the end.

# %%
a, b, c = Value(2), Value(-3), Value(10)
d = a * b
e = d + c
L = e**2
L.grad = 1.0
for v in (L, e, d):  # each before its parents
    v.push()
print("a", a, " b", b, " c", c)

# %% [markdown]
# **Question.** Why must `e.push()` run before `d.push()`? What would come out the other way round?
#
# <details><summary>Answer</summary>
#
# Before `e.push()` has run, `d.grad` is still 0, and so $a$ and $b$ would get 0.
# A value may push only when *everything that it was used for* has pushed.
#
# </details>

# %% tags=["instructor"]
assert (a.grad, b.grad, c.grad) == (-24, 16, 8)

# %% [markdown]
# ## 3 · Backward through the whole graph (15 min)
#
# Each value has to push before its parents do. A depth-first walk finds such a *topological order*: visit the parents first, then
# append yourself. In the list that results, parents stand before what was computed from them; read it backwards.
#
# Each value may appear **once**, though it may be reached along several paths: keep a set of what has been visited. Each call to `backward` begins with gradients of 0 everywhere in the graph, so that
# calling it twice gives the same numbers (in PyTorch gradients add up until you call `zero_grad`).
#
# Graphs get deep: a sum of 5,000 terms is a chain of 5,000 additions, and Python stops functions that call themselves more than about 1,000 times. So keep a list of your own for what is still to be done. One that works:
# a stack of pairs (value, whether its parents are done).


# %%
def backward(root):
    """Set v.grad to the derivative of root by v, for every Value v that root was computed from.

    root.grad is 1. What was in grad before does not count. Works for graphs of any depth.
    """
    order, visited, stack = [], set(), [(root, False)]
    # TODO: pop pairs from the stack until `order` holds each value once, after its parents. Then
    # set all grads to 0, root.grad to 1, and push, from the end of the order to its beginning.
    ### BEGIN SOLUTION
    while stack:
        value, parents_done = stack.pop()
        if parents_done:
            order.append(value)
        elif value not in visited:
            visited.add(value)
            stack.append((value, True))
            stack.extend((parent, False) for parent in value.parents)
    for value in order:
        value.grad = 0.0
    root.grad = 1.0
    for value in reversed(order):
        value.push()
    ### END SOLUTION


lab.check(backward)

# %% [markdown]
# Your engine differentiates any formula now: here a neuron with a sigmoid and a cross-entropy loss, on one example, next to PyTorch.

# %%
numbers = {"w1": 2.0, "w2": -1.0, "b": -0.5, "x1": 1.0, "x2": 3.0}


def neuron_loss(w1, w2, b, x1, x2, log):
    """Cross-entropy -log σ(-z) of a neuron that should say 0, with z = w·x + b."""
    z = w1 * x1 + w2 * x2 + b
    return log(1 + z.exp())


def log_of_value(v):
    """The logarithm of a Value: one more operation, made like the others. Its derivative is 1/v."""
    out = Value(math.log(v.data), (v,))

    def push():
        v.grad += out.grad / v.data

    out.push = push
    return out


mine = {name: Value(number) for name, number in numbers.items()}
backward(neuron_loss(**mine, log=log_of_value))
as_tensor = {"dtype": torch.float64, "requires_grad": True}
theirs = {name: torch.tensor(number, **as_tensor) for name, number in numbers.items()}
neuron_loss(**theirs, log=torch.log).backward()
for name in numbers:
    yours, exact = mine[name].grad, theirs[name].grad.item()
    print(f"d loss / d {name:2}   yours {yours:+.12f}   PyTorch {exact:+.12f}")

# %% [markdown]
# **Question.** The engine handles 203,530 weights in principle. Why would nobody train with it?
#
# <details><summary>Answer</summary>
#
# Each multiplication of two numbers makes a Python object, a closure and a tuple, and one forward pass of that network on one image takes about 200,000. The idea scales, the bookkeeping per
# *number* does not. The cure in section 5: nodes that hold arrays.
#
# </details>

# %% tags=["instructor"]
assert all(abs(mine[n].grad - theirs[n].grad.item()) < 1e-12 for n in numbers)

# %% [markdown]
# ## 4 · Trust is good, a gradient check is better (11 min)
#
# A wrong gradient seldom crashes: the loss still falls, only slower. So compare every gradient that you write with one that needs no calculus.
# The *central difference* nudges an input both ways:
#
# $$\frac{\partial f}{\partial x_i} \approx \frac{f(x + h e_i) - f(x - h e_i)}{2h}$$
#
# where $e_i$ is 1 at entry $i$ and 0 elsewhere. Its error has two parts. *Truncation*: the Taylor series leaves $\frac{h^2}{6} f'''$. *Round-off*: $f$ is known to about $\varepsilon = 2.2 \cdot 10^{-16}$ relative, so the
# quotient is wrong by about $\varepsilon |f| / h$, which grows as $h$ shrinks. The sum is smallest near $h \approx \sqrt[3]{\varepsilon} \approx 6 \cdot 10^{-6}$ (for $f$ and $f'''$ of size 1).


# %%
def gradient_check(f, x, h=1e-5):
    """The gradient of f at x by central differences.

    f: takes an array of x's shape and returns a number.
    x: float64 array of any shape; it is exactly the same afterwards.
    h: the step. Returns an array of x's shape.
    """
    # TODO: for each entry of x, f with it h higher, f with it h lower, the difference over 2h.
    ### BEGIN SOLUTION
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        gradient[i] = (f(up) - f(down)) / (2 * h)
    return gradient
    ### END SOLUTION


lab.check(gradient_check)

# %% [markdown]
# See both errors at once: the derivative of $\sin$ at 1, by differences with steps from $10^{-1}$ down to $10^{-15}$.

# %%
steps = 10.0 ** np.arange(-1, -15.1, -0.5)
truth = math.cos(1.0)
at = np.array([1.0])
central = [abs(gradient_check(lambda v: np.sin(v[0]), at, h)[0] - truth) for h in steps]
one_sided = [abs((math.sin(1 + h) - math.sin(1)) / h - truth) for h in steps]
ax = plot.curves(
    {"central": (steps, central), "one-sided": (steps, one_sided)},
    xlabel="step h",
    ylabel="error of the derivative",
    xscale="log",
    yscale="log",
    title="Too large a step truncates, too small a step rounds off (dotted: ∛ε)",
)
_ = ax.axvline(np.finfo(float).eps ** (1 / 3), color="0.5", linestyle=":")

# %% [markdown]
# **Question.** How do the two slopes at the right differ, and what happens if you check gradients in 32-bit floats?
#
# <details><summary>Answer</summary>
#
# With the step ten times smaller the central error falls a hundredfold ($h^2$), the one-sided error tenfold ($h$). In 32-bit floats $\varepsilon = 1.2 \cdot 10^{-7}$: the best step is near $5 \cdot 10^{-3}$, and even there only four or five digits
# remain. Check gradients in 64-bit.
#
# </details>

# %% tags=["instructor"]
best = steps[int(np.argmin(central))]
assert 1e-7 < best < 1e-4
assert min(central) < 1e-10 < 1e-9 < min(one_sided)

# %% [markdown]
# **Break.** After it: arrays.

# %% [markdown]
# ## 5 · From numbers to arrays (16 min)
#
# The graph stays, its nodes become arrays, and $\bar A$, the gradient of an array $A$, has the **shape of $A$**: one derivative for each entry. Two building blocks carry the whole network.
#
# **Broadcasting undone.** In $Z = A + b$ with $A$ (B, K) and $b$ (K,), NumPy uses $b$ once for each row, so $B$ contributions add up: $\bar b = \sum_i \bar Z_i$. In general, the gradient of an array that broadcasting *repeated* is the *sum* over the
# repetitions: over axes that were added in front, and over axes of length 1 that were stretched (those stay, with length 1).
#
# By hand: $\bar Z$ of shape (2, 3) is $\begin{pmatrix}1&2&3\\4&5&6\end{pmatrix}$. For $b$ of shape (3,): $(5, 7, 9)$. For shape (2, 1): $\begin{pmatrix}6\\15\end{pmatrix}$. For a number, shape (): $21$.


# %%
def unbroadcast(gradient, shape):
    """Sum a gradient over what broadcasting repeated.

    gradient: array of the shape that `shape` was broadcast to. Returns an array of shape `shape`.
    """
    # TODO: sum over the axes that `shape` does not have (the first ones), then over those where
    # it has length 1 (keepdims).
    ### BEGIN SOLUTION
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(extra)))
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=stretched, keepdims=True)
    ### END SOLUTION


lab.check(unbroadcast)

# %% [markdown]
# **The linear layer.** $Z = X W^{\top} + b$ with $X$ (B, in), $W$ (out, in), $b$ (out,). Given $\bar Z$ (B, out):
#
# $$\bar X = \bar Z\, W, \qquad \bar W = \bar Z^{\top} X, \qquad \bar b = \textstyle\sum_i \bar Z_i$$
#
# Entry by entry, $Z_{ik} = \sum_j X_{ij} W_{kj} + b_k$, so $X_{ij}$ reaches every $Z_{ik}$ with factor $W_{kj}$: $\bar X_{ij} = \sum_k \bar Z_{ik} W_{kj}$. The same for $W_{kj}$, which reaches every row $i$ with factor $X_{ij}$. And the shapes leave no choice:
# from (B, out) and (out, in) only $\bar Z W$ makes (B, in).


# %%
def linear_backward(dZ, X, W):
    """Gradients of a linear layer Z = X Wᵀ + b.

    dZ: (B, out), the gradient of Z. X: (B, in). W: (out, in).
    Returns dX (B, in), dW (out, in), db (out,).
    """
    # TODO: three lines, from the formulas above.
    ### BEGIN SOLUTION
    dX = dZ @ W  # (B, out)(out, in)
    dW = dZ.T @ X  # (out, B)(B, in)
    db = unbroadcast(dZ, (len(W),))  # (out,): b was repeated for each row
    return dX, dW, db
    ### END SOLUTION


lab.check(linear_backward)

# %% [markdown]
# **Question.** $\bar W = \bar Z^{\top} X$ sums over the batch without a $\sum$ in sight. Where is it? And where does the $1/B$ of the mean loss come in?
#
# <details><summary>Answer</summary>
#
# In the matrix product: $(\bar Z^{\top} X)_{kj} = \sum_i \bar Z_{ik} X_{ij}$ runs over the rows, which are the examples. The $1/B$ is part of $\bar Z$ already: it enters once, at the loss, and the chain rule carries it down. Dividing again in each layer is a common bug.
#
# </details>

# %% [markdown]
# ## 6 · The gradient of softmax and cross-entropy (8 min)
#
# For one row of logits $z$ with right class $y$: $L = -z_y + \log \sum_j e^{z_j}$. Differentiate by $z_k$:
#
# $$\frac{\partial L}{\partial z_k} = -[k = y] + \frac{e^{z_k}}{\sum_j e^{z_j}} = p_k - [k = y]$$
#
# where $[k = y]$ is 1 if $k = y$, else 0: **p − y**, the model's probabilities minus the truth. For the mean over $B$ rows each row is divided by $B$.
#
# By hand: $z = (2, 1, 0)$, $y = 1$, $B = 1$: $p = (0.665, 0.245, 0.090)$, so the gradient is $(0.665, -0.755, 0.090)$. It adds up to 0: what the right class gains, the others lose.


# %%
def softmax_cross_entropy_backward(Z, y):
    """The gradient of the mean cross-entropy by the logits.

    Z: (B, K) logits of any size, y: (B,) right classes. Returns (B, K).
    """
    # TODO: probabilities (shift each row by its maximum), minus 1 at the right class, divided by B.
    ### BEGIN SOLUTION
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    dZ = E / E.sum(axis=1, keepdims=True)  # (B, K)
    dZ[np.arange(len(y)), y] -= 1
    return dZ / len(y)
    ### END SOLUTION


lab.check(softmax_cross_entropy_backward)

# %% [markdown]
# ## 7 · A network that learns, from NumPy alone (20 min)
#
# Now put the pieces in a row. Forward, keep what backward will need: the input of each layer, and which hidden entries were positive. Backward, begin with $p - y$ at the logits and go down: linear, ReLU, linear, ...
#
# ReLU passes a gradient where its input was positive and stops it elsewhere: $\bar Z = \bar A \cdot [Z > 0]$. (At exactly 0 it has no derivative; by convention we take 0, like PyTorch.)


# %%
def mlp_gradients(X, y, layers):
    """Loss and all gradients of an MLP: ReLU between its layers, mean cross-entropy at the end.

    X: (B, D), y: (B,) classes, layers: list of (W, b), W (out, in), b (out,).
    Nothing given is changed. Returns loss (a number) and a list of (dW, db), in the layers' order.
    """
    # TODO: forward, keeping each layer's input; the loss (stable log-sum-exp); backward: p − y,
    # then linear_backward.
    ### BEGIN SOLUTION
    inputs = [X]
    for W, b in layers[:-1]:
        inputs.append(np.maximum(0, inputs[-1] @ W.T + b))
    W, b = layers[-1]
    Z = inputs[-1] @ W.T + b  # (B, K)
    m = Z.max(axis=1)
    loss = (m + np.log(np.exp(Z - m[:, None]).sum(axis=1)) - Z[np.arange(len(y)), y]).mean()

    gradients = []
    dZ = softmax_cross_entropy_backward(Z, y)
    for (W, _), A in zip(reversed(layers), reversed(inputs), strict=True):
        dA, dW, db = linear_backward(dZ, A, W)
        gradients.append((dW, db))
        dZ = dA * (A > 0)  # A = ReLU(Z) is positive exactly where Z is
    return loss, gradients[::-1]
    ### END SOLUTION


lab.check(mlp_gradients)

# %% [markdown]
# Check it yourself, on real digits: your gradients, central differences, and PyTorch.

# %%
rng = np.random.default_rng(0)


def he_layers(widths, dtype=np.float64):
    """Random layers with standard deviation √(2/in) (why: next workshop)."""
    return [
        (rng.normal(0, np.sqrt(2 / n_in), (n_out, n_in)).astype(dtype), np.zeros(n_out, dtype))
        for n_in, n_out in zip(widths[:-1], widths[1:], strict=True)
    ]


small = mnist.x_train[:32, ::4, ::4].reshape(32, 49) / 255.0  # every fourth pixel: 7 × 7
right = mnist.y_train[:32]
layers = he_layers([49, 12, 10])
loss, gradients = mlp_gradients(small, right, layers)


def loss_with_W1(W1):
    return mlp_gradients(small, right, [(W1, layers[0][1]), layers[1]])[0]


by_differences = gradient_check(loss_with_W1, layers[0][0])
tensors = [torch.tensor(array, requires_grad=True) for layer in layers for array in layer]
W1, b1, W2, b2 = tensors
torch_logits = torch.relu(torch.tensor(small) @ W1.T + b1) @ W2.T + b2
nn.functional.cross_entropy(torch_logits, torch.tensor(right)).backward()
mine = [array for layer in gradients for array in layer]
print("largest differences")
for name, yours, tensor in zip(("dW1", "db1", "dW2", "db2"), mine, tensors, strict=True):
    print(f"{name} to PyTorch {np.abs(yours - tensor.grad.numpy()).max():.1e}")
print(f"dW1 to central differences {np.abs(mine[0] - by_differences).max():.1e}")

# %% tags=["instructor"]
assert all(np.abs(m - t.grad.numpy()).max() < 1e-12 for m, t in zip(mine, tensors, strict=True))
assert np.median(np.abs(mine[0] - by_differences)) < 1e-9
assert np.mean(np.abs(mine[0] - by_differences) > 1e-6) < 0.1  # none here; a step across a kink with other weights

# %% [markdown]
# They agree. (With other random weights it happens, rarely, that a step crosses a ReLU's kink; then a few entries differ more.)
#
# Now MNIST (LeCun et al., 1998; licence CC BY-SA 3.0): 55,000 images to train on, 5,000 for validation, in 32-bit floats, plain gradient descent on batches of 64. No framework in sight. About 8 s.

# %%
threadpool_limits(1, "blas")  # such small matrices one core multiplies faster than two
X_all = (mnist.x_train.reshape(-1, 784) / 255.0).astype(np.float32)
X_test = (mnist.x_test.reshape(-1, 784) / 255.0).astype(np.float32)
X_train, X_val = X_all[:55_000], X_all[55_000:]
y_train, y_val, y_test = mnist.y_train[:55_000], mnist.y_train[55_000:], mnist.y_test


def answers(X, layers):
    """The class of each row of X (N, D): forward pass only."""
    A = X
    for W, b in layers[:-1]:
        A = np.maximum(0, A @ W.T + b)
    return (A @ layers[-1][0].T + layers[-1][1]).argmax(1)


def train(layers, x, y, epochs, learning_rate, batch_size=64, says=False):
    """Gradient descent; the rate falls steadily to a tenth. Returns layers and history."""
    history = {"loss_train": [], "loss_val": [], "accuracy_train": [], "accuracy_val": []}
    for epoch in range(epochs):
        rate = np.float32(learning_rate * (1 - 0.9 * epoch / max(1, epochs - 1)))
        order = rng.permutation(len(x))
        losses = []
        for batch in np.split(order, range(batch_size, len(order), batch_size)):
            loss, gradients = mlp_gradients(x[batch], y[batch], layers)
            pairs = zip(layers, gradients, strict=True)
            layers = [(W - rate * dW, b - rate * db) for (W, b), (dW, db) in pairs]
            losses.append(loss)
        history["loss_train"].append(np.mean(losses))
        history["loss_val"].append(mlp_gradients(X_val, y_val, layers)[0])
        history["accuracy_train"].append(np.mean(answers(x[:5000], layers) == y[:5000]))
        history["accuracy_val"].append(np.mean(answers(X_val, layers) == y_val))
        if says:
            print(f"epoch {epoch + 1}: validation accuracy {history['accuracy_val'][-1]:.2%}")
    return layers, history


fresh = he_layers([784, 128, 10], np.float32)
layers, history = train(fresh, X_train, y_train, epochs=8, learning_rate=0.2, says=True)

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
shown = {"loss": "NumPy brings the loss down", "accuracy": "97 % on images it never trained on"}
for ax, (what, title) in zip(axes, shown.items(), strict=True):
    pair = {split: history[f"{what}_{split}"] for split in ("train", "val")}
    plot.curves(pair, ylabel=what, title=title, ax=ax)

# %% tags=["instructor"]
assert history["accuracy_val"][-1] >= 0.97, f"the plot promises 97 %, got {history['accuracy_val'][-1]:.2%}"

# %% [markdown]
# What do gradients look like? Take one batch, and all derivatives of a fresh network and of the trained one.

# %%
_, gradients = mlp_gradients(X_train[:64], y_train[:64], layers)
_, fresh_gradients = mlp_gradients(X_train[:64], y_train[:64], fresh)
plot.histograms(
    {
        "dW1, fresh": fresh_gradients[0][0],
        "dW2, fresh": fresh_gradients[1][0],
        "dW1, trained": gradients[0][0],
        "dW2, trained": gradients[1][0],
    },
    xlabel="gradient",
    title="Training makes gradients small: little is left of p − y",
)

# %% [markdown]
# **Question.** A good part of dW1 is *exactly* zero. Which entries, and why?
#
# <details><summary>Answer</summary>
#
# $\bar W_1 = \bar Z_1^{\top} X$: the column of a pixel that is black in all 64 images is zero. Those weights learn nothing from this batch, and the pixels in the corners teach nothing in any. The row of a hidden neuron that is
# off for every example of the batch ($Z \le 0$) is zero too.
#
# </details>

# %% tags=["instructor"]
assert np.mean(fresh_gradients[0][0] == 0) > 0.2
black = (X_train[:64] == 0).all(0)
assert (fresh_gradients[0][0][:, black] == 0).all() and black.mean() > 0.2
assert gradients[0][0].std() < 0.6 * fresh_gradients[0][0].std()

# %% [markdown]
# One knob decides more than any other: the learning rate. One epoch each, on 12,000 images, with six rates. Beside it the baseline, *logistic regression*: no hidden layer, its own best of four
# rates, then all the data and as many epochs. The test set is touched here for the first time, by both.


# %%
def after_one_epoch(widths, rate):
    with np.errstate(all="ignore"):  # too high a rate overflows
        few = X_train[:12_000], y_train[:12_000]
        _, past = train(he_layers(widths, np.float32), *few, epochs=1, learning_rate=rate)
    return past["accuracy_val"][-1]


results = {r: after_one_epoch([784, 128, 10], r) for r in (0.003, 0.03, 0.1, 0.3, 1.0, 3.0)}
tried = {r: after_one_epoch([784, 10], r) for r in (0.03, 0.1, 0.3, 1.0)}
best_rate = max(tried, key=tried.get)
logistic, _ = train(he_layers([784, 10], np.float32), X_train, y_train, 8, best_rate)
test_accuracy = np.mean(answers(X_test, layers) == y_test)
logistic_accuracy = np.mean(answers(X_test, logistic) == y_test)
print(f"test: your network {test_accuracy:.2%}, logistic regression {logistic_accuracy:.2%}")
plot.curves(
    {"your network": (list(results), [100 * accuracy for accuracy in results.values()])},
    xlabel="learning rate η",
    ylabel="validation accuracy (%)",
    xscale="log",
    title="One epoch: too small is slow, too large is the end",
)

# %% [markdown]
# **Question.** A colleague's network, with gradients of his own, reaches 85 % and "just needs a better learning rate". What do you ask first?
#
# <details><summary>Answer</summary>
#
# Whether he has checked his gradients. A network learns, badly, with gradients that are wrong: with a forgotten $1/B$ in one layer, without the ReLU's mask, with a bias that never moves. Check first, tune afterwards.
#
# </details>

# %% tags=["instructor"]
assert test_accuracy >= 0.97, f"the workshop promises 97 %, got {test_accuracy:.2%}"
assert 0.91 < logistic_accuracy < 0.935
assert max(results, key=results.get) in (0.1, 0.3, 1.0)
assert results[0.003] < results[0.03] < max(results.values()) and results[0.003] < 0.8
assert results[3.0] < 0.6

# %% [markdown]
# **Break.** After it: what all this costs.

# %% [markdown]
# ## 8 · Where the memory goes (7 min)
#
# Your `mlp_gradients` keeps the list `inputs` until the backward pass has used it, since $\bar W = \bar Z^{\top} X$ needs $X$, and ReLU needs to know where it was on. A layer of width $n$ keeps $B \cdot n$ numbers of 4 bytes. For
# 784, 128, 10 and $B = 64$, by hand: $64 \cdot 784 \cdot 4 = 200{,}704$ bytes for $X$, $64 \cdot 128 \cdot 4 = 32{,}768$ for $A_1$, $64 \cdot 10 \cdot 4 = 2{,}560$ for what the loss keeps.
#
# So memory grows with $B$ and with the number of layers $L$; weights do not depend on $B$. A network of 36 layers of 256 neurons has 36 · 65,792 parameters, 9.5 MB; at $B = 1024$ it keeps $36 \cdot 1024 \cdot 256 \cdot 4$ bytes, 37.7 MB.
#
# **Checkpointing** trades memory for time. Keep the activations at every $k$-th layer only. Backward goes from one of these to the one before: it runs the $k$ layers between forward *again*, keeps their activations for this moment, and uses
# them up. So at no time are there more than
#
# $$\underbrace{L / k}_{\text{kept}} + \underbrace{k}_{\text{recomputed}}$$
#
# activations. The derivative by $k$, $-L/k^2 + 1$, is zero at $k = \sqrt L$, which leaves $2 \sqrt L$: 12 in place of 36. The price: every layer runs forward twice. Backward costs about two forward passes (two matrix products for each one of forward's: $\bar Z W$ and
# $\bar Z^{\top} X$), so a step of 3 becomes at most 4: a third more.
#
# Measure it. `Alive` watches every array that PyTorch makes and counts the bytes that are alive at the same time.


# %%
class Alive(TorchDispatchMode):
    """Counts the bytes of all arrays that are made inside `with Alive(before)`: now, and peak."""

    def __init__(self, before):
        super().__init__()
        self.now, self.peak = 0, 0
        self.known = weakref.WeakSet(tensor.untyped_storage() for tensor in before)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage)
                weakref.finalize(storage, self.gone, storage.nbytes())
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
        return result

    def gone(self, size):
        self.now -= size


torch.manual_seed(0)
L, B, width = 36, 1024, 256
deep = nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(L)))
for layer in deep:
    nn.init.kaiming_normal_(layer[0].weight, nonlinearity="relu")
x = torch.randn(B, width)
one = B * width * 4  # bytes of one activation


def step(k):
    """Forward and backward, with a checkpoint at every k-th layer; k = L is without."""
    deep.zero_grad(set_to_none=False)  # gradients stay where they are: no step pays for making them
    out = deep(x) if k == L else checkpoint_sequential(deep, L // k, x, use_reentrant=False)
    out.square().mean().backward()


step(L)
peaks = {}
for k in (1, 2, 3, 4, 6, 9, 12, 18, 36):
    with Alive([x, *deep.parameters(), *(p.grad for p in deep.parameters())]) as alive:
        step(k)
    peaks[k] = alive.peak
    print(f"k = {k:2}: at most {peaks[k] / 1e6:4.1f} MB alive")
ks, measured_mb = np.array(list(peaks)), np.array(list(peaks.values())) / 1e6
predicted = np.where(ks < L, L / ks + ks, L) * one / 1e6
plot.curves(
    {"measured": (ks, measured_mb), "L/k + k activations": (ks, predicted)},
    xlabel="layers between checkpoints k",
    ylabel="memory at its peak (MB)",
    title="Least memory near k = √L = 6",
)

# %% [markdown]
# The measured curve runs three or four activations above $L/k + k$: gradients on their way, and the $Z$ of the layer at work.
#
# **Question.** Your model does not fit into memory at $B = 256$. Name three ways out, and what each costs.
#
# <details><summary>Answer</summary>
#
# A smaller batch, with gradients added up over several of them before each step: activations shrink in proportion, and for plain MLPs the result is the same. Checkpointing: about a third more time. 16-bit floats: half the
# bytes, at the price of precision.
#
# </details>

# %% tags=["instructor"]
assert min(peaks, key=peaks.get) in (4, 6, 9)
assert peaks[36] / peaks[6] > 2
assert all(2.5 * one < peaks[k] - (L / k + k if k < L else L) * one < 4.5 * one for k in peaks)

# %% [markdown]
# ## 9 · From notebook to program, and what comes next (9 min)
#
# [numpy_mlp.py](numpy_mlp.py) is an engine like yours whose nodes hold arrays, and an MLP that it trains on MNIST. It saves, resumes, reads digits from image files, and proves its own gradients with `--check`.
# One function is yours, a better step: *momentum*. Along a narrow valley plain steps swing from side to side. So let a *velocity* $V$ remember the gradients, older ones less:
#
# $$V \leftarrow \mu V + \bar W, \qquad W \leftarrow W - \eta V$$
#
# with $0 \le \mu < 1$, and $V = 0$ at first. If the gradient stays the same, $V$ grows to $\bar W (1 + \mu + \mu^2 + \dots) = \bar W / (1 - \mu)$: with $\mu = 0.9$ steps ten times as long. (This is PyTorch's convention.)
# By hand: $W = 1$, $V = 0.5$, $\bar W = 2$, $\mu = 0.9$, $\eta = 0.1$: $V = 2.45$, $W = 1 - 0.245 = 0.755$.
#
# Open the script, fill in the TODO, and in a terminal beside the notebook, in its folder (from the course's: `cd workshops/dl-foundations/backpropagation`):
#
#     atlas check momentum_step
#     python numpy_mlp.py --check
#     python numpy_mlp.py --epochs 2
#
# You wrote what `loss.backward()` does: an order in which every value comes after its users, a rule for each operation, and `+=`. And you know what it costs: about twice the forward pass in time, and
# in memory every activation, or $2\sqrt L$ of them.
#
# One thing you took on trust again: `he_layers` draws weights with a standard deviation of $\sqrt{2 / \text{in}}$. Does it matter? Look at the gradient that arrives at the first of 20 layers.

# %%
arrived = {}
for name, std in (("0.01", 0.01), ("√(2/in)", np.sqrt(2 / 128)), ("0.5", 0.5)):
    widths = [784] + 20 * [128] + [10]
    deep_layers = [
        (rng.normal(0, std, (n_out, n_in)), np.zeros(n_out))
        for n_in, n_out in zip(widths[:-1], widths[1:], strict=True)
    ]
    _, deep_gradients = mlp_gradients(X_train[:64].astype(float), y_train[:64], deep_layers)
    arrived[name] = np.sqrt(np.mean(deep_gradients[0][0] ** 2))
    print(f"standard deviation {name:8} typical entry of dW1: {arrived[name]:.0e}")

# %% tags=["instructor"]
assert arrived["0.01"] < 1e-15 and 1e-5 < arrived["√(2/in)"] < 1 < 1e5 < arrived["0.5"]

# %% [markdown]
# **Discuss.** A chain of 20 layers multiplies 20 factors. What must each factor be on average, and what has $\sqrt{2/\text{in}}$ to do with it? Why 2, and why "in"? That is where
# **initialization-and-activations** begins.
