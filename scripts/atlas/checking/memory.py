"""What the learner's code keeps between calls: defaults, globals, closures, attributes of functions and classes.

That a call changes one of them is no fault by itself: a cache may be right. Where one is changed, the check runs again
with other calls and other instances in between (learner.py), and failing then it has found two that disturb each other.
"""

import contextlib
import copy
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from atlas.checking.arguments import arrays
from atlas.checking.values import entries, kept, plain, put_back, same
from atlas.checking.whose import is_learners

_LARGE = 100_000
"""Entries beyond which a value is passed over: the data sets that a notebook holds."""
_GONE = object()


@dataclass
class _Table:
    """Values by name that outlive a call. label: how one is called, with {} for its name."""

    label: str
    read: Callable[[], dict[str, Any]]
    write: Callable[[str, Any], None]
    before: dict[str, tuple[Any, Any]] = field(init=False)  # the object, and a copy of what was in it
    names: set[str] = field(init=False)

    def __post_init__(self):
        found = self.read()
        self.names = set(found)
        self.before = {name: (value, kept(value)) for name, value in found.items() if _is_kept(name, value)}

    def changed(self) -> dict[str, Any]:
        """What is no longer what it was, or was not there, by name."""
        now = self.read()
        old = {name: now.get(name, _GONE) for name in self.before}
        new = {name: value for name, value in now.items() if name not in self.names and _is_kept(name, value)}
        return {name: value for name, value in old.items() if not same(self.before[name][1], value, exact=True)} | new

    def put_back(self) -> None:
        for name in self.changed():
            value, content = self.before.get(name, (_GONE, None))
            put_back(value, content)
            self.write(name, value)


class Memory:
    """What `given`, a function or a class, and the functions it calls could remember; as it is now.

    mentioned: all names and texts in this code.
    """

    def __init__(self, given: Any):
        self._tables, self.mentioned = [], set()
        for part in _parts(given, set()):
            self._tables += _of_class(part) if isinstance(part, type) else _of_function(part)
            self.mentioned |= set() if isinstance(part, type) else _mentioned(part)

    def anew(self) -> "Memory":
        """The same places, as they are by now."""
        memory = copy.copy(self)
        memory._tables = [_Table(table.label, table.read, table.write) for table in self._tables]
        return memory

    def changed(self) -> list[str]:
        """How that is called which is no longer what it was."""
        return list(dict.fromkeys(table.label.format(name) for table in self._tables for name in table.changed()))

    def put_back(self) -> None:
        for table in self._tables:
            table.put_back()


def methods(given: type) -> Iterator[tuple[type, str, types.FunctionType]]:
    """The methods that the learner wrote, in the class or in classes above it: which class, name, function."""
    for owner in given.__mro__:
        for name, value in list(vars(owner).items()):
            value = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
            if isinstance(value, types.FunctionType) and is_learners(value.__code__.co_filename):
                yield owner, name, value


def _parts(given: Any, seen: set[int]) -> Iterator[Any]:
    """`given` and all functions and classes of the learner's that it uses by name."""
    given = getattr(given, "__wrapped__", given)
    if id(given) in seen:
        return
    seen.add(id(given))
    if isinstance(given, type):
        found = list(methods(given))
        if found:
            yield given
        for _, _, function in found:
            yield from _parts(function, seen)
    elif isinstance(given, types.FunctionType) and is_learners(given.__code__.co_filename):
        yield given
        named = _globals(given).values()
        for value in [*named, *_cells(given).values()]:
            if isinstance(value, type | types.FunctionType):
                yield from _parts(value, seen)


def _of_function(function: types.FunctionType) -> list[_Table]:
    names, cells = function.__code__.co_varnames, function.__closure__ or ()
    default = f"the default of {{}} in {function.__name__}"
    positional = names[function.__code__.co_argcount - len(function.__defaults__ or ()) :]

    def set_cell(name: str, value: Any) -> None:
        cells[function.__code__.co_freevars.index(name)].cell_contents = value

    in_place = lambda name, value: None  # noqa: E731
    return [
        _Table(default, lambda: dict(zip(positional, function.__defaults__ or (), strict=False)), in_place),
        _Table(default, lambda: dict(function.__kwdefaults__ or {}), in_place),
        _Table(f"{function.__name__}.{{}}", lambda: vars(function), _writes(vars(function))),
        _Table("{} of the function around it", lambda: _cells(function), set_cell),
        _Table("the global {}", lambda: _globals(function), _writes(function.__globals__)),
    ]


def _of_class(given: type) -> list[_Table]:
    def write(name: str, value: Any) -> None:
        delattr(given, name) if value is _GONE else setattr(given, name, value)

    above = [owner for owner in given.__mro__[1:] if any(True for _ in methods(owner))]
    label = f"{given.__name__}.{{}}, which belongs to the class"
    own = _Table(
        label, lambda: {name: value for name, value in vars(given).items() if not name.startswith("__")}, write
    )
    return [own, *(table for owner in above for table in _of_class(owner))]


def _writes(table: dict[str, Any]) -> Callable[[str, Any], None]:
    return lambda name, value: table.pop(name, None) if value is _GONE else table.__setitem__(name, value)


def _globals(function: types.FunctionType) -> dict[str, Any]:
    """The globals that its code names."""
    return {name: function.__globals__[name] for name in _mentioned(function) if name in function.__globals__}


def _mentioned(function: types.FunctionType) -> set[str]:
    """The names and texts in its code, that of the functions within it too."""
    found, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        found.update(code.co_names, (text for text in code.co_consts if isinstance(text, str)))
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
    return found


def _cells(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty one
            found[name] = cell.cell_contents
    return found


def _is_kept(name: str, value: Any) -> bool:
    """Whether it is data, and not too large to be copied."""
    if name.startswith("__") or isinstance(value, types.FunctionType) or not plain(value):
        return False
    size = len(value) if isinstance(value, list | tuple | dict | set) else 0
    return size + sum(map(entries, arrays(value))) <= _LARGE
