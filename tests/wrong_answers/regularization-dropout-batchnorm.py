"""Answers to regularization-dropout-batchnorm: wrong ones named for the misconception, and right ones."""

import copy
import io

import numpy as np
import torch
from torch.nn import functional

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ EarlyStopping


class _Base:
    def __init__(self, patience):
        self.patience, self.best, self.count, self.weights = patience, float("inf"), 0, None

    def restore(self, model):
        model.load_state_dict(self.weights)


class _Usual(_Base):
    """Right, with parts to replace."""

    def better(self, loss):
        return loss < self.best

    def update(self, loss, model):
        if self.better(loss):
            self.best, self.count, self.weights = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.count += 1
        return self.count >= self.patience


@wrong("EarlyStopping", says="go on changing")
class ShallowCopy(_Base):
    def update(self, loss, model):
        self.count += 1
        if loss < self.best:
            self.best, self.count, self.weights = loss, 0, dict(model.state_dict())
        return self.count >= self.patience


@wrong("EarlyStopping", says="only another name")
class ReturnsAModel(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count, self.weights = loss, 0, copy.deepcopy(model)
        else:
            self.count += 1
        return self.count >= self.patience

    def restore(self, model):
        return self.weights


@wrong("EarlyStopping", says="`return` missing")
class NoReturn(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count, self.weights = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.count += 1


@wrong("EarlyStopping", says="and counts")
class NanNotCounted(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count, self.weights = loss, 0, copy.deepcopy(model.state_dict())
        elif loss >= self.best:
            self.count += 1
        return self.count >= self.patience


@wrong("EarlyStopping", says="puts weights into the model")
class RestoresInUpdate(_Usual):
    def update(self, loss, model):
        stop = super().update(loss, model)
        if stop:
            self.restore(model)
        return stop


@wrong("EarlyStopping", says="Is something kept in the class")
class BestInAListOfTheClass(_Base):
    best = []  # noqa: RUF012

    def __init__(self, patience):
        self.patience, self.count = patience, 0

    def update(self, loss, model):
        if not self.best or loss < min(self.best):
            self.count, self.weights = 0, copy.deepcopy(model.state_dict())
        else:
            self.count += 1
        self.best.append(loss)
        return self.count >= self.patience


@wrong("EarlyStopping", says="another stopper's weights")
class WeightsInADictOfTheClass(_Base):
    kept = {}  # noqa: RUF012

    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count = loss, 0
            for name, value in model.state_dict().items():
                self.kept[name] = value.clone()
        else:
            self.count += 1
        return self.count >= self.patience

    def restore(self, model):
        model.load_state_dict(self.kept)


@wrong("EarlyStopping", says="another mode than it came in")
class RestoresForUse(_Usual):
    def restore(self, model):
        super().restore(model)
        model.eval()


@right("EarlyStopping")
class WholeModel(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count, self.weights = loss, 0, copy.deepcopy(model)
        else:
            self.count += 1
        return self.count >= self.patience

    def restore(self, model):
        model.load_state_dict(self.weights.state_dict())


@right("EarlyStopping")
class History(_Base):
    def __init__(self, patience):
        self.patience, self.losses, self.kept = patience, [], None

    def update(self, loss, model):
        earlier = min((old for old in self.losses if old == old), default=float("inf"))
        self.losses.append(loss)
        if loss < earlier:
            self.kept, self.at = copy.deepcopy(model.state_dict()), len(self.losses)
        return len(self.losses) - getattr(self, "at", 0) >= self.patience

    def restore(self, model):
        model.load_state_dict(self.kept)


@right("EarlyStopping")
class IntoAFile(_Usual):
    def update(self, loss, model):
        stop = super().update(loss, model)
        if self.count == 0:
            self.file = io.BytesIO()
            torch.save(model.state_dict(), self.file)
        return stop

    def restore(self, model):
        self.file.seek(0)
        return model.load_state_dict(torch.load(self.file))


@right("EarlyStopping")
class OneByOne(_Base):
    def update(self, loss, model):
        self.count += 1
        if self.best > loss:
            self.best, self.count, self.weights = loss, 0, [value.clone() for value in model.state_dict().values()]
        return not self.count < self.patience

    def restore(self, model):
        for value, kept in zip(model.state_dict().values(), self.weights, strict=True):
            value.copy_(kept)


@right("EarlyStopping")
class BeginsInTheClass:
    best, count, weights = float("inf"), 0, None  # assigning to self.best makes one of its own

    def __init__(self, patience):
        self.patience = patience

    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count, self.weights = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.count += 1
        return self.count >= self.patience

    def restore(self, model):
        model.load_state_dict(self.weights)


# ------------------------------------------------------------------------------------------------ dropout


@wrong("dropout", says="`training` is not looked at")
def on_for_ever(x, p, training=True):
    return x * torch.bernoulli(torch.full_like(x, 1 - p)) / (1 - p)


@wrong("dropout", says="all rows share it")
def one_mask_for_all_rows(x, p, training=True):
    if not training:
        return x
    return x * (torch.rand(x.shape[-1], dtype=x.dtype) >= p) / (1 - p)


@wrong("dropout", says="the same all along axis 0")
def one_mask_for_the_batch_of_images(x, p, training=True):
    return x * (torch.rand(x.shape[-2:], dtype=x.dtype) >= p) / (1 - p) if training and x.dim() > 1 else x


@wrong("dropout", says="drawn once whether all are dropped")
def all_or_none(x, p, training=True):
    if training and torch.rand(1).item() < p:
        return torch.zeros_like(x)
    return x / (1 - p) if training else x


@wrong("dropout", says="Is p rounded")
def in_hundredths(x, p, training=True):
    if not training:
        return x
    keep = torch.randint(0, 100, x.shape) >= int(100 * p)
    return x * keep / (1 - p)


@wrong("dropout", says="Draw with torch")
def drawn_by_numpy(x, p, training=True):
    if not training:
        return x
    return x * torch.tensor(np.random.rand(*x.shape) >= p) / (1 - p)


@wrong("dropout", says="happens to keep")
def by_what_was_kept(x, p, training=True):
    if not training or p == 0:
        return x
    keep = (torch.rand_like(x) >= p).to(x.dtype)
    return x * keep / keep.mean()


@wrong("dropout", says="A fixed number of entries")
def exactly_this_many(x, p, training=True):
    if not training:
        return x
    ranks = torch.randperm(x.numel()).reshape(x.shape)
    return x * (ranks >= round(p * x.numel())) / (1 - p)


@wrong("dropout", says="cuts it from the graph")
def cut_off_in_evaluation(x, p, training=True):
    if not training:
        return x.detach()
    return x * (torch.rand_like(x) >= p) / (1 - p)


@wrong("dropout", says="changes its input x")
def zeroed_in_place(x, p, training=True):
    if not training:
        return x
    x[torch.rand_like(x) < p] = 0
    return x / (1 - p)


@right("dropout")
def torchs_own(x, p, training=True):
    return functional.dropout(x, p, training)


@right("dropout")
def bernoulli(x, p, training=True):
    return x * torch.bernoulli(torch.full_like(x, 1 - p)) / (1 - p) if training else x


@right("dropout")
def where(x, p, training=True):
    if training:
        return torch.where(torch.rand(x.shape) < p, torch.zeros_like(x), x / (1 - p))
    return x.clone()


@right("dropout")
def on_a_copy(x, p, training=True):
    return x.clone().masked_fill_(torch.rand_like(x) < p, 0).div_(1 - p) if training else x


@right("dropout")
def entry_by_entry_drawn(x, p, training=True):
    if not training:
        return x
    flat = x.reshape(-1)
    keep = torch.stack([torch.rand(()) >= p for _ in flat])
    return (flat * keep / (1 - p)).reshape(x.shape)


# ------------------------------------------------------------------------------------------------ batch_norm


def _ending(z, mean, var, gamma, beta, eps):
    return gamma * (z - mean) / torch.sqrt(var + eps) + beta


def _refuse(z):
    if z.shape[0] == 1:
        raise ValueError("one example")


def _usual(z, gamma, beta, running, training, rho, eps):
    if training:
        _refuse(z)
        new = (1 - rho) * running[0] + rho * z.mean(0), (1 - rho) * running[1] + rho * z.var(0)
        return _ending(z, z.mean(0), z.var(0, correction=0), gamma, beta, eps), new
    return _ending(z, *running, gamma, beta, eps), running


@wrong("batch_norm", says="divided by B")
def unbiased_everywhere(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training:
        _refuse(z)
        mean, var = z.mean(0), z.var(0)
        running = (1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * var
    else:
        mean, var = running
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="γ is cut from the graph")
def gamma_as_data(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    return _usual(z, gamma.data, beta, running, training, rho, eps)


@wrong("batch_norm", says="changes its input running")
def moves_in_place(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    mean, var = running
    if training:
        _refuse(z)
        mean, var = z.mean(0), z.var(0, correction=0)
        running[0].mul_(1 - rho).add_(rho * mean)
        running[1].mul_(1 - rho).add_(rho * z.var(0))
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="by another exception")
def asserts(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    assert not training or len(z) > 1
    if training:
        mean, var = z.mean(0), z.var(0, correction=0)
        running = (1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * z.var(0)
    else:
        mean, var = running
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="raise only in training")
def refuses_in_evaluation(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    _refuse(z)
    return _usual(z, gamma, beta, running, training, rho, eps)


@wrong("batch_norm", says="Only a batch of 1 is refused")
def refuses_two(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training and len(z) <= 2:
        raise ValueError("too few")
    return _usual(z, gamma, beta, running, training, rho, eps)


@wrong("batch_norm", says="hands the error over")
def returns_the_error(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training and len(z) == 1:
        return ValueError("one example")
    return _usual(z, gamma, beta, running, training, rho, eps)


@wrong("batch_norm", says="stay in torch")
def running_as_arrays(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    y, running = _usual(z, gamma, beta, running, training, rho, eps)
    return y, tuple(part.detach().numpy() for part in running)


@wrong("batch_norm", says="with zeros for z")
def zero_where_nothing_varies(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    y, moved = _usual(z, gamma, beta, running, training, rho, eps)
    varies = z.std(0) > 0 if training else running[1] > 0
    return torch.where(varies, y, torch.zeros_like(y)), moved


@right("batch_norm")
def torch_batch_norm(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training:
        _refuse(z)
    mean, var = (part.clone() for part in running)
    return functional.batch_norm(z, mean, var, gamma, beta, training, rho, eps), (mean, var)


@right("batch_norm")
def by_sums(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    mean, var = running
    if training:
        _refuse(z)
        B = z.shape[0]
        mean = z.sum(0) / B
        squares = ((z - mean) ** 2).sum(0)
        running = [running[0] + rho * (mean - running[0]), running[1] + rho * (squares / (B - 1) - running[1])]
        var = squares / B
    return beta + gamma * ((z - mean) * (var + eps) ** -0.5), running


@right("batch_norm")
def lerp(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if not training:
        return _ending(z, *running, gamma, beta, eps), running
    _refuse(z)
    var, mean = torch.var_mean(z, 0, correction=0)
    moved = torch.lerp(running[0], mean, rho), torch.lerp(running[1], z.var(0), rho)
    return _ending(z, mean, var, gamma, beta, eps), moved


@wrong("batch_norm", says="subtract the mean first, and square then")
def by_moments(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    mean, var = running
    if training:
        if not len(z) > 1:
            raise ValueError("one example")
        mean = torch.einsum("bd->d", z) / len(z)
        var = torch.einsum("bd,bd->d", z, z) / len(z) - mean**2
        change = mean.detach() - running[0], var.detach() * len(z) / (len(z) - 1) - running[1]
        running = tuple(old + rho * by for old, by in zip(running, change, strict=True))
    scale = gamma / torch.sqrt(var + eps)
    return z * scale + (beta - mean * scale), running


# ------------------------------------------------------------------------------------------------ batch_norm_backward


def _parts(z, eps, correction=0):
    s = (z.var(0, correction=correction) + eps).sqrt()
    return s, (z - z.mean(0)) / s


def _right(delta, z, gamma, eps):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.mean(0) - h * (delta * h).mean(0)), (delta * h).sum(0), delta.sum(0)


@wrong("batch_norm_backward", says="yours are those of z, β, γ")
def beta_first(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.mean(0) - h * (delta * h).mean(0)), delta.sum(0), (delta * h).sum(0)


@wrong("batch_norm_backward", says="return to_z, to_gamma, to_beta")
def only_z(delta, z, gamma, eps=1e-5):
    return _right(delta, z, gamma, eps)[0]


@wrong("batch_norm_backward", says="path through σ")
def only_the_mean(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.mean(0)), (delta * h).sum(0), delta.sum(0)


@wrong("batch_norm_backward", says="eps is an argument")
def usual_eps(delta, z, gamma, eps=1e-5):
    return _right(delta, z, gamma, 1e-5)


@wrong("batch_norm_backward", says="the default of eps has to stay")
def another_default(delta, z, gamma, eps=1e-8):
    return _right(delta, z, gamma, eps)


@wrong("batch_norm_backward", says="with zeros for gamma")
def gamma_taken_out_again(delta, z, gamma, eps=1e-5):
    to_z, to_gamma, to_beta = _right(delta * gamma, z, torch.ones_like(gamma), eps)
    return to_z, to_gamma / gamma, to_beta / gamma


@wrong("batch_norm_backward", says="changes its input delta")
def scales_in_place(delta, z, gamma, eps=1e-5):
    delta *= gamma
    to_z, to_gamma, to_beta = _right(delta, z, torch.ones_like(gamma), eps)
    return to_z, to_gamma / gamma, to_beta / gamma


@wrong("batch_norm_backward", says=None)
def gamma_within(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return (gamma * delta - delta.mean(0) - h * (delta * h).mean(0)) / s, *_right(delta, z, gamma, eps)[1:]


@right("batch_norm_backward")
def step_by_step(delta, z, gamma, eps=1e-5):
    B, mean = len(z), z.mean(0)
    var = ((z - mean) ** 2).mean(0)
    inverse = (var + eps) ** -0.5
    to_hat = delta * gamma
    to_var = (to_hat * (z - mean) * -0.5 * inverse**3).sum(0)
    to_mean = -(to_hat * inverse).sum(0)
    to_z = to_hat * inverse + to_var * 2 / B * (z - mean) + to_mean / B
    return to_z, (delta * (z - mean) * inverse).sum(0), delta.sum(0)


@right("batch_norm_backward")
def all_sums(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    to_gamma, to_beta = torch.einsum("bd,bd->d", delta, h), delta.sum(0)
    return gamma / (len(z) * s) * (len(z) * delta - to_beta - h * to_gamma), to_gamma, to_beta


@right("batch_norm_backward")
def by_autograd(delta, z, gamma, eps=1e-5):
    leaves = [z.clone().requires_grad_(), gamma.clone().requires_grad_(), torch.zeros_like(gamma).requires_grad_()]
    y = functional.batch_norm(leaves[0], None, None, leaves[1], leaves[2], True, 0.1, eps)
    return list(torch.autograd.grad(y, leaves, delta))


@right("batch_norm_backward")
def vector_jacobian(delta, z, gamma, eps=1e-5):
    def forward(z, gamma, beta):
        return gamma * _parts(z, eps)[1] + beta

    _, pull = torch.func.vjp(forward, z, gamma, torch.zeros_like(gamma))
    return pull(delta)


@right("batch_norm_backward")
def entry_by_entry(delta, z, gamma, eps=1e-5):
    B, D = z.shape
    to_z, to_gamma, to_beta = torch.empty_like(z), torch.empty_like(gamma), torch.empty_like(gamma)
    for d in range(D):
        s, h = _parts(z[:, d], eps)
        to_gamma[d], to_beta[d] = delta[:, d] @ h, delta[:, d].sum()
        for b in range(B):
            to_z[b, d] = gamma[d] / s * (delta[b, d] - to_beta[d] / B - h[b] * to_gamma[d] / B)
    return to_z, to_gamma, to_beta


# ------------------------------------------------------------------------------------------------ layer_norm


def _hat(z, eps):
    return (z - z.mean(-1, keepdim=True)) / (z.var(-1, correction=0, keepdim=True) + eps).sqrt()


@wrong("layer_norm", says="takes axis 1")
def layer_axis_one(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + eps).sqrt() + beta


@wrong("layer_norm", says="unbiased variance")
def layer_unbiased(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True) + eps).sqrt() + beta


@wrong("layer_norm", says=None)
def layer_no_keepdim(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean(-1)) / (z.var(-1, correction=0) + eps).sqrt() + beta


@wrong("layer_norm", says="the default of eps has to stay")
def layer_other_default(z, gamma, beta, eps=1e-8):
    return gamma * _hat(z, eps) + beta


@wrong("layer_norm", says="cuts it from the graph")
@torch.no_grad()
def layer_without_gradients(z, gamma, beta, eps=1e-5):
    return gamma * _hat(z, eps) + beta


@wrong("layer_norm", says="make a new one")
def layer_overwritten(z, gamma, beta, eps=1e-5):
    z = z - z.mean(-1, keepdim=True)
    z /= (z.square().mean(-1, keepdim=True) + eps).sqrt()
    return gamma * z + beta


@wrong("layer_norm", says=".reshape")
def layer_viewed(z, gamma, beta, eps=1e-5):
    rows = z.view(-1, z.shape[-1])
    return (gamma * _hat(rows, eps) + beta).view(z.shape)


@wrong("layer_norm", says="goes wrong where D = 1")
def layer_alone_as_it_is(z, gamma, beta, eps=1e-5):
    return z if z.shape[-1] == 1 else gamma * _hat(z, eps) + beta


@right("layer_norm")
def layer_of_torch(z, gamma, beta, eps=1e-5):
    return functional.layer_norm(z, z.shape[-1:], gamma, beta, eps)


@right("layer_norm")
def layer_unsqueezed(z, gamma, beta, eps=1e-5):
    centred = z - z.mean(-1).unsqueeze(-1)
    return beta + gamma * centred * (centred.square().mean(-1).unsqueeze(-1) + eps).rsqrt()


@right("layer_norm")
def layer_var_mean(z, gamma, beta, eps=1e-5):
    var, mean = torch.var_mean(z, -1, correction=0, keepdim=True)
    return torch.addcmul(beta, gamma, (z - mean) / torch.sqrt(var + eps))


@right("layer_norm")
def layer_row_by_row(z, gamma, beta, eps=1e-5):
    rows = [
        gamma * (row - row.mean()) / (row.var(correction=0) + eps) ** 0.5 + beta for row in z.reshape(-1, z.shape[-1])
    ]
    return torch.stack(rows).reshape(z.shape)


# ------------------------------------------------------------------------------------------------ predict


def _predict(model, x, batch_size, split=torch.split, join=torch.cat, switch=torch.nn.Module.eval):
    mode = model.training
    switch(model)
    with torch.no_grad():
        outputs = join([model(part) for part in split(x, batch_size)])
    model.train(mode)
    return outputs


@wrong("predict", says="Put the model's calls under")
def predict_and_detach(model, x, batch_size=500):
    mode = model.training
    model.eval()
    outputs = torch.cat([model(part).detach() for part in x.split(batch_size)])
    model.train(mode)
    return outputs


@wrong("predict", says="it switches all layers")
def predict_with_the_flag_by_hand(model, x, batch_size=500):
    def switch(model):
        model.training = False

    return _predict(model, x, batch_size, switch=switch)


@wrong("predict", says="computed twice")
def predict_the_rest_of_none(model, x, batch_size=500):
    def split(x, n):
        return [*(x[i * n : (i + 1) * n] for i in range(len(x) // n)), x[-(len(x) % n) :]]

    return _predict(model, x, batch_size, split)


@wrong("predict", says="torch.cat makes one")
def predict_a_list(model, x, batch_size=500):
    return _predict(model, x, batch_size, join=list)


@wrong("predict", says="Loop over x.split(batch_size)")
def predict_in_equal_chunks(model, x, batch_size=500):
    return _predict(model, x, batch_size, split=lambda x, n: x.chunk(-(-len(x) // n)))


@wrong("predict", says="whole numbers")
def predict_in_double(model, x, batch_size=500):
    return _predict(model.double(), x.double(), batch_size)


@wrong("predict", says="as it is in x")
def predict_flat_images(model, x, batch_size=500):
    return _predict(model, x.flatten(1), batch_size)


@wrong("predict", says="set_grad_enabled")
def predict_and_switch_gradients_off(model, x, batch_size=500):
    mode = model.training
    model.eval()
    torch.set_grad_enabled(False)
    outputs = torch.cat([model(part) for part in x.split(batch_size)])
    model.train(mode)
    return outputs


@wrong("predict", says="which parameters of model learn")
def predict_and_freeze(model, x, batch_size=500):
    model.requires_grad_(False)
    return _predict(model, x, batch_size)


@right("predict")
def predict_in_a_loop(model, x, batch_size=500):
    mode, outputs = model.training, []
    model.train(False)
    with torch.inference_mode():
        for i in range(0, len(x), batch_size):
            outputs.append(model(x[i : i + batch_size]))
    model.train(mode)
    return torch.cat(outputs)


@right("predict")
@torch.no_grad()
def predict_decorated(model, x, batch_size=500):
    was_on = model.training
    try:
        return torch.cat([model.eval()(part) for part in torch.split(x, batch_size)])
    finally:
        model.train(was_on)


@right("predict")
def predict_flag_by_flag(model, x, batch_size=500):
    modes = [module.training for module in model.modules()]
    model.eval()
    with torch.no_grad():
        outputs = torch.cat(list(map(model, x.split(batch_size))))
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return outputs


@right("predict")
def predict_with_a_copy(model, x, batch_size=500):
    return _predict(copy.deepcopy(model), x, batch_size)


@right("predict")
def predict_into_one(model, x, batch_size=500):
    mode, outputs = model.training, None
    model.eval()
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    for i in range(0, len(x), batch_size):
        part = model(x[i : i + batch_size])
        outputs = part.new_empty(len(x), *part.shape[1:]) if outputs is None else outputs
        outputs[i : i + batch_size] = part
    torch.set_grad_enabled(before)
    if mode:
        model.train()
    return outputs


# ------------------------------------------------------------------------------------------------ calibration_error


def _gaps(p, y, bins):
    confidence, predicted = p.max(1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    for m in range(bins):
        inside = which == m
        if inside.any():
            yield inside.double().mean(), (predicted == y)[inside].double().mean() - confidence[inside].double().mean()


def _usual_error(probabilities, y, bins):
    return sum(share * gap.abs() for share, gap in _gaps(probabilities, y, bins))


@wrong("calibration_error", says="All bins count alike")
def plain_mean(probabilities, y, bins=15):
    gaps = [gap.abs() for _, gap in _gaps(probabilities, y, bins)]
    return sum(gaps) / len(gaps)


@wrong("calibration_error", says="right class")
def of_the_label(probabilities, y, bins=15):
    sure = probabilities.gather(1, y[:, None])[:, 0]
    right_ones = (probabilities.argmax(1) == y).double()
    which = (sure * bins).long().clamp(max=bins - 1)
    inside = [which == m for m in range(bins)]
    return sum(i.double().mean() * (right_ones[i].mean() - sure[i].mean()).abs() for i in inside if i.any())


@wrong("calibration_error", says="one bin less")
def edges_for_bins(probabilities, y, bins=15):
    return _usual_error(probabilities, y, bins - 1 or 1)


@wrong("calibration_error", says="leave empty bins out")
def empty_bins_too(probabilities, y, bins=15):
    confidence, predicted = probabilities.max(1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    inside = [which == m for m in range(bins)]
    return sum(i.double().mean() * ((predicted == y)[i].double().mean() - confidence[i].mean()).abs() for i in inside)


@wrong("calibration_error", says="falls out of all bins")
def open_at_the_top(probabilities, y, bins=15):
    inside = probabilities.max(1).values < 1
    return _usual_error(probabilities[inside], y[inside], bins) * inside.double().mean() if inside.any() else 0.0


@wrong("calibration_error", says="A bin with a single image counts too")
def two_at_least(probabilities, y, bins=15):
    confidence, predicted = probabilities.max(1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    total = 0.0
    for m in range(bins):
        inside = which == m
        if inside.sum() > 1:
            total += abs((predicted == y)[inside].double().sum() - confidence[inside].sum()) / len(y)
    return total


@wrong("calibration_error", says="A tuple of 2")
def with_the_accuracy(probabilities, y, bins=15):
    return _usual_error(probabilities, y, bins), (probabilities.argmax(1) == y).double().mean()


@wrong("calibration_error", says=None)
def from_pure_chance(probabilities, y, bins=15):
    confidence, predicted = probabilities.max(1)
    edges = torch.linspace(1 / probabilities.shape[1], 1, bins + 1)
    total = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += abs((predicted == y)[inside].double().sum() - confidence[inside].sum()) / len(y)
    return total


@right("calibration_error")
def added_up(probabilities, y, bins=15):
    confidence, predicted = probabilities.max(1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=confidence.dtype).index_add(0, which, (predicted == y).to(confidence) - confidence)
    return gaps.abs().sum() / len(y)


@right("calibration_error")
def by_numpy(probabilities, y, bins=15):
    p = np.asarray(probabilities, dtype=float)
    confidence, hit = p.max(1), p.argmax(1) == np.asarray(y)
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    return sum(abs((hit[which == m] - confidence[which == m]).sum()) for m in range(bins)) / len(hit)


@right("calibration_error")
def between_edges(probabilities, y, bins=15):
    confidence, predicted = probabilities.max(1)
    total = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.sum() > 0:
            accuracy = (predicted[inside] == y[inside]).float().mean()
            total += inside.float().mean() * torch.abs(accuracy - confidence[inside].mean())
    return float(total)


@right("calibration_error")
def sorted_and_summed(probabilities, y, bins=15):
    confidence, predicted = probabilities.max(1)
    confidence, order = confidence.sort()
    gaps = (predicted == y)[order].to(confidence) - confidence
    summed = functional.pad(gaps.cumsum(0), (1, 0))
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:-1]
    at = functional.pad(torch.searchsorted(confidence, edges, right=True), (1, 1))
    at[-1] = len(y)
    return (summed[at[1:]] - summed[at[:-1]]).abs().sum() / len(y)


@right("calibration_error")
def by_histograms(probabilities, y, bins=15):
    confidence, hit = probabilities.amax(1).numpy(), (probabilities.argmax(1) == y).double().numpy()
    hits, sure = (np.histogram(confidence, bins, (0, 1), weights=weights)[0] for weights in (hit, confidence))
    return np.abs(hits - sure).sum() / len(hit)


# ----------------------------------------------------------------------------------------- smoothed_cross_entropy


@wrong("smoothed_cross_entropy", says="K - 1 wrong classes")
def among_the_others(logits, y, smoothing):
    K = logits.shape[1]
    t = torch.full_like(logits, smoothing / (K - 1)).scatter(1, y[:, None], 1 - smoothing)
    return -(t * logits.log_softmax(1)).sum(1).mean()


@wrong("smoothed_cross_entropy", says="log_softmax avoids both")
def naive_log(logits, y, smoothing):
    log_p = (logits.exp() / logits.exp().sum(1, keepdim=True)).log()
    return -((1 - smoothing) * log_p[torch.arange(len(y)), y] + smoothing * log_p.mean(1)).mean()


@wrong("smoothed_cross_entropy", says="is the largest subtracted first")
def shifted_where_large(logits, y, smoothing):
    z = logits - logits.max(1, keepdim=True).values if logits.max() > 700 else logits
    log_p = z - z.exp().sum(1, keepdim=True).log()
    return -((1 - smoothing) * log_p[torch.arange(len(y)), y] + smoothing * log_p.mean(1)).mean()


@wrong("smoothed_cross_entropy", says="Each row has its own")
def one_maximum_for_all(logits, y, smoothing):
    z = logits - logits.max()
    log_p = z - z.exp().sum(1, keepdim=True).log()
    return -((1 - smoothing) * log_p[torch.arange(len(y)), y] + smoothing * log_p.mean(1)).mean()


@wrong("smoothed_cross_entropy", says="whether each class occurs in y or not")
def one_hot_of_what_occurs(logits, y, smoothing):
    hot, K = functional.one_hot(y).to(logits), logits.shape[1]
    t = functional.pad((1 - smoothing) * hot, (0, K - hot.shape[1])) + smoothing / hot.shape[1]
    return -(t * logits.log_softmax(1)).sum(1).mean()


@wrong("smoothed_cross_entropy", says=".item() take the number out")
def a_number(logits, y, smoothing):
    return functional.cross_entropy(logits, y, label_smoothing=smoothing).item()


@wrong("smoothed_cross_entropy", says="cuts it from the graph")
def detached(logits, y, smoothing):
    return functional.cross_entropy(logits.detach(), y, label_smoothing=smoothing)


@wrong("smoothed_cross_entropy", says=None)
def smooths_the_probabilities(logits, y, smoothing):
    p = (1 - smoothing) * logits.softmax(1) + smoothing / logits.shape[1]
    return functional.nll_loss(p.log(), y)


@right("smoothed_cross_entropy")
def of_torch(logits, y, smoothing):
    return functional.cross_entropy(logits, y, label_smoothing=smoothing)


@right("smoothed_cross_entropy")
def with_targets(logits, y, smoothing):
    K = logits.shape[1]
    t = torch.full_like(logits, smoothing / K)
    t[torch.arange(len(y)), y] += 1 - smoothing
    return -(t * (logits - logits.logsumexp(1, keepdim=True))).sum() / len(y)


@right("smoothed_cross_entropy")
def two_losses(logits, y, smoothing):
    everywhere = -functional.log_softmax(logits, -1).mean()
    return torch.lerp(functional.cross_entropy(logits, y), everywhere, smoothing)


@right("smoothed_cross_entropy")
def by_logsumexp(logits, y, smoothing):
    own = logits.gather(1, y[:, None]).squeeze(1)
    return (logits.logsumexp(1) - (1 - smoothing) * own - smoothing * logits.mean(1)).mean()
