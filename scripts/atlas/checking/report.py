"""The verdict on one exercise, as text in a terminal and as a box in a notebook."""

import html
from dataclasses import dataclass

PASSED, FAILED, UNTOUCHED, BROKEN = "passed", "failed", "untouched", "error"


_LOOKS = {
    PASSED: ("✔", "passed", "#2e9e62"),
    FAILED: ("✘", "not yet", "#d9632a"),
    UNTOUCHED: ("○", "not attempted", "#8a8f98"),
    BROKEN: ("!", "the check broke", "#b04fc4"),
}
"""Status → mark, words, colour of the mark; readable on white and on black."""


@dataclass(frozen=True)
class Outcome:
    """The verdict on one exercise: status is passed, failed, untouched, or error (the check itself broke)."""

    exercise: str
    status: str
    why: str = ""
    details: tuple[str, ...] = ()
    printed: str = ""

    @property
    def passed(self) -> bool:
        return self.status == PASSED

    @property
    def title(self) -> str:
        """The heading: mark, exercise, verdict."""
        mark, label, _ = _LOOKS[self.status]
        said = self.why if self.status in (FAILED, BROKEN) else ": ".join(filter(None, [label, self.why]))
        return f"{mark} {self.exercise}   {said}"

    def text(self) -> str:
        """The report as plain text, a heading line and indented details."""
        return "\n".join([self.title, *(f"  {line}" for line in self._body())])

    def html(self) -> str:
        """The report for a notebook; text takes the theme's colour."""
        mark, label, colour = _LOOKS[self.status]
        heading = f'<span style="color:{colour}">{mark}</span> <b>{html.escape(self.exercise)}</b> · {label}'
        return card(heading, self.why, "\n".join(self._body()), colour)

    def _body(self) -> list[str]:
        printed = [f"  {line}" for line in self.printed.splitlines()]
        return [*self.details, *(["your code printed:", *printed] if printed else [])]


def card(heading: str, text: str = "", pre: str = "", colour: str = "#8a8f98") -> str:
    """A box for a notebook's output: `heading` is HTML; `text` and `pre` are escaped."""
    style = "margin:.4em 0 0;padding:0;background:transparent;color:inherit;font-size:.92em;"
    style += "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"
    return (
        f'<div style="border-left:4px solid {colour};padding:.35em .8em;margin:.3em 0;background:{colour}18">{heading}'
        + (f"<br>{html.escape(text)}" if text else "")
        + (f'<pre style="{style}">{html.escape(pre)}</pre>' if pre else "")
        + "</div>"
    )
