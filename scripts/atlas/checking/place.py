"""Where in the learner's code an exception arose: the line, the failing expression, and what its names hold there."""

import ast
import builtins
import contextlib
import functools
import linecache
import traceback
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.checking.whose import is_learners
from atlas.checking.written import span, tree_of_file

UNKNOWN = object()
"""The value of an expression that only computing it would tell."""


@dataclass(frozen=True)
class Place:
    """A frame of the learner's, and how far its code had come. `deepest`: whether the exception arose in it itself."""

    frame: types.FrameType
    line: int
    step: int
    deepest: bool

    def __str__(self) -> str:
        code = self.frame.f_code
        text = linecache.getline(code.co_filename, self.line, self.frame.f_globals).strip()
        return f"at line {self.line} of {file_name(code.co_filename)}, in {code.co_name}:  {text}"

    @functools.cached_property
    def node(self) -> ast.AST | None:
        """The expression (or statement) that failed, where the code can be read."""
        where = [*self.frame.f_code.co_positions()][self.step // 2]
        here = [node for node in self._walk() if hasattr(node, "end_lineno") and span(node) == where]
        return here[-1] if here else None  # a statement that is an expression stands where the expression does

    @functools.cached_property
    def around(self) -> list[ast.AST]:
        """What the failing expression stands in, from the inside out, up to the function."""
        parents = {child: node for node in self._walk() for child in ast.iter_child_nodes(node)}
        chain, node = [], self.node
        while (node := parents.get(node)) is not None:
            chain.append(node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                break
        return chain

    def stored(self, name: str) -> list[tuple[int, ast.AST]]:
        """Where in this function `name` gets a value: the line and the statement, in order."""
        function = next((n for n in self.around if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)), None)
        found = []
        for statement in ast.walk(function) if function else ():
            for target in _targets(statement):
                names = [n for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
                found += [(statement.lineno, statement) for each in names if each.id == name]
        return sorted(found, key=lambda each: each[0])

    def value(self, node: ast.AST) -> Any:
        """What a name, an attribute or a constant holds there; UNKNOWN for all that would have to be computed."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            for names in (self.frame.f_locals, self.frame.f_globals, vars(builtins)):
                if node.id in names:
                    return names[node.id]
        if isinstance(node, ast.Attribute) and (owner := self.value(node.value)) is not UNKNOWN:
            with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
                return getattr(owner, node.attr)
        if isinstance(node, ast.List | ast.Tuple):
            return [] if isinstance(node, ast.List) else ()
        return UNKNOWN

    def operands(self) -> list[tuple[str, Any]]:
        """The parts of the failing expression, each as it is written and what it holds; none if it failed inside."""
        if not self.deepest:
            return []
        parts = [part for part in ast.iter_child_nodes(self.node) if isinstance(part, ast.expr)] if self.node else []
        return [(ast.unparse(part), self.value(part)) for part in parts]

    def held(self, kind: type | tuple[type, ...]) -> Iterator[tuple[str, Any]]:
        """The operands that are of this kind."""
        return ((text, value) for text, value in self.operands() if isinstance(value, kind))

    def _walk(self) -> Iterator[ast.AST]:
        tree = tree_of_file(self.frame.f_code.co_filename, self.frame.f_globals)
        return ast.walk(tree) if tree else iter(())


def _targets(statement: ast.AST) -> list[ast.AST]:
    """What a statement gives values to."""
    if isinstance(statement, ast.With):
        return [item.optional_vars for item in statement.items if item.optional_vars]
    if isinstance(statement, ast.Assign):
        return statement.targets
    kinds = ast.AugAssign | ast.AnnAssign | ast.For | ast.NamedExpr
    return [statement.target] if isinstance(statement, kinds) else []


def learners_place(error: BaseException) -> Place | None:
    """The deepest frame that is the learner's own: neither the kit's, nor a check's, nor a library's."""
    steps, step = [], error.__traceback__
    while step is not None:
        steps.append(step)
        step = step.tb_next
    for depth, step in enumerate(reversed(steps)):
        if is_learners(step.tb_frame.f_code.co_filename):
            return Place(step.tb_frame, step.tb_lineno, step.tb_lasti, depth == 0)
    return None


def passed_through(error: BaseException, file: str, function: str) -> bool:
    """Whether the exception came out of this function of this file."""
    frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
    return any((code.co_filename, code.co_name) == (file, function) for code in frames)


def file_name(file: str) -> str:
    """How a learner calls the file: a notebook cell has a meaningless path."""
    return "your cell" if "ipykernel" in file or file.startswith("<ipython") else Path(file).name
