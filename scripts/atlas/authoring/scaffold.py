"""`atlas new`: the skeleton of a workshop, all parts in place, none of them finished.

`atlas build` builds it; `atlas validate` says what is missing. The parts are the files of `skeleton/`, read them there.
"""

from pathlib import Path

from atlas import course
from atlas.authoring import completeness
from atlas.course import CourseError

_SKELETON = Path(__file__).parent / "skeleton"


def new(id: str) -> list[Path]:
    """Write the skeleton of the planned workshop `id` ("track/workshop"); the files written.

    CourseError: `id` is not in the path, or one of the files is there already (then nothing is written).
    """
    if id not in course.PATH:
        hint = course.did_you_mean(id, course.PATH)
        raise CourseError(f"{id!r} is not one of the {len(course.PATH)} workshops of the path.{hint}")
    workshop = course.load(id)
    words = workshop.name.replace("-", "_")
    script, project = f"train_{words}.py", f"project_{words}.py"
    places = {
        "workshop/workshop.toml": workshop.folder / "workshop.toml",
        "workshop/README.md": workshop.folder / "README.md",
        "workshop/checks.py": workshop.folder / "checks.py",
        "workshop/figures/architecture.svg": workshop.folder / "figures" / "architecture.svg",
        "solution/source.py": workshop.source,
        "solution/script.py": workshop.solution_folder / script,
        "solution/project.py": workshop.solution_folder / project,
        "solution/INSTRUCTOR.md": workshop.solution_folder / "INSTRUCTOR.md",
        "tests/wrong_answers.py": completeness.answers_file(workshop),
    }
    there = [path.relative_to(course.root()).as_posix() for path in places.values() if path.exists()]
    if there:
        raise CourseError(f"{id} is begun already: {', '.join(there)}. To see what it lacks: atlas validate {id}")
    values = {"title": workshop.title, "name": workshop.name, "script": script, "project": project}
    for part, path in places.items():
        text = (_SKELETON / part).read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"{{{{{key}}}}}", value)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(places.values())
