"""The path of 23 workshops, and what each one's workshop.toml says about it.

Read by everything (notebooks, command line, build, tests), so: standard library only, and strict. An unknown key, a
wrong type or a reference to nothing is a CourseError that names file and key.
"""

import os
from dataclasses import dataclass
from pathlib import Path

TRACKS = {
    "dl-foundations": "Deep learning foundations",
    "frameworks/pytorch": "PyTorch",
    "computer-vision": "Computer vision",
    "sequence-modeling": "Sequence modeling",
    "transformers-and-llms": "Transformers and LLMs",
    "frameworks/tensorflow-keras": "TensorFlow and Keras (optional)",
}
"""Track → title, in learning order."""

_TITLES = {
    "dl-foundations/perceptron-and-mlp": "Perceptron and MLP",
    "dl-foundations/backpropagation": "Backpropagation",
    "dl-foundations/initialization-and-activations": "Initialization and Activations",
    "dl-foundations/optimization-sgd-adam": "Optimization: SGD to Adam",
    "dl-foundations/regularization-dropout-batchnorm": "Regularization: Dropout and BatchNorm",
    "frameworks/pytorch/pytorch-basics": "PyTorch Basics",
    "frameworks/pytorch/tensors-and-autograd": "Tensors and Autograd",
    "frameworks/pytorch/datasets-and-dataloaders": "Datasets and DataLoaders",
    "frameworks/pytorch/training-loops": "Training Loops",
    "frameworks/pytorch/pytorch-model-export-deployment": "Model Export and Deployment",
    "computer-vision/cnn-basics": "CNN Basics",
    "computer-vision/modern-cnns-resnet-densenet": "Modern CNNs: ResNet, DenseNet and Vision Transformers",
    "computer-vision/transfer-learning": "Transfer Learning",
    "sequence-modeling/rnn-lstm-gru": "RNN, LSTM and GRU",
    "sequence-modeling/sequence-to-sequence": "Sequence to Sequence",
    "sequence-modeling/attention-for-sequences": "Attention for Sequences",
    "transformers-and-llms/attention-basics": "Attention Basics",
    "transformers-and-llms/transformer-architecture": "Transformer Architecture",
    "transformers-and-llms/llm-overview": "LLM Overview",
    "frameworks/tensorflow-keras/tf-keras-basics": "TF Keras Basics",
    "frameworks/tensorflow-keras/tf-data-pipelines": "tf.data Pipelines",
    "frameworks/tensorflow-keras/custom-training-loops": "Custom Training Loops",
    "frameworks/tensorflow-keras/tf-serving-and-tf-lite": "TF Serving and TF Lite",
}
PATH = tuple(_TITLES)
"""The 23 workshop ids, "track/workshop", in learning order."""

KERNEL, KERNEL_TITLE = "python3", "OpenMLAtlas (Python 3.11)"
"""The kernel of all notebooks, and what Jupyter calls it; "python3" is Jupyter's own name for an environment's."""
ENVIRONMENTS = ("openmlatlas", "openmlatlas-tensorflow")
"""What a workshop.toml may say as `kernel`: where its notebook runs (two places beside CUDA, atlas/kernel.py)."""

KINDS = ("talk", "code-along", "exercise", "discussion", "break")
"""What an agenda item can be."""

LEAVES = {
    "figure": (".png", ".svg", ".pdf"),
    "checkpoint": (".pt", ".npz"),
    "records": (".tfrecord", ".csv", ".json", ".jsonl"),
    "model": (".onnx", ".pt2", ".safetensors", ".tflite", ".keras", ".md"),
    "arrays": (".npy",),
}
"""What a script can leave, where its option of that name says (--figure), and how the names of such files end."""


class CourseError(Exception):
    """A slip of whoever uses or edits the course; the message says how to repair it."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in the place of a traceback: the message says all."""
        return [str(self)]


class NoSuchWorkshop(CourseError):
    """A name that is nobody's."""


@dataclass(frozen=True)
class AgendaItem:
    title: str
    minutes: int
    kind: str
    exercises: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exercise:
    name: str
    title: str
    minutes: int
    where: str  # "notebook" or the script's file name


@dataclass(frozen=True)
class Workshop:
    """One workshop; a planned one has an id and a title only."""

    id: str
    title: str
    minutes: int = 0
    summary: str = ""
    planned: bool = False
    needs: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    no_dataset: str = ""  # why it needs none
    agenda: tuple[AgendaItem, ...] = ()
    exercises: tuple[Exercise, ...] = ()
    script: str | None = None
    project: str | None = None
    kernel: str = ENVIRONMENTS[0]
    script_test: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    project_test: tuple[str, ...] = ()

    @property
    def track(self) -> str:
        return self.id.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.id.rpartition("/")[2]

    @property
    def folder(self) -> Path:
        """What the learner works in."""
        return root() / "workshops" / self.id

    @property
    def solution_folder(self) -> Path:
        return root() / "solutions" / self.id

    @property
    def notebook(self) -> Path:
        """The starter notebook, generated from `source`."""
        return self.folder / f"{self.name}.ipynb"

    @property
    def source(self) -> Path:
        """The py:percent file that both notebooks are generated from."""
        return self.solution_folder / f"{self.name}.py"

    def exercise(self, name: str) -> Exercise:
        """The exercise of that name; CourseError with a suggestion when there is none."""
        for exercise in self.exercises:
            if exercise.name == name:
                return exercise
        names = [exercise.name for exercise in self.exercises]
        listed = f"it has {', '.join(names)}" if names else "it has no exercises"
        raise CourseError(f"{self.name} has no exercise {name!r}; {listed}.{did_you_mean(name, names)}")


def root() -> Path:
    """The repository: ATLAS_ROOT, else where this package lies."""
    given = os.environ.get("ATLAS_ROOT")
    return Path(given).resolve() if given else Path(__file__).resolve().parents[2]


def state_dir() -> Path:
    """Where progress and backups are kept (git-ignored): ATLAS_STATE, else .atlas. Made on demand, or OSError."""
    given = os.environ.get("ATLAS_STATE")
    folder = Path(given).resolve() if given else root() / ".atlas"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def workshops() -> list[Workshop]:
    """All 23, in learning order; those without a workshop.toml are planned."""
    return [load(id) for id in PATH]


def load(id: str) -> Workshop:
    """The workshop with that id, as its workshop.toml says."""
    file = root() / "workshops" / id / "workshop.toml"
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return Workshop(id, _TITLES[id], planned=True)
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{_shown(file)} cannot be read: {error}.{_restore(file)}") from error
    return _Reader(file).workshop(id, text)


def find(name: str | Path) -> Workshop:
    """The workshop meant by its number, name, id, a unique beginning of these, or a path inside its folder.

    Raises CourseError, with a suggestion, when that is none or several.
    """
    return load(_find_id(str(name)))


def here() -> Workshop | None:
    """The workshop in whose folder (of `workshops/` or `solutions/`) the current directory lies."""
    id = _id_of_path(Path.cwd())
    return load(id) if id else None


def select(names: list[str]) -> list[Workshop]:
    """The workshops meant by names of workshops or tracks, in the order given, each once."""
    ids: dict[str, None] = {}
    for name in names:
        track = name.strip("/").removeprefix("workshops/")
        of_track = [id for id in PATH if id.startswith(f"{track}/")]
        ids.update(dict.fromkeys(of_track or [_find_id(name, also=TRACKS)]))
    return [load(id) for id in ids]


def did_you_mean(slip: str, known) -> str:
    """' Did you mean ...?' with the nearest of the known words, or nothing when none is near.

    A word is near by its spelling, or by that of its beginning or of one of its parts ("smoothed" of smoothed_loss).
    """
    from difflib import get_close_matches

    slip = slip.lower().replace("_", "-")
    words = {word.lower().replace("_", "-"): word for word in known}
    near = [words[word] for word in get_close_matches(slip, words, n=2, cutoff=0.6)]
    parts = {word: [*word.split("-"), word[: len(slip)]] for word in words}
    if not near and len(slip) > 2:
        near = [words[word] for word in words if get_close_matches(slip, parts[word], n=1, cutoff=0.8)][:3]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def bring_back(path: str | Path) -> str:
    """How to get a file or folder of the kit back: a command, or without git where to copy it from."""
    shown = _shown(Path(path)) if Path(path).is_absolute() else str(path)
    if (root() / ".git").exists():
        return f"git restore {shown}"
    return f"download the kit once more and copy {shown} out of it"


def _find_id(name: str, also=()) -> str:
    wanted = name.strip().strip("/").lower().replace("_", "-")
    by_name = {id.rpartition("/")[2]: id for id in PATH}
    if wanted in by_name or wanted in PATH:
        return by_name.get(wanted, wanted)
    if wanted.isdecimal() and 1 <= int(wanted) <= len(PATH):
        return PATH[int(wanted) - 1]
    for path in ([Path(name)] if name and Path(name).exists() else []) + [root() / name]:
        if id := _id_of_path(path):
            return id
    meant = [id for id in PATH if wanted and (id.startswith(wanted) or id.rpartition("/")[2].startswith(wanted))]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise CourseError(f"{name!r} could be {', '.join(id.rpartition('/')[2] for id in meant)}: say which.")
    if name and Path(name).resolve() in (root(), *root().parents):
        raise CourseError(f"{name!r} is not the folder of one workshop; `atlas` lists them.")
    hint = did_you_mean(wanted.rpartition("/")[2] or name, [*by_name, *also])
    raise NoSuchWorkshop(f"There is no workshop {name!r}.{hint} `atlas` lists them all.")


def _id_of_path(path: Path) -> str | None:
    try:
        parts = path.resolve().relative_to(root()).parts
    except ValueError:
        return None
    inside = "/".join(parts[1:]) + "/"
    if not parts or parts[0] not in ("workshops", "solutions"):
        return None
    return next((id for id in PATH if inside.startswith(f"{id}/")), None)


def _shown(file: Path) -> str:
    return file.relative_to(root()).as_posix() if file.is_relative_to(root()) else str(file)


def _restore(file: Path) -> str:
    return f"\nTo get back the version of the kit: {bring_back(file)}"


_TEXT, _COUNT, _TEXTS, _TABLES = "a text", "a whole number above 0", "a list of texts", "a list of tables"
_FITS = {
    _TEXT: lambda value: isinstance(value, str) and bool(value.strip()),
    _COUNT: lambda value: type(value) is int and value > 0,
    _TEXTS: lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    _TABLES: lambda value: isinstance(value, list) and all(isinstance(item, dict) for item in value),
}
# key → (what it must be, whether it must be there)
_WORKSHOP = {
    "title": (_TEXT, True),
    "minutes": (_COUNT, True),
    "summary": (_TEXT, True),
    "needs": (_TEXTS, False),
    "datasets": (_TEXTS, False),
    "no_dataset": (_TEXT, False),
    "script": (_TEXT, False),
    "project": (_TEXT, False),
    "kernel": (_TEXT, False),
    "script_test": (_TEXTS, False),
    "leaves": (_TEXTS, False),
    "project_test": (_TEXTS, False),
    "agenda": (_TABLES, False),
    "exercise": (_TABLES, False),
}
_AGENDA = {"title": (_TEXT, True), "minutes": (_COUNT, True), "kind": (_TEXT, True), "exercises": (_TEXTS, False)}
_EXERCISE = {"name": (_TEXT, True), "title": (_TEXT, True), "minutes": (_COUNT, True), "where": (_TEXT, False)}


class _Reader:
    """Turns one workshop.toml into a Workshop; holds the file so that each error can name it."""

    def __init__(self, file: Path):
        self.file = file

    def workshop(self, id: str, text: str) -> Workshop:
        import tomllib

        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise self.error("", f"is not valid TOML: {error}") from error
        data = self.table("", data, _WORKSHOP)
        agenda = tuple(self.agenda_item(number, item) for number, item in enumerate(data.pop("agenda", []), 1))
        script = data.get("script")
        exercises = tuple(
            self.exercise(number, item, script) for number, item in enumerate(data.pop("exercise", []), 1)
        )
        self.references(agenda, exercises)
        if (kernel := data.get("kernel", ENVIRONMENTS[0])) not in ENVIRONMENTS:
            hint = did_you_mean(kernel, ENVIRONMENTS)
            raise self.error("", f"kernel {kernel!r} is none of {', '.join(ENVIRONMENTS)}.{hint}")
        self.leaves(script, data.get("leaves"))
        if data.get("datasets") and "no_dataset" in data:
            raise self.error(
                "", "no_dataset says why there is no dataset, and datasets names some: keep one of the two"
            )
        return Workshop(id=id, agenda=agenda, exercises=exercises, **data)

    def agenda_item(self, number: int, item: dict) -> AgendaItem:
        where = f"[[agenda]] {number}"
        item = AgendaItem(**self.table(where, item, _AGENDA))
        if item.kind not in KINDS:
            hint = did_you_mean(item.kind, KINDS)
            raise self.error(where, f"kind {item.kind!r} is none of {', '.join(KINDS)}.{hint}")
        return item

    def exercise(self, number: int, item: dict, script: str | None) -> Exercise:
        where = f"[[exercise]] {number}"
        exercise = Exercise(**{"where": "notebook"} | self.table(where, item, _EXERCISE))
        if not exercise.name.isidentifier():
            raise self.error(where, f"name {exercise.name!r} is not the name of a function or class")
        places = ["notebook", *([script] if script else [])]
        if exercise.where not in places:
            hint = did_you_mean(exercise.where, places)
            raise self.error(where, f"where is {exercise.where!r}, not 'notebook' or the script's file name.{hint}")
        return exercise

    def references(self, agenda: tuple[AgendaItem, ...], exercises: tuple[Exercise, ...]) -> None:
        names = [exercise.name for exercise in exercises]
        for number, name in enumerate(names, 1):
            if name in names[: number - 1]:
                raise self.error(f"[[exercise]] {number}", f"name {name!r} is there twice")
        for number, item in enumerate(agenda, 1):
            for name in item.exercises:
                if name not in names:
                    hint = did_you_mean(name, names)
                    raise self.error(f"[[agenda]] {number}", f"exercises: there is no [[exercise]] {name!r}.{hint}")

    def leaves(self, script: str | None, leaves: tuple[str, ...] | None) -> None:
        if script and leaves is None:
            raise self.error(
                "", f"key 'leaves' is missing: a list of {', '.join(LEAVES)}, as {script} does; [] for nothing"
            )
        if leaves and not script:
            raise self.error("", "leaves says what the script leaves, and no script is named")
        for number, name in enumerate(leaves or ()):
            if name not in LEAVES:
                hint = did_you_mean(name, LEAVES)
                raise self.error("", f"leaves: {name!r} is none of {', '.join(LEAVES)}.{hint}")
            if name in leaves[:number]:
                raise self.error("", f"leaves: {name!r} is there twice")

    def table(self, where: str, data: dict, keys: dict) -> dict:
        """The data, checked against its keys, lists turned into tuples."""
        for key, value in data.items():
            if key not in keys:
                raise self.error(where, f"unknown key {key!r}.{did_you_mean(key, keys)}")
            kind, _ = keys[key]
            if not _FITS[kind](value):
                raise self.error(where, f"{key} must be {kind}, not {value!r}")
        for key, (kind, needed) in keys.items():
            if needed and key not in data:
                raise self.error(where, f"key {key!r} is missing: {kind}")
        return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}

    def error(self, where: str, what: str) -> CourseError:
        place = f"{_shown(self.file)}: {where}: " if where else f"{_shown(self.file)}: "
        return CourseError(place + what + _restore(self.file))
