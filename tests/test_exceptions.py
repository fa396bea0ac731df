"""What a learner reads whose code ends in an exception, or does what Python takes without a word.

Each cell is written as a learner writes it. The message names what happened, and nothing that is not in the cell.
"""

import linecache
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from atlas.checking import exercise, expect, place, run_check
from atlas.checking.advice import advice, said

CELLS = iter(range(1_000_000))


def cell(source, name="f"):
    """What a notebook's cell defines under `name`."""
    file = f"/tmp/ipykernel_1/{next(CELLS)}.py"
    text = textwrap.dedent(source).strip() + "\n"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    names = {"np": np, "torch": torch, "nn": nn, "__name__": "__main__"}
    exec(compile(text, file, "exec"), names)
    return names[name]


def message(source, name="f", inputs=None):
    """The report on the function f (or the class Model) of a cell, which is called with x (3, 5)."""
    x = np.arange(15.0).reshape(3, 5) if inputs is None else inputs

    def check(learner, rng):
        made = learner() if name == "Model" else learner
        result = made.run(x) if name == "Model" else made(x)
        expect.close(result, np.array([7.0, 3.0, -2.0]), why="it must be right", source="by hand")

    check.__name__ = name
    outcome = run_check(exercise(hints=["."], seconds=1.5)(check), cell(source, name))  # a busy machine computes slowly
    assert outcome.status == "failed", outcome.text()
    return outcome.text()


SLIPS = {
    # what Python calls its own, overwritten
    "sum overwritten in the notebook": (
        """
        sum = 0
        def f(x):
            return sum(x)
        """,
        "`sum` is an int (0) here and no longer Python's own, for a line gave it that value: give that variable another"
        " name; `del sum` in a cell brings Python's own back.",
    ),
    "list overwritten in the function": (
        """
        def f(x):
            list = [1, 2]
            return list(x)
        """,
        (
            "`list` is a list ([1, 2]) here and no longer Python's own, for a line "
            "gave it that value: give that variable another name."
        ),
    ),
    "max read before it is overwritten": (
        """
        def f(x):
            max = max(x[0])
            return max
        """,
        "`max` gets a value in this function, so that in all of it `max` is no longer Python's own",
    ),
    # names
    "a global that is counted up": (
        """
        count = 0
        def f(x):
            count += 1
            return x
        """,
        "`count` gets a value in this function, so that Python takes it for the function's own in all of it, and does"
        " not see the one outside",
    ),
    "a sum without its beginning": (
        """
        def f(x):
            for row in x:
                total += row.sum()
            return total
        """,
        "`total` is counted up before it has a value: is a line such as `total = 0` missing before?",
    ),
    "lines in the wrong order": (
        """
        def f(x):
            y = mean + 1
            mean = x.mean(1)
            return y
        """,
        "`mean` gets its value only further down, in line 3",
    ),
    "a value on one branch only": (
        """
        def f(x):
            if x.ndim == 1:
                y = x
            return y
        """,
        "`y` gets its value on some paths only",
    ),
    "a slip of the pen": (
        """
        def f(x):
            hidden = x.sum(1)
            return hiden
        """,
        "There is `hidden`: is `hiden` a slip of the pen?",
    ),
    "nothing imported": (
        """
        def f(x):
            return plt.plot(x)
        """,
        "Nothing of the name plt is imported: has the cell with `import matplotlib.pyplot as plt` been run?",
    ),
    "another language's true": ("def f(x): return true", "Python writes True."),
    "a name from nowhere": ("def f(x): return zzz", "Is it spelt as in the signature?"),
    # calls
    "an array called": ("def f(x): return x(0)", "`x` is an array (3, 5) float64: square brackets take entries out"),
    "a shape called": (
        "def f(x): return x.shape(0)",
        "`x.shape` is a tuple ((3, 5)): square brackets take entries out",
    ),
    "a product without its sign": ("def f(x): return (x + 1)(x - 1)", "is a * missing between both?"),
    "a number called": (
        "def f(x):\n    k = 2\n    return k(x)",
        "`k` is an int (2), and the parenthesis after it calls it",
    ),
    "a module called": ("def f(x): return np(x)", "`np` is a module: which of its functions is meant?"),
    "an instance called": (
        """
        class Net: pass
        net = Net()
        def f(x): return net()
        """,
        "`net` is an instance of Net already, and that has no __call__",
    ),
    "a method without its parentheses": (
        "def f(x): return x - x.mean",
        "`x.mean` is a function here: are the parentheses missing",
    ),
    "an attribute of a method": (
        "def f(x): return x.sum.shape",
        "`sum` is a function here: are the parentheses missing",
    ),
    "Python's sum with an axis": ("def f(x): return sum(x, axis=1)", "Python's own sum has no axis: np.sum"),
    "PyTorch's word for NumPy": ("def f(x): return np.sum(x, dim=1)", "NumPy says axis, dim is PyTorch's word."),
    "keepdim for NumPy": (
        "def f(x): return np.sum(x, keepdim=True)",
        "NumPy says keepdims, keepdim is PyTorch's word.",
    ),
    "an argument spelt otherwise": (
        """
        def scale(x, factor): return x * factor
        def f(x): return scale(x, facto=2)
        """,
        "It has factor: is that meant?",
    ),
    # None
    "print returned": ("def f(x): return print(x)", "It returns what print() gives, and that is None"),
    "append returned": (
        "def f(x):\n    a = []\n    return a.append(1)",
        "It returns what `a.append()` gives, and that is None",
    ),
    "no return": ("def f(x):\n    y = x.sum(1)", "There is no `return` with a value in it"),
    "a branch without return": ("def f(x):\n    if x.ndim == 1:\n        return x", "does one branch end without it?"),
    "sort kept": (
        """
        def f(x):
            y = list(x[0])
            y = y.sort()
            return y[0]
        """,
        "`y` is None here: `y.sort()` works in place and gives None. Leave the `y =` before it out?",
    ),
    "a helper without return": (
        """
        def helper(x): x.sum()
        def f(x): return helper(x) + 1
        """,
        "`helper(x)` is None here: does it forget its `return`?",
    ),
    "a default that stays None": (
        """
        def f(x, mask=None):
            return x[:, 0] * mask
        """,
        "`mask` is None here, as it was handed in (or left out)",
    ),
    "an attribute of an argument that is None": (
        """
        class Line:
            bias = None
        def helper(line): return line.bias - 1
        def f(x): return helper(Line())
        """,
        "`line.bias` is None here, as it was handed in (or left out)",
    ),
    "no gradient yet": (
        """
        def f(x):
            w = torch.ones(3, requires_grad=True)
            return w - 0.1 * w.grad
        """,
        "`w.grad` is None here: has backward() not run yet",
    ),
    # generators, coroutines
    "a yield": (
        "def f(x):\n    for row in x:\n        yield row.sum()",
        "It is a generator, which gives its values only one by one: a `yield` for a `return`?",
    ),
    "round parentheses": (
        "def f(x): return (row.sum() for row in x)",
        "only one by one: round parentheses for square ones?",
    ),
    "async": ("async def f(x): return x", "It is a coroutine, for its function begins with `async def`"),
    "a generator indexed": (
        "def f(x):\n    rows = (r for r in x)\n    return rows[0]",
        "`rows` is a generator, not a value",
    ),
    "a generator stacked": (
        "def f(x): return torch.stack(torch.tensor(r) for r in x)",
        "is a generator, not a value",
    ),
    "a size that is a number": (
        "def f(x):\n    g = torch.Generator()\n    return torch.randint(2 * 3, 5, generator=g)",
        "The size is a tuple, (B,) and not B",
    ),
    "torch's generator by position": (
        "def f(x):\n    g = torch.Generator()\n    return torch.randint(6, (5,), g)",
        "A generator is handed on by its name: generator=…",
    ),
    "a shape that is a number": ("def f(x): return torch.full(3, 1.0)", "`size` is several whole numbers in parenth"),
    "a coroutine used": (
        """
        async def g(x): return x
        def f(x):
            y = g(x)
            return y + 1
        """,
        "`y` is a coroutine, not a value: `async def` for `def`?",
    ),
    "a comma too many": ("def f(x): return x[:, 0],", "It is a tuple of one: is there a comma at the end"),
    # text
    "text for a number": ("def f(x):\n    k = '3'\n    return x * k", "`k` is text, '3', and text does not compute"),
    "text times a fraction": (
        "def f(x):\n    k = '3'\n    return k * 2.0",
        "`k` is text, '3', and text does not compute",
    ),
    # lists
    "a list less a list": (
        "def f(x):\n    a = [1, 2]\n    return a - x.tolist()",
        "`a` is a list, and a list does not compute entry by entry",
    ),
    "a list times a fraction": (
        "def f(x):\n    a = [1, 2]\n    return a * 0.5",
        "`a` is a list, and a list does not compute",
    ),
    "a list with two indices": (
        "def f(x):\n    a = x.tolist()\n    return a[0, 1]",
        "`a` is a list, and a list does not compute",
    ),
    "the shape of a list": (
        "def f(x):\n    a = [1, 2]\n    return a.shape",
        "It is a list ([1, 2]): np.array(…) or torch.tensor(…) of it first?",
    ),
    # caches and keys
    "a cache of arrays": (
        """
        import functools
        @functools.lru_cache
        def f(x): return x
        """,
        "A cache looks its results up by the arguments, and an array can be no key: leave the decorator of f out?",
    ),
    "a cached helper": (
        """
        import functools
        @functools.cache
        def g(x): return x
        def f(x): return g(x)
        """,
        "an array can be no key: leave the decorator of g out?",
    ),
    "an array as a key": ("def f(x): return {x: 1}", "An array can be changed, and so it is no key of a dict"),
    # the rest of Python
    "booleans subtracted": ("def f(x): return (x > 0) - (x > 1)", "a != b tells where they differ"),
    "boolean tensors subtracted": (
        "def f(x):\n    t = torch.tensor(x) > 0\n    return t - t",
        "a != b tells where they differ",
    ),
    "a raise in an except": (
        """
        def f(x):
            try:
                return [1, 2].index(3)
            except ValueError as error:
                raise RuntimeError("broken") from error
        """,
        "looked for in a list that does not have it",
    ),
    "an entry looked for": ("def f(x): return [1, 2].index(3)", "looked for in a list that does not have it"),
    "an entry removed": ("def f(x): return [1, 2].remove(3)", "was it taken out before?"),
    "a path as text": (
        "def f(x): return '/tmp'.iterdir()",
        "A Path has .iterdir, and this is text: Path(…) of it first?",
    ),
    "a power by ^": ("def f(x): return x ^ 2", "`^` compares bits in Python (exclusive or); a power is **."),
    "recursion": ("def f(x): return f(x - 1)", "f calls itself without end"),
    "recursion of two": ("def g(x): return f(x)\ndef f(x): return g(x)", "call one another without end"),
    "a dict that grows": (
        "def f(x):\n    d = {1: 2}\n    for k in d: d[k + 1] = 0",
        "The loop adds to (or takes from) what it runs over",
    ),
    "a list that grows for ever": (
        "def f(x):\n    a = [1]\n    for k in a: a.append(k)",
        "The loop over `a` makes it longer in each round (a.append(k)), and so never ends",
    ),
    "while for ever": ("def f(x):\n    while True: pass", "Does the condition of the `while` never turn false"),
    "a recursion that branches": (
        "def f(x, n=60):\n    return 1 if n < 2 else f(x, n - 1) + f(x, n - 2)",
        "f calls itself several times, and those calls again",
    ),
    "a division by 0": ("def f(x):\n    n = 0\n    return 1 / n", "`n` is 0 here: can that be"),
    "a key not there": (
        "def f(x):\n    d = {'weight': 1}\n    return d['weigth']",
        "There is 'weight': is that meant?",
    ),
    "too few parts": (
        "def f(x):\n    a, b, c = x.shape\n    return a",
        "`x.shape` has 2 parts, (3, 5): as many names as parts?",
    ),
    "a number run over": ("def f(x):\n    n = 3\n    for i in n: pass", "`n` is one number, 3: range(n)?"),
    "a number indexed": ("def f(x):\n    n = 3\n    return n[0]", "`n` is one number, 3, and has no entries"),
    "a fraction as length": (
        "def f(x): return np.zeros(len(x) / 2)",
        "A length is a whole number, and / gives a fraction",
    ),
    "a tuple changed": ("def f(x):\n    t = (1, 2)\n    t[0] = 3", "A tuple cannot be changed"),
    "a breakpoint": (
        "def f(x):\n    breakpoint()\n    return x",
        "A breakpoint() (or set_trace) stops the code for the debugger",
    ),
    "math for arrays": (
        "import math\ndef f(x): return math.exp(x)",
        "math.exp takes one number and gets an array: np.exp",
    ),
    "a row into an entry": (
        "def f(x):\n    y = np.zeros(3)\n    y[0] = x[0]\n    return y",
        "One entry gets several numbers",
    ),
    "a size by /": ("def f(x): return torch.tensor(x).view(3, 5 / 1)", "/ gives a fraction: // or int(…)?"),
    "sizes by /": ("def f(x): return torch.tensor(x).unflatten(1, (5 / 1, 1))", "/ gives a fraction: // or int(…)?"),
    "half precision and float32": (
        "def f(x):\n    x = torch.tensor(x)\n    return x.bfloat16() @ x.mT.float()",
        "bfloat16 meets another dtype: is something on the way of one of its own?",
    ),
    # truth
    "if with an array": ("def f(x):\n    if x > 0: return x", "an array has many: an `if` met it"),
    "if, of an argument": ("def f(x):\n    return x if x else 0", "Whether it was given at all: `if x is not None`."),
    "and with arrays": ("def f(x): return x[(x > 0) and (x < 1)]", "`and` asks for one, & (with both sides"),
    "not with an array": ("def f(x): return not x", "`not` asks for one, ~ goes entry by entry"),
    "or, for an argument that may be None": (
        "def f(x, y=None):\n    y = x\n    return y or 2 * x",
        "Whether y was given at all: `2 * x if y is None else y`.",
    ),
    "not, of an argument that may be None": (
        "def f(x, y=None):\n    y = x\n    if not y:\n        return 0",
        "`not y` asks for it. Whether y was given at all: `y is None`.",
    ),
    "or with arrays": ("def f(x, y=2): return x or y", "`or` asks for one, | (with both sides"),
    "between": ("def f(x): return 0 < x < 1", "a < x < b means `and`"),
    "Python's max": (
        "def f(x): return max(x, 0)",
        "Python's own max compares whole arrays: np.maximum goes entry by entry",
    ),
    "while with a tensor": ("def f(x):\n    while torch.tensor(x) > 0: pass", "a `while` met it"),
    # attributes
    "append to an array": ("def f(x): return x.append(1)", "An array has a fixed length: collect in a list"),
    "astype of a tensor": (
        "def f(x): return torch.tensor(x).astype(float)",
        "A tensor has .to(torch.float32), for example for it.",
    ),
    "unsqueeze of an array": ("def f(x): return x.unsqueeze(0)", "An array has [:, None] or [None] for it."),
    "relu of NumPy": ("def f(x): return np.relu(x)", "numpy has no relu, torch has: is that one meant?"),
    "a function misspelt": ("def f(x): return np.maximun(x, 0)", "numpy has maximum: is that meant?"),
    "a method misspelt": ("def f(x): return x.reshap(3)", "It has .reshape: is that meant?"),
    "backward of a number": (
        "def f(x):\n    loss = torch.tensor(x).sum().item()\n    loss.backward()",
        "A tensor has .backward, and this is a plain number: is there an .item() or float(…) on the way?",
    ),
    # masks and indices
    "cut where a mask is True, and it is nowhere": (
        "def f(x):\n    k = np.argmax(x[0] > 99)\n    return np.argmin(x[0][:k])",
        "It is empty here: can it be so, or is it never filled? (argmax of a mask in which nothing is True gives 0.)",
    ),
    "the least of nothing": ("def f(x): return min([])", "It is empty here: can it be so, or is it never filled?"),
    "a mask on the wrong axis": (
        "def f(x):\n    mask = x[0] > 1\n    return x[mask]",
        "A mask of length 5 meets axis 0, which has 3 entries; axis 1 has 5. Does the mask belong there, [:, mask]?",
    ),
    "a mask of another array": (
        "def f(x):\n    mask = np.ones(4, bool)\n    return x[mask]",
        "A mask of length 4 meets axis 0, which has 3 entries: was it made of another array",
    ),
    "a mask on a tensor": (
        "def f(x):\n    mask = torch.ones(5).bool()\n    return torch.tensor(x)[mask]",
        "A mask of length 5 meets axis 0, which has 3 entries; axis 1 has 5. Does the mask belong there, [:, mask]?",
    ),
    "a mask written through": (
        "def f(x):\n    mask = x[0] > 1\n    y = x.copy()\n    y[mask] = 0\n    return y",
        "axis 1 has 5. Does the mask belong there",
    ),
    "past the end": (
        "def f(x): return x[3]",
        "Index 3 runs past the end of axis 0, which has 3: they begin at 0, the last is 2.",
    ),
    "past the end of a list": ("def f(x):\n    a = [1]\n    return a[1]", "An index runs past the end"),
    "too many indices": ("def f(x): return x.sum(0)[0, 1]", "It has one axis, and 2 are indexed"),
    "an index of a number": (
        "def f(x): return torch.tensor(1.0)[0]",
        "It is a single number and has no entries to pick",
    ),
    "a slice with arrays": (
        "def f(x):\n    k = np.array([0, 1])\n    return x[:, k : k + 2]",
        "or an index array (start[:, None] + arange(length))",
    ),
    "a fraction as index": ("def f(x): return x[1.0]", "An index is a whole number"),
    "fractions as indices": ("def f(x): return x[np.ones(2)]", "Its entries are fractions: an index is whole numbers"),
    # shapes
    "no broadcast": ("def f(x): return x + x[:, 0]", "Two shapes do not fit. Print both .shape"),
    "a product that does not fit": (
        "def f(x): return np.dot(x, x)",
        "the 5 columns of the first must be as many as the 3 rows of the second",
    ),
    "a product of tensors": (
        "def f(x):\n    t = torch.tensor(x)\n    return t @ t",
        "the 5 columns of the first must be as many as the 3 rows",
    ),
    "a transpose too many in a product": (
        "def f(x):\n    d = np.ones((2, 3))\n    return d @ x.T",
        "the 3 columns of the first must be as many as the 5 rows of the second. With `x` for `x.T` they would be: is"
        " that transpose one too many?",
    ),
    "a transpose missing in a product": (
        "def f(x):\n    w = torch.ones(4, 5)\n    t = torch.tensor(x).float()\n    return t @ w",
        "the 5 columns of the first must be as many as the 4 rows of the second. With `w.T` for `w` they would be: is a"
        " transpose missing?",
    ),
    "a transpose missing in np.dot": (
        "def f(x):\n    w = np.ones((4, 5))\n    return np.dot(x, w)",
        "With `w.T` for `w` they would be: is a transpose missing?",
    ),
    "a batch of products that do not fit": (
        "def f(x):\n    t = torch.tensor(x)[None]\n    return t @ t",
        "in a product the 5 columns of the first must be as many as the 3 rows of the second (.mT changes",
    ),
    "another batch": (
        "def f(x):\n    t = torch.tensor(x)[None].expand(2, 3, 5)\n    return torch.bmm(t, t.transpose(0, 2))",
        "as batches of matrices the first has 2 and the second 5",
    ),
    "joined after a squeeze that took the batch away": (
        "def f(x):\n    t = torch.tensor(x)[:1, None]\n    return torch.cat([t.squeeze(), t[:, 0]])",
        "squeeze() takes away every axis of length 1",
    ),
    "a wider input to a cell": (
        "def f(x):\n    return nn.GRUCell(4, 6)(torch.tensor(x).float())",
        "The cell was made for inputs of 4 numbers and gets 5",
    ),
    "too low for half precision": (
        "def f(x):\n    return torch.tensor(x).half().masked_fill(torch.tensor(x) > 3, -1e9)",
        "torch.finfo(x.dtype).min is the lowest",
    ),
    "an attribute of a lambda": (
        "def f(x):\n    g = lambda y: y\n    return g.weight",
        "a function, which has no .weight",
    ),
    "either transpose would do": (
        "def f(x): return x @ x",
        "the 5 columns of the first must be as many as the 3 rows of the second. Print both .shape",
    ),
    "ten classes built in": (
        "def f(x):\n    y = np.array([0, 2, 1])\n    return (np.eye(10)[y] * x).sum(1)",
        "`np.eye(10)` has 10 built in, and here 10 meets 5: is that number to come from a .shape?",
    ),
    "ten classes built in, above, in torch": (
        """
        def f(x):
            hot = nn.functional.one_hot(torch.tensor([0, 2, 1]), 10)
            return torch.tensor(x) - hot
        """,
        "has 10 built in, and here 10 meets 5: is that number",
    ),
    "a length that is not built in": (
        "def f(x):\n    n = 10\n    return np.ones((3, n)) * x",
        "Two shapes do not fit. Print both .shape",
    ),
    "keepdims forgotten": (
        "def f(x): return np.exp(x - x.max(axis=1))",
        "`x.max(axis=1)` is (3,), without the axis that it runs over, and meets (3, 5): keepdims=True",
    ),
    "keepdims forgotten, of a sum above": (
        "def f(x):\n    e = np.exp(x)\n    total = np.sum(e, 1)\n    return e / total",
        "`np.sum(e, 1)` is (3,), without the axis that it runs over, and meets (3, 5): keepdims=True",
    ),
    "keepdim forgotten": (
        "def f(x):\n    t = torch.tensor(x)\n    return t - t.mean(-1)",
        "`t.mean(-1)` is (3,), without the axis that it runs over, and meets (3, 5): keepdim=True would keep",
    ),
    "keepdim forgotten, in two names": (
        "def f(x):\n    t = torch.tensor(x)\n    m, v = t.mean(1), t.var(1)\n    return (t - m) / v",
        "`t.mean(1)` is (3,), without the axis that it runs over, and meets (3, 5): keepdim=True would keep",
    ),
    "keepdims forgotten, of a norm": (
        "def f(x):\n    x /= np.linalg.norm(x, axis=1)\n    return x",
        "`np.linalg.norm(x, axis=1)` is (3,), without the axis that it runs over, and meets (3, 5): keepdims=True",
    ),
    "a norm's order, which is no axis": (
        "def f(x):\n    t = torch.tensor(x)\n    return t[:2] - t.norm(1, 0)[:3]",
        "Two shapes do not fit. Print both .shape",
    ),
    "a sum that keepdims would not make fit": (
        "def f(x):\n    return x[:2] - x.sum(axis=1)",
        "Two shapes do not fit. Print both .shape",
    ),
    "joined with as many axes each": (
        "def f(x): return torch.cat([torch.ones(2, 2), torch.ones(3)])",
        "What is joined has as many axes each, and here 2 meet 1: .flatten() each first",
    ),
    "arrays joined": ("def f(x): return np.concatenate([x, x[0]])", "and here 2 meet 1: .flatten() each first"),
    "the norm of three axes": (
        "def f(x): return torch.linalg.norm(torch.ones(2, 2, 2), 2)",
        "of a matrix, order 2 is the largest singular value",
    ),
    "an axis of .shape that is not there": (
        "def f(x): return range(x[0].shape[1])",
        "An index runs past the end",
    ),
    "an axis of a row's .shape": (
        "def f(x):\n    row = x[0]\n    return range(row.shape[1])",
        "`row` has one axis here, shape (5,), and so no row.shape[1]: may it have any number of axes?",
    ),
    "an axis that repeat_interleave took away": (
        "def f(x):\n    k = torch.ones(2, 3)\n    k = k.repeat_interleave(2)\n    return range(k.shape[1])",
        "so no k.shape[1]: `k.repeat_interleave(2)` without a dim flattens what it repeats.",
    ),
    "mm of three axes": (
        "def f(x): return torch.mm(torch.ones(2, 2, 2), torch.ones(2, 2))",
        "@ takes any number of axes",
    ),
    "an einsum of too many letters": (
        "def f(x): return torch.einsum('bti,ri->btr', torch.ones(2, 2), torch.ones(2, 2))",
        "... stands for any number of axes",
    ),
    "a loop that gives rows": (
        "def f(x): return [float(v) ** 2 for v in x]",
        "`v` is an array, (5,), from the loop over `x`: a loop over an array gives its rows.",
    ),
    "a loop that gives rows, to math": (
        "def f(x):\n    for v in x:\n        print(int(v))",
        "`v` is an array, (5,), from the loop over `x`",
    ),
    "a number of an array": (
        "def f(x): return float(x)",
        "the array has several: is a sum, a mean or an index missing?",
    ),
    "a reshape": ("def f(x): return x.reshape(4, 4)", "A reshape keeps the number of entries"),
    "a view of a transpose": ("def f(x): return torch.tensor(x).T.view(15)", "view cannot arrange them: .reshape(…)?"),
    "no such axis": ("def f(x): return x.sum(2)", "There is no axis 2: it has 2 axes, counted from 0."),
    "no such axis of a tensor": (
        "def f(x): return torch.tensor(x).sum(2)",
        "There is no axis 2: the last one here is 1 (or -1).",
    ),
    "rows of different lengths": (
        "def f(x): return np.array([[1], [2, 3]])",
        "The rows have different lengths, so that they make no array",
    ),
    "the largest of nothing": ("def f(x): return x[:0].max()", "The array is empty, and the largest"),
    # kinds of numbers
    "double meets float": (
        "def f(x): return nn.Linear(5, 1)(torch.tensor(x))",
        "float32 meets float64: NumPy's arrays are float64, PyTorch's layers float32.",
    ),
    "fractions into whole numbers": (
        "def f(x):\n    y = np.arange(3)\n    y -= 0.5\n    return y",
        "An array of whole numbers takes no fractions in place",
    ),
    "fractions into a whole tensor": (
        "def f(x):\n    y = torch.arange(3)\n    y -= 0.5\n    return y",
        "An array of whole numbers takes no fractions in place",
    ),
    "the mean of whole numbers": (
        "def f(x): return torch.arange(3).mean()",
        "The tensor holds whole numbers (or True and False), and this needs fractions",
    ),
    "labels as fractions": (
        "def f(x): return nn.functional.cross_entropy(torch.ones(2, 3), torch.ones(2))",
        "Class labels are whole numbers, torch.int64",
    ),
    "a label too large": (
        "def f(x): return nn.functional.cross_entropy(torch.ones(2, 3), torch.tensor([0, 3]))",
        "A class label is as large as the number of classes",
    ),
    "an embedding": (
        "def f(x): return nn.Embedding(3, 2)(torch.tensor([3]))",
        "An embedding has a row for each index below num_embeddings",
    ),
    "a number for a tensor": (
        "def f(x): return torch.sqrt(2)",
        "torch.sqrt takes a tensor and gets one number: math.sqrt",
    ),
    "an array for a tensor": (
        "def f(x): return torch.exp(x)",
        "torch.exp takes a tensor and gets a numpy.ndarray: torch.as_tensor(…) of it?",
    ),
    "a layer for a tensor": (
        "def f(x):\n    return nn.Linear(2, 2)(nn.ReLU())",
        "gets ReLU: was the thing itself handed on in place of its result?",
    ),
    "Python objects": (
        "def f(x): return np.exp(np.array([1.0, 2.0], dtype=object))",
        "The array holds Python objects, not numbers (dtype object)",
    ),
    # gradients
    "no gradient at all": (
        "def f(x): return torch.ones(1).sum().backward()",
        "No gradient can flow here: this was not computed from a tensor with requires_grad=True, or the way is cut.",
    ),
    "a gradient cut": (
        """
        def f(x):
            w = torch.ones(2, requires_grad=True)
            return w.detach().sum().backward()
        """,
        "or the way is cut: by .detach()?",
    ),
    "a gradient cut by the caller": (
        """
        def loss(w): return w.sum().backward()
        def f(x):
            with torch.no_grad():
                return loss(torch.ones(2, requires_grad=True))
        """,
        "or the way is cut: by torch.no_grad()?",
    ),
    "a tensor in a parameter's place": (
        "def f(x):\n    layer = nn.Linear(2, 2)\n    layer.weight = layer.weight * 2",
        "weight is a parameter of the module, and what takes its place must be one too: nn.Parameter(…)",
    ),
    "a list for nn.Sequential": (
        "def f(x):\n    return nn.Sequential([nn.ReLU(), nn.ReLU()])",
        "nn.Sequential takes layers one by one, nn.Sequential(*layers)",
    ),
    "a class for a layer": (
        "def f(x):\n    return nn.Sequential(nn.Linear(2, 2), nn.ReLU)",
        "each of them made: nn.ReLU(), not nn.ReLU",
    ),
    "a parameter changed in place": (
        "def f(x):\n    w = torch.ones(2, requires_grad=True)\n    w -= 1",
        "`with torch.no_grad():` around an update",
    ),
    "changed after use": (
        "def f(x):\n    w = torch.ones(2, requires_grad=True)\n    y = w.exp()\n    y += 1\n    y.sum().backward()",
        "was changed in place afterwards",
    ),
    "backward twice": (
        (
            "def f(x):\n    w = torch.ones(2, requires_grad=True)\n    loss = "
            "(w**2).sum()\n    loss.backward()\n    loss.backward()"
        ),
        "backward() ran through this computation already",
    ),
    "backward of many": (
        "def f(x): return torch.ones(2, requires_grad=True).exp().backward()",
        "backward() starts at one number, and this has several",
    ),
    "grad of many": (
        "def f(x):\n    w = torch.ones(2, requires_grad=True)\n    return torch.autograd.grad(w.exp(), w)",
        "grad starts at one number, and this has several: is a .sum() missing, or is each of them meant",
    ),
    "tuples of gradients": (
        """
        def f(x):
            w = torch.ones(2, requires_grad=True)
            return torch.stack([torch.autograd.grad(n, w, retain_graph=True) for n in w * 2])
        """,
        "Entry 0 of the list is a tuple and no tensor. torch.autograd.grad gives a tuple, one for each input: [0]?",
    ),
    "NumPy of a gradient": (
        "def f(x): return np.exp(torch.ones(2, requires_grad=True))",
        "NumPy cannot take a tensor that records gradients",
    ),
    "one example in batch norm": (
        "def f(x): return nn.BatchNorm1d(3)(torch.ones(1, 3))",
        "Batch norm in training mode needs more than one example",
    ),
    # without a word
    "an assignment forgotten": (
        "def f(x):\n    y = x[:, 0]\n    y * 2\n    return y",
        "The line `y * 2` computes and keeps nothing",
    ),
    "a result dropped": (
        "def f(x):\n    y = x[:, 0]\n    np.exp(y)\n    return y + 1",
        "The line `np.exp(y)` computes and keeps nothing",
    ),
    "== for =": (
        "def f(x):\n    y = x[:, 0]\n    y == 2\n    return y",
        "The line `y == 2` compares and keeps nothing: = for ==?",
    ),
    "whole numbers and ^": (
        "def f(x): return x[:, 0].astype(int) ^ 2",
        "^ compares bits in Python (exclusive or). Is a power meant, **?",
    ),
    "is for ==": (
        "def f(x):\n    n = x.sum()\n    return x[:, 0] if n is 5 else x[:, 1] * x[:, 2]",
        "`is` asks whether both are one and the same object",
    ),
    "a walrus": (
        "def f(x):\n    if n := len(x) > 2:\n        return x[:, 0] * n ** 2 + 3\n    return x",
        "so that n is True or False",
    ),
    "a list changed in its loop": (
        """
        def f(x):
            a = [4.0, 9.0, 5.0, 1.0, 8.0]
            for k in a:
                if k > 3: a.remove(k)
            return np.array([*a, 0, 0, 0][:3])
        """,
        "The loop over `a` changes it (a.remove(k)), so that entries are passed over",
    ),
}


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_the_learners_own_raise_says_is_not_read_as_a_none_of_python():
    told = message("""
        def f(x):
            raise TypeError(type(None))
        """)
    assert "TypeError: <class 'NoneType'>" in told and "is None here" not in told


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named_with_what_is_in_the_cell(slip):
    source, fragment = SLIPS[slip]
    assert fragment in message(source)


FUNCTIONS = {
    "ctx.save_for_backward(x, k); return x * k | return g * 2, None": "argument 1 (counted from 0) is float: ctx.",
    "ctx.k = k; return x * k | return g * ctx.k": "backward returns 2 things, one for each argument of forward",
    "ctx.k = k; return x * k | return g * ctx.k, g.sum()": "Argument 2 of forward (after ctx) is no tensor",
    "return x * k | return g * ctx.k, None": "ctx.k = … in forward?",
    "return x * k | return g.sum()[None], None": "RuntimeError: Function FBackward returned an invalid gradient",
    "return x * k | return 2.0, None": "RuntimeError: expected Variable or None (got float)",
}


@pytest.mark.parametrize("lines", FUNCTIONS)
def test_what_torch_says_of_a_function_of_the_learners_is_never_laid_to_the_check(lines, monkeypatch):
    """Torch takes over what forward saved and backward returned when none of the learner's lines is running."""
    monkeypatch.setattr(place, "is_learners", lambda file: "ipykernel" in file)
    forward, backward = lines.split(" | ")
    source = f"""
        class F(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, k):
                {forward}
            @staticmethod
            def backward(ctx, g):
                {backward}
        def f(x):
            return F.apply(x, 2.0)
        """

    def check(learner, rng):
        x = torch.ones(3, requires_grad=True)
        torch.autograd.grad((learner.apply(x, 2.0) if name == "F" else learner(x)).sum(), x)

    for name in ("F", "f"):
        outcome = run_check(exercise(hints=["."])(check), cell(source, name))
        assert outcome.status == "failed" and FUNCTIONS[lines] in outcome.text(), outcome.text()


def test_an_input_that_is_back_but_for_a_rounding_is_told_so():
    def check(learner, rng):
        learner(np.array([0.3, 1.455, 0.905]))

    def told(lines):
        return run_check(exercise(hints=["."])(check), cell(f"def f(x):\n    {lines}\n    return 1.0")).text()

    assert "It is back but for a rounding" in told("x += 0.1; x -= 0.2; x += 0.1")
    for lines in ("x += 1e-6", "x -= x", "x[0] = 0.30001", "x[:] = x[::-1].copy()"):
        assert "write into the caller's data" in told(lines)


def test_a_check_that_breaks_in_torch_is_broken_though_a_module_is_checked(monkeypatch):
    monkeypatch.setattr(place, "is_learners", lambda file: "ipykernel" in file)

    def check(learner, rng):
        learner()
        torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.ones(3))

    model = cell("class Model(nn.Module):\n    def forward(self, x): return x", "Model")
    assert "the check itself failed" in run_check(exercise(hints=["."])(check), model).text()


def test_a_gradient_that_the_first_call_left_is_no_chance():
    """backward() twice on the same input gives twice as much, and nothing has been drawn."""

    def check(learner, rng):
        learner(torch.ones(3, requires_grad=True))

    function = cell("def f(x):\n    (x**2).sum().backward()\n    return x.grad.clone()")
    told = run_check(exercise(hints=["."])(check), function).text()
    assert "backward() adds to .grad, where the first call left its own" in told and "random" not in told


CLASSES = {
    "super forgotten": (
        """
        class Model(nn.Module):
            def __init__(self):
                self.layer = nn.Linear(2, 2)
        """,
        "super().__init__() is missing: it is the first line of __init__",
    ),
    "super too late": (
        """
        class Model(nn.Module):
            def __init__(self):
                self.layer = nn.Linear(2, 2)
                super().__init__()
        """,
        "super().__init__() has to come before the first layer is stored",
    ),
    "super forgotten, no layer": (
        """
        class Model(nn.Module):
            def __init__(self):
                self.w = 1
            def forward(self, x): return x
            def run(self, x): return self(x)
        """,
        "super().__init__() is missing",
    ),
    "self forgotten in the signature": (
        """
        class Model:
            def run(x): return x
        """,
        "`run` lacks self: the first argument of a method is the object itself, def run(self, …).",
    ),
    "self forgotten in a helper's signature": (
        """
        class Model:
            def helper(x): return x
            def run(self, x): return self.helper(x)
        """,
        "`helper` lacks self",
    ),
    "self forgotten before an attribute": (
        """
        class Model:
            def __init__(self): self.w = 1
            def run(self, x): return w * x
        """,
        "`w` belongs to the object: self.w?",
    ),
    "an attribute that was a variable": (
        """
        class Model:
            def __init__(self):
                w = 1
            def run(self, x): return self.w * x
        """,
        "In __init__ `w` is a variable that ends with it: self.w = … keeps it?",
    ),
    "an attribute misspelt": (
        """
        class Model:
            def __init__(self): self.weight = 1
            def run(self, x): return self.weigth * x
        """,
        "It has `weight`: is that meant?",
    ),
    "an attribute from nowhere": (
        """
        class Model:
            def __init__(self): self.weight = 1
            def run(self, x): return self.zzz * x
        """,
        "Where does self.zzz get its value",
    ),
    "a plain number for an object": (
        """
        class Model:
            def __init__(self, data=0.0): self.data = data
            def run(self, x): return self * 2.5
            def __mul__(self, other): return self.data * other.data
        """,
        "Each Model has .data, and this is a plain number, 2.500: has a Model to be made of it first?",
    ),
    "the class for an object": (
        """
        class Net:
            def go(self, x): return x
        class Model:
            def run(self, x): return Net.go(x)
        """,
        "Net is the class, and a method needs an object of it: Net(…) first?",
    ),
    "init misspelt": (
        """
        class Net:
            def __int__(self, n): self.n = n
        class Model:
            def run(self, x): return Net(3)
        """,
        "Net has no __init__: is its `__int__` meant to be it?",
    ),
    "nothing returned": (
        """
        class Model:
            def run(self, x): x.sum()
        """,
        "Is the `return` missing",
    ),
}


@pytest.mark.parametrize("slip", CLASSES)
def test_a_slip_in_a_class_is_named(slip):
    source, fragment = CLASSES[slip]
    assert fragment in message(source, "Model")


def test_an_attribute_under_another_name_is_not_told_as_a_missing_return():
    def check(learner, rng):
        expect.kind(getattr(learner(), "layers", None), torch.nn.ModuleList, "layers is an nn.ModuleList")

    def told(body):
        source = f"class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n        {body}"
        return run_check(exercise(hints=["."])(check), cell(source, "Model")).text()

    named = told("self.blocks, self.scale = nn.ModuleList(), nn.Parameter(torch.ones(2))")
    assert "It has blocks, scale: is it there under another name" in named and "`return`" not in named
    assert "It has no attributes: " in told("layers = nn.ModuleList()")


def test_a_result_of_an_instance_names_what_that_instance_was_made_with():
    def check(learner, rng):
        first, _ = learner(3), learner(5)
        expect.equal(first.run(2), 2, why="it is handed on", source="x")

    source = "class Model:\n    def __init__(self, n): self.n = n\n    def run(self, x): return x + self.n"
    told = run_check(exercise(hints=["."])(check), cell(source, "Model")).text()
    assert "for n 3" in told and "for n 5" not in told


def test_a_row_of_results_is_told_with_what_all_of_its_calls_were_given():
    def check(learner, rng):
        expect.close([learner(t, 23) for t in range(3)], [1.0, 2.0, 4.0], why="it doubles", source="by hand")

    told = run_check(exercise(hints=["."])(check), cell("def f(t, steps): return t * 1.7 + 1")).text()
    assert "for steps 23" in told and "t 2" not in told


def test_a_saved_model_that_does_not_fit_is_told_line_by_line_and_not_without_end():
    source = """
        def f(x):
            model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)])
            model.load_state_dict({"0.weight": torch.ones(3, 3), "head": torch.ones(2)})
    """
    lines = message(source).splitlines()
    assert "RuntimeError: Error(s) in loading state_dict for Sequential:" in lines[0]
    assert lines[1] == '  Missing key(s) in state_dict: "0.bias", "1.weight", "1.bias", "2.weight" and 3 more'
    assert lines[2] == '  Unexpected key(s) in state_dict: "head".'
    assert "size mismatch for 0.weight: copying a param with shape (3, 3)" in lines[3]
    assert "the model built as it was when it was saved?" in lines[-1]


LONG = {
    "eager": (
        "{{function_node __wrapped__MatMul_device_/job:localhost/device:CPU:0}} Matrix size-incompatible:"
        " In[0]: [2,3], In[1]: [2,3] [Op:MatMul] name: ",
        "ValueError: Matrix size-incompatible: In[0]: [2,3], In[1]: [2,3]",
        "the 3 columns of the first must be as many as the 2 rows",
    ),
    "a graph": (
        "Graph execution error:\n\nDetected at node loss/Sparse defined at (most recent call last):\n"
        '  File "a.py", line 11, in <module>\n\nReceived a label value of 5 which is outside the valid range\n'
        "\t [[{{node loss/Sparse}}]] [Op:__inference_multi_step_on_iterator_700]",
        "ValueError: Received a label value of 5 which is outside the valid range",
        "",
    ),
    "a layer": (
        "Exception encountered when calling Embedding.call().\n\n\x1b[1m{{function_node __wrapped__GatherV2}}"
        " indices[0] = 7 is not in [0, 3) [Op:GatherV2]\x1b[0m\n\nArguments received by Embedding.call():\n  • x",
        "ValueError: indices[0] = 7 is not in [0, 3)",
        "Indices count from 0 and lie below 3 here",
    ),
    "a layer's shape": (
        "Exception encountered when calling Sequential.call().\n\n\x1b[1mInput 0 with name 'None' of layer 'dense' is"
        " incompatible with the layer: expected axis -1 of input shape to have value 3, but received input with shape"
        " (4, 5)\x1b[0m\n\nArguments received by Sequential.call():",
        "ValueError: Input 0 with name 'None' of layer 'dense' is incompatible with the layer: expected axis -1",
        "The layer was made for 3 features and gets shape (4, 5)",
    ),
    "a function": (
        'in user code:\n\n    File "a.py", line 29, in h  *\n        return tf.matmul(x, w)\n\n'
        "    ValueError: Dimensions must be equal, but are 3 and 2 for '{{node MatMul}} = MatMul[T=DT_FLOAT](x, ones)'"
        " with input shapes: [2,3], [2,2].\n",
        "ValueError: Dimensions must be equal, but are 3 and 2",
        "Two shapes do not fit",
    ),
    "two kinds": (
        "cannot compute AddV2 as input #1(zero-based) was expected to be a float tensor but is a double tensor"
        " [Op:AddV2] name: ",
        "ValueError: cannot compute AddV2 as input #1(zero-based) was expected to be a float tensor but is a double",
        "here float meets double: tf.cast one of both?",
    ),
}


@pytest.mark.parametrize("case", LONG)
def test_of_tensorflows_long_messages_the_telling_line_is_kept(case):
    text, line, sentence = LONG[case]
    error = ValueError(text)
    assert said(error)[0].startswith(line)
    assert sentence in advice(error, None) if sentence else advice(error, None) == ""
