"""What the machine computes on: the device, the threads, the seeds. Quiet, and imports no framework before its time."""

import functools
import importlib.metadata
import math
import os
import platform
import random
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUP = Path("/sys/fs/cgroup")
DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # NVIDIA on Linux and in containers; in WSL


def cores() -> int:
    """How many cores this process may use: by affinity and by the container's limit, not the host's number."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _cgroup_cores()))


def threads() -> int:
    """How many threads to compute with: as many as there are cores, unless OMP_NUM_THREADS says otherwise."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # OpenMP allows one number a nesting level
    return int(asked) if asked.isdecimal() and int(asked) > 0 else cores()


def device(name: str | None = None) -> "torch.device":
    """The device to train on: cuda, else mps, else cpu; sets torch's threads to what the process may use.

    name: "cpu", "cuda", "cuda:1", "mps", for example from a script's --device; without it the variable ATLAS_DEVICE
    decides, without that the machine. Raises ValueError where the device that was asked for does not work.
    """
    import torch

    torch.set_num_threads(threads())
    if name:
        return _demand(name, "the device")
    if os.environ.get("ATLAS_DEVICE"):
        return _demand(os.environ["ATLAS_DEVICE"], "ATLAS_DEVICE")
    return torch.device(next((d for d in ("cuda", "mps") if not _trouble(d)), "cpu"))


def describe() -> str:
    """The machine in a few words, for a banner: "CPU, 2 cores". Does not import torch, which takes a second.

    Before torch is loaded a GPU is named only by its make: whether it works, device() finds out.
    """
    used = threads()
    return f"{_processor()}, {used} core{'s' if used > 1 else ''}"


def seed(n: int = 0) -> None:
    """Seed random, NumPy's global generator, and torch (all devices), TensorFlow and Keras where they are loaded."""
    import numpy

    random.seed(n)
    numpy.random.seed(n)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(n)
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.random.set_seed(n)
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(n)  # which forgets where Keras' own generator stood


def _cgroup_cores() -> int | float:
    """The container's CPU limit in cores, rounded up; infinite where there is none. Tries cgroup v2, then v1."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((CGROUP / file).read_text() for file in files).split()
            if float(quota) > 0:  # version 1 writes -1 for no limit
                return math.ceil(float(quota) / float(period))
        except (OSError, ValueError):  # not this version; or "max", version 2's no limit
            continue
    return math.inf


def _demand(name: str, source: str) -> "torch.device":
    if trouble := _trouble(name):
        working = [d for d in ("cuda", "mps", "cpu") if not _trouble(d)]
        repair = f"choose {' or '.join(working)}" + ("" if source == "the device" else ", or `unset ATLAS_DEVICE`")
        raise ValueError(f"{source} is {name!r}, which does not work here: {trouble}\n{repair}")
    import torch

    return torch.device(name)


@functools.cache
def _trouble(name: str) -> str:
    """Why `name` can't compute, one line; "" if it can. Tries it: a driver that is there may still be too old."""
    import torch

    kind = name.split(":")[0]
    if kind not in ("cuda", "mps", "cpu"):
        return "the course knows cuda, mps and cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a CUDA build without a driver warns, and the answer is just: cpu
        try:
            if kind == "cuda" and not torch.cuda.is_available():
                return "torch sees no CUDA device (`atlas doctor` says more)"
            if kind == "mps" and not torch.backends.mps.is_available():
                return "torch sees no Apple GPU"
            torch.ones(1, device=name).add_(1)
        except (RuntimeError, AssertionError) as error:
            return str(error).splitlines()[0]
    return ""


def _processor() -> str:
    asked = os.environ.get("ATLAS_DEVICE", "")
    if (torch := sys.modules.get("torch")) and hasattr(torch, "device"):  # loaded, not half-way through loading
        try:
            chosen = device()
        except ValueError:
            return f"{asked} (ATLAS_DEVICE; does not work here)"
        if chosen.type == "cuda":
            card = torch.cuda.get_device_properties(chosen)
            return f"{card.name}, {card.total_memory / 2**30:.0f} GB"
        return {"mps": "Apple GPU", "cpu": "CPU"}[chosen.type]
    if asked:
        return {"cpu": "CPU", "mps": "Apple GPU"}.get(asked, "NVIDIA GPU" if asked.startswith("cuda") else asked)
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "Apple GPU"
    if any(driver.exists() for driver in DRIVERS) and not _torch_version().endswith("+cpu"):
        return "NVIDIA GPU"
    return "CPU"


def _torch_version() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "+cpu"
