"""The checks of optimization-sgd-adam: one for each exercise, with its hints. `lab.check` runs them.

The steps are held to torch.optim over 50 steps, in double precision, with a learning rate that changes on the way.
"""

import math
import warnings

import numpy as np

from atlas.checking import array, exercise, expect

STEPS = 50


def _tensor(values):
    import torch

    return torch.tensor(values, dtype=torch.float64)


def _follow(learner, rng, first, make, parts, source, **settings):
    """Walk beside an optimiser of torch for 50 steps and compare the weights after each.

    first(w) is the state before the first step, make(parameters) torch's optimiser, parts(given) what returns, taken
    apart: weights and state. The tolerance is that of expect.close, for βᵗ with a tensor t has single precision.
    """
    import torch

    A, target = _tensor(rng.normal(size=(7, 3))), _tensor(rng.normal(size=(7, 5)))
    w = _tensor(rng.normal(size=(3, 5)))
    theirs = torch.nn.Parameter(w.clone())
    optimizer = make([theirs])
    state = first(w)
    for begin, end in ((1, 5), (6, 20), (21, STEPS)):
        yours, expected = [], []
        for _ in range(begin, end + 1):
            eta = 0.05 if begin < 21 else 0.02  # a schedule: what is multiplied by η, and when, shows
            g = A.T @ (A @ theirs.detach() - target) / 7 + _tensor(rng.normal(size=(3, 5))) / 3
            optimizer.param_groups[0]["lr"] = eta
            theirs.grad = g.clone()
            optimizer.step()
            w, state = parts(learner(w, g, state, eta, **settings))
            expect.shape(w, (3, 5), "the new weights have the shape of w")
            expect.kind(w, torch.Tensor, "the new weights are a tensor, as w is")
            yours.append(array(w).copy())
            expected.append(theirs.detach().numpy().copy())
        why = f"the same weights as PyTorch's in steps {begin} to {end}" + (", with another η" if begin == 21 else "")
        likely = "It was right until η changed: is η in the state, or is there a fixed one?" if begin == 21 else ""
        if begin == 1 and np.allclose(yours[0], expected[0]):
            likely = "The first step is right, a later one is not: what does the state keep, and how much of it?"
        expect.close(np.stack(yours), np.stack(expected), why=why, source=source, likely=likely)


def _pair(*names):
    """Takes apart what a step returns, in two parts of these names."""
    return lambda given: expect.parts(given, names, "the step returns weights and state")


# ------------------------------------------------------------------------------------------------ momentum_step


def _momentum(kept=lambda mu: mu, taken=lambda mu: 1, look=None, sign=1):
    """A momentum step: the velocity keeps kept(μ) and takes taken(μ)·g; look(g, v, old, μ) is the way for Nesterov."""

    def step(w, g, v, eta, mu=0.9, nesterov=False):
        new = kept(mu) * v + taken(mu) * g
        way = (look or (lambda g, new, old, mu: g + mu * new))(g, new, v, mu) if nesterov else new
        return w - sign * eta * way, new

    return step


def _slip(function, name, words):
    """`function` as a named mistake."""
    function.__name__, function.__doc__ = name, words
    return function


def eta_in_velocity(w, g, v, eta, mu=0.9, nesterov=False):
    """Here η is inside the velocity. PyTorch keeps it outside: v = μv + g, then w - ηv. With a changing η that differs."""
    v = mu * v + eta * g
    return w - (eta * g + mu * v if nesterov else v), v


def steps_along_old(w, g, v, eta, mu=0.9, nesterov=False):
    """The step uses the old velocity. First the new one, v = μv + g, then the step along it."""
    return w - eta * (g + mu * v if nesterov else v), mu * v + g


def nesterov_reversed(w, g, v, eta, mu=0.9, nesterov=False):
    """It looks ahead where it should not: g + μv is the way for nesterov=True only; plain goes along v."""
    v = mu * v + g
    return w - eta * (v if nesterov else g + mu * v), v


def velocity_not_carried(w, g, v, eta, mu=0.9, nesterov=False):
    """The velocity does not add up: the new one is v = μv + g, and this new one is returned."""
    new = mu * v + g
    return w - eta * (g + mu * new if nesterov else new), v


def lookahead_returned(w, g, v, eta, mu=0.9, nesterov=False):
    """The look-ahead g + μv is kept as the velocity. It is for this step only: return v = μv + g."""
    v = mu * v + g
    v = g + mu * v if nesterov else v
    return w - eta * v, v


def velocity_first(w, g, v, eta, mu=0.9, nesterov=False):
    """Weights and velocity come back in the wrong order: return w, v."""
    return _momentum()(w, g, v, eta, mu, nesterov)[::-1]


def mu_by_hand(w, g, v, eta, mu=0.9, nesterov=False):
    """mu is an argument; this takes 0.9 whatever it is."""
    return _momentum()(w, g, v, eta, 0.9, nesterov)


MOMENTUM_MISTAKES = [
    velocity_first,
    mu_by_hand,
    eta_in_velocity,
    steps_along_old,
    nesterov_reversed,
    velocity_not_carried,
    lookahead_returned,
    _slip(
        _momentum(taken=lambda mu: 1 - mu),
        "dampened",
        "The gradient is damped by 1 - μ, as in a mean. Here it counts in full: v = μv + g.",
    ),
    _slip(
        _momentum(kept=lambda mu: 1 - mu, taken=lambda mu: mu),
        "swapped",
        "μ and 1 - μ: the velocity keeps μ of itself, and g is added in full.",
    ),
    _slip(
        _momentum(kept=lambda mu: 1),
        "keeps_all",
        "The velocity keeps all of itself, for ever. It keeps μ of it: v = μv + g.",
    ),
    _slip(_momentum(sign=-1), "uphill", "It walks uphill: the step is subtracted, w - ηv."),
    _slip(
        _momentum(look=lambda g, new, old, mu: new),
        "no_nesterov",
        "nesterov=True changes nothing: its way is g + μv with the new v (g + μ times the old v is just the new one).",
    ),
    _slip(
        _momentum(look=lambda g, new, old, mu: g + new),
        "undamped_lookahead",
        "The look-ahead lacks μ: g + μv, with the new v.",
    ),
    _slip(
        _momentum(look=lambda g, new, old, mu: new + mu * new),
        "both",
        "The look-ahead adds μv to v; it is g + μv, with g once and the new v.",
    ),
]


@exercise(
    hints=[
        "Two lines: first the velocity, then the weights. Which of both lines does η belong to?",
        "v = mu * v + g makes a new tensor. For Nesterov the step goes along g + mu * v, with this new v.",
        "v = mu * v + g, then: return w - eta * (g + mu * v if nesterov else v), v",
    ],
    mistakes=MOMENTUM_MISTAKES,
    seconds=60,  # the first use of torch.optim imports for seconds
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
    w, v = expect.parts(
        learner(_tensor([1.0]), _tensor([2.0]), _tensor([3.0]), 0.1, 0.5), ("w", "v"), "weights and velocity"
    )
    expect.close(w, [0.65], why="the example above, plain: w", source="by hand")
    expect.close(v, [3.5], why="the example above, plain: v", source="by hand")
    w, v = expect.parts(
        learner(_tensor([1.0]), _tensor([2.0]), _tensor([3.0]), 0.1, 0.5, nesterov=True),
        ("w", "v"),
        "weights and velocity",
    )
    expect.close(w, [0.625], why="the example above, Nesterov: w", source="by hand")
    expect.close(v, [3.5], why="the example above, Nesterov: v", source="by hand")


# ------------------------------------------------------------------------------------------------ rmsprop_step


def _rmsprop(mean=lambda s, g, a: a * s + (1 - a) * g**2, divide=lambda g, s, old, eps: g / (s.sqrt() + eps), sign=1):
    def step(w, g, s, eta, alpha=0.99, eps=1e-8):
        new = mean(s, g, alpha)
        return w - sign * eta * divide(g, new, s, eps), new

    return step


def squares_not_carried(w, g, s, eta, alpha=0.99, eps=1e-8):
    """The mean of squares that comes back is the one that was given. Return the new one."""
    return w - eta * g / ((alpha * s + (1 - alpha) * g**2).sqrt() + eps), s


def returns_root(w, g, s, eta, alpha=0.99, eps=1e-8):
    """The root is returned as state. Keep the mean of squares itself; the root is for this step."""
    root = (alpha * s + (1 - alpha) * g**2).sqrt()
    return w - eta * g / (root + eps), root


def eps_to_weights(w, g, s, eta, alpha=0.99, eps=1e-8):
    """ε is added at the end; a bracket is missing: η·g / (√s + ε)."""
    s = alpha * s + (1 - alpha) * g**2
    return w - eta * g / s.sqrt() + eps, s


def squares_first(w, g, s, eta, alpha=0.99, eps=1e-8):
    """Weights and mean of squares come back in the wrong order: return w, s."""
    return _rmsprop()(w, g, s, eta, alpha, eps)[::-1]


def alpha_by_hand(w, g, s, eta, alpha=0.99, eps=1e-8):
    """alpha is an argument; this takes 0.99 whatever it is."""
    return _rmsprop()(w, g, s, eta, 0.99, eps)


def eps_by_hand(w, g, s, eta, alpha=0.99, eps=1e-8):
    """eps is an argument; this takes 1e-8 whatever it is."""
    return _rmsprop()(w, g, s, eta, alpha)


RMSPROP_MISTAKES = [
    squares_first,
    alpha_by_hand,
    eps_by_hand,
    _slip(
        _rmsprop(divide=lambda g, s, old, eps: g * (s.sqrt() + eps)),
        "multiplied",
        "It multiplies by √s + ε. It divides: a coordinate with large gradients gets a small step.",
    ),
    eps_to_weights,
    squares_not_carried,
    returns_root,
    _slip(
        _rmsprop(divide=lambda g, s, old, eps: g / (s + eps).sqrt()),
        "eps_inside",
        "ε is inside the root. It stands outside: √s + ε.",
    ),
    _slip(_rmsprop(divide=lambda g, s, old, eps: g / s.sqrt()), "no_eps", "ε is missing: divide by √s + ε."),
    _slip(
        _rmsprop(divide=lambda g, s, old, eps: g / (s + eps)),
        "no_root",
        "The root is missing: divide by √s + ε, which is as large as a gradient.",
    ),
    _slip(
        _rmsprop(divide=lambda g, s, old, eps: g / (old.sqrt() + eps)),
        "old_mean",
        "It divides by the old mean of squares. First the new s, then the step.",
    ),
    _slip(
        _rmsprop(mean=lambda s, g, a: (1 - a) * s + a * g**2),
        "swapped",
        "α and 1 - α are swapped: s keeps α of itself.",
    ),
    _slip(
        _rmsprop(mean=lambda s, g, a: s + g**2),
        "adagrad",
        "The squares add up for ever: that is AdaGrad. s = αs + (1 - α)g².",
    ),
    _slip(
        _rmsprop(mean=lambda s, g, a: a * s + g**2),
        "undamped",
        "g² lacks its factor 1 - α: s would grow to a multiple of the mean.",
    ),
    _slip(_rmsprop(mean=lambda s, g, a: a * s + (1 - a) * g.abs()), "absolute", "It averages |g|, not g²."),
    _slip(
        _rmsprop(mean=lambda s, g, a: a * s + (1 - a) * (g**2).mean() + 0 * g),
        "one_for_all",
        "It averages g² over the entries: each entry keeps its own s.",
    ),
    _slip(
        _rmsprop(mean=lambda s, g, a: a * s + (1 - a) * (g**2).sum() + 0 * g),
        "norm_for_all",
        "It uses the squared norm of g for all: each entry keeps its own s.",
    ),
    _slip(_rmsprop(sign=-1), "uphill", "It walks uphill: the step is subtracted."),
]


@exercise(
    hints=[
        "Two lines: the running mean of g², then the step. Everything is entry by entry.",
        "s = alpha * s + (1 - alpha) * g**2. Take the root of s first, then add eps.",
        "After the line for s: return w - eta * g / (s.sqrt() + eps), s",
    ],
    mistakes=RMSPROP_MISTAKES,
    seconds=60,  # the first use of torch.optim imports for seconds
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


# ------------------------------------------------------------------------------------------------ adam_step


def _adam(
    count=lambda t: t + 1,
    power=lambda t: t,
    first=lambda m, g, b: b * m + (1 - b) * g,
    second=lambda v, g, b: b * v + (1 - b) * g**2,
    correct=lambda m, v, c1, c2: (m / c1, v / c2),
    divide=lambda m, v, eps, c2: m / (v.sqrt() + eps),
    keep=lambda m, v, m_hat, v_hat: (m, v),
    bias=lambda b, t: 1 - b**t,
    sign=1,
):
    """An Adam step of which each part can be exchanged for a mistake."""

    def step(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
        m, v, t = state
        t = count(t)
        m, v = first(m, g, beta1), second(v, g, beta2)
        c1, c2 = bias(beta1, power(t)), bias(beta2, power(t))
        m_hat, v_hat = correct(m, v, c1, c2)
        return w - sign * eta * divide(m_hat, v_hat, eps, c2), (*keep(m, v, m_hat, v_hat), t)

    return step


def betas_swapped(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """β₁ and β₂ are swapped: β₁ belongs to m, the mean of gradients, β₂ to v, the mean of squares."""
    return _adam()(w, g, state, eta, beta2, beta1, eps)


def state_not_carried(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """m and v come back as they were given, so that every step is like the first. Return the new ones."""
    new, _ = _adam()(w, g, state, eta, beta1, beta2, eps)
    return new, (*state[:2], state[2] + 1)


def state_first(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """Weights and state come back in the wrong order: return w, (m, v, t)."""
    return _adam()(w, g, state, eta, beta1, beta2, eps)[::-1]


def settings_by_hand(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """beta1 and beta2 are arguments; this takes their defaults whatever they are."""
    return _adam()(w, g, state, eta, eps=eps)


def all_settings_by_hand(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """beta1, beta2 and eps are arguments; this takes their defaults whatever they are."""
    return _adam()(w, g, state, eta)


def one_beta(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """β₁ stands in place of β₂ in v and in its correction."""
    return _adam()(w, g, state, eta, beta1, beta1, eps)


def corrected_by_one_beta(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """v is corrected with β₁. The mean of squares has β₂: v / (1 - β₂ᵗ)."""
    m, v, t = state
    m, v, t = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2, t + 1
    return w - eta * (m / (1 - beta1**t)) / ((v / (1 - beta1**t)).sqrt() + eps), (m, v, t)


ADAM_MISTAKES = [
    state_first,
    settings_by_hand,
    all_settings_by_hand,
    one_beta,
    corrected_by_one_beta,
    _slip(
        _adam(correct=lambda m, v, c1, c2: (m - (1 - c1), v - (1 - c2))),
        "correction_without_bracket",
        "A bracket is missing: m / (1 - beta1**t) needs one around 1 - beta1**t.",
    ),
    _slip(
        _adam(keep=lambda m, v, mh, vh: (v, m)),
        "means_in_wrong_order",
        "The two means in the state are swapped: return (m, v, t).",
    ),
    _slip(
        _adam(second=lambda v, g, b: b * v + (1 - b) * (g**2).mean()),
        "one_for_all",
        "It averages g² over the entries: each entry keeps its own v.",
    ),
    _slip(
        _adam(bias=lambda b, t: (1 - b) ** t),
        "power_of_the_difference",
        "It is 1 - βᵗ, not (1 - β)ᵗ: the power belongs to β alone.",
    ),
    betas_swapped,
    state_not_carried,
    _slip(
        _adam(correct=lambda m, v, c1, c2: (m, v)),
        "no_correction",
        "The bias correction is missing: m and v begin at zero and are too small at first. Divide by 1 - β₁ᵗ and 1 - β₂ᵗ.",
    ),
    _slip(
        _adam(correct=lambda m, v, c1, c2: (m / c1, v)), "only_m", "Only m is corrected: v needs it too, v / (1 - β₂ᵗ)."
    ),
    _slip(
        _adam(correct=lambda m, v, c1, c2: (m, v / c2)), "only_v", "Only v is corrected: m needs it too, m / (1 - β₁ᵗ)."
    ),
    _slip(
        _adam(correct=lambda m, v, c1, c2: (m * c1, v * c2)),
        "multiplied",
        "The correction multiplies by 1 - βᵗ. It divides: m was too small.",
    ),
    _slip(
        _adam(power=lambda t: t - 1),
        "count_too_late",
        "The correction is one step behind: in the first step t is 1, not 0 (1 - β⁰ = 0). Count before you correct.",
    ),
    _slip(
        _adam(power=lambda t: t + 1),
        "count_twice",
        "The correction is one step ahead: in the first step t is 1. Is the step counted twice?",
    ),
    _slip(
        _adam(count=lambda t: t + 2),
        "count_by_two",
        "The correction is one step ahead: in the first step t is 1. Is the step counted twice?",
    ),
    _slip(
        _adam(count=lambda t: t, power=lambda t: 1 if t == 0 else t),
        "never_counted",
        "The correction is the same in every step: it is 1 - βᵗ, a power, and t in the returned state is one more than before.",
    ),
    _slip(
        _adam(count=lambda t: t, power=lambda t: t + 1),
        "count_not_returned",
        "The correction is the same in every step: it is 1 - βᵗ, a power, and t in the returned state is one more than before.",
    ),
    _slip(
        _adam(bias=lambda b, t: 1 - b * t), "times_not_power", "β is multiplied by t; it is β to the power t, beta1**t."
    ),
    _slip(
        _adam(divide=lambda m, v, eps, c2: m / (v + eps).sqrt()),
        "eps_inside",
        "ε is inside the root. It stands outside: √v̂ + ε.",
    ),
    _slip(
        _adam(divide=lambda m, v, eps, c2: m / (v.sqrt() + eps / math.sqrt(c2))),
        "eps_before_correction",
        "ε is added before v is corrected, and gets corrected with it. First v̂, its root, then ε.",
    ),
    _slip(
        _adam(divide=lambda m, v, eps, c2: m / v.sqrt()),
        "no_eps",
        "ε is missing, or fixed at 1e-8: divide by √v̂ + ε, with the argument eps.",
    ),
    _slip(
        _adam(divide=lambda m, v, eps, c2: m / v.sqrt() + eps),
        "eps_added",
        "ε is added to the fraction; a bracket is missing: m̂ / (√v̂ + ε).",
    ),
    _slip(_adam(divide=lambda m, v, eps, c2: m / (v + eps)), "no_root", "The root is missing: divide by √v̂ + ε."),
    _slip(
        _adam(divide=lambda m, v, eps, c2: m / ((v * c2).sqrt() / c2 + eps)),
        "corrected_after_root",
        "The root is taken before the correction. First v̂ = v / (1 - β₂ᵗ), then its root.",
    ),
    _slip(
        _adam(keep=lambda m, v, mh, vh: (mh, vh)),
        "keeps_corrected",
        "The corrected m̂ and v̂ are kept as state. They serve this step only: return m and v.",
    ),
    _slip(_adam(second=lambda v, g, b: b * v + (1 - b) * g), "not_squared", "v is a mean of squares: g**2, not g."),
    _slip(
        _adam(first=lambda m, g, b: g * (1 - b)),
        "m_from_g_alone",
        "The old m has no part in the new one: m = β₁m + (1 - β₁)g.",
    ),
    _slip(
        _adam(first=lambda m, g, b: b * m + g),
        "m_undamped",
        "g lacks its factor 1 - β₁ in m: it is a mean here, not a velocity.",
    ),
    _slip(_adam(second=lambda v, g, b: b * v + g**2), "v_undamped", "g² lacks its factor 1 - β₂ in v."),
    _slip(
        _adam(first=lambda m, g, b: (1 - b) * m + b * g, second=lambda v, g, b: (1 - b) * v + b * g**2),
        "weights_of_means_swapped",
        "β and 1 - β are swapped: a running mean keeps β of itself.",
    ),
    _slip(_adam(sign=-1), "uphill", "It walks uphill: the step is subtracted."),
]


def _from_gradient(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """The step goes along g; it goes along m̂, the mean of the gradients."""
    m, v, t = state
    t, m, v = t + 1, beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    return w - eta * g / ((v / (1 - beta2**t)).sqrt() + eps), (m, v, t)


def _squared_mean(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    """v averages the squares of m. It averages the squares of the gradient, g**2."""
    m, v, t = state
    t, m = t + 1, beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * m**2
    return w - eta * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps), (m, v, t)


ADAM_MISTAKES += [_from_gradient, _squared_mean]


def _state(given):
    """Weights and the three parts of the state."""
    w, state = expect.parts(given, ("w", "state"), "the step returns the weights and the state")
    return w, expect.parts(state, ("m", "v", "t"), "the state has three parts")


def _state_and_shapes(given):
    """Weights and state, of which m and v have the shape of w, and t is a number."""
    w, (m, v, t) = _state(given)
    likely = "The state is (m, v, t), in this order: two tensors like w, and a number."
    for name, part, shape in (("m", m, (3, 5)), ("v", v, (3, 5)), ("t", t, ())):
        expect.shape(part, shape, f"{name} in the state has its shape", likely=likely)
    return w, (m, v, t)


def _nothing_yet(w):
    return 0 * w, 0 * w, 0


@exercise(
    hints=[
        "Take the state apart, m, v, t = state, and count first: the first step has t = 1.",
        "m_hat = m / (1 - beta1**t), v_hat likewise. Return m and v, not m_hat and v_hat. ε is outside the root.",
        "After t = t + 1, m = beta1 * m + (1 - beta1) * g and the same for v: w - eta * m_hat / (v_hat.sqrt() + eps), (m, v, t)",
    ],
    mistakes=ADAM_MISTAKES,
    seconds=60,  # the first use of torch.optim imports for seconds
)
def adam_step(learner, rng):
    import torch

    _follow(
        learner,
        rng,
        _nothing_yet,
        lambda p: torch.optim.Adam(p, lr=1, betas=(0.8, 0.9), eps=0.1),
        _state_and_shapes,
        "torch.optim.Adam, betas 0.8 and 0.9, eps 0.1",
        beta1=0.8,
        beta2=0.9,
        eps=0.1,
    )
    zero = _tensor([0.0])
    w, (m, v, t) = _state(learner(_tensor([1.0]), _tensor([2.0]), (zero, zero, 0), 0.1, 0.9, 0.99, 0.5))
    expect.close(
        w, [1 - 0.2 / 2.5], why="the example above, but with ε = 0.5: w", source="by hand, 1 - 0.1·2/(2 + 0.5)"
    )
    expect.close(m, [0.2], why="the example above: m is returned uncorrected", source="by hand")
    expect.close(v, [0.04], why="the example above: v is returned uncorrected", source="by hand")
    expect.equal(t, 1, why="one step has been taken", source="counting")


# ------------------------------------------------------------------------------------------------ adamw_step


def _decay(after=lambda w, new, eta, lam, state: new - eta * lam * w, before=lambda g, w, lam, eta: g):
    """An AdamW step: `before` may change the gradient, `after` the new weights."""

    def step(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
        new, state = _adam()(w, before(g, w, lam, eta), state, eta, beta1, beta2, eps)
        return after(w, new, eta, lam, state), state

    return step


def adaptive_decay(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    """The decay is divided by √v̂ + ε with the rest: it has to stand apart, ηλw, the same for all weights."""
    new, (m, v, t) = _adam()(w, g, state, eta, beta1, beta2, eps)
    return new - eta * lam * w / ((v / (1 - beta2**t)).sqrt() + eps), (m, v, t)


def default_settings(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    """β₁, β₂ and ε are not passed on: adam_step then takes its defaults."""
    new, state = _adam()(w, g, state, eta)
    return new - eta * lam * w, state


def old_state_returned(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    """The state that comes back is the one that was given. Return the one from adam_step."""
    new, _ = _adam()(w, g, state, eta, beta1, beta2, eps)
    return new - eta * lam * w, state


def default_eps(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    """ε is not passed on: adam_step then takes its default."""
    new, state = _adam()(w, g, state, eta, beta1, beta2)
    return new - eta * lam * w, state


def lam_by_hand(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    """lam is an argument; this takes 0.01 whatever it is."""
    return _decay()(w, g, state, eta, beta1, beta2, eps, 0.01)


def betas_passed_swapped(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    """β₁ and β₂ reach adam_step in the wrong order."""
    return _decay()(w, g, state, eta, beta2, beta1, eps, lam)


_KEPT = (lambda w, new, eta, lam, state: new,)
ADAMW_MISTAKES = [
    adaptive_decay,
    default_settings,
    default_eps,
    lam_by_hand,
    betas_passed_swapped,
    old_state_returned,
    _slip(
        _decay(lambda w, new, eta, lam, state: new - eta * eta * lam * w),
        "eta_twice",
        "η stands twice in the decay: subtract ηλw.",
    ),
    _slip(
        _decay(_KEPT[0], lambda g, w, lam, eta: g - lam * w),
        "coupled_and_growing",
        "The decay goes through the gradient, and the wrong way. Keep g pure, and subtract ηλw besides.",
    ),
    _slip(
        _decay(_KEPT[0], lambda g, w, lam, eta: g + lam * w),
        "coupled",
        "The decay goes through the gradient, into m and v: that is Adam with L2. Keep g pure, and subtract ηλw besides.",
    ),
    _slip(
        _decay(before=lambda g, w, lam, eta: g + lam * w),
        "twice",
        "It decays twice: through the gradient and besides. Keep g pure.",
    ),
    _slip(_decay(_KEPT[0]), "no_decay", "There is no decay in it: subtract ηλw."),
    _slip(
        _decay(lambda w, new, eta, lam, state: new - lam * w), "without_eta", "The decay lacks η: a step subtracts ηλw."
    ),
    _slip(
        _decay(lambda w, new, eta, lam, state: new - eta * lam * new),
        "decays_the_new",
        "It decays the new weights. The decay is ηλ times the old w, the one that was given.",
    ),
    _slip(
        _decay(lambda w, new, eta, lam, state: new + eta * lam * w),
        "grows",
        "The weights grow: the decay is subtracted.",
    ),
    _slip(
        _decay(lambda w, new, eta, lam, state: new - eta * lam * w.sign()),
        "constant_pull",
        "The pull has the same size for all weights, as with an L1 penalty. It is in proportion: ηλw.",
    ),
    _slip(
        _decay(lambda w, new, eta, lam, state: new - eta * lam * w**2),
        "squared",
        "The decay is ηλw, not ηλw²: the gradient of ½λw² is λw.",
    ),
    _slip(
        _decay(lambda w, new, eta, lam, state: new - 2 * eta * lam * w),
        "doubled",
        "The decay is twice too large: with ½ in ½λw², the gradient is λw.",
    ),
    _slip(
        _decay(lambda w, new, eta, lam, state: new * (1 - lam)),
        "shrinks_by_lam",
        "The decay lacks η, and it is for the old w: subtract ηλw.",
    ),
    _slip(_decay(lambda w, new, eta, lam, state: new - eta * lam), "not_times_w", "The decay lacks w: subtract ηλw."),
]


@exercise(
    hints=[
        "adam_step does all but the decay. What do you give it as gradient?",
        "stepped, state = adam_step(w, g, state, eta, beta1, beta2, eps): g as it is. The decay ηλw is about the old w.",
        "Then: return stepped - eta * lam * w, state",
    ],
    mistakes=ADAMW_MISTAKES,
    seconds=60,  # the first use of torch.optim imports for seconds
)
def adamw_step(learner, rng):
    import torch

    _follow(
        learner,
        rng,
        _nothing_yet,
        lambda p: torch.optim.AdamW(p, lr=1, betas=(0.8, 0.9), eps=0.1, weight_decay=0.3),
        _state_and_shapes,
        "torch.optim.AdamW, betas 0.8 and 0.9, eps 0.1, weight_decay 0.3",
        beta1=0.8,
        beta2=0.9,
        eps=0.1,
        lam=0.3,
    )
    zero = _tensor([0.0])
    w, _ = _state(learner(_tensor([1.0]), _tensor([2.0]), (zero, zero, 0), 0.1, 0.9, 0.99, 0.0, 0.5))
    expect.close(w, [0.85], why="the example above", source="by hand")


# ------------------------------------------------------------------------------------------------ gradient_noise


def not_a_root(G, B):
    """It is the mean squared distance: take the root, so that it is a length."""
    return G.var(0).sum() / B


def divided_by_n(G, B):
    """The variance divides by N; from a sample it is N - 1 (correction=1 in torch, ddof=1 in NumPy)."""
    return (G.var(0, correction=0).sum() / B).sqrt()


def deviations_not_squared(G, B):
    """It adds up standard deviations. Variances add up, standard deviations do not."""
    return G.std(0).sum() / B**0.5


def root_of_b_missing(G, B):
    """It divides by B outside the root. A mean of B has the variance σ²/B, so the length falls with √B."""
    return G.var(0).sum().sqrt() / B


def b_forgotten(G, B):
    """B has no part in it: a mean of B examples has the variance σ²/B."""
    return G.var(0).sum().sqrt()


def mean_not_subtracted(G, B):
    """It takes the squares of the gradients themselves. Noise is the distance from their mean."""
    return ((G**2).sum() / (len(G) - 1) / B).sqrt()


def mean_over_entries(G, B):
    """It averages over the entries of the gradient. A squared length adds them up."""
    return (G.var(0).mean() / B).sqrt()


def over_the_entries(G, B):
    """The variance is over the entries of each gradient (axis 1). It is over the examples, axis 0."""
    return (G.var(1).sum() / B).sqrt()


def of_everything(G, B):
    """It is the variance of all numbers in G together. Each column has its own mean."""
    return (G.var() / B).sqrt()


def grows(G, B):
    """It grows with B. A larger batch has less noise: divide by B."""
    return (G.var(0).sum() * B).sqrt()


def mean_of_everything(G, B):
    """It subtracts one mean of all numbers in G. Each column has its own mean: G.mean(0)."""
    return (((G - G.mean()) ** 2).sum() / (len(G) - 1) / B).sqrt()


def over_n(G, B):
    """It divides by N where B belongs: the noise is that of a batch of B."""
    return (G.var(0).sum() / len(G)).sqrt()


def one_batch(G, B):
    """It measures one batch, the first B rows. Its expectation over all batches is asked for: the formula."""
    return (G[:B].mean(0) - G.mean(0)).norm()


def without_replacement(G, B):
    """It corrects for draws without replacement. The draws are independent here: σ²/B."""
    return (G.var(0).sum() / B * (len(G) - B) / (len(G) - 1)).sqrt()


def over_b_less_one(G, B):
    """It divides by B - 1. The 1 is taken off N, in the variance; a mean of B has 1/B of it."""
    return (G.var(0).sum() / (B - 1)).sqrt()


@exercise(
    hints=[
        "Each column of G is one entry of the gradient, over the examples: its variance comes first.",
        "G.var(0) gives the variances (torch divides by N - 1 already). They add up; a mean of B has 1/B of it.",
        "return (G.var(0).sum() / B).sqrt()",
    ],
    mistakes=[
        not_a_root,
        divided_by_n,
        deviations_not_squared,
        root_of_b_missing,
        b_forgotten,
        mean_not_subtracted,
        mean_over_entries,
        over_the_entries,
        of_everything,
        grows,
        mean_of_everything,
        over_n,
        one_batch,
        without_replacement,
        over_b_less_one,
    ],
)
def gradient_noise(learner, rng):
    G = rng.normal(size=(8, 4)) * [1, 2, 3, 0.5] + [3, -1, 0, 2]
    for B in (5, 1):
        expected = math.sqrt(np.trace(np.cov(G, rowvar=False)) / B)
        expect.close(
            learner(_tensor(G), B), expected, why=f"8 gradients of 4 entries, B = {B}", source="the trace of np.cov"
        )
    G = _tensor([[1.0, 0], [3, 0], [5, 3]])
    expect.close(learner(G, 4), math.sqrt(7) / 2, why="the example above, B = 4", source="by hand")


# ------------------------------------------------------------------------------------------------ warmup_cosine


def _schedule(rise=lambda t, W: (t + 1) / W, fall=lambda u: (1 + math.cos(math.pi * u)) / 2, u=None, put=None):
    def rate(t, steps, warmup, eta_max, eta_min=0.0):
        if t < warmup:
            return eta_max * rise(t, warmup)
        progress = (u or (lambda t, T, W: (t - W) / (T - W)))(t, steps, warmup)
        return (put or (lambda low, high, f: low + (high - low) * f))(eta_min, eta_max, fall(progress))

    return rate


def rises_from_minimum(t, steps, warmup, eta_max, eta_min=0.0):
    """The warm-up begins at η_min. It goes straight from zero: η_max·(t + 1)/W."""
    if t < warmup:
        return eta_min + (eta_max - eta_min) * (t + 1) / warmup
    return _schedule()(t, steps, warmup, eta_max, eta_min)


def no_warmup(t, steps, warmup, eta_max, eta_min=0.0):
    """There is no warm-up: for t < W the rate is η_max·(t + 1)/W."""
    return eta_min + (eta_max - eta_min) * (1 + math.cos(math.pi * max(0, t - warmup) / (steps - warmup))) / 2


def warm_one_too_long(t, steps, warmup, eta_max, eta_min=0.0):
    """The warm-up lasts one step too long, and passes η_max: it is for t < W, not t <= W."""
    if warmup and t == warmup:
        return eta_max * (t + 1) / warmup
    return _schedule()(t, steps, warmup, eta_max, eta_min)


def no_fall(t, steps, warmup, eta_max, eta_min=0.0):
    """After the warm-up the rate stays at η_max: the second case is the half-wave down to η_min."""
    return eta_max * min(1, (t + 1) / max(1, warmup))


def rise_without_bracket(t, steps, warmup, eta_max, eta_min=0.0):
    """A bracket is missing in the warm-up: eta_max * (t + 1) / warmup."""
    return eta_max * t + 1 / warmup if t < warmup else _schedule()(t, steps, warmup, eta_max, eta_min)


def rise_rounded(t, steps, warmup, eta_max, eta_min=0.0):
    """The warm-up is rounded down, by //: divide with /."""
    return eta_max * (t + 1) // warmup if t < warmup else _schedule()(t, steps, warmup, eta_max, eta_min)


def one_wave_for_both(t, steps, warmup, eta_max, eta_min=0.0):
    """The fall begins in step 0, and the warm-up is a factor on it. They are two cases: t < W, and t >= W."""
    return _schedule()(t, steps, 0, eta_max, eta_min) * min(1, (t + 1) / max(1, warmup))


WARMUP_MISTAKES = [
    warm_one_too_long,
    _slip(
        _schedule(put=lambda low, high, f: low + (high - low) + f - 0.5),
        "bracket_missing",
        "A bracket is missing: (η_max - η_min)·(1 + cos πu)/2 needs one around 1 + cos.",
    ),
    _slip(
        _schedule(u=lambda t, T, W: t - W / (T - W)),
        "fraction_without_bracket",
        "A bracket is missing: u = (t - W)/(T - W), not t - W/(T - W).",
    ),
    rises_from_minimum,
    no_warmup,
    no_fall,
    rise_without_bracket,
    rise_rounded,
    one_wave_for_both,
    _slip(
        _schedule(rise=lambda t, W: t / W),
        "begins_at_zero",
        "The first step has the rate 0 and is wasted: (t + 1)/W, not t/W.",
    ),
    _slip(
        _schedule(rise=lambda t, W: (t + 1) / (W + 1)),
        "never_there",
        "The warm-up does not reach η_max in its last step, t = W - 1: (t + 1)/W.",
    ),
    _slip(
        _schedule(u=lambda t, T, W: t / T),
        "fall_from_zero",
        "The fall is counted from step 0: u = (t - W)/(T - W), so that it begins at the top.",
    ),
    _slip(
        _schedule(u=lambda t, T, W: (t - W) / T),
        "never_down",
        "The fall takes T steps, but only T - W are left: u = (t - W)/(T - W).",
    ),
    _slip(
        _schedule(u=lambda t, T, W: (t - W) / (T - W - 1)),
        "one_too_fast",
        "The fall is over one step too early: u = (t - W)/(T - W), not T - W - 1.",
    ),
    _slip(
        _schedule(u=lambda t, T, W: (t - W + 1) / (T - W)),
        "one_ahead",
        "The fall is a step ahead: u = (t - W)/(T - W) is 0 in step t = W.",
    ),
    _slip(_schedule(fall=lambda u: 1 + math.cos(math.pi * u)), "not_halved", "1 + cos runs from 2 to 0: halve it."),
    _slip(
        _schedule(fall=lambda u: math.cos(math.pi * u / 2)),
        "quarter_wave",
        "It is a quarter of a wave; half a wave is (1 + cos πu)/2.",
    ),
    _slip(
        _schedule(fall=lambda u: math.cos(math.pi * u)),
        "below_zero",
        "cos alone runs down to -1: (1 + cos πu)/2 runs from 1 to 0.",
    ),
    _slip(
        _schedule(fall=lambda u: (1 + math.cos(2 * math.pi * u)) / 2),
        "whole_wave",
        "It is a whole wave, which comes up again: cos πu, not cos 2πu.",
    ),
    _slip(
        _schedule(fall=lambda u: (1 - math.cos(math.pi * u)) / 2),
        "turned_round",
        "It rises where it should fall: 1 + cos, not 1 - cos.",
    ),
    _slip(_schedule(fall=lambda u: 1 - u), "straight", "It falls in a straight line: (1 + cos πu)/2 is asked for."),
    _slip(_schedule(fall=lambda u: (1 + math.cos(u)) / 2), "no_pi", "π is missing: cos πu, with u from 0 to 1."),
    _slip(
        _schedule(fall=lambda u: (1 + math.cos(180 * u)) / 2),
        "degrees",
        "cos takes radians: half a wave is π, not 180.",
    ),
    _slip(
        _schedule(put=lambda low, high, f: low + high * f),
        "too_high",
        "The fall begins above η_max: scale it by η_max - η_min.",
    ),
    _slip(
        _schedule(put=lambda low, high, f: high * f),
        "no_minimum",
        "η_min has no part in it: η_min + (η_max - η_min)·(…).",
    ),
    _slip(
        _schedule(put=lambda low, high, f: max(low, high * f)),
        "cut_off",
        "It is cut off at η_min; the whole wave has to fit between η_max and η_min.",
    ),
]


@exercise(
    hints=[
        "Two cases with two returns. Check the borders: t = 0, W - 1, W, and where T would be.",
        "In the second case u = (t - warmup) / (steps - warmup) runs from 0 to nearly 1, and (1 + cos πu)/2 from 1 to nearly 0.",
        "if t < warmup: return eta_max * (t + 1) / warmup; else eta_min + (eta_max - eta_min) * (1 + np.cos(np.pi * u)) / 2",
    ],
    mistakes=WARMUP_MISTAKES,
)
def warmup_cosine(learner, rng):
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns of its own way of stepping
        parts = [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 5, 1, 4),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 18, 0.06),
        ]
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, [5])
        expected = []
        for _ in range(23):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    given = [learner(t, 23, 5, 0.4, 0.06) for t in range(23)]
    for one in given:
        expect.finite(one, "one rate for each step")
        if array(one).size != 1:
            expect.shape(one, (), "one rate for each step", likely="Return the rate of step t alone, not of all steps.")
    given = np.array([array(one).item() for one in given])
    why, source = "23 steps, 5 of them warm-up, between 0.4 and 0.06", "torch's LinearLR, then CosineAnnealingLR"
    expect.close(given, expected, why=why, source=source)
    for t, rate in ((0, 0.5), (1, 1.0), (2, 1.0), (6, 0.6)):
        expect.close(learner(t, 10, 2, 1.0, 0.2), rate, why=f"the example above, t = {t}", source="by hand")
    likely = "Without a warm-up, W = 0, no step is smaller than W: the fall begins at once."
    expect.close(
        learner(0, 8, 0, 0.3), 0.3, why="no warm-up: the first step is at the top", source="cos 0 = 1", likely=likely
    )
    expect.close(learner(4, 8, 0, 0.3), 0.15, why="no warm-up: halfway", source="cos π/2 = 0", likely=likely)


# ------------------------------------------------------------------------------------------------ clip_by_norm


def _norm(gradients):
    return sum((g**2).sum() for g in gradients) ** 0.5


def each_by_itself(gradients, max_norm):
    """Each tensor is clipped by its own norm. One norm for all: else the direction changes."""
    return [g * min(1, max_norm / max(float(g.norm()), 1e-12)) for g in gradients], _norm(gradients)


def by_value(gradients, max_norm):
    """Each entry is clipped by itself, which turns the gradient. All are scaled by one factor."""
    return [g.clamp(-max_norm, max_norm) for g in gradients], _norm(gradients)


def always_scaled(gradients, max_norm):
    """It scales although the norm is small enough: the factor is at most 1."""
    norm = _norm(gradients)
    return [g * max_norm / norm for g in gradients], norm


def scaled_where_small(gradients, max_norm):
    """It scales where the norm is small and leaves what is too long: is the comparison turned round?"""
    norm = _norm(gradients)
    return [g * max_norm / norm if norm < max_norm else g for g in gradients], norm


def norms_added(gradients, max_norm):
    """The norms are added up. Squares add up: the root of the sum of squared norms."""
    norm = sum(g.norm() for g in gradients)
    return [g * min(1, max_norm / float(norm)) for g in gradients], norm


def largest_norm(gradients, max_norm):
    """It takes the largest norm of a single tensor. It is the norm of all of them together."""
    norm = max(g.norm() for g in gradients)
    return [g * min(1, max_norm / float(norm)) for g in gradients], norm


def norm_squared(gradients, max_norm):
    """The norm lacks its root."""
    norm = _norm(gradients) ** 2
    return [g * min(1, max_norm / float(norm)) for g in gradients], norm


def norm_afterwards(gradients, max_norm):
    """The norm is the one after clipping; the one before is asked for, which tells how long the gradient was."""
    norm = _norm(gradients)
    clipped = [g * min(1, max_norm / float(norm)) for g in gradients]
    return clipped, _norm(clipped)


def factor_squared(gradients, max_norm):
    """The factor is wrong: dividing by n makes length 1, and times c makes it c. It is c/n."""
    norm = _norm(gradients)
    return [g / norm if norm > max_norm else g for g in gradients], norm


def absolute_values(gradients, max_norm):
    """The norm adds up absolute values. It is the root of the sum of squares."""
    norm = sum(g.abs().sum() for g in gradients)
    return [g * min(1, max_norm / float(norm)) for g in gradients], norm


def factor_returned(gradients, max_norm):
    """The factor came back. The second result is the norm before clipping."""
    norm = _norm(gradients)
    factor = min(1, max_norm / float(norm))
    return [g * factor for g in gradients], factor


def largest_entry(gradients, max_norm):
    """It takes the largest entry as norm. It is the root of the sum of all squares."""
    norm = max(g.abs().max() for g in gradients)
    return [g * min(1, max_norm / float(norm)) for g in gradients], norm


def squares_averaged(gradients, max_norm):
    """The squares are averaged within a tensor. A norm adds them up: (g**2).sum()."""
    norm = sum((g**2).mean() for g in gradients) ** 0.5
    return [g * min(1, max_norm / float(norm)) for g in gradients], norm


def first_only(gradients, max_norm):
    """It takes the norm of the first tensor only. It is the norm of all of them together."""
    norm = gradients[0].norm()
    return [g * min(1, max_norm / float(norm)) for g in gradients], norm


@exercise(
    hints=[
        "First one number: the root of the sum of all squares, over all tensors. Then one factor for all of them.",
        "norm = sum((g**2).sum() for g in gradients) ** 0.5. Scale only where norm > max_norm: that also keeps 0/0 out.",
        "factor = max_norm / norm if norm > max_norm else 1.0, then: return [g * factor for g in gradients], norm",
    ],
    mistakes=[
        each_by_itself,
        by_value,
        always_scaled,
        scaled_where_small,
        norms_added,
        largest_norm,
        norm_squared,
        norm_afterwards,
        factor_squared,
        absolute_values,
        factor_returned,
        largest_entry,
        squares_averaged,
        first_only,
    ],
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
        names = [f"g{k}" for k in range(1, len(gradients) + 1)]
        source = "torch.nn.utils.clip_grad_norm_"
        for name, mine, leaf in zip(names, clipped, leaves, strict=True):
            expect.shape(mine, tuple(leaf.shape), f"{name} keeps its shape")
            expect.kind(mine, torch.Tensor, f"{name} stays a tensor")
        flat = np.concatenate([array(mine).ravel() for mine in clipped])
        expected = torch.cat([leaf.grad.ravel() for leaf in leaves])
        expect.close(flat, expected, why=f"{why}: all tensors in a row", source=source, rtol=1e-5)
        expect.close(given, norm.detach(), why=f"{why}: the norm before clipping", source=source)

    shapes = ((3, 4), (5,), (2, 1, 3))
    gradients = [k * _tensor(rng.normal(size=shape)) for k, shape in enumerate(shapes, 1)]
    demand(gradients, 1.7, "three tensors, too long")
    demand(gradients, 100.0, "short enough: nothing changes")
    demand([_tensor([3.0]), _tensor([0.0, 4.0])], 2.0, "the example above")
    (zero,), norm = learner([_tensor([0.0, 0.0])], 1.0)
    likely = "0/0 is NaN: divide only where the norm is larger than max_norm."
    expect.true(
        np.isfinite(array(zero)).all(), "gradients of zeros stay zeros", f"yours    {array(zero)}", likely=likely
    )
    expect.close(norm, 0.0, why="the norm of zeros", source="by hand")


# ------------------------------------------------------------------------------------------------ suggest_rate


def _picked(smooth=None, ends=True, pick=None, back=lambda low, backoff: low / backoff):
    def suggest(rates, losses, beta=0.9, backoff=3.0):
        rates, losses = np.asarray(rates), np.asarray(losses)
        if ends:
            bad = np.flatnonzero(~np.isfinite(losses))
            losses = losses[: bad[0]] if bad.size else losses
        curve = (smooth or _mean)(losses, beta)
        return back(rates[(pick or np.argmin)(curve)], backoff)

    return suggest


def _mean(losses, beta, correct=True):
    mean, result = 0.0, []
    for t, loss in enumerate(losses, 1):
        mean = beta * mean + (1 - beta) * loss
        result.append(mean / (1 - beta**t) if correct else mean)
    return result


def _mean_from_first(losses, beta):
    result = [losses[0]]
    for loss in losses[1:]:
        result.append(beta * result[-1] + (1 - beta) * loss)
    return result


def _mean_fed_back(losses, beta):
    mean, result = 0.0, []
    for t, loss in enumerate(losses, 1):
        mean = (beta * mean + (1 - beta) * loss) / (1 - beta**t)
        result.append(mean)
    return result


def _mean_counted(losses, beta, begin):
    with np.errstate(divide="ignore"):
        return np.array(_mean(losses, beta, False)) / (1 - beta ** np.arange(begin, begin + len(losses)))


def beta_by_hand(rates, losses, beta=0.9, backoff=3.0):
    """beta is an argument; this smooths with 0.9 whatever it is."""
    return _picked()(rates, losses, 0.9, backoff)


def position(rates, losses, beta=0.9, backoff=3.0):
    """It returns a position, the index of the lowest loss. The rate there is asked for: rates[…] / backoff."""
    return _picked(back=lambda low, backoff: low)(np.arange(len(rates)), losses, beta, backoff)


def position_divided(rates, losses, beta=0.9, backoff=3.0):
    """It divides a position, the index of the lowest loss. The rate there is asked for: rates[…] / backoff."""
    return _picked()(np.arange(len(rates)), losses, beta, backoff)


def last_left_out(rates, losses, beta=0.9, backoff=3.0):
    """The last loss before the cut, or before the end, is left out: cut at the first that is not finite, no earlier."""
    finite = [*np.isfinite(losses), False]
    return _picked()(rates, losses[: finite.index(False) - 1], beta, backoff)


def one_before_cut(rates, losses, beta=0.9, backoff=3.0):
    """The last finite loss is left out: cut at the first that is not finite, no earlier."""
    return (_picked() if np.isfinite(losses).all() else last_left_out)(rates, losses, beta, backoff)


SUGGEST_MISTAKES = [
    last_left_out,
    one_before_cut,
    beta_by_hand,
    position,
    position_divided,
    _slip(
        _picked(smooth=lambda losses, beta: _mean_counted(losses, beta, 0)),
        "counted_from_zero",
        "The correction is one step behind: the first loss has t = 1, for 1 - β⁰ = 0.",
    ),
    _slip(
        _picked(smooth=lambda losses, beta: _mean_counted(losses, beta, 2)),
        "counted_from_two",
        "The correction is one step ahead: the first loss has t = 1.",
    ),
    _slip(
        _picked(smooth=_mean_from_first),
        "begins_with_first",
        "The mean begins with the first loss, which then weighs too much: begin with 0 and divide by 1 - βᵗ.",
    ),
    _slip(
        _picked(smooth=_mean_fed_back),
        "corrected_fed_back",
        "The corrected mean goes into the next step. Keep m uncorrected; m / (1 - βᵗ) is for the curve only.",
    ),
    _slip(
        _picked(smooth=lambda losses, beta: losses),
        "not_smoothed",
        "One lucky batch decides: the losses are not smoothed, or hardly. Are β and 1 - β swapped?",
    ),
    _slip(
        _picked(smooth=lambda losses, beta: _mean(losses, beta, False)),
        "not_corrected",
        "The running mean begins at zero and is not corrected: the first points look lowest. Divide by 1 - βᵗ.",
    ),
    _slip(
        _picked(back=lambda low, backoff: low),
        "no_backoff",
        "The rate of the lowest loss is at the edge already: divide it by backoff.",
    ),
    _slip(
        _picked(back=lambda low, backoff: low * backoff),
        "further_out",
        "It goes further out, beyond the edge: divide by backoff.",
    ),
    _slip(
        _picked(pick=np.argmax),
        "highest",
        "It takes the highest loss, or the end of the run; where the smoothed curve is lowest is asked for.",
    ),
    _slip(
        _picked(back=lambda low, backoff: low / 3),
        "three_by_hand",
        "backoff is an argument; this divides by 3 whatever it is.",
    ),
    _slip(
        _picked(pick=lambda curve: int(np.argmin(np.diff(curve)))),
        "steepest",
        "It takes the steepest point; where the smoothed curve is lowest is asked for.",
    ),
    _slip(
        _picked(smooth=lambda losses, beta: np.convolve(losses, np.ones(10) / 10, "same")),
        "window",
        "It is another mean than the one asked for: m = βm + (1 - β)·loss, divided by 1 - βᵗ.",
    ),
]


@exercise(
    hints=[
        "Three steps: cut the losses at the first that is not finite, smooth, find the lowest.",
        "Running mean: mean = beta * mean + (1 - beta) * loss; the corrected one is mean / (1 - beta**t), t from 1.",
        "bad = np.flatnonzero(~np.isfinite(losses)) tells where to cut; at the end: return rates[np.argmin(curve)] / backoff",
    ],
    mistakes=SUGGEST_MISTAKES,
)
def suggest_rate(learner, rng):
    def by_definition(rates, losses, beta, backoff):
        """Weighted means, written out: the weight of loss i at t is β^(t-i)."""
        finite = list(np.isfinite(losses)) + [False]
        losses = losses[: finite.index(False)]
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
    for value in (math.nan, math.inf):
        over = noisy.copy()
        over[25] = 2.0
        over[44], over[45:] = value, 0.0  # long enough that a large number in place of NaN fades, too
        demand(over, f"a run that ends in {value}; what comes after does not count", beta=0.5, likely=likely)
    # every slip in the correction picks another step of these seven
    demand(np.array([2.7, 1.4, 1.8, 1.9, 2.0, 2.1, 2.2]), "seven steps", beta=0.6, backoff=2.0)
    demand(np.array([2.0, 2.1, 2.3, 3.0]), "four steps that only rise", beta=0.5, backoff=2.0)
    demand(np.array([3.0, 2.0, 1.5, 1.2]), "four steps that only fall", beta=0.5, backoff=2.0)
    demand(np.array([3.0, 2.0, 1.5, math.nan]), "three steps that fall, then nan", beta=0.5, backoff=2.0)
