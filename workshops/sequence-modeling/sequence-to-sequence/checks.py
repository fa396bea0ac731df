"""The checks of sequence-to-sequence: one for each exercise, with its hints. `lab.check` runs them.

Distances are held to a plain recursion, the loss to torch, the encoder to one word at a time; decoding to small automata
whose every sentence can be scored anew from the beginning, so that a beam can be held to all sentences there are.
"""

import difflib
import functools
import itertools
import math

import numpy as np

from atlas.checking import Complaint, agree, among, exercise, expect, gradients, numbers, parts, tensor

# ------------------------------------------------------------------------------------------------ edit_distance


@parts
def _edit_distance(
    a,
    b,
    *,
    substitution=1,
    first_row=lambda n: list(range(n + 1)),
    first_column=lambda i: i,
    step=lambda up, left, diagonal, same, cost: min(up + 1, left + 1, diagonal + (0 if same else cost)),
    same=lambda x, y: x == y,
    end=lambda rows, a, b: rows[-1][-1],
    items=lambda x: x,
):
    a, b = items(a), items(b)
    rows = [first_row(len(b))]
    for i, x in enumerate(a, 1):
        row = [first_column(i)]
        for j, y in enumerate(b, 1):
            row.append(step(rows[-1][j], row[j - 1], rows[-1][j - 1], same(x, y), substitution))
        rows.append(row)
    return end(rows, a, b)


def place_by_place(a, b):
    """It compares place by place; one missing item shifts all that follow. Fill the table of d, row by row."""
    return sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))


def place_by_place_of_the_shorter(a, b):
    """It compares place by place, and only as far as the shorter one goes. Fill the table of d, row by row."""
    return sum(x != y for x, y in zip(a, b, strict=False))


def by_counts(a, b):
    """It compares which items there are, whatever their order: A B and B A are 2 apart."""
    extra, items = [0, 0], list(a) + list(b)
    for item in set(items):
        more = list(a).count(item) - list(b).count(item)
        extra[more < 0] += abs(more)
    return max(extra)


def with_transpositions(a, b):
    """It counts an exchange of neighbours as 1; here that is two edits."""
    d = {(i, -1): i + 1 for i in range(-1, len(a))} | {(-1, j): j + 1 for j in range(-1, len(b))}
    for i, j in itertools.product(range(len(a)), range(len(b))):
        d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i] != b[j]))
        if i and j and a[i] == b[j - 1] and a[i - 1] == b[j]:
            d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[len(a) - 1, len(b) - 1]


def common_part(a, b):
    """That is the length of the longest common subsequence; the distance counts what has to be changed."""
    rows = [[0] * (len(b) + 1)]
    for x in a:
        row = [0]
        for j, y in enumerate(b, 1):
            row.append(rows[-1][j - 1] + 1 if x == y else max(rows[-1][j], row[j - 1]))
        rows.append(row)
    return rows[-1][-1]


def longest_less_common_part(a, b):
    """The longest common part is kept in it, and the rest paired up, which cannot always be: fill the table of d."""
    return max(len(a), len(b)) - common_part(a, b)


def longest_less_blocks(a, b):
    """difflib's blocks are not the cheapest way: fill the table of d, the least of three in each cell."""
    blocks = difflib.SequenceMatcher(None, list(a), list(b), autojunk=False).get_matching_blocks()
    return max(len(a), len(b)) - sum(block.size for block in blocks)


def blocks_of_difflib(a, b):
    """difflib's blocks are not the cheapest way: fill the table of d, the least of three in each cell."""
    changes = difflib.SequenceMatcher(None, list(a), list(b), autojunk=False).get_opcodes()
    return sum(max(end - begin, to - of) for kind, begin, end, of, to in changes if kind != "equal")


def ends_stripped(a, b):
    """Equal beginnings and ends are taken off, and the rest counted whole: it may have items in common, too."""
    a, b = list(a), list(b)
    for at in (0, -1):
        while a and b and a[at] == b[at]:
            a.pop(at), b.pop(at)
    return max(len(a), len(b))


def diagonal_overwritten(a, b):
    """With a single row the diagonal d[i-1][j-1] is overwritten when it is needed: keep it in a variable, or two rows."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row[0] = i
        for j, y in enumerate(b, 1):
            row[j] = min(row[j] + 1, row[j - 1] + 1, row[j - 1] + (x != y))
    return row[-1]


def last_items_left_out(a, b):
    """The last item of each is never looked at: the table has len(a) + 1 rows and len(b) + 1 columns."""
    return _edit_distance(a[:-1], b[:-1]) if len(a) and len(b) else max(len(a), len(b))


def in_a_band(a, b, width=2):
    """Cells far from the diagonal are left out; where a block has moved, the cheapest way goes through them."""
    d = {}
    for i, j in itertools.product(range(len(a) + 1), range(len(b) + 1)):
        if abs(i - j) <= abs(len(a) - len(b)) + width:
            ways = [d.get((i - 1, j), math.inf) + 1, d.get((i, j - 1), math.inf) + 1]
            ways.append(d.get((i - 1, j - 1), math.inf) + (i > 0 < j and a[i - 1] != b[j - 1]))
            d[i, j] = min(ways) if i and j else i + j
    return d[len(a), len(b)]


def rows_shared(a, b, corner=0):
    """[[0] * m] * n is n times one and the same row: each needs a list of its own, [[0] * m for _ in range(n)]."""
    row = [corner, *range(1, len(b) + 1)]
    for x in a:
        for j, y in enumerate(b, 1):
            row[j] = min(row[j] + 1, row[j - 1] + 1, row[j - 1] + (x != y))
    return row[-1]


def rows_shared_and_column_last(a, b):
    """[[0] * m] * n is n times one and the same row: each needs a list of its own, [[0] * m for _ in range(n)]."""
    return rows_shared(a, b, corner=len(a))


def hashed(a, b):
    """Items are hashed, as keys of a dict, a set or a cache are; only == is promised. A cache's key can be (i, j)."""
    number = {item: n for n, item in enumerate(dict.fromkeys([*a, *b]))}
    return _edit_distance([number[item] for item in a], [number[item] for item in b])


_STEP = "min(d[i-1][j] + 1, d[i][j-1] + 1, d[i-1][j-1] + (x != y))"


@exercise(
    hints=[
        "d[0] is [0, 1, ..., len(b)]: from nothing to the first j items takes j insertions. d[i][0] is i.",
        "for i, x in enumerate(a, 1): begin the row with i; for j, y in enumerate(b, 1): append the least of three.",
        f"The three: {_STEP}. The last number of the last row is the distance.",
    ],
    mistakes=_edit_distance.mistakes(
        place_by_place,
        place_by_place_of_the_shorter,
        by_counts,
        with_transpositions,
        common_part,
        longest_less_common_part,
        longest_less_blocks,
        blocks_of_difflib,
        ends_stripped,
        diagonal_overwritten,
        last_items_left_out,
        in_a_band,
        hashed,
        rows_shared,
        rows_shared_and_column_last,
        same={
            "`is` asks whether both are one and the same object; equal items are found by ==.": lambda x, y: x is y,
            "Upper and lower case count as equal; items are equal if == says so.": (
                lambda x, y: str(x).lower() == str(y).lower()
            ),
            "Items are compared as text, as NumPy does if some are text; 1 and '1' are equal only if == says so.": lambda x, y: (
                str(x) == str(y)
            ),
        },
        substitution={
            "A substitution counts 2, or is left out of the three; it is one edit, and counts 1.": 2,
            "A substitution counts 0 in it: the diagonal costs 1 where the items differ.": 0,
        },
        first_row={
            "The first row is all 0: then what stands before the match in b is free. It is 0, 1, ..., len(b).": (
                lambda n: [0] * (n + 1)
            ),
        },
        first_column={
            "The first column is all 0: then leaving out the beginning of a is free. Row i begins with i.": lambda i: 0,
        },
        step={
            "Equal items still cost 1 on the diagonal: there the cost is 0.": lambda up, left, diagonal, same, cost: (
                min(up, left, diagonal) + 1
            ),
            "On the diagonal equal items cost 1 and different ones nothing: it is x != y that is added, not x == y.": (
                lambda up, left, diagonal, same, cost: min(up + 1, left + 1, diagonal + same)
            ),
            "Deletions are missing: d[i-1][j] + 1 is one of the three.": lambda up, left, diagonal, same, cost: min(
                left + 1, diagonal + (0 if same else cost)
            ),
            "Insertions are missing: d[i][j-1] + 1 is one of the three.": lambda up, left, diagonal, same, cost: min(
                up + 1, diagonal + (0 if same else cost)
            ),
            "It takes the largest of the three; the fewest edits are the least.": (
                lambda up, left, diagonal, same, cost: max(up + 1, left + 1, diagonal + (0 if same else cost))
            ),
            "Insertion and deletion are free where the items are equal: they cost 1, [a_i ≠ b_j] is the diagonal's.": (
                lambda up, left, diagonal, same, cost: min(up, left, diagonal) + (0 if same else cost)
            ),
        },
        together={
            "First row and first column are all 0: row 0 is 0, 1, ..., len(b), and row i begins with i.": {
                "first_row": lambda n: [0] * (n + 1),
                "first_column": lambda i: 0,
            }
        },
        end={
            "It is divided by the length; PER divides later, the distance is a whole number.": lambda rows, a, b: (
                rows[-1][-1] / max(len(b), 1)
            ),
            "It is divided by the longer length; PER divides later, the distance is a whole number.": (
                lambda rows, a, b: rows[-1][-1] / max(len(a), len(b), 1)
            ),
            "If one is empty, all of the other is inserted or deleted: the distance is its length.": (
                lambda rows, a, b: rows[-1][-1] if len(a) and len(b) else 0
            ),
            "The least number of the last row lets the end of b go free; the last one is the distance.": (
                lambda rows, a, b: min(rows[-1])
            ),
            "The whole last row comes back; its last number is the distance.": lambda rows, a, b: rows[-1],
            "The whole table comes back; its last number is the distance.": lambda rows, a, b: rows,
        },
        items={
            "The items are joined to one text and compared letter by letter: AA and A are two different phonemes.": (
                lambda x: "".join(map(str, x))
            ),
            "The items are joined to one text with spaces and compared letter by letter; an item such as AY is one.": (
                lambda x: " ".join(map(str, x))
            ),
            "Only the first letter of each item is compared: AA and AE are different phonemes.": lambda x: [
                str(item)[:1] for item in x
            ],
            "Items that occur again are thrown away: a set has each once, in no order.": lambda x: list(
                dict.fromkeys(x)
            ),
        },
    ),
    seconds=5,
)
def edit_distance(learner, rng):
    def authority(a, b):
        @functools.cache
        def rest(i, j):
            if i == len(a) or j == len(b):
                return len(a) - i + len(b) - j
            return min(rest(i + 1, j) + 1, rest(i, j + 1) + 1, rest(i + 1, j + 1) + (a[i] != b[j]))

        return rest(0, 0)

    def compare(a, b, why):
        given = learner(a, b)
        expect.equal(given, authority(a, b), why=why, source="plain recursion", likely=_cheaper_or_dearer)
        expect.dtype(given, int, f"{why}: a whole number")

    compare(["K", "N", "AY", "T"], ["N", "AY", "T"], "the example above")
    phonemes = ["A", "AA", "AE", "AH", "K", "KS", "S"]
    for n, m in ((5, 9), (9, 5), (6, 6), (1, 4), (4, 1), (7, 3), (2, 2), (12, 10)):
        a, b = (list(rng.choice(phonemes[: 2 + n], size)) for size in (n, m))
        a, b = [str(x) for x in a], [str(x) for x in b]
        compare(a, b, f"lists of {n} and {m} phonemes")
        compare(a, a[1:], f"{n} phonemes, the first of them missing")
        compare(a[:-1], a, f"{n} phonemes, the last of them missing at first")
    compare([], [], "two empty lists")
    compare([], ["A", "B", "B"], "from nothing")
    compare(["A", "B", "B"], [], "to nothing")
    compare(["A", "B"], ["AB"], "two items and one that is spelled like both")
    compare(list("AB"), list("BA"), "exchanged neighbours")
    compare("kitten", "sitting", "strings")
    compare((3, 14, 1, 5), (3, 1, 4, 5, 5), "tuples of numbers")
    compare(["a", "A", "b"], ["A", "a", "b"], "large and small letters, which are not equal")
    compare([1, "x", 2], ["1", "x", 2], "numbers and texts, and 1 is not '1'")
    compare([[1], [2], [1]], [[2], [1]], "items that are lists")
    compare("abcdefghijklmno", "hijklmnoabcdefg", "a block that has moved")
    a, b = (rng.integers(3, size=n).tolist() for n in (60, 45))
    compare(a, b, "lists of 60 and 45, in time")


def _cheaper_or_dearer(yours, expected):
    if np.ndim(yours) or not np.isreal(yours) or yours % 1:
        return ""
    if yours > expected:
        return "There is a cheaper way: is one of the three missing, a cell left out or left from an earlier call?"
    return "There is no way as cheap: is an edit free that costs 1, or are items left out or taken for equal?"


# ------------------------------------------------------------------------------------------------ masked_cross_entropy


def _where(nll, real):
    import torch

    return torch.where(real, nll, torch.zeros_like(nll))


@parts
def _masked_cross_entropy(
    logits,
    targets,
    pad,
    *,
    log_p=lambda z: z.log_softmax(2),
    real=lambda targets, pad, z: targets != pad,
    keep=_where,
    mean=lambda kept, real: kept.sum() / real.sum(),
    sign=-1,
):
    picked = log_p(logits).gather(2, targets[:, :, None])[:, :, 0]
    counted = real(targets, pad, logits)
    return mean(keep(sign * picked, counted), counted)


def without_pads_logit(logits, targets, pad):
    """pad's logit is left out of the softmax; it is over all K symbols, pad's too."""
    import torch

    return _masked_cross_entropy(logits.index_fill(2, torch.tensor([pad]), -torch.inf), targets, pad)


def smoothed(logits, targets, pad):
    """The targets are smoothed: only the right symbol's log probability counts."""
    from torch.nn import functional as F

    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad, label_smoothing=0.1)


def flattened_in_two_orders(logits, targets, pad):
    """Logits are flattened time first and targets batch first: both in the same order."""
    return _masked_cross_entropy(logits.transpose(0, 1).reshape(logits.shape), targets, pad)


def one_hot_product(logits, targets, pad):
    """A product with one-hot meets 0 times -inf, which is NaN, at real cells, too: gather the target's entry."""
    from torch.nn import functional as F

    log_p = (logits.log_softmax(2) * F.one_hot(targets, logits.shape[2])).sum(2)
    return -log_p[targets != pad].mean()


def symbols_in_the_last_dimension(logits, targets, pad):
    """F.cross_entropy wants the K symbols in dim 1: logits.flatten(0, 1) and targets.flatten(), or logits.mT."""
    from torch.nn import functional as F

    return F.cross_entropy(logits, targets, ignore_index=pad)


def _of_large_logits(yours, expected):
    if np.isfinite(yours).all():
        return (
            "Log probabilities may be as low as they like: does a small term (1e-9) or a clamp bound them? log_softmax."
        )
    return "exp of large logits overflows, or a probability is 0 and its log -inf: log_softmax has neither."


_PLACES = [[1, 0, 0, 0, 0, 0, 0], [1] * 7, [1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 1, 0]]


@exercise(
    hints=[
        "log_p = logits.log_softmax(2); log_p.gather(2, targets[:, :, None])[:, :, 0] is that of each target, (B, T).",
        "real = targets != pad. Which sum divided by which count? Padding may hold -inf, so do not multiply by 0.",
        "-torch.where(real, picked, 0.0).sum() / real.sum(), or -picked[real].mean().",
    ],
    mistakes=_masked_cross_entropy.mistakes(
        without_pads_logit,
        smoothed,
        flattened_in_two_orders,
        one_hot_product,
        symbols_in_the_last_dimension,
        mean={
            "The mean is over all cells, padding too: divide by real.sum(), the number of targets that are not pad.": (
                lambda kept, real: kept.mean()
            ),
            "Each row gets a mean of its own first, so a phoneme of a short word counts more: one sum, one count.": (
                lambda kept, real: (kept.sum(1) / real.sum(1).clamp(min=1)).mean()
            ),
            "It divides by the number of rows, B: divide by the number of targets that are not pad.": (
                lambda kept, real: kept.sum() / len(kept)
            ),
            "It divides by the number of places, T: divide by the number of targets that are not pad.": (
                lambda kept, real: kept.sum() / kept.shape[1]
            ),
            "It is the sum; divide by the number of targets that are not pad.": lambda kept, real: kept.sum(),
            "One loss for each row comes back; it is one number for the batch.": lambda kept, real: (
                kept.sum(1) / real.sum(1).clamp(min=1)
            ),
            "The losses of all cells come back; it is one number for the batch.": lambda kept, real: kept,
        },
        keep={
            "It multiplies by the mask: -inf at padding times 0 is NaN. Use torch.where, or pick the real entries.": (
                lambda nll, real: nll * real
            ),
            "The padding's losses are in the sum: only those where targets != pad count.": lambda nll, real: nll,
        },
        real={
            "The mask is turned around: it counts the padding and nothing else.": lambda targets, pad, z: (
                targets == pad
            ),
            "pad is an argument; this takes 0 whatever it is.": lambda targets, pad, z: targets != 0,
            "It counts as real what is larger than pad: pad may be any number, != is the question.": (
                lambda targets, pad, z: targets > pad
            ),
            "The mask comes from what the model would say, its argmax; it is the targets that say where padding is.": (
                lambda targets, pad, z: z.argmax(2) != pad
            ),
            "It stops a row at its first pad; here targets != pad decides, place by place.": lambda targets, pad, z: (
                (targets != pad).cumprod(1).bool()
            ),
            "It takes as many cells from the beginning as are real; padding may stand in between: targets != pad.": (
                lambda targets, pad, z: (targets != pad).sort(1, descending=True).values
            ),
            "`pad or ...` takes a pad of 0 for none: 0 is a pad like others.": lambda targets, pad, z: (
                targets != (pad or -100)
            ),
        },
        log_p={
            "The softmax is over the places T; over the symbols it is dim 2.": lambda z: z.log_softmax(1),
            "The softmax is over the batch; over the symbols it is dim 2.": lambda z: z.log_softmax(0),
            "The logarithm is missing: these are probabilities.": lambda z: z.softmax(2),
            "Logits are no log probabilities: log_softmax over the symbols first.": lambda z: z,
            "Softmax is taken twice: log_softmax takes logits, not probabilities.": lambda z: z.softmax(2).log_softmax(
                2
            ),
            "log(softmax) is -inf where a probability is too small; log_softmax is not.": lambda z: z.softmax(2).log(),
        },
        sign={"The sign is turned: the loss is minus the mean log probability.": 1},
        returns={
            "The number is out of torch, or cut from the graph: no gradient flows through it.": lambda loss: (
                loss.detach()
            ),
        },
    ),
)
def masked_cross_entropy(learner, rng):
    import torch
    from torch.nn import functional as F

    def authority(z, y, pad):
        return F.cross_entropy(z.reshape(-1, z.shape[2]), y.reshape(-1), ignore_index=pad)

    def drawn(B, T, K, pad, places=None):
        z = torch.tensor(2 * rng.normal(size=(B, T, K)))
        y = rng.integers(K - 1, size=(B, T))
        y = np.where(y >= pad, y + 1, y)  # none of them pad
        real = rng.random((B, T)) < 0.6 if places is None else np.array(places, bool)
        real[0, 0] = True
        return z, torch.tensor(np.where(real, y, pad))

    source = "F.cross_entropy, ignore_index=pad"
    shapes = [(4, 7, 5, 0, _PLACES), (3, 7, 6, 5, _PLACES[:3]), (4, 7, 5, 2, _PLACES), (1, 4, 6, 3, None)]
    shapes += [(5, 1, 3, 1, None), (3, 3, 3, 0, None), (2, 5, 9, 8, None), (1, 1, 2, 1, None)]
    for B, T, K, pad, places in shapes:
        z, y = drawn(B, T, K, pad, places)
        said = f"logits ({B}, {T}, {K}), pad {pad}"
        given = learner(z, y, pad)
        tensor(given, said)
        why = f"the mean over the targets that are not pad, {said}"
        expect.close(given, authority(z, y, pad), why=why, source=source, dtype=z)
        gradients(
            lambda z, y=y, p=pad: learner(z, y, p), lambda z, y=y, p=pad: authority(z, y, p), rng, why=said, logits=z
        )
        turned = z.transpose(0, 1).contiguous().transpose(0, 1)
        expect.close(learner(turned, y, pad), authority(z, y, pad), why=f"{why}, laid out otherwise", source=source)
        expect.close(
            learner(z.float(), y, pad), authority(z, y, pad), why=f"{why}, float32", source=source, dtype=torch.float32
        )
    z, y = drawn(4, 7, 5, 2, _PLACES)
    y[1] = 2  # a row that is all padding
    why = "a row that is all padding"
    likely = "A row of its own has 0 of 0 there: one sum over all, one count."
    expect.close(learner(z, y, 2), authority(z, y, 2), why=why, source=source, likely=likely)
    z, y = drawn(3, 7, 5, 0, _PLACES[:3])
    far = z * 1e3
    why = "logits in the thousands"
    expect.close(learner(far, y, 0), authority(far, y, 0), why=why, source=source, likely=_of_large_logits)
    impossible = z.clone()
    impossible[..., 1] = torch.where(y == 1, z[..., 1], -torch.inf)
    why = "-inf for a symbol that is not the target"
    likely = "-inf times 0 is NaN: gather the target's entry instead of multiplying by one-hot."
    expect.close(learner(impossible, y, 0), authority(impossible, y, 0), why=why, source=source, likely=likely)
    z[..., 0] = torch.where(y == 0, -torch.inf, z[..., 0])
    why = "-inf for pad, at padding"
    likely = "-inf times 0 is NaN: use torch.where, or pick the real entries, instead of multiplying by a mask."
    expect.close(learner(z, y, 0), authority(z, y, 0), why=why, source=source, likely=likely)
    gradients(lambda z: learner(z, y, 0), lambda z: authority(z, y, 0), rng, why=why, logits=z)


# ------------------------------------------------------------------------------------------------ encode


def _packed(embedded, lengths, first=True):
    from torch.nn.utils.rnn import pack_padded_sequence

    return pack_padded_sequence(embedded, lengths.cpu(), batch_first=first, enforce_sorted=False)


def _unpacked(outputs, T, value=0.0):
    from torch.nn.utils.rnn import pad_packed_sequence

    return pad_packed_sequence(outputs, batch_first=True, total_length=T, padding_value=value)


def _filled(outputs, T, value=0.0):
    return _unpacked(outputs, T, value)[0]


def _in_sorted_order(gru, embedded, lengths):
    order = lengths.argsort(descending=True, stable=True)
    outputs, state = gru(_packed(embedded[order], lengths[order]))
    return outputs, state


def _sorted_twice(gru, embedded, lengths):
    order = lengths.argsort(descending=True, stable=True)
    outputs, state = gru(_packed(embedded[order], lengths[order]))
    return _packed(_filled(outputs, embedded.shape[1])[order], lengths[order][order]), state[:, order]


def _last_repeated(outputs, T):
    import torch

    filled, lengths = _unpacked(outputs, T)
    at = torch.minimum(torch.arange(T)[None], lengths[:, None] - 1)
    return filled.gather(1, at[:, :, None].expand_as(filled))


def _side_by_side(state):
    import torch

    return torch.cat([state[0::2], state[1::2]], 2)


def _picked(outputs, lengths):
    import torch

    return outputs[torch.arange(len(lengths)), lengths - 1]


def picked_from_a_padded_run(gru, embedded, lengths):
    """Picking the outputs at the last letters leaves the padding in: a GRU that reads backwards has read it first."""
    import torch

    outputs, state = gru(embedded)
    ways = 1 + gru.bidirectional
    last = _picked(outputs, lengths).view(len(lengths), ways, gru.hidden_size).transpose(0, 1)
    return _zeroed(outputs, lengths), torch.cat([state[:-ways], last])


def _zeroed(outputs, lengths):
    import torch

    return torch.where(_inside(outputs, lengths), outputs, torch.zeros_like(outputs))


def _inside(outputs, lengths):
    import torch

    return (torch.arange(outputs.shape[1])[None] < lengths[:, None])[:, :, None]


def with_padding_read(gru, embedded, lengths):
    """The padding is read, too: the state is the one after it, and a GRU that reads backwards begins in it. Pack."""
    return gru(embedded)


def zeroed_afterwards(gru, embedded, lengths):
    """The outputs are cleaned afterwards, but the state has been through the padding: pack, so that it is not read."""
    outputs, state = gru(embedded)
    return _zeroed(outputs, lengths), state


def picked_at_the_last_letter(gru, embedded, lengths):
    """Picking the last letter's output is the state of a GRU in one direction of one layer: take what the packed
    GRU returns."""
    outputs, _ = gru(embedded)
    outputs = _zeroed(outputs, lengths)
    return outputs, _picked(outputs, lengths)[None]


def padding_zeroed_before(gru, embedded, lengths):
    """Zeros as input are read as well, and change the state: pack, so that nothing is read there."""
    outputs, state = gru(_zeroed(embedded, lengths))
    return _zeroed(outputs, lengths), state


@parts
def _encode(
    gru,
    embedded,
    lengths,
    *,
    run=lambda gru, embedded, lengths: gru(_packed(embedded, lengths)),
    fill=lambda outputs, T: _filled(outputs, T),
    state_of=lambda state, outputs, lengths: state,
    end=lambda outputs, state: (outputs, state),
):
    outputs, state = run(gru, embedded, lengths)
    outputs = fill(outputs, embedded.shape[1])
    return end(outputs, state_of(state, outputs, lengths))


@exercise(
    hints=[
        "Three lines: pack, run, fill up. Which of the GRU's two results is right already, and which is still packed?",
        "packed = pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)",
        "outputs, state = gru(packed), and the state is right. Then outputs, _ = pad_packed_sequence(outputs, "
        "batch_first=True, total_length=embedded.shape[1]).",
    ],
    mistakes=_encode.mistakes(
        with_padding_read,
        zeroed_afterwards,
        picked_at_the_last_letter,
        padding_zeroed_before,
        picked_from_a_padded_run,
        run={
            "pack_padded_sequence needs batch_first=True, too: else it takes the first axis for the steps.": (
                lambda gru, embedded, lengths: gru(_packed(embedded, lengths, first=False))
            ),
            "Rows are sorted back by `order` itself; its inverse is wanted, order.argsort().": _sorted_twice,
            "The lengths are sorted and the rows are not: each row gets another's length.": lambda gru, x, lengths: gru(
                _packed(x, lengths.sort(descending=True).values)
            ),
            "The rows are left in the order of their lengths: enforce_sorted=False puts them back by itself.": (
                _in_sorted_order
            ),
            "lengths - 1 leaves out each word's last letter: lengths are counts.": lambda gru, embedded, lengths: gru(
                _packed(embedded, (lengths - 1).clamp(min=1))
            ),
        },
        fill={
            "The outputs are as long as the longest word: total_length=T fills them up to the width that came in.": (
                lambda outputs, T: _filled(outputs, None)
            ),
            "The outputs are still packed: pad_packed_sequence(outputs, batch_first=True, total_length=T)[0].": (
                lambda outputs, T: outputs
            ),
            "The outputs come back as (T, B, D): pad_packed_sequence needs batch_first=True, too.": (
                lambda outputs, T: _filled(outputs, T).transpose(0, 1)
            ),
            "Beyond each length stands its last output; zeros are asked for.": _last_repeated,
            "pad_packed_sequence returns the outputs and the lengths: outputs, _ = pad_packed_sequence(...).": _unpacked,
            "Beyond each length stands -inf; zeros are asked for: padding_value=0, as it is by itself.": (
                lambda outputs, T: _filled(outputs, T, -math.inf)
            ),
        },
        state_of={
            "Only the last layer's or direction's state comes back; all are wanted, as the GRU returns them.": (
                lambda state, outputs, lengths: state[-1]
            ),
            "The state is the output in the last column, which is padding for shorter words: take the GRU's own.": (
                lambda state, outputs, lengths: outputs[:, -1][None]
            ),
            "The state is picked from the outputs: backwards ends at step 0, lower layers are not in it. Take the GRU's.": (
                lambda state, outputs, lengths: _picked(outputs, lengths)[None]
            ),
            "The state comes back with the batch first; here it stays as the GRU returns it.": (
                lambda state, outputs, lengths: state.transpose(0, 1)
            ),
            "The two directions are put side by side; they stay apart: (layers · directions, B, D).": (
                lambda state, outputs, lengths: _side_by_side(state) if outputs.shape[2] > state.shape[2] else state
            ),
            "Layers or directions are in another order: the state stays as the GRU returns it.": (
                lambda state, outputs, lengths: state.flip(0)
            ),
        },
        end={
            "State and outputs are exchanged: return outputs, state.": lambda outputs, state: (state, outputs),
            "Only the outputs come back: return outputs, state.": lambda outputs, state: outputs,
            "Only the state comes back: return outputs, state.": lambda outputs, state: state,
            "The results are cut from the graph: no encoder learns this way.": lambda outputs, state: (
                outputs.detach(),
                state.detach(),
            ),
            "The state is cut from the graph: the encoder learns from the decoder through it.": lambda outputs, state: (
                outputs,
                state.detach(),
            ),
        },
    ),
    seconds=20,
)
def encode(learner, rng):
    import torch
    from torch import nn

    def authority(gru, embedded, lengths):
        """One word at a time, without any padding."""
        outputs, states = [], []
        for row, n in zip(embedded, lengths.tolist(), strict=True):
            out, state = gru(row[None, :n])
            outputs.append(torch.cat([out, out.new_zeros(1, len(row) - n, out.shape[2])], 1))
            states.append(state)
        return torch.cat(outputs), torch.cat(states, 1)

    source = "one word at a time"
    settings = [
        ([3, 6, 1, 4, 2], 6, 1, False), ([3, 5, 1, 4], 8, 1, False), ([2, 2], 2, 1, False), ([4], 7, 1, False),
        ([2, 5, 5, 1, 3], 6, 1, True), ([6, 2, 4], 6, 2, False), ([1, 3, 2, 4], 5, 2, True), ([1], 1, 1, True),
        ([6, 5, 5, 2], 9, 1, True),
    ]  # fmt: skip
    for given_lengths, T, layers, both in settings:
        B, C, D = len(given_lengths), 3, 4
        gru = nn.GRU(C, D, layers, batch_first=True, bidirectional=both).double()
        lengths = torch.tensor(given_lengths)
        embedded = torch.tensor(rng.normal(size=(B, T, C)))
        for b, n in enumerate(given_lengths):
            embedded[b, n:] *= 30  # what must not be read
        said = f"lengths {given_lengths}, T = {T}, {layers} layer{'s' * (layers > 1)}{', both directions' * both}"
        outputs, state = expect.parts(learner(gru, embedded, lengths), ("outputs", "state"), f"two results, {said}")
        theirs = authority(gru, embedded, lengths)
        tensor(state, "the state")
        why = f"each row's state after its own last step, {said}"
        expect.close(state, theirs[1], why=why, source=source, dtype=embedded)
        tensor(outputs, "the outputs")
        why = f"outputs, and zeros beyond each length, {said}"
        expect.close(outputs, theirs[0], why=why, source=source, dtype=embedded)
        gradients(
            lambda x, gru=gru, n=lengths: learner(gru, x, n),
            lambda x, gru=gru, n=lengths: authority(gru, x, n),
            rng,
            why=said,
            embedded=embedded,
        )
        ways = [torch.tensor(rng.normal(size=tuple(each.shape))) for each in theirs]
        mine = _pulled(gru, learner(gru, embedded, lengths), ways)
        for (name, _), one, other in zip(gru.named_parameters(), mine, _pulled(gru, theirs, ways), strict=True):
            why = f"the gradient of the GRU's {name}, {said}"
            likely = "Is it cut from the graph (.detach(), .data, torch.no_grad()), or does a copy of the GRU run?"
            expect.true(one is not None, why, "yours    None", likely=likely)
            expect.close(one, other, why=why, source=source)
    gru = nn.GRU(3, 4, batch_first=True)
    x, lengths = torch.tensor(rng.normal(size=(3, 5, 3)), dtype=torch.float32), torch.tensor([2, 5, 1])
    mine, theirs = learner(gru, x, lengths), authority(gru, x, lengths)
    for one, other, name in zip(mine, theirs, ("outputs", "state"), strict=True):
        expect.close(one, other, why=f"{name} in float32", source=source, dtype=torch.float32, atol=1e-5)


def _pulled(gru, results, ways):
    import torch

    total = sum((each * way).sum() for each, way in zip(results, ways, strict=True))
    if not total.requires_grad:
        return [None for _ in gru.parameters()]
    return torch.autograd.grad(total, list(gru.parameters()), allow_unused=True)


# ------------------------------------------------------------------------------------------------ decoder_pairs


@parts
def _decoder_pairs(
    phonemes,
    bos,
    eos,
    pad,
    *,
    read=lambda row, bos, eos: [bos, *row],
    say=lambda row, bos, eos: [*row, eos],
    rows=lambda phonemes, pad: phonemes,
    width=lambda rows: max(map(len, rows)) + 1,
    pads=lambda bos, eos, pad: (pad, pad),
    fill=lambda row, T, pad: [*row, *[pad] * (T - len(row))][:T],
    number="int64",
    end=lambda inputs, targets: (inputs, targets),
):
    import torch

    rows = rows([list(each) for each in phonemes], pad)
    T, dtype = width(rows), getattr(torch, number)
    inputs, targets = (
        torch.tensor([fill(row(each, bos, eos), T, filling) for each in rows], dtype=dtype)
        for row, filling in zip((read, say), pads(bos, eos, pad), strict=True)
    )
    return end(inputs, targets)


def eos_missing_and_a_column(phonemes, bos, eos, pad):
    """The targets have no eos: nobody learns to stop. A row is [*row, eos], as long as its inputs."""
    inputs, targets = _decoder_pairs(phonemes, bos, pad, pad)
    return inputs, targets[:, :-1]


def eos_in_the_last_column(phonemes, bos, eos, pad):
    """eos stands in the last column, after the padding; it comes after the row's last phoneme, before the padding."""
    import torch

    inputs, _ = _decoder_pairs(phonemes, bos, eos, pad)
    most = inputs.shape[1] - 1
    return inputs, torch.tensor([[*row, *[pad] * (most - len(row)), eos] for row in phonemes])


@exercise(
    hints=[
        "A row of inputs is [bos, *row], a row of targets [*row, eos]: both have one more than the word.",
        "pad_sequence takes a list of tensors: [torch.tensor([bos, *row]) for row in phonemes].",
        "pad_sequence(inputs, batch_first=True, padding_value=pad), the same for targets; return both.",
    ],
    mistakes=_decoder_pairs.mistakes(
        eos_in_the_last_column,
        eos_missing_and_a_column,
        bos={"bos is an argument; this takes 1 whatever it is.": 1},
        eos={"eos is an argument; this takes 2 whatever it is.": 2},
        rows={
            "A word without phonemes is a row, too: bos in, eos out.": lambda rows, pad: [row for row in rows if row],
            "The rows come back sorted by length; they stay in the order in which they came.": lambda rows, pad: sorted(
                rows, key=len, reverse=True
            ),
            "A phoneme with pad's number is left out; it stays.": lambda rows, pad: [
                [each for each in row if each != pad] for row in rows
            ],
            "The phonemes are in reverse order.": lambda rows, pad: [row[::-1] for row in rows],
        },
        pads={
            "The targets are filled with eos; eos comes once, and then pad.": lambda bos, eos, pad: (pad, eos),
            "The inputs are filled with bos; the rest of a row is pad.": lambda bos, eos, pad: (bos, pad),
            "The inputs are filled with eos; the rest of a row is pad.": lambda bos, eos, pad: (eos, pad),
            "The targets are filled with -100; pad is an argument.": lambda bos, eos, pad: (pad, -100),
        },
        say={
            "The targets have no eos: nobody learns to stop. A row is [*row, eos].": lambda row, bos, eos: row,
            "The targets begin with bos, so they are what is read: the network would learn to copy. Shift them by one.": (
                lambda row, bos, eos: [bos, *row]
            ),
            "bos is in the targets: the first thing to say is the first phoneme.": lambda row, bos, eos: (
                [bos, *row, eos]
            ),
            "Targets end with bos; the end sign is eos.": lambda row, bos, eos: [*row, bos],
            "eos stands in the first place of the targets; it comes after the last phoneme.": lambda row, bos, eos: (
                [eos, *row]
            ),
            "The targets are shifted once too often: the first thing to say is the first phoneme.": (
                lambda row, bos, eos: [*row[1:], eos]
            ),
        },
        read={
            "The inputs have no bos: the first step would see the phoneme that it is to say.": lambda row, bos, eos: (
                [*row, eos]
            ),
            "The inputs are the phonemes alone: before the first comes bos.": lambda row, bos, eos: row,
            "The inputs begin with eos; they begin with bos.": lambda row, bos, eos: [eos, *row],
            "eos is fed in for the shorter rows, as whole[:, :-1] does: after a row's last phoneme comes pad.": (
                lambda row, bos, eos: [bos, *row, eos]
            ),
            "The last phoneme is missing in the inputs: eos is said after reading it.": lambda row, bos, eos: (
                [bos, *row[:-1]]
            ),
        },
        width={
            "The longest row is cut: T = 1 + length of the longest.": lambda rows: max(max(map(len, rows)), 1),
            "There is a column too many: T = 1 + length of the longest.": lambda rows: max(map(len, rows)) + 2,
            "T comes from the first row; the longest one counts.": lambda rows: len(rows[0]) + 1,
            "T comes from the last row; the longest one counts.": lambda rows: len(rows[-1]) + 1,
        },
        fill={
            "pad is an argument; this fills with 0 whatever it is.": lambda row, T, pad: [*row, *[0] * (T - len(row))][
                :T
            ],
            "The padding stands before the row; it comes after it.": lambda row, T, pad: [
                *[pad] * (T - len(row)),
                *row,
            ][:T],
        },
        number={
            "The numbers are no int64: make whole numbers of 64 bits, as an embedding wants them.": "float32",
        },
        together={
            "bos and eos are arguments; this takes 1 and 2 whatever they are.": {"bos": 1, "eos": 2},
            "Both are [bos, ..., eos] in whole: inputs leave out eos, targets leave out bos.": {
                "read": lambda row, bos, eos: [bos, *row, eos],
                "say": lambda row, bos, eos: [bos, *row, eos],
                "width": lambda rows: max(map(len, rows)) + 2,
            },
        },
        end={
            "Inputs and targets are exchanged: return inputs, targets.": lambda inputs, targets: (targets, inputs),
            "The batch is in the second axis; (B, T) is asked for: batch_first=True.": lambda inputs, targets: (
                inputs.T,
                targets.T,
            ),
            "Only the inputs come back: return inputs, targets.": lambda inputs, targets: inputs,
        },
    ),
)
def decoder_pairs(learner, rng):
    import torch

    def words(lengths, low, high):
        return [rng.integers(low, high, n).tolist() for n in lengths]

    settings = [
        ([[5, 9, 7]], 1, 2, 0, "the example above"),
        (words([3, 6, 1, 4], 3, 20), 1, 2, 0, "four words"),
        (words([2, 2, 5], 3, 20), 2, 1, 0, "bos 2 and eos 1"),
        (words([4, 1], 0, 9), 10, 11, 9, "pad 9, and a phoneme 0"),
        (words([5, 3, 2], 3, 9), 40, 41, 42, "pad 42"),
        (words([3, 0, 2], 3, 9), 1, 2, 0, "a word without phonemes"),
        (words([3, 3, 3], 3, 9), 1, 2, 7, "words of one length"),
        (words([0], 3, 9), 0, 2, 1, "one word without phonemes"),
        (words([2, 0, 0], 3, 9), 0, 1, 5, "two words without phonemes"),
        (words([1], 3, 9), 0, 2, 1, "one word of one phoneme"),
    ]
    for rows, bos, eos, pad, said in settings:
        T = max(map(len, rows)) + 1
        inputs, targets = expect.parts(learner(rows, bos, eos, pad), ("inputs", "targets"), f"two results, {said}")
        reads = [[bos, *row] + [pad] * (T - 1 - len(row)) for row in rows]
        says = [[*row, eos] + [pad] * (T - 1 - len(row)) for row in rows]
        for name, given, wanted in (("inputs", inputs, reads), ("targets", targets, says)):
            tensor(given, f"{name}, {said}")
            why = f"{name}, {said}: bos {bos}, eos {eos}, pad {pad}"
            expect.equal(given, wanted, why=why, source="by hand", likely=_columns_differ)
            likely = "torch.tensor([]) of a word without phonemes is float32: dtype=torch.int64." if [] in rows else ""
            expect.dtype(given, torch.int64, f"{name} are whole numbers, int64", likely=likely)


def _columns_differ(yours, expected):
    if yours.ndim == 2 and len(yours) == len(expected) and yours.shape[1] != expected.shape[1]:
        return f"T is 1 + the length of this batch's longest row, {expected.shape[1]}, and yours is {yours.shape[1]}."
    return ""


# ------------------------------------------------------------------------------------------------ automata


class _Automaton:
    """A decoder of K symbols: log P and next state of each row from its token and state. Counts its calls.

    A run begins where all tokens are bos and the state is that of the start. likely_bos: how likely bos is as an answer.
    """

    def __init__(self, rng, K, S, bos, eos, likely_end=0.0, spread=2.0, likely_bos=-1e4):
        import torch

        draw = lambda *shape: torch.tensor(rng.normal(size=shape))  # noqa: E731
        self.K, self.S, self.bos, self.eos = K, S, bos, eos
        self.enter, self.turn = 1.5 * draw(K, S), 1.2 * draw(S, S)
        self.read, self.bias = spread * draw(S, K), torch.zeros(K, dtype=torch.float64)
        self.bias[eos], self.bias[bos] = likely_end, likely_bos
        self.calls, self.most_rows, self.recorded = 0, 0, False

    def start(self, rng, rows):
        import torch

        self.begin = torch.tensor(rng.normal(size=(rows, self.S)))
        return self.begin

    def __call__(self, tokens, state):
        import torch

        shown = [f"tokens {tuple(getattr(tokens, 'shape', ()))}, state {tuple(getattr(state, 'shape', ()))}"]
        if not isinstance(tokens, torch.Tensor) or not isinstance(state, torch.Tensor):
            raise Complaint("step gets two tensors", [f"yours    {type(tokens).__name__}, {type(state).__name__}"], "")
        if tokens.ndim != 1 or state.ndim != 2 or len(tokens) != len(state):
            likely = "One token and one state for each row: (N,) and (N, D)."
            raise Complaint("step gets tokens (N,) and states (N, D)", shown, likely)
        if tokens.dtype != torch.int64:
            raise Complaint("step gets tokens as int64", [f"yours    {tokens.dtype}"], "Tokens are whole numbers.")
        if len(tokens) == 0:
            raise Complaint("step gets at least one row", shown, "Where none is open any more, stop.")
        begins = bool((tokens == self.bos).all()) and torch.equal(state, self.begin)
        self.calls = 1 if begins else self.calls + 1
        if self.calls > 5000:
            likely = "It goes on beyond limit: a row that does not end is cut after `limit` symbols."
            raise Complaint("step is called `limit` times at most", [f"steps    {self.calls}"], likely)
        self.most_rows = max(self.most_rows, len(tokens))
        self.recorded |= torch.is_grad_enabled()
        new = torch.tanh(state @ self.turn + self.enter[tokens])
        return (new @ self.read + self.bias).log_softmax(1), new

    def said_greedily(self, state, limit):
        """One row's sentence: (1, S) in, list out."""
        import torch

        token, said = self.bos, []
        for _ in range(limit):
            new = torch.tanh(state @ self.turn + self.enter[token])
            state, token = new, int((new @ self.read + self.bias)[0].argmax())
            if token == self.eos:
                break
            said.append(token)
        return said

    def log_p(self, state, prefix):
        """Log probabilities of what follows a prefix, computed from the beginning: a NumPy array (K,)."""
        import torch

        for token in (self.bos, *prefix):
            state = torch.tanh(state @ self.turn + self.enter[token])
        return (state @ self.read + self.bias).log_softmax(1)[0].numpy()


# ------------------------------------------------------------------------------------------------ greedy


@parts
def _greedy(
    step,
    state,
    bos,
    eos,
    limit,
    *,
    choose=lambda log_p, n, bos, eos: log_p.argmax(1),
    carry=lambda new, first: new,
    feed=lambda tokens, bos: tokens,
    stop=all,
    keep=lambda row, token, ended, eos: row if ended else [*row, token],
    before=lambda bos: [],
    times=lambda limit: limit,
    first=lambda bos, eos: bos,
    grad=False,
):
    import torch

    tokens, first_state = torch.full((len(state),), first(bos, eos)), state
    said, ended = [before(bos) for _ in range(len(state))], [False] * len(state)
    with torch.set_grad_enabled(grad):
        for n in range(times(limit)):
            log_p, new = step(feed(tokens, bos), state)
            state, tokens = carry(new, first_state), choose(log_p, n, bos, eos)
            for b, token in enumerate(tokens.tolist()):
                ended[b] = ended[b] or token == eos
                said[b] = keep(said[b], token, ended[b], eos)
            if stop(ended):
                break
    return said


def _forbidden(log_p, symbol):
    return log_p.index_fill(1, log_p.new_full((1,), symbol).long(), -math.inf)


@exercise(
    hints=[
        "tokens = torch.full((len(state),), bos, device=state.device); in the loop: log_p, state = step(tokens, state); tokens = log_p.argmax(1).",
        "A list for each row, and a flag whether it has ended. Once a row has said eos, nothing more is added to it.",
        "for b, token in enumerate(tokens.tolist()): ended[b] = ended[b] or token == eos; if not ended[b]: "
        "said[b].append(token). Break where all(ended). All of it in torch.no_grad().",
    ],
    mistakes=_greedy.mistakes(
        carry={
            "The state is not carried: step returns a new one, and the next step needs that: log_p, state = step(...).": (
                lambda new, first: first
            ),
        },
        feed={
            "Every step is fed bos: feed what was said last.": lambda tokens, bos: tokens * 0 + bos,
        },
        stop={
            "It stops for all when the first row ends: go on until all have ended.": any,
            "It never stops before the limit: once all rows have ended, step is not called again.": lambda ended: False,
        },
        keep={
            "eos is kept in the answer; it is the end, and no symbol of it.": lambda row, token, ended, eos: (
                row if eos in row else [*row, token]
            ),
            "A row goes on after its eos: once it has ended, nothing more is added.": lambda row, token, ended, eos: (
                row if token == eos else [*row, token]
            ),
            "A row goes on after its eos, and eos is kept: a row ends at its first eos.": (
                lambda row, token, ended, eos: [*row, token]
            ),
        },
        before={"bos is kept in the answer; a row begins with the first symbol that is said.": lambda bos: [bos]},
        times={
            "It takes a step less than limit: a row may have `limit` symbols.": lambda limit: limit - 1,
            "It takes a step more than limit: step is called `limit` times at most.": lambda limit: limit + 1,
            "It goes on beyond limit: a row that does not end is cut after `limit` symbols.": lambda limit: 200,
        },
        first={
            "It begins with token 0; the first token is bos, whatever number that is.": lambda bos, eos: 0,
            "It begins with token 1; the first token is bos, whatever number that is.": lambda bos, eos: 1,
            "It begins with eos; the first token is bos.": lambda bos, eos: eos,
        },
        eos={"eos is an argument; this waits for 2 whatever it is.": 2},
        choose={
            "argmax(0) is over the rows of the batch; over the symbols it is dim 1.": lambda log_p, n, bos, eos: (
                log_p.argmax(0)
            ),
            "It takes the least likely: argmax, not argmin.": lambda log_p, n, bos, eos: log_p.argmin(1),
            "It takes the second likeliest: argmax is the likeliest.": lambda log_p, n, bos, eos: log_p.topk(2).indices[
                :, 1
            ],
            "One choice for the whole batch: argmax over the symbols, dim 1, for each row.": lambda log_p, n, bos, eos: (
                log_p.mean(0).argmax().expand(len(log_p)).clone()
            ),
            "bos is forbidden as an answer; here it is a symbol like others.": lambda log_p, n, bos, eos: _forbidden(
                log_p, bos
            ).argmax(1),
            "eos is forbidden at first; a row may say it at once, and is an empty list then.": (
                lambda log_p, n, bos, eos: (log_p if n else _forbidden(log_p, eos)).argmax(1)
            ),
            "It draws at random; the likeliest is asked for: argmax.": lambda log_p, n, bos, eos: (
                log_p.exp().multinomial(1)[:, 0]
            ),
        },
        returns={
            "The rows are padded to one length; each row is a list of what it said.": lambda said: [
                [*row, *[0] * (max(map(len, said)) - len(row))] for row in said
            ],
            "A list of texts or tensors comes back; each row is a list of ints.": lambda said: [
                np.array(row, int) for row in said
            ],
        },
        grad={"A graph is recorded, which keeps all steps in memory: with torch.no_grad().": True},
    ),
    seconds=20,
)
def greedy(learner, rng):
    source = "one row at a time"
    settings = [
        (5, 6, 1, 2, 12, 0.5), (4, 5, 3, 0, 9, 1.0), (1, 7, 0, 6, 10, 0.5), (6, 4, 2, 1, 3, 0.5),
        (3, 6, 5, 4, 1, 2.0), (7, 9, 4, 7, 15, 1.5), (2, 5, 1, 2, 7, 1.0),
    ]  # fmt: skip
    for B, K, bos, eos, limit, likely_end in settings:
        step, state = _with_several_lengths(rng, B, K, bos, eos, limit, likely_end)
        wanted = [step.said_greedily(row[None], limit) for row in state]
        lengths = [len(row) for row in wanted]
        said = f"{B} rows, {K} symbols, bos {bos}, eos {eos}, limit {limit}: they say {lengths} symbols"
        given = learner(step, state, bos, eos, limit)
        _demand_rows(given, wanted, said, source, limit)
        most = max(min(n + 1, limit) for n in lengths)
        _demand_calls(step, limit, most, said)
    step = _Automaton(rng, 6, 5, 1, 2, likely_end=-1e3)
    state = step.start(rng, 3)
    wanted = [step.said_greedily(row[None], 11) for row in state]
    _demand_rows(learner(step, state, 1, 2, 11), wanted, "nobody ever says eos, limit 11", source)
    _demand_calls(step, 11, 11, "nobody ever says eos")
    step = _Automaton(rng, 6, 5, 1, 2, likely_end=1e3)
    state = step.start(rng, 3)
    _demand_rows(learner(step, state, 1, 2, 11), [[], [], []], "all say eos at once", source)
    _demand_calls(step, 11, 1, "all say eos at once")
    step = _Automaton(rng, 6, 5, 1, 2)
    state = step.start(rng, 2).requires_grad_()
    learner(step, state, 1, 2, 5)
    likely = "Put the loop under torch.no_grad()."
    expect.true(not step.recorded, "no graph is recorded while decoding", likely=likely)


def _with_several_lengths(rng, B, K, bos, eos, limit, likely_end):
    """An automaton and a state whose rows do not all end together, if there are several; some before the limit."""
    for _ in range(300):
        step = _Automaton(rng, K, 5, bos, eos, likely_end, likely_bos=0.5)
        state = step.start(rng, B)
        said = [step.said_greedily(row[None], limit) for row in state]
        lengths = {len(row) for row in said}
        varied = len(lengths) >= min(B, 3, limit + 1 if limit > 1 else 2)
        varied &= limit == 1 or any(bos in row for row in said)
        if (
            varied
            and len({token for row in said for token in row}) > 1 - (limit == 1)
            and (limit == 1 or min(lengths) < limit)
        ):
            break
    return step, state


def _demand_rows(given, wanted, said, source, limit=11):
    why = f"what each row says before its first eos, {said}"
    expect.kind(given, list, f"a list of rows, {said}")
    likely = "A list of lists of whole numbers: .tolist() makes one of a tensor."
    plain = all(isinstance(row, list) and all(isinstance(t, int | np.integer) for t in row) for row in given)
    expect.true(plain, f"each row is a list of ints, {said}", f"yours    {_short(given)}", likely=likely)
    expect.equal(
        [list(map(int, row)) for row in given],
        wanted,
        why=why,
        source=source,
        likely=_rows_differ(given, wanted, limit),
    )


def _rows_differ(given, wanted, limit):
    """What sets the rows apart, from the telling to the vague."""
    if max(map(len, given), default=0) > limit:
        return f"Rows go on beyond limit: a row that does not end is cut after `limit` = {limit} symbols."
    if len(given) != len(wanted):
        return f"{len(given)} rows come back for {len(wanted)}: one for each row of state."
    pairs = [(a, b) for a, b in zip(given, wanted, strict=True) if a != b]
    if all(a == [] and len(b) == limit for a, b in pairs):
        return "A row without eos comes back empty: it keeps its `limit` symbols."
    if all(a == [each for each in b if each != 0] for a, b in pairs):
        return "Symbol 0 is left out as if it were padding; here it is a symbol like others."
    if all(a == [each for each, _ in itertools.groupby(b)] for a, b in pairs):
        return "A symbol that is said twice in a row counts twice."
    if all(b[: len(a)] == a and not any(b[len(a) :]) for a, b in pairs):
        return "0 is taken off at the end as if it were padding; here it is a symbol like others."
    if all(b[: len(a)] == a for a, b in pairs):
        return "Rows are cut short: does it stop before each row has ended, or before the limit?"
    if all(a[: len(b)] == b for a, b in pairs):
        return "Rows go on too long: does a row end at its first eos, and is eos left out?"
    if sorted(itertools.chain(*given)) == sorted(itertools.chain(*wanted)):
        return "What one row says stands in another: where ended rows are dropped, the others keep their numbers."
    if any(a[:1] != b[:1] for a, b in pairs):
        return "The first symbols differ already: is bos fed, and the given state, and argmax taken over dim 1?"
    return "It begins rightly: is the state that step returned handed on, with the token said last?"


def _short(value):
    text = repr(value)
    return text if len(text) < 90 else f"{text[:87]}..."


def _demand_calls(step, limit, most, said):
    likely = f"step is called at most `limit` = {limit} times, and not again once all have ended."
    if step.most_rows < len(step.begin):
        likely = "step is called for one row at a time, B times as often: give it all rows at once."
    expect.true(
        step.calls <= most, f"no more steps than needed, {said}", f"steps {step.calls}", f"needed {most}", likely=likely
    )


# ------------------------------------------------------------------------------------------------ beam_search


def _join(score, more):
    return score + more


def _own_best(extensions, width, n, bos):
    """The first hypothesis fills the beam; after that each keeps its own best extension."""
    return extensions if n == 0 else [max(extensions, key=lambda one: one[0])]


@parts
def _beam_search(
    step,
    state,
    bos,
    eos,
    width,
    limit,
    *,
    join=_join,
    choose=lambda candidates, width: sorted(candidates, key=lambda each: -each[0])[:width],
    each=lambda extensions, width, n, bos: extensions,
    rows=lambda rows: rows,
    finished=lambda done: done,
    eos_counts=True,
    say=lambda said, token, eos: said if token == eos else [*said, token],
    pick=lambda beam: max(beam, key=lambda one: one[0]),
    order=lambda said, score: (said, score),
    times=lambda limit: limit,
    stop=lambda beam: all(ended for _, _, ended in beam),
    start=lambda bos: [],
    grad=False,
):
    import torch

    beam, tokens = [(0.0, start(bos), False)], torch.full((1,), bos)
    with torch.set_grad_enabled(grad):
        for n in range(times(limit)):
            log_p, state = step(tokens, state)
            candidates = [(score, said, True, None, None) for score, said, ended in finished(beam) if ended]
            for row, (score, said, _) in enumerate([one for one in beam if not one[2]]):
                extensions = []
                for token, more in enumerate(log_p[row].tolist()):
                    end = token == eos
                    new = score if end and not eos_counts else join(score, more)
                    extensions.append((new, say(said, token, eos), end, row, token))
                candidates += each(extensions, width, n, bos)
            kept = choose(candidates, width)
            beam = [(score, said, ended) for score, said, ended, _, _ in kept]
            going = [(row, token) for _, _, ended, row, token in kept if not ended]
            if stop(beam) or not going:
                break
            which = rows([row for row, _ in going])
            state = state[[min(row, len(state) - 1) for row in which]]
            tokens = torch.tensor([token for _, token in going])
    score, said, _ = pick(beam)
    return order(said, score)


def _top(extensions, width, n, bos):
    import torch

    scores = torch.tensor([one[0] for one in extensions])
    return [extensions[k] for k in scores.topk(width).indices.tolist()]


def _by_length(more):
    return lambda one: one[0] / max(len(one[1]) + more, 1)


def _only_finished(beam):
    return max([one for one in beam if one[2]] or beam, key=lambda one: one[0])


def a_place_less(step, state, bos, eos, width, limit):
    """What has ended is put aside, and gives its place in the beam free: here it stays in the beam, and takes a place."""
    return _aside(step, state, bos, eos, width, limit, shrink=False)


def aside_and_narrower(step, state, bos, eos, width, limit):
    """What has ended is put aside for good and never displaced: here it competes with those that go on, each time."""
    return _aside(step, state, bos, eos, width, limit, shrink=True)


def _aside(step, state, bos, eos, width, limit, shrink):
    import torch

    beam, done, tokens = [(0.0, [])], [], torch.full((1,), bos)
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            candidates = [
                (score + more, said if token == eos else [*said, token], row, token)
                for row, (score, said) in enumerate(beam)
                for token, more in enumerate(log_p[row].tolist())
            ]
            room = width - len(done) if shrink else width
            kept = sorted(candidates, key=lambda each: -each[0])[: max(room, 0)]
            done += [(score, said) for score, said, _, token in kept if token == eos]
            going = [each for each in kept if each[3] != eos]
            beam = [(score, said) for score, said, _, _ in going]
            if not going or len(done) >= width:
                break
            state, tokens = state[[each[2] for each in going]], torch.tensor([each[3] for each in going])
    score, said = max(done + beam, key=lambda each: each[0])
    return said, score


def all_ends_aside(step, state, bos, eos, width, limit):
    """Every end is put aside and takes no place: what has ended stays in the beam if it is among the `width` best."""
    import torch

    beam, done, tokens = [(0.0, [])], [], torch.full((1,), bos)
    with torch.no_grad():
        for _ in range(limit):
            log_p, state = step(tokens, state)
            done += [(score + float(log_p[row, eos]), said) for row, (score, said) in enumerate(beam)]
            longer = [
                (score + more, [*said, token], row)
                for row, (score, said) in enumerate(beam)
                for token, more in enumerate(log_p[row].tolist())
                if token != eos
            ]
            kept = sorted(longer, key=lambda each: -each[0])[:width]
            beam = [(score, said) for score, said, _ in kept]
            state, tokens = state[[row for *_, row in kept]], torch.tensor([said[-1] for _, said in beam])
    score, said = max(done + beam, key=lambda each: each[0])
    return said, score


@exercise(
    hints=[
        "beam = [(0.0, [], False)]: score, tokens, ended. A row of tokens and of state belongs to each open one, in order; "
        "whoever stays takes along the row of the one that it came from.",
        "Candidates: those that have ended, as they are; and for each open one and each token (score + log_p[row, token], "
        "longer, token == eos, row). sorted(candidates, key=lambda c: -c[0])[:width] stay.",
        "Then, for the open ones that stay: state = state[rows] with the row that each came from, tokens = their last, "
        "on state.device. "
        "Break if there is none. At the end: the one with the largest score.",
    ],
    mistakes=_beam_search.mistakes(
        a_place_less,
        aside_and_narrower,
        all_ends_aside,
        width={
            "width has no effect: it follows the best hypothesis alone, which is greedy.": 1,
            "width is an argument; this keeps 2 whatever it is.": 2,
            "width is an argument; this keeps 4 whatever it is.": 4,
        },
        rows={
            "States and tokens are in different orders: state[rows] in the order of the scores, as the tokens.": sorted,
            "The states are not re-ordered: each hypothesis goes on with the state of the one it came from: state[rows].": (
                lambda rows: list(range(len(rows)))
            ),
            "All go on with the state of the best one: each needs that of the hypothesis it came from: state[rows].": (
                lambda rows: [0] * len(rows)
            ),
        },
        join={
            "Log probabilities are multiplied; probabilities are multiplied, so their logarithms are added.": (
                lambda score, more: score * more if score else more
            ),
            "Probabilities are added; add the logarithms, which step gives.": lambda score, more: (
                score + math.exp(more)
            ),
            "The score is the last symbol's alone; it is the sum over all of them.": lambda score, more: more,
            "The scores are subtracted: log probabilities are added.": lambda score, more: score - more,
        },
        each={
            "Each hypothesis keeps its own best only: all extensions of all compete for the places.": _own_best,
            "Only the two likeliest symbols of each hypothesis are looked at; of one alone more of them may stay.": (
                lambda extensions, width, n, bos: sorted(extensions, key=lambda one: -one[0])[:2]
            ),
            "topk(width) asks for more symbols than there are: topk(min(width, K)).": _top,
            "bos is left out; each of the K symbols counts, bos too.": lambda extensions, width, n, bos: [
                one for one in extensions if one[4] != bos
            ],
            "eos is forbidden at first; an empty answer is an answer.": lambda extensions, width, n, bos: [
                one for one in extensions if n or not one[2]
            ],
            "No symbol comes twice in a row; a symbol may be repeated.": lambda extensions, width, n, bos: [
                one for one in extensions if one[2] or one[1][-2:-1] != [one[4]]
            ],
        },
        finished={
            "What has ended is dropped from the beam: it stays, as it is, and competes.": lambda beam: [],
        },
        eos_counts={"The end's log probability is missing in the score: eos counts as every symbol does.": False},
        say={
            "eos is kept in the tokens; it is the end, and no symbol of the answer.": lambda said, token, eos: (
                [*said, token]
            ),
        },
        start={"bos is kept in the tokens; they begin with what is said.": lambda bos: [bos]},
        stop={
            "It stops when the first one ends: another may still end with a larger score.": lambda beam: any(
                ended for _, _, ended in beam
            ),
        },
        pick={
            "At the limit open ones count, too: the largest score in the beam, ended or not.": _only_finished,
            "The score is divided by the length; here it is the sum.": lambda beam: max(
                beam, key=lambda one: one[0] / max(len(one[1]), 1)
            ),
            "At the end it ranks by score over length plus 1; here the sum counts.": lambda beam: max(
                beam, key=_by_length(1)
            ),
            "It returns the last of the beam; the one with the largest score is asked for.": lambda beam: beam[-1],
        },
        choose={
            "The least likely stay: sort by score, the largest first.": lambda candidates, width: sorted(
                candidates, key=lambda each: each[0]
            )[:width],
            "One more stays than the width allows.": lambda candidates, width: sorted(
                candidates, key=lambda each: -each[0]
            )[: width + 1],
        },
        together={
            "It ranks by score over length, in the search and at the end; here the sum counts.": {
                "choose": lambda candidates, width: sorted(candidates, key=_by_length(0), reverse=True)[:width],
                "pick": lambda beam: max(beam, key=_by_length(0)),
            },
        },
        times={
            "It takes a step less than limit.": lambda limit: limit - 1,
            "It takes a step more than limit.": lambda limit: limit + 1,
        },
        order={
            "Score and tokens are exchanged: return tokens, score.": lambda said, score: (score, said),
            "The probability comes back; the score is its logarithm.": lambda said, score: (said, math.exp(score)),
            "Only the tokens come back: return tokens, score.": lambda said, score: said,
            "The score is divided by the length; here it is the sum.": lambda said, score: (
                said,
                score / max(len(said), 1),
            ),
        },
        grad={"A graph is recorded, which keeps all steps in memory: with torch.no_grad().": True},
    ),
    seconds=60,
)
def beam_search(learner, rng):
    def compare(step, state, width, limit, wanted, why, source):
        given = expect.parts(learner(step, state, step.bos, step.eos, width, limit), ("tokens", "score"), why)
        tokens, score = given
        plain = isinstance(tokens, list) and all(isinstance(t, int | np.integer) for t in tokens)
        likely = (
            "A list of whole numbers, and then a score." if not isinstance(tokens, float) else "return tokens, score."
        )
        expect.true(plain, f"tokens are a list of ints: {why}", f"yours    {_short(tokens)}", likely=likely)
        expect.true(
            list(map(int, tokens)) == wanted[0],
            f"the tokens: {why}",
            f"yours    {_scored(tokens, score)}",
            f"expected {_scored(*wanted)}   ({source})",
            likely=lambda: _other_tokens(step, state, tokens, score, wanted[1], limit),
        )
        likely = f"The tokens are right and their score is not. {_STATES}"
        expect.close(score, wanted[1], why=f"the score: {why}", source=source, likely=likely)
        expect.kind(score, float, f"the score is a float: {why}", likely="float(...) or .item() of it.")

    _by_hand(compare)
    for case, seeds in _CASES.items():
        K, bos, eos, width, limit = case
        for seed in rng.choice(seeds, 2, replace=False).tolist():
            step, state = _automaton_of(seed, K, bos, eos)
            why = f"width {width}, limit {limit}, {K} symbols, bos {bos}, eos {eos}"
            compare(step, state, width, limit, _found_by(seed, *case), why, "each sentence scored anew")
        said = step.said_greedily(state, 7)
        score = _score(step, state, said, len(said) < 7)
        compare(step, state, 1, 7, (said, score), f"width 1 is greedy, {K} symbols", "greedy decoding")
    for case, seeds in _SAID.items():
        step, state = _automaton_of(int(rng.choice(seeds)), *case[:3], likely_bos=0.5)
        why = "width {3}, limit {4}, {0} symbols, bos {1}, eos {2}, and bos may be said".format(*case)
        compare(step, state, *case[3:], _replayed(step, state, *case[3:]), why, "each sentence scored anew")
    seed = int(rng.choice(_CASES[4, 1, 2, 3, 5]))
    step, state = _automaton_of(seed, 4, 1, 2)
    why = "wide enough for all sentences of at most 5 symbols: the best there is"
    compare(step, state, 4**5, 5, _best_of_all(seed), why, "exhaustive search")
    for likely_end, said in ((-1e3, "nobody ever ends"), (1e3, "all end at once")):
        step = _Automaton(rng, 5, 5, 1, 2, likely_end=likely_end)
        state = step.start(rng, 1)
        compare(step, state, 3, 4, _replayed(step, state, 3, 4), f"{said}, width 3", "each sentence scored anew")
    compare(step, state, 3, 1, _replayed(step, state, 3, 1), "limit 1", "each sentence scored anew")
    step, state = _automaton_of(seed, 4, 1, 2)
    step.recorded = False
    learner(step, state.clone().requires_grad_(), 1, 2, 3, 5)
    expect.true(not step.recorded, "no graph is recorded while decoding", likely="Put it under torch.no_grad().")


def _scored(tokens, score):
    return f"{_short(list(map(int, tokens)))}, score {score:.3f}" if isinstance(score, float) else _short(tokens)


_STATES = "Does each go on with the new state, and the last token, of the one that it came from: state[rows]?"


def _other_tokens(step, state, tokens, score, best, limit):
    """Whether the score is that of these tokens: if so the search is to blame, if not the states or the sum."""
    tokens = list(map(int, tokens))
    if len(tokens) > limit:
        return "More symbols than steps: do hypotheses share one list? [*tokens, new] makes another, append does not."
    if step.eos in tokens or not np.isscalar(score):
        return ""
    sums = [_score(step, state, tokens, ended) for ended in ((True, False) if len(tokens) == limit else (True,))]
    right = any(abs(float(score) - each) < 1e-6 for each in sums)
    if right and score > best:
        return "It is better than what this beam finds, so others stayed: the `width` largest scores do, the ended among them."
    if right:
        return "The score is right for these tokens, and a better one was lost: what is left out, cut off, ranked otherwise?"
    return f"These tokens have another score. {_STATES}"


def _by_hand(compare):
    import torch

    class ByHand(_Automaton):
        """Symbols A 0, B 1, C 2, <eos> 3, <bos> 4; the state is the number of symbols said and the first of them."""

        def __init__(self):
            self.bos, self.eos, self.recorded = 4, 3, False

        def __call__(self, tokens, state):
            log_p, new = [], []
            for token, (n, first) in zip(tokens.tolist(), state.tolist(), strict=True):
                first = token if n == 1 else first
                p = [0, 0, 0.1, 0.9, 0]
                if n == 0:
                    p = [0.6, 0.4, 0, 0, 0]
                elif n == 1:
                    p = [0.52, 0, 0.48, 0, 0] if first == 0 else [0, 0, 0.15, 0.85, 0]
                log_p.append([math.log(x) if x else -1e3 for x in p])
                new.append([n + 1, first])
            return torch.tensor(log_p, dtype=torch.float64), torch.tensor(new, dtype=torch.float64)

        def log_p(self, state, prefix):
            for token in (self.bos, *prefix):
                log_p, state = self(torch.tensor([token]), state)
            return log_p[0].numpy()

    step, start = ByHand(), torch.zeros(1, 2, dtype=torch.float64)
    why = "the example above, A 0.6 and B 0.4, width 2"
    compare(step, start, 2, 6, ([1], math.log(0.34)), why, "by hand: 0.4 · 0.85 = 0.34")


def _replayed(step, state, width, limit):
    """A beam as the exercise says it, every sentence scored anew from the beginning, without keeping states."""
    beam = {((), False): 0.0}
    for _ in range(limit):
        found = {(said, True): score for (said, ended), score in beam.items() if ended}
        for (said, ended), score in beam.items():
            if not ended:
                for token, more in enumerate(step.log_p(state, said)):
                    longer = said if token == step.eos else (*said, token)
                    found[longer, token == step.eos] = score + float(more)
        beam = dict(sorted(found.items(), key=lambda each: -each[1])[:width])
        if all(ended for _, ended in beam):
            break
    (said, _), score = max(beam.items(), key=lambda each: each[1])
    return list(said), score


def _score(step, state, said, ended):
    score = 0.0
    for n in range(len(said) + ended):
        score += float(step.log_p(state, said[:n])[said[n] if n < len(said) else step.eos])
    return score


@functools.lru_cache
def _best_of_all(seed, limit=5):
    """Every sentence of up to `limit` steps of an automaton of 4 symbols."""
    step, state = _automaton_of(seed, 4, 1, 2)
    symbols, best = [t for t in range(step.K) if t not in (step.bos, step.eos)], ([], -math.inf)
    scores = {(): 0.0}
    for _ in range(limit):
        longer = {}
        for said, score in scores.items():
            log_p = step.log_p(state, said)
            best = max(best, (list(said), score + float(log_p[step.eos])), key=lambda each: each[1])
            longer |= {(*said, t): score + float(log_p[t]) for t in symbols}
        scores = longer
    said = max(scores, key=scores.get)
    return max(best, (list(said), scores[said]), key=lambda each: each[1])


_CASES = {
    # (K, bos, eos, width, limit): seeds with which width, competition, states and what has ended matter
    (4, 1, 2, 3, 5): (2434, 952, 599, 2229, 1042, 424, 102),
    (5, 4, 0, 2, 6): (2944, 1075, 2940, 2855, 2244, 2168, 2003),
    (6, 0, 5, 4, 4): (2980, 2474, 2457, 1583),
    (5, 2, 1, 3, 6): (2089, 2940, 2486, 2240, 2979, 2920, 2389),
}


_SAID = {
    # the same where bos may be said, and a third-likeliest symbol of one hypothesis matters
    (8, 3, 5, 5, 5): (454, 466, 523, 1114, 1179, 1665),
    (7, 0, 1, 4, 4): (892, 1895, 2512, 1773, 2386),
}


@functools.lru_cache(maxsize=200)  # the known mistakes are tried on the same
def _automaton_of(seed, K, bos, eos, likely_bos=-1e4):
    own = np.random.default_rng(seed)
    spread = 1.2 if likely_bos < 0 else 0.5
    step = _Automaton(own, K, 4, bos, eos, likely_end=own.uniform(0, 2), spread=spread, likely_bos=likely_bos)
    return step, step.start(own, 1)


@functools.lru_cache(maxsize=200)
def _found_by(seed, K, bos, eos, width, limit):
    return _replayed(*_automaton_of(seed, K, bos, eos), width, limit)


def _told_apart(seed, K, bos, eos, width, limit):
    """How many slips of the commonest kinds give something else with this automaton; _CASES was chosen by it."""
    step, state = _automaton_of(seed, K, bos, eos)
    wanted = _found_by(seed, K, bos, eos, width, limit)
    others = [_replayed(step, state, w, limit) for w in (1, width + 1)]
    others += [mistake(step, state, bos, eos, width, limit) for mistake in (a_place_less, aside_and_narrower, *_SLIPS)]
    return sum(said != wanted[0] or abs(score - wanted[1]) > 1e-6 for said, score in others)


_SLIPS = [
    _beam_search.mistake("", rows=lambda rows: list(range(len(rows)))),
    _beam_search.mistake("", each=_own_best),
    _beam_search.mistake("", finished=lambda beam: []),
    _beam_search.mistake("", stop=lambda beam: any(ended for _, _, ended in beam)),
    _beam_search.mistake("", pick=_only_finished),
]


# ------------------------------------------------------------------------------------------------ length_score


@parts
def _length_score(
    log_probability,
    length,
    alpha,
    *,
    base=lambda length: (5 + length) / 6,
    power=lambda base, alpha: base**alpha,
    join=lambda log_p, factor: log_p / factor,
):
    return join(log_probability, power(base(length), alpha))


def bonus_for_length(log_probability, length, alpha):
    """It adds a bonus for each phoneme; here log P is divided, by ((5 + length) / 6) ** alpha."""
    return log_probability + alpha * length


def nothing_for_the_empty(log_probability, length, alpha):
    """An empty one has a score like others: at length 0 the divisor is (5 / 6) ** alpha."""
    return _length_score(log_probability, length, alpha) if length else -math.inf


def all_raised(log_probability, length, alpha):
    """The whole fraction is raised to alpha, log P with it: the divisor alone is raised."""
    return -((-log_probability / ((5 + length) / 6)) ** alpha)


@exercise(
    hints=[
        "(5 + length) / 6 is 1 for one phoneme, and grows with each; raised to alpha it is the divisor.",
        "return log_probability / ((5 + length) / 6) ** alpha",
    ],
    mistakes=_length_score.mistakes(
        bonus_for_length,
        nothing_for_the_empty,
        all_raised,
        alpha={"alpha is an argument; this takes 0.6 whatever it is.": 0.6},
        base={
            "// cuts the fraction off: (5 + length) / 6.": lambda length: (5 + length) // 6 or 1,
            "5 + length stands above, not 4 + length.": lambda length: (4 + length) / 6,
            "A bracket is missing: below stands (5 + 1), and / comes before +.": lambda length: (5 + length) / 5 + 1,
            "At length 0 the divisor is (5 / 6) ** alpha, less than 1: nothing is to be kept at 1.": (
                lambda length: (5 + max(length, 1)) / 6
            ),
            "It divides by the length itself; (5 + length) / 6 is softer for short ones.": lambda length: max(
                length, 1
            ),
            "It multiplies by the power, or divides by its inverse: log P is divided by ((5 + length) / 6) ** alpha.": (
                lambda length: 6 / (5 + length)
            ),
            "The division by 6 is missing: (5 + length) / 6 is 1 for one phoneme.": lambda length: 5 + length,
            "A bracket is missing: 5 + length / 6 is not (5 + length) / 6.": lambda length: 5 + length / 6,
            "The end sign is counted, too: length is that of the phonemes.": lambda length: (6 + length) / 6,
            "It divides by 5 instead of 6: 5 + 1 stands below.": lambda length: (5 + length) / 5,
        },
        power={
            "It multiplies by alpha; the fraction is raised to alpha: **.": lambda base, alpha: base * alpha or 1e-9,
            "alpha has no effect: the fraction is raised to alpha.": lambda base, alpha: base,
            "It is log P as it came: divide it by ((5 + length) / 6) ** alpha.": lambda base, alpha: 1,
            "The exponent is alpha, not 1 - alpha.": lambda base, alpha: base ** (1 - alpha),
            "alpha need not be whole: it is an exponent, not a number of rounds.": lambda base, alpha: (
                base ** int(alpha)
            ),
            "alpha may be larger than 1.": lambda base, alpha: base ** min(alpha, 1),
            "alpha is the base and the fraction the exponent: it is the other way round.": lambda base, alpha: (
                alpha**base or 1e-9
            ),
        },
        join={
            "It adds the power; it divides by it.": lambda log_p, factor: log_p + factor,
            "The sign is turned: scores are at most 0, and the largest wins.": lambda log_p, factor: -log_p / factor,
            "The exponential is taken: the score stays a logarithm, scaled.": lambda log_p, factor: math.exp(
                log_p / factor
            ),
            "The probability is divided, not its logarithm: the score is log P over the power.": (
                lambda log_p, factor: log_p - math.log(factor)
            ),
            "The probability exp(log P) is divided; the logarithm itself is.": lambda log_p, factor: (
                math.exp(log_p) / factor
            ),
        },
        together={
            "A bracket is missing: (5 + length) / 6 ** alpha raises the 6 alone.": {
                "base": lambda length: 5 + length,
                "power": lambda base, alpha: base / 6**alpha,
            },
            "The 6 is not raised: brackets round the fraction, ((5 + length) / 6) ** alpha.": {
                "base": lambda length: 5 + length,
                "power": lambda base, alpha: base**alpha / 6,
            },
            "Brackets are missing: a / b / c ** d divides by both. ((5 + length) / 6) ** alpha is one divisor.": {
                "base": lambda length: 5 + length,
                "power": lambda base, alpha: base * 6**alpha,
            },
        },
    ),
)
def length_score(learner, rng):
    def authority(log_probability, length, alpha):
        return log_probability * math.exp(-alpha * (math.log(5 + length) - math.log(6)))

    why = "the example above at alpha 2"  # at alpha 1 a power and much else look alike
    expect.close(learner(-2.4, 3, 2.0), -1.35, why=why, source="by hand: -2.4 / (8 / 6)²")
    expect.close(learner(-2.4, 3, 1.0), -1.8, why="the example above", source="by hand: -2.4 / (8 / 6)")
    expect.close(learner(-2.7, 7, 1.0), -1.35, why="the example above", source="by hand: -2.7 / (12 / 6)")
    agree(
        learner,
        authority,
        rng,
        why="log P over ((5 + length) / 6) ** alpha",
        source="exp of logarithms",
        log_probability=numbers(-12, -0.3),
        length=among(*range(16)),
        alpha=numbers(0.1, 1.7),
    )
    for log_probability, length, alpha in (
        (-3.25, 0, 0.6),
        (-3.25, 1, 0.6),
        (-3.25, 9, 0.0),
        (-7.5, 28, 2.3),
        (0.0, 4, 0.7),
    ):
        why = f"log P {log_probability}, length {length}, alpha {alpha}"
        expect.close(
            learner(log_probability, length, alpha),
            authority(log_probability, length, alpha),
            why=why,
            source="exp of logarithms",
        )
