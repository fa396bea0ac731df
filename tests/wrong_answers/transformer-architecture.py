"""Answers to transformer-architecture: wrong ones named for the misconception, and right ones."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ sinusoidal


@wrong("sinusoidal", says="they take turns")
def halves_of_sines(T, D):
    angles = torch.arange(T).unsqueeze(1) / 10000 ** (torch.arange(0, D, 2) / D)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


@wrong("sinusoidal", says="it is -2i/D")
def half_the_exponent(T, D):
    i = torch.arange(D // 2)
    angles = torch.arange(T)[:, None] * 10000.0 ** (-i / D)
    P = torch.empty(T, D)
    P[:, ::2] = torch.sin(angles)
    P[:, 1::2] = torch.cos(angles)
    return P


@wrong("sinusoidal", says="The 2 is in it twice")
def twice_the_exponent(T, D):
    angles = torch.arange(T)[:, None] * 10000.0 ** (-2 * torch.arange(0, D, 2) / D)
    P = torch.empty(T, D)
    P[:, ::2], P[:, 1::2] = angles.sin(), angles.cos()
    return P


@wrong("sinusoidal", says="its own frequency")
def column_by_column(T, D):
    P = torch.zeros(T, D)
    for t in range(T):
        for j in range(D):
            angle = t / 10000 ** (j / D)
            P[t, j] = math.sin(angle) if j % 2 == 0 else math.cos(angle)
    return P


@wrong("sinusoidal", says="Sine and cosine are exchanged")
def cosine_first(T, D):
    angles = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(0, D, 2) / D)
    P = torch.zeros(T, D)
    P[:, 0::2], P[:, 1::2] = angles.cos(), angles.sin()
    return P


@wrong("sinusoidal", says="begin at 1")
def from_one(T, D):
    angles = torch.arange(1, T + 1)[:, None] * 10000.0 ** (-torch.arange(0, D, 2) / D)
    return torch.stack([angles.sin(), angles.cos()], -1).reshape(T, D)


@wrong("sinusoidal", says="float32")
def by_numpy_in_double(T, D):
    angles = np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D)
    return torch.from_numpy(np.stack([np.sin(angles), np.cos(angles)], -1).reshape(T, D))


@wrong("sinusoidal", says="is a table cut")
def first_rows_of_5000(T, D):
    t, P = torch.arange(5000)[:, None], torch.zeros(5000, D)
    rates = torch.exp(torch.arange(0, D, 2) * (-math.log(10000.0) / D))
    P[:, 0::2], P[:, 1::2] = torch.sin(t * rates), torch.cos(t * rates)
    return P[:T]


@wrong("sinusoidal", says="the column's number")
def twice_the_column(T, D):
    P = torch.zeros(T, D)
    for t in range(T):
        for c in range(D):
            angle = t / 10000 ** (2 * c / D)
            P[t, c] = math.sin(angle) if c % 2 == 0 else math.cos(angle)
    return P


@right("sinusoidal")
def entry_by_entry(T, D):
    rows = []
    for t in range(T):
        row = []
        for i in range(D // 2):
            angle = t * 10000 ** (-2 * i / D)
            row += [math.sin(angle), math.cos(angle)]
        rows.append(row)
    return torch.tensor(rows)


@right("sinusoidal")
def by_logarithm(T, D):
    rates = torch.exp(torch.arange(0, D, 2) * (-math.log(10000.0) / D))
    angles = torch.outer(torch.arange(T).float(), rates)
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(T, D)


# ------------------------------------------------------------------------------------------------ rope


@wrong("rope", says="The pairs are neighbours")
def as_in_the_paper(x, positions, base=10000.0):
    E = x.shape[-1]
    angles = positions[:, None] * base ** (-torch.arange(0, E, 2) / E)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    out = torch.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out


@wrong("rope", says="turns the wrong way")
def backwards(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    angles = positions[:, None] * base ** (-torch.arange(h) / h)
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., :h], x[..., h:]
    return torch.cat([a * cos + b * sin, b * cos - a * sin], -1).to(x.dtype)


@wrong("rope", says="positions that are given are not used")
def counts_by_itself(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * base ** (-torch.arange(h) / h)
    cos, sin = angles.cos(), angles.sin()
    a, b = x[..., :h], x[..., h:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


@wrong("rope", says="One frequency for all pairs")
def one_frequency(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    angles = positions[:, None].to(x.dtype).expand(-1, h)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


@wrong("rope", says="The exponent is -i/E")
def slow_to_fall(x, positions, base=10000.0):
    E = x.shape[-1]
    angles = positions[:, None] * base ** (-torch.arange(E // 2) / E)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1).to(x.dtype)


@wrong("rope", says="repeat_interleave")
def mixed_layouts(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    angles = (positions[:, None] * base ** (-torch.arange(h) / h)).repeat_interleave(2, -1)
    half = torch.cat([-x[..., h:], x[..., :h]], -1)
    return (x * angles.cos() + half * angles.sin()).to(x.dtype)


@wrong("rope", says="base is an argument")
def always_ten_thousand(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    angles = positions[:, None] * 10000.0 ** (-torch.arange(h) / h)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1).to(x.dtype)


@wrong("rope", says="new a")
def overwritten(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    angles = positions[:, None] * base ** (-torch.arange(h) / h)
    a, b = x.chunk(2, -1)
    a = a * angles.cos() - b * angles.sin()
    b = a * angles.sin() + b * angles.cos()
    return torch.cat([a, b], -1).to(x.dtype)


@wrong("rope", says=".reshape")
def by_view(x, positions, base=10000.0):
    return half_turned(x.view(-1, *x.shape[-2:]), positions, base).view(x.shape)


@wrong("rope", says="2048")
def table_of_2048(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    angles = torch.arange(2048)[:, None] * base ** (-torch.arange(h) / h)
    cos, sin, (a, b) = angles.cos()[positions], angles.sin()[positions], x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


@wrong("rope", says="It is float32, not float64")
def always_single(x, positions, base=10000.0):
    return half_turned(x.float(), positions, base)


@right("rope")
def half_turned(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    angles = positions[:, None].to(x.dtype) / base ** (torch.arange(h, dtype=x.dtype) / h)
    angles = torch.cat([angles, angles], -1)
    return x * angles.cos() + torch.cat([-x[..., h:], x[..., :h]], -1) * angles.sin()


@right("rope")
def as_complex(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    z = torch.complex(x[..., :h].double(), x[..., h:].double())
    angles = torch.outer(positions.double(), base ** (-torch.arange(h, dtype=torch.float64) / h))
    z = z * torch.exp(1j * angles)
    return torch.cat([z.real, z.imag], -1).to(x.dtype)


@right("rope")
def in_single_precision(x, positions, base=10000.0):
    E = x.shape[-1]
    rates = 1.0 / base ** (torch.arange(0, E, 2).float() / E)
    angles = torch.einsum("t,e->te", positions.float(), rates)
    a, b = x.split(E // 2, -1)
    first = a * angles.cos() - b * angles.sin()
    second = b * angles.cos() + a * angles.sin()
    return torch.cat((first, second), dim=-1).type_as(x)


# ------------------------------------------------------------------------------------------------ block


@wrong("block", says="post-norm")
def as_in_2017(x, attend, mlp, norm1, norm2):
    x = norm1(x + attend(x))
    return norm2(x + mlp(x))


@wrong("block", says="added to is the norm of x")
def residual_of_the_norm(x, attend, mlp, norm1, norm2):
    x = norm1(x)
    x = x + attend(x)
    x = norm2(x)
    return x + mlp(x)


@wrong("block", says="The mlp reads the x of the beginning")
def both_at_once(x, attend, mlp, norm1, norm2):
    a = attend(norm1(x))
    m = mlp(norm2(x))
    return x + a + m


@wrong("block", says="second residual path is missing")
def forgets_the_stream(x, attend, mlp, norm1, norm2):
    x = x + attend(norm1(x))
    return mlp(norm2(x))


@wrong("block", says="norm1 stands before both")
def one_norm(x, attend, mlp, norm1, norm2):
    x = x + attend(norm1(x))
    x = x + mlp(norm1(x))
    return x


@wrong("block", says="first residual path is missing")
def no_first(x, attend, mlp, norm1, norm2):
    h = attend(norm1(x))
    return h + mlp(norm2(h))


@wrong("block", says="x")
def in_place(x, attend, mlp, norm1, norm2):
    x += attend(norm1(x))
    x += mlp(norm2(x))
    return x


@wrong("block", says="called")
def twice(x, attend, mlp, norm1, norm2):
    return x + attend(norm1(x)) + mlp(norm2(x + attend(norm1(x))))


@wrong("block", says="All rows of the batch")
def row_by_row(x, attend, mlp, norm1, norm2):
    return torch.cat([by_a_loop(row, attend, mlp, norm1, norm2) for row in x.split(1)])


@wrong("block", says="writes into what a part gave")
def into_a_part(x, attend, mlp, norm1, norm2):
    y = attend(norm1(x))
    y += x
    return y + mlp(norm2(y))


@wrong("block", says="mlp is a function of (B, T, D)")
def flat_mlp(x, attend, mlp, norm1, norm2):
    x = x + attend(norm1(x))
    return x + mlp(norm2(x).flatten(0, 1)).view_as(x)


@wrong("block", says="norm1 is not used")
def its_own_norm(x, attend, mlp, norm1, norm2):
    x = x + attend(F.layer_norm(x, x.shape[-1:]))
    return x + mlp(norm2(x))


@wrong("block", says="The second norm is missing")
def no_second_norm(x, attend, mlp, norm1, norm2):
    x = x + attend(norm1(x))
    return x + mlp(x)


@right("block")
def with_names(x, attend, mlp, norm1, norm2):
    found = attend(norm1(x))
    between = torch.add(x, found)
    return torch.stack([between, mlp(norm2(between))]).sum(0)


@right("block")
def by_a_loop(x, attend, mlp, norm1, norm2):
    for norm, part in ((norm1, attend), (norm2, mlp)):
        x = x + part(norm(x))
    return x


# ------------------------------------------------------------------------------------------------ decoder_block


@wrong("decoder_block", says="Memory asks")
def memory_asks(x, memory, mask, attend, cross, mlp, norms):
    x = x + attend(norms[0](x))
    x = x + cross(memory, norms[1](x), mask)
    return x + mlp(norms[2](x))


@wrong("decoder_block", says="The memory is normed")
def memory_normed(x, memory, mask, attend, cross, mlp, norms):
    x = x + attend(norms[0](x))
    x = x + cross(norms[1](x), norms[1](memory), mask)
    return x + mlp(norms[2](x))


@wrong("decoder_block", says="turned around")
def mask_of_pytorch(x, memory, mask, attend, cross, mlp, norms):
    x = x + attend(norms[0](x))
    x = x + cross(norms[1](x), memory, ~mask)
    return x + mlp(norms[2](x))


@wrong("decoder_block", says="order is attend, cross, mlp")
def looks_across_first(x, memory, mask, attend, cross, mlp, norms):
    n1, n2, n3 = norms
    x = x + cross(n2(x), memory, mask)
    x = x + attend(n1(x))
    return x + mlp(n3(x))


@wrong("decoder_block", says="around cross is missing")
def replaced(x, memory, mask, attend, cross, mlp, norms):
    x = x + attend(norms[0](x))
    x = cross(norms[1](x), memory, mask)
    return x + mlp(norms[2](x))


@wrong("decoder_block", says="before cross is missing")
def unnormed_query(x, memory, mask, attend, cross, mlp, norms):
    x = x + attend(norms[0](x))
    x = x + cross(x, memory, mask)
    return x + mlp(norms[2](x))


@wrong("decoder_block", says="its third argument")
def no_mask(x, memory, mask, attend, cross, mlp, norms):
    x = x + attend(norms[0](x))
    x = x + cross(norms[1](x), memory, None)
    return x + mlp(norms[2](x))


@wrong("decoder_block", says="post-norm")
def after_each(x, memory, mask, attend, cross, mlp, norms):
    x = norms[0](x + attend(x))
    x = norms[1](x + cross(x, memory, mask))
    return norms[2](x + mlp(x))


@wrong("decoder_block", says="writes into what a part gave")
def into_the_parts(x, memory, mask, attend, cross, mlp, norms):
    y = attend(norms[0](x))
    y += x
    z = cross(norms[1](y), memory, mask)
    z += y
    return z + mlp(norms[2](z))


@wrong("decoder_block", says="pop takes them out")
def popped(x, memory, mask, attend, cross, mlp, norms):
    norms = norms if isinstance(norms, list) else list(norms)
    x = x + attend(norms.pop(0)(x))
    x = x + cross(norms.pop(0)(x), memory, mask)
    return x + mlp(norms.pop(0)(x))


@wrong("decoder_block", says="memory goes into cross whole")
def memory_cut(x, memory, mask, attend, cross, mlp, norms):
    x, T = x + attend(norms[0](x)), x.shape[1]
    x = x + cross(norms[1](x), memory[:, :T], mask[:, :T])
    return x + mlp(norms[2](x))


@right("decoder_block")
def unpacked(x, memory, mask, attend, cross, mlp, norms):
    before_attend, before_cross, before_mlp = norms
    own = x + attend(before_attend(x))
    seen = own + cross(before_cross(own), memory, mask)
    return seen + mlp(before_mlp(seen))


@right("decoder_block")
def with_partial(x, memory, mask, attend, cross, mlp, norms):
    for norm, part in zip(norms, (attend, lambda n: cross(n, memory, mask), mlp), strict=True):
        x = torch.add(part(norm(x)), x)
    return x


# ------------------------------------------------------------------------------------------------ cached_attention


def rope(x, positions, base=10000.0):
    h = x.shape[-1] // 2
    angles = positions[:, None] * base ** (-torch.arange(h, dtype=x.dtype) / h)
    a, b = x[..., :h], x[..., h:]
    return torch.cat([a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()], -1)


@wrong("cached_attention", says="Positions restart at 0")
def restarts(q, k, v, cache=None):
    here = torch.arange(q.shape[2])
    q, k = rope(q, here), rope(k, here)
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    T, S = q.shape[2], k.shape[2]
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)


@wrong("cached_attention", says="is_causal=True does that")
def causal_by_a_flag(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    here = torch.arange(P, P + q.shape[2])
    q, k = rope(q, here), rope(k, here)
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True), (k, v)


@wrong("cached_attention", says="There is no mask")
def no_staircase(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].size(2)
    here = torch.arange(P, P + q.size(2))
    q, k = rope(q, here), rope(k, here)
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    return F.scaled_dot_product_attention(q, k, v), (k, v)


@wrong("cached_attention", says="turned once more")
def turns_all_again(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    T = q.shape[2]
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    q, k = rope(q, torch.arange(P, P + T)), rope(k, torch.arange(P + T))
    mask = torch.ones(T, P + T, dtype=torch.bool).tril(P)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)


@wrong("cached_attention", says="keep them turned")
def keeps_them_unturned(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    T = q.shape[2]
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    turned = rope(k, torch.arange(P + T))
    mask = torch.ones(T, P + T, dtype=torch.bool).tril(P)
    return F.scaled_dot_product_attention(rope(q, torch.arange(P, P + T)), turned, v, attn_mask=mask), (k, v)


@wrong("cached_attention", says="the new keys and values only")
def forgets(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    T = q.shape[2]
    here = torch.arange(P, P + T)
    q, k = rope(q, here), rope(k, here)
    keys, values = (k, v) if cache is None else (torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2))
    mask = torch.ones(T, P + T, dtype=torch.bool).tril(P)
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask), (k, v)


@wrong("cached_attention", says="True may look")
def ignores_where_true(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    T = q.shape[2]
    here = torch.arange(P, P + T)
    q, k = rope(q, here), rope(k, here)
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    mask = torch.ones(T, P + T, dtype=torch.bool).triu(P + 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).nan_to_num(), (k, v)


@wrong("cached_attention", says="not turned")
def turns_queries_only(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    T = q.shape[2]
    q = rope(q, torch.arange(P, P + T))
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    mask = torch.ones(T, P + T, dtype=torch.bool).tril(P)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)


@wrong("cached_attention", says="values are turned as well")
def turns_everything(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    T = q.shape[2]
    here = torch.arange(P, P + T)
    q, k, v = (rope(x, here) for x in (q, k, v))
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    mask = torch.ones(T, P + T, dtype=torch.bool).tril(P)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)


@wrong("cached_attention", says="cut at a fixed length")
def the_last_64(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    T = q.shape[2]
    here = torch.arange(P, P + T)
    q, k = rope(q, here), rope(k, here)
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    mask = torch.ones(T, P + T, dtype=torch.bool).tril(P)[:, -64:]
    return F.scaled_dot_product_attention(q, k[:, :, -64:], v[:, :, -64:], attn_mask=mask), (k, v)


@wrong("cached_attention", says="cut at a fixed length")
def positions_modulo_128(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    T = q.shape[2]
    here = torch.arange(P, P + T) % 128
    q, k = rope(q, here), rope(k, here)
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    mask = torch.ones(T, P + T, dtype=torch.bool).tril(P)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)


@wrong("cached_attention", says="a prompt in pieces")
def causal_for_several(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    here = torch.arange(P, P + q.shape[2])
    q, k = rope(q, here), rope(k, here)
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1), (k, v)


@wrong("cached_attention", says="The mask is T × T")
def square_mask(q, k, v, cache=None):
    P = 0 if cache is None else cache[0].shape[2]
    T = q.shape[2]
    q, k = rope(q, torch.arange(P, P + T)), rope(k, torch.arange(P, P + T))
    if cache is not None:
        k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), (k, v)


@right("cached_attention")
def by_hand(q, k, v, cache=None):
    T, E = q.shape[2:]
    P = cache[0].size(-2) if cache else 0
    positions = torch.arange(T) + P
    q, k = rope(q, positions), rope(k, positions)
    if cache:
        k, v = torch.cat((cache[0], k), dim=-2), torch.cat((cache[1], v), dim=-2)
    scores = torch.einsum("bhte,bhse->bhts", q, k) / math.sqrt(E)
    may_look = torch.arange(P + T)[None] <= positions[:, None]
    weights = scores.masked_fill(~may_look, float("-inf")).softmax(-1)
    return torch.einsum("bhts,bhse->bhte", weights, v), (k, v)


@right("cached_attention")
def one_at_a_time(q, k, v, cache=None):
    outputs = []
    for t in range(q.shape[2]):
        keys, values = cache if cache is not None else (k[:, :, :0], v[:, :, :0])
        here = torch.tensor([keys.shape[2]])
        keys = torch.cat([keys, rope(k[:, :, t : t + 1], here)], 2)
        values = torch.cat([values, v[:, :, t : t + 1]], 2)
        outputs.append(F.scaled_dot_product_attention(rope(q[:, :, t : t + 1], here), keys, values))
        cache = keys, values
    return torch.cat(outputs, 2), cache


# ------------------------------------------------------------------------------------------------ generate


@wrong("generate", says="computed anew")
def no_cache(step, ids, n):
    for _ in range(n):
        logits, _ = step(ids, None)
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids


@wrong("generate", says="with the cache they count twice")
def the_whole_with_the_cache(step, ids, n):
    cache = None
    for _ in range(n):
        logits, cache = step(ids, cache)
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@wrong("generate", says="not handed on")
def cache_lost(step, ids, n):
    new = ids
    for _ in range(n):
        logits, _ = step(new, None)
        new = logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, new], 1)
    return ids


@wrong("generate", says="first position")
def first_logits(step, ids, n):
    new, cache = ids, None
    for _ in range(n):
        logits, cache = step(new, cache)
        new = logits[:, 0].argmax(-1)[:, None]
        ids = torch.cat([ids, new], 1)
    return ids


@wrong("generate", says="keeps the axis of T")
def axis_lost(step, ids, n):
    new, cache = ids, None
    for _ in range(n):
        logits, cache = step(new, cache)
        new = logits[:, -1].argmax(-1)
        ids = torch.cat([ids, new[:, None]], 1)
    return ids


@wrong("generate", says="prompt stands before them")
def only_the_new(step, ids, n):
    new, cache, out = ids, None, [ids[:, :0]]
    for _ in range(n):
        logits, cache = step(new, cache)
        new = logits[:, -1:].argmax(-1)
        out.append(new)
    return torch.cat(out, 1)


@wrong("generate", says="Only the last id of the prompt")
def last_of_the_prompt(step, ids, n):
    new, cache = ids[:, -1:], None
    for _ in range(n):
        logits, cache = step(new, cache)
        new = logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, new], 1)
    return ids


@wrong("generate", says="The prompt goes in as a whole")
def the_last_64_of_the_prompt(step, ids, n):
    new, cache = ids[:, -64:], None
    for _ in range(n):
        logits, cache = step(new, cache)
        new = logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, new], 1)
    return ids


@wrong("generate", says="none of the prompt again")
def last_id_again(step, ids, n):
    _, cache = step(ids, None)
    for _ in range(n):
        logits, cache = step(ids[:, -1:], cache)
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids


@wrong("generate", says="counts as false")
def cache_or_none(step, ids, n):
    new, cache = ids, None
    for _ in range(n):
        logits, cache = step(new, cache or None)
        new = logits[:, -1:].argmax(-1)
        ids = torch.cat([ids, new], 1)
    return ids


@wrong("generate", says="All rows go in together")
def each_row_alone(step, ids, n):
    return torch.cat([filled_in(step, row, n) for row in ids.split(1)])


@wrong("generate", says="int32")
def in_32_bits(step, ids, n):
    return filled_in(step, ids, n).int()


@right("generate")
def prompt_first(step, ids, n):
    if n == 0:
        return ids.clone()
    logits, cache = step(ids, None)
    out = [ids, logits[:, -1].argmax(1, keepdim=True)]
    while len(out) <= n:
        logits, cache = step(out[-1], cache)
        out.append(logits[:, -1].argmax(1, keepdim=True))
    return torch.cat(out, 1)


@right("generate")
def filled_in(step, ids, n):
    B, T = ids.shape
    out = ids.new_zeros(B, T + n)
    out[:, :T] = ids
    cache, begin = None, 0
    for t in range(T, T + n):
        logits, cache = step(out[:, begin:t], cache)
        out[:, t] = torch.max(logits[:, -1], -1).indices
        begin = t
    return out


# ------------------------------------------------------------------------------------------------ window_loss


@wrong("window_loss", says="count twice")
def all_of_each(model, ids, window, stride):
    total, n = 0.0, 0
    for start in range(0, len(ids) - 1, stride):
        end = min(start + window, len(ids) - 1)
        with torch.no_grad():
            logits, _ = model(ids[None, start:end])
        total += F.cross_entropy(logits[0], ids[start + 1 : end + 1], reduction="sum").item()
        n += end - start
        if end == len(ids) - 1:
            break
    return total / n


@wrong("window_loss", says="windows stand side by side")
def side_by_side(model, ids, window, stride):
    total = 0.0
    for start in range(0, len(ids) - 1, window):
        end = min(start + window, len(ids) - 1)
        with torch.no_grad():
            logits, _ = model(ids[None, start:end])
        total += F.cross_entropy(logits[0], ids[start + 1 : end + 1], reduction="sum").item()
    return total / (len(ids) - 1)


@wrong("window_loss", says="targets are the inputs themselves")
def its_own_targets(model, ids, window, stride):
    total, scored, last = 0.0, 0, len(ids) - 1
    for start in range(0, last, stride):
        end = min(start + window, last)
        with torch.no_grad():
            logits, _ = model(ids[start:end].unsqueeze(0))
        losses = F.cross_entropy(logits[0], ids[start:end], reduction="none")
        total += losses[scored - start :].sum().item()
        scored = end
        if end == last:
            break
    return total / last


@wrong("window_loss", says="end of the text is left out")
def whole_windows_only(model, ids, window, stride):
    total, scored, last = 0.0, 0, len(ids) - 1
    start = 0
    while True:
        end = min(start + window, last)
        with torch.no_grad():
            logits, _ = model(ids[None, start:end])
        losses = F.cross_entropy(logits[0], ids[start + 1 : end + 1], reduction="none")
        total += losses[scored - start :].sum().item()
        scored = end
        start += stride
        if start + window > last:
            break
    return total / scored


@wrong("window_loss", says="divides by N")
def over_all(model, ids, window, stride):
    total, scored, last = 0.0, 0, len(ids) - 1
    for start in range(0, last, stride):
        end = min(start + window, last)
        with torch.no_grad():
            logits, _ = model(ids[None, start:end])
        total += F.cross_entropy(logits[0, scored - start :], ids[scored + 1 : end + 1], reduction="sum").item()
        scored = end
        if end == last:
            break
    return total / len(ids)


@wrong("window_loss", says="no_grad")
def with_a_graph(model, ids, window, stride):
    total, scored, last = 0.0, 0, len(ids) - 1
    for start in range(0, last, stride):
        end = min(start + window, last)
        logits, _ = model(ids[None, start:end])
        total += F.cross_entropy(logits[0, scored - start :], ids[scored + 1 : end + 1], reduction="sum").item()
        scored = end
        if end == last:
            break
    return total / last


@wrong("window_loss", says="not one more")
def inputs_and_targets(model, ids, window, stride):
    total, scored, last = 0.0, 0, len(ids) - 1
    for start in range(0, last, stride):
        piece = ids[start : start + window + 1]
        with torch.no_grad():
            logits, _ = model(piece[None])
        losses = F.cross_entropy(logits[0, :-1], piece[1:], reduction="none")
        total += losses[scored - start :].sum().item()
        scored = start + len(losses)
        if scored == last:
            break
    return total / last


@torch.no_grad()
def _over_windows(model, ids, window, stride, choose, to_the_end=True):
    """Losses that choose(losses, start, counted) picks of each window."""
    found, counted, last = [], 0, len(ids) - 1
    for start in range(0, last, stride):
        end = min(start + window, last)
        losses = F.cross_entropy(model(ids[None, start:end])[0][0], ids[start + 1 : end + 1], reduction="none")
        found += choose(losses, start, counted).tolist()
        counted = end
        if to_the_end and end == last:
            break
    return found


@wrong("window_loss", says="goes on behind the window")
def goes_on(model, ids, window, stride):
    losses = _over_windows(model, ids, window, stride, lambda losses, start, counted: losses[counted - start :], False)
    return sum(losses) / len(losses)


@wrong("window_loss", says="ids[8] is counted more than once")
def last_stride_of_each(model, ids, window, stride):
    def choose(losses, start, counted):
        return losses[-stride:] if start else losses

    return sum(_over_windows(model, ids, window, stride, choose)) / (len(ids) - 1)


@wrong("window_loss", says="which reaches the end; yours go on")
def last_stride_of_each_and_on(model, ids, window, stride):
    def choose(losses, start, counted):
        return losses[-stride:] if start else losses

    return sum(_over_windows(model, ids, window, stride, choose, False)) / (len(ids) - 1)


@wrong("window_loss", says="in a later window than the first")
def first_stride_of_each(model, ids, window, stride):
    def choose(losses, start, counted):
        return losses if start + len(losses) == len(ids) - 1 else losses[:stride]

    return sum(_over_windows(model, ids, window, stride, choose)) / (len(ids) - 1)


@wrong("window_loss", says="ids[1], ids[2] are not counted")
def start_left_out(model, ids, window, stride):
    def choose(losses, start, counted):
        return losses[max(counted, window - stride) - start :]

    losses = _over_windows(model, ids, window, stride, choose)
    return sum(losses) / max(len(losses), 1)


@wrong("window_loss", says="Your windows are ids[0:4], ids[2:6], ids[4:8], ids[5:9]")
@torch.no_grad()
def last_one_full(model, ids, window, stride):
    total, counted, begin, last = 0.0, 0, 0, len(ids) - 1
    while counted < last:
        end = min(begin + window, last)
        start = max(end - window, 0)
        losses = F.cross_entropy(model(ids[None, start:end])[0][0], ids[start + 1 : end + 1], reduction="none")
        total, counted, begin = total + losses[counted - start :].sum().item(), end, begin + stride
    return total / last


@right("window_loss")
@torch.no_grad()
def symbol_by_symbol(model, ids, window, stride):
    losses = {}
    for start in range(0, len(ids), stride):
        x = ids[start : start + window][: len(ids) - 1 - start]
        if len(x) == 0:
            break
        log_p = model(x[None])[0][0].log_softmax(-1)
        for t in range(len(x)):
            losses.setdefault(start + t + 1, -log_p[t, ids[start + t + 1]].item())
        if start + window >= len(ids) - 1:
            break
    return sum(losses.values()) / len(losses)


@right("window_loss")
def with_a_while(model, ids, window, stride):
    N, start, counted, total = len(ids), 0, 1, 0.0
    while counted < N:
        x = ids[start : min(start + window, N - 1)]
        with torch.inference_mode():
            logits = model(x[None])[0][0]
        fresh = start + len(x) + 1 - counted
        total += F.cross_entropy(logits[-fresh:], ids[counted : counted + fresh], reduction="sum").item()
        counted += fresh
        start += stride
    return total / (N - 1)
