"""The checks of initialization-and-activations: one for each exercise, with its hints. `lab.check` runs them."""

import itertools
import math

import numpy as np
import scipy.stats
from scipy.special import erf, expit, ndtr

from atlas.checking import agree, among, around, array, cases, exercise, expect, floats, governed, numbers, parts

# ------------------------------------------------------------------------------------------------ activation

_NAMES = ("sigmoid", "tanh", "relu", "leaky", "gelu", "silu")
_FLOATS = "the docstring says that it is an array of floats"


def _by_torch(name, z):
    """φ(z) and φ'(z) by PyTorch, the slope from its automatic differentiation, in 64-bit floats."""
    import torch
    from torch.nn import functional as F

    functions = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "leaky": F.leaky_relu}
    functions |= {"gelu": F.gelu, "silu": F.silu}
    at = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    a = functions[name](at)
    a.sum().backward()
    return a.detach().numpy(), at.grad.numpy()


def _bell(z):
    return np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


@parts
def _activation(
    name,
    z,
    *,
    sigmoid=expit,
    sigmoid_slope=lambda z: expit(z) * expit(-z),
    tanh=np.tanh,
    tanh_slope=lambda z: 1 - np.tanh(z) ** 2,
    relu=lambda z: np.maximum(0, z),
    relu_slope=lambda z: np.where(z > 0, 1.0, 0.0),
    leaky=lambda z: np.where(z > 0, z, 0.01 * z),
    leaky_slope=lambda z: np.where(z > 0, 1.0, 0.01),
    gelu=lambda z: z * ndtr(z),
    gelu_slope=lambda z: ndtr(z) + z * _bell(z),
    silu=lambda z: z * expit(z),
    silu_slope=lambda z: expit(z) * (1 + z * expit(-z)),
):
    replaceable = locals()
    return replaceable[name](z), replaceable[f"{name}_slope"](z)


@exercise(
    hints=[
        "Six cases with `if name == ...`. For sigmoid and tanh compute a first: the slope needs only a.",
        "np.where(z > 0, one, other) makes the kinked ones. SiLU is a product: (z·σ)' = σ + z·σ', with σ' = σ(1 - σ).",
        "GELU: below = (1 + erf(z / math.sqrt(2))) / 2; a = z * below; "
        "slope = below + z * np.exp(-z**2 / 2) / math.sqrt(2 * math.pi). Overflow-free sigmoid: (1 + np.tanh(z / 2)) / 2.",
    ],
    mistakes=_activation.mistakes(
        returns={"It returns (slope, a); the order is (a, slope).": lambda both: both[::-1]},
        sigmoid={
            "The exponent lacks its minus: 1/(1 + e^-z).": lambda z: expit(-z),
            "This is tanh; the sigmoid goes from 0 to 1.": np.tanh,
        },
        sigmoid_slope={
            "It is z·(1 - z): the formula is σ(z)(1 - σ(z)), so use a.": lambda z: z * (1 - z),
            "The sigmoid is applied twice: the slope is a·(1 - a), with a = σ(z).": lambda z: (
                expit(expit(z)) * expit(-expit(z))
            ),
            "This is 1 - σ: the factor σ is missing.": lambda z: expit(-z),
            "This is σ²: the second factor is 1 - σ.": lambda z: expit(z) ** 2,
            "This is σ again; its slope is wanted.": expit,
        },
        tanh={
            "This is the sigmoid; tanh goes from -1 to 1.": expit,
            "A factor of 2 in the argument is missing.": lambda z: 2 * expit(z) - 1,
        },
        tanh_slope={
            "It is 1 - z²: the formula is 1 - tanh² z, so use a.": lambda z: 1 - z**2,
            "It is 1 - tanh z: the square is missing.": lambda z: 1 - np.tanh(z),
            "It is 1 - tanh² of a: tanh is applied twice.": lambda z: 1 - np.tanh(np.tanh(z)) ** 2,
            "This is a·(1 - a), which belongs to the sigmoid.": lambda z: np.tanh(z) * (1 - np.tanh(z)),
            "This is tanh again; its slope is wanted.": np.tanh,
        },
        relu={
            "It returns where z > 0; ReLU returns z there.": lambda z: z > 0,
            "It takes |z|; ReLU is 0 for negative z.": np.abs,
            "z is clipped. That keeps exp from overflowing, and ReLU from growing: it returns z however large.": (
                lambda z: np.clip(z, 0, 500)
            ),
            "It keeps the negative values; ReLU keeps the positive ones.": lambda z: np.minimum(0, z),
        },
        relu_slope={
            "It returns ReLU itself: its slope is 1 where z > 0, not z.": lambda z: np.maximum(0, z),
            "It is the sign of z: where z is negative, ReLU is flat.": np.sign,
            "The slope is 1 everywhere; where z is negative, ReLU is flat.": np.ones_like,
            "ReLU's slope at exactly 0 is 0: the table says 1 where z > 0, not where z ≥ 0.": lambda z: np.where(
                z >= 0, 1.0, 0.0
            ),
        },
        leaky={
            "This is plain ReLU: negative z come through too, times 0.01.": lambda z: np.maximum(0, z),
            "The factor for negative z is 0.01, not 0.1.": lambda z: np.where(z > 0, z, 0.1 * z),
            "The factor for negative z is 0.01, not 0.2.": lambda z: np.where(z > 0, z, 0.2 * z),
            "Negative z become a constant: 0.01 multiplies z.": lambda z: np.where(z > 0, z, 0.01),
            "Negative z change their sign: 0.01·z stays negative.": lambda z: np.where(z > 0, z, -0.01 * z),
            "The two sides are swapped: 0.01·z belongs to negative z.": lambda z: np.where(z > 0, 0.01 * z, z),
        },
        leaky_slope={
            "Where z is negative the slope is 0.01, not 0.": lambda z: np.where(z > 0, 1.0, 0.0),
            "The slope for negative z is 0.01, not 0.1.": lambda z: np.where(z > 0, 1, 0.1),
            "It returns the activation itself; the slope is 1 or 0.01.": lambda z: np.where(z > 0, z, 0.01 * z),
            "Where z is negative the slope is +0.01.": lambda z: np.where(z > 0, 1, -0.01),
            "It is 0.01·z where z is negative: that is φ; its slope is 0.01.": lambda z: np.where(z > 0, 1, 0.01 * z),
            "The leaky slope at exactly 0 is 0.01: the table says 1 where z > 0, not where z ≥ 0.": lambda z: np.where(
                z >= 0, 1, 0.01
            ),
        },
        gelu={
            "This is the approximation with tanh; the exact GELU uses erf.": (
                lambda z: 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
            ),
            "This is the approximation z·σ(1.702 z); the exact GELU uses erf.": lambda z: z * expit(1.702 * z),
            "erf takes z/√2: the √2 is missing.": lambda z: z * (1 + erf(z)) / 2,
            "This is Φ(z) alone; GELU is z·Φ(z).": ndtr,
            "The ½ in Φ is missing.": lambda z: 2 * z * ndtr(z),
            "This is SiLU; GELU has Φ in the place of σ.": lambda z: z * expit(z),
            "erf is used for Φ; Φ = (1 + erf)/2.": lambda z: z * erf(z / math.sqrt(2)),
        },
        gelu_slope={
            "The second part of the product rule is missing: Φ(z) + z·Φ'(z).": ndtr,
            "The first part of the product rule is missing: Φ(z) + z·Φ'(z).": lambda z: z * _bell(z),
            "The factor z is missing in the second part: Φ(z) + z·Φ'(z).": lambda z: ndtr(z) + _bell(z),
            "The bell curve lacks its 1/√(2π).": lambda z: ndtr(z) + z * np.exp(-(z**2) / 2),
            "The exponent of the bell curve is -z²/2: the ½ is missing.": (
                lambda z: ndtr(z) + z * np.exp(-(z**2)) / math.sqrt(2 * math.pi)
            ),
            "The bell curve is divided by 2π; it is √(2π).": lambda z: (
                ndtr(z) + z * np.exp(-(z**2) / 2) / (2 * math.pi)
            ),
            "The bell curve is divided by √π; it is √(2π).": lambda z: ndtr(z) + z * _bell(z) * math.sqrt(2),
            "This is GELU again; its slope is wanted.": lambda z: z * ndtr(z),
        },
        silu={
            "This is σ(z) alone; SiLU is z·σ(z).": expit,
            "This is GELU; SiLU has the sigmoid σ in the place of Φ.": lambda z: z * ndtr(z),
        },
        silu_slope={
            "The second part of the product rule is missing: σ + z·σ'.": expit,
            "The first part of the product rule is missing: σ + z·σ'.": lambda z: z * expit(z) * expit(-z),
            "That is the sigmoid's slope. SiLU is a product, z·σ: its slope is σ + z·σ'.": lambda z: (
                expit(z) * expit(-z)
            ),
            "The factor z is missing in the second part: σ + z·σ'.": lambda z: expit(z) * (1 + expit(-z)),
            "This is a + z·a·(1 - a) with a = z·σ: σ is meant, not a.": (
                lambda z: z * expit(z) + z * (z * expit(z)) * (1 - z * expit(z))
            ),
            "This is a·(1 - a), the sigmoid's rule; SiLU is a product.": lambda z: z * expit(z) * (1 - z * expit(z)),
            "This is SiLU again; its slope is wanted.": lambda z: z * expit(z),
        },
    ),
)
def activation(learner, rng):
    far = np.array([-800.0, -40.0, 40.0, 800.0])
    for name in _NAMES:
        agree(
            lambda z, name=name: learner(name, z),
            lambda z, name=name: _by_torch(name, z),
            rng,
            why=name,
            source="PyTorch and its automatic differentiation, 64-bit",
            parts=("φ(z)", "φ'(z)"),
            without={"integers": _FLOATS},
            z=floats("B", "H", any_rank=True),
            rtol=1e-6,
            atol=1e-9,
        )
        for part, expected, what in zip(learner(name, far), _by_torch(name, far), ("φ(z)", "φ'(z)"), strict=True):
            why = f"{name}: {what} far out, at z = -800, -40, 40, 800"
            likely = "exp overflows to infinity there, and ∞/∞ or 0·∞ is NaN. np.tanh does not overflow."
            expect.close(part, expected, why=why, source="PyTorch", rtol=1e-6, atol=1e-9, likely=likely)


# ------------------------------------------------------------------------------------------------ init_weights

_TITLES = {"lecun": "LeCun", "glorot": "Glorot", "he": "He"}
_VARIANCES = {"lecun": lambda i, o: 1 / i, "glorot": lambda i, o: 2 / (i + o), "he": lambda i, o: 2 / i}


def _variance(scheme, n_in, n_out):
    return _VARIANCES[scheme](n_in, n_out)


@parts
def _drawn_weights(
    n_in,
    n_out,
    scheme,
    distribution,
    rng,
    *,
    variance=_variance,
    root=math.sqrt,
    normal=lambda rng, sigma, shape: rng.normal(0, sigma, shape),
    uniform=lambda rng, sigma, shape: rng.uniform(-math.sqrt(3) * sigma, math.sqrt(3) * sigma, shape),
    shape=lambda n_in, n_out: (n_out, n_in),
):
    draw = {"normal": normal, "uniform": uniform}[distribution]
    return draw(rng, root(variance(scheme, n_in, n_out)), shape(n_in, n_out))


def _between(low, high):
    """A uniform draw from low·σ to high·σ."""
    return lambda rng, sigma, shape: rng.uniform(low * sigma, high * sigma, shape)


def _only(scheme, variance):
    """The right variances but for this one of a scheme."""
    return lambda asked, i, o: variance(i, o) if asked == scheme else _variance(asked, i, o)


_R3 = math.sqrt(3)


@exercise(
    hints=[
        "Three variances, from the text: 1/n_in, 2/(n_in + n_out), 2/n_in. Then σ is the square root.",
        "rng.normal takes (mean, standard deviation, shape). The shape is (n_out, n_in).",
        "uniform: limit = math.sqrt(3) * sigma; return rng.uniform(-limit, limit, (n_out, n_in)).",
    ],
    mistakes=_drawn_weights.mistakes(
        shape={"W has one row for each output: (n_out, n_in).": lambda n_in, n_out: (n_in, n_out)},
        root={
            "That is the variance; rng.normal wants the standard deviation, its square root.": lambda variance: (
                variance
            ),
            "The weights are not scaled at all: their spread is 1.": lambda variance: 1.0,
        },
        normal={
            "That is the limit √3·σ of the uniform, used as the σ of the normal.": (
                lambda rng, sigma, shape: rng.normal(0, _R3 * sigma, shape)
            ),
            "It is uniform where normal is asked for.": _between(-_R3, _R3),
            "Rows repeat: draw all n_out·n_in at once, by the shape.": (
                lambda rng, sigma, shape: np.tile(rng.normal(0, sigma, shape[1]), (shape[0], 1))
            ),
        },
        uniform={
            "The standard deviation is used for the limit r of the uniform distribution; r = √3·σ.": _between(-1, 1),
            "r is 3σ here; the variance of the uniform is r²/3, so r = √3·σ.": _between(-3, 3),
            "The range has the width √3·σ; it runs from -√3·σ to √3·σ, twice as wide.": _between(-_R3 / 2, _R3 / 2),
            "Variance r²/12 belongs to a range of width r; from -r to r it is r²/3.": _between(-2 * _R3, 2 * _R3),
            "Uniform weights run from -r to r, not from 0.": _between(0, _R3),
            "The limit is √3 times the variance: σ is its square root.": (
                lambda rng, sigma, shape: rng.uniform(-_R3 * sigma**2, _R3 * sigma**2, shape)
            ),
            "It is normal where uniform is asked for.": lambda rng, sigma, shape: rng.normal(0, sigma, shape),
        },
        variance={
            **{
                f"This is the spread of {_TITLES[other]}; {_TITLES[asked]} is asked for.": _only(
                    asked, _VARIANCES[other]
                )
                for asked, other in itertools.permutations(_VARIANCES, 2)
            },
            "n_out is used where n_in belongs (fan-in: the number of terms in the sum).": lambda s, i, o: _variance(
                s, o, i
            ),
            "He divides by n_in, the number of terms in the sum; here it is n_out.": _only("he", lambda i, o: 2 / o),
            "LeCun divides by n_in, the number of terms in the sum; here it is n_out.": _only(
                "lecun", lambda i, o: 1 / o
            ),
            "Glorot has a 2 on top: 2/(n_in + n_out).": _only("glorot", lambda i, o: 1 / (i + o)),
            "Glorot's formula with 6 is the limit of the uniform; as a standard deviation the 6 is a 2.": (
                _only("glorot", lambda i, o: 6 / (i + o))
            ),
            "Glorot averages: 2/(n_in + n_out), not 1/n_in + 1/n_out.": _only("glorot", lambda i, o: 1 / i + 1 / o),
            "Glorot's mean of the two is taken from the inverses; 2/(n_in + n_out) is wanted.": (
                _only("glorot", lambda i, o: (1 / i + 1 / o) / 2)
            ),
            "The brackets are missing: 2/(n_in + n_out).": _only("glorot", lambda i, o: 2 / i + o),
        },
    ),
)
def init_weights(learner, rng):
    import torch
    from torch.nn import init

    def by_torch(scheme, distribution, n_in, n_out, seed):
        W, generator = torch.empty(n_out, n_in, dtype=torch.float64), torch.Generator().manual_seed(seed)
        if scheme == "glorot":
            return getattr(init, f"xavier_{distribution}_")(W, generator=generator).numpy()
        kind = {"lecun": "linear", "he": "relu"}[scheme]
        return getattr(init, f"kaiming_{distribution}_")(W, nonlinearity=kind, generator=generator).numpy()

    seeds = iter(rng.integers(2**31, size=40).tolist())
    schemes = itertools.product(((300, 100), (100, 300)), ("lecun", "he", "glorot"), ("normal", "uniform"))
    for (n_in, n_out), scheme, distribution in schemes:
        asked = f"{scheme}, {distribution}, {n_in} in, {n_out} out"
        given = learner(n_in, n_out, scheme, distribution, np.random.default_rng(next(seeds)))
        expect.shape(given, (n_out, n_in), f"{asked}: the shape")
        expect.dtype(given, float, f"{asked}: weights are floats")
        theirs = by_torch(scheme, distribution, n_in, n_out, next(seeds))
        _demand_drawn(given, theirs, asked, distribution, f"{theirs.size:,} draws of torch.nn.init")
    for scheme, distribution in itertools.product(_VARIANCES, ("normal", "uniform")):
        governed(lambda g, s=scheme, d=distribution: learner(6, 5, s, d, g), why=f"{scheme}, {distribution}")
    for n_in, n_out in ((1, 1), (1, 2), (3, 1)):
        for scheme, distribution in itertools.product(("he", "glorot"), ("normal", "uniform")):
            asked = f"{scheme}, {distribution}, {n_in} in, {n_out} out"
            given = [learner(n_in, n_out, scheme, distribution, np.random.default_rng(seed)) for seed in range(25)]
            for W in given:
                expect.shape(W, (n_out, n_in), f"{asked}: the shape")
            draws, sigma = np.abs(np.array([array(W) for W in given])), math.sqrt(_variance(scheme, n_in, n_out))
            expect.true(
                draws.min() > 0,
                f"{asked}: no weight is exactly 0",
                likely="Each is a draw of its own: no mean is subtracted.",
            )
            top = _R3 * sigma * 1.0001 if distribution == "uniform" else math.inf
            seen = f"yours    up to {draws.max():.3f}", f"expected at most {top:.3f}"
            expect.true(draws.max() <= top, f"{asked}: no weight beyond √3·σ in 25 draws", *seen)
            seen = f"yours    {np.sqrt(np.mean(draws**2)):.3f}", f"expected about {sigma:.3f}"
            near = 0.4 < np.sqrt(np.mean(draws**2)) / sigma < 1.8
            expect.true(near, f"{asked}: the spread of 25 small draws", *seen)


def _demand_drawn(given, theirs, asked, distribution, source):
    """Demand draws of one's own with the mean, spread and distribution of another matrix, by numbers of two digits."""
    W, sigma = array(given).astype(float), theirs.std()
    expect.equal(
        [len(np.unique(W[:, 0])) > 1, len(np.unique(W[0])) > 1],
        [True, True],
        why=f"{asked}: weights differ from row to row, and from column to column",
        source="each is a draw of its own",
        likely="Rows or columns repeat: draw all n_out·n_in at once, by the shape.",
    )
    facts = {
        "mean, in standard deviations": (round(W.mean() / max(sigma, W.std()), 1), 0.0),
        "standard deviation, divided by the right one": (round(W.std() / sigma, 2), 1.0),
        "mean size |w|, in standard deviations": (
            round(np.abs(W).mean() / W.std(), 2),
            {"normal": math.sqrt(2 / math.pi), "uniform": _R3 / 2}[distribution],
        ),
    }
    likely = "Uniform weights run from -r to r, not from 0." if distribution == "uniform" and W.min() >= 0 else ""
    if distribution == "normal" and 1.8 < np.abs(W).max() / W.std() < 3:
        likely = f"The largest of {W.size:,} weights is {np.abs(W).max() / sigma:.1f} σ: are they cut off there?"
    if abs(W.mean() - sigma) < 0.02 and abs(W.std() - 1) < 0.02:
        likely = "The mean is about σ, and the spread 1: rng.normal takes the mean first, rng.normal(0, σ, shape)."
    for what, (yours, expected) in facts.items():
        expect.close(yours, expected, why=f"{asked}: {what}", source=source, atol=0.025, likely=likely)
    expect.true(abs(W.mean()) < 0.03 * sigma, f"{asked}: the mean is 0", f"yours    {W.mean():.5f}")
    expect.true(abs(W.std() / sigma - 1) < 0.03, f"{asked}: the standard deviation", f"yours    {W.std():.5f}")
    distance = scipy.stats.ks_2samp(W.ravel(), theirs.ravel()).statistic  # of 30,000, beyond 0.027: 1 in 10⁹
    rule, likely = f"{asked}: the distribution is {distribution}", "Is it the other one, or cut off somewhere?"
    expect.true(distance < 0.028, rule, f"so many lie elsewhere: {distance:.3f}   ({source})", likely=likely)


# ------------------------------------------------------------------------------------------------ signal


def _rms(x):
    return np.sqrt(np.mean(np.square(x)))


@parts
def _signal(
    X,
    weights,
    name,
    dA,
    *,
    up=lambda A, W: A @ W.T,
    to=lambda name, z: _by_torch(name, z)[0],
    slope_of=lambda name, z, a: _by_torch(name, z)[1],
    at_the_top=lambda slope: slope,
    down=lambda dz, dA, W: dz @ W,
    size=_rms,
    of_forward=lambda z, a, before: z,
    of_backward=lambda dz, dA, W: dz,
    first_to_last=lambda sizes: sizes,
    last_to_first=lambda sizes: sizes[::-1],
):
    A, forward, passed = X, [], []
    for W in weights:
        before, z = A, up(A, W)
        A = to(name, z)
        forward.append(size(of_forward(z, A, before)))
        passed.append((W, z, A))
    backward = []
    for number, (W, z, a) in enumerate(reversed(passed)):
        slope = slope_of(name, z, a)
        dz = dA * (slope if number else at_the_top(slope))
        backward.append(size(of_backward(dz, dA, W)))
        dA = down(dz, dA, W)
    return np.array(first_to_last(forward)), np.array(last_to_first(backward))


@exercise(
    hints=[
        "Two loops. The first goes up and must keep, for each layer, what the second needs: the slopes.",
        "Up: Z = A @ W.T, then A, slope = activation(name, Z). Down: dZ = dA * slope, note rms(dZ), then dA = dZ @ W.",
        "for W, slope in zip(reversed(weights), reversed(slopes)): ... and at the end backward[::-1], since you went down.",
    ],
    mistakes=_signal.mistakes(
        returns={"The order is (forward, backward): they are swapped.": lambda both: both[::-1]},
        of_forward={
            "These are the sizes of a = φ(z); those of z are wanted.": lambda z, a, before: a,
            "These are the sizes of what goes into each layer; those of its z are wanted.": lambda z, a, before: before,
        },
        size={
            "These are standard deviations: they subtract the mean. rms does not.": np.std,
            "These are mean absolute values. rms squares, averages, and takes the root.": lambda x: np.mean(np.abs(x)),
            "These are mean squares: the square root is missing.": lambda x: np.mean(np.square(x)),
            "One root for all examples and units, not one for each example and then their mean.": (
                lambda x: np.sqrt(np.mean(np.square(x), axis=1)).mean()
            ),
        },
        name={"It is a network of ReLUs, and `name` says otherwise: hand it on, activation(name, Z).": "relu"},
        first_to_last={"The order of forward is turned round: the first layer comes first.": lambda sizes: sizes[::-1]},
        to={"There is no activation between the layers.": lambda name, z: z},
        up={"Forwards W is transposed: Z = A @ W.T.": lambda A, W: A @ W},
        of_backward={
            "These are the gradients of the activations; multiply by the slope first: those of z are wanted.": lambda dz, dA, W: (
                dA
            ),
            "These are the gradients of what goes into each layer; those of its z are wanted.": lambda dz, dA, W: (
                dz @ W
            ),
        },
        last_to_first={
            "The order is turned round: the first layer comes first, so reverse the list.": lambda sizes: sizes
        },
        down={
            "The slopes are left out of what goes down: dA becomes dZ @ W.": lambda dz, dA, W: dA @ W,
            "Backwards W is not transposed: dA = dZ @ W.": lambda dz, dA, W: dz @ W.T,
        },
        at_the_top={"The last layer has an activation too: its slope is left out.": lambda slope: 1.0},
        slope_of={
            "There are no slopes: dZ = dA · φ'(Z).": lambda name, z, a: np.ones_like(z),
            "The slopes are taken at a, not at z.": lambda name, z, a: _by_torch(name, a)[1],
            "It multiplies by φ(z), not by its slope φ'(z).": lambda name, z, a: a,
            "The slope is ReLU's, z > 0, whatever the name: take that of `activation`.": lambda name, z, a: (
                1.0 * (z > 0)
            ),
        },
    ),
)
def signal(learner, rng):
    import torch
    from torch.nn import functional as F

    functions = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "leaky": F.leaky_relu}
    functions |= {"gelu": F.gelu, "silu": F.silu}

    def by_torch(X, weights, name, dA):
        A, zs = torch.tensor(X), []
        for W in weights:
            Z = A @ torch.tensor(W).T
            Z.requires_grad_() if not zs else Z.retain_grad()
            zs.append(Z)
            A = functions[name](Z)
        A.backward(torch.tensor(dA))
        return [_rms(Z.detach().numpy()) for Z in zs], [_rms(Z.grad.numpy()) for Z in zs]

    def one_too_many(yours, expected):
        more = np.shape(yours) == (len(expected) + 1,)
        return "One entry for each layer: the input itself does not count." if more else ""

    def demand(X, weights, name, dA, why, likely=one_too_many):
        given = expect.parts(learner(X, weights, name, dA), ("forward", "backward"), "the sizes forward and backward")
        exact = by_torch(X.astype(float), [W.astype(float) for W in weights], name, dA.astype(float))
        for mine, theirs, what in zip(given, exact, ("size of z", "size of z's gradient"), strict=True):
            rule = f"{why}: {what} by layer"
            expect.close(mine, theirs, why=rule, source="torch.autograd", rtol=1e-6, likely=likely)

    def shifted(rng, shape):
        return rng.normal(0.5, 1, shape)

    square = [rng.normal(0, 0.7, (5, 5)) for _ in range(3)]
    demand(shifted(rng, (6, 5)), square, "tanh", shifted(rng, (6, 5)), "three layers of 5, tanh")
    kinds = {"X": floats("B", "D", draw=shifted), "W1": floats("H", "D"), "W2": floats("K", "H")}
    kinds |= {"W3": floats("O", "K"), "name": among(*_NAMES), "dA": floats("B", "O", draw=shifted)}
    without = {"integers": _FLOATS, "far": "weights near 1000 saturate all", "apart": "weights near 1000 saturate all"}
    without["zeros"] = "a layer of zeros is covered by ReLU below"
    for case in cases(rng, **kinds, without=without):
        X, *weights, name, dA = case.inputs
        demand(X, weights, name, dA, f"three layers of other sizes, {name}{case}", case.likely)
    X, dA = rng.normal(size=(3, 4)), rng.normal(size=(3, 6))
    demand(X, [rng.normal(size=(6, 4))], "relu", dA, "one layer of 6 on 4 inputs, ReLU")
    demand(-np.abs(X), [np.abs(rng.normal(size=(6, 4)))], "relu", dA, "one layer in which no unit is active, ReLU")
    given = learner(np.array([[1.0, 2.0]]), [np.array([[1.0, 1.0], [1.0, -1.0]])], "relu", np.array([[3.0, 5.0]]))
    for part, expected in zip(given, (math.sqrt(5), math.sqrt(4.5)), strict=True):
        expect.close(part, [expected], why="the example above", source="by hand")


# ------------------------------------------------------------------------------------------------ orthogonal


@parts
def _orthogonal(
    n_in,
    n_out,
    gain,
    rng,
    *,
    matrix=lambda rng, larger, smaller: rng.normal(size=(larger, smaller)),
    split=np.linalg.qr,
    take=lambda M, Q, R: Q,
    signs=lambda Q, R: Q * np.sign(np.diag(R)),
    stretch=lambda gain: gain,
    turn=lambda Q, n_in, n_out: Q if n_out >= n_in else Q.T,
):
    M = matrix(rng, max(n_in, n_out), min(n_in, n_out))
    Q, R = split(M)
    return stretch(gain) * turn(signs(take(M, Q, R), R), n_in, n_out)


_CUBE = (
    "The numbers that are split up have to be normal, rng.normal: of no other distribution are all directions alike."
)


def _rotation(Q, R):
    """Signs from R, and one column turned where the determinant is -1."""
    Q = Q * np.sign(np.diag(R))
    if Q.shape[0] == Q.shape[1] and np.linalg.det(Q) < 0:
        Q[:, 0] *= -1
    return Q


@exercise(
    hints=[
        "np.linalg.qr of a tall matrix (larger, smaller) gives Q of the same shape, with orthonormal columns.",
        "Signs: Q * np.sign(np.diag(R)) multiplies each column by one sign.",
        "M = rng.normal(size=(max(n_in, n_out), min(n_in, n_out))); Q, R = np.linalg.qr(M); "
        "return gain * (Q if n_out >= n_in else Q.T), after the signs.",
    ],
    mistakes=_orthogonal.mistakes(
        turn={"It is (n_in, n_out); W has one row for each output: transpose.": lambda Q, i, o: Q.T if o >= i else Q},
        stretch={
            "The gain is missing.": lambda gain: 1.0,
            "The gain is applied twice: W itself is multiplied by it once.": lambda gain: gain**2,
            "It is divided by the gain.": lambda gain: 1 / gain,
            "It has the square root of the gain.": math.sqrt,
        },
        take={
            "The vectors are not perpendicular. Q of np.linalg.qr is what is wanted, not M or R.": lambda M, Q, R: M,
            "Each vector has the right length, but they are not perpendicular to each other.": (
                lambda M, Q, R: M / np.linalg.norm(M, axis=0)
            ),
            "Each vector has the right length, but they are not perpendicular to each other. ": (
                lambda M, Q, R: M / np.linalg.norm(M, axis=1, keepdims=True)
            ),
        },
        signs={
            "qr chooses signs by its own rule. Multiply each column of Q by the sign of R's diagonal entry.": lambda Q, R: (
                Q
            ),
            "R's diagonal multiplies with its size too; only its signs are wanted: np.sign(np.diag(R)).": (
                lambda Q, R: Q * np.diag(R)
            ),
            "The signs are those of R's diagonal, not of Q's.": lambda Q, R: Q * np.sign(np.diag(Q)),
            "Each column has a sign of its own, that of its entry of R's diagonal; here the first goes to all.": lambda Q, R: (
                Q * np.sign(R[0, 0])
            ),
            "All square ones have determinant +1, so mirror images never come: leave the determinant to chance.": _rotation,
        },
        split={
            "The vectors of an SVD have signs by the routine's own rule, and no R to mend them by: np.linalg.qr.": lambda M: (
                np.linalg.svd(M, full_matrices=False)[0],
                np.eye(M.shape[1]),
            ),
        },
        matrix={
            _CUBE: lambda rng, larger, smaller: rng.uniform(-1, 1, (larger, smaller)),
            "The matrix that is split up comes from a uniform distribution with mean ½: take rng.normal, whose directions are all alike.": (
                lambda rng, larger, smaller: rng.random((larger, smaller))
            ),
            "The matrix has to be of full size, larger by smaller, all entries drawn: here it repeats.": (
                lambda rng, larger, smaller: np.eye(larger, smaller) + 0.01 * rng.normal(size=(larger, smaller))
            ),
        },
    ),
)
def orthogonal(learner, rng):
    sizes = ((6, 6, 1.0), (9, 4, 1.5), (4, 9, 0.7), (1, 1, 2.5), (1, 5, 1.3), (5, 1, 0.6), (5, 4, 3.0))
    for n_in, n_out, gain in sizes:
        asked = f"{n_in} in, {n_out} out, gain {gain}"
        W = learner(n_in, n_out, gain, np.random.default_rng(int(rng.integers(2**31))))
        wide = getattr(W, "shape", ()) == (n_out, n_out) and n_out < n_in
        likely = (
            "qr of a wide matrix has a square Q. Split up a tall one, (larger, smaller), and transpose." if wide else ""
        )
        expect.shape(W, (n_out, n_in), f"{asked}: the shape", likely=likely)
        W = array(W).astype(float)
        G = W @ W.T if n_out <= n_in else W.T @ W
        which = "W Wᵀ" if n_out <= n_in else "Wᵀ W"
        expect.close(
            G, gain**2 * np.eye(len(G)), why=f"{asked}: {which} is gain² I", source="the definition", atol=1e-9
        )
    governed(lambda generator: learner(5, 3, 1.0, generator), why="the matrix")
    for n_in, n_out in ((5, 3), (4, 4)):
        draws = [learner(n_in, n_out, 1.0, np.random.default_rng(seed)) for seed in range(300)]
        for W in draws:
            expect.shape(W, (n_out, n_in), f"{n_in} in, {n_out} out: the shape")
        draws = np.array([array(W) for W in draws])
        share = (draws > 0).mean(axis=0)  # each 0.5, give or take 0.025
        spread = draws.std(axis=0) * math.sqrt(max(n_in, n_out))  # each entry has the variance 1/larger side
        why = f"{n_in} in, {n_out} out: every orthogonal matrix is equally likely, so"
        seen = f"in 300 draws: from {share.min():.2f} to {share.max():.2f}"
        expect.equal(
            bool(np.abs(share - 0.5).max() < 0.15),
            True,
            why=f"{why} each entry is positive in half of the draws ({seen})",
            source="symmetry",
        )
        seen = f"in 300 draws: from {spread.min():.2f} to {spread.max():.2f} times the right one"
        expect.equal(
            bool((np.abs(spread - 1) < 0.2).all()),
            True,
            why=f"{why} all entries have the same spread ({seen})",
            source="symmetry",
        )
    together = (draws[:, 0, 0] * draws[:, 1, 0] > 0).mean(), (draws[:, 0, 0] * draws[:, 0, 1] > 0).mean()
    seen = f"in 300 draws: {together[0]:.2f} and {together[1]:.2f} of two neighbours have one sign"
    expect.equal(
        bool(np.abs(np.array(together) - 0.5).max() < 0.15),
        True,
        why=f"every orthogonal matrix is equally likely, so neighbours have no sign in common ({seen})",
        source="symmetry",
    )
    fourth = (draws**4).mean() * 8  # of a unit vector in 4 dimensions: E w⁴ = 3/(4·6); of 300 draws, give or take 0.012
    expect.equal(
        bool(abs(fourth - 1) < 0.05),
        True,
        why=f"every orthogonal matrix is equally likely, so the mean of w⁴ is 1/8 (in 300 draws: {fourth:.2f}/8)",
        source="the mean of w⁴ over all directions in 4 dimensions, 3/(4·6)",
        likely=_CUBE,
    )
    mirrored = np.mean([np.linalg.det(draw) < 0 for draw in draws])
    expect.equal(
        bool(abs(mirrored - 0.5) < 0.15),
        True,
        why=f"half of all orthogonal matrices are mirror images, with determinant -1 (in 300 draws: {mirrored:.2f})",
        source="symmetry",
    )


# ------------------------------------------------------------------------------------------------ stuck_units


@parts
def _stuck(
    Z,
    name,
    tiny=1e-3,
    *,
    looked_at=lambda name, Z: np.abs(_by_torch(name, Z)[1]),
    small=lambda slope, tiny: slope < tiny,
    dead=lambda stuck, slope, tiny: stuck.all(axis=0),
    share=lambda stuck, dead: stuck.mean(),
):
    slope = looked_at(name, Z)
    stuck = small(slope, tiny)
    whole = dead(stuck, slope, tiny)
    return whole, share(stuck, whole)


@exercise(
    hints=[
        "The slope is the second thing that `activation` returns, with the shape (B, H) of Z.",
        "Comparing gives an array of True and False. `.all(axis=...)` over the examples, `.mean()` over all.",
        "stuck = np.abs(activation(name, Z)[1]) < tiny; return stuck.all(axis=0), stuck.mean()",
    ],
    mistakes=_stuck.mistakes(
        returns={"The order is (dead, share).": lambda both: both[::-1]},
        dead={
            "These are units that are stuck for *any* example; dead means for every one.": lambda stuck, slope, tiny: (
                stuck.any(axis=0)
            ),
            "It is turned round: these are the living units.": lambda stuck, slope, tiny: ~stuck.all(axis=0),
            "One entry for each unit (column), not for each example: axis=0.": lambda stuck, slope, tiny: stuck.all(
                axis=1
            ),
            "This says it for every entry; over the examples: .all(axis=0).": lambda stuck, slope, tiny: stuck,
            "These are the numbers of the dead units. Asked for is True or False for each unit.": (
                lambda stuck, slope, tiny: np.flatnonzero(stuck.all(axis=0))
            ),
            "It averages over the examples; `dead` says True or False.": lambda stuck, slope, tiny: stuck.mean(axis=0),
            "It counts the stuck examples of each unit; `dead` says True or False.": lambda stuck, slope, tiny: (
                stuck.sum(axis=0)
            ),
            "It is one answer for all units; each has its own: .all(axis=0).": lambda stuck, slope, tiny: stuck.all(),
            "It averages the slopes of a unit; each entry is compared with tiny. ": lambda stuck, slope, tiny: (
                slope.mean(axis=0) < tiny
            ),
            "It adds up the slopes of a unit; each entry is compared with tiny.": lambda stuck, slope, tiny: (
                slope.sum(axis=0) < tiny
            ),
        },
        looked_at={
            "The slope's sign counts here: take its absolute value.": lambda name, Z: _by_torch(name, Z)[1],
            "It looks at z ≤ 0, which is right for ReLU only. The slope tells for all.": lambda name, Z: np.where(
                Z <= 0, 0.0, 9.0
            ),
            "It looks at |a|; a unit learns by its slope.": lambda name, Z: np.abs(_by_torch(name, Z)[0]),
            "It looks at |z|; a unit learns by its slope.": lambda name, Z: np.abs(Z),
        },
        small={
            "Only slopes of exactly 0 count here; saturated ones are merely below tiny.": lambda slope, tiny: (
                slope == 0
            ),
            "A slope of just tiny is not below it: <, not <=.": lambda slope, tiny: slope <= tiny,
            "The comparison is turned round: stuck is where the slope is below tiny.": lambda slope, tiny: slope > tiny,
        },
        share={
            "This is the share of dead units; the share of stuck entries is wanted.": lambda stuck, dead: dead.mean(),
            "This is the number of stuck entries: divide by how many there are.": lambda stuck, dead: stuck.sum(),
            "This is the share of entries that are *not* stuck.": lambda stuck, dead: 1 - stuck.mean(),
            "This is in per cent; a share is between 0 and 1.": lambda stuck, dead: 100 * stuck.mean(),
            "This is a number for each unit; over all entries: .mean() without an axis.": lambda stuck, dead: (
                stuck.mean(axis=0)
            ),
        },
        together={
            "It averages the slopes of a unit; each entry is compared with tiny.": {
                "small": lambda slope, tiny: np.array(np.broadcast_to(slope.mean(axis=0), slope.shape) < tiny),
            },
        },
    ),
)
def stuck_units(learner, rng):
    def demand(Z, name, tiny, why, likely=""):
        dead, share = expect.parts(learner(Z, name, tiny), ("dead", "share"), "dead units and the share come back")
        stuck = np.abs(_by_torch(name, Z.astype(float))[1]) < tiny
        expect.equal(dead, stuck.all(axis=0), why=f"{why}: dead units", source="the definition", likely=likely)
        expect.dtype(dead, bool, f"{why}: dead is an array of True and False")
        expect.close(share, stuck.mean(), why=f"{why}: share of stuck entries", source="the definition", likely=likely)

    Z = rng.normal(size=(6, 4))
    Z[:, 2] = -np.abs(Z[:, 2])  # its number is no count
    demand(Z, "relu", 1e-3, "ReLU, 6 examples, 4 units, one always negative")
    wide = rng.normal(0, 1, (7, 5))
    wide[:, 0], wide[:, 1], wide[:, 3], wide[:2, 4] = 6.0, 1e-4, -7.0, 9.0
    demand(wide, "tanh", 1e-3, "tanh, saturated at both ends")
    demand(wide, "sigmoid", 0.02, "sigmoid, tiny = 0.02")
    demand(wide - 1, "leaky", 1e-3, "leaky ReLU is never stuck")
    bent = rng.normal(0, 1, (6, 3))
    bent[:, 1] = rng.uniform(-3, -2, 6)  # GELU falls there: negative slopes, not tiny ones
    demand(bent, "gelu", 1e-3, "GELU, whose slope is negative in places")
    near = np.arccosh(1 / np.sqrt(np.array(around(0.05, 0.002))[1:4, None]))  # tanh' is 0.048, 0.05, 0.052 there
    demand(np.delete(near, 1, 0), "tanh", 0.05, "tanh, slopes just below and just above tiny")
    demand(
        np.full((10, 2), np.arccosh(1 / math.sqrt(0.045))), "tanh", 0.05, "tanh, ten slopes of 0.9 tiny in each unit"
    )
    demand(np.array([[-9.0, 9.0], [0.1, 9.0], [9.0, 9.0]]), "tanh", 1e-3, "tanh, stuck at both ends and alive between")
    demand(np.zeros((3, 2)), "leaky", 0.01, "leaky ReLU at 0, where the slope is tiny itself, not below")
    kinds = {"Z": floats("B", "H"), "name": among(*_NAMES), "tiny": numbers(0.05, 0.3)}
    for case in cases(rng, **kinds, without={"integers": _FLOATS}):
        Z, name, tiny = case.inputs
        demand(Z, name, tiny, f"{name}, tiny = {tiny}{case}", case.likely)
    dead, share = learner(np.array([[-1.0, 2.0], [-3.0, -1.0]]), "relu")
    expect.equal(dead, [True, False], why="the example above: dead", source="by hand")
    expect.close(share, 0.75, why="the example above: share", source="by hand")


# ------------------------------------------------------------------------------------------------ revive


def _he(rng, n_in, n):
    return rng.normal(0, math.sqrt(2 / n_in), (n, n_in))


_NOT_SMALL = "Small is not 0: only with outgoing weights of 0 does the network answer as before."


def _where(W, mask, value):
    W = W.copy()
    W[mask] = value
    return W


@parts
def _revived(
    W1,
    b1,
    W2,
    dead,
    rng,
    *,
    which=lambda dead: dead,
    incoming=lambda W1, n, rng: _he(rng, W1.shape[1], n),
    rows=lambda W1, dead, new: _where(W1, dead, new),
    bias=lambda b1, dead: _where(b1, dead, 0),
    outgoing=lambda W2, dead, rng: _where(W2.T, dead, 0).T,
):
    dead = which(dead)
    return rows(W1, dead, incoming(W1, int(dead.sum()), rng)), bias(b1, dead), outgoing(W2, dead, rng)


@exercise(
    hints=[
        "Begin with W1.copy(), b1.copy(), W2.copy(). A mask of True and False picks rows: W1[dead], and columns: W2[:, dead].",
        "The new rows are an init_weights of n_in = W1.shape[1] inputs and n_out = dead.sum() outputs.",
        'W1[dead] = init_weights(W1.shape[1], dead.sum(), "he", "normal", rng); b1[dead] = 0; W2[:, dead] = 0',
    ],
    mistakes=_revived.mistakes(
        which={
            "Only what belongs to dead units changes: index with the mask, not with ~dead.": lambda dead: ~dead,
            "Only what belongs to dead units changes: index with the mask, and not everything.": np.ones_like,
        },
        rows={"W1[dead] still holds old numbers.": lambda W1, dead, new: W1.copy()},
        bias={"Its old bias would keep it dead: b1[dead] = 0.": lambda b1, dead: b1.copy()},
        outgoing={
            "Outgoing weights must be 0: else the network's answers change at once.": lambda W2, dead, rng: W2.copy(),
            "Outgoing weights must be 0, not drawn: else the network's answers change at once.": (
                lambda W2, dead, rng: _where(W2.T, dead, _he(rng, W2.shape[1], int(dead.sum()))[:, : len(W2)]).T
            ),
            "A unit's outgoing weights are a column of W2, shape (K, H): W2[:, dead]. Here all of W2 becomes 0.": (
                lambda W2, dead, rng: 0 * W2
            ),
        },
        incoming={
            "This is He for n_in = number of dead units; n_in is the number of inputs, W1.shape[1].": (
                lambda W1, n, rng: rng.normal(0, math.sqrt(2 / max(n, 1)), (n, W1.shape[1]))
            ),
            "This is He for n_in = number of units H; n_in is the number of inputs, W1.shape[1].": (
                lambda W1, n, rng: rng.normal(0, math.sqrt(2 / len(W1)), (n, W1.shape[1]))
            ),
            "The variance, 2/n_in, goes into rng.normal here; it takes the standard deviation, its square root.": (
                lambda W1, n, rng: rng.normal(0, 2 / W1.shape[1], (n, W1.shape[1]))
            ),
            "This is LeCun; He is asked for.": lambda W1, n, rng: _he(rng, W1.shape[1], n) / math.sqrt(2),
            "This is Glorot; He is asked for.": (
                lambda W1, n, rng: _he(rng, W1.shape[1], n) * math.sqrt(W1.shape[1] / (W1.shape[1] + n))
            ),
            "Their spread is 1: they are not scaled.": lambda W1, n, rng: rng.normal(size=(n, W1.shape[1])),
            "They are uniform; He normal is asked for.": (
                lambda W1, n, rng: rng.uniform(-1, 1, (n, W1.shape[1])) * math.sqrt(6 / W1.shape[1])
            ),
            "All revived units got the same row: then they stay the same for ever. Draw one for each.": (
                lambda W1, n, rng: np.tile(_he(rng, W1.shape[1], 1), (n, 1))
            ),
            "All new weights are equal: then all revived units stay equal for ever. Draw them.": (
                lambda W1, n, rng: np.full((n, W1.shape[1]), rng.normal(0, math.sqrt(2 / W1.shape[1])))
            ),
            "The new weights are zeros: then all revived units stay equal for ever. Draw them.": (
                lambda W1, n, rng: np.zeros((n, W1.shape[1]))
            ),
        },
    ),
    new=True,
)
def revive(learner, rng):
    def demand_rest(given, before, dead, why):
        """Demand all but the new rows; return those."""
        new = expect.parts(given, ("W1", "b1", "W2"), "the three new arrays come back")
        for mine, old, name in zip(new, before, ("W1", "b1", "W2"), strict=True):
            expect.shape(mine, old.shape, f"{name} keeps its shape")
        (V1, c1, V2), (W1, b1, W2) = map(array, new), before
        expect.equal(V1[~dead], W1[~dead], why=f"{why}: rows of W1 of living units stay", source="as given")
        expect.equal(c1[~dead], b1[~dead], why=f"{why}: biases of living units stay", source="as given")

        def likely(yours, expected):  # where columns that live are 0, others were meant
            column = "A unit's outgoing weights are a column of W2, shape (K, H): W2[:, dead]."
            return column if (yours == 0).any() else ""

        expect.equal(
            V2[:, ~dead],
            W2[:, ~dead],
            why=f"{why}: columns of W2 of living units stay",
            source="as given",
            likely=likely,
        )
        expect.equal(
            int((V1[dead] == W1[dead]).any(axis=1).sum()),
            0,
            why=f"{why}: so many of the dead units' rows of W1 still hold old numbers",
            source="incoming weights are drawn anew",
            likely="W1[dead] picks them all, if dead is the mask of True and False that it came as.",
        )
        nothing = np.zeros_like(b1[dead])
        expect.equal(c1[dead], nothing, why=f"{why}: biases of revived units are 0", source="the text")
        expect.equal(
            V2[:, dead],
            np.zeros_like(W2[:, dead]),
            why=f"{why}: outgoing weights of revived units are 0",
            source="the text",
            likely=lambda yours, expected: _NOT_SMALL if 0 < np.abs(yours).max() < 0.1 else "",
        )
        return V1[dead]

    H, D, K = 260, 1000, 7
    before = rng.normal(0, 3, (H, D)), rng.normal(0, 3, H), rng.normal(0, 3, (K, H))
    dead = rng.permutation(H) < 200
    fresh = demand_rest(
        learner(*before, dead, np.random.default_rng(int(rng.integers(2**31)))), before, dead, "200 of 260 dead"
    )
    theirs = np.random.default_rng(int(rng.integers(2**31))).normal(0, math.sqrt(2 / D), (200, D))
    _demand_drawn(
        fresh, theirs, "incoming weights of revived units, He normal", "normal", f"√(2/{D}), and 200,000 draws"
    )
    # square arrays, where rows and columns are taken for each other without an error, and every number of dead units
    for size, count in ((4, 2), (4, 0), (4, 4), (4, 1), (1, 1)):
        before = rng.normal(size=(size, size)), rng.normal(size=size), rng.normal(size=(size, size))
        dead = rng.permutation(size) < count
        given = learner(*before, dead, np.random.default_rng(int(rng.integers(2**31))))
        demand_rest(given, before, dead, f"{count} of {size} dead, {size} inputs, {size} outputs")
    governed(lambda generator: learner(*before, np.array([True]), generator)[0], why="the new weights")


# ------------------------------------------------------------------------------------------------ unit_variance


@parts
def _unit(
    weights,
    X,
    phi,
    *,
    size=lambda Z, A, W, phi: (Z**2).mean().sqrt(),
    divide=lambda W, size: W / size,
    onward=lambda Z, size, phi: phi(Z / size),
    collect=lambda scaled: scaled,
):
    scaled, A = [], X
    for W in weights:
        Z = A @ W.T
        s = size(Z, A, W, phi)
        scaled.append(divide(W, s))
        A = onward(Z, s, phi)
    return collect(scaled)


@exercise(
    hints=[
        "Each layer sees what the layers before it make of X *after* their scaling. So go layer by layer, once.",
        "Z = A @ W.T; its size is (Z**2).mean().sqrt(). Dividing W by this size divides Z by it too.",
        "for W in weights: Z = A @ W.T; size = (Z**2).mean().sqrt(); scaled.append(W / size); A = phi(Z / size)",
    ],
    mistakes=_unit.mistakes(
        collect={"Append inside the loop, return behind it.": lambda scaled: scaled[:1]},
        size={
            "The layer is not scaled.": lambda Z, A, W, phi: (Z**2).mean() ** 0,
            "It divides by the mean square: the square root is missing.": lambda Z, A, W, phi: (Z**2).mean(),
            "It divides by the standard deviation, which subtracts the mean; the root mean square is wanted.": lambda Z, A, W, phi: (
                Z.std()
            ),
            "It divides by the standard deviation, which subtracts the mean. ": lambda Z, A, W, phi: Z.std(
                correction=0
            ),
            "It measures a = φ(z); z is wanted.": lambda Z, A, W, phi: (phi(Z) ** 2).mean().sqrt(),
            "It measures the weights; what they make of the data is wanted.": lambda Z, A, W, phi: (W**2).mean().sqrt(),
            "It measures the spread of the weights; what they make of the data is wanted.": lambda Z, A, W, phi: (
                W.std()
            ),
            "It divides by the size of what comes in.": lambda Z, A, W, phi: (A**2).mean().sqrt(),
            "It measures the first example only.": lambda Z, A, W, phi: (Z[0] ** 2).mean().sqrt(),
        },
        divide={"It multiplies by the size; dividing makes it 1.": lambda W, size: W * size},
        onward={
            "The first layer is right; this one has to get what the layers before it make *after* scaling, through φ. Here it gets what they make before.": (
                lambda Z, size, phi: phi(Z)
            ),
            "The first layer is right; this one has to get what the layers before it make *after* scaling, through φ. Here φ is missing.": (
                lambda Z, size, phi: Z / size
            ),
            "The first layer is right; this one has to get what the layers before it make *after* scaling, through φ. Here φ comes before the scaling.": (
                lambda Z, size, phi: phi(Z) / size
            ),
        },
        together={
            "One size for the whole layer: over all examples and all units, without an axis. Here each unit has its own.": {
                "size": lambda Z, A, W, phi: (Z**2).mean(0).sqrt(),
                "divide": lambda W, size: W / size[:, None],
            },
        },
    ),
)
def unit_variance(learner, rng):
    import torch

    def demand(weights, X, phi, why, rtol=1e-4):
        scaled = learner(weights, X, phi)
        expect.kind(scaled, (list, tuple), "a list of weights comes back")
        expect.equal(len(scaled), len(weights), why=f"{why}: one array for each layer", source="the length")
        A = X.double()
        for number, (W, new) in enumerate(zip(weights, scaled, strict=True), 1):
            expect.shape(new, tuple(W.shape), f"{why}: layer {number} keeps its shape")
            new = torch.as_tensor(array(new)).double()
            expected = W.double() / (A @ W.double().T).square().mean().sqrt()
            rule = f"{why}: layer {number}, divided by the root mean square of its z"
            expect.close(new, expected, why=rule, source="the definition", rtol=rtol)
            A = phi(A @ new.T)

    def shifted(mean, spread):
        return lambda rng, shape: rng.normal(mean, spread, shape)

    several = {"three layers, tanh": ((5, 7, 4, 6), torch.tanh), "two layers, ReLU": ((6, 3, 8), torch.relu)}
    for why, (widths, phi) in (several | {"one layer, sigmoid": ((4, 9), torch.sigmoid)}).items():
        weights = [torch.tensor(rng.normal(0.1, 0.6, (o, i))) for i, o in itertools.pairwise(widths)]
        demand(weights, torch.tensor(rng.normal(0.5, 2, (64, widths[0]))), phi, why)
    kinds = {"W1": floats("H", "D", draw=shifted(0.1, 0.6), tensor=True)}
    kinds |= {
        "W2": floats("K", "H", draw=shifted(0.1, 0.6), tensor=True),
        "X": floats("B", "D", draw=shifted(0.5, 2), tensor=True),
    }
    for case in cases(rng, **kinds):
        *weights, X = case.inputs
        demand(weights, X, torch.sigmoid, f"two layers, sigmoid{case}")
