"""Answers to the exercises of initialization-and-activations: wrong, named for the misconception, and right."""

import math

import numpy as np
import scipy.linalg
import scipy.special
import scipy.stats
import torch

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ activation


def sigmoid(z):
    return scipy.special.expit(z)


def bell(z):
    return np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def correct(name, z):
    if name == "tanh":
        return np.tanh(z), 1 - np.tanh(z) ** 2
    if name == "relu":
        return np.maximum(0, z), (z > 0).astype(float)
    if name == "leaky":
        return np.where(z > 0, z, 0.01 * z), np.where(z > 0, 1, 0.01)
    s, below = sigmoid(z), scipy.special.ndtr(z)
    if name == "gelu":
        return z * below, below + z * bell(z)
    return (s, s * (1 - s)) if name == "sigmoid" else (z * s, s + z * s * (1 - s))


def but(special, value=None, slope=None):
    """The right activation, except for one name: its value or slope (functions of z) are others."""

    def made(name, z):
        a, d = correct(name, z)
        if name == special:
            return (a if value is None else value(z)), (d if slope is None else slope(z))
        return a, d

    return made


@wrong("activation", says="use a")
def sigmoid_slope_from_z(name, z):
    return but("sigmoid", slope=lambda z: z * (1 - z))(name, z)


@wrong("activation", says="factor σ is missing")
def sigmoid_slope_half(name, z):
    return but("sigmoid", slope=lambda z: 1 - sigmoid(z))(name, z)


@wrong("activation", says="lacks its minus")
def exponent_without_minus(name, z):
    return but("sigmoid", value=lambda z: 1 / (1 + np.exp(z)))(name, z)


@wrong("activation", says="the square is missing")
def tanh_slope_without_square(name, z):
    return but("tanh", slope=lambda z: 1 - np.tanh(z))(name, z)


@wrong("activation", says="1 - z²")
def tanh_slope_from_z(name, z):
    return but("tanh", slope=lambda z: 1 - z**2)(name, z)


@wrong("activation", says="NaN")
def tanh_from_exponentials(name, z):
    return but("tanh", value=lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)))(name, z)


@wrong("activation", says="End with: return")
def slope_forgotten(name, z):
    return correct(name, z)[0]


@wrong("activation", says="changes its input z")
def relu_in_place(name, z):
    if name == "relu":
        z[z < 0] = 0
        return z, (z > 0).astype(float)
    return correct(name, z)


@right("activation")
def by_scipy(name, z):
    normal = scipy.stats.norm
    table = {
        "sigmoid": (scipy.special.expit(z), scipy.special.expit(z) * scipy.special.expit(-z)),
        "tanh": (np.tanh(z), 1 - np.tanh(z) ** 2),
        "relu": (z * (z > 0), 1.0 * (z > 0)),
        "leaky": (np.maximum(z, 0.01 * z), np.where(z <= 0, 0.01, 1)),
        "gelu": (z * normal.cdf(z), normal.cdf(z) + z * normal.pdf(z)),
        "silu": (z * scipy.special.expit(z), scipy.special.expit(z) * (1 + z * scipy.special.expit(-z))),
    }
    return table[name]


@right("activation")
def plain_exp(name, z):
    with np.errstate(over="ignore"):
        s = 1 / (1 + np.exp(-z))
    if name == "sigmoid":
        return s, s - s**2
    if name == "silu":
        return z * s, s * (1 + z - z * s)
    return correct(name, z)


@right("activation")
def with_tensors(name, z):
    z = torch.as_tensor(z)
    if name == "relu":
        return z.clamp(min=0), (z > 0).double()
    if name == "gelu":
        below = (1 + torch.erf(z / 2**0.5)) / 2
        return z * below, below + z * torch.exp(-z * z / 2) / (2 * math.pi) ** 0.5
    return correct(name, z.numpy())


# ------------------------------------------------------------------------------------------------ init_weights

VARIANCES = {"lecun": lambda i, o: 1 / i, "glorot": lambda i, o: 2 / (i + o), "he": lambda i, o: 2 / i}
ROOT_THREE = math.sqrt(3)


def draw(sigma, n_in, n_out, distribution, rng, stretch=ROOT_THREE):
    if distribution == "normal":
        return rng.normal(0, sigma, (n_out, n_in))
    return rng.uniform(-stretch * sigma, stretch * sigma, (n_out, n_in))


def spread(scheme, n_in, n_out):
    return math.sqrt(VARIANCES[scheme](n_in, n_out))


@wrong("init_weights", says="standard deviation, its square root")
def variance_for_deviation(n_in, n_out, scheme, distribution, rng):
    return draw(VARIANCES[scheme](n_in, n_out), n_in, n_out, distribution, rng)


@wrong("init_weights", says="fan-in")
def fan_out(n_in, n_out, scheme, distribution, rng):
    return draw(spread(scheme, n_out, n_in), n_in, n_out, distribution, rng)


@wrong("init_weights", says="The axes are swapped")
def inputs_first(n_in, n_out, scheme, distribution, rng):
    return draw(spread(scheme, n_in, n_out), n_in, n_out, distribution, rng).T


@wrong("init_weights", says="r = √3·σ")
def limit_is_sigma(n_in, n_out, scheme, distribution, rng):
    return draw(spread(scheme, n_in, n_out), n_in, n_out, distribution, rng, stretch=1)


@wrong("init_weights", says="r is 3σ")
def limit_three_sigma(n_in, n_out, scheme, distribution, rng):
    return draw(spread(scheme, n_in, n_out), n_in, n_out, distribution, rng, stretch=3)


@wrong("init_weights", says="twice as wide")
def range_half_as_wide(n_in, n_out, scheme, distribution, rng):
    return draw(spread(scheme, n_in, n_out), n_in, n_out, distribution, rng, stretch=math.sqrt(3) / 2)


@wrong("init_weights", says="Draw with the generator that is given")
def a_generator_of_its_own(n_in, n_out, scheme, distribution, rng):
    return draw(spread(scheme, n_in, n_out), n_in, n_out, distribution, np.random.default_rng())


@wrong("init_weights", says="the one that is given not used")
def a_fixed_seed(n_in, n_out, scheme, distribution, rng):
    return draw(spread(scheme, n_in, n_out), n_in, n_out, distribution, np.random.default_rng(0))


@right("init_weights")
def standard_normal_scaled(n_in, n_out, scheme, distribution, rng):
    sigma = spread(scheme, n_in, n_out)
    if distribution == "normal":
        return sigma * rng.standard_normal((n_out, n_in))
    return math.sqrt(12) * sigma * (rng.random((n_out, n_in)) - 0.5)


@right("init_weights")
def case_by_case(n_in, n_out, scheme, distribution, rng):
    gain, fan = {"lecun": (1, n_in), "he": (2, n_in), "glorot": (1, (n_in + n_out) / 2)}[scheme]
    if distribution == "uniform":
        r = (3 * gain / fan) ** 0.5
        return rng.uniform(-r, r, size=n_out * n_in).reshape(n_out, n_in)
    return rng.normal(scale=(gain / fan) ** 0.5, size=(n_in, n_out)).T


@right("init_weights")
def in_single_precision(n_in, n_out, scheme, distribution, rng):
    return draw(spread(scheme, n_in, n_out), n_in, n_out, distribution, rng).astype(np.float32)


@right("init_weights")
def as_a_tensor(n_in, n_out, scheme, distribution, rng):
    return torch.tensor(draw(spread(scheme, n_in, n_out), n_in, n_out, distribution, rng))


# ------------------------------------------------------------------------------------------------ signal


def rms(x):
    return np.sqrt(np.mean(x**2))


def up(X, weights, name):
    zs, slopes, A = [], [], X
    for W in weights:
        zs.append(A @ W.T)
        A, slope = correct(name, zs[-1])
        slopes.append(slope)
    return zs, slopes


def down(weights, slopes, dA, hand_down=lambda dZ, dA, W: dZ @ W):
    dzs = []
    for W, slope in zip(weights[::-1], slopes[::-1], strict=True):
        dZ = dA * slope
        dzs.append(dZ)
        dA = hand_down(dZ, dA, W)
    return dzs[::-1]


def sizes(arrays):
    return np.array([rms(a) for a in arrays])


@wrong("signal", says="those of z are wanted")
def sizes_of_activations(X, weights, name, dA):
    zs, slopes = up(X, weights, name)
    return sizes([correct(name, z)[0] for z in zs]), sizes(down(weights, slopes, dA))


@wrong("signal", says="subtract the mean")
def standard_deviations(X, weights, name, dA):
    zs, slopes = up(X, weights, name)
    return [z.std() for z in zs], [d.std() for d in down(weights, slopes, dA)]


@wrong("signal", says="square root is missing")
def mean_squares(X, weights, name, dA):
    zs, slopes = up(X, weights, name)
    return sizes(zs) ** 2, sizes(down(weights, slopes, dA)) ** 2


@wrong("signal", says="reverse the list")
def backward_not_reversed(X, weights, name, dA):
    zs, slopes = up(X, weights, name)
    return sizes(zs), sizes(down(weights, slopes, dA))[::-1]


@wrong("signal", says="slopes are left out of what goes down")
def slopes_do_not_go_down(X, weights, name, dA):
    zs, slopes = up(X, weights, name)
    return sizes(zs), sizes(down(weights, slopes, dA, lambda dZ, dA, W: dA @ W))


@wrong("signal", says="There are no slopes")
def no_slopes(X, weights, name, dA):
    zs, _ = up(X, weights, name)
    return sizes(zs), sizes(down(weights, [np.ones_like(z) for z in zs], dA))


@wrong("signal", says="the input itself does not count")
def input_counted(X, weights, name, dA):
    zs, slopes = up(X, weights, name)
    return sizes([X, *zs]), sizes(down(weights, slopes, dA))


@wrong("signal", says="changes its input dA")
def gradient_in_place(X, weights, name, dA):
    zs, slopes = up(X, weights, name)
    dA *= slopes[-1]
    return sizes(zs), sizes(down(weights, [*slopes[:-1], np.ones_like(slopes[-1])], dA))


@right("signal")
def as_lists(X, weights, name, dA):
    zs, slopes = up(X, weights, name)
    return list(map(rms, zs)), list(map(rms, down(weights, slopes, dA)))


@right("signal")
def recursive(X, weights, name, dA):
    if not weights:
        return [], []

    def go(A, rest):
        Z = A @ rest[0].T
        A, slope = correct(name, Z)
        forward, backward, d = go(A, rest[1:]) if rest[1:] else ([], [], dA)
        return [rms(Z), *forward], [rms(d * slope), *backward], (d * slope) @ rest[0]

    return go(X, weights)[:2]


@right("signal")
def by_norms(X, weights, name, dA):
    zs, slopes = up(X, weights, name)
    arrays = zs, down(weights, slopes, dA)
    return tuple(np.array([np.linalg.norm(a) / math.sqrt(a.size) for a in part]) for part in arrays)


# ------------------------------------------------------------------------------------------------ orthogonal


def tall(n_in, n_out, rng):
    return rng.normal(size=(max(n_in, n_out), min(n_in, n_out)))


def turned(Q, n_in, n_out):
    return Q if n_out >= n_in else Q.T


@wrong("orthogonal", says="qr chooses signs by its own rule")
def signs_left(n_in, n_out, gain, rng):
    return gain * turned(np.linalg.qr(tall(n_in, n_out, rng))[0], n_in, n_out)


@wrong("orthogonal", says="gain is missing")
def gain_left_out(n_in, n_out, gain, rng):
    Q, R = np.linalg.qr(tall(n_in, n_out, rng))
    return turned(Q * np.sign(np.diag(R)), n_in, n_out)


@wrong("orthogonal", says="square root of the gain")
def root_of_the_gain(n_in, n_out, gain, rng):
    Q, R = np.linalg.qr(tall(n_in, n_out, rng))
    return math.sqrt(gain) * turned(Q * np.sign(np.diag(R)), n_in, n_out)


@wrong("orthogonal", says="not perpendicular")
def the_normal_matrix_itself(n_in, n_out, gain, rng):
    return gain * turned(tall(n_in, n_out, rng), n_in, n_out)


@wrong("orthogonal", says="right length, but they are not perpendicular")
def only_normalised(n_in, n_out, gain, rng):
    W = rng.normal(size=(n_out, n_in))
    return gain * W / np.linalg.norm(W, axis=1 if n_out <= n_in else 0, keepdims=True)


@wrong("orthogonal", says="all directions alike")
def numbers_of_a_cube(n_in, n_out, gain, rng):
    Q, R = np.linalg.qr(rng.uniform(-1, 1, (max(n_in, n_out), min(n_in, n_out))))
    return gain * turned(Q * np.sign(np.diag(R)), n_in, n_out)


@wrong("orthogonal", says="all directions alike")
def numbers_with_long_tails(n_in, n_out, gain, rng):
    Q, R = np.linalg.qr(rng.laplace(size=(max(n_in, n_out), min(n_in, n_out))))
    return gain * turned(Q * np.sign(np.diag(R)), n_in, n_out)


@wrong("orthogonal", says="those of R's diagonal")
def signs_of_q(n_in, n_out, gain, rng):
    Q, _ = np.linalg.qr(tall(n_in, n_out, rng))
    return gain * turned(Q * np.sign(np.diag(Q)), n_in, n_out)


@wrong("orthogonal", says="by the routine's own rule")
def one_side_of_an_svd(n_in, n_out, gain, rng):
    return gain * turned(np.linalg.svd(tall(n_in, n_out, rng), full_matrices=False)[0], n_in, n_out)


@wrong("orthogonal", says="the shape")
def always_tall(n_in, n_out, gain, rng):
    Q, R = np.linalg.qr(tall(n_in, n_out, rng))
    return gain * Q * np.sign(np.diag(R))


@wrong("orthogonal", says="the one that is given not used")
def always_the_same(n_in, n_out, gain, rng):
    Q, R = np.linalg.qr(tall(n_in, n_out, np.random.default_rng(0)))
    return gain * turned(Q * np.sign(np.diag(R)), n_in, n_out)


@wrong("orthogonal", says="qr of a wide matrix has a square Q")
def qr_of_the_wide_one(n_in, n_out, gain, rng):
    Q, R = np.linalg.qr(rng.normal(size=(n_out, n_in)))
    return gain * Q * np.sign(np.diag(R))


@right("orthogonal")
def by_svd(n_in, n_out, gain, rng):
    U, _, V = np.linalg.svd(rng.normal(size=(n_out, n_in)), full_matrices=False)
    return gain * U @ V


@right("orthogonal")
def by_group(n_in, n_out, gain, rng):
    Q = scipy.stats.ortho_group.rvs(max(n_in, n_out), random_state=rng)
    return gain * Q[:n_out, :n_in]


@right("orthogonal")
def by_polar(n_in, n_out, gain, rng):
    return gain * scipy.linalg.polar(rng.normal(size=(n_out, n_in)))[0]


# ------------------------------------------------------------------------------------------------ stuck_units


def stuck_entries(Z, name, tiny):
    return np.abs(correct(name, Z)[1]) < tiny


@wrong("stuck_units", says="*any* example")
def any_for_all(Z, name, tiny=1e-3):
    stuck = stuck_entries(Z, name, tiny)
    return stuck.any(axis=0), stuck.mean()


@wrong("stuck_units", says="not for each example")
def over_units(Z, name, tiny=1e-3):
    stuck = stuck_entries(Z, name, tiny)
    return stuck.all(axis=1), stuck.mean()


@wrong("stuck_units", says="living units")
def the_living(Z, name, tiny=1e-3):
    stuck = stuck_entries(Z, name, tiny)
    return ~stuck.all(axis=0), stuck.mean()


@wrong("stuck_units", says="right for ReLU only")
def negative_is_dead(Z, name, tiny=1e-3):
    return (Z <= 0).all(axis=0), stuck_entries(Z, name, tiny).mean()


@wrong("stuck_units", says="take its absolute value")
def sign_counts(Z, name, tiny=1e-3):
    stuck = correct(name, Z)[1] < tiny
    return stuck.all(axis=0), stuck.mean()


@wrong("stuck_units", says="share of dead units")
def share_of_units(Z, name, tiny=1e-3):
    dead = stuck_entries(Z, name, tiny).all(axis=0)
    return dead, dead.mean()


@wrong("stuck_units", says="number of stuck entries")
def counts_entries(Z, name, tiny=1e-3):
    stuck = stuck_entries(Z, name, tiny)
    return stuck.all(axis=0), stuck.sum()


@wrong("stuck_units", says="in per cent")
def in_per_cent(Z, name, tiny=1e-3):
    stuck = stuck_entries(Z, name, tiny)
    return stuck.all(axis=0), 100 * stuck.mean()


@right("stuck_units")
def by_the_largest_slope(Z, name, tiny=1e-3):
    slope = np.abs(correct(name, Z)[1])
    return slope.max(axis=0) < tiny, np.count_nonzero(slope < tiny) / Z.size


@right("stuck_units")
def unit_by_unit(Z, name, tiny=1e-3):
    stuck = stuck_entries(Z, name, tiny)
    return [all(column) for column in stuck.T], float(np.sum(stuck)) / (len(Z) * len(Z.T))


@right("stuck_units")
def by_counting(Z, name, tiny=1e-3):
    stuck = stuck_entries(Z, name, tiny)
    return stuck.sum(axis=0) == len(Z), stuck.mean(axis=0).mean()


# ------------------------------------------------------------------------------------------------ revive


def fresh(n_in, n_out, rng):
    return rng.normal(0, math.sqrt(2 / n_in), (n_out, n_in))


@wrong("revive", says="b1[dead] = 0")
def old_bias(W1, b1, W2, dead, rng):
    W1, W2 = W1.copy(), W2.copy()
    W1[dead], W2[:, dead] = fresh(W1.shape[1], dead.sum(), rng), 0
    return W1, b1, W2


@wrong("revive", says="Outgoing weights must be 0")
def outgoing_left(W1, b1, W2, dead, rng):
    W1, b1 = W1.copy(), b1.copy()
    W1[dead], b1[dead] = fresh(W1.shape[1], dead.sum(), rng), 0
    return W1, b1, W2


@wrong("revive", says="changes its input W1")
def in_place(W1, b1, W2, dead, rng):
    W1[dead] = fresh(W1.shape[1], dead.sum(), rng)
    b1[dead] = 0
    W2[:, dead] = 0
    return W1, b1, W2


@wrong("revive", says="Only what belongs to dead units")
def everything_anew(W1, b1, W2, dead, rng):
    return fresh(W1.shape[1], len(W1), rng), 0 * b1, np.where(dead, 0, W2)


@wrong("revive", says="Only what belongs to dead units")
def revives_the_living(W1, b1, W2, dead, rng):
    W1, b1, W2 = W1.copy(), b1.copy(), W2.copy()
    W1[~dead], b1[~dead], W2[:, ~dead] = fresh(W1.shape[1], (~dead).sum(), rng), 0, 0
    return W1, b1, W2


@wrong("revive", says="n_in is the number of inputs")
def fan_in_of_the_dead(W1, b1, W2, dead, rng):
    W1, b1, W2 = W1.copy(), b1.copy(), W2.copy()
    W1[dead] = rng.normal(0, math.sqrt(2 / dead.sum()), W1[dead].shape)
    b1[dead], W2[:, dead] = 0, 0
    return W1, b1, W2


@wrong("revive", says="the same row")
def one_row_for_all(W1, b1, W2, dead, rng):
    W1, b1, W2 = W1.copy(), b1.copy(), W2.copy()
    W1[dead], b1[dead], W2[:, dead] = fresh(W1.shape[1], 1, rng), 0, 0
    return W1, b1, W2


@wrong("revive", says="the three new arrays come back")
def returns_two(W1, b1, W2, dead, rng):
    return old_bias(W1, b1, W2, dead, rng)[:2]


@right("revive")
def with_where(W1, b1, W2, dead, rng):
    drawn = fresh(W1.shape[1], len(W1), rng)
    return np.where(dead[:, None], drawn, W1), np.where(dead, 0, b1), np.where(dead, 0, W2)


@right("revive")
def unit_by_unit_anew(W1, b1, W2, dead, rng):
    W1, b1, W2 = np.array(W1), np.array(b1), np.array(W2)
    for unit in np.flatnonzero(dead):
        W1[unit] = rng.normal(size=W1.shape[1]) * math.sqrt(2 / W1.shape[1])
        b1[unit] = 0
        W2[:, unit] = 0
    return W1, b1, W2


@right("revive")
def by_multiplying(W1, b1, W2, dead, rng):
    alive = (~dead).astype(float)
    return W1 * alive[:, None] + fresh(W1.shape[1], len(W1), rng) * dead[:, None], b1 * alive, W2 * alive


# ------------------------------------------------------------------------------------------------ unit_variance


def scale(weights, X, phi, measure, onward=lambda Z, size: Z / size):
    scaled, A = [], X
    for W in weights:
        Z = A @ W.T
        size = measure(Z, W)
        scaled.append(W / size)
        A = phi(onward(Z, size))
    return scaled


def size_of(Z, _=None):
    return (Z**2).mean().sqrt()


@wrong("unit_variance", says="the square root is missing")
def mean_square(weights, X, phi):
    return scale(weights, X, phi, lambda Z, W: (Z**2).mean())


@wrong("unit_variance", says="subtracts the mean")
def by_standard_deviation(weights, X, phi):
    return scale(weights, X, phi, lambda Z, W: Z.std())


@wrong("unit_variance", says="it measures a".capitalize())
def after_the_activation(weights, X, phi):
    return scale(weights, X, phi, lambda Z, W: size_of(phi(Z)))


@wrong("unit_variance", says="measures the weights")
def size_of_weights(weights, X, phi):
    return scale(weights, X, phi, lambda Z, W: size_of(W))


@wrong("unit_variance", says="*after* scaling")
def unscaled_handed_on(weights, X, phi):
    return scale(weights, X, phi, size_of, lambda Z, size: Z)


@wrong("unit_variance", says="*after* scaling")
def activation_forgotten(weights, X, phi):
    return scale(weights, X, lambda Z: Z, size_of)


@wrong("unit_variance", says="dividing makes it 1")
def multiplied(weights, X, phi):
    return scale(weights, X, phi, lambda Z, W: 1 / size_of(Z))


@wrong("unit_variance", says="changes its input weights")
def divides_in_place(weights, X, phi):
    A = X
    for W in weights:
        W /= size_of(A @ W.T)
        A = phi(A @ W.T)
    return weights


@right("unit_variance")
def computed_again(weights, X, phi):
    result, A = [], X
    for W in weights:
        result.append(W / (A @ W.T).pow(2).mean().sqrt())
        A = phi(A @ result[-1].T)
    return result


@right("unit_variance")
def by_norm(weights, X, phi):
    return tuple(scale(weights, X, phi, lambda Z, W: torch.linalg.norm(Z) / math.sqrt(Z.numel())))


@right("unit_variance")
def in_place_on_copies(weights, X, phi):
    weights, A = [W.clone() for W in weights], X
    for W in weights:
        W /= size_of(torch.nn.functional.linear(A, W))
        A = phi(torch.nn.functional.linear(A, W))
    return weights


@wrong("stuck_units", says="not below it: <, not <=")
def tiny_itself(Z, name, tiny=1e-3):
    stuck = np.abs(correct(name, Z)[1]) <= tiny
    return stuck.all(axis=0), stuck.mean()
