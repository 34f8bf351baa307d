"""From all that names a mount to the one list of a container's mounts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from storagedrivers.errors import InvalidMountError
from storagedrivers.mounts.spec import MountSpec, MountType, check_target, clean
from storagedrivers.mounts.tmpfs_flag import tmpfs_target


def image_volumes(volumes: Mapping[str, object] | None) -> list[MountSpec]:
    """Anonymous volumes for the VOLUME lines of an image (``Volumes`` of its config).

    A relative one is taken from the root, as Docker's engine takes it.

    Raises:
        InvalidMountError: one is the root.
    """
    targets = {check_target(clean(path)) for path in volumes or ()}
    return [MountSpec(MountType.VOLUME, target) for target in sorted(targets)]


def merge(
    explicit: Sequence[MountSpec],
    *,
    inherited: Iterable[MountSpec] = (),
    image: Iterable[MountSpec] = (),
    tmpfs: Iterable[str] = (),
) -> list[MountSpec]:
    """What a container mounts, in the order of mounting: what lies deeper comes later.

    On one target an explicit mount replaces an inherited one, the later of two inherited ones the
    earlier, and each of them the image's. An anonymous volume yields to any other mount, as the
    image's do. A ``--tmpfs`` replaces what yields and what is inherited; it is not in the list.

    Args:
        explicit: of ``-v`` and ``--mount``.
        inherited: of ``--volumes-from``.
        image: of the image, by :func:`image_volumes`.
        tmpfs: of ``--tmpfs``.

    Raises:
        InvalidMountError: two explicit mounts have one target, and are not the same.
    """
    places = {tmpfs_target(text) for text in tmpfs}
    weak = [*image, *filter(_yields, explicit), *inherited]
    found = {spec.target: spec for spec in weak if spec.target not in places}
    asked: dict[str, MountSpec] = {}
    for spec in explicit:
        if not _yields(spec):
            _check_alone(spec, asked.setdefault(spec.target, spec), places)
    return sorted((found | asked).values(), key=lambda spec: spec.target.count("/"))


def _check_alone(spec: MountSpec, other: MountSpec, places: set[str]) -> None:
    if spec != other:
        raise _duplicate(spec.target, _shown(other), _shown(spec))
    if spec.target in places and spec.type is not MountType.TMPFS:
        # Docker lets the tmpfs win where the mount is one of --mount: data would be lost.
        raise _duplicate(spec.target, _shown(spec), f"'--tmpfs {spec.target}'")


def _yields(spec: MountSpec) -> bool:
    """Whether it says nothing but that there be a volume."""
    return spec == MountSpec(MountType.VOLUME, spec.target)


def _duplicate(target: str, first: str, second: str) -> InvalidMountError:
    same = "the same with other options" if first == second else second
    return InvalidMountError(
        f"Duplicate mount point: {target}",
        resolution=f"leave one out: there is {first}, and {same}",
    )


def _shown(spec: MountSpec) -> str:
    if spec.type is MountType.TMPFS:
        return "a tmpfs"
    if spec.is_anonymous:
        return "an anonymous volume"
    return f"volume '{spec.source}'" if spec.type is MountType.VOLUME else f"'{spec.source}'"
