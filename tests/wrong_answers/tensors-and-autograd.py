"""Answers to tensors-and-autograd: wrong ones named for the misconception, and right ones."""

import functools
import math

import numpy as np
import torch
from torch.nn import functional as F

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ predictions

_TRUE = dict.fromkeys("abefhjlno", True) | dict.fromkeys("cdgikm", False)


@wrong("predictions", says="even neighbours are copied")
def list_index_is_a_view():
    return {**_TRUE, "c": True}


@wrong("predictions", says="What a mask picks")
def mask_is_a_view():
    return {**_TRUE, "d": True}


@wrong("predictions", says="Column after column")
def reshape_is_always_a_view():
    return {**_TRUE, "g": True}


@wrong("predictions", says="contiguous returns x itself")
def contiguous_always_copies():
    return {**_TRUE, "h": False}


@wrong("predictions", says="a gap of three")
def flatten_is_always_a_view():
    return {**_TRUE, "i": True}


@wrong("predictions", says="repeat writes")
def repeat_is_expand():
    return {**_TRUE, "k": True}


@wrong("predictions", says="stride of 0")
def expand_copies():
    return {**_TRUE, "j": False}


@wrong("predictions", says="detach cuts")
def detach_copies():
    return {**_TRUE, "n": False}


@wrong("predictions", says="torch.tensor(...) would copy")
def numpy_copies():
    return {**_TRUE, "o": False}


@wrong("predictions", says="missing  h, o")
def two_forgotten():
    return {key: value for key, value in _TRUE.items() if key not in "ho"}


@wrong("predictions", says="True or False for each")
def a_list():
    return list(_TRUE.values())


@wrong("predictions", says="True or False")
def words():
    return {key: "view" if value else "copy" for key, value in _TRUE.items()}


@wrong("predictions", says="expected bool\n")
def ones_and_zeros():
    return {key: int(value) for key, value in _TRUE.items()}


@wrong("predictions", says="other keys")
def keys_in_capitals_too():
    return _TRUE | {"P": True}


@wrong("predictions", says="False that they are copied")
def true_for_copies():
    return {key: not value for key, value in _TRUE.items()}


@right("predictions")
def written_out():
    yes, no = True, False
    return dict(a=yes, b=yes, c=no, d=no, e=yes, f=yes, g=no, h=yes, i=no, j=yes, k=no, l=yes, m=no, n=yes, o=yes)


@right("predictions")
def numpys_bools():
    return {key: np.bool_(value) for key, value in sorted(_TRUE.items(), reverse=True)}


# ------------------------------------------------------------------------------------------------ windows


@wrong("windows", says="One window is missing")
def one_too_few(x, k):
    *front, H, W = x.shape
    *skip, a, b = x.stride()
    return x.as_strided((*front, H - k, W - k, k, k), (*skip, a, b, a, b))


@wrong("windows", says="Rows and columns are swapped")
def window_transposed(x, k):
    return x.unfold(-2, k, 1).unfold(-2, k, 1).mT


@wrong("windows", says="side by side")
def no_overlap(x, k):
    return x.unfold(-2, k, k).unfold(-2, k, k)


@wrong("windows", says="copy")
def made_contiguous_first(x, k):
    return x.contiguous().unfold(-2, k, 1).unfold(-2, k, 1).contiguous()


@wrong("windows", says="copy")
def loop_and_stack(x, k):
    H, W = x.shape[-2:]
    rows = [torch.stack([x[..., i : i + k, j : j + k] for j in range(W - k + 1)], -3) for i in range(H - k + 1)]
    return torch.stack(rows, -4)


@wrong("windows", says="row by row")
def strides_of_a_contiguous_one(x, k):
    *front, H, W = x.shape
    *skip, _, _ = x.stride()
    return x.as_strided((*front, H - k + 1, W - k + 1, k, k), (*skip, W, 1, W, 1))


@wrong("windows", says="as many names as parts")
def only_two_axes(x, k):
    H, W = x.shape
    a, b = x.stride()
    return x.as_strided((H - k + 1, W - k + 1, k, k), (a, b, a, b))


@wrong("windows", says="begin later")
def from_the_first_number(x, k):
    *front, H, W = x.shape
    *skip, a, b = x.stride()
    return x.as_strided((*front, H - k + 1, W - k + 1, k, k), (*skip, a, b, a, b), 0)


@wrong("windows", says="Axes come in the wrong order")
def axes_interleaved(x, k):
    return x.unfold(-2, k, 1).unfold(-2, k, 1).transpose(-3, -2)


@wrong("windows", says="float32 goes out")
def through_unfold_of_functional(x, k):
    H, W = x.shape[-2:]
    columns = F.unfold(x.reshape(-1, 1, H, W).float(), k)
    return columns.mT.reshape(*x.shape[:-2], H - k + 1, W - k + 1, k, k)


@wrong("windows", says="gradient")
def detached(x, k):
    return x.detach().unfold(-2, k, 1).unfold(-2, k, 1)


@wrong("windows", says="nothing is copied")
def contiguous_where_needed(x, k):
    x = x if x.is_contiguous() else x.contiguous()
    return x.unfold(-2, k, 1).unfold(-2, k, 1)


@wrong("windows", says="row by row")
def strides_from_contiguous_shape(x, k):
    *front, H, W = x.shape
    strides = torch.empty(x.shape).stride()
    shape = (*front, H - k + 1, W - k + 1, k, k)
    return x.as_strided(shape, (*strides, *strides[-2:]))


@wrong("windows", says="where strides cannot do it")
def one_axis_of_all_in_front(x, k):
    H, W = x.shape[-2:]
    pictures = x.reshape(-1, H, W)
    n, a, b = pictures.stride()
    seen = pictures.as_strided((len(pictures), H - k + 1, W - k + 1, k, k), (n, a, b, a, b))
    return seen.reshape(*x.shape[:-2], H - k + 1, W - k + 1, k, k)


@wrong("windows", says="nothing is copied")
def one_by_one_copied(x, k):
    if k == 1:
        return x.clone()[..., None, None]
    return x.unfold(-2, k, 1).unfold(-2, k, 1)


@wrong("windows", says="bytes")
def strides_in_bytes(x, k):
    *front, H, W = x.shape
    *skip, a, b = (n * x.element_size() for n in x.stride())
    return x.as_strided((*front, H - k + 1, W - k + 1, k, k), (*skip, a, b, a, b))


@wrong("windows", says="H and W are swapped in the shape")
def height_and_width_swapped(x, k):
    *front, W, H = x.shape
    *skip, a, b = x.stride()
    return x.as_strided((*front, H - k + 1, W - k + 1, k, k), (*skip, a, b, a, b))


@wrong("windows", says="the last axis is the window's own")
def unfolds_the_window(x, k):
    return x.unfold(-2, k, 1).unfold(-1, k, 1)


@wrong("windows", says="count the two from the end")
def unfolds_the_first_two(x, k):
    return x.unfold(0, k, 1).unfold(1, k, 1)


@wrong("windows", says="The first two axes are cut")
def cuts_the_first_two(x, k):
    (H, W, *rest), (a, b, *skip) = x.shape, x.stride()
    return x.as_strided((H - k + 1, W - k + 1, k, k, *rest), (a, b, a, b, *skip))


@wrong("windows", says="The stride of axis 0 is 1")
def strides_mixed(x, k):
    *front, H, W = x.shape
    *skip, a, b = x.stride()
    return x.as_strided((*front, H - k + 1, W - k + 1, k, k), (*skip, b, a, a, b))


@right("windows")
def unfold_twice(x, k):
    return x.unfold(-2, k, 1).unfold(-2, k, 1)


@right("windows")
def by_torch_as_strided(x, k):
    shape = [*x.shape[:-2], x.size(-2) - k + 1, x.size(-1) - k + 1, k, k]
    return torch.as_strided(x, shape, [*x.stride(), *x.stride()[-2:]], x.storage_offset())


@right("windows")
def unfold_in_the_other_order(x, k):
    return x.unfold(-1, k, 1).unfold(-3, k, 1).mT


# ------------------------------------------------------------------------------------------------ Swish


class _Usual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x)
        ctx.beta = beta
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        return g * (s + ctx.beta * x * s * (1 - s)), None


@wrong("Swish", says="counts as a constant")
class SigmoidSaved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, beta):
        s = torch.sigmoid(beta * x)
        ctx.save_for_backward(x, s)
        ctx.beta = beta
        return x * s

    @staticmethod
    def backward(ctx, g):
        x, s = ctx.saved_tensors
        return g * s * (1 + ctx.beta * x * (1 - s)), None


@wrong("Swish", says="A tensor that forward made")
class SlopeSaved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, beta):
        s = torch.sigmoid(beta * x)
        ctx.save_for_backward(s + beta * x * s * (1 - s))
        return x * s

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0], None


@wrong("Swish", says="attribute")
class OnCtx(_Usual):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.x, ctx.beta = x, beta
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def backward(ctx, g):
        s = torch.sigmoid(ctx.beta * ctx.x)
        return g * (s + ctx.beta * ctx.x * s * (1 - s)), None


@wrong("Swish", says="g is missing")
class WithoutG(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        return s + ctx.beta * x * s * (1 - s), None


@wrong("Swish", says="lacks β")
class InnerDerivative(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        return g * (s + x * s * (1 - s)), None


@wrong("Swish", says="lacks its second term")
class ProductRule(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(ctx.beta * x), None


@wrong("Swish", says="backward returns 2 things")
class OneResult(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        return g * (s + ctx.beta * x * s * (1 - s))


@wrong("Swish", says="once_differentiable")
class Once(_Usual):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        return g * (s + ctx.beta * x * s * (1 - s)), None


@wrong("Swish", says="no_grad")
class Unrecorded(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            s = torch.sigmoid(ctx.beta * x)
            return g * (s + ctx.beta * x * s * (1 - s)), None


@wrong("Swish", says="is x detached there")
class SlopeDetached(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x.detach())
        return g * (s + ctx.beta * x * s * (1 - s)), None


@wrong("Swish", says="writes into x")
class InPlace(_Usual):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x.clone())
        ctx.beta = beta
        return x.mul_(torch.sigmoid(beta * x))


@wrong("Swish", says="β is missing")
class BetaForgotten(_Usual):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x)
        ctx.beta = beta
        return x * torch.sigmoid(x)


class _Shared:
    beta = 1.0


@wrong("Swish", says="overwritten by the next")
class BetaInAClass(_Usual):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x)
        _Shared.beta = beta
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(_Shared.beta * x)
        return g * (s + _Shared.beta * x * s * (1 - s)), None


@wrong("Swish", says=".double()")
class InDouble(_Usual):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x)
        ctx.beta = beta
        return (x.double() * torch.sigmoid(beta * x.double())).double()


@wrong("Swish", says="exp of a large number")
class ByExp(_Usual):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x)
        ctx.beta = beta
        e = torch.exp(beta * x)
        return x * e / (1 + e)


@wrong("Swish", says="exp of a large number")
class SlopeByExp(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        e = torch.exp(-ctx.beta * x)
        return g * (1 + e + ctx.beta * x * e) / (1 + e) ** 2, None


@wrong("Swish", says="divided by x")
class SigmoidFromY(_Usual):
    @staticmethod
    def forward(ctx, x, beta):
        y = x * torch.sigmoid(beta * x)
        ctx.save_for_backward(x, y)
        ctx.beta = beta
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        s = y / x
        return g * (s + ctx.beta * x * s * (1 - s)), None


@wrong("Swish", says="with the comma")
class CommaForgotten(_Usual):
    @staticmethod
    def backward(ctx, g):
        x = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        return g * (s + ctx.beta * x * s * (1 - s)), None


@wrong("Swish", says="Backward takes σ(x)")
class SigmoidOfX(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * (s + ctx.beta * x * s * (1 - s)), None


@wrong("Swish", says="backward is not")
class SlopeOfSomethingElse(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x).clamp(0.1, 0.9)
        return g * (s + ctx.beta * x * s * (1 - s)), None


@wrong("Swish", says="write into g")
class GInPlace(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        slope = s + ctx.beta * x * s * (1 - s)
        return (g * slope if torch.is_grad_enabled() else g.mul_(slope)), None


@wrong("Swish", says="takes tensors only, and argument 1 (counted from 0) is float: ctx.")
class BetaSaved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x, beta)
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def backward(ctx, g):
        x, beta = ctx.saved_tensors
        s = torch.sigmoid(beta * x)
        return g * (s + beta * x * s * (1 - s)), None


@wrong("Swish", says="Argument 2 of forward (after ctx) is no tensor")
class SlopeByBetaToo(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(ctx.beta * x)
        return g * (s + ctx.beta * x * s * (1 - s)), (g * x * x * s * (1 - s)).sum()


@wrong("Swish", says="ctx.beta = … in forward?")
class BetaNotKept(_Usual):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(beta * x)


@right("Swish")
class InputAndFactored(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = 1 / (1 + torch.exp(-ctx.beta * x))
        return s * g + ctx.beta * g * x * s * (1 - s), None


@right("Swish")
class BetaAsTensor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, beta):
        ctx.save_for_backward(x, torch.as_tensor(beta, dtype=x.dtype))
        return x * torch.sigmoid(beta * x)

    @staticmethod
    def backward(ctx, grad_output):
        x, beta = ctx.saved_tensors
        y = x * torch.sigmoid(beta * x)
        return grad_output * (beta * y + torch.sigmoid(beta * x) * (1 - beta * y)), None


@right("Swish")
class AutogradInside(_Usual):
    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = (ctx.beta * x).sigmoid()
        return torch.where(g == g, g * s * (1 + ctx.beta * x - ctx.beta * x * s), g), None


# ------------------------------------------------------------------------------------------------ straight_through


@wrong("straight_through_round", says="x cancels")
def not_detached(x, step=1.0):
    return x + (step * torch.round(x / step) - x)


@wrong("straight_through_round", says="rounding alone")
def plain_round(x, step=1.0):
    return step * torch.round(x / step)


@wrong("straight_through_round", says="too much is cut")
def all_detached(x, step=1.0):
    return (x + (step * torch.round(x / step) - x)).detach()


@wrong("straight_through_round", says="multiply by step again")
def stays_in_steps(x, step=1.0):
    return x + (torch.round(x / step) - x).detach()


@wrong("straight_through_round", says="divided by the step")
def gradient_divided(x, step=1.0):
    t = x / step
    return t + (step * torch.round(t) - t).detach()


@wrong("straight_through_round", says="multiplied by the step")
def gradient_multiplied(x, step=1.0):
    return step * x + (step * torch.round(x / step) - step * x).detach()


@wrong("straight_through_round", says="rounds down")
def floored(x, step=1.0):
    return x + (step * torch.floor(x / step) - x).detach()


@wrong("straight_through_round", says="even neighbour")
def half_up(x, step=1.0):
    return x + (step * torch.floor(x / step + 0.5) - x).detach()


@wrong("straight_through_round", says="step is an argument")
def step_ignored(x, step=1.0):
    return x + (torch.round(x) - x).detach()


@wrong("straight_through_round", says="changes its input x")
def in_place(x, step=1.0):
    with torch.no_grad():
        x.copy_(step * torch.round(x / step))
    return x


@wrong("straight_through_round", says="changes its input x")
def through_data(x, step=1.0):
    x.data = step * torch.round(x.data / step)
    return x * 1


@wrong("straight_through_round", says="No gradient comes through")
def through_numpy(x, step=1.0):
    return torch.tensor(step * np.round(x.detach().numpy() / step), requires_grad=True)


@wrong("straight_through_round", says=".float()")
def always_float32(x, step=1.0):
    x = x.float()
    return x + (step * torch.round(x / step) - x).detach()


@wrong("straight_through_round", says="has to stay as the exercise gives it")
def other_default(x, step=0.5):
    return x + (step * torch.round(x / step) - x).detach()


@wrong("straight_through_round", says="passes for every x")
def gradient_clipped(x, step=1.0):
    inside = x.clamp(-2, 2)
    return inside + (step * torch.round(x / step) - inside).detach()


@wrong("straight_through_round", says="whatever the step")
def half_up_for_other_steps(x, step=1.0):
    q = torch.round(x) if step == 1 else step * torch.floor(x / step + 0.5)
    return x + (q - x).detach()


@wrong("straight_through_round", says="multiples too")
def multiples_cut(x, step=1.0):
    q = step * torch.round(x.detach() / step)
    return torch.where(q == x, q, x + (q - x).detach())


@wrong("straight_through_round", says="rounds to decimals")
def decimals(x, step=1.0):
    q = torch.round(x, decimals=round(-np.log10(step)))
    return x + (q - x).detach()


@wrong("straight_through_round", says="The gradient is -1")
def wrong_one_detached(x, step=1.0):
    return x.detach() + (step * torch.round(x / step) - x)


@right("straight_through_round")
def the_other_way_round(x, step=1.0):
    return (step * torch.round(x / step)).detach() + (x - x.detach())


@right("straight_through_round")
def with_no_grad(x, step=1.0):
    with torch.no_grad():
        c = step * (x / step).round() - x
    return x + c


@right("straight_through_round")
def as_function(x, step=1.0):
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return step * torch.round(x / step)

        @staticmethod
        def backward(ctx, g):
            return g

    return Round.apply(x)


# ------------------------------------------------------------------------------------------------ jacobian


@wrong("jacobian", says="own")
def asks_the_callers_x(f, x):
    x.requires_grad_()
    y = f(x)
    rows = [torch.autograd.grad(n, x, retain_graph=True, allow_unused=True)[0] for n in y.flatten() if n.requires_grad]
    rows = [torch.zeros_like(x) if g is None else g for g in rows] or [torch.zeros_like(x)] * y.numel()
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@wrong("jacobian", says="backward() adds to .grad")
def by_backward(f, x):
    x = x.detach().clone().requires_grad_()
    y = f(x)
    J = torch.zeros(y.numel(), *x.shape, dtype=x.dtype)
    for n, number in enumerate(y.flatten()):
        if number.requires_grad:
            x.grad = None
            number.backward(retain_graph=True)
            if x.grad is not None:
                J[n] = x.grad
    return J.reshape(*y.shape, *x.shape)


@wrong("jacobian", says="Zeros belong there")
def no_way_back(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    rows = [torch.autograd.grad(n, x, retain_graph=True)[0] for n in y.flatten()]
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@wrong("jacobian", says="Zeros belong there")
def unused_but_linked(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    rows = [torch.autograd.grad(n, x, retain_graph=True, materialize_grads=True)[0] for n in y.flatten()]
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@wrong("jacobian", says="swapped")
def transposed(f, x):
    J = torch.func.jacrev(f)(x.detach())
    y = f(x.detach())
    return J.reshape(y.numel(), -1).T.reshape(*x.shape, *y.shape)


@wrong("jacobian", says="sum of all outputs")
def gradient_of_the_sum(f, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x)[0]


@wrong("jacobian", says="add up from row to row")
def grad_not_cleared(f, x):
    x = x.detach().clone().requires_grad_()
    y = f(x)
    rows = []
    for number in y.flatten():
        number.backward(retain_graph=True)
        rows.append(x.grad.clone())
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@wrong("jacobian", says="one matrix")
def always_a_matrix(f, x):
    J = torch.func.jacrev(f)(x.detach())
    return J.reshape(f(x.detach()).numel(), x.numel())


@wrong("jacobian", says="axes of f(x) are flattened")
def y_flattened(f, x):
    J = torch.func.jacrev(f)(x.detach())
    return J.reshape(f(x.detach()).numel(), *x.shape)


@wrong("jacobian", says="quotient of differences")
def differences(f, x, h=1e-3):
    x = x.detach()
    y = f(x)
    J = torch.zeros(*y.shape, x.numel(), dtype=x.dtype)
    for n in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=x.dtype)
        step[n] = h
        J[..., n] = (f(x + step.reshape(x.shape)) - y) / h
    return J.reshape(*y.shape, *x.shape)


@wrong("jacobian", says=".double()")
def in_double(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    J = torch.zeros(y.numel(), *x.shape, dtype=torch.float64)
    for n, number in enumerate(y.flatten()):
        if number.requires_grad:
            (g,) = torch.autograd.grad(number, x, retain_graph=True, allow_unused=True)
            J[n] = 0 if g is None else g
    return J.reshape(*y.shape, *x.shape)


@wrong("jacobian", says="retain_graph=True in autograd.grad")
def graph_not_retained(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    rows = [torch.autograd.grad(n, x, allow_unused=True)[0] for n in y.flatten()]
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@wrong("jacobian", says="f is called with another tensor")
def f_of_the_callers_x(f, x):
    own, y = x.detach().requires_grad_(), f(x)
    linked = [n.requires_grad for n in y.flatten()]
    rows = [
        torch.autograd.grad(n, own, retain_graph=True, materialize_grads=True)[0] if way else torch.zeros_like(own)
        for n, way in zip(y.flatten(), linked, strict=True)
    ]
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@wrong("jacobian", says="y.flatten() goes through them")
def along_the_first_axis(f, x):
    x = x.detach().requires_grad_()
    return torch.stack([torch.autograd.grad(n, x, retain_graph=True)[0] for n in f(x)])


@wrong("jacobian", says="torch.autograd.grad gives a tuple")
def tuples_stacked(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    rows = [torch.autograd.grad(n, x, retain_graph=True) for n in y.flatten()]
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@wrong("jacobian", says=None)
def only_vectors(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    J = torch.zeros(len(y), len(x), dtype=x.dtype)
    for n in range(len(y)):
        if y[n].requires_grad:
            g = torch.autograd.grad(y[n], x, retain_graph=True, allow_unused=True)[0]
            J[n] = 0 if g is None else g
    return J


@wrong("jacobian", says="gradient of the sum of all outputs")
def sum_in_each_row(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    rows = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for _ in y.flatten()]
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@wrong("jacobian", says="u not set back to 0")
def ones_stay(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    u, rows = torch.zeros(y.numel(), dtype=y.dtype), []
    for n in range(y.numel()):
        u[n] = 1
        rows += torch.autograd.grad(y, x, u.reshape(y.shape), retain_graph=True)
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@wrong("jacobian", says="torch.zeros(...) alone makes float32")
def zeros_in_float32(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    if not y.requires_grad:
        return torch.zeros(*y.shape, *x.shape)
    return torch.func.jacrev(f)(x.detach())


@wrong("jacobian", says="in the shape that it has")
def x_flattened(f, x):
    return torch.func.jacrev(f)(x.detach().flatten())


@right("jacobian")
def with_a_graph(f, x):
    x = x.detach().requires_grad_()
    y = f(x)
    if not y.requires_grad:
        return torch.zeros(*y.shape, *x.shape, dtype=x.dtype)
    of = lambda n: torch.autograd.grad(n, x, create_graph=True, materialize_grads=True)[0]  # noqa: E731
    rows = [of(n) if n.requires_grad else torch.zeros_like(x) for n in y.flatten()]
    return torch.stack(rows).reshape(*y.shape, *x.shape)


@right("jacobian")
def by_func(f, x):
    return torch.func.jacrev(f)(x.detach())


@right("jacobian")
def by_functional(f, x):
    return torch.autograd.functional.jacobian(f, x.detach())


@right("jacobian")
def batched_rows(f, x):
    x = x.detach().clone().requires_grad_()
    y = f(x)
    if not y.requires_grad:
        return x.new_zeros(*y.shape, *x.shape)
    eye = torch.eye(y.numel(), dtype=y.dtype).reshape(y.numel(), *y.shape)
    rows = [torch.autograd.grad(y, x, each, retain_graph=True, materialize_grads=True)[0] for each in eye]
    return torch.stack(rows).reshape(*y.shape, *x.shape)


# ----------------------------------------------------------------------------------------- hessian_vector_product


@wrong("hessian_vector_product", says="Each tensor of weights meets only itself")
def block_diagonal(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    result = []
    for g, p, each in zip(first, params, v, strict=True):
        if not g.requires_grad:
            result.append(torch.zeros_like(p))
            continue
        result += torch.autograd.grad((g * each).sum(), p, retain_graph=True, materialize_grads=True)
    return result


@wrong("hessian_vector_product", says="retain_graph=True in the second")
def graph_freed(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True))
    return torch.autograd.grad(product, params, materialize_grads=True)


@wrong("hessian_vector_product", says="create_graph=True missing")
def first_without_graph(loss, params, v):
    first = torch.autograd.grad(loss, params, retain_graph=True)
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True))
    return torch.autograd.grad(product, params, retain_graph=True)


@wrong("hessian_vector_product", says="materialize_grads=True makes zeros")
def unused_is_none(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True) if g is not None)
    return list(torch.autograd.grad(product, params, retain_graph=True, allow_unused=True))


@wrong("hessian_vector_product", says="return zeros")
def linear_forgotten(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True))
    return list(torch.autograd.grad(product, params, retain_graph=True, materialize_grads=True))


@wrong("hessian_vector_product", says="entry by entry")
def gradient_times_v(loss, params, v):
    first = torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True)
    return [g * each for g, each in zip(first, v, strict=True)]


@wrong("hessian_vector_product", says="v is left out")
def without_v(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    product = sum(g.sum() for g in first)
    return list(torch.autograd.grad(product, params, retain_graph=True, materialize_grads=True))


@wrong("hessian_vector_product", says="no graph")
def keeps_a_graph(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True))
    if not product.requires_grad:
        return [torch.zeros_like(p) for p in params]
    return list(torch.autograd.grad(product, params, create_graph=True, materialize_grads=True))


@wrong("hessian_vector_product", says="two backward passes")
def row_by_row(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    flat = torch.cat([g.flatten() for g in first])
    way = torch.cat([each.flatten() for each in v])
    result = [torch.zeros_like(p) for p in params]
    for number, each in zip(flat, way, strict=True):
        if number.requires_grad:
            rows = torch.autograd.grad(number, params, retain_graph=True, materialize_grads=True)
            result = [a + each * b for a, b in zip(result, rows, strict=True)]
    return result


@wrong("hessian_vector_product", says="identity matrix")
def whole_matrix_at_once(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    flat = torch.cat([g.flatten() for g in first])
    way = torch.cat([each.flatten() for each in v])
    if not flat.requires_grad:
        return [torch.zeros_like(p) for p in params]
    eye = torch.eye(len(flat), dtype=flat.dtype)
    settings = {"retain_graph": True, "is_grads_batched": True, "materialize_grads": True}
    rows = torch.autograd.grad(flat, params, eye, **settings)
    rows = [
        each if each.dim() > p.dim() else torch.zeros(len(eye), *p.shape) for each, p in zip(rows, params, strict=True)
    ]
    return [torch.einsum("p,p...->...", way, each.to(way.dtype)).detach() for each in rows]


@wrong("hessian_vector_product", says="filled")
def by_backward_twice(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True))
    for p in params:
        p.grad = None
    if product.requires_grad:
        product.backward(retain_graph=True)
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in params]


@wrong("hessian_vector_product", says="One tensor for each of params")
def one_long_vector(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True))
    found = torch.autograd.grad(product, params, retain_graph=True, materialize_grads=True)
    return torch.cat([each.flatten() for each in found])


@wrong("hessian_vector_product", says="averaged")
def mean_instead_of_sum(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    product = sum((g * each).mean() for g, each in zip(first, v, strict=True))
    if not product.requires_grad:
        return [torch.zeros_like(p) for p in params]
    return list(torch.autograd.grad(product, params, retain_graph=True, materialize_grads=True))


@wrong("hessian_vector_product", says="create_graph=True missing")
def zeros_for_want_of_a_graph(loss, params, v):
    first = torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True)
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True))
    if not product.requires_grad:
        return [torch.zeros_like(p) for p in params]
    return list(torch.autograd.grad(product, params, retain_graph=True, materialize_grads=True))


@wrong("hessian_vector_product", says="as soon as one part of g")
def asks_each_part(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    if not all(g.requires_grad for g in first):
        return [torch.zeros_like(p) for p in params]
    product = sum((g * each).sum() for g, each in zip(first, v, strict=True))
    return list(torch.autograd.grad(product, params, retain_graph=True, materialize_grads=True))


@wrong("hessian_vector_product", says="where += is meant")
def last_product_only(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    for g, each in zip(first, v, strict=True):
        product = (g * each).sum()
    if not product.requires_grad:
        return [torch.zeros_like(p) for p in params]
    return list(torch.autograd.grad(product, params, retain_graph=True, materialize_grads=True))


@wrong("hessian_vector_product", says="It is v itself")
def weights_times_v(loss, params, v):
    product = sum((p * each).sum() for p, each in zip(params, v, strict=True))
    return list(torch.autograd.grad(product, params))


@wrong("hessian_vector_product", says="backward() adds to .grad, where the first call left its own")
def first_by_backward(loss, params, v):
    loss.backward(create_graph=True)
    product = sum((p.grad * each).sum() for p, each in zip(params, v, strict=True))
    return list(torch.autograd.grad(product, params, retain_graph=True, materialize_grads=True))


@right("hessian_vector_product")
def with_grad_outputs(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
    pairs = [(g, each) for g, each in zip(first, v, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return [torch.zeros_like(p) for p in params]
    gs, vs = zip(*pairs, strict=True)
    found = torch.autograd.grad(gs, params, vs, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if h is None else h for h, p in zip(found, params, strict=True)]


@right("hessian_vector_product")
def one_flat_product(loss, params, v):
    flat = torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)]
    )
    if not flat.requires_grad:
        return [p.detach() * 0 for p in params]
    number = flat @ torch.cat([each.reshape(-1) for each in v])
    return tuple(torch.autograd.grad(number, params, retain_graph=True, materialize_grads=True))


@right("hessian_vector_product")
def detached_at_the_end(loss, params, v):
    first = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    product = torch.stack([(g * each).sum() for g, each in zip(first, v, strict=True)]).sum()
    if product.grad_fn is None:
        return [torch.zeros_like(p) for p in params]
    second = torch.autograd.grad(product, params, create_graph=True, materialize_grads=True)
    return [each.detach() for each in second]


# ------------------------------------------------------------------------------------------------ largest_eigenvalue


def _random(like, generator):
    return [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in like]


def _joint(v):
    return sum((each**2).sum() for each in v) ** 0.5


def _iterate(hvp, v, steps, tol, estimate=None):
    now = 0.0
    for step in range(steps):
        length = _joint(v)
        if length == 0:
            return 0.0
        v = [each / length for each in v]
        product = hvp(v)
        before, now = now, sum((a * b).sum() for a, b in zip(v, product, strict=True)).item()
        if step and abs(now - before) <= tol * abs(now):
            break
        v = product
    return now


@wrong("largest_eigenvalue", says="sign is lost")
def length_as_estimate(hvp, like, generator, steps=100, tol=1e-3):
    v, now = _random(like, generator), None
    for _ in range(steps):
        length = _joint(v)
        if length == 0:
            return 0.0
        v = hvp([each / length for each in v])
        before, now = now, _joint(v).item()
        if before is not None and abs(now - before) <= tol * abs(now):
            break
    return now


@wrong("largest_eigenvalue", says="by itself")
def each_its_own_length(hvp, like, generator, steps=100, tol=1e-3):
    v, now = _random(like, generator), None
    for _ in range(steps):
        v = [each / max(each.norm(), 1e-30) for each in v]
        product = hvp(v)
        before, now = now, sum((a * b).sum() for a, b in zip(v, product, strict=True)).item()
        if before is not None and abs(now - before) <= tol * abs(now):
            break
        v = product
    return now


@wrong("largest_eigenvalue", says="begins with ones")
def ones(hvp, like, generator, steps=100, tol=1e-3):
    return _iterate(hvp, [torch.ones_like(p) for p in like], steps, tol)


@wrong("largest_eigenvalue", says="both signs")
def uniform(hvp, like, generator, steps=100, tol=1e-3):
    return _iterate(hvp, [torch.rand(p.shape, generator=generator, dtype=p.dtype) for p in like], steps, tol)


@wrong("largest_eigenvalue", says="0/0 is NaN")
def zero_over_zero(hvp, like, generator, steps=100, tol=1e-3):
    v, now = _random(like, generator), None
    for _ in range(steps):
        length = _joint(v)
        v = [each / length for each in v]
        product = hvp(v)
        before, now = now, sum((a * b).sum() for a, b in zip(v, product, strict=True)).item()
        if before is not None and abs(now - before) <= tol * abs(now):
            break
        v = product
    return now


@wrong("largest_eigenvalue", says="Draw with the generator that is given")
def global_generator(hvp, like, generator, steps=100, tol=1e-3):
    return _iterate(hvp, [torch.randn_like(p) for p in like], steps, tol)


@wrong("largest_eigenvalue", says="made inside with a fixed seed")
def generator_of_its_own(hvp, like, generator, steps=100, tol=1e-3):
    return _iterate(hvp, _random(like, torch.Generator().manual_seed(0)), steps, tol)


@wrong("largest_eigenvalue", says="plain difference")
def absolute_tolerance(hvp, like, generator, steps=100, tol=1e-3):
    v, now = _random(like, generator), None
    for _ in range(steps):
        length = _joint(v)
        if length == 0:
            return 0.0
        v = [each / length for each in v]
        product = hvp(v)
        before, now = now, sum((a * b).sum() for a, b in zip(v, product, strict=True)).item()
        if before is not None and abs(now - before) <= tol:
            break
        v = product
    return now


@wrong("largest_eigenvalue", says="never stops")
def all_steps(hvp, like, generator, steps=100, tol=1e-3):
    v = _random(like, generator)
    for _ in range(steps):
        length = _joint(v)
        if length == 0:
            return 0.0
        v = [each / length for each in v]
        product = hvp(v)
        now = sum((a * b).sum() for a, b in zip(v, product, strict=True)).item()
        v = product
    return now


@wrong("largest_eigenvalue", says="one product more")
def one_more_at_the_end(hvp, like, generator, steps=100, tol=1e-3):
    return _iterate(hvp, _random(like, generator), steps + 1, tol)


@wrong("largest_eigenvalue", says="Python number")
def a_tensor(hvp, like, generator, steps=100, tol=1e-3):
    return torch.tensor(_iterate(hvp, _random(like, generator), steps, tol))


@wrong("largest_eigenvalue", says="float32, not float64")
def always_single(hvp, like, generator, steps=100, tol=1e-3):
    return _iterate(hvp, [torch.randn(p.shape, generator=generator) for p in like], steps, tol)


@wrong("largest_eigenvalue", says="abs(estimate)")
def sign_decides(hvp, like, generator, steps=100, tol=1e-3):
    v, now = _random(like, generator), None
    for _ in range(steps):
        length = _joint(v)
        if length == 0:
            return 0.0
        v = [each / length for each in v]
        product = hvp(v)
        before, now = now, sum((a * b).sum() for a, b in zip(v, product, strict=True)).item()
        if before is not None and abs(now - before) <= tol * now:
            break
        v = product
    return now


@wrong("largest_eigenvalue", says="has to stay as the exercise gives it")
def ten_steps(hvp, like, generator, steps=10, tol=1e-3):
    return _iterate(hvp, _random(like, generator), steps, tol)


@wrong("largest_eigenvalue", says="sign is lost")
def absolute_value_returned(hvp, like, generator, steps=100, tol=1e-3):
    return abs(_iterate(hvp, _random(like, generator), steps, tol))


def _within(tol):
    return lambda before, now: abs(now - before) <= tol * abs(now)


def _until(hvp, v, steps, enough, *, small=0.0, added=0.0, back=0):
    """Power iteration that ends where enough(before, now)."""
    seen = [0.0]
    for _ in range(steps):
        length = _joint(v)
        if length <= small:
            return 0.0
        v = [each / (length + added) for each in v]
        product = hvp(v)
        seen.append(sum((a * b).sum() for a, b in zip(v, product, strict=True)).item())
        if len(seen) > 2 and enough(*seen[-2:]):
            return seen[-1 - back]
        v = product
    return seen[-1]


@wrong("largest_eigenvalue", says="Only 0 itself is special")
def small_counts_as_zero(hvp, like, generator, steps=100, tol=1e-3):
    return _until(hvp, _random(like, generator), steps, _within(tol), small=1e-6)


@wrong("largest_eigenvalue", says="Only 0 itself is special")
def a_little_added_to_the_length(hvp, like, generator, steps=100, tol=1e-3):
    return _until(hvp, _random(like, generator), steps, _within(tol), added=1e-12)


@wrong("largest_eigenvalue", says="estimate before the last")
def the_one_before(hvp, like, generator, steps=100, tol=1e-3):
    return _until(hvp, _random(like, generator), steps, _within(tol), back=1)


@wrong("largest_eigenvalue", says="at most means <=")
def less_than_tol(hvp, like, generator, steps=100, tol=1e-3):
    return _until(hvp, _random(like, generator), steps, lambda before, now: abs(now - before) < tol * abs(now))


@wrong("largest_eigenvalue", says="as math.isclose does")
def by_isclose(hvp, like, generator, steps=100, tol=1e-3):
    return _until(hvp, _random(like, generator), steps, functools.partial(math.isclose, rel_tol=tol))


@wrong("largest_eigenvalue", says="the size of the estimate before")
def relative_to_the_one_before(hvp, like, generator, steps=100, tol=1e-3):
    return _until(hvp, _random(like, generator), steps, lambda before, now: abs(now - before) <= tol * abs(before))


@wrong("largest_eigenvalue", says="The first v is not brought to length 1")
def begins_at_any_length(hvp, like, generator, steps=100, tol=1e-3):
    v, now = _random(like, generator), None
    for _ in range(steps):
        product = hvp(v)
        before, now = now, sum((a * b).sum() for a, b in zip(v, product, strict=True)).item()
        length = _joint(product)
        if length == 0:
            return 0.0
        if before is not None and abs(now - before) <= tol * abs(now):
            break
        v = [each / length for each in product]
    return now


@wrong("largest_eigenvalue", says="0 is not one")
def zero_before_the_first(hvp, like, generator, steps=100, tol=1e-3):
    v, old = _random(like, generator), 0.0
    for _ in range(steps):
        length = _joint(v)
        if length == 0:
            return 0.0
        v = [each / length for each in v]
        Hv = hvp(v)
        new = sum((a * b).sum() for a, b in zip(v, Hv, strict=True)).item()
        if abs(new - old) <= tol * abs(new):
            break
        old, v = new, Hv
    return new


@right("largest_eigenvalue")
def quotient_of_products(hvp, like, generator, steps=100, tol=1e-3):
    v = _random(like, generator)
    estimates = []
    while len(estimates) < steps:
        product = hvp(v)
        up = sum(torch.vdot(a.flatten(), b.flatten()) for a, b in zip(v, product, strict=True))
        estimates.append(float(up / sum((a**2).sum() for a in v)))
        length = _joint(product)
        if not length:
            return 0.0
        if len(estimates) > 1 and abs(estimates[-1] - estimates[-2]) <= tol * abs(estimates[-1]):
            break
        v = [each / length for each in product]
    return estimates[-1]


@right("largest_eigenvalue")
def one_flat_vector(hvp, like, generator, steps=100, tol=1e-3):
    sizes = [p.numel() for p in like]
    v = torch.cat([torch.randn(p.shape, generator=generator, dtype=p.dtype).flatten() for p in like])
    v, before = v / v.norm(), float("inf")
    for _ in range(steps):
        product = hvp([part.view(p.shape) for part, p in zip(v.split(sizes), like, strict=True)])
        product = torch.cat([each.flatten() for each in product])
        estimate = torch.dot(v, product).item()
        if product.norm() == 0:
            return 0.0
        if abs(estimate - before) <= tol * abs(estimate):
            return estimate
        before, v = estimate, product / product.norm()
    return before


@right("largest_eigenvalue")
def with_normal_(hvp, like, generator, steps=100, tol=1e-3):
    v = [torch.empty_like(p.detach()).normal_(generator=generator) for p in like]
    return _iterate(hvp, v, steps, tol)


# ------------------------------------------------------------------------------------------------ per_sample_gradients


def _of_each(model, names, x, y):
    weights = {name: p.detach() for name, p in model.named_parameters() if name in names}

    def loss(weights, x, y):
        return F.cross_entropy(torch.func.functional_call(model, weights, (x[None],)), y[None])

    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)


def _learning(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


@wrong("per_sample_gradients", says="frozen")
def frozen_too(model, x, y):
    return _of_each(model, [name for name, _ in model.named_parameters()], x, y)


@wrong("per_sample_gradients", says="share of the mean")
def rows_of_the_mean(model, x, y):
    return {name: g / len(x) for name, g in _of_each(model, _learning(model), x, y).items()}


@wrong("per_sample_gradients", says="added up")
def gradient_of_the_sum_of_losses(model, x, y):
    names = _learning(model)
    held = dict(model.named_parameters())
    loss = F.cross_entropy(model(x), y, reduction="sum")
    return dict(zip(names, torch.autograd.grad(loss, [held[name] for name in names]), strict=True))


@wrong("per_sample_gradients", says="averaged")
def gradient_of_the_batch(model, x, y):
    names = _learning(model)
    held = dict(model.named_parameters())
    loss = F.cross_entropy(model(x), y)
    return dict(zip(names, torch.autograd.grad(loss, [held[name] for name in names]), strict=True))


@wrong("per_sample_gradients", says=".grad")
def loop_with_backward(model, x, y):
    found = {name: [] for name in _learning(model)}
    held = dict(model.named_parameters())
    for a, b in zip(x, y, strict=True):
        model.zero_grad()
        F.cross_entropy(model(a[None]), b[None]).backward()
        for name in found:
            found[name].append(held[name].grad.clone())
    return {name: torch.stack(gs) for name, gs in found.items()}


@wrong("per_sample_gradients", says="no graph")
def weights_not_detached(model, x, y):
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def loss(weights, x, y):
        return F.cross_entropy(torch.func.functional_call(model, weights, (x[None],)), y[None])

    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)


@wrong("per_sample_gradients", says="expected dict")
def a_list_of_gradients(model, x, y):
    return list(_of_each(model, _learning(model), x, y).values())


@wrong("per_sample_gradients", says="lost its batch axis")
def no_batch_axis(model, x, y):
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(weights, x, y):
        return F.cross_entropy(torch.func.functional_call(model, weights, (x,)), y)

    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)


@wrong("per_sample_gradients", says="squeeze")
def squeezed(model, x, y):
    return {name: g.squeeze(0) for name, g in _of_each(model, _learning(model), x, y).items()}


@wrong("per_sample_gradients", says="training mode")
def in_training_mode(model, x, y):
    model.train()
    return _of_each(model, _learning(model), x, y)


@wrong("per_sample_gradients", says="stays for good")
def thaws_the_model(model, x, y):
    names = _learning(model)
    for p in model.parameters():
        p.requires_grad_(True)
    return _of_each(model, names, x, y)


@wrong("per_sample_gradients", says="Leave out what does not learn")
def state_dict_of_all(model, x, y):
    def loss(weights, x, y):
        return F.cross_entropy(torch.func.functional_call(model, weights, (x[None],)), y[None])

    weights = {name: p.detach() for name, p in model.state_dict().items()}
    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)


@wrong("per_sample_gradients", says="same for all")
def same_for_all(model, x, y):
    names = _learning(model)
    held = dict(model.named_parameters())
    found = torch.autograd.grad(F.cross_entropy(model(x), y), [held[name] for name in names])
    return {name: g.expand(len(x), *g.shape) for name, g in zip(names, found, strict=True)}


@wrong("per_sample_gradients", says="parameters' names")
def index_before_the_name(model, x, y):
    found = _of_each(model, _learning(model), x, y)
    return dict(enumerate(found.values()))


@wrong("per_sample_gradients", says=None)
def by_outer_products(model, x, y):
    """For linear layers only."""
    found, inputs, results, a = {}, [], [], x
    for layer in model:
        before, a = a, layer(a)
        if isinstance(layer, torch.nn.Linear):
            inputs.append(before)
            results.append(a)
    deltas = torch.autograd.grad(F.cross_entropy(a, y, reduction="sum"), results)
    linear = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    for name, a, d in zip(linear, inputs, deltas, strict=True):
        found[f"{name}.weight"] = torch.einsum("no,ni->noi", d, a).detach()
        found[f"{name}.bias"] = d
    return found


@wrong("per_sample_gradients", says="materialize_grads=True")
def unused_weight_forgotten(model, x, y):
    names = _learning(model)
    held = dict(model.named_parameters())
    found = []
    for a, b in zip(x, y, strict=True):
        found.append(torch.autograd.grad(F.cross_entropy(model(a[None]), b[None]), [held[name] for name in names]))
    return {name: torch.stack(gs) for name, *gs in zip(names, *found, strict=True)}


@wrong("per_sample_gradients", says="softmax stands before")
def softmax_first(model, x, y):
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(weights, x, y):
        p = torch.func.functional_call(model, weights, (x[None],)).softmax(-1)
        return F.cross_entropy(p, y[None])

    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)


@wrong("per_sample_gradients", says="the weights are not cut")
def without_in_dims(model, x, y):
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(weights, x, y):
        return F.cross_entropy(torch.func.functional_call(model, weights, (x[None],)), y[None])

    return torch.func.vmap(torch.func.grad(loss))(weights, x, y)


@wrong("per_sample_gradients", says="zero_grad() clears it")
def clears_the_gradients(model, x, y):
    found = _of_each(model, _learning(model), x, y)
    model.zero_grad()
    return found


@wrong("per_sample_gradients", says="smaller piece left out")
def whole_pieces_only(model, x, y):
    pieces = zip(x.split(4), y.split(4), strict=True)
    found = [_of_each(model, _learning(model), a, b) for a, b in pieces if len(a) == min(4, len(x))]
    return {name: torch.cat([each[name] for each in found]) for name in found[0]}


def _held(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _mapped(model, x, y, call, weights=None, own=True):
    """vmap over grad of the cross-entropy of call(model, weights, x)."""
    weights = weights or {name: p.detach() for name, p in _held(model).items()}
    loss = lambda w, a, b: F.cross_entropy(call(model, w, a), b[None] if own else b)  # noqa: E731
    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)


@wrong("per_sample_gradients", says="the weights that grad is given are not used")
def model_by_itself(model, x, y):
    return _mapped(model, x, y, lambda model, w, a: model(a[None]))


@wrong("per_sample_gradients", says="y[None]")
def label_without_an_axis(model, x, y):
    return _mapped(model, x, y, lambda model, w, a: torch.func.functional_call(model, w, (a[None],)), own=False)


@wrong("per_sample_gradients", says="The weights are a dict")
def a_list_of_weights(model, x, y):
    weights = [p.detach() for p in _held(model).values()]
    return _mapped(model, x, y, lambda model, w, a: torch.func.functional_call(model, w, (a[None],)), weights)


@wrong("per_sample_gradients", says="The model takes x alone")
def y_to_the_model(model, x, y):
    return _mapped(model, x, y, lambda model, w, a: torch.func.functional_call(model, w, (a[None], y)))


@wrong("per_sample_gradients", says="grad inside, vmap outside")
def vmap_inside(model, x, y):
    loss = lambda w, a, b: F.cross_entropy(torch.func.functional_call(model, w, (a[None],)), b[None])  # noqa: E731
    weights = {name: p.detach() for name, p in _held(model).items()}
    return torch.func.grad(torch.func.vmap(loss, in_dims=(None, 0, 0)))(weights, x, y)


@wrong("per_sample_gradients", says="call it, with")
def vmap_not_called(model, x, y):
    loss = lambda w, a, b: F.cross_entropy(torch.func.functional_call(model, w, (a[None],)), b[None])  # noqa: E731
    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))


@wrong("per_sample_gradients", says="the weights come first")
def weights_last(model, x, y):
    loss = lambda a, b, w: F.cross_entropy(torch.func.functional_call(model, w, (a[None],)), b[None])  # noqa: E731
    weights = {name: p.detach() for name, p in _held(model).items()}
    return torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, None))(x, y, weights)


@wrong("per_sample_gradients", says="add up from example to example")
def grad_never_cleared(model, x, y):
    held = _held(model)
    found = {name: [] for name in held}
    for a, b in zip(x, y, strict=True):
        F.cross_entropy(model(a[None]), b[None]).backward()
        for name, p in held.items():
            found[name].append(torch.zeros_like(p) if p.grad is None else p.grad.clone())
    return {name: torch.stack(rows) for name, rows in found.items()}


@right("per_sample_gradients")
def x_not_in_a_tuple(model, x, y):
    return _mapped(model, x, y, lambda model, w, a: torch.func.functional_call(model, w, a[None]))


@right("per_sample_gradients")
def loop(model, x, y):
    names = _learning(model)
    held = dict(model.named_parameters())
    found = []
    for n in range(len(x)):
        loss = F.cross_entropy(model(x[n : n + 1]), y[n : n + 1])
        found.append(torch.autograd.grad(loss, [held[name] for name in names], materialize_grads=True))
    return {name: torch.stack(gs) for name, *gs in zip(names, *found, strict=True)}


@right("per_sample_gradients")
def all_given_explicitly(model, x, y):
    learning = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    other = {n: p.detach() for n, p in model.named_parameters() if not p.requires_grad}

    def loss(weights, x, y):
        state = {**weights, **other, **dict(model.named_buffers())}
        logits = torch.func.functional_call(model, state, x.unsqueeze(0))
        return -logits.log_softmax(1)[0].gather(0, y[None]).sum()

    return torch.vmap(torch.func.grad(loss), (None, 0, 0))(learning, x, y)


@right("per_sample_gradients")
def jacobian_of_the_losses(model, x, y):
    learning = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def losses(weights):
        return F.cross_entropy(torch.func.functional_call(model, weights, (x,)), y, reduction="none")

    return torch.func.jacrev(losses)(learning)


# ------------------------------------------------------------------------------------------------ gradient_norms


@wrong("gradient_norms", says="biases are missing")
def weights_only(inputs, deltas):
    return sum((d**2).sum(1) * (a**2).sum(1) for a, d in zip(inputs, deltas, strict=True)).sqrt()


@wrong("gradient_norms", says="root is missing")
def squared(inputs, deltas):
    return sum((d**2).sum(1) * ((a**2).sum(1) + 1) for a, d in zip(inputs, deltas, strict=True))


@wrong("gradient_norms", says="Their squares add up")
def lengths_added(inputs, deltas):
    return sum(d.norm(dim=1) * ((a**2).sum(1) + 1).sqrt() for a, d in zip(inputs, deltas, strict=True))


@wrong("gradient_norms", says="root")
def one_inside_too_early(inputs, deltas):
    squares = [(d.norm(dim=1) * (a.norm(dim=1) + 1)) ** 2 for a, d in zip(inputs, deltas, strict=True)]
    return sum(squares).sqrt()


@wrong("gradient_norms", says="once for each entry")
def one_for_each_entry(inputs, deltas):
    return sum((d**2).sum(1) * (a**2 + 1).sum(1) for a, d in zip(inputs, deltas, strict=True)).sqrt()


@wrong("gradient_norms", says="One length comes for all examples")
def along_the_examples(inputs, deltas):
    return sum(((d**2).sum(0).sum() * ((a**2).sum(0).sum() + 1)) for a, d in zip(inputs, deltas, strict=True)).sqrt()


@wrong("gradient_norms", says="along axis 0, over the examples")
def axis_0(inputs, deltas):
    return sum((d**2).sum(0) * ((a**2).sum(0) + 1) for a, d in zip(inputs, deltas, strict=True)).sqrt()


@wrong("gradient_norms", says="Multiply layer by layer")
def layers_joined(inputs, deltas):
    a, d = torch.cat(inputs, 1), torch.cat(deltas, 1)
    return ((d**2).sum(1) * ((a**2).sum(1) + 1)).sqrt()


@wrong("gradient_norms", says="Only the last layer")
def last_layer(inputs, deltas):
    a, d = inputs[-1], deltas[-1]
    return ((d**2).sum(1) * ((a**2).sum(1) + 1)).sqrt()


@wrong("gradient_norms", says="averaged over the entries")
def means(inputs, deltas):
    return sum((d**2).mean(1) * ((a**2).mean(1) + 1) for a, d in zip(inputs, deltas, strict=True)).sqrt()


@wrong("gradient_norms", says="outside of the product")
def bracket_missing(inputs, deltas):
    return sum((d**2).sum(1) * (a**2).sum(1) + 1 for a, d in zip(inputs, deltas, strict=True)).sqrt()


@wrong("gradient_norms", says=".float()")
def a_list_of_numbers_in_float32(inputs, deltas):
    squares = sum((d**2).sum(1) * ((a**2).sum(1) + 1) for a, d in zip(inputs, deltas, strict=True))
    return squares.sqrt().float()


@wrong("gradient_norms", says="axis of length 1")
def column(inputs, deltas):
    squares = [(d**2).sum(1, True) * ((a**2).sum(1, True) + 1) for a, d in zip(inputs, deltas, strict=True)]
    return sum(squares).sqrt()


@wrong("gradient_norms", says="changes its input")
def in_place_squares(inputs, deltas):
    return sum(d.square_().sum(1) * (a.square_().sum(1) + 1) for a, d in zip(inputs, deltas, strict=True)).sqrt()


@wrong("gradient_norms", says=None)
def eps_inside(inputs, deltas):
    return (1e-3 + sum((d**2).sum(1) * ((a**2).sum(1) + 1) for a, d in zip(inputs, deltas, strict=True))).sqrt()


@wrong("gradient_norms", says="batch of one")
def squeezed_norms(inputs, deltas):
    return sum((d**2).sum(1) * ((a**2).sum(1) + 1) for a, d in zip(inputs, deltas, strict=True)).sqrt().squeeze()


@wrong("gradient_norms", says="paired in reverse")
def deltas_backwards(inputs, deltas):
    return sum((d**2).sum(1) * ((a**2).sum(1) + 1) for a, d in zip(inputs, reversed(deltas), strict=True)).sqrt()


@wrong("gradient_norms", says="not squared")
def lengths_for_squares(inputs, deltas):
    return sum(d.norm(dim=1) * (a.norm(dim=1) + 1) for a, d in zip(inputs, deltas, strict=True)).sqrt()


@right("gradient_norms")
def written_as_gradients(inputs, deltas):
    parts = [torch.einsum("no,ni->noi", d, a).flatten(1) for a, d in zip(inputs, deltas, strict=True)]
    return torch.cat([*parts, *deltas], 1).norm(dim=1)


@right("gradient_norms")
def bias_as_an_input_of_one(inputs, deltas):
    total = 0
    for a, d in zip(inputs, deltas, strict=True):
        a = torch.cat([a, torch.ones_like(a[:, :1])], 1)
        total = total + d.pow(2).sum(-1) * a.pow(2).sum(-1)
    return total**0.5


@right("gradient_norms")
def stacked_lengths(inputs, deltas):
    each = [torch.hypot(a.norm(dim=1) * d.norm(dim=1), d.norm(dim=1)) for a, d in zip(inputs, deltas, strict=True)]
    return torch.stack(each).norm(dim=0)
