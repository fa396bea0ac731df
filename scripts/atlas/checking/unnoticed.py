"""Slips that Python takes without a word: what the code shows where a result is missing, odd or wrong."""

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from atlas.checking.place import learners_place
from atlas.checking.slips_of_python import BREAKPOINT, IN_PLACE, at_breakpoint, written_at
from atlas.checking.written import Written


def of_nothing(code: Written) -> str:
    """Nothing came back: what the code shows of the reason."""
    returns = [node.value for node in code.returns() if node.value is not None]
    if not returns and code.functions and isinstance(code.functions[0], ast.FunctionDef) and code.one_function:
        return "There is no `return` with a value in it, so that nothing comes back."
    for value in returns:
        call = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
        if call == "print":
            return "It returns what print() gives, and that is None: print shows a value, return hands it on."
        if call.rpartition(".")[2] in IN_PLACE:
            fact = f"It returns what `{call}()` gives, and that is None, for it works in place"
            return f"{fact}: the call on a line of its own, and then the return?"
    return "Is the `return` missing, or does one branch end without it?"


def of_attribute(instance: Any) -> str:
    """None stands where an attribute of the instance is looked for: what it holds instead."""
    tables = [vars(instance).get(table, {}) for table in ("_modules", "_parameters", "_buffers")]  # torch's own
    held = [name for table in (*tables, vars(instance)) for name in table if not name.startswith("_")]
    names = [name for name in dict.fromkeys(held) if name != "training"]
    there = f"It has {', '.join(names[:6])}" + (", …" if len(names) > 6 else "") if names else "It has no attributes"
    return f"{there}: is it there under another name, or never made in __init__ (self. … = …)?"


def of_result(yours: Any, code: Written) -> str:
    """What came back is of a kind that is rarely meant."""
    if hasattr(yours, "__next__"):
        ways = {"a `yield` for a `return`": "Yield", "round parentheses for square ones": "GeneratorExp"}
        there = " or ".join(words for words, kind in ways.items() if code.has(kind))
        return "It is a generator, which gives its values only one by one" + (f": {there}?" if there else ".")
    if inspect.iscoroutine(yours):
        yours.close()  # else Python warns that nobody awaited it
        return "It is a coroutine, for its function begins with `async def`: a plain `def`?"
    if isinstance(yours, tuple) and len(yours) == 1:
        return "It is a tuple of one: is there a comma at the end of the `return`, or of a line before it?"
    return ""


def of_code(code: Written) -> str:
    """A line that rarely does what it seems to, "" where there is none."""
    return next(_slips(code), "")


_EFFECTS = {"save", "savez", "copyto", "put", "place", "fill_diagonal", "manual_seed", "compile", "load"}
"""Functions of NumPy and torch that are called for what they do, not for what they give."""


def _slips(code: Written) -> Iterator[str]:
    for node in code.nodes(ast.Expr):
        if isinstance(node.value, ast.Compare):
            yield f"The line `{_short(node)}` compares and keeps nothing: = for ==?"
        elif isinstance(node.value, ast.BinOp) or _gives(node.value):
            yield f"The line `{_short(node)}` computes and keeps nothing: is a name and = missing before it?"
    for node in code.nodes(ast.BinOp, ast.AugAssign):
        if isinstance(node.op, ast.BitXor):
            yield f"`{_short(node)}`: ^ compares bits in Python (exclusive or). Is a power meant, **?"
    for node in code.nodes(ast.Compare):
        constant = any(map(_number_or_text, [node.left, *node.comparators]))
        if constant and isinstance(node.ops[0], ast.Is | ast.IsNot):
            yield f"`{_short(node)}`: `is` asks whether both are one and the same object. Are equal values meant, ==?"
    for node in code.nodes(ast.If, ast.While):
        if isinstance(node.test, ast.NamedExpr) and isinstance(node.test.value, ast.Compare):
            fact = f"`{_short(node.test)}`: := takes all that follows, so that {node.test.target.id} is True or False"
            yield f"{fact}. Parentheses around the part before the comparison?"
    for loop in code.nodes(ast.For):
        for call in _calls_of(loop, "remove", "pop", "append", "insert", "extend"):
            fact = f"The loop over `{_short(loop.iter)}` changes it ({_short(call)}), so that entries are passed over"
            yield f"{fact} or come again: run over a copy, or fill a new list?"


def _gives(node: ast.AST) -> bool:
    """Whether it is a call of a function of NumPy or torch that only gives something back."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    name, owner = node.func.attr, node.func.value
    quiet = name in _EFFECTS or name.endswith("_") or name.startswith(("set", "use_"))
    return (
        isinstance(owner, ast.Name)
        and owner.id in ("np", "torch", "F")
        and not quiet
        and not any(keyword.arg == "out" for keyword in node.keywords)
    )


def _number_or_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (int, float, str)


def _calls_of(loop: ast.For, *methods: str) -> Iterator[ast.Call]:
    """The calls of these methods of what the loop runs over, inside the loop."""
    for node in ast.walk(loop) if isinstance(loop.iter, ast.Name | ast.Attribute) else ():
        method = node.func if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None
        if method and method.attr in methods and ast.unparse(method.value) == ast.unparse(loop.iter):
            yield node


def _short(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else text[:57] + "…"


def of_endless(error: BaseException) -> str:
    """Time is up: what the code of the function that was running shows."""
    place = learners_place(error)
    code = written_at(place)
    if at_breakpoint(error, place):
        return BREAKPOINT
    for loop in code.nodes(ast.For):
        for call in _calls_of(loop, "append", "insert", "extend"):
            fact = f"The loop over `{_short(loop.iter)}` makes it longer in each round ({_short(call)})"
            return f"{fact}, and so never ends: fill a new list?"
    if name := _recursive(code):
        return (
            f"{name} calls itself several times, and those calls again: is the same computed again? A table keeps it."
        )
    if code.has("While"):
        return "Does the condition of the `while` never turn false, or is there far too much work in a loop?"
    return "Is there far too much work in a loop?"


def _recursive(code: Written) -> str:
    """The name of a function that calls itself at two places or more and keeps no results, "" if there is none."""
    for function in code.nodes(ast.FunctionDef):
        calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
        own = [called for called in calls if isinstance(called, ast.Name) and called.id == function.name]
        if len(own) > 1 and not any("cache" in ast.unparse(each) for each in function.decorator_list):
            return function.name
    return ""
