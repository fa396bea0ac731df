"""Numbers of any framework, compared, copied, put back and shown."""

import contextlib
import itertools
import math
import sys
import types
from pathlib import PurePath
from typing import Any

import numpy as np

from atlas.checking.readings import number


def array(value: Any) -> np.ndarray:
    """A NumPy array of a list, number, array, table or tensor of any framework.

    Raises TypeError, saying what it is instead, for everything that holds no numbers or no array.
    """
    if type(value) is np.ndarray and value.dtype.kind in "biufc":
        return value
    value = _of_tensorflow(value)
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.to_dense() if value.layout != sys.modules["torch"].strided else value
            value = value.float() if value.dtype is sys.modules["torch"].bfloat16 else value  # NumPy has none
        elif hasattr(value, "toarray"):  # SciPy's sparse
            value = value.toarray()
        result = value.numpy() if callable(getattr(value, "numpy", None)) else np.asarray(value)
    except ValueError as error:
        raise TypeError("rows of different lengths") from error
    except Exception as error:
        raise TypeError(f"no array can be made of it ({type(error).__name__})") from error
    if result.dtype.kind == "V" and result.dtype.name == "bfloat16":  # TensorFlow's
        result = result.astype(np.float32)
    if result.dtype.kind in "US":
        raise TypeError("text, not numbers")
    if result.dtype.kind not in "biufc":
        raise TypeError("no numbers" if is_array(value) and result.dtype != object else "Python objects, not numbers")
    return np.asarray(result)


def _of_tensorflow(value: Any) -> Any:
    """TensorFlow's tensors that are not simply dense as one that is; raises TypeError where there is none."""
    match type(value).__name__:
        case "SparseTensor":
            return sys.modules["tensorflow"].sparse.to_dense(value)
        case "IndexedSlices":  # a gradient of tf.gather, of an embedding
            return sys.modules["tensorflow"].convert_to_tensor(value)
        case "RaggedTensor":
            raise TypeError("a RaggedTensor, rows of different lengths: .to_tensor() fills them up")
        case "SymbolicTensor" | "KerasTensor":
            raise TypeError("a tensor without values yet, of a graph: call the model, or the tf.function, with numbers")
    return value


def is_array(value: Any) -> bool:
    """Whether it is an array or tensor; a class or module with a `shape` and a `dtype`, such as NumPy, is none."""
    if isinstance(value, type | types.ModuleType):
        return False
    return isinstance(value, np.ndarray | np.generic) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def entries(value: Any) -> float:
    """How many entries an array has; infinite where an axis has no length yet, as in TensorFlow's graphs."""
    return math.inf if None in tuple(value.shape) else math.prod(value.shape)


def plain(value: Any) -> bool:
    """Whether `value` is data (numbers, text, arrays, tensors, containers of them), not an object with a life."""
    if isinstance(value, list | tuple | set):
        return all(plain(item) for item in value)
    if isinstance(value, dict):
        return all(plain(item) for item in value.values())
    data = types.NoneType | bool | int | float | complex | str | bytes | types.FunctionType
    return isinstance(value, data) or is_array(value)


def kept(value: Any) -> Any:
    """A copy of plain data that later changes do not reach; anything else as it is."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if hasattr(value, "detach") and hasattr(value, "clone"):
        return value.detach().clone()
    if hasattr(value, "assign") and is_array(value):  # a variable of TensorFlow or Keras
        return np.array(value.numpy())
    if isinstance(value, set):
        return set(value)
    if type(value) in (list, tuple):
        return type(value)(kept(item) for item in value)
    if isinstance(value, dict):
        return {key: kept(item) for key, item in value.items()}
    return value


def put_back(value: Any, before: Any) -> None:
    """Undo what was done to a list, dict, set, array or tensor in place, and in those within it."""
    if isinstance(value, list):
        value[:] = [_restored(item, item_before) for item, item_before in itertools.zip_longest(value, before)][
            : len(before)
        ]
    elif isinstance(value, dict):
        restored = {key: _restored(value.get(key), item) for key, item in before.items()}
        value.clear()
        value.update(restored)
    elif isinstance(value, set):
        value.clear()
        value.update(before)
    elif isinstance(value, tuple):
        for item, item_before in zip(value, before, strict=True):
            put_back(item, item_before)
    elif hasattr(value, "assign") and is_array(value):
        value.assign(before)
    elif is_array(value):
        with contextlib.suppress(Exception):
            (value.detach() if hasattr(value, "detach") else value)[...] = before


def _restored(item: Any, before: Any) -> Any:
    """The item itself, put back, for others may hold it too; where it is none of the kind, what was there."""
    if isinstance(item, list | dict | set) and type(item) is type(before):
        put_back(item, before)
        return item
    if is_array(item) and is_array(before) and item.shape == before.shape:
        put_back(item, before)
        return item
    return before


def same(a: Any, b: Any, *, exact: bool = False, unknown: bool = True) -> bool:
    """Whether two results agree: arrays within rounding (or exactly), containers item by item.

    unknown: the answer for objects that cannot be compared, such as two models.
    """
    try:
        x, y = array(a), array(b)
    except TypeError:
        if isinstance(a, list | tuple) and isinstance(b, list | tuple):
            pairs = zip(a, b, strict=False)
            return len(a) == len(b) and all(same(*pair, exact=exact, unknown=unknown) for pair in pairs)
        if isinstance(a, set) and isinstance(b, set):
            return a == b
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key], exact=exact, unknown=unknown) for key in a)
        if type(a) is type(b) and not isinstance(a, str | bytes | types.NoneType):
            return unknown
        return type(a) is type(b) and a == b
    if x.shape != y.shape:
        return False
    if x.dtype == y.dtype and x.tobytes() == y.tobytes():  # the quick way to the most frequent answer
        return True
    if exact:
        return np.array_equal(x, y, equal_nan=x.dtype.kind in "fc")
    return bool(agree(x, y, 1e-6, 1e-9).all())


def agree(yours: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    """Entry by entry: within atol + rtol·|expected|, and a little more where one of the two has single precision.

    A sum that cancels errs by roundings of its largest terms, so single precision may err by 16 of them everywhere.
    """
    single = [np.finfo(a.dtype).eps for a in (yours, expected) if a.dtype.kind in "fc" and a.dtype.itemsize < 8]
    sizes = np.abs(expected[np.isfinite(expected)])
    if single and sizes.size and atol:
        rtol, atol = max(rtol, 16 * max(single)), max(atol, 16 * max(single) * float(sizes.max()))
    return np.isclose(yours, expected, rtol, atol, equal_nan=True)


def summary(value: Any, depth: int = 2) -> str:
    """One line for a value: small ones in full, arrays by shape and type."""
    if isinstance(value, str):
        return repr(value if len(value) < 40 else value[:37] + "…")
    if isinstance(value, PurePath):
        return f"Path({summary(str(value))})"
    if value is None or isinstance(value, bool | int | float | complex | np.generic):
        return number(value)
    if is_array(value):
        if entries(value) <= 6 and len(value.shape) <= 1:
            with contextlib.suppress(TypeError):
                numbers = array(value)
                inner = " ".join(number(entry) for entry in numbers.ravel())
                return f"[{inner}]" if numbers.ndim else inner
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple) and len(value) <= 6 and depth:
        inner = ", ".join(summary(item, depth - 1) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, list | tuple | set):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        if any(len(str(key)) > 40 for key in list(value)[:6]):  # digests, paths: they would bury the message
            return f"dict of {len(value)}"
        return f"dict with {', '.join(map(str, list(value)[:6]))}{' …' if len(value) > 6 else ''}"
    name = getattr(value, "__name__", None)
    return f"function {name}" if isinstance(value, types.FunctionType) else name or type(value).__name__
