"""Demands that many exercises share: gradients against autograd, generators that govern what is drawn."""

import numpy as np
import pytest

from atlas.checking import (
    PASSED,
    exercise,
    governed,
    gradients,
    module_gradients,
    run_check,
    tensor,
    torch_generator,
)

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


def scaled(x, gamma, beta):
    return gamma * (x - x.mean(0)) + beta


def overwritten(x, gamma, beta):
    e = (x - x.mean(0)).exp()
    result = gamma * e.log() + beta
    e += 0  # which the gradient of log still needs
    return result


@exercise(hints=["."])
def affine(learner, rng):
    given = {"x": torch.tensor(rng.normal(size=(4, 3)))}
    given |= {name: torch.tensor(rng.normal(size=3)) for name in ("gamma", "beta")}
    gradients(learner, scaled, rng, why="an affine layer", **given)


@pytest.mark.parametrize(
    ("answer", "words"),
    {
        "a detached input": (
            lambda x, gamma, beta: gamma.data * (x - x.mean(0)) + beta,
            "gamma\n  yours    None: no gradient reaches it",
        ),
        "a detached part": (
            lambda x, gamma, beta: gamma * (x - x.mean(0).detach()) + beta,
            "is a part of the way cut from the graph",
        ),
        "an infinite value hidden afterwards": (
            lambda x, gamma, beta: scaled(x, gamma, beta) + torch.where(x > 9, (0 * x).sqrt() + (0 * x - 1).log(), 0.0),
            "is hidden only afterwards",
        ),
        "a part overwritten": (overwritten, "gradients flow through it\n  yours    one of the variables needed"),
        "everything detached": (lambda x, gamma, beta: scaled(x, gamma, beta).detach(), "no gradient reaches it"),
        "a new tensor": (
            lambda x, gamma, beta: torch.tensor(scaled(x, gamma, beta).tolist()),
            "no gradient reaches it",
        ),
        "a gradient where none belongs": (
            lambda x, gamma, beta: scaled(x, gamma, beta) + 0.1 * beta**2,
            "the gradient with respect to beta",
        ),
        "a gradient that is less precise": (
            lambda x, gamma, beta: (y := scaled(x, gamma, beta)) + 1e-5 * ((z := y * x) - z.detach()),
            "is a lower precision (float32)",
        ),
        "frozen inputs": (
            lambda x, gamma, beta: scaled(x, gamma, beta if gamma.requires_grad else beta.detach()),
            "with gamma frozen",
        ),
    }.values(),
)
def test_every_input_has_the_gradient_of_the_authority_or_is_named(answer, words):
    said = run_check(affine, answer).text()
    assert said.startswith("✘") and words in said, said


def test_a_right_function_written_otherwise_has_the_right_gradients():
    def by_rows(x, gamma, beta):
        return torch.stack([gamma * row + beta for row in x - x.sum(0) / len(x)])

    outcome = run_check(affine, by_rows)
    assert outcome.status == PASSED, outcome.text()


class Norm(nn.Module):
    def __init__(self, cut=False):
        super().__init__()
        self.norm, self.last, self.cut = nn.BatchNorm1d(3), nn.Linear(3, 2), cut

    def forward(self, x):
        z = self.norm(x)
        return self.last(z.detach() if self.cut and not self.training else z)


@exercise(hints=["."])
def module(learner, rng):
    torch.manual_seed(0)
    mine, theirs = learner(), Norm()
    mine.load_state_dict(theirs.state_dict())
    module_gradients(
        mine, theirs, torch.tensor(rng.normal(size=(5, 3)), dtype=torch.float32), rng, why="a small network"
    )


def test_a_modules_parameters_and_input_have_their_gradients_in_both_modes():
    assert run_check(module, lambda: Norm()).status == PASSED
    assert "in evaluation" in run_check(module, lambda: Norm(cut=True)).text()


def test_parameters_of_the_same_names_belong_together_in_whatever_order_they_are_made():
    class LastFirst(Norm):
        def __init__(self):
            nn.Module.__init__(self)
            self.last, self.norm, self.cut = nn.Linear(3, 2), nn.BatchNorm1d(3), False

    assert run_check(module, LastFirst).status == PASSED


def test_a_parameter_that_does_not_learn_is_named():
    def half_frozen():
        net = Norm()
        net.last.weight.requires_grad_(False)
        return net

    said = run_check(module, half_frozen).text()
    assert "the gradient with respect to last.weight" in said and "requires_grad=False" in said, said


@exercise(hints=["."], random=True)
def shuffled(learner, rng):
    governed(lambda generator: learner(np.arange(20), generator), why="the order")


@exercise(hints=["."], random=True)
def noise(learner, rng):
    governed(lambda generator: learner(torch.zeros(20), generator), why="the noise", make=torch_generator)


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    {
        "the global one": (shuffled, lambda x, rng: np.random.permutation(x), "the same seed gives the same"),
        "a new one": (shuffled, lambda x, rng: np.random.default_rng(0).permutation(x), "another seed gives something"),
        "not used": (shuffled, lambda x, rng: x[::-1], "another seed gives something else"),
        "shown by its numbers": (shuffled, lambda x, rng: x[::-1] / 1.0, "float64 with 19.000 18.000 17.000 16.000 …"),
        "copied": (
            shuffled,
            lambda x, rng: __import__("copy").deepcopy(rng).permutation(x),
            "the second draw of one generator",
        ),
        "torch's own": (noise, lambda x, g: x + torch.randn(20), "the same seed gives the same"),
    }.values(),
)
def test_a_generator_that_does_not_govern_is_noticed(check, answer, words):
    said = run_check(check, answer).text()
    assert said.startswith("✘") and words in said, said


def test_a_generator_that_governs_passes():
    assert run_check(shuffled, lambda x, rng: rng.permutation(x)).status == PASSED
    assert run_check(noise, lambda x, g: x + torch.randn(20, generator=g)).status == PASSED


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x.numpy(), "torch.from_numpy(…) makes a tensor of it"),
        (lambda x: torch.nn.ReLU(), "It is a layer, which nn.ReLU(…) makes: what it computes comes of calling that"),
        (lambda x: float(x.sum()), "take the number out of torch"),
        (lambda x: list(x), "torch.stack or torch.cat"),
        (lambda x: x.tolist(), "torch.tensor(…) makes a tensor of its numbers"),
        (lambda x: (x, x), "Several results come back"),
    ],
)
def test_what_is_no_tensor_is_named(answer, words):
    @exercise(hints=["."])
    def kept(learner, rng):
        tensor(learner(torch.ones(3)), "what is kept")

    assert words in run_check(kept, answer).text()
    assert run_check(kept, lambda x: 2 * x).passed
