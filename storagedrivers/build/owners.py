"""Whom ``--chown`` names."""

from __future__ import annotations

from contextlib import ExitStack

from storagedrivers.build.items import Owner
from storagedrivers.errors import BuildError
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.users import entries

_LAST_ID = 2**32 - 2  # 2^32 - 1 is chown(2)'s "leave it"


def is_numeric(chown: str) -> bool:
    """Whether no file of the image has to be read for it."""
    return all(_number(part) is not None for part in chown.split(":"))


def find_owner(chown: str, root: int | None) -> Owner:
    """The user and the group that ``USER``, or ``USER:GROUP``, names: without a group the one that
    is called as the user is.

    Args:
        root: of the tree that knows the names, open; None where there is none.

    Raises:
        BuildError: it knows no such name.
    """
    user, *rest = chown.split(":")
    if len(rest) > 1:
        raise _refused(f"invalid chown string format: {chown}", "write USER or USER:GROUP")
    group = rest[0] if rest else user
    with ExitStack() as stack:
        rootfs = None
        if root is not None and not is_numeric(chown):
            rootfs = stack.enter_context(Rootfs(f"/proc/self/fd/{root}"))
        uid = _find(rootfs, "user", "/etc/passwd", user)
        return uid, _find(rootfs, "group", "/etc/group", group)


def _find(rootfs: Rootfs | None, kind: str, path: str, name: str) -> int:
    number = _number(name)
    if number is None and rootfs is not None:
        known = (fields for fields in entries(rootfs, path, 3) if fields[0] == name)
        number = next((int(fields[2]) for fields in known), None)
    if number is None:
        letter = "uid" if kind == "user" else "gid"
        raise _refused(
            f"can't find {letter} for {kind} {name}: no such {kind}: {name}",
            f"make the {kind} in a step before, or give a number",
        )
    if number > _LAST_ID:
        raise _refused(f"{number} is out of range", f"ids go from 0 to {_LAST_ID}")
    return number


def _number(text: str) -> int | None:
    # Not int() alone, which takes signs, blanks, underscores and other scripts' digits.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def _refused(brief: str, resolution: str) -> BuildError:
    return BuildError(
        f"unable to convert uid/gid chown string to host mapping: {brief}", resolution=resolution
    )
