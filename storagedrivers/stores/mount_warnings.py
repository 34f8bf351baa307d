"""What about the mounts of a container its user may not expect."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from storagedrivers.mounts.spec import MountSpec, MountType

if TYPE_CHECKING:
    from storagedrivers.model import Volume
    from storagedrivers.stores.images import Image
    from storagedrivers.stores.plans import PlannedMount, User

_SELINUX = "/sys/fs/selinux/enforce"


def of_volume(planned: PlannedMount, volume: Volume | None, image: Image | None) -> list[str]:
    """What is to be said of a volume.

    Args:
        volume: as it is there already.
        image: the container's.
    """
    found = [*_labels(planned.spec)]
    hides = planned.hidden is not None and not planned.spec.no_copy
    seed = "" if volume is None else volume.seed or ""
    if hides and seed and image is not None and seed != image.id:
        found.append(
            f"volume {planned.volume} was filled with the content of image {seed[7:19]}, and does"
            f" not get that of {image.id[7:19]}"
        )
    return found


def no_subpath(spec: MountSpec) -> str:
    """What is to be said of a part of a volume that is to be made."""
    return (
        f"the subpath {spec.subpath!r} is not in volume {spec.source}, which is new: it will not"
        " start like that"
    )


def of_host(
    planned: PlannedMount,
    source: os.stat_result | None,
    target: os.stat_result | None,
    root: str,
) -> list[str]:
    """What is to be said of a path of the host.

    Args:
        source: None where it has to be made.
        target: what the image has at the target.
        root: the graph root.
    """
    spec = planned.spec
    found = [*_labels(spec)]
    is_file = source is not None and not stat.S_ISDIR(source.st_mode)
    if source is not None and is_file and stat.S_ISREG(source.st_mode):
        found.append(
            f"{spec.source} is a single file: what replaces it (editors, sed -i) makes another"
            " file, which the other side does not see; mount its directory instead"
        )
    if target is not None and stat.S_ISDIR(target.st_mode) == is_file:
        kinds = ("a file", "a directory") if is_file else ("a directory", "a file")
        found.append(
            f"{spec.source} is {kinds[0]}, and the image has {kinds[1]} at {spec.target}: it will"
            " not start like that"
        )
    real = os.path.realpath(spec.source)
    if f"{real}/".startswith(f"{os.path.realpath(root)}/"):
        found.append(f"{spec.source} belongs to the store itself")
    return found


def _labels(spec: MountSpec) -> Iterator[str]:
    for word in {"z", "Z"} & {*spec.mode.split(",")}:
        if os.path.exists(_SELINUX):
            yield f"{word} does not relabel {spec.source or 'it'}: do it yourself, with chcon"
        else:
            yield f"{word} changes nothing: this host has no SELinux"


def with_user(planned: PlannedMount, user: User) -> PlannedMount:
    """The same mount, and what is to be said of who cannot write to it."""
    if planned.read_only or planned.writable is not False or planned.owner is None:
        return planned
    uid, gid, mode = planned.owner
    said = f"user {user.words} cannot write to it: it belongs to {uid}:{gid}, mode {mode:04o}"
    return planned._replace(warnings=(*planned.warnings, said))


def with_nested(planned: Iterable[PlannedMount]) -> Iterator[PlannedMount]:
    """The same mounts, and what is to be said of those that lie below others.

    Args:
        planned: in the order in which they are mounted.
    """
    before: list[PlannedMount] = []
    for one in planned:
        above = [other for other in before if one.target.startswith(f"{other.target}/")]
        said = _nested(one, above[-1]) if above else None
        before.append(one)
        yield one._replace(warnings=(*one.warnings, said)) if said else one


def _nested(inner: PlannedMount, outer: PlannedMount) -> str | None:
    """What is to be said of a mount whose target has to be made in what another one mounts."""
    if outer.spec.type is not MountType.BIND:
        return None
    path = outer.spec.source + inner.target.removeprefix(outer.target)
    if os.path.lexists(path):
        return None
    if outer.read_only:
        return (
            f"{path} is not there to mount it at, and {outer.target} is read-only: it will not"
            " start like that"
        )
    return f"it makes {path} on the host, to be mounted at; that stays there"
