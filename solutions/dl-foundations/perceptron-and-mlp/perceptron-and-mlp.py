# %% [markdown]
# # Perceptron and MLP
#
# You write a neuron that learns from its mistakes, see and prove what it cannot learn, stack
# neurons into a network, and train that network on 55,000 handwritten digits until it reads 98 of 100 that it has never
# seen. All derivations are in the [README](README.md).
#
# **How to work.** Run the cells from the top with Shift+Enter. Where a cell says `TODO`, replace the line
# `raise NotImplementedError(...)` with your own code, run the cell, and read what the check says. Stuck? `lab.hint(...)`
# gives a nudge, then a bigger one. Out of time? `f = lab.catch_up("f")` lends you the reference and you go on.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import atlas
from atlas import plot

lab = atlas.open("perceptron-and-mlp")
mnist = atlas.data.load("mnist")
mnist

# %% [markdown]
# ## 1 · What one neuron computes (5 min)
#
# The data are MNIST, 70,000 digits written by employees of the US Census Bureau and by high-school students
# (LeCun et al., 1998; licence CC BY-SA 3.0), each an image of 28 × 28 grey values.

# %%
first = [np.flatnonzero(mnist.y_train == digit)[0] for digit in range(10)]
plot.images(mnist.x_train[first], columns=10, titles=mnist.classes, title="One image of each class")

# %% [markdown]
# A neuron takes $D$ numbers $x$, weights each, adds a bias, and gets one number:
#
# $$z = w \cdot x + b = w_1 x_1 + \dots + w_D x_D + b$$
#
# Its answer is the sign of $z$: say "class +1" where $z > 0$, "class −1" elsewhere. Redo this one by hand: with
# $w = (2, -1)$, $b = -0.5$ and $x = (1, 1)$ you get $z = 2 - 1 - 0.5 = 0.5 > 0$, so the answer is +1. For $x = (0, 1)$ it is
# $z = -1.5$, so −1. The points where $z = 0$ form a line (in $D$ dimensions a hyperplane): a neuron cuts space in two.
#
# An image is a point with $D = 784$ coordinates. We begin with two digits, 0 and 1, and call them −1 and +1.


# %%
def two_digits(negative, positive, x, y):
    """The images of two digits as rows, with labels -1 and +1.

    x: (N, 28, 28) with 0...255, y: (N,) digits.
    Returns (n, 784) with values in 0...1, and (n,) of -1 and +1.
    """
    chosen = (y == negative) | (y == positive)
    return x[chosen].reshape(-1, 784) / 255.0, np.where(y[chosen] == positive, 1, -1)


X01, y01 = two_digits(0, 1, mnist.x_train, mnist.y_train)
print("images", X01.shape, "labels", y01.shape, "of which +1:", (y01 == 1).sum())

# %% [markdown]
# ## 2 · The perceptron rule (10 min)
#
# Rosenblatt's rule (1958) looks at one example at a time. While the neuron is right it changes nothing. When it is wrong,
# or undecided ($z = 0$), it moves its weights towards the example or away from it:
#
# $$\text{if } y\,(w \cdot x + b) \le 0: \qquad w \leftarrow w + \eta\, y\, x, \qquad b \leftarrow b + \eta\, y$$
#
# Why this helps: after the step, $y\,z$ for this example has grown by $\eta\,(\lVert x \rVert^2 + 1)$. (Insert the new $w$ and $b$
# into $y\,(w \cdot x + b)$ and use $y^2 = 1$.) With $w = (2, -1)$, $b = -0.5$, $x = (1, 1)$, $y = -1$, $\eta = 0.1$ the neuron says +1,
# which is wrong, so $w \leftarrow (1.9, -1.1)$ and $b \leftarrow -0.6$, and $z$ falls from 0.5 to 0.2: less wrong, by
# $0.1 \cdot (2 + 1) = 0.3$.


# %%
def perceptron_step(w, b, x, y, eta):
    """One step of the perceptron rule on one example.

    w: (D,) floats, b: a number, x: (D,), whole numbers too, y: -1 or +1, eta: the rate η > 0.
    Returns (w, b), changed if the neuron was wrong or undecided. What is passed in stays as it is.
    """
    # TODO: decide whether the neuron is wrong on this example (y and z tell), and return the new
    # or the old (w, b).
    ### BEGIN SOLUTION
    if y * (w @ x + b) <= 0:
        return w + eta * y * x, b + eta * y
    return w, b
    ### END SOLUTION


lab.check(perceptron_step)


# %% [markdown]
# Now let it learn. One pass over all examples is an *epoch*. We count how often the neuron was wrong in each.


# %%
def fit_perceptron(X, y, epochs, eta=1.0):
    """Train from zero weights until an epoch passes without a mistake, or `epochs` are over.

    X: (N, D), y: (N,) of -1 and +1. Returns w (D,), b, and the number of mistakes in each epoch.
    """
    w, b, mistakes = np.zeros(X.shape[1]), 0.0, []
    order = np.random.default_rng(0).permutation(len(X))
    for _ in range(epochs):
        wrong = 0
        for i in order:
            wrong += y[i] * (w @ X[i] + b) <= 0
            w, b = perceptron_step(w, b, X[i], y[i], eta)
        mistakes.append(int(wrong))
        if wrong == 0:
            break
    return w, b, mistakes


w01, b01, mistakes01 = fit_perceptron(X01, y01, epochs=40)
X01_test, y01_test = two_digits(0, 1, mnist.x_test, mnist.y_test)
accuracy01 = np.mean(y01_test * (X01_test @ w01 + b01) > 0)

print(f"mistakes in each epoch: {mistakes01}, in all {sum(mistakes01)}")
print(f"accuracy on {len(y01_test)} test images: {accuracy01:.1%}")
plot.weights(w01[None], title="Ink where it is red says 1, where it is blue 0")
# %% [markdown]
# **Question.** Red stands in the middle, with blue to its left and right. Why there? And why are the corners white?
#
# <details><summary>Answer</summary>
#
# A 1 has ink in the middle, where a 0 has its hole: those weights are positive (red). The sides
# of the ring have ink in a 0 only: negative (blue). No digit has ink in the corners: there $x_d = 0$, every step adds
# $\eta y \cdot 0 = 0$, and those weights are still the zeros they began as.
#
# </details>

# %% tags=["instructor"]
assert mistakes01[-1] == 0, "0 and 1 are linearly separable"
assert accuracy01 > 0.995
corner = w01.reshape(28, 28)[0, 0]
assert corner == 0

# %% [markdown]
# ## 3 · How many mistakes can it make? (9 min)
#
# The neuron stopped making mistakes. That was no luck. Write the bias as one more weight, on an input that is always 1:
# $\tilde x = (x, 1)$, $\tilde w = (w, b)$, so that $z = \tilde w \cdot \tilde x$. Suppose that *some* direction $\tilde w^{*}$ separates the classes with a
# *margin* $\gamma > 0$, and no example is longer than $R$:
#
# $$\gamma = \min_i \frac{y_i\, \tilde w^{*} \cdot \tilde x_i}{\lVert \tilde w^{*} \rVert}, \qquad R = \max_i \lVert \tilde x_i \rVert$$
#
# Then the rule, started at zero, makes **at most $(R / \gamma)^2$ mistakes**, however many epochs you run and in whatever order the
# examples come (Novikoff, 1962). The idea of the proof: each mistake moves $\tilde w$ at least $\eta\gamma$ along $\tilde w^{*}$, but lengthens $\lVert \tilde w \rVert^2$ by
# at most $\eta^2 R^2$. After $k$ mistakes the first says $\lVert \tilde w \rVert \ge k\,\eta\gamma$ and the second $\lVert \tilde w \rVert \le \sqrt{k}\,\eta R$. Both hold only while
# $k \le (R/\gamma)^2$. (Step by step in the README.)
#
# If even one example lies on the wrong side, or on the border ($\gamma \le 0$), the direction does not separate the classes and promises nothing.
#
# By hand: examples $(3, 4)$ with $y = +1$ and $(-1, 0)$ with $y = -1$, direction $\tilde w^{*} = (2, 0)$. The lengths are 5 and 1, so $R = 5$. The
# margins are $6/2 = 3$ and $2/2 = 1$, so $\gamma = 1$. At most 25 mistakes.


# %%
def mistake_bound(X, y, w):
    """Novikoff's bound on the number of mistakes of the perceptron rule.

    X: (N, D) examples, the constant 1 for the bias already among the columns. y: (N,) of -1 and +1.
    w: (D,) a direction, of any length.
    Returns (R / γ)², or np.inf if w does not separate the classes (γ ≤ 0).
    """
    # TODO: R from the rows of X, γ from the worst example, then the bound.
    ### BEGIN SOLUTION
    R = np.linalg.norm(X, axis=1).max()
    gamma = (y * (X @ w)).min() / np.linalg.norm(w)
    return (R / gamma) ** 2 if gamma > 0 else np.inf
    ### END SOLUTION


lab.check(mistake_bound)

# %% [markdown]
# The bound holds for every separating direction, and is the tighter the wider its margin. A support vector machine finds
# the widest. So: does your neuron keep the promise?

# %%
from sklearn.svm import SVC


def with_one(X):
    """Append the constant 1 that carries the bias: (N, D) becomes (N, D + 1)."""
    return np.hstack([X, np.ones((len(X), 1))])


widest = SVC(kernel="linear", C=1e6).fit(X01, y01)
w_star = np.append(widest.coef_[0], widest.intercept_[0])
bound01 = mistake_bound(with_one(X01), y01, w_star)
print(f"0 against 1: {sum(mistakes01)} mistakes, promised at most {bound01:.0f}")

X49, y49 = two_digits(4, 9, mnist.x_train, mnist.y_train)
w49, b49, mistakes49 = fit_perceptron(X49, y49, epochs=len(mistakes01))
ax = plot.curves(
    {"0 against 1": np.cumsum(mistakes01), "4 against 9": np.cumsum(mistakes49)},
    ylabel="mistakes since the start",
    title="0 against 1 stops making mistakes; 4 against 9 goes on and on",
)
ax.axhline(bound01, color="0.4", linestyle=":", label="bound for 0 against 1")
_ = ax.legend(frameon=False)

# %% [markdown]
# **Question.** The theorem says nothing about 4 against 9 here. What would you have to know, and what would you do with a
# data set where the mistakes never stop?
#
# <details><summary>Answer</summary>
#
# Whether any direction separates them: if one does, with whatever small margin, the mistakes end at last; if none does, they
# go on for ever. From a finite run you cannot tell the two cases apart. In practice
# you keep the weights that are best on validation data, or minimise a loss that tolerates errors, as sections 6 to 8 do.
#
# </details>

# %% tags=["instructor"]
assert sum(mistakes01) <= bound01 < 4000
assert mistakes49[-1] > 100
assert len(mistakes49) == len(mistakes01)

# %% [markdown]
# ## 4 · XOR: seen, proved, solved (10 min)
#
# Some simple things no neuron can do. XOR says +1 when exactly one of its two inputs is 1.

# %%
X_xor = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
y_xor = np.array([-1, 1, 1, -1])
w_xor, b_xor, mistakes_xor = fit_perceptron(X_xor, y_xor, epochs=50)
print("mistakes in the last ten epochs:", mistakes_xor[-10:], " weights after them:", w_xor, b_xor)

# %% [markdown]
# Wrong four times out of four, epoch after epoch: the four steps of an epoch cancel. The mistakes never end, and they cannot. A neuron that computed XOR would need, for the four points in turn,
#
# $$b \le 0, \qquad w_2 + b > 0, \qquad w_1 + b > 0, \qquad w_1 + w_2 + b \le 0.$$
#
# Add the second and the third: $w_1 + w_2 + 2b > 0$. Add the first and the last: $w_1 + w_2 + 2b \le 0$. Both cannot be. No
# weights exist, so no training finds them (Minsky and Papert, 1969, made this limit famous).
#
# The way out is a *hidden layer*: let two neurons look at $x$, and a third one look at their answers. We use the step function
# $\varphi(z) = 1$ where $z > 0$, else $0$:
#
# $$a = \varphi(W_1 x + b_1), \qquad \hat y = \varphi(W_2 a + b_2)$$
#
# with $W_1$ of shape (2, 2), one row per hidden neuron, $b_1$ (2,), $W_2$ (1, 2), $b_2$ (1,). Set the weights by hand. It helps to give each
# hidden neuron a question that a single line can answer ("is at least one input on?"), and to let the output neuron combine
# the two answers.


# %%
def xor_network():
    """Weights of a network with two hidden step neurons: XOR of two inputs that are 0 or 1.

    Returns W1 (2, 2), b1 (2,), W2 (1, 2), b2 (1,) as NumPy arrays; W2 is written
    np.array([[.., ..]]), for one row. A neuron is 1 where z > 0, else 0.
    """
    # TODO: choose the four arrays. Sketch the two lines first.
    ### BEGIN SOLUTION
    W1 = np.array([[1.0, 1.0], [1.0, 1.0]])
    b1 = np.array([-0.5, -1.5])  # at least one input on; both on
    W2 = np.array([[1.0, -1.0]])
    b2 = np.array([-0.5])  # the first and not the second
    return W1, b1, W2, b2
    ### END SOLUTION


lab.check(xor_network)

# %% [markdown]
# Look at what your network says everywhere, and at what its output neuron gets to see, $a$, for each input.

# %%
W1, b1, W2, b2 = xor_network()


def hidden(x):
    """x: (N, 2). Returns the answers of the two hidden neurons, (N, 2) of 0 and 1."""
    return (x @ W1.T + b1 > 0).astype(float)


fig, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
labels = (y_xor == 1).astype(int)
answers = {
    "Hidden neuron 1": lambda x: hidden(x)[:, 0] - 0.5,
    "Hidden neuron 2": lambda x: hidden(x)[:, 1] - 0.5,
    "Output neuron": lambda x: hidden(x) @ W2[0] + b2[0],
}
for ax, (title, answer) in zip(axes, answers.items(), strict=True):
    names = ["XOR 0", "XOR 1"] if ax is axes[2] else None
    plot.decision_regions(answer, X_xor, labels, names, title=title, ax=ax)
    ax.set_aspect("equal")
for x, a in zip(X_xor, hidden(X_xor), strict=True):
    print(f"x = {x}   hidden a = {a}   z = {W2[0] @ a + b2[0]:+.1f}")

# %% [markdown]
# **Question.** Four different inputs come in. How many different $a$ does the output neuron see, and why does that make its
# task possible?
#
# <details><summary>Answer</summary>
#
# Three in most solutions: $(0, 1)$ and $(1, 0)$ land on the same point. In the space of $a$ the classes can be cut apart by
# one line, which is all that the output neuron can do. A hidden layer *moves the data* to where a line suffices.
#
# </details>

# %% [markdown]
# ## 5 · The forward pass of an MLP (9 min)
#
# A *multilayer perceptron* repeats this with more neurons, more layers and another $\varphi$. Layer by layer, starting from $a_0 = x$:
#
# $$z_l = W_l\, a_{l-1} + b_l, \qquad a_l = \varphi(z_l) \quad \text{for all but the last}, \qquad \text{logits} = z_{\text{last}}$$
#
# The hidden layers use $\varphi(z) = \max(0, z)$, called *ReLU*. The last layer has none: its $K$ outputs, the *logits*, may take any
# value.
#
# Nobody computes one example at a time. With $B$ examples as the rows of $X$, shape $(B, D)$, and $W$ of shape (out, in):
#
# $$Z = X W^{\top} + b \qquad (B, \text{in}) \cdot (\text{in}, \text{out}) + (\text{out},) = (B, \text{out})$$
#
# By hand, for one example $x = (1, -2)$ and $W_1 = \begin{pmatrix}1&0\\1&1\\0&-1\end{pmatrix}$, $b_1 = (0, 0, 1)$: $z_1 = (1, -1, 3)$, $a_1 = (1, 0, 3)$. With
# $W_2 = (2, 5, -1)$, $b_2 = 0$ the logit is $2 + 0 - 3 = -1$.


# %%
def mlp_forward(X, layers):
    """The logits of an MLP with ReLU between its layers.

    X: (B, D). layers: list of pairs (W, b) with W of shape (out, in) and b (out,),
    the first in = D, the last out = K. Returns (B, K).
    """
    # TODO: go through the layers; ReLU after each but the last. Any number of layers, one included.
    ### BEGIN SOLUTION
    *hidden_layers, (W_last, b_last) = layers
    A = X  # (B, D)
    for W, b in hidden_layers:
        A = np.maximum(0, A @ W.T + b)  # (B, out)
    return A @ W_last.T + b_last  # (B, K)
    ### END SOLUTION


lab.check(mlp_forward)

# %% [markdown]
# A network of 784 inputs, 256 hidden neurons and 10 outputs, with random weights: what does it make of the digits?

# %%
rng = np.random.default_rng(0)
random_layers = [
    (rng.normal(0, np.sqrt(2 / 784), (256, 784)), np.zeros(256)),
    (rng.normal(0, np.sqrt(1 / 256), (10, 256)), np.zeros(10)),
]
X_some = mnist.x_test[:1000].reshape(-1, 784) / 255.0
logits = mlp_forward(X_some, random_layers)  # (1000, 10)
print("logits", logits.shape, " for the first image:", logits[0].round(2))
print(f"right before any training: {np.mean(logits.argmax(1) == mnist.y_test[:1000]):.1%}")

# %% [markdown]
# By guessing, one in ten would be right; a random network may do better or worse, since it favours some digits.
#
# **Question.** Leave out the ReLU. What can two layers do then that one cannot?
#
# <details><summary>Answer</summary>
#
# Nothing. $W_2(W_1 x + b_1) + b_2 = (W_2 W_1)\,x + (W_2 b_1 + b_2)$ is a single layer again, with another matrix. Without a non-linear
# $\varphi$ between them, any number of layers collapses to one.
#
# </details>

# %% tags=["instructor"]
# the collapse, in numbers
(Wa, ba), (Wb, bb) = random_layers
assert np.allclose((X_some @ Wa.T + ba) @ Wb.T + bb, mlp_forward(X_some, [(Wb @ Wa, Wb @ ba + bb)]))
assert np.allclose(
    mlp_forward(
        np.array([[1.0, -2]]),
        [(np.array([[1.0, 0], [1, 1], [0, -1]]), np.array([0.0, 0, 1])), (np.array([[2.0, 5, -1]]), np.zeros(1))],
    ),
    [[-1]],
)
assert 0.02 < np.mean(logits.argmax(1) == mnist.y_test[:1000]) < 0.3

# %% [markdown]
# **Break.** After it, this network learns.

# %% [markdown]
# ## 6 · Softmax and cross-entropy (14 min)
#
# To learn we need a number that says how wrong the logits are. First turn them into probabilities. *Softmax* makes them positive and lets each
# row add up to one:
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}$$
#
# For $z = (2, 1, 0)$: $e^z = (7.389, 2.718, 1)$, the sum is 11.107, so $p = (0.665, 0.245, 0.090)$. Only differences count: with
# $z = (1002, 1001, 1000)$ the probabilities are the same, because $e^{1000}$ cancels. On paper. In a computer $e^{1000}$ is infinite and
# $\infty / \infty$ is NaN. So use the freedom: subtract from each row a number that makes every exponent harmless.


# %%
def softmax(Z):
    """Probabilities from logits, row by row.

    Z: (B, K), entries of any size, whole numbers too.
    Returns (B, K), each row positive (or 0 where it underflows) and summing to 1.
    """
    # TODO: shift each row so that exp cannot overflow, then exponentiate and divide.
    ### BEGIN SOLUTION
    E = np.exp(Z - Z.max(axis=1, keepdims=True))  # (B, K), largest entry of each row 1
    return E / E.sum(axis=1, keepdims=True)
    ### END SOLUTION


lab.check(softmax)

# %% [markdown]
# The loss is the *cross-entropy*: minus the logarithm of the probability given to the right class $y$, averaged over the $B$ examples.
#
# $$L = -\frac1B \sum_{i=1}^{B} \log p_{i, y_i}$$
#
# Sure and right costs nothing ($-\log 1 = 0$), a guess among ten costs $\ln 10 = 2.303$, sure and wrong costs a lot. But not infinitely much:
# for logits $(1000, 0)$ and $y = 1$ the probability is $e^{-1000}$, which the computer rounds to 0, and $-\log 0 = \infty$. The true loss is
# 1000. Never take the logarithm of a softmax. Take it on paper first:
#
# $$-\log p_y = -z_y + \log \sum_j e^{z_j}, \qquad \log \sum_j e^{z_j} = m + \log \sum_j e^{z_j - m} \quad \text{with } m = \max_j z_j$$
#
# By hand: $z = (2, 1, 0)$ and $y = 1$ give $-1 + \log 11.107 = -1 + 2.408 = 1.408$, which is $-\log 0.245$.


# %%
def cross_entropy(Z, y):
    """Mean cross-entropy of logits.

    Z: (B, K), entries of any size, whole numbers too. y: (B,) integers, each row's right class.
    Returns a number, no array of one.
    """
    # TODO: log-sum-exp of each row (stable), minus the logit of the right class, then the mean.
    ### BEGIN SOLUTION
    m = Z.max(axis=1)  # (B,)
    log_sum = m + np.log(np.exp(Z - m[:, None]).sum(axis=1))  # (B,)
    return (log_sum - Z[np.arange(len(y)), y]).mean()
    ### END SOLUTION


lab.check(cross_entropy)

# %%
loss_random = cross_entropy(logits, mnist.y_test[:1000])
print(f"loss of the random network: {loss_random:.3f}; of a guess among ten: {np.log(10):.3f}")
print("softmax of (1002, 1001, 1000):", softmax(np.array([[1002.0, 1001, 1000]])).round(3))
print("loss of (1000, 0) for class 1:", cross_entropy(np.array([[1000.0, 0]]), np.array([1])))

# %% [markdown]
# **Question.** A fresh classifier with ten classes shows a loss of 7 in its first step. What do you conclude?
#
# <details><summary>Answer</summary>
#
# It is sure of something it cannot know: a fresh one should be near $\ln 10 \approx 2.3$. The logits are too large: weights initialised too wide, or inputs not scaled. Checking the first loss costs nothing and finds many bugs.
#
# </details>

# %% tags=["instructor"]
assert abs(loss_random - np.log(10)) < 0.6

# %% [markdown]
# ## 7 · The same network as an `nn.Module` (10 min)
#
# PyTorch's `nn.Module` keeps the weights, so that an optimiser can find and change them. You create the layers in `__init__` and use them in
# `forward`. `nn.Linear(n_in, n_out)` holds one pair $W$ (out, in), $b$ (out,), as yours does. What you assign to `self` is
# registered, also inside `nn.Sequential` and `nn.ModuleList`, but **not** inside a plain Python list: those weights would never be
# trained.
#
# What you need: `torch.relu(t)` is `np.maximum(0, t)` for tensors; `nn.ModuleList([...])` is filled from a list and used like one, with indices, slices and `for`; and
# a layer is called like a function, `layer(a)`.


# %%
class MLP(nn.Module):
    """An MLP with ReLU between its layers.

    widths: [784, 256, 10] means 784 inputs, one hidden layer of 256, and 10 logits;
    [784, 10] has no hidden layer.
    Its parameters are, in this order, W and b of the first layer, then of the second, and so on.
    forward takes images (B, 28, 28) or rows (B, 784) and returns logits (B, 10).
    """

    def __init__(self, widths):
        super().__init__()
        # TODO: one nn.Linear between each two neighbours in widths, registered in order.
        ### BEGIN SOLUTION
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairs)
        ### END SOLUTION

    def forward(self, x):
        # TODO: flatten each example (x.flatten(1)), then the layers, ReLU after each but the last.
        ### BEGIN SOLUTION
        a = x.flatten(1)  # (B, D)
        for layer in self.layers[:-1]:
            a = torch.relu(layer(a))
        return self.layers[-1](a)  # (B, K)
        ### END SOLUTION


lab.check(MLP)

# %% [markdown]
# Is it the network that you wrote in NumPy? Copy its weights over and compare.

# %%
device = lab.device
torch.manual_seed(0)
model = MLP([784, 256, 10])
parameters = [p.detach().numpy() for p in model.parameters()]  # W1, b1, W2, b2
mine = mlp_forward(X_some, list(zip(parameters[::2], parameters[1::2], strict=True)))
theirs = model(torch.tensor(X_some, dtype=torch.float32)).detach().numpy()
for name, p in model.named_parameters():
    print(f"{name:18} {tuple(p.shape)!s:12} {p.numel():7,} numbers")
print(f"{sum(p.numel() for p in model.parameters()):,} numbers in all")
print(f"largest difference between NumPy and PyTorch {abs(mine - theirs).max():.1e}")

# %% [markdown]
# **Question.** Where do the 203,530 numbers come from? And why is the difference to NumPy not exactly zero?
#
# <details><summary>Answer</summary>
#
# $784 \cdot 256 + 256 = 200{,}960$ in the first layer and $256 \cdot 10 + 10 = 2{,}570$ in the second. PyTorch computes in 32-bit floats, which
# carry about 7 decimal digits; your NumPy input was 64-bit.
#
# </details>

# %% tags=["instructor"]
assert sum(p.numel() for p in model.parameters()) == 203_530
assert abs(mine - theirs).max() < 1e-5

# %% [markdown]
# ## 8 · Training on MNIST (14 min)
#
# Gradient descent changes the weights after each *batch* of examples, a little, in the direction
# in which the loss falls fastest: $\theta \leftarrow \theta - \eta\, \nabla_\theta L$ for every weight $\theta$. PyTorch computes the
# gradients (how, you will write yourself in *backpropagation*). One epoch:
#
# 1. shuffle the examples, so that no two epochs see the same batches;
# 2. for each batch of the shuffled order:
#    - compute the logits, `model(x[batch])`, and their loss, `nn.functional.cross_entropy(logits, y[batch])`, a mean over the batch;
#    - forget the old gradients, `optimizer.zero_grad()` (they would add up), then `loss.backward()`, then `optimizer.step()`;
#    - let the schedule set the next learning rate, `schedule.step()`. Ours rises for the first third of the training and falls to almost zero at the end.
#
# `loss.item()` takes the number out of a tensor that holds one. `model.train()` and `model.eval()` switch layers that behave differently in training, such as dropout; ours has none,
# but the habit is right.


# %%
def train_epoch(model, x, y, optimizer, batch_size=128, schedule=None):
    """Train for one epoch: each example once, in a new random order, in batches.

    The last batch may be smaller. x: (N, ...) inputs, y: (N,) classes, both tensors on the model's
    device. schedule: stepped after each batch, if given.
    Returns the mean loss over the N examples, each measured when its batch was trained on: a float.
    """
    model.train()
    total = 0.0
    # TODO: shuffle with torch.randperm, loop over the batches, add up loss · (size of the batch).
    ### BEGIN SOLUTION
    order = torch.randperm(len(x), device=x.device)
    for batch in order.split(batch_size):
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        total += loss.item() * len(batch)
    ### END SOLUTION
    return total / len(x)


lab.check(train_epoch)

# %% [markdown]
# Three sets of images, three jobs: 55,000 to train on, 5,000 for *validation* (to compare choices), and 10,000 for *testing*, which we touch
# only when all choices are made: a score on images that guided a choice would be too good. Training takes about 15 s.

# %%
x_all = torch.tensor(mnist.x_train, dtype=torch.float32, device=device) / 255
y_all = torch.tensor(mnist.y_train, device=device)
x_train, y_train, x_val, y_val = x_all[:55_000], y_all[:55_000], x_all[55_000:], y_all[55_000:]
x_test = torch.tensor(mnist.x_test, dtype=torch.float32, device=device) / 255
y_test = torch.tensor(mnist.y_test, device=device)


@torch.no_grad()
def evaluate(model, x, y):
    """Mean loss and accuracy on x (N, 28, 28) and y (N,), without touching gradients."""
    model.eval()
    logits = model(x)
    right = logits.argmax(1) == y
    return nn.functional.cross_entropy(logits, y).item(), right.float().mean().item()


def train(widths, x, y, epochs, learning_rate=4e-3, batch_size=128, seed=0, says=False):
    """Train an MLP with AdamW and a one-cycle schedule. Returns the model and its history."""
    torch.manual_seed(seed)
    model = MLP(widths).to(x.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    steps = epochs * -(-len(x) // batch_size)  # rounded up: the last batch counts
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    history = {"loss_train": [], "loss_val": [], "accuracy_train": [], "accuracy_val": []}
    for epoch in range(1, epochs + 1):
        train_epoch(model, x, y, optimizer, batch_size, schedule)
        for split, a, b in (("train", x[:5000], y[:5000]), ("val", x_val, y_val)):
            loss, accuracy = evaluate(model, a, b)
            history[f"loss_{split}"].append(loss)
            history[f"accuracy_{split}"].append(accuracy)
        if says:
            print(f"epoch {epoch}: validation accuracy {accuracy:.2%}")
    return model, history


model, history = train([784, 256, 10], x_train, y_train, epochs=8, says=True)

# %%
test_loss, test_accuracy = evaluate(model, x_test, y_test)
misread = round((1 - test_accuracy) * 10_000)
print(f"test accuracy {test_accuracy:.2%}: {misread} of 10,000 digits misread")

fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
shown = {"loss": "The validation loss levels off", "accuracy": "98 % on images it never trained on"}
for ax, (what, title) in zip(axes, shown.items(), strict=True):
    pair = {split: history[f"{what}_{split}"] for split in ("train", "val")}
    plot.curves(pair, ylabel=what, title=title, ax=ax)
axes[0].set_yscale("log")

# %% [markdown]
# **Question.** The training accuracy ends near 100 %, the validation accuracy does not. Is that a problem? And the training loss falls fast in the later
# epochs (the axis is logarithmic). Why then?
#
# <details><summary>Answer</summary>
#
# The gap is *overfitting*: part of what the network learned holds for its training images only. It is a problem when the validation
# loss rises again; here it has levelled off. (More in *regularization-dropout-batchnorm*.) The late fall comes from
# the schedule: while the learning rate is high, the weights jump about the minimum; as it falls, they settle.
#
# </details>

# %% tags=["instructor"]
assert test_accuracy >= 0.98, f"the workshop promises 98 %, got {test_accuracy:.2%}"
assert history["accuracy_train"][-1] > 0.995
assert history["accuracy_train"][-1] - history["accuracy_val"][-1] > 0.008

# %% [markdown]
# **Break.** After it, a look inside, and the question how much of all this was needed.

# %% [markdown]
# ## 9 · A look inside (5 min)
#
# Each hidden neuron has 784 weights: an image. What do they look for?

# %%
W_first = next(model.parameters()).detach().cpu()  # (256, 784)
strongest = W_first.norm(dim=1).argsort(descending=True)[:32]  # those with the largest weights
plot.weights(
    W_first[strongest],
    columns=8,
    title="32 of 256 hidden neurons: strokes, gaps and bits of contour, no whole digits",
)
# %% [markdown]
# Where does it fail? The confusion matrix has a row for each true digit and a column for each answer.

# %%
with torch.no_grad():
    probabilities = model(x_test).softmax(1).cpu().numpy()  # (10000, 10)
answers = probabilities.argmax(1)
title = f"{misread} errors in 10,000, spread over many pairs of digits"
plot.confusion(mnist.y_test, answers, mnist.classes, title=title)
# %%
confidence = probabilities.max(1)
wrong = np.flatnonzero(answers != mnist.y_test)
worst = wrong[confidence[wrong].argsort()[::-1][:16]]  # wrong, and most sure of it
plot.images(
    mnist.x_test[worst],
    columns=8,
    titles=[f"{mnist.y_test[i]} read as {answers[i]}" for i in worst],
    title=f"The sixteen errors of which it was most sure: all over {confidence[worst].min():.1%}",
)
# %% [markdown]
# **Question.** Which of these would you have read wrong yourself? What does "99 % sure" mean here?
#
# <details><summary>Answer</summary>
#
# Several are hard for people too, others are plain. The softmax output of a trained network is no
# promise: nothing in training made "99 %" mean "right 99 times in 100". How to make it so, and how to say "not sure", is this workshop's
# project.
#
# </details>

# %% [markdown]
# ## 10 · How much network is enough? (6 min)
#
# Is a larger network better, and by how much? An experiment needs a baseline that had a fair chance. Ours is *logistic regression*, no hidden layer:
# `MLP([784, 10])`, for which we try five learning rates and keep the best on the validation set. All
# networks below train on the same 12,000 images for 5 epochs, with one recipe. About 20 s.

# %%
small_x, small_y = x_train[:12_000], y_train[:12_000]
baselines = {}
for rate in (1e-3, 4e-3, 1e-2, 4e-2, 1e-1):
    baseline, past = train([784, 10], small_x, small_y, epochs=5, learning_rate=rate)
    baselines[rate] = past["accuracy_val"][-1]
    print(f"logistic regression, learning rate {rate:g}: validation {baselines[rate]:.2%}")
best_rate = max(baselines, key=baselines.get)

results = []
print(f"{'hidden layers':>13} {'width':>6} {'parameters':>11} {'validation':>11}")
for depth in (1, 2, 3):
    for width in (16, 64, 256):
        net, past = train([784] + [width] * depth + [10], small_x, small_y, epochs=5)
        count = sum(p.numel() for p in net.parameters())
        results.append((depth, width, count, past["accuracy_val"][-1]))
        print(f"{depth:13} {width:6} {count:11,} {results[-1][3]:11.2%}")

# %%
series = {}
for depth in (1, 2, 3):
    _, _, count, accuracy = zip(*results[3 * depth - 3 : 3 * depth], strict=True)
    series[f"{depth} hidden layer{'s' * (depth > 1)}"] = count, 100 * np.array(accuracy)
series["logistic regression, tuned"] = [7850, 335_114], [100 * baselines[best_rate]] * 2
plot.curves(
    series,
    xlabel="parameters",
    ylabel="validation accuracy (%)",
    xscale="log",
    title="Width brings more than depth; 16 hidden neurons bring next to nothing",
)

# %% [markdown]
# What came out. With 16 hidden neurons the networks are about level with the tuned logistic regression: what they gain by bending, they lose in
# the bottleneck of 16 numbers. From 64 on they are clearly better. A second
# and a third layer change about a point at most, not always upwards. Another seed changes nearly as much. This is a
# statement about MNIST with 12,000 images and this recipe, not about depth.
#
# Now the fair comparison on the test set: the baseline, with its best learning rate, gets all 55,000 images and 8 epochs, like your network.

# %%
logistic, _ = train([784, 10], x_train, y_train, epochs=8, learning_rate=best_rate)
_, logistic_accuracy = evaluate(logistic, x_test, y_test)
print(f"test accuracy: logistic regression {logistic_accuracy:.2%}, your MLP {test_accuracy:.2%}")
removed = 1 - (1 - test_accuracy) / (1 - logistic_accuracy)
print(f"the hidden layer removes {removed:.0%} of the errors")

# %% tags=["instructor"]
by_size = {(depth, width): accuracy for depth, width, _, accuracy in results}
assert all(abs(by_size[d, 16] - baselines[best_rate]) < 0.012 for d in (1, 2, 3)), "16 neurons: next to nothing"
assert all(by_size[d, 64] > baselines[best_rate] + 0.01 for d in (1, 2, 3)), "64 are clearly better"
assert all(by_size[d, 256] > by_size[d, 64] > by_size[d, 16] for d in (1, 2, 3)), "width pays"
assert all(abs(by_size[d + 1, w] - by_size[d, w]) < 0.012 for d in (1, 2) for w in (16, 64, 256)), (
    "depth: under a point"
)
assert 0.915 < logistic_accuracy < 0.935
assert 1 - (1 - test_accuracy) / (1 - logistic_accuracy) > 0.7

# %% [markdown]
# **Question.** Your colleague reports 98 % with a network and says "neural networks are 6 points better than linear models". What do you ask?
#
# <details><summary>Answer</summary>
#
# Whether the linear model got the same data, the same training time and the same search for its settings; on which set the choices were made, and
# whether the test set was touched before. And how far 98 % moves with other seeds (by about a tenth of a point).
#
# </details>

# %% [markdown]
# ## 11 · From notebook to program (8 min)
#
# [train_mlp.py](train_mlp.py) is the same network as a program: it trains, saves a checkpoint, resumes from it, and reads a digit from an
# image file. One function in it is yours to write, `prepare_image`: a photograph shows dark ink on light paper, the network knows only
# light ink on black. Open the script, fill in the TODO, and in a terminal beside the notebook, in its folder (from the course's: `cd workshops/dl-foundations/perceptron-and-mlp`):
#
#     atlas check prepare_image
#     python train_mlp.py --epochs 2
#     python train_mlp.py --predict some_digit.png
#
# **What you built, and what it leaves open.** A neuron that learns, a proof of when it can, a proof of when it cannot, and a network that moves its data until a line suffices.
# One thing you took on trust: `loss.backward()`. It found 203,530 derivatives in a few milliseconds. How, is the next workshop:
# **backpropagation**.
