"""Answers to llm-overview: wrong ones named for the misconception, and right ones."""

import copy
import heapq
import math
from collections import Counter, defaultdict

import torch
from torch import nn
from torch.nn import functional as F

from answers import right, wrong


def joined(symbols, pair):
    out = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


# ------------------------------------------------------------------------------------------------ bpe_train


@wrong("bpe_train", says="as often as it comes")
def each_word_once(words, merges):
    split, pairs = {w: list(w) for w in words}, []
    for _ in range(merges):
        counts = Counter()
        for symbols in split.values():
            counts.update(zip(symbols, symbols[1:], strict=False))
        if not counts:
            break
        pairs.append(max(counts, key=lambda p: (counts[p], p)))
        split = {w: joined(s, pairs[-1]) for w, s in split.items()}
    return pairs


@wrong("bpe_train", says="across the border of two words")
def one_long_text(words, merges):
    symbols, pairs = [c for w, n in words.items() for c in w * n], []
    for _ in range(merges):
        counts = Counter(zip(symbols, symbols[1:], strict=False))
        if not counts:
            break
        best = max(counts, key=lambda p: (counts[p], p))
        pairs.append(best)
        symbols = joined(symbols, best)
    return pairs


@wrong("bpe_train", says="largest tuple")
def most_common(words, merges):
    split, pairs = {w: list(w) for w in words}, []
    for _ in range(merges):
        counts = Counter()
        for w, symbols in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += words[w]
        if not counts:
            break
        pairs.append(counts.most_common(1)[0][0])
        split = {w: joined(s, pairs[-1]) for w, s in split.items()}
    return pairs


@wrong("bpe_train", says="never again")
def counts_once(words, merges):
    counts = Counter()
    for w, n in words.items():
        for pair in zip(w, w[1:], strict=False):
            counts[pair] += n
    return sorted(counts, key=lambda p: (counts[p], p), reverse=True)[:merges]


@wrong("bpe_train", says="Nothing is merged")
def forgets_to_merge(words, merges):
    pairs = []
    for _ in range(merges):
        counts = Counter()
        for w, n in words.items():
            symbols = list(w)
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += n
        if not counts:
            break
        best = max(counts, key=lambda p: (counts[p], p))
        pairs.append(best)
        for w in words:
            joined(list(w), best)
    return pairs


@wrong("bpe_train", says="max of nothing fails")
def no_way_out(words, merges):
    split, pairs = {w: list(w) for w in words}, []
    for _ in range(merges):
        counts = Counter()
        for w, symbols in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += words[w]
        pairs.append(max(counts, key=lambda p: (counts[p], p)))
        split = {w: joined(s, pairs[-1]) for w, s in split.items()}
    return pairs


@wrong("bpe_train", says="merged symbols")
def symbols_not_pairs(words, merges):
    split, new = {w: list(w) for w in words}, []
    for _ in range(merges):
        counts = Counter()
        for w, symbols in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += words[w]
        if not counts:
            break
        best = max(counts, key=lambda p: (counts[p], p))
        new.append("".join(best))
        split = {w: joined(s, best) for w, s in split.items()}
    return new


@wrong("bpe_train", says="")
def changes_the_words(words, merges):
    pairs = []
    split = {tuple(w): n for w, n in words.items()}
    for _ in range(merges):
        counts = Counter()
        for symbols, n in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += n
        if not counts:
            break
        best = max(counts, key=lambda p: (counts[p], p))
        pairs.append(best)
        split = {tuple(joined(s, best)): n for s, n in split.items()}
    words.clear()
    return pairs


@wrong("bpe_train", says="compared joined together, as one text")
def ties_by_text(words, merges):
    split, pairs = {w: list(w) for w in words}, []
    for _ in range(merges):
        counts = Counter()
        for w, symbols in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += words[w]
        if not counts:
            break
        pairs.append(max(counts, key=lambda p: (counts[p], "".join(p))))
        split = {w: joined(s, pairs[-1]) for w, s in split.items()}
    return pairs


@wrong("bpe_train", says="as WordPiece does")
def wordpiece_score(words, merges):
    split, pairs = {w: list(w) for w in words}, []
    for _ in range(merges):
        counts, single = Counter(), Counter()
        for w, symbols in split.items():
            for pair in zip(symbols, symbols[1:], strict=False):
                counts[pair] += words[w]
            for s in symbols:
                single[s] += words[w]
        if not counts:
            break
        pairs.append(max(counts, key=lambda p: (counts[p] / (single[p[0]] * single[p[1]]), p)))
        split = {w: joined(s, pairs[-1]) for w, s in split.items()}
    return pairs


@right("bpe_train")
def with_tuples(words, merges):
    split, pairs = Counter({tuple(word): n for word, n in words.items()}), []
    while len(pairs) < merges:
        counts = defaultdict(int)
        for symbols, n in split.items():
            for i in range(len(symbols) - 1):
                counts[symbols[i], symbols[i + 1]] += n
        if not counts:
            return pairs
        best = sorted(counts.items(), key=lambda item: (item[1], item[0]))[-1][0]
        pairs.append(best)
        split = Counter({tuple(joined(symbols, best)): n for symbols, n in split.items()})
    return pairs


@right("bpe_train")
def by_index(words, merges):
    texts, weights, pairs = [list(w) for w in words], list(words.values()), []
    for _ in range(merges):
        counts = Counter()
        for text, n in zip(texts, weights, strict=True):
            for a, b in zip(text[:-1], text[1:], strict=True):
                counts[(a, b)] += n
        if len(counts) == 0:
            break
        top = max(counts.values())
        a, b = max(pair for pair in counts if counts[pair] == top)
        pairs.append((a, b))
        for text in texts:
            i = 0
            while i < len(text) - 1:
                if text[i] == a and text[i + 1] == b:
                    text[i : i + 2] = [a + b]
                i += 1
    return pairs


# ------------------------------------------------------------------------------------------------ bpe_encode


@wrong("bpe_encode", says="first known pair from the left")
def left_to_right(word, ranks):
    symbols = list(word)
    i = 0
    while i < len(symbols) - 1:
        if (symbols[i], symbols[i + 1]) in ranks:
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            i = 0
        else:
            i += 1
    return symbols


@wrong("bpe_encode", says="highest rank")
def latest_first(word, ranks):
    symbols = list(word)
    while len(symbols) > 1:
        pair = max(zip(symbols, symbols[1:], strict=False), key=lambda p: ranks.get(p, -1))
        if pair not in ranks:
            break
        symbols = joined(symbols, pair)
    return symbols


@wrong("bpe_encode", says="min of nothing fails")
def no_check_of_length(word, ranks):
    symbols = list(word)
    while True:
        pair = min(zip(symbols, symbols[1:], strict=False), key=lambda p: ranks.get(p, math.inf))
        if pair not in ranks:
            return symbols
        symbols = joined(symbols, pair)


@wrong("bpe_encode", says="Look again")
def only_one(word, ranks):
    symbols = list(word)
    if len(symbols) > 1:
        pair = min(zip(symbols, symbols[1:], strict=False), key=lambda p: ranks.get(p, math.inf))
        if pair in ranks:
            symbols = joined(symbols, pair)
    return symbols


@wrong("bpe_encode", says="longest known symbol")
def greedy_by_length(word, ranks):
    tokens = {a + b for a, b in ranks}
    out, i = [], 0
    while i < len(word):
        for j in range(len(word), i, -1):
            if word[i:j] in tokens or j == i + 1:
                out.append(word[i:j])
                i = j
                break
    return out


@wrong("bpe_encode", says="counts as rank 0")
def default_zero(word, ranks):
    symbols = list(word)
    while len(symbols) > 1:
        pair = min(zip(symbols, symbols[1:], strict=False), key=lambda p: ranks.get(p, 0))
        if pair not in ranks:
            break
        symbols = joined(symbols, pair)
    return symbols


@wrong("bpe_encode", says="a list of")
def returns_text(word, ranks):
    symbols = list(word)
    while len(symbols) > 1:
        pair = min(zip(symbols, symbols[1:], strict=False), key=lambda p: ranks.get(p, math.inf))
        if pair not in ranks:
            break
        symbols = joined(symbols, pair)
    return " ".join(symbols)


@wrong("bpe_encode", says="which need not be that of the ranks")
def in_the_dicts_order(word, ranks):
    symbols = list(word)
    for pair in ranks:
        symbols = joined(symbols, pair)
    return symbols


@wrong("bpe_encode", says="whose turn is over")
def by_rank_once(word, ranks):
    symbols = list(word)
    for pair in sorted(ranks, key=ranks.get):
        symbols = joined(symbols, pair)
    return symbols


def encoded(word, ranks, unknown=math.inf, rounds=100):
    symbols = list(word)
    while len(symbols) > 1 and rounds:
        pair = min(zip(symbols, symbols[1:], strict=False), key=lambda p: ranks.get(p, unknown))
        if pair not in ranks:
            break
        symbols, rounds = joined(symbols, pair), rounds - 1
    return symbols


@wrong("bpe_encode", says="counts as 10,000")
def ten_thousand_for_infinity(word, ranks):
    return encoded(word, ranks, unknown=10_000)


@wrong("bpe_encode", says="not above all ranks")
def length_for_infinity(word, ranks):
    return encoded(word, ranks, unknown=len(ranks))


@wrong("bpe_encode", says="after ten merges")
def at_most_ten(word, ranks):
    return encoded(word, ranks, rounds=10)


@wrong("bpe_encode", says="Not every pair of a word is in ranks")
def by_square_brackets(word, ranks):
    symbols = list(word)
    while len(symbols) > 1:
        pair = min(zip(symbols, symbols[1:], strict=False), key=lambda p: ranks[p])
        symbols = joined(symbols, pair)
    return symbols


@wrong("bpe_encode", says="Rank 0 counts as not known")
def zero_is_nothing(word, ranks):
    symbols = list(word)
    while len(symbols) > 1:
        pair = min(zip(symbols, symbols[1:], strict=False), key=lambda p: ranks.get(p, math.inf))
        if not ranks.get(pair):
            break
        symbols = joined(symbols, pair)
    return symbols


@right("bpe_encode")
def all_merges_in_order(word, ranks):
    symbols = list(word)
    changed = True
    while changed:
        changed = False
        for pair in sorted(ranks, key=ranks.get):
            after = joined(symbols, pair)
            if after != symbols:
                symbols, changed = after, True
                break
    return symbols


@right("bpe_encode")
def one_place_at_a_time(word, ranks):
    symbols = [*word]
    while True:
        known = [
            (ranks[symbols[i], symbols[i + 1]], i)
            for i in range(len(symbols) - 1)
            if (symbols[i], symbols[i + 1]) in ranks
        ]
        if not known:
            return symbols
        heapq.heapify(known)
        _, i = heapq.heappop(known)
        symbols = symbols[:i] + [symbols[i] + symbols[i + 1]] + symbols[i + 2 :]


# ------------------------------------------------------------------------------------------------ grouped_attention


def mask_of(q, k):
    T, S = q.shape[2], k.shape[2]
    return torch.ones(T, S, dtype=torch.bool).tril(S - T)


@wrong("grouped_attention", says="repeat_interleave, not repeat")
def tiled(q, k, v):
    n = q.size(1) // k.size(1)
    k, v = k.repeat(1, n, 1, 1), v.repeat(1, n, 1, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask_of(q, k))


@wrong("grouped_attention", says="triangle stands at the top left")
def top_left(q, k, v):
    n = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(n, 1), v.repeat_interleave(n, 1)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@wrong("grouped_attention", says="not divided by sqrt(D)")
def no_root(q, k, v):
    n = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(n, 1), v.repeat_interleave(n, 1)
    scores = (q @ k.transpose(-2, -1)).masked_fill(~mask_of(q, k), float("-inf"))
    return F.softmax(scores, -1) @ v


@wrong("grouped_attention", says="causal mask is missing")
def sees_all(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


@wrong("grouped_attention", says="query heads of a group are averaged")
def average_queries(q, k, v):
    B, H, T, D = q.shape
    n = H // k.shape[1]
    small = q.reshape(B, k.shape[1], n, T, D).mean(2)
    out = F.scaled_dot_product_attention(small, k, v, attn_mask=mask_of(q, k))
    return out.repeat_interleave(n, dim=1)


@wrong("grouped_attention", says="head 0")
def first_head(q, k, v):
    k, v = k[:, :1].expand(-1, q.shape[1], -1, -1), v[:, :1].expand(-1, q.shape[1], -1, -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask_of(q, k))


@wrong("grouped_attention", says="masked_fill hides where its mask is True")
def inverted(q, k, v):
    n = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(n, 1), v.repeat_interleave(n, 1)
    scores = q @ k.mT / math.sqrt(q.size(-1))
    return scores.masked_fill(mask_of(q, k), -1e9).softmax(-1) @ v


@wrong("grouped_attention", says="stay apart")
def heads_joined(q, k, v):
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_of(q, k), enable_gqa=True)
    B, H, T, D = out.shape
    return out.transpose(1, 2).reshape(B, T, H * D)


@wrong("grouped_attention", says="over the queries")
def softmax_over_queries(q, k, v):
    n = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(n, 1), v.repeat_interleave(n, 1)
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask_of(q, k), -torch.inf)
    return scores.softmax(-2).nan_to_num() @ v


def scores_of(q, k, v):
    n = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(n, 1), v.repeat_interleave(n, 1)
    return q @ k.mT / math.sqrt(q.size(-1)), ~mask_of(q, k), v


@wrong("grouped_attention", says="set to -1e9")
def hidden_by_a_billion(q, k, v):
    scores, hidden, v = scores_of(q, k, v)
    return scores.masked_fill(hidden, -1e9).softmax(-1) @ v


@wrong("grouped_attention", says="0 times infinity")
def a_billion_added(q, k, v):
    scores, hidden, v = scores_of(q, k, v)
    return (scores + hidden.to(scores.dtype) * -1e9).softmax(-1) @ v


@wrong("grouped_attention", says="float32 whatever q is")
def mask_in_single_precision(q, k, v):
    scores, hidden, v = scores_of(q, k, v)
    return (scores + torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)).softmax(-1) @ v


@wrong("grouped_attention", says="comes after the softmax")
def masked_weights(q, k, v):
    scores, hidden, v = scores_of(q, k, v)
    return scores.softmax(-1).masked_fill(hidden, 0) @ v


@wrong("grouped_attention", says="right to")
def weights_in_single_precision(q, k, v):
    scores, hidden, v = scores_of(q, k, v)
    return scores.masked_fill(hidden, -torch.inf).float().softmax(-1).to(q.dtype) @ v


@wrong("grouped_attention", says="without a dim flattens")
def flattened(q, k, v):
    k = k.repeat_interleave(q.size(1) // k.size(1))
    S = k.shape[2]
    return q[:, :, :S]


@right("grouped_attention")
def by_pytorch(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask_of(q, k), enable_gqa=True)


@right("grouped_attention")
def by_views(q, k, v):
    B, H, T, D = q.shape
    G, S = k.shape[1], k.shape[2]
    q = q.reshape(B, G, H // G, T, D)
    scores = torch.einsum("bghtd,bgsd->bghts", q, k) / math.sqrt(D)
    later = torch.arange(S)[None] > torch.arange(S - T, S)[:, None]
    weights = scores.masked_fill(later, float("-inf")).softmax(-1)
    return torch.einsum("bghts,bgsd->bghtd", weights, v).reshape(B, H, T, D)


@right("grouped_attention")
def head_by_head(q, k, v):
    n = q.shape[1] // k.shape[1]
    heads = []
    for h in range(q.shape[1]):
        one = q[:, h : h + 1], k[:, h // n : h // n + 1], v[:, h // n : h // n + 1]
        heads.append(F.scaled_dot_product_attention(*one, attn_mask=mask_of(q, k)))
    return torch.cat(heads, 1)


# ------------------------------------------------------------------------------------------------ perplexity


@wrong("perplexity", says="token at its own place")
def unshifted(logits, ids):
    return math.exp(F.cross_entropy(logits, ids).item())


@wrong("perplexity", says="shifted the wrong way")
def shifted_back(logits, ids):
    return F.cross_entropy(logits[1:], ids[:-1]).exp().item()


@wrong("perplexity", says="perplexity is exp of it")
def only_the_loss(logits, ids):
    return F.cross_entropy(logits[:-1], ids[1:]).item()


@wrong("perplexity", says="exp is taken of each loss")
def mean_of_exps(logits, ids):
    return F.cross_entropy(logits[:-1], ids[1:], reduction="none").exp().mean().item()


@wrong("perplexity", says="2 to the loss")
def base_two(logits, ids):
    return 2 ** F.cross_entropy(logits[:-1], ids[1:]).item()


@wrong("perplexity", says="T - 1 tokens")
def divided_by_T(logits, ids):
    logs = logits.log_softmax(-1)
    total = sum(logs[t, ids[t + 1]] for t in range(len(ids) - 1))
    return math.exp(-total / len(ids))


@wrong("perplexity", says="takes one itself")
def softmax_first(logits, ids):
    return F.cross_entropy(logits.softmax(-1)[:-1], ids[1:]).exp().item()


@wrong("perplexity", says="a float")
def a_tensor(logits, ids):
    return F.cross_entropy(logits[:-1], ids[1:]).exp()


@wrong("perplexity", says="overflows")
def by_hand_naively(logits, ids):
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return math.exp(-p[:-1].gather(1, ids[1:, None]).log().mean().item())


@wrong("perplexity", says="product of so many probabilities")
def root_of_the_product(logits, ids):
    p = logits[:-1].softmax(1)[torch.arange(len(ids) - 1), ids[1:]]
    return (p.prod() ** (-1 / (len(ids) - 1))).item()


@wrong("perplexity", says="its logarithm infinite")
def log_of_softmax(logits, ids):
    p = logits.softmax(1)[torch.arange(len(ids) - 1), ids[1:]]
    return math.exp(-p.log().mean())


@wrong("perplexity", says="small number is added to the probability")
def log_with_a_little(logits, ids):
    p = logits.softmax(1)[torch.arange(len(ids) - 1), ids[1:]]
    return math.exp(-(p + 1e-9).log().mean())


@wrong("perplexity", says="Large losses are cut off")
def losses_cut_off(logits, ids):
    return F.cross_entropy(logits[:-1], ids[1:], reduction="none").clamp(max=100).mean().exp().item()


@wrong("perplexity", says="")
def mean_cut_off(logits, ids):
    return math.exp(min(F.cross_entropy(logits[:-1], ids[1:]).item(), 20))


@wrong("perplexity", says="ids.roll")
def rolled(logits, ids):
    return F.cross_entropy(logits, ids.roll(-1)).exp().item()


@wrong("perplexity", says="over the positions")
def softmax_down_the_text(logits, ids):
    logs = logits.log_softmax(0)[torch.arange(len(ids) - 1), ids[1:]]
    return math.exp(-logs.mean())


@right("perplexity")
def with_nll(logits, ids):
    return math.exp(F.nll_loss(logits.log_softmax(1)[:-1], ids[1:]).item())


@right("perplexity")
def token_by_token(logits, ids):
    nats = [logits[t - 1].logsumexp(0) - logits[t - 1, ids[t]] for t in range(1, len(ids))]
    return float(torch.stack(nats).mean().exp())


# ------------------------------------------------------------------------------------------------ top_p


@wrong("top_p", says="crosses p is left out")
def strictly_within(logits, p, temperature):
    probs, order = torch.softmax(logits / temperature, 0).sort(descending=True)
    probs[probs.cumsum(0) > p] = 0
    out = torch.zeros_like(probs)
    out[order] = probs / probs.sum()
    return out


@wrong("top_p", says="come back sorted")
def never_put_back(logits, p, temperature):
    probs, _ = torch.softmax(logits / temperature, 0).sort(descending=True)
    kept = probs * (probs.cumsum(0) - probs < p)
    return kept / kept.sum()


@wrong("top_p", says="not divided by its sum")
def not_normalised(logits, p, temperature):
    probs, order = torch.softmax(logits / temperature, 0).sort(descending=True)
    kept = probs * ((probs.cumsum(0) - probs < p) | (p >= 1))
    return torch.zeros_like(kept).scatter_(0, order, kept)


@wrong("top_p", says="are multiplied by the temperature")
def warmer_is_sharper(logits, p, temperature):
    probs, order = torch.softmax(logits * temperature, 0).sort(descending=True)
    kept = probs * ((probs.cumsum(0) - probs < p) | (p >= 1))
    return torch.zeros_like(kept).scatter_(0, order, kept / kept.sum())


@wrong("top_p", says="temperature comes afterwards")
def nucleus_first(logits, p, temperature):
    probs, order = torch.softmax(logits, 0).sort(descending=True)
    keep = (probs.cumsum(0) - probs < p) | (p >= 1)
    mask = torch.zeros_like(keep).scatter(0, order, keep)
    return (logits.masked_fill(~mask, -torch.inf) / temperature).softmax(0)


@wrong("top_p", says="itself a probability")
def min_p(logits, p, temperature):
    probs = torch.softmax(logits / temperature, 0)
    kept = torch.where(probs >= min(1 - p, probs.max().item()), probs, 0.0)
    return kept / kept.sum()


@wrong("top_p", says="counted")
def top_share(logits, p, temperature):
    probs = torch.softmax(logits / temperature, 0)
    k = max(1, round(p * len(probs)))
    values, order = probs.topk(k)
    return torch.zeros_like(probs).scatter(0, order, values / values.sum())


@wrong("top_p", says="sorts once more")
def order_twice(logits, p, temperature):
    probs, order = torch.softmax(logits / temperature, 0).sort(descending=True)
    kept = probs * ((probs.cumsum(0) - probs < p) | (p >= 1))
    return (kept / kept.sum())[order]


@wrong("top_p", says="least likely come first")
def ascending(logits, p, temperature):
    probs, order = torch.softmax(logits / temperature, 0).sort()
    kept = probs * ((probs.cumsum(0) - probs < p) | (p >= 1))
    return torch.zeros_like(kept).scatter_(0, order, kept / kept.sum())


@wrong("top_p", says="token that crosses p is left out")
def one_too_few_but_one(logits, p, temperature):
    probs, order = torch.softmax(logits / temperature, 0).sort(descending=True)
    stays = probs.cumsum(0) < p
    stays[0] = True
    return torch.zeros_like(probs).scatter(0, order, probs * stays / (probs * stays).sum())


@wrong("top_p", says="p = 1 is a case of its own")
def one_is_no_case(logits, p, temperature):
    probs, order = torch.softmax(logits / temperature, 0).sort(descending=True)
    kept = probs * (probs.cumsum(0) - probs < p)
    return torch.zeros_like(probs).scatter(0, order, kept / kept.sum())


@wrong("top_p", says="the temperature still holds")
def one_without_temperature(logits, p, temperature):
    return logits.softmax(0) if p >= 1 else in_a_loop(logits, p, temperature)


@wrong("top_p", says="raised to 0.1")
def never_below_a_tenth(logits, p, temperature):
    return in_a_loop(logits, p, max(temperature, 0.1))


@wrong("top_p", says="< p, not <=")
def just_p_is_not_enough(logits, p, temperature):
    probs, order = torch.softmax(logits / temperature, 0).sort(descending=True)
    kept = probs * ((probs.cumsum(0) - probs <= p) | (p >= 1))
    return torch.zeros_like(probs).scatter(0, order, kept / kept.sum())


@wrong("top_p", says="as likely as the last one kept")
def by_the_smallest_kept(logits, p, temperature):
    probs = torch.softmax(logits / temperature, 0)
    ordered = probs.sort(descending=True).values
    kept = probs * (probs >= ordered[(ordered.cumsum(0) - ordered < p) | (p >= 1)].min())
    return kept / kept.sum()


@right("top_p")
def with_infinity(logits, p, temperature):
    scaled = logits / temperature
    values, order = torch.sort(scaled, descending=True)
    sums = values.softmax(0).cumsum(0)
    remove = sums >= p
    remove[1:] = remove[:-1].clone()
    remove[0] = False
    if p >= 1:
        remove[:] = False
    out = scaled.clone()
    out[order[remove]] = -torch.inf
    return out.softmax(0)


@right("top_p")
def in_a_loop(logits, p, temperature):
    probs = torch.softmax(logits / temperature, 0)
    if p == 1:
        return probs
    kept, total = torch.zeros_like(probs), 0.0
    for n in probs.argsort(descending=True).tolist():
        kept[n] = probs[n]
        total += probs[n].item()
        if total >= p:
            break
    return kept / kept.sum()


# ------------------------------------------------------------------------------------------------ quantize


@wrong("quantize", says="one more than fits")
def one_level_too_many(W, bits, group):
    parts = W.reshape(W.shape[0], -1, group)
    scales = parts.abs().amax(-1) / 2 ** (bits - 1)
    safe = torch.where(scales == 0, torch.ones_like(scales), scales)
    return (parts / safe[..., None]).round().reshape(W.shape).to(torch.int8), scales


@wrong("quantize", says="cut off")
def truncated(W, bits, group):
    parts = W.unflatten(1, (-1, group))
    scales = parts.abs().amax(2) / (2 ** (bits - 1) - 1)
    safe = scales.masked_fill(scales == 0, 1.0)
    return (parts / safe[..., None]).to(torch.int8).flatten(1), scales


@wrong("quantize", says="down the columns")
def over_outputs(W, bits, group):
    parts = W.unflatten(0, (-1, group))
    scales = parts.abs().amax(1) / (2 ** (bits - 1) - 1)
    safe = scales.masked_fill(scales == 0, 1.0)
    return (parts / safe[:, None]).round().flatten(0, 1).to(torch.int8), scales


@wrong("quantize", says="one scale for each row")
def per_row(W, bits, group):
    scales = W.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    safe = scales.masked_fill(scales == 0, 1.0)
    return (W / safe).round().to(torch.int8), scales.repeat(1, W.shape[1] // group)


@wrong("quantize", says="one scale for the whole matrix")
def per_tensor(W, bits, group):
    scale = W.abs().max() / (2 ** (bits - 1) - 1)
    scales = torch.ones(W.shape[0], W.shape[1] // group, dtype=W.dtype) * scale
    return (W / (scale if scale > 0 else 1)).round().to(torch.int8), scales


@wrong("quantize", says="with its sign")
def signed_largest(W, bits, group):
    parts = W.unflatten(1, (-1, group))
    scales = parts.max(2).values / (2 ** (bits - 1) - 1)
    safe = scales.masked_fill(scales == 0, 1.0)
    return (parts / safe[..., None]).round().flatten(1).to(torch.int8), scales


@wrong("quantize", says="int8")
def still_floating(W, bits, group):
    parts = W.unflatten(1, (-1, group))
    scales = parts.abs().amax(2) / (2 ** (bits - 1) - 1)
    safe = scales.masked_fill(scales == 0, 1.0)
    return (parts / safe[..., None]).round().flatten(1), scales


@wrong("quantize", says="every so many-th")
def every_nth(W, bits, group):
    parts = W.reshape(W.shape[0], group, -1)
    scales = parts.abs().amax(1) / (2 ** (bits - 1) - 1)
    safe = scales.masked_fill(scales == 0, 1.0)
    return (parts / safe[:, None]).round().reshape(W.shape).to(torch.int8), scales


@wrong("quantize", says="Scales below eps")
def not_below_eps(W, bits, group):
    parts = W.unflatten(1, (-1, group))
    scales = (parts.abs().amax(2) / (2 ** (bits - 1) - 1)).clamp(min=torch.finfo(W.dtype).eps)
    return (parts / scales[..., None]).round().flatten(1).to(torch.int8), scales


@wrong("quantize", says="7 is for 4 bits")
def always_four_bits(W, bits, group):
    parts = W.unflatten(1, (-1, group))
    scales = parts.abs().amax(2) / 7
    safe = scales.masked_fill(scales == 0, 1.0)
    return (parts / safe[..., None]).round().flatten(1).to(torch.int8), scales


@right("quantize")
def clamped(W, bits, group):
    top = 2 ** (bits - 1) - 1
    parts = W.reshape(W.size(0), W.size(1) // group, group)
    scales = (parts.abs().max(dim=2).values / top).clamp(min=torch.finfo(W.dtype).tiny)
    integers = torch.round(parts / scales.unsqueeze(2)).clamp(-top, top)
    return integers.reshape(W.size(0), W.size(1)).to(torch.int8), scales


@right("quantize")
def group_by_group(W, bits, group):
    integers = torch.zeros(W.shape, dtype=torch.int8)
    scales = W.new_zeros(W.shape[0], W.shape[1] // group)
    for row in range(W.shape[0]):
        for g in range(scales.shape[1]):
            part = W[row, g * group : (g + 1) * group]
            scales[row, g] = part.abs().max() / (2 ** (bits - 1) - 1)
            if scales[row, g] > 0:
                integers[row, g * group : (g + 1) * group] = (part / scales[row, g]).round().to(torch.int8)
    return integers, scales


# ------------------------------------------------------------------------------------------------ LoRALinear


class Base(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear
        for p in linear.parameters():
            p.requires_grad = False
        dtype = linear.weight.dtype
        self.A = nn.Parameter(torch.randn(rank, linear.in_features, dtype=dtype) / math.sqrt(linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, rank, dtype=dtype))
        self.scale = alpha / rank

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T @ self.B.T)

    def merged(self):
        with torch.no_grad():
            new = copy.deepcopy(self.linear)
            new.weight += self.scale * (self.B @ self.A)
        return new


@wrong("LoRALinear", says="both 0 at first")
class BothZero(Base):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        nn.init.zeros_(self.A)


@wrong("LoRALinear", says="B is random")
class BothRandom(Base):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        nn.init.normal_(self.B)


@wrong("LoRALinear", says="weight still learns")
class NotFrozen(Base):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        linear.requires_grad_(True)


@wrong("LoRALinear", says="multiplies by alpha")
class AlphaAlone(Base):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        self.scale = alpha


@wrong("LoRALinear", says="turned round")
class TurnedRound(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.A = nn.Parameter((torch.randn(linear.in_features, rank) / linear.in_features**0.5).to(linear.weight))
        self.B = nn.Parameter(torch.zeros(rank, linear.out_features).to(linear.weight))
        self.scale = alpha / rank

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A @ self.B)

    @torch.no_grad()
    def merged(self):
        new = copy.deepcopy(self.linear)
        new.weight += self.scale * (self.A @ self.B).T
        return new


@wrong("LoRALinear", says="changes the layer itself")
class MergesInPlace(Base):
    @torch.no_grad()
    def merged(self):
        self.linear.weight += self.scale * (self.B @ self.A)
        return self.linear


@wrong("LoRALinear", says="no bias")
class LosesTheBias(Base):
    @torch.no_grad()
    def merged(self):
        new = nn.Linear(self.linear.in_features, self.linear.out_features, bias=False).to(self.linear.weight)
        new.weight.copy_(self.linear.weight + self.scale * self.B @ self.A)
        return new


@wrong("LoRALinear", says="plain tensors")
class NoParameters(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.A = (torch.randn(rank, linear.in_features) / linear.in_features**0.5).to(linear.weight).requires_grad_()
        self.B = torch.zeros(linear.out_features, rank).to(linear.weight).requires_grad_()
        self.scale = alpha / rank

    forward, merged = Base.forward, Base.merged


@wrong("LoRALinear", says="leaves the factor")
class FactorForgottenInMerged(Base):
    @torch.no_grad()
    def merged(self):
        new = copy.deepcopy(self.linear)
        new.weight += self.B @ self.A
        return new


@wrong("LoRALinear", says="In eval()")
class OnlyInTraining(Base):
    def forward(self, x):
        return super().forward(x) if self.training else self.linear(x)


@wrong("LoRALinear", says="They are exchanged")
class Exchanged(BothRandom):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        nn.init.zeros_(self.A)


@wrong("LoRALinear", says="bias is missing")
class WeightOnly(Base):
    def forward(self, x):
        return x @ self.linear.weight.T + self.scale * (x @ self.A.T @ self.B.T)


@wrong("LoRALinear", says="scale would, too")
class FactorLearns(Base):
    def __init__(self, linear, rank, alpha):
        super().__init__(linear, rank, alpha)
        self.scale = nn.Parameter(torch.tensor(alpha / rank))


@right("LoRALinear")
class WithFunctional(nn.Module):
    def __init__(self, linear, rank, alpha):
        super().__init__()
        self.base, self.rank, self.alpha = linear, rank, alpha
        self.base.weight.requires_grad = False
        if linear.bias is not None:
            self.base.bias.requires_grad = False
        n_out, n_in = linear.weight.shape
        self.A = nn.Parameter(linear.weight.new_empty(rank, n_in).normal_(0, n_in**-0.5))
        self.B = nn.Parameter(linear.weight.new_zeros(n_out, rank))

    def forward(self, x):
        return self.base(x) + F.linear(F.linear(x, self.A), self.B) * self.alpha / self.rank

    def merged(self):
        n_out, n_in = self.base.weight.shape
        new = nn.Linear(n_in, n_out, bias=self.base.bias is not None, dtype=self.base.weight.dtype)
        new.weight.data = (self.base.weight + self.alpha / self.rank * (self.B @ self.A)).detach()
        if self.base.bias is not None:
            new.bias.data = self.base.bias.detach().clone()
        return new


@right("LoRALinear")
class WithEinsum(Base):
    def forward(self, x):
        small = torch.einsum("...i,ri->...r", x, self.A)
        return torch.einsum("...r,or->...o", small, self.scale * self.B) + self.linear(x)


# ------------------------------------------------------------------------------------------------ chat_prompt

START, END = 1, 2
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def with_system(messages):
    return messages if messages[0]["role"] == "system" else [{"role": "system", "content": SYSTEM}, *messages]


@wrong("chat_prompt", says="encode makes letters of them")
def all_as_text(messages, encode):
    text = ""
    for m in with_system(messages):
        text += f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n"
    return encode(text + "<|im_start|>assistant\n")


@wrong("chat_prompt", says="open turn at the end is missing")
def no_open_turn(messages, encode):
    ids = []
    for m in with_system(messages):
        ids += [START] + encode(m["role"] + "\n" + m["content"]) + [END] + encode("\n")
    return ids


@wrong("chat_prompt", says="two system turns")
def system_always(messages, encode):
    ids = [START, *encode("system\n" + SYSTEM), END, *encode("\n")]
    for m in messages:
        ids += [START] + encode(m["role"] + "\n" + m["content"]) + [END] + encode("\n")
    return ids + [START] + encode("assistant\n")


@wrong("chat_prompt", says="system's turn is missing")
def system_never(messages, encode):
    ids = []
    for m in messages:
        ids += [START] + encode(m["role"] + "\n" + m["content"]) + [END] + encode("\n")
    return ids + [START] + encode("assistant\n")


@wrong("chat_prompt", says="line break after END is missing")
def no_break(messages, encode):
    ids = []
    for m in with_system(messages):
        ids += [START, *encode(m["role"] + "\n" + m["content"]), END]
    return [*ids, START, *encode("assistant\n")]


@wrong("chat_prompt", says="one text")
def in_pieces(messages, encode):
    ids = []
    for m in with_system(messages):
        ids += [START, *encode(m["role"]), *encode("\n"), *encode(m["content"]), END, *encode("\n")]
    return [*ids, START, *encode("assistant\n")]


@wrong("chat_prompt", says="could end their own turn")
def cut_at_the_signs(messages, encode):
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in with_system(messages))
    ids = []
    for part in (text + "<|im_start|>assistant\n").split("<|im_start|>")[1:]:
        inside, end, after = part.partition("<|im_end|>")
        ids += [START, *encode(inside)]
        if end:
            ids += [END, *encode(after)]
    return ids


@wrong("chat_prompt", says="")
def inserts_into_the_messages(messages, encode):
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": SYSTEM})
    ids = []
    for m in messages:
        ids += [START, *encode(m["role"] + "\n" + m["content"]), END, *encode("\n")]
    return [*ids, START, *encode("assistant\n")]


@wrong("chat_prompt", says="closed")
def closed_at_the_end(messages, encode):
    ids = []
    for m in with_system(messages):
        ids += [START, *encode(m["role"] + "\n" + m["content"]), END, *encode("\n")]
    return [*ids, START, *encode("assistant\n"), END]


def prompt_of(messages, encode, last=True):
    ids = []
    for m in messages:
        ids += [START, *encode(m["role"] + "\n" + m["content"]), END, *encode("\n")]
    return [*ids, START, *encode("assistant\n")] if last else ids


@wrong("chat_prompt", says="as if to go on")
def goes_on(messages, encode):
    ids = prompt_of(with_system(messages), encode, last=messages[-1]["role"] != "assistant")
    return ids[: -1 - len(encode("\n"))] if messages[-1]["role"] == "assistant" else ids


@wrong("chat_prompt", says="before a user's message only")
def system_before_users(messages, encode):
    return prompt_of(with_system(messages) if messages[0]["role"] == "user" else messages, encode)


@wrong("chat_prompt", says="by their order in the dict")
def by_values(messages, encode):
    pairs = [tuple(m.values()) for m in with_system(messages)]
    return prompt_of([{"role": role, "content": content} for role, content in pairs], encode)


@wrong("chat_prompt", says="last ten messages")
def last_ten(messages, encode):
    return prompt_of(with_system(messages[-10:]), encode)


@wrong("chat_prompt", says="there assis")
def kept_by_content(messages, encode):
    roles = {}
    for m in with_system(messages):
        roles.setdefault(m["content"], m["role"])
    return prompt_of([{**m, "role": roles[m["content"]]} for m in with_system(messages)], encode)


@wrong("chat_prompt", says="before END")
def break_in_the_message(messages, encode):
    ids = []
    for m in with_system(messages):
        ids += [START, *encode(m["role"] + "\n" + m["content"] + "\n"), END]
    return [*ids, START, *encode("assistant\n")]


@wrong("chat_prompt", says="A list lies in the list")
def appended(messages, encode):
    ids = []
    for m in with_system(messages):
        ids.append([START, *encode(m["role"] + "\n" + m["content"]), END, *encode("\n")])
    return [*ids, START, *encode("assistant\n")]


@wrong("chat_prompt", says="could end their own turn")
def typed_signs_count(messages, encode):
    ids = []
    for m in with_system(messages):
        first, *rest = (m["role"] + "\n" + m["content"]).split("<|im_end|>")
        ids += [START, *encode(first), *[n for each in rest for n in [END, *encode(each)]], END, *encode("\n")]
    return [*ids, START, *encode("assistant\n")]


@right("chat_prompt")
def with_append(messages, encode):
    ids = []

    def turn(role, content):
        ids.append(START)
        ids.extend(encode(f"{role}\n{content}"))
        ids.append(END)
        ids.extend(encode("\n"))

    if messages[0]["role"] != "system":
        turn("system", SYSTEM)
    for message in messages:
        turn(message["role"], message["content"])
    ids.append(START)
    ids.extend(encode("assistant\n"))
    return ids


@right("chat_prompt")
def as_a_sum(messages, encode):
    first = [] if messages[0].get("role") == "system" else [{"role": "system", "content": SYSTEM}]
    turns = [
        [START] + encode("\n".join([m["role"], m["content"]])) + [END] + encode("\n") for m in first + list(messages)
    ]
    return [n for turn in turns for n in turn] + [START] + encode("assistant\n")
