"""Probes: they note what a learner's loop does with a model, an optimizer and a schedule, and in which order.

    tape = Tape()
    model = nn.Sequential(tape.layer(), nn.Linear(3, 4))
    optimizer = tape.optimizer(torch.optim.SGD(model.parameters(), lr=0.5))
    schedule = tape.schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9))
    learner(model, x, y, optimizer, schedule)
    expect.equal([len(x) for x in tape.batches()], [4, 4, 2], why="batches of 10", source="4 + 4 + 2")

Model, optimizer and schedule stay what they are. torch is imported where a layer is made, not before.
"""

import functools
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Pass:
    """One forward pass: the input, whether in training mode, whether gradients are recorded, and steps before it."""

    x: Any
    training: bool
    recording: bool
    steps: int


@dataclass(frozen=True)
class Step:
    """One step of the optimizer: weights and gradients (None where there is none) before it, and its learning rates."""

    weights: list
    gradients: list
    rates: list[float]


@dataclass
class Tape:
    """What was noted so far. turns: for each step of the schedule how many steps the optimizer had taken."""

    passes: list[Pass] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)

    def layer(self) -> Any:
        """A layer that hands on what it gets and notes it; the first of a model, however that is called or copied."""

        def note(x: Any, training: bool) -> None:
            import torch

            self.passes.append(Pass(x.detach().clone(), training, torch.is_grad_enabled(), len(self.steps)))

        return _listening()(note)

    def optimizer(self, optimizer: Any) -> Any:
        """The same optimizer, each step of which is noted."""

        def note() -> None:
            held = [p for group in optimizer.param_groups for p in group["params"]]
            gradients = [None if p.grad is None else p.grad.detach().clone() for p in held]
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            self.steps.append(Step([p.detach().clone() for p in held], gradients, rates))

        def before(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            """Note at once or, where the step is given a function that computes the gradients, after that."""
            closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
            if closure is None:
                return note()

            def noted() -> Any:
                loss = closure()
                note()
                return loss

            return (optimizer, noted), {}

        optimizer.register_step_pre_hook(before)
        return optimizer

    def schedule(self, schedule: Any) -> Any:
        """The same schedule, each step of which is noted."""
        step = schedule.step

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.turns.append(len(self.steps))
            return step(*args, **kwargs)

        schedule.step = noted
        return schedule

    def batches(self) -> list:
        """The inputs of the passes; one that is looked at again before the next step, say for its accuracy, once."""
        import torch

        found: list[Pass] = []
        for each in self.passes:
            before = [one.x for one in found if one.steps == each.steps]
            if not any(torch.equal(x, each.x) for x in before):
                found.append(each)
        return [each.x for each in found]


@functools.cache
def _listening() -> type:
    from torch import nn

    class Listening(nn.Module):
        def __init__(self, note):
            super().__init__()
            self.note = note  # a function, not a method: a copied model notes on the same tape

        def forward(self, x):
            self.note(x, self.training)
            return x

    return Listening
