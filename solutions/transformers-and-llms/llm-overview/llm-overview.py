# %% [markdown]
# # LLM Overview
#
# You have built a GPT. Here is one that others trained, on more text than you could read in ten thousand years, day and night, and it runs in the four hundred lines of [chat.py](chat.py) beside this notebook, from a file of 98 MB, without a network. You write what those lines get wrong most easily: tokens, attention with fewer keys, perplexity, the choice of the next token, four bits in place of 32, and training a third of a percent of the weights. And you find out what such a model does not know. Derivations are in the [README](README.md).

# %%
import copy
from collections import Counter
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from chat import (
    END,
    START,
    SYSTEM,
    Parts,
    Tokenizer,
    a_page,
    load_model,
    merge_all,
    turn_pairs,
    words_of,
    write_on,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn import functional as F

import atlas
from atlas import plot

lab = atlas.open("llm-overview")
device = atlas.device()
model, tokenizer = load_model(device)  # SmolLM2-135M-Instruct, licence Apache-2.0
book = atlas.data.load("moby-dick")  # public domain, PDDL-1.0

# %% [markdown]
# ## 1 · Text to tokens (14 min)
#
# Your GPT read characters, and its context was short because of it. With whole words the vocabulary never ends: what about *Queequeg*? Sennrich, Haddow and Birch (2016) took the middle from an old way of compressing, *byte pair encoding*: begin with characters, and again and again make a new symbol of the pair that stands side by side most often.
#
# By hand. The words are *hug* 5 times, *pug* 2, *hugs* 3. Pairs: (h, u) 8, (u, g) 10, (p, u) 2, (g, s) 3. So u and g become *ug*. Now (h, ug) has 8, (p, ug) 2, (ug, s) 3: *hug* is next, then (hug, s) with 3. Pairs across the border of two words are never counted, and a word that comes 5 times counts 5 times.
#
# `words_of` cuts a text into words, each with the blank before it, and writes their UTF-8 bytes as letters that one can see: a blank is Ġ, a line break Ċ. So any text is made of 256 symbols at most. `joined` is given:


# %%
def joined(symbols, pair):
    """A new list: wherever the pair stands in a list of str, from the left on, it is one symbol."""
    out = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


print(joined(["h", "u", "g", "s"], ("u", "g")), joined(["a", "a", "a"], ("a", "a")))
print(words_of("Call me Ishmael.\n"), words_of("naïve"))

# %% [markdown]
# (Of three a's two become *aa* and the third stays: *aa* is not the symbol *a*. The letters of *naïve* are the bytes of its UTF-8: ï is two of them.)


# %%
def bpe_train(words, merges):
    """Learn which pairs of symbols to merge, by byte pair encoding.

    words: Counter, from str to how often that word comes, at least 1; it stays as it is.
    merges: an int ≥ 0, how many pairs to learn.
    Each word begins as its single characters. Each round counts how often each pair of symbols
    stands side by side (every place counts), in all words, each as often as it comes; the most
    frequent pair (of equally frequent ones the largest tuple, as max compares them) is merged in
    all words.
    Returns the list of pairs, tuples of two str, in the order in which they were merged. Where no
    word has two symbols left, it ends earlier.
    """
    # TODO: a dict from word to its symbols; in each round count anew, with a Counter, then merge.
    # max(counts, key=lambda pair: (counts[pair], pair)) is the pair to merge.
    ### BEGIN SOLUTION
    split, pairs = {word: list(word) for word in words}, []
    for _ in range(merges):
        counts = Counter()
        for word, symbols in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += words[word]
        if not counts:
            break
        pairs.append(max(counts, key=lambda pair: (counts[pair], pair)))
        split = {word: joined(symbols, pairs[-1]) for word, symbols in split.items()}
    return pairs
    ### END SOLUTION


lab.check(bpe_train)

# %% [markdown]
# On the first 100,000 characters of *Moby Dick*, 200 merges (about 5 s):

# %%
words = Counter(words_of(book.train[:100_000]))
pairs = bpe_train(words, 200)
print(f"{len(words):,} different words of {words.total():,}")
print("first ", *(a + b for a, b in pairs[:14]))
print("last  ", *(a + b for a, b in pairs[-14:]))

# %% tags=["instructor"]
assert pairs[:3] == [("Ġ", "t"), ("h", "e"), ("Ġ", "a")] and len(pairs) == 200

# %% [markdown]
# **Question.** Nobody told it what a word or an ending is. Which of the merges look like knowledge of English, and which like nothing but frequency?
#
# <details><summary>Answer</summary>
#
# *Ġthe*, *ing* and *self* look like English, but they are there because they are frequent, and so are fragments such as *Ġs*. The tokenizer optimises the length of the text, nothing else. What is frequent depends on the text: trained on a novel about whales it will soon have *Ġwhale*, and on code it would have indentation.
#
# </details>
#
# ## 2 · From words to numbers (10 min)
#
# A new word is cut by the same merges, *in the order in which they were learned*: their place in the list is their *rank*. Of all pairs in the word the one with the lowest rank is merged, then the word is looked at again.
#
# By hand, with the ranks (e, r) 0, (h, e) 1, (he, r) 2: *her* begins as h, e, r. Two pairs are known, (h, e) with 1 and (e, r) with 0. The lower goes first: h, er. Now (h, er) is not known: done. Reading from left to right would have found *he* and then *her*, a token that this model has never seen in that place.


# %%
def bpe_encode(word, ranks):
    """Cut a word into the symbols of byte pair encoding.

    word: str, not empty. ranks: dict from pair (tuple of two str) to its rank, an int, lower for
    what was learned earlier, in any order and with gaps; it stays as it is.
    The word begins as its characters. As long as some pair side by side is in ranks, the one with
    the lowest rank is merged, wherever it stands.
    Returns the list of symbols: joined together they are the word.
    """
    # TODO: min over the word's pairs, with ranks.get(pair, float("inf")) as key; `joined` merges.
    ### BEGIN SOLUTION
    symbols = list(word)
    while len(symbols) > 1:
        side_by_side = zip(symbols, symbols[1:], strict=False)
        pair = min(side_by_side, key=lambda pair: ranks.get(pair, float("inf")))
        if pair not in ranks:
            break
        symbols = joined(symbols, pair)
    return symbols
    ### END SOLUTION


lab.check(bpe_encode)

# %% [markdown]
# SmolLM2's own 48,900 merges lie in its file, and your function takes them. Ids are places in its vocabulary of 49,152:

# %%
theirs = tokenizer.merges
mine = Tokenizer(tokenizer.vocabulary, theirs, bpe_encode)
for text in ("Call me Ishmael.", " Queequeg", "In 1851", "naïve 🐳", "Alle Wale atmen Luft."):
    ids = mine.encode(text)
    print(f"{text:22}{len(ids):3} tokens  {[mine.vocabulary[n] for n in ids]}")
    assert mine.decode(ids) == text
print("as chat.py encodes:", all(mine.symbols(w) == merge_all(w, mine.ranks) for w in words))

# %% [markdown]
# How much text does a token carry? We take the first $n$ merges, yours or SmolLM2's, and count bytes for each token on a part of *Moby Dick* that neither list was made from.

# %%
fresh = Counter(words_of(book.valid))
bytes_in_all = sum(len(word) * times for word, times in fresh.items())
curves = {}
for name, merges in {"yours, from the book": pairs, "SmolLM2's, from the web": theirs}.items():
    counts = [n for n in (10, 25, 50, 100, 200, 1000, 5000, 20_000, 48_900) if n <= len(merges)]
    carried = []
    for n in counts:
        ranks = {pair: rank for rank, pair in enumerate(merges[:n])}
        tokens = sum(len(bpe_encode(word, ranks)) * times for word, times in fresh.items())
        carried.append(bytes_in_all / tokens)
    curves[name] = np.array(counts), carried
    print(f"{name:24}", *(f"{n:,}: {c:.2f}" for n, c in zip(counts, carried, strict=True)))
axes = {"xlabel": "merges", "ylabel": "bytes for each token", "xscale": "log"}
title = "More merges, more text in a token; your 200 fit this book better than theirs"
_ = plot.curves(curves, **axes, title=title)

# %% tags=["instructor"]
assert curves["yours, from the book"][1][-1] > curves["SmolLM2's, from the web"][1][4]
assert 3.3 < curves["SmolLM2's, from the web"][1][-1] < 3.9

# %% [markdown]
# **Question.** A German sentence takes more tokens than the same thought in English. Who pays for that, and with what?
#
# <details><summary>Answer</summary>
#
# Whoever writes German. Each token is one step of the model: the answer is slower, costs more where tokens are sold, and the same context holds less text. The merges were counted on mostly English text, so English got the long ones. Spelling is hidden, too: a model that reads *Ġwhale* as one number has not seen its letters, which is one reason why counting letters goes wrong.
#
# </details>
#
# ## 3 · A real model in your own code (13 min)
#
# SmolLM2 (Ben Allal et al., 2025) is the machine of *transformer-architecture*, RoPE with it, and three changes that the Llama models (Touvron et al., 2023) and their kin made usual. RMS norm leaves out the mean: $x / \sqrt{\overline{x^2} + \epsilon} \cdot w$. The feed-forward network is gated, $W_{\text{down}}(\text{SiLU}(W_{\text{gate}}x) \odot W_{\text{up}}x)$. And several query heads share one head of keys and values, *grouped-query attention* (Ainslie et al., 2023): the cache is what fills memory, and it shrinks by that factor.
#
# ![One of the 30 layers: RMS norm, then queries of 9 heads and keys and values of 3, attention, added to the input; RMS norm, gate and up of width 1,536, their product, down, added again.](figures/layer.svg)
#
# Take two minutes for `Block.forward` and `SmolLM2.hidden` in [chat.py](chat.py), some thirty lines: there is nothing in them that you have not built, but for the gate. Which part would you get wrong first?
#
# Here $H = 9$ query heads meet $H_{kv} = 3$. Heads 0, 1, 2 use the first key head, 3, 4, 5 the second, 6, 7, 8 the third: neighbours share.


# %%
def grouped_attention(q, k, v):
    """Causal attention in which groups of query heads share keys and values.

    q: (B, H, T, D). k, v: (B, H_kv, S, D), H_kv divides H, S ≥ T, of q's dtype. All stay as they
    are, and may be of any size. The T queries are the last T of the S positions: query t sees the
    keys 0 ... S - T + t. Query heads 0 ... H/H_kv - 1 use key head 0, the next H/H_kv head 1, ...
    Returns (B, H, T, D), of q's dtype: the weights softmax(q·k / sqrt(D)) over the keys that may be
    seen, times their values. Gradients flow to all three.
    """
    # TODO: repeat_interleave the heads of k and v; then attention with a mask as you know it.
    ### BEGIN SOLUTION
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)  # (B, H, S, D)
    T, S = q.shape[2], k.shape[2]
    may_look = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    scores = q @ k.mT / q.shape[3] ** 0.5  # (B, H, T, S)
    return scores.masked_fill(~may_look, -torch.inf).softmax(3) @ v
    ### END SOLUTION


lab.check(grouped_attention)

# %% [markdown]
# Now your attention runs in all 30 layers. `model.parts` holds the functions that the network is made of, and `replace` puts others in.

# %%
given = Parts()
model.parts = replace(given, attend=grouped_attention)


@torch.no_grad()
def logits_of(ids):
    """Logits (T, V) of a list of numbers."""
    return model(torch.tensor([ids], device=device))[0].cpu()


parameters = sum(p.numel() for p in model.parameters())
print(f"{parameters:,} parameters, {model.token_embd.weight.numel():,} of them the embedding")
prompts = ["The capital of France is", "Call me Ishmael. Some years ago"]
fig, axes = plt.subplots(1, 2, figsize=(8.6, 3), layout="constrained")
for ax, prompt in zip(axes, prompts, strict=True):
    top = logits_of(tokenizer.encode(prompt))[-1].softmax(0).topk(6)
    names = [repr(tokenizer.decode([n]))[1:-1] for n in top.indices.tolist()]
    print(prompt, "|", *(f"{n} {p:.2f}" for n, p in zip(names, top.values.tolist(), strict=True)))
    ax.barh(names[::-1], top.values.flip(0), color=plot.COLOURS[0])
    ax.set(xlim=(0, 1), xlabel="probability")
    ax.set_title(prompt, loc="left", size=10)
title = "It knows the city; of the novel's next word, a comma"
_ = fig.suptitle(title, size=11, weight="bold", x=0.02, ha="left")

# %% tags=["instructor"]
paris = tokenizer.encode(" Paris")[0]
france = tokenizer.encode(prompts[0])
assert parameters == 134_515_008 and logits_of(france)[-1].argmax() == paris
mine_now = logits_of(tokenizer.encode(prompts[1]))
model.parts = given
assert torch.allclose(mine_now, logits_of(tokenizer.encode(prompts[1])), atol=1e-3)
model.parts = replace(given, attend=grouped_attention)

# %% [markdown]
# The tests of this course hold these logits against those of Hugging Face's *transformers* for the same file: the largest difference is below 0.0001, while the logits themselves spread by 3.
#
# **Question.** For each token the cache holds keys and values of 3 heads of 64 numbers, in 30 layers, 4 bytes each. How much is that for the longest context, 8,192 tokens, and how much would it be with 9 heads?
#
# <details><summary>Answer</summary>
#
# $2 \cdot 30 \cdot 3 \cdot 64 \cdot 4 = 46{,}080$ bytes a token, 377 MB for 8,192 of them; with 9 heads three times that, 1.1 GB, twice the weights. And each user of a server needs a cache of their own, but not weights of their own.
#
# </details>
#
# ## 4 · Paris is not a test (12 min)
#
# *Paris* came. So the code is right? One number for a whole text is a better judge. *Perplexity* is the exponential of the mean loss, over all tokens but the first, which nothing foretells:
#
# $$ \text{PPL} = \exp\Big({-\frac{1}{T-1}} \sum_{t=1}^{T-1} \ln p(x_t \mid x_0 \dots x_{t-1})\Big) $$
#
# A model that guesses among $V$ tokens alike has $V$. By hand: probabilities $1/2$ and $1/8$ for what came: $\exp((\ln 2 + \ln 8)/2) = \sqrt{16} = 4$. Mind the places: the logits at position $t$ speak of token $t + 1$.


# %%
def perplexity(logits, ids):
    """How many tokens a model hesitates between, on the average, at each step of a text.

    logits: (T, V), row t speaks of the token after position t; of any size. ids: int64 (T,), T ≥ 2,
    also hundreds.
    Returns a float, exp of the mean of -ln p(ids[t]) for t = 1 ... T - 1, p from row t - 1.
    """
    # TODO: F.cross_entropy of rows and ids that belong together; mean first, then exp.
    ### BEGIN SOLUTION
    return F.cross_entropy(logits[:-1], ids[1:]).exp().item()
    ### END SOLUTION


lab.check(perplexity)

# %% [markdown]
# Now we break the model on purpose, one part at a time, each fault one that people have made. Does it still say *Paris*, and what is the perplexity of 128 tokens of *Moby Dick*, from its test part? All in all about 10 s.


# %%
def turn_halves(x, positions, base):
    """RoPE in the other layout: entries i and i + D/2 are a pair."""
    D = x.shape[-1]
    angles = positions[:, None] / base ** (torch.arange(0, D, 2, device=x.device) / D)
    left, right = x.chunk(2, -1)
    turned = left * angles.cos() - right * angles.sin(), left * angles.sin() + right * angles.cos()
    return torch.cat(turned, -1)


def tiled(q, k, v):
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat(1, times, 1, 1), v.repeat(1, times, 1, 1)  # heads 0 1 2 0 1 2 0 1 2
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def seeing_all(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


faults = {
    "none": {"attend": grouped_attention},
    "layer norm for RMS norm": {"norm": lambda x, w, eps: F.layer_norm(x, w.shape, w, eps=eps)},
    "RoPE base 10,000": {"turn": lambda x, positions, base: turn_pairs(x, positions, 1e4)},
    "GELU for SiLU": {"bend": F.gelu},
    "RoPE pairs the halves": {"turn": turn_halves},
    "no RoPE": {"turn": lambda x, positions, base: x},
    "ReLU for SiLU": {"bend": F.relu},
    "key heads tiled": {"attend": tiled},
    "no causal mask": {"attend": seeing_all},
}
page = tokenizer.encode(a_page("")[:2000])[:128]
france, found = tokenizer.encode("The capital of France is"), {}
print("fault                      perplexity   the capital of France is")
for name, changed in faults.items():
    model.parts = replace(given, **changed)
    says = logits_of(france)[-1].softmax(0)
    found[name] = perplexity(logits_of(page), torch.tensor(page)), tokenizer.decode([says.argmax()])
    print(f"{name:26}{found[name][0]:11,.1f}   {found[name][1]!r} ({says.max():.2f})", flush=True)
model.parts = replace(given, attend=grouped_attention)
fig, ax = plt.subplots(figsize=(7.8, 3.6), layout="constrained")
names = list(faults)[::-1]
paris_too = [plot.COLOURS[1 if found[name][1] == " Paris" else 7] for name in names]
ax.barh(names, [found[name][0] for name in names], color=paris_too)
ax.barh([names[-1]], [found["none"][0]], color=plot.COLOURS[2])
ax.axvline(found["none"][0], color=plot.COLOURS[2], ls="--")
ax.set(
    xscale="log",
    xlim=(1, 2e6),
    xlabel="perplexity of 128 tokens of Moby Dick (orange: still says Paris)",
)
title = "Five faults pass the Paris test; perplexity finds each of them"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
right = found["none"][0]
still = [name for name in faults if found[name][1] == " Paris"]
assert still == list(faults)[:6] and 55 < right < 70
assert all(found[name][0] > 1.02 * right for name in list(faults)[1:8])
assert found["no causal mask"][0] < 0.5 * right and found["key heads tiled"][0] > 10_000

# %% [markdown]
# **Question.** The model without its causal mask has by far the best perplexity. Why is it useless, and what would you look for whenever a number is too good?
#
# <details><summary>Answer</summary>
#
# At position $t$ it sees token $t + 1$, which it is to foretell, and partly copies it. In use there is no token $t + 1$: it says `_` where Paris was due. A number that is too good is a leak until proven otherwise: change a later token and see whether an earlier logit moves, the test that you know from *transformer-architecture*. Perplexity, too, has its blind spots: it compares models with the same tokenizer only, and it cannot know whether this page was among the training texts.
#
# </details>
#
# And the heads that *attention-basics* ended with, which continue a pattern: are they in here, too, where nobody asked for them? Forty tokens drawn at random, and the same forty again. Whoever is to foretell the second round must look into the first, one place after the token's last occurrence. `induction_score` is yours from there.

# %%
maps = []


def noting(q, k, v):
    """As grouped_attention; the weights, (1, 9, T, T), are kept in maps."""
    scores = q @ k.repeat_interleave(3, 1).mT / q.shape[3] ** 0.5
    later = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu(1)
    maps.append(scores.masked_fill(later, -torch.inf).softmax(3).cpu())
    return grouped_attention(q, k, v)


def induction_score(weights, period):
    """The mean weight (H,) at the place after the last occurrence, of weights (B, H, T, T)."""
    i = torch.arange(period, weights.shape[-1])
    return weights[:, :, i, i - period + 1].mean((0, 2))


twice = torch.randint(1000, 40_000, (40,), generator=torch.Generator().manual_seed(0)).repeat(2)
model.parts = replace(given, attend=noting)
nats = F.cross_entropy(logits_of(twice.tolist())[:-1], twice[1:], reduction="none")
model.parts = replace(given, attend=grouped_attention)
heads = torch.stack([induction_score(weights, 40) for weights in maps])  # (30, 9)
print(f"loss in the first round {nats[:39].mean():.1f} nat, in the second {nats[39:].mean():.1f}")
for n in heads.flatten().topk(4).indices.tolist():
    print(f"layer {n // 9:2}, head {n % 9}: {heads[n // 9, n % 9]:.2f}")
fig, ax = plt.subplots(figsize=(8.6, 2.9), layout="constrained")
shown = ax.imshow(heads.T, cmap="Blues", vmin=0, vmax=1)
fig.colorbar(shown, ax=ax, label="induction score", shrink=0.8)
ax.set(xlabel="layer, from 0", ylabel="head")
title = f"A few of 270 heads continue a pattern; the strongest scores {heads.max():.2f}"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert heads.argmax() == 18 * 9 + 6 and heads.max() > 0.7 and heads.median() < 0.05
assert nats[39:].mean() < nats[:39].mean() - 8

# %% [markdown]
# **Break.** 5 minutes.
#
# ## 5 · Choosing the next token (13 min)
#
# A model gives probabilities; somebody has to choose. Always the likeliest is dull, and sometimes runs in circles. Drawing from all 49,152 is risky: thousands of tokens that fit badly have, together, a few percent, and at each step one of them may come. *Temperature* divides the logits. *Top-p* or *nucleus* sampling (Holtzman et al., 2020) keeps the likeliest tokens until their probabilities reach $p$, sets the others to 0 and divides by the sum.
#
# By hand: probabilities 0.5, 0.3, 0.15, 0.05 and $p = 0.7$. The first has 0.5, not enough; with the second it is 0.8. So two stay, the one that crosses $p$ is kept: 0.625, 0.375, 0, 0.


# %%
def top_p(logits, p, temperature):
    """Probabilities of the next token when only the nucleus may come.

    logits: float tensor (V,), finite, in any order; they stay as they are. p: a number, 0 < p ≤ 1.
    temperature: a number > 0. First softmax(logits / temperature). Then the likeliest tokens are
    kept, as few as have together at least p, so always one; which of equally likely ones does not
    matter. With p = 1 all are kept.
    Returns (V,) of the logits' dtype, in the order of the logits: 0 where not kept, else divided by
    the sum of those kept.
    """
    # TODO: sort falling; a token stays if those before it sum to less than p (with p = 1 always: a
    # rounded sum reaches 1 too early); then back in place.
    ### BEGIN SOLUTION
    probabilities, order = (logits / temperature).softmax(0).sort(descending=True)
    before = probabilities.cumsum(0) - probabilities
    kept = probabilities * ((before < p) | (p == 1))
    return torch.zeros_like(kept).scatter(0, order, kept / kept.sum())
    ### END SOLUTION


lab.check(top_p)

# %% [markdown]
# How large is the nucleus? On the page of *Moby Dick* we count for each position how many tokens $p = 0.9$ keeps.

# %%
rows = logits_of(page)
sizes = np.array([(top_p(row, 0.9, 1.0) > 0).sum().item() for row in rows])
print(f"smallest {sizes.min()}, median {np.median(sizes):.0f}, largest {sizes.max():,}")
for t in np.argsort(sizes)[[0, 1, 2, -3, -2, -1]]:
    context = tokenizer.decode(page[max(0, t - 7) : t + 1]).replace("\n", " ").strip()
    print(f"{sizes[t]:6,} after …{context!r}")
fig, ax = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
ax.hist(sizes, np.geomspace(1, 20_000, 25), color=plot.COLOURS[0])
ax.set(xscale="log", xlabel="tokens that p = 0.9 keeps", ylabel="positions of the page")
title = f"Sometimes few tokens make sense, sometimes thousands (median {np.median(sizes):.0f})"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert sizes.min() < 5 and sizes.max() > 1000 and 50 < np.median(sizes) < 500

# %% [markdown]
# Five ways to choose, three openings of our own, 20 tokens each, drawn side by side in one batch with one generator (about 10 s). What each text costs the model itself, in nat a token, says how much it surprises it; the real page costs about 4. (Drawn from all tokens with T = 1 a text costs less than the page: it surprises its own author as much as that author expects, a text by somebody else more.)

# %%
ways = {
    "always the likeliest": (1e-4, 1.0),
    "T = 0.7, p = 0.9": (0.7, 0.9),
    "T = 1, p = 0.9": (1.0, 0.9),
    "T = 1, p = 1": (1.0, 1.0),
    "T = 1.5, p = 1": (1.5, 1.0),
}
openings = ["The old ship left", "In the morning we", "My father was a"]
starts = [tokenizer.encode(text) for text in openings]
assert len({len(start) for start in starts}) == 1  # one batch: all of one length
generator, costs = torch.Generator().manual_seed(0), []


def choose(logits):
    """A token for each row (B, V) of the batch: the five ways, for each opening in turn."""
    logits = logits.cpu()
    settings = list(ways.values()) * len(starts)
    kept = torch.stack([top_p(row, p, T) for row, (T, p) in zip(logits, settings, strict=True)])
    tokens = torch.multinomial(kept, 1, generator=generator)[:, 0]
    costs.append(F.cross_entropy(logits, tokens, reduction="none"))
    if len(costs) % 5 == 0:
        print(f"{len(costs)} tokens of 20", flush=True)
    return tokens.to(device)


batch = torch.tensor(starts, device=device).repeat_interleave(len(ways), 0)
written = torch.stack(list(write_on(model, batch, 20, choose)), 1).cpu()
nats = torch.stack(costs).mean(0).view(len(starts), len(ways)).mean(0)
for way, cost, row in zip(ways, nats, written, strict=False):
    print(f"{way:21} {cost:.2f} nat   {openings[0]}{tokenizer.decode(row.tolist())!r}")
fig, ax = plt.subplots(figsize=(7.2, 2.8), layout="constrained")
ax.barh(list(ways)[::-1], nats.flip(0), color=plot.COLOURS[0])
ax.axvline(np.log(found["none"][0]), color=plot.COLOURS[1], ls="--", label="the page of Moby Dick")
ax.legend(frameon=False)
ax.set_xlabel("loss of what was chosen (nat a token)")
title = "What it likes best is far more foreseeable than what people write"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
assert nats[0] < nats[2] < nats[3] < nats[4] and nats[0] < np.log(right) - 1.5

# %% [markdown]
# **Question.** Why not top-$k$, always the 40 likeliest?
#
# <details><summary>Answer</summary>
#
# After *mast-heads were punctually manned af* one token makes sense, and 40 let nonsense in; after *At day-break, the* thousands do, and 40 cut off most of what people write. A share adapts. But $p$ does not know what is true: a false date may be the likeliest.
#
# </details>
#
# ## 6 · Prompt, chat, and what it gets wrong (9 min)
#
# A model trained on pages of the web alone writes pages on. To get answers, one trains it further on talks, written in a fixed form: `<|im_start|>user`, a line break, the text, `<|im_end|>`. These two signs are single tokens, 1 and 2, which no typed text may become. SmolLM2-Instruct was trained so, and expects it. Here is the form for one question; in the last section you write it for a whole talk. We ask without and with it, always the likeliest token, 16 at most (about 10 s).


# %%
def answer(ids, limit=16):
    """What follows, by the likeliest token each time, up to the end sign."""
    said = []
    tokens = torch.tensor([ids], device=device)
    for token in write_on(model, tokens, limit, lambda logits: logits.argmax(1)):
        if token.item() in (0, END):
            break
        said.append(token.item())
    return tokenizer.decode(said)


def asked(question):
    """The form: the system's turn, the user's, and the assistant's left open."""
    encode = tokenizer.encode
    system = [START, *encode("system\n" + SYSTEM), END, *encode("\n")]
    user = [START, *encode("user\n" + question), END, *encode("\n")]
    return [*system, *user, START, *encode("assistant\n")]


questions = [
    "What is the capital of France?",
    "Who wrote the novel Moby Dick?",
    "Who wrote Moby Dick?",
    "What is 17 + 25?",
    "How many moons does the Earth have?",
]
print(f"without the form: {answer(tokenizer.encode(questions[0]))!r}")
answers = {}
for question in questions:
    answers[question] = answer(asked(question))
    print(f"{question:38} {answers[question]!r}", flush=True)

# %% tags=["instructor"]
assert "Paris" in answers[questions[0]] and "Melville" in answers[questions[1]]
assert "Melville" not in answers[questions[2]] and "42" not in answers[questions[3]]
assert answer(tokenizer.encode(questions[0])) == ""

# %% [markdown]
# Without the form it says nothing: it was trained on talks, and after a bare question the end of the turn is likeliest. One word more in the question, and another author. Both answers come in the same confident tone, since tone is what such texts have in common, and facts are what they differ in. 135 million numbers hold a capital, but not arithmetic, and not whatever one asks. Larger models know more and err less often; that fluency is no sign of knowledge stays true of them.
#
# Next: what did it take from its texts about people? We begin a sentence with each of ten occupations, in two ways, and compare the two words that may follow, *she* and *he*.

# %%
he, she = (tokenizer.encode(word)[0] for word in (" he", " she"))
jobs = ["nurse", "secretary", "librarian", "teacher", "doctor"]
jobs += ["engineer", "pilot", "lawyer", "carpenter", "farmer"]
share = {"The … said that": {}, "The … was late because": {}}
for frame, found_by_job in share.items():
    for job in jobs:
        says = logits_of(tokenizer.encode(frame.replace("…", job)))[-1].softmax(0)
        found_by_job[job] = (says[she] / (says[she] + says[he])).item()
said, late = share.values()
order = sorted(jobs, key=said.get)
fig, ax = plt.subplots(figsize=(7.8, 3), layout="constrained")
for n, (frame, found_by_job) in enumerate(share.items()):
    places = np.arange(len(jobs)) + 0.4 * n - 0.2
    ax.bar(places, [found_by_job[job] for job in order], 0.38, color=plot.COLOURS[n], label=frame)
ax.axhline(0.5, color=plot.COLOURS[7], ls="--")
ax.set_xticks(range(len(jobs)), order, size=8)
ax.set(ylim=(0, 1), ylabel="she / (she + he)")
ax.legend(frameon=False, loc="upper left")
title = f"The word follows the job: nurse {said['nurse']:.2f}, farmer {said['farmer']:.2f}"
_ = ax.set_title(title, loc="left", size=11, weight="bold")

# %% tags=["instructor"]
for each in share.values():
    assert min(each["nurse"], each["librarian"]) > 0.75 and max(each["farmer"], each["carpenter"]) < 0.45
assert sum(value > 0.5 for value in said.values()) == 8 and late["doctor"] < 0.5 < said["doctor"]

# %% [markdown]
# **Question.** *Farmer* tells nothing of who somebody is. Where does the difference come from, and when does it do harm?
#
# <details><summary>Answer</summary>
#
# From the texts: the model has learned who is written about in which job, and hands it on as if it were a rule. In a story one may not notice. In a letter of reference, a translation from a language without *he* and *she*, or a choice among applicants it treats people by their group. It can be measured, as here, before such a model is used. But see how much the sentence counts: after *said that* the doctor is rather *she*, after *was late because* rather *he*, while nurse and farmer stay where they were. One sentence and ten jobs are a beginning, not a verdict.
#
# </details>
#
# ## 7 · Fewer bits (12 min)
#
# 134.5 million numbers of 32 bits are 538 MB; the file has 98. Its weights are kept as whole numbers of 4 bits. The simplest way: a *group* of $g$ weights side by side in a row shares one *scale*,
#
# $$ s = \frac{\max_i |w_i|}{2^{b-1} - 1}, \qquad n_i = \text{round}(w_i / s), \qquad \hat w_i = s\, n_i $$
#
# With $b$ bits the whole numbers go from $-(2^{b-1} - 1)$ to $2^{b-1} - 1$; the error is at most $s/2$. By hand, $b = 3$, so $-3 \dots 3$: $(0.6, -0.25, 0.08)$ has $s = 0.2$, so $w/s = (3, -1.25, 0.4)$ becomes $(3, -1, 0)$, which is read as $(0.6, -0.2, 0)$.


# %%
def quantize(W, bits, group):
    """Whole numbers and scales in place of weights.

    W: float tensor (out, in), sizes from 1e-30 to 1e30, or 0; it stays as it is. bits: an int from
    2 to 8. group: an int that divides in; so many entries side by side in a row share a scale, the
    largest absolute value among them divided by 2^(bits - 1) - 1.
    Returns (integers, scales): integers torch.int8 (out, in), each weight divided by its scale and
    rounded to the nearest; scales (out, in / group), of W's dtype. A group that is all zeros gets
    integers 0 and any finite scale.
    """
    # TODO: W.unflatten(1, (-1, group)) is (out, in / group, group); where the scale is 0, mind 0/0.
    ### BEGIN SOLUTION
    parts = W.unflatten(1, (-1, group))
    scales = parts.abs().amax(2) / (2 ** (bits - 1) - 1)
    integers = (parts / scales.masked_fill(scales == 0, 1.0)[:, :, None]).round()
    return integers.flatten(1).to(torch.int8), scales
    ### END SOLUTION


lab.check(quantize)

# %% [markdown]
# All 210 matrices of the 30 layers, with one scale for each row and with one for each 32 weights. A scale of 16 bits for 32 weights costs half a bit for each. The matrices come from a file of 4 bits already, so this is a second rounding. What does it do to the perplexity? About 12 s. (Let it end: stopped halfway it leaves rounded weights, and the first cell has to load the model anew.)

# %%
layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
whole = [layer.weight for layer in layers]
target, results = torch.tensor(page), {"a scale for each row": {}, "for each 32 weights": {}}


def read_back(integers, scales):
    """The weights that integers and scales stand for."""
    return (integers.unflatten(1, (scales.shape[1], -1)) * scales[:, :, None]).flatten(1)


for bits in (8, 6, 4, 3):
    for name, found_by_bits in results.items():
        for layer, W in zip(layers, whole, strict=True):
            group = 32 if "32" in name else W.shape[1]
            rounded = read_back(*quantize(W, bits, group))
            layer.weight = nn.Parameter(rounded, requires_grad=False)
        found_by_bits[bits] = perplexity(logits_of(page), target)
    print(f"{bits} bits", *(f"{n} {each[bits]:10,.1f}" for n, each in results.items()), flush=True)
for layer, W in zip(layers, whole, strict=True):
    layer.weight = W
lines = {n: (np.array(list(each)), list(each.values())) for n, each in results.items()}
lines["as in the file"] = np.array([3, 8]), [right_now := perplexity(logits_of(page), target)] * 2
title = "At 8 bits hardly anything is lost; at 4 it matters how many share a scale"
_ = plot.curves(lines, xlabel="bits of an integer", ylabel="perplexity", yscale="log", title=title)

# %% tags=["instructor"]
rows, groups = results.values()
assert rows[8] < 1.03 * right_now and groups[8] < 1.02 * right_now
assert 1.5 < rows[4] / right_now < 3 and 1.3 < groups[4] / right_now < 1.6
assert rows[3] > 50 * right_now and groups[3] > 2.5 * right_now

# %% [markdown]
# **Question.** With 4 bits and groups of 32 perplexity rises by nearly a half. The file has 4 bits and groups of 32, too. What does it do better?
#
# <details><summary>Answer</summary>
#
# It was rounded from the original weights, we from what was rounded already. And its kind, Q4_1, keeps two numbers for a group, the least weight $m$ and a scale: $\hat w = m + s\,n$ with $n = 0 \dots 15$, see `unpacked` in chat.py: all 16 numbers are used, and a group that is not symmetric loses nothing. That is 20 bytes for 32 weights, 5 bits each. The embedding, which is the output matrix too, it keeps in 8. Rows have outliers, weights far larger than the others, and one makes the scale coarse for its whole group: Dettmers et al. (2022) found that in larger models a few entries decide everything.
#
# </details>
#
# **Break.** 5 minutes.
#
# ## 8 · LoRA: 0.34 % of the weights (17 min)
#
# To teach the model a task, one could train all 134.5 million weights, and would keep three more numbers for each, the gradient and Adam's two. Hu et al. (2022) leave them as they are and add, to a few matrices $W$ of shape (out, in), a product of two thin ones:
#
# $$ y = Wx + \frac{\alpha}{r} B A x, \qquad A: (r, \text{in}),\; B: (\text{out}, r) $$
#
# ![x goes through the frozen W, and beside it through A to r numbers and through B to the output's width, times alpha over r; both are added.](figures/lora.svg)
#
# $B$ begins at 0, so at first the layer gives what it gave before. $A$ begins at random. By the chain rule, the gradient of $B$ holds $Ax$, which is not 0; that of $A$ holds $B$, which is 0 in the first step, and not after it. Were both 0, neither would ever move.


# %%
class LoRALinear(nn.Module):
    """A linear layer that is frozen, and a product of two thin matrices beside it that learns.

    linear: nn.Linear(n_in, n_out), with or without bias. It becomes a part of this module; its
    parameters get requires_grad False and keep their values. rank: an int ≥ 1. alpha: a float.
    Parameters A (rank, n_in), drawn from a normal distribution of spread 1 / sqrt(n_in), and
    B (n_out, rank), zeros, both of the layer's dtype. Only they learn.
    forward(x): x (..., n_in) -> linear(x) + alpha / rank * x Aᵀ Bᵀ, (..., n_out).
    merged(): a new nn.Linear of the same size that gives the same by itself: its weight is
    W + alpha / rank * B A, its bias (if there is one) the layer's. It shares no numbers with this
    layer, which stays as it is.
    """

    def __init__(self, linear, rank, alpha):
        super().__init__()
        # TODO: the layer, linear.requires_grad_(False); A and B as nn.Parameter; the factor.
        ### BEGIN SOLUTION
        self.linear = linear.requires_grad_(False)
        n_out, n_in = linear.weight.shape
        self.A = nn.Parameter(torch.randn(rank, n_in).to(linear.weight) / n_in**0.5)
        self.B = nn.Parameter(torch.zeros(n_out, rank).to(linear.weight))
        self.factor = alpha / rank
        ### END SOLUTION

    def forward(self, x):
        # TODO: the frozen layer's result, and x through A, then B (B A would be as large as W).
        ### BEGIN SOLUTION
        return self.linear(x) + self.factor * (x @ self.A.T @ self.B.T)
        ### END SOLUTION

    @torch.no_grad()
    def merged(self):
        # TODO: copy.deepcopy(self.linear), and its weight += factor * B A.
        ### BEGIN SOLUTION
        layer = copy.deepcopy(self.linear)
        layer.weight += self.factor * self.B @ self.A
        return layer
        ### END SOLUTION


lab.check(LoRALinear)

# %% [markdown]
# The task, small enough for two cores: first names from two lists that were collected before 2002, female and male. (A name does not tell who bears it; the lists are all that is to be learned.) The model reads *Anna is a* and we compare two logits, *girl* and *boy*. No vocabulary of 49,152 is needed for that: $h \cdot (E_{\text{girl}} - E_{\text{boy}})$, with the rows of the embedding.


# %%
names = atlas.data.load("names")  # PDDL-1.0
E = model.token_embd.weight
girl, boy = (E[tokenizer.encode(word)[0]] for word in (" girl", " boy"))


def scores(some, size=32):
    """For each name the logit of girl minus that of boy."""
    rows = [torch.tensor(tokenizer.encode(f"{name.capitalize()} is a")) for name in some]
    out = torch.zeros(len(rows), device=device)
    order = sorted(range(len(rows)), key=lambda n: len(rows[n]))  # names of like length together
    for part in (order[n : n + size] for n in range(0, len(order), size)):
        ids = nn.utils.rnn.pad_sequence([rows[n] for n in part], batch_first=True).to(device)
        last = torch.tensor([len(rows[n]) - 1 for n in part], device=device)
        h = model.hidden(ids)[torch.arange(len(part), device=device), last]  # padding comes later
        out = out.index_put((torch.tensor(part, device=device),), h @ (girl - boy))
    return out


tested, is_male = names.x_test[:200], torch.tensor(names.y_test[:200], device=device)
with torch.no_grad():
    before = scores(tested)
right_before = ((before < 0) == is_male).float().mean().item()
print(f"as it came: {right_before:.1%} of 200 names; {(before > 0).float().mean():.0%} called girl")

# %% [markdown]
# Now LoRA of rank 8 on queries and values of all layers, 128 names, two times through, 16 at a time. About 20 s. (Once only: before a second time run the cell after it, which merges.)

# %%
torch.manual_seed(0)
for block in model.blk:
    block.attn_q = LoRALinear(block.attn_q, 8, 16.0)
    block.attn_v = LoRALinear(block.attn_v, 8, 16.0)
learning = [p for p in model.parameters() if p.requires_grad]
count = sum(p.numel() for p in learning)
print(f"{count:,} of {parameters:,} parameters learn, {count / parameters:.2%}")
picked = np.random.default_rng(0).permutation(len(names.x_train))
few = [names.x_train[n] for n in picked[:128]]
labels = torch.tensor([names.y_train[n] for n in picked[:128]], device=device).float()
held, is_male_held = names.x_valid[:48], torch.tensor(names.y_valid[:48], device=device).float()


def held_out():
    """Loss on 48 names of the validation part (nat)."""
    with torch.no_grad():
        return F.binary_cross_entropy_with_logits(-scores(held), is_male_held).item()


optimizer, losses, valid = torch.optim.AdamW(learning, lr=2e-3), [], [held_out()]
for epoch in range(2):
    for part in torch.randperm(128).split(16):
        loss = F.binary_cross_entropy_with_logits(-scores([few[n] for n in part]), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    valid.append(held_out())
    print(
        f"epoch {epoch + 1}: loss {np.mean(losses[-8:]):.3f} nat, held out {valid[-1]:.3f}",
        flush=True,
    )
drawn = {"train, 16 names a step": losses, "validation": (np.array([0, 8, 16]), valid)}
title = f"In 16 steps the loss on held-out names falls from {valid[0]:.2f} to {valid[-1]:.2f} nat"
_ = plot.curves(drawn, xlabel="step", ylabel="loss (nat)", title=title)

# %% [markdown]
# And the opponent: letters. Logistic regression on all runs of one to four letters of a name, from as many names, and from more. But first `merged` puts the layers back as plain ones: nothing is slower than before. About 10 s.

# %%
with torch.no_grad():
    after = scores(tested)
    for block in model.blk:
        block.attn_q, block.attn_v = block.attn_q.merged(), block.attn_v.merged()
    apart = (scores(tested[:32]) - after[:32]).abs().max().item()
right_after = ((after < 0) == is_male).float().mean().item()
print(f"merged, the scores differ by {apart:.0e} at most")
letters = {}
for n in (64, 128, 256, 512, 1024, 6184):
    some = picked[:n]
    counts = CountVectorizer(analyzer="char_wb", ngram_range=(1, 4), binary=True)
    line = make_pipeline(counts, LogisticRegression(C=1.0, max_iter=1000))
    line.fit([names.x_train[k] for k in some], names.y_train[some])
    letters[n] = line.score(tested, names.y_test[:200])
    print(f"letters, {n:5,} names: {letters[n]:.1%}")
print(f"SmolLM2 as it came {right_before:.1%}, with LoRA and 128 names {right_after:.1%}")
shown = {"runs of letters": (np.array(list(letters)), list(letters.values()))}
ax = plot.curves(
    shown,
    xlabel="names to learn from",
    ylabel="share right of 200 names",
    xscale="log",
    title=f"LoRA with 128 names: {right_after:.0%}; letters with 6,184: {letters[6184]:.0%}",
)
ax.plot([128], [right_after], "s", color=plot.COLOURS[1], label="SmolLM2 with LoRA")
ax.axhline(right_before, color=plot.COLOURS[1], ls="--", label="SmolLM2 as it came")
_ = ax.legend(frameon=False)

# %% tags=["instructor"]
assert valid[-1] < valid[0] - 0.05
assert count == 460_800 and right_before < 0.7 and apart < 0.01
assert right_before + 0.05 < right_after < letters[6184] and right_after > letters[128] - 0.04
assert letters[64] < letters[1024] < letters[6184]

# %% [markdown]
# **Question.** Does pretraining pay here? And how sure are you, with 200 names?
#
# <details><summary>Answer</summary>
#
# The standard error of a share of 0.8 of 200 names is $\sqrt{0.8 \cdot 0.2 / 200} = 2.8$ points, of 0.7 3.2; of the difference of two, were they independent, about 4. So read no difference of two points as one. Hold LoRA against letters from the *same* 128 names: in our run it is 9 points ahead, about two standard errors, since the model has met names before. With thousands a table of letters wins, at a thousandth of the cost. A large model is a good beginning where labels are few. Where there are many, try the cheap thing first, and never leave it out of the plot.
#
# </details>
#
# ## 9 · From notebook to program (9 min)
#
# [chat.py](chat.py) talks, completes and measures. Yours to write is `chat_prompt`, the form for a whole talk. It is also a matter of safety: if somebody types `<|im_end|>` into a question, those are ten letters, and must not become token 2. That is why it puts numbers together, not text. In a terminal beside the notebook, in its folder (from the course's: `cd workshops/transformers-and-llms/llm-overview`):
#
#     atlas check chat_prompt
#     python chat.py Who wrote Moby Dick? --temperature 0 --figure runs/who.png
#     python chat.py --complete "The white whale" --temperature 1
#     python chat.py --perplexity README.md
#
# The second draws how likely the model found each token of its answer: look at the author's name.
#
# What you have is the whole of a language model's use: tokens, layers, a loss, a choice, a form, a cheap way to adapt it. What it has *learned* came from others' texts, and what it says is to be checked as those are. In the project it may look things up.
