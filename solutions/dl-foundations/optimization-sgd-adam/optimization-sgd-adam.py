# %% [markdown]
# # Optimization: SGD to AdamW
#
# In *perceptron-and-mlp* you trained with AdamW and a learning rate that rises and then falls, and took both on trust. Now you take them apart:
# you write SGD with momentum, RMSprop, Adam and AdamW, each equal to PyTorch's, measure how noisy a
# batch's gradient is, find a learning rate by experiment, and run a race in which every optimiser gets the same chance. All derivations are in the [README](README.md).

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import atlas
from atlas import plot

lab = atlas.open("optimization-sgd-adam")
fashion = atlas.data.load("fashion-mnist")
fashion

# %% [markdown]
# ## 1 · A step in a ravine (6 min)
#
# What to do with a gradient? The answer so far is *gradient
# descent*, $w \leftarrow w - \eta\, g$ with $g = \nabla L(w)$. Try it on the simplest landscape that shows its trouble, a *ravine*: steep across, flat along.
#
# $$L(w) = \tfrac12\,(\lambda_1 w_1^2 + \lambda_2 w_2^2), \qquad g = (\lambda_1 w_1,\ \lambda_2 w_2), \qquad \lambda_1 = 1,\ \lambda_2 = 25$$
#
# One step multiplies $w_i$ by $1 - \eta\lambda_i$, so after $t$ steps $w_i$ is $(1 - \eta\lambda_i)^t$ times what it was. It shrinks only if $|1 - \eta\lambda_i| < 1$, that is
# $\eta < 2/\lambda_i$. The steepest direction sets the limit: $\eta < 2/25 = 0.08$. The flattest sets the time: with $\eta = 0.07$, $w_1$ loses 7 % a step.

# %%
CURVATURE = torch.tensor([1.0, 25.0], dtype=torch.float64)
START = torch.tensor([-9.0, 1.5], dtype=torch.float64)


def walk(step, first, gradient, start, steps, **settings):
    """Follow an optimiser, step(w, g, state, **settings). Returns all points, (steps + 1, 2)."""
    w, state, points = start, first, [start]
    for _ in range(steps):
        w, state = step(w, gradient(w), state, **settings)
        points.append(w)
    return torch.stack(points)


def ravine_gradient(w):
    return CURVATURE * w


def ravine_loss(points):
    return 0.5 * (CURVATURE * points**2).sum(-1)


def descent_step(w, g, state, eta):
    return w - eta * g, state


def draw_paths(ax, paths, loss, xs, ys, title):
    """Contours of loss on a grid, and on top the paths, a dict of name to points (T, 2)."""
    x, y = np.meshgrid(np.linspace(*xs, 121), np.linspace(*ys, 121))
    heights = loss(torch.tensor(np.stack([x, y], -1))).numpy()
    ax.contour(x, y, heights, levels=14, colors="0.8", linewidths=0.7)
    for k, (name, points) in enumerate(paths.items()):
        inside = points.clamp(torch.tensor([xs[0], ys[0]]), torch.tensor([xs[1], ys[1]])).numpy()
        style = {"color": plot.COLOURS[k], "marker": plot.MARKERS[k], "markersize": 3}
        ax.plot(*inside.T, **style, label=name)
    ax.set(xlim=xs, ylim=ys, xlabel="w₁")
    ax.set_title(title, loc="left", size=10, weight="bold")


fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", sharey=True)
ends = {}
fates = {0.02: "creeps", 0.07: "zigzags, arrives", 0.081: "flies off"}
print(f"loss at the start {ravine_loss(START):.1f}")
for ax, (eta, says) in zip(axes, fates.items(), strict=True):
    points = walk(descent_step, None, ravine_gradient, START, 40, eta=eta)
    ends[eta] = ravine_loss(points[-1]).item()
    draw_paths(ax, {"": points}, ravine_loss, (-10, 3), (-4, 4), f"η = {eta}: {says}")
    print(f"after 40 steps with η = {eta}: {ends[eta]:.2f}")
_ = axes[0].set_ylabel("w₂")

# %% [markdown]
# **Question.** Which of the two coordinates makes η = 0.081 fail, and by what factor does it grow in a step? Which one makes η = 0.02 slow?
#
# <details><summary>Answer</summary>
#
# $w_2$: its factor is $1 - 0.081 \cdot 25 = -1.025$, so it changes sign in each step and grows by 2.5 %. With η = 0.02 it is $w_1$, whose factor is
# $0.98$: after 40 steps $0.98^{40} = 45$ % are left. No single η suits both. The ratio $\kappa = \lambda_2/\lambda_1$, the *condition number*, says how bad it is, and 25 is
# harmless.
#
# </details>

# %% tags=["instructor"]
assert ends[0.07] < 0.5 < ends[0.02] < 20
assert ends[0.081] > ravine_loss(START).item() * 1.4
w_slow = walk(descent_step, None, ravine_gradient, START, 40, eta=0.02)[-1, 0] / START[0]
assert abs(w_slow - 0.98**40) < 1e-9 and abs(w_slow - 0.45) < 0.005

# %% [markdown]
# ## 2 · Momentum (11 min)
#
# Across the ravine the gradient changes sign from step to step; along it, it stays. So add gradients up: what alternates cancels, what persists
# grows. The *velocity* $v$ starts at zero, and $\mu$ (often 0.9) says how much of it survives a step:
#
# $$v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta\, v$$
#
# Along a steady gradient $v$ grows to $g + \mu g + \mu^2 g + \dots = g/(1 - \mu)$, ten times $g$ for $\mu = 0.9$. *Nesterov's* variant steps along where the velocity is about to go. It uses the
# new velocity once more:
#
# $$v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta\,(g + \mu v)$$
#
# This is PyTorch's convention: η multiplies the velocity as a whole. (Other texts put η inside, $v \leftarrow \mu v - \eta g$, or damp the gradient, $(1 - \mu)\,g$, which needs an η ten times larger.)
#
# By hand: $w = 1$, $g = 2$, $v = 3$, $\eta = 0.1$, $\mu = 0.5$. The new $v = 1.5 + 2 = 3.5$. Plain: $w = 1 - 0.35 = 0.65$. Nesterov: $w = 1 - 0.1\,(2 + 1.75) = 0.625$.
#
# From here on every step is a *pure function*: it returns new weights and a new state, and changes nothing that it was given. Arrays are PyTorch tensors.


# %%
def momentum_step(w, g, v, eta, mu=0.9, nesterov=False):
    """One step of SGD with momentum, in PyTorch's convention.

    w, g, v: tensors of one shape, any: weights, gradient, velocity (zeros before the first step).
    eta: η, mu: μ. Returns (w, v), both new and of w's type: float32 stays float32. The tensors
    passed in stay as they are.
    """
    # TODO: the new velocity, then the step along it, or along g + μv with the new v for Nesterov.
    ### BEGIN SOLUTION
    v = mu * v + g
    return w - eta * (g + mu * v if nesterov else v), v
    ### END SOLUTION


lab.check(momentum_step)

# %%
ZERO = torch.zeros(2, dtype=torch.float64)
paths = {
    "plain, η = 0.07": walk(descent_step, None, ravine_gradient, START, 60, eta=0.07),
}
for name, nesterov in (("momentum 0.8, η = 0.03", False), ("Nesterov 0.8, η = 0.03", True)):
    settings = {"eta": 0.03, "mu": 0.8, "nesterov": nesterov}
    paths[name] = walk(momentum_step, ZERO, ravine_gradient, START, 60, **settings)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(1.3, 1))
title = "Momentum overshoots, Nesterov brakes earlier"
draw_paths(axes[0], paths, ravine_loss, (-10, 3), (-2.5, 2.5), title)
axes[0].set_ylabel("w₂")
axes[0].legend(frameon=False, fontsize=8, loc="upper right")
for (name, points), colour in zip(paths.items(), plot.COLOURS, strict=False):
    axes[1].semilogy(ravine_loss(points), color=colour)
    print(f"{name}: loss after 60 steps {ravine_loss(points[-1]):.1e}")
axes[1].set(xlabel="step", ylabel="loss")
_ = axes[1].set_title("Lower by orders of magnitude", loc="left", size=10, weight="bold")

# %% tags=["instructor"]
last = [ravine_loss(points[-1]).item() for points in paths.values()]
assert last[1] < last[0] / 10 and last[2] < last[1] / 10

# %% [markdown]
# **Question.** Someone changes from plain SGD with η = 0.1 to momentum 0.9 and keeps η. What happens to the size of the steps, and what should η be?
#
# <details><summary>Answer</summary>
#
# Where the gradient persists, the steps become $1/(1 - 0.9) = 10$ times longer. About the same pace has η = 0.01, as a first guess. Many a "momentum does not help" is an η that was not
# changed with it.
#
# </details>

# %% [markdown]
# ## 3 · RMSprop: a step size for each weight (8 min)
#
# In the ravine one wants a small η for $w_2$ and a large one for $w_1$. RMSprop (Hinton's lectures, 2012) divides each entry of the gradient by its own recent size,
# the root of a running mean of its squares:
#
# $$s \leftarrow \alpha s + (1 - \alpha)\, g^2, \qquad w \leftarrow w - \eta\, \frac{g}{\sqrt{s} + \varepsilon}$$
#
# All of it is entry by entry. $\varepsilon$ (PyTorch: $10^{-8}$) stands *outside* the root, where it keeps the fraction from being 0/0.
#
# By hand: $w = 1$, $g = 2$, $s = 9$, $\eta = 0.1$, $\alpha = 0.5$, $\varepsilon = 0.5$. The new $s = 4.5 + 2 = 6.5$, its root 2.550, and $w = 1 - 0.2/3.050 = 0.934$.


# %%
def rmsprop_step(w, g, s, eta, alpha=0.99, eps=1e-8):
    """One step of RMSprop, in PyTorch's convention.

    w, g, s: tensors of one shape, any: weights, gradient, running mean of squares (zeros before
    the first step). Returns (w, s), both new and of w's type.
    """
    # TODO: the new mean of squares, then the step, each entry divided by its own root plus ε.
    ### BEGIN SOLUTION
    s = alpha * s + (1 - alpha) * g**2
    return w - eta * g / (s.sqrt() + eps), s
    ### END SOLUTION


lab.check(rmsprop_step)

# %%
walks = {}
for curvature in (25.0, 2500.0):
    steep = torch.tensor([1.0, curvature], dtype=torch.float64)
    settings = {"eta": 0.1, "alpha": 0.9}
    walks[curvature] = walk(rmsprop_step, ZERO, lambda w, c=steep: c * w, START, 60, **settings)
first_moves = (walks[25.0][1] - START).tolist()
print("first step:", np.round(first_moves, 3))
difference = (walks[25.0] - walks[2500.0]).abs().max()
print(f"largest difference between the paths with λ₂ = 25 and with λ₂ = 2,500: {difference:.1e}")

# %% [markdown]
# **Question.** A hundred times steeper, and the path stays the same. Why? And why is the first step 0.316 in both coordinates, three times η?
#
# <details><summary>Answer</summary>
#
# A factor of 100 on $g_2$ is a factor of 100 on $\sqrt{s_2}$: it cancels (but for ε), and the ravine is no ravine. In the first step
# $s = (1 - \alpha)\, g^2 = 0.1\, g^2$, so $g/\sqrt{s} = \pm 1/\sqrt{0.1} = \pm 3.16$. The mean is still too small, for it began at zero. Adam repairs this.
#
# </details>

# %% tags=["instructor"]
assert np.allclose(np.abs(first_moves), 0.1 / 0.1**0.5, rtol=1e-5)
assert difference < 1e-5

# %% [markdown]
# ## 4 · Adam (13 min)
#
# Adam (Kingma and Ba, 2015) has both: a running mean $m$ of gradients, like momentum, and a running mean $v$ of squares, like RMSprop. (Here $v$ is the mean of squares, as in the paper.) Both begin at zero and are at first too small. How much too small is known: with a steady gradient $g$, after $t$ steps
#
# $$m_t = (1 - \beta_1) \sum_{i=1}^{t} \beta_1^{\,t-i}\, g = (1 - \beta_1^{\,t})\, g$$
#
# by the geometric series. So divide by $1 - \beta_1^{\,t}$, where the first step has $t = 1$. The same for $v$. In full:
#
# $$t \leftarrow t + 1, \qquad m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$
#
# $$\hat m = \frac{m}{1 - \beta_1^{\,t}}, \qquad \hat v = \frac{v}{1 - \beta_2^{\,t}}, \qquad w \leftarrow w - \eta\, \frac{\hat m}{\sqrt{\hat v} + \varepsilon}$$
#
# The state keeps $m$ and $v$ *uncorrected*; the corrected ones serve this step only.
#
# By hand: first step, $w = 1$, $g = 2$, $\beta_1 = 0.9$, $\beta_2 = 0.99$, $\eta = 0.1$, $\varepsilon = 0$. $m = 0.2$, $v = 0.04$; $\hat m = 0.2/0.1 = 2$, $\hat v = 0.04/0.01 = 4$, and
# $w = 1 - 0.1 \cdot 2/2 = 0.9$.


# %%
def adam_step(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """One step of Adam.

    w, g: tensors of one shape, any. state: (m, v, t), tensors like w and the number of steps taken
    so far; before the first step (zeros, zeros, 0).
    Returns (w, (m, v, t)), all new; the tensors are of w's type, float32 stays float32.
    """
    # TODO: count the step, the two running means, their corrected versions, and the step.
    ### BEGIN SOLUTION
    m, v, t = state
    t = t + 1
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return w - eta * m_hat / (v_hat.sqrt() + eps), (m, v, t)
    ### END SOLUTION


lab.check(adam_step)

# %% [markdown]
# See it on a *saddle*, where one direction goes up and another one down. $L = \frac12 w_1^2 + \frac14 w_2^4 - \frac12 w_2^2$ has a saddle at $(0, 0)$ and two minima at $w_2 = \pm 1$. We begin almost on the ridge,
# at $w_2 = 10^{-4}$, where the gradient in the only useful direction is over ten thousand times smaller than the other.


# %%
def saddle_gradient(w):
    return torch.stack([w[0], w[1] ** 3 - w[1]])


def saddle_loss(points):
    return 0.5 * points[..., 0] ** 2 + 0.25 * points[..., 1] ** 4 - 0.5 * points[..., 1] ** 2


near_ridge = torch.tensor([-1.5, 1e-4], dtype=torch.float64)
with_momentum = {"eta": 0.1, "mu": 0.8}
paths = {
    "SGD": walk(descent_step, None, saddle_gradient, near_ridge, 160, eta=0.1),
    "momentum 0.8": walk(momentum_step, ZERO, saddle_gradient, near_ridge, 160, **with_momentum),
    "Adam": walk(adam_step, (ZERO, ZERO, 0), saddle_gradient, near_ridge, 160, eta=0.1),
}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
title = "η = 0.1: SGD walks into the saddle, Adam past it"
draw_paths(axes[0], paths, saddle_loss, (-1.8, 0.9), (-0.4, 1.6), title)
axes[0].set_ylabel("w₂")
escape = {}
for (name, points), colour in zip(paths.items(), plot.COLOURS, strict=False):
    axes[1].semilogy(points[:, 1].abs(), color=colour, label=name)
    escape[name] = int((points[:, 1] > 0.5).nonzero()[0, 0])
axes[1].set(xlabel="step", ylabel="distance from the ridge, |w₂|")
axes[1].legend(frameon=False, fontsize=8, loc="lower right")
axes[1].set_title("Adam's step ignores how small a gradient is", loc="left", size=10, weight="bold")
print("steps until w₂ > 0.5:", escape)

# %% [markdown]
# **Question.** SGD's line on the right is straight for some 90 steps. What is its slope, and why does Adam not need that time? When would Adam's eagerness hurt?
#
# <details><summary>Answer</summary>
#
# Near the saddle SGD multiplies $w_2$ by $1 + \eta = 1.1$ a step: from $10^{-4}$ to 0.5 takes $\log 5000/\log 1.1 \approx 89$ steps. Adam divides the gradient by its own size, so its first steps have length η however small the
# gradient is. It hurts where small gradients are only noise: Adam magnifies them to the same step. Near a minimum it never comes to rest unless η falls.
#
# </details>

# %% tags=["instructor"]
assert escape == {"SGD": 91, "momentum 0.8": 38, "Adam": 6}  # no chance in it; README, INSTRUCTOR

# %% [markdown]
# ## 5 · AdamW: decay set apart (9 min)
#
# *Weight decay* pulls every weight towards zero, by $\eta\lambda w$ a step (the next workshop asks what it is good for). For SGD that is the same as adding $\frac{\lambda}{2}\lVert w \rVert^2$ to the loss, whose gradient is $\lambda w$. For Adam it is
# not: a $\lambda w$ inside $g$ is divided by $\sqrt{\hat v}$ with the rest, so weights with large gradients hardly decay. AdamW (Loshchilov and Hutter, 2019) keeps the decay out of $m$ and $v$:
#
# $$w \leftarrow w - \eta\lambda w - \eta\, \frac{\hat m}{\sqrt{\hat v} + \varepsilon}$$
#
# with the old $w$ in both places on the right, and $\hat m$, $\hat v$ from the pure gradient. By hand, the step above with $\lambda = 0.5$: $w = 1 - 0.05 - 0.1 = 0.85$.


# %%
def adamw_step(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    """One step of AdamW: Adam with decoupled weight decay.

    lam: the decay λ, the rest as in adam_step. Returns (w, (m, v, t)), all new.
    """
    # TODO: Adam's step on the pure gradient (call adam_step), and the decay of the old w besides.
    ### BEGIN SOLUTION
    stepped, state = adam_step(w, g, state, eta, beta1, beta2, eps)
    return stepped - eta * lam * w, state
    ### END SOLUTION


lab.check(adamw_step)

# %% [markdown]
# An experiment: two weights get nothing but noise as gradient, of standard deviation 0.1 and 10. Only the decay acts on average. Both begin at 1; with λ = 0.1 and η = 0.01 they should fall like $0.999^t$.


# %%
def decayed(coupled, steps=3000, eta=0.01, lam=0.1, copies=400):
    """Mean path of weights whose gradients are noise of size 0.1 and of 10. Returns (steps, 2)."""
    generator = torch.Generator().manual_seed(0)
    w = torch.ones(copies, 2)
    state, means = (torch.zeros_like(w), torch.zeros_like(w), 0), []
    for _ in range(steps):
        g = torch.randn(copies, 2, generator=generator) * torch.tensor([0.1, 10.0])
        if coupled:
            w, state = adam_step(w, g + lam * w, state, eta)
        else:
            w, state = adamw_step(w, g, state, eta, lam=lam)
        means.append(w.mean(0))
    return torch.stack(means)


coupled, decoupled = decayed(True), decayed(False)
ax = plot.curves(
    {
        "AdamW, noise 0.1": decoupled[:, 0],
        "AdamW, noise 10": decoupled[:, 1],
        "Adam + L2, noise 0.1": coupled[:, 0],
        "Adam + L2, noise 10": coupled[:, 1],
    },
    xlabel="step",
    ylabel="mean weight",
    title="AdamW decays all weights alike; through the gradient, the decay depends on the noise",
)
for name, path in (("AdamW", decoupled), ("Adam + L2", coupled)):
    print(f"{name:9} left after 1,000 steps:", path[999].numpy().round(2))

# %% tags=["instructor"]
assert np.allclose(decoupled[999], 0.999**1000, atol=0.05)
assert abs(coupled[999, 0]) < 0.1, "little noise: decays far too fast"
assert coupled[999, 1] > 0.8, "much noise: hardly decays"

# %% [markdown]
# **Question.** Inside $g$ the decay becomes $\lambda w/\sqrt{\hat v}$. With that, explain both "Adam + L2" curves. Which noise makes coupled and decoupled decay equal?
#
# <details><summary>Answer</summary>
#
# $\sqrt{\hat v}$ is about the gradient's size. For noise 10 the decay comes out ten times too slow; for noise 0.1 about ten times too fast. Only where the noise has size 1 do both agree: with coupled decay each weight has another λ.
#
# </details>

# %% [markdown]
# **Break.** After it: real data.

# %% [markdown]
# ## 6 · The noise of a batch (11 min)
#
# Now real data: Fashion-MNIST, 70,000 photographs of clothes in ten classes (Xiao, Rasul and Vollgraf, 2017; licence MIT). We train on 10,000.

# %%
device = lab.device
images, test_images = (
    torch.tensor(x, dtype=torch.float32, device=device).flatten(1)  # (N, 784)
    for x in (fashion.x_train, fashion.x_test)
)
labels, y_test = (torch.tensor(y, device=device) for y in (fashion.y_train, fashion.y_test))
MEAN, SPREAD = images[:10_000].mean(), images[:10_000].std()  # of the training images only
images, x_test = (images - MEAN) / SPREAD, (test_images - MEAN) / SPREAD
x_train, y_train = images[:10_000], labels[:10_000]
x_val, y_val = images[50_000:55_000], labels[50_000:55_000]
names = [fashion.classes[k] for k in fashion.y_train[:10]]
plot.images(fashion.x_train[:10], names, columns=10, title="The first ten training images")

# %% [markdown]
# SGD never sees the gradient $\bar g$ of all examples, only the mean over $B$ of them, drawn at random. How far off is it? Let $g_i$, shape (P,), be the gradient for example $i$ alone. Each entry of $g_i$ has a variance $\sigma_p^2$ over
# the examples; a mean of $B$ independent draws has variance $\sigma_p^2/B$. The squared distance $\lVert g_B - \bar g \rVert^2$ adds up over entries, so on average
#
# $$\text{noise}(B) = \sqrt{\mathbb E\, \lVert g_B - \bar g \rVert^2} = \sqrt{\frac{\sum_p \sigma_p^2}{B}}, \qquad \sigma_p^2 = \frac{1}{N-1} \sum_i (g_{ip} - \bar g_p)^2$$
#
# By hand: three examples, $P = 2$, gradients $(1, 0)$, $(3, 0)$, $(5, 3)$. Their variances are $(4 + 0 + 4)/2 = 4$ and $(1 + 1 + 4)/2 = 3$, so noise(1) = √7 = 2.646 and noise(4) = 1.323.


# %%
def gradient_noise(G, B):
    """How far the mean gradient of B random examples is from the mean of all.

    G: (N, P), one example's gradient in each row. B: size of the batch.
    Returns the root of the mean squared distance, a number (or a tensor that holds one).
    """
    # TODO: the variance of each column (divide by N - 1), added up, divided by B, and its root.
    ### BEGIN SOLUTION
    return (G.var(0, correction=1).sum() / B).sqrt()
    ### END SOLUTION


lab.check(gradient_noise)

# %% [markdown]
# Compute the gradients of 1,000 examples one by one (`torch.func.vmap` does it at once) for a small network, then draw batches and measure.


# %%
def make_model(width=128, seed=0):
    """An MLP: images (B, 784) to logits (B, 10)."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10)).to(device)


def example_gradients(model, x, y):
    """The gradient for each example by itself, (N, P)."""

    def loss(parameters, one, label):
        logits = torch.func.functional_call(model, parameters, (one[None],))
        return nn.functional.cross_entropy(logits, label[None])

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    return torch.cat([g.flatten(1) for g in gradients.values()], 1)


G = example_gradients(make_model(16), x_train[:1000], y_train[:1000])  # (1000, 12730)
sizes = [1, 4, 16, 64, 256, 1024]
generator = torch.Generator().manual_seed(0)
measured = []
for B in sizes:
    drawn = torch.randint(len(G), (40, B), generator=generator)  # 40 batches, with replacement
    share = torch.zeros(40, len(G)).scatter_add_(1, drawn, torch.ones(40, B)) / B  # of each example
    measured.append((share.to(device) @ G - G.mean(0)).square().sum(1).mean().sqrt().item())
expected = [float(gradient_noise(G, B)) for B in sizes]
slope = np.polyfit(np.log(sizes), np.log(measured), 1)[0]
critical = float(gradient_noise(G, 1) ** 2 / G.mean(0).square().sum())

ax = plot.curves(
    {"measured": (sizes, measured), "predicted": (sizes, expected)},
    xlabel="batch size B",
    ylabel="distance from the full gradient",
    xscale="log",
    yscale="log",
    title=f"Measured slope {slope:.2f}: four times the batch, half the noise",
)
ax.axhline(G.mean(0).norm().item(), color="0.4", linestyle=":")
ax.text(1, 1.1 * G.mean(0).norm().item(), "length of the full gradient", size=9, color="0.3")
print(f"noise and gradient are equally long at B = {critical:.0f}, before training")

# %% [markdown]
# **Question.** From B = 64 to B = 256 the noise halves, and the work quadruples. When is that a good bargain? What do you expect of the crossing point later in training?
#
# <details><summary>Answer</summary>
#
# Where noise is longer than the gradient (left of the crossing), the batch mostly points at random, and a larger one buys direction. To the right, more examples buy little: more steps would be
# better. Later the gradient gets small and the examples disagree, so the crossing moves to the right: large batches pay late (McCandlish et al., 2018). The other way to less noise is a smaller η, which averages over
# steps: this is why rates fall towards the end.
#
# </details>

# %% tags=["instructor"]
assert abs(slope + 0.5) < 0.04, slope
assert np.allclose(measured, expected, rtol=0.25)
assert 2 < critical < 60, critical

# %% [markdown]
# ## 7 · Which learning rate, and when? (15 min)
#
# One loop for all your steps: they have the same first four arguments.


# %%
def adam_start(w):
    return torch.zeros_like(w), torch.zeros_like(w), 0


OPTIMISERS = {  # name: (first state, step, settings)
    "SGD": (torch.zeros_like, momentum_step, {"mu": 0.0}),
    "momentum": (torch.zeros_like, momentum_step, {}),
    "Nesterov": (torch.zeros_like, momentum_step, {"nesterov": True}),
    "RMSprop": (torch.zeros_like, rmsprop_step, {}),
    "Adam": (adam_start, adam_step, {}),
    "AdamW": (adam_start, adamw_step, {"lam": 0.1}),
}


@torch.no_grad()
def evaluate(model, x, y):
    """Mean loss and accuracy."""
    logits = model(x)
    right = logits.argmax(1) == y
    return nn.functional.cross_entropy(logits, y).item(), right.float().mean().item()


def train(optimiser, rate_at, steps, seed=0, batch_size=128, change=None, every=None):
    """Train a new network on the 10,000 images with your steps.

    rate_at(t): the learning rate of step t = 0, 1, ...; change(t, x, gradients) may replace a batch
    or gradients. Returns the model and a history: losses of all batches, and validation results
    after each `every` steps.
    """
    start, step, settings = OPTIMISERS[optimiser]
    model = make_model(seed=seed)
    parameters = list(model.parameters())
    states = [start(w) for w in parameters]
    history = {"loss": [], "val": [], "train": [], "at": []}
    batches = []
    for t in range(steps):
        batches = batches or list(torch.randperm(len(x_train)).to(device).split(batch_size))
        batch = batches.pop()
        x = x_train[batch] if change is None else change(t, x=x_train[batch])
        loss = nn.functional.cross_entropy(model(x), y_train[batch])
        gradients = torch.autograd.grad(loss, parameters)
        gradients = gradients if change is None else change(t, gradients=gradients)
        with torch.no_grad():
            for i, (w, g) in enumerate(zip(parameters, gradients, strict=True)):
                new, states[i] = step(w, g, states[i], rate_at(t), **settings)
                w.copy_(new)
        history["loss"].append(loss.item())
        if every and (t + 1) % every == 0:
            history["at"].append(t + 1)
            history["train"].append(evaluate(model, x_train[:5000], y_train[:5000]))
            history["val"].append(evaluate(model, x_val, y_val))
    return model, history


# %% [markdown]
# **The range test** (Smith, 2017): let η grow by a constant factor from step to step, from far too small to far too large, and watch the loss. It takes one short run.


# %%
def range_test(optimiser, low, high, steps=150):
    """Train with a rate that grows geometrically. Returns the rates and the losses, (steps,)."""
    rates = np.geomspace(low, high, steps)
    _, history = train(optimiser, lambda t: float(rates[t]), steps)
    return rates, np.array(history["loss"])


def smooth(losses, beta=0.9):
    """Adam's corrected running mean, here for a curve."""
    mean, result = 0.0, []
    for t, loss in enumerate(losses, 1):
        mean = beta * mean + (1 - beta) * loss
        result.append(mean / (1 - beta**t))
    return np.array(result)


fig, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained", sharey=True)
lowest, falls = {}, {}
for ax, (optimiser, span) in zip(axes, {"SGD": (1e-3, 30), "Adam": (1e-6, 1)}.items(), strict=True):
    rates, losses = range_test(optimiser, *span)
    curve = smooth(np.nan_to_num(losses, nan=1e3, posinf=1e3))
    lowest[optimiser], falls[optimiser] = rates[curve.argmin()], rates[(curve < 1.8).argmax()]
    ax.semilogx(rates, losses, color="0.75", linewidth=1)
    ax.semilogx(rates, curve, color=plot.COLOURS[0])
    ax.axvline(lowest[optimiser], color=plot.COLOURS[1], linestyle=":")
    ax.set(xlabel="learning rate η", ylim=(0, 4))
    ax.set_title(f"{optimiser}: lowest at η = {lowest[optimiser]:.2g}", loc="left", weight="bold")
axes[0].set_ylabel("loss of the batch")
print("the smoothed loss passes 1.8 at", {name: f"{rate:.1e}" for name, rate in falls.items()})

# %% [markdown]
# Where the curve is lowest, η is already at the edge: a bit more and it diverges. A third of it, or less, is a good guess for a constant rate. And the two curves are shifted: Adam's loss begins to fall at a rate more than ten times smaller than SGD's.
# Whoever compares them at one rate compares nothing.
#
# **The schedule.** High rates travel fast, low rates settle (section 6 says why). So begin high and end low. At the very start, though, Adam's $\hat v$ rests on one or two gradients: let η rise for some steps, the *warm-up*. With
# $T$ steps, $t = 0, \dots, T-1$, of which $W$ are warm-up:
#
# $$\eta_t = \begin{cases} \eta_{\max}\, \dfrac{t + 1}{W} & t < W \\[2ex] \eta_{\min} + (\eta_{\max} - \eta_{\min})\, \dfrac{1 + \cos(\pi u)}{2}, \quad u = \dfrac{t - W}{T - W} & t \ge W \end{cases}$$
#
# $t + 1$, because a first step at rate 0 would be wasted. By hand, $T = 10$, $W = 2$, $\eta_{\max} = 1$, $\eta_{\min} = 0.2$: $\eta_0 = 0.5$, $\eta_1 = 1$, $\eta_2 = 1$, and $\eta_6 = 0.2 + 0.8 \cdot \frac12 = 0.6$.


# %%
def warmup_cosine(t, steps, warmup, eta_max, eta_min=0.0):
    """The learning rate of step t: linear warm-up, then a falling half-wave of a cosine.

    t: 0, ..., steps - 1. steps: T, warmup: W with 0 <= W < T. Returns a number.
    """
    # TODO: two cases. math is not imported; np.cos and np.pi are.
    ### BEGIN SOLUTION
    if t < warmup:
        return eta_max * (t + 1) / warmup
    progress = (t - warmup) / (steps - warmup)
    return eta_min + (eta_max - eta_min) * (1 + np.cos(np.pi * progress)) / 2
    ### END SOLUTION


lab.check(warmup_cosine)

# %% [markdown]
# Four schedules, with the same optimiser and the same highest rate, on purpose rather high. About 10 s.

# %%
EPOCH = -(-len(x_train) // 128)  # 79 steps
STEPS, PEAK = 4 * EPOCH, 5e-3


def one_cycle(t):
    """Up to the peak and down again in two half-waves, as torch's OneCycleLR."""
    top = int(0.3 * STEPS)
    low, u = (PEAK / 25, 1 - t / top) if t < top else (0, (t - top) / (STEPS - top))
    return low + (PEAK - low) * (1 + np.cos(np.pi * u)) / 2


SCHEDULES = {
    "constant": lambda t: PEAK,
    "step": lambda t: PEAK * 0.1 ** (t // (STEPS // 2)),
    "warm-up + cosine": lambda t: float(warmup_cosine(t, STEPS, STEPS // 10, PEAK)),
    "one-cycle": one_cycle,
}
runs, final = {}, {}
print("schedule            loss   accuracy  (validation, mean of two seeds)")
for name, rate_at in SCHEDULES.items():
    runs[name] = [train("Adam", rate_at, STEPS, seed, every=EPOCH)[1] for seed in (0, 1)]
    final[name] = np.mean([run["val"][-1] for run in runs[name]], 0)
    print("{:18} {:6.3f} {:9.1%}".format(name, *final[name]))

fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
rates = {name: [rate_at(t) for t in range(STEPS)] for name, rate_at in SCHEDULES.items()}
plot.curves(rates, xlabel="step", ylabel="learning rate η", title="Four schedules", ax=axes[0])
losses = {
    f"{short}_{split}": [loss for loss, _ in runs[name][0][split]]
    for short, name in (("constant", "constant"), ("cosine", "warm-up + cosine"))
    for split in ("train", "val")
}
plot.curves(losses, ylabel="loss", title="A rate that falls lets the loss settle", ax=axes[1])

# %% tags=["instructor"]
for name in ("step", "warm-up + cosine", "one-cycle"):
    assert final[name][0] < final["constant"][0] - 0.01, "a rate that falls is better than this constant one"
assert falls["SGD"] > 10 * falls["Adam"]
assert all(falls[name] < lowest[name] for name in falls)

# %% [markdown]
# **Question.** The three schedules that fall end close together. What would you have to do before you called one of them the best?
#
# <details><summary>Answer</summary>
#
# Give each its own best peak, and enough seeds to know the spread. What is solid here is only: at this peak, falling beats not falling.
#
# </details>

# %% [markdown]
# ## 8 · Clipping (8 min)
#
# One bad batch can undo an hour of training: its gradient is a hundred times longer, and the step with it. *Clipping by norm* (Pascanu, Mikolov and Bengio, 2013) limits the length of the whole gradient, all tensors together, and keeps its direction:
#
# $$n = \sqrt{\sum_k \lVert g_k \rVert^2}, \qquad g_k \leftarrow g_k \cdot \min\!\left(1, \frac{c}{n}\right)$$
#
# By hand: $g_1 = (3)$, $g_2 = (0, 4)$, $c = 2$. $n = \sqrt{9 + 16} = 5$, the factor is $0.4$: $(1.2)$ and $(0, 1.6)$. With $c = 10$ nothing changes.


# %%
def clip_by_norm(gradients, max_norm):
    """Scale gradients so that their joint norm is at most max_norm.

    gradients: a list of tensors of any shapes. Returns the new list, of the same shapes and types,
    and the norm before clipping.
    """
    # TODO: one norm over all tensors, one factor for all. All-zero gradients stay zeros.
    ### BEGIN SOLUTION
    norm = sum((g**2).sum() for g in gradients) ** 0.5
    factor = max_norm / norm if norm > max_norm else 1.0
    return [g * factor for g in gradients], norm
    ### END SOLUTION


lab.check(clip_by_norm)

# %% [markdown]
# An accident that happens: in step 100 a batch arrives that nobody scaled. Its pixels are a hundred times too large.

# %%
norms = {"unclipped": [], "clipped at 2": []}


def accident(name):
    def change(t, x=None, gradients=None):
        if x is not None:
            return 100 * x if t == 100 else x
        clipped, norm = clip_by_norm(gradients, 2.0)
        norms[name].append(float(norm))
        return clipped if name == "clipped at 2" else gradients

    return change


after = {}
for name in norms:
    _, history = train("momentum", lambda t: 0.03, 200, change=accident(name))
    after[name] = history["loss"]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for (name, losses), colour in zip(after.items(), plot.COLOURS, strict=False):
    axes[0].semilogy(losses, color=colour, label=name)
    axes[1].semilogy(norms[name], color=colour, label=name)
    print(f"{name:12} mean loss of the 50 steps after: {np.mean(losses[101:151]):.2f}")
axes[0].set(xlabel="step", ylabel="loss of the batch")
axes[1].set(xlabel="step", ylabel="gradient norm, unclipped")
axes[0].legend(frameon=False, fontsize=9, loc="upper left")
axes[0].set_title("One bad batch, with and without clipping", loc="left", size=10, weight="bold")
_ = axes[1].set_title("One gradient is far longer", loc="left", size=10, weight="bold")

# %% tags=["instructor"]
assert norms["clipped at 2"][100] > 50 * np.median(norms["clipped at 2"][50:100])
assert np.mean(after["clipped at 2"][101:150]) < 0.8 < 3 < np.mean(after["unclipped"][101:150])

# %% [markdown]
# **Question.** Would Adam have needed the clipping? Think of what one huge $g$ does to $m$ and to $v$, and for how long.
#
# <details><summary>Answer</summary>
#
# The step itself is tame: $m$ and $\sqrt v$ grow together, to $(1 - \beta_1)\,|g| = 0.1\,|g|$ and $\sqrt{1 - \beta_2}\,|g| = 0.03\,|g|$, a step of about 3 η. But $v$ remembers: with $\beta_2 = 0.999$ for a thousand steps, all of them tiny. Clipping helps Adam too.
#
# </details>

# %% [markdown]
# ## 9 · A fair race (6 min)
#
# First the race as it is often run: everybody with η = 0.001, "the default".

# %%
RACE = 3 * EPOCH


def race(optimiser, rate, seed=0):
    """Three epochs with warm-up and cosine. Returns the model and its validation accuracy."""
    model, _ = train(optimiser, lambda t: warmup_cosine(t, RACE, RACE // 10, rate), RACE, seed)
    return model, evaluate(model, x_val, y_val)[1]


unfair = {name: race(name, 1e-3)[1] for name in OPTIMISERS}
print("all with η = 0.001:", {name: f"{accuracy:.0%}" for name, accuracy in unfair.items()})

# %% [markdown]
# RMSprop and Adam win by far, and it means nothing. The fair race: each gets **five rates**, a factor of about three apart, around where a range test points; the best on validation images is kept, and must not lie at the end of its list. Thirty trainings, about 20 s.

# %%
GRID = {
    "SGD": (0.03, 0.1, 0.3, 1.0, 3.0),
    "momentum": (0.003, 0.01, 0.03, 0.1, 0.3),
    "Nesterov": (0.003, 0.01, 0.03, 0.1, 0.3),
    "RMSprop": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "Adam": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "AdamW": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
}
search, best = {}, {}
for name, rates in GRID.items():
    search[name] = [race(name, rate)[1] for rate in rates]
    best[name] = rates[int(np.argmax(search[name]))]
    print(f"{name:10} best η {best[name]:5g}: validation accuracy {max(search[name]):.1%}")

apart = max(best.values()) / min(best.values())
ax = plot.curves(
    {name: (GRID[name], 100 * np.array(search[name])) for name in GRID},
    xlabel="highest learning rate η",
    ylabel="validation accuracy (%)",
    xscale="log",
    title=f"Tuned, all reach about the same height, at rates up to {apart:.0f} times apart",
)
_ = ax.set_ylim(65, 90)

# %% [markdown]
# Now the final: best rate, three new seeds, measured once on the test images. Plain SGD, tuned with the same budget, is the baseline. About 12 s.

# %%
finals = {}
print("optimiser    test, three seeds")
for name, rate in best.items():
    models = [race(name, rate, seed)[0] for seed in (1, 2, 3)]
    finals[name] = [evaluate(model, x_test, y_test)[1] for model in models]
    print(f"{name:10} {np.mean(finals[name]):8.1%} ± {np.std(finals[name], ddof=1):.1%}")

# %% tags=["instructor"]
means = {name: np.mean(scores) for name, scores in finals.items()}
assert all(mean > 0.81 for mean in means.values())
assert max(means.values()) - min(means.values()) < 0.035, "tuned, they are within about two points"
assert all(best[name] not in (rates[0], rates[-1]) for name, rates in GRID.items()), "no best at the end of its list"
assert best["SGD"] > 5 * best["Adam"]
assert max(unfair.values()) - unfair["SGD"] > 0.3, "the unfair race"

# %% [markdown]
# **Question.** Write the honest sentence about this race. What does it not say?
#
# <details><summary>Answer</summary>
#
# "On 10,000 images, three epochs, an MLP with 128 hidden neurons and five rates each, the tuned optimisers lie within about two points; with one rate for all it was over thirty." The seeds spread by a few tenths, so the largest gaps are more than luck for *this* setting, and neighbours in the table are level.
# It does not say that the order is the same elsewhere: in Transformers plain SGD falls clearly behind; with long training and convolutions
# SGD with momentum is often as good or better. Nor does it say anything about momentum, betas or decay, which nobody tuned here. A real difference shows in the plot: how *wide* the good range of rates is, that is how little tuning is needed.
#
# </details>

# %% [markdown]
# ## 10 · From notebook to program (8 min)
#
# [lr_finder.py](lr_finder.py) runs a range test, picks a rate, trains with it, and draws both. The pick is yours to write, `suggest_rate`: smooth the losses with Adam's corrected mean, find the lowest, step back from the edge.
#
# Open the script, fill in the TODO, and in a terminal beside the notebook, in its folder (from the course's: `cd workshops/dl-foundations/optimization-sgd-adam`):
#
#     atlas check suggest_rate
#     python lr_finder.py --optimiser adamw
#     python lr_finder.py --resume --epochs 10
#
# **What you built, and what it leaves open.** Five optimisers equal to PyTorch's, a schedule, clipping, a measurement of noise, and a race that says only what it can. All of it lowers the *training* loss. That is not what we want in the end: in your curves the validation loss stalls while the training loss still falls.
# And weight decay, which AdamW does so carefully: what is it for? Next workshop: **regularization-dropout-batchnorm**.
