"""Runs a check on what the learner handed in and makes a verdict of what comes out, whatever comes out."""

import contextlib
import dis
import functools
import inspect
import linecache
import sysconfig
import traceback
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from atlas import hardware
from atlas.checking.calls import NO_RETURN, Run, called_with, running
from atlas.checking.learner import Learner
from atlas.checking.report import BROKEN, FAILED, PASSED, UNTOUCHED, Outcome
from atlas.checking.sandbox import Printed, TimeLimit, TimeUp, world_kept
from atlas.checking.values import same
from atlas.checking.vocabulary import Check, Complaint

_KIT = str(Path(__file__).parents[1])
_LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")})


def run_check(check: Check, given: Any, seed: int = 0) -> Outcome:
    """Run `check` on the learner's function or class `given`; never raises, whatever `given` does.

    `seed` chooses the random inputs. Global random state, warning filters, NumPy's error handling and standard output
    are as before afterwards. Only the user's own interrupt leaves as KeyboardInterrupt.
    """
    if _is_empty(given):
        return Outcome(check.name, UNTOUCHED, "nothing below its first line computes anything")
    with world_kept() as printed:
        run, error = _attempt(check, given, seed)
        if error is None:
            verdict = (PASSED, "", [])
        elif isinstance(error, Complaint):
            reading = _known_mistake(check, given, run, error, seed) or error.reading
            verdict = (FAILED, error.why, [*error.details, *([reading] if reading else [])])
        else:
            verdict = _verdict_on(error, check, given, run)
    status, why, details = verdict
    return Outcome(check.name, status, why, tuple(details), printed.shown() if status == FAILED else "")


def _attempt(check: Check, given: Any, seed: int, *, to_the_end: bool = False) -> tuple[Run, BaseException | None]:
    """Run the check's function on `given` once; what it raised comes back instead of leaving."""
    run = Run(check, to_the_end=to_the_end)
    token = running.set(run)
    hardware.seed(seed)  # before each of the known mistakes too, so that they draw what the learner's code drew
    try:
        with warnings.catch_warnings(record=True) as run.warned:
            warnings.simplefilter("always")
            with TimeLimit(check.seconds):
                check.function(Learner(given, run), np.random.default_rng(seed))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return run, error
    finally:
        running.reset(token)
    return run, None


def _known_mistake(check: Check, given: Any, run: Run, complaint: Complaint, seed: int) -> str:
    """The docstring of the known mistake that agrees with the learner's code, or "".

    It has to get just this complaint for just this result, with the same results in all demands before; and so again
    on other inputs, those of the next seed. What agrees by chance is not named. Where several agree, the first that
    agrees in all demands after the complaint too; where none does, nobody knows which it is.
    """
    if complaint.yours is None:
        return ""
    with contextlib.redirect_stdout(Printed()):
        near = [each for each in check.mistakes if _alike((run, complaint), _attempt_of_mistake(check, each, seed))]
        if near:
            again = _attempt(check, given, seed + 1)
            near = [each for each in near if _alike(again, _attempt_of_mistake(check, each, seed + 1))]
        if len({each.__doc__ for each in near}) > 1:
            whole = _attempt(check, given, seed, to_the_end=True)
            near = [each for each in near if _alike(whole, _attempt_of_mistake(check, each, seed, to_the_end=True))]
    return " ".join(near[0].__doc__.split()) if near else ""


_attempt_of_mistake = functools.lru_cache(maxsize=1000)(_attempt)
"""Mistakes stay as they are while learners try again."""


def _alike(one: tuple[Run, BaseException | None], other: tuple[Run, BaseException | None]) -> bool:
    """Whether two runs of a check saw the same results and ended in the same complaint, or in none."""
    (run, error), (other_run, other_error) = one, other
    if type(error) is not type(other_error) or len(run.seen) != len(other_run.seen):
        return False
    if isinstance(error, Complaint):
        alike = error.why == other_error.why and same(error.yours, other_error.yours, unknown=False)
        alike = alike or (error.yours is other_error.yours is None and error.why == other_error.why)
    else:
        alike = error is None
    return alike and all(map(same, run.seen, other_run.seen))


def _is_empty(given: Any) -> bool:
    """Whether a function has no body: `pass`, `...` or only a docstring."""
    if not isinstance(given, types.FunctionType):
        return False
    steps = [step for step in dis.get_instructions(given) if step.opname not in ("RESUME", "NOP")]
    return [step.opname for step in steps] == ["LOAD_CONST", "RETURN_VALUE"] and steps[0].argval is None


def _verdict_on(error: BaseException, check: Check, given: Any, run: Run) -> tuple[str, str, list[str]]:
    """Status, reason and details for an exception that left the check."""
    kind, colon, text = traceback.format_exception_only(error)[0].splitlines()[0].partition(": ")
    said = f"{kind.rpartition('.')[2]}{colon}{text}"[:300]
    frame, deepest = _learner_frame(error)
    where = [f"at line {frame.lineno} of {_file_name(frame.filename)}, in {frame.name}:  {frame.line}"] if frame else []
    if isinstance(error, TimeUp):
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
        return FAILED, said, [*where, *called_with(run.call_of(None)), *_advice(error, said)]
    if inspect.isclass(given) and given.__name__ in said and isinstance(error, _INTERFACE):
        return FAILED, f"the check uses your {given.__name__}, and that fails", [said]
    if run.calls and run.calls[-1].result is None and isinstance(error, TypeError | AttributeError):
        return FAILED, "nothing came back", [*called_with(run.calls[-1]), "yours    None", NO_RETURN]
    last = traceback.extract_tb(error.__traceback__)[-1]
    details = [said, f"at line {last.lineno} of {_file_name(last.filename)}, after {len(run.calls)} calls of yours"]
    return (
        BROKEN,
        "the check itself failed",
        [*details, "Please report this to the course. lab.catch_up lets you go on."],
    )


_INTERFACE = (AttributeError, TypeError, NotImplementedError)
"""What Python raises where a class lacks a method or an argument that its user counts on."""


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
