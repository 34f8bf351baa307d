"""What about the mounts of a container its user may not expect."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from storagedrivers.linux.mountinfo import is_below
from storagedrivers.linux.rooted import Root
from storagedrivers.mounts.spec import MountSpec, MountType

if TYPE_CHECKING:
    from storagedrivers.model import Volume
    from storagedrivers.stores.plans import PlannedMount, User

_SELINUX = "/sys/fs/selinux/enforce"


def of_volume(planned: PlannedMount, volume: Volume | None, seed: str, image: str) -> list[str]:
    """What is to be said of a volume.

    Args:
        volume: as it is there; None where it has to be made.
        seed: how the image is called that filled it; empty for none.
        image: how the container's is called.
    """
    found = [*_labels(planned.spec)]
    if volume is not None and _is_other(planned.spec, volume):
        found.append(
            f"there is a volume {volume.name} already, with other labels or options: it stays as"
            " it is"
        )
    hides = planned.hidden is not None and not planned.spec.no_copy
    if hides and seed and image and seed != image:
        found.append(
            f"volume {planned.volume} was filled with the content of image {seed}, and does not"
            f" get that of {image}"
        )
    return found


def _is_other(spec: MountSpec, volume: Volume) -> bool:
    labels, options = dict(spec.labels).items(), dict(spec.options).items()
    return not (labels <= volume.labels.items() and options <= volume.options.items())


def of_host(spec: MountSpec, source: os.stat_result | None, root: str) -> list[str]:
    """What is to be said of a path of the host.

    Args:
        source: None where it has to be made.
        root: the graph root.
    """
    found = [*_labels(spec)]
    if source is not None and stat.S_ISREG(source.st_mode):
        found.append(
            f"{spec.source} is a single file: what replaces it (editors, sed -i) makes another"
            " file, which the other side does not see; mount its directory instead"
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
    said = f"user {user.words} cannot write to it: it belongs to {planned.owner}"
    return planned._replace(warnings=(*planned.warnings, said))


def with_hidden(planned: Sequence[PlannedMount], root: int) -> Iterator[PlannedMount]:
    """The same mounts, and what is to be said of those that others cover: a symlink leads both to
    one place.

    Args:
        planned: in the order in which they are mounted.
        root: the image's, open.
    """
    with Root(f"/proc/self/fd/{root}") as view:
        places = [_resolved(view, one.target) for one in planned]
    for number, one in enumerate(planned):
        later = zip(planned[number + 1 :], places[number + 1 :], strict=True)
        over = next((other for other, place in later if is_below(places[number], place)), None)
        if over is None:
            yield one
            continue
        said = f"nothing of it is seen: by a symlink of the image it lies under {over.target}"
        yield one._replace(warnings=(*one.warnings, said))


def _resolved(view: Root, target: str) -> str:
    try:
        return view.resolve(target)
    except OSError:  # nothing can be mounted there
        return target


def nested(target: str, outer: PlannedMount) -> str | None:
    """What is to be said of a mount whose target has to be made in what another one mounts."""
    if outer.spec.type is not MountType.BIND or outer.read_only:
        return None
    path = outer.spec.source + target.removeprefix(outer.target)
    if os.path.lexists(path):
        return None
    return f"it makes {path} on the host, to be mounted at; that stays there"
