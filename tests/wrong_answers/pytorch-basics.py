"""Answers to pytorch-basics: wrong ones named for the misconception, and right ones."""

import io
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ to_device


@wrong("to_device", says="use what it returns")
def forgets_the_result(nested, device):
    if isinstance(nested, torch.Tensor):
        nested.to(device)
        return nested
    if isinstance(nested, dict):
        return {k: forgets_the_result(v, device) for k, v in nested.items()}
    return nested


@wrong("to_device", says="text, numbers and None")
def iterates_over_everything(nested, device):
    if isinstance(nested, torch.Tensor):
        return nested.to(device)
    if isinstance(nested, dict):
        return {k: iterates_over_everything(v, device) for k, v in nested.items()}
    try:
        return type(nested)(iterates_over_everything(v, device) for v in nested)
    except TypeError:
        return nested


@wrong("to_device", says="containers come back as new ones")
def fills_the_dict_in_place(nested, device):
    if isinstance(nested, torch.Tensor):
        return nested.to(device)
    if isinstance(nested, dict):
        for k in nested:
            nested[k] = fills_the_dict_in_place(nested[k], device)
        return nested
    if isinstance(nested, list | tuple):
        items = [fills_the_dict_in_place(v, device) for v in nested]
        return type(nested)(*items) if hasattr(nested, "_fields") else type(nested)(items)
    return nested


@wrong("to_device", says="comes back as a list")
def a_list_of_everything(nested, device):
    if isinstance(nested, torch.Tensor):
        return nested.to(device)
    if isinstance(nested, dict):
        return {k: a_list_of_everything(v, device) for k, v in nested.items()}
    if isinstance(nested, (list, tuple)):
        return [a_list_of_everything(v, device) for v in nested]
    return nested


@wrong("to_device", says="takes its items one by one")
def trips_over_named_tuples(nested, device):
    if isinstance(nested, torch.Tensor):
        return nested.to(device)
    if isinstance(nested, dict):
        return {k: trips_over_named_tuples(v, device) for k, v in nested.items()}
    if isinstance(nested, (list, tuple)):
        return type(nested)([trips_over_named_tuples(v, device) for v in nested])
    return nested


@wrong("to_device", says="containers in it are not entered")
def one_level_only(nested, device):
    move = lambda v: v.to(device) if isinstance(v, torch.Tensor) else v  # noqa: E731
    if isinstance(nested, dict):
        return {k: move(v) for k, v in nested.items()}
    if isinstance(nested, (list, tuple)):
        items = [move(v) for v in nested]
        return type(nested)(*items) if hasattr(nested, "_fields") else type(nested)(items)
    return move(nested)


@wrong("to_device", says="NumPy")
def makes_tensors_of_arrays(nested, device):
    if isinstance(nested, (torch.Tensor, np.ndarray)):
        return torch.as_tensor(nested).to(device)
    if isinstance(nested, dict):
        return {k: makes_tensors_of_arrays(v, device) for k, v in nested.items()}
    if isinstance(nested, (list, tuple)):
        items = [makes_tensors_of_arrays(v, device) for v in nested]
        return type(nested)(*items) if hasattr(nested, "_fields") else type(nested)(items)
    return nested


@wrong("to_device", says="containers come back as new ones")
def skips_where_nothing_moves(nested, device):
    if isinstance(nested, torch.Tensor):
        return nested.to(device)
    if torch.device(device).type == "cpu":
        return nested
    if isinstance(nested, dict):
        return {k: skips_where_nothing_moves(v, device) for k, v in nested.items()}
    if isinstance(nested, (list, tuple)):
        items = [skips_where_nothing_moves(v, device) for v in nested]
        return type(nested)(*items) if hasattr(nested, "_fields") else type(nested)(items)
    return nested


@wrong("to_device", says="no .float()")
def everything_in_float(nested, device):
    if isinstance(nested, torch.Tensor):
        return nested.to(device, torch.float32)
    if isinstance(nested, dict):
        return {k: everything_in_float(v, device) for k, v in nested.items()}
    if isinstance(nested, (list, tuple)):
        items = [everything_in_float(v, device) for v in nested]
        return type(nested)(*items) if hasattr(nested, "_fields") else type(nested)(items)
    return nested


@wrong("to_device", says="Make each dict and list anew")
def keeps_what_holds_no_tensor(nested, device):
    if isinstance(nested, torch.Tensor):
        return nested.to(device)
    if isinstance(nested, list) and all(isinstance(v, str) for v in nested):
        return nested
    if isinstance(nested, dict):
        return {k: keeps_what_holds_no_tensor(v, device) for k, v in nested.items()}
    if isinstance(nested, (list, tuple)):
        items = [keeps_what_holds_no_tensor(v, device) for v in nested]
        return type(nested)(*items) if hasattr(nested, "_fields") else type(nested)(items)
    return nested


@wrong("to_device", says="without sorting")
def in_alphabetical_order(nested, device):
    if isinstance(nested, torch.Tensor):
        return nested.to(device)
    if isinstance(nested, dict):
        return {k: in_alphabetical_order(v, device) for k, v in sorted(nested.items(), key=lambda item: item[0])}
    if isinstance(nested, (list, tuple)):
        items = [in_alphabetical_order(v, device) for v in nested]
        return type(nested)(*items) if hasattr(nested, "_fields") else type(nested)(items)
    return nested


@right("to_device")
def by_match(nested, device):
    match nested:
        case torch.Tensor():
            return nested.to(device=device)
        case dict():
            return {key: by_match(value, device) for key, value in nested.items()}
        case tuple() if hasattr(nested, "_fields"):
            return nested._make(by_match(value, device) for value in nested)
        case list() | tuple():
            return type(nested)(by_match(value, device) for value in nested)
    return nested


@right("to_device")
def with_an_inner_function(nested, device):
    def each(value):
        if torch.is_tensor(value):
            return value.to(device, non_blocking=True)
        if isinstance(value, dict):
            return dict(zip(value, map(each, value.values()), strict=True))
        if isinstance(value, tuple):
            return type(value)(*map(each, value)) if hasattr(value, "_fields") else tuple(map(each, value))
        return [each(item) for item in value] if isinstance(value, list) else value

    return each(nested)


@right("to_device")
def what_can_move_moves(nested, device):
    if hasattr(nested, "to"):
        return nested.to(device)
    if isinstance(nested, dict):
        return {k: what_can_move_moves(v, device) for k, v in nested.items()}
    if hasattr(nested, "_fields"):
        return type(nested)(**{k: what_can_move_moves(v, device) for k, v in nested._asdict().items()})
    if type(nested) in (list, tuple):
        return type(nested)(what_can_move_moves(v, device) for v in nested)
    return nested


# ------------------------------------------------------------------------------------------------ pick


@wrong("pick", says="all rows of the columns")
def columns(scores, y):
    return scores[:, y]


@wrong("pick", says="cut from the graph")
def item_by_item(scores, y):
    return torch.tensor([scores[n, y[n]].item() for n in range(len(y))], dtype=scores.dtype)


@wrong("pick", says="Index all rows at once")
def loop_and_stack(scores, y):
    picked = []
    for n in range(len(scores)):
        picked.append(scores[n][y[n]])
    return torch.stack(picked)


@wrong("pick", says="An axis of length 1 is left")
def keeps_the_axis(scores, y):
    return torch.gather(scores, 1, y.unsqueeze(1))


@wrong("pick", says="the only row too")
def squeezes_everything(scores, y):
    return torch.gather(scores, 1, y.unsqueeze(-1)).squeeze()


@wrong("pick", says="0 · ∞ is NaN")
def by_one_hot(scores, y):
    hot = functional.one_hot(y, scores.size(1))
    return (hot * scores).sum(dim=1)


@wrong("pick", says="keeps its diagonal")
def diagonal(scores, y):
    return torch.diagonal(scores[:, y])


@wrong("pick", says="cut")
def through_numpy(scores, y):
    picked = scores.detach().numpy()[range(len(y)), y.numpy()]
    return torch.from_numpy(picked)


@wrong("pick", says="It is float32")
def in_float(scores, y):
    return scores.float().gather(1, y[:, None])[:, 0]


@wrong("pick", says="Probabilities are picked")
def after_a_softmax(scores, y):
    return scores.softmax(1)[torch.arange(len(y)), y]


@wrong("pick", says="y names columns")
def gathers_along_the_rows(scores, y):
    return scores.gather(0, y[None].expand(scores.shape[1], -1).T.contiguous())[:, 0]


@wrong("pick", says="row numbers come first")
def columns_first(scores, y):
    return scores[y, range(len(scores))]


@right("pick")
def two_lists(scores, y):
    return scores[torch.arange(scores.shape[0]), y]


@right("pick")
def take_along(scores, y):
    return torch.take_along_dim(scores, y.view(-1, 1), dim=1).view(-1)


@right("pick")
def in_one_long_row(scores, y):
    N, K = scores.shape
    return scores.reshape(-1)[torch.arange(N) * K + y]


@right("pick")
def by_where(scores, y):
    own = torch.arange(scores.shape[1]) == y[:, None]
    return torch.where(own, scores, torch.zeros_like(scores)).sum(1)


# ------------------------------------------------------------------------------------------------ pairwise_distances


@wrong("pairwise_distances", says="nothing is left but rounding")
def the_short_formula(A, B, rows=8):
    a, b = (A * A).sum(1, keepdim=True), (B * B).sum(1)
    return torch.sqrt(torch.clamp(a + b - 2 * torch.mm(A, B.T), min=0.0))


@wrong("pairwise_distances", says="NaN")
def the_short_formula_unclamped(A, B, rows=8):
    out = []
    for block in A.split(rows):
        out.append(((block**2).sum(1)[:, None] + (B**2).sum(1)[None] - 2 * block @ B.T) ** 0.5)
    return torch.cat(out)


@wrong("pairwise_distances", says="beyond 25 rows")
def torchs_default(A, B, rows=8):
    return torch.cdist(A, B, p=2)


@wrong("pairwise_distances", says="Subtract the rows first")
def centred_first(A, B, rows=8):
    centre = B.mean(0)
    A, B = A - centre, B - centre
    return ((A**2).sum(1)[:, None] + (B**2).sum(1) - 2 * A @ B.T).clamp(min=0).sqrt()


@wrong("pairwise_distances", says="the whole cube")
def all_differences(A, B, rows=8):
    return torch.linalg.vector_norm(A[:, None, :] - B[None, :, :], dim=2)


@wrong("pairwise_distances", says="The last rows are lost")
def whole_blocks_only(A, B, rows=8):
    rows = min(rows, len(A))
    blocks = [A[i * rows : (i + 1) * rows] for i in range(len(A) // rows)]
    return torch.cat([(block[:, None] - B).norm(dim=-1) for block in blocks])


@wrong("pairwise_distances", says="squared distances")
def without_root(A, B, rows=8):
    return torch.cat([((a[:, None] - B) ** 2).sum(2) for a in torch.split(A, rows)])


@wrong("pairwise_distances", says="equal rows have distance 0")
def with_a_safe_root(A, B, rows=8):
    return torch.cat([torch.sqrt(((a[:, None] - B) ** 2).sum(2) + 1e-8) for a in torch.split(A, rows)])


@wrong("pairwise_distances", says="split, not chunk")
def so_many_blocks(A, B, rows=8):
    return torch.cat([(a[:, None] - B).norm(dim=2) for a in torch.chunk(A, rows)])


@wrong("pairwise_distances", says="float64")
def in_double(A, B, rows=8):
    A, B = A.double(), B.double()
    return torch.cat([(a[:, None] - B).norm(dim=2) for a in A.split(rows)])


@wrong("pairwise_distances", says="`rows` not used")
def in_blocks_of_its_own(A, B, rows=8):
    return torch.cat([(a[:, None] - B).norm(dim=2) for a in A.split(16)])


@wrong("pairwise_distances", says="absolute differences")
def taxi(A, B, rows=8):
    return torch.cat([torch.cdist(a, B, p=1) for a in A.split(rows)])


@wrong("pairwise_distances", says="whole cube")
def repeated(A, B, rows=8):
    N, M = len(A), len(B)
    return (A.repeat_interleave(M, 0) - B.repeat(N, 1)).norm(dim=1).reshape(N, M)


@wrong("pairwise_distances", says="The last rows stay 0")
def last_rows_never_filled(A, B, rows=8):
    D = A.new_zeros(len(A), len(B))
    for k in range(len(A) // rows):
        D[k * rows : k * rows + rows] = (A[k * rows : k * rows + rows, None] - B).norm(dim=-1)
    return D


@right("pairwise_distances")
def cdist_told_otherwise(A, B, rows=8):
    return torch.cdist(A, B, compute_mode="donot_use_mm_for_euclid_dist")


@right("pairwise_distances")
def row_by_row(A, B, rows=8):
    return torch.stack([torch.linalg.norm(a - B, dim=1) for a in A])


@right("pairwise_distances")
def entry_by_entry_of_the_width(A, B, rows=8):
    total = A.new_zeros(len(A), len(B))
    for d in range(A.shape[1]):
        total += (A[:, d, None] - B[:, d]) ** 2
    return total.sqrt()


@right("pairwise_distances")
def into_a_table(A, B, rows=8):
    result = torch.empty(len(A), len(B), dtype=A.dtype)
    for start in range(0, len(A), rows):
        block = A[start : start + rows].unsqueeze(1)
        result[start : start + rows] = (block - B).pow(2).sum(dim=-1).sqrt()
    return result


# ------------------------------------------------------------------------------------------------ Linear


def _drawn(inputs, *shape):
    return (2 * torch.rand(*shape) - 1) / inputs**0.5


class _Usual(nn.Module):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__()
        self.weight = nn.Parameter(_drawn(inputs, outputs, inputs))
        self.bias = nn.Parameter(_drawn(inputs, outputs)) if bias else None

    def forward(self, x):
        z = x @ self.weight.T
        return z + self.bias if self.bias is not None else z


@wrong("Linear", says="in no table")
class Tensors(nn.Module):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__()
        self.weight = _drawn(inputs, outputs, inputs).requires_grad_()
        self.bias = _drawn(inputs, outputs).requires_grad_() if bias else None

    def forward(self, x):
        return functional.linear(x, self.weight, self.bias)


@wrong("Linear", says="super().__init__()")
class NoSuper(nn.Module):
    def __init__(self, inputs, outputs, bias=True):
        self.weight = nn.Parameter(_drawn(inputs, outputs, inputs))
        self.bias = nn.Parameter(_drawn(inputs, outputs)) if bias else None

    def forward(self, x):
        return functional.linear(x, self.weight, self.bias)


@wrong("Linear", says="other way round")
class Transposed(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs, bias)
        self.weight = nn.Parameter(_drawn(inputs, inputs, outputs))

    def forward(self, x):
        z = x @ self.weight
        return z if self.bias is None else z + self.bias


@wrong("Linear", says="is all 0. nn.Linear draws it")
class BiasOfZeros(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs, bias)
        if bias:
            nn.init.zeros_(self.bias)


@wrong("Linear", says="normal distribution")
class Normal(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs, bias)
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.randn(outputs) * inputs**-0.5) if bias else None


@wrong("Linear", says="bound = inputs**-0.5")
class KaimingForRelu(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs, bias)
        nn.init.kaiming_uniform_(self.weight)


@wrong("Linear", says="ambiguous")
class IfBias(_Usual):
    def forward(self, x):
        z = x @ self.weight.T
        return z + self.bias if self.bias else z


@wrong("Linear", says="reaches it")
class ByData(_Usual):
    def forward(self, x):
        z = x @ self.weight.data.T
        return z if self.bias is None else z + self.bias


@wrong("Linear", says="self must be a matrix")
class TwoAxesOnly(_Usual):
    def forward(self, x):
        z = torch.mm(x, self.weight.T)
        return z if self.bias is None else z + self.bias


@wrong("Linear", says="drawn once")
class OnlyOnePerWidth(_Usual):
    drawn = {}  # noqa: RUF012

    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs, bias)
        key = (inputs, outputs)
        self.drawn.setdefault(key, self.weight.detach().clone())
        self.weight = nn.Parameter(self.drawn[key].clone())


@wrong("Linear", says="what state_dict() holds")
class FrozenBias(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs)
        if not bias:
            self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)


@wrong("Linear", says="The bound is 1/√outputs")
class BiasByItsOwnWidth(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs, bias)
        if bias:
            self.bias = nn.Parameter(_drawn(outputs, outputs))


@wrong("Linear", says="class Linear(nn.Module)")
class PlainObject:
    def __init__(self, inputs, outputs, bias=True):
        self.weight = nn.Parameter(_drawn(inputs, outputs, inputs))
        self.bias = nn.Parameter(_drawn(inputs, outputs)) if bias else None

    def __call__(self, x):
        return functional.linear(x, self.weight, self.bias)


@wrong("Linear", says="global generator")
class DrawnByNumpy(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__(inputs, outputs, bias)
        bound = inputs**-0.5
        w = np.random.uniform(-bound, bound, (outputs, inputs))
        self.weight = nn.Parameter(torch.tensor(w, dtype=torch.float32))


@wrong("Linear", says="Is the bias drawn before it?")
class BiasFirst(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        nn.Module.__init__(self)
        b = _drawn(inputs, outputs) if bias else None
        self.weight = nn.Parameter(_drawn(inputs, outputs, inputs))
        self.bias = nn.Parameter(b) if bias else None


@wrong("Linear", says="Is a seed set inside?")
class SeededInside(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        torch.manual_seed(42)
        super().__init__(inputs, outputs, bias)


@right("Linear")
class WithFunctional(_Usual):
    def forward(self, x):
        return functional.linear(x, self.weight, self.bias)


@right("Linear")
class RegisteredByName(nn.Module):
    def __init__(self, inputs, outputs, bias=True):
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.empty(outputs, inputs)))
        self.register_parameter("bias", nn.Parameter(torch.empty(outputs)) if bias else None)
        with torch.no_grad():
            for p in self.parameters():
                p.uniform_(-1 / inputs**0.5, 1 / inputs**0.5)

    def forward(self, x):
        z = torch.einsum("...d,kd->...k", x, self.weight)
        return z if self.bias is None else z + self.bias


@right("Linear")
class AsTorchDoes(_Usual):
    def __init__(self, inputs, outputs, bias=True):
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -(inputs**-0.5), inputs**-0.5)


# ------------------------------------------------------------------------------------------------ ResidualMLP


class _Net(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)])

    def forward(self, x):
        for layer in self.layers[:-1]:
            a = layer(x).relu()
            x = x + a if a.shape == x.shape else a
        return self.layers[-1](x)


@wrong("ResidualMLP", says="plain list")
class PlainList(_Net):
    def __init__(self, widths):
        super().__init__(widths)
        layers = list(self.layers)
        del self.layers
        self.layers = layers


@wrong("ResidualMLP", says="changes its input")
class AddsInPlace(_Net):
    def forward(self, x):
        for layer in self.layers[:-1]:
            a = layer(x).relu()
            if a.shape == x.shape:
                x += a
            else:
                x = a
        return self.layers[-1](x)


@wrong("ResidualMLP", says="no way around")
class Plain(_Net):
    def forward(self, x):
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


@wrong("ResidualMLP", says="relu comes after the sum")
class ReluAfterTheSum(_Net):
    def forward(self, x):
        for layer in self.layers[:-1]:
            z = layer(x)
            x = torch.relu(x + z) if z.shape == x.shape else torch.relu(z)
        return self.layers[-1](x)


@wrong("ResidualMLP", says="it gives z itself")
class LastLikeTheOthers(_Net):
    def forward(self, x):
        for layer in self.layers:
            a = layer(x).relu()
            x = x + a if a.shape == x.shape else a
        return x


@wrong("ResidualMLP", says="way around where its widths are equal")
class LastWithSum(_Net):
    def forward(self, x):
        for i, layer in enumerate(self.layers):
            z = layer(x)
            a = z.relu() if i < len(self.layers) - 1 else z
            x = x + a if a.shape == x.shape else a
        return x


@wrong("ResidualMLP", says="Each pair of widths has its own")
class OneLayerForAll(_Net):
    def __init__(self, widths):
        super().__init__(widths)
        known = {}
        layers = [known.setdefault((w, v), nn.Linear(w, v)) for w, v in zip(widths[:-1], widths[1:], strict=True)]
        self.layers = nn.ModuleList(layers)


@wrong("ResidualMLP", says="names and shapes")
class FixedDepth(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(widths[0], widths[1]), nn.Linear(widths[1], widths[-1])])

    def forward(self, x):
        a = self.layers[0](x).relu()
        return self.layers[1](x + a if a.shape == x.shape else a)


@wrong("ResidualMLP", says="changes its input widths")
class EatsTheWidths(_Net):
    def __init__(self, widths):
        super().__init__(list(widths))
        first = widths.pop(0)
        layers = []
        while widths:
            layers.append(nn.Linear(first, widths[0]))
            first = widths.pop(0)
        self.layers = nn.ModuleList(layers)


@wrong("ResidualMLP", says=None)
class AroundToTheFirst(_Net):
    def forward(self, x):
        start = x
        for layer in self.layers[:-1]:
            a = layer(x).relu()
            x = start + a if a.shape == start.shape else a
        return self.layers[-1](x)


@wrong("ResidualMLP", says="names and shapes")
class Named(nn.Module):
    def __init__(self, widths):
        super().__init__()
        for i, pair in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            setattr(self, f"layer{i}", nn.Linear(*pair))

    def forward(self, x):
        *hidden, last = self.children()
        for layer in hidden:
            a = layer(x).relu()
            x = x + a if a.shape == x.shape else a
        return last(x)


@right("ResidualMLP")
class ByWeightShape(_Net):
    def forward(self, x):
        for layer in list(self.layers)[:-1]:
            a = functional.relu(layer(x))
            if layer.weight.shape[0] == layer.weight.shape[1]:
                a = a + x
            x = a
        return self.layers[-1](x)


@right("ResidualMLP")
class AppendedOneByOne(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.widths, self.layers = tuple(widths), nn.ModuleList()
        for i in range(1, len(widths)):
            self.layers.append(nn.Linear(widths[i - 1], widths[i]))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            if i == len(self.layers) - 1:
                return layer(x)
            way = x if self.widths[i] == self.widths[i + 1] else 0
            x = way + layer(x).clamp(min=0)
        return None


# ------------------------------------------------------------------------------------------------ train_step


@wrong("train_step", says="loss.item()")
def returns_the_tensor(model, batch, optimizer):
    model.train()
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss


@wrong("train_step", says="Old gradients are not cleared")
def clears_nothing(model, batch, optimizer):
    model.train()
    x, y = batch
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("train_step", says="Old gradients are not cleared")
def clears_at_the_end(model, batch, optimizer):
    model.train()
    x, y = batch
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@wrong("train_step", says="no gradients")
def clears_between(model, batch, optimizer):
    model.train()
    x, y = batch
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@wrong("train_step", says="whatever mode")
def any_mode(model, batch, optimizer):
    x, y = batch
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return float(loss)


@wrong("train_step", says="softmax")
def softmax_twice(model, batch, optimizer):
    x, y = batch
    model.train()
    optimizer.zero_grad()
    loss = functional.cross_entropy(torch.softmax(model(x), dim=1), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@wrong("train_step", says="forward passes")
def two_passes(model, batch, optimizer):
    x, y = batch
    model.train()
    optimizer.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    loss = functional.cross_entropy(model(x), y).item()
    optimizer.step()
    return loss


@wrong("train_step", says="from before the step")
def loss_afterwards(model, batch, optimizer):
    x, y = batch
    model.train()
    optimizer.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    with torch.no_grad():
        return functional.cross_entropy(model(x), y).item()


@wrong("train_step", says="do not move")
def forgets_the_step(model, batch, optimizer):
    x, y = batch
    model.train()
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    return loss.item()


@wrong("train_step", says=None)
def its_own_optimizer(model, batch, optimizer):
    x, y = batch
    model.train()
    own = torch.optim.SGD(model.parameters(), lr=0.5)
    own.zero_grad()
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    own.step()
    return loss.item()


@wrong("train_step", says="changed after backward")
def clips_too(model, batch, optimizer):
    x, y = batch
    model.train()
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    return loss.item()


@wrong("train_step", says="summed")
def summed(model, batch, optimizer):
    x, y = batch
    model.train()
    optimizer.zero_grad()
    loss = nn.CrossEntropyLoss(reduction="sum")(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


@right("train_step")
def with_a_closure(model, batch, optimizer):
    x, y = batch
    model.train()

    def closure():
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    return optimizer.step(closure).item()


@right("train_step")
def by_log_softmax(model, batch, optimizer):
    model.train()
    log_p = model(batch[0]).log_softmax(-1)
    loss = -log_p.gather(1, batch[1][:, None]).mean()
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()
    return float(loss)


@right("train_step")
def gradients_put_in(model, batch, optimizer):
    x, y = batch
    model.train()
    loss = nn.CrossEntropyLoss()(model(x), y)
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    for p, g in zip(learning, torch.autograd.grad(loss, learning), strict=True):
        p.grad = g
    optimizer.step()
    return loss.detach().item()


# ------------------------------------------------------------------------------------------------ record_activations


def _leaves(model):
    return [(name, m) for name, m in model.named_modules() if not any(True for _ in m.children())]


@wrong("record_activations", says="The hooks stay")
def leaves_its_hooks(model, x):
    found = {}
    for name, module in _leaves(model):
        module.register_forward_hook(
            lambda m, i, o, name=name: found.update({name: o.detach().clone()}) if torch.is_tensor(o) else None
        )
    with torch.no_grad():
        model(x)
    return found


@wrong("record_activations", says="Where model(x) raises, the hooks stay")
def removes_if_all_goes_well(model, x):
    found, handles = {}, []
    for name, module in _leaves(model):

        def hook(m, i, o, name=name):
            if torch.is_tensor(o):
                found[name] = o.detach().clone()

        handles.append(module.register_forward_hook(hook))
    model(x)
    for handle in handles:
        handle.remove()
    return found


@wrong("record_activations", says="under the last name")
def the_last_name_for_all(model, x):
    found, handles = {}, []
    try:
        for name, module in _leaves(model):
            handles.append(module.register_forward_hook(lambda m, i, o: found.update({name: o})))  # noqa: B023
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


@wrong("record_activations", says="works in place")
def keeps_the_tensor(model, x):
    found, handles = {}, []

    def recorder(name):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.detach()

        return hook

    handles = [m.register_forward_hook(recorder(n)) for n, m in _leaves(model)]
    try:
        model(x)
    finally:
        [handle.remove() for handle in handles]
    return found


@wrong("record_activations", says="leaves only")
def records_everything(model, x):
    found, handles = {}, []

    def recorder(name):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.detach().clone()

        return hook

    handles = [m.register_forward_hook(recorder(n)) for n, m in model.named_modules()]
    try:
        model(x)
    finally:
        [handle.remove() for handle in handles]
    return found


@wrong("record_activations", says="named_modules() goes down")
def children_only(model, x):
    found, handles = {}, []

    def recorder(name):
        def hook(module, args, output):
            found[name] = output.detach().clone()

        return hook

    handles = [m.register_forward_hook(recorder(n)) for n, m in model.named_children() if not list(m.children())]
    try:
        model(x)
    finally:
        [handle.remove() for handle in handles]
    return found


@wrong("record_activations", says="swallows it")
def keeps_quiet_about_errors(model, x):
    found, handles = {}, []

    def recorder(name):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.detach().clone()

        return hook

    handles = [m.register_forward_hook(recorder(n)) for n, m in _leaves(model)]
    try:
        model(x)
    except Exception:
        return {}
    finally:
        [handle.remove() for handle in handles]
    return found


@wrong("record_activations", says="evaluation mode")
def in_evaluation_mode(model, x):
    found, handles = {}, []

    def recorder(name):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.detach().clone()

        return hook

    handles = [m.register_forward_hook(recorder(n)) for n, m in _leaves(model)]
    try:
        model.eval()
        model(x)
    finally:
        [handle.remove() for handle in handles]
    return found


@wrong("record_activations", says="linked to its graph")
def with_gradients(model, x):
    found = {}

    def recorder(name):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.clone()

        return hook

    handles = [m.register_forward_hook(recorder(n)) for n, m in _leaves(model)]
    try:
        model(x)
    finally:
        [handle.remove() for handle in handles]
    return found


@wrong("record_activations", says="also those that were there before")
def clears_all_hooks(model, x):
    found = {}

    def recorder(name):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.detach().clone()

        return hook

    try:
        for n, m in _leaves(model):
            m.register_forward_hook(recorder(n))
        with torch.no_grad():
            model(x)
    finally:
        for m in model.modules():
            m._forward_hooks.clear()
    return found


@wrong("record_activations", says="which leaves")
def one_record_for_ever(model, x, found={}):  # noqa: B006
    def recorder(name):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.detach().clone()

        return hook

    handles = [m.register_forward_hook(recorder(n)) for n, m in _leaves(model)]
    try:
        model(x)
    finally:
        [handle.remove() for handle in handles]
    return found


@wrong("record_activations", says="which leaves")
def in_the_order_of_the_modules(model, x):
    found = {name: None for name, _ in _leaves(model)}

    def recorder(name):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.detach().clone()

        return hook

    handles = [m.register_forward_hook(recorder(n)) for n, m in _leaves(model)]
    try:
        model(x)
    finally:
        [handle.remove() for handle in handles]
    return {name: a for name, a in found.items() if a is not None}


@wrong("record_activations", says="third argument of the hook")
def what_goes_in(model, x):
    found = {}
    handles = [
        m.register_forward_hook(lambda m, args, output, n=n: found.update({n: args[0].detach().clone()}))
        for n, m in _leaves(model)
    ]
    try:
        with torch.no_grad():
            model(x)
    finally:
        [handle.remove() for handle in handles]
    return found


@wrong("record_activations", says="is a leaf")
def below_the_model_only(model, x):
    found, handles = {}, []

    def recorder(name):
        def hook(module, args, output):
            if isinstance(output, torch.Tensor):
                found[name] = output.detach().clone()

        return hook

    handles = [m.register_forward_hook(recorder(n)) for n, m in _leaves(model) if n]
    try:
        with torch.no_grad():
            model(x)
    finally:
        [handle.remove() for handle in handles]
    return found


@right("record_activations")
def with_an_exit_stack(model, x):
    import contextlib

    found = {}
    with contextlib.ExitStack() as stack, torch.inference_mode():
        for name, module in _leaves(model):

            def hook(_, __, output, name=name):
                if torch.is_tensor(output):
                    found[name] = output.clone()

            stack.callback(module.register_forward_hook(hook).remove)
        model(x)
    return {name: a.clone().detach() for name, a in found.items()}


@right("record_activations")
def by_global_hook(model, x):
    names, found = {m: n for n, m in _leaves(model)}, {}

    def hook(module, args, output):
        if module in names and torch.is_tensor(output):
            found[names[module]] = output.detach().clone()

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        model(x)
    finally:
        handle.remove()
    return found


# ------------------------------------------------------------------------------------------------ save_checkpoint


def _all(model, optimizer, facts):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **facts}


@wrong("save_checkpoint", says="Write to another name")
def straight_to_path(path, model, optimizer, facts):
    torch.save(_all(model, optimizer, facts), path)


@wrong("save_checkpoint", says="another name")
def in_memory_first(path, model, optimizer, facts):
    buffer = io.BytesIO()
    torch.save(_all(model, optimizer, facts), buffer)
    path.write_bytes(buffer.getvalue())


@wrong("save_checkpoint", says="left behind")
def leaves_the_part(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    torch.save(_all(model, optimizer, facts), part)
    os.replace(part, path)


@wrong("save_checkpoint", says="changes its input facts")
def into_the_facts(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    facts["model"], facts["optimizer"] = model.state_dict(), optimizer.state_dict()
    try:
        torch.save(facts, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@wrong("save_checkpoint", says="another folder")
def in_the_systems_folder(path, model, optimizer, facts):
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / path.name
        torch.save(_all(model, optimizer, facts), part)
        shutil.move(part, path)


@wrong("save_checkpoint", says="weights_only=True")
def whole_objects(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    try:
        torch.save({"model": model, "optimizer": optimizer, **facts}, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@wrong("save_checkpoint", says="optimiser's state is missing")
def without_the_optimizer(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    try:
        torch.save({"model": model.state_dict(), **facts}, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@wrong("save_checkpoint", says="the caller")
def swallows(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    try:
        torch.save(_all(model, optimizer, facts), part)
        os.replace(part, path)
    except Exception:
        part.unlink(missing_ok=True)


@wrong("save_checkpoint", says="one piece")
def deletes_first(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    try:
        torch.save(_all(model, optimizer, facts), part)
        if path.exists():
            path.unlink()
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


@wrong("save_checkpoint", says="one piece")
def copies(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    try:
        torch.save(_all(model, optimizer, facts), part)
        shutil.copy(part, path)
    finally:
        part.unlink(missing_ok=True)


@wrong("save_checkpoint", says="facts")
def facts_apart(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    try:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "facts": facts}, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@wrong("save_checkpoint", says="files in its folder")
def keeps_a_backup(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    try:
        torch.save(_all(model, optimizer, facts), part)
        if path.exists():
            shutil.copy(path, path.with_suffix(".old"))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@wrong("save_checkpoint", says="Ctrl-C is no Exception")
def only_exceptions(path, model, optimizer, facts):
    part = path.with_name(f"{path.name}.tmp")
    try:
        torch.save(_all(model, optimizer, facts), part)
        os.replace(part, path)
    except Exception:
        part.unlink(missing_ok=True)
        raise


@wrong("save_checkpoint", says="os.replace both within the try")
def replaces_outside_the_try(path, model, optimizer, facts):
    part = path.with_name(f"{path.name}.tmp")
    try:
        torch.save(_all(model, optimizer, facts), part)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)


@wrong("save_checkpoint", says="with_suffix gives path itself")
def by_suffix(path, model, optimizer, facts):
    part = path.with_suffix(".tmp")
    try:
        torch.save(_all(model, optimizer, facts), part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@right("save_checkpoint")
def by_a_named_temporary_file(path, model, optimizer, facts):
    file = tempfile.NamedTemporaryFile(dir=path.parent, delete=False)  # noqa: SIM115
    try:
        with file:
            torch.save(_all(model, optimizer, facts), file)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except BaseException:
        os.unlink(file.name)
        raise


@right("save_checkpoint")
def from_memory(path, model, optimizer, facts):
    buffer, part = io.BytesIO(), path.parent / f".{path.name}.{os.getpid()}"
    torch.save(_all(model, optimizer, facts), buffer)
    try:
        part.write_bytes(buffer.getvalue())
        part.rename(path)
    finally:
        if part.exists():
            part.unlink()


# ------------------------------------------------------------------------------------------------ load_checkpoint


def _rest(saved):
    return {k: v for k, v in saved.items() if k not in ("model", "optimizer")}


def _compared(path, model, saved):
    here, there = model.state_dict(), saved["model"]
    for name in sorted(here.keys() | there.keys()):
        if name not in here or name not in there or here[name].shape != there[name].shape:
            raise ValueError(f"{path}: {name} does not fit")


@wrong("load_checkpoint", says="code")
def reads_anything(path, model, optimizer=None):
    saved = torch.load(path, weights_only=False)
    _compared(path, model, saved)
    model.load_state_dict(saved["model"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="compare first")
def tries_and_translates(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    try:
        model.load_state_dict(saved["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit: {error}") from error
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="RuntimeError")
def lets_torch_say_it(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    model.load_state_dict(saved["model"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="compare the shapes too")
def names_only(path, model, optimizer=None):
    saved = torch.load(path, map_location="cpu", weights_only=True)
    for name in saved["model"].keys() ^ model.state_dict().keys():
        raise ValueError(f"{path}: {name}")
    model.load_state_dict(saved["model"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="ValueError")
def one_way_only(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    for name, value in model.state_dict().items():
        if name not in saved["model"] or saved["model"][name].shape != value.shape:
            raise ValueError(f"{path}: {name}")
    model.load_state_dict(saved["model"], strict=False)
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="ValueError")
def not_strict(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    for name, value in model.state_dict().items():
        if name in saved["model"] and saved["model"][name].shape != value.shape:
            raise ValueError(f"{path}: {name}")
    model.load_state_dict(saved["model"], strict=False)
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="state is not restored")
def forgets_the_optimizer(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    _compared(path, model, saved)
    model.load_state_dict(saved["model"])
    return _rest(saved)


@wrong("load_checkpoint", says="optimizer stays as it was")
def the_optimizer_comes_first(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    _compared(path, model, saved)
    model.load_state_dict(saved["model"])
    return _rest(saved)


@wrong("load_checkpoint", says="NoneType")
def always_an_optimizer(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    _compared(path, model, saved)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="not part of the facts")
def everything_comes_back(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    _compared(path, model, saved)
    model.load_state_dict(saved["model"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return saved


@wrong("load_checkpoint", says="name the file and one tensor")
def says_nothing(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    here = {k: v.shape for k, v in model.state_dict().items()}
    if here != {k: v.shape for k, v in saved["model"].items()}:
        raise ValueError("wrong architecture")
    model.load_state_dict(saved["model"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="no assign=True")
def assigned(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    _compared(path, model, saved)
    model.load_state_dict(saved["model"], assign=True)
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="another mode")
def ready_for_use(path, model, optimizer=None):
    saved = torch.load(path, map_location="cpu", weights_only=True)
    _compared(path, model, saved)
    model.load_state_dict(saved["model"])
    model.eval()
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="Only parameters are compared")
def parameters_only(path, model, optimizer=None):
    saved = torch.load(path, map_location="cpu", weights_only=True)
    for name, p in model.named_parameters():
        if name not in saved["model"] or saved["model"][name].shape != p.shape:
            raise ValueError(f"{path}: {name}")
    for name in saved["model"].keys() - model.state_dict().keys():
        raise ValueError(f"{path}: {name}")
    model.load_state_dict(saved["model"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="a transposed weight has as many")
def as_many_numbers(path, model, optimizer=None):
    saved = torch.load(path, map_location="cpu", weights_only=True)
    here, there = model.state_dict(), saved["model"]
    for name in here.keys() | there.keys():
        if name not in here or name not in there or here[name].numel() != there[name].numel():
            raise ValueError(f"{path}: {name}")
    with torch.no_grad():
        for name, value in here.items():
            value.copy_(there[name].view(value.shape))
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="onto the CPU")
def where_it_came_from(path, model, optimizer=None):
    saved = torch.load(path, weights_only=True)
    _compared(path, model, saved)
    model.load_state_dict(saved["model"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@wrong("load_checkpoint", says="found too late")
def names_of_the_file(path, model, optimizer=None):
    saved = torch.load(path, map_location="cpu", weights_only=True)
    own = model.state_dict()
    for name, value in saved["model"].items():
        if name not in own or value.shape != own[name].shape:
            raise ValueError(f"{path}: {name}")
    model.load_state_dict(saved["model"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@right("load_checkpoint")
def into_a_copy_first(path, model, optimizer=None):
    import copy

    saved = torch.load(path, map_location="cpu", weights_only=True)
    try:
        copy.deepcopy(model).load_state_dict(saved["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} is another architecture: {error}") from error
    model.load_state_dict(saved["model"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)


@right("load_checkpoint")
def puts_it_back(path, model, optimizer=None):
    saved = torch.load(path, map_location=torch.device("cpu"), weights_only=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        model.load_state_dict(saved.pop("model"))
    except RuntimeError as error:
        model.load_state_dict(before)
        raise ValueError(f"{path.name}: {error}") from None
    state = saved.pop("optimizer")
    if optimizer:
        optimizer.load_state_dict(state)
    return saved


@right("load_checkpoint")
def all_misfits_at_once(path, model, optimizer=None):
    saved = torch.load(str(path), "cpu", weights_only=True)
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in saved["model"].items()}
    misfits = dict(here.items() ^ there.items())
    if misfits:
        raise ValueError(f"{', '.join(misfits)} do not fit what is in {path}")
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(saved["model"][name])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimizer"])
    return _rest(saved)
