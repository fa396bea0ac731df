"""The world around a check: kept as it was, with what is printed caught and an end to endless loops."""

import builtins
import contextlib
import copy
import ctypes
import io
import random
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_ENGINE = str(Path(__file__).parent)
_PRINTED_LINES, _PRINTED_CHARACTERS = 12, 2000


class TimeUp(BaseException):
    """Ends learner code that runs too long; not an Exception, so that `except Exception` cannot swallow it.

    Code that swallows even this gets it again on its next line, which lies in its `except`.
    """

    def __init__(self):
        frame = sys._getframe(1)
        if frame.f_code.co_filename == __file__:  # raised by _ring or _raise_on_next_line
            frame = frame.f_back
        while frame is not None and not _is_engine(frame):
            frame.f_trace = _raise_on_next_line
            frame = frame.f_back
        sys.settrace(lambda *_: None)  # which lets the frames' own tracing begin


def _is_engine(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_ENGINE)


def _raise_on_next_line(_frame: types.FrameType, event: str, _argument: Any) -> Callable:
    if event == "line":
        raise TimeUp
    return _raise_on_next_line


@contextlib.contextmanager
def world_kept() -> Iterator["Printed"]:
    """Catch what is printed, forbid input() and exit(); put everything back as it was. Yields what is printed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(_random_state_kept())
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        stack.enter_context(_replaced(builtins, "input", _no_input))
        if hasattr(shell, "ask_exit"):  # what exit() is in a notebook: the kernel would end after the cell
            stack.enter_context(_replaced(shell, "ask_exit", sys.exit))
        printed = Printed()
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


class Printed(io.StringIO):
    """Keeps the beginning of what is printed and counts the rest: a million lines cost no memory."""

    lines = 0

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        super().write(text[: max(_PRINTED_CHARACTERS - self.tell(), 0)])
        return len(text)

    def shown(self) -> str:
        lines = self.getvalue().splitlines()[:_PRINTED_LINES]
        return "\n".join([*lines, *([f"… {self.lines} lines in all"] if self.lines > len(lines) else [])])


class TimeLimit:
    """Ends the block with TimeUp after `seconds`; keeps trying where learner code swallows it.

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
            except TimeUp:  # it was already on its way
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
        if not importing and frame is not None and not _is_engine(frame):  # else bookkeeping would break
            raise TimeUp

    def _watch(self) -> None:
        wait = self._seconds
        while not self._done.wait(wait):
            wait = self._seconds
            if not _importing(sys._current_frames().get(self._thread.value)):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread, ctypes.py_object(TimeUp))
                wait = _AGAIN


_AGAIN = 0.05
"""Seconds until code that has swallowed a TimeUp gets the next one."""


def _importing(frame: types.FrameType | None) -> bool:
    """Whether a module is being imported: cut short it would stay half made, and its time is not the learner's."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None
