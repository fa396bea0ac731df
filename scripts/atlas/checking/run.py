"""Runs a check on what the learner handed in and makes a verdict of what comes out, whatever comes out."""

import contextlib
import dis
import functools
import inspect
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from atlas import hardware
from atlas.checking.calls import Run, running
from atlas.checking.learner import Disturbed, DisturbedInVain, Forgetful, Learner, watched
from atlas.checking.limit import TimeLimit, TimeUp
from atlas.checking.place import learners_place
from atlas.checking.report import FAILED, PASSED, UNTOUCHED, Outcome
from atlas.checking.sandbox import Printed, world_kept
from atlas.checking.values import same, summary
from atlas.checking.verdict import came_out_of_a_call, in_its_library, verdict_on
from atlas.checking.vocabulary import Check, Complaint


def run_check(check: Check, given: Any, seed: int = 0) -> Outcome:
    """Run `check` on the learner's function or class `given`; never raises, whatever `given` does.

    `seed` chooses the random inputs. Global random state, warning filters, NumPy's error handling and standard output
    are as before afterwards. Only the user's own interrupt leaves as KeyboardInterrupt.
    """
    if _is_empty(given):
        return Outcome(check.name, UNTOUCHED, "nothing below its first line computes anything")
    with world_kept() as printed:
        run, error = _attempt(check, given, seed)
        if error is None and run.remembers:
            error = _disturbance(check, given, seed, run.remembers)
        if error is None or isinstance(error, Complaint):
            error = _other_default(check, given) or error
        if error is None:
            verdict = (PASSED, "", [])
        elif isinstance(error, Complaint):
            reading = _known_mistake(check, given, run, error, seed) or _stale(check, given, run, seed) or error.reading
            verdict = (FAILED, error.why, [*error.details, *([reading] if reading else [])])
        else:
            known = _known_mistake(check, given, run, error, seed) if _of_the_answer(error, check, given) else ""
            verdict = verdict_on(error, check, given, run, known)
    status, why, details = verdict
    return Outcome(check.name, status, why, (*details, *printed.notes), printed.shown() if status == FAILED else "")


def _attempt(
    check: Check, given: Any, seed: int, kind: type[Learner] = Learner, *, to_the_end: bool = False
) -> tuple[Run, BaseException | None]:
    """Run the check's function on `given` once; what it raised comes back instead of leaving."""
    run = Run(check, given, to_the_end=to_the_end)
    token = running.set(run)
    hardware.seed(seed)  # before each of the known mistakes too, so that they draw what the learner's code drew
    try:
        with warnings.catch_warnings(record=True) as run.warned:
            warnings.simplefilter("always")
            with watched(given, run, kind) as learner, TimeLimit(check.seconds):
                check.function(learner, np.random.default_rng(seed))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return run, error
    finally:
        running.reset(token)
    return run, None


def _disturbance(check: Check, given: Any, seed: int, remembers: list[str]) -> Complaint | None:
    """A complaint where calls and instances disturb each other by what the code keeps between them."""
    _, error = _attempt(check, given, seed, Disturbed)
    if not isinstance(error, Complaint) or _attempt(check, given, seed, DisturbedInVain)[1]:
        return None
    what = f"two {check.name}s disturb each other" if inspect.isclass(given) else "a call disturbs what another gave"
    details = [f"kept between calls: {', '.join(remembers)}", f"what breaks: {error.why}", *error.details]
    return Complaint(what, details, "Keep it in self, made new in __init__." if inspect.isclass(given) else _MADE_NEW)


def _stale(check: Check, given: Any, run: Run, seed: int) -> str:
    """What to say where all is right as soon as nothing is kept between calls, else ""."""
    if not run.remembers or inspect.isclass(given) or _attempt(check, given, seed, Forgetful)[1]:
        return ""
    kept = ", ".join(run.remembers)
    return f"It is right if nothing is kept between calls: {kept} still holds what was made for other arguments."


def _other_default(check: Check, given: Any) -> Complaint | None:
    """A complaint where an argument's default is not that of the exercise's first line: later code counts on it."""
    try:
        yours = inspect.signature(given).parameters
    except (TypeError, ValueError):
        return None
    for name, wanted in check.signature.parameters.items() if check.signature else ():
        if name not in yours or wanted.default is wanted.empty:
            continue
        if same(yours[name].default, wanted.default, exact=True, unknown=False):
            continue
        there = "none" if yours[name].default is wanted.empty else summary(yours[name].default)
        why = f"the default of {name} has to stay as the exercise gives it: code that calls without it counts on it"
        return Complaint(why, [f"yours    {there}", f"expected {summary(wanted.default)}"])
    return None


_MADE_NEW = "Make it new in each call, within the function."


def _of_the_answer(error: BaseException, check: Check, given: Any) -> bool:
    """Whether it is an exception that the same slip raises with the same words in anybody's code, and not a break in
    the check's own lines, which every answer meets."""
    if not isinstance(error, Exception) or isinstance(error, NotImplementedError | TimeUp):
        return False
    if learners_place(error) is not None or came_out_of_a_call(error) or in_its_library(error, given):
        return True
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    return given in check.mistakes and last.f_code is not getattr(check.function, "__code__", None)


def _known_mistake(check: Check, given: Any, run: Run, error: Exception, seed: int) -> str:
    """The docstring of the known mistake that agrees with the learner's code, or "".

    It has to get just this complaint for just this result (or raise just this exception), with the same results in all
    demands before; and so again on other inputs, those of the next seed. What agrees by chance is not named. Where
    several agree, the first that agrees in all demands after the complaint too; where none does, nobody knows which it
    is.
    """
    if isinstance(error, Complaint) and error.yours is None:
        return ""
    with contextlib.redirect_stdout(Printed()):
        near = [each for each in check.mistakes if _alike((run, error), _attempt_of_mistake(check, each, seed))]
        if near:
            again = _attempt(check, given, seed + 1)
            near = [each for each in near if _alike(again, _attempt_of_mistake(check, each, seed + 1))]
        if len({_sentence(each) for each in near}) > 1:
            whole = _attempt(check, given, seed, to_the_end=True)
            near = [each for each in near if _alike(whole, _attempt_of_mistake(check, each, seed, to_the_end=True))]
    return _sentence(near[0]) if near else ""


def _sentence(mistake: Callable) -> str:
    return " ".join(mistake.__doc__.split())


@functools.lru_cache(maxsize=1000)
def _attempt_of_mistake(
    check: Check, mistake: Callable, seed: int, *, to_the_end: bool = False
) -> tuple[Run, BaseException | None]:
    """As _attempt, and kept: mistakes stay as they are while learners try again. Of arrays only what is compared."""
    run, error = _attempt(check, mistake, seed, to_the_end=to_the_end)
    run.calls, run.warned, run.used, run.gave = [None] * len(run.calls), [], None, None
    return run, error and error.with_traceback(None)


def _alike(one: tuple[Run, BaseException | None], other: tuple[Run, BaseException | None]) -> bool:
    """Whether two runs of a check saw the same results and ended in the same complaint or exception, or in none."""
    (run, error), (other_run, other_error) = one, other
    if type(error) is not type(other_error) or len(run.seen) != len(other_run.seen):
        return False
    if isinstance(error, Complaint):
        alike = error.why == other_error.why and same(error.yours, other_error.yours, unknown=False)
        alike = alike or (error.yours is other_error.yours is None and error.why == other_error.why)
    else:
        alike = error is None or (str(error) == str(other_error) and len(run.calls) == len(other_run.calls))
    return alike and all(map(same, run.seen, other_run.seen))


def _is_empty(given: Any) -> bool:
    """Whether a function has no body: `pass`, `...` or only a docstring."""
    if not isinstance(given, types.FunctionType):
        return False
    steps = [step for step in dis.get_instructions(given) if step.opname not in ("RESUME", "NOP")]
    return [step.opname for step in steps] == ["LOAD_CONST", "RETURN_VALUE"] and steps[0].argval is None
