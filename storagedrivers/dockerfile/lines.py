"""Logical lines of a Dockerfile: directives are taken, comments dropped, continued lines joined."""

from __future__ import annotations

import re
from typing import NamedTuple

from storagedrivers.dockerfile.faults import Fault, error_of, printable
from storagedrivers.errors import DockerfileError

BLANKS = "\t\v\f\r "
"""What separates words; in a class of a regular expression too."""

_WIDE = "".join(map(chr, range(0x2000, 0x200B)))

SPACES = f"{BLANKS}\n\x85\xa0\u1680{_WIDE}\u2028\u2029\u202f\u205f\u3000"
"""What is white space to Go."""

_SPACES = re.compile(f"[{SPACES}]*")
_DIRECTIVE = re.compile(r"#[\t\n\f\r ]*+([a-zA-Z][a-zA-Z0-9]*+)[\t\n\f\r ]*+=")
_DIRECTIVES = ("check", "escape", "syntax")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_LONGEST = 65535  # bytes, as Docker has it


def behind_spaces(text: str, at: int) -> int:
    """Where the white space that begins at *at* ends."""
    found = _SPACES.match(text, at)
    assert found
    return found.end()


class Line(NamedTuple):
    """A logical line.

    Attributes:
        text: it, without blanks at its beginning.
        first: the number of the line where it begins, from 1.
        pieces: where its parts come from: offset in the text, number of the line, column there.
    """

    text: str
    first: int
    pieces: tuple[tuple[int, int, int], ...]

    def place(self, at: int) -> tuple[int, int]:
        """The number of the line and the column where a character of the text stands."""
        from bisect import bisect_right

        index = bisect_right(self.pieces, at, key=lambda piece: piece[0]) - 1
        offset, number, column = self.pieces[max(index, 0)]
        return number, column + at - offset


class Lines:
    """Reads a text from top to bottom.

    Args:
        text: the text; bytes that are no UTF-8 are surrogates.
        name: of the file, for messages; empty where it is of none.

    Attributes:
        escape: the character that continues a line.
        notes: what the user should know.
        last: how many lines have been read.
    """

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.removeprefix("\ufeff").split("\n")
        if not self._lines[-1]:
            self._lines.pop()
        self._name = name
        self._seen: set[str] | None = set()  # None: directives are over
        self.escape = "\\"
        self.notes: list[str] = []
        self.last = 0

    @property
    def shown(self) -> tuple[str, ...]:
        """All lines, for messages: without what a terminal would obey."""
        return tuple(printable(line.rstrip("\r")) for line in self._lines)

    def next(self) -> Line | None:
        """The next logical line; None at the end.

        Raises:
            DockerfileError: a directive or a line is no good.
        """
        while self.last < len(self._lines):
            line = self._take()
            indent = behind_spaces(line, 0)
            line = line[indent:]
            self._take_directive(line)
            line, more = ("", False) if line.startswith("#") else self._cut(line)
            if line or more:
                return self._joined(line, indent, more=more)
        return None

    def _joined(self, line: str, column: int, *, more: bool) -> Line:
        first, length = self.last, 0
        parts: list[str] = []
        pieces: list[tuple[int, int, int]] = []
        empty = False
        while True:
            if line or not pieces:
                parts.append(line)
                pieces.append((length, self.last, column))
                length += len(line)
            if not more or self.last == len(self._lines):
                break
            line, more, column = self._take(), True, 0
            start = line.lstrip(SPACES)
            if not start or start.startswith("#"):
                empty |= not start
                line = ""
            else:
                line, more = self._cut(line)
        if empty:
            self.notes.append(
                f"line {first}: there is an empty line in it; Docker is going to refuse that"
            )
        found = Line("".join(parts), first, tuple(pieces))
        self._check_text(found)
        return found

    def _take(self) -> str:
        line = self._lines[self.last]
        self.last += 1
        if len(line) * 4 > _LONGEST and len(line.encode(errors="surrogatepass")) > _LONGEST:
            raise self.error(
                Fault(
                    f"dockerfile line greater than max allowed size of {_LONGEST}",
                    _LONGEST // 4,
                    resolution=f"continue it on another line with {self.escape} at its end",
                ),
                Line(line, self.last, ((0, self.last, 0),)),
            )
        return line.rstrip("\r")

    def _cut(self, line: str) -> tuple[str, bool]:
        """The line without the character that continues it, and whether there was one."""
        short = line.rstrip("\t ")
        if short.endswith(self.escape) and not short.endswith(self.escape * 2):
            return short[:-1], True
        return line, False

    def _take_directive(self, line: str) -> None:
        """Obey ``# escape=``; directives stand above everything else."""
        if self._seen is None:
            return
        found = _DIRECTIVE.match(line)
        value = line[found.end() :].strip("\t\n\f\r ") if found else ""
        name = found[1].lower() if found and value else ""
        if name not in _DIRECTIVES:
            self._seen = None
            return
        here = Line(line, self.last, ((0, self.last, 0),))
        if name in self._seen:
            raise self.error(
                Fault(
                    f"only one {name} parser directive can be used",
                    width=len(line),
                    resolution=f"leave one of the {name} directives out",
                ),
                here,
            )
        self._seen.add(name)
        if name != "escape":
            self.notes.append(f"# {name}={value} is ignored: nothing but this program reads it")
        elif value in ("\\", "`"):
            self.escape = value
        else:
            raise self.error(
                Fault(
                    f"invalid escape token '{value}' does not match ` or \\",
                    line.index(value, line.index("=")),
                    width=len(value),
                    expected="` or \\",
                ),
                here,
            )

    def body(self, terminator: str, *, tabs: bool) -> str | None:
        """The lines of a heredoc; None where nothing ends it.

        Args:
            terminator: the line that ends it.
            tabs: whether tabs at the beginnings of lines are taken away.
        """
        first = self.last
        while self.last < len(self._lines):
            line = self._take()
            if (line.lstrip("\t") if tabs else line) == terminator:
                lines = self._lines[first : self.last - 1]
                content = "".join(f"{one.lstrip(chr(9)) if tabs else one}\n" for one in lines)
                self._check_body(content, first)
                return content
        return None

    def _check_body(self, content: str, first: int) -> None:
        bad = _NO_TEXT.search(content)
        if bad:
            number = first + content.count("\n", 0, bad.start()) + 1
            text = self._lines[number - 1]
            at = text.index(bad[0])
            raise self.error(_no_text(bad[0], at), Line(text, number, ((0, number, 0),)))

    def _check_text(self, line: Line) -> None:
        bad = _NO_TEXT.search(line.text)
        if bad:
            raise self.error(_no_text(bad[0], bad.start()), line)

    def error(self, fault: Fault, line: Line) -> DockerfileError:
        """The error that shows a fault of a logical line at its place in the file."""
        number, column = line.place(fault.at)
        shown = self._lines[number - 1] if number <= len(self._lines) else ""
        if not self._name:
            number = 0
        return error_of(fault, self._name, number, shown.rstrip("\r"), column)


def _no_text(character: str, at: int) -> Fault:
    if character == "\0":
        return Fault(
            "a null character is no text", at, resolution="save it as a text file, in UTF-8"
        )
    return Fault(
        f"byte 0x{ord(character) & 0xFF:02x} is no UTF-8", at, resolution="save it as UTF-8"
    )
