"""The checks of tensors-and-autograd: one for each exercise, with its hints. `lab.check` runs them.

Views are held to storage pointers, derivatives to torch.autograd on another way: dense Hessians, loops over examples.
"""

import functools
import math
import re

import numpy as np

from atlas.checking import (
    Complaint,
    array,
    cases,
    exercise,
    expect,
    floats,
    governed,
    gradients,
    numbers,
    parts,
    tensor,
    torch_generator,
)


def _tensor(values, single=False):
    import torch

    return torch.tensor(np.asarray(values), dtype=torch.float32 if single else torch.float64)


def _share(a, b):
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _without_a_way(call, why, likely):
    """What the call gives; where autograd complains that there is no way back, `likely` is the reading, if there is one."""
    try:
        return call()
    except RuntimeError as error:
        words = str(error).split(". ")[0]
        if not likely or not any(part in words for part in ("does not require grad", "not have been used")):
            raise
        raise Complaint(why, [f"yours    RuntimeError: {words}"], likely, words) from None


def _untouched(leaves, whose):
    """Demand that no .grad was filled, and that all of these learn as before: (tensor, its requires_grad before)."""
    for leaf, learned in leaves:
        likely = "backward() adds to .grad of every leaf. torch.autograd.grad(...) returns gradients and fills none."
        expect.true(leaf.grad is None, f"no .grad of {whose} is filled", f"its .grad  {leaf.grad}", likely=likely)
        likely = "requires_grad_() changes the caller's tensor, for good. x.detach() is a tensor of its own."
        details = f"before {learned}, after {leaf.requires_grad}"
        expect.true(leaf.requires_grad == learned, f"requires_grad of {whose} stays as it is", details, likely=likely)


# ------------------------------------------------------------------------------------------------ predictions


def _shared_through_numpy(x):
    import torch

    return torch.from_numpy(x.numpy())


def _as_float32(x):
    import torch

    return x.to(torch.float32)


_OPERATIONS = {
    "a": ("x[1]", lambda x: x[1], "A single number as index moves the offset: a view."),
    "b": ("x[:, 2:4]", lambda x: x[:, 2:4], "A slice changes offset and shape only: a view."),
    "c": (
        "x[[1, 2]]",
        lambda x: x[[1, 2]],
        "A list of indices may name any rows in any order; no stride does that, so even neighbours are copied.",
    ),
    "d": ("x[x > 5]", lambda x: x[x > 5], "What a mask picks lies anywhere: it is copied."),
    "e": ("x.T", lambda x: x.T, "T swaps the two strides: a view."),
    "f": ("x.reshape(8, 3)", lambda x: x.reshape(8, 3), "x is contiguous, so new strides are enough: a view."),
    "g": (
        "x.T.reshape(24)",
        lambda x: x.T.reshape(24),
        "Column after column is not the order in memory, and no single stride walks so: reshape has to copy.",
    ),
    "h": ("x.contiguous()", lambda x: x.contiguous(), "x is contiguous already: contiguous returns x itself."),
    "i": (
        "x[:, :3].flatten()",
        lambda x: x[:, :3].flatten(),
        "Three numbers, a gap of three, three numbers: no single stride walks so, and flatten has to copy.",
    ),
    "j": ("x[:1].expand(5, 6)", lambda x: x[:1].expand(5, 6), "expand repeats by a stride of 0: a view."),
    "k": ("x[:1].repeat(5, 1)", lambda x: x[:1].repeat(5, 1), "repeat writes the numbers again: a copy."),
    "l": (".to(torch.float32)", _as_float32, "x is float32 already, so `to` returns x itself."),
    "m": ("x.double()", lambda x: x.double(), "Another dtype needs other bytes: a copy."),
    "n": ("x.detach()", lambda x: x.detach(), "detach cuts from the graph and keeps the memory: a view."),
    "o": (
        "torch.from_numpy(x.numpy())",
        _shared_through_numpy,
        "Both ways share memory; torch.tensor(...) would copy.",
    ),
}


@exercise(
    hints=[
        "For each ask: could the result be described by an offset, a shape and strides into x's own storage?",
        "Six are copies: two by their index, one by repetition, one by its dtype, and two because one stride cannot walk so.",
        "Copies are those with a list or mask as index, repeat, double, the reshape of x.T and the flatten of a part of each row.",
    ],
)
def predictions(learner, rng):
    import torch

    given = learner()
    expect.kind(
        given, dict, "the table is a dict", likely="return dict(a=True, b=..., ...), with True or False for each."
    )
    missing = [letter for letter in _OPERATIONS if letter not in given]
    expect.true(not missing, "the table has all 15 letters", f"missing  {', '.join(missing)}")
    unknown = [repr(key) for key in given if key not in _OPERATIONS]
    expect.true(not unknown, "the table has no other keys than the letters", f"unknown  {', '.join(unknown)}")
    x = torch.arange(24.0).reshape(4, 6)
    for letter in _OPERATIONS:
        expect.kind(
            given[letter], (bool, np.bool_), f"{letter} is True or False", likely="True: shared; False: a copy."
        )
    inverted = all(given[letter] != _share(operation(x), x) for letter, (_, operation, _) in _OPERATIONS.items())
    likely = "True means that the numbers are shared, False that they are copied."
    expect.true(not inverted, "the table says which results share", "all 15 are the other way round", likely=likely)
    for letter, (words, operation, reason) in _OPERATIONS.items():
        why = f"{letter}: does {words} lie in the storage of x?"
        expect.equal(given[letter], _share(operation(x), x), why=why, source="both storage pointers", likely=reason)


# ------------------------------------------------------------------------------------------------ windows


def _of_shape(shape, x, k):
    """What tells the shape of windows(x, k) that is wrong, or ""."""
    *front, H, W = x.shape
    down, right = H - k + 1, W - k + 1
    *mine, a, b, c, d = shape if len(shape) >= 4 else (0,) * 4
    if front and shape[:2] == (max(x.shape[0] - k + 1, 0), x.shape[1] - k + 1):
        return "The first two axes are cut. It is the last two: H, W = x.shape[-2:], and their strides."
    if len(shape) > 4 and (a, b, c, d) == (down, right, k, k):
        return f"The axes in front of H and W stay as they are, {tuple(front)}; here they are {tuple(mine)}."
    if mine != front or k == 1:
        return ""
    if (a, b, c, d) == (down, W, 1, k):
        return (
            "The columns are not cut into windows. After x.unfold(-2, ...) the last axis is the window's own: -2 again."
        )
    if down != right and (a, b, c, d) == (k, k, down, right):
        return "The window's own axes come first. They are the last two: (..., H - k + 1, W - k + 1, k, k)."
    if down != right and (a, b, c, d) == (right, down, k, k):
        return "H and W are swapped in the shape: (..., H - k + 1, W - k + 1, k, k)."
    if down != right and a == b in (down, right) and c == d == k:
        return "Both axes of places have the same length. Each has its own: H - k + 1 and W - k + 1."
    return ""


def _of_strides(strides, sizes, expected):
    """The first stride that is wrong, where the shape is right: an axis of length 1 has none that counts."""
    pairs = list(zip(strides, expected, sizes, strict=True))
    if all(a == pairs[0][0] // max(pairs[0][1], 1) * b for a, b, _ in pairs) and pairs[0][0] > pairs[0][1]:
        return f"Every stride is {pairs[0][0] // pairs[0][1]} times too large. NumPy counts in bytes, torch in numbers."
    wrong = [(axis, a, b) for axis, (a, b, n) in enumerate(pairs) if a != b and n > 1]
    return (
        "The stride of axis {} is {}; one step along it goes {} further in memory.".format(*wrong[0]) if wrong else ""
    )


@parts
def _windows(
    x,
    k,
    *,
    count=lambda n, k: n - k + 1,
    strides=lambda s0, s1, W, k: (s0, s1, s0, s1),
    offset=lambda x: x.storage_offset(),
    base=lambda x: x,
    side=lambda k: k,
):
    *front, H, W = x.shape
    *skip, s0, s1 = x.stride()
    shape = (*front, count(H, k), count(W, k), side(k), side(k))
    return base(x).as_strided(shape, (*skip, *strides(s0, s1, W, k)), offset(x))


def _windows_of_contiguous(x, k):
    """The values are right, in memory of their own: contiguous, clone, stack and the like copy. Only as_strided is needed."""
    return _windows(x, k).clone()


@exercise(
    hints=[
        "Four axes from two: a step to the next window moves as far in memory as a step within one. Which stride belongs to which axis?",
        "*front, H, W = x.shape and *skip, down, right = x.stride() take both apart, with any number of axes in front.",
        "return x.as_strided((*front, H - k + 1, W - k + 1, k, k), (*skip, down, right, down, right))",
    ],
    mistakes=_windows.mistakes(
        _windows_of_contiguous,
        count={
            "One window is missing in each direction: a window of k begins in n - k + 1 places.": lambda n, k: n - k
        },
        returns={
            "Rows and columns are swapped within each window: the strides are (s₀, s₁, s₀, s₁).": lambda w: w.mT,
            "Which window comes first is swapped: the strides are (s₀, s₁, s₀, s₁).": lambda w: w.transpose(-4, -3),
            "Axes come in the wrong order: the first two say which window, the last two which entry in it.": (
                lambda w: w.transpose(-3, -2)
            ),
        },
        strides={
            "The strides are those of a tensor that lies row by row, (W, 1). Ask x.stride(): it may be a view itself.": (
                lambda s0, s1, W, k: (W, 1, W, 1)
            ),
        },
        together={
            "The windows stand side by side. They overlap: one begins at each of n - k + 1 places.": {
                "count": lambda n, k: n // k,
                "strides": lambda s0, s1, W, k: (k * s0, k * s1, s0, s1),
            },
        },
        offset={
            "It begins at the first number of the storage. x may begin later: leave the offset out, or x.storage_offset().": (
                lambda x: 0
            ),
        },
        k={"k is an argument; this takes windows of 3 whatever it is.": 3},
    ),
)
def windows(learner, rng):
    import torch

    source = "x.unfold, twice"

    def called(x, k, why, expected):
        try:
            return learner(x, k)
        except RuntimeError as error:
            text = str(error).split(" and itemsize")[0].removeprefix("setStorage: ")
            if "maximum size for tensor" in text and x.dim() > 2:
                likely = "The axes in front are not cut: count the two from the end, -2 and -1."
                raise Complaint(why, [f"for x {tuple(x.shape)}, k {k}", f"yours    {text}"], likely, text) from None
            if not (found := re.match(r"sizes \[([\d, ]*)\], strides \[([\d, ]*)\]", text)):
                raise
            sizes, strides = (tuple(int(n) for n in part.split(", ")) for part in found.groups())
            right = f"expected sizes {list(expected.shape)}, strides {list(expected.stride())}"
            whole = sizes == tuple(expected.shape)
            likely = _of_strides(strides, sizes, expected.stride()) if whole else _of_shape(sizes, x, k)
            shown = [f"for x {tuple(x.shape)}, k {k}", f"yours    {text}", right]
            raise Complaint(f"{why}: it reads beyond the memory of x", shown, likely, text) from None

    def demand(x, k, why, writes=False):
        expected = x.unfold(-2, k, 1).unfold(-2, k, 1)
        given = called(x, k, why, expected)
        tensor(given, why)

        def guess(mine, theirs):
            if not isinstance(theirs, np.ndarray):
                return ""  # the dtype is wrong
            if mine.shape != theirs.shape:
                return _of_shape(mine.shape, x, k)
            view = _share(given, x) and given.storage_offset() == x.storage_offset()
            return _of_strides(given.stride(), given.shape, expected.stride()) if view else ""

        expect.close(given, expected, why=why, source=source, dtype=x.dtype, likely=guess)
        why = "all windows lie in the storage of x: nothing is copied"
        likely = "contiguous, clone, reshape, stack and the like copy, always or where strides cannot do it. as_strided does not."
        expect.true(_share(given, x), why, "yours    other memory", likely=likely)
        if writes:
            with torch.no_grad():
                given[..., 1, 0, 0, 1] = 99.0
            expect.true(
                bool((x[..., 1, 1] == 99).all()), "writing to a window writes to x", "yours    x stays as it was"
            )

    demand(_tensor(rng.normal(size=(6, 8))), 3, "6 × 8, k = 3", writes=True)
    demand(_tensor(rng.normal(size=(8, 5))), 2, "8 × 5, k = 2", writes=True)
    demand(torch.arange(24.0).reshape(4, 6), 3, "the example above", writes=True)
    for k, shape in ((1, (4, 3)), (3, (3, 5)), (5, (7, 5)), (4, (4, 4)), (1, (1, 1))):
        demand(_tensor(rng.normal(size=shape)), k, f"{shape[0]} × {shape[1]}, k = {k}")
    whole = _tensor(rng.normal(size=(9, 14)))
    demand(whole.clone().T, 3, "a transposed view", writes=True)
    demand(whole[2:, 3:], 3, "a view that begins in the middle", writes=True)
    demand(whole[::2, 1::3], 2, "a view of every other row and every third column", writes=True)
    demand(whole[:1].expand(5, 14), 3, "an expanded row, whose stride is 0")
    for front in ((2,), (3, 2), (1,), (2, 1, 3)):
        x = _tensor(rng.normal(size=(*front, 6, 5)))
        demand(x, 3, f"axes {front} in front", writes=True)
    demand(_tensor(rng.normal(size=(6, 5, 4))).permute(2, 1, 0), 2, "axes in another order", writes=True)
    x = _tensor(rng.normal(size=(3, 2, 6, 5))).transpose(0, 1)
    demand(x, 3, "two axes in front, swapped", writes=True)
    demand(_tensor(rng.normal(size=(3, 4, 6, 5)))[:, :2], 2, "two axes in front, with a gap", writes=True)
    demand(torch.arange(30).reshape(5, 6), 2, "whole numbers")
    demand(torch.arange(30, dtype=torch.uint8).reshape(5, 6), 2, "bytes, as in images")
    x = _tensor(rng.normal(size=(5, 6)))
    authority = lambda x: x.unfold(-2, 3, 1).unfold(-2, 3, 1)  # noqa: E731
    gradients(lambda x: learner(x, 3), authority, rng, why="gradients flow through windows", x=x)


# ------------------------------------------------------------------------------------------------ Swish


class _SwishParts:
    """Swish, to be called by apply, with parts to replace."""

    value = lambda x, beta: x * (beta * x).sigmoid()  # noqa: E731
    slope = lambda x, s, beta: s + beta * x * s * (1 - s)  # noqa: E731
    pull = lambda g, slope: g * slope  # noqa: E731
    again = lambda x, s, beta: (beta * x).sigmoid()  # noqa: E731
    taken = lambda saved: saved[0]  # noqa: E731
    saves = True
    bound = lambda beta: beta  # noqa: E731

    @classmethod
    def apply(cls, x, beta):
        return _function_of(cls).apply(x, beta)


@functools.cache
def _function_of(own):
    import torch

    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, beta):
            ctx.beta = own.bound(beta)
            s = (beta * x).sigmoid()
            if own.saves:
                ctx.save_for_backward(x, s)
            else:
                ctx.kept = x, s
            return own.value(x, beta)

        @staticmethod
        def backward(ctx, g):
            kept = ctx.saved_tensors if own.saves else ctx.kept
            x, s = own.taken(kept), kept[1]
            return own.pull(g, own.slope(x, own.again(x, s, ctx.beta), ctx.beta)), None

    return Swish


_CONSTANT = "The first derivative is right, the second is not: in backward σ(βx) counts as a constant. If forward made it, it was never recorded: compute it again in backward, from the saved x. If backward makes it: is x detached there?"

_SLOPE = "The value is right and backward is not. With s = σ(βx) it returns g · (s + βx·s(1 - s)), entry by entry."

_ALL_CUT = "The second derivative is 0: to torch nothing in backward depends on x. A tensor that forward made, also x.clone(), is a constant, and so is what x.detach(), no_grad and once_differentiable leave. Save x itself, and compute the slope from it in backward."

_CUT = "The first derivative is right, the second is not: in backward something counts as a constant that is none. A tensor that forward made, .detach(), no_grad or once_differentiable?"


@exercise(
    hints=[
        "Forward needs three lines: save x, note beta, return the value. Backward computes σ(βx) once more, from the saved x.",
        "ctx.save_for_backward(x) and ctx.beta = beta; in backward (x,) = ctx.saved_tensors, and one result for each of the two arguments.",
        "s = torch.sigmoid(ctx.beta * x), then: return g * (s + ctx.beta * x * s * (1 - s)), None",
    ],
    mistakes=parts(_SwishParts).mistakes(
        again={
            _CONSTANT: lambda x, s, beta: s,
            "Backward takes σ(x): β stands inside too, σ(βx), as in forward.": lambda x, s, beta: x.sigmoid(),
        },
        taken={"ctx.saved_tensors is a tuple, also of one tensor: x, = ctx.saved_tensors, with the comma.": tuple},
        slope={
            "The slope lacks its second term: x stands twice in xσ(βx), and both places count.": lambda x, s, beta: s,
            "The slope lacks its first term: s + βx·s(1 - s).": lambda x, s, beta: beta * x * s * (1 - s),
            "The second term lacks β: the inner derivative of σ(βx).": lambda x, s, beta: s + x * s * (1 - s),
            "The second term lacks x: s + βx·s(1 - s).": lambda x, s, beta: s + beta * s * (1 - s),
            "σ' is s(1 - s), not 1 - s²: that is tanh's.": lambda x, s, beta: s + beta * x * (1 - s**2),
            "σ' is s(1 - s); the 1 - s is missing.": lambda x, s, beta: s + beta * x * s,
            "σ' is s(1 - s), with a minus: this has 1 + s.": lambda x, s, beta: s + beta * x * s * (1 + s),
            "The second term is subtracted: s + βx·s(1 - s).": lambda x, s, beta: s - beta * x * s * (1 - s),
            "The value y stands where s belongs: s = σ(βx), without the factor x.": lambda x, s, beta: (
                x * s + beta * x * x * s * (1 - x * s)
            ),
            "The second term has x twice: ds/dx = βs(1 - s), and x comes once, from the product rule.": (
                lambda x, s, beta: s + beta * x * x * s * (1 - s)
            ),
        },
        pull={
            "The incoming gradient g is missing: backward returns g times the slope.": lambda g, slope: slope,
            "The incoming gradient g is added. It is multiplied, entry by entry.": lambda g, slope: g + slope,
            "g is added up. Each entry of the slope meets its own entry of g: g times the slope.": (
                lambda g, slope: g.sum() * slope
            ),
            "g is cut from the graph. The gradient's gradient with respect to g counts as well: use g itself.": (
                lambda g, slope: g.detach() * slope
            ),
        },
        value={
            "β is missing in the value: x·σ(βx).": lambda x, beta: x * x.sigmoid(),
            "The value lacks its factor x: that is σ(βx) alone.": lambda x, beta: (beta * x).sigmoid(),
            "The sign of β is lost: x·σ(βx), also where β < 0.": lambda x, beta: x * (abs(beta) * x).sigmoid(),
            "β multiplies the value too: it stands only inside of σ.": lambda x, beta: beta * x * (beta * x).sigmoid(),
        },
        bound={"Backward does not know β: keep it, ctx.beta = beta, and use it there.": lambda beta: 1.0},
        saves={
            "x is kept as an attribute. Then torch cannot notice that somebody overwrites it: ctx.save_for_backward(x).": False,
        },
    ),
    seconds=30,
)
def Swish(learner, rng):
    import torch

    def right(x, beta):
        return x * torch.sigmoid(beta * x)

    def demand(shape, beta, single=False):
        x = _tensor(rng.normal(size=shape) * 2, single)
        before, where = x.clone(), f"{len(shape)} {'axis' if len(shape) == 1 else 'axes'}, β = {beta}"
        given = learner.apply(x, beta)
        expect.true(
            torch.equal(x, before), "forward leaves x as it is", likely="An operation that ends in _ writes into x."
        )
        expect.close(given, right(x, beta), why=f"the value, {where}", source="x·torch.sigmoid(βx)", dtype=x)
        authority = lambda x: right(x, beta)  # noqa: E731
        try:
            gradients(lambda x: learner.apply(x, beta), authority, rng, why=f"the slope, {where}", x=x)
        except Complaint as complaint:
            if "a backward written by hand" in complaint.reading:
                complaint.reading = _SLOPE
            raise
        leaf, g = x.clone().requires_grad_(), torch.ones_like(x)
        torch.autograd.grad(learner.apply(leaf, beta), leaf, g)
        likely = "g *= ..., g.mul_ and the like write into g, which other branches of the graph may share. Make a new tensor."
        expect.true(bool((g == 1).all()), "backward leaves g as it is", likely=likely)

    def everywhere(values, beta, why, not_a_number):
        """Value and slope at these places; what is NaN or infinite there gets that reading."""
        likely = lambda mine, theirs: "" if np.isfinite(mine).all() else not_a_number  # noqa: E731
        a, b = (_tensor(values).requires_grad_() for _ in range(2))
        mine, theirs = learner.apply(a, beta), right(b, beta)
        expect.close(
            mine.detach(), theirs.detach(), why=f"the value {why}", source="x·torch.sigmoid(βx)", likely=likely
        )
        (mine,), (theirs,) = torch.autograd.grad(mine.sum(), a), torch.autograd.grad(theirs.sum(), b)
        expect.close(mine, theirs, why=f"the slope {why}", source="torch.autograd", likely=likely)

    def second(beta):
        """The derivative of the gradient with respect to x and to the g that came in, along a random direction."""
        x, g, way = (_tensor(rng.normal(size=6)) for _ in range(3))
        found = []
        for f in (right, learner.apply):
            a, b = x.clone().requires_grad_(), g.clone().requires_grad_()
            (pulled,) = torch.autograd.grad(f(a, beta), a, b, create_graph=True)
            likely = "Backward has to be recorded: no once_differentiable, detach, no_grad, .data or NumPy in it."
            expect.true(pulled.requires_grad, "the gradient can be differentiated again", likely=likely)
            found.append(torch.autograd.grad(pulled, (a, b), way, allow_unused=True, materialize_grads=True))
        for name, mine, theirs in zip(("x", "g"), found[1], found[0], strict=True):
            why = f"the second derivative, by {name}, β = {beta}"
            likely = "Is g cut from the graph in backward?"
            if name == "x":
                likely = _CUT if array(mine).any() else _ALL_CUT
            expect.close(mine, theirs, why=why, source="torch.autograd, twice", likely=likely)

    demand((7,), 1.7)
    demand((2, 3), -0.6)
    second(1.7)
    second(0.4)
    x = _tensor([1.0]).requires_grad_()
    y = learner.apply(x, 2)
    expect.close(y.detach(), [0.8808], why="the example above, β = 2", source="by hand", atol=1e-4)
    expect.close(torch.autograd.grad(y, x)[0], [1.0908], why="its slope", source="by hand", atol=1e-4)
    everywhere([-1.0, 0.0, 1.0], 1.5, "at -1, 0 and 1", "Is something divided by x? At x = 0 that is 0/0.")
    likely = "exp of a large number is infinite, and infinity by infinity, or times 0, is NaN. torch.sigmoid takes any number."
    everywhere([-1000.0, -60.0, 60.0, 1000.0], 1.5, "at ±60 and ±1000", likely)
    everywhere([-1000.0, 1000.0], -1.5, "at ±1000, β = -1.5", likely)
    leaf = _tensor(rng.normal(size=5)).requires_grad_()
    x = leaf * 1
    y = learner.apply(x, 1.3)
    with torch.no_grad():
        x.add_(1)
    try:
        torch.autograd.grad(y.sum(), leaf)
    except RuntimeError:
        pass
    else:
        why = "where x is overwritten between forward and backward, torch complains"
        likely = "Is x kept as an attribute of ctx? Only what ctx.save_for_backward keeps is compared with its version."
        raise Complaint(why, ["yours    no complaint, and a wrong gradient"], likely, "no complaint")
    x = _tensor(rng.normal(size=4)).requires_grad_()
    two = [torch.autograd.grad((f(x, 0.5) + 2 * f(x, 3.0)).sum(), x)[0] for f in (learner.apply, right)]
    likely = (
        "Each call has a ctx of its own. What is kept elsewhere, in the class or a global, is overwritten by the next."
    )
    expect.close(two[0], two[1], why="two calls in one graph, with two β", source="torch.autograd", likely=likely)
    for shape, beta, single in (((), 1.0, False), ((2, 1, 3), 2, False), ((4, 3), 1.5, True), ((3,), 0.0, False)):
        demand(shape, beta, single)
    x = _tensor(rng.normal(size=(3, 4))).T.clone().T.requires_grad_()
    for pulled in (lambda y: y.sum(), lambda y: (y.T @ y).sum()):
        mine, theirs = (torch.autograd.grad(pulled(f(x, 0.9)), x)[0] for f in (learner.apply, right))
        expect.close(mine, theirs, why="below a sum and below a product", source="torch.autograd")


# ------------------------------------------------------------------------------------------------ straight_through


@parts
def _straight(
    x,
    step=1.0,
    *,
    rounded=lambda x, step: step * (x / step).round(),
    joined=lambda x, q, step: x + (q - x).detach(),
):
    return joined(x, rounded(x, step), step)


@exercise(
    hints=[
        "Two tensors: x, whose gradient you want, and q = step * torch.round(x / step), whose value you want.",
        "x + (q - x) has the value of q. Its gradient is 1 if autograd takes the bracket for a constant.",
        "return x + (step * torch.round(x / step) - x).detach()",
    ],
    mistakes=_straight.mistakes(
        joined={
            "The gradient is 0: to autograd this is rounding alone, also as x + (q - x), where x cancels. Cut the difference: x + (q - x).detach().": (
                lambda x, q, step: x + (q - x)
            ),
            "No gradient comes through: too much is cut. x itself stays in the graph, only the difference is detached.": (
                lambda x, q, step: q.detach()
            ),
            "The gradient is right and the value is x: nothing is rounded.": lambda x, q, step: x * 1,
            "The gradient is multiplied by the step. It passes unchanged.": lambda x, q, step: (
                step * x + (q - step * x).detach()
            ),
            "The gradient is divided by the step. It passes unchanged.": lambda x, q, step: (
                x / step + (q - x / step).detach()
            ),
            "The gradient is -1: x is cut and the bracket is not. x + (q - x).detach() cuts the bracket alone.": (
                lambda x, q, step: x.detach() + (q - x)
            ),
            "The difference is subtracted: x + (q - x), not x - (q - x).": lambda x, q, step: x - (q - x).detach(),
        },
        rounded={
            "It stays in steps: after rounding x / step, multiply by step again.": lambda x, step: (x / step).round(),
            "It rounds x · step. Divide by the step, round, multiply.": lambda x, step: (x * step).round() / step,
            "It rounds down. The nearest multiple is wanted: torch.round.": lambda x, step: step * (x / step).floor(),
            "It cuts towards 0. The nearest multiple is wanted: torch.round.": lambda x, step: (
                step * (x / step).trunc()
            ),
            "x is rounded before it is divided: round x / step, and multiply by step then.": (
                lambda x, step: step * x.round()
            ),
            "It rounds to decimals, which makes steps of 1, 0.1, 0.01. step may be any number > 0: round x / step.": (
                lambda x, step: x.round(decimals=round(-math.log10(step)))
            ),
            "It ends at a number of steps, as 8 bits would. Here no multiple is too large.": (
                lambda x, step: step * (x / step).round().clamp(-128, 127)
            ),
            "Halves go away from 0. torch.round sends them to the even neighbour.": lambda x, step: (
                step * x.sign() * (x.abs() / step + 0.5).floor()
            ),
            "Halves go up. torch.round sends them to the even neighbour.": lambda x, step: (
                step * (x / step + 0.5).floor()
            ),
        },
    ),
    new=True,
)
def straight_through_round(learner, rng):
    import torch

    def value(x, step):
        return step * np.round(array(x).astype(float) / step)

    def passes(x, step, why):
        """The gradient with respect to x is the one that comes in."""
        try:
            gradients(lambda x: learner(x, step), lambda x: x * 1, rng, why=why, source="the identity", x=x)
        except Complaint as complaint:
            mine = complaint.yours
            if isinstance(mine, np.ndarray) and mine.any() and not mine.all():
                complaint.reading = (
                    "The gradient is 0 for some x. It passes for every x: large ones, and multiples too."
                )
            raise

    x = _tensor([-1.73, -0.41, 0.32, 0.64, 1.23, 2.78, 7.14])
    for step in (1.0, 0.25, 2.0):
        why, source = f"the nearest multiple of {step}", "NumPy, round"
        expect.close(learner(x, step), value(x, step), why=why, source=source, dtype=x)
        passes(x, step, f"the gradient of the identity, step {step}")
    expect.close(learner(x), value(x, 1.0), why="without a step: whole numbers", source="NumPy, round")
    halves = _tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    expect.close(learner(halves), np.round(array(halves)), why="halves go to the even neighbour", source="NumPy, round")
    for step in (0.5, 2.0, 8.0):  # powers of two: exact halves
        why, expected = f"halves go to the even neighbour, step {step}", step * np.round(array(halves))
        likely = "Where x / step lies halfway, torch.round takes the even neighbour, whatever the step."
        expect.close(learner(step * halves, step), expected, why=why, source="NumPy, round", likely=likely)
    passes(_tensor([-3.0, -1.0, 0.0, 0.4, 1.0, 2.0]), 1.0, "the gradient of the identity, also at multiples")
    passes(_tensor([-1.5, -0.5, 0.0, 0.4, 1.0, 2.0]), 0.5, "the gradient of the identity, also at multiples of 0.5")
    leaf = _tensor(rng.normal(size=5)).requires_grad_()
    (found,) = torch.autograd.grad(learner(3 * leaf, 0.5).square().sum(), leaf)
    expected = 6 * value(3 * leaf, 0.5)
    why = "in a longer chain: round(3w)² has the gradient 2 · round(3w) · 3"
    expect.close(found, expected, why=why, source="by hand")
    anything = floats("n", tensor=True, any_rank=True)
    for case in cases(rng, x=anything, step=numbers(0.1, 2), without={"apart": "each entry goes its own way"}):
        x, step = case.inputs
        likely = case.likely
        away = np.abs(array(x).astype(float) / step % 1 - 0.5) > 1e-3  # where rounding errors do not decide
        given = learner(x, step)
        expect.shape(given, tuple(x.shape), f"the shape of x{case}")
        expect.dtype(given, x, f"the kind of numbers of x{case}")
        mine = np.where(away, array(given), 0)
        why = f"the nearest multiple{case}"
        expect.close(mine, np.where(away, value(x, step), 0), why=why, source="NumPy, round", likely=likely)


# ------------------------------------------------------------------------------------------------ jacobian


def _rows(f, x):
    """One row for each number of f(x), each of x's shape; x keeps its requires_grad."""
    import torch

    x = x.detach().requires_grad_()
    y = f(x)
    rows = []
    for number in y.flatten():
        g = torch.autograd.grad(number, x, retain_graph=True, allow_unused=True)[0] if number.requires_grad else None
        rows.append(torch.zeros_like(x) if g is None else g)
    return y, rows


@parts
def _jacobian(f, x, *, rows=_rows, stacked=lambda y, x, J: J.reshape(*y.shape, *x.shape)):
    import torch

    y, found = rows(f, x)
    return stacked(y, x, torch.stack(found))


def _added_up(f, x):
    y, rows = _rows(f, x)
    return y, [sum(rows[: n + 1]) for n in range(len(rows))]


def _fills_x(f, x):
    """It asks the caller's x for a gradient, and leaves it so. Take x.detach().requires_grad_(): a tensor of its own."""
    import torch

    torch.autograd.grad(f(x.requires_grad_()).sum(), x, allow_unused=True)
    return _jacobian(f, x)


_QUOTIENTS = (
    "Nearly right: a quotient of differences? (f(x + h) - f(x))/h is off by about h. Autograd is exact to rounding."
)

_OF_EXCEPTIONS = {
    "a second time": "The graph is freed after one row: retain_graph=True in autograd.grad keeps it for the next.",
    "0-d tensor": "f may return one number, and x may be one, of shape (), without an axis to go along. .flatten() gives the numbers of any tensor.",
    "only for scalar": "y may have several axes, and n of `for n in y` then has several numbers. y.flatten() goes through them one by one.",
    "non-empty TensorList": "No row is left to stack. Where there is no way back to x, the row is zeros: it is not left out.",
    "does not require grad": "Does f get a tensor that requires a gradient? x comes as it is: x.detach().requires_grad_() does.",
}


@exercise(
    hints=[
        "own = x.detach().requires_grad_(), then y = f(own). y.flatten() gives the numbers one by one.",
        "torch.autograd.grad(number, own, retain_graph=True, allow_unused=True)[0] is one row, or None. Ask number.requires_grad before.",
        "Collect rows, zeros_like(own) for what has no way back, then: torch.stack(rows).reshape(*y.shape, *x.shape)",
    ],
    mistakes=_jacobian.mistakes(
        _fills_x,
        rows={
            "The rows add up from row to row: is .grad not cleared before the next, or u not set back to 0? autograd.grad of one number gives each anew.": _added_up,
        },
        stacked={
            "All is 0: f is called with another tensor than the one that grad is asked for. y = f(own), grad(number, own, ...).": lambda y, x, J: (
                0 * J.reshape(*y.shape, *x.shape)
            ),
            "Rows and columns are swapped: y's axes come first, then x's.": lambda y, x, J: J.reshape(
                y.numel(), x.numel()
            ).T.reshape(*x.shape, *y.shape),
            "It is one matrix, (numbers of y, numbers of x). The shapes are wanted: (*shape of f(x), *shape of x).": (
                lambda y, x, J: J.reshape(y.numel(), x.numel())
            ),
            "Each row is the gradient of the sum of all outputs. Row k is the gradient of number k alone.": (
                lambda y, x, J: J.sum(0).expand(*y.shape, *x.shape)
            ),
            "The rows are added up: that is the gradient of the sum of all outputs.": lambda y, x, J: J.sum(0),
            "The axes of f(x) are flattened. The shapes are wanted: (*shape of f(x), *shape of x).": lambda y, x, J: J,
            "The axes of x are flattened. The shapes are wanted: (*shape of f(x), *shape of x).": lambda y, x, J: (
                J.reshape(*y.shape, x.numel())
            ),
        },
    ),
)
def jacobian(learner, rng):
    import torch

    source = "torch.func.jacrev"

    def called(f, x, why, likely):
        def watched(z):
            shapes = [f"yours    {tuple(z.shape)}", f"expected {tuple(x.shape)}"]
            if tuple(z.shape) != tuple(x.shape):
                cure = "f takes x in the shape that it has. Only the result is flattened, to go through its numbers."
                raise Complaint(f"{why}: what f is given has the shape of x", shapes, cure, shapes)
            return f(z)

        try:
            return _without_a_way(lambda: learner(watched, x), why, likely)
        except (RuntimeError, TypeError) as error:
            words = str(error).split(". ")[0].split(" (or")[0]
            for part, cure in _OF_EXCEPTIONS.items():
                if part in words:
                    raise Complaint(why, [f"yours    {type(error).__name__}: {words}"], cure, words) from None
            raise

    def demand(f, x, why, likely=""):
        expected = torch.func.jacrev(f)(x.detach())
        before = x.requires_grad
        given = called(f, x, why, likely)
        tensor(given, why)

        def guess(mine, theirs):
            if not isinstance(theirs, np.ndarray):
                return "torch.zeros(...) alone makes float32: torch.zeros_like(x), or dtype=x.dtype." if likely else ""
            if likely and mine.shape != theirs.shape and not mine.any():
                return "Zeros, but of another shape: (*shape of f(x), *shape of x), always."
            near = mine.shape == theirs.shape and np.allclose(mine, theirs, rtol=0.02, atol=0.02)
            return _QUOTIENTS if near and mine.any() else likely

        expect.close(given, expected, why=why, source=source, dtype=x.dtype, likely=guess)
        if x.is_leaf:
            _untouched([(x, before)], "x")

    A, w = _tensor(rng.normal(size=(5, 3))), _tensor(rng.normal(size=4)).requires_grad_()
    tall, wide = lambda x: torch.tanh(A @ x), lambda x: torch.sin(A.T @ x)
    demand(tall, _tensor(rng.normal(size=3)), "from 3 numbers to 5")
    demand(wide, _tensor(rng.normal(size=5)), "from 5 numbers to 3")
    demand(lambda x: torch.sin(A[:3] @ x), _tensor(rng.normal(size=3)), "from 3 numbers to 3, not symmetric")
    demand(lambda x: (x @ A).square(), _tensor(rng.normal(size=(2, 5))), "from (2, 5) to (2, 3)")
    demand(lambda x: x.square().sum() * x[0], _tensor(rng.normal(size=4)), "from 4 numbers to one, of shape ()")
    demand(lambda x: torch.stack([x, x**2, x.sin()]), _tensor(rng.normal()), "from one number, of shape (), to 3")
    demand(lambda x: x[None, :2] * x[:, None], _tensor(rng.normal(size=3)), "from 3 numbers to (3, 2)")
    demand(lambda x: x, _tensor(rng.normal(size=3)), "the identity")
    likely = "What does not depend on x has no way back: ask number.requires_grad first; allow_unused=True then gives None where x is not used. Zeros belong there."
    some = lambda x: torch.stack([x[0] * x[1], torch.ones((), dtype=x.dtype), x[2] ** 2])  # noqa: E731
    demand(some, _tensor(rng.normal(size=3)), "one output is a constant", likely)
    demand(lambda x: torch.arange(4, dtype=x.dtype), _tensor(rng.normal(size=3)), "all outputs are constants", likely)
    weights = lambda x: w.square()  # noqa: E731
    demand(weights, _tensor(rng.normal(size=3)), "the outputs depend on weights and not on x", likely)
    _untouched([(w, True)], "weights that f uses")
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    x = _tensor(rng.normal(size=4), single=True)
    demand(lambda x: model(x), x, "a network, in single precision")
    _untouched([(p, True) for p in model.parameters()], "weights that f uses")
    x = _tensor(rng.normal(size=3)).requires_grad_()
    demand(tall, x, "x requires a gradient already")
    x.grad = torch.full_like(x, 7.0)
    expect.close(learner(tall, x), torch.func.jacrev(tall)(x.detach()), why="x has a .grad already", source=source)
    why, likely = (
        "a .grad that is there stays",
        "backward() adds to .grad; torch.autograd.grad returns, and fills none.",
    )
    cleared = "x.grad = None clears the caller's .grad. Take x.detach().requires_grad_(): a tensor of its own."
    expect.true(x.grad is not None, why, "before 7 in each entry, after None", likely=cleared)
    expect.close(x.grad, np.full(3, 7.0), why=why, source="as it was before", likely=likely)
    demand(tall, x * 2, "x comes out of a graph itself")


# ------------------------------------------------------------------------------------------------ hessian_vector_product


def _first(loss, params):
    import torch

    return torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)


@parts
def _hvp(
    loss,
    params,
    v,
    *,
    joined=lambda g, v: [sum((a * b).sum() for a, b in zip(g, v, strict=True))],
    after=lambda g, Hv, v: Hv,
):
    import torch

    g = _first(loss, params)
    scalars = [each for each in joined(g, v) if each.requires_grad]
    Hv = [torch.zeros_like(p) for p in params]
    for scalar in scalars:
        more = torch.autograd.grad(scalar, params, retain_graph=True, materialize_grads=True)
        Hv = [a + b for a, b in zip(Hv, more, strict=True)]
    return after(g, Hv, v)


_NO_GRAPH = "gᵀv has no graph: is create_graph=True missing in the first grad, or is g detached?"


def _own_blocks(loss, params, v):
    """Each tensor of weights meets only itself: the mixed derivatives are missing. One sum gᵀv over all, then one grad for all."""
    import torch

    pairs = zip(_first(loss, params), params, v, strict=True)
    return [
        torch.autograd.grad((g * each).sum(), p, retain_graph=True, materialize_grads=True)[0]
        if g.requires_grad
        else torch.zeros_like(p)
        for g, p, each in pairs
    ]


@exercise(
    hints=[
        "First the gradient with create_graph=True, one tensor for each of params. Then one number: the sum of g times v, over all.",
        "torch.autograd.grad(number, params, retain_graph=True, materialize_grads=True). If number.requires_grad is False: zeros.",
        "g = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True); number = sum((a * b).sum() for a, b in zip(g, v))",
    ],
    mistakes=_hvp.mistakes(
        _own_blocks,
        together={
            "It is the sum of each row of H, times v entry by entry: v belongs into the sum gᵀv, before the second grad.": {
                "joined": lambda g, v: [sum(each.sum() for each in g)],
                "after": lambda g, Hv, v: [a * b for a, b in zip(Hv, v, strict=True)],
            },
        },
        joined={
            "Only the last of params comes into gᵀv: is it = where += is meant? Add up over all.": lambda g, v: [
                (g[-1] * v[-1]).sum()
            ],
            "Only the first of params comes into gᵀv. Add up over all.": lambda g, v: [(g[0] * v[0]).sum()],
            "The sums of g and of v are multiplied. gᵀv is the sum of the products.": lambda g, v: [
                sum(a.sum() * b.sum() for a, b in zip(g, v, strict=True))
            ],
            "v is brought to length 1. H v is wanted for v as it is.": lambda g, v: [
                sum((a * b).sum() for a, b in zip(g, v, strict=True)) / _dot(v, v) ** 0.5
            ],
            "v is left out: that is the sum of each column of H. The number to differentiate is gᵀv.": lambda g, v: [
                sum(each.sum() for each in g)
            ],
            "The products of g and v are averaged. A scalar product adds them up.": lambda g, v: [
                sum((a * b).mean() for a, b in zip(g, v, strict=True))
            ],
            "It differentiates the squared length of g. The number is gᵀv, with the v that is given.": lambda g, v: [
                sum((a * a).sum() for a in g)
            ],
        },
        after={
            "It is the gradient times v, entry by entry. H has derivatives of the gradient: differentiate gᵀv once more.": (
                lambda g, Hv, v: [(a * b).detach() for a, b in zip(g, v, strict=True)]
            ),
            "It is the gradient itself; H v is the gradient of gᵀv.": lambda g, Hv, v: [a.detach() for a in g],
            "It is v itself: the sum runs over weights times v. The number to differentiate is gᵀv, with the gradient g.": (
                lambda g, Hv, v: [each.clone() for each in v]
            ),
            "It is g times the number gᵀv. That number is to be differentiated.": lambda g, Hv, v: [
                (a * _dot(g, v)).detach() for a in g
            ],
            "Only the last of params gets its part of H v: the second grad is asked for all params.": lambda g, Hv, v: [
                *(0 * each for each in Hv[:-1]),
                Hv[-1],
            ],
            "It is vᵀHv, or H v times v. Return H v itself.": lambda g, Hv, v: [
                a * b for a, b in zip(Hv, v, strict=True)
            ],
        },
    ),
)
def hessian_vector_product(learner, rng):
    import torch

    def dense(loss_of, params, v):
        """H as a whole matrix, times v."""
        sizes = [p.numel() for p in params]
        put = lambda flat: [part.reshape(p.shape) for part, p in zip(flat.split(sizes), params, strict=True)]  # noqa: E731
        flat = torch.cat([p.detach().flatten() for p in params])
        H = torch.autograd.functional.hessian(lambda flat: loss_of(put(flat)), flat)
        return put(H @ torch.cat([each.flatten() for each in v]))

    kept = "The graph of loss is gone after one call: retain_graph=True in the second grad, too."

    def demand(loss_of, shapes, why, single=False, likely="", zeros=""):
        """likely: where there is no way back, or None. zeros: where all that comes is 0, and H v is not."""
        params = [_tensor(rng.normal(size=shape), single).requires_grad_() for shape in shapes]
        v = [_tensor(rng.normal(size=shape), single) for shape in shapes]
        loss = loss_of(params)
        expected = dense(loss_of, params, v)
        try:
            given = _without_a_way(lambda: learner(loss, params, v), why, likely or _NO_GRAPH)
        except RuntimeError as error:
            if "second time" not in str(error):
                raise
            words = "it can be called again for the same loss"
            raise Complaint(words, ["yours    the graph is gone after one call"], kept, "freed") from None
        one_each = "One tensor for each of params, as torch.autograd.grad returns them."
        expect.kind(given, (list, tuple), f"{why}: a list", likely=one_each)
        expect.equal(len(given), len(params), why=f"{why}: as many tensors as params", source="the length")
        for n, (mine, theirs) in enumerate(zip(given, expected, strict=True)):
            expect.true(mine is not None, f"{why}: a tensor for params[{n}]", "yours    None", likely=likely)
            number = isinstance(mine, (int, float)) or (torch.is_tensor(mine) and mine.dim() == 0 < theirs.dim())
            cure = "Zeros have the shape and the dtype of the weight: torch.zeros_like(p)."
            cure = cure if number and not float(mine) and not theirs.any() else ""
            expect.true(
                torch.is_tensor(mine) or not cure, f"{why}: a tensor for params[{n}]", f"yours    {mine}", likely=cure
            )
            tensor(mine, f"{why}: part {n}")
            expect.shape(mine, tuple(theirs.shape), f"{why}: the shape of params[{n}]", likely=cure)
        flat = np.concatenate([array(mine).ravel() for mine in given])
        theirs = torch.cat([each.flatten() for each in expected])
        guess = lambda mine, theirs: zeros if zeros and not mine.any() else likely  # noqa: E731
        expect.close(flat, theirs, why=f"{why}: all in a row", source="the whole H, times v", likely=guess, rtol=1e-4)
        for mine, p in zip(given, params, strict=True):
            cure = "" if mine.any() else "torch.zeros(...) alone makes float32: torch.zeros_like(p)."
            expect.dtype(mine, p, f"{why}: the kind of numbers of params", likely=cure)
            graph = "The result holds a graph: leave create_graph out of the second grad, or detach."
            expect.true(not mine.requires_grad, "the result has no graph", likely=graph)
        _untouched([(p, True) for p in params], "params")
        return loss, params, v, given

    X = _tensor(rng.normal(size=(6, 3)))

    def network(params):
        W, b, u = params
        return ((torch.tanh(X @ W + b) @ u) ** 2).mean() + u.exp().sum()

    shapes = [(3, 4), (4,), (4,)]
    loss, params, v, given = demand(network, shapes, "a small network", zeros=_NO_GRAPH)
    second = learner(loss, params, [2 * each for each in v])
    for mine, twice in zip(given, second, strict=True):
        expect.close(twice, 2 * mine, why="another v for the same loss", source="twice the first", likely=kept)
    try:
        loss.backward()
    except RuntimeError:
        raise Complaint("the graph of loss stays: loss.backward() works afterwards", [], kept, "freed") from None
    w1, w2 = (_tensor(value).requires_grad_() for value in (1.0, 3.0))
    given = learner(w1**2 * w2, [w1, w2], [_tensor(1.0), _tensor(2.0)])
    expect.close([float(each) for each in given], [10.0, 2.0], why="the example above", source="by hand")
    likely = (
        "Where the gradient does not depend on a weight, torch gives None: materialize_grads=True makes zeros of it."
    )
    part = lambda p: (p[0] ** 3).sum() + 2 * p[1].sum()  # noqa: E731
    other = "All is 0: zeros as soon as one part of g does not require grad? Ask the number gᵀv; the other parts count."
    demand(part, [(4,), (3,)], "linear in the second of two", likely=likely, zeros=other)
    demand(lambda p: (p[0] ** 3).sum(), [(4,), (3,)], "the second of two is not used", likely=likely)
    demand(lambda p: (p[1] * p[1]).prod(), [(2,), (3,)], "the first of two is not used", likely=likely)
    zeros = "H is 0 here, and gᵀv does not require grad: ask product.requires_grad, and return zeros for each."
    demand(lambda p: 3 * p[0].sum() - p[1].sum(), [(2, 2), (3,)], "linear in all", likely=zeros)
    demand(lambda p: (p[0] * p[1]).sum(), [(3,), (3,)], "only mixed derivatives")
    demand(lambda p: p[0] ** 4, [()], "one number alone")
    demand(lambda p: p[0].square().sum() * p[1].sum(), [(2, 3), (1,)], "in single precision", single=True)
    passes = []
    w = _tensor(rng.normal(size=40)).requires_grad_()
    inner = w * 1
    inner.register_hook(lambda g: passes.append(1))
    learner((inner**4).sum(), [w], [_tensor(rng.normal(size=40))])
    likely = "A loop over the weights makes one pass for each: build H v, never H. First the sum gᵀv, then one grad."
    details = [f"yours    {len(passes)} backward passes for 40 weights, in two calls", "expected two passes in a call"]
    expect.true(
        len(passes) <= 12, "two backward passes are enough, however many weights there are", *details, likely=likely
    )
    w, v = (_tensor(rng.normal(size=300_000), single=True) for _ in range(2))
    try:
        (given,) = learner((w.requires_grad_() ** 4).sum() / 12, [w], [v])
    except (RuntimeError, MemoryError) as error:
        if "alloc" not in str(error) and not isinstance(error, MemoryError):
            raise
        why, likely = (
            "300,000 weights: H would have 9 · 10¹⁰ entries",
            "Is H, or an identity matrix of its size, built?",
        )
        raise Complaint(why, [f"yours    {str(error).splitlines()[0][:90]}"], likely, "too large") from None
    expect.close(given, (w**2 * v).detach(), why="300,000 weights", source="by hand, w² v", rtol=1e-4)


# ------------------------------------------------------------------------------------------------ largest_eigenvalue


def _drawn(like, generator):
    import torch

    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in like]


def _dot(a, b):
    return sum((x * y).sum() for x, y in zip(a, b, strict=True))


_ADDED = "Nearly right: is a number such as 1e-6 added to the length? Where H is small it counts."


@parts
def _eigenvalue(
    hvp,
    like,
    generator,
    steps=100,
    tol=1e-3,
    *,
    begin=_drawn,
    scaled=lambda v: [each / _dot(v, v) ** 0.5 for each in v],
    first=None,
    estimate=lambda v, Hv: float(_dot(v, Hv)),
    over=lambda now, before, tol: abs(now - before) <= tol * abs(now),
    allowed=lambda steps: steps,
    following=lambda Hv, like, generator: Hv,
    stopped=lambda seen: seen[-1],
    ended=lambda seen: seen[-1],
):
    v, seen = begin(like, generator), []
    for _ in range(allowed(steps)):
        if not float(_dot(v, v)):
            return 0.0
        v = first(v) if first and not seen else scaled(v)
        Hv = hvp(v)
        seen.append(estimate(v, Hv))
        if len(seen) > 1 and over(seen[-1], seen[-2], tol):
            return stopped(seen)
        v = following(Hv, like, generator)
    return ended(seen)


@exercise(
    hints=[
        "The joint length of a list is one number: the root of the sum of all squares of all tensors. Divide each tensor by it.",
        "In each round: v = [each / length ...], product = hvp(v), estimate = sum((a * b).sum() ...).item(), and v = product for the next.",
        "A length of 0 means H v was 0: return 0.0. Stop where abs(estimate - before) <= tol * abs(estimate), not in the first round.",
    ],
    mistakes=_eigenvalue.mistakes(
        estimate={
            "The sign is lost: is it the length of H v, or abs(...)? vᵀHv keeps the sign.": lambda v, Hv: float(
                _dot(Hv, Hv) ** 0.5
            ),
            "Each tensor has an estimate of its own, and the largest counts. vᵀHv is one sum over all tensors.": (
                lambda v, Hv: max(float((a * b).sum()) for a, b in zip(v, Hv, strict=True))
            ),
            "The estimate is ‖H v‖², the square of the eigenvalue: vᵀHv.": lambda v, Hv: float(_dot(Hv, Hv)),
        },
        scaled={
            "Each tensor of the list is given length 1 by itself. v is one vector: one joint length for all.": lambda v: [
                each / (each**2).sum() ** 0.5 for each in v
            ],
            "The length of v is not set to 1, so that vᵀHv grows or shrinks from round to round.": lambda v: v,
            "It divides by the square of the length: the root is missing.": lambda v: [each / _dot(v, v) for each in v],
        },
        over={
            "tol is compared with the plain difference. It is meant relative: tol times the size of the estimate.": (
                lambda now, before, tol: abs(now - before) <= tol
            ),
            "A negative estimate never ends it, or ends it at once: tol times its size, abs(estimate).": (
                lambda now, before, tol: abs(now - before) <= tol * now
            ),
            "tol is taken times the size of the estimate before. It is meant times the size of the new one.": (
                lambda now, before, tol: abs(now - before) <= tol * abs(before)
            ),
            "tol is taken times the larger of both estimates, as math.isclose does. It is meant times the size of the new one.": (
                lambda now, before, tol: abs(now - before) <= tol * max(abs(now), abs(before))
            ),
            "For a small H tol is compared with the plain difference: max(1, ...) or the like. It is always relative.": (
                lambda now, before, tol: abs(now - before) <= tol * max(1, abs(now))
            ),
            "It goes on where the difference is just tol times the estimate, as at 0: at most means <=, not <.": (
                lambda now, before, tol: abs(now - before) < tol * abs(now)
            ),
            "It stops as soon as the estimate falls, or rises: the size of the difference counts, abs(...).": (
                lambda now, before, tol: now - before <= tol * abs(now)
            ),
            "It never stops before `steps` products: compare the estimate with the one before.": (
                lambda now, before, tol: False
            ),
        },
        allowed={
            "It takes one product more than `steps` allows.": lambda steps: steps + 1,
            "It takes one product less than `steps` allows.": lambda steps: max(1, steps - 1),
        },
        first={
            "The first v is not brought to length 1, and so its vᵀHv is no estimate.": lambda v: v,
        },
        following={
            "A new v is drawn in each round. The next v is H v.": lambda Hv, like, generator: _drawn(like, generator),
            "v stays the same in each round. The next v is H v.": lambda Hv, like, generator: _drawn(
                like, torch_generator(generator.initial_seed())
            ),
        },
        stopped={
            "It ends in time and returns the estimate before the last.": lambda seen: seen[-2],
            "The largest estimate of all comes back. The last one is asked for.": max,
        },
        ended={
            "0.0 comes back where the steps run out. The last estimate is asked for.": lambda seen: 0.0,
        },
        begin={
            "It begins with ones. They may be an eigenvector of another eigenvalue, and then it never leaves: draw at random.": (
                lambda like, generator: [_drawn([p], generator)[0] * 0 + 1 for p in like]
            ),
            "It begins with numbers from 0 to 1, all on one side. Normal ones have both signs: torch.randn.": (
                lambda like, generator: [_uniform(p, generator) for p in like]
            ),
        },
    ),
)
def largest_eigenvalue(learner, rng):
    import torch

    shapes = [(2, 3), (4,), ()]

    def symmetric(eigenvalues, first=None):
        """A symmetric matrix with these eigenvalues, the first of which may belong to a given vector."""
        Q = rng.normal(size=(len(eigenvalues),) * 2)
        if first is not None:
            Q[:, 0] = first
        Q = np.linalg.qr(Q)[0]
        return Q * np.asarray(eigenvalues) @ Q.T

    def products(H, v, tol, steps=100):
        """How many products it takes from this v on, by NumPy."""
        before = None
        for n in range(1, steps + 1):
            v = v / np.linalg.norm(v)
            product = H @ v
            now = v @ product
            if before is not None and abs(now - before) <= tol * abs(now):
                return n
            v, before = product, now
        return steps

    def told(H, generator, shapes=shapes, single=False, likely="", **settings):
        """The result, and each v that was handed to hvp, in a row."""
        M, seen = _tensor(H, single), []
        like = [torch.nn.Parameter(_tensor(np.zeros(shape), single)) for shape in shapes]
        sizes = [p.numel() for p in like]

        def hvp(v):
            if not seen:
                expect.kind(v, (list, tuple), "hvp is given a list of tensors")
                expect.equal(len(v), len(like), why="hvp is given as many tensors as `like` has", source="the length")
            for each, p in zip(() if seen else v, like, strict=False):
                tensor(each, "what hvp is given")
                expect.shape(each, tuple(p.shape), "what hvp is given has the shapes of `like`")
                expect.dtype(each, p, "what hvp is given has the dtype of `like`")
            flat = torch.cat([each.detach().flatten() for each in v])
            seen.append(array(flat).copy())
            return [part.reshape(p.shape) for part, p in zip((M @ flat).split(sizes), like, strict=True)]

        given = learner(hvp, like, generator, **settings)
        expect.true(given is not None or not likely, "a Python number comes back", "yours    None", likely=likely)
        expect.kind(
            given, (float, int), "a Python number comes back", likely=".item() or float(...) makes one of a tensor."
        )
        return given, seen

    def demand(H, why, likely="", **settings):
        values = np.linalg.eigvalsh(H)
        expected = values[np.abs(values).argmax()]
        given, _ = told(H, torch_generator(int(rng.integers(1000))), tol=1e-6, steps=200, **settings)
        expect.close(given, expected, why=why, source="numpy.linalg.eigvalsh", rtol=2e-3, atol=0, likely=likely)

    rest = [2.0, 1.5, 1.0, 0.5, 0.3, 0.1, -0.2, -0.7, -1.0, -1.6]
    demand(symmetric([5.0, *rest]), "eigenvalues from -1.6 to 5")
    demand(symmetric([-6.0, *rest]), "the largest by size is negative")
    likely = "H is small here, and not 0: a bound such as 1e-6, or a number added to the length, decides. Only 0 itself is special."
    demand(1e-13 * symmetric([5.0, *rest]), "H is small: all eigenvalues below 10⁻¹²", likely)
    for steps in (1, 2, 3, 6):
        H = symmetric([5.0, -4.4, *rest[1:]])
        given, seen = told(H, torch_generator(steps), steps=steps, tol=0.0)
        details = f"yours    {len(seen)}", f"expected {steps}, for tol is 0"
        expect.equal(len(seen), steps, why=f"{steps} products where steps = {steps}, tol = 0", source=details[1])
        expected = seen[-1] @ H @ seen[-1] / (seen[-1] @ seen[-1])
        why = f"after {steps} products: vᵀHv for the last v, at length 1"
        expect.close(given, expected, why=why, source="NumPy", rtol=1e-4)

    def stops(H, seed, tol, why):
        """It ends after the right number of products, and returns the estimate of the last."""
        given, seen = told(H, torch_generator(seed), tol=tol)
        early = "It ends at the first estimate, which has none before it: 0 is not one. Compare from the second on."
        likely = early if len(seen) == 1 else ""
        wanted = products(H, seen[0], tol)
        expect.equal(len(seen), wanted, why=f"{why}: the number of products", source="counted", likely=likely)
        expected, source = seen[-1] @ H @ seen[-1] / (seen[-1] @ seen[-1]), "NumPy"
        near = lambda mine, theirs: _ADDED if abs(mine - theirs) < 0.01 * abs(theirs) else ""  # noqa: E731
        expect.close(given, expected, why=f"{why}: the last estimate", source=source, rtol=1e-6, atol=0, likely=near)

    spread = symmetric([5.0, -4.4, *rest[1:]])
    for tol, scale in ((0.3, 1.0), (0.3, -1e-3), (1e-2, 1e4), (1e-2, -1.0), (1e-4, 1.0), (1e-9, 1.0)):
        why = f"it ends at the first estimate within tol = {tol:g} of the one before, for H times {scale:g}"
        stops(scale * spread, 5, tol, why)
    H = symmetric([-3.0, 2.0, *[0.1] * 9])
    wanted = {"larger": 1, "smaller": -1}  # than the first estimate is the second
    for seed in range(100):
        _, (v, *_) = told(H, torch_generator(seed), steps=1)
        v, Hv = v / np.linalg.norm(v), H @ v
        first, second = v @ Hv / (v @ v), Hv @ H @ Hv / (Hv @ Hv)
        way = "larger" if abs(second) > abs(first) else "smaller"
        if way in wanted and abs(np.log(abs(second / first))) > 0.2:
            del wanted[way]
            tol = (abs(second - first) / abs(first) + abs(second - first) / abs(second)) / 2
            stops(H, seed, tol, f"tol = {tol:.3g}, and the second estimate is {way} than the first")
        if not wanted:
            break
    ends = [len(told(np.array([[-2.0]]), torch_generator(seed), shapes=[(1, 1)], tol=0.0)[1]) for seed in range(8)]
    why = "tol = 0: it ends where two estimates are equal, as for a 1 × 1 matrix"
    counted = f"yours    {min(ends)} products", "expected 2"
    expect.true(2 in ends, why, *counted, likely="Two equal estimates differ by 0, which is at most tol: <= and not <?")
    given, seen = told(3 * np.eye(11), torch_generator(1))
    expect.close(given, 3.0, why="three times the identity", source="by hand")
    expect.equal(len(seen), 2, why="three times the identity: two estimates agree at once", source="2 products")
    nothing = "Where H v is 0 in the first round, there is no estimate before: return 0.0."
    given, _ = told(np.zeros((11, 11)), torch_generator(1), likely=nothing)
    expect.close(given, 0.0, why="H = 0", source="by hand", likely="0/0 is NaN: return 0.0 where the length is 0.")
    demand(
        symmetric([1.0, *(4.0, 0.9, 0.8, 0.5, 0.3, 0.2, 0.1, -0.5, -0.7, -1)], np.ones(11)), "ones are an eigenvector"
    )
    demand(
        symmetric([1.0, *(4.0, 0.9, 0.8, 0.5, 0.3, 0.2, 0.1, -0.5, -0.7, -1)], np.eye(11)[0]), "(1, 0, 0, ...) is one"
    )
    demand(symmetric([5.0, *rest]), "in single precision", single=True)
    demand(symmetric([5.0, 2.0, 1.0]), "one tensor alone", shapes=[(3,)])
    demand(np.array([[-2.0]]), "a 1 × 1 matrix", shapes=[(1, 1)])
    _, (start, *_) = told(np.eye(400), torch_generator(2), shapes=[(20, 20)], steps=1)
    share = float((start > 0).mean())
    likely = "torch.randn draws normal numbers, half of them below 0; torch.rand draws from 0 to 1."
    expect.true(
        0.35 < share < 0.65, "v begins with numbers of both signs", f"yours    {share:.0%} positive", likely=likely
    )
    H = symmetric([5.0, *rest])
    why = "where v begins"
    governed(lambda generator: told(H, generator, steps=2, tol=0.0)[1][0], why=why, make=torch_generator)


def _uniform(p, generator):
    import torch

    return torch.rand(p.shape, generator=generator, dtype=p.dtype)


# ------------------------------------------------------------------------------------------------ per_sample_gradients


def _cross_entropy(logits, y, all_labels):
    import torch

    return torch.nn.functional.cross_entropy(logits, y)


def _one_by_one(model, x, y, names, loss=_cross_entropy):
    """Each example by itself, through autograd: name → (B, *shape). loss of logits (1, K), label (1,) and all labels."""
    import torch

    held = dict(model.named_parameters())
    found = {name: [] for name in names}
    for a, b in zip(x, y, strict=True):
        pulled = [held[name] for name in names]
        gs = torch.autograd.grad(loss(model(a[None]), b[None], y), pulled, materialize_grads=True)
        for name, g in zip(names, gs, strict=True):
            found[name].append(g)
    return {name: torch.stack(gs) for name, gs in found.items()}


_UNUSED = {
    "not have been used in the graph": (
        "a weight has no part in the loss",
        "Its gradient is zeros. torch.autograd.grad gives them with materialize_grads=True, torch.func.grad by itself.",
    ),
}
_OF_VMAP = {
    "mutate a captured": (
        "batch norm wants to change its running mean",
        "Is the model put into training mode? It comes in evaluation mode, and stays there.",
    ),
    "same size in the mapped dimension": (
        "vmap is to cut arguments into different numbers of pieces",
        "in_dims=(None, 0, 0): the weights are not cut, they are the same for all; x and y are cut along axis 0.",
    ),
    "to match target batch_size": (
        "logits of one example, (1, K), meet a label without an axis",
        "Within vmap y has lost its axis as well as x: F.cross_entropy(logits, y[None]).",
    ),
    "to be dictionaries": (
        "functional_call is given weights that are no dict",
        "The weights are a dict, name → tensor: {name: p.detach() for name, p in model.named_parameters() ...}.",
    ),
    "to return a scalar": (
        "grad is to differentiate several numbers at once",
        "grad inside, vmap outside: vmap(grad(loss), ...), where loss returns the one number of F.cross_entropy.",
    ),
    "forward() takes": (
        "the model is given more than x",
        "The model takes x alone, functional_call(model, weights, (x[None],)); y goes to F.cross_entropy.",
    ),
    "data-dependent control flow": (
        "vmap cannot run an operation whose way depends on the numbers",
        "In vmap there is no .item(), no if on a tensor and no F.one_hot. F.cross_entropy(logits, y[None]) needs none.",
    ),
}


_NO_DICT = {
    "Tensor": "grad differentiates by the first argument alone: the weights come first, loss(weights, x, y).",
    "list": "grad gives back what its first argument is: hand it the dict of weights, and return its dict.",
    "tuple": "grad gives back what its first argument is: hand it the dict of weights, and return its dict.",
    "function": "vmap(grad(loss), ...) is a function: call it, with (weights, x, y).",
}


@parts
def _per_sample(
    model,
    x,
    y,
    *,
    names=lambda model: [name for name, p in model.named_parameters() if p.requires_grad],
    made=lambda g, B: g,
    key=lambda name: name,
    loss=_cross_entropy,
):
    found = _one_by_one(model, x, y, names(model), loss)
    return {key(name): made(g, len(x)) for name, g in found.items()}


@exercise(
    hints=[
        "Three pieces: a dict of weights, a function loss(weights, x, y) of one example, and vmap(grad(loss), in_dims=(None, 0, 0)).",
        "In loss: torch.func.functional_call(model, weights, (x[None],)) gives (1, K), and F.cross_entropy(logits, y[None]) one number.",
        "weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}; vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, y)",
    ],
    mistakes=_per_sample.mistakes(
        made={
            "It is the gradient of the batch, the same for all. vmap cuts x and y along axis 0: in_dims=(None, 0, 0).": (
                lambda g, B: g.mean(0).expand_as(g)
            ),
            "All is 0: the weights that grad is given are not used. functional_call(model, weights, (x[None],)), not model(x[None]).": (
                lambda g, B: 0 * g
            ),
            "Gradients add up from example to example: .grad is not cleared before the next backward().": (
                lambda g, B: g.cumsum(0)
            ),
            "It is divided by the batch size. Each example's own loss counts, not its share of the mean.": (
                lambda g, B: g / B
            ),
            "All examples are added up: there has to be a first axis of length B.": lambda g, B: g.sum(0),
            "All examples are averaged: there has to be a first axis of length B.": lambda g, B: g.mean(0),
            "The gradient has the wrong sign.": lambda g, B: -g,
            "The axis of the examples comes last: it is the first, (B, *shape). Is out_dims set?": lambda g, B: (
                g.movedim(0, -1)
            ),
            "The squares are returned; the gradients themselves are asked for.": lambda g, B: g**2,
            "The lengths are returned; the gradients themselves are asked for.": lambda g, B: g.flatten(1).norm(dim=1),
        },
        loss={
            "A softmax stands before cross_entropy, which takes logits and has its own inside.": lambda z, y, labels: (
                _cross_entropy(z.softmax(1), y, labels)
            ),
            "The logarithm is missing: nll_loss takes log_softmax. F.cross_entropy does both.": lambda z, y, labels: (
                -z.softmax(1)[0, y[0]]
            ),
            "It is the gradient of y's logit alone. The loss is F.cross_entropy(logits, y).": lambda z, y, labels: (
                -z[0, y[0]]
            ),
            "The loss is a squared error. Cross-entropy is asked for.": lambda z, y, labels: (
                (z[0] - z.new_ones(z.shape[1]).diag()[y[0]]).square().sum()
            ),
            "The loss is a mean squared error. Cross-entropy is asked for.": lambda z, y, labels: (
                (z[0] - z.new_ones(z.shape[1]).diag()[y[0]]).square().mean()
            ),
            "The labels are smoothed (label_smoothing=0.1). Plain cross-entropy is asked for.": lambda z, y, labels: (
                0.9 * _cross_entropy(z, y, labels) - 0.1 * z.log_softmax(1).mean()
            ),
            "The loss is that of the predicted class. It is each example's label, y, that counts.": lambda z, y, labels: (
                _cross_entropy(z, z.argmax(1), labels)
            ),
            "Each example meets the labels of all: y is cut along axis 0 as well, in_dims=(None, 0, 0).": (
                lambda z, y, labels: _cross_entropy(z.expand(len(labels), -1), labels, labels)
            ),
        },
    ),
    seconds=60,  # the first use of torch.func imports for seconds
)
def per_sample_gradients(learner, rng):
    import torch
    from torch import nn

    class Scaled(nn.Module):
        """Divides by a buffer, and has a weight that is used twice."""

        def __init__(self, width):
            super().__init__()
            self.register_buffer("spread", torch.tensor(rng.uniform(0.5, 2, size=width)))
            self.mix = nn.Parameter(torch.tensor(rng.normal(size=(width, width))))

        def forward(self, x):
            return torch.tanh(x / self.spread @ self.mix) @ self.mix

    class Apart(nn.Module):
        """Has a weight that learns and is never used."""

        def __init__(self, width):
            super().__init__()
            self.mix = nn.Parameter(torch.ones(width, width))
            self.idle = nn.Parameter(torch.ones(width))

        def forward(self, x):
            return torch.tanh(x @ self.mix)

    class Model(nn.Sequential):
        """Layers one after the other; wants a batch of examples with so many axes."""

        def forward(self, x):
            lost = "Within vmap an example has lost its batch axis, and a model wants one: x[None]."
            shown = [f"yours    {x.dim()} axes, {tuple(x.shape)}", f"expected {self.axes} axes"]
            if x.dim() != self.axes:
                cure = (
                    lost if x.dim() == self.axes - 1 else "Each example keeps its own shape, below one axis of a batch."
                )
                raise Complaint("the model is given a batch, (B, ...)", shown, cure, shown)
            return super().forward(x)

    def made(*layers, axes=2):
        model = Model(*layers).double().eval()
        model.axes = axes
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.tensor(rng.normal(size=tuple(p.shape))) / math.sqrt(max(p.shape)))
        return model

    def demand(model, x, why, likely="", unused=()):
        x = x if torch.is_tensor(x) else _tensor(x)
        y = torch.tensor(rng.integers(3, size=len(x)))
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        expected = _one_by_one(model, x, y, names)
        try:
            given = learner(model, x, y)
        except (RuntimeError, TypeError, ValueError) as error:
            for part, (words, cure) in [*_OF_VMAP.items(), *unused]:
                if part in str(error):
                    raise Complaint(why, [f"yours    {words}"], cure, words) from None
            raise
        thawed = [name for name, p in model.named_parameters() if p.requires_grad != (name in names)]
        cure = "requires_grad_ stays for good. Choose by it, and set it nowhere."
        expect.true(not thawed, "which weights of the model learn stays as it is", f"changed  {thawed}", likely=cure)
        expect.kind(given, dict, f"{why}: a dict, name → gradients", likely=_NO_DICT.get(type(given).__name__, ""))
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad and name in given]
        cure = "Leave out what does not learn: if p.requires_grad. functional_call takes it from the model."
        expect.true(not frozen, f"{why}: no gradient for what is frozen", f"yours    {', '.join(frozen)}", likely=cure)
        missing = [name for name in names if name not in given]
        has = f"your keys {', '.join(map(str, given))}"
        expect.true(not missing, f"{why}: the parameters' names", f"missing   {', '.join(missing)}", has)
        expect.true(len(given) == len(names), f"{why}: nothing but the parameters that learn", has)

        def guess(mine, theirs):
            if not isinstance(theirs, np.ndarray):
                return ""  # the dtype is wrong
            if mine.ndim and mine.shape[1:] == theirs.shape[1:] and 0 < len(mine) < len(theirs):
                n = len(mine)
                alike = np.allclose(mine, theirs[:n])
                return (
                    f"The first {n} of {len(x)} examples are there. Is a last, smaller piece left out?" if alike else ""
                )
            return likely

        for name, theirs in expected.items():
            tensor(given[name], f"{why}: {name}")
            rule, source = f"{why}: {name}", "a loop, one example at a time"
            expect.close(given[name], theirs, why=rule, source=source, likely=guess, dtype=theirs.dtype)
            kept = "Detach the weights before: {name: p.detach() ...}, or the result after."
            expect.true(not given[name].requires_grad, f"{why}: the result has no graph", likely=kept)

    mlp = made(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    demand(mlp, rng.normal(size=(6, 4)), "a network, B = 6")
    why = "a weight without a part in the loss: zeros"
    demand(made(Apart(4), nn.Linear(4, 3)), rng.normal(size=(4, 4)), why, unused=_UNUSED.items())
    demand(mlp, rng.normal(size=(1, 4)), "a batch of one", "Is the first axis lost (squeeze), or a mean taken?")
    for p in mlp.parameters():
        p.grad = torch.ones_like(p)
    demand(mlp, rng.normal(size=(3, 4)), "weights that have a .grad already")
    part = made(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.Linear(3, 3))
    part[0].requires_grad_(False)
    part[3].bias.requires_grad_(False)
    demand(part, rng.normal(size=(4, 4)), "a model with frozen weights")
    demand(made(Scaled(4), nn.Linear(4, 3)), rng.normal(size=(5, 4)), "a model with a buffer, a weight used twice")
    norm = made(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    norm[1].running_mean.copy_(_tensor(rng.normal(size=5)))
    norm[1].running_var.copy_(_tensor(rng.uniform(0.5, 3, size=5)))
    demand(norm, rng.normal(size=(4, 4)), "batch norm in evaluation mode")
    picture = made(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3, bias=False), axes=4)
    demand(picture, rng.normal(size=(3, 2, 4, 4)), "images, with a convolution")
    demand(made(nn.Linear(4, 3)).float(), _tensor(rng.normal(size=(3, 4)), single=True), "in single precision")


# ------------------------------------------------------------------------------------------------ gradient_norms


_ONE = "One example is a batch of one: the result has shape (1,). squeeze() takes that axis too, and is not needed."


@parts
def _norms(
    inputs,
    deltas,
    *,
    layer=lambda a, d: (d**2).sum(1) * ((a**2).sum(1) + 1),
    paired=lambda deltas: deltas,
    joined=lambda squares: sum(squares) ** 0.5,
):
    return joined([layer(a, d) for a, d in zip(inputs, paired(deltas), strict=True)])


def _last_bias(inputs, deltas):
    """Only the last layer's bias counts. Each layer has one: ‖δ‖²(‖a‖² + 1) within the sum."""
    squares = [(d**2).sum(1) * (a**2).sum(1) for a, d in zip(inputs, deltas, strict=True)]
    return (sum(squares) + (deltas[-1] ** 2).sum(1)) ** 0.5


def _concatenated(inputs, deltas):
    """All layers are joined to one before the product, and δ of one layer meets a of another. Multiply layer by layer."""
    import torch

    return _norms([torch.cat(inputs, 1)], [torch.cat(deltas, 1)])


@exercise(
    hints=[
        "For one layer: two numbers for each example, ‖δ‖² and ‖a‖², each a sum along axis 1.",
        "zip(inputs, deltas) goes through the layers. Add up squares over layers, and take the root once, at the end.",
        "squares = [(d**2).sum(1) * ((a**2).sum(1) + 1) for a, d in zip(inputs, deltas)], then: return sum(squares).sqrt()",
    ],
    mistakes=_norms.mistakes(
        _last_bias,
        _concatenated,
        together={
            "Absolute values are added up. A length takes squares, and one root at the end.": {
                "layer": lambda a, d: d.abs().sum(1) * (a.abs().sum(1) + 1),
                "joined": sum,
            },
        },
        paired={"The layers are paired in reverse: inputs[k] belongs to deltas[k].": lambda deltas: deltas[::-1]},
        layer={
            "The lengths are not squared: ‖δ‖²(‖a‖² + 1).": lambda a, d: d.norm(dim=1) * (a.norm(dim=1) + 1),
            "The 1 stands with δ: (‖δ‖² + 1)‖a‖². The bias's gradient is δ, which makes ‖δ‖²(‖a‖² + 1).": lambda a, d: (
                ((d**2).sum(1) + 1) * (a**2).sum(1)
            ),
            "‖a‖² is summed over all examples. Each has its own: sum along axis 1.": lambda a, d: (
                (d**2).sum(1) * ((a**2).sum() + 1)
            ),
            "Each example's δ meets the inputs of all examples. Row n of one belongs to row n of the other.": (
                lambda a, d: (d**2).sum(1) * ((a**2).sum(1) + 1).sum()
            ),
            "The biases are missing: their gradient is δ itself, which makes ‖a‖² + 1.": lambda a, d: (
                (d**2).sum(1) * (a**2).sum(1)
            ),
            "Only the biases are there: the weights' gradient is the outer product δaᵀ, with ‖δ‖²‖a‖².": lambda a, d: (
                d**2
            ).sum(1),
            "‖δ‖² and ‖a‖² + 1 are added. An outer product multiplies them.": lambda a, d: (
                (d**2).sum(1) + (a**2).sum(1) + 1
            ),
            "The 1 is added to each entry's square: (a² + 1) summed counts it once for each entry.": lambda a, d: (
                (d**2).sum(1) * (a**2 + 1).sum(1)
            ),
            "The 1 stands outside of the product: ‖δ‖²(‖a‖² + 1).": lambda a, d: (d**2).sum(1) * (a**2).sum(1) + 1,
            "The roots come too early: ‖δ‖·(‖a‖ + 1) is not it. Squares first, one root at the end.": lambda a, d: (
                ((d**2).sum(1) ** 0.5 * ((a**2).sum(1) ** 0.5 + 1)) ** 2
            ),
            "The squares are averaged over the entries. A length adds them up: sum(1).": lambda a, d: (
                (d**2).mean(1) * ((a**2).mean(1) + 1)
            ),
            "The entries are added up and then squared. Square each one first.": lambda a, d: (
                d.sum(1) ** 2 * (a.sum(1) ** 2 + 1)
            ),
            "It sums over the examples as well: one length for each, so sum along axis 1 alone.": lambda a, d: (
                (d**2).sum() * ((a**2).sum() + 1)
            ).expand(len(a)),
            "One length comes for all examples. Each has its own: sum along axis 1 alone.": lambda a, d: (
                (d**2).sum() * ((a**2).sum() + 1)
            ),
            "The sums run along axis 0, over the examples. Each has its own: sum along axis 1.": lambda a, d: (
                (d**2).sum(0) * ((a**2).sum(0) + 1)
            ),
        },
        joined={
            "The root is missing at the end.": sum,
            "It is divided by the number of examples. Each example has its own gradient, and no mean is taken.": (
                lambda squares: sum(squares) ** 0.5 / len(squares[0])
            ),
            "The layers' lengths are added. Their squares add up, and one root comes at the end.": lambda squares: sum(
                each**0.5 for each in squares
            ),
            "Only the last layer counts. All layers' squares add up.": lambda squares: squares[-1] ** 0.5,
            "Only the first layer counts. All layers' squares add up.": lambda squares: squares[0] ** 0.5,
            "The layers are multiplied. Their squares add up.": lambda squares: (
                math.prod(squares[1:], start=squares[0]) ** 0.5
            ),
            "The layers are averaged. Their squares add up.": lambda squares: (sum(squares) / len(squares)) ** 0.5,
            "The largest layer counts alone. All layers' squares add up.": lambda squares: (
                functools.reduce(lambda a, b: a.maximum(b), squares) ** 0.5
            ),
        },
    ),
)
def gradient_norms(learner, rng):
    import torch
    from torch import nn

    def squeezed(mine, theirs):
        return _ONE if isinstance(theirs, np.ndarray) and theirs.shape == (1,) and not mine.shape else ""

    def demand(N, widths, why, single=False):
        inputs = [_tensor(rng.normal(size=(N, n)), single) for n in widths[:-1]]
        deltas = [_tensor(rng.normal(size=(N, n)), single) for n in widths[1:]]
        whole = [torch.einsum("no,ni->noi", d, a).flatten(1) for a, d in zip(inputs, deltas, strict=True)]
        expected = torch.cat([*whole, *deltas], 1).double().norm(dim=1)
        given = learner(inputs, deltas)
        source = "all gradients written out"
        expect.close(given, expected, why=why, source=source, dtype=inputs[0], likely=squeezed)

    demand(5, (4, 3, 6), "two layers, five examples")
    demand(4, (2, 7), "one layer")
    demand(3, (5, 2, 4, 3), "three layers")
    given = learner([_tensor([[1.0, 2.0, 2.0]])], [_tensor([[3.0, 4.0]])])
    expect.close(given, [math.sqrt(250)], why="the example above", source="by hand", likely=squeezed)
    demand(1, (4, 3, 2), "one example")
    demand(3, (3, 3, 3), "as many examples as neurons")
    demand(4, (1, 1, 1), "layers of one neuron")
    demand(6, (4, 3, 2), "in single precision", single=True)
    zero = learner([_tensor(np.ones((2, 3)))], [_tensor([[0.0, 0.0], [1.0, 0.0]])])
    expect.close(zero, [0.0, 2.0], why="an example without gradient", source="by hand")
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = _tensor(rng.normal(size=(4, 4))), torch.tensor(rng.integers(3, size=4))
    hidden = model[0](x)
    active = model[1](hidden)
    logits = model[2](active)
    loss = nn.functional.cross_entropy(logits, y, reduction="sum")
    deltas = torch.autograd.grad(loss, [hidden, logits])
    found = _one_by_one(model, x, y, [name for name, _ in model.named_parameters()])
    expected = sum((g**2).flatten(1).sum(1) for g in found.values()).sqrt()
    given = learner([x, active.detach()], list(deltas))
    expect.close(given, expected, why="a network with cross-entropy", source="torch.autograd, one example at a time")
