"""What a ``.dockerignore`` leaves out of a context."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

from storagedrivers.build import patterns
from storagedrivers.errors import BuildError

_MOST_KNOWN = 4096  # directories whose answer is remembered


class _Pattern(NamedTuple):
    """One line.

    Attributes:
        exception: it lets in again.
        text: without ``!``.
        matches: whole paths.
    """

    exception: bool
    text: str
    matches: re.Pattern[str]


class Ignore:
    """The lines of a ``.dockerignore``; the last one that matches a path or a directory above it
    decides.

    Args:
        lines: as they stand in the file.

    Raises:
        BuildError: a line is no pattern.
    """

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._patterns = [one for line in lines if (one := _parsed(line)) is not None]
        self._exceptions = [f"{one.text}/" for one in self._patterns if one.exception]
        self._known: dict[str, list[bool]] = {}

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def excludes(self, path: str) -> bool:
        """Whether *path*, from the context's root, is left out.

        This looks at the lines alone: what is in a directory that is not entered is left out too.
        """
        return bool(self._patterns) and self._decision(self._matched(path))

    def enters(self, path: str) -> bool:
        """Whether a directory that is left out can have something in it that is let in again."""
        below = f"{path}/"
        return any(text.startswith(below) for text in self._exceptions)

    def hides(self, path: str) -> bool:
        """Whether *path* is not to be found in the context, for itself or for where it is."""
        if not self._patterns:
            return False
        at = path.find("/")
        while at >= 0:
            directory = path[:at]
            if self.excludes(directory) and not self.enters(directory):
                return True
            at = path.find("/", at + 1)
        return self.excludes(path)

    def _matched(self, path: str) -> list[bool]:
        """Which lines match a path, or a directory that it is in."""
        directory, _, _ = path.rpartition("/")
        if not directory:
            return [one.matches.fullmatch(path) is not None for one in self._patterns]
        above = self._known.get(directory)
        if above is None:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            above = self._known[directory] = self._matched(directory)
        return [
            known or one.matches.fullmatch(path) is not None
            for known, one in zip(above, self._patterns, strict=True)
        ]

    def _decision(self, matched: list[bool]) -> bool:
        for one, matches in zip(reversed(self._patterns), reversed(matched), strict=True):
            if matches:
                return not one.exception
        return False


def _parsed(line: str) -> _Pattern | None:
    """The pattern on a line; None where there is none."""
    if line.startswith("#"):
        return None
    text = line.strip()
    exception = text.startswith("!")
    if exception:
        text = text[1:].strip()
        if not text:
            raise BuildError(
                'illegal exclusion pattern: "!"',
                resolution="name in .dockerignore what is to be let in again",
            )
    if not text:
        return None
    text = posixpath.normpath(text).lstrip("/")
    if not text:
        text = "/"  # which is the name of nothing in a context
    return _Pattern(exception, text, patterns.compiled(text, deep=True))
