# %% [markdown]
# # PyTorch Basics: tensors, modules, the workflow
#
# In *regularization-dropout-batchnorm* you wrote `batch_norm` as a function, and its running statistics went in and out by hand. `nn.BatchNorm1d` carries them itself. It also hears `model.eval()` from
# afar, and turns up in `state_dict()`, which is no copy, as you found out. How does it do all that? Here you take the lid off: tensors, `nn.Module`, the training step, hooks, and the file at the end.
# Derivations and figures are in the [README](README.md).

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

import atlas
from atlas import plot

lab = atlas.open("pytorch-basics")
fashion = atlas.data.load("fashion-mnist")
fashion

# %% [markdown]
# ## 1 · A number has a type and a place (11 min)
#
# A tensor is a block of numbers with a *shape*, one type for all (`dtype`) and a place (`device`). The type decides what arithmetic does, and says nothing when it loses something.

# %%
pixels = torch.tensor(fashion.x_train[:10_000])  # (10000, 28, 28)
print(pixels.shape, pixels.dtype, pixels.device)
bright, dark = torch.tensor([200, 100], dtype=torch.uint8)
print("uint8:    200 + 100 =", (bright + dark).item())
print("int64:   -7 // 2 =", (torch.tensor(-7) // 2).item())
print("float32: 2²⁴ + 1 - 2²⁴ =", (torch.tensor(2.0**24) + 1 - 2.0**24).item())
mask = pixels > 127  # bool, the same shape
print(f"bright pixels: {mask.float().mean():.1%}, their mean {pixels[mask].float().mean():.0f}")


def running_sum(dtype, steps=10_000):
    """Add 0.1 again and again, rounding to this type each time. Returns all sums, (steps,)."""
    total, sums = torch.zeros((), dtype=dtype), []
    for _ in range(steps):
        total = total + torch.tensor(0.1, dtype=dtype)
        sums.append(total.item())
    return np.array(sums)


sums = {name: running_sum(getattr(torch, name)) for name in ("bfloat16", "float16", "float32")}
for name, values in sums.items():
    print(f"10,000 times 0.1 in {name}: {values[-1]:.4f}")
ax = plot.curves(
    {name: (np.arange(1, 10_001), values) for name, values in sums.items()},
    xlabel="numbers added",
    ylabel="sum of so many 0.1",
    xscale="log",
    yscale="log",
    title="In half precision a sum stops growing; in single precision it drifts",
)

# %% [markdown]
# A float keeps a fixed number of binary digits: 24 in float32, 11 in float16, 8 in bfloat16. Near $2^e$ its neighbours are $2^{e-23}$, $2^{e-10}$ and $2^{e-7}$ away, and what is less than half of that is rounded away.
#
# **Question.** At which sum must float16 stop, by this rule? And bfloat16?
#
# <details><summary>Answer</summary>
#
# Where half the gap exceeds 0.1. For float16 at $2^8 = 256$: the gap is $2^{8-10} = 0.25$. For bfloat16 at $2^5 = 32$: the gap is $2^{5-7} = 0.25$. The same happens to a weight whose update is too small for it: so weights stay in float32, whatever the rest does.
#
# </details>
#
# **The place.** A tensor on another device cannot meet one on the CPU. `tensor.to(device)` gives a *new* tensor (or itself, if it is there already), while `module.to(device)` moves the module's own. Batches are rarely one tensor, they are nested: so write the function that
# every project has.


# %%
def to_device(nested, device):
    """The same structure with every tensor on `device`.

    nested: a tensor; a dict, list, tuple or named tuple of such things, to any depth; or anything
    else (text, numbers, None, NumPy arrays), which stays as it is. Containers come back as new ones
    of the same kind, dicts in the same order, even where no tensor is in them; those passed in stay
    as they are. A subclass of dict may come back as a plain dict.
    """
    # TODO: four cases and the rest. A named tuple has _fields, and is made by kind(*items).
    ### BEGIN SOLUTION
    if isinstance(nested, torch.Tensor):
        return nested.to(device)
    if isinstance(nested, dict):
        return {key: to_device(value, device) for key, value in nested.items()}
    if isinstance(nested, list | tuple):
        items = [to_device(value, device) for value in nested]
        return type(nested)(*items) if hasattr(nested, "_fields") else type(nested)(items)
    return nested
    ### END SOLUTION


lab.check(to_device)

# %% [markdown]
# There is a device without memory, `meta`: its tensors have shape and type and no numbers. It tells what a computation *would* need. Say, all differences between 10,000 images and 10,000 others:

# %%
batch = {"x": pixels.flatten(1).float(), "names": fashion.classes}
there = to_device(batch, "meta")
cube = there["x"][:, None] - there["x"]  # (N, 1, D) - (N, D)
cube_gigabytes = cube.numel() * cube.element_size() / 1e9
print(tuple(cube.shape), f"{cube_gigabytes:,.0f} GB")

# %% tags=["instructor"]
assert sums["float16"][-1] == 256 and sums["bfloat16"][-1] == 32
assert 0.01 < abs(sums["float32"][-1] - 1000) < 0.3
assert 300 < cube_gigabytes < 330

# %% [markdown]
# ## 2 · One entry from each row (8 min)
#
# *Broadcasting*: shapes are written one below the other, aligned at the right; lengths must be equal, or one of them 1 (or missing), which is then repeated. So (N, K) − (K,) takes one number from each column, and (N, 1) − (M,) is an (N, M) table of differences.
#
# *Indexing* with a slice cuts out a block. With two lists of numbers it takes *points*: `scores[[0, 1], [2, 0]]` is entries (0, 2) and (1, 0). And `scores.gather(1, index)` takes from row $n$ the columns `index[n]`.
#
# By hand: scores $\begin{pmatrix} 5 & 1 & 7 \\ 2 & 9 & 4 \end{pmatrix}$ and $y = (2, 0)$ give $(7, 2)$. Note what `scores[:, y]` gives instead: all rows of both columns, (2, 2).


# %%
def pick(scores, y):
    """From each row the entry in the column that y names: scores[n, y[n]].

    scores: (N, K), a tensor; some other entries may be infinite. y: (N,), int64, from 0 to K - 1.
    Returns (N,), linked to the scores, so that gradients flow. No loop over rows, and no table
    larger than scores on the way.
    """
    # TODO: one line.
    ### BEGIN SOLUTION
    return scores.gather(1, y[:, None])[:, 0]
    ### END SOLUTION


lab.check(pick)

# %% [markdown]
# At work: how far can one get with the *mean image* $\mu_k$ of each class? The nearest mean has the largest score $x^\top \mu_k - \frac12 \lVert \mu_k \rVert^2$ (the README derives it: $\lVert x \rVert^2$ is the same for all classes). An image's *margin* is the score of its own class minus the best of the others.

# %%
device = lab.device
split = {
    "train": (fashion.x_train[:10_000], fashion.y_train[:10_000]),
    "val": (fashion.x_train[50_000:55_000], fashion.y_train[50_000:55_000]),
    "test": (fashion.x_test, fashion.y_test),
}
x, y = {}, {}
for name, (images, classes) in split.items():
    x[name] = torch.tensor(images).flatten(1).float().to(device) / 255  # (N, D), D = 784
    y[name] = torch.tensor(classes).to(device)

means = torch.stack([x["train"][y["train"] == k].mean(0) for k in range(10)])  # (K, D), by masks
scores = x["val"] @ means.T - 0.5 * (means**2).sum(1)  # (N, K) - (K,)
own = pick(scores, y["val"])
others = scores.scatter(1, y["val"][:, None], -torch.inf).max(1).values  # own class out of the way
margin = (own - others).cpu()
right = (margin > 0).float().mean().item()

fig, ax = plt.subplots(figsize=(7.2, 3), layout="constrained")
bins = np.linspace(margin.min(), margin.max(), 60)
ax.hist(margin[margin > 0], bins, color=plot.COLOURS[0], label="own class's mean is nearest")
ax.hist(margin[margin <= 0], bins, color=plot.COLOURS[1], label="another one is nearer")
ax.set(xlabel="margin: score of the own class minus the best other", ylabel="validation images")
ax.legend(frameon=False)
_ = ax.set_title(f"Ten mean images get {right:.0%} right", loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert 0.64 < right < 0.72

# %% [markdown]
# **Question.** `scores[:, y].diagonal()` gives the same numbers. Why is it a bad idea with 5,000 rows?
#
# <details><summary>Answer</summary>
#
# It makes a table of 5,000 × 5,000 numbers, 100 MB, to keep 5,000 of them. And `(scores * one_hot).sum(1)` multiplies what it does not want by 0: one infinite score, as a mask leaves behind, and the sum is NaN.
#
# </details>
#
# ## 3 · Distances without the cube (11 min)
#
# All distances between the rows of $A$, shape (N, D), and of $B$, shape (M, D). Broadcasting alone would make the differences first, (N, M, D): the cube of 314 GB above. The usual way out multiplies matrices:
#
# $$\lVert a - b \rVert^2 = \lVert a \rVert^2 + \lVert b \rVert^2 - 2\, a^\top b$$
#
# It is fast, and wrong where it matters. Say $a$ and $b$ differ by $10^{-3}$ and both have length 12, as images here have. In float32 the terms are 144, with neighbours $1.5 \cdot 10^{-5}$ apart, and the result should be $10^{-6}$. What is left is rounding, perhaps even negative. Near-duplicates are just what one looks for with distances.
#
# So subtract first, and keep the cube small: a block of `rows` rows of $A$ at a time. Shapes: (rows, 1, D) − (M, D) → (rows, M, D), then the root of the sum of squares over the last axis → (rows, M).


# %%
def pairwise_distances(A, B, rows=8):
    """Euclidean distances between all rows of A and all rows of B.

    A: (N, D), B: (M, D), floating tensors of one dtype, which the result has too. Returns (N, M).
    Right for rows that are almost equal. Nothing on the way is larger than rows · M · D entries,
    or than A, B and the result.
    """
    # TODO: blocks of so many rows of A (the last one may be smaller), and their distances to B.
    ### BEGIN SOLUTION
    blocks = [((block[:, None] - B) ** 2).sum(-1).sqrt() for block in A.split(rows)]
    return torch.cat(blocks)
    ### END SOLUTION


lab.check(pairwise_distances)


# %%
def by_products(A, B):
    """The short way, clamped so that the root is no NaN."""
    squares = (A**2).sum(1)[:, None] + (B**2).sum(1) - 2 * A @ B.T
    return squares.clamp(min=0).sqrt()


ways = {
    "subtract first": pairwise_distances,
    "by products": by_products,
    "torch.cdist": torch.cdist,
}
truth, found = np.geomspace(1e-5, 1, 26), {name: [] for name in ways}
A = x["val"][:30]
noise = torch.randn(A.shape, generator=torch.Generator().manual_seed(0)).to(device)
for distance in truth:
    B = A + distance * noise / noise.norm(dim=1, keepdim=True)
    for name, way in ways.items():
        found[name].append(way(A, B).diagonal().mean().item())
error = {name: np.array(values) / truth for name, values in found.items()}
ax = plot.curves(
    {name: (truth, ratio) for name, ratio in error.items()},
    xlabel="true distance of two almost equal images",
    ylabel="computed / true",
    xscale="log",
    yscale="log",
    title="By products, distances below 0.002 are noise",
)

# %% [markdown]
# **Question.** `torch.cdist` is PyTorch's own function, and here it is as wrong as the formula. What is going on?
#
# <details><summary>Answer</summary>
#
# Its default, `compute_mode="use_mm_for_euclid_dist_if_necessary"`, multiplies matrices as soon as there are more than 25 rows. With `compute_mode="donot_use_mm_for_euclid_dist"` it is right at any size, and makes no cube. Your function is what that mode computes.
#
# </details>

# %% tags=["instructor"]
exact = torch.cdist(A, B, compute_mode="donot_use_mm_for_euclid_dist")
assert torch.allclose(pairwise_distances(A, B), exact, rtol=1e-4)
assert abs(error["subtract first"][truth > 1e-4] - 1).max() < 0.02
assert abs(error["by products"][truth < 1e-3] - 1).min() > 0.2
assert abs(error["torch.cdist"][truth < 1e-3] - 1).min() > 0.2
assert abs(error["by products"][truth > 0.3] - 1).max() < 0.02

# %% [markdown]
# ## 4 · A module from nothing (11 min)
#
# An `nn.Module` is an object with three tables. When you write `self.name = value`, it looks at what the value is:
#
# | value | goes into | learned | in `state_dict()` | moved by `.to()` |
# |---|---|---|---|---|
# | `nn.Parameter(t)` | `_parameters` | yes | yes | yes |
# | `nn.Buffer(t)` | `_buffers` | no | yes | yes |
# | another module | `_modules` | its own | its own | its own |
# | anything else: a tensor, a list | nowhere | no | no | no |
#
# `parameters()`, `state_dict()`, `.to()`, `.train()` and `.eval()` walk these tables, module by module. What is in no table does not exist for them. A *buffer* is what a layer has to remember without learning it: batch norm's running statistics, or the mean and spread of the training pixels.


# %%
class Standardise(nn.Module):
    """Subtract the mean of the training pixels, divide by their spread. It belongs to the model."""

    def __init__(self, x):
        super().__init__()  # makes the tables; without it the next line fails
        self.mean, self.spread = nn.Buffer(x.mean()), nn.Buffer(x.std())
        self.note = torch.ones(3)  # a plain tensor: in no table

    def forward(self, x):
        return (x - self.mean) / self.spread


standardise = Standardise(x["train"])
print("parameters:", [name for name, _ in standardise.named_parameters()])
print("state_dict:", list(standardise.state_dict()))
moved = Standardise(x["train"]).to("meta")
print("after .to('meta'):", {name: str(getattr(moved, name).device) for name in ("mean", "note")})

# %% [markdown]
# Now the layer that you have used since the first workshop: $z = xW^\top + b$, with $W$ of shape (K, D) and $b$ of shape (K,). PyTorch draws both uniformly between $-1/\sqrt D$ and $1/\sqrt D$.


# %%
class Linear(nn.Module):
    """z = x Wᵀ + b: what nn.Linear(inputs, outputs, bias) is.

    inputs: D, outputs: K. Parameters: weight (K, D) and bias (K,), drawn in this order from torch's
    global generator, uniform in ±1/√D. bias=False: self.bias is None, and state_dict() holds only
    the weight.
    """

    def __init__(self, inputs, outputs, bias=True):
        # TODO: the tables, then both parameters. torch.empty(K, D).uniform_(low, high) draws.
        ### BEGIN SOLUTION
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound)) if bias else None
        ### END SOLUTION

    def forward(self, x):
        """x: (..., D), any axes before the last. Returns (..., K)."""
        # TODO: one line or two. x may be one example (D,), or (B, T, D).
        ### BEGIN SOLUTION
        z = x @ self.weight.T
        return z if self.bias is None else z + self.bias
        ### END SOLUTION


lab.check(Linear)

# %%
torch.manual_seed(0)
mine = nn.Sequential(Linear(784, 32), nn.ReLU(), Linear(32, 10)).to(device)
theirs = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)).to(device)
theirs.load_state_dict(mine.state_dict())  # same names, same shapes: it fits
difference = (mine(x["val"]) - theirs(x["val"])).abs().max().item()
print("state_dict:", {name: tuple(value.shape) for name, value in mine.state_dict().items()})
print(f"largest difference from nn.Linear: {difference:.1e}")

# %% [markdown]
# **Question.** Somebody writes `self.weight = nn.Parameter(w).to(device)`. On the CPU all is well. On a GPU the layer does not learn. Why?
#
# <details><summary>Answer</summary>
#
# `.to` returns a new tensor, computed from the parameter: no longer an `nn.Parameter`, so it goes into no table, and the optimiser never sees it. (On the CPU `.to` returns the parameter itself.) Make the module first, then move it as a whole.
#
# </details>

# %% tags=["instructor"]
assert difference < 1e-4
assert list(standardise.state_dict()) == ["mean", "spread"] and moved.note.device.type == "cpu"

# %% [markdown]
# ## 5 · Containers (9 min)
#
# Depth is an argument, so the layers go into a list. In *perceptron-and-mlp* you put them into an `nn.ModuleList`; now you know what for. A Python list is "anything else" in the table above: its layers are in no table, no optimiser sees them, and *nothing complains*.
#
# As an example, a *residual* network: where a layer does not change the width, its input is added to its output, $a \leftarrow a + \mathrm{ReLU}(z)$. The gradient then has a way around every layer.


# %%
class ResidualMLP(nn.Module):
    """Layers of these widths, with a way around those that keep the width.

    widths: [D, D₁, ..., K], two or more. self.layers: an nn.ModuleList of nn.Linear, one from each
    width to the next. All but the last: a ← a + relu(z) where both widths are equal, else
    a ← relu(z). The last gives z itself, with neither relu nor sum, whatever its widths.
    """

    def __init__(self, widths):
        # TODO: the ModuleList, over pairs of widths: zip(widths, widths[1:]).
        ### BEGIN SOLUTION
        super().__init__()
        pairs = zip(widths, widths[1:], strict=False)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        ### END SOLUTION

    def forward(self, x):
        """x: (B, D), which stays as it is. Returns (B, K)."""
        # TODO: all layers but the last, each with or without the sum; then the last.
        ### BEGIN SOLUTION
        *hidden, last = self.layers
        for layer in hidden:
            a = functional.relu(layer(x))
            x = x + a if layer.in_features == layer.out_features else a
        return last(x)
        ### END SOLUTION


lab.check(ResidualMLP)

# %%
DEPTH = 12
networks = {
    "with ways around": ResidualMLP([784] + [64] * DEPTH + [10]),
    "without": ResidualMLP([784] + [64, 65] * (DEPTH // 2) + [10]),  # no two widths are equal
}
norms = {}
for name, network in networks.items():
    network = nn.Sequential(Standardise(x["train"]), network).to(device)
    functional.cross_entropy(network(x["val"][:256]), y["val"][:256]).backward()
    norms[name] = [layer.weight.grad.norm().item() for layer in network[1].layers]
ratio = norms["with ways around"][0] / norms["without"][0]
_ = plot.curves(
    norms,
    xlabel="layer",
    ylabel="norm of its gradient",
    yscale="log",
    title="The first layers of 13 hardly get a gradient without a way around",
)

# %% [markdown]
# **Question.** You replace `nn.ModuleList` by a plain list. `network(x)` works, the loss even falls. Name two more things that go wrong besides the training of these layers.
#
# <details><summary>Answer</summary>
#
# `network.to(device)` leaves them behind, `state_dict()` does not save them (so a loaded model has fresh ones), and `network.eval()` does not reach dropout in there. The loss may fall because the layers that *are* registered learn on top of random ones.
#
# </details>
#
# **Break.** Five minutes. Next: the step that trains them.

# %% tags=["instructor"]
assert ratio > 1e3

# %% [markdown]
# ## 6 · Five lines (11 min)
#
# You have written this step often. As a function, for a module and an optimiser of torch:
#
#     model.train()                               # layers with two modes: the training one
#     optimizer.zero_grad()                       # .grad would add up otherwise
#     loss = cross_entropy(model(x), y)           # forward: the graph is made
#     loss.backward()                             # backward: .grad is filled, the graph is freed
#     optimizer.step()                            # weights move, by .grad alone
#
# The optimiser knows parameters, not the model; the loss knows the graph, not the optimiser. `.grad` is the only thing they share. And what leaves the function must be a plain number: a tensor would keep its whole graph alive.


# %%
def train_step(model, batch, optimizer):
    """One step on one batch, in training mode.

    batch: (x, y) with x (B, D) and y (B,), int64. The loss is the mean cross-entropy of the logits
    model(x). Returns it, as it was before the step, as a float of Python.
    """
    # TODO: the five lines, and the number.
    ### BEGIN SOLUTION
    x, y = batch
    model.train()
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


lab.check(train_step)


# %% [markdown]
# What if a line is missing? Four of the five do their harm in silence. About 8 s.


# %%
@torch.no_grad()
def evaluate(model, x, y):
    """Loss and accuracy in evaluation mode."""
    model.eval()
    logits = model(x)  # (N, K)
    loss = functional.cross_entropy(logits, y).item()
    return loss, (logits.argmax(1) == y).float().mean().item()


def step_without(line, model, batch, optimizer, kept):
    """train_step, but for one of its lines; `kept` holds the loss of the step before."""
    if line != "train()":
        model.train()
    if line != "zero_grad()":
        optimizer.zero_grad()
    if line != "loss = ...":
        kept["loss"] = functional.cross_entropy(model(batch[0]), batch[1])
    if line != "backward()":
        kept["loss"].backward()
    if line != "step()":
        optimizer.step()


def make_model(widths=(784, 64, 64, 10), p=0.0, seed=0):
    """Images (B, 784) to logits (B, 10), standardised inside."""
    torch.manual_seed(seed)
    layers = [Standardise(x["train"]), nn.Dropout(p), ResidualMLP(list(widths))]
    return nn.Sequential(*layers).to(device)


def batches(B, seed):
    """One epoch of the training images in batches of B, shuffled."""
    order = torch.randperm(len(x["train"]), generator=torch.Generator().manual_seed(seed))
    for rows in order.to(device).split(B):
        yield x["train"][rows], y["train"][rows]


curves = {}
print("without        train loss   validation loss   dropout on at the end")
for line in ("nothing", "train()", "zero_grad()", "loss = ...", "backward()", "step()"):
    model, kept, curve = make_model(p=0.2), {}, []
    kept["loss"] = functional.cross_entropy(model(x["val"][:64]), y["val"][:64])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    try:
        for epoch in range(4):
            for batch in batches(128, epoch):
                step_without(line, model, batch, optimizer, kept)
            on = model.training
            few = x["train"][:5000], y["train"][:5000]
            curve.append((evaluate(model, *few)[0], evaluate(model, x["val"], y["val"])[0]))
        curves[line] = np.array(curve), on
        print(f"{line:12} {curve[-1][0]:12.2f} {curve[-1][1]:17.2f}   {on}")
    except RuntimeError as error:
        print(f"{line:12} {str(error).partition(' (')[0]}")

shown = {
    f"{'all five lines' if line == 'nothing' else f'without {line}'}_{split}": curve[:, k]
    for line, (curve, _) in curves.items()
    for k, split in enumerate(("train", "val"))
    if line != "backward()"  # the same curve as without step()
}
_ = plot.curves(shown, title="Two missing lines show in the curves, one does not")

# %% [markdown]
# **Question.** Which line's absence is told by an error, and why that one? What does `zero_grad()` missing amount to? And how would you ever notice that `train()` is missing?
#
# <details><summary>Answer</summary>
#
# Without a new loss, `backward()` meets a graph that is freed already. Without `backward()` or `step()` nothing moves. Without `zero_grad()` each step uses the sum of all gradients so far: momentum with $\mu = 1$, a ball that no friction stops. Without `train()` the first evaluation switches dropout off for good, and the curves say nothing: the last column does. Print
# `model.training`, or call `train()` where the step is taken, so that nobody has to remember it.
#
# </details>

# %% tags=["instructor"]
assert set(curves) == {"nothing", "train()", "zero_grad()", "backward()", "step()"}
final = {line: curve[-1] for line, (curve, _) in curves.items()}
assert final["nothing"][1] < 0.85 and abs(final["train()"][1] - final["nothing"][1]) < 0.1
assert not final["zero_grad()"][1] < 2 * final["nothing"][1]
assert not curves["train()"][1] and curves["nothing"][1]
for line in ("backward()", "step()"):
    assert np.ptp(curves[line][0][:, 0]) < 1e-3

# %% [markdown]
# ## 7 · How large a batch? (8 min)
#
# A step costs a fixed overhead $a$ and $b$ for each image: $B$ images take $a + bB$, so the throughput is $B/(a + bB)$. It rises with $B$ and levels off at $1/b$. Large batches are fast. But for a fixed number of images they take fewer steps. The usual remedy is to *scale the rate* with the batch, $\eta = \eta_0 B/64$: one step of twice the size for two.
#
# The experiment: 30,000 images in all (3 epochs of 10,000), SGD with momentum 0.9, a rate that falls to 0 in a straight line from $\eta_0 = 0.01$ for B = 64, two seeds. About 12 s.

# %%
EPOCHS, BASE, RATE = 3, 64, 0.01
SIZES = (64, 256, 1024, 4096)


def train(B, rate, seed, epochs=EPOCHS, widths=(784, 64, 64, 10)):
    """Train a new model. Returns it, and images per second (steps only)."""
    model = make_model(widths, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    steps, t, seconds = epochs * -(-len(x["train"]) // B), 0, 0.0
    for epoch in range(epochs):
        for batch in batches(B, 100 * seed + epoch):
            optimizer.param_groups[0]["lr"] = rate * (1 - t / steps)
            begin = time.perf_counter()
            train_step(model, batch, optimizer)
            seconds, t = seconds + time.perf_counter() - begin, t + 1
    return model, epochs * len(x["train"]) / seconds


accuracy, speed = {}, {}  # (B, scaled or not): mean of two seeds
print("    B   steps   images/s   validation accuracy: η₀   η₀ B/64")
for B in SIZES:
    for scaled in (False, True):
        runs = [train(B, RATE * B / BASE if scaled else RATE, seed) for seed in (0, 1)]
        scores = [evaluate(model, x["val"], y["val"])[1] for model, _ in runs]
        accuracy[B, scaled] = np.mean(scores)
        speed[B] = max(speed.get(B, 0), *(images for _, images in runs))
    steps = EPOCHS * -(-len(x["train"]) // B)
    both = accuracy[B, False], accuracy[B, True]
    print(f"{B:5} {steps:7} {speed[B]:10,.0f} {both[0]:26.1%} {both[1]:9.1%}")

fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
axes[0].loglog(SIZES, [speed[B] for B in SIZES], "o-", color=plot.COLOURS[0])
axes[0].set(xlabel="batch size B", ylabel="images per second", ylim=(1e3, 1e6))
axes[0].set_title("Larger batches are faster, up to a point", loc="left", size=10, weight="bold")
for scaled, label, k in ((False, "η₀", 1), (True, "η₀ B/64", 0)):
    style = {"color": plot.COLOURS[k], "marker": plot.MARKERS[k], "label": label}
    axes[1].semilogx(SIZES, [100 * accuracy[B, scaled] for B in SIZES], **style)
axes[1].set(xlabel="batch size B", ylabel="validation accuracy (%)")
axes[1].legend(frameon=False, loc="lower left")
title = "Scaling the rate helps, until it does not"
axes[1].set_title(title, loc="left", size=10, weight="bold")
for ax in axes:
    ax.set_xticks(SIZES, [str(B) for B in SIZES])
    ax.minorticks_off()

# %% [markdown]
# The baseline: multinomial logistic regression of scikit-learn on the same 10,000 images, its strength of regularisation chosen on the validation images. Then both meet the test images, once; the network with the batch and rate that were best above, and twice as many epochs. About 14 s.

# %%
arrays = {name: (standardise(x[name]).cpu().numpy(), y[name].cpu().numpy()) for name in x}
baseline = {}
for C in (1e-3, 1e-2, 1e-1):
    fitted = LogisticRegression(C=C, max_iter=300, tol=1e-3).fit(*arrays["train"])
    baseline[C] = fitted.score(*arrays["val"]), fitted.score(*arrays["test"])
    print(f"logistic regression, C = {C:<6} validation {baseline[C][0]:.1%}")
best_C = max(baseline, key=baseline.get)
best_B, best_scaled = max(accuracy, key=accuracy.get)
rate = RATE * best_B / BASE if best_scaled else RATE
finals = []
for seed in (2, 3, 4):
    network, _ = train(best_B, rate, seed, epochs=2 * EPOCHS)
    finals.append(evaluate(network, x["test"], y["test"])[1])
print(f"test, logistic regression with C = {best_C}: {baseline[best_C][1]:.1%}")
spread = np.std(finals, ddof=1)
print(f"test, network with B = {best_B}: {np.mean(finals):.1%} ± {spread:.1%} (three seeds)")

# %% tags=["instructor"]
assert speed[1024] > 1.3 * speed[64]
assert accuracy[64, False] > accuracy[4096, False] + 0.12
assert accuracy[256, True] > accuracy[256, False] + 0.02
assert accuracy[1024, True] > accuracy[1024, False] + 0.03, "the scaled rate helps"
assert accuracy[4096, True] < accuracy[1024, True] - 0.1, "the remedy has an end"
assert best_C == 1e-2, "the best C lies inside its list"
assert np.mean(finals) > baseline[best_C][1] + 0.005

# %% [markdown]
# **Question.** Up to which batch does the scaled rate keep the accuracy, and why does it fail beyond?
#
# <details><summary>Answer</summary>
#
# To 256 almost all of it, to 1,024 a part. The remedy assumes that the gradient hardly changes over the steps that one large step replaces. At 4,096 there are 9 steps in all, the first with η = 0.64: too long for the curvature, and too few to correct it. Each of these batches might do better with a rate of its own; that search is the fair race of *optimization-sgd-adam*.
# With more epochs the network beats the tuned linear model by a point or two, not by more: to it too an image is a flat list of 784 numbers.
#
# </details>
#
# ## 8 · Look inside (14 min)
#
# A *forward hook* is a function that a module calls after each forward pass, with itself, its inputs and its output: `handle = module.register_forward_hook(hook)`, and `handle.remove()` takes it away. So one can record what any layer gives, without touching the model's code.
#
# Two rules. A hook must go when its work is done, *also if forward raises*: one that stays slows the model down, holds tensors, and records twice next time. That is what `try: ... finally:` is for. And it has to copy what it records: a later layer may work in place, as `nn.ReLU(inplace=True)` does.


# %%
def record_activations(model, x):
    """Run model(x) and record what each leaf gives. A leaf is a module without children.

    Returns a dict from the leaf's name in named_modules() to its output, in the order in which
    the leaves were called; of a leaf that is called several times, the last output that is a
    tensor, at its first place. Outputs are copies, without gradients, as they were when the leaf
    returned them; what is no tensor is left out. The model runs as it is, in the mode that it is
    in. Its own hooks stay, those made here are removed, also where model(x) raises; that error
    reaches the caller.
    """
    # TODO: a hook for each leaf, the forward pass without gradients, and the removal of all hooks.
    ### BEGIN SOLUTION
    found, handles = {}, []

    def hook_for(name):
        def hook(module, inputs, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.detach().clone()

        return hook

    try:
        for name, module in model.named_modules():
            if not list(module.children()):
                handles.append(module.register_forward_hook(hook_for(name)))
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found
    ### END SOLUTION


lab.check(record_activations)

# %%
WIDTHS = (784, 64, 64, 64, 10)
network, _ = train(64, RATE, 0, epochs=6, widths=WIDTHS)
networks = {"untrained": make_model(WIDTHS), "trained": network}
inside = {}  # (leaf, name): what it gives
for name, each in networks.items():
    for leaf, a in record_activations(each.eval(), x["val"][:1000]).items():
        inside[leaf, name] = a
print("leaves:", list(dict.fromkeys(leaf for leaf, _ in inside)))
shown = {", ".join(key): inside[key] for key in sorted(inside) if "layers" in key[0]}
_ = plot.histograms(shown, xlabel="output z", title="Training spreads the outputs of all layers")

# %% [markdown]
# What is near to what? Your distances, from 300 validation images to 2,000 training images: by pixels, and by $\mathrm{ReLU}(z)$ of the third layer (without the way around).

# %%
LEAF = "2.layers.2"
reference, queries = {"pixels": x["train"][:2000]}, {"pixels": x["val"][:300]}
for part in (reference, queries):
    part["features"] = record_activations(network, part["pixels"])[LEAF].relu()
nearest, hit = {}, {}
for space in reference:
    D = pairwise_distances(queries[space], reference[space], rows=2)  # (300, 2000)
    nearest[space] = D.topk(3, largest=False).indices  # (300, 3)
    hit[space] = (y["train"][nearest[space][:, 0]] == y["val"][:300]).float().mean().item()
    print(f"the nearest by {space:8} is of the same class in {hit[space]:.0%} of the cases")

apart = y["train"][nearest["pixels"][:, 0]] != y["train"][nearest["features"][:, 0]]
tiles, titles = [], []
for n in apart.nonzero()[:5, 0]:
    for space in reference:
        tiles += [x["val"][n], *x["train"][nearest[space][n]]]
        found = [fashion.classes[y["train"][m]] for m in nearest[space][n]]
        titles += [f"{fashion.classes[y['val'][n]]} by {space}", *found]
title = "Five images and what is nearest: by pixels (left) and by features (right)"
_ = plot.images(torch.stack(tiles).reshape(-1, 28, 28).cpu(), titles, columns=8, title=title)

# %% tags=["instructor"]
assert hit["pixels"] > 0.7 and hit["features"] > hit["pixels"]
assert not any(module._forward_hooks for module in network.modules())
for k in range(4):
    assert inside[f"2.layers.{k}", "trained"].std() > 1.5 * inside[f"2.layers.{k}", "untrained"].std()

# %% [markdown]
# **Question.** The ReLU of `ResidualMLP` is in no entry of the record, and neither is the sum $a + \mathrm{ReLU}(z)$. Why? How would you make them visible?
#
# <details><summary>Answer</summary>
#
# Hooks belong to modules. `functional.relu` and `+` are function calls in someone's `forward`, and no module knows of them. Use `nn.ReLU()` as a module, or a small `Add` module, or a hook that looks at the *inputs* of the next layer (`register_forward_pre_hook`).
#
# </details>
#
# ## 9 · From notebook to program (16 min)
#
# [classify.py](classify.py) trains, evaluates and predicts, with one file for all three. Two functions in it are yours. What should be in such a file? The model's `state_dict()` (here the standardisation is in it, as buffers), the optimiser's, which holds momentum, and the configuration that it takes to build the model again. Not the model object itself: that would be a *pickle*, which names your classes by their path
# and can run any code when it is read. `torch.load(path, weights_only=True)` reads plain data only.
#
# - `save_checkpoint` writes *all or nothing*. A full disk or a Ctrl-C in the middle must not cost the old file. So: write to another name in the same folder, then `os.replace(part, path)`, which the system does in one piece.
# - `load_checkpoint` restores *all or nothing*. `load_state_dict` with a wrong shape raises, but has by then copied what did fit. So compare first.
#
# Open the script, fill in both TODOs, and in a terminal beside the notebook, in its folder (from the course's: `cd workshops/frameworks/pytorch/pytorch-basics`):
#
#     atlas check save_checkpoint
#     atlas check load_checkpoint
#     python classify.py train
#     python classify.py evaluate
#     python classify.py predict
#
# **What you built, and what it leaves open.** Tensors with their types, distances that hold for duplicates, a layer, a network of any depth, the step, hooks, and a file that is whole. Two things you have used on trust. `A.split`, `gather`, `.T` and `flatten` moved no numbers at all, or did they? And `loss.backward()` did much more than your own engine could. Next workshop:
# **tensors-and-autograd**.
