"""What wrong numbers say about how they came about: one sentence, a fact that was computed and then a question.

For mistakes that no author foresaw. Each function takes the learner's result and the right one, and what the function
was given (name → array); it returns "" where it sees nothing. A fact is stated only where the numbers bear it out.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Inputs = dict[str, np.ndarray]


def number(value: Any) -> str:
    """A number as short as it is telling."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.3f}" if 1e-2 <= abs(value) < 1e3 or value == 0 else f"{value:.3g}"
    return f"{value:.3g}" if isinstance(value, complex) else str(value)


# ------------------------------------------------------------------------------------------------ types


def of_types(yours: Any) -> str:
    """Something that is no array of numbers came where one is wanted."""
    if isinstance(yours, tuple):
        return f"It is a tuple of {len(yours)}: a comma too many, or several results where one is wanted?"
    if callable(yours):
        return "It is a function or class: are the parentheses after its name missing?"
    if hasattr(yours, "__next__"):
        return "It is a generator: a `yield` for a `return`, or round parentheses for square ones?"
    if isinstance(yours, list):
        return "Its rows are of different lengths, or not of numbers: what is appended in the loop?"
    return ""


def of_dtypes(yours: np.dtype, kind: type) -> str:
    """The entries are of another kind than wanted."""
    if kind is float and yours.kind in "iu":
        return "Whole numbers cut fractions off: / for //, or .astype(float)?"
    if kind is bool:
        return "As a mask, numbers pick entries by position; a comparison such as x > 0 gives True and False."
    if yours.kind == "b":
        return "A comparison gives True and False: .astype makes numbers of them."
    return ""


def of_nonfinite(yours: np.ndarray, warned: set[str]) -> str:
    """NaN or infinity came where numbers are wanted; `warned` is what NumPy said on the way."""
    heard = " ".join(warned)
    if "overflow encountered in exp" in heard:
        return "exp of a large number overflows (from 710 on): subtract the largest first, or use only exp(−|z|)?"
    if "divide by zero encountered in log" in heard or "invalid value encountered in log" in heard:
        return "The logarithm met 0 or less: where can its argument reach 0?"
    if "invalid value encountered in sqrt" in heard:
        return "A square root met a negative number."
    if "divide" in heard:
        return "Something is divided by 0: which denominator can be 0?"
    return "Overflow (exp of a large number), a logarithm of 0, or 0/0 gives such entries: where can one arise?"


# ------------------------------------------------------------------------------------------------ shapes


def of_shapes(yours: tuple, expected: tuple, inputs: Inputs) -> str:
    """Two shapes that differ, where the right values are not known."""
    sizes = [value.shape for value in inputs.values() if value.ndim == 2]
    if len(yours) >= 2 and yours == expected[::-1]:
        return "The axes are swapped: is a transpose missing, or one too many?"
    if len(yours) == 2 and yours[0] == yours[1] and expected in ((yours[0],), (yours[0], 1), (1, yours[0])):
        n = yours[0]
        return f"Did ({n},) meet ({n}, 1)? They broadcast to ({n}, {n}): give both the same shape."
    if tuple(n for n in yours if n != 1) == tuple(n for n in expected if n != 1):
        if len(yours) > len(expected):
            return "There is an axis of length 1 too many: keepdims=True, or a [:, None] or [None], that should not be?"
        return "An axis of length 1 is missing: keepdims=True, or [:, None]?"
    if not yours:
        return "It is a single number: is an axis= missing in a sum, mean or max, or an index too many?"
    if yours == expected[1:]:
        return "The first axis is gone: is the return inside the loop, or is there an index or a sum over it too many?"
    if yours[1:] == expected and expected:
        return "There is a first axis too many: is a sum or mean over it missing?"
    if len(yours) == len(expected) == 1 and any({*yours, *expected} == {*shape} for shape in sizes):
        return "It has the length of the other axis: is axis=0 meant for axis=1, or the reverse?"
    if len(yours) == len(expected):
        off = [axis for axis, (a, b) in enumerate(zip(yours, expected, strict=True)) if a != b]
        taken = [name for name, value in inputs.items() if len(off) == 1 and yours[off[0]] in value.shape]
        if taken and yours[off[0]] > 1:
            axis = f"Axis {off[0]} is as long as one of {taken[0]}"
            return f"{axis}: should a sum or product have run over that one, and not over another?"
        if len(off) == 1 and abs(yours[off[0]] - expected[off[0]]) == 1:
            more = "more" if yours[off[0]] > expected[off[0]] else "fewer"
            return f"There is one entry {more} along axis {off[0]}: look at both ends of the range or slice."
    if math.prod(yours) == math.prod(expected):
        return "The number of entries is right, their arrangement is not: look at reshape and transpose."
    if len(yours) < len(expected):
        return "An axis is lost: is there a sum, mean or index over an axis that should stay?"
    if len(yours) > len(expected):
        return "There is an axis too many: is a sum or mean over it missing?"
    return "Write the shape of each intermediate result beside its line: where does it go another way?"


def of_arrangement(yours: np.ndarray, expected: np.ndarray, inputs: Inputs) -> str:
    """Shapes differ and the right values are known: looks whether the numbers are there in another arrangement."""
    shaped = of_shapes(yours.shape, expected.shape, inputs)
    if not yours.size or not expected.size:
        return "It is empty." if not yours.size else shaped
    if yours.ndim == expected.ndim and _agree(yours.T, expected):
        return "It is the transpose of the right result."
    if _agree(yours.squeeze(), expected.squeeze()):
        return f"The numbers are right. {shaped}"
    for verb, axis, reduced in _reductions(expected):
        if _agree(yours.squeeze(), reduced.squeeze()):
            return f"It is the right result {verb} over {axis}: is an axis= wrong or missing, or a sum too many?"
    for verb, axis, reduced in _reductions(yours):
        if axis != "all axes" and _agree(reduced.squeeze(), expected.squeeze()):
            return f"It would be right {verb} over {axis}: is that missing?"
    if expected.ndim > yours.ndim:
        for which, row in (("first", expected[0]), ("last", expected[-1])):
            if _agree(yours, row):
                return f"It is the {which} row of the right result: a return inside the loop, or a row overwritten?"
    for which, rest in (("first", expected[1:]), ("last", expected[:-1])) if expected.ndim else ():
        if _agree(yours, rest):
            return f"The {which} entry along axis 0 is missing, the rest is right: look at both ends of the range."
    if yours.ndim == 2 and yours.shape[0] == yours.shape[1] and _agree(np.diagonal(yours), expected.squeeze()):
        return "The right numbers are on the diagonal: every row was combined with every other, not with its own."
    if yours.size == expected.size and _agree(yours.reshape(expected.shape), expected):
        return (
            f"The numbers and their order are right, the shape is not: .reshape({', '.join(map(str, expected.shape))})?"
        )
    return shaped


def _reductions(values: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    axes = [(f"axis {axis}", axis) for axis in range(values.ndim) if values.shape[axis] > 1]
    for name, axis in [*axes, *([("all axes", None)] if values.ndim > 1 else [])]:
        yield from (("summed", name, values.sum(axis)), ("averaged", name, values.mean(axis)))


# ------------------------------------------------------------------------------------------------ values


def of_values(yours: np.ndarray, expected: np.ndarray, good: np.ndarray, inputs: Inputs) -> str:
    """Same shape, other values: how they hang together, tried from the telling to the vague.

    good: where an entry is right. The order matters: the first that fits is said.
    """
    if yours.dtype.kind == "b" and expected.dtype.kind != "b" and not np.isin(expected, (0, 1)).all():
        return "It is True and False where numbers are wanted: is the comparison only half of the step?"
    if "c" in (yours.dtype.kind, expected.dtype.kind):
        return "It is the complex conjugate." if _agree(yours, np.conj(expected)) else ""
    if expected.dtype.kind in "iu" and (yours % 1).any():
        return "Whole numbers are wanted here, positions or counts: max for argmax, or / for //?"
    whole = yours.dtype.kind in "iu" and expected.dtype.kind == "f"
    yours, expected = yours.astype(float), expected.astype(float)
    inputs = {name: value.astype(float) for name, value in inputs.items() if value.dtype.kind in "biuf"}
    with np.errstate(all="ignore"):
        if whole and (_agree(yours, np.trunc(expected)) or _agree(yours, np.round(expected))):
            return "The entries are whole numbers: is an integer array or // cutting off the fractions?"
        for reading in (_plain_slips, _order, _transformed, _normalised, _with_input, _factor, _step, _shift):
            if said := reading(yours, expected, inputs):
                return said
        return _where(yours, expected, good, inputs) or _nearly(yours, expected)


def _agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree to about single precision, measured by the larger entries."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or not np.isfinite(a).all() or not np.isfinite(b).all():
        return False
    return np.allclose(a, b, 1e-4, 1e-6 * max(float(np.abs(b).max(initial=0)), 1e-12))


def _plain_slips(yours: np.ndarray, expected: np.ndarray, inputs: Inputs) -> str:
    if not yours.any():
        return "Every entry is 0: is the result ever filled in?" if yours.size > 1 else "It is 0: is anything added up?"
    for name, value in inputs.items():
        if yours.size > 1 and _agree(yours, value):
            return f"It is {name} as it was given: is the result of the computation stored and returned?"
    if _agree(yours, -expected):
        return "Right size, wrong sign: look at each minus."
    if yours.size > 2 and _agree(yours, np.full(yours.shape, yours.flat[0])) and np.ptp(expected) > 0:
        return f"Every entry is the same, {number(yours.flat[0])}: does each depend on its own input?"
    return ""


def _order(yours: np.ndarray, expected: np.ndarray, inputs: Inputs) -> str:
    """The right entries in other places."""
    if yours.size < 3:
        return ""
    if _agree(yours, expected.T):
        return "It is the transpose of the right result."
    for axis in range(yours.ndim):
        mine, right = np.moveaxis(yours, axis, 0), np.moveaxis(expected, axis, 0)
        if len(mine) < 3:
            continue
        if _agree(mine, right[::-1]):
            return f"It is in reverse order along axis {axis}."
        for ahead in (1, -1):
            if _agree(mine[1:-1], np.roll(right, ahead, 0)[1:-1]) and np.ptp(right[:-1] - right[1:]) > 0:
                direction = "later" if ahead == 1 else "earlier"
                return f"Every entry stands one place too far {direction} along axis {axis}: is an index off by one?"
    if _agree(np.sort(yours.ravel()), np.sort(expected.ravel())):
        return "The entries are right, their order is not."
    return ""


def _normalised(yours: np.ndarray, expected: np.ndarray, inputs: Inputs) -> str:
    """The right result adds up to 1 (or has mean 0) along an axis, this one along another, or nowhere."""
    for fact, measure, value in (("add up to 1", np.sum, 1.0), ("have mean 0", np.mean, 0.0)):

        def holds(a, axis, measure=measure, value=value):
            return np.allclose(measure(a, axis), value, 0, 1e-4)

        def along(axis):
            return {1: "the entries", 2: "the columns" if axis == 0 else "the rows"}.get(
                yours.ndim, f"the lines on axis {axis}"
            )

        axes = [axis for axis in range(yours.ndim) if yours.shape[axis] > 1]
        for axis in axes:
            if not holds(expected, axis) or holds(yours, axis):
                continue
            for other in axes:
                if other != axis and holds(yours, other) and not holds(expected, other):
                    return f"In yours {along(other)} {fact}, where {along(axis)} should: is it the wrong axis?"
            if value and yours.ndim > 1 and holds(yours, None):
                return f"In yours all entries together {fact}, where {along(axis)} should: is an axis= missing?"
            if value:
                return f"Right is that {along(axis)} {fact}, and yours do not: is the division by the sum left out?"
    return ""


def _with_input(yours: np.ndarray, expected: np.ndarray, inputs: Inputs) -> str:
    """One of the inputs, added or multiplied once more or once less, would make it right."""
    if yours.size == 1 and not _telling(yours, expected):
        return ""
    for name, value in inputs.items():
        for operand in _fitted(value, yours.shape):
            if _agree(yours + operand, expected):
                return f"Adding {name} would make it right: is it left out?"
            if _agree(yours - operand, expected):
                return f"Without {name} added it would be right: is it counted once too often?"
            if _agree(yours + 2 * operand, expected) or _agree(yours - 2 * operand, expected):
                return f"It is off by twice {name}: is the sign before it wrong?"
            if _agree(yours + expected, operand) and expected.any():
                return f"Together with the right result it makes {name}: is it the other of two parts?"
            if _agree(yours * operand, expected):
                return f"Multiplied by {name} it would be right: is that factor left out?"
            if operand.all() and _agree(yours / operand, expected):
                return f"Divided by {name} it would be right: is a division left out, or a factor too many?"
            if _agree(yours * operand**2, expected) or (operand.all() and _agree(yours / operand**2, expected)):
                return f"It is off by {name} squared: is it multiplied where it should divide, or a square left out?"
    return ""


def _fitted(value: np.ndarray, shape: tuple) -> Iterator[np.ndarray]:
    """`value` as it broadcasts against `shape` without enlarging it: as it is, and as a column."""
    for each in (value, value[..., None]) if value.ndim else (value,):
        try:
            if np.broadcast_shapes(each.shape, shape) == shape:
                yield each
        except ValueError:
            continue


def _telling(yours: np.ndarray, expected: np.ndarray) -> bool:
    """Whether two lone numbers have digits enough that a relation between them is no accident."""
    return not all(float(round(value.item(), 2)) == value.item() for value in (yours, expected))


def _factor(yours: np.ndarray, expected: np.ndarray, inputs: Inputs) -> str:
    """A common factor, and where it may come from."""
    factor = _ratio(yours, expected)
    if factor is None:
        return ""
    source = _source(factor, inputs)
    if yours.size > 1:
        return f"Every entry is {factor:.4g} times the right one{source or ': a factor is missing or one too many.'}"
    return f"It is {factor:.4g} times the right number{source}" if source else ""


def _ratio(yours: np.ndarray, expected: np.ndarray) -> float | None:
    """The common factor from `expected` to `yours`, or None."""
    norm = float((expected * expected).sum())
    factor = float((yours * expected).sum()) / norm if norm > 0 else 0.0
    return factor if factor and _agree(yours, factor * expected) else None


def _source(factor: float, inputs: Inputs) -> str:
    """Where a factor may come from: a length, its square root, n−1 for n, an input, one of a few constants."""
    known = {}
    for name, value in inputs.items():
        if value.size == 1:
            known.setdefault(abs(value.item()), f"the value of {name}")
        for axis, n in enumerate(value.shape):
            if n > 1:
                known.setdefault(n, f"the length of axis {axis} of {name}")
                known.setdefault(math.sqrt(n), f"the square root of {n}, the length of axis {axis} of {name}")
                for ratio, root in ((n / (n - 1), ""), (math.sqrt(n / (n - 1)), "the root of ")):
                    known.setdefault(ratio, f"{root}{n}/{n - 1}: n − 1 (ddof=1) against n along axis {axis} of {name}")
        if value.ndim > 1:
            known.setdefault(value.size, f"the number of entries of {name}")
    known.setdefault(2, "2, as in ½ or in the derivative of a square")
    known |= {math.log(2): "ln 2: the base of a logarithm", math.log(10): "ln 10: the base of a logarithm"}
    for value, name in known.items():
        if value not in (0, 1) and math.isclose(abs(factor), value, rel_tol=1e-4):
            return f"; that is {name}. Is a division by it left out, or a factor too many?"
        if value not in (0, 1) and math.isclose(abs(factor), 1 / value, rel_tol=1e-4):
            return f"; that is 1 over {name}. Is that factor left out, or a division by it one too many?"
    return ""


def _step(yours: np.ndarray, expected: np.ndarray, inputs: Inputs) -> str:
    """Seen from an input that is to be updated: the step is right but for its length or direction."""
    for name, value in inputs.items():
        if value.shape != yours.shape or (yours.size == 1 and not _telling(yours, expected)):
            continue
        factor = _ratio(yours - value, expected - value) if (expected != value).all() else None
        if factor is not None and math.isclose(factor, -1, rel_tol=1e-4):
            return f"From {name} it goes the right distance in the wrong direction: + and − swapped?"
        if factor is not None and (yours.size > 1 or _source(factor, inputs)):
            source = _source(factor, inputs) or ": a factor of the step is missing or one too many."
            return f"From {name} its step is {factor:.4g} times the right one{source}"
    return ""


def _shift(yours: np.ndarray, expected: np.ndarray, inputs: Inputs) -> str:
    """One number added everywhere, or one for each row or column."""
    difference = yours - expected
    if yours.size > 1 and _agree(yours, expected + difference.mean()):
        return f"Every entry is off by the same {difference.flat[0]:.4g}: a term is missing or one too many."
    for axis, lines in ((1, "row"), (0, "column")) if yours.ndim == 2 and min(yours.shape) > 1 else ():
        if _agree(yours, expected + difference.mean(axis, keepdims=True)):
            return f"Each {lines} is off by one number of its own: a term that is the same along a {lines}."
        ratio = (yours * expected).sum(axis, keepdims=True) / (expected * expected).sum(axis, keepdims=True)
        if _agree(yours, expected * ratio):
            return f"Each {lines} is off by one factor of its own: what multiplies or divides whole {lines}s?"
    return ""


_TRANSFORMS = {
    "the exponential of the right result": np.exp,
    "the logarithm of the right result": np.log,
    "the square of the right result": np.square,
    "the square root of the right result: is a square left out, or a root too many": np.sqrt,
    "1 divided by the right result": np.reciprocal,
    "1 minus the right result: is it the other of two cases": lambda a: 1 - a,
    "the right result without its signs": np.abs,
    "the right result with its negative entries set to 0": lambda a: np.maximum(a, 0),
    "the sign of the right result": np.sign,
    "the running sum of the right result": lambda a: np.cumsum(a, -1),
    "the right result with −1 and +1 turned into 0 and 1": lambda a: np.where(np.abs(a) == 1, (a + 1) / 2, np.nan),
    "the right result with 0 and 1 turned into −1 and +1": lambda a: np.where((a == 0) | (a == 1), 2 * a - 1, np.nan),
    "the right result rounded": np.round,
    "the right result with its fractions cut off": np.trunc,
}


def _transformed(yours: np.ndarray, expected: np.ndarray, inputs: Inputs) -> str:
    if yours.size == 1 and not _telling(yours, expected):
        return ""
    for name, function in _TRANSFORMS.items():
        if _agree(yours, function(expected)):
            return f"It is {name}{'?' if ':' in name else '.'}"
    return ""


def _where(yours: np.ndarray, expected: np.ndarray, good: np.ndarray, inputs: Inputs) -> str:
    """Some entries are right: what sets the wrong ones apart."""
    bad = ~good
    if not good.any():
        return ""
    count = f"{bad.sum()} of {good.size} entries are wrong"
    sets = [("the right result is negative", expected < 0), ("the right result is positive", expected > 0)]
    for name, value in inputs.items():
        if value.shape == yours.shape:
            sets += [
                (f"{name} is negative", value < 0),
                (f"{name} is positive", value > 0),
                (f"{name} is 0", value == 0),
            ]
    for words, mask in sets:
        if bad.sum() > 1 and (bad == mask).all():
            return f"{count}: just those where {words}."
    for axis in range(good.ndim if good.ndim > 1 else 0):
        wrong = np.flatnonzero(np.moveaxis(bad, axis, 0).reshape(good.shape[axis], -1).any(1))
        name = ("Row", "Column")[axis] if good.ndim == 2 else f"Index on axis {axis}:"
        if len(wrong) == good.shape[axis] - 1:
            (only,) = {*range(good.shape[axis])} - {*wrong.tolist()}
            return f"Only {name.lower()} {only} is right: is the loop left too early, or the index not used?"
        if len(wrong) < good.shape[axis] - 1:
            listed = ", ".join(map(str, wrong[:6])) + (" …" if len(wrong) > 6 else "")
            return f"{name} {listed} of {good.shape[axis]} wrong: what sets them apart?"
    return f"{count}: what sets them apart?"


def _nearly(yours: np.ndarray, expected: np.ndarray) -> str:
    if np.allclose(yours, expected, 0.02, 1e-3 * float(np.abs(expected).max(initial=0))):
        return "Nearly right: is a small term (an epsilon, n − 1 for n) missing or in another place?"
    return ""
