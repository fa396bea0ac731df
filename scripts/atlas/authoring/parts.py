"""The parts into which the tests fall, each of which can run by itself: the kit, and each track that has a workshop.

    python -m atlas.authoring.parts     their names as JSON, from which GitHub's CI makes its jobs
    scripts/test --part dl-foundations  the tests of one part

Standard library only: CI asks before anything is installed.
"""

import json
from collections.abc import Iterator

from atlas import course

KIT = "kit"
"""What belongs to no workshop."""


def names() -> list[str]:
    return list(dict.fromkeys(_names()))


def _names() -> Iterator[str]:
    yield KIT
    for workshop in course.workshops():
        if not workshop.planned:
            yield workshop.track


if __name__ == "__main__":
    print(json.dumps(names()))
