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


@wrong("EarlyStopping", says="but not all buffers")
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


@wrong("EarlyStopping", says="nothing in common")
class SharedBest(_Base):
    best = float("inf")

    def __init__(self, patience):
        self.patience, self.count, self.weights = patience, 0, None

    def update(self, loss, model):
        if loss < SharedBest.best:
            SharedBest.best, self.count, self.weights = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.count += 1
        return self.count >= self.patience


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


@wrong("EarlyStopping", says="with no margin")
class LeastGain(_Usual):
    def better(self, loss):
        return loss < self.best - 1e-3


@wrong("EarlyStopping", says="begins at some number")
class BeginsAtTen(_Usual):
    def __init__(self, patience):
        super().__init__(patience)
        self.best = 10.0


@wrong("EarlyStopping", says="a loss of 0 too")
class ZeroIsFalse(_Usual):
    def __init__(self, patience):
        super().__init__(patience)
        self.best = None

    def better(self, loss):
        return not self.best or loss < self.best


@wrong("EarlyStopping", says="takes the first loss")
class FirstUnseen(_Usual):
    def better(self, loss):
        return self.weights is None or loss < self.best


@wrong("EarlyStopping", says="waits for 3 updates")
class PatienceIgnored(_Usual):
    def __init__(self, patience):
        super().__init__(3)


@wrong("EarlyStopping", says="never stored")
class BestNeverStored(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.count, self.weights = 0, copy.deepcopy(model.state_dict())
        else:
            self.count += 1
        return self.count >= self.patience


@wrong("EarlyStopping", says="and counts")
class NanNotCounted(_Base):
    def update(self, loss, model):
        if loss < self.best:
            self.best, self.count, self.weights = loss, 0, copy.deepcopy(model.state_dict())
        elif loss >= self.best:
            self.count += 1
        return self.count >= self.patience


@wrong("EarlyStopping", says="only gives a name to something else")
class RestoreRebinds(_Usual):
    def restore(self, model):
        model = self.weights  # noqa: F841


@wrong("EarlyStopping", says="puts weights into the model")
class RestoresInUpdate(_Usual):
    def update(self, loss, model):
        stop = super().update(loss, model)
        if stop:
            self.restore(model)
        return stop


@wrong("EarlyStopping", says="hands over the kept tensors")
class RestoreByReference(_Usual):
    def restore(self, model):
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            value.data = self.weights[name]


@wrong("EarlyStopping", says=None)
class ReturnsTheCount(_Usual):
    def update(self, loss, model):
        super().update(loss, model)
        return self.count


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


@wrong("dropout", says="A fixed number of entries")
def exactly_this_many(x, p, training=True):
    if not training:
        return x
    ranks = torch.randperm(x.numel()).reshape(x.shape)
    return x * (ranks >= round(p * x.numel())) / (1 - p)


@wrong("dropout", says="A fixed number of entries")
def exactly_this_many_in_each_row(x, p, training=True):
    ranks = torch.rand_like(x).argsort(-1)
    return x * (ranks >= round(p * x.shape[-1])) / (1 - p) if training else x


@wrong("dropout", says="the same all along axis 0")
def one_mask_for_the_batch_of_images(x, p, training=True):
    return x * (torch.rand(x.shape[-2:], dtype=x.dtype) >= p) / (1 - p) if training and x.dim() > 1 else x


@wrong("dropout", says="into another type")
def always_double(x, p, training=True):
    return x.double() * (torch.rand_like(x) >= p) / (1 - p) if training else x


@wrong("dropout", says="not in training")
def flag_turned_round(x, p, training=True):
    return functional.dropout(x, p, not training)


@wrong("dropout", says="should be kept")
def probability_to_keep(x, p, training=True):
    return functional.dropout(x, 1 - p, training)


@wrong("dropout", says="fixed 0.5, whatever p is")
def doubled(x, p, training=True):
    return x * (torch.rand_like(x) >= p) * 2 if training else x


@wrong("dropout", says="changes its input x")
def zeroed_in_place(x, p, training=True):
    if not training:
        return x
    x[torch.rand_like(x) < p] = 0
    return x / (1 - p)


@wrong("dropout", says="Several results")
def with_its_mask(x, p, training=True):
    keep = torch.rand_like(x) >= p if training else torch.ones_like(x)
    return x * keep / (1 - p), keep


@wrong("dropout", says=None)
def by_the_root(x, p, training=True):
    return x * (torch.rand_like(x) >= p) / (1 - p) ** 0.5 if training else x


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
def as_a_module(x, p, training=True):
    return torch.nn.Dropout(p).train(training)(x)


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


def _usual(z, gamma, beta, running, training, rho, eps):
    if training:
        _refuse(z)
        new = (1 - rho) * running[0] + rho * z.mean(0), (1 - rho) * running[1] + rho * z.var(0)
        return _ending(z, z.mean(0), z.var(0, correction=0), gamma, beta, eps), new
    return _ending(z, *running, gamma, beta, eps), running


@wrong("batch_norm", says="comes twice")
def unbiased_twice(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    y, (mean, var) = _usual(z, gamma, beta, running, training, rho, eps)
    if training:
        var = (1 - rho) * running[1] + rho * z.var(0) * len(z) / (len(z) - 1)
    return y, (mean, var)


@wrong("batch_norm", says="turned round")
def factor_upside_down(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    y, (mean, var) = _usual(z, gamma, beta, running, training, rho, eps)
    if training:
        var = (1 - rho) * running[1] + rho * z.var(0, correction=0) * (len(z) - 1) / len(z)
    return y, (mean, var)


@wrong("batch_norm", says="variance does not move")
def only_the_mean_moves(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    y, (mean, _) = _usual(z, gamma, beta, running, training, rho, eps)
    return y, (mean, running[1])


@wrong("batch_norm", says="have changed places")
def variance_first(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    y, running = _usual(z, gamma, beta, running, training, rho, eps)
    return y, running[::-1]


@wrong("batch_norm", says="new running statistics")
def normalised_by_the_moved(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    _, running = _usual(z, gamma, beta, running, training, rho, eps)
    return _ending(z, *running, gamma, beta, eps), running


@wrong("batch_norm", says="return y, running")
def three_results(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    y, running = _usual(z, gamma, beta, running, training, rho, eps)
    return y, *running


@wrong("batch_norm", says="evaluation is not. ε is missing")
def no_eps_in_evaluation(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    return _usual(z, gamma, beta, running, training, rho, eps if training else 0.0)


@wrong("batch_norm", says="evaluation is not. γ and β")
def no_scale_in_evaluation(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if not training:
        return _ending(z, *running, 1, 0, eps), running
    return _usual(z, gamma, beta, running, training, rho, eps)


@wrong("batch_norm", says="the variance is the batch's")
def half_running(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    if not training:
        return _ending(z, running[0], z.var(0, correction=0), gamma, beta, eps), running
    return _usual(z, gamma, beta, running, training, rho, eps)


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


@wrong("batch_norm", says="In training it normalises")
def modes_turned_round(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    return _usual(z, gamma, beta, running, not training, rho, eps)


@wrong("batch_norm", says="axis of length 1 too many")
def row_vectors_kept(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    y, (mean, var) = _usual(z, gamma, beta, running, training, rho, eps)
    return y, (mean[None], var)


@wrong("batch_norm", says="The variance is cut from the graph")
def variance_cut(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    y, moved = _usual(z, gamma, beta, running, training, rho, eps)
    if training:
        y = _ending(z, z.mean(0), z.var(0, correction=0).detach(), gamma, beta, eps)
    return y, moved


@wrong("batch_norm", says="The mean is not subtracted")
def not_centred(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    _, moved = _usual(z, gamma, beta, running, training, rho, eps)
    return _ending(z, 0, z.var(0, correction=0) if training else running[1], gamma, beta, eps), moved


@wrong("batch_norm", says=None)
def divided_by_gamma(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    return _usual(z, 1 / gamma, beta, running, training, rho, eps)


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


@right("batch_norm")
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


def _right(delta, z, gamma, eps):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.mean(0) - h * (delta * h).mean(0)), (delta * h).sum(0), delta.sum(0)


@wrong("batch_norm_backward", says="have changed places")
def z_last(delta, z, gamma, eps=1e-5):
    to_z, to_gamma, to_beta = _right(delta, z, gamma, eps)
    return to_gamma, to_beta, to_z


@wrong("batch_norm_backward", says="return to_z, to_gamma, to_beta")
def only_z(delta, z, gamma, eps=1e-5):
    return _right(delta, z, gamma, eps)[0]


@wrong("batch_norm_backward", says="axis 0")
def over_features(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    inside = delta - delta.mean(1, keepdim=True) - h * (delta * h).mean(1, keepdim=True)
    return gamma / s * inside, *_right(delta, z, gamma, eps)[1:]


@wrong("batch_norm_backward", says="divides by B - 1")
def one_less(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    _, to_gamma, to_beta = _right(delta, z, gamma, eps)
    return gamma / s * (delta - (to_beta + h * to_gamma) / (len(z) - 1)), to_gamma, to_beta


@wrong("batch_norm_backward", says="divide by s, both times")
def centred_only(delta, z, gamma, eps=1e-5):
    s, _ = _parts(z, eps)
    c = z - z.mean(0)
    return gamma / s * (delta - delta.mean(0) - c * (delta * c).mean(0)), *_right(delta, z, gamma, eps)[1:]


@wrong("batch_norm_backward", says="term of δẑ is a sum")
def one_mean_one_sum(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta - delta.mean(0) - h * (delta * h).sum(0)), *_right(delta, z, gamma, eps)[1:]


@wrong("batch_norm_backward", says="wrong sign")
def signs_mixed(delta, z, gamma, eps=1e-5):
    s, h = _parts(z, eps)
    return gamma / s * (delta + delta.mean(0) - h * (delta * h).mean(0)), *_right(delta, z, gamma, eps)[1:]


@wrong("batch_norm_backward", says="ε is an argument")
def usual_eps(delta, z, gamma, eps=1e-5):
    return _right(delta, z, gamma, 1e-5)


@wrong("batch_norm_backward", says="keep the default")
def another_default(delta, z, gamma, eps=1e-8):
    return _right(delta, z, gamma, eps)


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


def _hat(z, eps):
    return (z - z.mean(-1, keepdim=True)) / (z.var(-1, correction=0, keepdim=True) + eps).sqrt()


@wrong("layer_norm", says="γ is missing")
def layer_no_gamma(z, gamma, beta, eps=1e-5):
    return _hat(z, eps) + beta


@wrong("layer_norm", says="γ and β are swapped")
def layer_swapped(z, gamma, beta, eps=1e-5):
    return beta * _hat(z, eps) + gamma


@wrong("layer_norm", says="all axes but the first")
def layer_flattened(z, gamma, beta, eps=1e-5):
    return gamma * _hat(z.flatten(1) if z.dim() > 1 else z, eps).reshape(z.shape) + beta


@wrong("layer_norm", says="mean is not subtracted")
def layer_not_centred(z, gamma, beta, eps=1e-5):
    return gamma * z / (z.var(-1, correction=0, keepdim=True) + eps).sqrt() + beta


@wrong("layer_norm", says="keep the default")
def layer_other_default(z, gamma, beta, eps=1e-8):
    return gamma * _hat(z, eps) + beta


@wrong("layer_norm", says="No detach")
@torch.no_grad()
def layer_without_gradients(z, gamma, beta, eps=1e-5):
    return gamma * _hat(z, eps) + beta


@wrong("layer_norm", says="a part of the way cut off")
def layer_variance_cut(z, gamma, beta, eps=1e-5):
    s = (z.var(-1, correction=0, keepdim=True).detach() + eps).sqrt()
    return gamma * (z - z.mean(-1, keepdim=True)) / s + beta


@wrong("layer_norm", says="make new tensors")
def layer_overwritten(z, gamma, beta, eps=1e-5):
    z = z - z.mean(-1, keepdim=True)
    z /= (z.square().mean(-1, keepdim=True) + eps).sqrt()
    return gamma * z + beta


@wrong("layer_norm", says="changes its input z")
def layer_in_place(z, gamma, beta, eps=1e-5):
    z -= z.mean(-1, keepdim=True)
    return gamma * _hat(z, eps) + beta


@wrong("layer_norm", says=None)
def layer_root_mean_square(z, gamma, beta, eps=1e-5):
    return gamma * z / (z.square().mean(-1, keepdim=True) + eps).sqrt() + beta


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


def _predict(model, x, batch_size, split=torch.split, join=torch.cat, switch=torch.nn.Module.eval):
    mode = model.training
    switch(model)
    with torch.no_grad():
        outputs = join([model(part) for part in split(x, batch_size)])
    model.train(mode)
    return outputs


@wrong("predict", says="take the number of parts")
def predict_in_chunks(model, x, batch_size=500):
    return _predict(model, x, batch_size, split=torch.chunk)


@wrong("predict", says="Loop over x.split(batch_size)")
def predict_one_by_one(model, x, batch_size=500):
    return _predict(model, x, 1)


@wrong("predict", says="computed twice")
def predict_the_rest_of_none(model, x, batch_size=500):
    def split(x, n):
        return [*(x[i * n : (i + 1) * n] for i in range(len(x) // n)), x[-(len(x) % n) :]]

    return _predict(model, x, batch_size, split)


@wrong("predict", says="no softmax")
def predict_probabilities(model, x, batch_size=500):
    return _predict(model, x, batch_size).softmax(1)


@wrong("predict", says="torch.cat makes one")
def predict_a_list(model, x, batch_size=500):
    return _predict(model, x, batch_size, join=list)


@wrong("predict", says="Stay in torch")
def predict_an_array(model, x, batch_size=500):
    return _predict(model, x, batch_size).numpy()


@wrong("predict", says="Call model.eval()")
def predict_with_dropout_off(model, x, batch_size=500):
    def switch(model):
        for layer in model.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.eval()

    return _predict(model, x, batch_size, switch=switch)


@wrong("predict", says="it switches all layers")
def predict_with_the_flag_by_hand(model, x, batch_size=500):
    def switch(model):
        model.training = False

    return _predict(model, x, batch_size, switch=switch)


@wrong("predict", says="learn no more")
def predict_and_freeze(model, x, batch_size=500):
    model.requires_grad_(False)
    return _predict(model, x, batch_size)


@wrong("predict", says="Remember model.training before")
def predict_mode_asked_too_late(model, x, batch_size=500):
    model.eval()
    return _predict(model, x, batch_size)


@wrong("predict", says="Call model.eval()")
def predict_lazily(model, x, batch_size=500):
    mode = model.training
    model.eval()
    outputs = (model(part) for part in x.split(batch_size))
    model.train(mode)
    with torch.no_grad():
        return torch.cat(list(outputs))


@wrong("predict", says="Put the model's calls under")
def predict_no_grad_only_called(model, x, batch_size=500):
    mode = model.training
    model.eval()
    torch.no_grad()
    outputs = torch.cat([model(part) for part in x.split(batch_size)])
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


@wrong("calibration_error", says="first bin")
def from_the_second_bin(probabilities, y, bins=15):
    confidence = probabilities.max(1).values
    inside = confidence >= 1 / bins
    return _usual_error(probabilities[inside], y[inside], bins) * inside.double().mean() if inside.any() else 0.0


def _usual_error(probabilities, y, bins):
    return sum(share * gap.abs() for share, gap in _gaps(probabilities, y, bins))


@wrong("calibration_error", says="last bin is left out")
def to_the_last_but_one(probabilities, y, bins=15):
    inside = probabilities.max(1).values < (bins - 1) / bins
    return _usual_error(probabilities[inside], y[inside], bins) * inside.double().mean() if inside.any() else 0.0


@wrong("calibration_error", says="one bin less")
def edges_for_bins(probabilities, y, bins=15):
    return _usual_error(probabilities, y, bins - 1 or 1)


@wrong("calibration_error", says="root of the mean square")
def root_mean_square(probabilities, y, bins=15):
    return sum(share * gap**2 for share, gap in _gaps(probabilities, y, bins)) ** 0.5


@wrong("calibration_error", says="probabilities of all classes")
def all_classes(probabilities, y, bins=15):
    hot, which = (
        functional.one_hot(y, probabilities.shape[1]).double(),
        (probabilities * bins).long().clamp(max=bins - 1),
    )
    inside = [which == m for m in range(bins)]
    return sum(i.double().mean() * (hot[i].mean() - probabilities[i].mean()).abs() for i in inside if i.any())


@wrong("calibration_error", says="softmax is taken of what")
def softmax_once_more(probabilities, y, bins=15):
    return _usual_error(probabilities.softmax(1), y, bins)


@wrong("calibration_error", says="Only gaps of one sign")
def too_sure_only(probabilities, y, bins=15):
    return sum(share * (-gap).clamp(min=0) for share, gap in _gaps(probabilities, y, bins))


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


@wrong("calibration_error", says=None)
def in_percent(probabilities, y, bins=15):
    return 100 * _usual_error(probabilities, y, bins)


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


def _with(targets, logits, y, smoothing):
    hot = functional.one_hot(y, logits.shape[1]).to(logits)
    return -(targets(hot, smoothing) * logits.log_softmax(1)).sum(1).mean()


@wrong("smoothed_cross_entropy", says="divides by B")
def over_the_images(logits, y, smoothing):
    return _with(lambda hot, e: (1 - e) * hot + e / len(hot), logits, y, smoothing)


@wrong("smoothed_cross_entropy", says="1 - ε + ε/K")
def gives_too_little(logits, y, smoothing):
    return _with(lambda hot, e: torch.where(hot > 0, 1 - e / hot.shape[1], e / hot.shape[1]), logits, y, smoothing)


@wrong("smoothed_cross_entropy", says="ε is given to each class whole")
def summed_over_classes(logits, y, smoothing):
    return (1 - smoothing) * functional.cross_entropy(logits, y) - smoothing * logits.log_softmax(1).sum(1).mean()


@wrong("smoothed_cross_entropy", says="given to none")
def only_shrunk(logits, y, smoothing):
    return (1 - smoothing) * functional.cross_entropy(logits, y)


@wrong("smoothed_cross_entropy", says="smoothing is an argument")
def always_a_tenth(logits, y, smoothing):
    return functional.cross_entropy(logits, y, label_smoothing=0.1)


@wrong("smoothed_cross_entropy", says="softmax is taken twice")
def probabilities_for_logits(logits, y, smoothing):
    return functional.cross_entropy(logits.softmax(1), y, label_smoothing=smoothing)


@wrong("smoothed_cross_entropy", says="labels of all images")
def every_label(logits, y, smoothing):
    log_p = logits.log_softmax(1)
    return -((1 - smoothing) * log_p[:, y].mean() + smoothing * log_p.mean())


@wrong("smoothed_cross_entropy", says="One loss for each image")
def one_each(logits, y, smoothing):
    return functional.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")


@wrong("smoothed_cross_entropy", says=".item() take the number out")
def a_number(logits, y, smoothing):
    return functional.cross_entropy(logits, y, label_smoothing=smoothing).item()


@wrong("smoothed_cross_entropy", says="No detach")
def detached(logits, y, smoothing):
    return functional.cross_entropy(logits.detach(), y, label_smoothing=smoothing)


@wrong("smoothed_cross_entropy", says="log_softmax avoids both")
def cut_off_below(logits, y, smoothing):
    log_p = logits.softmax(1).clamp(min=1e-7).log()
    return -((1 - smoothing) * log_p[torch.arange(len(y)), y] + smoothing * log_p.mean(1)).mean()


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
