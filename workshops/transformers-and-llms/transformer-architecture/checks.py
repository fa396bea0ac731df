"""The checks of transformer-architecture: one for each exercise, with its hints. `lab.check` runs them.

Positions are held to complex numbers, blocks to PyTorch's own layers, the cache to one go over the whole text, and loops
to models that remember all they were given.
"""

import contextlib
import functools
import math

import numpy as np

from atlas.checking import Complaint, exercise, expect, gradients, parts, tensor

# ------------------------------------------------------------------------------------------------ sinusoidal


def _woven(sin, cos):
    import torch

    return torch.stack([sin, cos], 2).flatten(1)


def _side_by_side(sin, cos):
    import torch

    return torch.cat([sin, cos], 1)


def _without_row_0(P):
    P[0] = 0
    return P


def _steps(D, step=2):
    import torch

    return torch.arange(0, D, step)


def each_column_has_its_own_frequency(T, D):
    """Each column has its own frequency; sine and cosine of a pair share one, the exponent is -2i/D for both."""
    import torch

    angles = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(D) / D)
    return torch.where(torch.arange(D) % 2 == 0, angles.sin(), angles.cos())


def the_columns_number_for_the_pairs(T, D):
    """i is taken for the column's number; it counts pairs: columns 2i and 2i + 1 share -2i/D."""
    import torch

    angles = torch.arange(T)[:, None] * 10000.0 ** (-2 * torch.arange(D) / D)
    return torch.where(torch.arange(D) % 2 == 0, angles.sin(), angles.cos())


def divided_by_the_place_of_the_last(T, D):
    """The exponents run to -1, divided by D/2 - 1; here they are -2i/D, so that the last is not quite -1."""
    import torch

    angles = torch.arange(T)[:, None] * 10000.0 ** (-torch.arange(D // 2) / max(D // 2 - 1, 1))
    return _woven(angles.sin(), angles.cos())


@parts
def _sinusoidal(
    T,
    D,
    *,
    times=lambda T: _steps(T, 1),
    rates=lambda D: 10000.0 ** (-_steps(D) / D),
    angles=lambda angles: angles,
    weave=_woven,
):
    turned = angles(times(T)[:, None] * rates(D))
    return weave(turned.sin(), turned.cos())


@exercise(
    hints=[
        "ω has D/2 entries: 10000.0 ** (-torch.arange(0, D, 2) / D). torch.arange(0, D, 2) is 2i already.",
        "torch.arange(T)[:, None] * ω is (T, D/2), the angles; sine and cosine of them go into an empty (T, D).",
        "P = torch.zeros(T, D); P[:, 0::2] = angles.sin(); P[:, 1::2] = angles.cos()",
    ],
    mistakes=_sinusoidal.mistakes(
        each_column_has_its_own_frequency,
        the_columns_number_for_the_pairs,
        divided_by_the_place_of_the_last,
        weave={
            "All sines stand in the left half and all cosines in the right; here they take turns: column 2i is a sine, "
            "2i + 1 its cosine.": _side_by_side,
            "Sine and cosine are exchanged: column 0 is a sine.": lambda sin, cos: _woven(cos, sin),
            "Both of a pair are sines; the odd columns are cosines.": lambda sin, cos: _woven(sin, sin),
            "Both of a pair are cosines; the even columns are sines.": lambda sin, cos: _woven(cos, cos),
            "All cosines stand in the left half and all sines in the right; they take turns, sine first.": (
                lambda sin, cos: _side_by_side(cos, sin)
            ),
            "The table lies on its side: row t is position t, (T, D).": lambda sin, cos: _woven(sin, cos).T,
            "There is an axis of 1 too many: the result is (T, D).": lambda sin, cos: _woven(sin, cos)[None],
            "The rows are divided by their length; entries are sines and cosines as they are.": lambda sin, cos: (
                _woven(sin, cos) / _woven(sin, cos).norm(dim=1, keepdim=True)
            ),
        },
        rates={
            "The exponent is -i/D for pair i; it is -2i/D, so that the waves reach twice as far.": lambda D: (
                10000.0 ** (-_steps(D // 2, 1) / D)
            ),
            "The 2 is in it twice: torch.arange(0, D, 2) is 2i already.": lambda D: 10000.0 ** (-2 * _steps(D) / D),
            "The exponent has the wrong sign: waves become slower from pair to pair, 10000 ** (-2i/D).": lambda D: (
                10000.0 ** (_steps(D) / D)
            ),
            "All pairs have the same frequency: pair i has 10000 ** (-2i/D).": lambda D: 1.0 + 0 * _steps(D),
            "The frequencies have a factor of 2π; it is sin(t ω), in radians as it is.": lambda D: (
                2 * math.pi * 10000.0 ** (-_steps(D) / D)
            ),
            "The base is 1000; it is 10000.": lambda D: 1000.0 ** (-_steps(D) / D),
            "The base is 100000; it is 10000.": lambda D: 100000.0 ** (-_steps(D) / D),
            "The exponents begin with pair 1; the first pair has i = 0, frequency 1.": lambda D: (
                10000.0 ** (-(_steps(D) + 2) / D)
            ),
            "The exponent is cut to a whole number: /, not //.": lambda D: 10000.0 ** (-_steps(D) // D),
            "exp goes with the natural logarithm: exp(-2i/D · math.log(10000)), not log10.": lambda D: (
                -4 * _steps(D) / D
            ).exp(),
        },
        times={
            "The positions begin at 1; they are 0 ... T - 1, so row 0 is 0, 1, 0, 1, ...": lambda T: 1 + _steps(T, 1),
            "The positions are divided by T; they are 0 ... T - 1 as they are.": lambda T: _steps(T, 1) / T,
        },
        angles={
            "The angles are rounded to 16 bits; float32 throughout.": lambda angles: angles.bfloat16().float(),
        },
        returns={
            "Row 0 is set to 0; position 0 is a row as the others, 0, 1, 0, 1, ...": _without_row_0,
            "The entries are rounded to 16 bits; float32 throughout.": lambda P: P.half().float(),
            "It is in double precision; float32 is wanted: .float().": lambda P: P.double(),
        },
    ),
)
def sinusoidal(learner, rng):
    import torch

    def likely_of(T, D):
        def likely(yours, expected):
            if yours.shape[1:] == (D,) and len(yours) < T:
                return (
                    f"There are {len(yours)} rows for T = {T}: is a table cut that is too short, or an older one kept?"
                )
            values = T > 1000 and yours.shape == getattr(expected, "shape", "a dtype")
            return "Angles in half precision, or counted up by adding? t · ω, for each t anew." if values else ""

        return likely

    shapes = [(2, 6), (5, 4), (7, 2), (1, 8), (4, 4), (7, 6), (3, 10), (int(rng.integers(20, 50)), 64), (6000, 32)]
    for T, D in shapes:
        pair = np.arange(D) // 2
        angles = np.arange(T)[:, None] / 10000.0 ** (2 * pair / D)
        wanted = np.where(np.arange(D) % 2 == 0, np.sin(angles), np.cos(angles))
        given, why = learner(T, D), f"T = {T}, D = {D}"
        tensor(given, why)
        off = {"rtol": 0, "atol": 2e-3 if T > 1000 else 2e-5}
        off["likely"] = likely_of(T, D)
        expect.close(given, wanted, why=why, source="one entry at a time", dtype=torch.float32, **off)


# ------------------------------------------------------------------------------------------------ rope


def _rates(E, base):
    import torch

    return base ** (-torch.arange(E // 2, dtype=torch.float64) / (E // 2))


def _halves(x):
    return x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]


def _joined(*columns):
    import torch

    return torch.cat(columns, -1)


def _neighbours(x, cos, sin):
    import torch

    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def _turned(x, cos, sin):
    a, b = _halves(x)
    return _joined(a * cos - b * sin, a * sin + b * cos)


def _angles_of_neighbours(x, cos, sin):
    a, b = _halves(x)
    cos, sin = cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)
    return x * cos + _joined(-b, a) * sin


def _mixed(first, second):
    def turn(x, cos, sin):
        a, b = _halves(x)
        return _joined(first(a, b, cos, sin), second(a, b, cos, sin))

    return turn


def _first(a, b, cos, sin):
    return a * cos - b * sin


def _second(a, b, cos, sin):
    return a * sin + b * cos


def _neighbours_side_by_side(x, cos, sin):
    return _turned(_joined(x[..., 0::2], x[..., 1::2]), cos, sin)


def _woven_halves(x, cos, sin):
    import torch

    a, b = _halves(x)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


@parts
def _rope(
    x,
    positions,
    base=10000.0,
    *,
    rates=_rates,
    places=lambda positions: positions,
    turn=_turned,
):
    angles = places(positions)[:, None] * rates(x.shape[-1], base)
    return turn(x, angles.cos().to(x.dtype), angles.sin().to(x.dtype))


def positions_on_axis_1(x, positions, base=10000.0):
    """Axis 1 is taken for the positions, (B, T, H, E); they are the last but one, (B, H, T, E)."""
    if x.ndim < 4:
        return _rope.right(x, positions, base)
    return _rope.right(x.transpose(1, -2), _steps(x.shape[1], 1), base).transpose(1, -2)


_ROPE_MISTAKES = _rope.mistakes(
    positions_on_axis_1,
    turn={
        "The pairs are neighbours, (2i, 2i + 1); here they are halves, (i, i + E/2): x[..., :half] and x[..., half:].": (
            _neighbours
        ),
        "The pairs are read as neighbours, x[..., 0::2] and x[..., 1::2]; here they are halves, x[..., :half] and "
        "x[..., half:].": _neighbours_side_by_side,
        "Sine and cosine are added to x; each pair is turned.": lambda x, cos, sin: x + _joined(sin, cos),
        "It turns the wrong way: the first line is a cos - b sin, the second a sin + b cos.": lambda x, cos, sin: (
            _turned(x, cos, -sin)
        ),
        "The minus is missing in the first line: a cos - b sin.": _mixed(
            lambda a, b, cos, sin: a * cos + b * sin, _second
        ),
        "A minus is too much in the second line: a sin + b cos.": _mixed(
            _first, lambda a, b, cos, sin: b * cos - a * sin
        ),
        "Sine and cosine are exchanged: at position 0 nothing may turn.": lambda x, cos, sin: _turned(x, sin, cos),
        "The second line takes the new a; both lines take the old a and b.": _mixed(
            _first, lambda a, b, cos, sin: _first(a, b, cos, sin) * sin + b * cos
        ),
        "The halves of the result are exchanged: first a', then b'.": _mixed(_second, _first),
        "The result's pairs are woven as neighbours; they stay where they were, torch.cat of two halves.": (
            _woven_halves
        ),
        "Entries are multiplied by the cosine only; each pair is turned, and that needs its partner.": (
            lambda x, cos, sin: x * _joined(cos, cos)
        ),
        "Each angle is repeated for neighbours (repeat_interleave), and the pairs are halves: put the angles one after "
        "the other twice, torch.cat([angles, angles], -1).": _angles_of_neighbours,
        "The turned vector is added to x; it takes its place.": lambda x, cos, sin: x + _turned(x, cos, sin),
        "Only the first half is turned; the second line, a sin + b cos, is missing.": _mixed(
            _first, lambda a, b, cos, sin: b
        ),
    },
    places={
        "The positions that are given are not used: it counts 0, 1, 2, ... by itself. Row t stands at positions[t].": (
            lambda positions: _steps(len(positions), 1)
        ),
        "The positions are counted from the first one; position p turns by p, wherever x begins.": lambda positions: (
            positions - positions[0]
        ),
        "The positions are counted from the smallest; position p turns by p, wherever x begins.": lambda positions: (
            positions - positions.min()
        ),
        "The positions are counted up from the first; row t stands at positions[t], in any order.": lambda positions: (
            positions[0] + _steps(len(positions), 1)
        ),
        "The positions are one too high: position 0 does not turn.": lambda positions: positions + 1,
        "Every row is turned as the first: row t stands at positions[t].": lambda positions: positions[:1].expand(
            len(positions)
        ),
        "The positions are sorted first; row t of x belongs to positions[t].": lambda positions: (
            positions.sort().values
        ),
    },
    rates={
        "One frequency for all pairs; pair i has base ** (-2i/E).": lambda E, base: 1 + 0 * _rates(E, base),
        "The exponent is -i/E; it is -2i/E, which is -i divided by half of E.": lambda E, base: _rates(E, base) ** 0.5,
        "The 2 is in the exponent twice: with i up to E/2, -2i/E is -i/half.": lambda E, base: _rates(E, base) ** 2,
        "The exponent has the wrong sign: base ** (-2i/E), slower from pair to pair.": lambda E, base: (
            1 / _rates(E, base)
        ),
        "The frequencies run backwards: pair 0 is the fastest.": lambda E, base: _rates(E, base).flip(0),
        "The exponents run to -1; they are -2i/E, so that the last is not quite -1.": lambda E, base: (
            base ** (-_steps(E // 2, 1) / max(E // 2 - 1, 1))
        ),
    },
    returns={"The result is cut from the graph: queries would not learn.": lambda y: y.detach()},
)


@exercise(
    hints=[
        "rates: base ** (-torch.arange(half) / half) with half = E // 2, for 2i/E is i/half. angles = positions[:, None] * "
        "rates, (T, half).",
        "a, b = x[..., :half], x[..., half:]. Cosine and sine of (T, half) broadcast against them from the right.",
        "torch.cat([a * cos - b * sin, a * sin + b * cos], -1)",
    ],
    mistakes=_ROPE_MISTAKES,
)
def rope(learner, rng):
    import torch

    def authority(x, positions, base=10000.0):
        """Complex numbers: a pair is one, and turning is multiplying."""
        E = x.shape[-1]
        z = torch.complex(x[..., : E // 2].double().contiguous(), x[..., E // 2 :].double().contiguous())
        angle = torch.outer(positions.double(), torch.tensor([base ** (-2 * i / E) for i in range(E // 2)]).double())
        z = z * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([z.real, z.imag], -1)

    def compare(x, positions, why, *base):
        size = max(float(x.abs().max()), 1e-3)
        off = {"rtol": 1e-4, "atol": (1e-3 if positions.max() > 1000 else 3e-5) * size}
        given = learner(x, positions, *base)
        tensor(given, why)
        wanted = authority(x, positions, *base)

        def likely(yours, expected):
            """A known mistake whose angles were computed in single precision."""
            for mistake in [] if _near(yours, wanted, size) else _ROPE_MISTAKES:
                if _near(yours, mistake(x, positions, *base), size):
                    return mistake.__doc__
            return ""

        expect.close(given, wanted, why=why, source="complex numbers", dtype=x, likely=likely, **off)

    for shape, base in [
        ((2, 3, 4, 6), 10000.0), ((5, 2), 7.5), ((3, 4), 10000.0), ((3, 3, 3, 4), 90.0), ((1, 1, 2), 10000.0),
        ((2, 2, 5, 3, 8), 500.0), ((1, 4, 1, 6), 3.25), ((4, 10, 4), 10000.0), ((6, 6), 12.0),
    ]:  # fmt: skip
        positions = torch.tensor(rng.permutation(40)[: shape[-2]])
        x = torch.tensor(rng.normal(size=shape))
        why = f"x {shape}, positions {positions.tolist()}, base {base:g}"
        compare(x, positions, why, base)
        compare(x.float(), positions, f"{why}, in single precision", base)
        compare(x.mT.contiguous().mT, positions, f"{why}, laid out otherwise", base)
    one = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    compare(one, torch.tensor([1]), "the example above")
    x = torch.tensor(rng.normal(size=(2, 3, 4, 6)))
    compare(x, torch.tensor([7, 3, 11, 3]), "positions 7, 3, 11, 3 and the default base")
    compare(x, torch.arange(4), "positions 0, 1, 2, 3")
    compare(x, torch.zeros(4, dtype=torch.int64), "position 0: nothing turns")
    compare(x * 1000, torch.tensor([900, 2, 0, 31]), "positions up to 900, entries in the thousands")
    compare(x * 0, torch.arange(4), "zeros stay zeros")
    compare(x, torch.tensor([3000, 0, 4999, 17]), "positions in the thousands")
    heads = torch.tensor(rng.normal(size=(2, 5, 3, 4, 6))).permute(2, 0, 3, 1, 4)
    compare(heads[1], torch.arange(5), "queries as a layer cuts them, by permute: not contiguous")
    q, k = (torch.tensor(rng.normal(size=(1, 8))).expand(30, 8) for _ in range(2))
    places, moved = torch.arange(30), torch.arange(30) + 25
    near, far = (learner(q, at) @ learner(k, at).T for at in (places, moved))
    why, source = "all positions moved by 25: the products stay", "they depend on m - n only"
    expect.close(far, near, why=why, source=source, rtol=1e-3, atol=1e-3)
    at = torch.tensor([5, 0, 2, 9])
    gradients(
        lambda x: learner(x, at),
        lambda x: authority(x, at),
        rng,
        why="the turned vectors",
        x=x,
        source="complex numbers",
    ) if _precise(learner, x, at) else _flows(learner, x, at)


def _near(yours, theirs, size=1.0):
    """Whether two results agree as far as single precision goes."""
    a, b = (np.asarray(each.detach() if hasattr(each, "detach") else each) for each in (yours, theirs))
    return a.shape == b.shape and np.allclose(a, b, 0, 2e-4 * size)


def _precise(learner, x, at):
    """Whether it computes angles in double precision; single is right as well, and gradients are as precise as that."""
    E = x.shape[-1]
    exact = [10000.0 ** (-2 * i / E) for i in range(E // 2)]
    lengths = np.cos(np.outer(at.numpy(), exact))
    basis = x * 0
    basis[..., : E // 2] = 1
    return np.allclose(learner(basis, at).detach().numpy()[..., : E // 2], lengths, atol=1e-12)


def _flows(learner, x, at):
    """A rotation keeps products, so the gradient of half its squared length is x itself."""
    leaf = x.clone().requires_grad_()
    y = learner(leaf, at)
    expect.true(y.requires_grad, "gradients flow to x", likely="Is it cut from the graph: detach, no_grad, NumPy?")
    y.square().sum().div(2).backward()
    expect.close(leaf.grad, x, why="the gradient with respect to x", source="a rotation", rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------------------------------ block


def _post_norm(x, attend, mlp, norm1, norm2):
    """The norm comes after the sum, in the stream (post-norm); here it stands before each part: x + attend(norm1(x))."""
    x = norm1(x + attend(x))
    return norm2(x + mlp(x))


def _around_the_norm(x, attend, mlp, norm1, norm2):
    """What is added to is the norm of x; the stream itself goes on: x + attend(norm1(x))."""
    n = norm1(x)
    x = n + attend(n)
    n = norm2(x)
    return n + mlp(n)


def _around_the_second_norm(x, attend, mlp, norm1, norm2):
    """In the second line what is added to is the norm of x; the stream itself goes on: x + mlp(norm2(x))."""
    n = norm2(x + attend(norm1(x)))
    return n + mlp(n)


def _around_the_first_norm(x, attend, mlp, norm1, norm2):
    """In the first line what is added to is the norm of x; the stream itself goes on: x + attend(norm1(x))."""
    n = norm1(x)
    x = n + attend(n)
    return x + mlp(norm2(x))


def _parallel(x, attend, mlp, norm1, norm2):
    """The mlp reads the x of the beginning; it reads what the first part has left: norm2 of the new x."""
    return x + attend(norm1(x)) + mlp(norm2(x))


def _adds_to_the_first(x, attend, mlp, norm1, norm2):
    """The second part is added to the x of the beginning, so what attention found is lost; add it to the new x."""
    return x + mlp(norm2(x + attend(norm1(x))))


def _norm_of_the_part(x, attend, mlp, norm1, norm2):
    """The norm is taken of what a part gives; it stands before the part: attend(norm1(x))."""
    x = x + norm1(attend(x))
    return x + norm2(mlp(x))


def _no_first_sum(x, attend, mlp, norm1, norm2):
    """The first residual path is missing: x + attend(norm1(x))."""
    x = attend(norm1(x))
    return x + mlp(norm2(x))


def _no_second_sum(x, attend, mlp, norm1, norm2):
    """The second residual path is missing: x + mlp(norm2(x))."""
    return mlp(norm2(x + attend(norm1(x))))


def _no_sums(x, attend, mlp, norm1, norm2):
    """Both residual paths are missing: each part is added to x."""
    return mlp(norm2(attend(norm1(x))))


def _mlp_first(x, attend, mlp, norm1, norm2):
    """The mlp comes first; attention does, and then the mlp."""
    x = x + mlp(norm2(x))
    return x + attend(norm1(x))


def _first_norm_twice(x, attend, mlp, norm1, norm2):
    """norm1 stands before both parts; the mlp has its own, norm2."""
    x = x + attend(norm1(x))
    return x + mlp(norm1(x))


def _norms_exchanged(x, attend, mlp, norm1, norm2):
    """The norms are exchanged: norm1 belongs to attend, norm2 to mlp."""
    x = x + attend(norm2(x))
    return x + mlp(norm1(x))


def _no_norms(x, attend, mlp, norm1, norm2):
    """The norms are missing: attend(norm1(x)), mlp(norm2(x))."""
    x = x + attend(x)
    return x + mlp(x)


def _no_first_norm(x, attend, mlp, norm1, norm2):
    """The first norm is missing: attend(norm1(x))."""
    x = x + attend(x)
    return x + mlp(norm2(x))


def _no_second_norm(x, attend, mlp, norm1, norm2):
    """The second norm is missing: mlp(norm2(x))."""
    x = x + attend(norm1(x))
    return x + mlp(x)


def _norm_at_the_end(x, attend, mlp, norm1, norm2):
    """A norm is taken of the whole at the end; the stream goes on as it is."""
    x = x + attend(norm1(x))
    return norm2(x + mlp(norm2(x)))


def _attention_alone(x, attend, mlp, norm1, norm2):
    """The mlp reads what attention gives alone; it reads the norm of the new x, the sum."""
    y = attend(norm1(x))
    return x + y + mlp(norm2(y))


def _second_stream(x, attend, mlp, norm1, norm2):
    """What attention finds is added to the norm of x, which only the mlp reads; both parts are added to the stream."""
    n = norm1(x)
    return x + mlp(norm2(n + attend(n)))


def _no_mlp(x, attend, mlp, norm1, norm2):
    """The second part, x + mlp(norm2(x)), is missing."""
    return x + attend(norm1(x))


@parts
def _block(x, attend, mlp, norm1, norm2, *, first=lambda x, part: x + part, second=lambda x, part: x + part):
    x = first(x, attend(norm1(x)))
    return second(x, mlp(norm2(x)))


def _handed_on(call):
    """What a call gives whose parts hand on what they get: one that changes x here, and not before, writes into them."""
    try:
        return call()
    except Complaint as complaint:
        if "changes its input" in complaint.why:
            complaint.reading = (
                "It writes into what a part gave (+=), and that is x itself where a part hands on what it gets: "
                "x = x + ... makes a new one."
            )
        raise


def _once(functions, why, shape):
    """The functions, counted, which demand the stream's shape; and a demand that each was called once."""
    counts = dict.fromkeys(functions, 0)

    def counted(name):
        def call(*given):
            counts[name] += 1
            mine = tuple(getattr(given[0], "shape", ())) if given else ()
            if name != "cross" and mine != shape:
                likely = f"{name} is a function of (B, T, D): the stream as it is, no axes merged or exchanged."
                if mine == (1, *shape[1:]):
                    likely = "All rows of the batch go in together: each part is called once."
                raise Complaint(
                    f"{why}: {name} gets (B, T, D)", [f"yours    {mine}", f"expected {shape}"], likely, mine
                )
            return functions[name](*given)

        return functools.partial(call)  # no plain data: the learner's function is called once with it, not twice

    def all_called(result):
        for name, n in counts.items():
            if n != 1:
                likely = f"{name} is called {n} times: keep its result in a variable." if n else f"{name} is not used."
                told = [f"yours    {name}: {n} times"]
                raise Complaint(f"{why}: each part is called once", told, likely, (list(counts.values()), result))

    return {name: counted(name) for name in functions}, all_called


def _layer(rng, D, H, decoder):
    """One of PyTorch's layers, pre-norm, in double precision, with telling norms."""
    import torch
    from torch import nn

    kind = nn.TransformerDecoderLayer if decoder else nn.TransformerEncoderLayer
    with torch.random.fork_rng(devices=[]):
        layer = kind(D, H, 3 * D, 0.0, "gelu", batch_first=True, norm_first=True).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.tensor(rng.normal(size=tuple(p.shape))) * (0.4 if p.ndim > 1 else 1.0))
    return layer.train()


def _small(layer):
    from torch.nn import functional as F

    return lambda x: layer.linear2(F.gelu(layer.linear1(x)))


@exercise(
    hints=[
        "norm1, then attend, and what comes out is added to x. That sum is the new x.",
        "x = x + attend(norm1(x)); and the same with mlp and norm2, of the new x.",
    ],
    mistakes=_block.mistakes(
        *(_post_norm, _around_the_norm, _around_the_second_norm, _around_the_first_norm, _parallel, _adds_to_the_first),
        *(_norm_of_the_part, _no_first_sum, _no_second_sum, _no_sums, _mlp_first, _first_norm_twice),
        *(
            _norms_exchanged,
            _no_norms,
            _no_first_norm,
            _no_second_norm,
            _norm_at_the_end,
            _no_mlp,
            _attention_alone,
            _second_stream,
        ),
        first={
            "Attention's part is cut from the graph, in what it gets or in what it gives.": lambda x, part: (
                x + part.detach()
            ),
            "The stream is cut from the graph: gradients need the residual path most of all.": lambda x, part: (
                x.detach() + part
            ),
        },
        second={
            "What the mlp gives is cut from the graph.": lambda x, part: x + part.detach(),
            "The sum is halved; a block adds, no more.": lambda x, part: (x + part) / 2,
        },
        together={
            "The sums are divided by √2; a block adds, no more.": dict.fromkeys(
                ("first", "second"), lambda x, part: (x + part) / 2**0.5
            ),
        },
    ),
)
def block(learner, rng):
    import torch

    def run(x, functions, why):
        calls, all_called = _once(functions, why, tuple(x.shape))
        given = learner(x, *calls.values())
        tensor(given, why)
        all_called(given)
        return given

    why = "the example above, x = 3, and beside it 0"
    x = torch.tensor([[[3.0, 0.0]]], dtype=torch.float64)
    hand = {"attend": lambda x: 2 * x, "mlp": lambda x: x + 1, "norm1": lambda x: x * 1, "norm2": lambda x: x * 1}
    expect.close(run(x, hand, why), [[[19.0, 1.0]]], why=why, source="by hand")
    for (B, T, D), H in [((2, 5, 6), 3), ((3, 1, 4), 2), ((1, 4, 8), 2), ((4, 4, 4), 1)]:
        layer, x = _layer(rng, D, H, decoder=False), torch.tensor(rng.normal(size=(B, T, D)) + 0.7)
        later = torch.ones(T, T, dtype=torch.bool).triu(1)
        functions = {
            "attend": lambda x, layer=layer, later=later: layer.self_attn(x, x, x, attn_mask=later, need_weights=False)[
                0
            ],
            "mlp": _small(layer),
            "norm1": layer.norm1,
            "norm2": layer.norm2,
        }
        why, source = f"PyTorch's layer on x {(B, T, D)}", "nn.TransformerEncoderLayer(norm_first=True)"
        given = run(x, functions, why)
        expect.close(given, layer(x, src_mask=later).detach(), why=why, source=source, dtype=x)
        gradients(
            lambda x, f=functions: learner(x, *f.values()),
            lambda x, layer=layer, later=later: layer(x, src_mask=later),
            rng,
            why="the block",
            source=source,
            x=x,
        )
    small = torch.tensor(rng.normal(size=(2, 3, 4, 4)))
    weights = dict(zip(("W_a", "W_m"), small[:, 0], strict=True))
    gradients(
        lambda x, W_a, W_m: learner(x, lambda n: (n @ W_a).sin(), lambda n: (n @ W_m).tanh(), _norm(1.5), _norm(0.6)),
        lambda x, W_a, W_m: (new := x + (_norm(1.5)(x) @ W_a).sin()) + (_norm(0.6)(new) @ W_m).tanh(),
        rng,
        why="the block",
        source="two lines written out",
        x=small[0],
        **weights,
    )
    x = small[0].float()
    given = learner(x, lambda n: n * 2, lambda n: n.relu(), _norm(1.0), _norm(2.0))
    expect.dtype(given, x, "in single precision")
    why, x = "parts that hand on what they get", torch.tensor(rng.normal(size=(2, 3, 4)))
    hand = dict.fromkeys(("attend", "mlp", "norm1", "norm2"), lambda x: x)
    expect.close(_handed_on(lambda: run(x, hand, why)), 4 * x, why=why, source="by hand")


def _norm(scale):
    return lambda x: scale * (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 0.1).sqrt()


# ------------------------------------------------------------------------------------------------ decoder_block


@parts
def _decoder_block(
    x,
    memory,
    mask,
    attend,
    cross,
    mlp,
    norms,
    *,
    order=("attend", "cross", "mlp"),
    which=(0, 1, 2),
    add=lambda x, part, name, begun: x + part,
    norm=lambda norm, x, name, begun: norm(x),
    memory_of=lambda memory, norms: memory,
    mask_of=lambda mask: mask,
    look=lambda cross, n, memory, mask: cross(n, memory, mask),
    end=lambda x, norms: x,
):
    begun, held = x, dict(zip(("attend", "cross", "mlp"), which, strict=True))
    for name in order:
        n = norm(norms[held[name]], x, name, begun)
        if name == "cross":
            part = look(cross, n, memory_of(memory, norms), mask_of(mask))
        else:
            part = attend(n) if name == "attend" else mlp(n)
        x = add(x, part, name, begun)
    return end(x, norms)


def _without_sum(missing):
    return lambda x, part, name, begun: part if name == missing else x + part


def _without_norm(missing):
    return lambda norm, x, name, begun: x if name == missing else norm(x)


def _layer_normed(x):
    from torch.nn import functional as F

    return F.layer_norm(x, x.shape[-1:])


def _later_norm(x, memory, mask, attend, cross, mlp, norms):
    """The norm comes after the sum (post-norm); here it stands before each part."""
    x = norms[0](x + attend(x))
    x = norms[1](x + cross(x, memory, mask))
    return norms[2](x + mlp(x))


def _around_its_norm(x, memory, mask, attend, cross, mlp, norms):
    """What cross finds is added to its queries, the norm; add it to the stream: x + cross(norms[1](x), memory, mask)."""
    x = x + attend(norms[0](x))
    n = norms[1](x)
    x = n + cross(n, memory, mask)
    return x + mlp(norms[2](x))


def _norm_behind_cross(x, memory, mask, attend, cross, mlp, norms):
    """norms[1] is taken of what cross gives; it stands before it: cross(norms[1](x), memory, mask)."""
    x = x + attend(norms[0](x))
    x = x + norms[1](cross(x, memory, mask))
    return x + mlp(norms[2](x))


@exercise(
    hints=[
        "The first and the last line are those of block. The one between asks the memory.",
        "Queries are the norm of the stream, norms[1](x); memory and mask go into cross as they are.",
        "x = x + cross(norms[1](x), memory, mask), between x + attend(norms[0](x)) and x + mlp(norms[2](x)).",
    ],
    mistakes=_decoder_block.mistakes(
        _later_norm,
        _around_its_norm,
        _norm_behind_cross,
        look={
            "Memory asks and the stream is asked: queries come from the decoder's stream, cross(norms[1](x), memory, mask).": (
                lambda cross, n, memory, mask: cross(memory, n, mask)
            ),
        },
        memory_of={
            "The memory is normed; it comes from the encoder's last norm: hand it on as it is.": lambda memory, norms: (
                norms[1](memory)
            ),
            "The memory is normed by a norm of its own; it comes from the encoder's last norm: hand it on as it is.": (
                lambda memory, norms: _layer_normed(memory)
            ),
            "The memory is cut from the graph: the encoder would not learn.": lambda memory, norms: memory.detach(),
        },
        mask_of={
            "The mask is turned around; here True may be looked at, and cross wants it so: hand it on as it is.": (
                lambda mask: ~mask
            ),
            "mask goes into cross as it is, as its third argument: else padding of the source would be looked at.": (
                lambda mask: None
            ),
            "The mask that is given is not used, all may be looked at: padding of the source, too.": (
                lambda mask: mask | True
            ),
        },
        order={
            "Cross-attention comes before self-attention; the order is attend, cross, mlp.": ("cross", "attend", "mlp"),
            "The mlp comes before cross-attention; the order is attend, cross, mlp.": ("attend", "mlp", "cross"),
            "Cross-attention is missing.": ("attend", "mlp"),
            "Self-attention is missing: x + attend(norms[0](x)) comes first.": ("cross", "mlp"),
            "The mlp is missing: x + mlp(norms[2](x)) comes last.": ("attend", "cross"),
            "The mlp comes first; the order is attend, cross, mlp.": ("mlp", "attend", "cross"),
        },
        which={
            "norms[0] stands before all three parts; each has its own.": (0, 0, 0),
            "The norms of cross and mlp are exchanged: norms[1] is cross's, norms[2] the mlp's.": (0, 2, 1),
            "The norms of attend and cross are exchanged: norms[0] is attend's.": (1, 0, 2),
            "norms[1] stands before the mlp as well; its own is norms[2].": (0, 1, 1),
            "norms[0] stands before cross as well; its own is norms[1].": (0, 0, 2),
            "The norms are in the wrong order: norms[0] for attend, norms[1] for cross, norms[2] for mlp.": (2, 1, 0),
        },
        add={
            "The residual path around attend is missing.": _without_sum("attend"),
            "The residual path around cross is missing: what the decoder had is lost.": _without_sum("cross"),
            "The residual path around the mlp is missing.": _without_sum("mlp"),
            "All residual paths are missing: each part is added to x.": lambda x, part, name, begun: part,
            "Every part is added to the x of the beginning; add it to the new x.": lambda x, part, name, begun: (
                begun + part
            ),
            "Each part is cut from the graph.": lambda x, part, name, begun: x + part.detach(),
            "The stream is cut from the graph.": lambda x, part, name, begun: x.detach() + part,
        },
        norm={
            "The norm before attend is missing.": _without_norm("attend"),
            "The norm before cross is missing: its queries are norms[1](x).": _without_norm("cross"),
            "The norm before the mlp is missing.": _without_norm("mlp"),
            "No norm is used: one stands before each part.": lambda norm, x, name, begun: x,
            "Every part reads the x of the beginning; it reads what the part before has left.": (
                lambda norm, x, name, begun: norm(begun)
            ),
            "Cross-attention asks with the x of the beginning; it asks with what attend has left.": (
                lambda norm, x, name, begun: norm(begun if name == "cross" else x)
            ),
        },
        end={
            "A norm is taken of the whole at the end; the stream goes on as it is.": lambda x, norms: norms[2](x),
        },
    ),
)
def decoder_block(learner, rng):
    import torch

    def pieces(layer, whole, why):
        """attend, cross, mlp and norms of PyTorch's layer, with this course's masks."""

        def attend(n):
            later = torch.ones(n.shape[1], n.shape[1], dtype=torch.bool).triu(1)
            return layer.self_attn(n, n, n, attn_mask=later, need_weights=False)[0]

        def cross(queries, memory, mask):
            _asked_rightly(queries, memory, mask, whole, why)
            return layer.multihead_attn(queries, memory, memory, key_padding_mask=~mask, need_weights=False)[0]

        return attend, cross, _small(layer), (layer.norm1, layer.norm2, layer.norm3)

    source = "nn.TransformerDecoderLayer(norm_first=True)"
    for (B, T, S, D), H in [
        ((2, 4, 6, 6), 3),
        ((3, 5, 2, 4), 2),
        ((1, 1, 3, 4), 2),
        ((2, 3, 1, 8), 2),
        ((3, 3, 3, 6), 1),
    ]:
        layer = _layer(rng, D, H, decoder=True)
        x, memory = torch.tensor(rng.normal(size=(B, T, D)) + 0.5), torch.tensor(2 * rng.normal(size=(B, S, D)) + 0.8)
        mask = torch.tensor(rng.random((B, S)) < 0.6)
        mask[torch.arange(B), torch.tensor(rng.integers(S, size=B))] = True
        if S > 1:
            full = mask.all(1)
            mask[full, 0] = False
        later = torch.ones(T, T, dtype=torch.bool).triu(1)

        def theirs(x, memory, layer=layer, later=later, mask=mask):
            return layer(x, memory, tgt_mask=later, memory_key_padding_mask=~mask)

        why = f"PyTorch's layer on x {(B, T, D)}, memory {(B, S, D)}"
        attend, cross, mlp, norms = pieces(layer, memory, why)
        named = {"attend": attend, "cross": cross, "mlp": mlp}
        named |= {f"norms[{n}]": norm for n, norm in enumerate(norms)}
        calls, all_called = _once(named, why, (B, T, D))
        attend, cross, mlp, *counted = calls.values()
        given = learner(x, memory, mask, attend, cross, mlp, held := tuple(counted) if S > 2 else list(counted))
        left, likely = f"yours    {len(held)} of 3 are left", "pop takes them out of the caller's list: norms[0], ..."
        expect.true(len(held) == 3, f"{why}: norms stays as it is", left, likely=likely)
        tensor(given, why)
        all_called(given)
        shaped = "The result is the stream, (B, T, D): are queries from the memory, (B, S, D)?"
        expect.shape(given, (B, T, D), why, likely=shaped)
        expect.close(given, theirs(x, memory).detach(), why=why, source=source, dtype=x)
        rest = mask, *pieces(layer, memory, why)
        gradients(
            lambda x, memory, rest=rest: learner(x, memory, *rest),
            theirs,
            rng,
            why="the block",
            source=source,
            x=x,
            memory=memory,
        )
    why, x = "parts that hand on what they get", torch.tensor(rng.normal(size=(2, 3, 4)))
    same = [lambda x, *_: x] * 6
    given = _handed_on(lambda: learner(x, memory, mask, *same[:3], tuple(same[3:])))
    tensor(given, why)
    expect.close(given, 8 * x, why=why, source="by hand")


def _asked_rightly(queries, its_memory, its_mask, memory, why):
    """What cross gets has the memory's shape where it is to be the memory."""
    B, S, D = memory.shape
    shapes = [tuple(getattr(each, "shape", ())) for each in (queries, its_memory, its_mask)]
    if shapes[1] != (B, S, D):
        likely = "The memory goes into cross whole, (B, S, D); the mask says where it may look."
        if shapes[1] == shapes[0] and not memory[:, : shapes[1][1]].equal(its_memory):
            likely = "Cross-attention looks at the decoder's own stream; it looks at the memory."
        if shapes[0] == (B, S, D):
            likely = (
                "Memory asks and the stream is asked: queries come from the decoder's stream, "
                "cross(norms[1](x), memory, mask)."
            )
        details = [f"yours    {shapes[1]}", f"expected {(B, S, D)}"]
        raise Complaint(f"{why}: the memory that cross gets", details, likely, np.array(shapes[:2]))
    if shapes[2] != (B, S):
        likely = "mask goes into cross as it is, as its third argument: else padding of the source would be looked at."
        raise Complaint(f"{why}: the mask that cross gets", [f"yours    {shapes[2] or its_mask}"], likely, shapes[2])
    if "bool" not in str(its_mask.dtype):
        likely = "mask goes into cross as it is, True and False."
        raise Complaint(f"{why}: the mask that cross gets", [f"yours    {its_mask.dtype}"], likely, its_mask)


# ------------------------------------------------------------------------------------------------ cached_attention


def _turn(x, places):
    """Rotary positions by complex numbers, in x's precision."""
    import torch

    E = x.shape[-1]
    rates = torch.tensor([10000.0 ** (-2 * i / E) for i in range(E // 2)], dtype=torch.float64)
    angle = places.double()[:, None] * rates
    cos, sin, (a, b) = angle.cos().to(x.dtype), angle.sin().to(x.dtype), _halves(x)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _between(P, end):
    import torch

    return torch.arange(P, end)


def _behind(old, new):
    import torch

    return torch.cat([old, new], 2)


def _stairs(T, P, by=0):
    import torch

    return torch.ones(T, P + T, dtype=torch.bool).tril(P + by)


def _fast(q, k, v, mask):
    from torch.nn import functional as F

    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _attend(q, k, v, mask):
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -math.inf)
    return scores.softmax(-1).nan_to_num() @ v


def turned_anew(q, k, v, cache=None):
    """The cache keeps keys that are not turned, and all are turned anew at each call: keep them turned, as the text says."""
    P, T = 0 if cache is None else cache[0].shape[2], q.shape[2]
    if cache is not None:
        k, v = _behind(cache[0], k), _behind(cache[1], v)
    turned = _turn(k, _between(0, P + T))
    return _attend(_turn(q, _between(P, P + T)), turned, v, _stairs(T, P)), (k, v)


def turned_twice(q, k, v, cache=None):
    """Keys of the cache are turned once more at each call; they are turned already: turn the new ones, then put them behind."""
    P, T = 0 if cache is None else cache[0].shape[2], q.shape[2]
    if cache is not None:
        k, v = _behind(cache[0], k), _behind(cache[1], v)
    k = _turn(k, _between(0, P + T))
    return _attend(_turn(q, _between(P, P + T)), k, v, _stairs(T, P)), (k, v)


@parts
def _cached_attention(
    q,
    k,
    v,
    cache=None,
    *,
    start=lambda cache: 0 if cache is None else cache[0].shape[2],
    of_q=lambda q, P: _turn(q, _between(P, P + q.shape[2])),
    of_k=lambda k, P: _turn(k, _between(P, P + k.shape[2])),
    of_v=lambda v, P: v,
    extend=_behind,
    mask=_stairs,
    attend=_attend,
    keep=lambda k, v, new, cache: (k, v),
    end=lambda y, cache: (y, cache),
):
    P = start(cache)
    q, k, v = of_q(q, P), of_k(k, P), of_v(v, P)
    new = k, v
    if cache is not None:
        k, v = extend(cache[0], k), extend(cache[1], v)
    return end(attend(q, k, v, mask(q.shape[2], k.shape[2] - q.shape[2])), keep(k, v, new, cache))


_CACHE_MISTAKES = _cached_attention.mistakes(
    turned_twice,
    turned_anew,
    start={
        "Positions restart at 0 at each call; the new ones stand behind the P that are kept: torch.arange(P, P + T).": (
            lambda cache: 0
        ),
        "P is taken from the heads' axis; positions are axis 2 of the keys, cache[0].shape[2].": lambda cache: (
            0 if cache is None else cache[0].shape[1]
        ),
        "P is taken from the batch's axis; positions are axis 2 of the keys, cache[0].shape[2].": lambda cache: (
            0 if cache is None else cache[0].shape[0]
        ),
        "P is taken from the width; positions are axis 2 of the keys, cache[0].shape[2].": lambda cache: (
            0 if cache is None else cache[0].shape[3]
        ),
        "P is the length of the pair, 2; positions are axis 2 of the keys, cache[0].shape[2].": lambda cache: (
            0 if cache is None else 2
        ),
        "The new positions begin one too early: behind P kept ones the next is P.": lambda cache: (
            0 if cache is None else cache[0].shape[2] - 1
        ),
        "The new positions begin one too late: behind P kept ones the next is P.": lambda cache: (
            0 if cache is None else cache[0].shape[2] + 1
        ),
    },
    mask={
        "There is no mask: the new positions look at later new ones.": lambda T, P: _stairs(T, P, T),
        "The staircase of the mask begins at the first key (is_causal=True does that): the new positions are the last T "
        "of P + T, so row i has P + i + 1 keys, .tril(P).": lambda T, P: _stairs(T, P, -P),
        "A position does not see itself: .tril(P), not P - 1.": lambda T, P: _stairs(T, P, -1),
        "A position does not see itself, but for the first: .tril(P), not P - 1.": lambda T, P: (
            _stairs(T, P, -1) | (_between(0, P + T) == 0)
        ),
        "With several new ones the staircase begins at the first key (is_causal=True does that): right for one new letter "
        "at a time, wrong for a prompt in pieces. Row i has P + i + 1 keys, .tril(P).": lambda T, P: _stairs(
            T, P, -P if T > 1 else 0
        ),
        "There is no mask behind a cache: of several new positions each looks at later ones, too.": lambda T, P: (
            _stairs(T, P, T if P else 0)
        ),
        "The mask is turned around (but for a position itself): True may look.": lambda T, P: ~_stairs(T, P, -1),
        "A position sees the one after it: .tril(P), not P + 1.": lambda T, P: _stairs(T, P, 1),
        "The mask is turned around: True may look.": lambda T, P: ~_stairs(T, P),
        "Each new position sees itself and earlier new ones only; the kept ones, too.": lambda T, P: (
            _stairs(T, P) & (_between(0, P + T) >= P)
        ),
        "The mask hides new positions from each other; each looks at those up to itself.": lambda T, P: (
            (_between(0, P + T) < P) | (_between(0, P + T) == _between(P, P + T)[:, None])
        ),
    },
    together={
        "The mask is T × T; it has P + T columns, one for each key: torch.ones(T, P + T, dtype=torch.bool).tril(P).": {
            "mask": lambda T, P: _stairs(T, 0),
            "attend": _fast,
        },
        "Nothing is turned: rope for q and k.": {"of_q": lambda q, P: q, "of_k": lambda k, P: k},
        "All new ones are turned by P; they stand at P, P + 1, ..., P + T - 1.": dict.fromkeys(
            ("of_q", "of_k"), lambda x, P: _turn(x, _between(P, P + 1).expand(x.shape[2]))
        ),
        "Behind a cache all new ones are turned by P; they stand at P, P + 1, ..., P + T - 1.": dict.fromkeys(
            ("of_q", "of_k"), lambda x, P: _turn(x, P + (0 if P else 1) * _between(0, x.shape[2]))
        ),
    },
    of_q={
        "The queries are not turned: rope for q and k.": lambda q, P: q,
        "All queries are turned alike, by P; they stand at P, P + 1, ..., P + T - 1.": lambda q, P: _turn(
            q, _between(P, P + 1).expand(q.shape[2])
        ),
        "Queries are turned from position 0 on; they stand at P ... P + T - 1, as the keys do.": lambda q, P: _turn(
            q, _between(0, q.shape[2])
        ),
    },
    of_k={
        "The keys are not turned: rope for q and k.": lambda k, P: k,
        "Keys are turned from position 0 on; the new ones stand at P ... P + T - 1.": lambda k, P: _turn(
            k, _between(0, k.shape[2])
        ),
    },
    of_v={
        "The values are turned as well; rope is for queries and keys.": lambda v, P: _turn(
            v, _between(P, P + v.shape[2])
        )
    },
    extend={
        "The new ones stand before the old; the cache comes first.": lambda old, new: _behind(new, old),
        "What is kept of row 0 is used for all rows of the batch.": lambda old, new: _behind(
            old[:1].expand(len(new), -1, -1, -1), new
        ),
        "What is kept of head 0 is used for all heads.": lambda old, new: _behind(
            old[:, :1].expand(-1, new.shape[1], -1, -1), new
        ),
    },
    attend={
        "The scores are not divided: by the root of E, the width of a head.": lambda q, k, v, mask: _attend(
            q * q.shape[-1] ** 0.5, k, v, mask
        ),
        "The scores are divided by the root of H · E; a head has the width E.": lambda q, k, v, mask: _attend(
            q / q.shape[1] ** 0.5, k, v, mask
        ),
        "The scores are divided by E; by its root.": lambda q, k, v, mask: _attend(q / q.shape[-1] ** 0.5, k, v, mask),
        "The mask is applied after the softmax, so that weights do not sum to 1.": lambda q, k, v, mask: (
            (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) * mask @ v
        ),
        "The softmax runs over the queries; each query's weights sum to 1, over the keys, the last axis.": (
            lambda q, k, v, mask: (
                (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -math.inf).softmax(-2).nan_to_num() @ v
            )
        ),
        "Hidden scores are -10, and exp(-10) counts: -inf.": lambda q, k, v, mask: (
            (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -10.0).softmax(-1) @ v
        ),
        "Scores times mask are 0 where one may not look, and exp(0) = 1 counts.": lambda q, k, v, mask: (
            (q @ k.mT / q.shape[-1] ** 0.5 * mask).softmax(-1) @ v
        ),
    },
    keep={
        "The cache holds the new keys and values only: the next call would have forgotten the rest.": (
            lambda k, v, new, cache: new
        ),
        "The old cache comes back: the next call would not know of these positions.": lambda k, v, new, cache: (
            cache if cache is not None else (k, v)
        ),
        "Keys and values are exchanged in the cache: (keys, values).": lambda k, v, new, cache: (v, k),
        "The cache is cut from the graph.": lambda k, v, new, cache: (k.detach(), v.detach()),
    },
    end={
        "The output alone comes back: return output, cache.": lambda y, cache: y,
        "Output and cache are exchanged: return output, cache.": lambda y, cache: (cache, y),
        "The heads are merged already; the output is (B, H, T, E).": lambda y, cache: (
            y.transpose(1, 2).flatten(2),
            cache,
        ),
        "The output's heads and positions are exchanged: it is (B, H, T, E).": lambda y, cache: (
            y.transpose(1, 2),
            cache,
        ),
        "The output is cut from the graph.": lambda y, cache: (y.detach(), cache),
    },
)


@exercise(
    hints=[
        "P is how many positions the cache has: 0 where it is None, else cache[0].shape[2]. The new positions are "
        "torch.arange(P, P + T).",
        "Turn q and k with them first; then k = torch.cat([cache[0], k], 2), and v likewise, where there is a cache.",
        "mask = torch.ones(T, P + T, dtype=torch.bool).tril(P): row i has P + i + 1 times True. "
        "F.scaled_dot_product_attention(q, k, v, attn_mask=mask), and (k, v) is the cache.",
    ],
    mistakes=_CACHE_MISTAKES,
    seconds=20,
)
def cached_attention(learner, rng):
    import torch

    def authority(q, k, v):
        """All positions in one go, one query at a time."""
        S = q.shape[2]
        q, k = _turn(q, torch.arange(S)), _turn(k, torch.arange(S))
        rows = [
            (q[:, :, t : t + 1] @ k[:, :, : t + 1].mT / math.sqrt(q.shape[3])).softmax(-1) @ v[:, :, : t + 1]
            for t in range(S)
        ]
        return torch.cat(rows, 2), k, v

    def pieces(made, cut, why, dtype):
        S = sum(cut)
        wanted, keys, values = authority(*(each.double() for each in made))
        cache, P, had = None, 0, []
        too_long = "Short texts were right: is something cut at a fixed length, positions or keys?" if S > 100 else ""

        def likely_of(sentence):
            """A known mistake that does the same at every call so far, as far as single precision goes."""
            return lambda yours, expected: (
                (_mistake_at_all_calls(made, cut, had) or sentence) if hasattr(expected, "shape") else ""
            )  # where only the kind of numbers is wrong, a mistake that agrees in value says nothing

        for n, T in enumerate(cut):
            new = [each[:, :, P : P + T] for each in made]
            said = f"{why}, cut {cut}: call {n + 1}, P = {P}, T = {T}" if cut[0] < S else f"{why}, in one go"
            result = learner(*new) if cache is None and n == 0 and P == 0 and len(cut) % 2 else learner(*new, cache)
            output, cache = expect.parts(result, ("output", "cache"), f"{said}: two results")
            tensor(output, f"{said}: the output")
            had.append((output, *expect.parts(cache, ("keys", "values"), f"{said}: the cache is a pair")))
            off = {"rtol": 2e-4, "atol": 5e-4 if S > 100 else 2e-5}
            part, why_output = wanted[:, :, P : P + T], f"the output, {said}"
            expect.close(output, part, why=why_output, source=source, dtype=dtype, likely=likely_of(too_long), **off)
            P += T
            for name, mine, theirs in zip(("keys", "values"), cache, (keys, values), strict=True):
                tensor(mine, f"{said}: the cache's {name}")
                rule = f"the {name} in the cache, {said}"
                likely = likely_of(_KEPT[name])
                expect.close(mine, theirs[:, :, :P], why=rule, source=source, dtype=dtype, likely=likely, **off)

    source = "all positions in one go"
    for (B, H, E), cuts in [
        ((2, 3, 6), [[5], [4, 1, 2], [1, 1, 1], [2, 4]]),
        ((1, 1, 2), [[1, 3], [1]]),
        ((3, 2, 4), [[2, 1, 5], [7, 1]]),
        ((4, 4, 4), [[4, 4], [4, 1]]),
        ((1, 2, 4), [[140], [130, 2, 8]]),
    ]:
        for cut in cuts:
            made = [torch.tensor(rng.normal(size=(B, H, sum(cut), E)) * 1.5) for _ in range(3)]
            pieces(made, cut, f"B = {B}, H = {H}, E = {E}", torch.float64)
        pieces([each.float() for each in made], cut, f"B = {B}, H = {H}, E = {E}, in single precision", torch.float32)
    q, k, v = (torch.tensor(rng.normal(size=(2, 3, 5, 4))) for _ in range(3))
    leaves = [each.clone().requires_grad_() for each in (q, k, v)]
    with torch.enable_grad():
        first, cache = learner(*(each[:, :, :3] for each in leaves), None)
        second, _ = learner(*(each[:, :, 3:] for each in leaves), cache)
        way = torch.tensor(rng.normal(size=(2, 3, 5, 4)))
        mine = torch.cat([first, second], 2)
        expect.true(mine.requires_grad, "gradients flow through both calls", likely=_CUT)
        given = torch.autograd.grad((mine * way).sum(), leaves, allow_unused=True)
        wanted = torch.autograd.grad((authority(*leaves)[0] * way).sum(), leaves)
    for name, a, b in zip(("q", "k", "v"), given, wanted, strict=True):
        expect.true(a is not None, f"a gradient reaches {name}", likely=_CUT)
        why = f"the gradient with respect to {name}, through two calls"
        expect.close(a, b, why=why, source=source, rtol=1e-3, atol=1e-4, likely=_CUT)


def _mistake_at_all_calls(made, cut, had):
    """The sentence of the known mistake that gives what was had so far, "" where there is none."""
    import torch

    for mistake in _CACHE_MISTAKES:
        cache, P, alike = None, 0, True
        with torch.no_grad():
            for T, mine in zip(cut, had, strict=False):
                try:
                    output, cache = mistake(*(each[:, :, P : P + T] for each in made), cache)
                    alike = alike and all(map(_near, mine, (output, *cache)))
                except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
                    alike = False
                if not alike:
                    break
                P += T
        if alike:
            return mistake.__doc__
    return ""


_CUT = "Is output or cache cut from the graph: .detach(), no_grad?"
_KEPT = {
    "keys": "The cache's keys are the turned ones, those of before first, then the new ones.",
    "values": "The cache's values are those of before first, then the new ones, as they were given.",
}


# ------------------------------------------------------------------------------------------------ generate


class _Kept(list):
    """A cache that counts as false, as an empty tensor does: it is handed on whatever it is."""

    def __bool__(self):
        return False


class _Memory:
    """A model that remembers all it was given: logits hang on the whole of it, by a number for each history."""

    def __init__(self, rng, V, kind):
        import torch

        self.table, self.kind, self.calls = torch.tensor(rng.normal(size=(997, V))), kind, []

    def after(self, state, symbol):
        return (state * 31 + 7 * symbol + 5) % 997

    def __call__(self, new, cache):
        import torch

        shape = tuple(getattr(new, "shape", ()))
        expect.true(
            len(shape) == 2 and shape[1] > 0,
            "step gets ids (B, T)",
            f"yours    {shape}",
            likely="step gets (B, 1): logits[:, -1:].argmax(-1) keeps the axis of T.",
        )
        kind = getattr(new, "dtype", None)
        expect.true(
            kind == torch.int64, "step gets ids", f"yours    {kind}", likely="ids are int64, as argmax gives them."
        )
        if cache is not None and not isinstance(cache, list):
            likely = "cache is None at the beginning and then what the last call returned, whatever it is."
            raise Complaint(
                "step gets the cache of the call before", [f"yours    {type(cache).__name__}"], likely, "cache"
            )
        self.calls.append(new.clone())
        states = [1] * len(new) if cache is None else list(cache[0])
        rows = []
        for b, row in enumerate(new.tolist()):
            found = []
            for symbol in row:
                states[b] = self.after(states[b], symbol)
                found.append(self.table[states[b]])
            rows.append(torch.stack(found))
        return torch.stack(rows), self.kind([tuple(states)])

    def greedy(self, row, n):
        """One row, by hand."""
        row, state = list(row), 1
        for symbol in row:
            state = self.after(state, symbol)
        for _ in range(n):
            row.append(int(self.table[state].argmax()))
            state = self.after(state, row[-1])
        return row


def all_again_with_the_cache(step, ids, n):
    """All ids are given again at each call, and with the cache they count twice: after the prompt, the new id alone."""
    import torch

    cache = None
    for _ in range(n):
        logits, cache = step(ids, cache)
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids


def anew(step, ids, n):
    """Right, but everything is computed anew at each call: hand the cache on, and only the new id."""
    import torch

    for _ in range(n):
        logits, _ = step(ids, None)
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids


@parts
def _generate(
    step,
    ids,
    n,
    *,
    begin=lambda ids: ids,
    times=lambda n: range(n),
    carry=lambda cache, first: cache,
    choose=lambda logits: logits[:, -1:].argmax(-1),
    end=lambda ids, T: ids,
):
    import torch

    new, cache, first, T = begin(ids), None, None, ids.shape[1]
    for _ in times(n):
        logits, cache = step(new, carry(cache, first))
        first = cache if first is None else first
        new = choose(logits)
        ids = torch.cat([ids, new], 1)
    return end(ids, T)


@exercise(
    hints=[
        "Two variables change from round to round: what step gets next, and the cache. They begin as ids and None.",
        "logits, cache = step(new, cache); new = logits[:, -1:].argmax(-1) is (B, 1).",
        "ids = torch.cat([ids, new], 1), in a variable of its own; new alone goes into the next call.",
    ],
    mistakes=_generate.mistakes(
        all_again_with_the_cache,
        anew,
        begin={
            "Only the last id of the prompt is given; the prompt goes in as a whole first.": lambda ids: ids[:, -1:],
            "The prompt goes in without its last id; all of it, and the last logits say what comes next.": lambda ids: (
                ids[:, :-1] if ids.shape[1] > 1 else ids
            ),
            "Only the first id of the prompt is given; the prompt goes in as a whole first.": lambda ids: ids[:, :1],
        },
        times={
            "One id too many is written: n of them.": lambda n: range(n + 1),
            "One id too few is written: the prompt's call gives the first of the n.": lambda n: range(n - 1),
        },
        carry={
            "The cache is not handed on: a new id alone, with None, is taken for the beginning of a text.": (
                lambda cache, first: None
            ),
            "A cache that counts as false is lost (`or`, `if cache`): hand on what the last call returned, whatever it is.": (
                lambda cache, first: cache or None
            ),
            "The cache of the first call is used for all; each call returns a new one.": lambda cache, first: first,
        },
        choose={
            "It takes the logits of the first position, logits[:, 0]; what comes next stands at the last, logits[:, -1:].": (
                lambda logits: logits[:, :1].argmax(-1)
            ),
            "The least likely id is taken: argmax.": lambda logits: logits[:, -1:].argmin(-1),
            "All rows get the id of row 0; each has its own.": lambda logits: (
                logits[:1, -1:].argmax(-1).expand(len(logits), -1)
            ),
            "The second likeliest id is taken.": lambda logits: logits[:, -1:].topk(2).indices[..., 1],
            "The next id is drawn; here it is the likeliest, argmax.": lambda logits: (
                logits[:, -1].softmax(-1).multinomial(1)
            ),
            "argmax goes over the rows; over the symbols, the last axis.": lambda logits: logits[:, -1].argmax(0)[
                : len(logits), None
            ],
        },
        end={
            "The new ids alone come back; the prompt stands before them.": lambda ids, T: ids[:, T:],
            "A list comes back; a tensor (B, T + n).": lambda ids, T: ids.tolist(),
            "The ids are float; int64.": lambda ids, T: ids.float(),
            "The ids are int32; int64.": lambda ids, T: ids.int(),
        },
    ),
)
def generate(learner, rng):
    import torch

    for B, T, n, V in [
        (3, 5, 6, 7),
        (2, 1, 8, 5),
        (1, 4, 1, 6),
        (4, 3, 0, 5),
        (1, 1, 12, 9),
        (5, 7, 4, 11),
        (2, 2, 2, 4),
        (2, 150, 3, 7),
    ]:
        model, ids = _Memory(rng, V, _Kept if n > 6 else list), torch.tensor(rng.integers(V, size=(B, T)))
        why = f"{B} row{'s' * (B > 1)}, a prompt of {T}, n = {n}"
        given = learner(model, ids, n)
        wanted = [model.greedy(row, n) for row in ids.tolist()]
        tensor(given, why)
        expect.shape(given, (B, T + n), why, likely="The prompt first, then n ids: (B, T + n).")
        _fed_rightly(model.calls, ids, given, n, why)
        likely = (
            "Each id is the likeliest after all before it: the last position's logits, the cache of the call before."
        )
        expect.equal(given, wanted, why=why, source="one row at a time", likely=likely)
        expect.dtype(given, torch.int64, why)


def _fed_rightly(calls, ids, given, n, why):
    """The prompt in one call, then each new id at most once, and nothing else."""
    B, T = ids.shape

    def complain(rule, yours, expected, likely):
        raise Complaint(f"{why}: {rule}", [f"yours    {yours}", f"expected {expected}"], likely, given)

    for k, new in enumerate(calls):
        if k == 0 and new.shape != ids.shape:
            likely = "The prompt goes in as a whole, in one call."
            if len(new) < B:
                likely = "All rows go in together, (B, T), in one call."
            complain("the first call", tuple(new.shape), (B, T), likely)
        if k and new.shape != (B, 1):
            likely = "After the prompt only the new id goes in, (B, 1): what was before it is in the cache."
            complain(f"step's call {k + 1}", tuple(new.shape), (B, 1), likely)
        if k > n:
            likely = "Is it called anew for what was computed? The prompt's call gives the first of the n ids."
            complain("nothing is computed twice", f"{len(calls)} calls", n, likely)
        if k and not new.equal(given[:, T + k - 1, None].to(new.dtype)):
            likely = "What goes in is the id that was just written: each once, none of the prompt again."
            complain(f"step's call {k + 1}", new[:, 0].tolist(), given[:, T + k - 1].tolist(), likely)


# ------------------------------------------------------------------------------------------------ window_loss


class _Windows:
    """A model whose logits hang on all of its window so far."""

    def __init__(self, rng, V, window):
        import torch
        from torch import nn

        self.table = nn.Parameter(torch.tensor(1.5 * rng.normal(size=(499, V))))
        self.window, self.recorded, self.asked = window, False, 0

    def row(self, symbols):
        """Numbers of the rows of the table, one for each position."""
        state, rows = 3, []
        for n, symbol in enumerate(symbols):
            state = (state * 17 + 5 * symbol + n + 1) % 499
            rows.append(state)
        return rows

    def __call__(self, x):
        import torch

        shape = tuple(getattr(x, "shape", ()))
        fits = len(shape) == 2 and shape[0] == 1
        expect.true(
            fits, "the model gets (1, T)", f"yours    {shape}", likely="ids[None, start:end] has the axis of 1."
        )
        if not 1 <= shape[1] <= self.window:
            likely = "A window is ids[start : start + window], and the last target has no successor."
            if shape[1] == self.window + 1:
                likely = "The targets are one further; the inputs are `window` ids, not one more."
            raise Complaint(
                f"the model gets 1 to {self.window} ids at once", [f"yours    {shape[1]}"], likely, "window"
            )
        self.recorded |= torch.is_grad_enabled()
        self.asked += 1
        return self.table[torch.tensor(self.row(x[0].tolist()))][None], None


def _windows_of(N, window, stride):
    """Begin and end of each window's inputs."""
    begins = range(0, N - 1, stride)
    last = next(k for k, begin in enumerate(begins) if begin + window >= N - 1)
    return [(begin, min(begin + window, N - 1)) for begin in begins[: last + 1]]


class _Telling:
    """A model of a text in which no two symbols are alike, so that it knows which window it is asked for. The loss of
    each prediction is another power of 5: a sum of them tells how often each was counted."""

    def __init__(self, N, window, stride):
        import torch

        self.ids, self.asked, self.wanted = torch.randperm(N), [], _windows_of(N, window, stride)
        pairs = [(start, i) for start, end in reversed(self.wanted) for i in range(start + 1, end + 1)]
        self.losses = {pair: 5.0**k for k, pair in enumerate(pairs)}

    def __call__(self, x):
        import torch

        N, start = len(self.ids), int((self.ids == x[0, 0]).nonzero())
        self.asked.append((start, start + x.shape[1]))
        logits = torch.zeros(1, x.shape[1], N, dtype=torch.float64)
        for t in range(x.shape[1]):
            loss = self.losses.get((start, start + t + 1), 0.3)
            logits[0, t] = loss + math.log1p(-math.exp(-loss)) - math.log(N - 1)
            logits[0, t, self.ids[min(start + t + 1, N - 1)]] = 0
        return logits, None

    def counts(self, mean):
        """How often each of ids[1:] was counted: (in the first window that predicts it, in a later one); None if the
        mean does not tell."""
        N = len(self.ids)
        for total in dict.fromkeys((N - 1, *range(1, 3 * N))):
            whole, found = round(mean * total), {}
            if abs(mean * total - whole) > 1e-3 or whole <= 0:
                continue
            for pair in self.losses:
                whole, found[pair] = divmod(whole, 5)
            if whole or max(found.values()) > 2 or total not in (N - 1, N, sum(found.values())):
                continue
            first = {i: min(start for start, j in self.losses if j == i) for i in range(1, N)}
            later = {i: sum(n for (start, j), n in found.items() if j == i and start > first[i]) for i in first}
            return {i: (found[first[i], i], later[i]) for i in first}
        return None


def _told_by_windows(learner, N, window, stride):
    """What windows it asks for, and which symbols it counts, in words; "" where it is as it should be or not told."""
    telling, mean = _Telling(N, window, stride), math.nan
    with contextlib.suppress(Exception):
        mean = float(learner(telling, telling.ids, window, stride))
    mine, theirs = (", ".join(f"ids[{begin}:{end}]" for begin, end in each) for each in (telling.asked, telling.wanted))
    if telling.asked[: len(telling.wanted)] != telling.wanted:
        return f"Your windows are {mine or 'none'}; they are {theirs}."
    counts = telling.counts(mean) if math.isfinite(mean) else None
    told = []
    for words, test in {
        "not counted": lambda first, later: first + later == 0,
        "counted more than once": lambda first, later: first + later > 1,
        "counted in a later window than the first that predicts it": lambda first, later: (first, later) == (0, 1),
    }.items():
        if which := [f"ids[{i}]" for i, pair in (counts or {}).items() if test(*pair)]:
            told.append(f"{', '.join(which)} {'is' if len(which) == 1 else 'are'} {words}")
    if not told and len(telling.asked) > len(telling.wanted):
        told = ["the last window is ids[{}:{}], which reaches the end; yours go on".format(*telling.wanted[-1])]
    return f"In a text of {N}: {'; '.join(told)}." if told else ""


@parts
def _window_loss(
    model,
    ids,
    window,
    stride,
    *,
    step=lambda window, stride: stride,
    targets=lambda ids, start, end: ids[start + 1 : end + 1],
    new=lambda losses, start, scored: losses[scored - start :],
    stop=lambda end, last, start, window: end == last,
    mean=lambda sums, counts, N: sum(sums) / (N - 1),
    soft=lambda logits: logits,
    finish=float,
):
    import torch
    from torch.nn import functional as F

    sums, counts, scored, last = [], [], 0, len(ids) - 1
    for start in range(0, last, step(window, stride)):
        end = min(start + window, last)
        with torch.no_grad():
            logits, _ = model(ids[None, start:end])
        losses = F.cross_entropy(soft(logits[0]), targets(ids, start, end), reduction="none")
        fresh = new(losses, start, scored)
        sums.append(fresh.sum())
        counts.append(len(fresh))
        scored = end
        if stop(end, last, start, window):
            break
    return finish(mean(sums, counts, len(ids)))


def only_whole_windows(model, ids, window, stride):
    """The end of the text is left out: the last window reaches it, and may be shorter than the others."""
    import torch
    from torch.nn import functional as F

    total, scored, last = 0.0, 0, len(ids) - 1
    for start in range(0, max(last - window, 0) + 1, stride):
        end = min(start + window, last)
        with torch.no_grad():
            logits, _ = model(ids[None, start:end])
        losses = F.cross_entropy(logits[0], ids[start + 1 : end + 1], reduction="none")
        total, scored = total + float(losses[scored - start :].sum()), end
    return total / scored


def new_from_the_front(model, ids, window, stride):
    """As many as are new count, but the first ones of the window; the new ones are the last."""
    return _window_loss.right(
        model, ids, window, stride, new=lambda losses, start, scored: losses[: len(losses) - scored + start]
    )


@exercise(
    hints=[
        "scored: how many of ids[1:] have been counted so far. A window that begins at start predicts ids[start + 1], ...; "
        "scored - start of these were counted before.",
        "end = min(start + window, N - 1); model(ids[None, start:end])[0][0] are logits for ids[start + 1 : end + 1].",
        "losses = F.cross_entropy(..., reduction='none'); total += losses[scored - start :].sum().item(); scored = end; stop "
        "where end is N - 1. Then total / (N - 1).",
    ],
    mistakes=_window_loss.mistakes(
        only_whole_windows,
        new_from_the_front,
        new={
            "Every prediction of every window counts, so that those in the overlap count twice: only the new ones.": (
                lambda losses, start, scored: losses
            ),
            "One loss too many counts from each window: that of the last symbol counted before.": (
                lambda losses, start, scored: losses[max(scored - start - 1, 0) :]
            ),
            "The first new prediction of each window is left out.": lambda losses, start, scored: losses[
                scored - start + (start > 0) :
            ],
            "It takes the mean of a window's losses for each new one; only the losses of the new ones count.": (
                lambda losses, start, scored: losses.mean().expand(len(losses) - scored + start)
            ),
        },
        soft={
            "cross_entropy takes logits: it has its own softmax.": lambda logits: logits.softmax(-1),
        },
        mean={
            "It divides by N; N - 1 symbols are predicted.": lambda sums, counts, N: sum(sums) / N,
            "It is the sum; the mean is wanted.": lambda sums, counts, N: sum(sums),
            "It is the mean of the windows' means, and windows count different numbers of symbols: add up, divide once.": (
                lambda sums, counts, N: sum(s / c for s, c in zip(sums, counts, strict=True)) / len(sums)
            ),
        },
        together={
            "Every prediction of every window counts, and all are divided by their number: those in the overlap count twice. "
            "Only the new ones.": {
                "new": lambda losses, start, scored: losses,
                "mean": lambda sums, counts, N: sum(sums) / sum(counts),
            },
            "It is the mean of the means of whole windows: those in the overlap count twice. Add up the new ones, divide once.": {
                "new": lambda losses, start, scored: losses,
                "mean": lambda sums, counts, N: sum(s / c for s, c in zip(sums, counts, strict=True)) / len(sums),
            },
        },
        step={
            "stride has no effect: the windows stand side by side; they begin at 0, stride, 2 · stride, ...": (
                lambda window, stride: window
            ),
            "The windows begin at 0, 1, 2, ...; at 0, stride, 2 · stride, ...": lambda window, stride: 1,
            "The windows are moved by window - stride, which is their overlap; by stride.": lambda window, stride: max(
                window - stride, 1
            ),
        },
        targets={
            "The targets are the inputs themselves; position t predicts what follows, one further.": (
                lambda ids, start, end: ids[start:end]
            ),
        },
        finish={
            "It is a tensor; a float: .item().": lambda mean: mean.detach(),
            "It is in bits; in nat it is not divided by ln 2.": lambda mean: float(mean) / math.log(2),
            "That is the perplexity, exp of it; the mean loss is wanted.": lambda mean: math.exp(float(mean)),
            "The sign is wrong: a loss is positive.": lambda mean: -float(mean),
        },
    ),
)
def window_loss(learner, rng):
    import torch

    def authority(model, ids, window, stride):
        """Each symbol by itself: the first window that predicts it."""
        table, losses = model.table.detach().double(), []
        for i in range(1, len(ids)):
            start = next(s for s in range(0, len(ids), stride) if s + window >= i)
            row = model.row(ids[start:i].tolist())[-1]
            losses.append(-table[row].log_softmax(0)[ids[i]].item())
        return sum(losses) / len(losses)

    cases = [
        (10, 4, 2), (12, 5, 5), (9, 4, 1), (5, 8, 3), (2, 3, 1), (14, 5, 3), (9, 8, 8), (9, 8, 2), (10, 3, 2), (11, 5, 4),
        (17, 8, 8), (2, 1, 1), (6, 1, 1),
    ]  # fmt: skip
    for N, window, stride in cases:
        V = int(rng.integers(4, 9))
        model, ids = _Windows(rng, V, window), torch.tensor(rng.integers(V, size=N))
        why = f"{N} ids, window {window}, stride {stride}"
        given = learner(model, ids, window, stride)
        wanted = authority(model, ids, window, stride)
        known = {"likely": lambda yours, expected, case=(N, window, stride): _told_by_windows(learner, *case)}
        tensor_said = "It is a tensor: .item() takes the number out." if hasattr(given, "item") else ""
        expect.close(given, wanted, why=why, source="each symbol by itself", rtol=1e-5, **known)
        expect.kind(given, float, f"a float: {why}", likely=tensor_said)
        if model.recorded:
            likely = "with torch.no_grad(): around the model's call, or @torch.no_grad() above the function."
            raise Complaint(
                f"no graph is recorded: {why}", ["yours    gradients are on in the model's call"], likely, given
            )
        if model.asked > (most := len(_windows_of(N, window, stride))) + 1:
            shown = [f"yours    {model.asked} windows", f"expected {most}"]
            raise Complaint(
                f"the window that reaches the end is the last: {why}",
                shown,
                "It goes on behind the window that reaches the end: break there.",
                given,
            )
