"""Patterns for names of files, as Go's ``filepath.Match`` has them; ``**`` where that is wanted."""

from __future__ import annotations

import re

from storagedrivers.errors import BuildError

_SPECIAL = "*?[\\"


def has_special(text: str) -> bool:
    """Whether a text is a pattern, and not the name itself."""
    at = 0
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        if text[at] in _SPECIAL:
            return True
        at += 1
    return False


def escaped(name: str) -> str:
    """The pattern that matches a name alone."""
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in name)


def compiled(pattern: str, *, deep: bool = False) -> re.Pattern[str]:
    """A pattern as a regular expression for whole names.

    Args:
        deep: ``**`` stands for any number of directories.

    Raises:
        BuildError: it is none.
    """
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if deep and pattern.startswith("**", at):
            part, at = _any_depth(pattern, at + 2)
        elif letter == "*":
            part, at = "[^/]*", at + 1
        elif letter == "?":
            part, at = "[^/]", at + 1
        elif letter == "[":
            part, at = _class(pattern, at + 1)
        else:
            letter, at = _letter(pattern, at)
            part = re.escape(letter)
        parts.append(part)
    return re.compile("".join(parts), re.DOTALL)


def _any_depth(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("/", at):
        at += 1
    return (".*" if at == len(pattern) else "(?:.*/)?"), at


def _letter(pattern: str, at: int) -> tuple[str, int]:
    """One letter, which may be escaped; and where the next one is."""
    if pattern[at] != "\\":
        return pattern[at], at + 1
    if at + 1 == len(pattern):
        raise _malformed(pattern)
    return pattern[at + 1], at + 2


def _class(pattern: str, at: int) -> tuple[str, int]:
    """What follows a ``[``: ranges up to a ``]``."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _end(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _end(pattern, at + 1)
        # A range that is upside down holds nothing.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    content = "".join(ranges)
    if not content:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' * negated}{content}]", at + 1


def _end(pattern: str, at: int) -> tuple[str, int]:
    """The end of a range in a class."""
    if at >= len(pattern) or pattern[at] in "-]":
        raise _malformed(pattern)
    return _letter(pattern, at)


def _malformed(pattern: str) -> BuildError:
    return BuildError(
        f"{pattern!r} is no pattern: syntax error in pattern",
        resolution="close every [, and write \\ before a character that means itself",
    )
