"""What a call was given: kept as it was, compared afterwards, and put back.

Plain data (numbers, text, arrays, containers of them) is compared as a whole. Of objects with a life, models and
optimizers of any framework are looked into, wherever among the arguments they are; others are not compared.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlas.checking.values import entries, is_array, kept, put_back, same

LARGE = 2**20
"""Entries of a tensor beyond which only a sample of it is compared, and none of it put back."""


@dataclass(frozen=True)
class Aspect:
    """One respect in which an object could be changed.

    parts  gives name → value
    write  sets one part: (name, value before)
    """

    name: str
    parts: Callable[[], dict[str, Any]]
    write: Callable[[str, Any], None]


class Objects:
    """The models and optimizers among the arguments, as they are before a call."""

    def __init__(self, inputs: dict[str, Any], allowed: tuple[str, ...]):
        self._before = [
            (argument, aspect, {name: _sample(value) for name, value in aspect.parts().items()})
            for argument, found in _objects(inputs)
            for aspect in _aspects(found)
            if aspect.name not in allowed
        ]

    def changed(self) -> list[tuple[str, str, list[str]]]:
        """Argument, aspect, and the names of the parts that are not what they were or are gone."""
        return [(argument, aspect.name, names) for argument, aspect, names, _ in self._changes()]

    def put_back(self) -> None:
        for _, aspect, names, before in self._changes():
            for name in names:
                with contextlib.suppress(Exception):  # of another shape, or one that is gone
                    aspect.write(name, before[name])

    def _changes(self) -> Iterator[tuple[str, Aspect, list[str], dict]]:
        for argument, aspect, before in self._before:
            now = aspect.parts()
            names = [name for name, value in before.items() if not _alike(value, _sample(now.get(name)))]
            if names:
                yield argument, aspect, names, before


def _objects(inputs: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Argument and object, each object once."""
    seen, left = set(), [(name, value) for name, value in reversed(inputs.items())]
    while left:
        name, value = left.pop()
        if isinstance(value, list | tuple | dict):
            inner = value.values() if isinstance(value, dict) else value
            left.extend((name, item) for item in inner if isinstance(item, list | tuple | dict) or _aspects(item))
        elif id(value) not in seen and _aspects(value):
            seen.add(id(value))
            yield name, value


def _aspects(thing: Any) -> list[Aspect]:
    """In which respects this could be changed; none for what is no model and no optimizer."""
    torch, keras, tensorflow = (sys.modules.get(name) for name in ("torch", "keras", "tensorflow"))
    if hasattr(torch, "optim") and isinstance(thing, torch.nn.Module):
        return _of_torch(thing)
    if hasattr(torch, "optim") and isinstance(thing, torch.optim.Optimizer):
        return [Aspect("optimizer", lambda: _torch_slots(thing), lambda name, value: _fill_slot(thing, name, value))]
    if hasattr(keras, "optimizers") and isinstance(thing, keras.optimizers.Optimizer):
        return [_of_variables("optimizer", lambda: thing.variables)]
    if hasattr(keras, "layers") and isinstance(thing, keras.layers.Layer):
        layers = lambda: {layer.path or layer.name: layer for layer in thing._flatten_layers()}  # noqa: E731
        trainable = lambda: {name: layer.trainable for name, layer in layers().items()}  # noqa: E731
        frozen = Aspect("frozen", trainable, lambda name, value: setattr(layers()[name], "trainable", value))
        return [_of_variables("weights", lambda: thing.weights), frozen]
    if hasattr(tensorflow, "Module") and isinstance(thing, tensorflow.Module):
        return [_of_variables("weights", lambda: thing.variables)]
    return []


def _of_torch(module: Any) -> list[Aspect]:
    parameters = lambda: dict(module.named_parameters())  # noqa: E731
    weights = lambda: parameters() | dict(module.named_buffers())  # noqa: E731
    modes = lambda: {name: part.training for name, part in module.named_modules()}  # noqa: E731
    parts = lambda: dict(module.named_modules())  # noqa: E731
    return [  # in the order in which one explains the next
        Aspect("layers", lambda: {name: _Same(part) for name, part in parts().items()}, lambda name, value: None),
        Aspect("mode", modes, lambda name, value: setattr(parts()[name], "training", value)),
        Aspect("weights", weights, lambda name, value: put_back(weights()[name].data, value)),
        Aspect(
            "gradients",
            lambda: {name: p.grad for name, p in parameters().items()},
            lambda name, value: setattr(parameters()[name], "grad", value),
        ),
        Aspect(
            "frozen",
            lambda: {name: p.requires_grad for name, p in parameters().items()},
            lambda name, value: parameters()[name].requires_grad_(value),
        ),
    ]


class _Same:
    """Compares by identity, and keeps what is compared alive."""

    def __init__(self, thing: Any):
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.thing is self.thing


def _of_variables(name: str, variables: Callable[[], list]) -> Aspect:
    """TensorFlow's and Keras' variables, by path and place: names may be given twice."""
    parts = lambda: {f"{getattr(v, 'path', v.name)}#{i}": v for i, v in enumerate(variables())}  # noqa: E731
    return Aspect(name, parts, lambda part, value: parts()[part].assign(value))


def _torch_slots(optimizer: Any) -> dict[str, Any]:
    """Rates and other settings by group, state by parameter."""
    groups = enumerate(optimizer.param_groups)
    found = {f"{key} of group {i}": value for i, group in groups for key, value in group.items() if key != "params"}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = ((i, optimizer.state[p]) for i, p in enumerate(parameters) if p in optimizer.state)
    return found | {f"{key} of parameter {i}": value for i, state in states for key, value in state.items()}


def _fill_slot(optimizer: Any, name: str, value: Any) -> None:
    if is_array(now := _torch_slots(optimizer)[name]):
        return put_back(now, value)
    key, _, group = name.partition(" of group ")
    optimizer.param_groups[int(group)][key] = value


def _sample(value: Any) -> Any:
    """A copy that later changes do not reach; of a large tensor some entries, for it costs time and memory."""
    if not is_array(value):
        return value if isinstance(value, _Same) else kept(value)
    if (size := entries(value)) <= LARGE or not hasattr(value, "detach"):
        return kept(value)
    return kept(value.detach().flatten()[:: size // 2**16])


def _alike(before: Any, now: Any) -> bool:
    if is_array(before) and is_array(now) and before.dtype != now.dtype:
        return False
    if before is None or now is None or isinstance(before, bool | _Same):
        return before is now if before is None or now is None else before == now
    return same(before, now, exact=True)


def shared_memory(first: Any, second: Any) -> bool:
    """Whether an array in the one is the same memory as one in the other, or one a view of the other; not told of those
    that NumPy cannot see."""
    seen, others = list(_views(first)), list(_views(second))
    return any(
        a is b if hasattr(a, "assign") or hasattr(b, "assign") else np.may_share_memory(a, b)
        for a in seen
        for b in others
    )


def _views(value: Any) -> Iterator[Any]:
    """The arrays in it as NumPy's, of the same memory; variables of TensorFlow and Keras as they are."""
    for each in arrays(value):
        with contextlib.suppress(Exception):
            view = each.detach().numpy() if hasattr(each, "detach") else each
            if isinstance(view, np.ndarray) or hasattr(view, "assign"):
                yield view


def arrays(value: Any) -> Iterator[Any]:
    """The arrays in it, wherever in lists, tuples and dicts they are."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from arrays(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from arrays(item)
    elif is_array(value) and not isinstance(value, np.generic):
        yield value
