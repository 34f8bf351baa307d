"""``RUN --mount=KEY=VALUE,…``: what a command sees besides its layer.

::

    type=bind   target [source] [from] [rw]         from another stage, an image or the context
    type=cache  target [id] [sharing] [from [source]] [mode] [uid] [gid] [ro]    kept between builds
    type=tmpfs  target [size]                       empty, gone afterwards

Nothing is opened here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Any, NamedTuple

from storagedrivers.errors import DockerfileError, InvalidMountError, StoreError, did_you_mean
from storagedrivers.mounts.record import fields
from storagedrivers.mounts.sizes import parse_size

BIND, CACHE, TMPFS = "bind", "cache", "tmpfs"
SHARED, PRIVATE, LOCKED = "shared", "private", "locked"

_TYPES = (BIND, CACHE, TMPFS)
_REFUSED = ("secret", "ssh")
_SHARING = (SHARED, PRIVATE, LOCKED)
_SYNONYMS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_SYNONYMS |= {"rw": "readwrite"}
_FLAGS = ("readonly", "readwrite")
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_LARGEST = 2**32 - 1


class RunMount(NamedTuple):
    """One mount of a RUN.

    Attributes:
        target: where, as it is written: what is not absolute begins in the working directory.
        type: ``bind``, ``cache`` or ``tmpfs``.
        source: the path in what it comes from.
        origin: the stage or image that it comes from; empty for the context, or for a cache that
            begins empty.
        read_only: nothing can be written through it. What is written to a bind is lost anyway.
        id: what tells a cache from others.
        sharing: ``shared``, ``private`` or ``locked``: what becomes of two at a time.
        mode, uid, gid: of the directory of a cache that begins empty.
        size: bytes of a tmpfs.
        layer: the id of the topmost layer of the origin, once that is known; None for an origin
            without layers.
        fill: instead of a layer: puts what the origin has into an empty directory that is open.
    """

    target: str
    type: str = BIND
    source: str = ""
    origin: str = ""
    read_only: bool = True
    id: str = ""
    sharing: str = SHARED
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    layer: str | None = None
    fill: Callable[[int], object] | None = None

    def place(self, workdir: str) -> str:
        """Where it is mounted, absolute and normal.

        Raises:
            DockerfileError: that is the root.
        """
        path = posixpath.normpath(posixpath.join("/", workdir, self.target))
        path = f"/{path.lstrip('/')}"
        if path == "/":
            raise DockerfileError(
                f'invalid mount target "{self.target}"',
                resolution="name a directory below the root: target=/path",
            )
        return path


def parse(text: str, expand: Callable[[str], str] | None = None) -> RunMount:
    """The mount that a ``--mount`` of a RUN asks for.

    Args:
        text: what follows ``--mount=``.
        expand: replaces variables in a value.

    Raises:
        DockerfileError: it is none.
    """
    found: dict[str, Any] = {}
    for field in _fields(text):
        _read(field, found, expand)
    kind = found.setdefault("type", BIND)
    for key in (key for key in found if key not in _OF_TYPE[kind]):
        raise _unexpected(key, kind)
    found.setdefault("readonly", kind == BIND)
    found["read_only"] = found.pop("readonly")
    found["origin"] = found.pop("from", "")
    target = found.setdefault("target", "")
    if not target.strip("/"):
        raise DockerfileError(
            f'invalid mount target "{target}"', resolution="name a directory: target=/path"
        )
    if kind == CACHE and not found.get("id"):
        found["id"] = posixpath.normpath(target)
    return RunMount(**found)


def _fields(text: str) -> list[str]:
    try:
        return fields(text)
    except InvalidMountError as error:
        raise DockerfileError(
            f"failed to parse csv mounts: {error.brief}", resolution=error.resolution
        ) from None


def _read(field: str, found: dict[str, Any], expand: Callable[[str], str] | None) -> None:
    """Put what *field* says into *found*, under the first of its names."""
    written, equals, value = field.partition("=")
    key = written.lower()
    name = _SYNONYMS.get(key, key)
    if not equals and name not in _FLAGS:
        raise DockerfileError(
            f"invalid field '{field}' must be a key=value pair", resolution=f"write {key}=VALUE"
        )
    if name not in _KEYS:
        raise DockerfileError(
            f"unexpected key '{key}' in '{field}'",
            resolution=did_you_mean(key, _KEYS) or f"there are {', '.join(_KEYS)}",
        )
    if expand is not None:
        value = expand(value)
    meaning = _KEYS[name](key, value if equals else "true")
    if name == "readwrite":
        name, meaning = "readonly", not meaning
    found[name] = meaning


def _unexpected(key: str, kind: str) -> DockerfileError:
    if key in ("mode", "uid", "gid"):
        brief = f'{key} not allowed for "{kind}" type mounts'
    elif key == "sharing":
        brief = f"invalid cache sharing set for {kind} mount"
    else:
        brief = f"unexpected key '{key}' for mount type '{kind}'"
    allowed = ", ".join(_OF_TYPE[kind])
    return DockerfileError(brief, resolution=f"a mount of this type takes {allowed}")


# Values


def _text(_: str, value: str) -> str:
    if "\0" in value:
        raise DockerfileError(f"a NUL is in {value!r}", resolution="leave it out")
    return value


def _type(_: str, value: str) -> str:
    if value in _TYPES:
        return value
    if value in _REFUSED:
        raise DockerfileError(
            f'mounts of type "{value}" are not supported',
            resolution="copy what is needed in a stage of its own, which is no part of the image",
        )
    raise DockerfileError(
        f'unsupported mount type "{value}"',
        resolution=did_you_mean(value, _TYPES) or f"there are {', '.join(_TYPES)}",
    )


def _sharing(_: str, value: str) -> str:
    if value.lower() in _SHARING:
        return value.lower()
    raise DockerfileError(
        f'unsupported sharing value "{value}"',
        resolution=did_you_mean(value, _SHARING) or f"there are {', '.join(_SHARING)}",
    )


def _bool(key: str, value: str) -> bool:
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise DockerfileError(
        f"invalid value for {key}: {value}", resolution=f"write {key}, or {key}=false"
    )


def _size(key: str, value: str) -> int:
    try:
        return parse_size(value)
    except StoreError as error:
        raise DockerfileError(
            f"invalid value for {key}: {value}", resolution=error.resolution
        ) from None


def _mode(key: str, value: str) -> int:
    if value and set(value) <= set("01234567") and int(value, 8) <= 0o7777:
        return int(value, 8)
    raise DockerfileError(
        f"invalid value {value} for {key}", resolution="write permissions in octal: mode=0755"
    )


def _id(key: str, value: str) -> int:
    if value.isascii() and value.isdigit() and int(value) < _LARGEST:
        return int(value)
    raise DockerfileError(f"invalid value {value} for {key}", resolution=f"write a number: {key}=0")


_KEYS: dict[str, Callable[[str, str], Any]] = {
    "type": _type,
    "target": _text,
    "source": _text,
    "from": _text,
    "id": _text,
    "sharing": _sharing,
    "size": _size,
    "mode": _mode,
    "uid": _id,
    "gid": _id,
    "readonly": _bool,
    "readwrite": _bool,
}
_COMMON = ("type", "target", "readonly", "readwrite")
_OF_TYPE = {
    BIND: (*_COMMON, "source", "from"),
    CACHE: (*_COMMON, "source", "from", "id", "sharing", "mode", "uid", "gid"),
    TMPFS: (*_COMMON, "size"),
}
