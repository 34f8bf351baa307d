"""All mounts that a new container is to have: what the user, other containers and its image say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from storagedrivers.mounts.merge import image_volumes, merge
from storagedrivers.mounts.names import check_volume_name
from storagedrivers.mounts.spec import MountSpec, MountType, checked
from storagedrivers.stores.container_mounts import ContainerMount, mounts_of

if TYPE_CHECKING:
    from storagedrivers.stores.container_base import ContainerBase

_MOUNT_FORM = re.compile(r'"?[a-zA-Z-]+[=,]')


class Request(NamedTuple):
    """What was asked for, put together.

    Attributes:
        specs: one for each target, in the order in which they are mounted.
        inherited: those of them that are another container's.
        tmpfs: the texts of ``--tmpfs``, whose options are looked at when the container starts.
        warnings: what was left out, a sentence each.
    """

    specs: tuple[MountSpec, ...] = ()
    inherited: frozenset[MountSpec] = frozenset()
    tmpfs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def gather(
    store: ContainerBase,
    config: Mapping[str, Any],
    mounts: Sequence[MountSpec | str],
    tmpfs: Sequence[str],
    volumes_from: Sequence[str],
) -> Request:
    """Put it together, as Docker does.

    Args:
        store: the containers.
        config: the new container's: ``Volumes`` and ``Tmpfs`` count.
        mounts: specs, or texts of ``-v`` or ``--mount``, see :func:`parse`.
        tmpfs: texts of ``--tmpfs``, beside those of the config.
        volumes_from: texts of ``--volumes-from``.

    Raises:
        InvalidMountError: what was asked for is no mount, or contradicts itself.
        NotFoundError: there is no such container.
        TypeError: one of the three is no list, or what is in it is none of that.
    """
    for name, given in (("mounts", mounts), ("tmpfs", tmpfs), ("volumes_from", volumes_from)):
        _check_list(name, given)
    explicit = [parse(one) if isinstance(one, str) else checked(one) for one in mounts]
    for spec in explicit:
        if spec.type is MountType.VOLUME and spec.source:
            check_volume_name(spec.source)
    every = tuple(dict.fromkeys([*(config.get("Tmpfs") or ()), *tmpfs]))
    inherited, warnings = _inherited(store, volumes_from)
    image = image_volumes(config.get("Volumes"))
    specs = merge(explicit, inherited=inherited, image=image, tmpfs=every)
    return Request(tuple(specs), frozenset(inherited), every, tuple(warnings))


def _check_list(name: str, given: object) -> None:
    """A text alone would be read letter by letter."""
    if isinstance(given, str | MountSpec) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is a list, and not {given!r}: write {name}=[{given!r}]")
    is_mounts = name == "mounts"
    what = "a MountSpec, or a text as it follows -v or --mount" if is_mounts else "a text"
    for one in given:
        if not isinstance(one, str) and not (is_mounts and isinstance(one, MountSpec)):
            raise TypeError(f"{one!r} in {name} is not {what}")


def parse(text: str) -> MountSpec:
    """The spec that a text describes, in either of Docker's forms.

    It is one of ``--mount`` if it begins with a word and ``=`` or ``,``, as no text of ``-v`` can:
    that begins with a path, or with the name of a volume and ``:``.

    Raises:
        InvalidMountError: it is none.
    """
    if _MOUNT_FORM.match(text):
        from storagedrivers.mounts.mount_flag import parse_mount

        return parse_mount(text)
    from storagedrivers.mounts.volume_flag import parse_volume

    return parse_volume(text)


def _inherited(
    store: ContainerBase, volumes_from: Sequence[str]
) -> tuple[list[MountSpec], list[str]]:
    """The mounts of other containers as specs, and what is said of those left out."""
    specs, warnings = [], []
    for text in volumes_from:
        from storagedrivers.mounts.volume_flag import parse_volumes_from

        said = parse_volumes_from(text)
        other = store.get(said.container)
        for mount in mounts_of(other):
            if mount.type == MountType.TMPFS:
                warnings.append(
                    f"the tmpfs {mount.target} of container {other.name} is its own, and not"
                    " mounted here"
                )
            else:
                specs.append(said.of(_spec_of(mount)))
    return specs, warnings


def _spec_of(mount: ContainerMount) -> MountSpec:
    return MountSpec(
        MountType(mount.type),
        mount.target,
        source=mount.name or mount.source,
        read_only=mount.read_only,
        propagation=mount.propagation,
        recursive=mount.recursive,
        subpath=mount.subpath,
        driver=mount.driver,
        create_source=mount.create_source,
    )
