"""When what happens: the timetable of one workshop, or of a day (or several) with breaks and lunch.

Times are minutes: since the beginning, or since midnight where a start on the clock is given.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from atlas.course import CourseError, Workshop

BREAK = 15
"""Minutes between two workshops."""
LUNCH = 60
LUNCH_AT = 12 * 60 + 15
"""Lunch takes the place of the break nearest to this, if the day runs through the whole of _NOON."""
_NOON = (11 * 60 + 30, 13 * 60 + 30)
DAY = 9 * 60
"""A day in class lasts no longer than this, breaks included; what does not fit is for the next day."""


@dataclass(frozen=True)
class Row:
    """One line of a timetable. `kind`: that of the agenda item, or "day", "workshop" (headings), "lunch", "end"."""

    begin: int
    minutes: int
    kind: str
    title: str
    exercises: tuple[str, ...] = ()
    clock: bool = False

    @property
    def time(self) -> str:
        """ "09:05" on the clock, "0:05" since the beginning."""
        hours, minutes = divmod(self.begin, 60)
        return f"{hours:02d}:{minutes:02d}" if self.clock else f"{hours}:{minutes:02d}"


def clock(text: str) -> int:
    """ "09:00", "9:00" or "9" as minutes since midnight."""
    match = re.fullmatch(r"(\d{1,2})(?:[:.h](\d{2}))?", text.strip())
    if not match or int(match[1]) > 23 or int(match[2] or 0) > 59:
        raise CourseError(f"{text!r} is not a time of day. Write it as in: --start 09:00")
    return int(match[1]) * 60 + int(match[2] or 0)


def plan(workshops: Sequence[Workshop], start: str | None = None) -> list[Row]:
    """The rows of a timetable, workshop after workshop with breaks between; on the clock where a start is given.

    Raises CourseError if one of them is only planned, or the start is no time of day.
    """
    for workshop in workshops:
        if not workshop.agenda:
            raise CourseError(f"{workshop.name} has no agenda yet. `atlas` shows which workshops are there.")
    if start is None:
        return _day(workshops, 0, is_clock=False)
    begin = clock(start)
    days = _days(workshops, begin)
    rows = []
    for number, day in enumerate(days, 1):
        if len(days) > 1:
            rows.append(Row(begin, 0, "day", f"Day {number}", clock=True))
        rows += _day(day, begin, is_clock=True)
    return rows


def render(rows: Sequence[Row], width: int = 80) -> str:
    """The timetable as plain text, titles wrapped to the width."""
    lines = []
    for row in rows:
        if row.kind in ("day", "workshop"):
            underline = "=" if row.kind == "day" else "-"
            lines += ["", row.title, underline * len(row.title)]
            continue
        head = f"{row.time:>5}  {row.minutes:>3} min  {row.kind:<10}  " if row.kind != "end" else f"{row.time:>5}  "
        title = row.title + (f" ({', '.join(row.exercises)})" if row.exercises else "")
        lines += textwrap.wrap(
            title, max(width, len(head) + 16), initial_indent=head, subsequent_indent=" " * len(head)
        )
    return "\n".join(lines).strip("\n")


def _minutes(workshop: Workshop) -> int:
    return sum(item.minutes for item in workshop.agenda)


def _day(workshops: Sequence[Workshop], begin: int, is_clock: bool) -> list[Row]:
    rows: list[Row] = []

    def add(minutes: int, kind: str, title: str, exercises: tuple[str, ...] = ()) -> None:
        nonlocal begin
        rows.append(Row(begin, minutes, kind, title, exercises, is_clock))
        begin += minutes

    lunch = _lunch(workshops, begin) if is_clock else None
    for number, workshop in enumerate(workshops):
        if number:
            if number == lunch:
                add(LUNCH, "lunch", "Lunch")
            else:
                add(BREAK, "break", "Break")
        rows.append(Row(begin, 0, "workshop", f"{workshop.title}, {_minutes(workshop)} min", (), is_clock))
        for item in workshop.agenda:
            add(item.minutes, item.kind, item.title, item.exercises)
    rows.append(Row(begin, 0, "end", "End", (), is_clock))
    return rows


def _lunch(workshops: Sequence[Workshop], begin: int) -> int | None:
    """Before which workshop lunch is, if any: 1 for the second."""
    gaps, now = {}, begin
    for number, workshop in enumerate(workshops, 1):
        now += _minutes(workshop)
        gaps[number] = now
        now += BREAK
    end = gaps.pop(len(workshops))
    if not gaps or begin > _NOON[0] or end < _NOON[1]:
        return None
    return min(gaps, key=lambda number: abs(gaps[number] - LUNCH_AT))


def _days(workshops: Sequence[Workshop], begin: int) -> list[list[Workshop]]:
    """Fill each day with as many workshops as end within DAY minutes and before midnight; one at least."""
    days: list[list[Workshop]] = [[]]
    for workshop in workshops:
        day = _day([*days[-1], workshop], begin, is_clock=True)
        if days[-1] and day[-1].begin > min(begin + DAY, 24 * 60):
            days.append([])
        days[-1].append(workshop)
    return days
