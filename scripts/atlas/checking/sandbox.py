"""The world around a check: known during it, as it was after it; prints are caught, and nobody is waited for."""

import bdb
import builtins
import contextlib
import io
import sys
from collections.abc import Iterator

import numpy as np

from atlas.checking.limit import debugged
from atlas.checking.world import generators_kept, known_settings, replaced

_PRINTED_LINES, _PRINTED_CHARACTERS = 12, 2000


class Printed(io.StringIO):
    """Keeps the beginning of what is printed and counts the rest: a million lines cost no memory.

    notes: what the learner should know about the world that the check ran in.
    """

    lines, notes = 0, ()

    def write(self, text: str) -> int:
        self.lines += text.count("\n")
        super().write(text[: max(_PRINTED_CHARACTERS - self.tell(), 0)])
        return len(text)

    def shown(self) -> str:
        lines = self.getvalue().splitlines()[:_PRINTED_LINES]
        return "\n".join([*lines, *([f"… {self.lines} lines in all"] if self.lines > len(lines) else [])])


@contextlib.contextmanager
def world_kept() -> Iterator[Printed]:
    """Catch what is printed, forbid input(), breakpoint() and exit(); put everything back as it was.

    Where somebody looks on with a debugger, the keyboard and the screen are theirs. Yields what is printed.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    with contextlib.ExitStack() as stack:
        stack.enter_context(generators_kept())
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        printed = Printed()
        printed.notes = stack.enter_context(known_settings())
        if hasattr(shell, "ask_exit"):  # what exit() is in a notebook: the kernel would end after the cell
            stack.enter_context(replaced(shell, "ask_exit", sys.exit))
        if not debugged(sys.gettrace()):
            stack.enter_context(replaced(builtins, "input", _no_input))
            stack.enter_context(replaced(sys, "breakpointhook", _no_breakpoint))
            stack.enter_context(replaced(bdb.Bdb, "set_trace", _no_breakpoint))  # pdb.set_trace() and all its kin
            stack.enter_context(contextlib.redirect_stdout(printed))
            stack.enter_context(contextlib.redirect_stderr(printed))
        yield printed


def _no_input(*_, **__):
    raise RuntimeError("input() waits for somebody at the keyboard; everything needed is in the arguments")


def _no_breakpoint(*_, **__):
    raise RuntimeError("breakpoint() waits for somebody at a debugger")
