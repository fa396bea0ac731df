"""The checks of attention-basics: one for each exercise, with its hints. `lab.check` runs them.

Attention is held to torch's scaled_dot_product_attention, with the unit matrix as values for its weights; the layer to
nn.MultiheadAttention with the same matrices; masks, heads and scores to loops over single places; entropy to SciPy.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from atlas.checking import Complaint, agree, exercise, expect, floats, gradients, parts, tensor


def _draw(rng, *shape):
    return torch.tensor(rng.normal(size=shape), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ attention


def _lowest(scores):
    return torch.finfo(scores.dtype).min


def _masked(scores, mask):
    return scores.softmax(-1) if mask is None else scores.masked_fill(~mask, _lowest(scores)).softmax(-1) * mask


def _by_torch(q, k, v, mask=None):
    """Output and weights by torch; 0 where a query may look at nothing."""
    shape = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2])
    allowed = torch.ones(*shape, q.shape[-2], k.shape[-2], dtype=torch.bool)
    allowed = allowed if mask is None else allowed & mask
    some = allowed.any(-1, keepdim=True)
    unit = torch.eye(k.shape[-2], dtype=q.dtype).expand(*shape, -1, -1)
    found = [F.scaled_dot_product_attention(q, k, each, attn_mask=allowed | ~some) for each in (v, unit)]
    return tuple(torch.where(some, each, 0.0) for each in found)


@parts
def _attention(
    q,
    k,
    v,
    mask=None,
    *,
    compare=lambda q, k: q @ k.mT,
    scale=lambda scores, q, k, v: scores / q.shape[-1] ** 0.5,
    weigh=lambda scores, mask: _masked(scores, mask),
    mix=lambda weights, v, k, q: weights @ v,
    end=lambda output, weights: (output, weights),
):
    weights = weigh(scale(compare(q, k), q, k, v), mask)
    return end(mix(weights, v, k, q), weights)


def _scaled_afterwards(q, k, v, mask=None):
    """The root divides the weights, after the softmax; it divides the scores, before it."""
    weights = _masked(q @ k.mT, mask) / q.shape[-1] ** 0.5
    return weights @ v, weights


def _unless(change):
    """What is done to scores and mask where there is a mask."""
    return lambda scores, mask: scores.softmax(-1) if mask is None else change(scores, mask)


@exercise(
    hints=[
        "The scores are all products of a query with a key: (..., T, D) times what gives (..., T, S)?",
        "q @ k.mT, divided by q.shape[-1] ** 0.5; masked_softmax takes these scores and the mask.",
        "weights = masked_softmax(q @ k.mT / q.shape[-1] ** 0.5, mask), then return weights @ v, weights",
    ],
    mistakes=_attention.mistakes(
        _scaled_afterwards,
        together={
            "In half precision weights and output come back as float32; they keep the dtype of q.": {
                "weigh": lambda s, mask: _masked(s.float() if s.element_size() == 2 else s, mask),
                "mix": lambda w, v, k, q: w @ v.to(w.dtype),
            }
        },
        mask={"The mask has no effect: masked_softmax takes it.": None},
        compare={
            "transpose with axes 1, 2 or 3 counts on a number of axes, and there may be two or more: .mT, or "
            "transpose(-2, -1).": lambda q, k: q @ k.transpose(2, 3),
            "k.T and transpose(1, 2) exchange other axes than the last two where there are more: .mT, or transpose(-2, -1).": (
                lambda q, k: q @ k.T
            ),
        },
        scale={
            "The root is missing: scores are divided by the root of D.": lambda s, q, k, v: s,
            "It divides by D; by the root of D.": lambda s, q, k, v: s / q.shape[-1],
            "It multiplies by the root of D; it divides.": lambda s, q, k, v: s * q.shape[-1] ** 0.5,
            "The root of D is cut down to a whole number.": lambda s, q, k, v: s / int(q.shape[-1] ** 0.5),
            "It divides by the root of S, the number of keys; by that of D, their width, the last axis.": (
                lambda s, q, k, v: s / k.shape[-2] ** 0.5
            ),
            "It divides by the root of T, the number of queries; by that of D, their width, the last axis.": (
                lambda s, q, k, v: s / q.shape[-2] ** 0.5
            ),
            "It divides by the root of E, the width of the values; by that of D, the width of queries and keys.": (
                lambda s, q, k, v: s / v.shape[-1] ** 0.5
            ),
            "It divides by the root of the first axis's length; by that of D, the last one.": lambda s, q, k, v: (
                s / q.shape[0] ** 0.5
            ),
            "It divides by the root of the second axis's length; by that of D, the last one, whatever the number of "
            "axes.": lambda s, q, k, v: s / q.shape[1] ** 0.5,
            "It divides by the spread of the scores; by the root of D, whatever they are.": lambda s, q, k, v: (
                s / s.std(-1, keepdim=True)
            ),
        },
        weigh={
            "The mask is turned around: True is where a query may look.": _unless(lambda s, m: _masked(s, ~m)),
            "The softmax is over the queries; it is over the keys, the last axis.": lambda s, mask: (
                s.softmax(-2) if mask is None else s.masked_fill(~mask, _lowest(s)).softmax(-2) * mask
            ),
            "Without a mask everybody may be looked at; here nobody may look ahead.": lambda s, mask: _masked(
                s, _ones(*s.shape[-2:]).tril() if mask is None else mask
            ),
            "The mask comes after the softmax: what is left does not sum to 1. masked_softmax takes it before.": _unless(
                lambda s, m: s.softmax(-1) * m
            ),
            "The mask comes after the softmax, and what is left is divided by its sum: NaN where nothing is left. "
            "masked_softmax takes it before.": _unless(lambda s, m: (w := s.softmax(-1) * m) / w.sum(-1, keepdim=True)),
            "A row with one hidden key loses all its weights; only a row with nothing to look at has none.": _unless(
                lambda s, m: _masked(s, m) * m.all(-1, keepdim=True)
            ),
            "The mask comes after the softmax, of which nothing is left where a hidden key scores far more than the others: "
            "masked_softmax takes it before.": _unless(
                lambda s, m: (w := s.softmax(-1) * m) / (w.sum(-1, keepdim=True) + 1e-9)
            ),
            "A mask (H, T, S) or (B, 1, S) gets an axis in its middle; it broadcasts as it is, and where heads need one "
            "the layer puts it in.": _unless(lambda s, m: _masked(s, m[:, None] if m.ndim == 3 else m)),
            "A mask is ignored where it is not as wide as there are keys; it broadcasts, as (T, 1) does.": _unless(
                lambda s, m: _masked(s, m if m.shape[-1] == s.shape[-1] else torch.ones_like(m))
            ),
            "exp of large scores is infinite: softmax subtracts the largest first.": lambda s, mask: (
                (e := s.exp() if mask is None else s.exp() * mask)
                / torch.where((total := e.sum(-1, keepdim=True)) > 0, total, 1.0)
            ),
            "The largest of all keys is subtracted, the hidden ones' too: far below it exp is 0 for all others. "
            "masked_softmax takes the mask before.": lambda s, mask: (
                (e := (s - s.amax(-1, keepdim=True)).exp() * (1 if mask is None else mask))
                / torch.where((total := e.sum(-1, keepdim=True)) > 0, total, 1.0)
            ),
            "Scores times mask are 0 where nobody may look, and exp(0) = 1 is a share: masked_softmax takes the mask.": (
                _unless(lambda s, m: (s * m).softmax(-1))
            ),
            "The mask is added to the scores as 0 and 1; masked_softmax takes it as it is.": _unless(
                lambda s, m: (s + m).softmax(-1)
            ),
            "A row with nothing to look at gets NaN, the softmax of -inf only; there weights are 0: masked_softmax.": (
                _unless(lambda s, m: s.masked_fill(~m, -math.inf).softmax(-1))
            ),
            "A row with nothing to look at gets equal weights; there they are 0: masked_softmax.": _unless(
                lambda s, m: s.masked_fill(~m, _lowest(s)).softmax(-1)
            ),
            "A number such as -1e9 in place of a score is no exclusion where all are lower, and a row with nothing to look at "
            "gets equal weights: masked_softmax.": _unless(lambda s, m: s.masked_fill(~m, -1e9).softmax(-1)),
            "The softmax is missing: weights are positive and sum to 1.": lambda s, mask: (
                s if mask is None else s * mask
            ),
            "That is sigmoid, each key by itself; weights sum to 1 over the keys.": lambda s, mask: (
                s.sigmoid() if mask is None else s.sigmoid() * mask
            ),
            "These are logarithms of weights: softmax, not log_softmax.": lambda s, mask: (
                s.log_softmax(-1) if mask is None else s.masked_fill(~mask, _lowest(s)).log_softmax(-1)
            ),
        },
        mix={
            "In half precision the output comes back as float32; it keeps the dtype of q.": lambda w, v, k, q: (
                w.float() @ v.float() if v.element_size() == 2 else w @ v
            ),
            "The keys are mixed; the weighted mean is of the values.": lambda w, v, k, q: w @ k,
            "The weights are cut from the graph: queries and keys would never learn.": lambda w, v, k, q: (
                w.detach() @ v
            ),
            "The output is divided by the root of D once more; only the scores are.": lambda w, v, k, q: (
                w @ v / q.shape[-1] ** 0.5
            ),
            "The output is the mean of the values, whatever the weights.": lambda w, v, k, q: v.mean(
                -2, keepdim=True
            ).expand(*w.shape[:-1], -1),
            "The output is the value of the key with the largest weight; it is the weighted mean of all.": (
                lambda w, v, k, q: F.one_hot(w.argmax(-1), w.shape[-1]).to(v.dtype) @ v
            ),
            "The queries are added to the output; that is the layer's business, not attention's.": (
                lambda w, v, k, q: w @ v + q if q.shape[-1] == v.shape[-1] else w @ v + q.sum(-1, keepdim=True)
            ),
        },
        end={
            "Output and weights are exchanged: return output, weights.": lambda output, weights: (weights, output),
            "The output alone comes back: return output, weights.": lambda output, weights: output,
            "The weights alone come back: return output, weights.": lambda output, weights: weights,
            "The weights that come back are cut from the graph.": lambda output, weights: (output, weights.detach()),
        },
    ),
)
def attention(learner, rng):
    names = "output", "weights"

    def compare(why, q, k, v, mask=None, likely="", atol=1e-7):
        given = expect.parts(learner(q, k, v, mask), names, f"two results: {why}")
        theirs = _by_torch(q.double(), k.double(), v.double(), mask)
        for name, mine, right in reversed(list(zip(names, given, theirs, strict=True))):
            tensor(mine, f"{name}: {why}")
            source = "scaled_dot_product_attention"
            expect.close(mine, right, why=f"{name}: {why}", source=source, dtype=q, likely=likely, atol=atol)

    for B, H, T, S, D, E in ((2, 3, 6, 7, 8, 5), (1, 2, 5, 3, 6, 4), (3, 3, 3, 3, 2, 3), (2, 1, 1, 4, 7, 2)):
        q, k, v = _draw(rng, B, H, T, D), _draw(rng, B, H, S, D), _draw(rng, B, H, S, E)
        compare(f"B = {B}, H = {H}, T = {T}, S = {S}, D = {D}, E = {E}", q, k, v)
        for shape in ((T, S), (B, 1, 1, S), (B, H, T, S), (B, 1, T, S), (H, T, S)):
            mask = torch.tensor(rng.random(shape) < 0.6)
            mask[..., -1] |= ~mask.any(-1)
            compare(f"the same with a mask {shape}", q, k, v, mask)
        for shape in ((B, 1, S), (B, T, S)):
            mask = torch.tensor(rng.random(shape) < 0.6)
            mask[..., 0] |= ~mask.any(-1)
            compare(f"three axes, q (B, T, D), with a mask {shape}", q[:, 0], k[:, 0], v[:, 0], mask)
    by_hand = [torch.tensor(x, dtype=torch.float64) for x in ([[2, 0]], [[1, 1], [0, 1]], [[10], [20]])]
    output, weights = expect.parts(learner(*by_hand), names, "two results: the example above")
    tensor(output, "output: the example above")
    expect.close(weights, [[0.804, 0.196]], why="weights of the example above", source="by hand", atol=5e-4)
    expect.close(output, [[11.96]], why="output of the example above", source="by hand", atol=5e-3)
    agree(
        lambda q, k, v: expect.parts(learner(q, k, v), names, "two results"),
        _by_torch,
        rng,
        why="softmax(q kᵀ / √D) and its mean of v",
        source="scaled_dot_product_attention",
        parts=names,
        like="q",
        q=floats("B", "T", "D", tensor=True),
        k=floats("B", "S", "D", tensor=True),
        v=floats("B", "S", "E", tensor=True),
        without={"far": "products of entries near 1000 lie too near one another for rounding"},
    )
    q, k, v = _draw(rng, 4, 3), _draw(rng, 6, 3), _draw(rng, 6, 2)
    compare("no batch at all, (T, D)", q, k, v)
    mask = torch.tensor(rng.random((4, 6)) < 0.5)
    mask[:, 0], mask[2] = True, False
    likely = "masked_softmax(scores, mask) gives weights of 0 to a row with nothing to look at."
    compare("a query that may look at nothing: weights and output 0", q, k, v, mask, likely)
    mask = torch.tensor([[True], [False], [True], [True]])
    compare("a mask (T, 1), for all keys alike", q, k, v, mask)
    many = _draw(rng, 2, 1, 3, 4, 3), _draw(rng, 2, 1, 3, 6, 3), _draw(rng, 2, 1, 3, 6, 2)
    compare("five axes, and a mask (T, S)", *many, torch.ones(4, 6, dtype=torch.bool).tril(2))
    mask = torch.tensor(rng.random((4, 6)) < 0.5)
    mask[:, 0], mask[2] = True, False
    low = [3e5 * torch.ones(1, 3, dtype=torch.float64), -3e5 * (1 + torch.tensor(rng.random((6, 3)))), v]
    likely = "A hidden key must not count, however far it lies above the others: masked_softmax takes the mask first."
    compare("scores near -1e11, with a mask", low[0] + q, *low[1:], mask, likely)
    for dtype in (torch.bfloat16, torch.float16):
        half = [each.to(dtype) for each in (q, k, v)]
        compare(f"{dtype}, with a mask", *half, mask, atol=0.1)

    def pulled(function):
        return lambda q, k, v: function(q, k, v, mask)

    gradients(pulled(learner), pulled(_by_torch), rng, why="output and weights", q=q, k=k, v=v)


# ------------------------------------------------------------------------------------------------ causal_mask


def _ones(T, S):
    return torch.ones(T, S, dtype=torch.bool)


@parts
def _causal_mask(T, S, *, cut=lambda T, S: _ones(T, S).tril(S - T), end=lambda mask: mask):
    return end(cut(T, S))


@exercise(
    hints=[
        "With T = S the first row may see one place, the last all: the lower triangle, with the diagonal.",
        "Query t is at place S - T + t: so many places more than t each row may see. .tril takes a diagonal.",
        "torch.ones(T, S, dtype=torch.bool).tril(S - T), or torch.arange(S) <= torch.arange(S - T, S)[:, None]",
    ],
    mistakes=_causal_mask.mistakes(
        cut={
            "The queries are taken to be the first T places; they are the last: tril(S - T).": lambda T, S: _ones(
                T, S
            ).tril(),
            "The diagonal is moved the wrong way: S - T, not T - S.": lambda T, S: _ones(T, S).tril(T - S),
            "The triangle is moved by T; by S - T, the number of places before the first query.": lambda T, S: _ones(
                T, S
            ).tril(T),
            "Nothing is hidden; a query may not look at what is later than its own place: tril(S - T).": _ones,
            "The places long before are hidden, too; only later ones are.": lambda T, S: (
                _ones(T, S).tril(S - T).triu(S - 2 * T + 1)
            ),
            "The places before the first query are hidden; only later ones than the query's own are.": lambda T, S: (
                torch.cat([~_ones(T, S - T), _ones(T, T).tril()], 1)
            ),
            "The queries are in reverse order, the last place's first.": lambda T, S: _ones(T, S).tril(S - T).flip(0),
            "The places wrap around at 256, as uint8 does: int64, torch.arange's own.": lambda T, S: (
                (place := torch.arange(S).to(torch.uint8)) <= place[S - T :, None]
            ),
            "A query may look at its own place, too: here it may not, S - T - 1 is one too few.": lambda T, S: _ones(
                T, S
            ).tril(S - T - 1),
            "A query may look one place ahead; up to its own: S - T.": lambda T, S: _ones(T, S).tril(S - T + 1),
            "True is where a query may look; here it is where it may not.": lambda T, S: _ones(T, S).triu(S - T + 1),
            "That is the upper triangle: each looks ahead. The lower is wanted, .tril.": lambda T, S: _ones(T, S).triu(
                S - T
            ),
            "That is the upper triangle from the top left on: each looks ahead. The lower is wanted, .tril(S - T).": (
                lambda T, S: _ones(T, S).triu()
            ),
            "True is where a query may look; here it is where it may not, and queries are taken to be the first places.": (
                lambda T, S: _ones(T, S).triu(1)
            ),
            "The first T of S places are queries here, and their own place is hidden: tril(S - T).": lambda T, S: _ones(
                T, S
            ).tril(-1),
            "The mask is S × S; there are T queries, the last ones: (T, S).": lambda T, S: _ones(S, S).tril(),
            "The mask is (S, T), keys by queries; it is (T, S).": lambda T, S: _ones(T, S).tril(S - T).mT,
            "The mask is T × T; there are S places to look at: (T, S).": lambda T, S: _ones(T, T).tril(),
        },
        end={
            "0 and -inf are to be added to scores; here it is bool, True where a query may look.": lambda mask: (
                torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
            ),
            "1 and 0 as numbers; a mask is bool: dtype=torch.bool.": lambda mask: mask.float(),
            "An axis of length 1 is in front; the mask is (T, S).": lambda mask: mask[None],
        },
    ),
)
def causal_mask(learner, rng):
    sizes = [
        (3, 10),
        (2, 5),
        (3, 3),
        (1, 4),
        (4, 7),
        (5, 6),
        (1, 1),
        (6, 6),
        (2, 9),
        (20, 37),
    ]  # 3 of 10: no coincidence
    for T, S in [*sizes, (100, 100), (2, 300), (300, 300), (5, 3000)]:
        given, why = learner(T, S), f"{T} queries, the last of {S} places"
        tensor(given, why)
        wanted = np.array([[place <= S - T + t for place in range(S)] for t in range(T)])
        expect.equal(given, wanted, why=why, source="place by place")
        likely = "dtype=torch.bool: True where a query may look."
        expect.dtype(given, torch.ones(1, dtype=torch.bool), f"bool: {why}", likely=likely)
        expect.true(not given.requires_grad and given.device.type == "cpu", f"a plain tensor on the CPU: {why}")


# ------------------------------------------------------------------------------------------------ previous_token_head


def _one_each(T, places, size):
    W = torch.zeros(T, T)
    W[torch.arange(T), places] = size
    return W


@parts
def _previous(
    T,
    *,
    where=lambda T: (torch.arange(T) - 1).clamp(min=0),
    size=lambda T: T**0.5 * (10 + math.log(T)),
    end=lambda W: W,
):
    return end(_one_each(T, where(T), size(T)))


@exercise(
    hints=[
        "Row i of P @ W is row i of W: its T scores, before they are divided by the root of T.",
        "W[i, i - 1] is the score of the place before, and W[0, 0] the one of row 0. exp(size / √T) has to be more than "
        "99 · (T - 1), for T up to 1,000: a size that grows with T, or is large anyway.",
        "W = torch.zeros(T, T); W[0, 0] = c; W[range(1, T), range(T - 1)] = c, with c = 20 * T ** 0.5",
    ],
    mistakes=_previous.mistakes(
        size={
            "The entries are 1: after the root of T and the softmax the look is nearly even. They have to be large.": (
                lambda T: 1.0
            ),
            "c = 52.2 is the example's, for T = 40; here T is another.": lambda T: 52.2,
            "It is the root of T: divided by it 1 is left, and e¹ is little against T - 1 others.": lambda T: T**0.5,
        },
        end={
            "These are the weights themselves; W holds scores, which softmax makes weights of.": lambda W: (
                W / math.sqrt(len(W))
            ).softmax(1),
            "It returns the places, (T,), not a matrix: one entry in each row of torch.zeros(T, T).": lambda W: (
                W.argmax(1)
            ),
        },
    ),
)
def previous_token_head(learner, rng):
    for T in (30, 2, 3, 5, 9, 40, 1, 150, 1000):  # 30: where a look is too weak, its size shows why
        W, why = learner(T), f"T = {T}"
        tensor(W, why)
        expect.shape(W, (T, T), f"a row and a column for each place: {why}")
        expect.finite(W, f"finite: {why}", likely="A large number does it; inf makes NaN.")
        expect.dtype(W, torch.ones(1), f"float32: {why}", likely="torch.zeros(T, T) is float32 from the start.")
        weights = (W.detach() / T**0.5).softmax(1)
        wanted = (torch.arange(T) - 1).clamp(min=0)
        on_it, most = weights[torch.arange(T), wanted], weights.argmax(1)
        row = int(on_it.argmin())
        shown = [
            f"row {row}: {on_it[row]:.3f} on place {wanted[row]}, most, {weights[row, most[row]]:.3f}, on {most[row]}",
            f"expected more than 0.99 on place {wanted[row]}   (attention of the unit matrix)",
        ]
        if not bool(on_it.min() > 0.99):
            raise Complaint(
                f"each row looks one place back: {why}", shown, _where_it_looks(W, weights, most, wanted), W
            )


def _where_it_looks(W, weights, most, wanted):
    """What the rows look at, most telling first."""
    T, i = len(W), torch.arange(len(W))
    if T > 1 and bool((W.T.softmax(1)[i, wanted] > 0.99).all()):
        return "W is transposed: row i is the query at i, column i - 1 the key of the place before."
    several = [n for n in range(T) if int((W[n] == W[n].max()).sum()) not in (1, T)]
    if several:
        return (
            f"In row {several[0]} several places have the same score, so they share: one entry a row, the one before."
        )
    if torch.equal(most, wanted):
        uneven = [bool(row.max() - row.min() > 1e-6) for row in weights]
        if not uneven[0] and all(uneven[1:]):
            return "Row 0 is empty, so it looks at all places alike; it looks at itself: W[0, 0] too."
        if abs(float(weights[i, wanted].min()) - 0.99) < 1e-5:
            return (
                "That is the bound itself, and 0.99 has to be exceeded: a little more, such as + 1 after the logarithm."
            )
        if T > 9 and bool(W.softmax(1)[i, wanted].min() > 0.9) and W.max() < 2 * math.log(99 * T):
            return (
                "The root of T is forgotten: attention divides W by it, so the entry is more than √T · ln(99 (T - 1))."
            )
        grows = " A number that is enough for few places is not for many." if T > 40 else ""
        return f"The right places, and too little on them for T = {T}: the entry over √T has to be above ln(99 (T - 1)).{grows}"
    if T > 2 and bool((most[1:-1] == i[2:]).all()):
        return "Row i looks at i + 1, the place after it. Row i of W is the query at i, column i - 1 the key before it."
    even = [n for n in range(T) if bool(weights[n].max() - weights[n].min() < 1e-6)]
    if even and T > 1:
        return (
            f"Row {even[0]} is the same everywhere, so it looks at all places alike: it needs its one large entry, too."
        )
    if bool((W[i, wanted] < 0).all()) and bool((W.min(1).values == W[i, wanted]).all()):
        return "The sign is turned: the place before has the lowest score of its row."
    if bool((most[1:] == wanted[1:]).all()):
        if most[0] == T - 1:
            return "Row 0 looks at the last place: an index of -1 wraps around, and so does roll. It looks at itself."
        return "Row 0 looks at itself: W[0, 0]."
    if bool((most == i).all()):
        return "Each place looks at itself; at the one before it: row i, column i - 1."
    if T > 3 and bool((most[2:] == i[:-2]).all()):
        return "Row i looks two places back; one: column i - 1."
    return "Row i of W is the query at i, and column i - 1 the key of the place before it."


# ------------------------------------------------------------------------------------------------ split_heads


@parts
def _split(x, H, *, cut=lambda x, H: x.unflatten(2, (H, -1)).transpose(1, 2), end=lambda heads: heads):
    return end(cut(x, H))


@exercise(
    hints=[
        "Which of the three axes is cut in two? Only that one; time stays whole.",
        "x.unflatten(2, (H, -1)) is (B, T, H, D/H): head h of it has the right columns. Now H has to come before T.",
        "x.unflatten(2, (H, -1)).transpose(1, 2)",
    ],
    mistakes=_split.mistakes(
        cut={
            "The shape is right and the numbers are not: a view or reshape to (B, H, T, D/H) cuts the rows, not the width. "
            "First (B, T, H, D/H), then exchange two axes.": lambda x, H: x.reshape(
                len(x), H, x.shape[1], x.shape[2] // H
            ),
            "The heads are behind the time, (B, T, H, D/H): axes 1 and 2 change places.": lambda x, H: x.unflatten(
                2, (H, -1)
            ),
            "Heads and width have changed places, (B, T, D/H, H); axes 1 and 2 do, so that H comes before T.": (
                lambda x, H: x.unflatten(2, (H, -1)).mT
            ),
            "Batch and heads have changed places, (H, T, B, D/H); axes 1 and 2 do: the batch stays in front.": (
                lambda x, H: x.unflatten(2, (H, -1)).transpose(0, 2)
            ),
            "Time and width have changed places, (B, D/H, H, T); H and T do, axes 1 and 2.": lambda x, H: x.unflatten(
                2, (H, -1)
            ).transpose(1, 3),
            "The time is cut; the width is, the last axis.": lambda x, H: x.unflatten(1, (H, -1)),
            "Head h has every H-th column, h, h + H, ...; it has D/H in a row: unflatten(2, (H, -1)), H first.": (
                lambda x, H: x.unflatten(2, (-1, H)).permute(0, 3, 1, 2)
            ),
            "Head and width have changed places, (B, D/H, T, H): cut into (H, -1), H first.": lambda x, H: x.unflatten(
                2, (-1, H)
            ).transpose(1, 2),
            "Time and width have changed places, (B, H, D/H, T).": lambda x, H: x.unflatten(2, (H, -1)).permute(
                0, 2, 3, 1
            ),
            "The heads come before the batch, (H, B, T, D/H).": lambda x, H: x.unflatten(2, (H, -1)).permute(
                2, 0, 1, 3
            ),
            "Time and width have changed places before a view or reshape, which then takes a column's times for a row: cut "
            "the last axis first, then exchange two.": lambda x, H: x.transpose(1, 2).reshape(
                len(x), H, x.shape[1], -1
            ),
            "The heads are joined with the batch, (B·H, T, D/H); they have an axis of their own.": lambda x, H: (
                x.unflatten(2, (H, -1)).transpose(1, 2).flatten(0, 1)
            ),
            "A list or tuple of heads comes back; torch.stack(..., 1) makes one tensor of it.": lambda x, H: (
                x.tensor_split(H, 2)
            ),
            "The heads are in the wrong order, the last first.": lambda x, H: (
                x.unflatten(2, (H, -1)).transpose(1, 2).flip(1)
            ),
            "All heads have the first one's columns; head h has h·D/H to (h+1)·D/H.": lambda x, H: x[
                :, None, :, : x.shape[2] // H
            ].expand(-1, H, -1, -1),
            "The numbers are divided by the root of H; they stay as they are.": lambda x, H: (
                x.unflatten(2, (H, -1)).transpose(1, 2) / H**0.5
            ),
            "The numbers are divided by the root of D/H; that is attention's business, here they stay.": lambda x, H: (
                x.unflatten(2, (H, -1)).transpose(1, 2) / (x.shape[2] // H) ** 0.5
            ),
            "Each head has all D columns; D/H of them, its own.": lambda x, H: x[:, None].expand(-1, H, -1, -1),
        },
        end={"The result is cut from the graph: nothing before it would learn.": lambda heads: heads.detach()},
    ),
)
def split_heads(learner, rng):
    def authority(x, H):
        width = x.shape[2] // H
        return torch.stack([x[:, :, h * width : (h + 1) * width] for h in range(H)], 1)

    for B, T, D, H in (
        (3, 5, 8, 2),
        (2, 5, 12, 3),
        (3, 4, 6, 2),
        (3, 3, 9, 3),
        (1, 7, 8, 4),
        (2, 1, 4, 4),
        (4, 6, 5, 1),
        (2, 4, 4, 2),
    ):
        x = torch.arange(1.0, B * T * D + 1).reshape(B, T, D) * float(rng.uniform(0.5, 2))
        for words, each in (("", x), (", in double precision", x.double()), (", a view", x.mT.contiguous().mT)):
            why = f"B = {B}, T = {T}, D = {D}, H = {H}{words}"
            given = learner(each, H)
            tensor(given, why)
            expect.close(given, authority(each, H), why=why, source="its columns, head by head", dtype=each)
    by_hand = torch.tensor([[[1.0, 2, 3, 4], [5, 6, 7, 8]]])
    given = learner(by_hand, 2)
    tensor(given, "the example above")
    wanted = [[[[1, 2], [5, 6]], [[3, 4], [7, 8]]]]
    expect.equal(given, wanted, why="the example above", source="by hand")
    x = _draw(rng, 2, 5, 6)
    gradients(lambda x: learner(x, 3), lambda x: authority(x, 3), rng, why="the heads", x=x)


# ------------------------------------------------------------------------------------------------ MultiHeadAttention


def _heads(x, H):
    return x.unflatten(2, (H, -1)).transpose(1, 2)


@parts
class _Layer(nn.Module):
    def __init__(self, D, H):
        super().__init__()
        self.H = H
        self.query, self.key, self.value, self.out = (nn.Linear(D, D) for _ in range(4))

    def whose(self, x, memory):
        """Where queries, keys and values come from."""
        memory = x if memory is None else memory
        return x, memory, memory

    def project(self, x, for_keys, for_values):
        return self.query(x), self.key(for_keys), self.value(for_values)

    def split(self, x):
        return _heads(x, self.H)

    def spread(self, mask):
        return mask[:, None] if mask is not None and mask.ndim == 3 else mask

    def weigh(self, q, k, mask):
        return _masked(q @ k.mT / q.shape[-1] ** 0.5, mask)

    def merge(self, found):
        return found.transpose(1, 2).flatten(2)

    def last(self, merged, x):
        return self.out(merged)

    def end(self, output, weights):
        return output, weights

    def forward(self, x, memory=None, mask=None):
        self.batch = len(x)
        q, k, v = (self.split(each) for each in self.project(*self.whose(x, memory)))
        weights = self.weigh(q, k, self.spread(mask))
        return self.end(self.last(self.merge(weights @ v), x), weights)


def _given_or_x(memory, x):
    return x if memory is None else memory


@exercise(
    hints=[
        "memory = x if memory is None else memory; then three projections, and split_heads of each.",
        "attention(q, k, v, mask) of four axes each: a mask with three needs one more for the heads, mask[:, None]. Its "
        "output is (B, H, T, D/H); the way back is that of split_heads: exchange two axes, then join the last two.",
        "found, weights = attention(split_heads(self.query(x), self.H), split_heads(self.key(memory), self.H), "
        "split_heads(self.value(memory), self.H), mask); return self.out(found.transpose(1, 2).flatten(2)), weights",
    ],
    mistakes=_Layer.mistakes(
        spread={
            "The mask (B, T, S) is not told that there are heads: it broadcasts from the right, so each sequence's mask is "
            "taken for a head's. mask[:, None] where it has three axes.": lambda self, mask: mask,
            "The mask has no effect: attention takes it.": lambda self, mask: None,
            "The mask is turned around: True is where a query may look.": lambda self, mask: (
                None if mask is None else ~mask if mask.ndim == 2 else ~mask[:, None]
            ),
            "The axis for the heads stands second, (B, 1, T, S): mask[:, None].": lambda self, mask: (
                mask[:, :, None] if mask is not None and mask.ndim == 3 else mask
            ),
            "A mask is taken for one of sequences where its first axis is as long as the batch: T may be B. Three axes tell "
            "it: mask.ndim == 3.": lambda self, mask: (
                mask[:, None] if mask is not None and (mask.ndim == 3 or mask.shape[0] == self.batch) else mask
            ),
            "All sequences get the first one's mask.": lambda self, mask: (
                mask[:1, None] if mask is not None and mask.ndim == 3 else mask
            ),
            "A mask (T, S) gets an axis in its middle; only one of three axes needs one.": lambda self, mask: (
                None if mask is None else mask[:, None]
            ),
            "The mask is used only where there is one for each sequence; (T, S) is one for all.": lambda self, mask: (
                mask[:, None] if mask is not None and mask.ndim == 3 else None
            ),
        },
        whose={
            "The memory has no effect: keys and values come from it, where it is given.": lambda self, x, memory: (
                x,
                x,
                x,
            ),
            "memory is None where none is given: then keys and values come from x.": lambda self, x, memory: (
                x,
                memory,
                memory,
            ),
            "A memory as long as x is not used; keys and values come from it wherever it is given.": (
                lambda self, x, memory: (x, *(2 * [x if memory is None or memory.shape[1] == x.shape[1] else memory]))
            ),
            "Queries come from the memory, keys and values from x; it is the other way round.": lambda self, x, memory: (
                _given_or_x(memory, x),
                x,
                x,
            ),
            "Queries come from the memory, too; they come from x.": lambda self, x, memory: (
                (_given_or_x(memory, x),) * 3
            ),
            "Values come from x; keys and values both come from the memory.": lambda self, x, memory: (
                x,
                _given_or_x(memory, x),
                x,
            ),
            "Keys come from x; keys and values both come from the memory.": lambda self, x, memory: (
                x,
                x,
                _given_or_x(memory, x),
            ),
        },
        project={
            "Keys are made by the layer query; they have a layer of their own, key.": lambda self, x, k, v: (
                self.query(x),
                self.query(k),
                self.value(v),
            ),
            "Values are made by the layer key; they have a layer of their own, value.": lambda self, x, k, v: (
                self.query(x),
                self.key(k),
                self.key(v),
            ),
            "The layers of keys and values are exchanged.": lambda self, x, k, v: (
                self.query(x),
                self.value(k),
                self.key(v),
            ),
            "The layers of queries and keys are exchanged.": lambda self, x, k, v: (
                self.key(x),
                self.query(k),
                self.value(v),
            ),
            "The layer value is not used: values are the memory itself.": lambda self, x, k, v: (
                self.query(x),
                self.key(k),
                v,
            ),
            "The biases of query, key and value are missing: call the layers, self.query(x), not their weights alone.": (
                lambda self, x, k, v: (x @ self.query.weight.T, k @ self.key.weight.T, v @ self.value.weight.T)
            ),
            "The layers query, key and value are not used: x and memory are split as they are.": (
                lambda self, x, k, v: (x, k, v)
            ),
        },
        split={
            "The heads are cut by a view or reshape to (B, H, T, D/H), which mixes time and width: split_heads.": (
                lambda self, x: x.reshape(len(x), self.H, x.shape[1], -1)
            ),
            "Head h has every H-th column; it has D/H in a row: split_heads.": lambda self, x: x.unflatten(
                2, (-1, self.H)
            ).permute(0, 3, 1, 2),
        },
        weigh={
            "The scores are divided by the root of D; of D/H, the width of a head: attention does it.": (
                lambda self, q, k, mask: _masked(q @ k.mT / (q.shape[-1] * self.H) ** 0.5, mask)
            ),
            "The scores are not divided by the root of D/H: attention does it.": lambda self, q, k, mask: _masked(
                q @ k.mT, mask
            ),
            "The scores are divided twice, here and in attention: once is enough.": lambda self, q, k, mask: _masked(
                q @ k.mT / q.shape[-1], mask
            ),
            "The softmax is over the queries; it is over the keys: attention does it.": lambda self, q, k, mask: (
                (s := q @ k.mT / q.shape[-1] ** 0.5).softmax(-2)
                if mask is None
                else s.masked_fill(~mask, _lowest(s)).softmax(-2) * mask
            ),
            "The mask comes after the softmax: the weights no longer sum to 1. attention takes it.": (
                lambda self, q, k, mask: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) * (1 if mask is None else mask)
            ),
            "Without a mask everybody may be looked at; here nobody may look ahead.": lambda self, q, k, mask: _masked(
                q @ k.mT / q.shape[-1] ** 0.5,
                _ones(q.shape[2], k.shape[2]).tril(k.shape[2] - q.shape[2]) if mask is None else mask,
            ),
            "The mask is transposed: rows are queries, columns are keys.": lambda self, q, k, mask: _masked(
                q @ k.mT / q.shape[-1] ** 0.5,
                mask if mask is None or mask.shape[-1] != mask.shape[-2] else mask.mT,
            ),
            "All heads share one map, the mean of theirs; each has its own.": lambda self, q, k, mask: (
                _masked(q @ k.mT / q.shape[-1] ** 0.5, mask).mean(1, keepdim=True).expand(-1, self.H, -1, -1)
            ),
        },
        merge={
            "The heads are merged without exchanging the axes first: that mixes tokens. transpose(1, 2), then join the last "
            "two.": lambda self, found: found.reshape(len(found), found.shape[2], -1),
            "The merged columns are in the wrong order: head 0's first, then head 1's: transpose(1, 2).flatten(2).": (
                lambda self, found: found.permute(0, 2, 3, 1).flatten(2)
            ),
            "The heads are averaged; they are put side by side.": lambda self, found: found.mean(1).repeat(
                1, 1, self.H
            ),
            "The heads are summed; they are put side by side.": lambda self, found: found.sum(1).repeat(1, 1, self.H),
        },
        last={
            "The layer out is missing: self.out mixes the heads.": lambda self, merged, x: merged,
            "x is added to the output; the skip is outside of the layer.": lambda self, merged, x: self.out(merged) + x,
            "There is a ReLU at the end; out is the last.": lambda self, merged, x: self.out(merged).relu(),
            "out is used twice; once.": lambda self, merged, x: self.out(self.out(merged)),
            "out without its bias: self.out(...) does both.": lambda self, merged, x: merged @ self.out.weight.T,
            "out is transposed: self.out(...), not a product with its weight.": lambda self, merged, x: (
                merged @ self.out.weight + self.out.bias
            ),
        },
        end={
            "The weights are averaged over the heads; a map for each, (B, H, T, S).": lambda self, o, w: (o, w.mean(1)),
            "The output alone comes back: return output, weights.": lambda self, o, w: o,
            "Output and weights are exchanged: return output, weights.": lambda self, o, w: (w, o),
            "The weights that come back are cut from the graph.": lambda self, o, w: (o, w.detach()),
            "Only the first head's weights come back; (B, H, T, S).": lambda self, o, w: (o, w[:, :1]),
        },
    ),
    seconds=30,
    random=True,
)
def MultiHeadAttention(learner, rng):
    names = "output", "weights"

    def made(D, H):
        layer = learner(D, H)
        expect.kind(layer, nn.Module, "a module")
        shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
        four = ("query", "key", "value", "out")
        wanted = {f"{n}.{p}": (D, D) if p == "weight" else (D,) for n in four for p in ("weight", "bias")}
        likely = "__init__ stays as it was given: query, key, value and out, each nn.Linear(D, D)."
        expect.true(shapes == wanted, f"the four layers, D = {D}, H = {H}", f"yours    {shapes}", likely=likely)
        layer = layer.double()
        for p in layer.parameters():
            p.data = torch.tensor(rng.normal(size=tuple(p.shape)) / p.shape[-1] ** 0.5)
        return layer, _theirs(layer, D, H)

    shapes = [(3, 3, 4, 4, 12), (2, 3, 5, 5, 6), (2, 2, 4, 7, 8), (1, 4, 3, 6, 4), (3, 1, 5, 2, 5), (2, 5, 1, 3, 10)]
    shapes = [(*each, each[2] != each[3]) for each in shapes] + [(3, 3, 3, 3, 6, False), (2, 2, 4, 4, 6, True)]
    for B, H, T, S, D, other in shapes:
        layer, theirs = made(D, H)
        x, memory = _draw(rng, B, T, D), (_draw(rng, B, S, D) if other else None)
        said = f"B = {B}, H = {H}, T = {T}, D = {D}" + ("" if memory is None else f", memory of S = {S}")
        again = [expect.parts(layer(x, memory), names, f"two results: {said}")[0] for _ in range(2)]
        likely = "Nothing is random in this layer: is there a dropout?"
        if B == 3:
            expect.true(torch.equal(*again), f"output: the same again for the same: {said}", likely=likely)
        for shape in (None, (T, S), (B, T, S), (B, 1, S)):
            mask = None if shape is None else torch.tensor(rng.random(shape) < 0.55)
            if mask is not None:
                mask[..., 0] |= ~mask.any(-1)
            why = said + (", no mask" if mask is None else f", mask {shape}")
            given = expect.parts(layer(x, memory, mask=mask), names, f"two results: {why}")
            wanted = theirs(x, memory, mask)
            for name, mine, right in reversed(list(zip(names, given, wanted, strict=True))):
                tensor(mine, f"{name}: {why}")
                source = "nn.MultiheadAttention with the same matrices"
                likely = _of_mask(mask) if name == "weights" else _of_output
                expect.close(mine, right, why=f"{name}: {why}", source=source, dtype=x, likely=likely)
        output, _ = expect.parts(layer(x), names, f"two results: {said}, then x alone")
        why = "output: the same layer, called with neither memory nor mask after calls with both"
        likely = "Is a mask, or a memory, of the call before still used?"
        expect.close(output, theirs(x)[0], why=why, source="nn.MultiheadAttention", likely=likely)
    layer, theirs = made(6, 2)
    memory, x = _draw(rng, 3, 5, 6), _draw(rng, 3, 4, 6)
    learner(6, 3)
    _, weights = expect.parts(layer(x, memory), names, "two results: two layers")
    why = "weights: a layer of 2 heads, after another one, of 3, was made"
    likely = "H belongs to the object, self.H, not to the class."
    expect.close(weights, theirs(x, memory)[1], why=why, source="nn.MultiheadAttention", likely=likely)
    mask = torch.tensor(rng.random((3, 4, 5)) < 0.6)
    mask[..., 0] = True
    held = list(layer.parameters())
    kept = {name: p for name, p in layer.named_parameters()}

    def run(forward):
        def with_weights(x, memory, *values):
            named = dict(zip(kept, values, strict=True))
            return (
                torch.func.functional_call(layer, named, (x, memory, mask))
                if forward is layer
                else forward(x, memory, mask, named)
            )

        return with_weights

    inputs = {"x": x, "memory": memory, **{name.replace(".", " "): p.detach() for name, p in kept.items()}}
    gradients(run(layer), run(theirs), rng, why="output and weights", **inputs)
    expect.true(all(p.requires_grad for p in held), "all four layers learn")
    layer.eval()
    gradients(run(layer), run(theirs), rng, why="output and weights, in evaluation mode", **inputs)
    single = learner(6, 3)
    output, weights = expect.parts(single(x.float(), mask=mask[:, :, :4]), names, "two results in single precision")
    expect.dtype(output, x.float(), "single precision stays", likely="No tensor of another dtype is made on the way.")
    expect.dtype(weights, x.float(), "weights in single precision, too")
    empty = torch.ones(4, 4, dtype=torch.bool).tril(-1)
    output, weights = single(x.float(), mask=empty)
    likely = "A query that may look at nothing: attention gives it weights of 0. Is the softmax another one here?"
    expect.finite(weights, "a query that may look at nothing, weights", likely=likely)
    expect.close(
        weights[:, :, 0].detach(), np.zeros((3, 3, 4)), why="its weights are 0", source="attention", likely=likely
    )


def _theirs(layer, D, H):
    """nn.MultiheadAttention with the matrices of a layer, or with those in `named`; mask and results as in the course."""

    def forward(x, memory=None, mask=None, named=None):
        named = named or dict(layer.named_parameters())
        memory = x if memory is None else memory
        hidden = None
        if mask is not None:
            mask = mask if mask.ndim == 3 else mask[None]
            hidden = ~mask.expand(len(x), x.shape[1], memory.shape[1]).repeat_interleave(H, 0)
        output, weights = F.multi_head_attention_forward(
            *(each.transpose(0, 1) for each in (x, memory, memory)),
            *(D, H),
            torch.cat([named[f"{n}.weight"] for n in ("query", "key", "value")]),
            torch.cat([named[f"{n}.bias"] for n in ("query", "key", "value")]),
            *(None, None, False, 0.0),
            *(named["out.weight"], named["out.bias"]),
            attn_mask=hidden,
            average_attn_weights=False,
        )
        return output.transpose(0, 1), weights

    return forward


def _of_mask(mask):
    def likely(yours, expected):
        if yours.shape != expected.shape:
            return "The weights are what attention gives, (B, H, T, S)."
        if mask is not None and (np.abs(yours[expected == 0]) > 1e-9).any():
            return "Weight where nobody may look: does the mask reach attention, with an axis for the heads where it has three?"
        if mask is not None and ((yours == 0) & (expected > 0)).any():
            return "No weight where a query may look: is more hidden than the mask says, or along another axis?"
        return (
            "Queries from x, keys from memory, each by its layer, split_heads, attention: which of these is other here?"
        )

    return likely


def _of_output(yours, expected):
    if yours.shape != expected.shape and yours.size == expected.size:
        return ""
    if yours.shape == expected.shape and ((yours == 0) & (expected != 0)).any():
        return "Some entries are 0: there is no dropout and no ReLU in the layer, out is the last."
    return (
        "The weights are right and the output is not: values by their layer from memory, heads side by side again "
        "(transpose(1, 2), then join the last two axes), then out."
    )


# ------------------------------------------------------------------------------------------------ induction_score


def _at(weights, i, j):
    return weights[:, :, i, j]


@parts
def _induction(
    weights,
    period,
    *,
    rows=lambda T, period: torch.arange(period, T),
    columns=lambda i, period: i - period + 1,
    take=_at,
    mean=lambda found: found.mean((0, 2)),
):
    i = rows(weights.shape[-1], period)
    return mean(take(weights, i, columns(i, period)))


@exercise(
    hints=[
        "For one i the entry is weights[b, h, i, i - period + 1]. Which i are there? By hand, T = 5, period 3: 3 and 4.",
        "i = torch.arange(period, T) and weights[:, :, i, i - period + 1] is (B, H, number of i). Or a diagonal, without "
        "its first entry, for there i is period - 1.",
        "i = torch.arange(period, weights.shape[-1]); return weights[:, :, i, i - period + 1].mean((0, 2))",
    ],
    mistakes=_induction.mistakes(
        columns={
            "It looks at i - period, the token itself, one period ago; what followed it is at i - period + 1.": (
                lambda i, period: i - period
            ),
            "It looks at i - period - 1, before the token's last occurrence; what followed it is at i - period + 1.": (
                lambda i, period: i - period - 1
            ),
            "It looks at i - period + 2, one too far: what followed is at i - period + 1.": lambda i, period: (
                i - period + 2
            ),
            "It looks one place back, at i - 1; at i - period + 1.": lambda i, period: i - 1,
            "It looks at i itself; at i - period + 1.": lambda i, period: i,
        },
        rows={
            "The first i is period - 1, whose token has not been seen before (the whole diagonal?); it is period.": (
                lambda T, period: torch.arange(period - 1, T)
            ),
            "The first i is period + 1; it is period, where the first token comes again.": lambda T, period: (
                torch.arange(period + 1, T) if period + 1 < T else torch.arange(period, T)
            ),
            "The last i is missing: up to T - 1, so arange ends at T.": lambda T, period: torch.arange(
                period, max(T - 1, period + 1)
            ),
            "All i are taken, from 0 on, where i - period + 1 is negative and counts from the end.": lambda T, period: (
                torch.arange(T)
            ),
            "The diagonal's entries begin at i = period - 1, not at 0: one of them is cut, not `period`.": lambda T, period: (
                torch.arange(2 * period - 1, max(T, 2 * period - 1))
            ),
            "Only the last place counts; all from period to T - 1.": lambda T, period: torch.arange(T - 1, T),
            "Only one period counts; all i up to T - 1.": lambda T, period: torch.arange(period, min(2 * period, T)),
        },
        take={
            "Query and key are exchanged: row i is the query's, column i - period + 1 the key's.": lambda weights, i, j: (
                _at(weights, j, i)
            ),
            "It is every row with every column; only the pairs (i, i - period + 1) are wanted.": lambda weights, i, j: (
                weights[:, :, i][..., j].flatten(2)
            ),
            "Each row is divided by its sum; the weights are taken as they are.": lambda weights, i, j: _at(
                weights / weights.sum(-1, keepdim=True), i, j
            ),
            "It is divided by T, all places; by T - period, those that count.": lambda weights, i, j: (
                _at(weights, i, j) * (len(i) / weights.shape[-1])
            ),
            "It is divided by T - period + 1; by T - period, the number of i.": lambda weights, i, j: (
                _at(weights, i, j) * (len(i) / (len(i) + 1))
            ),
            "diagonal takes axes 0 and 1 where it is not told otherwise; queries and keys are axes 2 and 3.": (
                lambda weights, i, j: weights.diagonal(int(j[0] - i[0]))[..., 1:]
            ),
            "The largest weight of each row is taken, wherever it is.": lambda weights, i, j: weights[:, :, i].amax(-1),
            "It counts where the largest weight is; the mean weight itself is wanted.": lambda weights, i, j: (
                weights[:, :, i].argmax(-1) == j
            ).to(weights.dtype),
        },
        mean={
            "The heads are averaged, too: one number for each head, (H,).": lambda found: found.mean(),
            "The batch is not averaged: (H,), not (B, H).": lambda found: found.mean(2),
            "Sequences and heads are exchanged: the mean is over the batch and the places, axes 0 and 2.": (
                lambda found: found.mean((1, 2))
            ),
            "Sequences and heads are averaged, and the places are left; the mean is over axes 0 and 2.": lambda found: (
                found.mean((0, 1))
            ),
            "Weights of 0 are left out of the mean; they count.": lambda found: (
                found.sum((0, 2)) / (found > 0).sum((0, 2)).clamp(min=1)
            ),
            "Only the first sequence counts; the mean is over all.": lambda found: found[0].mean(1),
            "The median over the places is taken; the mean.": lambda found: found.mean(0).median(-1).values,
            "It is the sum over places; the mean.": lambda found: found.mean(0).sum(1),
            "It is the sum over sequences; the mean.": lambda found: found.sum(0).mean(1),
            "It is the sum; the mean over sequences and places.": lambda found: found.sum((0, 2)),
            "The largest over the places is taken; the mean.": lambda found: found.amax(2).mean(0),
        },
        together={
            "It looks at i - period - 1 (-period - 1 for -period + 1?); what followed is at i - period + 1.": {
                "rows": lambda T, period: torch.arange(period + 2, max(T, period + 2)),
                "columns": lambda i, period: i - period - 1,
            },
            "It looks at i - period - 1, before the token's last occurrence; what followed is at i - period + 1.": {
                "rows": lambda T, period: torch.arange(period + 1, max(T, period + 1)),
                "columns": lambda i, period: i - period - 1,
            },
            "The first rows are cut off before the diagonal is taken, so that its offset is another: the diagonal of all "
            "rows, and then without its first entry.": {
                "rows": lambda T, period: torch.arange(2 * period - 1, max(T, 2 * period - 1)),
                "columns": lambda i, period: i - 2 * period + 1,
            },
        },
    ),
)
def induction_score(learner, rng):
    def authority(weights, period):
        B, H, T, _ = weights.shape
        total = torch.zeros(H, dtype=weights.dtype)
        for i in range(period, T):
            total = total + weights[:, :, i, i - period + 1].sum(0)
        return total / (B * (T - period))

    for B, H, T, period in ((2, 3, 11, 4), (3, 2, 9, 5), (1, 4, 8, 7), (4, 1, 6, 2), (3, 3, 7, 1), (2, 5, 13, 3)):
        weights = torch.tensor(rng.random((B, H, T, T)))
        for each in (
            weights,
            weights.float(),
            weights.mT.contiguous().mT,
            weights.tril() / weights.tril().sum(-1, True),
            weights * torch.tensor(rng.random(weights.shape) < 0.6),
        ):
            why = f"B = {B}, H = {H}, T = {T}, period {period}"
            expect.close(learner(each, period), authority(each, period), why=why, source="place by place", dtype=each)
    by_hand = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    by_hand[0, 0, 3, 1], by_hand[0, 0, 4, 2], by_hand[0, 0, 2, 0] = 0.8, 0.4, 1.0
    given = learner(by_hand, 3)
    tensor(given, "T = 5, period 3")
    why = "T = 5, period 3, with 0.8 at (3, 1) and 0.4 at (4, 2)"
    expect.close(given, [0.6], why=why, source="by hand")
    expect.close(learner(weights, period=4), authority(weights, 4), why="period by its name", source="place by place")


# ------------------------------------------------------------------------------------------------ attention_entropy


@parts
def _entropy(
    weights,
    mask,
    *,
    nats=lambda weights: torch.special.entr(weights).sum(-1),
    count=lambda weights, mask: mask.expand(weights.shape).sum(-1),
    divide=lambda nats, n: torch.where(n > 1, nats / n.clamp(min=2).to(nats.dtype).log(), 0.0),
):
    return divide(nats(weights), count(weights, mask))


def _of_log(n, weights):
    return n.clamp(min=2).to(weights.dtype).log()


@exercise(
    hints=[
        "Three parts: the entropy of each row, the number of keys it may look at, and the quotient, 0 where n is 0 or 1.",
        "torch.special.entr(weights).sum(-1); mask.expand(weights.shape).sum(-1); ln of the number is 0 for n = 1, so "
        "n.clamp(min=2) before the log, and torch.where(n > 1, ..., 0.0).",
        "n = mask.expand(weights.shape).sum(-1); torch.where(n > 1, torch.special.entr(weights).sum(-1) / "
        "n.clamp(min=2).to(weights.dtype).log(), 0.0)",
    ],
    mistakes=_entropy.mistakes(
        together={
            "A number such as 1e-9 is 0 in float16, and 0 · ln 0 is NaN again: torch.special.entr needs none.": {
                "nats": lambda w: -(w * (w + 1e-9).log()).sum(-1),
                "divide": lambda nats, n: nats / _of_log(n, nats),
            }
        },
        nats={
            "0 · ln 0 is NaN for the computer and 0 for the entropy: torch.special.entr knows that.": lambda w: (
                -(w * w.log()).sum(-1)
            ),
            "The sign is missing: -sum of w ln w is positive.": lambda w: -torch.special.entr(w).sum(-1),
            "The mean over the keys is taken; the sum.": lambda w: torch.special.entr(w).mean(-1),
            "The sum is over the queries; each row, so the last axis.": lambda w: (
                torch.special.entr(w).sum(-2)
                if w.shape[-1] == w.shape[-2]
                else torch.special.entr(w).sum((-2, -1))[..., None]
            ),
            "ln of a weight plus a number that is not small (0.001 or more) is another entropy: torch.special.entr needs "
            "none.": lambda w: -(w * (w + 1e-3).log()).sum(-1),
            "Logarithms to base 2 above, natural ones below: the same for both.": lambda w: (
                torch.special.entr(w).sum(-1) / math.log(2)
            ),
            "The sum is over axis 2; over the last, which is not always that: -1.": lambda w: torch.special.entr(w).sum(
                2
            ),
            "A number such as 1e-9 is 0 in float16, and 0 · ln 0 is NaN again: torch.special.entr needs none.": lambda w: (
                -(w * (w + 1e-9).log()).sum(-1)
            ),
            "That is the sum of squares, not the entropy.": lambda w: (w**2).sum(-1),
            "That is -ln w without the weights before it.": lambda w: -(w.clamp(min=1e-12).log()).sum(-1),
        },
        count={
            "It divides by ln of S, all keys; by ln of those that this query may look at.": lambda w, mask: torch.full(
                w.shape[:-1], w.shape[-1]
            ),
            "n counts the keys with a weight above 0; those that may be looked at count, and a weight of one may be 0.": (
                lambda w, mask: (w > 0).sum(-1)
            ),
            "The mask is turned around: True is where a query may look.": lambda w, mask: (
                (~mask).expand(w.shape).sum(-1)
            ),
            "n is t + 1, as under a causal mask; the mask that is given tells it.": lambda w, mask: torch.arange(
                1, w.shape[-2] + 1
            ),
            "n is that of the row that may look at most; each row has its own.": lambda w, mask: (
                mask.expand(w.shape).sum(-1).amax()
            ),
            "n is that of the whole mask; each row has its own.": lambda w, mask: mask.sum(),
            "n is that of the last row; each row has its own.": lambda w, mask: mask.expand(w.shape)[..., -1:, :].sum(
                -1
            ),
            "n is that of all queries together; each row has its own.": lambda w, mask: (
                mask.expand(w.shape).sum((-2, -1))[..., None].expand(w.shape[:-1])
            ),
            "The mask is summed over the queries; over the keys, the last axis.": lambda w, mask: (
                mask.expand(w.shape).sum(-2)
                if w.shape[-1] == w.shape[-2]
                else mask.expand(w.shape).sum((-2, -1))[..., None].expand(w.shape[:-1])
            ),
        },
        divide={
            "It is not divided by ln n: alike for all keys is to give 1.": lambda nats, n: nats,
            "It is divided by n; by ln n.": lambda nats, n: nats / n.clamp(min=1),
            "ln of n, whole numbers, is float32, and so is the result for float16: n.to(weights.dtype) first.": lambda nats, n: (
                torch.where(n > 1, nats / n.clamp(min=2).log(), 0.0)
            ),
            "Rows that may look at one key or none are left out; there the result is 0: torch.where keeps the shape.": (
                lambda nats, n: nats[n > 1] / n[n > 1].to(nats.dtype).log()
            ),
            "Where n is 1, ln n is 0, and 0 / 0 is NaN: there the result is 0.": lambda nats, n: (
                nats / n.to(nats.dtype).log()
            ),
            "The logarithm of n + 1 is not 0 for n = 1, but wrong for all others.": lambda nats, n: (
                nats / (n + 1).to(nats.dtype).log()
            ),
            "Where only one key may be looked at the result is 0, not 1.": lambda nats, n: torch.where(
                n > 1, nats / _of_log(n, nats), 1.0
            ),
            "It is 1 minus that: 0 for one key, 1 for all alike.": lambda nats, n: (
                1 - torch.where(n > 1, nats / _of_log(n, nats), 0.0)
            ),
            "exp of the entropy is a number of keys; the entropy divided by ln n is wanted.": lambda nats, n: (
                nats.exp() / n.clamp(min=1)
            ),
        },
        returns={
            "One number for all rows comes back; one for each query, (..., T).": lambda found: found.mean(),
            "The last axis is kept with length 1: (..., T), without keepdim.": lambda found: found[..., None],
        },
    ),
)
def attention_entropy(learner, rng):
    import scipy.special

    def authority(weights, mask):
        w = weights.detach().double().numpy()
        n = np.broadcast_to(mask.numpy(), w.shape).sum(-1)
        return np.where(n > 1, scipy.special.entr(w).sum(-1) / np.log(np.maximum(n, 2)), 0.0)

    def rows(mask, shape, sharp):
        mask = mask.expand(shape)
        return _masked(sharp * torch.tensor(rng.normal(size=shape)), mask)

    def compare(weights, mask, why, likely="", atol=2e-6):
        given = learner(weights, mask)
        tensor(given, why)
        source = "scipy.special.entr over ln n"
        expect.close(given, authority(weights, mask), why=why, source=source, dtype=weights, atol=atol, likely=likely)

    for shape, of_mask in (
        ((2, 3, 4, 6), (4, 6)),
        ((5, 7), (5, 7)),
        ((2, 2, 5, 5), (2, 1, 1, 5)),
        ((3, 4, 5), (3, 1, 5)),
        ((2, 3, 2, 4), (2, 3, 2, 4)),
        ((1, 3, 3), (3, 3)),
    ):
        mask = torch.tensor(rng.random(of_mask) < 0.6)
        mask[..., 1] = True
        for sharp in (0.3, 2.0, 60.0):
            weights = rows(mask, shape, sharp)
            compare(weights, mask, f"weights {shape}, mask {of_mask}, scores {sharp:g} apart")
        compare(rows(mask, shape, 1.0).float(), mask, f"weights {shape}, mask {of_mask}, in single precision")
    four = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    compare(four, torch.ones(3, 4, dtype=torch.bool), "two of four keys alike, all four alike, one alone: 0.5, 1, 0")
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    even = causal.double() / causal.sum(1, keepdim=True)
    compare(even, causal, "all that may be looked at alike, causal mask: 1, and 0 for the first row, with one key")
    mask = causal.clone()
    mask[2] = False
    compare(rows(mask, (2, 5, 5), 1.0), mask, "a query that may look at nothing: 0")
    likely = "mask.expand(weights.shape) first: a mask that broadcasts may have fewer columns than there are keys."
    whole = torch.tensor([[True], [False], [True], [True]])
    compare(rows(whole, (2, 4, 6), 1.0), whole, "a mask (T, 1), for all keys alike", likely)
    for dtype in (torch.bfloat16, torch.float16):
        compare(rows(causal, (2, 5, 5), 1.0).to(dtype), causal, f"weights of {dtype}", atol=0.03)
