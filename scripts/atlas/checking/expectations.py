"""What a check may demand of a result, and how a complaint about it reads."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from atlas.checking import readings
from atlas.checking.calls import NO_RETURN, Run, called_with, given_to, noting, running
from atlas.checking.readings import number
from atlas.checking.values import agree, array, plain, same, summary
from atlas.checking.vocabulary import Complaint


@noting
class expect:
    """What a check may demand. Each raises a Complaint that shows given, yours, expected, and the likely mistake.

    why      the rule that is broken, as a sentence
    source   the authority that the expected value comes from
    likely   what probably happened, where the check knows
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
        likely: str = "",
    ) -> None:
        """Demand numbers within atol + rtol·|expected|, in this shape; a lone number may come as (1,).

        up_to_scale: one positive common factor is free. Results in single precision get the slack of its roundings.
        """
        numbers, expected = _numbers(yours, why, source, likely), array(expected)
        inputs = _inputs(yours)
        if numbers.dtype.kind == "c" and expected.dtype.kind != "c":
            details = [*given_to(yours), f"yours    {numbers.dtype} {numbers.shape}", "expected real numbers"]
            raise Complaint(
                why, details, likely or "It is complex: a root of a negative number, or .real left out?", numbers
            )
        if expected.size == 1 and numbers.size == 1:
            numbers = numbers.reshape(expected.shape)
        if numbers.shape != expected.shape:
            reading = likely or readings.of_arrangement(numbers, expected, inputs)
            raise _shape_complaint(yours, numbers, expected.shape, why, source, reading)
        _demand_finite(yours, numbers, expected, why, source, likely)
        if up_to_scale and (overlap := float((numbers * expected).sum())):
            expected = expected * (abs(overlap) / float((expected * expected).sum()))
        good = agree(numbers, expected, rtol, atol)
        if not good.all():
            details = [*given_to(yours), *side_by_side(numbers, expected, ~good)]
            details[-1] += f"   ({source})"
            raise Complaint(why, details, likely or readings.of_values(numbers, expected, good, inputs), numbers)

    @staticmethod
    def equal(yours: Any, expected: Any, *, why: str, source: str, likely: str = "") -> None:
        """Demand exactly these integers, flags or text (or lists of text), in this shape."""
        try:
            expected = array(expected)
        except TypeError:
            if yours is None:
                raise _none(why) from None
            if not same(yours, expected, unknown=False):
                details = [*given_to(yours), f"yours    {summary(yours)}", f"expected {summary(expected)}   ({source})"]
                raise Complaint(why, details, likely, yours) from None
            return
        expect.close(yours, expected, why=why, source=source, rtol=0, atol=0, likely=likely)

    @staticmethod
    def shape(yours: Any, shape: tuple[int, ...], why: str, *, likely: str = "") -> None:
        """Demand an array (or tensor) of numbers of this shape."""
        numbers = _numbers(yours, why, "", likely)
        if numbers.shape != tuple(shape):
            reading = likely or readings.of_shapes(numbers.shape, tuple(shape), _inputs(yours))
            raise _shape_complaint(yours, numbers, tuple(shape), why, "", reading)

    @staticmethod
    def dtype(yours: Any, kind: type, why: str, *, likely: str = "") -> None:
        """Demand entries of this kind, of any width: float, int, bool or complex."""
        numbers = _numbers(yours, why, "", likely)
        if numbers.dtype.kind not in {float: "f", int: "iu", bool: "b", complex: "c"}[kind]:
            details = [*given_to(yours), f"yours    dtype {numbers.dtype}", f"expected dtype {kind.__name__}"]
            raise Complaint(why, details, likely or readings.of_dtypes(numbers.dtype, kind), numbers)

    @staticmethod
    def kind(yours: Any, kind: type | tuple[type, ...], why: str, *, likely: str = "") -> None:
        """Demand an instance of `kind`."""
        if not isinstance(yours, kind):
            if yours is None:
                raise _none(why)
            wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            details = [*given_to(yours), f"yours    {type(yours).__name__}", f"expected {wanted}"]
            raise Complaint(why, details, likely, yours)

    @staticmethod
    def parts(yours: Any, names: Sequence[str], why: str) -> tuple:
        """Demand a tuple (or list) with one part per name, and return it."""
        if yours is None:
            raise _none(why)
        if not isinstance(yours, tuple | list) or len(yours) != len(names):
            details = [*given_to(yours), f"yours    {summary(yours)}", f"expected ({', '.join(names)})"]
            raise Complaint(why, details, f"End with: return {', '.join(names)}", yours)
        return tuple(yours)

    @staticmethod
    def finite(yours: Any, why: str, *, likely: str = "") -> None:
        """Demand that no entry is NaN or infinite."""
        numbers = _numbers(yours, why, "", likely)
        _demand_finite(yours, numbers, np.zeros(numbers.shape), why, "", likely)

    @staticmethod
    def true(condition: Any, why: str, *details: str, likely: str = "") -> None:
        """Demand a property; `details` are lines that show the evidence."""
        if not condition:
            call = running.get(Run(None)).call_of(None)
            evidence = [list(details), call.result] if plain(call.result) else list(details) or None
            raise Complaint(why, [*called_with(call), *details], likely, evidence)


def _inputs(yours: Any) -> dict[str, np.ndarray]:
    """The arrays and numbers that the call was given that `yours` came from."""
    run, inputs = running.get(None), {}
    for name, value in (run.call_of(yours).given if run else {}).items():
        with contextlib.suppress(TypeError):
            inputs[name] = array(value)
    return inputs


def _none(why: str) -> Complaint:
    return Complaint(why, [*given_to(None), "yours    None"], NO_RETURN)


def _numbers(yours: Any, why: str, source: str, likely: str) -> np.ndarray:
    if yours is None:
        raise _none(why)
    try:
        return array(yours)
    except TypeError as error:
        expected = "expected an array of numbers" + (f"   ({source})" if source else "")
        details = [*given_to(yours), f"yours    {summary(yours)}: {error}", expected]
        raise Complaint(why, details, likely or readings.of_types(yours), yours) from None


def _shape_complaint(yours: Any, numbers: np.ndarray, shape: tuple, why: str, source: str, reading: str) -> Complaint:
    expected = f"expected shape {shape}" + (f"   ({source})" if source else "")
    return Complaint(why, [*given_to(yours), f"your shape     {numbers.shape}", expected], reading, numbers)


def _demand_finite(yours: Any, numbers: np.ndarray, expected: np.ndarray, why: str, source: str, likely: str) -> None:
    """Complain of NaN and infinity where `expected` has none, with what NumPy warned of."""
    bad = ~np.isfinite(numbers) & np.isfinite(expected)
    if not bad.any():
        return
    what = "NaN" if np.isnan(numbers[bad]).any() else "infinite"
    count = f"{bad.sum()} of {bad.size} entries are {what}"
    shown = side_by_side(numbers, expected, bad) if source else [count]
    shown[-1] += f"   ({source})" if source else ""
    warned = {str(warning.message) for warning in running.get(Run(None)).warned}
    details = [
        *given_to(yours),
        *shown,
        *(f"NumPy warned: {text}" for text in sorted(warned)[:2] if "encountered" in text),
    ]
    raise Complaint(
        f"{why}: yours has {what} entries", details, likely or readings.of_nonfinite(numbers, warned), numbers
    )


def side_by_side(
    yours: np.ndarray, expected: np.ndarray, bad: np.ndarray, names: tuple[str, str] = ("yours", "expected")
) -> list[str]:
    """One array above the other, at most 8 entries, from the first row that differs."""
    where = ""
    if yours.ndim > 1:
        row = tuple(int(i) for i in np.argwhere(bad)[0][:-1])
        yours, expected, bad = yours[row], expected[row], bad[row]
        where = f"[{', '.join(map(str, row))}] "
    first = int(np.flatnonzero(bad.ravel())[0]) if bad.size > 8 else 0
    start = min(first, max(bad.size - 8, 0))
    if start:
        where += f"from entry {start}: "
    cut = slice(start, start + 8)
    columns = [(number(a), number(b)) for a, b in zip(yours.ravel()[cut], expected.ravel()[cut], strict=True)]
    widths = [max(map(len, column)) for column in columns]
    rows = [" ".join(map(str.rjust, line, widths)) for line in zip(*columns, strict=True)]
    tail = " …" if start + 8 < bad.size else ""
    return [f"{name:8} {where}{row}{tail}" for name, row in zip(names, rows, strict=True)]
