"""`atlas build`: what a learner gets is the source without the answers, and nothing else changes."""

import json
import re

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas import build
from atlas.course import KERNEL

SECRET, STAFF = "answer_", "staff_only_"

# ------------------------------------------------------------------------------------ generated sources

INDENTS = st.sampled_from(["    ", "\t", "  "])
ENDINGS = st.sampled_from(["\n", "\r\n"])
NAMES = st.sampled_from(["step", "forward", "größe", "μ", "softmax_1"])
PLAIN = st.sampled_from(
    [
        "x = 1  # a comment",
        "print('π ≈ 3.14 🙂 \\t')",
        "",
        "# a comment that says: the solution begins here, the end of a solution is near",
        "text = '''several\n  lines, # TODO: none\n\tof text'''",
        "@staticmethod",  # followed by a def, below
        "for i in range(3):\n    x = i",
        "# %matplotlib inline",
        "lab = [\n    1,\n]",
    ]
)
ANSWERS = st.lists(
    st.sampled_from(
        [
            f"{SECRET}1 = 1",
            f"# {SECRET}comment",
            "",
            f"if {SECRET}2:\n{{tab}}return {SECRET}3\nelse:\n{{tab}}raise ValueError('{SECRET}4')",
            f"def {SECRET}inner(a):\n{{tab}}return a",
            f"{SECRET}text = '''\n# TODO {SECRET}5\n{SECRET}6'''",
            f"for {SECRET}7 in ():\n{{tab}}pass",
        ]
    ),
    min_size=1,
    max_size=4,
).filter(lambda lines: any(line and not line.startswith("#") for line in lines))


def _indented(code: str, indent: str) -> str:
    """Indented, but for the lines inside a triple-quoted string."""
    out, inside = [], False
    for line in code.split("\n"):
        out.append(line if inside or not line else indent + line)
        inside ^= line.count("'''") % 2 == 1
    return "\n".join(out)


@st.composite
def functions(draw, indent="", owner=""):
    """(source, starter) of a function, perhaps with regions, perhaps with a function inside."""
    tab, name = draw(INDENTS), draw(NAMES)
    head = indent + draw(st.sampled_from(["def", "async def"])) + f" {name}(x, y=(1, 2)):"
    if draw(st.booleans()):
        head = f"{indent}@decorator(\n{indent}1)\n" + head
    body = indent + tab
    source, starter = [head, f'{body}"""Doc of {name}: shapes (B, T)."""'], []
    starter = list(source)
    if draw(st.booleans()) and len(indent) < 4:
        inner_source, inner_starter = draw(functions(body, f"{owner}{name}."))
        source.append(inner_source), starter.append(inner_starter)
    for _ in range(draw(st.integers(0, 2))):
        todo = f"{body}# TODO: write it\n{body}# in two lines"
        answer = _indented("\n".join(draw(ANSWERS)).replace("{tab}", tab), body)
        source += [todo, f"{body}{build.BEGIN}", answer, f"{body}{build.END}"]
        starter += [todo, f'{body}raise NotImplementedError("{owner}{name}")']
    return "\n".join(source), "\n".join(starter)


@st.composite
def classes(draw):
    methods = draw(st.lists(functions("    ", "Net."), min_size=1, max_size=3))
    head = "class Net(\n    object,\n):\n    width = 3"
    return "\n".join([head, *(m[0] for m in methods)]), "\n".join([head, *(m[1] for m in methods)])


def pieces():
    decorated = functions().map(lambda pair: (f"@decorator\n{pair[0]}", f"@decorator\n{pair[1]}"))
    plain = PLAIN.filter(lambda line: not line.startswith("@")).map(lambda line: (line, line))
    return st.one_of(functions(), classes(), plain, decorated)


@st.composite
def scripts(draw):
    parts = draw(st.lists(pieces(), max_size=5))
    ending, last = draw(ENDINGS), draw(st.sampled_from(["", "\n", "\n\n\n"]))
    return tuple(("\n".join(p[i] for p in parts) + last).replace("\n", ending) for i in (0, 1))


@st.composite
def notebook_sources(draw):
    """(py:percent source, expected starter cells as (type, text))."""
    source, cells = [], []
    for kind in draw(st.lists(st.sampled_from(["code", "staff", "empty", "text"]), min_size=1, max_size=6)):
        if kind == "code":
            text, starter = draw(pieces())
            source.append(f"# %%\n{text}\n")
            cells.append(("code", re.sub(r"(?m)^# (?=%mat)", "", starter)))
        elif kind == "staff":
            body, _ = draw(pieces())
            source.append(f'# %% tags=["instructor"]\nassert {STAFF}1\n{body}\n')
        elif kind == "empty":
            source.append("# %%\n")
            cells.append(("code", ""))
        else:
            source.append("# %% [markdown]\n# ## Title: π · (3 min)\n#\n# - $x^2$\n# %matplotlib is no magic here\n")
            cells.append(("markdown", "## Title: π · (3 min)\n\n- $x^2$\n%matplotlib is no magic here"))
    return "\n".join(source).replace("\n", draw(ENDINGS)), cells


# ------------------------------------------------------------------------------------ what holds for all of them


@settings(deadline=None)  # a loaded machine is slow
@given(scripts())
def test_a_starter_script_is_the_source_to_the_byte_but_for_the_regions(pair):
    source, starter = pair
    assert build.starter(source, "script.py") == starter


@settings(deadline=None)  # a loaded machine is slow
@given(scripts())
def test_a_starter_script_has_neither_answers_nor_markers_and_building_it_again_changes_nothing(pair):
    starter = build.starter(pair[0], "script.py")
    assert SECRET not in starter and "SOLUTION" not in starter
    assert build.starter(starter, "script.py") == starter


@settings(deadline=None)  # a loaded machine is slow
@given(notebook_sources())
def test_a_starter_notebook_has_every_cell_but_the_instructors_and_everything_but_the_answers(pair):
    source, cells = pair
    starter = nbformat.reads(build.notebooks(source, "nb.py")[1], as_version=4)
    assert [(cell.cell_type, cell.source.strip("\n")) for cell in starter.cells] == [
        (kind, text.strip("\n")) for kind, text in cells
    ]
    assert not any(secret in json.dumps(starter) for secret in (SECRET, STAFF, "SOLUTION"))


@settings(deadline=None)  # a loaded machine is slow
@given(notebook_sources())
def test_both_notebooks_are_valid_without_outputs_and_the_same_each_time(pair):
    source, _ = pair
    built = build.notebooks(source, "nb.py")
    assert built == build.notebooks(source, "nb.py")
    for text in built:
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
        assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
        assert notebook.metadata.kernelspec.name == KERNEL


@settings(deadline=None)  # a loaded machine is slow
@given(notebook_sources())
def test_the_solved_notebook_keeps_answers_markers_and_instructor_cells(pair):
    source, _ = pair
    solved = nbformat.reads(build.notebooks(source, "nb.py")[0], as_version=4)
    code = "\n".join(cell.source for cell in solved.cells)
    for wanted in (SECRET, STAFF, build.BEGIN, build.END):
        assert code.count(wanted) == source.count(wanted)


@settings(deadline=None)  # a loaded machine is slow
@given(scripts(), st.sampled_from([build.BEGIN, build.END]), st.data())
def test_a_script_that_lost_or_gained_a_marker_is_refused_with_file_and_line(pair, marker, data):
    lines = pair[0].splitlines(keepends=True)
    places = [number for number, line in enumerate(lines) if line.strip() == marker]
    if places and data.draw(st.booleans()):
        del lines[data.draw(st.sampled_from(places))]
    else:
        lines.insert(data.draw(st.integers(0, len(lines))), f"{marker}\n")
    with pytest.raises(build.SourceError) as refused:
        build.starter("".join(lines), "some/script.py")
    assert re.match(r"some/script\.py:\d+: ", str(refused.value))
    assert 1 <= refused.value.line <= len(lines)


# ------------------------------------------------------------------------------------ what is refused, and where

GOOD = """\
def f(x):
    # TODO: add one
    ### BEGIN SOLUTION
    y = x + 1
    return y
    ### END SOLUTION
"""


@pytest.mark.parametrize(
    ("bad", "line", "says"),
    [
        (GOOD.replace("    ### END SOLUTION\n", ""), 3, "without an END"),
        (GOOD.replace("    ### BEGIN SOLUTION\n", ""), 5, "END without a BEGIN"),
        (GOOD.replace("    return y\n", "    ### BEGIN SOLUTION\n    return y\n"), 5, "do not nest"),
        (GOOD.replace("    # TODO: add one\n", ""), 2, "no `# TODO"),
        (GOOD.replace("    # TODO: add one\n", "    # TODO: add one\n\n"), 4, "no `# TODO"),
        (GOOD.replace("    ### BEGIN", "  ### BEGIN"), 3, "not indented"),
        (GOOD.replace("    ### END", "### END"), 6, "not indented"),
        (GOOD.replace("    ### BEGIN", "\t### BEGIN"), 3, "not indented"),
        (GOOD.replace("### BEGIN", "## BEGIN"), 3, "looks like a marker"),
        (GOOD.replace("### BEGIN SOLUTION", "### begin solution"), 3, "looks like a marker"),
        (GOOD.replace("y = x + 1", "y = x + 1  ### END SOLUTION"), 4, "looks like a marker"),
        (GOOD.replace("y = x + 1", "y = '''\n    ### END SOLUTION\n'''"), 5, "looks like a marker"),
        (GOOD.replace("y = x + 1", "y = '### BEGIN SOLUTION'"), 4, "looks like a marker"),
        (GOOD.replace("    y = x + 1\n    return y\n", "    # nothing\n") + "    return x\n", 3, "no statement"),
        ("# TODO: it\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION\n", 2, "in no function"),
        ("class A:\n    # TODO: it\n    ### BEGIN SOLUTION\n    x = 1\n    ### END SOLUTION\n", 3, "in no function"),
        (GOOD.replace("    return y\n", "    # %%\n    return y\n"), 5, "cell begins inside"),
        (GOOD.replace("    return y", "    return (y"), 5, "is not Python"),
        (GOOD.replace("    return y\n    ### END SOLUTION", "    return (\n    ### END SOLUTION\n    y)"), 3, "in two"),
        ("def f():\n    if a:\n        b = 1\n        # TODO: c\n        ### BEGIN SOLUTION\n"
         "    else:\n        c = 2\n        ### END SOLUTION\n", 5, "in two"),
        ("def f():\n    if a:\n        # TODO: b\n        ### BEGIN SOLUTION\n        b = 1\n    c = 2\n"
         "    ### END SOLUTION\n", 4, "several blocks"),
        ("@a\n    # TODO: b\n    ### BEGIN SOLUTION\ndef f():\n    return 1\n    ### END SOLUTION\n", 3, "in two"),
    ],
    ids=lambda value: str(value).partition("\n")[0],
)  # fmt: skip
def test_bad_markers_are_refused_at_their_line(bad, line, says):
    with pytest.raises(build.SourceError, match=says) as refused:
        build.starter(bad, "solutions/a/b.py")
    assert (refused.value.file, refused.value.line) == ("solutions/a/b.py", line)


def test_characters_that_only_look_like_line_ends_move_no_region():
    strange = "# \x0c \u2028 \x85\n" * 3
    assert build.starter(strange + GOOD, "f.py").startswith(f"{strange}def f(x):\n    # TODO: add one\n    raise")


def test_a_magic_like_line_inside_a_string_of_a_notebook_is_refused():
    with pytest.raises(build.SourceError, match=r"nb\.py:3: a line inside a string"):
        build.notebooks("# %%\nx = '''\n# %time is money\n'''\n", "nb.py")


def test_comments_that_begin_like_shell_commands_stay_comments_and_magics_become_magics():
    source = "# %%\n# %%time\n# ls is the least squares loss\n# cat, dog\nx = 1\n"
    cell = nbformat.reads(build.notebooks(source, "nb.py")[1], as_version=4).cells[0]
    assert cell.source == "%%time\n# ls is the least squares loss\n# cat, dog\nx = 1"


def test_cell_ids_stay_when_another_cell_changes_and_are_the_same_in_both_notebooks():
    def ids(text, which):
        return [cell.id for cell in nbformat.reads(build.notebooks(text, "nb.py")[which], as_version=4).cells]

    source = "# %%\nx = 1\n\n# %%\nx = 1\n\n# %%\n" + GOOD
    assert ids(source, 0) == ids(source, 1)
    assert ids("# %%\nfirst = 0\n\n" + source, 1)[1:] == ids(source, 1)


# ------------------------------------------------------------------------------------ the repository

ID = "dl-foundations/perceptron-and-mlp"


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """A small repository with one workshop, not built yet."""
    monkeypatch.setenv("ATLAS_ROOT", str(tmp_path))
    monkeypatch.delenv("ATLAS_STATE", raising=False)
    files = {
        "README.md": "# Kit\n<!-- atlas:workshops -->\n<!-- /atlas:workshops -->\nend\n",
        f"workshops/{ID}/README.md": "# W\n<!-- atlas:agenda -->\nold\n<!-- /atlas:agenda -->\ntheory\n",
        f"workshops/{ID}/checks.py": "",
        f"workshops/{ID}/workshop.toml": 'title = "P | Q"\nminutes = 70\nsummary = "You build it."\n'
        'script = "train.py"\nleaves = []\n[[agenda]]\ntitle = "All | of it"\nminutes = 70\nkind = "talk"\n',
        f"solutions/{ID}/perceptron-and-mlp.py": "# %%\n" + GOOD,
        f"solutions/{ID}/train.py": GOOD,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


GENERATED = {
    "README.md",
    f"workshops/{ID}/README.md",
    f"workshops/{ID}/perceptron-and-mlp.ipynb",
    f"workshops/{ID}/train.py",
    f"solutions/{ID}/perceptron-and-mlp.ipynb",
}


def test_build_writes_every_generated_file_once_and_then_nothing(kit):
    assert {problem.path for problem in build.build()} == GENERATED
    assert build.build() == [] == build.build(check=True)


def test_check_names_what_is_out_of_step_with_the_command_that_repairs_it_and_writes_nothing(kit):
    build.build()
    before = {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    source = kit / "solutions" / ID / "train.py"
    source.write_text(GOOD + "\nprint(1)\n")
    (kit / "workshops" / ID / "perceptron-and-mlp.ipynb").unlink()
    problems = {problem.path: problem for problem in build.build(check=True)}
    assert problems[f"workshops/{ID}/train.py"].what == "different from its source"
    assert problems[f"workshops/{ID}/perceptron-and-mlp.ipynb"].what == "missing"
    assert len(problems) == 2 and all(p.repair == "atlas build" and not p.done for p in problems.values())
    changed = {path for path in kit.rglob("*") if path.is_file() and before.get(path) != path.read_bytes()}
    assert changed == {source}


def test_files_that_no_source_makes_are_named_and_left_alone(kit):
    build.build()
    stray = [f"workshops/{ID}/old.ipynb", f"workshops/{ID}/helper.py", f"solutions/{ID}/old.ipynb"]
    for name in stray:
        (kit / name).write_text("{}")
    for check in (True, False):
        problems = build.build(check)
        assert [p.path for p in problems] == sorted(stray, key=lambda name: kit / name)
        assert not any(p.done for p in problems) and all("no source" in p.what for p in problems)


def test_a_starter_that_somebody_worked_in_is_kept_before_it_is_overwritten(kit):
    build.build()
    starter = kit / "workshops" / ID / "train.py"
    starter.write_text("my own work")
    (problem,) = build.build()
    assert (kit / problem.backup).read_text() == "my own work" and problem.backup in str(problem)
    (kit / "solutions" / ID / "train.py").write_text(GOOD + "\n")
    (problem,) = build.build()
    assert problem.done and not problem.backup


def test_readme_tables_are_true_to_disk_and_the_rest_of_the_page_is_kept(kit):
    build.build()
    rows = re.findall(r"^\| \d+ \|.*$", (kit / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 23
    assert rows[0] == rf"| 1 | [P \| Q](workshops/{ID}/README.md) | 70 | You build it. | ready |"
    assert all("planned" in row and "](" not in row for row in rows[1:])
    agenda = (kit / "workshops" / ID / "README.md").read_text()
    assert agenda.startswith("# W\n<!-- atlas:agenda -->\n|") and agenda.endswith("<!-- /atlas:agenda -->\ntheory\n")
    assert r"| 0:00 | 70 | All \| of it | talk |  |" in agenda and "| 1:10 | | end | | |" in agenda


def test_the_badges_are_made_from_the_one_place_where_the_repositorys_address_stands(kit):
    readme = kit / "README.md"
    readme.write_text("# Kit\n<!-- atlas:badges -->\n<!-- /atlas:badges -->\n" + readme.read_text())
    (kit / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/ada/course"\n')
    build.build()
    text = readme.read_text()
    assert "](https://codespaces.new/ada/course?quickstart=1)" in text
    assert "cloneInVolume?url=https://github.com/ada/course)" in text
    assert len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) == 23, "the other block is kept"
    (kit / "pyproject.toml").write_text('[project.urls]\nRepository = "https://github.com/bob/fork"\n')
    assert [problem.path for problem in build.build(check=True)] == ["README.md"]


def test_a_readme_without_its_block_and_a_missing_source_are_problems_not_tracebacks(kit):
    (kit / "README.md").write_text("# Kit\n")
    sources = [f"solutions/{ID}/perceptron-and-mlp.py", f"solutions/{ID}/train.py"]
    for name in sources:
        (kit / name).unlink()
    problems = {p.path: p for p in build.build() if not p.done}
    assert "<!-- atlas:workshops -->" in problems["README.md"].repair
    assert [problems[name].what for name in sources] == ["missing", "missing"]
    assert not list(kit.rglob("*.ipynb")) and not list(kit.rglob("train.py"))


def test_a_bad_source_stops_the_build_before_anything_is_written_for_it(kit):
    (kit / "solutions" / ID / "train.py").write_text(GOOD.replace("### END SOLUTION", ""))
    with pytest.raises(build.SourceError, match=rf"solutions/{ID}/train\.py:3: BEGIN without"):
        build.build()
    assert not (kit / "workshops" / ID / "train.py").exists()
