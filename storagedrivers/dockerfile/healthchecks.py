"""HEALTHCHECK: what it says, and how the history writes that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from storagedrivers.dockerfile import go_text

if TYPE_CHECKING:
    from storagedrivers.dockerfile.instructions import Instruction

_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
_SHORTEST = 1_000_000  # nanoseconds
_MOST_RETRIES = (1 << 31) - 1


def parse(instruction: Instruction) -> dict[str, Any]:
    """What a config says of it.

    Raises:
        ValueError: it is none.
    """
    kind, *words = instruction.arguments or ("",)
    if kind.upper() == "NONE":
        if words:
            raise ValueError("HEALTHCHECK NONE takes no arguments")
        return {"Test": ["NONE"]}
    if kind.upper() != "CMD":
        raise ValueError(f"Unknown type {go_text.quoted(kind.upper())} in HEALTHCHECK (try CMD)")
    if not words:
        raise ValueError("Missing command after HEALTHCHECK CMD")
    check: dict[str, Any] = {
        "Test": ["CMD", *words] if instruction.exec_form else ["CMD-SHELL", " ".join(words)]
    }
    for name, value in instruction.flags:
        check |= _option(name, value)
    return check


def _option(name: str, value: str) -> dict[str, int]:
    if name != "retries" and name not in _TIMES:
        raise ValueError(f"Unknown flag: {name}")
    if not value:
        return {}
    if name == "retries":
        return {"Retries": _retries(value)}
    length = go_text.parse_duration(value)
    if length < _SHORTEST:
        raise ValueError(
            f"Interval {go_text.quoted(name)} cannot be less than {go_text.duration(_SHORTEST)}"
        )
    return {_TIMES[name]: length}


def _retries(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", text) or int(text) > _MOST_RETRIES:
        raise ValueError(f"--retries wants a number, not {go_text.quoted(text)}")
    if int(text) < 1:
        raise ValueError(f"--retries must be at least 1 (not {int(text)})")
    return int(text)


def inherited(check: Mapping[str, Any], before: Mapping[str, Any] | None) -> dict[str, Any]:
    """What it does not say is as it was before."""
    return {**(before or {}), **check}


def written(check: Mapping[str, Any]) -> str:
    """As the history has it: a struct of Go, in quotes."""
    times = ["Interval", "Timeout", "StartPeriod"]
    if "StartInterval" in check:  # newer than the others, and left out where nobody asks for it
        times.append("StartInterval")
    lengths = " ".join(go_text.quoted(go_text.duration(check.get(key, 0))) for key in times)
    retries = go_text.quoted_number(check.get("Retries", 0))
    return f"&{{{go_text.quoted_list(check['Test'])} {lengths} {retries}}}"
