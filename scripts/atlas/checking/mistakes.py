"""Known mistakes, written as tables: the sentence that a learner reads, and what stands in a right answer's place.

    @parts
    def scale(x, factor=2.0, *, combine=lambda x, f: x * f):
        return combine(x, factor)

    @exercise(hints=[...], mistakes=scale.mistakes(
        combine={"It adds; a scale multiplies.": lambda x, f: x + f},
        returns={"The result is divided by its length.": lambda y: y / len(y)},
    ))

What stands behind the * are the parts of the right answer; before it is the exercise's own signature. A class's parts
are its methods and class attributes. A table is named for a part, for an argument (which then has that value whatever
is given), or `returns` (a function of the result); in `together` one mistake replaces several. For each argument with
a default a mistake that keeps to the default is added by itself.

The words, the same everywhere:
    answer      somebody's whole code for an exercise; tests/wrong_answers registers wrong and right ones
    mistake     something that goes wrong in a known way: code with the exercise's signature that makes it on purpose,
                and its sentence (the docstring). A failing answer that agrees with it everywhere gets that sentence
    likely      what a single demand thinks probable, where no mistake agrees (an argument of `expect`)
    reading     what the numbers themselves tell, where neither is there (readings.py)
The right answer here is what mistakes are made from. What is right is never taken from it, but from an authority.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

Table = Mapping[str, Any]
_CLASS_MACHINERY = {"__init__", "__module__", "__doc__", "__dict__", "__weakref__", "__qualname__", "__annotations__"}
_NONE_GIVEN = inspect.Parameter.empty


class Parts:
    """A right answer, a function or class, with parts to replace; call it as the exercise's own."""

    def __init__(self, right: Callable):
        self.right = right
        functools.update_wrapper(self, right, updated=())
        parameters = inspect.signature(right).parameters.values()
        self.parts = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
        self.signature = inspect.Signature([each for each in parameters if each.kind is not each.KEYWORD_ONLY])
        if inspect.isclass(right):
            self.parts |= {name for name in vars(right) if name not in _CLASS_MACHINERY}
        if taken := {"together", "returns", *self.signature.parameters} & self.parts:
            raise TypeError(f"{right.__name__}: a part may not be called {', '.join(sorted(taken))}")

    def __call__(self, *args, **kwargs) -> Any:
        return self.right(*args, **kwargs)

    def mistakes(
        self, *written: Callable, together: Mapping[str, Table] | None = None, **tables: Table
    ) -> list[Callable]:
        """The mistakes of the tables, in their order, after those written out as functions with docstrings.

        Raises TypeError for a table that names neither a part nor an argument.
        """
        single = [(words, {name: value}) for name, table in tables.items() for words, value in table.items()]
        made = [self.mistake(words, **new) for words, new in [*(together or {}).items(), *single]]
        return [*written, *made, *self._defaults_kept(tables)]

    def mistake(self, words: str, **new: Any) -> Callable:
        """One mistake: a function (or class) with the exercise's signature whose docstring is `words`."""
        parts = {name: value for name, value in new.items() if name in self.parts}
        fixed = {name: value for name, value in new.items() if name in self.signature.parameters}
        if unknown := new.keys() - parts.keys() - fixed.keys() - {"returns"}:
            raise TypeError(f"{self.__name__} has no part and no argument {', '.join(sorted(unknown))}")
        made = self._class(parts, fixed) if inspect.isclass(self.right) else self._function(parts, fixed, **new)
        made.__name__, made.__doc__, made.of_exercise = self.__name__.lstrip("_"), words, self.signature
        return made

    def _function(self, parts: Table, fixed: Table, returns: Callable | None = None, **_) -> Callable:
        def mistake(*args, **kwargs):
            result = self.right(*self._arguments(fixed, args, kwargs), **parts)
            return returns(result) if returns else result

        mistake.__signature__ = self.signature
        return mistake

    def _class(self, parts: Table, fixed: Table) -> type:
        def begin(instance, *args, **kwargs):
            self.right.__init__(instance, *self._arguments(fixed, args, kwargs))

        begin.__signature__ = inspect.signature(self.right.__init__)
        return type(self.right.__name__, (self.right,), {**parts, "__init__": begin})

    def _arguments(self, fixed: Table, args: tuple, kwargs: dict) -> list:
        """The exercise's arguments in order, the fixed ones at their values."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        bound.arguments.update(fixed)
        return [*bound.args, *bound.kwargs.values()]

    def _defaults_kept(self, tables: Mapping[str, Table]) -> list[Callable]:
        """For each argument with a default the mistake that takes it whatever is given, unless a table speaks of it."""
        return [
            self.mistake(f"{name} is an argument; this takes {each.default} whatever it is.", **{name: each.default})
            for name, each in self.signature.parameters.items()
            if each.default is not _NONE_GIVEN and name not in tables
        ]


parts = Parts
