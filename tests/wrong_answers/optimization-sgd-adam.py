"""Answers to the exercises of optimization-sgd-adam: wrong ones named for the misconception, and right ones."""

import math

import numpy as np
import torch

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ momentum_step


@wrong("momentum_step", says="damped by 1 - μ")
def dampened_gradient(w, g, v, eta, mu=0.9, nesterov=False):
    v = mu * v + (1 - mu) * g
    return w - eta * (g + mu * v if nesterov else v), v


@wrong("momentum_step", says="η is inside the velocity")
def rate_in_velocity(w, g, v, eta, mu=0.9, nesterov=False):
    v = mu * v - eta * g
    return (w + mu * v - eta * g if nesterov else w + v), v


@wrong("momentum_step", says="where it should not")
def nesterov_reversed(w, g, v, eta, mu=0.9, nesterov=False):
    v = mu * v + g
    return w - eta * (v if nesterov else g + mu * v), v


@wrong("momentum_step", says="The velocity does not add up")
def state_not_carried(w, g, v, eta, mu=0.9, nesterov=False):
    new = mu * v + g
    return w - eta * (g + mu * new if nesterov else new), v


@wrong("momentum_step", says="changes its input")
def in_place(w, g, v, eta, mu=0.9, nesterov=False):
    v.mul_(mu).add_(g)
    w -= eta * (g + mu * v if nesterov else v)
    return w, v


@wrong("momentum_step", says="right until η changed")
def always_one_rate(w, g, v, eta, mu=0.9, nesterov=False):
    v = mu * v + g
    return w - 0.05 * (g + mu * v if nesterov else v), v


@wrong("momentum_step", says="The first step is right")
def keeps_the_step(w, g, v, eta, mu=0.9, nesterov=False):
    v = mu * v + g
    step = eta * (g + mu * v if nesterov else v)
    return w - step, step


@wrong("momentum_step", says="expected Tensor")
def arrays_come_back(w, g, v, eta, mu=0.9, nesterov=False):
    w, g, v = (np.asarray(a) for a in (w, g, v))
    v = mu * v + g
    return w - eta * (g + mu * v if nesterov else v), v


@right("momentum_step")
def momentum_with_torch_functions(w, g, v, eta, mu=0.9, nesterov=False):
    v = torch.add(g, v, alpha=mu)
    return torch.sub(w, torch.add(g, v, alpha=mu) if nesterov else v, alpha=eta), v


@right("momentum_step")
def momentum_in_numpy(w, g, v, eta, mu=0.9, nesterov=False):
    w, g, v = (np.asarray(a) for a in (w, g, v))
    v = torch.tensor(v * mu + g)
    return torch.tensor(w) - eta * ((torch.tensor(g) + mu * v) if nesterov else v), v


@right("momentum_step")
def momentum_unfolded(w, g, v, eta, mu=0.9, nesterov=False):
    if nesterov:
        return w - eta * ((1 + mu) * g + mu**2 * v), mu * v + g
    return w - eta * g - eta * mu * v, g + mu * v


# ------------------------------------------------------------------------------------------------ rmsprop_step


@wrong("rmsprop_step", says="ε is inside the root")
def rms_eps_inside(w, g, s, eta, alpha=0.99, eps=1e-8):
    s = alpha * s + (1 - alpha) * g**2
    return w - eta * g / (s + eps).sqrt(), s


@wrong("rmsprop_step", says="swapped")
def rms_alpha_swapped(w, g, s, eta, alpha=0.99, eps=1e-8):
    s = (1 - alpha) * s + alpha * g**2
    return w - eta * g / (s.sqrt() + eps), s


@wrong("rmsprop_step", says="AdaGrad")
def rms_adds_up(w, g, s, eta, alpha=0.99, eps=1e-8):
    s = s + g**2
    return w - eta * g / (s.sqrt() + eps), s


@wrong("rmsprop_step", says="The root is missing")
def rms_no_root(w, g, s, eta, alpha=0.99, eps=1e-8):
    s = alpha * s + (1 - alpha) * g**2
    return w - eta * g / (s + eps), s


@wrong("rmsprop_step", says="old mean of squares")
def rms_divides_first(w, g, s, eta, alpha=0.99, eps=1e-8):
    return w - eta * g / (s.sqrt() + eps), alpha * s + (1 - alpha) * g**2


@wrong("rmsprop_step", says="squared norm of g for all")
def rms_one_norm(w, g, s, eta, alpha=0.99, eps=1e-8):
    s = alpha * s + (1 - alpha) * (g**2).sum()
    return w - eta * g / (s.sqrt() + eps), s


@wrong("rmsprop_step", says="Return the new one")
def rms_state_not_carried(w, g, s, eta, alpha=0.99, eps=1e-8):
    new = alpha * s + (1 - alpha) * g**2
    return w - eta * g / (new.sqrt() + eps), s


@wrong("rmsprop_step", says="changes its input")
def rms_in_place(w, g, s, eta, alpha=0.99, eps=1e-8):
    s *= alpha
    s += (1 - alpha) * g**2
    return w - eta * g / (s.sqrt() + eps), s


@right("rmsprop_step")
def rms_lerp(w, g, s, eta, alpha=0.99, eps=1e-8):
    s = torch.lerp(g.square(), s, alpha)
    return w - eta * g / s.sqrt().add(eps), s


@right("rmsprop_step")
def rms_in_numpy(w, g, s, eta, alpha=0.99, eps=1e-8):
    w, g, s = (np.asarray(a) for a in (w, g, s))
    s = s + (1 - alpha) * (g * g - s)
    return torch.tensor(w - eta * g / (np.sqrt(s) + eps)), torch.tensor(s)


@right("rmsprop_step")
def rms_addcdiv(w, g, s, eta, alpha=0.99, eps=1e-8):
    s = (alpha * s).addcmul(g, g, value=1 - alpha)
    return w.addcdiv(g, s**0.5 + eps, value=-eta), s


# ------------------------------------------------------------------------------------------------ adam_step


def right_adam(w, g, state, eta, beta1, beta2, eps):
    m, v, t = means(g, state, beta1, beta2)
    return w - eta * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps), (m, v, t)


def means(g, state, beta1, beta2):
    m, v, t = state
    return beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2, t + 1


@wrong("adam_step", says="float64 came in and float32 goes out")
def adam_in_single_precision(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = state
    return right_adam(w.float(), g.float(), (m.float(), v.float(), t), eta, beta1, beta2, eps)


@wrong("adam_step", says="float32 came in and float64 goes out")
def adam_in_double_precision(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = state
    return right_adam(w.double(), g.double(), (m.double(), v.double(), t), eta, beta1, beta2, eps)


@wrong("adam_step", says="correct with the new t")
def adam_counts_afterwards(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    k = max(t - 1, 1)
    return w - eta * (m / (1 - beta1**k)) / ((v / (1 - beta2**k)).sqrt() + eps), (m, v, t)


@wrong("adam_step", says="bias correction is missing")
def adam_uncorrected(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    return w - eta * m / (v.sqrt() + eps), (m, v, t)


@wrong("adam_step", says="one step behind")
def adam_counts_after(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    m_hat, v_hat = m / (1 - beta1 ** (t - 1)), v / (1 - beta2 ** (t - 1))
    return w - eta * m_hat / (v_hat.sqrt() + eps), (m, v, t)


@wrong("adam_step", says="one step ahead")
def adam_counts_twice(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    m_hat, v_hat = m / (1 - beta1 ** (t + 1)), v / (1 - beta2 ** (t + 1))
    return w - eta * m_hat / (v_hat.sqrt() + eps), (m, v, t)


@wrong("adam_step", says="ε is inside the root")
def adam_eps_inside(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    return w - eta * m / (1 - beta1**t) / (v / (1 - beta2**t) + eps).sqrt(), (m, v, t)


@wrong("adam_step", says="before v is corrected")
def adam_eps_too_early(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    rate = eta * math.sqrt(1 - beta2**t) / (1 - beta1**t)  # the paper's shortcut: its ε is another one
    return w - rate * m / (v.sqrt() + eps), (m, v, t)


@wrong("adam_step", says="(w, state)")
def adam_flat_state(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    return w - eta * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps), m, v, t


@wrong("adam_step", says="in this order")
def adam_count_first(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    return w - eta * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps), (t, m, v)


@wrong("adam_step", says="the state has three parts")
def adam_without_count(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    return w - eta * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps), (m, v)


@right("adam_step")
def adam_counts_with_a_tensor(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    t = torch.as_tensor(t)  # βᵗ then has single precision
    return w - eta * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps), (m, v, t)


@right("adam_step")
def adam_as_torch_writes_it(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = means(g, state, beta1, beta2)
    denominator = v.sqrt() / math.sqrt(1 - beta2**t) + eps
    return w.addcdiv(m, denominator, value=-eta / (1 - beta1**t)), (m, v, t)


@right("adam_step")
def adam_by_lerp(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v, t = state[0].lerp(g, 1 - beta1), state[1].lerp(g * g, 1 - beta2), state[2] + 1
    return w - eta * (m / (1 - beta1**t)) / (torch.sqrt(v / (1 - beta2**t)) + eps), [m, v, t]


@right("adam_step")
def adam_in_numpy(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8):
    w, g, m, v = (np.asarray(a) for a in (w, g, *state[:2]))
    m, v, t = m * beta1 + g * (1 - beta1), v * beta2 + np.square(g) * (1 - beta2), state[2] + 1
    w = w - eta * m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return torch.tensor(w), (torch.tensor(m), torch.tensor(v), t)


# ------------------------------------------------------------------------------------------------ adamw_step


@wrong("adamw_step", says="Adam with L2")
def coupled_decay(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    return adam_as_torch_writes_it(w, g + lam * w, state, eta, beta1, beta2, eps)


@wrong("adamw_step", says="divided by √v̂")
def decay_in_the_adaptive_step(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    m, v, t = means(g, state, beta1, beta2)
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return w - eta * (m_hat + lam * w) / (v_hat.sqrt() + eps), (m, v, t)


@wrong("adamw_step", says="The decay lacks η")
def decay_without_rate(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    new, state = adam_as_torch_writes_it(w, g, state, eta, beta1, beta2, eps)
    return new - lam * w, state


@wrong("adamw_step", says="decays the new weights")
def decay_afterwards(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    new, state = adam_as_torch_writes_it(w, g, state, eta, beta1, beta2, eps)
    return new * (1 - eta * lam), state


@wrong("adamw_step", says="no decay in it")
def decay_forgotten(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    return adam_as_torch_writes_it(w, g, state, eta, beta1, beta2, eps)


@wrong("adamw_step", says="decays twice")
def decay_twice(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    new, state = adam_as_torch_writes_it(w, g + lam * w, state, eta, beta1, beta2, eps)
    return new - eta * lam * w, state


@wrong("adamw_step", says="not passed on")
def settings_not_passed_on(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    new, state = adam_as_torch_writes_it(w, g, state, eta)
    return new - eta * lam * w, state


@wrong("adamw_step", says="changes its input w")
def decay_in_place(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    w.mul_(1 - eta * lam)
    return adam_as_torch_writes_it(w, g, state, eta, beta1, beta2, eps)


@right("adamw_step")
def decay_first(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    return adam_by_lerp((1 - eta * lam) * w, g, state, eta, beta1, beta2, eps)


@right("adamw_step")
def all_by_hand(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    m, v, t = means(g, state, beta1, beta2)
    way = m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps)
    return w - eta * (way + lam * w), (m, v, t)


@right("adamw_step")
def decay_from_a_copy(w, g, state, eta, beta1=0.9, beta2=0.999, eps=1e-8, lam=0.01):
    shrunk = w.clone()
    shrunk -= eta * lam * w
    step = adam_in_numpy(w, g, state, eta, beta1, beta2, eps)
    return shrunk + (step[0] - w), step[1]


# ------------------------------------------------------------------------------------------------ gradient_noise


@wrong("gradient_noise", says="take the root")
def noise_squared(G, B):
    return G.var(0).sum() / B


@wrong("gradient_noise", says="it is N - 1")
def noise_biased(G, B):
    return np.sqrt(np.asarray(G).var(0).sum() / B)


@wrong("gradient_noise", says="standard deviations do not")
def noise_adds_deviations(G, B):
    return G.std(0).sum() / B**0.5


@wrong("gradient_noise", says="outside the root")
def noise_over_b(G, B):
    return G.var(0).sum().sqrt() / B


@wrong("gradient_noise", says="distance from their mean")
def noise_without_mean(G, B):
    return ((G**2).sum() / (len(G) - 1) / B).sqrt()


@wrong("gradient_noise", says="averages over the entries")
def noise_mean_over_entries(G, B):
    return (G.var(0).mean() / B).sqrt()


@wrong("gradient_noise", says="over the examples, axis 0")
def noise_wrong_axis(G, B):
    return (G.var(1).sum() / B).sqrt()


@wrong("gradient_noise", says="B has no part in it")
def noise_of_one(G, B):
    return G.var(0).sum().sqrt()


@right("gradient_noise")
def noise_by_distances(G, B):
    return (((G - G.mean(0)) ** 2).sum() / (len(G) - 1) / B) ** 0.5


@right("gradient_noise")
def noise_by_covariance(G, B):
    return math.sqrt(np.cov(np.asarray(G).T).trace() / B)


@right("gradient_noise")
def noise_as_a_norm(G, B):
    return torch.linalg.norm(G.std(0)) / math.sqrt(B)


# ------------------------------------------------------------------------------------------------ warmup_cosine


def wave(u):
    return (1 + math.cos(math.pi * u)) / 2


@wrong("warmup_cosine", says="rate 0 and is wasted")
def warmup_from_zero(t, steps, warmup, eta_max, eta_min=0.0):
    if t < warmup:
        return eta_max * t / warmup
    return eta_min + (eta_max - eta_min) * wave((t - warmup) / (steps - warmup))


@wrong("warmup_cosine", says="counted from step 0")
def cosine_over_everything(t, steps, warmup, eta_max, eta_min=0.0):
    if t < warmup:
        return eta_max * (t + 1) / warmup
    return eta_min + (eta_max - eta_min) * wave(t / steps)


@wrong("warmup_cosine", says="only T - W are left")
def cosine_too_slow(t, steps, warmup, eta_max, eta_min=0.0):
    if t < warmup:
        return eta_max * (t + 1) / warmup
    return eta_min + (eta_max - eta_min) * wave((t - warmup) / steps)


@wrong("warmup_cosine", says="above η_max")
def minimum_on_top(t, steps, warmup, eta_max, eta_min=0.0):
    if t < warmup:
        return eta_max * (t + 1) / warmup
    return eta_min + eta_max * wave((t - warmup) / (steps - warmup))


@wrong("warmup_cosine", says="halve it")
def wave_not_halved(t, steps, warmup, eta_max, eta_min=0.0):
    if t < warmup:
        return eta_max * (t + 1) / warmup
    return eta_min + (eta_max - eta_min) * 2 * wave((t - warmup) / (steps - warmup))


@wrong("warmup_cosine", says="η_min has no part")
def ends_at_zero(t, steps, warmup, eta_max, eta_min=0.0):
    if t < warmup:
        return eta_max * (t + 1) / warmup
    return eta_max * wave((t - warmup) / (steps - warmup))


@wrong("warmup_cosine", says=None)  # Python's own ZeroDivisionError
def divides_by_no_warmup(t, steps, warmup, eta_max, eta_min=0.0):
    rise = eta_max * (t + 1) / warmup
    return rise if t < warmup else eta_min + (eta_max - eta_min) * wave((t - warmup) / (steps - warmup))


@wrong("warmup_cosine", says="of step t alone")
def all_rates_at_once(t, steps, warmup, eta_max, eta_min=0.0):
    rise = [eta_max * (k + 1) / warmup for k in range(warmup)]
    return rise + [eta_min + (eta_max - eta_min) * wave(k / (steps - warmup)) for k in range(steps - warmup)]


@right("warmup_cosine")
def by_the_half_angle(t, steps, warmup, eta_max, eta_min=0.0):
    if t >= warmup:
        return eta_min + (eta_max - eta_min) * math.cos(math.pi / 2 * (t - warmup) / (steps - warmup)) ** 2
    return (t + 1) * (eta_max / warmup)


@right("warmup_cosine")
def with_torch(t, steps, warmup, eta_max, eta_min=0.0):
    if t < warmup:
        return torch.tensor(eta_max * (t + 1) / warmup)
    u = torch.tensor((t - warmup) / (steps - warmup), dtype=torch.float64)
    return eta_min + (eta_max - eta_min) * (1 + torch.cos(torch.pi * u)) / 2


@right("warmup_cosine")
def as_a_mean(t, steps, warmup, eta_max, eta_min=0.0):
    middle, half = (eta_max + eta_min) / 2, (eta_max - eta_min) / 2
    if warmup and t < warmup:
        return np.linspace(eta_max / warmup, eta_max, warmup)[t]
    return middle + half * np.cos(np.pi * (t - warmup) / (steps - warmup))


# ------------------------------------------------------------------------------------------------ clip_by_norm


def joint(gradients):
    return math.sqrt(sum(float((g**2).sum()) for g in gradients))


@wrong("clip_by_norm", says="One norm for all")
def clip_one_by_one(gradients, max_norm):
    return [g * min(1.0, max_norm / joint([g])) if joint([g]) else g for g in gradients], joint(gradients)


@wrong("clip_by_norm", says="turns the gradient")
def clip_by_value(gradients, max_norm):
    return [g.clamp(-max_norm, max_norm) for g in gradients], joint(gradients)


@wrong("clip_by_norm", says="the factor is at most 1")
def clip_always(gradients, max_norm):
    norm = joint(gradients)
    return [g * (max_norm / norm) for g in gradients], norm


@wrong("clip_by_norm", says="0/0 is NaN")
def clip_divides_by_zero(gradients, max_norm):
    norm = sum((g**2).sum() for g in gradients).sqrt()
    return [g * torch.clamp(max_norm / norm, max=1.0) / norm * norm for g in gradients], norm


@wrong("clip_by_norm", says="changes its input gradients")
def clip_in_place(gradients, max_norm):
    norm = joint(gradients)
    for g in gradients:
        g *= min(1.0, max_norm / norm)
    return gradients, norm


@wrong("clip_by_norm", says="First the list")
def clip_norm_first(gradients, max_norm):
    norm = joint(gradients)
    return norm, [g * max_norm / max(norm, max_norm) for g in gradients]


@wrong("clip_by_norm", says="the norm of zeros")
def clip_no_norm_of_zeros(gradients, max_norm):
    norm = joint(gradients) or math.nan
    return [g * max_norm / norm if norm > max_norm else g for g in gradients], norm


@wrong("clip_by_norm", says="expected Tensor")
def clip_gives_arrays(gradients, max_norm):
    norm = joint(gradients)
    return [np.asarray(g) * max_norm / max(norm, max_norm) for g in gradients], norm


@right("clip_by_norm")
def clip_with_epsilon(gradients, max_norm):
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * min(1.0, float(max_norm / (norm + 1e-6))) for g in gradients], norm


@right("clip_by_norm")
def clip_by_the_longer(gradients, max_norm):
    norm = joint(gradients)
    return [g * max_norm / max(norm, max_norm) for g in gradients], norm


@right("clip_by_norm")
def clip_by_norm_of_norms(gradients, max_norm):
    norm = torch.stack([g.norm() for g in gradients]).norm()
    return tuple(g if norm <= max_norm else g * (max_norm / norm) for g in gradients), norm


# ------------------------------------------------------------------------------------------------ suggest_rate


def finite_part(losses):
    bad = np.flatnonzero(~np.isfinite(losses))
    return losses[: bad[0]] if len(bad) else losses


def running(losses, beta, corrected=True):
    mean, curve = 0.0, []
    for t, loss in enumerate(losses, 1):
        mean = beta * mean + (1 - beta) * loss
        curve.append(mean / (1 - beta**t) if corrected else mean)
    return curve


@wrong("suggest_rate", says="One lucky batch decides")
def lowest_raw_loss(rates, losses, beta=0.9, backoff=3.0):
    return rates[np.argmin(finite_part(losses))] / backoff


@wrong("suggest_rate", says="is not corrected")
def uncorrected_mean(rates, losses, beta=0.9, backoff=3.0):
    return rates[np.argmin(running(finite_part(losses), beta, False))] / backoff


@wrong("suggest_rate", says="at the edge already")
def at_the_edge(rates, losses, beta=0.9, backoff=3.0):
    return rates[np.argmin(running(finite_part(losses), beta))]


@wrong("suggest_rate", says="steepest point")
def steepest_descent(rates, losses, beta=0.9, backoff=3.0):
    return rates[np.argmin(np.diff(running(finite_part(losses), beta)))] / backoff


@wrong("suggest_rate", says="cut the losses there")
def only_drops_what_is_not_finite(rates, losses, beta=0.9, backoff=3.0):
    good = np.isfinite(losses)
    return rates[good][np.argmin(running(losses[good], beta))] / backoff


@wrong("suggest_rate", says="argmax of a mask in which nothing is True")
def cut_at_an_accident_that_is_none(rates, losses, beta=0.9, backoff=3.0):
    return rates[np.argmin(running(losses[: np.argmax(~np.isfinite(losses))], beta))] / backoff


@wrong("suggest_rate", says="argmax of a mask in which nothing is True")
def cut_at_an_accident_that_is_none_by_torch(rates, losses, beta=0.9, backoff=3.0):
    bad = torch.argmax(torch.tensor(~np.isfinite(losses)).int())
    curve = running(losses[:bad], beta)
    return rates[list(curve).index(min(curve))] / backoff


@wrong("suggest_rate", says="at the lowest rate that was tried, at least")
def never_below_the_lowest(rates, losses, beta=0.9, backoff=3.0):
    return max(rates[np.argmin(running(finite_part(losses), beta))] / backoff, rates[0])


@wrong("suggest_rate", says="beyond the edge")
def further_out(rates, losses, beta=0.9, backoff=3.0):
    return rates[np.argmin(running(finite_part(losses), beta))] * backoff


@wrong("suggest_rate", says="this takes 3.0 whatever")
def backoff_by_hand(rates, losses, beta=0.9, backoff=3.0):
    return rates[np.argmin(running(finite_part(losses), beta))] / 3


@wrong("suggest_rate", says="cut the losses there")
def a_large_number_for_nan(rates, losses, beta=0.9, backoff=3.0):
    losses = np.nan_to_num(losses, nan=1e3, posinf=1e3)  # as the notebook draws its curve
    return rates[np.argmin(running(losses, beta))] / backoff


@right("suggest_rate")
def by_weights(rates, losses, beta=0.9, backoff=3.0):
    losses = finite_part(losses)
    powers = beta ** np.arange(len(losses))
    curve = np.convolve(losses, powers)[: len(losses)] / np.cumsum(powers)
    return rates[curve.argmin()] / backoff


@right("suggest_rate")
def as_it_goes(rates, losses, beta=0.9, backoff=3.0):
    mean, lowest, best = 0.0, math.inf, rates[0]
    for t, (rate, loss) in enumerate(zip(rates, losses, strict=True)):
        if not math.isfinite(loss):
            break
        mean = beta * mean + (1 - beta) * loss
        if mean / (1 - beta ** (t + 1)) < lowest:
            lowest, best = mean / (1 - beta ** (t + 1)), rate
    return best / backoff


@right("suggest_rate")
def with_tensors(rates, losses, beta=0.9, backoff=3.0):
    curve = torch.tensor(running(finite_part(losses), beta), dtype=torch.float64)
    return torch.tensor(rates)[curve.argmin()] / backoff


@wrong("warmup_cosine", says="η_min bounds the fall only")
def never_below_the_least(t, steps, warmup, eta_max, eta_min=0.0):
    if t < warmup:
        return max(eta_min, eta_max * (t + 1) / warmup)
    return eta_min + (eta_max - eta_min) * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) / 2


@wrong("clip_by_norm", says="largest singular value")
def spectral_norm(gradients, max_norm):
    norms = [torch.linalg.norm(g, 2) if g.ndim == 2 else g.norm() for g in gradients]
    norm = torch.stack(norms).square().sum().sqrt()
    return [g * (max_norm / norm).clamp(max=1) if norm else g for g in gradients], norm
