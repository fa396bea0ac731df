"""Answers to pytorch-model-export-deployment: wrong ones named for the misconception, and right ones."""

import asyncio
import contextlib
import json
import math
import time

import numpy as np
import torch
from fastapi import HTTPException
from torch import nn

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ same_predictions


def _both(reference, candidate, images):
    return np.asarray(reference(images), dtype=float), np.asarray(candidate(images), dtype=float)


@wrong("same_predictions", says="order of the classes only")
def only_the_labels(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    agreement = float((a.argmax(1) == b.argmax(1)).mean())
    return agreement == 1.0, float(np.abs(a - b).max()), agreement


@wrong("same_predictions", says="mean difference")
def mean_error(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    off = np.abs(a - b)
    same = bool(off.mean() <= atol + rtol * np.abs(a).mean())
    return same, float(off.max()), float((a.argmax(1) == b.argmax(1)).mean())


@wrong("same_predictions", says="reference comes second")
def allclose_turned_round(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    return np.allclose(a, b, rtol, atol), float(np.abs(a - b).max()), float((a.argmax(1) == b.argmax(1)).mean())


@wrong("same_predictions", says="absolute value")
def signed_difference(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    same = bool((b - a <= atol + rtol * np.abs(a)).all())
    return same, float(np.abs(b - a).max()), float((a.argmax(1) == b.argmax(1)).mean())


@wrong("same_predictions", says="NaN")
def nan_passes(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    same = True
    for x, y in zip(a.ravel(), b.ravel(), strict=True):
        if abs(x - y) > atol + rtol * abs(x):
            same = False
    return same, float(np.abs(a - b).max()), float((a.argmax(1) == b.argmax(1)).mean())


@wrong("same_predictions", says="a.shape == b.shape first")
def shapes_not_asked(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if len(a) != len(b):
        return False, math.inf, 0.0
    return np.allclose(b, a, rtol, atol), float(np.abs(a - b).max()), float((a.argmax(1) == b.argmax(1)).mean())


@wrong("same_predictions", says="rtol has no part")
def atol_alone(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    off = np.abs(a - b).max()
    return bool(off <= atol), float(off), float((a.argmax(1) == b.argmax(1)).mean())


@wrong("same_predictions", says="not a count")
def counts_images(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    return np.allclose(b, a, rtol, atol), float(np.abs(a - b).max()), float(sum(a.argmax(1) == b.argmax(1)))


@wrong("same_predictions", says="not the mean")
def mean_for_the_largest(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    return np.allclose(b, a, rtol, atol), float(np.abs(a - b).mean()), float((a.argmax(1) == b.argmax(1)).mean())


@wrong("same_predictions", says="without an axis")
def argmax_of_the_batch(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    agreement = float(np.mean(a.argmax(axis=0) == b.argmax(axis=0)))
    return np.allclose(b, a, rtol, atol), float(np.abs(a - b).max()), agreement


@wrong("same_predictions", says=None)
def asks_one_image_only(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images[:1])
    if a.shape != b.shape:
        return False, math.inf, 0.0
    return np.allclose(b[:1], a[:1], rtol, atol), float(np.abs(a - b).max()), float((a.argmax(1) == b.argmax(1)).mean())


@right("same_predictions")
def with_allclose(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    same = np.allclose(b, a, rtol=rtol, atol=atol)
    return same, float(np.max(np.abs(b - a))), float(np.mean(np.argmax(a, 1) == np.argmax(b, 1)))


@right("same_predictions")
def in_torch(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = (torch.as_tensor(np.asarray(f(images))).double() for f in (reference, candidate))
    if a.shape != b.shape:
        return False, float("inf"), 0.0
    same = torch.allclose(b, a, rtol=rtol, atol=atol)
    return same, (a - b).abs().max().item(), (a.argmax(1) == b.argmax(1)).double().mean().item()


@right("same_predictions")
def row_by_row(reference, candidate, images, rtol=1e-3, atol=1e-5):
    a, b = _both(reference, candidate, images)
    if a.shape != b.shape:
        return False, math.inf, 0.0
    same, largest, equal = True, 0.0, 0
    for x, y in zip(a, b, strict=True):
        same = same and all(abs(p - q) <= atol + rtol * abs(p) for p, q in zip(x, y, strict=True))
        largest = max(largest, float(np.abs(x - y).max()))
        equal += int(x.argmax() == y.argmax())
    return bool(same), largest, equal / len(a)


# ------------------------------------------------------------------------------------------------ export_onnx


class _Complete(nn.Module):
    def __init__(self, network, before, after):
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, image):
        return self.after(self.network(self.before(image)))


def _write(wrapper, images, path, **changes):
    options = {
        "input_names": ["image"],
        "output_names": ["probabilities"],
        "dynamo": True,
        "dynamic_shapes": ({0: torch.export.Dim("B")},),
        "external_data": False,
        "verbose": False,
    } | changes
    torch.onnx.export(wrapper, (images[:2],), path, **options)


def _softmax(z):
    return z.softmax(1)


@wrong("export_onnx", says="preprocessing is missing")
def no_preprocessing(network, mean, spread, images, path):
    was = network.training
    _write(_Complete(network, lambda x: x.float(), _softmax).eval(), images, path)
    network.train(was)


@wrong("export_onnx", says="output holds logits")
def no_softmax(network, mean, spread, images, path):
    was = network.training
    _write(_Complete(network, lambda x: (x.float() - mean) / spread, lambda z: z).eval(), images, path)
    network.train(was)


@wrong("export_onnx", says="batch has the example's size")
def fixed_batch(network, mean, spread, images, path):
    was = network.training
    wrapper = _Complete(network, lambda x: (x.float() - mean) / spread, _softmax).eval()
    _write(wrapper, images, path, dynamic_shapes=None)
    network.train(was)


@wrong("export_onnx", says="stays uint8")
def floats_come_in(network, mean, spread, images, path):
    was = network.training
    _write(_Complete(network, lambda x: (x - mean) / spread, _softmax).eval(), images.float(), path)
    network.train(was)


@wrong("export_onnx", says="training mode afterwards")
def leaves_evaluation_mode(network, mean, spread, images, path):
    _write(_Complete(network, lambda x: (x.float() - mean) / spread, _softmax).eval(), images, path)


@wrong("export_onnx", says="input_names and output_names")
def names_forgotten(network, mean, spread, images, path):
    was = network.training
    wrapper = _Complete(network, lambda x: (x.float() - mean) / spread, _softmax).eval()
    _write(wrapper, images, path, input_names=None, output_names=None)
    network.train(was)


@wrong("export_onnx", says="divided by 255 too")
def divides_by_255_first(network, mean, spread, images, path):
    was = network.training
    _write(_Complete(network, lambda x: (x.float() / 255 - mean) / spread, _softmax).eval(), images, path)
    network.train(was)


@wrong("export_onnx", says="file of their own")
def weights_beside(network, mean, spread, images, path):
    was = network.training
    wrapper = _Complete(network, lambda x: (x.float() - mean) / spread, _softmax).eval()
    _write(wrapper, images, path, external_data=True)
    network.train(was)


@right("export_onnx")
def from_an_exported_program(network, mean, spread, images, path):
    was = network.training
    wrapper = _Complete(network, lambda x: (x.to(torch.float32) - mean) / spread, lambda z: torch.softmax(z, -1)).eval()
    batch = torch.export.Dim("B", min=1)
    program = torch.export.export(wrapper, (images[:2],), dynamic_shapes=({0: batch},))
    made = torch.onnx.export(program, input_names=["image"], output_names=["probabilities"], dynamo=True, verbose=False)
    made.save(str(path))
    network.train(was)


@right("export_onnx")
def from_a_copy_with_modules(network, mean, spread, images, path):
    import copy

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor(mean))
            self.register_buffer("spread", torch.tensor(spread))

        def forward(self, x):
            return (x.float() - self.mean) / self.spread

    whole = nn.Sequential(Scale(), copy.deepcopy(network), nn.Softmax(dim=1)).eval()
    _write(whole, images, str(path), dynamic_shapes={"input": {0: "B"}})


# ------------------------------------------------------------------------------------------------ quantise


def _kept(x, axis):
    return [a for a in range(x.ndim) if axis is None or a != axis % x.ndim]


def _ends(x, axis):
    others = _kept(x, axis)
    return x.amin(others, keepdim=True), x.amax(others, keepdim=True)


def _result(q, scale, zero, axis):
    shape = () if axis is None else (-1,)
    return q.to(torch.uint8), scale.reshape(shape), zero.reshape(shape).to(torch.int32)


@wrong("quantise", says="hold zero")
def range_without_zero(x, bits=8, axis=None):
    low, high = _ends(x, axis)
    scale = (high - low) / (2**bits - 1)
    scale = scale.where(scale > 0, torch.ones_like(scale))
    zero = (-low / scale).round()
    return _result(((x / scale).round() + zero).clamp(0, 2**bits - 1), scale, zero, axis)


@wrong("quantise", says="2**bits levels have")
def one_step_too_many(x, bits=8, axis=None):
    low, high = _ends(x, axis)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / 2**bits
    scale = scale.where(scale > 0, torch.ones_like(scale))
    zero = (-low / scale).round()
    return _result(((x / scale).round() + zero).clamp(0, 2**bits - 1), scale, zero, axis)


@wrong("quantise", says="0/0 is NaN")
def zeros_divide(x, bits=8, axis=None):
    low, high = _ends(x, axis)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    zero = (-low / scale).round()
    return _result(((x / scale).round() + zero).clamp(0, 2**bits - 1), scale, zero, axis)


@wrong("quantise", says="cut off, not rounded")
def truncates(x, bits=8, axis=None):
    low, high = _ends(x, axis)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = scale.where(scale > 0, torch.ones_like(scale))
    zero = (-low / scale).round()
    return _result(((x / scale).int() + zero).clamp(0, 2**bits - 1), scale, zero, axis)


@wrong("quantise", says="axis has no part")
def one_range_always(x, bits=8, axis=None):
    low, high = _ends(x, None)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = scale.where(scale > 0, torch.ones_like(scale))
    zero = (-low / scale).round()
    return _result(((x / scale).round() + zero).clamp(0, 2**bits - 1), scale, zero, None)


@wrong("quantise", says="takes 8 whatever")
def eight_bits_always(x, bits=8, axis=None):
    low, high = _ends(x, axis)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / 255
    scale = scale.where(scale > 0, torch.ones_like(scale))
    zero = (-low / scale).round()
    return _result(((x / scale).round() + zero).clamp(0, 255), scale, zero, axis)


@wrong("quantise", says=None)
def no_clipping_and_signed(x, bits=8, axis=None):
    low, high = _ends(x, axis)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = scale.where(scale > 0, torch.ones_like(scale))
    zero = (-low / scale).round()
    q, scale, zero = _result(((x / scale).round() + zero).clamp(0, 2**bits - 1), scale, zero, axis)
    return q.to(torch.int8), scale, zero


@wrong("quantise", says="float")
def zero_point_stays_float(x, bits=8, axis=None):
    low, high = _ends(x, axis)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = scale.where(scale > 0, torch.ones_like(scale))
    zero = (-low / scale).round()
    q, scale, _ = _result(((x / scale).round() + zero).clamp(0, 2**bits - 1), scale, zero, axis)
    return q, scale, zero.reshape(scale.shape)


@wrong("quantise", says="symmetric")
def symmetric_range(x, bits=8, axis=None):
    low, high = _ends(x, axis)
    high = torch.maximum(-low, high).clamp(min=0)
    low = -high
    scale = (high - low) / (2**bits - 1)
    scale = scale.where(scale > 0, torch.ones_like(scale))
    zero = (-low / scale).round()
    return _result(((x / scale).round() + zero).clamp(0, 2**bits - 1), scale, zero, axis)


@wrong("quantise", says="negative axis")
def negative_axis_not_understood(x, bits=8, axis=None):
    others = [a for a in range(x.ndim) if a != axis]
    low, high = x.amin(others, keepdim=True).clamp(max=0), x.amax(others, keepdim=True).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = scale.where(scale > 0, torch.ones_like(scale))
    zero = (-low / scale).round()
    return _result(((x / scale).round() + zero).clamp(0, 2**bits - 1), scale, zero, axis)


@wrong("quantise", says="those alone become 1")
def any_zero_scale_sets_all(x, bits=8, axis=None):
    low, high = _ends(x, axis)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    if (scale == 0).any():
        scale = torch.ones_like(scale)
    zero = (-low / scale).round()
    return _result(((x / scale).round() + zero).clamp(0, 2**bits - 1), scale, zero, axis)


@right("quantise")
def by_hand_along_rows(x, bits=8, axis=None):
    if axis is None:
        top = 2**bits - 1
        low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
        scale = (high - low) / top or 1.0
        scale = torch.tensor(scale, dtype=x.dtype)
        zero = torch.round(-torch.tensor(low, dtype=x.dtype) / scale)
        q = torch.clamp(torch.round(x / scale) + zero, 0, top)
        return q.to(torch.uint8), scale, zero.to(torch.int32)
    made = [by_hand_along_rows(row, bits) for row in x.movedim(axis, 0)]
    q, scale, zero = (torch.stack(each) for each in zip(*made, strict=True))
    return q.movedim(0, axis), scale, zero


@right("quantise")
def with_torchs_own(x, bits=8, axis=None):
    top = 2**bits - 1
    flat = x.reshape(1, -1) if axis is None else x.movedim(axis, 0).flatten(1)
    low = torch.minimum(flat.amin(1), torch.zeros((), dtype=x.dtype))
    high = torch.maximum(flat.amax(1), torch.zeros((), dtype=x.dtype))
    scale = (high - low) / top
    scale[scale == 0] = 1
    zero = torch.round(-low / scale).int()
    shape = [1] * x.ndim
    if axis is not None:
        shape[axis] = -1
    s, z = scale.reshape(shape), zero.reshape(shape)
    q = torch.clamp(torch.round(x / s) + z, 0, top).byte()
    return (q, scale[0], zero[0]) if axis is None else (q, scale, zero)


# ------------------------------------------------------------------------------------------------ dequantise


def _along(v, q, axis):
    if axis is None:
        return v
    shape = [1] * q.ndim
    shape[axis] = -1
    return v.reshape(shape)


@wrong("dequantise", says="in bytes")
def subtracts_in_bytes(q, scale, zero_point, axis=None):
    zero = zero_point.to(q.dtype)
    return (q - _along(zero, q, axis)) * _along(scale, q, axis)


@wrong("dequantise", says=None)
def promotes_only_with_an_axis(q, scale, zero_point, axis=None):
    return (q - _along(zero_point, q, axis)) * _along(scale, q, axis)


@wrong("dequantise", says="zero point is missing")
def scale_only(q, scale, zero_point, axis=None):
    return q.float() * _along(scale, q, axis)


@wrong("dequantise", says="after the scaling")
def scales_first(q, scale, zero_point, axis=None):
    return q.float() * _along(scale, q, axis) - _along(zero_point, q, axis)


@wrong("dequantise", says="broadcast along the last axis")
def broadcasts_at_the_end(q, scale, zero_point, axis=None):
    if axis is not None and q.shape[-1] != len(scale):
        scale, zero_point = (v.reshape(-1, *[1] * (q.ndim - axis % q.ndim - 1)) for v in (scale, zero_point))
    return (q.float() - zero_point) * scale


@wrong("dequantise", says="is added")
def adds(q, scale, zero_point, axis=None):
    return (q.float() + _along(zero_point, q, axis)) * _along(scale, q, axis)


@wrong("dequantise", says=None)
def double_precision(q, scale, zero_point, axis=None):
    return (q.double() - _along(zero_point, q, axis)) * _along(scale, q, axis).double()


@wrong("dequantise", says="It divides by the scale")
def divides(q, scale, zero_point, axis=None):
    return (q.float() - _along(zero_point, q, axis)) / _along(scale, q, axis)


@right("dequantise")
def with_integers(q, scale, zero_point, axis=None):
    return (q.int() - _along(zero_point, q, axis)) * _along(scale, q, axis)


@right("dequantise")
def by_moving_the_axis(q, scale, zero_point, axis=None):
    if axis is None:
        return scale * (q.to(torch.float32) - zero_point)
    moved = q.float().movedim(axis, -1)
    return ((moved - zero_point) * scale).movedim(-1, axis)


# ------------------------------------------------------------------------------------------------ calibrate


def _all(batches):
    return np.concatenate([np.asarray(each).ravel() for each in batches])


def _around_zero(low, high):
    return float(min(low, 0)), float(max(high, 0))


@wrong("calibrate", says="cannot be averaged")
def mean_of_percentiles(batches, percentile=100.0):
    ends = [np.percentile(np.asarray(b), [100 - percentile, percentile]) for b in batches]
    lows, highs = zip(*[_around_zero(*each) for each in ends], strict=True)
    return float(np.mean(lows)), float(np.mean(highs))


@wrong("calibrate", says="then the outermost")
def outermost_percentiles(batches, percentile=100.0):
    low = high = 0.0
    for batch in batches:
        a, b = np.percentile(np.asarray(batch), [100 - percentile, percentile])
        low, high = min(low, float(a)), max(high, float(b))
    return low, high


@wrong("calibrate", says="whatever it is")
def always_everything(batches, percentile=100.0):
    values = _all(batches)
    return _around_zero(values.min(), values.max())


@wrong("calibrate", says="low end is the minimum")
def one_side_only(batches, percentile=100.0):
    values = _all(batches)
    return _around_zero(values.min(), np.percentile(values, percentile))


@wrong("calibrate", says="halved between both ends")
def both_tails_together(batches, percentile=100.0):
    tail = (100 - percentile) / 2
    return _around_zero(*np.percentile(_all(batches), [tail, 100 - tail]))


@wrong("calibrate", says="min(low, 0)")
def zero_left_outside(batches, percentile=100.0):
    low, high = np.percentile(_all(batches), [100 - percentile, percentile])
    return float(low), float(high)


@wrong("calibrate", says="absolute values")
def of_magnitudes(batches, percentile=100.0):
    values = np.abs(_all(batches))
    return _around_zero(*np.percentile(values, [100 - percentile, percentile]))


@wrong("calibrate", says=None)
def goes_through_twice(batches, percentile=100.0):
    high = max(float(np.max(np.asarray(b))) for b in batches) if percentile == 100 else None
    values = _all(batches)
    low, top = np.percentile(values, [100 - percentile, percentile])
    count = sum(1 for _ in batches)
    return _around_zero(low, high if high is not None else top) if count else (0.0, 0.0)


@wrong("calibrate", says="quantile")
def quantile_scale(batches, percentile=100.0):
    values = _all(batches)
    return _around_zero(np.percentile(values, 100 - percentile / 100), np.percentile(values, percentile / 100))


@right("calibrate")
def with_torch_quantile(batches, percentile=100.0):
    values = torch.cat([each.flatten() for each in batches]).double()
    ends = torch.quantile(values, torch.tensor([1 - percentile / 100, percentile / 100], dtype=torch.float64))
    return min(ends[0].item(), 0.0), max(ends[1].item(), 0.0)


@right("calibrate")
def by_sorting(batches, percentile=100.0):
    values = sorted(float(v) for batch in batches for v in batch.flatten())

    def at(p):
        place = (len(values) - 1) * p / 100
        i = min(int(place), len(values) - 2) if len(values) > 1 else 0
        return values[i] + (place - i) * (values[min(i + 1, len(values) - 1)] - values[i])

    return min(at(100 - percentile), 0.0), max(at(percentile), 0.0)


# ------------------------------------------------------------------------------------------------ MicroBatcher


class _Waiting:
    def __init__(self, item, answer, until):
        self.item, self.answer, self.until = item, answer, until


class _Given:
    """What serve.py gives."""

    def __init__(self, run, max_size=32, max_wait=0.002):
        self.run, self.max_size, self.max_wait = run, max_size, max_wait
        self.queue, self.pending, self.worker = asyncio.Queue(), set(), None
        self.closed = self.over = False

    async def submit(self, item):
        if self.closed:
            raise RuntimeError("the batcher is closed")
        loop = asyncio.get_running_loop()
        if self.worker is None or self.worker.done():
            self.worker = loop.create_task(self._work())
            self.worker.add_done_callback(self._ended)
        answer = loop.create_future()
        self.pending.add(answer)
        answer.add_done_callback(self.pending.discard)
        self.queue.put_nowait(_Waiting(item, answer, loop.time() + self.max_wait))
        return await answer

    async def close(self):
        if not self.closed:
            self.closed = True
            self.queue.put_nowait(None)
        if self.worker is not None:
            await self.worker

    async def _work(self):
        while not self.over:
            await self._answer(await self._collect())

    def _ended(self, worker):
        for answer in [each for each in self.pending if not each.done()]:
            answer.set_exception(RuntimeError("the batcher has ended") if worker.cancelled() else worker.exception())


class _Usual(_Given):
    """Right; parts are replaced below."""

    async def _collect(self):
        batch = []
        while len(batch) < self.max_size:
            try:
                request = self.queue.get_nowait()
            except asyncio.QueueEmpty:
                until = batch[0].until if batch else None
                try:
                    async with asyncio.timeout_at(until):
                        request = await self.queue.get()
                except TimeoutError:
                    break
            if request is None:
                self.over = True
                break
            if not request.answer.cancelled():
                batch.append(request)
        return [each for each in batch if not each.answer.cancelled()]

    async def _answer(self, batch):
        if not batch:
            return
        try:
            results = await self.run([each.item for each in batch])
        except Exception:
            results = [await self._alone(each.item) for each in batch]
        for each, result in zip(batch, results, strict=True):
            if not each.answer.done():
                if isinstance(result, Exception):
                    each.answer.set_exception(result)
                else:
                    each.answer.set_result(result)

    async def _alone(self, item):
        try:
            return (await self.run([item]))[0]
        except Exception as error:
            return error


@wrong("MicroBatcher", says="One bad request takes all others")
class OneFailsAll(_Usual):
    async def _answer(self, batch):
        if not batch:
            return
        try:
            results = await self.run([each.item for each in batch])
        except Exception as error:
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        for each, result in zip(batch, results, strict=True):
            if not each.answer.done():
                each.answer.set_result(result)


@wrong("MicroBatcher", says="batches of one follow")
class WaitsForNothing(_Usual):
    async def _collect(self):
        request = await self.queue.get()
        batch = []
        while request is not None:
            if not request.answer.cancelled():
                batch.append(request)
            if len(batch) == self.max_size:
                break
            left = (batch[0] if batch else request).until - asyncio.get_running_loop().time()
            try:
                request = await asyncio.wait_for(self.queue.get(), left)
            except TimeoutError:
                break
        self.over = request is None
        return [each for each in batch if not each.answer.cancelled()]


@wrong("MicroBatcher", says="until the batch is full")
class UntilFull(_Usual):
    async def _collect(self):
        batch = []
        while len(batch) < self.max_size:
            request = await self.queue.get()
            if request is None:
                self.over = True
                break
            if not request.answer.cancelled():
                batch.append(request)
        return batch


@wrong("MicroBatcher", says="does not wait")
class TakesWhatIsThere(_Usual):
    async def _collect(self):
        batch = [await self.queue.get()]
        while len(batch) < self.max_size and not self.queue.empty():
            batch.append(self.queue.get_nowait())
        if None in batch:
            self.over = True
            batch = [each for each in batch if each is not None]
        return [each for each in batch if not each.answer.cancelled()]


@wrong("MicroBatcher", says="lost")
class LosesTheLast(_Usual):
    async def _collect(self):
        batch, until = [], None
        while len(batch) < self.max_size:
            try:
                async with asyncio.timeout_at(until):
                    request = await self.queue.get()
            except TimeoutError:
                break
            if request is None:
                self.over = True
                return []
            if not request.answer.cancelled():
                batch.append(request)
                until = batch[0].until
        return [each for each in batch if not each.answer.cancelled()]


@wrong("MicroBatcher", says="computed all the same")
class ComputesForNobody(_Usual):
    async def _collect(self):
        batch, until = [], None
        while len(batch) < self.max_size and not self.over:
            try:
                async with asyncio.timeout_at(until):
                    request = await self.queue.get()
            except TimeoutError:
                break
            if request is None:
                self.over = True
            else:
                batch.append(request)
                until = batch[0].until
        return batch


@wrong("MicroBatcher", says="InvalidStateError")
class AnswersTheGone(_Usual):
    async def _answer(self, batch):
        if not batch:
            return
        try:
            results = await self.run([each.item for each in batch])
        except Exception:
            results = [await self._alone(each.item) for each in batch]
        for each, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                each.answer.set_exception(result)
            else:
                each.answer.set_result(result)


@wrong("MicroBatcher", says="begins the wait anew")
class EachBeginsAnew(_Usual):
    async def _collect(self):
        batch = []
        while len(batch) < self.max_size and not self.over:
            try:
                if self.queue.empty() and batch:
                    request = await asyncio.wait_for(self.queue.get(), self.max_wait)
                else:
                    request = await self.queue.get()
            except TimeoutError:
                break
            if request is None:
                self.over = True
            elif not request.answer.cancelled():
                batch.append(request)
        return [each for each in batch if not each.answer.cancelled()]


@wrong("MicroBatcher", says=None)
class WaitsFromWhenItIsTaken(_Usual):
    async def _collect(self):
        loop, batch, until = asyncio.get_running_loop(), [], None
        while len(batch) < self.max_size and not self.over:
            try:
                async with asyncio.timeout_at(until):
                    request = await self.queue.get()
            except TimeoutError:
                break
            if request is None:
                self.over = True
            elif not request.answer.cancelled():
                batch.append(request)
                until = until or loop.time() + self.max_wait
        return [each for each in batch if not each.answer.cancelled()]


@wrong("MicroBatcher", says="one request too many")
class OneTooMany(_Usual):
    async def _collect(self):
        batch, until = [], None
        while len(batch) <= self.max_size and not self.over:
            try:
                async with asyncio.timeout_at(until):
                    request = await self.queue.get()
            except TimeoutError:
                break
            if request is None:
                self.over = True
            elif not request.answer.cancelled():
                batch.append(request)
                until = batch[0].until
        return [each for each in batch if not each.answer.cancelled()]


@wrong("MicroBatcher", says="set_exception")
class HandsErrorsOut(_Usual):
    async def _answer(self, batch):
        if not batch:
            return
        try:
            results = await self.run([each.item for each in batch])
        except Exception:
            results = [await self._alone(each.item) for each in batch]
        for each, result in zip(batch, results, strict=True):
            if not each.answer.done():
                each.answer.set_result(result)


@wrong("MicroBatcher", says=None)
class RunsEmptyBatches(_Usual):
    async def _answer(self, batch):
        results = await self.run([each.item for each in batch])
        for each, result in zip(batch, results, strict=True):
            if not each.answer.done():
                each.answer.set_result(result)


@wrong("MicroBatcher", says=None)
class StopsAtTheFirstError(_Usual):
    async def _answer(self, batch):
        if not batch:
            return
        try:
            results = await self.run([each.item for each in batch])
        except Exception:
            results = []
            for each in batch:
                try:
                    results += await self.run([each.item])
                except Exception as error:
                    each.answer.set_exception(error)
                    break
        for each, result in zip(batch, results, strict=False):
            if not each.answer.done():
                each.answer.set_result(result)


@right("MicroBatcher")
class WithWaitFor(_Given):
    async def _collect(self):
        first = await self.queue.get()
        batch = []
        while first is not None and first.answer.cancelled():
            first = await self.queue.get()
        if first is None:
            self.over = True
            return batch
        batch.append(first)
        loop = asyncio.get_running_loop()
        while len(batch) < self.max_size:
            if not self.queue.empty():
                request = self.queue.get_nowait()
            else:
                left = first.until - loop.time()
                if left <= 0:
                    break
                try:
                    request = await asyncio.wait_for(self.queue.get(), left)
                except TimeoutError:
                    break
            if request is None:
                self.over = True
                break
            batch.append(request)
        return list(filter(lambda each: not each.answer.done(), batch))

    async def _answer(self, batch):
        if len(batch) == 0:
            return
        try:
            for each, result in zip(batch, await self.run([each.item for each in batch]), strict=True):
                if not each.answer.cancelled():
                    each.answer.set_result(result)
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            for each in batch:
                await self._answer([each])


@right("MicroBatcher")
class WithSleepsAndMonotonicTime(_Usual):
    async def _collect(self):
        batch = []
        while True:
            while not self.queue.empty() and len(batch) < self.max_size and not self.over:
                request = self.queue.get_nowait()
                if request is None:
                    self.over = True
                elif not request.answer.cancelled():
                    batch.append(request)
            if self.over or len(batch) >= self.max_size:
                break
            if batch and time.monotonic() >= batch[0].until:
                break
            await asyncio.sleep(0.0001)
        return [each for each in batch if not each.answer.cancelled()]


@right("MicroBatcher")
class WithAnEvent:
    """No queue at all."""

    def __init__(self, run, max_size=32, max_wait=0.002):
        self.run, self.max_size, self.max_wait = run, max_size, max_wait
        self.waiting, self.news, self.worker, self.closed = [], asyncio.Event(), None, False

    async def submit(self, item):
        if self.closed:
            raise RuntimeError("closed")
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        self.waiting.append((item, answer, loop.time() + self.max_wait))
        self.news.set()
        if self.worker is None:
            self.worker = asyncio.ensure_future(self.work())
        return await answer

    async def close(self):
        self.closed = True
        self.news.set()
        if self.worker:
            await self.worker

    async def work(self):
        loop = asyncio.get_running_loop()
        while True:
            self.waiting = [each for each in self.waiting if not each[1].done()]
            if not self.waiting and self.closed:
                return
            due = self.waiting[0][2] - loop.time() if self.waiting else None
            if self.closed or len(self.waiting) >= self.max_size or (due is not None and due <= 0):
                batch, self.waiting = self.waiting[: self.max_size], self.waiting[self.max_size :]
                await self.answer(batch)
                continue
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), due)

    async def answer(self, batch):
        try:
            results = await self.run([item for item, _, _ in batch])
        except Exception:
            results = await asyncio.gather(*[self.single(item) for item, _, _ in batch[:1]])
            for item, _, _ in batch[1:]:
                results.append(await self.single(item))
        for (_, answer, _), result in zip(batch, results, strict=True):
            if answer.done():
                continue
            answer.set_exception(result) if isinstance(result, Exception) else answer.set_result(result)

    async def single(self, item):
        try:
            (result,) = await self.run([item])
            return result
        except Exception as error:
            return error


# ------------------------------------------------------------------------------------------------ predict


async def _body(request):
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > request.app.state.service.max_bytes:
            raise HTTPException(413, "too long")
    return body


def _parsed(body):
    try:
        return np.asarray(json.loads(body)["image"])
    except (ValueError, KeyError, TypeError, RecursionError, IndexError):
        raise HTTPException(422, "no JSON with an image") from None


async def _answered(request, image):
    service = request.app.state.service
    p = await service.batcher.submit(image.astype(np.uint8))
    best = int(np.argmax(p))
    return {"label": service.classes[best], "probability": float(p[best]), "model": service.version}


def _demand_bytes(image):
    if image.shape != (28, 28):
        raise HTTPException(422, f"shape {image.shape}")
    if image.dtype.kind not in "iuf" or not ((image >= 0) & (image <= 255) & (image == np.floor(image))).all():
        raise HTTPException(422, "no bytes")


@wrong("predict", says="wraps")
async def casts_first(request):
    image = _parsed(await _body(request))
    if image.shape != (28, 28) or image.dtype.kind not in "iuf":
        raise HTTPException(422, "wrong")
    return await _answered(request, image)


@wrong("predict", says="NaN")
async def nan_is_not_out_of_range(request):
    image = _parsed(await _body(request))
    if image.shape != (28, 28) or image.dtype.kind not in "iuf":
        raise HTTPException(422, "wrong")
    if (image < 0).any() or (image > 255).any() or (image % 1 > 0).any():
        raise HTTPException(422, "no bytes")
    return await _answered(request, image)


@wrong("predict", says="keeps all of it in memory")
async def reads_all_first(request):
    body = await request.body()
    if len(body) > request.app.state.service.max_bytes:
        raise HTTPException(413, "too long")
    image = _parsed(body)
    _demand_bytes(image)
    return await _answered(request, image)


@wrong("predict", says="one byte more")
async def limit_reached_is_not_passed(request):
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > request.app.state.service.max_bytes + 1:
            raise HTTPException(413, "too long")
    image = _parsed(body)
    _demand_bytes(image)
    return await _answered(request, image)


@wrong("predict", says="reshape")
async def reshapes(request):
    image = _parsed(await _body(request))
    try:
        image = image.reshape(28, 28)
    except ValueError:
        raise HTTPException(422, "shape") from None
    _demand_bytes(image)
    return await _answered(request, image)


@wrong("predict", says="slips of the sender too")
async def catches_json_errors_only(request):
    try:
        content = json.loads(await _body(request))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise HTTPException(422, "no JSON") from None
    try:
        image = np.asarray(content["image"])
    except ValueError:
        raise HTTPException(422, "ragged") from None
    _demand_bytes(image)
    return await _answered(request, image)


@wrong("predict", says="makes numbers of text")
async def floats_of_anything(request):
    try:
        image = np.asarray(json.loads(await _body(request))["image"], dtype=float)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HTTPException(422, "no JSON with an image") from None
    if image.shape != (28, 28) or not ((image >= 0) & (image <= 255) & (image % 1 == 0)).all():
        raise HTTPException(422, "no bytes")
    return await _answered(request, image)


@wrong("predict", says="RecursionError")
async def deep_brackets(request):
    try:
        image = np.asarray(json.loads(await _body(request))["image"])
    except (ValueError, KeyError, TypeError):
        raise HTTPException(422, "no JSON with an image") from None
    _demand_bytes(image)
    return await _answered(request, image)


@wrong("predict", says="uint8")
async def floats_to_the_model(request):
    service = request.app.state.service
    image = _parsed(await _body(request))
    _demand_bytes(image)
    p = await service.batcher.submit(image.astype(np.float32))
    best = int(np.argmax(p))
    return {"label": service.classes[best], "probability": float(p[best]), "model": service.version}


@wrong("predict", says="with a reason")
async def no_reason(request):
    image = _parsed(await _body(request))
    if image.shape != (28, 28):
        raise HTTPException(422, "")
    _demand_bytes(image)
    return await _answered(request, image)


@wrong("predict", says="422")
async def fractions_are_cut_off(request):
    image = _parsed(await _body(request))
    if image.shape != (28, 28) or image.dtype.kind not in "iuf":
        raise HTTPException(422, "wrong")
    if not ((image >= 0) & (image <= 255)).all():
        raise HTTPException(422, "out of range")
    return await _answered(request, image)


@wrong("predict", says="no more and no less")
async def all_probabilities(request):
    image = _parsed(await _body(request))
    _demand_bytes(image)
    p = await request.app.state.service.batcher.submit(image.astype(np.uint8))
    return {"probabilities": [float(v) for v in p], "model": request.app.state.service.version}


@right("predict")
async def in_helpers(request):
    image = _parsed(await _body(request))
    _demand_bytes(image)
    return await _answered(request, image)


@right("predict")
async def by_plain_python(request):
    service, size, pieces = request.app.state.service, 0, []
    async for chunk in request.stream():
        size += len(chunk)
        if size > service.max_bytes:
            raise HTTPException(status_code=413, detail=f"more than {service.max_bytes} bytes")
        pieces.append(chunk)
    try:
        content = json.loads(b"".join(pieces))
    except (ValueError, RecursionError):
        raise HTTPException(status_code=422, detail="the body is not JSON") from None
    rows = content.get("image") if isinstance(content, dict) else None
    if not isinstance(rows, list) or len(rows) != 28:
        raise HTTPException(status_code=422, detail="image is not 28 rows")
    for row in rows:
        if not isinstance(row, list) or len(row) != 28:
            raise HTTPException(status_code=422, detail="a row has not 28 entries")
        for value in row:
            if not isinstance(value, int) or not 0 <= value <= 255:
                raise HTTPException(status_code=422, detail="an entry is no whole number from 0 to 255")
    p = await service.batcher.submit(np.array(rows, dtype=np.uint8))
    p = [float(v) for v in p]
    best = max(range(len(p)), key=lambda k: p[k])
    return {"label": service.classes[best], "probability": p[best], "model": service.version}


@wrong("predict", says="JSON knows no NumPy")
async def numpy_numbers_out(request):
    service = request.app.state.service
    image = _parsed(await _body(request))
    _demand_bytes(image)
    p = await service.batcher.submit(image.astype(np.uint8))
    return {"label": service.classes[p.argmax()], "probability": p.max(), "model": service.version}


@wrong("export_onnx", says="comes in evaluation mode stays")
def always_back_to_training(network, mean, spread, images, path):
    _write(_Complete(network, lambda x: (x.float() - mean) / spread, _softmax).eval(), images, path)
    network.train()


@wrong("MicroBatcher", says="InvalidStateError")
class ErrorsForTheGone(_Usual):
    async def _answer(self, batch):
        if not batch:
            return
        try:
            results = await self.run([each.item for each in batch])
        except Exception:
            results = [await self._alone(each.item) for each in batch]
        for each, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                each.answer.set_exception(result)
            elif not each.answer.done():
                each.answer.set_result(result)
