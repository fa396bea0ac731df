"""The checks of backpropagation: one for each exercise, with its hints. `lab.check` runs them."""

import contextlib
import itertools
import math

import numpy as np

from atlas.checking import array, exercise, expect


def _numbers(given):
    """What came back as an array, empty where it is none: `expect` says so."""
    try:
        return array(given)
    except TypeError:
        return np.empty(0)


def _slips(given, compute, *tables):
    """Which slips give what was given: words from the tables, or "" where none fit or all is right.

    A table maps the words for each slip to what it makes, "" to what is right; `compute` puts one of each together.
    The fewest slips are said, two at most.
    """
    given = _numbers(given)
    choices = [choice for choice in itertools.product(*map(dict.items, tables)) if sum(bool(w) for w, _ in choice) <= 2]
    with np.errstate(all="ignore"):
        for choice in sorted(choices, key=lambda choice: sum(bool(words) for words, _ in choice)):
            with contextlib.suppress(ValueError, IndexError):  # not every slip fits every shape
                guess = np.asarray(compute(*(made for _, made in choice)), float)
                if guess.shape == given.shape and np.allclose(guess, given, 1e-6, 1e-9):
                    return " ".join(filter(None, (words for words, _ in choice)))
    return ""


# ------------------------------------------------------------------------------------------------ Value

_STARTED, _ARRIVES = 0.3, 0.7  # what is in a parent's grad before, and the gradient that arrives: neither 0 nor 1
_ARRIVING = {
    "": _ARRIVES,
    "The gradient that arrives is left out: multiply the local derivative by out.grad.": 1.0,
    "It multiplies by self.grad. What arrives is out.grad, the gradient of the result.": _STARTED,
    "out.grad is multiplied in twice.": _ARRIVES**2,
    "Nothing arrives here: push adds to both parents, self.grad and other.grad.": 0.0,
    "out.grad is added, not multiplied: the chain rule is a product.": None,
}
_KEPT = {
    "": _STARTED,
    "It overwrites the parent's grad (=). A value may be used elsewhere too: add (+=).": 0.0,
    "It subtracts: add (+=).": None,
}


def _slips_in_push(given, local, slips, result):
    """given: the parent's grad after push; local: the right derivative; slips: words → a wrong one; result: out.data."""
    arriving = {**_ARRIVING, "It multiplies by out.data, the result. What arrives is out.grad.": result}

    def compute(kept, arriving, derivative):
        share = derivative + _ARRIVES if arriving is None else derivative * arriving
        return _STARTED - share if kept is None else kept + share

    return _slips(given, compute, _KEPT, arriving, {"": local, **slips})


def _graph_of(root):
    """All values that root was computed from, each once, after its parents; by the parents that they name."""
    order, seen = [], set()
    stack = [(root, False)]
    while stack:
        value, done = stack.pop()
        if done:
            order.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            stack.append((value, True))
            stack.extend((parent, False) for parent in value.parents)
    return order


_NAMES = {"__mul__": "x * y", "__pow__": "x ** n", "exp": "x.exp()", "relu": "x.relu()", "tanh": "x.tanh()"}


@exercise(
    hints=[
        "Each is __add__ again: out = Value(what is computed, (the parents)), a push, out.push = push, return out. Only the local derivatives differ.",
        "In __mul__ x's share is other.data * out.grad, and other's is self.data * out.grad. The methods with one parent write (self,), with the comma, and add to self.grad alone.",
        "pow: n * self.data ** (n - 1) * out.grad. exp: out.data * out.grad. relu: (self.data > 0) * out.grad. tanh: (1 - out.data**2) * out.grad. All with +=.",
    ],
)
def Value(learner, rng):
    import torch

    def demand(method, compute, numbers, expected, locals_, slips=(), data_slips=(), name=""):
        """One operation on fresh values: its data, its parents, and what push adds to each parent's grad."""
        name = name or _NAMES[method]
        at = " at " + ", ".join(f"{letter} = {number:g}" for letter, number in zip("xy", numbers, strict=False))
        values = [learner(number) for number in numbers]
        out = compute(*values)
        likely = f"{method} has to end with `return out`." if out is None else ""
        if isinstance(out, int | float):
            likely = "That is the number alone: Value(number, (the parents)) makes a value of it."
        expect.true(
            out is not None and hasattr(out, "data"), f"{name} gives a new Value", f"yours    {out!r}", likely=likely
        )
        expect.true(
            all(out is not value for value in values), f"{name} gives a new Value, not one of its parents changed"
        )
        expect.true(
            [value.data for value in values] == list(numbers),
            f"{name}: the numbers of its parents stay as they are",
            likely="An operation makes a new Value and leaves self.data alone.",
        )
        likely = _slips(out.data, lambda made: made, {"": expected, **dict(data_slips)})
        expect.close(out.data, expected, why=f"{name}{at}: the number", source="Python's math", likely=likely)
        likely = (
            "Value(result, (self, other)): the second argument names what it was computed from. One parent is (self,)."
        )
        tupled = isinstance(out.parents, tuple | list | set)
        graph = _graph_of(out) if tupled else []  # longer than out and its parents where the operation is put together
        found = sum(any(node is value for node in graph) for value in values)
        expect.true(
            found == len(values),
            f"{name}: parents are the values that it was computed from",
            f"yours    {found} of them" if tupled else f"yours    a {type(out.parents).__name__}, no tuple",
            f"expected {len(values)}",
            likely=likely,
        )
        likely = "out.push = push, without parentheses: it is called later, by backward." if out.push is None else ""
        expect.true(callable(out.push), f"{name}: push is a function", f"yours    {out.push!r}", likely=likely)
        for value in values:
            expect.close(
                value.grad,
                0,
                why=f"{name}: no gradient changes before push is called",
                source="backward calls push",
                likely="push runs too early: out.push = push, without parentheses.",
            )
            value.grad = _STARTED
        out.grad = _ARRIVES
        for node in reversed(graph):
            if node.parents:
                node.push()
        if all(value.grad == _STARTED for value in values) and any(locals_):
            expect.true(
                False,
                f"{name}: push adds to the gradients of its parents",
                "after push they are as before",
                likely="Is the line `out.push = push` missing? Or does push change a local name in place of self.grad?",
            )
        for letter, value, local in zip("xy", values, locals_, strict=False):
            slip = _slips_in_push(value.grad, local, dict(slips).get(letter, {}), expected)
            if hasattr(value.grad, "parents"):
                slip = "A Value is multiplied in. A gradient is a number: take other.data and self.data."
            expect.close(
                value.grad,
                _STARTED + local * _ARRIVES,
                why=f"{name}{at}: push, with {_STARTED} in {letter}.grad and out.grad {_ARRIVES}",
                source=f"{_STARTED} + derivative {local:.6g} × {_ARRIVES}",
                likely=slip,
            )

    x, y = rng.uniform(1.2, 1.8), rng.uniform(-2.9, -2.2)
    own = "The shares are swapped: the derivative of xy by x is y, so x gets other.data, and other gets self.data."
    product = {
        "x": {own: x, "The derivative of xy by x is y, not xy.": x * y, "The derivative of xy by x is y, not 1.": 1.0},
        "y": {own: y, "The derivative of xy by y is x, not xy.": x * y, "The derivative of xy by y is x, not 1.": 1.0},
    }
    sums = {"It adds; __mul__ multiplies.": x + y}
    demand("__mul__", lambda a, b: a * b, (x, y), x * y, (y, x), product, sums)
    for n in (3, -1, 0.5):
        slips = {
            "The exponent falls by 1: n·x^(n-1).": n * x**n,
            "The factor n is missing: n·x^(n-1).": x ** (n - 1),
            "That is the derivative by n; it is the one by x that is wanted: n·x^(n-1).": x**n * math.log(x),
            "It has n + 1 for n - 1: that is how one integrates.": n * x ** (n + 1),
            "It has (n - 1) for the factor n.": (n - 1) * x ** (n - 1),
        }
        data_slips = {"It multiplies by n; ** is the power.": x * n, "It is n to the power x, turned round.": n**x}
        data_slips["n may be a fraction, such as 0.5: int(n) cuts it off."] = x ** int(n)
        data_slips = {words: value for words, value in data_slips.items() if isinstance(value, float)}
        power = (lambda a, n=n: a**n, (x,), x**n, (n * x ** (n - 1),), {"x": slips}, data_slips)
        demand("__pow__", *power, name=f"x ** {n}")
    demand("__pow__", lambda a: a**2, (0.0,), 0.0, (0.0,), name="x ** 2")
    by_rule = {"e^x is not a power of x: its derivative is e^x itself.": x * math.exp(x - 1)}
    by_rule |= {"The derivative of e^x is e^x, the result, not x.": x, "The derivative of e^x is e^x, not 1.": 1.0}
    by_rule["The derivative is exp(x), which is out.data already; exp(out.data) is exp of exp."] = math.exp(math.exp(x))
    demand("exp", lambda a: a.exp(), (x,), math.exp(x), (math.exp(x),), {"x": by_rule})
    for number, slope in ((x, 1.0), (y, 0.0), (0.0, 0.0)):
        slips = {"Where x > 0 the derivative is 1, not x.": max(number, 0.0)}
        slips["Where x < 0 the result is 0 whatever x is, so the derivative is 0."] = 1.0
        if number == 0:
            slips = {"At exactly 0 the convention is 0: > and not ≥.": 1.0, "At exactly 0 the convention is 0.": 0.5}
        data = {"Negative numbers become 0, they don't turn positive.": -number} if number < 0 else {}
        data |= {"Negative numbers become 0.": number} if number < 0 else {}
        demand("relu", lambda a: a.relu(), (number,), max(0.0, number), (slope,), {"x": slips}, data)
    t = math.tanh(x)
    slips = {
        "The square is missing: 1 − tanh².": 1 - t,
        "1 − x² is not it: x has to go through tanh first; that is out.data.": 1 - x**2,
        "tanh is applied twice: out.data is tanh(x) already.": 1 - math.tanh(t) ** 2,
        "t(1 − t) belongs to the sigmoid; for tanh it is 1 − t².": t * (1 - t),
        "It is 1 − t², not t² − 1.": t**2 - 1,
        "It is 1 − t², not 1 + t².": 1 + t**2,
    }
    data_slips = {"That is the sigmoid.": 1 / (1 + math.exp(-x)), "That is tan; math.tanh is wanted.": math.tan(x)}
    demand("tanh", lambda a: a.tanh(), (x,), t, (1 - t * t,), {"x": slips}, data_slips)

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
        "z * z + (z**2).tanh() * y with z = x * y + x": shared,
    }
    for text, compute in expressions.items():
        mine, theirs = [], []
        for number in (x, y):
            mine.append(learner(number))
            theirs.append(torch.tensor(number, dtype=torch.float64, requires_grad=True))
        root, torch_root = compute(*mine), compute(*theirs)
        torch_root.backward()
        here = f"{text} at x = {x:.3f}, y = {y:.3f}"
        likely = "Each operation alone is right. Do they use other.data, also where a plain number stands on the right?"
        expect.close(root.data, torch_root.item(), why=f"{here}: the number", source="torch", likely=likely)
        root.grad = 1.0
        for value in reversed(_graph_of(root)):
            value.push()
        for letter, value, tensor in zip("xy", mine, theirs, strict=True):
            expected = 0.0 if tensor.grad is None else tensor.grad.item()
            likely = "Each operation alone is right. Is a value used twice? Then push has to add (+=), and to read out.grad when it runs. Is there a plain number? The value beside it gets its share all the same."
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


def _backward(root, order, reset=True, seed=True):
    """What a right backward does with this order, in which each value stands after its parents."""
    for value in order if reset else ():
        value.grad = 0.0
    if seed:
        root.grad = 1.0
    for value in reversed(order):
        value.push()


def _breadth_first(root):
    order, seen = [], {root}
    queue = [root]
    while queue:
        value = queue.pop(0)
        order.insert(0, value)
        for parent in value.parents:
            if parent not in seen:
                seen.add(parent)
                queue.append(parent)
    return order


def adds_to_old_gradients(root):
    """Old gradients are still in it. Before pushing, set grad to 0 for every value of the graph."""
    _backward(root, _graph_of(root), reset=False)


def no_seed(root):
    """Everything is 0: the end has to begin with root.grad = 1, after the others are set to 0."""
    _backward(root, _graph_of(root), seed=False)


def forward_order(root):
    """It pushes from the leaves to the end. A value may push only when all that it was used for have pushed: reversed(order), where order has parents first. (What was put on the stack last comes out first: put the value there, then its parents.)"""
    order = _graph_of(root)
    _backward(root, order[::-1])


def resets_leaves_only(root):
    """Only the leaves are set to 0; what lies between keeps its old gradient."""
    order = _graph_of(root)
    for value in order:
        if not value.parents:
            value.grad = 0.0
    _backward(root, order, reset=False)


def resets_all_but_leaves(root):
    """The leaves keep their old gradients: set grad to 0 for them too."""
    order = _graph_of(root)
    for value in order:
        if value.parents:
            value.grad = 0.0
    _backward(root, order, reset=False)


def breadth_first(root):
    """A value that is near on one path and far on another pushes before its last user has. Is the order level by level? Or is a value marked as visited when it is put on the stack? Mark it when it is taken off."""
    _backward(root, _breadth_first(root))


def appends_before_parents(root):
    """Each value is appended when it is first met, not after its parents: then a value that is met early pushes before all its users have."""
    order, seen, stack = [], set(), [root]
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            order.insert(0, value)
            stack.extend(value.parents)
    _backward(root, order)


def appends_before_parents_in_order(root):
    """Each value is appended when it is first met, not after its parents: then a value that is met early pushes before all its users have."""
    order, seen = [], set()

    def visit(value):
        if value not in seen:
            seen.add(value)
            order.insert(0, value)
            for parent in value.parents:
                visit(parent)

    visit(root)
    _backward(root, order)


def without_visited(root):
    """A value that is reached along two paths is in the list twice, and pushes twice: keep a set of the visited ones."""
    order = []

    def visit(value):
        for parent in value.parents:
            visit(parent)
        order.append(value)

    visit(root)
    _backward(root, order)


def pushes_along_each_path(root):
    """It pushes each value along every path that reaches it: one push for each value, when its gradient is complete."""
    for value in _graph_of(root):
        value.grad = 0.0
    root.grad, stack = 1.0, [root]
    while stack:
        value = stack.pop()
        value.push()
        stack.extend(value.parents)


@exercise(
    hints=[
        "A value met for the first time is not ready for `order`: its parents come first. So put it back on the stack as (value, True), and its parents above it as (parent, False).",
        "In the loop: value, parents_done = stack.pop(). If parents_done: order.append(value). Else, if it is not in visited: add it there, then push the pairs. One visit for each value, however many paths lead to it.",
        "After the loop: for value in order: value.grad = 0.0; then root.grad = 1.0; then for value in reversed(order): value.push().",
    ],
    mistakes=[
        adds_to_old_gradients,
        no_seed,
        forward_order,
        resets_leaves_only,
        resets_all_but_leaves,
        breadth_first,
        appends_before_parents,
        appends_before_parents_in_order,
        without_visited,
        pushes_along_each_path,
    ],
)
def backward(learner, rng):
    def grads(
        root,
        named,
        why,
        expected,
        source,
        silence="Is each value of the graph in the list, and is the whole list used?",
    ):
        result = learner(root)
        expect.true(result is None, "backward sets gradients, and returns nothing", f"yours    {result!r}")
        yours = np.array([value.grad for value in named.values()], float)
        order = _graph_of(root)
        silent = [value for value in order if not value.pushes]
        likely = silence
        if silent == [root]:
            likely = "The root never pushes: it belongs into the list, at its end."
        elif len(silent) == len(order) - 1 and root.pushes:
            likely = "Only the root pushes: its parents have to push too, and theirs."
        expect.true(not silent, f"{why}: every value pushes", f"{len(silent)} of {len(order)} never do", likely=likely)
        often = max(value.pushes for value in order)
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
        likely = "Two values may hold the same number: keep the values themselves in the set, not their data."
        why = f"{side} with u = xy at x = 2, y = 1"
        grads(root, {"u": u, "x": x, "y": y}, why, [2, 4, 4], "by hand: x²y", silence=likely)

    x = _Node(2.0)
    middle = x * x
    root = middle * middle
    middle.grad, x.grad, root.grad = 7.0, 5.0, 11.0
    grads(root, {"root": root, "x²": middle, "x": x}, "x⁴ at 2, with old numbers in every grad", [1, 8, 32], "4x³")
    learner(root)
    yours = np.array([value.grad for value in (root, middle, x)])
    expect.close(yours, [1, 8, 32], why="called twice, it gives the same", source="4x³ at 2, as in the first call")

    x = _Node(1.0)
    used = x * x
    outside = used + x  # computed from it, not the other way round
    outside.grad = 5.0
    learner(used)
    expect.close(
        outside.grad,
        5,
        why="what was computed from root is none of its business: its grad stays",
        source="the value before",
    )

    import torch

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
    for _ in range(5000):
        root = root + x
    try:
        learner(root)
    except RecursionError:
        likely = (
            "A function that calls itself stops at about 1,000 calls. Keep a stack of your own: a list, append and pop."
        )
        expect.true(False, "a chain of 5,000 additions is no problem", "RecursionError", likely=likely)
    expect.close(x.grad, 5001, why="x added to itself 5,000 times", source="5,001 times x")


# ------------------------------------------------------------------------------------------------ gradient_check


def _differences(f, x, h, high=1.0, low=1.0, over=2.0):
    gradient = np.zeros_like(x, dtype=float)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += high * h
        down[i] -= low * h
        gradient[i] = (f(up) - f(down)) / (over * h)
    return gradient


def one_sided(f, x, h=1e-5):
    """That is the one-sided difference. Its error falls with h, not with h²: go h up and h down, over 2h."""
    return _differences(f, x, h, low=0, over=1)


def one_sided_downwards(f, x, h=1e-5):
    """That is the one-sided difference. Its error falls with h, not with h²: go h up and h down, over 2h."""
    return _differences(f, x, h, high=0, over=1)


def over_h(f, x, h=1e-5):
    """From h below to h above it is 2h: divide by 2h."""
    return _differences(f, x, h, over=1)


def half(f, x, h=1e-5):
    """One side is h away, the other 0, and yet it is divided by 2h. Is f(x) there in place of f with the entry h lower?"""
    return _differences(f, x, h, low=0)


def half_steps(f, x, h=1e-5):
    """It goes h/2 up and down. The step is h here: from h below to h above, over 2h."""
    return _differences(f, x, h, 0.5, 0.5, 1)


def turned_round(f, x, h=1e-5):
    """The sign is turned round: f with the entry higher minus f with it lower."""
    return -_differences(f, x, h)


def not_divided(f, x, h=1e-5):
    """The difference is not divided by 2h."""
    return _differences(f, x, h, over=2 / (2 * h))


def multiplied(f, x, h=1e-5):
    """It is multiplied by h: / 2 * h divides by 2, then multiplies. Write / (2 * h)."""
    return _differences(f, x, h) * h * h


def own_step(f, x, h=1e-5):
    """The step is always 1e-5: use the argument h."""
    return _differences(f, x, 1e-5)


def all_at_once(f, x, h=1e-5):
    """All entries move at once: that adds the derivatives up. One entry moves, the others stay."""
    return np.full(x.shape, (f(x + h) - f(x - h)) / (2 * h))


def not_put_back(f, x, h=1e-5):
    """Entries that were moved before are not put back: begin with x as it came for each entry."""
    x, gradient = x.copy(), np.zeros_like(x)
    for i in np.ndindex(x.shape):
        x[i] += h
        up = f(x)
        x[i] -= 2 * h
        gradient[i] = (up - f(x)) / (2 * h)
    return gradient


def first_axis_only(f, x, h=1e-5):
    """It goes along the first axis only, so that a whole row moves at once. np.ndindex(x.shape) goes over all entries."""
    gradient = np.zeros_like(x)
    for i in range(len(x)):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        gradient[i] = (f(up) - f(down)) / (2 * h)
    return gradient


def first_entry_only(f, x, h=1e-5):
    """Only the first entry is there: `return` stands inside the loop. Move it to the left, below the loop."""
    gradient = _differences(f, x, h)
    gradient.flat[1:] = 0
    return gradient


def one_array(f, x, h=1e-5):
    """Every entry is 0: are `up` and `down` two names of one array, so that + h and - h cancel? Each is a copy of its own."""
    return np.zeros(x.shape)


@exercise(
    hints=[
        "Begin with gradient = np.zeros_like(x). `for i in np.ndindex(x.shape):` gives each index as a tuple, whatever the number of axes; x[i] takes it.",
        "For each entry two copies of x: in one the entry is h higher, in the other h lower. x.copy() leaves the caller's array alone.",
        "up, down = x.copy(), x.copy(); up[i] += h; down[i] -= h; gradient[i] = (f(up) - f(down)) / (2 * h). After the loop, return gradient.",
    ],
    mistakes=[
        one_sided,
        one_sided_downwards,
        over_h,
        half,
        half_steps,
        turned_round,
        not_divided,
        multiplied,
        own_step,
        all_at_once,
        not_put_back,
        first_axis_only,
        first_entry_only,
        one_array,
    ],
)
def gradient_check(learner, rng):
    x = rng.uniform(0.5, 2, size=(2, 3))
    weights = rng.uniform(1, 3, size=(2, 3))
    # of a cubic the central difference is 3wx² + wh² exactly, so that every other formula shows
    given = learner(lambda v: float((weights * v**3).sum() + v.prod()), x, 0.1)
    expected = 3 * weights * x**2 + weights * 0.01 + x.prod() / x
    expect.close(
        given,
        expected,
        why="Σ w·x³ + Πx for x (2, 3), with the large step h = 0.1",
        source="3wx² + wh² + Πx/x: the central difference, by hand",
    )
    given = learner(lambda v: float(np.sin(v).sum()), x)
    near = np.shape(given) == x.shape and np.allclose(_numbers(given), np.cos(x), atol=0.1)
    expect.close(
        given,
        np.cos(x),
        why="the sum of sin, with the step that is the default",
        source="its derivative, cos",
        rtol=0,
        atol=1e-8,
        likely="The default step is in the signature: h=1e-5. Is it as it was?" if near else "",
    )
    one = np.array([0.7])
    expect.close(learner(lambda v: float(np.exp(v[0])), one), np.exp(one), why="one entry", source="exp", rtol=1e-7)
    cube = rng.normal(size=(4, 1, 2)).T
    given = learner(lambda v: float((v**2).sum()), cube)
    likely = "x.ravel() and x.reshape(-1) of a transposed array are copies: what is written there never reaches x. Write x[i]."
    likely = likely if not _numbers(given).any() else ""
    why = "Σ x² for x (2, 1, 4), a transposed array"
    expect.close(given, 2 * cube, why=why, source="2x", rtol=1e-6, likely=likely)
    lone = np.array(1.5)
    likely = "np.ndindex(()) gives one index, (): with it an array without axes needs no case of its own."
    given = learner(lambda v: float(v**2), lone)
    expect.close(given, 3.0, why="x² for x of shape ()", source="2x", rtol=1e-6, likely=likely)


# ------------------------------------------------------------------------------------------------ unbroadcast


def front_only(gradient, shape):
    """Axes of length 1 were stretched, too: sum over them, with keepdims=True so that they stay with length 1."""
    return gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))


def takes_the_first(gradient, shape):
    """It picks one of the repetitions. All of them count: their gradients add up."""
    gradient = gradient[(0,) * (gradient.ndim - len(shape))]
    return gradient[tuple(slice(0, 1) if size == 1 else slice(None) for size in shape)]


def averages(gradient, shape):
    """It averages. A value that is used n times gets n contributions, and they add up: sum, not mean."""
    gradient = gradient.mean(axis=tuple(range(gradient.ndim - len(shape))))
    return gradient.mean(axis=tuple(i for i, size in enumerate(shape) if size == 1), keepdims=True)


def last_axes(gradient, shape):
    """It sums over the last axes. Broadcasting adds axes in front: shapes are aligned at the right."""
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - extra, gradient.ndim)))
    return gradient.sum(axis=tuple(i for i, size in enumerate(shape) if size == 1), keepdims=True)


def one_front_axis(gradient, shape):
    """It takes off one axis at most. There may be several in front."""
    gradient = gradient.sum(axis=0) if gradient.ndim > len(shape) else gradient
    ones = tuple(i for i, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=ones, keepdims=True) if len(ones) <= gradient.ndim else gradient


def drops_ones(gradient, shape):
    """The axes of length 1 have gone: keepdims=True keeps them."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    return gradient.sum(axis=tuple(i for i, size in enumerate(shape) if size == 1))


def keeps_front(gradient, shape):
    """The axes in front have to go; keepdims belongs to the axes of length 1 only."""
    extra = gradient.ndim - len(shape)
    ones = tuple(i + extra for i, size in enumerate(shape) if size == 1)
    return gradient.sum(axis=(*range(extra), *ones), keepdims=True)


def sums_everything(gradient, shape):
    """It adds everything up and spreads the total. Sum only over what was repeated."""
    return np.full(shape, gradient.sum())


def reshapes(gradient, shape):
    """It cuts a piece out of the array, or reorders it. Nothing may be lost: the repetitions are summed."""
    return gradient.ravel()[: int(np.prod(shape))].reshape(shape)


def folds(gradient, shape):
    """reshape(-1, *shape) cuts the array as if axes had been added in front only. Along a stretched axis of length 1 the sum runs where that axis stands."""
    return gradient.reshape(-1, *shape).sum(axis=0)


def either_or(gradient, shape):
    """It sums over the axes in front or over those of length 1. There may be both: one after the other."""
    if gradient.ndim > len(shape):
        return front_only(gradient, shape)
    return drops_ones(gradient, shape).reshape(shape)


def one_of_the_ones(gradient, shape):
    """It sums over one axis of length 1. There may be several."""
    gradient = front_only(gradient, shape)
    return gradient.sum(axis=shape.index(1), keepdims=True) if 1 in shape else gradient


@exercise(
    hints=[
        "Shapes are aligned at the right. How many axes does the gradient have more than `shape`? Those stand in front; sum over them.",
        "gradient.sum(axis=(0, 1)) sums over two axes; with an empty tuple it sums over none. extra = gradient.ndim - len(shape).",
        "gradient = gradient.sum(axis=tuple(range(extra))); ones = tuple(i for i, n in enumerate(shape) if n == 1); return gradient.sum(axis=ones, keepdims=True).",
    ],
    mistakes=[
        front_only,
        takes_the_first,
        averages,
        last_axes,
        one_front_axis,
        drops_ones,
        keeps_front,
        sums_everything,
        reshapes,
        folds,
        either_or,
        one_of_the_ones,
    ],
)
def unbroadcast(learner, rng):
    import torch

    def demand(shape, big):
        gradient = rng.normal(size=big)
        leaf = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
        leaf.broadcast_to(big).backward(torch.tensor(gradient))
        why = f"the gradient of an array {shape} that was broadcast to {big}"
        given = learner(gradient, shape)
        expect.shape(given, shape, why)
        expect.close(given, leaf.grad.numpy(), why=why, source="torch.autograd")

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
        ((2, 3), (2, 3)),
        ((1, 3), (1, 3)),
        ((5, 1, 2), (5, 1, 2)),
    ):
        demand(shape, big)


# ------------------------------------------------------------------------------------------------ linear_backward


def _linear_slips(given, dZ, X, W, name):
    B = len(X)
    tables = {
        "dX": {
            "": lambda: dZ @ W,
            "W is not transposed in dX = dZ W: it was in the forward pass.": lambda: dZ @ W.T,
            "That is X Wᵀ, the forward pass; dX = dZ W.": lambda: X @ W.T,
            "It is transposed.": lambda: (dZ @ W).T,
        },
        "dW": {
            "": lambda: dZ.T @ X,
            "It is transposed: dW has the shape of W, (out, in), so dZᵀ X.": lambda: X.T @ dZ,
            "The batch is not summed: the matrix product dZᵀ X does it.": lambda: dZ[:, :, None] * X[:, None],
            "It is one example's: the matrix product dZᵀ X sums over all.": lambda: np.outer(dZ[0], X[0]),
        },
        "db": {
            "": lambda: dZ.sum(0),
            "It sums over the outputs; the batch is axis 0.": lambda: dZ.sum(1),
            "The sum over the batch is missing: b was repeated for each row.": lambda: dZ,
            "It is the mean over the batch: contributions add up.": lambda: dZ.mean(0),
            "It adds everything up: one number for each output is wanted.": lambda: dZ.sum(),
            "It keeps the axis of the batch: db is (out,), like b.": lambda: dZ.sum(0, keepdims=True),
            "b is added to Z, but its gradient is no row of ones: it is the sum of dZ's rows.": lambda: np.full(
                dZ.shape[1], float(B)
            ),
        },
    }
    scale = {
        "": 1.0,
        "It is divided by B. The 1/B of the mean is in dZ already: once is enough.": 1 / B,
        "It is multiplied by B.": B,
        "The sign is turned round.": -1.0,
    }
    return _slips(given, lambda factor, make: make() * factor, scale, tables[name])


@exercise(
    hints=[
        "Each gradient has the shape of what it belongs to: dX as X (B, in), dW as W (out, in), db (out,). Which product of dZ (B, out) fits?",
        "dX from (B, out) times (out, in). dW from (out, B) times (B, in): transpose dZ. db: b was repeated for each of the B rows, so sum over them.",
        "dX = dZ @ W; dW = dZ.T @ X; db = dZ.sum(axis=0), or unbroadcast(dZ, (len(W),)); return dX, dW, db.",
    ],
)
def linear_backward(learner, rng):
    import torch

    for B, n_in, n_out in ((4, 3, 5), (3, 3, 3), (1, 2, 4), (4, 3, 1)):
        X, W, b, dZ = (rng.normal(size=shape) for shape in ((B, n_in), (n_out, n_in), n_out, (B, n_out)))
        leaves = [torch.tensor(values, requires_grad=True) for values in (X, W, b)]
        torch.nn.functional.linear(*leaves).backward(torch.tensor(dZ))
        given = expect.parts(learner(dZ, X, W), ("dX", "dW", "db"), "three gradients come back")
        shapes = [_numbers(part).shape for part in given]
        wanted = [X.shape, W.shape, b.shape]
        if shapes != wanted and sorted(shapes) == sorted(wanted):
            expect.true(
                False,
                "the gradients come in the order dX, dW, db",
                f"your shapes    {shapes}",
                f"expected       {wanted}",
                likely="They are all there, in another order.",
            )
        for name, part, leaf in zip(("dX", "dW", "db"), given, leaves, strict=True):
            likely = _linear_slips(part, dZ, X, W, name)
            why = f"{name} for B = {B}, in = {n_in}, out = {n_out}"
            expect.close(part, leaf.grad.numpy(), why=why, source="torch.autograd of F.linear", likely=likely)


# ------------------------------------------------------------------------------------------------ softmax_cross_entropy_backward


def _p(Z, axis=1):
    E = np.exp(Z - Z.max(axis=axis, keepdims=True))
    return E / E.sum(axis=axis, keepdims=True)


def _one_hot(Z, y):
    return np.eye(Z.shape[1])[y]


def not_divided_by_B(Z, y):
    """Each row is right, but the loss is a mean over the B rows: divide by B."""
    return _p(Z) - _one_hot(Z, y)


def divided_by_K(Z, y):
    """It is divided by the number of classes; the mean is over the B rows."""
    return (_p(Z) - _one_hot(Z, y)) / Z.shape[1]


def divided_by_BK(Z, y):
    """It is divided by all B·K entries (.mean(), .size?); the mean is over the B rows."""
    return (_p(Z) - _one_hot(Z, y)) / Z.size


def probabilities_only(Z, y):
    """The truth is not subtracted: it is p − y, with 1 taken off at the right class."""
    return _p(Z) / len(y)


def y_minus_p(Z, y):
    """The sign is turned round: p − y. Gradient descent subtracts it, and then the right class's logit rises."""
    return (_one_hot(Z, y) - _p(Z)) / len(y)


def over_the_batch(Z, y):
    """Softmax runs over the batch here. Each row, an example, has to add up to 1: axis=1."""
    return (_p(Z, 0) - _one_hot(Z, y)) / len(y)


def over_everything(Z, y):
    """Softmax runs over the whole array. Each row, an example, has to add up to 1: axis=1, keepdims=True."""
    return (_p(Z, None) - _one_hot(Z, y)) / len(y)


def total_of_all_rows(Z, y):
    """It divides by the sum over the whole array. Each row has its own sum: axis=1, keepdims=True."""
    E = np.exp(Z - Z.max(axis=1, keepdims=True))
    return (E / E.sum() - _one_hot(Z, y)) / len(y)


def shifted_by_columns(Z, y):
    """It subtracts each column's maximum. Only a shift that is the same along a row cancels: axis=1, keepdims=True."""
    return (_p(Z - Z.max(axis=0)) - _one_hot(Z, y)) / len(y)


def columns_everywhere(Z, y):
    """P[:, y] takes these columns in every row. One entry for each row is wanted: P[np.arange(B), y]."""
    P = _p(Z)
    P[:, y] -= 1
    return P / len(y)


def class_number_subtracted(Z, y):
    """The class's number is subtracted. y stands for 1 at the right class, 0 elsewhere."""
    return (_p(Z) - y[:, None]) / len(y)


def logits_minus_truth(Z, y):
    """Softmax is missing: p − y, not z − y."""
    return (Z - _one_hot(Z, y)) / len(y)


def divided_before(Z, y):
    """Only p is divided by B, the 1 at the right class is not: (p − y) / B needs its brackets."""
    return _p(Z) / len(y) - _one_hot(Z, y)


def truth_divided(Z, y):
    """Only the 1 at the right class is divided by B, p is not: (p − y) / B needs its brackets."""
    return _p(Z) - _one_hot(Z, y) / len(y)


def of_the_logarithm(Z, y):
    """That is −1/p at the right class, the gradient by p. By the logits, with softmax in between, it is p − y."""
    return -_one_hot(Z, y) / _p(Z) / len(y)


def squared_error(Z, y):
    """That is the gradient of a squared error through softmax: p(1 − p) cancels with cross-entropy, and p − y is left."""
    P = _p(Z)
    return (P - _one_hot(Z, y)) * P * (1 - P) / len(y)


def right_class_only(Z, y):
    """Only the right class gets a gradient. The others have p: they have to fall."""
    return (_p(Z) - 1) * _one_hot(Z, y) / len(y)


@exercise(
    hints=[
        "You wrote softmax in the last workshop: E = np.exp(Z - Z.max(axis=1, keepdims=True)), then divide each row by its sum.",
        "P[np.arange(len(y)), y] picks one entry of each row, the right class. Subtract 1 there.",
        "dZ = E / E.sum(axis=1, keepdims=True); dZ[np.arange(len(y)), y] -= 1; return dZ / len(y).",
    ],
    mistakes=[
        not_divided_by_B,
        divided_by_K,
        divided_by_BK,
        probabilities_only,
        y_minus_p,
        over_the_batch,
        over_everything,
        total_of_all_rows,
        shifted_by_columns,
        columns_everywhere,
        class_number_subtracted,
        logits_minus_truth,
        divided_before,
        truth_divided,
        of_the_logarithm,
        squared_error,
        right_class_only,
    ],
)
def softmax_cross_entropy_backward(learner, rng):
    import torch

    def demand(Z, y, why, **more):
        leaf = torch.tensor(Z, requires_grad=True)
        torch.nn.functional.cross_entropy(leaf, torch.tensor(y)).backward()
        expect.close(learner(Z, y), leaf.grad.numpy(), why=why, source="torch.autograd of cross_entropy", **more)

    demand(rng.normal(size=(4, 3)), np.array([2, 0, 2, 1]), "4 random rows, 3 classes")
    demand(rng.normal(size=(3, 3)), np.array([1, 1, 0]), "3 rows, 3 classes")
    given = learner(np.array([[2.0, 1, 0]]), np.array([1]))
    expect.close(given, [[0.6652, -0.7553, 0.09]], why="the example above", source="by hand", atol=1e-4)
    likely = "exp overflows: subtract each row's maximum from the row first. The probabilities stay the same."
    for size in (1000.0, -1000.0):
        Z = size + rng.normal(size=(2, 4))
        with np.errstate(all="ignore"):
            bad = not np.isfinite(_numbers(learner(Z, np.array([0, 3])))).all()
        demand(Z, np.array([0, 3]), f"logits near {size:g}", likely=likely if bad else "")
    likely = "One maximum for the whole array does not help a row that lies far below it: subtract each row's own, axis=1, keepdims=True."
    demand(
        np.array([[1000.0, 0, 3], [-1000, -1001, -999]]), np.array([1, 0]), "one row far above the other", likely=likely
    )


# ------------------------------------------------------------------------------------------------ mlp_gradients


def _near(a, b):
    return a.shape == b.shape and np.allclose(a, b, 1e-5, 1e-9)


def _mlp(X, y, layers, *, mask=True, mask_last=False, relu_last=False, per_layer=1.0, scale=None, order=-1):
    """The right gradients, and what happens to them where a mistake below says so."""
    B, inputs = len(y), [X]
    for n, (W, b) in enumerate(layers):
        Z = inputs[-1] @ W.T + b
        inputs.append(np.maximum(0, Z) if n < len(layers) - 1 or relu_last else Z)
    Z = inputs.pop()
    m = Z.max(axis=1, keepdims=True)
    loss = float((np.log(np.exp(Z - m).sum(axis=1)) + m[:, 0] - Z[np.arange(B), y]).mean())
    d = (_p(Z) - _one_hot(Z, y)) / (scale or B)
    gradients = []
    for n in range(len(layers) - 1, -1, -1):
        if (relu_last or mask_last) and n == len(layers) - 1:
            d = d * (Z > 0)
        A = inputs[n]
        gradients.append((d.T @ A * per_layer, d.sum(0) * per_layer))
        d = d @ layers[n][0]
        if n and mask:
            d = d * (A > 0)
    return loss, gradients[::order]


def no_mask(X, y, layers):
    """ReLU's mask is missing on the way back: a hidden entry that was cut to 0 passes no gradient. dA * (A > 0)."""
    return _mlp(X, y, layers, mask=False)


def last_first(X, y, layers):
    """The last layer's gradients come first: backward finds them in this order; turn the list round at the end."""
    return _mlp(X, y, layers, order=1)


def divides_in_every_layer(X, y, layers):
    """It divides by B in each layer once more. The 1/B of the mean is in p − y already, and the chain rule carries it down."""
    return _mlp(X, y, layers, per_layer=1 / len(y))


def sum_for_mean(X, y, layers):
    """The gradients are those of the sum over the batch; the loss is the mean: divide p − y by B."""
    return _mlp(X, y, layers, scale=1)


def relu_at_the_end(X, y, layers):
    """The last layer has a ReLU here. Its outputs, the logits, stay as they are."""
    return _mlp(X, y, layers, relu_last=True)


def summed_loss(X, y, layers):
    """The loss is the sum over the batch; the mean is wanted."""
    loss, gradients = _mlp(X, y, layers)
    return loss * len(y), gradients


def logits_masked(X, y, layers):
    """ReLU's mask is applied at the logits too. The last layer has no ReLU: p − y goes into linear_backward as it is."""
    return _mlp(X, y, layers, mask_last=True)


def turned_signs(X, y, layers):
    """The signs are turned round: the gradient points uphill, and gradient descent subtracts it."""
    loss, gradients = _mlp(X, y, layers)
    return loss, [(-dW, -db) for dW, db in gradients]


def descends_already(X, y, layers):
    """It gives back changed weights. Gradients are wanted; whoever calls takes the step."""
    loss, gradients = _mlp(X, y, layers)
    return loss, [(W - dW, b - db) for (W, b), (dW, db) in zip(layers, gradients, strict=True)]


def pairs_swapped(X, y, layers):
    """Each pair is turned round: (dW, db), in the order of (W, b)."""
    loss, gradients = _mlp(X, y, layers)
    return loss, [(db, dW) for dW, db in gradients]


def no_biases(X, y, layers):
    """The biases are missing in the forward pass: Z = A Wᵀ + b."""
    return _mlp(X, y, [(W, 0 * b) for W, b in layers])


def no_hidden_relu(X, y, layers):
    """There is no ReLU between the layers, neither forward nor backward."""
    inputs = [X]
    for W, b in layers:
        inputs.append(inputs[-1] @ W.T + b)
    Z = inputs.pop()
    loss = _mlp(Z, y, [(np.eye(Z.shape[1]), np.zeros(Z.shape[1]))])[0]
    gradients, d = [], (_p(Z) - _one_hot(Z, y)) / len(y)
    for (W, _), A in zip(reversed(layers), reversed(inputs), strict=True):
        gradients.append((d.T @ A, d.sum(0)))
        d = d @ W
    return loss, gradients[::-1]


@exercise(
    hints=[
        "Forward: a list `inputs` that begins with X; after each hidden layer append np.maximum(0, inputs[-1] @ W.T + b). The last layer's Z are the logits.",
        "Backward: dZ = softmax_cross_entropy_backward(Z, y). Then from the last layer to the first: dA, dW, db = linear_backward(dZ, A, W) with A the layer's input; keep (dW, db); dZ = dA * (A > 0) for the layer below.",
        "for (W, _), A in zip(reversed(layers), reversed(inputs)): ... and at the end gradients[::-1]. The loss: m = Z.max(axis=1); (m + np.log(np.exp(Z - m[:, None]).sum(axis=1)) - Z[np.arange(len(y)), y]).mean().",
    ],
)
def mlp_gradients(learner, rng):
    import torch

    known = (no_mask, last_first, divides_in_every_layer, sum_for_mean, relu_at_the_end, turned_signs)
    known = (*known, logits_masked, descends_already, pairs_swapped, no_hidden_relu)

    def likely_of(gradients, X, y, layers):
        """The known mistake whose gradients these are."""
        flat = [_numbers(array_) for layer in gradients for array_ in layer]
        right = [array_ for layer in _mlp(X, y, layers)[1] for array_ in layer]
        for mistake in known:
            theirs = [array_ for layer in mistake(X, y, layers)[1] for array_ in layer]
            fits = len(flat) == len(theirs) and all(map(_near, flat, theirs))
            if fits and not all(map(_near, theirs, right)):
                return " ".join(mistake.__doc__.split())
        return ""

    def demand(widths, B, why, shift=0.0, black=False, of_loss="", of_gradients=""):
        X = rng.normal(size=(B, widths[0]))
        y = rng.integers(widths[-1], size=B)
        layers = [
            (rng.normal(size=(n_out, n_in)), rng.normal(size=n_out)) for n_in, n_out in itertools.pairwise(widths)
        ]
        W, b = layers[-1]
        layers[-1] = (W, b + shift)
        if black:
            X[:2], layers[0] = 0, (layers[0][0], np.zeros(widths[1]))
        tensors = [[torch.tensor(values, requires_grad=True) for values in layer] for layer in layers]
        A = torch.tensor(X)
        for n, (W, b) in enumerate(tensors):
            A = torch.nn.functional.linear(A if n == 0 else torch.relu(A), W, b)
        torch_loss = torch.nn.functional.cross_entropy(A, torch.tensor(y))
        torch_loss.backward()
        loss, gradients = expect.parts(learner(X, y, layers), ("loss", "gradients"), "loss and gradients come back")
        if _numbers(loss).ndim == 0 and isinstance(gradients, list | tuple):
            slip = next(
                (
                    " ".join(mistake.__doc__.split())
                    for mistake in (summed_loss, relu_at_the_end, no_hidden_relu, no_biases)
                    if np.isclose(_numbers(loss), wrong := mistake(X, y, layers)[0])
                    and not np.isclose(wrong, torch_loss.item())
                ),
                "",
            )
            if not slip and not np.isfinite(_numbers(loss)).all():
                slip = "exp overflowed, or the logarithm met 0: shift each row by its maximum, log-sum-exp."
            slip = slip or of_loss
        elif _numbers(loss).shape == y.shape:
            slip = "That is one loss for each example; the mean over the batch is wanted."
        else:
            slip = "First the loss, a number, then the list of gradients."
        expect.close(loss, torch_loss.item(), why=f"{why}: the loss", source="F.cross_entropy", likely=slip)
        count = len(gradients) if isinstance(gradients, list | tuple) else 0
        expect.true(
            count == len(layers) and all(isinstance(g, list | tuple) and len(g) == 2 for g in gradients),
            f"{why}: one pair (dW, db) for each layer",
            f"yours    {count} entries",
            f"expected {len(layers)} pairs",
            likely=(
                "linear_backward gives dX too: keep (dW, db) only."
                if count == len(layers) and all(isinstance(g, list | tuple) for g in gradients)
                else "Each entry of the list is a pair, (dW, db), for one layer."
            ),
        )
        likely = likely_of(gradients, X, y, layers)
        for n in range(len(layers) - 1, -1, -1):  # from the end: where backward begins
            for name, part, leaf in zip(("dW", "db"), gradients[n], tensors[n], strict=True):
                note = likely or of_gradients
                if not note and n < len(layers) - 1:
                    note = f"The layers after it are right. Look at what reaches layer {n + 1}: dA of the layer above, masked by its own input A > 0."
                expect.close(
                    part,
                    leaf.grad.numpy(),
                    why=f"{why}: {name} of layer {n + 1} of {len(layers)}",
                    source="torch.autograd",
                    likely=note,
                )

    demand((4, 5, 3), 6, "two layers, 4 → 5 → 3, B = 6")
    demand((4, 6, 5, 3), 7, "three layers, 4 → 6 → 5 → 3, B = 7")
    demand((3, 2), 4, "one layer, 3 → 2, B = 4: no ReLU at all")
    demand((3, 4, 3, 4, 2), 1, "four layers, B = 1")
    demand((4, 5, 3), 6, "logits near 1000", shift=1000.0)
    likely = "A logarithm of p is cut off where p is nearly 0: log-sum-exp needs no p, and no small number beside it."
    demand((4, 5, 3), 6, "logits far apart", shift=np.array([1000.0, 0, -1000]), of_loss=likely)
    likely = "At exactly 0 ReLU passes nothing: the mask is Z > 0, not Z ≥ 0."
    demand((4, 5, 3), 6, "two black images, biases 0, so that Z is exactly 0", black=True, of_gradients=likely)


# ------------------------------------------------------------------------------------------------ momentum_step


def _step(W, g, V, eta, mu, *, damp=1.0, new=True, sign=-1.0, nesterov=False):
    moved = mu * V + damp * g
    direction = g + mu * moved if nesterov else moved if new else V
    return W + sign * eta * direction, moved


def damped(W, g, V, eta, mu):
    """That is V = μV + (1 − μ)g, an average. PyTorch's convention, and ours, adds the whole gradient."""
    return _step(W, g, V, eta, mu, damp=1 - mu)


def eta_twice(W, g, V, eta, mu):
    """η is in V and in the step once more. In our convention V has no η: V = μV + g."""
    return _step(W, g, V, eta, mu, damp=eta)


def eta_in_velocity(W, g, V, eta, mu):
    """η is inside V here. That is another convention: ours is V = μV + g, and η only in W − ηV."""
    V = mu * V + eta * g
    return W - V, V


def velocity_downhill(W, g, V, eta, mu):
    """V = μV − ηg with W + V is another convention. Ours is V = μV + g, and η only in W − ηV."""
    V = mu * V - eta * g
    return W + V, V


def old_velocity(W, g, V, eta, mu):
    """W moves by the old V: first the new one, V = μV + g, then W − ηV with it."""
    return _step(W, g, V, eta, mu, new=False)


def uphill(W, g, V, eta, mu):
    """W goes uphill: subtract ηV."""
    return _step(W, g, V, eta, mu, sign=1.0)


def nesterov(W, g, V, eta, mu):
    """That is Nesterov's step, which looks ahead. It comes in optimization-sgd-adam; here W − ηV."""
    return _step(W, g, V, eta, mu, nesterov=True)


def no_momentum(W, g, V, eta, mu):
    """W moves by the gradient alone, and V has no part in it: W − ηV, with the new V."""
    return W - eta * g, mu * V + g


def forgets_mu(W, g, V, eta, mu):
    """V never forgets: the factor μ is missing in V = μV + g."""
    return _step(W, g, V, eta, 1.0)


def forgets_eta(W, g, V, eta, mu):
    """The learning rate is missing: W − ηV."""
    return _step(W, g, V, 1.0, mu)


def mu_on_the_gradient(W, g, V, eta, mu):
    """μ multiplies the gradient too: V = μV + g, not μ(V + g)."""
    return _step(W, g, V, eta, mu, damp=mu)


def mu_on_the_wrong_one(W, g, V, eta, mu):
    """μ multiplies the gradient in place of the old velocity: V = μV + g."""
    V = V + mu * g
    return W - eta * V, V


def own_mu(W, g, V, eta, mu):
    """μ is always 0.9 here: use the argument mu."""
    return _step(W, g, V, eta, 0.9)


def letters_swapped(W, g, V, eta, mu):
    """η and μ are swapped: V = μV + g, then W − ηV."""
    return _step(W, g, V, mu, eta)


def never_updated(W, g, V, eta, mu):
    """V stays as it was: V = μV + g comes first, then W − ηV."""
    return W - eta * V, V


def gradient_on_top(W, g, V, eta, mu):
    """W subtracts the gradient once more beside V: it is in V already."""
    V = mu * V + g
    return W - eta * (V + g), V


def velocity_not_returned(W, g, V, eta, mu):
    """The old V comes back: the next step needs the new one."""
    return W - eta * (mu * V + g), V


def velocity_zeroed(W, g, V, eta, mu):
    """V begins at 0 in every call; use the V that was given."""
    return W - eta * g, g


@exercise(
    hints=[
        "Two lines, in this order: the new velocity from the old one and the gradient, then the new weights from the new velocity.",
        "V = mu * V + g makes a new array; V *= mu would change the caller's.",
        "V = mu * V + g; return W - eta * V, V.",
    ],
    mistakes=[
        damped,
        eta_twice,
        eta_in_velocity,
        velocity_downhill,
        old_velocity,
        uphill,
        nesterov,
        no_momentum,
        forgets_mu,
        forgets_eta,
        mu_on_the_gradient,
        mu_on_the_wrong_one,
        own_mu,
        letters_swapped,
        never_updated,
        gradient_on_top,
        velocity_not_returned,
        velocity_zeroed,
    ],
)
def momentum_step(learner, rng):
    import torch

    def step(W, g, V, eta, mu):
        result = expect.parts(learner(W, g, V, eta, mu), ("W", "V"), "the step returns the weights and the velocity")
        for name, part in zip("WV", result, strict=True):
            expect.shape(part, np.shape(W), f"{name} keeps its shape")
        return result

    W, g, V = (rng.normal(size=(2, 3)) for _ in range(3))
    eta, mu = 0.3, 0.8
    new_W, new_V = step(W, g, V, eta, mu)
    entries = [[mu * v + d for v, d in zip(*rows, strict=True)] for rows in zip(V, g, strict=True)]
    moved = [[w - eta * v for w, v in zip(*rows, strict=True)] for rows in zip(W, entries, strict=True)]
    if np.allclose(array(new_W), entries) and np.allclose(array(new_V), moved):
        expect.true(False, "the weights come first, then the velocity", likely="It returns (V, W).")
    both = np.stack([array(new_W), array(new_V)])
    why, source = "one step: the new W above the new V", "the rule, entry by entry"
    expect.close(both, np.stack([moved, entries]), why=why, source=source)
    given = step(np.array([1.0]), np.array([2.0]), np.array([0.5]), 0.1, 0.9)
    expect.close(np.concatenate(given), [0.755, 2.45], why="the example in the notebook: W, V", source="by hand")

    parameter = torch.tensor(W, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.05, momentum=0.9)
    mine, velocity = W, np.zeros_like(W)
    for n in range(1, 7):
        gradient = np.cos(3 * mine) + 2 * mine  # depends on W: an error grows
        mine, velocity = step(mine, gradient, velocity, 0.05, 0.9)
        optimizer.zero_grad()
        (torch.sin(3 * parameter) / 3 + parameter**2).sum().backward()
        optimizer.step()
        expect.close(mine, parameter.detach().numpy(), why=f"W after {n} steps on a function", source="torch.optim.SGD")
    mine, _ = step(W, g, V, eta, 0.0)
    expect.close(mine, W - eta * g, why="with μ = 0 it is plain gradient descent", source="W − ηg")
