"""The config of an image: what it runs, its layers' DiffIDs, how it came to be. Its digest is the
image's id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from storagedrivers.errors import MalformedImageError
from storagedrivers.oci.documents import Fields, digest_of, parse_document, write_document
from storagedrivers.oci.platforms import host_platform

_END = 253_402_300_800.0  # the year 10000, which no date has here


class History(NamedTuple):
    """How one layer, or one change of the config, came to be.

    Attributes:
        created: when, as RFC 3339 has it; None where nobody knows.
        created_by: the command.
        author: who.
        comment: what was said about it.
        empty_layer: it made no layer.
    """

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(NamedTuple):
    """A config.

    Attributes:
        raw: its bytes.
        digest: of those: the image's id.
        architecture: as Go names it: ``amd64``.
        os: ``linux``.
        variant: of the architecture, ``v8``; or empty.
        created: when, as RFC 3339 has it, or None.
        author: who, or empty.
        diff_ids: of its layers, the bottom one first.
        history: the oldest first; it may say less than there are layers.
        config: how to run it: ``Env``, ``Cmd``, ``Entrypoint``, ``User``, ``WorkingDir``, …
    """

    raw: bytes
    digest: str
    architecture: str
    os: str
    variant: str
    created: str | None
    author: str
    diff_ids: tuple[str, ...]
    history: tuple[History, ...]
    config: Mapping[str, Any]


def parse_config(raw: bytes, file: str = "the config") -> ImageConfig:
    """The config that *raw* is.

    Args:
        file: its name, for messages.

    Raises:
        MalformedImageError: it is none.
    """
    fields = parse_document(raw, file)
    rootfs = fields.object("rootfs")
    if rootfs.text("type", "layers") != "layers":
        raise rootfs.malformed("type", "is not 'layers'")
    history = tuple(map(_parse_history, fields.objects("history")))
    diff_ids = rootfs.digests("diff_ids")
    filled = sum(not one.empty_layer for one in history)
    if filled > len(diff_ids):
        raise MalformedImageError(
            f"{file}: its history speaks of {filled} layers, and it has {len(diff_ids)}",
            resolution="have the image made again: whoever wrote it left a layer out",
        )
    return ImageConfig(
        raw=raw,
        digest=digest_of(raw),
        architecture=fields.text("architecture"),
        os=fields.text("os", "linux"),
        variant=fields.text("variant"),
        created=_checked_time(fields),
        author=fields.text("author"),
        diff_ids=diff_ids,
        history=history,
        config=_checked_config(fields.object("config")),
    )


def _parse_history(fields: Fields) -> History:
    return History(
        created=_checked_time(fields),
        created_by=fields.text("created_by"),
        author=fields.text("author"),
        comment=fields.text("comment"),
        empty_layer=fields.flag("empty_layer"),
    )


def _checked_time(fields: Fields) -> str | None:
    text = fields.text("created")
    if not text:
        return None
    if parse_time(text) is None:
        raise fields.malformed("created", f"is {text[:40]!r}, which is no time")
    return text


def _checked_config(fields: Fields) -> dict[str, Any]:
    """Check the types of what a container is made of."""
    found = fields.value
    for key in ("Cmd", "Entrypoint", "Shell"):
        if isinstance(found.get(key), str):  # which Go takes for a list of one
            found[key] = [found[key]]
    for key in ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell"):
        fields.texts(key)
    for key in ("User", "WorkingDir", "StopSignal", "Hostname"):
        fields.text(key)
    for key in ("Volumes", "ExposedPorts", "Labels", "Healthcheck"):
        fields.object(key)
    return found


def make_config(
    *,
    base: ImageConfig | None,
    diff_ids: Iterable[str],
    history: Iterable[History],
    config: Mapping[str, Any],
    created: str,
    author: str = "",
    architecture: str | None = None,
    os: str = "linux",
    variant: str | None = None,
) -> bytes:
    """A config; the same arguments give the same bytes.

    Args:
        base: the config of the image that this one is made of: its platform is taken over.
        diff_ids: of all layers, the bottom one first.
        history: all of it, the oldest first.
        config: how to run it.
        created: when, see :func:`write_time`.
        author: who.
        architecture: by default the base's, or else this host's.
        os: where there is no base.
        variant: of the architecture; by default as that.
    """
    host = host_platform()
    value: dict[str, Any] = {
        "architecture": architecture or (base.architecture if base else host.architecture),
        "config": dict(config),
        "created": created,
        "history": [_written_history(one) for one in history],
        "os": base.os if base else os,
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    if variant is None and architecture is None:
        variant = base.variant if base else host.variant
    if variant:
        value["variant"] = variant
    if author:
        value["author"] = author
    return write_document(value)


def _written_history(entry: History) -> dict[str, Any]:
    return {key: value for key, value in entry._asdict().items() if value}


def parse_time(text: str) -> float | None:
    """Seconds since the epoch, or None where it is no time of RFC 3339."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    if found.tzinfo is None:
        return None
    try:
        moment = found.astimezone(UTC).timestamp()
    except (OverflowError, ValueError):
        return None
    # The last microseconds of the calendar are beyond its end as a float.
    return moment if moment < _END else None


def write_time(nanoseconds: int) -> str:
    """A time as configs have it: RFC 3339, in UTC."""
    import time

    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + digits + "Z"
