"""The checks of optimization-sgd-adam: one for each exercise, with its hints. `lab.check` runs them.

The steps are held to torch.optim: over 50 steps in double precision, with a learning rate that changes on the way, and
over a few steps for each family of inputs.
"""

import math
import warnings
from functools import partial

import numpy as np

from atlas.checking import agree, among, array, cases, exercise, expect, floats, numbers, parts, tensor


def _tensor(values):
    import torch

    return torch.tensor(values, dtype=torch.float64)


def _follow(learner, rng, first, make, apart, source, **settings):
    """Walk beside an optimiser of torch and compare the weights after each step.

    first(w) is the state before the first step, make(parameters) torch's optimiser, apart(given) what returns, taken
    apart: weights and state. The tolerance is that of expect.close, for βᵗ with a tensor t has single precision.
    """
    import torch

    A, target = _tensor(rng.normal(size=(7, 3))), _tensor(rng.normal(size=(7, 5)))
    w = _tensor(rng.normal(size=(3, 5)))
    theirs = torch.nn.Parameter(w.clone())
    optimizer, state = make([theirs]), first(w)
    for begin, end in ((1, 5), (6, 20), (21, 50)):
        yours, expected = [], []
        for _ in range(begin, end + 1):
            eta = 0.05 if begin < 21 else 0.02  # a schedule: what is multiplied by η, and when, shows
            g = A.T @ (A @ theirs.detach() - target) / 7 + _tensor(rng.normal(size=(3, 5))) / 3
            optimizer.param_groups[0]["lr"] = eta
            theirs.grad = g.clone()
            optimizer.step()
            w, state = apart(learner(w, g, state, eta, **settings), w)
            yours.append(array(w).copy())
            expected.append(theirs.detach().numpy().copy())
        why = f"the same weights as PyTorch's in steps {begin} to {end}" + (", with another η" if begin == 21 else "")
        likely = "It was right until η changed: is η in the state, or is there a fixed one?" if begin == 21 else ""
        if begin == 1 and np.allclose(yours[0], expected[0]):
            likely = "The first step is right, a later one is not: what does the state keep, and how much of it?"
            if "beta2" in settings:
                likely = (
                    "The first step is right, a later one is not: is it the state that comes back, or the power of β?"
                )
        expect.close(np.stack(yours), np.stack(expected), why=why, source=source, likely=likely)

    weights = floats("rows", "columns", tensor=True, any_rank=True)
    without = {"far": "nothing is exponentiated in a step", "apart": "each entry goes its own way"}
    for case in cases(rng, w=weights, g1=weights, g2=weights, eta=numbers(0.01, 0.1), without=without):
        w, *gradients, eta = case.inputs
        theirs = torch.nn.Parameter(case.exact[0].clone())
        optimizer, state = make([theirs]), first(w)
        optimizer.param_groups[0]["lr"] = eta
        for g in gradients:
            theirs.grad = g.detach().double().clone()
            optimizer.step()
            w, state = apart(learner(w, g, state, eta, **settings), w)
            expect.close(
                w, theirs.detach(), why=f"the same weights as PyTorch's{case}", source=source, likely=case.likely
            )


def _like(part, w, what):
    """Demand a tensor of w's shape, and of its type where that holds fractions."""
    expect.shape(part, tuple(w.shape), f"{what} has the shape that came in")
    tensor(part, what)
    if w.is_floating_point():
        expect.dtype(part, w, f"{what} has the type that came in")


def _pair(*names):
    """Takes apart what a step returns, in two parts of these names; both are tensors like w."""

    def apart(given, w):
        given = expect.parts(given, names, "the step returns weights and state")
        for name, part in zip(names, given, strict=True):
            _like(part, w, f"the new {name}")
        return given

    return apart


# ------------------------------------------------------------------------------------------------ momentum_step


@parts
def _momentum(
    w,
    g,
    v,
    eta,
    mu=0.9,
    nesterov=False,
    *,
    velocity=lambda v, g, mu, eta: mu * v + g,
    ahead=lambda g, new, old, mu: g + mu * new,
    plain=lambda g, new, old, mu: new,
    keep=lambda new, way: new,
    sign=-1,
):
    new = velocity(v, g, mu, eta)
    way = ahead(g, new, v, mu) if nesterov else plain(g, new, v, mu)
    return w + sign * eta * way, keep(new, way)


def _eta_in_velocity(w, g, v, eta, mu=0.9, nesterov=False):
    """Here η is inside the velocity. PyTorch keeps it outside: v = μv + g, then w - ηv. With a changing η that differs."""
    v = mu * v + eta * g
    return w - (eta * g + mu * v if nesterov else v), v


def _velocity_not_carried(w, g, v, eta, mu=0.9, nesterov=False):
    """The velocity does not add up: the new one is v = μv + g, and this new one is returned."""
    return _momentum(w, g, v, eta, mu, nesterov)[0], v


@exercise(
    hints=[
        "Two lines: first the velocity, then the weights. Which of both lines does η belong to?",
        "v = mu * v + g makes a new tensor. For Nesterov the step goes along g + mu * v, with this new v.",
        "v = mu * v + g, then: return w - eta * (g + mu * v if nesterov else v), v",
    ],
    mistakes=_momentum.mistakes(
        _eta_in_velocity,
        _velocity_not_carried,
        returns={"Weights and velocity come back in the wrong order: return w, v.": lambda both: both[::-1]},
        velocity={
            "The gradient is damped by 1 - μ, as in a mean. Here it counts in full: v = μv + g.": (
                lambda v, g, mu, eta: mu * v + (1 - mu) * g
            ),
            "μ and 1 - μ: the velocity keeps μ of itself, and g is added in full.": (
                lambda v, g, mu, eta: (1 - mu) * v + mu * g
            ),
            "The velocity keeps all of itself, for ever. It keeps μ of it: v = μv + g.": lambda v, g, mu, eta: v + g,
        },
        plain={
            "It looks ahead where it should not: g + μv is the way for nesterov=True only; plain goes along v.": (
                lambda g, new, old, mu: g + mu * new
            ),
        },
        keep={
            "The look-ahead g + μv is kept as the velocity. It is for this step only: return v = μv + g.": lambda new, way: (
                way
            )
        },
        sign={"It walks uphill: the step is subtracted, w - ηv.": 1},
        nesterov={
            "nesterov=True changes nothing: its way is g + μv with the new v (g + μ times the old v is just the new one).": False,
        },
        ahead={
            "The look-ahead lacks g: g + μv, with the new v.": lambda g, new, old, mu: mu * new,
            "The look-ahead lacks μ: g + μv, with the new v.": lambda g, new, old, mu: g + new,
            "The look-ahead adds μv to v; it is g + μv, with g once and the new v.": lambda g, new, old, mu: (
                new + mu * new
            ),
        },
        together={
            "It looks ahead where it should not, and not where it should: is the condition turned round?": {
                "plain": lambda g, new, old, mu: g + mu * new,
                "ahead": lambda g, new, old, mu: new,
            },
            "The step uses the old velocity. First the new one, v = μv + g, then the step along it.": {
                "plain": lambda g, new, old, mu: old,
                "ahead": lambda g, new, old, mu: g + mu * old,
            },
        },
    ),
    seconds=60,  # the first use of torch.optim imports for seconds
    new=True,
)
def momentum_step(learner, rng):
    import torch

    for nesterov in (False, True):
        _follow(
            learner,
            rng,
            lambda w: 0 * w,
            lambda p, n=nesterov: torch.optim.SGD(p, lr=1, momentum=0.7, nesterov=n),
            _pair("w", "v"),
            f"torch.optim.SGD, momentum 0.7, nesterov={nesterov}",
            mu=0.7,
            nesterov=nesterov,
        )
    w, v = learner(_tensor([1.0]), _tensor([2.0]), _tensor([3.0]), 0.1, 0.0)
    expect.close(w, [0.8], why="with μ = 0 it is plain gradient descent: w", source="by hand")
    expect.close(v, [2.0], why="with μ = 0 it is plain gradient descent: v", source="by hand")
    for nesterov, expected in ((False, 0.65), (True, 0.625)):
        given = learner(_tensor([1.0]), _tensor([2.0]), _tensor([3.0]), 0.1, 0.5, nesterov)
        w, v = expect.parts(given, ("w", "v"), "weights and velocity")
        expect.close(w, [expected], why=f"the example above, nesterov={nesterov}: w", source="by hand")
        expect.close(v, [3.5], why=f"the example above, nesterov={nesterov}: v", source="by hand")


# ------------------------------------------------------------------------------------------------ rmsprop_step


@parts
def _rmsprop(
    w,
    g,
    s,
    eta,
    alpha=0.99,
    eps=1e-8,
    *,
    mean=lambda s, g, a: a * s + (1 - a) * g**2,
    used=lambda s, a: s,
    step=lambda g, s, old, eps, eta: eta * g / (s.sqrt() + eps),
    keep=lambda new, old: new,
    sign=-1,
):
    new = mean(s, g, alpha)
    return w + sign * step(g, used(new, alpha), s, eps, eta), keep(new, s)


@exercise(
    hints=[
        "Two lines: the running mean of g², then the step. Everything is entry by entry.",
        "s = alpha * s + (1 - alpha) * g**2. Take the root of s first, then add eps.",
        "After the line for s: return w - eta * g / (s.sqrt() + eps), s",
    ],
    mistakes=_rmsprop.mistakes(
        returns={"Weights and mean of squares come back in the wrong order: return w, s.": lambda both: both[::-1]},
        step={
            "It multiplies by √s + ε. It divides: a coordinate with large gradients gets a small step.": (
                lambda g, s, old, eps, eta: eta * g * (s.sqrt() + eps)
            ),
            "ε is added at the end; a bracket is missing: η·g / (√s + ε).": (
                lambda g, s, old, eps, eta: eta * g / s.sqrt() - eps
            ),
            "ε is added to the quotient; a bracket is missing: η·g / (√s + ε).": (
                lambda g, s, old, eps, eta: eta * (g / s.sqrt() + eps)
            ),
            "ε is inside the root. It stands outside: √s + ε.": lambda g, s, old, eps, eta: eta * g / (s + eps).sqrt(),
            "ε is missing: divide by √s + ε.": lambda g, s, old, eps, eta: eta * g / s.sqrt(),
            "ε is no lower bound: it is added to the root, √s + ε.": (
                lambda g, s, old, eps, eta: eta * g / s.sqrt().clamp(min=eps)
            ),
            "ε is inside the root, and squared. It stands outside: √s + ε.": (
                lambda g, s, old, eps, eta: eta * g / (s + eps**2).sqrt()
            ),
            "The root is missing: divide by √s + ε, which is as large as a gradient.": (
                lambda g, s, old, eps, eta: eta * g / (s + eps)
            ),
            "It divides by the old mean of squares. First the new s, then the step.": (
                lambda g, s, old, eps, eta: eta * g / (old.sqrt() + eps)
            ),
        },
        used={
            "s is right, and the step divides by √(s / (1 - α)): that is Adam's correction, and RMSprop has none.": (
                lambda s, a: s / (1 - a)
            ),
        },
        keep={
            "The mean of squares that comes back is the one that was given. Return the new one.": lambda new, old: old,
            "The root is returned as state. Keep the mean of squares itself; the root is for this step.": (
                lambda new, old: new.sqrt()
            ),
        },
        mean={
            "α and 1 - α are swapped: s keeps α of itself.": lambda s, g, a: (1 - a) * s + a * g**2,
            "The squares add up for ever: that is AdaGrad. s = αs + (1 - α)g².": lambda s, g, a: s + g**2,
            "g² lacks its factor 1 - α: s would grow to a multiple of the mean.": lambda s, g, a: a * s + g**2,
            "It averages g, not g².": lambda s, g, a: a * s + (1 - a) * g,
            "It averages |g|, not g².": lambda s, g, a: a * s + (1 - a) * g.abs(),
            "It averages g² over the entries: each entry keeps its own s.": (
                lambda s, g, a: a * s + (1 - a) * (g**2).mean() + 0 * g
            ),
            "It uses the squared norm of g for all: each entry keeps its own s.": (
                lambda s, g, a: a * s + (1 - a) * (g**2).sum() + 0 * g
            ),
        },
        sign={"It walks uphill: the step is subtracted.": 1},
    ),
    seconds=60,  # the first use of torch.optim imports for seconds
    new=True,
)
def rmsprop_step(learner, rng):
    import torch

    _follow(
        learner,
        rng,
        lambda w: 0 * w,
        lambda p: torch.optim.RMSprop(p, lr=1, alpha=0.8, eps=0.1),
        _pair("w", "s"),
        "torch.optim.RMSprop, alpha 0.8, eps 0.1",
        alpha=0.8,
        eps=0.1,
    )
    given = learner(_tensor([1.0]), _tensor([2.0]), _tensor([9.0]), 0.1, 0.5, 0.5)
    w, s = expect.parts(given, ("w", "s"), "weights and mean of squares")
    expect.close(w, [1 - 0.2 / (math.sqrt(6.5) + 0.5)], why="the example above: w", source="by hand")
    expect.close(s, [6.5], why="the example above: s", source="by hand")
    w, _ = learner(_tensor([1.0]), _tensor([1e-6]), _tensor([0.0]), 0.1)
    why = "a gradient of 10⁻⁶, with the usual α and ε"
    expect.close(w, [1 - 0.1 * 1e-6 / (1e-7 + 1e-8)], why=why, source="by hand, 0.1·10⁻⁶/(10⁻⁷ + 10⁻⁸)")


# ------------------------------------------------------------------------------------------------ adam_step


@parts
def _adam(
    w,
    g,
    state,
    eta,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    *,
    betas=lambda beta1, beta2: (beta1, beta2, beta1, beta2),  # of m, of v, of their corrections
    count=lambda t: t + 1,
    power=lambda t: t,
    bias=lambda b, t: 1 - b**t,
    first=lambda m, g, b: b * m + (1 - b) * g,
    second=lambda v, g, m, b, b1: b * v + (1 - b) * g**2,
    correct=lambda m, v, c1, c2: (m / c1, v / c2),
    divide=lambda m, v, eps, c2, g: m / (v.sqrt() + eps),
    keep=lambda new, corrected, old: new,
    move=lambda w, eta, d, eps: w - eta * d,
):
    m, v, t = state
    b1, b2, *of_corrections = betas(beta1, beta2)
    t, m = count(t), first(m, g, b1)
    v = second(v, g, m, b2, b1)
    c1, c2 = (bias(b, power(t)) for b in of_corrections)
    corrected = correct(m, v, c1, c2)
    return move(w, eta, divide(*corrected, eps, c2, g), eps), (*keep((m, v), corrected, state[:2]), t)


_AHEAD = "The correction is one step ahead: in the first step t is 1. Is the step counted twice?"
_STILL = "The correction is the same in every step: it is 1 - βᵗ, a power, and t in the returned state is one more than before."
_ADAM_MISTAKES = _adam.mistakes(
    returns={"Weights and state come back in the wrong order: return w, (m, v, t).": lambda both: both[::-1]},
    betas={
        "β₁ and β₂ are swapped: β₁ belongs to m, the mean of gradients, β₂ to v, the mean of squares.": (
            lambda beta1, beta2: (beta2, beta1, beta2, beta1)
        ),
        "β₁ stands in place of β₂ in v and in its correction.": lambda beta1, beta2: (beta1, beta1, beta1, beta1),
        "v is corrected with β₁. The mean of squares has β₂: v / (1 - β₂ᵗ).": lambda beta1, beta2: (
            beta1,
            beta2,
            beta1,
            beta1,
        ),
        "The corrections take 0.9 and 0.999 whatever the arguments are: 1 - beta1**t, 1 - beta2**t.": lambda beta1, beta2: (
            beta1,
            beta2,
            0.9,
            0.999,
        ),
        "beta1 and beta2 are arguments; this takes their defaults whatever they are.": lambda *_: (
            0.9,
            0.999,
            0.9,
            0.999,
        ),
    },
    eps={},
    count={_AHEAD: lambda t: t + 2},
    power={
        "The correction is one step behind: in the first step t is 1, not 0 (1 - β⁰ = 0). Count before you correct.": (
            lambda t: t - 1
        ),
        "From the second step on the correction is one step behind: count first, t = t + 1, and correct with the new t.": (
            lambda t: max(t - 1, 1)
        ),
        _AHEAD: lambda t: t + 1,
    },
    bias={
        "It is 1 - βᵗ, not (1 - β)ᵗ: the power belongs to β alone.": lambda b, t: (1 - b) ** t,
        "β is multiplied by t; it is β to the power t, beta1**t.": lambda b, t: 1 - b * t,
    },
    first={
        "The old m has no part in the new one: m = β₁m + (1 - β₁)g.": lambda m, g, b: g * (1 - b),
        "β₁ and 1 - β₁ are exchanged in m: it keeps β₁ of itself.": lambda m, g, b: (1 - b) * m + b * g,
        "g lacks its factor 1 - β₁ in m: it is a mean here, not a velocity.": lambda m, g, b: b * m + g,
    },
    second={
        "It averages g² over the entries: each entry keeps its own v.": (
            lambda v, g, m, b, b1: b * v + (1 - b) * (g**2).mean()
        ),
        "v averages the squares of g, not of its distance from m: it is no variance.": (
            lambda v, g, m, b, b1: b * v + (1 - b) * (g - m) ** 2
        ),
        "v is a mean of squares: g**2, not g.": lambda v, g, m, b, b1: b * v + (1 - b) * g,
        "The 1 - β in v has β₁; it is 1 - β₂, as β₂ is what v keeps of itself.": (
            lambda v, g, m, b, b1: b * v + (1 - b1) * g**2
        ),
        "g² lacks its factor 1 - β₂ in v.": lambda v, g, m, b, b1: b * v + g**2,
        "v averages the squares of m. It averages the squares of the gradient, g**2.": (
            lambda v, g, m, b, b1: b * v + (1 - b) * m**2
        ),
    },
    correct={
        "A bracket is missing: m / (1 - beta1**t) needs one around 1 - beta1**t.": (
            lambda m, v, c1, c2: (m - (1 - c1), v - (1 - c2))
        ),
        "The bias correction is missing: m and v begin at zero and are too small at first. Divide by 1 - β₁ᵗ and 1 - β₂ᵗ.": (
            lambda m, v, c1, c2: (m, v)
        ),
        "Only m is corrected: v needs it too, v / (1 - β₂ᵗ).": lambda m, v, c1, c2: (m / c1, v),
        "Only v is corrected: m needs it too, m / (1 - β₁ᵗ).": lambda m, v, c1, c2: (m, v / c2),
        "The correction multiplies by 1 - βᵗ. It divides: m was too small.": lambda m, v, c1, c2: (m * c1, v * c2),
    },
    divide={
        "ε is inside the root. It stands outside: √v̂ + ε.": lambda m, v, eps, c2, g: m / (v + eps).sqrt(),
        "ε is added before v is corrected, and gets corrected with it. First v̂, its root, then ε.": (
            lambda m, v, eps, c2, g: m / (v.sqrt() + eps / math.sqrt(c2))
        ),
        "ε is missing, or fixed at 1e-8: divide by √v̂ + ε, with the argument eps.": lambda m, v, eps, c2, g: (
            m / v.sqrt()
        ),
        "ε is added to the fraction; a bracket is missing: m̂ / (√v̂ + ε).": (
            lambda m, v, eps, c2, g: m / v.sqrt() + eps
        ),
        "ε is no lower bound: it is added to the root, √v̂ + ε.": (lambda m, v, eps, c2, g: m / v.sqrt().clamp(min=eps)),
        "The root is missing: divide by √v̂ + ε.": lambda m, v, eps, c2, g: m / (v + eps),
        "The root is taken before the correction. First v̂ = v / (1 - β₂ᵗ), then its root.": (
            lambda m, v, eps, c2, g: m / ((v * c2).sqrt() / c2 + eps)
        ),
        "The step goes along g; it goes along m̂, the mean of the gradients.": lambda m, v, eps, c2, g: (
            g / (v.sqrt() + eps)
        ),
    },
    keep={
        "The two means in the state are swapped: return (m, v, t).": lambda new, corrected, old: new[::-1],
        "m and v come back as they were given, so that every step is like the first. Return the new ones.": (
            lambda new, corrected, old: old
        ),
        "The corrected m̂ and v̂ are kept as state. They serve this step only: return m and v.": (
            lambda new, corrected, old: corrected
        ),
    },
    move={"It walks uphill: the step is subtracted.": lambda w, eta, d, eps: w + eta * d},
    together={
        "ε is added to the step; a bracket is missing: η·m̂ / (√v̂ + ε).": {
            "divide": lambda m, v, eps, c2, g: m / v.sqrt(),
            "move": lambda w, eta, d, eps: w - (eta * d + eps),
        },
        "beta1, beta2 and eps are arguments; this takes their defaults whatever they are.": {
            "betas": lambda *_: (0.9, 0.999, 0.9, 0.999),
            "eps": 1e-8,
        },
        _STILL: {"count": lambda t: t, "power": lambda t: t or 1},
        f"{_STILL} ": {"count": lambda t: t, "power": lambda t: t + 1},
        "β and 1 - β are swapped: a running mean keeps β of itself.": {
            "first": lambda m, g, b: (1 - b) * m + b * g,
            "second": lambda v, g, m, b, b1: (1 - b) * v + b * g**2,
        },
    },
)


def _state(given, w):
    """Weights and state, of which m and v are tensors like w, and t is a number."""
    new, state = expect.parts(given, ("w", "state"), "the step returns the weights and the state")
    _like(new, w, "the new w")
    m, v, t = expect.parts(state, ("m", "v", "t"), "the state has three parts")
    likely = "The state is (m, v, t), in this order: two tensors like w, and a number."
    for name, part, shape in (("m", m, tuple(w.shape)), ("v", v, tuple(w.shape)), ("t", t, ())):
        expect.shape(part, shape, f"{name} in the state has its shape", likely=likely)
    _like(m, w, "m in the state")
    _like(v, w, "v in the state")
    return new, (m, v, t)


def _nothing_yet(w):
    return 0 * w, 0 * w, 0


@exercise(
    hints=[
        "Take the state apart, m, v, t = state, and count first: the first step has t = 1.",
        "m_hat = m / (1 - beta1**t), v_hat likewise. Return m and v, not m_hat and v_hat. ε is outside the root.",
        "After t = t + 1, m = beta1 * m + (1 - beta1) * g and the same for v: w - eta * m_hat / (v_hat.sqrt() + eps), (m, v, t)",
    ],
    mistakes=_ADAM_MISTAKES,
    seconds=60,  # the first use of torch.optim imports for seconds
    new=True,
)
def adam_step(learner, rng):
    import torch

    _follow(
        learner,
        rng,
        _nothing_yet,
        lambda p: torch.optim.Adam(p, lr=1, betas=(0.8, 0.9), eps=0.1),
        _state,
        "torch.optim.Adam, betas 0.8 and 0.9, eps 0.1",
        beta1=0.8,
        beta2=0.9,
        eps=0.1,
    )
    one, zero = _tensor([1.0]), _tensor([0.0])
    w, (m, v, t) = _state(learner(one, _tensor([2.0]), (zero, zero, 0), 0.1, 0.9, 0.99, 0.5), one)
    source = "by hand, 1 - 0.1·2/(2 + 0.5)"
    expect.close(w, [1 - 0.2 / 2.5], why="the example above, but with ε = 0.5: w", source=source)
    expect.close(m, [0.2], why="the example above: m is returned uncorrected", source="by hand")
    expect.close(v, [0.04], why="the example above: v is returned uncorrected", source="by hand")
    expect.equal(t, 1, why="one step has been taken", source="counting")
    w, (*_, t) = _state(learner(one, _tensor([1e-6]), (zero, zero, 0), 0.1), one)
    source = "by hand, 0.1·10⁻⁶/(10⁻⁶ + 10⁻⁸)"
    expect.close(w, [1 - 0.1 / 1.01], why="a gradient of 10⁻⁶, with the usual β and ε", source=source)
    w, (*_, t) = _state(learner(one, one, (one, one, 1500), 0.1), one)
    expect.close(
        w,
        [1 - 0.1 * math.sqrt(1 - 0.999**1501)],
        why="step 1501, with the usual β and ε",
        source="m̂ = 1, v̂ = 1/(1 - 0.999¹⁵⁰¹)",
    )
    expect.equal(t, 1501, why="and t goes on counting", source="counting")


# ------------------------------------------------------------------------------------------------ adamw_step


@parts
def _adamw(
    w,
    g,
    state,
    eta,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    lam=0.01,
    *,
    gradient=lambda g, w, lam: g,
    settings=lambda beta1, beta2, eps: (beta1, beta2, eps),
    adam=_adam,
    decayed=lambda new, w, eta, lam, scale: new - eta * lam * w,
    keep=lambda new, old: new,
):
    beta1, beta2, eps = settings(beta1, beta2, eps)
    new, (m, v, t) = adam(w, gradient(g, w, lam), state, eta, beta1, beta2, eps)
    scale = (v / (1 - beta2**t)).sqrt() + eps
    return decayed(new, w, eta, lam, scale), keep((m, v, t), state)


def _undecayed(new, w, eta, lam, scale):
    return new


@exercise(
    hints=[
        "adam_step does all but the decay. What do you give it as gradient?",
        "stepped, state = adam_step(w, g, state, eta, beta1, beta2, eps): g as it is. The decay ηλw is about the old w.",
        "Then: return stepped - eta * lam * w, state",
    ],
    mistakes=_adamw.mistakes(
        settings={
            "β₁, β₂ and ε are not passed on: adam_step then takes its defaults.": lambda *_: (0.9, 0.999, 1e-8),
            "ε is not passed on: adam_step then takes its default.": lambda beta1, beta2, eps: (beta1, beta2, 1e-8),
            "β₁ and β₂ reach adam_step in the wrong order.": lambda beta1, beta2, eps: (beta2, beta1, eps),
        },
        eps={},
        adam={
            "The corrected m̂ and v̂ are kept as state. They serve this step only: return m and v.": partial(
                _adam, keep=lambda new, corrected, old: corrected
            ),
            "ε is inside the root. It stands outside: √v̂ + ε.": partial(
                _adam, divide=lambda m, v, eps, c2, g: m / (v + eps).sqrt()
            ),
        },
        keep={
            "The state that comes back is the one that was given. Return the one from adam_step.": lambda new, old: old,
            _STILL: lambda new, old: (*new[:2], old[2]),
        },
        gradient={"It decays twice: through the gradient and besides. Keep g pure.": lambda g, w, lam: g + lam * w},
        decayed={
            "The decay is divided by √v̂ + ε with the rest: it has to stand apart, ηλw, the same for all weights.": (
                lambda new, w, eta, lam, scale: new - eta * lam * w / scale
            ),
            "η stands twice in the decay: subtract ηλw.": lambda new, w, eta, lam, scale: new - eta * eta * lam * w,
            "There is no decay in it: subtract ηλw.": _undecayed,
            "The decay lacks η: a step subtracts ηλw.": lambda new, w, eta, lam, scale: new - lam * w,
            "It decays the new weights. The decay is ηλ times the old w, the one that was given.": (
                lambda new, w, eta, lam, scale: new - eta * lam * new
            ),
            "The weights grow: the decay is subtracted.": lambda new, w, eta, lam, scale: new + eta * lam * w,
            "The pull has the same size for all weights, as with an L1 penalty. It is in proportion: ηλw.": (
                lambda new, w, eta, lam, scale: new - eta * lam * w.sign()
            ),
            "The decay is ηλw, not ηλw²: the gradient of ½λw² is λw.": (
                lambda new, w, eta, lam, scale: new - eta * lam * w**2
            ),
            "The decay is twice too large: with ½ in ½λw², the gradient is λw.": (
                lambda new, w, eta, lam, scale: new - 2 * eta * lam * w
            ),
            "The decay is half of what it should be: it is ηλw, and the ½ of ½λw² is in it already.": (
                lambda new, w, eta, lam, scale: new - eta * lam / 2 * w
            ),
            "The decay lacks η, and it is for the old w: subtract ηλw.": lambda new, w, eta, lam, scale: (
                new * (1 - lam)
            ),
            "The decay lacks w: subtract ηλw.": lambda new, w, eta, lam, scale: new - eta * lam,
        },
        together={
            "The decay goes through the gradient, and the wrong way. Keep g pure, and subtract ηλw besides.": {
                "gradient": lambda g, w, lam: g - lam * w,
                "decayed": _undecayed,
            },
            "The decay goes through the gradient, into m and v: that is Adam with L2. Keep g pure, and subtract ηλw besides.": {
                "gradient": lambda g, w, lam: g + lam * w,
                "decayed": _undecayed,
            },
        },
    ),
    seconds=60,  # the first use of torch.optim imports for seconds
    new=True,
)
def adamw_step(learner, rng):
    import torch

    _follow(
        learner,
        rng,
        _nothing_yet,
        lambda p: torch.optim.AdamW(p, lr=1, betas=(0.8, 0.9), eps=0.1, weight_decay=0.3),
        _state,
        "torch.optim.AdamW, betas 0.8 and 0.9, eps 0.1, weight_decay 0.3",
        beta1=0.8,
        beta2=0.9,
        eps=0.1,
        lam=0.3,
    )
    one, zero = _tensor([1.0]), _tensor([0.0])
    w, _ = _state(learner(one, _tensor([2.0]), (zero, zero, 0), 0.1, 0.9, 0.99, 0.0, 0.5), one)
    expect.close(w, [0.85], why="the example above", source="by hand")


# ------------------------------------------------------------------------------------------------ gradient_noise


@parts
def _noise(
    G,
    B,
    *,
    variances=lambda G: G.var(0),
    total=lambda variances: variances.sum(),
    of_a_mean=lambda total, B, N: total / B,
    root=lambda x: x.sqrt(),
):
    return root(of_a_mean(total(variances(G)), B, len(G)))


@exercise(
    hints=[
        "Each column of G is one entry of the gradient, over the examples: its variance comes first.",
        "G.var(0) gives the variances (torch divides by N - 1 already). They add up; a mean of B has 1/B of it.",
        "return (G.var(0).sum() / B).sqrt()",
    ],
    mistakes=_noise.mistakes(
        root={"It is the mean squared distance: take the root, so that it is a length.": lambda x: x},
        variances={
            "The variance divides by N; from a sample it is N - 1 (correction=1 in torch, ddof=1 in NumPy).": (
                lambda G: G.var(0, correction=0)
            ),
            "It takes the squares of the gradients themselves. Noise is the distance from their mean.": (
                lambda G: (G**2).sum(0) / (len(G) - 1)
            ),
            "The variance is over the entries of each gradient (axis 1). It is over the examples, axis 0.": (
                lambda G: G.var(1)
            ),
            "It is the variance of all numbers in G together. Each column has its own mean.": lambda G: G.var(),
            "It is the variance of all numbers in G, once for each column. Each column has its own mean: G.var(0).": (
                lambda G: G.var().expand(G.shape[1])
            ),
            "It subtracts one mean of all numbers in G. Each column has its own mean: G.mean(0).": (
                lambda G: ((G - G.mean()) ** 2).sum(0) / (len(G) - 1)
            ),
        },
        total={"It averages over the entries of the gradient. A squared length adds them up.": lambda v: v.mean()},
        of_a_mean={
            "It divides by B outside the root. A mean of B has the variance σ²/B, so the length falls with √B.": (
                lambda total, B, N: total / B**2
            ),
            "B has no part in it: a mean of B examples has the variance σ²/B.": lambda total, B, N: total,
            "It grows with B. A larger batch has less noise: divide by B.": lambda total, B, N: total * B,
            "It divides by N where B belongs: the noise is that of a batch of B.": lambda total, B, N: total / N,
            "It corrects for draws without replacement. The draws are independent here: σ²/B.": (
                lambda total, B, N: total / B * (N - B) / (N - 1)
            ),
            "It corrects for draws without replacement. The draws are independent here: σ²/B. ": (
                lambda total, B, N: total / B * max(0, N - B) / (N - 1)
            ),
            "It divides by B - 1. The 1 is taken off N, in the variance; a mean of B has 1/B of it.": (
                lambda total, B, N: total / (B - 1)
            ),
            "It divides by B - 1. The 1 is taken off N, in the variance; a mean of B has 1/B of it. ": (
                lambda total, B, N: total / max(B - 1, 1)
            ),
        },
        together={
            "It averages distances. Their squares are averaged, with N - 1, and the root comes last.": {
                "variances": lambda G: G,
                "total": lambda G: (G - G.mean(0)).norm(dim=1).mean() ** 2,
            },
            "It adds up standard deviations. Variances add up, standard deviations do not.": {
                "variances": lambda G: G.std(0),
                "total": lambda deviations: deviations.sum() ** 2,
            },
            "It measures one batch, the first B rows. Its expectation over all batches is asked for: the formula.": {
                "variances": lambda G: G,
                "total": lambda G: G,
                "of_a_mean": lambda G, B, N: ((G[:B].mean(0) - G.mean(0)) ** 2).sum(),
            },
        },
    ),
)
def gradient_noise(learner, rng):
    def by_covariance(G, B):
        return math.sqrt(np.trace(np.cov(G.numpy(), rowvar=False).reshape(G.shape[1], -1)) / B)

    def columns_apart(rng, shape):
        return rng.normal(size=shape) * rng.uniform(0.5, 3, shape[1:]) + 3 * rng.normal(size=shape[1:])

    G, B = floats("N", "P", draw=columns_apart, tensor=True), among(5, 1, 2, 9)
    source = "the trace of np.cov, divided by B, and its root"
    five = _tensor(columns_apart(rng, (5, 3)))  # a B of 9 shows what B - 1, or no B, would hide where B is 1 or 2
    expect.close(learner(five, 9), by_covariance(five, 9), why="the noise of a batch of 9", source=source)
    agree(learner, by_covariance, rng, why="the noise of a batch", source=source, G=G, B=B, least={"N": 2, "P": 2})
    G = _tensor([[1.0, 0], [3, 0], [5, 3]])
    expect.close(learner(G, 4), math.sqrt(7) / 2, why="the example above, B = 4", source="by hand")


# ------------------------------------------------------------------------------------------------ warmup_cosine


@parts
def _rate(
    t,
    steps,
    warmup,
    eta_max,
    eta_min=0.0,
    *,
    warm=lambda t, W: t < W,
    rise=lambda t, W, low, high: high * (t + 1) / W,
    u=lambda t, T, W: (t - W) / (T - W),
    wave=lambda u: (1 + math.cos(math.pi * u)) / 2,
    put=lambda low, high, f: low + (high - low) * f,
):
    if warm(t, warmup):
        return rise(t, warmup, eta_min, eta_max)
    return put(eta_min, eta_max, wave(u(t, steps, warmup)))


def _warm_one_too_long(t, steps, warmup, eta_max, eta_min=0.0):
    """The warm-up lasts one step too long, and passes η_max: it is for t < W, not t <= W."""
    if warmup and t == warmup:
        return eta_max * (t + 1) / warmup
    return _rate(t, steps, warmup, eta_max, eta_min)


def _no_warmup(t, steps, warmup, eta_max, eta_min=0.0):
    """There is no warm-up: for t < W the rate is η_max·(t + 1)/W."""
    return _rate(max(t, warmup), steps, warmup, eta_max, eta_min)


def _one_wave_for_both(t, steps, warmup, eta_max, eta_min=0.0):
    """The fall begins in step 0, and the warm-up is a factor on it. They are two cases: t < W, and t >= W."""
    return _rate(t, steps, 0, eta_max, eta_min) * min(1, (t + 1) / max(1, warmup))


@exercise(
    hints=[
        "Two cases with two returns. Check the borders: t = 0, W - 1, W, and where T would be.",
        "In the second case u = (t - warmup) / (steps - warmup) runs from 0 to nearly 1, and (1 + cos πu)/2 from 1 to nearly 0.",
        "if t < warmup: return eta_max * (t + 1) / warmup; else eta_min + (eta_max - eta_min) * (1 + np.cos(np.pi * u)) / 2",
    ],
    mistakes=_rate.mistakes(
        _warm_one_too_long,
        _no_warmup,
        _one_wave_for_both,
        eta_min={},
        put={
            "A bracket is missing: (η_max - η_min)·(1 + cos πu)/2 needs one around 1 + cos.": (
                lambda low, high, f: low + (high - low) + f - 0.5
            ),
            "The fall begins above η_max: scale it by η_max - η_min.": lambda low, high, f: low + high * f,
            "η_min has no part in it: η_min + (η_max - η_min)·(…).": lambda low, high, f: high * f,
            "It is cut off at η_min; the whole wave has to fit between η_max and η_min.": (
                lambda low, high, f: max(low, high * f)
            ),
        },
        u={
            "A bracket is missing: u = (t - W)/(T - W), not t - W/(T - W).": lambda t, T, W: t - W / (T - W),
            "The fall is counted from step 0: u = (t - W)/(T - W), so that it begins at the top.": lambda t, T, W: (
                t / T
            ),
            "The fall takes T steps, but only T - W are left: u = (t - W)/(T - W).": lambda t, T, W: (t - W) / T,
            "The fall is over one step too early: u = (t - W)/(T - W), not T - W - 1.": (
                lambda t, T, W: (t - W) / (T - W - 1)
            ),
            "The fall is a step ahead: u = (t - W)/(T - W) is 0 in step t = W.": lambda t, T, W: (t - W + 1) / (T - W),
        },
        rise={
            "η_min bounds the fall only. The warm-up begins at η_max/W, even if that is lower.": (
                lambda t, W, low, high: max(low, high * (t + 1) / W)
            ),
            "The warm-up begins at η_min. It goes straight from zero: η_max·(t + 1)/W.": (
                lambda t, W, low, high: low + (high - low) * (t + 1) / W
            ),
            "A bracket is missing in the warm-up: eta_max * (t + 1) / warmup.": lambda t, W, low, high: (
                high * t + 1 / W
            ),
            "The warm-up is rounded down, by //: divide with /.": lambda t, W, low, high: high * (t + 1) // W,
            "The first step has the rate 0 and is wasted: (t + 1)/W, not t/W.": lambda t, W, low, high: high * t / W,
            "The warm-up does not reach η_max in its last step, t = W - 1: (t + 1)/W.": (
                lambda t, W, low, high: high * (t + 1) / (W + 1)
            ),
        },
        wave={
            "After the warm-up the rate stays at η_max: the second case is the half-wave down to η_min.": lambda u: 1.0,
            "1 + cos runs from 2 to 0: halve it.": lambda u: 1 + math.cos(math.pi * u),
            "It is a quarter of a wave; half a wave is (1 + cos πu)/2.": lambda u: math.cos(math.pi * u / 2),
            "cos alone runs down to -1: (1 + cos πu)/2 runs from 1 to 0.": lambda u: math.cos(math.pi * u),
            "It is a whole wave, which comes up again: cos πu, not cos 2πu.": lambda u: (
                (1 + math.cos(2 * math.pi * u)) / 2
            ),
            "It rises where it should fall: 1 + cos, not 1 - cos.": lambda u: (1 - math.cos(math.pi * u)) / 2,
            "It falls in a straight line: (1 + cos πu)/2 is asked for.": lambda u: 1 - u,
            "π is missing: cos πu, with u from 0 to 1.": lambda u: (1 + math.cos(u)) / 2,
            "cos takes radians: half a wave is π, not 180.": lambda u: (1 + math.cos(180 * u)) / 2,
        },
    ),
)
def warmup_cosine(learner, rng):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns of its own way of stepping
        both = [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 5, 1, 4),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 18, 0.06),
        ]
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, both, [5])
        expected = []
        for _ in range(23):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    given = [learner(t, 23, 5, 0.4, 0.06) for t in range(23)]
    for one in given:
        expect.shape(one, (), "one rate for each step", likely="Return the rate of step t alone, not of all steps.")
    why, source = "23 steps, 5 of them warm-up, between 0.4 and 0.06", "torch's LinearLR, then CosineAnnealingLR"
    expect.close([float(one) for one in given], expected, why=why, source=source)
    for t, rate in ((0, 0.5), (1, 1.0), (2, 1.0), (6, 0.6)):
        expect.close(learner(t, 10, 2, 1.0, 0.2), rate, why=f"the example above, t = {t}", source="by hand")
    for t, rate in ((0, 0.05), (1, 0.1), (7, 0.4)):
        why = f"a warm-up that begins below η_min: t = {t} of 12, W = 8, between 0.4 and 0.1"
        expect.close(learner(t, 12, 8, 0.4, 0.1), rate, why=why, source="η_max·(t + 1)/W")
    likely = "Without a warm-up, W = 0, no step is smaller than W: the fall begins at once."
    for t, rate, source in ((0, 0.3, "cos 0 = 1"), (4, 0.15, "cos π/2 = 0")):
        expect.close(learner(t, 8, 0, 0.3), rate, why=f"no warm-up, t = {t} of 8", source=source, likely=likely)
    for t, rate in ((0, 1), (1, 2), (2, 2), (3, 1)):
        expect.close(learner(t, 4, 2, 2), rate, why=f"a whole number for η_max, t = {t} of 4, W = 2", source="by hand")
    expect.close(learner(6, 7, 6, 0.3, 0.1), 0.3, why="W = T - 1: the last step is at the top", source="cos 0 = 1")


# ------------------------------------------------------------------------------------------------ clip_by_norm


@parts
def _clipped(
    gradients,
    max_norm,
    *,
    norm_of=lambda gradients: sum((g**2).sum() for g in gradients) ** 0.5,
    too_long=lambda norm, c: norm > c,
    factor=lambda norm, c: c / norm,
    second=lambda norm, clipped, factor: norm,
):
    norm = norm_of(gradients)
    scale = factor(norm, max_norm) if too_long(norm, max_norm) else 1.0
    clipped = [g * scale for g in gradients]
    return clipped, second(norm, clipped, scale)


def _each_by_itself(gradients, max_norm):
    """Each tensor is clipped by its own norm. One norm for all: else the direction changes."""
    return [_clipped([g], max_norm)[0][0] for g in gradients], _clipped(gradients, max_norm)[1]


def _only_the_long_ones(gradients, max_norm):
    """Only tensors that are themselves too long are scaled. One norm and one factor for all: else the direction changes."""
    _, norm = _clipped(gradients, max_norm)
    return [g * max_norm / norm if g.norm() > max_norm else g for g in gradients], norm


def _largest_singular_value(g):
    import torch

    return torch.linalg.matrix_norm(g, 2)


def _by_value(gradients, max_norm):
    """Each entry is clipped by itself, which turns the gradient. All are scaled by one factor."""
    return [g.clamp(-max_norm, max_norm) for g in gradients], _clipped(gradients, max_norm)[1]


@exercise(
    hints=[
        "First one number: the root of the sum of all squares, over all tensors. Then one factor for all of them.",
        "norm = sum((g**2).sum() for g in gradients) ** 0.5. Scale only where norm > max_norm: that also keeps 0/0 out.",
        "factor = max_norm / norm if norm > max_norm else 1.0, then: return [g * factor for g in gradients], norm",
    ],
    mistakes=_clipped.mistakes(
        _each_by_itself,
        _only_the_long_ones,
        _by_value,
        too_long={
            "It scales although the norm is small enough: the factor is at most 1.": lambda norm, c: True,
            "It scales where the norm is small and leaves what is too long: is the comparison turned round?": (
                lambda norm, c: norm < c
            ),
            "Nothing is scaled: where the norm is larger than max_norm, multiply each tensor by max_norm / norm.": (
                lambda norm, c: False
            ),
        },
        norm_of={
            "The norms are added up. Squares add up: the root of the sum of squared norms.": (
                lambda gradients: sum(g.norm() for g in gradients)
            ),
            "It takes the largest norm of a single tensor. It is the norm of all of them together.": (
                lambda gradients: max(g.norm() for g in gradients)
            ),
            "linalg.norm(g, 2) of a matrix is its largest singular value. It is the root of the sum of all squares.": (
                lambda gradients: (
                    sum((_largest_singular_value(g) if g.ndim == 2 else g.norm()) ** 2 for g in gradients) ** 0.5
                )
            ),
            "The norm lacks its root.": lambda gradients: sum((g**2).sum() for g in gradients),
            "The norm adds up absolute values. It is the root of the sum of squares.": (
                lambda gradients: sum(g.abs().sum() for g in gradients)
            ),
            "It takes the largest entry as norm. It is the root of the sum of all squares.": (
                lambda gradients: max(g.abs().max() for g in gradients)
            ),
            "The squares are averaged within a tensor. A norm adds them up: (g**2).sum().": (
                lambda gradients: sum((g**2).mean() for g in gradients) ** 0.5
            ),
            "The squares are averaged over all entries. A norm adds them up.": (
                lambda gradients: (sum((g**2).sum() for g in gradients) / sum(g.numel() for g in gradients)) ** 0.5
            ),
            "It takes the norm of the first tensor only. It is the norm of all of them together.": (
                lambda gradients: gradients[0].norm()
            ),
        },
        factor={
            "The factor is (c/n)²: is the root missing in it?": lambda norm, c: (c / norm) ** 2,
            "The factor is wrong: dividing by n makes length 1, and times c makes it c. It is c/n.": lambda norm, c: (
                1 / norm
            ),
        },
        second={
            "The norm is the one after clipping; the one before is asked for, which tells how long the gradient was.": (
                lambda norm, clipped, factor: sum((g**2).sum() for g in clipped) ** 0.5
            ),
            "The factor came back. The second result is the norm before clipping.": lambda norm, clipped, factor: (
                factor
            ),
        },
    ),
)
def clip_by_norm(learner, rng):
    import torch

    def demand(gradients, max_norm, why):
        leaves = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
        for leaf, g in zip(leaves, gradients, strict=True):
            leaf.grad = g.clone()
        norm = torch.nn.utils.clip_grad_norm_(leaves, max_norm)
        clipped, given = expect.parts(learner(gradients, max_norm), ("gradients", "norm"), "the list and the norm")
        likely = "First the list, with one tensor for each that was given, then the norm: return [g * …], norm"
        expect.kind(clipped, (list, tuple), "the clipped gradients are a list, and come first", likely=likely)
        expect.equal(len(clipped), len(gradients), why="as many tensors as were given", source="the length")
        source = "torch.nn.utils.clip_grad_norm_"
        for number, (mine, g) in enumerate(zip(clipped, gradients, strict=True), 1):
            _like(mine, g, f"g{number}")
        flat = np.concatenate([array(mine).ravel() for mine in clipped])
        expected = torch.cat([leaf.grad.ravel() for leaf in leaves])
        whole = np.concatenate([array(g).ravel() for g in gradients])
        likely = f"Nothing is clipped, though the norm {float(norm):.3g} is above {max_norm}: min, c/n, and which way the comparison goes?"
        likely = likely if float(norm) > max_norm and np.allclose(flat, whole) else ""
        expect.close(given, norm.detach(), why=f"{why}: the norm before clipping", source=source)
        expect.close(flat, expected, why=f"{why}: all tensors in a row", source=source, rtol=1e-5, likely=likely)

    gradients = [k * _tensor(rng.normal(size=shape)) for k, shape in ((1, (3, 4)), (4, (5,)), (0.7, (2, 1, 3)))]
    demand(gradients, 1.7, "three tensors, too long")
    demand(gradients, 100.0, "short enough: nothing changes")
    demand([_tensor([3.0]), _tensor([0.0, 4.0])], 2.0, "the example above")
    for length in (0.99, 1.01):
        demand([_tensor([0.6 * length]), _tensor([0.0, 0.8 * length])], 1.0, f"a norm of {length}, at most 1")
    demand([0.2 * _tensor(rng.normal(size=(4,))), 9 * _tensor(rng.normal(size=(3,)))], 2.0, "a short and a long tensor")
    several = {f"g{k}": floats(*axes, tensor=True) for k, axes in enumerate((("n", "m"), ("k",), ()), 1)}
    without = {"zeros": "all of them are zeros below", "far": "a shift means nothing to a norm"}
    for case in cases(rng, **several, without={**without, "apart": "the norm is one for all entries"}):
        demand(list(case.inputs), 0.7, f"three tensors{case}")
    clipped, norm = expect.parts(learner([_tensor([0.0, 0.0])], 1.0), ("gradients", "norm"), "the list and the norm")
    expect.equal(len(clipped), 1, why="as many tensors as were given, zeros too", source="the length")
    (zero,) = clipped
    likely = "0/0 is NaN: divide only where the norm is larger than max_norm."
    expect.close(zero, [0.0, 0.0], why="gradients of zeros stay zeros", source="by hand", likely=likely)
    expect.close(norm, 0.0, why="the norm of zeros", source="by hand")


# ------------------------------------------------------------------------------------------------ suggest_rate


def _running_means(losses, beta, t=0, corrected=True):
    """Running means from 0, divided by 1 - β^(t + 1), 1 - β^(t + 2), …"""
    mean, result = 0.0, []
    for loss in losses:
        mean, t = beta * mean + (1 - beta) * loss, t + 1
        result.append((mean / (1 - beta**t) if t else math.inf) if corrected else mean)
    return result


def _from_first(losses, beta):
    means = [losses[0]]
    for loss in losses[1:]:
        means.append(beta * means[-1] + (1 - beta) * loss)
    return means


def _fed_back(losses, beta):
    mean, result = 0.0, []
    for t, loss in enumerate(losses, 1):
        mean = (beta * mean + (1 - beta) * loss) / (1 - beta**t)
        result.append(mean)
    return result


def _up_to_first_bad(losses):
    return list(np.isfinite(losses)).index(False) if not np.isfinite(losses).all() else len(losses)


@parts
def _suggested(
    rates,
    losses,
    beta=0.9,
    backoff=3.0,
    *,
    end=_up_to_first_bad,
    smooth=_running_means,
    pick=np.argmin,
    rate=lambda rates, k: rates[k],
    back=lambda low, backoff, lowest: low / backoff,
):
    losses = np.asarray(losses)
    rates = np.asarray(rates)
    return back(rate(rates, int(pick(smooth(losses[: end(losses)], beta)))), backoff, rates[0])


@exercise(
    hints=[
        "Three steps: cut the losses at the first that is not finite, smooth, find the lowest.",
        "Running mean: mean = beta * mean + (1 - beta) * loss; the corrected one is mean / (1 - beta**t), t from 1.",
        "bad = np.flatnonzero(~np.isfinite(losses)) tells where to cut; at the end: return rates[np.argmin(curve)] / backoff",
    ],
    mistakes=_suggested.mistakes(
        end={
            "argmax of a mask in which nothing is True is 0, so that a run without an accident is cut to nothing: ask first.": (
                lambda losses: int(np.argmax(~np.isfinite(losses)))
            ),
            "The last loss before the cut, or before the end, is left out: cut at the first that is not finite, no earlier.": (
                lambda losses: _up_to_first_bad(losses) - 1
            ),
            "The last finite loss is left out: cut at the first that is not finite, no earlier.": (
                lambda losses: len(losses) if np.isfinite(losses).all() else _up_to_first_bad(losses) - 1
            ),
        },
        smooth={
            "The correction is one step behind: the first loss has t = 1, for 1 - β⁰ = 0.": (
                lambda losses, beta: _running_means(losses, beta, -1)
            ),
            "The correction is one step ahead: the first loss has t = 1.": (
                lambda losses, beta: _running_means(losses, beta, 1)
            ),
            "The mean begins with the first loss, which then weighs too much: begin with 0 and divide by 1 - βᵗ.": _from_first,
            "The corrected mean goes into the next step. Keep m uncorrected; m / (1 - βᵗ) is for the curve only.": _fed_back,
            "One lucky batch decides: the losses are not smoothed, or hardly. Are β and 1 - β swapped?": (
                lambda losses, beta: losses
            ),
            "The running mean begins at zero and is not corrected: the first points look lowest. Divide by 1 - βᵗ.": (
                lambda losses, beta: _running_means(losses, beta, corrected=False)
            ),
            "It is another mean than the one asked for: m = βm + (1 - β)·loss, divided by 1 - βᵗ.": (
                lambda losses, beta: np.convolve(losses, np.ones(10) / 10, "same")
            ),
        },
        pick={
            "It takes the highest loss, or the end of the run; where the smoothed curve is lowest is asked for.": np.argmax,
            "It takes the steepest point; where the smoothed curve is lowest is asked for.": (
                lambda curve: np.argmin(np.diff(curve))
            ),
        },
        rate={
            "It divides a position, the index of the lowest loss. The rate there is asked for: rates[…] / backoff.": (
                lambda rates, k: k
            ),
        },
        back={
            "The rate of the lowest loss is at the edge already: divide it by backoff.": lambda low, backoff, lowest: (
                low
            ),
            "It stays at the lowest rate that was tried, at least. That one is divided by backoff too.": (
                lambda low, backoff, lowest: max(low / backoff, lowest)
            ),
            "It goes further out, beyond the edge: divide by backoff.": lambda low, backoff, lowest: low * backoff,
        },
        together={
            "It returns a position, the index of the lowest loss. The rate there is asked for: rates[…] / backoff.": {
                "rate": lambda rates, k: k,
                "back": lambda low, backoff, lowest: low,
            },
        },
    ),
)
def suggest_rate(learner, rng):
    def by_definition(rates, losses, beta, backoff):
        """Weighted means, written out: the weight of loss i at t is β^(t-i)."""
        losses = losses[: _up_to_first_bad(losses)]
        means = [np.average(losses[: t + 1], weights=beta ** np.arange(t, -1.0, -1)) for t in range(len(losses))]
        return rates[means.index(min(means))] / backoff

    def demand(losses, why, beta=0.8, backoff=5.0, likely=""):
        rates = np.geomspace(1e-4, 1, len(losses))
        expected = by_definition(rates, losses, beta, backoff)
        given = learner(rates, losses, beta, backoff)
        expect.close(given, expected, why=why, source="weighted means, written out", likely=likely)

    x = np.linspace(0, 1, 60)
    valley = 2.3 - 1.5 * np.exp(-(((x - 0.6) / 0.15) ** 2)) + 4 * np.maximum(0, x - 0.8)
    noisy = valley + 0.05 * rng.normal(size=60)
    noisy[25] = 0.2  # a lucky batch, far from the valley
    demand(noisy, "a noisy curve with one lucky batch")
    likely = "After NaN or infinity the run is over, whatever comes later: cut the losses there."
    for value in (math.nan, math.inf, -math.inf):
        over = noisy.copy()
        over[25] = 2.0
        over[44], over[45:] = value, 0.0  # long enough that a large number in place of NaN fades, too
        demand(over, f"a run that ends in {value}; what comes after does not count", beta=0.5, likely=likely)
    # every slip in the correction picks another step of these seven
    demand(np.array([2.7, 1.4, 1.8, 1.9, 2.0, 2.1, 2.2]), "seven steps", beta=0.6, backoff=2.0)
    demand(np.array([2.0, 2.1, 2.3, 3.0]), "four steps that only rise", beta=0.55, backoff=2.3)
    demand(np.array([3.0, 2.0, 1.5, 1.2]), "four steps that only fall", beta=0.55, backoff=2.3)
    demand(np.array([3.0, 2.0, 1.5, math.nan]), "three steps that fall, then nan", beta=0.55, backoff=2.3)
    demand(np.array([-3.0, -2.0, -4.0, -1.0, -1.5]), "losses below zero", beta=0.55, backoff=2.5)
    demand(np.array([900.0, 700, 500, 450, 800]), "losses in the hundreds", beta=0.45, backoff=2.5)
    demand(np.linspace(5, 1, 20), "twenty steps that only fall", beta=0.45, backoff=2.5)
    demand(
        np.concatenate([[2.0, 0.5], np.linspace(1, 4, 18)]), "twenty steps, lowest in the second", beta=0.3, backoff=2.5
    )
    demand(np.array([9, 4, 2, 3, 8]), "losses that are whole numbers", beta=0.45, backoff=2.5)
