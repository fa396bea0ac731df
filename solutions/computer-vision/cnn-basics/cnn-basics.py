# %% [markdown]
# # CNN Basics
#
# You build a convolutional network from nothing: convolution by loops, then as one product over a view, pooling, the receptive field, a small CNN, and a way to ask it where it looks. Derivations are in the [README](README.md).

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import atlas
from atlas import plot

DATASET = "fashion-mnist"  # or "cifar10", after: atlas data fetch cifar10

lab = atlas.open("cnn-basics")
loaded = atlas.data.load(DATASET, fetch=False)
loaded

# %% [markdown]
# ## 1 · An MLP does not know its neighbours (6 min)
#
# The images are Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017; licence MIT), as tensors (N, C, H, W) in 0…1: image, channel, row, column. We train on the first 10,000, so that nobody waits long; the last 5,000 are for validation.

# %%
device = atlas.device()


def as_tensor(images):
    x = torch.tensor(images, device=device)  # (N, H, W), or (N, H, W, 3) in colour
    return (x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)) / 255  # (N, C, H, W)


x_train, y_train = as_tensor(loaded.x_train[:10_000]), torch.tensor(loaded.y_train[:10_000])
x_val, y_val = as_tensor(loaded.x_train[-5000:]), torch.tensor(loaded.y_train[-5000:])
x_test, y_test = as_tensor(loaded.x_test), torch.tensor(loaded.y_test)
y_train, y_val, y_test = (y.to(device) for y in (y_train, y_val, y_test))
C, H, W = x_train.shape[1:]


@torch.no_grad()
def accuracy(model, x, y):
    model.eval()
    return torch.cat([model(part) for part in x.split(1000)]).argmax(1).eq(y).float().mean().item()


def train(model, x, y, epochs, rate, seed=0, batch_size=128, watch=None):
    """AdamW with one-cycle. watch: (x, y), measured after each half epoch.

    Returns the seconds of computing and, for each of them, the accuracy on what is watched.
    """
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    batches = [b for _ in range(epochs) for b in torch.randperm(len(x)).split(batch_size)]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, len(batches), pct_start=0.2)
    seconds, scores, begin = [], [], time.process_time()
    for n, batch in enumerate(batches, 1):
        model.train()
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if watch and n % (len(batches) // (2 * epochs)) == 0:
            seconds.append(time.process_time() - begin)
            scores.append(accuracy(model, *watch))
            begin = time.process_time() - seconds[-1]  # looking does not count
    return seconds, scores


def make_mlp(seed=0, width=256):
    torch.manual_seed(seed)
    layers = nn.Flatten(), nn.Linear(C * H * W, width), nn.ReLU(), nn.Linear(width, 10)
    return nn.Sequential(*layers).to(device)


# %% [markdown]
# Now shuffle the pixels: one permutation, the same for every image. To you they are noise. To an MLP?

# %%
order = torch.randperm(H * W, generator=torch.Generator().manual_seed(1))


def permuted(x):
    return x.flatten(2)[:, :, order].view_as(x)


mlp, mlp_permuted = make_mlp(), make_mlp()
half = x_train[:5000], y_train[:5000]
train(mlp, *half, 3, 1e-2)
train(mlp_permuted, permuted(half[0]), half[1], 3, 1e-2)
plain, shuffled = accuracy(mlp, x_val, y_val), accuracy(mlp_permuted, permuted(x_val), y_val)
eight = torch.cat([x_train[:8], permuted(x_train[:8])]).cpu()
title = f"An MLP reads both rows equally well: {plain:.1%} and {shuffled:.1%}"
_ = plot.images(eight, columns=8, title=title)

# %% tags=["instructor"]
if DATASET == "fashion-mnist":
    assert plain > 0.79 and abs(plain - shuffled) < 0.03, "the MLP does not care"

# %% [markdown]
# **Question.** Why does it not care? Think of what the first layer's weights could do.
#
# <details><summary>Answer</summary>
#
# Every hidden neuron has one weight for each pixel. Permute the columns of $W_1$ as the pixels are permuted, and each $z$ is the same. The network cannot know which pixels are neighbours, and has to learn from examples what you see at once.
#
# </details>

# %% [markdown]
# ## 2 · Convolution, by loops (10 min)
#
# Two assumptions about images: what is near belongs together, and a thing looks the same wherever it is. So let each neuron look at a small *window*, and let all windows share their weights. Those weights are a *kernel* $w$ of shape $(O, C, k_h, k_w)$, for $O$ output channels:
#
# $$z_{o,i,j} = b_o + \sum_{c=1}^{C} \sum_{u=0}^{k_h - 1} \sum_{v=0}^{k_w - 1} w_{o,c,u,v}\; x_{c,\,i+u,\,j+v}$$
#
# Strictly this is *cross-correlation*: mathematics' convolution turns the kernel by 180°. In deep learning nobody turns it, for it is learned anyway.
#
# By hand: $x = \begin{pmatrix} 1 & 2 & 0 \\ 0 & 1 & 3 \end{pmatrix}$, $w = \begin{pmatrix} 1 & -1 \\ 2 & 0 \end{pmatrix}$, $b = 0.5$: the left window gives $1 - 2 + 0 + 0 + 0.5 = -0.5$, the right one $2 - 0 + 2 + 0 + 0.5 = 4.5$.


# %%
def conv2d(x, weight, bias):
    """The convolution (cross-correlation) of one image, without padding, stride 1.

    x: (C, H, W), weight: (O, C, kh, kw) with kh <= H and kw <= W, bias: (O,), tensors of one dtype.
    Returns (O, H - kh + 1, W - kw + 1), of that dtype.
    """
    # TODO: loop over the places (o, i, j); at each, the sum over a window of all channels.
    ### BEGIN SOLUTION
    out, _, kh, kw = weight.shape
    _, H, W = x.shape
    z = torch.empty(out, H - kh + 1, W - kw + 1, dtype=x.dtype)
    for o in range(out):
        for i in range(H - kh + 1):
            for j in range(W - kw + 1):
                z[o, i, j] = (weight[o] * x[:, i : i + kh, j : j + kw]).sum() + bias[o]
    return z
    ### END SOLUTION


lab.check(conv2d)

# %% [markdown]
# Four kernels by hand, on one image: two edges, a blur, and what is left of the image without the blur.

# %%
edge = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
blur = torch.full((3, 3), 1 / 9)
centre = torch.zeros(3, 3)
centre[1, 1] = 1
kernels = torch.stack([edge, edge.T, blur, centre - blur])[:, None]  # (4, 1, 3, 3)
grey = x_train[0].cpu().mean(0, keepdim=True)  # (1, H, W)
maps = conv2d(grey, kernels, torch.zeros(4))
names = "horizontal edges", "vertical edges", "blurred", "without the blur"
each = maps / maps.abs().amax((1, 2), keepdim=True)
title = "Each kernel answers to one thing"
_ = plot.weights(each.flatten(1), tuple(each.shape[1:]), names, title=title, label="z / max")

# %% [markdown]
# **Question.** The first kernel is positive above and negative below. Where is its map red, where blue, and why is it white inside?
#
# <details><summary>Answer</summary>
#
# Red (positive) where it is brighter above than below: at lower edges; blue at upper edges. Where all nine pixels are alike the sum is 0, for the kernel's weights add up to 0. The blur's add up to 1, so it keeps what is even.
#
# </details>

# %% [markdown]
# ## 3 · Stride, padding, size (6 min)
#
# Two settings more. *Padding* $p$: a frame of zeros, $p$ wide on both sides. *Stride* $s$: only every $s$-th window counts. The last window begins at $n + 2p - k$ at most, and windows begin at $0, s, 2s, \dots$, so
#
# $$n' = \left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1$$
#
# By hand: $n = 28$, $k = 5$, $s = 2$, $p = 2$: $\lfloor 27/2 \rfloor + 1 = 14$. With $p = 0$, $s = 1$: $24$.


# %%
def output_size(size, kernel, stride=1, padding=0):
    """How many windows of a kernel fit along one axis.

    All are whole numbers; size >= 1, kernel >= 1, stride >= 1, padding >= 0. Returns an int.
    Raises ValueError where the kernel is longer than the padded axis: not one window fits.
    """
    # TODO: the formula above in whole numbers, and the error.
    ### BEGIN SOLUTION
    room = size + 2 * padding - kernel
    if room < 0:
        raise ValueError(f"a kernel of {kernel} does not fit into {size} + 2·{padding}")
    return room // stride + 1
    ### END SOLUTION


lab.check(output_size)

# %%
size = H
layers = ("5×5, stride 2", 5, 2, 2), ("3×3", 3, 1, 1), ("pool", 2, 2, 0)
for name, kernel, stride, padding in layers:
    after = output_size(size, kernel, stride, padding)
    print(f"{name:13} padding {padding}: {size:2} → {after}")
    size = after

# %% [markdown]
# ## 4 · All windows, one product (12 min)
#
# In *tensors-and-autograd* you wrote `windows`: all $k \times k$ windows as a view, with `as_strided`, nothing copied. `x.unfold(axis, k, s)` is the same for one axis: windows of length $k$, $s$ apart, in a new last axis. Unfold rows, then columns, and the six-fold loop becomes one `einsum` over a view $V$ of shape $(B, C, H', W', k_h, k_w)$:
#
# $$z_{b,o,i,j} = b_o + \sum_{c,u,v} V_{b,c,i,j,u,v}\; w_{o,c,u,v}$$
#
# From now on there is a batch, and stride and padding are pairs: first down, then across.


# %%
def conv2d_windows(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    """The convolution of a batch, without loops; gradients flow to x, weight and bias.

    x: (B, C, H, W), weight: (O, C, kh, kw), bias: (O,) or None for none.
    stride: (down, across), padding: (rows of zeros above and below, columns left and right).
    Returns (B, O, H', W').
    """
    # TODO: pad (F.pad counts from the last axis), a view of all windows, one einsum, the bias.
    ### BEGIN SOLUTION
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    V = x.unfold(2, weight.shape[2], stride[0]).unfold(3, weight.shape[3], stride[1])
    z = torch.einsum("bcijuv,ocuv->boij", V, weight)  # V: (B, C, H', W', kh, kw)
    return z if bias is None else z + bias[:, None, None]
    ### END SOLUTION


lab.check(conv2d_windows)

# %% [markdown]
# What does it cost? One layer of the network to come: 32 images, 16 → 32 channels, 14 × 14, $k = 3$. *im2col* copies the windows into a matrix and leaves the rest to a matrix product.


# %%
def by_kernel_loops(x, weight):
    """One product for each of the kernel's k·k places."""
    h, w = x.shape[2] - 2, x.shape[3] - 2
    parts = [
        torch.einsum("bchw,oc->bohw", x[:, :, u : u + h, v : v + w], weight[:, :, u, v])
        for u in range(3)
        for v in range(3)
    ]
    return sum(parts)


def im2col(x, weight):
    columns = F.unfold(x, 3)  # (B, C·9, H'·W'), a copy
    return (weight.flatten(1) @ columns).view(len(x), len(weight), x.shape[2] - 2, -1)


def milliseconds(run, times=5):
    run()
    begin = time.process_time()
    for _ in range(times):
        run()
    return 1000 * (time.process_time() - begin) / times


x_layer, w_layer = torch.rand(32, 16, 14, 14), torch.rand(32, 16, 3, 3).requires_grad_()
ways = {"loops over the kernel": by_kernel_loops, "your windows": conv2d_windows}
ways |= {"im2col": im2col, "F.conv2d": F.conv2d}
cost = {}
with torch.no_grad():
    one = milliseconds(lambda: conv2d(x_layer[0], w_layer, torch.zeros(32)), times=1)
print(f"{'way':22} forward, ms   and backward\n{'your loops, 32 images':22} {32 * one:11.0f}")
for name, way in ways.items():
    with torch.no_grad():
        forward = milliseconds(lambda way=way: way(x_layer, w_layer))
    cost[name] = forward, milliseconds(lambda way=way: way(x_layer, w_layer).sum().backward())
    print(f"{name:22} {cost[name][0]:11.1f} {cost[name][1]:14.1f}")
fig, ax = plt.subplots(figsize=(7, 2.2), layout="constrained")
ax.barh(list(cost), [both for _, both in cost.values()], color=plot.COLOURS[0])
ax.invert_yaxis()
ax.set(xlabel="forward and backward, ms for 32 images")
title = "The same numbers; PyTorch's own way is the cheapest"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert all(torch.allclose(way(x_layer, w_layer), F.conv2d(x_layer, w_layer), rtol=1e-4) for way in ways.values())
assert 32 * one > 20 * cost["F.conv2d"][0], "loops in Python cost far more"

# %% [markdown]
# **Question.** The view copies nothing. Why is `einsum` over it not the cheapest?
#
# <details><summary>Answer</summary>
#
# A fast matrix product wants numbers side by side. `einsum` has to copy the view into a matrix after all, nearly seven times the size of $x$ here ($9 \cdot 144/196$): it is im2col in disguise. `F.conv2d` works on pieces small enough for the processor's cache and never makes the big matrix. From here on we use `nn.Conv2d`; you know what is in it.
#
# </details>

# %% [markdown]
# ## 5 · Pooling (8 min)
#
# *Max pooling* keeps the largest entry of each window, channel by channel, usually with $k = s = 2$. Two details decide whether yours is like PyTorch's. Padding must never win, so it is $-\infty$ and not 0. And where two entries tie, the gradient goes to *one* owner, the first in reading order. Ties are common: black background, and ReLU's zeros.
#
# By hand: the window $\begin{pmatrix} 2 & 5 \\ 5 & 1 \end{pmatrix}$ gives 5; a gradient of 1 goes to the upper right, and 0 to the others.


# %%
def max_pool2d(x, kernel, stride=None, padding=0):
    """Max pooling; gradients flow to the first largest entry of each window.

    x: (B, C, H, W). kernel, stride, padding: whole numbers, the same for both axes; stride=None
    means stride = kernel; padding <= kernel/2. Returns (B, C, H', W').
    """
    # TODO: pad, unfold, and the largest of each window: x.max(axis).values has one owner.
    ### BEGIN SOLUTION
    stride = stride or kernel
    x = F.pad(x, [padding] * 4, value=-torch.inf)
    V = x.unfold(2, kernel, stride).unfold(3, kernel, stride)  # (B, C, H', W', k, k)
    return V.flatten(4).max(4).values
    ### END SOLUTION


lab.check(max_pool2d)

# %%
fig, axes = plt.subplots(1, 4, figsize=(9, 2.7), layout="constrained")
strength = maps[:1].abs()[None]  # (1, 1, H', W')
for ax, kernel in zip(axes, (1, 2, 4, 8), strict=True):
    pooled = max_pool2d(strength, kernel)[0, 0]
    ax.imshow(pooled, cmap="gray")
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"k = {kernel}: {pooled.shape[0]} × {pooled.shape[1]}", size=10)
_ = fig.suptitle("Pooling keeps that there is an edge and forgets where", size=11, weight="bold")

# %% [markdown]
# **Question.** `amax` gives the same values as `max(...).values`. What is different on a black background?
#
# <details><summary>Answer</summary>
#
# The gradient: `amax` shares it among all that tie, a quarter for each of four. Both are subgradients, and training works with both. But a network trained in one framework and continued in another then takes slightly different steps.
#
# </details>

# %% [markdown]
# **Break.**

# %% [markdown]
# ## 6 · The receptive field (7 min)
#
# How much of the image does one entry deep in the network see? Go through the layers in order. Call $r$ what one entry sees, in pixels of the image, and $j$ the distance of two neighbouring entries there. At the input $r = 1$, $j = 1$. A window of $k$ entries adds $k - 1$ steps of length $j$, and a stride multiplies the distance for those that come after:
#
# $$r \leftarrow r + (k - 1)\,j, \qquad j \leftarrow j\, s$$
#
# By hand: $5 \times 5$ with stride 2, then $3 \times 3$: $r = 1 + 4 = 5$, $j = 2$; $r = 5 + 2 \cdot 2 = 9$.


# %%
def receptive_field(layers):
    """The side of the square of input pixels that one entry after these layers sees.

    layers: a list of (kernel, stride), convolutions and poolings from the input on; may be empty.
    Returns an int.
    """
    # TODO: the two rules, layer by layer; which comes first?
    ### BEGIN SOLUTION
    r, j = 1, 1
    for kernel, stride in layers:
        r += (kernel - 1) * j
        j *= stride
    return r
    ### END SOLUTION


lab.check(receptive_field)

# %% [markdown]
# Counted, and measured: the gradient of one entry in the middle with respect to the image is nonzero exactly where it sees. Two hundred random networks of the kind we are about to build, average pooling in them, so that no path is cut off.

# %%
counted = receptive_field([(5, 2), (3, 1), (2, 2), (3, 1)])
torch.manual_seed(0)
total = torch.zeros(40, 40)
for _ in range(200):
    convs = nn.Conv2d(1, 4, 5, 2, 2), nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 1, 3, 1, 1)
    net = nn.Sequential(convs[0], nn.Tanh(), convs[1], nn.Tanh(), nn.AvgPool2d(2), convs[2])
    image = torch.rand(1, 1, 40, 40, requires_grad=True)
    (slope,) = torch.autograd.grad(net(image)[0, 0, 5, 5], image)
    total += slope[0, 0].abs() / 200
seen = total.any(1).sum().item(), total.any(0).sum().item()
middle = total[14:29, 14:29].sum() / total.sum()
fig, ax = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
picture = ax.imshow(total, cmap="viridis")
fig.colorbar(picture, label="mean |∂z/∂x|")
ax.set(xlabel="column", ylabel="row")
title = f"Counted {counted}, measured {seen[0]} × {seen[1]};\nthe inner 15 × 15 hold {middle:.0%}"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert seen == (counted, counted) == (19, 19)

# %% [markdown]
# ## 7 · From LeNet to a small CNN (14 min)
#
# LeNet-5 (LeCun, Bottou, Bengio and Haffner, 1998) set the pattern: convolution, pooling, convolution, pooling, then an MLP; maps get smaller, channels more. Here is one with ReLU. Yours is newer in three ways: batch norm, a stride in the first layer so that all that follows is cheap, and one linear layer at the end.
#
# | layer | out, for $(1, 28, 28)$ and width $w$ |
# |---|---|
# | conv $5 \times 5$, stride 2, padding 2, no bias; batch norm; ReLU | $(w, 14, 14)$ |
# | conv $3 \times 3$, padding 1, no bias; batch norm; ReLU | $(2w, 14, 14)$ |
# | max pool $2 \times 2$ | $(2w, 7, 7)$ |
# | conv $3 \times 3$, padding 1, no bias; batch norm; ReLU | $(4w, 7, 7)$ |
# | flatten (or with `mean=True` the mean of each map); linear with bias | $(10)$ |


# %%
class SmallCNN(nn.Module):
    """The network of the table.

    channels, size: the images are (B, channels, size, size), size >= 4, not always a multiple of 4.
    classes: of the output. width: w. mean: average each of the 4w maps before the linear layer.
    Attributes: features, an nn.Sequential of the 10 layers before the flattening in the table's
    order; head, the nn.Linear. forward returns logits, (B, classes).
    """

    def __init__(self, channels=1, size=28, classes=10, width=16, mean=False):
        # TODO: features and head. output_size says how many numbers the head gets.
        ### BEGIN SOLUTION
        super().__init__()

        def block(n_in, n_out, kernel, stride):
            conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
            return conv, nn.BatchNorm2d(n_out), nn.ReLU()

        self.features = nn.Sequential(
            *block(channels, width, 5, 2),
            *block(width, 2 * width, 3, 1),
            nn.MaxPool2d(2),
            *block(2 * width, 4 * width, 3, 1),
        )
        self.mean = mean
        side = output_size(output_size(size, 5, 2, 2), 2, 2)
        self.head = nn.Linear(4 * width * (1 if mean else side**2), classes)
        ### END SOLUTION

    def forward(self, x):
        # TODO: features, mean or flatten, head.
        ### BEGIN SOLUTION
        maps = self.features(x)  # (B, 4w, H', W')
        return self.head(maps.mean((2, 3)) if self.mean else maps.flatten(1))
        ### END SOLUTION


lab.check(SmallCNN)

# %% [markdown]
# The race, with seconds of computing beside accuracy. The MLP is the baseline, and it is tuned: the best of three rates. About 20 s.


# %%
def make_lenet():
    torch.manual_seed(0)
    convs = [nn.Conv2d(C, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    convs += [nn.Conv2d(6, 16, 5), nn.ReLU()]
    side = (H // 2 - 4) // 2
    full = nn.Linear(16 * side**2, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
    return nn.Sequential(*convs, nn.MaxPool2d(2), nn.Flatten(), *full).to(device)


def make_cnn(seed=0, **settings):
    torch.manual_seed(seed)
    return SmallCNN(C, H, 10, **settings).to(device, memory_format=torch.channels_last)


runs = {f"MLP, η = {rate:g}": (make_mlp, 4, rate) for rate in (3e-3, 1e-2, 3e-2)}
runs |= {"LeNet": (make_lenet, 2, 1e-2), "small CNN": (make_cnn, 2, 1e-2)}
trained, curves = {}, {}
print("                 parameters  seconds  validation")
for name, (make, epochs, rate) in runs.items():
    trained[name] = make()
    watch = x_val[:2000], y_val[:2000]
    curves[name] = train(trained[name], x_train, y_train, epochs, rate, watch=watch)
    n, (seconds, scores) = sum(p.numel() for p in trained[name].parameters()), curves[name]
    print(f"{name:16} {n:11,} {seconds[-1]:8.1f} {scores[-1]:11.1%}")

mlps = [name for name in runs if name.startswith("MLP")]
best_mlp = max(mlps, key=lambda name: curves[name][1][-1])
shown = {name: curves[name] for name in (best_mlp, "LeNet", "small CNN")}
ax = plot.curves(
    {name: (seconds, 100 * np.array(scores)) for name, (seconds, scores) in shown.items()},
    xlabel="seconds of computing",
    ylabel="validation accuracy (%)",
    title="The MLP is first at once, the CNN in the end",
)

# %% tags=["instructor"]
if DATASET == "fashion-mnist":
    assert curves["small CNN"][1][-1] > max(0.845, curves[best_mlp][1][-1] - 0.005)

# %% [markdown]
# Does the CNN need the neighbours? The permuted pixels again, for a CNN of half the width. Then the same two networks with few images, two draws of each. About 15 s.

# %%
narrow = {}
for name, change in (("intact", lambda x: x), ("permuted", permuted)):
    model = make_cnn(width=8)
    train(model, change(x_train[:6000]), y_train[:6000], 2, 1e-2)
    narrow[name] = accuracy(model, change(x_val[:3000]), y_val[:3000])
    print(f"CNN, {name:8} pixels: {narrow[name]:.1%}")

COUNTS = (100, 300, 1000, 2000)
MAKERS = {"MLP": (make_mlp, 3e-3), "CNN": (lambda seed: make_cnn(seed, width=8), 1e-2)}
few = {"MLP": [], "CNN": []}
print("\nimages       MLP      CNN")
for n in COUNTS:
    for name, (make, rate) in MAKERS.items():
        scores = []
        for seed in (0, 1):
            model, part = make(seed), slice(3000 * seed, 3000 * seed + n)
            epochs = 4000 // n  # as many steps for all
            train(model, x_train[part], y_train[part], epochs, rate, seed, batch_size=50)
            scores.append(accuracy(model, x_val[:1000], y_val[:1000]))
        few[name].append(np.mean(scores))
    print(f"{n:6} {few['MLP'][-1]:9.1%} {few['CNN'][-1]:8.1%}")
ax = plot.curves(
    {name: (COUNTS, 100 * np.array(scores)) for name, scores in few.items()},
    xlabel="training images",
    ylabel="validation accuracy (%)",
    xscale="log",
    title="The convolution's assumptions pay once there are some hundred images",
)

# %% tags=["instructor"]
if DATASET == "fashion-mnist":
    assert narrow["permuted"] < narrow["intact"] - 0.008, "the CNN does care"
    assert few["CNN"][-1] > few["MLP"][-1], "with 2,000 images"

# %% [markdown]
# **Question.** With permuted pixels the CNN loses, but not everything. What is it still able to use?
#
# <details><summary>Answer</summary>
#
# Which pixels are bright. Its windows hold pixels that have nothing to do with one another, yet the linear layer at the end still sees every place by itself, as an MLP does. What it loses is the advantage.
#
# </details>

# %% [markdown]
# ## 8 · Where does it look? (10 min)
#
# Two epochs on 10,000 images are a demonstration. [classify_images.py](classify_images.py) trained the same network on 55,000 for longer and left [checkpoints/cnn.pt](checkpoints/cnn.pt), with [its log](checkpoints/cnn.txt) beside it: command, seed, seconds. Its weights go into *your* class.


# %%
CHECKPOINTS = lab.workshop.folder / "checkpoints"


def from_checkpoint(name, **settings):
    """Your SmallCNN with the weights of a checkpoint of Fashion-MNIST."""
    model = SmallCNN(**settings)
    saved = torch.load(CHECKPOINTS / f"{name}.pt", weights_only=True, map_location="cpu")
    model.load_state_dict(saved["model"])
    return model.to(device).eval()


if DATASET == "fashion-mnist":
    cnn = from_checkpoint("cnn")
    reached = accuracy(cnn, x_test, y_test)
    print(f"from the checkpoint, all 10,000 test images: {reached:.2%}")
else:
    cnn = trained["small CNN"]
    print(f"The checkpoint is for Fashion-MNIST. With {DATASET}: the CNN that was trained above.")
short = {name: accuracy(trained[name], x_test, y_test) for name in (best_mlp, "small CNN")}
for name, score in short.items():
    print(f"trained above, {name}: {score:.2%}")
kernels = cnn.features[0].weight.detach()  # (16, C, 5, 5)
title = "The first layer has learned edges and spots of its own"
_ = plot.weights(kernels.mean(1).flatten(1), (5, 5), columns=8, title=title)

# %% tags=["instructor"]
if DATASET == "fashion-mnist":
    assert reached >= 0.91, "the promise: at least 91 % from the learner's own CNN"
    assert 0.84 < short["small CNN"] < reached - 0.02
    assert short["small CNN"] > short[best_mlp] + 0.004, "on the test images"

# %% [markdown]
# *Occlusion* (Zeiler and Fergus, 2014) asks where a network looks: cover a patch, and see how much of the probability of one class is lost.


# %%
def occlusion_map(model, image, label, patch=7, stride=3, fill=0.0):
    """How much probability of a class is lost where a square is covered.

    model: in evaluation mode, maps (B, C, H, W) to logits (B, K). image: (C, H, W). label: a class.
    The square has side `patch`, all channels of it are set to `fill`; it lies wholly inside, its
    upper left corner at rows and columns 0, stride, 2·stride, ...
    Returns p(label | image) - p(label | covered image) for each place, (rows, columns), without
    gradient.
    """
    # TODO: probabilities, not logits; the image itself stays as it is.
    ### BEGIN SOLUTION
    _, H, W = image.shape
    rows, columns = output_size(H, patch, stride), output_size(W, patch, stride)
    covered = image.repeat(rows * columns, 1, 1, 1)  # (rows·columns, C, H, W)
    for n in range(rows * columns):
        top, left = stride * (n // columns), stride * (n % columns)
        covered[n, :, top : top + patch, left : left + patch] = fill
    with torch.no_grad():
        whole = model(image[None]).softmax(1)[0, label]
        p = model(covered).softmax(1)[:, label]
    return (whole - p).view(rows, columns)
    ### END SOLUTION


lab.check(occlusion_map)

# %%
with torch.no_grad():
    right = torch.nonzero(cnn(x_test[:300]).argmax(1) == y_test[:300])[:, 0].tolist()
first = {int(y_test[n]): n for n in reversed(right)}  # of each class the first that is right
chosen = [first[k] for k in sorted(first)][-6:]
fig, axes = plt.subplots(2, len(chosen), figsize=(9, 3.3), layout="constrained", squeeze=False)
for (above, below), n in zip(axes.T, chosen, strict=True):
    lost = occlusion_map(cnn, x_test[n], int(y_test[n])).cpu()
    above.imshow(x_test[n].cpu().permute(1, 2, 0).squeeze(), cmap="gray")
    shown = below.imshow(lost, cmap="RdBu_r", vmin=-1, vmax=1)
    above.set_title(loaded.classes[y_test[n]], size=9)
    for ax in (above, below):
        ax.set(xticks=[], yticks=[])
fig.colorbar(shown, ax=axes[1], label="probability lost")
_ = fig.suptitle("Few places decide about some, many about others", size=11, weight="bold")

# %% [markdown]
# Inside: what the layers make of one image, eight channels of each.

# %%
z, stages = x_test[chosen[-1]][None], []
with torch.no_grad():
    for n, layer in enumerate(cnn.features):
        z = layer(z)
        if n in (2, 5, 9):  # after each ReLU
            small = F.interpolate(z[:, :8], size=(28, 28))  # to one size, for drawing
            stages.append(small[0] / small[0].amax((1, 2), keepdim=True).clamp(min=1e-6))
title = "From outlines (first row) to few bright places (last row)"
_ = plot.images(torch.cat(stages), columns=8, title=title)

# %% [markdown]
# ## 9 · What moves along, what stays (5 min)
#
# Move the image by $s$ pixels, one stride, and a convolution's map moves by one entry: it is *equivariant*. Nothing makes the class stay the same, *invariant*, for the linear layer has a weight for each place. The mean over all places would forget them; training with moved images would teach it. Two more checkpoints, [cnn-mean](checkpoints/cnn-mean.txt) and [cnn-shift](checkpoints/cnn-shift.txt).


# %%
def moved(x, by):
    """x moved to the right by so many columns, zeros come in."""
    return F.pad(x, (by, 0))[..., : x.shape[-1]]


with torch.no_grad():
    before, after = (cnn.features[0](moved(x_test[:8], by)) for by in (0, 2))
inside = (before[..., 2:-3] - after[..., 3:-2]).abs().max().item()
print(f"moved by 2 pixels, map moved by 1: largest difference {inside:.0e}")
candidates = {"MLP": trained[best_mlp], "CNN": cnn}
if DATASET == "fashion-mnist":
    candidates["CNN, mean"] = from_checkpoint("cnn-mean", mean=True)
    candidates["CNN, trained with shifts"] = from_checkpoint("cnn-shift")
SHIFTS = range(0, 9, 2)
robust = {
    name: [accuracy(model, moved(x_test[:1000], by), y_test[:1000]) for by in SHIFTS]
    for name, model in candidates.items()
}
for name, scores in robust.items():
    print(f"{name:25}" + "".join(f"{score:8.1%}" for score in scores))
ax = plot.curves(
    {name: (list(SHIFTS), 100 * np.array(scores)) for name, scores in robust.items()},
    xlabel="moved to the right by (pixels)",
    ylabel="test accuracy (%)",
    title="Convolution alone does not make a network indifferent to shifts",
)

# %% tags=["instructor"]
assert inside < 1e-5
if DATASET == "fashion-mnist":
    assert robust["MLP"][2] < 0.5 and robust["CNN"][2] < 0.7
    assert robust["CNN, trained with shifts"][2] > robust["CNN"][2] + 0.2
    assert robust["CNN, mean"][2] > robust["CNN"][2]

# %% [markdown]
# **Question.** Move the image by one pixel. Is the first map moved by half an entry?
#
# <details><summary>Answer</summary>
#
# There is no half entry: with stride 2 the windows then hold other pixels, and the map is another one. Equivariance holds for multiples of the product of strides, here 4 at the end, and away from the edges, where padding tells a network where it is.
#
# </details>

# %% [markdown]
# ## 10 · From notebook to program (12 min)
#
# [classify_images.py](classify_images.py) trains this network with moved and mirrored images. Yours to write is `augment`, without a loop over images. By hand: moved down by 1 with shift 2, row $i$ comes from row $i - 1 + 2$ of the padded picture, and `padded[n, c, rows, cols]` takes index tensors that broadcast to (B, C, H, W). The command that trains takes some minutes; `--epochs 1` shortens it. In a terminal beside the notebook, in its folder (from the course's: `cd workshops/computer-vision/cnn-basics`):
#
#     atlas check augment
#     python classify_images.py --flip --shift 2
#     python classify_images.py --form form.png
#
# The last draws a form filled in by hand, as photographed: the project in the [README](README.md) reads it.
#
# **What you built, and what it leaves open.** Convolution, pooling, a receptive field and a network that is right in 91 of 100 cases. Deeper would see more, but plainly stacked layers get worse, not better. Next workshop: **modern-cnns-resnet-densenet**.
