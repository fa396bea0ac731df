# %% [markdown]
# # Modern CNNs: ResNet, DenseNet and Vision Transformers
#
# Deeper should be better, and is worse. You measure it, find out why, and write the blocks that were found since 2015: residual, dense, separable, squeeze-and-excitation, patches. In the end a table says what each costs. Derivations are in the [README](README.md).

# %%
import copy
import re
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import atlas
from atlas import plot

DATASET = "fashion-mnist"  # or "cifar10", after: atlas data fetch cifar10

lab = atlas.open("modern-cnns-resnet-densenet")
loaded = atlas.data.load(DATASET, fetch=False)
SHIPPED = DATASET == "fashion-mnist"  # the checkpoints are for it
loaded

# %% [markdown]
# ## 1 · Deeper is worse (9 min)
#
# Fashion-MNIST again (Xiao, Rasul and Vollgraf, 2017; licence MIT), as tensors $(B, C, H, W)$ in 0…1, 10,000 images for training. The last workshop ended with a promise: plainly stacked layers get worse. Here is the plainest stack, $n$ times convolution, batch norm, ReLU, all with 16 channels on $7 \times 7$ maps, and the loop that trains it for 100 steps.

# %%
device = atlas.device()


def as_tensor(images):
    x = torch.tensor(images, device=device)  # (N, H, W), or (N, H, W, 3) in colour
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)
    return (x / 255).contiguous()  # (N, C, H, W)


x_train, y_train = as_tensor(loaded.x_train[:10_000]), torch.tensor(loaded.y_train[:10_000])
x_val, y_val = as_tensor(loaded.x_train[-2000:]), torch.tensor(loaded.y_train[-2000:])
x_test, y_test = as_tensor(loaded.x_test[:5000]), torch.tensor(loaded.y_test[:5000])
y_train, y_val, y_test = (y.to(device) for y in (y_train, y_val, y_test))
C, H, W = x_train.shape[1:]


@torch.no_grad()
def predict(model, x):
    model.eval()
    return torch.cat([model(part) for part in x.split(500)])


def accuracy(model, x, y):
    return predict(model, x).argmax(1).eq(y).float().mean().item()


def train(model, steps, rate, seed=0, batch_size=48):
    """AdamW with one-cycle on the training images. Returns the loss of each step."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.2)
    epochs = 1 + steps * batch_size // len(x_train)
    order = torch.cat([torch.randperm(len(x_train)) for _ in range(epochs)])
    losses = []
    model.train()
    for batch in order.split(batch_size)[:steps]:
        loss = F.cross_entropy(model(x_train[batch]), y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def conv_norm_relu(n_in, n_out, kernel=3, stride=1):
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())


def stack(blocks):
    """Stem, blocks on 16 channels, mean over the places, linear."""
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    return nn.Sequential(conv_norm_relu(C, 16, 5, 4), *blocks, *head).to(device)


def plain(layers, seed=0):
    """A stack with so many layers that have weights; two of them are the stem and the end."""
    torch.manual_seed(seed)
    return stack([conv_norm_relu(16, 16) for _ in range(layers - 2)])


# %% [markdown]
# Same images, same order, same rate, same number of steps. Only the depth differs. About 10 s.

# %%
DEPTHS = (6, 14, 30)
losses, trained = {}, {}
print("plain layers   training loss at the end   validation accuracy")
for layers in DEPTHS:
    trained["plain", layers] = plain(layers)
    losses["plain", layers] = train(trained["plain", layers], 100, 1e-2)
    end = np.mean(losses["plain", layers][-20:])
    score = accuracy(trained["plain", layers], x_val, y_val)
    print(f"{layers:12} {end:26.3f} {score:21.1%}")


def smooth(values, n=10):
    return np.arange(n, len(values) + 1), np.convolve(values, np.ones(n) / n, "valid")


ax = plot.curves(
    {f"{layers} layers": smooth(losses["plain", layers]) for layers in DEPTHS},
    xlabel="step",
    ylabel="training loss, mean of 10 steps",
    title="The deeper the plain network, the worse it trains",
)

# %% tags=["instructor"]
plain_end = {layers: np.mean(losses["plain", layers][-20:]) for layers in DEPTHS}
if SHIPPED:
    assert plain_end[6] < plain_end[14] < plain_end[30], "degradation"
    assert plain_end[30] > plain_end[6] + 0.3

# %% [markdown]
# **Question.** More layers, more parameters: is the deepest network overfitting?
#
# <details><summary>Answer</summary>
#
# No. Overfitting means a low loss on the training images and a high one on others. Here the *training* loss is high. And yet the deep network could do all that the shallow one can: copy the shallow one's layers, and let the others pass on what they get. Such weights exist; the optimizer does not find them. He, Zhang, Ren and Sun (2015) call this *degradation*.
#
# </details>

# %% [markdown]
# ## 2 · Why: gradients that shatter (5 min)
#
# Look at the gradient of the first layer after the stem, before any training. Two numbers: its norm, and the *cosine* between the gradients of two batches. Different images of the same ten classes should mostly agree on how to change a layer; a cosine near 0 says that each batch pulls in a direction of its own.

# %%
LONG = (6, 14, 30, 50)


def first_gradients(model):
    """Norm of the gradient at the first weight after the stem, and cosine for two batches."""
    weight, found = list(model.parameters())[3], []
    model.train()
    for part in (slice(0, 128), slice(128, 256)):
        loss = F.cross_entropy(model(x_train[part]), y_train[part])
        found.append(torch.autograd.grad(loss, weight)[0].flatten())
    return found[0].norm().item(), F.cosine_similarity(*found, dim=0).item()


def over_seeds(make):
    """(norms, cosines) for the depths of LONG: mean over three initialisations."""
    each = [[first_gradients(make(layers, seed)) for layers in LONG] for seed in range(3)]
    return np.exp(np.log(np.array(each)[:, :, 0]).mean(0)), np.array(each)[:, :, 1].mean(0)


norms, cosines = {}, {}
norms["plain"], cosines["plain"] = over_seeds(plain)
growth = (norms["plain"][-1] / norms["plain"][-2]) ** (1 / (LONG[-1] - LONG[-2]))
print("layers " + "".join(f"{n:9}" for n in LONG))
print("norm   " + "".join(f"{v:9.2f}" for v in norms["plain"]))
print("cosine " + "".join(f"{v:9.2f}" for v in cosines["plain"]))
print(f"\nfrom {LONG[-2]} to {LONG[-1]} layers the norm grows by {growth:.2f} with each layer")

# %% tags=["instructor"]
assert norms["plain"][3] > 30 * norms["plain"][1] and 1.1 < growth < 1.3
assert cosines["plain"][0] > 0.4 and abs(cosines["plain"][2:]).max() < 0.2

# %% [markdown]
# Two troubles. The gradient *explodes*, although, or because, batch norm keeps the maps at one scale (Yang et al., 2019). And it *shatters*: with depth the cosine goes to 0, a step that helps one batch is noise to the next (Balduzzi et al., 2017).
#
# **Question.** AdamW divides each gradient by its own size. Which of the two troubles does that cure?
#
# <details><summary>Answer</summary>
#
# The first, mostly: a gradient that is a hundred times too long gives a step of the usual length. Not the second. Where the gradients of batches have nothing in common, their mean over many steps is near 0, whatever they are divided by.
#
# </details>

# %% [markdown]
# ## 3 · The residual block (15 min)
#
# If layers that pass on what they get are hard to learn, make passing on the default. A block computes a *branch* $F$ and adds its input:
#
# $$y = \mathrm{ReLU}\bigl(F(x) + x\bigr)$$
#
# $F$ is: convolution $3 \times 3$, batch norm, ReLU, convolution $3 \times 3$, batch norm. No ReLU at its end: the branch must be able to take away. With $F = 0$ the block passes on its $x \ge 0$. Backward, the sum hands the gradient on unchanged, beside what comes through $F$.
#
# Where the block has a stride, or changes the number of channels, $x$ does not fit $F(x)$. Then the *skip* is a convolution $1 \times 1$ with that stride, and batch norm.
#
# ![A residual block: the branch with its five layers on one path, the skip on the other, then the sum and ReLU.](figures/blocks.svg)


# %%
class ResidualBlock(nn.Module):
    """ReLU of branch(x) + skip(x): (B, n_in, H, W) to (B, n_out, H', W').

    branch: nn.Sequential of nn.Conv2d 3×3 (n_in to n_out, the stride, padding 1, no bias),
    nn.BatchNorm2d, nn.ReLU, nn.Conv2d 3×3 (n_out to n_out, stride 1, padding 1, no bias),
    nn.BatchNorm2d.
    skip: nn.Identity where stride is 1 and n_in = n_out; else nn.Sequential of nn.Conv2d 1×1
    (n_in to n_out, the stride, no padding, no bias) and nn.BatchNorm2d.
    All weights begin as PyTorch makes them. x is not changed.
    """

    def __init__(self, n_in, n_out, stride=1):
        # TODO: branch and skip.
        ### BEGIN SOLUTION
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.skip = nn.Identity()
        if stride != 1 or n_in != n_out:
            conv = nn.Conv2d(n_in, n_out, 1, stride, bias=False)
            self.skip = nn.Sequential(conv, nn.BatchNorm2d(n_out))
        ### END SOLUTION

    def forward(self, x):
        # TODO: the sum of both, then ReLU.
        ### BEGIN SOLUTION
        return torch.relu(self.branch(x) + self.skip(x))
        ### END SOLUTION


lab.check(ResidualBlock)

# %% [markdown]
# The experiment of section 1 with your block: same depths, same images, same rate. About 10 s.


# %%
def residual(layers, seed=0):
    torch.manual_seed(seed)
    return stack([ResidualBlock(16, 16) for _ in range((layers - 2) // 2)])


print("layers   training loss: plain  residual   validation: plain  residual")
for layers in DEPTHS:
    trained["residual", layers] = residual(layers)
    losses["residual", layers] = train(trained["residual", layers], 100, 1e-2)
    kinds = "plain", "residual"
    ends = [np.mean(losses[kind, layers][-20:]) for kind in kinds]
    scores = [accuracy(trained[kind, layers], x_val, y_val) for kind in kinds]
    print(f"{layers:6} {ends[0]:21.3f} {ends[1]:9.3f} {scores[0]:19.1%} {scores[1]:9.1%}")
norms["residual"], cosines["residual"] = over_seeds(residual)

fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for kind, marker, colour in zip(("plain", "residual"), "os", plot.COLOURS, strict=False):
    ends = [np.mean(losses[kind, layers][-20:]) for layers in DEPTHS]
    drawn = (DEPTHS, ends), (LONG, norms[kind]), (LONG, cosines[kind])
    for ax, (x, y) in zip(axes, drawn, strict=True):
        ax.plot(x, y, marker=marker, color=colour, label=kind)
axes[1].set_yscale("log")
names = "training loss", "|gradient|, first layer", "cosine of two batches"
for ax, name in zip(axes, names, strict=True):
    ax.set(xlabel="layers", ylabel=name)
    ax.grid(color=plot.GRID)
axes[0].legend(frameon=False)
title = "With a skip depth does no harm: the gradient grows slowly and keeps a direction"
_ = fig.suptitle(title, size=11, weight="bold", x=0.01, ha="left")

# %% tags=["instructor"]
residual_end = {layers: np.mean(losses["residual", layers][-20:]) for layers in DEPTHS}
if SHIPPED:
    assert residual_end[30] < plain_end[30] - 0.4 and residual_end[30] < residual_end[6] + 0.1
assert norms["residual"][3] < 8 and cosines["residual"][3] > 0.15

# %% [markdown]
# Two looks inside. *Zero γ*: let the last batch norm of each branch begin with $\gamma = 0$; then each block begins as the identity. In very deep networks and with large rates that makes the start safe; in 100 steps it costs a little. And a *lesion* (Veit, Wilber and Belongie, 2016): take one block out of a trained network, and change nothing else.

# %%
zero = residual(14)
for block in zero[1:-3]:
    nn.init.zeros_(block.branch[-1].weight)
F.cross_entropy(zero(x_train[:128]), y_train[:128]).backward()
inner = max(block.branch[0].weight.grad.abs().max().item() for block in zero[1:-3])
outer = max(block.branch[-1].weight.grad.abs().max().item() for block in zero[1:-3])
zero_end = np.mean(train(zero, 100, 1e-2)[-20:])
print(f"zero γ: largest gradient at a convolution of a branch {inner:.1g}, at a γ {outer:.2g}")
usual_end = np.mean(losses["residual", 14][-20:])
print(f"training loss after 100 steps {zero_end:.3f}, without zero γ {usual_end:.3f}")

lesion, part = {}, (x_val[:1000], y_val[:1000])
for kind, size in (("plain", 2), ("residual", 1)):  # a block has two convolutions
    model = trained[kind, 14]
    lesion[kind] = [accuracy(model, *part)]
    for n in range(6):
        first = 1 + n * size
        left = *model[:first], *model[first + size :]
        lesion[kind].append(accuracy(nn.Sequential(*left), *part))
fig, ax = plt.subplots(figsize=(7, 2.9), layout="constrained")
for kind, shift, colour in (("plain", -0.2, plot.COLOURS[0]), ("residual", 0.2, plot.COLOURS[1])):
    ax.bar(np.arange(7) + shift, 100 * np.array(lesion[kind]), 0.38, color=colour, label=kind)
ax.set_xticks(range(7), ["none", *(f"block {n}" for n in range(1, 7))])
ax.set(xlabel="taken out", ylabel="validation accuracy (%)")
ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
title = "A residual network can spare any one of its later blocks, a plain one none"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert inner == 0 and outer > 0
if SHIPPED:
    assert zero_end < usual_end + 0.25
    assert np.mean(lesion["residual"][1:]) > np.mean(lesion["plain"][1:]) + 0.1

# %% [markdown]
# **Question.** With zero γ the convolutions of a branch get no gradient at all. Why does it train nevertheless?
#
# <details><summary>Answer</summary>
#
# What a convolution gets is multiplied by $\gamma = 0$. But γ itself gets a gradient: it is multiplied by the normalised map, which is not 0. After the first step γ is not 0 any more, and from the second on the convolutions learn too. In 100 steps it stays a little behind, for it has to open its branches first.
#
# </details>

# %% [markdown]
# ## 4 · Dense connections (10 min)
#
# DenseNet (Huang, Liu, van der Maaten and Weinberger, 2016) does not add, it *concatenates*: each layer gets all maps made so far and puts $k$ new ones behind them, the *growth*. From $n$ channels, $l$ layers make $n + lk$. Nothing is overwritten, so each layer can be narrow.
#
# By hand: $n = 6$, $k = 4$, three layers: they get 6, 10 and 14 channels, and 18 come out.


# %%
class DenseBlock(nn.Module):
    """Layers that each get all maps made so far: (B, n_in, H, W) to (B, n_in + count·growth, H, W).

    layers: nn.ModuleList of `count` layers. Each is an nn.Sequential of nn.BatchNorm2d, nn.ReLU,
    nn.Conv2d 3×3 (padding 1, no bias) to `growth` channels. In the result x comes first, then
    what each layer made, in order. count may be 0. x is not changed.
    """

    def __init__(self, n_in, growth, count):
        # TODO: the layers. How many channels does each get?
        ### BEGIN SOLUTION
        super().__init__()
        self.layers = nn.ModuleList()
        for n in range(n_in, n_in + count * growth, growth):
            conv = nn.Conv2d(n, growth, 3, padding=1, bias=False)
            self.layers.append(nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), conv))
        ### END SOLUTION

    def forward(self, x):
        # TODO: after each layer, old maps and new ones side by side.
        ### BEGIN SOLUTION
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x
        ### END SOLUTION


lab.check(DenseBlock)

# %% [markdown]
# From here on the networks have three stages of 12, 24 and 48 channels on $14 \times 14$, $7 \times 7$ and $4 \times 4$ maps. [compare_architectures.py](compare_architectures.py) trained one of each kind on 55,000 images and left its weights in `checkpoints/`, with [a log](checkpoints/dense.txt) beside each. (Its blocks are the answers of sections 3 to 9: open it in section 11.) The weights fit into *your* blocks. Which earlier maps does a layer of a trained dense block use? $\gamma$ scales each map before the layer's weights meet it, so take $|\gamma| \cdot |\mathrm{weight}|$, beside its mean in the layer.


# %%
def network(block, *plan):
    """Stem, a block for each (n_in, n_out, stride) of the plan, mean over the places, linear."""
    blocks = [block(*each) for each in plan]
    stem = nn.Conv2d(C, plan[0][0], 3, 2, 1, bias=False), nn.BatchNorm2d(plan[0][0]), nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(plan[-1][1], 10)
    return nn.Sequential(*stem, *blocks, *head).to(device)


ONE = (12, 12, 1), (12, 24, 2), (24, 48, 2)
TWO = (12, 12, 1), (12, 12, 1), (12, 24, 2), (24, 24, 1), (24, 48, 2), (48, 48, 1)


def dense_stage(n_in, n_out, stride):
    """Your block, then a transition: batch norm, ReLU, convolution 1×1, mean over strides."""
    n = n_in + n_out // 4 * 4
    conv = nn.Conv2d(n, n_out, 1, bias=False)
    layers = DenseBlock(n_in, n_out // 4, 4), nn.BatchNorm2d(n), nn.ReLU(), conv
    return nn.Sequential(*layers, nn.AvgPool2d(stride, ceil_mode=True))


CHECKPOINTS = lab.workshop.folder / "checkpoints"


def restore(name, model):
    """The model with the checkpoint's weights; in other data sets than its own, trained here."""
    if not SHIPPED:
        print(f"The checkpoints are for Fashion-MNIST. With {DATASET}: {name}, 150 steps here.")
        train(model, 150, 2e-3 if name == "vit" else 1e-2)
        return model.eval()
    saved = torch.load(CHECKPOINTS / f"{name}.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(saved["model"])
    return model.to(device).eval()


dense = restore("dense", network(dense_stage, *ONE))
reached = {"dense": accuracy(dense, x_test, y_test)}
print(f"DenseNet, {len(y_test):,} test images: {reached['dense']:.1%}")
block = dense[5][0]  # of the last stage: 24 channels come in, each layer adds 12
used = np.full((4, 4), np.nan)
for n, layer in enumerate(block.layers):
    strength = (layer[2].weight.abs().mean((0, 2, 3)) * layer[0].weight.abs()).detach().cpu()
    parts = strength.split([24, *[12] * n])
    used[n, : n + 1] = [part.mean() / strength.mean() for part in parts]
fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
fig.colorbar(ax.imshow(used, cmap="viridis", vmin=0), label="|γ|·|weight| / its mean in the layer")
ax.set_xticks(range(4), ["input", "layer 1", "layer 2", "layer 3"])
ax.set_yticks(range(4), [f"layer {n}" for n in range(1, 5)])
ax.set(xlabel="maps of", ylabel="used by")
title = "The newest maps are used most, and all others too"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
if SHIPPED:
    assert reached["dense"] > 0.86
    assert np.nanmin(used) > 0.3 * np.nanmax(used), "everything is used"
    assert [*np.nanargmax(used, 1)] == [0, 1, 2, 3], "the newest most"

# %% [markdown]
# **Question.** Each layer makes 12 maps only. Why is a DenseNet slow all the same?
#
# <details><summary>Answer</summary>
#
# The layers get more and more channels, so the number of multiplications of a block grows with the square of the number of layers. And `torch.cat` copies all maps each time: that is no multiplication, and takes time. The table at the end has both numbers.
#
# </details>

# %% [markdown]
# **Break.**

# %% [markdown]
# ## 5 · Cheaper convolutions (13 min)
#
# What does a convolution cost? One multiplication for each weight that an entry of the result uses, at each entry. With `groups` $= g$ the channels are cut into $g$ parts, and each output channel sees the $C_{in}/g$ channels of its part only. With $H' = \lfloor (H + 2p - k_h)/s \rfloor + 1$ as in *cnn-basics*, $W'$ alike:
#
# $$\text{multiplications} = H' W' \cdot C_{out} \cdot \frac{C_{in}}{g} \cdot k_h k_w$$
#
# By hand: $32 \to 64$ channels, $3 \times 3$, padding 1, $14 \times 14$ maps: $196 \cdot 64 \cdot 32 \cdot 9 = 3{,}612{,}672$.


# %%
def conv_macs(conv, height, width):
    """How many multiplications a convolution makes for one image.

    conv: nn.Conv2d with any groups, dilation 1; kernel_size, stride and padding are pairs (rows,
    columns) of numbers. height, width: of the maps that come in. Adding the bias is no
    multiplication. Returns an int.
    """
    # TODO: the size of the result first, then the formula.
    ### BEGIN SOLUTION
    (kh, kw), (sh, sw), (ph, pw) = conv.kernel_size, conv.stride, conv.padding
    rows = (height + 2 * ph - kh) // sh + 1
    columns = (width + 2 * pw - kw) // sw + 1
    return rows * columns * conv.out_channels * (conv.in_channels // conv.groups) * kh * kw
    ### END SOLUTION


lab.check(conv_macs)

# %% [markdown]
# A convolution looks around and mixes channels at once. MobileNet (Howard et al., 2017) does one after the other: *depthwise*, each channel with a kernel of its own, `groups` $= C_{in}$; then *pointwise*, $1 \times 1$ across channels. By hand, for the same layer: $196 \cdot 32 \cdot 9 + 196 \cdot 64 \cdot 32 = 457{,}856$, an eighth.


# %%
def separable(n_in, n_out, kernel=3, stride=1):
    """A depthwise separable convolution: (B, n_in, H, W) to (B, n_out, H', W').

    kernel: odd. Returns an nn.Sequential of six, without names: nn.Conv2d kernel×kernel
    (depthwise, with the stride and padding kernel//2), nn.BatchNorm2d, nn.ReLU, nn.Conv2d 1×1
    (pointwise), nn.BatchNorm2d, nn.ReLU. The convolutions have no bias.
    """
    # TODO: six layers.
    ### BEGIN SOLUTION
    depthwise = nn.Conv2d(n_in, n_in, kernel, stride, kernel // 2, groups=n_in, bias=False)
    pointwise = nn.Conv2d(n_in, n_out, 1, bias=False)
    norms = nn.BatchNorm2d(n_in), nn.BatchNorm2d(n_out)
    return nn.Sequential(depthwise, norms[0], nn.ReLU(), pointwise, norms[1], nn.ReLU())
    ### END SOLUTION


lab.check(separable)

# %% [markdown]
# Multiplications are counted. Seconds have to be measured: 64 images, $14 \times 14$, $C \to 2C$.


# %%
def milliseconds(model, x, times=5):
    """Computing time of a pass in evaluation, for the batch; the best of some."""
    model.eval()
    seconds = []
    with torch.no_grad():
        for _ in range(times):
            begin = time.process_time()
            model(x)
            seconds.append(time.process_time() - begin)
    return 1000 * min(seconds)


print("channels      multiplications: full   separable   less by     ms: full  separable   less by")
fewer, faster, WIDTHS = [], [], (16, 32, 64, 128)
for n in WIDTHS:
    full, cheap = conv_norm_relu(n, 2 * n), separable(n, 2 * n)
    x = torch.rand(64, n, 14, 14).contiguous(memory_format=torch.channels_last)
    counts = conv_macs(full[0], 14, 14), conv_macs(cheap[0], 14, 14) + conv_macs(cheap[3], 14, 14)
    times = [milliseconds(m.to(memory_format=torch.channels_last), x) for m in (full, cheap)]
    fewer.append(counts[0] / counts[1])
    faster.append(times[0] / times[1])
    print(f"{n:4} → {2 * n:<4} {counts[0]:21,} {counts[1]:11,} {fewer[-1]:9.1f}", end="")
    print(f" {times[0]:12.1f} {times[1]:10.1f} {faster[-1]:9.1f}")
ax = plot.curves(
    {"fewer multiplications": (WIDTHS, fewer), "less time": (WIDTHS, faster)},
    xlabel="channels that come in",
    ylabel="full / separable",
    xscale="log",
    title="An eighth of the multiplications is not an eighth of the time",
)
ax.set_xticks(WIDTHS, WIDTHS)
ax.minorticks_off()
_ = ax.set_ylim(0, None)

# %% tags=["instructor"]
assert np.allclose(fewer, [1 / (1 / 9 + 1 / (2 * n)) for n in WIDTHS])
assert max(faster) < min(fewer[1:]) and faster[-1] > 1

# %% [markdown]
# **Question.** Where does the time go?
#
# <details><summary>Answer</summary>
#
# Into memory. A depthwise convolution makes nine multiplications for each number that it reads, and the processor waits for numbers; a full one makes $9 \cdot C_{out}$ with each. Two batch norms and two ReLUs go over all maps besides. On a telephone's chip the ratio is another: measure where it shall run.
#
# </details>

# %% [markdown]
# ## 6 · Squeeze, excite, and EfficientNet's block (9 min)
#
# A convolution sees a window. *Squeeze-and-excitation* (Hu, Shen, Albanie, Sun and Wu, 2017) lets the whole image decide how much each channel counts. *Squeeze*: the mean $s_c$ of each channel over its places. *Excite*: a small MLP makes a *gate* in 0…1 of them, and the channel is multiplied by it:
#
# $$s = \tfrac{1}{HW}\sum_{i,j} x_{:,i,j}, \qquad g = \sigma\bigl(W_2\,\mathrm{ReLU}(W_1 s + b_1) + b_2\bigr), \qquad y_{c,i,j} = g_c\, x_{c,i,j}$$


# %%
class SqueezeExcite(nn.Module):
    """Each channel times its gate: (B, channels, H, W) to the same shape.

    down: nn.Linear, channels to squeezed. up: nn.Linear, squeezed to channels. Both with bias.
    x is not changed.
    """

    def __init__(self, channels, squeezed):
        # TODO: two linear layers.
        ### BEGIN SOLUTION
        super().__init__()
        self.down = nn.Linear(channels, squeezed)
        self.up = nn.Linear(squeezed, channels)
        ### END SOLUTION

    def forward(self, x):
        # TODO: means, gates, product.
        ### BEGIN SOLUTION
        s = x.mean((2, 3))  # (B, C)
        gates = torch.sigmoid(self.up(torch.relu(self.down(s))))
        return x * gates[:, :, None, None]
        ### END SOLUTION


lab.check(SqueezeExcite)

# %% [markdown]
# EfficientNet's block (Tan and Le, 2019; *MBConv*) puts it all together: widen by $1 \times 1$, convolve depthwise, squeeze and excite, narrow by $1 \times 1$ without ReLU, and add where the shapes agree. Its ReLU is *SiLU*, $z\,\sigma(z)$. Below: it, with your `SqueezeExcite`, and what its gates do for each class.


# %%
class MBConv(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        wide = 4 * n_in
        depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        widen, narrow = nn.Conv2d(n_in, wide, 1, bias=False), nn.Conv2d(wide, n_out, 1, bias=False)
        self.branch = nn.Sequential(
            *(widen, nn.BatchNorm2d(wide), nn.SiLU(), depthwise, nn.BatchNorm2d(wide), nn.SiLU()),
            *(SqueezeExcite(wide, max(1, n_in // 4)), narrow, nn.BatchNorm2d(n_out)),
        )
        self.same = stride == 1 and n_in == n_out

    def forward(self, x):
        return self.branch(x) + x if self.same else self.branch(x)


mbconv = restore("mbconv", network(MBConv, *TWO))
reached["mbconv"] = accuracy(mbconv, x_test, y_test)
print(f"EfficientNet's blocks, test images: {reached['mbconv']:.1%}")
excite, seen = mbconv[8].branch[6], []
hook = excite.register_forward_hook(lambda layer, given, out: seen.append(given[0].mean((2, 3))))
predict(mbconv, x_val[:1000])
hook.remove()
with torch.no_grad():
    gates = excite.up(excite.down(torch.cat(seen)).relu()).sigmoid().cpu()  # (1000, 192)
by_class = torch.stack([gates[y_val[:1000].cpu() == k].mean(0) for k in range(10)])
telling = by_class.std(0).argsort(descending=True)[:40]
telling = telling[by_class[:, telling].argmax(0).argsort()]
fig, ax = plt.subplots(figsize=(8.4, 3), layout="constrained")
picture = ax.imshow(by_class[:, telling], cmap="viridis", vmin=0, vmax=1, aspect="auto")
fig.colorbar(picture, label="mean gate")
ax.set_yticks(range(10), loaded.classes)
ax.set(xlabel="the 40 channels of the last block whose gates differ most", xticks=[])
_ = ax.set_title("Classes open different gates", loc="left", size=11, weight="bold")

# %% tags=["instructor"]
if SHIPPED:
    assert reached["mbconv"] > 0.87
    assert by_class[:, telling].std(0).min() > 0.03

# %% [markdown]
# **Question.** Two rows look nearly alike. Which, and what follows?
#
# <details><summary>Answer</summary>
#
# Pullover and coat: for the gates they are one kind of thing, long sleeves on a wide body. The gates say roughly what is seen; the maps that pass through them have to tell the two apart.
#
# </details>

# %% [markdown]
# ## 7 · Batch norm folded away (11 min)
#
# In evaluation batch norm is a fixed line: its statistics $\mu_o$, $\sigma_o^2$ stand still. And a line after a convolution is again a convolution. With $z_o = (w_o * x) + b_o$:
#
# $$\gamma_o \frac{z_o - \mu_o}{\sqrt{\sigma_o^2 + \varepsilon}} + \beta_o \;=\; \underbrace{\frac{\gamma_o}{\sqrt{\sigma_o^2 + \varepsilon}}\, w_o}_{\text{new } w_o} * x \;+\; \underbrace{\beta_o + \frac{\gamma_o\,(b_o - \mu_o)}{\sqrt{\sigma_o^2 + \varepsilon}}}_{\text{new } b_o}$$
#
# By hand: $w = 3$, $b = 1$, $\mu = 5$, $\sigma^2 + \varepsilon = 4$, $\gamma = 4$, $\beta = 1$: the factor is $4/2 = 2$, so the new $w$ is 6, the new $b$ is $1 + 2\,(1 - 5) = -7$.
#
# In PyTorch: `copy.deepcopy(conv)` keeps all settings; a weight that is set anew has to be an `nn.Parameter`.


# %%
def fold_batch_norm(conv, norm):
    """One convolution that does what conv, then norm do in evaluation.

    conv: nn.Conv2d, with or without bias, of any stride, padding (zeros), dilation and groups.
    norm: the nn.BatchNorm2d after it; its scale γ is norm.weight, its shift β norm.bias, ε
    norm.eps, and its statistics norm.running_mean and norm.running_var (σ²).
    Returns a new nn.Conv2d with bias, of the same dtype. conv and norm stay as they are.
    """
    # TODO: a factor for each output channel; a new convolution with all of conv's settings.
    ### BEGIN SOLUTION
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # (O,)
    bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    folded = copy.deepcopy(conv)
    folded.weight = nn.Parameter((conv.weight * factor[:, None, None, None]).detach())
    folded.bias = nn.Parameter((norm.bias + factor * bias).detach())
    return folded
    ### END SOLUTION


lab.check(fold_batch_norm)

# %% [markdown]
# All of a network: wherever a batch norm follows a convolution, both become one. Nothing is lost but the time.


# %%
def fold_all(model):
    """A copy in which each batch norm that follows a convolution is folded into it."""
    model = copy.deepcopy(model).eval()
    for part in model.modules():
        if isinstance(part, nn.Sequential):
            for n in range(len(part) - 1):
                if isinstance(part[n], nn.Conv2d) and isinstance(part[n + 1], nn.BatchNorm2d):
                    part[n], part[n + 1] = fold_batch_norm(part[n], part[n + 1]), nn.Identity()
    return model


resnet = restore("residual", network(ResidualBlock, *TWO))
folded = fold_all(resnet)
x = x_test[:500]
apart = (predict(resnet, x) - predict(folded, x)).abs().max().item()
turns = [[milliseconds(model, x[:100]) for model in (resnet, folded)] for _ in range(5)]
before, after = np.min(turns, axis=0)
count = [sum(isinstance(m, nn.BatchNorm2d) for m in each.modules()) for each in (resnet, folded)]
print(f"batch norms: {count[0]} before, {count[1]} after")
print(f"largest difference of 5,000 logits: {apart:.0e}")
print(f"100 images: {before:.1f} ms before, {after:.1f} ms after, {1 - after / before:.0%} less")

# %% tags=["instructor"]
assert apart < 1e-3 and count[0] > 10 and count[1] == 0
assert after < 1.05 * before, "folding saves time"

# %% [markdown]
# **Question.** Why not fold before training, and save the time there too?
#
# <details><summary>Answer</summary>
#
# In training the mean and the variance are those of the batch, and change with each step and with the weights: no fixed line. And that they follow is what makes batch norm worth having. Fold when training is over; the exporters of *pytorch-model-export-deployment* do it by themselves.
#
# </details>

# %% [markdown]
# ## 8 · Patches (8 min)
#
# Now without convolution. A *Vision Transformer* (Dosovitskiy et al., 2020) cuts the image into patches of $p \times p$ pixels, and calls each a *token*, as if it were a word. $N = \frac{H}{p} \cdot \frac{W}{p}$ patches, each a vector of $C p^2$ numbers.
#
# By hand: in a picture with $H = 4$, $W = 6$, $p = 2$, the pixel in row 2, column 5 (from 0) lies in patch $\lfloor 2/2 \rfloor \cdot 3 + \lfloor 5/2 \rfloor = 5$, the last of six, and there in row 0, column 1.


# %%
def patchify(x, patch):
    """Images (B, C, H, W) as rows of patches, (B, N, C·patch·patch); gradients flow.

    Patches are in reading order: along the first row of patches, then the next. The numbers of a
    patch are in the order (C, patch, patch): channel by channel, each row by row.
    Raises ValueError where H or W is not a multiple of patch.
    """
    # TODO: reshape to six axes, change their order, reshape. First the error.
    ### BEGIN SOLUTION
    B, C, H, W = x.shape
    if H % patch or W % patch:
        raise ValueError(f"patches of {patch} do not fill {H} × {W}")
    x = x.reshape(B, C, H // patch, patch, W // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * patch**2)
    ### END SOLUTION


lab.check(patchify)

# %%
P = 4
few = x_test[[0, 1, 2]]
tokens = patchify(few, P)  # (3, N, C·P·P)
N = tokens.shape[1]
fig, axes = plt.subplots(3, 1, figsize=(8.8, 2.6), layout="constrained")
for ax, image in zip(axes, tokens.view(3, N, C, P, P).cpu(), strict=True):
    row = F.pad(image, (0, 1), value=0.5).permute(1, 2, 0, 3).reshape(C, P, -1)  # side by side
    ax.imshow(row.permute(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1, aspect="auto")
    ax.set(xticks=[], yticks=[])
title = f"What a transformer gets of three images: {N} tokens of {C * P * P} numbers in a row"
_ = fig.suptitle(title, size=11, weight="bold", x=0.01, ha="left")

# %% [markdown]
# **Question.** Could you tell what is on the three images? What would you need to know besides?
#
# <details><summary>Answer</summary>
#
# Perhaps the trousers. You would need to know how wide the picture is, that is, where each patch belongs. So does a transformer: for it tokens are a set, without order, until their positions are added.
#
# </details>

# %% [markdown]
# **Break.**

# %% [markdown]
# ## 9 · A small Vision Transformer (12 min)
#
# The tokens become vectors of width $D$ by one linear layer. Before them goes a learned *class token*: it has no patch, and collects what is needed for the answer. To each token its *position* is added, a learned vector too:
#
# $$t = [\,\mathrm{cls},\; E\,\mathrm{patch}_1,\; \dots,\; E\,\mathrm{patch}_N\,] + \mathrm{pos}, \qquad \text{shape } (B,\, 1 + N,\, D)$$


# %%
class ViTEmbedding(nn.Module):
    """Images (B, channels, size, size) to tokens (B, 1 + N, width), N = (size/patch)².

    project: nn.Linear with bias, for the patches of patchify. cls: nn.Parameter (1, 1, width),
    zeros at first. positions: nn.Parameter (1, 1 + N, width), at first normal with mean 0 and
    standard deviation 0.02. The class token is the first; it has a position too.
    """

    def __init__(self, channels, size, patch, width):
        # TODO: project, cls, positions.
        ### BEGIN SOLUTION
        super().__init__()
        self.patch = patch
        self.project = nn.Linear(channels * patch**2, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (size // patch) ** 2, width))
        ### END SOLUTION

    def forward(self, x):
        # TODO: one class token for each image, the projected patches, the positions.
        ### BEGIN SOLUTION
        tokens = self.project(patchify(x, self.patch))  # (B, N, D)
        cls = self.cls.expand(len(x), -1, -1)  # (B, 1, D)
        return torch.cat([cls, tokens], 1) + self.positions
        ### END SOLUTION


lab.check(ViTEmbedding)

# %% [markdown]
# The rest is given. In *attention* each token takes a weighted mean over all tokens; the weights, positive and with sum 1, come from comparing tokens with one another, several times side by side, in *heads*. How, you write yourself in *attention-basics*; here `nn.MultiheadAttention` does it. Attention and a small MLP are branches with a skip, as in your residual block, with layer norm in front.


# %%
class Encoder(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        wide, narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.mlp = nn.Sequential(wide, nn.GELU(), narrow)
        self.keep = None  # a list, for the picture below

    def forward(self, t):
        n, wanted = self.norm1(t), self.keep is not None
        a, weights = self.attention(n, n, n, need_weights=wanted, average_attn_weights=False)
        if wanted:
            self.keep.append(weights)  # (B, heads, 1 + N, 1 + N)
        t = t + a
        return t + self.mlp(self.norm2(t))


class ViT(nn.Module):
    def __init__(self, width=48, depth=4, heads=3, patch=4):
        super().__init__()
        self.embed = ViTEmbedding(C, H, patch, width)
        self.blocks = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.embed(x))[:, 0]))


vit = restore("vit", ViT().to(device))
blind = copy.deepcopy(vit)
nn.init.zeros_(blind.embed.positions)
reached["vit"] = accuracy(vit, x_test, y_test)
without = accuracy(blind, x_test[:1000], y_test[:1000])
print(f"ViT, test images: {reached['vit']:.1%}; its positions set to 0: {without:.1%}")

weights = vit.blocks[-1].keep = []
x = x_test[:8]
predict(vit, x)
vit.blocks[-1].keep = None
looks = weights[0][:, :, 0, 1:].mean(1).view(-1, 1, H // P, W // P)  # of the class token
looks = F.interpolate(looks, size=(H, W), mode="bilinear")
fig, axes = plt.subplots(2, 8, figsize=(8.8, 2.7), layout="constrained")
shown = zip(axes.T, x.cpu(), looks[:, 0].cpu(), y_test, strict=False)
for (above, below), image, look, label in shown:
    above.imshow(image.permute(1, 2, 0).squeeze(), cmap="gray")
    above.set_title(loaded.classes[label], size=8)
    picture = below.imshow(look * N, cmap="viridis", vmin=0, vmax=4)
    for ax in (above, below):
        ax.set(xticks=[], yticks=[])
fig.colorbar(picture, ax=axes[1], label="attention · N")
title = "Where the class token looks: at the legs of trousers, all over a pullover"
_ = fig.suptitle(title, size=11, weight="bold", x=0.01, ha="left")

# %% tags=["instructor"]
if SHIPPED:
    assert reached["vit"] > 0.84 and without < reached["vit"] - 0.1
assert torch.allclose(weights[0].sum(-1), torch.ones(()), atol=1e-4)

# %% [markdown]
# What has it learned about positions? Nobody told it that patch 8 lies below patch 1. The cosine between the vector of one position and all the others, for nine of them:

# %%
grid = H // P
positions = F.normalize(vit.embed.positions[0, 1:].detach().cpu(), dim=1)  # (N, D)
chosen = [r * grid + c for r in (1, 3, 5) for c in (1, 3, 5)]
maps = (positions[chosen] @ positions.T).view(-1, grid, grid)
names = [f"row {n // grid}, column {n % grid}" for n in chosen]
title = "A position is most like those above and below it, and its mirror image"
_ = plot.weights(maps.flatten(1), (grid, grid), names, columns=9, title=title, label="cosine")

# %% tags=["instructor"]
if SHIPPED:
    place = torch.stack(torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij"), -1)
    place = place.view(-1, 2).float()
    distance, alike = torch.cdist(place, place), positions @ positions.T
    near, far = alike[(distance > 0) & (distance < 1.1)].mean(), alike[distance > 3].mean()
    assert near > far + 0.1, "neighbours are alike"
    squares = alike.view(grid, grid, grid, grid)  # row, column, row, column
    above = torch.stack([squares[r, :, r + 1].diagonal() for r in range(grid - 1)]).mean()
    mirror = torch.stack([squares[r, :, r].fliplr().diagonal()[:3] for r in range(grid)]).mean()
    assert min(above, mirror) > far + 0.2, "above, below, mirrored"

# %% [markdown]
# **Question.** Shuffle the patches of each image, all in the same way. A ViT trained on such images: better, worse, or the same?
#
# <details><summary>Answer</summary>
#
# The same, but for chance: the learned positions are shuffled along. It is the experiment with the MLP and permuted pixels from *cnn-basics*, now with patches. Inside a patch the order still counts, in the same way as in an MLP.
#
# </details>

# %% [markdown]
# ## 10 · Which would you take? (7 min)
#
# Six networks, trained by the same program on the same 55,000 images. Three epochs each, the ViT six. For each, the best of three learning rates was chosen by validation before, for the baseline too: the small CNN of the last workshop. (Some of the best were the lowest or highest of the three: the logs show it.) Parameters, multiplications and accuracy are computed here, the last on 5,000 test images that no choice has seen; the seconds of training stand in the logs.


# %%
def small_cnn(w=16):
    side = (H + 1) // 2 // 2
    first, second = conv_norm_relu(C, w, 5, 2), conv_norm_relu(w, 2 * w)
    third, linear = conv_norm_relu(2 * w, 4 * w), nn.Linear(4 * w * side**2, 10)
    layers = *first, *second, nn.MaxPool2d(2), *third, nn.Flatten(), linear
    return nn.Sequential(*layers).to(device)


def count_macs(model):
    """Multiplications for one image: convolutions by your function, linear layers, attention."""
    seen, total = [], 0
    note = lambda layer, given, out: seen.append((layer, given[0].shape))  # noqa: E731
    hooks = [layer.register_forward_hook(note) for layer in model.modules()]
    predict(model, x_test[:1])
    for hook in hooks:
        hook.remove()
    for layer, shape in seen:
        if isinstance(layer, nn.Conv2d):
            total += conv_macs(layer, *shape[2:])
        elif isinstance(layer, nn.Linear):
            total += shape[:-1].numel() * layer.weight.numel()
        elif isinstance(layer, nn.MultiheadAttention):
            tokens, width = shape[1:]
            total += 4 * tokens * width**2 + 2 * tokens**2 * width
    return total


def separable_stage(n_in, n_out, stride):
    return separable(n_in, n_out, 3, stride)


WIDE = [(2 * n_in, 2 * n_out, stride) for n_in, n_out, stride in TWO]
contest = {"small-cnn": restore("small-cnn", small_cnn()), "residual": resnet, "dense": dense}
contest["separable"] = restore("separable", network(separable_stage, *WIDE))
contest |= {"mbconv": mbconv, "vit": vit}
table = {}
print("network     parameters  multiplications  ms/100 images  trained, s      test")
for name, model in contest.items():
    log = (CHECKPOINTS / f"{name}.txt").read_text() if SHIPPED else "computed 0 s\ntest"
    trained_for = int(re.findall(r"computed (\d+) s\ntest", log)[0])
    parameters = sum(p.numel() for p in model.parameters())
    ms = milliseconds(model, x_test[:100])
    score = reached.get(name) or accuracy(model, x_test, y_test)  # some were measured above
    macs = count_macs(model)
    table[name] = macs, trained_for, score
    print(f"{name:11} {parameters:10,} {macs:16,} {ms:14.0f} {trained_for:11} {score:9.1%}")
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
for n, (name, (macs, trained_for, score)) in enumerate(table.items()):
    for ax, cost in zip(axes, (macs / 1e6, trained_for), strict=True):
        style = {"color": plot.COLOURS[n], "marker": plot.MARKERS[n], "s": 60}
        ax.scatter(cost, 100 * score, label=name, **style)
axes[0].set(xlabel="million multiplications an image", ylabel="test accuracy (%)", xscale="log")
axes[0].set_xticks((1, 2, 4), (1, 2, 4))
axes[0].minorticks_off()
axes[1].set(xlabel="seconds of training (ViT six epochs, others three)")
axes[1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
title = "More expensive is not better: the dearest, the ViT, comes last"
_ = fig.suptitle(title, size=11, weight="bold", x=0.01, ha="left")

# %% tags=["instructor"]
if SHIPPED:
    scores = {name: score for name, (_, _, score) in table.items()}
    assert min(scores.values()) > 0.85 and min(scores, key=scores.get) == "vit"

# %% [markdown]
# And how they got there: loss on training and validation images, epoch by epoch, from the checkpoints.

# %%
if SHIPPED:
    shown = {}
    for name in ("small-cnn", "residual", "vit"):
        saved = torch.load(CHECKPOINTS / f"{name}.pt", weights_only=True, map_location="cpu")
        for part in ("train", "val"):
            shown[f"{name}_{part}"] = saved["history"][f"{part} loss"]
    title = "The ViT is behind from the first epoch on"
    ax = plot.curves(shown, ylabel="cross-entropy", title=title)
else:
    print(f"No histories for {DATASET}: compare_architectures.py --dataset {DATASET} makes them.")

# %% [markdown]
# **Question.** On large collections Vision Transformers win against convolutional networks. Why not here?
#
# <details><summary>Answer</summary>
#
# First the table. The old small CNN is hard to beat here: its linear layer has a weight for each place, while the other convolutional networks take the mean over the places, which costs points on centred images, as *cnn-basics* measured. EfficientNet's blocks come up to it with fewer multiplications and more seconds, the separable network comes close with fewer than half of its multiplications, in about as many milliseconds. Less than a point, with one seed, says little.
#
# Then the ViT. A convolution need not learn that neighbours belong together and that a thing looks the same everywhere: it is built in. The ViT has to learn it from images, as the maps of its positions show. With 55,000 small ones and minutes of one core, what is built in wins. Dosovitskiy et al. found the ViT ahead after training on far more than a million images before; that is the way that the next workshop goes.
#
# </details>

# %% [markdown]
# ## 11 · From notebook to program (10 min)
#
# [compare_architectures.py](compare_architectures.py) trained all that you loaded. Yours to write is `build`: it assembles any of its blocks to a network of any width and depth, as `network` did above for a fixed plan. By hand: width 12, depth 2 gives blocks 12→12, 12→12, 12→24 with stride 2, 24→24, 24→48 with stride 2, 48→48. In a terminal beside the notebook, in its folder (from the course's: `cd workshops/computer-vision/modern-cnns-resnet-densenet`):
#
#     atlas check build
#     python compare_architectures.py --table checkpoints/*.pt
#     python compare_architectures.py --network plain --depth 6 --limit 5000 --epochs 1 --batch-size 32 --lr 0.003
#
# The second makes the table anew, on all test images; the third trains a deep plain network in about 25 s: then the same with `--network residual`. The project in the [README](README.md) looks for the best network under a price.
#
# **What you built, and what it leaves open.** Blocks that let depth help, that save multiplications, that vanish after training, and a network without convolutions. All began from random weights, and the hungriest was hurt most. Others have trained such networks on a million photographs: their weights can be had. Next workshop: **transfer-learning**.
