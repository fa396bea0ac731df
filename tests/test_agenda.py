"""Timetables: of a workshop, and of days with breaks and lunch."""

import itertools

import pytest

from atlas import agenda, course
from atlas.course import AgendaItem, CourseError, Workshop
from made_up import FIRST, SECOND


def lasting(*minutes: int) -> list[Workshop]:
    """Workshops of one item each."""
    return [Workshop(f"track/w{i}", f"W{i}", m, agenda=(AgendaItem("all", m, "talk"),)) for i, m in enumerate(minutes)]


def outline(rows: list[agenda.Row]) -> list[str]:
    """Headings, breaks and ends, each with its time."""
    return [f"{row.time} {row.title.split(',')[0]}" for row in rows if row.kind not in ("talk", "exercise")]


def test_without_a_start_times_count_from_the_beginning(small_course):
    rows = agenda.plan([course.load(FIRST)])
    assert [(row.time, row.minutes, row.kind) for row in rows] == [
        ("0:00", 0, "workshop"),
        ("0:00", 20, "talk"),
        ("0:20", 40, "exercise"),
        ("1:00", 0, "end"),
    ]
    assert rows[2].exercises == ("perceptron_step", "multiply", "count_down")


def test_with_a_start_times_are_those_of_the_clock(small_course):
    assert [row.time for row in agenda.plan([course.load(SECOND)], "9:30")] == ["09:30", "09:30", "11:00"]


def test_between_workshops_is_a_break_and_around_noon_lunch():
    assert outline(agenda.plan(lasting(90, 90, 90, 90), "09:00")) == [
        "09:00 W0",
        "10:30 Break",
        "10:45 W1",
        "12:15 Lunch",
        "13:15 W2",
        "14:45 Break",
        "15:00 W3",
        "16:30 End",
    ]


@pytest.mark.parametrize(
    ("start", "minutes", "lunch"),
    [
        ("09:00", (90, 90), None),  # over at 12:15
        ("14:00", (90, 90), None),
        ("11:45", (90, 90), None),  # begins after an early lunch
        ("11:00", (60, 90), "12:00"),
        ("09:00", (120, 120, 120), "13:15"),
        ("09:00", (300,), None),  # one workshop has its own breaks
    ],
)
def test_lunch_is_there_only_when_the_day_runs_through_noon(start, minutes, lunch):
    lunches = [row.time for row in agenda.plan(lasting(*minutes), start) if row.kind == "lunch"]
    assert lunches == ([lunch] if lunch else [])


def test_rows_follow_each_other_without_gap_or_overlap():
    rows = agenda.plan(lasting(90, 60, 120, 75), "08:45")
    for row, after in itertools.pairwise(rows):
        assert row.begin + row.minutes == after.begin
    assert all(row.minutes == 15 for row in rows if row.kind == "break")


def test_what_does_not_fit_into_a_day_is_for_the_next_one():
    rows = agenda.plan(lasting(90, 90, 90, 90, 90), "09:00")
    assert [title for title in outline(rows) if "Day" in title or "End" in title] == [
        "09:00 Day 1",
        "16:30 End",
        "09:00 Day 2",
        "10:30 End",
    ]
    assert "\nDay 2\n=====\n" in agenda.render(rows)


def test_no_day_goes_past_midnight():
    rows = agenda.plan(lasting(90, 90), "21:00")
    assert outline(rows) == ["21:00 Day 1", "21:00 W0", "22:30 End", "21:00 Day 2", "21:00 W1", "22:30 End"]


def test_the_text_has_every_item_within_the_width(small_course):
    rows = agenda.plan([course.load(FIRST), course.load(SECOND)], "09:00")
    for width in (60, 80, 120):
        text = agenda.render(rows, width)
        assert max(map(len, text.splitlines())) <= width
        words = " ".join(text.split())
        for row in rows:
            assert row.title in words
        assert "(perceptron_step, multiply, count_down)" in words
    assert "09:20   40 min  exercise    Write a sum" in text


@pytest.mark.parametrize("start", ["9", "9:00", "09:00", "9.00", "9h00", " 09:00 "])
def test_a_start_may_be_written_as_people_do(start):
    assert agenda.clock(start) == 540


@pytest.mark.parametrize("start", ["nine", "24:00", "9:60", "900", "", "-9", "9:0"])
def test_a_start_that_is_no_time_of_day_is_an_error_with_an_example(start):
    with pytest.raises(CourseError, match="--start 09:00"):
        agenda.plan(lasting(60), start)


def test_a_planned_workshop_has_no_agenda_yet(small_course):
    with pytest.raises(CourseError, match="cnn-basics has no agenda yet"):
        agenda.plan([course.find("cnn-basics")])
