"""Shapes that do not fit: what the failing line itself shows of the cause, "" where it shows nothing."""

import ast
import re
import types
from typing import Any

from atlas.checking.place import Place
from atlas.checking.values import is_array

_MADE_TO_SIZE = {"eye", "identity", "one_hot", "zeros", "ones", "full", "empty", "arange"}
_REDUCED = {"sum", "mean", "std", "var", "max", "min", "amax", "amin", "prod", "norm", "logsumexp", "median"}
_PRODUCTS = {"matmul", "mm", "bmm", "dot"}


def of_broadcast(text: str, place: Place | None) -> str:
    """Two arrays that do not broadcast; `text` is what the exception says."""
    sides = _sides(place)
    return (_of_a_size_built_in(text, place, sides) or _of_a_lost_axis(text, place, sides)) if sides else ""


def of_product(place: Place | None) -> tuple[str, str]:
    """How the two matrices of a product differ, and the question for the one transpose that would make them fit."""
    sides = _sides(place)
    shapes = [_shape(place.value(side)) for side in sides]
    if len(sides) != 2 or not all(shape and len(shape) == 2 for shape in shapes):
        return "", ""
    (_, columns), (rows, _) = shapes
    if columns == rows:
        return "", ""
    fitting = [
        side for side, other in zip(sides, (shapes[0][0] == rows, shapes[1][1] == columns), strict=True) if other
    ]
    fact = f"in a product the {columns} columns of the first must be as many as the {rows} rows of the second"
    if len(fitting) != 1:
        return fact, ""
    (side,) = fitting
    without = isinstance(side, ast.Attribute) and side.attr == "T"
    instead = ast.unparse(side.value if without else ast.Attribute(side, "T"))
    asked = "is that transpose one too many" if without else "is a transpose missing"
    return fact, f"With `{instead}` for `{ast.unparse(side)}` they would be: {asked}?"


def past_the_shape(place: Place | None) -> str:
    """An axis asked of .shape that is not there."""
    node = place.node if place and place.deepest else None
    if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape"):
        return ""
    shape = place.value(node.value)
    if not isinstance(shape, tuple):
        return ""
    axes = {0: "no axis", 1: "one axis"}.get(len(shape), f"{len(shape)} axes")
    owner = ast.unparse(node.value.value)
    fact = f"`{owner}` has {axes} here, shape {tuple(shape)}, and so no {ast.unparse(node)}"
    made = _source(place, node.value.value)
    if isinstance(made, ast.Call) and _name(made) == "repeat_interleave" and not _has_dim(made):
        return f"{fact}: `{ast.unparse(made)}` without a dim flattens what it repeats."
    return f"{fact}: may it have any number of axes?"


def _has_dim(call: ast.Call) -> bool:
    """Whether a method is given, besides a first argument, an axis."""
    return len(call.args) > 1 or any(keyword.arg == "dim" for keyword in call.keywords)


# ------------------------------------------------------------------------------------------------ two sides


def _sides(place: Place | None) -> list[ast.expr]:
    """The two expressions that met in the line, as they are written there."""
    node = place.node if place and place.deepest else None
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.AugAssign):
        return [node.target, node.value]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _PRODUCTS:
        of_module = isinstance(place.value(node.func.value), types.ModuleType)
        return [*([] if of_module else [node.func.value]), *node.args][:2]
    return []


def _shape(value: Any) -> tuple | None:
    return tuple(value.shape) if is_array(value) else None


def _source(place: Place, side: ast.expr) -> ast.expr:
    """What a name was computed by, last before the line; anything else as it is."""
    if not isinstance(side, ast.Name):
        return side
    stored = [statement for line, statement in place.stored(side.id) if line < place.line]
    if not stored or not isinstance(stored[-1], ast.Assign) or len(stored[-1].targets) != 1:
        return side
    target, value = stored[-1].targets[0], stored[-1].value
    if isinstance(target, ast.Name):
        return value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        named = [part for name, part in zip(target.elts, value.elts, strict=True) if getattr(name, "id", "") == side.id]
        return named[0] if named else side
    return side


def _told(text: str) -> list[tuple]:
    """The two shapes that NumPy tells of; of PyTorch's the two lengths that differ, as shapes of one axis."""
    if found := re.search(r"together with shapes (\([\d,]*\)) (\([\d,]*\))(?: \1)?\s*$", text):
        return [tuple(map(int, re.findall(r"\d+", shape))) for shape in found.groups()]
    found = re.search(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\)", text)
    return [(int(found[1]),), (int(found[2]),)] if found else []


def _of_a_size_built_in(text: str, place: Place, sides: list[ast.expr]) -> str:
    """A length that is written out in a call such as np.eye(10), where it meets another."""
    meeting = {(a, b) for a, b in zip(*(shape[::-1] for shape in _told(text) or [(), ()]), strict=False) if a != b}
    for side, other in ((0, 1), (1, 0)):
        for call in ast.walk(_source(place, sides[side])):
            if not isinstance(call, ast.Call) or _name(call) not in _MADE_TO_SIZE:
                continue
            lengths = {n.value for n in ast.walk(call) if isinstance(n, ast.Constant) and type(n.value) is int}
            for pair in meeting:
                if pair[side] in lengths and pair[side] > 1 and pair[other] > 1:
                    fact = f"`{ast.unparse(call)}` has {pair[side]} built in, and here {pair[side]} meets {pair[other]}"
                    return f"{fact}: is that number to come from a .shape?"
    return ""


def _of_a_lost_axis(text: str, place: Place, sides: list[ast.expr]) -> str:
    """A sum, mean or max without keepdims, which with it would fit."""
    of_numpy = "together with shapes" in text
    told = (of_numpy and _told(text)) or [None, None]
    for side, other in ((0, 1), (1, 0)):
        call = _source(place, sides[side])
        if not isinstance(call, ast.Call) or _name(call) not in _REDUCED or not isinstance(call.func, ast.Attribute):
            continue
        of_module = isinstance(place.value(call.func.value), types.ModuleType)
        owner, *rest = call.args if of_module else [call.func.value, *call.args]
        words = {keyword.arg: keyword.value for keyword in call.keywords}
        second = None if _name(call) == "norm" else next(iter(rest), None)  # a norm's order comes first
        axis = _number(words.get("axis", words.get("dim", second)))
        if axis is None or words.keys() & {"keepdims", "keepdim"}:
            continue
        whole = told[other] or _shape(place.value(sides[other]))
        lost = told[side] or _shape(place.value(sides[side])) or _without(_shape(place.value(owner)), axis)
        if whole is None or lost is None or not -len(lost) - 1 <= axis <= len(lost):
            continue
        kept = [*lost]
        kept.insert(axis % (len(lost) + 1), 1)
        if len(kept) > len(whole) or any(a not in (1, b) for a, b in zip(kept[::-1], whole[::-1], strict=False)):
            continue
        word = "keepdims" if of_numpy else "keepdim"
        fact = f"`{ast.unparse(call)}` is {tuple(lost)}, without the axis that it runs over, and meets {tuple(whole)}"
        return f"{fact}: {word}=True would keep that axis, with length 1."
    return ""


def _name(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _number(node: ast.expr | None) -> int | None:
    """The whole number that stands there."""
    try:
        value = ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None
    return value if type(value) is int else None


def _without(shape: tuple | None, axis: int) -> tuple | None:
    if not shape or not -len(shape) <= axis < len(shape):
        return None
    return tuple(n for each, n in enumerate(shape) if each != axis % len(shape))
