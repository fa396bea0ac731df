"""What wrong numbers say about how they came about: one sentence, a fact that was computed and then a question.

For mistakes that no author foresaw. Each function takes the learner's result and the right one, what the function was
given (name → array) and the learner's code; it returns "" where it sees nothing. A fact is stated only where the
numbers bear it out, a guess only as a question, and a way of writing (`keepdims=True`, a loop) is named only where it
is in the code.
"""

import ast
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlas.checking.written import Written

Inputs = dict[str, np.ndarray]
_ANY = Written()
"""Code that cannot be read: anything may be in it."""


def number(value: Any) -> str:
    """A number as short as it is telling."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.3f}" if 1e-2 <= abs(value) < 1e3 or value == 0 else f"{value:.3g}"
    return f"{value:.3g}" if isinstance(value, complex) else str(value)


def _ask(code: Written, *ways: tuple[str, tuple[str, ...]], otherwise: str = "") -> str:
    """The question for those ways of writing that are in the code: what to ask, and the words that show it."""
    found = [question for question, words in ways if not words or code.has(*words)]
    return f": {', or '.join(found)}?" if found else otherwise


# ------------------------------------------------------------------------------------------------ types


def of_types(yours: Any) -> str:
    """Something that is no array of numbers came where one is wanted."""
    if isinstance(yours, tuple):
        return f"It is a tuple of {len(yours)}: a comma too many, or several results where one is wanted?"
    if inspect.isroutine(yours) or inspect.isclass(yours):
        kind = "class" if inspect.isclass(yours) else "function"
        return f"It is a {kind}, not what it gives: are the parentheses after its name missing?"
    if isinstance(yours, dict):
        return "It is a dict, and its values are what could be an array: which of them is meant?"
    if isinstance(yours, list):
        return _of_list(yours)
    return ""


def _of_list(yours: list) -> str:
    for kind, name in ((type(None), "None"), (str, "text")):
        at = [i for i, entry in enumerate(yours) if isinstance(entry, kind)]
        if at:
            return f"Entry {at[0]} of the list is {name}: what is appended there?"
    lengths = {len(entry) if hasattr(entry, "__len__") else 0 for entry in yours}
    if len(lengths) > 1:
        return (
            f"Its rows have between {min(lengths)} and {max(lengths)} entries: what is appended in the loop, and when?"
        )
    return ""


def of_dtypes(yours: np.dtype, kind: type) -> str:
    """The entries are of another kind than wanted."""
    if kind is float and yours.kind in "iu":
        return "Whole numbers hold no fractions: / for //, or .astype(float)?"
    if kind is bool:
        return "As a mask, numbers pick entries by position; a comparison such as x > 0 gives True and False."
    if yours.kind == "b":
        return "A comparison gives True and False: .astype makes numbers of them."
    return ""


def of_other_dtype(yours: str, wanted: str, came: dict[str, str], stays: bool, code: Written = _ANY) -> str:
    """The numbers are right, their dtype is not (or, `stays` false, what should be a tensor is none); `came` is the
    dtype of each input."""
    if not stays:
        asked = _ask(
            code,
            ("a .numpy() or an np. function on the way", ("numpy", "np")),
            ("a list", ("List", "ListComp", "tolist")),
        )
        return f"A tensor is wanted, and this is none, so that no gradient flows through it{asked}"
    fact = f"{wanted} came in and {yours} goes out" if {*came.values()} == {wanted} else f"It is {yours}, not {wanted}"
    if wanted.startswith("float") and "int" in yours:
        return f"{fact}, which holds no fractions: / for //, or the dtype of the array that is filled?"
    if yours == "float64":
        ways = (
            ("an array of NumPy's default, float64, on the way", ()),
            ("a .double() or dtype=float", ("double", "float64")),
        )
        return fact + _ask(code, *ways)
    ways = (
        ("a dtype= or .astype on the way", ("dtype", "astype", "to", "type")),
        ("a .float() or .half()", ("float", "half", "float32")),
    )
    return fact + _ask(code, *ways, otherwise=".")


_OVERFLOWS = {2: 12, 4: 89, 8: 710}
"""Bytes of a number → from where on its exp is infinite."""


def of_nonfinite(yours: np.ndarray, warned: set[str], code: Written = _ANY) -> str:
    """NaN or infinity came where numbers are wanted; `warned` is what NumPy said on the way."""
    heard = " ".join(sorted(warned))
    if "overflow encountered in exp" in heard:
        begin = _OVERFLOWS.get(yours.dtype.itemsize, 710)
        return f"exp of a large number overflows (from {begin} on): subtract the largest first, or use only exp(−|z|)?"
    if "divide by zero encountered in log" in heard or "invalid value encountered in log" in heard:
        return "The logarithm met 0 or less: where can its argument reach 0?"
    if "invalid value encountered in sqrt" in heard:
        return "A square root met a negative number: where can its argument fall below 0?"
    if "divide by zero" in heard:
        return "Something is divided by 0: which denominator can be 0?"
    if "invalid value encountered in" in heard and "divide" in heard:
        return "0/0, or infinity by infinity, gives NaN: which denominator can be 0, or what grows without end?"
    causes = [
        words
        for words, signs in (
            ("exp of a large number", ("exp", "softmax", "logsumexp", "cosh", "sinh")),
            ("a logarithm of 0", ("log", "log2", "log10", "log1p")),
            ("a root of a negative number", ("sqrt",)),
            ("a division by 0", ("Div", "div", "divide", "true_divide", "reciprocal")),
        )
        if code.has(*signs)
    ]
    return f"Such entries come of {' or '.join(causes)}: where can that arise?" if causes else ""


# ------------------------------------------------------------------------------------------------ shapes

_KEPT = ("keepdims=True that should not be", ("keepdims", "keepdim"))
_TAKEN = ("squeeze, which takes away every such axis", ("squeeze",))
_ADDED = ("a [:, None] or [None] too many", ("newaxis", "unsqueeze", "expand_dims", "reshape", "view"))
_NONE = ("is the None in [:, None] on the other side", ("newaxis", "unsqueeze", "expand_dims"))
_TURNED = ("are two axes exchanged that should stay", ("transpose", "permute", "swapaxes", "moveaxis", "T", "mT"))
_SUMMED = (
    "sum",
    "mean",
    "max",
    "min",
    "argmax",
    "argmin",
    "norm",
    "prod",
    "std",
    "var",
    "logsumexp",
    "average",
    "any",
    "all",
)
_PRODUCTS = ("MatMult", "matmul", "mm", "bmm", "dot", "tensordot", "einsum")
_AXIS = ("is an axis= missing or wrong in a sum, mean or max", _SUMMED)
_INDEXED = ("an index too many", ("Subscript", "item"))
_RETURN = ("is the return inside the loop", ("return in a loop",))
_FILTER = ("is a filter too strict", ("Compare", "where", "nonzero", "argwhere", "isin"))
_LOOP = ("a loop never entered", ("For", "While", "ListComp", "GeneratorExp"))


def of_shapes(yours: tuple, expected: tuple, inputs: Inputs, code: Written = _ANY) -> str:
    """Two shapes that differ, where the right values are not known."""
    sizes = [value.shape for value in inputs.values() if value.ndim == 2]
    if not expected and math.prod(yours) == 1:
        fact = "It is an array with one entry where a lone number is wanted, and would broadcast"
        return fact + _ask(code, _KEPT, _ADDED, otherwise=": .sum() or .item() makes a number of it, or [0].")
    if len(yours) >= 2 and yours == expected[::-1]:
        return "The axes are swapped: is a transpose missing, or one too many?"
    if len(yours) == 2 and yours[0] == yours[1] > 1 and expected in ((yours[0],), (yours[0], 1), (1, yours[0])):
        n = yours[0]
        return f"Did ({n},) meet ({n}, 1)? They broadcast to ({n}, {n}): give both the same shape."
    if [n for n in yours if n != 1] == [n for n in expected if n != 1]:
        if len(yours) == len(expected):
            return "The axis of length 1 stands in another place" + _ask(code, _NONE, _TURNED, otherwise=".")
        if len(yours) > len(expected):
            return "There is an axis of length 1 too many" + _ask(code, _KEPT, _ADDED, otherwise=": .squeeze()?")
        return "An axis of length 1 is missing" + _ask(code, _TAKEN, otherwise=": keepdims=True, or [:, None]?")
    if not yours:
        return "It is a single number" + _ask(code, _AXIS, _INDEXED, otherwise=", where an array is wanted.")
    if len(yours) + 1 == len(expected) and _without(expected, yours) == [0]:
        return "The first axis is gone" + _ask(code, _RETURN, _INDEXED, _AXIS, otherwise=".")
    if len(yours) == len(expected) + 1 and expected and _without(yours, expected) == [0]:
        return "There is a first axis too many: is a sum or mean over it missing?"
    if len(yours) == len(expected) == 1 and any({*yours, *expected} == {*shape} for shape in sizes):
        return "It has the length of the other axis: is axis=0 meant for axis=1, or the reverse?"
    if len(yours) == len(expected):
        off = [axis for axis, (a, b) in enumerate(zip(yours, expected, strict=True)) if a != b]
        if len(off) == 1 and yours[off[0]] == 1:
            wanted = f"Axis {off[0]} has length 1 where {expected[off[0]]} are wanted"
            return f"{wanted}: does a sum, mean or max run over it?"
        if len(yours) > 2 and len(off) == 1 and off[0] >= len(yours) - 2 and yours[-1] == yours[-2]:
            return "The two last axes are equally long in yours: is one size used for both, or one range?"
        taken = [name for name, value in inputs.items() if len(off) == 1 and yours[off[0]] in value.shape]
        if taken and yours[off[0]] > 1 and code.has(*_SUMMED, *_PRODUCTS):
            axis = f"Axis {off[0]} is as long as one of {taken[0]}"
            return f"{axis}: should a sum or product have run over that one, and not over another?"
        if len(off) == 1 and abs(yours[off[0]] - expected[off[0]]) == 1:
            more = "more" if yours[off[0]] > expected[off[0]] else "fewer"
            fact = f"There is one entry {more} along axis {off[0]}: look at both ends of the range or slice"
            axes = code.has(*_SUMMED) and any(value.ndim > len(yours) + 1 for value in inputs.values())
            return f"{fact}, or does a sum or mean leave another axis than it should?" if axes else f"{fact}."
    if math.prod(yours) == math.prod(expected):
        return "The number of entries is right, their arrangement is not: look at reshape and transpose."
    if len(yours) < len(expected):
        gone = "An axis is lost" if len(yours) + 1 == len(expected) else "There are too few axes"
        return gone + _ask(code, _RETURN, _INDEXED, _AXIS, otherwise=".")
    if len(yours) > len(expected):
        more = "There is an axis too many" if len(yours) == len(expected) + 1 else "There are too many axes"
        return f"{more}: is a sum or mean over one missing?"
    return "Write the shape of each intermediate result beside its line: where does it go another way?"


def _without(longer: tuple, shorter: tuple) -> list[int]:
    """The axes of which one, left out, makes the longer shape the shorter."""
    return [axis for axis in range(len(longer)) if longer[:axis] + longer[axis + 1 :] == shorter]


def of_arrangement(yours: np.ndarray, expected: np.ndarray, inputs: Inputs, code: Written = _ANY) -> str:
    """Shapes differ and the right values are known: looks whether the numbers are there in another arrangement."""
    shaped = of_shapes(yours.shape, expected.shape, inputs, code)
    if not yours.size:
        return "It is empty" + _ask(code, _FILTER, _LOOP, otherwise=": print each .shape on the way.")
    if not expected.size:
        return shaped
    if yours.dtype.kind == "c" or expected.dtype.kind == "c" or not (np.isfinite(yours).all() and expected.any()):
        return shaped
    yours, expected = yours.astype(float), expected.astype(float)
    with np.errstate(all="ignore"):
        if yours.ndim == expected.ndim > 1 and _agree(yours.T, expected):
            return "It is the transpose of the right result."
        if yours.squeeze().shape == expected.squeeze().shape and _agree(yours.squeeze(), expected.squeeze()):
            return f"The numbers are right. {shaped}"
        if _telling(expected):
            return _rearranged(yours, expected, code) or shaped
    return shaped


def _rearranged(yours: np.ndarray, expected: np.ndarray, code: Written) -> str:
    for verb, axis, reduced in _reductions(expected):
        if _agree(yours.squeeze(), reduced.squeeze()):
            return f"It is the right result {verb} over {axis}: is an axis= wrong or missing, or a sum too many?"
    for verb, axis, reduced in _reductions(yours):
        if axis != "all axes" and _agree(reduced.squeeze(), expected.squeeze()):
            return f"It would be right {verb} over {axis}: is that missing?"
    if expected.ndim > yours.ndim:
        for which, row in (("first", expected[0]), ("last", expected[-1])):
            if _agree(yours, row):
                asked = _ask(
                    code,
                    ("a return inside the loop", ("return in a loop",)),
                    ("a row overwritten in the loop", ("For", "While")),
                    otherwise=": is only one of them computed?",
                )
                return f"It is the {which} row of the right result{asked}"
    for which, rest in (("first", expected[1:]), ("last", expected[:-1])) if expected.ndim else ():
        if _agree(yours, rest):
            return f"The {which} entry along axis 0 is missing, the rest is right: look at both ends of the range."
    if yours.ndim == 2 and yours.shape[0] == yours.shape[1] and _agree(np.diagonal(yours), expected.squeeze()):
        return "The right numbers are on the diagonal: every row was combined with every other, not with its own."
    if yours.size == expected.size and _agree(yours.reshape(expected.shape), expected):
        shape = ", ".join(map(str, expected.shape))
        return f"The numbers and their order are right, the shape is not: .reshape({shape})?"
    return ""


def _reductions(values: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    axes = [(f"axis {axis}", axis) for axis in range(values.ndim) if values.shape[axis] > 1]
    for name, axis in [*axes, *([("all axes", None)] if values.ndim > 1 else [])]:
        yield from (("summed", name, values.sum(axis)), ("averaged", name, values.mean(axis)))


# ------------------------------------------------------------------------------------------------ values


def of_values(
    yours: np.ndarray,
    expected: np.ndarray,
    good: np.ndarray,
    inputs: Inputs,
    code: Written = _ANY,
    *,
    whole: bool = False,
) -> str:
    """Same shape, other values: how they hang together, tried from the telling to the vague.

    good: where an entry is right. whole: the check demands whole numbers. The order matters: the first that fits.
    """
    if yours.dtype.kind == "b" and expected.dtype.kind != "b" and not np.isin(expected, (0, 1)).all():
        return "It is True and False where numbers are wanted: is the comparison only half of the step?"
    if "c" in (yours.dtype.kind, expected.dtype.kind):
        return "It is the complex conjugate." if _agree(yours, np.conj(expected)) else ""
    case = _Case.of(yours, expected, inputs, code)
    with np.errstate(all="ignore"):
        wholes = case.expected.any() and not (case.expected % 1).any()
        if whole and wholes and (yours % 1).any():
            return _fractions(case)
        for reading in (
            _cut_off,
            _plain_slips,
            _order,
            _transformed,
            _ends,
            _normalised,
            _with_input,
            _factor,
            _step,
            _shift,
        ):
            if said := reading(case):
                return said
        if said := _rounding(case):
            return said
        if wholes and expected.size > 1 and not np.isin(expected, (0, 1)).all() and (yours % 1).any():
            return _fractions(case)  # a lone whole number is one by accident, and 0 and 1 may be probabilities
    return ""


def of_places(yours: np.ndarray, expected: np.ndarray, good: np.ndarray, inputs: Inputs, code: Written = _ANY) -> str:
    """Same shape, nothing else is seen: which entries are wrong, or how near all of them are."""
    if "c" in (yours.dtype.kind, expected.dtype.kind):
        return ""
    case = _Case.of(yours, expected, inputs, code)
    with np.errstate(all="ignore"):
        return _where(case, good) or _nearly(case)


@dataclass(frozen=True)
class _Case:
    """A wrong result, the right one, the inputs, all in double precision; and what each entry may be off by."""

    yours: np.ndarray
    expected: np.ndarray
    inputs: Inputs
    code: Written
    kind: str
    slack: float

    @classmethod
    def of(cls, yours: np.ndarray, expected: np.ndarray, inputs: Inputs, code: Written) -> "_Case":
        numbers = {name: value.astype(float) for name, value in inputs.items() if value.dtype.kind in "biuf"}
        kind, yours, expected = yours.dtype.kind, yours.astype(float), expected.astype(float)
        finite = np.abs(yours - expected)[np.isfinite(yours) & np.isfinite(expected)]
        return cls(yours, expected, numbers, code, kind, 1e-2 * float(finite.max(initial=0)))

    def agree(self, a: Any, b: Any) -> bool:
        """Whether `a` is `b` to single precision, and nearer by far than the result is to the right one.

        So nothing is explained by what would only be another way of saying "nearly right".
        """
        a, b = np.asarray(a), np.asarray(b)
        return _agree(a, b) and float(np.abs(a - b).max(initial=0)) <= self.slack

    def telling(self) -> bool:
        """Whether there are enough entries, or a lone one has digits enough, that a relation is no accident."""
        return self.yours.size > 1 or _telling(self.yours) or _telling(self.expected)

    def alike(self) -> bool:
        """Whether all entries are whole numbers below 10, among which much fits by accident."""
        return bool(
            (np.abs([*self.yours.flat, *self.expected.flat]) < 10).all()
            and not (self.yours % 1).any()
            and not (self.expected % 1).any()
        )


def _agree(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays agree to about single precision, measured by the larger entries."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or not np.isfinite(a).all() or not np.isfinite(b).all():
        return False
    return np.allclose(a, b, 1e-4, 1e-6 * max(float(np.abs(b).max(initial=0)), 1e-12))


def _telling(values: np.ndarray) -> bool:
    """Whether one of the numbers has more than two decimals."""
    return not np.array_equal(np.round(values, 2), values)


def _fractions(case: _Case) -> str:
    asked = _ask(
        case.code, ("max for argmax", ("max", "amax", "min", "amin")), ("/ for //", ("Div", "mean")), otherwise="."
    )
    return f"The right entries are whole numbers, and yours have fractions{asked}"


def _cut_off(case: _Case) -> str:
    whole = case.kind in "iu" and (case.expected % 1).any()
    if whole and (case.agree(case.yours, np.trunc(case.expected)) or case.agree(case.yours, np.floor(case.expected))):
        asked = _ask(case.code, ("is an integer array", ()), ("// for /", ("FloorDiv", "floor_divide")))
        return f"The entries are the right ones without their fractions, whole numbers{asked}"
    return ""


def _plain_slips(case: _Case) -> str:
    yours, expected = case.yours, case.expected
    if not yours.any():
        if case.kind == "b":
            return "Every entry is False: is the comparison the right way round?" if yours.size > 1 else ""
        made = ("zeros", "zeros_like", "new_zeros", "empty", "empty_like", "full")
        filled = ("is the result ever filled in", made)
        unused = ("does what is differentiated depend on what the gradient is taken of", ())
        asked = _ask(
            case.code, filled, *([unused] if _differentiates(case.code) else []), otherwise=", which it should not be."
        )
        return f"Every entry is 0{asked}" if yours.size > 1 else ""
    if case.kind == "b" and yours.all() and yours.size > 1:
        return "Every entry is True: is the comparison the right way round?"
    for name, value in case.inputs.items():
        if yours.size > 1 and np.array_equal(yours, value):
            return f"It is {name} as it was given: is the result of the computation stored and returned?"
    if case.agree(yours, -expected):
        return "Right size, wrong sign: look at each minus."
    constant = np.isfinite(yours).all() and np.allclose(yours, yours.flat[0], 1e-7, 0)
    if yours.size > 2 and constant and np.ptp(expected) > 0:
        return f"Every entry is the same, {number(yours.flat[0])}: does each depend on its own input?"
    return ""


def _differentiates(code: Written) -> bool:
    """Whether it calls a function that takes gradients."""
    called = (getattr(call.func, "attr", getattr(call.func, "id", "")) for call in code.nodes(ast.Call))
    return not {"grad", "backward", "vjp", "jacrev"}.isdisjoint(called)


def _order(case: _Case) -> str:
    """The right entries in other places."""
    yours, expected = case.yours, case.expected
    if yours.size < 3:
        return ""
    if yours.ndim > 1 and case.agree(yours, expected.T):
        return "It is the transpose of the right result."
    for axis in range(yours.ndim):
        mine, right = np.moveaxis(yours, axis, 0), np.moveaxis(expected, axis, 0)
        if len(mine) < 3:
            continue
        if case.agree(mine, right[::-1]):
            return f"It is in reverse order along axis {axis}."
        if mine[1:].size < 3 or not np.ptp(right[1:] - right[:-1]) > 0:
            continue
        for ahead, (moved, place) in {"later": (mine[1:], right[:-1]), "earlier": (mine[:-1], right[1:])}.items():
            if case.agree(moved, place):
                return f"Every entry stands one place too far {ahead} along axis {axis}: is an index off by one?"
    different = len(np.unique(expected))
    if different > 2 and 2 * different > expected.size and case.agree(np.sort(yours, None), np.sort(expected, None)):
        return "The entries are right, their order is not."
    return ""


def _normalised(case: _Case) -> str:
    """The right result adds up to 1 (or has mean 0) along an axis, this one along another, or nowhere."""
    if np.isin(case.expected, (0, 1)).all():
        return ""  # an identity or marks for classes add up to 1 without a division
    yours, expected = case.yours, case.expected
    for fact, measure, value in (("add up to 1", np.sum, 1.0), ("have mean 0", np.mean, 0.0)):

        def holds(a, axis, measure=measure, value=value):
            return np.allclose(measure(a, axis), value, 0, 1e-4)

        def along(axis):
            lines = {1: "the entries", 2: "the columns" if axis == 0 else "the rows"}
            return lines.get(yours.ndim, f"the lines on axis {axis}")

        axes = [axis for axis in range(yours.ndim) if yours.shape[axis] > 1]
        for axis in axes:
            if not holds(expected, axis) or holds(yours, axis):
                continue
            for other in axes:
                if other != axis and holds(yours, other) and not holds(expected, other):
                    return f"In yours {along(other)} {fact}, where {along(axis)} should: is it the wrong axis?"
            if not value or not case.agree(yours / yours.sum(axis, keepdims=True), expected):
                continue
            if yours.ndim > 1 and holds(yours, None):
                return f"In yours all entries together {fact}, where {along(axis)} should: is an axis= missing?"
            return f"Right is that {along(axis)} {fact}, and yours do not: what is each divided by?"
    return ""


def _with_input(case: _Case) -> str:
    """One of the inputs, added or multiplied once more or once less, would make it right."""
    yours, expected, agree = case.yours, case.expected, case.agree
    if not case.telling() or not expected.any():
        return ""
    for name, value in case.inputs.items():
        if case.alike() and value.size < 3:
            continue
        for operand in _fitted(value, yours.shape):
            if agree(yours + operand, expected):
                return f"Adding {name} would make it right: is it left out?"
            if agree(yours - operand, expected):
                return f"Without {name} added it would be right: is it counted once too often?"
            if agree(yours + 2 * operand, expected) or agree(yours - 2 * operand, expected):
                return f"It is off by twice {name}: is the sign before it wrong?"
            if agree(yours + expected, operand):
                return f"Together with the right result it makes {name}: is it the other of two parts?"
            if value.size == 1 and not value.item() % 1:
                continue  # a common factor, which may have other sources: `_factor` knows them
            if agree(yours * operand, expected):
                return f"Multiplied by {name} it would be right: is that factor left out?"
            if operand.all() and agree(yours / operand, expected):
                return f"Divided by {name} it would be right: is a division left out, or a factor too many?"
            if agree(yours * operand**2, expected) or (operand.all() and agree(yours / operand**2, expected)):
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


def _factor(case: _Case) -> str:
    """A common factor, and where it may come from."""
    factor = _ratio(case, case.yours, case.expected)
    if factor is None or abs(factor - 1) < 1e-4:
        return ""
    if case.yours.size > 1:
        source = _source(factor, case.inputs)
        return f"Every entry is {_times(factor)} the right one{source or ': is a factor missing, or one too many?'}"
    source = _source(factor, case.inputs, lengths_only=not case.telling())
    return f"It is {_times(factor)} the right number{source}" if source else ""


def _times(factor: float) -> str:
    return f"{factor:.4g} times" if f"{factor:.4g}" not in ("1", "-1") else f"{factor:.6g} times"


def _ratio(case: _Case, yours: np.ndarray, expected: np.ndarray) -> float | None:
    """The common factor from `expected` to `yours`, or None."""
    norm = float((expected * expected).sum())
    factor = float((yours * expected).sum()) / norm if norm > 0 else 0.0
    return factor if factor and case.agree(yours, factor * expected) else None


def _source(factor: float, inputs: Inputs, lengths_only: bool = False) -> str:
    """Where a factor may come from: a length, its square root, n−1 for n, an input, one of a few constants.

    Nothing is said where three or more would do: then it is none of them more than another.
    """
    known: dict[str, float] = {}
    for name, value in inputs.items():
        if value.size == 1 and not lengths_only:
            known[f"the value of {name}"] = abs(value.item())
        for axis, n in enumerate(value.shape):
            if n > 2:  # a 2 has too many sources
                known[f"the length of axis {axis} of {name}"] = n
            if n > 1 and not lengths_only:
                known[f"the square root of {n}, the length of axis {axis} of {name}"] = math.sqrt(n)
            if n > 4 and not lengths_only:  # 2, 3/2 and 4/3 come from much else
                known[f"{n}/{n - 1}: n − 1 (ddof=1) against n along axis {axis} of {name}"] = n / (n - 1)
                known[f"the root of {n}/{n - 1}: n − 1 (ddof=1) against n along axis {axis} of {name}"] = math.sqrt(
                    n / (n - 1)
                )
        if value.ndim > 1:
            known[f"the number of entries of {name}"] = value.size
            if not lengths_only:
                known[f"the square root of {value.size}, the number of entries of {name}"] = math.sqrt(value.size)
    if not lengths_only:
        if not any(2 in value.shape for value in inputs.values()):
            known["2, as in ½ or in the derivative of a square"] = 2
        known["ln 2: the base of a logarithm"] = math.log(2)
        known["ln 10: the base of a logarithm"] = math.log(10)
    minus = "minus " if factor < 0 else ""
    for over, target in (("", abs(factor)), ("1 over ", 1 / abs(factor))):
        found = [
            name for name, value in known.items() if value not in (0, 1) and math.isclose(target, value, rel_tol=1e-4)
        ]
        named = [name for name in found if not name.startswith("2, as")] or found
        first = named[0] if len({name.partition(" of ")[0] for name in named}) <= 2 and named else ""
        if first and over:
            return f"; that is {minus}1 over {first}. Is that factor left out, or a division by it one too many?"
        if first:
            return f"; that is {minus}{first}. Is a division by it left out, or a factor too many?"
    return ""


def _step(case: _Case) -> str:
    """Seen from an input that is to be updated: the step is right but for its length or direction."""
    for name, value in case.inputs.items():
        if value.shape != case.yours.shape or not case.telling():
            continue
        moved = (case.expected != value).all()
        factor = _ratio(case, case.yours - value, case.expected - value) if moved else None
        if factor is not None and math.isclose(factor, -1, rel_tol=1e-4):
            return f"From {name} it goes the right distance in the wrong direction: + and − swapped?"
        if factor is not None and (case.yours.size > 1 or _source(factor, case.inputs)):
            source = _source(factor, case.inputs) or ": is a factor of the step missing, or one too many?"
            return f"From {name} its step is {_times(factor)} the right one{source}"
    return ""


def _shift(case: _Case) -> str:
    """One number added everywhere, or one for each row or column."""
    yours, expected = case.yours, case.expected
    difference = yours - expected
    if yours.size > 1 and case.agree(yours, expected + difference.mean()):
        return f"Every entry is off by the same {difference.flat[0]:.4g}: is a term missing, or one too many?"
    if yours.size == 1 and case.kind in "iu" and abs(difference.item()) == 1 and not (expected % 1).any():
        more = "more" if difference.item() > 0 else "less"
        counted = ("is an end of a range counted, or left out", ("range", "arange", "Slice"))
        ends = (f"does the loop end a round too {'late' if more == 'more' else 'early'}", ("return in a loop", "Break"))
        return f"It is 1 {more} than the right number" + _ask(case.code, counted, ends, otherwise=f": {counted[0]}?")
    for axis, lines in ((1, "row"), (0, "column")) if yours.ndim == 2 and min(yours.shape) > 1 else ():
        if not (difference != 0).any(axis).all():
            continue
        if case.agree(yours, expected + difference.mean(axis, keepdims=True)):
            return f"Each {lines} is off by one number of its own: which term is the same along a {lines}?"
        if ((expected != 0).sum(axis) < 2).any() or np.linalg.matrix_rank(expected) < 2:
            continue  # of one row times one column every other such product is off in this way
        ratio = (yours * expected).sum(axis, keepdims=True) / (expected * expected).sum(axis, keepdims=True)
        if case.agree(yours, expected * ratio):
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
    "the right result with −1 and +1 turned into 0 and 1": lambda a: np.where(np.abs(a) == 1, (a + 1) / 2, np.nan),
    "the right result with 0 and 1 turned into −1 and +1": lambda a: np.where((a == 0) | (a == 1), 2 * a - 1, np.nan),
    "the right result rounded": np.round,
    "the right result with its fractions cut off": lambda a: np.where(np.trunc(a).any(), np.trunc(a), np.nan),
}


def _transformed(case: _Case) -> str:
    if not case.telling():
        return ""
    for name, function in _TRANSFORMS.items():
        if case.yours.size == 1 and function is np.sign:
            continue  # half of all mistakes give one of two numbers
        if function is np.round and case.kind == "f" and np.isin(case.yours, (-1, 0, 1)).all():
            continue  # where something is left out, shares become 0 and 1 as well
        if case.agree(case.yours, function(case.expected)):
            return f"It is {name}{'?' if ':' in name else '.'}"
    return _running_sum(case)


def _ends(case: _Case) -> str:
    return limited(case.yours, case.expected)


def limited(yours: np.ndarray, expected: np.ndarray) -> str:
    """The right result, but for a limit above or below which nothing of it goes."""
    if yours.size < 4 or yours.dtype.kind != "f" or yours.shape != expected.shape or not np.isfinite(yours).all():
        return ""
    for limit, cut, way in ((np.max, np.minimum, "up"), (np.min, np.maximum, "down")):
        end = limit(yours)
        beyond = ~np.isclose(cut(expected, end), expected, 1e-4, 0)
        if min(beyond.sum(), (~beyond).sum()) > 1 and _agree(yours, cut(expected, end)):
            return f"It is right {way} to {number(end)}, and nothing of it goes further: is something clipped there?"
    return ""


def _running_sum(case: _Case) -> str:
    for axis in reversed(range(case.yours.ndim)):
        if case.agree(case.yours, np.cumsum(case.expected, axis)):
            along = f" along axis {axis}" if case.yours.ndim > 1 else ""
            asked = _ask(
                case.code,
                ("is .grad not cleared, to which backward() adds", ("backward",)),
                ("is something not set back in the loop", ("For", "While")),
                ("a cumsum too many", ("cumsum", "accumulate")),
                otherwise=".",
            )
            return f"It is the running sum of the right result{along}{asked}"
    return ""


def _largest(case: _Case) -> float:
    """The largest difference, measured by the largest right entry; infinite where either is no number."""
    size = float(np.abs(case.expected).max(initial=0))
    largest = float(np.abs(case.yours - case.expected).max(initial=0))
    return largest / size if size and math.isfinite(largest) and math.isfinite(size) else math.inf


def _rounding(case: _Case) -> str:
    """Right to four digits or more: it is computed less precisely, not otherwise."""
    off = _largest(case)
    if off > 1e-4 or case.kind != "f":
        return ""
    return (
        f"It is right to {off:.0e} of the largest entry: is a lower precision "
        "(float32), a rounded constant or an approximation on the way?"
    )


def _nearly(case: _Case) -> str:
    off = _largest(case)
    if off > 0.02 or case.kind != "f" or case.yours.size < 3:  # a lone number may be near by chance
        return ""
    return f"No entry is off by more than {off:.1%} of the largest."


def _where(case: _Case, good: np.ndarray) -> str:
    """Some entries are right: what sets the wrong ones apart."""
    bad = ~good
    if not good.any():
        return ""
    count = f"{bad.sum()} of {good.size} entries {'is' if bad.sum() == 1 else 'are'} wrong"
    sets = [("the right result is negative", case.expected < 0), ("the right result is positive", case.expected > 0)]
    for name, value in case.inputs.items():
        if value.shape == good.shape:
            sets += [
                (f"{name} is negative", value < 0),
                (f"{name} is positive", value > 0),
                (f"{name} is 0", value == 0),
            ]
    for words, mask in sets:
        if bad.sum() > 1 and good.sum() > 1 and (bad == mask).all():
            return f"{count}: just those where {words}."
    for axis in range(good.ndim if good.ndim > 1 else 0):
        wrong = np.flatnonzero(np.moveaxis(bad, axis, 0).reshape(good.shape[axis], -1).any(1))
        name = ("Row", "Column")[axis] if good.ndim == 2 else f"Index on axis {axis}:"
        if len(wrong) == good.shape[axis] - 1 > 1:
            (only,) = {*range(good.shape[axis])} - {*wrong.tolist()}
            asked = _ask(
                case.code,
                ("is the loop left too early", ("return in a loop", "Break")),
                ("is the index not used", ("For", "While")),
                otherwise=".",
            )
            line = f"{name.lower()} {only}" if good.ndim == 2 else f"index {only} on axis {axis}"
            return f"Only {line} is right{asked}"
        if len(wrong) < good.shape[axis] - 1:
            listed = ", ".join(map(str, wrong[:6])) + (" …" if len(wrong) > 6 else "")
            return (
                f"{name} {listed} of {good.shape[axis]} wrong: what sets {'it' if len(wrong) == 1 else 'them'} apart?"
            )
    listed = (
        f" ({', '.join(map(str, np.flatnonzero(bad)[:6]))}{' …' if bad.sum() > 6 else ''})" if good.ndim == 1 else ""
    )
    return f"{count}{listed}: what sets {'it' if bad.sum() == 1 else 'them'} apart?"
