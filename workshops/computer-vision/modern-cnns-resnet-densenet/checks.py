"""The checks of modern-cnns-resnet-densenet: one for each exercise, with its hints. `lab.check` runs them.

Each block is held to the same layers of torch put together here, with the same weights: values in both modes, running
statistics, gradients of all parameters. Folding is held to batch norm itself, patches to torch's unfold, counts to the
shapes of torch's own results.
"""

import copy
import inspect
import re

import numpy as np
import torch
from torch import nn

from atlas.checking import Complaint, agree, among, exercise, expect, floats, gradients, module_gradients, parts, tensor


def _draw(rng, *shape):
    return torch.tensor(rng.normal(size=shape), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ modules


def _shapes(model):
    """Name → shape of all that a module keeps."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def _why_shapes(yours, theirs):
    """What a difference between two tables of shapes comes from, most telling first."""
    missing = [name for name in theirs if name not in yours]
    extra = [name for name in yours if name not in theirs]
    if not yours:
        return "It holds no weights: layers belong in attributes made in __init__, not in plain lists, not in forward."
    if (
        missing
        and extra
        and {re.sub(r"^\w+", "", name) for name in missing} == {re.sub(r"^\w+", "", name) for name in extra}
    ):
        return f"Attributes have other names: {extra[0]} here, {missing[0]} in the docstring."
    if extra and not missing and all(name.endswith(".bias") for name in extra):
        return f"{extra[0]}: the convolutions have no bias (bias=False); batch norm has one of its own."
    if missing and not extra and all(name.endswith(".bias") for name in missing):
        return f"{missing[0]} is missing: the linear layers have a bias."
    if missing:
        return f"{missing[0]} is missing. It holds {', '.join(list(yours)[:4])}, ... Which layer comes where?"
    if extra:
        return f"{extra[0]} is one too many: the docstring has no such layer here."
    name = next(name for name in theirs if yours[name] != theirs[name])
    return f"{name} has shape {yours[name]}, not {theirs[name]}."


def _same_weights(model, theirs, said):
    """Demand the same names and shapes; then give both the same telling values, no 0, no 1, variances positive."""
    yours, wanted = _shapes(model), _shapes(theirs)
    lines = [
        f"{mark} {name} {table.get(name, '')}"
        for mark, table, other in (("yours   ", yours, wanted), ("expected", wanted, yours))
        for name in table
        if table[name] != other.get(name)
    ]
    why = f"weights of the names and shapes that the docstring gives, {said}"
    expect.true(yours == wanted, why, *lines[:6], likely=lambda: _why_shapes(yours, wanted))
    _learning(model, said)


def _filled(model, theirs, rng):
    """The model in double precision with the weights of `theirs`, which are drawn anew."""
    for name, values in theirs.state_dict().items():
        if values.is_floating_point():
            drawn = rng.uniform(0.5, 1.5, size=tuple(values.shape)) * rng.choice([-1, 1], size=tuple(values.shape))
            values.copy_(torch.tensor(np.abs(drawn) if name.endswith("var") else drawn))
    model = model.double()
    model.load_state_dict(theirs.state_dict())
    return model


def _same_module(model, theirs, x, rng, said, source="the same layers by torch"):
    """Demand values in both modes, running statistics, one image alone, another size, and all gradients."""
    model = _filled(model, theirs, rng)
    before = x.clone()
    for training in (False, True):
        model.train(training), theirs.train(training)
        why = f"values in {'training' if training else 'evaluation'}, {said}"
        given = model(x)
        tensor(given, why)
        expect.close(given, theirs(x).detach(), why=why, source=source, rtol=1e-5, dtype=x)
        expect.true(torch.equal(x, before), f"x is not changed, {said}", likely="An operation in place writes into x.")
    for name, wanted in theirs.state_dict().items():
        if "running" in name or "tracked" in name:
            why = f"{name} after one pass in training, {said}"
            likely = "Does each layer run once in forward, and has batch norm its usual momentum?"
            expect.close(model.state_dict()[name].double(), wanted.double(), why=why, source=source, likely=likely)
    model.eval(), theirs.eval()
    for part, words in ((x[:1], "one image alone"), (x[..., : x.shape[3] - 2], "maps of another width")):
        if words == "one image alone" or not isinstance(theirs, _Embedding):
            given, why = model(part), f"{words}, {said}"
            expect.close(given, theirs(part).detach(), why=why, source=source, rtol=1e-5)
    module_gradients(model, theirs, x, rng, why=f"gradients reach every weight, {said}")


def _learning(model, said):
    """Demand that all weights learn."""
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    likely = "requires_grad=False keeps them from learning: leave it out."
    expect.true(not frozen, f"all weights learn, {said}", f"frozen   {', '.join(frozen[:4])}", likely=likely)


def _as_made(model, theirs, said):
    """Demand that the weights begin as torch makes them: constant where torch's are, and only there."""
    mine = model.state_dict()
    for name, values in theirs.state_dict().items():
        constant = values.numel() > 1 and bool((values == values.flatten()[0]).all())
        alike = bool((mine[name] == (values.flatten()[0] if constant else mine[name].flatten()[0])).all())
        likely = f"{name} is set anew in __init__: leave it as torch makes it."
        expect.true(
            alike == constant or values.numel() < 2, f"weights begin as PyTorch makes them, {said}", likely=likely
        )


def _apart(learner, *settings):
    """Demand that two modules share no weights."""
    first, second = learner(*settings), learner(*settings)
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    likely = "Make the layers in __init__ (self. ...), not in the class's body and not as a default argument."
    expect.true(not shared, "two instances share no weights", likely=likely)


def _layer(layer):
    """A layer in words: its class and what matters of its settings."""
    if isinstance(layer, nn.Conv2d):
        more = f", groups={layer.groups}" if layer.groups > 1 else ""
        sizes = f"{layer.in_channels}, {layer.out_channels}, {layer.kernel_size}, stride={layer.stride}"
        return f"Conv2d({sizes}, padding={layer.padding}{more}, bias={layer.bias is not None})"
    return type(layer).__name__


def _layers(given, wanted, why):
    """Demand an nn.Sequential of layers of the same classes, in order, and of the same settings where they convolve."""
    likely = "A list comes back or is kept: nn.Sequential(*layers)." if isinstance(given, list | tuple) else ""
    expect.kind(given, nn.Sequential, f"{why}: an nn.Sequential", likely=likely)
    yours, expected = ([_layer(layer) for layer in each] for each in (given, wanted))
    padded = [
        each.replace("padding=same", f"padding={wanted[n].padding}") if n < len(wanted) and "same" in each else each
        for n, each in enumerate(yours)
    ]
    kinds = [[each.partition("(")[0] for each in side] for side in (padded, expected)]
    lines = f"yours    {', '.join(kinds[0])}", f"expected {', '.join(kinds[1])}"
    expect.true(kinds[0] == kinds[1], f"{why}: its layers, in order", *lines)
    for n, (mine, theirs) in enumerate(zip(padded, expected, strict=True)):
        lines = f"yours    {mine}", f"expected {theirs}"
        expect.true(mine == theirs, f"{why}: layer {n}", *lines, likely=_other_setting(given[n], wanted[n]))


def _other_setting(yours, wanted):
    """What differs between two convolutions, in a sentence."""
    for name in ("groups", "stride", "padding", "kernel_size", "in_channels", "out_channels"):
        mine, theirs = getattr(yours, name, None), getattr(wanted, name, None)
        if mine != theirs and mine != "same":
            return f"Its {name} is {mine}, not {theirs}."
    if isinstance(wanted, nn.Conv2d) and (yours.bias is None) != (wanted.bias is None):
        return "The convolutions have no bias here: bias=False."
    return ""


# ------------------------------------------------------------------------------------------------ ResidualBlock


def _branch(n_in, n_out, stride, **first):
    settings = {"kernel_size": 3, "stride": stride, "padding": 1, "bias": False} | first
    convs = nn.Conv2d(n_in, n_out, **settings), nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
    return [convs[0], nn.BatchNorm2d(n_out), nn.ReLU(), convs[1], nn.BatchNorm2d(n_out)]


def _way(n_in, n_out, stride, wanted=None, **changed):
    """The skip; wanted: whether there is a projection, by default where the shape changes."""
    if not (stride != 1 or n_in != n_out if wanted is None else wanted):
        return nn.Identity()
    settings = {"kernel_size": 1, "stride": stride, "bias": False} | changed
    return nn.Sequential(nn.Conv2d(n_in, n_out, **settings), nn.BatchNorm2d(n_out))


@parts
class _Residual(nn.Module):
    def __init__(self, n_in, n_out, stride=1):
        super().__init__()
        self.branch = nn.Sequential(*self.layers(n_in, n_out, stride))
        self.skip = self.way(n_in, n_out, stride)

    def layers(self, n_in, n_out, stride):
        return _branch(n_in, n_out, stride)

    def way(self, n_in, n_out, stride):
        return _way(n_in, n_out, stride)

    def join(self, x):
        return torch.relu(self.branch(x) + self.skip(x))

    def forward(self, x):
        return self.join(x)


_EITHER = "The skip is a projection where the stride is not 1 OR the channels change; else nn.Identity."


def _with_relu_at_the_end(self, n_in, n_out, stride):
    return [*_branch(n_in, n_out, stride), nn.ReLU()]


def _stride_in_both(self, n_in, n_out, stride):
    convs = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.Conv2d(n_out, n_out, 3, stride, 1, bias=False)
    return [convs[0], nn.BatchNorm2d(n_out), nn.ReLU(), convs[1], nn.BatchNorm2d(n_out)]


def _stride_in_the_second(self, n_in, n_out, stride):
    convs = nn.Conv2d(n_in, n_out, 3, 1, 1, bias=False), nn.Conv2d(n_out, n_out, 3, stride, 1, bias=False)
    return [convs[0], nn.BatchNorm2d(n_out), nn.ReLU(), convs[1], nn.BatchNorm2d(n_out)]


@exercise(
    hints=[
        "Two attributes. In forward both get x itself; the ReLU comes after the sum.",
        "nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False) is the branch's first layer, only it has the stride. The "
        "skip needs a projection if stride != 1 or n_in != n_out.",
        "self.skip = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)), or "
        "nn.Identity(); forward: return torch.relu(self.branch(x) + self.skip(x))",
    ],
    mistakes=_Residual.mistakes(
        join={
            "The skip is missing: what the branch gives and skip(x) are added.": lambda self, x: torch.relu(
                self.branch(x)
            ),
            "ReLU comes before the sum: it belongs around it, relu(branch(x) + skip(x)).": lambda self, x: (
                torch.relu(self.branch(x)) + self.skip(x)
            ),
            "The last ReLU is missing: relu(branch(x) + skip(x)).": lambda self, x: self.branch(x) + self.skip(x),
            "There is a ReLU more than needed, around the branch: one, after the sum.": lambda self, x: torch.relu(
                torch.relu(self.branch(x)) + self.skip(x)
            ),
            "x goes through ReLU before the skip: both paths get x itself.": lambda self, x: torch.relu(
                self.branch(x) + self.skip(torch.relu(x))
            ),
            "Both paths get ReLU(x): they get x itself.": lambda self, x: torch.relu(
                self.branch(torch.relu(x)) + self.skip(torch.relu(x))
            ),
            "The skip gets what comes out of the branch; it gets x.": lambda self, x: torch.relu(
                (z := self.branch(x)) + self.skip(z)
            ),
            "The branch gets what comes out of the skip; it gets x.": lambda self, x: torch.relu(
                self.branch(self.skip(x)) + self.skip(x)
            ),
            "x itself is added, not skip(x): where shapes change they do not fit.": lambda self, x: torch.relu(
                self.branch(x) + x
            ),
            "The skip is taken away; it is added.": lambda self, x: torch.relu(self.branch(x) - self.skip(x)),
            "Branch and skip are concatenated, as DenseNet does; here they are added.": lambda self, x: torch.relu(
                torch.cat([self.branch(x), self.skip(x)], 1)
            ),
            "The skip's gradient is cut: no detach, no no_grad.": lambda self, x: torch.relu(
                self.branch(x) + self.skip(x).detach()
            ),
            "The mean of both is taken; they are added.": lambda self, x: torch.relu(
                (self.branch(x) + self.skip(x)) / 2
            ),
        },
        layers={
            "The branch ends in a ReLU: its last layer is batch norm, for it must be able to take away.": (
                _with_relu_at_the_end
            ),
            "Both convolutions of the branch have the stride: only the first has it.": _stride_in_both,
            "The second convolution has the stride: it belongs to the first.": _stride_in_the_second,
            "The branch has no stride: its first convolution takes it.": lambda self, n_in, n_out, stride: _branch(
                n_in, n_out, 1
            ),
            "The ReLU between the convolutions is missing.": lambda self, n_in, n_out, stride: [
                layer for layer in _branch(n_in, n_out, stride) if not isinstance(layer, nn.ReLU)
            ],
            "The first convolution has no padding: 3 × 3 needs padding 1.": lambda self, n_in, n_out, stride: _branch(
                n_in, n_out, stride, padding=0
            ),
            "A ReLU stands before the batch norm: convolution, batch norm, ReLU.": lambda self, n_in, n_out, stride: [
                (each := _branch(n_in, n_out, stride))[0],
                *(each[2], each[1], each[3], each[4]),
            ],
            "The first convolution of the branch has a bias; batch norm has one of its own: bias=False.": (
                lambda self, n_in, n_out, stride: _branch(n_in, n_out, stride, bias=True)
            ),
        },
        way={
            "The skip is always the identity: where stride or channels change x does not fit.": (
                lambda self, n_in, n_out, stride: nn.Identity()
            ),
            "The skip is always a projection: where the shape stays it is nn.Identity().": (
                lambda self, n_in, n_out, stride: _way(n_in, n_out, stride, True)
            ),
            f"There is a projection only where the channels change. {_EITHER}": lambda self, n_in, n_out, stride: _way(
                n_in, n_out, stride, n_in != n_out
            ),
            f"There is a projection only where there is a stride. {_EITHER}": lambda self, n_in, n_out, stride: _way(
                n_in, n_out, stride, stride != 1
            ),
            f"There is a projection only where both change. {_EITHER}": lambda self, n_in, n_out, stride: _way(
                n_in, n_out, stride, stride != 1 and n_in != n_out
            ),
            "The projection has no stride: its map is larger than the branch's.": lambda self, n_in, n_out, stride: (
                _way_with(n_in, n_out, stride, stride=1)
            ),
            "The projection is 3 × 3; it is 1 × 1.": lambda self, n_in, n_out, stride: _way_with(
                n_in, n_out, stride, kernel_size=3, padding=1
            ),
            "The projection has a padding: 1 × 1 needs none.": lambda self, n_in, n_out, stride: _way_with(
                n_in, n_out, stride, padding=1
            ),
            "The projection's convolution has a bias; batch norm has one of its own: bias=False.": (
                lambda self, n_in, n_out, stride: _way_with(n_in, n_out, stride, bias=True)
            ),
            "The projection lacks its batch norm.": lambda self, n_in, n_out, stride: (
                way[:1] if isinstance(way := _way(n_in, n_out, stride), nn.Sequential) else way
            ),
            "The projection ends in a ReLU: convolution and batch norm only.": lambda self, n_in, n_out, stride: (
                way.append(nn.ReLU()) if isinstance(way := _way(n_in, n_out, stride), nn.Sequential) else way
            ),
        },
        stride={},
    ),
    seconds=60,
    random=True,
    changes=("weights",),  # batch norm's statistics move in training
)
def ResidualBlock(learner, rng):
    settings = (3, 3, 1), (3, 5, 2), (4, 2, 1), (3, 3, 2), (2, 6, 3)
    made = {each: learner(*each) for each in settings}
    for (n_in, n_out, stride), model in made.items():
        said = f"n_in {n_in}, n_out {n_out}, stride {stride}"
        expect.kind(model, nn.Module, "a module")
        for name in ("branch", "skip"):
            held = getattr(model, name, None)
            likely = "nn.Sequential(*layers) makes a module of a list." if isinstance(held, list | tuple) else ""
            likely = likely or f"self.{name} = nn. ... in __init__"
            expect.true(isinstance(held, nn.Module), f"the attribute {name} is a module, {said}", likely=likely)
    kinds = [[type(m.skip).__name__ for m in each] for each in (made.values(), map(lambda e: _Residual(*e), settings))]
    lines = [
        f"n_in, n_out, stride {each}: yours {mine}, expected {theirs}"
        for each, mine, theirs in zip(settings, *kinds, strict=True)
    ]
    empty = any(isinstance(model.skip, nn.Sequential) and not len(model.skip) for model in made.values())
    likely = (
        "A bare convolution is no projection yet: nn.Sequential of it and batch norm." if "Conv2d" in kinds[0] else ""
    )
    likely = "An empty nn.Sequential passes on x too; here it has to be nn.Identity()." if empty else likely or _EITHER
    why = "skip: where nn.Identity, where nn.Sequential" + (", not empty" if empty else "")
    expect.true(kinds[0] == kinds[1], why, *lines, likely=likely)
    for n_in, n_out, stride in settings:
        said = f"n_in {n_in}, n_out {n_out}, stride {stride}"
        theirs = _Residual(n_in, n_out, stride).double()
        model = learner(n_in, n_out, stride)
        _layers(model.branch, theirs.branch, f"branch, {said}")
        if isinstance(theirs.skip, nn.Sequential):
            _layers(model.skip, theirs.skip, f"skip, {said}")
        _same_weights(model, theirs, said)
        _as_made(model, theirs, said)
        _same_module(model, theirs, _draw(rng, 4, n_in, 7, 10), rng, said)
    usual, why = learner(4, 4), "without a stride: 1"
    expect.kind(usual.skip, nn.Identity, why)
    _apart(learner, 3, 5, 2)


def _way_with(n_in, n_out, stride, **changed):
    return _way(n_in, n_out, stride, stride != 1 or n_in != n_out, **changed)


# ------------------------------------------------------------------------------------------------ DenseBlock


def _dense_layer(n, growth, **changed):
    return nn.Sequential(
        nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, growth, **{"kernel_size": 3, "padding": 1, "bias": False} | changed)
    )


@parts
class _Dense(nn.Module):
    def __init__(self, n_in, growth, count):
        super().__init__()
        self.layers = self.kept([self.made(n, growth) for n in self.widths(n_in, growth, count)])

    def widths(self, n_in, growth, count):
        return [n_in + i * growth for i in range(count)]

    def made(self, n, growth):
        return _dense_layer(n, growth)

    def kept(self, layers):
        return nn.ModuleList(layers)

    def pass_through(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x

    def forward(self, x):
        return self.pass_through(x)


def _new_first(self, x):
    for layer in self.layers:
        x = torch.cat([layer(x), x], 1)
    return x


def _of_the_input(self, x):
    z = x
    for layer in self.layers:
        z = torch.cat([z, layer(x)], 1)
    return z


def _the_new_only(self, x):
    z = x
    for layer in self.layers:
        z = torch.cat([z, layer(z)], 1)
    return z[:, x.shape[1] :]


def _a_chain(self, x):
    for layer in self.layers:
        x = layer(x)
    return x


def _reversed_maps(self, x):
    new = []
    for layer in self.layers:
        new.insert(0, layer(torch.cat([x, *new[::-1]], 1)))
    return torch.cat([x, *new], 1)


def _cut(self, x):
    for layer in self.layers:
        x = torch.cat([x, layer(x.detach())], 1)
    return x


def _added(self, x):
    for layer in self.layers:
        x = x + layer(x)
    return x


def _added_to_the_new(self, x):
    for layer in self.layers:
        x = layer(x) + x
    return x


def _relu_after_each(self, x):
    for layer in self.layers:
        x = torch.cat([x, torch.relu(layer(x))], 1)
    return x


def _joined(axis):
    def joined(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], axis)
        return x

    return joined


@exercise(
    hints=[
        "Layer number i (from 0) gets x and what i layers have made: how many channels are that?",
        "A loop over n = n_in, n_in + growth, ...: count layers. In forward x = torch.cat([x, ...], 1), again and again.",
        "nn.ModuleList(nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, growth, 3, padding=1, bias=False)) for "
        "n in range(n_in, n_in + count * growth, growth)); for layer in self.layers: x = torch.cat([x, layer(x)], 1)",
    ],
    mistakes=_Dense.mistakes(
        pass_through={
            "New maps are put in front; x comes first: torch.cat([x, layer(x)], 1).": _new_first,
            "Each layer gets the input only; it gets all maps made so far.": _of_the_input,
            "Each layer gets only what the one before made; it gets all maps made so far.": _a_chain,
            "x itself is not in the result: it comes first, then the new maps.": _the_new_only,
            "The new maps come in reverse order; the first layer's come first.": _reversed_maps,
            "What was made before is cut from the graph: no detach, no no_grad.": _cut,
            "The maps are added; DenseNet concatenates: torch.cat([x, layer(x)], 1).": _added,
            "The maps are added, new ones first; DenseNet concatenates: torch.cat([x, layer(x)], 1).": _added_to_the_new,
            "The new maps go through another ReLU: they are concatenated as they are.": _relu_after_each,
            "Maps are concatenated along the rows (axis 2); channels are axis 1.": _joined(2),
            "Maps are concatenated along the last axis; channels are axis 1.": _joined(-1),
            "Maps are concatenated along the batch (axis 0); channels are axis 1.": _joined(0),
        },
        widths={
            "Each layer is made for n_in channels; layer i gets n_in + i·growth.": lambda self, n_in, growth, count: (
                [n_in] * count
            ),
            "The layers are made for one growth too many: the first gets n_in channels.": (
                lambda self, n_in, growth, count: [n_in + (i + 1) * growth for i in range(count)]
            ),
            "There is a layer too many: count layers.": lambda self, n_in, growth, count: [
                n_in + i * growth for i in range(count + 1)
            ],
            "Where count is 0 there is no layer.": lambda self, n_in, growth, count: [
                n_in + i * growth for i in range(max(1, count))
            ],
            "A layer is missing: count layers.": lambda self, n_in, growth, count: [
                n_in + i * growth for i in range(count - 1)
            ],
            "The number of channels is doubled from layer to layer; it grows by growth.": (
                lambda self, n_in, growth, count: [n_in * 2**i for i in range(count)]
            ),
            "The channels are n_in + i; each layer adds growth maps.": lambda self, n_in, growth, count: [
                n_in + i for i in range(count)
            ],
        },
        made={
            "The order within a layer is batch norm, ReLU, convolution; here the convolution comes first.": (
                lambda self, n, growth: nn.Sequential(
                    nn.Conv2d(n, growth, 3, padding=1, bias=False), nn.BatchNorm2d(growth), nn.ReLU()
                )
            ),
            "The ReLU of a layer is missing: batch norm, ReLU, convolution.": lambda self, n, growth: nn.Sequential(
                nn.BatchNorm2d(n), nn.Conv2d(n, growth, 3, padding=1, bias=False)
            ),
            "ReLU stands before the batch norm: batch norm, ReLU, convolution.": lambda self, n, growth: nn.Sequential(
                nn.ReLU(), nn.BatchNorm2d(n), nn.Conv2d(n, growth, 3, padding=1, bias=False)
            ),
            "There is a ReLU after the convolution: a layer ends with it.": lambda self, n, growth: _dense_layer(
                n, growth
            ).append(nn.ReLU()),
            "The convolutions have a bias: the docstring says none, bias=False.": lambda self, n, growth: _dense_layer(
                n, growth, bias=True
            ),
            "The convolutions have no padding, so maps shrink: 3 × 3 needs padding 1.": lambda self, n, growth: (
                _dense_layer(n, growth, padding=0)
            ),
            "The convolutions give as many maps as they get; a layer makes `growth`.": lambda self, n, growth: (
                _dense_layer(n, n)
            ),
            "The convolutions are 1 × 1; they are 3 × 3.": lambda self, n, growth: _dense_layer(
                n, growth, kernel_size=1, padding=0
            ),
        },
    ),
    seconds=60,
    random=True,
    changes=("weights",),
)
def DenseBlock(learner, rng):
    for n_in, growth, count in ((3, 2, 3), (2, 5, 4), (4, 1, 2), (3, 4, 1), (5, 3, 0)):
        said = f"n_in {n_in}, growth {growth}, count {count}"
        model, theirs = learner(n_in, growth, count), _Dense(n_in, growth, count).double()
        expect.kind(model, nn.Module, "a module")
        layers = getattr(model, "layers", None)
        likely = "A plain list registers nothing: nn.ModuleList([...])." if isinstance(layers, list) else ""
        expect.kind(layers, nn.ModuleList, f"layers is an nn.ModuleList, {said}", likely=likely)
        expect.equal(len(layers), count, why=f"as many layers, {said}", source="count")
        for n, layer in enumerate(layers):
            _layers(layer, theirs.layers[n], f"layers[{n}], {said}")
        _same_weights(model, theirs, said)
        _same_module(model, theirs, _draw(rng, 4, n_in, 5, 8), rng, said)
    _apart(learner, 3, 2, 2)


# ------------------------------------------------------------------------------------------------ conv_macs


@parts
def _macs(
    conv,
    height,
    width,
    *,
    sides=lambda height, width: (height, width),
    window=lambda k: k,
    step=lambda s: s,
    frame=lambda p: p,
    size=lambda n, k, s, p: (n + 2 * p - k) // s + 1,
    channels=lambda conv: conv.out_channels * (conv.in_channels // conv.groups),
    area=lambda k: k[0] * k[1],
    end=lambda total, places, conv: total,
):
    k, s, p = window(conv.kernel_size), step(conv.stride), frame(conv.padding)
    height, width = sides(height, width)
    places = size(height, k[0], s[0], p[0]) * size(width, k[1], s[1], p[1])
    return end(places * channels(conv) * area(k), places, conv)


@exercise(
    hints=[
        "rows of the result: (height + 2·padding - kernel) // stride + 1, with the numbers of that axis; columns alike.",
        "conv.kernel_size, conv.stride and conv.padding are pairs; conv.in_channels, conv.out_channels, conv.groups.",
        "rows * columns * conv.out_channels * (conv.in_channels // conv.groups) * kh * kw",
    ],
    mistakes=_macs.mistakes(
        channels={
            "groups is ignored: each output channel sees in_channels/groups channels only.": lambda c: (
                c.out_channels * c.in_channels
            ),
            "It divides by groups twice: all output channels count, each with in_channels/groups.": lambda c: (
                c.out_channels // c.groups * (c.in_channels // c.groups)
            ),
            "It multiplies by groups; each output channel sees in_channels/groups channels.": lambda c: (
                c.out_channels * c.in_channels * c.groups
            ),
            "out_channels is missing: each of them is computed.": lambda c: c.in_channels // c.groups,
            "weight.shape[1] is in_channels/groups already: it must not be divided by groups again.": lambda c: (
                c.out_channels * (c.weight.shape[1] // c.groups)
            ),
            "in_channels stands where out_channels belongs: each output channel is computed.": lambda c: (
                c.in_channels * (c.in_channels // c.groups)
            ),
            "in_channels is missing: a window goes through in_channels/groups of them.": lambda c: c.out_channels,
        },
        size={
            "It counts places of what comes in; the result has its own size, by stride and padding.": (
                lambda n, k, s, p: n
            ),
            "It takes n/stride for the size; kernel and padding count too.": lambda n, k, s, p: n // s,
            "The padding is added once; it lies on both sides.": lambda n, k, s, p: (n + p - k) // s + 1,
            "The padding is missing in the size.": lambda n, k, s, p: (n - k) // s + 1,
            "The + 1 of the size is missing: the first window begins at 0.": lambda n, k, s, p: (n + 2 * p - k) // s,
            "The size is rounded up: a window that does not fit wholly is none.": lambda n, k, s, p: (
                -(-(n + 2 * p - k) // s) + 1
            ),
            "The size is not rounded down: // of whole numbers.": lambda n, k, s, p: (n + 2 * p - k) / s + 1,
            "It takes n/stride, rounded up, for the size; kernel and padding count too.": lambda n, k, s, p: -(-n // s),
            "The padding is taken as kernel // 2; it is conv.padding.": lambda n, k, s, p: (
                (n + k // 2 * 2 - k) // s + 1
            ),
            "The sizes are rounded to the nearest; they are rounded down, //.": lambda n, k, s, p: (
                round((n + 2 * p - k) / s) + 1
            ),
            "The stride is missing in the size.": lambda n, k, s, p: n + 2 * p - k + 1,
        },
        step={
            "The strides are swapped: the first is down, with the height.": lambda s: s[::-1],
            "It takes stride[0] for both axes.": lambda s: (s[0], s[0]),
        },
        frame={
            "The paddings are swapped: the first is down, with the height.": lambda p: p[::-1],
            "It takes padding[0] for both axes.": lambda p: (p[0], p[0]),
        },
        sides={
            "Height and width are swapped: the first of each pair goes with the height.": lambda h, w: (w, h),
            "It takes the height for both sides: rows and columns are counted each.": lambda h, w: (h, h),
        },
        together={
            "It takes entry [0] of kernel, stride and padding for both axes: each is a pair (rows, columns).": {
                name: lambda pair: (pair[0], pair[0]) for name in ("window", "step", "frame")
            },
            "The product is rounded down; each side of the result is, by itself.": {
                "size": lambda n, k, s, p: (n + 2 * p - k) / s + 1,
                "end": lambda total, places, conv: int(total),
            },
        },
        window={
            "The kernel's sides are swapped: the first is down, with the height.": lambda k: k[::-1],
            "It takes kernel_size[0] for both axes.": lambda k: (k[0], k[0]),
        },
        area={
            "It squares the first side of the kernel: kh · kw.": lambda k: k[0] ** 2,
            "kernel_size is a pair, which has no square: kh, kw = conv.kernel_size, then kh · kw.": lambda k: k**2,
            "The kernel's area is missing: kh · kw multiplications for each channel.": lambda k: 1,
            "It takes one side of the kernel: kh · kw.": lambda k: k[0],
        },
        end={
            "It adds one for the bias at each place; adding is no multiplication.": lambda total, places, conv: (
                total + (0 if conv.bias is None else places * conv.out_channels)
            ),
            "It counts the weights, once; each of them is used at every place of the result.": (
                lambda total, places, conv: conv.weight.numel()
            ),
            "It counts additions too; wanted are multiplications.": lambda total, places, conv: 2 * total,
            "It gives a float: // of two ints gives an int.": lambda total, places, conv: float(total),
            "32-bit numbers overflow above 2,147,483,647: Python's own int has no limit.": lambda total, places, conv: (
                (total + 2**31) % 2**32 - 2**31
            ),
        },
    ),
)
def conv_macs(learner, rng):
    examples = [(nn.Conv2d(32, 64, 3, padding=1, bias=False), 14, 14)]
    for n_in, n_out, kernel, stride, padding, groups in (
        (3, 5, (3, 2), (2, 3), (1, 2), 1),
        (6, 4, (1, 4), (3, 1), (0, 1), 2),
        (8, 8, (5, 3), (2, 2), (2, 1), 8),
        (6, 12, (3, 3), (1, 2), (3, 0), 3),
        (4, 7, 1, 1, 0, 1),
        (9, 6, 2, 3, 1, 3),
    ):
        for bias in (False, True):
            conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, groups=groups, bias=bias)
            examples.append((conv, int(rng.integers(6, 13)), int(rng.integers(14, 20))))
    examples.append((nn.Conv2d(81, 99, 9, padding=4, bias=False), 61, 59))  # odd, and above 2^31
    given, expected = [], []
    for conv, height, width in examples:
        x, weight = torch.empty(1, conv.in_channels, height, width, device="meta"), conv.weight.to("meta")
        out = nn.functional.conv2d(x, weight, None, conv.stride, conv.padding, 1, conv.groups)
        given.append(learner(conv, height, width))
        expected.append(out.numel() * conv.weight[0].numel())
        expect.kind(given[-1], (int, np.integer, float), "a plain number", likely="int(...) makes an int of it.")
    source = "entries of torch's result × weights that each uses"
    for (conv, height, width), mine, theirs in zip(examples, given, expected, strict=True):
        if mine != theirs:
            why = f"multiplications of {_layer(conv)} on {height} × {width}"
            lines = [f"yours    {mine:,}", f"expected {theirs:,}   ({source})"]
            reading = _TOO_LARGE if theirs > 2**31 else ""  # the last, and all before it agree
            raise Complaint(why, lines, reading, given)  # all of them tell one mistake from another
    expect.kind(given[0], (int, np.integer), "an int", likely="// of two ints gives an int; / gives a float.")


_TOO_LARGE = "Only this large one differs: 32-bit numbers overflow, or are rounded; Python's own int has no limit."


# ------------------------------------------------------------------------------------------------ separable


@parts
def _separable(
    n_in,
    n_out,
    kernel=3,
    stride=1,
    *,
    first=lambda n_in, n_out, k, s: nn.Conv2d(n_in, n_in, k, s, k // 2, groups=n_in, bias=False),
    second=lambda n_in, n_out, k, s: nn.Conv2d(n_in, n_out, 1, bias=False),
    order=lambda layers: layers,
    made=lambda layers: nn.Sequential(*layers),
):
    convs = first(n_in, n_out, kernel, stride), second(n_in, n_out, kernel, stride)
    norms = [nn.BatchNorm2d(conv.out_channels) for conv in convs]
    return made(order([convs[0], norms[0], nn.ReLU(), convs[1], norms[1], nn.ReLU()]))


_BY_ITSELF = "Each channel has a kernel of its own: groups=n_in in the first convolution."


@exercise(
    hints=[
        "The depthwise convolution keeps the number of channels; groups=n_in makes it depthwise.",
        "nn.Conv2d(n_in, n_in, kernel, stride, kernel // 2, groups=n_in, bias=False), then nn.BatchNorm2d(n_in).",
        "After its ReLU: nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(), all six in "
        "nn.Sequential(...)",
    ],
    mistakes=_separable.mistakes(
        first={
            "The first convolution keeps n_in channels, nn.Conv2d(n_in, n_in, ..., groups=n_in); the second has no groups.": (
                lambda n_in, n_out, k, s: nn.Conv2d(n_in, n_out, k, s, k // 2, groups=n_in, bias=False)
            ),
            f"The first convolution mixes channels. {_BY_ITSELF}": lambda n_in, n_out, k, s: nn.Conv2d(
                n_in, n_in, k, s, k // 2, bias=False
            ),
            "The stride is missing: the depthwise convolution takes it.": lambda n_in, n_out, k, s: nn.Conv2d(
                n_in, n_in, k, 1, k // 2, groups=n_in, bias=False
            ),
            "The padding is 1 whatever the kernel is: kernel // 2.": lambda n_in, n_out, k, s: nn.Conv2d(
                n_in, n_in, k, s, 1, groups=n_in, bias=False
            ),
            "The padding is missing: kernel // 2.": lambda n_in, n_out, k, s: nn.Conv2d(
                n_in, n_in, k, s, groups=n_in, bias=False
            ),
            "The padding is kernel - 1; it is kernel // 2.": lambda n_in, n_out, k, s: nn.Conv2d(
                n_in, n_in, k, s, k - 1, groups=n_in, bias=False
            ),
            "The depthwise convolution has a bias: bias=False.": lambda n_in, n_out, k, s: nn.Conv2d(
                n_in, n_in, k, s, k // 2, groups=n_in
            ),
        },
        second={
            "The pointwise convolution has a bias: bias=False.": lambda n_in, n_out, k, s: nn.Conv2d(n_in, n_out, 1),
            "The second convolution is as large as the first; pointwise is 1 × 1.": lambda n_in, n_out, k, s: nn.Conv2d(
                n_in, n_out, k, padding=k // 2, bias=False
            ),
            "The stride is applied twice: only the depthwise convolution has it.": lambda n_in, n_out, k, s: nn.Conv2d(
                n_in, n_out, 1, s, bias=False
            ),
            "The pointwise convolution has groups: it is there to mix all channels.": lambda n_in, n_out, k, s: (
                nn.Conv2d(n_in, n_out, 1, groups=np.gcd(n_in, n_out).item(), bias=False)
            ),
        },
        made={
            "Two nn.Sequential stand in one, of three layers each; six in a row are asked for: nn.Sequential(*first, *second).": (
                lambda layers: nn.Sequential(nn.Sequential(*layers[:3]), nn.Sequential(*layers[3:]))
            ),
        },
        order={
            "The ReLU between the two convolutions is missing.": lambda layers: layers[:2] + layers[3:],
            "The last ReLU is missing.": lambda layers: layers[:-1],
            "Batch norm and ReLU between the convolutions are missing.": lambda layers: [layers[0], *layers[3:]],
            "ReLU stands before batch norm: convolution, batch norm, ReLU.": lambda layers: [
                layers[n] for n in (0, 2, 1, 3, 5, 4)
            ],
        },
        stride={},
        together={
            "The stride is in the pointwise convolution; it belongs to the depthwise one.": {
                "first": lambda n_in, n_out, k, s: nn.Conv2d(n_in, n_in, k, 1, k // 2, groups=n_in, bias=False),
                "second": lambda n_in, n_out, k, s: nn.Conv2d(n_in, n_out, 1, s, bias=False),
            },
            "The pointwise convolution comes first: first depthwise, then pointwise.": {
                "first": lambda n_in, n_out, k, s: nn.Conv2d(n_in, n_out, 1, bias=False),
                "second": lambda n_in, n_out, k, s: nn.Conv2d(n_out, n_out, k, s, k // 2, groups=n_out, bias=False),
            },
        },
    ),
    seconds=60,
    random=True,
    changes=("weights",),
)
def separable(learner, rng):
    for n_in, n_out, kernel, stride in ((4, 6, 3, 1), (6, 3, 5, 2), (3, 9, 1, 3), (2, 2, 7, 1)):
        said = f"n_in {n_in}, n_out {n_out}, kernel {kernel}, stride {stride}"
        model, theirs = learner(n_in, n_out, kernel, stride), _separable(n_in, n_out, kernel, stride).double()
        _layers(model, theirs, said)
        _same_weights(model, theirs, said)
        _same_module(model, theirs, _draw(rng, 4, n_in, 8, 11), rng, said)
    usual = learner(4, 6)
    _layers(usual, _separable(4, 6), "without the last two arguments, kernel 3 and stride 1")
    _apart(learner, 4, 6, 3, 2)


# ------------------------------------------------------------------------------------------------ SqueezeExcite


@parts
class _Squeeze(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.down, self.up = self.linear(channels, squeezed), self.linear(squeezed, channels)

    def linear(self, n_in, n_out):
        return nn.Linear(n_in, n_out)

    def squeeze(self, x):
        return x.mean((2, 3))

    def inner(self, z):
        return torch.relu(z)

    def gate(self, z):
        return torch.sigmoid(z)

    def apply_to(self, x, g):
        return x * g[:, :, None, None]

    def forward(self, x):
        return self.apply_to(x, self.gate(self.up(self.inner(self.down(self.squeeze(x))))))


@exercise(
    hints=[
        "The mean goes over rows and columns, axes 2 and 3; batch and channels stay: (B, C).",
        "gates = sigmoid(up(relu(down(s)))) has shape (B, C). It has to meet x of shape (B, C, H, W).",
        "s = x.mean((2, 3)); gates = torch.sigmoid(self.up(torch.relu(self.down(s)))); "
        "return x * gates[:, :, None, None]",
    ],
    mistakes=_Squeeze.mistakes(
        squeeze={
            "It takes the largest of each channel; squeeze is the mean.": lambda self, x: x.amax((2, 3)),
            "It takes the sum over the places; squeeze is the mean.": lambda self, x: x.sum((2, 3)),
            "The mean goes over the batch too: each image has its own.": lambda self, x: x.mean((0, 2, 3)).expand(
                x.shape[:2]
            ),
            "The mean is cut from the graph: no detach, no no_grad.": lambda self, x: x.mean((2, 3)).detach(),
            "The mean runs over the channels (axis 1): rows and columns are axes 2 and 3.": lambda self, x: x.mean(1),
            "The mean runs over the columns only: x.mean((2, 3)).": lambda self, x: x.mean(-1),
            "The mean runs over the rows only: x.mean((2, 3)).": lambda self, x: x.mean(2),
            "The sum is divided by H²; a map has H·W places: x.mean((2, 3)).": lambda self, x: (
                x.sum((2, 3)) / x.shape[2] ** 2
            ),
            "The means go through ReLU before the first layer: it stands between the two.": lambda self, x: x.mean(
                (2, 3)
            ).relu(),
            "squeeze() takes away the axis of the batch too where there is one image: x.mean((2, 3)).": lambda self, x: (
                x.mean((2, 3), keepdim=True).squeeze()
            ),
            "It takes the first place of each channel; squeeze is the mean of all.": lambda self, x: x[:, :, 0, 0],
        },
        inner={
            "The ReLU between the linear layers is missing.": lambda self, z: z,
            "Between the linear layers stands a sigmoid; it is ReLU.": lambda self, z: z.sigmoid(),
            "Between the linear layers stands GELU; here it is ReLU.": lambda self, z: nn.functional.gelu(z),
            "Between the linear layers stands SiLU; here it is ReLU.": lambda self, z: nn.functional.silu(z),
        },
        gate={
            "The sigmoid is missing: gates lie between 0 and 1.": lambda self, z: z,
            "The gates come from softmax, so channels compete; each has its own sigmoid.": lambda self, z: z.softmax(1),
            "The gates come from ReLU; it is the sigmoid.": lambda self, z: z.relu(),
            "The gates come from a hard sigmoid; it is torch.sigmoid.": lambda self, z: nn.functional.hardsigmoid(z),
            "The gates are averaged over the batch: each image has its own.": lambda self, z: (
                z.sigmoid().mean(0, keepdim=True).expand_as(z)
            ),
            "The gates come from tanh; it is the sigmoid.": lambda self, z: z.tanh(),
            "There is a ReLU before the sigmoid: gates could not fall below one half.": lambda self, z: (
                z.relu().sigmoid()
            ),
        },
        apply_to={
            "The gates are added; each channel is multiplied by its gate.": lambda self, x, g: x + g[:, :, None, None],
            "The gates themselves come back; x is multiplied by them.": lambda self, x, g: g,
            "x is added to the product; the result is the product alone.": lambda self, x, g: (
                x + x * g[:, :, None, None]
            ),
            "x is multiplied by 1 - gate; it is the gate.": lambda self, x, g: x * (1 - g[:, :, None, None]),
            "The gates come back in the shape (B, C, 1, 1); x is multiplied by them.": lambda self, x, g: g[
                :, :, None, None
            ],
            "The gates (B, C) meet the last axes of x: they need two more axes, [:, :, None, None].": (
                lambda self, x, g: x * g
            ),
        },
        together={
            "ReLU and sigmoid are exchanged: ReLU between the layers, the sigmoid at the end.": {
                "inner": lambda self, z: z.sigmoid(),
                "gate": lambda self, z: z.relu(),
            },
            "The sigmoid stands before `up`; it comes last, after it.": {
                "inner": lambda self, z: z.relu().sigmoid(),
                "gate": lambda self, z: z,
            },
            "ReLU and sigmoid both stand at the end: ReLU goes between the layers.": {
                "inner": lambda self, z: z,
                "gate": lambda self, z: z.relu().sigmoid(),
            },
        },
        linear={
            "The linear layers have no bias; both have one.": lambda self, n_in, n_out: nn.Linear(
                n_in, n_out, bias=False
            ),
        },
    ),
    seconds=30,
    random=True,
)
def SqueezeExcite(learner, rng):
    for channels, squeezed in ((5, 2), (3, 4), (6, 1)):
        said = f"channels {channels}, squeezed {squeezed}"
        model, theirs = learner(channels, squeezed), _Squeeze(channels, squeezed).double()
        expect.kind(model, nn.Module, "a module")
        for name in ("down", "up"):
            expect.kind(getattr(model, name, None), nn.Linear, f"{name} is an nn.Linear, {said}")
        _same_weights(model, theirs, said)
        _same_module(model, theirs, _draw(rng, 4, channels, 3, 7), rng, said)
    _apart(learner, 4, 2)


# ------------------------------------------------------------------------------------------------ fold_batch_norm


def _settings(conv):
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "groups": conv.groups,
    }


@parts
def _fold(
    conv,
    norm,
    *,
    spread=lambda n: torch.sqrt(n.running_var + n.eps),
    gamma=lambda n: n.weight,
    mean=lambda n: n.running_mean,
    own=lambda c: 0 if c.bias is None else c.bias,
    shift=lambda beta, factor, b, m: beta + factor * (b - m),
    scale=lambda w, factor: w * factor[:, None, None, None],
    lost=(),
    made=lambda conv, like: conv.to(like.dtype),
):
    factor = gamma(norm) / spread(norm)
    kept = {name: value for name, value in _settings(conv).items() if name not in lost}
    folded = made(nn.Conv2d(**kept, bias=True), conv.weight)
    with torch.no_grad():
        folded.weight.copy_(scale(conv.weight, factor))
        folded.bias.copy_(shift(norm.bias, factor, own(conv), mean(norm)))
    return folded


@exercise(
    hints=[
        "factor = γ/√(σ² + ε), one number for each output channel. What happens to w, and what to b - μ?",
        "norm.weight is γ, norm.bias β, norm.running_var σ². Output channels are axis 0 of conv.weight. conv.bias may "
        "be None: then b is 0.",
        "folded = copy.deepcopy(conv) has all settings; folded.weight = nn.Parameter((conv.weight * "
        "factor[:, None, None, None]).detach()), folded.bias = nn.Parameter((norm.bias + factor * (b - mean)).detach())",
    ],
    mistakes=_fold.mistakes(
        spread={
            "ε is missing: √(σ² + ε).": lambda n: torch.sqrt(n.running_var),
            "It divides by the variance: the standard deviation is its root, √(σ² + ε).": lambda n: (
                n.running_var + n.eps
            ),
            "ε is added after the root: √(σ² + ε).": lambda n: torch.sqrt(n.running_var) + n.eps,
            "It does not divide by √(σ² + ε).": lambda n: 1.0,
            "ε is subtracted: √(σ² + ε).": lambda n: torch.sqrt((n.running_var - n.eps).abs()),
            "ε is taken as 1e-5 whatever it is: norm.eps.": lambda n: torch.sqrt(n.running_var + 1e-5),
        },
        gamma={"γ is missing: the factor is norm.weight/√(σ² + ε).": lambda n: torch.ones_like(n.weight)},
        mean={"The mean is missing: b - μ is scaled.": lambda n: torch.zeros_like(n.running_mean)},
        own={"The convolution's own bias is lost: b - μ, with b = conv.bias where there is one.": lambda c: 0},
        shift={
            "The convolution's own bias is not scaled: γ(b - μ)/√(σ² + ε) + β.": lambda beta, f, b, m: beta + b - f * m,
            "The mean is added; it is subtracted: b - μ.": lambda beta, f, b, m: beta + f * (b + m),
            "The signs are turned: β + factor·(b - μ).": lambda beta, f, b, m: beta + f * (m - b),
            "β is missing in the new bias.": lambda beta, f, b, m: f * (b - m),
            "β is scaled too; it is added after the division: β + factor·(b - μ).": lambda beta, f, b, m: (
                f * (b - m + beta)
            ),
            "The mean is not scaled: β + factor·(b - μ).": lambda beta, f, b, m: beta + f * b - m,
            "Neither b nor μ is scaled: β + factor·(b - μ).": lambda beta, f, b, m: beta + b - m,
        },
        scale={
            "The weights are as they were; each output channel is multiplied by its factor.": lambda w, f: w,
            "The factor meets the kernel's columns: output channels are axis 0, factor[:, None, None, None].": (
                lambda w, f: w * f
            ),
            "The factor meets the input channels: output channels are axis 0, factor[:, None, None, None].": (
                lambda w, f: w * f[None, :, None, None]
            ),
            "The weights are divided by the factor; they are multiplied by it.": lambda w, f: (
                w / f[:, None, None, None]
            ),
        },
        lost={
            "The stride is lost: the new convolution has all settings of conv.": ("stride",),
            "The padding is lost: the new convolution has all settings of conv.": ("padding",),
            "The dilation is lost: the new convolution has all settings of conv.": ("dilation",),
            "The groups are lost: the new convolution has all settings of conv.": ("groups",),
        },
        made={
            "The new convolution has torch's usual 32-bit floats, whatever conv has.": lambda conv, like: conv.float(),
        },
    ),
    seconds=30,
)
def fold_batch_norm(learner, rng):
    source = "conv, then batch norm in evaluation, by torch"
    for bias in (False, True):
        for n_in, n_out, kernel, stride, padding, dilation, groups, eps in (
            (3, 5, (3, 2), 1, 0, 1, 1, 0.3),
            (4, 4, 3, (2, 1), (1, 2), 1, 1, 1e-5),
            (6, 4, 3, 1, 1, 2, 2, 0.01),
            (5, 5, 3, 1, 1, 1, 5, 1e-3),
            (2, 6, 1, 2, 0, 1, 1, 0.7),
            (5, 1, 2, 1, 1, 1, 1, 0.05),
        ):
            conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, dilation, groups, bias).double()
            norm = nn.BatchNorm2d(n_out, eps=eps).double().eval()
            for values in (norm.weight, norm.bias, norm.running_mean, conv.weight, *([conv.bias] if bias else [])):
                values.data.copy_(_draw(rng, *values.shape))
            norm.running_var.copy_(torch.tensor(rng.uniform(0.05, 3, n_out)))
            x = _draw(rng, 2, n_in, 9, 11)
            said = f"{_layer(conv)}, eps {eps}"
            before = [each.detach().clone() for each in (conv(x), norm(conv(x)))]
            held = [sorted(each.state_dict()) for each in (conv, norm)]
            folded = learner(conv, norm)
            expect.kind(folded, nn.Conv2d, "a new nn.Conv2d")
            expect.true(folded is not conv, "a new convolution, not conv itself", likely="copy.deepcopy(conv)")
            given = {name: value for name, value in _settings(folded).items() if value != _settings(conv)[name]}
            lines = [f"yours    {given}", f"expected { {name: _settings(conv)[name] for name in given} }"]
            likely = f"{' and '.join(given)}: the new convolution has all settings of conv, as copy.deepcopy(conv) has."
            expect.true(not given, f"the settings of conv, {said}", *lines, likely=likely)
            expect.true(
                folded.bias is not None, f"it has a bias, {said}", likely="nn.Conv2d(..., bias=True), or folded.bias ="
            )
            expect.close(
                folded(x.to(folded.weight.dtype)),
                before[1],
                why=f"the same values, {said}",
                source=source,
                rtol=1e-6,
                dtype=x,
            )
            expect.true(folded.weight.dtype == folded.bias.dtype == x.dtype, f"weights of conv's dtype, {said}")
            for name in ("weight", "bias"):
                kept = isinstance(getattr(folded, name), nn.Parameter) and getattr(folded, name).is_leaf
                expect.true(kept, f"{name} is a parameter of its own", likely=f"folded.{name} = nn.Parameter(...)")
            why = f"conv and norm hold the same as before, {said}"
            expect.equal(
                [sorted(each.state_dict()) for each in (conv, norm)],
                held,
                why=why,
                source="before",
                likely=_GIVEN_A_BIAS,
            )
            again = [each.detach() for each in (conv(x), norm(conv(x)))]
            expect.close(again[0], before[0], why="conv stays as it is", source="conv before", likely=_IN_PLACE)
            expect.close(again[1], before[1], why="norm stays as it is", source="norm before", likely=_IN_PLACE)
    single = learner(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4).eval())
    expect.equal(str(single.weight.dtype), "torch.float32", why="32-bit weights stay so", source="conv's dtype")
    conv, norm = nn.Conv2d(2, 3, 1).double(), nn.BatchNorm2d(3).double()  # a layer that was left in training
    for values in (norm.running_mean, conv.weight, conv.bias):
        values.data.copy_(_draw(rng, *values.shape))
    folded, moved = learner(conv, norm), norm.running_mean.clone()
    x = _draw(rng, 2, 2, 4, 5)
    why = "by the running statistics, also where norm was left in training mode"
    expect.close(folded(x), copy.deepcopy(norm).eval()(conv(x)).detach(), why=why, source=source)
    expect.close(norm.running_mean, moved, why="the statistics stay as they are", source="norm before")


_GIVEN_A_BIAS = "conv itself is given a bias, which it keeps: where conv.bias is None, take 0 for b instead."
_IN_PLACE = "Work on a copy: copy.deepcopy(conv), and new tensors, no *= and no .data of the old ones."


# ------------------------------------------------------------------------------------------------ patchify


def _no_crop(H, W, p):
    if H % p or W % p:
        raise ValueError("patches do not fill the image")


@parts
def _patches(
    x,
    patch,
    *,
    refuse=_no_crop,
    cut=lambda x, p: _six(x, p),
    order=(0, 2, 4, 1, 3, 5),
    flat=lambda x: x.flatten(3).flatten(1, 2),
):
    refuse(x.shape[2], x.shape[3], patch)
    return flat(cut(x, patch).permute(order))


def _six(x, p):
    return x.reshape(*x.shape[:2], x.shape[2] // p, p, x.shape[3] // p, p)


def _cropped(x, p):
    return _six(x[:, :, : x.shape[2] // p * p, : x.shape[3] // p * p], p)


def _overlapping(x, patch):
    """unfold without stride=patch moves by one pixel, so that patches overlap."""
    return nn.functional.unfold(x, patch).transpose(1, 2)


def _unfold_reshaped(x, patch):
    """What unfold gives, (B, C·patch·patch, N), is reshaped, which mixes pixels: it needs .transpose(1, 2)."""
    rows = nn.functional.unfold(x, patch, stride=patch)
    return rows.reshape(len(x), rows.shape[2], rows.shape[1])


@exercise(
    hints=[
        "x.reshape(B, C, H // p, p, W // p, p) has six axes. What is each, and which belong together in the result?",
        "The result's axes: image; row of patches, column of patches; channel, row in the patch, column in the patch.",
        "x.reshape(B, C, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * p * p); before that: "
        "if H % p or W % p: raise ValueError(...)",
    ],
    mistakes=_patches.mistakes(
        _overlapping,
        _unfold_reshaped,
        cut={
            "H and W are exchanged in the six axes: rows come first.": lambda x, p: x.reshape(
                *(*x.shape[:2], x.shape[3] // p, p, x.shape[2] // p, p)
            ),
            "The height stands for the width too: images need not be square.": lambda x, p: x.reshape(
                *(*x.shape[:2], x.shape[2] // p, p, x.shape[2] // p, p)
            ),
            "Only the first channel is cut: a patch has the numbers of all channels.": lambda x, p: _six(x[:, :1], p),
            "patch is taken as the number of patches in a row; it is the side of one, in pixels.": lambda x, p: (
                x.reshape(*(*x.shape[:2], p, x.shape[2] // p, p, x.shape[3] // p))
            ),
        },
        order={
            "Patches go column by column; reading order is along the first row, then the next.": (0, 4, 2, 1, 3, 5),
            "The numbers of a patch are in the order (patch, patch, C); channels come first: (C, patch, patch).": (
                *(0, 2, 4, 3, 5),
                1,
            ),
            "Each patch is turned about its diagonal: inside it goes row by row.": (0, 2, 4, 1, 5, 3),
            "The axes are reshaped without changing their order: pixels of several patches get mixed.": (
                *(0, 1, 2, 3, 4, 5),
            ),
            "Channels are mixed up with rows of patches: the order is image, row of patches, column of patches, "
            "channel, row, column.": (0, 1, 2, 4, 3, 5),
            "Places in the patch stand where the patch's number belongs: rows of patches and columns of patches come "
            "before channel, row and column.": (0, 3, 5, 1, 2, 4),
        },
        flat={
            "The result has four axes, (B, rows, columns, ...): patches stand in one row, (B, N, ...).": lambda x: (
                x.flatten(3)
            ),
            "The last axis is not flattened: (B, N, C·patch·patch).": lambda x: x.flatten(1, 2),
            "Patches and their numbers are swapped: (B, N, C·patch·patch).": lambda x: (
                x.flatten(3).flatten(1, 2).transpose(1, 2)
            ),
            "The images of the batch are run together: (B, N, C·patch·patch).": lambda x: x.flatten(3).flatten(0, 2),
            "The gradient stops: no detach, .data, no_grad or NumPy.": lambda x: x.detach().flatten(3).flatten(1, 2),
        },
        refuse={
            "Where patches do not fill the image it has to raise ValueError.": lambda H, W, p: None,
            "It looks at the height only: the width has to be a multiple of patch too.": lambda H, W, p: _no_crop(
                H, p, p
            ),
            "It looks at the width only: the height has to be a multiple of patch too.": lambda H, W, p: _no_crop(
                W, p, p
            ),
            "It refuses images that are not square; they need only be multiples of patch.": lambda H, W, p: _no_crop(
                H, W, max(H, W)
            ),
            "It looks at H·W; both H and W have to be multiples of patch.": lambda H, W, p: _no_crop(H * W, p, p),
        },
        together={
            "Rows and columns are split as (patch, H/patch), so a patch has every n-th pixel: first H/patch, then patch.": {
                "cut": lambda x, p: x.reshape(*x.shape[:2], p, x.shape[2] // p, p, x.shape[3] // p),
                "order": (0, 3, 5, 1, 2, 4),
            },
            "Where patches do not fill the image it cuts off the rest; it has to raise ValueError.": {
                "refuse": lambda H, W, p: None,
                "cut": _cropped,
            },
        },
    ),
)
def patchify(learner, rng):
    def by_torch(x, patch):
        return nn.functional.unfold(x, patch, stride=patch).transpose(1, 2)

    source = "torch.nn.functional.unfold"
    for B, C, H, W, patch in ((2, 3, 4, 6, 2), (3, 2, 9, 6, 3), (2, 1, 4, 12, 4), (2, 2, 3, 5, 1), (1, 3, 5, 5, 5)):
        x, why = _draw(rng, B, C, H, W), f"patches of {patch} from {B, C, H, W}"
        given = learner(x, patch)
        tensor(given, why)
        expect.close(given, by_torch(x, patch), why=why, source=source, dtype=x)
    without = dict.fromkeys(("ties", "apart", "far"), "numbers are only moved")
    kinds = {"x": floats("B", "C", 6, 12, tensor=True), "patch": among(1, 2, 3, 6)}
    about = {"why": "patches in reading order", "source": source, "like": "x", "without": without}
    agree(learner, by_torch, rng, **about, **kinds)
    lying = _draw(rng, 2, 6, 4, 3).permute(0, 3, 1, 2)
    expect.close(learner(lying, 2), by_torch(lying, 2), why="x need not lie row by row in memory", source=source)
    gradients(
        lambda x: learner(x, 2), lambda x: by_torch(x, 2), rng, why="gradients flow", **{"x": _draw(rng, 2, 3, 4, 6)}
    )
    for H, W, patch in ((5, 4, 2), (4, 5, 2), (6, 9, 6), (2, 4, 3)):
        why = f"ValueError for patches of {patch} and {H} × {W}"
        likely = "if H % patch or W % patch: raise ValueError(...)"
        expect.raises(ValueError, lambda n=(H, W), p=patch: learner(_draw(rng, 1, 2, *n), p), why, likely=likely)


# ------------------------------------------------------------------------------------------------ ViTEmbedding


class _Embedding(nn.Module):
    def __init__(self, channels, size, patch, width):
        super().__init__()
        self.patch = patch
        self.project, count = self.linear(channels * patch**2, width), self.count(size, patch)
        self.cls, self.positions = self.kept(self.begin(1, width)), self.kept(self.places(count, width))

    def linear(self, n_in, n_out):
        return nn.Linear(n_in, n_out)

    def count(self, size, patch):
        return 1 + (size // patch) ** 2

    def kept(self, values):
        return nn.Parameter(values)

    def begin(self, n, width):
        return torch.zeros(1, n, width)

    def places(self, n, width):
        return 0.02 * torch.randn(1, n, width)

    def tokens(self, x):
        return self.project(nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2))

    def join(self, cls, tokens):
        return torch.cat([cls.expand(len(tokens), -1, -1), tokens], 1)

    def place(self, t):
        return t + self.positions

    def forward(self, x):
        return self.place(self.join(self.cls, self.tokens(x)))


_ViT = parts(_Embedding)


def _patches_only(self, t):
    return torch.cat([t[:, :1], t[:, 1:] + self.positions[:, 1:]], 1)


@exercise(
    hints=[
        "How many numbers has a patch, and how many tokens are there with the class token? nn.Parameter for two of the "
        "three attributes.",
        "cls is (1, 1, D) and has to become (B, 1, D): self.cls.expand(len(x), -1, -1). Then torch.cat along axis 1.",
        "torch.cat([self.cls.expand(len(x), -1, -1), self.project(patchify(x, patch))], 1) + self.positions; "
        "self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + (size // patch) ** 2, width))",
    ],
    mistakes=_ViT.mistakes(
        join={
            "The class token is the last; it is the first.": lambda self, cls, t: torch.cat(
                [t, cls.expand(len(t), -1, -1)], 1
            ),
            "There is one class token for the whole batch: each image needs one, cls.expand(B, -1, -1).": (
                lambda self, cls, t: torch.cat([cls, t], 1)
            ),
            "The class token is added to the patches; it is a token of its own, before them.": lambda self, cls, t: (
                torch.cat([cls.expand(len(t), -1, -1), t + cls], 1)
            ),
            "torch.cat without an axis joins along axis 0, the batch; tokens are axis 1.": lambda self, cls, t: (
                torch.cat([cls.expand(len(t), -1, -1), t])
            ),
            "Class token and patches are concatenated along the width; tokens are axis 1.": lambda self, cls, t: (
                torch.cat([cls.expand(*t.shape[:2], -1), t], 2)
            ),
            "The class token is cut from the graph: it has to learn.": lambda self, cls, t: torch.cat(
                [cls.detach().expand(len(t), -1, -1), t], 1
            ),
            "The class token is missing from the result.": lambda self, cls, t: t,
            "Zeros stand for the class token; it is the parameter cls.": lambda self, cls, t: torch.cat(
                [torch.zeros_like(t[:, :1]), t], 1
            ),
        },
        place={
            "The positions are not added.": lambda self, t: t,
            "The class token gets no position; it has one too, the first.": _patches_only,
            "The tokens are multiplied by the positions; these are added.": lambda self, t: t * self.positions,
            "All tokens get the first position: each has its own.": lambda self, t: t + self.positions[:, :1],
            "The positions are cut from the graph: they have to learn.": lambda self, t: t + self.positions.detach(),
            "The class token gets the last position; it has the first.": lambda self, t: t + self.positions.roll(1, 1),
            "The positions are added twice.": lambda self, t: t + 2 * self.positions,
            "The tokens are multiplied by √width, as in some transformers for text; here nothing is.": lambda self, t: (
                torch.cat([t[:, :1], t[:, 1:] * t.shape[2] ** 0.5], 1) + self.positions
            ),
            "The positions are applied shifted by one: the first is the class token's.": lambda self, t: (
                t + self.positions.roll(-1, 1)
            ),
        },
        places={
            "positions has no axis for the batch: (1, 1 + N, width).": lambda self, n, width: (
                0.02 * torch.randn(n, width)
            ),
        },
        count={
            "There is no position for the class token: 1 + N of them.": lambda self, size, patch: (size // patch) ** 2,
            "N is size/patch; patches go both ways: (size/patch)².": lambda self, size, patch: 1 + size // patch,
            "N is counted in pixels; it is the number of patches, (size/patch)².": lambda self, size, patch: (
                1 + size**2
            ),
        },
        begin={
            "cls has shape (width,); it is (1, 1, width).": lambda self, n, width: torch.zeros(width),
        },
        kept={
            "cls and positions are plain tensors, which do not learn: nn.Parameter(...).": lambda self, values: values,
        },
        linear={
            "project has no bias; it has one.": lambda self, n_in, n_out: nn.Linear(n_in, n_out, bias=False),
        },
        tokens={
            "There is a ReLU after project: it is one linear layer, and nothing after it.": lambda self, x: torch.relu(
                self.project(nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2))
            ),
        },
    ),
    seconds=60,
    random=True,
)
def ViTEmbedding(learner, rng):
    for channels, size, patch, width in ((2, 6, 3, 5), (3, 8, 2, 4), (1, 5, 5, 3), (1, 12, 2, 40)):
        said = f"channels {channels}, size {size}, patch {patch}, width {width}"
        model, theirs = learner(channels, size, patch, width), _Embedding(channels, size, patch, width).double()
        expect.kind(model, nn.Module, "a module")
        for name, kind in (("project", nn.Linear), ("cls", nn.Parameter), ("positions", nn.Parameter)):
            words = f"{name} is an {'nn.Linear' if kind is nn.Linear else 'nn.Parameter'}, {said}"
            likely = "" if name == "project" else f"self.{name} = nn.Parameter(...), made in __init__: it has to learn."
            expect.kind(getattr(model, name, None), kind, words, likely=likely)
        _same_weights(model, theirs, said)
        why, likely = f"cls begins at 0, {said}", "torch.zeros(1, 1, width): the class token begins at 0."
        expect.true(not model.cls.detach().any(), why, likely=likely)
        if width == 40:
            why = "positions begin normal, with mean 0 and standard deviation 0.02"
            likely = _why_not_normal(model.positions.detach())
            expect.true(not likely, why, likely=likely)
        x = _draw(rng, 3, channels, size, size)
        try:
            model.double()(x)
        except ValueError as error:  # of the learner's own patchify
            why, likely = f"images are cut by the patch given, {said}", "patch is an argument: keep it as self.patch."
            expect.true(False, why, f"yours    ValueError: {error}", likely=likely)
        _same_module(model, theirs, x, rng, said)
    _apart(learner, 1, 4, 2, 3)


def _why_not_normal(values):
    """What is wrong with positions as drawn, or ""."""
    mean, std = values.mean().item(), values.std().item()
    if not values.any(2).all():
        return "One of the positions begins at 0, or all: the class token's is drawn too, 0.02 * torch.randn(...)."
    if (values == values[:, :1]).all():
        return "All positions begin alike, so tokens have no order: torch.randn(1, 1 + N, width) draws each by itself."
    if (values == values[..., :1]).all():
        return "All entries of a position begin alike: torch.randn(1, 1 + N, width) draws each by itself."
    peaked = (((values - mean) / std) ** 4).mean()  # 3 for a normal, 1.8 for a uniform distribution
    if peaked < 2.3:
        return "The positions look uniform: torch.randn is normal, torch.rand is not."
    if not 0.018 < std < 0.022:
        return (
            f"The standard deviation is about {std:.2g}, not 0.02: 0.02 * torch.randn(...), or nn.init.normal_(..., "
            "std=0.02), whose second argument is the mean."
        )
    return "" if abs(mean) < 0.003 else f"The mean is about {mean:.2g}, not 0."


# ------------------------------------------------------------------------------------------------ build


def _stub(name):
    """A block for the mistakes below, of the class name and the shapes of the script's."""

    def begin(self, n_in, n_out, stride):
        nn.Module.__init__(self)
        self.conv = nn.Conv2d(n_in, n_out, 3, stride, 1)

    return type(name, (nn.Module,), {"__init__": begin, "forward": lambda self, x: self.conv(x)})


BLOCKS = {
    "plain": _stub("Plain"),
    "residual": _stub("Residual"),
    "dense": _stub("Dense"),
    "separable": _stub("Separable"),
    "mbconv": _stub("MBConv"),
}


def _known(name):
    if name not in BLOCKS:
        raise ValueError(name)
    return BLOCKS[name]


@parts
def _build(
    name,
    width,
    depth,
    channels=1,
    classes=10,
    *,
    block=_known,
    stem=lambda C, w: [nn.Conv2d(C, w, 3, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU()],
    stages=3,
    times=lambda depth, stage: depth,
    out=lambda w, stage, n, depth: w * 2**stage,
    step=lambda stage, n, depth: 2 if stage and not n else 1,
    into=lambda before, n_out, stage: before,
    head=lambda n, K: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, K)],
    join=lambda parts: nn.Sequential(*parts),
):
    made, n_in, kind = stem(channels, width), width, block(name)
    for stage in range(stages):
        for n in range(times(depth, stage)):
            n_out = out(width, stage, n, depth)
            made.append(kind(into(n_in, n_out, stage), n_out, step(stage, n, depth)))
            n_in = n_out
    return join([*made, *head(n_in, classes)])


def _conv_stem(C, w, **changed):
    settings = {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False} | changed
    return [nn.Conv2d(C, w, **settings), nn.BatchNorm2d(w), nn.ReLU()]


@exercise(
    hints=[
        "Begin a list with the three layers of the stem. Keep the number of channels of the last part in n_in.",
        "Two loops: for stage in range(3), for n in range(depth). A stride of 2 only where n is 0 and stage is not.",
        "n_out = width * 2**stage; parts.append(BLOCKS[name](n_in, n_out, 2 if stage and not n else 1)); n_in = n_out. "
        "At the end nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, classes))",
    ],
    mistakes=_build.mistakes(
        step={
            "The first stage has a stride too: only stages 1 and 2 begin with stride 2.": lambda s, n, d: 1 if n else 2,
            "Every block of stages 1 and 2 has stride 2: only the first of each.": lambda s, n, d: 2 if s else 1,
            "The stride is in the last block of a stage: it is in the first.": lambda s, n, d: (
                2 if s and n == d - 1 else 1
            ),
            "No block has a stride: the first of stages 1 and 2 has stride 2.": lambda s, n, d: 1,
            "Only stage 1 begins with stride 2: stage 2 does, too.": lambda s, n, d: 2 if s == 1 and not n else 1,
            "The stages 0 and 1 begin with stride 2: it is stages 1 and 2.": lambda s, n, d: (
                2 if s < 2 and not n else 1
            ),
        },
        into={
            "A block gets the channels that it gives; it gets those of the part before it.": (
                lambda before, n_out, stage: n_out
            ),
            "Within a stage a block gets the channels of the stage before: n_in = n_out after each block.": (
                lambda before, n_out, stage: n_out // 2 if stage else n_out
            ),
        },
        out={
            "The channels do not double from stage to stage: width·2^s.": lambda w, s, n, d: w,
            "The channels double before the first stage: stage 0 gives width.": lambda w, s, n, d: w * 2 ** (s + 1),
            "The channels are width·(s + 1); they double: width·2^s.": lambda w, s, n, d: w * (s + 1),
            "The channels double in every block; they double from stage to stage.": lambda w, s, n, d: (
                w * 2 ** ((s - 1) * d + n + 1) if s else w
            ),
            "The channels double in the last block of a stage; they do in the first of the next.": lambda w, s, n, d: (
                w * 2 ** (s + (n == d - 1 and s < 2))
            ),
        },
        stages={"There are two stages; wanted are three.": 2, "There are four stages; wanted are three.": 4},
        times={
            "Each stage has a block too many: depth blocks.": lambda d, s: d + 1,
            "A block is missing in each stage: depth blocks.": lambda d, s: max(1, d - 1),
            "Each stage has two blocks whatever depth is.": lambda d, s: 2,
            "Each stage has one block whatever depth is.": lambda d, s: 1,
        },
        stem={
            "The stem's convolution has a bias: bias=False.": lambda C, w: _conv_stem(C, w, bias=True),
            "The stem has no stride: it is 2.": lambda C, w: _conv_stem(C, w, stride=1),
            "The stem has no padding: it is 1.": lambda C, w: _conv_stem(C, w, padding=0),
            "The stem's kernel is 5 × 5; it is 3 × 3.": lambda C, w: _conv_stem(C, w, kernel_size=5, padding=2),
            "The stem lacks its ReLU.": lambda C, w: _conv_stem(C, w)[:2],
            "The stem lacks batch norm.": lambda C, w: [_conv_stem(C, w)[0], nn.ReLU()],
            "ReLU stands before batch norm in the stem.": lambda C, w: [_conv_stem(C, w)[n] for n in (0, 2, 1)],
        },
        head={
            "The last linear layer is made for width channels; what comes out of stage 2 has 4·width.": lambda n, K: [
                nn.AdaptiveAvgPool2d(1),
                *(nn.Flatten(), nn.Linear(n // 4, K)),
            ],
            "The mean over the places is missing: nn.AdaptiveAvgPool2d(1).": lambda n, K: [
                nn.Flatten(),
                nn.Linear(n, K),
            ],
            "nn.Flatten is missing between mean and linear layer.": lambda n, K: [
                nn.AdaptiveAvgPool2d(1),
                nn.Linear(n, K),
            ],
            "The head takes the largest of each map; it is the mean.": lambda n, K: [
                nn.AdaptiveMaxPool2d(1),
                *(nn.Flatten(), nn.Linear(n, K)),
            ],
            "It ends in softmax; it gives logits.": lambda n, K: [
                nn.AdaptiveAvgPool2d(1),
                *(nn.Flatten(), nn.Linear(n, K), nn.Softmax(1)),
            ],
        },
        block={
            "For an unknown name it has to raise ValueError, not KeyError.": lambda name: BLOCKS[name],
            "It takes the residual block whatever the name is: BLOCKS[name].": lambda name: (
                _known(name) and BLOCKS["residual"]
            ),
            "It takes the plain block whatever the name is: BLOCKS[name].": lambda name: (
                _known(name) and BLOCKS["plain"]
            ),
        },
    ),
    seconds=60,
    random=True,
)
def build(learner, rng):
    names = {"plain": "Plain", "residual": "Residual", "dense": "Dense", "separable": "Separable", "mbconv": "MBConv"}
    settings = [("residual", 4, 2, 1, 10), ("plain", 8, 1, 3, 7), ("separable", 5, 3, 2, 4)]
    settings += [("mbconv", 4, 2, 1, 3), ("dense", 8, 4, 1, 10)]
    for name, width, depth, channels, classes in settings:
        said = f'build("{name}", {width}, {depth}, {channels}, {classes})'
        model = learner(name, width, depth, channels, classes)
        likely = "A list comes back: nn.Sequential(*parts)." if isinstance(model, list) else ""
        expect.kind(model, nn.Sequential, f"{said} is an nn.Sequential", likely=likely)
        _parts_agree(model, _expected(names[name], width, depth, channels, classes), channels, said)
        wanted = f"Conv2d({channels}, {width}, (3, 3), stride=(2, 2), padding=(1, 1), bias=False)"
        lines = f"yours    {_layer(model[0])}", f"expected {wanted}"
        expect.true(_layer(model[0]) == wanted, f"the stem's convolution, {said}", *lines)
        expect.true(model[-1].bias is not None, f"the last linear layer has a bias, {said}", likely="bias=True")
        apart = len({id(part) for part in model})
        likely = "The same block stands in several places and shares its weights: make each one anew, in the loop."
        why, source = f"each part is made anew, {said}", "as many different ones as there are parts"
        expect.equal(apart, len(model), why=why, source=source, likely=likely)
    usual, why = learner("plain", 4, 1), "without the last two arguments: one channel, ten classes"
    expect.equal([usual[0].in_channels, usual[-1].out_features], [1, 10], why=why, source="the first line")
    blocks = inspect.unwrap(learner).__globals__.get("BLOCKS", BLOCKS)  # of the program, or the mistakes' here
    why = "a block that is put into BLOCKS is built too"
    blocks["added"] = _stub("Added")
    try:
        kinds = [type(part).__name__ for part in learner("added", 4, 1)]
    except (ValueError, KeyError) as error:
        expect.true(False, why, f"yours    {type(error).__name__}: {error}", likely=_OWN_NAMES)
    finally:
        del blocks["added"]
    expect.true(kinds.count("Added") == 3, why, f"yours    {', '.join(kinds)}", likely=_OWN_NAMES)
    for name in ("resnet", "Residual", "", "vit", "small-cnn"):
        why = f"ValueError for {name!r}, which is not in BLOCKS"
        expect.raises(
            ValueError, lambda n=name: learner(n, 4, 1), why, likely="if name not in BLOCKS: raise ValueError"
        )


_OWN_NAMES = "Ask BLOCKS itself (if name not in BLOCKS), not a list of names of its own."


def _expected(block, width, depth, channels, classes):
    """Each part in words: class, channels and size that it gives for images of 28 × 36."""
    lines = [f"{kind} → {width} × 14 × 18" for kind in ("Conv2d", "BatchNorm2d", "ReLU")]
    for stage, (rows, columns) in enumerate(((14, 18), (7, 9), (4, 5))):
        lines += [f"{block} → {width * 2**stage} × {rows} × {columns}"] * depth
    ends = f"AdaptiveAvgPool2d → {4 * width} × 1 × 1", f"Flatten → {4 * width}", f"Linear → {classes}"
    return [*lines, *ends]


def _parts_agree(model, expected, channels, said):
    x, lines = torch.zeros(2, channels, 28, 36), []
    model.eval()
    with torch.no_grad():
        for part in model:
            try:
                x = part(x)
            except RuntimeError:
                lines.append(f"{type(part).__name__} fails on {' × '.join(map(str, x.shape[1:]))}")
                break
            lines.append(f"{type(part).__name__} → {' × '.join(map(str, x.shape[1:]))}")
    at = next((n for n, (a, b) in enumerate(zip(lines, expected, strict=False)) if a != b), None)
    if at is not None:
        shown = f"yours    part {at}: {lines[at]}", f"expected part {at}: {expected[at]}"
        likely = "A stage stands as one nn.Sequential among the parts: put its blocks into the one list of parts."
        nested = lines[at].startswith("Sequential")
        why = f"each part in its place, {said}"
        expect.true(False, why, *shown, f"all      {'; '.join(lines)}", likely=likely if nested else "")
    why = f"as many parts, {said}"
    expect.true(len(lines) == len(expected), why, f"yours    {len(lines)}", f"expected {len(expected)}")
