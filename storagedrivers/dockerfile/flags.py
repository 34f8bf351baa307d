"""Flags of instructions: ``--name=value`` between the word and the arguments."""

from __future__ import annotations

import re
from functools import lru_cache

from storagedrivers.dockerfile import mount_fields
from storagedrivers.dockerfile.faults import Fault
from storagedrivers.dockerfile.lines import SPACES, behind_spaces
from storagedrivers.dockerfile.words import Word
from storagedrivers.errors import did_you_mean

_ONCE, _OFTEN, _SWITCH = "once", "often", "switch"

_FLAGS = {
    "ADD": {"chown": _ONCE, "chmod": _ONCE, "link": _SWITCH},
    "COPY": {"from": _ONCE, "chown": _ONCE, "chmod": _ONCE, "link": _SWITCH},
    "FROM": {"platform": _ONCE},
    "HEALTHCHECK": {
        "interval": _ONCE,
        "timeout": _ONCE,
        "start-period": _ONCE,
        "start-interval": _ONCE,
        "retries": _ONCE,
    },
    "RUN": {"mount": _OFTEN, "network": _ONCE},
}

_NOT_HERE = {
    "ADD": {
        "checksum": "check it in a RUN",
        "exclude": "name it in .dockerignore",
        "keep-git-dir": "copy a checkout instead",
        "unpack": "use COPY for an archive that is to stay one",
    },
    "COPY": {
        "exclude": "name it in .dockerignore",
        "parents": "copy each directory to its place",
    },
    "RUN": {
        "device": "do it in a container: storagedrivers run",
        "security": "do it in a container: storagedrivers run",
    },
}
"""What BuildKit has besides, and what to do instead."""

_NETWORKS = ("default", "none", "host")


@lru_cache
def _patterns(escape: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A flag as written, and what it is made of."""
    e = re.escape(escape)
    # An escape has its meaning in both kinds of quotes here, and what has no end is forgiven.
    single, double = (rf"{q}((?:[^{q}{e}]++|{e}.)*+)(?:{q}|{e}?\Z)" for q in "'\"")
    part = rf"""([^{SPACES}'"{e}]++)|{e}(.)|{single}|{double}|{e}\Z"""
    whole = re.sub(r"\((?!\?)", "(?:", part)
    return re.compile(f"(?:{whole})++", re.DOTALL), re.compile(part, re.DOTALL)


def extracted(text: str, at: int, escape: str) -> tuple[list[Word], int]:
    """The flags from *at* on, without quotes and escapes, and where the arguments begin."""
    at = behind_spaces(text, at)
    if not text.startswith("--", at):
        return [], at
    whole, part = _patterns(escape)
    unescape = re.compile(rf"{re.escape(escape)}(.)", re.DOTALL)
    flags: list[Word] = []
    while text.startswith("--", at):
        found = whole.match(text, at)
        assert found
        word = "".join(
            plain or escaped or unescape.sub(r"\1", single or double or "")
            for plain, escaped, single, double in part.findall(found[0])
        )
        start, at = at, behind_spaces(text, found.end())
        if word == "--":
            break
        flags.append(Word(word, start))
    return flags, at


def checked(word: str, flags: list[Word]) -> tuple[tuple[str, str], ...]:
    """Names and values of the flags of an instruction.

    Raises:
        Fault: one of them is none, comes twice, or has no value.
    """
    known = _FLAGS.get(word, {})
    found: list[tuple[str, str]] = []
    for flag in flags:
        name, equals, value = flag.text[2:].partition("=")
        if name not in known:
            raise _unknown(word, name, flag.at)
        if known[name] != _OFTEN and any(name == other for other, _ in found):
            raise _fault(f"Duplicate flag specified: {name}", flag, "each flag once")
        if known[name] == _SWITCH:
            found.append((name, _switch(flag, name, value, bool(equals))))
        elif not equals:
            raise _fault(f"Missing a value on flag: {name}", flag, f"--{name}=VALUE")
        else:
            _check_value(word, name, value, flag)
            found.append((name, value))
    return tuple((name, value) for name, value in found if value != _OFF)


_OFF = "\0off"  # no value has a null character


def _switch(flag: Word, name: str, value: str, given: bool) -> str:
    if not given or value.lower() == "true":
        return ""
    if value.lower() == "false":
        return _OFF
    if not value:
        raise _fault(f"Missing a value on flag: {name}", flag, f"--{name} or --{name}=true")
    raise _fault(f"Expecting boolean value for flag {name}, not: {value}", flag, "true or false")


def _check_value(word: str, name: str, value: str, flag: Word) -> None:
    if word == "RUN" and name == "network" and value not in _NETWORKS:
        raise _fault(f'invalid network mode "{value}"', flag, "one of " + ", ".join(_NETWORKS))
    if name == "from":
        _check_source(value, flag)
    if name == "mount" and "$" in value:
        for field in mount_fields.split(value):
            key, _, source = field.partition("=")
            if key.lower() == "from":
                _check_source(source, flag)


def _check_source(source: str, flag: Word) -> None:
    # It has to be known before anything is built.
    if "$" in source:
        raise Fault(
            "'from' doesn't support variable expansion, define alias stage instead",
            flag.at,
            width=len(flag.text),
            resolution=f"put FROM {source} AS NAME before this stage, and say NAME here",
        )


def _unknown(word: str, name: str, at: int) -> Fault:
    other = _NOT_HERE.get(word, {}).get(name)
    if other:
        message = f"{word} --{name} is not supported"
        return Fault(message, at, width=2 + len(name), resolution=other)
    known = [f"--{one}" for one in _FLAGS.get(word, ())]
    return Fault(
        f"Unknown flag: {name}",
        at,
        width=2 + len(name),
        expected=("one of " + ", ".join(known)) if known else f"no flag: {word} has none",
        resolution=did_you_mean(f"--{name}", known),
    )


def _fault(message: str, flag: Word, expected: str) -> Fault:
    return Fault(message, flag.at, width=len(flag.text), expected=expected)
