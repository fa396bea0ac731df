"""What a workshop must have, counted: the parts of guide "What a workshop is", each shortfall with its repair.

Counting is all that this does; whether a text is good stays with its readers.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from atlas import build, course
from atlas.authoring import minutes, pages
from atlas.authoring.pages import count_words
from atlas.build import Problem
from atlas.course import Workshop

README_SECTIONS = {
    "What you will be able to do": "able to do",
    "What to know before": "know before",
    "Agenda": "agenda",
    "Theory": "theory",
    "Common mistakes": "common mistakes",
    "Project": "project",
    "Resources": "resources",
}
"""Title as `atlas new` writes it → what a level-2 heading must contain, in this order."""

INSTRUCTOR_SECTIONS = {
    "Minute by minute": "minute",
    "On the board": "board",
    "Misconceptions": "misconception",
    "When 15 minutes late": "late",
    "Quiz": "quiz",
}
"""The same for INSTRUCTOR.md, in any order."""

WORDS = (1200, 2500)
OUTCOMES = (3, 6)
FIGURES = 2
PHOTOGRAPHS, PHOTOGRAPH_BYTES = (".png", ".jpg", ".webp"), 200_000
CHECKPOINT_BYTES = 2_000_000
LICENCE = re.compile(r"\bCC0\b|\bCC[ -]BY\b|\bpublic domain\b|\bGPL\b|\bMIT\b|\bApache\b|\bBSD\b", re.IGNORECASE)
"""What the text around a photograph must name."""
REASON_WORDS = 5
NOTEBOOK_EXERCISES, SCRIPT_EXERCISES = (4, 8), (1, 3)
EXERCISE_MINUTES, WORKSHOP_MINUTES, WITHOUT_BREAK = (3, 12), (60, 120), 50
HINTS = (2, 3)
WRONG, RIGHT = 5, 2
PLOTS, FOLDED_ANSWERS = 4, 4
RESOURCES = (5, 10)
MISCONCEPTIONS, QUIZ_QUESTIONS = 3, 5


def shortfalls(workshop: Workshop, answers: list) -> list[Problem]:
    """What the workshop lacks, and which of its files are unknown; `answers` as tests/answers.py registers."""
    parts = (files, readme, figures, checkpoints, agenda, exercises, notebook, sources, instructor, datasets)
    parts += (minutes.shortfalls, pages.shortfalls)
    found = [problem for part in parts for problem in part(workshop)]
    return found + list(_answers(workshop, answers))


def strays() -> Iterator[Problem]:
    """Files in workshops/, solutions/ and tests/wrong_answers/ that belong to no workshop."""
    made = [workshop for workshop in course.workshops() if not workshop.planned]
    names, ids = {workshop.name for workshop in made}, tuple(f"{workshop.id}/" for workshop in made)
    for top in ("workshops", "solutions"):
        for path in _files(course.root() / top):
            if not path.relative_to(course.root() / top).as_posix().startswith(ids):
                yield _unknown(path, "belongs to no workshop (one that is there has workshops/<id>/workshop.toml)")
    for path in sorted((course.root() / "tests" / "wrong_answers").glob("*.py")):
        if path.stem not in names:
            yield _unknown(path, "is named as no workshop")


def answers_file(workshop: Workshop) -> Path:
    """Where the wrong and right answers to the workshop's exercises are."""
    return course.root() / "tests" / "wrong_answers" / f"{workshop.name}.py"


# ---------------------------------------------------------------------------------------------- the parts


def files(workshop: Workshop) -> Iterator[Problem]:
    """Each part has its file; no other file is there."""
    toml = workshop.folder / "workshop.toml"
    learner, solution = workshop.folder, workshop.solution_folder
    wanted = {learner / name for name in ("README.md", "workshop.toml", "checks.py")}
    wanted |= {workshop.notebook, workshop.source, solution / workshop.notebook.name, solution / "INSTRUCTOR.md"}
    if workshop.script:
        wanted |= {learner / workshop.script, solution / workshop.script}
    else:
        yield _lacks(toml, "names no script", 'add script = "<name>.py"')
    if workshop.project:
        wanted |= {solution / workshop.project}
    else:
        yield _lacks(toml, "names no reference of the project", 'add project = "project_<name>.py"')
    for path in sorted({*wanted, answers_file(workshop)}):
        if not path.exists():
            generated = path.suffix == ".ipynb" or path == learner / str(workshop.script)
            yield _lacks(path, "missing", "atlas build" if generated else f"write it, or git restore {_shown(path)}")
    for path in [*_files(learner), *_files(solution)]:
        known = {learner / "figures": (".svg", *PHOTOGRAPHS), learner / "checkpoints": (".pt", ".txt")}
        if path not in wanted and path.suffix not in known.get(path.parent, ()):
            yield _unknown(path, "is no part of a workshop")


def readme(workshop: Workshop) -> Iterator[Problem]:
    """Length, sections in order, and what can be counted in them."""
    path = workshop.folder / "README.md"
    text = _read(path)
    if not text:
        return
    words = count_words(text)
    if not WORDS[0] <= words <= WORDS[1]:
        yield _lacks(
            path, f"has {words} words, not {WORDS[0]} to {WORDS[1]}", "write or cut (tables, code: not counted)"
        )
    sections = _sections(text)
    places = []
    for title, key in README_SECTIONS.items():
        place = next((place for place, heading in enumerate(sections) if key in heading.lower()), None)
        if place is None:
            yield _lacks(path, f"has no section about: {title.lower()}", f"add the heading `## {title}` and its text")
        else:
            places.append(place)
    if places != sorted(places):
        yield _lacks(path, "has its sections out of order", f"put them so: {', '.join(README_SECTIONS)}")
    outcomes = len(_items(_section(sections, "able to do")))
    yield from _count(
        path, "outcome", outcomes, OUTCOMES, "list under `## What you will be able to do`, `- Derive ...`"
    )
    resources = len(_items(_section(sections, "resources")))
    yield from _count(path, "resource", resources, RESOURCES, "list under `## Resources`, each with why to read it")


def figures(workshop: Workshop) -> Iterator[Problem]:
    """Diagrams are there, photographs may be; all of them whole, and shown with alt text."""
    drawn = sorted((workshop.folder / "figures").glob("*.svg"))
    taken = [path for path in sorted((workshop.folder / "figures").glob("*")) if path.suffix in PHOTOGRAPHS]
    if len(drawn) < FIGURES:
        yield _lacks(workshop.folder / "figures", f"has {len(drawn)} SVG figures, not {FIGURES} or more", "draw them")
    text = _read(workshop.folder / "README.md") + "\n\n" + _text_of_notebook(workshop)
    shown = dict(_images(text))
    for path in drawn:
        try:
            ElementTree.parse(path)
        except ElementTree.ParseError as error:
            yield _lacks(path, f"is not well-formed SVG: {error}", "draw it again")
    for path in taken:
        yield from _photograph(path, text)
    for path in [*drawn, *taken]:
        name = f"figures/{path.name}"
        if name not in shown:
            yield _lacks(path, "is shown nowhere", f"put ![what it shows]({name}) into the README, or remove it")
        elif not shown[name].strip():
            yield _lacks(path, "is shown without alt text", f"say what it shows: ![...]({name})")
    for name in sorted(shown):
        if "://" not in name and not (workshop.folder / name).exists():
            yield _lacks(workshop.folder / "README.md", f"shows {name}, which is not there", "draw it, or take it out")


def _photograph(path: Path, text: str) -> Iterator[Problem]:
    """A photograph is an image, small, and the text around it names its licence."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError) as error:
        yield _lacks(path, f"is no image that can be read: {error}", "save it again")
    if (size := path.stat().st_size) > PHOTOGRAPH_BYTES:
        what = f"has {size / 1000:,.0f} kB, not {PHOTOGRAPH_BYTES / 1000:,.0f} or less"
        yield _lacks(path, what, "make it smaller, or save it as webp")
    paragraphs = text.split("\n\n")
    around = [
        "\n".join(paragraphs[max(0, n - 1) : n + 2])
        for n, each in enumerate(paragraphs)
        if f"figures/{path.name}" in each
    ]
    if around and not any(map(LICENCE.search, around)):
        yield _lacks(path, "is shown without its licence", "name source and licence beside it, for example CC BY 4.0")


def checkpoints(workshop: Workshop) -> Iterator[Problem]:
    """Each holds data only and is small, is used, and has the log of the command that made it beside it."""
    folder = workshop.folder / "checkpoints"
    used = "\n".join([_read(workshop.folder / "README.md"), *(source for _, source in _cells(workshop.notebook))])
    for path in sorted(folder.glob("*.pt")):
        import torch

        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever it is that torch meets
            yield _lacks(path, f"does not load with weights_only=True: {type(error).__name__}", "make it again")
        if (size := path.stat().st_size) > CHECKPOINT_BYTES:
            what = f"has {size / 1000:,.0f} kB, not {CHECKPOINT_BYTES / 1000:,.0f} or less"
            yield _lacks(path, what, "train a smaller network, or keep the weights only")
        log = path.with_suffix(".txt")
        if not _read(log).startswith(f"$ python {workshop.script} "):
            what = f"begins not with the command that made {path.name}: $ python {workshop.script} ..."
            yield _lacks(log, what, "keep the command and all that it said, seconds too, in this file")
        if not re.search(rf"\b{re.escape(path.stem)}\b", used):
            yield _lacks(path, "is named neither in README nor notebook", "say what it is for, or remove it")
    for path in sorted(folder.glob("*.txt")):
        if not path.with_suffix(".pt").exists():
            yield _unknown(path, "is the log of no checkpoint")


def agenda(workshop: Workshop) -> Iterator[Problem]:
    """Minutes add up, each exercise has its place and time, and there are breaks."""
    path, items = workshop.folder / "workshop.toml", workshop.agenda
    low, high = WORKSHOP_MINUTES
    if not low <= workshop.minutes <= high:
        yield _lacks(path, f"takes {workshop.minutes} minutes, not {low} to {high}", "cut or add agenda items")
    total = sum(item.minutes for item in items)
    if total != workshop.minutes:
        yield _lacks(path, f"agenda adds up to {total} minutes, not {workshop.minutes}", "change [[agenda]] or minutes")
    places = Counter(name for item in items for name in item.exercises)
    minutes = {exercise.name: exercise.minutes for exercise in workshop.exercises}
    for name in minutes:
        if places[name] != 1:
            yield _lacks(
                path, f"exercise {name} is in {places[name]} agenda items", "name it in exactly one [[agenda]]"
            )
    for item in items:
        needed = sum(minutes[name] for name in item.exercises)
        if needed > item.minutes:
            what = f"agenda item {item.title!r} has {item.minutes} minutes for exercises of {needed}"
            yield _lacks(path, what, "give it more, or the exercises less")
    stretch = 0
    for item in items:
        stretch = 0 if item.kind == "break" else stretch + item.minutes
        if stretch > WITHOUT_BREAK >= stretch - item.minutes:
            what = f"no break in the {stretch} minutes until the end of {item.title!r}"
            yield _lacks(
                path, what, f'put an [[agenda]] with kind = "break" so that no stretch is over {WITHOUT_BREAK}'
            )


def exercises(workshop: Workshop) -> Iterator[Problem]:
    """Their number and minutes, and a check with hints for each."""
    from atlas.checking import load_checks

    toml, path = workshop.folder / "workshop.toml", workshop.folder / "checks.py"
    in_notebook = sum(exercise.where == "notebook" for exercise in workshop.exercises)
    yield from _count(toml, "notebook exercise", in_notebook, NOTEBOOK_EXERCISES, "add or remove [[exercise]]")
    in_script = len(workshop.exercises) - in_notebook
    yield from _count(toml, "script exercise", in_script, SCRIPT_EXERCISES, "add [[exercise]] with where = the script")
    low, high = EXERCISE_MINUTES
    for exercise in workshop.exercises:
        if not low <= exercise.minutes <= high:
            what = f"exercise {exercise.name} takes {exercise.minutes} minutes, not {low} to {high}"
            yield _lacks(toml, what, "split it or join it with another")
    if not path.exists():
        return
    try:
        checks = load_checks(workshop.folder)
    except Exception as error:
        yield _lacks(path, f"does not load: {type(error).__name__}: {error}", "mend it; `atlas validate` tries again")
        return
    names = [exercise.name for exercise in workshop.exercises]
    for name in names:
        if name not in checks:
            yield _lacks(path, f"has no check for {name}", f"add @exercise(hints=[...]) def {name}(learner, rng): ...")
        else:
            yield from _count(
                path, f"hint to {name}", len(checks[name].hints), HINTS, "from a nudge to nearly the code"
            )
    for name in checks:
        if name not in names:
            yield _lacks(
                path, f"checks {name}, which is no exercise", "add its [[exercise]] to workshop.toml, or remove it"
            )


def notebook(workshop: Workshop) -> Iterator[Problem]:
    """The starter's opening, headings, checks, plots and folded answers."""
    path = workshop.notebook
    code = [source for kind, source in _cells(path) if kind == "code"]
    text = "\n".join(source for kind, source in _cells(path) if kind == "markdown")
    if not path.exists():
        return
    source = f"edit {_shown(workshop.source)}, then atlas build"
    if not code or "atlas.open(" not in code[0]:
        opening = f'begin with the imports and lab = atlas.open("{workshop.name}")'
        yield _lacks(path, "does not open with one cell that loads everything", f"{opening}; {source}")
    for heading in re.findall(r"^## .*$", text, re.MULTILINE):
        if not re.search(r"\(\d+ min\)\s*$", heading):
            yield _lacks(path, f"heading without minutes: {heading}", f"end it with `(12 min)`; {source}")
    for exercise in workshop.exercises:
        if exercise.where == "notebook" and not any(f"lab.check({exercise.name})" in cell for cell in code):
            yield _lacks(path, f"never checks {exercise.name}", f"put lab.check({exercise.name}) below it; {source}")
    plots = sum(bool(re.search(r"\b(?:plot|plt|ax(?:es)?(?:\[[^\]]*\])?)\.\w+\(", cell)) for cell in code)
    if plots < PLOTS:
        yield _lacks(
            path, f"has {plots} cells that plot, not {PLOTS} or more", f"show what the learner built; {source}"
        )
    folded = text.count("<details>")
    if folded < FOLDED_ANSWERS:
        what = f"has {folded} questions with a folded answer (<details>), not {FOLDED_ANSWERS} or more"
        yield _lacks(path, what, f"ask what is seen; {source}")


def sources(workshop: Workshop) -> Iterator[Problem]:
    """Each exercise has a region that a learner fills, and each region belongs to an exercise."""
    places = {"notebook": workshop.source}
    if workshop.script:
        places[workshop.script] = workshop.solution_folder / workshop.script
    for where, path in places.items():
        if not path.exists():
            continue
        text, names = _read(path), [exercise.name for exercise in workshop.exercises if exercise.where == where]
        try:
            regions = {region.exercise for region in build.regions(text, _shown(path))}
        except build.SourceError as error:
            yield Problem(f"{error.file}:{error.line}", error.what, "mend the marker")
            continue
        undocumented = _without_docstring(text)
        for name in names:
            if name not in regions:
                what = f"exercise {name} has no region between `{build.BEGIN}` and `{build.END}`"
                yield _lacks(path, what, "put the markers around what a learner writes")
            elif name in undocumented:
                yield _lacks(path, f"{name} has no docstring", "say what goes in and comes out, with shapes")
        for name in sorted(regions - set(names)):
            yield _lacks(path, f"region in {name}, which is no exercise here", "add its [[exercise]] to workshop.toml")


def instructor(workshop: Workshop) -> Iterator[Problem]:
    """The parts of INSTRUCTOR.md."""
    path = workshop.solution_folder / "INSTRUCTOR.md"
    text = _read(path)
    if not text:
        return
    sections = _sections(text)
    for title, key in INSTRUCTOR_SECTIONS.items():
        if not any(key in heading.lower() for heading in sections):
            yield _lacks(path, f"has no section about: {title.lower()}", f"add the heading `## {title}` and its text")
    misconceptions = _section(sections, "misconception")
    several = max(len(_items(misconceptions)), len(re.findall(r"^### ", misconceptions, re.MULTILINE)))
    if several < MISCONCEPTIONS:
        what = f"has {several} misconceptions, not {MISCONCEPTIONS}"
        yield _lacks(path, what, "list them with the question that dissolves each")
    quiz = _section(sections, "quiz")
    questions = len(re.findall(r"^(?:### )?\d+[.)] ", quiz, re.MULTILINE))
    if questions != QUIZ_QUESTIONS:
        what = f"has a quiz of {questions} numbered questions, not {QUIZ_QUESTIONS}"
        yield _lacks(path, what, "write `1. Question`, with the answer below it")
    if "nswer" not in quiz:
        yield _lacks(path, "has a quiz without answers", "write `Answer: ...` below each question")


def datasets(workshop: Workshop) -> Iterator[Problem]:
    """Each set is in the catalog, and README or notebook name its licence."""
    from atlas.data import catalog

    toml = workshop.folder / "workshop.toml"
    if not workshop.datasets:
        reason = len(workshop.no_dataset.split())
        if not reason:
            repair = 'add datasets = ["..."] (`atlas data list` shows them), or say why: no_dataset = "because ..."'
            yield _lacks(toml, "names no dataset", repair)
        elif reason < REASON_WORDS:
            what = f"says in {reason} words why it needs no dataset, not in {REASON_WORDS} or more"
            yield _lacks(toml, what, 'make a sentence of it: no_dataset = "because ..."')
        return
    known = catalog()
    text = _letters(_read(workshop.folder / "README.md") + _text_of_notebook(workshop))
    for name in workshop.datasets:
        if name not in known:
            yield _lacks(
                toml, f"dataset {name!r} is not in datasets/catalog.toml", "atlas data list shows those that are"
            )
        elif _letters(known[name].licence) not in text:
            what = f"neither README nor notebook names the licence of {name}"
            yield _lacks(workshop.folder / "README.md", what, f"name it: {known[name].licence}")


def _answers(workshop: Workshop, answers: list) -> Iterator[Problem]:
    path = answers_file(workshop)
    if not path.exists():
        return
    names = [exercise.name for exercise in workshop.exercises]
    for name in names:
        for correct, kind, least in ((False, "wrong", WRONG), (True, "right", RIGHT)):
            several = sum(answer.exercise == name and answer.correct == correct for answer in answers)
            if several < least:
                what = f"has {several} {kind} answers to {name}, not {least} or more"
                yield _lacks(path, what, f'add @{kind}("{name}"{"" if correct else ", says=..."}) def ...')
    for name in sorted({answer.exercise for answer in answers} - set(names)):
        yield _lacks(path, f"answers {name}, which is no exercise", f"there are: {', '.join(names)}")


# ---------------------------------------------------------------------------------------------- reading


def _sections(markdown: str) -> dict[str, str]:
    """Level-2 heading → the text below it, in order; headings in code are none."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _section(sections: dict[str, str], key: str) -> str:
    return next((text for heading, text in sections.items() if key in heading.lower()), "")


def _items(text: str) -> list[str]:
    """The items of the lists in a text, not those of lists within them."""
    return re.findall(r"^(?:[-*+]|\d+[.)]) +(.+)$", text, re.MULTILINE)


def _images(text: str) -> Iterator[tuple[str, str]]:
    """(target, alt text) of each image, in Markdown or HTML."""
    for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)[^)]*\)", text):
        yield target, alt
    for tag in re.findall(r"<img[^>]*>", text):
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        yield attributes.get("src", ""), attributes.get("alt", "")


def _cells(path: Path) -> list[tuple[str, str]]:
    """(type, source) of a notebook's cells; none where it cannot be read (that is another problem's business)."""
    try:
        return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(_read(path))["cells"]]
    except (ValueError, KeyError):
        return []


def _text_of_notebook(workshop: Workshop) -> str:
    return "\n".join(source for kind, source in _cells(workshop.notebook) if kind == "markdown")


def _without_docstring(text: str) -> set[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name for node in ast.parse(text).body if isinstance(node, kinds) and not ast.get_docstring(node)}


def _files(folder: Path) -> list[Path]:
    """All files below, but for hidden ones, caches, and the `runs/` that the scripts write to."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(p.startswith(".") or p in ("__pycache__", "runs") for p in path.relative_to(folder).parts)
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _letters(text: str) -> str:
    return re.sub(r"\W", "", text).lower()


# ---------------------------------------------------------------------------------------------- problems


def _lacks(path: Path, what: str, repair: str) -> Problem:
    return Problem(_shown(path), what, repair)


def _unknown(path: Path, what: str) -> Problem:
    return Problem(_shown(path), f"unknown file: {what}", f"move it elsewhere, or git rm {_shown(path)}")


def _count(path: Path, what: str, number: int, bounds: tuple[int, int], repair: str) -> Iterator[Problem]:
    if not bounds[0] <= number <= bounds[1]:
        noun = what if number == 1 else re.sub(r"^(\w+(?: exercise)?)", r"\1s", what)
        yield _lacks(path, f"has {number} {noun}, not {bounds[0]} to {bounds[1]}", repair)


def _shown(path: Path) -> str:
    return path.relative_to(course.root()).as_posix()
