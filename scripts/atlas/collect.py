"""Takes functions and classes out of a script or notebook, with all that they need and without running the rest.

Which global names a piece of code reads, Python's compiler knows. So from the wanted names on, the statements are
found that bind or change what is read, and what these read in turn; only those are run, in the file's order. A
training loop costs nothing unless somebody needs its result.
"""

import __future__

import ast
import asyncio
import builtins
import contextlib
import dis
import importlib
import inspect
import io
import json
import linecache
import os
import re
import signal
import sys
import sysconfig
import threading
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from atlas.course import CourseError

SECONDS = 10.0
"""The time limit of one statement. Importing does not count: a framework takes long on a cold disk."""


class Definitions(dict):
    """Name → object, as `collect` found them; `problems` says, a line each, what was left out and why."""

    def __init__(self):
        super().__init__()
        self.problems: list[str] = []


def collect(path: Path, names: Iterable[str]) -> Definitions:
    """The functions and classes called `names` of a script or notebook, ready to be used, and all that they need.

    Runs only the statements that those need: imports, definitions, constants also where a call makes them, loops,
    `if`, `with` and `try` that set a name they read, changes to an object they read. What fails, takes too long or
    does not exist is left out; so is a notebook cell with a syntax error. All of that is in `.problems` of the result.
    Raises CourseError where a script has a syntax error, where it is no notebook at all, or no text in UTF-8.
    """
    found = Definitions()
    statements = _statements(path, found.problems)
    defined = {name for each in statements for name in each.defines}
    wanted, needed = _needs(statements, set(names), defined)
    module = types.ModuleType(f"atlas_collected_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    if path.suffix == ".ipynb" and "display" in wanted:  # a kernel has it without an import
        from IPython.display import display

        module.display = display
    for each in needed:
        if problem := each.run(vars(module), wanted, defined):
            found.problems.append(problem)
    found.problems += _never_set(statements, needed, wanted, vars(module), found.problems)
    found.update((name, value) for name, value in vars(module).items() if not name.startswith("__"))
    return found


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[None]:
    """As in a notebook's kernel: `folder` is the current one and the first in which `import` looks.

    Afterwards the modules that were loaded from outside of the environment are forgotten, so that another workshop's
    module of the same name is not taken for this one's.
    """
    where, path, loaded = os.getcwd(), list(sys.path), set(sys.modules)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(where)
        sys.path[:] = path
        for name in set(sys.modules) - loaded:
            file = getattr(sys.modules[name], "__file__", None)
            if file and not str(file).startswith(_ENVIRONMENT):
                del sys.modules[name]
        importlib.invalidate_caches()


def definition(path: Path, name: str) -> str:
    """The source text of the function or class `name` in a script or notebook, decorators included.

    Raises CourseError where there is none; the last one where there are several.
    """
    for _, text in reversed(_chunks(path)):
        with contextlib.suppress(SyntaxError):
            for node in reversed(ast.parse(text).body):
                if getattr(node, "name", None) == name:
                    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    raise CourseError(f"{path.name} defines no {name}.")


_ENVIRONMENT = (
    *(sysconfig.get_paths()[key] + os.sep for key in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parent) + os.sep,
)

# ------------------------------------------------------------------------------------------------ one statement


@dataclass(eq=False)
class _Statement:
    """A statement at the top level of a file: what it does to global names, told from its code without running it."""

    node: ast.stmt
    code: types.CodeType
    where: str  # "train.py, line 12"
    also: set[str] = field(default_factory=set)
    """Names that functions called here set by `global`."""

    @cached_property
    def parts(self) -> list[ast.AST]:
        """What of it runs at the top level: all but what lies in functions and classes."""
        return list(_here(self.node))

    def names(self, kind: type | types.UnionType, *fields: str) -> set[str]:
        """What stands in the fields of the parts of a kind, where that is a name."""
        values = [getattr(each, name) for each in self.parts if isinstance(each, kind) for name in fields]
        return {each for each in values if isinstance(each, str)}

    @cached_property
    def binds(self) -> set[str]:
        """The names that it gives a value, or may give one."""
        stored = {each.id for each in self.parts if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)}
        matched = self.names(ast.MatchAs | ast.MatchStar | ast.ExceptHandler, "name")
        return stored | matched | self.names(ast.MatchMapping, "rest") | self.defines | self.imports | self.also

    @cached_property
    def reads(self) -> set[str]:
        """The global names that it reads, in functions and classes that it defines too."""
        codes = _codes(self.code)
        return {each.argval for code in codes for each in dis.get_instructions(code) if each.opname in _READING}

    @cached_property
    def sets(self) -> set[str]:
        """The global names that a function defined here sets when it is called."""
        return {name for each in ast.walk(self.node) if isinstance(each, ast.Global) for name in each.names}

    @cached_property
    def calls(self) -> set[str]:
        """The names that it calls itself."""
        called = [each.func for each in self.parts if isinstance(each, ast.Call)]
        return {each.id for each in called if isinstance(each, ast.Name)}

    @cached_property
    def changes(self) -> set[str]:
        """The names whose object it changes: `table[0] = 1`, `Value.__add__ = add`, `setattr(Value, ...)`."""
        inside = [each for each in self.parts if isinstance(each, ast.Attribute | ast.Subscript)]
        stored = {_root(each) for each in inside if not isinstance(each.ctx, ast.Load)}
        calls = [each for each in self.parts if isinstance(each, ast.Call) and each.args]
        return stored | {_root(each.args[0]) for each in calls if getattr(each.func, "id", "") == "setattr"}

    @cached_property
    def receivers(self) -> set[str]:
        """The names a method of which it calls for its effect, as in `cache.clear()`."""
        calls = [each.value for each in self.parts if isinstance(each, ast.Expr) and isinstance(each.value, ast.Call)]
        return {_root(each.func) for each in calls if isinstance(each.func, ast.Attribute)}

    @cached_property
    def defines(self) -> set[str]:
        """The functions and classes that it defines."""
        return self.names(ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, "name")

    @cached_property
    def imports(self) -> set[str]:
        """The names that it imports, "*" among them."""
        imports = [each for each in self.parts if isinstance(each, ast.Import | ast.ImportFrom)]
        return {(name.asname or name.name).partition(".")[0] for each in imports for name in each.names}

    def extends_path(self) -> bool:
        """Whether it changes where `import` looks."""
        return "sys" in self.changes | self.receivers and "sys.path" in ast.unparse(self.node)

    def makes_function(self, name: str) -> bool:
        """Whether it puts another function or class in the place of the one called `name`, and no number or array."""
        value = getattr(self.node, "value", None)
        if not isinstance(self.node, ast.Assign | ast.AnnAssign) or value is None:
            return False
        if not isinstance(value, ast.Call):
            return isinstance(value, ast.Lambda | ast.Name | ast.Attribute)
        given = [each for each in value.args if isinstance(each, ast.Name | ast.Lambda)]
        return getattr(value.func, "attr", "") == "catch_up" or any(getattr(e, "id", name) == name for e in given)

    def run(self, names: dict, wanted: set[str], defined: set[str]) -> str:
        """Run it; returns why what it was to set is left out, or nothing."""
        if self.receivers and any(type(names.get(each)).__module__ == "atlas.lab" for each in self.receivers):
            return ""  # lab.check(f)
        before = {name: names[name] for name in self.binds & defined if name in names}
        try:
            with _quiet(), _limited(SECONDS):
                result = eval(self.code, names)
                if self.code.co_flags & inspect.CO_COROUTINE:  # a cell may await
                    asyncio.run(result)
        except ImportError as error:
            why = f"{error}{_on_missing(error)}"
        except NotImplementedError as error:
            why = f"it needs {error}, which is not written yet"
        except _TooLong:
            why = f"it takes over {SECONDS:g} s. What an exercise needs must come without a long run."
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {error}"
            why = _MAGIC if "'get_ipython'" in said else said
        else:
            names.update((name, value) for name, value in before.items() if not callable(names.get(name)))
            return ""
        lost = sorted(self.binds & wanted) or sorted((self.changes | self.receivers) & wanted)
        return f"{self.where}: {', '.join(lost) or 'a line'} is left out: {why}"


_LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_MAGIC = "only a notebook can run its magic (%...)"
_READING = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_CLASSDEREF", "DELETE_NAME", "DELETE_GLOBAL")


def _here(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those below it, without what is below a function or class and without a comprehension's variables."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.comprehension):
            todo += [node.iter, *node.ifs]
        elif not isinstance(node, _LATER):
            todo += ast.iter_child_nodes(node)


def _root(node: ast.AST) -> str:
    """`a` of `a.b[0].c()`; "" where no name stands at the beginning."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


# ------------------------------------------------------------------------------------------------ what is needed


def _needs(statements: list[_Statement], roots: set[str], defined: set[str]) -> tuple[set[str], list[_Statement]]:
    """The names that `roots` need, themselves among them, and the statements that make these, in the file's order."""
    imported = {name for each in statements for name in each.imports}
    setters = {name: each.sets for each in statements for name in each.defines if each.sets}
    for each in statements:
        each.also = {name for called in each.calls & set(setters) for name in setters[called]}
    data = {name for each in statements for name in each.binds} - imported
    wanted, needed, news = set(roots), set(), True

    def makes(each: _Statement) -> bool:
        for name in each.binds & wanted:
            firm = name in defined or name in imported
            if not firm or name in each.defines | each.imports or each.makes_function(name):
                return True
        if "*" in each.imports or each.extends_path():
            return True
        return bool(each.changes & wanted or each.receivers & wanted & data)

    while news:
        news = [each for each in statements if each not in needed and makes(each)]
        needed.update(news)
        wanted.update(name for each in news for name in each.reads)
    return wanted, [each for each in statements if each in needed]


def _never_set(
    statements: list[_Statement], needed: list[_Statement], wanted: set[str], names: dict, problems: list[str]
) -> list[str]:
    """What is wanted and has no value after the run although nothing failed: in a branch not taken, or by %run."""
    missing = {name for name in wanted if name not in names and not hasattr(builtins, name)}
    failed = {problem.partition(": ")[0] for problem in problems}
    lost = [(each, each.binds & missing, "it is set only in a part that was not run") for each in needed]
    if unknown := missing - {name for each in statements for name in each.binds}:
        runs = [each for each in statements if "run_line_magic('run'" in ast.unparse(each.node)]
        lost += [(each, unknown, f"{_MAGIC}. Import its file instead") for each in runs]
    return [
        f"{each.where}: {', '.join(sorted(left_out))} is left out: {why}"
        for each, left_out, why in lost
        if left_out and each.where not in failed
    ]


# ------------------------------------------------------------------------------------------------ running


class _TooLong(BaseException):
    """Ends a statement; not an Exception, which code at the top level may well catch."""


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise _TooLong in the block after so many seconds on the clock, and again each second: code may swallow it.

    Where no signal can do that, in other threads and on Windows, the block has no limit.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(_signal: int, frame: types.FrameType | None) -> None:
        while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
            frame = frame.f_back
        if frame is None:
            raise _TooLong
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)

    handler = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What a file prints on the way is no business of a check."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _on_missing(error: ImportError) -> str:
    missing = isinstance(error, ModuleNotFoundError)
    return (
        ". It is neither beside the file nor installed; of the course's packages `atlas doctor` tells"
        if missing
        else ""
    )


# ------------------------------------------------------------------------------------------------ reading files


def _statements(path: Path, problems: list[str]) -> list[_Statement]:
    """The statements of a script or notebook; appends what cannot be compiled to `problems`."""
    notebook = path.suffix == ".ipynb"
    statements, flags = [], 0
    for name, text in _chunks(path):
        if notebook or re.search(r"^# %%", text, re.MULTILINE):  # a notebook's source has cells too
            flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        try:
            tree = ast.parse(text, name)
            for node in tree.body:
                if isinstance(node, ast.ImportFrom) and node.module == "__future__":
                    flags |= sum(getattr(__future__, each.name).compiler_flag for each in node.names)
            modules = [ast.Module([node], []) for node in tree.body]
            codes = [compile(each, name, "exec", flags, dont_inherit=True) for each in modules]
        except (SyntaxError, ValueError) as error:  # ValueError: a null byte
            line, code = getattr(error, "lineno", "?"), (getattr(error, "text", "") or "").strip()
            problem = f"{Path(name).name}, line {line}: {getattr(error, 'msg', error)}:  {code}"
            if not notebook:
                raise CourseError(problem) from None
            problems.append(problem)
            continue
        where = [f"{Path(name).name}, line {node.lineno}" for node in tree.body]
        statements += map(_Statement, tree.body, codes, where)
    return statements


def _chunks(path: Path) -> list[tuple[str, str]]:
    """What a script, or each code cell of a notebook, is called in messages, and its Python text."""
    data = path.read_bytes()
    if path.suffix != ".ipynb":
        return [(str(path), _script_text(path, data))]
    try:
        cells = json.loads(_text(path, data))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        fix = f"`atlas reset {path.stem}` keeps a copy and puts a fresh one there."
        raise CourseError(f"{path.name} is not a notebook any more. {fix}") from None
    return [(f"{path}, code cell {number}", _python(source)) for number, source in enumerate(sources, 1)]


def _script_text(path: Path, data: bytes) -> str:
    """As Python reads it: a first line such as `# -*- coding: latin-1 -*-` counts."""
    import tokenize

    with contextlib.suppress(SyntaxError, UnicodeDecodeError, LookupError):
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return io.TextIOWrapper(io.BytesIO(data), encoding).read()
    return _text(path, data)


def _text(path: Path, data: bytes) -> str:
    """The text of a file in UTF-8; CourseError, with the way back to it, where it was saved in another encoding."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        shown, name = ("UTF-16 LE", "utf-16") if utf16 else ("Western (Windows 1252)", "cp1252")
        line = data[: error.start].count(b"\n") + 1
        what = "UTF-16" if utf16 else f"another encoding, such as Latin-1 (seen in line {line})"
        raise CourseError(
            f"{path.name} is saved in {what}, and must be in UTF-8. Nothing of it is lost. In VS Code, click the "
            f"encoding at the bottom right: 'Reopen with Encoding', {shown}; then 'Save with Encoding', UTF-8. Or in "
            f"a terminal: iconv -f {name} -t utf-8 {path.name} > new && mv new {path.name}"
        ) from None


def _python(cell: str) -> str:
    """A cell's text with IPython's own syntax made Python, line by line; a cell in another language is empty."""
    try:
        ast.parse(cell)
        return cell
    except SyntaxError:
        if cell.lstrip().startswith("%%"):
            magic, _, rest = cell.lstrip().partition("\n")
            return f"\n{_python(rest)}" if magic.split()[0] in ("%%time", "%%timeit", "%%capture", "%%prun") else ""
        from IPython.core.inputtransformer2 import TransformerManager

        return TransformerManager().transform_cell(cell)
