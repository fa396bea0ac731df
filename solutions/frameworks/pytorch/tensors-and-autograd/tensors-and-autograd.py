# %% [markdown]
# # Tensors and Autograd
#
# In *backpropagation* you wrote an engine that differentiates any formula. PyTorch's does the same, and more: it works on memory that several tensors share, it notices when you
# overwrite what it still needs, and its derivatives can be differentiated again. You take the lid off, and end with two measurements on real networks: the edge of stability, and the wrong labels in
# a data set. All derivations are in the [README](README.md).

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import atlas
from atlas import plot

lab = atlas.open("tensors-and-autograd")
device = lab.device
mnist, fashion = atlas.data.load("mnist"), atlas.data.load("fashion-mnist")

# %% [markdown]
# ## 1 · Storage, strides and views (11 min)
#
# A tensor is two things: a *storage*, a row of numbers in memory, and a way to walk through it: an *offset* $o$, a *shape* and *strides*. Entry $(i, j)$ lies at place
# $o + i\,s_0 + j\,s_1$ of the storage. Many operations change only the way and leave the numbers where they are; their result is a *view*. Take MNIST's first digit (LeCun et al., 1998; licence CC BY-SA 3.0).

# %%
digit = torch.tensor(mnist.x_train[0])  # (28, 28) uint8
looks = {
    "x": digit,
    "x.T": digit.T,
    "x[::2, ::2]": digit[::2, ::2],
    "x[6:22, 6:22]": digit[6:22, 6:22],
    "x.flip(1)": digit.flip(1),
}


def same_storage(a, b):
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


print("               shape     strides   offset  storage of x")
for name, look in looks.items():
    facts = f"{tuple(look.shape)!s:9} {look.stride()!s:9} {look.storage_offset():6}"
    print(f"{name:14} {facts}  {same_storage(look, digit)}")
fig, axes = plt.subplots(1, 5, figsize=(9, 2.2), layout="constrained")
for ax, (name, look) in zip(axes, looks.items(), strict=True):
    ax.imshow(look, cmap="gray")
    ax.set_title(f"{name}\nstrides {look.stride()}", size=9)
    ax.set(xticks=[], yticks=[])
_ = fig.suptitle("Four ways to walk through one storage, and one copy", size=11, weight="bold")

# %% [markdown]
# Only `flip` made new numbers: it would need a negative stride, which torch does not have. A view costs nothing, whatever its size, and *writing to it writes to the original*. That is the use and the danger:
# you have to know which is which. Three rules decide.
#
# 1. A slice, a single number as index, `T`, `expand`, `detach` and `view` only change the way: views.
# 2. A list or a mask as index reads numbers from anywhere, and new values (`clone`, `repeat`, another dtype) need new places: copies.
# 3. `reshape`, `flatten` and `contiguous` give a view (or the tensor itself) where strides can walk through the numbers in the wanted order, else a copy. (`contiguous` wants them side by side.) `to(dtype)`, `numpy()` and `torch.from_numpy` copy nothing where nothing has to change.

# %%
x = torch.arange(24.0).reshape(4, 6)  # float32, contiguous
OPERATIONS = {
    "a": lambda x: x[1],
    "b": lambda x: x[:, 2:4],
    "c": lambda x: x[[1, 2]],
    "d": lambda x: x[x > 5],
    "e": lambda x: x.T,
    "f": lambda x: x.reshape(8, 3),
    "g": lambda x: x.T.reshape(24),
    "h": lambda x: x.contiguous(),
    "i": lambda x: x[:, :3].flatten(),
    "j": lambda x: x[:1].expand(5, 6),
    "k": lambda x: x[:1].repeat(5, 1),
    "l": lambda x: x.to(torch.float32),
    "m": lambda x: x.double(),
    "n": lambda x: x.detach(),
    "o": lambda x: torch.from_numpy(x.numpy()),
}


def predictions():
    """Which results of OPERATIONS share their numbers with x, the (4, 6) tensor above?

    Returns a dict with a key for each letter: True where the result lies in x's storage (a view,
    or x itself), False where it is a copy.
    """
    # TODO: decide before you run anything, then: return dict(a=..., b=..., ..., o=...), all 15.
    ### BEGIN SOLUTION
    shared = {"a", "b", "e", "f", "h", "j", "l", "n", "o"}
    return {letter: letter in shared for letter in "abcdefghijklmno"}
    ### END SOLUTION


lab.check(predictions)

# %%
table = predictions()
print("    predicted   shared   result's shape and strides")
for letter, operation in OPERATIONS.items():
    result = operation(x)
    facts = f"{tuple(result.shape)} {result.stride()}"
    print(f"{letter}   {table[letter]!s:11} {same_storage(result, x)!s:8} {facts}")

# %% [markdown]
# **Question.** `rows = x[:2]; rows += 1` changes `x`, and `rows = x[[0, 1]]; rows += 1` does not. What about `x[[0, 1]] += 1`?
#
# <details><summary>Answer</summary>
#
# It changes `x`. Python turns it into three steps: take `x[[0, 1]]` (a copy), add 1 to it, and *assign it back* with `x[[0, 1]] = ...`, which writes. In the second case nothing is assigned back.
#
# </details>

# %% [markdown]
# ## 2 · Windows without a copy (10 min)
#
# Strides can do what no slice can. A convolution or a pooling looks at every $k \times k$ *window* of an image. Entry $(a, b)$ of window $(i, j)$ is $x_{i+a,\,j+b}$, and it lies at
#
# $$o + (i + a)\,s_0 + (j + b)\,s_1 \;=\; o + i\,s_0 + j\,s_1 + a\,s_0 + b\,s_1 .$$
#
# So the tensor of all windows has shape $(H - k + 1,\ W - k + 1,\ k,\ k)$ and strides $(s_0, s_1, s_0, s_1)$, on the same storage with the same offset. By hand: for the (4, 6) tensor above and $k = 3$ the shape is
# (2, 4, 3, 3) with strides (6, 1, 6, 1): 72 entries to see, 24 in memory. `x.as_strided(shape, strides)` makes such a view. It trusts you: as long as wrong strides stay in the storage, they read wrong numbers, and no error tells you.


# %%
def windows(x, k):
    """All k × k windows of the last two axes, as a view: nothing is copied.

    x: (..., H, W), any number of axes in front, however it lies in memory; 1 <= k <= min(H, W).
    Returns (..., H - k + 1, W - k + 1, k, k) on the storage of x: writing to it writes to x, and
    gradients flow through it as through any view.
    """
    # TODO: the shape, the strides, and x.as_strided(shape, strides). x.stride() tells x's own.
    ### BEGIN SOLUTION
    *front, H, W = x.shape
    *skip, down, right = x.stride()
    shape = (*front, H - k + 1, W - k + 1, k, k)
    return x.as_strided(shape, (*skip, down, right, down, right))
    ### END SOLUTION


lab.check(windows)

# %% [markdown]
# With windows, a convolution is one `einsum`, and a maximum is a max-pooling. The clothes are Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017; licence MIT).

# %%
three = torch.tensor(fashion.x_train[[0, 1, 18]]).float() / 255  # (3, 28, 28)
seen = windows(three, 3)  # (3, 26, 26, 3, 3)
edge = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
edges = torch.einsum("nhwab,ab->nhw", seen, edge)  # (3, 26, 26)
largest = seen.amax((-2, -1))  # (3, 26, 26)
off = (edges - F.conv2d(three[:, None], edge[None, None])[:, 0]).abs().max()
stored = seen.untyped_storage().nbytes()
print(f"difference to conv2d {off:.0e}; {4 * seen.numel():,} bytes to see, {stored:,} stored")
fig, axes = plt.subplots(3, 3, figsize=(5.4, 5.4), layout="constrained")
for row, pictures in zip(axes, zip(three, edges, largest, strict=True), strict=True):
    for ax, picture in zip(row, pictures, strict=True):
        ax.imshow(picture, cmap="gray")
        ax.set(xticks=[], yticks=[])
for ax, title in zip(axes[0], ("image", "edges: einsum", "largest: amax"), strict=True):
    ax.set_title(title, size=10)
_ = fig.suptitle("Convolution and pooling from one view", size=11, weight="bold")

# %% tags=["instructor"]
assert off < 1e-5 and same_storage(seen, three) and stored == 3 * 784 * 4

# %% [markdown]
# **Question.** `seen.reshape(-1, 9)` makes a matrix with one window in each row, and then a convolution is a matrix product. What does it cost?
#
# <details><summary>Answer</summary>
#
# A copy, nearly eight times as large as the images: no single stride leads from each window's beginning to the next, across the ends of lines. Many convolutions are computed so (*im2col*), for matrix products are so fast that the copy pays. The price is memory.
#
# </details>

# %% [markdown]
# ## 3 · In place, and what the graph keeps (6 min)
#
# Your engine's values were never overwritten. A tensor can be, and then backward could compute with wrong numbers. So every tensor has a *version counter*, which it shares with its views. An operation that saves a tensor for backward
# notes its version; each in-place operation adds one; backward compares.

# %%
w = torch.tensor([1.0, 2.0], requires_grad=True)
for name, operation in {"exp": torch.exp, "w * 3": lambda w: w * 3}.items():
    y = operation(w)
    y.add_(1)  # in place
    try:
        y.sum().backward()
        print(f"{name:6} version {y._version}: backward works")
    except RuntimeError as error:
        print(f"{name:6} version {y._version}: {str(error).split(':')[0]}")
print(f"w is a leaf: {w.is_leaf}; w.grad {w.grad}; y comes from {y.grad_fn.name()}")

# %% [markdown]
# The derivative of exp is exp itself, so its *result* was saved; $3w$ needs only the 3. The rest of the graph you know: a *leaf* is a tensor that no recorded operation made, `grad_fn` is the `push` of your engine, `.grad` adds up
# until you clear it. New is what torch lets go: `backward()` frees the saved tensors on its way, and a second call fails unless the first had `retain_graph=True`.
#
# Three ways to record less. They are not the same:

# %%
model = nn.Linear(3, 1)
inputs = torch.ones(2, 3)
recorded = model(inputs)
with torch.no_grad():
    unrecorded = model(inputs)
with torch.inference_mode():
    inferred = model(inputs)
print("                 graph   memory of the first   may enter a graph later")
for name, t in {
    "recorded": recorded,
    ".detach()": recorded.detach(),
    "no_grad": unrecorded,
    "inference_mode": inferred,
}.items():
    try:
        (t * model.weight.sum()).sum()  # recorded, and has to save t
        later = "yes"
    except RuntimeError as error:
        later = f"no: {error}".partition(".")[0]
    print(f"{name:16} {t.requires_grad!s:7} {same_storage(t, recorded)!s:21} {later}")

# %% [markdown]
# `detach` cuts one tensor and shares its memory: in-place changes are seen on both sides. `no_grad` records nothing in its block. `inference_mode` also drops version counters, which saves a little time, and its tensors can never be saved for backward.
#
# The graph lives as long as somebody holds its end. A classic leak: adding up losses for the log.


# %%
def operations_alive(end):
    """The number of operations that the tensor `end` keeps alive through its grad_fn."""
    waiting, seen = [end.grad_fn], set()
    while waiting:
        operation = waiting.pop()
        if operation is not None and operation not in seen:
            seen.add(operation)
            waiting += [parent for parent, _ in operation.next_functions]
    return len(seen)


total, number = 0.0, 0.0
for step in range(1, 101):
    loss = model(inputs).square().mean()
    total = total + loss  # a tensor with a graph
    number = number + loss.item()  # a number
    if step in (1, 10, 100):
        print(f"step {step:3}: total keeps {operations_alive(total):3} operations, number none")

# %% tags=["instructor"]
assert operations_alive(total) > 300 and abs(total.item() - number) < 1e-3

# %% [markdown]
# **Question.** Is `y = w * 3; w.data.add_(1); y.sum().backward()` safe? And what is wrong with `.data` in general?
#
# <details><summary>Answer</summary>
#
# Here it is, because $3w$ saves only the 3. With `w * w` it would silently give the derivative at the new $w$: `.data` shares memory *without* sharing the version counter, so nobody notices. `detach()` shares both. For a step write `with torch.no_grad(): w.add_(1)`.
#
# </details>

# %% [markdown]
# ## 4 · A function of your own (17 min)
#
# Autograd records what it knows. For all else there is `torch.autograd.Function`: you write forward and backward. Take *Swish* (Ramachandran, Zoph and Le, 2017), $y = x\,\sigma(\beta x)$ with a number $\beta$. Write $s = \sigma(\beta x)$, so that $ds/dx = \beta s (1 - s)$ and
#
# $$\frac{dy}{dx} = s + \beta x\, s\,(1 - s).$$
#
# By hand, $x = 1$, $\beta = 2$: $s = 0.8808$, $y = 0.8808$, and the slope is $0.8808 + 2 \cdot 0.8808 \cdot 0.1192 = 1.0908$. The rules:
#
# - `forward(ctx, x, beta)` runs *unrecorded* and leaves `x` as it is. `ctx` carries things from forward to backward: `ctx.save_for_backward(x)` keeps tensors, only them, and their version; a plain number is an attribute, `ctx.beta = beta`.
# - `backward(ctx, g)` gets $g = \partial L/\partial y$ and returns one thing for each argument of forward: $\partial L/\partial x$, and `None` for `beta`.
# - Where a second derivative is asked for, torch records what *backward* does and differentiates that. So backward computes its result from `x` and `g` by operations of torch. A tensor that forward made on its way, such as $s$, was never recorded: saved and used in backward, it counts as a constant, and the
#   second derivative is wrong without a word.


# %%
class Swish(torch.autograd.Function):
    """y = x σ(βx), entry by entry, to be called as Swish.apply(x, beta)."""

    @staticmethod
    def forward(ctx, x, beta):
        """x: any shape, floating, any numbers: 0, and ±1000 too. beta: a number. Returns y like x.

        y has x's shape and dtype. Neither y nor the slope is ever NaN.
        """
        # TODO: keep for backward what it needs, by save_for_backward if it is a tensor; return y.
        ### BEGIN SOLUTION
        ctx.save_for_backward(x)
        ctx.beta = beta
        return x * torch.sigmoid(beta * x)
        ### END SOLUTION

    @staticmethod
    def backward(ctx, g):
        """g: ∂L/∂y, like y. Returns ∂L/∂x and None, right also when it is differentiated again."""
        # TODO: x, = ctx.saved_tensors (mind the comma), then the slope, times g.
        ### BEGIN SOLUTION
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        return g * (s + ctx.beta * x * s * (1 - s)), None
        ### END SOLUTION


lab.check(Swish)

# %% [markdown]
# `gradcheck` is your `gradient_check` from *backpropagation*, for tensors; `gradgradcheck` does the same to the backward pass. Use both for every Function that you write, in double precision.

# %%
points = torch.randn(7, dtype=torch.float64, requires_grad=True)
print("gradcheck    ", torch.autograd.gradcheck(lambda x: Swish.apply(x, 1.5), points))
print("gradgradcheck", torch.autograd.gradgradcheck(lambda x: Swish.apply(x, 1.5), points))

at = torch.linspace(-5, 5, 201, requires_grad=True)
y = Swish.apply(at, 1.0)
(slope,) = torch.autograd.grad(y.sum(), at, create_graph=True)  # with a graph of its own
(bend,) = torch.autograd.grad(slope.sum(), at)
shown = {"y": y, "slope": slope, "second derivative": bend, "ReLU": F.relu(at)}
_ = plot.curves(
    {name: (at.detach().numpy(), values.detach().numpy()) for name, values in shown.items()},
    xlabel="x",
    ylabel="value",
    title="Swish with β = 1: smooth twice over, and not monotone",
)

# %% tags=["instructor"]
assert slope.min() < -0.05 and abs(bend[100].item() - 0.5) < 1e-3, "y'' = β/2 at 0"

# %% [markdown]
# Sometimes the true derivative is of no use. Rounding is flat almost everywhere, so its gradient is 0, and weights that are rounded in the forward pass never learn. The *straight-through estimator* (Bengio, Léonard and Courville, 2013) rounds in forward and
# pretends in backward that nothing happened: $\partial L/\partial x := \partial L/\partial y$. No Function is needed. If $c = \text{round}(x) - x$ is a constant to autograd, then $x + c$ has the value of the one and the gradient of the other.


# %%
def straight_through_round(x, step=1.0):
    """Round to the nearest multiple of step, with the gradient of the identity.

    x: any shape, floating, stays as it is; step: a number > 0. Where x / step lies halfway between
    two whole numbers, torch.round decides. Returns a tensor like x; the gradient with respect to x
    is the incoming one, unchanged.
    """
    # TODO: round x / step, go back to the scale of x, and let the gradient pass.
    ### BEGIN SOLUTION
    return x + (step * torch.round(x / step) - x).detach()
    ### END SOLUTION


lab.check(straight_through_round)

# %% [markdown]
# Softmax regression on 2,000 digits, its weights rounded to multiples of 0.05 in each forward pass: how much does it learn with each kind of rounding?

# %%
pixels = torch.tensor(mnist.x_train, device=device).flatten(1)  # (60000, 784) uint8
digits = torch.tensor(mnist.y_train, device=device)
center = pixels[:2000].float().mean(0) / 255  # (784,), of the training images only


def images(begin, end):
    return pixels[begin:end].float() / 255 - center  # (end - begin, 784)


x_train, y_train = images(0, 2000), digits[:2000]
x_val, y_val = images(50_000, 52_000), digits[50_000:52_000]
ROUND = {
    "none": lambda w: w,
    "straight": lambda w: straight_through_round(w, 0.05),
    "plain": lambda w: 0.05 * torch.round(w / 0.05),
}
losses = {}
for name, rounded in ROUND.items():
    w = torch.zeros(784, 10, device=device, requires_grad=True)
    curve = {"train": [], "val": []}
    for _ in range(40):
        loss = F.cross_entropy(x_train @ rounded(w), y_train)
        (g,) = torch.autograd.grad(loss, w)
        with torch.no_grad():
            curve["train"].append(loss.item())
            curve["val"].append(F.cross_entropy(x_val @ rounded(w), y_val).item())
            w -= 0.5 * g
    losses |= {f"{name} {split}": values for split, values in curve.items()}
    print(f"rounding {name:9} last validation loss {curve['val'][-1]:.3f}")
_ = plot.curves(
    losses,
    xlabel="step",
    ylabel="cross-entropy",
    title="Plain rounding learns nothing, straight-through all",
)

# %% tags=["instructor"]
assert losses["plain val"][-1] > 2.29, "log 10"
assert losses["straight val"][-1] < losses["none val"][-1] + 0.15 < 1

# %% [markdown]
# **Question.** After a step the weights `w` themselves are no multiples of 0.05. Why is that right?
#
# <details><summary>Answer</summary>
#
# One step moves a weight by far less than 0.05. Were `w` itself rounded, each step would be rounded away. The exact `w` collects the small steps until the rounded one jumps. What is deployed is the rounded one.
#
# </details>
#
# **Break.** After it: derivatives of more than one number.

# %% [markdown]
# ## 5 · Jacobians by rows and by columns (12 min)
#
# Let $f$ take $m$ numbers to $n$ numbers. Its *Jacobian* $J$ has $n$ rows and $m$ columns, $J_{ij} = \partial y_i/\partial x_j$. Neither mode of differentiation computes $J$; each multiplies with it:
#
# | | computes | cost of one | for all of $J$ |
# |---|---|---|---|
# | reverse mode, *vjp* (your engine) | $u^\top J$, a mix of rows | a few forward passes; all is kept | $n$ of them, $u = e_1, \dots, e_n$ |
# | forward mode, *jvp* | $J v$, a mix of columns | a few forward passes; nothing is kept | $m$ of them |
#
# A loss has $n = 1$: that is why networks are trained backwards. `torch.autograd.grad(y, x, u)` returns $u^\top J$. A trap: a number that does not depend on $x$ has no way back to it; its row is zero. Where $x$ is not used, `autograd.grad` raises, or with `allow_unused=True` returns `None`. A number that depends on nothing recorded does not even require grad (`number.requires_grad`), and that raises too.


# %%
def jacobian(f, x):
    """The Jacobian of f at x, by rows: one vjp for each number that f returns.

    f: a function of torch from x to a tensor of any shape; entries, or all of it, may not depend
    on x. x: floating, any shape. Returns (*shape of f(x), *shape of x), of x's dtype, with or
    without a graph. x keeps its requires_grad, and no .grad is filled, neither x's nor that of
    weights that f uses.
    """
    # TODO: an `own` = x, detached, that requires a gradient, y = f(own), and autograd.grad for each
    # number in y, with retain_graph=True. Where there is no way back to it, the row is zero.
    ### BEGIN SOLUTION
    own = x.detach().requires_grad_()  # the caller's stays as it is
    y = f(own)
    rows = torch.zeros(y.numel(), *x.shape, dtype=x.dtype, device=x.device)
    for row, number in zip(rows, y.flatten(), strict=True):
        if number.requires_grad:
            (g,) = torch.autograd.grad(number, own, retain_graph=True, allow_unused=True)
            if g is not None:
                row.copy_(g)
    return rows.reshape(*y.shape, *x.shape)
    ### END SOLUTION


lab.check(jacobian)

# %% [markdown]
# What does a network look at? Train a small one on the 2,000 digits, and take the Jacobian of its 10 logits with respect to the 784 pixels of one image: ten images.

# %%
torch.manual_seed(0)
reader = nn.Sequential(nn.Linear(784, 64), nn.Tanh(), nn.Linear(64, 10)).to(device)
optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3, weight_decay=1.0)
for _ in range(50):
    loss = F.cross_entropy(reader(x_train), y_train)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
accuracy = (reader(x_val).argmax(1) == y_val).float().mean().item()
print(f"validation accuracy {accuracy:.1%}")
J = jacobian(reader, x_train[0])  # (10, 784); image 0 is a five
_ = plot.weights(
    J.cpu(),
    titles=[f"logit {k}" for k in range(10)],
    columns=5,
    title="Row k of the Jacobian at a five: which pixels raise logit k",
    label="∂ logit / ∂ pixel",
)

# %% [markdown]
# `torch.func.jacrev` computes rows, `jacfwd` columns, all of them as one computation (`vmap`): the factor between both is far below 2000/10. Measure both where $n < m$ and where $n > m$.

# %%
down, up = torch.randn(10, 2000) / 45, torch.randn(2000, 10) / 3
spent = {}
print("                       by rows  by columns")
for name, f, point in (
    ("2000 numbers to 10", lambda x: torch.tanh(down @ x), torch.randn(2000)),
    ("10 numbers to 2000", lambda x: torch.tanh(up @ x), torch.randn(10)),
):
    for way in (torch.func.jacrev, torch.func.jacfwd):
        spent[name, way] = np.inf
        for _ in range(10):  # the fastest counts: the first warms up, others may wait for a core
            begin = time.perf_counter()
            found = way(f)(point)
            spent[name, way] = min(spent[name, way], 1000 * (time.perf_counter() - begin))  # ms
        if len(found) == 10:  # yours goes row by row: 2,000 of them take seconds
            assert torch.allclose(found, jacobian(f, point), atol=1e-5)
    by_rows, by_columns = spent[name, torch.func.jacrev], spent[name, torch.func.jacfwd]
    print(f"{name}   {by_rows:6.2f} ms   {by_columns:6.2f} ms")

# %% [markdown]
# **Question.** You want the derivative of a simulation with 3 parameters and 10,000 outputs. Which mode? And for a loss with 3 parameters?
#
# <details><summary>Answer</summary>
#
# Forward mode: 3 jvps against 10,000 vjps. For a loss ($n = 1$) reverse mode, one vjp; with only 3 parameters forward mode is three passes that keep nothing, which may be the better bargain where the simulation is long.
#
# </details>

# %% tags=["instructor"]
assert accuracy > 0.8 and J.shape == (10, 784)
factor = spent["2000 numbers to 10", torch.func.jacfwd] / spent["2000 numbers to 10", torch.func.jacrev]
assert 2 < factor < 200

# %% [markdown]
# ## 6 · Curvature without the Hessian (9 min)
#
# The *Hessian* $H_{ij} = \partial^2 L/\partial w_i \partial w_j$ is the Jacobian of the gradient. For $P$ weights it has $P^2$ entries: the reader above has 50,890 weights, which makes 10 GB. But products $Hv$ are cheap (Pearlmutter, 1994): with $v$ constant,
#
# $$\nabla_w\,\bigl(g(w)^\top v\bigr) = H v, \qquad g = \nabla L.$$
#
# A gradient, a scalar product, a gradient of that: two backward passes. By hand, $L = w_1^2 w_2$ at $(1, 3)$, $v = (1, 2)$: $g = (2 w_1 w_2,\ w_1^2)$, $g^\top v = 2 w_1 w_2 + 2 w_1^2$, and its gradient is $(2 w_2 + 4 w_1,\ 2 w_1) = (10, 2)$.


# %%
def hessian_vector_product(loss, params, v):
    """H v for the Hessian of loss with respect to all params together, without H.

    loss: a tensor of one number, with its graph. params: a list of tensors on which it may depend
    (or only linearly, or not at all: zeros there). v: a list of tensors in the shapes of params.
    Returns a list of tensors in those shapes, without a graph. The graph of loss stays, so that it
    can be called again for the same loss; no .grad is filled.
    """
    # TODO: torch.autograd.grad twice. create_graph=True makes the first one differentiable;
    # retain_graph=True keeps the graph for the next call; materialize_grads=True makes zeros of
    # None. If loss is linear in all params, gᵀv does not require grad: all zeros.
    ### BEGIN SOLUTION
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True))
    if not product.requires_grad:
        return [torch.zeros_like(p) for p in params]
    second = torch.autograd.grad(product, params, retain_graph=True, materialize_grads=True)
    return list(second)
    ### END SOLUTION


lab.check(hessian_vector_product)

# %%
w1, w2 = (torch.tensor(value, requires_grad=True) for value in (1.0, 3.0))
found = hessian_vector_product(w1**2 * w2, [w1, w2], [torch.tensor(1.0), torch.tensor(2.0)])
print("by hand 10 and 2:", *(each.item() for each in found))


def reader_loss():
    return F.cross_entropy(reader(x_train), y_train)


weights = list(reader.parameters())
ones = [torch.ones_like(p) for p in weights]
for name, work in {
    "forward": reader_loss,
    "and gradient": lambda: torch.autograd.grad(reader_loss(), weights),
    "and H v": lambda: hessian_vector_product(reader_loss(), weights, ones),
}.items():
    work()
    begin = time.perf_counter()
    for _ in range(5):
        work()
    print(f"{name:15} {200 * (time.perf_counter() - begin):6.1f} ms")

# %% [markdown]
# **Question.** $H$ is symmetric, so $Hv = \sum_i v_i \nabla g_i$: a loop over the entries of $g$ would do. Why is it not done?
#
# <details><summary>Answer</summary>
#
# It takes $P$ backward passes. Derivatives are linear, so $\sum_i v_i \nabla g_i = \nabla \sum_i v_i g_i$: sum first, then differentiate once.
#
# </details>

# %% [markdown]
# ## 7 · The edge of stability (13 min)
#
# From *optimization-sgd-adam*: on a quadratic with largest curvature $\lambda$, gradient descent converges only if $\eta < 2/\lambda$. For a network $\lambda$ is the largest eigenvalue of $H$, its *sharpness*, and it changes on the way. *Power iteration* finds the one of largest $|\lambda|$ (here it is $\lambda$: the most negative one is far smaller in size): multiply any vector by $H$ again and again, and keep its length at 1. Its part along the eigenvector of
# the largest $|\lambda|$ grows fastest, until nothing else is left. With $\lVert v \rVert = 1$, $v^\top H v$ is then the eigenvalue, with its sign.
#
# By hand: $H = \begin{pmatrix}2&1\\1&2\end{pmatrix}$, $v = (1, 0)$. $Hv = (2, 1)$ and $v^\top H v = 2$; next $v = (2, 1)/\sqrt5$, $Hv = (5, 4)/\sqrt5$ and $v^\top H v = 14/5 = 2.8$; then $2.976$. The eigenvalue is 3.


# %%
def largest_eigenvalue(hvp, like, generator, steps=100, tol=1e-3):
    """The eigenvalue of largest absolute value of a symmetric matrix H that is known by products.

    hvp: takes v, a list of tensors, returns H v, a list of the same shapes. like: a list of tensors
    that v is to be like, in shapes, dtype and device. generator: a torch.Generator on the CPU, the
    only source of chance: v begins with normal random numbers.
    Ends after `steps` products (1 or more), or as soon as an estimate vᵀHv, with the joint length
    of v at 1, differs from the one before by at most tol times its own size. Returns a Python
    number, the last estimate; 0.0 where H v is 0 (an H as small as 1e-13 is not 0).
    """
    # TODO: torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device) for each p.
    # Then, again and again: length 1, product, estimate, compare.
    ### BEGIN SOLUTION
    v = [torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device) for p in like]
    estimate = 0.0
    for step in range(steps):
        length = sum((each**2).sum() for each in v) ** 0.5
        if length == 0:
            return 0.0
        v = [each / length for each in v]
        product = hvp(v)
        before = estimate
        estimate = sum((a * b).sum() for a, b in zip(v, product, strict=True)).item()
        if step and abs(estimate - before) <= tol * abs(estimate):
            break
        v = product
    return estimate
    ### END SOLUTION


lab.check(largest_eigenvalue)

# %% [markdown]
# Now train a small network on 300 digits with plain gradient descent on all of them at once, with squared error, and watch its sharpness. The textbook chooses $\eta$ for a given $\lambda$. Here it goes the other way round (Cohen et al., 2021). Three runs, about 15 s.

# %%
few_x, few_y = images(0, 300), F.one_hot(digits[:300], 10).float()
val_y = F.one_hot(y_val, 10).float()


def squared_error(model, x, y):
    return (model(x) - y).square().sum(1).mean() / 2


def descend(rate, steps=800, every=25, seed=0):
    """Gradient descent on all examples, rate(t) in step t. Returns curves and the sharpness."""
    torch.manual_seed(seed)
    layers = [nn.Linear(784, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)]
    model = nn.Sequential(*layers).to(device)
    params, generator = list(model.parameters()), torch.Generator().manual_seed(seed)
    run = {"train": [], "val": [], "at": [], "sharpness": []}
    for t in range(steps + 1):
        loss = squared_error(model, few_x, few_y)
        run["train"].append(loss.item())
        if t % every == 0:
            product = lambda v, loss=loss: hessian_vector_product(loss, params, v)  # noqa: E731
            run["sharpness"].append(largest_eigenvalue(product, params, generator, tol=0.003))
            run["at"].append(t)
        gradient = torch.autograd.grad(loss, params)
        with torch.no_grad():
            if t % every == 0:
                run["val"].append(squared_error(model, x_val, val_y).item())
            for p, g in zip(params, gradient, strict=True):
                p -= rate(t) * g
    return run


RATES = {
    "η = 0.4": lambda t: 0.4,
    "η = 0.2": lambda t: 0.2,
    "0.4, then 0.2": lambda t: 0.4 if t < 250 else 0.2,
}
runs = {}
print("                sharpness: first   mean of the last 8   2/η   training loss")
for name, rate in RATES.items():
    run = runs[name] = descend(rate)
    first, late = run["sharpness"][0], np.mean(run["sharpness"][-8:])
    print(f"{name:16} {first:14.1f} {late:16.1f} {2 / rate(800):11.0f} {run['train'][-1]:13.4f}")

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for k, (name, run) in enumerate(runs.items()):
    style = {"color": plot.COLOURS[k], "linewidth": 1}
    left.semilogy(run["train"], **style, label=f"{name}, train")
    left.semilogy(run["at"], run["val"], **style, linestyle="--", label=f"{name}, validation")
    style |= {"marker": plot.MARKERS[k], "markersize": 3}
    right.plot(run["at"], run["sharpness"], **style, label=name)
for eta in (0.4, 0.2):
    right.axhline(2 / eta, color="0.4", linestyle=":")
    right.text(805, 2 / eta, f" 2/η, η = {eta}", size=8, va="center")
left.set(xlabel="step", ylabel="squared error / 2")
right.set(xlabel="step", ylabel="largest eigenvalue of H", xlim=(-20, 805), ylim=(0, None))
left.legend(frameon=False, fontsize=7, loc="lower left")
right.legend(frameon=False, fontsize=8, loc="lower right")
left.set_title("At the edge the loss falls, not in every step", loc="left", size=10, weight="bold")
_ = right.set_title("Sharpness rises to about 2/η", loc="left", size=10, weight="bold")

# %% [markdown]
# **Question.** The quadratic says: above $2/\eta$ gradient descent flies off. With $\eta = 0.4$ it hovers at $2/\eta$ for hundreds of steps and the loss goes on falling. What holds it there? And what did halving the rate in step 250 do, in the middle of a swing? (The validation loss rises, for 300 images are overfitted; this is about training.)
#
# <details><summary>Answer</summary>
#
# Two forces. As long as it is below $2/\eta$, training itself drives the sharpness up (*progressive sharpening*; why is not settled). Above it, the step along the sharpest direction overshoots, more each time: the loss rises for some steps. But a network is no quadratic. The swing carries the weights to where the surface is flatter, and the sharpness
# falls below $2/\eta$ again. Halving $\eta$ doubles the bound: the swing ends at once, and the sharpness sets out for the new one. So the curvature at which training ends is not a property of the task alone: you choose it with $\eta$.
#
# </details>
#
# **Break.** After it: one example at a time.

# %% tags=["instructor"]
fast, slow, halved = runs.values()
assert fast["sharpness"][0] < 3.5 and max(fast["sharpness"]) < 8
assert max(fast["val"]) > 1.2 * min(fast["val"][1:]), "it overfits"
assert 4.2 < np.mean(fast["sharpness"][16:]) < 6.2, "about 2/0.4"
assert 8 < np.mean(slow["sharpness"][-4:]) < 12.5, "about 2/0.2"
assert np.mean(halved["sharpness"][-4:]) > 8 > max(halved["sharpness"][:8])
rises = np.mean(np.diff(fast["train"][300:]) > 0), np.mean(np.diff(slow["train"][:300]) > 0)
assert rises[0] > 0.1 and rises[1] < 0.02, "not monotone at the edge, monotone before it"

# %% [markdown]
# ## 8 · A gradient for every example (16 min)
#
# `backward()` on a batch gives the sum of all examples' gradients. Who needs them one by one? Privacy (each is clipped), estimates of noise, and the question which examples pull hardest. A loop works, one example at a time. `torch.func` does better: it treats a model as a function of its weights, `functional_call(model, weights, args)`, turns a
# function into its gradient, `grad(f)`, and runs it over a batch as one computation, `vmap(f, in_dims=...)`. They compose:
#
# - `weights` is a dict, name to tensor. `grad(f)` differentiates with respect to $f$'s *first* argument, and returns the same kind of dict.
# - `in_dims=(None, 0, 0)` says: the first argument is the same for all examples, the others are cut along their axis 0. Within $f$ an example has lost its batch axis, and a model wants one: `x[None]`, and for the loss `y[None]`.


# %%
def per_sample_gradients(model, x, y):
    """The gradient of each example's own cross-entropy with respect to each weight that learns.

    model: (B, ...) to logits (B, K), in evaluation mode; it may have buffers and frozen weights.
    x: (B, ...), y: (B,) int64. Returns a dict, the parameter's name → (B, *its shape), for the
    parameters with requires_grad only; zeros for one that has no part in the loss. The model and
    its .grad stay as they are; the result has no graph.
    """
    # TODO: 1. name → detached parameter, for those that learn. functional_call takes all others,
    #          and the buffers, from the model itself.
    #       2. a function of (weights, one x, one y) that returns one loss, F.cross_entropy
    #       3. vmap(grad(...), in_dims=...), both from torch.func
    ### BEGIN SOLUTION
    learning = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(weights, x, y):
        logits = torch.func.functional_call(model, weights, (x[None],))  # (1, K)
        return F.cross_entropy(logits, y[None])

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(learning, x, y)
    return {name: g.detach() for name, g in found.items()}
    ### END SOLUTION


lab.check(per_sample_gradients)

# %% [markdown]
# Now a use. Take 5,000 images of Fashion-MNIST, give 150 of them (3 %) a wrong label, and train on all. An example whose label contradicts the others should pull harder: rank all by the length of their gradient. The rival is cheaper: rank by the loss. Which share of the 150 at the top was planted? Chance would find 3 %.
#
# Both depend on *when* one looks: too early and little is learned, too late and the wrong labels are learned too. So the number of epochs is tuned, for each score by itself, on one set of planted labels. About 10 s.

# %%
N, WRONG = 5000, 150
clothes = torch.tensor(fashion.x_train[:N], device=device).float().flatten(1) / 255
clothes = (clothes - clothes.mean()) / clothes.std()  # (N, 784)
true = torch.tensor(fashion.y_train[:N], device=device)


def plant(seed):
    """Labels of which WRONG are another class, and which ones, a mask (N,)."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.randperm(N, generator=generator)[:WRONG].to(device)
    labels = true.clone()
    shift = torch.randint(1, 10, (WRONG,), generator=generator).to(device)
    labels[at] = (labels[at] + shift) % 10
    return labels, labels != true


def scores_of(model, x, y):
    """Length of each example's gradient, and its loss. B times P numbers at once: so in pieces."""
    lengths = []
    for a, b in zip(x.split(100), y.split(100), strict=True):
        each = per_sample_gradients(model, a, b).values()
        lengths.append(sum((g**2).flatten(1).sum(1) for g in each).sqrt())
    with torch.no_grad():
        loss = F.cross_entropy(model(x), y, reduction="none")
    return {"gradient": torch.cat(lengths), "loss": loss}


def precision(score, planted, k=WRONG):
    """The share of planted ones among the k highest scores."""
    return planted[score.topk(k).indices].float().mean().item()


def watch(seed, epochs):
    """Train on planted labels; yield each of these epochs, the scores then, and the mask."""
    labels, planted = plant(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    batches, step = -(-N // 64), 0  # of an epoch; done so far
    looks = {round(epoch * batches): epoch for epoch in epochs}
    while step < max(looks):
        for batch in torch.randperm(N).to(device).split(64):
            loss = F.cross_entropy(model(clothes[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step in looks:
                yield looks[step], scores_of(model, clothes, labels), planted


tuned, kept = {"gradient": {}, "loss": {}}, {}
print("epochs   gradient   loss   (precision at 150)")
for epoch, scores, planted in watch(seed=0, epochs=(0.5, 1, 2, 4, 6, 8)):
    kept[epoch] = scores
    for name, score in scores.items():
        tuned[name][epoch] = precision(score, planted)
    print(f"{epoch:4} {tuned['gradient'][epoch]:11.0%} {tuned['loss'][epoch]:8.0%}")
best = {name: max(values, key=values.get) for name, values in tuned.items()}
print("best number of epochs:", best)

# %% [markdown]
# With the epochs fixed, measure on three new sets of planted labels, on which nothing was tuned. About 9 s.

# %%
finals = {"gradient": [], "loss": []}
for seed in (1, 2, 3):
    for epoch, scores, now_planted in watch(seed, sorted(set(best.values()))):
        for name in finals:
            if epoch == best[name]:
                finals[name].append(precision(scores[name], now_planted))
    print(f"seed {seed}: gradient {finals['gradient'][-1]:.0%}, loss {finals['loss'][-1]:.0%}")
for name, values in finals.items():
    print(f"{name:9} {np.mean(values):.0%} ± {np.std(values, ddof=1):.0%}, chance {WRONG / N:.0%}")
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
ks = np.arange(10, 601, 10)
for k, name in enumerate(tuned):
    style = {"color": plot.COLOURS[k], "label": name}
    left.plot(list(tuned[name]), list(tuned[name].values()), marker=plot.MARKERS[k], **style)
    score = kept[best[name]][name]
    right.plot(ks, [precision(score, planted, int(n)) for n in ks], **style)
for ax in (left, right):
    ax.axhline(WRONG / N, color="0.4", linestyle=":", label="chance")
    ax.set(ylim=(0, 1.02), ylabel="share of planted labels")
right.plot(ks, np.minimum(1, WRONG / ks), color="0.4", label=f"if all {WRONG} came first")
left.set(xlabel="epochs of training before the look")
right.set(xlabel="k, so many from the top")
right.legend(frameon=False)
left.set_title("Precision at 150: the loss wins", loc="left", size=10, weight="bold")
_ = right.set_title("Both far above chance at every k", loc="left", size=10, weight="bold")

# %% [markdown]
# And what stands at the top? A star marks a planted label; the others are the data set's own.

# %%
labels, _ = plant(0)
top = {name: kept[best[name]][name].topk(10).indices for name in ("gradient", "loss")}
both = torch.cat([top["gradient"], top["loss"]])
titles = [f"{fashion.classes[labels[i]]}{' *' if planted[i] else ''}" for i in both]
length, in_front = clothes.norm(dim=1), {}
for name in top:
    in_front[name] = torch.zeros_like(planted)
    in_front[name][kept[best[name]][name].topk(WRONG).indices] = True
    print(f"mean length ‖x‖ of the 150 at the top by {name:8} {length[in_front[name]].mean():.1f}")
missed = length[planted & ~in_front["gradient"]].mean()
print(f"of all {length.mean():.1f}; of the planted ones that the gradient misses {missed:.1f}")
_ = plot.images(
    fashion.x_train[both.cpu().numpy()],
    titles=titles,
    columns=10,
    title="Longest gradients (above), largest losses (below)",
)

# %% [markdown]
# **Question.** Both beat chance by far, and at 150 the loss beats the gradient. (Among the first 20 the plot may say otherwise: that is a difference of a few images, in one set of labels.) Why does the more expensive score lose? (Think of $\partial L/\partial z = p - e_y$, the gradient at the logits, with $e_y$ 1 at the label and 0 elsewhere: how long can it get?)
#
# <details><summary>Answer</summary>
#
# At most $\sqrt2$, when the network is sure of another class, while the loss $-\log p_y$ goes on rising. So among those that the network is sure are wrong the gradient hardly tells apart, and then its other factor decides: the length of each layer's input (section 10 has the formula). Images with a long $x$ rise and those with a short one sink, whatever their label: the printed lengths show it. For *this* task take the loss. The gradient's length is another
# quantity: it says how far an example moves the weights. It is what has to be clipped for privacy, and its square is an example's influence on its own loss.
#
# </details>

# %% tags=["instructor"]
assert all(0.3 < p < 0.8 for p in finals["gradient"]) and all(0.5 < p < 0.9 for p in finals["loss"])
assert np.mean(finals["loss"]) > np.mean(finals["gradient"]) + 0.05, "the loss wins"
assert np.mean(finals["gradient"]) > 10 * WRONG / N
assert all(max(values.values()) > values[0.5] for values in tuned.values()), "half an epoch is too early"
assert length[in_front["gradient"]].mean() > length[in_front["loss"]].mean() > missed + 1

# %% [markdown]
# ## 9 · What is saved for backward (4 min)
#
# *backpropagation* counted the memory of a training step, and traded it for time by checkpoints. Now you can see what each operation saves: torch hands every tensor that it saves to a pair of hooks. Four ways to compute the same Swish:


# %%
def saved_bytes(f, x):
    """The bytes that f(x) saves for backward, each storage once."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = f(x)  # held until all is counted, and its graph with it
    return result is not None and sum(storage.nbytes() for storage in storages.values())


def formula(x):
    return x * (1 / (1 + torch.exp(-x)))


big = torch.randn(1000, 1000, requires_grad=True)
WAYS = {
    "x * (1 / (1 + exp(-x)))": formula,
    "x * sigmoid(x)": lambda x: x * torch.sigmoid(x),
    "your Swish": lambda x: Swish.apply(x, 1.0),
    "F.silu": F.silu,
}
held = {name: saved_bytes(f, big) / 1e6 for name, f in WAYS.items()}
for name, megabytes in held.items():
    print(f"{name:24} saves {megabytes:3.0f} MB, x itself included")
(g_plain,) = torch.autograd.grad(formula(big).sum(), big)
(g_again,) = torch.autograd.grad(checkpoint(formula, big, use_reentrant=False).sum(), big)
print("the formula under checkpoint has the same gradient:", torch.allclose(g_plain, g_again))
fig, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
ax.barh(list(held), list(held.values()), color=plot.COLOURS[0])
ax.invert_yaxis()
ax.set(xlabel="saved for backward (MB); x has 4 MB")
_ = ax.set_title("Your Function saves only its input", loc="left", size=10, weight="bold")

# %% [markdown]
# A Function that saves its input and computes the rest again is a checkpoint made by hand. `checkpoint(f, x, use_reentrant=False)` does it for any piece of a model, at the price of a second forward pass.
#
# **Discuss.** Where in your own networks would you spend a second forward pass, and where not? (Cheap to compute and large to keep: activations, normalisation, dropout. Dear to compute: matrix products.)

# %% tags=["instructor"]
assert held["your Swish"] == held["F.silu"] == 4
assert 4 < held["x * sigmoid(x)"] < held["x * (1 / (1 + exp(-x)))"]
assert torch.allclose(g_plain, g_again)

# %% [markdown]
# ## 10 · From notebook to program (7 min)
#
# [find_mislabelled.py](find_mislabelled.py) ranks the labels of a data set by how suspicious they are, writes the list as CSV and draws the top. It needs only the *lengths* of the gradients, and for them there is a short way. In a linear layer $z = Wa + b$ an example's gradient with respect to $W$ is an outer product, $\delta a^\top$ with $\delta = \partial L/\partial z$, and
# with respect to $b$ it is $\delta$. The squares of an outer product add up to $\lVert\delta\rVert^2 \lVert a\rVert^2$ (Goodfellow, 2015). So with $a$ and $\delta$ of each layer, from *one* backward pass,
#
# $$\lVert \nabla L_i \rVert^2 = \sum_{\text{layers}} \lVert \delta_i \rVert^2\,\bigl(\lVert a_i \rVert^2 + 1\bigr).$$
#
# By hand: $\delta = (3, 4)$, $a = (1, 2, 2)$: $25 \cdot (9 + 1) = 250$, length $15.8$. `gradient_norms` is yours. In a terminal beside the notebook, in its folder (from the course's: `cd workshops/frameworks/pytorch/tensors-and-autograd`):
#
#     atlas check gradient_norms
#     python find_mislabelled.py --plant 0.03
#     python find_mislabelled.py --resume --epochs 5
#
# The program needs `gradient_norms`, so write that first; it then trains for about 15 s. **Question.** Compare the two counts. And which of the top 20 in `runs/labels.png` without a star are really wrong?
#
# <details><summary>Answer</summary>
#
# By the loss about three quarters are planted, by the gradient about six in ten, and two more epochs change little. A label without a star is often right: a top with straps, which the network takes for a bag, stands high because it is unusual. A score says where to look, not what is wrong.
#
# </details>
#
# **What you can do now.** You know what a tensor shares, what the graph keeps and when it complains; you have written a Function that can be differentiated twice, Jacobians, curvature, and a gradient for every example. Next workshop: **datasets-and-dataloaders**, how data get into tensors at speed.
