"""The checks of rnn-lstm-gru: one for each exercise, with its hints. `lab.check` runs them.

Cells are held to torch's own (nn.RNN, torch.lstm_cell, torch.gru_cell), gradients to autograd, lengths to packed
sequences, bits to one pass over the whole text, draws to softmax and chi².
"""

import math

import numpy as np
from scipy.stats import chisquare

from atlas.checking import (
    Complaint,
    agree,
    exercise,
    expect,
    floats,
    governed,
    gradients,
    labels,
    parts,
    tensor,
    torch_generator,
)


def _draw(rng, *shape):
    import torch

    return torch.tensor(rng.normal(size=shape))


def _stack(tensors, axis):
    import torch

    return torch.stack(list(tensors), axis)


def _cat(tensors, axis):
    import torch

    return torch.cat(list(tensors), axis)


# ------------------------------------------------------------------------------------------------ rnn_forward


def _rows(W_x, W_h):
    return W_x.T, W_h.T


def _square_only(W, other):
    """A matrix the wrong way round, where that fits; else the right way, so that another slip is not told."""
    return W if W.shape[0] == W.shape[1] else other


@parts
def _rnn(
    x,
    h,
    W_x,
    W_h,
    b,
    *,
    begin=lambda h: h,
    turned=_rows,
    mixed=lambda x, h, A, U, b: x @ A + h @ U + b,
    squashed=lambda z: z.tanh(),
    times=lambda T: range(T),
    step=lambda x, t: x[:, t],
    carried=lambda first, now: now,
    kept=lambda before, now: now,
    result=lambda outputs, h: (_stack(outputs, 1), h),
):
    A, U = turned(W_x, W_h)
    h, outputs = begin(h), []
    first = h
    for t in times(x.shape[1]):
        before, h = carried(first, h), squashed(mixed(step(x, t), carried(first, h), A, U, b))
        outputs.append(kept(before, h))
    return result(outputs, h)


def _begins_at_one(x, h, W_x, W_h, b):
    """x[:, 0] is never read: the loop begins with t = 0, and the list of outputs empty."""
    outputs, h = _rnn(x[:, 1:], h, W_x, W_h, b, result=lambda outputs, last: ([h, *outputs], last))
    return _stack(outputs, 1), h


def _shows_what_is_inside(x, h, W_x, W_h, b):
    """outputs holds what stands inside of the tanh; the states, h_t = tanh(...), are wanted."""
    A, U, inside = W_x.T, W_h.T, []
    for t in range(x.shape[1]):
        inside.append(x[:, t] @ A + h @ U + b)
        h = inside[-1].tanh()
    return _stack(inside, 1), h


_INSIDE_CARRIED = "What is carried on is the value before the tanh; h itself is the tanh."
_BACKWARDS = "The steps are read from the last to the first."


@exercise(
    hints=[
        "x[:, t] is step t of every sequence, (B, C). Which shapes have W_x.T and W_h.T?",
        "h = torch.tanh(x[:, t] @ W_x.T + h @ W_h.T + b), and every h goes into a list.",
        "outputs = []; for t in range(x.shape[1]): h = ...; outputs.append(h); return torch.stack(outputs, 1), h",
    ],
    mistakes=_rnn.mistakes(
        _begins_at_one,
        _shows_what_is_inside,
        together={
            _INSIDE_CARRIED: {
                "squashed": lambda z: z,
                "result": lambda outputs, h: (_stack(outputs, 1).tanh(), outputs[-1].tanh()),
            },
            f"{_INSIDE_CARRIED} And the last one comes back without it.": {
                "squashed": lambda z: z,
                "result": lambda outputs, h: (_stack(outputs, 1).tanh(), h),
            },
            _BACKWARDS: {
                "times": lambda T: range(T - 1, -1, -1),
                "result": lambda outputs, h: (_stack(outputs[::-1], 1), h),
            },
            "The old state is added outside of the tanh; all three terms stand inside.": {
                "mixed": lambda x, h, A, U, b: h + (x @ A + h @ U + b).tanh(),
                "squashed": lambda z: z,
            },
            "Each term has a tanh of its own; there is one, of the sum.": {
                "mixed": lambda x, h, A, U, b: (x @ A).tanh() + (h @ U + b).tanh(),
                "squashed": lambda z: z,
            },
        },
        turned={
            "W_h is not transposed: rows are examples here, so W_h h becomes h @ W_h.T.": lambda A, U: (A.T, U),
        },
        begin={
            "The state h that is given is not used: it begins with zeros.": lambda h: h * 0,
            "The first sequence's state is taken for all; each has its own row of h.": lambda h: h[:1].expand_as(h),
        },
        mixed={
            "The bias b is missing.": lambda x, h, A, U, b: x @ A + h @ U,
            "The bias b is added twice: here it is one, not two as in nn.RNN.": lambda x, h, A, U, b: (
                x @ A + h @ U + 2 * b
            ),
            "The state before has no part in the new one: + h @ W_h.T.": lambda x, h, A, U, b: x @ A + b,
            "The input has no part in the new state: x[:, t] @ W_x.T + ...": lambda x, h, A, U, b: h @ U + b,
            "Rows are examples here, so W_x x becomes x[:, t] @ W_x.T, and W_h h becomes h @ W_h.T.": (
                lambda x, h, A, U, b: A.T @ x + U.T @ h + b
            ),
        },
        squashed={
            "tanh is missing.": lambda z: z,
            "It squashes by the sigmoid; the formula has tanh.": lambda z: z.sigmoid(),
            "It squashes by ReLU; the formula has tanh.": lambda z: z.relu(),
        },
        carried={
            "The state is not carried: every step begins with the h that was given. h = torch.tanh(...).": (
                lambda first, now: first
            ),
        },
        step={"x[t] is sequence t with all its steps; step t of all sequences is x[:, t].": lambda x, t: x[t]},
        kept={
            "outputs holds the states before the steps; append h after it is new.": lambda before, now: before,
        },
        times={
            _BACKWARDS: lambda T: range(T - 1, -1, -1),
            "The last step is left out.": lambda T: range(max(T - 1, 1)),
            "The first step is left out.": lambda T: range(min(1, T - 1), T),
        },
        result={
            "outputs has the axes T and B swapped: torch.stack(outputs, 1) puts time second.": (
                lambda outputs, h: (_stack(outputs, 0), h)
            ),
            "outputs holds the last state only; every h_t is wanted, stacked to (B, T, D).": (
                lambda outputs, h: (h, h)
            ),
            "outputs is a list: torch.stack(outputs, 1) makes one tensor of it.": lambda outputs, h: (outputs, h),
            "torch.cat joins along an axis that is there; torch.stack(outputs, 1) makes the new one for time.": (
                lambda outputs, h: (_cat(outputs, 1), h)
            ),
            "The results are swapped: first outputs, then the last state.": (
                lambda outputs, h: (h, _stack(outputs, 1))
            ),
            "h has an axis too many: nn.RNN gives (1, B, D), here it is (B, D).": (
                lambda outputs, h: (_stack(outputs, 1), h[None])
            ),
            "The states come in reverse order.": lambda outputs, h: (_stack(outputs[::-1], 1), h),
            "view and reshape do not move axes: they mix sequences and steps. torch.stack(outputs, 1).": (
                lambda outputs, h: (_stack(outputs, 0).reshape(len(h), -1, h.shape[1]), h)
            ),
            "h comes back as it was given; the last state is wanted.": (
                lambda outputs, h: (_stack(outputs, 1), outputs[0] if len(outputs) > 1 else h)
            ),
        },
    ),
    seconds=30,  # torch may be imported here for the first time
)
def rnn_forward(learner, rng):
    import torch

    def authority(x, h, W_x, W_h, b):
        rnn = torch.nn.RNN(x.shape[2], len(W_h), batch_first=True).double()
        with torch.no_grad():
            for name, value in (("weight_ih_l0", W_x), ("weight_hh_l0", W_h), ("bias_ih_l0", b), ("bias_hh_l0", 0 * b)):
                getattr(rnn, name).copy_(value)
            outputs, last = rnn(x, h[None].contiguous())
        return outputs, last[0]

    source = "nn.RNN with these weights"
    given = expect.parts(
        learner(_draw(rng, 3, 5, 2), _draw(rng, 3, 4), _draw(rng, 4, 2), _draw(rng, 4, 4), _draw(rng, 4)),
        ("outputs", "h"),
        "two results",
    )
    for name, part in zip(("outputs", "h"), given, strict=True):
        tensor(part, name)
    agree(
        learner,
        authority,
        rng,
        why="h_t = tanh(W_x x_t + W_h h_{t-1} + b)",
        source=source,
        parts=("outputs", "h"),
        like="x",
        x=floats("B", "T", "C", tensor=True),
        h=floats("B", "D", tensor=True),
        W_x=floats("D", "C", tensor=True),
        W_h=floats("D", "D", tensor=True),
        b=floats("D", tensor=True),
    )
    numbers = [torch.tensor([[[1.0], [0.0], [0.0]]]), torch.zeros(1, 1), torch.ones(1, 1), torch.full((1, 1), 0.5)]
    outputs, last = learner(*numbers, torch.zeros(1))
    by_hand = np.tanh([1, 0.5 * np.tanh(1), 0.5 * np.tanh(0.5 * np.tanh(1))])
    expect.close(outputs, by_hand[None, :, None], why="the example above", source="by hand", dtype=torch.float32)
    expect.close(last, by_hand[None, 2:], why="the example above: the last state", source="by hand")
    shapes = {"x": (4, 5, 2), "h": (4, 3), "W_x": (3, 2), "W_h": (3, 3), "b": (3,)}
    given = {name: _draw(rng, *shape) * 0.7 for name, shape in shapes.items()}

    def theirs(x, h, W_x, W_h, b):
        outputs, state = [], h
        for x_t in x.unbind(1):
            state = torch.nn.functional.linear(state, W_h, b) + torch.nn.functional.linear(x_t, W_x)
            outputs.append(state := state.tanh())
        return torch.stack(outputs, 1), state

    gradients(learner, theirs, rng, why="through all steps", **given)


# ------------------------------------------------------------------------------------------------ backprop_through_time


@parts
def _bptt(
    h,
    W_h,
    delta,
    *,
    slope=lambda h, t: 1 - h[t] ** 2,
    sent=lambda gradient, slope: gradient * slope,
    back=lambda W, dz: W.T @ dz,
    outer=lambda dz, gradient, h, t: dz[:, None] * h[t - 1],
    added=lambda whole, part: whole + part,
    more=lambda gradient, delta: gradient,
    rows=lambda gradients, slopes: gradients,
    divided=lambda whole, T: whole,
    end=lambda gradients, whole: (gradients, whole),
):
    gradients, whole = [delta], W_h * 0
    for t in range(len(h) - 1, 0, -1):
        dz = sent(gradients[-1], slope(h, t))
        whole = added(whole, outer(dz, gradients[-1], h, t))
        gradients.append(more(back(W_h, dz), delta))
    gradients, slopes = _stack(gradients[::-1], 0), 1 - h**2
    return end(rows(gradients, slopes), divided(whole, len(h) - 1))


def _matrix_first(h, W_h, delta):
    """The matrix comes before the slope: first dz = dL/dh_t · (1 - h_t²), then W_h.T @ dz."""
    gradients, whole = [delta], W_h * 0
    for t in range(len(h) - 1, 0, -1):
        gradients.append((W_h.T @ gradients[-1]) * (1 - h[t] ** 2))
        whole = whole + gradients[-1][:, None] * h[t - 1]
    return _stack(gradients[::-1], 0), whole


def _one_step_short(h, W_h, delta):
    """The loop begins one step too late: its first t is T, len(h) - 1, where delta comes in."""
    gradients, whole = h * 0, W_h * 0
    gradients[-1] = delta
    for t in range(len(h) - 2, 0, -1):
        dz = gradients[t] * (1 - h[t] ** 2)
        whole = whole + dz[:, None] * h[t - 1]
        gradients[t - 1] = W_h.T @ dz
    return gradients, whole


@exercise(
    hints=[
        "Begin with gradients[T] = delta. What turns dL/dh_t into dL/dz_t, and that into dL/dh_{t-1}?",
        "dz = gradients[t] * (1 - h[t] ** 2); dW_h += torch.outer(dz, h[t - 1]); gradients[t - 1] = W_h.T @ dz",
        "for t in range(len(h) - 1, 0, -1): those three lines, after gradients = torch.empty_like(h) and "
        "dW_h = torch.zeros_like(W_h).",
    ],
    mistakes=_bptt.mistakes(
        _matrix_first,
        _one_step_short,
        back={
            "W_h is not transposed on the way back: W_h.T @ dz.": lambda W, dz: W @ dz,
            "W_h is missing on the way back: W_h.T @ dz.": lambda W, dz: dz,
        },
        slope={
            "1 - h² is taken at t - 1; the tanh that dz goes through gave h_t.": lambda h, t: 1 - h[t - 1] ** 2,
            "The slope of tanh is missing: dz = dL/dh_t · (1 - h_t²).": lambda h, t: 1 + 0 * h[t],
            "It takes 1 - h; the slope of tanh is 1 - h².": lambda h, t: 1 - h[t],
            "h(1 - h) is the slope of the sigmoid; that of tanh is 1 - h².": lambda h, t: h[t] * (1 - h[t]),
            "tanh is taken again: h[t] is the tanh already, and its slope 1 - h[t]².": lambda h, t: (
                1 - h[t].tanh() ** 2
            ),
        },
        sent={
            "It takes the slope alone, and the gradient that came from above is lost.": lambda gradient, slope: slope,
        },
        outer={
            "The outer product is transposed: row d belongs to dz_d, torch.outer(dz, h[t - 1]).": (
                lambda dz, gradient, h, t: h[t - 1][:, None] * dz
            ),
            "dW_h uses h_t; what W_h multiplied is the state before, h[t - 1].": (
                lambda dz, gradient, h, t: dz[:, None] * h[t]
            ),
            "dW_h uses dL/dh_t; W_h stands inside of the tanh, so dL/dz_t.": (
                lambda dz, gradient, h, t: gradient[:, None] * h[t - 1]
            ),
            "dz * h[t - 1] multiplies entry by entry, (D,); torch.outer(dz, h[t - 1]) is (D, D).": (
                lambda dz, gradient, h, t: dz * h[t - 1]
            ),
        },
        added={
            "dW_h holds one step's part only: W_h is used at every step, so the parts are added up.": (
                lambda whole, part: part
            ),
            "dW_h holds the part of the last step only; the loop's others are to be added.": (
                lambda whole, part: whole if whole.any() else part
            ),
        },
        divided={"dW_h is divided by T: it is a sum over the steps, not a mean.": lambda whole, T: whole / T},
        more={
            "delta is added at every step; the loss depends on the last state only.": (
                lambda gradient, delta: gradient + delta
            ),
        },
        rows={
            "The gradient of h_0 is missing: one row for each state, T + 1.": lambda gradients, slopes: gradients[1:],
            "The gradient of h_T, delta itself, is missing: one row for each state, T + 1.": (
                lambda gradients, slopes: gradients[:-1]
            ),
            "The rows are in the order of the loop; row t belongs to h_t, so the last row is delta.": (
                lambda gradients, slopes: gradients.flip(0)
            ),
            "The rows are dL/dz; dL/dh is wanted: the last row is delta as it is.": (
                lambda gradients, slopes: _cat([gradients[:1], gradients[1:] * slopes[1:]], 0)
            ),
            "The rows are dL/dz, all of them; dL/dh is wanted: the last row is delta as it is.": (
                lambda gradients, slopes: gradients * slopes
            ),
            "The row of h_0 is left empty: the loop ends with t = 1, which fills row 0.": (
                lambda gradients, slopes: _cat([gradients[:1] * 0, gradients[1:]], 0)
            ),
        },
        end={
            "The results are swapped: first the gradients of the states, then dW_h.": lambda g, whole: (whole, g),
        },
    ),
    seconds=20,
)
def backprop_through_time(learner, rng):
    import torch

    def authority(h, W_h, delta):
        """The forward pass that has these states, by autograd; what is added inside of the tanh is found from them."""
        with torch.enable_grad():
            W, state = W_h.clone().requires_grad_(), h[0].clone().requires_grad_()
            states = [state]
            for before, now in zip(h[:-1], h[1:], strict=True):
                rest = torch.atanh(now) - W_h @ before
                states.append(torch.tanh(W @ states[-1] + rest))
            *found, dW = torch.autograd.grad((states[-1] * delta).sum(), [*states, W], allow_unused=True)
        return torch.stack(found), dW

    def draw(rng, shape):
        """A first state of any size, then tanh of something."""
        return np.concatenate(
            [1.5 * rng.normal(size=(1, shape[1])), np.tanh(rng.normal(size=(shape[0] - 1, shape[1])))]
        )

    h = torch.tensor(draw(rng, (6, 3)))
    given = expect.parts(learner(h, _draw(rng, 3, 3), _draw(rng, 3)), ("gradients", "dW_h"), "two results")
    for name, part in zip(("gradients", "dW_h"), given, strict=True):
        tensor(part, name)
    agree(
        learner,
        authority,
        rng,
        why="gradients of a loss on the last state",
        source="torch.autograd",
        parts=("gradients", "dW_h"),
        least={"N": 2},
        without=dict.fromkeys(
            ("apart", "far", "large"), "what is in the tanh is found by subtraction, where thousands cancel"
        ),
        like="h",
        h=floats("N", "D", draw=draw, tensor=True),
        W_h=floats("D", "D", tensor=True),
        delta=floats("D", tensor=True),
    )
    states = torch.tensor([0, *np.tanh([1, 0.5 * np.tanh(1), 0.5 * np.tanh(0.5 * np.tanh(1))])])[:, None]
    found, dW = learner(states, torch.full((1, 1), 0.5, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    why, source = "the example above, to three digits", "by hand"
    expect.close(found[:, 0], [0.044, 0.210, 0.484, 1], why=why, source=source, atol=6e-4)
    expect.close(dW, [[0.671]], why=why, source=source, atol=6e-4)
    try:
        with torch.inference_mode():  # where nothing records
            learner(h, _draw(rng, 3, 3), _draw(rng, 3))
    except RuntimeError as error:
        likely = "Autograd was used; here the gradients are to be made by hand, step by step."
        raise Complaint("by hand, where autograd is off", [f"yours    {error}"[:90]], likely) from None


# ------------------------------------------------------------------------------------------------ clip_gradients


@parts
def _clip(
    parameters,
    limit,
    *,
    there=lambda parameters: [p for p in parameters if p.grad is not None],
    norm=lambda grads: math.sqrt(sum((g**2).sum().item() for g in grads)),
    over=lambda norm, limit: norm > limit,
    factor=lambda norm, limit, g: limit / norm if norm else math.nan,
    put=lambda p, g: setattr(p, "grad", g),
    answer=lambda before, after: before,
):
    found = there(parameters)
    before = norm([p.grad for p in found])
    if over(before, limit):
        for p in found:
            put(p, p.grad * factor(before, limit, p.grad))
    return answer(before, norm([p.grad for p in found]))


def _one(g):
    return (g**2).sum().sqrt().clamp(min=1e-30)


def _into_parameter(p, g):
    p.data = g


def _clip_twice(parameters, limit):
    """A generator can be gone through only once: make a list of the gradients first."""
    norm = math.sqrt(sum((p.grad**2).sum().item() for p in parameters if p.grad is not None))
    if norm > limit:
        for p in parameters:
            if p.grad is not None:
                p.grad *= limit / norm
    return norm


def _norm_of_parameters(parameters, limit, of=list):
    """It takes the norm of the parameters; that of their gradients, p.grad, is meant."""
    parameters = of(parameters)
    norm = math.sqrt(sum((p**2).sum().item() for p in parameters))
    for p in parameters:
        if p.grad is not None and norm > limit:
            p.grad *= limit / norm
    return norm


def _norm_of_those_parameters(parameters, limit):
    """It takes the norm of the parameters; that of their gradients, p.grad, is meant."""
    return _norm_of_parameters(parameters, limit, of=lambda all: [p for p in all if p.grad is not None])


def _spectral(g):
    import torch

    return torch.linalg.norm(g, 2) if g.ndim in (1, 2) else g.norm()


_SCALED_UP = "Small gradients are scaled up to the limit: do it only where the norm is over it."


@exercise(
    hints=[
        "All gradients as one long vector: its squared norm is the sum of all squared entries of all of them.",
        "norm = sqrt(sum of g.pow(2).sum() over the gradients); only where norm > limit, each g *= limit / norm.",
        "grads = [p.grad for p in parameters if p.grad is not None] first, then the norm, then the loop; return norm.",
    ],
    mistakes=_clip.mistakes(
        _clip_twice,
        _norm_of_parameters,
        _norm_of_those_parameters,
        together={_SCALED_UP: {"over": lambda norm, limit: norm > 0}},
        factor={
            "Each gradient is clipped by itself, which turns their common direction. One factor for all.": (
                lambda norm, limit, g: (limit / _one(g)).clamp(max=1)
            ),
            "It clips value by value, which turns the direction. One factor for all: limit / norm.": (
                lambda norm, limit, g: g.clamp(-limit, limit) / g.where(g != 0, g + 1)
            ),
            "The gradients get the norm 1, whatever the limit: multiply by limit / norm.": (
                lambda norm, limit, g: 1 / norm if norm else math.nan
            ),
            "It multiplies by norm / limit: that makes long gradients longer.": lambda norm, limit, g: norm / limit,
            "It multiplies by the limit, and does not divide by the norm.": lambda norm, limit, g: limit,
            "The gradients become 0 where they are over the limit; they are to be scaled.": (lambda norm, limit, g: 0),
        },
        over={
            _SCALED_UP: lambda norm, limit: True,
            "Only gradients under the limit are scaled: the comparison is turned round.": (
                lambda norm, limit: norm < limit
            ),
            "It compares with limit², or the norm's square is meant: norm > limit.": (
                lambda norm, limit: norm > limit**2
            ),
            "It compares with 1; limit is an argument.": lambda norm, limit: norm > 1,
        },
        norm={
            "The norms of the parameters are added up; squares are: √(3² + 4²) is 5, not 7.": (
                lambda grads: sum(_one(g).item() for g in grads if g.any())
            ),
            "The square root is missing: this is the squared norm.": (
                lambda grads: sum((g**2).sum().item() for g in grads)
            ),
            "It takes the largest entry for the norm; it is the root of the sum of squares.": (
                lambda grads: max(g.abs().max().item() for g in grads)
            ),
            "It adds absolute values; the norm is the root of the sum of squares.": (
                lambda grads: sum(g.abs().sum().item() for g in grads)
            ),
            "It takes the largest of the parameters' norms; all of them together are one vector.": (
                lambda grads: max(_one(g).item() for g in grads) if any(g.any() for g in grads) else 0.0
            ),
            "Of a matrix torch.linalg.norm(g, 2) is the largest singular value; g.norm() takes all entries.": (
                lambda grads: math.sqrt(sum(_spectral(g).item() ** 2 for g in grads))
            ),
            "The squares are averaged; they are added up.": (
                lambda grads: math.sqrt(sum((g**2).mean().item() for g in grads))
            ),
        },
        answer={
            "The norm that comes back is that after clipping; the one before is wanted.": lambda before, after: after,
            "The factor comes back; the norm before is wanted.": (
                lambda before, after: after / before if before else 1.0
            ),
        },
        put={
            "The gradients stay as they were. g = g * factor makes a new tensor and forgets it: g *= factor.": (
                lambda p, g: None
            ),
            "The parameters are changed; it is their .grad that is scaled.": _into_parameter,
        },
        there={
            "Only the first parameter counts here.": (
                lambda parameters: [p for p in parameters if p.grad is not None][:1]
            ),
            "Only the last parameter counts here.": (
                lambda parameters: [p for p in parameters if p.grad is not None][-1:]
            ),
        },
    ),
    random=True,  # a second call with the same gradients finds them clipped
    changes=("gradients", "arguments"),
    seconds=20,
)
def clip_gradients(learner, rng):
    import torch

    def made(*gradients, dtype=torch.float64):
        found = []
        for g in gradients:
            g = None if g is None else torch.tensor(np.asarray(g, float), dtype=dtype)
            p = torch.nn.Parameter(torch.ones(() if g is None else g.shape, dtype=dtype) * 0.3)
            p.grad = g
            found.append(p)
        return found

    def run(gradients, limit, said, dtype=torch.float64, handed=list):
        parameters = made(*gradients, dtype=dtype)
        alone = [p.detach().clone() for p in parameters]
        there = [g for g in gradients if g is not None]
        norm = float(np.sqrt(sum((np.asarray(g, float) ** 2).sum() for g in there)))
        try:
            given = learner(handed(parameters), limit)
        except (AttributeError, TypeError) as error:
            if len(there) == len(gradients) or "None" not in str(error):
                raise
            likely = "A parameter that has no gradient (.grad is None) is left out."
            raise Complaint(said, [f"yours    {type(error).__name__}: {error}"[:90]], likely) from None
        factor = min(1.0, limit / norm) if norm else 1.0
        source = "all entries as one vector"
        for n, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            rule = f"{said}: gradient of parameter {n}"
            if g is None:
                expect.true(p.grad is None, f"{rule} stays None", likely="Leave out parameters whose .grad is None.")
                continue
            expect.true(p.grad is not None, f"{rule} is still there", likely="It is gone: scale it, in place.")
            expect.close(p.grad, factor * np.asarray(g, float), why=rule, source=source, rtol=3e-6, dtype=dtype)
        expect.close(given, norm, why=f"{said}: the norm before", source=source, rtol=3e-6, lone=True)
        kept = all(torch.equal(p.detach(), before) for p, before in zip(parameters, alone, strict=True))
        expect.true(kept, f"{said}: the parameters stay", likely="It is their .grad that is scaled.")

    run([[3.0, 0], [0, 4.0]], 1.0, "the example above, gradients (3, 0) and (0, 4)")
    shapes = (3, 4), (5,), (2, 1, 3), ()
    plain = [rng.normal(size=shape) for shape in shapes]
    whole = float(np.sqrt(sum((g**2).sum() for g in plain)))
    run(plain, 0.37 * whole, "over the limit")
    run(plain, 1.73 * whole, "under the limit")
    run([g / whole * 0.5 for g in plain], 0.8, "norm 0.5, limit 0.8")
    run([g / whole * 0.5 for g in plain], 0.3, "norm 0.5, limit 0.3")
    run([g / whole * 5 for g in plain], 2.6, "norm 5, limit 2.6")
    run([g / whole * 5 for g in plain], 4.9, "norm 5, limit 4.9")
    run([[3.0, 0], [0, 4.0]], 5.0, "norm 5 and limit 5")
    run([plain[0], None, plain[1], None], 0.37, "some without a gradient")
    run([plain[0], None, plain[1]], 0.37, "from a generator", handed=iter)
    run([0 * plain[0], 0 * plain[1]], 0.5, "all gradients 0")
    run([0 * plain[0], plain[1]], 0.5, "one gradient all 0")
    run(plain, 0.37, "32-bit floats", dtype=torch.float32)
    run([1e-4 * plain[0], 1e4 * plain[1]], 12.3, "one small, one large")
    run([plain[1]], 0.11, "one parameter")


# ------------------------------------------------------------------------------------------------ lstm_step


def _quarters(a):
    return a.chunk(4, 1)


@parts
def _lstm(
    x,
    h,
    c,
    W_ih,
    W_hh,
    b,
    *,
    mixed=lambda x, h, W_ih, W_hh, b: x @ W_ih.T + h @ W_hh.T + b,
    cut=_quarters,
    order=lambda i, f, g, o: (i, f, g, o),
    squash_i=lambda a: a.sigmoid(),
    squash_f=lambda a: a.sigmoid(),
    squash_g=lambda a: a.tanh(),
    squash_o=lambda a: a.sigmoid(),
    cell=lambda i, f, g, c: f * c + i * g,
    shown=lambda o, old, new: o * new.tanh(),
    end=lambda h, c: (h, c),
):
    i, f, g, o = order(*cut(mixed(x, h, W_ih, W_hh, b)))
    new = cell(squash_i(i), squash_f(f), squash_g(g), c)
    return end(shown(squash_o(o), c, new), new)


def _lstm_cut_across(x, h, c, W_ih, W_hh, b):
    """.chunk(4) cuts along the batch; the gates lie side by side, along axis 1: .chunk(4, 1)."""
    i, f, g, o = (x @ W_ih.T + h @ W_hh.T + b).chunk(4)
    return o * c, f * c + i * g


def _lstm_cut_by_the_input(x, h, c, W_ih, W_hh, b):
    """Each part is as long as the state, D; here it is cut by C, the input's length. a.chunk(4, 1) needs neither."""
    n = x.shape[1]
    return _lstm(x, h, c, W_ih, W_hh, b, cut=lambda a: (a[:, :n], a[:, n : 2 * n], a[:, 2 * n : 3 * n], a[:, 3 * n :]))


def _as_it_is(a):
    return a


_BOTH_SQUASHED = "The new c goes through a tanh; only what is shown of it does."


@exercise(
    hints=[
        "One product gives all four: x @ W_ih.T + h @ W_hh.T + b has shape (B, 4D). How is it cut?",
        "i, f, g, o = a.chunk(4, 1); sigmoid for i, f, o and tanh for g; c = f * c + i * g.",
        "Then h = o * tanh(c), with the new c: return o.sigmoid() * c.tanh(), c",
    ],
    mistakes=_lstm.mistakes(
        _lstm_cut_across,
        _lstm_cut_by_the_input,
        together={
            "The gates have no sigmoid: i, f and o are between 0 and 1, σ(a).": dict.fromkeys(
                ("squash_i", "squash_f", "squash_o"), _as_it_is
            ),
            "The four parts are used as they are: σ for i, f and o, tanh for g.": dict.fromkeys(
                ("squash_i", "squash_f", "squash_g", "squash_o"), _as_it_is
            ),
            "The gates go through tanh; they are between 0 and 1, σ(a).": dict.fromkeys(
                ("squash_i", "squash_f", "squash_o"), lambda a: a.tanh()
            ),
            "The sign in σ is turned: σ(a) = 1/(1 + exp(-a)).": dict.fromkeys(
                ("squash_i", "squash_f", "squash_o"), lambda a: (-a).sigmoid()
            ),
            _BOTH_SQUASHED: {
                "cell": lambda i, f, g, c: (f * c + i * g).tanh(),
                "shown": lambda o, old, new: o * new,
            },
        },
        order={
            "The order is i, f, o, g here; PyTorch's is i, f, g, o.": lambda i, f, g, o: (i, f, o, g),
            "i and f are swapped: the input gate comes first.": lambda i, f, g, o: (f, i, g, o),
            "f and o are swapped: i, f, g, o.": lambda i, f, g, o: (i, o, g, f),
            "i and o are swapped: i, f, g, o.": lambda i, f, g, o: (o, f, g, i),
            "The order is f, i, o, g here; PyTorch's is i, f, g, o.": lambda i, f, g, o: (f, i, o, g),
            "i and g are swapped: i, f, g, o.": lambda i, f, g, o: (g, f, i, o),
            "f and g are swapped: i, f, g, o.": lambda i, f, g, o: (i, g, f, o),
        },
        squash_g={
            "The candidate g goes through the sigmoid; it is tanh, so that it can be negative.": lambda a: a.sigmoid(),
            "The candidate g has no tanh.": lambda a: a,
        },
        squash_i={
            "The input gate goes through tanh; gates are between 0 and 1, sigmoid.": lambda a: a.tanh(),
            "The input gate has no sigmoid.": lambda a: a,
        },
        squash_f={
            "The forget gate goes through tanh; gates are between 0 and 1, sigmoid.": lambda a: a.tanh(),
            "The forget gate has no sigmoid.": lambda a: a,
            "1 is added to the forget gate's bias here; a bias is in b, as it is given.": lambda a: (a + 1).sigmoid(),
        },
        squash_o={
            "The output gate goes through tanh; gates are between 0 and 1, sigmoid.": lambda a: a.tanh(),
            "The output gate has no sigmoid.": lambda a: a,
        },
        cell={
            "The forget gate is turned round: f is what is kept, f ⊙ c.": lambda i, f, g, c: (1 - f) * c + i * g,
            "The forget gate is missing: f ⊙ c + i ⊙ g.": lambda i, f, g, c: c + i * g,
            "The input gate is missing: f ⊙ c + i ⊙ g.": lambda i, f, g, c: f * c + g,
            "The old c has no part in the new one: f ⊙ c + i ⊙ g.": lambda i, f, g, c: i * g,
            "The input gate is 1 - f, as a GRU has it; an LSTM has its own.": lambda i, f, g, c: f * c + (1 - f) * g,
            "The old c goes through a tanh; on its road nothing does.": lambda i, f, g, c: f * c.tanh() + i * g,
            "c is held within -1 ... 1; on its road nothing is squashed.": (
                lambda i, f, g, c: (f * c + i * g).clamp(-1, 1)
            ),
            _BOTH_SQUASHED: lambda i, f, g, c: (f * c + i * g).tanh(),
        },
        shown={
            "h is made from the old c; the new one comes first.": lambda o, old, new: o * old.tanh(),
            "h has no tanh: o ⊙ tanh(c).": lambda o, old, new: o * new,
            "h is tanh(o ⊙ c); it is o ⊙ tanh(c).": lambda o, old, new: (o * new).tanh(),
            "The output gate is missing: o ⊙ tanh(c).": lambda o, old, new: new.tanh(),
            "h goes through the sigmoid; it is o ⊙ tanh(c).": lambda o, old, new: o * new.sigmoid(),
        },
        mixed={
            "The bias b is missing.": lambda x, h, W_ih, W_hh, b: x @ W_ih.T + h @ W_hh.T,
            "The bias b is added twice; here it is one.": lambda x, h, W_ih, W_hh, b: x @ W_ih.T + h @ W_hh.T + 2 * b,
            "The state h has no part in the gates: + h @ W_hh.T.": lambda x, h, W_ih, W_hh, b: x @ W_ih.T + b,
            "The input x has no part in the gates: x @ W_ih.T + ...": lambda x, h, W_ih, W_hh, b: h @ W_hh.T + b,
        },
        cut={
            "The four parts are taken as every fourth column; D columns in a row belong together: .chunk(4, 1).": (
                lambda a: a.reshape(len(a), -1, 4).unbind(2)
            ),
            "view and reshape do not cut columns, they mix sequences and gates: .chunk(4, 1).": (
                lambda a: a.reshape(4, len(a), -1)
            ),
        },
        end={
            "The results are swapped: first h, then c.": lambda h, c: (c, h),
            "Only h comes back; c is carried too.": lambda h, c: h,
        },
    ),
    seconds=30,
)
def lstm_step(learner, rng):
    import torch

    def flat(function):
        """The function, given weights as (4, D, ...)."""
        return lambda x, h, c, W_ih, W_hh, b: function(x, h, c, W_ih.flatten(0, 1), W_hh.flatten(0, 1), b.flatten())

    def authority(x, h, c, W_ih, W_hh, b):
        return torch.lstm_cell(x, (h, c), W_ih, W_hh, b, torch.zeros_like(b))

    source = "torch.lstm_cell"
    agree(
        flat(learner),
        flat(authority),
        rng,
        why="one step of an LSTM",
        source=source,
        parts=("h", "c"),
        like="x",
        x=floats("B", "C", tensor=True),
        h=floats("B", "D", tensor=True),
        c=floats("B", "D", tensor=True),
        W_ih=floats(4, "D", "C", tensor=True),
        W_hh=floats(4, "D", "D", tensor=True),
        b=floats(4, "D", tensor=True),
    )
    zeros, one = torch.zeros(1, 1), torch.ones(1, 1)
    h, c = learner(zeros, zeros, 2 * one, torch.zeros(4, 1), torch.zeros(4, 1), torch.tensor([-10.0, 10, 0.3, 0]))
    expect.close(c, [[1.9999]], why="the example above: c", source="by hand", atol=1e-4, dtype=torch.float32)
    expect.close(h, [[0.482]], why="the example above: h", source="by hand", atol=1e-3)
    shapes = {"x": (3, 2), "h": (3, 4), "c": (3, 4), "W_ih": (16, 2), "W_hh": (16, 4), "b": (16,)}
    given = {name: _draw(rng, *shape) for name, shape in shapes.items()}
    gradients(learner, authority, rng, why="through the gates and both states", **given)


# ------------------------------------------------------------------------------------------------ gru_step


@parts
def _gru(
    x,
    h,
    W_ih,
    W_hh,
    b_ih,
    b_hh,
    *,
    of_x=lambda x, W, b: x @ W.T + b,
    of_h=lambda h, W, b: h @ W.T + b,
    cut=lambda a: a.chunk(3, 1),
    order=lambda r, z, n: (r, z, n),
    gate_r=lambda a: a.sigmoid(),
    gate_z=lambda a: a.sigmoid(),
    candidate=lambda x_n, h_n, r, h, W, b: (x_n + r * h_n).tanh(),
    mixed=lambda z, n, h, r: (1 - z) * n + z * h,
):
    x_r, x_z, x_n = order(*cut(of_x(x, W_ih, b_ih)))
    h_r, h_z, h_n = order(*cut(of_h(h, W_hh, b_hh)))
    r, z = gate_r(x_r + h_r), gate_z(x_z + h_z)
    D = h.shape[1]
    return mixed(z, candidate(x_n, h_n, r, h, W_hh[2 * D :], b_hh[2 * D :]), h, r)


def _biases_swapped(x, h, W_ih, W_hh, b_ih, b_hh):
    """b_ih and b_hh are swapped: b_ih goes with W_ih, b_hh with W_hh."""
    return _gru(x, h, W_ih, W_hh, b_hh, b_ih)


def _input_s_bias_twice(x, h, W_ih, W_hh, b_ih, b_hh):
    """b_ih is added to the state's part too; there it is b_hh."""
    return _gru(x, h, W_ih, W_hh, b_ih, b_ih)


def _state_s_bias_twice(x, h, W_ih, W_hh, b_ih, b_hh):
    """b_hh is added to the input's part too; there it is b_ih."""
    return _gru(x, h, W_ih, W_hh, b_hh, b_hh)


def _both_biases_inside(x, h, W_ih, W_hh, b_ih, b_hh):
    """r multiplies b_in too; it multiplies the state's part alone, W_hn h + b_hn."""
    return _gru(x, h, W_ih, W_hh, 0 * b_ih, b_ih + b_hh)


def _gru_cut_by_the_input(x, h, W_ih, W_hh, b_ih, b_hh):
    """Each part is as long as the state, D; here it is cut by C, the input's length. a.chunk(3, 1) needs neither."""
    n = x.shape[1]
    return _gru(x, h, W_ih, W_hh, b_ih, b_hh, cut=lambda a: (a[:, :n], a[:, n : 2 * n], a[:, 2 * n :]))


@exercise(
    hints=[
        "Keep the input's part and the state's part apart: r comes between them in n. (B, 3D) each, cut in three.",
        "x_r, x_z, x_n = (x @ W_ih.T + b_ih).chunk(3, 1), the same for h; r and z are sigmoids of sums.",
        "n = (x_n + r * h_n).tanh(); return (1 - z) * n + z * h",
    ],
    mistakes=_gru.mistakes(
        _biases_swapped,
        _input_s_bias_twice,
        _state_s_bias_twice,
        _both_biases_inside,
        _gru_cut_by_the_input,
        together={
            "The gates go through tanh; they are between 0 and 1, sigmoid.": dict.fromkeys(
                ("gate_r", "gate_z"), lambda a: a.tanh()
            ),
            "The gates have no sigmoid.": dict.fromkeys(("gate_r", "gate_z"), _as_it_is),
        },
        mixed={
            "z and 1 - z are swapped: here z keeps the old state, (1 - z) ⊙ n + z ⊙ h.": lambda z, n, h, r: (
                z * n + (1 - z) * h
            ),
            "The old state h is missing in the mixture: (1 - z) ⊙ n + z ⊙ h.": lambda z, n, h, r: (1 - z) * n,
            "The candidate counts in full: (1 - z) ⊙ n, not n.": lambda z, n, h, r: n + z * h,
            "r works inside of n only; what z keeps is the old state h itself.": (
                lambda z, n, h, r: (1 - z) * n + z * r * h
            ),
            "A tanh too many: the mixture itself is the new state.": (lambda z, n, h, r: ((1 - z) * n + z * h).tanh()),
            "The candidate is missing in the mixture: (1 - z) ⊙ n + z ⊙ h.": lambda z, n, h, r: z * h,
        },
        candidate={
            "r is applied to h before the matrix, as in the paper of 2014; here it multiplies W_hn h + b_hn.": (
                lambda x_n, h_n, r, h, W, b: (x_n + (r * h) @ W.T + b).tanh()
            ),
            "b_hn is outside of r: r multiplies W_hn h + b_hn, the bias too.": (
                lambda x_n, h_n, r, h, W, b: (x_n + r * (h @ W.T) + b).tanh()
            ),
            "r multiplies the input's part too; it is x's part + r ⊙ (state's part).": (
                lambda x_n, h_n, r, h, W, b: (r * (x_n + h_n)).tanh()
            ),
            "r multiplies the input's part; it is the state's that r reduces.": (
                lambda x_n, h_n, r, h, W, b: (r * x_n + h_n).tanh()
            ),
            "r is not used: tanh(x's part + r ⊙ (state's part)).": (lambda x_n, h_n, r, h, W, b: (x_n + h_n).tanh()),
            "r multiplies the state h without its matrix: r ⊙ (W_hn h + b_hn).": (
                lambda x_n, h_n, r, h, W, b: (x_n + r * h).tanh()
            ),
            "r is turned round: 1 - r stands where r belongs.": (
                lambda x_n, h_n, r, h, W, b: (x_n + (1 - r) * h_n).tanh()
            ),
            "The candidate has no tanh.": lambda x_n, h_n, r, h, W, b: x_n + r * h_n,
            "Each part of the candidate has a tanh of its own; there is one, of the sum.": (
                lambda x_n, h_n, r, h, W, b: x_n.tanh() + r * h_n.tanh()
            ),
            "The candidate goes through the sigmoid; it is tanh, so that it can be negative.": (
                lambda x_n, h_n, r, h, W, b: (x_n + r * h_n).sigmoid()
            ),
        },
        order={
            "r and z are swapped: PyTorch's order is r, z, n.": lambda z, r, n: (r, z, n),
            "The order is n, r, z here; PyTorch's is r, z, n.": lambda n, r, z: (r, z, n),
            "z and n are swapped: the order is r, z, n.": lambda r, n, z: (r, z, n),
            "The order is z, n, r here; PyTorch's is r, z, n.": lambda z, n, r: (r, z, n),
            "r and n are swapped: the order is r, z, n.": lambda n, z, r: (r, z, n),
        },
        gate_r={"The gate r has no sigmoid.": _as_it_is},
        gate_z={"The gate z has no sigmoid.": _as_it_is},
        of_x={
            "b_ih is missing.": lambda x, W, b: x @ W.T,
        },
        of_h={
            "b_hh is missing.": lambda h, W, b: h @ W.T,
        },
        cut={
            "The three parts are taken as every third column; D columns in a row belong together: .chunk(3, 1).": (
                lambda a: a.reshape(len(a), -1, 3).unbind(2)
            ),
        },
        returns={
            "It comes back twice; a GRU has one state: return h.": lambda h: (h, h),
        },
    ),
    seconds=30,
)
def gru_step(learner, rng):
    import torch

    def flat(function):
        return lambda x, h, W_ih, W_hh, b_ih, b_hh: function(
            x, h, W_ih.flatten(0, 1), W_hh.flatten(0, 1), b_ih.flatten(), b_hh.flatten()
        )

    agree(
        flat(learner),
        flat(torch.gru_cell),
        rng,
        why="one step of a GRU",
        source="torch.gru_cell",
        like="x",
        x=floats("B", "C", tensor=True),
        h=floats("B", "D", tensor=True),
        W_ih=floats(3, "D", "C", tensor=True),
        W_hh=floats(3, "D", "D", tensor=True),
        b_ih=floats(3, "D", tensor=True),
        b_hh=floats(3, "D", tensor=True),
    )
    shapes = {"x": (3, 2), "h": (3, 4), "W_ih": (12, 2), "W_hh": (12, 4), "b_ih": (12,), "b_hh": (12,)}
    given = {name: _draw(rng, *shape) for name, shape in shapes.items()}
    gradients(learner, torch.gru_cell, rng, why="through both gates and the state", **given)


# ------------------------------------------------------------------------------------------------ last_states


def _pick(outputs, places):
    import torch

    return outputs[torch.arange(len(outputs)), places.clamp(0, outputs.shape[1] - 1)]


def _numbers(n):
    import torch

    return torch.arange(n)


def _strided(outputs, lengths):
    """The rows are taken to be lengths.max() columns apart; they are outputs.shape[1], which may be more."""
    B, _, D = outputs.shape
    return outputs.reshape(-1, D)[_numbers(B) * lengths.max() + lengths - 1]


def _masked(outputs, lengths, fill):
    import torch

    return outputs.masked_fill(torch.arange(outputs.shape[1])[:, None] >= lengths[:, None, None], fill)


def _column(outputs, k):
    return outputs[:, int(k)]


@parts
def _last(outputs, lengths, *, read=lambda outputs, lengths: _pick(outputs, lengths - 1)):
    return read(outputs, lengths)


_OWN = "its last step's output alone is wanted"


@exercise(
    hints=[
        "Sequence i has lengths[i] steps, numbered from 0: at which column does its last one stand?",
        "outputs[rows, columns] with two lists of B numbers picks B pairs: rows are 0, 1, ..., B - 1.",
        "return outputs[torch.arange(len(outputs)), lengths - 1]",
    ],
    mistakes=_last.mistakes(
        _strided,
        read={
            "The batch is the first axis, and two lists pick pairs: outputs[rows, lengths - 1].": (
                lambda outputs, lengths: outputs[lengths - 1, _numbers(len(outputs))]
            ),
            "The batch is the first axis: outputs[rows, steps], with one row for each sequence, 0 ... B - 1.": (
                lambda outputs, lengths: outputs[lengths - 1, _numbers(outputs.shape[1])]
            ),
            "Lengths count from 1 and columns from 0, so the index runs past the end: lengths - 1.": (
                lambda outputs, lengths: outputs[_numbers(len(outputs)), lengths]
            ),
            "One column too early: step number n stands at column n - 1, lengths - 1.": (
                lambda outputs, lengths: outputs[_numbers(len(outputs)), lengths - 2]
            ),
            "gather takes as many features as the index has: .expand(-1, 1, D).": (
                lambda outputs, lengths: outputs.gather(1, (lengths - 1)[:, None, None]).squeeze(1)
            ),
            "It reads the last column, padding too: each sequence ends at its own lengths[i].": (
                lambda outputs, lengths: outputs[:, -1]
            ),
            "One column too far: step number n stands at column n - 1.": lambda outputs, lengths: _pick(
                outputs, lengths
            ),
            "One column too early: step number n stands at column n - 1.": (
                lambda outputs, lengths: _pick(outputs, lengths - 2)
            ),
            "It reads the first column.": lambda outputs, lengths: outputs[:, 0],
            "It counts from the end; lengths[i] steps from the front are meant.": (
                lambda outputs, lengths: _pick(outputs, outputs.shape[1] - lengths)
            ),
            "It takes the mean over all columns; the last step's output alone is wanted.": (
                lambda outputs, lengths: outputs.mean(1)
            ),
            f"It takes the mean over each sequence; {_OWN}.": (
                lambda outputs, lengths: _masked(outputs, lengths, 0).sum(1) / lengths[:, None]
            ),
            f"It adds up each sequence's outputs; {_OWN}.": (
                lambda outputs, lengths: _masked(outputs, lengths, 0).sum(1)
            ),
            "It takes the largest over all columns; the last step's output is wanted.": (
                lambda outputs, lengths: outputs.max(1).values
            ),
            f"It takes the largest over each sequence; {_OWN}.": (
                lambda outputs, lengths: _masked(outputs, lengths, -math.inf).max(1).values
            ),
            "Every sequence is read at the longest's last step; each has its own.": (
                lambda outputs, lengths: _column(outputs, lengths.max() - 1)
            ),
            "Every sequence is read at the shortest's last step; each has its own.": (
                lambda outputs, lengths: _column(outputs, lengths.min() - 1)
            ),
            "All are read at the first one's length; each has its own.": (
                lambda outputs, lengths: _column(outputs, lengths[0] - 1)
            ),
            "All are read at the last one's length; each has its own.": (
                lambda outputs, lengths: _column(outputs, lengths[-1] - 1)
            ),
            "outputs[:, lengths - 1] takes those columns of every row, (B, B, D); pairs are wanted: two lists.": (
                lambda outputs, lengths: outputs[:, lengths - 1]
            ),
            "The rows are in the order of the lengths; row i belongs to sequence i.": (
                lambda outputs, lengths: _pick(outputs, lengths - 1)[lengths.argsort(descending=True, stable=True)]
            ),
            "An axis too many: (B, D).": lambda outputs, lengths: _pick(outputs, lengths - 1)[:, None],
            "Padding is set to 0, and all columns are kept; one column of each sequence is wanted.": (
                lambda outputs, lengths: _masked(outputs, lengths, 0)
            ),
        },
    ),
    seconds=20,
)
def last_states(learner, rng):
    import torch

    def authority(outputs, steps):
        return torch.stack([row[int(n)] for row, n in zip(outputs, steps, strict=True)])

    def run(outputs, lengths, said):
        given = learner(outputs, lengths)
        tensor(given, said)
        expected = authority(outputs, lengths - 1)
        expect.close(given, expected, why=said, source="column lengths[i] - 1 of row i", dtype=outputs)

    x = _draw(rng, 5, 7, 3)
    run(x, torch.tensor([3, 7, 1, 6, 2]), "each at its own last step, lengths 3, 7, 1, 6, 2")
    run(x[:, :5], torch.tensor([5, 2, 4, 2, 5]), "equal numbers of rows and columns")
    run(x, torch.tensor([4, 4, 4, 4, 4]), "all of length 4, padded to 7")
    run(x, torch.full((5,), 7), "all as long as the rectangle")
    agree(
        lambda outputs, steps: learner(outputs, steps + 1),
        authority,
        rng,
        why="each sequence's output at its own last step",
        source="column lengths[i] - 1 of row i",
        like="outputs",
        outputs=floats("B", "T", "D", tensor=True),
        steps=labels("B", below="T", tensor=True),
    )
    gru = torch.nn.GRU(3, 4, batch_first=True).double()
    lengths = torch.tensor([2, 6, 1, 7, 4])
    with torch.no_grad():
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        given, (_, last) = learner(gru(x)[0], lengths), gru(packed)
    expect.close(given, last[0], why="outputs of a GRU", source="h_n of a packed sequence")
    steps = torch.tensor([2, 6, 0, 1, 4])
    gradients(lambda x: learner(x, steps + 1), lambda x: authority(x, steps), rng, why="to the outputs", outputs=x)


# ------------------------------------------------------------------------------------------------ bits_per_character


def _reader(rng, kind, V):
    """A small language model that notes how it is called: (input, state, in training mode, recording)."""
    import torch

    class Noting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(V, 3)
            self.drop = torch.nn.Dropout(0.5)
            self.rnn = getattr(torch.nn, kind)(3, 4, batch_first=True)
            self.head = torch.nn.Linear(4, V)
            self.calls, self.given = [], []

        def forward(self, ids, state=None):
            self.calls.append((ids.detach().clone(), state, self.training, torch.is_grad_enabled()))
            outputs, state = self.rnn(self.drop(self.embed(ids)), state)
            self.given.append(state)
            return self.head(outputs), state

    model = Noting().double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(1.3 * _draw(rng, *p.shape))
    return model


def _surprise(z, y):
    return -z.log_softmax(1).gather(1, y[:, None])[:, 0]


def _logits(model, inputs, state):
    import torch

    with torch.no_grad():
        logits, state = model(inputs[None], state)
    return logits[0], state


def _pairs(ids, window):
    return list(zip(ids[:-1].split(window), ids[1:].split(window), strict=True))


def _halves(ids, window):
    """Windows that begin half a window after each other."""
    starts = range(0, len(ids) - 1, max(window // 2, 1))
    return [(ids[:-1][s : s + window], ids[1:][s : s + window]) for s in starts]


def _full(ids, window):
    return [pair for pair in _pairs(ids, window) if len(pair[0]) == window]


def _inside(ids, window):
    return [(each[:-1], each[1:]) for each in ids.split(window) if len(each) > 1]


def _mean_of_those(nats, N):
    """The mean over what was predicted, however many."""
    return sum(each.sum().item() for each in nats) / max(sum(map(len, nats)), 1)


def _as_a_batch(z, y):
    import torch

    return torch.nn.functional.cross_entropy(z[None], y[None], reduction="none")


_BORDER = "The character after each window's last one is never predicted: cut ids[:-1] and ids[1:] alike."
_SHORT = "The short last window is left out; all N - 1 characters count."


@parts
def _bits(
    model,
    ids,
    window,
    *,
    ready=lambda model: model.eval(),
    pairs=_pairs,
    carried=lambda state: state,
    surprise=_surprise,
    mean=lambda nats, N: sum(each.sum().item() for each in nats) / (N - 1),
    base=lambda nats: nats / math.log(2),
):
    ready(model)
    state, found = None, []
    for x, y in pairs(ids, window):
        z, state = _logits(model, x, state)
        state = carried(state)
        found.append(surprise(z, y))
    return base(mean(found, len(ids)))


@exercise(
    hints=[
        "Inputs are ids[:-1], targets ids[1:]: at every place the target is the next character. Both .split(window).",
        "logits, state = model(x[None], state), beginning with None; add up F.cross_entropy(logits[0], y, "
        'reduction="sum").item().',
        "At the end nats / (len(ids) - 1) / math.log(2); all of it after model.eval() and in torch.no_grad().",
    ],
    mistakes=_bits.mistakes(
        together={
            _SHORT: {"pairs": _full, "mean": _mean_of_those},
            _BORDER: {"pairs": _inside, "mean": _mean_of_those},
            "The windows overlap, so that some characters count twice.": {"pairs": _halves, "mean": _mean_of_those},
        },
        base={
            "These are nats: divide by math.log(2) for bits.": lambda nats: nats,
            "It multiplies by ln 2; nats are divided by it.": lambda nats: nats * math.log(2),
            "It divides by log10(2); PyTorch's loss is in nats, the natural logarithm: math.log(2).": (
                lambda nats: nats / math.log10(2)
            ),
            "This is the perplexity; bits are its logarithm.": lambda nats: math.exp(nats),
            "The sign is turned: -log p is positive.": lambda nats: -nats / math.log(2),
        },
        carried={
            "The state begins anew at each window; carry it: logits, state = model(x[None], state).": lambda s: None,
        },
        mean={
            "It is the mean of the windows' means: the short last window counts too much. Add up, then divide.": (
                lambda nats, N: sum(each.mean().item() for each in nats) / len(nats)
            ),
            "It divides by all N characters; N - 1 are predicted, for the first has none before it.": (
                lambda nats, N: sum(each.sum().item() for each in nats) / N
            ),
            "It divides by the number of windows; by the number of characters, N - 1.": (
                lambda nats, N: sum(each.sum().item() for each in nats) / len(nats)
            ),
            "The sum comes back; the mean over N - 1 characters is wanted.": (
                lambda nats, N: sum(each.sum().item() for each in nats)
            ),
            "The short last window counts as much as a full one: its mean times `window`. Add up sums.": (
                lambda nats, N: sum(each.mean().item() * len(nats[0]) for each in nats) / (N - 1)
            ),
            "The windows' means are added up; add sums, and divide by N - 1.": (
                lambda nats, N: sum(each.mean().item() for each in nats)
            ),
            'The windows\' means are added up and then divided by N - 1: sums, reduction="sum".': (
                lambda nats, N: sum(each.mean().item() for each in nats) / (N - 1)
            ),
            "Only the last window counts: add up.": lambda nats, N: nats[-1].mean().item(),
        },
        pairs={
            "All of the text goes through at once; only `window` characters may.": (
                lambda ids, window: [(ids[:-1], ids[1:])]
            ),
            _BORDER: (lambda ids, window: [(each[:-1], each[1:]) for each in ids.split(window + 1) if len(each) > 1]),
            "The character after each window's last one is never predicted, and windows are one too short.": (
                lambda ids, window: _inside(ids, window) or [(ids[:1], ids[1:2])]
            ),
            "The targets are the inputs themselves; the next characters are to be predicted.": (
                lambda ids, window: [(x, x) for x, _ in _pairs(ids, window)]
            ),
            _SHORT: lambda ids, window: _full(ids, window) or _pairs(ids, window)[:1],
            "The windows overlap, so that some characters count twice.": _halves,
            "The targets are two ahead: logits[:, t] are for the character after number t.": (
                lambda ids, window: (
                    list(zip(ids[:-2].split(window), ids[2:].split(window), strict=True)) or [(ids[:1], ids[1:2])]
                )
            ),
        },
        surprise={
            "softmax goes over the characters of the window; it goes over the V symbols, the last axis.": (
                lambda z, y: -z.log_softmax(0).gather(1, y[:, None])[:, 0]
            ),
            "This is the entropy of what the model expects; wanted is -log2 p of the character that came.": (
                lambda z, y: -(z.log_softmax(1) * z.softmax(1)).sum(1)
            ),
            "cross_entropy takes symbols along the second axis: (logits[0], y), both without the batch.": _as_a_batch,
            "It takes 1 - p; the surprise is -log2 p.": lambda z, y: 1 - (-_surprise(z, y)).exp(),
            "It takes -log2 p of the likeliest character; wanted is that of the one that came.": (
                lambda z, y: -z.log_softmax(1).max(1).values
            ),
        },
        ready={
            "The model is not in evaluation mode: model.eval().": lambda model: model.train(),
        },
    ),
    changes=("mode",),
    seconds=40,
)
def bits_per_character(learner, rng):
    import torch

    V = 6
    for kind, N, window, training in (
        ("GRU", 12, 4, True),
        ("LSTM", 14, 4, False),
        ("RNN", 9, 4, True),
        ("LSTM", 11, 3, True),
        ("GRU", 10, 4, False),
        ("RNN", 5, 90, True),
        ("GRU", 6, 5, True),
        ("GRU", 7, 1, True),
        ("LSTM", 2, 1, True),
        ("RNN", 2, 7, True),
    ):
        model = _reader(rng, kind, V).train(training)
        ids = torch.tensor(rng.integers(V, size=N))
        said = f"{N} characters, window {window}, {kind}"
        model.calls.clear()
        model.given.clear()
        given = learner(model, ids, window)
        calls, states, modes = list(model.calls), list(model.given), [m.training for m in model.modules()]
        expect.true(calls, f"the model reads, {said}", likely="Call it: logits, state = model(x[None], state).")
        likely = "model.eval() before the first window: dropout is on else."
        expect.true(not any(call[2] for call in calls), f"in evaluation mode, {said}", likely=likely)
        likely = "with torch.no_grad(): around the loop; else the graph of the whole text is kept."
        expect.true(not any(call[3] for call in calls), f"no graph is recorded, {said}", likely=likely)
        likely = "One text is a batch of one: model(x[None], state)."
        good = all(call[0].ndim == 2 and call[0].shape[0] == 1 for call in calls)
        expect.true(
            good, f"inputs are (1, T), {said}", f"yours    {[tuple(c[0].shape) for c in calls][:6]}", likely=likely
        )
        longest = max(call[0].shape[1] for call in calls)
        likely = "All of the text goes through at once; only `window` characters may: ids[:-1].split(window)."
        if longest <= window + 1 < N:
            likely = "Inputs are one longer than the window: ids[:-1].split(window) gives `window` of them."
        told = f"yours    {[c[0].shape[1] for c in calls][:8]} characters at a time"
        expect.true(longest <= window, f"{window} characters at a time, {said}", told, likely=likely)
        reads = torch.cat([call[0][0] for call in calls])
        before = [None, *states[:-1]]
        carried = all(_same_state(call[1], state) for call, state in zip(calls, before, strict=True))
        model.eval()
        with torch.no_grad():
            logits, _ = model(ids[None, :-1], None)
        expected = -logits[0].log_softmax(1).gather(1, ids[1:, None]).mean().item() / math.log(2)
        model.train(modes[0])
        if not carried:
            likely = "The state begins anew at each window, or another one is handed on: model(x[None], state)."
            if calls[0][1] is not None:
                likely = "The first state is None: nothing has been read."
            told = f"{sum(call[1] is None for call in calls)} of {len(calls)} windows begin without a state"
            evidence = [None if call[1] is None else "a state" for call in calls]
            raise Complaint(f"the state is carried from window to window, {said}", [told], likely, evidence)
        why, source = f"bits for each character after the first, {said}", "one pass over the whole text"
        expect.close(given, expected, why=why, source=source, lone=True, rtol=1e-5)
        likely = "Inputs are ids[:-1], each once and in order."
        in_order = torch.equal(reads, ids[:-1]) or torch.equal(reads, ids)  # the last one may be read, for nothing
        expect.true(in_order, f"each character is read once, {said}", likely=likely)
        likely = "A number of Python's: .item() or float(...)."
        expect.kind(given, float, f"a float comes back, {said}", likely=likely)
        expect.true(not any(modes), f"in evaluation mode afterwards, {said}", likely="No model.train() at the end.")
    sure = _reader(rng, "GRU", V)
    with torch.no_grad():
        sure.head.weight.zero_()
        sure.head.bias.copy_(-70.0 * torch.arange(V))
    ids = torch.tensor(rng.permutation(V))
    expected = (70 * ids[1:].sum().item() + math.log1p(math.exp(-70))) / 5 / math.log(2)
    likely = "Is something added to p, or p held above a bound? log_softmax of the logits needs neither."
    why, source = "a sure model: what it finds unlikely costs 101 bits and more", "-log2 p"
    expect.close(learner(sure, ids, 3), expected, why=why, source=source, lone=True, rtol=1e-5, likely=likely)


def _same_state(given, wanted):
    import torch

    if given is None or wanted is None:
        return given is None and wanted is None
    if isinstance(given, tuple) != isinstance(wanted, tuple):
        return False
    pairs = zip(given, wanted, strict=True) if isinstance(given, tuple) else [(given, wanted)]
    return all(torch.equal(a, b) for a, b in pairs)


# ------------------------------------------------------------------------------------------------ sample


def _p(z):
    """softmax of an array."""
    e = np.exp(z - z.max())
    return e / e.sum()


_SLIPS = {
    "It multiplies by the temperature; logits are divided by it.": lambda z, T: _p(z * T),
    "As if the temperature were 1: it divides the logits. Probabilities that are divided keep their ratios.": (
        lambda z, T: _p(z)
    ),
    "All symbols come equally often: the logits have no part in the draw.": lambda z, T: np.full(len(z), 1 / len(z)),
    "It draws from the logits as they are, or from exp(logits / T) of something else: softmax(logits / temperature).": (
        lambda z, T: np.abs(z) / np.abs(z).sum()
    ),
    "softmax comes first and again after the division: once, of logits / temperature.": lambda z, T: _p(_p(z) / T),
    "The temperature is subtracted; it divides.": lambda z, T: _p(z - T),
    "The temperature is squared, or divides twice.": lambda z, T: _p(z / T**2),
    "It divides by the root of the temperature.": lambda z, T: _p(z / np.sqrt(T)),
    "The sign is turned: likely symbols come seldom.": lambda z, T: _p(-z / T),
    "A small p is held up: nothing is added to p.": lambda z, T: _p(np.log(_p(z) + 1e-10) / T),
    "A low temperature is held above a bound here; every one > 0 is meant as it is.": lambda z, T: _p(z / max(T, 0.1)),
    "A high temperature is held under a bound here; every one > 0 is meant as it is.": lambda z, T: _p(z / min(T, 2)),
}


def _without_softmax(logits, temperature, generator):
    """These are logits, which can be negative; multinomial wants probabilities: softmax first."""
    import torch

    return torch.multinomial(logits / temperature, 1, generator=generator).item()


@exercise(
    hints=[
        "Where does the temperature stand in softmax(z / τ), and which function of torch draws a number by weights?",
        "p = torch.softmax(logits / temperature, 0): it subtracts the largest by itself, so that nothing overflows.",
        "return torch.multinomial(p, 1, generator=generator).item()",
    ],
    mistakes=[_without_softmax],
    seconds=40,
)
def sample(learner, rng):
    import torch

    def draws(logits, temperature, times, seed):
        return learner.times(times, logits, temperature, torch.Generator().manual_seed(seed))

    logits = torch.tensor([0.3, -1.1, 1.4, 0.0, 2.0], dtype=torch.float64)
    one = draws(logits, 1.0, 1, 0)[0]
    tensor_said = "It is a tensor: .item() takes the number out."
    expect.kind(one, (int, np.integer), "an int comes back", likely=tensor_said if hasattr(one, "item") else "")
    for n, (z, temperature, times) in enumerate(
        (
            (logits, 1.0, 1500),
            (logits, 2.3, 1500),
            (logits, 0.6, 1500),
            (logits / 50, 0.02, 600),
            (logits * 20, 20.0, 600),
            (torch.zeros(83), 1.0, 800),
        )
    ):
        drawn, z = np.array(draws(z, temperature, times, n)), z.double().numpy()
        V = len(z)
        said = f"{V} symbols, temperature {temperature}, {times} draws"
        expect.true(drawn.min() >= 0 and drawn.max() < V, f"numbers 0 to {V - 1}, {said}", likely="Counted from 0.")
        counts, p = np.bincount(drawn, minlength=V), _p(z / temperature)
        if chisquare(counts, times * p).pvalue < 1e-6:
            shown = [
                f"yours    {(counts[:9] / times).round(3)}",
                f"expected {p[:9].round(3)}   (softmax(logits / temperature))",
            ]
            if (counts > 0).sum() == 1:
                likely = "One symbol comes always: argmax is no draw, and a generator that is seeded inside draws the same again."
            elif z.std() == 0:
                shown = [f"yours    {(counts > 0).sum()} different symbols", f"expected all {V}"]
                likely = "All are alike here, and each comes equally often: no symbol is left out."
            else:
                fits = {w: chisquare(counts, times * f(z, temperature)).pvalue for w, f in _SLIPS.items()}
                likely = max(fits, key=fits.get) if max(fits.values()) > 1e-4 else ""
            raise Complaint(f"how often each symbol comes, {said}", shown, likely, "frequencies")
    governed(lambda g: [learner(logits, 1.0, g) for _ in range(30)], why="the generator decides", make=torch_generator)
    overflow = "exp overflows, or becomes 0 everywhere: torch.softmax(logits / temperature, 0) does neither."
    unbounded = "Only differences of logits count, whatever their size: no clamp, nothing added to p."
    power = "All p become 0 when a power is taken of them: divide the logits first, then softmax."
    for large, temperature, broken in (
        ([1000.0, 990.0, -1000.0], 1.0, overflow),
        ([1000.0, 990.0, -1000.0], 0.01, overflow),
        ([-1000.0, -1500.0, -1900.0], 0.01, overflow),
        ([-5000.0, -9000.0], 1.0, overflow),
        ([1.0] + 82 * [0.0], 0.005, power),
    ):
        said = f"logits {large if len(large) < 9 else '1, 0, 0, ... 0'}, temperature {temperature}"
        for dtype in (torch.float32, torch.float64):
            try:
                drawn = set(draws(torch.tensor(large, dtype=dtype), temperature, 20, 1))
            except (RuntimeError, ValueError, OverflowError) as error:
                raise Complaint(f"{said}: the first symbol", [f"yours    {error}"[:90]], broken, "error") from None
            if drawn != {0}:
                said = f"{said}: the first symbol comes always"
                raise Complaint(said, [f"yours    {sorted(drawn)}"], unbounded, "wrong symbols")
    forbidden = torch.tensor([0.5, -math.inf, 0.1, -math.inf])
    for temperature in (1.7, 50.0):
        drawn = set(draws(forbidden, temperature, 300, 2))
        likely = "-inf has the probability 0; softmax makes it so by itself: nothing is added to p."
        said = f"symbols at -inf never come, temperature {temperature}"
        expect.true(drawn == {0, 2}, said, f"yours    {sorted(drawn)}", likely=likely)
    expect.equal(draws(torch.tensor([-3.0]), 0.7, 3, 0), [0, 0, 0], why="one symbol only", source="V = 1")
    many = torch.full((300,), -50.0)
    many[[7, 260]] = 3.0
    expect.true(set(draws(many, 1.0, 60, 3)) == {7, 260}, "two of 300 symbols", likely="Is V fixed somewhere?")
    strided = torch.tensor([[2.0, -90], [-90, 2], [2, -90]], dtype=torch.float64)[:, 1]
    expect.equal(draws(strided, 1.0, 5, 0), [1] * 5, why="a column of a matrix", source="one likely symbol")
