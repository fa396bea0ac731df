"""The watch around the learner's function or class: what it must not do to its inputs and its surroundings."""

import inspect
from typing import Any

from atlas.checking.calls import Call, Run, called_with
from atlas.checking.expectations import difference
from atlas.checking.values import kept, plain, put_back, same, summary
from atlas.checking.vocabulary import Complaint


class Learner:
    """The learner's function or class under watch; call it as the learner's own.

    Each call checks that inputs come back unchanged (and puts them back) and, where all inputs are plain data, that a
    second call with the same input gives the same result.
    """

    def __init__(self, given: Any, run: Run):
        self._given, self._run = given, run
        try:
            self._signature = inspect.signature(given)
        except (TypeError, ValueError):
            self._signature = None

    def __call__(self, *args, **kwargs):
        inputs = self._by_name(args, kwargs)
        call = Call({name: kept(value) for name, value in inputs.items()})
        self._run.calls.append(call)
        call.result = result = self._watched(call, inputs, args, kwargs)
        repeatable = not inspect.isclass(self._given) and not self._run.check.random
        if repeatable and all(map(plain, inputs.values())):
            first = kept(result)
            again = self._watched(call, inputs, args, kwargs)
            if not same(first, again):
                details = [*called_with(call), *difference(first, again, ("first", "second"))]
                reading = "Does it draw random numbers, or change something outside the function?"
                raise Complaint(
                    "the same input must give the same result, and a second call gave another", details, reading
                )
        return result

    def _by_name(self, args: tuple, kwargs: dict) -> dict[str, Any]:
        """The arguments by the learner's names; complains where the learner's signature cannot take them."""
        if self._signature is None:
            return {f"argument {i}": value for i, value in enumerate(args, 1)} | kwargs
        try:
            return dict(self._signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            name = self._run.check.name
            wanted = ", ".join([*map(summary, args), *(f"{key}={summary(value)}" for key, value in kwargs.items())])
            details = [f"called as {name}({wanted})", f"yours is  {name}{self._signature}", f"{error}"]
            raise Complaint("the arguments in the first line must stay as the exercise gives them", details) from None

    def _watched(self, call: Call, inputs: dict, args: tuple, kwargs: dict) -> Any:
        changed = None
        try:
            result = self._given(*args, **kwargs)
        finally:
            for name, value in inputs.items():
                if plain(value) and not same(call.given[name], value, exact=True):
                    changed = changed or (name, kept(value))
                    put_back(value, call.given[name])
        if changed:
            name, after = changed
            details = difference(call.given[name], after)
            reading = f"{name} += …, {name}[…] = … and the like write into the caller's data; make a new one."
            raise Complaint(f"your function changes its input {name}: the caller still needs it", details, reading)
        return result

    def __getattr__(self, name: str):
        return getattr(self._given, name)
