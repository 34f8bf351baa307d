"""Patterns of a shell with ``*`` and ``?``, as variables are cut with; no pattern takes long."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

_LONGEST = 256  # characters; the time it takes grows with it


class Glob:
    r"""A pattern: ``*``, ``?``, and ``\`` before those to mean them.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, pattern: str) -> None:
        if len(pattern) > _LONGEST:
            raise ValueError(f"it has more than {_LONGEST} characters")
        self._parts = _parsed(pattern)

    @cached_property
    def _reversed(self) -> list[list[str]]:
        return [part[::-1] for part in self._parts[::-1]]

    def without_prefix(self, text: str, *, longest: bool) -> str:
        """The text without what the pattern matches at its beginning."""
        return text[_length(self._parts, text, 0, longest=longest) or 0 :]

    def without_suffix(self, text: str, *, longest: bool) -> str:
        """The text without what the pattern matches at its end."""
        length = _length(self._reversed, text[::-1], 0, longest=longest) or 0
        return text[: len(text) - length]

    def replaced(self, text: str, other: str, *, everywhere: bool) -> str:
        """The text with *other* in place of what the pattern matches, first or everywhere."""
        parts: list[str] = []
        done = at = 0
        while at <= len(text) and (found := self._find(text, at)):
            start, end = found
            parts += (text[done:start], other)
            done = end
            at = max(end, start + 1)
            if not everywhere:
                break
        return "".join((*parts, text[done:]))

    def _find(self, text: str, at: int) -> tuple[int, int] | None:
        # What follows the first part is as far to the left as it can be: if it is not found after
        # the first place where that part is, it is not after a later one.
        first = re.compile("".join(self._parts[0]), re.DOTALL).search(text, at)
        if not first:
            return None
        length = _length([[], *self._parts[1:]], text, first.end(), longest=True)
        return None if length is None else (first.start(), first.end() + length)


def _parsed(pattern: str) -> list[list[str]]:
    """What stands between the ``*``, each part a list of regular expressions for a character."""
    parts: list[list[str]] = [[]]
    characters = iter(pattern)
    for one in characters:
        if one == "*":
            parts.append([])
        elif one == "?":
            parts[-1].append(".")
        elif one == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "?", "\\", "}", "/"):
                raise ValueError(f"invalid escape '\\{escaped}'")
            parts[-1].append(re.escape(escaped))
        else:
            parts[-1].append(re.escape(one))
    return parts


def _length(parts: Sequence[Sequence[str]], text: str, at: int, *, longest: bool) -> int | None:
    """How many characters from *at* on match, or None."""
    # A part that was found once need not be looked for further to the right, but for the last one
    # of the longest match: so nothing is tried twice (the groups are atomic).
    first, *others = ["".join(part) for part in parts]
    expressions = [f"(?>.*?{one})" for one in others]
    if longest and others:
        expressions[-1] = f".*{others[-1]}"
    found = re.compile(first + "".join(expressions), re.DOTALL).match(text, at)
    return found.end() - at if found else None
