"""The tape notes what a loop does with a model, an optimizer and a schedule."""

import copy

import pytest

from atlas.checking import Tape

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


@pytest.fixture
def loop():
    """tape, model, optimizer and schedule of three weights at 1."""
    tape = Tape()
    model = nn.Sequential(tape.layer(), nn.Linear(3, 1, bias=False))
    nn.init.ones_(model[1].weight)
    optimizer = tape.optimizer(torch.optim.SGD(model.parameters(), lr=0.5))
    return tape, model, optimizer, tape.schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))


def test_the_tape_knows_each_pass_and_its_mode(loop):
    tape, model, *_ = loop
    model(torch.zeros(2, 3))
    model.eval()
    with torch.no_grad():
        model.forward(torch.ones(4, 3))
    assert [len(each.x) for each in tape.passes] == [2, 4]
    assert [(each.training, each.recording) for each in tape.passes] == [(True, True), (False, False)]


def test_the_tape_knows_weights_gradients_and_rates_of_each_step(loop):
    tape, model, optimizer, schedule = loop
    optimizer.step()
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        schedule.step()
    weights, gradients = ([getattr(step, name)[0] for step in tape.steps] for name in ("weights", "gradients"))
    assert [w[0, 0].item() for w in weights] == [1, 1, 0.5]
    assert gradients[0] is None and gradients[1].tolist() == [[1, 1, 1]]
    assert [step.rates for step in tape.steps] == [[0.5], [0.5], [0.25]]
    assert tape.turns == [2, 3]


def test_a_step_that_computes_its_gradients_itself_is_noted_with_them(loop):
    tape, model, optimizer, _ = loop

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(1, 3)).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item(), optimizer.step(closure=closure).item()]
    assert losses == [3, 1.5]
    assert [step.gradients[0].tolist() for step in tape.steps] == [[[1, 1, 1]], [[1, 1, 1]]]


def test_a_second_look_at_a_batch_counts_once_until_the_next_step(loop):
    tape, model, optimizer, _ = loop
    for x in (torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 3)):
        model(x)
    optimizer.step()
    model(torch.zeros(2, 3))
    assert [x[0, 0].item() for x in tape.batches()] == [0, 1, 0]


def test_a_copy_of_the_model_is_noted_on_the_same_tape(loop):
    tape, model, *_ = loop
    copy.deepcopy(model)(torch.zeros(2, 3))
    assert len(tape.passes) == 1
