"""Mounts of layers, counted.

::

    <run root>/mounts/                  mounted onto itself, private: what is mounted below it does
                                        not spread to other mount namespaces
    <run root>/mounts/<layer id>-ro/    a mountpoint of its own, gone after the unmount
    <run root>/mounts/<layer id>-rw/

The row is written before the mount and deleted after the unmount, so a process that is killed in
between leaves a row that can be checked, and no mount that nobody knows of. A row is of one boot
and one *place*: a mount namespace and a run root. Rows are checked when their layer is touched; a
reboot costs nothing, and nothing here has to survive a power loss.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from storagedrivers.errors import (
    ContainerError,
    InUseError,
    MountError,
    NotFoundError,
    UnmountError,
    UnsafePathError,
)
from storagedrivers.linux import busy, mount, syscalls, tree
from storagedrivers.linux.mountinfo import mount_namespaces, read_mountinfo
from storagedrivers.linux.namespace import has_capability, in_user_namespace
from storagedrivers.model import Mount
from storagedrivers.stores import locks
from storagedrivers.stores.database import Database
from storagedrivers.stores.records import require_ready


class MountRecord(NamedTuple):
    """A layer that is mounted.

    Attributes:
        layer: its id.
        place: a mount namespace and a run root: ``<namespace>:<device>:<inode>``.
        read_only: how.
        times: how often it was asked for.
        path: the mountpoint, as the namespace of the place shows it.
    """

    layer: str
    place: str
    read_only: bool
    times: int
    path: str


class MountTable:
    """The mounts of one store below one run root. The caller holds the lock of the layer."""

    def __init__(self, database: Database, run_root: str | os.PathLike[str]) -> None:
        self._database = database
        self.run_root = os.fspath(run_root)

    def mount(self, layer: str, mounts: Callable[[], Sequence[Mount]], *, read_only: bool) -> Path:
        """Have the layer mounted, or count once more.

        Args:
            mounts: says how, if it is not mounted yet.

        Raises:
            InUseError: it is mounted in the other way, or writable somewhere else.
            MountError: the kernel refused.
            UnsafePathError: the run root is not the user's alone.
        """
        try:
            self.prepare()
        except MountError as error:
            lies = self._lies(layer, mounts(), read_only=read_only)
            if error.errno != errno.EPERM or lies is None:
                raise
            return lies
        place = self._place()
        others = self.living(layer)
        for record in others:
            if record.place != place or record.read_only != read_only:
                _refuse_second(record, read_only=read_only)
        point = self._point(layer, read_only=read_only)
        mounted = is_mounted(point)
        self._count(layer, place, read_only=read_only, anew=not mounted)
        if not mounted:
            self._mount_anew(layer, place, point, mounts)
        return Path(point)

    def _lies(self, layer: str, mounts: Sequence[Mount], *, read_only: bool) -> Path | None:
        """Where the whole of a layer lies: for who may mount nothing, and keeps copies."""
        if len(mounts) != 1 or mounts[0].type != "bind":
            return None
        with self._database.transaction(durable=False) as connection:
            require_ready(connection, layer)
            if not read_only:
                connection.execute("UPDATE layers SET used = 1 WHERE id = ?", (layer,))
        return Path(mounts[0].source)

    def _count(self, layer: str, place: str, *, read_only: bool, anew: bool) -> None:
        with self._database.transaction(durable=False) as connection:
            require_ready(connection, layer)
            connection.execute(
                "INSERT INTO mounts VALUES (?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET"
                " boot = excluded.boot, read_only = excluded.read_only,"
                f" count = {'1' if anew else 'count + 1'}",
                (layer, place, boot_id(), read_only),
            )
            if not read_only:
                connection.execute("UPDATE layers SET used = 1 WHERE id = ?", (layer,))

    def _mount_anew(
        self, layer: str, place: str, point: str, mounts: Callable[[], Sequence[Mount]]
    ) -> None:
        try:
            with suppress(FileExistsError):
                os.mkdir(point, 0o700)
            mount.mount_all(mounts(), point)
        except BaseException:
            with suppress(OSError):
                os.rmdir(point)
            self._forget(layer, place)
            raise

    def unmount(self, layer: str) -> bool:
        """Count down; at zero the layer is unmounted. Says whether it is.

        Raises:
            NotFoundError: it is not mounted here.
            InUseError: something uses the mount; names it.
        """
        place = self._place()
        here = [record for record in self.living(layer) if record.place == place]
        if not here:
            if not has_capability(syscalls.CAP_SYS_ADMIN):
                return True  # it was looked at where it lies
            raise NotFoundError(f"layer {layer} is not mounted below {self.run_root}")
        record = here[0]
        if record.times > 1:
            with self._database.transaction(durable=False) as connection:
                connection.execute(
                    "UPDATE mounts SET count = count - 1 WHERE layer = ? AND place = ?",
                    (layer, place),
                )
            return False
        _unmount(layer, record.path)
        self._forget(layer, place)
        return True

    def open(self, path: Path) -> int:
        """Open the root directory of a layer where :meth:`mount` said that it is.

        Raises:
            ContainerError: somebody has unmounted it since then, by force.
        """
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            if self._is_of_layer(fd, os.path.dirname(path)):
                return fd
            os.close(fd)
        raise ContainerError(
            f"what was mounted at {path} was unmounted by another process",
            resolution="try again, if the container is still there",
        )

    def _is_of_layer(self, fd: int, directory: str) -> bool:
        """Whether *fd*, opened in *directory*, is on a mount of its own."""
        if directory != os.path.join(self.run_root, "mounts"):
            return True  # who may mount nothing has got the path where the layer lies
        with tree.opened_directory(directory) as above:
            return tree.mount_id(fd) != tree.mount_id(above)

    def living(self, layer: str | None = None, *, tidy: bool = True) -> list[MountRecord]:
        """The mounts of a layer, or of all, that are really there.

        Args:
            tidy: rows of others are deleted; a store that is open for reading keeps them anyway.
        """
        tidy = tidy and not self._database.read_only
        query = "SELECT layer, place, read_only, count, boot FROM mounts"
        rows = (
            self._database.rows(query)
            if layer is None
            else self._database.rows(f"{query} WHERE layer = ?", layer)
        )
        if not rows:
            return []
        boot = boot_id()
        elsewhere = _Elsewhere()
        records = []
        for name, place, read_only, count, its_boot in rows:
            path = self._find(name, place, elsewhere, read_only=bool(read_only), tidy=tidy)
            if its_boot == boot and path is not None:
                records.append(MountRecord(name, place, bool(read_only), count, path))
            elif tidy:
                self._forget(name, place, boot=its_boot)
        return records

    def forget_points(self, layer: str) -> None:
        """Remove the mountpoints of a layer that is mounted nowhere: a mount namespace that ended
        leaves its own behind.
        """
        for read_only in (True, False):
            with suppress(OSError):
                os.rmdir(self._point(layer, read_only=read_only))

    def _find(
        self, layer: str, place: str, elsewhere: _Elsewhere, *, read_only: bool, tidy: bool
    ) -> str | None:
        """Where a row's mount is, or None."""
        if place == self._place():
            point = self._point(layer, read_only=read_only)
            if is_mounted(point):
                return point
            if tidy:
                with suppress(OSError):  # of a process that was killed before it mounted
                    os.rmdir(point)
            return None
        return elsewhere.find(place, _name(layer, read_only=read_only))

    def _forget(self, layer: str, place: str, boot: str | None = None) -> None:
        with self._database.transaction(durable=False) as connection:
            connection.execute(
                "DELETE FROM mounts WHERE layer = ? AND place = ? AND boot = ?",
                (layer, place, boot_id() if boot is None else boot),
            )

    # The run root

    def prepare(self) -> None:
        """Make the run root's directories, and keep what is mounted there private.

        Raises:
            UnsafePathError: another user could exchange what is in it.
        """
        make_private_directory(self.run_root)
        directory = os.path.join(self.run_root, "mounts")
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        if _make_private(directory):
            return
        with locks.locked(f"{self.run_root}/lock", f"the run root {self.run_root}"):
            if not _make_private(directory):
                syscalls.mount(directory, directory, None, syscalls.MS_BIND, None)
                _make_private(directory)

    def _place(self) -> str:
        namespace = os.stat("/proc/self/ns/mnt").st_ino
        try:
            status = os.stat(self.run_root)
        except FileNotFoundError:
            return f"{namespace}:0:0"
        return f"{namespace}:{status.st_dev}:{status.st_ino}"

    def _point(self, layer: str, *, read_only: bool) -> str:
        return os.path.join(self.run_root, "mounts", _name(layer, read_only=read_only))


def _name(layer: str, *, read_only: bool) -> str:
    return f"{layer}-{'ro' if read_only else 'rw'}"


def _refuse_second(record: MountRecord, *, read_only: bool) -> None:
    """An upper directory has one superblock at a time; read-only ones do no harm to each other."""
    if record.read_only and read_only:
        return
    how = "read-only" if record.read_only else "writable"
    raise InUseError(
        f"layer {record.layer} is mounted {how} at {record.path}",
        resolution="unmount it there, or use that mount",
    )


def _make_private(directory: str) -> bool:
    """Whether *directory* is a mount; then nothing spreads from it any more."""
    try:
        syscalls.mount(None, directory, None, syscalls.MS_PRIVATE, None)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise MountError(
                f"this process may not mount below {directory}",
                errno=errno.EPERM,
                resolution="run as root, or in a user and mount namespace: unshare -rm",
            ) from error
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def make_private_directory(path: str) -> None:
    """Make *path* (0700) unless it is there and the user's alone.

    Raises:
        UnsafePathError: it, or the directory that holds it, is open to other users: the default for
            users without XDG_RUNTIME_DIR has a name that anyone can foresee.
    """
    above = os.path.dirname(path)
    os.makedirs(above, mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)
    fault = _fault_above(above) or _fault(path)
    if fault:
        raise UnsafePathError(
            f"the run root {path} is not safe: {fault}",
            resolution="choose a directory of your own: --run-root DIR",
        )


def _fault(path: str) -> str:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "it is a symlink, which others may have put there"
    if not stat.S_ISDIR(status.st_mode):
        return "it is no directory"
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & 0o022:
        return "other users can write to it"
    return ""


def _fault_above(path: str) -> str:
    """What lets others exchange a directory in *path*, or nothing."""
    status = os.lstat(path)
    trusted = {os.geteuid(), 0}
    if in_user_namespace():
        trusted.add(_overflow_user())  # as which root's directories are shown there
    if status.st_uid not in trusted:
        return f"{path} belongs to user {status.st_uid}"
    # In a sticky directory others cannot take a name away. A symlink that is trusted leads where
    # its owner wants.
    open_to_others = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if open_to_others and not stat.S_ISLNK(status.st_mode):
        return f"other users can write to {path}"
    return ""


def _overflow_user() -> int:
    with open("/proc/sys/kernel/overflowuid") as file:
        return int(file.read())


def is_mounted(point: str) -> bool:
    """Whether something is mounted at *point*, bind mounts of the same filesystem included."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        parent = os.open(os.path.dirname(point), flags)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        name = os.path.basename(point)
        os.close(syscalls.openat2(parent, name, flags, resolve=syscalls.RESOLVE_NO_XDEV))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.EXDEV:
            return True
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # before Linux 5.6, and filters
            raise
        real = os.path.realpath(point)
        return any(entry.mountpoint == real for entry in read_mountinfo())
    finally:
        os.close(parent)
    return False


def busy_error(what: str, point: str) -> InUseError:
    """The error for a mountpoint that the kernel does not let go; names who uses it."""
    users = busy.find_users(os.path.realpath(point))
    return InUseError(
        f"{what} cannot be unmounted: {point} is busy",
        holders=users,
        resolution="end what uses it" if users else busy.INVISIBLE,
    )


def _unmount(layer: str, point: str) -> None:
    while is_mounted(point):  # a driver may need more than one, and users mount on top
        try:
            mount.unmount(point)
        except UnmountError as error:
            if error.errno != errno.EBUSY:
                raise
            raise busy_error(f"layer {layer}", point) from error
    # Copies of the mount that other namespaces took along are detached by this.
    try:
        os.rmdir(point)
    except FileNotFoundError:
        return
    except OSError as error:
        # Who had the path wrote to it when nothing was mounted there any more: that is gc's.
        if error.errno != errno.ENOTEMPTY:
            raise


def boot_id() -> str:
    """The id of this boot; empty where there is no /proc."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


class _Elsewhere:
    """Looks for mounts of other places, through a process of their namespace."""

    def __init__(self) -> None:
        self._mountpoints: dict[str, list[str]] = {}

    def find(self, place: str, name: str) -> str | None:
        namespace = place.partition(":")[0]
        if namespace not in self._mountpoints:
            self._mountpoints[namespace] = _mountpoints_in(namespace)
        ending = f"/mounts/{name}"
        return next(
            (point for point in self._mountpoints[namespace] if point.endswith(ending)), None
        )


def _mountpoints_in(namespace: str) -> list[str]:
    """What is mounted in a mount namespace, through any process there; nothing when it is gone."""
    for pid, inode in mount_namespaces():
        if inode == int(namespace):
            with suppress(OSError):  # one that ends meanwhile: the next may live
                return [entry.mountpoint for entry in read_mountinfo(f"/proc/{pid}/mountinfo")]
    return []
