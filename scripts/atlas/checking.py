"""The check engine: runs a learner's function against an authority and says what is wrong, and the likely why.

A workshop's `checks.py` holds one check per exercise:

    @exercise(hints=["a nudge", "nearly the code"], mistakes=[adds_instead])
    def scale(learner, rng):
        x = rng.normal(size=(5, 3))
        expect.close(learner(x, 0.5), 0.5 * x, why="every entry times the factor", source="the definition")

`learner` is the learner's function (or class), watched: its inputs must come back unchanged, the same input must
give the same result, an endless loop is ended. `expect` compares; its first complaint ends the check. `mistakes`
are functions with the exercise's signature that make a known mistake on purpose; where the learner's result agrees
with one of them, its docstring is what the learner reads. Nothing here imports a framework.
"""

import builtins
import contextlib
import contextvars
import copy
import ctypes
import html
import importlib.util
import inspect
import io
import linecache
import math
import os
import random
import signal
import sys
import sysconfig
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

PASSED, FAILED, UNTOUCHED, BROKEN = "passed", "failed", "untouched", "error"
_KIT = str(Path(__file__).parent)
_LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")})
_PRINTED_LINES = 12


class CheckFailed(AssertionError):
    """Raised by `lab.check` instead of a report where ATLAS_STRICT=1 (tests, CI)."""


class Complaint(Exception):
    """What an `expect` found wrong: `why` names the rule, `details` are the lines below it."""

    def __init__(self, why: str, details: Iterable[str] = ()):
        super().__init__(why)
        self.why, self.details = why, list(details)


class _TimeUp(BaseException):
    """Ends learner code that runs too long; not an Exception, so that `except Exception` cannot swallow it."""


@dataclass(frozen=True)
class Check:
    """One exercise's check. `function(learner, rng)` raises a Complaint, or returns when all is well."""

    name: str
    function: Callable
    hints: tuple[str, ...]
    mistakes: tuple[Callable, ...]
    seconds: float

    def __post_init__(self):
        if not self.hints or not all(hint.strip() for hint in self.hints):
            raise ValueError(f"the check of {self.name} needs hints, and none of them empty")
        for mistake in self.mistakes:
            if not (mistake.__doc__ or "").strip():
                raise ValueError(f"mistake {mistake.__name__} of {self.name} needs a docstring: it is the message")


def exercise(*, hints: Sequence[str], mistakes: Sequence[Callable] = (), seconds: float = 10) -> Callable:
    """Make the check of the exercise that has the decorated function's name; `seconds` is the time limit of a run."""
    return lambda function: Check(function.__name__, function, tuple(hints), tuple(mistakes), seconds)


def load_checks(folder: Path) -> dict[str, Check]:
    """The checks in `folder`/checks.py by exercise name, in file order."""
    file = Path(folder) / "checks.py"
    spec = importlib.util.spec_from_file_location(f"atlas_checks_{Path(folder).name.replace('-', '_')}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {value.name: value for value in vars(module).values() if isinstance(value, Check)}


# ------------------------------------------------------------------------------------------------ outcomes


@dataclass(frozen=True)
class Outcome:
    """The verdict on one exercise: status is passed, failed, untouched, or error (the check itself broke)."""

    exercise: str
    status: str
    why: str = ""
    details: tuple[str, ...] = ()
    printed: str = ""

    _LOOKS = {  # noqa: RUF012
        PASSED: ("✔", "passed", "#2e9e62"),
        FAILED: ("✘", "not yet", "#d9632a"),
        UNTOUCHED: ("○", "not attempted", "#8a8f98"),
        BROKEN: ("!", "the check broke", "#b04fc4"),
    }

    @property
    def passed(self) -> bool:
        return self.status == PASSED

    def text(self) -> str:
        """The report as plain text, a heading line and indented details."""
        mark, label, _ = self._LOOKS[self.status]
        lines = [f"{mark} {self.exercise}   {self.why or label}", *(f"  {line}" for line in self.details)]
        if self.printed:
            lines += ["  your code printed:", *(f"    {line}" for line in self.printed.splitlines())]
        return "\n".join(lines)

    def html(self) -> str:
        """The report for a notebook; colours carry no meaning of their own, text takes the theme's colour."""
        mark, label, colour = self._LOOKS[self.status]
        body = "\n".join(self.details)
        if self.printed:
            body += ("\n" if body else "") + "your code printed:\n" + self.printed
        pre = f'<pre style="{_PRE}">{html.escape(body)}</pre>' if body else ""
        return (
            f'<div style="border-left:4px solid {colour};padding:.35em .8em;margin:.3em 0;background:{colour}18">'
            f'<b><span style="color:{colour}">{mark}</span> {html.escape(self.exercise)}</b> · {label}'
            f"{'<br>' + html.escape(self.why) if self.why else ''}{pre}</div>"
        )


_PRE = "margin:.4em 0 0;padding:0;background:transparent;color:inherit;white-space:pre-wrap;font-size:.92em"


# ------------------------------------------------------------------------------------------------ running a check


@dataclass
class _Call:
    """What the learner's function was last given (copies) and what it gave back."""

    names: tuple[str, ...] = ()
    values: tuple = ()
    result: Any = None
    plain: bool = False


@dataclass
class _Run:
    check: Check
    call: _Call | None = None
    warned: list = field(default_factory=list)


_run: contextvars.ContextVar[_Run] = contextvars.ContextVar("the check that is running")


def run_check(check: Check, given: Any, seed: int = 0) -> Outcome:
    """Run `check` on the learner's function or class `given`; never raises, whatever `given` does.

    `seed` chooses the random inputs. Global random state, warning filters and standard output are as before afterwards.
    """
    run, printed = _Run(check), io.StringIO()
    token = _run.set(run)
    try:
        with (
            _random_state_kept(seed),
            contextlib.redirect_stdout(printed),
            warnings.catch_warnings(record=True) as seen,
        ):
            warnings.simplefilter("always")
            run.warned = seen
            try:
                with _time_limit(check.seconds):
                    check.function(Learner(given, run), np.random.default_rng(seed))
                verdict = (PASSED, "", [])
            except Complaint as complaint:
                verdict = (FAILED, complaint.why, complaint.details)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                verdict = _verdict_on(error, check)
    finally:
        _run.reset(token)
    status, why, details = verdict
    lines = printed.getvalue().splitlines()
    if len(lines) > _PRINTED_LINES:
        lines = [*lines[:_PRINTED_LINES], f"… and {len(lines) - _PRINTED_LINES} more lines"]
    return Outcome(check.name, status, why, tuple(details), "\n".join(lines))


def _verdict_on(error: BaseException, check: Check) -> tuple[str, str, list[str]]:
    """Status, reason and details for an exception that left the check."""
    frame = _learner_frame(error)
    where = [f"at line {frame.lineno} of {_file_name(frame.filename)}:  {frame.line}"] if frame and frame.line else []
    if isinstance(error, _TimeUp):
        why = f"stopped after {check.seconds:g} s without a result"
        return (
            FAILED,
            why,
            [*where, "Is there a loop whose condition never turns false, or far too much work in a loop?"],
        )
    if isinstance(error, NotImplementedError) and frame:
        missing = str(error).split(".")[0]
        if missing in ("", check.name):
            return UNTOUCHED, "", []
        return FAILED, f"needs {missing}, which is not written yet", ["Do that exercise first, or lab.catch_up it."]
    if frame is None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        details = [f"{type(error).__name__}: {error}", f"at line {last.lineno} of {_file_name(last.filename)}"]
        details.append("This is the kit's fault, not yours. Please report it; lab.catch_up lets you go on.")
        return BROKEN, "the check itself failed", details
    if isinstance(error, SystemExit):
        return FAILED, "your code ends Python: leave out exit() and quit()", where
    return FAILED, f"{type(error).__name__}: {error}", [*where, *_given(), *_advice(error)]


def _advice(error: BaseException) -> list[str]:
    """A sentence for the exceptions that beginners meet most."""
    text = str(error)
    if isinstance(error, NameError):
        return ["Is it spelt as in the signature? Has the cell that defines or imports it been run?"]
    if isinstance(error, ValueError | RuntimeError) and ("shape" in text or "broadcast" in text or "mat1" in text):
        return ["Two shapes do not fit. Print both .shape and write the shape beside each line, as in # (B, K)."]
    if isinstance(error, ValueError) and "ambiguous" in text:
        return [
            "An `if` needs one truth value and met an array. Compare entries with np.where or a mask, or use .any()."
        ]
    if isinstance(error, RecursionError):
        return ["The function calls itself without end."]
    return []


def _learner_frame(error: BaseException) -> traceback.FrameSummary | None:
    """The deepest frame that is neither the kit's nor a library's: the learner's own line."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        file = frame.f_code.co_filename
        inside = file.startswith((_KIT, *_LIBRARIES, "<frozen")) or Path(file).name == "checks.py"
        if not inside:
            return traceback.FrameSummary(file, line, frame.f_code.co_name, line=linecache.getline(file, line).strip())
    return None


def _file_name(file: str) -> str:
    """How a learner calls the file: a notebook cell has a meaningless path."""
    return "your cell" if "ipykernel" in file or file.startswith("<ipython") else Path(file).name


class Learner:
    """The learner's function or class under watch; call it as the learner's own.

    Each call checks that inputs come back unchanged and, where all inputs are plain data, that a second call with the
    same input gives the same result.
    """

    def __init__(self, given: Any, run: _Run):
        self._given, self._seen = given, run
        try:
            self._signature = inspect.signature(given)
        except (TypeError, ValueError):
            self._signature = None

    def __call__(self, *args, **kwargs):
        call = _Call(*self._named(args, kwargs), plain=_plain((args, kwargs)))
        self._seen.call = call
        result = self._given(*args, **kwargs)
        self._unchanged(call, args, kwargs)
        call.result = _kept(result)
        if call.plain and not inspect.isclass(self._given):
            again = self._given(*args, **kwargs)
            if not same(call.result, again):
                details = [*_given(), f"first    {_summary(call.result)}", f"second   {_summary(again)}"]
                details.append("Does it draw random numbers, or change something outside the function?")
                raise Complaint("the same input must give the same result, and a second call gave another", details)
        return result

    def _named(self, args: tuple, kwargs: dict) -> tuple[tuple[str, ...], tuple]:
        """Names and copies of the arguments; complains where the learner's signature cannot take them."""
        values = tuple(_kept(value) for value in (*args, *kwargs.values()))
        if self._signature is None:
            return tuple(f"argument {i + 1}" for i in range(len(values))), values
        try:
            names = tuple(self._signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            wanted = ", ".join(
                [*(_summary(value) for value in args), *(f"{k}={_summary(v)}" for k, v in kwargs.items())]
            )
            name = self._seen.check.name
            details = [f"called as {name}({wanted})", f"yours is  {name}{self._signature}", f"{error}"]
            raise Complaint("the arguments in the first line must stay as the exercise gives them", details) from None
        return (names + ("",) * len(values))[: len(values)], values

    def _unchanged(self, call: _Call, args: tuple, kwargs: dict) -> None:
        for name, before, after in zip(call.names, call.values, (*args, *kwargs.values()), strict=True):
            if _plain(after) and not same(before, after, exact=True):
                details = [f"before   {_summary(before)}", f"after    {_summary(after)}"]
                details.append(
                    f"Operations such as {name} += … or {name}[…] = … write into the caller's array; make a new one."
                )
                raise Complaint(f"your function changes its input {name}: the caller still needs it", details)

    def __getattr__(self, name: str):
        return getattr(self._given, name)


@contextlib.contextmanager
def _random_state_kept(seed: int) -> Iterator[None]:
    """Seed the global generators for the check and put their states back after it, torch's if it is loaded."""
    torch = sys.modules.get("torch")
    torch = torch if hasattr(torch, "get_rng_state") else None
    states = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    if torch:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if torch:
            torch.set_rng_state(states[2])


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End the block with _TimeUp after `seconds`; keeps trying where learner code swallows it.

    In the main thread a timer signal, which also wakes a sleep; elsewhere an asynchronous exception. One long call
    into compiled code ends first.
    """
    running = True

    def ring(*_):
        if running:
            raise _TimeUp

    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
        try:
            yield
        finally:
            running = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return

    done, target = threading.Event(), ctypes.c_ulong(threading.get_ident())

    def watch():
        wait = seconds
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(target, ctypes.py_object(_TimeUp))
            wait = 0.05

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(target, None)


# ------------------------------------------------------------------------------------------------ values


def array(value: Any) -> np.ndarray:
    """A NumPy array of a list, number, NumPy array or tensor of any framework; raises TypeError for anything else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "numpy") and callable(value.numpy):
        value = value.numpy()
    try:
        result = np.asarray(value)
    except ValueError as error:
        raise TypeError("rows of different lengths") from error
    if result.dtype == object or result.dtype.kind not in "biufc":
        raise TypeError(f"{type(value).__name__} is not an array of numbers")
    return result


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def _plain(value: Any) -> bool:
    """Whether `value` is data (numbers, text, arrays, tensors, containers of them), not an object with a life."""
    if isinstance(value, list | tuple | set):
        return all(_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_plain(item) for item in value.values())
    return (
        value is None or isinstance(value, bool | int | float | complex | str | types.FunctionType) or _is_array(value)
    )


def _kept(value: Any) -> Any:
    """A copy of plain data that later changes do not reach; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if hasattr(value, "detach") and hasattr(value, "clone"):
        return value.detach().clone()
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_kept(item) for item in value)
    if isinstance(value, dict):
        return {key: _kept(item) for key, item in value.items()}
    return value


def same(a: Any, b: Any, exact: bool = False, unknown: bool = True) -> bool:
    """Whether two results agree: arrays within 1e-6 relative (or exactly), containers item by item.

    unknown: the answer for objects that cannot be compared, such as two models.
    """
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and not (_numeric(a) and _numeric(b)):
        return len(a) == len(b) and all(same(x, y, exact, unknown) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key], exact, unknown) for key in a)
    if isinstance(a, str | types.NoneType) or isinstance(b, str | types.NoneType):
        return type(a) is type(b) and a == b
    try:
        a, b = array(a), array(b)
    except TypeError:
        return unknown
    if a.shape != b.shape:
        return False
    return (
        np.array_equal(a, b, equal_nan=a.dtype.kind in "fc") if exact else np.allclose(a, b, 1e-6, 1e-9, equal_nan=True)
    )


def _numeric(value: Any) -> bool:
    try:
        array(value)
    except (TypeError, ValueError):
        return False
    return True


def _number(value: Any) -> str:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, complex) or not math.isfinite(value):
        return str(value)
    return f"{value:.3f}" if 1e-2 <= abs(value) < 1e3 or value == 0 else f"{value:.3g}"


def _summary(value: Any) -> str:
    """One line for a value: small ones in full, arrays by shape and type."""
    if isinstance(value, str):
        return repr(value if len(value) < 40 else value[:37] + "…")
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float | complex | np.generic):
        return _number(value)
    if _is_array(value):
        try:
            numbers = array(value)
        except TypeError:
            return f"{type(value).__name__} {tuple(value.shape)}"
        if numbers.size <= 6 and numbers.ndim <= 1:
            return (
                "[" + " ".join(_number(entry) for entry in numbers.ravel()) + "]" if numbers.ndim else _number(numbers)
            )
        return f"{tuple(numbers.shape)} {numbers.dtype}"
    if isinstance(value, list | tuple):
        if len(value) <= 6:
            inner = ", ".join(_summary(item) for item in value)
            return f"[{inner}]" if isinstance(value, list) else f"({inner})"
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, types.FunctionType):
        return f"function {value.__name__}"
    if isinstance(value, dict):
        return f"dict with {', '.join(map(str, value))}"
    return type(value).__name__


def _given() -> list[str]:
    """The line that tells what the function was called with."""
    run = _run.get(None)
    if run is None or run.call is None or not run.call.values:
        return []
    pairs = zip(run.call.names, run.call.values, strict=True)
    return ["for " + ", ".join(f"{name} {_summary(value)}".strip() for name, value in pairs)]


# ------------------------------------------------------------------------------------------------ expect


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
        """Demand numbers within atol + rtol·|expected|; `up_to_scale` allows one common factor. A lone number may be (1,)."""
        numbers = expect._numbers(yours, why, source, likely)
        expected = array(expected)
        if expected.size == 1 and numbers.size == 1:
            numbers = numbers.reshape(expected.shape)
        if numbers.dtype.kind == "c" and expected.dtype.kind != "c":
            raise Complaint(why, [*_given(), f"yours    {_summary(numbers)}: complex", "expected real numbers"])
        if numbers.shape != expected.shape:
            raise expect._shape_complaint(numbers.shape, expected.shape, why, source, likely)
        if up_to_scale and numbers.any():
            factor = (numbers * expected).sum() / (expected * expected).sum()
            expected = expected * abs(factor)
        expect._no_nan(numbers, expected, why, source, likely)
        good = np.isclose(numbers, expected, rtol, atol, equal_nan=True)
        if not good.all():
            details = [*_given(), *_side_by_side(numbers, expected, ~good, source)]
            raise Complaint(why, [*details, *_readings(likely, numbers, expected, good)])

    @staticmethod
    def equal(yours: Any, expected: Any, *, why: str, source: str, likely: str = "") -> None:
        """Demand exactly these integers, flags or text, in this shape."""
        if isinstance(expected, str):
            if yours != expected:
                raise Complaint(why, [*_given(), f"yours    {_summary(yours)}", f"expected {expected!r} ({source})"])
            return
        expect.close(yours, expected, why=why, source=source, rtol=0, atol=0, likely=likely)

    @staticmethod
    def shape(yours: Any, shape: tuple[int, ...], why: str, *, likely: str = "") -> None:
        """Demand an array (or tensor) of numbers of this shape."""
        numbers = expect._numbers(yours, why, "", likely)
        if numbers.shape != tuple(shape):
            raise expect._shape_complaint(numbers.shape, tuple(shape), why, "", likely)

    @staticmethod
    def kind(yours: Any, kind: type | tuple[type, ...], why: str, *, likely: str = "") -> None:
        """Demand an instance of `kind`."""
        if not isinstance(yours, kind):
            if yours is None:
                raise expect._none(why)
            wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            details = [*_given(), f"yours    {type(yours).__name__}", f"expected {wanted}"]
            raise Complaint(why, [*details, *([likely] if likely else [])])

    @staticmethod
    def parts(yours: Any, names: Sequence[str], why: str) -> tuple:
        """Demand a tuple (or list) with one part per name, and return it."""
        if yours is None:
            raise expect._none(why)
        if not isinstance(yours, tuple | list) or len(yours) != len(names):
            got = f"{type(yours).__name__} of {len(yours)}" if isinstance(yours, tuple | list) else _summary(yours)
            details = [*_given(), f"yours    {got}", f"expected ({', '.join(names)})"]
            raise Complaint(why, [*details, *_readings("", None, None, None), f"End with: return {', '.join(names)}"])
        return tuple(yours)

    @staticmethod
    def finite(yours: Any, why: str, *, likely: str = "") -> None:
        """Demand that no entry is NaN or infinite."""
        numbers = expect._numbers(yours, why, "", likely)
        expect._no_nan(numbers, np.zeros(numbers.shape), why, "", likely)

    @staticmethod
    def true(condition: Any, why: str, *details: str, likely: str = "") -> None:
        """Demand a property; `details` are lines that show the evidence."""
        if not condition:
            raise Complaint(why, [*_given(), *details, *_readings(likely, None, None, None)])

    # ---- the parts

    @staticmethod
    def _none(why: str) -> Complaint:
        return Complaint(
            why, [*_given(), "yours    None", "Is the `return` missing, or does one branch end without it?"]
        )

    @staticmethod
    def _numbers(yours: Any, why: str, source: str, likely: str) -> np.ndarray:
        if yours is None:
            raise expect._none(why)
        try:
            return array(yours)
        except TypeError as error:
            shown = f"{type(yours).__name__} of {len(yours)}" if isinstance(yours, list | tuple) else _summary(yours)
            details = [
                *_given(),
                f"yours    {shown}",
                "expected an array of numbers" + (f" ({source})" if source else ""),
            ]
            raise Complaint(
                why, [*details, *(_readings(likely, None, None, None) or [f"It is no array: {error}."])]
            ) from None

    @staticmethod
    def _shape_complaint(yours: tuple, expected: tuple, why: str, source: str, likely: str) -> Complaint:
        details = [
            *_given(),
            f"your shape     {yours}",
            f"expected shape {expected}" + (f" ({source})" if source else ""),
        ]
        return Complaint(why, [*details, *(_readings(likely, None, None, None) or _shape_reading(yours, expected))])

    @staticmethod
    def _no_nan(numbers: np.ndarray, expected: np.ndarray, why: str, source: str, likely: str) -> None:
        bad = (
            ~np.isfinite(numbers) & np.isfinite(expected)
            if numbers.dtype.kind in "fc"
            else np.zeros(numbers.shape, bool)
        )
        if not bad.any():
            return
        what = "NaN" if np.isnan(numbers[bad]).any() else "infinite"
        shown = _side_by_side(numbers, expected, bad, source) if source else [f"{bad.sum()} entries are {what}"]
        details = [*_given(), *shown]
        warned = {str(warning.message) for warning in _run.get().warned if issubclass(warning.category, RuntimeWarning)}
        details += [f"NumPy warned: {text}" for text in sorted(warned)[:2]]
        reading = "Overflow (exp of a large number), a logarithm of 0, or 0/0 gives such entries: where can one arise?"
        raise Complaint(
            f"{why}: yours has {what} entries", [*details, *(_readings(likely, None, None, None) or [reading])]
        )


def _side_by_side(yours: np.ndarray, expected: np.ndarray, bad: np.ndarray, source: str) -> list[str]:
    """`yours` above `expected`, at most 8 entries, from the first row that differs."""
    where = ""
    if yours.ndim > 1:
        row = tuple(np.argwhere(bad)[0][:-1])
        yours, expected, bad = yours[row], expected[row], bad[row]
        where = f"[{', '.join(map(str, row))}] "
    first = int(np.flatnonzero(bad.ravel())[0]) if bad.size > 8 else 0
    start = min(first, max(bad.size - 8, 0))
    if start:
        where += f"from entry {start}: "
    cut = slice(start, start + 8)
    columns = [(_number(a), _number(b)) for a, b in zip(yours.ravel()[cut], expected.ravel()[cut], strict=True)]
    widths = [max(map(len, column)) for column in columns]
    rows = [
        " ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in zip(*columns, strict=True)
    ]
    tail = " …" if start + 8 < bad.size else ""
    return [f"yours    {where}{rows[0]}{tail}", f"expected {where}{rows[1]}{tail}   ({source})"]


def _readings(likely: str, yours: Any, expected: Any, good: Any) -> list[str]:
    """At most one sentence on what probably happened: a named mistake, the check's own, or a relation in the numbers."""
    named = _matching_mistake()
    if named:
        return [named]
    if likely:
        return [likely]
    relation = _relation(yours, expected, good) if yours is not None else ""
    return [relation] if relation else []


def _matching_mistake() -> str:
    """The docstring of the first known mistake that gives just what the learner's function gave."""
    run = _run.get(None)
    if run is None or run.call is None or not run.call.plain:
        return ""
    for mistake in run.check.mistakes:
        with contextlib.suppress(Exception), np.errstate(all="ignore"):
            if same(mistake(*copy.deepcopy(run.call.values)), run.call.result, unknown=False):
                return " ".join(mistake.__doc__.split())
    return ""


def _shape_reading(yours: tuple, expected: tuple) -> list[str]:
    if len(yours) == 2 and yours == expected[::-1]:
        return ["The two axes are swapped: is a transpose missing, or one too many?"]
    if len(yours) > len(expected) and yours[-1:] == expected[-1:] and len(set(yours)) == 1 and len(expected) == 1:
        return [f"({yours[0]},) met ({yours[0]}, 1) and was broadcast to {yours}: give both the same number of axes."]
    if tuple(n for n in yours if n != 1) == tuple(n for n in expected if n != 1):
        more = len(yours) > len(expected)
        return [
            "There is an axis of length 1 too many: keepdims, or [:, None]?"
            if more
            else "An axis of length 1 is missing."
        ]
    if np.prod(yours, dtype=int) == np.prod(expected, dtype=int):
        return ["The number of entries is right, their arrangement is not: look at reshape and transpose."]
    if len(yours) < len(expected):
        return ["An axis is lost: is there a sum, mean or index over an axis that should stay?"]
    if len(yours) > len(expected):
        return ["There is an axis too many: is a sum or mean over it missing?"]
    return ["Write the shape of each intermediate result beside its line."]


def _relation(yours: np.ndarray, expected: np.ndarray, good: np.ndarray) -> str:
    """How wrong numbers hang together with the right ones, when they do; tried from the telling to the vague."""
    yours, expected = yours.astype(float), expected.astype(float)

    def agree(a, b):
        return np.allclose(a, b, 1e-4, 1e-7)

    if not yours.any():
        return "Every entry is 0: is the result ever filled in?"
    if agree(yours, -expected):
        return "Right size, wrong sign: look at each minus."
    if yours.ndim == 2 and yours.shape[0] == yours.shape[1] and agree(yours, expected.T):
        return "It is the transpose of the right result."
    solid = np.abs(expected) > 1e-9
    if solid.all() and yours.size > 1:
        ratio = yours / expected
        if agree(ratio, ratio.flat[0]):
            return f"Every entry is {_number(ratio.flat[0])} times the right one{_same_number(ratio.flat[0])}"
    elif yours.size == 1 and solid.all():
        factor = _same_number(float(yours.flat[0] / expected.flat[0]))
        if factor != ".":
            return f"It is {_number(yours.flat[0] / expected.flat[0])} times the right number{factor}"
    shift = yours - expected
    if yours.size > 1 and agree(shift, shift.flat[0]):
        return f"Every entry is off by the same {_number(shift.flat[0])}: a term is missing or one too many."
    if yours.size > 1 and agree(np.sort(yours.ravel()), np.sort(expected.ravel())):
        return "The entries are right, their order is not."
    with np.errstate(all="ignore"):
        for name, function in _TRANSFORMS.items():
            if agree(yours, function(expected)):
                return f"It is the {name} of the right result."
    if agree(yours, np.trunc(expected)) or agree(yours, np.round(expected)):
        return "The entries are whole numbers: is an integer array or // cutting off the fractions?"
    if good.any() and good.ndim > 1:
        rows = np.flatnonzero(~good.reshape(len(good), -1).all(1))
        if len(rows) < len(good):
            which = ", ".join(map(str, rows[:6])) + (" …" if len(rows) > 6 else "")
            return f"Rows {which} are wrong, the other {len(good) - len(rows)} are right: what sets them apart?"
    if good.any():
        return f"{(~good).sum()} of {good.size} entries are wrong: what sets them apart?"
    if np.allclose(yours, expected, 0.02, 1e-3):
        return "Nearly right: is a small term (an epsilon, float32 for float64) in another place?"
    return ""


_TRANSFORMS = {
    "exponential": np.exp,
    "logarithm": np.log,
    "square": np.square,
    "square root": np.sqrt,
    "inverse": np.reciprocal,
}


def _same_number(factor: float) -> str:
    """', and 5 is the length of x': says where a telling factor comes from, when an input has that size."""
    run = _run.get(None)
    for number, verb in ((factor, "left out"), (1 / factor if factor else 0, "done once too often")):
        for name, value in zip(run.call.names, run.call.values, strict=True) if run and run.call else ():
            for axis, size in enumerate(getattr(value, "shape", ())):
                if size > 1 and math.isclose(number, size, rel_tol=1e-4):
                    return f"; {size} is the length of axis {axis} of {name}: is a division by it {verb}?"
    return "."


def strict() -> bool:
    """Whether a failed check raises (tests, CI) instead of reporting."""
    return os.environ.get("ATLAS_STRICT") == "1"


def is_exercise_object(value: Any) -> bool:
    """Whether a learner can hand this to a check: a function or a class, not its result."""
    return inspect.isclass(value) or (builtins.callable(value) and hasattr(value, "__name__"))
