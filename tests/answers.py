"""Wrong and right answers to the exercises: `tests/wrong_answers/<workshop>.py` registers them, the proofs run them.

    @wrong("perceptron_step", says="fragment of the message that names the mistake")
    def no_label(w, b, x, y, eta): ...

    @right("perceptron_step")
    def with_where(w, b, x, y, eta): ...

A wrong answer must fail its check, and what the learner then reads must contain `says`. With `says=None` it must only
fail; it counts as an answer whose message does not name the mistake.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Somebody's code for an exercise: a function, or a class where the exercise is one."""

    exercise: str
    code: Any
    correct: bool
    says: str | None = None

    @property
    def name(self) -> str:
        return self.code.__name__


_registered: list[Answer] = []


def wrong(exercise: str, *, says: str | None) -> Callable:
    """Register the decorated function or class as a wrong answer to `exercise`."""
    return _register(lambda code: Answer(exercise, code, False, says))


def right(exercise: str) -> Callable:
    """Register the decorated function or class as a right answer that is written otherwise than the reference."""
    return _register(lambda code: Answer(exercise, code, True))


def load(file: Path) -> list[Answer]:
    """The answers that a file registers, in its order."""
    spec = importlib.util.spec_from_file_location(f"answers_to_{file.stem.replace('-', '_')}", file)
    _registered.clear()
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return list(_registered)


def _register(make: Callable[[Any], Answer]) -> Callable:
    def keep(code):
        _registered.append(make(code))
        return code

    return keep
