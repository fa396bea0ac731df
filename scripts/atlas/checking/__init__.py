"""The check engine: runs a learner's function against an authority and says what is wrong, and the likely why.

A workshop's `checks.py` holds one check per exercise:

    @exercise(hints=["a nudge", "nearly the code"], mistakes=[adds_instead])
    def scale(learner, rng):
        x = rng.normal(size=(5, 3))
        expect.close(learner(x, 0.5), 0.5 * x, why="every entry times the factor", source="the definition")

`learner` is the learner's function (or class), watched: inputs, models, settings and global generators must be as
they were, the same input must give the same result, calls and instances must not disturb each other, an endless loop
is ended. What a call is meant to change the decorator says: changes=["weights"]. `expect` compares; its first complaint
ends the check. `mistakes` are functions (or classes) with the exercise's signature that make a known mistake on
purpose: where the check says the same of one of them as of the learner's, its docstring is what the learner reads
(mistakes.py); elsewhere `likely`, what `readings` finds in the numbers, or `advice` in an exception. The kinds of input
to try come from families.py. A check draws what is random from `rng` only, so that it can run again.
Nothing here imports a framework.
"""

from atlas.checking.demands import governed, gradients, module_gradients, tensor, torch_generator
from atlas.checking.expectations import expect
from atlas.checking.families import agree, among, around, cases, counts, floats, labels, numbers
from atlas.checking.mistakes import parts
from atlas.checking.probes import Tape
from atlas.checking.report import BROKEN, FAILED, PASSED, UNTOUCHED, Outcome, card
from atlas.checking.run import run_check
from atlas.checking.values import array, same, summary
from atlas.checking.vocabulary import Check, CheckFailed, Complaint, exercise, load_checks, strict

__all__ = [
    "BROKEN",
    "FAILED",
    "PASSED",
    "UNTOUCHED",
    "Check",
    "CheckFailed",
    "Complaint",
    "Outcome",
    "Tape",
    "agree",
    "among",
    "around",
    "array",
    "card",
    "cases",
    "counts",
    "exercise",
    "expect",
    "floats",
    "governed",
    "gradients",
    "labels",
    "load_checks",
    "module_gradients",
    "numbers",
    "parts",
    "run_check",
    "same",
    "strict",
    "summary",
    "tensor",
    "torch_generator",
]
