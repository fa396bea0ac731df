"""A pytest plugin: which workshop a test belongs to; `--part` runs the tests of one part (atlas.authoring.parts) only.

A test belongs to a workshop that is one of its parameters; so do all tests of test_<name>.py to the workshop that has
the script <name>.py. pytest-xdist's workers get the long tests first, and together those of a file, or those that prove
a workshop in the same way (marker `kind`): what they prepare, one worker prepares.
"""

from functools import cache

import pytest

from atlas import course
from atlas.authoring import parts

EVERY = pytest.StashKey[list]()
"""All tests that were collected, before `--part`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", choices=parts.names(), help="only the tests of the kit, or of a track's workshops")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[EVERY] = list(items)
    part = config.getoption("part")
    if part:
        config.hook.pytest_deselected(items=[item for item in items if part_of(item) != part])
        items[:] = [item for item in items if part_of(item) == part]
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
        for item in items:
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    kind = item.get_closest_marker("kind")
    return f"{workshop_of(item).name}, {kind.args[0]}" if kind else item.path.stem


def workshop_of(item: pytest.Item) -> course.Workshop | None:
    """The workshop to which a test belongs; None for the kit's own."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    given = [each for each in parameters if isinstance(each, course.Workshop)]
    return given[0] if given else _by_script().get(item.path.stem.removeprefix("test_"))


def part_of(item: pytest.Item) -> str:
    workshop = workshop_of(item)
    return workshop.track if workshop else parts.KIT


@cache
def _by_script() -> dict[str, course.Workshop]:
    """Name of a workshop's script, without .py → the workshop; as the repository is, not a made-up course in it."""
    return {each.script.removesuffix(".py"): each for each in course.workshops() if each.script}
