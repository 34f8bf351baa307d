"""Says to what a path in a graph root or a run root belongs."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.archive import PAYLOAD_SUFFIX
from storagedrivers.driver import TRASH
from storagedrivers.linux import tree
from storagedrivers.linux.mountinfo import is_below
from storagedrivers.model import is_layer_id
from storagedrivers.stores import records, volume_records
from storagedrivers.stores.database import NAME
from storagedrivers.stores.locks import CONTAINER, VOLUME
from storagedrivers.stores.orphans import MOUNTPOINT, driver_or_none, linked_layer
from storagedrivers.volume_driver import DATA

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore


_WITH_ROWS = ("image", "container", "volume")
"""Kinds of what has rows, besides layers."""


class Owner(NamedTuple):
    """To what a path belongs.

    Attributes:
        kind: ``layer``, ``mountpoint``, ``link``, ``trash``, ``tar``, ``lock``, ``staging``,
            ``image``, ``container``, ``volume`` or ``store``.
        layer: the layer's id; empty where it is none's.
        driver: the layer's driver.
        known: whether the layer, image, container or volume has a row; what has none is an orphan.
        inside: the path in the layer or volume, from its root; empty outside of one.
        provider: the layer of the chain that brings *inside*, where the driver can tell.
        lowers: the layers below it, nearest first.
        children: the layers right above it.
        mounts: where it is mounted.
        images: the ids of the images that have the layer, or the file.
        containers: the names of the containers that have the layer, or the directory, or use the
            volume.
        volume: the volume's name; empty where it is none's.
        steps: the instructions by which the build cache has the layer.
    """

    kind: str
    layer: str = ""
    driver: str = ""
    known: bool = False
    inside: str = ""
    provider: str = ""
    lowers: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    volume: str = ""
    steps: tuple[str, ...] = ()

    @property
    def is_orphan(self) -> bool:
        """It belongs to something that there is not."""
        return not self.known and bool(self.layer or self.kind in _WITH_ROWS)


def find_owner(store: LayerStore, path: str) -> Owner | None:
    """The owner of *path*; None where it is not the store's."""
    run_root = store.mount_table.run_root
    parts = _below(path, store.root)
    if parts is not None:
        found = _in_root(store, parts)
    elif (parts := _below(path, run_root)) is not None:
        found = _in_run_root(store, parts)
    else:
        return None
    return None if found is None else _with_references(store, found)


def _below(path: str, directory: str) -> list[str] | None:
    """The names that lead from *directory* to *path*; None where it does not lie there.

    Inside of a layer nothing is resolved: its symlinks mean its own root.
    """
    plain = os.path.abspath(path)
    head, tail = os.path.split(plain)
    resolved = os.path.join(os.path.realpath(head), tail)
    for one in (plain, resolved):
        for top in (os.path.abspath(directory), os.path.realpath(directory)):
            if is_below(one, top):
                return os.path.relpath(one, top).split("/") if one != top else []
    return None


def _in_root(store: LayerStore, parts: list[str]) -> Owner | None:
    match parts:
        case []:
            return Owner("store")
        case ["tars", name, *_]:
            return Owner("tar", name.removesuffix(PAYLOAD_SUFFIX))
        case ["locks", name, *_]:
            return _of_lock(store, name)
        case ["tmp", *_]:
            return Owner("staging")
        case ["images", "sha256", name, *_]:
            return _of_image(store, name)
        case ["containers", name, *inner]:
            return _of_container(store, name, inner)
        case ["volumes", name, *inner]:
            return _of_volume(store, name, inner)
        case ["locks" | "tars" | "containers" | "images" | "volumes", *_]:
            return Owner("store")
        case [name] if name.startswith(NAME):
            return Owner("store")
        case [driver, *rest]:
            return _in_home(store, driver, rest)
    return None


def _of_image(store: LayerStore, name: str) -> Owner:
    query = "SELECT image FROM image_blobs WHERE digest = ? ORDER BY image"
    images = tuple(row[0] for row in store.database.rows(query, f"sha256:{name}"))
    return Owner("image", known=bool(images), images=images)


def _of_container(store: LayerStore, name: str, inner: list[str]) -> Owner:
    row = store.database.row("SELECT name FROM containers WHERE id = ?", name)
    containers = () if row is None else (str(row[0]),)
    inside = "/" + "/".join(inner) if inner else ""
    return Owner("container", known=row is not None, inside=inside, containers=containers)


def _of_volume(store: LayerStore, name: str, inner: list[str]) -> Owner:
    known = name.isascii() and volume_records.state(store.database, name) is not None
    users = tuple(volume_records.users(store.database, name)) if known else ()
    inside = "/" + "/".join(inner[1:]) if inner[:1] == [DATA] else ""
    return Owner("volume", known=known, inside=inside, containers=users, volume=name)


def _of_lock(store: LayerStore, name: str) -> Owner:
    if name.startswith(VOLUME):
        return _of_volume(store, name.removeprefix(VOLUME), [])._replace(kind="lock")
    if name.startswith(CONTAINER):
        return _of_container(store, name.removeprefix(CONTAINER), [])._replace(kind="lock")
    return Owner("lock", name if is_layer_id(name) else "")


def _in_home(store: LayerStore, driver: str, rest: list[str]) -> Owner | None:
    home = os.path.join(store.root, driver)
    match rest:
        case []:
            known = os.path.isdir(os.path.join(home, TRASH))
            return Owner("store", driver=driver) if known else None
        case [name, *_] if name == TRASH:
            layer = rest[1].partition(".")[0] if len(rest) > 1 else ""
            return Owner("trash", layer, driver)
        case [name, *inner] if is_layer_id(name):
            inside = "/" + "/".join(inner[1:]) if inner else ""
            return Owner("layer", name, driver, inside=inside)
        case [_, *_]:  # a link of overlay2: it leads into the layer
            if layer := linked_layer(home, "/".join(rest[:2])):
                return Owner("link", layer, driver)
    return None


def _in_run_root(store: LayerStore, parts: list[str]) -> Owner | None:
    match parts:
        case ["containers", name, *inner]:
            return _of_container(store, name, inner)
        case ["volumes", name]:
            return _of_volume(store, name, [])
        case ["mounts", name, *inner]:
            if found := MOUNTPOINT.fullmatch(name):
                return Owner("mountpoint", found[1], inside="/" + "/".join(inner))
            return None
        case [] | ["mounts"] | ["lock"] | ["containers"] | ["volumes"]:
            return Owner("store")
    return None


def _with_references(store: LayerStore, owner: Owner) -> Owner:
    if not owner.layer:
        return owner
    row = records.by_id(store.database, owner.layer)
    # A removed layer's trash and a directory in another driver's home are nobody's.
    if row is None or owner.kind == "trash" or owner.driver not in ("", row.driver):
        return owner
    lowers = store.lowers(row.id)
    mounts = [record.path for record in store.mount_table.living(row.id, tidy=False)]
    return owner._replace(
        driver=row.driver,
        known=True,
        lowers=lowers,
        children=tuple(store.children(row.id)),
        mounts=tuple(mounts),
        images=records.images_on(store.database, row.id),
        containers=records.containers_on(store.database, row.id),
        steps=records.steps_with(store.database, row.id),
        provider=_provider(store, row.driver, (row.id, *lowers), owner),
    )


def _provider(store: LayerStore, driver: str, chain: tuple[str, ...], owner: Owner) -> str:
    """The topmost layer with the path, of drivers that keep a layer's changes by themselves."""
    inside = owner.inside.strip("/")
    driver_object = driver_or_none(store, driver)
    if not inside or driver_object is None or owner.kind != "mountpoint":
        return ""
    for layer in chain:
        with suppress(OSError):
            changeset = driver_object.changeset(layer)
            if changeset is None:
                return ""
            hidden = _hides(os.fspath(changeset.path), inside)
            if hidden is not None:
                return "" if hidden else layer
    return ""


def _hides(changeset: str, inside: str) -> bool | None:
    """Whether a layer's changes delete a path; None where they do not name it.

    What is no directory on the way hides all below it, and symlinks mean the layer's own root.
    """
    with tree.opened_directory(changeset, follow_symlinks=True) as top:
        directory, _, name = inside.rpartition("/")
        try:
            with tree.opened_below(top, directory) as fd:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                return True
            if error.errno == errno.ENOENT:
                return None
            raise
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
