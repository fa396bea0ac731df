"""What a check is made of: the decorator `exercise`, the Check it makes, and what it raises."""

import importlib.util
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


CHANGES = {
    "arguments": "arrays, lists and dicts that are handed in, TensorFlow's variables among them",
    "weights": "a model's parameters, buffers and running statistics",
    "gradients": "the .grad of a model's parameters",
    "mode": "whether a model and its layers are in training",
    "frozen": "which of a model's parameters learn: requires_grad, trainable",
    "layers": "the layers of a model: another head, for example",
    "optimizer": "the state and the rates of an optimizer",
    "seed": "global generators are seeded",
}
"""What a call may be meant to change; without a word about it, a change is reported and put back."""


@dataclass(frozen=True)
class Check:
    """One exercise's check. `function(learner, rng)` raises a Complaint, or returns when all is well."""

    name: str
    function: Callable
    hints: tuple[str, ...]
    mistakes: tuple[Callable, ...]
    seconds: float
    random: bool = False
    changes: tuple[str, ...] = ()
    new: bool = False

    def __post_init__(self):
        if unknown := [name for name in self.changes if name not in CHANGES]:
            raise ValueError(f"the check of {self.name} declares changes={unknown}; there are {', '.join(CHANGES)}")
        if not self.hints or not all(hint.strip() for hint in self.hints):
            raise ValueError(f"the check of {self.name} needs hints, and none of them empty")
        for mistake in self.mistakes:
            if not (mistake.__doc__ or "").strip():
                raise ValueError(f"mistake {mistake.__name__} of {self.name} needs a docstring: it is the message")

    @property
    def signature(self) -> inspect.Signature | None:
        """The exercise's own first line, as its known mistakes have it (mistakes.py); None where none says it."""
        return next((each.of_exercise for each in self.mistakes if hasattr(each, "of_exercise")), None)


def exercise(
    *,
    hints: Sequence[str],
    mistakes: Sequence[Callable] = (),
    seconds: float = 10,
    random: bool = False,
    changes: Sequence[str] = (),
    new: bool = False,
) -> Callable:
    """Make the check of the exercise that has the decorated function's name.

    seconds: the time limit of a run. random: the function is meant to draw from global generators, as dropout does;
    then a second call may give something else. changes: what a call is meant to change, of CHANGES: a training step the
    "weights", "gradients", "mode" and "optimizer". new: no array of the result may be an input or a view of one.
    """

    def check(function: Callable) -> Check:
        parts = tuple(hints), tuple(mistakes), seconds, random, tuple(changes), new
        return Check(function.__name__, function, *parts)

    return check


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
