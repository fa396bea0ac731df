"""Answers to sequence-to-sequence: wrong ones named for the misconception, and right ones."""

import copy
import difflib
import functools
import heapq
import math

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence, pad_sequence

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ edit_distance


@wrong("edit_distance", says="place by place")
def hamming(a, b):
    return sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))


@wrong("edit_distance", says="A substitution counts 2")
def insertions_and_deletions(a, b):
    d = np.zeros((len(a) + 1, len(b) + 1), int)
    d[:, 0], d[0] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = d[i - 1, j - 1] if a[i - 1] == b[j - 1] else 1 + min(d[i - 1, j], d[i, j - 1])
    return int(d[-1, -1])


@wrong("edit_distance", says="all 0")
def borders_forgotten(a, b):
    d = np.zeros((len(a) + 1, len(b) + 1), int)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
    return int(d[-1, -1])


@wrong("edit_distance", says="first row is all 0")
def free_start_of_b(a, b):
    row = [0] * (len(b) + 1)
    for i, x in enumerate(a):
        new = [i + 1]
        for j, y in enumerate(b):
            new.append(min(new[-1] + 1, row[j + 1] + 1, row[j] + (x != y)))
        row = new
    return row[-1]


@wrong("edit_distance", says="joined")
def as_text(a, b):
    return by_numpy("".join(map(str, a)), "".join(map(str, b)))


@wrong("edit_distance", says="Equal items still cost 1")
def equal_costs(a, b):
    row = list(range(len(b) + 1))
    for i in range(1, len(a) + 1):
        new = [i]
        for j in range(1, len(b) + 1):
            new.append(1 + min(row[j], new[j - 1], row[j - 1]))
        row = new
    return row[-1]


@wrong("edit_distance", says="longest common subsequence")
def similar_part(a, b):
    d = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a)):
        for j in range(len(b)):
            d[i + 1][j + 1] = d[i][j] + 1 if a[i] == b[j] else max(d[i][j + 1], d[i + 1][j])
    return d[-1][-1]


@wrong("edit_distance", says="divided by the length")
def as_a_rate(a, b):
    return by_numpy(a, b) / max(1, len(b))


@wrong("edit_distance", says="difflib")
def by_difflib(a, b):
    blocks = difflib.SequenceMatcher(None, list(a), list(b), autojunk=False).get_matching_blocks()
    return max(len(a), len(b)) - sum(block.size for block in blocks)


@wrong("edit_distance", says="exchange of neighbours")
def damerau(a, b):
    d = {}
    for i in range(len(a) + 1):
        for j in range(len(b) + 1):
            if i == 0 or j == 0:
                d[i, j] = i + j
                continue
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[len(a), len(b)]


@wrong("edit_distance", says="far from the diagonal")
def banded(a, b):
    n, m = len(a), len(b)
    d, reach = np.full((n + 1, m + 1), n + m), abs(n - m) + 2
    for i in range(n + 1):
        for j in range(max(0, i - reach), min(m, i + reach) + 1):
            d[i, j] = i + j
            if i and j:
                d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
    return int(d[n, m])


def by_cost(a, b, cost):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + cost(x, y)))
        row = new
    return row[-1]


@wrong("edit_distance", says="Upper and lower case")
def case_ignored(a, b):
    return by_cost(a, b, lambda x, y: str(x).casefold() != str(y).casefold())


@wrong("edit_distance", says="same object")
def same_object(a, b):
    return by_cost(a, b, lambda x, y: x is not y)


@wrong("edit_distance", says="hashed")
def numbered(a, b):
    number = {}
    for item in [*a, *b]:
        number.setdefault(item, len(number))
    return by_cost([number[x] for x in a], [number[y] for y in b], lambda x, y: x != y)


@wrong("edit_distance", says="hashed")
def cache_of_slices(a, b):
    @functools.lru_cache(None)
    def d(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(d(a[1:], b) + 1, d(a, b[1:]) + 1, d(a[1:], b[1:]) + (a[0] != b[0]))

    return d(tuple(a), tuple(b))


@wrong("edit_distance", says="as NumPy does")
def one_type(a, b):
    both = np.array([*a, *b])
    return by_cost(both[: len(a)], both[len(a) :], lambda x, y: int(x != y))


@wrong("edit_distance", says="calls itself")
def without_a_table(a, b):
    if not len(a) or not len(b):
        return len(a) + len(b)
    return min(
        without_a_table(a[1:], b) + 1, without_a_table(a, b[1:]) + 1, without_a_table(a[1:], b[1:]) + (a[0] != b[0])
    )


@wrong("edit_distance", says="no way as cheap")
def what_is_not_shared(a, b):
    return len(a) + len(b) - 2 * sum(min(list(a).count(x), list(b).count(x)) for x in dict.fromkeys(map(str, a)))


@wrong("edit_distance", says="one and the same row")
def one_row_many_times(a, b):
    d = [[0] * (len(b) + 1)] * (len(a) + 1)
    for i in range(len(a) + 1):
        d[i][0] = i
    for j in range(len(b) + 1):
        d[0][j] = j
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i][j] = min(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
    return d[-1][-1]


@wrong("edit_distance", says="not x == y")
def turned_around(a, b):
    return by_cost(a, b, lambda x, y: x == y)


@right("edit_distance")
def by_numpy(a, b):
    d = np.arange(len(b) + 1)
    for x in a:
        free = np.minimum(d[1:] + 1, d[:-1] + np.array([x != y for y in b], int))
        d = np.concatenate([[d[0] + 1], free])
        d = np.minimum.accumulate(d - np.arange(len(d))) + np.arange(len(d))
    return int(d[-1])


@right("edit_distance")
def by_shortest_path(a, b):
    queue, done = [(0, 0, 0)], set()
    while True:
        cost, i, j = heapq.heappop(queue)
        if (i, j) == (len(a), len(b)):
            return cost
        if (i, j) in done:
            continue
        done.add((i, j))
        if i < len(a):
            heapq.heappush(queue, (cost + 1, i + 1, j))
        if j < len(b):
            heapq.heappush(queue, (cost + 1, i, j + 1))
        if i < len(a) and j < len(b):
            heapq.heappush(queue, (cost + int(a[i] != b[j]), i + 1, j + 1))


# ------------------------------------------------------------------------------------------------ masked_cross_entropy


@wrong("masked_cross_entropy", says="over all cells")
def mean_of_all(logits, targets, pad):
    loss = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    loss = loss.masked_fill(targets == pad, 0)
    return loss.mean()


@wrong("masked_cross_entropy", says="mean of its own")
def mean_of_means(logits, targets, pad):
    loss = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=pad)
    return (loss.sum(1) / (targets != pad).sum(1).clamp(min=1)).mean()


@wrong("masked_cross_entropy", says="mean of its own")
def nan_of_an_empty_row(logits, targets, pad):
    return torch.stack([F.cross_entropy(z[y != pad], y[y != pad]) for z, y in zip(logits, targets, strict=True)]).mean()


@wrong("masked_cross_entropy", says="torch.where")
def multiplied(logits, targets, pad):
    loss = -logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    mask = (targets != pad).to(loss.dtype)
    return (loss * mask).sum() / mask.sum()


@wrong("masked_cross_entropy", says="padding's losses")
def sum_of_all(logits, targets, pad):
    loss = F.cross_entropy(logits.reshape(-1, logits.size(-1)), targets.reshape(-1), reduction="sum")
    return loss / (targets != pad).sum()


@wrong("masked_cross_entropy", says="turned around")
def only_padding(logits, targets, pad):
    keep = targets == pad
    return F.cross_entropy(logits[keep], targets[keep])


@wrong("masked_cross_entropy", says="number of rows")
def by_rows(logits, targets, pad):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad, reduction="sum") / len(logits)


@wrong("masked_cross_entropy", says="takes 0 whatever it is")
def pad_is_zero(logits, targets, pad):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0)


@wrong("masked_cross_entropy", says="over the places T")
def wrong_axis(logits, targets, pad):
    log_p = logits.log_softmax(1)
    return F.nll_loss(log_p.flatten(0, 1), targets.flatten(), ignore_index=pad)


@wrong("masked_cross_entropy", says="gradient")
def as_a_number(logits, targets, pad):
    with torch.no_grad():
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad)


@wrong("masked_cross_entropy", says="log_softmax")
def unstable(logits, targets, pad):
    p = logits.exp() / logits.exp().sum(2, keepdim=True)
    keep = targets != pad
    return -p[keep].gather(1, targets[keep][:, None]).log().mean()


@wrong("masked_cross_entropy", says="one-hot")
def one_hot(logits, targets, pad):
    log_p = (logits.log_softmax(-1) * F.one_hot(targets, logits.shape[-1]).to(logits.dtype)).sum(-1)
    return -log_p[targets != pad].mean()


@wrong("masked_cross_entropy", says="as low as they like")
def with_an_epsilon(logits, targets, pad):
    p = logits.softmax(-1).gather(-1, targets[..., None])[..., 0]
    return -torch.log(p + 1e-9)[targets != pad].mean()


@wrong("masked_cross_entropy", says="in dim 1")
def straight_into_torch(logits, targets, pad):
    return F.cross_entropy(logits, targets, ignore_index=pad)


@right("masked_cross_entropy")
def by_torch(logits, targets, pad):
    return F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=pad)


@right("masked_cross_entropy")
def by_picking(logits, targets, pad):
    z, y = logits[targets != pad], targets[targets != pad]
    return (z.logsumexp(1) - z[torch.arange(len(y)), y]).mean()


@right("masked_cross_entropy")
def by_loop(logits, targets, pad):
    losses = []
    for z_row, y_row in zip(logits, targets, strict=True):
        losses += [-z.log_softmax(0)[y] for z, y in zip(z_row, y_row, strict=True) if y != pad]
    return sum(losses) / len(losses)


# ------------------------------------------------------------------------------------------------ encode


@wrong("encode", says="padding is read")
def nothing_packed(gru, embedded, lengths):
    return gru(embedded)


@wrong("encode", says="been through the padding")
def masked_outputs(gru, embedded, lengths):
    outputs, state = gru(embedded)
    mask = torch.arange(embedded.size(1)) < lengths.unsqueeze(1)
    return outputs * mask.unsqueeze(-1), state


@wrong("encode", says="last letter's output")
def last_states(gru, embedded, lengths):
    outputs, _ = gru(embedded)
    mask = torch.arange(embedded.size(1))[None] < lengths[:, None]
    return outputs * mask[..., None], outputs[torch.arange(len(lengths)), lengths - 1].unsqueeze(0)


@wrong("encode", says="as long as the longest word")
def too_short(gru, embedded, lengths):
    packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
    outputs, state = gru(packed)
    return pad_packed_sequence(outputs, batch_first=True)[0], state


@wrong("encode", says="still packed")
def not_filled_up(gru, embedded, lengths):
    return gru(pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False))


@wrong("encode", says="enforce_sorted=False")
def refuses_unsorted(gru, embedded, lengths):
    outputs, state = gru(pack_padded_sequence(embedded, lengths, batch_first=True))
    return pad_packed_sequence(outputs, batch_first=True, total_length=embedded.shape[1])[0], state


@wrong("encode", says="order of their lengths")
def left_sorted(gru, embedded, lengths):
    order = torch.sort(lengths, descending=True, stable=True).indices
    outputs, state = gru(pack_padded_sequence(embedded[order], lengths[order], batch_first=True))
    return pad_packed_sequence(outputs, batch_first=True, total_length=embedded.shape[1])[0], state


@wrong("encode", says="(T, B, D)")
def batch_second(gru, embedded, lengths):
    outputs, state = gru(pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(outputs, total_length=embedded.shape[1])[0], state


@wrong("encode", says="Only the last layer's")
def last_layer_only(gru, embedded, lengths):
    outputs, state = by_packing(gru, embedded, lengths)
    return outputs, state[-1]


@wrong("encode", says="cut from the graph")
def without_a_graph(gru, embedded, lengths):
    with torch.no_grad():
        return by_packing(gru, embedded, lengths)


@wrong("encode", says="its inverse")
def sorted_twice(gru, embedded, lengths):
    lengths, order = lengths.sort(descending=True)
    outputs, state = gru(pack_padded_sequence(embedded[order], lengths, batch_first=True))
    outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=embedded.shape[1])
    return outputs[order], state[:, order]


@wrong("encode", says="picked from the outputs")
def picked_from_packed(gru, embedded, lengths):
    outputs, _ = by_packing(gru, embedded, lengths)
    return outputs, outputs[torch.arange(len(lengths)), lengths - 1].unsqueeze(0)


@wrong("encode", says="pack_padded_sequence needs batch_first")
def packed_time_first(gru, embedded, lengths):
    outputs, state = gru(pack_padded_sequence(embedded, lengths, enforce_sorted=False))
    return pad_packed_sequence(outputs, batch_first=True, total_length=embedded.shape[1])[0], state


@wrong("encode", says="outputs and the lengths")
def lengths_too(gru, embedded, lengths):
    outputs, state = gru(pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(outputs, batch_first=True, total_length=embedded.shape[1]), state


@wrong("encode", says="copy of the GRU")
def a_copy(gru, embedded, lengths):
    return by_packing(copy.deepcopy(gru), embedded, lengths)


@right("encode")
def by_packing(gru, embedded, lengths):
    rows = pack_sequence([row[:n] for row, n in zip(embedded, lengths, strict=True)], enforce_sorted=False)
    outputs, state = gru(rows)
    outputs, _ = pad_packed_sequence(outputs, batch_first=True)
    return F.pad(outputs, (0, 0, 0, embedded.size(1) - outputs.size(1))), state


@right("encode")
def sorted_and_back(gru, embedded, lengths):
    lengths, order = lengths.sort(descending=True)
    outputs, state = gru(pack_padded_sequence(embedded[order], lengths, batch_first=True))
    outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=embedded.shape[1])
    back = order.argsort()
    return outputs[back], state[:, back]


@right("encode")
def word_by_word(gru, embedded, lengths):
    outputs, states = [], []
    for x, n in zip(embedded, lengths, strict=True):
        o, h = gru(x[:n].unsqueeze(0))
        outputs.append(F.pad(o[0], (0, 0, 0, len(x) - int(n))))
        states.append(h[:, 0])
    return torch.stack(outputs), torch.stack(states, 1)


# ------------------------------------------------------------------------------------------------ decoder_pairs


def padded(rows, pad):
    return pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True, padding_value=pad)


@wrong("decoder_pairs", says="no eos")
def never_stops(phonemes, bos, eos, pad):
    return padded([[bos, *row] for row in phonemes], pad), F.pad(padded(phonemes, pad), (0, 1), value=pad)


@wrong("decoder_pairs", says="eos is fed in")
def cut_afterwards(phonemes, bos, eos, pad):
    whole = padded([[bos, *row, eos] for row in phonemes], pad)
    return whole[:, :-1], whole[:, 1:]


@wrong("decoder_pairs", says="learn to copy")
def not_shifted(phonemes, bos, eos, pad):
    inputs = padded([[bos, *row] for row in phonemes], pad)
    return inputs, inputs.clone()


@wrong("decoder_pairs", says="no bos")
def no_beginning(phonemes, bos, eos, pad):
    both = padded([[*row, eos] for row in phonemes], pad)
    return both, both.clone()


@wrong("decoder_pairs", says="fills with 0")
def zeros(phonemes, bos, eos, pad):
    return padded([[bos, *row] for row in phonemes], 0), padded([[*row, eos] for row in phonemes], 0)


@wrong("decoder_pairs", says="inputs, targets")
def exchanged(phonemes, bos, eos, pad):
    return padded([[*row, eos] for row in phonemes], pad), padded([[bos, *row] for row in phonemes], pad)


@wrong("decoder_pairs", says="batch_first=True")
def time_first(phonemes, bos, eos, pad):
    inputs, targets = by_filling(phonemes, bos, eos, pad)
    return inputs.T, targets.T


@wrong("decoder_pairs", says="in whole")
def both_ends_in_both(phonemes, bos, eos, pad):
    whole = padded([[bos, *row, eos] for row in phonemes], pad)
    return whole, whole.clone()


@wrong("decoder_pairs", says="changes its input")
def extends_the_lists(phonemes, bos, eos, pad):
    inputs = padded([[bos, *row] for row in phonemes], pad)
    for row in phonemes:
        row.append(eos)
    return inputs, padded(phonemes, pad)


@wrong("decoder_pairs", says="a tensor")
def as_lists(phonemes, bos, eos, pad):
    inputs, targets = by_filling(phonemes, bos, eos, pad)
    return inputs.tolist(), targets.tolist()


@wrong("decoder_pairs", says="no eos")
def phonemes_alone(phonemes, bos, eos, pad):
    return padded([[bos, *row] for row in phonemes], pad), padded(phonemes, pad)


@wrong("decoder_pairs", says="without phonemes is float32")
def floats_of_nothing(phonemes, bos, eos, pad):
    inputs = [torch.cat([torch.tensor([bos]), torch.tensor(row)]) for row in phonemes]
    targets = [torch.cat([torch.tensor(row), torch.tensor([eos])]) for row in phonemes]
    return tuple(pad_sequence(rows, batch_first=True, padding_value=pad) for rows in (inputs, targets))


@wrong("decoder_pairs", says="is a row, too")
def empty_rows_left_out(phonemes, bos, eos, pad):
    rows = [row for row in phonemes if row]
    return padded([[bos, *row] for row in rows], pad), padded([[*row, eos] for row in rows], pad)


@wrong("decoder_pairs", says="last column")
def eos_after_the_padding(phonemes, bos, eos, pad):
    inputs, targets = (padded(rows, pad) for rows in ([[bos, *row] for row in phonemes], phonemes))
    return inputs, torch.cat([targets.long(), torch.full((len(phonemes), 1), eos)], 1)


@wrong("decoder_pairs", says="filled with eos")
def filled_with_eos(phonemes, bos, eos, pad):
    return padded([[bos, *row] for row in phonemes], pad), padded([[*row, eos] for row in phonemes], eos)


@wrong("decoder_pairs", says="takes 1 and 2")
def fixed_ends(phonemes, bos, eos, pad):
    return padded([[1, *row] for row in phonemes], pad), padded([[*row, 2] for row in phonemes], pad)


@wrong("decoder_pairs", says="longest row, 4, and yours is 31")
def fixed_width(phonemes, bos, eos, pad):
    return tuple(F.pad(each, (0, 31 - each.shape[1]), value=pad) for each in by_filling(phonemes, bos, eos, pad))


@right("decoder_pairs")
def by_filling(phonemes, bos, eos, pad):
    T = max(len(row) for row in phonemes) + 1
    inputs, targets = (torch.full((len(phonemes), T), pad) for _ in range(2))
    for b, row in enumerate(phonemes):
        n = len(row)
        inputs[b, 0], targets[b, n] = bos, eos
        inputs[b, 1 : n + 1] = targets[b, :n] = torch.tensor(row, dtype=torch.int64)
    return inputs, targets


@right("decoder_pairs")
def from_targets(phonemes, bos, eos, pad):
    targets = padded([[*row, eos] for row in phonemes], pad)
    shifted = torch.cat([torch.full((len(targets), 1), bos), targets[:, :-1]], 1)
    lengths = torch.tensor([len(row) for row in phonemes])
    late = torch.arange(targets.shape[1])[None] > lengths[:, None]
    return torch.where(late, pad, shifted), targets


# ------------------------------------------------------------------------------------------------ greedy


@wrong("greedy", says="state is not carried")
def state_not_passed(step, state, bos, eos, limit):
    tokens, said = torch.full((len(state),), bos), []
    with torch.no_grad():
        for _ in range(limit):
            log_p, _ = step(tokens, state)
            tokens = log_p.argmax(1)
            said.append(tokens)
            if all(eos in row for row in torch.stack(said, 1).tolist()):
                break
    return [cut(row, eos) for row in torch.stack(said, 1).tolist()]


def cut(row, eos):
    return row[: row.index(eos)] if eos in row else row


@wrong("greedy", says="first row ends")
def stops_for_all(step, state, bos, eos, limit):
    tokens, said = torch.full((len(state),), bos), [[] for _ in state]
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(-1)
            for row, token in zip(said, tokens.tolist(), strict=True):
                if token != eos:
                    row.append(token)
            if (tokens == eos).any():
                break
    return said


@wrong("greedy", says="goes on after its eos")
def goes_on(step, state, bos, eos, limit):
    tokens, said, ended = torch.full((len(state),), bos), [[] for _ in state], set()
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(-1)
            for b, token in enumerate(tokens.tolist()):
                if token == eos:
                    ended.add(b)
                else:
                    said[b].append(token)
            if len(ended) == len(said):
                break
    return said


@wrong("greedy", says="eos is kept")
def keeps_eos(step, state, bos, eos, limit):
    tokens, said, ended = torch.full((len(state),), bos), [[] for _ in state], [False] * len(state)
    with torch.no_grad():
        while not all(ended) and max(map(len, said)) < limit:
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(-1)
            for b, token in enumerate(tokens.tolist()):
                if not ended[b]:
                    said[b].append(token)
                ended[b] |= token == eos
    return said


@wrong("greedy", says="fed bos")
def always_bos(step, state, bos, eos, limit):
    tokens, said = torch.full((len(state),), bos), []
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            said.append(log_p.argmax(1))
            if all(eos in row for row in torch.stack(said, 1).tolist()):
                break
    return [cut(row, eos) for row in torch.stack(said, 1).tolist()]


@wrong("greedy", says="never stops before the limit")
def always_to_the_limit(step, state, bos, eos, limit):
    tokens, said = torch.full((len(state),), bos), []
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(1)
            said.append(tokens)
    return [cut(row, eos) for row in torch.stack(said, 1).tolist()]


@wrong("greedy", says="beyond limit")
def ignores_the_limit(step, state, bos, eos, limit):
    tokens, said, ended = torch.full((len(state),), bos), [[] for _ in state], torch.zeros(len(state), dtype=torch.bool)
    with torch.no_grad():
        while not ended.all():
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(1)
            ended |= tokens == eos
            for b in range(len(said)):
                if not ended[b]:
                    said[b].append(int(tokens[b]))
    return said


@wrong("greedy", says="no_grad")
def with_a_graph(step, state, bos, eos, limit):
    tokens, said = torch.full((len(state),), bos), []
    for _ in range(limit):
        log_p, state = step(tokens, state)
        tokens = log_p.argmax(1)
        said.append(tokens)
        if all(eos in row for row in torch.stack(said, 1).tolist()):
            break
    return [cut(row, eos) for row in torch.stack(said, 1).tolist()]


@wrong("greedy", says="less than limit")
def one_too_few(step, state, bos, eos, limit):
    return by_columns(step, state, bos, eos, limit - 1) if limit > 1 else [[] for _ in state]


def by_choice(step, state, bos, eos, limit, choose=lambda log_p: log_p.argmax(1), first=None):
    """Rows of all that is said up to the last end, and their choice."""
    tokens, said = torch.full((len(state),), bos if first is None else first), []
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            tokens = choose(log_p)
            said.append(tokens)
            rows = torch.stack(said, 1).tolist()
            if all(eos in row for row in rows):
                break
    return rows


@wrong("greedy", says="bos is forbidden")
def bos_forbidden(step, state, bos, eos, limit):
    def choose(log_p):
        log_p[:, bos] = -torch.inf
        return log_p.argmax(1)

    return [cut(row, eos) for row in by_choice(step, state, bos, eos, limit, choose)]


@wrong("greedy", says="argmax(0)")
def over_the_rows(step, state, bos, eos, limit):
    tokens, said, ended = torch.full((len(state),), bos), [[] for _ in state], [False] * len(state)
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(0)
            for b, token in enumerate(tokens.tolist()):
                ended[b] = ended[b] or token == eos
                if not ended[b]:
                    said[b].append(token)
            if all(ended):
                break
    return said


@wrong("greedy", says="draws at random")
def sampled(step, state, bos, eos, limit):
    rows = by_choice(step, state, bos, eos, limit, lambda log_p: torch.multinomial(log_p.exp(), 1)[:, 0])
    return [cut(row, eos) for row in rows]


@wrong("greedy", says="begins with eos")
def begins_with_eos(step, state, bos, eos, limit):
    return [cut(row, eos) for row in by_choice(step, state, bos, eos, limit, first=eos)]


@wrong("greedy", says="keeps its `limit` symbols")
def nothing_without_an_end(step, state, bos, eos, limit):
    return [row[: row.index(eos)] if eos in row else [] for row in by_choice(step, state, bos, eos, limit)]


@wrong("greedy", says="Symbol 0 is left out")
def zeros_dropped(step, state, bos, eos, limit):
    return [[token for token in cut(row, eos) if token] for row in by_choice(step, state, bos, eos, limit)]


@wrong("greedy", says="stands in another")
def numbered_anew(step, state, bos, eos, limit):
    said, tokens = [[] for _ in state], torch.full((len(state),), bos)
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(1)
            state, tokens = state[tokens != eos], tokens[tokens != eos]
            if not len(tokens):
                break
            for b, token in enumerate(tokens.tolist()):
                said[b].append(token)
    return said


@right("greedy")
def by_columns(step, state, bos, eos, limit):
    tokens = torch.full((len(state),), bos, dtype=torch.int64)
    columns = []
    with torch.inference_mode():
        while len(columns) < limit:
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(1)
            columns.append(tokens.tolist())
            rows = list(zip(*columns, strict=True))
            if all(eos in row for row in rows):
                break
    return [cut(list(row), eos) for row in rows]


@wrong("greedy", says="one row at a time")
@torch.no_grad()
def row_by_row(step, state, bos, eos, limit):
    answers = []
    for b in range(state.shape[0]):
        said, h, token = [], state[b : b + 1], bos
        for _ in range(limit):
            log_p, h = step(torch.tensor([token]), h)
            token = log_p[0].argmax().item()
            if token == eos:
                break
            said.append(token)
        answers.append(said)
    return answers


@right("greedy")
def only_open_rows(step, state, bos, eos, limit):
    said, alive = [[] for _ in range(len(state))], torch.arange(len(state))
    tokens = torch.full((len(state),), bos)
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            tokens = log_p.argmax(1)
            going = tokens != eos
            alive, tokens, state = alive[going], tokens[going], state[going]
            for b, token in zip(alive.tolist(), tokens.tolist(), strict=True):
                said[b].append(token)
            if not len(alive):
                break
    return said


# ------------------------------------------------------------------------------------------------ beam_search


def beam(
    step,
    state,
    bos,
    eos,
    width,
    limit,
    reorder=True,
    compete=True,
    dropped=False,
    at_first=False,
    score_of=None,
    never=None,
    each=None,
    key=None,
):
    """A beam with states kept in the hypotheses, and the slips that one makes."""
    hypotheses = [([], 0.0, state, False)]
    score_of = score_of or (lambda old, new: old + new)
    with torch.no_grad():
        for n_step in range(limit):
            found = [] if dropped else [h for h in hypotheses if h[3]]
            going = [h for h in hypotheses if not h[3]]
            if not going:
                break
            tokens = torch.tensor([h[0][-1] if h[0] else bos for h in going])
            log_p, states = step(tokens, torch.cat([h[2] for h in going]))
            for n, (said, score, _, _) in enumerate(going):
                own = [
                    (said if k == eos else [*said, k], score_of(score, log_p[n, k].item()), states[n : n + 1], k == eos)
                    for k in range(log_p.shape[1])
                    if k != never
                ]
                own = sorted(own, key=lambda h: -h[1])[:each]
                found += own if compete or n_step == 0 else [max(own, key=lambda h: h[1])]
            hypotheses = sorted(found, key=key or (lambda h: h[1]), reverse=True)[:width]
            if not reorder:
                places = [n for n, h in enumerate(hypotheses) if not h[3]]
                for place, n in enumerate(places):
                    said, score, _, end = hypotheses[n]
                    row = min(place, len(states) - 1)
                    hypotheses[n] = said, score, states[row : row + 1], end
            if at_first and any(h[3] for h in hypotheses):
                break
    return hypotheses


@wrong("beam_search", says="not re-ordered")
def state_left(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit, reorder=False)[0][:2]


@wrong("beam_search", says="own best only")
def no_competition(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit, compete=False)[0][:2]


@wrong("beam_search", says="dropped")
def drops_the_ended(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit, dropped=True)[0][:2]


@wrong("beam_search", says="first one ends")
def first_to_end(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit, at_first=True)[0][:2]


@wrong("beam_search", says="Probabilities are added")
def adds_probabilities(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit, score_of=lambda old, new: old + math.exp(new))[0][:2]


@wrong("beam_search", says="last symbol's alone")
def last_alone(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit, score_of=lambda old, new: new)[0][:2]


@wrong("beam_search", says="At the limit open ones count")
def ended_ones_only(step, state, bos, eos, width, limit):
    found = beam(step, state, bos, eos, width, limit)
    return max([h for h in found if h[3]] or found, key=lambda h: h[1])[:2]


@wrong("beam_search", says="bos is left out")
def never_bos(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit, never=bos)[0][:2]


@wrong("beam_search", says="a better one was lost")
def by_the_last_step(step, state, bos, eos, width, limit):
    hypotheses = [([], 0.0, state, False, 0.0)]
    with torch.no_grad():
        for _ in range(limit):
            found = [h for h in hypotheses if h[3]]
            for said, score, h, *_ in [h for h in hypotheses if not h[3]]:
                log_p, new = step(torch.tensor([said[-1] if said else bos]), h)
                for k, more in enumerate(log_p[0].tolist()):
                    found.append((said if k == eos else [*said, k], score + more, new, k == eos, more))
            hypotheses = sorted(found, key=lambda h: -h[4])[:width]
    return max(hypotheses, key=lambda h: h[1])[:2]


@wrong("beam_search", says="state[rows]")
def fed_bos(step, state, bos, eos, width, limit):
    return by_topk(lambda tokens, state: step(torch.full_like(tokens, bos), state), state, bos, eos, width, limit)


@wrong("beam_search", says="state[rows]")
def old_state(step, state, bos, eos, width, limit):
    return by_topk(lambda tokens, state: (step(tokens, state)[0], state), state, bos, eos, width, limit)


@wrong("beam_search", says="state[rows]")
def first_rows(step, state, bos, eos, width, limit):
    """State and hypotheses in rows of a fixed number, the state as step returns it."""
    state, tokens = state.expand(width, -1), torch.full((width,), bos)
    scores, said, ended = [0.0] + [-math.inf] * (width - 1), [[]] * width, [False] * width
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            found = [(scores[n], said[n], True) for n in range(width) if ended[n]]
            for n in range(width):
                if not ended[n] and scores[n] > -math.inf:
                    for k, more in enumerate(log_p[n].tolist()):
                        found.append((scores[n] + more, said[n] if k == eos else [*said[n], k], k == eos))
            found = sorted(found, key=lambda h: -h[0])[:width]
            found += [(-math.inf, [], True)] * (width - len(found))
            scores, said, ended = map(list, zip(*found, strict=True))
            if all(ended):
                break
            tokens = torch.tensor([s[-1] if s else bos for s in said])
    return said[0], scores[0]


@wrong("beam_search", says="so others stayed")
def refilled(step, state, bos, eos, width, limit):
    """The ended leave their place to others only at the end of each step, and the beam is one wider for it."""
    return max(beam(step, state, bos, eos, width + 3, limit), key=lambda h: h[1])[:2]


@wrong("beam_search", says="min(width, K)")
def topk_of_each(step, state, bos, eos, width, limit):
    hypotheses = [(0.0, [], False, state)]
    with torch.no_grad():
        for _ in range(limit):
            found = [h for h in hypotheses if h[2]]
            for score, said, _, h in [h for h in hypotheses if not h[2]]:
                log_p, new = step(torch.tensor([said[-1] if said else bos]), h)
                best = log_p[0].topk(width)
                for more, k in zip(best.values.tolist(), best.indices.tolist(), strict=True):
                    found.append((score + more, said if k == eos else [*said, k], k == eos, new))
            hypotheses = sorted(found, key=lambda h: -h[0])[:width]
    return hypotheses[0][1], hypotheses[0][0]


@wrong("beam_search", says="two likeliest symbols")
def two_of_each(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit, each=2)[0][:2]


@wrong("beam_search", says="score over length")
def by_mean(step, state, bos, eos, width, limit):
    def mean(h):
        return h[1] / max(1, len(h[0]))

    return max(beam(step, state, bos, eos, width, limit, key=mean), key=mean)[:2]


@wrong("beam_search", says="so others stayed")
def by_the_likelier_end(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit, key=lambda h: h[1] - 0.4 * len(h[0]))[0][:2]


@wrong("beam_search", says="put aside")
def apart(step, state, bos, eos, width, limit):
    going, done = [([], 0.0, state)], []
    with torch.no_grad():
        for _ in range(limit):
            log_p, states = step(
                torch.tensor([h[0][-1] if h[0] else bos for h in going]), torch.cat([h[2] for h in going])
            )
            found = [
                ([*said, k], score + log_p[n, k].item(), states[n : n + 1])
                for n, (said, score, _) in enumerate(going)
                for k in range(log_p.shape[1])
            ]
            found = sorted(found, key=lambda h: -h[1])[:width]
            done += [(h[0][:-1], h[1]) for h in found if h[0][-1] == eos]
            going = [h for h in found if h[0][-1] != eos]
            if not going or len(done) >= width:
                break
    return max([*done, *(h[:2] for h in going)], key=lambda h: h[1])


@wrong("beam_search", says="greedy")
def greedy_whatever_the_width(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, 1, limit)[0][:2]


@wrong("beam_search", says="tokens, score")
def exchanged_results(step, state, bos, eos, width, limit):
    said, score, _, _ = beam(step, state, bos, eos, width, limit)[0]
    return score, said


@wrong("beam_search", says="divided by the length")
def normalised(step, state, bos, eos, width, limit):
    said, score, _, _ = beam(step, state, bos, eos, width, limit)[0]
    return said, score / max(1, len(said))


@wrong("beam_search", says="logarithm")
def as_probability(step, state, bos, eos, width, limit):
    said, score, _, _ = beam(step, state, bos, eos, width, limit)[0]
    return said, math.exp(score)


@right("beam_search")
def states_in_hypotheses(step, state, bos, eos, width, limit):
    return beam(step, state, bos, eos, width, limit)[0][:2]


@right("beam_search")
def ends_with_the_best(step, state, bos, eos, width, limit):
    """A score only falls, so once the best has ended none can pass it."""
    best = [(0.0, (), False, state)]
    with torch.no_grad():
        for _ in range(limit):
            if best[0][2]:
                break
            new = []
            for score, said, ended, h in best:
                if ended:
                    new.append((score, said, True, h))
                    continue
                log_p, after = step(torch.tensor([said[-1] if said else bos]), h)
                for more, k in zip(*(each.tolist() for each in log_p[0].sort(descending=True)), strict=True):
                    new.append((score + more, said if k == eos else (*said, k), k == eos, after))
            best = heapq.nlargest(width, new, key=lambda each: each[0])
    return list(best[0][1]), best[0][0]


@right("beam_search")
def by_topk(step, state, bos, eos, width, limit):
    tokens, scores = torch.tensor([bos]), torch.zeros(1, dtype=torch.float64)
    said, ended = [[]], torch.tensor([False])
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            log_p = log_p.double()
            K = log_p.shape[1]
            log_p[ended] = -torch.inf
            log_p[ended, eos] = 0.0  # goes on as it is, once
            total = (scores[:, None] + log_p).flatten()
            scores, places = total.topk(min(width, int((total > -torch.inf).sum())))
            rows, tokens = places // K, places % K
            said = [said[r] if k == eos else [*said[r], k] for r, k in zip(rows.tolist(), tokens.tolist(), strict=True)]
            state, ended = state[rows], tokens == eos
            if ended.all():
                break
    return said[0], scores[0].item()


# ------------------------------------------------------------------------------------------------ length_score


@wrong("length_score", says="length itself")
def mean_score(log_probability, length, alpha):
    return log_probability / max(length, 1) ** alpha


@wrong("length_score", says="divided by ((5 + length) / 6)")
def times(log_probability, length, alpha):
    return log_probability * ((5 + length) / 6) ** alpha


@wrong("length_score", says="bracket")
def without_brackets(log_probability, length, alpha):
    return log_probability / (5 + length / 6) ** alpha


@wrong("length_score", says="raises the 6 alone")
def power_of_six(log_probability, length, alpha):
    return log_probability / ((5 + length) / 6**alpha)


@wrong("length_score", says="no effect")
def alpha_left_out(log_probability, length, alpha):
    return log_probability / ((5 + length) / 6)


@wrong("length_score", says="raised to alpha")
def alpha_times(log_probability, length, alpha):
    return log_probability / (alpha * (5 + length) / 6)


@wrong("length_score", says="division by 6")
def not_by_six(log_probability, length, alpha):
    return log_probability / (5 + length) ** alpha


@wrong("length_score", says="end sign is counted")
def with_eos(log_probability, length, alpha):
    return log_probability / ((5 + length + 1) / 6) ** alpha


@wrong("length_score", says="cuts the fraction off")
def whole_division(log_probability, length, alpha):
    return log_probability / max(1, (5 + length) // 6) ** alpha


@wrong("length_score", says="not 1 - alpha")
def other_exponent(log_probability, length, alpha):
    return log_probability / ((5 + length) / 6) ** (1 - alpha)


@wrong("length_score", says="bonus for each phoneme")
def bonus(log_probability, length, alpha):
    return log_probability + alpha * length


@wrong("length_score", says="6 is not raised")
def six_not_raised(log_probability, length, alpha):
    return log_probability / ((5 + length) ** alpha / 6)


@wrong("length_score", says="one divisor")
def left_to_right(log_probability, length, alpha):
    return log_probability / (5 + length) / 6**alpha


@right("length_score")
def by_two_powers(log_probability, length, alpha):
    return log_probability * 6**alpha / (5 + length) ** alpha


@right("length_score")
def by_pow(log_probability, length, alpha):
    return log_probability / math.pow((5 + length) / (5 + 1), alpha)
