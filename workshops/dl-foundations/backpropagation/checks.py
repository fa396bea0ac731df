"""The checks of backpropagation: one for each exercise, with its hints. `lab.check` runs them."""

import itertools
import math

import numpy as np
from scipy.special import softmax

from atlas.checking import agree, array, cases, exercise, expect, floats, labels, numbers, parts

_FLOATS = "weights, images and gradients are floats all through the workshop"

# ------------------------------------------------------------------------------------------------ Value

_STARTED = 0.3  # what is in a parent's grad before: neither 0 nor 1
_ARRIVING_GRADIENTS = 0.7, -1.4  # the gradients that arrive, of both signs


class _Value:
    """A number in a graph, each operation of which is its result and its local derivatives."""

    def __init__(self, data, parents=()):
        self.data, self.grad, self.parents, self.push = float(data), 0.0, parents, lambda: None

    def made(self, result, others, locals_):
        parents = [self, *(self.lifted(each) for each in others)]
        out = type(self)(result(self, *(parent.data for parent in parents)), tuple(parents))

        def push():
            for parent, local in zip(parents, locals_, strict=True):
                share = self.share(local(self, *(each.data for each in parents)), parent.grad, out)
                parent.grad = self.kept(parent.grad, share)

        out.push = push
        return out

    def lifted(self, each):
        return each if hasattr(each, "parents") else type(self)(each)

    def share(self, local, already, out):
        return local * out.grad

    def kept(self, already, share):
        return already + share

    product, by_x, by_y = (lambda self, x, y: x * y), (lambda self, x, y: y), (lambda self, x, y: x)
    power, power_by_x = (lambda self, x, n: x**n), (lambda self, x, n: n * x ** (n - 1))
    e_to_x, e_to_x_by_x = (lambda self, x: math.exp(x)), (lambda self, x: math.exp(x))
    cut, cut_by_x = (lambda self, x: max(0.0, x)), (lambda self, x: float(x > 0))
    tangent, tangent_by_x = (lambda self, x: math.tanh(x)), (lambda self, x: 1 - math.tanh(x) ** 2)

    def __add__(self, other):
        plain = type(self).__mro__[-2]  # as it is given in the notebook: no mistake is in it
        one = lambda self, x, y: 1.0  # noqa: E731
        return plain.made(self, lambda self, x, y: x + y, [plain.lifted(self, other)], [one, one])

    def __mul__(self, other):
        cls = type(self)
        return self.made(cls.product, [other], [cls.by_x, cls.by_y])

    def __pow__(self, n):
        cls = type(self)
        return self.made(lambda self, x: cls.power(self, x, n), [], [lambda self, x: cls.power_by_x(self, x, n)])

    def exp(self):
        return self.made(type(self).e_to_x, [], [type(self).e_to_x_by_x])

    def relu(self):
        return self.made(type(self).cut, [], [type(self).cut_by_x])

    def tanh(self):
        return self.made(type(self).tangent, [], [type(self).tangent_by_x])

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + other * -1

    def __rsub__(self, other):
        return self * -1 + other

    def __truediv__(self, other):
        return self * (other**-1)

    def __rtruediv__(self, other):
        return self**-1 * other

    __radd__, __rmul__ = __add__, __mul__


def _parents_of(value):
    """The parents of a learner's value, which have to be values too, in a tuple."""
    parents, why = value.parents, "parents are the values that a value was computed from, in a tuple"
    expect.true(isinstance(parents, tuple | list | set), why, f"yours    {parents!r}", likely=_PARENTS)
    others = [each for each in parents if not hasattr(each, "parents")]
    likely = "A plain number is no parent, for no gradient is wanted for it: as_value(other) of a factor, and one parent, (self,), where n is a plain number."
    expect.true(not others, why, *(f"yours    {each!r} is among them" for each in others[:1]), likely=likely)
    return parents


def _graph_of(root, parents_of=lambda value: value.parents):
    """All values that root was computed from, each once, after its parents; by the parents that they name."""
    order, seen, stack = [], set(), [(root, False)]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            stack.append((value, True))
            stack.extend((parent, False) for parent in parents_of(value))
    return order


_NAMES = {"__mul__": "x * y", "__pow__": "x ** n", "exp": "x.exp()", "relu": "x.relu()", "tanh": "x.tanh()"}
_LEFT_OUT = "The gradient that arrives is left out: multiply the local derivative by out.grad."
_ARRIVING = "It multiplies by self.grad. What arrives is out.grad, the gradient of the result."
_RESULT = "It multiplies by out.data, the result. What arrives is out.grad."
_CHAIN = "out.grad is added, not multiplied: the chain rule is a product."
_ITS_SIZE = "The gradient that arrives may be negative, and counts with its sign: out.grad as it is, no abs."
_ITS_POSITIVE_PART = (
    "A gradient that arrives may be negative, and passes all the same: only the value decides, not out.grad."
)
_OVERWRITTEN = "It overwrites the parent's grad (=). A value may be used elsewhere too: add (+=)."
_PARENTS = "Value(result, (self, other)): the second argument names what it was computed from. One parent is (self,)."
_NO_OVERFLOW = "e to a large power is more than a number can hold; math.tanh(x) needs no such power."
_OWN = "The shares are swapped: the derivative of xy by x is y, so x gets other.data, and other gets self.data."


@exercise(
    hints=[
        "Each is __add__ again: out = Value(what is computed, (the parents)), a push, out.push = push, return out. Only the local derivatives differ.",
        "In __mul__ x's share is other.data * out.grad, and other's is self.data * out.grad. The methods with one parent write (self,), with the comma, and add to self.grad alone.",
        "pow: n * self.data ** (n - 1) * out.grad. exp: out.data * out.grad. relu: (self.data > 0) * out.grad. tanh: (1 - out.data**2) * out.grad. All with +=.",
    ],
    mistakes=parts(_Value).mistakes(
        kept={
            _OVERWRITTEN: lambda self, already, share: share,
            "It subtracts: add (+=).": lambda self, already, share: already - share,
        },
        share={
            _LEFT_OUT: lambda self, local, already, out: local,
            _ARRIVING: (lambda self, local, already, out: local * already),
            _RESULT: lambda self, local, already, out: local * out.data,
            "out.grad is multiplied in twice.": lambda self, local, already, out: local * out.grad**2,
            _CHAIN: lambda self, local, already, out: local + out.grad,
        },
        lifted={
            "A factor may be a plain number, as in 2 * x and in -x: other = as_value(other) first, as in __add__.": (
                lambda self, each: (each.data, each)[1]
            ),
        },
        product={"It adds; __mul__ multiplies.": lambda self, x, y: x + y},
        by_x={
            "Nothing arrives at self: push adds to both parents, self.grad and other.grad.": lambda self, x, y: 0.0,
            "The derivative of xy by x is y, not xy.": lambda self, x, y: x * y,
            "The derivative of xy by x is y, not 1.": lambda self, x, y: 1.0,
        },
        by_y={
            "Nothing arrives at other: push adds to both parents, self.grad and other.grad.": lambda self, x, y: 0.0,
            "The derivative of xy by y is x, not xy.": lambda self, x, y: x * y,
            "The derivative of xy by y is x, not 1.": lambda self, x, y: 1.0,
            "Both parents get other.data: the derivative of xy by y is x, self.data.": lambda self, x, y: y,
        },
        power={
            "It multiplies by n; ** is the power.": lambda self, x, n: x * n,
            "It is n to the power x, turned round.": lambda self, x, n: abs(n) ** x,
            "n may be a fraction, such as 0.5: int(n) cuts it off.": lambda self, x, n: x ** int(n),
        },
        power_by_x={
            "The exponent falls by 1: n·x^(n-1).": lambda self, x, n: n * x**n,
            "The factor n is missing: n·x^(n-1).": lambda self, x, n: x ** (n - 1),
            "That is the derivative by n; it is the one by x that is wanted: n·x^(n-1).": (
                lambda self, x, n: x**n * math.log(abs(x) or 1)
            ),
            "** comes before −: n * x**n - 1 is (n·xⁿ) − 1. Parentheses: x ** (n - 1).": lambda self, x, n: (
                n * x**n - 1
            ),
            "n - 1 may be a fraction: int(n - 1) cuts it off.": lambda self, x, n: n * x ** int(n - 1),
            "It has n + 1 for n - 1: that is how one integrates.": lambda self, x, n: n * x ** (n + 1),
            "It has (n - 1) for the factor n.": lambda self, x, n: (n - 1) * x ** (n - 1),
        },
        e_to_x={"It is 2 to the power x, or another base than e: math.exp(x).": lambda self, x: 2.0**x},
        e_to_x_by_x={
            "e^x is not a power of x: its derivative is e^x itself.": lambda self, x: x * math.exp(x - 1),
            "The derivative of e^x is e^x, the result, not x.": lambda self, x: x,
            "The derivative of e^x is e^x, not 1.": lambda self, x: 1.0,
            "The derivative is exp(x), which is out.data already; exp(out.data) is exp of exp.": lambda self, x: (
                math.exp(math.exp(x))
            ),
        },
        cut={
            "Negative numbers become 0, they don't turn positive.": lambda self, x: abs(x),
            "Negative numbers become 0.": lambda self, x: x,
            "Positive numbers stay as they are; negative ones become 0.": lambda self, x: min(0.0, x),
        },
        cut_by_x={
            "Where x > 0 the derivative is 1, not x.": lambda self, x: max(0.0, x),
            "Where x < 0 the result is 0 whatever x is, so the derivative is 0.": lambda self, x: 1.0,
            "At exactly 0 the convention is 0: > and not ≥.": lambda self, x: float(x >= 0),
            "At exactly 0 the convention is 0.": lambda self, x: 0.5 if x == 0 else float(x > 0),
        },
        tangent={
            "That is the sigmoid.": lambda self, x: 1 / (1 + math.exp(-x)),
            "That is tan; math.tanh is wanted.": lambda self, x: math.tan(x),
            _NO_OVERFLOW: lambda self, x: (math.exp(2 * x) - 1) / (math.exp(2 * x) + 1),
            f"{_NO_OVERFLOW} ": lambda self, x: 1 - 2 / (math.exp(2 * x) + 1),
            f"{_NO_OVERFLOW}  ": lambda self, x: (math.exp(x) - math.exp(-x)) / (math.exp(x) + math.exp(-x)),
        },
        tangent_by_x={
            "The square is missing: 1 − tanh².": lambda self, x: 1 - math.tanh(x),
            "1 − x² is not it: x has to go through tanh first; that is out.data.": lambda self, x: 1 - x**2,
            "tanh is applied twice: out.data is tanh(x) already.": lambda self, x: 1 - math.tanh(math.tanh(x)) ** 2,
            "t(1 − t) belongs to the sigmoid; for tanh it is 1 − t².": lambda self, x: (
                math.tanh(x) * (1 - math.tanh(x))
            ),
            "It is 1 − t², not t² − 1.": lambda self, x: math.tanh(x) ** 2 - 1,
            "It is 1 − t², not 1 + t².": lambda self, x: 1 + math.tanh(x) ** 2,
        },
        parents={_PARENTS: ()},
        together={_OWN: {"by_x": lambda self, x, y: x, "by_y": lambda self, x, y: y}},
    ),
)
def Value(learner, rng):
    import torch

    idle_push = getattr(getattr(learner(1.0), "push", None), "__code__", "")

    def demand(method, compute, values_of, expected, locals_, name=""):
        """One operation on fresh values: its data, its parents, and what push adds to each parent's grad."""
        name = name or _NAMES[method]
        at = " at " + ", ".join(f"{letter} = {number:g}" for letter, number in zip("xy", values_of, strict=False))
        values = [learner(number) for number in values_of]
        out = compute(*values)
        likely = f"{method} has to end with `return out`." if out is None else ""
        if isinstance(out, int | float):
            likely = "That is the number alone: Value(number, (the parents)) makes a value of it."
        made = isinstance(out, type(values[0]))
        expect.true(made, f"{name} gives a new Value", f"yours    {out!r}", likely=likely)
        others = all(out is not value for value in values)
        expect.true(others, f"{name} gives a new Value, not one of its parents changed")
        likely = "An operation makes a new Value and leaves self.data alone."
        stay = [value.data for value in values] == list(values_of)
        expect.true(stay, f"{name}: the numbers of its parents stay as they are", likely=likely)
        expect.close(out.data, expected, why=f"{name}{at}: the number", source="Python's math")
        graph = _graph_of(out, _parents_of)  # longer than out and its parents where the operation is put together
        found = sum(any(node is value for node in graph) for value in values)
        why, seen = f"{name}: parents are the values that it was computed from", f"yours    {found} of them"
        expect.true(found == len(values), why, seen, f"expected {len(values)}", likely=_PARENTS)
        if method != "relu" and all(node is out or not node.parents for node in graph):  # relu may be self * (0 or 1)
            seen, likely = f"yours    {len(graph) - 1}", _PARENTS
            if method == "__pow__":
                likely = "n is a plain number, and no parent: one parent is (self,)."
            why = f"{name}: no other parents than the values that it was computed from"
            expect.true(len(graph) - 1 == found, why, seen, f"expected {found}", likely=likely)
        likely = "out.push = push, without parentheses: it is called later, by backward." if out.push is None else ""
        expect.true(callable(out.push), f"{name}: push is a function", f"yours    {out.push!r}", likely=likely)
        why, likely = f"{name}: no gradient changes before push is called", "push runs too early: out.push = push."
        for value in values:
            expect.close(value.grad, 0, why=why, source="backward calls push", likely=likely)
        missing = "The line `out.push = push` is missing: the result still has the push that does nothing."
        idle = (
            "Does push change a local name in place of self.grad? Or is out.grad, 0 until then, read before push runs?"
        )
        for arrives in _ARRIVING_GRADIENTS:
            for node in graph:
                node.grad = _STARTED if any(node is value for value in values) else 0.0
            out.grad = arrives
            for node in reversed(graph):
                if node.parents:
                    node.push()
            moved = not any(locals_) or any(value.grad != _STARTED for value in values)
            likely, why = (
                missing if getattr(out.push, "__code__", None) is idle_push else idle,
                f"{name}: push adds to the gradients of its parents",
            )
            likely = likely if arrives > 0 else _ITS_POSITIVE_PART
            expect.true(moved, why, f"after push they are as before, with out.grad {arrives}", likely=likely)
            for letter, value, local in zip("xy", values, locals_, strict=False):
                right = _STARTED + local * arrives
                why = f"{name}{at}: push, with {_STARTED} in {letter}.grad and out.grad {arrives}"
                source = f"{_STARTED} + derivative {local:.6g} × {arrives}"
                likely = {
                    _ARRIVING: _STARTED + local * _STARTED,
                    _RESULT: _STARTED + local * expected,
                    _LEFT_OUT: _STARTED + local,
                    _CHAIN: _STARTED + local + arrives,
                    _OVERWRITTEN: local * arrives,
                    _ITS_SIZE: _STARTED + local * abs(arrives),
                }
                if hasattr(value.grad, "parents"):
                    likely = "A Value is multiplied in. A gradient is a number: take other.data and self.data."
                expect.close(value.grad, right, why=why, source=source, likely=likely)

    x, y = rng.uniform(1.2, 1.8), rng.uniform(-2.9, -2.2)
    for one, other in ((x, y), (y, x), (0.0, x)):
        demand("__mul__", lambda a, b: a * b, (one, other), one * other, (other, one))
    for n in (3, -1, 0.5, 2.5, 1, 0):
        demand("__pow__", lambda a, n=n: a**n, (x,), x**n, (n * x ** (n - 1),), name=f"x ** {n}")
    demand("__pow__", lambda a: a**2, (0.0,), 0.0, (0.0,), name="x ** 2")
    demand("__pow__", lambda a: a**3, (y,), y**3, (3 * y**2,), name="x ** 3")
    for number in (x, y, 0.0, 25.0):
        demand("exp", lambda a: a.exp(), (number,), math.exp(number), (math.exp(number),))
    for number in (x, y, 0.0, 1e-3, -1e-3):
        demand("relu", lambda a: a.relu(), (number,), max(0.0, number), (float(number > 0),))
    for number in (x, y, 0.0, 4.0, -30.0):
        demand("tanh", lambda a: a.tanh(), (number,), math.tanh(number), (1 - math.tanh(number) ** 2,))
    for number in (800.0, -800.0):
        far = learner(number).tanh().data
        expect.close(far, math.tanh(number), why="x.tanh() far from 0: the number", source="math.tanh")

    def shared(x, y):
        z = x * y + x
        return z * z + (z**2).tanh() * y

    expressions = {
        "x * x": lambda x, y: x * x,
        "x + x": lambda x, y: x + x,
        "x ** 3 * x": lambda x, y: x**3 * x,
        "x * 2.5 + 1": lambda x, y: x * 2.5 + 1,
        "2 * x": lambda x, y: 2 * x,
        "3 + x * y": lambda x, y: 3 + x * y,
        "3 - x": lambda x, y: 3 - x,
        "2 / x": lambda x, y: 2 / x,
        "x / y - y": lambda x, y: x / y - y,
        "(x * y).exp()": lambda x, y: (x * y).exp(),
        "(x * y).relu() + (-x * y).relu()": lambda x, y: (x * y).relu() + (-x * y).relu(),
        "x.exp() * x.tanh() * x.relu()": lambda x, y: x.exp() * x.tanh() * x.relu(),
        "2 * x.exp() + 3 * x.exp()": lambda x, y: 2 * x.exp() + 3 * x.exp(),
        "y * x.tanh() + x.tanh()": lambda x, y: y * x.tanh() + x.tanh(),
        "3 * x.relu() + x.relu() + x ** 2 + x ** 3": lambda x, y: 3 * x.relu() + x.relu() + x**2 + x**3,
        "z * z + (z**2).tanh() * y with z = x * y + x": shared,
    }
    for text, compute in expressions.items():
        mine = [learner(number) for number in (x, y)]
        theirs = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in (x, y)]
        root, torch_root = compute(*mine), compute(*theirs)
        torch_root.backward()
        expect.true(isinstance(root, type(mine[0])), f"{text} gives a Value", f"yours    {root!r}")
        here = f"{text} at x = {x:.3f}, y = {y:.3f}"
        likely = "Each operation alone is right. Do they use other.data, also where a plain number stands on the right?"
        expect.close(root.data, torch_root.item(), why=f"{here}: the number", source="torch", likely=likely)
        root.grad = 1.0
        for value in reversed(_graph_of(root, _parents_of)):
            value.push()
        for letter, value, tensor in zip("xy", mine, theirs, strict=True):
            expected = 0.0 if tensor.grad is None else tensor.grad.item()
            likely = "Each operation alone is right. Is a value used twice? Then push has to add (+=), and to read out.grad when it runs. Is there a plain number? The value beside it gets its share all the same."
            if text == "x * x" and value.grad == expected / 2:
                likely = (
                    "In x * x both parents are one value, and it gets both shares: two lines, and no if between them."
                )
            why = f"{here}: the gradient of {letter}"
            expect.close(value.grad, expected, why=why, source="torch.autograd", likely=likely)


# ------------------------------------------------------------------------------------------------ backward


class _Node:
    """A number in a graph, right by construction: local derivatives by parent are given; counts its pushes."""

    def __init__(self, data, parents=(), slopes=()):
        self.data, self.parents, self.slopes = float(data), tuple(parents), tuple(slopes)
        self.grad, self.pushes = 0.0, 0

    def push(self):
        self.pushes += 1
        for parent, slope in zip(self.parents, self.slopes, strict=True):
            parent.grad += slope * self.grad

    def __add__(self, other):
        return _Node(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return _Node(self.data * other.data, (self, other), (other.data, self.data))

    def tanh(self):
        t = math.tanh(self.data)
        return _Node(t, (self,), (1 - t * t,))


def _each_level(root):
    """Breadth first: level by level."""
    order, seen, queue = [], {root}, [root]
    while queue:
        value = queue.pop(0)
        order.insert(0, value)
        for parent in value.parents:
            if parent not in seen:
                seen.add(parent)
                queue.append(parent)
    return order


def _marked_too_early(root):
    """Depth first, each value marked as visited when it is put on the stack."""
    order, seen, stack = [], {root}, [(root, False)]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
            continue
        stack.append((value, True))
        for parent in value.parents:
            if parent not in seen:
                seen.add(parent)
                stack.append((parent, False))
    return order


def _when_first_met(root):
    """Depth first, each value appended before its parents."""
    order, seen, stack = [], set(), [root]
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            order.insert(0, value)
            stack.extend(value.parents)
    return order


def _when_first_met_in_order(root):
    order, seen = [], set()

    def visit(value):
        if value not in seen:
            seen.add(value)
            order.insert(0, value)
            for parent in value.parents:
                visit(parent)

    visit(root)
    return order


def _each_path(root):
    order = []

    def visit(value):
        if len(order) < 10_000:
            for parent in value.parents:
                visit(parent)
            order.append(value)

    visit(root)
    return order


@parts
def _backward(
    root,
    *,
    order_of=_graph_of,
    reset=lambda order: order,
    seed=lambda old: 1.0,
    turned=lambda order: reversed(order),
    after=lambda value, root: value.grad,
):
    order = order_of(root)
    for value in reset(order):
        value.grad = 0.0
    root.grad = seed(root.grad)
    for value in turned(order):
        value.push()
        value.grad = after(value, root)


_TOO_EARLY = "A value that is near on one path and far on another pushes before its last user has. Is the order level by level? Or is each value appended when it is first met, not after its parents? Or marked as visited when it is put on the stack? Mark it when it is taken off."


@exercise(
    hints=[
        "A value met for the first time is not ready for `order`: its parents come first. So put it back on the stack as (value, True), and its parents above it as (parent, False).",
        "In the loop: value, parents_done = stack.pop(). If parents_done: order.append(value). Else, if it is not in visited: add it there, then push the pairs. One visit for each value, however many paths lead to it.",
        "After the loop: for value in order: value.grad = 0.0; then root.grad = 1.0; then for value in reversed(order): value.push().",
    ],
    mistakes=_backward.mistakes(
        seed={
            "Everything is 0: the end has to begin with root.grad = 1, after the others are set to 0.": lambda old: old,
        },
        after={
            "What lies between loses its gradient after its push: every value of the graph keeps its own.": (
                lambda value, root: value.grad if value is root or not value.parents else 0.0
            ),
            "A value loses its gradient after its push: every value of the graph keeps its own.": (
                lambda value, root: value.grad if not value.parents else 0.0
            ),
        },
        turned={
            "It pushes from the leaves to the end. A value may push only when all that it was used for have pushed: reversed(order), where order has parents first. (What was put on the stack last comes out first: put the value there, then its parents.)": (
                lambda order: list(order)
            ),
        },
        reset={
            "Old gradients are still in it. Before pushing, set grad to 0 for every value of the graph.": lambda order: [],
            "Only the leaves are set to 0; what lies between keeps its old gradient.": (
                lambda order: [value for value in order if not value.parents]
            ),
            "The leaves keep their old gradients: set grad to 0 for them too.": lambda order: [
                value for value in order if value.parents
            ],
        },
        order_of={
            _TOO_EARLY: _each_level,
            f"{_TOO_EARLY} ": _marked_too_early,
            f"{_TOO_EARLY}  ": _when_first_met,
            f"{_TOO_EARLY}   ": _when_first_met_in_order,
            "A value that is reached along two paths is in the list twice, and pushes twice: keep a set of the visited ones.": _each_path,
        },
        together={
            "root keeps an old gradient and begins with it: root.grad = 1.0, whatever was in it.": {
                "seed": lambda old: old or 1.0,
                "reset": lambda order: order[:-1],
            },
        },
    ),
)
def backward(learner, rng):
    import torch

    same_number = "Two values may hold the same number: keep the values themselves in the set, not their data."

    def grads(
        root,
        named,
        why,
        expected,
        source,
        silence="Is each value of the graph in the list, and is the whole list used?",
    ):
        graph = [(value, value.parents, value.data) for value in _graph_of(root)]
        result = learner(root)
        expect.true(result is None, "backward sets gradients, and returns nothing", f"yours    {result!r}")
        stays = all(value.parents is parents and value.data == data for value, parents, data in graph)
        likely = "A later call needs the graph as it was: change nothing but grad."
        expect.true(stays, f"{why}: the parents and the numbers of all values stay", likely=likely)
        yours = np.array([value.grad for value in named.values()], float)
        order = _graph_of(root)
        silent = [value for value in order if value.parents and not value.pushes]
        likely = silence
        if silent == [root]:
            likely = "The root never pushes: it belongs into the list, at its end."
        elif root.pushes and len(silent) == sum(bool(value.parents) for value in order) - 1 > 1:
            likely = "Only the root pushes: its parents have to push too, and theirs."
        expect.true(not silent, f"{why}: every value with parents pushes", f"{len(silent)} never do", likely=likely)
        often = max(1, *(value.pushes for value in order), 0)
        likely = "Values push more than once. Keep a set of what was visited: each goes into the list once, whatever the number of paths to it."
        named_why = f"{why}: the gradients of {', '.join(named)}"
        expect.close(yours, np.array(expected, float), why=named_why, source=source, likely=likely if often > 1 else "")
        expect.true(often == 1, f"{why}: each value pushes once", f"one pushes {often} times", likely=likely)

    a, b, c = _Node(2), _Node(-3), _Node(10)
    d = a * b
    e = d + c
    root = e * e
    named = {"L": root, "e": e, "d": d, "a": a, "b": b, "c": c}
    grads(root, named, "(ab + c)², the example above", [1, 8, 8, -24, 16, 8], "by hand")

    x = _Node(3)
    grads(x, {"x": x}, "a value alone", [1], "dx/dx = 1")
    x = _Node(1.5)
    root = x * x + x
    grads(root, {"root": root, "x": x}, "x·x + x at 1.5", [1, 4], "2x + 1")

    # the same value near and far: x enters at the end, and in the middle; on either side of the operation
    x, y = _Node(0.5), _Node(-1.2)
    t = x * y
    u = t * t
    for side, root in {"u·t + x": (u * t) + x, "x + t·u": x + (t * u)}.items():
        for value in (x, y, t, u):
            value.pushes, value.grad = 0, 0.0
        s = 3 * (x.data * y.data) ** 2  # t³ by t
        named = {"u": u, "t": t, "x": x, "y": y}
        why = f"{side} with t = xy, u = t²: values that are near on one path and far on another"
        grads(root, named, why, [t.data, s, s * y.data + 1, s * x.data], "by hand: u·t = (xy)³")

    x, y = _Node(2.0), _Node(1.0)
    u = x * y  # 2, as x is
    for side, root in {"x·u": x * u, "u·x": u * x}.items():
        for value in (x, y, u):
            value.pushes = 0
        why = f"{side} with u = xy at x = 2, y = 1"
        grads(root, {"u": u, "x": x, "y": y}, why, [2, 4, 4], "by hand: x²y", silence=same_number)

    x = _Node(2.0)
    middle = x * x
    root = middle * middle
    middle.grad, x.grad, root.grad = 7.0, 5.0, 11.0
    grads(root, {"root": root, "x²": middle, "x": x}, "x⁴ at 2, with old numbers in every grad", [1, 8, 32], "4x³")
    learner(root)
    yours = np.array([value.grad for value in (root, middle, x)])
    expect.close(yours, [1, 8, 32], why="called twice, it gives the same", source="4x³ at 2, as in the first call")
    learner(middle)
    expect.close(x.grad, 4, why="called for x², which is a part of x⁴", source="2x at 2")

    x, y = _Node(-1.0), _Node(3.0)
    flat = _Node(0.0, (x,), (0.0,))  # as ReLU where x < 0
    root = (flat + y) + y
    grads(root, {"x": x, "y": y}, "relu(x) + y + y at x = -1: a gradient of 0 on the way", [0, 2], "by hand")
    x = _Node(2.0)
    small = _Node(2e9, (x,), (1e9,))
    root = _Node(20.0, (small,), (1e-8,))
    grads(root, {"x": x}, "10⁹·x, then 10⁻⁸ times that: a tiny gradient on the way", [10], "by hand")
    x, y, z = _Node(2.0), _Node(3.0), _Node(5.0)
    root = _Node(30.0, (x, y, z), (15.0, 10.0, 6.0))
    grads(root, {"x": x, "y": y, "z": z}, "an operation with three parents, xyz", [15, 10, 6], "by hand")

    x = _Node(1.0)
    used = x * x
    outside = used + x  # computed from it, not the other way round
    outside.grad = 5.0
    learner(used)
    why = "what was computed from root is none of its business: its grad stays"
    expect.close(outside.grad, 5, why=why, source="the value before")

    for seed in range(3):
        leaves = [_Node(number) for number in rng.uniform(-1, 1, 4)]
        tensors = [torch.tensor(leaf.data, dtype=torch.float64, requires_grad=True) for leaf in leaves]
        nodes, others = list(leaves), list(tensors)
        for _ in range(25):
            i, j, kind = (int(n) for n in rng.integers((len(nodes), len(nodes), 3)))
            for values in (nodes, others):
                p, q = values[i], values[j]
                values.append(p + q if kind == 0 else (p * q).tanh() if kind == 1 else (p + q).tanh())
        root, torch_root = nodes[-1], others[-1]
        for node, tensor in zip(nodes[4:-1], others[4:-1], strict=True):
            root, torch_root = root + node, torch_root + tensor
        expected = [g.item() for g in torch.autograd.grad(torch_root, tensors)]
        named = dict(zip(("x1", "x2", "x3", "x4"), leaves, strict=True))
        grads(root, named, f"a random graph, number {seed + 1}", expected, "torch.autograd")

    x = _Node(1.0)
    root = x
    for _ in range(60):
        root = root + root  # 2^60 paths
    grads(root, {"x": x}, "x doubled 60 times: 61 values, 2⁶⁰ paths", [2.0**60], "2⁶⁰")

    x = _Node(1.0)
    root = x
    for _ in range(20_000):
        root = root + x
    try:
        learner(root)
    except RecursionError:
        likely = (
            "A function that calls itself stops at about 1,000 calls. Keep a stack of your own: a list, append and pop."
        )
        expect.true(False, "a chain of 20,000 additions is no problem", "RecursionError", likely=likely)
    expect.close(x.grad, 20_001, why="x added to itself 20,000 times", source="20,001 times x")


# ------------------------------------------------------------------------------------------------ gradient_check


@parts
def _differences(
    f,
    x,
    h=1e-5,
    *,
    up=1.0,
    down=1.0,
    slope=lambda high, low, h: (high - low) / (2 * h),
    moved=lambda x, i, step: x.copy(),
    last=lambda gradient: gradient,
    indices=lambda x: np.ndindex(x.shape),
):
    gradient, x = np.zeros(x.shape), x.copy()
    for i in indices(x):
        higher, lower = moved(x, i, h), moved(x, i, h)
        higher[i] += up * h
        lower[i] -= down * h
        gradient[i] = slope(f(higher), f(lower), h)
    return last(gradient)


def _all_at_once(f, x, h=1e-5):
    """All entries move at once: that adds the derivatives up. One entry moves, the others stay."""
    return np.full(x.shape, (f(x + h) - f(x - h)) / (2 * h))


def _not_put_back(f, x, h=1e-5):
    """Entries that were moved before are not put back: begin with x as it came for each entry."""
    x, gradient = x.copy(), np.zeros_like(x)
    for i in np.ndindex(x.shape):
        x[i] += h
        up = f(x)
        x[i] -= 2 * h
        gradient[i] = (up - f(x)) / (2 * h)
    return gradient


def _one_array(f, x, h=1e-5):
    """Every entry is 0: f sees the same array both times. Are `up` and `down` two names of one array, or is f called with x in place of them? Each is a copy of its own."""
    return np.zeros(x.shape)


def _first_only(gradient):
    gradient.flat[1:] = 0
    return gradient


_ONE_SIDED = "That is the one-sided difference. Its error falls with h, not with h²: go h up and h down, over 2h."


@exercise(
    hints=[
        "Begin with gradient = np.zeros_like(x). `for i in np.ndindex(x.shape):` gives each index as a tuple, whatever the number of axes; x[i] takes it.",
        "For each entry two copies of x: in one the entry is h higher, in the other h lower. x.copy() leaves the caller's array alone.",
        "up, down = x.copy(), x.copy(); up[i] += h; down[i] -= h; gradient[i] = (f(up) - f(down)) / (2 * h). After the loop, return gradient.",
    ],
    mistakes=_differences.mistakes(
        _all_at_once,
        _not_put_back,
        _one_array,
        slope={
            "From h below to h above it is 2h: divide by 2h.": lambda high, low, h: (high - low) / h,
            "The sign is turned round: f with the entry higher minus f with it lower.": lambda high, low, h: (
                (low - high) / (2 * h)
            ),
            "The difference is not divided by 2h.": lambda high, low, h: high - low,
            "It is multiplied by h: / 2 * h divides by 2, then multiplies. Write / (2 * h).": lambda high, low, h: (
                (high - low) / 2 * h
            ),
            "The two are added: f with the entry higher minus f with it lower.": lambda high, low, h: (
                (high + low) / (2 * h)
            ),
        },
        down={
            "One side is h away, the other 0, and yet it is divided by 2h. Is f(x) there in place of f with the entry h lower?": 0.0,
        },
        h={"The step is always 1e-5: use the argument h.": 1e-5},
        indices={
            "It goes along the first axis only, so that a whole row moves at once. np.ndindex(x.shape) goes over all entries.": (
                lambda x: range(len(x)) if x.ndim else [()]
            ),
        },
        last={
            "Only the first entry is there: `return` stands inside the loop. Move it to the left, below the loop.": _first_only
        },
        together={
            "It is about half the slope: the two points are h apart, and it is divided by 2h. Go h up and h down.": {
                "up": 0.5,
                "down": 0.5,
            },
            _ONE_SIDED: {"down": 0.0, "slope": lambda high, low, h: (high - low) / h},
            f"{_ONE_SIDED} ": {"up": 0.0, "slope": lambda high, low, h: (high - low) / h},
            "It goes h/2 up and down. The step is h here: from h below to h above, over 2h.": {
                "up": 0.5,
                "down": 0.5,
                "slope": lambda high, low, h: (high - low) / h,
            },
        },
    ),
)
def gradient_check(learner, rng):
    x = rng.uniform(0.5, 2, size=(2, 3))
    weights = rng.uniform(1, 3, size=(2, 3))
    # of a cubic the central difference is 3wx² + wh² exactly, so that every other formula shows

    def cubic(v):
        if np.shape(v) != x.shape:
            raise ValueError(f"f takes an array of x's shape, {x.shape}, and was given one of shape {np.shape(v)}")
        return float((weights * v**3).sum() + v.prod())

    given = learner(cubic, x, 0.1)
    expected = 3 * weights * x**2 + weights * 0.01 + x.prod() / x
    why, source = (
        "Σ w·x³ + Πx for x (2, 3), with the large step h = 0.1",
        "3wx² + wh² + Πx/x: the central difference, by hand",
    )
    expect.close(given, expected, why=why, source=source)
    given = learner(lambda v: float(np.sin(v).sum()), x)
    why = "the sum of sin, with the step that is the default"
    expect.close(given, np.cos(x), why=why, source="its derivative, cos", rtol=0, atol=1e-8)
    given = learner(lambda v: 5e-5 * float(v.sum()), x)
    expect.close(
        given, np.full((2, 3), 5e-5), why="a small gradient stays as it is", source="f is 5·10⁻⁵ Σx", rtol=1e-4, atol=0
    )
    given = learner(lambda v: float(np.maximum(0, v).sum()), np.zeros(2), 0.1)
    expect.close(given, [0.5, 0.5], why="Σ ReLU at 0, where it has a kink", source="(h - 0) / 2h")
    one = np.array([0.7])
    expect.close(learner(lambda v: float(np.exp(v[0])), one), np.exp(one), why="one entry", source="exp", rtol=1e-7)
    cube = rng.normal(size=(4, 1, 2)).T
    given = learner(lambda v: float((v**2).sum()), cube)
    likely = "x.ravel() and x.reshape(-1) of a transposed array are copies: what is written there never reaches x. Write x[i]."
    untouched = lambda yours, expected: "" if np.any(yours) else likely  # noqa: E731
    why = "Σ x² for x (2, 1, 4), a transposed array"
    expect.close(given, 2 * cube, why=why, source="2x", rtol=1e-6, likely=untouched)
    likely = "np.ndindex(()) gives one index, (): with it an array without axes needs no case of its own."
    given = learner(lambda v: float(v**2), np.array(1.5))
    expect.close(given, np.array(3.0), why="x² for x of shape ()", source="2x", rtol=1e-6, likely=likely)
    seen = []

    def kept(v):
        seen.append(v.copy())
        return float(v.sum())

    x, h = rng.integers(-8, 8, size=(2, 2)) / 4, 2.0 ** -int(rng.integers(18, 26))
    learner(kept, x, h)
    moved = [np.abs(v - x).ravel() for v in seen]
    expect.true(
        all(v.dtype == float for v in seen)
        and all(np.isin(np.sort(m), (0, h)).all() and m.astype(bool).sum() <= 1 for m in moved),
        f"f gets arrays of float64 that differ from x in one entry, by h = {h:.3g}",
        likely="Every other entry is exactly as it came: begin with a copy of x for each. And h is as it is given.",
    )


# ------------------------------------------------------------------------------------------------ unbroadcast


def _ones(shape):
    return tuple(axis for axis, size in enumerate(shape) if size == 1)


@parts
def _summed(
    gradient,
    shape,
    *,
    extra=lambda gradient, shape: tuple(range(gradient.ndim - len(shape))),
    front=lambda gradient, extra: gradient.sum(axis=extra),
    ones=_ones,
    stretched=lambda gradient, ones, shape: gradient.sum(axis=ones, keepdims=True),
):
    gradient = front(gradient, extra(gradient, shape))
    return stretched(gradient, ones(shape), shape)


def _keeps_front(gradient, shape):
    """The axes in front have to go; keepdims belongs to the axes of length 1 only."""
    extra = gradient.ndim - len(shape)
    return gradient.sum(axis=(*range(extra), *(axis + extra for axis in _ones(shape))), keepdims=True)


def _sums_everything(gradient, shape):
    """It adds everything up and spreads the total. Sum only over what was repeated."""
    return np.full(shape, gradient.sum())


def _folds(gradient, shape):
    """reshape(-1, *shape) cuts the array as if axes had been added in front only. Along a stretched axis of length 1 the sum runs where that axis stands."""
    return gradient.reshape(-1, *shape).sum(axis=0)


def _either_or(gradient, shape):
    """It sums over the axes in front or over those of length 1. There may be both: one after the other."""
    if gradient.ndim > len(shape):
        return gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    return gradient.sum(axis=_ones(shape), keepdims=True)


def _ones_first(gradient, shape):
    """Where `shape` has a 1 tells the axis only once the axes in front are gone: sum over those first."""
    extra = gradient.ndim - len(shape)
    return gradient.sum(axis=_ones(shape), keepdims=True).sum(axis=tuple(range(extra)))


def _aligned_left(gradient, shape):
    """Shapes are aligned at the right: (3,) is the last axis of (2, 3), which stays. Here that one is summed, too."""
    axes = tuple(axis for axis, n in enumerate(gradient.shape) if axis >= len(shape) or n != shape[axis])
    return gradient.sum(axis=axes, keepdims=True).reshape(shape)


def _ones_not_moved(gradient, shape):
    """An axis was not summed: while the axes in front are there, axis a of `shape` is axis a + extra of the gradient."""
    axes = {*range(gradient.ndim - len(shape)), *_ones(shape)}
    return gradient.sum(axis=tuple(axes), keepdims=True).reshape(shape)


@exercise(
    hints=[
        "Shapes are aligned at the right. How many axes does the gradient have more than `shape`? Those stand in front; sum over them.",
        "gradient.sum(axis=(0, 1)) sums over two axes; with an empty tuple it sums over none. extra = gradient.ndim - len(shape).",
        "gradient = gradient.sum(axis=tuple(range(extra))); ones = tuple(i for i, n in enumerate(shape) if n == 1); return gradient.sum(axis=ones, keepdims=True).",
    ],
    mistakes=_summed.mistakes(
        _keeps_front,
        _sums_everything,
        _folds,
        _either_or,
        _ones_first,
        _aligned_left,
        _ones_not_moved,
        stretched={
            "Axes of length 1 were stretched, too: sum over them, with keepdims=True so that they stay with length 1.": (
                lambda gradient, ones, shape: gradient
            ),
            "The axes of length 1 have gone: keepdims=True keeps them, and a squeeze takes them away.": (
                lambda gradient, ones, shape: gradient.sum(axis=ones)
            ),
        },
        ones={"It sums over one axis of length 1. There may be several.": lambda shape: _ones(shape)[:1]},
        extra={
            "It sums over the last axes. Broadcasting adds axes in front: shapes are aligned at the right.": (
                lambda gradient, shape: tuple(range(len(shape), gradient.ndim))
            ),
            "It takes off one axis at most. There may be several in front.": (
                lambda gradient, shape: (0,) if gradient.ndim > len(shape) else ()
            ),
        },
        together={
            "It sums over axis 0 here, as for (3,) before. `shape` tells over which axes.": {
                "extra": lambda gradient, shape: (0,),
                "stretched": lambda gradient, ones, shape: gradient,
            },
            "It averages. A value that is used n times gets n contributions, and they add up: sum, not mean.": {
                "front": lambda gradient, extra: gradient.mean(axis=extra),
                "stretched": lambda gradient, ones, shape: gradient.mean(axis=ones, keepdims=True),
            },
            "It picks one of the repetitions. All of them count: their gradients add up.": {
                "front": lambda gradient, extra: gradient[(0,) * len(extra)],
                "stretched": lambda gradient, ones, shape: gradient[
                    tuple(slice(0, 1 if n == 1 else None) for n in shape)
                ],
            },
        },
    ),
)
def unbroadcast(learner, rng):
    import torch

    def demand(shape, big, values=lambda big: rng.normal(size=big)):
        gradient = values(big)
        leaf = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        leaf.broadcast_to(big).backward(torch.tensor(gradient, dtype=torch.float64))
        why = f"the gradient of an array {shape} that was broadcast to {big}"
        given = learner(gradient, shape)
        expect.shape(given, shape, why)
        expect.close(given, leaf.grad, why=why, source="torch.autograd")

    table = np.array([[1.0, 2, 3], [4, 5, 6]])
    for shape, expected in (((3,), [5.0, 7, 9]), ((2, 1), [[6.0], [15]]), ((), 21.0)):
        given = learner(table, shape)
        why = f"the example above, shape {shape}"
        expect.shape(given, shape, why)
        expect.close(given, expected, why=why, source="by hand")
    for shape, big in (
        ((3,), (3, 3)),
        ((3, 1), (3, 3)),
        ((1, 3), (2, 3)),
        ((1,), (4, 5)),
        ((1, 1), (4, 5)),
        ((4, 1, 3), (2, 4, 5, 3)),
        ((3,), (2, 4, 3)),
        ((), (2, 3, 4)),
        ((), ()),
        ((2, 3), (2, 3)),
        ((1, 3), (1, 3)),
        ((1,), (1,)),
        ((5, 1, 2), (5, 1, 2)),
        ((3, 3), (3, 3, 3)),
        ((1, 1, 2), (2, 2, 2, 2)),
    ):
        demand(shape, big)
    demand((2, 1), (3, 2, 4), lambda big: rng.normal(size=big[::-1]).T)
    demand((1, 4), (3, 4), lambda big: np.arange(12).reshape(big))


# ------------------------------------------------------------------------------------------------ linear_backward


@parts
def _linear(
    dZ,
    X,
    W,
    *,
    to_X=lambda dZ, X, W: dZ @ W,
    to_W=lambda dZ, X: dZ.T @ X,
    to_b=lambda dZ: dZ.sum(0),
    scale=lambda B: 1.0,
):
    factor = scale(len(X))
    return to_X(dZ, X, W) * factor, to_W(dZ, X) * factor, to_b(dZ) * factor


@exercise(
    hints=[
        "Each gradient has the shape of what it belongs to: dX as X (B, in), dW as W (out, in), db (out,). Which product of dZ (B, out) fits?",
        "dX from (B, out) times (out, in). dW from (out, B) times (B, in): transpose dZ. db: b was repeated for each of the B rows, so sum over them.",
        "dX = dZ @ W; dW = dZ.T @ X; db = dZ.sum(axis=0), or unbroadcast(dZ, (len(W),)); return dX, dW, db.",
    ],
    mistakes=_linear.mistakes(
        scale={
            "It is divided by B. The 1/B of the mean is in dZ already: once is enough.": lambda B: 1 / B,
            "It is multiplied by B.": lambda B: B,
            "The sign is turned round.": lambda B: -1.0,
        },
        returns={
            "They are all there, in another order: dX, dW, db.": lambda three: (three[1], three[2], three[0]),
            "They are all there, in another order: dX, dW, db. ": lambda three: (three[1], three[0], three[2]),
            "They are all there, in another order: dX, dW, db.  ": lambda three: three[::-1],
            "They are all there, in another order: dX, dW, db.   ": lambda three: (three[0], three[2], three[1]),
            "They are all there, in another order: dX, dW, db.    ": lambda three: (three[2], three[0], three[1]),
        },
        to_X={
            "W is not transposed in dX = dZ W: it was in the forward pass.": lambda dZ, X, W: (
                dZ @ (W.T if W.shape[0] == W.shape[1] else W)
            ),
            "That is X Wᵀ, the forward pass; dX = dZ W.": lambda dZ, X, W: X @ W.T,
            "It is transposed.": lambda dZ, X, W: (dZ @ W).T,
            "It is 0 where X is negative, as behind a ReLU. A linear layer has none: dX = dZ W.": lambda dZ, X, W: (
                dZ @ W * (X > 0)
            ),
        },
        to_W={
            "It is transposed: dW has the shape of W, (out, in), so dZᵀ X.": lambda dZ, X: X.T @ dZ,
            "The batch is not summed: the matrix product dZᵀ X does it.": lambda dZ, X: dZ[:, :, None] * X[:, None],
            "It is one example's: the matrix product dZᵀ X sums over all.": lambda dZ, X: np.outer(dZ[0], X[0]),
            "It is the last example's: add up over the batch (+=, not =).": lambda dZ, X: np.outer(dZ[-1], X[-1]),
            "It is the transpose, reshaped: reshape only re-reads the entries in their order. Transpose: dZᵀ X.": (
                lambda dZ, X: (X.T @ dZ).reshape(dZ.shape[1], X.shape[1])
            ),
            "A product of sums is no sum of products: dZᵀ X multiplies within each example, and sums then.": (
                lambda dZ, X: np.outer(dZ.sum(0), X.sum(0))
            ),
            "dW is divided by B. The 1/B of the mean is in dZ already: once is enough.": lambda dZ, X: (
                dZ.T @ X / len(X)
            ),
        },
        to_b={
            "It sums over the outputs; the batch is axis 0.": lambda dZ: dZ.sum(1),
            "The sum over the batch is missing: b was repeated for each row.": lambda dZ: dZ,
            "It is the mean over the batch: contributions add up.": lambda dZ: dZ.mean(0),
            "It is the first example's: add up over the batch.": lambda dZ: dZ[0],
            "It is the last example's: add up over the batch (+=, not =).": lambda dZ: dZ[-1],
            "It adds everything up: one number for each output is wanted.": lambda dZ: dZ.sum(),
            "It keeps the axis of the batch: db is (out,), like b.": lambda dZ: dZ.sum(0, keepdims=True),
            "b is added to Z, but its gradient is no row of ones: it is the sum of dZ's rows.": lambda dZ: np.full(
                dZ.shape[1], float(len(dZ))
            ),
        },
    ),
)
def linear_backward(learner, rng):
    import torch

    def by_torch(dZ, X, W):
        leaves = [torch.tensor(values, requires_grad=True) for values in (X, W, np.zeros(len(W)))]
        torch.nn.functional.linear(*leaves).backward(torch.tensor(dZ))
        return [leaf.grad for leaf in leaves]

    names, source = ("dX", "dW", "db"), "torch.autograd of F.linear"
    kinds = {"dZ": floats("B", "out"), "X": floats("B", "in"), "W": floats("out", "in")}
    agree(
        learner, by_torch, rng, why="the gradients", source=source, parts=names, without={"integers": _FLOATS}, **kinds
    )


# ------------------------------------------------------------------------------------------------ softmax_cross_entropy_backward


def _one_hot(Z, y):
    return np.eye(Z.shape[1])[y]


@parts
def _p_minus_y(
    Z,
    y,
    *,
    p=lambda Z: softmax(Z, axis=1),
    truth=_one_hot,
    difference=lambda p, y: p - y,
    mean=lambda d, B, K: d / B,
):
    return mean(difference(p(Z), truth(Z, y)), *Z.shape)


def _p_everywhere_minus_columns(Z, y):
    """P[:, y] takes these columns in every row. One entry for each row is wanted: P[np.arange(B), y]."""
    P = softmax(Z, axis=1)
    P[:, y] -= 1
    return P / len(y)


def _total_of_all_rows(Z):
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return E / E.sum()


def _shifted_by(shift):
    """Softmax with a shift of the rows that is subtracted first, and does not have to be their own maximum."""

    def p(Z):
        E = np.exp(Z - shift(Z))
        return E / E.sum(axis=1, keepdims=True)

    return p


_TOP = "One maximum for the whole array does not help a row that lies far below it: subtract each row's own, axis=1, keepdims=True."


@exercise(
    hints=[
        "You wrote softmax in the last workshop: E = np.exp(Z - Z.max(axis=1, keepdims=True)), then divide each row by its sum.",
        "P[np.arange(len(y)), y] picks one entry of each row, the right class. Subtract 1 there.",
        "dZ = E / E.sum(axis=1, keepdims=True); dZ[np.arange(len(y)), y] -= 1; return dZ / len(y).",
    ],
    mistakes=_p_minus_y.mistakes(
        _p_everywhere_minus_columns,
        mean={
            "Each row is right, but the loss is a mean over the B rows: divide by B.": lambda d, B, K: d,
            "It is divided by the number of classes; the mean is over the B rows.": lambda d, B, K: d / K,
            "It is divided by all B·K entries (.mean(), .size?); the mean is over the B rows.": lambda d, B, K: (
                d / (B * K)
            ),
        },
        difference={
            "The truth is not subtracted: it is p − y, with 1 taken off at the right class.": lambda p, y: p,
            "The sign is turned round: p − y. Gradient descent subtracts it, and then the right class's logit rises.": lambda p, y: (
                y - p
            ),
            "Only p is divided by B, the 1 at the right class is not: (p − y) / B needs its brackets.": lambda p, y: (
                p - y * len(y)
            ),
            "Only the 1 at the right class is divided by B, p is not: (p − y) / B needs its brackets.": lambda p, y: (
                p * len(y) - y
            ),
            "That is −1/p at the right class, the gradient by p. By the logits, with softmax in between, it is p − y.": lambda p, y: (
                -y / p
            ),
            "The factor p(1 − p) belongs to a squared error of sigmoids. With softmax and cross-entropy p − y is all.": (
                lambda p, y: (p - y) * p * (1 - p)
            ),
            "At the right class 1 is subtracted from p (-=); here -1 stands in its place.": lambda p, y: (
                p * (1 - y) - y
            ),
            "Only the right class gets a gradient. The others have p: they have to fall.": lambda p, y: (p - 1) * y,
        },
        p={
            "Softmax runs over the batch here. Each row, an example, has to add up to 1: axis=1.": lambda Z: softmax(
                Z, axis=0
            ),
            "Softmax runs over the whole array. Each row, an example, has to add up to 1: axis=1, keepdims=True.": softmax,
            "It divides by the sum over the whole array. Each row has its own sum: axis=1, keepdims=True.": _total_of_all_rows,
            "It subtracts each column's maximum. Only a shift that is the same along a row cancels: axis=1, keepdims=True.": (
                lambda Z: softmax(Z - Z.max(axis=0), axis=1)
            ),
            "exp overflows: subtract each row's maximum from the row first. The probabilities stay the same.": _shifted_by(
                lambda Z: 0
            ),
            _TOP: _shifted_by(lambda Z: Z.max()),
            "A row is shifted only where its largest entry is large. Where all lie far below 0, all exp are 0: subtract the maximum always.": (
                _shifted_by(lambda Z: np.where(Z.max(1, keepdims=True) > 700, Z.max(1, keepdims=True), 0))
            ),
            "It subtracts the mean of each row, which does not keep exp from overflowing: subtract the maximum.": (
                _shifted_by(lambda Z: Z.mean(1, keepdims=True))
            ),
            "Softmax is missing: p − y, not z − y.": lambda Z: Z,
            "The logits are clipped, so that large ones become equal. Subtract each row's maximum instead.": lambda Z: (
                softmax(np.clip(Z, -500, 500), axis=1)
            ),
        },
        truth={
            "The class's number is subtracted. y stands for 1 at the right class, 0 elsewhere.": lambda Z, y: y[
                :, None
            ],
            "1 is taken off at the most probable class, not at the right one, y.": lambda Z, y: _one_hot(
                Z, Z.argmax(1)
            ),
            "y.max() + 1 is not the number of classes: the last may not occur in y. It is Z.shape[1].": lambda Z, y: (
                np.eye(y.max() + 1)[y]
            ),
        },
    ),
)
def softmax_cross_entropy_backward(learner, rng):
    import torch

    def by_torch(Z, y):
        leaf = torch.tensor(Z, requires_grad=True)
        torch.nn.functional.cross_entropy(leaf, torch.tensor(y)).backward()
        return leaf.grad

    given = learner(np.array([[2.0, 1, 0]]), np.array([1]))
    source, kinds = "torch.autograd of cross_entropy", {"Z": floats("B", "K"), "y": labels("B", below="K")}
    agree(learner, by_torch, rng, why="the gradient by the logits", source=source, **kinds)
    expect.close(given, [[0.6652, -0.7553, 0.09]], why="the example above", source="by hand", atol=1e-4)


# ------------------------------------------------------------------------------------------------ mlp_gradients


def _log_sum_exp(Z):
    m = Z.max(axis=1, keepdims=True)
    return np.log(np.exp(Z - m).sum(axis=1)) + m[:, 0]


@parts
def _mlp(
    X,
    y,
    layers,
    *,
    affine=lambda A, W, b: A @ W.T + b,
    hidden=lambda Z: np.maximum(0, Z),
    end=lambda Z: Z,
    loss_of=lambda Z, y: _log_sum_exp(Z) - Z[np.arange(len(y)), y],
    mean=np.mean,
    p_of=lambda Z: softmax(Z, axis=1),
    scale=lambda B, K: 1 / B,
    factor=lambda A, Z: A,
    mask=lambda Z: Z > 0,
    mask_end=lambda Z: 1.0,
    each=lambda dW, db, B, W, b: (dW, db),
    order=-1,
):
    B, inputs, before = len(y), [X], [X]
    for n, (W, b) in enumerate(layers):
        before.append(affine(inputs[-1], W, b))
        inputs.append((hidden if n < len(layers) - 1 else end)(before[-1]))
    Z = inputs.pop()
    loss = float(mean(loss_of(Z, y)))
    d = (p_of(Z) - _one_hot(Z, y)) * scale(*Z.shape) * mask_end(Z)
    gradients = []
    for (W, b), A, Z in zip(reversed(layers), reversed(inputs), before[-2::-1], strict=True):
        gradients.append(each(d.T @ factor(A, Z), d.sum(0), B, W, b))
        d = (d @ W) * mask(Z)
    return loss, gradients[::order]


def _one_maximum(Z):
    E = np.exp(Z - Z.max())
    return E / E.sum(axis=1, keepdims=True)


@exercise(
    hints=[
        "Forward: a list `inputs` that begins with X; after each hidden layer append np.maximum(0, inputs[-1] @ W.T + b). The last layer's Z are the logits.",
        "Backward: dZ = softmax_cross_entropy_backward(Z, y). Then from the last layer to the first: dA, dW, db = linear_backward(dZ, A, W) with A the layer's input; keep (dW, db); dZ = dA * (A > 0) for the layer below.",
        "for (W, _), A in zip(reversed(layers), reversed(inputs)): ... and at the end gradients[::-1]. The loss: m = Z.max(axis=1); (m + np.log(np.exp(Z - m[:, None]).sum(axis=1)) - Z[np.arange(len(y)), y]).mean().",
    ],
    mistakes=_mlp.mistakes(
        returns={"First the loss, a number, then the list of gradients.": lambda both: both[::-1]},
        mean={
            "The loss is the sum over the batch; the mean is wanted.": np.sum,
        },
        loss_of={
            "A logarithm of p is cut off where p is nearly 0: log-sum-exp needs no p, and no small number beside it.": (
                lambda Z, y: -np.log(softmax(Z, axis=1)[np.arange(len(y)), y] + 1e-12)
            ),
            "A logarithm of p is cut off where p is nearly 0: log-sum-exp needs no p, and no small number beside it. ": (
                lambda Z, y: -np.log(np.maximum(softmax(Z, axis=1)[np.arange(len(y)), y], 1e-12))
            ),
            "exp overflowed, or the logarithm met 0: shift each row by its maximum, log-sum-exp.": (
                lambda Z, y: np.log(np.exp(Z).sum(axis=1)) - Z[np.arange(len(y)), y]
            ),
            "exp overflowed, or the logarithm met 0: shift each row by its maximum, log-sum-exp. ": (
                lambda Z, y: -np.log(softmax(Z, axis=1)[np.arange(len(y)), y])
            ),
            "The maximum that was subtracted inside the logarithm is not added back.": (
                lambda Z, y: _log_sum_exp(Z) - Z.max(axis=1) - Z[np.arange(len(y)), y]
            ),
            "One maximum for all rows leaves nothing of a row that lies far below it: each row has its own, axis=1.": (
                lambda Z, y: Z.max() + np.log(np.exp(Z - Z.max()).sum(axis=1)) - Z[np.arange(len(y)), y]
            ),
        },
        p_of={
            "In the gradient softmax runs down the batch; each row adds up to 1: axis=1.": lambda Z: softmax(Z, axis=0),
            "In the gradient one maximum is taken for all rows: each row has its own, axis=1.": _one_maximum,
        },
        affine={"The biases are missing in the forward pass: Z = A Wᵀ + b.": lambda A, W, b: A @ W.T},
        order={
            "The last layer's gradients come first: backward finds them in this order; turn the list round at the end.": 1
        },
        mask={
            "ReLU's mask is missing on the way back (A >= 0 holds for every entry): a hidden entry that was cut to 0 passes no gradient. dA * (A > 0).": lambda A: (
                1.0
            ),
            "At exactly 0 ReLU passes nothing: the mask is Z > 0, not Z ≥ 0.": lambda Z: Z >= 0,
            "dA is multiplied by A, not by its mask: ReLU's slope is 1 where A > 0.": lambda Z: np.maximum(0, Z),
        },
        factor={"dW takes what the layer got: its input A, after ReLU, not Z before it.": lambda A, Z: Z},
        mask_end={
            "ReLU's mask is applied at the logits too. The last layer has no ReLU: p − y goes into linear_backward as it is.": lambda Z: (
                Z > 0
            ),
        },
        scale={
            "The gradients are those of the sum over the batch; the loss is the mean: divide p − y by B.": lambda B, K: (
                1.0
            ),
            "p − y is divided by B·K, all entries; the mean is over the B rows.": lambda B, K: 1 / (B * K),
        },
        each={
            "It divides by B in each layer once more. The 1/B of the mean is in p − y already, and the chain rule carries it down.": (
                lambda dW, db, B, W, b: (dW / B, db / B)
            ),
            "The signs are turned round: the gradient points uphill, and gradient descent subtracts it.": lambda dW, db, B, W, b: (
                -dW,
                -db,
            ),
            "It gives back changed weights. Gradients are wanted; whoever calls takes the step.": lambda dW, db, B, W, b: (
                W - dW,
                b - db,
            ),
            "Each pair is turned round: (dW, db), in the order of (W, b).": lambda dW, db, B, W, b: (db, dW),
        },
        together={
            "The last layer has a ReLU here. Its outputs, the logits, stay as they are.": {
                "end": lambda Z: np.maximum(0, Z),
                "mask_end": lambda Z: Z > 0,
            },
            "The last layer has a ReLU here. Its outputs, the logits, stay as they are. ": {
                "end": lambda Z: np.maximum(0, Z)
            },
            "There is no ReLU between the layers, neither forward nor backward.": {
                "hidden": lambda Z: Z,
                "mask": lambda Z: 1.0,
            },
            "There is no ReLU between the layers.": {"hidden": lambda Z: Z},
        },
    ),
)
def mlp_gradients(learner, rng):
    import torch

    def by_torch(X, y, layers):
        tensors = [
            [torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in layer] for layer in layers
        ]
        A = torch.tensor(X, dtype=torch.float64)
        for n, (W, b) in enumerate(tensors):
            A = torch.nn.functional.linear(A if n == 0 else torch.relu(A), W, b)
        loss = torch.nn.functional.cross_entropy(A, torch.tensor(y))
        loss.backward()
        return loss.item(), [[leaf.grad for leaf in layer] for layer in tensors]

    def demand(X, y, layers, why, likely=""):
        right_loss, right = by_torch(X, y, layers)
        loss, gradients = expect.parts(learner(X, y, layers), ("loss", "gradients"), "loss and gradients come back")
        slip = likely
        if not isinstance(loss, list) and np.shape(loss) == y.shape and len(y) > 1:
            slip = "That is one loss for each example; the mean over the batch is wanted."
        expect.close(loss, right_loss, why=f"{why}: the loss", source="F.cross_entropy", likely=slip)
        count = len(gradients) if isinstance(gradients, list | tuple) else 0
        nested = count == len(layers) and all(isinstance(g, list | tuple) for g in gradients)
        slip = "Each entry of the list is a pair, (dW, db), for one layer."
        if nested:
            slip = "linear_backward gives dX too: keep (dW, db) only."
        paired = nested and all(len(g) == 2 for g in gradients)
        details = f"yours    {count} entries", f"expected {len(layers)} pairs"
        expect.true(paired, f"{why}: one pair (dW, db) for each layer", *details, likely=slip)
        for n in range(len(layers) - 1, -1, -1):  # from the end: where backward begins
            note = likely
            if not note and n < len(layers) - 1:
                note = f"The layers after it are right. Look at what reaches layer {n + 1}: dA of the layer above, masked by its own input A > 0."
            for name, part, theirs in zip(("dW", "db"), gradients[n], right[n], strict=True):
                rule = f"{why}: {name} of layer {n + 1} of {len(layers)}"
                expect.close(part, theirs, why=rule, source="torch.autograd", likely=note)

    def drawn(*widths):
        return [(rng.normal(size=(n_out, n_in)), rng.normal(size=n_out)) for n_in, n_out in itertools.pairwise(widths)]

    def batch(B, widths):
        return rng.normal(size=(B, widths[0])), rng.integers(widths[-1], size=B)

    sizes = {"two layers": (6, (4, 5, 3)), "three layers": (7, (4, 6, 5, 3)), "one layer, no ReLU at all": (4, (3, 2))}
    for name, (B, widths) in (sizes | {"four layers": (1, (3, 4, 3, 4, 2))}).items():
        demand(*batch(B, widths), drawn(*widths), f"{name}, {' → '.join(map(str, widths))}, B = {B}")
    kinds = {"X": floats("B", "D"), "y": labels("B", below="K"), "W1": floats("H", "D"), "b1": floats("H")}
    kinds |= {"W2": floats("K", "H"), "b2": floats("K")}
    why = "products of weights near 1000 leave one class alone; logits far apart are tried below"
    for case in cases(rng, **kinds, without={"far": why, "apart": why, "integers": _FLOATS}):
        X, y, *values = case.inputs
        demand(X, y, [tuple(values[:2]), tuple(values[2:])], f"two layers{case}", "")
    for why, shift in {
        "logits near 1000": 1000.0,
        "logits near -1000": -1000.0,
        "logits far apart": np.array([1000.0, 0, -1000]),
    }.items():
        *first, (W, b) = drawn(4, 5, 3)
        demand(*batch(6, (4, 5, 3)), [*first, (W, b + shift)], why)
    X, y = batch(6, (4, 5, 3))
    layers = drawn(4, 5, 3)
    demand(
        np.concatenate([X, 1e4 * X]),
        np.concatenate([y, y]),
        layers,
        "images of which some are very bright, so that rows of logits lie far apart",
    )
    X[:2], layers[0] = 0, (layers[0][0], np.zeros(5))
    demand(X, y, layers, "two black images, biases 0, so that Z is exactly 0")


# ------------------------------------------------------------------------------------------------ momentum_step


@parts
def _momentum(
    W,
    g,
    V,
    eta,
    mu,
    *,
    velocity=lambda V, g, mu, eta: mu * V + g,
    step=lambda W, new, old, g, eta, mu: W - eta * new,
    keep=lambda new, old: new,
):
    new = velocity(V, g, mu, eta)
    return step(W, new, V, g, eta, mu), keep(new, V)


def _eta_in_velocity(W, g, V, eta, mu):
    """η is inside V here. That is another convention: ours is V = μV + g, and η only in W − ηV."""
    V = mu * V + eta * g
    return W - V, V


def _velocity_downhill(W, g, V, eta, mu):
    """V = μV − ηg with W + V is another convention. Ours is V = μV + g, and η only in W − ηV."""
    V = mu * V - eta * g
    return W + V, V


def _letters_swapped(W, g, V, eta, mu):
    """η and μ are swapped: V = μV + g, then W − ηV."""
    return _momentum(W, g, V, mu, eta)


@exercise(
    hints=[
        "Two lines, in this order: the new velocity from the old one and the gradient, then the new weights from the new velocity.",
        "V = mu * V + g makes a new array; V *= mu would change the caller's.",
        "V = mu * V + g; return W - eta * V, V.",
    ],
    mistakes=_momentum.mistakes(
        _eta_in_velocity,
        _velocity_downhill,
        _letters_swapped,
        returns={"It returns (V, W): the weights come first, then the velocity.": lambda both: both[::-1]},
        velocity={
            "That is V = μV + (1 − μ)g, an average. PyTorch's convention, and ours, adds the whole gradient.": (
                lambda V, g, mu, eta: mu * V + (1 - mu) * g
            ),
            "η is in V and in the step once more. In our convention V has no η: V = μV + g.": lambda V, g, mu, eta: (
                mu * V + eta * g
            ),
            "The gradient is subtracted in V: V = μV + g.": lambda V, g, mu, eta: mu * V - g,
            "V never forgets: the factor μ is missing in V = μV + g.": lambda V, g, mu, eta: V + g,
            "μ multiplies the gradient too: V = μV + g, not μ(V + g).": lambda V, g, mu, eta: mu * (V + g),
            "μ multiplies the gradient in place of the old velocity: V = μV + g.": lambda V, g, mu, eta: V + mu * g,
            "V begins at 0 in every call; use the V that was given.": lambda V, g, mu, eta: g.copy(),
        },
        step={
            "W moves by the old V: first the new one, V = μV + g, then W − ηV with it.": lambda W, new, old, g, eta, mu: (
                W - eta * old
            ),
            "W goes uphill: subtract ηV.": lambda W, new, old, g, eta, mu: W + eta * new,
            "That is Nesterov's step, which looks ahead. It comes in optimization-sgd-adam; here W − ηV.": (
                lambda W, new, old, g, eta, mu: W - eta * (g + mu * new)
            ),
            "W moves by the gradient alone, and V has no part in it: W − ηV, with the new V.": lambda W, new, old, g, eta, mu: (
                W - eta * g
            ),
            "The learning rate is missing: W − ηV.": lambda W, new, old, g, eta, mu: W - new,
            "W subtracts the gradient once more beside V: it is in V already.": lambda W, new, old, g, eta, mu: (
                W - eta * (new + g)
            ),
        },
        keep={"The old V comes back: the next step needs the new one.": lambda new, old: old.copy()},
        mu={"μ is always 0.9 here: use the argument mu.": 0.9},
        together={
            "V stays as it was: V = μV + g comes first, then W − ηV.": {"velocity": lambda V, g, mu, eta: V.copy()},
        },
    ),
    new=True,
)
def momentum_step(learner, rng):
    import torch

    def by_entries(W, g, V, eta, mu):
        new = [mu * v + d for v, d in zip(V.ravel(), g.ravel(), strict=True)]
        moved = [w - eta * v for w, v in zip(W.ravel(), new, strict=True)]
        return np.reshape(moved, W.shape), np.reshape(new, W.shape)

    alike = floats("rows", "columns", any_rank=True)
    kinds = {"W": alike, "g": alike, "V": alike, "eta": numbers(0.05, 0.4), "mu": numbers(0.55, 0.85)}
    without = {"far": "nothing is exponentiated in a step", "apart": "each entry goes its own way", "integers": _FLOATS}
    source = "the rule, entry by entry"
    agree(learner, by_entries, rng, why="one step", source=source, parts=("W", "V"), without=without, **kinds)
    given = learner(np.array([1.0]), np.array([2.0]), np.array([0.5]), 0.1, 0.9)
    expect.close(np.concatenate(given), [0.755, 2.45], why="the example in the notebook: W, V", source="by hand")

    W, g, V = (rng.normal(size=(2, 3)) for _ in range(3))
    parameter = torch.tensor(W, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.05, momentum=0.9)
    mine, velocity = W, np.zeros_like(W)
    for n in range(1, 7):
        gradient = np.cos(3 * mine) + 2 * mine  # depends on W: an error grows
        mine, velocity = learner(mine, gradient, velocity, 0.05, 0.9)
        optimizer.zero_grad()
        (torch.sin(3 * parameter) / 3 + parameter**2).sum().backward()
        optimizer.step()
        expect.close(mine, parameter.detach(), why=f"W after {n} steps on a function", source="torch.optim.SGD")
    mine, _ = learner(W, g, V, 0.3, 0.0)
    expect.close(mine, W - 0.3 * g, why="with μ = 0 it is plain gradient descent", source="W − ηg")
