"""``-v [SOURCE:]TARGET[:MODE]`` and ``--volumes-from CONTAINER[:MODE]``.

::

    source := the name of a volume | an absolute path of the host | a path that begins with a dot
    mode   := word { "," word }      each kind of word at most once
    word   := ro | rw     z | Z     nocopy     [r]private | [r]slave | [r]shared
              consistent | cached | delegated (they mean nothing on Linux)
"""

from __future__ import annotations

from typing import NamedTuple

from storagedrivers.errors import InvalidMountError, VolumeError, did_you_mean
from storagedrivers.mounts.names import check_volume_name
from storagedrivers.mounts.spec import (
    PROPAGATIONS,
    MountSpec,
    MountType,
    absolute,
    check_source_name,
    checked,
    clean,
)

_KINDS = (
    ("ro", "rw"),
    ("z", "Z"),
    PROPAGATIONS,
    ("nocopy",),
    ("consistent", "cached", "delegated"),
)
_MOST = 3  # parts between colons
_GRAMMAR = "write [SOURCE:]TARGET[:MODE]"


class VolumesFrom(NamedTuple):
    """Whose mounts a container gets too.

    Attributes:
        container: its name or id.
        read_only: they are mounted read-only; ``rw`` makes none writable that was not.
        mode: the words as they were given.
    """

    container: str
    read_only: bool = False
    mode: str = ""

    def of(self, spec: MountSpec) -> MountSpec:
        """What the container gets for a mount of the other one; nothing is copied into it."""
        return spec._replace(
            read_only=spec.read_only or self.read_only,
            mode="",
            no_copy=spec.type is MountType.VOLUME,
        )


def parse_volume(text: str, *, directory: str | None = None) -> MountSpec:
    """The mount that a ``-v`` asks for.

    Args:
        text: what follows ``-v``.
        directory: what a source that begins with a dot is seen from; the working directory.

    Raises:
        InvalidMountError: it is none; in Docker's words.
    """
    parts = _parts(text)
    if len(parts) == 2 and _mode_problem(parts[1]) is None:
        raise InvalidMountError(
            f"invalid volume specification: '{text}'",
            resolution=_mode_alone(*parts),
        )
    source, target, mode = ("", *parts, "") if len(parts) == 1 else (*parts, "")[:_MOST]
    _check_mode(mode)
    source = absolute(source, directory)
    words = mode.split(",")
    is_bind = source.startswith("/")
    spec = MountSpec(
        type=MountType.BIND if is_bind else MountType.VOLUME,
        target=target,
        source=source,
        read_only="ro" in words,
        mode=mode,
        propagation=next((word for word in words if word in PROPAGATIONS), ""),
        no_copy="nocopy" in words,
        create_source=is_bind,
    )
    return _checked(text, spec)


def _mode_alone(path: str, mode: str) -> str:
    if path.startswith("/"):
        source = "/PATH" if set(mode.split(",")) & {*PROPAGATIONS} else "NAME"
        return f"a mode comes after SOURCE:TARGET: write '{source}:{path}:{mode}'"
    return f"a mode comes after SOURCE:TARGET: write '{path}:/PATH:{mode}'"


def _parts(text: str) -> list[str]:
    if not text:
        raise InvalidMountError("invalid empty volume spec", resolution=_GRAMMAR)
    parts = text.split(":")
    if not all(parts[:_MOST]):
        raise InvalidMountError(
            f"invalid spec: {text}: empty section between colons", resolution=_empty_section(parts)
        )
    if len(parts) > _MOST:
        raise InvalidMountError(
            f"invalid spec: {text}: too many colons", resolution=_too_many_colons(parts)
        )
    return parts


def _empty_section(parts: list[str]) -> str:
    source, target, *modes = parts
    if source and not target and (modes or not source.startswith("/")):
        better = ":".join(filter(None, (source, "/PATH", *modes)))
        return f"say where it is mounted: write '{better}'"
    without = ":".join(filter(None, parts))
    try:
        parse_volume(without)
    except InvalidMountError:
        return _GRAMMAR
    return f"write '{without}'"


def _too_many_colons(parts: list[str]) -> str:
    modes = parts[2:]
    if all(_mode_problem(mode) is None for mode in modes):
        return f"write '{':'.join(parts[:2])}:{','.join(filter(None, modes))}'"
    return "use --mount for paths that have a colon: --mount type=bind,source=…,target=…"


def _checked(text: str, spec: MountSpec) -> MountSpec:
    try:
        good = checked(spec)
    except InvalidMountError as error:
        raise InvalidMountError(
            f"invalid volume specification: '{text}': {error.brief}",
            resolution=_instead(text, spec) or error.resolution,
        ) from None
    try:
        check_source_name(good)
    except InvalidMountError as error:
        raise InvalidMountError(
            error.brief, resolution=_no_name(text, good.source) or error.resolution
        ) from None
    return good


def _no_name(text: str, source: str) -> str | None:
    if "/" not in source or source.startswith("~"):
        return None
    return (
        f"no name of a volume has a slash: write '/{text}' for a directory of the host,"
        f" './{text}' for one below the working directory"
    )


def _instead(text: str, spec: MountSpec) -> str | None:
    """What to write where the target is relative."""
    if spec.target.startswith("/") or clean(spec.target) == "/" or "\0" in text:
        return None
    better = ":".join(filter(None, (spec.source, clean(spec.target), spec.mode)))
    if not spec.source:
        return f"write 'NAME:/PATH' to mount the volume NAME, or '{better}' for an anonymous one"
    if spec.type is MountType.BIND and _is_name(spec.target):
        turned = ":".join(filter(None, (spec.target, spec.source, spec.mode)))
        return f"the target must be absolute: write '{better}'; '{turned}' for a volume"
    return f"the target must be absolute: write '{better}'"


def _is_name(text: str) -> bool:
    try:
        return bool(check_volume_name(text))
    except VolumeError:
        return False


def parse_volumes_from(text: str) -> VolumesFrom:
    """Whose mounts a ``--volumes-from`` asks for.

    Raises:
        InvalidMountError: nobody's; in Docker's words.
    """
    if not text:
        raise InvalidMountError(
            "volumes-from specification cannot be an empty string",
            resolution="write CONTAINER or CONTAINER:ro",
        )
    container, _, mode = text.partition(":")
    if not container:
        raise InvalidMountError(
            'invalid name or ID supplied: ""', resolution=f"write the container's name: NAME{text}"
        )
    _check_mode(mode)
    words = mode.split(",")
    own = next((word for word in words if word == "nocopy" or word in PROPAGATIONS), None)
    if own is not None:
        raise InvalidMountError(
            f"invalid mode: {mode}",
            resolution=f"leave '{own}' out: each mount keeps what the other container has",
        )
    return VolumesFrom(container, read_only="ro" in words, mode=mode)


def _check_mode(mode: str) -> None:
    problem = _mode_problem(mode)
    if problem is not None:
        raise InvalidMountError(f"invalid mode: {mode}", resolution=problem)


def _mode_problem(mode: str) -> str | None:
    """What to do about a mode that is none, or None."""
    words = mode.split(",") if mode else []
    known = [word for kind in _KINDS for word in kind]
    for word in words:
        if word not in known:
            return _unknown_word(word, known)
    for kind in _KINDS:
        both = [word for word in words if word in kind]
        if len(both) > 1:
            return (
                f"choose one of '{both[0]}' and '{both[1]}'"
                if both[0] != both[1]
                else (f"write '{both[0]}' once")
            )
    return None


def _unknown_word(word: str, known: list[str]) -> str:
    if not word:
        return "take out the comma that has nothing beside it"
    if word.startswith("/"):
        return "write SOURCE:TARGET:MODE; use --mount for paths that have a colon"
    if word == "readonly":
        return "write 'ro'"
    if word == "volume-nocopy":
        return "write 'nocopy'"
    return did_you_mean(word, known) or f"there are {', '.join(known)}"
