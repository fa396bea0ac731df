"""Answers to training-loops: wrong ones named for the misconception, and right ones."""

import copy
import io
import os
import pickle
import random
import shutil

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.utils.data import DistributedSampler

from answers import right, wrong

# ------------------------------------------------------------------------------------------------ Mean


class _Base:
    def __init__(self):
        self.s, self.n = 0.0, 0

    def update(self, value, n):
        self.s += float(value) * n
        self.n += n

    def merge(self, other):
        self.s += other.s
        self.n += other.n

    def compute(self):
        return self.s / self.n if self.n else float("nan")


@wrong("Mean", says="mean of the batches' means")
class MeanOfMeans(_Base):
    def update(self, value, n):
        self.s += float(value)
        self.n += 1


@wrong("Mean", says="forgets the counts")
class MergesTheSumsOnly(_Base):
    def merge(self, other):
        self.s = self.s + other.s


@wrong("Mean", says="mean of the two means")
class MergesMeans(_Base):
    def merge(self, other):
        mean = (self.compute() + other.compute()) / 2
        if not self.n:
            mean = other.compute()
        self.n += other.n
        self.s = mean * self.n


@wrong("Mean", says="division by zero")
class DividesByZero(_Base):
    def compute(self):
        return self.s / self.n


@wrong("Mean", says="keeps tensors")
class SumsTensors(_Base):
    def update(self, value, n):
        self.s = self.s + value * n
        self.n += n


@wrong("Mean", says="keeps the number only")
class KeepsAList(_Base):
    def __init__(self):
        self.values, self.counts = [], []

    def update(self, value, n):
        self.values.append(value)
        self.counts.append(n)

    def merge(self, other):
        self.values += other.values
        self.counts += other.counts

    def compute(self):
        if not self.counts:
            return float("nan")
        total = sum(float(value) * n for value, n in zip(self.values, self.counts, strict=True))
        return total / sum(self.counts)


@wrong("Mean", says="not 0, which looks like a measurement")
class ZeroWhenEmpty(_Base):
    def compute(self):
        return self.s / max(self.n, 1)


@wrong("Mean", says="Does compute change what is kept?")
class ResetsInCompute(_Base):
    def compute(self):
        mean = super().compute()
        self.s, self.n = 0.0, 0
        return mean


@wrong("Mean", says="no reference to the other")
class MergesByReference(_Base):
    def __init__(self):
        super().__init__()
        self.others = []

    def merge(self, other):
        self.others.append(other)

    def totals(self):
        pairs = [(self.s, self.n), *(other.totals() for other in self.others)]
        return sum(s for s, _ in pairs), sum(n for _, n in pairs)

    def compute(self):
        s, n = self.totals()
        return s / n if n else float("nan")


@wrong("Mean", says="merge changes nothing here")
class MergeReturnsANewOne(_Base):
    def merge(self, other):
        both = _Base()
        both.s, both.n = self.s + other.s, self.n + other.n
        return both


@wrong("Mean", says="and not for the sum")
class AsksForTheSum(_Base):
    def compute(self):
        return self.s / self.n if self.s else float("nan")


@wrong("Mean", says="keeps the number only")
class KeepsTheGraph(_Base):
    def update(self, value, n):
        self.s = self.s + n * value
        self.n += n

    def compute(self):
        return float(self.s) / self.n if self.n else float("nan")


@wrong("Mean", says="merge empties the other one")
class MergesAndClears(_Base):
    def merge(self, other):
        super().merge(other)
        other.s, other.n = 0.0, 0


@wrong("Mean", says="forgets to add the count")
class RunningMeanWithoutCount(_Base):
    """A running mean: s is the mean."""

    def update(self, value, n):
        self.n += n
        self.s += (float(value) - self.s) * n / self.n

    def merge(self, other):
        if other.n:
            self.s = (self.s * self.n + other.s * other.n) / (self.n + other.n)

    def compute(self):
        return self.s if self.n else float("nan")


@wrong("Mean", says="share what they keep")
class ListOfTheClass(_Base):
    seen = []  # noqa: RUF012

    def update(self, value, n):
        self.seen.append((float(value), n))

    def merge(self, other):
        self.seen.extend(list(other.seen))

    def compute(self):
        n = sum(n for _, n in self.seen)
        return sum(value * n for value, n in self.seen) / n if n else float("nan")


@right("Mean")
class RunningMean:
    def __init__(self):
        self.mean, self.n = float("nan"), 0

    def update(self, value, n):
        self._take(float(value), n)

    def _take(self, value, n):
        if n:
            self.mean = value if not self.n else self.mean + (value - self.mean) * n / (self.n + n)
            self.n += n

    def merge(self, other):
        self._take(other.mean, other.n)

    def compute(self):
        return self.mean


@right("Mean")
class ListsOfNumbers(_Base):
    def __init__(self):
        self.pairs = []

    def update(self, value, n):
        self.pairs.append((value.item() if hasattr(value, "item") else value, n))

    def merge(self, other):
        self.pairs = self.pairs + other.pairs

    def compute(self):
        n = sum(n for _, n in self.pairs)
        return sum(value * n for value, n in self.pairs) / n if n else float("nan")


# ------------------------------------------------------------------------------------------------ accumulated_step


@wrong("accumulated_step", says="Every part counts the same")
def mean_of_parts(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    parts = list(zip(torch.split(x, size), torch.split(y, size), strict=True))
    total = 0.0
    for a, b in parts:
        loss = functional.cross_entropy(model(a), b)
        (loss / len(parts)).backward()
        total += loss.item() * len(a)
    if max_norm:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return total / len(x)


@wrong("accumulated_step", says="added up whole")
def not_divided(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    total = 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b)
        loss.backward()
        total += loss.item() * len(a)
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return total / len(x)


@wrong("accumulated_step", says="wipes out")
def zero_in_the_loop(model, optimizer, x, y, size, max_norm=None):
    total = 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
        loss.backward()
        total += loss.item()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return total


@wrong("accumulated_step", says="has to be the whole gradient")
def clips_in_the_loop(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    total = 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
        loss.backward()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        total += loss.item()
    optimizer.step()
    return total


@wrong("accumulated_step", says="Old gradients are still there")
def zero_at_the_end_only(model, optimizer, x, y, size, max_norm=None):
    total = 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
        loss.backward()
        total += loss.item()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return total


@wrong("accumulated_step", says="all graphs are in memory")
def one_backward(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    loss = 0.0
    for k in range(0, len(x), size):
        loss = loss + functional.cross_entropy(model(x[k : k + size]), y[k : k + size], reduction="sum")
    loss = loss / len(x)
    loss.backward()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.item()


@wrong("accumulated_step", says="smaller last part is left out")
def drops_the_rest(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    total = 0.0
    for k in range(max(len(x) // size, 1)):
        a, b = x[k * size : (k + 1) * size], y[k * size : (k + 1) * size]
        loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
        loss.backward()
        total += loss.item()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return total


@wrong("accumulated_step", says="the loss is a number")
def returns_a_tensor(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    total = 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
        loss.backward()
        total = total + loss.detach()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return total


@wrong("accumulated_step", says="the last part's")
def last_loss(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b)
        (loss * len(a) / len(x)).backward()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return loss.item()


@wrong("accumulated_step", says="another mode than it came in")
def switches_to_evaluation(model, optimizer, x, y, size, max_norm=None):
    model.eval()
    return sum_of_losses(model, optimizer, x, y, size, max_norm)


@wrong("accumulated_step", says="images in each pass")
def equal_chunks(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    total, parts = 0.0, -(-len(x) // size)
    for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
        loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
        loss.backward()
        total += loss.item()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return total


@wrong("accumulated_step", says="size / len(x)")
def size_for_len(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    total = 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b)
        (loss * size / len(x)).backward()
        total += loss.item() * len(a) / len(x)
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    return total


@wrong("accumulated_step", says="and none at the end")
def step_in_the_loop(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    total = 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
        loss.backward()
        total += loss.item()
        if max_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
    return total


def _collected(model, optimizer, x, y, size):
    optimizer.zero_grad()
    total = 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
        loss.backward()
        total += loss.item()
    return total


@wrong("accumulated_step", says="never makes it longer")
def scales_always(model, optimizer, x, y, size, max_norm=None):
    total = _collected(model, optimizer, x, y, size)
    if max_norm is not None:
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.sqrt(sum((g**2).sum() for g in grads))
        for g in grads:
            g *= max_norm / norm
    optimizer.step()
    return total


@wrong("accumulated_step", says="pass again after the step")
def loss_after_the_step(model, optimizer, x, y, size, max_norm=None):
    _collected(model, optimizer, x, y, size)
    if max_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    with torch.no_grad():
        pairs = zip(x.split(size), y.split(size), strict=True)
        return sum(functional.cross_entropy(model(a), b).item() * len(a) for a, b in pairs) / len(x)


@right("accumulated_step")
def by_autograd_grad(model, optimizer, x, y, size, max_norm=None):
    learning = [p for p in model.parameters() if p.requires_grad]
    sums, total = [torch.zeros_like(p) for p in learning], 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
        for each, g in zip(sums, torch.autograd.grad(loss, learning), strict=True):
            each += g
        total += loss.item()
    for p, each in zip(learning, sums, strict=True):
        p.grad = each
    if max_norm is not None:
        nn.utils.clip_grad_norm_(learning, max_norm)
    optimizer.step()
    return total


@right("accumulated_step")
def sum_of_losses(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad(set_to_none=False)
    losses = []
    for start in range(0, x.shape[0], size):
        logits = model(x[start : start + size])
        loss = functional.cross_entropy(logits, y[start : start + size], reduction="sum") / x.shape[0]
        loss.backward()
        losses.append(float(loss))
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=max_norm)
    optimizer.step()
    return sum(losses)


@right("accumulated_step")
def divides_at_the_end(model, optimizer, x, y, size, max_norm=None):
    optimizer.zero_grad()
    total = 0.0
    for a, b in zip(x.split(size), y.split(size), strict=True):
        loss = functional.cross_entropy(model(a), b, reduction="sum")
        loss.backward()
        total += loss.item()
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= len(x)
    norm = max_norm if max_norm is not None else float("inf")
    nn.utils.clip_grad_norm_(model.parameters(), norm)
    optimizer.step()
    return total / len(x)


# ------------------------------------------------------------------------------------------------ EMA


class _Average:
    def __init__(self, model, decay):
        self.model = copy.deepcopy(model)
        self.model.eval()
        for p in self.model.parameters():
            p.requires_grad = False
        self.decay, self.t = decay, 0

    def d(self):
        return min(self.decay, (self.t - 1) / self.t)

    @torch.no_grad()
    def update(self, model):
        self.t += 1
        d = self.d()
        for a, w in zip(self.model.parameters(), model.parameters(), strict=True):
            a.mul_(d).add_(w, alpha=1 - d)
        for a, b in zip(self.model.buffers(), model.buffers(), strict=True):
            a.copy_(b)


@wrong("EMA", says="warm-up is missing")
class NoWarmUp(_Average):
    def d(self):
        return self.decay


@wrong("EMA", says="Buffers stay as they were")
class ParametersOnly(_Average):
    @torch.no_grad()
    def update(self, model):
        self.t += 1
        d = self.d()
        for a, w in zip(self.model.parameters(), model.parameters(), strict=True):
            a.copy_(a * d + w * (1 - d))


@wrong("EMA", says="copy.deepcopy(model)")
class NoCopy(_Average):
    def __init__(self, model, decay):
        self.model, self.decay, self.t = model, decay, 0


@wrong("EMA", says="are swapped")
class Swapped(_Average):
    @torch.no_grad()
    def update(self, model):
        self.t += 1
        d = self.d()
        for a, w in zip(self.model.parameters(), model.parameters(), strict=True):
            a.copy_((1 - d) * a + d * w)
        for a, b in zip(self.model.buffers(), model.buffers(), strict=True):
            a.copy_(b)


@wrong("EMA", says="self.model.eval()")
class InTrainingMode(_Average):
    def __init__(self, model, decay):
        super().__init__(model, decay)
        self.model.train()


@wrong("EMA", says="only a new name")
class NewName(_Average):
    @torch.no_grad()
    def update(self, model):
        self.t += 1
        d = self.d()
        for a, w in zip(self.model.parameters(), model.parameters(), strict=True):
            a = d * a + (1 - d) * w
        for a, b in zip(self.model.buffers(), model.buffers(), strict=True):
            a.copy_(b)


@wrong("EMA", says="Buffers are averaged")
class AveragesTheState(_Average):
    @torch.no_grad()
    def update(self, model):
        self.t += 1
        d = self.d()
        theirs = model.state_dict()
        for name, a in self.model.state_dict().items():
            a.copy_(d * a + (1 - d) * theirs[name])


@wrong("EMA", says="in common")
class SharesBuffers(_Average):
    @torch.no_grad()
    def update(self, model):
        self.t += 1
        d = self.d()
        for a, w in zip(self.model.parameters(), model.parameters(), strict=True):
            a.mul_(d).add_(w, alpha=1 - d)
        for mine, its in zip(self.model.modules(), model.modules(), strict=True):
            for name, value in its.named_buffers(recurse=False):
                setattr(mine, name, value)


@wrong("EMA", says="old weights never fade")
class PlainMean(_Average):
    def d(self):
        return (self.t - 1) / self.t


@wrong("EMA", says="another mode than it came in")
class LeavesTheModelInEvaluation(_Average):
    def __init__(self, model, decay):
        model.eval()
        super().__init__(model, decay)


@wrong("EMA", says="two that take turns")
class CountsInTheClass(_Average):
    count = 0

    def __init__(self, model, decay):
        super().__init__(model, decay)
        type(self).count = 0

    def d(self):
        type(self).count += 1
        return min(self.decay, (self.count - 1) / self.count)


@wrong("EMA", says="0 is a decay like others")
class DecayOr(_Average):
    def __init__(self, model, decay):
        super().__init__(model, decay or 0.999)


@right("EMA")
class ByLerp(_Average):
    @torch.no_grad()
    def update(self, model):
        self.t += 1
        for a, w in zip(self.model.parameters(), model.parameters(), strict=True):
            a.lerp_(w, 1 - self.d())
        for (_, a), (_, b) in zip(self.model.named_buffers(), model.named_buffers(), strict=True):
            a.data.copy_(b)


@right("EMA")
class ByStateDict(_Average):
    def update(self, model):
        self.t += 1
        d = self.d()
        mean = dict(self.model.named_parameters())
        theirs = {name: value.clone() for name, value in model.state_dict().items()}
        for name in mean:
            theirs[name] = d * mean[name] + (1 - d) * theirs[name]
        self.model.load_state_dict(theirs)


# ------------------------------------------------------------------------------------------------ save_run, resume_run


def random_state():
    name, key, *rest = np.random.get_state()
    states = {"python": random.getstate(), "numpy": (name, key.tolist(), *rest)}
    return states | {"torch": torch.get_rng_state()}


def set_random_state(state):
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])


def _kept(step, parts):
    return {"step": step, "parts": {n: p.state_dict() for n, p in parts.items()}, "random": random_state()}


@wrong("save_run", says="straight to the path")
def straight(path, step, parts):
    torch.save(_kept(step, parts), path)


@wrong("save_run", says="whole")
def through_memory(path, step, parts):
    buffer = io.BytesIO()
    torch.save(_kept(step, parts), buffer)
    path.write_bytes(buffer.getvalue())


@wrong("save_run", says="is removed before")
def unlinks_first(path, step, parts):
    new = path.with_suffix(".new")
    torch.save(_kept(step, parts), new)
    if path.exists():
        os.remove(path)
    os.rename(new, path)


@wrong("save_run", says="copied over")
def copies(path, step, parts):
    new = path.with_suffix(".new")
    torch.save(_kept(step, parts), new)
    shutil.copyfile(new, path)
    new.unlink()


@wrong("save_run", says="what the file holds")
def no_random(path, step, parts):
    new = path.with_suffix(".new")
    torch.save({"step": step, "parts": {n: p.state_dict() for n, p in parts.items()}}, new)
    os.replace(new, path)


@wrong("save_run", says="data only")
def whole_objects(path, step, parts):
    new = path.with_suffix(".new")
    torch.save({"step": step, "parts": parts, "random": random_state()}, new)
    os.replace(new, path)


@wrong("save_run", says="neither less nor earlier")
def only_torchs_generator(path, step, parts):
    new = path.with_suffix(".new")
    kept = _kept(step, parts)
    kept["random"] = {"torch": torch.get_rng_state()}
    torch.save(kept, new)
    os.replace(new, path)


@wrong("save_run", says="one more than were done")
def next_step(path, step, parts):
    new = path.with_suffix(".new")
    torch.save(_kept(step + 1, parts), new)
    os.replace(new, path)


@wrong("save_run", says="one part only")
def fixed_names(path, step, parts):
    new = path.with_suffix(".new")
    states = {name: parts[name].state_dict() for name in ("model", "optimizer", "schedule") if name in parts}
    states.setdefault("schedule", {})
    torch.save({"step": step, "parts": states, "random": random_state()}, new)
    os.replace(new, path)


@wrong("save_run", says="nothing else is left")
def forgets_the_part(path, step, parts):
    new = path.with_suffix(".new")
    torch.save(_kept(step, parts), new)
    os.replace(shutil.copyfile(new, path.with_suffix(".copy")), path)


@wrong("save_run", says="the file is at the path")
def another_name(path, step, parts):
    torch.save(_kept(step, parts), path.with_name(f"run-{step}.pt"))


@wrong("save_run", says="Saving draws a number")
def name_by_chance(path, step, parts):
    kept = _kept(step, parts)
    beside = path.with_name(f"{path.name}.{random.randint(0, 10**9)}")
    torch.save(kept, beside)
    os.replace(beside, path)


@wrong("save_run", says="Close the file first")
def replaced_while_open(path, step, parts):
    buffer = io.BytesIO()
    torch.save(_kept(step, parts), buffer)
    with open(path.with_name("unfinished"), "wb", buffering=1 << 26) as file:
        file.write(buffer.getvalue())
        os.replace(file.name, path)


@wrong("save_run", says="no file of torch.save")
def by_pickle(path, step, parts):
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(pickle.dumps(_kept(step, parts)))
    os.replace(beside, path)


@right("save_run")
def by_rename(path, step, parts):
    kept = _kept(step, parts)
    unfinished = path.parent / f".{path.name}.{os.getpid()}"
    with unfinished.open("wb") as file:
        torch.save(kept, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


@right("save_run")
def in_memory_first(path, step, parts):
    buffer = io.BytesIO()
    torch.save({"random": random_state(), "step": step, "parts": {n: p.state_dict() for n, p in parts.items()}}, buffer)
    other = path.with_name("unfinished")
    other.write_bytes(buffer.getvalue())
    os.rename(other, path)


def _load(path):
    return torch.load(path, map_location="cpu", weights_only=True)


@wrong("resume_run", says="not put back")
def forgets_the_generators(path, parts):
    saved = _load(path)
    if set(saved["parts"]) != set(parts):
        raise ValueError("other parts")
    for name in parts:
        parts[name].load_state_dict(saved["parts"][name])
    return saved["step"]


@wrong("resume_run", says="differ   ")
def only_torch(path, parts):
    saved = _load(path)
    if set(saved["parts"]) != set(parts):
        raise ValueError("other parts")
    for name in parts:
        parts[name].load_state_dict(saved["parts"][name])
    torch.set_rng_state(saved["random"]["torch"])
    return saved["step"]


@wrong("resume_run", says="KeyError")
def no_comparison(path, parts):
    saved = _load(path)
    for name in parts:
        parts[name].load_state_dict(saved["parts"][name])
    set_random_state(saved["random"])
    return saved["step"]


@wrong("resume_run", says="Compare")
def compares_on_the_way(path, parts):
    saved = _load(path)
    for name, state in saved["parts"].items():
        if name not in parts:
            raise ValueError(f"no {name}")
        parts[name].load_state_dict(state)
    if len(parts) > len(saved["parts"]):
        raise ValueError("too many")
    set_random_state(saved["random"])
    return saved["step"]


@wrong("resume_run", says="changes the dict")
def fills_the_dict(path, parts):
    saved = _load(path)
    if saved["parts"].keys() != parts.keys():
        raise ValueError("other parts")
    for name in parts:
        state = saved["parts"][name]
        copy.deepcopy(parts[name]).load_state_dict(state)
    set_random_state(saved["random"])
    return saved["step"]


@wrong("resume_run", says="one more step")
def the_next_one(path, parts):
    saved = _load(path)
    if saved["parts"].keys() != parts.keys():
        raise ValueError("other parts")
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    set_random_state(saved["random"])
    return saved["step"] + 1


@wrong("resume_run", says="no `return` with a value")
def no_return(path, parts):
    saved = _load(path)
    if saved["parts"].keys() != parts.keys():
        raise ValueError("other parts")
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    set_random_state(saved["random"])


@wrong("resume_run", says="weights_only=True")
def reads_code(path, parts):
    saved = torch.load(path, weights_only=False)
    if saved["parts"].keys() != parts.keys():
        raise ValueError("other parts")
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    set_random_state(saved["random"])
    return saved["step"]


@wrong("resume_run", says="AssertionError")
def asserts(path, parts):
    saved = _load(path)
    assert saved["parts"].keys() == parts.keys()
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    set_random_state(saved["random"])
    return saved["step"]


@wrong("resume_run", says="the generators stay")
def generators_first(path, parts):
    saved = _load(path)
    set_random_state(saved["random"])
    if saved["parts"].keys() != parts.keys():
        raise ValueError("other parts")
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    return saved["step"]


@wrong("resume_run", says="set_random_state")
def draws_afterwards(path, parts):
    saved = _load(path)
    if saved["parts"].keys() != parts.keys():
        raise ValueError("other parts")
    for name, part in parts.items():
        part.load_state_dict(saved["parts"][name])
    set_random_state(saved["random"])
    torch.randperm(10)
    return saved["step"]


@wrong("resume_run", says="States belong to names")
def by_position(path, parts):
    saved = _load(path)
    if set(saved["parts"]) != set(parts):
        raise ValueError("other names")
    for part, state in zip(parts.values(), saved["parts"].values(), strict=True):
        part.load_state_dict(state)
    set_random_state(saved["random"])
    return saved["step"]


def _put(saved, parts):
    for name, part in parts.items():
        if name in saved["parts"]:
            part.load_state_dict(saved["parts"][name])
    set_random_state(saved["random"])
    return saved["step"]


@wrong("resume_run", says="order says nothing")
def compares_the_order(path, parts):
    saved = _load(path)
    if list(saved["parts"]) != list(parts):
        raise ValueError("other names")
    return _put(saved, parts)


@wrong("resume_run", says="not how many")
def compares_lengths(path, parts):
    saved = _load(path)
    if len(saved["parts"]) != len(parts):
        raise ValueError("other names")
    return _put(saved, parts)


@right("resume_run")
def generators_before_the_parts(path, parts):
    saved = _load(path)
    if sorted(saved["parts"]) != sorted(parts):
        raise ValueError(f"{sorted(saved['parts'])} and {sorted(parts)}")
    set_random_state(saved["random"])
    for name in sorted(parts):
        parts[name].load_state_dict(saved["parts"][name])
    return int(saved["step"])


@right("resume_run")
def by_one_generator_each(path, parts):
    saved = torch.load(path, weights_only=True)
    missing = set(saved["parts"]) ^ set(parts)
    if missing:
        raise ValueError(f"not in both: {missing}")
    [part.load_state_dict(saved["parts"][name]) for name, part in parts.items()]
    random.setstate(saved["random"]["python"])
    np.random.set_state(saved["random"]["numpy"])
    torch.set_rng_state(saved["random"]["torch"])
    return saved["step"]


# ------------------------------------------------------------------------------------------------ fit


class EarlyStopping:
    def __init__(self, patience):
        self.patience, self.lowest, self.waited, self.state = patience, float("inf"), 0, None

    def update(self, loss, model):
        if loss < self.lowest:
            self.lowest, self.waited, self.state = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self, model):
        if self.state is not None:
            model.load_state_dict(self.state)


@wrong("fit", says="weights of the last epoch")
def keeps_the_last(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with torch.no_grad():
                record["val"] = validate(model)
            records.append(record)
            over = stopping.update(record["val"], model)
            said = [hook(record, model) for hook in hooks]
            if over or any(said):
                break
    finally:
        model.eval()
    return records


@wrong("fit", says="stays in evaluation mode")
def trains_once(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    model.train()
    try:
        for epoch in range(1, epochs + 1):
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with torch.no_grad():
                record["val"] = validate(model)
            records.append(record)
            over = stopping.update(record["val"], model)
            said = [hook(record, model) for hook in hooks]
            if over or any(said):
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="stops at the first")
def any_of_a_generator(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with torch.no_grad():
                record["val"] = validate(model)
            records.append(record)
            over = stopping.update(record["val"], model)
            if any(hook(record, model) for hook in hooks) or over:
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="finally")
def no_finally(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    for epoch in range(1, epochs + 1):
        model.train()
        record = {"epoch": epoch, "train": train_epoch(model)}
        model.eval()
        with torch.no_grad():
            record["val"] = validate(model)
        records.append(record)
        over = stopping.update(record["val"], model)
        said = [hook(record, model) for hook in hooks]
        if over or any(said):
            break
    stopping.restore(model)
    model.eval()
    return records


@wrong("fit", says="goes on to the caller")
def swallows(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with torch.no_grad():
                record["val"] = validate(model)
            records.append(record)
            over = stopping.update(record["val"], model)
            said = [hook(record, model) for hook in hooks]
            if over or any(said):
                break
    except BaseException:
        print("stopped")
    stopping.restore(model)
    model.eval()
    return records


@wrong("fit", says="graph")
def no_no_grad(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            train = train_epoch(model)
            model.eval()
            val = validate(model)
            records.append({"epoch": epoch, "train": train, "val": val})
            over = stopping.update(val, model)
            said = [hook(records[-1], model) for hook in hooks]
            if over or any(said):
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="The hooks of the last epoch are not called")
def breaks_before_the_hooks(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with torch.no_grad():
                record["val"] = validate(model)
            records.append(record)
            if stopping.update(record["val"], model):
                break
            said = [hook(record, model) for hook in hooks]
            if any(said):
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="makes this epoch the last")
def ignores_hooks(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with torch.no_grad():
                record["val"] = validate(model)
            records.append(record)
            for hook in hooks:
                hook(record, model)
            if stopping.update(record["val"], model):
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="Epochs count from 0")
def from_zero(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(epochs):
            model.train()
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with torch.no_grad():
                record["val"] = validate(model)
            records.append(record)
            over = stopping.update(record["val"], model)
            said = [hook(record, model) for hook in hooks]
            if over or any(said):
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="has the weights of this epoch")
def restores_in_the_loop(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            record = {"epoch": epoch, "train": train_epoch(model)}
            model.eval()
            with torch.no_grad():
                record["val"] = validate(model)
            records.append(record)
            over = stopping.update(record["val"], model)
            stopping.restore(model)
            said = [hook(record, model) for hook in hooks]
            if over or any(said):
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="gets the record and the model")
def one_record_for_all(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            train = train_epoch(model)
            model.eval()
            with torch.no_grad():
                val = validate(model)
            records.append({"epoch": epoch, "train": train, "val": val})
            over = stopping.update(val, model)
            said = [hook(records, model) for hook in hooks]
            if over or any(said):
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="also False")
def any_answer_stops(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            train = train_epoch(model)
            model.eval()
            with torch.no_grad():
                val = validate(model)
            record = {"epoch": epoch, "train": train, "val": val}
            records.append(record)
            over = stopping.update(val, model)
            said = [hook(record, model) for hook in hooks]
            if over or any(answer is not None for answer in said):
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


class _AtTies(EarlyStopping):
    def update(self, loss, model):
        if loss <= self.lowest:
            self.lowest, self.waited, self.state = loss, 0, copy.deepcopy(model.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.patience


@wrong("fit", says="An equal loss counts as lower")
def ties_are_lower(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = _AtTies(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            train = train_epoch(model)
            model.eval()
            with torch.no_grad():
                val = validate(model)
            record = {"epoch": epoch, "train": train, "val": val}
            records.append(record)
            over = stopping.update(val, model)
            said = [hook(record, model) for hook in hooks]
            if over or True in said:
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


class _WithoutCopy(EarlyStopping):
    def update(self, loss, model):
        over = super().update(loss, model)
        if not self.waited:
            self.state = model.state_dict()
        return over


@wrong("fit", says="is no copy")
def keeps_no_copy(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = _WithoutCopy(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            train = train_epoch(model)
            model.eval()
            with torch.no_grad():
                val = validate(model)
            record = {"epoch": epoch, "train": train, "val": val}
            records.append(record)
            over = stopping.update(val, model)
            said = [hook(record, model) for hook in hooks]
            if over or True in said:
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="one and the same dict")
def one_dict(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    record = {}
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            train = train_epoch(model)
            model.eval()
            with torch.no_grad():
                val = validate(model)
            record.update(epoch=epoch, train=train, val=val)
            records.append(record)
            over = stopping.update(val, model)
            said = [hook(record, model) for hook in hooks]
            if over or True in said:
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="asked after the hooks")
def asks_after_the_hooks(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            train = train_epoch(model)
            model.eval()
            with torch.no_grad():
                val = validate(model)
            record = {"epoch": epoch, "train": train, "val": val}
            records.append(record)
            said = [hook(record, model) for hook in hooks]
            over = stopping.update(val, model)
            if over or True in said:
                break
    finally:
        stopping.restore(model)
        model.eval()
    return records


@wrong("fit", says="a return inside finally")
def returns_in_finally(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train()
            train = train_epoch(model)
            model.eval()
            with torch.no_grad():
                val = validate(model)
            record = {"epoch": epoch, "train": train, "val": val}
            records.append(record)
            over = stopping.update(val, model)
            said = [hook(record, model) for hook in hooks]
            if over or True in said:
                break
    finally:
        stopping.restore(model)
        model.eval()
        return records  # noqa: B012


@right("fit")
def without_early_stopping(model, train_epoch, validate, epochs, patience, hooks=()):
    records, best, state, waited, stop = [], float("inf"), None, 0, False
    try:
        while len(records) < epochs and not stop:
            model.train()
            loss = train_epoch(model)
            with torch.no_grad():
                val = validate(model.eval())
            records.append({"val": val, "train": loss, "epoch": len(records) + 1})
            waited += 1
            if val < best:
                best, waited = val, 0
                state = {name: value.clone() for name, value in model.state_dict().items()}
            stop = waited >= patience
            for hook in hooks:
                stop = bool(hook(records[-1], model)) or stop
        return records
    finally:
        if state:
            model.load_state_dict(state)
        model.eval()


@right("fit")
def hooks_in_a_loop(model, train_epoch, validate, epochs, patience, hooks=()):
    stopping, records = EarlyStopping(patience), []
    try:
        for epoch in range(1, epochs + 1):
            model.train(True)
            train = train_epoch(model)
            model.train(False)
            with torch.inference_mode():
                val = validate(model)
            record = dict(epoch=epoch, train=train, val=val)
            records += [record]
            stop = stopping.update(val, model)
            for hook in hooks:
                if hook(record, model) is True:
                    stop = True
            if stop:
                return records
        return records
    except BaseException:
        raise
    finally:
        stopping.restore(model)
        model.eval()


# ------------------------------------------------------------------------------------------------ average_gradients


@wrong("average_gradients", says="summed, not averaged")
def not_averaged(model, group):
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad, group=group)


@wrong("average_gradients", says="waits for ever")
def skips(model, group):
    for p in model.parameters():
        if p.grad is None:
            continue
        dist.all_reduce(p.grad, group=group)
        p.grad /= dist.get_world_size(group)


@wrong("average_gradients", says="Hand the group on")
def no_group(model, group):
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


@wrong("average_gradients", says="It divides by 2")
def by_two(model, group):
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad, group=group)
            p.grad /= 2


@wrong("average_gradients", says="weights")
def of_the_weights(model, group):
    for p in model.parameters():
        dist.all_reduce(p.data, group=group)
        p.data /= dist.get_world_size(group)


@wrong("average_gradients", says="ended without")
def only_one_calls(model, group):
    if group.rank() == 0:
        for p in model.parameters():
            if p.requires_grad:
                dist.all_reduce(p.grad, group=group)
                p.grad /= dist.get_world_size(group)


@wrong("average_gradients", says="Frozen parameters get a gradient")
def frozen_too(model, group):
    for p in model.parameters():
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        dist.all_reduce(p.grad, group=group)
        p.grad.div_(dist.get_world_size(group))


@wrong("average_gradients", says="Nothing is summed")
def of_a_copy(model, group):
    for p in model.parameters():
        if p.requires_grad:
            grad = torch.zeros_like(p) if p.grad is None else p.grad.clone()
            dist.all_reduce(grad, group=group)
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            p.grad /= dist.get_world_size(group)


@wrong("average_gradients", says="Invalid function argument")
def no_zeros(model, group):
    for p in model.parameters():
        if p.requires_grad:
            dist.all_reduce(p.grad, group=group)
            p.grad /= dist.get_world_size(group)


def _zeros_where_none(p):
    p.grad = torch.zeros_like(p) if p.grad is None else p.grad


@wrong("average_gradients", says="ask for requires_grad")
def old_ones_of_frozen(model, group):
    for p in model.parameters():
        if p.requires_grad or p.grad is not None:
            _zeros_where_none(p)
            dist.all_reduce(p.grad, group=group)
            p.grad /= dist.get_world_size(group)


@wrong("average_gradients", says="torch.zeros(p.shape) is float32")
def single_precision(model, group):
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros(p.shape)
            dist.all_reduce(p.grad, group=group)
            p.grad /= dist.get_world_size(group)


@wrong("average_gradients", says="has to get into p.grad")
def into_a_copy(model, group):
    for p in model.parameters():
        if p.requires_grad:
            _zeros_where_none(p)
            mean = p.grad / dist.get_world_size(group)
            dist.all_reduce(mean, group=group)


@wrong("average_gradients", says="gives the sum to all")
def reduced(model, group):
    for p in model.parameters():
        if p.requires_grad:
            _zeros_where_none(p)
            dist.reduce(p.grad, group_dst=0, group=group)
            p.grad /= dist.get_world_size(group)


@wrong("average_gradients", says="by how many had a gradient")
def by_those_having_one(model, group):
    for p in model.parameters():
        if p.requires_grad:
            have = torch.tensor(float(p.grad is not None))
            _zeros_where_none(p)
            dist.all_reduce(p.grad, group=group)
            dist.all_reduce(have, group=group)
            p.grad /= have.clamp(min=1)


@wrong("average_gradients", says="comes back at once")
def without_waiting(model, group):
    for p in model.parameters():
        if p.requires_grad:
            _zeros_where_none(p)
            dist.all_reduce(p.grad, group=group, async_op=True)
            p.grad /= dist.get_world_size(group)


@right("average_gradients")
def in_one_vector(model, group):
    learning = [p for p in model.parameters() if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in learning])
    dist.all_reduce(flat, op=dist.ReduceOp.SUM, group=group)
    flat = flat / dist.get_world_size(group)
    for p, part in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
        p.grad = part.view_as(p).clone()


@right("average_gradients")
def by_avg(model, group):
    for p in model.parameters():
        if p.requires_grad:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            dist.all_reduce(p.grad, op=dist.ReduceOp.AVG, group=group)


@right("average_gradients")
def by_handles(model, group):
    waiting = []
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            waiting.append((p, dist.all_reduce(p.grad, group=group, async_op=True)))
    for p, work in waiting:
        work.wait()
        p.grad.div_(group.size())


@right("average_gradients")
def by_gathering(model, group):
    for p in model.parameters():
        if p.requires_grad:
            mine = torch.zeros_like(p) if p.grad is None else p.grad
            everybody = [torch.empty_like(p) for _ in range(dist.get_world_size(group))]
            dist.all_gather(everybody, mine, group=group)
            p.grad = torch.stack(everybody).mean(0).detach()


# ------------------------------------------------------------------------------------------------ shard_indices


def _shuffled(n, seed, epoch):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed + epoch))


@wrong("shard_indices", says="Nothing is filled up")
def unequal(n, rank, processes, seed, epoch):
    return _shuffled(n, seed, epoch)[rank::processes]


@wrong("shard_indices", says="never seen in this epoch")
def cut(n, rank, processes, seed, epoch):
    order = _shuffled(n, seed, epoch)
    return order[: n // processes * processes][rank::processes]


@wrong("shard_indices", says="filled up once")
def once(n, rank, processes, seed, epoch):
    order = _shuffled(n, seed, epoch)
    rest = (processes - n % processes) % processes
    return torch.cat([order, order[:rest]])[rank::processes]


@wrong("shard_indices", says="block")
def blocks(n, rank, processes, seed, epoch):
    order = _shuffled(n, seed, epoch)
    each = -(-n // processes)
    order = order.repeat(processes)[: each * processes]
    return order[rank * each : (rank + 1) * each]


@wrong("shard_indices", says="differs from rank to rank")
def own_seed(n, rank, processes, seed, epoch):
    order = _shuffled(n, seed + rank, epoch)
    each = -(-n // processes)
    return order.repeat(processes)[: each * processes][rank::processes]


@wrong("shard_indices", says="seeds a global generator")
def global_seed(n, rank, processes, seed, epoch):
    torch.manual_seed(seed + epoch)
    each = -(-n // processes)
    return torch.randperm(n).repeat(processes)[: each * processes][rank::processes]


@wrong("shard_indices", says="every epoch has the same order")
def no_epoch(n, rank, processes, seed, epoch):
    order = _shuffled(n, seed, 0)
    each = -(-n // processes)
    return order.repeat(processes)[: each * processes][rank::processes]


@wrong("shard_indices", says="a tensor")
def a_list(n, rank, processes, seed, epoch):
    order = _shuffled(n, seed, epoch).tolist()
    while len(order) % processes:
        order += order[:1]
    return order[rank::processes]


@wrong("shard_indices", says="second call gave another")
def no_generator(n, rank, processes, seed, epoch):
    order = torch.randperm(n)
    each = -(-n // processes)
    return order.repeat(processes)[: each * processes][rank::processes]


@wrong("shard_indices", says="A whole round is added")
def one_round_more(n, rank, processes, seed, epoch):
    order = _shuffled(n, seed, epoch)
    each = n // processes + 1
    return order.repeat(processes + 1)[: each * processes][rank::processes]


@wrong("shard_indices", says="from its own end")
def from_the_end(n, rank, processes, seed, epoch):
    order = _shuffled(n, seed, epoch)
    while len(order) % processes:
        order = torch.cat([order, order[-(-len(order) % processes) :]])
    return order[rank::processes]


@wrong("shard_indices", says="share is filled up from its own beginning")
def fills_its_share(n, rank, processes, seed, epoch):
    mine = _shuffled(n, seed, epoch)[rank::processes]
    return torch.cat([mine, mine[: -(-n // processes) - len(mine)]])


@right("shard_indices")
def by_the_sampler(n, rank, processes, seed, epoch):
    sampler = DistributedSampler(range(n), num_replicas=processes, rank=rank, seed=seed)
    sampler.set_epoch(epoch)
    return torch.tensor(list(sampler))


@right("shard_indices")
def by_remainder(n, rank, processes, seed, epoch):
    order = _shuffled(n, seed, epoch)
    places = torch.arange(rank, -(-n // processes) * processes, processes)
    return order[places % n]
