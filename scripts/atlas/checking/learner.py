"""The watch around the learner's function or class: what it must not do to its inputs and its surroundings."""

import contextlib
import copy
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from atlas.checking.arguments import Objects, arrays, shared_memory
from atlas.checking.calls import Call, Run, called_with
from atlas.checking.expectations import difference
from atlas.checking.memory import Memory, methods
from atlas.checking.values import array, is_array, kept, plain, put_back, same, summary
from atlas.checking.vocabulary import Complaint
from atlas.checking.world import Settings, Tables, generator_states, generators_kept, replaced, seeds_told
from atlas.checking.written import Written


@contextlib.contextmanager
def watched(given: Any, run: Run, kind: type["Learner"]) -> Iterator["Learner"]:
    """The learner's function or class under watch, for as long as a check uses it.

    What is noticed on the way and does not make the rest of the check meaningless is told at its end: what the check
    itself says of it comes first, for it knows the exercise.

    kind: Learner, or one of its kinds below.
    """
    memory = Memory(given)
    tables = Tables(memory.mentioned)
    learner = kind(given, run, memory)
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeds_told(learner._seeds))
        for owner, name, method in learner._methods():
            stack.enter_context(replaced(owner, name, learner._watching(method)))
        try:
            yield learner
            run.remembers = memory.changed()
            for call, names in tables.changed().items():
                learner._notice(
                    f"your code changes {call}, which all later code uses",
                    [f"changed  {', '.join(names[:6])}"],
                    "It stays for all code that runs later. The exercise needs no such change.",
                )
            if run.notices and not run.to_the_end:
                raise run.notices[0]
        except Complaint as complaint:
            run.remembers = memory.changed()
            if not complaint.reading:
                complaint.reading = run.notices[0].why if run.notices else ""
            raise
        finally:
            memory.put_back()
            tables.put_back()
            for objects in reversed(learner._objects):
                objects.put_back()


class Learner:
    """The learner's function or class; call it as the learner's own.

    Each call, of the function, of the class or of a method, must leave its inputs, the process's settings and the
    global generators alone (and what it has changed is put back). Where all inputs of a function are plain data, a
    second call with the same input must give the same result.
    """

    def __init__(self, given: Any, run: Run, memory: Memory):
        self._given, self._run, self._memory = given, run, memory
        self._signature = _signature(given)
        self._settings = Settings()
        self._inside, self._seeded, self._last = False, None, None
        self._objects: list[Objects] = []

    def __call__(self, *args, **kwargs):
        inputs, call = self._noted(args, kwargs)
        call.result = result = self._called(self._given, call, inputs, args, kwargs)
        repeatable = not inspect.isclass(self._given) and not self._run.check.random
        if repeatable and all(map(plain, inputs.values())):
            first = kept(result)
            again = self._called(self._given, call, inputs, args, kwargs)
            if not same(first, again):
                details = [*called_with(call), *difference(first, again, ("first", "second"))]
                changed = self._memory.changed()
                reading = "Does it draw random numbers, or change something outside the function?"
                if changed:
                    reading = f"Each call changes something outside the function: {', '.join(changed)}."
                elif _has_gradients(inputs) and Written(self._given).has("backward"):
                    reading = (
                        "backward() adds to .grad, where the first call left its own: torch.autograd.grad(…) does not."
                    )
                raise Complaint(
                    "the same input must give the same result, and a second call gave another", details, reading
                )
        return result

    def times(self, n: int, *args, **kwargs) -> list:
        """What n calls with the same arguments give, under one watch: for draws that are counted."""
        inputs, call = self._noted(args, kwargs)

        def each(*args, **kwargs):
            return [self._given(*args, **kwargs) for _ in range(n)]

        call.result = results = self._called(each, call, inputs, args, kwargs)
        return results

    def _noted(self, args: tuple, kwargs: dict) -> tuple[dict, Call]:
        """The inputs by name, and the call that is about to be made, on the check's list."""
        inputs = self._by_name(args, kwargs)
        call = Call({name: kept(value) for name, value in inputs.items()})
        self._run.calls.append(call)
        self._run.used = None
        return inputs, call

    def __getattr__(self, name: str):
        return getattr(self._given, name)

    def _methods(self) -> list[tuple[type, str, Callable]]:
        """The methods that a check may call: not those by which Python itself asks, over and over."""
        if not inspect.isclass(self._given):
            return []
        found = [method for method in methods(self._given) if vars(method[0]).get(method[1]) is method[2]]
        return [each for each in found if not each[1].startswith("__") or each[1] in ("__call__", "__getitem__")]

    def _watching(self, method: Callable) -> Callable:
        """The method under watch, where a check calls it: not where the learner's own code does, or a tracer."""
        signature = _signature(method)

        @functools.wraps(method)
        def watching(instance, *args, **kwargs):
            if self._inside or _traced():
                return method(instance, *args, **kwargs)
            try:
                _, *inputs = signature.bind(instance, *args, **kwargs).arguments.items()
            except TypeError:
                return method(instance, *args, **kwargs)  # which says what is wrong
            call = Call({name: kept(value) for name, value in inputs})
            self._run.used = instance
            bound = functools.partial(method, instance)
            return self._called(bound, call, dict(inputs), args, kwargs)

        return watching

    # -- what is noticed

    def _notice(self, why: str, details: list[str], reading: str) -> None:
        self._run.notices.append(Complaint(why, details, reading))

    def _seeds(self, call: str) -> None:
        """A global generator is about to be seeded, by whomever."""
        if self._inside and self._seeded is None:
            self._seeded = call, generator_states()

    def _called(self, function: Callable, call: Call, inputs: dict, args: tuple, kwargs: dict) -> Any:
        """What the function gives, or raises, with an eye on all that it could change."""
        changes = self._run.check.changes
        data = {name: value for name, value in inputs.items() if plain(value)}
        few = len(self._run.calls) <= _CALLS
        settings = self._settings.read()
        objects = Objects({name: value for name, value in inputs.items() if name not in data}, changes)
        given = few and not self._run.check.random and any(map(_is_generator, inputs.values()))
        draws = generator_states() if given else None
        pure = few and len(data) == len(inputs) and "arguments" not in changes and not inspect.isclass(self._given)
        last = (self._last, kept(self._last)) if pure else None
        self._inside, changed = True, None
        try:
            self._run.gave = result = function(*args, **kwargs)
        finally:
            self._inside = False
            for name, value in data.items():
                if type(value) in _FIXED or "arguments" in changes:
                    continue
                if not _as_given(call.given[name], value):
                    changed = changed or (name, kept(value))
                    put_back(value, call.given[name])
            self._look_at_settings(settings)
            self._look_at_generators(draws)
            self._look_at_objects(objects)
        if changed:
            self._complain_of_input(call, *changed)
        if pure:
            self._look_at_the_last_result(*last, result)
        if self._run.check.new:
            self._look_for_inputs_in(result, inputs)
        return result

    def _complain_of_input(self, call: Call, name: str, after: Any) -> None:
        before = call.given[name]
        details = difference(before, after)
        if is_array(before) and is_array(after) and before.dtype != after.dtype:
            details = [f"before   {before.dtype}", f"after    {after.dtype}"]
        reading = f"{name} += …, {name}[…] = … and the like write into the caller's data; make a new one."
        if _rounded(before, after):
            lost = "It is back but for a rounding, which adding and taking off again can leave"
            reading = f"{lost}: keep the old value and write that back, or change a copy."
        raise Complaint(f"your function changes its input {name}: the caller still needs it", details, reading)

    def _look_at_settings(self, settings: list) -> None:
        for setting, before, after in self._settings.put_back(settings):
            self._notice(
                f"your code changes a setting that all later code runs with: {setting.call}",
                [f"before   {before}", f"after    {after}"],
                setting.cure,
            )

    def _look_at_generators(self, draws: dict | None) -> None:
        seeded, self._seeded = self._seeded, None
        if seeded and "seed" not in self._run.check.changes and generator_states() != seeded[1]:
            reading = "All later draws then repeat, in the whole program. Seed once, outside the function."
            if draws:
                reading = "The exercise hands in a generator: draw from that one, and seed none."
            self._notice(f"your code seeds a global generator, by {seeded[0]}", [], reading)
        elif draws:
            after = generator_states()
            whose = [name for name, state in after.items() if draws.get(name) != state]
            if whose:
                self._notice(
                    f"your code draws from {whose[0]} global generator: chance is to come from the given one alone",
                    [],
                    "Draw by the generator's own methods, or hand it on (generator=..., random_state=...).",
                )

    def _look_at_objects(self, objects: Objects) -> None:
        if found := objects.changed():
            self._objects.append(objects)
        for argument, aspect, names in found:
            what, cure = (words.format(argument) for words in _ASPECTS[aspect])
            shown = [name.partition("#")[0] or "itself" for name in names[:4]]
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            details = [f"changed  {', '.join(shown)}{more}"]
            self._notice(f"your code {what}", details, cure)

    def _look_at_the_last_result(self, last: Any, before: Any, result: Any) -> None:
        self._last = result
        if shared_memory(last, result) and not same(before, last, exact=True):
            self._notice(
                "a second call writes over the result of the first: both are the same memory",
                [f"before   {summary(before)}", f"after    {summary(last)}"],
                "Is one array kept and filled anew in each call? Make a new one each time.",
            )

    def _look_for_inputs_in(self, result: Any, inputs: dict) -> None:
        for name, value in inputs.items():
            if type(value) not in _FIXED and shared_memory(value, result):
                self._notice(
                    f"your function returns its input {name} itself: the result is to be new",
                    [],
                    f"What later changes {name} in place would change the result too. Make a copy of it.",
                )

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


_ASPECTS = {
    "weights": (
        "changes the weights of {0}, or its running statistics: they are to stay as they are",
        "Is a step taken, or something written in place? A pass in training mode moves running statistics too.",
    ),
    "gradients": (
        "leaves other gradients in {0} than there were (.grad)",
        "backward() adds to .grad, zero_grad() clears it. torch.autograd.grad(loss, parameters) stores none.",
    ),
    "mode": (
        "leaves {0} in another mode than it came in",
        "Remember {0}.training before, and hand it to {0}.train(...) at the end.",
    ),
    "frozen": (
        "changes which parameters of {0} learn (requires_grad, trainable)",
        "It stays so. To compute without gradients torch.no_grad() is enough, and ends by itself; for a gradient where "
        "all is frozen, let a copy of the input need one.",
    ),
    "layers": ("changes the layers of {0}", "Work on a copy: copy.deepcopy({0})."),
    "optimizer": ("changes the state of {0}", "Is a step taken, or a rate set?"),
}


class Disturbed(Learner):
    """Calls and instances with other numbers come between the check's own, and must not show in what those give."""

    _forgets = False

    def __init__(self, given: Any, run: Run, memory: Memory):
        super().__init__(given, run, memory)
        self._twins: dict[int, tuple[Any, Any]] = {}
        self._turn = 0

    def __call__(self, *args, **kwargs):
        result = super().__call__(*args, **kwargs)
        twin = self._aside(self._given, args, kwargs, numbers=not inspect.isclass(self._given))
        if inspect.isclass(self._given) and twin is not None:
            self._twins[id(result)] = result, twin
        return result

    def _watching(self, method: Callable) -> Callable:
        watching = super()._watching(method)

        @functools.wraps(method)
        def disturbing(instance, *args, **kwargs):
            if self._inside or _traced():
                return method(instance, *args, **kwargs)
            result = watching(instance, *args, **kwargs)
            if id(instance) in self._twins:
                self._aside(functools.partial(method, self._twins[id(instance)][1]), args, kwargs)
            return result

        return disturbing

    def _aside(self, function: Callable, args: tuple, kwargs: dict, numbers: bool = True) -> Any:
        """Call with copies, of other numbers; whatever becomes of it is nobody's business."""
        self._turn += 1
        self._inside = True
        memory = self._memory.anew() if self._forgets else None
        try:
            with generators_kept(), contextlib.suppress(Exception):
                args, kwargs = copy.deepcopy((args, kwargs))
                if numbers:
                    args, kwargs = _other((args, kwargs), 0.5 if self._turn % 2 else 2.5)
                return function(*args, **kwargs)
        finally:
            self._inside = False
            if memory:
                memory.put_back()
        return None


class DisturbedInVain(Disturbed):
    """The same, but nothing of it stays in memory: a check that fails even so cannot stand calls besides its own."""

    _forgets = True


class Forgetful(Learner):
    """Nothing that the code keeps between calls is there at the next one."""

    def __call__(self, *args, **kwargs):
        self._memory.put_back()
        return super().__call__(*args, **kwargs)


def _other(value: Any, factor: float) -> Any:
    """The same kind and shape, other numbers: between 0 and 1 stays there for a factor below 1, positive positive."""
    if isinstance(value, list | tuple):
        return type(value)(_other(item, factor) for item in value)
    if isinstance(value, dict):
        return {key: _other(item, factor) for key, item in value.items()}
    if isinstance(value, float) or (is_array(value) and "float" in str(value.dtype)):
        return value * factor + (0.25 if factor < 1 else 0)
    return value


def _as_given(before: Any, now: Any) -> bool:
    if is_array(before) and is_array(now) and not hasattr(now, "assign") and before.dtype != now.dtype:
        return False
    return same(before, now, exact=True)


def _rounded(before: Any, after: Any) -> bool:
    """Whether two arrays of fractions differ by no more than a few roundings of their largest entry."""
    if not (is_array(before) and is_array(after)) or before.dtype != after.dtype or before.shape != after.shape:
        return False
    old, new = array(before), array(after)
    if old.dtype.kind != "f" or not old.any():
        return False
    return bool(np.abs(old - new).max() <= 8 * np.finfo(old.dtype).eps * np.abs(old).max())


def _has_gradients(inputs: dict) -> bool:
    """Whether a tensor among the inputs has a .grad."""
    return any(getattr(each, "is_leaf", False) and each.grad is not None for each in arrays([*inputs.values()]))


def _is_generator(value: Any) -> bool:
    """Whether it is a generator of random numbers that is handed in."""
    if isinstance(value, list | tuple):
        return any(map(_is_generator, value))
    kinds = {"Generator", "RandomState", "Random", "SeedGenerator"}
    return not isinstance(value, type) and any(
        base.__name__ in kinds and base.__module__.partition(".")[0] in _SOURCES for base in type(value).__mro__
    )


_FIXED = {types.NoneType, bool, int, float, complex, str, bytes}
"""No call can change what is of these types."""
_CALLS = 50
"""In so many calls of a run the watch looks at what takes it longest: the global generators, and the last result."""
_SOURCES = {"numpy", "torch", "random", "tensorflow", "keras"}


def _traced() -> bool:
    """Whether a framework records the code rather than runs it: torch.compile and export, tf.function."""
    torch, tensorflow = sys.modules.get("torch"), sys.modules.get("tensorflow")
    if hasattr(torch, "compiler") and (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        return True
    return hasattr(tensorflow, "executing_eagerly") and not tensorflow.executing_eagerly()


def _signature(given: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(given)
    except (TypeError, ValueError):
        return None
