"""Numbers of any framework, compared, copied, put back and shown."""

import contextlib
import sys
import types
from typing import Any

import numpy as np

from atlas.checking.readings import number


def array(value: Any) -> np.ndarray:
    """A NumPy array of a list, number, array, table or tensor of any framework.

    Raises TypeError, saying what it is instead, for everything that holds no numbers or no array.
    """
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.to_dense() if value.layout != sys.modules["torch"].strided else value
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # NumPy has none
        elif hasattr(value, "toarray"):  # SciPy's sparse
            value = value.toarray()
        result = value.numpy() if callable(getattr(value, "numpy", None)) else np.asarray(value)
    except ValueError as error:
        raise TypeError("rows of different lengths") from error
    except Exception as error:
        raise TypeError(f"no array can be made of it ({type(error).__name__})") from error
    if result.dtype.kind in "US":
        raise TypeError("text, not numbers")
    if result.dtype.kind not in "biufc":
        raise TypeError("no numbers" if is_array(value) and result.dtype != object else "Python objects, not numbers")
    return np.asarray(result)


def is_array(value: Any) -> bool:
    """Whether it is an array or tensor; a class or module with a `shape` and a `dtype`, such as NumPy, is none."""
    if isinstance(value, type | types.ModuleType):
        return False
    return isinstance(value, np.ndarray | np.generic) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def plain(value: Any) -> bool:
    """Whether `value` is data (numbers, text, arrays, tensors, containers of them), not an object with a life."""
    if isinstance(value, list | tuple):
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
    if type(value) in (list, tuple):
        return type(value)(kept(item) for item in value)
    if isinstance(value, dict):
        return {key: kept(item) for key, item in value.items()}
    return value


def put_back(value: Any, before: Any) -> None:
    """Undo what was done to a list, dict, array or tensor in place."""
    if isinstance(value, list):
        value[:] = before
    elif isinstance(value, dict):
        value.clear()
        value.update(before)
    elif isinstance(value, tuple):
        for item, item_before in zip(value, before, strict=True):
            put_back(item, item_before)
    elif is_array(value):
        with contextlib.suppress(Exception):
            (value.detach() if hasattr(value, "detach") else value)[...] = before


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
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key], exact=exact, unknown=unknown) for key in a)
        if type(a) is type(b) and not isinstance(a, str | bytes | types.NoneType):
            return unknown
        return type(a) is type(b) and a == b
    if x.shape != y.shape:
        return False
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
    if value is None or isinstance(value, bool | int | float | complex | np.generic):
        return number(value)
    if is_array(value):
        if np.prod(value.shape, dtype=int) <= 6 and len(value.shape) <= 1:
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
        return f"dict with {', '.join(map(str, list(value)[:6]))}{' …' if len(value) > 6 else ''}"
    name = getattr(value, "__name__", None)
    return f"function {name}" if isinstance(value, types.FunctionType) else name or type(value).__name__
