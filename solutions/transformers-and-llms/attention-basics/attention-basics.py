# %% [markdown]
# # Attention Basics
#
# The decoder of the last workshop could look anywhere at once, and letters were still read one after the other. Now letters ask each other, all at the same time, and nothing walks. You write attention for any shapes, find out what the walking had been good for, build a head by hand and then the whole layer, and watch two layers learn an algorithm in seconds. Derivations are in the [README](README.md).

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from watch_copy import LENGTH, TOKENS, copies, right

import atlas
from atlas import plot

lab = atlas.open("attention-basics")
device = atlas.device()


def show(ax, weights, title, xlabel="key, looked at", ylabel="query, that asks"):
    """Weights (T, S) as an image, from white, 0, to blue, 1."""
    ax.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_title(title, loc="left", size=10)


# %% [markdown]
# ## 1 · A dictionary that answers by similarity (7 min)
#
# A Python dictionary compares what you ask for, the *query*, with its *keys*, and gives the *value* of the one that is equal. If none is, it gives nothing. A soft one gives each value the weight that its key deserves: the weighted mean comes back, always, and a small change of the query changes the answer a little.
#
# Real data: the sea's temperature at station B01 in the Gulf of Maine, daily means (source NERACOOS, licence LicenseRef-NERACOOS: what the provider's own notice says). Keys are the days of every third measurement, values their temperatures; we ask for the days between. Similar is near in time, by a Gaussian of width $h$ days:
#
# $$ \hat y(t) = \sum_s \alpha_s v_s, \qquad \alpha_s \propto \exp\Bigl(-\frac{(t - k_s)^2}{2h^2}\Bigr) $$
#
# By hand: keys 0 and 3 with values 10 and 16, $h = 2$, asked for day 1: $e^{-1/8} : e^{-4/8} = 0.882 : 0.607$, so weights 0.593 and 0.407, answer 12.4 °C. Nadaraya and Watson found this in 1964.

# %%
sea = atlas.data.load("sea-temperature")
days = np.asarray(sea.times, "datetime64[D]")
t = np.unique(days)
y = np.array([sea.values[days == day].mean() for day in t], dtype=float)
t = (t - t[0]).astype(float)
keys, values, asked, truth = t[::3], y[::3], np.delete(t, np.s_[::3]), np.delete(y, np.s_[::3])


def look_up(asked, keys, values, h):
    """Gaussian weights over distance in time, and the weighted mean."""
    scores = -((asked[:, None] - keys) ** 2) / (2 * h**2)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return weights @ values


widths = 0.5, 1, 2, 4, 8, 16, 32
errors = [np.abs(look_up(asked, keys, values, h) - truth).mean() for h in widths]
straight = np.abs(np.interp(asked, keys, values) - truth).mean()
print(f"{len(keys)} keys, {len(asked)} days asked for")
print(f"straight lines between keys: mean error {straight:.3f} °C")
for h, error in zip(widths, errors, strict=True):
    print(f"h = {h:4} days: mean error {error:.3f} °C")
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
part = (t > 100) & (t < 160)
axes[0].plot(t[part], y[part], ".", color=plot.COLOURS[-1], label="measured")
for h, colour in zip((0.5, 2, 16), plot.COLOURS, strict=False):
    axes[0].plot(t[part], look_up(t[part], keys, values, h), color=colour, label=f"h = {h}")
axes[0].set(xlabel="day", ylabel="temperature (°C)")
axes[0].legend(frameon=False, ncols=2, fontsize=8)
axes[1].plot(widths, errors, "o-", color=plot.COLOURS[0], label="look-up")
axes[1].axhline(straight, color=plot.COLOURS[1], ls="--", label="straight lines")
axes[1].set(xlabel="width h (days)", ylabel="mean error (°C)", xscale="log", ylim=(0, None))
axes[1].set_xticks(widths, widths)
axes[1].minorticks_off()
axes[1].legend(frameon=False)
title = "Too narrow copies the nearest key, too wide forgets the day"
_ = fig.suptitle(title, size=11, weight="bold", x=0.02, ha="left")

# %% tags=["instructor"]
assert int(np.argmin(errors)) in (1, 2) and errors[0] > min(errors) < errors[-1] / 2

# %% [markdown]
# **Question.** What do $h \to 0$ and $h \to \infty$ give? And is the look-up better than straight lines between the keys?
#
# <details><summary>Answer</summary>
#
# The value of the nearest key, and the plain mean of all. $1/h^2$ multiplies the scores before the softmax, as the sharpness $\beta$ of the last workshop did. And no: at its best width it comes close to straight lines, which are hard to beat for a smooth curve. Here we chose it, and what "similar" means, too. From now on both are learned: queries and keys are computed, by matrices.
#
# </details>
#
# ## 2 · Everything asks everything (11 min)
#
# In the last workshop a decoder's state asked, and letters answered. In *self-attention* there is one sequence, $X$ of $T$ tokens and width $D$, and each token does all three: by $Q = XW_Q$ it asks, by $K = XW_K$ it offers itself, by $V = XW_V$ it answers. All at once, it is three lines (Vaswani et al., 2017):
#
# $$ \text{attention}(Q, K, V) = A V, \qquad A = \text{softmax}\Bigl(\frac{QK^\top}{\sqrt D}\Bigr) $$
#
# ![Self-attention: X is multiplied by W_Q, W_K and W_V; Q times K transposed over the root of D makes T × S scores, mask and softmax make weights, weights times V make the output.](figures/attention.svg)
#
# $Q$: $(T, D)$, $K$: $(S, D)$, $V$: $(S, E)$, weights $(T, S)$; $T \ne S$ if queries come from elsewhere. What stands in front of these two axes, such as $(B, H)$, is a batch. The root you derived in *attention-for-sequences*, and `masked_softmax` you wrote there. Here it is again, for any mask that broadcasts, True for *may be looked at*.
#
# By hand: one query $(2, 0)$, keys $(1, 1)$ and $(0, 1)$, values 10 and 20: scores $2/\sqrt 2 = 1.414$ and 0, weights 0.804 and 0.196, output 11.96.


# %%
def masked_softmax(scores, mask=None):
    """Softmax over the last axis; weight 0 where the mask is False, and for all of an empty row."""
    if mask is None:
        return scores.softmax(-1)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask


def attention(q, k, v, mask=None):
    """Scaled dot-product attention.

    q: (..., T, D), k: (..., S, D), v: (..., S, E), floating, of one dtype; ... are any axes, the
    same for all three. mask: None, or bool of a shape that broadcasts to (..., T, S), True where a
    query may look. Nothing that is given is changed.
    Returns (output, weights): output (..., T, E), weights (..., T, S), of that dtype. Weights are
    the softmax of q · k / sqrt(D) over the keys that may be looked at; where a query may look at
    none its weights, and its output, are 0. Gradients flow to q, k and v.
    """
    # TODO: two lines, with masked_softmax. .mT exchanges the last two axes.
    ### BEGIN SOLUTION
    weights = masked_softmax(q @ k.mT / q.shape[-1] ** 0.5, mask)  # (..., T, S)
    return weights @ v, weights
    ### END SOLUTION


lab.check(attention)

# %% [markdown]
# Is the look-up of section 1 attention, too? It had distances, not products. But $-(t - k)^2/2h^2 = (tk - k^2/2)/h^2 - t^2/2h^2$, and the last term is the same for all keys, so softmax does not see it. What is left is a product of $(t, 1)$ with $(k, -k^2/2)/h^2$; times $\sqrt 2$, which your root takes away again:

# %%
h = 2.0
t0 = t.mean()  # days from the middle of the year keep the numbers small
q = torch.tensor(np.stack([asked - t0, np.ones_like(asked)], 1))
k = torch.tensor(np.stack([keys - t0, -((keys - t0) ** 2) / 2], 1)) / h**2 * 2**0.5
mine, A = attention(q, k, torch.tensor(values)[:, None])
apart = (mine[:, 0] - torch.tensor(look_up(asked, keys, values, h))).abs().max()
print(f"queries {tuple(q.shape)}, keys {tuple(k.shape)}, weights {tuple(A.shape)}")
error = np.abs(mine[:, 0].numpy() - truth).mean()
print(f"mean error {error:.3f} °C, apart from section 1: {apart:.1e}")
largest = A[60].sort(descending=True).values[:5]
print("the largest weights of one query:", " ".join(f"{w:.3f}" for w in largest))

# %% tags=["instructor"]
assert apart < 1e-6

# %% [markdown]
# **Question.** A recurrent network passes $T$ tokens in $T$ steps. How many steps are there here from the first token to the last, how many products of width $D$, and which of them have to wait for others?
#
# <details><summary>Answer</summary>
#
# One step, whatever the distance. $T^2$ products for the scores and as many for the output: four times as much for twice the length, where a recurrent network needs twice. But none waits for another, so they can all be done at once, and that is what parallel machines are good at.
#
# </details>
#
# ## 3 · Masks of every kind (9 min)
#
# A mask says who may look at whom, and is the only place where a layer of attention is told so. *Padding*: nobody looks at columns that are none, $(B, 1, S)$. *Causal*: whoever is to predict the next token must not see it, so place $i$ looks at places up to $i$, its own too. *Window*: only the last few. Masks are joined by `&`.
#
# In use a model often has $S$ tokens and asks for the last $T$ of them only, because the others were asked before. Then query $t$ stands at place $S - T + t$. By hand, $T = 2$ queries, the last of $S = 5$ places: row 0 is $(1, 1, 1, 1, 0)$, row 1 is $(1, 1, 1, 1, 1)$.


# %%
def causal_mask(T, S):
    """Who may look at whom, if nobody may look ahead.

    T: number of queries, S: number of places, 1 <= T <= S; the queries are the last T places.
    Returns a bool tensor (T, S): True where the place is not later than the query's own.
    """
    # TODO: torch.ones(T, S, dtype=torch.bool) and .tril(diagonal), or a comparison of two aranges.
    ### BEGIN SOLUTION
    return torch.ones(T, S, dtype=torch.bool).tril(S - T)
    ### END SOLUTION


lab.check(causal_mask)

# %%
causal = causal_mask(8, 8)
place = torch.arange(8)
window = causal & (place[:, None] - place < 3)
padding = (place < 6)[None]  # (1, S): the last two columns are none
masks = {"causal": causal, "causal, window of 3": window, "padding": padding.expand(8, 8)}
masks |= {"causal and padding": causal & padding, "last 3 of 8": causal_mask(3, 8)}
fig, axes = plt.subplots(1, 5, figsize=(10, 2.6), layout="constrained")
for ax, (name, mask) in zip(axes, masks.items(), strict=True):
    show(ax, mask, name, xlabel="key", ylabel="query" if ax is axes[0] else "")
title = "Blue may be looked at: a mask decides who knows what"
_ = fig.suptitle(title, size=11, weight="bold", x=0.02, ha="left")

# the leak test: change token 4, and see whose output changes
torch.manual_seed(0)
x = torch.randn(8, 4)
changed = x.clone()
changed[4] += 1
seen = {}
for name in ("no mask", "padding", "causal", "causal, window of 3"):
    before, after = (attention(each, each, each, masks.get(name))[0] for each in (x, changed))
    seen[name] = ((before - after).abs().amax(1) > 1e-9).nonzero()[:, 0].tolist()
    print(f"{name:20} outputs that change with token 4: {seen[name]}")

# %% tags=["instructor"]
assert seen["causal"] == [4, 5, 6, 7] and seen["causal, window of 3"] == [4, 5, 6]
assert seen["no mask"] == seen["padding"] == list(range(8))

# %% [markdown]
# **Question.** Output 3 is to predict token 4. Which masks leak? And with the padding mask, padding's own outputs (6 and 7) change, too. Does that matter?
#
# <details><summary>Answer</summary>
#
# Without a causal part output 3 has seen the answer. Such a model has a loss that is far too good, and is lost in use, where there is nothing to read. The leak test costs a few lines: do it for every model that predicts what comes next. And padding may ask, nobody listens: its outputs are thrown away, in the loss and in the mean over letters.
#
# </details>
#
# ## 4 · It does not know the order (10 min)
#
# What had the walking been good for? Permute the tokens by a matrix $P$: $Q, K, V$ become $PQ, PK, PV$, the scores $PQK^\top P^\top$, and softmax of each row is permuted along. So the output is $P A P^\top P V = P(AV)$: the same outputs, at other places. Attention is *equivariant* to order, and a mean over the outputs does not see it at all.
#
# Again the names of *rnn-lstm-gru* (licence PDDL-1.0; two lists, "female" and "male", collected before 2002, which are the lists' labels and not people). Four readers: the mean of the letters, with or without one layer of self-attention, with or without *positions*, a learned vector for each place that is added to the letter's. About 14 s.

# %%
names = atlas.data.load("names")
longest = max(map(len, names.x_train + names.x_valid + names.x_test))


def padded(words):
    """Letters as numbers, a is 1, anything else 27, padded with 0: (B, longest)."""
    rows = [[ord(c) - 96 if "a" <= c <= "z" else 27 for c in word.lower()] for word in words]
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)


class Reader(nn.Module):
    """Letters to one logit, by the mean over letters, that may have asked each other before."""

    def __init__(self, asks, positions, D=32):
        super().__init__()
        self.asks, self.letters = asks, nn.Embedding(28, D)
        self.places = nn.Embedding(longest, D) if positions else None
        self.query, self.key, self.value = (nn.Linear(D, D) for _ in range(3))
        self.out = nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, 1))

    def forward(self, x):
        """x: (B, S). Returns logits (B,) and weights (B, S, S), or None."""
        real, h, weights = x > 0, self.letters(x), None  # (B, S), (B, S, D)
        if self.places is not None:
            h = h + self.places.weight
        if self.asks:
            found, weights = attention(self.query(h), self.key(h), self.value(h), real[:, None])
            h = h + found
        mean = (h * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        return self.out(mean)[:, 0], weights


x, y = padded(names.x_train), torch.tensor(names.y_train, device=device).float()
parts = {"train": (x, y)}
for part in ("valid", "test"):
    words, labels = getattr(names, f"x_{part}"), getattr(names, f"y_{part}")
    parts[part] = padded(words), torch.tensor(labels, device=device).float()
SEED, EPOCHS = 0, 10
readers, reached, history = {}, {}, {}
for name, asks, positions in (
    ("mean of letters", False, False),
    ("... with positions", False, True),
    ("self-attention", True, False),
    ("... and positions", True, True),
):
    torch.manual_seed(SEED)
    reader = Reader(asks, positions).to(device)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=6e-3)
    steps = EPOCHS * math.ceil(len(x) / 64)
    fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k, n=steps: 1 - k / n)
    curves = {"train": [], "valid": []}
    for _ in range(EPOCHS):
        for some in torch.randperm(len(x)).split(64):
            loss = F.binary_cross_entropy_with_logits(reader(x[some])[0], y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            fall.step()
        with torch.no_grad():
            for part, kept in curves.items():
                z, labels = reader(parts[part][0])[0], parts[part][1]
                kept.append(F.binary_cross_entropy_with_logits(z, labels).item())
    with torch.no_grad():
        hits = (reader(parts["test"][0])[0] > 0) == parts["test"][1].bool()
    readers[name], reached[name] = reader, 100 * hits.float().mean().item()
    history |= {f"{name} {part}": losses for part, losses in curves.items()}
    print(f"{name:20} {reached[name]:.1f} % of the test names", flush=True)
drawn = {n: v for n, v in history.items() if n.endswith("valid") or n.startswith("... and")}
_ = plot.curves(
    drawn,
    ylabel="cross-entropy (nat)",
    title="Letters that ask each other gain little until they know their places",
)

# %% tags=["instructor"]
assert reached["... and positions"] > max(list(reached.values())[:3]) + 6
assert abs(reached["... with positions"] - reached["mean of letters"]) < 5

# %%
with torch.no_grad():
    for word in ("maria", "airam", "leon", "noel"):
        z = [readers[n](padded([word]))[0].sigmoid().item() for n in list(readers)[2:]]
        print(f"{word:6} as male: self-attention {z[0]:.6f}, ... and positions {z[1]:.6f}")
fig, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
for ax, word in zip(axes, ("maria", "joshua", "johanna", "leon"), strict=True):
    with torch.no_grad():
        weights = readers["... and positions"](padded([word]))[1][0].cpu()
    show(ax, weights[: len(word), : len(word)], word, "key", "query" if ax is axes[0] else "")
    ax.set_xticks(range(len(word)), list(word))
    ax.set_yticks(range(len(word)), list(word))
with torch.no_grad():
    weights = readers["... and positions"](parts["test"][0])[1].cpu()
sizes = np.array([len(name) for name in names.x_test])
ends = [w[:n, n - 2 : n].sum(1).mean() for w, n in zip(weights, sizes, strict=True)]
even = np.mean(2 / sizes)
title = f"The last two letters get {np.mean(ends):.0%} of all looks; evenly it would be {even:.0%}"
_ = fig.suptitle(title, size=11, weight="bold", x=0.02, ha="left")

# %% tags=["instructor"]
with torch.no_grad():
    pair = readers["self-attention"](padded(["maria", "airam"]))[0]
assert torch.allclose(pair[0], pair[1], atol=1e-5)
assert np.mean(ends) > even + 0.1

# %% [markdown]
# **Question.** Positions alone bring next to nothing, self-attention alone little, both together about ten points. Why?
#
# <details><summary>Answer</summary>
#
# The mean of letters plus places is the mean of the letters plus the mean of the places: which letter stood where is lost in the sum, and the places' mean tells the length only. It takes something that looks at letter and place of a token *together* before the mean, and that is what the layer does. Logistic regression on n-grams had 91.0 % (*rnn-lstm-gru*, section 1), and that is still far ahead: 6,184 names are few, and endings decide.
#
# </details>
#
# ## 5 · A head made by hand (10 min)
#
# A query, key and value triple with its weights is called a *head*. What can it do with positions? Let place $i$ be the one-hot vector $p_i$, row $i$ of the unit matrix, so $D = T$. The score of query $p_i W$ and key $p_j$ is
#
# $$ \frac{p_i W p_j^\top}{\sqrt T} = \frac{W_{ij}}{\sqrt T} $$
#
# so $W$ is a table of who looks at whom. We want a head that looks one place back. A single $c$ in each row, and 0 elsewhere: how large must it be? With $z = c/\sqrt T$ the weight is $e^z/(e^z + T - 1)$, and that is above 0.99 if $z > \ln(99\,(T - 1))$. For $T = 40$: $z > 8.26$, so $c > 52.2$.


# %%
def previous_token_head(T):
    """A matrix by which each place looks at the one before it.

    T: number of places, from 1 to 1,000. Place i is row i of P = torch.eye(T).
    Returns W (T, T), float32 and finite: attention(P @ W, P, P) without a mask gives each row
    i >= 1 of the weights more than 0.99 at i - 1, and row 0, which has nothing before it, more
    than 0.99 at itself.
    """
    # TODO: zeros, and one entry in each row, large enough for T; mind row 0.
    ### BEGIN SOLUTION
    W = torch.zeros(T, T)
    places = torch.arange(T)
    W[places, (places - 1).clamp(min=0)] = T**0.5 * (10 + math.log(T))
    return W
    ### END SOLUTION


lab.check(previous_token_head)

# %% [markdown]
# At work: values are letters here, and the output is the word, moved by one. And with a smaller $z = c/\sqrt T$ the look gets wider, until the commonest letter wins (*attention* has three t):

# %%
word = "attention"
P, V = torch.eye(len(word)), F.one_hot(torch.tensor([ord(c) - 97 for c in word]), 26).float()
fig, axes = plt.subplots(1, 3, figsize=(9.4, 3.3), layout="constrained")
W = previous_token_head(len(word))
yours = W.amax(1, keepdim=True) == W  # where each row has its large entry
for ax, z in zip(axes, (10, 2.5, 0.8), strict=True):
    output, weights = attention(P @ (yours * z * len(word) ** 0.5), P, V)
    said = "".join(chr(97 + n) for n in output.argmax(1))
    show(ax, weights, f"z = {z}: {weights[1, 0]:.2f} on the one before")
    print(f"z = {z:4}: {word} becomes {said}, letters weigh {output.amax(1).mean():.2f}")
title = "One place back: the stripe below the diagonal; a smaller z makes it dim"
_ = fig.suptitle(title, size=11, weight="bold", x=0.02, ha="left")

# %% [markdown]
# **Question.** The head looks at places only. Could one head look for the last *a*, wherever it stands? For the token after an earlier *a*?
#
# <details><summary>Answer</summary>
#
# The first, yes: keys made from letters instead of places, and a little of the place, so that of several the last wins. The second, no: a key is made from its own token. The token after an *a* does not say in its key that an *a* was before it. Unless another layer, before, has written that into it, say by a head that looks one place back. Keep that for section 9.
#
# </details>
#
# **Break.**
#
# ## 6 · Several heads (9 min)
#
# A row of weights sums to 1, so one head has one look. If it shall see the letter before *and* the one after, it gets the mean of both, and no longer knows which was which. So the width $D$ is cut into $H$ parts of $D/H$, each with its own scores and softmax: head $h$ has the columns $hD/H$ to $(h+1)D/H$. Their outputs are put side by side again, and a matrix mixes them.
#
# For one product over all heads the axes have to be $(B, H, T, D/H)$. The commonest bug of all: a `view` or `reshape` makes that shape at once, and mixes up time and width.
#
# ![An array of T rows and D columns is cut into H blocks of columns, each T rows high; a wrong view cuts it into blocks of rows.](figures/heads.svg)
#
# By hand, $T = 2$, $D = 4$, $H = 2$: rows $(1, 2, 3, 4)$ and $(5, 6, 7, 8)$. Head 0 gets $(1, 2), (5, 6)$; head 1 gets $(3, 4), (7, 8)$.


# %%
def split_heads(x, H):
    """Cut the width into heads.

    x: (B, T, D), D a multiple of H; it is not changed. H: number of heads.
    Returns (B, H, T, D/H): head h of token t is x[:, t, h·D/H : (h+1)·D/H]. Gradients flow to x.
    """
    # TODO: first cut the last axis in two, .unflatten(2, (H, -1)), then exchange two axes.
    ### BEGIN SOLUTION
    return x.unflatten(2, (H, -1)).transpose(1, 2)
    ### END SOLUTION


lab.check(split_heads)

# %% [markdown]
# A picture of the bug: every entry of the input holds the number of its token, for 6 tokens of width 6 and 3 heads. Each panel is one head's $(T, D/H)$.

# %%
tokens = torch.arange(6.0)[None, :, None].expand(1, 6, 6)
ways = {"yours": split_heads(tokens, 3), "view": tokens.reshape(1, 3, 6, 2)}
fig, axes = plt.subplots(1, 6, figsize=(10, 3), layout="constrained")
for ax, (name, h) in zip(axes, [(n, h) for n in ways for h in range(3)], strict=True):
    ax.imshow(ways[name][0, h], cmap="viridis", vmin=0, vmax=5)
    for row in range(6):
        for column in range(2):
            number = int(ways[name][0, h, row, column])
            ax.text(column, row, number, ha="center", va="center", color="w" if number < 4 else "k")
    ax.set(xlabel="width", ylabel="place of the head" if h == 0 else "", xticks=[])
    ax.set_title(f"{name}, head {h}", size=10)
title = "The entry's token: yours, every head sees all six; view, two each, as if they were six"
_ = fig.suptitle(title, size=11, weight="bold", x=0.02, ha="left")

# %% tags=["instructor"]
assert (ways["yours"][0, 1, :, 0] == torch.arange(6)).all()
assert len(ways["view"][0, 1].unique()) == 2

# %% [markdown]
# **Question.** A model with the wrong `view` runs, and its loss falls. Which test would show the bug?
#
# <details><summary>Answer</summary>
#
# Not the shape. Section 4 does: without a mask, permute the tokens, and the outputs have to be permuted along; with a wrong view they are not. The leak test finds it only if one of the two ways, in or back, is right. Or compare with another implementation, on distinct numbers and $T \ne H$.
#
# </details>
#
# ## 7 · The layer (13 min)
#
# Four linear layers with bias, $D$ to $D$: query, key, value, and out. Queries come from $x$, $(B, T, D)$; keys and values from the *memory*, $(B, S, D)$. Without one the memory is $x$ itself: self-attention; with one it is *cross-attention*, as the decoder's look at the letters was. Split, attend, merge the heads back to $(B, T, D)$, mix by out. The root is now that of $D/H$, the width of a head, and `attention` takes care of it.
#
# A mask comes as $(T, S)$, one for all, or as $(B, T, S)$ or $(B, 1, S)$, one for each sequence. Weights are $(B, H, T, S)$, so a mask with three axes needs one more, for the heads: where? Without it, $(B, T, S)$ broadcasts from the right, and where $B = H$ the first *sequence's* mask becomes the first *head's*, with no error at all.


# %%
class MultiHeadAttention(nn.Module):
    """Attention with H heads: (B, T, D), and a memory (B, S, D), to (B, T, D).

    D: width, a multiple of H. H: number of heads. The four layers are given; all are used.
    forward(x, memory=None, mask=None) returns (output, weights): output (B, T, D) after the layer
    out, weights (B, H, T, S), one map for each head. memory: keys and values come from it, from x
    where it is None. mask: None, or bool (T, S), (B, T, S) or (B, 1, S), True where a query may
    look. Nothing that is given is changed; gradients flow to x, memory and the four layers.
    """

    def __init__(self, D, H):
        super().__init__()
        self.H = H
        self.query, self.key, self.value, self.out = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x, memory=None, mask=None):
        # TODO: split_heads of three layers, attention, the heads side by side again, out.
        ### BEGIN SOLUTION
        memory = x if memory is None else memory
        if mask is not None and mask.ndim == 3:
            mask = mask[:, None]  # (B, 1, T, S): the same for all heads
        parts = self.query(x), self.key(memory), self.value(memory)
        found, weights = attention(*(split_heads(each, self.H) for each in parts), mask)
        return self.out(found.transpose(1, 2).flatten(2)), weights  # (B, H, T, D/H) to (B, T, D)
        ### END SOLUTION


lab.check(MultiHeadAttention)

# %% [markdown]
# Held against PyTorch's own layer, which keeps three matrices in one. Mind its mask: there `attn_mask` is True where a query may *not* look. (With ours, the last place may look at nothing: NaN.)

# %%
torch.manual_seed(0)
own, theirs = MultiHeadAttention(24, 4), nn.MultiheadAttention(24, 4, batch_first=True)
first = own.query, own.key, own.value
with torch.no_grad():
    theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in first]))
    theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in first]))
    theirs.out_proj.load_state_dict(own.out.state_dict())
x, mask = torch.randn(2, 7, 24), causal_mask(7, 7)
output, weights = own(x, mask=mask)
for name, given in (("~mask", ~mask), ("mask", mask)):
    apart = (output - theirs(x, x, x, attn_mask=given)[0]).abs().amax((0, 2))
    print(f"attn_mask={name:6} outputs apart, by place:", *(f"{each:.0e}" for each in apart))
print("parameters of the layer, by heads:", end=" ")
print({H: sum(p.numel() for p in MultiHeadAttention(24, H).parameters()) for H in (1, 4, 24)})

# %% tags=["instructor"]
assert torch.allclose(output, theirs(x, x, x, attn_mask=~mask)[0], atol=1e-5)

# %% [markdown]
# **Question.** The number of parameters does not depend on $H$. So why not take $H = D$, as many looks as there are columns?
#
# <details><summary>Answer</summary>
#
# A head of width 1 has scores $q_t k_s$, products of two numbers: all it can order keys by is one number, upwards or downwards. With width $D/H$ the matrix of scores has rank $D/H$ at most. Few wide heads, or many narrow ones: it is a trade. Vaswani et al. (2017) took 8 heads of 64.
#
# </details>
#
# ## 8 · Two layers that learn to copy (9 min)
#
# A task for which one must look back: tokens drawn at random, all different, a *period* of them, and then the same again and again, 40 in all. Whoever has seen a token before can say what follows it; what follows a new one nobody can know. What forms here is found in language models, too (Olsson et al., 2022).
#
# The network: embeddings of token and place, one or two of your layers with one head and a causal mask, each after a layer norm and added to what was there (the skip of *modern-cnns*), and a linear layer. Nothing else. Four runs: one layer or two, the period always 20, or drawn anew from 10 to 20 for each sequence. About 18 s.


# %%
class Copier(nn.Module):
    """Tokens (B, T) to logits (B, T, TOKENS) for the next, by attention alone, and weights."""

    def __init__(self, layers, D=64):
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, D), nn.Embedding(LENGTH, D)
        self.norms = nn.ModuleList(nn.LayerNorm(D) for _ in range(layers))
        self.layers = nn.ModuleList(MultiHeadAttention(D, 1) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, TOKENS))

    def forward(self, x, instead=None):
        """instead: weights (T, T) that take the place of the first layer's."""
        T, maps = x.shape[1], []
        h, mask = self.tokens(x) + self.places.weight[:T], causal_mask(T, T).to(x.device)
        for n, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            found, weights = layer(norm(h), mask=mask)
            if n == 0 and instead is not None:
                found = layer.out(instead @ layer.value(norm(h)))
            h = h + found
            maps.append(weights)
        return self.out(h), maps


SEED = 0
always, drawn = torch.tensor([20]), torch.arange(10, 21)
runs = {
    "1 layer, period 20": (1, always, 120),
    "2 layers, period 20": (2, always, 120),
    "1 layer, 10 to 20": (1, drawn, 240),
    "2 layers, 10 to 20": (2, drawn, 240),
}
copiers, losses, shares = {}, {}, {}
for name, (layers, periods, steps) in runs.items():
    torch.manual_seed(SEED)
    model = Copier(layers).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(SEED)
    losses[name], shares[name] = [], []
    for _ in range(steps):
        x, period = copies(64, periods, generator)
        x, period = x.to(device), period.to(device)
        known = torch.arange(LENGTH - 1, device=device) >= period[:, None]  # what follows was seen
        z, wanted = model(x)[0][:, :-1][known], x[:, 1:][known]
        loss = F.cross_entropy(z, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses[name].append(loss.item())
        shares[name].append((z.argmax(1) == wanted).float().mean().item())
    copiers[name] = model
    print(f"{name:20} loss {loss:.3f}, right {np.mean(shares[name][-10:]):.2f}", flush=True)
ax = plot.curves(
    losses,
    xlabel="step",
    ylabel="cross-entropy (nat)",
    title="When the period varies, two layers find it after a plateau, one does not",
)
_ = ax.axhline(math.log(TOKENS), color=plot.COLOURS[-1], ls=":")

# %% tags=["instructor"]
late = {name: np.mean(each[-10:]) for name, each in shares.items()}
assert min(late["1 layer, period 20"], late["2 layers, period 20"], late["2 layers, 10 to 20"]) > 0.97
assert late["1 layer, 10 to 20"] < 0.35

# %% [markdown]
# (Dotted: $\ln 48$, for guessing among all tokens. The two runs at period 20 lie upon each other.) By the curves these two are the best students: quickest, and perfect. Now an examination with periods of 5 to 30, each alone:

# %%
exam = [5, 8, 10, 12, 14, 16, 18, 19, 20, 21, 22, 25, 30]
results = {}
for name, model in copiers.items():
    passed = [right(model, period, device) for period in exam]
    results[name] = np.array(exam), np.array(passed)
    print(f"{name:20}", " ".join(f"{p}: {s:.2f}" for p, s in zip(exam, passed, strict=True)))
_ = plot.curves(
    results,
    xlabel="period in the examination",
    ylabel="share right",
    title="Trained at 20: perfect there, nothing at 19. One has learned to copy",
)

# %% tags=["instructor"]
assert results["2 layers, 10 to 20"][1].min() > 0.95
for name in ("1 layer, period 20", "2 layers, period 20"):
    found = dict(zip(exam, results[name][1], strict=True))
    assert found[20] > 0.97 and found[19] < 0.1 and found[21] < 0.1 and found[10] > 0.4

# %% [markdown]
# **Question.** What have the two that met only period 20 learned? And why are they good at 10, and at 5?
#
# <details><summary>Answer</summary>
#
# To look 19 places back: by position, without reading a token. Period 10 and 5 also have, 20 later, the same again; where a sequence is not yet 20 old they fail (at period 10, 20 of 29 answers are right: 0.69). Two layers had the means for the real thing: nothing asked for it. The loss was near 0, the model useless elsewhere. *Choose the data, and the test, so that the shortcut fails.*
#
# </details>
#
# ## 9 · What the two layers do (12 min)
#
# Look at both layers of the one that has learned it, on a sequence of period 20. In such maps a head that continues a pattern shows as a stripe: at place $i$ stands a token that stood at $i - n$ before, $n$ the period, and what followed it there, at $i - n + 1$, is the answer. Such a head is an *induction head*. Its score is the mean weight at that place, over all sequences and all $i \ge n$; by hand, $T = 5$, $n = 3$: the entries $(3, 1)$ and $(4, 2)$.


# %%
def induction_score(weights, period):
    """How much each head looks at what followed the token's last occurrence, one period ago.

    weights: (B, H, T, T), floating, of sequences that repeat after `period` tokens; they stay as
    they are. period: int from 1 to T - 1.
    Returns (H,), of the weights' dtype: for each head the mean of weights[b, h, i, i - period + 1]
    over all b and over i = period, ..., T - 1, the places whose token has been seen before.
    """
    # TODO: weights.diagonal(offset, 2, 3), or two aranges as indices. Which entry is the first?
    ### BEGIN SOLUTION
    i = torch.arange(period, weights.shape[-1])
    return weights[:, :, i, i - period + 1].mean((0, 2))
    ### END SOLUTION


lab.check(induction_score)

# %%
model, scores = copiers["2 layers, 10 to 20"], {}
repeats = {n: copies(200, torch.tensor([n]), torch.Generator().manual_seed(7))[0] for n in (20, 25)}
x = repeats[20]
for name, each in copiers.items():
    for period, tokens in repeats.items():
        with torch.no_grad():
            maps = [weights.cpu() for weights in each(tokens.to(device))[1]]
        scores[name, period] = [induction_score(weights, period).item() for weights in maps]
    for n, pair in enumerate(zip(scores[name, 20], scores[name, 25], strict=True), 1):
        print("{:20} layer {}: score {:.2f} at 20, {:.2f} at 25".format(name, n, *pair))
with torch.no_grad():
    maps = [weights.cpu() for weights in model(x.to(device))[1]]
back = maps[0].diagonal(-1, 2, 3)[..., :19].mean().item()
print(f"layer 1 of the last, one place back in the first round: {back:.2f}")
fig, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for n, ax in enumerate(axes):
    show(ax, maps[n].mean(0)[0], f"layer {n + 1}")
title = "Layer 1 looks one place back, in the first round; layer 2 one period back, less one"
_ = fig.suptitle(title, size=11, weight="bold", x=0.02, ha="left")

# %% tags=["instructor"]
assert back > 0.7 and scores["2 layers, 10 to 20", 20][0] < 0.3
assert min(scores["2 layers, 10 to 20", period][1] for period in repeats) > 0.8
others = [each for (name, _), each in scores.items() if name != "2 layers, 10 to 20"]
assert max(max(each) for each in others[::2]) > 0.8 and max(max(each) for each in others[1::2]) < 0.2

# %% [markdown]
# At period 20 the shortcut scores as high: a head that always looks 19 back passes there. At 25 only one head is left. A score is a test, too, and needs a case in which the shortcut fails.
#
# ![Tokens k q a f m, later k and q again: layer 1 writes into each place the token before it, layer 2's query q meets the note "after q", and the value there, a, is the answer.](figures/induction.svg)
#
# A story suggests itself. Layer 1 writes into each place which token came before it; layer 2 asks "who has my token before it?", and copies the token there. A map is no proof, as the last workshop said. So we change the cause: the *first* layer's weights are replaced by fixed ones, among them those of your head from section 5, which was never trained.

# %%
P = torch.eye(LENGTH)
by_hand = attention(P @ previous_token_head(LENGTH), P, P)[1]
two_back = F.pad(by_hand[:-1], (0, 0, 1, 0))
two_back[0] = by_hand[0]
mean = causal_mask(LENGTH, LENGTH).float()
swaps = {"as trained": None, "your head": by_hand, "two back": two_back, "itself": P}
swaps["mean of all before"] = mean / mean.sum(1, keepdim=True)
found = {}
print("weights of layer 1      right   layer 2 looks: one after   two after")
for name, instead in swaps.items():
    with torch.no_grad():
        z, maps = model(x.to(device), instead if instead is None else instead.to(device))
    share = (z[:, 20:-1].argmax(2) == x.to(device)[:, 21:]).float().mean().item()
    one, two = induction_score(maps[1], 20), maps[1].diagonal(-18, 2, 3)[..., 2:].mean()
    found[name] = share, one.item(), two.item()
    print("{:20} {:8.3f} {:26.2f} {:11.2f}".format(name, *found[name]))
fig, ax = plt.subplots(figsize=(7.4, 3.2), layout="constrained")
ax.barh(list(found)[::-1], [share for share, *_ in found.values()][::-1], color=plot.COLOURS[0])
ax.set(xlabel="share right, period 20", xlim=(0, 1))
title = "With your untrained head in layer 1 it copies as before; with others it does not"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert found["as trained"][0] > 0.97 and found["your head"][0] > 0.95
assert max(found[name][0] for name in ("two back", "itself", "mean of all before")) < 0.4
assert found["two back"][2] > 0.5 > found["two back"][1]

# %% [markdown]
# **Question.** With *two back* layer 2 looks two places after the earlier occurrence. Why does that confirm the story? And what of layer 1 in the lower half of its map, from query 20 on, where it does not look back?
#
# <details><summary>Answer</summary>
#
# If layer 1 writes down the token two before, then "who has my token written down?" is answered two places after it. The story forecast that, and a wrong one would hardly have. From place 20 on nobody needs what layer 1 writes: what is asked for stands in the first round already. So nothing has taught it anything there, nor in the last row of layer 2: what would come at place 40 is never asked.
#
# </details>
#
# ## 10 · From notebook to program (7 min)
#
# [watch_copy.py](watch_copy.py) trains such a network with PyTorch's own `nn.MultiheadAttention`, keeps and resumes, and draws a strip: the maps of each layer, epoch by epoch, from which one sees that the two heads form together. Yours to write is `attention_entropy`, how wide a row looks: 0 for one key, 1 for all that it *may* look at alike. In a terminal beside the notebook, in its folder (from the course's: `cd workshops/transformers-and-llms/attention-basics`):
#
#     atlas check attention_entropy
#     python watch_copy.py --steps 8 --epochs 16
#
# That computes about 12 s and draws `runs/copy.png`. At home: one layer, which does not find it, and the test by period.
#
#     python watch_copy.py --layers 1 --checkpoint runs/one.pt
#     python watch_copy.py --test
#
# A Transformer puts an MLP after attention and repeats both. And learned places end at the last one that was trained: what would a position be that does not? *transformer-architecture* builds the whole machine; in *llm-overview* your `induction_score` looks into a language model that somebody else has trained.
