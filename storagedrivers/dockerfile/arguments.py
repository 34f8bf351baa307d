"""Arguments of each instruction: how they are cut, and how many there have to be."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from storagedrivers.dockerfile import heredocs
from storagedrivers.dockerfile.faults import Fault
from storagedrivers.dockerfile.lines import BLANKS, SPACES, behind_spaces
from storagedrivers.dockerfile.words import raw_words

_BLANKS = re.compile(f"[{BLANKS}]+")
_WORD = re.compile(f"[^{BLANKS}]+")
_NO_BLANK = re.compile(f"[^{SPACES}]+")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")


class Rest(NamedTuple):
    """What follows the word and the flags of an instruction.

    Attributes:
        line: the logical line.
        at: where the arguments begin in it.
        escape: the Dockerfile's escape character.
    """

    line: str
    at: int
    escape: str

    @property
    def text(self) -> str:
        """The arguments."""
        return self.line[self.at :]


class Arguments(NamedTuple):
    """Arguments.

    Attributes:
        words: they.
        exec_form: they were JSON.
        rest: what stands after the JSON, which Docker does not look at.
    """

    words: tuple[str, ...] = ()
    exec_form: bool = False
    rest: str = ""


def cut(word: str, rest: Rest) -> Arguments:
    """The arguments of an instruction.

    Raises:
        Fault: they are none, or too few, or too many.
    """
    return _CUTTERS[word](word, rest)


def _json_form(rest: Rest) -> Arguments | None:
    """The JSON form; None where it is none."""
    if not rest.line.startswith("[", rest.at):
        return None
    import json

    # Numbers are wrong whatever they are; as floats they may be long.
    decoder = json.JSONDecoder(parse_int=float, parse_constant=_no_json)
    try:
        found, end = decoder.raw_decode(rest.line, rest.at)
    except (ValueError, RecursionError):
        return None
    for one in found:
        if not isinstance(one, str):
            raise Fault(
                "when using JSON array syntax, arrays must be comprised of strings only",
                rest.at,
                width=end - rest.at,
                expected='strings in quotes, as in ["sh", "-c", "true"]',
            )
    words = tuple(_whole(one) for one in found)
    return Arguments(words, exec_form=True, rest=rest.line[end:].strip(SPACES))


def _no_json(text: str) -> object:
    raise ValueError(text)


def _whole(text: str) -> str:
    """The text with each half of a pair of UTF-16 that JSON escapes left alone replaced."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _command(word: str, rest: Rest) -> Arguments:
    """CMD, ENTRYPOINT, RUN: JSON, or a text for the shell."""
    found = _json_form(rest)
    if found is None:
        return Arguments((rest.text,) if rest.text else ())
    return found


def _shell(word: str, rest: Rest) -> Arguments:
    found = _json_form(rest)
    expected = 'a program and its options, as in ["/bin/sh", "-c"]'
    if found is None and rest.text:
        raise Fault(
            "SHELL requires the arguments to be in JSON form",
            rest.at,
            width=len(rest.text),
            expected=expected,
        )
    if found is None or not found.words:
        raise Fault("SHELL requires at least one argument", rest.at, expected=expected)
    return found


def _list(rest: Rest) -> Arguments:
    """JSON, or words; quotes mean nothing to those."""
    found = _json_form(rest)
    return found or Arguments(tuple(_WORD.findall(rest.line, rest.at)))


def _copy(word: str, rest: Rest) -> Arguments:
    found = _list(rest)
    if len(found.words) < 2:
        raise Fault(
            f"{word} requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
            len(rest.line) if found.words else rest.at,
            expected="a source and a destination",
        )
    if found.exec_form:
        return found
    *sources, destination = found.words
    if heredocs.mark(destination):
        raise Fault(
            f"{word} cannot accept a heredoc as a destination",
            rest.line.rindex(destination),
            width=len(destination),
            expected="a path",
        )
    names = [(heredocs.mark(one), one) for one in sources]
    words = [f"<<{mark.name}" if mark else one for mark, one in names]
    return Arguments((*words, destination))


def _volume(word: str, rest: Rest) -> Arguments:
    found = _list(rest)
    if not found.words:
        raise _none(word, rest, "a path in the container")
    if not all(one.strip(SPACES) for one in found.words):
        raise Fault(
            "VOLUME specified can not be an empty string",
            rest.at,
            width=len(rest.text),
            expected="a path in the container",
        )
    return found._replace(words=tuple(one.strip(SPACES) for one in found.words))


def _expose(word: str, rest: Rest) -> Arguments:
    if not rest.text:
        raise _none(word, rest, "a port, as in 80 or 53/udp")
    return Arguments(tuple(sorted(_WORD.findall(rest.line, rest.at))))


def _pairs(word: str, rest: Rest) -> Arguments:
    """ENV and LABEL: ``A=b C=d``, or the old ``A everything else``."""
    words = raw_words(rest.line, rest.at, rest.escape)
    if not words:
        raise _none(word, rest, "NAME=VALUE")
    if "=" not in words[0].text:
        name, *value = _BLANKS.split(rest.text, 1)
        if not value:
            raise Fault(f"{word} must have two arguments", len(rest.line), expected=f"{name}=VALUE")
        return Arguments((name, *value))
    pairs: list[str] = []
    for text, at in words:
        name, equals, one = text.partition("=")
        if not equals:
            raise Fault(
                f'Syntax error - can\'t find = in "{text}". Must be of the form: name=value',
                at,
                width=len(text),
                expected="NAME=VALUE",
                resolution="put the value in quotes if this belongs to the one before it",
            )
        pairs += (_named(word, name, at), one)
    return Arguments(tuple(pairs))


def _named(word: str, name: str, at: int) -> str:
    if not name:
        raise Fault(f"{word} names can not be blank", at, expected="a name before the =")
    return name


def _arg(word: str, rest: Rest) -> Arguments:
    words = raw_words(rest.line, rest.at, rest.escape)
    if not words:
        raise _none(word, rest, "NAME or NAME=DEFAULT")
    for text, at in words:
        _named(word, text.partition("=")[0], at)
    return Arguments(tuple(text for text, _ in words))


def _from(word: str, rest: Rest) -> Arguments:
    found = list(_WORD.finditer(rest.line, rest.at))
    words = [one[0] for one in found]
    if len(words) == 3 and words[1].lower() == "as":
        if not _STAGE_NAME.fullmatch(words[2].lower()):
            raise Fault(
                f'invalid name for build stage: "{words[2]}", '
                "name can't start with a number or contain symbols",
                found[2].start(),
                width=len(words[2]),
                expected="a letter and then letters, digits, '-', '_' and '.'",
            )
    elif len(words) != 1:
        odd = found[min(len(found) - 1, 1)] if found else None
        raise Fault(
            "FROM requires either one or three arguments",
            odd.start() if odd else rest.at,
            width=len(odd[0]) if odd else 1,
            expected="IMAGE or IMAGE AS NAME",
        )
    return Arguments(tuple(words))


def _one(word: str, rest: Rest) -> Arguments:
    if not rest.text:
        raise Fault(f"{word} requires exactly one argument", rest.at, expected=_WHAT[word])
    return Arguments((rest.text,))


_WHAT = {
    "MAINTAINER": "a name",
    "STOPSIGNAL": "a signal, as in SIGTERM or 15",
    "USER": "a user, as in root, 1000 or 1000:1000",
    "WORKDIR": "a path",
}


def _onbuild(word: str, rest: Rest) -> Arguments:
    if not rest.text:
        raise _none(word, rest, "an instruction")
    return Arguments((rest.text,))


def _healthcheck(word: str, rest: Rest) -> Arguments:
    expected = "NONE, or CMD and a command"
    found = _NO_BLANK.match(rest.line, rest.at)
    if not found:
        raise _none(word, rest, expected)
    kind = found[0].upper()
    after = behind_spaces(rest.line, found.end())
    command = _command(word, rest._replace(at=after))
    if kind == "NONE":
        if command.words:
            raise Fault("HEALTHCHECK NONE takes no arguments", after, expected="nothing more")
    elif kind != "CMD":
        raise Fault(
            f'Unknown type "{kind}" in HEALTHCHECK (try CMD)',
            rest.at,
            width=len(kind),
            expected=expected,
            resolution=f"write HEALTHCHECK CMD {rest.text}"[:100],
        )
    elif not command.words:
        raise Fault("Missing command after HEALTHCHECK CMD", len(rest.line), expected="a command")
    return command._replace(words=(kind, *command.words))


def _none(word: str, rest: Rest, expected: str) -> Fault:
    return Fault(f"{word} requires at least one argument", rest.at, expected=expected)


_CUTTERS: dict[str, Callable[[str, Rest], Arguments]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _command,
    "COPY": _copy,
    "ENTRYPOINT": _command,
    "ENV": _pairs,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _pairs,
    "MAINTAINER": _one,
    "ONBUILD": _onbuild,
    "RUN": _command,
    "SHELL": _shell,
    "STOPSIGNAL": _one,
    "USER": _one,
    "VOLUME": _volume,
    "WORKDIR": _one,
}
