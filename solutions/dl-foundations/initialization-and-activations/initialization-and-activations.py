# %% [markdown]
# # Initialization and activations
#
# Last time you drew weights with a standard deviation of $\sqrt{2/\text{in}}$ and took it on trust. Here you find out where that number comes from, measure it on real digits, and let it
# decide whether a network of 30 layers learns or stays a guess. On the way you write six activations, four initialisations, and a repair for units that have died.
#
# All derivations are in the [README](README.md); how gradients run backwards is in [backpropagation](../backpropagation/README.md).

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import erf
from torch import nn

import atlas
from atlas import plot

lab = atlas.open("initialization-and-activations")
mnist = atlas.data.load("mnist")
mnist

# %% [markdown]
# ## 1 · Thirty factors (5 min)
#
# The data are the digits of MNIST again (licence CC BY-SA 3.0). All pixels are shifted and scaled with one mean and one standard deviation, so that a pixel's mean square is 1: every derivation below begins there.
#
# Send 256 digits through 30 layers of 100 units, $z_l = W_l a_{l-1}$ and $a_l = \max(0, z_l)$, and look at how large $z$ is. Only the standard deviation $\sigma$ of the weights differs.


# %%
def rows(images):
    """Images (N, 28, 28) of 0...255 as rows (N, 784), with MNIST's mean and spread taken out."""
    return (images.reshape(-1, 784) / 255.0 - 0.1307) / 0.3081


def rms(x):
    """Root mean square of all entries: their typical size."""
    return np.sqrt(np.mean(x**2))


X = rows(mnist.x_train[:256])  # (256, 784)
WIDTHS = [784] + 30 * [100]
rng = np.random.default_rng(0)
print(f"typical size of a pixel: {rms(X):.2f}")
first_look = {}
for sigma in (0.05, 0.14, 0.4):
    A, sizes = X, []
    for n_in, n_out in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
        Z = A @ rng.normal(0, sigma, (n_out, n_in)).T  # (B, out)
        A = np.maximum(0, Z)
        sizes.append(rms(Z))
    first_look[sigma] = sizes
    factor = (sizes[29] / sizes[0]) ** (1 / 29)
    print(f"σ = {sigma:4}: size of z in layer 1 {sizes[0]:5.2f}, layer 30 {sizes[29]:.0e}", end="")
    print(f"   factor from layer to layer {factor:.2f}")

# %% [markdown]
# **Question.** What has the factor to do with $\sigma$? What must it be, and how exactly?
#
# <details><summary>Answer</summary>
#
# It is about seven times $\sigma$; the "seven" is $\sqrt{100/2}$, as section 3 derives. (Layer 1 has 784 inputs and so a factor of its own.) It has to be 1, and not roughly: even 0.9 leaves only $0.9^{29} = 5\,\%$ of the signal.
#
# </details>

# %% tags=["instructor"]
assert abs(rms(X) - 1) < 0.05
for sigma, sizes in first_look.items():
    assert abs((sizes[29] / sizes[0]) ** (1 / 29) / (7 * sigma) - 1) < 0.12
assert 1e-16 < first_look[0.05][-1] < 1e-10 and first_look[0.4][-1] > 1e11, "README: about 1e-13"

# %% [markdown]
# ## 2 · Six activations and their slopes (12 min)
#
# Forward, a signal passes through $\varphi$; backward, the gradient is multiplied by $\varphi'$.
#
# | name | $\varphi(z)$ | $\varphi'(z)$ |
# |---|---|---|
# | `"sigmoid"` | $\sigma(z) = 1/(1 + e^{-z})$ | $\sigma(z)\,(1 - \sigma(z))$ |
# | `"tanh"` | $\tanh z$ | $1 - \tanh^2 z$ |
# | `"relu"` | $z$ where $z > 0$, else $0$ | $1$ where $z > 0$, else $0$ |
# | `"leaky"` | $z$ where $z > 0$, else $0.01\,z$ | $1$ where $z > 0$, else $0.01$ |
# | `"gelu"` | $z\,\Phi(z)$ | $\Phi(z) + z\,\Phi'(z)$ |
# | `"silu"` | $z\,\sigma(z)$ | yours to derive, by the product rule |
#
# $\Phi(z) = \tfrac12\bigl(1 + \operatorname{erf}(z/\sqrt 2)\bigr)$ is the share of a standard normal distribution below $z$, and its derivative is the bell curve $\Phi'(z) = e^{-z^2/2}/\sqrt{2\pi}$. `erf` is imported above. (Not the approximation
# of GELU with tanh, which is often seen.)
#
# By hand, at $z = 1$: $\sigma = 0.7311$ with slope $0.1966$; $\Phi = 0.8413$ and $\Phi' = 0.2420$, so GELU is $0.8413$ with slope $1.0833$; SiLU is $0.7311$ with slope $0.9277$.


# %%
def activation(name, z):
    """An activation and its slope, entry by entry.

    name: "sigmoid", "tanh", "relu", "leaky", "gelu" (the exact one) or "silu".
    z: float array of any shape, entries up to ±800.
    Returns a = φ(z) and slope = φ'(z), both of z's shape.
    """
    # TODO: one case for each name, from the table. Far out, `exp` must not make a NaN.
    ### BEGIN SOLUTION
    if name == "tanh":
        a = np.tanh(z)
        return a, 1 - a**2
    if name == "relu":
        return np.maximum(0, z), np.where(z > 0, 1.0, 0.0)
    if name == "leaky":
        slope = np.where(z > 0, 1.0, 0.01)
        return slope * z, slope
    if name == "gelu":
        below = (1 + erf(z / math.sqrt(2))) / 2
        return z * below, below + z * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    s = (1 + np.tanh(z / 2)) / 2  # the sigmoid, without an exp that could overflow
    if name == "sigmoid":
        return s, s * (1 - s)
    return z * s, s + z * s * (1 - s)
    ### END SOLUTION


lab.check(activation)

# %%
NAMES = ["sigmoid", "tanh", "relu", "leaky", "gelu", "silu"]
grid = np.linspace(-5, 5, 501)
fig, axes = plt.subplots(2, 3, figsize=(9, 4.6), layout="constrained", sharex=True, sharey=True)
for name, ax in zip(NAMES, axes.flat, strict=True):
    a, slope = activation(name, grid)
    ax.plot(grid, a, color=plot.COLOURS[0], label="φ(z)")
    ax.plot(grid, slope, "--", color=plot.COLOURS[1], label="slope φ'(z)")
    ax.axhline(0, color="0.75", linewidth=0.8, zorder=0)
    ax.set(ylim=(-1.2, 2.2), title=name, xlabel="z" if ax in axes[1] else "")
axes[0, 0].legend(frameon=False, loc="upper left")
_ = fig.suptitle("Where the dashed line is at 0, no gradient passes", weight="bold")
# %% [markdown]
# **Question.** What is the largest slope of the sigmoid? What does that mean for a gradient that crosses 30 of them?
#
# <details><summary>Answer</summary>
#
# $\tfrac14$, at $z = 0$. Thirty sigmoids multiply a gradient by at most $4^{-30} \approx 10^{-18}$, and weights would have to make up for it. This is one reason why deep networks were long thought to be untrainable, and why hidden layers have no sigmoids
# now. Tanh has slope 1 at 0, ReLU and its relatives have it on the right.
#
# </details>

# %% tags=["instructor"]
assert abs(activation("sigmoid", np.zeros(1))[1][0] - 0.25) < 1e-12
for name, (value, slope) in {"sigmoid": (0.7311, 0.1966), "gelu": (0.8413, 1.0833), "silu": (0.7311, 0.9277)}.items():
    assert np.allclose([v[0] for v in activation(name, np.ones(1))], [value, slope], atol=6e-5)

# %% [markdown]
# ## 3 · How large should weights be? (9 min)
#
# A unit adds up $z = \sum_j w_j a_j$ over its $n_\text{in}$ inputs. Draw the weights independently, with mean 0 and variance $\sigma^2$. In $z^2$ all mixed terms $w_j w_k$ have mean 0, and what is left is
#
# $$\mathbb E[z^2] = n_\text{in}\, \sigma^2\, \mathbb E[a^2]$$
#
# - **LeCun**: if $\varphi$ does nothing ($a = z$, as tanh near 0), the size stays when $n_\text{in}\sigma^2 = 1$: $\sigma = \sqrt{1/n_\text{in}}$.
# - **He**: ReLU sets one half of the $z$ to 0, so $\mathbb E[a^2] = \tfrac12 \mathbb E[z^2]$, and weights have to make up for it: $\sigma = \sqrt{2/n_\text{in}}$. (There is your square root.)
# - **Glorot**: backwards the gradient comes through $W^{\top}$, each sum has $n_\text{out}$ terms, and the same argument wants $\sigma^2 = 1/n_\text{out}$. The compromise: $\sigma = \sqrt{2/(n_\text{in} + n_\text{out})}$.
#
# Only $\sigma$ matters for this, not the shape of the distribution. *Normal* is one choice. *Uniform* between $-r$ and $r$ is the other; its variance is $r^2/3$ (integrate $w^2/2r$ from $-r$ to $r$), so $r = \sqrt 3\,\sigma$.
#
# By hand: $n_\text{in} = 800$, $n_\text{out} = 250$: LeCun 0.0354, He 0.05, Glorot 0.0436; the uniform He runs from −0.0866 to 0.0866.


# %%
def init_weights(n_in, n_out, scheme, distribution, rng):
    """Draw the weights of a linear layer.

    scheme: "lecun", "glorot" or "he". distribution: "normal" or "uniform".
    rng: a np.random.Generator, the only source of chance.
    Returns (n_out, n_in), mean 0, with the scheme's standard deviation, whatever the distribution.
    """
    # TODO: the standard deviation first, then rng.normal or rng.uniform.
    ### BEGIN SOLUTION
    variance = {"lecun": 1 / n_in, "glorot": 2 / (n_in + n_out), "he": 2 / n_in}[scheme]
    sigma = math.sqrt(variance)
    if distribution == "normal":
        return rng.normal(0, sigma, (n_out, n_in))
    limit = math.sqrt(3) * sigma
    return rng.uniform(-limit, limit, (n_out, n_in))
    ### END SOLUTION


lab.check(init_weights)

# %% [markdown]
# PyTorch calls He Kaiming and Glorot Xavier (first names of the same people); its LeCun is Kaiming without the 2.

# %%
theirs = {
    "lecun": lambda w: nn.init.kaiming_normal_(w, nonlinearity="linear"),
    "glorot": nn.init.xavier_normal_,
    "he": lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu"),
}
torch.manual_seed(0)
for scheme, draw in theirs.items():
    mine = init_weights(800, 250, scheme, "normal", rng).std()
    print(f"{scheme:7} yours {mine:.4f}   torch.nn.init {draw(torch.empty(250, 800)).std():.4f}")
default = nn.Linear(800, 250).weight.std().item()
print(f"nn.Linear, unasked: {default:.4f}; √(1/(3·800)) = {math.sqrt(1 / 2400):.4f}")

# %% [markdown]
# **Question.** PyTorch's default is smaller than all three. By which factor does it shrink the signal in each ReLU layer? And over 30?
#
# <details><summary>Answer</summary>
#
# $n_\text{in} \sigma^2 / 2 = \tfrac13 / 2 = \tfrac16$ in mean square, $\sqrt{1/6} = 0.41$ in size; over 30 layers $0.41^{30} = 2 \cdot 10^{-12}$. With three layers nobody notices. Keep this in mind for section 6.
#
# </details>

# %% tags=["instructor"]
assert abs(default * math.sqrt(2400) - 1) < 0.02
assert abs(init_weights(800, 250, "he", "uniform", rng).max() - 0.0866) < 1e-3

# %% [markdown]
# ## 4 · The signal through thirty layers, there and back (13 min)
#
# Now measure. Forward, layer by layer: $Z_l = A_{l-1} W_l^{\top}$ and $A_l = \varphi(Z_l)$. Backward, from the gradient $\bar A_L$ that arrives at the top (a bar marks the gradient of the loss, as in *backpropagation*):
#
# $$\bar Z_l = \bar A_l \cdot \varphi'(Z_l) \quad \text{(entry by entry)}, \qquad \bar A_{l-1} = \bar Z_l\, W_l$$
#
# You want the typical size of $Z_l$ and of $\bar Z_l$ in every layer: the root mean square over all examples and units, `rms` above. (No biases: they begin at 0.)
#
# By hand, with ReLU, one layer of two units: $X = (1, 2)$, $W = \begin{pmatrix}1&1\\1&-1\end{pmatrix}$, $\bar A = (3, 5)$. $Z = (3, -1)$, rms $\sqrt{(9+1)/2} = 2.236$. $\bar Z = (3, 0)$, rms $\sqrt{9/2} = 2.121$.


# %%
def signal(X, weights, name, dA):
    """The typical size of z and of its gradient in each layer of an MLP without biases.

    X: (B, D). weights: list of W (out, in). name: of the activation, which follows every layer,
    the last one too. dA: (B, out of the last layer), the gradient of the last layer's activations.
    Returns forward, backward: root mean squares of Z_l and of its gradient, one for each layer,
    first layer first.
    """
    # TODO: forward, keeping each slope and rms(Z); then from dA back through the layers.
    ### BEGIN SOLUTION
    forward, slopes, A = [], [], X
    for W in weights:
        Z = A @ W.T  # (B, out)
        A, slope = activation(name, Z)
        forward.append(rms(Z))
        slopes.append(slope)
    backward = []
    for W, slope in zip(reversed(weights), reversed(slopes), strict=True):
        dZ = dA * slope  # (B, out)
        backward.append(rms(dZ))
        dA = dZ @ W  # (B, in)
    return np.array(forward), np.array(backward[::-1])
    ### END SOLUTION


lab.check(signal)

# %% [markdown]
# Thirty layers again, for ReLU and for tanh. The gradient that arrives at the top is random noise of size 1.

# %%
noise = rng.normal(size=(256, 100))
sizes = {}
for name in ("relu", "tanh"):
    for label, factor in (("LeCun", math.sqrt(0.5)), ("He", 1.0), ("3 × He", 3.0)):
        pairs = zip(WIDTHS[:-1], WIDTHS[1:], strict=True)
        weights = [factor * init_weights(a, b, "he", "normal", rng) for a, b in pairs]
        sizes[name, label] = forward, backward = signal(X, weights, name, noise)
        print(f"{name} {label:7} z in layer 30: {forward[-1]:8.1e}", end="   ")
        print(f"gradient in layer 1: {backward[0]:8.1e}")

fig, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained", sharey=True)
for name, pair in zip(("relu", "tanh"), axes, strict=True):
    for direction, what in enumerate(("z, forward", "the gradient of z, back")):
        plot.curves(
            {label: sizes[name, label][direction] for label in ("LeCun", "He", "3 × He")},
            xlabel="layer",
            ylabel="" if direction else "size",
            yscale="log",
            title=f"{name}: size of {what}",
            ax=pair[direction],
        )

# %% [markdown]
# **Question.** ReLU keeps its signal with He only. With tanh and weights three times too large, the sizes forward look healthy: what is going on in the layers? And why do the gradients explode although most slopes are nearly 0?
#
# <details><summary>Answer</summary>
#
# Most $a$ are close to $-1$ or $+1$: the layers are *saturated*. Their answers have size 1 whatever comes in, which looks calm from outside, but most slopes are tiny. The few units that are not saturated have slopes near 1, and there the large weights
# enlarge the gradient more than the others diminish it. Check both directions, always.
#
# </details>

# %% tags=["instructor"]
assert 0.05 < sizes["relu", "He"][0][-1] < 8 and 0.05 < sizes["relu", "He"][1][0] < 20
assert sizes["relu", "LeCun"][0][-1] < 1e-3 and sizes["relu", "LeCun"][1][0] < 1e-3
assert sizes["relu", "3 × He"][0][-1] > 1e9
assert sizes["tanh", "3 × He"][0][-1] < 10 and sizes["tanh", "3 × He"][1][0] > 1e3

# %% [markdown]
# **Break.** After it: matrices that keep lengths exactly, and the network that learns.

# %% [markdown]
# ## 5 · Keeping lengths exactly, and adding instead of replacing (9 min)
#
# Random weights keep the size *on average*. An **orthogonal** matrix, $W W^{\top} = I$, keeps the length of every single vector (if it is not square, of every vector in the smaller space). To draw one, take a matrix $M$ of normal
# numbers and split it into $M = QR$, $Q$ with orthonormal columns and $R$ upper triangular (`np.linalg.qr`).
#
# Two details. `qr` gives as many columns as the smaller side, so let $M$ have the larger side as its rows, and transpose $Q$ if need be. And the routine chooses signs by a rule of its own: multiply column $j$ of $Q$ by the sign of $R_{jj}$, and every
# orthogonal matrix is equally likely (Mezzadri, 2007).


# %%
def orthogonal(n_in, n_out, gain, rng):
    """A random matrix with orthogonal rows or columns, each of length `gain`.

    Returns W (n_out, n_in): W Wᵀ = gain² I if n_out ≤ n_in, else Wᵀ W = gain² I.
    rng: a np.random.Generator.
    """
    # TODO: a normal matrix with the larger side first, its Q with signs from R's diagonal,
    # turned to (n_out, n_in).
    ### BEGIN SOLUTION
    Q, R = np.linalg.qr(rng.normal(size=(max(n_in, n_out), min(n_in, n_out))))
    Q = Q * np.sign(np.diag(R))  # (larger, smaller), each column with its own sign
    return gain * (Q if n_out >= n_in else Q.T)
    ### END SOLUTION


lab.check(orthogonal)

# %% [markdown]
# The other way out: let each layer **add** to what it gets, $a_l = a_{l-1} + \alpha\, V_l\, \varphi(W_l a_{l-1})$, a *residual* layer. With $W_l$ by He and $V_l$ by LeCun the part added has the mean square of $a_{l-1}$ itself, and the mixed term is 0 on average:
# each layer multiplies the mean square by $1 + \alpha^2$. For $\alpha = 1$ it doubles. For $\alpha = 1/\sqrt{L}$ it grows in all $L$ layers by $(1 + 1/L)^L < e$, so the size by less than $\sqrt e = 1.65$: on average over nets, for any number of layers.

# %%
DEPTH = 100
alphas = {"residual, α = 1": 1, "residual, α = 1/√L": 1 / math.sqrt(DEPTH)}
flows = {name: [] for name in ("plain, normal He", "plain, orthogonal", *alphas)}
for _ in range(10):
    a0 = rng.normal(size=(1, 100))
    A = {name: a0 / rms(a0) for name in flows}
    sizes_now = {name: [] for name in flows}
    for _ in range(DEPTH):
        W = init_weights(100, 100, "he", "normal", rng)
        V = init_weights(100, 100, "lecun", "normal", rng)
        Q = orthogonal(100, 100, math.sqrt(2), rng)
        A["plain, normal He"] = activation("relu", A["plain, normal He"] @ W.T)[0]
        A["plain, orthogonal"] = activation("relu", A["plain, orthogonal"] @ Q.T)[0]
        for name, alpha in alphas.items():
            A[name] = A[name] + alpha * activation("relu", A[name] @ W.T)[0] @ V.T
        for name, value in A.items():
            sizes_now[name].append(rms(value))
    for name, value in sizes_now.items():
        flows[name].append(value)

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
unscaled = flows.pop("residual, α = 1")
for ax, shown in zip(axes, ({"residual, α = 1": unscaled}, flows), strict=True):
    medians = {name: np.median(runs, axis=0) for name, runs in shown.items()}
    plot.curves(medians, xlabel="layer", ylabel="size of a", ax=ax)
    for runs, colour in zip(shown.values(), plot.COLOURS, strict=False):
        low, high = np.quantile(runs, (0.1, 0.9), axis=0)
        ax.fill_between(np.arange(1, DEPTH + 1), low, high, color=colour, alpha=0.15)
    for name, median in medians.items():
        print(f"{name:19} median size after {DEPTH} layers {median[-1]:.3g}")
axes[0].set_yscale("log")
titles = ("Residual, unscaled: it explodes", "The others wander (bands: 80 % of 10 nets)")
for ax, title in zip(axes, titles, strict=True):
    ax.set_title(title, loc="left", size=10, weight="bold")

# %% [markdown]
# **Question.** Even with He the sizes wander from net to net. Why, if the mean square is kept exactly in expectation?
#
# <details><summary>Answer</summary>
#
# Each layer multiplies by a factor that is 1 on average but differs with the draw, by about $\sqrt{5/n}$ in mean square for $n$ units. The logarithms of 100 such factors add up to a random walk. Wider layers wander less.
#
# </details>

# %% tags=["instructor"]
ends = {name: np.array(runs)[:, -1] for name, runs in flows.items()}
assert np.median(np.array(unscaled)[:, -1]) > 1e10
assert 1.2 < np.median(ends["residual, α = 1/√L"]) < 2.2
assert 0.05 < np.median(ends["plain, normal He"]) < 3

# %% [markdown]
# ## 6 · Thirty layers that learn (10 min)
#
# Now real training: 30 hidden layers of 100 ReLU units and ten logits, 12,000 training images (10,000 for the search), 2,000 for validation, gradient descent with momentum 0.9. Each initialisation gets the same search: two learning rates, three epochs each, the better one counts. The cell computes for about 28 s.

# %%
device = lab.device
torch.set_num_threads(1)  # layers of 100 are too small to be shared between cores


def tensors(images, labels):
    """Rows (N, 784) and labels (N,) as tensors on the device."""
    x = torch.tensor(rows(images), dtype=torch.float32, device=device)
    return x, torch.tensor(labels, device=device)


x_train, y_train = tensors(mnist.x_train[:12_000], mnist.y_train[:12_000])
x_val, y_val = tensors(mnist.x_train[55_000:57_000], mnist.y_train[55_000:57_000])


class Deep(nn.Module):
    """An MLP with the given weights: list of W (out, in) as NumPy arrays. Biases begin at 0."""

    layer = staticmethod(nn.functional.linear)

    def __init__(self, weights, name="relu"):
        super().__init__()
        self.W = nn.ParameterList(torch.tensor(W, dtype=torch.float32) for W in weights)
        self.b = nn.ParameterList(nn.Parameter(torch.zeros(W.shape[:-1])) for W in weights)
        self.phi = getattr(nn.functional, {"leaky": "leaky_relu"}.get(name, name))

    def hidden(self, x):
        """The z of every hidden layer, and the last a, for x (B, D)."""
        zs, a = [], x
        for W, b in zip(self.W[:-1], self.b[:-1], strict=True):
            zs.append(self.layer(a, W, b))
            a = self.phi(zs[-1])
        return zs, a

    def forward(self, x):
        return self.layer(self.hidden(x)[1], self.W[-1], self.b[-1])  # (B, 10)


@torch.no_grad()
def evaluate(model, x, y):
    """Mean loss and accuracy."""
    logits = model(x)
    right = logits.argmax(1) == y
    return nn.functional.cross_entropy(logits, y).item(), right.float().mean().item()


def train(model, epochs, learning_rate, n=12_000, batch_size=128, seed=0):
    """Gradient descent with momentum on the first n training images. Returns the history."""
    model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9, fused=True)
    generator = torch.Generator().manual_seed(seed)
    history = {"loss_train": [], "loss_val": [], "accuracy_train": [], "accuracy_val": []}
    for _ in range(epochs):
        for batch in torch.randperm(n, generator=generator).to(device).split(batch_size):
            loss = nn.functional.cross_entropy(model(x_train[batch]), y_train[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for split, x, y in (("train", x_train[:2000], y_train[:2000]), ("val", x_val, y_val)):
            for key, value in zip(("loss", "accuracy"), evaluate(model, x, y), strict=True):
                history[f"{key}_{split}"].append(value)
    return history


def draw(kind, widths, rng):
    """Weights for all layers of these widths, by the name of an initialisation."""
    pairs = list(zip(widths[:-1], widths[1:], strict=True))
    if kind in ("lecun", "glorot", "he"):
        return [init_weights(a, b, kind, "normal", rng) for a, b in pairs]
    if kind == "2 × he":
        return [2 * init_weights(a, b, "he", "normal", rng) for a, b in pairs]
    if kind == "orthogonal":
        return [orthogonal(a, b, math.sqrt(2), rng) for a, b in pairs]
    sigma = {"σ = 0.01": lambda n: 0.01, "nn.Linear": lambda n: math.sqrt(1 / (3 * n))}[kind]
    return [rng.normal(0, sigma(a), (b, a)) for a, b in pairs]


best = {}
for kind in ("nn.Linear", "lecun", "he", "orthogonal"):
    scores = {}
    for rate in (0.002, 0.005):
        net = Deep(draw(kind, [*WIDTHS, 10], np.random.default_rng(0)))
        scores[rate] = train(net, 3, rate, n=10_000)["accuracy_val"][-1]
    best[kind] = max(scores, key=scores.get), max(scores.values())
    shown = "   ".join(f"{rate:g}: {score:5.1%}" for rate, score in scores.items())
    print(f"{kind:10} validation accuracy by learning rate   {shown}")

# %% [markdown]
# With PyTorch's default and with LeCun the answers stay a guess; with the right factor 30 layers train. Nothing but the first numbers differs. Train the best for longer. Beside it, to know what its accuracy is worth: logistic regression (no hidden layer) and one
# hidden layer of 100, each with the best of three learning rates on the validation images, as many epochs and the same images. About 18 s.


# %%
EPOCHS = 8
winner = max(best, key=lambda kind: best[kind][1])
deep_net = Deep(draw(winner, [*WIDTHS, 10], np.random.default_rng(0)))
history = train(deep_net, EPOCHS, best[winner][0])
others = {}
for label, widths, rates in (
    ("logistic regression", [784, 10], (0.002, 0.005, 0.01)),
    ("one hidden layer", [784, 100, 10], (0.02, 0.05, 0.1)),
):
    tried = []
    for rate in rates:
        net = Deep(draw("lecun" if len(widths) == 2 else "he", widths, np.random.default_rng(0)))
        tried.append((train(net, EPOCHS, rate)["accuracy_val"][-1], rate, net))
        print(f"{label}, learning rate {rate:g}: validation accuracy {tried[-1][0]:.1%}")
    others[label] = max(tried, key=lambda entry: entry[0])[2]

x_test, y_test = tensors(mnist.x_test, mnist.y_test)
test = {}
for label, net in {"30 hidden layers": deep_net, **others}.items():
    test[label] = evaluate(net, x_test, y_test)[1]
    print(f"{label:20} test accuracy {test[label]:.1%}")

fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for ax, what in zip(axes, ("loss", "accuracy"), strict=True):
    pair = {split: history[f"{what}_{split}"] for split in ("train", "val")}
    plot.curves(pair, ylabel=what, title=f"30 layers, {winner} weights", ax=ax)
# %% [markdown]
# **Question.** One hidden layer does as well or better. What was the point of 30?
#
# <details><summary>Answer</summary>
#
# To see what *can* be trained. For MNIST depth buys nothing. Where depth pays (images with structure at many scales, language), a network that cannot be initialised cannot be tried. Modern deep networks add residual paths and normalisation, two answers to this same problem.
#
# </details>

# %% tags=["instructor"]
assert best["nn.Linear"][1] < 0.2 and best["lecun"][1] < 0.6, best
assert min(best["he"][1], best["orthogonal"][1]) > 0.6, best
assert test["30 hidden layers"] > max(0.9, test["logistic regression"] - 0.01), test
assert test["one hidden layer"] > test["30 hidden layers"] - 0.01, test

# %% [markdown]
# One more thing that chance is for. Give all weights of a layer the **same** value, of a sensible size. Now all hidden units compute the same, so they get the same gradient, so they stay the same for ever: this is the *symmetry* that random numbers break.

# %%
same_weights = [np.full((64, 784), 0.01), np.full((10, 64), 0.05)]
random_weights = draw("he", [784, 64, 10], np.random.default_rng(0))
symmetric, broken = Deep(same_weights), Deep(random_weights)
accuracy_symmetric = train(symmetric, 2, 0.01)["accuracy_val"][-1]
accuracy_broken = train(broken, 2, 0.01)["accuracy_val"][-1]
learned = [
    (net.W[0].detach().cpu() - torch.tensor(W0)).numpy()
    for net, W0 in ((symmetric, same_weights[0]), (broken, random_weights[0]))
]
print(f"validation accuracy: equal weights {accuracy_symmetric:.1%}, random {accuracy_broken:.1%}")
print(f"largest difference between the 64 equal units: {np.ptp(learned[0], axis=0).max():.1e}")
plot.weights(
    np.concatenate([unit[:6] / np.abs(unit).max() for unit in learned]),
    columns=6,
    title="What 6 units learned from an equal start (above) and a random one (below)",
    label="change, largest = 1",
)

# %% [markdown]
# **Question.** Would it help to make the biases random and leave the weights equal? And all weights 0?
#
# <details><summary>Answer</summary>
#
# Random biases break the symmetry a little: units switch on for different inputs, so their gradients differ. It works, slowly. With all weights 0 not even that: the gradient of $W_1$ is $\bar Z_1^{\top} X$, and $\bar A_1 = \bar Z_2 W_2 = 0$. Only the last bias learns.
#
# </details>

# %% tags=["instructor"]
assert np.ptp(learned[0], axis=0).max() < 1e-4
assert accuracy_symmetric < 0.5 and accuracy_broken > 0.9

# %% [markdown]
# ## 7 · Dead units, found and revived (13 min)
#
# A good start can be lost. If one step throws a ReLU unit's bias far down, $z \le 0$ and the slope is 0 for every example, and no gradient will ever move it again: it is **dead**. Sigmoid and tanh have the same illness at both ends, where it is
# called **saturation**. One definition for all: an entry of $Z$ is *stuck* if $|\varphi'| < 0.001$ there, and a unit is dead if it is stuck for **every** example.
#
# By hand, ReLU, two units and two examples: $Z = \begin{pmatrix}-1&2\\-3&-1\end{pmatrix}$. Three of four entries are stuck: 0.75. Unit 1 (first column) is dead, unit 2 is not: $(\text{True}, \text{False})$.


# %%
def stuck_units(Z, name, tiny=1e-3):
    """Which units let no gradient through.

    Z: (B, H), B examples and H units. name: of the activation.
    An entry is stuck if the slope's absolute value is below `tiny`.
    Returns dead (H,) of bool: stuck for every example; and share, a number: of all B·H entries,
    those that are stuck.
    """
    # TODO: the slopes, compared with tiny; then once over the examples, once over all.
    ### BEGIN SOLUTION
    stuck = np.abs(activation(name, Z)[1]) < tiny  # (B, H)
    return stuck.all(axis=0), stuck.mean()
    ### END SOLUTION


lab.check(stuck_units)

# %% [markdown]
# Kill some on purpose: a learning rate of 0.01 fits; these ten steps use 0.8.

# %%
victim = Deep(draw("he", [784, 256, 10], np.random.default_rng(0)))
train(victim, 1, 0.8, n=1_280)  # ten violent steps


def dead_and_share(net):
    """dead (H,) and the share of stuck entries in the first hidden layer, on validation images."""
    with torch.no_grad():
        return stuck_units(net.hidden(x_val)[0][0].cpu().numpy().astype(float), "relu")


dead, share = dead_and_share(victim)
print(f"after ten violent steps: {dead.sum()} of 256 units dead, {share:.0%} of all entries stuck")

# %% [markdown]
# To **revive** a dead unit, give it a new start, without disturbing what the living have learned:
#
# 1. its incoming weights (a row of $W_1$) are drawn anew, He normal, and its bias becomes 0;
# 2. its outgoing weights (a column of $W_2$) become 0, so that at first nobody notices: the network's answers stay as they are.
#
# The outgoing weights then get gradients ($\bar W_2 = \bar Z_2^{\top} A_1$, and $A_1$ is alive again), and from the second step on the incoming ones too.


# %%
def revive(W1, b1, W2, dead, rng):
    """Give dead hidden units a new start; the network's output stays as it is.

    W1: (H, D), b1: (H,): the hidden layer. W2: (K, H): the next layer's weights.
    dead: (H,) of bool.
    Returns new W1, b1, W2; the arrays passed in stay as they are, and so does all that belongs
    to living units.
    """
    # TODO: copies; then new rows from a He normal draw by your init_weights, biases 0, outgoing 0.
    ### BEGIN SOLUTION
    W1, b1, W2 = W1.copy(), b1.copy(), W2.copy()
    W1[dead] = init_weights(W1.shape[1], dead.sum(), "he", "normal", rng)
    b1[dead] = 0
    W2[:, dead] = 0
    return W1, b1, W2
    ### END SOLUTION


lab.check(revive)

# %% [markdown]
# Two patients with the same history: one goes on as it is, one is revived first. Five epochs each, at a rate of 0.005.


# %%
def copy_of(net):
    """A new network with the same weights and biases."""
    twin = Deep([W.detach().cpu().numpy() for W in net.W])
    twin.load_state_dict(net.state_dict())
    return twin


untreated, treated = copy_of(victim), copy_of(victim)
parts = [p.detach().cpu().numpy().astype(float) for p in (victim.W[0], victim.b[0], victim.W[1])]
with torch.no_grad():
    revived = revive(*parts, dead, rng)
    for p, new in zip((treated.W[0], treated.b[0], treated.W[1]), revived, strict=True):
        p.copy_(torch.tensor(new))
    change = (treated.to(device)(x_val) - victim(x_val)).abs().max().item()
curves = {"untreated": train(untreated, 5, 0.005), "revived": train(treated, 5, 0.005)}
print(f"largest change of a logit by reviving: {change:.1e}")
for label, net in (("untreated", untreated), ("revived", treated)):
    accuracy = curves[label]["accuracy_val"][-1]
    print(f"{label:10} dead {dead_and_share(net)[0].sum():3}   validation accuracy {accuracy:.1%}")
plot.curves(
    {label: 100 * np.array(past["accuracy_val"]) for label, past in curves.items()},
    ylabel="validation accuracy (%)",
    title="The dead are missed; revived, they help",
)
# %% [markdown]
# **Question.** Would leaky ReLU have saved the patient? What does it cost?
#
# <details><summary>Answer</summary>
#
# Its slope is never below 0.01, so no unit is out of reach for good: slowly, it comes back. GELU and SiLU are in between: far to the left they are stuck too. The cost is next to nothing. But a dead unit is most often a message about the learning rate.
#
# </details>

# %% tags=["instructor"]
assert dead.sum() > 100, dead.sum()
assert dead_and_share(untreated)[0].sum() >= 0.8 * dead.sum()
assert dead_and_share(treated)[0].sum() < 0.3 * dead.sum()
assert curves["revived"]["accuracy_val"][-1] > curves["untreated"]["accuracy_val"][-1] + 0.02

# %% [markdown]
# ## 8 · Activation × initialisation (5 min)
#
# Everything at once: six activations, six initialisations, 15 hidden layers of 64 units, 3,000 digits, two epochs; of two learning rates the better one counts. Six networks train side by side, in one product of matrices. About 15 s, a row at a time.
#
# **Predict first.** Which columns will be dark from top to bottom? Which row from left to right?


# %%
class SideBySide(Deep):
    """N networks of one shape, as one with W (N, out, in): one product of matrices serves all."""

    @staticmethod
    def layer(a, W, b):
        return a @ W.mT + b[:, None]  # (N, B, out)


def train_side_by_side(drawn, name, rate):
    """Train the networks of these weights, two epochs; their validation accuracies, (N,)."""
    nets = SideBySide([np.stack(Ws) for Ws in zip(*drawn, strict=True)], name).to(device)
    optimizer = torch.optim.SGD(nets.parameters(), rate, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for batch in torch.randperm(3_000, generator=generator).to(device).split(64):
            logits = nets(x_train[batch]).flatten(0, 1)  # (N·B, 10), one network after the other
            losses = nn.functional.cross_entropy(logits, y_train[batch].repeat(len(drawn)))
            optimizer.zero_grad()
            (len(drawn) * losses).backward()  # the sum of their mean losses: each its own gradient
            optimizer.step()
    with torch.no_grad():
        return (nets(x_val).argmax(2) == y_val).float().mean(1).cpu().numpy()


KINDS = ["σ = 0.01", "nn.Linear", "lecun", "he", "orthogonal", "2 × he"]
shape = [784] + 15 * [64] + [10]
accuracy = []
print(f"{'':8}" + "".join(f"{kind:>12}" for kind in KINDS))
for name in NAMES:
    drawn = [draw(kind, shape, np.random.default_rng(1)) for kind in KINDS]
    accuracy.append(np.max([train_side_by_side(drawn, name, rate) for rate in (0.002, 0.01)], axis=0))
    print(f"{name:8}" + "".join(f"{value:12.1%}" for value in accuracy[-1]))
accuracy = np.array(accuracy)  # (activations, initialisations)

# %%
_, ax = plt.subplots(figsize=(7.5, 4), layout="constrained")
picture = ax.imshow(100 * accuracy, cmap="viridis", vmin=10, vmax=100, aspect="auto")
ax.set_xticks(range(len(KINDS)), KINDS)
ax.set_yticks(range(len(NAMES)), NAMES)
ax.set(xlabel="initialisation", ylabel="activation")
plt.colorbar(picture, label="validation accuracy (%)")
_ = ax.set_title("Right for one activation is wrong for another", loc="left", weight="bold")
# %% [markdown]
# **Question.** Tanh does not mind whether the weights are He's or LeCun's, ReLU does. Why? And what could save the sigmoid's row?
#
# <details><summary>Answer</summary>
#
# Tanh corrects itself forward: where $z$ grows, its slope falls. ReLU has no size of its own: $\max(0, cz) = c \max(0, z)$ for $c > 0$, so a factor that is wrong stays wrong through all layers. The sigmoid needs weights four times as large to make up for its slope
# of at most $\tfrac14$; but its outputs are all positive, and large weights turn that common part into saturation. Shifted and stretched, $2\sigma(2z) - 1$, it is tanh, and all is well.
#
# </details>

# %% tags=["instructor"]
table = {(name, kind): accuracy[i, j] for i, name in enumerate(NAMES) for j, kind in enumerate(KINDS)}
assert all(table[name, "σ = 0.01"] < 0.2 and table[name, "nn.Linear"] < 0.2 for name in NAMES)
assert all(table["sigmoid", kind] < 0.2 for kind in KINDS)
assert table["tanh", "lecun"] > 0.75 and table["tanh", "he"] > 0.75
assert table["relu", "he"] > table["relu", "lecun"] + 0.2

# %% [markdown]
# ## 9 · From notebook to program (9 min)
#
# [init_doctor.py](init_doctor.py) examines a network before it is trained: size of $z$, stuck entries, dead units and size of the gradient by layer, and a verdict. Its `--repair` needs `unit_variance`, yours to write: scale each layer's weights by one number so that its $z$ has root mean square 1 on a
# batch of **real data** (the main idea of LSUV, Mishkin and Matas, 2016). No formula for $\varphi$ is needed: you measure.
#
# Layer by layer, since each sees what the scaled ones before it make of the data. $z$ is linear in $W$, so one division per layer is exact. By hand: $A = (1, 2)$, $W = (3, -3)$ give $z = -3$, size 3; $W / 3 = (1, -1)$ gives $z = -1$.
#
# Open the script, fill in the TODO, and in a terminal beside the notebook, in its folder (from the course's: `cd workshops/dl-foundations/initialization-and-activations`):
#
#     atlas check unit_variance
#     python init_doctor.py --init torch
#     python init_doctor.py --init torch --repair --epochs 2
#
# **What we know, and what comes next.** A network begins as a product of random factors, and each must be 1: $n_\text{in}\sigma^2$ times what the activation lets through. Look at both directions; break the symmetry; keep units alive. But why does one learning rate fit all weights,
# and what did "momentum 0.9" do all this time? In [optimization-sgd-adam](../optimization-sgd-adam/README.md) you write the optimisers yourself.
