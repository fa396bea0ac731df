"""`atlas validate`: each shortfall of a workshop is found and named, and nothing that is wrong counts as proven."""

# ruff: noqa: E501 (one case a line)
import dataclasses
import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import skeleton_kit
from atlas import course
from atlas.authoring import completeness, offline, proofs, runs, validate
from skeleton_kit import SOLUTION, WORKSHOP, edit

TOML, README, CHECKS = f"{WORKSHOP}/workshop.toml", f"{WORKSHOP}/README.md", f"{WORKSHOP}/checks.py"
SOURCE, SCRIPT = f"{SOLUTION}/cnn-basics.py", f"{SOLUTION}/train_cnn_basics.py"
STARTER, GUIDE = f"{WORKSHOP}/cnn-basics.ipynb", f"{SOLUTION}/INSTRUCTOR.md"
ANSWERS = "tests/wrong_answers/cnn-basics.py"


@pytest.fixture
def kit(tmp_path, monkeypatch):
    return skeleton_kit.make(tmp_path, monkeypatch)


def found() -> set[str]:
    """The shortfalls, as "path: what"."""
    workshop = skeleton_kit.workshop()
    problems = [*completeness.strays(), *completeness.shortfalls(workshop, proofs.load_answers(workshop))]
    return {f"{problem.path}: {problem.what}" for problem in problems}


# ------------------------------------------------------------------------------------ completeness


@pytest.mark.parametrize(
    ("file", "old", "new", "finds"),
    [
        (README, "## Theory", "## Thoughts", f"{README}: has no section about: theory"),
        (README, "## Agenda", "## Project\n\n## Agenda", f"{README}: has its sections out of order"),
        (README, "## Agenda", "```\n## Agenda\n```", f"{README}: has no section about: agenda"),
        (README, "![Say what the figure shows]", "![ ]", f"{WORKSHOP}/figures/architecture.svg: is shown without alt text"),
        (README, "![Say", "[Say", f"{WORKSHOP}/figures/architecture.svg: is shown nowhere"),
        (README, "## Theory", "## Theory\n<img src='' alt=''><img src=\"figures/no.svg\" alt=\"x\">", f"{README}: shows figures/no.svg, which is not there"),
        (f"{WORKSHOP}/figures/architecture.svg", "</svg>", "", f"{WORKSHOP}/figures/architecture.svg: is not well-formed SVG: no element found: line 12, column 0"),
        (TOML, "minutes = 60", "minutes = 61", f"{TOML}: agenda adds up to 60 minutes, not 61"),
        (TOML, "minutes = 60", "minutes = 130", f"{TOML}: takes 130 minutes, not 60 to 120"),
        (TOML, 'exercises = ["second_step"]', "", f"{TOML}: exercise second_step is in 0 agenda items"),
        (TOML, 'exercises = ["second_step"]', 'exercises = ["first_step", "second_step"]', f"{TOML}: exercise first_step is in 2 agenda items"),
        (TOML, 'kind = "break"', 'kind = "talk"', f"{TOML}: no break in the 60 minutes until the end of 'What came out'"),
        (TOML, 'step"\nminutes = 6', 'step"\nminutes = 13', f"{TOML}: exercise first_step takes 13 minutes, not 3 to 12"),
        (TOML, "minutes = 15", "minutes = 5", f"{TOML}: agenda item 'The first step' has 5 minutes for exercises of 6"),
        (TOML, "datasets = []", 'datasets = ["mist"]', f"{TOML}: dataset 'mist' is not in datasets/catalog.toml"),
        (TOML, "datasets = []", 'datasets = ["mnist"]', f"{README}: neither README nor notebook names the licence of mnist"),
        (TOML, "datasets = []", 'no_dataset = "because"', f"{TOML}: says in 1 words why it needs no dataset, not in 5 or more"),
        (TOML, 'project = "project_cnn_basics.py"', "", f"{TOML}: names no reference of the project"),
        (CHECKS, "def second_step", "def third_step", f"{CHECKS}: has no check for second_step"),
        (CHECKS, "def second_step", "def third_step", f"{CHECKS}: checks third_step, which is no exercise"),
        (CHECKS, '        "A nudge: this one undoes the first.",\n', "", f"{CHECKS}: has 1 hint to second_step, not 2 to 3"),
        (CHECKS, "from atlas", "from atlantis", f"{CHECKS}: does not load: ModuleNotFoundError: No module named 'atlantis'"),
        (SOURCE, "# %% [markdown]\n# # CNN Basics", "### END SOLUTION", f"{SOURCE}:1: END without a BEGIN above it"),
        (SOURCE, "def first_step", "def other_step", f"{SOURCE}: region in other_step, which is no exercise here"),
        (SOURCE, "def first_step", "def other_step", f"{SOURCE}: exercise first_step has no region between `### BEGIN SOLUTION` and `### END SOLUTION`"),
        (SCRIPT, '    """Halve every entry.\n\n    x: (B, D). Returns (B, D).\n    """\n', "", f"{SCRIPT}: second_step has no docstring"),
        (STARTER, "(15 min)", "(15 minutes)", f"{STARTER}: heading without minutes: ## 2 · The first step (15 minutes)"),
        (STARTER, "atlas.open(", "open(", f"{STARTER}: does not open with one cell that loads everything"),
        (STARTER, "lab.check(first_step)", "", f"{STARTER}: never checks first_step"),
        (GUIDE, "## On the board", "## Chalk", f"{GUIDE}: has no section about: on the board"),
        (GUIDE, "Answer: and why.", "", f"{GUIDE}: has a quiz without answers"),
        (ANSWERS, '@right("first_step")', '@right("zeroth_step")', f"{ANSWERS}: answers zeroth_step, which is no exercise"),
    ],
    ids=lambda value: str(value).rpartition("/")[2][:60].partition("\n")[0],
)  # fmt: skip
def test_a_shortfall_is_named(kit, file, old, new, finds):
    before = found()
    edit(kit, file, old, new)
    assert finds in found() - before


@pytest.mark.parametrize(
    ("name", "finds"),
    [
        (f"{WORKSHOP}/notes.txt", "unknown file: is no part of a workshop"),
        (f"{WORKSHOP}/figures/photo.gif", "unknown file: is no part of a workshop"),
        (f"{WORKSHOP}/photo.png", "unknown file: is no part of a workshop"),
        (f"{SOLUTION}/old/first.py", "unknown file: is no part of a workshop"),
        ("workshops/computer-vision/notes.txt", "unknown file: belongs to no workshop"),
        ("solutions/frameworks/tensorflow-keras/tf-keras-basics/INSTRUCTOR.md", "unknown file: belongs to no workshop"),
        ("tests/wrong_answers/cnn.py", "unknown file: is named as no workshop"),
    ],
)
def test_an_unknown_file_is_an_error(kit, name, finds):
    before = found()
    (kit / name).parent.mkdir(parents=True, exist_ok=True)
    (kit / name).touch()
    (new,) = found() - before
    assert new.startswith(f"{name}: {finds}")


def test_a_workshop_that_says_why_needs_no_dataset(kit):
    assert f"{TOML}: names no dataset" in found()
    edit(kit, TOML, "datasets = []", 'no_dataset = "because a server needs requests, and no data"')
    assert not [each for each in found() if "dataset" in each]


PHOTOGRAPH = f"{WORKSHOP}/figures/lantern.jpg"


@pytest.mark.parametrize(
    ("caption", "size", "finds"),
    [
        ("![A lantern](figures/lantern.jpg)\n\nPhotograph: A. Person, CC BY 4.0.", 100, ""),
        ("Photograph by A. Person, public domain:\n\n![A lantern](figures/lantern.jpg)", 100, ""),
        ("![A lantern](figures/lantern.jpg)\n\nPhotograph: A. Person.", 100, "is shown without its licence"),
        ("![A lantern](figures/lantern.jpg)\n\nMore.\n\nAs in CC BY 4.0.", 100, "is shown without its licence"),
        ("![](figures/lantern.jpg) CC0", 100, "is shown without alt text"),
        ("A lantern, CC0.", 100, "is shown nowhere"),
        ("![A lantern](figures/lantern.jpg) CC0", 600, "has "),
    ],
)
def test_a_photograph_may_stand_beside_the_diagrams_if_it_is_small_shown_and_licensed(kit, caption, size, finds):
    before = found()
    edit(kit, README, "## Theory", f"{caption}\n\n## Theory")
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(noise).save(kit / PHOTOGRAPH, quality=95)
    new = {each for each in found() - before if "words" not in each}
    assert len(new) == bool(finds) and all(each.startswith(f"{PHOTOGRAPH}: {finds}") for each in new)


@pytest.mark.parametrize("content", [b"no picture", None], ids=["text", "half of one"])
def test_a_photograph_that_is_none_is_found_out(kit, content):
    edit(kit, README, "## Theory", "![A lantern](figures/lantern.jpg) CC0\n\n## Theory")
    Image.new("RGB", (100, 100), "red").save(kit / PHOTOGRAPH)
    whole = (kit / PHOTOGRAPH).read_bytes()
    (kit / PHOTOGRAPH).write_bytes(content or whole[: len(whole) // 2])
    assert any(each.startswith(f"{PHOTOGRAPH}: is no image that can be read") for each in found())


CHECKPOINT, LOG = f"{WORKSHOP}/checkpoints/small.pt", f"{WORKSHOP}/checkpoints/small.txt"


@pytest.mark.parametrize(
    ("weights", "log", "text", "finds"),
    [
        (100, "$ python train_cnn_basics.py --epochs 9\n", "small", ""),
        (100, "$ python train_cnn_basics.py --epochs 9\n", "smaller", f"{CHECKPOINT}: is named neither"),
        (600_000, "$ python train_cnn_basics.py --epochs 9\n", "small", f"{CHECKPOINT}: has 2,40"),
        (100, "I trained it.\n", "small", f"{LOG}: begins not with the command"),
        (None, "$ python train_cnn_basics.py --epochs 9\n", "small", f"{CHECKPOINT}: does not load"),
    ],
    ids=["as it should be", "not named", "large", "without its command", "code in it"],
)
def test_a_checkpoint_may_ship_if_it_is_small_named_and_has_its_log(kit, weights, log, text, finds):
    torch = pytest.importorskip("torch")
    edit(kit, README, "## Theory", f"From `checkpoints/{text}.pt`.\n\n## Theory")
    before = found()
    (kit / CHECKPOINT).parent.mkdir()
    torch.save({"model": torch.rand(weights)} if weights else json.JSONEncoder(), kit / CHECKPOINT)
    (kit / LOG).write_text(log)
    new = found() - before
    assert len(new) == bool(finds) and all(each.startswith(finds) for each in new)


def test_a_log_without_its_checkpoint_is_an_unknown_file(kit):
    (kit / LOG).parent.mkdir()
    (kit / LOG).write_text("$ python train_cnn_basics.py\n")
    assert any(each.startswith(f"{LOG}: unknown file: is the log of no checkpoint") for each in found())


@pytest.mark.parametrize("name", [README, STARTER, SOURCE, SCRIPT, GUIDE, ANSWERS, f"{SOLUTION}/project_cnn_basics.py"])
def test_a_missing_part_is_an_error(kit, name):
    (kit / name).unlink()
    assert f"{name}: missing" in found()


def test_hidden_files_and_caches_are_nobodys_business(kit):
    before = found()
    for name in (".ipynb_checkpoints/cnn-basics.ipynb", "__pycache__/checks.pyc"):
        (kit / WORKSHOP / name).parent.mkdir()
        (kit / WORKSHOP / name).touch()
    assert found() == before


def test_words_are_those_of_the_prose():
    prose = """# Two words\n\nThree more [words](https://no.example/word) $x = W x + b$ and

$$
a = \\sum_i
b_i
$$
```python
no = words
```
<!-- atlas:agenda -->\n| no | words |\n<!-- /atlas:agenda -->\n<details>| here</details>
"""
    assert completeness.count_words(prose) == 9  # with both formulas


# ------------------------------------------------------------------------------------ proofs


def proven(kind: str, exercise: str = "first_step") -> list[proofs.Proof]:
    workshop = skeleton_kit.workshop()
    return proofs.prove(proofs.material(workshop), workshop.exercise(exercise), kind)


def test_a_solution_that_its_check_rejects_is_not_proven(kit):
    edit(kit, SOURCE, "return 2 * x", "return 3 * x")
    assert [proof.ok for proof in proven("solution")] == [False] * len(proofs.SEEDS)
    assert "every entry is doubled" in proven("solution")[0].why


def test_a_starter_that_was_written_in_is_not_untouched(kit):
    edit(kit, STARTER, 'raise NotImplementedError(\\"first_step\\")', "return 2 * x")
    assert not proven("starter")[0].ok


def test_a_script_exercise_is_taken_from_the_script(kit):
    edit(kit, SCRIPT, "return x / 2", "return x")
    (kit / SOURCE).write_text((kit / SOURCE).read_text() + "def second_step(x):\n    return x / 2\n")
    assert not any(proof.ok for proof in proven("solution", "second_step"))


def test_a_wrong_answer_that_passes_is_not_proven(kit):
    edit(kit, ANSWERS, "return x * x", "return 2 * x")
    (proof,) = proven("wrong")
    assert not proof.ok and "was not rejected" in proof.why


def test_a_wrong_answer_whose_message_says_something_else_is_not_proven_and_the_message_is_shown(kit):
    edit(kit, ANSWERS, "multiplied by itself", "halved")
    (proof,) = proven("wrong")
    assert not proof.ok and not proof.named and "multiplied by itself" in proof.why


def test_a_wrong_answer_that_is_owed_no_message_is_proven_but_counts_as_unnamed(kit):
    edit(kit, ANSWERS, 'says="multiplied by itself"', "says=None")
    (proof,) = proven("wrong")
    assert proof.ok and not proof.named
    assert any("0% of the messages" in problem.what for problem in validate.validate(["cnn-basics"]).problems)


def test_a_right_answer_that_is_rejected_is_not_proven(kit):
    edit(kit, ANSWERS, "return x + x", "return x")
    (proof,) = proven("right")
    assert not proof.ok and "every entry is doubled" in proof.why


def test_a_check_that_breaks_counts_for_nobody(kit):
    edit(kit, ANSWERS, 'says="multiplied by itself"', "says=None")
    edit(kit, CHECKS, "agree(learner, lambda x: x + x", "agree(undefined, lambda x: x + x")
    assert not any(proof.ok for kind in proofs.KINDS if kind != "starter" for proof in proven(kind))


def test_the_table_counts_what_is_proven(kit):
    edit(kit, ANSWERS, "return x + x", "return x")
    table = validate.proof_table(validate.validate(["cnn-basics"]).proofs)
    (row,) = [line.split() for line in table.splitlines() if "first_step" in line]
    assert row == ["first_step", "5/5", "1/1", "1/1", "0/1", "2/2", "100%"]


def test_files_that_cannot_be_loaded_are_a_problem_and_no_traceback(kit):
    edit(kit, ANSWERS, "import right", "import write")
    report = validate.validate(["cnn-basics"])
    assert any("cannot be proven: ImportError" in problem.what for problem in report.problems) and not report.ok


def test_a_planned_workshop_cannot_be_validated(kit):
    with pytest.raises(course.CourseError, match="atlas new frameworks/tensorflow-keras/tf-keras-basics"):
        validate.validate(["tf-keras-basics"])


# ------------------------------------------------------------------------------------ runs

OUTPUTS = "open('figure.png', 'w').write('x'), open('model.pt', 'w').write('x')"
PROGRAM = 'if __name__ == "__main__":\n    program.run(main)'


def test_a_solved_notebook_is_run_offline_with_strict_checks_and_measured(kit):
    edit(kit, f"{SOLUTION}/cnn-basics.ipynb", "first_step(np.arange(6.0).reshape(2, 3))", STRICT_AND_OFFLINE)
    run = runs.solved_notebook(skeleton_kit.workshop())
    assert not run.error
    assert 0.2 <= run.slowest_cell < run.computed and 50 < run.peak_mb < 2000
    (entry,) = json.loads((kit / ".atlas/test-report/notebooks.json").read_text())
    assert entry == {
        "notebook": f"{SOLUTION}/cnn-basics.ipynb",
        "seconds": run.seconds,
        "computed": run.computed,
        "slowest_cell": run.slowest_cell,
        "peak_mb": run.peak_mb,
        "network": run.network,
    }


STRICT_AND_OFFLINE = (
    "import os, socket; sum(range(3 * 10**7)); assert os.environ['ATLAS_STRICT'] == '1'; "
    "assert socket.socket().connect_ex(('192.0.2.1', 9)) == 101"
)


def test_a_solved_notebook_that_fails_a_check_does_not_pass(kit):
    edit(kit, f"{SOLUTION}/cnn-basics.ipynb", "return 2 * x", "return 3 * x")
    assert "CheckFailed" in runs.solved_notebook(skeleton_kit.workshop()).error


def test_a_cell_that_takes_too_long_is_ended_and_said(kit, monkeypatch):
    monkeypatch.setattr(runs, "CELL_SECONDS", 3)
    edit(kit, f"{SOLUTION}/cnn-basics.ipynb", "first_step(np.arange(6.0).reshape(2, 3))", "import time; time.sleep(60)")
    run = runs.solved_notebook(skeleton_kit.workshop())
    assert "timed out" in run.error and run.seconds < 55


@pytest.mark.parametrize("budget", ["SECONDS", "CELL_SECONDS", "PEAK_MB"])
def test_what_is_over_budget_is_said(budget, monkeypatch):
    run = runs.Run("w", "solved notebook", "f", seconds=9, computed=9, peak_mb=9, network="", slowest_cell=9)
    assert not runs._over_budget(run)
    monkeypatch.setattr(runs, budget, 8)
    assert "9" in runs._over_budget(run) and "not 8" in runs._over_budget(run)


def test_seconds_that_other_programs_took_do_not_count(monkeypatch):
    run = runs.Run("w", "solved notebook", "f", seconds=9, computed=4, peak_mb=9, network="")
    monkeypatch.setattr(runs, "SECONDS", 8)
    assert not runs._over_budget(run)


@pytest.mark.parametrize(("code", "least", "most"), [("sum(range(10**8))", 0.5, 60), ("time.sleep(1)", 0, 0.5)])
def test_a_run_tells_what_it_computed_beside_the_clock(code, least, most, tmp_path):
    assert least <= runs._python(["-c", f"import time; {code}"], tmp_path, 60, {}).computed <= most


@pytest.mark.parametrize("load", [0.5, 7.5])
def test_a_run_that_fails_names_the_load_of_a_busy_machine(kit, monkeypatch, load):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(runs, "_processes", lambda: {})
    error = runs.project(skeleton_kit.workshop()).error
    assert "not written yet" in error
    assert ("The machine was busy: load average 7.5 on " in error) == (load > 1)


def test_the_load_counts_the_processes_that_computed_meanwhile(monkeypatch):
    before = {(1, 0.0): ("init", 5.0), (2, 0.0): ("chrome", 1.0), (3, 0.0): ("python", 1.0), (4, 0.0): ("ours", 0.0)}
    after = {(1, 0.0): ("init", 5.9), (2, 0.0): ("chrome", 9.0), (3, 0.0): ("python", 9.0), (4, 0.0): ("ours", 9.0)}
    monkeypatch.setattr(runs, "_processes", lambda: after | {(5, 1.0): ("python", 7.0)})
    told = runs._load(before, {4}, seconds=10.0, computed=2.5)
    assert "this run got 25% of one" in told and told.endswith(": python (2), chrome (1)")


def test_a_starter_notebook_ends_at_its_first_todo(kit):
    assert not runs.starter_notebook(skeleton_kit.workshop()).error


def test_a_starter_notebook_with_an_earlier_error_is_found_out(kit):
    edit(kit, STARTER, "import numpy as np", "import nampy as np")
    assert "ended in ModuleNotFoundError" in runs.starter_notebook(skeleton_kit.workshop()).error


def test_a_starter_script_explains_itself_and_stops_at_its_todo(kit):
    workshop = skeleton_kit.workshop()
    assert not runs.starter_script_help(workshop).error and not runs.starter_script(workshop).error


def test_a_starter_script_that_fails_otherwise_is_found_out(kit):
    edit(kit, f"{WORKSHOP}/train_cnn_basics.py", "import argparse", "import argparse; 1 / 0")
    workshop = skeleton_kit.workshop()
    assert "ZeroDivisionError" in runs.starter_script_help(workshop).error
    assert "ended in ZeroDivisionError" in runs.starter_script(workshop).error


def test_a_starter_script_that_swallows_its_todo_is_found_out(kit):
    swallow = "print('NotImplementedError: second_step'); raise SystemExit; import argparse"
    edit(kit, f"{WORKSHOP}/train_cnn_basics.py", "import argparse", swallow)
    assert "(exit 0)" in runs.starter_script(skeleton_kit.workshop()).error


@pytest.mark.parametrize(
    ("line", "leaves", "says"),
    [
        (OUTPUTS, ["figure", "checkpoint"], ""),
        (OUTPUTS, ["checkpoint", "figure"], ""),
        ("pass", [], ""),
        (OUTPUTS.replace(".png", ".txt"), ["figure", "checkpoint"], "it left no figure (.png, .svg, .pdf)"),
        (OUTPUTS.replace(".pt", ".svg"), ["figure", "checkpoint"], "it left no checkpoint (.pt, .npz)"),
        (OUTPUTS, ["figure"], "it left model.pt, of kind checkpoint, and `leaves` in workshop.toml does not say so"),
        (OUTPUTS, [], "it left figure.png, of kind figure"),
        ("open('notes.abc', 'w')", [], "it left notes.abc, of no known kind"),
        ("1 / 0", [], "ZeroDivision"),
    ],
)
def test_a_solved_script_runs_with_its_arguments_and_leaves_exactly_what_the_workshop_says(kit, line, leaves, says):
    edit(kit, TOML, 'script_test = ["--epochs", "1"]', 'script_test = ["--seed", "3"]')
    edit(kit, TOML, 'leaves = ["figure", "checkpoint"]', f"leaves = {leaves}")
    edit(kit, SCRIPT, PROGRAM, f"assert parse(None)[0].seed == 3\n{line}")
    error = runs.solved_script(skeleton_kit.workshop()).error
    assert says in error and bool(error) == bool(says)


def test_the_script_of_a_skeleton_runs_and_leaves_what_its_workshop_says(kit):
    assert not runs.solved_script(skeleton_kit.workshop()).error


def test_a_project_runs_with_its_arguments(kit):
    assert "not written yet" in runs.project(skeleton_kit.workshop()).error
    edit(kit, TOML, "project_test = []", 'project_test = ["--quick"]')
    (kit / SOLUTION / "project_cnn_basics.py").write_text("import sys\nassert sys.argv[1:] == ['--quick']\n")
    assert not runs.project(skeleton_kit.workshop()).error


def test_a_run_leaves_nothing_behind_in_the_workshop(kit):
    edit(kit, SCRIPT, PROGRAM, OUTPUTS)
    before = found()
    runs.solved_script(skeleton_kit.workshop())
    assert found() == before


def test_what_does_not_end_is_ended_with_its_children_and_says_what_it_was_doing(kit):
    hang = (
        "import time\ndef wait_for_godot():\n    time.sleep(60)\nprint('He will come.', flush=True)\nwait_for_godot()"
    )
    spawn = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hang!r}])"
    forced = runs._python(["-c", spawn], kit, 2, {})
    assert forced.code and forced.seconds < 20 and "ended by force after 2 s" in forced.output
    assert "He will come." in forced.output and "line 3 in wait_for_godot" in forced.output


def test_a_notebook_that_does_not_end_says_in_which_cell_it_was(kit, monkeypatch):
    monkeypatch.setattr(runs, "SECONDS", 4)
    hang = "print('epoch 1 of 2', flush=True)\nimport time; time.sleep(60)"
    edit(kit, f"{SOLUTION}/cnn-basics.ipynb", "first_step(np.arange(6.0).reshape(2, 3))", json.dumps(hang)[1:-1])
    error = runs.solved_notebook(skeleton_kit.workshop()).error
    assert re.search(r"-- cell \d+ of \d+: print\('epoch 1 of 2', flush=True\)\nepoch 1 of 2\n", error)
    assert "line 2 in <module>" in error and "ended by force after 12 s" in error


def test_memory_is_that_of_the_whole_process_tree(kit):
    hold = "import time; kept = bytearray(200_000_000); time.sleep(1)"
    spawn = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    assert runs._python(["-c", spawn], kit, 30, {}).peak_mb > 200


# ------------------------------------------------------------------------------------ offline

LOOPBACK = """
import socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(("localhost", server.getsockname()[1]), timeout=5)
server.accept()[0].sendall(b"here")
assert client.recv(4) == b"here"
"""


def ended(how, code: str) -> tuple[int, str]:
    """Exit code and last line of a Python program run offline in the given way."""
    command, env, _ = how([sys.executable, "-c", f"import socket\n{code}"])
    process = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)
    return process.returncode, process.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("how", [offline.without_network, offline.blocked])
def test_offline_loopback_works(how):
    assert ended(how, LOOPBACK) == (0, "")


def test_in_a_namespace_not_even_the_loopback_outside_can_be_reached():
    if offline.without_network([])[2] != offline.NAMESPACE:
        pytest.skip("no network namespace can be had here")
    with socket.create_server(("127.0.0.1", 0)) as outside:
        connect = f"socket.create_connection(('127.0.0.1', {outside.getsockname()[1]}), timeout=20)"
        assert ended(offline.without_network, connect) == (1, "ConnectionRefusedError: [Errno 111] Connection refused")


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket().connect(('192.0.2.1', 9))",
        "socket.socket().connect_ex(('192.0.2.1', 9))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
        "socket.getaddrinfo('example.org', 80)",
        "import urllib.request; urllib.request.urlopen('http://example.org')",
    ],
)
def test_blocked_sockets_refuse_everything_else_and_say_why(code):
    code, said = ended(offline.blocked, code)
    assert code and "the network is off for this run" in said


def test_a_run_says_in_which_way_it_was_offline(kit):
    assert runs._python(["-c", "pass"], kit, 30, {}).network in (offline.NAMESPACE, offline.BLOCKED)


def test_a_report_is_good_only_without_shortfalls_failed_proofs_and_failed_runs():
    proof = proofs.Proof("w", "e", "solution", "", True)
    run = runs.Run("w", "project", "f", 1, 1, 1, "")
    good = validate.Report([], [proof], [run])
    assert good.ok and "Complete and proven." in str(good)
    for bad in (
        dataclasses.replace(good, problems=[validate.Problem("p", "lacks", "write it")]),
        dataclasses.replace(good, proofs=[dataclasses.replace(proof, ok=False, why="because")]),
        dataclasses.replace(good, runs=[dataclasses.replace(run, error="it broke")]),
    ):
        assert not bad.ok and any(said in str(bad) for said in ("lacks", "because", "it broke"))
