"""One mount of a container as a value, and what holds for it however it was written."""

from __future__ import annotations

import os
import posixpath
from enum import StrEnum
from typing import NamedTuple

from storagedrivers.errors import InvalidMountError, VolumeError, did_you_mean
from storagedrivers.mounts.names import check_subpath, check_volume_name, quoted

PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
RECURSIVE = ("enabled", "disabled", "writable", "readonly")

_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, of Linux

_BELOW = "name a directory below the root of the container"


class MountType(StrEnum):
    """What is mounted."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


class MountSpec(NamedTuple):
    """What was asked for; nothing of it has been looked up.

    Attributes:
        type: what is mounted.
        target: where in the container: an absolute path without ``.`` and ``..``.
        source: the name of a volume or an absolute path of the host; empty for a tmpfs and for an
            anonymous volume.
        read_only: whether the container may not write to it.
        mode: the words of ``-v`` after the target, as they were given: ``z``, ``ro,Z``.
        propagation: of a bind, one of ``PROPAGATIONS``; empty for the default.
        recursive: of a bind, what happens to the mounts below its source, one of ``RECURSIVE``;
            empty for the default.
        no_copy: an empty volume is not filled with what the image has at the target.
        subpath: a directory of the volume that is mounted instead of all of it.
        driver: of a volume that has to be made; empty for the default.
        labels: of a volume that has to be made.
        options: for the driver of a volume that has to be made.
        create_source: a directory of the host that is missing is made.
        tmpfs_size: the limit in bytes.
        tmpfs_mode: the permissions of the tmpfs's root.
    """

    type: MountType
    target: str
    source: str = ""
    read_only: bool = False
    mode: str = ""
    propagation: str = ""
    recursive: str = ""
    no_copy: bool = False
    subpath: str = ""
    driver: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    create_source: bool = False
    tmpfs_size: int | None = None
    tmpfs_mode: int | None = None

    @property
    def is_anonymous(self) -> bool:
        """Whether it is a volume that nobody named."""
        return self.type is MountType.VOLUME and not self.source


def clean(path: str) -> str:
    """A path seen from the root, without ``.``, ``..`` and needless slashes, as text."""
    return "/" + posixpath.normpath(f"/{path}").lstrip("/")


def absolute(source: str, directory: str | None) -> str:
    """A source that begins with a dot, seen from *directory* (default: the working directory)."""
    if source.startswith("."):
        return posixpath.normpath(posixpath.join(directory or os.getcwd(), source))
    return source


def check_target(target: str) -> str:
    """Return *target* cleaned, if something can be mounted there.

    Raises:
        InvalidMountError: it is relative, the root, too long, or no text.
    """
    if "\0" in target:
        raise InvalidMountError(
            f"invalid mount path: {target!r} has a null character", resolution="leave it out"
        )
    cleaned = clean(target)
    _check_bytes(cleaned, "strict")
    if not target.startswith("/"):
        raise InvalidMountError(
            f"invalid mount path: '{target}' mount path must be absolute",
            resolution=_BELOW if cleaned == "/" else f"write '{cleaned}'",
        )
    if cleaned == "/":
        raise InvalidMountError(
            "invalid specification: destination can't be '/'", resolution=_BELOW
        )
    return cleaned


def _check_bytes(path: str, errors: str) -> None:
    """Raise where there can be no such path.

    Args:
        path: cleaned.
        errors: how what is no UTF-8 is encoded.
    """
    try:
        encoded = path.encode("utf-8", errors)
    except UnicodeEncodeError:
        raise InvalidMountError(
            f"invalid mount path: {path!r} is not UTF-8", resolution="choose another"
        ) from None
    names = encoded.split(b"/")
    if len(encoded) > _LONGEST_PATH or any(len(name) > _LONGEST_NAME for name in names):
        raise InvalidMountError(
            f"invalid mount path: '{path[:20]}…' is too long",
            resolution=f"a name has at most {_LONGEST_NAME} bytes, a path {_LONGEST_PATH:,}",
        )


def mount_type(text: str) -> MountType:
    """The type of that name.

    Raises:
        InvalidMountError: there is none.
    """
    try:
        return MountType(text)
    except ValueError:
        raise InvalidMountError(
            f"invalid mount config for type {quoted(text)}: mount type unknown",
            resolution=did_you_mean(text, MountType) or f"there are {', '.join(MountType)}",
        ) from None


def checked(spec: MountSpec) -> MountSpec:
    """Return *spec* with its paths cleaned, if what it says goes together.

    Raises:
        InvalidMountError: it does not.
    """
    spec = spec._replace(type=mount_type(spec.type))
    try:
        _check_options(spec)
        if not spec.target:
            raise InvalidMountError(
                "field Target must not be empty",
                resolution="name the path in the container: target=/path",
            )
        return _CHECKS[spec.type](spec._replace(target=check_target(spec.target)))
    except InvalidMountError as error:
        raise InvalidMountError(
            f'invalid mount config for type "{spec.type}": {error.brief}',
            resolution=error.resolution,
        ) from None


def check_source_name(spec: MountSpec) -> None:
    """Raise where the source is to be the name of a volume, and is none.

    Raises:
        InvalidMountError: in the words of :func:`check_volume_name`.
    """
    if spec.type is MountType.VOLUME and spec.source:
        try:
            check_volume_name(spec.source)
        except VolumeError as error:
            raise InvalidMountError(error.brief, resolution=error.resolution) from None


_OPTIONS = {
    MountType.BIND: ("BindOptions", ("propagation", "recursive", "create_source")),
    MountType.VOLUME: ("VolumeOptions", ("no_copy", "subpath", "driver", "labels", "options")),
    MountType.TMPFS: ("TmpfsOptions", ("tmpfs_size", "tmpfs_mode")),
}


def _check_options(spec: MountSpec) -> None:
    for kind, (group, fields) in _OPTIONS.items():
        for field in fields if kind is not spec.type else ():
            if getattr(spec, field):
                raise InvalidMountError(
                    f"field {group} must not be specified",
                    resolution=_without(spec, field) or f"leave {field} out: it is for a {kind}",
                )


def _without(spec: MountSpec, field: str) -> str | None:
    if field == "no_copy":
        return "leave 'nocopy' out: only volumes are filled, never a path of the host"
    if field == "propagation":
        return f"leave '{spec.propagation}' out: only a path of the host has a propagation"
    return None


def _bind(spec: MountSpec) -> MountSpec:
    if not spec.source:
        raise InvalidMountError(
            "field Source must not be empty",
            resolution="name the directory of the host: source=/path; for a new volume type=volume",
        )
    if spec.propagation and spec.propagation not in PROPAGATIONS:
        raise InvalidMountError(
            f"invalid propagation mode: {spec.propagation}",
            resolution=did_you_mean(spec.propagation, PROPAGATIONS)
            or f"there are {', '.join(PROPAGATIONS)}",
        )
    _check_recursive(spec)
    if not spec.source.startswith("/") or "\0" in spec.source:
        raise InvalidMountError(
            f"invalid mount path: '{spec.source}' mount path must be absolute",
            resolution=_relative_source(spec.source),
        )
    source = clean(spec.source)
    _check_bytes(source, "surrogateescape")  # the names of a host are any bytes
    return spec._replace(source=source)


def _check_recursive(spec: MountSpec) -> None:
    if spec.recursive and spec.recursive not in RECURSIVE:
        raise InvalidMountError(
            f"invalid recursive mode: {spec.recursive}",
            resolution=did_you_mean(spec.recursive, RECURSIVE)
            or f"there are {', '.join(RECURSIVE)}",
        )
    if spec.recursive in ("writable", "readonly") and not spec.read_only:
        raise InvalidMountError(
            f"recursive mode {spec.recursive} is for a read-only mount",
            resolution="make it read-only, or leave the recursive mode out",
        )


def _relative_source(source: str) -> str:
    if source.startswith("~"):
        return "only a shell knows what '~' is: write the path in full, or \"$HOME\""
    if "/" in source:
        return f"write '{clean(source)}', or './{source}' for what is below the working directory"
    return f"write './{source}' for a directory, or type=volume for a volume of that name"


def _volume(spec: MountSpec) -> MountSpec:
    if spec.subpath:
        if spec.is_anonymous:
            raise InvalidMountError(
                "must not set Subpath when using anonymous volumes",
                resolution="name the volume: source=NAME",
            )
        spec = spec._replace(subpath=check_subpath(spec.subpath))
    if spec.read_only and spec.is_anonymous:
        raise InvalidMountError(
            "must not set ReadOnly mode when using anonymous volumes",
            resolution="name the volume: source=NAME; nobody could ever write to it otherwise",
        )
    return spec


def _tmpfs(spec: MountSpec) -> MountSpec:
    if spec.source:
        raise InvalidMountError(
            "field Source must not be specified",
            resolution="leave the source out: a tmpfs is in memory and empty at first;"
            " type=bind mounts a path of the host",
        )
    return spec


_CHECKS = {MountType.BIND: _bind, MountType.VOLUME: _volume, MountType.TMPFS: _tmpfs}
