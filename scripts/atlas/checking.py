"""The check engine: runs a learner's function against an authority and says what is wrong, and the likely why.

A workshop's `checks.py` holds one check per exercise:

    @exercise(hints=["a nudge", "nearly the code"], mistakes=[adds_instead])
    def scale(learner, rng):
        x = rng.normal(size=(5, 3))
        expect.close(learner(x, 0.5), 0.5 * x, why="every entry times the factor", source="the definition")

`learner` is the learner's function (or class), watched: its inputs must come back unchanged, the same input must
give the same result, an endless loop is ended. `expect` compares; its first complaint ends the check. `mistakes`
are functions (or classes) with the exercise's signature that make a known mistake on purpose: where the check says
the same of one of them as of the learner's, its docstring is what the learner reads; elsewhere `likely` or what
`readings` finds in the numbers. A check draws what is random from `rng` only, so that it can run again.
Nothing here imports a framework.
"""

import builtins
import contextlib
import contextvars
import copy
import ctypes
import dis
import html
import importlib.util
import inspect
import io
import linecache
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

from atlas import hardware, readings
from atlas.readings import number as _number

PASSED, FAILED, UNTOUCHED, BROKEN = "passed", "failed", "untouched", "error"
_KIT = str(Path(__file__).parent)
_LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")})
_PRINTED_LINES, _PRINTED_CHARACTERS = 12, 2000


class CheckFailed(AssertionError):
    """Raised by `lab.check` instead of a report where ATLAS_STRICT=1 (tests, CI)."""


class Complaint(Exception):
    """What an `expect` found wrong.

    why      the rule that is broken
    details  the lines below it: given, yours, expected
    reading  the likely cause, where one is seen
    yours    what the learner's code gave, to recognise a known mistake by; None: it cannot be
    """

    def __init__(self, why: str, details: Iterable[str] = (), reading: str = "", yours: Any = None):
        super().__init__(why)
        self.why, self.details, self.reading, self.yours = why, list(details), reading, yours


class _TimeUp(BaseException):
    """Ends learner code that runs too long; not an Exception, so that `except Exception` cannot swallow it.

    Code that swallows even this gets it again on its next line, which lies in its `except`.
    """

    def __init__(self):
        frame = sys._getframe(1)
        if frame.f_code.co_filename == __file__:  # raised by _ring or _raise_on_next_line
            frame = frame.f_back
        while frame is not None and frame.f_code.co_filename != __file__:
            frame.f_trace = _raise_on_next_line
            frame = frame.f_back
        sys.settrace(lambda *_: None)  # which lets the frames' own tracing begin


def _raise_on_next_line(_frame: types.FrameType, event: str, _argument: Any) -> Callable:
    if event == "line":
        raise _TimeUp
    return _raise_on_next_line


@dataclass(frozen=True)
class Check:
    """One exercise's check. `function(learner, rng)` raises a Complaint, or returns when all is well."""

    name: str
    function: Callable
    hints: tuple[str, ...]
    mistakes: tuple[Callable, ...]
    seconds: float
    random: bool = False

    def __post_init__(self):
        if not self.hints or not all(hint.strip() for hint in self.hints):
            raise ValueError(f"the check of {self.name} needs hints, and none of them empty")
        for mistake in self.mistakes:
            if not (mistake.__doc__ or "").strip():
                raise ValueError(f"mistake {mistake.__name__} of {self.name} needs a docstring: it is the message")


def exercise(
    *, hints: Sequence[str], mistakes: Sequence[Callable] = (), seconds: float = 10, random: bool = False
) -> Callable:
    """Make the check of the exercise that has the decorated function's name.

    seconds: the time limit of a run. random: the function is meant to draw from global generators, as dropout does;
    then a second call may give something else.
    """
    return lambda function: Check(function.__name__, function, tuple(hints), tuple(mistakes), seconds, random)


def load_checks(folder: Path) -> dict[str, Check]:
    """The checks in `folder`/checks.py by exercise name, in file order."""
    file = Path(folder) / "checks.py"
    spec = importlib.util.spec_from_file_location(f"atlas_checks_{Path(folder).name.replace('-', '_')}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {value.name: value for value in vars(module).values() if isinstance(value, Check)}


def strict() -> bool:
    """Whether a failed check raises (tests, CI) instead of reporting."""
    return os.environ.get("ATLAS_STRICT") == "1"


# ------------------------------------------------------------------------------------------------ outcomes

_LOOKS = {
    PASSED: ("✔", "passed", "#2e9e62"),
    FAILED: ("✘", "not yet", "#d9632a"),
    UNTOUCHED: ("○", "not attempted", "#8a8f98"),
    BROKEN: ("!", "the check broke", "#b04fc4"),
}
"""Status → mark, words, colour of the mark; readable on white and on black."""


@dataclass(frozen=True)
class Outcome:
    """The verdict on one exercise: status is passed, failed, untouched, or error (the check itself broke)."""

    exercise: str
    status: str
    why: str = ""
    details: tuple[str, ...] = ()
    printed: str = ""

    @property
    def passed(self) -> bool:
        return self.status == PASSED

    @property
    def title(self) -> str:
        """The heading: mark, exercise, verdict."""
        mark, label, _ = _LOOKS[self.status]
        said = self.why if self.status in (FAILED, BROKEN) else ": ".join(filter(None, [label, self.why]))
        return f"{mark} {self.exercise}   {said}"

    def text(self) -> str:
        """The report as plain text, a heading line and indented details."""
        return "\n".join([self.title, *(f"  {line}" for line in self._body())])

    def html(self) -> str:
        """The report for a notebook; text takes the theme's colour."""
        mark, label, colour = _LOOKS[self.status]
        heading = f'<span style="color:{colour}">{mark}</span> <b>{html.escape(self.exercise)}</b> · {label}'
        return card(heading, self.why, "\n".join(self._body()), colour)

    def _body(self) -> list[str]:
        printed = [f"  {line}" for line in self.printed.splitlines()]
        return [*self.details, *(["your code printed:", *printed] if printed else [])]


def card(heading: str, text: str = "", pre: str = "", colour: str = "#8a8f98") -> str:
    """A box for a notebook's output: `heading` is HTML; `text` and `pre` are escaped."""
    style = "margin:.4em 0 0;padding:0;background:transparent;color:inherit;font-size:.92em;"
    style += "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"
    return (
        f'<div style="border-left:4px solid {colour};padding:.35em .8em;margin:.3em 0;background:{colour}18">{heading}'
        + (f"<br>{html.escape(text)}" if text else "")
        + (f'<pre style="{style}">{html.escape(pre)}</pre>' if pre else "")
        + "</div>"
    )


# ------------------------------------------------------------------------------------------------ running a check


@dataclass
class _Call:
    """One call of the learner's function: copies of what it was given, by name, and what it gave back."""

    given: dict[str, Any]
    result: Any = None


@dataclass
class _Run:
    """One run of a check: the calls so far, the warnings so far."""

    check: Check
    calls: list[_Call] = field(default_factory=list)
    warned: list = field(default_factory=list)

    def call_of(self, value: Any) -> _Call:
        """The call that gave `value` or a part of it, else the last one."""
        for call in reversed(self.calls):
            parts = call.result if isinstance(call.result, tuple | list) else ()
            if call.result is value or any(part is value for part in parts):
                return call
        return self.calls[-1] if self.calls else _Call({})


_run: contextvars.ContextVar[_Run] = contextvars.ContextVar("the check that is running")


def run_check(check: Check, given: Any, seed: int = 0) -> Outcome:
    """Run `check` on the learner's function or class `given`; never raises, whatever `given` does.

    `seed` chooses the random inputs. Global random state, warning filters, NumPy's error handling and standard output
    are as before afterwards. Only the user's own interrupt leaves as KeyboardInterrupt.
    """
    if _is_empty(given):
        return Outcome(check.name, UNTOUCHED, "nothing below its first line computes anything")
    with _world_kept() as printed:
        run, error = _attempt(check, given, seed)
        if error is None:
            verdict = (PASSED, "", [])
        elif isinstance(error, Complaint):
            reading = _known_mistake(check, error, seed) or error.reading
            verdict = (FAILED, error.why, [*error.details, *([reading] if reading else [])])
        else:
            verdict = _verdict_on(error, check, given, run)
    status, why, details = verdict
    return Outcome(check.name, status, why, tuple(details), printed.shown() if status == FAILED else "")


def _attempt(check: Check, given: Any, seed: int) -> tuple[_Run, BaseException | None]:
    """Run the check's function on `given` once; what it raised comes back instead of leaving."""
    run = _Run(check)
    token = _run.set(run)
    hardware.seed(seed)  # before each of the known mistakes too, so that they draw what the learner's code drew
    try:
        with warnings.catch_warnings(record=True) as run.warned:
            warnings.simplefilter("always")
            with _TimeLimit(check.seconds):
                check.function(Learner(given, run), np.random.default_rng(seed))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return run, error
    finally:
        _run.reset(token)
    return run, None


def _known_mistake(check: Check, complaint: Complaint, seed: int) -> str:
    """The docstring of the first known mistake that gets just this complaint, for just this result."""
    if complaint.yours is None:
        return ""
    with contextlib.redirect_stdout(_Printed()):
        for mistake in check.mistakes:
            _, error = _attempt(check, mistake, seed)
            alike = isinstance(error, Complaint) and error.why == complaint.why
            if alike and same(error.yours, complaint.yours, unknown=False):
                return " ".join(mistake.__doc__.split())
    return ""


def _is_empty(given: Any) -> bool:
    """Whether a function has no body: `pass`, `...` or only a docstring."""
    if not isinstance(given, types.FunctionType):
        return False
    steps = [step for step in dis.get_instructions(given) if step.opname not in ("RESUME", "NOP")]
    return [step.opname for step in steps] == ["LOAD_CONST", "RETURN_VALUE"] and steps[0].argval is None


def _verdict_on(error: BaseException, check: Check, given: Any, run: _Run) -> tuple[str, str, list[str]]:
    """Status, reason and details for an exception that left the check."""
    kind, colon, text = traceback.format_exception_only(error)[0].splitlines()[0].partition(": ")
    said = f"{kind.rpartition('.')[2]}{colon}{text}"[:300]
    frame, deepest = _learner_frame(error)
    where = [f"at line {frame.lineno} of {_file_name(frame.filename)}, in {frame.name}:  {frame.line}"] if frame else []
    if isinstance(error, _TimeUp):
        why = f"stopped after {check.seconds:g} s without a result"
        return (
            FAILED,
            why,
            [*where, "Is there a loop whose condition never turns false, or far too much work in a loop?"],
        )
    missing = str(error) if isinstance(error, NotImplementedError) and deepest else "?"
    if missing in ("", check.name):
        return UNTOUCHED, "", []
    if missing.replace(".", "").isidentifier():
        if missing.startswith(f"{check.name}."):
            return UNTOUCHED, f"{missing} is not written yet", []
        return FAILED, f"needs {missing}, which is not written yet", ["Do that exercise first, or lab.catch_up it."]
    if isinstance(error, SystemExit):
        return FAILED, "your code ends Python: leave out exit() and quit()", where
    if frame:
        return FAILED, said, [*where, *_for(run.call_of(None)), *_advice(error, said)]
    if inspect.isclass(given) and given.__name__ in said and isinstance(error, _INTERFACE):
        return FAILED, f"the check uses your {given.__name__}, and that fails", [said]
    if run.calls and run.calls[-1].result is None and isinstance(error, TypeError | AttributeError):
        return FAILED, "nothing came back", [*_for(run.calls[-1]), "yours    None", _NO_RETURN]
    last = traceback.extract_tb(error.__traceback__)[-1]
    details = [said, f"at line {last.lineno} of {_file_name(last.filename)}, after {len(run.calls)} calls of yours"]
    return (
        BROKEN,
        "the check itself failed",
        [*details, "Please report this to the course. lab.catch_up lets you go on."],
    )


_INTERFACE = (AttributeError, TypeError, NotImplementedError)
"""What Python raises where a class lacks a method or an argument that its user counts on."""
_NO_RETURN = "Is the `return` missing, or does one branch end without it?"


def _advice(error: BaseException, text: str) -> list[str]:
    """A sentence for the exceptions that beginners meet most; `text` is what Python says."""
    if isinstance(error, UnboundLocalError):
        return ["The name gets its value on some paths only: in a branch not taken, or a loop that runs zero times?"]
    if isinstance(error, NameError):
        return ["Is it spelt as in the signature? Has the cell that defines or imports it been run?"]
    if isinstance(error, RecursionError):
        return ["The function calls itself without end."]
    if isinstance(error, MemoryError):
        return ["An array far larger than the inputs: were two axes combined, as (n,) with (n, 1), into (n, n)?"]
    if "truth value" in text or "Boolean value of Tensor" in text:
        return ["An `if` needs one truth value and met an array. Use np.where, a mask, np.maximum for max, or .any()."]
    if any(word in text for word in ("shape", "broadcast", "mismatch", "size of tensor", "aligned", "dimension")):
        return ["Two shapes do not fit. Print both .shape and write the shape beside each line, as in # (B, K)."]
    if "does not require grad" in text:
        return ["No gradient can flow here: is there a detach(), .item() or torch.no_grad() on the way?"]
    if isinstance(error, IndexError):
        return ["An index runs past the end: they begin at 0, and the last one is the length minus 1."]
    if "NoneType" in text:
        return ["Something is None here: which function, called before this line, forgets its `return`?"]
    if "not callable" in text:
        return ["Parentheses call a function, square brackets index an array: are they swapped, or is a * missing?"]
    return []


def _learner_frame(error: BaseException) -> tuple[traceback.FrameSummary | None, bool]:
    """The deepest frame that is neither the kit's nor a library's, the learner's own; and whether it is the last."""
    frames = list(traceback.walk_tb(error.__traceback__))
    for depth, (frame, line) in enumerate(reversed(frames)):
        if _is_learners(frame):
            file, name = frame.f_code.co_filename, frame.f_code.co_name
            text = linecache.getline(file, line, frame.f_globals).strip()
            return traceback.FrameSummary(file, line, name, line=text), depth == 0
    return None, False


def _is_learners(frame: types.FrameType) -> bool:
    file = frame.f_code.co_filename
    return not file.startswith((_KIT, *_LIBRARIES, "<frozen", "<__array")) and Path(file).name != "checks.py"


def _file_name(file: str) -> str:
    """How a learner calls the file: a notebook cell has a meaningless path."""
    return "your cell" if "ipykernel" in file or file.startswith("<ipython") else Path(file).name


class Learner:
    """The learner's function or class under watch; call it as the learner's own.

    Each call checks that inputs come back unchanged (and puts them back) and, where all inputs are plain data, that a
    second call with the same input gives the same result.
    """

    def __init__(self, given: Any, run: _Run):
        self._given, self._run = given, run
        try:
            self._signature = inspect.signature(given)
        except (TypeError, ValueError):
            self._signature = None

    def __call__(self, *args, **kwargs):
        inputs = self._by_name(args, kwargs)
        call = _Call({name: _kept(value) for name, value in inputs.items()})
        self._run.calls.append(call)
        call.result = result = self._watched(call, inputs, args, kwargs)
        repeatable = not inspect.isclass(self._given) and not self._run.check.random
        if repeatable and all(map(_plain, inputs.values())):
            first = _kept(result)
            again = self._watched(call, inputs, args, kwargs)
            if not same(first, again):
                details = [*_for(call), f"first    {_summary(first)}", f"second   {_summary(again)}"]
                reading = "Does it draw random numbers, or change something outside the function?"
                raise Complaint(
                    "the same input must give the same result, and a second call gave another", details, reading
                )
        return result

    def _by_name(self, args: tuple, kwargs: dict) -> dict[str, Any]:
        """The arguments by the learner's names; complains where the learner's signature cannot take them."""
        if self._signature is None:
            return {f"argument {i}": value for i, value in enumerate(args, 1)} | kwargs
        try:
            return dict(self._signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            name = self._run.check.name
            wanted = ", ".join([*map(_summary, args), *(f"{key}={_summary(value)}" for key, value in kwargs.items())])
            details = [f"called as {name}({wanted})", f"yours is  {name}{self._signature}", f"{error}"]
            raise Complaint("the arguments in the first line must stay as the exercise gives them", details) from None

    def _watched(self, call: _Call, inputs: dict, args: tuple, kwargs: dict) -> Any:
        changed = None
        try:
            result = self._given(*args, **kwargs)
        finally:
            for name, value in inputs.items():
                if _plain(value) and not same(call.given[name], value, exact=True):
                    changed = changed or (name, _kept(value))
                    _put_back(value, call.given[name])
        if changed:
            name, after = changed
            details = [f"before   {_summary(call.given[name])}", f"after    {_summary(after)}"]
            with contextlib.suppress(TypeError):
                x, y = array(call.given[name]), array(after)
                details = _side_by_side(x, y, x != y, ("before", "after")) if x.shape == y.shape else details
            reading = f"{name} += …, {name}[…] = … and the like write into the caller's data; make a new one."
            raise Complaint(f"your function changes its input {name}: the caller still needs it", details, reading)
        return result

    def __getattr__(self, name: str):
        return getattr(self._given, name)


# ------------------------------------------------------------------------------------------------ the world around it


@contextlib.contextmanager
def _world_kept() -> Iterator["_Printed"]:
    """Catch what is printed, forbid input() and exit(); put everything back as it was. Yields what is printed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(_random_state_kept())
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        stack.enter_context(_replaced(builtins, "input", _no_input))
        if hasattr(shell, "ask_exit"):  # what exit() is in a notebook: the kernel would end after the cell
            stack.enter_context(_replaced(shell, "ask_exit", sys.exit))
        printed = _Printed()
        stack.enter_context(contextlib.redirect_stdout(printed))
        stack.enter_context(contextlib.redirect_stderr(printed))
        yield printed


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Put the states of the global generators back; torch's and TensorFlow's only where they are loaded."""
    torch = sys.modules.get("torch")
    tensorflow = sys.modules.get("tensorflow.python.eager.context")
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng() if hasattr(torch, "random") else contextlib.nullcontext():
        eager = tensorflow and tensorflow.context()  # it has no public way to read the state of its global seed
        kept = tensorflow and (eager._seed, copy.deepcopy(getattr(eager, "_rng", None)))
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            if tensorflow:
                eager._seed, eager._rng = kept


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = vars(owner).get(name, _replaced)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name) if before is _replaced else setattr(owner, name, before)


def _no_input(*_):
    raise RuntimeError("input() waits for somebody at the keyboard; everything needed is in the arguments")


class _Printed(io.StringIO):
    """Keeps the beginning of what is printed and counts the rest: a million lines cost no memory."""

    lines = 0

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        super().write(text[: max(_PRINTED_CHARACTERS - self.tell(), 0)])
        return len(text)

    def shown(self) -> str:
        lines = self.getvalue().splitlines()[:_PRINTED_LINES]
        return "\n".join([*lines, *([f"… {self.lines} lines in all"] if self.lines > len(lines) else [])])


class _TimeLimit:
    """Ends the block with _TimeUp after `seconds`; keeps trying where learner code swallows it.

    In the main thread by a timer signal, which also wakes a sleep; elsewhere (and on Windows) by an asynchronous
    exception, which waits for a sleep to end. One long call into compiled code ends first, and so does an import,
    after which the time begins again.
    """

    def __init__(self, seconds: float):
        self._seconds, self._over = seconds, False

    def __enter__(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        self._by_signal = main and hasattr(signal, "setitimer")
        self._tracing = sys.gettrace()
        if self._by_signal:
            self._handler = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
        else:
            self._thread, self._done = ctypes.c_ulong(threading.get_ident()), threading.Event()
            self._watcher = threading.Thread(target=self._watch, daemon=True)
            self._watcher.start()

    def __exit__(self, *_) -> None:
        self._over = True
        while True:
            try:
                return self._stop()
            except _TimeUp:  # it was already on its way
                continue

    def _stop(self) -> None:
        if self._by_signal:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._handler)
        else:
            self._done.set()
            self._watcher.join()
            # The last one may still be pending; a Python call takes it in. Taking it back by SetAsyncExc(thread, None)
            # would leave Python 3.11's eval breaker set for good, and with that set any tracing spins forever.
            self._done.is_set()
        sys.settrace(self._tracing)

    def _ring(self, _signal: int, frame: types.FrameType | None) -> None:
        if self._over:
            return
        importing = _importing(frame)
        # set anew each time: an interval would pile rings up where the machine is too busy to answer one in time
        signal.setitimer(signal.ITIMER_REAL, self._seconds if importing else _AGAIN)
        if not importing and frame is not None and frame.f_code.co_filename != __file__:  # else bookkeeping would break
            raise _TimeUp

    def _watch(self) -> None:
        wait = self._seconds
        while not self._done.wait(wait):
            wait = self._seconds
            if not _importing(sys._current_frames().get(self._thread.value)):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread, ctypes.py_object(_TimeUp))
                wait = _AGAIN


_AGAIN = 0.05
"""Seconds until code that has swallowed a _TimeUp gets the next one."""


def _importing(frame: types.FrameType | None) -> bool:
    """Whether a module is being imported: cut short it would stay half made, and its time is not the learner's."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


# ------------------------------------------------------------------------------------------------ values


def array(value: Any) -> np.ndarray:
    """A NumPy array of a list, number, array, table or tensor of any framework.

    Raises TypeError, saying what it is instead, for everything that holds no numbers or no array.
    """
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.to_dense() if value.layout != sys.modules["torch"].strided else value
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # NumPy has none
        elif hasattr(value, "toarray"):  # SciPy's sparse
            value = value.toarray()
        result = value.numpy() if callable(getattr(value, "numpy", None)) else np.asarray(value)
    except ValueError as error:
        raise TypeError("rows of different lengths") from error
    except Exception as error:
        raise TypeError(f"no array can be made of it ({type(error).__name__})") from error
    if result.dtype.kind in "US":
        raise TypeError("text, not numbers")
    if result.dtype.kind not in "biufc":
        raise TypeError("no numbers" if _is_array(value) and result.dtype != object else "Python objects, not numbers")
    return np.asarray(result)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def _plain(value: Any) -> bool:
    """Whether `value` is data (numbers, text, arrays, tensors, containers of them), not an object with a life."""
    if isinstance(value, list | tuple):
        return all(_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_plain(item) for item in value.values())
    plain = types.NoneType | bool | int | float | complex | str | bytes | types.FunctionType
    return isinstance(value, plain) or _is_array(value)


def _kept(value: Any) -> Any:
    """A copy of plain data that later changes do not reach; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if hasattr(value, "detach") and hasattr(value, "clone"):
        return value.detach().clone()
    if type(value) in (list, tuple):
        return type(value)(_kept(item) for item in value)
    if isinstance(value, dict):
        return {key: _kept(item) for key, item in value.items()}
    return value


def _put_back(value: Any, before: Any) -> None:
    """Undo what was done to a list, dict, array or tensor in place."""
    if isinstance(value, list):
        value[:] = before
    elif isinstance(value, dict):
        value.clear()
        value.update(before)
    elif isinstance(value, tuple):
        for item, item_before in zip(value, before, strict=True):
            _put_back(item, item_before)
    elif _is_array(value):
        with contextlib.suppress(Exception):
            (value.detach() if hasattr(value, "detach") else value)[...] = before


def same(a: Any, b: Any, *, exact: bool = False, unknown: bool = True) -> bool:
    """Whether two results agree: arrays within rounding (or exactly), containers item by item.

    unknown: the answer for objects that cannot be compared, such as two models.
    """
    try:
        x, y = array(a), array(b)
    except TypeError:
        if isinstance(a, list | tuple) and isinstance(b, list | tuple):
            pairs = zip(a, b, strict=False)
            return len(a) == len(b) and all(same(*pair, exact=exact, unknown=unknown) for pair in pairs)
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key], exact=exact, unknown=unknown) for key in a)
        if type(a) is type(b) and not isinstance(a, str | bytes | types.NoneType):
            return unknown
        return type(a) is type(b) and a == b
    if x.shape != y.shape:
        return False
    if exact:
        return np.array_equal(x, y, equal_nan=x.dtype.kind in "fc")
    return bool(_agree(x, y, 1e-6, 1e-9).all())


def _agree(yours: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    """Entry by entry: within atol + rtol·|expected|, and a little more where one of the two has single precision.

    A sum that cancels errs by roundings of its largest terms, so single precision may err by 16 of them everywhere.
    """
    single = [np.finfo(a.dtype).eps for a in (yours, expected) if a.dtype.kind in "fc" and a.dtype.itemsize < 8]
    sizes = np.abs(expected[np.isfinite(expected)])
    if single and sizes.size and atol:
        rtol, atol = max(rtol, 16 * max(single)), max(atol, 16 * max(single) * float(sizes.max()))
    return np.isclose(yours, expected, rtol, atol, equal_nan=True)


def _summary(value: Any, depth: int = 2) -> str:
    """One line for a value: small ones in full, arrays by shape and type."""
    if isinstance(value, str):
        return repr(value if len(value) < 40 else value[:37] + "…")
    if value is None or isinstance(value, bool | int | float | complex | np.generic):
        return _number(value)
    if _is_array(value):
        if np.prod(value.shape, dtype=int) <= 6 and len(value.shape) <= 1:
            with contextlib.suppress(TypeError):
                numbers = array(value)
                inner = " ".join(_number(entry) for entry in numbers.ravel())
                return f"[{inner}]" if numbers.ndim else inner
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple) and len(value) <= 6 and depth:
        inner = ", ".join(_summary(item, depth - 1) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, list | tuple | set):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        return f"dict with {', '.join(map(str, list(value)[:6]))}{' …' if len(value) > 6 else ''}"
    name = getattr(value, "__name__", None)
    return f"function {name}" if isinstance(value, types.FunctionType) else name or type(value).__name__


def _for(call: _Call) -> list[str]:
    """The line that tells what the function was called with."""
    return ["for " + ", ".join(f"{key} {_summary(value)}" for key, value in call.given.items())] if call.given else []


def _given(yours: Any) -> list[str]:
    run = _run.get(None)
    return _for(run.call_of(yours)) if run else []


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
        """Demand numbers within atol + rtol·|expected|, in this shape; a lone number may come as (1,).

        up_to_scale: one positive common factor is free. Results in single precision get the slack of its roundings.
        """
        numbers, expected = _numbers(yours, why, source, likely), array(expected)
        inputs = _inputs(yours)
        if numbers.dtype.kind == "c" and expected.dtype.kind != "c":
            details = [*_given(yours), f"yours    {numbers.dtype} {numbers.shape}", "expected real numbers"]
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
        good = _agree(numbers, expected, rtol, atol)
        if not good.all():
            details = [*_given(yours), *_side_by_side(numbers, expected, ~good)]
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
                details = [*_given(yours), f"yours    {_summary(yours)}", f"expected {_summary(expected)}   ({source})"]
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
            details = [*_given(yours), f"yours    dtype {numbers.dtype}", f"expected dtype {kind.__name__}"]
            raise Complaint(why, details, likely or readings.of_dtypes(numbers.dtype, kind), numbers)

    @staticmethod
    def kind(yours: Any, kind: type | tuple[type, ...], why: str, *, likely: str = "") -> None:
        """Demand an instance of `kind`."""
        if not isinstance(yours, kind):
            if yours is None:
                raise _none(why)
            wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
            details = [*_given(yours), f"yours    {type(yours).__name__}", f"expected {wanted}"]
            raise Complaint(why, details, likely, yours)

    @staticmethod
    def parts(yours: Any, names: Sequence[str], why: str) -> tuple:
        """Demand a tuple (or list) with one part per name, and return it."""
        if yours is None:
            raise _none(why)
        if not isinstance(yours, tuple | list) or len(yours) != len(names):
            details = [*_given(yours), f"yours    {_summary(yours)}", f"expected ({', '.join(names)})"]
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
            call = _run.get(_Run(None)).call_of(None)
            evidence = [list(details), call.result] if _plain(call.result) else list(details) or None
            raise Complaint(why, [*_for(call), *details], likely, evidence)


def _inputs(yours: Any) -> dict[str, np.ndarray]:
    """The arrays and numbers that the call was given that `yours` came from."""
    run, inputs = _run.get(None), {}
    for name, value in (run.call_of(yours).given if run else {}).items():
        with contextlib.suppress(TypeError):
            inputs[name] = array(value)
    return inputs


def _none(why: str) -> Complaint:
    return Complaint(why, [*_given(None), "yours    None"], _NO_RETURN)


def _numbers(yours: Any, why: str, source: str, likely: str) -> np.ndarray:
    if yours is None:
        raise _none(why)
    try:
        return array(yours)
    except TypeError as error:
        expected = "expected an array of numbers" + (f"   ({source})" if source else "")
        details = [*_given(yours), f"yours    {_summary(yours)}: {error}", expected]
        raise Complaint(why, details, likely or readings.of_types(yours), yours) from None


def _shape_complaint(yours: Any, numbers: np.ndarray, shape: tuple, why: str, source: str, reading: str) -> Complaint:
    expected = f"expected shape {shape}" + (f"   ({source})" if source else "")
    return Complaint(why, [*_given(yours), f"your shape     {numbers.shape}", expected], reading, numbers)


def _demand_finite(yours: Any, numbers: np.ndarray, expected: np.ndarray, why: str, source: str, likely: str) -> None:
    """Complain of NaN and infinity where `expected` has none, with what NumPy warned of."""
    bad = ~np.isfinite(numbers) & np.isfinite(expected)
    if not bad.any():
        return
    what = "NaN" if np.isnan(numbers[bad]).any() else "infinite"
    count = f"{bad.sum()} of {bad.size} entries are {what}"
    shown = _side_by_side(numbers, expected, bad) if source else [count]
    shown[-1] += f"   ({source})" if source else ""
    warned = {str(warning.message) for warning in _run.get(_Run(None)).warned}
    details = [
        *_given(yours),
        *shown,
        *(f"NumPy warned: {text}" for text in sorted(warned)[:2] if "encountered" in text),
    ]
    raise Complaint(
        f"{why}: yours has {what} entries", details, likely or readings.of_nonfinite(numbers, warned), numbers
    )


def _side_by_side(
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
    columns = [(_number(a), _number(b)) for a, b in zip(yours.ravel()[cut], expected.ravel()[cut], strict=True)]
    widths = [max(map(len, column)) for column in columns]
    rows = [" ".join(map(str.rjust, line, widths)) for line in zip(*columns, strict=True)]
    tail = " …" if start + 8 < bad.size else ""
    return [f"{name:8} {where}{row}{tail}" for name, row in zip(names, rows, strict=True)]
