"""The command line as a person meets it: what it says, after slips too, and with what it exits."""

import contextlib
import http.client
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import pytest

from atlas import cli, course, doctor, progress
from made_up import FIRST, SECOND, answer, write

ATLAS = Path(sys.executable).with_name("atlas")
FIRST_NAME = "perceptron-and-mlp"
COMMANDS = [
    *("start", "check", "hint", "solution", "reset", "progress", "agenda", "doctor", "build", "validate", "new"),
    *("data", "data list", "data fetch", "data verify"),
]


@pytest.fixture
def atlas(small_course, capsys, monkeypatch):
    """Run a command line in the made-up course: (exit code, what it printed, what it complained)."""
    monkeypatch.setattr(doctor, "_PROBES", dict.fromkeys(doctor._PROBES, "print('{}')"))

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        try:
            cli.main(line.split())
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def solve() -> None:
    answer(
        course.root(),
        perceptron_step="return sum(numbers)",
        multiply="return numbers[0] * numbers[1] * numbers[2]",
        count_down="return range(n, 0, -1)",
    )


# ------------------------------------------------------------------------------------------------ the path


def test_the_path_shows_23_workshops_by_track_with_progress_and_what_to_type_next(atlas):
    progress.record(FIRST_NAME, "perceptron_step", "passed")
    code, out, _ = atlas("")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows if row and row[0].isdecimal()] == [str(number) for number in range(1, 24)]
    assert ["1", "▶", FIRST_NAME, "60", "min", "1/3"] in rows
    assert ["2", "backpropagation", "90", "min", "0/1"] in rows
    assert out.count("planned") == 21
    for track in course.TRACKS.values():
        assert track in out
    assert "Go on with Sums and Products. Type:  atlas start" in out
    assert "atlas check" in out


def test_the_path_goes_on_to_the_next_workshop_when_one_is_complete(atlas):
    assert "Next: Sums and Products." in atlas("")[1]
    for name, status in (("perceptron_step", "passed"), ("multiply", "passed"), ("count_down", "caught_up")):
        progress.record(FIRST_NAME, name, status)
    out = atlas("")[1]
    assert re.search(r"1 +✔ +perceptron-and-mlp +60 min +2/3 \(\+1 caught up\)", out)
    assert re.search(r"2 +▶ +backpropagation", out)
    assert "Next: Second." in out
    progress.record("backpropagation", "double", "passed")
    assert "You have been through all that is there." in atlas("")[1]
    code, _, err = atlas("start")
    assert (code, "say which workshop" in err) == (2, True)


# ------------------------------------------------------------------------------------------------ help


def test_the_commands_are_these():
    group = cli.typer.main.get_command(cli.app)
    assert sorted([*group.commands, *(f"data {name}" for name in group.commands["data"].commands)]) == sorted(COMMANDS)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help_with_an_example_that_runs(atlas, monkeypatch, command):
    code, out, _ = atlas(f"{command} --help")
    assert code == 0
    (example,) = re.findall(r"^ *Example: atlas (.+)$", out, re.MULTILINE)
    assert example.startswith(command)
    monkeypatch.setenv("TERM_PROGRAM", "vscode")  # so that `start` does not stay
    monkeypatch.setenv("PATH", "")
    code, out, err = atlas(example)
    assert code in (0, 1), "1: not passed, not ready, not complete"
    assert "kit's fault" not in err
    assert out or err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_in_the_list_of_commands_is_not_cut_off(atlas, command):
    assert "..." not in re.sub(r"\[?\{?\w+[]}]\.\.\.|\[ARGS\]\.\.\.", "", atlas(f"{command} -h")[1])


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("chekc", "Did you mean 'check'?"),
        ("data verfy", "Did you mean 'verify'?"),
        ("check percepton-and-mlp", "Did you mean 'perceptron-and-mlp'"),
        ("start backprobagation", "Did you mean 'backpropagation'?"),
        ("agenda dl-foundatons", "Did you mean 'dl-foundations'?"),
        ("progress computer-vison", "Did you mean 'computer-vision'?"),
        ("check perceptron-and-mlp multipli", "Did you mean 'multiply'?"),
        ("check multipli", "Did you mean 'multiply'?"),
        ("hint percptron_step", "Did you mean 'perceptron_step'"),
        ("hint smoothed", "There is no workshop and no exercise 'smoothed'"),
        ("check regularisation", "Did you mean 'regularization-dropout-batchnorm'?"),
        ("check dropout", "Did you mean 'regularization-dropout-batchnorm'?"),
        ("hint step", "Did you mean 'perceptron_step'?"),
        ("hint foo", "no workshop and no exercise 'foo'. `atlas` lists the workshops, `atlas progress WORKSHOP`"),
        ("solution", "Say which: atlas solution perceptron-and-mlp perceptron_step|multiply|count_down"),
        ("solution multipli", "Did you mean 'multiply'?"),
        ("data fetch mnits", 'did you mean "mnist"?'),
        ("data verify mnits", 'did you mean "mnist"?'),
        ("reset --progres", "--progress"),
        ("agenda --start nine", "--start 09:00"),
        ("start cnn-basics", "planned and not there yet"),
        ("check cnn-basics", "planned and not there yet"),
        ("agenda cnn-basics", "no agenda yet"),
        ("hint attention", "could be attention-for-sequences, attention-basics"),
        ("new cnn", "cnn-basics"),
    ],
)
def test_a_slip_of_the_pen_gets_a_suggestion(atlas, slip, meant):
    code, out, err = atlas(slip)
    assert meant in out + err
    assert "Traceback" not in err
    assert code == 2 or slip == "new cnn"


# ------------------------------------------------------------------------------------------------ check and hint


def test_check_reports_each_exercise_and_records_it(atlas, small_course):
    answer(small_course, perceptron_step="return sum(numbers)", multiply="return numbers[0]")
    code, out, _ = atlas("check")
    assert code == 1
    assert "✔ perceptron_step" in out
    assert "✘ multiply   multiplies" in out
    assert "○ count_down" in out
    assert "1 of 3 passed. A hint: atlas hint perceptron-and-mlp" in out
    assert progress.statuses(course.load(FIRST), progress.read()) == {
        "perceptron_step": "passed",
        "multiply": "failed",
        "count_down": "untouched",
    }


def test_check_ends_with_success_when_all_is_passed(atlas):
    solve()
    code, out, _ = atlas("check")
    assert (code, "3 of 3 passed." in out) == (0, True)


@pytest.mark.parametrize(
    "words",
    ["perceptron-and-mlp multiply", "multiply", "1 multiply", "workshops/dl-foundations/perceptron-and-mlp multiply"],
)
def test_check_of_one_exercise_looks_at_that_only(atlas, small_course, words):
    answer(small_course, multiply="return 42")
    code, out, _ = atlas(f"check {words}")
    assert (code, "1 of 1 passed" in out) == (0, True)
    assert "perceptron_step" not in out


def test_an_exercise_that_two_workshops_have_is_asked_about_or_taken_from_the_one_last_opened(
    atlas, small_course, monkeypatch
):
    twin = small_course / "workshops" / SECOND / "workshop.toml"
    agenda = '[[agenda]]\ntitle = "Twin"\nminutes = 5\nkind = "exercise"\nexercises = ["multiply"]\n'
    twin.write_text(
        twin.read_text() + agenda + '[[exercise]]\nname = "multiply"\ntitle = "M"\nminutes = 5\nwhere = "notebook"\n'
    )
    first, second = (id.rpartition("/")[2] for id in (FIRST, SECOND))
    code, _, err = atlas("check multiply")
    assert code and "2 workshops have an exercise multiply" in err and f"{second} multiply" in err
    progress.opened(first)
    assert second not in "".join(atlas("check multiply")[1:])
    monkeypatch.setattr(progress, "_now", lambda: "2999-01-01T00:00:00+00:00")
    progress.opened(second)
    assert f"{second}/checks.py" in atlas("check multiply")[2]  # which this one lacks
    monkeypatch.chdir(small_course / "workshops" / FIRST)
    assert second not in "".join(atlas("check multiply")[1:])


def test_check_runs_definitions_only(atlas, small_course):
    solve()
    script = small_course / "workshops" / FIRST / "count.py"
    script.write_text(script.read_text() + "\nopen('was-run', 'w')\nraise SystemExit(7)\n")
    assert atlas("check")[0] == 0
    assert not (small_course / "was-run").exists()


def test_a_notebook_that_is_broken_does_not_keep_the_script_from_being_checked(atlas, small_course):
    solve()
    (small_course / "workshops" / FIRST / "perceptron-and-mlp.ipynb").write_text('{"cells": [')
    code, out, err = atlas("check")
    assert code == 1
    assert "✔ count_down" in out
    assert "perceptron-and-mlp.ipynb" in err
    assert "atlas reset" in err
    assert "1 of 3 passed" in out


def test_a_cell_with_a_syntax_error_is_named_and_hides_no_other(atlas, small_course):
    answer(small_course, perceptron_step="return sum(numbers)", multiply="return numbers[0] *")
    code, out, err = atlas("check")
    assert (code, "✔ perceptron_step" in out) == (1, True)
    assert "perceptron-and-mlp.ipynb, code cell" in err and "return numbers[0] *" in err


def test_a_file_that_is_missing_is_named_with_the_command_that_brings_it_back(atlas, small_course):
    (small_course / "workshops" / FIRST / "count.py").unlink()
    code, _, err = atlas("check")
    assert code == 1
    assert f"workshops/{FIRST}/count.py is missing. To get a fresh one: atlas reset perceptron-and-mlp" in err


def test_a_function_that_was_renamed_is_said_to_be_missing(atlas, small_course):
    script = small_course / "workshops" / FIRST / "count.py"
    script.write_text(script.read_text().replace("def count_down", "def countdown"))
    code, out, _ = atlas("check count_down")
    assert (code, f"count_down   is not defined in workshops/{FIRST}/count.py" in out) == (1, True)


def test_the_workshop_is_the_one_in_whose_folder_one_is(atlas, small_course, monkeypatch):
    monkeypatch.chdir(small_course / "workshops" / SECOND)
    assert "Second, 90 min" in atlas("agenda")[1]
    assert "Second, 90 min" in atlas("agenda .")[1]
    monkeypatch.chdir(small_course / "workshops" / FIRST)
    assert "Sums and Products, 60 min" in atlas("agenda")[1]
    _, out, _ = atlas("check")
    assert "perceptron_step" in out


def test_hints_are_given_one_after_the_other_to_the_first_open_exercise(atlas):
    assert "Sums begin at zero." in atlas("hint")[1]
    assert "Use sum()." in atlas("hint")[1]
    assert "Ranges go down too." in atlas("hint count_down")[1]
    progress.record(FIRST_NAME, "perceptron_step", "passed")
    assert "Products begin at one." in atlas("hint perceptron-and-mlp")[1]


def test_the_solution_of_one_exercise_is_shown_and_counts_as_nothing(atlas):
    code, out, _ = atlas("solution multiply")
    assert (code, "One solution to multiply" in out, "product *= number" in out) == (0, True, True)
    assert "return range" in atlas("solution perceptron-and-mlp count_down")[1]
    assert progress.read()["workshops"] == {}


def test_what_lies_beside_the_notebook_is_seen_as_in_the_notebook(atlas, small_course, monkeypatch):
    folder = small_course / "workshops" / FIRST
    write(folder / "my_sums.py", "from pathlib import Path\n\n\ndef add(numbers):\n    return sum(numbers)\n")
    write(folder / "start.txt", "1")
    answer(small_course, perceptron_step="return my_sums.add(numbers)", multiply="return START * times(numbers)")
    notebook = folder / "perceptron-and-mlp.ipynb"
    cells = json.loads(notebook.read_text())
    text = "import math\nimport my_sums\nSTART = int(open('start.txt').read())\ntimes = lambda n: math.prod(n)\n"
    cells["cells"][0] |= {"cell_type": "code", "source": text, "outputs": [], "execution_count": None}
    notebook.write_text(json.dumps(cells))
    for where in (small_course, folder):
        monkeypatch.chdir(where)
        code, out, err = atlas("check perceptron-and-mlp perceptron_step multiply")
        assert (code, "2 of 2 passed" in out, err) == (0, True, "")
    assert "my_sums" not in sys.modules and Path.cwd() == folder


def test_a_file_that_hides_a_package_is_named_and_what_does_not_need_it_is_checked(atlas, small_course):
    solve()
    file = write(small_course / "workshops" / FIRST / "torch.py", "")
    code, out, err = atlas("check")
    assert (code, "3 of 3 passed" in out) == (0, True)
    assert "torch.py in this folder hides the package torch: rename torch.py" in err and str(file) in err


@pytest.mark.parametrize("module", ["numpy", "typer", "json", "typing"])
def test_another_package_on_pythonpath_is_named_and_no_command_ends_in_a_traceback(small_course, module):
    other = write(small_course / "other" / f"{module}.py", "raise AttributeError('no such thing')\n").parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(other), os.environ.get("PYTHONPATH", "")])}
    ended = subprocess.run([ATLAS, "check"], env=environment, capture_output=True, text=True)
    assert ended.returncode
    assert f"{module}.py on PYTHONPATH hides" in ended.stderr and f"take {other} out of PYTHONPATH" in ended.stderr
    assert "Traceback" not in ended.stderr and "kit's fault" not in ended.stderr


def test_checks_that_were_overwritten_are_named_and_no_fault_of_the_kit(atlas, small_course):
    (small_course / ".git").mkdir()
    write(small_course / "workshops" / FIRST / "checks.py", "import math\n")
    for line in ("check", "hint", "solution multiply"):
        code, _, err = atlas(line)
        assert (code, f"git restore workshops/{FIRST}/checks.py" in err) == (2, True)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_script_in_another_encoding_is_the_learners_to_save_again_and_hides_no_notebook(
    atlas, small_course, encoding
):
    solve()
    file = small_course / "workshops" / FIRST / "count.py"
    data = ("# größer\n" + file.read_text(encoding="utf-8")).encode(encoding)
    file.write_bytes(data)
    code, out, err = atlas("check")
    assert (code, "2 of 3 passed" in out) == (1, True)
    assert "count.py is saved in" in err and "Save with Encoding" in err and "kit's fault" not in err
    assert atlas("reset perc -y")[0] == 0
    (kept,) = (small_course / ".atlas" / "backups").rglob("count.py")
    assert kept.read_bytes() == data


# ------------------------------------------------------------------------------------------------ reset


def test_reset_keeps_a_copy_and_says_where(atlas, small_course):
    notebook, script = (small_course / "workshops" / FIRST / name for name in ("perceptron-and-mlp.ipynb", "count.py"))
    fresh = notebook.read_bytes(), script.read_bytes()
    solve()
    mine = notebook.read_bytes(), script.read_bytes()
    atlas("check")
    code, out, _ = atlas("reset perc --yes")
    assert code == 0
    (backup,) = (small_course / ".atlas" / "backups").iterdir()
    assert f"Your files are kept in {backup.relative_to(small_course)}" in out
    kept = backup / "workshops" / FIRST
    assert ((kept / notebook.name).read_bytes(), (kept / script.name).read_bytes()) == mine
    assert (notebook.read_bytes(), script.read_bytes()) == fresh
    assert "3/3" in atlas("")[1], "progress stays"


def test_after_a_reset_it_is_said_why_progress_and_check_disagree(atlas, small_course):
    answer(small_course, multiply="return 42")
    atlas("check")
    out = atlas("reset perc --yes")[1]
    assert "Progress still says 1 passed" in out and "atlas reset perceptron-and-mlp --progress" in out
    out = atlas("check")[1]
    assert "You passed it before, and progress keeps that: the file has been changed since." in out
    assert out.count("You passed it before") == 1
    assert "Progress still says" not in atlas("reset perc --yes --progress")[1]


def test_reset_asks_first(atlas, small_course, monkeypatch):
    solve()
    notebook = small_course / "workshops" / FIRST / "perceptron-and-mlp.ipynb"
    mine = notebook.read_bytes()
    for reply, code in (("n\n", 0), ("", 1)):
        monkeypatch.setattr(sys, "stdin", write(small_course / "reply", reply).open())
        assert atlas("reset perc")[0] == code
        assert notebook.read_bytes() == mine
        assert not (small_course / ".atlas" / "backups").exists()
    monkeypatch.setattr(sys, "stdin", write(small_course / "reply", "y\n").open())
    assert atlas("reset perc")[0] == 0
    assert notebook.read_bytes() != mine


def test_two_resets_in_one_second_keep_both_copies(atlas, small_course):
    script = small_course / "workshops" / FIRST / "count.py"
    for text in ("mine = 1\n", "mine = 2\n"):
        script.write_text(text)
        assert atlas("reset perc -y")[0] == 0
    kept = {file.read_text() for file in (small_course / ".atlas" / "backups").rglob("count.py")}
    assert kept == {"mine = 1\n", "mine = 2\n"}


def test_reset_brings_back_a_deleted_file_and_leaves_fresh_ones_alone(atlas, small_course):
    assert "nothing to do" in atlas("reset perc -y")[1]
    script = small_course / "workshops" / FIRST / "count.py"
    fresh = script.read_bytes()
    script.unlink()
    assert atlas("reset perc -y")[0] == 0
    assert script.read_bytes() == fresh


def test_reset_forgets_progress_only_when_told_to(atlas):
    progress.record(FIRST_NAME, "multiply", "passed")
    assert "forgotten" in atlas("reset perc --yes --progress")[1]
    assert FIRST_NAME not in progress.read()["workshops"]


def test_reset_never_leaves_the_learner_without_files_when_there_are_no_sources(atlas, small_course):
    solve()
    notebook = small_course / "workshops" / FIRST / "perceptron-and-mlp.ipynb"
    mine = notebook.read_bytes()
    (small_course / ".git").mkdir()
    (small_course / "solutions" / FIRST / "count.py").unlink()
    code, _, err = atlas("reset perc --yes")
    assert (code, f"git restore solutions/{FIRST}/count.py" in err) == (2, True)
    assert notebook.read_bytes() == mine


# ------------------------------------------------------------------------------------------------ the other commands


def test_progress_tells_state_attempts_and_hints_of_each_exercise(atlas):
    assert "Nothing begun yet. To begin: atlas start" in atlas("progress")[1]
    progress.record(FIRST_NAME, "multiply", "failed")
    progress.record(FIRST_NAME, "multiply", "passed")
    progress.record_hint(FIRST_NAME, "perceptron_step")
    _, out, _ = atlas("progress")
    assert "Sums and Products: 1 of 3 passed" in out
    assert re.search(r"multiply +✔ passed +2 +0 +20\d\d-\d\d-\d\d \d\d:\d\d", out)
    assert re.search(r"perceptron_step +○ not attempted +0 +1", out)
    assert "Second: 0 of 1 passed" in atlas("progress backpropagation")[1]


def test_progress_as_json_is_the_file(atlas):
    progress.record(FIRST_NAME, "multiply", "passed")
    assert json.loads(atlas("progress --json")[1]) == progress.read()


def test_the_agenda_of_a_track_leaves_out_what_is_planned_and_says_so(atlas):
    code, out, _ = atlas("agenda dl-foundations --start 09:00")
    assert code == 0
    assert "09:20   40 min  exercise    Write a sum" in out
    assert "10:15   90 min  exercise    All of it (double)" in out
    assert "left out: initialization-and-activations, optimization-sgd-adam" in out


def test_data_is_listed_fetched_and_verified(atlas, small_course):
    for line in ("data", "data list"):
        assert re.search(r"mnist +0\.0 +yes +MNIST +CC0-1.0", atlas(line)[1])
    assert atlas("data fetch mnist") == (0, "mnist: here and whole, in datasets/mnist\n", "")
    assert atlas("data verify")[0] == 0
    (small_course / "datasets" / "mnist" / "tiny.bin").write_text("hallo")
    for line in ("data verify", "data verify mnist"):
        code, _, err = atlas(line)
        assert (code, "git checkout -- datasets/mnist" in err) == (1, True)


def test_the_doctor_ends_with_ready_or_the_one_command_that_helps(atlas, monkeypatch):
    ready = [doctor.Finding(doctor.OK, "Python", "3.11"), doctor.Finding(doctor.WARNING, "memory", "little")]
    monkeypatch.setattr(doctor, "examine", lambda full: iter(ready))
    code, out, _ = atlas("doctor")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [["✔", "Python"], ["!", "memory"], ["✔", "ready"]]
    broken = doctor.Finding(doctor.PROBLEM, "packages", "missing: x", "scripts/setup")
    monkeypatch.setattr(doctor, "examine", lambda full: iter([*ready, broken]))
    code, out, _ = atlas("doctor")
    assert code == 1
    assert out.splitlines()[-1].split("  ")[-1].strip() == "First: scripts/setup"


def test_build_check_fails_until_what_is_generated_is_in_step(atlas, small_course):
    write(small_course / "README.md", "<!-- atlas:workshops -->\n<!-- /atlas:workshops -->\n")
    for id in (FIRST, SECOND):
        write(small_course / "workshops" / id / "README.md", "<!-- atlas:agenda -->\n<!-- /atlas:agenda -->\n")
    write(small_course / "solutions" / SECOND / "backpropagation.py", "# %%\nx = 1\n")
    assert atlas("build --check")[0] == 1
    assert atlas("build")[0] == 0
    assert atlas("build --check")[:2] == (0, "Every generated file is in step with its source.\n")


# ------------------------------------------------------------------------------------------------ start


@pytest.mark.parametrize("sign", [("TERM_PROGRAM", "vscode"), ("CODESPACES", "true"), ("REMOTE_CONTAINERS", "true")])
def test_start_in_vs_code_says_which_file_to_open(atlas, monkeypatch, sign):
    monkeypatch.setenv(*sign)
    monkeypatch.setenv("PATH", "")
    code, out, _ = atlas("start")
    assert code == 0
    assert f"workshops/{FIRST}/perceptron-and-mlp.ipynb" in out
    assert "JupyterLab is starting" not in out and "atlas start perceptron-and-mlp --lab" in out
    assert "a new terminal (Ctrl-Shift-`) begins in its folder" in out


def test_start_in_vs_code_opens_the_file_where_it_can(atlas, small_course, monkeypatch):
    code = write(small_course / "bin" / "code", '#!/bin/sh\necho "$@" > opened\n')
    code.chmod(0o755)
    monkeypatch.setenv("TERM_PROGRAM", "vscode")
    monkeypatch.setenv("PATH", str(code.parent), prepend=os.pathsep)
    assert atlas("start --no-browser")[0] == 0
    assert not (small_course / "opened").exists()
    assert f"VS Code opens workshops/{FIRST}/perceptron-and-mlp.ipynb" in atlas("start")[1]
    notebook = small_course / "workshops" / FIRST / "perceptron-and-mlp.ipynb"
    assert (small_course / "opened").read_text() == f"-r {notebook}\n"


def test_start_without_the_notebook_names_the_command_that_brings_it(atlas, small_course):
    code, _, err = atlas("start backpropagation")
    assert (code, "To get a fresh one: atlas reset backpropagation" in err) == (2, True)


def get(address: str, path: str = "") -> int:
    """The status that a server answers, through no proxy."""
    url = urlparse(address)
    with contextlib.closing(http.client.HTTPConnection(url.hostname, url.port, timeout=10)) as connection:
        connection.request("GET", path or f"{url.path}?{url.query}")
        return connection.getresponse().status


@pytest.fixture
def port_8888_taken():
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # somebody else has it: as well
            taken.bind(("127.0.0.1", 8888))
            taken.listen()
        yield


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_start_runs_jupyterlab_with_a_token_and_ends_it_in_order(small_course, port_8888_taken, ending):
    server = subprocess.Popen(
        [ATLAS, "start", "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        lines = iter(server.stdout.readline, "")
        address = next(line.strip() for line in lines if "http://" in line)
        assert f"/lab/tree/workshops/{FIRST}/perceptron-and-mlp.ipynb?token=" in address
        assert get(address) == 200
        assert get(address, "/api/contents") == 403, "without the token nothing is to be had"
        token = address.partition("?")[2]
        assert get(address, f"/api/contents/workshops/{FIRST}/perceptron-and-mlp.ipynb?{token}") == 200
        server.send_signal(ending)
        rest = server.communicate(timeout=30)[0]
    finally:
        server.kill()
    assert server.returncode == 0
    assert "JupyterLab ends." in rest
    assert "Traceback" not in rest
    with pytest.raises(OSError):
        get(address)


def test_a_jupyterlab_that_does_not_start_shows_why(atlas, small_course, monkeypatch):
    broken = write(small_course / "bin" / "python", "#!/bin/sh\necho no module named jupyterlab\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    code, _, err = atlas("start")
    assert code == 2
    assert "no module named jupyterlab" in err
    assert "atlas doctor" in err


# ------------------------------------------------------------------------------------------------ faults, looks


def test_a_fault_of_the_kit_is_one_line_and_a_file_with_the_traceback(atlas, small_course, monkeypatch):
    monkeypatch.setattr(progress, "read", lambda: 1 / 0)
    code, _, err = atlas("")
    assert code == 1
    assert "the kit's fault, not yours: ZeroDivisionError: division by zero" in err
    assert "Traceback" not in err
    (file,) = (small_course / ".atlas").glob("traceback-*.txt")
    assert str(file.relative_to(small_course)) in err
    assert "Traceback" in file.read_text()


def test_a_fault_of_the_kit_without_a_place_to_write_shows_the_traceback(atlas, small_course, monkeypatch):
    write(small_course / ".atlas", "a file in the way")
    monkeypatch.setattr(cli, "_show_path", lambda *_: 1 / 0)
    assert "Traceback" in atlas("")[2]


def test_a_broken_workshop_toml_is_one_message(atlas, small_course):
    write(small_course / "workshops" / FIRST / "workshop.toml", "titel = 1")
    code, _, err = atlas("")
    assert (code, "workshop.toml: unknown key 'titel'. Did you mean 'title'?" in err) == (2, True)


def test_a_reader_that_stops_reading_is_no_fault(small_course):
    pipe = subprocess.run(f"{ATLAS} | head -1", shell=True, capture_output=True, text=True, check=True)
    assert pipe.stdout.count("\n") == 1
    assert pipe.stderr == ""


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize(
    "line", ["", "-h", "check -h", "progress perc", "agenda perc --start 9", "data list", "doctor"]
)
def test_nothing_runs_over_a_narrow_terminal(atlas, monkeypatch, width, line):
    monkeypatch.setenv("COLUMNS", str(width))
    progress.record(FIRST_NAME, "perceptron_step", "passed")
    progress.record(FIRST_NAME, "multiply", "caught_up")
    _, out, _ = atlas(line)
    assert max(map(len, out.splitlines())) <= width
    if not line:
        for id in course.PATH:
            assert id.rpartition("/")[2] in out, "a name can be copied whole"


def on_terminal(*command: object, **variables: str) -> str:
    """What a command writes to a terminal of 80 columns, with its control characters."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **variables}
    process = subprocess.Popen(list(map(str, command)), stdout=slave, stderr=slave, stdin=slave, env=environment)
    os.close(slave)
    written = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(master, 4096):
            written += part
    process.wait()
    return written.decode()


def test_colours_are_for_terminals_and_for_those_who_want_them(atlas, small_course):
    progress.record(FIRST_NAME, "perceptron_step", "passed")
    colour = re.compile(r"\x1b\[[\d;]*3\d")
    assert colour.search(on_terminal(ATLAS, "progress"))
    assert not colour.search(on_terminal(ATLAS, "progress", NO_COLOR="1"))
    assert "\x1b" not in atlas("progress")[1]
    assert "\x1b" not in atlas("check nothing")[2]
    assert colour.search(on_terminal(ATLAS, "check", "nothing"))


def test_a_terminal_without_these_letters_gets_others(small_course):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([ATLAS], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert FIRST_NAME in ended.stdout


def test_an_environment_without_typer_names_the_repair():
    code = "import sys; sys.modules['typer'] = None; from atlas.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "scripts/setup" in ended.stderr


def test_the_command_line_loads_no_framework():
    code = "import sys\ntry:\n  from atlas import cli; cli.main([])\nfinally: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert not {"numpy", "torch", "tensorflow", "IPython", "jupyterlab", "filelock", "psutil"} & set(loaded)
