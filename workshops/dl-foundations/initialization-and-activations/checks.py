"""The checks of initialization-and-activations: one for each exercise, with its hints. `lab.check` runs them."""

import math

import numpy as np
import scipy.special
import scipy.stats

from atlas.checking import array, exercise, expect


def _numbers(given):
    """What came back as a float array, empty where it is none: `expect` says so."""
    try:
        return np.asarray(array(given), float)
    except TypeError:
        return np.empty(0)


def _which(given, table, rtol=1e-6):
    """The words of the first entry of the table, words → what that slip makes, that is what was given; else ""."""
    given = _numbers(given)
    for words, guess in table.items():
        guess = np.asarray(guess, float)
        if guess.shape == given.shape and np.allclose(guess, given, rtol, rtol * np.abs(guess).max(initial=0)):
            return words
    return ""


# ------------------------------------------------------------------------------------------------ activation

_SQRT2, _BELL = math.sqrt(2), math.sqrt(2 * math.pi)


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


def _slips_in_the_value(name, z):
    """Words → what comes out, for φ."""
    s, below, t = scipy.special.expit(z), scipy.special.ndtr(z), np.tanh(z)
    own = {
        "sigmoid": {
            "The exponent lacks its minus: 1/(1 + e^-z).": 1 - s,
            "This is tanh; the sigmoid goes from 0 to 1.": t,
        },
        "tanh": {
            "This is the sigmoid; tanh goes from -1 to 1.": s,
            "A factor of 2 in the argument is missing.": 2 * s - 1,
        },
        "relu": {
            "It returns where z > 0; ReLU returns z there.": z > 0,
            "It takes |z|; ReLU is 0 for negative z.": np.abs(z),
            "It keeps the negative values; ReLU keeps the positive ones.": np.minimum(0, z),
        },
        "leaky": {
            "This is plain ReLU: negative z come through too, times 0.01.": np.maximum(0, z),
            "The factor for negative z is 0.01, not 0.1.": np.where(z > 0, z, 0.1 * z),
            "The factor for negative z is 0.01, not 0.2.": np.where(z > 0, z, 0.2 * z),
            "Negative z become a constant: 0.01 multiplies z.": np.where(z > 0, z, 0.01),
            "Negative z change their sign: 0.01·z stays negative.": np.where(z > 0, z, -0.01 * z),
            "The two sides are swapped: 0.01·z belongs to negative z.": np.where(z > 0, 0.01 * z, z),
        },
        "gelu": {
            "This is the approximation with tanh; the exact GELU uses erf.": 0.5
            * z
            * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
            "This is the approximation z·σ(1.702 z); the exact GELU uses erf.": z * scipy.special.expit(1.702 * z),
            "erf takes z/√2: the √2 is missing.": z * (1 + scipy.special.erf(z)) / 2,
            "This is Φ(z) alone; GELU is z·Φ(z).": below,
            "The ½ in Φ is missing.": 2 * z * below,
            "This is SiLU; GELU has Φ in the place of σ.": z * s,
            "erf is used for Φ; Φ = (1 + erf)/2.": z * scipy.special.erf(z / _SQRT2),
        },
        "silu": {
            "This is σ(z) alone; SiLU is z·σ(z).": s,
            "This is GELU; SiLU has the sigmoid σ in the place of Φ.": z * below,
        },
    }
    return own[name]


def _slips_in_the_slope(name, z):
    """Words → what comes out, for φ'."""
    s, below, t, bell = scipy.special.expit(z), scipy.special.ndtr(z), np.tanh(z), np.exp(-(z**2) / 2) / _BELL
    own = {
        "sigmoid": {
            "It is z·(1 - z): the formula is σ(z)(1 - σ(z)), so use a.": z * (1 - z),
            "The sigmoid is applied twice: the slope is a·(1 - a), with a = σ(z).": scipy.special.expit(s)
            * (1 - scipy.special.expit(s)),
            "This is 1 - σ: the factor σ is missing.": 1 - s,
            "This is σ²: the second factor is 1 - σ.": s**2,
        },
        "tanh": {
            "It is 1 - z²: the formula is 1 - tanh² z, so use a.": 1 - z**2,
            "It is 1 - tanh z: the square is missing.": 1 - t,
            "It is 1 - tanh² of a: tanh is applied twice.": 1 - np.tanh(t) ** 2,
            "This is a·(1 - a), which belongs to the sigmoid.": t * (1 - t),
        },
        "relu": {
            "It returns ReLU itself: its slope is 1 where z > 0, not z.": np.maximum(0, z),
            "It is the sign of z: where z is negative, ReLU is flat.": np.sign(z),
            "The slope is 1 everywhere; where z is negative, ReLU is flat.": np.ones_like(z),
        },
        "leaky": {
            "Where z is negative the slope is 0.01, not 0.": np.where(z > 0, 1, 0),
            "The slope for negative z is 0.01, not 0.1.": np.where(z > 0, 1, 0.1),
            "It returns the activation itself; the slope is 1 or 0.01.": np.where(z > 0, z, 0.01 * z),
            "Where z is negative the slope is +0.01.": np.where(z > 0, 1, -0.01),
            "It is 0.01·z where z is negative: that is φ; its slope is 0.01.": np.where(z > 0, 1, 0.01 * z),
        },
        "gelu": {
            "The second part of the product rule is missing: Φ(z) + z·Φ'(z).": below,
            "The first part of the product rule is missing: Φ(z) + z·Φ'(z).": z * bell,
            "The factor z is missing in the second part: Φ(z) + z·Φ'(z).": below + bell,
            "The bell curve lacks its 1/√(2π).": below + z * bell * _BELL,
            "The exponent of the bell curve is -z²/2: the ½ is missing.": below + z * np.exp(-(z**2)) / _BELL,
            "The bell curve is divided by 2π; it is √(2π).": below + z * bell / _BELL,
            "The bell curve is divided by √π; it is √(2π).": below + z * bell * _SQRT2,
        },
        "silu": {
            "The second part of the product rule is missing: σ + z·σ'.": s,
            "The first part of the product rule is missing: σ + z·σ'.": z * s * (1 - s),
            "The factor z is missing in the second part: σ + z·σ'.": s + s * (1 - s),
            "This is a + z·a·(1 - a) with a = z·σ: σ is meant, not a.": z * s + z * (z * s) * (1 - z * s),
            "This is a·(1 - a), the sigmoid's rule; SiLU is a product.": z * s * (1 - z * s),
        },
    }
    return own[name]


@exercise(
    hints=[
        "Six cases with `if name == ...`. For sigmoid and tanh compute a first: the slope needs only a.",
        "np.where(z > 0, one, other) makes the kinked ones. SiLU is a product: (z·σ)' = σ + z·σ', with σ' = σ(1 - σ).",
        "GELU: below = (1 + erf(z / math.sqrt(2))) / 2; a = z * below; "
        "slope = below + z * np.exp(-z**2 / 2) / math.sqrt(2 * math.pi). Overflow-free sigmoid: (1 + np.tanh(z / 2)) / 2.",
    ]
)
def activation(learner, rng):
    z = np.concatenate([rng.normal(0, 2, (4, 5)), rng.uniform(-0.5, 0.5, (4, 5))])
    far = np.array([-800.0, -40.0, 40.0, 800.0])
    for name in ("sigmoid", "tanh", "relu", "leaky", "gelu", "silu"):
        a, slope = expect.parts(learner(name, z), ("a", "slope"), f"{name}: the activation and its slope come back")
        expected_a, expected_slope = _by_torch(name, z)
        swapped = "It returns (slope, a); the order is (a, slope)." if _which(a, {"yes": expected_slope}) else ""
        likely = swapped or _which(a, _slips_in_the_value(name, z))
        expect.close(a, expected_a, why=f"{name}: φ(z)", source="PyTorch, 64-bit", rtol=1e-6, atol=1e-10, likely=likely)
        likely = _which(slope, _slips_in_the_slope(name, z))
        if not likely and _which(slope, {"yes": expected_a}):
            likely = "This is φ again; its slope is wanted."
        expect.close(
            slope, expected_slope, why=f"{name}: φ'(z)", source="torch.autograd", rtol=1e-6, atol=1e-10, likely=likely
        )
    for name in ("sigmoid", "tanh", "relu", "leaky", "gelu", "silu"):
        for part, expected, what in zip(learner(name, far), _by_torch(name, far), ("φ(z)", "φ'(z)"), strict=True):
            why = f"{name}: {what} far out, at z = -800, -40, 40, 800"
            likely = "exp overflows to infinity there, and ∞/∞ or 0·∞ is NaN. np.tanh does not overflow."
            likely = likely if not np.isfinite(_numbers(part)).all() else ""
            expect.close(part, expected, why=why, source="PyTorch", rtol=1e-6, atol=1e-9, likely=likely)
    for name in ("relu", "leaky"):
        expect.close(
            learner(name, np.zeros(2))[1],
            _by_torch(name, np.zeros(2))[1],
            why=f"{name}: the slope at exactly 0 is that of the left side",
            source="the table, and PyTorch",
            likely="The table says 1 where z > 0, not where z ≥ 0.",
        )


# ------------------------------------------------------------------------------------------------ init_weights

_VARIANCES = {
    "lecun": lambda i, o: 1 / i,
    "glorot": lambda i, o: 2 / (i + o),
    "he": lambda i, o: 2 / i,
}


def _by_torch_init(scheme, distribution, n_in, n_out, seed):
    """A draw by torch.nn.init: (n_out, n_in)."""
    import torch
    from torch.nn import init

    W = torch.empty(n_out, n_in, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    kaiming = {"normal": init.kaiming_normal_, "uniform": init.kaiming_uniform_}[distribution]
    xavier = {"normal": init.xavier_normal_, "uniform": init.xavier_uniform_}[distribution]
    if scheme == "glorot":
        return xavier(W, generator=generator).numpy()
    return kaiming(W, nonlinearity={"lecun": "linear", "he": "relu"}[scheme], generator=generator).numpy()


def _slips_in_the_spread(given, scheme, distribution, n_in, n_out):
    """Which slip has about this standard deviation, or ""."""
    right = math.sqrt(_VARIANCES[scheme](n_in, n_out))
    candidates = {}
    if distribution == "uniform":
        candidates |= {
            "The standard deviation is used for the limit r of the uniform distribution; r = √3·σ.": right
            / math.sqrt(3),
            "r is 3σ here; the variance of the uniform is r²/3, so r = √3·σ.": right * math.sqrt(3),
            "The range has the width √3·σ; it runs from -√3·σ to √3·σ, twice as wide.": right / 2,
            "Variance r²/12 belongs to a range of width r; from -r to r it is r²/3.": 2 * right,
            "The limit is √3 times the variance: σ is its square root.": right**2,
        }
    names = {"lecun": "LeCun", "glorot": "Glorot", "he": "He"}
    for other, variance in _VARIANCES.items():
        if other != scheme:
            candidates[f"This is the spread of {names[other]}; {names[scheme]} is asked for."] = math.sqrt(
                variance(n_in, n_out)
            )
    candidates |= {
        "n_out is used where n_in belongs (fan-in: the number of terms in the sum).": math.sqrt(
            _VARIANCES[scheme](n_out, n_in)
        ),
        "That is the variance; rng.normal wants the standard deviation, its square root.": right**2,
        "Glorot has a 2 on top: 2/(n_in + n_out).": math.sqrt(1 / (n_in + n_out)),
        "Glorot's formula with 6 is the limit of the uniform; as a standard deviation the 6 is a 2.": math.sqrt(
            6 / (n_in + n_out)
        ),
        "That is the limit √3·σ of the uniform, used as the σ of the normal.": math.sqrt(3) * right,
        "Glorot averages: 2/(n_in + n_out), not 1/n_in + 1/n_out.": math.sqrt(1 / n_in + 1 / n_out),
        "Glorot's mean of the two is taken from the inverses; 2/(n_in + n_out) is wanted.": math.sqrt(
            (1 / n_in + 1 / n_out) / 2
        ),
        "The brackets are missing: 2/(n_in + n_out).": math.sqrt(2 / n_in + n_out),
        "The weights are not scaled at all: their spread is 1.": 1.0,
    }
    spread = given.std()
    for words, value in candidates.items():
        if abs(spread / value - 1) < 0.012:
            return words
    return f"It is {spread / right:.3g} times what it should be."


def _independent(given):
    """Whether rows differ from each other, and columns too."""
    return len(np.unique(given[:, 0])) > 1 and len(np.unique(given[0])) > 1


@exercise(
    hints=[
        "Three variances, from the text: 1/n_in, 2/(n_in + n_out), 2/n_in. Then σ is the square root.",
        "rng.normal takes (mean, standard deviation, shape). The shape is (n_out, n_in).",
        "uniform: limit = math.sqrt(3) * sigma; return rng.uniform(-limit, limit, (n_out, n_in)).",
    ]
)
def init_weights(learner, rng):
    seeds = iter(int(seed) for seed in rng.integers(2**31, size=40))
    for n_in, n_out in ((800, 250), (250, 800)):
        for scheme in ("lecun", "he", "glorot"):
            for distribution in ("normal", "uniform"):
                asked = f"{scheme}, {distribution}, {n_in} in, {n_out} out"
                given = learner(n_in, n_out, scheme, distribution, np.random.default_rng(next(seeds)))
                likely = "W has one row for each output: (n_out, n_in)." if np.shape(given) == (n_in, n_out) else ""
                expect.shape(given, (n_out, n_in), f"{asked}: the shape", likely=likely)
                expect.dtype(given, float, f"{asked}: weights are floats")
                expect.finite(given, f"{asked}: weights are numbers")
                W, theirs = _numbers(given), _by_torch_init(scheme, distribution, n_in, n_out, next(seeds))
                sigma = theirs.std()
                expect.true(
                    _independent(W),
                    f"{asked}: every weight is a draw of its own",
                    likely="Rows or columns repeat: draw all n_out·n_in at once, by the shape.",
                )
                seen = f"yours    mean {W.mean():.5f}"
                expect.true(
                    abs(W.mean()) < 0.015 * max(sigma, W.std()),
                    f"{asked}: the mean is 0",
                    seen,
                    likely="Uniform weights run from -r to r, not from 0." if W.min() >= 0 else "",
                )
                expect.true(
                    abs(W.std() / sigma - 1) < 0.015,
                    f"{asked}: the standard deviation",
                    f"yours    {W.std():.5f}",
                    f"expected {sigma:.5f}   (200,000 draws of torch.nn.init)",
                    likely=_slips_in_the_spread(W, scheme, distribution, n_in, n_out),
                )
                if distribution == "uniform":
                    expect.true(
                        abs(np.abs(W).max() / np.abs(theirs).max() - 1) < 0.002,
                        f"{asked}: the largest weight is at the limit √3·σ",
                        f"yours    {np.abs(W).max():.5f}",
                        f"expected {np.abs(theirs).max():.5f}   (200,000 draws of torch.nn.init)",
                        likely="Is it a normal distribution, or cut off somewhere?",
                    )
                distance = scipy.stats.ks_2samp(W.ravel(), theirs.ravel()).statistic  # beyond 0.0107: 1 in 10⁹
                expect.true(
                    distance < 0.0115,
                    f"{asked}: the distribution is {distribution}",
                    f"share of weights that lie elsewhere than torch.nn.init's: {distance:.3f}",
                    likely="It is uniform." if np.abs(W).max() < 1.75 * sigma else "Is it the other distribution?",
                )
    one, again, other = (_numbers(learner(30, 20, "he", "normal", np.random.default_rng(seed))) for seed in (5, 5, 6))
    expect.true(
        np.array_equal(one, again) and not np.array_equal(one, other),
        "chance comes from rng only: equal generators give equal weights, others give others",
        likely="Draw with rng.normal and rng.uniform, not with np.random, and make no generator of your own.",
    )


# ------------------------------------------------------------------------------------------------ signal


def _rms(x):
    return np.sqrt(np.mean(np.square(x)))


def _signal_by_torch(X, weights, name, dA):
    """Root mean squares of z and its gradient by layer, from torch.autograd; the z and gradients themselves too."""
    import torch
    from torch.nn import functional as F

    functions = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu, "leaky": F.leaky_relu}
    functions |= {"gelu": F.gelu, "silu": F.silu}
    A, zs = torch.tensor(X), []
    for W in weights:
        Z = A @ torch.tensor(W).T
        Z.requires_grad_() if not zs else Z.retain_grad()
        zs.append(Z)
        A = functions[name](Z)
    A.backward(torch.tensor(dA))
    return [Z.detach().numpy() for Z in zs], [Z.grad.numpy() for Z in zs], A.detach().numpy()


def _slopes(name, z):
    return _by_torch(name, z)[1]


def _slips_in_signal(X, weights, name, dA):
    """Words → what comes out, for both parts."""
    zs, dzs, _ = _signal_by_torch(X, weights, name, dA)
    activations = [_by_torch(name, z)[0] for z in zs]
    forward = {
        "These are the sizes of a = φ(z); those of z are wanted.": list(map(_rms, activations)),
        "These are standard deviations: they subtract the mean. rms does not.": [z.std() for z in zs],
        "These are mean squares: the square root is missing.": [_rms(z) ** 2 for z in zs],
        "The order is turned round: the first layer comes first.": list(map(_rms, zs))[::-1],
        "These are the sizes of what goes into each layer; those of its z are wanted.": list(
            map(_rms, [X, *activations[:-1]])
        ),
    }
    A, linear = X, []
    for W in weights:
        A = A @ W.T
        linear.append(_rms(A))
    forward["There is no activation between the layers."] = linear
    das = [*(dz @ W for dz, W in zip(dzs[1:], weights[1:], strict=True)), dA]
    backward = {
        "These are the gradients of the activations; multiply by the slope first: those of z are wanted.": list(
            map(_rms, das)
        ),
        "The order is turned round: the first layer comes first, so reverse the list.": list(map(_rms, dzs))[::-1],
        "These are mean squares: the square root is missing.": [_rms(dz) ** 2 for dz in dzs],
        "These are standard deviations: they subtract the mean. rms does not.": [dz.std() for dz in dzs],
        "These are the gradients of what goes into each layer; those of its z are wanted.": [
            _rms(dz @ W) for dz, W in zip(dzs, weights, strict=True)
        ],
    }

    def back(step, slope_of):
        d, sizes = dA, []
        for W, z, a in reversed(list(zip(weights, zs, activations, strict=True))):
            dz = d * slope_of(z, a)
            sizes.append(_rms(dz))
            d = step(dz, d, W)
        return sizes[::-1]

    backward["The slopes are left out of what goes down: dA becomes dZ @ W."] = back(
        lambda dz, d, W: d @ W, lambda z, a: _slopes(name, z)
    )
    backward["There are no slopes: dZ = dA · φ'(Z)."] = back(lambda dz, d, W: dz @ W, lambda z, a: np.ones_like(z))
    backward["The slopes are taken at a, not at z."] = back(lambda dz, d, W: dz @ W, lambda z, a: _slopes(name, a))
    backward["It multiplies by φ(z), not by its slope φ'(z)."] = back(lambda dz, d, W: dz @ W, lambda z, a: a)
    if all(W.shape[0] == W.shape[1] for W in weights):
        backward["Backwards W is not transposed: dA = dZ @ W."] = back(
            lambda dz, d, W: dz @ W.T, lambda z, a: _slopes(name, z)
        )
        A, wrong_way = X, []
        for W in weights:
            z = A @ W
            wrong_way.append(_rms(z))
            A = _by_torch(name, z)[0]
        forward["Forwards W is transposed: Z = A @ W.T."] = wrong_way
    return forward, backward


@exercise(
    hints=[
        "Two loops. The first goes up and must keep, for each layer, what the second needs: the slopes.",
        "Up: Z = A @ W.T, then A, slope = activation(name, Z). Down: dZ = dA * slope, note rms(dZ), then dA = dZ @ W.",
        "for W, slope in zip(reversed(weights), reversed(slopes)): ... and at the end backward[::-1], since you went down.",
    ]
)
def signal(learner, rng):
    def demand(B, widths, name, why):
        X = rng.normal(0.5, 1, (B, widths[0]))
        weights = [rng.normal(0, 0.7, (o, i)) for i, o in zip(widths[:-1], widths[1:], strict=True)]
        dA = rng.normal(0.4, 1, (B, widths[-1]))
        forward, backward = expect.parts(
            learner(X, weights, name, dA), ("forward", "backward"), "the sizes forward and those backward come back"
        )
        zs, dzs, _ = _signal_by_torch(X, weights, name, dA)
        slips = _slips_in_signal(X, weights, name, dA)
        for given, expected, what, table in zip(
            (forward, backward), (zs, dzs), ("size of z by layer", "size of z's gradient by layer"), slips, strict=True
        ):
            expected = np.array([_rms(e) for e in expected])
            likely = _which(given, table)
            if not likely and np.shape(given) == (len(weights) + 1,):
                likely = "One entry for each layer: the input itself does not count."
            if not likely and np.shape(given) == (len(weights) - 1,):
                likely = "One entry for each layer, the first and the last too."
            expect.close(given, expected, why=f"{why}: {what}", source="torch.autograd", rtol=1e-6, likely=likely)

    demand(6, (5, 5, 5, 5), "tanh", "three layers of 5, tanh")
    demand(4, (7, 5, 3, 6), "silu", "layers of 5, 3 and 6 on 7 inputs, SiLU")
    demand(3, (4, 6), "relu", "one layer of 6 on 4 inputs, ReLU")
    given = learner(np.array([[1.0, 2.0]]), [np.array([[1.0, 1.0], [1.0, -1.0]])], "relu", np.array([[3.0, 5.0]]))
    for part, expected in zip(given, (math.sqrt(5), math.sqrt(4.5)), strict=True):
        expect.close(part, [expected], why="the example above", source="by hand")


# ------------------------------------------------------------------------------------------------ orthogonal


def _gram(W):
    """The product with its transpose over the larger side: of the smaller side's vectors with each other."""
    return W @ W.T if W.shape[0] <= W.shape[1] else W.T @ W


@exercise(
    hints=[
        "np.linalg.qr of a tall matrix (larger, smaller) gives Q of the same shape, with orthonormal columns.",
        "Signs: Q * np.sign(np.diag(R)) multiplies each column by one sign.",
        "M = rng.normal(size=(max(n_in, n_out), min(n_in, n_out))); Q, R = np.linalg.qr(M); "
        "return gain * (Q if n_out >= n_in else Q.T), after the signs.",
    ]
)
def orthogonal(learner, rng):
    for n_in, n_out, gain in ((6, 6, 1.0), (9, 4, 1.5), (4, 9, 0.7)):
        asked = f"{n_in} in, {n_out} out, gain {gain}"
        W = learner(n_in, n_out, gain, np.random.default_rng(int(rng.integers(2**31))))
        likely = (
            "It is (n_in, n_out); W has one row for each output: transpose." if np.shape(W) == (n_in, n_out) else ""
        )
        expect.shape(W, (n_out, n_in), f"{asked}: the shape", likely=likely)
        G, eye = _gram(_numbers(W)), np.eye(min(n_in, n_out))
        likely = _which(
            G,
            {
                "The gain is missing.": eye,
                "The gain is applied twice: W itself is multiplied by it once.": gain**4 * eye,
                "It is divided by the gain.": eye / gain**2,
                "It has the square root of the gain.": gain * eye,
            },
        )
        off = np.abs(G - np.diag(np.diag(G))).max()
        if not likely and off > 1e-6:
            likely = "The vectors are not perpendicular. Q of np.linalg.qr is what is wanted, not M or R."
            if np.allclose(np.diag(G), gain**2):
                likely = "Each vector has the right length, but they are not perpendicular to each other."
        which = "W Wᵀ" if n_out <= n_in else "Wᵀ W"
        expect.close(
            G, gain**2 * eye, why=f"{asked}: {which} is gain² I", source="the definition", atol=1e-9, likely=likely
        )
    draws = np.array([_numbers(learner(5, 3, 1.0, np.random.default_rng(seed))) for seed in range(400)])
    share = (draws > 0).mean(axis=0)  # (3, 5): each 0.5, give or take 0.025
    expect.true(
        np.ptp(draws, axis=0).max() > 0,
        "other generators give other matrices",
        likely="Draw the matrix with rng.normal, and make no generator of your own.",
    )
    expect.true(
        np.abs(share - 0.5).max() < 0.15,
        "every orthogonal matrix is equally likely, so each entry is positive in half of the draws",
        f"share of positive entries in 400 draws: from {share.min():.2f} to {share.max():.2f}",
        likely="qr chooses signs by its own rule. Multiply each column of Q by the sign of R's diagonal entry.",
    )
    spread = draws.std(axis=0) * math.sqrt(5)  # each entry has variance 1/5
    expect.true(
        spread.min() > 0.8 and spread.max() < 1.2,
        "every orthogonal matrix is equally likely, so all entries have the same spread",
        f"spread of the entries in 400 draws: from {spread.min():.2f} to {spread.max():.2f} times the right one",
        likely="Does the matrix that is split up come from rng.normal, of full size?",
    )
    same = [_numbers(learner(5, 3, 1.0, np.random.default_rng(7))) for _ in range(2)]
    expect.true(np.array_equal(*same), "equal generators give equal matrices", likely="Draw with rng, not np.random.")


# ------------------------------------------------------------------------------------------------ stuck_units


@exercise(
    hints=[
        "The slope is the second thing that `activation` returns, with the shape (B, H) of Z.",
        "Comparing gives an array of True and False. `.all(axis=...)` over the examples, `.mean()` over all.",
        "stuck = np.abs(activation(name, Z)[1]) < tiny; return stuck.all(axis=0), stuck.mean()",
    ]
)
def stuck_units(learner, rng):
    def demand(Z, name, tiny, why):
        dead, share = expect.parts(learner(Z, name, tiny), ("dead", "share"), "dead units and the share come back")
        slope = _by_torch(name, Z)[1]
        stuck = np.abs(slope) < tiny
        likely = _which(
            dead,
            {
                "These are units that are stuck for *any* example; dead means for every one.": stuck.any(axis=0),
                "It is turned round: these are the living units.": ~stuck.all(axis=0),
                "It runs over the units: examples are rows, so axis=0.": stuck.all(axis=1),
                "The slope's sign counts here: take its absolute value.": (slope < tiny).all(axis=0),
                "It averages the slopes of a unit; each entry is compared with tiny.": np.abs(slope).mean(axis=0)
                < tiny,
                "`tiny` is not used: it is 0.001 only where nothing else is given.": (np.abs(slope) < 1e-3).all(axis=0),
                "Only slopes of exactly 0 count here; saturated ones are merely below tiny.": (slope == 0).all(axis=0),
                "It looks at z ≤ 0, which is right for ReLU only. The slope tells for all.": (Z <= 0).all(axis=0),
                "It looks at |a|; a unit learns by its slope.": (np.abs(_by_torch(name, Z)[0]) < tiny).all(axis=0),
                "It averages over the examples; `dead` says True or False.": stuck.mean(axis=0),
            },
        )
        if np.shape(dead) == (Z.shape[0],) and Z.shape[0] != Z.shape[1]:
            likely = "One entry for each unit (column), not for each example: axis=0."
        if np.shape(dead) == Z.shape:
            likely = "This says it for every entry; over the examples: .all(axis=0)."
        if np.ndim(dead) == 0 and np.ndim(share) == 1:
            likely = "The order is (dead, share)."
        expect.equal(dead, stuck.all(axis=0), why=f"{why}: dead units", source="the definition", likely=likely)
        expect.dtype(dead, bool, f"{why}: dead is an array of True and False")
        likely = _which(
            share,
            {
                "This is the share of dead units; the share of stuck entries is wanted.": stuck.all(axis=0).mean(),
                "This is the number of stuck entries: divide by how many there are.": stuck.sum(),
                "This is the share of entries that are *not* stuck.": 1 - stuck.mean(),
                "This is in per cent; a share is between 0 and 1.": 100 * stuck.mean(),
                "This is a number for each unit; over all entries: .mean() without an axis.": stuck.mean(axis=0),
            },
        )
        expect.close(share, stuck.mean(), why=f"{why}: share of stuck entries", source="the definition", likely=likely)

    Z = rng.normal(size=(6, 4))
    Z[:, 1] = -np.abs(Z[:, 1])
    demand(Z, "relu", 1e-3, "ReLU, 6 examples, 4 units, one always negative")
    wide = rng.normal(0, 1, (7, 5))
    wide[:, 0], wide[:, 1], wide[:, 3], wide[:2, 4] = 6.0, 1e-4, -7.0, 9.0
    demand(wide, "tanh", 1e-3, "tanh, saturated at both ends")
    demand(wide, "sigmoid", 0.02, "sigmoid, tiny = 0.02")
    demand(wide - 1, "leaky", 1e-3, "leaky ReLU is never stuck")
    bent = rng.normal(0, 1, (6, 3))
    bent[:, 1] = rng.uniform(-3, -2, 6)  # GELU falls there: negative slopes, not tiny ones
    demand(bent, "gelu", 1e-3, "GELU, whose slope is negative in places")
    dead, share = learner(np.array([[-1.0, 2.0], [-3.0, -1.0]]), "relu", 1e-3)
    expect.equal(dead, [True, False], why="the example above: dead", source="by hand")
    expect.close(share, 0.75, why="the example above: share", source="by hand")


# ------------------------------------------------------------------------------------------------ revive


@exercise(
    hints=[
        "Begin with W1.copy(), b1.copy(), W2.copy(). A mask of True and False picks rows: W1[dead], and columns: W2[:, dead].",
        "The new rows are an init_weights of n_in = W1.shape[1] inputs and n_out = dead.sum() outputs.",
        'W1[dead] = init_weights(W1.shape[1], dead.sum(), "he", "normal", rng); b1[dead] = 0; W2[:, dead] = 0',
    ]
)
def revive(learner, rng):
    H, D, K = 260, 1000, 7
    W1, b1, W2 = rng.normal(0, 3, (H, D)), rng.normal(0, 3, H), rng.normal(0, 3, (K, H))
    dead = rng.permutation(H) < 200
    seed = int(rng.integers(2**31))
    new = expect.parts(
        learner(W1, b1, W2, dead, np.random.default_rng(seed)), ("W1", "b1", "W2"), "the three new arrays come back"
    )
    for given, before, name in zip(new, (W1, b1, W2), ("W1", "b1", "W2"), strict=True):
        expect.shape(given, before.shape, f"{name} keeps its shape")
    V1, c1, V2 = map(_numbers, new)
    living = "Only what belongs to dead units changes: index with the mask, not with ~dead, and not everything."
    expect.equal(V1[~dead], W1[~dead], why="rows of W1 of living units stay", source="as given", likely=living)
    expect.equal(c1[~dead], b1[~dead], why="biases of living units stay", source="as given", likely=living)
    likely = "A unit's outgoing weights are a column of W2, shape (K, H): W2[:, dead]."
    expect.equal(V2[:, ~dead], W2[:, ~dead], why="columns of W2 of living units stay", source="as given", likely=likely)
    expect.true(
        not np.any(V1[dead] == W1[dead]),
        "incoming weights of dead units are drawn anew",
        likely="W1[dead] still holds old numbers.",
    )
    likely = "Its old bias would keep it dead: b1[dead] = 0."
    expect.equal(c1[dead], np.zeros(dead.sum()), why="biases of revived units are 0", source="the text", likely=likely)
    likely = "Outgoing weights must be 0: else the network's answers change at once."
    zeros = np.zeros((K, dead.sum()))
    expect.equal(V2[:, dead], zeros, why="outgoing weights of revived units are 0", source="the text", likely=likely)
    fresh, sigma = V1[dead], math.sqrt(2 / D)
    if np.ptp(fresh) == 0:
        likely = "All new weights are equal: then all revived units stay equal for ever. Draw them."
    elif len(np.unique(fresh[:, 0])) == 1:
        likely = "All revived units got the same row: then they stay the same for ever. Draw one for each."
    else:
        likely = _which(
            np.round(fresh.std() / sigma, 2),
            {
                "This is He for n_in = number of dead units; n_in is the number of inputs, W1.shape[1].": round(
                    math.sqrt(D / 200), 2
                ),
                "This is He for n_in = number of units H; n_in is the number of inputs, W1.shape[1].": round(
                    math.sqrt(D / H), 2
                ),
                "This is LeCun; He is asked for.": round(math.sqrt(0.5), 2),
                "This is Glorot; He is asked for.": round(math.sqrt(D / (D + 200)), 2),
                "Their spread is 1: they are not scaled.": round(1 / sigma, 2),
            },
            rtol=0.02,
        )
    expect.true(
        abs(fresh.mean()) < 0.015 * sigma and abs(fresh.std() / sigma - 1) < 0.015 and len(np.unique(fresh[:, 0])) > 1,
        "incoming weights of revived units are He normal, one draw for each",
        f"yours    mean {fresh.mean():.4f}, standard deviation {fresh.std():.4f}",
        f"expected mean 0, standard deviation {sigma:.4f}   (√(2/{D}))",
        likely=likely,
    )
    distance = scipy.stats.kstest(fresh.ravel(), "norm", args=(0, sigma)).statistic
    expect.true(
        distance < 0.01, "incoming weights of revived units are normal", f"off by {distance:.3f}", likely="Uniform?"
    )
    small = (rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=(2, 3)))
    none = expect.parts(
        learner(*small, np.zeros(3, bool), np.random.default_rng(1)), ("W1", "b1", "W2"), "no unit dead"
    )
    for given, before in zip(none, small, strict=True):
        expect.equal(given, before, why="where no unit is dead, nothing changes", source="as given")


# ------------------------------------------------------------------------------------------------ unit_variance


@exercise(
    hints=[
        "Each layer sees what the layers before it make of X *after* their scaling. So go layer by layer, once.",
        "Z = A @ W.T; its size is (Z**2).mean().sqrt(). Dividing W by this size divides Z by it too.",
        "for W in weights: Z = A @ W.T; size = (Z**2).mean().sqrt(); scaled.append(W / size); A = phi(Z / size)",
    ]
)
def unit_variance(learner, rng):
    import torch

    def demand(widths, phi, why):
        X = torch.tensor(rng.normal(0.5, 2, (64, widths[0])))
        weights = [torch.tensor(rng.normal(0.1, 0.6, (o, i))) for i, o in zip(widths[:-1], widths[1:], strict=True)]
        scaled = learner(weights, X, phi)
        expect.kind(scaled, (list, tuple), "a list of weights comes back")
        expect.true(
            len(scaled) == len(weights),
            f"{why}: one array for each layer",
            f"yours    {len(scaled)}",
            f"expected {len(weights)}",
            likely="Append inside the loop, return behind it.",
        )
        A = X
        for number, (W, new) in enumerate(zip(weights, scaled, strict=True), 1):
            expect.shape(new, tuple(W.shape), f"{why}: layer {number} keeps its shape")
            new = torch.as_tensor(_numbers(new))
            ratio = float((new * W).sum() / (W * W).sum())
            expect.close(
                new,
                (ratio * W).numpy(),
                why=f"{why}: layer {number} is its old weights times one number",
                source="the exercise",
                rtol=1e-4,
                likely="One size for the whole layer: over all examples and all units, without an axis.",
            )
            Z = A @ new.T
            size, z_raw = float((Z**2).mean().sqrt()), A @ W.T
            likely = "The layer is not scaled." if ratio == 1 else ""
            likely = likely or _which(
                ratio,
                {
                    "It divides by the mean square: the square root is missing.": 1 / float((z_raw**2).mean()),
                    "It divides by the standard deviation, which subtracts the mean; the root mean square is wanted.": 1
                    / float(z_raw.std()),
                    "It divides by the standard deviation, which subtracts the mean. ": 1
                    / float(z_raw.std(correction=0)),
                    "It measures a = φ(z); z is wanted.": 1 / float((phi(z_raw) ** 2).mean().sqrt()),
                    "It measures the weights; what they make of the data is wanted.": 1 / float((W**2).mean().sqrt()),
                    "It measures the spread of the weights; what they make of the data is wanted.": 1 / float(W.std()),
                    "It multiplies by the size; dividing makes it 1.": float((z_raw**2).mean().sqrt()),
                    "It divides by the size of what comes in.": 1 / float((A**2).mean().sqrt()),
                    "It measures the first example only.": 1 / float((z_raw[0] ** 2).mean().sqrt()),
                },
                rtol=1e-4,
            )
            if not likely and number > 1:
                likely = "The first layer is right: does this one get what the layers before it make *after* scaling, through φ?"
            expect.true(
                abs(size - 1) < 1e-4,
                f"{why}: z of layer {number} has root mean square 1",
                f"yours    {size:.4f}",
                likely=likely,
            )
            A = phi(Z)

    demand((5, 7, 4, 6), torch.tanh, "three layers, tanh")
    demand((6, 3, 8), torch.relu, "two layers, ReLU")
    demand((4, 9), torch.sigmoid, "one layer, sigmoid")
