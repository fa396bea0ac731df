"""A small repository in a temporary folder, with the skeleton of one workshop, for tests of what maintainers use."""

import shutil
from pathlib import Path

from atlas import build, course
from atlas.authoring import scaffold

ID = "computer-vision/cnn-basics"
WORKSHOP, SOLUTION = f"workshops/{ID}", f"solutions/{ID}"


def make(folder: Path, monkeypatch) -> Path:
    """The repository, its skeleton built; ATLAS_ROOT points to it."""
    monkeypatch.setenv("ATLAS_ROOT", str(folder))
    monkeypatch.setenv("ATLAS_STATE", str(folder / ".atlas"))
    for name in ("tests", "datasets"):
        (folder / name).mkdir()
    here = Path(__file__).parents[1]
    shutil.copy(here / "tests" / "answers.py", folder / "tests")
    shutil.copy(here / "datasets" / "catalog.toml", folder / "datasets")
    (folder / "README.md").write_text("# Kit\n<!-- atlas:workshops -->\n<!-- /atlas:workshops -->\n")
    scaffold.new(ID)
    build.build()
    return folder


def workshop() -> course.Workshop:
    return course.load(ID)


def edit(kit: Path, name: str, old: str, new: str) -> None:
    """Replace `old`, which must be there, in a file of the kit."""
    text = (kit / name).read_text()
    assert old in text, f"{old!r} is not in {name}"
    (kit / name).write_text(text.replace(old, new))
