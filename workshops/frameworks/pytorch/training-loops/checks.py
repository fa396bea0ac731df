"""The checks of training-loops: one for each exercise, with its hints. `lab.check` runs them.

The authority is a simpler run: the whole batch at once, the run in one go, the single process; and torch's own tools.
"""

import contextlib
import copy
import itertools
import math
import os
import random
import re
import tempfile
import threading
import weakref
from pathlib import Path

import numpy as np

from atlas.checking import Complaint, Tape, array, exercise, expect, parts, tensor
from atlas.checking.world import replaced

# ------------------------------------------------------------------------------------------------ Mean


class _Mean:
    """The right answer, with parts to replace."""

    def __init__(self):
        self.total, self.count = self.begin, 0

    begin = 0.0

    def number(self, value):
        return float(value)

    def add(self, value, n):
        self.total += value * n
        self.count += n

    def take(self, other):
        self.total += other.total
        self.count += other.count

    def empty(self):
        return math.nan

    def update(self, value, n):
        self.add(self.number(value), n)

    def merge(self, other):
        self.take(other)

    def compute(self):
        return self.total / self.count if self.count else self.empty()


def _set(mean, total, count):
    mean.total, mean.count = total, count


def _divided(mean):
    return mean.total / mean.count


def _both(one, other):
    return (one.total + other.total) / (one.count + other.count)


@exercise(
    hints=[
        "A mean of means cannot be repaired later. Which two numbers can simply be added up?",
        "update: the sum grows by value · n, the count by n. merge: both grow by the other's. compute: sum by count.",
        "self.total += float(value) * n; self.count += n; at the end self.total / self.count; for count 0 float('nan')",
    ],
    mistakes=parts(_Mean).mistakes(
        add={
            "It is the mean of the batches' means: a batch of one counts as much as one of 512. Weight by n.": (
                lambda self, value, n: _set(self, self.total + value, self.count + 1)
            ),
            "The values are added up without their n: a mean over n examples stands for a sum of value · n.": (
                lambda self, value, n: _set(self, self.total + value, self.count + n)
            ),
            "It divides by the number of batches: the count grows by n.": (
                lambda self, value, n: _set(self, self.total + value * n, self.count + 1)
            ),
            "Only the last batch counts: add to what is there.": lambda self, value, n: _set(self, value * n, n),
        },
        take={
            "merge takes the mean of the two means. Add up sums and counts.": (
                lambda self, other: (
                    _set(self, (_divided(self) + _divided(other)) / 2 * self.count, self.count)
                    if self.count and other.count
                    else _Mean.take(self, other)
                )
            ),
            "merge counts the other as one batch of the same size: its sum belongs to its own count.": (
                lambda self, other: _set(self, self.total + other.total, 2 * self.count)
            ),
            "merge adds the sums, and forgets the counts.": (
                lambda self, other: _set(self, self.total + other.total, self.count)
            ),
            "merge replaces what this one has seen; it is to be added.": (
                lambda self, other: _set(self, other.total, other.count)
            ),
            "merge changes nothing here: add the other's sum and count to your own.": lambda self, other: None,
            "merge also changes the other one, which is to stay as it is.": (
                lambda self, other: (_Mean.take(self, other), _set(other, self.total, self.count))
            ),
            "merge empties the other one, which is to stay as it is.": (
                lambda self, other: (_Mean.take(self, other), _set(other, 0.0, 0))
            ),
            "merge finds the right mean, and forgets to add the count: what comes later weighs too much.": (
                lambda self, other: _set(self, _both(self, other) * self.count, self.count)
            ),
        },
        empty={
            'Without examples there is no mean: float("nan"), not 0, which looks like a measurement.': lambda self: 0.0
        },
        number={
            "It keeps tensors: they come back as results, and a loss keeps its whole graph alive. float(value).": (
                lambda self, value: value
            ),
            "The value is rounded or cut: float(value), not int(value).": lambda self, value: int(value),
        },
        begin={"The sum does not begin at 0.": 1.0},
    ),
    seconds=30,  # torch may be imported here for the first time
)
def Mean(learner, rng):
    import torch

    def filled(batches):
        mean = learner()
        for value, n in batches:
            mean.update(value, n)
        return mean

    def exact(batches):
        values, counts = zip(*batches, strict=True)
        return float(np.average([float(value) for value in values], weights=counts))

    def demand(mean, batches, why, likely=""):
        expect.close(mean.compute(), exact(batches), why=why, source="numpy.average", lone=True, likely=likely)

    example = [(1.0, 4), (2.0, 4), (6.0, 1)]
    demand(filled(example), example, "the example above: means 1, 2, 6 of 4, 4 and 1 examples")
    a, b, c = ([(float(rng.normal()), int(rng.integers(1, 60))) for _ in range(5)] for _ in range(3))
    shared = "All of them share what they keep, as a class attribute is shared: make it in __init__, for each its own."
    likely = {shared: exact(example + a)}
    demand(filled(a), a, "five batches of unequal size, values of both signs", likely)
    mean = filled(a)
    mean.compute()
    for value, n in b:
        mean.update(value, n)
    likely = "Does compute change what is kept?"
    demand(mean, a + b, "it goes on after compute", likely)
    one, other = filled(a), filled(b)
    one.merge(other)
    demand(one, a + b, "merge: two that saw different batches")
    demand(other, b, "merge leaves the other as it is")
    for value, n in c:
        one.update(value, n)
    demand(one, a + b + c, "it goes on after merge")
    likely = "Keep two numbers, and no reference to the other."
    demand(other, b, "after merge the two have nothing in common", likely)
    other.update(1e3, 7)
    demand(one, a + b + c, "after merge the two have nothing in common", likely)
    empty = learner()
    empty.merge(filled(a))
    demand(empty, a, "merge into one that saw nothing")
    full = filled(a)
    full.merge(learner())
    demand(full, a, "merge with one that saw nothing")
    for mean, words in ((learner(), "nothing"), (learner(), "another that saw nothing")):
        if words != "nothing":
            mean.merge(learner())
        result = mean.compute()
        expect.kind(result, float, f"compute returns a float, also after {words}")
        nan = "Ask for the count before you divide."
        expect.true(math.isnan(result), f"no examples, after {words}: NaN", f"yours    {result}", likely=nan)
    for zeros in ([(0.0, 3), (0.0, 2)], [(1.5, 2), (-1.0, 3)]):
        likely = "Ask for the count, and not for the sum: a sum of 0 is a result like others."
        demand(filled(zeros), zeros, "losses that add up to 0", likely)
    small = [(0.25, 3), (0.125, 1)]
    demand(filled(small), small, "fractions stay fractions")
    given = [(torch.tensor(value), n) for value, n in small]
    mean = filled(given)
    kind = "a tensor's number is taken out: compute returns a float"
    expect.kind(mean.compute(), float, kind, likely="float(value) in update.")
    demand(mean, given, "tensors of shape ()")
    marks = []

    class Marked(torch.autograd.Function):
        """Hands on its input; its place in the graph has a mark, which lives as long as the graph."""

        @staticmethod
        def forward(ctx, x):
            ctx.mark = set()
            marks.append(weakref.ref(ctx.mark))
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    loss = Marked.apply(torch.ones(2, requires_grad=True)).exp().mean()
    mean = filled([(loss, 2)])
    marks.append(weakref.ref(loss))
    del loss
    kept = any(mark() is not None for mark in marks)
    likely = "float(value) keeps the number only; a tensor in a list or a sum keeps all it was computed from."
    expect.true(not kept, "update keeps no tensor, which would hold its graph in memory", likely=likely)
    demand(mean, [(math.e, 2)], "a loss that is part of a graph")


# ------------------------------------------------------------------------------------------------ accumulated_step


def _zero(optimizer):
    optimizer.zero_grad()


def _clip(model, max_norm):
    import torch

    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)


@parts
def _accumulated(
    model,
    optimizer,
    x,
    y,
    size,
    max_norm=None,
    *,
    split=lambda x, size: x.split(size),
    begin=_zero,
    before=lambda optimizer: None,
    share=lambda part, x, size: len(part) / len(x),
    after=lambda model, optimizer, max_norm: None,
    clip=_clip,
    step=lambda optimizer: optimizer.step(),
    finish=lambda optimizer: None,
    back=lambda losses, shares: sum(loss * share for loss, share in zip(losses, shares, strict=True)),
):
    import torch

    begin(optimizer)
    losses, shares = [], []
    for part, labels in zip(split(x, size), split(y, size), strict=True):
        before(optimizer)
        loss = torch.nn.functional.cross_entropy(model(part), labels)
        (loss * share(part, x, size)).backward()
        losses.append(loss.item())
        shares.append(len(part) / len(x))
        after(model, optimizer, max_norm)
    clip(model, max_norm)
    step(optimizer)
    finish(optimizer)
    return back(losses, shares)


def _whole(x, size):
    return x.split(len(x) // size * size if len(x) > size else len(x))[:1][0].split(size)


def _one_graph(model, optimizer, x, y, size, max_norm=None):
    """All parts pass before the first backward(): all graphs are in memory at the same time."""
    import torch

    optimizer.zero_grad()
    pairs = zip(x.split(size), y.split(size), strict=True)
    loss = sum(torch.nn.functional.cross_entropy(model(a), b) * len(a) / len(x) for a, b in pairs)
    loss.backward()
    _clip(model, max_norm)
    optimizer.step()
    return loss.item()


def _at_once(model, optimizer, x, y, size, max_norm=None):
    """The batch goes through the model at once: `size` is not looked at."""
    return _accumulated(model, optimizer, x, y, len(x), max_norm)


@exercise(
    hints=[
        "Outside the loop: zero_grad first; clip and step last. Inside: forward, loss times a factor, backward.",
        "zip(x.split(size), y.split(size)) gives the parts. The factor is len(part) / len(x), not 1 / number of parts.",
        "for part, labels in zip(...): loss = functional.cross_entropy(model(part), labels) * len(part) / len(x); "
        "loss.backward(); total += loss.item()",
    ],
    mistakes=_accumulated.mistakes(
        _one_graph,
        _at_once,
        share={
            "Every part counts the same: a smaller last one has to count less. The factor is len(part) / len(x).": (
                lambda part, x, size: 1 / math.ceil(len(x) / size)
            ),
            "The parts' gradients are added up whole: each loss is a mean already, so it counts len(part) / len(x).": (
                lambda part, x, size: 1.0
            ),
            "The factor is size / len(x); the last part may have fewer images: len(part) / len(x).": (
                lambda part, x, size: size / len(x)
            ),
            "It divides by the whole parts, len(x) // size, and forgets the smaller last one.": (
                lambda part, x, size: 1 / max(len(x) // size, 1)
            ),
            "It divides by len(x) only: a mean over a part stands for len(part) losses.": (
                lambda part, x, size: 1 / len(x)
            ),
        },
        begin={
            "Old gradients are still there, and count: optimizer.zero_grad() before the first part.": lambda optimizer: (
                None
            )
        },
        before={"zero_grad in the loop wipes out what the parts before have collected: once, before the loop.": _zero},
        after={
            "It takes a step for each part; one step at the end is asked for.": (
                lambda model, optimizer, max_norm: optimizer.step()
            ),
            "It clips after each part, when the gradient is not whole yet: once, after the loop.": (
                lambda model, optimizer, max_norm: _clip(model, max_norm)
            ),
        },
        clip={
            "It clips entry by entry; max_norm is the norm of the whole gradient: nn.utils.clip_grad_norm_.": (
                lambda model, max_norm: _clip_values(model, max_norm)
            ),
            "Each parameter is clipped by itself; max_norm is the norm of all of them together.": (
                lambda model, max_norm: [_clip(_Only(p), max_norm) for p in model.parameters()]
            ),
            "The gradient is scaled to max_norm also where it is shorter: clipping never makes it longer.": (
                lambda model, max_norm: _scale(model, max_norm)
            ),
        },
        max_norm={"It never clips: max_norm is not looked at.": None},
        step={"The optimizer takes no step.": lambda optimizer: None},
        split={"The smaller last part is left out.": _whole},
        back={
            "The loss that comes back is the last part's; the mean over the whole batch is asked for.": (
                lambda losses, shares: losses[-1]
            ),
            "The loss that comes back is the mean of the parts' means: weight each by its share.": (
                lambda losses, shares: sum(losses) / len(losses)
            ),
            "The loss that comes back is the sum of the parts' losses: weight each by its share.": (
                lambda losses, shares: sum(losses)
            ),
        },
        together={
            "It clips after each part and not at the end: what is clipped has to be the whole gradient.": {
                "after": lambda model, optimizer, max_norm: _clip(model, max_norm),
                "clip": lambda model, max_norm: None,
            },
            "It takes a step after each part, and none at the end: one step with the whole gradient is asked for.": {
                "after": lambda model, optimizer, max_norm: (_clip(model, max_norm), optimizer.step()),
                "step": lambda optimizer: None,
                "clip": lambda model, max_norm: None,
            },
            "It takes a step and zeroes for each part: those are several small steps, not one on the whole batch.": {
                "before": _zero,
                "after": lambda model, optimizer, max_norm: (_clip(model, max_norm), optimizer.step()),
                "step": lambda optimizer: None,
                "clip": lambda model, max_norm: None,
            },
        },
    ),
    changes=("weights", "gradients", "optimizer"),
    seconds=30,
)
def accumulated_step(learner, rng):
    import torch
    from torch import nn

    class Watching(nn.Module):
        """Hands on what it gets; notes each pass, the optimizer's steps by then, and each way back."""

        def __init__(self):
            super().__init__()
            self.seen, self.steps, self.events, self.ask = [], [], [], lambda: 0

        def forward(self, x):
            self.seen.append(x.detach().clone())
            self.steps.append(self.ask())
            self.events.append("pass")
            return x

    class Last(nn.Module):
        """Hands on the logits; `told()` is called when a gradient comes back to them."""

        told = staticmethod(lambda: None)

        def forward(self, logits):
            if logits.requires_grad:
                logits.register_hook(lambda gradient: self.told())
            return logits

    def made(kind, frozen):
        watching = Watching()
        model = nn.Sequential(watching, nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), Last()).double()
        model[1].requires_grad_(not frozen)
        twin = copy.deepcopy(model)
        tape = Tape()
        watching.ask = lambda: len(tape.steps)
        model[4].told = lambda: watching.events.append("back")
        optimizers = [kind([p for p in m.parameters() if p.requires_grad]) for m in (model, twin)]
        tape.optimizer(optimizers[0])
        return watching, model, twin, tape, optimizers

    def sgd(params):
        return torch.optim.SGD(params, lr=0.5, momentum=0.9)

    def demand(B, size, max_norm, why, *, kind=sgd, frozen=False, old=False, calls=1, scale=1.0):
        why = f"{why}: B = {B}, size {size}"
        watching, model, twin, tape, (mine, theirs) = made(kind, frozen)
        for call in range(calls):
            x = torch.tensor(scale * rng.normal(size=(B, 3)))
            y = torch.tensor(rng.integers(4, size=B))
            if old:
                for p in model.parameters():
                    p.grad = torch.full_like(p, 0.3)
            start = [p.detach().clone() for p in twin.parameters()]
            theirs.zero_grad()
            loss = nn.functional.cross_entropy(twin(x), y)
            loss.backward()
            if max_norm is not None:
                nn.utils.clip_grad_norm_(twin.parameters(), max_norm)
            theirs.step()
            watching.seen.clear(), watching.steps.clear(), watching.events.clear()
            settings = {} if max_norm is None else {"max_norm": max_norm}
            given = learner(model, mine, x, y, size, **settings)
            expected = [len(part) for part in x.split(size)]
            seen = [len(part) for part in watching.seen]
            likely = "Use x.split(size): the last part has what is left."
            late = watching.steps[len(expected) :]
            if seen[: len(expected)] == expected and late and min(late) > watching.steps[len(expected) - 1]:
                likely = (
                    "Images pass again after the step: the loss before it is asked for, which the parts have given."
                )
            expect.equal(seen, expected, why=f"{why}: images in each pass", source="x.split(size)", likely=likely)
            expect.close(torch.cat(watching.seen), x, why=f"{why}: the images that pass", source="x", likely=likely)
            source = f"the same, call {call + 1}" if calls > 1 else "the whole batch at once"
            moved = np.concatenate(
                [array(p.detach() - q).ravel() for p, q in zip(model.parameters(), start, strict=True)]
            )
            wanted = np.concatenate(
                [array(p.detach() - q).ravel() for p, q in zip(twin.parameters(), start, strict=True)]
            )
            expect.close(moved, wanted, why=f"{why}: how the weights move", source=source, rtol=1e-4, atol=1e-9)
            expect.equal(len(tape.steps), call + 1, why=f"{why}: steps of the optimizer", source="one for each call")
            likely = "loss.backward() inside the loop: it adds to .grad, and frees the graph of this part."
            done = watching.events == ["pass", "back"] * len(expected)
            expect.true(done, f"{why}: each part's backward() comes before the next part's pass", likely=likely)
            expect.close(
                given, loss.item(), why=f"{why}: the loss that comes back", source="the whole batch at once", lone=True
            )
            expect.kind(given, float, f"{why}: the loss is a number", likely="loss.item(): a tensor keeps its graph.")

    demand(6, 2, None, "equal parts")
    demand(5, 2, None, "a smaller last part")
    demand(7, 3, 0.05, "a smaller last part, clipped", scale=3)
    demand(6, 2, 0.05, "equal parts, clipped", scale=3)
    demand(7, 3, 1e3, "clipping that has nothing to do")
    demand(5, 2, None, "old gradients are there", old=True)
    demand(5, 2, 0.1, "old gradients are there, clipped", old=True)
    demand(5, 2, None, "two steps in a row", calls=2)
    demand(6, 4, None, "a last part of half the size")
    demand(4, 4, None, "one part")
    demand(3, 8, None, "a size above the batch")
    demand(3, 1, None, "single images")
    demand(5, 2, 0.1, "a frozen layer", frozen=True)
    demand(5, 2, 0.05, "Adam in place of SGD", kind=lambda params: torch.optim.AdamW(params, lr=0.05), calls=2)


class _Only:
    """A parameter by itself, as if it were a model."""

    def __init__(self, parameter):
        self.parameter = parameter

    def parameters(self):
        return [self.parameter]


def _scale(model, max_norm):
    import torch

    if max_norm is not None:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf)
        for p in model.parameters():
            if p.grad is not None:
                p.grad.mul_(max_norm / norm)


def _clip_values(model, max_norm):
    import torch

    if max_norm is not None:
        torch.nn.utils.clip_grad_value_(model.parameters(), max_norm)


# ------------------------------------------------------------------------------------------------ EMA


class _EMA:
    """The right answer, with parts to replace."""

    def __init__(self, model, decay):
        self.model, self.decay, self.updates = copy.deepcopy(model), decay, 0
        self.ready(self.model)

    def ready(self, mine):
        mine.eval().requires_grad_(False)

    def rate(self, t):
        return min(self.decay, (t - 1) / t)

    def mixed(self, d, mean, w):
        return d * mean + (1 - d) * w

    def statistics(self, mine, theirs, d):
        mine.copy_(theirs)

    def update(self, model):
        import torch

        self.updates += 1
        d = self.rate(self.updates)
        with torch.no_grad():
            for mean, w in zip(self.model.parameters(), model.parameters(), strict=True):
                mean.copy_(self.mixed(d, mean, w))
            for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
                self.statistics(mine, theirs, d)


def _aliased(d, mean, w):
    mean.data = w.data if d == 0 else d * mean.data + (1 - d) * w.data
    return mean


def _averaged_too(self, mine, theirs, d):
    mine.copy_(d * mine + (1 - d) * theirs)


@exercise(
    hints=[
        "Three things to remember: a deep copy, the decay, and the number of updates so far.",
        "self.updates += 1 first, then d = min(self.decay, (self.updates - 1) / self.updates): 0 in the first update.",
        "for mean, w in zip(self.model.parameters(), model.parameters()): mean.copy_(d * mean + (1 - d) * w); "
        "for buffers: mine.copy_(theirs)",
    ],
    mistakes=parts(_EMA).mistakes(
        rate={
            "The warm-up is missing: d is the decay from the first update on, so the first weights rule for long.": (
                lambda self, t: self.decay
            ),
            "The first update copies, but then d is the decay at once: the warm-up is min(d, (t - 1)/t) all the way.": (
                lambda self, t: self.decay if t > 1 else 0.0
            ),
            "The larger of the two is taken: min, not max.": lambda self, t: max(self.decay, (t - 1) / t),
            "The decay has no part in it: old weights never fade. min(decay, (t - 1)/t).": lambda self, t: (t - 1) / t,
            "The warm-up is one update ahead, t/(t + 1): in the first update d is 0.": (
                lambda self, t: min(self.decay, t / (t + 1))
            ),
            "The warm-up is (1 + t)/(10 + t), of other libraries: here it is (t - 1)/t.": (
                lambda self, t: min(self.decay, (1 + t) / (10 + t))
            ),
            "That is Adam's bias correction, in which new weights count more at first: d is min(decay, (t - 1)/t).": (
                lambda self, t: self.decay * (1 - self.decay ** (t - 1)) / (1 - self.decay**t)
            ),
            "A decay of 0 is replaced, as `decay or ...` does: 0 is a decay like others.": (
                lambda self, t: min(self.decay or 0.999, (t - 1) / t)
            ),
        },
        mixed={
            "d and 1 - d are swapped: the old mean keeps d.": lambda self, d, mean, w: (1 - d) * mean + d * w,
            "The weights are copied, not averaged.": lambda self, d, mean, w: w,
            "It adds up for ever: the old mean keeps the weight d.": lambda self, d, mean, w: mean + (1 - d) * w,
            "The mean does not move: write into it, mean.copy_(...), for mean = ... is only a new name.": (
                lambda self, d, mean, w: mean
            ),
            "The first update takes over the model's own tensors, which the next step changes: mean.copy_(...).": (
                lambda self, d, mean, w: _aliased(d, mean, w)
            ),
        },
        statistics={
            "Buffers stay as they were at first: batch norm then works with statistics of other weights. Copy them.": (
                lambda self, mine, theirs, d: None
            ),
            "Buffers are averaged: they are to be copied (a counter is a whole number).": _averaged_too,
        },
        ready={
            "The copy is not in evaluation mode: self.model.eval().": lambda self, mine: mine.train().requires_grad_(
                False
            ),
            "The copy's parameters require gradients: self.model.requires_grad_(False).": lambda self, mine: (
                mine.eval()
            ),
            "The copy is neither in evaluation mode nor freed of gradients: .eval().requires_grad_(False).": (
                lambda self, mine: mine.train()
            ),
        },
    ),
    seconds=30,
)
def EMA(learner, rng):
    import torch
    from torch import nn
    from torch.optim.swa_utils import AveragedModel

    def made():
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
        return _moved(model)

    def _moved(model):
        """Another step of training: new weights, new statistics."""
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.copy_(torch.tensor(rng.uniform(0.5, 2, size=tuple(value.shape))))
                else:
                    value.add_(int(rng.integers(1, 5)))
        return model

    def flat(tensors):
        return np.concatenate([array(each.detach()).astype(float).ravel() for each in tensors])

    def demand(ema, reference, model, why):
        yours, theirs = flat(ema.model.parameters()), flat(reference.module.parameters())
        expect.close(yours, theirs, why=f"{why}: all parameters in a row", source="torch's AveragedModel with this d")
        source = "the model's own: they are copied"
        names = [name for name, _ in model.named_buffers()]
        for name, mine, its in zip(names, ema.model.buffers(), model.buffers(), strict=True):
            expect.close(mine, its, why=f"{why}: buffer {name}", source=source)
            expect.dtype(mine, its, f"{why}: the kind of buffer {name}")

    def authority(model, decay):
        def mix(mean, w, n):  # n updates came before
            d = min(decay, float(n) / (float(n) + 1))
            return d * mean + (1 - d) * w

        return AveragedModel(model, avg_fn=mix)

    class One(nn.Module):
        def __init__(self, w):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([w], dtype=torch.float64))

    model = made()
    ema = learner(model, 0.9)
    kept = copy.deepcopy(model)
    before = flat(ema.model.state_dict().values())
    same = np.array_equal(before, flat(kept.state_dict().values()))
    expect.true(same, "before the first update self.model is a copy of the model, as it was")
    _moved(model)
    after = flat(ema.model.state_dict().values())
    likely = "copy.deepcopy(model): otherwise both are the same tensors."
    expect.true(np.array_equal(before, after), "what happens to the model between updates does not show", likely=likely)

    model = One(9.0)
    ema, seen = learner(model, 0.6), []
    for w in (4.0, 8.0, 3.0):
        model.w.data.fill_(w)
        ema.update(model)
        seen.append(float(ema.model.w))
    expect.close(seen, [4.0, 6.0, 4.8], why="the example above: w = 4, 8, 3 with d = 0.6", source="by hand")
    for decay, updates in ((0.7, 6), (0.95, 4), (0.0, 2), (0.5, 5)):
        model = made()
        ema, reference = learner(model, decay), authority(model, decay)
        for t in range(1, updates + 1):
            _moved(model)
            ema.update(model)
            reference.update_parameters(model)
            demand(ema, reference, model, f"d = {decay}, update {t}")
    model = made()
    ema = learner(model, 0.9)
    ema.update(model)
    after = flat(ema.model.state_dict().values())
    _moved(model)
    late = np.array_equal(after, flat(ema.model.state_dict().values()))
    expect.true(late, "after an update the two have no tensor in common", likely="Write by copy_, and set none.")
    found = [sum(m.training for m in ema.model.modules()), sum(p.requires_grad for p in ema.model.parameters())]
    why = "of self.model: how many layers are in training mode, how many parameters require gradients"
    expect.equal(found, [0, 0], why=why, source="none", likely="self.model.eval(), self.model.requires_grad_(False)")
    linked = [p.grad_fn is not None for p in ema.model.parameters()]
    expect.true(not any(linked), "no graph hangs on the mean", likely="Is torch.no_grad() gone?")
    expect.true(model.training and all(p.requires_grad for p in model.parameters()), "the model goes on learning")
    x = torch.ones(2, 3, dtype=torch.float64)
    expect.shape(ema.model(x).detach(), (2, 2), "self.model can be used like the model")
    one, two = made(), made()
    pair = [(learner(each, 0.8), authority(each, 0.8), each) for each in (one, two)]
    for _ in range(3):
        for ema, reference, each in pair:
            _moved(each)
            ema.update(each)
            reference.update_parameters(each)
    for ema, reference, each in pair:
        demand(ema, reference, each, "two that take turns")


# ------------------------------------------------------------------------------------------------ save_run, resume_run


def _random_state():
    import torch

    name, key, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, key.tolist(), *rest),
        "torch": torch.get_rng_state(),
    }


def _set_random_state(state):
    import torch

    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])


def _run(seed):
    """The parts of a small run; the generators of this process begin where `seed` says."""
    import torch
    from torch import nn

    states = [int(each) for each in np.random.default_rng(seed).integers(2**31, size=3)]
    generator = torch.Generator().manual_seed(states[0])
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    random.setstate(random.Random(states[1]).getstate())
    np.random.set_state(np.random.RandomState(states[2]).get_state())
    torch.set_rng_state(generator.get_state())
    return {"model": model, "optimizer": optimizer, "schedule": schedule}


def _train(run, first, last):
    """Steps first to last - 1, each with draws of all three generators and an input that its number decides."""
    import torch

    run["model"].train()
    for step in range(first, last):
        x = torch.tensor(np.random.default_rng(step).normal(size=(6, 3)) + np.random.normal(size=(6, 3)))
        loss = (run["model"](x * (1 + random.random())) ** 2).sum()
        run["optimizer"].zero_grad()
        loss.backward()
        run["optimizer"].step()
        run["schedule"].step()


def _restore(kept, run):
    for name, part in run.items():
        part.load_state_dict(kept["parts"][name])
    _set_random_state(kept["random"])
    return kept["step"]


def _differing(run, other):
    """What of two runs differs in a bit, as text."""
    found = []
    for name in run:
        mine, theirs = (_leaves(each[name].state_dict()) for each in (run, other))
        found += [f"{name}: {key}" for key in theirs if not _same(mine.get(key), theirs[key])]
    return found


def _leaves(tree, name=""):
    if not isinstance(tree, dict | list | tuple):
        return {name: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {path: leaf for key, each in items for path, leaf in _leaves(each, f"{name}/{key}").items()}


def _replace(path, write):
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)


@parts
def _saved(
    path,
    step,
    parts,
    *,
    states=lambda parts: {name: part.state_dict() for name, part in parts.items()},
    drawn=_random_state,
    number=lambda step: step,
    made=lambda step, states, drawn: {"step": step, "parts": states, "random": drawn},
    put=lambda path, write, kept: _replace(path, write),
):
    import torch

    kept = made(number(step), states(parts), drawn())
    put(path, lambda place: torch.save(kept, place), kept)


def _remove_first(path, write, kept):
    part = path.with_name(path.name + ".part")
    write(part)
    path.unlink(missing_ok=True)
    part.rename(path)


def _elsewhere(path, write, kept):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "part")
        os.replace(Path(folder) / "part", path)


def _copied_over(path, write, kept):
    part = path.with_name(path.name + ".part")
    write(part)
    path.write_bytes(part.read_bytes())
    part.unlink()


def _left_beside(path, write, kept):
    part = path.with_name(path.name + ".part")
    write(part)
    (other := path.with_name("copy")).write_bytes(part.read_bytes())
    os.replace(other, path)


@exercise(
    hints=[
        "Two halves: what goes into the dict, and how the file takes its place.",
        "{name: part.state_dict() for name, part in parts.items()}, random_state(); path.with_name(path.name + '.part').",
        'torch.save({"step": step, "parts": states, "random": random_state()}, unfinished), then '
        "os.replace(unfinished, path)",
    ],
    mistakes=_saved.mistakes(
        put={
            "It writes straight to the path: killed while it writes, neither the old file nor the new one is whole.": (
                lambda path, write, kept: write(path)
            ),
            "The old file is removed before the new one is in its place: killed between both, there is none. os.replace "
            "does it in one act.": _remove_first,
            "The unfinished file lies in another folder, perhaps on another disk, where os.replace fails: take the same "
            "folder.": _elsewhere,
            "What is finished is copied over the old file, and copying takes time too: os.replace.": _copied_over,
            "Something else is left beside the file.": _left_beside,
        },
        states={
            "Only the model is kept; momentum and schedule begin anew. Keep the state of each of `parts`.": (
                lambda parts: {"model": parts["model"].state_dict()}
            ),
            "The parts themselves are stored: keep part.state_dict(), which is data only.": lambda parts: dict(parts),
            "Only weights are kept, no buffers: part.state_dict() has both.": (
                lambda parts: {
                    name: dict(part.named_parameters()) if hasattr(part, "named_parameters") else part.state_dict()
                    for name, part in parts.items()
                }
            ),
            "The schedule is left out: keep every one of `parts`, whatever they are called.": (
                lambda parts: {name: part.state_dict() for name, part in parts.items() if name != "schedule"}
            ),
        },
        number={
            "The step that comes back is one more than were done: keep `step` as it is.": lambda step: step + 1,
            "The step is not kept as it is given.": lambda step: 0,
        },
        drawn={"The states of the generators are not in it: random_state().": lambda: {}},
        made={
            'The states of the parts lie at the top of the dict; they belong below "parts".': (
                lambda step, states, drawn: {"step": step, **states, "random": drawn}
            ),
            'The states of the generators are not in it: "random": random_state().': (
                lambda step, states, drawn: {"step": step, "parts": states}
            ),
            'The number of the step is not in it: "step": step.': (
                lambda step, states, drawn: {"parts": states, "random": drawn}
            ),
        },
    ),
    seconds=30,
)
def save_run(learner, rng):
    import torch

    seed = int(rng.integers(1000))
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "kept"
        folder.mkdir()
        path = folder / "run.pt"
        run = _run(seed)
        _train(run, 0, 4)
        states = _random_state()
        learner(path, 4, run)
        expect.true(path.exists(), "the file is at the path", f"there are {sorted(p.name for p in folder.iterdir())}")
        kept = _read(path)
        names = sorted(map(str, kept)) if isinstance(kept, dict) else type(kept).__name__
        expect.equal(names, ["parts", "random", "step"], why="what the file holds", source="the docstring")
        expect.equal(kept["step"], 4, why="the steps that are done", source="step")
        expect.equal(sorted(kept["parts"]), sorted(run), why="the names of the parts", source="parts")
        for name, part in run.items():
            mine, theirs = _leaves(kept["parts"][name]), _leaves(part.state_dict())
            likely = "part.state_dict() has all of it."
            expect.equal(sorted(mine), sorted(theirs), why=f"all of {name}", source="state_dict()", likely=likely)
        now = [_comparable(each) for each in (kept["random"], states)]
        differ = sorted({key.split("/")[1] for key in now[1] if now[0].get(key) != now[1][key]})
        likely = "random_state(), called in the function: neither less nor earlier."
        why = "generators whose states are not in it, as they are at that moment"
        expect.equal(", ".join(differ), "", why=why, source="none", likely=likely)
        now = _comparable(_random_state()), now[1]
        differ = sorted({key.split("/")[1] for key in now[1] if now[0].get(key) != now[1][key]})
        likely = "Saving draws a number: the run goes on otherwise than from the file. A name needs none: + '.part'."
        why = "generators that stand elsewhere after saving than before"
        expect.equal(", ".join(differ), "", why=why, source="none", likely=likely)
        straight = _run(seed)
        _train(straight, 0, 8)
        again = _run(seed + 1)
        step = _restore(kept, again)
        _train(again, step, 8)
        wrong = _differing(again, straight)
        shown = f"differ   {', '.join(wrong[:3])}"
        expect.true(not wrong, "4 steps, the file, 4 more: to the bit what 8 steps give", shown)
        expect.equal([p.name for p in folder.iterdir()], ["run.pt"], why="nothing else is left", source="the folder")

        learner(path, 1, {"model": run["model"]})
        expect.equal(sorted(_read(path)["parts"]), ["model"], why="one part only", source="parts")
        learner(path, 2, {"a": run["model"], "b": run["optimizer"], "c": run["schedule"], "d": straight["model"]})
        expect.equal(sorted(_read(path)["parts"]), list("abcd"), why="parts of other names", source="parts")
        _demand_whole(learner, path, folder, run)
        learner(folder / "other.name", 3, run)
        two = sorted(p.name for p in folder.iterdir())
        expect.equal(two, ["other.name", "run.pt"], why="two runs in one folder", source="their paths")
        expect.equal(_read(folder / "other.name")["step"], 3, why="a file that is called otherwise", source="step")


def _read(path):
    import torch

    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        details = [f"yours    {type(error).__name__}: {str(error).splitlines()[0][:90]}"]
        likely = "Only data belongs in it: state_dict() of each part, numbers, and what random_state() gives."
        if path.read_bytes()[:2] != b"PK":  # torch.save writes an archive
            likely = "It is no file of torch.save, which is what torch.load(..., weights_only=True) reads."
        raise Complaint("torch.load(path, weights_only=True) reads it", details, likely, details) from None


def _comparable(state):
    """Random states as plain data."""
    leaves = _leaves(state)
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in leaves.items()}


def _demand_whole(learner, path, folder, run):
    """Demand that the old file is whole until the new one takes its place in one act."""
    import torch

    old, faults, moving_in = path.read_bytes(), [], []
    witness = folder.parent / "witness"
    os.link(path, witness)  # another name for the old file: what is written into it shows here
    save, replace, rename, unlink, remove = torch.save, os.replace, os.rename, os.unlink, os.remove

    def saving(*args, **kwargs):
        save(*args, **kwargs)
        if not path.exists() or path.read_bytes() != old:
            faults.append("while torch.save writes, the old file is not whole any more")

    def moving(move):
        def moved(source, target, **kwargs):
            if os.path.abspath(os.path.dirname(source)) != str(folder):
                faults.append("the unfinished file lay in another folder")
            if os.path.abspath(target) == str(path):
                moving_in[:] = [Path(source).read_bytes()]
            return move(source, target, **kwargs)

        return moved

    def removing(remove):
        def removed(place, **kwargs):
            if os.path.abspath(place) == str(path):
                faults.append("the old file is removed before the new one is there")
            return remove(place, **kwargs)

        return removed

    with contextlib.ExitStack() as stack:
        for owner, name, spy in (
            (torch, "save", saving),
            (os, "replace", moving(replace)),
            (os, "rename", moving(rename)),
            (os, "unlink", removing(unlink)),
            (os, "remove", removing(remove)),
        ):
            stack.enter_context(replaced(owner, name, spy))
        learner(path, 5, run)
    if witness.read_bytes() != old:
        faults.append("the new file is written into the old one")
    likely = "torch.save to another name in the same folder, then os.replace(unfinished, path)."
    if not faults and moving_in and moving_in[0] != path.read_bytes():
        faults.append("when the file took its place, not all of it was written yet")
        likely = "Close the file first, by leaving its `with`, then os.replace: what waits in a buffer is in no file."
    if faults:
        why = "killed at any moment, the path holds the old file or the new one, whole"
        raise Complaint(why, [f"seen     {faults[0]}"], likely, faults[0])
    expect.equal(_read(path)["step"], 5, why="a second save takes the place of the first", source="step")

    class Broken:
        def state_dict(self):
            return {"weights": torch.ones(3), "what": lambda: 0}

    before = path.read_bytes()
    with contextlib.suppress(Exception):
        learner(path, 6, {"model": run["model"], "broken": Broken()})
    why = "where torch.save fails in the middle, the old file is still whole"
    expect.true(path.exists() and path.read_bytes() == before, why, likely=likely)
    for left in folder.iterdir():
        if left != path:
            left.unlink()
    witness.unlink()


def _checked(path, saved, parts):
    if saved["parts"].keys() != parts.keys():
        raise ValueError(f"{path} holds other parts")


def _load_all(saved, parts):
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])


@parts
def _resumed(
    path,
    parts,
    *,
    safe=True,
    checked=_checked,
    load=_load_all,
    drawn=lambda state: _set_random_state(state),
    back=lambda saved: saved["step"],
):
    import torch

    saved = torch.load(path, map_location="cpu", weights_only=safe)
    checked(path, saved, parts)
    load(saved, parts)
    drawn(saved["random"])
    return back(saved)


def _late(path, parts):
    """Names are compared on the way: by then some parts are changed already. Compare first."""
    import torch

    saved = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        if name not in saved["parts"]:
            raise ValueError(name)
        part.load_state_dict(saved["parts"][name])
    _checked(path, saved, parts)
    _set_random_state(saved["random"])
    return saved["step"]


@exercise(
    hints=[
        "Four lines: load, compare the names, hand each part its state, put the generators back. Then return.",
        "saved['parts'].keys() != parts.keys() compares the names. part.load_state_dict(...) changes a part in place.",
        "for name, part in parts.items(): part.load_state_dict(saved['parts'][name]); then "
        "set_random_state(saved['random'])",
    ],
    mistakes=_resumed.mistakes(
        _late,
        drawn={
            "The generators are not put back: dropout, noise and order then go other ways. set_random_state.": (
                lambda state: None
            ),
        },
        load={
            "Only the model goes on; the other parts begin anew. Hand each of them its state.": (
                lambda saved, parts: (
                    parts["model"].load_state_dict(saved["parts"]["model"]) if "model" in parts else None
                )
            ),
            "The schedule is left out: each part gets its state, whatever it is called.": (
                lambda saved, parts: [
                    part.load_state_dict(saved["parts"][name]) for name, part in parts.items() if name != "schedule"
                ]
            ),
            "The parts stay as they are: parts[name] = ... changes the dict, part.load_state_dict(...) the part.": (
                lambda saved, parts: None
            ),
        },
        back={
            "It returns one more step than are done: steps count from 0, so the next one has this number.": (
                lambda saved: saved["step"] + 1
            ),
            "The number of the steps that are done is to be returned.": lambda saved: 0,
            "What was loaded comes back; the number of the steps that are done is asked for.": lambda saved: saved,
        },
        checked={
            "Other names have to be refused before anything is changed: ValueError.": lambda path, saved, parts: None,
            "A part too few is refused, but not one too many in the file: compare both sets of names.": (
                lambda path, saved, parts: (
                    _checked(path, {"parts": dict.fromkeys(parts)}, parts)
                    if set(parts) <= set(saved["parts"])
                    else _checked(path, saved, parts)
                )
            ),
            "A part too many in the file is refused, but not one too few: compare both sets of names.": (
                lambda path, saved, parts: None if set(saved["parts"]) <= set(parts) else _checked(path, saved, parts)
            ),
        },
        safe={"It reads code too, which then runs: weights_only=True takes data only.": False},
    ),
    changes=("weights", "optimizer"),
    seconds=30,
)
def resume_run(learner, rng):
    import torch

    seed = int(rng.integers(1000))
    with tempfile.TemporaryDirectory() as top:
        path = Path(top) / "run.pt"

        def keep(run, step, **more):
            states = {name: part.state_dict() for name, part in run.items()}
            torch.save({"step": step, "parts": states, "random": _random_state(), **more}, path)

        straight, run = _run(seed), _run(seed)
        _train(run, 0, 4)
        keep(run, 4)
        content = path.read_bytes()
        straight = _run(seed)
        _train(straight, 0, 4)
        states = _random_state()
        again = _run(seed + 1)
        held = dict(again)
        given = learner(path, again)
        expect.kind(given, int, "what comes back is a whole number: the steps that are done")
        expect.equal(given, 4, why="the number of steps that are done", source="the file")
        there = all(again.get(name) is part for name, part in held.items()) and len(again) == len(held)
        likely = "part.load_state_dict(...), for each part."
        expect.true(there, "the parts are changed in place: the same objects", likely=likely)
        wrong = _differing(again, straight)
        shown = f"differ   {', '.join(wrong[:3])}"
        expect.true(not wrong, "right after resuming, every part is what it was", shown)
        now = [_comparable(each) for each in (_random_state(), states)]
        differ = sorted({key.split("/")[1] for key in now[1] if now[0].get(key) != now[1][key]})
        shown = f"differ   {', '.join(differ)}"
        likely = "set_random_state(saved['random']), and nothing that draws after it."
        expect.true(not differ, "the three generators stand where they stood", shown, likely=likely)
        _train(straight, 4, 8)
        _set_random_state(states)
        _train(again, given, 8)
        wrong = _differing(again, straight)
        shown = f"differ   {', '.join(wrong[:3])}"
        expect.true(not wrong, "4 steps, the file, 4 more: to the bit what 8 steps give", shown)
        expect.true(path.read_bytes() == content, "the file stays as it is")

        named = {"a": run["model"], "b": run["optimizer"], "c": run["schedule"]}
        keep(named, 17)
        other = dict(zip("abc", _run(seed + 2).values(), strict=True))
        given = learner(path, other)
        expect.equal(given, 17, why="another number of steps, other names", source="the file")
        wrong = _differing(other, named)
        expect.true(not wrong, "parts of other names", f"differ   {', '.join(wrong[:3])}")
        other = _run(seed + 2)
        other = {"c": other["schedule"], "a": other["model"], "b": other["optimizer"]}
        why = "the same names in another order"
        try:
            learner(path, other)
        except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, NotImplementedError):
                raise
            refused = "They are refused: a dict's order says nothing here, so compare .keys(), or sets, and not lists."
            likely = refused if isinstance(error, ValueError) else "States belong to names: saved['parts'][name]."
            said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise Complaint(why, [f"yours    {said[:90]}"], likely, said) from None
        wrong = _differing(other, named)
        likely = "States belong to names, not to places: saved['parts'][name]."
        expect.true(not wrong, why, f"differ   {', '.join(wrong[:3])}", likely=likely)

        cases = {
            "one that the file does not hold": ["model", "optimizer", "schedule", "more"],
            "one fewer than the file holds": ["model", "optimizer"],
            "one that is called otherwise": ["model", "optimizer", "plan"],
        }
        tips = {
            "one that the file does not hold": "Each name of `parts` has to be in the file, and the other way round.",
            "one fewer than the file holds": "Each name in the file has to be in `parts`, and the other way round.",
            "one that is called otherwise": "There are as many, but one has another name: compare names, not how many.",
        }
        keep(run, 4)
        for words, names in cases.items():
            fresh = _run(seed + 3)
            given = dict(zip(names, [*fresh.values(), _run(seed + 4)["model"]], strict=False))
            before = {name: copy.deepcopy(part.state_dict()) for name, part in given.items()}
            states = _comparable(_random_state())
            why = f"{words}: ValueError"
            expect.raises(
                ValueError,
                lambda given=given: learner(path, given),
                why,
                likely=lambda result, _, tip=tips[words]: "" if isinstance(result, Exception) else tip,
            )
            after = {name: part.state_dict() for name, part in given.items()}
            wrong = [key for key, value in _leaves(before).items() if not _same(value, _leaves(after)[key])]
            likely = "Compare all names first, then begin to load."
            expect.true(not wrong, f"{words}: nothing is changed", f"changed  {', '.join(wrong[:3])}", likely=likely)
            expect.true(_comparable(_random_state()) == states, f"{words}: the generators stay", likely=likely)

        trace = Path(top) / "made by the file"
        keep(run, 4, foreign=_Foreign(trace))
        with contextlib.suppress(Exception):
            learner(path, _run(seed))
        expect.true(not trace.exists(), "code in the file does not run", likely="torch.load(..., weights_only=True)")


class _Foreign:
    """What a file with foreign code in it holds: whoever unpickles it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def _same(a, b):
    """Whether two leaves of a state are equal, tensors to the bit."""
    if hasattr(a, "dtype") and hasattr(b, "dtype"):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    return type(a) is type(b) and a == b


# ------------------------------------------------------------------------------------------------ fit


class _Stopping:
    def __init__(self, patience):
        self.patience, self.lowest, self.waited, self.state = patience, math.inf, 0, None

    def update(self, loss, model):
        if loss < self.lowest:
            self.lowest, self.waited, self.state = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self, model):
        if self.state is not None:
            model.load_state_dict(self.state)


def _say(hooks, record, model):
    return [hook(record, model) for hook in hooks]


def _no_graph():
    import torch

    return torch.no_grad()


@parts
def _fitted(
    model,
    train_epoch,
    validate,
    epochs,
    patience,
    hooks=(),
    *,
    numbers=lambda epochs: range(1, epochs + 1),
    prepare=lambda model, epoch: model.train(),
    look=lambda model: model.eval(),
    quiet=_no_graph,
    judged=lambda stopping, record, model: stopping.update(record["val"], model),
    told=_say,
    enough=lambda over, said: over or True in said,
    rescued=BaseException,
    restore=lambda stopping, model: stopping.restore(model),
    finish=lambda model: model.eval(),
    recorded=lambda record: record,
):
    stopping, records = _Stopping(patience), []

    def end():
        restore(stopping, model)
        finish(model)

    try:
        for epoch in numbers(epochs):
            prepare(model, epoch)
            record = {"epoch": epoch, "train": train_epoch(model)}
            look(model)
            with quiet():
                record["val"] = validate(model)
            record = recorded(record)
            records.append(record)
            over = judged(stopping, record, model)
            said = told(hooks, record, model)
            if enough(over, said):
                break
    except rescued:
        end()
        raise
    end()
    return records


def _hooks_first(model, train_epoch, validate, epochs, patience, hooks=()):
    """The hooks come before the validation: their record has no validation loss yet."""
    stopping, records = _Stopping(patience), []
    for epoch in range(1, epochs + 1):
        model.train()
        record = {"epoch": epoch, "train": train_epoch(model)}
        said = _say(hooks, record, model)
        model.eval()
        with _no_graph():
            record["val"] = validate(model)
        records.append(record)
        if stopping.update(record["val"], model) or True in said:
            break
    stopping.restore(model)
    model.eval()
    return records


def _until_true(hooks, record, model):
    return [any(hook(record, model) for hook in hooks)]


def _judges_ties(stopping, record, model):
    if record["val"] == stopping.lowest:
        stopping.lowest = math.inf
    return stopping.update(record["val"], model)


def _asks_late(model, train_epoch, validate, epochs, patience, hooks=()):
    """EarlyStopping is asked after the hooks: where one of them fails, this epoch's weights are lost. Ask it before."""
    stopping, records = _Stopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with _no_graph():
                record["val"] = validate(model)
            records.append(record)
            said = _say(hooks, record, model)
            if stopping.update(record["val"], model) or True in said:
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


def _judges_training(stopping, record, model):
    return stopping.update(record["train"], model)


@exercise(
    hints=[
        "Inside the loop four things: train, validate, ask EarlyStopping, call the hooks. Around it: try and finally.",
        "said = [hook(record, model) for hook in hooks] calls every hook; `any(...)` of a generator would stop at the first True.",
        "try: for epoch in range(1, epochs + 1): model.train() ... model.eval(); with torch.no_grad(): ... "
        "finally: stopping.restore(model); model.eval()",
    ],
    mistakes=_fitted.mistakes(
        _hooks_first,
        _asks_late,
        restore={
            "The model keeps the weights of the last epoch: stopping.restore(model) at the end. If you keep "
            "them yourself: state_dict() is no copy, and goes on changing.": lambda stopping, model: None,
        },
        prepare={
            "After the first validation the model stays in evaluation mode: model.train() in each epoch.": (
                lambda model, epoch: model.train() if epoch == 1 else None
            ),
            "Training is never switched on: model.train() in each epoch.": lambda model, epoch: None,
        },
        look={"Validation runs in training mode: model.eval() before validate.": lambda model: None},
        quiet={"Validation builds a graph: with torch.no_grad() around validate.": contextlib.nullcontext},
        finish={
            "At the end the model is in training mode: model.eval().": lambda model: model.train(),
        },
        rescued={
            "An exception leaves the last weights in the model. `finally` runs however the loop ends.": (),
            "Ctrl-C is no Exception: KeyboardInterrupt passes `except Exception` by. `finally` runs in every case.": Exception,
        },
        told={
            "A hook that says True keeps those behind it from being called: any(...) stops at the first. Call all, then ask.": (
                _until_true
            ),
            "Hooks get the record and the model: hook(record, model).": (
                lambda hooks, record, model: [hook(record, None) for hook in hooks]
            ),
        },
        hooks={"The hooks are not called.": ()},
        enough={
            "What a hook returns is not looked at: True ends the training after this epoch.": lambda over, said: over,
            "Whatever a hook returns ends the training, also False; only True does.": (
                lambda over, said: over or any(each is not None for each in said)
            ),
            "Patience is not looked at: stop when EarlyStopping says so.": lambda over, said: True in said,
            "Only the last hook is asked: any of them may say True.": (
                lambda over, said: over or (bool(said) and said[-1] is True)
            ),
        },
        judged={
            "An equal loss counts as lower, so it waits anew; only a lower one does.": _judges_ties,
            "It stops by the training loss; the validation loss decides.": _judges_training,
        },
        numbers={
            "Epochs count from 0; they are to count from 1.": lambda epochs: range(epochs),
            "One epoch is missing: range(1, epochs + 1).": lambda epochs: range(1, epochs),
            "One epoch too many: range(1, epochs + 1) has so many.": lambda epochs: range(1, epochs + 2),
        },
        recorded={
            "The losses in the record have changed places.": (
                lambda record: {"epoch": record["epoch"], "train": record["val"], "val": record["train"]}
            ),
        },
        returns={
            "Only the last record comes back; all of them are asked for.": lambda records: records[-1],
        },
        together={
            "An exception leaves the model as it was, for the end stands behind the loop; and it is swallowed or not "
            "rescued.": {"rescued": (), "restore": lambda stopping, model: None},
        },
    ),
    changes=("weights", "mode"),
    seconds=30,
)
def fit(learner, rng):
    import torch
    from torch import nn

    nan = math.nan

    class Told(Exception):
        pass

    def demand(losses, why, *, epochs=None, patience=99, ends=None, best=None, stops=(), breaks=None, hooks=2):
        """losses: of the validation, by epoch. ends, best: the last epoch, and that of the weights that are left.

        stops: (hook, epoch) that says True. breaks: (where, epoch, exception).
        """
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        model.eval()
        log, epoch = [], itertools.count(1)
        now = {"epoch": 0}

        def strike(where):
            if breaks and breaks[:2] == (where, now["epoch"]):
                raise breaks[2]("on purpose")

        def fill(value):
            with torch.no_grad():
                for each in model.state_dict().values():
                    each.fill_(value)

        def train_epoch(given):
            now["epoch"] = next(epoch)
            log.append(("train", now["epoch"], given.training, torch.is_grad_enabled()))
            if now["epoch"] > len(losses):
                raise Complaint(f"{why}: {len(losses)} epochs at most", ["yours    goes on"], "", f"{len(log)} calls")
            fill(now["epoch"])
            strike("train")
            return 100.0 - now["epoch"]

        def validate(given):
            log.append(("validate", now["epoch"], given.training, torch.is_grad_enabled()))
            strike("validate")
            return losses[now["epoch"] - 1]

        def hook(number):
            def called(*args):
                shown = [tuple(sorted(each.items())) if isinstance(each, dict) else each is model for each in args]
                log.append((f"hook {number}", now["epoch"], shown, float(model[0].weight.detach().mean())))
                strike(f"hook {number}")
                return True if (number, now["epoch"]) in stops else (None, False)[number % 2]

            return called

        given = [hook(number) for number in range(1, hooks + 1)]
        epochs = len(losses) if epochs is None else epochs
        records, raised = None, None
        try:
            records = learner(model, train_epoch, validate, epochs, patience, *([given] if hooks else []))
        except BaseException as error:
            if not breaks or type(error) is not breaks[2]:
                raise
            raised = error
        ends = ends or epochs
        called = [name for name, *_ in log]
        each = ["train", "validate", *(f"hook {n}" for n in range(1, hooks + 1))]
        expected = each * ends
        if breaks:
            expected = each * (ends - 1) + each[: each.index(breaks[0]) + 1]
        likely = "True from any hook makes this epoch the last, and the others are still called." if stops else ""
        if hooks and not breaks and called == expected[:-hooks]:
            likely = "The hooks of the last epoch are not called: they come before the loop is left."
        pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(called, expected, strict=False))
        right = len(list(pairs))
        mine, its = ([*calls, "nothing more"][min(right, len(calls))] for calls in (called, expected))
        last = f", the last of them {called[right - 1]} in epoch {log[right - 1][1]}" if right else ""
        shown = f"after {right} calls that are right{last}:", f"yours    {mine}", f"expected {its}   (the docstring)"
        expect.true(called == expected, f"{why}: what is called, in order", *shown, likely=likely)
        passes, told = ([each for each in log if each[0].startswith("hook") == hook] for hook in (False, True))
        training = [name == "train" for name, *_ in passes]
        rule = f"{why}: whether the model is in training mode, in train_epoch, validate, train_epoch, …"
        expect.equal([mode for _, _, mode, _ in passes], training, why=rule, source="True, False, True, …")
        likely = "with torch.no_grad(): around validate, and around nothing else."
        rule = f"{why}: whether gradients are recorded, in train_epoch, validate, train_epoch, …"
        expect.equal([on for *_, on in passes], training, why=rule, source="True, False, True, …", likely=likely)
        for name, number, seen, _ in told:
            record = {"epoch": number, "train": 100.0 - number, "val": losses[number - 1]}
            wanted = [tuple(sorted(record.items())), True]
            rule = f"{why}: {name} in epoch {number} gets the record and the model"
            expect.true(str(seen) == str(wanted), rule, f"yours    {seen}", f"expected {wanted}")
        rule = f"{why}: in each hook the model has the weights of this epoch"
        source = "every weight is the number of its epoch"
        expect.close([w for *_, w in told], [float(number) for _, number, *_ in told], why=rule, source=source)
        left = {float(each.double().mean()) for each in model.state_dict().values()}
        rule = f"{why}: the weights and buffers that are left, each the number of its epoch"
        expect.equal(sorted(left), [float(best)], why=rule, source="the lowest validation loss")
        expect.true(not any(each.training for each in model.modules()), f"{why}: evaluation mode at the end")
        expect.true(torch.is_grad_enabled(), f"{why}: gradients are recorded again")
        if breaks:
            likely = "It is swallowed, as by an except without raise, or by a return inside finally."
            expect.true(raised is not None, f"{why}: the exception goes on to the caller", likely=likely)
            return
        expect.kind(records, list, f"{why}: a list of records comes back", likely="return records")
        wanted = [{"epoch": n, "train": 100.0 - n, "val": losses[n - 1]} for n in range(1, ends + 1)]
        rule = f"{why}: the records"
        likely = ""
        if len(records) > 1 and all(each is records[0] for each in records):
            likely = "All records are one and the same dict, changed in each epoch: make a new one each time."
        shown = f"yours    {records}", f"expected {wanted}"
        expect.true(str(_plain(records)) == str(wanted), rule, *shown, likely=likely)

    demand([5.0, 4.0, 3.0], "three epochs, each better", best=3, ends=3)
    demand([5.0, 3.0, 4.0], "three epochs, the second is best", best=2, ends=3)
    demand([5.0, 3.0, 4.0, 3.5, 2.0, 1.0], "patience 2", patience=2, best=2, ends=4)
    demand([3.0, 3.0, 3.0, 2.0], "equal losses, patience 2", patience=2, best=1, ends=3)
    demand([2.0, 3.0], "patience 1", patience=1, best=1, ends=2, epochs=2)
    demand([5.0, 3.0, 2.0], "no hooks", best=3, hooks=0)
    demand([5.0, 3.0, 4.0, 1.0], "the first hook says True in epoch 3", stops=[(1, 3)], best=2, ends=3)
    demand([5.0, 3.0, 4.0, 1.0], "the last hook says True in epoch 2", stops=[(2, 2)], best=2, ends=2)
    demand([5.0, 3.0, 4.0, 1.0], "a hook of three says True in epoch 1", stops=[(2, 1)], best=1, ends=1, hooks=3)
    for where in ("train", "validate", "hook 2"):
        for kind in (Told, KeyboardInterrupt):
            best = 2 if where != "hook 2" else 3
            why = f"{'Ctrl-C' if kind is KeyboardInterrupt else 'an exception'} in {where}, epoch 3"
            demand([5.0, 3.0, 1.0, 4.0], why, breaks=(where, 3, kind), best=best, ends=3)
    demand([5.0, 3.0], "an exception before anything was validated", breaks=("train", 1, Told), best=1, ends=1)
    demand([nan, nan, nan], "all losses NaN, patience 2", patience=2, best=2, ends=2)
    demand([nan, 3.0, nan, 4.0], "NaN now and then", best=2, ends=4)
    demand([0.0, -1.0, -0.5], "losses of 0 and below", best=2, ends=3)


def _plain(records):
    """Records as plain numbers, in the order of the keys that they are to have."""
    return [
        {key: float(record[key]) if key != "epoch" else record[key] for key in ("epoch", "train", "val")}
        if isinstance(record, dict) and record.keys() == {"epoch", "train", "val"}
        else record
        for record in records
    ]


# ------------------------------------------------------------------------------------------------ average_gradients


class _Alone(RuntimeError):
    """A rank waits for others that will not come."""


class _Early(RuntimeError):
    """A tensor is used while a collective is still at work on it."""


class _Work:
    """A collective that was called with async_op=True, or is about to be waited for: done when somebody waits."""

    def __init__(self, tensors, start):
        self.tensors, self.start, self.done = tensors, start, False
        self.versions = [each._version for each in tensors]

    def wait(self, timeout=None):
        if not self.done:
            if self.versions != [each._version for each in self.tensors]:
                raise _Early("a tensor is changed while all_reduce is still at work on it")
            self.start().wait()
            self.done = True
        return True

    def is_completed(self):
        return self.done


class _Meeting:
    """Where the ranks of one check meet before each collective: who would wait for ever is told so at once."""

    def __init__(self, size):
        self.size, self.ready = size, threading.Condition()
        self.there, self.ended = {}, set()

    def arrive(self, rank, number, what):
        with self.ready:
            here = self.there.setdefault(number, {})
            here[rank] = what
            self.ready.notify_all()
            if not self.ready.wait_for(lambda: len(here) == self.size or self.ended, timeout=20):
                raise _Alone("the others did not come")
            if len(here) < self.size:
                raise _Alone(f"a process waits in its call {number}, and another has ended without one")
            if len(set(here.values())) > 1:
                raise _Alone(f"call {number} is not the same on all processes: {', '.join(sorted(set(here.values())))}")

    def end(self, rank):
        with self.ready:
            self.ended.add(rank)
            self.ready.notify_all()


def _groups(size):
    """A meeting, and for each rank a function that makes its process group: gloo, with the meeting before each call."""
    import datetime

    import torch.distributed as dist

    store, meeting = dist.HashStore(), _Meeting(size)

    class Group(dist.ProcessGroup):
        def __init__(self, rank):
            super().__init__(rank, size)
            options = dist.ProcessGroupGloo._Options()
            options._timeout = datetime.timedelta(seconds=20)
            options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
            self.number, self.works = 0, []
            self.gloo = dist.ProcessGroupGloo(store, rank, size, options)

        def getBackendName(self):
            return "gloo"

        def _later(self, name, tensors, outputs, start):
            self.number += 1
            shapes = " ".join(f"{tuple(each.shape)} {str(each.dtype).removeprefix('torch.')}" for each in tensors)
            meeting.arrive(self.rank(), self.number, f"{name} of {shapes}")
            self.works.append(_Work(outputs, start))
            return self.works[-1]

        def allreduce(self, tensors, options=None):
            return self._later("all_reduce", tensors, tensors, lambda: self.gloo.allreduce(tensors, options))

        def reduce(self, tensors, options=None):
            return self._later("reduce", tensors, tensors, lambda: self.gloo.reduce(tensors, options))

        def broadcast(self, tensors, options=None):
            return self._later("broadcast", tensors, tensors, lambda: self.gloo.broadcast(tensors, options))

        def allgather(self, outputs, inputs, options=None):
            return self._later("all_gather", inputs, inputs, lambda: self.gloo.allgather(outputs, inputs, options))

    return meeting, Group


def _on_ranks(learner, models):
    """Call the learner's function with one model on each rank: rank 0 in this thread, watched, the others in theirs."""
    meeting, make = _groups(len(models))
    errors = {}

    def call(function, rank):
        try:
            group = make(rank)
            function(models[rank], group)
            if not all(work.done for work in group.works):
                raise _Early("the function ends before all_reduce has")
        except BaseException as error:
            errors[rank] = error
        finally:
            meeting.end(rank)

    others = [threading.Thread(target=call, args=(learner._given, rank), daemon=True) for rank in range(1, len(models))]
    for each in others:
        each.start()
    call(learner, 0)
    for each in others:
        each.join(25)
    own = [errors[rank] for rank in sorted(errors) if not isinstance(errors[rank], _Alone)]
    if own:
        raise own[0]
    if errors:
        raise errors[min(errors)]


def _summed(gradient, group):
    import torch.distributed as dist

    dist.all_reduce(gradient, group=group)


@parts
def _averaged(
    model,
    group,
    *,
    absent=lambda p: p * 0,
    learns=lambda p: p.requires_grad,
    total=_summed,
    divide=lambda gradient, size: gradient / size,
):
    import torch.distributed as dist

    for p in model.parameters():
        if not learns(p):
            continue
        gradient = absent(p).detach().clone() if p.grad is None else p.grad
        total(gradient, group)
        p.grad = divide(gradient, dist.get_world_size(group))


def _skips_none(model, group):
    """A gradient of None is skipped: where another process has one, that one waits for ever. Zeros, and the same calls."""
    import torch.distributed as dist

    for p in model.parameters():
        if p.grad is not None:
            dist.all_reduce(p.grad, group=group)
            p.grad /= dist.get_world_size(group)


def _by_those_having(model, group):
    """It divides by how many had a gradient; None counts as zeros, so divide by all: dist.get_world_size(group)."""
    import torch
    import torch.distributed as dist

    for p in model.parameters():
        if p.requires_grad:
            have = torch.tensor(0.0 if p.grad is None else 1.0)
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            dist.all_reduce(p.grad, group=group)
            dist.all_reduce(have, group=group)
            p.grad /= max(have.item(), 1.0)


@exercise(
    hints=[
        "dist.all_reduce(p.grad, group=group) leaves the sum over all processes in p.grad, on each of them.",
        "Where p.grad is None: p.grad = torch.zeros_like(p), before the all_reduce. All processes make the same calls.",
        "for p in model.parameters(): if p.requires_grad: (zeros where None); dist.all_reduce(p.grad, group=group); "
        "p.grad /= dist.get_world_size(group)",
    ],
    mistakes=_averaged.mistakes(
        _skips_none,
        _by_those_having,
        divide={
            "The gradients are summed, not averaged: divide by dist.get_world_size(group).": lambda g, size: g,
            "It divides by 2, however many processes there are: dist.get_world_size(group).": lambda g, size: g / 2,
            "It divides twice.": lambda g, size: g / size**2,
            "It multiplies by the number of processes: divide.": lambda g, size: g * size,
        },
        total={"Nothing is summed: dist.all_reduce(p.grad, group=group).": lambda gradient, group: None},
        absent={"A gradient of None counts as zeros; these are others.": lambda p: p * 0 + 1},
        learns={
            "Frozen parameters get a gradient too: leave out those with requires_grad False.": lambda p: True,
            "Old gradients of frozen parameters are averaged too: ask for requires_grad, not for p.grad.": (
                lambda p: p.requires_grad or p.grad is not None
            ),
        },
    ),
    changes=("gradients",),
    seconds=30,
)
def average_gradients(learner, rng):
    import torch
    from torch import nn

    class Two(nn.Module):
        """Two heads, of which a batch uses one or both, and a frozen layer."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
            self.frozen, self.body = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2)

        def forward(self, x, heads):
            return self.body(self.frozen(sum(getattr(self, head)(x) for head in heads)))

    def demand(heads, why, *, old=False, dtype=torch.float32):
        """heads: for each rank which heads its part of the batch uses. old: frozen parameters have gradients too."""
        size = len(heads)
        whole = Two().to(dtype)
        with torch.no_grad():
            for p in whole.parameters():
                p.copy_(torch.tensor(rng.normal(size=tuple(p.shape))))
        models = [copy.deepcopy(whole) for _ in range(size)]
        x, y = torch.tensor(rng.normal(size=(4 * size, 3))).to(dtype), torch.tensor(rng.integers(2, size=4 * size))
        losses = []
        for rank, each in enumerate(heads):
            mine = x[rank::size], y[rank::size]
            nn.functional.cross_entropy(models[rank](mine[0], each), mine[1]).backward()
            losses.append(nn.functional.cross_entropy(whole(mine[0], each), mine[1]))
        (sum(losses) / size).backward()  # one process with the whole batch
        before = [copy.deepcopy(each.state_dict()) for each in models]
        own = [[p.grad if p.grad is None else p.grad.clone() for p in each.parameters()] for each in models]
        for rank, model in enumerate(models if old else []):
            for p in model.frozen.parameters():
                p.grad = torch.full_like(p, rank + 0.5)
        try:
            _on_ranks(learner, models)
        except _Alone as error:
            likely = "All processes make the same calls in the same order, with tensors of the same shapes."
            raise Complaint(f"{why}: nobody waits for ever", [f"yours    {error}"], likely, str(error)) from None
        except _Early as error:
            likely = "async_op=True comes back at once: handle.wait() before the gradient is used. Or leave it out."
            rule = "a gradient is used when the sum is there, and not before"
            raise Complaint(rule, [f"yours    {error}"], likely, str(error)) from None
        except RuntimeError as error:
            if not re.search("assign.*grad.* (type|dtype)", str(error)):
                raise
            likely = "torch.zeros_like(p) has the parameter's shape, dtype and device; torch.zeros(p.shape) is float32."
            rule = f"{why}: gradients of the parameter's own dtype"
            raise Complaint(rule, [f"yours    {str(error)[:100]}"], likely, str(error)) from None
        except ValueError as error:
            if "Default process group" not in str(error):
                raise
            likely = "Hand the group on, to each call: dist.all_reduce(..., group=group), dist.get_world_size(group)."
            details = ["yours    a call without group, which asks for the default group"]
            raise Complaint("it talks in the group that is handed in", details, likely, str(error)) from None
        for rank, model in enumerate(models):
            changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[rank][name])]
            likely = "The gradients are to be averaged; the weights then stay equal by themselves."
            rule = f"{why}: weights that have changed, rank {rank}"
            expect.equal(", ".join(changed), "", why=rule, source="none", likely=likely)
            for (name, mine), theirs, its in zip(model.named_parameters(), whole.parameters(), own[rank], strict=True):
                rule = f"{why}: the gradient of {name} on rank {rank}"
                if name.startswith("frozen") and old:
                    stays = torch.full_like(mine, rank + 0.5)
                    expect.close(mine.grad, stays, why=f"{why}: {name} on rank {rank}", source="as before: left out")
                    continue
                if name.startswith("frozen"):
                    expect.true(mine.grad is None, f"{why}: frozen parameters get no gradient, rank {rank}")
                    continue
                wanted = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
                if mine.grad is None:
                    likely = "p.grad = torch.zeros_like(p) where it is None."
                    raise Complaint(rule, ["yours    None", "expected zeros, averaged"], likely, "None")
                tensor(mine.grad, rule)
                source, likely = "one process, the whole batch", ""
                if its is not None and torch.equal(mine.grad, its):
                    likely = (
                        "It stays as it was here: the mean has to get into p.grad. Equal weights need no averaging."
                    )
                elif rank:
                    likely = (
                        "Rank 0 has the mean, this rank has not: dist.all_reduce gives the sum to all, reduce to one."
                    )
                expect.close(mine.grad, wanted, why=rule, source=source, rtol=1e-4, atol=1e-6, likely=likely)

    demand(["ab", "ab"], "two processes")
    demand(["ab", "ab", "ab"], "three processes")
    demand(["ab", "a"], "a layer has no part in rank 1's loss: None there")
    demand(["ab", "a"], "float64, and None on rank 1", dtype=torch.float64)
    demand(["ab", "ab"], "frozen parameters that have an old gradient", old=True)
    demand(["a", "b", "ab"], "None on some of three processes")
    demand(["a", "a"], "a layer has no part in any loss")
    demand(["ab"], "a single process")


# ------------------------------------------------------------------------------------------------ shard_indices


def _order(n, seed, epoch):
    import torch

    return torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch))


def _filled(order, processes):
    length = -(-len(order) // processes) * processes
    return order.repeat(-(-length // len(order)))[:length]


def _filled_once(order, processes):
    import torch

    missing = -len(order) % processes
    return torch.cat([order, order[:missing]])


@parts
def _shard(
    n,
    rank,
    processes,
    seed,
    epoch,
    *,
    order=lambda n, rank, seed, epoch: _order(n, seed, epoch),
    fill=_filled,
    deal=lambda order, rank, processes: order[rank::processes],
):
    return deal(fill(order(n, rank, seed, epoch), processes), rank, processes)


def _zeros_at_the_end(order, processes):
    import torch

    return torch.cat([order, torch.zeros(-len(order) % processes, dtype=order.dtype)])


def _last_repeated(order, processes):
    import torch

    return torch.cat([order, order[-1:].repeat(-len(order) % processes)])


def _own_share(mine, length):
    import torch

    return torch.cat([mine, mine[: length - len(mine)]])


def _own_end(order, processes):
    import torch

    missing = -len(order) % processes
    return torch.cat([order, order[len(order) - missing :]])


@exercise(
    hints=[
        "How many must there be in all, so that each process gets as many? -(-n // processes) rounds up.",
        "order.repeat(k) puts it k times in a row; [:length] cuts. For n below processes more than two copies are needed.",
        "length = -(-n // processes) * processes; order = order.repeat(-(-length // n))[:length]; return order[rank::processes]",
    ],
    mistakes=_shard.mistakes(
        fill={
            "Nothing is filled up: the last ranks get an example fewer, take fewer steps, and the others wait for them.": (
                lambda order, processes: order
            ),
            "The rest is cut off, and these examples are never seen in this epoch: fill up instead.": (
                lambda order, processes: order[: len(order) // processes * processes]
            ),
            "It is filled up once, which is not enough for n below half of the processes: again and again.": _filled_once,
            "It is filled up with example 0; it should be the beginning of this order.": _zeros_at_the_end,
            "It is filled up with the last entry; it should be the beginning of this order.": _last_repeated,
            "It is filled up from its own end; it should be its beginning.": _own_end,
            "A whole round is added even where processes divides n: round up only where there is a rest.": (
                lambda order, processes: order.repeat(processes + 1)[: (len(order) // processes + 1) * processes]
            ),
        },
        deal={
            "Each rank gets a block; dealt out like cards is every processes-th one: order[rank::processes].": (
                lambda order, rank, processes: order[
                    rank * (len(order) // processes) : (rank + 1) * (len(order) // processes)
                ]
            ),
            "rank and processes are swapped in the slice: [rank::processes].": (
                lambda order, rank, processes: order[processes :: max(rank, 1)]
            ),
            "Every rank gets all examples.": lambda order, rank, processes: order,
            "Ranks count from 0: [rank::processes].": lambda order, rank, processes: order[rank - 1 :: processes],
        },
        order={
            "The seed differs from rank to rank: then the orders do, and examples are doubled and lost.": (
                lambda n, rank, seed, epoch: _order(n, seed + rank, epoch)
            ),
            "The epoch has no part in it: every epoch has the same order.": lambda n, rank, seed, epoch: _order(
                n, seed, 0
            ),
            "The seed has no part in it.": lambda n, rank, seed, epoch: _order(n, 0, epoch),
            "Nothing is shuffled.": lambda n, rank, seed, epoch: _order(n, seed, epoch).sort().values,
            "The generator's seed is seed · epoch; asked for is seed + epoch.": (
                lambda n, rank, seed, epoch: _order(n, seed * epoch, 0)
            ),
        },
        returns={
            "It is a list; a tensor is asked for.": lambda order: order.tolist(),
        },
        together={
            "Each rank's share is filled up from its own beginning; fill up the whole order, then deal it out.": {
                "fill": lambda order, processes: order,
                "deal": lambda order, rank, processes: _own_share(order[rank::processes], -(-len(order) // processes)),
            },
        },
    ),
    seconds=30,
)
def shard_indices(learner, rng):
    import torch
    from torch.utils.data import DistributedSampler

    def demand(n, processes, seed, epoch, why):
        why = f"{why}: n = {n}, {processes} processes, seed {seed}, epoch {epoch}"
        for rank in range(processes):
            sampler = DistributedSampler(range(n), processes, rank, shuffle=True, seed=seed)
            sampler.set_epoch(epoch)
            given = learner(n, rank, processes, seed, epoch)
            tensor(given, f"{why}: what comes back")
            expect.dtype(given, torch.int64, f"{why}: whole numbers, for indexing")
            wanted = list(sampler)
            expect.equal(given, wanted, why=f"{why}, rank {rank}", source="torch's DistributedSampler")

    seed, epoch = int(rng.integers(3, 50)), int(rng.integers(2, 9))
    demand(12, 3, seed, epoch, "it divides")
    demand(10, 3, seed, epoch, "two ranks are one short")
    demand(11, 3, seed, epoch, "one rank is one short")
    demand(9, 4, seed, epoch + 1, "three ranks are one short")
    demand(10, 2, 0, 0, "seed and epoch 0")
    demand(7, 1, seed, 0, "one process")
    demand(2, 5, seed, epoch, "more processes than examples")
    demand(1, 3, seed, 1, "one example")
    demand(5, 5, seed + 1, epoch, "one example each")
