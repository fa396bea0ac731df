"""Answers to attention-for-sequences: wrong ones named for the misconception, and right ones."""

import math

import torch
from torch.nn import functional as F

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ masked_softmax


@wrong("masked_softmax", says="does not sum to 1")
def mask_last(scores, mask):
    return F.softmax(scores, dim=-1) * mask.unsqueeze(1)


@wrong("masked_softmax", says="is a minus missing")
def tiny_instead_of_huge(scores, mask):
    return torch.softmax(scores.masked_fill(mask[:, None] == 0, 1e-9), dim=-1)


@wrong("masked_softmax", says="padding takes a share")
def zeroed_scores(scores, mask):
    kept = scores * mask[:, None]
    return kept.softmax(-1) * mask[:, None]


@wrong("masked_softmax", says="True is a letter")
def wrong_way_round(scores, mask):
    low = torch.finfo(scores.dtype).min
    return scores.masked_fill(mask[:, None], low).softmax(2) * ~mask[:, None]


@wrong("masked_softmax", says="over S, the letters")
def over_the_steps(scores, mask):
    low = torch.finfo(scores.dtype).min
    return F.softmax(scores.masked_fill(~mask[:, None], low), dim=1) * mask[:, None]


@wrong("masked_softmax", says="softmax of that is NaN")
def infinitely_low(scores, mask):
    return torch.where(mask[:, None], scores, -torch.inf).softmax(-1)


@right("masked_softmax")
def nan_to_zero(scores, mask):
    weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
    return torch.where(mask[:, None], weights, 0.0)


@wrong("masked_softmax", says="equal weights that sum to 1")
def uniform_where_nothing_is(scores, mask):
    return scores.masked_fill(~mask[:, None], -1e9).softmax(2)


@wrong("masked_softmax", says="exp of large scores overflows")
def by_the_formula(scores, mask):
    powers = torch.exp(scores) * mask[:, None]
    total = powers.sum(2, keepdim=True)
    return powers / torch.where(total > 0, total, torch.ones_like(total))


@wrong("masked_softmax", says="no weight is left for the letters")
def guarded(scores, mask):
    weights = scores.softmax(-1) * mask[:, None]
    return weights / (weights.sum(-1, keepdim=True) + 1e-12)


@wrong("masked_softmax", says="mask")
def in_place(scores, mask):
    scores[~mask[:, None].expand_as(scores)] = torch.finfo(scores.dtype).min
    return scores.softmax(2) * mask[:, None]


@wrong("masked_softmax", says="Padding's score is -1e9")
def large_finite(scores, mask):
    return torch.where(mask.unsqueeze(1), scores, torch.full_like(scores, -1e9)).softmax(-1) * mask.unsqueeze(1)


@wrong("masked_softmax", says="is the lowest that it holds")
def lowest_of_single_precision(scores, mask):
    low = torch.finfo(torch.float32).min
    return scores.masked_fill(~mask[:, None], low).softmax(-1) * mask[:, None]


@wrong("masked_softmax", says="Times the mask nothing is left")
def letters_left_out(scores, mask):
    low = torch.finfo(scores.dtype).min
    return scores.masked_fill(mask[:, None], low).softmax(-1) * mask[:, None]


@wrong("masked_softmax", says="A small number")
def guarded_by_a_sum(scores, mask):
    weights = scores.softmax(-1) * mask[:, None]
    return weights / (weights.sum(-1, keepdim=True) + 1e-9)


@wrong("masked_softmax", says="along the wrong axis")
def mask_of_the_steps(scores, mask):
    real = mask[:, :, None]
    return scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(2) * real


@right("masked_softmax")
def word_by_word(scores, mask):
    weights = torch.zeros_like(scores)
    for b in range(len(scores)):
        places = mask[b].nonzero()[:, 0]
        if len(places):
            weights[b, :, places] = F.softmax(scores[b][:, places], dim=1)
    return weights


@right("masked_softmax")
def with_the_largest_off(scores, mask):
    real = mask[:, None].to(scores.dtype)
    low = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
    powers = (low - low.amax(2, keepdim=True)).exp() * real
    return powers / powers.sum(2, keepdim=True).clamp(min=1e-30)


# ------------------------------------------------------------------------------------------------ additive_scores


@wrong("additive_scores", says="The tanh is missing")
def linear(queries, keys, W_q, W_k, v):
    return ((queries @ W_q)[:, :, None] + (keys @ W_k)[:, None]) @ v


@wrong("additive_scores", says="tanh is taken last")
def bent_last(queries, keys, W_q, W_k, v):
    return torch.tanh(((queries @ W_q)[:, :, None] + (keys @ W_k)[:, None]) @ v)


@wrong("additive_scores", says="Add first")
def bent_first(queries, keys, W_q, W_k, v):
    return (torch.tanh(queries @ W_q)[:, :, None] + torch.tanh(keys @ W_k)[:, None]) @ v


@wrong("additive_scores", says="keys by queries")
def keys_first(queries, keys, W_q, W_k, v):
    return torch.tanh((queries @ W_q).unsqueeze(1) + (keys @ W_k).unsqueeze(2)) @ v


@wrong("additive_scores", says="multiplied; additive scores add")
def product(queries, keys, W_q, W_k, v):
    return torch.tanh((queries @ W_q)[:, :, None] * (keys @ W_k)[:, None]) @ v


@wrong("additive_scores", says="sum over A")
def never_summed(queries, keys, W_q, W_k, v):
    return torch.tanh((queries @ W_q)[:, :, None] + (keys @ W_k)[:, None]) * v


@wrong("additive_scores", says="scores are what goes into it")
def weights_already(queries, keys, W_q, W_k, v):
    return F.softmax(torch.tanh((queries @ W_q)[:, :, None] + (keys @ W_k)[:, None]) @ v, dim=-1)


@wrong("additive_scores", says="These are no pairs")
def side_by_side(queries, keys, W_q, W_k, v):
    return torch.tanh(queries @ W_q + keys @ W_k) @ v


@right("additive_scores")
def pair_by_pair(queries, keys, W_q, W_k, v):
    rows = []
    for t in range(queries.shape[1]):
        hidden = torch.tanh(keys @ W_k + (queries[:, t] @ W_q)[:, None])
        rows.append((hidden * v).sum(-1))
    return torch.stack(rows, 1)


@right("additive_scores")
def tanh_by_sigmoid(queries, keys, W_q, W_k, v):
    x = (queries @ W_q)[:, :, None] + (keys @ W_k)[:, None]
    return ((2 * torch.sigmoid(2 * x) - 1) * v).sum(-1)


@wrong("additive_scores", says="takes the last axis away")
def a_column_of_v(queries, keys, W_q, W_k, v):
    return torch.tanh((queries @ W_q)[:, :, None] + (keys @ W_k)[:, None]) @ v[:, None]


@right("additive_scores")
def concatenated(queries, keys, W_q, W_k, v):
    T, S = queries.shape[1], keys.shape[1]
    q = queries[:, :, None].expand(-1, -1, S, -1)
    k = keys[:, None].expand(-1, T, -1, -1)
    hidden = torch.tanh(torch.cat([q, k], -1) @ torch.cat([W_q, W_k]))
    return torch.einsum("btsa,a->bts", hidden, v)


# ------------------------------------------------------------------------------------------------ dot_scores


@wrong("dot_scores", says="root is missing")
def unscaled(queries, keys, W):
    return queries @ W @ keys.transpose(1, 2)


@wrong("dot_scores", says="by the root of E")
def over_the_width(queries, keys, W):
    return queries @ W @ keys.mT / keys.size(-1)


@wrong("dot_scores", says="the sum has E terms")
def by_the_queries_width(queries, keys, W):
    return torch.bmm(queries @ W, keys.transpose(1, 2)) / math.sqrt(queries.size(-1))


@wrong("dot_scores", says="reshape mixes")
def reshaped(queries, keys, W):
    B, S, E = keys.shape
    return queries @ W @ keys.reshape(B, E, S) / E**0.5


@wrong("dot_scores", says="keys by queries")
def the_other_way(queries, keys, W):
    return keys @ (queries @ W).transpose(1, 2) / keys.shape[2] ** 0.5


@wrong("dot_scores", says="W is on the wrong side")
def wrong_side(queries, keys, W):
    return queries @ W.T @ keys.mT / keys.shape[2] ** 0.5


@wrong("dot_scores", says="scores are what goes into it")
def softened(queries, keys, W):
    return (queries @ W @ keys.mT / keys.shape[2] ** 0.5).softmax(2)


@right("dot_scores")
def keys_projected(queries, keys, W):
    return torch.einsum("btd,bsd->bts", queries, keys @ W.T) / math.sqrt(keys.shape[-1])


@right("dot_scores")
def query_by_query(queries, keys, W):
    rows = [(keys * (queries[:, t] @ W)[:, None]).sum(2) for t in range(queries.shape[1])]
    return torch.stack(rows, 1) * keys.shape[2] ** -0.5


# ------------------------------------------------------------------------------------------------ attend_step


def masked_softmax(scores, mask):
    real = mask[:, None, :]
    return scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(2) * real


@wrong("attend_step", says="It asks with the old state")
def bahdanau(cell, embedded, state, keys, mask, score):
    weights = masked_softmax(score(state[:, None], keys), mask)
    state = cell(embedded, state)
    return torch.cat([(weights @ keys).squeeze(1), state], -1), state, weights.squeeze(1)


@wrong("attend_step", says="The mask has no effect")
def unmasked(cell, embedded, state, keys, mask, score):
    state = cell(embedded, state)
    weights = F.softmax(score(state.unsqueeze(1), keys), -1)
    return torch.cat([(weights @ keys)[:, 0], state], 1), state, weights[:, 0]


@wrong("attend_step", says="state comes first")
def state_first(cell, embedded, state, keys, mask, score):
    state = cell(embedded, state)
    weights = masked_softmax(score(state[:, None], keys), mask)
    return torch.cat([state, (weights @ keys)[:, 0]], 1), state, weights[:, 0]


@wrong("attend_step", says="The old state comes back")
def not_handed_on(cell, embedded, state, keys, mask, score):
    new = cell(embedded, state)
    weights = masked_softmax(score(new[:, None], keys), mask)
    return torch.cat([(weights @ keys)[:, 0], new], 1), state, weights[:, 0]


@wrong("attend_step", says="needs an axis for T")
def no_axis(cell, embedded, state, keys, mask, score):
    state = cell(embedded, state)
    weights = masked_softmax(score(state, keys), mask)
    return torch.cat([(weights @ keys)[:, 0], state], 1), state, weights[:, 0]


@wrong("attend_step", says="an axis of length 1 too many")
def axis_left(cell, embedded, state, keys, mask, score):
    state = cell(embedded, state)
    weights = masked_softmax(score(state[:, None], keys), mask)
    return torch.cat([(weights @ keys)[:, 0], state], 1), state, weights


@wrong("attend_step", says="plain mean of all keys")
def mean_of_all(cell, embedded, state, keys, mask, score):
    state = cell(embedded, state)
    weights = masked_softmax(score(state[:, None], keys), mask)
    return torch.cat([keys.mean(1), state], 1), state, weights[:, 0]


@wrong("attend_step", says="it is over the letters")
def over_the_one(cell, embedded, state, keys, mask, score):
    state = cell(embedded, state)
    weights = torch.softmax(score(state[:, None], keys), 1) * mask[:, None]
    return torch.cat([(weights @ keys)[:, 0], state], 1), state, weights[:, 0]


@wrong("attend_step", says="The context is wrong")
def summed_over_the_batch(cell, embedded, state, keys, mask, score):
    state = cell(embedded, state)
    weights = masked_softmax(score(state[:, None], keys), mask)[:, 0]
    context = torch.einsum("bs,cse->be", weights, keys)
    return torch.cat([context, state], 1), state, weights


@right("attend_step")
def summed(cell, embedded, state, keys, mask, score):
    new = cell(embedded, state)
    weights = masked_softmax(score(new.unsqueeze(1), keys), mask).squeeze(1)
    context = (weights[:, :, None] * keys).sum(1)
    return torch.cat((context, new), dim=-1), new, weights


@wrong("attend_step", says="a row of padding only these weights are NaN")
def with_einsum(cell, embedded, state, keys, mask, score):
    state = cell(embedded, state)
    scores = score(state[:, None], keys)[:, 0].masked_fill(~mask, -math.inf)
    weights = scores.softmax(1)
    return torch.hstack([torch.einsum("bs,bse->be", weights, keys), state]), state, weights


def _with_softmax_of(padding, after):
    def attend_step(cell, embedded, state, keys, mask, score):
        state = cell(embedded, state)
        e = score(state[:, None], keys)[:, 0]
        weights = e.masked_fill(~mask, padding).softmax(1)
        weights = weights * mask if after else weights
        return torch.cat([(weights[:, None] @ keys)[:, 0], state], 1), state, weights

    return attend_step


@wrong("attend_step", says="these weights are equal")
def lowest_without_the_mask(*given):
    return _with_softmax_of(torch.finfo(torch.float32).min, after=False)(*given)


@wrong("attend_step", says="Padding's score is -100")
def minus_a_hundred(*given):
    return _with_softmax_of(-100.0, after=True)(*given)


@wrong("attend_step", says="these weights are equal")
def minus_ten_thousand(*given):
    return _with_softmax_of(-1e4, after=False)(*given)


@right("attend_step")
def row_by_row(cell, embedded, state, keys, mask, score):
    new = cell(embedded, state)
    rows = [
        masked_softmax(score(new[b : b + 1, None], keys[b : b + 1]), mask[b : b + 1])[0, 0] for b in range(len(keys))
    ]
    context = torch.stack([weights @ own for weights, own in zip(rows, keys, strict=True)])
    return torch.cat([context, new], 1), new, torch.stack(rows)


@right("attend_step")
def asked_twice(cell, embedded, state, keys, mask, score):
    new = cell(embedded, state)
    weights = masked_softmax(score(torch.stack([new, new], 1), keys), mask)[:, 1]
    return torch.cat([(weights[:, None] @ keys)[:, 0], new], 1), new, weights


# ------------------------------------------------------------------------------------------------ alignment_path


@wrong("alignment_path", says="argmax is over the phonemes")
def columns(weights):
    letters = weights.argmax(0).tolist()
    steps = [b >= a for a, b in zip(letters, letters[1:], strict=False)]
    return letters, sum(steps) / len(steps) if steps else 1.0


@wrong("alignment_path", says="not to go back")
def strictly(weights):
    letters = weights.argmax(dim=1).tolist()
    steps = [b > a for a, b in zip(letters, letters[1:], strict=False)]
    return letters, sum(steps) / len(steps) if steps else 1.0


@wrong("alignment_path", says="there are T - 1 steps")
def over_all(weights):
    letters = weights.argmax(1).tolist()
    good = sum(b >= a for a, b in zip(letters, letters[1:], strict=False))
    return letters, good / len(letters) if len(letters) > 1 else 1.0


@wrong("alignment_path", says="the text says 1.0")
def nothing_of_nothing(weights):
    letters = weights.argmax(1)
    steps = (letters[1:] >= letters[:-1]).double()
    return letters.tolist(), steps.mean().item() if len(steps) else 0.0


@wrong("alignment_path", says=".tolist()")
def a_tensor(weights):
    letters = weights.argmax(1)
    steps = (letters.diff() >= 0).double()
    return letters, steps.mean().item() if len(steps) else 1.0


@wrong("alignment_path", says="their places")
def the_weights_themselves(weights):
    letters = weights.max(1).values.tolist()
    steps = [b >= a for a, b in zip(letters, letters[1:], strict=False)]
    return letters, sum(steps) / len(steps) if steps else 1.0


@wrong("alignment_path", says="return letters, share")
def exchanged(weights):
    letters = weights.argmax(1).tolist()
    steps = [b >= a for a, b in zip(letters, letters[1:], strict=False)]
    return (sum(steps) / len(steps) if steps else 1.0), letters


@right("alignment_path")
def with_diff(weights):
    letters = weights.argmax(dim=-1)
    steps = letters.diff()
    return letters.tolist(), 1.0 if len(steps) == 0 else (steps >= 0).double().mean().item()


@right("alignment_path")
def in_a_loop(weights):
    letters, good = [], 0
    for row in weights.tolist():
        letters.append(row.index(max(row)))
        if len(letters) > 1 and letters[-1] >= letters[-2]:
            good += 1
    return letters, good / (len(letters) - 1) if len(letters) > 1 else 1.0


# ------------------------------------------------------------------------------------------------ attention_table


@wrong("attention_table", says="5 blanks")
def no_blanks(word, phonemes, weights):
    lines = ["".join(f"{letter:>4}" for letter in word)]
    for phoneme, row in zip(phonemes, weights.tolist(), strict=True):
        lines.append(f"{phoneme:<5}" + "".join(f"{100 * w:4.0f}" for w in row))
    return "\n".join(lines)


@wrong("attention_table", says="Fractions are cut off")
def truncated(word, phonemes, weights):
    text = " " * 5 + "".join(letter.rjust(4) for letter in word)
    for phoneme, row in zip(phonemes, weights, strict=True):
        text += "\n" + phoneme.ljust(5) + "".join(f"{int(w * 100):>4}" for w in row)
    return text


@wrong("attention_table", says="after the last line")
def break_at_the_end(word, phonemes, weights):
    text = " " * 5 + "".join(letter.rjust(4) for letter in word) + "\n"
    for phoneme, row in zip(phonemes, weights.tolist(), strict=True):
        text += f"{phoneme:5}" + "".join(f"{100 * w:4.0f}" for w in row) + "\n"
    return text


@wrong("attention_table", says="whole percent")
def shares(word, phonemes, weights):
    lines = [" " * 5 + "".join(f"{letter:>4}" for letter in word)]
    for phoneme, row in zip(phonemes, weights.tolist(), strict=True):
        lines.append(f"{phoneme:<5}" + "".join(f"{w:4.2f}" for w in row))
    return "\n".join(lines)


@wrong("attention_table", says="puts them to the left")
def phonemes_to_the_right(word, phonemes, weights):
    lines = [" " * 5 + "".join(f"{letter:>4}" for letter in word)]
    for phoneme, row in zip(phonemes, weights.tolist(), strict=True):
        lines.append(f"{phoneme:>5}" + "".join(f"{100 * w:4.0f}" for w in row))
    return "\n".join(lines)


@wrong("attention_table", says="how many lines")
def letters_down(word, phonemes, weights):
    lines = [" " * 5 + "".join(f"{p:>4}" for p in phonemes)]
    for letter, row in zip(word, weights.T.tolist(), strict=True):
        lines.append(f"{letter:<5}" + "".join(f"{100 * w:4.0f}" for w in row))
    return "\n".join(lines)


@wrong("attention_table", says="Letters and phonemes are exchanged")
def columns_of_weights(word, phonemes, weights):
    lines = [" " * 5 + "".join(f"{letter:>4}" for letter in word)]
    for phoneme, row in zip(phonemes, weights.T.tolist(), strict=False):
        lines.append(f"{phoneme:<5}" + "".join(f"{100 * w:4.0f}" for w in row))
    return "\n".join(lines)


@right("attention_table")
def with_rjust(word, phonemes, weights):
    rows = [[f"{100 * float(w):.0f}" for w in row] for row in weights]
    table = [("", list(word)), *zip(phonemes, rows, strict=True)]
    return "\n".join(name.ljust(5) + "".join(text.rjust(4) for text in cells) for name, cells in table)


@right("attention_table")
def with_round(word, phonemes, weights):
    text = "     " + "".join("   " + letter for letter in word)
    for n, phoneme in enumerate(phonemes):
        text += f"\n{phoneme:5}"
        for s in range(len(word)):
            text += f"{round(100 * weights[n, s].item()):4d}"
    return text
