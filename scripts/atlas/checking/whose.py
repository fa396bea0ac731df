"""Whose code it is: the learner's own, the kit's, or a library's."""

import sysconfig
from pathlib import Path

_KIT = str(Path(__file__).parents[1])
_LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")})


def is_learners(file: str) -> bool:
    """Whether code from this file is the learner's: neither the kit's, a check's, a library's nor a debugger's."""
    ours = file.startswith((_KIT, *_LIBRARIES, "<frozen", "<__array")) or "pydevd" in file
    return not ours and not file.endswith(("/checks.py", "\\checks.py"))
