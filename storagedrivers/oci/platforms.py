"""Which of several images fits: operating system, architecture and variant, as Go names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from storagedrivers.errors import StoreError

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armel": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}
_GO_NAMES = (
    *("386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le"),
    *("ppc64", "ppc64le", "riscv64", "s390x", "wasm"),
)
_USUAL_VARIANT = {"arm64": 8, "arm": 7, "amd64": 1}


class Platform(NamedTuple):
    """A platform; as text ``linux/arm/v7``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part or "?" for part in self[: 3 if self.variant else 2])


def parse_platform(text: str) -> Platform:
    """``linux/arm/v7``, ``linux/amd64``, ``arm64``.

    Raises:
        StoreError: it is none.
    """
    parts = text.lower().split("/")
    if len(parts) == 1 and (parts[0] in _GO_NAMES or parts[0] in _ARCHITECTURES):
        parts.insert(0, "linux")
    if not (2 <= len(parts) <= 3 and all(part.isascii() and part for part in parts)):
        raise StoreError(
            f"{text!r} is no platform", resolution="say it as linux/amd64 or linux/arm/v7"
        )
    return normalised(Platform(*parts))


def normalised(platform: Platform) -> Platform:
    """With the names of architectures that Go uses."""
    known = _ARCHITECTURES.get(platform.architecture)
    if known is None:
        return platform
    return platform._replace(architecture=known[0], variant=platform.variant or known[1])


def host_platform() -> Platform:
    """This host's."""
    return normalised(Platform("linux", os.uname().machine))


def choose(wanted: Platform, offered: Sequence[Platform | None]) -> int | None:
    """The index of the best that fits *wanted*, or None. One that says nothing of itself fits
    where nothing else does.
    """
    best, best_rank = None, -1
    for index, one in enumerate(offered):
        rank = 0 if one is None else _rank(wanted, normalised(one))
        if rank > best_rank:
            best, best_rank = index, rank
    return best


def fits(wanted: Platform, offered: Platform) -> bool:
    """Whether it does; what is not said fits."""
    return choose(wanted, [offered]) is not None


def _rank(wanted: Platform, offered: Platform) -> int:
    """The higher the better, -1: it does not fit."""
    if offered.os and offered.os != wanted.os:
        return -1
    if not offered.architecture:
        return 0
    if offered.architecture != wanted.architecture:
        return -1
    most = _number(wanted)
    found = _number(offered)
    return -1 if found > most else found


def _number(platform: Platform) -> int:
    """The variant as a number: ``v7`` is 7."""
    digits = platform.variant.removeprefix("v").partition(".")[0]
    if digits.isascii() and digits.isdigit() and len(digits) < 3:
        return int(digits)
    return _USUAL_VARIANT.get(platform.architecture, 1)
