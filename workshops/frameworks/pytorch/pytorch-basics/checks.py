"""The checks of pytorch-basics: one for each exercise, with its hints. `lab.check` runs them.

Values are held to NumPy, SciPy and torch's own modules; memory and loops by what torch is asked to compute.
"""

import collections
import contextlib
import copy
import os
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from atlas.checking import (
    Complaint,
    Tape,
    agree,
    among,
    exercise,
    expect,
    floats,
    gradients,
    labels,
    module_gradients,
    parts,
    tensor,
)


def _tensor(values, dtype=torch.float64):
    return torch.tensor(np.asarray(values), dtype=dtype)


@contextlib.contextmanager
def _operations():
    """Yields a dict: how many operations torch was asked for meanwhile, and the entries of the largest result."""
    found = {"count": 0, "largest": 0}

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            found["count"] += 1
            for each in result if isinstance(result, tuple | list) else [result]:
                if hasattr(each, "untyped_storage"):  # a view or an expanded tensor has the memory of its source
                    entries = each.untyped_storage().nbytes() // each.element_size()
                    found["largest"] = max(found["largest"], entries)
            return result

    with Counting():
        yield found


# ------------------------------------------------------------------------------------------------ to_device

_Pair = collections.namedtuple("_Pair", "first second")


def _is_tensor(value):
    return hasattr(value, "detach")


@parts
def _to_device(
    nested,
    device,
    *,
    move=lambda x, device: x.to(device),
    of_dict=lambda d, each: {key: each(value) for key, value in d.items()},
    of_list=lambda items, each: [each(item) for item in items],
    of_tuple=lambda items, each: tuple(each(item) for item in items),
    of_named=lambda items, each: type(items)(*(each(item) for item in items)),
    rest=lambda x: x,
):
    def each(value):
        if _is_tensor(value):
            return move(value, device)
        if isinstance(value, dict):
            return of_dict(value, each)
        if isinstance(value, list):
            return of_list(value, each)
        if isinstance(value, tuple):
            return (of_named if hasattr(value, "_fields") else of_tuple)(value, each)
        return rest(value)

    return each(nested)


def _described(value):
    """The structure as text: kinds of containers, and of each tensor its device, shape and dtype."""
    if _is_tensor(value):
        return f"tensor on {value.device.type} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, dict):
        inner = ", ".join(f"{key!r}: {_described(item)}" for key, item in value.items())
        return f"{'' if type(value) is dict else type(value).__name__}{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_described, value))})"
    return f"NumPy {value.shape}" if isinstance(value, np.ndarray) else repr(value)


def _demand_text(yours, wanted, why):
    """Demand a structure, shown in full."""
    if yours != wanted:
        raise Complaint(why, [f"yours    {yours}", f"expected {wanted}"], yours=yours)


def _containers(value):
    """All containers in it, itself among them."""
    if isinstance(value, dict | list | tuple):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _containers(item)


@exercise(
    hints=[
        "Four cases: a tensor moves; a dict, and a list or tuple, are made anew from what their items become; all else is returned.",
        "The function calls itself for the items. A text is a sequence too: ask for list and tuple, not for what can be iterated.",
        "items = [to_device(value, device) for value in nested]; then type(nested)(*items) if it has _fields, else type(nested)(items).",
    ],
    mistakes=_to_device.mistakes(
        move={
            "The tensors stay on the CPU: .to(device) returns a new tensor, so use what it returns, with the device given.": (
                lambda x, device: x
            ),
            "The type of the numbers changes on the way: x.to(device), and no .float().": lambda x, device: (
                x.float().to(device)
            ),
        },
        of_dict={
            "A dict comes back as it is: make one of {key: to_device(value, device)}.": lambda d, each: d,
            "Of a dict only the keys come back, or only the values: a dict is to stay a dict.": (
                lambda d, each: [each(value) for value in d.values()]
            ),
            "In a dict only tensors are looked at, and containers in it are not entered. Call the function itself for each value.": (
                lambda d, each: {key: each(value) if _is_tensor(value) else value for key, value in d.items()}
            ),
            "What is no tensor and no container is lost from the dict.": (
                lambda d, each: {
                    k: each(v) for k, v in d.items() if _is_tensor(v) or isinstance(v, dict | list | tuple)
                }
            ),
            "The dict comes back in another order: go through its items as they stand, without sorting them.": (
                lambda d, each: {key: each(d[key]) for key in sorted(d)}
            ),
        },
        of_list={
            "Lists come back as they are, with their tensors where they were.": lambda items, each: items,
            "In a list only tensors are looked at, and containers in it are not entered. Call the function itself for each.": (
                lambda items, each: [each(item) if _is_tensor(item) else item for item in items]
            ),
        },
        of_tuple={
            "A tuple comes back as a list: type(nested)(items) keeps the kind.": lambda items, each: list(
                map(each, items)
            ),
            "Tuples come back as they are, with their tensors where they were.": lambda items, each: items,
        },
        of_named={
            "A named tuple comes back as a plain one, and `.first` is gone: type(nested)(*items).": (
                lambda items, each: tuple(map(each, items))
            ),
            "A named tuple comes back as a list.": lambda items, each: list(map(each, items)),
            "A named tuple takes its items one by one, not all in one list: type(nested)(*items).": (
                lambda items, each: type(items)(map(each, items))
            ),
            "A named tuple comes back as it is, with its tensors where they were.": lambda items, each: items,
        },
        rest={
            "What is no tensor and no container becomes None: return it as it is.": lambda x: None,
            "A text comes back as a list of its letters: enter lists and tuples, not all that can be iterated.": (
                lambda x: list(x) if isinstance(x, str) else x
            ),
        },
    ),
)
def to_device(learner, rng):
    meta, x, y = torch.device("meta"), _tensor(rng.normal(size=(3, 2)), torch.float32), _tensor([1, 0, 2], torch.int64)
    numbers = rng.normal(size=2)
    wholes = {
        "a tensor": x,
        "a dict of tensors": {"x": x, "y": y},
        "a pair": (x, y),
        "a list": [y, x],
        "a dict with text, numbers and None": {"x": x, "name": "coat", "size": 3, "more": None, "a": 0.5},
        "a dict in a list in a dict": {"a": [{"x": x, "y": [y]}, 7], "b": {"c": {"d": x}}},
        "a list in a tuple in a list": [[x, (y, [x, "shirt"])], (y,)],
        "a named tuple": _Pair(x, {"y": y}),
        "a named tuple in a list": [_Pair("dress", [x])],
        "empty ones": {"a": [], "b": (), "c": {}},
        "other types of number": [x.half(), y > 0, y.to(torch.uint8), _tensor(1.5)],
    }
    for words, nested in wholes.items():
        yours, wanted = _described(learner(nested, meta)), _described(nested).replace("tensor on cpu", "tensor on meta")
        _demand_text(yours, wanted, f"{words}, moved to meta")
    ordered = collections.OrderedDict(b=x, a=[y])  # comes back as one, or as a plain dict
    yours = _described(learner(ordered, meta)).removeprefix("OrderedDict")
    _demand_text(yours, _described({"b": x, "a": [y]}).replace("on cpu", "on meta"), "an OrderedDict, moved to meta")
    mixed = learner([numbers, x], meta)
    expect.true(mixed[0] is numbers, "a NumPy array is no tensor: it stays as it is")
    yours = _described(learner({"x": x}, "meta"))
    expect.true("meta" in yours, "the device given as text, as .to takes it", f"yours    {yours}")
    nested = {"x": x, "more": [y, {"z": (x, 1)}], "names": ["coat", "shirt"], "sizes": ({"coat": 3},)}
    again = learner(nested, torch.device("cpu"))
    yours, wanted = _described(again), _described(nested)
    _demand_text(yours, wanted, "moved to the CPU, where it is")
    expect.close(again["more"][1]["z"][0], x, why="moved to the CPU, the numbers stay", source="the input")
    old = {id(each) for each in _containers(nested) if not isinstance(each, tuple)}
    expect.true(
        not any(id(each) in old for each in _containers(again)),
        "containers come back as new ones, also where nothing has to move",
        likely="Whoever changes the result would change the input too. Make each dict and list anew.",
    )


# ------------------------------------------------------------------------------------------------ pick


@parts
def _pick(scores, y, *, take=lambda scores, y: scores.gather(1, y[:, None])[:, 0]):
    return take(scores, y)


@exercise(
    hints=[
        "Two ways: index with two lists, one of rows and one of columns, or gather along axis 1.",
        "gather wants an index with as many axes as scores: y[:, None], (N, 1). What it gives is (N, 1) too.",
        "scores[torch.arange(len(y), device=y.device), y], or scores.gather(1, y[:, None])[:, 0]",
    ],
    mistakes=_pick.mistakes(
        take={
            "`scores[:, y]` takes all rows of the columns in y, (N, N). One entry from each row needs the row numbers too.": (
                lambda scores, y: scores[:, y]
            ),
            "`scores[y]` takes whole rows, those that y names. y names columns.": (
                lambda scores, y: scores[y.clamp(max=len(scores) - 1)]
            ),
            "y names columns, and here it picks rows: row numbers come first, scores[torch.arange(len(y)), y].": (
                lambda scores, y: scores[y, torch.arange(len(y))]
            ),
            "It gathers along axis 0, down the rows, and y names columns: axis 1.": (
                lambda scores, y: scores.gather(0, y[:, None])[:, 0]
            ),
            "Log-probabilities are picked: asked for are the scores as they are, without log_softmax.": (
                lambda scores, y: scores.log_softmax(1).gather(1, y[:, None])[:, 0]
            ),
            "Probabilities are picked: asked for are the scores as they are, without softmax.": (
                lambda scores, y: scores.softmax(1).gather(1, y[:, None])[:, 0]
            ),
            "An axis of length 1 is left, (N, 1): take [:, 0] of what gather gives.": lambda scores, y: scores.gather(
                1, y[:, None]
            ),
            "`.squeeze()` takes away every axis of length 1, the only row too: squeeze(1), or [:, 0].": (
                lambda scores, y: scores.gather(1, y[:, None]).squeeze()
            ),
            "It takes the largest entry of each row, not the one that y names.": lambda scores, y: scores.max(1).values,
            "The right entries are multiplied by 1 and the others by 0, and 0 · ∞ is NaN. Take the entries, do not multiply.": (
                lambda scores, y: (scores * functional.one_hot(y, scores.shape[1]).to(scores.dtype)).sum(1)
            ),
            "It makes the whole table of all rows by all of y, (N, N), and keeps its diagonal.": (
                lambda scores, y: scores[:, y].diagonal()
            ),
            "It goes through the rows one by one. One indexing operation does all of them.": (
                lambda scores, y: torch.stack([row[k] for row, k in zip(scores, y, strict=True)])
            ),
            "It is cut from the graph: no .detach(), .item(), .tolist() or torch.tensor(...) on the way.": (
                lambda scores, y: scores.detach().gather(1, y[:, None])[:, 0]
            ),
        },
    ),
)
def pick(learner, rng):
    given = learner(_tensor([[5, 1, 7], [2, 9, 4]]), _tensor([2, 0], torch.int64))
    expect.close(given, [7, 2], why="the example of the text: entries (0, 2) and (1, 0)", source="the text")
    tensor(given, "the entries picked")
    rule = "entry y[n] of row n"
    choices = lambda scores, y: scores.numpy()[np.arange(len(y)), y.numpy()]  # noqa: E731
    kinds = {"scores": floats("N", "K", tensor=True), "y": labels("N", below="K", tensor=True)}
    agree(learner, choices, rng, why=rule, source="NumPy's indexing", like="scores", **kinds)

    scores, y = rng.normal(size=(5, 4)), rng.integers(4, size=5)
    masked = np.where(np.arange(4) == y[:, None], scores, [[-np.inf, np.inf, -np.inf, np.inf]])
    source = "NumPy's indexing"
    expect.close(
        learner(_tensor(masked), _tensor(y, torch.int64)),
        scores[np.arange(5), y],
        why="where all other entries are infinite",
        source=source,
    )
    gradients(
        learner,
        lambda scores, y: scores[torch.arange(len(y)), y],
        rng,
        why=rule,
        scores=_tensor(scores),
        y=_tensor(y, torch.int64),
    )

    work = {}
    for N in (6, 60):
        scores, y = _tensor(rng.normal(size=(N, 4))), _tensor(rng.integers(4, size=N), torch.int64)
        with _operations() as work[N]:
            learner(scores, y)
    expect.true(
        work[60]["count"] <= work[6]["count"] + 10,
        "no loop over rows",
        f"operations for 6 rows {work[6]['count']}, for 60 rows {work[60]['count']}",
        likely="Index all rows at once: torch.arange(N) beside y, or gather.",
    )
    expect.true(
        work[60]["largest"] <= 240,
        "no table larger than scores on the way",
        f"scores (60, 4): 240 entries, your largest tensor: {work[60]['largest']}",
        likely="An (N, N) table for N numbers? Index rows and columns together.",
    )


# ------------------------------------------------------------------------------------------------ pairwise_distances


def _by_products(A, B, clamp=True):
    squares = (A**2).sum(1)[:, None] + (B**2).sum(1) - 2 * A @ B.T
    return (squares.clamp(min=0) if clamp else squares).sqrt()


@parts
def _pairwise(
    A,
    B,
    rows=8,
    *,
    blocks=lambda A, rows: A.split(rows),
    distances=lambda block, B: ((block[:, None] - B) ** 2).sum(-1).sqrt(),
    end=lambda D, rows: D,
    all_at_once=None,
):
    if all_at_once:
        return all_at_once(A, B)
    return end(torch.cat([distances(block, B) for block in blocks(A, rows)]), rows)


@exercise(
    hints=[
        "A.split(rows) gives blocks of so many rows, the last with what is left. Each block gives (rows, M) distances; torch.cat puts them below each other.",
        "block[:, None] is (rows, 1, D). Minus B, (M, D), it is (rows, M, D): all differences of this block.",
        "torch.cat([((block[:, None] - B) ** 2).sum(-1).sqrt() for block in A.split(rows)])",
    ],
    mistakes=_pairwise.mistakes(
        all_at_once={
            "Lengths and products are subtracted from each other: of two almost equal rows nothing is left but rounding. Subtract the rows first.": _by_products,
            "The sum under the root gets below 0 by rounding, and its root is NaN. Clamping hides it; only subtracting the rows first cures it.": (
                lambda A, B: _by_products(A, B, clamp=False)
            ),
            "torch.cdist multiplies matrices beyond 25 rows, and loses small distances: compute_mode says otherwise, or subtract yourself.": torch.cdist,
            "In double precision products only push the limit: rows that are nearer still are lost. Subtract the rows first.": (
                lambda A, B: _by_products(A.double(), B.double()).to(A.dtype)
            ),
            "It makes the whole cube of differences, (N, M, D), at once. Take `rows` rows of A at a time.": (
                lambda A, B: ((A[:, None] - B) ** 2).sum(-1).sqrt()
            ),
        },
        distances={
            "The root is missing: these are squared distances.": lambda block, B: ((block[:, None] - B) ** 2).sum(-1),
            "It sums absolute differences. The Euclidean distance is the root of the sum of squares.": (
                lambda block, B: (block[:, None] - B).abs().sum(-1)
            ),
            "The mean over the D entries stands where their sum belongs.": lambda block, B: (
                ((block[:, None] - B) ** 2).mean(-1).sqrt()
            ),
            "Something is added under the root: equal rows have distance 0.": (
                lambda block, B: (((block[:, None] - B) ** 2).sum(-1) + 1e-8).sqrt()
            ),
            "It squares after the sum: differences of opposite sign cancel.": lambda block, B: (
                (block[:, None] - B).sum(-1).abs()
            ),
        },
        blocks={
            "The last rows are lost where N is no multiple of `rows`: the last block is smaller.": (
                lambda A, rows: A[: max(len(A) // rows, 1) * rows].split(rows)
            ),
            "No block is left where N is less than `rows`: the last, smaller block counts too. A.split(rows) gives it.": (
                lambda A, rows: [A[n * rows : (n + 1) * rows] for n in range(len(A) // rows)]
            ),
            "`rows` is how many rows a block has, not how many blocks there are: split, not chunk.": lambda A, rows: (
                A.chunk(rows)
            ),
        },
        end={
            "The last rows stay 0 where N is no multiple of `rows`: the last block is smaller. A.split(rows) gives it.": (
                lambda D, rows: D * (torch.arange(len(D)) < len(D) // rows * rows)[:, None]
            )
        },
        returns={"Rows and columns are swapped: entry (n, m) belongs to A[n] and B[m].": lambda D: D.T},
    ),
)
def pairwise_distances(learner, rng):
    source = "SciPy, in double precision"
    far = lambda A, B, rows=8: cdist(A.double().numpy(), B.double().numpy())  # noqa: E731

    def near(N, M, D, apart, dtype):
        """Rows of B almost equal to rows of A."""
        A = _tensor(rng.normal(size=(N, D)) * 20 / D**0.5, dtype)
        return A, A[torch.arange(M) % N] + apart * _tensor(rng.normal(size=(M, D)), dtype)

    A, B = _tensor(rng.normal(size=(5, 3))), _tensor(rng.normal(size=(4, 3)))
    given = learner(A, B)
    expect.close(given, far(A, B), why="the distance of each row of A to each row of B", source=source)
    tensor(given, "the distances")
    for dtype, apart in ((torch.float32, 1e-3), (torch.float64, 1e-8)):
        A, B = near(30, 28, 16, apart, dtype)
        given = learner(A, B, 8).diagonal()
        expect.close(
            given,
            far(A, B).diagonal(),
            why=f"rows that differ by {apart:g}, in {str(dtype)[6:]}",
            source=source,
            rtol=1e-2,
            atol=1e-12,
            likely="Is a difference of large numbers taken, lengths minus products? Subtract the rows first.",
        )
    kinds = {"A": floats("N", "D", tensor=True), "B": floats("M", "D", tensor=True), "rows": among(1, 4, 2, 8, 3)}
    agree(learner, far, rng, why="Euclidean distances", source=source, like="A", atol=1e-12, **kinds)
    A = _tensor(rng.normal(size=(7, 4)))
    same = learner(A, A, 2)
    expect.close(same.diagonal(), np.zeros(7), why="each row to itself: 0", source="the definition", atol=1e-12)
    for N, M, D, rows in ((17, 7, 5, 2), (18, 10, 8, 3), (20, 9, 6, 1)):  # the watch copies the result before
        A, B = _tensor(rng.normal(size=(N, D))), _tensor(rng.normal(size=(M, D)))
        with _operations() as work:
            learner(A, B, rows)
        limit = max(rows * M * D, N * M, N * D, M * D)
        expect.true(
            work["largest"] <= limit,
            "nothing larger than rows · M · D entries, or than A, B and the result",
            f"A ({N}, {D}), B ({M}, {D}), rows {rows}: {limit} entries at most, your largest tensor has {work['largest']}",
            likely="Is the cube (N, M, D) made, or `rows` not used?",
        )


# ------------------------------------------------------------------------------------------------ Linear


@parts
class _Linear(nn.Module):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__()
        self.weight = self.keep(self.draw(inputs, outputs, *self.shape(inputs, outputs)))
        self.bias = self.keep(self.draw_bias(inputs, outputs)) if bias else self.no_bias(outputs)

    def shape(self, inputs, outputs):
        return outputs, inputs

    def draw(self, inputs, outputs, *shape):
        return torch.empty(*shape).uniform_(-(inputs**-0.5), inputs**-0.5)

    def draw_bias(self, inputs, outputs):
        return self.draw(inputs, outputs, outputs)

    def keep(self, values):
        return nn.Parameter(values)

    def no_bias(self, outputs):
        return None

    def forward(self, x):
        z = x @ self.weight.T
        return z if self.bias is None else z + self.bias


def _how_drawn(name, bound, other):
    """What to say of the lowest, the highest and the standard deviation of numbers that are not uniform in ±bound."""

    def likely(found, _):
        low, high, spread = found
        if low == high == 0:
            return f"The {name} is all 0. nn.Linear draws it, in ±1/√inputs."
        if abs(high - other) < 0.04 * other and low < 0:
            return "The bound is 1/√outputs: it is 1/√inputs, for the weight and for the bias."
        if high > 1.3 * bound and abs(high / spread - 3**0.5) > 0.5:
            return "They look drawn from a normal distribution. Uniform has a bound that no number passes."
        return (
            "torch.empty(...).uniform_(-bound, bound) with bound = inputs**-0.5 draws them, for weight and bias alike."
        )

    return likely


@exercise(
    hints=[
        "super().__init__() first. Then self.weight = nn.Parameter(...), (outputs, inputs), and self.bias, (outputs,), or None.",
        "bound = inputs**-0.5, for both. torch.empty(outputs, inputs).uniform_(-bound, bound) is the weight.",
        "forward: z = x @ self.weight.T; return z if self.bias is None else z + self.bias. Leading axes take care of themselves.",
    ],
    mistakes=_Linear.mistakes(
        keep={
            "These are plain tensors, in no table: no optimiser sees them and nothing saves them. nn.Parameter(...) around each.": (
                lambda self, values: values
            ),
            "These are buffers: saved, but not learned. nn.Parameter(...) around each.": lambda self, values: nn.Buffer(
                values
            ),
            "The parameters are frozen: requires_grad is True unless you say otherwise, so say nothing.": (
                lambda self, values: nn.Parameter(values, requires_grad=False)
            ),
            "The numbers are in double precision: torch.empty(...) and torch.rand(...) are float32 without a word.": (
                lambda self, values: nn.Parameter(values.double())
            ),
        },
        shape={
            "The weight lies the other way round: it has shape (outputs, inputs).": lambda self, inputs, outputs: (
                inputs,
                outputs,
            )
        },
        draw={
            "The bound is 1/√outputs, where 1/√inputs belongs.": (
                lambda self, inputs, outputs, *shape: torch.empty(*shape).uniform_(-(outputs**-0.5), outputs**-0.5)
            ),
            "The bound is 1/inputs: the root is missing.": (
                lambda self, inputs, outputs, *shape: torch.empty(*shape).uniform_(-1 / inputs, 1 / inputs)
            ),
            "They lie between 0 and the bound, and not on both sides of 0.": (
                lambda self, inputs, outputs, *shape: torch.rand(*shape) * inputs**-0.5
            ),
            "They are drawn from a normal distribution. Uniform has a bound that no weight passes.": (
                lambda self, inputs, outputs, *shape: torch.randn(*shape) * inputs**-0.5
            ),
            "They reach only half as far: uniform from -bound to bound is 2 · bound wide.": (
                lambda self, inputs, outputs, *shape: (torch.rand(*shape) - 0.5) * inputs**-0.5
            ),
            "All weights are 0: torch.empty and torch.zeros draw nothing.": lambda self, inputs, outputs, *shape: (
                torch.zeros(*shape)
            ),
        },
        draw_bias={
            "The bias starts at 0. nn.Linear draws it as it draws the weight.": lambda self, inputs, outputs: (
                torch.zeros(outputs)
            ),
            "The bias has the bound 1/√outputs: it is 1/√inputs, as for the weight.": (
                lambda self, inputs, outputs: torch.empty(outputs).uniform_(-(outputs**-0.5), outputs**-0.5)
            ),
            "The bias has shape (1, outputs): it is (outputs,).": lambda self, inputs, outputs: self.draw(
                inputs, outputs, 1, outputs
            ),
        },
        no_bias={
            "Without bias zeros are kept all the same, and saved: self.bias = None.": lambda self, outputs: nn.Buffer(
                torch.zeros(outputs)
            ),
            "Without bias self.bias is a tensor of zeros: it is to be None.": lambda self, outputs: torch.zeros(
                outputs
            ),
        },
        forward={
            "The bias is left out of z.": lambda self, x: x @ self.weight.T,
            "torch.mm takes two matrices and nothing else; x may have any axes before its last: x @ self.weight.T.": (
                lambda self, x: torch.mm(x, self.weight.T) + (0 if self.bias is None else self.bias)
            ),
            "The weights are used as they were made, by .data or .detach(): no gradient reaches them.": (
                lambda self, x: x @ self.weight.detach().T + (0 if self.bias is None else self.bias)
            ),
        },
    ),
    random=True,
)
def Linear(learner, rng):
    source = "torch.nn.functional.linear"
    for inputs, outputs, more in ((5, 3, {}), (3, 5, {"bias": True}), (4, 2, {"bias": False}), (1, 1, {})):
        layer = learner(inputs, outputs, **more)
        made = f"Linear({', '.join(map(str, [inputs, outputs, *(f'{k}={v}' for k, v in more.items())]))})"
        expect.kind(layer, nn.Module, f"{made} is an nn.Module", likely="Its first line: class Linear(nn.Module).")
        biased = more.get("bias", True)
        likely = "self.bias = None where there is none: who asks for layer.bias gets an answer, as from nn.Linear."
        expect.true(biased or hasattr(layer, "bias"), f"{made} has self.bias", likely=likely)
        wanted = {"weight": (outputs, inputs)} | ({"bias": (outputs,)} if biased else {})
        names = list(layer.state_dict())
        inside = next((name for name in names if "." in name), "")
        likely = (
            f"{inside} belongs to a module inside; the parameters are to be the layer's own, self.weight and self.bias."
            if inside
            else "Without a bias there is nothing to save: self.bias = None."
            if not biased and "bias" in names
            else ""
        )
        expect.equal(names, list(wanted), why=f"{made}: what state_dict() holds", source="nn.Linear", likely=likely)
        shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
        expect.equal(shapes, wanted, why=f"{made}: the names and shapes of its parameters", source="nn.Linear")
        if not biased:
            kind = type(layer.bias).__name__
            expect.true(layer.bias is None, "bias=False: self.bias is None", f"yours    {kind}")
        for name, p in layer.named_parameters():
            expect.dtype(p, torch.float32, f"{made}: the type of {name}")
            expect.true(p.requires_grad, f"{made}: {name} learns", f"its requires_grad is {p.requires_grad}")
        layer.double()
        for shape in ((6, inputs), (inputs,), (2, 3, inputs), (1, inputs), (0, inputs)):
            x = _tensor(rng.normal(size=shape))
            expected = functional.linear(x, layer.weight, layer.bias if biased else None)
            expect.close(layer(x), expected, why=f"z = xWᵀ + b for x of shape {shape}", source=source)
        theirs = nn.Linear(inputs, outputs, bias=biased).double()
        theirs.load_state_dict(layer.state_dict(), strict=False)
        if list(shapes) == list(wanted):  # else a complaint is out already
            module_gradients(layer, theirs, _tensor(rng.normal(size=(4, inputs))), rng, why=f"{made}: z = xWᵀ + b")

    seeded = []
    for _ in range(2):
        np.random.random()  # another generator than torch's moves on, and makes no difference
        torch.manual_seed(7)
        seeded.append(learner(3, 2).weight.detach())
    expect.true(
        torch.equal(*seeded),
        "after the same torch.manual_seed the same weights",
        f"one {seeded[0].flatten()[:2].tolist()}, another {seeded[1].flatten()[:2].tolist()}",
        likely="Draw by torch, from its global generator, and not by NumPy or random.",
    )
    ends = []
    for seed in (7, 8):
        torch.manual_seed(seed)
        learner(3, 2)
        ends.append(torch.get_rng_state())
    expect.true(
        not torch.equal(*ends),
        "after another torch.manual_seed other weights",
        likely="Is a seed set inside? Then all layers are alike, and so is all that is drawn after them.",
    )

    inputs, outputs = 9, 3000
    bound, layers = inputs**-0.5, [learner(inputs, outputs) for _ in range(2)]
    for name in ("weight", "bias"):
        p, other = (getattr(layer, name).detach() for layer in layers)
        top = f"±1/√D = ±{bound:.3f} for D = {inputs}, K = {outputs}"
        found = [float(p.min()), float(p.max()), float(p.std())]
        wanted = [-bound, bound, bound / 3**0.5]
        expect.close(
            found,
            wanted,
            why=f"{name}, drawn uniformly in {top}: lowest, highest, standard deviation",
            source="the uniform distribution",
            rtol=0.04,
            likely=_how_drawn(name, bound, outputs**-0.5),
        )
        expect.true(p.abs().max() <= bound * (1 + 1e-6), f"no {name} is beyond {top}", f"largest {p.abs().max():.4f}")
        near = float((p.abs() < bound / 2).float().mean())
        expect.close(
            near,
            0.5,
            why=f"{name}: half of them lie within half the bound",
            source="the uniform distribution",
            atol=0.05,
        )
        expect.true(
            not torch.equal(p, other),
            f"two layers have other numbers for {name}",
            likely="Are they drawn once, outside __init__?",
        )
        expect.true(abs(float(p.mean())) < 0.1 * bound, f"{name}: their mean is near 0", f"mean {p.mean():.4f}")

    first = []
    for bias in (True, False):
        torch.manual_seed(7)
        first.append(learner(3, 2, bias=bias).weight.detach())
    expect.true(
        torch.equal(*first),
        "the weight is drawn first: after the same torch.manual_seed it is the same with bias and without",
        f"with {first[0].flatten()[:2].tolist()}, without {first[1].flatten()[:2].tolist()}",
        likely="Is the bias drawn before it?",
    )


# ------------------------------------------------------------------------------------------------ ResidualMLP


@parts
class _Residual(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.layers = self.made(widths)

    def made(self, widths):
        return nn.ModuleList(nn.Linear(*pair) for pair in zip(widths, widths[1:], strict=False))

    def around(self, layer, x):
        a = functional.relu(layer(x))
        return x + a if layer.in_features == layer.out_features else a

    def end(self, layer, x):
        return layer(x)

    def forward(self, x):
        *hidden, last = self.layers
        for layer in hidden:
            x = self.around(layer, x)
        return self.end(last, x)


def _around_to(self, x, late):
    """Every layer adds the network's x, or with `late` what the first layer gave."""
    *hidden, last = self.layers
    start = x
    for i, layer in enumerate(hidden):
        a = functional.relu(layer(x))
        x = start + a if start.shape == a.shape == x.shape else a
        if late and i == 0:
            start = x
    return last(x)


def _first_and_last(self, x):
    first, *hidden, last = self.layers
    for layer in (first, *hidden):
        x = self.around(layer, x)
    return last(x)


def _residual_by_numpy(state, x):
    """The network from its state_dict(), layer by layer; state: names to tensors, x: (B, D)."""
    count = len(state) // 2
    for i in range(count):
        W, b = (np.asarray(state[f"layers.{i}.{name}"].detach(), float) for name in ("weight", "bias"))
        z = x @ W.T + b
        if i == count - 1:
            return z
        x = (x if W.shape[0] == W.shape[1] else 0) + np.maximum(z, 0)


@exercise(
    hints=[
        "nn.ModuleList takes modules: one nn.Linear(n_in, n_out) for each pair of neighbours in widths.",
        "*hidden, last = self.layers. For each hidden layer a = functional.relu(layer(x)); then x + a or a.",
        "The widths are equal where layer.in_features == layer.out_features. x = x + a makes a new tensor, x += a does not.",
    ],
    mistakes=_Residual.mistakes(
        made={
            "The layers stand in a plain list, which is in no table: nn.ModuleList(...) registers them.": (
                lambda self, widths: [nn.Linear(*pair) for pair in zip(widths, widths[1:], strict=False)]
            ),
            "The last layer is missing: widths of n numbers make n - 1 layers.": (
                lambda self, widths: (
                    nn.ModuleList(nn.Linear(*p) for p in zip(widths[:-1], widths[1:-1], strict=False))
                    if len(widths) > 2
                    else nn.ModuleList([nn.Linear(*widths)])
                )
            ),
            "Layers without bias: nn.Linear(n_in, n_out) has one.": (
                lambda self, widths: nn.ModuleList(
                    nn.Linear(*p, bias=False) for p in zip(widths, widths[1:], strict=False)
                )
            ),
        },
        around={
            "There is no way around: where the widths are equal, the input is added to relu(z).": (
                lambda self, layer, x: functional.relu(layer(x))
            ),
            "In yours relu comes after the sum; asked for is a + relu(z).": (
                lambda self, layer, x: functional.relu(
                    layer(x) + x if layer.in_features == layer.out_features else layer(x)
                )
            ),
            "There is no relu: without it all layers together are one linear map.": (
                lambda self, layer, x: x + layer(x) if layer.in_features == layer.out_features else layer(x)
            ),
            "Where the widths are equal relu is missing: a + relu(z), not a + z.": (
                lambda self, layer, x: (
                    x + layer(x) if layer.in_features == layer.out_features else functional.relu(layer(x))
                )
            ),
            "The first layer has no way around; where its widths are equal, it has one like the others.": (
                lambda self, layer, x: (
                    x + functional.relu(layer(x))
                    if layer.in_features == layer.out_features and layer is not self.layers[0]
                    else functional.relu(layer(x))
                )
            ),
            "relu is left out where the width changes.": (
                lambda self, layer, x: (
                    x + functional.relu(layer(x)) if layer.in_features == layer.out_features else layer(x)
                )
            ),
        },
        end={
            "The last layer has a relu: logits may be negative.": lambda self, layer, x: functional.relu(layer(x)),
            "The last layer has a way around where its widths are equal: it gives z itself.": (
                lambda self, layer, x: x + layer(x) if layer.in_features == layer.out_features else layer(x)
            ),
            "The last layer is treated as the others, with relu and sum: it gives z itself.": (
                lambda self, layer, x: self.around(layer, x)
            ),
            "A softmax ends it: logits come back as they are.": lambda self, layer, x: layer(x).softmax(1),
        },
        forward={
            "Each layer adds the x that the network got; it is to add its own input, a.": (
                lambda self, x: _around_to(self, x, late=False)
            ),
            "Each layer adds what the first one gave; it is to add its own input, a.": (
                lambda self, x: _around_to(self, x, late=True)
            ),
            "Two widths make one layer, which is the last; yours wants a first and a last: *hidden, last = self.layers.": (
                _first_and_last
            ),
        },
    ),
    random=True,
)
def ResidualMLP(learner, rng):
    source = "nn.Linear, one from each width to the next"
    for widths in ([5, 4, 3], [4, 4, 4, 3], [6, 5], [4, 4, 4], [3, 3, 5, 5, 2], [5, 5], [7] + [3] * 20 + [3]):
        model = learner(list(widths))
        said = f"widths {widths}" if len(widths) < 10 else f"{len(widths)} widths"
        expect.kind(
            model, nn.Module, "ResidualMLP is an nn.Module", likely="Its first line: class ResidualMLP(nn.Module)."
        )
        pairs = list(zip(widths, widths[1:], strict=False))
        wanted = {}
        for i, (n_in, n_out) in enumerate(pairs):
            wanted |= {f"layers.{i}.weight": (n_out, n_in), f"layers.{i}.bias": (n_out,)}
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        likely = "" if shapes else "There are none: a plain list is in no table. self.layers = nn.ModuleList(...)."
        expect.equal(shapes, wanted, why=f"{said}: names and shapes in state_dict()", source=source, likely=likely)
        expect.equal(
            len(list(model.parameters())),
            len(wanted),
            why=f"{said}: parameters that learn",
            source=source,
            likely="Does one layer stand in several places? Each pair of widths has its own.",
        )
        expect.kind(model.layers, nn.ModuleList, "self.layers is an nn.ModuleList")
        model.double()
        for B in (6, 1):
            x = rng.normal(size=(B, widths[0]))
            expected = _residual_by_numpy(model.state_dict(), x)
            expect.close(
                model(_tensor(x)), expected, why=f"{said}: what comes out for {B} rows", source="NumPy, layer by layer"
            )
        leaf = _tensor(rng.normal(size=(3, widths[0]))).requires_grad_()
        weights = rng.normal(size=(3, widths[-1]))
        out = model(leaf * 1)
        expect.true(out.requires_grad, f"{said}: gradients flow", likely="Is something detached, or no_grad on?")
        (out * _tensor(weights)).sum().backward()
        way, step = rng.normal(size=leaf.shape), 1e-6
        ends = [
            (_residual_by_numpy(model.state_dict(), leaf.detach().numpy() + s * way) * weights).sum()
            for s in (step, -step)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        expect.close(
            (leaf.grad.numpy() * way).sum(),
            slope,
            why=f"{said}: the gradient with respect to x",
            source="differences",
            rtol=1e-3,
            atol=1e-4,
        )
        cut = [name for name, p in model.named_parameters() if p.grad is None]
        expect.true(not cut, f"{said}: a gradient reaches every parameter", f"none at {', '.join(cut[:4])}")


# ------------------------------------------------------------------------------------------------ train_step


@parts
def _train_step(
    model,
    batch,
    optimizer,
    *,
    mode=lambda model: model.train(),
    clear=lambda model, optimizer: optimizer.zero_grad(),
    compute=lambda model, x, y: functional.cross_entropy(model(x), y),
    back=lambda loss: loss.backward(),
    late=lambda model, optimizer: None,
    step=lambda optimizer: optimizer.step(),
    result=lambda loss, model, x, y: loss.item(),
):
    x, y = batch
    mode(model)
    clear(model, optimizer)
    loss = compute(model, x, y)
    back(loss)
    late(model, optimizer)
    step(optimizer)
    return result(loss, model, x, y)


@exercise(
    hints=[
        "x, y = batch. Then the five lines as they stand in the text, with functional.cross_entropy.",
        "optimizer.zero_grad() anywhere before backward(), and after the last step: between backward() and step() it undoes the work.",
        "End with return loss.item(): a float, without the graph.",
    ],
    mistakes=_train_step.mistakes(
        mode={
            "It trains in whatever mode the model is: model.train() first.": lambda model: None,
            "It trains in evaluation mode: model.train(), not model.eval().": lambda model: model.eval(),
        },
        clear={
            "Old gradients are not cleared, and backward() adds to them: optimizer.zero_grad().": lambda model, optimizer: (
                None
            )
        },
        late={
            "At the step there are no gradients: does backward() come after it, or never, or is zero_grad() between both?": (
                lambda model, optimizer: optimizer.zero_grad()
            )
        },
        step={
            "The weights do not move: optimizer.step() is missing.": lambda optimizer: None,
            "Two steps are taken where one is asked for.": lambda optimizer: (optimizer.step(), optimizer.step()),
        },
        compute={
            "The loss is summed over the batch: cross_entropy takes the mean unless told otherwise.": (
                lambda model, x, y: functional.cross_entropy(model(x), y, reduction="sum")
            ),
            "cross_entropy takes logits and does the softmax itself; here softmax comes twice.": (
                lambda model, x, y: functional.cross_entropy(model(x).softmax(1), y)
            ),
            "The loss is another one: cross-entropy is asked for, not squared error.": (
                lambda model, x, y: functional.mse_loss(model(x), functional.one_hot(y, model(x).shape[1]).double())
            ),
        },
        result={
            "A tensor comes back, perhaps with its graph: loss.item() makes a float of it.": lambda loss, model, x, y: (
                loss
            ),
            "The loss that comes back was computed after the step; asked for is that before it, which is there already.": (
                lambda loss, model, x, y: functional.cross_entropy(model(x), y).item()
            ),
            "The loss is multiplied by the number of examples: the mean is asked for.": lambda loss, model, x, y: (
                loss.item() * len(y)
            ),
            "The loss is rounded.": lambda loss, model, x, y: round(loss.item(), 2),
        },
    ),
    changes=("weights", "gradients", "mode", "optimizer"),
    seconds=30,
)
def train_step(learner, rng):
    for B, momentum, frozen in ((5, 0.0, False), (3, 0.9, False), (4, 0.0, True)):
        tape = Tape()
        torch.manual_seed(int(rng.integers(1000)))
        model = nn.Sequential(tape.layer(), nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
        for p in model.parameters():
            p.grad = torch.ones_like(p)  # as a step before has left them
        model[1].weight.requires_grad_(not frozen)
        theirs = copy.deepcopy(model[1:]).train()
        batch = _tensor(rng.normal(size=(B, 3))), _tensor(rng.integers(3, size=B), torch.int64)
        optimizer = tape.optimizer(
            torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5, momentum=momentum)
        )
        learning = [p for p in theirs.parameters() if p.requires_grad]
        for n in range(2):
            loss = functional.cross_entropy(theirs(batch[0]), batch[1])
            slopes = torch.autograd.grad(loss, learning)
            model.train(n == 0 and momentum == 0)
            given = learner(model, batch if n else list(batch), optimizer)
            said = f"{'the second step' if n else 'a step'} on {B} examples{', one weight frozen' if frozen else ''}"
            tape_says(tape, n, said)
            expect.equal(
                len(tape.steps), n + 1, why=f"{said}: steps that the optimizer took", source="one for each call"
            )
            for mine, slope in zip(tape.steps[-1].gradients, slopes, strict=True):
                what = f"{said}: the gradients at the step"
                expect.true(mine is not None, what, "there are none")
                expect.close(
                    mine,
                    slope,
                    why=what,
                    source="torch.autograd.grad",
                    likely="Old gradients added, another loss, or changed after backward()?",
                )
            expect.kind(
                given,
                float,
                f"{said}: the loss as a float of Python",
                likely="loss.item() takes the number out of the tensor.",
            )
            expect.close(given, loss.item(), why=f"{said}: the loss before it", source="the mean cross-entropy")
            if momentum == 0:
                with torch.no_grad():
                    for p, slope in zip(learning, slopes, strict=True):
                        p -= 0.5 * slope
                pairs = zip(model[1:].parameters(), theirs.parameters(), strict=True)
                for mine, wanted in pairs:
                    expect.close(mine, wanted, why=f"{said}: the weights after it", source="w - η · gradient")
            else:
                theirs.load_state_dict(model[1:].state_dict())


def tape_says(tape, n, said):
    """One forward pass more, in training mode, with gradients."""
    expect.equal(
        len(tape.passes),
        n + 1,
        why=f"{said}: forward passes",
        source="one for each call",
        likely="The loss to return is there already, from before the step: no second model(x).",
    )
    last = tape.passes[-1]
    expect.true(
        last.training,
        f"{said}: the pass in training mode",
        "it was in evaluation mode",
        likely="The model came in evaluation mode: model.train() first.",
    )
    expect.true(last.recording, f"{said}: the pass with gradients recorded", likely="Is torch.no_grad() around it?")


# ------------------------------------------------------------------------------------------------ record_activations


class _InPlaceAndTwice(nn.Module):
    """Leaves called in another order than they are registered, one of them twice, one that gives a tuple."""

    def __init__(self):
        super().__init__()
        self.late, self.early, self.twice = nn.Linear(4, 2), nn.Linear(3, 4), nn.Tanh()
        self.between, self.pair, self.never = nn.Linear(4, 4), nn.GRU(4, 4, batch_first=True), nn.Linear(2, 2)

    def forward(self, x):
        a = self.between(self.twice(self.early(x)))
        b, _ = self.pair(a[None])
        return self.late(self.twice(2 * a + b[0]))


class _Breaks(nn.Module):
    def forward(self, x):
        raise ZeroDivisionError("a layer that breaks")


@parts
def _record(
    model,
    x,
    *,
    leaves=lambda model: [(name, m) for name, m in model.named_modules() if not list(m.children())],
    keep=lambda found, name, output: found.__setitem__(name, output.detach().clone()),
    label=lambda name, last: name,
    take=lambda given, output: output,
    end=lambda found, names: found,
    wanted=lambda output: isinstance(output, torch.Tensor),
    before=lambda model: None,
    run=lambda model, x: model(x),
    remove=lambda handles, model, failed: [handle.remove() for handle in handles],
):
    found, handles, failed = {}, [], True
    before(model)
    names = [name for name, _ in leaves(model)]

    def hook_for(name):
        def hook(module, given, output):
            if wanted(take(given, output)):
                keep(found, label(name, names[-1]), take(given, output))

        return hook

    for name, module in leaves(model):
        handles.append(module.register_forward_hook(hook_for(name)))
    try:
        run(model, x)
        failed = False
    finally:
        remove(handles, model, failed)
    return end(found, names)


def _swallow(model, x):
    with contextlib.suppress(ZeroDivisionError):
        model(x)


def _hooks(model):
    """How many hooks of each kind every module has, and what is set on it by hand."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    counts = {
        name: [len(getattr(m, kind)) for kind in kinds] + ["forward" in vars(m)] for name, m in model.named_modules()
    }
    return counts | {"all modules": [len(nn.modules.module._global_forward_hooks)]}


@exercise(
    hints=[
        "A function that makes the hook for one name: inside it, found[name] = output.detach().clone(). Keep every handle.",
        "try: register, then run under torch.no_grad(); finally: handle.remove() for each handle. The error goes on by itself.",
        "A leaf: not list(module.children()). A lambda in the loop would see only the last name: hand the name to a function.",
    ],
    mistakes=_record.mistakes(
        keep={
            "It keeps the layer's own tensor, and the next layer works in place: .clone() what is recorded.": (
                lambda found, name, output: found.__setitem__(name, output.detach())
            ),
            "What is recorded is still linked to its graph, which stays in memory: .detach().": (
                lambda found, name, output: found.__setitem__(name, output.clone())
            ),
            "Of a leaf that is called twice the first output is kept; asked for is the last.": (
                lambda found, name, output: None if name in found else found.__setitem__(name, output.detach().clone())
            ),
            "A leaf that is called twice moves to its last place: the order is that of the first calls.": (
                lambda found, name, output: found.update({name: (found.pop(name, None), output.detach().clone())[1]})
            ),
        },
        leaves={
            "Modules with children are recorded too, the whole model among them. Asked for are leaves only.": (
                lambda model: list(model.named_modules())
            ),
            "Only the model's own children are looked at: named_modules() goes down to all of them.": (
                lambda model: [(name, m) for name, m in model.named_children() if not list(m.children())]
            ),
            "Only the model's own children get hooks, containers among them: named_modules() goes down to the leaves.": (
                lambda model: list(model.named_children())
            ),
            "The model itself is passed over: one that has no children is a leaf, named ''.": (
                lambda model: [(n, m) for n, m in list(model.named_modules())[1:] if not list(m.children())]
            ),
            "Only layers with parameters are recorded: an activation such as Tanh is a leaf as well.": (
                lambda model: [
                    (n, m) for n, m in model.named_modules() if not list(m.children()) and list(m.parameters())
                ]
            ),
        },
        label={
            "All is under the last name: the hook looks up `name` when it is called. Make it in a function that gets the name.": (
                lambda name, last: last
            )
        },
        take={
            "What a leaf gets is recorded; asked for is what it gives, the third argument of the hook.": (
                lambda given, output: given[0]
            )
        },
        end={
            "The order is that of named_modules(); asked for is that in which the leaves were called.": (
                lambda found, names: {name: found[name] for name in names if name in found}
            )
        },
        before={
            "The model is put into evaluation mode: it is to run in the mode that it is in.": lambda model: model.eval()
        },
        together={
            "What is no tensor is recorded too, such as the tuple of a GRU: leave it out.": {
                "wanted": lambda output: True,
                "keep": lambda found, name, output: found.__setitem__(
                    name, output.detach().clone() if _is_tensor(output) else output
                ),
            }
        },
        remove={
            "The hooks stay: each needs handle.remove() at the end.": lambda handles, model, failed: None,
            "Where model(x) raises, the hooks stay: try: ... finally: handle.remove().": (
                lambda handles, model, failed: None if failed else [handle.remove() for handle in handles]
            ),
            "All hooks of the modules are thrown away, also those that were there before: handle.remove() takes only your own.": (
                lambda handles, model, failed: [m._forward_hooks.clear() for m in model.modules()]
            ),
            "The hook of the last leaf only is removed: keep all handles.": lambda handles, model, failed: handles[
                -1
            ].remove(),
        },
        run={
            "The error is swallowed: finally lets it go on to the caller, except does not.": _swallow,
            "model.forward(x) passes the model's own hooks by: call model(x).": lambda model, x: model.forward(x),
        },
    ),
    changes=("mode",),
    seconds=30,
)
def record_activations(learner, rng):
    def demand(model, x, expected, words, likely=""):
        before, modes = _hooks(model), [m.training for m in model.modules()]
        given = learner(model, x)
        expect.kind(given, dict, f"{words}: a dict from names to outputs")
        expect.equal(
            list(given),
            list(expected),
            why=f"{words}: which leaves, in the order of their first calls",
            source="named_modules(), and the forward pass",
            likely=likely,
        )
        expect.true(_hooks(model) == before, f"{words}: afterwards the model has the hooks that it had, and no others")
        expect.true(
            [m.training for m in model.modules()] == modes,
            f"{words}: the model stays in its mode",
            likely="It is to run in the mode that it is in: neither eval() nor train().",
        )
        for name, value in expected.items():
            tensor(given[name], f"{words}: what {name!r} gave")
            expect.close(given[name], value, why=f"{words}: what {name!r} gave", source="the layers, one by one")
            expect.true(
                not given[name].requires_grad,
                f"{words}: {name!r} is without gradients",
                likely="It would keep its graph in memory: .detach(), or torch.no_grad() around the pass.",
            )

    torch.manual_seed(int(rng.integers(1000)))
    x = _tensor(rng.normal(size=(4, 5)), torch.float32)
    inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.5))
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), inner, nn.Identity(), nn.Linear(4, 2)).eval()
    model[2][0].register_forward_hook(lambda *_: None)  # somebody else's
    expected = {}
    with torch.no_grad():
        z = model[0](x)
        expected["0"], a = z.clone(), torch.relu(z)
        expected["1"], c = a, model[2][0](a)
        expected |= {"2.0": c, "2.1": torch.tanh(c), "2.2": torch.tanh(c), "3": torch.tanh(c)}
        expected["4"] = model[4](torch.tanh(c))
    demand(model, x, expected, "a nested model whose ReLU works in place")

    model = _InPlaceAndTwice().eval()
    x = _tensor(rng.normal(size=(3, 3)), torch.float32)
    with torch.no_grad():
        z = model.early(x)
        a = model.between(torch.tanh(z))
        b = torch.tanh(2 * a + model.pair(a[None])[0][0])
        expected = {"early": z, "twice": b, "between": a, "late": model.late(b)}
    demand(
        model,
        x,
        expected,
        "a model that calls its leaves in another order, one of them twice, and one that gives a tuple",
    )

    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(1.0))  # in training mode it leaves nothing
    with torch.no_grad():
        expected = {"0": model[0](x), "1": torch.zeros(3, 2)}
    demand(model, x, expected, "a model in training mode with Dropout(1.0)")
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    learner(model, x)
    expect.equal(
        len(calls),
        1,
        why="how often a hook of the whole model is called",
        source="one call of model(x)",
        likely="model.forward(x) passes it by: call model(x), once.",
    )

    model = nn.Linear(3, 2)
    demand(model, x, {"": model(x).detach()}, "a model that is a leaf itself")

    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), _Breaks(), nn.Linear(4, 2))
    model[1].register_forward_hook(lambda *_: None)
    before = _hooks(model)
    why = "where model(x) raises, the error reaches the caller"
    expect.raises(
        ZeroDivisionError,
        lambda: learner(model, x),
        why,
        match="a layer that breaks",
        likely="An except swallows it. finally does its work and lets the error go on.",
    )
    expect.true(
        _hooks(model) == before,
        "where model(x) raises, all hooks made here are removed",
        likely="try: ... finally: the removal belongs into finally.",
    )
    counted = nn.Sequential(tape := Tape().layer(), nn.Linear(3, 2))
    calls = []
    tape.register_forward_hook(lambda *_: calls.append(1))
    learner(counted, x)
    expect.equal(len(calls), 1, why="how often the model runs", source="one forward pass")


# ------------------------------------------------------------------------------------------------ the checkpoint


@contextlib.contextmanager
def _folder():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@contextlib.contextmanager
def _full_disk(limit):
    """No file may grow beyond `limit` bytes, as on a full disk; nothing where the system has no such limit."""
    try:
        import resource
    except ImportError:
        yield False
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield True
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _trained(rng, width=4, steps=2):
    """A small model with buffers, and its optimiser after some steps, so that it has a state."""
    torch.manual_seed(int(rng.integers(1000)))
    model = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=float(rng.uniform(0.1, 0.5)), momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        model(_tensor(rng.normal(size=(5, 3)), torch.float32)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def _facts(rng):
    return {
        "config": {"width": 4, "lr": round(float(rng.uniform()), 3)},
        "history": {"loss": [1.5, 0.5]},
        "epoch": int(rng.integers(9)),
    }


def _demand_state(given, expected, why, source):
    """Two state_dicts, or what is in them, are the same; tells which part is not."""
    flat, wanted = _flat(given), _flat(expected)
    expect.equal(sorted(flat), sorted(wanted), why=f"{why}: the names in it", source=source)
    for name, value in wanted.items():
        if _is_tensor(value):
            expect.close(flat[name], value, why=f"{why}: {name}", source=source)
        else:
            expect.true(flat[name] == value, f"{why}: {name}", f"yours {flat[name]!r}, expected {value!r}")


def _flat(tree, name=""):
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {
            path: leaf
            for key, each in items
            for path, leaf in _flat(each, f"{name}.{key}" if name else str(key)).items()
        }
    return {name: tree}


def _alike(a, b):
    return torch.equal(a, b) if _is_tensor(a) and _is_tensor(b) else a == b


def _read(path, why):
    """What is in the file, read as plain data; a complaint where that cannot be."""
    expect.true(
        path.exists(), f"{why}: there is a file at path", likely="Is it written elsewhere, or under another name?"
    )
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        said = [f"yours    {str(error).splitlines()[0][:90]}"]
        likely = "Save state_dict() of both, and no whole object, by torch.save."
        raise Complaint(f"{why}: torch.load(path, weights_only=True) reads it", said, likely, "unreadable") from None


@parts
def _save(
    path,
    model,
    optimizer,
    facts,
    *,
    content=lambda model, optimizer, facts: {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **facts},
    part=lambda path: path.with_name(f"{path.name}.part"),
    write=lambda content, part: torch.save(content, part),
    move=lambda part, path: os.replace(part, path),
    clean=lambda part: part.unlink(missing_ok=True),
    late=lambda part, path: None,
):
    place = part(path)
    try:
        write(content(model, optimizer, facts), place)
        if place != path:
            move(place, path)
        late(place, path)
    finally:
        if place != path:
            clean(place)


def _write_and_swallow(content, part):
    try:
        torch.save(content, part)
    except Exception:
        part.write_bytes(b"")


def _move_over_nothing(part, path):
    path.unlink(missing_ok=True)
    os.replace(part, path)


@exercise(
    hints=[
        "Three steps: a name in the same folder, torch.save to it, os.replace onto path. What if the second fails?",
        'part = path.with_name(f"{path.name}.part"); the dict is {"model": model.state_dict(), "optimizer": ..., **facts}.',
        "try: torch.save(..., part); os.replace(part, path) and finally: part.unlink(missing_ok=True).",
    ],
    mistakes=_save.mistakes(
        part={
            "It writes to path itself: a failure half-way has cost the old file. Write to another name first, then os.replace.": lambda path: (
                path
            ),
            "The other name lies in another folder, perhaps on another disk: a replacement in one piece is possible only within a folder.": (
                lambda path: Path(tempfile.gettempdir()) / f"{path.name}.{os.getpid()}"
            ),
        },
        content={
            "The optimiser's state is missing: momentum starts from 0 after resuming.": (
                lambda model, optimizer, facts: {"model": model.state_dict(), **facts}
            ),
            "The facts lie in a dict of their own; they belong beside model and optimizer: **facts.": (
                lambda model, optimizer, facts: {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "facts": facts,
                }
            ),
            "The facts are missing.": lambda model, optimizer, facts: {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            "The whole model is saved, a pickle that names its class: model.state_dict().": (
                lambda model, optimizer, facts: {"model": model, "optimizer": optimizer.state_dict(), **facts}
            ),
            "Only the parameters are saved. Buffers, such as running statistics, are in state_dict() too.": (
                lambda model, optimizer, facts: {
                    "model": {n: p.detach() for n, p in model.named_parameters()},
                    "optimizer": optimizer.state_dict(),
                    **facts,
                }
            ),
        },
        write={
            "The error is swallowed, and the caller believes that all is saved: let it go on, with finally and no except.": _write_and_swallow,
        },
        clean={
            "Where something goes wrong, a half-written file is left behind: finally: part.unlink(missing_ok=True).": lambda part: (
                None
            )
        },
        late={
            "Besides path another file is left behind.": lambda part, path: path.with_suffix(".more").write_bytes(b"")
        },
        together={
            "The other name is left behind where all goes well: it copies, and does not replace.": {
                "move": lambda part, path: path.write_bytes(part.read_bytes()),
                "clean": lambda part: None,
            }
        },
        move={
            "It copies the bytes onto path, which a failure can interrupt: os.replace does it in one piece.": (
                lambda part, path: path.write_bytes(part.read_bytes())
            ),
            "It removes the old file before the new one has its name: for a moment there is none. os.replace needs no room.": _move_over_nothing,
        },
    ),
    seconds=30,
)
def save_checkpoint(learner, rng):
    with _folder() as folder:
        path, why = folder / "model.pt", "a checkpoint where none was"
        for _ in range(2):
            (model, optimizer), facts = _trained(rng), _facts(rng)
            with _moves(path) as seen:
                learner(path, model, optimizer, facts)
            saved = _read(path, why)
            expect.kind(saved, dict, f"{why}: the file holds a dict")
            expect.equal(
                sorted(saved), sorted(["model", "optimizer", *facts]), why=f"{why}: its keys", source="the docstring"
            )
            _demand_state(saved["model"], model.state_dict(), f"{why}: the model", "model.state_dict()")
            _demand_state(saved["optimizer"], optimizer.state_dict(), f"{why}: the optimizer", "optimizer.state_dict()")
            _demand_state({name: saved[name] for name in facts}, facts, f"{why}: the facts", "what was given")
            expect.equal(
                sorted(each.name for each in folder.iterdir()),
                ["model.pt"],
                why=f"{why}: the files in its folder",
                source="path alone",
                likely="os.replace(part, path) leaves nothing behind. Is it a copy, or is the old file kept beside it?",
            )
            why = "a checkpoint in place of an old one"
        old = path.read_bytes()
        _fails(learner, rng, path, old, {**_facts(rng), "config": lambda: None}, "facts that cannot be saved", 10**9)
        _fails(learner, rng, path, old, _facts(rng), "a disk that is full", 1000)
        moves = "The new file takes the place of the old one in one piece: os.replace, within the folder"
        others = [each for each in seen["from"] if each != folder]
        expect.true(
            not others, moves, "moved from another folder", likely="There it may be another disk, and the move a copy."
        )
        expect.true(not seen["gap"], moves, "at some moment path was not there, or not whole")
        expect.true(
            bool(seen["from"]),
            moves,
            "path was written in another way",
            likely="What writes to path itself can be interrupted.",
        )
    with _folder() as folder:
        _fails(
            learner,
            rng,
            folder / "new.pt",
            None,
            {"config": lambda: None},
            "facts that cannot be saved, and no old file",
            10**9,
        )
        stopped = {**_facts(rng), "config": _CtrlC()}
        _fails(learner, rng, folder / "new.pt", None, stopped, "Ctrl-C while it saves", 10**9, _Stopped)
        (folder / "taken.pt").mkdir()
        words = "os.replace fails, for a folder has the name of path"
        _fails(learner, rng, folder / "taken.pt", None, _facts(rng), words, 10**9)
        (folder / "taken.pt").rmdir()
        for suffix in (".part", ".tmp", ".temp", ".new", ".bak"):
            path = folder / f"model{suffix}"
            path.write_bytes(b"old")
            likely = f"with_suffix gives path itself where it ends so: path.with_name(path.name + {suffix!r})."
            facts = {"config": lambda: None}
            words = f"facts that cannot be saved, at a path named {path.name}"
            _fails(learner, rng, path, b"old", facts, words, 10**9, likely=likely)
            path.unlink()


class _Stopped(KeyboardInterrupt):
    """Ctrl-C, told apart from that of the one who runs the check."""


class _CtrlC:
    """Whoever saves it is interrupted."""

    def __reduce_ex__(self, protocol):
        raise _Stopped

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


def _fails(learner, rng, path, old, facts, words, limit, kind=Exception, likely=""):
    """Saving fails: the error arrives, what was there stays, nothing else is there."""
    model, optimizer = _trained(rng, steps=2 if limit < 10**9 else 0)
    with _full_disk(limit) as limited:
        if limit < 10**9 and not limited:
            return
        why = f"{words}: the error reaches the caller"
        if kind is Exception:
            expect.raises(Exception, lambda: learner(path, model, optimizer, facts), why)
        else:
            try:
                learner(path, model, optimizer, facts)
            except kind:
                pass
            else:
                raise Complaint(why, [], "An except swallows it. finally does its work and lets the error go on.")
    now = path.read_bytes() if path.is_file() else None
    likely = likely or "Write to another name; only when that is whole, os.replace(part, path)."
    what = "what was at path stays as it was" if old else "no file is at path"
    expect.true(now == old, f"{words}: {what}", f"before {_size(old)}, after {_size(now)}", likely=likely)
    left = sorted(each.name for each in path.parent.iterdir() if each != path)
    expect.true(
        not left,
        f"{words}: no other file is left behind",
        f"there is {', '.join(left)}",
        likely="Ctrl-C is no Exception, which except Exception passes by: finally: part.unlink(missing_ok=True)"
        if kind is _Stopped
        else "torch.save and os.replace both within the try; finally: part.unlink(missing_ok=True)",
    )


def _size(content):
    return "no file" if content is None else f"{len(content)} bytes"


@contextlib.contextmanager
def _moves(path):
    """Yields a dict: the folders that files were moved from onto path, and whether path was ever missing meanwhile."""
    seen, there = {"from": [], "gap": False}, path.exists()
    real = {name: getattr(os, name) for name in ("replace", "rename")}

    def noting(name):
        def moving(source, target, *args, **kwargs):
            if Path(target) == path:
                within = path.resolve().parent in Path(source).resolve().parents  # a folder in it is on the same disk
                seen["from"].append(path.parent if within else Path(source).resolve().parent)
                seen["gap"] |= there and not path.exists()
            return real[name](source, target, *args, **kwargs)

        return moving

    for name in real:
        setattr(os, name, noting(name))
    try:
        yield seen
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def _compare(path, saved, model):
    there = {name: tuple(value.shape) for name, value in saved["model"].items()}
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            raise ValueError(f"{path} is of another architecture: {name} is {there.get(name)}, not {here.get(name)}")


def _compare_names(path, saved, model):
    if missing := saved["model"].keys() ^ model.state_dict().keys():
        raise ValueError(f"{path} is of another architecture: {sorted(missing)[0]}")


def _compare_by(here, there, path):
    """ValueError if the two dicts, of names to what is compared, differ."""
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            raise ValueError(f"{path} is of another architecture: {name} does not fit")


def _compare_names_of_the_file(path, saved, model):
    here, there = model.state_dict(), saved["model"]
    _compare_by(
        {n: tuple(here[n].shape) for n in there if n in here}, {n: tuple(v.shape) for n, v in there.items()}, path
    )


def _compare_what_both_have(path, saved, model):
    here, there = model.state_dict(), saved["model"]
    both = here.keys() & there.keys()
    _compare_by({n: here[n].shape for n in both}, {n: there[n].shape for n in both}, path)


def _compare_parameters(path, saved, model):
    here = {n: tuple(p.shape) for n, p in model.named_parameters()}
    _compare_by(here, {n: tuple(v.shape) for n, v in saved["model"].items() if n in here}, path)
    if more := saved["model"].keys() - model.state_dict().keys():
        raise ValueError(f"{path} is of another architecture: {sorted(more)[0]}")


def _compare_counts(path, saved, model):
    count = lambda state: {n: v.numel() for n, v in state.items()}  # noqa: E731
    _compare_by(count(model.state_dict()), count(saved["model"]), path)


def _copy_reshaped(model, state):
    for name, value in model.state_dict().items():
        value.copy_(state[name].reshape(value.shape))


def _try_to_load(path, saved, model):
    try:
        model.load_state_dict(saved["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} is of another architecture: {error}") from None


@parts
def _load(
    path,
    model,
    optimizer=None,
    *,
    read=lambda path: torch.load(path, map_location="cpu", weights_only=True),
    compare=_compare,
    restore=lambda model, state: model.load_state_dict(state),
    of_optimizer=lambda optimizer, state: optimizer.load_state_dict(state) if optimizer is not None else None,
    result=lambda saved, model: {name: value for name, value in saved.items() if name not in ("model", "optimizer")},
):
    saved = read(path)
    compare(path, saved, model)
    restore(model, saved["model"])
    of_optimizer(optimizer, saved["optimizer"])
    return result(saved, model)


def _says_little(path, saved, model):
    try:
        _compare(path, saved, model)
    except ValueError:
        raise ValueError("another architecture") from None


@exercise(
    hints=[
        'saved = torch.load(path, map_location="cpu", weights_only=True). Then compare {name: value.shape} of both state_dicts.',
        "For each name of either: if the shapes differ, or one has none, raise ValueError with path and name. Nothing is loaded by then.",
        'model.load_state_dict(saved.pop("model")); state = saved.pop("optimizer"); load it if an optimizer is given; return saved.',
    ],
    mistakes=_load.mistakes(
        read={
            "The file is read with weights_only=False, and code in it has run. Plain data are enough: weights_only=True.": (
                lambda path: torch.load(path, map_location="cpu", weights_only=False)
            ),
            'A file that was written on a GPU cannot be read without one: map_location="cpu" puts its tensors onto the CPU.': (
                lambda path: torch.load(path, weights_only=True)
            ),
        },
        compare={
            "It lets load_state_dict find out. That raises, but has copied by then what did fit: compare first.": _try_to_load,
            "Only names are compared. A layer of another width has the same names: compare the shapes too.": _compare_names,
            "Nothing is compared: what load_state_dict raises is a RuntimeError, after half of the work.": lambda path, saved, model: (
                None
            ),
            "The message does not say which file and which tensor: name both.": _says_little,
            "Only the file's names are looked at: what the model has and the file lacks is found too late, by load_state_dict.": (
                _compare_names_of_the_file
            ),
            "Only parameters are compared: buffers are in state_dict() too, and can be missing or of another shape.": (
                _compare_parameters
            ),
        },
        together={
            "strict=False passes over what only one of both has: that is another architecture, so compare all names.": {
                "compare": _compare_what_both_have,
                "restore": lambda model, state: model.load_state_dict(state, strict=False),
            },
            "Only the numbers of entries are compared: a transposed weight has as many. Compare the shapes.": {
                "compare": _compare_counts,
                "restore": _copy_reshaped,
            },
        },
        restore={
            'The model is left as it is: model.load_state_dict(saved["model"]).': lambda model, state: None,
            "The model gets new parameters in place of its own, and the optimiser still holds the old ones: no assign=True.": (
                lambda model, state: model.load_state_dict(state, assign=True)
            ),
            "Buffers are not restored: load the whole state_dict.": (
                lambda model, state: model.load_state_dict(
                    {n: state[n] for n, _ in model.named_parameters()}, strict=False
                )
            ),
        },
        of_optimizer={
            "Only the rates of the optimiser are restored, and its momentum is lost: optimizer.load_state_dict(...).": (
                lambda optimizer, state: (
                    [g.update(lr=s["lr"]) for g, s in zip(optimizer.param_groups, state["param_groups"], strict=True)]
                    if optimizer
                    else None
                )
            ),
        },
        optimizer={"The optimiser's state is not restored: optimizer.load_state_dict(...).": None},
        result={
            "All that was in the file comes back; the states of model and optimizer are not part of the facts.": lambda saved, model: (
                saved
            ),
            "Nothing comes back, and the facts are lost: return them.": lambda saved, model: {},
            "Only the configuration comes back: return all facts.": lambda saved, model: saved["config"],
            "The state of the optimizer comes back with the facts.": (
                lambda saved, model: {name: value for name, value in saved.items() if name != "model"}
            ),
        },
    ),
    changes=("weights", "optimizer"),
    seconds=30,
)
def load_checkpoint(learner, rng):
    with _folder() as folder:
        path = folder / "model.pt"
        for with_optimizer in (True, False):
            (saved_model, saved_optimizer), facts = _trained(rng), _facts(rng)
            torch.save({"model": saved_model.state_dict(), "optimizer": saved_optimizer.state_dict(), **facts}, path)
            model, optimizer = _trained(rng, steps=0)
            own = [id(p) for p in model.parameters()]
            words = "with an optimizer" if with_optimizer else "without an optimizer"
            given = learner(path, model, optimizer) if with_optimizer else learner(path, model)
            _demand_state(model.state_dict(), saved_model.state_dict(), f"{words}: the model", "the file")
            if with_optimizer:
                rates = [[group["lr"] for group in each.param_groups] for each in (optimizer, saved_optimizer)]
                expect.close(rates[0], rates[1], why=f"{words}: its rate", source="the file")
                _demand_state(
                    optimizer.state_dict(), saved_optimizer.state_dict(), f"{words}: the optimizer", "the file"
                )
            same = [id(p) for p in model.parameters()] == own and all(p.requires_grad for p in model.parameters())
            expect.true(
                same,
                f"{words}: the model's parameters are the same objects as before",
                likely="Copy into them: the optimiser holds them.",
            )
            expect.kind(given, dict, f"{words}: the facts come back, a dict")
            expect.equal(
                sorted(given),
                sorted(facts),
                why=f"{words}: the facts that come back, by name",
                source="all but model and optimizer",
            )
            _demand_state(given, facts, f"{words}: the facts", "the file")

        others = {
            "another width": nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)),
            "one layer more": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Linear(2, 2)),
            "one layer less": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
            "other names": nn.Sequential(
                collections.OrderedDict(a=nn.Linear(3, 4), b=nn.BatchNorm1d(4), c=nn.Linear(4, 2))
            ),
        }
        like = lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))  # noqa: E731
        others |= {name: like() for name in ("one buffer more", "a buffer of another shape", "a weight transposed")}
        others["one buffer more"].register_buffer("mean", torch.zeros(3))
        others["a buffer of another shape"][1].running_mean = torch.zeros(1)
        others["a weight transposed"][0].weight = nn.Parameter(torch.zeros(3, 4))
        for words, model in others.items():
            optimizer = torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.5)
            before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
            shapes = [{n: tuple(v.shape) for n, v in m.state_dict().items()} for m in (model, saved_model)]
            misfits = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
            rule = f"a file of another architecture ({words})"
            named = "|".join(map(re.escape, misfits))
            match = f"(?s){re.escape(path.name)}.*({named})|({named}).*{re.escape(path.name)}"
            _refused(rule, learner, path, model)
            error = _refused(rule, learner, path, model, optimizer)
            likely = "The message is to name the file and one tensor that does not fit."
            expect.true(
                re.search(match, str(error)),
                f"{rule}: the message names the path and a tensor that does not fit",
                f"yours    {str(error)[:90]}",
                likely=likely,
            )
            for what, mine, old in zip(
                ("model", "optimizer"), (model.state_dict(), optimizer.state_dict()), before, strict=True
            ):
                changed = [
                    name
                    for name, value in _flat(mine).items()
                    if name not in _flat(old) or not _alike(value, _flat(old)[name])
                ]
                likely = (
                    "load_state_dict copies what fits before it raises: compare first, load afterwards."
                    if what == "model"
                    else "It was loaded, and the model does not fit: compare first, load both afterwards."
                )
                expect.true(
                    not changed,
                    f"{rule}: the {what} stays as it was",
                    f"changed  {', '.join(changed[:4])}",
                    likely=likely,
                )

        ran = folder / "ran"
        model, optimizer = _trained(rng)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "config": _Code(ran)}, path)
        with contextlib.suppress(Exception):
            learner(path, model, optimizer)
        expect.true(
            not ran.exists(),
            "a file in which code is hidden: that code does not run",
            likely="torch.load(path, weights_only=True)",
        )

        (saved_model, saved_optimizer), (model, optimizer) = _trained(rng), _trained(rng, steps=0)
        torch.save({"model": saved_model.state_dict(), "optimizer": saved_optimizer.state_dict()}, path)
        _as_from_a_gpu(path)
        learner(path, model, optimizer)
        words = "a file whose tensors were on a GPU: the model"
        _demand_state(model.state_dict(), saved_model.state_dict(), words, "the file")


def _as_from_a_gpu(path):
    """Change the file of torch.save so that its tensors say cuda:0."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            if name.endswith("data.pkl"):
                value = value.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
            archive.writestr(name, value)


def _refused(rule, learner, *arguments):
    """The ValueError that it raises."""

    def likely(found, _):
        too_late = "load_state_dict found it, and too late: compare names and shapes of both state_dict() before."
        return too_late if isinstance(found, RuntimeError) and "state_dict" in str(found) else ""

    return expect.raises(ValueError, lambda: learner(*arguments), f"{rule}: ValueError", likely=likely)


class _Code:
    """Pickled, it is a call that makes a folder: what a file could do that is read without weights_only."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)
