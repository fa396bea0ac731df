"""Answers to regularization-dropout-batchnorm: wrong ones named for the misconception, and right ones."""

import copy

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


@wrong("EarlyStopping", says="go on changing")
class Alias(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count, self.weights = loss, 0, model.state_dict()
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


@wrong("EarlyStopping", says="one update too many")
class Greater(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count, self.weights = loss, 0, copy.deepcopy(model.state_dict())
            return False
        self.count += 1
        return self.count > self.patience


@wrong("EarlyStopping", says="does not set the count back")
class CountsAll(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.best, self.weights = loss, copy.deepcopy(model.state_dict())
        else:
            self.count += 1
        return self.count >= self.patience


@wrong("EarlyStopping", says="takes an equal loss")
class OrEqual(_Base):
    def update(self, loss, model):
        if loss <= self.best:
            self.best, self.count, self.weights = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.count += 1
        return self.count >= self.patience


@wrong("EarlyStopping", says="previous loss")
class FromStepToStep(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.count, self.weights = 0, copy.deepcopy(model.state_dict())
        else:
            self.count += 1
        self.best = loss
        return self.count >= self.patience


@wrong("EarlyStopping", says="not the buffers")
class WeightsWithoutBuffers(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count = loss, 0
            self.weights = [p.detach().clone() for p in model.parameters()]
        else:
            self.count += 1
        return self.count >= self.patience

    def restore(self, model):
        for p, kept in zip(model.parameters(), self.weights, strict=True):
            p.data.copy_(kept)


@wrong("EarlyStopping", says="restore changes the model itself")
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
class Clones(_Base):
    def update(self, loss, model):
        better = loss < self.best
        self.count = 0 if better else self.count + 1
        if better:
            self.best = float(loss)
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        return self.count == self.patience


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


# ------------------------------------------------------------------------------------------------ dropout


@wrong("dropout", says="is not scaled")
def not_scaled(x, p, training=True):
    return x * (torch.rand_like(x) >= p) if training else x


@wrong("dropout", says="should be kept")
def keeps_what_should_go(x, p, training=True):
    return x * (torch.rand_like(x) < p) / p if training else x


@wrong("dropout", says="evaluation has nothing to do")
def scales_in_evaluation(x, p, training=True):
    return x * (torch.rand_like(x) >= p) if training else x * (1 - p)


@wrong("dropout", says="`training` is not looked at")
def on_for_ever(x, p, training=True):
    return x * torch.bernoulli(torch.full_like(x, 1 - p)) / (1 - p)


@wrong("dropout", says="all rows share it")
def one_mask_for_all_rows(x, p, training=True):
    if not training:
        return x
    return x * (torch.rand(x.shape[-1], dtype=x.dtype) >= p) / (1 - p)


@wrong("dropout", says="Whole rows are dropped")
def whole_rows(x, p, training=True):
    if not training:
        return x
    return x * (torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype) >= p) / (1 - p)


@wrong("dropout", says="Is a seed set")
def seeded(x, p, training=True):
    if not training:
        return x
    torch.manual_seed(0)
    return x * (torch.rand_like(x) >= p) / (1 - p)


@wrong("dropout", says="Draw with torch")
def drawn_by_numpy(x, p, training=True):
    if not training:
        return x
    return x * torch.tensor(np.random.rand(*x.shape) >= p) / (1 - p)


@wrong("dropout", says="normally distributed")
def normal(x, p, training=True):
    return x * (torch.randn_like(x) >= p) / (1 - p) if training else x


@wrong("dropout", says="No detach")
def cut_off(x, p, training=True):
    if not training:
        return x
    with torch.no_grad():
        return x * (torch.rand_like(x) >= p) / (1 - p)


@wrong("dropout", says="happens to keep")
def by_what_was_kept(x, p, training=True):
    if not training or p == 0:
        return x
    keep = (torch.rand_like(x) >= p).to(x.dtype)
    return x * keep / keep.mean()


@wrong("dropout", says="divides by p")
def divided_by_p(x, p, training=True):
    return x * (torch.rand_like(x) >= p) / (p or 1) if training else x


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


# ------------------------------------------------------------------------------------------------ batch_norm


def _ending(z, mean, var, gamma, beta, eps):
    return gamma * (z - mean) / torch.sqrt(var + eps) + beta


def _refuse(z):
    if z.shape[0] == 1:
        raise ValueError("one example")


@wrong("batch_norm", says="divided by B")
def unbiased_everywhere(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training:
        _refuse(z)
        mean, var = z.mean(0), z.var(0)
        running = (1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * var
    else:
        mean, var = running
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="B/(B - 1)")
def biased_everywhere(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training:
        _refuse(z)
        mean, var = z.mean(0), z.var(0, correction=0)
        running = (1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * var
    else:
        mean, var = running
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="swapped")
def rho_for_the_old(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training:
        _refuse(z)
        mean, var = z.mean(0), z.var(0, correction=0)
        running = rho * running[0] + (1 - rho) * mean, rho * running[1] + (1 - rho) * z.var(0)
    else:
        mean, var = running
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="take the running ones")
def always_the_batch(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    mean, var = z.mean(0), z.var(0, correction=0)
    if training:
        _refuse(z)
        running = (1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * z.var(0)
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="has to be refused")
def takes_one(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training:
        mean, var = z.mean(0), z.var(0, correction=0)
        running = (1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * z.var(0)
    else:
        mean, var = running
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="ε belongs inside")
def deviation_plus_eps(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training:
        _refuse(z)
        mean, var = z.mean(0), z.var(0, correction=0)
        running = (1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * z.var(0)
    else:
        mean, var = running
    return gamma * (z - mean) / (var.sqrt() + eps) + beta, running


@wrong("batch_norm", says="that is layer norm")
def over_the_features(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if not training:
        return _ending(z, *running, gamma, beta, eps), running
    _refuse(z)
    mean, var = z.mean(1, keepdim=True), z.var(1, correction=0, keepdim=True)
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="cut from the graph")
def constants(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if training:
        _refuse(z)
        with torch.no_grad():
            mean, var = z.mean(0), z.var(0, correction=0)
            running = (1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * z.var(0)
    else:
        mean, var = running
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="changes its input running")
def moves_in_place(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    mean, var = running
    if training:
        _refuse(z)
        mean, var = z.mean(0), z.var(0, correction=0)
        running[0].mul_(1 - rho).add_(rho * mean)
        running[1].mul_(1 - rho).add_(rho * z.var(0))
    return _ending(z, mean, var, gamma, beta, eps), running


@wrong("batch_norm", says="raises AssertionError")
def asserts(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    assert not training or len(z) > 1
    if training:
        mean, var = z.mean(0), z.var(0, correction=0)
        running = (1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * z.var(0)
    else:
        mean, var = running
    return _ending(z, mean, var, gamma, beta, eps), running


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


# ------------------------------------------------------------------------------------------------ batch_norm_backward


def _parts(z, eps, correction=0):
    s = (z.var(0, correction=correction) + eps).sqrt()
    return s, (z - z.mean(0)) / s


@wrong("batch_norm_backward", says="for constants")
def statistics_constant(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma * delta / s, (delta * h).sum(0), delta.sum(0)


@wrong("batch_norm_backward", says="path through σ")
def only_the_mean(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.mean(0)), (delta * h).sum(0), delta.sum(0)


@wrong("batch_norm_backward", says="path through z̄")
def only_the_variance(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta - h * (delta * h).mean(0)), (delta * h).sum(0), delta.sum(0)


@wrong("batch_norm_backward", says="divide by B")
def sums_inside(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.sum(0) - h * (delta * h).sum(0)), (delta * h).sum(0), delta.sum(0)


@wrong("batch_norm_backward", says="sums over the batch, not means")
def means_outside(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.mean(0) - h * (delta * h).mean(0)), (delta * h).mean(0), delta.mean(0)


@wrong("batch_norm_backward", says="changed places")
def beta_first(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.mean(0) - h * (delta * h).mean(0)), delta.sum(0), (delta * h).sum(0)


@wrong("batch_norm_backward", says="unbiased variance")
def unbiased_backward(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps, 1)
    return gamma / s * (delta - delta.mean(0) - h * (delta * h).mean(0)), (delta * h).sum(0), delta.sum(0)


@wrong("batch_norm_backward", says="γ is missing")
def without_gamma(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return (delta - delta.mean(0) - h * (delta * h).mean(0)) / s, (delta * h).sum(0), delta.sum(0)


@wrong("batch_norm_backward", says="not z")
def gamma_by_z(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.mean(0) - h * (delta * h).mean(0)), (delta * z).sum(0), delta.sum(0)


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


# ------------------------------------------------------------------------------------------------ layer_norm


@wrong("layer_norm", says="that is batch norm")
def along_the_batch(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean(0)) / (z.var(0, correction=0) + eps).sqrt() + beta


@wrong("layer_norm", says="unbiased variance")
def layer_unbiased(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True) + eps).sqrt() + beta


@wrong("layer_norm", says="ε belongs inside")
def layer_eps_outside(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean(-1, keepdim=True)) / (z.std(-1, correction=0, keepdim=True) + eps) + beta


@wrong("layer_norm", says="over everything")
def layer_over_all(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean()) / (z.var(correction=0) + eps).sqrt() + beta


@wrong("layer_norm", says="β is missing")
def layer_no_beta(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean(-1, keepdim=True)) / (z.var(-1, correction=0, keepdim=True) + eps).sqrt()


@wrong("layer_norm", says="takes axis 1")
def layer_axis_one(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + eps).sqrt() + beta


@wrong("layer_norm", says=None)
def layer_no_keepdim(z, gamma, beta, eps=1e-5):
    return gamma * (z - z.mean(-1)) / (z.var(-1, correction=0) + eps).sqrt() + beta


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


# ------------------------------------------------------------------------------------------------ predict


@wrong("predict", says="Call model.eval()")
def predict_without_eval(model, x, batch_size=500):
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(batch_size)])


@wrong("predict", says="Remember model.training")
def predict_and_leave_in_evaluation(model, x, batch_size=500):
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(batch_size)])


@wrong("predict", says="Remember model.training")
def predict_and_train(model, x, batch_size=500):
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(part) for part in x.split(batch_size)])
    model.train()
    return outputs


@wrong("predict", says="Put the model's calls under")
def predict_and_detach(model, x, batch_size=500):
    mode = model.training
    model.eval()
    outputs = torch.cat([model(part).detach() for part in x.split(batch_size)])
    model.train(mode)
    return outputs


@wrong("predict", says="Loop over x.split")
def predict_at_once(model, x, batch_size=500):
    mode = model.training
    model.eval()
    with torch.no_grad():
        outputs = model(x)
    model.train(mode)
    return outputs


@wrong("predict", says="shorter part left out")
def predict_whole_parts_only(model, x, batch_size=500):
    mode = model.training
    model.eval()
    with torch.no_grad():
        parts = [model(x[i * batch_size : (i + 1) * batch_size]) for i in range(len(x) // batch_size)]
    model.train(mode)
    return torch.cat(parts)


@wrong("predict", says="stays off")
def predict_and_switch_gradients_off(model, x, batch_size=500):
    mode = model.training
    model.eval()
    torch.set_grad_enabled(False)
    outputs = torch.cat([model(part) for part in x.split(batch_size)])
    model.train(mode)
    return outputs


@wrong("predict", says="only the model's own flag")
def predict_and_set_the_flag(model, x, batch_size=500):
    mode = model.training
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(part) for part in x.split(batch_size)])
    model.training = mode
    return outputs


@wrong("predict", says="no softmax, no argmax")
def predict_classes(model, x, batch_size=500):
    mode = model.training
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(part).argmax(1) for part in x.split(batch_size)])
    model.train(mode)
    return outputs


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
        return torch.vstack([model.eval()(part) for part in torch.split(x, batch_size)])
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


# ------------------------------------------------------------------------------------------------ calibration_error


def _gaps(p, y, bins):
    confidence, predicted = p.max(1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    for m in range(bins):
        inside = which == m
        if inside.any():
            yield inside.double().mean(), (predicted == y)[inside].double().mean() - confidence[inside].double().mean()


@wrong("calibration_error", says="All bins count alike")
def plain_mean(probabilities, y, bins=15):
    gaps = [gap.abs() for _, gap in _gaps(probabilities, y, bins)]
    return sum(gaps) / len(gaps)


@wrong("calibration_error", says="opposite sign cancel")
def no_absolute_value(probabilities, y, bins=15):
    return sum(share * gap for share, gap in _gaps(probabilities, y, bins))


@wrong("calibration_error", says="largest gap")
def maximum(probabilities, y, bins=15):
    return max(gap.abs() for _, gap in _gaps(probabilities, y, bins))


@wrong("calibration_error", says="without their weights")
def summed_gaps(probabilities, y, bins=15):
    return sum(gap.abs() for _, gap in _gaps(probabilities, y, bins))


@wrong("calibration_error", says="15 whatever it is")
def always_fifteen(probabilities, y, bins=15):
    return sum(share * gap.abs() for share, gap in _gaps(probabilities, y, 15))


@wrong("calibration_error", says="squared")
def squared_gaps(probabilities, y, bins=15):
    return sum(share * gap**2 for share, gap in _gaps(probabilities, y, bins))


@wrong("calibration_error", says="right class")
def of_the_label(probabilities, y, bins=15):
    sure = probabilities.gather(1, y[:, None])[:, 0]
    right_ones = (probabilities.argmax(1) == y).double()
    which = (sure * bins).long().clamp(max=bins - 1)
    inside = [which == m for m in range(bins)]
    return sum(i.double().mean() * (right_ones[i].mean() - sure[i].mean()).abs() for i in inside if i.any())


@wrong("calibration_error", says="share of wrong answers")
def error_rate(probabilities, y, bins=15):
    return (probabilities.argmax(1) != y).double().mean()


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


# ----------------------------------------------------------------------------------------- smoothed_cross_entropy


@wrong("smoothed_cross_entropy", says="K - 1 wrong classes")
def among_the_others(logits, y, smoothing):
    K = logits.shape[1]
    t = torch.full_like(logits, smoothing / (K - 1)).scatter(1, y[:, None], 1 - smoothing)
    return -(t * logits.log_softmax(1)).sum(1).mean()


@wrong("smoothed_cross_entropy", says="lacks its share")
def right_class_without_share(logits, y, smoothing):
    t = torch.full_like(logits, smoothing / logits.shape[1]).scatter(1, y[:, None], 1 - smoothing)
    return -(t * logits.log_softmax(1)).sum(1).mean()


@wrong("smoothed_cross_entropy", says="not smoothed")
def ignores_smoothing(logits, y, smoothing):
    return functional.cross_entropy(logits, y)


@wrong("smoothed_cross_entropy", says="divides by 10")
def ten(logits, y, smoothing):
    t = (1 - smoothing) * functional.one_hot(y, logits.shape[1]) + smoothing / 10
    return -(t * logits.log_softmax(1)).sum(1).mean()


@wrong("smoothed_cross_entropy", says="their mean is asked for")
def batch_sum(logits, y, smoothing):
    return functional.cross_entropy(logits, y, label_smoothing=smoothing, reduction="sum")


@wrong("smoothed_cross_entropy", says="log_softmax avoids both")
def naive_log(logits, y, smoothing):
    log_p = (logits.exp() / logits.exp().sum(1, keepdim=True)).log()
    return -((1 - smoothing) * log_p[torch.arange(len(y)), y] + smoothing * log_p.mean(1)).mean()


@wrong("smoothed_cross_entropy", says="sign is turned")
def without_minus(logits, y, smoothing):
    return -functional.cross_entropy(logits, y, label_smoothing=smoothing)


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
