"""The init layer of an image: what an engine expects in every root filesystem.

Docker puts the same there. One layer for each image, right above it, made by its first container;
it holds only what the image lacks, so where nothing is missing there is none. It is no part of the
image: diffs are told as if it belonged to neither side.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from storagedrivers.archive.compare import same_status
from storagedrivers.archive.places import Lower
from storagedrivers.errors import NotFoundError
from storagedrivers.linux import tree
from storagedrivers.stores import content, records

if TYPE_CHECKING:
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.leases import Lease

ROLE = "init"
"""What the row of an init layer says."""

# Parents first. What a directory or a symlink of the image leads elsewhere is left alone.
_DIRECTORIES = (b"dev", b"dev/pts", b"dev/shm", b"etc", b"proc", b"sys")
_FILES = (b".dockerenv", b"dev/console", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf")
_SYMLINKS = {b"etc/mtab": b"/proc/mounts"}
_PATHS = (*_DIRECTORIES, *_FILES, *_SYMLINKS)


def make(layers: LayerStore, image: str, lease: Lease) -> str:
    """The layer on which the containers of an image begin; made where it is not there yet.

    Args:
        image: the image's id.
        lease: gets it.

    Raises:
        NotFoundError: the image is gone.
    """
    with layers.locked(f"init-{image.partition(':')[2]}", what=f"image {image}"):
        row = layers.database.row("SELECT init, layer FROM images WHERE id = ?", image)
        if row is None:
            raise NotFoundError(f"there is no image {image}")
        init, top = row
        if init is None:
            if top is not None:
                lease.take(top)
            init = _made(layers, top, lease)
            with layers.database.transaction() as connection:
                query = "UPDATE images SET init = ? WHERE id = ?"
                if not connection.execute(query, (init, image)).rowcount:
                    raise NotFoundError(f"image {image} was removed meanwhile")
        return str(init)


def _made(layers: LayerStore, top: str | None, lease: Lease) -> str:
    if top is not None:
        with content.view(layers, top) as fd:
            if not _missing(fd):
                return top
    layer = layers.create(top, held=False, lease=lease, role=ROLE)
    with content.view(layers, layer.id, read_only=False) as fd:
        _fill(fd)
    return layers.seal(layer.id).id


def _missing(fd: int) -> list[bytes]:
    """What the tree lacks and can get; not what would lie behind a symlink or a file."""
    found: list[bytes] = []
    lower = Lower(fd)
    for path in _PATHS:
        parent = os.path.dirname(path)
        above = lower.status(parent) if parent not in found else None
        reachable = parent in found or (above is not None and stat.S_ISDIR(above.st_mode))
        if reachable and lower.status(path) is None:
            found.append(path)
    return found


def _fill(fd: int) -> None:
    """Make what is missing, and leave no trace of that in the times of directories."""
    missing = _missing(fd)
    times: dict[bytes, int] = {}
    for path in missing:
        directory, _, name = path.rpartition(b"/")
        with tree.opened_below(fd, os.fsdecode(directory)) as parent:
            # Of a directory that is made here as well: the same times everywhere and always.
            times.setdefault(directory, 0 if directory in missing else os.fstat(parent).st_mtime_ns)
            _make_one(parent, name, path)
    for directory in sorted(times, reverse=True):
        with tree.opened_below(fd, os.fsdecode(directory)) as opened:
            os.utime(opened, ns=(times[directory], times[directory]))


def _make_one(parent: int, name: bytes, path: bytes) -> None:
    if path in _SYMLINKS:
        os.symlink(_SYMLINKS[path], name, dir_fd=parent)
    elif path in _DIRECTORIES:
        os.mkdir(name, dir_fd=parent)
    else:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=parent))
    if os.geteuid() == 0:  # else the store is a user's own, with nothing of others in it
        os.chown(name, 0, 0, dir_fd=parent, follow_symlinks=False)
    if path not in _SYMLINKS:
        os.chmod(name, 0o755, dir_fd=parent)  # whatever the umask
    os.utime(name, ns=(0, 0), dir_fd=parent, follow_symlinks=False)


def unseen(layers: LayerStore, layer: str) -> frozenset[bytes]:
    """The paths below a layer that are there only because an init layer made them: to delete one
    of them is no change.
    """
    below_it = records.chain_layers(layers.database, layer)[1:]
    lowers = [one.id for one in below_it]
    inits = [one.id for one in below_it if one.role == ROLE]
    if not inits:
        return frozenset()
    with ExitStack() as stack:

        def view(one: str) -> Lower:
            return Lower(stack.enter_context(content.view(layers, one)))

        now = view(lowers[0])
        found: set[bytes] = set()
        for init in inits:
            below = lowers[lowers.index(init) + 1 :]
            made = view(init)
            found.update(_made_and_kept(view(below[0]) if below else Lower(None), made, now))
        return frozenset(found)


def _made_and_kept(before: Lower, made: Lower, now: Lower) -> Iterator[bytes]:
    """What an init layer made and no layer above it changed."""
    for path in _PATHS:
        if before.status(path) is None:
            status, current = made.status(path), now.status(path)
            if status is not None and current is not None and same_status(status, current):
                yield path
