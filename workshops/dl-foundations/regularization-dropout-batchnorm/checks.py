"""The checks of regularization-dropout-batchnorm: one for each exercise, with its hints. `lab.check` runs them.

Layers and the loss are held to torch.nn.functional over all families of inputs, values and gradients.
"""

import contextlib
import copy
import itertools
import math

import numpy as np
from scipy.special import softmax

from atlas.checking import (
    Complaint,
    Tape,
    agree,
    among,
    array,
    cases,
    counts,
    exercise,
    expect,
    floats,
    gradients,
    labels,
    numbers,
    parts,
    tensor,
)


def _tensor(values):
    import torch

    return torch.tensor(np.asarray(values), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ EarlyStopping


class _Stopper:
    """Early stopping with parts to replace."""

    begin = math.inf

    def __init__(self, patience):
        self.patience, self.lowest, self.waited, self.kept = patience, self.begin, 0, None

    def improves(self, loss):
        return loss < self.lowest

    def lower(self, loss, better):
        return loss if better else self.lowest

    def wait(self, better):
        return 0 if better else self.waited + 1

    def keep(self, model, better):
        return copy.deepcopy(model.state_dict()) if better else self.kept

    def over(self):
        return self.waited >= self.patience

    def update(self, loss, model):
        self.seen, self.loss, better = model, loss, self.improves(loss)
        self.kept, self.waited, self.lowest = self.keep(model, better), self.wait(better), self.lower(loss, better)
        return self.over()

    def restore(self, model):
        model.load_state_dict(self.kept, strict=False)


def _tensors_of(model):
    return [*model.named_parameters(), *model.named_buffers()]


def _tiny_model():
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    for p in model.parameters():
        p.grad = torch.ones_like(p)  # as in the middle of a training
    return model


def _fill(model, value):
    """Set every parameter and buffer to this value, in place, as training does."""
    import torch

    with torch.no_grad():
        for each in model.state_dict().values():
            each.fill_(value)


def _filled(model):
    """What every tensor of the model is filled with: its mean by name."""
    return {name: float(value.double().mean()) for name, value in model.state_dict().items()}


@exercise(
    hints=[
        "Remember four things: the patience, the lowest loss so far, how many updates were no better, and a copy of the best weights.",
        "copy.deepcopy(model.state_dict()) is a true copy. A new lowest loss sets the count to 0; everything else adds 1.",
        "if loss < self.lowest: keep loss, copy and 0; else: self.waited += 1. Then: return self.waited >= self.patience",
    ],
    mistakes=parts(_Stopper).mistakes(
        keep={
            "It keeps the model's own tensors, and they go on changing. Copy them: copy.deepcopy(model.state_dict()).": (
                lambda self, model, better: model.state_dict() if better else self.kept
            ),
            "It keeps the weights of the last update, not those of the lowest loss.": (
                lambda self, model, better: copy.deepcopy(model.state_dict())
            ),
            "It keeps the weights of the first update only: each new lowest loss brings new best weights.": (
                lambda self, model, better: self.kept or copy.deepcopy(model.state_dict())
            ),
            "It keeps the parameters but not all buffers, such as batch norm's running statistics. Take all of model.state_dict().": (
                lambda self, model, better: (
                    {name: p.detach().clone() for name, p in model.named_parameters()} if better else self.kept
                )
            ),
        },
        over={
            "It waits one update too many: stop when `patience` updates in a row were no better (>=, not >).": (
                lambda self: self.waited > self.patience
            ),
            "It stops one update too early: `patience` updates without a new lowest loss have to come first.": (
                lambda self: self.waited >= self.patience - 1
            ),
            "It returns the opposite: True has to mean stop.": lambda self: self.waited < self.patience,
            "NaN is one update that is no better, like others; here it stops at once.": (
                lambda self: self.waited >= self.patience or math.isnan(self.loss)
            ),
        },
        wait={
            "A new lowest loss does not set the count back to 0. Only updates in a row count.": (
                lambda self, better: self.waited + (not better)
            )
        },
        lower={
            "It compares with the previous loss. Compare with the lowest so far, which an update that is no better leaves as it is.": (
                lambda self, loss, better: loss
            ),
            "The lowest loss is never stored, so that every loss is lower: self.lowest = loss.": (
                lambda self, loss, better: math.inf
            ),
        },
        improves={
            "It takes an equal loss for an improvement, or does not count it. Only a lower one is one (<, not <=); all others count (else).": (
                lambda self, loss: loss <= self.lowest
            ),
            "No improvement sets the count back: is the comparison turned round, does the lowest begin at 0 instead of inf, or is the 0 missing?": (
                lambda self, loss: False
            ),
            "NaN is no improvement, and counts: each comparison with NaN is False, so ask `loss < lowest`, and count in the else.": (
                lambda self, loss: not loss >= self.lowest
            ),
            '`not self.lowest` holds for a loss of 0 too: begin with float("inf"), or ask `self.lowest is None`.': (
                lambda self, loss: not self.lowest or loss < self.lowest
            ),
            'It takes the first loss as the lowest unseen. After NaN no number is lower: begin with float("inf").': (
                lambda self, loss: self.kept is None or loss < self.lowest
            ),
            "A loss that is lower by little is an improvement too: loss < lowest, with no margin.": (
                lambda self, loss: loss < self.lowest - 1e-4 or self.lowest == math.inf
            ),
        },
        begin={
            'The lowest loss begins at some number, and larger losses never get below it: begin with float("inf").': 1e9
        },
        patience={
            "patience is an argument; this waits for 3 updates whatever it is.": 3,
            "patience is an argument; this waits for 5 updates whatever it is.": 5,
        },
        restore={
            "restore leaves the model as it is. Is `model = ...` only another name, is the copy none, so that it loads the model's own weights, or does it wait for a stop? Call model.load_state_dict(...) with the copy, always.": (
                lambda self, model: None
            ),
            "restore hands over the kept tensors themselves, and training changes them. Copy them: model.load_state_dict(...).": (
                lambda self, model: [setattr(p, "data", self.kept[n]) for n, p in _tensors_of(model)]
            ),
            "restore puts the weights into the model that update saw. It is to be the one that restore is given.": (
                lambda self, model: self.seen.load_state_dict(self.kept)
            ),
        },
        together={
            "It looks for the highest loss: is the comparison turned round?": {
                "begin": -math.inf,
                "improves": lambda self, loss: loss > self.lowest,
            }
        },
    ),
    changes=("weights",),  # restore does; update is asked below
    seconds=30,  # torch.nn may be imported here for the first time
)
def EarlyStopping(learner, rng):
    counting = (
        "A loss that is lower than all before sets the count to 0, every other adds 1; at `patience` it says stop."
    )

    def demand(losses, patience, expected, why, turns=False, likely=counting):
        """turns: another stopper, with a patience, losses and a model of its own, takes turns with it."""
        other, other_model = (learner(patience + 5), _tiny_model()) if turns else (None, None)
        stopper, model, said = learner(patience), _tiny_model(), []
        for loss in losses:
            answer = stopper.update(loss, model)
            kind = "update returns True or False in every case"
            alone = answer is not None and not getattr(answer, "ndim", 0)
            likely_kind = "Is a `return` missing?" if answer is None else ""
            expect.true(alone, kind, f"yours    {answer!r}", likely=likely_kind)
            said.append(bool(answer))
            if other:
                other.update(-100 - loss, other_model)
        why = f"{why}: losses {', '.join(f'{loss:.7g}' for loss in losses)}, patience {patience}"
        expect.equal(said, expected, why=why, source="counted by hand", likely=likely)

    nan, example = math.nan, [5, 3, 4, 3, 2.5, 3, 3, 3]
    demand(example, 3, [False] * 7 + [True], "says stop in the right update, the example above")
    likely = "Is something kept in the class, or in a list made in the first line of __init__, instead of in self?"
    why = "two stoppers that take turns have nothing in common"
    demand(example, 3, [False] * 7 + [True], why, turns=True, likely=likely)
    demand([1] + 7 * [2], 7, [False] * 7 + [True], "patience is what it is given")
    demand([2, 3], 1, [False, True], "patience 1 stops at once where it gets worse")
    demand([4, 5, 3, 3.5, 3.2, 3.1], 3, [False] * 5 + [True], "compares with the lowest loss, not with the last one")
    demand([3, 3, 3], 2, [False, False, True], "an equal loss is no improvement")
    demand([-1.0, -2.0, -1.5, -1.7], 2, [False] * 3 + [True], "losses below zero count like others")
    demand([1.0, 0.0, 0.5, 0.7], 2, [False] * 3 + [True], "a loss of 0 counts like others")
    demand([1e30, 2e30, 1e29, 1e31], 2, [False] * 4, "large losses count like others")
    demand([1.0, 1 - 1e-6, 1 - 2e-6, 1 - 3e-6], 2, [False] * 4, "a loss that is lower by little is an improvement")
    demand([2.0, nan, nan], 2, [False, False, True], "NaN is no improvement")
    demand([nan, 2.0, 2.5, 1.0], 2, [False] * 4, "after NaN a number is an improvement")

    def restored(stopper, model, value, why):
        stopper.restore(model)
        words = "These are another stopper's weights: is what is kept the class's? Keep it in self."
        likely = {words: dict.fromkeys(model.state_dict(), 12.0 - value)}
        expected = dict.fromkeys(model.state_dict(), float(value))
        source = "every weight is the number of its update"
        expect.equal(_filled(model), expected, why=why, source=source, likely=likely)

    # the first never says stop, the other does: the best weights are kept in any case
    (stopper, other), (model, other_model) = (learner(3), learner(3)), (_tiny_model(), _tiny_model())
    for step, loss in enumerate([4.0, 2.0, 1.0, 1.5, 1.2]):
        for each, its_model, its_loss, value in ((stopper, model, loss, step), (other, other_model, -loss, 10 + step)):
            _fill(its_model, value)
            each.update(its_loss, its_model)
            likely = "update only copies; restore, and nothing else, puts weights into the model."
            expect.true(
                {*_filled(its_model).values()} == {value}, "update leaves the weights as they are", likely=likely
            )
    _fill(model, 5)
    model.double()  # other tensors from here on, so that what still holds the old ones shows
    _fill(model, 6)
    restored(stopper, model, 2, "restore brings back the best, of update 2; then all became 5, and 6")
    _fill(model, 7)
    restored(stopper, model, 2, "a second restore, after more training, brings the same weights")
    restored(stopper, _tiny_model(), 2, "restore changes the model that it is given, another one too")
    restored(other, other_model, 10, "each stopper brings back its own best weights")
    stopper, model = learner(3), _tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stopper.update(1.0, model)
    _fill(model, 5)
    stopper.restore(model)
    exact = all(value.equal(before[name]) for name, value in model.state_dict().items())
    likely = "Are they kept in another type, such as half precision, or rounded?"
    expect.true(exact, "restore brings the weights back to the last digit", likely=likely)


# ------------------------------------------------------------------------------------------------ dropout


@parts
def _dropped(
    x, p, training=True, *, keep=lambda u, p: u >= p, scale=lambda x, p: x / (1 - p), evaluated=lambda x, p: x
):
    import torch

    return scale(x * keep(torch.rand_like(x), p), p) if training else evaluated(x, p)


def _normal_at_least(u, p):
    import torch

    return torch.randn_like(u) >= p


def _tenths_at_least(u, p):
    import torch

    return torch.randint(10, u.shape) >= 10 * p


def _demand_own_masks(zeros):
    """Demand that no axis shares its mask; zeros: True where an entry is dropped."""
    whole = [axis for axis in range(zeros.ndim) if (zeros == zeros.take([0], axis)).all()]
    if whole:
        likely = "The mask is one and the same all along axis {0}: make it of the shape of x."
        if zeros.ndim == 2:
            likely = "The mask has one entry for each column, so all rows share it: make it of the shape of x."
        if whole == [1]:
            likely = "Whole rows are dropped: each entry has its own chance. Make the mask of the shape of x."
        why = "each entry is dropped by itself"
        expect.true(False, why, f"yours    one mask all along axis {whole[0]}", likely=likely.format(whole[0]))


@exercise(
    hints=[
        "torch.rand_like(x) gives a uniform number between 0 and 1 for each entry. With what probability is it at least p?",
        "keep = torch.rand_like(x) >= p is the mask. A product with it makes zeros; the rest is divided by 1 - p.",
        "if not training: return x, and otherwise: return x * (torch.rand_like(x) >= p) / (1 - p)",
    ],
    mistakes=_dropped.mistakes(
        training={"It drops in evaluation too: `training` is not looked at.": True},
        evaluated={
            "In evaluation it scales x. Inverted dropout divides in training, so that evaluation has nothing to do.": (
                lambda x, p: x * (1 - p)
            ),
            "In evaluation it divides by 1 - p. That belongs to training, so that evaluation has nothing to do.": (
                lambda x, p: x / (1 - p)
            ),
        },
        keep={
            "It drops what should be kept: p is the probability to become zero, so keep where rand >= p.": (
                lambda u, p: u < p
            ),
            "Nothing is dropped: is the mask made, compared with p, and multiplied with x? And is there a bracket around 1 - p?": lambda u, p: (
                u >= 0
            ),
            "Half of them: is there a fixed 0.5 in place of p? rand gives 0 to 1.": lambda u, p: u >= 0.5,
            "torch.randn is normally distributed; torch.rand is uniform from 0 to 1.": _normal_at_least,
            "Whole numbers know tenths only, and p may lie between: torch.rand is uniform from 0 to 1.": (
                _tenths_at_least
            ),
        },
        scale={
            "What is kept is not scaled: divide by 1 - p, so that the mean stays.": lambda x, p: x,
            "It divides by p, the share that is dropped; what is kept is the share 1 - p.": lambda x, p: x / (p or 1),
            "It multiplies by 1 - p: then the mean shrinks twice. Divide.": lambda x, p: x * (1 - p),
            "It divides by a fixed 0.5, whatever p is. Divide by 1 - p.": lambda x, p: x * 2,
            "1 + p is near 1/(1 - p), but not the same.": lambda x, p: x * (1 + p),
        },
        together={
            "It drops in evaluation and not in training.": {
                "keep": lambda u, p: u >= 0,
                "scale": lambda x, p: x,
                "evaluated": lambda x, p: _dropped(x, p),
            }
        },
    ),
    random=True,
)
def dropout(learner, rng):
    """What is random differs between two right answers: they are compared in what does not, a share, a factor."""
    import torch

    def values(x, p):
        """What the learner's function makes of x, a tensor of its shape, as an array."""
        y = learner(x, p)
        tensor(y, "the result in training")
        expect.shape(y, tuple(x.shape), "the result in training has the shape of x")
        return array(y)

    def inputs(*shape):
        """No zeros in it, and both signs."""
        return _tensor(rng.uniform(1, 2, size=shape) * rng.choice([-1, 1], size=shape))

    x, p = inputs(60, 50), 0.3
    as_it_is, y = learner(x, p, training=False), learner(x, p)
    for each, mode in ((as_it_is, "in evaluation"), (y, "in training")):
        tensor(each, f"the result {mode}")
        expect.shape(each, (60, 50), f"the result {mode} has the shape of x")
    expect.dtype(y, float, "the result is a tensor of numbers, not the mask")
    ratio = array(y) / array(x)
    zeros = ratio == 0
    share = zeros.mean()
    shares = {(values(x[:3, :4], p) == 0).mean() for _ in range(20)}
    likely = "It is drawn once whether all are dropped. Each entry has its own chance: a mask of the shape of x."
    expect.true(shares != {0.0, 1.0}, "neither all entries are dropped in each call, nor none", likely=likely)
    if 0 < share < 1:
        _demand_own_masks(zeros)
    both = [round(float(each), 1) for each in ((array(as_it_is) == 0).mean(), share)]
    why, source = f"the share of zeros in evaluation and in training, p = {p}", "nothing, and p, with one digit"
    likely = "An entry becomes zero where its own uniform number is below p: in training, and nowhere else."
    expect.close(both, [0, p], why=why, source=source, likely=likely)
    expect.true(abs(share - p) < 0.045, why, f"yours    {share:.1%} in training")
    why = "in evaluation x comes back as it is"
    expect.close(as_it_is, x, why=why, source="the definition", atol=0, rtol=1e-12)
    kept = ratio[~zeros]

    def likely(*_):
        if np.allclose(array(y)[~zeros], 1 / (1 - p)):
            return "This is the mask, scaled; multiply it with x."
        if np.allclose(kept, 1 / (1 - share)):
            return (
                "It divides by the share that this mask happens to keep; divide by 1 - p, the share that is expected."
            )
        if np.ptp(kept) > 1e-6:
            return "They are not x times one factor: is x added to, or scaled by what this mask happens to keep?"
        return ""

    why = f"what is kept is x/(1 - p), p = {p}: the smallest and the largest factor"
    expect.close([kept.min(), kept.max()], [1 / (1 - p)] * 2, why=why, source="1/(1 - p)", likely=likely)

    before = torch.get_rng_state()
    other = values(x, p) == 0
    likely = "It draws anew and gets the same: a seed is set inside the function. Leave that to whoever calls it."
    if torch.equal(before, torch.get_rng_state()):
        likely = "torch's generator did not move: is the mask kept from before, or drawn by a generator made inside?"
    expect.true((other != zeros).any(), "another call drops other entries", likely=likely)
    repeats = []
    for _ in range(2):
        torch.manual_seed(3)
        repeats.append(values(x, p))
    likely = (
        "Draw with torch.rand_like or torch.bernoulli, not with NumPy or random: then torch.manual_seed governs it."
    )
    expect.true((repeats[0] == repeats[1]).all(), "after torch.manual_seed the same entries are dropped", likely=likely)
    same_number = len({int(mask.sum()) for mask in (zeros, other, repeats[0] == 0, values(x, p) == 0)}) == 1
    same_number = same_number or not np.ptp(zeros.sum(1)) or not np.ptp(zeros.sum(0))
    likely = "A fixed number of entries is dropped. Each has its own chance, so the number varies: rand_like(x) >= p."
    expect.true(not same_number, "how many are dropped is left to chance", likely=likely)

    expect.close(learner(x, 0.0), x, why="p = 0 drops nothing", source="the definition")
    views = {"a transposed view": inputs(30, 20).T, "one entry": inputs(1, 1)}
    shapes = {"three axes": (30, 4, 5), "one axis": (600,), "four axes": (6, 4, 5, 5)}
    p = 0.8037
    for words, x in {**{words: inputs(*shape) for words, shape in shapes.items()}, **views}.items():
        y = learner(x, p)
        expect.shape(y, tuple(x.shape), f"x may be of any shape: {words}")
        ratio = array(y) / array(x)
        share, kept = (ratio == 0).mean(), ratio[ratio != 0]
        likely = "Is there a fixed or a rounded number in place of p?"
        if x.numel() > 1:
            evidence = f"yours    {share:.1%} of {x.numel()} entries are zero, p = {p}"
            expect.true(0.7 < share < 0.9, f"the share follows p, {words}", evidence, likely=likely)
            _demand_own_masks(ratio == 0)
        why = f"what is kept is divided by 1 - p = 0.1963, {words}"
        expect.true(np.allclose(kept, 1 / (1 - p)), why, f"yours    {kept[:3]} times x", likely=likely)
    share = 1000 * (values(torch.ones(100, 200), 0.004) == 0).mean()
    why, seen = "a small p counts too: with p = 0.004 about 4 of 1,000 become zero", f"yours    {share:.1f} of 1,000"
    likely = "Is p rounded, or taken for 0? rand_like(x) >= p is exact."
    expect.true(1.5 < share < 7.5, why, seen, likely=likely)
    for kind, training in itertools.product((torch.float32, torch.float64), (True, False)):
        x = torch.ones(7, dtype=kind)
        likely = "Is it turned into another type on the way, by .double(), .float() or NumPy?"
        expect.dtype(learner(x, 0.5, training), x, "the result has the type of x", likely=likely)

    def drawn(x):
        torch.manual_seed(3)
        return learner(x, 0.4)

    x = inputs(6, 5)
    factors = drawn(x).detach() / x
    why = "the gradient passes where an entry is kept, times 1/(1 - p)"
    gradients(drawn, lambda x: x * factors, rng, why=why, source="the factors of the same draw", x=x)
    why = "in evaluation the gradient passes as it is"
    gradients(lambda x: learner(x, 0.4, False), lambda x: x, rng, why=why, source="the definition", x=x)


# ------------------------------------------------------------------------------------------------ batch_norm

_FAR = "The mean of z² minus z̄² loses its digits far from 0: subtract the mean first, and square then."


def _rooted(var, eps):
    return (var + eps).sqrt()


def _ended(z_hat, gamma, beta):
    return gamma * z_hat + beta


_ROOTS = {
    "ε belongs inside the root: √(σ² + ε).": lambda var, eps: var.sqrt() + eps,
    "It divides by the variance; divide by its root.": lambda var, eps: var + eps,
    "ε is missing: √(σ² + ε).": lambda var, eps: var.sqrt(),
    "ε is no lower limit, it is added: √(σ² + ε).": lambda var, eps: var.clamp(min=eps).sqrt(),
}
_ENDS = {
    "γ and β have no part in it: y = γẑ + β.": lambda z_hat, gamma, beta: z_hat,
    "β is missing: y = γẑ + β.": lambda z_hat, gamma, beta: gamma * z_hat,
    "γ is missing: y = γẑ + β.": lambda z_hat, gamma, beta: z_hat + beta,
    "β is scaled by γ: y = γẑ + β has no bracket.": lambda z_hat, gamma, beta: gamma * (z_hat + beta),
    "γ and β are swapped: γ scales, β shifts.": lambda z_hat, gamma, beta: beta * z_hat + gamma,
}
_CUTS = {
    "γ is cut from the graph, by .data or .detach(), and would never learn.": (
        lambda z_hat, gamma, beta: gamma.detach() * z_hat + beta
    ),
    "β is cut from the graph, by .data or .detach(), and would never learn.": (
        lambda z_hat, gamma, beta: gamma * z_hat + beta.detach()
    ),
}


_REFUSED = "A batch of one image in training has to be refused: raise ValueError(...)."


def _both_modes(table, right):
    """Each of these as a mistake in both modes, and as one in evaluation alone; the mode comes last."""
    both = {words: lambda *given, wrong=wrong: wrong(*given[:-1]) for words, wrong in table.items()}
    alone = {
        f"Training is right, evaluation is not. {words}": lambda *given, wrong=wrong: (right if given[-1] else wrong)(
            *given[:-1]
        )
        for words, wrong in table.items()
    }
    return both | alone


@parts
def _batch_norm(
    z,
    gamma,
    beta,
    running,
    training,
    rho=0.1,
    eps=1e-5,
    *,
    refuse=lambda z, training: training and len(z) < 2,
    batch=lambda z: (z.mean(0), z.var(0, correction=0)),
    kept=lambda z: (z.mean(0), z.var(0)),
    move=lambda old, new, rho: (1 - rho) * old + rho * new,
    used=lambda training, batch, before, after: batch if training else before,
    back=lambda training, before, after: after if training else before,
    center=lambda z, mean: z - mean,
    root=lambda var, eps, training: _rooted(var, eps),
    end=lambda z_hat, gamma, beta, training: _ended(z_hat, gamma, beta),
):
    if refuse(z, training):
        raise ValueError("batch of 1")
    after = tuple(move(old, new, rho) for old, new in zip(running, kept(z), strict=True)) if len(z) > 1 else running
    mean, var = used(training, batch(z), running, after)
    y = end(center(z, mean) / root(var, eps, training), gamma, beta, training)
    return y, back(training, running, after)


@exercise(
    hints=[
        "Two modes, one ending. Only the choice of mean and variance differs; the last line is the same for both.",
        "z.mean(0), and z.var(0, correction=0) for the biased variance; times B / (B - 1) it is the unbiased one for the running statistics.",
        "In training: running = ((1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * var * B / (B - 1)). "
        "At the end: return gamma * (z - mean) / (var + eps).sqrt() + beta, running",
    ],
    mistakes=_batch_norm.mistakes(
        batch={
            "It normalises by the unbiased variance: torch's var divides by B - 1 unless it is told correction=0. ẑ takes the batch's own, divided by B.": (
                lambda z: (z.mean(0), z.var(0))
            ),
            "Mean and variance are over the features of each example (axis 1): that is layer norm. Batch norm's are over the batch, axis 0.": (
                lambda z: (z.mean(1, keepdim=True), z.var(1, correction=0, keepdim=True))
            ),
            "Mean and variance are taken over everything; each feature has its own: axis 0.": (
                lambda z: (z.mean(), z.var(correction=0))
            ),
            "Mean and variance are cut from the graph: the gradient has to flow through them too. No detach, no torch.no_grad().": (
                lambda z: (z.mean(0).detach(), z.var(0, correction=0).detach())
            ),
            "The mean is cut from the graph: the gradient has to flow through it too. No detach, no torch.no_grad().": (
                lambda z: (z.mean(0).detach(), z.var(0, correction=0))
            ),
            "The variance is cut from the graph: the gradient has to flow through it too. No detach, no torch.no_grad().": (
                lambda z: (z.mean(0), z.var(0, correction=0).detach())
            ),
        },
        kept={
            "The running variance moves to the biased one; it keeps an estimate for all images: times B/(B - 1).": (
                lambda z: (z.mean(0), z.var(0, correction=0))
            ),
            "It keeps the standard deviation; the running statistic is the variance.": lambda z: (z.mean(0), z.std(0)),
            "B/(B - 1) comes twice: var() without correction=0 is unbiased already.": (
                lambda z: (z.mean(0), z.var(0) * len(z) / (len(z) - 1))
            ),
            "The factor has D, the number of features: it is B/(B - 1), with the number of rows.": (
                lambda z: (z.mean(0), z.var(0, correction=0) * z.shape[1] / max(z.shape[1] - 1, 1))
            ),
            "The factor is turned round: B/(B - 1), not (B - 1)/B.": (
                lambda z: (z.mean(0), z.var(0, correction=0) * (len(z) - 1) / len(z))
            ),
            "It divides the biased variance by B - 1; the factor is B/(B - 1).": (
                lambda z: (z.mean(0), z.var(0, correction=0) / (len(z) - 1))
            ),
            "B/(B - 1) belongs to the variance only; a mean is unbiased as it is.": (
                lambda z: (z.sum(0) / (len(z) - 1), z.var(0))
            ),
        },
        move={
            "ρ is the weight of the new statistic, 1 - ρ of the old one: the two are swapped.": (
                lambda old, new, rho: rho * old + (1 - rho) * new
            ),
            "The running statistics add up for ever: the old one keeps the weight 1 - ρ.": (
                lambda old, new, rho: old + rho * new
            ),
            "The old running statistics have no part in the new ones: they keep the weight 1 - ρ.": (
                lambda old, new, rho: rho * new
            ),
            "The running statistics are replaced by the batch's: they move by ρ only.": lambda old, new, rho: new,
            "The running statistics do not move in training.": lambda old, new, rho: old,
        },
        used={
            "In evaluation it takes the batch's statistics: take the running ones.": (
                lambda training, batch, before, after: batch
            ),
            "In training it normalises by the running statistics: take the batch's own.": (
                lambda training, batch, before, after: before
            ),
            "In training it normalises by the new running statistics: take the batch's own.": (
                lambda training, batch, before, after: after if training else before
            ),
            "In evaluation it takes running statistics that it has moved by this batch: take them as they came.": (
                lambda training, batch, before, after: batch if training else after
            ),
            "In evaluation the mean is the running one, but the variance is the batch's: take both from `running`.": (
                lambda training, batch, before, after: batch if training else (before[0], batch[1])
            ),
        },
        back={
            "The running statistics move in evaluation too: they come back as they were.": (
                lambda training, before, after: after
            ),
            "The running statistics have changed places: (mean, var).": (
                lambda training, before, after: after[::-1] if training else before
            ),
            "The running variance does not move; it moves as the mean does.": (
                lambda training, before, after: (after[0], before[1]) if training else before
            ),
        },
        center={"The mean is not subtracted: ẑ = (z - z̄)/√(σ² + ε).": lambda z, mean: z},
        root=_both_modes(_ROOTS, _rooted),
        end=_both_modes(_ENDS, _ended) | _both_modes(_CUTS, _ended),
        refuse={_REFUSED: lambda z, training: False},
    ),
    seconds=30,
)
def batch_norm(learner, rng):
    import torch

    def demand(inputs, exact, training, words, likely="", **settings):
        """inputs, exact: z, gamma, beta, mean, var, for the learner and for torch."""
        mode = "training" if training else "evaluation"
        z, gamma, beta, *running = inputs
        try:
            given = learner(z, gamma, beta, tuple(running), training, **settings)
        except ValueError as error:
            if len(z) > 2:
                raise
            refuses = "Evaluation refuses no batch, for it does not need its statistics: raise only in training."
            refuses = "Only a batch of 1 is refused: if len(z) < 2." if training else refuses
            raise Complaint(f"{mode} takes B = {len(z)}", [f"yours    ValueError: {error}"], refuses) from None
        y, moved = expect.parts(given, ("y", "running"), "returns y and the running statistics")
        moved = expect.parts(moved, ("mean", "var"), "the running statistics are a mean and a variance")
        z, gamma, beta, *running = (each.clone() for each in exact)
        rho, eps = settings.get("rho", 0.1), settings.get("eps", 1e-5)
        expected = torch.nn.functional.batch_norm(z, *running, gamma, beta, training, rho, eps)
        names = ("y", "the running mean", "the running variance")
        for name, mine, theirs in zip(names, (y, *moved), (expected, *running), strict=True):
            tensor(mine, name)
            why = f"in {mode}{words}: {name}"
            expect.close(mine, theirs, why=why, source="torch.nn.functional.batch_norm", likely=likely, dtype=inputs[0])

    features = {name: floats("D", tensor=True) for name in ("gamma", "beta", "mean")}
    features["var"] = floats("D", tensor=True, draw=lambda rng, shape: rng.uniform(0.02, 2, size=shape))
    settings = {"rho": numbers(0.2, 0.7), "eps": numbers(0.05, 0.4)}
    for case in cases(rng, z=floats("B", "D", tensor=True), **features, **settings, least={"B": 2}):
        rho, eps = case.inputs[-2:]
        for training in (True, False):
            demand(case.inputs[:-2], case.exact[:-2], training, case, case.likely, rho=rho, eps=eps)

    def drawn(B, size=1.0):
        return [
            *(_tensor(rng.normal(size=shape)) * scale for shape, scale in (((B, 3), size), (3, 1), (3, 1), (3, 1))),
            _tensor([2.0, 0.5, 1.2]),
        ]

    one = drawn(1)
    demand(one, one, False, " with B = 1", eps=0.2)
    few = drawn(6, 0.01)  # ε counts here
    demand(few, few, True, ", with the usual ρ and ε")

    away = drawn(6)
    away[0] += 1e6
    demand(away, away, True, ", z near 10⁶", _FAR, eps=0.2)

    z, gamma, beta, mean, var = drawn(4)
    for training, mode in ((True, "training: the gradient flows through mean and variance too"), (False, "evaluation")):

        def yours(z, gamma, beta, training=training):
            return learner(z, gamma, beta, (mean, var), training, eps=0.2)[0]

        def theirs(z, gamma, beta, training=training):
            return torch.nn.functional.batch_norm(z, mean.clone(), var.clone(), gamma, beta, training, 0.1, 0.2)

        gradients(yours, theirs, rng, why=f"in {mode}", z=z, gamma=gamma, beta=beta)

    def likely(given, _):
        if isinstance(given, ValueError | type):
            return "`return` hands the error over like a result; `raise` stops the caller."
        if isinstance(given, Exception):
            return "It is refused, but by another exception: raise ValueError(...)."
        return _REFUSED

    z, gamma, beta, *running = one
    why = "a batch of 1 in training raises ValueError"
    expect.raises(ValueError, lambda: learner(z, gamma, beta, tuple(running), True), why, likely=likely)


# ------------------------------------------------------------------------------------------------ batch_norm_backward


def _bracket(delta, z_hat, centred):
    return delta - delta.mean(0) - z_hat * (delta * z_hat).mean(0)


@parts
def _backward(
    delta,
    z,
    gamma,
    eps=1e-5,
    *,
    variance=lambda z: z.var(0, correction=0),
    root=_rooted,
    bracket=_bracket,
    factor=lambda gamma, s: gamma / s,
    to_gamma=lambda delta, z_hat, z: (delta * z_hat).sum(0),
    to_beta=lambda delta: delta.sum(0),
):
    s, centred = root(variance(z), eps), z - z.mean(0)
    to_z = factor(gamma, s) * bracket(delta, centred / s, centred)
    return to_z, to_gamma(delta, centred / s, z), to_beta(delta)


@exercise(
    hints=[
        "Compute s and ẑ as in the forward pass; everything else is products and means over the batch, axis 0.",
        "For γ: (delta * z_hat).sum(0), for β: delta.sum(0). The bracket: delta - delta.mean(0) - z_hat * (delta * z_hat).mean(0).",
        "s = (z.var(0, correction=0) + eps).sqrt(); z_hat = (z - z.mean(0)) / s; the first result is gamma / s times the bracket.",
    ],
    mistakes=_backward.mistakes(
        bracket={
            "It takes z̄ and σ for constants: both of the terms to be subtracted are missing.": lambda d, h, c: d,
            "The path through σ is missing: subtract ẑ times the mean of δẑ too (of the product: the mean of ẑ alone is 0).": (
                lambda d, h, c: d - d.mean(0)
            ),
            "The path through z̄ is missing: subtract the mean of δ too.": lambda d, h, c: d - h * (d * h).mean(0),
            "Inside the bracket stand sums; they are means over the batch: divide by B.": (
                lambda d, h, c: d - d.sum(0) - h * (d * h).sum(0)
            ),
            "The gradient with respect to z is B times too long: with sums in the bracket, divide by B.": (
                lambda d, h, c: len(d) * _bracket(d, h, c)
            ),
            "The whole bracket is divided by B once too often: its terms are means already.": (
                lambda d, h, c: _bracket(d, h, c) / len(d)
            ),
            "The last term has the wrong sign: all of both terms is taken out.": (
                lambda d, h, c: d - d.mean(0) + h * (d * h).mean(0)
            ),
            "The mean of δ has the wrong sign: both terms are taken out.": (
                lambda d, h, c: d + d.mean(0) - h * (d * h).mean(0)
            ),
            "Both terms have the wrong sign: they are taken out.": lambda d, h, c: d + d.mean(0) + h * (d * h).mean(0),
            "The last term lacks its factor ẑ: ẑ times the mean of δẑ.": lambda d, h, c: (
                d - d.mean(0) - (d * h).mean(0)
            ),
            "The means are over everything; each feature has its own: .mean(0).": (
                lambda d, h, c: d - d.mean() - h * (d * h).mean()
            ),
            "The mean of δ is over everything; each feature has its own: .mean(0).": (
                lambda d, h, c: d - d.mean() - h * (d * h).mean(0)
            ),
            "The means run over the features, axis 1; over the batch, axis 0.": (
                lambda d, h, c: d - d.mean(1, keepdim=True) - h * (d * h).mean(1, keepdim=True)
            ),
            "The term of δ is a sum; both terms are means over the batch.": (
                lambda d, h, c: d - d.sum(0) - h * (d * h).mean(0)
            ),
            "The term of δẑ is a sum; both terms are means over the batch.": (
                lambda d, h, c: d - d.mean(0) - h * (d * h).sum(0)
            ),
            "It divides by B - 1; the means in the bracket divide by B.": (
                lambda d, h, c: d - (d.sum(0) + h * (d * h).sum(0)) / (len(d) - 1)
            ),
            "It divides by D, the number of features; the means run over the batch: divide by B.": (
                lambda d, h, c: d - (d.sum(0) + h * (d * h).sum(0)) / d.shape[1]
            ),
            "In the last term stands z - z̄ in place of ẑ: divide by s, both times.": (
                lambda d, h, c: d - d.mean(0) - c * (d * c).mean(0)
            ),
            "In one place of the last term stands z - z̄ in place of ẑ: divide by s.": (
                lambda d, h, c: d - d.mean(0) - h * (d * c).mean(0)
            ),
        },
        factor={
            "γ is missing in the gradient with respect to z: γ/s stands before the bracket.": lambda gamma, s: 1 / s,
            "The factor before the bracket is γ/s; 1/s is missing.": lambda gamma, s: gamma,
            "It multiplies by s; the factor before the bracket is γ/s.": lambda gamma, s: gamma * s,
            "It divides by s²; the factor before the bracket is γ/s.": lambda gamma, s: gamma / s**2,
        },
        variance={"It takes the unbiased variance; the forward pass divides by B: correction=0.": lambda z: z.var(0)},
        root={
            "ε is missing in s = √(σ² + ε).": lambda var, eps: var.sqrt(),
            "ε belongs inside the root: s = √(σ² + ε).": lambda var, eps: var.sqrt() + eps,
            "It divides by s² somewhere: s is the root of σ² + ε.": lambda var, eps: var + eps,
        },
        to_gamma={
            "The gradient with respect to γ takes ẑ, which γ multiplies, not z.": lambda d, h, z: (d * z).sum(0),
            "The gradient with respect to γ is a sum over the batch, not a mean.": lambda d, h, z: (d * h).mean(0),
            "γ serves the whole batch: add its gradient up over the batch, .sum(0).": lambda d, h, z: d * h,
        },
        to_beta={
            "The gradient with respect to β is a sum over the batch, not a mean.": lambda d: d.mean(0),
            "β serves the whole batch: add its gradient up over the batch, .sum(0).": lambda d: d,
        },
        together={
            "The gradients with respect to γ and β are sums over the batch, not means.": {
                "to_gamma": lambda d, h, z: (d * h).mean(0),
                "to_beta": lambda d: d.mean(0),
            }
        },
        returns={
            f"The gradients are right, but have changed places: yours are those of {', '.join('zγβ'[i] for i in order)}; asked for are z, γ, β.": (
                lambda three, order=order: tuple(three[i] for i in order)
            )
            for order in itertools.permutations(range(3))
            if order != (0, 1, 2)
        },
    ),
    seconds=30,
)
def batch_norm_backward(learner, rng):
    import torch

    def by_autograd(delta, z, gamma, eps=1e-5):
        leaves = [each.clone().requires_grad_() for each in (z, gamma, torch.zeros_like(gamma))]
        y = torch.nn.functional.batch_norm(leaves[0], None, None, *leaves[1:], True, 0.1, eps)
        return torch.autograd.grad(y, leaves, delta)

    why, source = "the gradients", "autograd of torch's batch norm"
    names, kinds = ("to_z", "to_gamma", "to_beta"), {name: floats("B", "D", tensor=True) for name in ("delta", "z")}
    kinds |= {"gamma": floats("D", tensor=True), "eps": numbers(0.05, 0.4)}
    agree(learner, by_autograd, rng, why=why, source=source, parts=names, like="z", least={"B": 2}, atol=1e-6, **kinds)
    delta, z, gamma = (_tensor(rng.normal(size=shape)) for shape in ((8, 3), (8, 3), 3))
    z = z / 100  # ε counts here
    for name, mine, theirs in zip("zγβ", learner(delta, z, gamma), by_autograd(delta, z, gamma), strict=True):
        expect.close(mine, theirs, why=f"{why} with the usual ε: of {name}", source=source)
    away = delta, 1e6 + 100 * z, gamma, 0.2
    for name, mine, theirs in zip("zγβ", learner(*away), by_autograd(*away), strict=True):
        expect.close(mine, theirs, why=f"{why} where z lies near 10⁶: of {name}", source=source, atol=1e-6, likely=_FAR)
    two = _tensor([[1.0], [5.0]]), _tensor([[0.0], [2.0]]), _tensor([1.0])
    to_z, *_ = learner(*two, eps=1e-12)  # torch's own refuses 0
    expect.close(to_z, [[0.0], [0.0]], why="the example above", source="by hand", atol=1e-6)


# ------------------------------------------------------------------------------------------------ layer_norm


@parts
def _layer_norm(
    z,
    gamma,
    beta,
    eps=1e-5,
    *,
    axis=lambda z: -1,
    correction=0,
    center=lambda z, mean: z - mean,
    cut=lambda mean, var: (mean, var),
    root=_rooted,
    end=_ended,
):
    mean = z.mean(axis(z), keepdim=True)
    mean, var = cut(mean, z.var(axis(z), correction=correction, keepdim=True))
    return end(center(z, mean) / root(var, eps), gamma, beta)


@exercise(
    hints=[
        "The same formula as batch norm's, with statistics over axis -1. Which shape must they have to fit z again?",
        "z.mean(-1, keepdim=True) has shape (..., 1), so it broadcasts against z. The variance likewise, with correction=0.",
        "return gamma * (z - mean) / (var + eps).sqrt() + beta, mean and var over axis -1 with keepdim=True",
    ],
    mistakes=_layer_norm.mistakes(
        axis={
            "Mean and variance are over the batch: that is batch norm. Take the last axis, -1.": lambda z: 0,
            "It takes axis 1, which is the last one only where z has two: take -1.": lambda z: 1,
            "Mean and variance are over everything; each example has its own: the last axis, with keepdim=True.": (
                lambda z: tuple(range(z.ndim))
            ),
            "It takes all axes but the first: only the last one, -1.": lambda z: tuple(range(1, z.ndim)) or -1,
        },
        correction={"It takes the unbiased variance: correction=0 divides by D.": 1},
        center={"The mean is not subtracted.": lambda z, mean: z},
        root=_ROOTS,
        end=_ENDS | _CUTS,
        cut={
            "Mean and variance are cut from the graph: the gradient has to flow through them too.": (
                lambda mean, var: (mean.detach(), var.detach())
            ),
            "The mean is cut from the graph: the gradient has to flow through it too.": (
                lambda mean, var: (mean.detach(), var)
            ),
            "The variance is cut from the graph: the gradient has to flow through it too.": (
                lambda mean, var: (mean, var.detach())
            ),
        },
        together={
            "The mean is subtracted nowhere, as in RMS norm: z - z̄ above, and the variance below.": {
                "center": lambda z, mean: z,
                "cut": lambda mean, var: (mean, var + mean**2),
            },
        },
    ),
    seconds=30,
)
def layer_norm(learner, rng):
    import torch

    def by_torch(z, gamma, beta, eps=1e-5):
        return torch.nn.functional.layer_norm(z, gamma.shape, gamma, beta, eps)

    source = "torch.nn.functional.layer_norm"
    features = {name: floats("D", tensor=True) for name in ("gamma", "beta")} | {"eps": numbers(0.05, 0.4)}
    for axes in (("B", "D"), ("A", "B", "D"), ("D",), ("A", "B", "C", "D")):
        why = f"each example by its own mean and variance, z of shape ({', '.join(axes)})"
        agree(learner, by_torch, rng, why=why, source=source, like="z", z=floats(*axes, tensor=True), **features)
    z, gamma, beta = (_tensor(rng.normal(size=shape)) for shape in ((5, 4), 4, 4))
    why = "with the usual ε"
    expect.close(learner(z / 100, gamma, beta), by_torch(z / 100, gamma, beta), why=why, source=source)
    away, why = (1e6 + z, gamma, beta, 0.2), "where z lies near 10⁶"
    expect.close(learner(*away), by_torch(*away), why=why, source=source, atol=1e-6, likely=_FAR)
    inputs, why = {"z": z, "gamma": gamma, "beta": beta}, "the gradient flows through mean and variance too"
    gradients(lambda *given: learner(*given, 0.2), lambda *given: by_torch(*given, 0.2), rng, why=why, **inputs)


# ------------------------------------------------------------------------------------------------ predict


def _no_grad():
    import torch

    return torch.no_grad()


def _joined(outputs):
    import torch

    return torch.cat(outputs)


@parts
def _predicted(
    model,
    x,
    batch_size=500,
    *,
    switch=lambda model: model.eval(),
    quiet=_no_grad,
    split=lambda x, n: x.split(n),
    output=lambda output: output,
    join=_joined,
    back=lambda model, mode: model.train(mode),
):
    mode = model.training
    switch(model)
    with quiet():
        outputs = [output(model(part)) for part in split(x, batch_size)]
    result = join(outputs)
    back(model, mode)
    return result


@exercise(
    hints=[
        "Four things around the loop: what mode is it in, switch, compute without gradients, switch back to that mode.",
        "x.split(batch_size) gives the parts, the last one shorter; torch.cat puts the outputs together. model.train(mode) takes True or False.",
        "mode = model.training; model.eval(); with torch.no_grad(): outputs = torch.cat([model(part) for part in x.split(batch_size)]); model.train(mode)",
    ],
    mistakes=_predicted.mistakes(
        switch={
            "Call model.eval() before the model's first part, and hand the mode back after the last: it switches all layers, dropout off and batch norm to its running statistics.": (
                lambda model: None
            )
        },
        quiet={
            "Put the model's calls under `with torch.no_grad():`; detach() afterwards has built the graph already.": (
                contextlib.nullcontext
            )
        },
        split={
            "It computes all of x at once. Loop over x.split(batch_size).": lambda x, n: [x],
            "It computes one example at a time. Loop over x.split(batch_size).": lambda x, n: x.split(1),
            "x.split(batch_size) makes parts of batch_size; chunk and tensor_split take the number of parts.": (
                lambda x, n: x.chunk(n)
            ),
            "The last, shorter part is left out: x.split(batch_size) gives it too.": (
                lambda x, n: [x[i : i + n] for i in range(0, len(x) - n + 1, n)]
            ),
        },
        output={
            "The outputs are wanted as the model gives them: no softmax.": lambda output: output.softmax(1),
            "The outputs are wanted as the model gives them: no softmax, no argmax.": lambda output: output.argmax(1),
        },
        back={
            "It leaves the model in evaluation mode. Remember model.training before model.eval(), and hand it to model.train(...) at the end.": (
                lambda model, mode: None
            ),
            "It leaves the model in training mode, whatever it came in. Remember model.training before model.eval(), and hand it to model.train(...) at the end.": (
                lambda model, mode: model.train()
            ),
            "model.training = ... sets only the model's own flag; model.train(mode) sets those of its layers too.": (
                lambda model, mode: setattr(model, "training", mode)
            ),
        },
    ),
    seconds=30,
)
def predict(learner, rng):
    import torch
    from torch import nn

    def made(kind):
        """A model with dropout and batch norm and the tape of its passes; kind: of x."""
        tape = Tape()
        first = [nn.Embedding(9, 2), nn.Flatten()] if kind == "whole numbers" else [nn.Flatten()]
        last = [nn.Unflatten(1, (2, 3))] if kind != "floats" else []
        norm = nn.BatchNorm1d(8)
        model = nn.Sequential(tape.layer(), *first, nn.Linear(6, 8), norm, nn.Dropout(0.5), nn.Linear(8, 6), *last)
        for each in (*model.parameters(), norm.running_mean, norm.running_var):
            each.data.copy_(_tensor(rng.uniform(0.2, 1, size=tuple(each.shape))))
        for p in model.parameters():
            p.grad = torch.ones_like(p)  # as in the middle of a training
        return (model.float() if kind == "whole numbers" else model.double()), tape

    def drawn(kind, N):
        if kind == "whole numbers":
            return torch.tensor(rng.integers(9, size=(N, 3)))
        return _tensor(rng.normal(size=(N, 6) if kind == "floats" else (N, 3, 2)))

    kinds, source = ("floats", "images", "whole numbers"), "model.eval(), all at once"
    for (number, N), kind in itertools.product(enumerate((10, *counts(4))), kinds):
        (model, tape), x = made(kind), drawn(kind, N)
        expected = copy.deepcopy(model).eval()(x).detach()
        tape.passes.clear()
        model.train(number % 2 == 0)
        modes = [layer.training for layer in model.modules()]
        came = (
            f"x of {kind}, {tuple(x.shape)}, batch_size 4, a model in {('evaluation', 'training')[model.training]} mode"
        )
        with torch.set_grad_enabled(number != 3):
            given = learner(model, x, 4)
        passes, wanted = tape.passes, [4] * (N // 4) + [N % 4] * (N % 4 > 0)
        expect.true(passes, "calls the model", came, likely="The outputs are model(part).")
        mode = "training" if any(each.training for each in passes) else "evaluation"
        expect.equal(mode, "evaluation", why=f"the mode in which the model computes: {came}", source="as in use")
        recording = "on" if any(each.recording for each in passes) else "off"
        expect.equal(recording, "off", why=f"grad mode while the model computes: {came}", source="as in use")
        likely = "Loop over x.split(batch_size)."
        sizes = [len(each.x) for each in passes]
        if sum(sizes) != N:
            likely = "Some examples are computed twice." if sum(sizes) > N else "Some examples are left out."
        expect.equal(sizes, wanted, why=f"the sizes of the parts: {came}", source="x.split(4)", likely=likely)
        seen = torch.cat([each.x for each in passes])
        why = f"the model gets every example as it is in x, in its order: {came}"
        expect.close(seen, x, why=why, source="x", dtype=x)
        tensor(given, "the outputs together")

        def likely(given, _, shape=expected.shape):
            return (
                ""
                if given.size == math.prod(shape)
                else "All outputs, (N, ...), as the model gives them, no part left out."
            )

        why = f"the outputs of evaluation mode, in the order of x: {came}"
        expect.close(given, expected, why=why, source=source, dtype=expected, likely=likely)
        expect.true(not given.requires_grad, f"the outputs need no gradients: {came}")
        now = [layer.training for layer in model.modules()]
        why, likely = (
            f"training, of the model and of its layers afterwards: {came}",
            "Hand the mode before to model.train(...).",
        )
        expect.equal(now, modes, why=why, source="as before", likely=likely)
    model, tape = made("floats")
    learner(model, drawn("floats", 501))
    sizes = [len(each.x) for each in tape.passes]
    expect.equal(sizes, [500, 1], why="batch_size is 500 unless given: 501 examples", source="500 + 1")


# ------------------------------------------------------------------------------------------------ calibration_error


def _by_rank(confidence, bins):
    ranks = np.empty(len(confidence), int)
    ranks[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
    return ranks * bins // len(confidence)


def _binned(confidence, bins):
    return np.minimum((confidence * bins).astype(int), bins - 1)


def _from_the_smallest(confidence, bins):
    return _binned((confidence - confidence.min()) / max(np.ptp(confidence), 1e-12), bins)


@parts
def _calibrated(
    probabilities,
    y,
    bins=15,
    *,
    score=lambda p, y: (p.max(1), p.argmax(1) == y),
    fall=_binned,
    sure=lambda inside, m, bins: inside.mean(),
    accuracy=lambda right, inside: right[inside].mean(),
    gap=abs,
    counts_if=lambda m, bins, n: n > 0,
    gather=lambda gaps, shares, n, bins: (gaps * shares).sum(),
):
    confidence, right = score(array(probabilities).astype(float), array(y))
    which = fall(confidence, bins)
    gaps, numbers_in = [], []
    for m in range(max(bins, which.max() + 1)):
        inside = which == m
        if counts_if(m, bins, inside.sum()):
            gaps.append(gap(accuracy(right, inside) - sure(confidence[inside], m, bins)))
            numbers_in.append(inside.sum())
    shares = np.array(numbers_in) / len(confidence)
    return float(gather(np.array(gaps), shares, len(confidence), bins))


def every_class(probabilities, y, bins=15):
    """It sorts the probabilities of all classes into bins; of each image only the largest counts."""
    p = array(probabilities).astype(float)
    pairs = np.stack([1 - p.ravel(), p.ravel()], 1)
    hot = (np.arange(p.shape[1]) == array(y)[:, None]).ravel()
    score = lambda p, y: (p[:, 1], y)  # noqa: E731
    return _calibrated.right(pairs, hot, bins, score=score)


_SIGNED = "Gaps of opposite sign cancel, as if all images were in one bin: take the absolute value in each bin."
_ONE_SIGN = "Only gaps of one sign count; take the absolute value, for too {} confidence is an error too."


@exercise(
    hints=[
        "confidence, predicted = probabilities.max(1). Which bin a confidence falls into: (confidence * bins).long(), where 1.0 needs care.",
        "For each bin: inside = which == m; if any are: accuracy and mean confidence of those, and their share of all images.",
        "error += inside.sum() / len(y) * (right[inside].mean() - confidence[inside].mean()).abs(), with which.clamp(max=bins - 1)",
    ],
    mistakes=_calibrated.mistakes(
        every_class,
        gather={
            "All bins count alike; weight each gap by its share of the images, n_m/N.": (
                lambda gaps, shares, n, bins: gaps.mean()
            ),
            "All bins count alike, empty ones too; weight each gap by its share of the images, n_m/N.": (
                lambda gaps, shares, n, bins: gaps.sum() / bins
            ),
            "It is the largest gap; the weighted mean of the gaps is asked for.": (
                lambda gaps, shares, n, bins: gaps.max()
            ),
            "The gaps are added up without their weights n_m/N.": lambda gaps, shares, n, bins: gaps.sum(),
            "The weights are n_m; divide by N: they have to add up to 1.": (
                lambda gaps, shares, n, bins: (gaps * shares).sum() * n
            ),
            "It is in per cent; the gaps are shares, from 0 to 1.": (
                lambda gaps, shares, n, bins: (gaps * shares).sum() * 100
            ),
        },
        gap={
            _SIGNED: lambda d: -d,
            "The gaps are squared; their absolute value is asked for.": np.square,
            _ONE_SIGN.format("little"): lambda d: max(-d, 0),
            _ONE_SIGN.format("much"): lambda d: max(d, 0),
        },
        score={
            "It takes the probability of the right class; confidence is the largest probability, whatever is right.": (
                lambda p, y: (p[np.arange(len(y)), y], p.argmax(1) == y)
            ),
            "It takes the probability of class 0; confidence is the largest of each row.": (
                lambda p, y: (p[:, 0], p.argmax(1) == y)
            ),
            "A softmax is taken of what are probabilities already.": (
                lambda p, y: (np.exp(p).max(1) / np.exp(p).sum(1), p.argmax(1) == y)
            ),
            "It is the share of wrong answers; the gap to the confidence is asked for.": (
                lambda p, y: (np.ones(len(p)), p.argmax(1) == y)
            ),
            "Right is not what has more than 0.5, but where the largest probability is that of the right class.": (
                lambda p, y: (p.max(1), p[np.arange(len(y)), y] > 0.5)
            ),
        },
        fall={
            "bins is an argument; this has 10 whatever it is.": lambda c, bins: _binned(c, 10),
            "The bins hold equally many images; they are to be equally wide, from 0 to 1.": _by_rank,
            "Rounding makes other bins: bin m holds confidences from (m - 1)/M to m/M.": (
                lambda c, bins: np.round(c * (bins - 1)).astype(int)
            ),
            "The bins begin at the smallest confidence; they divide the whole of 0 to 1.": _from_the_smallest,
            "Rounding makes other bins: bin m holds confidences from (m - 1)/M to m/M. ": (
                lambda c, bins: np.minimum(np.rint(c * bins).astype(int), bins - 1)
            ),
            "A confidence of 1.0 has a bin of its own here; it belongs into the last one.": (
                lambda c, bins: (c * bins).astype(int)
            ),
            "There are no bins: each image is compared by itself. In each bin, accuracy against mean confidence.": (
                lambda c, bins: np.arange(len(c))
            ),
            "It has one bin less: linspace(0, 1, bins) has bins - 1 gaps. bins + 1 edges make M bins.": (
                lambda c, bins: _binned(c, bins - 1)
            ),
            "It has one bin more than M.": lambda c, bins: _binned(c, bins + 1),
        },
        sure={
            "It takes the middle of the bin; the mean confidence of the images in it is asked for.": (
                lambda inside, m, bins: (m + 0.5) / bins
            ),
            "It takes the edge of the bin; the mean confidence of the images in it is asked for.": (
                lambda inside, m, bins: m / bins
            ),
        },
        accuracy={
            "It takes the accuracy of all images in each bin; take that of the images in the bin.": (
                lambda right, inside: right.mean()
            ),
        },
        counts_if={
            "The last bin is left out: range(bins) runs from 0 to bins - 1.": lambda m, bins, n: n > 0 and m < bins - 1,
            "The first bin is left out: range(bins) runs from 0 to bins - 1.": lambda m, bins, n: n > 0 and m > 0,
            "A bin with a single image counts too: only empty ones add nothing.": lambda m, bins, n: n > 1,
        },
        together={
            _SIGNED: {"gap": lambda d: d},
            "A confidence of exactly 1 falls out of all bins: it belongs to the last one.": {
                "fall": lambda c, bins: (c * bins).astype(int),
                "counts_if": lambda m, bins, n: n > 0 and m < bins,
            },
            "It is the absolute value of the sum, where gaps of opposite sign cancel. Take it in each bin.": {
                "gap": lambda d: d,
                "gather": lambda gaps, shares, n, bins: abs((gaps * shares).sum()),
            },
            "It is the root of the mean square gap; the mean absolute gap is asked for.": {
                "gap": np.square,
                "gather": lambda gaps, shares, n, bins: np.sqrt((gaps * shares).sum()),
            },
        },
    ),
)
def calibration_error(learner, rng):
    import torch

    def by_definition(p, y, bins):
        """The weighted gaps, image by image."""
        rows = [(max(row), int(np.argmax(row)) == label) for row, label in zip(p.tolist(), y.tolist(), strict=True)]
        total = 0.0
        for m in range(1, bins + 1):
            some = [row for row in rows if (m - 1) / bins < row[0] <= m / bins]
            total += abs(sum(right for _, right in some) - sum(sure for sure, _ in some)) / len(rows)
        return total

    def demand(p, y, bins, why, expected=None):
        given = learner(p, y) if bins == 15 else learner(p, y, bins)
        source = "counted out by the definition" if expected is None else "by hand"
        expected = by_definition(p, y, bins) if expected is None else expected

        def likely(yours, _):
            return "The mean of an empty bin is 0/0: leave empty bins out." if np.isnan(yours).any() else ""

        expect.close(given, expected, why=why, source=source, likely=likely)

    for bins in (7, 15):
        p = (_tensor(rng.normal(size=(420, 4))) * 2).softmax(1)  # 7 and 15 divide 420
        often = 0.5 + 0.5 * torch.sin(40 * p.max(1).values)  # the gaps change their sign often
        y = torch.where(_tensor(rng.uniform(size=420)) < often, torch.tensor(rng.integers(0, 4, 420)), p.argmax(1))
        demand(p, y, bins, f"420 images, {bins} bins")
    example = _tensor([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    demand(example, torch.tensor([0, 1, 1]), 2, "the example above", expected=0.1)
    certain = _tensor([*np.eye(5)[:3], [0.0, 0.0, 0.1, 0.9, 0.0], [0.22, 0.2, 0.2, 0.19, 0.19]])
    why, expected = "confidences of 1.0 count, in the last bin", (abs(3 - 3.9) + abs(1 - 0.22)) / 5
    demand(certain, torch.tensor([0, 1, 0, 3, 0]), 4, why, expected=expected)
    flat = _tensor(rng.normal(size=(60, 20)) * 0.02).softmax(1)
    demand(flat, flat.argmax(1), 15, "20 classes, confidences below 1/15")
    kinds = {
        "probabilities": floats("N", "K", tensor=True, draw=lambda rng, shape: softmax(2 * rng.normal(size=shape), 1)),
        "y": labels("N", below="K", tensor=True),
        "bins": among(1, 4, 15, 31),
    }
    agree(learner, by_definition, rng, why="a few images", source="counted out by the definition", **kinds)


# ------------------------------------------------------------------------------------------------ smoothed_cross_entropy


@parts
def _smoothed(
    logits,
    y,
    smoothing,
    *,
    target=lambda hot, e, K: (1 - e) * hot + e / K,
    classes=lambda logits, y: logits.shape[1],
    log=lambda z: z.log_softmax(1),
    reduce=lambda losses: losses.mean(),
):
    import torch

    hot = torch.nn.functional.one_hot(y, logits.shape[1]).to(logits.dtype)
    return reduce(-(target(hot, smoothing, classes(logits, y)) * log(logits)).sum(1))


def _below_one_maximum(z):
    z = z - z.max()
    return z - z.exp().sum(1, keepdim=True).log()


def _divergence(logits, y, smoothing):
    """This is the KL divergence, from which the targets' own entropy is subtracted. Wanted is -Σ t·log p alone."""
    K = logits.shape[1]
    t = np.array([1 - smoothing + smoothing / K, *[smoothing / K] * (K - 1)])
    return _smoothed(logits, y, smoothing) + (t * np.log(np.where(t > 0, t, 1))).sum()


def every_image_by_every_label(logits, y, smoothing):
    """log_p[:, y] takes the labels of all images in every row: log_p[torch.arange(len(y)), y] takes each one's own."""
    log_p = logits.log_softmax(1)
    return -(1 - smoothing) * log_p[:, y].mean() - smoothing * log_p.mean()


@exercise(
    hints=[
        "Write the targets as a matrix (B, K): everywhere ε/K, and 1 - ε more at the right class.",
        "log p, (B, K): functional.log_softmax(logits, 1). Of the right classes alone: log_p[torch.arange(len(y)), y].",
        "Split the sum: (1 - smoothing) * (minus log p of the right class) + smoothing * (minus the mean of log p over the classes), and the mean over the batch.",
    ],
    mistakes=_smoothed.mistakes(
        every_image_by_every_label,
        _divergence,
        target={
            "ε goes to the K - 1 wrong classes only; it is spread over all K, the right one included.": (
                lambda hot, e, K: (1 - e) * hot + e / max(K - 1, 1) * (1 - hot)
            ),
            "ε is taken from the right class and given to none: add ε/K to all.": lambda hot, e, K: (1 - e) * hot,
            "The targets add up to more than 1: the right class gives ε away, 1 - ε.": lambda hot, e, K: hot + e / K,
            "ε is given to each class whole: divide it by K.": lambda hot, e, K: (1 - e) * hot + e,
            "ε and 1 - ε are swapped.": lambda hot, e, K: e * hot + (1 - e) / K,
            "It divides by 10: K is the number of columns of the logits.": lambda hot, e, K: (1 - e) * hot + e / 10,
            "It divides by B, the number of images; K is the number of classes, logits.shape[1].": (
                lambda hot, e, K: (1 - e) * hot + e / len(hot)
            ),
            "The right class gives too little away: its target is 1 - ε + ε/K, not 1 - ε/K.": (
                lambda hot, e, K: (1 - e / K) * hot + e / K * (1 - hot)
            ),
            "It divides by K - 1; ε is spread evenly over all K classes.": (
                lambda hot, e, K: (1 - e) * hot + e / max(K - 1, 1)
            ),
            "The part of the right class, 1 - ε, is missing.": lambda hot, e, K: e / K + 0 * hot,
            "smoothing is an argument; this takes 0.1 whatever it is.": lambda hot, e, K: 0.9 * hot + 0.1 / K,
            "The targets are not smoothed: ε has no part in it.": lambda hot, e, K: hot,
            "The right class lacks its share: ε/K goes to all K classes.": (
                lambda hot, e, K: (1 - e) * hot + e / K * (1 - hot)
            ),
        },
        classes={
            "K is the number of columns of the logits, whether each class occurs in y or not: one_hot(y, K).": (
                lambda logits, y: int(y.max()) + 1
            )
        },
        reduce={
            "The losses of the batch are added up; their mean is asked for.": lambda losses: losses.sum(),
            "One loss for each image: take their mean.": lambda losses: losses,
            "The loss has an axis of length 1: it is a lone number, a tensor of no axes.": (
                lambda losses: losses.mean(0, keepdim=True)
            ),
            "The sign is turned: a loss is minus the sum.": lambda losses: -losses.mean(),
        },
        log={
            "The softmax runs over the batch (axis 0); over the classes, axis 1.": lambda z: z.log_softmax(0),
            "The softmax is taken twice: log_softmax and cross_entropy want the logits themselves.": (
                lambda z: z.softmax(1).log_softmax(1)
            ),
            "The logits are taken for log p: log_softmax makes them that.": lambda z: z,
            "The logarithm is missing: log p, not p.": lambda z: z.softmax(1),
            "The largest of the whole batch is subtracted: in a row far below it exp is 0. Each row has its own, .max(1).": (
                _below_one_maximum
            ),
            "The mean is over the classes too: add up over them, and take the mean over the batch alone.": (
                lambda z: z.log_softmax(1) / z.shape[1]
            ),
        },
    ),
    seconds=30,
)
def smoothed_cross_entropy(learner, rng):
    import torch

    def by_torch(logits, y, smoothing):
        return torch.nn.functional.cross_entropy(logits, y, label_smoothing=smoothing)

    source = "torch.nn.functional.cross_entropy(label_smoothing=ε)"
    logits, y = _tensor(rng.normal(size=(6, 4)) * 2), torch.tensor(rng.integers(0, 4, 6))
    for smoothing, why in (
        (0.3, "ε = 0.3"),
        (0.0, "ε = 0 is the plain cross-entropy"),
        (1.0, "ε = 1: all classes alike"),
    ):
        given = learner(logits, y, smoothing)
        tensor(given, "the loss")
        expect.close(given, by_torch(logits, y, smoothing), why=f"6 images, 4 classes, {why}", source=source)
    why = "the loss"
    gradients(lambda z: learner(z, y, 0.3), lambda z: by_torch(z, y, 0.3), rng, why=why, source=source, logits=logits)
    why, first = "6 images, 4 classes of which only the first two occur", y % 2
    expect.close(learner(logits, first, 0.3), by_torch(logits, first, 0.3), why=why, source=source)
    large, both = _tensor([[1000.0, 0.0, -50.0], [0.0, 900.0, 20.0]]), torch.tensor([1, 2])

    def likely(loss, expected):
        if np.isfinite(loss).all():
            return "Is p kept from 0, by a clamp or a small number beside it, or are logits clipped? log_softmax needs none."
        return (
            "exp of large logits overflows, and the logarithm of a p that rounds to 0 is -∞. log_softmax avoids both."
        )

    given = learner(large, both, 0.3)
    expect.close(given, by_torch(large, both, 0.3), why="large logits", source=source, likely=likely)
    kinds = {"logits": floats("B", "K", tensor=True), "y": labels("B", below="K", tensor=True)}
    why, smoothing = "the mean loss", numbers(0.1, 0.9)
    agree(learner, by_torch, rng, why=why, source=source, like="logits", **kinds, smoothing=smoothing)
