"""The kit's Python package: what would distract in a notebook (data, checks, plots, device), and no deep learning.

Attributes are loaded when first used, so that `import atlas` costs milliseconds and no framework. It says on stderr
what hides a package of the course, such as a torch.py beside the notebook.
"""

import importlib
import sys

from atlas import surroundings

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
    try:
        loaded = importlib.import_module(module)
    except Exception as error:
        if hidden := surroundings.shadows():
            raise surroundings.Hidden(hidden) from error
        raise
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value


for _shadow in surroundings.shadows():
    print(_shadow, file=sys.stderr)
