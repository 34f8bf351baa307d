"""Reads a Dockerfile: lines, then instructions, then stages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from storagedrivers.dockerfile.instructions import Dockerfile, Heredoc, Instruction, Stage
from storagedrivers.errors import DockerfileError, did_you_mean

_DIRECTIVE = re.compile(r"^#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"<<(-?)\s*(?:\"([^\"\s]+)\"|'([^'\s]+)'|([A-Za-z0-9_.]+))")
_FLAG = re.compile(r"--([A-Za-z][A-Za-z0-9-]*)(?:=(\S*))?(?:\s+|$)")
_STAGE = re.compile(r"[a-z][a-z0-9-_.]*")

_FLAGS = {
    "FROM": ("platform",),
    "RUN": ("mount", "network", "security"),
    "COPY": ("from", "chown", "chmod", "link"),
    "ADD": ("chown", "chmod", "link"),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
}
_ALONE = ("link",)


class _Line(NamedTuple):
    """One logical line: continued lines are joined, comments left out."""

    text: str
    first: int
    last: int
    heredocs: tuple[Heredoc, ...]


def parse(text: bytes | str, name: str = "Dockerfile") -> Dockerfile:
    """What a Dockerfile says.

    Raises:
        DockerfileError: a line of it cannot be taken.
    """
    if isinstance(text, bytes):
        text = _decoded(text, name)
    lines = text.removeprefix("\ufeff").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    escape, notes = _directives(lines, name)
    instructions = []
    for line in _logical_lines(lines, escape):
        with_place = _Place(name, lines, line.first)
        try:
            instructions.append(_instruction(line, escape))
        except DockerfileError as error:
            raise with_place.error(error) from error
    if not instructions:
        raise DockerfileError(
            f"the Dockerfile {name} is empty", resolution="begin with a FROM: FROM scratch"
        )
    stages, arguments = _stages(instructions, _Place(name, lines, 0))
    return Dockerfile(stages, arguments, escape, tuple(notes), name, tuple(lines))


def parse_instruction(text: str, escape: str = "\\") -> Instruction:
    """One instruction, that of an ONBUILD for instance.

    Raises:
        DockerfileError: it is none.
    """
    lines = text.split("\n")
    found = [*_logical_lines(lines, escape)]
    if len(found) != 1:
        raise DockerfileError(f"{text!r} is not one instruction")
    return _instruction(found[0], escape)._replace(line=0, last_line=0)


class _Place(NamedTuple):
    """A line of a file."""

    name: str
    lines: Sequence[str]
    line: int

    def error(self, error: DockerfileError) -> DockerfileError:
        """The error, with where it is."""
        line = error.line or self.line
        shown = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        column = len(shown) - len(shown.lstrip())
        details = f"{line:4} | {shown}\n     | {' ' * column}^"
        if error.details:
            details += f"\n{error.details}"
        return DockerfileError(
            f"{self.name} line {line}: {error.brief}",
            line=line,
            details=details,
            resolution=error.resolution,
        )


def _decoded(text: bytes, name: str) -> str:
    try:
        found = text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise DockerfileError(
            f"{name} line {line}: byte {text[error.start]:#04x} is not UTF-8",
            line=line,
            resolution="store the file as UTF-8",
        ) from error
    if "\0" in found:
        line = found.count("\n", 0, found.index("\0")) + 1
        raise DockerfileError(f"{name} line {line}: there is a NUL byte in it", line=line)
    return found


def _directives(lines: Sequence[str], name: str) -> tuple[str, list[str]]:
    """The escape character that the first comments choose, and notes on what they ask in vain."""
    escape, notes, seen = "\\", [], set()
    for number, line in enumerate(lines, 1):
        found = _DIRECTIVE.match(line)
        if found is None or found[1].lower() not in ("escape", "syntax", "check"):
            break
        word = found[1].lower()
        if word in seen:
            raise _Place(name, lines, number).error(
                DockerfileError(f"only one {word} parser directive can be used")
            )
        seen.add(word)
        if word == "escape":
            if found[2] not in ("\\", "`"):
                raise _Place(name, lines, number).error(
                    DockerfileError(f"invalid ESCAPE {found[2]!r}: it is \\ or `")
                )
            escape = found[2]
        else:
            notes.append(f"# {word}={found[2]} is ignored: this program reads the file itself")
    return escape, notes


def _logical_lines(lines: Sequence[str], escape: str) -> Iterator[_Line]:
    number = 0
    while number < len(lines):
        first = number + 1
        pieces = []
        while number < len(lines):
            line = lines[number]
            number += 1
            stripped = line.strip()
            if stripped.startswith("#") or (not stripped and pieces):
                if not pieces:
                    break
                continue
            continued = _continued(line if pieces else line.lstrip(), escape)
            if continued is None:
                pieces.append(line if pieces else line.lstrip())
                break
            pieces.append(continued)
        text = "".join(pieces).strip()
        if not text:
            continue
        heredocs, number = _heredocs(text, lines, number)
        yield _Line(text, first, number, heredocs)


def _continued(line: str, escape: str) -> str | None:
    """The line without the escape at its end; None where there is none."""
    end = line.rstrip(" \t")
    return end[:-1] if end.endswith(escape) else None


def _heredocs(text: str, lines: Sequence[str], number: int) -> tuple[tuple[Heredoc, ...], int]:
    """The heredocs that a line announces, and the number of the line after them."""
    if text.split(None, 1)[0].upper() not in ("RUN", "COPY", "ADD"):
        return (), number
    found = []
    for strip, double, single, plain in _announced(text):
        name = double or single or plain
        body, began = [], number
        while True:
            if number == len(lines):
                raise DockerfileError(
                    f"the heredoc {name} has no end",
                    line=began,
                    resolution=f"put a line with nothing but {name} behind it",
                )
            line = lines[number].lstrip("\t") if strip else lines[number]
            number += 1
            if line == name:
                break
            body.append(line + "\n")
        found.append(Heredoc(name, "".join(body), expand=bool(plain)))
    return tuple(found), number


def _announced(text: str) -> list[tuple[str, str, str, str]]:
    """The heredocs of a line, but for those in quotes."""
    bare = re.sub(r"(?<!<)(?<!<-)(\"[^\"]*\"|'[^']*')", lambda found: " " * len(found[0]), text)
    return [one.groups("") for one in _HEREDOC.finditer(text) if bare.startswith("<<", one.start())]  # type: ignore[misc]


def _instruction(line: _Line, escape: str) -> Instruction:
    word, _, rest = _first_word(line.text)
    word = word.upper()
    parse_one = _PARSERS.get(word)
    if parse_one is None:
        raise DockerfileError(
            f"unknown instruction: {word}",
            resolution=did_you_mean(word, _PARSERS) or f"expected one of {', '.join(_PARSERS)}",
        )
    flags, body = _flags(word, rest.strip())
    if not body and word not in ("RUN", "CMD", "ENTRYPOINT"):
        raise DockerfileError(
            f"{word} requires {'exactly one argument' if word in _ONE else 'at least one argument'}"
        )
    arguments, exec_form = parse_one(body, escape)
    return Instruction(
        word, flags, tuple(arguments), exec_form, line.heredocs, rest.strip(), line.first, line.last
    )


def _first_word(text: str) -> tuple[str, str, str]:
    found = re.match(r"(\S+)(\s*)(.*)", text, re.DOTALL)
    assert found is not None
    return found[1], found[2], found[3]


def _flags(word: str, text: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """The flags before the arguments, and what is left."""
    known, found = _FLAGS.get(word, ()), []
    while text.startswith("--"):
        one = _FLAG.match(text)
        if one is None or (not known and word not in _FLAGS):
            break
        name, value = one[1], one[2]
        if name not in known:
            raise DockerfileError(
                f"unknown flag: {name}",
                resolution=did_you_mean(name, known) or f"{word} takes --{', --'.join(known)}",
            )
        if value is None and name not in _ALONE:
            raise DockerfileError(f"missing a value on flag: {name}")
        if name != "mount" and name in dict(found):
            raise DockerfileError(f"duplicate flag specified: {name}")
        found.append((name, value or ""))
        text = text[one.end() :]
    return tuple(found), text


# What follows the flags: each gives the arguments, and whether they are the exec form.

Parsed = tuple[Sequence[str], bool]


def _json_list(text: str) -> list[str] | None:
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(one, str) for one in found):
        raise DockerfileError("only strings are allowed in a JSON list of arguments")
    return found


def _command(text: str, escape: str) -> Parsed:
    found = _json_list(text)
    return ([text] if text else [], False) if found is None else (found, True)


def raw_words(text: str, escape: str) -> list[str]:
    """Words as they stand, with their quotes; blanks in quotes or after an escape do not end one."""
    words, word, quote, at = [], "", "", 0
    while at < len(text):
        character = text[at]
        if character == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 2
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character.isspace():
            if word:
                words.append(word)
            word, at = "", at + 1
            continue
        word += character
        at += 1
    return [*words, word] if word else words


def _words(text: str, escape: str) -> Parsed:
    return text.split(), False


def _quoted_words(text: str, escape: str) -> Parsed:
    return raw_words(text, escape), False


def _paths(text: str, escape: str) -> Parsed:
    found = _json_list(text)
    words = text.split() if found is None else found
    if len(words) < 2:
        raise DockerfileError("COPY and ADD require at least two arguments: sources, destination")
    return words, found is not None


def _volumes(text: str, escape: str) -> Parsed:
    found = _json_list(text)
    return (text.split() if found is None else found), found is not None


def _pairs(text: str, escape: str) -> Parsed:
    words = raw_words(text, escape)
    if "=" not in words[0]:
        name, _, value = _first_word(text)
        if not value:
            raise DockerfileError("it must have two arguments: a name and a value")
        return [name, value.rstrip()], False
    arguments = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        if not name:
            raise DockerfileError("names can not be blank")
        arguments += [name, value]
    return arguments, False


def _one_text(text: str, escape: str) -> Parsed:
    return [text], False


def _shell(text: str, escape: str) -> Parsed:
    found = _json_list(text)
    if not found:
        raise DockerfileError(
            "SHELL requires the arguments to be in JSON form", resolution='SHELL ["/bin/sh", "-c"]'
        )
    return found, True


def _healthcheck(text: str, escape: str) -> Parsed:
    kind, _, rest = _first_word(text)
    kind = kind.upper()
    if kind == "NONE":
        if rest:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return ["NONE"], False
    if kind != "CMD":
        raise DockerfileError(
            f"unknown type {kind!r} in HEALTHCHECK (try CMD)", resolution="write CMD or NONE"
        )
    if not rest:
        raise DockerfileError("missing command after HEALTHCHECK CMD")
    words, exec_form = _command(rest, escape)
    return ["CMD", *words], exec_form


def _onbuild(text: str, escape: str) -> Parsed:
    word = text.split(None, 1)[0].upper()
    if word == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise DockerfileError(f"{word} isn't allowed as an ONBUILD trigger")
    parse_instruction(text, escape)
    return [text], False


def _exactly_one(text: str, escape: str) -> Parsed:
    words = raw_words(text, escape)
    if len(words) != 1:
        raise DockerfileError("it requires exactly one argument")
    return words, False


_PARSERS: dict[str, Callable[[str, str], Parsed]] = {
    "ADD": _paths,
    "ARG": _quoted_words,
    "CMD": _command,
    "COPY": _paths,
    "ENTRYPOINT": _command,
    "ENV": _pairs,
    "EXPOSE": _quoted_words,
    "FROM": _words,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _pairs,
    "MAINTAINER": _one_text,
    "ONBUILD": _onbuild,
    "RUN": _command,
    "SHELL": _shell,
    "STOPSIGNAL": _exactly_one,
    "USER": _one_text,
    "VOLUME": _volumes,
    "WORKDIR": _one_text,
}
_ONE = ("STOPSIGNAL", "USER", "WORKDIR", "MAINTAINER", "ONBUILD")


def _stages(
    instructions: Sequence[Instruction], place: _Place
) -> tuple[tuple[Stage, ...], tuple[Instruction, ...]]:
    arguments: list[Instruction] = []
    stages: list[Stage] = []
    for one in instructions:
        try:
            if one.word == "FROM":
                stages.append(_stage(one, stages))
            elif stages:
                last = stages[-1]
                stages[-1] = last._replace(instructions=(*last.instructions, one))
            elif one.word == "ARG":
                arguments.append(one)
            else:
                raise DockerfileError(
                    "no build stage in current context", resolution="begin with a FROM"
                )
        except DockerfileError as error:
            raise place._replace(line=one.line).error(error) from error
    if not stages:
        raise place._replace(line=len(place.lines)).error(
            DockerfileError("there is no FROM", resolution="begin with one: FROM scratch")
        )
    return tuple(stages), tuple(arguments)


def _stage(base: Instruction, before: Sequence[Stage]) -> Stage:
    words = base.arguments
    name = ""
    if len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
        if not _STAGE.fullmatch(name):
            raise DockerfileError(
                f"invalid name for build stage: {words[2]!r}, name can't start with a number or"
                " contain symbols"
            )
        if any(stage.name == name for stage in before):
            raise DockerfileError(f"duplicate name {name}", resolution="give it another name")
    elif len(words) != 1:
        raise DockerfileError("FROM requires either one or three arguments")
    return Stage(len(before), name, base, dict(base.flags).get("platform", ""), ())
