"""What lies in the way of the course's packages: a learner's torch.py beside the notebook, another NumPy on PYTHONPATH.

`import atlas` looks here before anything else, so: nothing is imported but what every Python has loaded.
"""

import codecs
import os
import sys


class Shadow:
    """A file or folder that Python imports in the place of what its name means everywhere else.

    path    the file, or the folder of a package
    module  what it hides: "torch", "random"
    cure    what to do about it: "rename torch.py", "unset PYTHONPATH, ..."
    As text it is the whole message.
    """

    def __init__(self, path: str, module: str, from_pythonpath: bool):
        self.path, self.module = path, module
        self._from_pythonpath = from_pythonpath
        self.cure = f"rename {os.path.basename(path)}"
        if from_pythonpath:
            self.cure = f"take {os.path.dirname(path)} out of PYTHONPATH (unset PYTHONPATH empties it)"

    def __str__(self) -> str:
        what = f"Python's own module {self.module}" if self.module in _STANDARD else f"the package {self.module}"
        lies = "on PYTHONPATH" if self._from_pythonpath else "in this folder"
        after = "then start the terminal's command or the notebook's kernel again"
        return f"{os.path.basename(self.path)} {lies} hides {what}: {self.cure}, {after}. It is {self.path}"


class Hidden(ImportError):
    """What `shadows` found has kept the kit from working; the message names each and the cure."""

    def __init__(self, found: list[Shadow]):
        super().__init__("\n".join(map(str, found)))

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in the place of a traceback: the message says all."""
        return [str(self)]


def shadows(folder: str | os.PathLike | None = None) -> list[Shadow]:
    """Each file or package that hides a module of Python itself or of the course's environment.

    Looks through the folders that stand on `sys.path` before the environment's own packages: that of the notebook or
    script, and PYTHONPATH. `folder` is looked through as well, as if a notebook in it were run. In the order in which
    Python looks; a folder that cannot be listed hides nothing.
    """
    packages = [each for each in sys.path if _is_packages(each)]
    before = sys.path[: sys.path.index(packages[0])] if packages else sys.path
    hidden = {"atlas", *_STANDARD, *(_stem(name) for each in packages for name in _names(each))}
    named = {os.path.abspath(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each}
    places = dict.fromkeys(os.path.abspath(each) for each in [*([] if folder is None else [folder]), *before])
    found = []
    for place in places:
        if os.path.realpath(place) in _PYTHONS:
            continue
        for name in sorted(_names(place)):
            path = os.path.join(place, name)
            if _stem(name) in hidden and ("." in name or os.path.exists(os.path.join(path, "__init__.py"))):
                found.append(Shadow(path, _stem(name), place in named))
    return found


def print_plainly(stream) -> None:
    """Let a text stream write letters that its encoding lacks, as another one that says the same: + for a tick."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=_PLAIN)


_STANDARD = sys.stdlib_module_names
_ENDINGS = (".py", ".pyc", ".so", ".pyd")
_OWN = os.path.dirname(os.path.realpath(os.__file__))
_PYTHONS = (
    *(_OWN, os.path.join(_OWN, "lib-dynload"), os.path.join(sys.prefix, "bin")),
    os.path.dirname(os.path.dirname(os.path.realpath(__file__))),
)
"""Folders on the path that hide nothing: Python's own, that of the environment's programs, and the kit's."""
_PLAIN = "atlas.plain"
_PLAIN_LETTERS = {"✔": "+", "✘": "x", "○": "o", "→": "->", "▶": ">", "…": "...", "·": "-", "–": "-", "—": "-", "×": "x"}


def _plain_letters(error: UnicodeError) -> tuple[str, int]:
    import unicodedata

    failed = error.object[error.start : error.end]
    letters = [_PLAIN_LETTERS.get(each) or unicodedata.normalize("NFKD", each)[0] for each in failed]
    return "".join(each if each.isascii() else "?" for each in letters), error.end


codecs.register_error(_PLAIN, _plain_letters)


def _is_packages(place: str) -> bool:
    return place.startswith(sys.prefix + os.sep) and os.path.basename(place) in ("site-packages", "dist-packages")


def _names(folder: str) -> list[str]:
    """What in a folder could be imported: modules, and folders without a dot."""
    try:
        return [name for name in os.listdir(folder) if "." not in name or name.endswith(_ENDINGS)]
    except OSError:
        return []


def _stem(name: str) -> str:
    return name.partition(".")[0]
