"""``--mount KEY=VALUE,…``: the long form, in which each thing has a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from storagedrivers.errors import InvalidMountError, StoreError, did_you_mean
from storagedrivers.mounts.names import quoted
from storagedrivers.mounts.record import fields
from storagedrivers.mounts.sizes import parse_size
from storagedrivers.mounts.spec import (
    RECURSIVE,
    MountSpec,
    MountType,
    absolute,
    check_source_name,
    checked,
    mount_type,
)
from storagedrivers.mounts.volume_flag import parse_volume

_SYNONYMS = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_FLAGS = ("readonly", "volume-nocopy", "bind-nonrecursive", "bind-create-src")
_LARGEST_MODE = 2**32 - 1


def parse_mount(text: str, *, directory: str | None = None) -> MountSpec:
    """The mount that a ``--mount`` asks for.

    Args:
        text: what follows ``--mount``.
        directory: what a source that begins with a dot is seen from; the working directory.

    Raises:
        InvalidMountError: it is none; in Docker's words.
    """
    if not text.strip():
        raise InvalidMountError(
            "value is empty", resolution="write type=volume,source=NAME,target=/path"
        )
    found: dict[str, Any] = {"volume-label": {}, "volume-opt": {}}
    for field in fields(text.strip()):
        _read(field, found)
    _check_mix(found)
    spec = checked(_spec(found, directory))
    check_source_name(spec)
    return spec


def _read(field: str, found: dict[str, Any]) -> None:
    """Put what *field* says into *found*, under the first of its names."""
    written, equals, value = field.partition("=")
    _check_blanks(field, written, value if equals else None)
    key = written.lower()
    name = _SYNONYMS.get(key, key)
    if not equals and name not in _FLAGS:
        raise InvalidMountError(
            f"invalid field '{field}' must be a key=value pair",
            resolution=_no_pair(field, is_first=not any(found.values())),
        )
    if name not in _KEYS:
        raise InvalidMountError(
            f"unknown option '{key}' in '{field}'",
            resolution=did_you_mean(key, _PROPOSED) or f"there are {', '.join(_OWN)}",
        )
    read = _KEYS[name]
    if name in ("volume-label", "volume-opt"):
        option, _, meaning = value.partition("=")
        if option:
            found[name][option] = meaning
    else:
        found[name] = read(key, value if equals else "true")


def _check_blanks(field: str, key: str, value: str | None) -> None:
    if key != key.strip():
        raise InvalidMountError(
            f"invalid option '{key.strip()}' in '{field}': option should not have whitespace",
            resolution=f"write '{field.strip()}', without blanks around commas",
        )
    if value is None:
        return
    if not value.strip():
        raise InvalidMountError(
            f"invalid value for '{key}': value is empty",
            resolution=f"leave '{key}' out, or give it a value",
        )
    if value != value.strip():
        raise InvalidMountError(
            f"invalid value for '{key}' in '{field}': value should not have whitespace",
            resolution=f"write '{key}={value.strip()}', without blanks around commas",
        )


def _no_pair(field: str, *, is_first: bool) -> str:
    name = _SYNONYMS.get(field.lower(), field.lower())
    if name in _KEYS:
        return f"write '{name}=VALUE'"
    if name == "rw":
        return "leave it out: a mount is writable unless it is readonly"
    if name == "nocopy":
        return "write 'volume-nocopy'"
    if name in tuple(MountType):
        return f"write 'type={name}'"
    if ":" in field and (advice := _with_colon(field, is_first=is_first)):
        return advice
    if name.startswith("/"):
        return f"write 'target={field}' or 'source={field}'"
    if not field:
        return "take out the comma that has nothing beside it"
    return did_you_mean(name, _PROPOSED) or (
        "a value that has a comma needs double quotes around the whole field"
    )


def _with_colon(field: str, *, is_first: bool) -> str | None:
    """What to write for ``KEY:VALUE``, and for what follows ``-v``; None where it is neither."""
    key, _, value = field.partition(":")
    if _SYNONYMS.get(key.lower(), key.lower()) in _KEYS:
        return f"write '=' for ':', as in '{key}={value or 'VALUE'}'"
    if not is_first:
        return None
    try:
        spec = parse_volume(field)
    except InvalidMountError:
        return None
    kind = "" if spec.type is MountType.VOLUME else f"type={spec.type},"
    more = ",readonly" if spec.read_only else ""
    source = f"source={spec.source}," if spec.source else ""
    return f"write -v '{field}', or '{kind}{source}target={spec.target}{more}' here"


def _text(_: str, value: str) -> str:
    return value


def _lower(_: str, value: str) -> str:
    return value.lower()


def _flag(key: str, value: str) -> bool:
    if value in ("1", "true"):
        return True
    if value in ("0", "false"):
        return False
    raise InvalidMountError(
        f"invalid value for '{key}': invalid boolean value ({quoted(value)}):"
        ' must be one of "true", "1", "false", or "0" (default "true")',
        resolution=f"write '{key}', or leave it out",
    )


def _recursive(key: str, value: str) -> str:
    if value in RECURSIVE:
        return value
    raise InvalidMountError(
        f"invalid value for {key}: {value}"
        ' (must be "enabled", "disabled", "writable", or "readonly")',
        resolution=did_you_mean(value, RECURSIVE)
        or "leave it out: what is mounted below the source is seen too",
    )


def _size(key: str, value: str) -> int:
    try:
        return parse_size(value)
    except StoreError as error:
        raise InvalidMountError(
            f"invalid value for {key}: {value}", resolution=error.resolution
        ) from None


def _mode(key: str, value: str) -> int:
    if value.isascii() and value.isdecimal() and not set(value) & set("89"):
        mode = int(value, 8)
        if mode <= _LARGEST_MODE:
            return mode
    raise InvalidMountError(
        f"invalid value for {key}: {value}", resolution="write permissions in octal: 1777, 0700"
    )


_KEYS: Mapping[str, Callable[[str, str], Any]] = {
    "type": _lower,
    "source": _text,
    "target": _text,
    "readonly": _flag,
    "consistency": _text,  # it means nothing on Linux
    "bind-propagation": _lower,
    "bind-nonrecursive": _flag,
    "bind-recursive": _recursive,
    "bind-create-src": _flag,
    "volume-subpath": _text,
    "volume-nocopy": _flag,
    "volume-label": _text,
    "volume-driver": _text,
    "volume-opt": _text,
    "image-subpath": _text,
    "tmpfs-size": _size,
    "tmpfs-mode": _mode,
}


_OWN = tuple(key for key in _KEYS if not key.startswith("image-"))
_PROPOSED = (*_OWN, *_SYNONYMS)


def _check_mix(found: Mapping[str, Any]) -> None:
    """Raise where an option of another type was given, or one that needs another."""
    kind = found.get("type", MountType.VOLUME)
    given = [key for key, value in found.items() if value != {}]
    for other in ("bind", "volume", "image", "tmpfs"):
        wrong = [key for key in given if key.startswith(f"{other}-")]
        if wrong and kind != other:
            raise InvalidMountError(
                f"cannot mix '{other}-*' options with mount type '{kind}'",
                resolution=f"leave '{wrong[0]}' out"
                + (f", or write 'type={other}'" if other in tuple(MountType) else ""),
            )
    recursive = found.get("bind-recursive")
    if recursive in ("writable", "readonly") and not found.get("readonly"):
        raise InvalidMountError(
            f"option 'bind-recursive={recursive}' requires 'readonly' to be specified"
            " in conjunction",
            resolution="add 'readonly'",
        )
    if recursive == "readonly" and found.get("bind-propagation") != "rprivate":
        raise InvalidMountError(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate'"
            " to be specified in conjunction",
            resolution="add 'bind-propagation=rprivate'",
        )


def _spec(found: Mapping[str, Any], directory: str | None) -> MountSpec:
    recursive = "disabled" if found.get("bind-nonrecursive") else ""
    return MountSpec(
        type=mount_type(found.get("type", MountType.VOLUME)),
        target=found.get("target", ""),
        source=absolute(found.get("source", ""), directory),
        read_only=found.get("readonly", False),
        propagation=found.get("bind-propagation", ""),
        recursive=found.get("bind-recursive", recursive),
        no_copy=found.get("volume-nocopy", False),
        subpath=found.get("volume-subpath", ""),
        driver=found.get("volume-driver", ""),
        labels=tuple(found["volume-label"].items()),
        options=tuple(found["volume-opt"].items()),
        create_source=found.get("bind-create-src", False),
        tmpfs_size=found.get("tmpfs-size") or None,  # none at all, as Docker takes it
        tmpfs_mode=found.get("tmpfs-mode") or None,
    )
