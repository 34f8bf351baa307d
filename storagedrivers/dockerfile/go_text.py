"""Texts as Go writes and reads them: quoted ones, lengths of time."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ESCAPES = dict(zip("\a\b\f\n\r\t\v\\", ("\\" + one for one in "abfnrtv\\"), strict=True))
_LAST_CHARACTER = 0x10FFFF
_NUMBER = r"([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})"
_SECOND = 1_000_000_000
_NANOSECONDS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,  # with the sign for micro, and with a Greek letter
    "μs": 1000,
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}
_LONGEST = (1 << 63) - 1  # nanoseconds, as int64


def quoted(text: str, mark: str = '"') -> str:
    """A text in quotes, as ``%q`` has it."""
    return mark + "".join(_escaped(character, mark) for character in text) + mark


def _escaped(character: str, mark: str) -> str:
    if character == mark:
        return "\\" + mark
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x20 or number == 0x7F:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def quoted_list(texts: Iterable[str]) -> str:
    """Several, as ``%q`` has them: ``["a" "b"]``."""
    return f"[{' '.join(map(quoted, texts))}]"


def quoted_number(number: int) -> str:
    """The character of that number, as ``%q`` takes a whole number for one."""
    valid = number <= _LAST_CHARACTER and not 0xD800 <= number < 0xE000
    return quoted(chr(number) if valid else "\ufffd", "'")


def duration(nanoseconds: int) -> str:
    """A length of time: ``1m30s``, ``1.5ms``, ``0s``."""
    if nanoseconds < _SECOND:
        for unit in ("ms", "µs", "ns"):
            if nanoseconds >= _NANOSECONDS[unit]:
                return _decimal(nanoseconds, _NANOSECONDS[unit]) + unit
        return "0s"
    minutes, rest = divmod(nanoseconds, 60 * _SECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{text}{_decimal(rest, _SECOND)}s"


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def parse_duration(text: str) -> int:
    """Nanoseconds of ``1m30s``; 0 is the only number that needs no unit.

    Raises:
        ValueError: it is no length of time.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    end = total = 0
    following = re.compile(_NUMBER + "(ns|us|µs|μs|ms|s|m|h)")
    while part := following.match(rest, end):
        total += _nanoseconds(part[1], _NANOSECONDS[part[2]])
        end = part.end()
    if end == 0 or end < len(rest) or total > _LONGEST:
        raise ValueError(f"time: {_fault(rest[end:])} {quoted(text)}")
    return sign * total


def _nanoseconds(number: str, unit: int) -> int:
    whole, _, fraction = number.partition(".")
    part: int = int(fraction or 0) * unit // 10 ** len(fraction)
    return int(whole or 0) * unit + part


def _fault(rest: str) -> str:
    number = re.match(_NUMBER + "([^0-9.]*)", rest)
    if number is None:
        return "invalid duration"
    return (
        f"unknown unit {quoted(number[2])} in duration"
        if number[2]
        else ("missing unit in duration")
    )
