"""Answers to rnn-lstm-gru: wrong ones named for the misconception, and right ones."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ rnn_forward


def loop(x, h, step):
    outputs = []
    for t in range(x.shape[1]):
        h = step(x[:, t], h)
        outputs.append(h)
    return outputs, h


@wrong("rnn_forward", says="W_h is not transposed")
def as_in_the_formula(x, h, W_x, W_h, b):
    outputs, h = loop(x, h, lambda x, h: torch.tanh(x @ W_x.T + h @ W_h + b))
    return torch.stack(outputs, dim=1), h


@wrong("rnn_forward", says="begins with zeros")
def from_zeros(x, h, W_x, W_h, b):
    h = torch.zeros_like(h)
    outputs, h = loop(x, h, lambda x, h: torch.tanh(x @ W_x.T + h @ W_h.T + b))
    return torch.stack(outputs, dim=1), h


@wrong("rnn_forward", says="axes T and B swapped")
def time_first(x, h, W_x, W_h, b):
    outputs, h = loop(x, h, lambda x, h: torch.tanh(x @ W_x.T + h @ W_h.T + b))
    return torch.stack(outputs), h


@wrong("rnn_forward", says="last state only")
def last_only(x, h, W_x, W_h, b):
    _, h = loop(x, h, lambda x, h: torch.tanh(x @ W_x.T + h @ W_h.T + b))
    return h, h


@wrong("rnn_forward", says="not carried")
def new_name(x, h, W_x, W_h, b):
    outputs = []
    for t in range(x.size(1)):
        h_new = torch.tanh(x[:, t] @ W_x.T + h @ W_h.T + b)
        outputs.append(h_new)
    return torch.stack(outputs, 1), h_new


@wrong("rnn_forward", says="before the steps")
def appends_too_early(x, h, W_x, W_h, b):
    outputs = []
    for t in range(x.size(1)):
        outputs.append(h)
        h = torch.tanh(x[:, t] @ W_x.T + h @ W_h.T + b)
    return torch.stack(outputs, 1), h


@wrong("rnn_forward", says="bias b is missing")
def no_bias(x, h, W_x, W_h, b):
    outputs, h = loop(x, h, lambda x, h: torch.tanh(x @ W_x.T + h @ W_h.T))
    return torch.stack(outputs, 1), h


@wrong("rnn_forward", says="cut from the graph")
def detaches(x, h, W_x, W_h, b):
    outputs, h = loop(x, h, lambda x, h: torch.tanh(x @ W_x.T + h.detach() @ W_h.T + b))
    return torch.stack(outputs, 1), h


@wrong("rnn_forward", says="float64 came in and float32 goes out")
def fills_doubles_of_the_first_width(x, h, W_x, W_h, b):
    outputs = torch.zeros(x.shape[0], x.shape[1], W_h.shape[0])
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] @ W_x.T + h @ W_h.T + b)
        outputs[:, t] = h
    return outputs, h


@wrong("rnn_forward", says="value before the tanh")
def carries_what_is_inside(x, h, W_x, W_h, b):
    outputs = []
    for t in range(x.shape[1]):
        h = x[:, t] @ W_x.T + h @ W_h.T + b
        outputs.append(torch.tanh(h))
    return torch.stack(outputs, 1), outputs[-1]


@wrong("rnn_forward", says="x[:, 0] is never read")
def begins_with_the_given_state(x, h, W_x, W_h, b):
    outputs = [h]
    for t in range(1, x.shape[1]):
        outputs.append(torch.tanh(x[:, t] @ W_x.T + outputs[-1] @ W_h.T + b))
    return torch.stack(outputs, 1), outputs[-1]


@wrong("rnn_forward", says="step t of all sequences is x[:, t]")
def indexes_the_batch(x, h, W_x, W_h, b):
    outputs = []
    for t in range(x.shape[1]):
        h = torch.tanh(x[t] @ W_x.T + h @ W_h.T + b)
        outputs.append(h)
    return torch.stack(outputs, 1), h


@right("rnn_forward")
def by_einsum(x, h, W_x, W_h, b):
    a = torch.einsum("btc,dc->btd", x, W_x) + b
    out = torch.empty_like(a)
    for t in range(a.shape[1]):
        h = torch.tanh(a[:, t] + torch.einsum("bd,ed->be", h, W_h))
        out[:, t] = h
    return out, h


@right("rnn_forward")
def by_linear(x, h, W_x, W_h, b):
    states = []
    for x_t in x.transpose(0, 1):
        h = F.linear(x_t, W_x, b).add(F.linear(h, W_h)).tanh()
        states.append(h.unsqueeze(1))
    return torch.cat(states, dim=1), states[-1].squeeze(1)


# ------------------------------------------------------------------------------------------------ backprop_through_time


def going_back(h, W_h, delta, dz_of, back, part):
    gradients, dW = torch.zeros_like(h), torch.zeros_like(W_h)
    gradients[-1] = delta
    for t in range(h.shape[0] - 1, 0, -1):
        dz = dz_of(gradients[t], h, t)
        dW = dW + part(dz, h, t)
        gradients[t - 1] = back(dz)
    return gradients, dW


def usual_dz(g, h, t):
    return g * (1 - h[t] ** 2)


def usual_part(dz, h, t):
    return torch.outer(dz, h[t - 1])


@wrong("backprop_through_time", says="not transposed on the way back")
def forwards_matrix(h, W_h, delta):
    return going_back(h, W_h, delta, usual_dz, lambda dz: W_h @ dz, usual_part)


@wrong("backprop_through_time", says="taken at t - 1")
def slope_of_the_wrong_state(h, W_h, delta):
    return going_back(h, W_h, delta, lambda g, h, t: g * (1 - h[t - 1] ** 2), lambda dz: W_h.T @ dz, usual_part)


@wrong("backprop_through_time", says="slope of tanh is missing")
def linear(h, W_h, delta):
    return going_back(h, W_h, delta, lambda g, h, t: g, lambda dz: W_h.T @ dz, usual_part)


@wrong("backprop_through_time", says="outer product is transposed")
def outer_turned(h, W_h, delta):
    return going_back(h, W_h, delta, usual_dz, lambda dz: W_h.T @ dz, lambda dz, h, t: torch.outer(h[t - 1], dz))


@wrong("backprop_through_time", says="uses h_t")
def own_state(h, W_h, delta):
    return going_back(h, W_h, delta, usual_dz, lambda dz: W_h.T @ dz, lambda dz, h, t: torch.outer(dz, h[t]))


@wrong("backprop_through_time", says="one step's part")
def overwrites(h, W_h, delta):
    gradients, dW = torch.zeros_like(h), torch.zeros_like(W_h)
    gradients[-1] = delta
    for t in range(len(h) - 1, 0, -1):
        dz = gradients[t] * (1 - h[t] ** 2)
        dW = torch.outer(dz, h[t - 1])
        gradients[t - 1] = W_h.T @ dz
    return gradients, dW


@wrong("backprop_through_time", says="gradient of h_0 is missing")
def without_the_first(h, W_h, delta):
    gradients, dW = going_back(h, W_h, delta, usual_dz, lambda dz: W_h.T @ dz, usual_part)
    return gradients[1:], dW


@wrong("backprop_through_time", says="is left empty")
def stops_one_early(h, W_h, delta):
    gradients, dW = torch.zeros_like(h), torch.zeros_like(W_h)
    gradients[-1] = delta
    for t in range(len(h) - 1, 0, -1):
        dz = gradients[t] * (1 - h[t] ** 2)
        dW += torch.outer(dz, h[t - 1])
        if t > 1:
            gradients[t - 1] = W_h.T @ dz
    return gradients, dW


@wrong("backprop_through_time", says="order of the loop")
def appended(h, W_h, delta):
    rows, dW = [delta], torch.zeros_like(W_h)
    for t in range(len(h) - 1, 0, -1):
        dz = rows[-1] * (1 - h[t] ** 2)
        dW += torch.outer(dz, h[t - 1])
        rows.append(W_h.T @ dz)
    return torch.stack(rows), dW


@wrong("backprop_through_time", says="changes its input delta")
def in_place(h, W_h, delta):
    rows, dW = [delta.clone()], torch.zeros_like(W_h)
    for t in range(len(h) - 1, 0, -1):
        delta *= 1 - h[t] ** 2
        dW += torch.outer(delta, h[t - 1])
        delta.copy_(W_h.T @ delta)
        rows.insert(0, delta.clone())
    return torch.stack(rows), dW


@wrong("backprop_through_time", says="Autograd was used")
def by_autograd(h, W_h, delta):
    W, first = W_h.detach().clone().requires_grad_(), h[0].detach().clone().requires_grad_()
    states = [first]
    for t in range(1, len(h)):
        states.append(torch.tanh(W @ states[-1] + (torch.atanh(h[t]) - W_h @ h[t - 1]).detach()))
    *found, dW = torch.autograd.grad(states[-1], [*states[:-1], W], delta)
    return torch.stack([*found, delta]), dW


@wrong("backprop_through_time", says="torch.outer(dz, h[t - 1]) is (D, D)")
def entry_by_entry(h, W_h, delta):
    return going_back(h, W_h, delta, usual_dz, lambda dz: W_h.T @ dz, lambda dz, h, t: dz * h[t - 1])


@right("backprop_through_time")
def with_numpy_inside(h, W_h, delta):
    states, W = h.detach().numpy(), W_h.detach().numpy()
    found, dW = np.zeros_like(states), np.zeros_like(W)
    found[-1] = delta.detach().numpy()
    for t in range(len(states) - 1, 0, -1):
        dz = found[t] * (1 - states[t] ** 2)
        dW += np.outer(dz, states[t - 1])
        found[t - 1] = dz @ W
    return torch.from_numpy(found), torch.from_numpy(dW)


@right("backprop_through_time")
def rows_first(h, W_h, delta):
    dh, dz = [delta], []
    for state in h[1:].flip(0):
        dz.append(dh[-1] - dh[-1] * state * state)
        dh.append(dz[-1] @ W_h)
    dz = torch.stack(dz[::-1])
    return torch.stack(dh[::-1]), dz.T @ h[:-1]


@right("backprop_through_time")
def by_einsum_at_the_end(h, W_h, delta):
    slopes = 1 - h.square()
    gradients = [delta]
    for t in reversed(range(1, len(h))):
        gradients.insert(0, torch.mv(W_h.t(), gradients[0] * slopes[t]))
    gradients = torch.stack(gradients)
    return gradients, torch.einsum("td,te->de", gradients[1:] * slopes[1:], h[:-1])


# ------------------------------------------------------------------------------------------------ clip_gradients


def grads(parameters):
    return [p.grad for p in parameters if p.grad is not None]


@wrong("clip_gradients", says="clipped by itself")
def one_by_one(parameters, limit):
    total = 0
    for p in parameters:
        if p.grad is not None:
            norm = p.grad.norm()
            total += norm.item() ** 2
            if norm > limit:
                p.grad.mul_(limit / norm)
    return math.sqrt(total)


@wrong("clip_gradients", says="value by value")
def by_value(parameters, limit):
    found = grads(parameters)
    norm = torch.cat([g.flatten() for g in found]).norm()
    if norm > limit:
        for g in found:
            g.clamp_(-limit, limit)
    return norm.item()


@wrong("clip_gradients", says="scaled up")
def always(parameters, limit):
    found = grads(parameters)
    norm = torch.cat([g.flatten() for g in found]).norm()
    for g in found:
        g.mul_(limit / norm)
    return norm.item()


@wrong("clip_gradients", says="after clipping")
def norm_after(parameters, limit):
    found = grads(parameters)
    norm = math.sqrt(sum((g**2).sum() for g in found))
    if norm > limit:
        for g in found:
            g.mul_(limit / norm)
    return math.sqrt(sum((g**2).sum() for g in found))


@wrong("clip_gradients", says="square root is missing")
def squared(parameters, limit):
    found = grads(parameters)
    norm = sum((g**2).sum().item() for g in found)
    if norm > limit:
        for g in found:
            g.mul_(limit / norm)
    return norm


@wrong("clip_gradients", says="forgets it")
def new_tensors(parameters, limit):
    found = grads(parameters)
    norm = math.sqrt(sum((g**2).sum().item() for g in found))
    if norm > limit:
        for g in found:
            g = g * limit / norm
    return norm


@wrong("clip_gradients", says="gone through only once")
def twice(parameters, limit):
    norm = math.sqrt(sum((p.grad**2).sum().item() for p in parameters if p.grad is not None))
    if norm > limit:
        for p in parameters:
            if p.grad is not None:
                p.grad.mul_(limit / norm)
    return norm


@wrong("clip_gradients", says="is left out")
def without_asking(parameters, limit):
    parameters = list(parameters)
    norm = math.sqrt(sum((p.grad**2).sum().item() for p in parameters))
    if norm > limit:
        for p in parameters:
            p.grad.mul_(limit / norm)
    return norm


@wrong("clip_gradients", says="added up; squares are")
def sum_of_norms(parameters, limit):
    found = grads(parameters)
    norm = sum(g.norm().item() for g in found)
    if norm > limit:
        for g in found:
            g.mul_(limit / norm)
    return norm


@wrong("clip_gradients", says="scaled up")
def under_the_limit_too(parameters, limit):
    found = grads(parameters)
    norm = math.sqrt(sum(g.pow(2).sum().item() for g in found))
    if norm > 0:
        for g in found:
            g.mul_(limit / norm)
    return norm


@wrong("clip_gradients", says="largest singular value")
def spectral(parameters, limit):
    found = grads(parameters)
    each = [torch.linalg.norm(g, 2) if g.ndim in (1, 2) else g.norm() for g in found]
    norm = torch.stack(each).norm().item()
    if norm > limit:
        for g in found:
            g.mul_(limit / norm)
    return norm


@right("clip_gradients")
def by_torch(parameters, limit):
    return nn.utils.clip_grad_norm_(parameters, limit)


@right("clip_gradients")
def by_long_vector(parameters, limit):
    having = [p for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.cat([p.grad.reshape(-1) for p in having])).item()
    factor = min(1.0, limit / max(norm, 1e-300))
    for p in having:
        p.grad = p.grad * factor
    return norm


# ------------------------------------------------------------------------------------------------ lstm_step


def parts_of(x, h, W_ih, W_hh, b, order="ifgo"):
    a = (x @ W_ih.T + h @ W_hh.T + b).chunk(4, 1)
    return [a[order.index(name)] for name in "ifgo"]


def combined(i, f, g, o, c):
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@wrong("lstm_step", says="order is i, f, o, g")
def keras_like(x, h, c, W_ih, W_hh, b):
    return combined(*parts_of(x, h, W_ih, W_hh, b, "ifog"), c)


@wrong("lstm_step", says="i and f are swapped")
def forget_first(x, h, c, W_ih, W_hh, b):
    return combined(*parts_of(x, h, W_ih, W_hh, b, "figo"), c)


@wrong("lstm_step", says="candidate g goes through the sigmoid")
def all_sigmoid(x, h, c, W_ih, W_hh, b):
    i, f, g, o = (x @ W_ih.T + h @ W_hh.T + b).sigmoid().chunk(4, 1)
    c = f * c + i * g
    return o * c.tanh(), c


@wrong("lstm_step", says="old c")
def too_early(x, h, c, W_ih, W_hh, b):
    i, f, g, o = parts_of(x, h, W_ih, W_hh, b)
    h = o.sigmoid() * c.tanh()
    return h, f.sigmoid() * c + i.sigmoid() * g.tanh()


@wrong("lstm_step", says="h has no tanh")
def bare_cell(x, h, c, W_ih, W_hh, b):
    i, f, g, o = parts_of(x, h, W_ih, W_hh, b)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c, c


@wrong("lstm_step", says="first h, then c")
def swapped(x, h, c, W_ih, W_hh, b):
    h, c = combined(*parts_of(x, h, W_ih, W_hh, b), c)
    return c, h


@wrong("lstm_step", says="turned round")
def keeps_what_it_forgets(x, h, c, W_ih, W_hh, b):
    i, f, g, o = parts_of(x, h, W_ih, W_hh, b)
    c = (1 - f.sigmoid()) * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@wrong("lstm_step", says="every fourth column")
def reshaped(x, h, c, W_ih, W_hh, b):
    i, f, g, o = (x @ W_ih.T + h @ W_hh.T + b).reshape(len(x), -1, 4).unbind(-1)
    return combined(i, f, g, o, c)


@wrong("lstm_step", says="Only h comes back")
def forgets_the_cell(x, h, c, W_ih, W_hh, b):
    return combined(*parts_of(x, h, W_ih, W_hh, b), c)[0]


@wrong("lstm_step", says="have no sigmoid")
def raw_gates(x, h, c, W_ih, W_hh, b):
    i, f, g, o = parts_of(x, h, W_ih, W_hh, b)
    c = f * c + i * torch.tanh(g)
    return o * torch.tanh(c), c


@wrong("lstm_step", says="used as they are")
def raw_parts(x, h, c, W_ih, W_hh, b):
    i, f, g, o = parts_of(x, h, W_ih, W_hh, b)
    c = f * c + i * g
    return o * torch.tanh(c), c


@wrong("lstm_step", says="sign in σ is turned")
def own_sigmoid(x, h, c, W_ih, W_hh, b):
    i, f, g, o = parts_of(x, h, W_ih, W_hh, b)
    i, f, o = (1 / (1 + torch.exp(a)) for a in (i, f, o))
    c = f * c + i * torch.tanh(g)
    return o * torch.tanh(c), c


@wrong("lstm_step", says="new c goes through a tanh")
def squashed_cell(x, h, c, W_ih, W_hh, b):
    i, f, g, o = parts_of(x, h, W_ih, W_hh, b)
    c = torch.tanh(f.sigmoid() * c + i.sigmoid() * g.tanh())
    return o.sigmoid() * c, c


@wrong("lstm_step", says="cut by C")
def input_s_length(x, h, c, W_ih, W_hh, b):
    a, n = x @ W_ih.T + h @ W_hh.T + b, x.shape[1]
    return combined(a[:, :n], a[:, n : 2 * n], a[:, 2 * n : 3 * n], a[:, 3 * n :], c)


@right("lstm_step")
def by_slices(x, h, c, W_ih, W_hh, b):
    D = h.shape[1]
    W, xh = torch.cat([W_ih, W_hh], 1), torch.cat([x, h], 1)
    i, f, g, o = (F.linear(xh, W[k * D : (k + 1) * D], b[k * D : (k + 1) * D]) for k in range(4))
    new = c * torch.sigmoid(f) + torch.sigmoid(i) * torch.tanh(g)
    return torch.tanh(new) * torch.sigmoid(o), new


@right("lstm_step")
def by_einsum_of_gates(x, h, c, W_ih, W_hh, b):
    D = h.shape[1]
    a = torch.einsum("bc,gdc->gbd", x, W_ih.view(4, D, -1))
    a = a + torch.einsum("be,gde->gbd", h, W_hh.view(4, D, D)) + b.view(4, 1, D)
    gates = 1 / (1 + torch.exp(-a.clamp(-80, 80)))
    c = gates[1] * c + gates[0] * (2 * torch.sigmoid(2 * a[2]) - 1)
    return gates[3] * c.tanh(), c


# ------------------------------------------------------------------------------------------------ gru_step


def thirds(x, h, W_ih, W_hh, b_ih, b_hh, order="rzn"):
    of_x, of_h = (x @ W_ih.T + b_ih).chunk(3, 1), (h @ W_hh.T + b_hh).chunk(3, 1)
    return [(of_x[order.index(k)], of_h[order.index(k)]) for k in "rzn"]


def mixed(r, z, n, h):
    r, z = torch.sigmoid(sum(r)), torch.sigmoid(sum(z))
    n = torch.tanh(n[0] + r * n[1])
    return (1 - z) * n + z * h


@wrong("gru_step", says="z and 1 - z are swapped")
def as_in_cho_s_code(x, h, W_ih, W_hh, b_ih, b_hh):
    r, z, n = thirds(x, h, W_ih, W_hh, b_ih, b_hh)
    r, z = torch.sigmoid(sum(r)), torch.sigmoid(sum(z))
    n = torch.tanh(n[0] + r * n[1])
    return z * n + (1 - z) * h


@wrong("gru_step", says="before the matrix")
def reset_before(x, h, W_ih, W_hh, b_ih, b_hh):
    r, z, n = thirds(x, h, W_ih, W_hh, b_ih, b_hh)
    r, z = torch.sigmoid(sum(r)), torch.sigmoid(sum(z))
    D = h.shape[1]
    n = torch.tanh(n[0] + (r * h) @ W_hh[2 * D :].T + b_hh[2 * D :])
    return (1 - z) * n + z * h


@wrong("gru_step", says="outside of r")
def merged_biases(x, h, W_ih, W_hh, b_ih, b_hh):
    return mixed(*thirds(x, h, W_ih, W_hh, b_ih + b_hh, 0 * b_hh), h)


@wrong("gru_step", says="r and z are swapped")
def update_first(x, h, W_ih, W_hh, b_ih, b_hh):
    return mixed(*thirds(x, h, W_ih, W_hh, b_ih, b_hh, "zrn"), h)


@wrong("gru_step", says="r is not used")
def no_reset(x, h, W_ih, W_hh, b_ih, b_hh):
    a = x @ W_ih.T + b_ih + h @ W_hh.T + b_hh
    _, z, n = a.chunk(3, dim=1)
    z = z.sigmoid()
    return (1 - z) * n.tanh() + z * h


@wrong("gru_step", says="input's part too")
def reset_of_the_sum(x, h, W_ih, W_hh, b_ih, b_hh):
    r, z, n = thirds(x, h, W_ih, W_hh, b_ih, b_hh)
    n = torch.tanh(torch.sigmoid(sum(r)) * sum(n))
    z = torch.sigmoid(sum(z))
    return (1 - z) * n + z * h


@wrong("gru_step", says="It comes back twice")
def two_results(x, h, W_ih, W_hh, b_ih, b_hh):
    h = mixed(*thirds(x, h, W_ih, W_hh, b_ih, b_hh), h)
    return h, h


@wrong("gru_step", says="b_hh is missing")
def one_bias(x, h, W_ih, W_hh, b_ih, b_hh):
    return mixed(*thirds(x, h, W_ih, W_hh, b_ih, torch.zeros_like(b_hh)), h)


@wrong("gru_step", says="cut by C")
def input_s_length_again(x, h, W_ih, W_hh, b_ih, b_hh):
    n = x.shape[1]
    a, u = x @ W_ih.T + b_ih, h @ W_hh.T + b_hh
    r, z = torch.sigmoid(a[:, :n] + u[:, :n]), torch.sigmoid(a[:, n : 2 * n] + u[:, n : 2 * n])
    return (1 - z) * torch.tanh(a[:, 2 * n :] + r * u[:, 2 * n :]) + z * h


@wrong("gru_step", says="there it is b_hh")
def one_bias_for_both(x, h, W_ih, W_hh, b_ih, b_hh):
    return mixed(*thirds(x, h, W_ih, W_hh, b_ih, b_ih), h)


@wrong("gru_step", says="A tanh too many")
def squashed_mixture(x, h, W_ih, W_hh, b_ih, b_hh):
    return torch.tanh(mixed(*thirds(x, h, W_ih, W_hh, b_ih, b_hh), h))


@wrong("gru_step", says="z has no sigmoid")
def raw_z(x, h, W_ih, W_hh, b_ih, b_hh):
    r, z, n = thirds(x, h, W_ih, W_hh, b_ih, b_hh)
    z = sum(z)
    return (1 - z) * torch.tanh(n[0] + torch.sigmoid(sum(r)) * n[1]) + z * h


@right("gru_step")
def by_slices_of_rows(x, h, W_ih, W_hh, b_ih, b_hh):
    D = h.size(1)
    gi, gh = F.linear(x, W_ih, b_ih), F.linear(h, W_hh, b_hh)
    r = torch.sigmoid(gi[:, :D] + gh[:, :D])
    z = torch.sigmoid(gi[:, D : 2 * D] + gh[:, D : 2 * D])
    n = torch.tanh(gi[:, 2 * D :] + r * gh[:, 2 * D :])
    return n + z * (h - n)


@right("gru_step")
def by_lerp(x, h, W_ih, W_hh, b_ih, b_hh):
    (x_r, x_z, x_n), (h_r, h_z, h_n) = (a.tensor_split(3, dim=-1) for a in (x @ W_ih.mT + b_ih, h @ W_hh.mT + b_hh))
    n = torch.tanh(torch.addcmul(x_n, torch.sigmoid(x_r + h_r), h_n))
    return torch.lerp(n, h, torch.sigmoid(x_z + h_z))


# ------------------------------------------------------------------------------------------------ last_states


@wrong("last_states", says="reads the last column")
def last_column(outputs, lengths):
    return outputs[:, -1, :]


@wrong("last_states", says="two lists pick pairs")
def steps_first(outputs, lengths):
    return outputs[lengths - 1, torch.arange(len(outputs))]


@wrong("last_states", says="too early")
def minus_two(outputs, lengths):
    return outputs[torch.arange(len(outputs)), lengths - 2]


@wrong("last_states", says=".expand(-1, 1, D)")
def gathers_one_feature(outputs, lengths):
    return outputs.gather(1, (lengths - 1)[:, None, None]).squeeze(1)


@wrong("last_states", says="runs past the end")
def counted_from_one(outputs, lengths):
    return outputs[torch.arange(len(outputs)), lengths]


@wrong("last_states", says="One column too far")
def clamped(outputs, lengths):
    return outputs[torch.arange(len(outputs)), lengths.clamp(max=outputs.shape[1] - 1)]


@wrong("last_states", says="pairs are wanted")
def all_columns(outputs, lengths):
    return outputs[:, lengths - 1]


@wrong("last_states", says="mean over each sequence")
def mean_of_what_is_there(outputs, lengths):
    mask = torch.arange(outputs.shape[1])[None] < lengths[:, None]
    return (outputs * mask[..., None]).sum(1) / lengths[:, None]


@wrong("last_states", says="largest over all columns")
def max_pool(outputs, lengths):
    return outputs.max(dim=1).values


@wrong("last_states", says="order of the lengths")
def packed_order(outputs, lengths):
    order = torch.argsort(lengths, descending=True, stable=True)
    return outputs[order, lengths[order] - 1]


@wrong("last_states", says="longest's")
def at_the_longest(outputs, lengths):
    return outputs[:, max(lengths) - 1]


@right("last_states")
def by_gather(outputs, lengths):
    index = (lengths - 1).view(-1, 1, 1).expand(-1, 1, outputs.size(2))
    return outputs.gather(1, index).squeeze(1)


@right("last_states")
def by_loop(outputs, lengths):
    return torch.stack([outputs[i, n - 1] for i, n in enumerate(lengths.tolist())])


@right("last_states")
def by_mask(outputs, lengths):
    hit = torch.arange(outputs.shape[1]) == (lengths - 1)[:, None]
    return outputs[hit]


# ------------------------------------------------------------------------------------------------ bits_per_character


def windows_of(ids, window):
    return zip(ids[:-1].split(window), ids[1:].split(window), strict=True)


@wrong("bits_per_character", says="begins anew at each window")
def no_state(model, ids, window):
    model.eval()
    total = 0
    with torch.no_grad():
        for x, y in windows_of(ids, window):
            logits, _ = model(x[None], None)
            total += F.cross_entropy(logits[0], y, reduction="sum").item()
    return total / (len(ids) - 1) / math.log(2)


@wrong("bits_per_character", says="All of the text goes through at once")
def at_once(model, ids, window):
    model.eval()
    with torch.no_grad():
        logits, _ = model(ids[None, :-1], None)
        return F.cross_entropy(logits[0], ids[1:]).item() / math.log(2)


@wrong("bits_per_character", says="never predicted")
def inside_of_windows(model, ids, window):
    model.eval()
    state, total = None, 0
    with torch.no_grad():
        for piece in ids.split(window + 1):
            if len(piece) < 2:
                continue
            logits, state = model(piece[None, :-1], state)
            total += F.cross_entropy(logits[0], piece[1:], reduction="sum").item()
    return total / (len(ids) - 1) / math.log(2)


@wrong("bits_per_character", says="short last window is left out")
def full_windows_only(model, ids, window):
    model.eval()
    state, total, n = None, 0, 0
    with torch.no_grad():
        for start in range(0, len(ids) - window, window):
            logits, state = model(ids[None, start : start + window], state)
            y = ids[start + 1 : start + window + 1]
            total += F.cross_entropy(logits[0], y, reduction="sum").item()
            n += len(y)
    return total / max(n, 1) / math.log(2)


@wrong("bits_per_character", says="never predicted")
def cuts_before_it_shifts(model, ids, window):
    model.eval()
    state, total, n = None, 0, 0
    with torch.no_grad():
        for piece in ids.split(window):
            if len(piece) > 1:
                logits, state = model(piece[None, :-1], state)
                total += F.cross_entropy(logits[0], piece[1:], reduction="sum").item()
                n += len(piece) - 1
    return total / max(n, 1) / math.log(2)


@wrong("bits_per_character", says="without the batch")
def targets_as_a_batch(model, ids, window):
    model.eval()
    state, total = None, 0
    with torch.no_grad():
        for x, y in windows_of(ids, window):
            logits, state = model(x[None], state)
            total += F.cross_entropy(logits, y[None], reduction="sum").item()
    return total / (len(ids) - 1) / math.log(2)


@wrong("bits_per_character", says="something added to p")
def at_most_thirty_bits(model, ids, window):
    model.eval()
    state, total = None, 0
    with torch.no_grad():
        for x, y in windows_of(ids, window):
            logits, state = model(x[None], state)
            total -= torch.log2(logits[0].softmax(1).gather(1, y[:, None]) + 1e-9).sum().item()
    return total / (len(ids) - 1)


@wrong("bits_per_character", says="mean of the windows' means")
def mean_of_means(model, ids, window):
    model.eval()
    state, losses = None, []
    with torch.no_grad():
        for x, y in windows_of(ids, window):
            logits, state = model(x[None], state)
            losses.append(F.cross_entropy(logits[0], y).item())
    return float(np.mean(losses)) / math.log(2)


@wrong("bits_per_character", says="These are nats")
def in_nats(model, ids, window):
    model.eval()
    state, total = None, 0
    with torch.no_grad():
        for x, y in windows_of(ids, window):
            logits, state = model(x[None], state)
            total += F.cross_entropy(logits[0], y, reduction="sum").item()
    return total / (len(ids) - 1)


@wrong("bits_per_character", says="divides by all N")
def by_n(model, ids, window):
    return shorter(model, ids, window) * (len(ids) - 1) / len(ids)


@wrong("bits_per_character", says="graph of the whole text")
def with_graph(model, ids, window):
    model.eval()
    state, total = None, 0
    for x, y in windows_of(ids, window):
        logits, state = model(x[None], state)
        total += F.cross_entropy(logits[0], y, reduction="sum").item()
    return total / (len(ids) - 1) / math.log(2)


@wrong("bits_per_character", says="not in evaluation mode")
def as_it_was(model, ids, window):
    state, total = None, 0
    with torch.no_grad():
        for x, y in windows_of(ids, window):
            logits, state = model(x[None], state)
            total += F.cross_entropy(logits[0], y, reduction="sum").item()
    return total / (len(ids) - 1) / math.log(2)


@wrong("bits_per_character", says=".item() or float")
def a_tensor(model, ids, window):
    return torch.tensor(shorter(model, ids, window))


@wrong("bits_per_character", says="No model.train()")
def back_to_training(model, ids, window):
    bits = shorter(model, ids, window)
    model.train()
    return bits


@right("bits_per_character")
@torch.no_grad()
def shorter(model, ids, window):
    model.eval()
    state, surprise = None, []
    for start in range(0, len(ids) - 1, window):
        end = min(start + window, len(ids) - 1)
        logits, state = model(ids[start:end].unsqueeze(0), state)
        p = logits.squeeze(0).softmax(1)[torch.arange(end - start), ids[start + 1 : end + 1]]
        surprise.append(-torch.log2(p))
    return torch.cat(surprise).mean().item()


@right("bits_per_character")
def in_inference_mode(model, ids, window):
    model.train(False)
    with torch.inference_mode():
        state, found, k = None, 0.0, 0
        while k < len(ids) - 1:
            x = ids[k : k + window][: len(ids) - 1 - k]
            out, state = model(x[None], state)
            log_p = torch.log_softmax(out, -1)[0]
            found -= sum(log_p[t, ids[k + t + 1]].item() for t in range(len(x)))
            k += len(x)
    return found / k / np.log(2).item()


@right("bits_per_character")
def reads_the_last_one_too(model, ids, window):
    model.eval()
    state, nats, n = None, 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids), window):
            logits, state = model(ids[None, start : start + window], state)
            targets = ids[start + 1 : start + window + 1]
            if len(targets):
                nats += nn.CrossEntropyLoss(reduction="sum")(logits[0, : len(targets)], targets).item()
                n += len(targets)
    return nats / n / math.log(2)


# ------------------------------------------------------------------------------------------------ sample


@wrong("sample", says="multiplies by the temperature")
def hotter_is_surer(logits, temperature, generator):
    p = torch.softmax(logits * temperature, 0)
    return torch.multinomial(p, 1, generator=generator).item()


@wrong("sample", says="keep their ratios")
def too_late(logits, temperature, generator):
    p = torch.softmax(logits, 0) / temperature
    return torch.multinomial(p, 1, generator=generator).item()


@wrong("sample", says="argmax is no draw")
def greedy(logits, temperature, generator):
    return (logits / temperature).argmax().item()


@wrong("sample", says="overflows")
def own_exp(logits, temperature, generator):
    e = torch.exp(logits / temperature)
    return torch.multinomial(e / e.sum(), 1, generator=generator).item()


@wrong("sample", says="Draw with the generator")
def own_draw(logits, temperature, generator):
    return torch.multinomial(torch.softmax(logits / temperature, 0), 1).item()


@wrong("sample", says="softmax comes first and again")
def twice_softmax(logits, temperature, generator):
    p = torch.softmax(torch.softmax(logits, 0) / temperature, 0)
    return torch.multinomial(p, 1, generator=generator).item()


@wrong("sample", says=".item() takes the number out")
def still_a_tensor(logits, temperature, generator):
    return torch.multinomial(torch.softmax(logits / temperature, 0), 1, generator=generator)


@wrong("sample", says="changes its input logits")
def divides_in_place(logits, temperature, generator):
    logits /= temperature
    return torch.multinomial(torch.softmax(logits, 0), 1, generator=generator).item()


@wrong("sample", says="power is taken")
def to_the_power(logits, temperature, generator):
    p = torch.softmax(logits, 0) ** (1 / temperature)
    return torch.multinomial(p / p.sum(), 1, generator=generator).item()


@wrong("sample", says="no symbol is left out")
def ten_likeliest(logits, temperature, generator):
    values, places = (logits / temperature).topk(min(10, len(logits)))
    return places[torch.multinomial(torch.softmax(values, 0), 1, generator=generator)].item()


@wrong("sample", says="held above a bound")
def never_colder(logits, temperature, generator):
    return torch.multinomial(torch.softmax(logits / max(temperature, 0.1), 0), 1, generator=generator).item()


@wrong("sample", says="nothing is added to p")
def with_an_epsilon(logits, temperature, generator):
    z = torch.log(torch.softmax(logits, 0) + 1e-10) / temperature
    return torch.multinomial(torch.softmax(z, 0), 1, generator=generator).item()


@wrong("sample", says="no clamp")
def clamped_logits(logits, temperature, generator):
    p = torch.softmax(logits.clamp(min=-20) / temperature, 0)
    return torch.multinomial(p, 1, generator=generator).item()


@wrong("sample", says="softmax first")
def from_logits(logits, temperature, generator):
    return torch.multinomial(logits / temperature, 1, generator=generator).item()


@right("sample")
def by_gumbel(logits, temperature, generator):
    u = torch.rand(len(logits), generator=generator, dtype=torch.float64)
    return int((logits.double() / temperature - torch.log(-torch.log(u))).argmax())


@right("sample")
def by_sums(logits, temperature, generator):
    z = logits.double() / temperature
    p = torch.exp(z - torch.logsumexp(z, 0))
    u = torch.rand((), generator=generator, dtype=torch.float64)
    return min(int((p.cumsum(0) < u).sum()), len(p) - 1)
