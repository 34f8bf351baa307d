"""As whom a process runs: users and groups as the image's own files have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from storagedrivers.errors import RuntimeFailedError
from storagedrivers.runtime.rootfs import Rootfs

_LONGEST_FILE = 4 << 20  # bytes of /etc/passwd or /etc/group
_LAST_ID = (1 << 31) - 1  # what Docker takes
_MOST_GROUPS = 65536  # supplementary ones of a process; setgroups(2)


class User(NamedTuple):
    """Who runs a process.

    Attributes:
        groups: the supplementary ones, the first of them *gid* itself.
        home: the directory that HOME names.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def find_user(rootfs: Rootfs, words: str) -> User:
    """The user that *words* name: ``USER``, ``USER:GROUP`` or ``:GROUP``, by name or number.

    A number is taken even where the image does not know it. Supplementary groups are those that
    list the user, unless a group is named.

    Raises:
        RuntimeFailedError: the image knows no such name, or the number is out of range.
    """
    name, _, group = words.partition(":")
    wanted = _number(name) if name else 0
    known = next(
        (
            fields
            for fields in entries(rootfs, "/etc/passwd", 7)
            if (fields[0] == name if wanted is None else int(fields[2]) == wanted)
        ),
        None,
    )
    if known is not None:
        uid, gid, home = int(known[2]), int(known[3]), known[5]
    elif wanted is not None:
        uid, gid, home = wanted, 0, "/"
    else:
        raise _unknown("user", name)
    if group:
        gid = _find_group(rootfs, group)
        extra = []
    else:
        extra = _groups_of(rootfs, known[0]) if known is not None else []
    groups = tuple(dict.fromkeys((gid, *extra)))
    for number in (uid, *groups):
        _check(number)
    _check_entries(groups, home, words or "0")
    return User(uid, gid, groups, home)


def _find_group(rootfs: Rootfs, words: str) -> int:
    wanted = _number(words)
    if wanted is not None:
        return wanted
    for fields in entries(rootfs, "/etc/group", 4):
        if fields[0] == words:
            return int(fields[2])
    raise _unknown("group", words)


def _groups_of(rootfs: Rootfs, user: str) -> list[int]:
    return [
        int(fields[2])
        for fields in entries(rootfs, "/etc/group", 4)
        if user in fields[3].split(",")
    ]


def entries(rootfs: Rootfs, path: str, count: int) -> Iterator[list[str]]:
    """The lines of a file with ids in the third field (and of passwd in the fourth); others are
    none.
    """
    content = rootfs.read(path, limit=_LONGEST_FILE) or b""
    for line in content.decode(errors="replace").split("\n"):
        fields = line.strip().split(":")
        fields += [""] * (count - len(fields))
        numbers = fields[2:4] if count > 4 else fields[2:3]
        if fields[0] and all(_number(field) is not None for field in numbers):
            yield fields


def _number(text: str) -> int | None:
    # Not int() alone, which takes signs, blanks, underscores and other scripts' digits.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def _check(number: int) -> None:
    if number > _LAST_ID:
        raise RuntimeFailedError(
            f"the user or group id {number} is out of range",
            resolution=f"ids go from 0 to {_LAST_ID}",
        )


def _check_entries(groups: tuple[int, ...], home: str, words: str) -> None:
    if len(groups) > _MOST_GROUPS:
        raise RuntimeFailedError(
            f"the image's /etc/group has user {words!r} in {len(groups)} groups, and"
            f" {_MOST_GROUPS} is the limit",
            resolution="name a group: --user USER:GROUP",
        )
    if "\0" in home:
        raise RuntimeFailedError(
            f"the image's /etc/passwd gives user {words!r} a home with a NUL in its name",
            resolution="name the user by a number that the image does not know, or mend the image",
        )


def _unknown(kind: str, name: str) -> RuntimeFailedError:
    file = "/etc/passwd" if kind == "user" else "/etc/group"
    return RuntimeFailedError(
        f"the image's {file} has no {kind} {name!r}",
        resolution="name one that it has, or a number: --user UID:GID",
    )
