"""What stands in the learner's code, so that no message speaks of a loop, a `//` or a `.detach()` that is not there."""

import ast
import contextlib
import functools
import inspect
import linecache
import sys
import types
from collections.abc import Iterator
from typing import Any

from atlas.checking.whose import is_learners

_FUNCTIONS_READ = 20


class Written:
    """The code of a function or class and of the learner's own functions that it uses, to be asked what is in it."""

    def __init__(self, given: Any = None):
        self._given = given

    @functools.cached_property
    def functions(self) -> list[ast.AST]:
        """The functions, lambdas and methods, as trees; none where the code cannot be read."""
        return [node for code in _codes(self._given) if (node := _tree_of(code)) is not None]

    @functools.cached_property
    def _words(self) -> set[str]:
        return {word for function in self.functions for node in ast.walk(function) for word in _words_of(node)}

    def has(self, *words: str) -> bool:
        """Whether one of these names, or kinds of node of `ast`, is in it; True where the code cannot be read."""
        return not self.functions or not self._words.isdisjoint(words)

    def nodes(self, *kinds: type[ast.AST]) -> Iterator[Any]:
        """The nodes of these kinds."""
        return (node for function in self.functions for node in ast.walk(function) if isinstance(node, kinds))

    @property
    def one_function(self) -> bool:
        """Whether it is a function, not a class."""
        return not inspect.isclass(self._given)

    def returns(self) -> list[ast.Return]:
        """The `return`s of the function itself, not of those that it defines or uses; none of a class."""
        return [*_own(self.functions[0], ast.Return)] if self.one_function and self.functions else []


def _own(function: ast.AST, kind: type[ast.AST]) -> Iterator[Any]:
    inner = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
    for node in ast.iter_child_nodes(function):
        if isinstance(node, kind):
            yield node
        if not isinstance(node, inner):
            yield from _own(node, kind)


def _words_of(node: ast.AST) -> Iterator[str]:
    yield type(node).__name__
    for field in ("id", "attr", "arg", "name"):
        if isinstance(word := getattr(node, field, None), str):
            yield word
    if isinstance(node, ast.Subscript) and any(isinstance(n, ast.Constant) and n.value is None for n in ast.walk(node)):
        yield "newaxis"
    if isinstance(node, ast.For | ast.While) and any(isinstance(inner, ast.Return) for inner in ast.walk(node)):
        yield "return in a loop"


def _codes(given: Any) -> Iterator[types.CodeType]:
    """The code of `given` and of what of the learner's own it uses, from the outside in."""
    waiting, seen = [given], set()
    while waiting and len(seen) < _FUNCTIONS_READ:
        each = inspect.unwrap(waiting.pop(0))
        each = getattr(each, "func", getattr(each, "fget", each))  # of a partial, of a property
        if inspect.isclass(each) and is_learners(getattr(sys.modules.get(each.__module__), "__file__", None) or ""):
            waiting += [value for value in vars(each).values() if hasattr(value, "__get__") or callable(value)]
        if (
            not isinstance(each, types.FunctionType)
            or each.__code__ in seen
            or not is_learners(each.__code__.co_filename)
        ):
            continue
        seen.add(each.__code__)
        yield each.__code__
        waiting += [each.__globals__[name] for name in each.__code__.co_names if _function(each.__globals__.get(name))]
        for cell in each.__closure__ or ():
            with contextlib.suppress(ValueError):  # it is not filled yet
                waiting += [cell.cell_contents] if _function(cell.cell_contents) else []


def _function(value: Any) -> bool:
    return isinstance(value, types.FunctionType)


def tree_of_file(file: str, names: dict) -> ast.Module | None:
    """The file, or cell, as a tree; `names` are its globals."""
    return _parsed("".join(linecache.getlines(file, names)))


@functools.lru_cache(8)
def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def _tree_of(code: types.CodeType) -> ast.AST | None:
    """The definition that `code` was made of."""
    tree = tree_of_file(code.co_filename, {})
    body = [position for position in code.co_positions() if None not in position][-1:]
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == code.co_name:
            begin = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if begin == code.co_firstlineno:
                return node
        if isinstance(node, ast.Lambda) and code.co_name == "<lambda>" and body == [span(node.body)]:
            return node
    return None


def span(node: ast.AST) -> tuple[int, int, int, int]:
    """Where a node stands, as `co_positions` tells it: first and last line, first and last column."""
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
