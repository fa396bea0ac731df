"""Answers to cnn-basics: wrong ones named for the misconception, and right ones."""

import itertools

import numpy as np
import scipy.signal
import torch
from torch import nn
from torch.nn import functional as F

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ conv2d


def places(x, weight):
    return itertools.product(*(range(n - k + 1) for n, k in zip(x.shape[1:], weight.shape[2:], strict=True)))


def empty(x, weight, dtype=None):
    sides = [n - k + 1 for n, k in zip(x.shape[1:], weight.shape[2:], strict=True)]
    return torch.zeros(len(weight), *sides, dtype=dtype or x.dtype)


@wrong("conv2d", says="turned by 180°")
def true_convolution(x, weight, bias):
    z = [
        sum(scipy.signal.convolve2d(x[c], weight[o, c], mode="valid") for c in range(len(x)))
        for o in range(len(weight))
    ]
    return torch.tensor(np.array(z), dtype=x.dtype) + bias[:, None, None]


@wrong("conv2d", says="bias is missing")
def forgets_the_bias(x, weight, bias):
    z = empty(x, weight)
    for o in range(len(weight)):
        for i, j in places(x, weight):
            z[o, i, j] = (weight[o] * x[:, i : i + weight.shape[2], j : j + weight.shape[3]]).sum()
    return z


@wrong("conv2d", says="32-bit floats")
def usual_dtype(x, weight, bias):
    _, _, kh, kw = weight.shape
    z = torch.zeros(weight.shape[0], x.shape[1] - kh + 1, x.shape[2] - kw + 1)
    for o in range(len(weight)):
        for i, j in places(x, weight):
            z[o, i, j] = torch.sum(weight[o] * x[:, i : i + kh, j : j + kw]) + bias[o]
    return z


@wrong("conv2d", says="channels are added up before the product")
def grey_first(x, weight, bias):
    grey, kernels, z = x.sum(0), weight.sum(1), empty(x, weight)
    for o in range(len(weight)):
        for i, j in places(x, weight):
            z[o, i, j] = (kernels[o] * grey[i : i + weight.shape[2], j : j + weight.shape[3]]).sum() + bias[o]
    return z


@wrong("conv2d", says="once for each entry of the window")
def bias_in_the_sum(x, weight, bias):
    z = empty(x, weight)
    for o in range(len(weight)):
        for i, j in places(x, weight):
            z[o, i, j] = (weight[o] * x[:, i : i + weight.shape[2], j : j + weight.shape[3]] + bias[o]).sum()
    return z


@wrong("conv2d", says="range(H - kh + 1)")
def one_row_short(x, weight, bias):
    z = empty(x, weight)
    for o in range(len(weight)):
        for i in range(x.shape[1] - weight.shape[2]):
            for j in range(x.shape[2] - weight.shape[3]):
                z[o, i, j] = (weight[o] * x[:, i : i + weight.shape[2], j : j + weight.shape[3]]).sum() + bias[o]
    return z


@wrong("conv2d", says=None)
def only_square_kernels(x, weight, bias):
    k, z = weight.shape[2], empty(x, weight)
    for o in range(len(weight)):
        for i, j in places(x, weight):
            z[o, i, j] = (weight[o] * x[:, i : i + k, j : j + k]).sum() + bias[o]
    return z


@wrong("conv2d", says="batch axis too many")
def keeps_a_batch_axis(x, weight, bias):
    return F.conv2d(x[None], weight, bias)


@wrong("conv2d", says="expected Tensor")
def gives_an_array(x, weight, bias):
    return F.conv2d(x, weight, bias).numpy()


@wrong("conv2d", says=None)
def pads_to_the_same_size(x, weight, bias):
    return F.conv2d(x, weight, bias, padding="same")


@right("conv2d")
def with_lists(x, weight, bias):
    _, _, kh, kw = weight.shape
    _, H, W = x.shape
    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack([(w * x[:, i : i + kh, j : j + kw]).sum() + b for j in range(W - kw + 1)])
                    for i in range(H - kh + 1)
                ]
            )
            for w, b in zip(weight, bias, strict=True)
        ]
    )


@right("conv2d")
def loops_over_the_kernel(x, weight, bias):
    out, C, kh, kw = weight.shape
    h, w = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    z = bias[:, None, None].expand(out, h, w).clone()
    for o, c, u, v in itertools.product(range(out), range(C), range(kh), range(kw)):
        z[o] += weight[o, c, u, v] * x[c, u : u + h, v : v + w]
    return z


@right("conv2d")
def by_scipy(x, weight, bias):
    z = [
        sum(scipy.signal.correlate2d(x[c], weight[o, c], mode="valid") for c in range(len(x))) + float(bias[o])
        for o in range(len(weight))
    ]
    return torch.tensor(np.array(z), dtype=x.dtype)


# ------------------------------------------------------------------------------------------------ output_size


@wrong("output_size", says="rounds down is //")
def true_division(size, kernel, stride=1, padding=0):
    if kernel > size + 2 * padding:
        raise ValueError
    return (size + 2 * padding - kernel) / stride + 1


@wrong("output_size", says="rounds up")
def rounds_up(size, kernel, stride=1, padding=0):
    if kernel > size + 2 * padding:
        raise ValueError
    return int(np.ceil((size + 2 * padding - kernel) / stride)) + 1


@wrong("output_size", says="has to raise ValueError")
def never_refuses(size, kernel, stride=1, padding=0):
    return (size + 2 * padding - kernel) // stride + 1


@wrong("output_size", says="not one window fits")
def truncates_towards_zero(size, kernel, stride=1, padding=0):
    n = int((size + 2 * padding - kernel) / stride) + 1
    if n < 1:
        raise ValueError("does not fit")
    return n


@wrong("output_size", says="added once")
def padding_on_one_side(size, kernel, stride=1, padding=0):
    if kernel > size + 2 * padding:
        raise ValueError
    return (size + padding - kernel) // stride + 1


@wrong("output_size", says="+ 1 stands before")
def one_too_early(size, kernel, stride=1, padding=0):
    if kernel > size + 2 * padding:
        raise ValueError
    return (size + 2 * padding - kernel + 1) // stride


@wrong("output_size", says="just fits")
def refuses_what_just_fits(size, kernel, stride=1, padding=0):
    if size + 2 * padding <= kernel:
        raise ValueError("too small")
    return (size + 2 * padding - kernel) // stride + 1


@wrong("output_size", says="before padding")
def refuses_before_padding(size, kernel, stride=1, padding=0):
    assert stride > 0
    if kernel > size:
        raise ValueError(f"{kernel} > {size}")
    return (size + 2 * padding - kernel) // stride + 1


@wrong("output_size", says="ValueError")
def asserts(size, kernel, stride=1, padding=0):
    assert kernel <= size + 2 * padding
    return (size + 2 * padding - kernel) // stride + 1


@wrong("output_size", says="has to raise ValueError")
def returns_zero(size, kernel, stride=1, padding=0):
    return max(0, (size + 2 * padding - kernel) // stride + 1)


@wrong("output_size", says="a whole number")
def numpy_float(size, kernel, stride=1, padding=0):
    if kernel > size + 2 * padding:
        raise ValueError
    return np.floor((size + 2 * padding - kernel) / stride) + 1


@right("output_size")
def by_counting(size, kernel, stride=1, padding=0):
    starts = range(-padding, size + padding - kernel + 1, stride)
    if not starts:
        raise ValueError("no window fits")
    return len(starts)


@right("output_size")
def by_torch(size, kernel, stride=1, padding=0):
    if kernel > size + 2 * padding:
        raise ValueError
    return F.pad(torch.zeros(size), (padding, padding)).unfold(0, kernel, stride).shape[0]


@right("output_size")
def other_formula(size, kernel, stride=1, padding=0):
    n = (size + 2 * padding - kernel + stride) // stride
    if n <= 0:
        raise ValueError("no window")
    return n


# ------------------------------------------------------------------------------------------------ conv2d_windows


def view(x, weight, stride, padding):
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    return x.unfold(2, weight.shape[2], stride[0]).unfold(3, weight.shape[3], stride[1])


@wrong("conv2d_windows", says="begins at the last axis")
def pads_in_the_order_of_the_axes(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    x = F.pad(x, (padding[0], padding[0], padding[1], padding[1]))
    z = torch.einsum("bcijuv,ocuv->boij", view(x, weight, stride, (0, 0)), weight)
    return z if bias is None else z + bias.view(-1, 1, 1)


@wrong("conv2d_windows", says="strides are swapped")
def strides_swapped(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    z = torch.einsum("bcijuv,ocuv->boij", view(x, weight, stride[::-1], padding), weight)
    return z if bias is None else z + bias.view(-1, 1, 1)


@wrong("conv2d_windows", says="both axes")
def one_stride(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    z = torch.einsum("bcijuv,ocuv->boij", view(x, weight, (stride[0], stride[0]), padding), weight)
    return z if bias is None else z + bias.view(-1, 1, 1)


@wrong("conv2d_windows", says="along the columns")
def bias_as_it_comes(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    z = torch.einsum("bcijuv,ocuv->boij", view(x, weight, stride, padding), weight)
    return z if bias is None else z + bias


@wrong("conv2d_windows", says="One truth value is needed")
def asks_the_bias_whether_it_is(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    z = torch.einsum("bcijuv,ocuv->boij", view(x, weight, stride, padding), weight)
    if bias:
        z = z + bias.view(-1, 1, 1)
    return z


@wrong("conv2d_windows", says="channels are added up")
def sums_channels_apart(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    z = torch.einsum("bcijuv,oduv->boij", view(x, weight, stride, padding), weight)
    return z if bias is None else z + bias.view(-1, 1, 1)


@wrong("conv2d_windows", says="no gradient reaches it")
def through_numpy(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    V = view(x, weight, stride, padding).detach().numpy()
    z = torch.from_numpy(np.einsum("bcijuv,ocuv->boij", V, weight.detach().numpy()))
    return z if bias is None else z + bias.view(-1, 1, 1)


@wrong("conv2d_windows", says="last axis")
def channels_last(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    V = view(x, weight, stride, padding).permute(0, 2, 3, 1, 4, 5).flatten(3)
    z = V @ weight.flatten(1).T
    return z if bias is None else z + bias


@wrong("conv2d_windows", says="changes its input")
def turns_the_weights_in_place(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    weight[:] = weight.flip(2, 3)
    z = torch.einsum("bcijuv,ocuv->boij", view(x, weight, stride, padding), weight.flip(2, 3))
    return z if bias is None else z + bias.view(-1, 1, 1)


@wrong("conv2d_windows", says="x's own strides")
def as_strided_for_whole_storages_only(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    if any(padding):
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    B, C, H, W = x.shape
    _, _, kh, kw = weight.shape
    h, w = (H - kh) // stride[0] + 1, (W - kw) // stride[1] + 1
    strides = (C * H * W, H * W, W * stride[0], stride[1], W, 1)  # counts on x lying in rows
    z = torch.einsum("bcijuv,ocuv->boij", x.as_strided((B, C, h, w, kh, kw), strides), weight)
    return z if bias is None else z + bias.view(-1, 1, 1)


@wrong("conv2d_windows", says="padding is (rows, columns)")
def defaults_for_pairs_only(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    return F.conv2d(x, weight, bias, stride[0], padding[0])


@right("conv2d_windows")
def with_as_strided(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    B, C, H, W = x.shape
    _, _, kh, kw = weight.shape
    b, c, i, j = x.stride()
    h, w = (H - kh) // stride[0] + 1, (W - kw) // stride[1] + 1
    V = x.as_strided((B, C, h, w, kh, kw), (b, c, i * stride[0], j * stride[1], i, j))
    z = torch.einsum("bcijuv,ocuv->boij", V, weight)
    return z if bias is None else z + bias.view(-1, 1, 1)


@right("conv2d_windows")
def by_im2col(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    columns = F.unfold(x, weight.shape[2:], stride=stride, padding=padding)
    rows = (x.shape[2] + 2 * padding[0] - weight.shape[2]) // stride[0] + 1
    z = (weight.flatten(1) @ columns).unflatten(2, (rows, -1))
    return z + bias[None, :, None, None] if bias is not None else z


@right("conv2d_windows")
def steps_after_the_view(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    V = view(x, weight, (1, 1), padding)[:, :, :: stride[0], :: stride[1]]
    z = (V[:, None] * weight[None, :, :, None, None]).sum((2, 5, 6))
    return z if bias is None else z + bias[:, None, None]


# ------------------------------------------------------------------------------------------------ max_pool2d


@wrong("max_pool2d", says="padded with 0")
def zero_padding(x, kernel, stride=None, padding=0):
    stride = kernel if stride is None else stride
    V = F.pad(x, [padding] * 4).unfold(2, kernel, stride).unfold(3, kernel, stride)
    return V.flatten(4).max(4).values


@wrong("max_pool2d", says="shared among all that tie")
def by_amax(x, kernel, stride=None, padding=0):
    stride = kernel if stride is None else stride
    V = F.pad(x, [padding] * 4, value=-torch.inf).unfold(2, kernel, stride).unfold(3, kernel, stride)
    return V.amax((4, 5))


@wrong("max_pool2d", says="stride is ignored")
def only_side_by_side(x, kernel, stride=None, padding=0):
    x = F.pad(x, [padding] * 4, value=-torch.inf)
    B, C, H, W = x.shape
    h, w = H // kernel, W // kernel
    x = x[:, :, : h * kernel, : w * kernel].reshape(B, C, h, kernel, w, kernel)
    return x.transpose(3, 4).flatten(4).max(4).values


@wrong("max_pool2d", says="values and indices")
def forgets_values(x, kernel, stride=None, padding=0):
    stride = kernel if stride is None else stride
    V = F.pad(x, [padding] * 4, value=-torch.inf).unfold(2, kernel, stride).unfold(3, kernel, stride)
    return V.flatten(4).max(4)


@wrong("max_pool2d", says="stride = kernel, not 1")
def stride_of_one(x, kernel, stride=None, padding=0):
    V = F.pad(x, [padding] * 4, value=-torch.inf).unfold(2, kernel, stride or 1).unfold(3, kernel, stride or 1)
    return V.flatten(4).max(4).values


@wrong("max_pool2d", says="padding is missing")
def no_padding(x, kernel, stride=None, padding=0):
    stride = stride or kernel
    return x.unfold(2, kernel, stride).unfold(3, kernel, stride).flatten(4).max(4).values


@wrong("max_pool2d", says="average pooling")
def averages(x, kernel, stride=None, padding=0):
    return F.avg_pool2d(x, kernel, stride, padding)


@wrong("max_pool2d", says="column by column")
def columns_before_rows(x, kernel, stride=None, padding=0):
    stride = stride or kernel
    V = F.pad(x, [padding] * 4, value=-torch.inf).unfold(3, kernel, stride).unfold(2, kernel, stride)
    return V.flatten(4).max(4).values


@wrong("max_pool2d", says="hang over at the end")
def rounds_sizes_up(x, kernel, stride=None, padding=0):
    return F.max_pool2d(x, kernel, stride, padding, ceil_mode=True)


@wrong("max_pool2d", says="no gradient reaches it")
def pools_in_numpy(x, kernel, stride=None, padding=0):
    return F.max_pool2d(x.detach(), kernel, stride, padding)


@wrong("max_pool2d", says=None)
def over_the_channels_too(x, kernel, stride=None, padding=0):
    z = F.max_pool2d(x, kernel, stride, padding)
    return z.amax(1, keepdim=True).expand_as(z)


@right("max_pool2d")
def by_gather(x, kernel, stride=None, padding=0):
    stride = stride or kernel
    V = F.pad(x, [padding] * 4, value=-torch.inf).unfold(2, kernel, stride).unfold(3, kernel, stride).flatten(4)
    return V.gather(4, V.argmax(4, keepdim=True))[..., 0]


@right("max_pool2d")
def least_of_the_dtype(x, kernel, stride=None, padding=0):
    if stride is None:
        stride = kernel
    x = F.pad(x, (padding, padding, padding, padding), value=torch.finfo(x.dtype).min)
    V = x.unfold(2, kernel, stride).unfold(3, kernel, stride)
    values, _ = torch.max(V.reshape(*V.shape[:4], -1), dim=-1)
    return values


@right("max_pool2d")
def by_loops(x, kernel, stride=None, padding=0):
    s = stride or kernel
    x = F.pad(x, [padding] * 4, value=-torch.inf)
    h, w = ((n - kernel) // s + 1 for n in x.shape[2:])
    rows = [
        torch.stack(
            [x[:, :, i * s : i * s + kernel, j * s : j * s + kernel].flatten(2).max(2).values for j in range(w)],
            -1,
        )
        for i in range(h)
    ]
    return torch.stack(rows, 2)


# ------------------------------------------------------------------------------------------------ receptive_field


@wrong("receptive_field", says="Strides multiply")
def last_stride_only(layers):
    r, j = 1, 1
    for k, s in layers:
        r = r + (k - 1) * j
        j = s
    return r


@wrong("receptive_field", says="too early")
def stride_first(layers):
    r = j = 1
    for k, s in layers:
        j *= s
        r += (k - 1) * j
    return r


@wrong("receptive_field", says="k - 1 steps")
def adds_whole_kernels(layers):
    r, j = 1, 1
    for k, s in layers:
        r += k * j
        j *= s
    return r


@wrong("receptive_field", says="Strides do not count")
def no_strides(layers):
    return 1 + sum(k - 1 for k, _ in layers)


@wrong("receptive_field", says="r begins at 0")
def from_zero(layers):
    r, j = 0, 1
    for k, s in layers:
        r += (k - 1) * j
        j *= s
    return r


@wrong("receptive_field", says="in the wrong order for this rule")
def backward_rule_forward(layers):
    r = 1
    for k, s in layers:
        r = s * (r - 1) + k
    return r


@wrong("receptive_field", says="Strides are added up")
def adds_strides(layers):
    r, j = 1, 1
    for k, s in layers:
        r += (k - 1) * j
        j += s - 1
    return r


@wrong("receptive_field", says="A tuple of 2")
def both_numbers(layers):
    r, j = 1, 1
    for k, s in layers:
        r += (k - 1) * j
        j *= s
    return r, j


@wrong("receptive_field", says="changes its input")
def empties_the_list(layers):
    r = 1
    while layers:
        k, s = layers.pop()
        r = s * (r - 1) + k
    return r


@wrong("receptive_field", says="has 0 parts")
def fails_on_nothing(layers):
    (r, j), *rest = layers
    for k, s in rest:
        r += (k - 1) * j
        j *= s
    return r


@right("receptive_field")
def from_the_end(layers):
    r = 1
    for k, s in reversed(layers):
        r = s * (r - 1) + k
    return r


@right("receptive_field")
def by_products(layers):
    strides = np.cumprod([1, *[s for _, s in layers]])
    return 1 + sum((k - 1) * int(j) for (k, _), j in zip(layers, strides, strict=False))


@right("receptive_field")
def as_a_recursion(layers):
    if not layers:
        return 1
    *before, (k, _) = layers
    j = 1
    for _, stride in before:
        j *= stride
    return as_a_recursion(before) + (k - 1) * j


# ------------------------------------------------------------------------------------------------ SmallCNN


def side_of(size):
    return ((size - 1) // 2 + 1) // 2


class _Usual(nn.Module):
    """Right, with parts to replace."""

    bias, head_bias = False, True

    def __init__(self, channels=1, size=28, classes=10, width=16, mean=False):
        super().__init__()
        self.mean = mean
        self.features = nn.Sequential(*self.layers(channels, width))
        self.head = nn.Linear(self.inputs(size, width, mean), classes, bias=self.head_bias)

    def layers(self, C, w):
        return [*self.block(C, w, 5, 2, 2), *self.block(w, 2 * w), nn.MaxPool2d(2), *self.block(2 * w, 4 * w)]

    def block(self, n_in, n_out, kernel=3, stride=1, padding=1):
        conv = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=padding, bias=self.bias)
        return [conv, nn.BatchNorm2d(n_out), nn.ReLU()]

    def inputs(self, size, width, mean):
        return 4 * width if mean else 4 * width * side_of(size) ** 2

    def forward(self, x):
        maps = self.features(x)
        return self.head(maps.mean((2, 3)) if self.mean else maps.flatten(1))


@wrong("SmallCNN", says="have no bias")
class ConvolutionsWithBias(_Usual):
    bias = True


@wrong("SmallCNN", says="no softmax at the end")
class EndsInSoftmax(_Usual):
    def forward(self, x):
        return super().forward(x).softmax(1)


@wrong("SmallCNN", says="The head gets 4w")
class FortyNinePlaces(_Usual):
    def inputs(self, size, width, mean):
        return 4 * width if mean else 4 * width * 7 * 7


@wrong("SmallCNN", says="The head gets 4w")
class QuarterOfTheSize(_Usual):
    def inputs(self, size, width, mean):
        return 4 * width if mean else 4 * width * (size // 4) ** 2


@wrong("SmallCNN", says="ten layers, in order")
class ReluBeforeBatchNorm(_Usual):
    def block(self, *args, **kwargs):
        conv, norm, relu = super().block(*args, **kwargs)
        return [conv, relu, norm]


@wrong("SmallCNN", says="stride 2 and padding 2")
class FirstWithoutStride(_Usual):
    def layers(self, C, w):
        return [*self.block(C, w, 5, 1, 2), *self.block(w, 2 * w), nn.MaxPool2d(4), *self.block(2 * w, 4 * w)]


@wrong("SmallCNN", says="belong in forward")
class FlattensInFeatures(_Usual):
    def layers(self, C, w):
        return [*super().layers(C, w), nn.Flatten()]

    def forward(self, x):
        return self.head(self.features(x))


@wrong("SmallCNN", says="nn.Sequential")
class LayersInAList(_Usual):
    def __init__(self, channels=1, size=28, classes=10, width=16, mean=False):
        nn.Module.__init__(self)
        self.mean, self.features = mean, self.layers(channels, width)
        self.head = nn.Linear(self.inputs(size, width, mean), classes)

    def forward(self, x):
        for layer in self.features:
            x = layer(x)
        return self.head(x.mean((2, 3)) if self.mean else x.flatten(1))


@wrong("SmallCNN", says="It takes the largest of each map")
class LargestForTheMean(_Usual):
    def forward(self, x):
        maps = self.features(x)
        return self.head(maps.amax((2, 3)) if self.mean else maps.flatten(1))


@wrong("SmallCNN", says=None)
class MeanOverTheChannels(_Usual):
    def forward(self, x):
        maps = self.features(x)
        return self.head(maps.mean((1, 2)) if self.mean else maps.flatten(1))


@wrong("SmallCNN", says="super().__init__() is missing")
class ForgetsSuper(_Usual):
    def __init__(self, channels=1, size=28, classes=10, width=16, mean=False):
        self.mean = mean
        self.features = nn.Sequential(*self.layers(channels, width))
        self.head = nn.Linear(self.inputs(size, width, mean), classes)


@wrong("SmallCNN", says="one logit for each class")
class AlwaysTen(_Usual):
    def __init__(self, channels=1, size=28, classes=10, width=16, mean=False):
        super().__init__(channels, size, 10, width, mean)


@wrong("SmallCNN", says="The linear layer has a bias")
class HeadWithoutBias(_Usual):
    head_bias = False


@wrong("SmallCNN", says="rounded down")
class PoolsWithPadding(_Usual):
    def layers(self, C, w):
        layers = super().layers(C, w)
        layers[6] = nn.MaxPool2d(2, ceil_mode=True)
        return layers


@right("SmallCNN")
class Inherits(_Usual):
    pass


@right("SmallCNN")
class WrittenOut(nn.Module):
    def __init__(self, channels=1, size=28, classes=10, width=16, mean=False):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 3, padding="same", bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d((2, 2), 2),
            nn.Conv2d(2 * width, 4 * width, (3, 3), padding=1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
        )
        with torch.no_grad():
            shape = self.features.eval()(torch.zeros(1, channels, size, size)).shape
        self.features.train()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) if mean else nn.Flatten()
        self.head = nn.Linear(4 * width if mean else shape[1:].numel(), classes)

    def forward(self, x):
        return self.head(self.pool(self.features(x)))


# ------------------------------------------------------------------------------------------------ occlusion_map


def grid(image, patch, stride):
    return [range(0, n - patch + 1, stride) for n in image.shape[1:]]


def lost(model, image, label, patch, stride, fill, score=lambda z: z.softmax(1)):
    rows, columns = grid(image, patch, stride)
    result = torch.zeros(len(rows), len(columns), dtype=image.dtype)
    with torch.no_grad():
        whole = score(model(image[None]))[0, label]
        for n, i in enumerate(rows):
            for m, j in enumerate(columns):
                x = image.clone()
                x[:, i : i + patch, j : j + patch] = fill
                result[n, m] = whole - score(model(x[None]))[0, label]
    return result


@wrong("occlusion_map", says="It takes logits")
def by_logits(model, image, label, patch=7, stride=3, fill=0.0):
    return lost(model, image, label, patch, stride, fill, lambda z: z)


@wrong("occlusion_map", says="sign is turned")
def what_is_won(model, image, label, patch=7, stride=3, fill=0.0):
    return -lost(model, image, label, patch, stride, fill)


@wrong("occlusion_map", says="the class that the network says")
def of_the_prediction(model, image, label, patch=7, stride=3, fill=0.0):
    return lost(model, image, int(model(image[None]).argmax()), patch, stride, fill)


@wrong("occlusion_map", says="changes its input")
def covers_the_image_itself(model, image, label, patch=7, stride=3, fill=0.0):
    rows, columns = grid(image, patch, stride)
    result = torch.zeros(len(rows), len(columns), dtype=image.dtype)
    with torch.no_grad():
        whole = model(image[None]).softmax(1)[0, label]
        for n, i in enumerate(rows):
            for m, j in enumerate(columns):
                image[:, i : i + patch, j : j + patch] = fill
                result[n, m] = whole - model(image[None]).softmax(1)[0, label]
    return result


@wrong("occlusion_map", says="squares add up")
def one_copy_for_all(model, image, label, patch=7, stride=3, fill=0.0):
    image, (rows, columns) = image.clone(), grid(image, patch, stride)
    with torch.no_grad():
        whole, result = model(image[None]).softmax(1)[0, label], []
        for i, j in itertools.product(rows, columns):
            image[:, i : i + patch, j : j + patch] = fill
            result.append(whole - model(image[None]).softmax(1)[0, label])
    return torch.stack(result).view(len(rows), len(columns))


@wrong("occlusion_map", says="fill is an argument")
def always_black(model, image, label, patch=7, stride=3, fill=0.0):
    return lost(model, image, label, patch, stride, 0.0)


@wrong("occlusion_map", says="Only the first channel")
def one_channel(model, image, label, patch=7, stride=3, fill=0.0):
    rows, columns = grid(image, patch, stride)
    with torch.no_grad():
        whole, result = model(image[None]).softmax(1)[0, label], []
        for i, j in itertools.product(rows, columns):
            x = image.clone()
            x[0, i : i + patch, j : j + patch] = fill
            result.append(whole - model(x[None]).softmax(1)[0, label])
    return torch.stack(result).view(len(rows), len(columns))


@wrong("occlusion_map", says="carries a gradient")
def with_a_graph(model, image, label, patch=7, stride=3, fill=0.0):
    rows, columns = grid(image, patch, stride)
    covered = []
    for i, j in itertools.product(rows, columns):
        x = image.clone()
        x[:, i : i + patch, j : j + patch] = fill
        covered.append(x)
    p = model(torch.stack(covered)).softmax(1)[:, label]
    return (model(image[None]).softmax(1)[0, label] - p).view(len(rows), len(columns))


@wrong("occlusion_map", says="lies wholly inside")
def hangs_over(model, image, label, patch=7, stride=3, fill=0.0):
    rows, columns = (range(0, n, stride) for n in image.shape[1:])
    with torch.no_grad():
        whole, result = model(image[None]).softmax(1)[0, label], []
        for i, j in itertools.product(rows, columns):
            x = image.clone()
            x[:, i : i + patch, j : j + patch] = fill
            result.append(whole - model(x[None]).softmax(1)[0, label])
    return torch.stack(result).view(len(rows), len(columns))


@wrong("occlusion_map", says="another mode than it came in")
def trains(model, image, label, patch=7, stride=3, fill=0.0):
    model.train()
    model(torch.stack([image, image]))
    model.eval()
    result = lost(model, image, label, patch, stride, fill)
    model.train()
    return result


@wrong("occlusion_map", says="reshape(3, 4)")
def columns_as_rows(model, image, label, patch=7, stride=3, fill=0.0):
    rows, columns = grid(image, patch, stride)
    given = lost(model, image, label, patch, stride, fill)
    return given.reshape(len(columns), len(rows))


@right("occlusion_map")
def one_by_one(model, image, label, patch=7, stride=3, fill=0.0):
    return lost(model, image, label, patch, stride, fill)


@right("occlusion_map")
def all_at_once(model, image, label, patch=7, stride=3, fill=0.0):
    rows, columns = grid(image, patch, stride)
    y, x = torch.arange(image.shape[1]), torch.arange(image.shape[2])
    down = torch.stack([(y >= i) & (y < i + patch) for i in rows])  # (rows, H)
    across = torch.stack([(x >= j) & (x < j + patch) for j in columns])  # (columns, W)
    mask = (down[:, None, :, None] & across[None, :, None, :]).flatten(0, 1)[:, None]
    covered = image[None].masked_fill(mask, fill)
    with torch.no_grad():
        p = torch.cat([image[None], covered])
        p = F.softmax(model(p), dim=1)[:, label]
    return (p[0] - p[1:]).reshape(len(rows), len(columns))


@right("occlusion_map")
@torch.no_grad()
def decorated(model, image, label, patch=7, stride=3, fill=0.0):
    whole = model(image.unsqueeze(0)).softmax(-1)[0][label].item()
    rows = []
    for i in range(0, image.shape[1] - patch + 1, stride):
        row = []
        for j in range(0, image.shape[2] - patch + 1, stride):
            x = image.detach().clone()
            x[..., i : i + patch, j : j + patch] = fill
            row.append(whole - model(x.unsqueeze(0)).softmax(-1)[0][label].item())
        rows.append(row)
    return torch.tensor(rows, dtype=image.dtype)


# ------------------------------------------------------------------------------------------------ augment


def cut(x, top, left, mirrored, shift):
    padded = F.pad(x, [shift] * 4)
    H, W = x.shape[2:]
    images = []
    for image, i, j, m in zip(padded, top, left, mirrored, strict=True):
        part = image[:, i : i + H, j : j + W]
        images.append(part.flip(2) if m else part)
    return torch.stack(images)


def drawn(n, high, generator):
    return torch.randint(high, (n,), generator=generator).tolist()


@wrong("augment", says="All pictures of the batch move alike")
def one_step_for_all(x, flip, shift, generator):
    top, left = drawn(2, 2 * shift + 1, generator)
    mirrored = flip and bool(torch.rand(1, generator=generator) < 0.5)
    return cut(x, [top] * len(x), [left] * len(x), [mirrored] * len(x), shift)


@wrong("augment", says="both included")
def never_the_last_step(x, flip, shift, generator):
    B = len(x)
    top, left = (drawn(B, max(1, 2 * shift), generator) for _ in range(2))
    mirrored = drawn(B, 2, generator) if flip else [0] * B
    return cut(x, top, left, mirrored, shift)


@wrong("augment", says="comes in at the other")
def rolls(x, flip, shift, generator):
    B = len(x)
    steps = torch.randint(-shift, shift + 1, (B, 2), generator=generator).tolist()
    mirrored = drawn(B, 2, generator) if flip else [0] * B
    moved = [torch.roll(image, step, (1, 2)) for image, step in zip(x, steps, strict=True)]
    return torch.stack([image.flip(2) if m else image for image, m in zip(moved, mirrored, strict=True)])


@wrong("augment", says="upside down")
def flips_upside_down(x, flip, shift, generator):
    B = len(x)
    top, left = (drawn(B, 2 * shift + 1, generator) for _ in range(2))
    mirrored = drawn(B, 2, generator) if flip else [0] * B
    moved = cut(x, top, left, [0] * B, shift)
    return torch.stack([image.flip(1) if m else image for image, m in zip(moved, mirrored, strict=True)])


@wrong("augment", says="generator that is given")
def global_randomness(x, flip, shift, generator):
    B = len(x)
    top, left = (torch.randint(2 * shift + 1, (B,)).tolist() for _ in range(2))
    mirrored = torch.randint(2, (B,)).tolist() if flip else [0] * B
    return cut(x, top, left, mirrored, shift)


@wrong("augment", says="one and the same step")
def along_the_diagonal(x, flip, shift, generator):
    B = len(x)
    step = drawn(B, 2 * shift + 1, generator)
    mirrored = drawn(B, 2, generator) if flip else [0] * B
    return cut(x, step, step, mirrored, shift)


@wrong("augment", says="border's values come in")
def repeats_the_edge(x, flip, shift, generator):
    B = len(x)
    top, left = (drawn(B, 2 * shift + 1, generator) for _ in range(2))
    mirrored = drawn(B, 2, generator) if flip else [0] * B
    padded = F.pad(x, [shift] * 4, mode="replicate") if shift else x
    H, W = x.shape[2:]
    images = [
        image[:, i : i + H, j : j + W].flip(2) if m else image[:, i : i + H, j : j + W]
        for image, i, j, m in zip(padded, top, left, mirrored, strict=True)
    ]
    return torch.stack(images)


@wrong("augment", says="Mirrored are all")
def flips_all(x, flip, shift, generator):
    B = len(x)
    top, left = (drawn(B, 2 * shift + 1, generator) for _ in range(2))
    return cut(x, top, left, [flip] * B, shift)


@wrong("augment", says="without being asked")
def flips_always(x, flip, shift, generator):
    B = len(x)
    top, left = (drawn(B, 2 * shift + 1, generator) for _ in range(2))
    return cut(x, top, left, drawn(B, 2, generator) if shift else [0] * B, shift)


@wrong("augment", says="channels move apart")
def each_channel_by_itself(x, flip, shift, generator):
    B, C, H, W = x.shape
    top, left = (drawn(B * C, 2 * shift + 1, generator) for _ in range(2))
    mirrored = torch.tensor(drawn(B, 2, generator) if flip else [0] * B).repeat_interleave(C).tolist()
    return cut(x.reshape(B * C, 1, H, W), top, left, mirrored, shift).reshape(x.shape)


@wrong("augment", says="returns its input")
def gives_back_the_input(x, flip, shift, generator):
    if not flip and not shift:
        return x
    B = len(x)
    top, left = (drawn(B, 2 * shift + 1, generator) for _ in range(2))
    return cut(x, top, left, drawn(B, 2, generator) if flip else [0] * B, shift)


@wrong("augment", says="about half")
def seldom_mirrored(x, flip, shift, generator):
    B = len(x)
    top, left = (drawn(B, 2 * shift + 1, generator) for _ in range(2))
    mirrored = (torch.rand(B, generator=generator) < 0.3).tolist() if flip else [0] * B
    return cut(x, top, left, mirrored, shift)


@right("augment")
def picture_by_picture(x, flip, shift, generator):
    B = len(x)
    top, left = (drawn(B, 2 * shift + 1, generator) for _ in range(2))
    mirrored = drawn(B, 2, generator) if flip else [0] * B
    return cut(x, top, left, mirrored, shift)


@right("augment")
def mirrored_first(x, flip, shift, generator):
    B, _, H, W = x.shape
    if flip:
        coin = torch.rand(B, 1, 1, 1, generator=generator) > 0.5
        x = torch.where(coin, x.flip(3), x)
    steps = torch.randint(-shift, shift + 1, (B, 2), generator=generator)
    rows = torch.arange(H) - steps[:, :1]
    columns = torch.arange(W) - steps[:, 1:]
    inside = ((rows >= 0) & (rows < H))[:, None, :, None] & ((columns >= 0) & (columns < W))[:, None, None, :]
    rows, columns = rows.clamp(0, H - 1), columns.clamp(0, W - 1)
    moved = x[torch.arange(B)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return moved * inside


@right("augment")
def from_a_view(x, flip, shift, generator):
    B, _, H, W = x.shape
    V = F.pad(x, [shift] * 4).unfold(2, H, 1).unfold(3, W, 1)  # (B, C, 2s + 1, 2s + 1, H, W)
    n = torch.arange(B)
    i, j = torch.randint(0, 2 * shift + 1, (2, B), generator=generator)
    moved = V[n, :, i, j]
    if flip:
        coin = torch.randint(0, 2, (B,), generator=generator).bool()
        moved[coin] = moved[coin].flip(-1)
    return moved


@wrong("max_pool2d", says=None)
def padded_with_minus_hundred(x, kernel, stride=None, padding=0):
    stride = stride or kernel
    V = F.pad(x, [padding] * 4, value=-100).unfold(2, kernel, stride).unfold(3, kernel, stride)
    return V.flatten(4).max(4).values


@wrong("occlusion_map", says="squares lie side by side")
def steps_of_a_patch(model, image, label, patch=7, stride=3, fill=0.0):
    return lost(model, image, label, patch, patch, fill)


@wrong("receptive_field", says=None)
def as_a_float(layers):
    r, j = 1.0, 1.0
    for k, s in layers:
        r += (k - 1) * j
        j *= s
    return r


@wrong("augment", says=None)
def integers_come_back(x, flip, shift, generator):
    B = len(x)
    top, left = (drawn(B, 2 * shift + 1, generator) for _ in range(2))
    return cut(x, top, left, drawn(B, 2, generator) if flip else [0] * B, shift).float()


@wrong("conv2d_windows", says="no bias")
def zero_bias_for_none(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    z = torch.einsum("bcijuv,ocuv->boij", view(x, weight, stride, padding), weight)
    return z + (bias.view(-1, 1, 1) if bias is not None else 1)


@right("SmallCNN")
class SizedByATrial(nn.Module):
    def __init__(self, channels=1, size=28, classes=10, width=16, mean=False):
        super().__init__()
        layers, n_in = [], channels
        for n_out, kernel, stride in ((width, 5, 2), (2 * width, 3, 1), (4 * width, 3, 1)):
            if n_out == 4 * width:
                layers.append(nn.MaxPool2d(2))
            conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(n_out), nn.ReLU()]
            n_in = n_out
        self.features, self.reduce = nn.Sequential(*layers), F.adaptive_avg_pool2d if mean else None
        side = torch.zeros(size, size)[::2, ::2].shape[0] // 2
        self.head = nn.Linear(4 * width * (1 if mean else side * side), classes)

    def forward(self, x):
        x = self.features(x)
        if self.reduce:
            x = self.reduce(x, 1)
        return self.head(torch.flatten(x, 1))
