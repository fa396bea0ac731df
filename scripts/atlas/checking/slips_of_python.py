"""Python's own slips in learner code, named from what the code and its names show: never what is not there."""

import ast
import builtins
import difflib
import dis
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

from atlas.checking.place import UNKNOWN, Place, passed_through
from atlas.checking.values import is_array, summary
from atlas.checking.whose import is_learners
from atlas.checking.written import Written

IN_PLACE = {"append", "extend", "insert", "remove", "clear", "sort", "reverse", "update", "shuffle", "fill", "seed"}
"""Methods that change what they belong to and give None."""


def written_at(place: Place | None) -> Written:
    """The code of the function that a place is in."""
    return written_in(place.frame) if place else Written()


def written_in(frame: types.FrameType) -> Written:
    """The code of the function that a frame runs."""
    code = frame.f_code
    return Written(types.FunctionType(code, frame.f_globals, closure=tuple(map(types.CellType, code.co_freevars))))


# ------------------------------------------------------------------------------------------------ exceptions


def of_exception(error: BaseException, text: str, place: Place | None, given: Any = None) -> str:
    """The sentence for an exception that comes of Python itself, "" for others. `text` is what it says."""
    if at_breakpoint(error, place):
        return BREAKPOINT
    for kind, explain in _BY_KIND:
        if isinstance(error, kind) and (words := explain(error, text, place, given)):
            return words
    return ""


BREAKPOINT = "A breakpoint() (or set_trace) stops the code for the debugger, and here nobody is at it: take it out."


def at_breakpoint(error: BaseException, place: Place | None) -> bool:
    """Whether the code had stopped for a debugger: at the call itself (a kernel), or at the line after it."""
    node = place.node if place else None
    called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    debugger = getattr(sys.modules.get("pdb"), "__file__", "")
    return called in ("breakpoint", "set_trace") or passed_through(error, debugger, "interaction")


def _name(error: NameError, text: str, place: Place | None, given: Any) -> str:
    found = re.search(r"(?:variable|name) '(\w+)'", text)
    if not found or place is None:
        return "Is it spelt as in the signature? Has the cell that defines or imports it been run?"
    name = found[1]
    if isinstance(error, UnboundLocalError):
        return _unbound(name, place)
    names = place.frame.f_locals
    owner = names.get("self")
    if owner is not None and (name in _attributes(owner)):
        return f"`{name}` belongs to the object: self.{name}?"
    if right := {"true": "True", "false": "False", "null": "None", "nil": "None", "none": "None"}.get(name):
        return f"Python writes {right}."
    if imported := _IMPORTS.get(name):
        return f"Nothing of the name {name} is imported: has the cell with `{imported}` been run?"
    known = [*names, *place.frame.f_globals, *dir(builtins)]
    if near := [one for one in difflib.get_close_matches(name, known, 1, 0.75) if not one.startswith("_")]:
        return f"There is `{near[0]}`: is `{name}` a slip of the pen?"
    return "Is it spelt as in the signature? Has the cell that defines or imports it been run?"


_IMPORTS = {
    "np": "import numpy as np",
    "plt": "import matplotlib.pyplot as plt",
    "torch": "import torch",
    "nn": "from torch import nn",
    "F": "import torch.nn.functional as F",
    "tf": "import tensorflow as tf",
    "keras": "from tensorflow import keras",
    "math": "import math",
    "random": "import random",
}


def _unbound(name: str, place: Place) -> str:
    """A local name that is read before it has a value."""
    stored = place.stored(name)
    if hasattr(builtins, name):
        fact = f"`{name}` gets a value in this function, so that in all of it `{name}` is no longer Python's own"
        return f"{fact}: give that variable another name?"
    if name in place.frame.f_globals:
        fact = f"`{name}` gets a value in this function, so that Python takes it for the function's own in all of it"
        return f"{fact}, and does not see the one outside: is another name meant, or an argument?"
    if stored and all(isinstance(statement, ast.AugAssign) for _, statement in stored):
        return f"`{name}` is counted up before it has a value: is a line such as `{name} = 0` missing before?"
    if stored and stored[0][0] > place.line:
        return f"`{name}` gets its value only further down, in line {stored[0][0]}: are the lines in the right order?"
    return f"`{name}` gets its value on some paths only: in a branch not taken, or a loop that runs zero times?"


def _attributes(owner: Any) -> set[str]:
    inner = {name for part in ("_parameters", "_buffers", "_modules") for name in vars(owner).get(part, ())}
    return {*vars(owner), *dir(type(owner)), *inner} if hasattr(owner, "__dict__") else {*dir(owner)}


def _recursion(error: RecursionError, text: str, place: Place | None, given: Any) -> str:
    names, step = [], error.__traceback__
    while step is not None:
        if is_learners(step.tb_frame.f_code.co_filename):
            names.append(step.tb_frame.f_code.co_name)
        step = step.tb_next
    again = [*dict.fromkeys(name for name in names[-30:] if names.count(name) > 30)]
    if len(again) == 1:
        return f"{again[0]} calls itself without end: is another function meant, or is the case missing that ends it?"
    return f"{', '.join(again)} call one another without end: is the case missing that ends it?" if again else ""


def _memory(error: MemoryError, text: str, place: Place | None, given: Any) -> str:
    return "An array far larger than the inputs: were two axes combined, as (n,) with (n, 1), into (n, n)?"


def _truth(error: Exception, text: str, place: Place | None, given: Any) -> str:
    """An array stood where one truth value is needed: what asked for it."""
    if not re.search(r"truth value of an|Boolean value of Tensor", text):
        return ""
    fact = "One truth value is needed, and an array has many"
    for node in [place.node, *place.around] if place and place.deepest and place.node is not None else []:
        if isinstance(node, ast.Call) and place.value(node.func) in (max, min):
            name = node.func.id
            return (
                f"Python's own {name} compares whole arrays: np.{name}imum goes entry by entry, "
                f"x.{name}() takes the {'largest' if name == 'max' else 'smallest'}."
            )
        if isinstance(node, ast.Compare) and len(node.ops) > 1:
            return f"{fact}: a < x < b means `and`, for arrays it is (a < x) & (x < b)."
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            return f"{fact}: `in` compares with each entry by ==, and an array answers with an array."
        if words := _perhaps_none(node.test if isinstance(node, ast.If | ast.IfExp) else node, place):
            return f"{fact}: {words}"
        if isinstance(node, ast.BoolOp):
            word, sign = ("and", "&") if isinstance(node.op, ast.And) else ("or", "|")
            return f"{fact}: `{word}` asks for one, {sign} (with both sides in parentheses) goes entry by entry."
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return f"{fact}: `not` asks for one, ~ goes entry by entry."
        if isinstance(node, ast.If | ast.IfExp) and isinstance(node.test, ast.Name):
            name = node.test.id
            return f"{fact}: `if {name}` asks for it. Whether it was given at all: `if {name} is not None`."
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            word = "a `while`" if isinstance(node, ast.While) else "an `if`"
            return (
                f"{fact}: {word} met it. np.where or a mask decides for each entry, .any() or .all() makes one of all."
            )
    return f"{fact}: np.where or a mask decides for each entry, .any() or .all() makes one of all."


def _perhaps_none(asking: ast.AST, place: Place) -> str:
    """`name or …`, `name and …` and `not name`, where the argument is None by default: what asks whether it is."""
    first = asking.values[0] if isinstance(asking, ast.BoolOp) else None
    first = asking.operand if isinstance(asking, ast.UnaryOp) and isinstance(asking.op, ast.Not) else first
    function = next((each for each in place.around if isinstance(each, ast.FunctionDef)), None)
    if not isinstance(first, ast.Name) or function is None:
        return ""
    optional = zip(reversed(function.args.args), reversed(function.args.defaults), strict=False)
    if first.id not in [arg.arg for arg, value in optional if isinstance(value, ast.Constant) and value.value is None]:
        return ""
    test = f"{first.id} is None"
    if isinstance(asking, ast.BoolOp) and isinstance(asking.op, ast.Or):
        test = f"{ast.unparse(asking.values[1])} if {test} else {first.id}"
    return f"`{ast.unparse(asking)}` asks for it. Whether {first.id} was given at all: `{test}`."


def _callable(error: TypeError, text: str, place: Place | None, given: Any) -> str:
    if "object is not callable" not in text or "NoneType" in text:
        return ""
    node = place.node if place and isinstance(place.node, ast.Call) else None
    value = place.value(node.func) if node else UNKNOWN
    name = ast.unparse(node.func) if node else ""
    if value is not UNKNOWN and callable(value):
        return ""  # something further inside is not callable
    if value is UNKNOWN:
        if node and isinstance(node.func, ast.BinOp | ast.Constant):
            return f"Python takes the parenthesis after `{name}` for a call: is a * missing between both?"
        return "Parentheses call a function, square brackets index an array: are they swapped, or is a * missing?"
    if isinstance(node.func, ast.Name) and hasattr(builtins, name):
        fact = f"`{name}` is {_what(value)} here and no longer Python's own, for a line gave it that value"
        outside = name not in place.frame.f_locals or place.frame.f_locals is place.frame.f_globals
        back = f"; `del {name}` in a cell brings Python's own back" if outside else ""
        return f"{fact}: give that variable another name{back}."
    if isinstance(value, types.ModuleType):
        return f"`{name}` is a module: which of its functions is meant?"
    if is_array(value) or isinstance(value, list | tuple | dict | str):
        return f"`{name}` is {_what(value)}: square brackets take entries out, and is a * missing if it is a product?"
    if isinstance(value, int | float | complex):
        return f"`{name}` is {_what(value)}, and the parenthesis after it calls it: is a * missing between both?"
    kind = type(value).__name__
    return (
        f"`{name}` is an instance of {kind} already, and that has no __call__: "
        "a pair of parentheses too many, or a method left out?"
    )


def _what(value: Any) -> str:
    if is_array(value):
        return f"an array {summary(value)}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} ({summary(value)})"


def _none(error: Exception, text: str, place: Place | None, given: Any) -> str:
    """None stands where something is wanted: what is None, and where it came from."""
    if "NoneType" not in text or (place and isinstance(place.node, ast.Raise)):  # words of the learner's own
        return ""
    operands = (place.operands() or _handed_on(place)) if place else []
    found = [(source, value) for source, value in operands if value is None] or [
        each for each in operands if each[1] is UNKNOWN
    ]
    if len(found) != 1:
        return "Something is None here: which function, called before this line, forgets its `return`?"
    source, value = found[0]
    fact = f"`{source}` is None here"
    if source.endswith(".grad"):
        return f"{fact}: has backward() not run yet, or does it not reach this tensor?"
    if value is UNKNOWN:
        call = source.partition("(")[0]
        if call.rpartition(".")[2] in IN_PLACE:
            return f"`{call}()` works in place and gives None: a line of its own for it?"
        return f"{fact}: does it forget its `return`?" if "(" in source else f"{fact}."
    stored = [statement for line, statement in place.stored(source) if line <= place.line]
    root, *attributes = source.split(".")
    if not stored and root in inspect.getargs(place.frame.f_code).args and not (attributes and root == "self"):
        return f"{fact}, as it was handed in (or left out): which value holds then?"
    if stored and isinstance(stored[-1], ast.Assign) and isinstance(stored[-1].value, ast.Call):
        call = ast.unparse(stored[-1].value.func)
        if call.rpartition(".")[2] in IN_PLACE:
            return f"{fact}: `{call}()` works in place and gives None. Leave the `{source} =` before it out?"
        if call == "print":
            return f"{fact}: print() shows a value and gives None."
        return f"{fact}: does `{call}` forget its `return`?"
    return f"{fact}: which line should give it a value?"


def _handed_on(place: Place) -> list[tuple[str, Any]]:
    """The names that hold None and are handed on by the failing call, which fails further inside."""
    node = place.node if isinstance(place.node, ast.Call) else None
    given = [*node.args, *(each.value for each in node.keywords)] if node else []
    return [(each.id, None) for each in given if isinstance(each, ast.Name) and place.value(each) is None]


def _generator(error: Exception, text: str, place: Place | None, given: Any) -> str:
    for kind, words in (
        ("generator", "a `yield` in its function for a `return`, or round parentheses for square ones"),
        ("coroutine", "`async def` for `def`"),
    ):
        if re.search(rf"'{kind}'|\b(?:not|of|got) {kind}\b|\((?:[\w.]+, )*{kind}[,)]", text):
            operands = place.operands() if place else []
            named = [source for source, value in operands if type(value).__name__ == kind]
            named = named or [source for source, value in operands if value is UNKNOWN][:1]
            return f"{f'`{named[0]}`' if named else 'It'} is a {kind}, not a value: {words}?"
    return ""


def _text(error: Exception, text: str, place: Place | None, given: Any) -> str:
    if not re.search(
        (
            r"'str'|to str\b|can only concatenate str|'<U\d+'|StrDType|string multiply"
            r"|non-int of type 'float'|must be real number, not str"
        ),
        text,
    ):
        return ""
    for source, value in place.held(str) if place else ():
        return f"`{source}` is text, {summary(value)}, and text does not compute: float(…) makes a number of it?"
    if "non-int of type" in text or (place and next(place.held((list, tuple)), None)):
        return ""
    return "Text (in quotes) is there where a number is wanted: float(…) makes a number of it?"


def _list(error: Exception, text: str, place: Place | None, given: Any) -> str:
    wanted = (
        r"'(list|tuple)'|can't multiply sequence by non-int|can only concatenate (list|tuple)"
        r"|list indices must be integers or slices, not tuple"
    )
    if not re.search(wanted, text) or re.search(r"callable|assignment|attribute", text):
        return ""
    for source, value in place.held((list, tuple)) if place else ():
        kind = type(value).__name__
        return (
            f"`{source}` is a {kind}, and a {kind} does not compute entry by "
            "entry: np.array(…) or torch.tensor(…) of it first?"
        )
    return ""


def _bound(error: TypeError, text: str, place: Place | None, given: Any) -> str:
    """A method without self, a class where an object is wanted, a class without __init__."""
    if found := re.search(r"(\w+)\(\) takes no arguments", text):
        owner = next((value for _, value in place.operands() if inspect.isclass(value)), given) if place else given
        near = (
            difflib.get_close_matches("__init__", [n for n, v in vars(owner).items() if callable(v)], 1, 0.6)
            if inspect.isclass(owner)
            else []
        )
        near = [] if near == ["__init__"] else near
        return (
            f"{found[1]} has no __init__: is its `{near[0]}` meant to be it?"
            if near
            else f"{found[1]} has no __init__ that takes them: is it missing?"
        )
    found = re.search(
        r"(\w+)\.(\w+)\(\) (?:takes (\d+) positional|missing (\d+) required|got multiple|takes from)", text
    )
    if not found:
        return ""
    owner, name = found[1], found[2]
    called = place.value(place.node.func) if place and isinstance(place.node, ast.Call) else UNKNOWN
    function = getattr(called, "__func__", called)
    if function is UNKNOWN and inspect.isclass(given) and given.__name__ == owner:
        function = vars(given).get(name, UNKNOWN)
    same = isinstance(function, types.FunctionType) and function.__name__ == name
    first = [*inspect.signature(function).parameters][:1] if same else None
    if found[3] and first is not None and first not in (["self"], ["cls"], ["args"]):
        return f"`{name}` lacks self: the first argument of a method is the object itself, def {name}(self, …)."
    if found[4] and isinstance(called, types.FunctionType) and first == ["self"]:
        return f"{owner} is the class, and a method needs an object of it: {owner}(…) first?"
    return ""


def _keyword(error: TypeError, text: str, place: Place | None, given: Any) -> str:
    if found := re.search(r"'(\w+)' is an invalid keyword argument for (\w+)\(\)", text):
        return f"Python's own {found[2]} has no {found[1]}: np.{found[2]}, or the array's own .{found[2]}()?"
    if found := re.search(r"unexpected keyword argument '(dim|keepdim)'", text):
        return f"NumPy says {'axis' if found[1] == 'dim' else 'keepdims'}, {found[1]} is PyTorch's word."
    if found := re.search(r"unexpected keyword argument '(\w+)'", text):
        call = place.node if place and isinstance(place.node, ast.Call) else None
        here = call is not None and any(keyword.arg == found[1] for keyword in call.keywords)
        try:
            known = [*inspect.signature(place.value(call.func)).parameters] if here else []
        except (TypeError, ValueError):
            known = []
        near = difflib.get_close_matches(found[1], known, 1)
        return f"It has {near[0]}: is that meant?" if near else ""
    return ""


def _hash(error: TypeError, text: str, place: Place | None, given: Any) -> str:
    found = re.search(r"unhashable type: '([\w.]+)'", text)
    if not found:
        return ""
    kind = "array" if found[1].rpartition(".")[2] in ("ndarray", "EagerTensor", "ResourceVariable") else found[1]
    kind = f"an {kind}" if kind == "array" else f"a {kind}"
    called = (
        place.value(place.node.func) if place and isinstance(place.node, ast.Call) else given if place is None else None
    )
    if hasattr(called, "cache_info"):
        fact = f"A cache looks its results up by the arguments, and {kind} can be no key"
        return f"{fact}: leave the decorator of {called.__name__} out?"
    return f"{kind[0].upper()}{kind[1:]} can be changed, and so it is no key of a dict and no entry of a set."


def _attribute(error: AttributeError, text: str, place: Place | None, given: Any) -> str:
    if re.search(
        (
            r"before Module\.__init__\(\) call|forgot to call `super\(\)\.__init__"
            r"|has no attribute '_(parameters|buffers|modules|backward_hooks|backward_pre_hooks|forward_hooks)'"
        ),
        text,
    ):
        here = written_at(place)
        if here.functions and here.has("super"):
            return (
                "super().__init__() has to come before the first layer is stored: make it the first line of __init__."
            )
        return "super().__init__() is missing: it is the first line of __init__ in every class of layers."
    name, owner = getattr(error, "name", None), getattr(error, "obj", None)
    if not name or owner is None:
        return ""
    if isinstance(owner, types.ModuleType):
        return _of_module(name, owner)
    if getattr(owner, "__name__", "") == "<lambda>":
        return f"That is a function, which has no .{name}: what it does, it does by being called."
    if isinstance(owner, types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        return f"`{owner.__name__}` is a function here: are the parentheses missing after its name?"
    if isinstance(owner, type):
        return (
            f"{owner.__name__} is the class, not an object of it: {owner.__name__}(…) first?"
            if name in _attributes(owner)
            else ""
        )
    kind = type(owner)
    begin = vars(kind).get("__init__")
    if isinstance(begin, types.FunctionType) and is_learners(begin.__code__.co_filename):
        if name in begin.__code__.co_varnames:
            return f"In __init__ `{name}` is a variable that ends with it: self.{name} = … keeps it?"
        near = difflib.get_close_matches(name, _attributes(owner), 1, 0.75)
        return (
            f"It has `{near[0]}`: is that meant?"
            if near
            else f"Where does self.{name} get its value: in __init__, or in a method that has not run yet?"
        )
    if isinstance(owner, int | float) and inspect.isclass(given) and _sets(given, name):
        fact = f"Each {given.__name__} has .{name}, and this is a plain number, {summary(owner)}"
        return f"{fact}: has a {given.__name__} to be made of it first?"
    return _of_data(name, owner)


def _sets(kind: type, name: str) -> bool:
    """Whether the __init__ of a class gives its objects this attribute."""
    code = getattr(kind.__init__, "__code__", None)
    return code is not None and any(
        step.opname == "STORE_ATTR" and step.argval == name for step in dis.get_instructions(code)
    )


def _of_module(name: str, owner: types.ModuleType) -> str:
    others = [sys.modules[each] for each in ("numpy", "torch", "torch.nn.functional", "math") if each in sys.modules]
    other = next((each.__name__ for each in others if each is not owner and hasattr(each, name)), None)
    if other:
        return f"{owner.__name__} has no {name}, {other} has: is that one meant?"
    near = difflib.get_close_matches(name, [each for each in dir(owner) if not each.startswith("_")], 1)
    return f"{owner.__name__} has {near[0]}: is that meant?" if near else ""


_CALLED_ELSEWHERE = {
    "astype": ".to(torch.float32), for example",
    "copy": ".clone()",
    "clone": ".copy()",
    "unsqueeze": "[:, None] or [None]",
    "dim": ".ndim",
    "numel": ".size",
    "permute": ".transpose(…)",
    "cat": "np.concatenate",
}


def _of_data(name: str, owner: Any) -> str:
    """An attribute that an array, a tensor, a list or a number does not have."""
    torch = sys.modules.get("torch")
    tensor = torch is not None and isinstance(owner, torch.Tensor)
    if is_array(owner) and name in ("append", "extend"):
        return "An array has a fixed length: collect in a list, and make one array of it at the end."
    if is_array(owner) and name in _CALLED_ELSEWHERE and not hasattr(owner, name):
        return f"{'A tensor' if tensor else 'An array'} has {_CALLED_ELSEWHERE[name]} for it."
    if isinstance(owner, list | tuple):
        return f"It is {_what(owner)}: np.array(…) or torch.tensor(…) of it first?" if hasattr(np.ndarray, name) else ""
    if torch is not None and hasattr(torch.Tensor, name) and isinstance(owner, int | float):
        return f"A tensor has .{name}, and this is a plain number: is there an .item() or float(…) on the way?"
    if torch is not None and hasattr(torch.Tensor, name) and not tensor:
        return f"A tensor has .{name}, and this is {_what(owner)}: torch.as_tensor(…) first?"
    if isinstance(owner, str) and hasattr(Path, name):
        return f"A Path has .{name}, and this is text: Path(…) of it first?"
    near = difflib.get_close_matches(name, [each for each in dir(owner) if not each.startswith("_")], 1)
    return f"It has .{near[0]}: is that meant?" if near else ""


def _various(error: Exception, text: str, place: Place | None, given: Any) -> str:
    if re.search(r"boolean subtract|`-` operator, with two bool", text):
        return "True and False are not subtracted: a != b tells where they differ, a & ~b what only a has."
    if re.search(r"bitwise_xor|for \^", text):
        return "`^` compares bits in Python (exclusive or); a power is **."
    if re.search(r"'(builtin_function_or_method|function|method)'", text):
        for source, value in place.operands() if place else ():
            if isinstance(value, types.BuiltinMethodType | types.MethodType | types.FunctionType):
                return f"`{source}` is a function here: are the parentheses missing after its name?"
    if "does not support item assignment" in text:
        if "'tuple'" in text:
            return "A tuple cannot be changed: a list, or a new tuple?"
        if "Tensor'" in text:
            return "A tensor of TensorFlow cannot be changed: tf.where or tf.tensor_scatter_nd_update make a new one."
    if re.search(r"changed size during iteration", text):
        return "The loop adds to (or takes from) what it runs over: run over a copy, as in `for key in list(d)`."
    if isinstance(error, ZeroDivisionError):
        zero = [
            source
            for source, value in (place.operands() if place else [])[1:]
            if not is_array(value) and value is not UNKNOWN and value == 0
        ]
        return f"`{zero[0]}` is 0 here: can that be, and what should come out then?" if zero else ""
    if isinstance(error, KeyError) and place:
        for _, value in place.held(dict):
            near = difflib.get_close_matches(str(error.args[0]), map(str, value), 1)
            return (
                f"There is {near[0]!r}: is that meant?"
                if near
                else f"Its keys are {', '.join(map(repr, list(value)[:8])) or 'none'}."
            )
    if re.search(r"(not enough|too many) values to unpack", text) and place and place.deepest:
        parted = place.around[0].value if place.around and isinstance(place.around[0], ast.Assign) else None
        value = place.value(parted) if parted is not None else UNKNOWN
        if isinstance(value, list | tuple) or is_array(value):
            shown = f", {summary(value)}" if isinstance(value, tuple) else ""
            return f"`{ast.unparse(parted)}` has {len(value)} parts{shown}: as many names as parts?"
    if re.search(r"'(int|float)' object is not iterable", text):
        for source, value in place.held((int, float)) if place else ():
            return (
                f"`{source}` is one number, {summary(value)}: range({source})?"
                if isinstance(value, int)
                else f"`{source}` is one number, {summary(value)}."
            )
    if re.search(r"'(int|float|numpy\.float64|bool)' object is not subscriptable", text):
        for source, value in place.held((int, float)) if place else ():
            return (
                f"`{source}` is one number, {summary(value)}, and has no entries: has "
                "a sum, a mean or an index taken them away before?"
            )
    return ""


_BY_KIND = (
    (NameError, _name),
    (RecursionError, _recursion),
    (MemoryError, _memory),
    ((ValueError, RuntimeError), _truth),
    (TypeError, _callable),
    ((TypeError, AttributeError), _none),
    ((TypeError, AttributeError, RuntimeError), _generator),
    (TypeError, _hash),
    (TypeError, _bound),
    (TypeError, _keyword),
    (TypeError, _text),
    (TypeError, _list),
    ((AttributeError, NotImplementedError), _attribute),
    (Exception, _various),
)
