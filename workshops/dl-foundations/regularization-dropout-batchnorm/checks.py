"""The checks of regularization-dropout-batchnorm: one for each exercise, with its hints. `lab.check` runs them.

Layers are held to torch.nn.functional in double precision, with ε, ρ and sizes for which slips differ.
"""

import copy
import itertools
import math

import numpy as np

from atlas.checking import Complaint, array, exercise, expect


def _tensor(values):
    import torch

    return torch.tensor(np.asarray(values), dtype=torch.float64)


def _slip(function, name, words):
    """`function` as a named mistake."""
    function.__name__, function.__doc__ = name, words
    return function


def _demand_tensor(given, what):
    import torch

    likely = {
        "ndarray": "Stay in torch: NumPy knows no gradients.",
        "float": "float() and .item() take the number out of torch, and gradients with it.",
        "list": "A list: stay with tensors; torch.stack or torch.cat makes one of several.",
        "tuple": "Several results come back where one is asked for.",
    }.get(type(given).__name__, "")
    expect.kind(given, torch.Tensor, f"{what}: a tensor comes back", likely=likely)


def _demand_gradient(result, leaf, expected, why, source="autograd", pull=1.0):
    """Demand that Σ pull·result has the gradient `expected` at `leaf`."""
    import torch

    likely = "No detach, .data, .item(), .numpy() or torch.no_grad() on the way from the input to the result."
    expect.true(result.requires_grad, "gradients flow through it", likely=likely)
    try:
        (given,) = torch.autograd.grad((result * pull).sum(), leaf)
    except RuntimeError as error:
        likely = "+=, /= and the like write over what the gradient still needs: make new tensors."
        expect.true(False, "gradients flow through it", f"yours    {str(error).split(':')[0]:.90}", likely=likely)
    likely = "Is a part of the way cut off, by detach, .data, .item() or torch.no_grad()?"
    expect.close(given, expected, why=why, source=source, likely=likely)


# ------------------------------------------------------------------------------------------------ EarlyStopping


class _Stopper:
    """Early stopping with parts to replace."""

    def __init__(self, patience):
        self.patience, self.lowest, self.waited, self.kept = patience, math.inf, 0, None

    def improves(self, loss):
        return loss < self.lowest

    def keep(self, model):
        return copy.deepcopy(model.state_dict())

    def over(self):
        return self.waited >= self.patience

    def update(self, loss, model):
        if self.improves(loss):
            self.lowest, self.waited, self.kept = loss, 0, self.keep(model)
        else:
            self.waited += 1
        return self.over()

    def restore(self, model):
        model.load_state_dict(self.kept, strict=False)


class KeepsTheModelsOwn(_Stopper):
    """It keeps the model's own tensors, and they go on changing. Copy them: copy.deepcopy(model.state_dict())."""

    def keep(self, model):
        return model.state_dict()


class KeepsTheLast(_Stopper):
    """It keeps the weights of the last update, not those of the lowest loss."""

    def update(self, loss, model):
        stop = super().update(loss, model)
        self.kept = self.keep(model)
        return stop


class KeepsTheFirst(_Stopper):
    """It keeps the weights of the first update only: each new lowest loss brings new best weights."""

    def keep(self, model):
        return self.kept or super().keep(model)


class WaitsOneMore(_Stopper):
    """It waits one update too many: stop when `patience` updates in a row were no better (>=, not >)."""

    def over(self):
        return self.waited > self.patience


class OneTooEarly(_Stopper):
    """It stops one update too early: `patience` updates without a new lowest loss have to come first."""

    def over(self):
        return self.waited >= self.patience - 1


class NeverResets(_Stopper):
    """A new lowest loss does not set the count back to 0. Only updates in a row count."""

    def update(self, loss, model):
        if self.improves(loss):
            self.lowest, self.kept = loss, self.keep(model)
        else:
            self.waited += 1
        return self.over()


class ComparesWithTheLast(_Stopper):
    """It compares with the previous loss. Compare with the lowest so far, which an update that is no better leaves as it is."""

    def update(self, loss, model):
        if self.improves(loss):
            self.waited, self.kept = 0, self.keep(model)
        else:
            self.waited += 1
        self.lowest = loss
        return self.over()


class EqualIsBetter(_Stopper):
    """It takes an equal loss for an improvement, or does not count it. Only a lower one is one (<, not <=); all others count (else)."""

    def improves(self, loss):
        return loss <= self.lowest


class LookForTheHighest(_Stopper):
    """It looks for the highest loss: is the comparison turned round?"""

    def __init__(self, patience):
        super().__init__(patience)
        self.lowest = -math.inf

    def improves(self, loss):
        return loss > self.lowest


class NeverImproves(_Stopper):
    """No improvement sets the count back: is the comparison turned round, does the lowest begin at 0 instead of inf, or is the 0 missing?"""

    def improves(self, loss):
        return False


class StopsWhenBetter(_Stopper):
    """It returns the opposite: True has to mean stop."""

    def over(self):
        return self.waited < self.patience


class NotANumberIsBest(_Stopper):
    """NaN is no improvement, and counts: each comparison with NaN is False, so ask `loss < lowest`, and count in the else."""

    def improves(self, loss):
        return not loss >= self.lowest


class LowestNeverStored(_Stopper):
    """The lowest loss is never stored, so that every loss is lower: self.lowest = loss."""

    def update(self, loss, model):
        stop = super().update(loss, model)
        self.lowest = math.inf
        return stop


class BeginsAtANumber(_Stopper):
    """The lowest loss begins at some number, and larger losses never get below it: begin with float("inf")."""

    def __init__(self, patience):
        super().__init__(patience)
        self.lowest = 1e9


class ZeroIsNothing(_Stopper):
    """`not self.lowest` holds for a loss of 0 too: begin with float("inf"), or ask `self.lowest is None`."""

    def improves(self, loss):
        return not self.lowest or loss < self.lowest


class TakesTheFirst(_Stopper):
    """It takes the first loss as the lowest unseen. After NaN no number is lower: begin with float("inf")."""

    def improves(self, loss):
        return self.kept is None or loss < self.lowest


class LargeStepsOnly(_Stopper):
    """A loss that is lower by little is an improvement too: loss < lowest, with no margin."""

    def improves(self, loss):
        return loss < self.lowest - 1e-4 or self.lowest == math.inf


class AlwaysThree(_Stopper):
    """patience is an argument; this waits for 3 updates whatever it is."""

    def __init__(self, patience):
        super().__init__(3)


class AlwaysFive(_Stopper):
    """patience is an argument; this waits for 5 updates whatever it is."""

    def __init__(self, patience):
        super().__init__(5)


class RestoresNothing(_Stopper):
    """restore leaves the model as it is; `model = ...` only gives a name to something else. Call model.load_state_dict(...)."""

    def restore(self, model):
        pass


def _tiny_model():
    import torch

    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def _fill(model, value):
    """Set every parameter and buffer to this value, in place, as training does."""
    import torch

    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)


@exercise(
    hints=[
        "Remember four things: the patience, the lowest loss so far, how many updates were no better, and a copy of the best weights.",
        "copy.deepcopy(model.state_dict()) is a true copy. A new lowest loss sets the count to 0; everything else adds 1.",
        "if loss < self.lowest: keep loss, copy and 0; else: self.waited += 1. Then: return self.waited >= self.patience",
    ],
    mistakes=[
        KeepsTheModelsOwn,
        KeepsTheLast,
        KeepsTheFirst,
        WaitsOneMore,
        OneTooEarly,
        NeverResets,
        ComparesWithTheLast,
        EqualIsBetter,
        LookForTheHighest,
        NeverImproves,
        StopsWhenBetter,
        NotANumberIsBest,
        LowestNeverStored,
        BeginsAtANumber,
        ZeroIsNothing,
        TakesTheFirst,
        LargeStepsOnly,
        AlwaysThree,
        AlwaysFive,
        RestoresNothing,
    ],
    seconds=30,  # torch.nn may be imported here for the first time
    changes=("weights",),  # restore does; update is asked below
)
def EarlyStopping(learner, rng):
    def demand(losses, patience, expected, why, after=(), likely=""):
        """`after`: losses whose answers are not judged, but tell one mistake from another."""
        model, stopper, said = _tiny_model(), learner(patience), []
        for loss in [*losses, *after]:
            answer = stopper.update(loss, model)
            expect.true(
                answer is not None, "update returns True or False in every case", likely="Is a `return` missing?"
            )
            said.append(bool(answer))
        mine = said[: len(losses)]
        details = [f"losses   {losses}, patience {patience}", f"yours    {mine}", f"expected {expected}"]
        if mine != expected:
            raise Complaint(why, details, likely, np.array(said))

    nan = math.nan
    example = [5, 3, 4, 3, 2.5, 3, 3, 3]
    demand(example, 3, [False] * 7 + [True], "says stop in the right update: the example above", after=[3, 3, 3])
    learner(1).update(-100.0, _tiny_model())
    likely = "Is something kept in the class instead of in self? Each stopper has its own."
    demand([2, 1], 1, [False, False], "two stoppers have nothing in common", likely=likely)
    demand([2, 3], 1, [False, True], "patience 1 stops at once where it gets worse")
    demand([4, 5, 3, 3.5, 3.2, 3.1], 3, [False] * 5 + [True], "compares with the lowest loss, not with the last one")
    demand([3, 3, 3], 2, [False, False, True], "an equal loss is no improvement")
    demand([-1.0, -2.0, -1.5, -1.7], 2, [False] * 3 + [True], "losses below zero count like others")
    demand([1.0, 0.0, 0.5, 0.7], 2, [False] * 3 + [True], "a loss of 0 counts like others")
    demand([1e30, 2e30, 1e29, 1e31], 2, [False] * 4, "large losses count like others")
    demand([1.0, 1 - 1e-6, 1 - 2e-6, 1 - 3e-6], 2, [False] * 4, "a loss that is lower by little is an improvement")
    demand([2.0, nan, nan], 2, [False, False, True], "NaN is no improvement")
    demand([nan, 2.0, 2.5, 1.0], 2, [False] * 4, "after NaN a number is an improvement")

    model, stopper = _tiny_model(), learner(2)
    for step, loss in enumerate([4.0, 2.0, 1.0, 1.5, 1.2]):
        _fill(model, step)
        stopper.update(loss, model)
        kept = model.training and all((value == step).all() for value in model.state_dict().values())
        likely = "update only copies; restore, and nothing else, puts weights into the model."
        expect.true(kept, "update leaves the model and its mode as they are", likely=likely)
    _fill(model, 5)
    model.double()  # other tensors from here on, so that what still holds the old ones shows
    _fill(model, 6)
    for again in (False, True):
        given = stopper.restore(model)
        found = {name: float(value.double().mean()) for name, value in model.state_dict().items()}
        if given is not None and set(found.values()) != {2.0}:
            likely = "restore puts the weights into the model that it gets; what it returns is not looked at."
            expect.true(False, "restore changes the model itself", f"yours    {given!r:.60}", likely=likely)
        wrong = {name: value for name, value in found.items() if value != 2.0}
        if wrong:
            why, likely = "restore brings back the best", ""
            if wrong.keys() <= dict(model.named_buffers()).keys():
                likely = "It keeps the parameters but not all buffers, such as batch norm's running statistics. Take all of model.state_dict()."
            if again:
                why = "a second restore, after more training, brings the same weights"
                likely = "restore hands over the kept tensors themselves, and training changes them. Copy them: model.load_state_dict(...)."
            details = [
                "update k saw a model full of k, then all became 5 and 6; the lowest loss came with k = 2",
                f"yours    after restore {wrong}",
            ]
            raise Complaint(why, details, likely, np.array([*found.values(), again]))
        _fill(model, 7)


# ------------------------------------------------------------------------------------------------ dropout


def _mask(x, p, shape=None):
    import torch

    return torch.rand(x.shape if shape is None else shape, dtype=x.dtype) >= p


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


def scaled_in_evaluation(x, p, training=True):
    """In evaluation it scales x. Inverted dropout divides in training, so that evaluation has nothing to do."""
    return x * _mask(x, p) if training else x * (1 - p)


def divided_in_evaluation(x, p, training=True):
    """In evaluation it scales x. Inverted dropout divides in training, so that evaluation has nothing to do."""
    return x * _mask(x, p) / (1 - p) if training else x / (1 - p)


@exercise(
    hints=[
        "torch.rand_like(x) gives a uniform number between 0 and 1 for each entry. With what probability is it at least p?",
        "keep = torch.rand_like(x) >= p is the mask. A product with it makes zeros; the rest is divided by 1 - p.",
        "if not training: return x, and otherwise: return x * (torch.rand_like(x) >= p) / (1 - p)",
    ],
    mistakes=[scaled_in_evaluation, divided_in_evaluation],
    random=True,
)
def dropout(learner, rng):
    import torch

    x, p = _tensor(rng.uniform(1, 2, size=(60, 50))), 0.3
    given = learner(x, p, training=False)
    _demand_tensor(given, "the result")
    if given.shape == x.shape and not torch.equal(given, x) and torch.equal(learner(x, p, training=True), x):
        expect.true(False, "in evaluation x comes back as it is", likely="It drops in evaluation and not in training.")
    dropped = bool(0 < (array(given) == 0).mean() < 1)
    likely = "It drops in evaluation too: `training` is not looked at." if dropped else ""
    why = "in evaluation x comes back as it is"
    expect.close(given, x, why=why, source="the definition", atol=0, rtol=1e-12, likely=likely)

    y = learner(x, p)
    _demand_tensor(y, "the result")
    expect.shape(y, (60, 50), "the result has the shape of x")
    expect.dtype(y, float, "the result is a tensor of numbers, not the mask")
    ratio = array(y) / array(x)
    zeros = ratio == 0
    share = zeros.mean()
    evidence = f"yours    {share:.1%} of 3,000 entries are zero, p = {p}"
    likely = {
        0.0: "Nothing is dropped: is the mask made, and multiplied with x?",
        1.0: "Everything is dropped.",
        0.5: "Half of them: is there a fixed 0.5 in place of p? rand gives 0 to 1.",
        0.7: "It drops what should be kept: p is the probability to become zero, so keep where rand >= p.",
    }.get(round(share, 1) if 0 < share < 1 else share, "")
    if round(share, 1) == 0.6 and p == 0.3:
        likely = "torch.randn is normally distributed; torch.rand is uniform from 0 to 1."
    expect.true(abs(share - p) < 0.045, "a share of about p of the entries becomes zero", evidence, likely=likely)
    kept = ratio[~zeros]
    factors = {
        1.0: "What is kept is not scaled: divide by 1 - p, so that the mean stays.",
        1 / p: "It divides by p, the share that is dropped; what is kept is the share 1 - p.",
        1 - p: "It multiplies by 1 - p: then the mean shrinks twice. Divide.",
        p: "It multiplies by p. Divide by 1 - p.",
        2.0: "It divides by a fixed 0.5, whatever p is. Divide by 1 - p.",
        1 + p: "1 + p is near 1/(1 - p), but not the same.",
        1 / (1 - p) ** 2: "It divides by 1 - p twice.",
    }
    reading = next((words for factor, words in factors.items() if np.allclose(kept, factor, rtol=1e-6)), "")
    if not reading and np.ptp(kept) > 1e-6:
        reading = "They are not x times one factor: is x added to, or scaled by what this mask happens to keep?"
        if np.allclose(array(y)[~zeros], 1 / (1 - p)):
            reading = "This is the mask, scaled; multiply it with x."
    fair = 1 / (1 - share)
    if np.allclose(kept, fair) and not math.isclose(fair, 1 / (1 - p)):
        reading = "It divides by the share that this mask happens to keep; divide by 1 - p, the share that is expected."
    evidence = (
        f"yours    kept entries are {kept.min():.4g} to {kept.max():.4g} times x; expected {1 / (1 - p):.4g}, p = {p}"
    )
    expect.true(np.allclose(kept, 1 / (1 - p), rtol=1e-5), "what is kept is x/(1 - p)", evidence, likely=reading)

    _demand_own_masks(zeros)

    other = array(learner(x, p)) == 0
    likely = "Is a seed set, or a generator made, inside the function? Then each call draws the same."
    expect.true((other != zeros).any(), "another call drops other entries", likely=likely)
    repeats = []
    for _ in range(2):
        torch.manual_seed(3)
        repeats.append(array(learner(x, p)))
    likely = (
        "Draw with torch.rand_like or torch.bernoulli, not with NumPy or random: then torch.manual_seed governs it."
    )
    expect.true((repeats[0] == repeats[1]).all(), "after torch.manual_seed the same entries are dropped", likely=likely)
    same_number = len({int(mask.sum()) for mask in (zeros, other, repeats[0] == 0, array(learner(x, p)) == 0)}) == 1
    same_number = same_number or not np.ptp(zeros.sum(1)) or not np.ptp(zeros.sum(0))
    likely = "A fixed number of entries is dropped. Each has its own chance, so the number varies: rand_like(x) >= p."
    expect.true(not same_number, "how many are dropped is left to chance", likely=likely)

    expect.close(learner(x, 0.0), x, why="p = 0 drops nothing", source="the definition")
    deep = _tensor(rng.uniform(1, 2, size=(30, 4, 5)))
    y = learner(deep, 0.8)
    expect.shape(y, (30, 4, 5), "x may have three axes")
    ratio = array(y) / array(deep)
    share = (ratio == 0).mean()
    evidence = f"yours    {share:.1%} of 600 entries are zero, p = 0.8"
    likely = "Is there a fixed number in place of p?"
    expect.true(0.7 < share < 0.9, "the share follows p", evidence, likely=likely)
    expect.true(np.allclose(ratio[ratio != 0], 5), "what is kept is divided by 1 - p = 0.2", likely=likely)
    _demand_own_masks(ratio == 0)
    for kind in (torch.float32, torch.float64):
        found = learner(torch.ones(7, dtype=kind), 0.5).dtype
        likely = "Is it turned into another type on the way, by .double(), .float() or NumPy?"
        expect.true(found == kind, "the result has the type of x", f"yours    {found} for {kind}", likely=likely)

    leaf = _tensor(rng.uniform(1, 2, size=(6, 5))).requires_grad_()
    y = learner(leaf, 0.5)
    why = "the gradient passes where an entry is kept, times 1/(1 - p)"
    _demand_gradient(y, leaf, (y / leaf).detach(), why)


# ------------------------------------------------------------------------------------------------ batch_norm


def _batch_norm(
    axis=0,
    normal=0,
    kept=1,
    root=lambda var, eps: (var + eps).sqrt(),
    move=lambda old, new, rho: (1 - rho) * old + rho * new,
    end=lambda z_hat, gamma, beta: gamma * z_hat + beta,
    evaluate=False,
    train=True,
    refuse=True,
    moved_in_evaluation=False,
    keep=lambda var: var,
    detach=False,
):
    """A batch norm with parts to replace; normal and kept are the corrections of the two variances."""

    def layer(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
        if training and refuse and len(z) < 2:
            raise ValueError("batch of 1")
        mean = z.mean(axis, keepdim=axis == 1)
        var = z.var(axis, correction=normal, keepdim=axis == 1)
        if detach:
            mean, var = mean.detach(), var.detach()
        before = running
        if training or moved_in_evaluation:
            new = mean.ravel(), keep(z.var(axis, correction=kept))
            running = tuple(move(old, each, rho) for old, each in zip(running, new, strict=True))
        if not (training and train) and not evaluate:
            mean, var = before
        return end((z - mean) / root(var, eps), gamma, beta), running

    return layer


BATCH_NORM_MISTAKES = [
    _slip(
        _batch_norm(normal=1),
        "unbiased_inside",
        "It normalises by the unbiased variance; ẑ takes the batch's own, divided by B.",
    ),
    _slip(
        _batch_norm(kept=0),
        "biased_kept",
        "The running variance moves to the biased one; it keeps an estimate for all images: times B/(B - 1).",
    ),
    _slip(
        _batch_norm(move=lambda old, new, rho: rho * old + (1 - rho) * new),
        "rho_swapped",
        "ρ is the weight of the new statistic, 1 - ρ of the old one: the two are swapped.",
    ),
    _slip(
        _batch_norm(move=lambda old, new, rho: old + rho * new),
        "adds_up",
        "The running statistics add up for ever: the old one keeps the weight 1 - ρ.",
    ),
    _slip(
        _batch_norm(move=lambda old, new, rho: new),
        "replaced",
        "The running statistics are replaced by the batch's: they move by ρ only.",
    ),
    _slip(_batch_norm(move=lambda old, new, rho: old), "not_moved", "The running statistics do not move in training."),
    _slip(
        _batch_norm(move=lambda old, new, rho: 0.9 * old + 0.1 * new),
        "rho_fixed",
        "ρ is an argument; this moves by 0.1 whatever it is.",
    ),
    _slip(
        _batch_norm(keep=lambda var: var.sqrt()),
        "keeps_deviation",
        "It keeps the standard deviation; the running statistic is the variance.",
    ),
    _slip(_batch_norm(root=lambda var, eps: var.sqrt() + eps), "eps_outside", "ε belongs inside the root: √(σ² + ε)."),
    _slip(_batch_norm(root=lambda var, eps: var + eps), "no_root", "It divides by the variance; divide by its root."),
    _slip(_batch_norm(root=lambda var, eps: var.sqrt()), "no_eps", "ε is missing: √(σ² + ε)."),
    _slip(
        _batch_norm(root=lambda var, eps: (var + 1e-5).sqrt()),
        "eps_fixed",
        "ε is an argument; this takes 1e-5 whatever it is.",
    ),
    _slip(_batch_norm(end=lambda z_hat, gamma, beta: z_hat), "no_scale", "γ and β have no part in it: y = γẑ + β."),
    _slip(_batch_norm(end=lambda z_hat, gamma, beta: gamma * z_hat), "no_beta", "β is missing: y = γẑ + β."),
    _slip(_batch_norm(end=lambda z_hat, gamma, beta: z_hat + beta), "no_gamma", "γ is missing: y = γẑ + β."),
    _slip(
        _batch_norm(end=lambda z_hat, gamma, beta: gamma * (z_hat + beta)),
        "bracket",
        "β is scaled by γ: y = γẑ + β has no bracket.",
    ),
    _slip(
        _batch_norm(end=lambda z_hat, gamma, beta: beta * z_hat + gamma),
        "swapped",
        "γ and β are swapped: γ scales, β shifts.",
    ),
    _slip(
        _batch_norm(evaluate=True),
        "batch_in_evaluation",
        "In evaluation it takes the batch's statistics: take the running ones.",
    ),
    _slip(
        _batch_norm(train=False),
        "running_in_training",
        "In training it normalises by the running statistics: take the batch's own.",
    ),
    _slip(
        _batch_norm(moved_in_evaluation=True),
        "moved_in_evaluation",
        "The running statistics move in evaluation too: they come back as they were.",
    ),
    _slip(
        _batch_norm(refuse=False),
        "not_refused",
        "A batch of one image in training has to be refused: raise ValueError(...).",
    ),
    _slip(
        _batch_norm(detach=True),
        "detached",
        "Mean and variance are cut from the graph: the gradient has to flow through them too. No detach, no torch.no_grad().",
    ),
]


def _new_running(change):
    """A right batch norm but for the running statistics: change(old, new, ρ, B), each a pair of mean and variance."""

    def layer(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
        y, moved = _batch_norm()(z, gamma, beta, running, training, rho, eps)
        return y, change(running, moved, rho, len(z)) if training else moved

    return layer


def _in_evaluation(slip):
    """The mistake `slip`, in evaluation only."""

    def layer(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
        return (_batch_norm() if training else slip)(z, gamma, beta, running, training, rho, eps)

    return _slip(layer, f"{slip.__name__}_in_evaluation", f"Training is right, evaluation is not. {slip.__doc__}")


BATCH_NORM_MISTAKES += [
    _in_evaluation(slip)
    for slip in BATCH_NORM_MISTAKES
    if slip.__name__ in ("eps_outside", "no_root", "no_eps", "no_scale", "no_beta", "no_gamma", "bracket", "swapped")
]
BATCH_NORM_MISTAKES += [
    _slip(
        _new_running(lambda old, new, rho, B: new[::-1]),
        "other_order",
        "The running statistics have changed places: (mean, var).",
    ),
    _slip(
        _new_running(lambda old, new, rho, B: (new[0], old[1])),
        "mean_alone",
        "The running variance does not move; it moves as the mean does.",
    ),
    _slip(
        _new_running(
            lambda old, new, rho, B: (new[0], (1 - rho) * old[1] + (new[1] - (1 - rho) * old[1]) * B / (B - 1))
        ),
        "factor_twice",
        "B/(B - 1) comes twice: var() without correction=0 is unbiased already.",
    ),
    _slip(
        _new_running(
            lambda old, new, rho, B: (new[0], (1 - rho) * old[1] + (new[1] - (1 - rho) * old[1]) * ((B - 1) / B) ** 2)
        ),
        "factor_turned",
        "The factor is turned round: B/(B - 1), not (B - 1)/B.",
    ),
    _slip(
        _new_running(lambda old, new, rho, B: (new[0], (1 - rho) * old[1] + (new[1] - (1 - rho) * old[1]) / B)),
        "b_left_out",
        "It divides the biased variance by B - 1; the factor is B/(B - 1).",
    ),
    _slip(
        _new_running(
            lambda old, new, rho, B: ((1 - rho) * old[0] + (new[0] - (1 - rho) * old[0]) * B / (B - 1), new[1])
        ),
        "factor_on_the_mean",
        "B/(B - 1) belongs to the variance only; a mean is unbiased as it is.",
    ),
]


def only_mean_cut(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    """The mean is cut from the graph: the gradient has to flow through it too. No detach, no torch.no_grad()."""
    _, running = _batch_norm()(z, gamma, beta, running, training, rho, eps)
    mean, var = (z.mean(0).detach(), z.var(0, correction=0)) if training else running
    return gamma * (z - mean) / (var + eps).sqrt() + beta, running


def only_var_cut(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    """The variance is cut from the graph: the gradient has to flow through it too. No detach, no torch.no_grad()."""
    _, running = _batch_norm()(z, gamma, beta, running, training, rho, eps)
    mean, var = (z.mean(0), z.var(0, correction=0).detach()) if training else running
    return gamma * (z - mean) / (var + eps).sqrt() + beta, running


def moved_first(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    """In training it normalises by the new running statistics: take the batch's own."""
    _, running = _batch_norm()(z, gamma, beta, running, training, rho, eps)
    return gamma * (z - running[0]) / (running[1] + eps).sqrt() + beta, running


def half_the_batch(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    """In evaluation the mean is the running one, but the variance is the batch's: take both from `running`."""
    if training:
        return _batch_norm()(z, gamma, beta, running, training, rho, eps)
    return gamma * (z - running[0]) / (z.var(0, correction=0) + eps).sqrt() + beta, running


def mean_left_in(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    """The mean is not subtracted: ẑ = (z - z̄)/√(σ² + ε)."""
    _, running = _batch_norm()(z, gamma, beta, running, training, rho, eps)
    var = z.var(0, correction=0) if training else running[1]
    return gamma * z / (var + eps).sqrt() + beta, running


def layer_statistics(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    """Mean and variance are over the features of each example (axis 1): that is layer norm. Batch norm's are over the batch, axis 0."""
    if not training:
        return _batch_norm()(z, gamma, beta, running, training, rho, eps)
    mean, var = z.mean(1, keepdim=True), z.var(1, correction=0, keepdim=True)
    return gamma * (z - mean) / (var + eps).sqrt() + beta, running


def one_for_all(z, gamma, beta, running, training, rho=0.1, eps=1e-5):
    """Mean and variance are taken over everything; each feature has its own: axis 0."""
    if not training:
        return _batch_norm()(z, gamma, beta, running, training, rho, eps)
    mean, var = z.mean(), z.var(correction=0)
    return gamma * (z - mean) / (var + eps).sqrt() + beta, running


@exercise(
    hints=[
        "Two modes, one ending. Only the choice of mean and variance differs; the last line is the same for both.",
        "z.mean(0), and z.var(0, correction=0) for the biased variance; times B / (B - 1) it is the unbiased one for the running statistics.",
        "In training: running = ((1 - rho) * running[0] + rho * mean, (1 - rho) * running[1] + rho * var * B / (B - 1)). "
        "At the end: return gamma * (z - mean) / (var + eps).sqrt() + beta, running",
    ],
    mistakes=[
        *BATCH_NORM_MISTAKES,
        layer_statistics,
        one_for_all,
        only_mean_cut,
        only_var_cut,
        moved_first,
        half_the_batch,
        mean_left_in,
    ],
    seconds=30,
)
def batch_norm(learner, rng):
    import torch

    source = "torch.nn.functional.batch_norm"

    def apart(given):
        y, running = expect.parts(given, ("y", "running"), "returns y and the running statistics")
        mean, var = expect.parts(running, ("mean", "var"), "the running statistics are a mean and a variance")
        for what, part in (("y", y), ("the running mean", mean), ("the running variance", var)):
            _demand_tensor(part, what)
        return y, mean, var

    def demand_running(given, expected, why, source=source):
        for what, mine, theirs in zip(("mean", "variance"), given, expected, strict=True):
            expect.close(mine, theirs, why=f"running {what} {why}", source=source)

    B, D = 5, 3
    gamma, beta = _tensor([0.5, -1.5, 2.0]), _tensor([1.0, 0.3, -2.0])
    running = _tensor([0.2, -1.0, 3.0]), _tensor([2.0, 0.5, 1.2])
    theirs = [part.clone() for part in running]
    steps = ("in training, first batch", "in training, second batch, with other B, ρ and ε")
    for why, size, settings in zip(
        steps, (B, 2 * B), ({"rho": 0.3, "eps": 0.2}, {"rho": 0.6, "eps": 0.1}), strict=True
    ):
        z = _tensor(rng.normal(size=(size, D)) * [1, 2, 0.7] + [3, 0, -1])
        expected = torch.nn.functional.batch_norm(z, *theirs, gamma, beta, True, settings["rho"], settings["eps"])
        y, *running = apart(learner(z, gamma, beta, tuple(running), True, **settings))
        expect.close(y, expected, why=f"y {why}", source=source)
        demand_running(running, theirs, why)
    for size in (4, 1):
        z = _tensor(rng.normal(size=(size, D)))
        try:
            given = learner(z, gamma, beta, tuple(running), False, eps=0.2)
        except ValueError as error:
            likely = "Evaluation refuses no batch, for it does not need its statistics: raise only in training."
            raise Complaint(f"evaluation takes B = {size}", [f"yours    ValueError: {error}"], likely) from None
        y, *after = apart(given)
        expected = torch.nn.functional.batch_norm(z, *theirs, gamma, beta, False, 0.1, 0.2)
        expect.close(y, expected, why=f"y in evaluation, B = {size}", source=source)
        demand_running(after, theirs, "stays in evaluation", "the definition")
    z = _tensor(rng.normal(size=(2, D)) * 0.01)  # ε counts here
    theirs = [torch.zeros(D, dtype=torch.float64), torch.ones(D, dtype=torch.float64)]
    try:
        y, *after = apart(learner(z, gamma, beta, tuple(part.clone() for part in theirs), True))
    except ValueError as error:
        likely = "Only a batch of 1 is refused: if len(z) < 2."
        raise Complaint("training takes B = 2", [f"yours    ValueError: {error}"], likely) from None
    expected = torch.nn.functional.batch_norm(z, *theirs, gamma, beta, True)
    expect.close(
        y,
        expected,
        why="y with the usual ε",
        source=source,
        likely="eps is 1e-5 unless given: keep the defaults of the signature.",
    )
    demand_running(after, theirs, "with the usual ρ")

    z = _tensor(rng.normal(size=(4, D))).requires_grad_()
    pull = _tensor(rng.normal(size=(4, D)))
    y, *_ = apart(learner(z, gamma, beta, tuple(running), True, eps=0.2))
    again = z.detach().clone().requires_grad_()
    theirs = torch.nn.functional.batch_norm(again, None, None, gamma, beta, True, 0.1, 0.2)
    (expected,) = torch.autograd.grad((theirs * pull).sum(), again)
    _demand_gradient(y, z, expected, "the gradient flows through mean and variance too", pull=pull)

    why = "a batch of 1 in training raises ValueError"
    try:
        result = learner(_tensor(rng.normal(size=(1, D))), gamma, beta, tuple(running), True)
    except ValueError:
        return
    except Complaint:
        raise
    except Exception as error:
        likely = "It is refused, but by another exception: raise ValueError(...)."
        raise Complaint(why, [f"yours    raises {type(error).__name__}: {error}"], likely) from None
    likely = "A batch of one image in training has to be refused: raise ValueError(...)."
    if isinstance(result, Exception):
        likely = "`return` hands the error over like a result; `raise` stops the caller."
    raise Complaint(why, [f"yours    returns {type(result).__name__}"], likely)


# ------------------------------------------------------------------------------------------------ batch_norm_backward


def _backward(
    correction=0,
    root=lambda var, eps: (var + eps).sqrt(),
    inside=lambda delta, z_hat: delta - delta.mean(0) - z_hat * (delta * z_hat).mean(0),
    outside=lambda gamma, s: gamma / s,
    to_gamma=lambda delta, z_hat, z: (delta * z_hat).sum(0),
    to_beta=lambda delta: delta.sum(0),
):
    def backward(delta, z, gamma, eps=1e-5):
        s = root(z.var(0, correction=correction), eps)
        z_hat = (z - z.mean(0)) / s
        return outside(gamma, s) * inside(delta, z_hat), to_gamma(delta, z_hat, z), to_beta(delta)

    return backward


def divided_twice(delta, z, gamma, eps=1e-5):
    """The whole bracket is divided by B once too often: its terms are means already."""
    to_z, to_gamma, to_beta = _backward()(delta, z, gamma, eps)
    return to_z / len(z), to_gamma, to_beta


def not_normalised(delta, z, gamma, eps=1e-5):
    """In the last term stands z - z̄ in place of ẑ: divide by s, both times."""
    _, to_gamma, to_beta = _backward()(delta, z, gamma, eps)
    s, centred = (z.var(0, correction=0) + eps).sqrt(), z - z.mean(0)
    return gamma / s * (delta - delta.mean(0) - centred * (delta * centred).mean(0)), to_gamma, to_beta


def half_normalised(delta, z, gamma, eps=1e-5):
    """In one place of the last term stands z - z̄ in place of ẑ: divide by s."""
    _, to_gamma, to_beta = _backward()(delta, z, gamma, eps)
    s, centred = (z.var(0, correction=0) + eps).sqrt(), z - z.mean(0)
    return gamma / s * (delta - delta.mean(0) - centred / s * (delta * centred).mean(0)), to_gamma, to_beta


BACKWARD_MISTAKES = [
    _slip(
        _backward(inside=lambda delta, z_hat: delta),
        "statistics_as_constants",
        "It takes z̄ and σ for constants: both of the terms to be subtracted are missing.",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: delta - delta.mean(0)),
        "variance_as_constant",
        "The path through σ is missing: subtract ẑ times the mean of δẑ too (of the product: the mean of ẑ alone is 0).",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: delta - z_hat * (delta * z_hat).mean(0)),
        "mean_as_constant",
        "The path through z̄ is missing: subtract the mean of δ too.",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: delta - delta.sum(0) - z_hat * (delta * z_hat).sum(0)),
        "sums_for_means",
        "Inside the bracket stand sums; they are means over the batch: divide by B.",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: len(delta) * delta - delta.sum(0) - z_hat * (delta * z_hat).sum(0)),
        "b_times_too_long",
        "The gradient with respect to z is B times too long: with sums in the bracket, divide by B.",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: delta - delta.mean(0) + z_hat * (delta * z_hat).mean(0)),
        "plus",
        "The last term has the wrong sign: all of both terms is taken out.",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: delta + delta.mean(0) + z_hat * (delta * z_hat).mean(0)),
        "both_plus",
        "Both terms have the wrong sign: they are taken out.",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: delta - delta.mean(0) - (delta * z_hat).mean(0)),
        "no_z_hat",
        "The last term lacks its factor ẑ: ẑ times the mean of δẑ.",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: delta - delta.mean() - z_hat * (delta * z_hat).mean()),
        "mean_of_all",
        "The means are over everything; each feature has its own: .mean(0).",
    ),
    _slip(
        _backward(outside=lambda gamma, s: 1 / s),
        "no_gamma",
        "γ is missing in the gradient with respect to z: γ/s stands before the bracket.",
    ),
    _slip(_backward(outside=lambda gamma, s: gamma), "no_s", "The factor before the bracket is γ/s; 1/s is missing."),
    _slip(
        _backward(outside=lambda gamma, s: gamma * s),
        "times_s",
        "It multiplies by s; the factor before the bracket is γ/s.",
    ),
    _slip(
        _backward(outside=lambda gamma, s: gamma / s**2),
        "s_squared",
        "It divides by s²; the factor before the bracket is γ/s.",
    ),
    _slip(
        _backward(correction=1),
        "unbiased",
        "It takes the unbiased variance; the forward pass divides by B: correction=0.",
    ),
    _slip(_backward(root=lambda var, eps: var.sqrt()), "no_eps", "ε is missing in s = √(σ² + ε)."),
    _slip(
        _backward(root=lambda var, eps: var.sqrt() + eps), "eps_outside", "ε belongs inside the root: s = √(σ² + ε)."
    ),
    _slip(
        _backward(root=lambda var, eps: (var + 1e-5).sqrt()),
        "eps_fixed",
        "ε is an argument; this takes 1e-5 whatever it is.",
    ),
    _slip(
        _backward(root=lambda var, eps: var + eps), "no_root", "It divides by s² somewhere: s is the root of σ² + ε."
    ),
    _slip(
        _backward(to_gamma=lambda delta, z_hat, z: (delta * z).sum(0)),
        "gamma_from_z",
        "The gradient with respect to γ takes ẑ, which γ multiplies, not z.",
    ),
    _slip(
        _backward(to_gamma=lambda delta, z_hat, z: (delta * z_hat).mean(0)),
        "gamma_mean",
        "The gradients with respect to γ and β are sums over the batch, not means.",
    ),
    _slip(
        _backward(to_beta=lambda delta: delta.mean(0)),
        "beta_mean",
        "The gradients with respect to γ and β are sums over the batch, not means.",
    ),
    _slip(
        _backward(to_gamma=lambda delta, z_hat, z: delta * z_hat),
        "gamma_not_added",
        "γ serves the whole batch: add its gradient up over the batch, .sum(0).",
    ),
    _slip(
        _backward(to_beta=lambda delta: delta),
        "beta_not_added",
        "β serves the whole batch: add its gradient up over the batch, .sum(0).",
    ),
    divided_twice,
    _slip(
        _backward(inside=lambda delta, z_hat: delta - delta.sum(0) - z_hat * (delta * z_hat).mean(0)),
        "sum_of_delta",
        "The term of δ is a sum; both terms are means over the batch.",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: delta - delta.mean(0) - z_hat * (delta * z_hat).sum(0)),
        "sum_of_products",
        "The term of δẑ is a sum; both terms are means over the batch.",
    ),
    _slip(
        _backward(inside=lambda delta, z_hat: delta + delta.mean(0) - z_hat * (delta * z_hat).mean(0)),
        "first_plus",
        "The mean of δ has the wrong sign: both terms are taken out.",
    ),
    _slip(
        _backward(
            inside=lambda delta, z_hat: delta - (delta.sum(0) + z_hat * (delta * z_hat).sum(0)) / max(len(delta) - 1, 1)
        ),
        "by_b_minus_one",
        "It divides by B - 1; the means in the bracket divide by B.",
    ),
    _slip(
        _backward(
            inside=lambda delta, z_hat: (
                delta - delta.mean(1, keepdim=True) - z_hat * (delta * z_hat).mean(1, keepdim=True)
            )
        ),
        "over_the_features",
        "The means run over the features, axis 1; over the batch, axis 0.",
    ),
    not_normalised,
    half_normalised,
]


@exercise(
    hints=[
        "Compute s and ẑ as in the forward pass; everything else is products and means over the batch, axis 0.",
        "For γ: (delta * z_hat).sum(0), for β: delta.sum(0). The bracket: delta - delta.mean(0) - z_hat * (delta * z_hat).mean(0).",
        "s = (z.var(0, correction=0) + eps).sqrt(); z_hat = (z - z.mean(0)) / s; the first result is gamma / s times the bracket.",
    ],
    mistakes=BACKWARD_MISTAKES,
    seconds=30,
)
def batch_norm_backward(learner, rng):
    import torch

    names = ("to_z", "to_gamma", "to_beta")
    for B, size, settings, why in (
        (5, 1, {"eps": 0.3}, "B = 5, ε = 0.3"),
        (2, 1, {"eps": 0.05}, "B = 2"),
        (8, 0.01, {}, "the usual ε"),
    ):
        z = _tensor(rng.normal(size=(B, 3)) * [size, 0.5 * size, 2 * size] + [0, 1, -2])
        gamma = _tensor([0.5, -1.5, 2.0])
        delta = _tensor(rng.normal(size=(B, 3)) + 0.5)
        leaves = [each.clone().requires_grad_() for each in (z, gamma, torch.zeros(3, dtype=torch.float64))]
        y = torch.nn.functional.batch_norm(leaves[0], None, None, *leaves[1:], True, 0.1, settings.get("eps", 1e-5))
        expected = torch.autograd.grad(y, leaves, delta)
        given = expect.parts(learner(delta, z, gamma, **settings), names, "returns three gradients")
        for what, part in zip(("z", "γ", "β"), given, strict=True):
            _demand_tensor(part, f"the gradient with respect to {what}")
        for order in itertools.permutations(range(3)):
            turned = [given[i] for i in order]
            alike = all(
                a.shape == b.shape and np.allclose(array(a), array(b)) for a, b in zip(turned, expected, strict=True)
            )
            likely = "The gradients are right, but have changed places: z, γ, β."
            expect.true(not alike or order == (0, 1, 2), "the order is z, γ, β", likely=likely)
        for what, mine, theirs in zip(
            ("γ", "β", "z"), (given[1], given[2], given[0]), (*expected[1:], expected[0]), strict=True
        ):
            reason = f"the gradient with respect to {what}: {why}"
            expect.shape(mine, tuple(theirs.shape), f"{reason}: its shape")
            likely = "" if settings else "eps is 1e-5 unless given: keep the default of the signature."
            expect.close(mine, theirs, why=reason, source="autograd of torch's batch norm", atol=1e-6, likely=likely)
    to_z, *_ = learner(
        _tensor([[1.0], [5.0]]), _tensor([[0.0], [2.0]]), _tensor([1.0]), eps=1e-12
    )  # torch's own refuses 0
    expect.close(to_z, [[0.0], [0.0]], why="the example above", source="by hand", atol=1e-6)


# ------------------------------------------------------------------------------------------------ layer_norm


def _layer_norm(
    axis=-1, correction=0, root=lambda var, eps: (var + eps).sqrt(), end=lambda z_hat, gamma, beta: gamma * z_hat + beta
):
    def layer(z, gamma, beta, eps=1e-5):
        mean, var = z.mean(axis, keepdim=True), z.var(axis, correction=correction, keepdim=True)
        return end((z - mean) / root(var, eps), gamma, beta)

    return layer


def over_everything(z, gamma, beta, eps=1e-5):
    """Mean and variance are over everything; each example has its own: the last axis, with keepdim=True."""
    return gamma * (z - z.mean()) / (z.var(correction=0) + eps).sqrt() + beta


@exercise(
    hints=[
        "The same formula as batch norm's, with statistics over axis -1. Which shape must they have to fit z again?",
        "z.mean(-1, keepdim=True) has shape (..., 1), so it broadcasts against z. The variance likewise, with correction=0.",
        "return gamma * (z - mean) / (var + eps).sqrt() + beta, mean and var over axis -1 with keepdim=True",
    ],
    mistakes=[
        _slip(
            _layer_norm(axis=0),
            "over_the_batch",
            "Mean and variance are over the batch: that is batch norm. Take the last axis, -1.",
        ),
        _slip(
            _layer_norm(axis=1), "second_axis", "It takes axis 1, which is the last one only where z has two: take -1."
        ),
        over_everything,
        _slip(
            lambda z, gamma, beta, eps=1e-5: _layer_norm(axis=tuple(range(1, z.ndim)) or -1)(z, gamma, beta, eps),
            "all_but_the_batch",
            "It takes all axes but the first: only the last one, -1.",
        ),
        _slip(_layer_norm(correction=1), "unbiased", "It takes the unbiased variance: correction=0 divides by D."),
        _slip(
            _layer_norm(root=lambda var, eps: var.sqrt() + eps), "eps_outside", "ε belongs inside the root: √(σ² + ε)."
        ),
        _slip(
            _layer_norm(root=lambda var, eps: var + eps), "no_root", "It divides by the variance; divide by its root."
        ),
        _slip(_layer_norm(root=lambda var, eps: var.sqrt()), "no_eps", "ε is missing: √(σ² + ε)."),
        _slip(
            _layer_norm(root=lambda var, eps: (var + 1e-5).sqrt()),
            "eps_fixed",
            "ε is an argument; this takes 1e-5 whatever it is.",
        ),
        _slip(_layer_norm(end=lambda z_hat, gamma, beta: z_hat), "no_scale", "γ and β have no part in it."),
        _slip(_layer_norm(end=lambda z_hat, gamma, beta: z_hat + beta), "no_gamma", "γ is missing: γẑ + β."),
        _slip(
            lambda z, gamma, beta, eps=1e-5: gamma * z / (z.var(-1, correction=0, keepdim=True) + eps).sqrt() + beta,
            "mean_left_in",
            "The mean is not subtracted.",
        ),
        _slip(_layer_norm(end=lambda z_hat, gamma, beta: gamma * z_hat), "no_beta", "β is missing: γẑ + β."),
        _slip(
            _layer_norm(end=lambda z_hat, gamma, beta: gamma * (z_hat + beta)),
            "bracket",
            "β is scaled by γ: γẑ + β has no bracket.",
        ),
        _slip(
            _layer_norm(end=lambda z_hat, gamma, beta: beta * z_hat + gamma),
            "swapped",
            "γ and β are swapped: γ scales, β shifts.",
        ),
    ],
    seconds=30,
)
def layer_norm(learner, rng):
    import torch

    for shape, eps in (((5, 4), 0.2), ((1, 4), 0.1), ((2, 5, 4), 0.3), ((3, 4), 1e-5), ((4,), 0.2), ((4, 4), 0.1)):
        z = _tensor(rng.normal(size=shape) * [1, 2, 3, 0.5] + [0, 1, -1, 2])
        if eps == 1e-5:
            z = z * 0.01  # where ε counts
        gamma, beta = _tensor([0.5, -1.5, 2.0, 1.2]), _tensor([1.0, 0.3, -2.0, 0.1])
        expected = torch.nn.functional.layer_norm(z, (4,), gamma, beta, eps)
        given = learner(z, gamma, beta) if eps == 1e-5 else learner(z, gamma, beta, eps)
        _demand_tensor(given, "the result")
        why = f"each example by its own mean and variance: z of shape {shape}"
        likely = "eps is 1e-5 unless given: keep the default of the signature." if eps == 1e-5 else ""
        expect.close(given, expected, why=why, source="torch.nn.functional.layer_norm", likely=likely)
    leaf, again, pull = z.clone().requires_grad_(), z.clone().requires_grad_(), _tensor(rng.normal(size=(4, 4)))
    theirs = torch.nn.functional.layer_norm(again, (4,), gamma, beta, eps)
    (expected,) = torch.autograd.grad((theirs * pull).sum(), again)
    why = "the gradient flows through mean and variance too"
    _demand_gradient(learner(leaf, gamma, beta, eps), leaf, expected, why, pull=pull)


# ------------------------------------------------------------------------------------------------ predict


def _probe():
    """A model with dropout and batch norm, and the notes it takes: (training, grad enabled, examples) for each call."""
    import torch

    notes = []

    class Probe(torch.nn.Module):
        def forward(self, x):
            notes.append((self.training, torch.is_grad_enabled(), len(x)))
            return x

    torch.manual_seed(0)
    layers = [Probe(), torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)]
    model = torch.nn.Sequential(*layers).double()
    with torch.no_grad():
        model[2].running_mean.uniform_(-1, 1)
        model[2].running_var.uniform_(0.5, 2)
    return model, notes


@exercise(
    hints=[
        "Four things around the loop: what mode is it in, switch, compute without gradients, switch back to that mode.",
        "x.split(batch_size) gives the parts, the last one shorter; torch.cat puts the outputs together. model.train(mode) takes True or False.",
        "mode = model.training; model.eval(); with torch.no_grad(): outputs = torch.cat([model(part) for part in x.split(batch_size)]); model.train(mode)",
    ],
    seconds=30,
)
def predict(learner, rng):
    import torch

    for training, N in ((True, 10), (False, 8)):  # 8 is a multiple of batch_size
        model, notes = _probe()
        before = copy.deepcopy(model.state_dict())
        x = _tensor(rng.normal(size=(N, 3)))
        expected = copy.deepcopy(model).eval()(x).detach()
        notes.clear()
        model.train(training)
        mode = "training" if training else "evaluation"
        came = f"given    a model in {mode} mode, {N} examples, batch_size 4"
        try:
            given = learner(model, x, 4)
            left_on = torch.is_grad_enabled()
        finally:
            torch.set_grad_enabled(True)
        if given is None:
            expect.finite(given, "returns the outputs")
        seen = [n for _, _, n in notes]
        parts = f"yours    calls the model with parts of {seen} examples"
        expect.true(notes, "calls the model", came, likely="The outputs are model(part).")
        likely = "Call model.eval() before the model: it switches all layers, dropout off and batch norm to its running statistics."
        expect.true(not any(on for on, _, _ in notes), "computes in evaluation mode", came, likely=likely)
        likely = "Put the model's calls under `with torch.no_grad():`; detach() afterwards has built the graph already."
        expect.true(not any(grad for _, grad, _ in notes), "records no gradients", came, likely=likely)
        likely = "Is the last, shorter part left out? x.split(batch_size) gives it too."
        if sum(seen) > N:
            likely = "Some examples are computed twice."
        expect.true(sum(seen) == N, "every example once", came, parts, likely=likely)
        likely = "x.split(batch_size) makes parts of batch_size; chunk and tensor_split take the number of parts."
        if len(seen) != 4:
            likely = "Loop over x.split(batch_size)."
        right = {*seen[:-1]} == {4} and seen[-1] <= 4
        expect.true(right, "parts of batch_size examples, the last one shorter", came, parts, likely=likely)
        _demand_tensor(given, "the outputs together")
        why = "the outputs of evaluation mode, in the order of x"
        likely = ""
        if given.shape != (N, 2) or torch.allclose(given.sum(1), torch.ones(N, dtype=given.dtype)):
            likely = "All outputs, (N, K), as the model gives them: no softmax, no argmax, no part left out."
        expect.close(given, expected, why=why, source="model.eval(), all at once", likely=likely)
        moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
        expect.true(not moved, "leaves weights and running statistics alone", f"yours    changes {', '.join(moved)}")
        frozen = not all(p.requires_grad for p in model.parameters())
        likely = "It switches requires_grad of the parameters off, so that they learn no more; torch.no_grad() ends by itself."
        expect.true(not frozen, "the parameters still take gradients", came, likely=likely)
        after = f"yours    leaves it in {'training' if model.training else 'evaluation'} mode"
        likely = "Remember model.training before model.eval(), and hand it to model.train(...) at the end."
        expect.true(model.training == training, "the mode is as it was before", came, after, likely=likely)
        children = all(layer.training == training for layer in model)
        likely = "model.training = ... sets only the model's own flag; model.train(mode) sets those of its layers too."
        expect.true(children, "the mode of all layers is as it was before", came, likely=likely)
        likely = "torch.set_grad_enabled(False) stays off for all that follows; `with torch.no_grad():` ends."
        expect.true(left_on, "gradients are recorded again afterwards", came, likely=likely)
    model, notes = _probe()
    learner(model, _tensor(rng.normal(size=(501, 3))))
    likely = "Keep the default of the signature."
    expect.true([n for _, _, n in notes] == [500, 1], "batch_size is 500 unless given", likely=likely)


# ------------------------------------------------------------------------------------------------ calibration_error


def _calibration(
    score=lambda p, y: (p.max(1), p.argmax(1) == y),
    fall=lambda confidence, bins: np.minimum((confidence * bins).astype(int), bins - 1),
    gap=abs,
    gather=lambda gaps, counts: (gaps * counts).sum() / counts.sum(),
    middle=None,
):
    def error(probabilities, y, bins=15):
        p, y = array(probabilities).astype(float), array(y)
        confidence, right = score(p, y)
        which = fall(confidence, bins)
        gaps, counts = [], []
        for m in range(max(bins, which.max() + 1)):
            inside = which == m
            if inside.any():
                sure = middle(m, bins) if middle else confidence[inside].mean()
                gaps.append(gap(right[inside].mean() - sure))
                counts.append(inside.sum())
        return float(gather(np.array(gaps), np.array(counts)))

    return error


def _by_rank(confidence, bins):
    ranks = np.empty(len(confidence), int)
    ranks[np.argsort(confidence, kind="stable")] = np.arange(len(confidence))
    return ranks * bins // len(confidence)


CALIBRATION_MISTAKES = [
    _slip(
        _calibration(gather=lambda gaps, counts: gaps.mean()),
        "not_weighted",
        "All bins count alike; weight each gap by its share of the images, n_m/N.",
    ),
    _slip(
        lambda probabilities, y, bins=15: _calibration(gather=lambda gaps, counts: gaps.sum() / bins)(
            probabilities, y, bins
        ),
        "mean_over_all_bins",
        "All bins count alike, empty ones too; weight each gap by its share of the images, n_m/N.",
    ),
    _slip(
        _calibration(gather=lambda gaps, counts: gaps.max()),
        "largest",
        "It is the largest gap; the weighted mean of the gaps is asked for.",
    ),
    _slip(
        _calibration(gather=lambda gaps, counts: gaps.sum()),
        "sum_of_gaps",
        "The gaps are added up without their weights n_m/N.",
    ),
    _slip(
        _calibration(gather=lambda gaps, counts: (gaps * counts).sum()),
        "counts_only",
        "The weights are n_m; divide by N: they have to add up to 1.",
    ),
    _slip(
        _calibration(gap=lambda d: d),
        "signed",
        "Gaps of opposite sign cancel, as if all images were in one bin: take the absolute value in each bin.",
    ),
    _slip(
        _calibration(gap=lambda d: -d),
        "signed_turned",
        "Gaps of opposite sign cancel, as if all images were in one bin: take the absolute value in each bin.",
    ),
    _slip(_calibration(gap=np.square), "squared", "The gaps are squared; their absolute value is asked for."),
    _slip(
        _calibration(score=lambda p, y: (p[np.arange(len(y)), y], p.argmax(1) == y)),
        "of_the_right_class",
        "It takes the probability of the right class; confidence is the largest probability, whatever is right.",
    ),
    _slip(
        _calibration(fall=lambda confidence, bins: np.minimum((confidence * 15).astype(int), 14)),
        "fifteen",
        "bins is an argument; this has 15 whatever it is.",
    ),
    _slip(
        _calibration(fall=lambda confidence, bins: np.minimum((confidence * 10).astype(int), 9)),
        "ten",
        "bins is an argument; this has 10 whatever it is.",
    ),
    _slip(
        _calibration(fall=_by_rank),
        "equal_counts",
        "The bins hold equally many images; they are to be equally wide, from 0 to 1.",
    ),
    _slip(
        _calibration(middle=lambda m, bins: (m + 0.5) / bins),
        "middle_of_the_bin",
        "It takes the middle of the bin; the mean confidence of the images in it is asked for.",
    ),
    _slip(
        _calibration(middle=lambda m, bins: m / bins),
        "edge_of_the_bin",
        "It takes the edge of the bin; the mean confidence of the images in it is asked for.",
    ),
    _slip(
        _calibration(fall=lambda confidence, bins: np.round(confidence * (bins - 1)).astype(int)),
        "rounded",
        "Rounding makes other bins: bin m holds confidences from (m - 1)/M to m/M.",
    ),
    _slip(
        _calibration(
            fall=lambda confidence, bins: np.clip(
                ((confidence - confidence.min()) / max(np.ptp(confidence), 1e-12) * bins).astype(int), 0, bins - 1
            )
        ),
        "from_the_smallest",
        "The bins begin at the smallest confidence; they divide the whole of 0 to 1.",
    ),
]


CALIBRATION_MISTAKES += [
    _slip(
        _calibration(gap=np.square, gather=lambda gaps, counts: np.sqrt((gaps * counts).sum() / counts.sum())),
        "root_mean_square",
        "It is the root of the mean square gap; the mean absolute gap is asked for.",
    ),
    _slip(
        _calibration(fall=lambda confidence, bins: np.minimum((confidence * (bins - 1)).astype(int), bins - 2)),
        "one_bin_less",
        "It has one bin less: linspace(0, 1, bins) has bins - 1 gaps. bins + 1 edges make M bins.",
    ),
    _slip(
        _calibration(fall=lambda confidence, bins: np.minimum((confidence * (bins + 1)).astype(int), bins)),
        "one_bin_more",
        "It has one bin more than M.",
    ),
    _slip(
        _calibration(score=lambda p, y: (p[:, 0], p.argmax(1) == y)),
        "first_class",
        "It takes the probability of class 0; confidence is the largest of each row.",
    ),
    _slip(
        _calibration(score=lambda p, y: (np.exp(p).max(1) / np.exp(p).sum(1), p.argmax(1) == y)),
        "softmax_again",
        "A softmax is taken of what are probabilities already.",
    ),
    _slip(
        _calibration(gap=lambda d: max(-d, 0)),
        "overconfident_only",
        "Only gaps of one sign count; take the absolute value, for too little confidence is an error too.",
    ),
    _slip(
        _calibration(gap=lambda d: max(d, 0)),
        "underconfident_only",
        "Only gaps of one sign count; take the absolute value, for too much confidence is an error too.",
    ),
]


def every_class(probabilities, y, bins=15):
    """It sorts the probabilities of all classes into bins; of each image only the largest counts."""
    p = array(probabilities).astype(float)
    pairs = np.stack([1 - p.ravel(), p.ravel()], 1)
    hot = (np.arange(p.shape[1]) == array(y)[:, None]).ravel()
    return _calibration(score=lambda p, y: (p[:, 1], y))(pairs, hot, bins)


def last_bin_lost(probabilities, y, bins=15):
    """The last bin is left out: range(bins) runs from 0 to bins - 1."""
    p, y = array(probabilities), array(y)
    keep = p.max(1) < (bins - 1) / bins
    return _calibration()(p[keep], y[keep], bins) * keep.mean() if keep.any() else 0.0


def accuracy_alone(probabilities, y, bins=15):
    """It is the share of wrong answers; the gap to the confidence is asked for."""
    return float((array(probabilities).argmax(1) != array(y)).mean())


def last_edge_lost(probabilities, y, bins=15):
    """A confidence of exactly 1 falls out of all bins: it belongs to the last one."""
    p, y = array(probabilities), array(y)
    confidence, total = p.max(1), 0.0
    for m in range(bins):
        inside = (confidence >= m / bins) & (confidence < (m + 1) / bins)
        if inside.any():
            total += inside.mean() * abs((p.argmax(1) == y)[inside].mean() - confidence[inside].mean())
    return total


@exercise(
    hints=[
        "confidence, predicted = probabilities.max(1). Which bin a confidence falls into: (confidence * bins).long(), where 1.0 needs care.",
        "For each bin: inside = which == m; if any are: accuracy and mean confidence of those, and their share of all images.",
        "error += inside.sum() / len(y) * (right[inside].mean() - confidence[inside].mean()).abs(), with which.clamp(max=bins - 1)",
    ],
    mistakes=[*CALIBRATION_MISTAKES, every_class, last_bin_lost, accuracy_alone, last_edge_lost],
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

    def demand(p, y, why, bins=15, expected=None, likely=""):
        given = learner(p, y) if bins == 15 else learner(p, y, bins)
        source = "counted out by the definition" if expected is None else "by hand"
        expected = by_definition(p, y, bins) if expected is None else expected
        if np.isnan(array(given)).any():
            likely = "The mean of an empty bin is 0/0: leave empty bins out."
        expect.close(given, expected, why=why, source=source, rtol=1e-4, likely=likely)

    for bins, why in ((7, "500 images, 7 bins"), (15, "500 images, 15 bins")):
        logits = _tensor(rng.normal(size=(500, 4)) * 2)
        p = logits.softmax(1)
        confidence = p.max(1).values
        wrong = _tensor(rng.uniform(size=500)) < 0.5 + 0.5 * torch.sin(
            40 * confidence
        )  # the gaps change their sign often
        y = torch.where(wrong, torch.tensor(rng.integers(0, 4, 500)), p.argmax(1))
        demand(p, y, why, bins)
    example = _tensor([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    demand(example, torch.tensor([0, 1, 1]), "the example above", 2, expected=0.1)
    certain = _tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
    demand(certain, torch.tensor([0, 1, 0, 1]), "confidences of 1.0 count", 4, expected=(3 * (2 / 3) + 0.3) / 4)
    demand(_tensor([[0.55, 0.45]]), torch.tensor([0]), "a single image, most bins are empty", 15, expected=0.45)
    flat = _tensor(rng.normal(size=(60, 20)) * 0.02).softmax(1)
    likely = "All confidences are in the first bin here: is it left out?"
    demand(flat, flat.argmax(1), "20 classes, confidences below 1/15", 15, likely=likely)
    # in single precision, as in the notebook
    demand(p.float(), y, "single precision", 15)


# ------------------------------------------------------------------------------------------------ smoothed_cross_entropy


def _smoothed(target=None, log=lambda z: z - z.exp().sum(1, keepdim=True).log(), reduce=lambda losses: losses.mean()):
    def loss(logits, y, smoothing):
        import torch

        K = logits.shape[1]
        hot = torch.nn.functional.one_hot(y, K).to(logits.dtype)
        t = (target or (lambda hot, e, K: (1 - e) * hot + e / K))(hot, smoothing, K)
        return reduce(-(t * log(logits)).sum(1))

    return loss


def every_image_by_every_label(logits, y, smoothing):
    """log_p[:, y] takes the labels of all images in every row: log_p[torch.arange(len(y)), y] takes each one's own."""
    log_p = logits.log_softmax(1)
    return -(1 - smoothing) * log_p[:, y].mean() - smoothing * log_p.mean()


def _log_softmax(z):
    return z.log_softmax(1)


@exercise(
    hints=[
        "Write the targets as a matrix (B, K): everywhere ε/K, and 1 - ε more at the right class.",
        "log p, (B, K): functional.log_softmax(logits, 1). Of the right classes alone: log_p[torch.arange(len(y)), y].",
        "Split the sum: (1 - smoothing) * (minus log p of the right class) + smoothing * (minus the mean of log p over the classes), and the mean over the batch.",
    ],
    mistakes=[
        _slip(
            _smoothed(lambda hot, e, K: (1 - e) * hot + e / (K - 1) * (1 - hot), _log_softmax),
            "only_the_others",
            "ε goes to the K - 1 wrong classes only; it is spread over all K, the right one included.",
        ),
        _slip(
            _smoothed(lambda hot, e, K: (1 - e) * hot, _log_softmax),
            "no_spread",
            "ε is taken from the right class and given to none: add ε/K to all.",
        ),
        _slip(
            _smoothed(lambda hot, e, K: hot + e / K, _log_softmax),
            "sum_above_one",
            "The targets add up to more than 1: the right class gives ε away, 1 - ε.",
        ),
        _slip(
            _smoothed(lambda hot, e, K: (1 - e) * hot + e, _log_softmax),
            "not_divided",
            "ε is given to each class whole: divide it by K.",
        ),
        _slip(_smoothed(lambda hot, e, K: e * hot + (1 - e) / K, _log_softmax), "swapped", "ε and 1 - ε are swapped."),
        _slip(
            _smoothed(lambda hot, e, K: (1 - e) * hot + e / 10, _log_softmax),
            "ten_classes",
            "It divides by 10: K is the number of columns of the logits.",
        ),
        _slip(
            _smoothed(lambda hot, e, K: (1 - e) * hot + e / len(hot), _log_softmax),
            "batch_for_classes",
            "It divides by B, the number of images; K is the number of classes, logits.shape[1].",
        ),
        _slip(
            _smoothed(lambda hot, e, K: (1 - e / K) * hot + e / K * (1 - hot), _log_softmax),
            "too_much_kept",
            "The right class gives too little away: its target is 1 - ε + ε/K, not 1 - ε/K.",
        ),
        _slip(
            _smoothed(lambda hot, e, K: (1 - e) * hot + e / (K - 1), _log_softmax),
            "one_class_less",
            "It divides by K - 1; ε is spread evenly over all K classes.",
        ),
        _slip(
            _smoothed(lambda hot, e, K: e / K + 0 * hot, _log_softmax),
            "uniform_alone",
            "The part of the right class, 1 - ε, is missing.",
        ),
        _slip(
            _smoothed(lambda hot, e, K: (1 - 0.1) * hot + 0.1 / K, _log_softmax),
            "fixed",
            "smoothing is an argument; this takes 0.1 whatever it is.",
        ),
        _slip(
            _smoothed(lambda hot, e, K: hot, _log_softmax),
            "not_smoothed",
            "The targets are not smoothed: ε has no part in it.",
        ),
        _slip(
            _smoothed(lambda hot, e, K: (1 - e) * hot + e / K * (1 - hot), _log_softmax),
            "right_class_short",
            "The right class lacks its share: ε/K goes to all K classes.",
        ),
        _slip(
            _smoothed(log=_log_softmax, reduce=lambda losses: losses.sum()),
            "summed",
            "The losses of the batch are added up; their mean is asked for.",
        ),
        _slip(
            _smoothed(log=_log_softmax, reduce=lambda losses: losses),
            "one_for_each",
            "One loss for each image: take their mean.",
        ),
        _slip(
            _smoothed(log=_log_softmax, reduce=lambda losses: -losses.mean()),
            "negative",
            "The sign is turned: a loss is minus the sum.",
        ),
        _slip(
            _smoothed(log=lambda z: z.log_softmax(0)),
            "over_the_batch",
            "The softmax runs over the batch (axis 0); over the classes, axis 1.",
        ),
        _slip(
            _smoothed(log=lambda z: z.softmax(1).log_softmax(1)),
            "softmax_twice",
            "The softmax is taken twice: log_softmax and cross_entropy want the logits themselves.",
        ),
        every_image_by_every_label,
        _slip(_smoothed(log=lambda z: z), "no_softmax", "The logits are taken for log p: log_softmax makes them that."),
        _slip(_smoothed(log=lambda z: z.softmax(1)), "no_log", "The logarithm is missing: log p, not p."),
    ],
    seconds=30,
)
def smoothed_cross_entropy(learner, rng):
    import torch

    source = "torch.nn.functional.cross_entropy(label_smoothing=ε)"
    logits, y = _tensor(rng.normal(size=(6, 4)) * 2), torch.tensor(rng.integers(0, 4, 6))
    for smoothing, why in (
        (0.3, "ε = 0.3"),
        (0.0, "ε = 0 is the plain cross-entropy"),
        (1.0, "ε = 1: all classes alike"),
    ):
        given = learner(logits, y, smoothing)
        _demand_tensor(given, "the loss")
        expected = torch.nn.functional.cross_entropy(logits, y, label_smoothing=smoothing)
        expect.close(given, expected, why=f"6 images, 4 classes, {why}", source=source)
    large = _tensor([[1000.0, 0.0, -50.0], [0.0, 900.0, 20.0]])
    expected = torch.nn.functional.cross_entropy(large, torch.tensor([1, 1]), label_smoothing=0.3)
    likely = "exp of large logits overflows, and the logarithm of a p that rounds to 0 is -∞. log_softmax avoids both."
    given = learner(large, torch.tensor([1, 1]), 0.3)
    expect.close(given, expected, why="large logits", source=source, likely=likely)
    leaf, again = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(again, y, label_smoothing=0.3), again)
    _demand_gradient(learner(leaf, y, 0.3), leaf, expected, "its gradient", source)
