# %% [markdown]
# # Transformer Architecture
#
# Attention lets every position ask every other one. A Transformer is what stands around it: a way to say *where*, a stream that layers add to, norms, a small network at each position. You write these parts, hold each to PyTorch's own, and put a GPT together; you see why deep ones need the norm in the right place, race an LSTM, and keep what need not be computed twice. Derivations are in the [README](README.md).

# %%
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from gpt import restore  # the program of section 12: here it only reads a checkpoint
from torch import nn
from torch.nn import functional as F

import atlas
from atlas import plot

lab = atlas.open("transformer-architecture")
device = atlas.device()
book = atlas.data.load("moby-dick")
alphabet = "".join(sorted(set(book.text)))
number = {c: k for k, c in enumerate(alphabet)}
V = len(alphabet)


def ids_of(text):
    """Characters as numbers: int64 (N,)."""
    return torch.tensor([number[c] for c in text])


train_ids, valid_ids = ids_of(book.train), ids_of(book.valid)
TITLE = {"loc": "left", "size": 11, "weight": "bold"}

# %% [markdown]
# ## 1 · The map of the machine (5 min)
#
# *attention-basics* ended with layers of attention alone. They copy, but each output is a weighted mean of values: nothing in them computes *with* what was gathered, and order came from a table of positions that has to be as long as the text. Here is the whole machine:
#
# ![Left the encoder: letters, positions, then L times attention among all and a small network, each with a norm before it and a residual path around it. Right the decoder, which may look back only, and looks across at the encoder's output. Beside it GPT: the decoder without the look across.](figures/machine.svg)
#
# The vertical line is the *residual stream*, $(B, T, D)$: each part reads it, and adds to it. Where do a block's parameters sit? PyTorch has one ready made:

# %%
layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, norm_first=True)
sizes = {"attention": layer.self_attn, "mlp: in": layer.linear1, "mlp: out": layer.linear2}
sizes |= {"norms": nn.ModuleList([layer.norm1, layer.norm2])}
for name, part in sizes.items():
    count = sum(p.numel() for p in part.parameters())
    print(f"{name:10} {count:8,}   {count / 128**2:5.2f} D²")

# %% [markdown]
# Twelve $D^2$, and a third of them is attention. The text is *Moby Dick* (Melville, 1851; public domain, licence PDDL-1.0), 83 characters, cut as in *rnn-lstm-gru*. It is a book of its time and holds slurs and racist descriptions; what learns from it may repeat them.
#
# **Question.** Only one of these parts lets a position learn of another. Which, and what does the other two thirds do?
#
# <details><summary>Answer</summary>
#
# Attention alone. The small network (MLP) works at each position by itself, with the same weights; so do the norms. Attention gathers, the MLP computes with what was gathered.
#
# </details>
#
# ## 2 · Where am I: sines (8 min)
#
# Attention among all sees a set, not a sequence. Vaswani et al. (2017) add to the embedding of position $t$ a row $P_t$ of sines and cosines, each pair with its own frequency:
#
# $$ P_{t,2i} = \sin(t\,\omega_i), \qquad P_{t,2i+1} = \cos(t\,\omega_i), \qquad \omega_i = 10000^{-2i/D} $$
#
# with $t = 0, \dots, T-1$ and $i = 0, \dots, D/2 - 1$: sine and cosine take turns (*interleaved*). By hand, $D = 4$: $\omega = (1, 0.01)$, and row 1 is $(\sin 1, \cos 1, \sin 0.01, \cos 0.01) = (0.841, 0.540, 0.010, 1.000)$.


# %%
def sinusoidal(T, D):
    """Rows of sines and cosines for the positions 0 ... T - 1.

    T: int ≥ 1. D: even int ≥ 2.
    Returns float32 (T, D): entry [t, 2i] is sin(t ω), entry [t, 2i + 1] is cos(t ω), with
    ω = 10000 ** (-2i / D), i = 0 ... D/2 - 1. T may be in the thousands.
    """
    # TODO: angles (T, D/2) by broadcasting; P[:, 0::2] are the even columns, P[:, 1::2] the odd.
    ### BEGIN SOLUTION
    rates = 10000.0 ** (-torch.arange(0, D, 2) / D)  # (D/2,)
    angles = torch.arange(T)[:, None] * rates  # (T, D/2)
    P = torch.zeros(T, D)
    P[:, 0::2], P[:, 1::2] = angles.sin(), angles.cos()
    return P
    ### END SOLUTION


lab.check(sinusoidal)

# %%
P = sinusoidal(96, 64)
fig, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.2), layout="constrained")
left.imshow(P.T, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
left.set(xlabel="position t", ylabel="column")
left.set_title("Fast waves above, slow ones below", **TITLE)
for t, colour in zip((0, 32, 64), plot.COLOURS, strict=False):
    far, near = torch.arange(-t, 96 - t), (torch.arange(96) - t).abs() <= 31
    line = {"color": colour, "label": f"t = {t}", "lw": 7 - t / 12}
    right.plot(far[near], (P @ P[t])[near], **line)
right.set(xlabel="how far away, s − t", ylabel=r"$P_t \cdot P_s$")
right.legend(frameon=False)
_ = right.set_title("Products know the distance only", **TITLE)

# %% tags=["instructor"]
S = P @ P.T
assert torch.allclose(S[0, :32], S[32, 32:64], atol=1e-3)
assert torch.allclose(S[32, 1:32], S[64, 33:64], atol=1e-3)

# %% [markdown]
# **Question.** Row $t + k$ can be had from row $t$ by a matrix that depends on $k$ and not on $t$. Which?
#
# <details><summary>Answer</summary>
#
# Each pair is a point $(\sin\theta, \cos\theta)$ on a circle. $k$ steps on turn it by $k\,\omega_i$, whatever $t$ is: a rotation of each pair. So "three letters back" is *one* linear map at all places, and a layer can learn it. That suggests to do without the adding, and to turn.
#
# </details>
#
# ## 3 · Turning instead of adding (11 min)
#
# Added, positions mix with meaning: $(x + P_m) W_q$ meets $(x' + P_n) W_k$ in four products: one of meanings, one of positions, two that mix them; and with weights between, even the one of positions is no longer about the distance alone. Su et al. (2021) turn query and key instead, *rotary* positions (RoPE): pair $i$ of a vector at position $p$ is turned by the angle $p\,\omega_i$,
#
# $$ \begin{pmatrix} a' \\ b' \end{pmatrix} = \begin{pmatrix} \cos p\,\omega_i & -\sin p\,\omega_i \\ \sin p\,\omega_i & \cos p\,\omega_i \end{pmatrix} \begin{pmatrix} a \\ b \end{pmatrix}, \qquad \omega_i = \text{base}^{-2i/E} $$
#
# where $E$ is the width of a head. Which entries are a pair? Two layouts are in use: neighbours $(2i, 2i+1)$, as in the paper, and *halves*, $(i, i + E/2)$, as in most code. We take halves; weights trained with one are useless with the other. By hand, $E = 2$, $p = 1$: $(1, 0)$ becomes $(\cos 1, \sin 1) = (0.540, 0.841)$. A product of two turned vectors depends on the difference of their angles only, so on $m - n$: no position is left in the score but the distance.


# %%
def rope(x, positions, base=10000.0):
    """Turn each pair (i, i + E/2) of the last axis by position · base ** (-2i / E).

    x: (..., T, E), float32 or float64, E even, any number of axes before T, not always contiguous.
    positions: (T,), integers ≥ 0, in any order, some perhaps in the thousands; row t of x stands at
    positions[t]. base: > 1.
    Returns x's shape and dtype; x stays as it is, and gradients flow to it.
    """
    # TODO: angles (T, E/2); then the two halves of x, and the two lines of the matrix above.
    ### BEGIN SOLUTION
    half = x.shape[-1] // 2
    rates = base ** (-torch.arange(half, device=x.device, dtype=x.dtype) / half)  # (E/2,)
    angles = positions[:, None] * rates  # (T, E/2)
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
    ### END SOLUTION


lab.check(rope)

# %% [markdown]
# One query vector and one key vector, put at all pairs of 40 positions. Left they are turned; right your sines are added.

# %%
torch.manual_seed(0)
q, k, here = torch.randn(32), torch.randn(32), torch.arange(40)
P = sinusoidal(40, 32)
scores = {"turned": rope(q.expand(40, 32), here) @ rope(k.expand(40, 32), here).T}
scores["added"] = (q + P) @ (k + P).T
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.8), layout="constrained")
titles = "Turned: equal along each diagonal", "Added: the place itself counts, too"
for ax, name, title in zip(axes, scores, titles, strict=True):
    shown = ax.imshow(scores[name], cmap="RdBu", vmin=-25, vmax=25)
    ax.set(xlabel="position n of the key", ylabel="position m of the query")
    ax.set_title(title, **TITLE)
_ = fig.colorbar(shown, ax=axes, label="product", shrink=0.85)
spread = {name: max(s.diagonal(-d).std() for d in range(30)).item() for name, s in scores.items()}
print("largest spread along a diagonal: turned {turned:.5f}, added {added:.2f}".format(**spread))

# %% tags=["instructor"]
assert spread["turned"] < 1e-3 and spread["added"] > 0.5

# %% [markdown]
# **Question.** Queries and keys are turned. Why not the values?
#
# <details><summary>Answer</summary>
#
# A score is a product of two turned vectors, in which all but the distance cancels. A value is not multiplied by another turned vector: it goes into a sum, and a turn would stay in it, so that the same letter would say something else at each place.
#
# </details>
#
# ## 4 · A block (9 min)
#
# A block reads the stream twice and adds to it twice:
#
# $$ x \leftarrow x + \text{attention}(\text{norm}_1(x)), \qquad x \leftarrow x + \text{mlp}(\text{norm}_2(x)) $$
#
# This is *pre-norm*: the norm stands before each part, and nothing stands in the stream itself. By hand, with norms that change nothing, an "attention" that doubles and an "mlp" that adds 1: $x = 3$ becomes $3 + 6 = 9$, then $9 + 10 = 19$.


# %%
def block(x, attend, mlp, norm1, norm2):
    """A Transformer block with the norm before each part.

    x: (B, T, D), the stream. attend, mlp, norm1, norm2: functions of (B, T, D) that give (B, T, D).
    norm1 and attend belong to the first part, norm2 and mlp to the second. Each is called once.
    Returns (B, T, D); x stays as it is, and gradients flow through everything.
    """
    # TODO: two lines, each adds to the stream what a part makes of the stream's norm.
    ### BEGIN SOLUTION
    x = x + attend(norm1(x))
    return x + mlp(norm2(x))
    ### END SOLUTION


lab.check(block)

# %% [markdown]
# Now the modules around it. Attention with heads is known from *attention-basics*; here PyTorch's fast call does it, and your `rope` turns queries and keys. Then your block, with PyTorch's weights, beside PyTorch's.


# %%
class Attention(nn.Module):
    """Causal attention with H heads and rotary positions."""

    def __init__(self, D, H):
        super().__init__()
        self.H, self.qkv, self.out = H, nn.Linear(D, 3 * D), nn.Linear(D, D)

    def project(self, x):
        """x (B, T, D) -> queries, keys, values, each (B, H, T, E), not turned yet."""
        return self.qkv(x).unflatten(2, (3, self.H, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        (q, k, v), here = self.project(x), torch.arange(x.shape[1], device=x.device)
        y = F.scaled_dot_product_attention(rope(q, here), rope(k, here), v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, H, T, E) -> (B, T, D)


class Block(nn.Module):
    """Two norms, attention, MLP; `order` says how they are put together."""

    def __init__(self, D, H, order):
        super().__init__()
        self.norm1, self.norm2, self.order = nn.LayerNorm(D), nn.LayerNorm(D), order
        self.attention = Attention(D, H)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, x):
        return self.order(x, self.attention, self.mlp, self.norm1, self.norm2)


torch.manual_seed(0)
options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
theirs = nn.TransformerEncoderLayer(32, 4, 128, **options)
x = torch.randn(2, 7, 32)
with torch.no_grad():
    mine = block(
        x,
        lambda x: theirs.self_attn(x, x, x, need_weights=False)[0],
        lambda x: theirs.linear2(F.gelu(theirs.linear1(x))),
        theirs.norm1,
        theirs.norm2,
    )
    off = (mine - theirs(x)).abs().max()
print(f"largest difference from nn.TransformerEncoderLayer: {off:.1e}")

# %% [markdown]
# **Question.** Set all weights of `attention.out` and of the last linear layer of the MLP to 0. What does a block do? And a stack of a hundred?
#
# <details><summary>Answer</summary>
#
# Nothing: $x$ passes unchanged, and so do gradients, through a hundred as through one. It is the residual connection of *modern-cnns-resnet-densenet*. Learning then adds to the stream; no layer has to learn first how to hand on what is there.
#
# </details>
#
# ## 5 · A GPT (7 min)
#
# Embedding, $L$ blocks, a last norm, and logits. The last layer takes the embedding's own matrix (*tied*, Press and Wolf, 2017): the logit of a letter is the product of the stream with that letter's embedding. Small weights (0.02) at the beginning, smaller ones where a branch joins the stream, as in GPT-2.


# %%
class GPT(nn.Module):
    """Symbols to logits of the next ones."""

    def __init__(self, V, D=64, L=3, H=4, order=block):
        super().__init__()
        self.embed = nn.Embedding(V, D)
        self.blocks = nn.ModuleList(Block(D, H, order) for _ in range(L))
        self.norm = nn.LayerNorm(D)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                last = name.endswith(("out.weight", "mlp.2.weight"))
                nn.init.normal_(weight, std=0.02 / (2 * L) ** 0.5 if last else 0.02)

    def forward(self, ids):
        """ids (B, T) -> logits (B, T, V)."""
        x = self.embed(ids)
        for each in self.blocks:
            x = each(x)
        return self.norm(x) @ self.embed.weight.T


def sees(outputs, inputs):
    """Row t, column s: how much output t (B, T, D) hangs on input s (B, S, D), by gradients."""
    rows = []
    for t in range(outputs.shape[1]):
        (g,) = torch.autograd.grad(outputs[:, t].square().sum(), inputs, retain_graph=True)
        rows.append(g.norm(dim=(0, 2)))
    return torch.stack(rows)


torch.manual_seed(0)
model = GPT(V)
some = train_ids[:24][None]
embedded = model.embed(some).detach().requires_grad_()
x = embedded
for each in model.blocks:
    x = each(x)
seen = sees(model.norm(x), embedded)
with torch.no_grad():
    logits = model(train_ids[:4096].view(32, 128)).flatten(0, 1)
    untrained = F.cross_entropy(logits, train_ids[1:4097])
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
print(f"untrained loss {untrained:.3f} nat, ln 83 = {math.log(V):.3f}")
print(f"the future's share in what is seen: {seen.triu(1).sum() / seen.sum():.0e}")

# %% tags=["instructor"]
assert seen.triu(1).sum() == 0 and abs(untrained - math.log(V)) < 0.1

# %% [markdown]
# Two tests that cost a second and find most mistakes of a language model: an untrained one knows nothing, so its loss is $\ln V$, give or take a tenth, for logits drawn at random are a little apart; and no output may hang on a later input. A model that leaks trains wonderfully.
#
# **Question.** A colleague's untrained model has a loss of 12. Another's reaches 0.1 bits after a minute of training. What would you look for?
#
# <details><summary>Answer</summary>
#
# The first begins with logits far apart (a tied embedding with the usual spread of 1 makes them as wide as $\sqrt D$). The second sees its answer: the mask is missing or shifted by one, or targets are inputs.
#
# </details>
#
# **Break.**
#
# ## 6 · Norm before or after (8 min)
#
# The paper of 2017 put the norm *after* each sum, in the stream: $x \leftarrow \text{norm}(x + \text{part}(x))$. We train both orders, with 2 blocks and with 12, all else equal, at one high learning rate without a warm-up. About 20 s.


# %%
def post_norm(x, attend, mlp, norm1, norm2):
    """The order of 2017: the norm after each sum."""
    x = norm1(x + attend(x))
    return norm2(x + mlp(x))


def windows(ids, B, T, generator):
    """B windows at places drawn at random: inputs and targets, (B, T) each."""
    at = torch.randint(len(ids) - T, (B, 1), generator=generator) + torch.arange(T)
    return ids[at].to(device), ids[at + 1].to(device)


STEPS = 80


def fresh_model(order, L, seed=0):
    """A GPT of width 48, all matrices drawn alike (Xavier)."""
    torch.manual_seed(seed)
    model = GPT(V, 48, L, 4, order).to(device)
    for weight in model.parameters():
        if weight.ndim == 2:
            nn.init.xavier_uniform_(weight)
    return model


def train_order(order, L, seed=0):
    """Bits per character, step by step."""
    model, draws, bits = fresh_model(order, L, seed), torch.Generator().manual_seed(seed), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        x, y = windows(train_ids, 16, 32, draws)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bits.append(loss.item() / math.log(2))
    return bits


orders = {"before": block, "after": post_norm}
runs = {}
for L in (2, 12):
    for name, order in orders.items():
        runs[name, L] = train_order(order, L)
        print(f"{L:3} blocks, norm {name:6}: {np.mean(runs[name, L][-10:]):.2f} bits at the end")
share = np.bincount(train_ids) / len(train_ids)
letters = -(share[share > 0] * np.log2(share[share > 0])).sum()
shown = {}
for (name, L), bits in runs.items():
    shown[f"{L} blocks, {name}"] = np.convolve(bits, np.ones(5) / 5, "valid")
title = "Twelve blocks, norm after: it learns the frequencies of letters, no more"
ax = plot.curves(shown, xlabel="step (mean of 5)", ylabel="bits per character", title=title)
ax.axhline(letters, color=plot.SOFT, lw=0.8)
words = f"line: frequencies of letters alone, {letters:.2f} bits"
_ = ax.text(30, letters + 0.2, words, size=9, color=plot.SOFT)

# %% tags=["instructor"]
end = {key: np.mean(bits[-10:]) for key, bits in runs.items()}
assert end["after", 12] > end["before", 12] + 0.3
assert abs(end["after", 2] - end["before", 2]) < 0.25
assert end["after", 12] > letters - 0.2

# %% [markdown]
# It is often said that with the norm after each sum "gradients vanish". Look, before you repeat it: the gradient of each block at the start, before any step.

# %%
gradients = {}
for name, order in orders.items():
    fresh = fresh_model(order, 12)
    x, y = windows(train_ids, 64, 32, torch.Generator().manual_seed(0))
    F.cross_entropy(fresh(x).flatten(0, 1), y.flatten()).backward()
    squares = [sum(p.grad.square().sum() for p in each.parameters()) for each in fresh.blocks]
    norms = torch.stack(squares).sqrt().tolist()
    gradients[f"norm {name}"] = norms
    ratio = norms[0] / norms[-1]
    print(f"norm {name:6}: block 1 {norms[0]:.2f}, block 12 {norms[-1]:.2f}, ratio {ratio:.1f}")
title = "At the start: with the norm after, no block's gradient has vanished"
ax = plot.curves(gradients, xlabel="block", ylabel="norm of its gradient", title=title)
_ = ax.set_ylim(0)

# %% tags=["instructor"]
after = gradients["norm after"]
assert min(after) > 0.2 * max(after)

# %% [markdown]
# **Question.** So what is wrong with the norm after?
#
# <details><summary>Answer</summary>
#
# Not that nothing arrives. Xiong et al. (2020) show that with post-norm the expected gradients near the output are *large* at the start, and explain by it why the rate has to be warmed up slowly. What our plots show is less, and sure: at this rate, without warm-up, twelve blocks do not train, and where a gradient arrives it may still lead nowhere. Weights of one order are of no use in the other: look before you load some.
#
# </details>
#
# ## 7 · Half a minute of Melville (8 min)
#
# Your GPT (155,000 parameters) and an LSTM as in *rnn-lstm-gru* (width 128), each for about 10 s of computing on the same text, each with the rate and the batch that suit it. Validation is measured as it goes, in windows of 64 for one, with the state carried on for the other. About 22 s in all.


# %%
class CharLSTM(nn.Module):
    """Characters to logits of the next ones, as in rnn-lstm-gru; the state is carried on."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(V, 64), nn.LSTM(64, 128, batch_first=True)
        self.head = nn.Linear(128, V)

    def forward(self, ids, state=None):
        y, state = self.rnn(self.embed(ids), state)
        return self.head(y), state


def bits_on(predict, ids):
    """Bits per character on 64 pieces side by side; predict: inputs (64, T) -> logits."""
    n = (len(ids) - 1) // 64
    x, y = ids[: 64 * n].view(64, n).to(device), ids[1 : 64 * n + 1].view(64, n).to(device)
    with torch.no_grad():
        losses = [
            F.cross_entropy(predict(a).flatten(0, 1), b.flatten(), reduction="sum").item()
            for a, b in zip(x.split(64, 1), y.split(64, 1), strict=True)
        ]
    return sum(losses) / (64 * n) / math.log(2)


def race(model, step, predict, lr, steps, report):
    """Train; returns computing seconds and validation bits. step(n) -> loss."""
    decay = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
    at, bits, spent = [], [], 0.0
    for n in range(1, steps + 1):
        begin = time.process_time()
        warm, way = min(1.0, n / (0.1 * steps)), n / steps
        for group in optimizer.param_groups:
            group["lr"] = lr * warm * (0.05 + 0.95 * (1 + math.cos(math.pi * way)) / 2)
        loss = step(n)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        spent += time.process_time() - begin
        if n % (steps // 6) == 0:
            at.append(spent)
            bits.append(bits_on(predict(), valid_ids[:20_000]))
            print(f"{report}: step {n:4}, {spent:4.1f} s, {bits[-1]:.2f} bits", flush=True)
    return at, bits


torch.manual_seed(0)
draws, gpt, lstm = torch.Generator().manual_seed(0), GPT(V).to(device), CharLSTM().to(device)


def gpt_step(n):
    x, y = windows(train_ids, 8, 64, draws)
    return F.cross_entropy(gpt(x).flatten(0, 1), y.flatten())


pieces = train_ids[: len(train_ids) // 32 * 32].view(32, -1).to(device)
carried = {"state": None}


def lstm_step(n):
    x = pieces[:, 64 * (n - 1) : 64 * n + 1]
    logits, state = lstm(x[:, :-1], carried["state"])
    carried["state"] = tuple(s.detach() for s in state)
    return F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())


def with_state():
    """A function that carries the LSTM's state from call to call, anew each time it is made."""
    kept = {"state": None}

    def predict(x):
        logits, kept["state"] = lstm(x, kept["state"])
        return logits

    return predict


curves = {"GPT": race(gpt, gpt_step, lambda: gpt, 4e-3, 360, "GPT")}
curves["LSTM"] = race(lstm, lstm_step, with_state, 1e-2, 300, "LSTM")

# %%
log = (lab.workshop.folder / "checkpoints" / "char-gpt.txt").read_text()
long_gpt = float(log.split("test: ")[1].split()[0])
minutes = int(log.split("in all ")[1].split()[0]) / 60
lines = {"LSTM, 21 min": 2.080, "Kneser–Ney, 1 s": 2.108, f"GPT, {minutes:.0f} min": long_gpt}
fig, ax = plt.subplots(figsize=(8.2, 4), layout="constrained")
for (name, (at, bits)), colour in zip(curves.items(), plot.COLOURS, strict=False):
    ax.plot(at, bits, "o-", color=colour, label=f"{name}, live")
for (name, value), style in zip(lines.items(), (":", "--", "-."), strict=True):
    ax.axhline(value, color=plot.SOFT, ls=style, lw=1.2, label=f"{name}: {value:.3f}")
ax.set(xlabel="seconds of computing", ylabel="bits per character", ylim=(1.9, 4.2))
ax.legend(frameon=False, loc="upper right")
title = "In ten seconds the LSTM is ahead; in twenty minutes the GPT passes it and the table"
_ = ax.set_title(title, **TITLE)

# %% tags=["instructor"]
assert curves["LSTM"][1][-1] < curves["GPT"][1][-1] - 0.2 and curves["GPT"][1][-1] < 3.5
assert curves["LSTM"][1][-1] > 2.108 + 0.4 and long_gpt < 2.08

# %% [markdown]
# The lines are test bits of long runs: Kneser–Ney and the LSTM from section 9 of *rnn-lstm-gru*, the GPT from [checkpoints/char-gpt.txt](checkpoints/char-gpt.txt), which the program of section 12 made on one core. There the order is turned around: with 23 minutes the GPT is ahead of the LSTM and of the table. One run each; the GPT reads windows of 128, the LSTM the whole text. Most of that lead comes from windows that overlap: section 12.
#
# **Question.** Why is the GPT behind after ten seconds, and ahead after twenty minutes?
#
# <details><summary>Answer</summary>
#
# In the same seconds the LSTM reads 3.3 times as many letters (300 · 32 · 64 = 614,400 against 360 · 8 · 64 = 184,320). And it begins with a habit that a GPT has to learn: what came last counts most, and order is in the loop itself. With little text and time a habit is worth much; later it can be a limit, for whatever is farther back has to survive every step, while attention fetches it. And mind the machine: attention computes all positions of a window *at once*, which is worth a large factor where thousands of units compute side by side, and nothing on one core. Al-Rfou et al. (2019) beat LSTMs on characters by a wide margin, with 64 blocks.
#
# </details>
#
# ## 8 · Encoder, decoder, and looking across (10 min)
#
# The first Transformer translated. Its *encoder* has blocks as yours whose attention looks both ways. Its *decoder* has a third part between the two: *cross-attention* takes queries from the decoder's stream $x$ $(B, T, D)$, keys and values from the encoder's output, the *memory* $(B, S, D)$. That is *attention-for-sequences* with heads. A mask leaves the source's padding out; it has nothing causal, for the whole source is there from the start. The memory went through the encoder's last norm, and is not normed again. (In the pictures below it is one block each, without that norm.)


# %%
def decoder_block(x, memory, mask, attend, cross, mlp, norms):
    """A block of a decoder that also looks at an encoder's output; the norm before each part.

    x: (B, T, D), the stream. memory: (B, S, D). mask: bool (B, S), True at symbols of the source,
    False at padding. attend, mlp: functions of (B, T, D) that give (B, T, D); attend is causal by
    itself. cross: cross(queries, memory, mask) gives (B, T, D) for queries (B, T, D).
    norms: three functions, for attend, cross and mlp, in this order. All are called once.
    The parts follow each other as attend, cross, mlp.
    Returns (B, T, D); what is given stays as it is, and gradients flow through everything.
    """
    # TODO: as in block, with a third line in the middle. Who asks, and who is asked?
    ### BEGIN SOLUTION
    x = x + attend(norms[0](x))
    x = x + cross(norms[1](x), memory, mask)
    return x + mlp(norms[2](x))
    ### END SOLUTION


lab.check(decoder_block)

# %% [markdown]
# Your two blocks with PyTorch's layers in them, an encoder of 8 source symbols (the last 2 are padding) and a decoder of 6 target symbols. Who can see whom? `sees` measures it by gradients. (PyTorch's `MultiheadAttention` has its masks the other way round: True there means *ignore*.)

# %%
torch.manual_seed(0)
S, T, D = 8, 6, 32
enc = nn.TransformerEncoderLayer(D, 4, 128, **options)
dec = nn.TransformerDecoderLayer(D, 4, 128, **options)
real = torch.tensor([[True] * 6 + [False] * 2])


def heads(module, q, kv, ignore=None, padding=None):
    """PyTorch's attention, called with its own masks."""
    return module(q, kv, kv, attn_mask=ignore, key_padding_mask=padding, need_weights=False)[0]


def mlp_of(layer):
    """The small network of one of PyTorch's layers."""
    return lambda x: layer.linear2(F.gelu(layer.linear1(x)))


source, target = torch.randn(1, S, D, requires_grad=True), torch.randn(1, T, D, requires_grad=True)
later = torch.ones(T, T, dtype=torch.bool).triu(1)
both = block(
    source,
    lambda x: heads(enc.self_attn, x, x, None, ~real),
    mlp_of(enc),
    enc.norm1,
    enc.norm2,
)
out = decoder_block(
    target,
    both,
    real,
    lambda x: heads(dec.self_attn, x, x, later),
    lambda x, memory, mask: heads(dec.multihead_attn, x, memory, None, ~mask),
    mlp_of(dec),
    (dec.norm1, dec.norm2, dec.norm3),
)
theirs = dec(target, both, tgt_mask=later, memory_key_padding_mask=~real)
print(f"largest difference from nn.TransformerDecoderLayer: {(out - theirs).abs().max():.1e}")
pictures = {"encoder: source on source": sees(both, source)}
pictures["decoder: target on target"] = sees(out, target)
pictures["across: target on source"] = sees(out, source)
fig, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
for ax, (name, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(picture.gt(0), cmap="Blues", vmin=0, vmax=1.4)
    ax.set(xlabel="hangs on input", ylabel="output")
    ax.set_title(name, loc="left", size=10)
title = "Dark: the output hangs on that input. Padding is seen by itself only"
_ = fig.suptitle(title, x=0.02, ha="left", size=11, weight="bold")

# %% tags=["instructor"]
assert torch.allclose(out, theirs, atol=1e-5)
across = pictures["across: target on source"]
assert (across[:, 6:] == 0).all() and (across[:, :6] > 0).all()
assert (pictures["decoder: target on target"].triu(1) == 0).all()

# %% [markdown]
# **Question.** Source and target have the same length by chance, and somebody hands the causal mask to cross-attention as well. Which words would be translated badly?
#
# <details><summary>Answer</summary>
#
# The first output could look at the first source symbol alone, the second at two: early ones suffer, and whatever is said late in the source and needed early in the target. Nothing fails, and the loss falls. Lengths that differ make it fail loudly: test with $S \ne T$.
#
# </details>
#
# GPT is the decoder without the look across, BERT the encoder alone. The project trains the whole of it on spelling and sound.
#
# **Break.**
#
# ## 9 · Do not compute it twice (20 min)
#
# To write, a model is asked for one letter after the other. Asked anew each time, it computes all it has computed before: keys and values of old positions do not change, because nothing old sees anything new. So keep them: the *cache*. New positions come with their queries, keys and values; they stand *behind* what is kept, at positions $P, \dots, P + T - 1$; the mask is $T$ rows of $P + T$.
#
# ![Kept keys and values of P positions, new ones of T positions behind them; T queries look at P + T keys, the mask is a rectangle with a staircase at its right end.](figures/cache.svg)
#
# By hand: $P = 3$, $T = 2$. Positions of the new ones: 3 and 4. The mask's rows: 1 1 1 1 0 and 1 1 1 1 1.


# %%
def cached_attention(q, k, v, cache=None):
    """Causal attention with rotary positions, of T new positions to themselves and all before.

    q, k, v: (B, H, T, E), of the new positions, not turned yet. cache: None at the beginning, else
    the cache that the call before returned: (keys, values) of the P positions 0 ... P - 1 so far,
    each (B, H, P, E), the keys already turned.
    The new positions are P ... P + T - 1. Each looks at all positions up to its own, with scores
    q · k / sqrt(E) of turned vectors (base 10000) and softmax.
    Returns (output, cache): output (B, H, T, E); cache the pair (keys, values), the old ones first,
    each (B, H, P + T, E); all in q's dtype. Gradients flow to q, k, v, and through the cache. What
    is given stays as it is.
    """
    # TODO: turn q and k by your rope; the cache before k and v; a mask (T, P + T), True = may look.
    ### BEGIN SOLUTION
    T, P = q.shape[2], 0 if cache is None else cache[0].shape[2]
    here = torch.arange(P, P + T, device=q.device)
    q, k = rope(q, here), rope(k, here)
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    mask = torch.ones(T, P + T, dtype=torch.bool, device=q.device).tril(P)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)
    ### END SOLUTION


lab.check(cached_attention)

# %% [markdown]
# `step` walks through a GPT with it: your `block` again, with a cache for each. What is left is the loop. It is the loop of *sequence-to-sequence*, with a cache in place of the state, and a cache grows.


# %%
@torch.no_grad()
def step(model, ids, caches=None):
    """New ids (B, T) -> logits (B, T, V), and the caches of all blocks."""
    x, kept = model.embed(ids), []
    for n, each in enumerate(model.blocks):

        def attend(x, each=each, n=n):
            y, cache = cached_attention(*each.attention.project(x), caches and caches[n])
            kept.append(cache)
            return each.attention.out(y.transpose(1, 2).flatten(2))

        x = block(x, attend, each.mlp, each.norm1, each.norm2)
    return model.norm(x) @ model.embed.weight.T, kept


def generate(step, ids, n):
    """Write n more symbols, each the likeliest after all before it; nothing is computed twice.

    step: step(new, cache) gives (logits, cache). new: int64 (B, T), ids that follow all that were
    given before; cache: None at the beginning, then what the last call returned; logits (B, T, V):
    for each of the new ids what follows it.
    ids: int64 (B, T), T ≥ 1, the prompt. n: int ≥ 0.
    Returns int64 (B, T + n), the prompt first. step gets the prompt as a whole, then each new id
    by itself, (B, 1), at most once, and never an id again. ids stays as it is.
    """
    # TODO: logits[:, -1:].argmax(-1) is the next id of each row, (B, 1).
    ### BEGIN SOLUTION
    new, cache = ids, None
    for _ in range(n):
        logits, cache = step(new, cache)
        new = logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, new], 1)
    return ids
    ### END SOLUTION


lab.check(generate)

# %% [markdown]
# The weights of [checkpoints/char-gpt.pt](checkpoints/char-gpt.txt) (width 128, 4 blocks) fit your GPT: the names are the same. Does the cache change what it writes, and what does it save?

# %%
saved, _, config = restore(lab.workshop.folder / "checkpoints" / "char-gpt.pt")
big = GPT(V, config["width"], config["layers"], config["heads"])
print(big.load_state_dict(saved.state_dict()))
big = big.eval().to(device)
prompt = ids_of("The white whale ")[None].to(device)


def anew(model, ids, n):
    """The same without a cache."""
    for _ in range(n):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], 1)
    return ids


written = generate(lambda ids, cache: step(big, ids, cache), prompt, 100)
print("".join(alphabet[k] for k in written[0].tolist()))
print("the same without a cache:", torch.equal(written, anew(big, prompt, 100)))
lengths, cost = (16, 64, 128, 256, 512), {"anew": [], "with the cache": []}


def milliseconds(way, *given):
    """Computing of one call, the fastest of five."""
    found = []
    for _ in range(5):
        begin = time.process_time()
        with torch.no_grad():
            way(*given)
        found.append(1000 * (time.process_time() - begin))
    return min(found)


for P in lengths:
    before = valid_ids[:P][None].to(device)
    _, caches = step(big, before)
    cost["anew"].append(milliseconds(big, before))
    cost["with the cache"].append(milliseconds(step, big, before[:, -1:], caches))
    shown = ", ".join(f"{name} {ms[-1]:5.1f} ms" for name, ms in cost.items())
    print(f"{P:4} letters before: {shown}")
_ = plot.curves(
    {name: (np.array(lengths), values) for name, values in cost.items()},
    xlabel="letters before it",
    ylabel="one more letter: ms of computing",
    title="Anew, a letter costs more the more stand before it; with the cache hardly",
)

# %% tags=["instructor"]
assert torch.equal(written, anew(big, prompt, 100))
assert cost["anew"][-1] > 2 * cost["with the cache"][-1]

# %% [markdown]
# **Question.** What does the cache cost, for this model, for each letter?
#
# <details><summary>Answer</summary>
#
# Two vectors of width $D$ in each of $L$ blocks, 4 bytes each: $2 \cdot 4 \cdot 128 \cdot 4 = 4{,}096$ bytes a letter. Greedy text circles, by the way, as in *rnn-lstm-gru*: that is why programs draw instead.
#
# </details>
#
# ## 10 · How large, how dear (5 min)
#
# A GPT with a bias everywhere has $VD$ parameters in the tied embedding, $12 D^2 + 13 D$ in each block, $2D$ in the last norm. Computing one letter in a forward pass takes two operations for each weight of the blocks, $2VD$ for the logits, and in each block $4TD$ for attention's two products with $T$ positions (the README counts).


# %%
def parameters(V, D, L, positions=0):
    """How many a GPT with tied embedding has; positions: rows of a learned table."""
    return (V + positions) * D + L * (12 * D**2 + 13 * D) + 2 * D


counted = sum(p.numel() for p in big.parameters())
print(f"char-gpt: {parameters(V, 128, 4):,} by the formula, {counted:,} by counting")
small = parameters(50_257, 768, 12, 1024)
print(f"GPT-2, the smallest (V 50,257, D 768, L 12, 1,024 positions): {small:,}")
models = {"char-gpt, D = 128": 128, "GPT-2 small, D = 768": 768}
T = np.logspace(1, 5, 60)
fig, ax = plt.subplots(figsize=(7.6, 3.6), layout="constrained")
for (name, D), colour in zip(models.items(), plot.COLOURS, strict=False):
    ax.plot(T, 100 * 4 * T * D / (4 * T * D + 24 * D**2), color=colour, label=name)
    ax.plot([6 * D], [50], "o", color=colour)
ax.set(xscale="log", xlabel="positions that a letter looks at, T")
ax.set_ylabel("attention's share of a block (%)")
ax.legend(frameon=False)
_ = ax.set_title("The square of the length hurts late: half of a block's work at T = 6D", **TITLE)

# %% tags=["instructor"]
assert parameters(V, 128, 4) == counted and parameters(50_257, 768, 12, 1024) == 124_439_808

# %% [markdown]
# **Question.** "Attention is quadratic, so it is what makes Transformers dear." At which lengths is that so?
#
# <details><summary>Answer</summary>
#
# Where $4TD$ is not small beside $24D^2$: from some thousand positions on for GPT-2's width, later for wider models. Below, the matrices dominate. Memory is another matter: a map of weights that is kept has $H T^2$ entries.
#
# </details>
#
# ## 11 · What its heads look at, and how far (7 min)
#
# The 16 heads of char-gpt on a sentence from the validation text. For each we measure how much weight lies on the letter itself, on the letter before, on the first letter of the word, and on blanks. The groups overlap: in a word's second letter, "letter before" is also "first of the word". A name says where much of the weight lies, not what a head is for.

# %%
sentence = ids_of(book.valid[3000:3110])
text = [alphabet[k] for k in sentence.tolist()]


@torch.no_grad()
def maps_of(model, ids):
    """Attention weights of all heads, one after the other: (L · H, T, T)."""
    x, maps, here = model.embed(ids[None].to(device)), [], torch.arange(len(ids), device=device)
    later = torch.ones(len(ids), len(ids), dtype=torch.bool, device=device).triu(1)
    for each in model.blocks:
        q, k, _ = each.attention.project(each.norm1(x))
        scores = rope(q, here) @ rope(k, here).mT / q.shape[-1] ** 0.5
        maps.append(scores.masked_fill(later, -math.inf).softmax(-1)[0])
        x = each(x)
    return torch.cat(maps).cpu()


maps = maps_of(big, sentence)
starts = [max(n for n in range(t + 1) if n == 0 or text[n - 1] in " \n") for t in range(len(text))]
blanks = torch.tensor([c in " \n" for c in text])
at = torch.arange(20, len(text))
looks = {
    "itself": maps[:, at, at],
    "letter before": maps[:, at, at - 1],
    "2 before": maps[:, at, at - 2],
    "first of the word": maps[:, at, torch.tensor(starts)[at]],
    "blanks": maps[:, at][:, :, blanks].sum(2),
}
table = torch.stack([weight.mean(1) for weight in looks.values()])
fig, ax = plt.subplots(figsize=(8.8, 3), layout="constrained")
shown = ax.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
H = config["heads"]
ax.set_xticks(range(len(maps)), [f"{n // H + 1}.{n % H + 1}" for n in range(len(maps))])
ax.set_yticks(range(len(looks)), looks)
ax.set(xlabel="block . head")
fig.colorbar(shown, label="mean weight")
previous = table[1].max().item()
title = f"One head gives {previous:.0%} of its weight to the letter before; others look at blanks"
_ = ax.set_title(title, **TITLE)

# %%
chosen = [table[row].argmax().item() for row in (1, 2, 3, 4)]
names = list(looks)
fig, axes = plt.subplots(2, 2, figsize=(9, 8.6), layout="constrained")
for ax, head, row in zip(axes.flat, chosen, (1, 2, 3, 4), strict=True):
    ax.imshow(maps[head, 30:66, 30:66], cmap="Blues", vmin=0, vmax=0.7)
    shown_text = [c if c not in " \n" else "␣" for c in text[30:66]]
    ax.set_xticks(range(36), shown_text, size=7)
    ax.set_yticks(range(36), shown_text, size=7)
    name = f"{head // H + 1}.{head % H + 1}: {names[row]}, mean weight {table[row, head]:.2f}"
    ax.set_title(name, loc="left", size=10)
title = "Each row looks left only; heads share the work"
_ = fig.suptitle(title, x=0.02, ha="left", size=11, weight="bold")

# %% [markdown]
# And how far does it see? Bits by position in a window, up to three times the length of training (128). About 5 s.

# %%
draws = torch.Generator().manual_seed(1)
x, y = windows(valid_ids, 96, 384, draws)
with torch.no_grad():
    pairs = zip(x.split(16), y.split(16), strict=True)
    losses = [F.cross_entropy(big(a).mT, b, reduction="none") for a, b in pairs]
by_place = torch.cat(losses).mean(0).cpu() / math.log(2)
edges = [0, 1, 2, 4, 16, 32, 64, 96, 128, 160, 192, 256, 320, 384]
means = [by_place[a:b].mean().item() for a, b in zip(edges, edges[1:], strict=False)]
middle = [(a + b - 1) / 2 + 1 for a, b in zip(edges, edges[1:], strict=False)]
fig, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
ax.plot(middle, means, "o-", color=plot.COLOURS[0])
ax.axvline(128.5, color=plot.SOFT, ls="--", lw=1)
ax.text(133, max(means) * 0.9, "longer than in training", size=9, color=plot.SOFT)
ax.set(xlabel="position in the window", ylabel="bits per character", ylim=(0, None))
title = "The first letters are dear; beyond the length of training turned positions fail"
_ = ax.set_title(title, **TITLE)
for a, b in ((0, 8), (64, 128), (256, 384)):
    print(f"positions {a + 1:3} to {b:3}: {by_place[a:b].mean():.2f} bits")

# %% tags=["instructor"]
assert previous > 0.3 and table[4].max() > 0.4
assert by_place[:8].mean() > by_place[64:128].mean() + 0.25
assert by_place[256:].mean() > by_place[64:128].mean() + 0.2

# %% [markdown]
# **Question.** Positions are relative in RoPE. Why does it not go on beyond 128?
#
# <details><summary>Answer</summary>
#
# A score depends on the distance, and distances above 127 never occurred in training: slow pairs have angles there that the weights have not met. Relative does not mean unbounded. ALiBi (Press et al., 2022) replaces turning by a penalty that grows with the distance, made for that.
#
# </details>
#
# ## 12 · From notebook to program (12 min)
#
# How good is a model on a text longer than its window? Cut side by side, each window begins without anything before it, and the last plot says what that costs. Windows that overlap, of which only the new part counts, are fairer: that is `window_loss`, yours to write in [gpt.py](gpt.py).
#
# By hand: 10 letters, windows of 4, stride 2. The window at 0 predicts letters 1 to 4 (letter 0 is given), all of them new. The one at 2 predicts 3 to 6; new are 5 and 6. At 4: 5 to 8, new are 7 and 8. At 6 only three letters have a successor; it predicts 7 to 9, and 9 is new. Nine in all, each once, and the window that reached the end is the last.
#
# In a terminal beside the notebook, in its folder (from the course's: `cd workshops/transformers-and-llms/transformer-architecture`):
#
#     atlas check window_loss
#     python gpt.py --test --checkpoint checkpoints/char-gpt.pt
#     python gpt.py --test --stride 128 --checkpoint checkpoints/char-gpt.pt
#     python gpt.py --prompt "Call me" --checkpoint checkpoints/char-gpt.pt
#
# The second line takes about 13 s of computing and says 2.024 bits, windows that overlap by half. The third, side by side, takes 8 s and says 2.075, level with the LSTM's 2.080: how a model is tested is a part of the result. The fourth takes 4 s. At home, about 25 s each: what does it cost to leave the positions out?
#
#     python gpt.py --positions none --limit 200000 --checkpoint runs/none.pt
#     python gpt.py --positions rope --limit 200000 --checkpoint runs/rope.pt
#
# In test bits 3.79 without and 3.47 with them, where this was measured.
#
# The machine is whole. What it has seen is one book, letter by letter, and a million letters are little. What changes with tokens in place of letters, with 135 million parameters in place of 0.8, and with most of the web in place of Melville? *llm-overview* runs such a model in code like yours.
