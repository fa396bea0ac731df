"""A pytest plugin: which workshop a test belongs to; `--part` runs the tests of one part (atlas.authoring.parts) only.

A test belongs to a workshop that is one of its parameters; so do all tests of test_<name>.py to the workshop that has
the script <name>.py. pytest-xdist's workers get the long tests first, and together those that share what they prepare.
"""

from functools import cache

import pytest

from atlas import course
from atlas.authoring import parts

EVERY = pytest.StashKey[list]()
"""All tests that were collected, before `--part`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", choices=parts.names(), help="only the tests of the kit, or of a track's workshops")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[EVERY] = list(items)
    part = config.getoption("part")
    if part:
        config.hook.pytest_deselected(items=[item for item in items if part_of(item) != part])
        items[:] = [item for item in items if part_of(item) == part]
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Units of work for pytest-xdist; its own groups are lost in silence with pytest 9.2 (pytest-xdist issue 1386)."""
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

        def remove_node(self, node) -> str | None:
            """The test with which a worker died, as what its time limit ended; else it would be run again for ever."""
            work = self.assigned_work[node]
            died = next(((of, each) for of in work.values() for each, done in of.items() if not done), None)
            if died:
                died[0][died[1]] = True
            super().remove_node(node)
            return died[1] if died else None

    return Units(config, log)


def unit(nodeid: str) -> str:
    """What one worker does in one go: a file's tests, in these files only those of one workshop, or a single run."""
    file, _, test = nodeid.partition("::")
    parameter = test.partition("[")[2]
    if file.endswith("test_workshops.py"):
        return nodeid
    if file.endswith("test_scripts.py"):
        return f"{file} {parameter}"
    if file.endswith("test_proofs.py"):
        names = (id.rpartition("/")[2] for id in course.PATH)
        return f"{file} {next(name for name in names if parameter.startswith(name))}"
    return file


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
