"""The checks of tensors-and-autograd: one for each exercise, with its hints. `lab.check` runs them.

Views are held to storage pointers, derivatives to torch.autograd on another way: dense Hessians, loops over examples.
"""

import functools
import math

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
    for letter, (words, operation, reason) in _OPERATIONS.items():
        x = torch.arange(24.0).reshape(4, 6)
        expect.kind(
            given[letter], (bool, np.bool_), f"{letter} is True or False", likely="True: shared; False: a copy."
        )
        why = f"{letter}: does {words} lie in the storage of x?"
        expect.equal(given[letter], _share(operation(x), x), why=why, source="both storage pointers", likely=reason)


# ------------------------------------------------------------------------------------------------ windows


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

    def demand(x, k, why, writes=False):
        expected = x.unfold(-2, k, 1).unfold(-2, k, 1)
        given = learner(x, k)
        tensor(given, why)
        expect.close(given, expected, why=why, source=source, dtype=x.dtype)
        if writes:
            why = "all windows lie in the storage of x: nothing is copied"
            likely = "contiguous, clone, reshape, stack and the like copy. as_strided alone does not."
            expect.true(_share(given, x), why, "yours    other memory", likely=likely)
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
            x, s = ctx.saved_tensors if own.saves else ctx.kept
            return own.pull(g, own.slope(x, own.again(x, s, ctx.beta), ctx.beta)), None

    return Swish


_CONSTANT = "The first derivative is right, the second is not: in backward σ(βx) counts as a constant. If forward made it, it was never recorded: compute it again in backward, from the saved x. If backward makes it: is x detached there?"

_CUT = "The first derivative is right, the second is not: in backward something counts as a constant that is none. A tensor that forward made, .detach(), no_grad or once_differentiable?"


@exercise(
    hints=[
        "Forward needs three lines: save x, note beta, return the value. Backward computes σ(βx) once more, from the saved x.",
        "ctx.save_for_backward(x) and ctx.beta = beta; in backward (x,) = ctx.saved_tensors, and one result for each of the two arguments.",
        "s = torch.sigmoid(ctx.beta * x), then: return g * (s + ctx.beta * x * s * (1 - s)), None",
    ],
    mistakes=parts(_SwishParts).mistakes(
        again={_CONSTANT: lambda x, s, beta: s},
        slope={
            "The slope lacks its second term: x stands twice in xσ(βx), and both places count.": lambda x, s, beta: s,
            "The slope lacks its first term: s + βx·s(1 - s).": lambda x, s, beta: beta * x * s * (1 - s),
            "The second term lacks β: the inner derivative of σ(βx).": lambda x, s, beta: s + x * s * (1 - s),
            "The second term lacks x: s + βx·s(1 - s).": lambda x, s, beta: s + beta * s * (1 - s),
            "σ' is s(1 - s), not 1 - s²: that is tanh's.": lambda x, s, beta: s + beta * x * (1 - s**2),
            "σ' is s(1 - s); the 1 - s is missing.": lambda x, s, beta: s + beta * x * s,
        },
        pull={
            "The incoming gradient g is missing: backward returns g times the slope.": lambda g, slope: slope,
            "The incoming gradient g is added. It is multiplied, entry by entry.": lambda g, slope: g + slope,
            "g is cut from the graph. The gradient's gradient with respect to g counts as well: use g itself.": (
                lambda g, slope: g.detach() * slope
            ),
        },
        value={
            "β is missing in the value: x·σ(βx).": lambda x, beta: x * x.sigmoid(),
            "The value lacks its factor x: that is σ(βx) alone.": lambda x, beta: (beta * x).sigmoid(),
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
        before, where = x.clone(), f"{len(shape)} axes, β = {beta}"
        given = learner.apply(x, beta)
        expect.true(
            torch.equal(x, before), "forward leaves x as it is", likely="An operation that ends in _ writes into x."
        )
        expect.close(given, right(x, beta), why=f"the value, {where}", source="x·torch.sigmoid(βx)", dtype=x)
        authority = lambda x: right(x, beta)  # noqa: E731
        gradients(lambda x: learner.apply(x, beta), authority, rng, why=f"the slope, {where}", x=x)

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
            likely = _CUT if name == "x" else "Is g cut from the graph in backward?"
            expect.close(mine, theirs, why=why, source="torch.autograd, twice", likely=likely)

    demand((7,), 1.7)
    demand((2, 3), -0.6)
    second(1.7)
    second(0.4)
    x = _tensor([1.0]).requires_grad_()
    y = learner.apply(x, 2)
    expect.close(y.detach(), [0.8808], why="the example above, β = 2", source="by hand", atol=1e-4)
    expect.close(torch.autograd.grad(y, x)[0], [1.0908], why="its slope", source="by hand", atol=1e-4)
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
            "The difference is subtracted: x + (q - x), not x - (q - x).": lambda x, q, step: x - (q - x).detach(),
        },
        rounded={
            "It stays in steps: after rounding x / step, multiply by step again.": lambda x, step: (x / step).round(),
            "It rounds x · step. Divide by the step, round, multiply.": lambda x, step: (x * step).round() / step,
            "It rounds down. The nearest multiple is wanted: torch.round.": lambda x, step: step * (x / step).floor(),
            "It cuts towards 0. The nearest multiple is wanted: torch.round.": lambda x, step: (
                step * (x / step).trunc()
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

    x = _tensor([-1.7, -0.4, 0.3, 0.6, 1.2, 2.8, 7.1])
    for step in (1.0, 0.25, 2.0):
        why, source = f"the nearest multiple of {step}", "NumPy, round"
        expect.close(learner(x, step), value(x, step), why=why, source=source, dtype=x)
        identity = lambda x: x * 1  # noqa: E731
        why = f"the gradient of the identity, step {step}"
        gradients(lambda x, s=step: learner(x, s), identity, rng, why=why, source="the identity", x=x)
    expect.close(learner(x), value(x, 1.0), why="without a step: whole numbers", source="NumPy, round")
    halves = _tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    expect.close(learner(halves), np.round(array(halves)), why="halves go to the even neighbour", source="NumPy, round")
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


@exercise(
    hints=[
        "Detach x and let the copy require a gradient; y = f(copy). Then y.flatten() gives the numbers one by one.",
        "torch.autograd.grad(number, x, retain_graph=True, allow_unused=True)[0] is one row, or None. Ask number.requires_grad before.",
        "Collect rows, zeros_like(x) for what has no way back, then: torch.stack(rows).reshape(*y.shape, *x.shape)",
    ],
    mistakes=_jacobian.mistakes(
        _fills_x,
        rows={
            "Gradients add up from row to row: .grad is not cleared, or x.grad itself is kept. autograd.grad gives each row anew.": _added_up,
        },
        stacked={
            "Rows and columns are swapped: y's axes come first, then x's.": lambda y, x, J: J.reshape(
                y.numel(), x.numel()
            ).T.reshape(*x.shape, *y.shape),
            "It is one matrix, (numbers of y, numbers of x). The shapes are wanted: (*shape of f(x), *shape of x).": (
                lambda y, x, J: J.reshape(y.numel(), x.numel())
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

    def demand(f, x, why, likely=""):
        expected = torch.func.jacrev(f)(x.detach())
        before = x.requires_grad
        given = _without_a_way(lambda: learner(f, x), why, likely)
        tensor(given, why)
        expect.close(given, expected, why=why, source=source, dtype=x.dtype, likely=likely)
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
        joined={
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

    def demand(loss_of, shapes, why, single=False, likely=""):
        params = [_tensor(rng.normal(size=shape), single).requires_grad_() for shape in shapes]
        v = [_tensor(rng.normal(size=shape), single) for shape in shapes]
        loss = loss_of(params)
        expected = dense(loss_of, params, v)
        try:
            given = _without_a_way(lambda: learner(loss, params, v), why, likely)
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
            tensor(mine, f"{why}: part {n}")
            expect.shape(mine, tuple(theirs.shape), f"{why}: the shape of params[{n}]")
        flat = np.concatenate([array(mine).ravel() for mine in given])
        theirs = torch.cat([each.flatten() for each in expected])
        expect.close(flat, theirs, why=f"{why}: all in a row", source="the whole H, times v", likely=likely, rtol=1e-4)
        for mine, p in zip(given, params, strict=True):
            expect.dtype(mine, p, f"{why}: the kind of numbers of params")
            graph = "The result holds a graph: leave create_graph out of the second grad, or detach."
            expect.true(not mine.requires_grad, "the result has no graph", likely=graph)
        _untouched([(p, True) for p in params], "params")
        return loss, params, v, given

    X = _tensor(rng.normal(size=(6, 3)))

    def network(params):
        W, b, u = params
        return ((torch.tanh(X @ W + b) @ u) ** 2).mean() + u.exp().sum()

    shapes = [(3, 4), (4,), (4,)]
    loss, params, v, given = demand(network, shapes, "a small network")
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
    demand(part, [(4,), (3,)], "linear in the second of two", likely=likely)
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
    estimate=lambda v, Hv: float(_dot(v, Hv)),
    over=lambda now, before, tol: abs(now - before) <= tol * abs(now),
    allowed=lambda steps: steps,
):
    v, now = begin(like, generator), None
    for _ in range(allowed(steps)):
        if not float(_dot(v, v)):
            return 0.0
        v = scaled(v)
        Hv = hvp(v)
        before, now = now, estimate(v, Hv)
        if before is not None and over(now, before, tol):
            break
        v = Hv
    return now


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

    def told(H, generator, shapes=shapes, single=False, **settings):
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
        expect.kind(
            given, (float, int), "a Python number comes back", likely=".item() or float(...) makes one of a tensor."
        )
        return given, seen

    def demand(H, why, likely="", **settings):
        values = np.linalg.eigvalsh(H)
        expected = values[np.abs(values).argmax()]
        given, _ = told(H, torch_generator(int(rng.integers(1000))), tol=1e-6, steps=200, **settings)
        expect.close(given, expected, why=why, source="numpy.linalg.eigvalsh", rtol=2e-3, likely=likely)

    rest = [2.0, 1.5, 1.0, 0.5, 0.3, 0.1, -0.2, -0.7, -1.0, -1.6]
    demand(symmetric([5.0, *rest]), "eigenvalues from -1.6 to 5")
    demand(symmetric([-6.0, *rest]), "the largest by size is negative")
    for steps in (1, 2, 3, 6):
        H = symmetric([5.0, -4.4, *rest[1:]])
        given, seen = told(H, torch_generator(steps), steps=steps, tol=0.0)
        details = f"yours    {len(seen)}", f"expected {steps}, for tol is 0"
        expect.equal(len(seen), steps, why=f"{steps} products where steps = {steps}, tol = 0", source=details[1])
        expected = seen[-1] @ H @ seen[-1] / (seen[-1] @ seen[-1])
        why = f"after {steps} products: vᵀHv for the last v, at length 1"
        expect.close(given, expected, why=why, source="NumPy", rtol=1e-4)
    spread = symmetric([5.0, -4.4, *rest[1:]])
    for tol, scale in ((0.3, 1.0), (0.3, -1e-3), (1e-2, 1e4), (1e-2, -1.0), (1e-4, 1.0), (1e-9, 1.0)):
        _, seen = told(scale * spread, torch_generator(5), tol=tol)
        estimates = [scale * (v @ spread @ v) / (v @ v) for v in seen]
        near = [abs(b - a) <= tol * abs(b) for a, b in zip(estimates, estimates[1:], strict=False)]
        expected = near.index(True) + 2 if True in near else 100
        why = f"it ends at the first estimate within tol = {tol:g} of the one before, for H times {scale:g}"
        expect.equal(len(seen), expected, why=f"{why}: the number of products", source="counted")
    given, seen = told(3 * np.eye(11), torch_generator(1))
    expect.close(given, 3.0, why="three times the identity", source="by hand")
    expect.equal(len(seen), 2, why="three times the identity: two estimates agree at once", source="2 products")
    given, _ = told(np.zeros((11, 11)), torch_generator(1))
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


def _one_by_one(model, x, y, names):
    """Each example by itself, through autograd: name → (B, *shape)."""
    import torch

    held = dict(model.named_parameters())
    found = {name: [] for name in names}
    for a, b in zip(x, y, strict=True):
        loss = torch.nn.functional.cross_entropy(model(a[None]), b[None])
        for name, g in zip(names, torch.autograd.grad(loss, [held[name] for name in names]), strict=True):
            found[name].append(g)
    return {name: torch.stack(gs) for name, gs in found.items()}


@parts
def _per_sample(
    model,
    x,
    y,
    *,
    names=lambda model: [name for name, p in model.named_parameters() if p.requires_grad],
    made=lambda g, B: g,
    key=lambda name: name,
):
    found = _one_by_one(model, x, y, names(model))
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
            "It is divided by the batch size. Each example's own loss counts, not its share of the mean.": (
                lambda g, B: g / B
            ),
            "All examples are added up: there has to be a first axis of length B.": lambda g, B: g.sum(0),
            "All examples are averaged: there has to be a first axis of length B.": lambda g, B: g.mean(0),
            "The gradient has the wrong sign.": lambda g, B: -g,
            "The squares are returned; the gradients themselves are asked for.": lambda g, B: g**2,
            "The lengths are returned; the gradients themselves are asked for.": lambda g, B: g.flatten(1).norm(dim=1),
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

    def made(*layers):
        model = nn.Sequential(*layers).double().eval()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.tensor(rng.normal(size=tuple(p.shape))) / math.sqrt(max(p.shape)))
        return model

    def demand(model, x, why, likely=""):
        x = x if torch.is_tensor(x) else _tensor(x)
        y = torch.tensor(rng.integers(3, size=len(x)))
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        expected = _one_by_one(model, x, y, names)
        try:
            given = learner(model, x, y)
        except RuntimeError as error:
            if "mutate a captured" not in str(error):
                raise
            cure = "Is the model put into training mode? It comes in evaluation mode, and stays there."
            raise Complaint(why, ["yours    batch norm wants to change its running mean"], cure, "mutates") from None
        thawed = [name for name, p in model.named_parameters() if p.requires_grad != (name in names)]
        cure = "requires_grad_ stays for good. Choose by it, and set it nowhere."
        expect.true(not thawed, "which weights of the model learn stays as it is", f"changed  {thawed}", likely=cure)
        expect.kind(given, dict, f"{why}: a dict, name → gradients")
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad and name in given]
        cure = "Leave out what does not learn: if p.requires_grad. functional_call takes it from the model."
        expect.true(not frozen, f"{why}: no gradient for what is frozen", f"yours    {', '.join(frozen)}", likely=cure)
        missing = [name for name in names if name not in given]
        has = f"your keys {', '.join(map(str, given))}"
        expect.true(not missing, f"{why}: the parameters' names", f"missing   {', '.join(missing)}", has)
        expect.true(len(given) == len(names), f"{why}: nothing but the parameters that learn", has)
        for name, theirs in expected.items():
            tensor(given[name], f"{why}: {name}")
            rule, source = f"{why}: {name}", "a loop, one example at a time"
            expect.close(given[name], theirs, why=rule, source=source, likely=likely, dtype=theirs.dtype)
            kept = "Detach the weights before: {name: p.detach() ...}, or the result after."
            expect.true(not given[name].requires_grad, f"{why}: the result has no graph", likely=kept)

    mlp = made(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    demand(mlp, rng.normal(size=(6, 4)), "a network, B = 6")
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
    picture = made(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3, bias=False))
    demand(picture, rng.normal(size=(3, 2, 4, 4)), "images, with a convolution")
    demand(made(nn.Linear(4, 3)).float(), _tensor(rng.normal(size=(3, 4)), single=True), "in single precision")


# ------------------------------------------------------------------------------------------------ gradient_norms


@parts
def _norms(
    inputs,
    deltas,
    *,
    layer=lambda a, d: (d**2).sum(1) * ((a**2).sum(1) + 1),
    joined=lambda squares: sum(squares) ** 0.5,
):
    return joined([layer(a, d) for a, d in zip(inputs, deltas, strict=True)])


@exercise(
    hints=[
        "For one layer: two numbers for each example, ‖δ‖² and ‖a‖², each a sum along axis 1.",
        "zip(inputs, deltas) goes through the layers. Add up squares over layers, and take the root once, at the end.",
        "squares = [(d**2).sum(1) * ((a**2).sum(1) + 1) for a, d in zip(inputs, deltas)], then: return sum(squares).sqrt()",
    ],
    mistakes=_norms.mistakes(
        layer={
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
        },
        joined={
            "The root is missing at the end.": sum,
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

    def demand(N, widths, why, single=False):
        inputs = [_tensor(rng.normal(size=(N, n)), single) for n in widths[:-1]]
        deltas = [_tensor(rng.normal(size=(N, n)), single) for n in widths[1:]]
        whole = [torch.einsum("no,ni->noi", d, a).flatten(1) for a, d in zip(inputs, deltas, strict=True)]
        expected = torch.cat([*whole, *deltas], 1).double().norm(dim=1)
        given = learner(inputs, deltas)
        expect.close(given, expected, why=why, source="all gradients written out", dtype=inputs[0])

    demand(5, (4, 3, 6), "two layers, five examples")
    demand(4, (2, 7), "one layer")
    demand(3, (5, 2, 4, 3), "three layers")
    given = learner([_tensor([[1.0, 2.0, 2.0]])], [_tensor([[3.0, 4.0]])])
    expect.close(given, [math.sqrt(250)], why="the example above", source="by hand")
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
