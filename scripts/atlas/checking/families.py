"""Families of inputs: what a check must be tried with, so that an author names the kind of input and not each trap.

    for case in cases(rng, X=floats("B", "D"), W=floats("K", "D"), without={"zeros": "nothing is divided here"}):
        expect.close(learner(*case.inputs), X @ W.T, why=f"XWᵀ{case}", source="NumPy", likely=case.likely)

`floats`, `labels` and `numbers` say of each argument what it is and which axes it has; axes of one name have one
length. Every family that the arguments allow is tried; leaving one out needs a reason in the call. `agree` does the
usual: the learner's function against an authority, over all families.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from atlas.checking.expectations import expect
from atlas.checking.readings import limited
from atlas.checking.values import array

_LENGTHS = (6, 3, 4, 7, 2, 5)
"""Lengths of axes in the order in which they are named: no two alike, so that none is taken for another."""


@dataclass(frozen=True)
class Kind:
    """What one argument is. axes: names (one length each) or fixed lengths; any_rank: entry by entry, so of any shape.

    draw(rng, shape) gives its plain values; where it is the author's own, the families leave the values as they are.
    """

    axes: tuple[str | int, ...]
    draw: Callable
    own_values: bool = False
    tensor: bool = False
    any_rank: bool = False
    whole: bool = False


def floats(*axes: str | int, draw: Callable | None = None, tensor: bool = False, any_rank: bool = False) -> Kind:
    """Real numbers of that shape, NumPy or torch (tensor=True, float64)."""
    return Kind(axes, draw or (lambda rng, shape: rng.normal(size=shape)), draw is not None, tensor, any_rank)


def labels(*axes: str | int, below: str | int, tensor: bool = False) -> Kind:
    """Whole numbers from 0 to below - 1, such as classes; `below` may be an axis's name."""
    return Kind((*axes, below), _draw_labels, True, tensor, whole=True)


def numbers(low: float, high: float) -> Kind:
    """A number between low and high that is not round: no default, no 0.5, and other ones in each case."""
    return Kind((), lambda rng, shape: round(rng.uniform(low, high), 4), True)


def among(*values: Any) -> Kind:
    """One of these, another in each case."""
    return Kind((), lambda rng, shape: values[rng.integers(len(values))], True)


def _draw_labels(rng: np.random.Generator, shape: tuple) -> np.ndarray:
    """Unsorted, not each class as often as the others; shape ends in the number of classes."""
    *shape, below = shape
    return rng.integers(below, size=shape)


@dataclass(frozen=True)
class Case:
    """One set of inputs in the order of the arguments. str(case) follows the rule in a message: " where B = 1"."""

    family: str
    words: str
    inputs: tuple
    exact: tuple
    """The same inputs in double precision, for the authority."""
    entrywise: bool = False
    """Whether the function works entry by entry, so that rows mean nothing to it."""

    def __str__(self) -> str:
        return f" {self.words}" if self.words else ""

    def likely(self, yours: Any, expected: Any) -> str:
        """What to say where this case goes wrong and those before it went well: that, and the family's question.

        That whole numbers cut fractions off, and that exp is to blame, is asked only where the result shows it.
        """
        yours, expected = array(yours), array(expected)
        if self.family == "plain" or yours.shape != expected.shape:
            return ""
        if self.family not in ("integers", "single") and _nearly(yours, expected):
            return ""
        family = FAMILIES[self.family]
        question = family.of_entries if self.entrywise and family.of_entries else family.question
        question = question if family.shows(yours, expected) else limited(yours, expected)
        return f"It is right for the inputs before, and goes wrong {self.words}. {question}".rstrip()


def cases(
    rng: np.random.Generator,
    *,
    without: Mapping[str, str] | None = None,
    least: Mapping[str, int] | None = None,
    **kinds: Kind,
) -> Iterator[Case]:
    """Two plain cases, then those of every family that these arguments allow, each in fresh numbers.

    without: family → why it is left out. least: axis → its least length, where that is not 1. Raises ValueError for
    a family that is not there or does not apply, and for a reason that is none.
    """
    without = without or {}
    entrywise = all(kind.any_rank for kind in kinds.values() if kind.axes or kind.any_rank)
    applying = {name: family for name, family in FAMILIES.items() if family.applies(kinds)}
    for name, reason in without.items():
        if name not in applying:
            raise ValueError(f"no family {name!r} applies here: there are {', '.join(applying)}")
        if len(reason.split()) < 3:
            raise ValueError(f"why is {name!r} left out? {reason!r} is no reason")
    for name, family in {"plain": _PLAIN, **applying}.items():
        if name not in without:
            for words, inputs in family.make(rng, kinds, least or {}):
                words = "where entries lie far apart" if entrywise and name == "apart" else words
                yield Case(name, words, inputs, tuple(map(_exact, kinds.values(), inputs)), entrywise)


def agree(
    learner: Callable,
    authority: Callable,
    rng: np.random.Generator,
    *,
    why: str,
    source: str,
    parts: Sequence[str] = (),
    without: Mapping[str, str] | None = None,
    least: Mapping[str, int] | None = None,
    likely: Any = "",
    like: str = "",
    rtol: float = 1e-5,
    atol: float = 1e-7,
    **kinds: Kind,
) -> None:
    """Demand that the learner's function gives what the authority gives, over all families of these arguments.

    authority takes the same arguments, in double precision. parts: the names of the results, where there are several.
    likely: as for `expect`; a family's own guess comes before it, where only that family goes wrong.
    like: the argument that each result has to be like in dtype, and a tensor if it is one.
    """
    for case in cases(rng, without=without, least=least, **kinds):
        dtype = dict(zip(kinds, case.inputs, strict=True))[like] if like else None
        given, expected = learner(*case.inputs), authority(*case.exact)
        results = [("", given, expected)]
        if parts:
            results = zip(parts, expect.parts(given, parts, f"{why}: {len(parts)} results"), expected, strict=True)
        for name, mine, theirs in results:
            rule = f"{why}{case}{f': {name}' if name else ''}"
            guess = case.likely if case.family != "plain" else likely
            precision = _precision(case.family, mine, theirs, rtol, atol)
            expect.close(mine, theirs, why=rule, source=source, likely=guess, dtype=dtype, **precision)


def _precision(family: str, yours: Any, expected: Any, rtol: float, atol: float) -> dict[str, float]:
    """Tolerances as the inputs allow: of tiny ones nothing is too small to count; single precision is rounded."""
    largest = float(np.abs(array(expected)).max(initial=0))
    if family == "tiny":
        return {"rtol": rtol, "atol": min(atol, 1e-7 * largest)}
    if family == "single":
        return {"rtol": max(rtol, 2e-6), "atol": max(atol, 2e-6 * largest)}
    if family in ("apart", "far", "large") and "float32" in str(getattr(yours, "dtype", "")):
        return {"rtol": max(rtol, 1e-3), "atol": max(atol, 1e-3 * largest)}  # thousands have three more digits there
    return {"rtol": rtol, "atol": atol}


# ------------------------------------------------------------------------------------------------ the families


@dataclass(frozen=True)
class Family:
    """applies(kinds): whether some argument has it; make(rng, kinds, least) yields words and inputs.

    question: what to ask where only this family goes wrong, if shows(yours, expected).
    of_entries: the same where the function works entry by entry.
    """

    applies: Callable[[Mapping[str, Kind]], bool]
    make: Callable[[np.random.Generator, Mapping[str, Kind], Mapping[str, int]], Iterator[tuple[str, tuple]]]
    question: str = ""
    shows: Callable[[np.ndarray, np.ndarray], bool] = lambda yours, expected: True
    of_entries: str = ""


def _free(kind: Kind) -> bool:
    """Whether the families may choose this argument's values."""
    return not kind.own_values


def _some(test: Callable[[Kind], bool]) -> Callable[[Mapping[str, Kind]], bool]:
    return lambda kinds: any(map(test, kinds.values()))


def _has_axes(kinds: Mapping[str, Kind], least: int = 1) -> bool:
    return len(_lengths(kinds)) >= least


def _changed(change: Callable, words: str) -> Callable:
    """A family that draws plainly and then changes the values of the arguments that are free."""

    def make(rng, kinds, least):
        drawn = _drawn(rng, kinds, _lengths(kinds))
        changed = [change(rng, x) if _free(kind) else x for kind, x in zip(kinds.values(), drawn, strict=True)]
        yield words, tuple(changed)

    return make


def _plain(rng, kinds, least):
    yield from (("", _drawn(rng, kinds, _lengths(kinds))) for _ in range(2))


def _one_of_an_axis(rng, kinds, least):
    lengths = _lengths(kinds)
    shortest = {axis: least.get(axis, 1) for axis in lengths}
    for axis, length in shortest.items():
        yield f"where {axis} = {length}", _drawn(rng, kinds, {**lengths, axis: length})
    if len(lengths) > 1:
        yield f"where {', '.join(f'{axis} = {n}' for axis, n in shortest.items())}", _drawn(rng, kinds, shortest)


def _equal_lengths(rng, kinds, least):
    lengths = _lengths(kinds)
    yield f"where {' = '.join(lengths)}", _drawn(rng, kinds, dict.fromkeys(lengths, 3))


def _ranks(rng, kinds, least):
    for shape in ((), (6,), (2, 3, 4), (2, 1, 3, 2)):
        fixed = {name: replace(kind, axes=shape) if kind.any_rank else kind for name, kind in kinds.items()}
        yield f"with {len(shape)} axes" if len(shape) != 1 else "with one axis", _drawn(rng, fixed, _lengths(fixed))


def _zeros(rng, kinds, least):
    for name, kind in kinds.items():
        if _free(kind):
            drawn = _drawn(rng, kinds, _lengths(kinds))
            yield f"with zeros for {name}", tuple(x * 0 if n == name else x for n, x in zip(kinds, drawn, strict=True))


def _views(rng, kinds, least):
    yield "where the arrays are views", tuple(map(_as_view, _drawn(rng, kinds, _lengths(kinds))))


def _single(rng, kinds, least):
    yield "in single precision", tuple(map(_as_single, _drawn(rng, kinds, _lengths(kinds))))


def _as_view(x: Any) -> Any:
    """The same numbers, not side by side in memory: columns before rows, or every other of a longer one."""
    if not getattr(x, "ndim", 0):
        return x
    if x.ndim > 1:
        return x.mT.contiguous().mT if _is_tensor(x) else np.asfortranarray(x)
    twice = x.repeat_interleave(2) if _is_tensor(x) else np.repeat(x, 2)
    return twice[::2]


def _as_single(x: Any) -> Any:
    if _is_tensor(x):
        return x.float() if x.is_floating_point() else x
    return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x


def _apart(axis: int) -> Callable:
    """Adds 1000 times another whole number to each line along the axis, the largest neither first nor last."""

    def change(rng, x):
        if not getattr(x, "ndim", 0) or axis >= x.ndim:
            return x
        steps = rng.permutation(x.shape[axis]) - x.shape[axis] // 2
        steps = np.roll(steps, len(steps) // 2 - steps.argmax())
        steps = (1000.0 * steps).reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])
        return x + (sys.modules["torch"].from_numpy(steps) if _is_tensor(x) else steps)

    return change


def _far_apart(rng, kinds, least):
    yield from _changed(_apart(0), "where the rows lie far apart")(rng, kinds, least)
    yield from _changed(_apart(-1), "where the entries of a row lie far apart")(rng, kinds, least)


def _far_from_zero(rng, kinds, least):
    yield from _changed(lambda rng, x: x - 1000, "where all entries are near -1000")(rng, kinds, least)
    yield from _changed(lambda rng, x: x + 1000, "where all entries are near 1000")(rng, kinds, least)


_tiny = _changed(lambda rng, x: x * 1e-5, "where all entries are tiny, near 1e-5")
_large = _changed(lambda rng, x: x * 3e3, "where entries are in the thousands")


def _rounded(rng: np.random.Generator, x: Any) -> Any:
    """Few different values, so that many are equal; not all whole."""
    return (x.sign() if _is_tensor(x) else np.sign(x)) * 0.5


def _whole(rng: np.random.Generator, x: Any) -> Any:
    """No two alike and none 0: those are families of their own."""
    if _is_tensor(x):
        return x
    sizes = 1 + rng.permutation(np.size(x))
    return (sizes * rng.choice([-1, 1], size=len(sizes))).reshape(np.shape(x))


def _nearly(yours: np.ndarray, expected: np.ndarray) -> bool:
    """Whether they differ by a small part only: then precision or a small term is to blame, not the kind of input."""
    with np.errstate(all="ignore"):
        return bool(np.allclose(yours, expected, 1e-2, 1e-3 * float(np.abs(expected).max(initial=0))))


def _broken(yours: np.ndarray, expected: np.ndarray) -> bool:
    return not np.isfinite(yours).all()


_OVERFLOWS = "exp of large entries is infinite, and ∞/∞ or 0·∞ is NaN: is there a form that does not overflow?"
_PLAIN = Family(lambda kinds: True, _plain)
FAMILIES = {
    "integers": Family(
        _some(lambda kind: _free(kind) and not kind.tensor),
        _changed(_whole, "for whole numbers"),
        "Is an array made like the input (zeros_like, empty_like, astype)? It holds whole numbers only, and cuts "
        "fractions off: make it with dtype=float.",
    ),
    "single": Family(_some(lambda kind: kind.axes != () and not kind.whole), _single),
    "one": Family(_has_axes, _one_of_an_axis, "Is something divided by n − 1, or by a spread that is 0 here?", _broken),
    "equal": Family(
        lambda kinds: _has_axes(kinds, 2),
        _equal_lengths,
        "Is an axis found by its length, or does a wrong transpose or broadcast fit here?",
    ),
    "ranks": Family(_some(lambda kind: kind.any_rank), _ranks, "Does the code count on a number of axes?"),
    "views": Family(
        _some(lambda kind: kind.axes != ()), _views, "Does the code count on how the numbers lie in memory?"
    ),
    "ties": Family(_some(_free), _changed(_rounded, "with many equal entries"), "What happens where two are equal?"),
    "zeros": Family(_some(_free), _zeros, "Where can a 0 divide, or meet a logarithm?", _broken),
    "tiny": Family(_some(_free), _tiny, "Is what is small set to 0, or bounded from below?"),
    "apart": Family(
        lambda kinds: any(_free(kind) and kind.axes for kind in kinds.values()),
        _far_apart,
        "exp of large entries is infinite, and of what lies far below the largest it is 0: is each row's own largest "
        "subtracted, or one of all rows, or none?",
        _broken,
        _OVERFLOWS,
    ),
    "far": Family(
        _some(_free),
        _far_from_zero,
        "exp of them overflows, or is 0 for all of them: is the largest subtracted first, whatever its sign?",
        _broken,
        _OVERFLOWS,
    ),
    "large": Family(_some(_free), _large, "Is something clipped, or does exp of it overflow?"),
}
"""Family → what it is: whole numbers where fractions are usual; float32; one row, one column, one entry; all lengths
the same (width = classes); 0 to 4 axes; strided and transposed views; ties; zeros for one argument; entries near 1e-5;
entries in the thousands; rows, and entries of a row, 1000 apart; all near -1000, and all near 1000."""


# ------------------------------------------------------------------------------------------------ drawing


def _lengths(kinds: Mapping[str, Kind]) -> dict[str, int]:
    """Axis → its length, in the order in which they are named."""
    names = dict.fromkeys(axis for kind in kinds.values() for axis in kind.axes if isinstance(axis, str))
    return dict(zip(names, _LENGTHS, strict=False))


def _drawn(rng: np.random.Generator, kinds: Mapping[str, Kind], lengths: Mapping[str, int]) -> tuple:
    """Plain values for each argument."""
    return tuple(_drawn_one(rng, kind, tuple(lengths.get(axis, axis) for axis in kind.axes)) for kind in kinds.values())


def _drawn_one(rng: np.random.Generator, kind: Kind, shape: tuple) -> Any:
    drawn = kind.draw(rng, shape)
    if kind.tensor:
        import torch

        return torch.as_tensor(drawn, dtype=torch.int64 if kind.whole else torch.float64)
    return np.asarray(drawn) if kind.axes or kind.any_rank else drawn


def _exact(kind: Kind, x: Any) -> Any:
    """In double precision, and apart from what the learner's code gets."""
    if kind.whole or not hasattr(x, "dtype"):
        return x
    return x.detach().double().clone() if _is_tensor(x) else np.array(x, float)


def _is_tensor(x: Any) -> bool:
    return hasattr(x, "detach")


# ------------------------------------------------------------------------------------------------ single numbers


def around(threshold: float, near: float = 1e-3) -> tuple[float, ...]:
    """A threshold from both sides: far below, close below, at it, close above, far above."""
    return threshold - 1, threshold - near, threshold, threshold + near, threshold + 1


def counts(batch: int) -> tuple[int, ...]:
    """How many examples to try a batch size with: a multiple, one more, one less than a batch, one."""
    return 3 * batch, 2 * batch + 1, batch - 1, 1
