"""Answers to modern-cnns-resnet-densenet: wrong ones named for the misconception, and right ones."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ ResidualBlock


class _Block(nn.Module):
    """Right, with parts to replace."""

    bias = False

    def __init__(self, n_in, n_out, stride=1):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=self.bias),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, stride=1, padding=1, bias=self.bias),
            nn.BatchNorm2d(n_out),
        )
        self.skip = self.shortcut(n_in, n_out, stride)

    def shortcut(self, n_in, n_out, stride):
        if stride == 1 and n_in == n_out:
            return nn.Identity()
        return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x):
        return F.relu(self.branch(x) + self.skip(x))


@wrong("ResidualBlock", says="ReLU comes before the sum")
class ReluOnTheBranch(_Block):
    def forward(self, x):
        return F.relu(self.branch(x)) + self.skip(x)


@wrong("ResidualBlock", says="last ReLU is missing")
class NoReluAtTheEnd(_Block):
    def forward(self, x):
        return self.branch(x) + self.skip(x)


@wrong("ResidualBlock", says="The skip gets what comes out of the branch")
class SkipFromTheWrongTensor(_Block):
    def forward(self, x):
        x = self.branch(x)
        return F.relu(x + self.skip(x))


@wrong("ResidualBlock", says="only where the channels change")
class ForgetsTheStride(_Block):
    def shortcut(self, n_in, n_out, stride):
        return nn.Identity() if n_in == n_out else super().shortcut(n_in, n_out, stride)


@wrong("ResidualBlock", says="stride")
class ProjectionWithoutStride(_Block):
    def shortcut(self, n_in, n_out, stride):
        if stride == 1 and n_in == n_out:
            return nn.Identity()
        return nn.Sequential(nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out))


@wrong("ResidualBlock", says="bias")
class WithBias(_Block):
    bias = True


@wrong("ResidualBlock", says="always a projection")
class AlwaysProjects(_Block):
    def shortcut(self, n_in, n_out, stride):
        return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out))


@wrong("ResidualBlock", says="lacks its batch norm")
class ProjectionWithoutNorm(_Block):
    def shortcut(self, n_in, n_out, stride):
        way = super().shortcut(n_in, n_out, stride)
        return way if isinstance(way, nn.Identity) else nn.Sequential(way[0])


@wrong("ResidualBlock", says="Both convolutions of the branch have the stride")
class StrideTwice(_Block):
    def __init__(self, n_in, n_out, stride=1):
        super().__init__(n_in, n_out, stride)
        self.branch[3] = nn.Conv2d(n_out, n_out, 3, stride=stride, padding=1, bias=False)


@wrong("ResidualBlock", says="changes its input x")
class AddsInPlace(_Block):
    def forward(self, x):
        out = self.branch(x)
        x += 0
        x.relu_()
        return F.relu(out + self.skip(x))


@wrong("ResidualBlock", says="branch is a module")
class OtherNames(nn.Module):
    def __init__(self, n_in, n_out, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv2, self.bn2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
        self.skip = nn.Identity()

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.skip(x))


@wrong("ResidualBlock", says="set anew in __init__")
class ZeroGamma(_Block):
    def __init__(self, n_in, n_out, stride=1):
        super().__init__(n_in, n_out, stride)
        nn.init.zeros_(self.branch[-1].weight)


@right("ResidualBlock")
class LayersAddedOneByOne(nn.Module):
    def __init__(self, n_in, n_out, stride=1):
        super().__init__()
        self.branch, self.skip = nn.Sequential(), nn.Identity()
        for n, step in ((n_in, stride), (n_out, 1)):
            self.branch.append(
                nn.Conv2d(n, n_out, kernel_size=(3, 3), stride=step, padding="same" if step == 1 else 1, bias=False)
            )
            self.branch.append(nn.BatchNorm2d(n_out))
            if n is n_in and len(self.branch) == 2:
                self.branch.append(nn.ReLU(inplace=True))
        if (n_in, 1) != (n_out, stride):
            self.skip = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride=(stride, stride), bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x):
        out = self.branch(x)
        out += self.skip(x)
        return out.clamp(min=0)


@right("ResidualBlock")
class LayerByLayer(_Block):
    def forward(self, x):
        z = x
        for layer in self.branch:
            z = layer(z)
        if not isinstance(self.skip, nn.Identity):
            x = self.skip[1](self.skip[0](x))
        return nn.ReLU()(torch.add(z, x))


# ------------------------------------------------------------------------------------------------ DenseBlock


class _Dense(nn.Module):
    def __init__(self, n_in, growth, count):
        super().__init__()
        self.layers = nn.ModuleList([self.layer(n_in + i * growth, growth) for i in range(count)])

    def layer(self, n, growth):
        return nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, growth, 3, padding=1, bias=False))

    def forward(self, x):
        maps = [x]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, 1)))
        return torch.cat(maps, 1)


@wrong("DenseBlock", says="in front")
class NewFirst(_Dense):
    def forward(self, x):
        for layer in self.layers:
            x = torch.cat((layer(x), x), dim=1)
        return x


@wrong("DenseBlock", says="x itself is not in the result")
class OnlyNewMaps(_Dense):
    def forward(self, x):
        new = []
        for layer in self.layers:
            new.append(layer(torch.cat([x, *new], 1)))
        return torch.cat(new, 1) if new else x[:, :0]


@wrong("DenseBlock", says="layer i gets n_in + i·growth")
class SameForAll(_Dense):
    def __init__(self, n_in, growth, count):
        nn.Module.__init__(self)
        self.layers = nn.ModuleList([self.layer(n_in, growth) for _ in range(count)])


@wrong("DenseBlock", says="convolution comes first")
class ConvolutionFirst(_Dense):
    def layer(self, n, growth):
        return nn.Sequential(nn.Conv2d(n, growth, 3, padding=1, bias=False), nn.BatchNorm2d(growth), nn.ReLU())


@wrong("DenseBlock", says="have a bias")
class ConvolutionsWithBias(_Dense):
    def layer(self, n, growth):
        return nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, growth, 3, padding=1))


@wrong("DenseBlock", says="plain list")
class InAList(_Dense):
    def __init__(self, n_in, growth, count):
        nn.Module.__init__(self)
        self.layers = [self.layer(n_in + i * growth, growth) for i in range(count)]


@wrong("DenseBlock", says="layer too many")
class OneTooMany(_Dense):
    def __init__(self, n_in, growth, count):
        super().__init__(n_in, growth, count + 1)


@wrong("DenseBlock", says=None)
class AddsLikeAResNet(_Dense):
    def forward(self, x):
        for layer in self.layers:
            z = layer(x)
            x = torch.cat([x, z + x.mean(1, keepdim=True)], 1)
        return x


@wrong("DenseBlock", says="cut from the graph")
class Detached(_Dense):
    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x.detach())], 1)
        return x


@right("DenseBlock")
class IntoOneTensor(_Dense):
    def forward(self, x):
        growth = self.layers[0][2].out_channels if len(self.layers) else 0
        out = x
        for n, layer in enumerate(self.layers):
            assert out.shape[1] == x.shape[1] + n * growth
            out = torch.concat([out, layer(out)], dim=-3)
        return out


@right("DenseBlock")
class ByHand(nn.Module):
    def __init__(self, n_in, growth, count):
        super().__init__()
        self.layers = nn.ModuleList()
        while len(self.layers) < count:
            conv = nn.Conv2d(n_in, growth, (3, 3), padding="same", bias=False)
            self.layers.append(nn.Sequential(nn.BatchNorm2d(n_in), nn.ReLU(), conv))
            n_in += growth

    def forward(self, x):
        for norm, _, conv in self.layers:
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return x


# ------------------------------------------------------------------------------------------------ conv_macs


def size(n, k, s, p):
    return (n + 2 * p - k) // s + 1


@wrong("conv_macs", says="what comes in")
def size_of_the_input(conv, height, width):
    kh, kw = conv.kernel_size
    return height * width * conv.out_channels * (conv.in_channels // conv.groups) * kh * kw


def places(conv, height, width):
    (kh, kw), (sh, sw), (ph, pw) = conv.kernel_size, conv.stride, conv.padding
    return size(height, kh, sh, ph) * size(width, kw, sw, pw)


@wrong("conv_macs", says="groups is ignored")
def no_groups(conv, height, width):
    kh, kw = conv.kernel_size
    return places(conv, height, width) * conv.out_channels * conv.in_channels * kh * kw


@wrong("conv_macs", says="for the bias")
def with_the_bias(conv, height, width):
    n = places(conv, height, width)
    return n * conv.weight.numel() + (n * conv.out_channels if conv.bias is not None else 0)


@wrong("conv_macs", says="counts the weights")
def parameters(conv, height, width):
    return conv.weight.numel()


@wrong("conv_macs", says="squares the first side")
def square_kernel(conv, height, width):
    return (
        places(conv, height, width) * conv.out_channels * (conv.in_channels // conv.groups) * conv.kernel_size[0] ** 2
    )


@wrong("conv_macs", says="kernel_size is a pair")
def square_of_a_pair(conv, height, width):
    return places(conv, height, width) * conv.out_channels * (conv.in_channels // conv.groups) * conv.kernel_size**2


@wrong("conv_macs", says="gives a float")
def as_a_float(conv, height, width):
    kh, kw = conv.kernel_size
    return places(conv, height, width) * conv.out_channels * (conv.in_channels / conv.groups) * kh * kw


@wrong("conv_macs", says="divides by groups twice")
def groups_twice(conv, height, width):
    kh, kw = conv.kernel_size
    return (
        places(conv, height, width) * (conv.out_channels // conv.groups) * (conv.in_channels // conv.groups) * kh * kw
    )


@wrong("conv_macs", says="stride[0] for both")
def one_stride(conv, height, width):
    (kh, kw), s, (ph, pw) = conv.kernel_size, conv.stride[0], conv.padding
    return size(height, kh, s, ph) * size(width, kw, s, pw) * conv.weight.numel()


@wrong("conv_macs", says="32-bit numbers overflow")
def in_32_bits(conv, height, width):
    factors = np.array([places(conv, height, width), *conv.weight.shape], dtype=np.int32)
    return int(np.prod(factors, dtype=np.int32))


@wrong("conv_macs", says="Only this large one differs")
def in_32_bit_floats(conv, height, width):
    return int(torch.tensor([places(conv, height, width), *conv.weight.shape], dtype=torch.float32).prod())


@right("conv_macs")
def by_calling_it(conv, height, width):
    return conv(torch.zeros(1, conv.in_channels, height, width)).numel() * conv.weight[0].numel()


@right("conv_macs")
def by_the_weights(conv, height, width):
    return places(conv, height, width) * conv.weight.numel()


@right("conv_macs")
def by_running_it(conv, height, width):
    with torch.no_grad():
        out = F.conv2d(
            torch.zeros(1, conv.in_channels, height, width),
            conv.weight,
            None,
            conv.stride,
            conv.padding,
            1,
            conv.groups,
        )
    return out.numel() * int(np.prod(conv.weight.shape[1:]))


# ------------------------------------------------------------------------------------------------ separable


def six(n_in, n_out, kernel, stride, **changed):
    first = {"stride": stride, "padding": kernel // 2, "groups": n_in, "bias": False} | changed
    depthwise = nn.Conv2d(n_in, n_in, kernel, **first)
    return [
        depthwise,
        nn.BatchNorm2d(n_in),
        nn.ReLU(),
        nn.Conv2d(n_in, n_out, 1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    ]


@wrong("separable", says="mixes channels")
def without_groups(n_in, n_out, kernel=3, stride=1):
    return nn.Sequential(*six(n_in, n_out, kernel, stride, groups=1))


@wrong("separable", says="padding is 1 whatever")
def padding_one(n_in, n_out, kernel=3, stride=1):
    return nn.Sequential(*six(n_in, n_out, kernel, stride, padding=1))


@wrong("separable", says="in the pointwise convolution")
def stride_later(n_in, n_out, kernel=3, stride=1):
    layers = six(n_in, n_out, kernel, 1)
    layers[3] = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False)
    return nn.Sequential(*layers)


@wrong("separable", says="between the two convolutions is missing")
def no_inner_relu(n_in, n_out, kernel=3, stride=1):
    layers = six(n_in, n_out, kernel, stride)
    return nn.Sequential(*layers[:2], *layers[3:])


@wrong("separable", says="last ReLU")
def no_last_relu(n_in, n_out, kernel=3, stride=1):
    return nn.Sequential(*six(n_in, n_out, kernel, stride)[:5])


@wrong("separable", says="a bias")
def with_bias(n_in, n_out, kernel=3, stride=1):
    return nn.Sequential(*six(n_in, n_out, kernel, stride, bias=True))


@wrong("separable", says="pointwise convolution comes first")
def pointwise_first(n_in, n_out, kernel=3, stride=1):
    pointwise = nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
    depthwise = nn.Conv2d(n_out, n_out, kernel, stride, kernel // 2, groups=n_out, bias=False)
    return nn.Sequential(*pointwise, depthwise, nn.BatchNorm2d(n_out), nn.ReLU())


@wrong("separable", says="takes 3 whatever")
def always_three(n_in, n_out, kernel=3, stride=1):
    return nn.Sequential(*six(n_in, n_out, 3, stride))


@right("separable")
def appended(n_in, n_out, kernel=3, stride=1):
    model = nn.Sequential()
    for n, settings in ((n_in, (kernel, stride, kernel // 2, 1, n_in)), (n_out, (1,))):
        model.append(nn.Conv2d(n_in, n, *settings, bias=False)).append(nn.BatchNorm2d(n)).append(nn.ReLU(inplace=True))
    return model


@right("separable")
class AClass(nn.Sequential):
    def __init__(self, n_in, n_out, kernel=3, stride=1):
        super().__init__(*six(n_in, n_out, kernel, stride, padding=(kernel - 1) // 2))


# ------------------------------------------------------------------------------------------------ SqueezeExcite


class _Excite(nn.Module):
    bias = True

    def __init__(self, channels, squeezed):
        super().__init__()
        self.down = nn.Linear(channels, squeezed, bias=self.bias)
        self.up = nn.Linear(squeezed, channels, bias=self.bias)

    def gates(self, x):
        return torch.sigmoid(self.up(F.relu(self.down(x.mean(dim=(2, 3))))))

    def forward(self, x):
        return x * self.gates(x)[:, :, None, None]


@wrong("SqueezeExcite", says="ReLU between")
class NoRelu(_Excite):
    def gates(self, x):
        return torch.sigmoid(self.up(self.down(x.mean((2, 3)))))


@wrong("SqueezeExcite", says="sigmoid is missing")
class NoSigmoid(_Excite):
    def gates(self, x):
        return self.up(F.relu(self.down(x.mean((2, 3)))))


@wrong("SqueezeExcite", says="softmax")
class ByAttention(_Excite):
    def gates(self, x):
        return self.up(F.relu(self.down(x.mean((2, 3))))).softmax(1)


@wrong("SqueezeExcite", says="no bias")
class WithoutBias(_Excite):
    bias = False


@wrong("SqueezeExcite", says="gates themselves come back")
class OnlyTheGates(_Excite):
    def forward(self, x):
        return self.gates(x)


@wrong("SqueezeExcite", says="two more axes")
class MeetsTheWrongAxes(_Excite):
    def forward(self, x):
        return x * self.gates(x)


@wrong("SqueezeExcite", says="changes its input x")
class InPlace(_Excite):
    def forward(self, x):
        x *= self.gates(x)[:, :, None, None].detach()
        return x


@wrong("SqueezeExcite", says="the mean")
class LargestOfEach(_Excite):
    def gates(self, x):
        return torch.sigmoid(self.up(F.relu(self.down(x.flatten(2).max(2).values))))


@wrong("SqueezeExcite", says="over the batch")
class OneForTheBatch(_Excite):
    def gates(self, x):
        s = x.mean((0, 2, 3), keepdim=True)[:, :, 0, 0]
        return torch.sigmoid(self.up(F.relu(self.down(s))))


@wrong("SqueezeExcite", says=None)
class MeanOverChannels(_Excite):
    def gates(self, x):
        s = x.mean(1).flatten(1)[:, :1].expand(-1, x.shape[1])
        return torch.sigmoid(self.up(F.relu(self.down(s))))


@right("SqueezeExcite")
class ByEinsum(_Excite):
    def forward(self, x):
        s = F.adaptive_avg_pool2d(x, 1).flatten(1)
        g = (self.down(s).clamp(min=0) @ self.up.weight.T + self.up.bias).sigmoid()
        return torch.einsum("bchw,bc->bchw", x, g)


@right("SqueezeExcite")
class ImageByImage(_Excite):
    def forward(self, x):
        out = []
        for image in x:
            g = 1 / (1 + torch.exp(-self.up(torch.relu(self.down(image.flatten(1).mean(1))))))
            out.append(image * g.view(-1, 1, 1))
        return torch.stack(out)


# ------------------------------------------------------------------------------------------------ fold_batch_norm


def folded(conv, weight, bias):
    new = copy.deepcopy(conv)
    new.weight, new.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return new


def own(conv, norm):
    return torch.zeros_like(norm.running_mean) if conv.bias is None else conv.bias


@wrong("fold_batch_norm", says="ε is missing")
def no_epsilon(conv, norm):
    f = norm.weight / norm.running_var.sqrt()
    return folded(conv, conv.weight * f.view(-1, 1, 1, 1), norm.bias + f * (own(conv, norm) - norm.running_mean))


@wrong("fold_batch_norm", says="divides by the variance")
def variance(conv, norm):
    f = norm.weight / (norm.running_var + norm.eps)
    return folded(conv, conv.weight * f.view(-1, 1, 1, 1), norm.bias + f * (own(conv, norm) - norm.running_mean))


@wrong("fold_batch_norm", says="own bias is lost")
def no_own_bias(conv, norm):
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return folded(conv, conv.weight * f.view(-1, 1, 1, 1), norm.bias - f * norm.running_mean)


@wrong("fold_batch_norm", says="own bias is not scaled")
def bias_not_scaled(conv, norm):
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return folded(conv, conv.weight * f.view(-1, 1, 1, 1), own(conv, norm) + norm.bias - f * norm.running_mean)


@wrong("fold_batch_norm", says="input channels")
def wrong_axis(conv, norm):
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return folded(conv, conv.weight * f.view(1, -1, 1, 1), norm.bias + f * (own(conv, norm) - norm.running_mean))


@wrong("fold_batch_norm", says="is lost")
def forgets_settings(conv, norm):
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    new = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, groups=conv.groups
    )
    new = new.to(conv.weight.dtype)
    new.weight.data = conv.weight.data * f.data.view(-1, 1, 1, 1)
    new.bias.data = (norm.bias + f * (own(conv, norm) - norm.running_mean)).data
    return new


@wrong("fold_batch_norm", says="conv")
def in_place(conv, norm):
    f = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    bias = own(conv, norm).detach()
    conv.weight.data *= f.view(-1, 1, 1, 1)
    conv.bias = nn.Parameter(norm.bias.detach() + f * (bias - norm.running_mean))
    return conv


@wrong("fold_batch_norm", says="conv itself is given a bias")
def gives_conv_a_bias(conv, norm):
    if conv.bias is None:
        conv.bias = nn.Parameter(torch.zeros_like(norm.running_mean))
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return folded(conv, conv.weight * f.view(-1, 1, 1, 1), norm.bias + f * (conv.bias - norm.running_mean))


@wrong("fold_batch_norm", says="as it was handed in")
def not_thought_of_none(conv, norm):
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return folded(conv, conv.weight * f.view(-1, 1, 1, 1), norm.bias + f * (conv.bias - norm.running_mean))


@wrong("fold_batch_norm", says="32-bit")
def usual_dtype(conv, norm):
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    new = nn.Conv2d(
        *(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    )
    new.weight.data.copy_(conv.weight * f.view(-1, 1, 1, 1))
    new.bias.data.copy_(norm.bias + f * (own(conv, norm) - norm.running_mean))
    return new


@wrong("fold_batch_norm", says="β is missing")
def no_shift(conv, norm):
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return folded(conv, conv.weight * f.view(-1, 1, 1, 1), f * (own(conv, norm) - norm.running_mean))


@wrong("fold_batch_norm", says=None)
def no_parameter_but_a_graph(conv, norm):
    f = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    new = copy.deepcopy(conv)
    del new.weight, new.bias
    new.weight = conv.weight * f.view(-1, 1, 1, 1)
    new.bias = norm.bias + f * (own(conv, norm) - norm.running_mean)
    return new


@right("fold_batch_norm")
def by_torch(conv, norm):
    mode = norm.training
    new = torch.nn.utils.fusion.fuse_conv_bn_eval(copy.deepcopy(conv).eval(), copy.deepcopy(norm).eval())
    assert norm.training == mode
    return new


@right("fold_batch_norm")
def made_anew(conv, norm):
    gamma, beta, mean = norm.weight.detach(), norm.bias.detach(), norm.running_mean
    std = (norm.running_var + norm.eps) ** 0.5
    new = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        for o in range(conv.out_channels):
            new.weight[o] = conv.weight[o] * (gamma[o] / std[o])
            b = 0.0 if conv.bias is None else conv.bias[o]
            new.bias[o] = (b - mean[o]) / std[o] * gamma[o] + beta[o]
    return new


# ------------------------------------------------------------------------------------------------ patchify


def checked(x, patch):
    if x.shape[2] % patch or x.shape[3] % patch:
        raise ValueError("does not fit")
    B, C, H, W = x.shape
    return x.reshape(B, C, H // patch, patch, W // patch, patch)


@wrong("patchify", says="without changing their order")
def only_reshaped(x, patch):
    B, C, H, W = x.shape
    checked(x, patch)
    return x.reshape(B, (H // patch) * (W // patch), C * patch * patch)


@wrong("patchify", says="channels come first")
def channels_last(x, patch):
    return checked(x, patch).permute(0, 2, 4, 3, 5, 1).reshape(len(x), -1, x.shape[1] * patch**2)


@wrong("patchify", says="column by column")
def columns_first(x, patch):
    return checked(x, patch).permute(0, 4, 2, 1, 3, 5).reshape(len(x), -1, x.shape[1] * patch**2)


@wrong("patchify", says="raise ValueError")
def never_refuses(x, patch):
    return F.unfold(x, patch, stride=patch).transpose(1, 2)


@wrong("patchify", says="swapped")
def no_transpose(x, patch):
    checked(x, patch)
    return F.unfold(x, patch, stride=patch)


@wrong("patchify", says="four axes")
def grid_stays(x, patch):
    return checked(x, patch).permute(0, 2, 4, 1, 3, 5).flatten(3)


@wrong("patchify", says="diagonal")
def transposed_patches(x, patch):
    return checked(x, patch).permute(0, 2, 4, 1, 5, 3).reshape(len(x), -1, x.shape[1] * patch**2)


@wrong("patchify", says="H % patch or W % patch")
def looks_at_the_height(x, patch):
    if x.shape[2] % patch:
        raise ValueError
    return F.unfold(x, patch, stride=patch).mT


@wrong("patchify", says="ValueError")
def asserts(x, patch):
    assert x.shape[2] % patch == 0 and x.shape[3] % patch == 0
    return F.unfold(x, patch, stride=patch).mT


@right("patchify")
def by_slices(x, patch):
    _, _, H, W = x.shape
    if H % patch or W % patch:
        raise ValueError
    rows = [x[:, :, i : i + patch, j : j + patch].flatten(1) for i in range(0, H, patch) for j in range(0, W, patch)]
    return torch.stack(rows, 1)


@right("patchify")
def by_unfold(x, patch):
    if any(n % patch for n in x.shape[2:]):
        raise ValueError("H and W must be multiples of patch")
    V = x.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, C, h, w, p, p)
    return torch.einsum("bcijuv->bijcuv", V).flatten(1, 2).flatten(2)


# ------------------------------------------------------------------------------------------------ ViTEmbedding


class _Embed(nn.Module):
    def __init__(self, channels, size, patch, width):
        super().__init__()
        self.patch, n = patch, (size // patch) ** 2
        self.project = nn.Linear(channels * patch * patch, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, n + 1, width) * 0.02)

    def patches(self, x):
        return self.project(by_slices(x, self.patch))

    def forward(self, x):
        return torch.cat([self.cls.repeat(len(x), 1, 1), self.patches(x)], dim=1) + self.positions


@wrong("ViTEmbedding", says="first")
class ClassTokenLast(_Embed):
    def forward(self, x):
        return torch.cat([self.patches(x), self.cls.repeat(len(x), 1, 1)], dim=1) + self.positions


@wrong("ViTEmbedding", says="one class token for the whole batch")
class OneForAll(_Embed):
    def forward(self, x):
        return torch.cat([self.cls, self.patches(x)], dim=1) + self.positions


@wrong("ViTEmbedding", says="not added")
class NoPositions(_Embed):
    def forward(self, x):
        return torch.cat([self.cls.repeat(len(x), 1, 1), self.patches(x)], dim=1)


@wrong("ViTEmbedding", says="no position for the class token")
class PositionsForPatches(_Embed):
    def __init__(self, channels, size, patch, width):
        super().__init__(channels, size, patch, width)
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)

    def forward(self, x):
        return torch.cat([self.cls.repeat(len(x), 1, 1), self.patches(x) + self.positions], dim=1)


@wrong("ViTEmbedding", says="nn.Parameter")
class PlainTensors(_Embed):
    def __init__(self, channels, size, patch, width):
        super().__init__(channels, size, patch, width)
        del self.cls, self.positions
        self.cls = torch.zeros(1, 1, width)
        self.positions = 0.02 * torch.randn(1, 1 + (size // patch) ** 2, width)


@wrong("ViTEmbedding", says="not 0.02")
class LargePositions(_Embed):
    def __init__(self, channels, size, patch, width):
        super().__init__(channels, size, patch, width)
        self.positions = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, width))


@wrong("ViTEmbedding", says="All positions begin alike")
class OnePositionForAll(_Embed):
    def __init__(self, channels, size, patch, width):
        super().__init__(channels, size, patch, width)
        self.positions = nn.Parameter((0.02 * torch.randn(1, 1, width)).repeat(1, 1 + (size // patch) ** 2, 1))


@wrong("ViTEmbedding", says="All entries of a position begin alike")
class OneNumberForAPosition(_Embed):
    def __init__(self, channels, size, patch, width):
        super().__init__(channels, size, patch, width)
        self.positions = nn.Parameter((0.02 * torch.randn(1, 1 + (size // patch) ** 2, 1)).repeat(1, 1, width))


@wrong("ViTEmbedding", says="One of the positions begins at 0")
class NoPositionForTheClassToken(_Embed):
    def __init__(self, channels, size, patch, width):
        super().__init__(channels, size, patch, width)
        nn.init.zeros_(self.positions.data[:, 0])


@wrong("ViTEmbedding", says="begins at 0")
class RandomClassToken(_Embed):
    def __init__(self, channels, size, patch, width):
        super().__init__(channels, size, patch, width)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, width))


@wrong("ViTEmbedding", says="no position")
class PositionsBeforeTheClassToken(_Embed):
    def forward(self, x):
        return torch.cat([self.cls.repeat(len(x), 1, 1), self.patches(x) + self.positions[:, 1:]], dim=1)


@wrong("ViTEmbedding", says=None)
class AlwaysOneChannel(_Embed):
    def __init__(self, channels, size, patch, width):
        super().__init__(1, size, patch, width)


@right("ViTEmbedding")
class WrittenInto(_Embed):
    def forward(self, x):
        t = self.project(F.unfold(x, self.patch, stride=self.patch).mT)
        first = (self.cls + self.positions[:, :1]).expand(x.shape[0], 1, t.shape[2])
        return torch.hstack([first, t + self.positions[:, 1:]])


@right("ViTEmbedding")
class InitialisedInPlace(nn.Module):
    def __init__(self, channels, size, patch, width):
        super().__init__()
        self.side = patch
        self.project = nn.Linear(channels * patch**2, width)
        self.cls = nn.Parameter(torch.empty(1, 1, width).zero_())
        self.positions = nn.Parameter(torch.empty(1, 1 + size // patch * (size // patch), width))
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, x):
        t = torch.einsum("bnk,dk->bnd", by_unfold(x, self.side), self.project.weight) + self.project.bias
        ones = torch.ones(x.shape[0], 1, 1, dtype=x.dtype)
        return torch.cat((ones * self.cls, t), 1).add(self.positions)


# ------------------------------------------------------------------------------------------------ build


class Plain(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, stride, 1)

    def forward(self, x):
        return self.conv(x)


BLOCKS = {"plain": Plain}
for _key, _name in (("residual", "Residual"), ("dense", "Dense"), ("separable", "Separable"), ("mbconv", "MBConv")):
    BLOCKS[_key] = type(_name, (Plain,), {})


def known(name):
    if name not in BLOCKS:
        raise ValueError(f"unknown: {name}")
    return BLOCKS[name]


def stem(channels, width):
    return [nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def head(n, classes):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, classes)]


def chain(block, width, depth, stride=lambda s, n: 2 if s > 0 and n == 0 else 1):
    n_in, made = width, []
    for s in range(3):
        for n in range(depth):
            made.append(block(n_in, width * 2**s, stride(s, n)))
            n_in = width * 2**s
    return made


@wrong("build", says="first stage has a stride")
def stride_everywhere(name, width, depth, channels=1, classes=10):
    blocks = chain(known(name), width, depth, lambda s, n: 2 if n == 0 else 1)
    return nn.Sequential(*stem(channels, width), *blocks, *head(4 * width, classes))


@wrong("build", says="Every block of stages 1 and 2")
def stride_for_all(name, width, depth, channels=1, classes=10):
    blocks = chain(known(name), width, depth, lambda s, n: 2 if s else 1)
    return nn.Sequential(*stem(channels, width), *blocks, *head(4 * width, classes))


@wrong("build", says="a list of names of its own")
def names_of_its_own(name, width, depth, channels=1, classes=10):
    if name not in ("plain", "residual", "dense", "separable", "mbconv"):
        raise ValueError(name)
    return nn.Sequential(*stem(channels, width), *chain(BLOCKS[name], width, depth), *head(4 * width, classes))


@wrong("build", says="ValueError for 'vit'")
def others_become_residual(name, width, depth, channels=1, classes=10):
    block = known("residual" if name in ("vit", "small-cnn") else name)
    return nn.Sequential(*stem(channels, width), *chain(block, width, depth), *head(4 * width, classes))


@wrong("build", says="KeyError")
def key_error(name, width, depth, channels=1, classes=10):
    return nn.Sequential(*stem(channels, width), *chain(BLOCKS[name], width, depth), *head(4 * width, classes))


@wrong("build", says="gets those of the part before it")
def never_updates(name, width, depth, channels=1, classes=10):
    block, made = known(name), []
    for s in range(3):
        for n in range(depth):
            made.append(block(width * 2**s, width * 2**s, 2 if s and not n else 1))
    return nn.Sequential(*stem(channels, width), *made, *head(4 * width, classes))


@wrong("build", says="has a bias")
def stem_with_bias(name, width, depth, channels=1, classes=10):
    first = nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()
    return nn.Sequential(*first, *chain(known(name), width, depth), *head(4 * width, classes))


@wrong("build", says="classes is an argument")
def ten_classes(name, width, depth, channels=1, classes=10):
    return nn.Sequential(*stem(channels, width), *chain(known(name), width, depth), *head(4 * width, 10))


@wrong("build", says="channels is an argument")
def grey_only(name, width, depth, channels=1, classes=10):
    return nn.Sequential(*stem(1, width), *chain(known(name), width, depth), *head(4 * width, classes))


@wrong("build", says="made anew")
def one_block_again_and_again(name, width, depth, channels=1, classes=10):
    block, made, n_in = known(name), [], width
    for s in range(3):
        made.append(block(n_in, width * 2**s, 2 if s else 1))
        n_in = width * 2**s
        made += [block(n_in, n_in, 1)] * (depth - 1)
    return nn.Sequential(*stem(channels, width), *made, *head(4 * width, classes))


@wrong("build", says="channels are width·(s + 1)")
def grows_linearly(name, width, depth, channels=1, classes=10):
    block, made, n_in = known(name), [], width
    for s in range(3):
        for n in range(depth):
            made.append(block(n_in, width * (s + 1), 2 if s and not n else 1))
            n_in = width * (s + 1)
    return nn.Sequential(*stem(channels, width), *made, *head(n_in, classes))


@right("build")
def by_a_list_of_channels(name, width, depth, channels=1, classes=10):
    try:
        block = BLOCKS[name]
    except KeyError:
        raise ValueError(name) from None
    channel = [width] + [width * f for f in (1, 2, 4) for _ in range(depth)]
    strides = [2 if i in (depth, 2 * depth) else 1 for i in range(3 * depth)]
    blocks = [block(a, b, s) for a, b, s in zip(channel, channel[1:], strides, strict=False)]
    return nn.Sequential(*stem(channels, width), *blocks, *head(channel[-1], classes))


@right("build")
def appended_stage_by_stage(name, width, depth, channels=1, classes=10):
    if name not in list(BLOCKS):
        raise ValueError("no such block")
    model = nn.Sequential(*stem(channels, width))
    model.extend([BLOCKS[name](width, width, 1) for _ in range(depth)])
    for n in (width, 2 * width):
        model.append(BLOCKS[name](n, 2 * n, stride=2))
        for _ in range(1, depth):
            model.append(BLOCKS[name](2 * n, 2 * n, stride=1))
    return model.extend(head(4 * width, classes))
