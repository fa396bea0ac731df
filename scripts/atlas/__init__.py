"""The kit's Python package: what would distract in a notebook (data, checks, plots, device), and no deep learning.

Attributes are loaded when first used, so that `import atlas` costs milliseconds and no framework.
"""

import importlib

_WHERE = {
    "open": ("atlas.lab", "open"),
    "root": ("atlas.course", "root"),
    "device": ("atlas.hardware", "device"),
    "seed": ("atlas.hardware", "seed"),
    "data": ("atlas.data", None),
    "plot": ("atlas.plot", None),
}
__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'atlas' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _WHERE[name]
    loaded = importlib.import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value
