"""The path, workshop.toml, and what a name means."""

import subprocess
import sys
import tomllib

import pytest

from atlas import course
from atlas.course import CourseError
from made_up import FIRST, SECOND, SECOND_WORKSHOP, WORKSHOP, write


def test_the_path_is_the_23_workshops_track_after_track():
    assert len(course.PATH) == len(set(course.PATH)) == 23
    assert list(dict.fromkeys(course.load(id).track for id in course.PATH)) == list(course.TRACKS)
    assert len({course.load(id).name for id in course.PATH}) == 23, "a workshop's name alone says which"


def test_every_workshop_toml_of_the_repository_can_be_read():
    there = [each for each in course.workshops() if not each.planned]
    assert {each.folder for each in there} == {
        file.parent for file in (course.root() / "workshops").rglob("workshop.toml")
    }


def test_a_workshop_is_what_its_toml_says(small_course):
    workshop = course.load(FIRST)
    data = tomllib.loads(WORKSHOP)
    assert (workshop.title, workshop.minutes, workshop.script) == (data["title"], data["minutes"], data["script"])
    assert [item.kind for item in workshop.agenda] == ["talk", "exercise"]
    assert [each.name for each in workshop.exercises] == ["perceptron_step", "multiply", "count_down"]
    assert [each.where for each in workshop.exercises] == ["notebook", "notebook", "count.py"]
    assert workshop.kernel == "openmlatlas"
    assert workshop.notebook == small_course / "workshops" / FIRST / "perceptron-and-mlp.ipynb"
    assert workshop.source == small_course / "solutions" / FIRST / "perceptron-and-mlp.py"


def test_a_workshop_without_toml_is_planned_and_has_a_title(small_course):
    there = [each.id for each in course.workshops() if not each.planned]
    assert there == [FIRST, SECOND]
    assert course.find("cnn-basics").planned
    assert course.find("cnn-basics").title == "CNN Basics"


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ('summary = "', 'sumary = "', "unknown key 'sumary'. Did you mean 'summary'?"),
        ("minutes = 60", "", "key 'minutes' is missing: a whole number above 0"),
        ("minutes = 60", 'minutes = "60"', "minutes must be a whole number above 0, not '60'"),
        ("minutes = 60", "minutes = 0", "minutes must be a whole number above 0, not 0"),
        ("minutes = 60", "minutes = true", "minutes must be a whole number above 0, not True"),
        ('needs = ["Counting"]', 'needs = "Counting"', "needs must be a list of texts, not 'Counting'"),
        ('needs = ["Counting"]', 'needs = ["Counting"', "is not valid TOML"),
        ('title = "Sums and Products"', 'title = " "', "title must be a text, not ' '"),
        (
            "minutes = 60",
            'minutes = 60\nkernel = "openmlatlas-tensorflwo"',
            "'openmlatlas-tensorflwo' is none of openmlatlas,",
        ),
        ('kind = "talk"', 'kind = "tlak"', "[[agenda]] 1: kind 'tlak' is none of talk, code-along,"),
        ('kind = "talk"', 'kind = "tlak"', "Did you mean 'talk'?"),
        ('kind = "talk"', 'sort = "talk"', "[[agenda]] 1: unknown key 'sort'"),
        ('"perceptron_step", "multiply"', '"multipli"', "[[agenda]] 2: exercises: there is no [[exercise]] 'multipli'"),
        ('name = "count_down"', 'name = "multiply"', "[[exercise]] 3: name 'multiply' is there twice"),
        (
            'name = "count_down"',
            'name = "count down"',
            "[[exercise]] 3: name 'count down' is not the name of a function",
        ),
        (
            'where = "count.py"',
            'where = "cuont.py"',
            "[[exercise]] 3: where is 'cuont.py', not 'notebook' or the script's",
        ),
        ('where = "count.py"', 'where = "cuont.py"', "Did you mean 'count.py'?"),
        ('script = "count.py"', "script_test = [1]", "script_test must be a list of texts, not [1]"),
        ("[[exercise]]", "[exercise]", "is not valid TOML"),
        (
            "leaves = []",
            "",
            "key 'leaves' is missing: a list of figure, checkpoint, records, model, arrays, as count.py does",
        ),
        ("leaves = []", 'leaves = "figure"', "leaves must be a list of texts, not 'figure'"),
        ("leaves = []", 'leaves = ["figur"]', "leaves: 'figur' is none of figure, checkpoint, records, model, arrays."),
        ("leaves = []", 'leaves = ["figur"]', "Did you mean 'figure'?"),
        ("leaves = []", 'leaves = ["figure", "figure"]', "leaves: 'figure' is there twice"),
        ('datasets = ["mnist"]', 'no_dataset = ""', "no_dataset must be a text, not ''"),
        (
            'datasets = ["mnist"]',
            'datasets = ["mnist"]\nno_dataset = "because"',
            "no_dataset says why there is no dataset, and datasets names some: keep one of the two",
        ),
    ],
)
def test_a_slip_in_workshop_toml_is_an_error_that_names_file_and_key(small_course, good, bad, says):
    assert good in WORKSHOP
    (small_course / ".git").mkdir()
    write(small_course / "workshops" / FIRST / "workshop.toml", WORKSHOP.replace(good, bad))
    with pytest.raises(CourseError) as error:
        course.workshops()
    assert str(error.value).startswith(f"workshops/{FIRST}/workshop.toml: ")
    assert says in str(error.value)
    assert f"git restore workshops/{FIRST}/workshop.toml" in str(error.value)


def test_what_a_script_leaves_goes_with_a_script(small_course):
    write(small_course / "workshops" / SECOND / "workshop.toml", 'leaves = ["figure"]' + SECOND_WORKSHOP)
    with pytest.raises(CourseError, match="leaves says what the script leaves, and no script is named"):
        course.load(SECOND)


def test_optional_keys_may_be_there(small_course):
    more = 'script_test = ["--epochs", "1"]\nproject_test = []\nproject = "p.py"\nkernel = "openmlatlas-tensorflow"\n'
    more += 'no_dataset = "because it counts fingers"\n'
    given = WORKSHOP.replace('datasets = ["mnist"]', "").replace(
        "leaves = []", 'leaves = ["figure", "model", "arrays"]'
    )
    write(small_course / "workshops" / FIRST / "workshop.toml", more + given)
    workshop = course.load(FIRST)
    assert workshop.script_test == ("--epochs", "1")
    assert (workshop.project_test, workshop.project, workshop.kernel) == ((), "p.py", "openmlatlas-tensorflow")
    assert (workshop.leaves, workshop.datasets) == (("figure", "model", "arrays"), ())
    assert workshop.no_dataset == "because it counts fingers"


@pytest.mark.parametrize(
    "name",
    [
        "perceptron-and-mlp",
        "dl-foundations/perceptron-and-mlp",
        "Perceptron_and_MLP",
        "perc",
        "dl-foundations/perc",
        "1",
        "workshops/dl-foundations/perceptron-and-mlp",
        "workshops/dl-foundations/perceptron-and-mlp/",
        "workshops/dl-foundations/perceptron-and-mlp/count.py",
        "solutions/dl-foundations/perceptron-and-mlp/perceptron-and-mlp.ipynb",
        "./workshops/dl-foundations/perceptron-and-mlp/figures",
    ],
)
def test_a_workshop_is_found_by(small_course, name):
    assert course.find(name).id == FIRST


def test_a_workshop_is_found_by_the_folder_one_is_in(small_course, monkeypatch):
    assert course.here() is None
    monkeypatch.chdir(small_course / "workshops" / SECOND)
    assert course.here().id == SECOND
    assert course.find(".").id == SECOND
    assert course.find("workshop.toml").id == SECOND
    assert course.find("../perceptron-and-mlp").id == FIRST
    assert course.find("workshops/" + FIRST).id == FIRST, "from the top of the repository too"
    with pytest.raises(CourseError, match="no workshop 'zebra'"):
        course.find("zebra")
    monkeypatch.chdir(small_course / "solutions" / FIRST)
    assert course.here().id == FIRST


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("percepton-and-mlp", "Did you mean 'perceptron-and-mlp'?"),
        ("dl-foundations/backprobagation", "Did you mean 'backpropagation'?"),
        ("attention", "'attention' could be attention-for-sequences, attention-basics: say which."),
        ("zebra", "There is no workshop 'zebra'. `atlas` lists them all."),
        ("", "There is no workshop ''"),
        (".", "not the folder of one workshop"),
        ("0", "There is no workshop '0'"),
        ("24", "There is no workshop '24'"),
        ("/", "not the folder of one workshop"),
    ],
)
def test_a_name_that_means_none_or_several_gets_help(small_course, name, says):
    with pytest.raises(CourseError) as error:
        course.find(name)
    assert says in str(error.value)


def test_tracks_and_workshops_can_be_selected_together_each_once():
    chosen = [each.name for each in course.select(["cnn-basics", "computer-vision", "frameworks/pytorch", "cnn"])]
    assert chosen[:3] == ["cnn-basics", "modern-cnns-resnet-densenet", "transfer-learning"]
    assert len(chosen) == len(set(chosen)) == 8
    assert len(course.select(["frameworks"])) == 9, "both frameworks"
    with pytest.raises(CourseError, match="Did you mean 'dl-foundations'"):
        course.select(["dl-foundatons"])


def test_an_exercise_is_found_by_its_name_or_with_a_suggestion(small_course):
    assert course.load(FIRST).exercise("multiply").minutes == 5
    with pytest.raises(CourseError, match=r"it has perceptron_step, multiply, count_down\. Did you mean 'multiply'\?"):
        course.load(FIRST).exercise("multipli")


def test_reading_the_course_imports_nothing_heavy():
    code = "import sys; from atlas import course, progress; course.workshops(); progress.read(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "typer", "rich", "pydantic", "torch", "tensorflow", "IPython", "filelock"} & set(loaded)


def test_how_to_get_a_file_back_is_told_by_git_only_where_there_is_git(small_course):
    file = small_course / "solutions" / FIRST / "count.py"
    assert course.bring_back(file) == f"download the kit once more and copy solutions/{FIRST}/count.py out of it"
    (small_course / ".git").mkdir()
    assert course.bring_back(file) == f"git restore solutions/{FIRST}/count.py"
    assert course.bring_back("solutions") == "git restore solutions"


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("regularisation", "regularization-dropout"),
        ("dropout", "regularization-dropout"),
        ("smoothed", "smoothed_loss"),
        ("Smoothed_los", "smoothed_loss"),
        ("adm", "adam"),
        ("zz", None),
        ("weather", None),
    ],
)
def test_a_word_is_meant_by_its_spelling_its_beginning_or_one_of_its_parts(slip, meant):
    said = course.did_you_mean(slip, ["regularization-dropout", "smoothed_loss", "adam"])
    assert said == (f" Did you mean {meant!r}?" if meant else "")
