"""What is wrong in a line of a Dockerfile, and how that is shown: the line, a caret below it."""

from __future__ import annotations

from storagedrivers.errors import DockerfileError

_WIDEST = 100  # columns of a line that are shown


class Fault(Exception):
    """Something is wrong with an instruction; where it stands in the file is not known here.

    Attributes:
        message: what is wrong.
        at: where it is in the instruction's logical line, or in the text that was looked at.
        width: how many characters are at fault.
        expected: what should stand there.
        resolution: what to do about it, or None.
    """

    def __init__(
        self,
        message: str,
        at: int = 0,
        *,
        width: int = 1,
        expected: str = "",
        resolution: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.width = width
        self.expected = expected
        self.resolution = resolution

    def moved(self, offset: int) -> Fault:
        """The same, in a text that begins *offset* earlier."""
        self.at += offset
        return self


def error_of(fault: Fault, name: str, line: int, text: str, column: int) -> DockerfileError:
    """The error that shows a fault.

    Args:
        fault: what is wrong.
        name: of the Dockerfile; empty where the text is of no file.
        line: its number, from 1; 0 where the text is of no file.
        text: the line.
        column: where in it the fault is, from 0.
    """
    place = " ".join(part for part in (name, f"line {line}" if line else "") if part)
    details = excerpt(text, column, fault.width)
    if fault.expected:
        details += f"\nexpected: {fault.expected}"
    brief = f"{place}: {fault.message}" if place else fault.message
    return DockerfileError(
        printable(brief),
        line=line,
        details=details,
        resolution=fault.resolution or _resolution(fault, place),
    )


def _resolution(fault: Fault, place: str) -> str:
    where = f"in {place}" if place else "there"
    return f"write {fault.expected} {where}" if fault.expected else f"mend it {where}"


def excerpt(text: str, column: int, width: int = 1) -> str:
    """A line with carets below the place at fault; of a long line what is around that place."""
    text = printable(text)
    first = max(0, column - _WIDEST // 2) if len(text) > _WIDEST else 0
    shown = text[first : first + _WIDEST]
    column = min(column - first, len(shown))
    carets = "^" * max(1, min(width, len(shown) - column))
    return f"{shown}\n{' ' * _columns(shown[:column])}{carets}"


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(one) else 1 + (east_asian_width(one) in "WF") for one in text)


def printable(text: str) -> str:
    """A text of unknown origin without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else " " if one.isspace() else "�" for one in text)
