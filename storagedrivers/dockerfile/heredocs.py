"""Heredocs: ``<<NAME`` in an instruction, and its text below it."""

from __future__ import annotations

import re
from typing import NamedTuple

from storagedrivers.dockerfile.faults import Fault
from storagedrivers.dockerfile.lines import SPACES
from storagedrivers.dockerfile.words import Lexer

_MARK = re.compile(rf"\d*<<(-?)[{SPACES}]*([^<]+)")
# A word as a shell cuts it; the blanks between << and the name belong to it. In these the backslash
# is what escapes, whatever the Dockerfile's own character is.
_WORD = re.compile(
    rf"""(?:[^{SPACES}'"\\<]++|<<[\t\r ]*+|<|\\.|'[^']*+'|"(?:[^"\\]++|\\.)*+"|\\\Z|(['"].*))++""",
    re.DOTALL,
)


class Mark(NamedTuple):
    """What announces a heredoc.

    Attributes:
        name: what ends it.
        tabs: whether tabs at the beginnings of its lines are taken away.
        expand: whether variables are put in.
        at: where the mark stands.
    """

    name: str
    tabs: bool
    expand: bool
    at: int = 0


def marks(text: str) -> list[Mark]:
    """Those in a logical line; none where a quote has no end."""
    found = []
    if "<<" in text:
        for word in _WORD.finditer(text):
            if word[1]:
                return []
            one = mark(word[0])
            if one:
                found.append(one._replace(at=word.start()))
    return found


def mark(word: str) -> Mark | None:
    """The mark that a word is, or None."""
    found = _MARK.fullmatch(word) if "<<" in word else None
    if not found:
        return None
    if found[2].isalnum():
        return Mark(found[2], bool(found[1]), expand=True)
    try:
        names = Lexer(found[2], {}, "\\", variables=False).words()
    except Fault:
        return None
    if len(names) != 1:
        return None
    quotes = sum(map(found[2].count, "'\"")) - sum(map(names[0].count, "'\""))
    return Mark(names[0], bool(found[1]), not quotes)
