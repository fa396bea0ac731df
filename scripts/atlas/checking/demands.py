"""Demands that many exercises share: gradients against autograd, randomness that a generator governs, a tensor.

torch is imported where one of them is used, not before.
"""

import contextlib
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from atlas.checking.advice import advice
from atlas.checking.expectations import difference, expect
from atlas.checking.readings import number
from atlas.checking.values import agree, array, is_array, same, summary
from atlas.checking.vocabulary import Complaint

_CUT = (
    "Something on the way cuts it from the graph: .detach(), .data, .item(), torch.no_grad(), NumPy, "
    "requires_grad=False, or torch.tensor(...) of a tensor?"
)
_PARTLY_CUT = (
    "The result is right and its gradient is not: is a part of the way cut from the graph "
    "(.detach(), .data, .item(), torch.no_grad(), NumPy), or a backward written by hand?"
)
_HIDDEN = (
    "The result is right and its gradient is NaN: an infinite value on the way is hidden only afterwards, by "
    "torch.where, nan_to_num or a mask. What goes into exp, log, sqrt or softmax has to be finite before."
)


# ------------------------------------------------------------------------------------------------ gradients


def gradients(
    yours: Callable,
    theirs: Callable,
    rng: np.random.Generator,
    *,
    why: str,
    source: str = "torch.autograd",
    **inputs: Any,
) -> None:
    """Demand the gradient of the authority with respect to every floating input, also where one of them is frozen.

    yours, theirs: functions of the inputs (in their order) that give a tensor or a tuple of tensors; what is no
    floating tensor in a tuple does not count. Both are pulled along one random direction, so that every entry counts.
    """
    leaves = {name for name, value in inputs.items() if hasattr(value, "detach") and value.is_floating_point()}
    directions: list = []
    for frozen in [None, *(sorted(leaves) if len(leaves) > 1 else [])]:
        wanted = [name for name in inputs if name in leaves and name != frozen]
        words = f"{why}, with {frozen} frozen" if frozen else why
        expected, result = _pulled(theirs, inputs, wanted, directions, rng, words, source)
        given, mine = _pulled(yours, inputs, wanted, directions, rng, words, source)
        likely = _PARTLY_CUT if same(mine, result) else ""
        for name in wanted:
            _demand_gradient(name, given[name], expected[name], words, source, likely)


def module_gradients(
    yours: Any, theirs: Any, x: Any, rng: np.random.Generator, *, why: str, source: str = "torch.autograd"
) -> None:
    """Demand the gradient of the authority for every parameter and for x, in training and in evaluation mode.

    yours, theirs: modules with parameters of the same names, or in the same order, and of the same values.
    """
    for mode in ("training", "evaluation"):
        directions: list = []
        found = []
        for module in (theirs, yours):
            module.train(mode == "training")
            names = [name for name, _ in module.named_parameters()]
            inputs = {"x": x, **dict(module.named_parameters())}
            pulled = _pulled(lambda x, *_, m=module: m(x), inputs, list(inputs), directions, rng, why, source, own=True)
            found.append((names, *pulled))
        (their_names, expected, result), (names, given, mine) = found
        likely = _PARTLY_CUT if same(mine, result) else ""
        expect.equal(len(names), len(their_names), why=f"{why}: as many parameters", source=source)
        partners = names if set(names) == set(their_names) else their_names
        for name, their_name in zip(["x", *names], ["x", *partners], strict=True):
            _demand_gradient(name, given[name], expected[their_name], f"{why}, in {mode}", source, likely)


def _pulled(
    function: Callable, inputs: Mapping, wanted: list, directions: list, rng, why: str, source: str, own: bool = False
) -> tuple[dict, list]:
    """name → gradient (or None) along `directions`, which are drawn when they are not there; and the results.

    own: the inputs but the first are parameters that the function holds, and no copies are made of them.
    """
    import torch

    values = {}
    for name, value in inputs.items():
        copied = hasattr(value, "detach") and not (own and isinstance(value, torch.nn.Parameter))
        values[name] = value.detach().clone() if copied else value
        if name in wanted and copied:
            values[name].requires_grad_()
    result = function(*values.values())
    flat = [each for each in _flat(result) if getattr(each, "is_floating_point", bool)()]
    if not flat:
        expect.kind(result, torch.Tensor, f"{why}: the result is a tensor")
    if not directions:
        directions += [torch.tensor(rng.normal(size=tuple(each.shape)), dtype=torch.float64) for each in flat]
    linked = [(each, way.to(each.dtype)) for each, way in zip(flat, directions, strict=False) if each.requires_grad]
    if not linked:
        return dict.fromkeys(wanted), flat
    outs, ways = zip(*linked, strict=True)
    for out, way in linked:
        expect.shape(out, tuple(way.shape), f"{why}: the result's shape")
    learning = [name for name in wanted if values[name].requires_grad]
    try:
        found = torch.autograd.grad(outs, [values[name] for name in learning], ways, allow_unused=True)
    except RuntimeError as error:
        details = [f"yours    {str(error).split(':')[0]}"]
        raise Complaint(f"{why}: gradients flow through it", details, advice(error, None)) from None
    return dict.fromkeys(wanted) | dict(zip(learning, found, strict=True)), flat


def _flat(result: Any) -> list:
    return [each for part in result for each in _flat(part)] if isinstance(result, tuple | list) else [result]


def _demand_gradient(name: str, given: Any, expected: Any, why: str, source: str, likely: str) -> None:
    rule = f"{why}: the gradient with respect to {name}"
    if expected is None:
        if given is not None and array(given).any():
            details = [f"yours    {array(given).ravel()[:4]}", f"expected none   ({source})"]
            raise Complaint(rule, details, f"{name} has no part in the result. Where does it come in?", array(given))
        return
    if given is None:
        if not array(expected).any():
            return  # none and zeros are the same to an optimizer's step
        raise Complaint(rule, ["yours    None: no gradient reaches it"], _CUT, f"no gradient reaches {name}")
    likely = _HIDDEN if likely and np.isnan(array(given)).any() else likely
    if agree(array(given), array(expected), 1e-3, 1e-4 * float(np.abs(array(expected)).max(initial=0))).all():
        likely = ""  # computed less precisely: nothing is cut
    expect.close(given, expected, why=rule, source=source, rtol=1e-5, atol=1e-8, likely=likely)


# ------------------------------------------------------------------------------------------------ generators


def governed(draw: Callable[[Any], Any], *, why: str, make: Callable[[int], Any] = np.random.default_rng) -> None:
    """Demand that a generator that is handed in governs all that is drawn, whatever the global ones do.

    draw(generator) calls the learner's code with it: call this for each branch that draws. make(seed) makes one;
    `torch_generator` for torch.
    """
    first = draw(make(3))
    _scramble()
    again = draw(make(3))
    if not same(first, again):
        likely = "Draw with the generator that is given, not with np.random, random, torch's own or one made inside."
        raise Complaint(f"{why}: a generator with the same seed gives the same", _two(first, again), likely)
    if same(first, draw(make(4))):
        likely = "Is a generator made inside with a fixed seed, or the one that is given not used?"
        raise Complaint(f"{why}: a generator with another seed gives something else", _two(first, first), likely)
    generator = make(3)
    if same(draw(generator), draw(generator)):
        likely = "Is it copied, or seeded anew? Draw from the generator itself, so that it moves on."
        raise Complaint(f"{why}: the second draw of one generator differs from the first", _two(first, first), likely)


def torch_generator(seed: int) -> Any:
    """A torch.Generator with that seed, for `governed`."""
    import torch

    return torch.Generator().manual_seed(seed)


def _two(first: Any, second: Any) -> list[str]:
    """Both, with the first of the numbers, which a shape alone would not tell apart."""
    names = ("one", "another")
    if not same(first, second):
        return difference(first, second, names)
    shown = summary(first)
    with contextlib.suppress(TypeError):  # no numbers
        shown = " ".join([shown, "with", *map(number, array(first).ravel()[:4]), "…"]) if is_array(first) else shown
    return [f"{name:8} {shown}" for name in names]


def _scramble() -> None:
    """Move every global generator that is loaded to another place."""
    random.random()
    np.random.random()
    if "torch" in sys.modules:
        sys.modules["torch"].rand(1)


# ------------------------------------------------------------------------------------------------ a tensor


def tensor(yours: Any, why: str) -> None:
    """Demand a tensor of torch."""
    import torch

    likely = _NO_TENSOR.get(type(yours).__name__, "")
    if isinstance(yours, list) and any(map(is_array, yours)):
        likely = "A list: torch.stack or torch.cat makes one tensor of several."
    if isinstance(yours, torch.nn.Module):
        likely = (
            f"It is a layer, which nn.{type(yours).__name__}(…) makes: what it computes comes of calling that, …(x)."
        )
    expect.kind(yours, torch.Tensor, f"{why}: a tensor", likely=likely)


_NO_TENSOR = {
    "ndarray": (
        "It is an array of NumPy: torch.from_numpy(…) makes a tensor of it. Where gradients are to flow, stay in torch."
    ),
    "float": "float() and .item() take the number out of torch, and gradients with it.",
    "list": "It is a list: torch.tensor(…) makes a tensor of its numbers.",
    "tuple": "Several results come back where one is asked for.",
}
