"""Words as a Dockerfile has them: quotes, escapes and variables.

The rules are those of Docker's own lexer for shell words: ``$X``, ``${X}``, ``${X:-word}``,
``${X-word}``, ``${X:+word}``, ``${X+word}``, ``${X:?word}``, ``${X?word}``; the word may have
variables itself. In single quotes nothing is special.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from storagedrivers.errors import DockerfileError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEEPEST = 50  # variables within the words of variables


def expand(text: str, environment: Mapping[str, str], *, escape: str = "\\") -> str:
    """A text without its quotes and escapes, and with the values of its variables.

    Raises:
        DockerfileError: a quote or a brace has no end, or a ``:?`` says that it is an error.
    """
    return "".join(_Lexer(text, environment, escape).words(split=False))


def split(text: str, environment: Mapping[str, str], *, escape: str = "\\") -> list[str]:
    """The same, cut at blanks that are not quoted; also at those of values.

    Raises:
        DockerfileError: as :func:`expand`.
    """
    return _Lexer(text, environment, escape).words(split=True)


class _Lexer:
    """One pass over a text."""

    def __init__(
        self, text: str, environment: Mapping[str, str], escape: str, depth: int = 0
    ) -> None:
        self._text = text
        self._environment = environment
        self._escape = escape
        self._depth = depth
        self._at = 0
        self._split = False
        self._words: list[str] = []
        self._parts: list[str] = []
        self._in_word = False

    def words(self, *, split: bool) -> list[str]:
        """What the text says."""
        self._split = split
        self._run("")
        if self._in_word or not split:
            self._end_word()
        return self._words

    def _end_word(self) -> None:
        self._words.append("".join(self._parts))
        self._parts, self._in_word = [], False

    def _put(self, text: str) -> None:
        self._parts.append(text)
        self._in_word = True

    def _put_value(self, text: str) -> None:
        """A value that is not quoted: cut at its blanks, as the text is."""
        if not self._split:
            self._put(text)
            return
        for number, piece in enumerate(re.split(r"\s+", text)):
            if number and self._in_word:
                self._end_word()
            if piece:
                self._put(piece)

    def _run(self, end: str) -> None:
        """Go on to *end*, which is left where it is, or to the end of the text."""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == end:
                return
            if self._split and character.isspace():
                self._at += 1
                if self._in_word:
                    self._end_word()
            elif character == "'":
                self._single()
            elif character == '"':
                self._double()
            elif character == "$":
                self._put_value(self._variable())
            elif character == self._escape:
                self._put(self._text[self._at + 1 : self._at + 2])
                self._at += 2
            else:
                self._put(character)
                self._at += 1

    def _single(self) -> None:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise self._unended("a single quote")
        self._put(self._text[self._at + 1 : end])
        self._at = end + 1

    def _double(self) -> None:
        self._at += 1
        self._put("")
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == '"':
                self._at += 1
                return
            if character == "$":
                self._put(self._variable())
            elif character == self._escape:
                self._escaped_in_quotes()
            else:
                self._put(character)
                self._at += 1
        raise self._unended("a double quote")

    def _escaped_in_quotes(self) -> None:
        following = self._text[self._at + 1 : self._at + 2]
        special = following in ('"', "$", self._escape)
        self._put(following if special else self._escape + following)
        self._at += 2

    def _variable(self) -> str:
        """The value of the variable that begins here."""
        self._at += 1
        if self._text[self._at : self._at + 1] == "{":
            return self._braced()
        found = _NAME.match(self._text, self._at)
        if found is None:
            return self._special()
        self._at = found.end()
        return self._environment.get(found[0], "")

    def _special(self) -> str:
        """``$1`` and the like, which have no value here; a dollar alone is itself."""
        following = self._text[self._at : self._at + 1]
        if following and (following.isdigit() or following in "@*#?-!"):
            self._at += 1
            return ""
        return "$"

    def _braced(self) -> str:
        self._at += 1
        found = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\d+|[@*#?!-]").match(self._text, self._at)
        if found is None:
            raise DockerfileError(f"{self._text!r}: bad substitution", resolution="write ${NAME}")
        name, self._at = found[0], found.end()
        operator = self._operator()
        if not operator:
            if self._text[self._at : self._at + 1] != "}":
                raise self._unended("a ${")
            self._at += 1
            return self._environment.get(name, "")
        word = self._word_of_braces()
        return self._modified(name, operator, word)

    def _operator(self) -> str:
        for operator in (":-", ":+", ":?", "-", "+", "?"):
            if self._text.startswith(operator, self._at):
                self._at += len(operator)
                return operator
        if self._text[self._at : self._at + 1] not in ("}", ""):
            raise DockerfileError(
                f"unsupported modifier ({self._text[self._at : self._at + 2]}) in substitution",
                resolution="after a name in ${…} stands :-, :+, :? or nothing",
            )
        return ""

    def _word_of_braces(self) -> str:
        if self._depth > _DEEPEST:
            raise DockerfileError("variables are nested too deep in one another")
        inner = _Lexer(self._text, self._environment, self._escape, self._depth + 1)
        inner._at = self._at
        inner._run("}")
        self._at = inner._at
        if self._text[self._at : self._at + 1] != "}":
            raise self._unended("a ${")
        self._at += 1
        return "".join(inner._parts)

    def _modified(self, name: str, operator: str, word: str) -> str:
        value = self._environment.get(name)
        there = value is not None and (operator[0] != ":" or value != "")
        if operator[-1] == "-":
            return (value or "") if there else word
        if operator[-1] == "+":
            return word if there else ""
        if not there:
            raise DockerfileError(
                f"{name}: {word or 'is not set'}", resolution=f"give it a value: --build-arg {name}=…"
            )
        return value or ""

    def _unended(self, what: str) -> DockerfileError:
        return DockerfileError(
            f"{what} has no end in {self._text!r}", resolution="end it, or put the escape before it"
        )
