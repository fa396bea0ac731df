"""The checks of pytorch-model-export-deployment: one for each exercise, with its hints. `lab.check` runs them.

Authorities: NumPy for parity, ONNX Runtime for the exported file and for the numbers of affine quantisation, np.quantile
for ranges; for the batcher a clock of its own, and for the endpoint a FastAPI application that is really asked.
"""

import asyncio
import contextlib
import inspect
import json
import math
import os
import tempfile
import time
import types
from pathlib import Path
from unittest import mock

import numpy as np

from atlas.checking import Complaint, array, exercise, expect, parts, tensor
from atlas.checking.place import learners_place


def _tensor(values, dtype="float32"):
    import torch

    return torch.tensor(np.asarray(values), dtype=getattr(torch, dtype))


# ------------------------------------------------------------------------------------------------ same_predictions


@parts
def _same(
    reference,
    candidate,
    images,
    rtol=1e-3,
    atol=1e-5,
    *,
    out=lambda f, x: np.asarray(f(x), dtype=np.float64),
    shape=lambda a, b: a.shape == b.shape,
    difference=lambda a, b: float(np.abs(a - b).max(initial=0)),
    agreement=lambda a, b: float((a.argmax(1) == b.argmax(1)).mean()) if len(a) else 1.0,
    within=lambda a, b, rtol, atol: bool((np.abs(b - a) <= atol + rtol * np.abs(a)).all()),
):
    a, b = out(reference, images), out(candidate, images)
    if not shape(a, b):
        return False, math.inf, 0.0
    return within(a, b, rtol, atol), difference(a, b), agreement(a, b)


@exercise(
    hints=[
        "Call both functions with the same images, and make float64 arrays of what comes out: np.asarray(..., dtype=float).",
        "Other shapes: return False, math.inf, 0.0. Else the largest absolute difference, and the share of equal argmax(1).",
        "np.allclose(b, a, rtol, atol) is |b - a| <= atol + rtol·|a| everywhere, False for NaN. bool(...) and float(...) make plain numbers.",
    ],
    mistakes=_same.mistakes(
        within={
            "It compares the order of the classes only: the numbers have to be close too.": (
                lambda a, b, rtol, atol: bool((a.argmax(1) == b.argmax(1)).all())
            ),
            "It looks at the mean difference: one entry that is far off must fail.": (
                lambda a, b, rtol, atol: bool(np.abs(b - a).mean() <= atol + rtol * np.abs(a).mean())
            ),
            "The tolerance is atol + rtol·|reference|; rtol has no part in yours.": (
                lambda a, b, rtol, atol: bool((np.abs(b - a) <= atol).all())
            ),
            "The tolerance is atol + rtol·|reference|; atol has no part in yours.": (
                lambda a, b, rtol, atol: bool((np.abs(b - a) <= rtol * np.abs(a)).all())
            ),
            "rtol is taken of the candidate: np.allclose(x, y) allows rtol·|y|, so the reference comes second.": (
                lambda a, b, rtol, atol: bool((np.abs(b - a) <= atol + rtol * np.abs(b)).all())
            ),
            "The sign counts: take the absolute value of the difference.": (
                lambda a, b, rtol, atol: bool(((b - a) <= atol + rtol * np.abs(a)).all())
            ),
            "NaN compares as False with everything: `any(difference > tolerance)` lets it pass. Ask whether all are within.": (
                lambda a, b, rtol, atol: not bool((np.abs(b - a) > atol + rtol * np.abs(a)).any())
            ),
        },
        agreement={
            "The share is of images, argmax(1); argmax without an axis, or of axis 0, mixes the images.": (
                lambda a, b: float((a.argmax(0) == b.argmax(0)).mean())
            ),
            "The third number is a share between 0 and 1, not a count.": (
                lambda a, b: float((a.argmax(1) == b.argmax(1)).sum())
            ),
        },
        difference={
            "The second number is the largest difference, not the mean.": lambda a, b: float(np.abs(a - b).mean()),
            "The sign counts: take the absolute value before max.": lambda a, b: float((a - b).max(initial=0)),
        },
        shape={
            "Other shapes broadcast, or cannot be compared: ask for a.shape == b.shape first.": (
                lambda a, b: a.shape == b.shape or np.broadcast_shapes(a.shape, b.shape) == a.shape
            )
        },
    ),
)
def same_predictions(learner, rng):
    images = rng.normal(size=(6, 4))
    logits = images @ rng.normal(size=(4, 3)) + 1.0  # (6, 3)
    names, source = ("same", "largest difference", "agreement"), "NumPy"

    def demand(other, why, same, reference=logits, images=images, likely="", **tolerances):
        given = learner(lambda x: reference, lambda x: other, images, **tolerances)
        close, largest, share = expect.parts(given, names, f"{why}: three results")
        shape = np.shape(reference) == np.shape(other)
        a, b = (np.asarray(x, dtype=float) for x in (reference, other))
        expect.equal(close, same, why=f"{why}: same", source=source, likely=likely)
        off = np.abs(a - b).max(initial=0) if shape else math.inf
        expect.close(largest, off, why=f"{why}: the largest difference", source=source, rtol=1e-4, atol=1e-9)
        agreement = (a.argmax(1) == b.argmax(1)).mean() if shape else 0.0
        expect.close(share, agreement, why=f"{why}: the share of images with the same class", source=source)
        for value, kind in ((close, bool | np.bool_), (largest, float), (share, float)):
            expect.kind(value, kind if kind is float else (bool, np.bool_), f"{why}: a bool and two floats")

    demand(logits.copy(), "the same numbers", True)
    demand(logits[:, [1, 0, 2]], "two classes are swapped", False)
    demand(logits + np.where(np.arange(6) == 4, 0.5, 0)[:, None], "one image is off, and its class stays", False)
    demand(logits + 5e-6, "rounding differs", True)
    demand(logits * 1.2, "everything is a fifth too large, and each class stays", False)
    demand(logits - 0.3, "everything is 0.3 too small", False)
    large = 1000 * np.sign(logits) + logits
    demand(large + 0.5, "large numbers, half off: rtol counts", True, reference=large)
    demand(np.full((6, 3), 5e-6), "zeros against 5e-6: atol counts", True, reference=np.zeros((6, 3)))
    edge = np.full((6, 3), 1.0)
    demand(edge * 1.45, "1.45 for 1, rtol = 0.4", False, reference=edge, rtol=0.4, atol=0.0)
    demand(edge * 0.65, "0.65 for 1, rtol = 0.4", True, reference=edge, rtol=0.4, atol=0.0)
    demand(logits + 0.3, "0.3 off, atol = 0.5", True, atol=0.5)
    single = logits.copy()
    single[4, 2] += 0.5
    demand(single, "one entry of 18 is 0.5 off, atol = 0.1", False, atol=0.1)
    broken = logits.copy()
    broken[2, 1] = np.nan
    close, *_ = expect.parts(learner(lambda x: logits, lambda x: broken, images), names, "NaN: three results")
    expect.equal(close, False, why="NaN is never the same", source=source)
    likely = "Other shapes broadcast, or cannot be compared: ask for a.shape == b.shape first."
    demand(logits[:, :1], "another shape, (6, 1)", False, likely=likely)
    demand(logits[:4], "another shape, (4, 3)", False, likely=likely)
    small = _tensor(logits)
    demand(small, "a float32 tensor for float64 numbers", True)
    seen = []
    learner(lambda x: seen.append(x) or logits, lambda x: seen.append(x) or logits, images)
    if len(seen) < 2 or not all(each is images or np.array_equal(each, images) for each in seen):
        likely = "Call reference(images) and candidate(images)."
        expect.true(False, "both functions are called, with the images as they are", likely=likely)


# ------------------------------------------------------------------------------------------------ export_onnx


@contextlib.contextmanager
def _quick_exporter():
    """torch reads its 500 translations anew for each export, a second in which nothing is learnt: once is enough."""
    import logging
    import warnings

    import torch

    torch.onnx.export.__name__  # loads what is patched below
    import torch.onnx._internal.exporter._registration as registration

    made = registration.ONNXRegistry.__dict__.get("from_torchlib")
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    if made is not None:
        if not hasattr(registration, "_atlas_kept"):
            registration._atlas_kept = {}
        kept = registration._atlas_kept

        def once(cls, *args, **kwargs):
            key = repr((args, kwargs))
            if key not in kept:
                kept[key] = made.__func__(cls, *args, **kwargs)
            return kept[key]

        registration.ONNXRegistry.from_torchlib = classmethod(once)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if made is not None:
            registration.ONNXRegistry.from_torchlib = made


def _small_network(rng):
    """(B, 3, 5) in, 4 logits out; dropout and batch norm, so that training mode shows. In training mode."""
    import torch
    from torch import nn

    layers = [nn.Flatten(), nn.Linear(15, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for each in model.state_dict().values():
            if each.is_floating_point():
                each.copy_(_tensor(rng.uniform(0.3, 1.2, each.shape) * rng.choice([-1, 1], each.shape)))
        model[2].running_var.abs_()
    return model


@exercise(
    hints=[
        "A small nn.Module around the network: forward(images) makes floats, subtracts mean, divides by spread, calls it, softmax(1).",
        "Put the wrapper in evaluation mode for the export, and the network back into its own mode afterwards.",
        'torch.onnx.export(wrapper, (images[:2],), path, input_names=["image"], output_names=["probabilities"], dynamo=True, dynamic_shapes=({0: torch.export.Dim("B")},), external_data=False, verbose=False)',
    ],
    seconds=60,
    changes=("mode",),
)
def export_onnx(learner, rng):
    import onnx
    import onnxruntime
    import torch

    torch.set_grad_enabled(True)
    model, images = _small_network(rng), rng.integers(0, 256, size=(7, 3, 5)).astype(np.uint8)
    mean, spread = 70.5, 90.25
    expected_model = _copy_in_evaluation(model)
    with torch.no_grad():
        x = (torch.from_numpy(images).double() - mean) / spread
        logits = expected_model.double()(x)
        p = logits.softmax(1).numpy()
    with tempfile.TemporaryDirectory() as folder, _quick_exporter():
        path = Path(folder) / "model.onnx"
        learner(model, mean, spread, torch.from_numpy(images[:3]), path)
        why = "path holds a model"
        expect.true(path.exists(), why, f"there is  {', '.join(sorted(os.listdir(folder))) or 'nothing'}")
        likely = "The weights lie in a file of their own, which gets lost: external_data=False keeps them inside."
        expect.equal(sorted(os.listdir(folder)), ["model.onnx"], why="one file, and no other", source="the folder",
                     likely=likely)  # fmt: skip
        expect.true(
            model.training, "the network is in training mode afterwards, as before",
            likely="Remember its mode, or put it back: model.train(was_training).",
        )  # fmt: skip
        content = path.read_bytes()
    (image,), outputs = _described(onnx, content)
    why = 'the input is called "image", the output "probabilities"'
    expect.equal([image.name, *(each.name for each in outputs)], ["image", "probabilities"], why=why,
                 source="input_names, output_names", likely="Are input_names and output_names given, as lists?")  # fmt: skip
    kind = onnx.TensorProto.DataType.Name(image.type.tensor_type.elem_type)
    likely = (
        "The conversion to float belongs into the wrapper's forward, and the example stays uint8: images.float() there."
    )
    expect.equal(kind, "UINT8", why="the input takes bytes", source="images as they come", likely=likely)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level, settings.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])

    def run(batch):
        return session.run(None, {"image": batch})[0]

    first = image.type.tensor_type.shape.dim[0]
    likely = 'Give dynamic_shapes=({0: torch.export.Dim("B")},): else the batch has the example\'s size for ever.'
    expect.true(not first.HasField("dim_value"), "the batch axis is free",
                f"yours    it is {first.dim_value}, that of the example", likely=likely)  # fmt: skip
    source, pixels = "torch in evaluation mode", torch.from_numpy(images).double()
    with torch.no_grad():
        scaled = {
            "The preprocessing is missing: (image - mean) / spread belongs into the graph.": pixels,
            "The mean is not subtracted.": pixels / spread,
            "The spread is not divided by.": pixels - mean,
            "The order of the preprocessing is (image - mean) / spread.": pixels / spread - mean,
            "The pixels are divided by 255 too; mean and spread are in pixels of 0 to 255.": (pixels / 255 - mean)
            / spread,
        }
        table = {words: expected_model(value).softmax(1).numpy() for words, value in scaled.items()}
        table["The output holds logits: end with softmax(1)."] = logits.numpy()
        table["The softmax runs over the batch; over the classes it is softmax(1)."] = logits.softmax(0).numpy()
        table["The softmax is taken twice."] = logits.softmax(1).softmax(1).numpy()
        table["The output holds log-probabilities: softmax, not log_softmax."] = logits.log_softmax(1).numpy()
        table["sigmoid makes each class a question of its own: softmax(1)."] = logits.sigmoid().numpy()
    other = "Is it exported in evaluation mode? Dropout and batch norm act otherwise in training mode."

    def guess(yours, expected):
        near = [
            words
            for words, value in table.items()
            if value.shape == yours.shape and np.allclose(value, yours, 1e-3, 1e-4)
        ]
        return near[0] if near else other

    expect.close(run(images), p, why="probabilities of 7 images by ONNX Runtime, exported with 3", source=source,
                 rtol=1e-3, atol=1e-5, likely=guess)  # fmt: skip
    expect.close(run(images[:1]), p[:1], why="one image alone", source=source, rtol=1e-3, atol=1e-5)
    model.eval()
    with mock.patch("torch.onnx.export"):  # only the mode counts this time, and a stand-in is quick
        learner(model, mean, spread, torch.from_numpy(images[:3]), Path("none.onnx"))
    likely = "Remember its mode before the export: network.train(was_training)."
    why = "a network that comes in evaluation mode stays in it"
    expect.true(not model.training, why, "yours    it is in training mode", likely=likely)


def _copy_in_evaluation(model):
    import copy

    return copy.deepcopy(model).eval()


def _described(onnx, content):
    """The inputs and outputs of a model; complains where it is none."""
    try:
        graph = onnx.load_from_string(content).graph
    except Exception as error:
        raise Complaint("path holds an ONNX model", [f"yours    {type(error).__name__}"], "") from None
    weights = {each.name for each in graph.initializer}
    return [each for each in graph.input if each.name not in weights], list(graph.output)


# ------------------------------------------------------------------------------------------------ quantise


def _extreme(x, axis, which):
    if axis is None:
        return getattr(x, which)()
    return getattr(x.movedim(axis, 0).flatten(1), which)(1)


def _wide(v, x, axis):
    """One number for each index along the axis, shaped so that it broadcasts against x."""
    import torch

    v = torch.as_tensor(v)
    return v if axis is None else v.reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])


@parts
def _quantised(
    x,
    bits=8,
    axis=None,
    *,
    low=lambda x, axis: _extreme(x, axis, "amin").clamp(max=0),
    high=lambda x, axis: _extreme(x, axis, "amax").clamp(min=0),
    levels=lambda bits: 2**bits - 1,
    step=lambda low, high, levels: (high - low) / levels,
    safe=lambda s: s.where(s > 0, s * 0 + 1),
    zero=lambda low, scale: (-low / scale).round(),
    code=lambda x, scale, zero: (x / scale).round() + zero,
    clip=lambda q, bits: q.clamp(0, 2**bits - 1),
    channel=lambda x, axis: axis,
):
    import torch

    axis = channel(x, axis)
    scale = safe(step(low(x, axis), high(x, axis), levels(bits)))
    z = zero(low(x, axis), scale)
    q = clip(code(x, _wide(scale, x, axis), _wide(z, x, axis)), bits)
    return q.to(torch.uint8), scale, z.to(torch.int32)


_one_op_sessions = {}


def _operator(name, inputs, outputs, **attributes):
    """ONNX Runtime's own operator as a function of arrays; the authority for affine quantisation."""
    import onnx
    import onnxruntime

    key = name, tuple(inputs), tuple(sorted(attributes.items()))
    if key not in _one_op_sessions:
        helper, types_ = onnx.helper, onnx.TensorProto
        made = [helper.make_tensor_value_info(n, getattr(types_, kind), None) for n, kind in inputs]
        ends = [helper.make_tensor_value_info(n, getattr(types_, kind), None) for n, kind in outputs]
        node = helper.make_node(name, [n for n, _ in inputs], [n for n, _ in outputs], **attributes)
        graph = helper.make_graph([node], "one", made, ends)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level, settings.intra_op_num_threads = 4, 1
        content = model.SerializeToString()
        _one_op_sessions[key] = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    session = _one_op_sessions[key]
    return lambda *arrays: session.run(None, {n: np.asarray(x) for (n, _), x in zip(inputs, arrays, strict=True)})


def _by_runtime(x):
    """x, float32, quantised to 8 bits by ONNX Runtime: q, scale, zero point."""
    run = _operator("DynamicQuantizeLinear", [("x", "FLOAT")], [("y", "UINT8"), ("s", "FLOAT"), ("z", "UINT8")])
    q, scale, zero = run(np.ascontiguousarray(x, dtype=np.float32))
    return q, scale, zero.astype(int)


def _on_grid(rng, shape, low, levels, scale, shift=0.0):
    """Numbers near multiples of scale, far from a tie, whose range begins at low - shift and has `levels` steps."""
    steps = rng.integers(low + 1, low + levels - 1, size=shape).astype(float)
    noise = rng.uniform(-0.35, 0.35, size=shape)
    flat = (steps + noise).ravel()
    flat[rng.permutation(flat.size)[:2]] = low - shift, low - shift + levels
    return _tensor(flat.reshape(shape) * scale)


_QUANTISED = ("q", "scale", "zero_point")


@exercise(
    hints=[
        "The range has to hold zero: low = min(x.min(), 0), high = max(x.max(), 0). The step is (high - low) / (2**bits - 1).",
        "zero_point = round(-low / scale); q = round(x / scale) + zero_point, clipped to 0 ... 2**bits - 1. A scale of 0 (all zeros) becomes 1.",
        "For an axis: others = [a for a in range(x.ndim) if a != axis]; x.amin(others), x.amax(others); and scale.reshape(shape) with shape = [1] * x.ndim, shape[axis] = -1, to divide by it.",
    ],
    mistakes=_quantised.mistakes(
        low={
            "The range has to hold zero: low is the smaller of x.min() and 0.": lambda x, axis: _extreme(
                x, axis, "amin"
            ),
            "The range is symmetric here; take the smallest and the largest entry themselves, with zero between.": (
                lambda x, axis: -_extreme(x.abs(), axis, "amax")
            ),
        },
        high={
            "The range has to hold zero: high is the larger of x.max() and 0.": lambda x, axis: _extreme(
                x, axis, "amax"
            ),
        },
        levels={
            "2**bits levels have 2**bits - 1 steps between them.": lambda bits: 2**bits,
            "q is unsigned: 0 to 2**bits - 1, not to half of it.": lambda bits: 2 ** (bits - 1) - 1,
        },
        safe={
            "All zeros have the range 0, and 0/0 is NaN: let the scale be 1 there.": lambda s: s,
            "Where only some scales are 0, those alone become 1.": lambda s: s * 0 + 1 if (s == 0).any() else s,
        },
        zero={
            "The zero point is cut off; it is rounded.": lambda low, scale: (-low / scale).floor(),
            "The sign of the zero point is turned: it is round(-low / scale).": lambda low, scale: (
                low / scale
            ).round(),
            "The zero point is missing: negative entries then have no code.": lambda low, scale: low * 0,
        },
        code={
            "x / scale is cut off, not rounded to the nearest: round() before it becomes an integer.": (
                lambda x, scale, zero: (x / scale).trunc() + zero
            ),
            "x / scale is rounded down, not to the nearest.": lambda x, scale, zero: (x / scale).floor() + zero,
            "The zero point is subtracted; q = round(x / scale) + zero_point.": (
                lambda x, scale, zero: (x / scale).round() - zero
            ),
            "x is multiplied by the scale; the code is x divided by it.": (
                lambda x, scale, zero: (x * scale).round() + zero
            ),
        },
        axis={"axis has no part in it: with an axis each index along it has a range of its own.": None},
        channel={
            "The ranges belong to the wrong axis: reduce over all axes but `axis`.": (
                lambda x, axis: None if axis is None else (axis + 1) % x.ndim
            ),
            "A negative axis counts from the end: axis % x.ndim.": lambda x, axis: (
                axis if axis is None or axis >= 0 else None
            ),
        },
    ),
)
def quantise(learner, rng):
    def demand(x, why, expected, source="ONNX Runtime, DynamicQuantizeLinear", **given):
        result = expect.parts(learner(x, **given), _QUANTISED, f"{why}: three results")
        for name, mine, theirs in zip(_QUANTISED, result, expected, strict=True):
            tensor(mine, f"{why}: {name}")
            close = {"rtol": 1e-5, "atol": 0} if name == "scale" else {"rtol": 0, "atol": 0}
            expect.close(mine, theirs, why=f"{why}: {name}", source=source, **close)
        kinds = {"q": "uint8", "scale": x}
        for name, mine in zip(_QUANTISED, result, strict=True):
            if name in kinds:
                expect.dtype(mine, kinds[name], f"{why}: the kind of {name}")
        expect.dtype(result[2], int, f"{why}: the zero point is a whole number",
                     likely="Rounded, it is still a float: .to(torch.int32).")  # fmt: skip

    def plain(x, why):
        demand(x, why, _by_runtime(x.numpy()))

    example = _tensor([-1.0, 0.0, 1.2, 2.0])
    demand(example, "the example above, bits = 2", expected=([0, 1, 2, 3], 1.0, 1), source="by hand", bits=2)
    plain(_on_grid(rng, (5, 7), -90, 255, 0.037), "entries of both signs")
    plain(_on_grid(rng, (4, 3, 2), -200, 255, 2.5), "three axes")
    plain(_on_grid(rng, (5, 7), -90, 255, 0.5, shift=0.7), "-low / scale is 90.7")
    positive = _tensor(rng.integers(130, 250, 12) * 0.02)
    positive[3] = 255 * 0.02
    plain(positive, "positive entries only: zero keeps its code")
    negative = -positive
    demand(negative, "negative entries only", expected=_by_runtime(negative.numpy()))
    plain(_tensor(np.zeros((2, 3))), "zeros only")
    plain(_on_grid(rng, (30,), -100, 255, 1e-7), "tiny entries")
    for bits in (4, 3):
        top = 2**bits - 1
        x = _on_grid(rng, (5, 8), -4, top, 0.3)
        q = np.clip(np.round(x.double().numpy() / 0.3) + 4, 0, top)
        demand(x, f"{bits} bits", expected=(q, 0.3, 4), source="the definition, in NumPy", bits=bits)
    rows = [_on_grid(rng, (9,), low, 255, scale) for low, scale in ((-30, 0.01), (-120, 1.0), (0, 0.2), (-255, 0.5))]
    import torch

    rows = torch.stack([*rows, torch.zeros(9)])  # (5, 9): each row another range, one of zeros
    parts_ = [_by_runtime(row.numpy()) for row in rows]
    q, scales, zeros = (np.stack([part[i] for part in parts_]) for i in range(3))
    each = "ONNX Runtime, DynamicQuantizeLinear, row by row"
    demand(rows, "axis = 0: one range for each row", expected=(q, scales, zeros), source=each, axis=0)
    demand(rows.T, "axis = 1: one range for each column", expected=(q.T, scales, zeros), source=each, axis=1)
    why = "axis = 1 of three"
    cube = torch.stack([rows, rows.flip(1)], 2).movedim(0, 1)  # (9, 5, 2)
    codes = np.moveaxis(np.stack([q, q[:, ::-1]], 2), 0, 1)
    demand(cube, why, expected=(codes, scales, zeros), source=each, axis=1)
    demand(rows.T, "axis = -1", expected=(q.T, scales, zeros), source=each, axis=-1)
    demand(rows.double(), "float64 stays float64", expected=(q, scales, zeros), source=each, axis=0)


# ------------------------------------------------------------------------------------------------ dequantise


@parts
def _dequantised(
    q,
    scale,
    zero_point,
    axis=None,
    *,
    number=lambda q: q.to(dtype=__import__("torch").float32),
    combine=lambda q, s, z: (q - z) * s,
    shaped=lambda v, q, axis: _wide(v, q, axis),
):
    return combine(number(q), shaped(scale, q, axis), shaped(zero_point, q, axis))


def bytes_wrap(q, scale, zero_point, axis=None):
    """q - zero_point is computed in bytes, where 3 - 5 is 254: make it a float first."""
    import torch

    z = _wide(zero_point, q, axis)
    return (q - z.to(torch.uint8)) * _wide(scale, q, axis)


@exercise(
    hints=[
        "The inverse of q = round(x / scale) + zero_point, but for the rounding: subtract, then multiply.",
        "q is uint8, and there 3 - 5 is 254. q.float() before anything else.",
        "With an axis, reshape scale and zero_point as in quantise: shape = [1] * q.ndim; shape[axis] = -1.",
    ],
    mistakes=_dequantised.mistakes(
        bytes_wrap,
        combine={
            "The zero point is subtracted after the scaling: (q - zero_point) * scale.": lambda q, s, z: q * s - z,
            "The zero point is added; going back it is subtracted.": lambda q, s, z: (q + z) * s,
            "The zero point is missing: subtract it first.": lambda q, s, z: q * s + 0 * z,
            "It divides by the scale; quantise did that, and this undoes it.": lambda q, s, z: (q - z) / s,
        },
        axis={"scale and zero_point broadcast along the last axis; reshape them so that they lie along `axis`.": None},
    ),
)
def dequantise(learner, rng):
    import torch

    run = _operator("DequantizeLinear", [("q", "UINT8"), ("s", "FLOAT"), ("z", "UINT8")], [("x", "FLOAT")])
    source = "ONNX Runtime, DequantizeLinear"
    for why, q, scale, zero in (
        ("the example above", np.array([0, 1, 2, 3]), 1.0, 1),
        ("q (4, 6)", rng.integers(0, 256, (4, 6)), 0.25, 130),
        ("three axes", rng.integers(0, 256, (3, 2, 5)), 3.0, 7),
        ("zero point 0", rng.integers(0, 256, (7,)), 0.125, 0),
    ):
        q, s, z = q.astype(np.uint8), np.float32(scale), np.uint8(zero)
        given = learner(torch.from_numpy(q), torch.tensor(s), torch.tensor(int(z), dtype=torch.int32))
        tensor(given, "the real numbers")
        expect.close(given, run(q, s, z)[0], why=why, source=source)
        expect.dtype(given, torch.float32, f"{why}: float32, as the scale is")
    for axis, shape in ((0, (5, 5)), (0, (5, 3)), (1, (3, 5)), (1, (2, 5, 4)), (-1, (4, 5)), (-2, (5, 4))):
        q, s, z = rng.integers(0, 256, shape).astype(np.uint8), rng.uniform(0.1, 2, 5), rng.integers(0, 256, 5)
        along = _operator("DequantizeLinear", [("q", "UINT8"), ("s", "FLOAT"), ("z", "UINT8")], [("x", "FLOAT")],
                          axis=axis % len(shape))  # fmt: skip
        expected = along(q, s.astype(np.float32), z.astype(np.uint8))[0]
        given = learner(torch.from_numpy(q), _tensor(s), _tensor(z, "int32"), axis)
        expect.close(given, expected, why=f"q {shape}, axis = {axis}", source=source)


# ------------------------------------------------------------------------------------------------ calibrate


@parts
def _calibrated(
    batches,
    percentile=100.0,
    *,
    gather=lambda batches: np.concatenate([np.asarray(b, dtype=np.float64).ravel() for b in batches]),
    tail=lambda percentile: percentile,
    low=lambda x, p: np.percentile(x, 100 - p),
    high=lambda x, p: np.percentile(x, p),
    hold=lambda low, high: (min(low, 0.0), max(high, 0.0)),
):
    x, p = gather(list(batches)), tail(percentile)
    low, high = hold(low(x, p), high(x, p))
    return float(low), float(high)


def _mean_of_batches(batches, percentile=100.0):
    """Percentiles of batches cannot be averaged: put all entries together first, then take one percentile."""
    ends = [_calibrated.right([b], percentile) for b in batches]
    return float(np.mean([low for low, _ in ends])), float(np.mean([high for _, high in ends]))


_mean_of_batches.__name__ = "calibrate"


def _outermost_of_batches(batches, percentile=100.0):
    """It takes the percentile of each batch and then the outermost: put all entries together first."""
    ends = [_calibrated.right([b], percentile) for b in batches]
    return min(low for low, _ in ends), max(high for _, high in ends)


@exercise(
    hints=[
        "Put all entries of all batches into one long array: ravel each, then np.concatenate. batches may be a generator: go through it once.",
        "high = np.percentile(values, percentile), low = np.percentile(values, 100 - percentile). With 100 these are minimum and maximum.",
        "Zero has to lie in the range: return float(min(low, 0)), float(max(high, 0)).",
    ],
    mistakes=_calibrated.mistakes(
        _mean_of_batches,
        _outermost_of_batches,
        gather={
            "Only the last batch counts: collect the entries of all.": (
                lambda batches: np.asarray(batches[-1], dtype=float).ravel()
            ),
            "Only the first batch counts: collect the entries of all.": (
                lambda batches: np.asarray(batches[0], dtype=float).ravel()
            ),
            "The absolute values are taken: the range has a low end of its own.": (
                lambda batches: np.abs(np.concatenate([np.asarray(b, dtype=float).ravel() for b in batches]))
            ),
        },
        tail={
            "The percentage is halved between both ends: here `percentile` is cut at the top, and as much at the bottom.": (
                lambda p: 100 - (100 - p) / 2
            ),
            "np.quantile takes 0 to 1, np.percentile 0 to 100.": lambda p: p / 100,
        },
        low={
            "The low end is the minimum; cut it as the high end is: the percentile 100 - p.": lambda x, p: x.min(),
            "The low end is minus the high end: it has a percentile of its own, 100 - p.": (
                lambda x, p: -np.percentile(x, p)
            ),
        },
        high={"The high end is the maximum; cut it too: the percentile p.": lambda x, p: x.max()},
        hold={"Zero has to lie in the range: min(low, 0) and max(high, 0).": lambda low, high: (low, high)},
    ),
)
def calibrate(learner, rng):
    source = "np.percentile of all entries"

    def demand(batches, wanted, why, likely="", **given):
        low, high = expect.parts(learner(batches, **given), ("low", "high"), f"{why}: two results")
        values = np.concatenate([array(each).astype(float).ravel() for each in batches])
        wanted = np.percentile(values, [100 - wanted, wanted])
        wanted = [min(wanted[0], 0.0), max(wanted[1], 0.0)]
        for name, mine, theirs in zip(("low", "high"), (low, high), wanted, strict=True):
            expect.close(mine, theirs, why=f"{why}: {name}", source=source, rtol=1e-5, atol=1e-6, likely=likely)
            expect.kind(mine, (float, np.floating), f"{why}: {name} is a number")

    batches = [_tensor(rng.normal(0.3, 1, shape)) for shape in ((6, 5), (6, 5), (2, 5))]
    demand(batches, 100, "minimum and maximum, the default")
    uneven = [_tensor(rng.normal(center, 1, (n, 4))) for center, n in ((0, 12), (2, 9), (-3, 2))]
    for percentile in (90, 97.5, 99.9):
        demand(uneven, percentile, f"batches of unequal size, percentile {percentile:g}", percentile=percentile)
    outlier = [_tensor(rng.normal(size=(50, 4))), _tensor(np.r_[rng.normal(size=99), 500.0].reshape(25, 4))]
    demand(outlier, 99, "one entry is 500", percentile=99)
    demand([_tensor(rng.uniform(3, 9, (8, 2)))], 95, "positive entries only", percentile=95)
    demand([-_tensor(rng.uniform(3, 9, (8, 2)))], 95, "negative entries only", percentile=95)
    demand([_tensor(rng.normal(size=(2, 3, 4))), _tensor(rng.normal(size=(5,)))], 80, "any shapes", percentile=80)
    one = [_tensor([2.5])]
    demand(one, 99, "a single entry", percentile=99)
    given = learner((each for each in uneven), 90)
    values = np.concatenate([array(each).ravel() for each in uneven])
    likely = "A generator can be gone through once only: keep what you need, or make a list of it first."
    expected = [min(np.percentile(values, 10), 0), max(np.percentile(values, 90), 0)]
    expect.close(given, expected, why="batches that come from a generator", source=source, rtol=1e-5, atol=1e-6,
                 likely=likely)  # fmt: skip


# ------------------------------------------------------------------------------------------------ a loop for checks


class _Clock(asyncio.SelectorEventLoop):
    """A loop with a time of its own, which jumps to the next timer where nothing else is to do: waits are exact, and
    cost nothing, however busy the machine is. While a thread works it stands still."""

    def __init__(self):
        super().__init__()
        self._now, self._threads = time.monotonic(), 0
        self.set_exception_handler(lambda *_: None)

    def time(self):
        return self._now

    def run_in_executor(self, executor, func, *args):
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(lambda _: setattr(self, "_threads", self._threads - 1))
        return future

    def _run_once(self):
        self._now += 1e-7  # so that code which asks for the time over and over gets on
        timers = [timer.when() for timer in self._scheduled if not timer.cancelled()]
        if timers and not self._ready and not self._threads:
            self._now = max(self._now, min(timers))
        super()._run_once()


def _in_a_loop(scenario, loop, limit):
    """Run the coroutine function scenario(loop) in this loop, also where another one runs (a notebook's), and end all
    tasks that it leaves. Raises TimeoutError after `limit` seconds of the loop."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        return loop.run_until_complete(asyncio.wait_for(scenario(loop), limit))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        with contextlib.suppress(Exception, asyncio.CancelledError):
            loop.run_until_complete(asyncio.wait(left, timeout=1)) if left else None
        loop.close()
        asyncio._set_running_loop(outer)


@contextlib.contextmanager
def _time_of(given, loop):
    """Where the learner's code asks the module `time`, it is told the loop's time."""
    real, names = time, ("monotonic", "perf_counter", "time")  # real: the global of that name may be replaced, too
    shim = types.SimpleNamespace(**{**vars(time), **dict.fromkeys(names, loop.time)})
    changed = []
    for value in [value for owner in getattr(given, "__mro__", ()) for value in vars(owner).values()]:
        scope = getattr(inspect.unwrap(value) if callable(value) else None, "__globals__", {})
        if scope.get("time") is real:
            scope["time"] = shim
            changed.append(scope)
    try:
        yield
    finally:
        for scope in changed:
            scope["time"] = real


# ------------------------------------------------------------------------------------------------ MicroBatcher


class _Request:
    def __init__(self, item, answer, until):
        self.item, self.answer, self.until = item, answer, until


class _Batcher:
    """A micro-batcher with parts to replace."""

    def __init__(self, run, max_size=32, max_wait=0.002):
        self.run, self.max_size, self.max_wait = run, max_size, max_wait
        self.queue, self.pending, self.worker = asyncio.Queue(), set(), None
        self.closed = self.over = False

    async def submit(self, item):
        if self.closed:
            raise RuntimeError("the batcher is closed")
        loop = asyncio.get_running_loop()
        if self.worker is None or self.worker.done():
            self.worker = loop.create_task(self.work())
            self.worker.add_done_callback(self.ended)
        answer = loop.create_future()
        self.pending.add(answer)
        answer.add_done_callback(self.pending.discard)
        self.queue.put_nowait(_Request(item, answer, loop.time() + self.max_wait))
        return await answer

    async def close(self):
        if not self.closed:
            self.closed = True
            self.queue.put_nowait(None)
        if self.worker is not None:
            await self.worker

    async def work(self):
        while not self.over:
            await self.answer(await self.collect())

    def ended(self, worker):
        for answer in [each for each in self.pending if not each.done()]:
            answer.set_exception(RuntimeError("cancelled") if worker.cancelled() else worker.exception())

    async def collect(self):
        batch, until = [], None
        while not self.full(batch) and not self.over:
            try:
                request = await self.more(until)
            except TimeoutError:
                break
            if request is None:
                self.over = True
                batch = self.at_the_end(batch)
            elif self.wanted(request):
                batch.append(request)
                until = self.until(batch, request)
        return [each for each in batch if self.wanted(each)]

    def full(self, batch):
        return len(batch) >= self.max_size

    def wanted(self, request):
        return not request.answer.cancelled()

    def until(self, batch, request):
        return batch[0].until

    def at_the_end(self, batch):
        return batch

    async def more(self, until):
        if not self.queue.empty():
            return self.queue.get_nowait()
        async with asyncio.timeout_at(until):
            return await self.queue.get()

    async def answer(self, batch):
        if batch:
            try:
                results = await self.run([each.item for each in batch])
            except Exception as error:
                results = await self.failed(batch, error)
            self.deliver(batch, results)

    async def failed(self, batch, error):
        return [await self.alone(each) for each in batch]

    async def alone(self, request):
        try:
            return (await self.run([request.item]))[0]
        except Exception as error:
            return error

    def deliver(self, batch, results):
        for each, result in zip(batch, results, strict=False):
            if not each.answer.done():
                self.give(each.answer, result)

    def give(self, answer, result):
        answer.set_exception(result) if isinstance(result, Exception) else answer.set_result(result)


async def _impatient(self, until):
    if until is None:
        return await self.queue.get()
    return await asyncio.wait_for(self.queue.get(), until - asyncio.get_running_loop().time())


async def _patient(self, until):
    return await self.queue.get()


async def _hasty(self, until):
    if until is None or not self.queue.empty():
        return await self.queue.get()
    raise TimeoutError


async def _all_at_once(self):
    while not self.over:
        self.kept = [*getattr(self, "kept", []), asyncio.create_task(self.answer(await self.collect()))]
    await asyncio.wait(self.kept)


async def _all_blamed(self, batch, error):
    return [error for _ in batch]


async def _first_blamed(self, batch, error):
    return [error, *[await self.alone(each) for each in batch[1:]]]


def _into_cancelled(self, batch, results):
    for each, result in zip(batch, results, strict=False):
        self.give(each.answer, result)


def _times(clock):
    return [f"{1000 * at:.0f} ms: {', '.join(str(item[0]) for item in items)}" for at, items in clock]


@exercise(
    hints=[
        "_collect is a loop that ends when the batch is full, when `until` of its first request has passed and the queue is empty, or when None comes.",
        "Ask self.queue.empty() first: get_nowait() takes what is there. Else: async with asyncio.timeout_at(until): request = await self.queue.get(); except TimeoutError: break. timeout_at(None) waits without a limit.",
        "_answer: try results = await self.run(items); except Exception: for each request alone, in a try of its own, results.append(result or the error). Then for each answer that is not done(): set_exception for an exception, set_result for the rest.",
    ],
    mistakes=parts(_Batcher).mistakes(
        more={
            "`until` has passed after a long batch, and wait_for then takes nothing more, so that batches of one follow just when many wait: take what is there with get_nowait() first.": _impatient,
            "It waits until the batch is full, however long: after `until` of the first request it has to begin.": _patient,
            "It takes what is there and does not wait: a batch begins max_wait after its first request, unless it is full.": _hasty,
        },
        full={
            "A batch has one request too many: max_size is the most.": lambda self, batch: len(batch) > self.max_size,
            "A batch has one request too few: it is full with max_size.": (
                lambda self, batch: len(batch) >= max(self.max_size - 1, 1)
            ),
        },
        max_size={"max_size has no part in it: a batch may have max_size requests at most.": 32},
        max_wait={"max_wait is an argument; this waits 2 ms whatever it is.": 0.002},
        until={
            "Each new request begins the wait anew, and the first one may wait for ever: `until` is that of the first.": (
                lambda self, batch, request: request.until
            ),
        },
        at_the_end={
            "The requests that came before None are lost: return them, they still wait for an answer.": (
                lambda self, batch: []
            ),
        },
        wanted={
            "A request whose answer is cancelled is computed all the same: leave it out of the batch.": (
                lambda self, request: True
            ),
        },
        failed={
            "One bad request takes all others of its batch down with it: run each of them alone.": _all_blamed,
            "The first of the batch is blamed; run each alone to see who it is.": _first_blamed,
        },
        deliver={
            "set_result for a cancelled answer is an InvalidStateError, and ends the worker: ask answer.done() first.": (
                _into_cancelled
            ),
            "The answers go out in the reverse order: the n-th result belongs to the n-th request.": (
                lambda self, batch, results: _Batcher.deliver(self, batch, results[::-1])
            ),
        },
        give={
            "An exception is handed out as if it were a result: set_exception.": (
                lambda self, answer, result: answer.set_result(result)
            ),
        },
        work={
            "Several batches run at the same time; the next begins when the last is answered.": _all_at_once,
        },
    ),
    seconds=20,
)
def MicroBatcher(learner, rng):
    slow = 0.05  # seconds that a batch takes here

    def play(script, why, batches=None, answers=None, max_size=4, max_wait=0.01, takes=0.0, then=None, bad=()):
        """Submit items at their times; demand the batches (ms, items) that ran, and the answer to each item.

        script: [(ms, item or "cancel item" as ("cancel", item))]. then(batcher, tasks): what happens afterwards.
        """
        ran, overlap = [], []

        async def scenario(loop):
            begin, busy = loop.time(), [0]

            async def run(items):
                ran.append((loop.time() - begin, list(items)))
                busy[0] += 1
                overlap.append(busy[0])
                try:
                    if takes:
                        await asyncio.sleep(takes)
                    for item in items:
                        if item[0] in bad:
                            raise ValueError(f"item {item[0]}")
                    return [10 * item[0] for item in items]
                finally:
                    busy[0] -= 1

            async def asked(batcher, item):
                """Whether it raised, and the result or the exception."""
                try:
                    return False, await batcher.submit([item])
                except Exception as error:
                    return True, error

            batcher, tasks = learner(run, max_size=max_size, max_wait=max_wait), {}
            for ms, item in script:
                await asyncio.sleep(max(0.0, begin + ms / 1000 - loop.time()))
                if isinstance(item, tuple):
                    tasks[item[1]].cancel()
                else:
                    tasks[item] = asyncio.create_task(asked(batcher, item))
                    await asyncio.sleep(0)
            if then is not None:
                await then(batcher, tasks)
            waited = await asyncio.wait_for(asyncio.gather(*tasks.values(), return_exceptions=True), 2)
            return {item: each for item, each in zip(tasks, waited, strict=True) if isinstance(each, tuple)}

        loop = _Clock()
        try:
            with _time_of(learner._given, loop):
                found = _in_a_loop(scenario, loop, 5)
        except TimeoutError:
            shown = _times(ran) or ["no batch"]
            raise Complaint(f"{why}: every request gets an answer", [f"yours    {'; '.join(shown)}, and then a wait without end"],
                            "", ["stuck", *map(float, (at for at, _ in ran))]) from None  # fmt: skip
        stubs = [error for _, error in found.values() if isinstance(error, NotImplementedError)]
        if stubs:
            raise stubs[0]
        if max(overlap, default=0) > 1:
            expect.equal(max(overlap), 1, why=f"{why}: one batch at a time", source="the docstring")
        times = [round(1000 * at) for at, _ in ran]
        if batches is not None:
            items = [[item[0] for item in each] for _, each in ran]
            if items != [each for _, each in batches]:
                wanted = "; ".join(_times([(ms / 1000, [[i] for i in each]) for ms, each in batches]))
                shown = [
                    f"yours    {'; '.join(_times(ran)) or 'none'}",
                    f"expected {wanted or 'none'}   (counted by hand)",
                ]
                raise Complaint(f"{why}: the batches", shown, "", [*times, *(i for each in items for i in [*each, -1])])
            expect.equal(times, [ms for ms, _ in batches], why=f"{why}: when the batches begin, in ms",
                         source="counted by hand")  # fmt: skip
        told = {item: f"{type(value).__name__}: {value}" if raised else f"result {value!r}"
                for item, (raised, value) in found.items()}  # fmt: skip
        for item, wanted in (answers or {}).items():
            wanted = wanted if isinstance(wanted, str) else f"result {wanted}"
            if told.get(item) != wanted:
                given = told.get(item, "none: its submit is cancelled")
                details = [f"yours    {given}", f"expected {wanted}"]
                raise Complaint(f"{why}: what item {item} gets", details, "", list(told.values()))
        return found

    once = [(0, 1), (4, 2), (20, 3)]
    play(once, "1 at 0 ms, 2 at 4, 3 at 20; max_wait 10 ms", [(10, [1, 2]), (30, [3])], {1: 10, 2: 20, 3: 30})
    seven = [(0, n) for n in range(1, 8)]
    tens = {n: 10 * n for n in range(1, 8)}
    play(seven, "seven at once, max_size 3", [(0, [1, 2, 3]), (0, [4, 5, 6]), (10, [7])], tens, max_size=3)
    play([(0, 1), (8, 2), (16, 3), (24, 4)], "one each 8 ms", [(10, [1, 2]), (26, [3, 4])], max_size=9)
    during = [(0, 1), (15, 2), (20, 3), (25, 4)]
    why = "2, 3 and 4 come while the batch of 1 runs for 50 ms"
    play(during, why, [(10, [1]), (60, [2, 3, 4])], {2: 20, 4: 40}, takes=slow)
    why = "six come while a batch runs, max_size 4"
    play(
        [(0, 1)] + [(12, n) for n in range(2, 8)], why, [(10, [1]), (60, [2, 3, 4, 5]), (110, [6, 7])], tens, takes=slow
    )
    why = "2 comes 4 ms before a batch ends: it may wait 6 ms more"
    play([(0, 1), (56, 2), (62, 3)], why, [(10, [1]), (66, [2, 3])], takes=slow)
    play([(0, 1), (300, 2)], "a quiet time between two", [(10, [1]), (310, [2])], {1: 10, 2: 20})
    play([(0, 1), (0, 2), (0, 3)], "max_size 1", [(0, [1]), (0, [2]), (0, [3])], max_size=1)
    play([(0, 1), (0, 2)], "max_wait 80 ms", [(80, [1, 2])], max_wait=0.08)

    why = "item 3 of a batch of four is bad"
    blamed = {1: 10, 2: 20, 3: "ValueError: item 3", 4: 40}
    play([(0, n) for n in (1, 2, 3, 4)], why, None, blamed, bad=(3,))
    blamed = {1: "ValueError: item 1", 2: 20, 3: "ValueError: item 3"}
    play([(0, n) for n in (1, 2, 3)], "items 1 and 3 are bad", None, blamed, bad=(1, 3))
    play([(0, 7), (40, 1)], "after a bad batch it goes on", None, {7: "ValueError: item 7", 1: 10}, bad=(7,))

    why = "2 is cancelled while it waits"
    play([(0, 1), (0, 2), (0, 3), (5, ("cancel", 2))], why, [(10, [1, 3])], {1: 10, 3: 30})
    why = "all are cancelled while they wait, then 3 comes"
    play([(0, 1), (0, 2), (5, ("cancel", 1)), (5, ("cancel", 2)), (30, 3)], why, [(40, [3])], {3: 30})
    why = "2 is cancelled while its batch runs, then 4 comes"
    play([(0, 1), (0, 2), (30, ("cancel", 2)), (35, 4)], why, [(10, [1, 2]), (60, [4])], {1: 10, 4: 40}, takes=slow)
    why = "the bad item 3 is cancelled while its batch runs, and 5 waits"
    play([(0, 1), (0, 3), (30, ("cancel", 3)), (100, 5)], why, None, {1: 10, 5: 50}, takes=slow, bad=(3,))

    left = {}

    async def close(batcher, tasks):
        await asyncio.wait_for(batcher.close(), 1)
        left["open"] = [item for item, task in tasks.items() if not task.done()]
        await asyncio.wait_for(batcher.close(), 1)
        try:
            left["late"] = await asyncio.wait_for(batcher.submit([9]), 1)
        except Exception as error:
            left["late"] = type(error).__name__

    for script, why in (
        ([(0, 1)], "close with one that waits"),
        ([(0, n) for n in range(1, 6)], "close with five that wait, max_size 2"),
        ([(0, 1), (12, 2), (13, 3)], "close while a batch runs and two wait"),
    ):
        play(script, why, None, {n: 10 * n for _, n in script}, max_size=2, takes=slow, then=close)
        likely = "close returns when the last batch is answered."
        expect.equal(
            left["late"], "RuntimeError", why=f"{why}: submit after close raises RuntimeError", source="the docstring"
        )
        expect.true(len(left["open"]) == 0, f"{why}: all are answered when close returns",
                    f"open     {left['open']}", likely=likely)  # fmt: skip
    play([], "close with nothing that waits", [], then=close)

    async def two(loop):
        one, other = learner(double, max_size=2, max_wait=1.0), learner(halve, max_size=2, max_wait=1.0)
        asked = [one.submit([1]), other.submit([2]), one.submit([3]), other.submit([4])]
        return await asyncio.wait_for(asyncio.gather(*asked), 2)

    async def double(items):
        return [2 * item[0] for item in items]

    async def halve(items):
        return [item[0] / 2 for item in items]

    made_before = learner(double)  # no loop runs here

    async def later(loop):
        return await asyncio.wait_for(made_before.submit([21]), 2)

    why = "two batchers have nothing in common"
    expect.equal(_in_a_loop(two, _Clock(), 5), [2, 1, 6, 2], why=why, source="1 + 1, 2 / 2, 3 + 3, 4 / 2")
    why = "one that is made before a loop runs, with the defaults"
    expect.equal(_in_a_loop(later, _Clock(), 5), 42, why=why, source="2 · 21")


# ------------------------------------------------------------------------------------------------ predict


class _Recording:
    """Stands in for the batcher: notes the images, and gives fixed probabilities."""

    def __init__(self, p):
        self.p, self.images = p, []

    async def submit(self, image):
        self.images.append(image)
        return self.p


def _spoilt(value, image):
    rows = image.tolist()
    rows[3][5] = value
    return json.dumps({"image": rows}).encode()


@exercise(
    hints=[
        "Read in a loop: async for chunk in request.stream(): body += chunk, and raise HTTPException(413, ...) as soon as it is too long. await request.body() would read all of it first.",
        'json.loads(body)["image"] and np.asarray raise ValueError, KeyError, TypeError or RecursionError: all of them are a 422. `raise ... from None`.',
        'Then shape, image.dtype.kind in "iuf" (text and None have other kinds), and ((image >= 0) & (image <= 255) & (image % 1 == 0)).all(), which is False for NaN. Only then .astype(np.uint8).',
    ],
    seconds=20,
)
def predict(learner, rng):
    import httpx
    from fastapi import FastAPI, Request

    p = rng.permutation(np.array([0.05, 0.15, 0.7, 0.1])).astype(np.float32)
    classes, version, limit = ["ant", "bee", "cat", "dog"], f"v{rng.integers(1000)}", 6000
    batcher = _Recording(p)
    app = FastAPI()
    app.state.service = types.SimpleNamespace(batcher=batcher, classes=classes, version=version, max_bytes=limit)

    @app.post("/predict")
    async def route(request: Request):
        return await learner(request)

    async def ask(body):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.post("/predict", content=body)

    def answer(body):
        return _in_a_loop(lambda loop: ask(body), asyncio.new_event_loop(), 10)

    def refused(body, status, why, likely=""):
        batcher.images.clear()
        try:
            given = answer(body)
        except NotImplementedError:
            raise
        except Exception as error:
            details = [f"yours    {type(error).__name__}: {str(error)[:80]}, a 500", f"expected {status}"]
            raise Complaint(f"{why}: {status}", details, likely or "Catch it, and raise HTTPException(422, ...) instead.",
                            f"{type(error).__name__}") from None  # fmt: skip
        expect.equal(given.status_code, status, why=f"{why}: {status}", source="the docstring", likely=likely)
        reason = given.json().get("detail")
        expect.true(isinstance(reason, str) and reason.strip(), f"{why}: with a reason", f"yours    {reason!r}",
                    likely="HTTPException(422, \"what is wrong, in words\")")  # fmt: skip
        expect.equal(len(batcher.images), 0, why=f"{why}: the model is not asked", source="the docstring")

    image = rng.integers(0, 256, (28, 28))
    image[0, :3] = 0, 255, 200
    body = json.dumps({"image": image.tolist()}).encode()
    why = "a good image"
    try:
        given = answer(body)
    except Exception as error:
        if isinstance(error, NotImplementedError) or learners_place(error):
            raise
        likely = (
            "JSON knows no NumPy numbers and no coroutines: float(...) of what comes out, and await what submit gives."
        )
        details = [f"yours    {type(error).__name__}: {str(error)[:80]}"]
        raise Complaint(f"{why}: the answer becomes JSON", details, likely, type(error).__name__) from None
    expect.equal(given.status_code, 200, why=f"{why}: 200", source="the docstring")
    best = int(p.argmax())
    answered = given.json()
    expect.true(isinstance(answered, dict) and answered.keys() == {"label", "probability", "model"},
                f"{why}: label, probability and model, no more and no less",
                f"yours    {answered if isinstance(answered, str) else ', '.join(map(str, answered))}")  # fmt: skip
    expect.equal(
        answered["label"], classes[best], why=f"{why}: the label is the likeliest class", source="classes[p.argmax()]"
    )
    expect.close(answered["probability"], p[best], why=f"{why}: its probability", source="p.max()")
    expect.equal(answered["model"], version, why=f"{why}: the model's version", source="service.version")
    expect.equal(len(batcher.images), 1, why=f"{why}: the batcher is asked once", source="the docstring")
    expect.equal(batcher.images[0], image, why=f"{why}: the image that the batcher gets", source="the body")
    expect.dtype(batcher.images[0], np.uint8, f"{why}: the batcher gets bytes, uint8")

    refused(b"no JSON", 422, "text that is no JSON")
    refused(b"", 422, "an empty body")
    refused(b'{"image": [[1, 2', 422, "JSON that is cut off")
    refused(b"\xff\xfe\x00", 422, "bytes that are no text")
    likely = "KeyError and TypeError are slips of the sender too."
    refused(b'{"picture": []}', 422, 'no "image"', likely)
    refused(b"[1, 2]", 422, "a list instead of an object", likely)
    refused(b"3", 422, "a number instead of an object", likely)
    refused(b'{"image": null}', 422, "null for the image")
    refused(json.dumps({"image": image[:27].tolist()}).encode(), 422, "an image of (27, 28)")
    likely = "Do not reshape: as many numbers in another arrangement are another image."
    refused(json.dumps({"image": image.ravel().tolist()}).encode(), 422, "an image of (784,)", likely)
    refused(json.dumps({"image": [image.tolist()]}).encode(), 422, "an image of (1, 28, 28)", likely)
    ragged = image.tolist()
    ragged[5].pop()
    refused(
        json.dumps({"image": ragged}).encode(), 422, "rows of unequal length", "np.asarray raises ValueError for them."
    )
    whole = json.dumps({"image": [[str(v) for v in row] for row in image % 10]}).encode()
    refused(
        whole,
        422,
        "an image of text",
        "np.asarray(..., dtype=float) makes numbers of text: ask for its dtype without one.",
    )
    for value, why in (
        (256, "an entry of 256"),
        (300, "an entry of 300"),
        (-1, "an entry of -1"),
        (12.5, "an entry of 12.5"),
        (math.nan, "an entry that is NaN, which Python's json lets pass"),
        (math.inf, "an entry that is Infinity"),
        ("7", 'an entry that is the text "7"'),
        (None, "an entry that is null"),
        (10**30, "an entry of 10³⁰"),
    ):
        likely = "Look at the numbers before they become bytes: astype(np.uint8) wraps and cuts off without a word."
        refused(_spoilt(value, image), 422, why, likely)
    refused(
        b'{"image": ' + b"[" * 5900,
        422,
        "brackets 5,900 deep",
        "json.loads raises RecursionError, which is no ValueError.",
    )

    fits, longer = (body + b" " * (n - len(body)) for n in (limit, limit + 1))
    given = answer(fits)
    expect.equal(
        given.status_code, 200, why="a body of exactly max_bytes: 200", source="more than max_bytes is too long"
    )
    refused(longer, 413, "a body of one byte more than max_bytes")
    read = []

    async def endless():
        for n in range(100):
            read.append(n)
            yield b" " * 1000

    refused(endless(), 413, "100,000 bytes in pieces, without Content-Length")
    likely = "Count while you read, and raise at once: await request.body() keeps all of it in memory first."
    expect.true(len(read) < 12, "a body that is too long is not read to its end",
                f"read     {1000 * len(read):,} bytes of 100,000; max_bytes is {limit:,}", likely=likely)  # fmt: skip
