"""The checks of cnn-basics: one for each exercise, with its hints. `lab.check` runs them.

Convolution and pooling are held to torch.nn.functional, values and gradients; the receptive field to what autograd
measures on a chain of convolutions; the network to the same layers built here.
"""

import itertools

import numpy as np
from scipy.stats import chisquare

from atlas.checking import (
    Complaint,
    agree,
    among,
    exercise,
    expect,
    floats,
    governed,
    gradients,
    module_gradients,
    parts,
    tensor,
    torch_generator,
)


def _tensor(values):
    import torch

    return torch.tensor(np.asarray(values), dtype=torch.float64)


def _draw(rng, *shape):
    return _tensor(rng.normal(size=shape))


def _functional():
    from torch.nn import functional

    return functional


# ------------------------------------------------------------------------------------------------ conv2d


@parts
def _conv2d(
    x,
    weight,
    bias,
    *,
    kernel=lambda w: w,
    image=lambda x, w: x,
    product=lambda w, v: (w * v).sum(),
    times=lambda v: 1,
    offset=lambda z, b, o: z + b[o],
    places=lambda n, k: n - k + 1,
    like=lambda z, x: z.to(x.dtype),
):
    import torch

    weight, x = kernel(weight), image(x, weight)
    (out, _, kh, kw), (_, H, W) = weight.shape, x.shape
    z = torch.zeros(out, H - kh + 1, W - kw + 1, dtype=torch.float64)
    for o, i, j in itertools.product(range(out), range(places(H, kh)), range(places(W, kw))):
        window = x[:, i : i + kh, j : j + kw]
        z[o, i, j] = offset(product(weight[o], window), times(window) * bias, o)
    return like(z, x)


def _same_size(x, weight):
    (kh, kw) = weight.shape[2:]
    return _functional().pad(x, ((kw - 1) // 2, kw // 2, (kh - 1) // 2, kh // 2))


@exercise(
    hints=[
        "Three loops: output channel o, row i, column j. How many rows of windows are there, and which pixels has one?",
        "The window at (i, j) is x[:, i:i + kh, j:j + kw], with all its channels, of the shape of weight[o].",
        "z = torch.empty(O, H - kh + 1, W - kw + 1, dtype=x.dtype), then in the three loops: "
        "z[o, i, j] = (weight[o] * x[:, i:i + kh, j:j + kw]).sum() + bias[o]",
    ],
    mistakes=_conv2d.mistakes(
        kernel={
            "The kernel is turned by 180°, as mathematics does. Here it stays: w[u, v] meets x[i + u, j + v].": (
                lambda w: w.flip(2, 3)
            ),
            "The kernel is turned upside down: w[u, v] meets x[i + u, j + v].": lambda w: w.flip(2),
            "The kernel is mirrored: w[u, v] meets x[i + u, j + v].": lambda w: w.flip(3),
            "The kernel's channels are in reverse order: channel c of w meets channel c of x.": lambda w: w.flip(1),
        },
        product={
            "The channels are added up before the product: each channel has its own kernel, weight[o, c].": (
                lambda w, v: (w.sum(0) * v.sum(0)).sum()
            ),
            "Only the first channel counts: the sum goes over all of them.": lambda w, v: (w[0] * v[0]).sum(),
            "Only the last channel counts: the sum goes over all of them. Does = stand where += belongs?": (
                lambda w, v: (w[-1] * v[-1]).sum()
            ),
            "All channels use the kernel of the first: channel c has weight[o, c].": lambda w, v: (w[:1] * v).sum(),
            "It takes the mean over the window; a convolution takes the sum.": lambda w, v: (w * v).mean(),
            "It takes the mean over the channels; all products are added up.": lambda w, v: (w * v).sum((1, 2)).mean(),
        },
        offset={
            "The bias is missing: each output channel o adds bias[o].": lambda z, b, o: z,
            "The bias is subtracted: z is the sum plus bias[o].": lambda z, b, o: z - b[o],
            "All biases are added to each channel: channel o has bias[o] only.": lambda z, b, o: z + b.sum(),
            "The bias of channel 0 is added to all: channel o has bias[o].": lambda z, b, o: z + b[0],
        },
        times={
            "The bias is added in the sum, once for each entry of the window: add it once, after the sum.": (
                lambda window: window.numel()
            ),
            "The bias is added once for each channel of x: add it once, after the sum over all channels.": (
                lambda window: window.shape[0]
            ),
        },
        places={
            "The last row and the last column of windows are missing: range(H - kh + 1), for i begins at 0.": (
                lambda n, k: n - k
            ),
        },
        image={
            "The image is padded, so that the result is as large as x: here only windows that lie wholly inside count.": (
                lambda x, w: _same_size(x, w)
            ),
        },
        like={
            "The result has torch's usual 32-bit floats, whatever x has: torch.empty(..., dtype=x.dtype).": (
                lambda z, x: z.float()
            ),
        },
        returns={
            "Rows and columns are swapped in the result: it is z[o, i, j].": lambda z: z.transpose(1, 2),
            "The last row and column of windows are missing: there are H - kh + 1 rows and W - kw + 1 columns.": (
                lambda z: z[:, :-1, :-1]
            ),
            "The output channel is the last axis; it is the first: z[o, i, j].": lambda z: z.permute(1, 2, 0),
            "A batch axis too many: x is one image (C, H, W), and so is the result.": lambda z: z[None],
        },
    ),
    seconds=30,
)
def conv2d(learner, rng):
    functional = _functional()
    why, source = "one sum for each window", "torch.nn.functional.conv2d"
    for C, H, W, out, kh, kw in ((2, 6, 4, 3, 3, 2), (1, 3, 5, 1, 1, 4)):
        x, weight, bias = _draw(rng, C, H, W), _draw(rng, out, C, kh, kw), _draw(rng, out)
        given = learner(x, weight, bias)
        tensor(given, "the maps")
        expect.close(given, functional.conv2d(x, weight, bias), why=why, source=source, dtype=x)
    x, weight = [[[1.0, 2, 0], [0, 1, 3]]], [[[[1.0, -1], [2, 0]]]]
    given = learner(_tensor(x), _tensor(weight), _tensor([0.5]))
    expect.close(given, [[[-0.5, 4.5]]], why="the example above", source="by hand")
    kinds = {"x": floats("C", "H", "W", tensor=True), "weight": floats("O", "C", 3, 2, tensor=True)}
    without = dict.fromkeys(
        ("ties", "zeros", "tiny", "apart", "far", "large"), "sums of products only, values do not matter"
    )
    agree(
        *(learner, functional.conv2d, rng),
        **{"why": why, "source": source, "like": "x", "least": {"H": 3, "W": 2}, "without": without},
        **(kinds | {"bias": floats("O", tensor=True)}),
    )


# ------------------------------------------------------------------------------------------------ output_size


def _refuse(room):
    if room < 0:
        raise ValueError("the kernel does not fit")


@parts
def _output_size(
    size,
    kernel,
    stride=1,
    padding=0,
    *,
    room=lambda n, k, p: n + 2 * p - k,
    refuse=lambda room, n, k, p: _refuse(n + 2 * p - k),
    count=lambda room, s: room // s + 1,
):
    left = room(size, kernel, padding)
    refuse(left, size, kernel, padding)
    return count(left, stride)


_JUST = "It refuses a kernel that just fits: as long as the padded axis means one window."
_BEFORE = "It compares the kernel with the axis before padding; the padded one counts."


def _not_refused(learner, why, size, kernel, stride, padding):
    try:
        return learner(size, kernel, stride, padding)
    except ValueError as error:
        likely = _JUST if kernel == size + 2 * padding else _BEFORE if kernel > size else ""
        raise Complaint(f"{why}: there is one", [f"yours    ValueError: {error}"], likely, "refused") from None


@exercise(
    hints=[
        "Whole numbers: // rounds down. What is size + 2·padding - kernel, and when is it negative?",
        "The last window may begin at room = size + 2 * padding - kernel; windows begin at 0, stride, 2·stride, ...",
        "if room < 0: raise ValueError(...), then: return room // stride + 1",
    ],
    mistakes=_output_size.mistakes(
        together={
            "The padding is added once, in the error's condition too; it lies on both sides: 2·padding.": {
                "room": lambda n, k, p: n + p - k,
                "refuse": lambda room, n, k, p: _refuse(room),
            },
            "The size is divided by the stride first; what is divided is the room, size + 2·padding - kernel.": {
                "room": lambda n, k, p: (n, k, p),
                "count": lambda room, s: room[0] // s + 2 * room[2] - room[1] + 1,
            },
        },
        count={
            "It gives a float: the division of whole numbers that rounds down is //.": lambda room, s: room / s + 1,
            "It gives a float, rounded down: // of two ints gives an int.": lambda room, s: float(room // s + 1),
            "It rounds up. A window that does not fit wholly is none: round down.": lambda room, s: -(-room // s) + 1,
            "It rounds to the nearest. A window that does not fit wholly is none: round down.": (
                lambda room, s: round(room / s) + 1
            ),
            "The + 1 is missing: the first window begins at 0.": lambda room, s: room // s,
            "The + 1 stands before the division: it comes after, room // stride + 1.": lambda room, s: (room + 1) // s,
        },
        room={
            "The padding is added once; it lies on both sides: 2·padding.": lambda n, k, p: n + p - k,
            "The padding is subtracted: it makes the axis longer.": lambda n, k, p: n - 2 * p - k,
            "kernel - 1 is subtracted and 1 is added once more: size + 2·padding - kernel.": (
                lambda n, k, p: n + 2 * p - (k - 1)
            ),
        },
        refuse={
            _JUST: (lambda room, n, k, p: _refuse(room - 1)),
            _BEFORE: (lambda room, n, k, p: _refuse(n - k)),
            "Where not one window fits it has to raise ValueError, not to return a number.": (
                lambda room, n, k, p: None
            ),
        },
    ),
)
def output_size(learner, rng):
    import torch

    source = "the length of torch.nn.functional.conv1d's result"
    examples = [(28, 5, 2, 2), (28, 5, 1, 0), (28, 3, 1, 1), (7, 2, 2, 0), (5, 5, 1, 0), (5, 5, 3, 0), (3, 5, 2, 1)]
    examples += [
        tuple(int(rng.integers(low, high)) for low, high in ((6, 40), (1, 7), (1, 5), (0, 4))) for _ in range(30)
    ]
    for size, kernel, stride, padding in examples:
        x, w = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel)
        expected = torch.nn.functional.conv1d(x, w, stride=stride, padding=padding).shape[2]
        why = f"windows of {kernel} in {size}, stride {stride}, padding {padding}"
        given = _not_refused(learner, why, size, kernel, stride, padding)
        expect.equal(given, expected, why=why, source=source)
        expect.kind(given, (int, np.integer), "a whole number", likely="// of two ints gives an int; / gives a float.")
    expect.equal(learner(9, 4), 6, why="stride 1 and padding 0 are the usual", source="by hand")
    for size, kernel, stride, padding in ((4, 5, 1, 0), (1, 7, 3, 2), (4, 5, 2, 0)):
        why = f"ValueError for a kernel of {kernel} in {size} + 2·{padding}: not one window fits"
        likely = "if size + 2 * padding - kernel < 0: raise ValueError(...), with raise and not return or assert."
        expect.raises(ValueError, lambda n=(size, kernel, stride, padding): learner(*n), why, likely=likely)


# ------------------------------------------------------------------------------------------------ conv2d_windows


def _pad(x, top, bottom, left, right):
    return _functional().pad(x, (left, right, top, bottom))


def _einsum(V, w):
    import torch

    return torch.einsum("bcijuv,ocuv->boij", V, w)


@parts
def _windows(
    x,
    weight,
    bias=None,
    stride=(1, 1),
    padding=(0, 0),
    *,
    pad=lambda x, p: _pad(x, p[0], p[0], p[1], p[1]),
    step=lambda s: s,
    kernel=lambda w: w,
    product=_einsum,
    add=lambda z, b: z + b[:, None, None],
):
    s, w = step(stride), kernel(weight)
    V = pad(x, padding).unfold(2, w.shape[2], s[0]).unfold(3, w.shape[3], s[1])
    z = product(V, w)
    return z if bias is None else add(z, bias)


_ONE_BIAS = "The bias is added along the columns: it belongs to the output channels, axis 1: bias[:, None, None]."


@exercise(
    hints=[
        "Four lines: pad, unfold twice, einsum, bias. F.pad(x, (left, right, top, bottom)) begins at the last axis.",
        "V = x.unfold(2, kh, stride[0]).unfold(3, kw, stride[1]) is (B, C, H', W', kh, kw). What does einsum sum?",
        'z = torch.einsum("bcijuv,ocuv->boij", V, weight); bias[:, None, None] fits z; None means no bias.',
    ],
    mistakes=_windows.mistakes(
        pad={
            "padding is applied across first: F.pad begins at the last axis, so it takes (p1, p1, p0, p0).": (
                lambda x, p: _pad(x, p[1], p[1], p[0], p[0])
            ),
            "The padding is on one side only, above and left: it belongs on both.": (
                lambda x, p: _pad(x, p[0], 0, p[1], 0)
            ),
            "The padding is on one side only, below and right: it belongs on both.": (
                lambda x, p: _pad(x, 0, p[0], 0, p[1])
            ),
            "It takes padding[0] for both axes; padding is (rows, columns).": lambda x, p: _pad(x, *[p[0]] * 4),
            "It takes padding[1] for both axes; padding is (rows, columns).": lambda x, p: _pad(x, *[p[1]] * 4),
            "The border is repeated; the padding is of zeros: F.pad(x, ...) with its usual mode.": (
                lambda x, p: _functional().pad(x, (p[1], p[1], p[0], p[0]), mode="replicate")
            ),
            "Half of the padding is on each side; padding[0] rows above, and as many below.": (
                lambda x, p: _pad(x, p[0] // 2, p[0] // 2, p[1] // 2, p[1] // 2)
            ),
            "There is no padding: zeros around x, padding[0] rows and padding[1] columns on each side.": lambda x, p: x,
        },
        step={
            "The strides are swapped: stride[0] goes down, with axis 2, stride[1] across.": lambda s: s[::-1],
            "It takes stride[0] for both axes; stride is (down, across).": lambda s: (s[0], s[0]),
            "It takes stride[1] for both axes; stride is (down, across).": lambda s: (s[1], s[1]),
        },
        kernel={
            "The kernel is turned by 180°. Here it stays: w[u, v] meets x[i + u, j + v].": lambda w: w.flip(2, 3),
        },
        product={
            "The channels are added up before the product: each channel has its own kernel.": (
                lambda V, w: _einsum(V.sum(1, keepdim=True), w.sum(1, keepdim=True))
            ),
            "It takes the mean over the window; a convolution takes the sum.": (
                lambda V, w: _einsum(V, w) / w[0].numel()
            ),
            "The gradient stops at the windows: no .detach(), .data or no_grad on the way of x.": (
                lambda V, w: _einsum(V.detach(), w)
            ),
            "The gradient stops at the weights: no .detach(), .data or no_grad on their way.": (
                lambda V, w: _einsum(V, w.detach())
            ),
        },
        bias={},
        padding={},
        add={
            _ONE_BIAS: lambda z, b: z + b,
            "The bias is added along the rows: it belongs to the output channels, axis 1: bias[:, None, None].": (
                lambda z, b: z + b[:, None]
            ),
            "The bias is missing: channel o adds bias[o].": lambda z, b: z,
            "All biases are added to each channel: bias[:, None, None].": lambda z, b: z + b.sum(),
            "The gradient stops at the bias.": lambda z, b: z + b.detach()[:, None, None],
        },
        returns={
            "The output channel is the last axis: it is (B, O, H', W'), einsum's \"...->boij\".": (
                lambda z: z.permute(0, 2, 3, 1)
            ),
            "Output channel and batch are swapped: it is (B, O, H', W'), einsum's \"...->boij\".": (
                lambda z: z.transpose(0, 1)
            ),
        },
    ),
    seconds=30,
    new=True,
)
def conv2d_windows(learner, rng):
    functional = _functional()
    source = "torch.nn.functional.conv2d"

    def by_torch(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
        return functional.conv2d(x, weight, bias, stride, padding)

    x, weight, bias = _draw(rng, 5, 3, 8, 6), _draw(rng, 4, 3, 3, 2), _draw(rng, 4)
    settings = (((1, 1), (0, 0)), ((1, 1), (2, 1)), ((3, 1), (0, 0)), ((2, 3), (1, 2)))
    for b, (stride, padding) in itertools.product((None, bias), settings):
        why = f"stride {stride}, padding {padding}, {'no bias' if b is None else 'with bias'}"
        given = learner(x, weight, b, stride, padding)
        tensor(given, why)
        expect.close(given, by_torch(x, weight, b, stride, padding), why=why, source=source, dtype=x)
    turned = x.mT.contiguous().mT
    why, likely = "x need not lie row by row in memory", "as_strided needs x's own strides, x.stride()."
    expect.close(learner(turned, weight, bias), by_torch(x, weight, bias), why=why, source=source, likely=likely)
    why = "without the last three arguments: no bias, stride (1, 1), padding (0, 0)"
    expect.close(learner(x, weight), by_torch(x, weight), why=why, source=source)
    kinds = {"x": floats("B", "C", "H", "W", tensor=True), "weight": floats("O", "C", 3, 2, tensor=True)}
    kinds |= {"bias": floats("O", tensor=True), "stride": among((1, 2), (2, 1), (3, 2))}
    without = dict.fromkeys(
        ("ties", "zeros", "tiny", "apart", "far", "large"), "sums of products only, values do not matter"
    )
    agree(
        *(learner, by_torch, rng),
        **{"why": "one product for all windows", "source": source, "like": "x", "least": {"H": 3, "W": 2}},
        **(kinds | {"padding": among((0, 1), (2, 0), (1, 3)), "without": without}),
    )
    for words, start in (("", bias), (", from a bias of zeros", 0 * bias)):
        gradients(
            lambda x, weight, bias: learner(x, weight, bias, (2, 1), (1, 0)),
            lambda x, weight, bias: by_torch(x, weight, bias, (2, 1), (1, 0)),
            rng,
            why=f"gradients flow{words}",
            **{"x": x, "weight": weight, "bias": start},
        )


# ------------------------------------------------------------------------------------------------ max_pool2d


def _frame(x, p, value):
    return _functional().pad(x, [p] * 4, value=value)


@parts
def _max_pool(
    x,
    kernel,
    stride=None,
    padding=0,
    *,
    step=lambda s, k: s or k,
    pad=lambda x, p: _frame(x, p, float("-inf")),
    order=lambda V: V,
    largest=lambda V: V.max(-1).values,
):
    s = step(stride, kernel)
    V = pad(x, padding).unfold(2, kernel, s).unfold(3, kernel, s)
    return largest(order(V).flatten(4))


def _rounded_up(x, kernel, stride=None, padding=0):
    """Windows that hang over at the end count too: only those that lie wholly inside, sizes are rounded down."""
    return _functional().max_pool2d(x, kernel, stride, padding, ceil_mode=True)


def _rows_only(x, kernel, stride=None, padding=0):
    """The largest of each column of a window: unfold the other axis too, and take the largest of both."""
    return _frame(x, padding, float("-inf")).unfold(2, kernel, stride or kernel).max(-1).values


_SHARED = "The gradient is shared among all that tie, as amax does. One owner: .max(axis).values over one axis."
_TIED = "Where entries tie, the gradient goes to the first one in reading order, row by row."


@exercise(
    hints=[
        "As in conv2d_windows: pad, then unfold axes 2 and 3. What may padding be, so that it never is the largest?",
        "F.pad(x, [padding] * 4, value=-torch.inf). Then make one axis of the two last ones: flatten(4).",
        "stride = stride or kernel; V = F.pad(...).unfold(2, kernel, stride).unfold(3, kernel, stride); "
        "return V.flatten(4).max(4).values",
    ],
    mistakes=_max_pool.mistakes(
        _rounded_up,
        _rows_only,
        padding={},
        stride={},
        pad={
            "It is padded with 0, which wins where all entries are negative: pad with -∞.": (
                lambda x, p: _frame(x, p, 0.0)
            ),
            "The padding is missing: `padding` entries of -∞ on each side.": lambda x, p: x,
            "It is padded with -1, which wins where all entries are below: pad with -∞.": (
                lambda x, p: _frame(x, p, -1.0)
            ),
            "It is padded with the smallest entry: where that is the largest of a window too, the padding owns the "
            "gradient. Pad with -∞.": lambda x, p: _frame(x, p, float(x.detach().min())),
            "The padding is on one side only, above and left: it belongs on both.": (
                lambda x, p: _functional().pad(x, (p, 0, p, 0), value=float("-inf"))
            ),
        },
        step={
            "Without a stride the windows lie side by side: stride=None means stride = kernel, not 1.": (
                lambda s, k: s or 1
            ),
            "The stride is ignored: it takes the kernel's length always.": lambda s, k: k,
            "Without a stride the windows lie side by side: stride=None means stride = kernel, not 2.": (
                lambda s, k: s or 2
            ),
        },
        largest={
            "It takes the mean of each window: that is average pooling. Take the largest.": lambda V: V.mean(-1),
            "It takes the smallest of each window.": lambda V: V.min(-1).values,
            "Absolute values are pooled: the largest entry itself is wanted, -5 is less than 2.": (
                lambda V: V.abs().nan_to_num(posinf=0).max(-1).values
            ),
            "It takes the largest in absolute value: -5 is less than 2.": (
                lambda V: V.gather(-1, V.abs().nan_to_num(posinf=-1).argmax(-1, keepdim=True))[..., 0]
            ),
            "max(axis) gives two things, values and indices: take .values.": lambda V: V.max(-1),
            _SHARED: lambda V: V.amax(-1),
            _TIED: lambda V: V.flip(-1).max(-1).values,
            "It keeps where the largest is, not how large it is: .values, not .indices.": lambda V: V.max(-1).indices,
            "The gradient stops: no .detach(), .data, no_grad or NumPy.": lambda V: V.detach().max(-1).values,
        },
        order={f"{_TIED} Here it is column by column.": lambda V: V.transpose(-1, -2)},
    ),
    seconds=30,
    new=True,
)
def max_pool2d(learner, rng):
    functional = _functional()
    source = "torch.nn.functional.max_pool2d"

    def by_torch(x, kernel, stride=None, padding=0):
        return functional.max_pool2d(x, kernel, stride, padding)

    x = _draw(rng, 3, 2, 8, 6)
    why = "the largest of each window, side by side"
    given = learner(x, 2)
    expect.close(given, by_torch(x, 2), why=why, source=source, likely=_of_pair(given))
    tensor(given, "the pooled maps")
    x = _draw(rng, 3, 2, 7, 9)  # no multiple of 2, and no two axes alike
    for kernel, stride, padding in ((3, None, 0), (2, 1, 0), (3, 2, 0), (2, 3, 1), (3, 2, 1)):
        why = f"kernel {kernel}, stride {stride}, padding {padding}"
        expect.close(learner(x, kernel, stride, padding), by_torch(x, kernel, stride, padding), why=why, source=source)
    below = -1 - x.abs()
    why = "padding never wins, also where all entries are negative"
    expect.close(learner(below, 3, 2, 1), by_torch(below, 3, 2, 1), why=why, source=source)
    kinds = {"x": floats("B", "C", "H", "W", tensor=True), "kernel": among(2, 3), "stride": among(1, 2, 4)}
    agree(
        *(learner, by_torch, rng),
        **{"why": "the largest of each window", "source": source, "like": "x", "least": {"H": 3, "W": 3}},
        **(kinds | {"padding": among(0, 1)}),
    )
    tied = _tensor(rng.integers(0, 2, size=(2, 3, 6, 8)))
    for kernel, stride, padding in ((2, None, 0), (3, 2, 1)):
        gradients(
            lambda x, k=kernel, s=stride, p=padding: learner(x, k, s, p),
            lambda x, k=kernel, s=stride, p=padding: by_torch(x, k, s, p),
            rng,
            why=f"one owner where entries tie, kernel {kernel}",
            **{"x": tied},
        )
        gradients(
            lambda x, k=kernel, s=stride, p=padding: learner(x, k, s, p),
            lambda x, k=kernel, s=stride, p=padding: by_torch(x, k, s, p),
            rng,
            why=f"the padding owns nothing, also where all entries are 0, kernel {kernel}",
            **{"x": 0 * tied},
        )


def _of_pair(given):
    pair = isinstance(given, tuple) and len(given) == 2
    return "max(axis) gives two things, values and indices: take .values." if pair else ""


# ------------------------------------------------------------------------------------------------ receptive_field


@parts
def _field(
    layers,
    *,
    start=1,
    grow=lambda r, k, j, s: r + (k - 1) * j,
    jump=lambda j, s: j * s,
    distance=lambda j, s: j,
):
    r, j = start, 1
    for kernel, stride in layers:
        r = grow(r, kernel, distance(j, stride), stride)
        j = jump(j, stride)
    return r


@exercise(
    hints=[
        "Two numbers go through the layers: what is seen, r, and how far neighbours are apart, j. Both begin at 1.",
        "In each layer first r, with the j of the layer before, then j.",
        "for kernel, stride in layers: r += (kernel - 1) * j; j *= stride",
    ],
    mistakes=_field.mistakes(
        jump={
            "The distance j is the last stride only. Strides multiply: j ← j·s.": lambda j, s: s,
            "Strides are added up. They multiply: j ← j·s.": lambda j, s: j + s - 1,
            "Each stride is added to the distance. They multiply: j ← j·s.": lambda j, s: j + s,
            "Strides do not count: j ← j·s.": lambda j, s: j,
        },
        distance={
            "A layer's own stride is applied too early: its window has the old distance j. First r, then j.": (
                lambda j, s: j * s
            ),
        },
        grow={
            "A window of k entries adds k - 1 steps, not k.": lambda r, k, j, s: r + k * j,
            "A window of k entries adds (k - 1)·j; here it multiplies.": lambda r, k, j, s: r * k,
            "The layers are in the wrong order for this rule. r + (k - 1)·j begins at the input; (r - 1)·s + k would "
            "begin at the last layer.": lambda r, k, j, s: (r - 1) * s + k,
        },
        returns={"It is an area; the side of the square is wanted.": lambda r: r * r},
        together={
            "A pooling has a window too, as a convolution: (k - 1)·j for each layer, whatever its stride.": {
                "grow": lambda r, k, j, s: r + (0 if k == s else k - 1) * j
            },
        },
        start={"r begins at 0: before any layer an entry sees itself, one pixel.": 0},
    ),
)
def receptive_field(learner, rng):
    expect.equal(learner([(5, 2), (3, 1)]), 9, why="the example above", source="by hand")
    examples = [[(3, 1)], [(3, 2), (3, 2), (3, 2)], [(5, 2), (3, 1), (2, 2), (3, 1)], [(2, 2), (5, 3), (1, 4), (3, 1)]]
    for _ in range(6):
        n = int(rng.integers(2, 5))
        examples.append([(int(rng.integers(1, 6)), int(rng.integers(1, 4))) for _ in range(n)])
    for layers in [*examples, [(1, 1)], []]:
        given, why = learner(list(layers)), f"what one entry sees after {layers}"
        expect.equal(given, _measured(layers), why=why, source="torch.autograd: first to last pixel with a gradient")
        expect.kind(given, (int, np.integer), "a whole number of pixels")


def _measured(layers):
    """First to last input with a gradient at the first entry of a chain of one-dimensional convolutions of ones."""
    import torch

    x = torch.zeros(1, 1, 400, dtype=torch.float64, requires_grad=True)
    z = x
    for kernel, stride in layers:
        z = torch.nn.functional.conv1d(z, torch.ones(1, 1, kernel, dtype=torch.float64), stride=stride)
    (slope,) = torch.autograd.grad(z[0, 0, 0], x)
    places = torch.nonzero(slope[0, 0])
    return int(places.max() - places.min()) + 1


# ------------------------------------------------------------------------------------------------ SmallCNN


def _network(channels, size, classes, width, mean):
    """The network of the table in double precision, with nothing but torch's own layers."""
    from torch import nn

    def block(n_in, n_out, kernel, stride):
        conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
        return conv, nn.BatchNorm2d(n_out), nn.ReLU()

    features = nn.Sequential(
        *block(channels, width, 5, 2),
        *block(width, 2 * width, 3, 1),
        nn.MaxPool2d(2),
        *block(2 * width, 4 * width, 3, 1),
    )
    side = (size + 1) // 2 // 2  # by hand: (size + 4 - 5)//2 + 1, then halved
    pool = nn.AdaptiveAvgPool2d(1) if mean else nn.Identity()
    model = nn.Sequential()
    model.features, model.pool, model.flatten = features, pool, nn.Flatten()
    model.head = nn.Linear(4 * width * (1 if mean else side**2), classes)
    return model.double()


_KINDS = (
    "Conv2d",
    "BatchNorm2d",
    "ReLU",
    "Conv2d",
    "BatchNorm2d",
    "ReLU",
    "MaxPool2d",
    "Conv2d",
    "BatchNorm2d",
    "ReLU",
)


def _why_shapes(yours, theirs):
    """What a difference between lists of (name, shape) comes from, most telling first."""
    yours, theirs = dict(yours), dict(theirs)
    if extra := [
        name for name in yours if name.startswith("features") and name.endswith("bias") and name not in theirs
    ]:
        return f"{extra[0]}: the convolutions have no bias (bias=False); batch norm has one of its own."
    if "head.bias" in theirs and "head.bias" not in yours and "head.weight" in yours:
        return "The linear layer has a bias."
    if missing := [name for name in theirs if name not in yours]:
        return f"{missing[0]} is missing: is the layer an attribute of that name, in the order of the table?"
    if extra := [name for name in yours if name not in theirs]:
        return f"{extra[0]} is not in the table: two attributes hold the layers, features and head."
    name = next(name for name in theirs if yours[name] != theirs[name])
    if name.startswith("head") and yours[name][0] != theirs[name][0]:
        return f"The head gives one logit for each class: {theirs[name][0]} here."
    if name == "head.weight":
        return (
            "The head gets 4w·H'·W' numbers with H' = W' = output_size(output_size(size, 5, 2, 2), 2, 2); 4w with mean."
        )
    return f"{name} is {yours[name]}; by the table it is {theirs[name]}: kernel, channels or width?"


@exercise(
    hints=[
        "Three times convolution, batch norm, ReLU, a pooling before the third: a little function makes a block.",
        "nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False); the sides are output_size(size, 5, 2, 2), then "
        "output_size(that, 2, 2), and 3 × 3 with padding 1 keeps them.",
        "forward: maps = self.features(x); return self.head(maps.mean((2, 3)) if self.mean else maps.flatten(1))",
    ],
    seconds=60,
    random=True,
    changes=("weights",),  # batch norm's statistics move in training
)
def SmallCNN(learner, rng):
    from torch import nn

    for channels, size, classes, width, mean in (
        (1, 28, 10, 4, False),
        (3, 32, 7, 2, False),
        (2, 10, 5, 3, True),
        (1, 11, 3, 1, False),
        (1, 23, 4, 2, True),
    ):
        model = learner(channels, size, classes, width, mean)
        said = f"channels {channels}, size {size}, classes {classes}, width {width}, mean {mean}"
        expect.kind(model, nn.Module, "a module")
        features, head = getattr(model, "features", None), getattr(model, "head", None)
        likely = "The table's layers up to the last ReLU, in one nn.Sequential; a list does not register them."
        expect.kind(features, nn.Sequential, "features is an nn.Sequential", likely=likely)
        expect.kind(head, nn.Linear, "head is the nn.Linear", likely="The flattening belongs in forward.")
        kinds = [type(layer).__name__ for layer in features]
        expect.true(
            *(kinds == list(_KINDS), "features has the table's ten layers, in order"),
            *(f"yours    {', '.join(kinds)}", f"expected {', '.join(_KINDS)}"),
            likely="Flattening and mean belong in forward." if kinds[:10] == list(_KINDS) else "",
        )
        theirs = _network(channels, size, classes, width, mean)
        shapes = [[(name, tuple(p.shape)) for name, p in each.state_dict().items()] for each in (model, theirs)]
        expect.true(
            *(dict(shapes[0]) == dict(shapes[1]), f"weights of the shapes of the table: {said}"),
            likely=lambda s=shapes: _why_shapes(*s),
        )
        for n, (stride, padding) in {0: (2, 2), 3: (1, 1), 7: (1, 1)}.items():
            layer = features[n]
            given = (*layer.stride, *(layer.padding if isinstance(layer.padding, tuple) else (layer.padding,)))
            wanted = given[:2] == (stride,) * 2 and given[2] in (padding, "same")
            expect.true(wanted, f"features[{n}] has stride {stride} and padding {padding}", f"yours    {layer}")
        for name, value in (("kernel_size", 2), ("stride", 2), ("padding", 0)):
            given = getattr(features[6], name)
            good = given in (value, (value, value)) and not features[6].ceil_mode
            expect.true(good, "features[6] pools 2 × 2, side by side, rounded down", f"yours    {features[6]}")
        model = model.double()
        for name, values in theirs.state_dict().items():  # statistics and scales that are no 0 and no 1
            if values.is_floating_point():
                drawn = rng.uniform(0.5, 1.5, size=tuple(values.shape)) * rng.choice([-1, 1], size=tuple(values.shape))
                values.copy_(_tensor(np.abs(drawn) if name.endswith("var") else drawn))
        model.load_state_dict(theirs.state_dict())
        x = _draw(rng, 3, channels, size, size)
        for training in (False, True):
            model.train(training)
            theirs.train(training)
            why = f"the logits in {'training' if training else 'evaluation'}, {said}"
            given, expected = model(x), theirs(x).detach()
            tensor(given, why)
            if expected.shape == given.shape:
                expect.true(*_logits(given.detach(), expected, why), likely=_OF_SOFTMAX)
            likely = _mean_or_not(x, model) if mean else ""
            expect.close(given, expected, why=why, source="the table's layers by torch", rtol=1e-4, likely=likely)
        one, why = x[:1], f"one image alone, in evaluation, {said}"
        model.eval(), theirs.eval()
        expect.close(model(one), theirs(one).detach(), why=why, source="the table's layers by torch", rtol=1e-4)
    module_gradients(model, theirs, x, rng, why="gradients reach every weight")
    first, second = learner(), learner()
    usual = "The defaults stay as the first line gives them: channels 1, size 28, classes 10, width 16, mean False."
    expect.equal(first.features[0].out_channels, 16, why="width is 16 unless given", source="the first line")
    expect.equal(
        tuple(first.head.weight.shape),
        (10, 64 * 49),
        why="the usual network, 28 × 28",
        source="64 · 7 · 7",
        likely=usual,
    )
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    expect.true(
        not shared, "two networks share no weights", likely="Make the layers in __init__, not in the class's body."
    )


_OF_SOFTMAX = "forward returns logits: no softmax at the end, cross_entropy does it."


def _logits(given, expected, why):
    """Whether it is not softmax or its logarithm of what is expected, as arguments of expect.true."""
    import torch

    soft = [torch.allclose(given, change(1)) for change in (expected.softmax, expected.log_softmax)]
    return not any(soft), f"{why}: logits"


def _mean_or_not(x, model):
    """The words for what was taken in place of the mean, where that is seen."""

    def likely(yours, expected):
        maps = model.features(x)
        for name, pooled in {"largest": maps.amax((2, 3)), "sum": maps.sum((2, 3))}.items():
            if np.allclose(yours, model.head(pooled).detach()):
                return f"It takes the {name} of each map; with mean=True it is the mean over H' and W'."
        return ""

    return likely


# ------------------------------------------------------------------------------------------------ occlusion_map


@parts
def _occlusion(
    model,
    image,
    label,
    patch=7,
    stride=3,
    fill=0.0,
    *,
    places=lambda n, patch, stride: range(0, n - patch + 1, stride),
    cover=lambda x, i, j, patch, fill: x[:, i : i + patch, j : j + patch].fill_(fill),
    fresh=lambda image, last: image.clone(),
    score=lambda logits: logits.softmax(1),
    of=lambda p, label: p[0, label],
    which=lambda whole, label: label,
    compare=lambda whole, p: whole - p,
    end=lambda lost: lost.detach(),
):
    import torch

    whole, rows, covered = score(model(image[None])), [], image
    label = which(whole, label)
    whole = of(whole, label)
    for i in places(image.shape[1], patch, stride):
        row = []
        for j in places(image.shape[2], patch, stride):
            covered = fresh(image, covered if rows or row else image.clone())
            cover(covered, i, j, patch, fill)
            row.append(compare(whole, of(score(model(covered[None])), label)))
        rows.append(torch.stack(row))
    return end(torch.stack(rows))


def _keep_only(x, i, j, patch, fill):
    kept = x[:, i : i + patch, j : j + patch].clone()
    x.fill_(fill)
    x[:, i : i + patch, j : j + patch] = kept


@exercise(
    hints=[
        "A copy of the image for each place, with the square filled. How many places fit down, and how many across?",
        "covered = image.clone(); covered[:, i:i + patch, j:j + patch] = fill. All copies may go through at once.",
        "with torch.no_grad(): model(image[None]).softmax(1)[0, label] minus model(covered).softmax(1)[:, label], "
        "as (rows, columns); rows = output_size(H, patch, stride)",
    ],
    mistakes=_occlusion.mistakes(
        score={
            "It takes logits. Probabilities are wanted: softmax over the classes.": lambda logits: logits,
            "It takes logarithms of probabilities; the loss is in probability itself.": lambda z: z.log_softmax(1),
            "It takes the sigmoid of each logit; probabilities of classes are softmax over them.": lambda z: (
                z.sigmoid()
            ),
            "softmax goes over axis 1, the classes; over axis 0 it goes over the batch.": lambda z: z.softmax(0),
        },
        which={
            "It looks at the class that the network says; wanted is the one that is asked for, label.": (
                lambda whole, label: whole[0].argmax()
            ),
        },
        of={
            "It looks at the likeliest class, not at the one that is asked for, label.": lambda p, label: p[0].max(),
        },
        compare={
            "The sign is turned: what is lost is whole minus covered.": lambda whole, p: p - whole,
            "This is the probability that is left; wanted is what is lost: whole minus covered.": lambda whole, p: p,
            "It divides by the whole probability; the difference itself is wanted.": lambda whole, p: 1 - p / whole,
            "It takes the absolute value: a square whose covering helps counts negative.": lambda whole, p: (
                whole - p
            ).abs(),
        },
        cover={
            "Only the first channel is covered: fill the square in all of them.": (
                lambda x, i, j, patch, fill: x[0, i : i + patch, j : j + patch].fill_(fill)
            ),
            "Everything but the square is covered.": _keep_only,
            "The square lies around the place; the place is its upper left corner.": (
                lambda x, i, j, patch, fill: x[
                    :, max(0, i - patch // 2) : i + patch - patch // 2, max(0, j - patch // 2) : j + patch - patch // 2
                ].fill_(fill)
            ),
            "Rows and columns are swapped: the square at row i, column j is x[:, i:i + patch, j:j + patch].": (
                lambda x, i, j, patch, fill: x[:, j : j + patch, i : i + patch].fill_(fill)
            ),
            "fill is added to what is there; the square's pixels become fill.": (
                lambda x, i, j, patch, fill: x[:, i : i + patch, j : j + patch].add_(fill)
            ),
        },
        places={
            "Squares at the edge hang over: only places where the square lies wholly inside.": (
                lambda n, patch, stride: range(0, n, stride)
            ),
            "The last place is missing: one at n - patch fits, so range(0, n - patch + 1, stride).": (
                lambda n, patch, stride: range(0, n - patch, stride) or range(1)
            ),
            "The squares lie side by side; they are `stride` apart.": (
                lambda n, patch, stride: range(0, n - patch + 1, patch)
            ),
        },
        fresh={
            "The squares add up: each place begins with the whole image again, a new copy.": lambda image, last: last,
        },
        end={"The map carries a gradient: compute it in torch.no_grad().": lambda lost: lost},
        returns={"Rows and columns of the map are swapped.": lambda lost: lost.T},
    ),
    seconds=30,
)
def occlusion_map(learner, rng):
    import torch
    from torch import nn

    def authority(model, image, label, patch, stride, fill):
        p = []
        for i, j in itertools.product(*(range(0, n - patch + 1, stride) for n in image.shape[1:])):
            mask = torch.zeros(image.shape[1:], dtype=torch.bool)
            mask[i : i + patch, j : j + patch] = True
            p.append(model(torch.where(mask, torch.tensor(fill, dtype=image.dtype), image)[None]).softmax(1)[0, label])
        whole = model(image[None]).softmax(1)[0, label]
        columns = len(range(0, image.shape[2] - patch + 1, stride))
        return (whole - torch.stack(p)).detach().view(-1, columns)

    source = "one covered copy after the other, by torch.where"
    for C, H, W, patch, stride, fill in (
        (2, 7, 9, 3, 2, 0.7),
        (1, 8, 6, 2, 3, -0.4),
        (3, 5, 8, 5, 1, 0.0),
        (2, 9, 6, 4, 2, 1.5),
    ):
        layers = nn.Flatten(), nn.BatchNorm1d(C * H * W), nn.Dropout(0.5), nn.Linear(C * H * W, 4)
        model = nn.Sequential(*layers).double().eval()
        weights = _draw(rng, 4, C * H * W) / (C * H * W) ** 0.5
        model.load_state_dict(model.state_dict() | {"3.weight": 2 * weights, "1.running_mean": _draw(rng, C * H * W)})
        image = _draw(rng, C, H, W)
        for label in (0, 2):
            why = f"label {label}, patch {patch}, stride {stride}, fill {fill}, image {C, H, W}"
            expected = authority(model, image, label, patch, stride, fill)
            given = learner(model, image, label, patch, stride, fill)
            expect.close(given, expected, why=why, source=source)
            tensor(given, "the map")
            likely = "The map carries a gradient: compute it in torch.no_grad()."
            expect.true(not given.requires_grad, "the map has no gradient", likely=likely)
    image = _draw(rng, 1, 16, 15)
    model = nn.Sequential(nn.Flatten(), nn.Linear(240, 3)).double().eval()
    why = "without the last three arguments: patch 7, stride 3, fill 0"
    expect.close(learner(model, image, 1), authority(model, image, 1, 7, 3, 0.0), why=why, source=source)


# ------------------------------------------------------------------------------------------------ augment


def _versions(x, flip, shift):
    """Every moved (and mirrored) version of one image (C, H, W), and what each is: (mirrored, down, right)."""
    _, H, W = x.shape
    found, names = [], []
    for mirrored in (False, True)[: 1 + flip]:
        image = x[:, :, ::-1] if mirrored else x
        padded = np.pad(image, ((0, 0), (shift, shift), (shift, shift)))
        for down, right in itertools.product(range(-shift, shift + 1), repeat=2):
            found.append(padded[:, shift - down : shift - down + H, shift - right : shift - right + W])
            names.append((mirrored, down, right))
    return np.stack(found), names


def _which(given, x, flip, shift):
    """For each given image the number of the version of x that it is, or -1; and the versions' names."""
    versions, names = _versions(x, flip, shift)
    same = np.isclose(given[:, None], versions[None]).all((2, 3, 4))  # (B, V)
    return np.where(same.any(1), same.argmax(1), -1), names


def _why_none(image, x, shift):
    """What an image is that is no moved and mirrored version of x."""
    for channel in range(len(x)):
        found, _ = _which(image[None, channel : channel + 1], x[channel : channel + 1], True, shift)
        if found[0] < 0:
            break
    else:
        return "Its channels move apart. Each picture has one step, for all its channels."
    rolls = itertools.product((x, x[:, :, ::-1]), *[range(-shift, shift + 1)] * 2)
    if any(np.allclose(np.roll(each, (d, r), (1, 2)), image) for each, d, r in rolls):
        return "What leaves at one edge comes in at the other. There 0 comes in: pad, then cut out."
    if _which(image[None], x[:, ::-1], True, shift)[0][0] >= 0:
        return "It is turned upside down; mirrored means left to right, the last axis."
    for mode in ("edge", "reflect"):
        if mode == "reflect" and min(x.shape[1:]) <= shift:
            continue
        padded = np.pad(x, ((0, 0), (shift, shift), (shift, shift)), mode=mode)
        cuts = itertools.product(range(2 * shift + 1), repeat=2)
        H, W = x.shape[1:]
        if any(
            np.allclose(each[:, i : i + H, j : j + W], image) for i, j in cuts for each in (padded, padded[:, :, ::-1])
        ):
            return "At the edges the border's values come in; 0 comes in there."
    if _which(image[None], x, True, shift + 1)[0][0] >= 0:
        return "It moves further than shift."
    return ""


@exercise(
    hints=[
        "F.pad(x, [shift] * 4) holds every moved version, a window of it. Draw first rows and columns, (B, 1).",
        "rows = top + torch.arange(H) has shape (B, H), columns likewise. Mirroring a picture reverses its columns.",
        "padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]] with "
        "image = arange(B)[:, None, None, None], channel = arange(C)[:, None, None]; "
        "top = torch.randint(2 * shift + 1, (B, 1), generator=generator)",
    ],
    seconds=60,
    new=True,
)
def augment(learner, rng):
    import torch

    B, source = 1500, "all versions, by NumPy"
    x = 1 + np.abs(rng.normal(size=(2, 6, 5)))
    batch = _tensor(x).repeat(B, 1, 1, 1)
    given = learner(batch[:7], False, 0, torch_generator(0))
    expect.close(given, batch[:7], why="no flip and no shift: as it was", source="x", dtype=batch)
    for flip, shift in ((False, 2), (True, 0), (True, 1)):
        said = f"flip {flip}, shift {shift}"
        seed = int(rng.integers(1000))
        given = learner(batch, flip, shift, torch_generator(seed))
        tensor(given, said)
        expect.shape(given, tuple(batch.shape), f"as many pictures of the same size, {said}")
        expect.dtype(given, batch, f"the dtype of x, {said}")
        numbers = given.numpy()
        found, names = _which(numbers, x, flip, shift)
        lost = np.flatnonzero(found < 0)
        likely = "" if not len(lost) else _why_none(numbers[lost[0]], x, max(shift, 1))
        if len(lost) and not flip and _which(numbers, x, True, shift)[0].min() >= 0:
            likely = "It mirrors without being asked: flip is False."
        why = f"each picture is one of the {len(names)} moved{' and mirrored' * flip} versions, {said}"
        expect.true(not len(lost), why, f"no such version: {len(lost):,} of {B:,}", likely=likely)
        counts = np.bincount(found, minlength=len(names))
        expect.true(*_even(counts, names, flip, shift, said), likely=_why_uneven(counts, names, flip, shift))
    for flip, shift in ((True, 0), (False, 2), (True, 2)):
        why = f"flip {flip}, shift {shift}"
        governed(lambda g, f=flip, s=shift: learner(batch[:40], f, s, g), why=why, make=torch_generator)
    different = _draw(rng, 40, 1, 4, 7)  # each picture stays itself, in its place in the batch
    moved = learner(different, True, 1, torch_generator(5)).numpy()
    own = [_which(moved[n : n + 1], different[n].numpy(), True, 1)[0][0] >= 0 for n in range(40)]
    expect.true(all(own), "picture n of the result is picture n of x", likely="The order in the batch stays.")
    expect.equal(len(learner(different[:1], True, 1, torch_generator(1))), 1, why="one picture alone", source=source)
    single = learner(different.float(), True, 1, torch_generator(1))
    expect.dtype(single, torch.float32, "32-bit floats stay so")


def _even(counts, names, flip, shift, said):
    """Arguments of expect.true: whether all versions are about equally frequent."""
    lines = (
        f"most often {names[counts.argmax()]}: {counts.max():,}",
        f"least {names[counts.argmin()]}: {counts.min():,}",
    )
    good = chisquare(counts).pvalue > 1e-7
    return good, f"all versions (mirrored, down, right) are equally likely, {said}", *lines


def _why_uneven(counts, names, flip, shift):
    """What makes the versions uneven."""
    total, steps = counts.sum(), range(-shift, shift + 1)
    if flip:
        mirrored = sum(n for n, (m, _, _) in zip(counts, names, strict=True) if m) / total
        if mirrored in (0.0, 1.0):
            ever = "all" if mirrored else "none"
            return f"Mirrored are {ever} of the pictures: one draw for each of them, with probability 1/2."
        if not 0.4 < mirrored < 0.6:
            return f"Mirrored are {mirrored:.0%} of the pictures: it should be about half."
    if (counts > 0).sum() == 1:
        return "All pictures of the batch move alike: draw for each of the B pictures."
    for axis, name in ((1, "down"), (2, "to the right")):
        of = {step: sum(n for n, each in zip(counts, names, strict=True) if each[axis] == step) for step in steps}
        if missing := [step for step, n in of.items() if not n]:
            step = missing[0]
            return f"No picture moves by {step:+d} {name}: -shift to shift, both included, are 2·shift + 1 steps."
        if chisquare(list(of.values())).pvalue < 1e-7:
            return f"The steps {name} are not equally likely."
    if all(n == 0 for n, (_, d, r) in zip(counts, names, strict=True) if abs(d) != abs(r)):
        return "Down and to the right it moves by one and the same step: draw the two apart."
    return "Are mirroring and the two steps drawn apart from one another?"
