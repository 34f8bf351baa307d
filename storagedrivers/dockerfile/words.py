"""Words as Docker's lexer has them: quotes, escapes, and variables that are put in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from storagedrivers.dockerfile.faults import Fault, error_of
from storagedrivers.dockerfile.go_text import quoted
from storagedrivers.dockerfile.lines import SPACES

_DEEPEST = 50  # variables within variables
_LONGEST = 1 << 20  # characters of a text with its variables put in
_LONGEST_SHOWN = 100

_SPACE = re.compile(f"[{SPACES}]")
# Of a variable; a number or one of a shell's own is a name, too, and never set.
_NAME = re.compile(r"\d+|[@*#?$!-]|(?:[^\W\d]|_)\w*|")


def expand(
    text: str, environment: Mapping[str, str], *, escape: str = "\\", quotes: bool = True
) -> str:
    """A text with its variables put in and its quotes and escapes taken away.

    Args:
        text: as written.
        environment: what the variables stand for; others are empty.
        escape: the Dockerfile's escape character.
        quotes: whether quotes are special; they are not in heredocs.

    Raises:
        DockerfileError: a quote or a brace has no end, or a variable has to be set and is not.
    """
    try:
        return Lexer(text, environment, escape, quotes=quotes).whole()
    except Fault as fault:
        raise error_of(fault, "", 0, text, fault.at) from None


def split(text: str, environment: Mapping[str, str], *, escape: str = "\\") -> list[str]:
    """The words of a text after its variables were put in; quoted blanks do not separate them.

    Raises:
        DockerfileError: as for :func:`expand`.
    """
    try:
        return Lexer(text, environment, escape).words()
    except Fault as fault:
        raise error_of(fault, "", 0, text, fault.at) from None


def check(text: str, escape: str) -> None:
    """Find what no environment could put right.

    Raises:
        Fault: there is something.
    """
    if "$" in text or "'" in text or '"' in text:
        Lexer(text, {}, escape, lenient=True).whole()


class Word(NamedTuple):
    """A word as written, with quotes and escapes, and where it begins."""

    text: str
    at: int


def raw_words(text: str, at: int, escape: str) -> list[Word]:
    """The words from *at* on, with quotes and escapes; a quote that does not end takes the rest."""
    words = []
    for found in _raw_word(escape).finditer(text, at):
        word = found[0][:-1] if found.lastgroup else found[0]  # without an escape of nothing
        if word:
            words.append(Word(word, found.start()))
    return words


@lru_cache
def _raw_word(escape: str) -> re.Pattern[str]:
    e = re.escape(escape)
    double = rf'"(?:[^"{e}]++|{e}.)*+(?:"|(?P<quoted>{e})?\Z)'
    return re.compile(
        rf"""(?:[^{SPACES}'"{e}]++|{e}.|'[^']*+(?:'|\Z)|{double}|(?P<last>{e})\Z)++""", re.DOTALL
    )


@lru_cache
def _plain(special: str) -> re.Pattern[str]:
    return re.compile(f"[^{re.escape(special)}]+")


class Lexer:
    """One pass over a text.

    Args:
        text: as written.
        environment: what the variables stand for.
        escape: the Dockerfile's escape character.
        quotes: whether quotes are special.
        variables: whether variables are.
        lenient: a variable that has to be set need not be.
    """

    def __init__(
        self,
        text: str,
        environment: Mapping[str, str],
        escape: str,
        *,
        quotes: bool = True,
        variables: bool = True,
        lenient: bool = False,
    ) -> None:
        self._text = text
        self._environment = environment
        self._escape = escape
        self._quotes = "'\"" if quotes else ""
        self._dollar = "$" if variables else ""
        self._lenient = lenient
        self._at = 0
        self._depth = 0
        self._room = _LONGEST

    def whole(self) -> str:
        """All of it.

        Raises:
            Fault: it has no end, or a variable is not set that has to be.
        """
        return "".join(text for text, _ in self._pieces())

    def words(self) -> list[str]:
        """What blanks separate that are not quoted, those of values too.

        Raises:
            Fault: as for :meth:`whole`.
        """
        words: list[list[str]] = [[]]
        for text, literal in self._pieces():
            first, *others = [text] if literal else _SPACE.split(text)
            words[-1].append(first)
            words += ([other] for other in others)
        return [word for parts in words if (word := "".join(parts))]

    def _pieces(self, stop: str = "", *, raw: bool = False) -> list[tuple[str, bool]]:
        """Texts up to *stop*, and whether blanks in them are quoted.

        Args:
            stop: a character that is read, too; empty for the end.
            raw: keep what escapes.
        """
        pieces: list[tuple[str, bool]] = []
        plain = _plain(f"{self._escape}{self._quotes}{self._dollar}{stop}")
        while self._at < len(self._text):
            one = self._text[self._at]
            if one == stop:
                self._at += 1
                return pieces
            if found := plain.match(self._text, self._at):
                self._at = found.end()
                pieces.append((found[0], False))
            elif one == "$":
                pieces.append((self._variable(), False))
            elif one == self._escape:
                escaped = self._text[self._at + 1 : self._at + 2]
                pieces.append((one + escaped if raw else escaped, True))
                self._at += 2
            else:
                pieces.append((self._single() if one == "'" else self._double(), True))
        if stop:
            raise self._fault(f"syntax error: missing '{stop}'", len(self._text), f"'{stop}'")
        return pieces

    def _single(self) -> str:
        start = self._at + 1
        end = self._text.find("'", start)
        if end < 0:
            raise self._endless("single", self._at)
        self._at = end + 1
        return self._text[start:end]

    def _double(self) -> str:
        start = self._at
        self._at += 1
        parts = []
        plain = _plain(f'{self._escape}"{self._dollar}')
        while self._at < len(self._text):
            one = self._text[self._at]
            if found := plain.match(self._text, self._at):
                self._at = found.end()
                parts.append(found[0])
            elif one == '"':
                self._at += 1
                return "".join(parts)
            elif one == "$":
                parts.append(self._variable())
            else:
                escaped = self._text[self._at + 1 : self._at + 2]
                parts.append(escaped if escaped in ('"', "$", one, "") else one)
                self._at += 2 if escaped in ('"', "$", one) else 1
        raise self._endless("double", start)

    def _variable(self) -> str:
        start = self._at
        self._at += 1
        if not self._text.startswith("{", self._at):
            name = self._name()
            value = self._environment.get(name, "") if name else "$"
        else:
            self._at += 1
            self._depth += 1
            if self._depth > _DEEPEST:
                raise self._fault("variables are nested too deeply", start)
            value = self._braced(start)
            self._depth -= 1
        self._room -= len(value)
        if self._room < 0:
            raise self._fault(f"it becomes longer than {_LONGEST:,} characters", start)
        return value

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        assert found
        self._at = found.end()
        return found[0]

    def _braced(self, start: int) -> str:
        """What ``${…}`` stands for, read up to its end."""
        if self._text[self._at : self._at + 1] in ("{", "}", ":"):
            raise self._fault("syntax error: bad substitution", self._at, "the name of a variable")
        name = self._name()
        value = self._environment.get(name)
        operator = self._text[self._at : self._at + 1]
        self._at += 1
        if operator == "}":
            return value or ""
        if operator == ":":
            operator += self._text[self._at : self._at + 1]
            self._at += 1
            value = value or None
        if operator[-1:] in ("-", "+", "?"):
            word = "".join(text for text, _ in self._pieces("}"))
            return self._chosen(name, value, operator, word, start)
        if operator in ("#", "%", "/"):
            return self._cut(value or "", operator)
        if not operator.strip(":"):
            raise self._fault("syntax error: missing '}'", len(self._text), "'}'")
        raise self._fault(
            f"unsupported modifier ({operator}) in substitution",
            self._at - len(operator),
            "one of :- :+ :? - + ? # % /",
        )

    def _chosen(self, name: str, value: str | None, operator: str, word: str, start: int) -> str:
        if operator[-1] == "-":
            return word if value is None else value
        if operator[-1] == "+":
            return "" if value is None else word
        if value is None and not self._lenient:
            empty = operator[0] == ":" and name in self._environment
            why = word or f"is not allowed to be {'empty' if empty else 'unset'}"
            raise self._fault(
                f"{name}: {why}",
                start,
                resolution=f"give {name} a value: ARG {name}=VALUE, or --build-arg {name}=VALUE",
            )
        return value or ""

    def _cut(self, value: str, operator: str) -> str:
        """``${X#pattern}``, ``${X%pattern}``, ``${X/pattern/other}``."""
        from storagedrivers.dockerfile import globs

        start = self._at
        longest = self._text.startswith(operator, self._at)
        self._at += longest
        pattern = self._raw("/" if operator == "/" else "}")
        other = self._raw("}") if operator == "/" else ""
        try:
            found = globs.Glob(pattern)
        except ValueError as error:
            raise self._fault(
                f"invalid pattern ({pattern}) in substitution: {error}", start
            ) from error
        if operator == "/":
            return found.replaced(value, other, everywhere=longest)
        if operator == "#":
            return found.without_prefix(value, longest=longest)
        return found.without_suffix(value, longest=longest)

    def _raw(self, stop: str) -> str:
        return "".join(text for text, _ in self._pieces(stop, raw=True))

    def _endless(self, kind: str, at: int) -> Fault:
        return self._fault(
            f"unexpected end of statement while looking for matching {kind}-quote",
            at,
            ("another '" if kind == "single" else f'another ", or {self._escape} before this one'),
        )

    def _fault(
        self, message: str, at: int, expected: str = "", resolution: str | None = None
    ) -> Fault:
        shown = self._text
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}…"
        return Fault(
            f"failed to process {quoted(shown)}: {message}",
            at,
            expected=expected,
            resolution=resolution,
        )
