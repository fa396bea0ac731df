"""What a process has only one of, settings and global generators: known during a check, as it was afterwards.

Frameworks are looked at only where they are loaded.
"""

import contextlib
import copy
import functools
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from atlas import hardware

# -- settings


@dataclass(frozen=True)
class Setting:
    """A setting that outlives the call that sets it.

    module       where it lives; not loaded, it is passed over
    getter, setter  in that module
    cure         what to do instead of setting it
    known        gives what it is during a check; without it, it is what the learner has left
    noted        whether the learner is told that the check ran with another value than their other code does
    """

    module: str
    getter: str
    setter: str
    cure: str = "It stays for all code that runs later. The exercise needs no such call."
    known: Callable[[Any], Any] | None = None
    noted: bool = True

    @property
    def call(self) -> str:
        """What sets it, as a learner writes it."""
        return f"{ {'numpy': 'np', 'tensorflow': 'tf'}.get(self.module, self.module) }.{self.setter}"

    def write(self, value: Any) -> None:
        write = attrgetter(self.setter)(sys.modules[self.module])
        write(**value) if isinstance(value, dict) else write(value)


SETTINGS = (
    Setting(
        "torch",
        "is_grad_enabled",
        "set_grad_enabled",
        "A bare torch.set_grad_enabled(...) holds for all that follows; `with torch.no_grad():` ends as it began.",
        lambda _: True,
    ),
    Setting(
        "torch",
        "get_default_dtype",
        "set_default_dtype",
        "All tensors made later have this type. Give dtype=... where a tensor is made.",
        lambda torch: torch.float32,
    ),
    Setting(
        "torch",
        "get_default_device",
        "set_default_device",
        "All tensors made later lie there. Give device=... where a tensor is made.",
        lambda torch: torch.device("cpu"),
    ),
    Setting("torch", "get_deterministic_debug_mode", "set_deterministic_debug_mode", known=lambda _: 0),
    Setting(
        "torch",
        "is_anomaly_enabled",
        "autograd.set_detect_anomaly",
        "It slows all code that runs later; `with torch.autograd.detect_anomaly():` ends.",
        lambda _: False,
    ),
    Setting("torch", "get_float32_matmul_precision", "set_float32_matmul_precision"),
    Setting("torch", "get_num_threads", "set_num_threads", known=lambda _: hardware.threads(), noted=False),
    Setting("tensorflow", "config.functions_run_eagerly", "config.run_functions_eagerly", known=lambda _: False),
    Setting(
        "keras",
        "config.floatx",
        "config.set_floatx",
        "All layers made later have this type. Give dtype=... where a layer is made.",
        lambda _: "float32",
    ),
    Setting(
        "keras",
        "config.dtype_policy",
        "config.set_dtype_policy",
        "All layers made later follow it. Give dtype=... where a layer is made.",
        lambda keras: keras.dtype_policies.DTypePolicy("float32"),
    ),
    Setting("keras", "config.image_data_format", "config.set_image_data_format"),
    Setting(
        "numpy",
        "geterr",
        "seterr",
        "It stays for all code that runs later; `with np.errstate(...):` ends.",
        noted=False,
    ),
    Setting(
        "numpy",
        "get_printoptions",
        "set_printoptions",
        "It stays for all code that runs later; `with np.printoptions(...):` ends.",
    ),
    Setting(
        "sys",
        "getrecursionlimit",
        "setrecursionlimit",
        "It stays for all code that runs later, and too deep a recursion then ends Python. A loop has no limit.",
    ),
    Setting("os", "getcwd", "chdir"),
)


class Settings:
    """The settings that there are now: of the modules that are loaded, not half-way through loading."""

    def __init__(self):
        there = [setting for setting in SETTINGS if _there(setting)]
        self._readers = [(setting, attrgetter(setting.getter)(sys.modules[setting.module])) for setting in there]

    def read(self) -> list[Any]:
        return [read() for _, read in self._readers]

    def put_back(self, before: list[Any]) -> list[tuple[Setting, Any, Any]]:
        """Set what was changed to what it was; returns the settings that were, with the value before and after."""
        pairs = zip(self._readers, before, strict=True)
        changed = [(setting, value, now) for (setting, read), value in pairs if (now := read()) != value]
        for setting, value, _ in changed:
            setting.write(value)
        return changed

    def make_known(self) -> list[str]:
        """Set each to what it is known as during a check; returns what the learner should know about that."""
        notes = []
        for setting, read in self._readers:
            known = setting.known(sys.modules[setting.module]) if setting.known else read()
            if (value := read()) != known:
                setting.write(known)
                if setting.noted:
                    notes.append(f"Note: {setting.call}({value}) is in force here. The check ran with {known}.")
        return notes


def _there(setting: Setting) -> bool:
    with contextlib.suppress(AttributeError, KeyError):
        return bool(attrgetter(setting.setter)(sys.modules[setting.module]))
    return False


class Tables:
    """Settings in tables, too long to be looked at around each call: once around a check.

    mentioned: the names and texts in the learner's code. Libraries set such things too, and that is not its doing.
    """

    def __init__(self, mentioned: set[str]):
        self._mentioned = mentioned
        self._before = {call: dict(table) for call, table in self._tables()}

    def _tables(self) -> Iterator[tuple[str, Any]]:
        yield "os.environ", os.environ
        if self._mentioned & {"filterwarnings", "simplefilter"}:
            # of which the order counts; run_check puts them back
            yield "the warnings filters", {str(entry): i for i, entry in enumerate(reversed(warnings.filters))}
        if rc := getattr(sys.modules.get("matplotlib"), "rcParams", None):
            yield "plt.rcParams", rc

    def changed(self) -> dict[str, list[str]]:
        """What the learner's code changed, as a learner calls it, and the names of the entries."""
        found = {}
        for call, table in self._tables():
            before, now = self._before.get(call), dict(table)
            if before is not None and before != now:
                found[call] = sorted(name for name in before | now if before.get(name) != now.get(name))
        found["os.environ"] = [name for name in found.get("os.environ", ()) if name in self._mentioned]
        found["plt.rcParams"] = [
            name for name in found.get("plt.rcParams", ()) if name != "backend"
        ]  # the first figure's
        return {call: names for call, names in found.items() if names}

    def put_back(self) -> None:
        changed = self.changed()
        for call, table in self._tables():
            for name in changed.get(call, ()):
                if name in self._before[call]:
                    table[name] = self._before[call][name]
                else:
                    del table[name]


@contextlib.contextmanager
def known_settings() -> Iterator[list[str]]:
    """Every setting is as it is known, and afterwards as it was. Yields what a learner should know about that."""
    torch = sys.modules.get("torch")
    inference = getattr(torch, "is_inference_mode_enabled", bool)()
    with torch.inference_mode(False) if inference else contextlib.nullcontext():
        settings = Settings()
        before = settings.read()
        try:
            yield settings.make_known()
        finally:
            settings.put_back(before)


# -- global generators


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Put the states of the global generators back."""
    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng() if hasattr(torch, "random") else contextlib.nullcontext(), _tensorflow_kept():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextlib.contextmanager
def _tensorflow_kept() -> Iterator[None]:
    """TensorFlow's and Keras' states, which have no public way to be read: a test says where they have moved to."""
    ops, eager, keras = _tensorflow()
    seed, rng = eager and eager._seed, eager and copy.deepcopy(getattr(eager, "_rng", None))
    generator = ops and ops.global_generator
    state = generator and generator.state.numpy()
    seeds = {name: keras.get_global_attribute(name) for name in _KERAS_SEEDS} if keras else {}
    if keras:
        keras.set_global_attribute("global_seed_generator", None)  # or it would be drawn on from where it stands
    try:
        yield
    finally:
        if eager:
            eager._seed, eager._rng = seed, rng
        if ops:
            ops.global_generator = generator
        if generator:
            generator.state.assign(state)
        for name, value in seeds.items():
            keras.set_global_attribute(name, value)


_KERAS_SEEDS = "global_seed_generator", "global_random_seed"


def _tensorflow() -> tuple[Any, Any, Any]:
    """Where TensorFlow and Keras keep their random states, each None unless loaded."""
    ops = sys.modules.get("tensorflow.python.ops.stateful_random_ops")
    context = sys.modules.get("tensorflow.python.eager.context")
    return ops, context and context.context(), sys.modules.get("keras.src.backend.common.global_state")


def generator_states() -> dict[str, Any]:
    """Whose global generator → a state that can be compared. Keras' is first, for it begins with a draw of random's."""
    states = {}
    ops, eager, keras = _tensorflow()
    if keras and (generator := keras.get_global_attribute("global_seed_generator")):
        states["Keras'"] = generator.state.numpy().tobytes()
    if eager and getattr(eager, "_rng", None):
        states["TensorFlow's"] = eager._rng.getstate()
    if ops and ops.global_generator:
        states["TensorFlow's"] = states.get("TensorFlow's"), ops.global_generator.state.numpy().tobytes()
    if hasattr(torch := sys.modules.get("torch"), "random"):
        states["torch's"] = torch.get_rng_state().numpy().tobytes()
    _, key, position, *_ = np.random.get_state()
    return states | {"NumPy's": (key.tobytes(), position), "random's": random.getstate()}


_SEEDS = (
    ("random", "seed"),
    ("numpy", "random.seed"),
    ("torch", "manual_seed"),
    ("torch", "random.manual_seed"),
    ("torch", "seed"),
    ("tensorflow", "random.set_seed"),
    ("keras", "utils.set_random_seed"),
)


@contextlib.contextmanager
def seeds_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell` with the function's name, as a learner writes it, before a global generator is seeded."""
    with contextlib.ExitStack() as stack:
        for module, path in _SEEDS:
            parent, _, name = path.rpartition(".")
            with contextlib.suppress(AttributeError, KeyError):
                owner = sys.modules[module]
                owner = attrgetter(parent)(owner) if parent else owner
                call = f"{'np' if module == 'numpy' else 'tf' if module == 'tensorflow' else module}.{path}"
                stack.enter_context(replaced(owner, name, _telling(getattr(owner, name), call, tell)))
        yield


def _telling(seed: Callable, call: str, tell: Callable[[str], None]) -> Callable:
    @functools.wraps(seed)
    def told(*args, **kwargs):
        tell(call)
        return seed(*args, **kwargs)

    return told


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute is another for a while."""
    before = vars(owner).get(name, replaced)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name) if before is replaced else setattr(owner, name, before)
