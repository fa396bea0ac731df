"""Progress: nothing is lost, whatever happens to the file and to the processes that write it."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atlas import course, progress
from made_up import FIRST

WRITER = """
import sys
from atlas import progress
workshop, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    progress.record(workshop, f"exercise_{number}", "passed")
    print(number, flush=True)
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATLAS_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(progress, "_said", set())
    return tmp_path / "state" / "progress.json"


def writer(workshop: str, first: int, count: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, workshop, str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def exercises(workshop: str) -> dict:
    return progress.read()["workshops"].get(workshop, {}).get("exercises", {})


def test_there_is_no_progress_at_first_and_reading_makes_no_file(file):
    assert progress.read() == {"version": 1, "workshops": {}}
    assert not file.exists()


def test_attempts_hints_and_times_are_kept_in_a_readable_file(file):
    progress.opened("dl-foundations/perceptron-and-mlp")
    progress.record("perceptron-and-mlp", "step", "failed")
    assert progress.record_hint("perceptron-and-mlp", "step") == 0
    assert progress.record_hint("perceptron-and-mlp", "step") == 1
    progress.record("perceptron-and-mlp", "step", "passed", seconds=0.5)
    data = json.loads(file.read_text())
    workshop = data["workshops"]["perceptron-and-mlp"]
    entry = workshop["exercises"]["step"]
    assert {key: entry[key] for key in ("status", "attempts", "hints", "seconds")} == {
        "status": "passed",
        "attempts": 2,
        "hints": 2,
        "seconds": 0.5,
    }
    assert entry["first_passed"] <= entry["last"]
    assert workshop["opened"].startswith("20")
    assert file.read_text() == json.dumps(data, indent=2, sort_keys=True) + "\n"


def test_what_is_passed_stays_passed(file):
    progress.record("w", "e", "passed")
    first = exercises("w")["e"]["first_passed"]
    for status in ("failed", "untouched", "caught_up", "passed"):
        progress.record("w", "e", status)
    assert exercises("w")["e"] | {"last": ""} == {
        "status": "passed",
        "attempts": 3,  # "untouched" and "caught_up" are none
        "hints": 0,
        "first_passed": first,
        "last": "",
    }


def test_a_status_only_rises(file):
    seen = []
    for status in ("untouched", "failed", "untouched", "caught_up", "failed", "passed", "caught_up"):
        progress.record("w", "e", status)
        seen.append(exercises("w")["e"]["status"])
    assert seen == ["untouched", "failed", "failed", "caught_up", "caught_up", "passed", "passed"]


def test_an_unknown_status_is_a_mistake_of_the_caller(file):
    with pytest.raises(ValueError, match="status 'solved' is none of"):
        progress.record("w", "e", "solved")


def test_the_first_opening_is_kept(file):
    progress.opened("w")
    opened = progress.read()["workshops"]["w"]["opened"]
    file.write_text(file.read_text().replace(opened, "2020-01-01T00:00:00+00:00"))
    progress.opened("w")
    assert progress.read()["workshops"]["w"]["opened"] == "2020-01-01T00:00:00+00:00"


def test_a_clock_that_goes_backwards_changes_no_earlier_time(file, monkeypatch):
    monkeypatch.setattr(progress, "_now", lambda: "2030-01-01T00:00:00+00:00")
    progress.record("w", "e", "passed")
    monkeypatch.setattr(progress, "_now", lambda: "2020-01-01T00:00:00+00:00")
    progress.record("w", "e", "passed")
    assert exercises("w")["e"]["first_passed"] == "2030-01-01T00:00:00+00:00"
    assert exercises("w")["e"]["attempts"] == 2


def test_two_kernels_that_write_at_once_lose_nothing(file):
    writers = [writer("w", 0, 100), writer("w", 100, 100)]
    for each in writers:
        _, noise = each.communicate(timeout=60)
        assert (each.returncode, noise) == (0, "")
    assert len(exercises("w")) == 200


def test_a_kill_at_any_moment_loses_nothing_that_was_recorded(file, tmp_path):
    chance, recorded = random.Random(0), set()
    for attempt in range(12):
        printed = tmp_path / f"printed-{attempt}"
        with printed.open("w") as out:
            command = [sys.executable, "-c", WRITER, "w", str(1000 * attempt), "1000"]
            victim = subprocess.Popen(command, stdout=out, stderr=out)
            while not printed.stat().st_size:
                time.sleep(0.005)
            time.sleep(chance.random() * 0.1)
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
        # a number is printed after its record, and a line that the kill cut has no end; a message would be no number
        whole = [line for line in printed.read_text().splitlines(keepends=True) if line.endswith("\n")]
        recorded |= {f"exercise_{int(line)}" for line in whole}
        assert recorded <= set(exercises("w"))
    assert len(recorded) >= 12
    assert not list(file.parent.glob("progress.damaged-*"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b'{"version": 1, "workshops": {"w": {"exer', "Unterminated string"),
        (b"\x00\xff\xfe garbage", "codec"),
        (b"[1, 2]", "version is None"),
        (b'{"workshops": {}}', "version is None"),
        (b'{"version": 0, "workshops": {}}', "version is 0"),
        (b'{"version": "1", "workshops": {}}', "version is '1'"),
        (b'{"version": true, "workshops": {}}', "version is True"),
        (b'{"version": 1}', "not the layout"),
        (b'{"version": 1, "workshops": []}', "not the layout"),
        (b'{"version": 1, "workshops": {"w": {"exercises": {"e": "passed"}}}}', "not the layout"),
        (b'{"version": 1, "workshops": {"w": {"exercises": {"e": {"status": "done"}}}}}', "not the layout"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_a_damaged_file_is_set_aside_with_one_message(file, capsys, content, why):
    file.parent.mkdir()
    file.write_bytes(content)
    assert why in progress.trouble()
    assert progress.read() == {"version": 1, "workshops": {}}
    progress.record("w", "e", "passed")
    (aside,) = file.parent.glob("progress.damaged-*.json")
    assert aside.read_bytes() == content
    assert exercises("w")["e"]["status"] == "passed"
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert str(aside) in message
    assert why in message


def test_two_damaged_files_in_one_second_are_both_kept(file):
    for content in (b"one", b"two"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        progress.read()
    assert {aside.read_bytes() for aside in file.parent.glob("progress.damaged-*.json")} == {b"one", b"two"}


def test_a_file_of_a_newer_kit_is_left_alone(file, capsys):
    file.parent.mkdir()
    newer = '{"version": 2, "workshops": {"new": "layout"}}'
    file.write_text(newer)
    assert progress.read()["workshops"] == {}
    progress.record("w", "e", "passed")
    assert progress.record_hint("w", "e") == 0
    assert file.read_text() == newer
    assert not list(file.parent.glob("progress.damaged-*"))
    assert "written by a newer kit (format 2); update this one: git pull" in capsys.readouterr().err


def test_keys_that_this_version_does_not_know_are_kept(file):
    file.parent.mkdir()
    file.write_text('{"version": 1, "name": "Ada", "workshops": {"w": {"note": "hard", "exercises": {}}}}')
    progress.record("w", "e", "failed")
    assert progress.read()["name"] == "Ada"
    assert progress.read()["workshops"]["w"]["note"] == "hard"


def test_a_byte_order_mark_of_an_editor_does_no_harm(file):
    file.parent.mkdir()
    file.write_bytes(b'\xef\xbb\xbf{"version": 1, "workshops": {"w": {}}}')
    assert list(progress.read()["workshops"]) == ["w"]


def test_what_a_killed_writer_left_behind_is_no_obstacle(file):
    progress.record("w", "one", "passed")
    file.with_suffix(".tmp").write_text('{"version": 1, "wor')
    file.with_suffix(".lock").write_text("stale")
    progress.record("w", "two", "passed")
    assert set(exercises("w")) == {"one", "two"}


def test_a_lock_that_is_held_too_long_is_a_warning_and_no_exception(file, capsys, monkeypatch):
    progress.record("w", "one", "passed")
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print('held', flush=True), sys.stdin.read()",
            str(file.with_suffix(".lock")),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    monkeypatch.setattr(progress, "LOCK_SECONDS", 0.2)
    progress.record("w", "two", "passed")
    assert progress.record_hint("w", "two") == 0
    holder.communicate()
    assert "another program has held" in capsys.readouterr().err
    assert set(exercises("w")) == {"one"}
    progress.record("w", "two", "passed")
    assert set(exercises("w")) == {"one", "two"}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_on_a_file_system_without_locks_progress_is_kept_and_the_danger_is_said_once(file, capsys, monkeypatch, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", no_locks)
    progress.record("w", "one", "passed")
    progress.record("w", "two", "passed")
    assert set(exercises("w")) == {"one", "two"}
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "files cannot be locked. Progress is kept" in message


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_belongs_to_somebody_else_is_told_once_with_what_helps(file, capsys, monkeypatch, number):
    def not_yours(*_, **__):
        raise OSError(number, os.strerror(number), str(file.parent))

    monkeypatch.setattr(Path, "mkdir", not_yours)
    progress.read()
    progress.opened("w")
    progress.record("w", "e", "passed")
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "sudo chown -R $USER ." in message and "ATLAS_STATE" in message and str(file.parent) in message


def test_a_folder_that_cannot_be_written_is_a_warning_and_the_course_goes_on(file, capsys, monkeypatch):
    file.parent.parent.joinpath("not-a-folder").write_text("")
    monkeypatch.setenv("ATLAS_STATE", str(file.parent.parent / "not-a-folder" / "state"))
    assert progress.read() == {"version": 1, "workshops": {}}
    progress.opened("w")
    progress.record("w", "e", "passed")
    assert progress.record_hint("w", "e") == 0
    progress.record("w", "e", "passed")
    assert capsys.readouterr().err.count("is not kept") == 1, "once, not after every check"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_warning_and_old_progress_is_read(file, capsys):
    progress.record("w", "e", "failed")
    file.parent.chmod(0o500)
    try:
        progress.record("w", "e", "passed")
        assert exercises("w")["e"]["status"] == "failed"
    finally:
        file.parent.chmod(0o700)
    assert "is not kept" in capsys.readouterr().err


def test_a_disk_that_is_full_keeps_the_old_file(file, capsys, monkeypatch):
    progress.record("w", "one", "passed")
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    progress.record("w", "two", "passed")
    assert file.read_bytes() == before
    assert "No space left on device" in capsys.readouterr().err


def test_a_workshop_is_complete_when_each_exercise_is_passed_or_caught_up(small_course):
    workshop = course.load(FIRST)
    assert not progress.complete(workshop, progress.read())
    for name, status in (("perceptron_step", "passed"), ("multiply", "caught_up"), ("count_down", "failed")):
        progress.record(workshop.name, name, status)
    assert not progress.complete(workshop, progress.read())
    progress.record(workshop.name, "count_down", "passed")
    assert progress.complete(workshop, progress.read())
    progress.forget(workshop.name)
    assert set(progress.statuses(workshop, progress.read()).values()) == {"untouched"}
