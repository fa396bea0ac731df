# %% [markdown]
# # Attention for Sequences
#
# One vector had to hold a whole word, and long words did not fit. Here the decoder may look back at the letters, at each step anew. You write the weights it looks with, two ways to score letters, and the step of the decoder; you train it on as many words as the network without attention had, and then read from its weights which letter became which sound, which nobody told it. Derivations are in the [README](README.md).

# %%
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import torch
from align import BOS, EOS, LIMIT, PAD, batches_of, error_rates, letters_of, load_words, restore
from align import pronounce as pronounce_by
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import atlas
from atlas import plot

lab = atlas.open("attention-for-sequences")
device = atlas.device()
words, symbols = load_words()
test, long = words["test"], words["long"]
spellings, long_spellings = ([word for word, _ in part] for part in (test, long))

# %% [markdown]
# ## 1 · One vector is not enough (6 min)
#
# The data are those of *sequence-to-sequence*: the CMU pronouncing dictionary (licence BSD-2-Clause), words and their sounds in 39 phonemes, without stress. `error_rates` (PER and share of words right) and the batches are as you wrote them there. The file [align.py](align.py) has them, and the network without attention, trained on 57,600 words as `short.pt` of that workshop was: [checkpoints/none.pt](checkpoints/none.txt). Beside it stand the answers of the table of rules made from the same words, [checkpoints/rules.pt](checkpoints/rules.txt). Words right by length, and 596 words of 15 and more letters, which no model here has met in training:

# %%
folder = lab.workshop.folder / "checkpoints"
rules = torch.load(folder / "rules.pt", weights_only=True)
sizes = np.array([len(word) for word in spellings])
groups = [(n, n + 1) for n in range(3, 15, 2)]


def by_length(said, said_long):
    """Mean length of each group, and words right in it (%); the last group is the long words."""
    hit = np.array([mine in all_of for mine, (_, all_of) in zip(said, test, strict=True)])
    right = [100 * hit[np.isin(sizes, group)].mean() for group in groups]
    return [*map(np.mean, groups), 16.5], [*right, 100 * error_rates(said_long, long)[1]]


def measure(name):
    """What a checkpoint's network says of the test words and of the long ones."""
    net, _, _ = restore(folder / name)
    parts = spellings, long_spellings
    return [pronounce_by(net.to(device), symbols, part, device)[0] for part in parts]


answers = {
    "rules": (rules["answers"]["test"], rules["answers"]["long"]),
    "one vector": measure("none.pt"),
}


def table():
    """Prints and returns PER and words right of each answer, on test words and long ones."""
    print("                      test: PER   right     long words: PER   right")
    rates = {}
    for name, (said, said_long) in answers.items():
        rates[name] = *error_rates(said, test), *error_rates(said_long, long)
        print("{:20} {:10.3f} {:7.1%} {:19.3f} {:7.1%}".format(name, *rates[name]))
    return rates


rates = table()
AXES = {"xlabel": "letters of the word (last point: 15 and more)", "ylabel": "words right (%)"}
title = "The longer the word, the less one vector keeps; rules do not mind"
_ = plot.curves({name: by_length(*each) for name, each in answers.items()}, **AXES, title=title)

# %% tags=["instructor"]
curve = by_length(*answers["one vector"])[1]
assert 0.22 < rates["one vector"][0] < 0.38 and curve[0] > curve[3] + 25
assert rates["rules"][1] > rates["one vector"][1] + 0.1

# %% [markdown]
# **Question.** What do the rules do that the network cannot?
#
# <details><summary>Answer</summary>
#
# They look at the letters *when* they need them, a few at a time, and never put the whole word anywhere. The network has to have it all in $s$ before the first phoneme. But the rules had to be told what a window is. Can a network learn where to look?
#
# </details>
#
# ## 2 · Weights that leave padding out (10 min)
#
# The encoder gives an output for each letter: *keys* $k_1 \dots k_S$. Step $t$ of the decoder gets their weighted mean, the *context* $c_t = \sum_s \alpha_{t,s} k_s$. The weights come from scores $e_{t,s}$ of any size by softmax, so that they are positive and sum to 1. In a batch there is padding, and it must get no weight:
#
# $$ \alpha_{t,s} = \frac{m_s \exp(e_{t,s})}{\sum_{r} m_r \exp(e_{t,r})}, \qquad m_s = 1 \text{ at letters},\; 0 \text{ at padding} $$
#
# By hand: scores $(0, \ln 3, 9)$, the third is padding: $(1/4, 3/4, 0)$. Two things go wrong easily. To multiply by $m$ *after* the softmax leaves $(0.0001, 0.0004, 0)$, which sums to next to nothing. And to set padding's score to $-100$ is no exclusion where the others are at $-1000$.


# %%
def masked_softmax(scores, mask):
    """Softmax over the last axis that gives padding no weight.

    scores: (B, T, S), floating and finite, of any size; they stay as they are. mask: bool (B, S),
    True at letters, False at padding, which may stand anywhere.
    Returns weights (B, T, S) of the scores' dtype: exactly 0 at padding, else the softmax over the
    letters alone, which sums to 1. Where a row of the mask has no True at all, its weights are 0.
    Gradients flow to the scores, and are never NaN, not even there.
    """
    # TODO: torch.finfo(scores.dtype).min is a score that exp makes 0; a row of -inf gives NaN.
    ### BEGIN SOLUTION
    real = mask[:, None, :]  # (B, 1, S)
    scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
    return scores.softmax(2) * real
    ### END SOLUTION


lab.check(masked_softmax)

# %% [markdown]
# Six letters with random scores, and more and more padding. *Times after it* leaves the letters' weights as they were without a mask: padding's share is thrown away, and nobody gets it.

# %%
print("weight on the letters, by how padding is kept out")
print("columns of it           no mask  times after it             yours")
torch.manual_seed(0)
e = torch.randn(1, 1, 6)
for padding in (0, 4, 8, 20):
    padded = F.pad(e, (0, padding))  # an output of zeros has the score 0
    m = F.pad(torch.ones(1, 6, dtype=torch.bool), (0, padding))
    sums = [padded.softmax(2)[m[:, None]], (padded.softmax(2) * m)[m[:, None]]]
    sums.append(masked_softmax(padded, m)[m[:, None]])
    print(f"{padding:18} " + "".join(f"{each.sum():18.2f}" for each in sums))

# %% [markdown]
# **Question.** A model was trained without the mask and does well. "It has learned to ignore padding," says its author. What would you try?
#
# <details><summary>Answer</summary>
#
# The same word beside longer ones, so with more padding than it met in training. Each padded column takes its share, so the answer can depend on the neighbours in the batch. How much it does, section 9 measures, with the mask dropped in use: that differs from network to network.
#
# </details>
#
# ## 3 · Scores: a small network (10 min)
#
# What makes a letter interesting for a step? Its key $k_s$ $(E)$ and the decoder's state $q_t$ $(D)$, the *query*. Bahdanau, Cho and Bengio (2015) let a network with one hidden layer of $A$ units judge the pair, *additive* attention:
#
# $$ e_{t,s} = v^\top \tanh(q_t W_q + k_s W_k), \qquad W_q: (D, A),\; W_k: (E, A),\; v: (A) $$
#
# By hand, with all of size 1, $W_q = W_k = 1$, $v = 2$: $q = 0.5$ and $k = -0.5$ give $2 \tanh 0 = 0$; $k = 0.5$ gives $2 \tanh 1 = 1.52$. All $T \cdot S$ pairs are needed at once. Broadcasting makes them: $(B, T, 1, A)$ and $(B, 1, S, A)$ add up to $(B, T, S, A)$.


# %%
def additive_scores(queries, keys, W_q, W_k, v):
    """Score each key for each query by a network with one hidden layer.

    queries: (B, T, D), keys: (B, S, E), W_q: (D, A), W_k: (E, A), v: (A,), all of one dtype; they
    stay as they are.
    Returns (B, T, S): entry [b, t, s] is v · tanh(q W_q + k W_k) for query t and key s of row b.
    Gradients flow to all five.
    """
    # TODO: multiply first, then an axis of 1 in each for the other's place, add, tanh, and v.
    ### BEGIN SOLUTION
    hidden = (queries @ W_q)[:, :, None] + (keys @ W_k)[:, None]  # (B, T, S, A)
    return torch.tanh(hidden) @ v
    ### END SOLUTION


lab.check(additive_scores)

# %% [markdown]
# Your two functions at work: [checkpoints/additive.pt](checkpoints/additive.txt) was trained with such scores. We take its states as queries while it is told *knight*, N AY T, and its encoder's outputs as keys.

# %%
additive, _, _ = restore(folder / "additive.pt")
letters, lengths = letters_of(["knight"])
inputs = torch.tensor([[BOS, *(symbols.index(p) for p in ("N", "AY", "T"))]])
with torch.no_grad():
    state, (keys, mask) = additive.encode(letters, lengths)
    queries = additive.decoder(additive.phonemes(inputs), state[None])[0]
    net = additive.score
    alpha = masked_softmax(additive_scores(queries, keys, net.W_q, net.W_k, net.v), mask)[0]


def show_map(ax, word, phonemes, weights):
    """Weights (T, S) as an image: letters along, what is said down."""
    ax.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    ax.set_xticks(range(len(word)), list(word))
    ax.set_yticks(range(len(phonemes)), phonemes)
    ax.set(xlabel="letter")


print("queries", tuple(queries.shape), " keys", tuple(keys.shape), " weights", tuple(alpha.shape))
fig, ax = plt.subplots(figsize=(4.6, 3), layout="constrained")
show_map(ax, "knight", ["N", "AY", "T", "end"], alpha)
ax.set_ylabel("is to be said")
_ = ax.set_title("Darker is more weight: N looks at n, T at t", loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert alpha[0, 1] > 0.4 and alpha[2, 5] > 0.3
with torch.no_grad():
    theirs = additive.look(queries, (keys, mask))[1][0]
assert torch.allclose(alpha, theirs, atol=1e-5)

# %% [markdown]
# **Question.** Somebody forgets the tanh: $e_{t,s} = v^\top(q_t W_q + k_s W_k)$. Training runs, nothing fails. Which weights can this network never have?
#
# <details><summary>Answer</summary>
#
# The sum splits into a number that depends on $t$ and one that depends on $s$. The first is the same for all letters, and softmax does not see it: $\alpha_{t,s}$ is the same at every step. It would look at the same letters for N and for T. The tanh is what lets query and key meet.
#
# </details>
#
# ## 4 · Scores: a product (8 min)
#
# Luong, Pham and Manning (2015) let query and key meet in a product, their *general* form, and we divide it by a root as Vaswani et al. (2017) do:
#
# $$ e_{t,s} = \frac{q_t W k_s^\top}{\sqrt{E}}, \qquad W: (D, E) $$
#
# It is two matrix products, nothing of size $(B, T, S, A)$. By hand: $q = (1, 2)$, $W = \begin{pmatrix} 1 & 0 \\ 3 & 1 \end{pmatrix}$: $qW = (7, 2)$. With $k = (1, -1)$: $5 / \sqrt 2 = 3.54$. The wrong side, $W q^\top = (1, 5)$, would give $-4/\sqrt 2$.


# %%
def dot_scores(queries, keys, W):
    """Score each key for each query by a product.

    queries: (B, T, D), keys: (B, S, E), W: (D, E), all of one dtype; they stay as they are.
    Returns (B, T, S): entry [b, t, s] is q W k / sqrt(E) for query t and key s of row b.
    Gradients flow to all three.
    """
    # TODO: (B, T, D) @ (D, E), then @ (B, E, S): which two axes of keys change places?
    ### BEGIN SOLUTION
    return queries @ W @ keys.transpose(1, 2) / keys.shape[2] ** 0.5
    ### END SOLUTION


lab.check(dot_scores)

# %% [markdown]
# Why the root? Let the entries of $qW$ and $k$ be independent, with mean 0 and variance 1. The sum of $E$ products has variance $E$: the wider the keys, the farther apart the scores, and the nearer softmax is to a hard choice, through which no gradient flows. We draw such queries and keys and look at the largest of ten weights.

# %%
widths, largest = (4, 16, 64, 192, 768), {"without the root": [], "divided by the root": []}
print("       without the root           divided by it")
print("   E   spread largest slope       spread largest slope")
torch.manual_seed(0)
for E in widths:
    q, k = torch.randn(500, 1, E), torch.randn(500, 10, E)
    divided, line = dot_scores(q, k, torch.eye(E)), f"{E:4}"
    for name, scores in zip(largest, (divided * E**0.5, divided), strict=True):
        w = masked_softmax(scores, torch.ones(500, 10, dtype=torch.bool)).max(2).values
        largest[name].append(w.mean().item())
        line += f"{scores.std():9.2f} {w.mean():7.2f} {(w * (1 - w)).mean():5.2f}    "
    print(line)
_ = plot.curves(
    {name: (np.array(widths), values) for name, values in largest.items()},
    xlabel="E, width of the keys",
    ylabel="largest of ten weights",
    xscale="log",
    title="Without the root, wide keys make a choice before anything is learned",
)

# %% tags=["instructor"]
assert largest["without the root"][-1] > 0.85
assert max(largest["divided by the root"]) - min(largest["divided by the root"]) < 0.12

# %% [markdown]
# **Question.** $W$ is learned. It could divide by $\sqrt E$ itself. Why do it for it?
#
# <details><summary>Answer</summary>
#
# It could, if a gradient came. Where one weight is nearly 1, the slope of softmax, $\alpha(1 - \alpha)$, is nearly 0, and the way back takes long. It is the same thought as for initial weights: begin where gradients are neither 0 nor huge.
#
# </details>
#
# ## 5 · A decoder that looks (15 min)
#
# Now a step of the decoder, for a batch. It gets the phoneme said last, as an embedding $x_t$, and its state:
#
# 1. $q_t = \text{cell}(x_t, q_{t-1})$: the *new* state is the query;
# 2. $\alpha_t = \text{masked softmax of } e(q_t, k_1), \dots, e(q_t, k_S)$;
# 3. $c_t = \sum_s \alpha_{t,s} k_s$, and the output is $[c_t; q_t]$, context first.
#
# ![A step of the decoder: embedding and old state go into the cell, the new state is the query; scores, mask and softmax make weights; the weighted mean of the keys is the context; context and state together are the output.](figures/step.svg)
#
# This is Luong's order. Bahdanau et al. ask with the *old* state and feed the context into the cell; both work, and papers mix them up, so always look. The way of scoring is an argument: a function of queries $(B, T, D)$ and keys $(B, S, E)$, so a single state needs an axis of length 1 and back.


# %%
def attend_step(cell, embedded, state, keys, mask, score):
    """A step of a decoder that looks at all keys.

    cell: nn.GRUCell, or what is called like one: cell(embedded, state) is the new state.
    embedded: (B, C), what was said last. state: (B, D). keys: (B, S, E). mask: bool (B, S), True at
    letters. score: a function of queries (B, T, D) and keys (B, S, E) that gives scores (B, T, S).
    Returns (output, state, weights): output (B, E + D) is the context, then the new state; the new
    state (B, D), which is also the query; weights (B, S), by masked_softmax. Nothing that is given
    is changed, and gradients flow through all three.
    """
    # TODO: three lines for the three steps. state[:, None] is (B, 1, D), and [:, 0] takes it away.
    ### BEGIN SOLUTION
    state = cell(embedded, state)  # (B, D)
    weights = masked_softmax(score(state[:, None], keys), mask)  # (B, 1, S)
    context = (weights @ keys)[:, 0]  # (B, E)
    return torch.cat([context, state], 1), state, weights[:, 0]
    ### END SOLUTION


lab.check(attend_step)

# %% [markdown]
# The network around it. The encoder reads in both directions, with $D/2$ units each, so that the key of *k* in *knight* knows of the *n* that follows, and keys have $E = D$. The last states of both directions are the decoder's first.


# %%
class Looker(nn.Module):
    """Encoder in two directions, decoder with dot attention."""

    def __init__(self, D=192):
        super().__init__()
        self.letters = nn.Embedding(27, 64, padding_idx=PAD)
        self.encoder = nn.GRU(64, D // 2, batch_first=True, bidirectional=True)
        self.phonemes = nn.Embedding(len(symbols), 64, padding_idx=PAD)
        self.cell = nn.GRUCell(64, D)
        self.W = nn.Parameter(torch.randn(D, D) / D**0.5)
        self.out = nn.Sequential(nn.Linear(2 * D, D), nn.Tanh(), nn.Linear(D, len(symbols)))

    def score(self, queries, keys):
        return dot_scores(queries, keys, self.W)

    def encode(self, letters, lengths):
        """Letters (B, S) to the decoder's first state (B, D), keys (B, S, D) and mask (B, S)."""
        how = {"batch_first": True, "enforce_sorted": False}
        packed = pack_padded_sequence(self.letters(letters), lengths.cpu(), **how)
        keys, state = self.encoder(packed)
        keys, _ = pad_packed_sequence(keys, batch_first=True, total_length=letters.shape[1])
        return state.transpose(0, 1).flatten(1), keys, letters != PAD

    def forward(self, letters, lengths, inputs):
        """Logits (B, T, K) for what follows each of the inputs (B, T)."""
        state, keys, mask = self.encode(letters, lengths)
        outputs = []
        for embedded in self.phonemes(inputs).unbind(1):
            output, state, _ = attend_step(self.cell, embedded, state, keys, mask, self.score)
            outputs.append(output)
        return self.out(torch.stack(outputs, 1))


torch.manual_seed(0)
model = Looker().to(device)
*given, targets = (x.to(device) for x in next(batches_of(words["valid"], symbols, 128)))
loss = F.cross_entropy(model(*given).flatten(0, 1), targets.flatten(), ignore_index=PAD)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
print(f"loss untrained {loss:.2f}, and ln {len(symbols)} = {np.log(len(symbols)):.2f}")

# %% [markdown]
# **Question.** In *sequence-to-sequence* a gradient went from the last phoneme to the first letter through all states of both networks. How many steps is it away now?
#
# <details><summary>Answer</summary>
#
# One weighted mean, to each key. From a key to its own letter it is one step of the encoder. The long way through the states is still there, but nothing that stands in a letter needs it. *rnn-lstm-gru* showed what long ways do to gradients.
#
# </details>
#
# **Break.**
#
# ## 6 · Trained on the same words (7 min)
#
# The recipe is that of the network without attention: steps of 128 words, AdamW, the rate rising for 5 % of the steps and then falling to a tenth, gradients clipped to norm 1. It had 450 steps; ours get 360, on the first 46,080 of its 57,600 words, since a step takes a little longer. About 35 s.

# %%
STEPS, SEED = 360, 0
torch.manual_seed(SEED)
model = Looker().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3)
generator = torch.Generator().manual_seed(1000 * SEED + 1)
held_out = [[x.to(device) for x in each] for each in batches_of(words["valid"], symbols, 250)]
history = {"train": ([], []), "validation": ([], [])}
batches = batches_of(words["train"][: 128 * STEPS], symbols, 128, generator)
for step, batch in enumerate(batches, 1):
    *given, targets = (x.to(device) for x in batch)
    done = step / STEPS
    optimizer.param_groups[0]["lr"] = 8e-3 * min(1, done / 0.05) * 0.1**done
    loss = F.cross_entropy(model(*given).flatten(0, 1), targets.flatten(), ignore_index=PAD)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    history["train"][0].append(step)
    history["train"][1].append(loss.item())
    if step % 60 == 0:
        with torch.no_grad():
            z = torch.cat([model(*x[:3])[x[3] != PAD] for x in held_out])
            valid_loss = F.cross_entropy(z, torch.cat([x[3][x[3] != PAD] for x in held_out])).item()
        history["validation"][0].append(step)
        history["validation"][1].append(valid_loss)
        print(f"step {step}: validation loss {valid_loss:.3f}", flush=True)


def smooth(losses):
    windows = np.lib.stride_tricks.sliding_window_view(losses, 15)
    return np.arange(15, len(losses) + 1), np.median(windows, axis=1)


without = restore(folder / "none.pt")[2]["steps"]
shown = {
    "dot train": smooth(history["train"][1]),
    "dot validation": history["validation"],
    "one vector train": smooth(without),
}
at, losses = smooth(history["train"][1])
reached = at[losses < np.median(without[-15:])][0]
_ = plot.curves(
    shown,
    xlabel="step (train: median of 15)",
    ylabel="cross-entropy (nat)",
    title=f"After {reached} of 360 steps it is where one vector ends",
)

# %% tags=["instructor"]
assert reached < 210 and history["validation"][1][-1] < 0.6

# %% [markdown]
# **Question.** Is it the looking, or is it the second direction of the encoder, the extra layer, and 55,000 more weights? Which network would you train to find out?
#
# <details><summary>Answer</summary>
#
# The same one with the looking taken out and all else left in: each letter gets the same weight at each step, so that the context is the plain mean of the keys. It is trained the same way, with 450 steps, in [checkpoints/mean.pt](checkpoints/mean.txt), and stands in the next table; that our own had fewer is in the control's favour.
#
# </details>
#
# ## 7 · By length again (6 min)
#
# Decoding is greedy, as before. `change` is for later: a function of the scores, applied before the softmax.


# %%
def pronounce(model, spelled, change=lambda scores: scores, mask_out=True, padding=0):
    """Phonemes of each word, greedily, and the weights of each.

    Weights are (T + 1, S), the end sign's too; T rows for a word that never ended.
    change: what is done to the scores (B, 1, S). mask_out: whether padding is masked.
    padding: so many more columns of it.
    """
    letters, lengths = letters_of(spelled)
    letters = F.pad(letters, (0, padding)).to(device)
    tokens = torch.full((len(spelled),), BOS, device=device)
    ended, said, looks = torch.zeros_like(tokens, dtype=torch.bool), [], []
    with torch.no_grad():
        state, keys, mask = model.encode(letters, lengths)
        mask = mask if mask_out else torch.ones_like(mask)
        while not ended.all() and len(said) < LIMIT:
            output, state, weights = attend_step(
                model.cell,
                model.phonemes(tokens),
                state,
                keys,
                mask,
                lambda q, k: change(model.score(q, k)),
            )
            tokens = model.out(output).argmax(1)
            ended |= tokens == EOS
            said.append(tokens.tolist())
            looks.append(weights.cpu())
    phonemes, maps, looks = [], [], torch.stack(looks, 1)
    for n, row in enumerate(zip(*said, strict=True)):
        T = row.index(EOS) if EOS in row else len(row)
        phonemes.append([symbols[p] for p in row[:T]])
        maps.append(looks[n, : T + 1, : len(spelled[n])])
    return phonemes, maps


said, maps = pronounce(model, spellings)
answers["mean of all letters"] = measure("mean.pt")
answers["additive"] = measure("additive.pt")
answers["dot"] = said, pronounce(model, long_spellings)[0]
answers["dot, all words twice"] = measure("long.pt")
rates = table()
drawn = "rules", "one vector", "mean of all letters", "dot", "dot, all words twice"
shown = {name: by_length(*answers[name]) for name in drawn}
title = "Looking lifts every length above one vector; on long words rules still lead"
_ = plot.curves(shown, **AXES, title=title)

# %% tags=["instructor"]
assert rates["dot"][1] > rates["one vector"][1] + 0.1 and rates["dot"][0] < 0.18
assert rates["dot"][2] < rates["one vector"][2] - 0.15
assert rates["mean of all letters"][1] < rates["dot"][1] - 0.04
assert rates["mean of all letters"][3] < 0.02 and rates["rules"][3] > rates["dot"][3] + 0.1
assert rates["dot, all words twice"][1] > rates["dot"][1] + 0.05

# %% [markdown]
# (*Dot, all words twice* is [checkpoints/long.pt](checkpoints/long.txt), by the program of section 10: 113,871 words; the rules beside it have 57,600.)
#
# **Question.** The control with equal weights is better than one vector. What of the gain is the looking's? And who should say long words?
#
# <details><summary>Answer</summary>
#
# The control has all that is larger in our network, and takes a third to a half of the way from one vector to dot in words right, but hardly a step on long words: there looking is nearly all of the gain. Still the rules lead there. They never lose their place, while our decoder has to find it anew at each step. More words and training narrow the gap; with all words for both it is still 21 points (README). Mind the test's size, too: with 2,000 words a share near one half has a standard error of $\sqrt{0.5 \cdot 0.5 / 2000} = 1.1$ points, so a lead of one point is none.
#
# </details>
#
# ## 8 · An alignment nobody taught (11 min)
#
# The weights are a map: letters along, phonemes down. In training no one said which letter makes which sound. Two numbers describe a map: the letter with the largest weight for each phoneme, and how often, from one phoneme to the next, that letter does not lie *before* the last one. By hand: the letters 1, 3, 3, 2 make three steps, of which $1 \to 3$ and $3 \to 3$ do not go back: $2/3$.


# %%
def alignment_path(weights):
    """The letter that each phoneme looks at most, and how often the look does not go back.

    weights: (T, S), T ≥ 1; a row for each phoneme.
    Returns (letters, share). letters: a list of T ints from 0 to S - 1, the first of the largest
    where several are equal. share: a float, the share of the T - 1 steps from a phoneme to the next
    that stay or go forward; 1.0 where T is 1.
    """
    # TODO: argmax over the letters, .tolist(), then compare each with the one before it.
    ### BEGIN SOLUTION
    letters = weights.argmax(1).tolist()
    steps = [after >= before for before, after in zip(letters, letters[1:], strict=False)]
    return letters, sum(steps) / len(steps) if steps else 1.0
    ### END SOLUTION


lab.check(alignment_path)

# %% [markdown]
# Four words, and then all of the test: how often does the look go back, and does it agree with the letters that the table of rules, by counting, has aligned with the same phonemes? How wide a row is, its *entropy* $-\sum_s \alpha_s \ln \alpha_s$ tells, in nat: 0 for one letter, $\ln 2 = 0.69$ for two equal ones. Does it look wider for vowels, which are often written by several letters?

# %%
asked = ["knight", "phonology", "workshop", "ishmael"]
their_words, their_maps = pronounce(model, asked)
fig, axes = plt.subplots(2, 2, figsize=(8.4, 6.4), layout="constrained")
for ax, word, phonemes, weights in zip(axes.flat, asked, their_words, their_maps, strict=True):
    show_map(ax, word, [*phonemes, "end"], weights)
    path, _ = alignment_path(weights[: len(phonemes)])
    print(f"{word:10} {' '.join(phonemes):26} looks at  {' '.join(word[n] for n in path)}")
title = "A diagonal, with gaps at letters that make no sound of their own"
_ = fig.suptitle(title, size=11, weight="bold", x=0.02, ha="left")

# %%
steps = forward = agreed = near = compared = 0
entropy = {}
for (_, all_of), mine, weights, theirs in zip(test, said, maps, rules["letters"], strict=True):
    if not mine:
        continue
    weights = weights[: len(mine)]  # without the end sign's
    path, share = alignment_path(weights)
    steps, forward = steps + len(path) - 1, forward + share * (len(path) - 1)
    nats = -(weights * weights.clamp(min=1e-12).log()).sum(1)
    for p, h in zip(mine, nats.tolist(), strict=True):
        entropy.setdefault(p, []).append(h)
    if mine == all_of[0] and theirs:
        apart = np.abs(np.subtract(path, theirs))
        agreed, near = agreed + (apart == 0).sum(), near + (apart <= 1).sum()
        compared += len(path)
print(f"{steps:,} steps from phoneme to phoneme, {forward / steps:.1%} of them not backwards")
print(f"{compared:,} phonemes of words said rightly:")
print(f"the table's letter {agreed / compared:.1%}, that or one beside it {near / compared:.1%}")
mean = {p: np.mean(h) for p, h in entropy.items() if len(h) >= 30}
order = sorted(mean, key=mean.get)
vowels = [p[0] in "AEIOU" for p in order]
fig, ax = plt.subplots(figsize=(8.6, 3.4), layout="constrained")
ax.bar(order, [mean[p] for p in order], color=[plot.COLOURS[1 if v else 0] for v in vowels])
ax.bar([order[0]], [0], color=plot.COLOURS[0], label="consonant")
ax.bar([order[0]], [0], color=plot.COLOURS[1], label="vowel")
ax.legend(frameon=False, loc="upper left")
ax.set(xlabel="phoneme said", ylabel="entropy of its weights (nat)")
ax.tick_params(axis="x", labelsize=8)
of_vowels = np.mean([mean[p] for p, v in zip(order, vowels, strict=True) if v])
of_others = np.mean([mean[p] for p, v in zip(order, vowels, strict=True) if not v])
title = f"How wide it looks: vowels {of_vowels:.2f} nat, consonants {of_others:.2f} nat"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert of_vowels < of_others + 0.05 and forward / steps > 0.97 and near / compared > 0.85 and agreed / compared > 0.5

# %% [markdown]
# **Question.** Where are the silent *k*, *g* and *h* of *knight* in the map? And has the network not seen them?
#
# <details><summary>Answer</summary>
#
# Hardly any phoneme gives them the largest weight. (Of all steps hardly one goes back; where letter and table differ, it is nearly always by one place. And it does not look wider for vowels.) But *igh* is AY and *i* alone often is not, so they matter. The key of *i* comes from an encoder that has read the letters around it: the look at *i* is a look at *i* with its neighbours. A map of weights over keys is not a map over letters, unless keys mean their own letter only.
#
# </details>
#
# ## 9 · Is it an explanation? (7 min)
#
# A dark square says: this key had much weight. Does the answer *depend* on it? One can try. The trained model says 300 test words while we change its scores before the softmax. We multiply them by a sharpness $\beta$: 0 makes all weights equal, 1 is as trained, a large $\beta$ leaves the largest alone. Then we move all scores by one letter to the right; the last one falls off a full row or into padding, and the first letter gets what stood in the last column.

# %%
some = test[:300]
some_words = [word for word, _ in some]
betas, pers = (0, 0.25, 0.5, 0.75, 1, 1.5, 2, 4, 100), []
for beta in betas:
    pers.append(error_rates(pronounce(model, some_words, lambda e, b=beta: b * e)[0], some)[0])
    print(f"sharpness {beta:6}: PER {pers[-1]:.3f}")
moved = error_rates(pronounce(model, some_words, lambda e: e.roll(1, 2))[0], some)[0]
print(f"each score one letter to the right: PER {moved:.3f}")
fig, ax = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
ax.plot(range(len(betas)), pers, "o-", color=plot.COLOURS[0], label="scores times the sharpness")
ax.axhline(moved, color=plot.COLOURS[1], ls="--", label="scores moved by one letter")
ax.set_xticks(range(len(betas)), betas)
ax.set(xlabel="sharpness (1: as trained)", ylabel="phoneme error rate", ylim=(0, None))
ax.legend(frameon=False)
title = "Answers depend on where it looks; from 0.75 to 4 hardly on how sharply"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert pers[0] > pers[4] + 0.2 and moved > pers[4] + 0.2
assert pers[8] < pers[4] + 0.1 and max(pers[3:8]) < min(pers[3:8]) + 0.03

# %% [markdown]
# And the mask: the same words, the mask dropped, with more and more columns of padding, in three networks. How much weight does padding get, how many answers become others, and does the error rate show it?


# %%
def as_ours(name):
    """A checkpoint's network with the names that `pronounce` asks for."""
    net, _, _ = restore(folder / name)
    net = net.to(device)

    def encode(letters, lengths):
        state, (keys, mask) = net.encode(letters, lengths)
        return state, keys, mask

    def cell(embedded, state):
        return net.decoder(embedded[:, None], state[None])[1][0]

    parts = {"phonemes": net.phonemes, "score": net.score, "out": net.out}
    return SimpleNamespace(encode=encode, cell=cell, **parts)


networks = {"yours": model, "all words twice": as_ours("long.pt")}
networks["mean of all letters"] = as_ours("mean.pt")
print("                      columns   weight on   answers          PER,  PER with")
print("                        added     padding    change       no mask  the mask")
lost, same = {}, {}
for name, net in networks.items():
    masked, _ = pronounce(net, some_words)
    right_rate = error_rates(masked, some)[0]
    for padding in (0, 10, 40):
        dropped, looks = pronounce(net, some_words, mask_out=False, padding=padding)
        weight = 1 - np.mean([weights.sum(1).mean() for weights in looks])
        changed = np.mean([a != b for a, b in zip(dropped, masked, strict=True)])
        rate = error_rates(dropped, some)[0]
        print(f"{name:20}{padding:9}{weight:12.1%}{changed:10.1%}{rate:14.3f}{right_rate:10.3f}")
    lost[name] = changed, rate - right_rate
    kept, _ = pronounce(net, some_words, padding=40)
    same[name] = np.mean([a == b for a, b in zip(kept, masked, strict=True)])
    print(f"{'':20}with the mask and 40 columns more, {same[name]:.1%} of the answers as before")

# %% tags=["instructor"]
assert min(same.values()) > 0.99
assert lost["yours"][0] > 0.02 and lost["all words twice"][1] > 0.01
assert lost["mean of all letters"][1] > 0.2

# %% [markdown]
# Padding's key is 0, so its dot score is 0, and letters that are looked at have higher ones: that softens the fault, and the error rate shows less of it than the answers do. Equal weights have no such luck. That a model does well without its mask is no proof that it needs none.
#
# **Question.** So are attention weights an explanation of what a network does?
#
# <details><summary>Answer</summary>
#
# Here they are tested as a cause: change them, and the answers change. In other tasks, such as classifying a text, Jain and Wallace (2019) found quite different weights that left the answer as it was; Wiegreffe and Pinter (2019) replied that it depends on what one calls an explanation and how one tests it. So do not read a map as a reason before you have changed it. And mind what keys hold: more than their own letter.
#
# </details>
#
# ## 10 · From notebook to program (8 min)
#
# [align.py](align.py) trains with `--attention dot`, `additive`, `mean` or `none`, keeps and resumes, and shows where it looked. Yours to write is `attention_table`, the map as text. [checkpoints/long.pt](checkpoints/long.txt) is the one that has seen all words twice. In a terminal beside the notebook, in its folder (from the course's: `cd workshops/sequence-modeling/attention-for-sequences`):
#
#     atlas check attention_table
#     python align.py --say knight ishmael --checkpoint checkpoints/long.pt
#     python align.py --test --checkpoint checkpoints/long.pt
#     python align.py --attention additive --words 20000
#
# Here an encoder that steps from letter to letter made the keys, and a decoder that steps from phoneme to phoneme asked. Both still wait for their last step before the next. If a look reaches every letter at once, what are the steps for? *attention-basics* takes them away.
