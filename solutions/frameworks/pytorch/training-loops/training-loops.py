# %% [markdown]
# # Training Loops
#
# A step of training is five lines, and you know them. What stands around them decides whether you can trust what comes out: is the mean a mean, is the large batch really the large batch, is a run that was
# killed and resumed still the same run? Here you write what surrounds the step, each piece held to a simpler run that must give the same. All derivations are in the [README](README.md).

# %%
import copy
import inspect
import os
import random
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

import atlas
from atlas import plot

lab = atlas.open("training-loops")
fashion = atlas.data.load("fashion-mnist")
fashion

# %% [markdown]
# ## 1 · A loop with its parts named (8 min)
#
# Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017; licence MIT): 4,000 images to train on, 3,000 to validate, 10,000 to test. Small, so that a whole training takes a second. Read the loop below by its parts; every one of them will be replaced by something better.

# %%
TRAIN = 4000
device = atlas.device()
x_all = torch.tensor(fashion.x_train, dtype=torch.float32).flatten(1)  # (60000, 784)
y_all = torch.tensor(fashion.y_train)
MEAN, SPREAD = x_all[:TRAIN].mean(), x_all[:TRAIN].std()  # of the training images only
x_all = (x_all - MEAN) / SPREAD
x_train, y_train = x_all[:TRAIN].to(device), y_all[:TRAIN].to(device)
x_val, y_val = x_all[50_000:53_000].to(device), y_all[50_000:53_000].to(device)
x_test = ((torch.tensor(fashion.x_test, dtype=torch.float32) - MEAN) / SPREAD).flatten(1).to(device)
y_test = torch.tensor(fashion.y_test).to(device)


def make_model(seed=0, norm=False, drop=0.0):
    """Images (B, 784) to logits (B, 10), by two hidden layers of 128."""
    torch.manual_seed(seed)
    layers, inputs = [], 784
    for _ in range(2):
        layers += [nn.Linear(inputs, 128)] + [nn.BatchNorm1d(128)] * norm + [nn.ReLU()]
        layers += [nn.Dropout(drop)] if drop else []
        inputs = 128
    return nn.Sequential(*copy.deepcopy(layers), nn.Linear(128, 10)).to(device)


def plain_step(model, optimizer, x, y):
    """Forward, loss, zero, backward, step. Returns the loss, a number."""
    loss = functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def evaluate(model, x, y):
    """Mean loss and accuracy, in evaluation mode."""
    model.eval()
    logits = model(x)
    accuracy = (logits.argmax(1) == y).float().mean().item()
    return functional.cross_entropy(logits, y).item(), accuracy


def train(model, epochs=2, size=64, rate=0.02, step=plain_step, factor=None, after=None):
    """SGD with momentum 0.9 in batches of `size`. Returns the losses of all batches.

    factor(t): what the rate is multiplied by in step t. after(model): called after each step.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor or (lambda t: 1.0))
    losses = []
    for _ in range(epochs):
        for batch in torch.randperm(TRAIN).to(device).split(size):  # the order: new in each epoch
            model.train()
            losses.append(step(model, optimizer, x_train[batch], y_train[batch]))
            schedule.step()
            if after:
                after(model)
    return losses


model, curve = make_model(), {"train": [], "val": []}
for _ in range(8):
    train(model, epochs=1)
    for split, pair in (("train", (x_train, y_train)), ("val", (x_val, y_val))):
        curve[split].append(evaluate(model, *pair)[0])
first_accuracy = evaluate(model, x_val, y_val)[1]
title = "The plain loop works; the two losses soon part"
_ = plot.curves(curve, ylabel="cross-entropy", title=title, best="min")
print(f"validation accuracy after 8 epochs {first_accuracy:.1%}")

# %% tags=["instructor"]
assert 0.79 < first_accuracy < 0.88
assert curve["val"][-1] > curve["train"][-1] + 0.1 and curve["train"][-1] < curve["train"][0] / 1.5

# %% [markdown]
# **Question.** The cell above calls `train` eight times for one epoch each. Is that the same as `train(model, epochs=8)`? What is lost eight times?
#
# <details><summary>Answer</summary>
#
# It is not the same. Each call makes a new optimizer, so the momentum begins at zero again, and a new schedule. The weights go on, the *run* does not. Section 6 makes a list of all that a run consists of.
#
# </details>
#
# ## 2 · Metrics that add up (9 min)
#
# The loss of a data set is a mean over its examples. Computed in batches, one often sees the mean of the batches' means. With 1,025 images in batches of 512, the last batch has one image, and that image gets a third of the weight. Below, the same network and the same images, only in 500 different orders.

# %%
with torch.no_grad():
    each = functional.cross_entropy(model(x_val[:1025]), y_val[:1025], reduction="none")  # (1025,)
means = []
for _ in range(500):
    shuffled = each[torch.randperm(1025).to(device)]
    means.append(np.mean([part.mean().item() for part in shuffled.split(512)]))
exact = each.mean().item()
fig, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.hist(means, bins=40, color=plot.COLOURS[0])
ax.axvline(exact, color=plot.COLOURS[1], linewidth=2)
ax.annotate("the mean over images", (exact, 0), (8, 100), textcoords="offset points")
ax.set(xlabel="mean of the three batches' means", ylabel="orders out of 500")
title = "One loss, 500 answers: a mean of means hangs on the order"
_ = ax.set_title(title, loc="left", size=11, weight="bold")
print(f"exact {exact:.3f}; mean of means from {min(means):.3f} to {max(means):.3f}")

# %% tags=["instructor"]
assert max(means) - min(means) > 0.5 and min(means) < 0.75 * exact

# %% [markdown]
# So keep two numbers, a sum and a count: $\bar m = \sum_b n_b m_b / \sum_b n_b$. Two processes that saw different images merge by adding both. By hand: means 1, 2, 6 of batches of 4, 4 and 1. The mean of means is 3; right is $(4 + 8 + 6)/9 = 2$.


# %%
class Mean:
    """The mean over examples of what comes batch by batch."""

    def __init__(self):
        # TODO: what has to be remembered?
        ### BEGIN SOLUTION
        self.total, self.count = 0.0, 0
        ### END SOLUTION

    def update(self, value, n):
        """Take in a batch: value, the mean over its n examples; a number, or a tensor of shape ().

        Of a tensor only the number is kept: a loss would hold its whole graph alive.
        """
        # TODO: float(value) takes the number out
        ### BEGIN SOLUTION
        self.total += float(value) * n
        self.count += n
        ### END SOLUTION

    def merge(self, other):
        """Take in all that another Mean has seen. The other one stays as it is."""
        # TODO: not the mean of two means
        ### BEGIN SOLUTION
        self.total += other.total
        self.count += other.count
        ### END SOLUTION

    def compute(self):
        """The mean over all examples so far, a float; float("nan") where there were none."""
        # TODO
        ### BEGIN SOLUTION
        return self.total / self.count if self.count else float("nan")
        ### END SOLUTION


lab.check(Mean)

# %%
total = Mean()
for part in each.split(512):
    total.update(part.mean(), len(part))
print(f"yours {total.compute():.6f}, over all images at once {exact:.6f}")

# %% tags=["instructor"]
assert abs(total.compute() - exact) < 1e-5

# %% [markdown]
# **Question.** `Mean` is right for loss and accuracy. For which metrics is it wrong, however the batches are weighted?
#
# <details><summary>Answer</summary>
#
# For all that are no mean over examples: precision, F1, the area under a ROC curve, perplexity (the exponential of a mean). For those, keep what they are computed from (counts, scores, the sum of losses), merge that, and compute once at the end.
#
# </details>
#
# ## 3 · One step from several passes (12 min)
#
# A batch of $B$ images may not fit into memory. The gradient of its mean loss is a sum, so it can be collected in parts $S_k$ of $n_k$ images with mean losses $\ell_k$:
#
# $$\nabla\ \frac1B \sum_{i=1}^{B} L_i \;=\; \sum_k \frac{n_k}{B}\, \nabla \ell_k$$
#
# `backward()` adds to `.grad`, so a loop over the parts with the loss times $n_k/B$ does it: *gradient accumulation*. By hand: $B = 5$ in parts of 2, 2, 1 has the factors 0.4, 0.4, 0.2. Dividing by the number of parts, 1/3 each, gives the last image twice the weight of the others.
# Clipping (you wrote it in *optimization-sgd-adam*; `nn.utils.clip_grad_norm_` is torch's) needs the whole gradient: after the last part, before the step.


# %%
def accumulated_step(model, optimizer, x, y, size, max_norm=None):
    """One step on a batch, passed through the model in parts of `size` images.

    x: (B, D), y: (B,). The last part may be smaller. The loss is functional.cross_entropy. Each
    part's backward() comes before the next part's forward pass, so that its graph is freed; each
    image passes once. Old gradients do not count. max_norm: the norm to which the gradient of the
    whole batch is clipped; None: not at all. Returns the mean loss over the batch before the step,
    a float.
    """
    # TODO: 1. zero. 2. for each part: loss times its share of the batch, backward. 3. clip, step.
    ### BEGIN SOLUTION
    optimizer.zero_grad()
    total = 0.0
    for part, labels in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(part), labels) * (len(part) / len(x))
        loss.backward()
        total += loss.item()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return total
    ### END SOLUTION


lab.check(accumulated_step)


# %%
def in_parts(model, optimizer, x, y):
    return accumulated_step(model, optimizer, x, y, 48)


def by_number_of_parts(model, optimizer, x, y):
    """The slip: each part counts the same."""
    optimizer.zero_grad()
    parts = list(zip(x.split(48), y.split(48), strict=True))
    for part, labels in parts:
        (functional.cross_entropy(model(part), labels) / len(parts)).backward()
    optimizer.step()


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


ends = {}
steps = {"at once": plain_step, "in parts of 48": in_parts, "1/parts": by_number_of_parts}
for name, step in steps.items():
    model = make_model()
    train(model, epochs=1, size=200, step=step)  # 200 = 4 · 48 + 8
    ends[name] = weights_of(model)
apart = {name: (end - ends["at once"]).abs().max().item() for name, end in ends.items()}
for name in ("in parts of 48", "1/parts"):
    print(f"{name:15} largest difference from the batch at once, after 30 steps: {apart[name]:.1e}")

# %% tags=["instructor"]
assert apart["in parts of 48"] < 1e-4 < 1e-3 < apart["1/parts"]

# %% [markdown]
# **Question.** Put batch norm into the model. Is the accumulated step still equal to the large batch?
#
# <details><summary>Answer</summary>
#
# No. Batch norm takes mean and variance from what passes at once: 48 images and not 200. Accumulation makes the *gradient's* batch larger, not batch norm's. Layer norm has no such trouble.
#
# </details>
#
# ## 4 · A run that would diverge (7 min)
#
# A rate that is too high: 0.3 with momentum 0.9. Four runs from the same weights and in the same order: without help, with clipping at 1, with a warm-up over 100 steps, with both. Before you run it: what does each do?

# %%
norms = {}


def clipped(name, max_norm):
    """A step that clips, and keeps the norm before clipping in norms[name]."""

    def step(model, optimizer, x, y):
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        norms.setdefault(name, []).append(norm.item())
        optimizer.step()
        return loss.item()

    return step


def rises(t):
    return min(1.0, (t + 1) / 100)


safeties = {
    "none": (float("inf"), None),
    "warm-up": (float("inf"), rises),
    "clipping": (1.0, None),
    "both": (1.0, rises),
}
fig, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained")
reached = {}
for k, (name, (max_norm, factor)) in enumerate(safeties.items()):
    model = make_model()
    losses = train(model, epochs=3, rate=0.3, step=clipped(name, max_norm), factor=factor)
    reached[name] = evaluate(model, x_val, y_val)[1]
    smooth = np.convolve(np.minimum(losses, 1e3), np.ones(10) / 10, "valid")
    axes[0].semilogy(smooth, color=plot.COLOURS[k], label=name)
    axes[1].semilogy(np.clip(norms[name], 1e-2, 1e4), color=plot.COLOURS[k], label=name)
    print(f"{name:9} validation accuracy {reached[name]:.1%}")
axes[0].set(xlabel="step", ylabel="loss, mean of 10 batches", ylim=(0.3, 30))
axes[1].set(xlabel="step", ylabel="gradient norm before clipping")
axes[0].legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
axes[0].set_title("Clipping holds; warm-up only postpones", loc="left", size=11, weight="bold")
_ = axes[1].set_title("Unclipped, the gradient norm leaps", loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert max(reached["none"], reached["warm-up"]) < 0.4 < 0.5 < min(reached["clipping"], reached["both"])

# %% [markdown]
# The textbook's warm-up gets a run through its first, steep steps. Here 0.3 is too high for the *whole* run, so it diverges as soon as the rate is there. Clipping bounds every step, $\lVert \Delta w \rVert \le \eta c/(1 - \mu)$, and the run limps on. Neither makes 0.3 a good rate.
#
# **Mixed precision** is the other switch in a step. bfloat16 has float32's range and 8 bits of precision: between 1 and 2 its numbers are 1/128 apart. `torch.autocast` runs matrix products in it and losses in float32; an operation on neither list, such as ReLU, takes the kind of its input. Watch what may not be bfloat16.

# %%
one = torch.ones(1, dtype=torch.bfloat16)
summed = torch.zeros(1, dtype=torch.bfloat16)
for _ in range(1000):
    summed += one
lost = (one + 0.001).item()
model = make_model()
with torch.autocast(device.type, dtype=torch.bfloat16):
    logits = model(x_val[:64])
    loss = functional.cross_entropy(logits, y_val[:64])
loss.backward()
full = functional.cross_entropy(model(x_val[:64]), y_val[:64]).item()
fast = device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
print(f"in bfloat16: 1 + 0.001 = {lost}, and 1 added up 1,000 times = {summed.item():.0f}")
print(f"autocast: logits {logits.dtype}, loss {loss.dtype}, gradient {model[0].weight.grad.dtype}")
print(f"loss {loss.item():.4f}, in float32 {full:.4f}")
gain = "this processor computes in it" if fast else "this processor does not: no gain here"
print(f"bfloat16: {gain}")

# %% tags=["instructor"]
assert lost == 1.0 and summed.item() == 256
assert logits.dtype == torch.bfloat16 and loss.dtype == model[0].weight.grad.dtype == torch.float32
assert abs(loss.item() - full) < 0.02 * full

# %% [markdown]
# **Question.** Which parts of a loop would `1 + 0.001 = 1` ruin, if they were kept in bfloat16?
#
# <details><summary>Answer</summary>
#
# All that adds small to large: the weights (a step below 1/512 of a weight is always lost, and near a power of two one up to 1/256), the optimizer's running means, an average of weights with decay 0.999, the sums of metrics, the batch norm statistics. So weights, gradients, states and losses stay in float32; only the large products inside a pass, and what follows them directly, are bfloat16. float16 would also need its loss scaled, for its range is small.
#
# </details>
#
# ## 5 · Averaged weights (11 min)
#
# At a constant rate the weights never come to rest; they wander around a good place. Their running mean lies nearer to it (Polyak and Juditsky, 1992), and costs one copy:
#
# $$\bar w_t = d_t\, \bar w_{t-1} + (1 - d_t)\, w_t, \qquad d_t = \min\!\left(d,\ \frac{t-1}{t}\right)$$
#
# With $d_1 = 0$ the first weights replace whatever was there. As long as $(t-1)/t < d$ it is the plain mean of all $t$ weights; afterwards old ones fade. That warm-up takes the place of Adam's bias correction. By hand, $d = 0.6$ and $w = 4, 8, 3$: 4, then $\frac12 4 + \frac12 8 = 6$, then $d_3 = \min(0.6, 0.667)$: $3.6 + 1.2 = 4.8$.
#
# *Buffers* are no weights: batch norm's running statistics are means already, its counter is a whole number. Copy them.


# %%
class EMA:
    """A running mean of a model's weights: `self.model`, which can be used like the model."""

    def __init__(self, model, decay):
        """self.model: a copy of its own, in evaluation mode, whose parameters require no gradient.

        decay: d, from 0 up to but not including 1. The model that is given stays as it is.
        """
        # TODO: copy.deepcopy; also remember d, and how many updates there were
        ### BEGIN SOLUTION
        self.model, self.decay, self.updates = copy.deepcopy(model), decay, 0
        self.model.eval().requires_grad_(False)
        ### END SOLUTION

    @torch.no_grad()
    def update(self, model):
        """Take in the model's weights after a step: parameters by the formula, buffers copied."""
        # TODO: d_t; then zip(self.model.parameters(), model.parameters()), and the same for buffers
        ### BEGIN SOLUTION
        self.updates += 1
        d = min(self.decay, (self.updates - 1) / self.updates)
        for mean, w in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.copy_(d * mean + (1 - d) * w)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
        ### END SOLUTION


lab.check(EMA)

# %%
model = make_model(norm=True)
ema, seen, at = EMA(model, 0.98), {"the weights": [], "their mean": []}, []
steps_done = 0


def watch(model):
    global steps_done
    steps_done += 1
    ema.update(model)
    if steps_done % 25 == 0:
        at.append(steps_done)
        seen["the weights"].append(100 * evaluate(model, x_val, y_val)[1])
        seen["their mean"].append(100 * evaluate(ema.model, x_val, y_val)[1])


train(model, epochs=5, rate=0.05, after=watch)
ax = plot.curves(
    {name: (at, values) for name, values in seen.items()},
    xlabel="step",
    ylabel="validation accuracy (%)",
    title="The mean of the weights is calmer, and better",
)
ax.set_ylim(70, 88)
without = copy.deepcopy(ema.model)  # the slip: statistics of batch norm as they were at first
for name, value in make_model(norm=True).named_buffers():
    without.get_buffer(name).copy_(value)
no_buffers = evaluate(without, x_val, y_val)[1]
late = {name: np.array(values[-8:]) for name, values in seen.items()}
for name, values in late.items():
    low, high = values.min(), values.max()
    print(f"{name:12} last {len(values)}: mean {values.mean():.1f} %, from {low:.1f} to {high:.1f}")
print(f"the mean with batch norm's first statistics: {no_buffers:.1%}")

# %% tags=["instructor"]
assert late["their mean"].mean() > late["the weights"].mean() + 0.5
assert np.ptp(late["their mean"]) < np.ptp(late["the weights"])
assert no_buffers < late["their mean"].mean() / 100 - 0.03

# %% [markdown]
# **Question.** The running statistics that you copy belong to the last weights, not to the mean of weights. Why does that do little harm here, and what is the clean way?
#
# <details><summary>Answer</summary>
#
# The statistics are running means over the last ten or so batches, and the weights of two neighbouring steps differ little. With a long average the two drift apart. The clean way is one more pass over training images with the averaged weights, only to measure statistics: `torch.optim.swa_utils.update_bn`.
#
# </details>
#
# **Break.**
#
# ## 6 · A run that can be killed (17 min)
#
# A machine is taken away, a job runs out of time, somebody types `kill -9`. A run is resumed *exactly* if nobody can tell from the weights that it was interrupted. What is a run, beside its weights? The loop below draws from three generators on purpose: dropout from torch's, the noise from NumPy's, the flips from Python's. It runs on the CPU, also where you have a GPU: there, dropout draws from the GPU's own generator, a fourth state to keep (`torch.cuda.get_rng_state`; *train.py* does it).

# %%
STEPS = 60


def new_run(seed):
    """The parts of a run, by name, and generators seeded."""
    model = make_model(seed, norm=True, drop=0.2).cpu()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    random.seed(seed)
    np.random.seed(seed)
    return {"model": model, "optimizer": optimizer, "schedule": schedule}


def batch_of(step, size=100, epoch_steps=30):  # an epoch here: the first 3,000 images only
    """The batch of a step, from its number alone: where the sampler stands needs no saving."""
    generator = torch.Generator().manual_seed(1000 + step // epoch_steps)
    order = torch.randperm(epoch_steps * size, generator=generator)
    return order.split(size)[step % epoch_steps]


def go_on(run, first, last):
    """Steps first to last - 1."""
    run["model"].train()
    for step in range(first, last):
        x = x_all[batch_of(step)]
        if random.random() < 0.5:
            x = x.view(-1, 28, 28).flip(2).flatten(1)
        x = x + torch.tensor(np.random.normal(0, 0.1, x.shape), dtype=torch.float32)
        plain_step(run["model"], run["optimizer"], x, y_all[batch_of(step)])
        run["schedule"].step()


def random_state():
    """The states of the three generators, of types that torch.load takes with weights_only=True."""
    name, key, *rest = np.random.get_state()
    states = {"python": random.getstate(), "numpy": (name, key.tolist(), *rest)}
    return states | {"torch": torch.get_rng_state()}


def set_random_state(state):
    """The generators go on where `random_state` found them."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])


# %% [markdown]
# The file must be whole at any moment, also while it is being written. You know the way from *pytorch-basics*: write beside it, then `os.replace`, which is one act.


# %%
def save_run(path, step, parts):
    """Keep a run in one file, which is whole at any moment: the old one or the new one.

    path: a Path; its folder is there. step: how many steps are done. parts: name → object with
    state_dict(). The file holds {"step": step, "parts": {name: state_dict}, "random": ...}, with
    what random_state() gives, and is read by torch.load(path, weights_only=True). Nothing else is
    left in the folder. Saving draws from no generator, so the run goes on as it would have.
    """
    # TODO: make the dict; torch.save it to another name in the same folder; os.replace
    ### BEGIN SOLUTION
    states = {name: part.state_dict() for name, part in parts.items()}
    unfinished = path.with_name(path.name + ".part")
    torch.save({"step": step, "parts": states, "random": random_state()}, unfinished)
    os.replace(unfinished, path)
    ### END SOLUTION


lab.check(save_run)


# %%
def resume_run(path, parts):
    """Put a run that save_run has kept into these parts, and the generators where they were.

    parts: name → object with load_state_dict(), changed in place. Where the file has other names
    than these, ValueError, and nothing is changed. Returns how many steps are done.
    """
    # TODO: torch.load(path, map_location="cpu", weights_only=True); compare names; load; generators
    ### BEGIN SOLUTION
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["parts"].keys() != parts.keys():
        raise ValueError(f"{path} holds {', '.join(saved['parts'])}, not {', '.join(parts)}")
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    set_random_state(saved["random"])
    return saved["step"]
    ### END SOLUTION


lab.check(resume_run)

# %% [markdown]
# Now the test that counts: 60 steps in one go, against 30 steps, a file, a new beginning with another seed, and 30 more. Then the same with one thing left out at a time, and how far the weights are off in the end.

# %%
scratch = tempfile.TemporaryDirectory(prefix="loops-")  # goes when the kernel ends
folder = Path(scratch.name)
straight = new_run(0)
go_on(straight, 0, STEPS)
half = new_run(0)
go_on(half, 0, STEPS // 2)
save_run(folder / "run.pt", STEPS // 2, half)


def resumed(without=""):
    """The end of a run that begins with another seed and resumes, but for one thing."""
    run = new_run(7)
    kept = torch.load(folder / "run.pt", weights_only=True)
    kept["parts"].pop(without, None)
    torch.save(kept, folder / "other.pt")
    step = resume_run(folder / "other.pt", {name: run[name] for name in kept["parts"]})
    if without in kept["random"]:
        set_random_state({**random_state(), without: new_states[without]})
    go_on(run, 0 if without == "position" else step, STEPS - (step if without == "position" else 0))
    return weights_of(run["model"])


new_run(7)
new_states = random_state()
off = {}
for without in ("", "optimizer", "schedule", "torch", "numpy", "python", "position"):
    difference = resumed(without) - weights_of(straight["model"])
    off[without or "nothing"] = difference.abs().max().item()
print("60 steps against 30 + 30, largest difference of a weight:", off["nothing"])
fig, ax = plt.subplots(figsize=(7.5, 3), layout="constrained")
left_out = [name for name in off if name != "nothing"]
ax.barh(left_out, [off[name] for name in left_out], color=plot.COLOURS[0])
ax.set(xlabel="largest difference of a weight at the end", ylabel="not restored")
_ = ax.set_title("Whatever is left out, it is another run", loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert off["nothing"] == 0.0
assert min(off[name] for name in left_out) > 1e-4

# %% [markdown]
# **Question.** Each of these runs reaches about the same accuracy. So why insist on the bit?
#
# <details><summary>Answer</summary>
#
# Because equality is the only test that one can automate. "About the same" passes with the momentum forgotten, with the same batch order in each epoch, with a schedule that begins anew: slips that cost a point here and a week elsewhere. And a run that can be repeated exactly can be debugged.
#
# </details>
#
# ## 7 · Validate, stop, restore (14 min)
#
# Now the loop around epochs. `EarlyStopping`, which you wrote in *regularization-dropout-batchnorm*, is below. What others want to do in a loop (log, save, draw) they hand in as *hooks*, functions called after each epoch, so that the loop needs no edit.


# %%
class EarlyStopping:
    def __init__(self, patience):
        self.patience, self.lowest, self.waited, self.state = patience, float("inf"), 0, None

    def update(self, loss, model):
        """Whether to stop: after `patience` updates in a row without a new lowest loss."""
        if loss < self.lowest:
            self.lowest, self.waited, self.state = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self, model):
        """The weights of the lowest loss; where there was none (all NaN), as they are."""
        if self.state is not None:
            model.load_state_dict(self.state)


# %%
def fit(model, train_epoch, validate, epochs, patience, hooks=()):
    """Train until `epochs` are done, `patience` epochs brought no lower loss, or a hook says so.

    train_epoch(model) trains for an epoch, in training mode; validate(model) is called in
    evaluation mode, without gradients. Both return a mean loss. Then each hook, in order, gets the
    epoch's record {"epoch": 1, "train": ..., "val": ...} and the model; if one returns True, this
    epoch is the last (the other hooks are still called). Epochs count from 1.

    In the end, however it came (an exception goes on to the caller), the model has the weights and
    buffers of the lowest validation loss and is in evaluation mode. Returns the list of records.
    """
    # TODO: an EarlyStopping; try: the loop; finally: restore, eval
    ### BEGIN SOLUTION
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with torch.no_grad():
                record["val"] = validate(model)
            records.append(record)
            over = stopping.update(record["val"], model)
            said = [hook(record, model) for hook in hooks]
            if over or True in said:
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records
    ### END SOLUTION


lab.check(fit)

# %% [markdown]
# One hook writes for **TensorBoard**, which shows runs in a browser while they last: `tensorboard --logdir FOLDER`, in a terminal. Its files can be read back, too; the plot below comes from them and not from the records.

# %%
# writing needs no TensorFlow; this line says so, or TensorBoard would load it (seconds, and 600 MB)
sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter


def log_to(folder):
    """A hook that writes both losses and the first layer's weights."""
    writer = SummaryWriter(folder)

    def hook(record, model):
        for name in ("train", "val"):
            writer.add_scalar(f"loss/{name}", record[name], record["epoch"])
        writer.add_histogram("first layer", model[0].weight, record["epoch"])
        writer.flush()

    return hook


def epoch_by(optimizer):
    """What trains for an epoch in batches of 64 and returns the mean loss."""

    def train_epoch(model):
        mean = Mean()
        for batch in torch.randperm(TRAIN).to(device).split(64):
            loss = plain_step(model, optimizer, x_train[batch], y_train[batch])
            mean.update(loss, len(batch))
        return mean.compute()

    return train_epoch


def loss_on_val(model):
    return functional.cross_entropy(model(x_val), y_val).item()


model = make_model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
records = fit(model, epoch_by(optimizer), loss_on_val, 30, 4, [log_to(folder / "board")])
events = EventAccumulator(str(folder / "board"))
events.Reload()
read = {name: [each.value for each in events.Scalars(f"loss/{name}")] for name in ("train", "val")}
best = min(record["val"] for record in records)
title = f"Stopped in epoch {len(records)} of 30, the best weights restored"
_ = plot.curves(read, ylabel="cross-entropy", title=title, best="min")
print(f"lowest validation loss {best:.4f}; of the model that is left {loss_on_val(model):.4f}")

# %% tags=["instructor"]
assert abs(loss_on_val(model) - best) < 1e-5 and not model.training
assert len(records) < 30 and np.allclose(read["val"], [record["val"] for record in records])
assert len(records) - int(np.argmin(read["val"])) - 1 == 4

# %% [markdown]
# **Question.** Somebody stops a long `fit` with Ctrl-C (a `KeyboardInterrupt`, an exception). Which weights does the model have then, and why is `finally` better here than `except Exception`?
#
# <details><summary>Answer</summary>
#
# The best so far, in evaluation mode. `KeyboardInterrupt` is no `Exception`, so `except Exception` would miss the commonest end of all; `finally` runs in every case and swallows nothing.
#
# </details>
#
# **Break.**
#
# ## 8 · Two processes (13 min)
#
# To use two cores, two GPUs or two machines, start the same program twice. Each process, a *rank*, has the same weights and its own half of each batch. If both apply the mean of their gradients, their weights stay equal for ever. Nobody sends weights; it is the same argument as in section 3, with ranks in the place of parts. `dist.all_reduce(t, group=group)` replaces a tensor by the sum over all ranks, on all ranks; `dist.get_world_size(group)` says how many there are.
#
# By hand: gradients $(1, 4)$ on rank 0 and $(3, 0)$ on rank 1: sum $(4, 4)$, mean $(2, 2)$ on both.
#
# An all_reduce waits until every rank has called it. If one rank skips a parameter, the others wait, and the program hangs. A layer may have had no part in one rank's loss; then its gradient there is None.


# %%
def average_gradients(model, group):
    """Replace each gradient by its mean over the processes of the group, after backward().

    A parameter without a gradient on this process (None) counts as zeros, for it may have one on
    another: all processes make the same calls. Frozen ones (requires_grad False) are left out,
    also where an old gradient is still there.
    Talk in this group only: dist.all_reduce(..., group=group), dist.get_world_size(group).
    """
    # TODO: for each parameter that learns: zeros where None, all_reduce, divide
    ### BEGIN SOLUTION
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad, group=group)
            p.grad /= dist.get_world_size(group)
    ### END SOLUTION


lab.check(average_gradients)

# %% [markdown]
# The check ran two and three ranks as threads of this process, connected by gloo. Now in earnest: two processes, started by `torchrun`. The program below is written to a file with your function in it. Your function alone goes into the file, with `torch`, `dist`, `nn` and `functional`: what else it needs, import inside it. The program compares its gradient with that of the whole batch in one process, then times steps: by one process alone, by two with your function, by two with `DistributedDataParallel` (DDP), which does the same and
# sends while `backward()` is still at work. About 15 s, most of it Python starting up.

# %%
PROGRAM = """
import datetime, sys, time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

{average_gradients}

torch.set_num_threads(1)
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
rank, world = dist.get_rank(), dist.get_world_size()
given = torch.load(sys.argv[1], weights_only=True)
found = {{}}

def run(name, x, y, average=lambda model: 0, wrap=lambda model: model):
    layers = nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    model = nn.Sequential(*layers)
    model.load_state_dict(given["weights"])
    used, optimizer = wrap(model), torch.optim.SGD(model.parameters(), lr=0.02)
    seconds, talking = [], []
    for step in range(25):
        began = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(used(x), y).backward()
        between = time.perf_counter()
        average(model)
        talking.append(time.perf_counter() - between)
        if step == 0:
            gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    found[name] = dict(gradient=gradient, seconds=seconds, talking=talking)

x, y = given["x"], given["y"]
if rank == 0:
    run("one process", x, y)
dist.barrier()
x, y = x[rank::world], y[rank::world]
run("two, yours", x, y, average=lambda model: average_gradients(model, dist.group.WORLD))
run("two, DDP", x, y, wrap=nn.parallel.DistributedDataParallel)
if rank == 0:
    torch.save(found, sys.argv[2])
dist.destroy_process_group()
"""


def torchrun(processes, program, *arguments, seconds=120):
    """Run a program on so many processes of this machine, and end it if it takes too long."""
    here = {"GLOO_SOCKET_IFNAME": next(n for _, n in socket.if_nameindex() if n.startswith("lo"))}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(processes)]
    began = subprocess.Popen(
        [*command, str(program), *map(str, arguments)],
        env=os.environ | here | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = began.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        began.terminate()  # torchrun ends its processes, then itself
        said, _ = began.communicate()
    assert began.returncode == 0, said[-3000:]


batch = torch.randperm(TRAIN)[:512]
states = {name: value.cpu() for name, value in make_model().state_dict().items()}
given = {"x": x_train.cpu()[batch], "y": y_train.cpu()[batch], "weights": states}
torch.save(given, folder / "given.pt")
source = inspect.getsource(average_gradients)
(folder / "pair.py").write_text(PROGRAM.format(average_gradients=source))
torchrun(2, folder / "pair.py", folder / "given.pt", folder / "found.pt")
found = torch.load(folder / "found.pt", weights_only=True)

whole = found["one process"]["gradient"]
fig, ax = plt.subplots(figsize=(7.5, 2.6), layout="constrained")
cost = {}
for name, its in found.items():
    cost[name] = 1000 * np.median(its["seconds"][5:]), 1000 * np.median(its["talking"][5:])
    ax.barh(name, cost[name][0] - cost[name][1], color=plot.COLOURS[0])
    ax.barh(name, cost[name][1], left=cost[name][0] - cost[name][1], color=plot.COLOURS[1])
    difference = (its["gradient"] - whole).abs().max().item()
    print(f"{name:12} gradient differs by {difference:.0e}; {cost[name][0]:.1f} ms a step")
    assert difference < 1e-6
ax.invert_yaxis()
ax.set_xlabel("ms a step of 512 images; orange: all_reduce and waiting (DDP hides its own)")
faster = cost["one process"][0] / cost["two, yours"][0]
title = f"Two processes, the same gradient, {faster:.1f} times the speed"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% [markdown]
# **Question.** What would you have to raise for two processes to come nearer to twice the speed: the batch, or the width of the layers?
#
# <details><summary>Answer</summary>
#
# The batch. Computing grows with batch times weights, talking with the weights alone, so their ratio falls as 1/B. A wider network has more to compute *and* more to send. That is why many machines mean large batches, and why the next section asks what large batches do.
#
# </details>
#
# ## 9 · Which batch, which rate? (7 min)
#
# Three epochs for each, so the same number of images, with three batch sizes and five rates; the batch of 512 also as 8 passes of 64. Clipped at 1, as one does. About 10 s.

# %%
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
SETTINGS = {  # name: (batch, images in a pass)
    "B = 64": (64, 64),
    "B = 128": (128, 128),
    "B = 512": (512, 512),
    "512 as 8 · 64": (512, 64),
}


def parts_of(size):
    return lambda model, optimizer, x, y: accumulated_step(model, optimizer, x, y, size, 1.0)


grid, steps_of = {}, {}
for name, (size, part) in SETTINGS.items():
    grid[name] = []
    for rate in RATES:
        model = make_model()
        steps_of[name] = len(train(model, epochs=3, size=size, rate=rate, step=parts_of(part)))
        grid[name].append(100 * evaluate(model, x_val, y_val)[1])
    shown = "  ".join(f"{value:5.1f}" for value in grid[name])
    print(f"{name:14} {steps_of[name]:4} steps   η = 0.01 … 1: {shown}")
ax = plot.curves(
    {name: (RATES, values) for name, values in grid.items()},
    xlabel="learning rate η",
    ylabel="validation accuracy (%)",
    xscale="log",
    title="A larger batch wants higher rates, accumulated or not",
)
_ = ax.set_ylim(5, 90)

# %% tags=["instructor"]
small, large = grid["B = 64"], grid["B = 512"]
assert large[-1] > small[-1] + 20 and large[2] - large[0] > small[2] - small[0] + 5, "to the right"
assert max(small) > max(large) + 3
assert np.abs(np.subtract(grid["B = 512"], grid["512 as 8 · 64"]))[:3].max() < 2

# %% [markdown]
# With the same images a batch of 512 takes an eighth of the steps of 64. A higher rate makes up for some of it, not for all (the README says how far that goes): its curve lies further to the right, and lower. As 8 passes of 64 it is the same run but for rounding; where a rate is so high that rounding is enlarged from step to step, the two may end apart. What do the loop's other parts bring? The baseline is the run above with 128 images; the second has a rate that falls, the third the mean of the weights. Each gets the same five rates; the best on validation images is then measured on the test images, with three new seeds. About 10 s.

# %%
END = steps_of["B = 128"]


def falls(t):
    return (1 + np.cos(np.pi * t / END)) / 2


def accuracy(rate, seed, x, y, factor=None, decay=None):
    """In per cent, after three epochs in batches of 128."""
    model = make_model(seed)
    ema = EMA(model, decay) if decay else None
    after = ema.update if ema else None
    train(model, epochs=3, size=128, rate=rate, step=parts_of(128), factor=factor, after=after)
    return 100 * evaluate(ema.model if ema else model, x, y)[1]


variants = {"plain": {}, "rate that falls": {"factor": falls}, "mean of weights": {"decay": 0.97}}
chosen, scores = {}, {}
for name, settings in variants.items():
    on_val = [accuracy(rate, 0, x_val, y_val, **settings) for rate in RATES]
    chosen[name] = RATES[int(np.argmax(on_val))]
    scores[name] = [accuracy(chosen[name], seed, x_test, y_test, **settings) for seed in (1, 2, 3)]
    mean, spread = np.mean(scores[name]), np.std(scores[name], ddof=1)
    print(f"{name:16} best η {chosen[name]:5}: test {mean:.1f} ± {spread:.1f} %")

# %% tags=["instructor"]
assert all(rate in RATES[1:-1] for rate in chosen.values()), "no best at the end of its list"
final = {name: np.mean(its) for name, its in scores.items()}
assert all(75 < value < 88 for value in final.values())
assert final["mean of weights"] > final["plain"]

# %% [markdown]
# **Question.** "Averaging the weights is as good as a falling rate, so schedules are superfluous." What does this table support, and what not?
#
# <details><summary>Answer</summary>
#
# Both calm the end of a run. The average has one advantage: it does not have to know when the run ends, so one can stop, or go on, at any time. But the table speaks of one network, three epochs, five rates and one decay, 0.97, which nobody tuned. With a longer run the order may change; the honest sentence is "here, with this budget".
#
# </details>
#
# ## 10 · From notebook to program (10 min)
#
# [train.py](train.py) has all of it: one process or several, a checkpoint every so many steps, exact resume, TensorBoard. One piece is yours, `shard_indices`: which examples of an epoch belong to which rank. All ranks get equally many. Where that does not come out, the order is filled up from its beginning, so a few examples are seen twice; none is left out. Open the script, fill in the TODO, and in a terminal beside the notebook, in its folder (from the course's: `cd workshops/frameworks/pytorch/training-loops`):
#
#     atlas check shard_indices
#     python train.py --epochs 30 --checkpoint runs/whole.pt
#     python train.py --epochs 30 --checkpoint runs/killed.pt
#
# The first is the run in one go. Kill the second in the middle, from another terminal: `pgrep -af train.py` shows its number, `kill -9 NUMBER` ends it. Then let it go on, and compare the last lines: each names a fingerprint of the weights.
#
#     python train.py --epochs 30 --checkpoint runs/killed.pt --resume
#
# In two processes it is the same, with a run in one go of its own, for two processes drop other neurons than one:
#
#     torchrun --standalone --nproc-per-node 2 train.py --epochs 30 --checkpoint runs/whole2.pt
#     torchrun --standalone --nproc-per-node 2 train.py --epochs 30 --checkpoint runs/killed2.pt
#
# With torchrun kill one of the two workers, not torchrun itself: its workers would train on. The same command with `--resume` goes on.
#
# **What you built, and what it leaves open.** A loop whose parts are each equal to something simpler: the mean over examples, the large batch, the run in one go, the single process. What comes out of it is a file of weights. How that becomes something others can use is the next workshop: **pytorch-model-export-deployment**.
