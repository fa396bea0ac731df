"""The checks of attention-for-sequences: one for each exercise, with its hints. `lab.check` runs them.

Weights are held to softmax over the letters alone, row by row; scores to one pair at a time; the decoder's step to one
row at a time, without any padding; paths and tables to results made by hand.
"""

import itertools
import math

import numpy as np

from atlas.checking import Complaint, agree, exercise, expect, floats, gradients, parts, tensor

# ------------------------------------------------------------------------------------------------ masked_softmax


def _lowest(scores):
    import torch

    return torch.finfo(scores.dtype).min


def _exp_over_sum(scores):
    powers = scores.exp()
    return powers / powers.sum(2, keepdim=True)


def _masked(scores, mask):
    """The right answer, for the exercises that need it."""
    return scores.masked_fill(~mask[:, None], _lowest(scores)).softmax(2) * mask[:, None]


@parts
def _masked_softmax(
    scores,
    mask,
    *,
    real=lambda mask: mask[:, None, :],
    leave_out=lambda scores, real: scores.masked_fill(~real, _lowest(scores)),
    softmax=lambda scores: scores.softmax(2),
    after=lambda weights, real: weights * real,
):
    letters = real(mask)
    return after(softmax(leave_out(scores, letters)), letters)


def renormalised_afterwards(scores, mask):
    """It masks after the softmax and divides by the sum that is left: where padding had by far the largest score, that
    is 0/0, or too little to count. Leave padding out before."""
    weights = scores.softmax(2) * mask[:, None]
    return weights / weights.sum(2, keepdim=True)


def renormalised_with_a_guard(scores, mask):
    """The mask comes after the softmax, and what is left is divided by its sum, kept from 0: where padding had by far
    the largest score, no weight is left for the letters. Leave padding out before."""
    weights = scores.softmax(2) * mask[:, None]
    return weights / weights.sum(2, keepdim=True).clamp(min=1e-9)


def minus_infinity(scores, mask):
    """In a row that is all padding every score is -inf, and softmax of that is NaN: its weights are to be 0. With
    torch.finfo(scores.dtype).min in place of -inf, and padding multiplied by 0 afterwards, nothing is NaN."""
    return scores.masked_fill(~mask[:, None], -math.inf).softmax(2)


def exp_of_the_letters(scores, mask):
    """exp of large scores overflows: .softmax(2) takes the largest off first, once padding is left out."""
    powers = scores.exp() * mask[:, None]
    total = powers.sum(2, keepdim=True)
    return powers / total.masked_fill(total == 0, 1.0)


def exp_of_the_letters_alone(scores, mask):
    """exp of large scores overflows, and sums of 0 give 0/0: .softmax(2) of scores from which padding is left out."""
    powers = scores.exp() * mask[:, None]
    return powers / powers.sum(2, keepdim=True)


def _finite(value):
    return lambda scores, real: scores.masked_fill(~real, value)


_KEPT = {"after": lambda weights, real: weights}


@exercise(
    hints=[
        "mask[:, None] is (B, 1, S), and broadcasts against (B, T, S): one mask for all T.",
        "scores.masked_fill(~mask[:, None], value) gives a copy with that value at padding; which value has exp 0?",
        "torch.finfo(scores.dtype).min; then .softmax(2), then times the mask, for rows that are all padding.",
    ],
    mistakes=_masked_softmax.mistakes(
        renormalised_afterwards,
        renormalised_with_a_guard,
        minus_infinity,
        exp_of_the_letters,
        exp_of_the_letters_alone,
        together={
            "The mask has no effect: padding gets weight.": {"leave_out": lambda scores, real: scores, **_KEPT},
            "A row that is all padding gets equal weights that sum to 1: there they are 0, so multiply by the mask.": (
                _KEPT
            ),
            "Padding's score is about 0 (is a minus missing, -1e9?), a score like others, exp(0) = 1: it has to be far below.": {
                "leave_out": _finite(0.0),
                **_KEPT,
            },
            "Scores times mask are 0 at padding, and exp(0) = 1 is in the sum: padding takes a share.": {
                "leave_out": _finite(0.0)
            },
            "Padding's score is 1 lower; that is a smaller share, not none. And then it is cut off.": {
                "leave_out": lambda scores, real: scores + (real.to(scores.dtype) - 1)
            },
            "Padding's score is made 1 lower; that is a smaller share, not none.": {
                "leave_out": lambda scores, real: scores + (real.to(scores.dtype) - 1),
                **_KEPT,
            },
            "Padding's score is -100, and others may be lower still: torch.finfo(scores.dtype).min is below all.": {
                "leave_out": _finite(-100.0),
                **_KEPT,
            },
            "Padding is taken to stand at the end, after so many letters as the mask has; it may stand anywhere.": {
                "real": lambda mask: mask.sort(1, descending=True).values[:, None, :],
            },
            "The mask is turned around: letters get no weight, padding gets all. True is a letter.": {
                "real": lambda mask: ~mask[:, None, :],
            },
            "The mask is spread along the wrong axis: mask[:, None] is (B, 1, S), one row of letters for every step.": {
                "real": lambda mask: mask[:, :, None],
            },
            "Padding's score is -1e9, and scores of any size may be lower; and a row that is all padding gets equal weights "
            "that sum to 1. torch.finfo(scores.dtype).min, and times the mask.": {"leave_out": _finite(-1e9), **_KEPT},
            "Padding's score is a billion lower (-1e9), which is little among scores of any size: "
            "torch.finfo(scores.dtype).min is below all.": {
                "leave_out": lambda scores, real: scores - 1e9 * ~real,
                **_KEPT,
            },
        },
        leave_out={
            "Padding is taken out after the softmax only: what is left does not sum to 1. Leave it out before.": (
                lambda scores, real: scores
            ),
            "Scores of -100 may be those of letters, and padding with -100 then takes a share: "
            "torch.finfo(scores.dtype).min is below all.": _finite(-100.0),
            "Padding's score is -10,000, and others may be lower still: torch.finfo(scores.dtype).min is below all.": (
                _finite(-1e4)
            ),
            "A mask times a number is in 32 bits, where the lowest of 64 bits is -inf, and 0 times that is NaN: masked_fill "
            "writes the number where it belongs.": lambda scores, real: scores + ~real * _lowest(scores),
            "The mask of the first word is used for all words.": lambda scores, real: scores.masked_fill(
                ~real[:1], _lowest(scores)
            ),
            "A small number (1e-9), added to the mask or to the sum that is left, does not help where padding's score is "
            "higher by 20 and more: leave padding out before the softmax, by torch.finfo(scores.dtype).min.": (
                lambda scores, real: scores + (real + 1e-9).log()
            ),
            "Padding's score is -1e9, and scores of any size may be lower still: torch.finfo(scores.dtype).min is below "
            "all.": _finite(-1e9),
            "The scores are clipped, so that large ones become equal: .softmax(2) needs no clipping.": (
                lambda scores, real: scores.clamp(-50, 50).masked_fill(~real, _lowest(scores))
            ),
            "masked_fill writes where its mask is True, and here those are the letters: ~mask. Times the mask nothing is "
            "left.": lambda scores, real: scores.masked_fill(real, _lowest(scores)),
        },
        softmax={
            "The softmax is over T, the steps; it is over S, the letters, dim 2.": lambda scores: scores.softmax(1),
            "The softmax is over the batch; it is over S, the letters, dim 2.": lambda scores: scores.softmax(0),
            "exp of large scores overflows: .softmax(2) takes the largest off first.": _exp_over_sum,
            "One largest score is taken off all rows; each row has its own, or exp of the others is 0.": (
                lambda scores: _exp_over_sum(scores - scores.max()).nan_to_num()
            ),
            "The scores are not exponentiated: softmax is exp(e) over the sum of exp(e).": lambda scores: (
                (letters := scores.masked_fill(scores == _lowest(scores), 0.0)) / letters.sum(2, keepdim=True)
            ),
            "That is sigmoid, each letter by itself; weights sum to 1 over the letters.": lambda scores: (
                scores.sigmoid()
            ),
            "These are logarithms: softmax, not log_softmax.": lambda scores: scores.log_softmax(2),
        },
        returns={
            "The weights are cut from the graph: scores would never learn.": lambda weights: weights.detach(),
        },
    ),
)
def masked_softmax(learner, rng):
    import torch

    def authority(scores, mask):
        rows = []
        for row, kept in zip(scores, mask > 0, strict=True):
            weights = torch.zeros_like(row)
            if kept.any():
                weights[:, kept] = row[:, kept].softmax(1)
            rows.append(weights)
        return torch.stack(rows)

    def mask_of(rng, shape):
        """Padding in the middle, too; at least one letter, and padding where there is room for it."""
        mask = rng.random(shape) < 0.55
        mask[..., 0] |= ~mask.any(-1)
        if shape[-1] > 1:
            full = mask.all(-1)
            mask[full, rng.integers(1, shape[-1])] = False
        return mask.astype(float)

    source = "softmax over the letters alone"
    e, m = torch.tensor([[[0.0, math.log(3), 9.0]]], dtype=torch.float64), torch.tensor([[True, True, False]])
    given = learner(e, m)
    tensor(given, "the example above")
    expect.close(given, [[[0.25, 0.75, 0.0]]], why="the example above", source="by hand")
    overflows = "exp of large scores overflows: .softmax(2) takes the largest off first, once padding is left out."
    for far in (0.0, 1000.0):
        scores = torch.tensor(rng.normal(size=(3, 2, 5))) + far
        mask = torch.tensor(mask_of(rng, (3, 5))) > 0
        why = f"softmax over the letters, 0 at padding, scores near {far:g}"
        expect.close(
            learner(scores, mask),
            authority(scores, mask),
            why=why,
            source=source,
            dtype=scores,
            likely=lambda yours, _: "" if np.isfinite(yours).all() else overflows,
        )
    agree(
        lambda scores, mask: learner(scores, mask > 0),
        authority,
        rng,
        why="softmax over the letters, 0 at padding",
        source=source,
        like="scores",
        scores=floats("B", "T", "S", tensor=True),
        mask=floats("B", "S", draw=mask_of, tensor=True),
    )
    for low in (-150.0, -1e5, -1e10):
        scores = torch.tensor(rng.normal(size=(3, 2, 5))) + low
        mask = torch.tensor(mask_of(rng, (3, 5))) > 0
        likely = "Is padding's score a number below which others may lie? torch.finfo(scores.dtype).min is the lowest."
        why = f"scores near {low:g}"
        expect.close(learner(scores, mask), authority(scores, mask), why=why, source=source, likely=likely)
        scores = torch.where(mask[:, None], 0.0, -low) + torch.tensor(rng.normal(size=(3, 2, 5)))
        why = f"padding's scores near {-low:g}, the letters' near 0"
        likely = "Leave padding out before the softmax: after it hardly anything is left of the letters."
        expect.close(learner(scores, mask), authority(scores, mask), why=why, source=source, likely=likely)
    scores = torch.tensor(rng.normal(size=(4, 3, 5)))
    mask = torch.tensor(mask_of(rng, (4, 5))) > 0
    for kind in (torch.float32, torch.float16):
        few, why = scores.to(kind), f"in {str(kind).removeprefix('torch.')}, with its own lowest number"
        wanted = authority(few.float(), mask)
        expect.close(learner(few, mask), wanted, why=why, source=source, rtol=2e-3, atol=2e-3)
        expect.dtype(learner(few, mask), few, why)
    gradients(
        lambda scores: learner(scores, mask), lambda scores: authority(scores, mask), rng, why="weights", scores=scores
    )
    whole = torch.ones(4, 5, dtype=torch.bool)
    expect.close(learner(scores, whole), scores.softmax(2), why="no padding at all", source="torch.softmax")
    mask[2] = False
    why = "a row that is all padding: weights of 0"
    likely = "Its softmax is over nothing; the text says 0. Times the mask at the end does it, where nothing is NaN."
    expect.close(learner(scores, mask), authority(scores, mask), why=why, source="the text", likely=likely)
    leaf = scores.clone().requires_grad_()
    (learner(leaf, mask) * torch.tensor(rng.normal(size=(4, 3, 5)))).sum().backward()
    likely = (
        "Is there a row of -inf, a 0/0 or a logarithm of 0 on the way? nan_to_num mends the weights afterwards, not the way "
        "back: torch.finfo(scores.dtype).min and a softmax need no mending."
    )
    expect.finite(leaf.grad, "the gradient where a row is all padding", likely=likely)
    gradients(
        lambda scores: learner(scores, mask), lambda scores: authority(scores, mask), rng, why="weights", scores=scores
    )


# ------------------------------------------------------------------------------------------------ additive_scores


@parts
def _additive_scores(
    queries,
    keys,
    W_q,
    W_k,
    v,
    *,
    pair=lambda q, k: q[:, :, None] + k[:, None],
    bend=lambda hidden: hidden.tanh(),
    judge=lambda hidden, v: hidden @ v,
):
    return judge(bend(pair(queries @ W_q, keys @ W_k)), v)


def bent_before_adding(queries, keys, W_q, W_k, v):
    """tanh is taken of queries and keys before they are added: then each score splits in two, and the query's part
    cancels in the softmax. Add first."""
    return ((queries @ W_q).tanh()[:, :, None] + (keys @ W_k).tanh()[:, None]) @ v


def no_pairs(queries, keys, W_q, W_k, v):
    """These are no pairs: every query meets every key if each has an axis of 1 in the other's place, (B, T, 1, A) and
    (B, 1, S, A)."""
    return (queries @ W_q + keys @ W_k).tanh() @ v


def no_pairs_and_an_axis(queries, keys, W_q, W_k, v):
    """These are no pairs, and an axis at the end makes none: before the sum query and key each need an axis of 1 in the
    other's place, (B, T, 1, A) and (B, 1, S, A)."""
    return no_pairs(queries, keys, W_q, W_k, v)[:, None]


def one_matrix(queries, keys, W_q, W_k, v):
    """The keys are multiplied by W_q; they have a matrix of their own, W_k."""
    return ((queries @ W_q)[:, :, None] + (keys @ W_q)[:, None]).tanh() @ v


@exercise(
    hints=[
        "queries @ W_q is (B, T, A), keys @ W_k is (B, S, A). Every pair is wanted: (B, T, S, A).",
        "q[:, :, None] is (B, T, 1, A), k[:, None] is (B, 1, S, A); their sum has all pairs.",
        "torch.tanh(q[:, :, None] + k[:, None]) @ v: the product with a vector takes the last axis away.",
    ],
    mistakes=_additive_scores.mistakes(
        bent_before_adding,
        no_pairs,
        no_pairs_and_an_axis,
        one_matrix,
        pair={
            "Queries and keys are multiplied; additive scores add them.": lambda q, k: q[:, :, None] * k[:, None],
            "The keys are subtracted; they are added.": lambda q, k: q[:, :, None] - k[:, None],
            "The queries have no part in it.": lambda q, k: 0 * q[:, :, None] + k[:, None],
            "The keys have no part in it.": lambda q, k: q[:, :, None] + 0 * k[:, None],
            "The pairs are keys by queries: entry [b, t, s] is for query t and key s.": lambda q, k: (
                q[:, None] + k[:, :, None]
            ),
            "Both have their axis of 1 in the same place, so that there are no pairs: keys need theirs before S, "
            "(B, 1, S, A).": lambda q, k: q[:, :, None] + k[:, :, None],
            "Every row of the batch is scored with the keys of row 0.": lambda q, k: q[:, :, None] + k[:1, None],
            "Not every query meets every key: both are repeated entry by entry. Broadcasting, (B, T, 1, A) and "
            "(B, 1, S, A), makes all pairs.": lambda q, k: (
                q.repeat_interleave(k.shape[1], 1) + k.repeat_interleave(q.shape[1], 1)
            ).view(len(q), q.shape[1], k.shape[1], -1),
            "Only the first query is scored, for all T.": lambda q, k: q[:, :1, None] + 0 * q[:, :, None] + k[:, None],
        },
        bend={
            "The tanh is missing: then the query's part is the same for all keys, and cancels in the softmax.": (
                lambda hidden: hidden
            ),
            "That is ReLU; here it is tanh.": lambda hidden: hidden.relu(),
            "That is sigmoid; here it is tanh.": lambda hidden: hidden.sigmoid(),
        },
        judge={
            "v is left out: the hidden units are summed as they are.": lambda hidden, v: hidden.sum(3) + 0 * v.sum(),
            "It is the mean over the hidden units; v · hidden is a sum.": lambda hidden, v: (hidden * v).mean(3),
            "The hidden units are left as they are, times v: sum over A, the last axis.": lambda hidden, v: hidden * v,
            "An axis of length 1 is left at the end: v is (A,), and hidden @ v takes the last axis away.": (
                lambda hidden, v: hidden @ v[:, None]
            ),
            "It is divided by the root of A; additive scores are not.": lambda hidden, v: hidden @ v / len(v) ** 0.5,
        },
        together={
            "tanh is taken last, of the score; it bends the hidden units, before v.": {
                "bend": lambda hidden: hidden,
                "judge": lambda hidden, v: (hidden @ v).tanh(),
            },
            "v is inside the tanh, unit by unit; it weighs what the tanh has bent.": {
                "bend": lambda hidden: hidden,
                "judge": lambda hidden, v: (hidden * v).tanh().sum(3),
            },
        },
        returns={
            "A softmax is taken; scores are what goes into it.": lambda scores: scores.softmax(2),
            "The scores are cut from the graph: nothing would learn.": lambda scores: scores.detach(),
        },
    ),
    seconds=30,
)
def additive_scores(learner, rng):
    import torch

    def authority(queries, keys, W_q, W_k, v):
        """One pair at a time."""
        score = [
            [torch.stack([v.dot((q @ W_q + k @ W_k).tanh()) for k in of_keys]) for q in of_queries]
            for of_queries, of_keys in zip(queries, keys, strict=True)
        ]
        return torch.stack([torch.stack(rows) for rows in score])

    def column(*numbers):
        return torch.tensor(numbers, dtype=torch.float64)[None, :, None]

    one = torch.ones(1, 1, dtype=torch.float64)
    twice, away, v = (torch.tensor(x).double() for x in ([[1.0, 1.0]], [[1.0, -1.0]], [2.0, 1.0]))
    given = learner(column(0.5, 0.0, -1.0), column(-0.5, 0.5, -2.5), twice, away, v)
    tensor(given, "three queries, three keys and two hidden units")
    wanted = [[[2 * math.tanh(q + k) + math.tanh(q - k) for k in (-0.5, 0.5, -2.5)] for q in (0.5, 0.0, -1.0)]]
    why, source = "three queries, three keys and two hidden units", "by hand: 2 tanh(q + k) + tanh(q - k)"
    expect.close(given, wanted, why=why, source=source)
    given = learner(column(0.5), column(-0.5, 0.5, -2.5), one, one, 2 * one[0])
    why, source = "the example above, and a third key of -2.5", "by hand: 2 tanh 0, 2 tanh 1, -2 tanh 2"
    expect.close(given, [[[0.0, 2 * math.tanh(1), -2 * math.tanh(2)]]], why=why, source=source)
    kinds = {"queries": floats("B", "T", "D", tensor=True), "keys": floats("B", "S", "E", tensor=True)}
    kinds |= {"W_q": floats("D", "A", tensor=True), "W_k": floats("E", "A", tensor=True), "v": floats("A", tensor=True)}
    left = dict.fromkeys(
        ["tiny"], "1e-21 is asked of nobody: tanh by 2 sigmoid(2x) - 1 is right to the last digit of 1"
    )
    why, source = "v · tanh(q W_q + k W_k)", "one pair at a time"
    agree(learner, authority, rng, why=why, source=source, like="queries", without=left, **kinds)
    inputs = [torch.tensor(rng.normal(size=shape)) for shape in ((2, 3, 4), (2, 5, 3), (4, 6), (3, 6), (6,))]
    gradients(learner, authority, rng, why="scores", **dict(zip(kinds, inputs, strict=True)))


# ------------------------------------------------------------------------------------------------ dot_scores


def _of_length_1(x, axis):
    return x / x.norm(dim=axis, keepdim=True).clamp(min=1e-12)


@parts
def _dot_scores(
    queries,
    keys,
    W,
    *,
    turn=lambda keys: keys.transpose(1, 2),
    product=lambda q, W, k: q @ W @ k,
    scale=lambda scores, queries, keys: scores / keys.shape[2] ** 0.5,
):
    return scale(product(queries, W, turn(keys)), queries, keys)


@exercise(
    hints=[
        "queries @ W is (B, T, E). To multiply it with the keys, their last two axes have to change places.",
        "queries @ W @ keys.transpose(1, 2), and then the root of E: keys.shape[2] ** 0.5.",
    ],
    mistakes=_dot_scores.mistakes(
        scale={
            "The root is missing: divide by the root of E, the keys' width.": lambda scores, queries, keys: scores,
            "It divides by E; by the root of E the spread stays as it is.": lambda scores, queries, keys: (
                scores / keys.shape[2]
            ),
            "It divides by the root of D, the queries' width; the sum has E terms.": lambda scores, queries, keys: (
                scores / queries.shape[2] ** 0.5
            ),
            "It multiplies by the root of E; divide.": lambda scores, queries, keys: scores * keys.shape[2] ** 0.5,
            "It divides by the root of S, the number of keys; the sum has E terms.": lambda scores, queries, keys: (
                scores / keys.shape[1] ** 0.5
            ),
            "It divides by the root of T, the number of queries; the sum has E terms.": (
                lambda scores, queries, keys: scores / queries.shape[1] ** 0.5
            ),
            "It divides by the root of B, the batch; the sum has E terms.": lambda scores, queries, keys: (
                scores / len(keys) ** 0.5
            ),
            "It divides by the root of D · E; the sum that spreads has E terms.": lambda scores, queries, keys: (
                scores / (queries.shape[2] * keys.shape[2]) ** 0.5
            ),
            "The scores are divided by the norms of their vectors (cosine); it is the root of E.": (
                lambda scores, queries, keys: (
                    scores / queries.norm(dim=2)[:, :, None] / keys.norm(dim=2)[:, None].clamp(min=1e-12)
                )
            ),
            "Each score is divided by the norm of its key; it is the root of E.": lambda scores, queries, keys: (
                scores / keys.norm(dim=2)[:, None].clamp(min=1e-12)
            ),
        },
        turn={
            "reshape mixes the keys' numbers up: .transpose(1, 2) changes axes.": lambda keys: keys.reshape(
                len(keys), keys.shape[2], keys.shape[1]
            ),
            "Each word meets the keys of the next word of the batch.": lambda keys: keys.roll(-1, 0).transpose(1, 2),
            "Keys of other rows of the batch are in the sum: b belongs to both queries and keys.": lambda keys: (
                keys.sum(0, keepdim=True).transpose(1, 2)
            ),
            "Every word meets the keys of the first word.": lambda keys: keys[:1].transpose(1, 2),
        },
        returns={
            "The scores are keys by queries: entry [b, t, s] is for query t and key s.": lambda scores: (
                scores.transpose(1, 2)
            ),
            "A softmax is taken; scores are what goes into it.": lambda scores: scores.softmax(2),
            "A tanh is taken; a product has none.": lambda scores: scores.tanh(),
            "The scores are cut from the graph: nothing would learn.": lambda scores: scores.detach(),
        },
        product={"A tanh is taken of q W; a product has none.": lambda q, W, k: (q @ W).tanh() @ k},
        together={
            "The lengths of q W and k are divided out (a cosine); only the root of E divides.": {
                "product": lambda q, W, k: _of_length_1(q @ W, 2) @ _of_length_1(k, 1),
                "scale": lambda scores, queries, keys: scores,
            }
        },
    ),
)
def dot_scores(learner, rng):
    import torch

    def authority(queries, keys, W):
        return torch.einsum("btd,de,bse->bts", queries, W, keys) / math.sqrt(keys.shape[2])

    q, W = torch.tensor([[[1.0, 2.0]]]).double(), torch.tensor([[1.0, 0.0], [3.0, 1.0]]).double()
    given = learner(q, torch.tensor([[[1.0, -1.0]]]).double(), W)
    tensor(given, "the example above")
    likely = {
        "W is on the wrong side, or transposed: q W, the query from the left.": [[[-4 / math.sqrt(2)]]],
        "The root of E is missing, or cut off to a whole number (√2 is 1.41).": [[[5.0]]],
        "W has no part in it: the query is q W.": [[[-1 / math.sqrt(2)]]],
        "It divides by the root of 192, a number of the notebook's; E is keys.shape[2].": [[[5 / math.sqrt(192)]]],
    }
    why, source = "the example above", "by hand: 5 / √2"
    expect.close(given, [[[5 / math.sqrt(2)]]], why=why, source=source, likely=likely)
    kinds = {"queries": floats("B", "T", "D", tensor=True), "keys": floats("B", "S", "E", tensor=True)}
    kinds |= {"W": floats("D", "E", tensor=True)}
    agree(learner, authority, rng, why="q W k / √E", source="einsum", like="queries", **kinds)
    inputs = [torch.tensor(rng.normal(size=shape)) for shape in ((3, 4, 2), (3, 5, 6), (2, 6))]
    gradients(learner, authority, rng, why="scores", **dict(zip(kinds, inputs, strict=True)))


# ------------------------------------------------------------------------------------------------ attend_step


def _joined(*columns):
    import torch

    return torch.cat(columns, 1)


def _hardest(weights, keys):
    import torch

    return keys[torch.arange(len(keys)), weights[:, 0].argmax(1)]


def _mean(weights, keys):
    return keys.mean(1) + 0 * weights.sum()


@parts
def _attend_step(
    cell,
    embedded,
    state,
    keys,
    mask,
    score,
    *,
    move=lambda cell, embedded, state: cell(embedded, state),
    query=lambda old, new: new,
    weigh=_masked,
    mix=lambda weights, keys: (weights @ keys)[:, 0],
    join=lambda context, new, old: _joined(context, new),
    end=lambda output, new, weights: (output, new, weights[:, 0]),
    kept=lambda new, old, context: new,
):
    new = move(cell, embedded, state)
    weights = weigh(score(query(state, new)[:, None], keys), mask)
    context = mix(weights, keys)
    return end(join(context, new, state), kept(new, state, context), weights)


@exercise(
    hints=[
        "First the new state: state = cell(embedded, state). It asks: score(state[:, None], keys) is (B, 1, S).",
        "weights = masked_softmax(those scores, mask), (B, 1, S); weights @ keys is (B, 1, E).",
        "context = (weights @ keys)[:, 0]; return torch.cat([context, state], 1), state, weights[:, 0]",
    ],
    mistakes=_attend_step.mistakes(
        query={
            "The query (or the weights) is cut from the graph: the state would not learn what to ask.": lambda old, new: (
                new.detach()
            ),
            "It asks with the old state (Bahdanau's order); here the new state is the query.": lambda old, new: old,
        },
        weigh={
            "The mask has no effect: padding gets weight, and its keys are in the context.": lambda e, mask: e.softmax(
                2
            ),
            "The softmax is over the axis of length 1, so that every weight is 1; it is over the letters.": (
                lambda e, mask: e.softmax(1) * mask[:, None]
            ),
            "The softmax is over the batch; it is over the letters, dim 2.": lambda e, mask: (
                e.masked_fill(~mask[:, None], _lowest(e)).softmax(0) * mask[:, None]
            ),
            "The mask comes after the softmax, so the weights do not sum to 1: masked_softmax leaves padding out before.": (
                lambda e, mask: e.softmax(2) * mask[:, None]
            ),
            "Scores times mask are 0 at padding, which is a score like others: masked_softmax takes the mask.": (
                lambda e, mask: (e * mask[:, None]).softmax(2)
            ),
            "A second softmax is taken of weights that masked_softmax has made.": lambda e, mask: _masked(
                e, mask
            ).softmax(2),
            "In a row of padding only these weights are NaN; masked_softmax gives 0: call it, not a softmax of your own.": (
                lambda e, mask: e.masked_fill(~mask[:, None], -math.inf).softmax(2)
            ),
            "In a row of padding only these weights are equal; masked_softmax gives 0: call it, not a softmax of your own.": (
                lambda e, mask: e.masked_fill(~mask[:, None], _lowest(e)).softmax(2)
            ),
            "Padding's score is -100, and others may be lower still: call masked_softmax.": lambda e, mask: (
                e.masked_fill(~mask[:, None], -100.0).softmax(2) * mask[:, None]
            ),
            "The scores are taken as weights: masked_softmax is missing.": lambda e, mask: e * mask[:, None],
            "The mask is turned around: padding gets all the weight.": lambda e, mask: _masked(e, ~mask),
        },
        mix={
            "The context is the plain mean of all keys; the weights have no part in it.": _mean,
            "The context is the one key with the largest weight; it is the weighted mean of all, so that gradients "
            "reach each score.": _hardest,
            "The weighted mean is divided by S once more; the weights sum to 1 already.": lambda weights, keys: (
                (weights @ keys)[:, 0] / keys.shape[1]
            ),
            "The weights are cut from the graph: the scores would never learn.": lambda weights, keys: (
                weights.detach() @ keys
            )[:, 0],
            "The keys are cut from the graph: the encoder would not learn through the context.": (
                lambda weights, keys: (weights @ keys.detach())[:, 0]
            ),
            "All words get the context of the first word.": lambda weights, keys: (weights[:1] @ keys[:1])[:, 0].expand(
                len(keys), -1
            ),
        },
        join={
            "The state comes first in the output; it is the context, and then the state.": lambda context, new, old: (
                _joined(new, context)
            ),
            "The output has the old state in it; it is the context and the new state.": lambda context, new, old: (
                _joined(context, old)
            ),
            "A tanh is taken of the output; here it is context and state as they are, the network goes on from there.": (
                lambda context, new, old: _joined(context, new).tanh()
            ),
            "The output is the context alone; the new state follows it: torch.cat([context, state], 1).": (
                lambda context, new, old: context
            ),
            "The output is the state alone; the context comes before it: torch.cat([context, state], 1).": (
                lambda context, new, old: new
            ),
        },
        kept={
            "The old state comes back: the next step would begin where this one did.": lambda new, old, context: old,
            "The context comes back as the state; it is what the cell gave.": lambda new, old, context: context,
        },
        move={
            "Embedding and state are exchanged: cell(embedded, state).": lambda cell, embedded, state: cell(
                state, embedded
            ),
            "The cell is called twice: the state is two steps on.": lambda cell, embedded, state: cell(
                embedded, cell(embedded, state)
            ),
            "The cell does not get the old state: each step would begin at 0.": lambda cell, embedded, state: cell(
                embedded, 0 * state
            ),
            "The cell is not called: the state stays as it was.": lambda cell, embedded, state: (
                state + 0 * embedded.sum()
            ),
        },
        end={
            "The weights have an axis of length 1 too many: weights[:, 0] is (B, S).": lambda output, new, weights: (
                output,
                new,
                weights,
            ),
            "State and output are exchanged: return output, state, weights.": lambda output, new, weights: (
                new,
                output,
                weights[:, 0],
            ),
            "Weights and state are exchanged: return output, state, weights.": lambda output, new, weights: (
                output,
                weights[:, 0],
                new,
            ),
            "The output has an axis of length 1 too many: it is (B, E + D).": lambda output, new, weights: (
                output[:, None],
                new,
                weights[:, 0],
            ),
            "The state is cut from the graph: the steps before would learn nothing from this one.": (
                lambda output, new, weights: (output, new.detach(), weights[:, 0])
            ),
            "The weights that come back are cut from the graph.": lambda output, new, weights: (
                output,
                new,
                weights[:, 0].detach(),
            ),
            "The output alone comes back: return output, state, weights.": lambda output, new, weights: output,
            "The weights do not come back: return output, state, weights.": lambda output, new, weights: (output, new),
        },
    ),
    seconds=20,
)
def attend_step(learner, rng):
    import torch
    from torch import nn

    def draw(*shape):
        return torch.tensor(rng.normal(size=shape))

    def authority(cell, embedded, state, keys, mask, score):
        """One row at a time, with the keys of its letters alone."""
        rows = []
        for n, kept in enumerate(mask):
            new = cell(embedded[n : n + 1], state[n : n + 1])
            own = keys[n : n + 1, kept]
            weights = score(new[:, None], own)[0].softmax(1)  # (1, letters)
            whole = torch.zeros(len(kept), dtype=keys.dtype).masked_scatter(kept, weights[0])
            rows.append((torch.cat([weights @ own[0], new], 1)[0], new[0], whole))
        return tuple(torch.stack(each) for each in zip(*rows, strict=True))

    def compare(cell, embedded, state, keys, mask, score, why):
        """The state first, for all else follows from it."""
        D, E = state.shape[1], keys.shape[2]

        def scored(queries, the_keys):
            """Any T, and any rows of the batch; but queries are (B, T, D), and keys (B, S, E) of the same rows."""
            shapes = [tuple(getattr(x, "shape", ())) for x in (queries, the_keys)]
            fit = [len(shape) for shape in shapes] == [3, 3] and [shape[2] for shape in shapes] == [D, E]
            if not fit or shapes[0][0] != shapes[1][0]:
                asked = f"score gets queries (B, 1, D) and keys (B, S, E): {why}"
                expect.shape(queries, (len(keys), 1, D), asked, likely=_shape_asked(shapes, embedded.shape[1], D, E))
                expect.shape(the_keys, tuple(keys.shape), asked, likely="The keys go in as they are.")
            return score(queries, the_keys)

        given = expect.parts(
            learner(cell, embedded, state, keys, mask, scored),
            ("output", "state", "weights"),
            f"{why}: three results",
        )
        wanted = authority(cell, embedded, state, keys, mask, score)
        for name, mine, theirs in (pairs := list(zip(("output", "state", "weights"), given, wanted, strict=True))):
            tensor(mine, f"{name}: {why}")
            expect.shape(mine, tuple(theirs.shape), f"the shape of {name}: {why}", likely=_shapes_likely(name))
        for name, mine, theirs in (pairs[1], pairs[2], pairs[0]):
            source = "each row by itself, its letters alone"
            expect.close(mine, theirs, why=f"{name}: {why}", source=source, dtype=keys, likely=_wrong_part(name, keys))

    shapes = [(3, 4, 5, 6, 2), (1, 2, 3, 4, 5), (4, 2, 3, 1, 2), (2, 3, 3, 3, 3), (5, 3, 4, 7, 4), (6, 1, 1, 3, 1)]
    for B, C, D, S, E in shapes:
        mask = torch.tensor(rng.random((B, S)) < 0.6)
        mask[torch.arange(B), torch.tensor(rng.integers(S, size=B))] = True
        W, keys = draw(D, E), draw(B, S, E)
        keys = torch.where(mask[:, :, None], keys, 50 * draw(1, 1, E))  # so that padding would be seen
        cell = nn.GRUCell(C, D).double()
        why = f"{B} rows, {S} keys (E = {E}), state D = {D}"
        for dtype in (torch.float64, torch.float32):
            made = [x.to(dtype) for x in (draw(B, C), draw(B, D), keys)]
            said = why if dtype == torch.float64 else f"{why}, in single precision"
            compare(cell.to(dtype), *made, mask, lambda q, k, W=W: q @ W.to(q.dtype) @ k.mT, said)
    _on_one_key(learner, draw)
    cell, W, mask = nn.GRUCell(4, 5).double(), draw(5, 2), torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0]]) > 0
    for low in (0.0, -1e10):
        why = f"a row of padding only, scores near {low:g}"
        given = draw(3, 4), draw(3, 5), draw(3, 4, 2)
        compare(cell, *given, mask, lambda q, k, low=low: (3 * q @ W @ k.mT).round() + low, why)
    B, C, D, S, E = 3, 2, 4, 5, 3
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 1]]) > 0

    def with_all(step):
        def run(embedded, state, keys, W_x, W_h, W):
            return step(
                lambda x, h: (x @ W_x + h @ W_h).tanh(), embedded, state, keys, mask, lambda q, k: (q @ W @ k.mT).tanh()
            )

        return run

    inputs = {"embedded": draw(B, C), "state": draw(B, D), "keys": draw(B, S, E)}
    inputs |= {"W_x": draw(C, D), "W_h": draw(D, D), "W": draw(D, E)}
    why = "a step with a cell of W_x and W_h and scores of W"
    gradients(with_all(learner), with_all(authority), rng, why=why, **inputs)


def _on_one_key(learner, draw):
    """With all weight on one key the context is that key; which key, is another in each row."""
    import torch

    keys, state = draw(3, 4, 2), draw(3, 5)
    chosen = torch.tensor([2, 0, 3])
    keys[torch.arange(3), chosen, 0] += 100  # by which score knows it
    mask = torch.ones(3, 4, dtype=torch.bool)

    def score(queries, keys):
        return (2e6 * (keys[:, None, :, 0] > 50) - 1e6).to(keys.dtype).expand(-1, queries.shape[1], -1)

    output, _, _ = learner(lambda x, h: h + x[:, :1], draw(3, 2), state, keys, mask, score)
    why, source = "all weight on one key: the context is that key", "the key itself"
    likely = "The context is weights @ keys, row by row of the batch, and the first E columns of the output."
    expect.close(output[:, :2], keys[torch.arange(3), chosen], why=why, source=source, likely=likely)


def _shape_asked(shapes, C, D, E):
    """What went into score in the query's place."""
    last = [shape[-1] if shape else 0 for shape in shapes]
    if len(shapes[0]) == 3 and last == [E, D]:
        return "Query and keys are exchanged: score(queries, keys)."
    if len(shapes[0]) == 3 and last[0] == D:
        return "The new axis is for T, after the batch's: state[:, None] is (B, 1, D)."
    if last[0] == C != D:
        return "That is the embedding; the new state asks, state[:, None]."
    return "The new state (B, D) needs an axis for T = 1: state[:, None]."


def _shapes_likely(name):
    return {
        "output": "The output is torch.cat([context, state], 1), (B, E + D).",
        "state": "The state is what the cell gave, (B, D).",
        "weights": "masked_softmax gives (B, 1, S): weights[:, 0] is (B, S).",
    }[name]


def _wrong_part(name, keys):
    def likely(yours, expected):
        if name == "state":
            return "The new state is cell(embedded, state), once, and nothing else is done to it."
        if name == "weights":
            empty = expected.sum(1) == 0
            if empty.any() and not (np.abs(yours[empty]) < 1e-12).all():
                return "A row of padding only: masked_softmax gives weights of 0 there. Call it, not a softmax of your own."
            if not np.abs(yours.sum(1) - expected.sum(1)).max() < 1e-3:
                return "The weights do not sum to 1 over the letters: masked_softmax of the scores of the new state."
            return (
                "masked_softmax of score(state[:, None], keys) and the mask, once, the state being the cell's new one."
            )
        E = keys.shape[2]
        if np.allclose(yours[:, E:], expected[:, E:], atol=1e-6):
            return "The context is wrong, the first E columns: the weighted mean of the keys, (weights @ keys)[:, 0]."
        return "The last D columns of the output are the new state."

    return likely


# ------------------------------------------------------------------------------------------------ alignment_path


def _last_of_the_largest(weights):
    return weights.shape[1] - 1 - weights.flip(1).argmax(1)


def _middle(weights):
    import torch

    return (weights @ torch.arange(weights.shape[1], dtype=weights.dtype)).round().long()


@parts
def _alignment_path(
    weights,
    *,
    look=lambda weights: weights.argmax(1),
    onwards=lambda letters: [b >= a for a, b in itertools.pairwise(letters)],
    share=lambda steps, letters: sum(steps) / len(steps) if steps else 1.0,
    end=lambda letters, share: (letters, share),
):
    letters = look(weights).tolist()
    return end(letters, share(onwards(letters), letters))


@exercise(
    hints=[
        "weights.argmax(1).tolist(): for each phoneme, a row, the letter with the largest weight.",
        "zip(letters, letters[1:]) gives each with the one after it: T - 1 pairs, none where T is 1.",
        "steps = [after >= before for before, after in zip(letters, letters[1:])]; sum(steps) / len(steps), or 1.0.",
    ],
    mistakes=_alignment_path.mistakes(
        look={
            "argmax is over the phonemes: for each phoneme, a row, the largest over the letters is wanted.": (
                lambda weights: weights.argmax(0)
            ),
            "argmin is the letter that is looked at least.": lambda weights: weights.argmin(1),
            "That is the middle of the weights; the letter with the largest is asked for: argmax.": _middle,
            "Of several equal weights the first letter counts; this takes the last.": _last_of_the_largest,
            "Letters are counted from 1; from 0 they are places in the word.": lambda weights: weights.argmax(1) + 1,
        },
        onwards={
            "To stay at a letter is not to go back: >=, not >.": lambda letters: [
                b > a for a, b in itertools.pairwise(letters)
            ],
            "It counts the steps that go back; those that do not are wanted.": lambda letters: [
                b < a for a, b in itertools.pairwise(letters)
            ],
            "It is turned round: a step goes from letters[t] to letters[t + 1], and is good where that is not smaller.": (
                lambda letters: [b <= a for a, b in itertools.pairwise(letters)]
            ),
            "To leave letters out is not to go back: any later letter is good, not the next one only.": (
                lambda letters: [0 <= b - a <= 1 for a, b in itertools.pairwise(letters)]
            ),
            "It asks for the very next letter; to stay or to leave letters out is not going back.": lambda letters: [
                b == a + 1 for a, b in itertools.pairwise(letters)
            ],
            "Each letter is compared with the farthest so far; it is with the one before it.": lambda letters: [
                b >= max(letters[: n + 1]) for n, b in enumerate(letters[1:])
            ],
            "It compares with the first letter; it is with the one before it.": lambda letters: [
                b >= letters[0] for b in letters[1:]
            ],
            "It compares with the number of the phoneme; it is with the letter before it.": lambda letters: [
                b >= n for n, b in enumerate(letters[1:], 1)
            ],
        },
        share={
            "It divides by T; there are T - 1 steps.": lambda steps, letters: (
                sum(steps) / len(letters) if steps else 1.0
            ),
            "It is the number of steps; divide by how many there are, T - 1.": lambda steps, letters: (
                float(sum(steps)) if steps else 1.0
            ),
            "It is in percent; a share is from 0 to 1.": lambda steps, letters: (
                100 * sum(steps) / len(steps) if steps else 100.0
            ),
            "It is 1 where no step goes back, else 0 (is it // for /?); which share of the steps, is asked for.": lambda steps, letters: (
                float(all(steps))
            ),
            "With a single phoneme there is no step, and the mean of nothing is NaN: the text says 1.0.": (
                lambda steps, letters: sum(steps) / len(steps) if steps else math.nan
            ),
            "With a single phoneme there is no step, and nothing can be divided by 0: the text says 1.0.": (
                lambda steps, letters: sum(steps) / len(steps)
            ),
            "1.0 is for a single phoneme only; where all steps go back the share is 0.": lambda steps, letters: (
                sum(steps) / len(steps) if sum(steps) else 1.0
            ),
            "It is rounded, to two digits; the share is as it is.": lambda steps, letters: (
                round(sum(steps) / len(steps), 2) if steps else 1.0
            ),
            "It is rounded; the share is as it is.": lambda steps, letters: (
                round(sum(steps) / len(steps), 1) if steps else 1.0
            ),
            "With a single phoneme there is no step: the text says 1.0.": lambda steps, letters: (
                sum(steps) / len(steps) if steps else 0.0
            ),
            "The first phoneme is counted as a step that goes forward; there are T - 1 steps.": lambda steps, letters: (
                (1 + sum(steps)) / len(letters)
            ),
        },
        end={
            "Share and letters are exchanged: return letters, share.": lambda letters, share: (share, letters),
            "The share alone comes back: return letters, share.": lambda letters, share: share,
            "The letters alone come back: return letters, share.": lambda letters, share: letters,
            "The letters are sorted, and each once; they stay in the order of the phonemes.": lambda letters, share: (
                sorted(set(letters)),
                share,
            ),
        },
    ),
)
def alignment_path(learner, rng):
    import torch

    def authority(weights):
        letters = [max(range(len(row)), key=lambda n, row=row: (row[n], -n)) for row in weights.tolist()]
        back = sum(b - a < 0 for a, b in zip(letters, letters[1:], strict=False))
        return letters, 1 - back / (len(letters) - 1) if len(letters) > 1 else 1.0

    def along(*letters, S):
        weights = 0.1 + 0.1 * torch.tensor(rng.random((len(letters), S)))
        weights[torch.arange(len(letters)), torch.tensor(letters)] = 0.9
        return weights

    def compare(weights, why):
        letters, share = expect.parts(learner(weights), ("letters", "share"), f"{why}: two results")
        whole = isinstance(letters, list) and all(
            isinstance(n, int | np.integer) and not isinstance(n, bool) for n in letters
        )
        if not whole:
            shown = [f"yours    {str(letters)[:80]}", "expected a list of whole numbers"]
            raise Complaint(f"letters are a list of ints: {why}", shown, _no_list(letters), str(letters))
        wanted = authority(weights)
        expect.equal(letters, wanted[0], why=f"letters: {why}", source="the largest of each row")
        expect.close(share, wanted[1], why=f"share: {why}", source=f"the steps of {wanted[0]}, counted")
        likely = "A float: 1.0, not 1; and .item() or float(…) takes a number out of a tensor."
        expect.kind(share, float, f"the share is a float: {why}", likely=likely)

    compare(along(0, 0, 2, 1, 1, 2, 4, 3, 5, 5, 6, S=8), "eleven phonemes, eight letters")
    compare(along(1, 3, 3, 2, S=5), "the example above")
    compare(along(3, 1, 2, 2, 0, 4, S=5), "it begins in the middle")
    compare(along(2, S=4), "a single phoneme")
    compare(along(0, 0, 0, S=1), "a single letter")
    compare(along(4, 3, 2, 1, 0, S=5), "backwards all the way")
    compare(along(0, 1, 2, 3, S=4), "forwards all the way")
    equal = torch.tensor([[0.2, 0.4, 0.4], [0.4, 0.2, 0.4], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]])
    compare(equal, "equal weights: the first letter")
    for T, S in ((6, 3), (3, 6), (4, 4), (12, 9), (2, 2)):
        weights = torch.tensor(rng.normal(size=(T, S))).softmax(1)
        compare(weights, f"{T} phonemes, {S} letters")
        compare(weights.float().mT.contiguous().mT, f"{T} phonemes, {S} letters, laid out otherwise")
    recorded = torch.tensor(rng.normal(size=(5, 4)), requires_grad=True).softmax(1)
    compare(recorded, "weights with a graph")


def _no_list(letters):
    if hasattr(letters, "tolist"):
        return "It is a tensor or array: .tolist() makes a list of it."
    if isinstance(letters, float):
        return "Share and letters are exchanged: return letters, share."
    if isinstance(letters, list) and letters and isinstance(letters[0], float):
        return "These are the largest weights; it is their places that are wanted: argmax."
    return "A list of T whole numbers: weights.argmax(1).tolist()."


# ------------------------------------------------------------------------------------------------ attention_table


def _sums_to_100(weights):
    rows = [[round(100 * w) for w in row] for row in weights.tolist()]
    for row in rows:
        row[row.index(max(row))] += 100 - sum(row)
    return [[w / 100 for w in row] for row in rows]


@parts
def _attention_table(
    word,
    phonemes,
    weights,
    *,
    above=lambda word: " " * 5 + "".join(f"{letter:>4}" for letter in word),
    name=lambda phoneme: f"{phoneme:<5}",
    cell=lambda w: f"{100 * w:4.0f}",
    rows=lambda weights: weights.tolist(),
    join=lambda lines: "\n".join(lines),
):
    lines = [name(p) + "".join(map(cell, row)) for p, row in zip(phonemes, rows(weights), strict=False)]
    return join([above(word), *lines])


@exercise(
    hints=[
        "Make a list of lines, the first from the letters, and join them by '\\n'. f\"{letter:>4}\" is 4 wide.",
        'lines = [" " * 5 + "".join(f"{letter:>4}" for letter in word)]; then one line for each phoneme and its row.',
        'f"{phoneme:<5}" + "".join(f"{100 * w:4.0f}" for w in row), with weights.tolist() for the rows.',
    ],
    mistakes=_attention_table.mistakes(
        above={
            "The 5 blanks above the phonemes are missing, so letters stand above the wrong columns.": lambda word: (
                "".join(f"{letter:>4}" for letter in word)
            ),
            "Before the letters stand 4 blanks; it is 5, as wide as a phoneme's column.": lambda word: (
                " " * 4 + "".join(f"{letter:>4}" for letter in word)
            ),
            "The letters are to the left of their columns; f'{letter:>4}' puts them to the right.": lambda word: (
                " " * 5 + "".join(f"{letter:<4}" for letter in word)
            ),
            "The letters are in the middle of their columns; f'{letter:>4}' puts them to the right.": lambda word: (
                " " * 5 + "".join(f"{letter:^4}" for letter in word)
            ),
            "The letters are in capitals; they stay as the word has them.": lambda word: (
                " " * 5 + "".join(f"{letter:>4}" for letter in word.upper())
            ),
        },
        name={
            "The phonemes are to the right of their column; f'{phoneme:<5}' puts them to the left.": lambda phoneme: (
                f"{phoneme:>5}"
            ),
            "The phonemes' column is 4 wide; it is 5.": lambda phoneme: f"{phoneme:<4}",
            "The phonemes have no column of 5, so what follows is shifted.": lambda phoneme: phoneme,
            "The phonemes are in small letters; they stay as they are.": lambda phoneme: f"{phoneme.lower():<5}",
            "The phonemes are missing at the beginning of their lines.": lambda phoneme: " " * 5,
        },
        cell={
            "Fractions are cut off: f'{100 * w:4.0f}' rounds.": lambda w: f"{int(100 * w):4d}",
            "These are shares; in percent they are 100 times that.": lambda w: f"{w:4.0f}",
            "These are shares with a point; whole percent are wanted: f'{100 * w:4.0f}'.": lambda w: f"{w:4.1f}",
            "These are shares with a point, two digits; whole percent are wanted: f'{100 * w:4.0f}'.": lambda w: (
                f"{w:4.2f}"
            ),
            "The numbers have digits after the point: f'{100 * w:4.0f}' has none.": lambda w: f"{100 * w:4.1f}",
            "The columns are 3 wide; they are 4.": lambda w: f"{100 * w:3.0f}",
            "The columns are 5 wide; they are 4.": lambda w: f"{100 * w:5.0f}",
            "The numbers are to the left of their columns; >4 puts them to the right.": lambda w: f"{100 * w:<4.0f}",
            "A % sign stands behind each number, within its 4 columns; there is none: f'{100 * w:4.0f}'.": lambda w: (
                f"{w:4.0%}"
            ),
            "Fractions are rounded up; to the nearest: f'{100 * w:4.0f}'.": lambda w: f"{math.ceil(100 * w):4d}",
            "A % sign stands behind each number; there is none.": lambda w: f"{100 * w:4.0f}%",
            "Small weights are left blank; every number is written.": lambda w: (
                f"{100 * w:4.0f}" if w >= 0.005 else " " * 4
            ),
        },
        rows={
            "Letters and phonemes are exchanged: row n of weights belongs to phoneme n.": lambda weights: (
                weights.T.tolist()
            ),
            "Each row is divided by its largest; it sums to 1 already: write it as it is.": lambda weights: (
                weights / weights.max(1, keepdim=True).values
            ).tolist(),
            "There are as many numbers as phonemes; a line has one for each letter.": lambda weights: weights[
                :, : len(weights)
            ].tolist(),
            "The weights are rounded before they are multiplied by 100; multiply first.": lambda weights: [
                [round(w, 1) for w in row] for row in weights.tolist()
            ],
            "A number was changed so that the row sums to 100; each is rounded by itself.": _sums_to_100,
        },
        join={
            "The header of letters is missing: T + 1 lines.": lambda lines: "\n".join(lines[1:]),
            "There is a line break after the last line; join puts them between.": lambda lines: "\n".join(lines) + "\n",
            "The lines are joined by blanks; by '\\n'.": lambda lines: " ".join(lines),
            "The lines follow each other without a break; join them by '\\n'.": lambda lines: "".join(lines),
            "A list of lines comes back; join them by '\\n'.": lambda lines: lines,
            "An empty line stands after the letters.": lambda lines: "\n".join([lines[0], "", *lines[1:]]),
            "Blanks at the end or the beginning are stripped off; the first line begins with 5.": lambda lines: (
                "\n".join(lines).strip()
            ),
        },
    ),
)
def attention_table(learner, rng):
    import torch

    by_hand = "        k   n   i\nN       3  96   1\nAY      0   8  92"
    given = learner("kni", ["N", "AY"], torch.tensor([[0.031, 0.962, 0.007], [0.004, 0.078, 0.918]]))
    _same_lines(given, by_hand, "three letters, two phonemes", "by hand")
    for word, said in (
        ("knight", "N AY T"),
        ("a", "AH"),
        ("xerox", "Z IH R AA K S"),
        ("oh", "OW"),
        ("shells", "SH EH L Z"),
    ):
        phonemes = said.split()
        percent = rng.dirichlet(np.full(len(word), 0.4), size=len(phonemes)) * 100
        percent = np.where(np.abs(percent % 1 - 0.5) < 0.05, percent + 0.1, percent)  # no halves
        wanted = [" " * 5 + "".join(letter.rjust(4) for letter in word)]
        for phoneme, row in zip(phonemes, percent, strict=True):
            wanted.append(phoneme.ljust(5) + "".join(str(int(p + 0.5)).rjust(4) for p in row))
        for dtype in (torch.float64, torch.float32):
            weights = torch.tensor(percent / 100, dtype=dtype)
            why = f"{word}, {said}"
            _same_lines(learner(word, phonemes, weights), "\n".join(wanted), why, "rjust and ljust")


def _same_lines(given, wanted, why, source):
    expect.kind(given, str, f"a str: {why}")
    mine, theirs = given.split("\n"), wanted.split("\n")
    if mine == theirs:
        return
    likely = "The lines are joined by '\\n', one for the letters and one for each phoneme, none after the last."
    if len(mine) != len(theirs):
        details = [f"yours    {len(mine)} lines", f"expected {len(theirs)} lines   ({source})"]
        raise Complaint(f"how many lines: {why}", details, likely, given)
    n = next(n for n, pair in enumerate(zip(mine, theirs, strict=True)) if pair[0] != pair[1])
    what = "the line of letters" if n == 0 else f"the line of phoneme {n}"
    details = [f"yours    {mine[n]!r}", f"expected {theirs[n]!r}   ({source})"]
    raise Complaint(f"{what}: {why}", details, _of_line(n, mine[n], theirs[n]), given)


def _of_line(n, mine, theirs):
    """Columns are blamed only where the words are right."""
    if n == 0 and mine.strip() == theirs.strip():
        return "5 columns stand before the letters, however long the phonemes are."
    if mine.split() == theirs.split():
        what = "before the letters, 4 for each" if n == 0 else "for the phoneme, 4 for each number"
        return f"5 columns {what}, and no blank between: ''.join."
    if n == 0:
        return "The letters of the word, one for each column of weights, and nothing else."
    if len(mine.split()) != len(theirs.split()):
        return "A line has the phoneme and one number for each letter: are T and S, or word and phonemes, exchanged?"
    return "Row n of weights belongs to phoneme n, and each number is 100 times a weight, rounded by itself."
