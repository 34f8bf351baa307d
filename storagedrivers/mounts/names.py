"""Names of volumes, and paths inside of them."""

from __future__ import annotations

import posixpath
import re

from storagedrivers.errors import InvalidMountError, VolumeError

_ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME = re.compile(f"{_ALLOWED}+")
_LONGEST = 240  # bytes: with "volume-" in front it is the name of a lock's file


def check_volume_name(name: str) -> str:
    """Return *name* if a volume may be called so; it becomes a directory's name.

    Raises:
        VolumeError: it may not; in Docker's words.
    """
    if len(name) < 2:
        raise VolumeError(
            f"create {name}: volume name is too short,"
            " names should be at least two alphanumeric characters",
            resolution="choose a longer name",
        )
    if not _NAME.fullmatch(name):
        raise VolumeError(
            f"create {name}: {quoted(name)} includes invalid characters for a local volume name,"
            f' only "{_ALLOWED}" are allowed.'
            " If you intended to pass a host directory, use absolute path",
            resolution=_instead(name),
        )
    if len(name) > _LONGEST:
        raise VolumeError(
            f"create {name[:20]}…: volume name is too long, it has {len(name)} characters",
            resolution=f"choose a name of at most {_LONGEST} characters",
        )
    return name


def is_volume_name(name: str) -> bool:
    """Whether a volume may be called so."""
    return _NAME.fullmatch(name) is not None and len(name) <= _LONGEST


def _instead(name: str) -> str:
    if name.startswith("~"):
        return "only a shell knows what '~' is: write the path in full, or \"$HOME\""
    if name.startswith("/"):
        return "a path of the host is mounted with type=bind or -v PATH:TARGET"
    if "/" in name:
        return (
            f"no name of a volume has a slash: write '/{name}' for a directory of the host,"
            f" './{name}' for one below the working directory"
        )
    better = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip("_.-")
    return f"write '{better}'" if _NAME.fullmatch(better) else "use letters and digits"


def check_subpath(path: str) -> str:
    """Return *path* cleaned, empty for all of the volume, if it stays inside of a volume.

    Raises:
        InvalidMountError: it is absolute or leaves the volume.
    """
    cleaned = posixpath.normpath(path)
    if path.startswith("/") or cleaned.split("/")[0] == ".." or "\0" in path:
        inside = posixpath.normpath(f"/{path}").strip("/\0")
        raise InvalidMountError(
            "subpath must be a relative path within the volume",
            resolution=f"write volume-subpath={inside}" if inside else "leave volume-subpath out",
        )
    return "" if cleaned == "." else cleaned


def quoted(text: str) -> str:
    """A text in double quotes, as Docker shows it."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(one, one) for one in text) + '"'
