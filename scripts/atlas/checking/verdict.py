"""The verdict on an exercise whose check was left by an exception: whose fault it is, where it arose, what it means."""

import ast
import inspect
import traceback
from pathlib import Path
from typing import Any

from atlas.checking import learner, unnoticed
from atlas.checking.advice import advice, said
from atlas.checking.calls import Run, called_with
from atlas.checking.limit import TimeUp
from atlas.checking.place import Place, file_name, learners_place
from atlas.checking.report import BROKEN, FAILED, UNTOUCHED
from atlas.checking.values import summary
from atlas.checking.vocabulary import Check
from atlas.checking.written import Written

_INTERFACE = (AttributeError, TypeError, NotImplementedError)
"""What Python raises where a class lacks a method or an argument that its user counts on."""


def verdict_on(error: BaseException, check: Check, given: Any, run: Run, known: str) -> tuple[str, str, list[str]]:
    """Status, reason and details for an exception that left the check; `known` is the known mistake that raises it."""
    place = learners_place(error)
    where = [str(place)] if place else []
    if isinstance(error, TimeUp):
        return FAILED, f"stopped after {check.seconds:g} s without a result", [*where, unnoticed.of_endless(error)]
    missing = str(error) if isinstance(error, NotImplementedError) and place and place.deepest else "?"
    if missing in ("", check.name):
        return UNTOUCHED, "", []
    if missing.replace(".", "").isidentifier():
        if missing.startswith(f"{check.name}."):
            return UNTOUCHED, f"{missing} is not written yet", []
        return FAILED, f"needs {missing}, which is not written yet", ["Do that exercise first, or lab.catch_up it."]
    if isinstance(error, SystemExit):
        return FAILED, "your code ends Python: leave out exit() and quit()", where
    first, *more = said(error)
    advised = known or advice(error, place, given)
    if caught := _caught(error, place):
        more.append(f"raised for {said(caught)[0]}")
        advised = advised or advice(caught, None, given)
    told = [advised] if advised else []
    if known or place or _in_the_call(error):
        return FAILED, first, [*more, *where, *called_with(run.call_of(None)), *told]
    if inspect.isclass(given) and given.__name__ in first and isinstance(error, _INTERFACE):
        return FAILED, f"the check uses your {given.__name__}, and that fails", [first, *told]
    if in_its_library(error, given):
        return FAILED, first, [*more, *called_with(run.call_of(None)), *told]
    if run.calls and isinstance(error, _INTERFACE):
        call, code = run.calls[-1], Written(given)
        shown = [*called_with(call), f"yours    {summary(call.result)}"]
        if call.result is None:
            return FAILED, "nothing came back", [*shown, unnoticed.of_nothing(code)]
        if odd := unnoticed.of_result(call.result, code):
            return FAILED, "what came back cannot be used", [*shown, odd]
    if run.notices:  # the check's own lines break on what the learner's code has left behind
        notice = run.notices[0]
        return FAILED, notice.why, [*notice.details, *([notice.reading] if notice.reading else [])]
    last = error.__traceback__
    while last.tb_next:
        last = last.tb_next
    at = (
        f"at line {last.tb_lineno} of {file_name(last.tb_frame.f_code.co_filename)}, "
        f"after {len(run.calls)} calls of yours"
    )
    return (
        BROKEN,
        "the check itself failed",
        [first, at, "Please report this to the course. lab.catch_up lets you go on."],
    )


def _caught(error: BaseException, place: Place | None) -> BaseException | None:
    """What the learner's own `raise` was about: the exception that it stands in the `except` of."""
    return error.__cause__ or error.__context__ if place and isinstance(place.node, ast.Raise) else None


def came_out_of_a_call(error: BaseException) -> bool:
    """Whether it came out of what was handed in, and not of the check's own lines."""
    return any(frame.f_code.co_filename == learner.__file__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _in_the_call(error: BaseException) -> bool:
    """Whether calling what was handed in raised at once, before any Python of the learner's ran (as a cache does)."""
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    kits = [file for file in files if file.startswith(_ENGINE) or file.endswith("checks.py")]
    return kits[-1:] == [learner.__file__]


def in_its_library(error: BaseException, given: Any) -> bool:
    """Whether it arose in the library that the learner's class is made with, as where torch takes over what a Function
    of the learner's saved or returned: none of the learner's lines is running then."""
    packages = {"torch.autograd"} if Written(given).has("apply") else set()
    if inspect.isclass(given):
        modules = {base.__module__ for base in given.__mro__} - {"builtins", given.__module__}
        packages = {module.rpartition(".")[0] or module for module in modules}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    here = frames[-1].f_globals.get("__name__", "") if frames else ""
    return any(here == package or here.startswith(f"{package}.") for package in packages)


_ENGINE = str(Path(learner.__file__).parent)
