"""What the check that is running has seen so far: the calls of the learner's code and the warnings."""

import contextvars
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atlas.checking.values import kept, same, summary
from atlas.checking.vocabulary import Check, Complaint


@dataclass
class Call:
    """One call of the learner's function: copies of what it was given, by name, and what it gave back."""

    given: dict[str, Any]
    result: Any = None


@dataclass
class Run:
    """One run of a check: what is checked, its calls, the warnings, and what `expect` was shown of results so far.

    notices: what the watch noticed. remembers: what the code keeps between calls. to_the_end: complaints do not end the
    run; they are kept in `seen` too. used: the instance whose method the check called last. gave: the last
    result, of the function, the class or a method.
    """

    check: Check
    given: Any = None
    calls: list[Call] = field(default_factory=list)
    warned: list = field(default_factory=list)
    seen: list = field(default_factory=list)
    to_the_end: bool = False
    notices: list[Complaint] = field(default_factory=list)
    remembers: list[str] = field(default_factory=list)
    used: Any = None
    gave: Any = None

    def call_of(self, value: Any) -> Call:
        """The call that gave `value` or a part of it, else that which made the instance in use, else the last one.

        Of a list of what the last calls gave, one part each: what all of them were given.
        """
        for call in reversed(self.calls):
            parts = call.result if isinstance(call.result, tuple | list) else ()
            if call.result is value or any(part is value for part in parts):
                return call
        recent = self.calls[-len(value) :] if type(value) is list and 1 < len(value) <= len(self.calls) else []
        if recent and all(same(call.result, part, unknown=False) for call, part in zip(recent, value, strict=True)):
            first, *others = (call.given for call in recent)
            shared = {k: v for k, v in first.items() if all(k in each and same(each[k], v) for each in others)}
            return Call(shared, value)
        for call in reversed(self.calls):
            if self.used is not None and call.result is self.used:
                return call
        return self.calls[-1] if self.calls else Call({})


running: contextvars.ContextVar[Run] = contextvars.ContextVar("the check that is running")


def called_with(call: Call) -> list[str]:
    """The line that tells what the function was called with; functions without a name would only make it long."""
    told = {key: summary(value) for key, value in call.given.items()}
    shown = [f"{key} {text}" for key, text in told.items() if not _NAMELESS.fullmatch(text)]
    return ["for " + ", ".join(shown)] if shown else []


_NAMELESS = re.compile(r"[\[(]?(?:(?:partial|function <lambda>)(?:, )?)+[\])]?")


def given_to(yours: Any) -> list[str]:
    run = running.get(None)
    return called_with(run.call_of(yours)) if run else []


def noting(demands: type) -> type:
    """Make the demands of a class note what they are shown: the learner's results, by which a mistake is recognised."""
    for name, demand in list(vars(demands).items()):
        if isinstance(demand, staticmethod):
            setattr(demands, name, staticmethod(_noting(demand.__func__, name in _OF_VALUES)))
    return demands


_OF_VALUES = ("close", "equal", "true")
"""Demands whose results tell mistakes apart; the others are about form, in which the same mistake may differ."""


def _noting(demand: Callable, of_values: bool) -> Callable:
    @functools.wraps(demand)
    def noted(yours, *args, **kwargs):
        run = running.get(None)
        if run is None:
            return demand(yours, *args, **kwargs)
        run.seen += [kept(yours)] if of_values else []
        try:
            return demand(yours, *args, **kwargs)
        except Complaint:
            if not run.to_the_end:
                raise
            run.seen.append("complained of")  # not in which words: they may name the learner's own parameters
            return yours

    return noted
