"""What a check may demand of a result, and how a complaint about it reads."""

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from atlas.checking import readings, unnoticed
from atlas.checking.advice import advice, said
from atlas.checking.calls import Run, called_with, given_to, noting, running
from atlas.checking.place import learners_place
from atlas.checking.readings import number
from atlas.checking.values import agree, array, is_array, plain, same, summary
from atlas.checking.vocabulary import Complaint
from atlas.checking.written import Written

Likely = str | Mapping[str, Any] | Callable[..., str]


@noting
class expect:
    """What a check may demand. Each raises a Complaint that shows given, yours, expected, and the likely mistake.

    why      the rule that is broken, as a sentence
    source   the authority that the expected value comes from
    likely   what probably happened, where the check knows: a sentence; a table from sentences to the value that this
             mistake gives (or to a function that computes it); or a function of (yours, expected) that returns the
             sentence or "". Tables and functions are looked at only after a mismatch
    """

    @staticmethod
    def close(
        yours: Any,
        expected: Any,
        *,
        why: str,
        source: str,
        rtol: float = 1e-5,
        atol: float = 1e-7,
        up_to_scale: bool = False,
        lone: bool = False,
        dtype: Any = None,
        likely: Likely = "",
    ) -> None:
        """Demand numbers within atol + rtol·|expected|, in this shape.

        A lone number may come as a number or as an array of shape (), and not of shape (1,), which would broadcast.
        up_to_scale: one positive common factor is free. lone: () and (1,) count as the same.
        dtype: what `expect.dtype` takes, demanded too; an array or tensor asks for its own kind of numbers.
        Results in single precision get the slack of their roundings.
        """
        numbers, expected = _numbers(yours, why, source, likely), array(expected)
        _demand_close(yours, numbers, expected, why, source, rtol, atol, up_to_scale, lone, likely)
        if dtype is not None:
            _demand_dtype(yours, numbers, dtype, f"{why}: the kind of numbers", likely)

    @staticmethod
    def equal(yours: Any, expected: Any, *, why: str, source: str, lone: bool = False, likely: Likely = "") -> None:
        """Demand exactly these integers, flags or text (or lists of text), in this shape; `lone` as in `close`."""
        try:
            wanted = array(expected)
        except TypeError:
            if yours is None:
                raise _none(why) from None
            if not same(yours, expected, unknown=False):
                shown = difference(yours, expected, ("yours", "expected"))
                shown[-1] += f"   ({source})"
                reading = _likely(likely, yours, expected) or _of_unfilled(yours, expected) or _of_code(yours)
                raise Complaint(why, [*given_to(yours), *shown], reading, yours) from None
            return
        numbers = _numbers(yours, why, source, likely)
        _demand_close(yours, numbers, wanted, why, source, 0, 0, False, lone, likely)

    @staticmethod
    def shape(yours: Any, shape: tuple[int, ...], why: str, *, likely: Likely = "") -> None:
        """Demand an array (or tensor) of numbers of this shape."""
        numbers = _numbers(yours, why, "", likely)
        if numbers.shape != tuple(shape):
            reading = _likely(likely, numbers, tuple(shape)) or _of_one_part(yours, numbers, tuple(shape))
            reading = reading or readings.of_shapes(numbers.shape, tuple(shape), _inputs(yours), _code())
            raise _shape_complaint(yours, numbers, tuple(shape), why, "", reading)

    @staticmethod
    def dtype(yours: Any, kind: Any, why: str, *, likely: Likely = "") -> None:
        """Demand entries of this kind.

        kind: float, int, bool or complex (of any width); a dtype of NumPy or torch; or an array or tensor whose own
        dtype is meant: a tensor then has to stay a tensor.
        """
        _demand_dtype(yours, _numbers(yours, why, "", likely), kind, why, likely)

    @staticmethod
    def kind(yours: Any, kind: type | tuple[type, ...], why: str, *, likely: Likely = "") -> None:
        """Demand an instance of `kind`."""
        if not isinstance(yours, kind):
            if yours is None:
                raise _none(why)
            wanted = " or ".join(dict.fromkeys(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,))))
            details = [*given_to(yours), f"yours    {type(yours).__name__}", f"expected {wanted}"]
            raise Complaint(why, details, _likely(likely, yours, kind) or _of_code(yours), yours)

    @staticmethod
    def parts(yours: Any, names: Sequence[str], why: str) -> tuple:
        """Demand a tuple (or list) with one part per name, and return it."""
        if yours is None:
            raise _none(why)
        if not isinstance(yours, tuple | list) or len(yours) != len(names):
            details = [*given_to(yours), f"yours    {summary(yours)}", f"expected ({', '.join(names)})"]
            reading = unnoticed.of_result(yours, _code()) or f"End with: return {', '.join(names)}"
            raise Complaint(why, details, reading, yours)
        return tuple(yours)

    @staticmethod
    def finite(yours: Any, why: str, *, likely: Likely = "") -> None:
        """Demand that no entry is NaN or infinite."""
        numbers = _numbers(yours, why, "", likely)
        _demand_finite(yours, numbers, np.zeros(numbers.shape), why, "", likely)

    @staticmethod
    def true(condition: Any, why: str, *details: str, likely: str | Callable[[], str] = "") -> None:
        """Demand a property; `details` are lines that show the evidence."""
        if not condition:
            call = running.get(Run(None)).call_of(None)
            evidence = [list(details), call.result] if plain(call.result) else list(details) or None
            reading = likely() if callable(likely) else likely
            raise Complaint(why, [*called_with(call), *details], reading or _of_code(call.result), evidence)

    @staticmethod
    def raises(
        exception: type[Exception], code: Callable[[], Any], why: str, *, match: str = "", likely: Likely = ""
    ) -> Exception:
        """Demand that `code` raises this exception, with a text in which the pattern `match` is found; return it.

        What is not for the check passes through: a stub's NotImplementedError, a complaint, the end of the time.
        """
        wanted = exception.__name__ + (f" that says {match!r}" if match else "")
        try:
            result = code()
        except Complaint:
            raise
        except Exception as error:
            if isinstance(error, NotImplementedError) and not issubclass(exception, NotImplementedError):
                raise
            if isinstance(error, exception) and re.search(match, str(error)):
                return error
            place = learners_place(error)
            lines = [f"yours    {said(error)[0]}", *([str(place)] if place else []), f"expected {wanted}"]
            reading = _likely(likely, error, exception) or (
                "" if isinstance(error, exception) else advice(error, place)
            )
            call = running.get(Run(None)).call_of(None)
            raise Complaint(why, [*called_with(call), *lines], reading, said(error)) from None
        details = [*given_to(result), f"yours    no exception, and {summary(result)} comes back", f"expected {wanted}"]
        raise Complaint(why, details, _likely(likely, result, exception), [result])


# ------------------------------------------------------------------------------------------------ demands


def _demand_close(
    yours: Any,
    numbers: np.ndarray,
    expected: np.ndarray,
    why: str,
    source: str,
    rtol: float,
    atol: float,
    up_to_scale: bool,
    lone: bool,
    likely: Likely,
) -> None:
    inputs, code = _inputs(yours), _code()
    if numbers.dtype.kind == "c" and expected.dtype.kind != "c":
        details = [*given_to(yours), f"yours    {numbers.dtype} {numbers.shape}", "expected real numbers"]
        reading = _likely(likely, numbers, expected) or "It is complex: a root of a negative number, or .real left out?"
        raise Complaint(why, details, reading, numbers)
    if lone and expected.size == numbers.size == 1:
        numbers = numbers.reshape(expected.shape)
    if numbers.shape != expected.shape:
        reading = _likely(likely, numbers, expected) or _of_one_part(yours, numbers, expected.shape)
        reading = reading or readings.of_arrangement(numbers, expected, inputs, code)
        raise _shape_complaint(yours, numbers, expected.shape, why, source, reading)
    _demand_finite(yours, numbers, expected, why, source, likely)
    if up_to_scale and (overlap := float((numbers * expected).sum())):
        expected = expected * (abs(overlap) / float((expected * expected).sum()))
    good = agree(numbers, expected, rtol, atol)
    if not good.all():
        details = [*given_to(yours), *side_by_side(numbers, expected, ~good, source=source)]
        reading = _likely(likely, numbers, expected) or (
            readings.of_values(numbers, expected, good, inputs, code, whole=rtol == atol == 0)
            or unnoticed.of_code(code)
            or readings.of_places(numbers, expected, good, inputs, code)
        )
        raise Complaint(why, details, reading, numbers)


def _demand_dtype(yours: Any, numbers: np.ndarray, kind: Any, why: str, likely: Likely) -> None:
    """Demand this kind of numbers; `kind` as `expect.dtype` takes it."""
    if isinstance(kind, type) and kind in (float, int, bool, complex):
        if numbers.dtype.kind not in {float: "f", int: "iu", bool: "b", complex: "c"}[kind]:
            details = [*given_to(yours), f"yours    dtype {numbers.dtype}", f"expected dtype {kind.__name__}"]
            reading = _likely(likely, numbers, kind) or readings.of_dtypes(numbers.dtype, kind)
            raise Complaint(why, details, reading, numbers)
        return
    mine = _bare((yours if is_array(yours) else numbers).dtype)
    wanted = _bare(kind.dtype if is_array(kind) else kind)
    stays = _is_tensor(yours) or not _is_tensor(kind)
    if mine == wanted and stays:
        return
    details = [*given_to(yours), f"yours    {_family(yours)} {mine}", f"expected {'' if stays else 'tensor '}{wanted}"]
    given = running.get(Run(None)).call_of(yours).given
    came = {name: _bare(value.dtype) for name, value in given.items() if is_array(value)}
    reading = _likely(likely, numbers, kind) or readings.of_other_dtype(mine, wanted, came, stays, _code())
    raise Complaint(why, details, reading, [numbers, mine])  # equal numbers of another kind are another mistake


def _bare(dtype: Any) -> str:
    """The name of a dtype of any framework, as in float32."""
    if isinstance(dtype, type | str):
        return np.dtype(dtype).name
    return getattr(dtype, "name", None) or str(dtype).removeprefix("torch.")


def _is_tensor(value: Any) -> bool:
    return is_array(value) and not isinstance(value, np.ndarray | np.generic)


def _family(value: Any) -> str:
    return "tensor" if _is_tensor(value) else "array" if isinstance(value, np.ndarray) else type(value).__name__


def _demand_finite(
    yours: Any, numbers: np.ndarray, expected: np.ndarray, why: str, source: str, likely: Likely
) -> None:
    """Complain of NaN and infinity where `expected` has none, with what NumPy warned of."""
    bad = ~np.isfinite(numbers) & np.isfinite(expected)
    if not bad.any():
        return
    what = "NaN" if np.isnan(numbers[bad]).any() else "infinite"
    count = f"{bad.sum()} of {bad.size} entries {'is' if bad.sum() == 1 else 'are'} {what}"
    shown = side_by_side(numbers, expected, bad, source=source) if source else [count]
    warned = {str(warning.message) for warning in running.get(Run(None)).warned}
    details = [
        *given_to(yours),
        *shown,
        *(f"NumPy warned: {text}" for text in sorted(warned)[:2] if "encountered" in text),
    ]
    reading = _likely(likely, numbers, expected) or readings.of_nonfinite(numbers, warned, _code())
    raise Complaint(f"{why}: yours has {what} entries", details, reading, numbers)


# ------------------------------------------------------------------------------------------------ readings


def _likely(likely: Likely, yours: Any, expected: Any) -> str:
    """What the check itself knows, now that there is a mismatch."""
    if isinstance(likely, Mapping):
        for words, value in likely.items():
            if same(yours, value() if callable(value) else value, unknown=False):
                return words
        return ""
    return likely(yours, expected) if callable(likely) else likely


def _of_one_part(yours: Any, numbers: np.ndarray, shape: tuple) -> str:
    """A tuple came where one array is wanted, each part of it perhaps such an array."""
    if not isinstance(yours, tuple):
        return ""
    several = f"A tuple of {len(yours)} came back where one result is wanted." if numbers.shape[1:] == shape else ""
    return unnoticed.of_result(yours, _code()) or several


def _of_code(yours: Any) -> str:
    """What only the code shows, where nothing else is known."""
    return unnoticed.of_result(yours, _code()) or unnoticed.of_code(_code())


def _of_unfilled(yours: Any, expected: Any) -> str:
    if isinstance(yours, str) and isinstance(expected, str) and "{" in yours and "{" not in expected:
        return "The braces are not filled in: is the f before the quotes missing?"
    return ""


def _none(why: str) -> Complaint:
    run = running.get(Run(None))
    attribute = inspect.isclass(run.given) and isinstance(run.gave, run.given) and hasattr(run.gave, "__dict__")
    reading = unnoticed.of_attribute(run.gave) if attribute else unnoticed.of_nothing(_code())
    return Complaint(why, [*given_to(None), "yours    None"], reading)


def _numbers(yours: Any, why: str, source: str, likely: Likely) -> np.ndarray:
    if yours is None:
        raise _none(why)
    try:
        return array(yours)
    except TypeError as error:
        expected = "expected an array of numbers" + (f"   ({source})" if source else "")
        details = [*given_to(yours), f"yours    {summary(yours)}: {error}", expected]
        reading = likely if isinstance(likely, str) else ""
        reading = reading or unnoticed.of_result(yours, _code()) or readings.of_types(yours)
        raise Complaint(why, details, reading, yours) from None


def _shape_complaint(yours: Any, numbers: np.ndarray, shape: tuple, why: str, source: str, reading: str) -> Complaint:
    expected = f"expected shape {shape}" + (f"   ({source})" if source else "")
    return Complaint(why, [*given_to(yours), f"your shape     {numbers.shape}", expected], reading, numbers)


def _inputs(yours: Any) -> dict[str, np.ndarray]:
    """The arrays and numbers that the call was given that `yours` came from."""
    run, inputs = running.get(None), {}
    for name, value in (run.call_of(yours).given if run else {}).items():
        with contextlib.suppress(TypeError):
            inputs[name] = array(value)
    return inputs


def _code() -> Written:
    """The code of what is checked."""
    return Written(running.get(Run(None)).given)


# ------------------------------------------------------------------------------------------------ showing


def side_by_side(
    yours: np.ndarray,
    expected: np.ndarray,
    bad: np.ndarray,
    names: tuple[str, str] = ("yours", "expected"),
    source: str = "",
) -> list[str]:
    """One array above the other, at most 8 entries, from the first row that differs; with digits enough to differ."""
    where, largest = "", _largest_difference(yours, expected, bad)
    if yours.ndim > 1:
        row = tuple(int(i) for i in np.argwhere(bad)[0][:-1])
        yours, expected, bad = yours[row], expected[row], bad[row]
        where = f"[{', '.join(map(str, row))}] "
    first = int(np.flatnonzero(bad.ravel())[0]) if bad.size > 8 else 0
    start = min(first, max(bad.size - 8, 0))
    if start:
        where += f"from entry {start}: "
    cut = slice(start, start + 8)
    shown, differ = list(zip(yours.ravel()[cut], expected.ravel()[cut], strict=True)), bad.ravel()[cut]
    columns, told = _distinct(shown, differ)
    widths = [max(map(len, column)) for column in columns]
    rows = [" ".join(map(str.rjust, line, widths)) for line in zip(*columns, strict=True)]
    tail = " …" if start + 8 < bad.size else ""
    lines = [f"{name:8} {where}{row}{tail}" for name, row in zip(names, rows, strict=True)]
    lines[-1] += f"   ({source})" if source else ""
    return lines if told else [*lines, f"they differ by {largest}"]


_DIGITS = (6, 9)


def _distinct(pairs: list[tuple], differ: np.ndarray) -> tuple[list[tuple[str, str]], bool]:
    """Each pair as text, with as few digits as show a difference; and whether any are enough."""
    ways = [number, *(lambda value, digits=digits: _precise(value, digits) for digits in _DIGITS)]
    for way in ways:
        columns = [(way(a), way(b)) for a, b in pairs]
        if any(a != b for (a, b), wrong in zip(columns, differ, strict=True) if wrong):
            return columns, True
    return [(number(a), number(b)) for a, b in pairs], False


def _precise(value: Any, digits: int) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float | np.floating) else number(value)


def _largest_difference(yours: np.ndarray, expected: np.ndarray, bad: np.ndarray) -> str:
    if yours.dtype.kind == expected.dtype.kind == "b":
        return "True and False"
    with np.errstate(all="ignore"):
        off = np.abs(yours[bad].astype(complex) - expected[bad].astype(complex))
    return f"{off.max():.1g}"


def difference(before: Any, after: Any, names: tuple[str, str] = ("before", "after")) -> list[str]:
    """Two lines that show what differs between two values, and above them where, if it is inside of a container."""
    place, before, after = _innermost(before, after, ())
    return [*([f"in {', '.join(place)}:"] if place else []), *_two_lines(before, after, names)]


def _innermost(a: Any, b: Any, place: tuple[str, ...]) -> tuple[tuple[str, ...], Any, Any]:
    """The first parts that differ, and the way to them."""
    for where, one, other in _parts(_opened(a), _opened(b)):
        if not same(one, other, exact=True):
            return _innermost(one, other, (*place, where))
    return place, a, b


def _opened(value: Any) -> Any:
    """A module as the dict of its numbers."""
    return value.state_dict() if callable(getattr(value, "state_dict", None)) else value


def _parts(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    """The parts of two containers that are alike but for these, by name; none of arrays."""
    if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
        return [(f"key {key!r}", a[key], b[key]) for key in a]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b) and not _rows(a, b):
        return [(f"entry {i} of the {type(a).__name__}", *pair) for i, pair in enumerate(zip(a, b, strict=True))]
    return []


def _rows(a: Any, b: Any) -> bool:
    """Whether both are numbers of one shape, which are shown side by side; a list of arrays is one of several."""
    if isinstance(a, list | tuple) and any(map(is_array, [*a, *b])):
        return False
    with contextlib.suppress(TypeError):
        return array(a).shape == array(b).shape
    return False


def _two_lines(a: Any, b: Any, names: tuple[str, str]) -> list[str]:
    if _rows(a, b):
        x, y = array(a), array(b)
        bad = ~((x == y) | ((x != x) & (y != y)))
        if bad.any():
            return side_by_side(x, y, bad, names)
    shown = [summary(a), summary(b)]
    if shown[0] == shown[1] or _rows(a, b):
        kinds = [getattr(value, "dtype", type(value).__name__) for value in (a, b)]
        shown = [text if str(kind) in text else f"{text} ({kind})" for text, kind in zip(shown, kinds, strict=True)]
    return [f"{name:8} {text}" for name, text in zip(names, shown, strict=True)]
