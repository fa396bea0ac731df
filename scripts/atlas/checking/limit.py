"""The time limit of a check: it counts the computing of the learner's code, and ends what waits for nothing."""

import bdb
import contextlib
import ctypes
import math
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_ENGINE = str(Path(__file__).parent)
_AGAIN = 0.05
"""Seconds until code that has swallowed a TimeUp gets the next one."""


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
        sys.settrace(_let_frames_trace)


def _let_frames_trace(*_: Any) -> None:
    """The global trace function that lets the frames' own begin."""


def _is_engine(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_ENGINE)


def _raise_on_next_line(_frame: types.FrameType, event: str, _argument: Any) -> Callable:
    if event == "line":
        raise TimeUp
    return _raise_on_next_line


class TimeLimit:
    """Ends the block with TimeUp after `seconds` of computing; keeps trying where learner code swallows it.

    Waiting for the processor on a busy machine does not count; waiting for anything else does, by itself. While a
    debugger is attached there is no limit. In the main thread it is a timer signal, which also wakes a sleep;
    elsewhere (and on Windows) an asynchronous exception, which waits for a sleep to end. One long call into compiled
    code ends first, and so does an import, after which the time begins again.
    """

    def __init__(self, seconds: float):
        self._seconds, self._over, self._up = seconds, False, False

    def __enter__(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        self._by_signal = main and hasattr(signal, "setitimer")
        self._tracing, self._clock = sys.gettrace(), _Clock(threading.get_native_id())
        if self._by_signal:
            self._handler = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
        else:
            self._thread, self._done = threading.get_ident(), threading.Event()
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
        if sys.gettrace() is _let_frames_trace:  # a debugger's, which may have come since, is left alone
            sys.settrace(self._tracing)

    def _ring(self, _signal: int, frame: types.FrameType | None) -> None:
        if self._over:
            return
        left = self._left(frame, sys.gettrace())
        # set anew each time: an interval would pile rings up where the machine is too busy to answer one in time
        signal.setitimer(signal.ITIMER_REAL, left or _AGAIN)
        if not left and frame is not None and not _is_engine(frame):  # else bookkeeping would break
            raise TimeUp

    def _watch(self) -> None:
        wait = self._seconds
        while not self._done.wait(wait):
            left = self._left(sys._current_frames().get(self._thread), self._tracing)
            if not left:
                _send(TimeUp, self._thread)
            wait = left or _AGAIN

    def _left(self, frame: types.FrameType | None, tracing: Any) -> float:
        """The seconds until it is worth while to look again; 0 where the time is up, and from then on."""
        if debugged(tracing) or _importing(frame):
            self._clock.restart()
            return self._seconds
        self._up = self._up or self._clock.seconds() >= self._seconds
        return 0 if self._up else max(self._seconds - self._clock.seconds(), 0.01)


def end(threads: Iterable[threading.Thread]) -> None:
    """End threads in which learner code runs, by SystemExit; one that waits for a queue or an event is woken for it.

    Where a thread waits for something else its exception would wait too; and as long as one does, Python 3.11 stands
    still for ever at the first line that is traced, by a debugger or by a TimeUp (see `_stop`).
    """
    alive = [thread for thread in threads if thread.is_alive()]
    for thread in alive:
        _send(SystemExit, thread.ident)
        frame = sys._current_frames().get(thread.ident)
        if frame is not None and frame.f_code is threading.Condition.wait.__code__:
            with contextlib.suppress(KeyError, RuntimeError):  # not waiting yet, or no more
                frame.f_locals["waiter"].release()
    until = time.monotonic() + _AGAIN
    for thread in alive:
        thread.join(max(0, until - time.monotonic()))
    if any(thread.is_alive() for thread in alive):
        _take_in()


def _take_in() -> None:
    """Let Python believe that every asynchronous exception has arrived: it does when one arrives at any thread."""
    ready = threading.Event()

    def receive() -> None:
        with contextlib.suppress(SystemExit):
            ready.set()
            while True:
                time.sleep(0)

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    ready.wait()
    _send(SystemExit, receiver.ident)
    receiver.join()


def _send(exception: type[BaseException], thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(exception))


class _Clock:
    """Counts what a thread computes or waits for; not what it stands in the queue of a busy machine."""

    def __init__(self, thread: int):
        self._schedule = Path(f"/proc/self/task/{thread}/schedstat")
        self.restart()

    def restart(self) -> None:
        self._began = self._now()

    def seconds(self) -> float:
        """The longer of both, computing and waiting, since the restart."""
        passed, computed, queued = (now - then for now, then in zip(self._now(), self._began, strict=True))
        waited = passed - computed - queued
        if math.isnan(queued):  # no way to tell waiting from standing in the queue: ten times the limit ends both
            waited = (passed - computed) / 10
        return max(min(passed, computed), waited)

    def _now(self) -> tuple[float, float, float]:
        """Seconds passed, computed by all threads, and queued by this one (NaN where the system does not say)."""
        queued = math.nan
        with contextlib.suppress(OSError, ValueError, IndexError):
            queued = int(self._schedule.read_text().split()[1]) / 1e9
        return time.monotonic(), time.process_time(), queued


def debugged(tracing: Any) -> bool:
    """Whether somebody looks on with a debugger: debugpy (VS Code, JupyterLab) is attached, or pdb or pydevd traces.

    ipykernel loads debugpy always; loaded is not attached, and detached it goes on tracing.
    """
    if isinstance(getattr(tracing, "__self__", None), bdb.Bdb):
        return True
    if debugpy := sys.modules.get("debugpy"):
        return getattr(debugpy, "is_client_connected", bool)()
    return "pydevd" in (getattr(tracing, "__module__", None) or type(tracing).__module__)


def _importing(frame: types.FrameType | None) -> bool:
    """Whether a module is being imported: cut short it would stay half made, and its time is not the learner's."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None
