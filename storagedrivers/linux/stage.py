"""Puts mounts together below a root directory, in a mount namespace that was made for it.

::

    namespace of one thread ─▶ sources opened ─▶ Stage: cloned, attributes set ─▶ moved to targets

The stage is a tmpfs that lies over the root at first: on a mount that is private, so that nothing
which is mounted there is seen in another namespace. Every source is cloned to it, and only then it
moves to another place and shows the root again. A clone gets its attributes before it has a name in
the root, and it is moved onto a descriptor: who exchanges a path meanwhile changes nothing. All
that goes by mount(2), as old kernels have it, and vanishes with the namespace.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from storagedrivers.linux import mount, namespace, syscalls, tree
from storagedrivers.linux.mountinfo import is_below, read_mountinfo
from storagedrivers.model import Mount

Attach = Callable[[str], int]
"""Mounts more below a mountpoint, and opens what is to be seen."""

Prepare = Callable[[], Attach]
"""Opens what is to be mounted, before anything is hidden."""

PROPAGATIONS = {
    "private": syscalls.MS_PRIVATE,
    "rprivate": syscalls.MS_PRIVATE | syscalls.MS_REC,
    "slave": syscalls.MS_SLAVE,
    "rslave": syscalls.MS_SLAVE | syscalls.MS_REC,
    "shared": syscalls.MS_SHARED,
    "rshared": syscalls.MS_SHARED | syscalls.MS_REC,
}
"""How mounts and unmounts spread, mount_namespaces(7)."""

_MOUNTINFO = "/proc/thread-self/mountinfo"  # of a thread that has a namespace of its own


class Stage:
    """Where mounts are made ready.

    Args:
        root: the directory that they are for, a mount. Whoever calls has a mount namespace for it.

    Attributes:
        path: where what was staged is to be found.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self.path = root
        # Who binds all of / binds neither the root nor this.
        _spread(root, syscalls.MS_UNBINDABLE)
        syscalls.mount("tmpfs", root, "tmpfs", 0, b"mode=0700")
        _spread(root, syscalls.MS_UNBINDABLE)

    def bind(self, fd: int, name: str, *, recursive: bool = True) -> str:
        """Stage what is open; its path."""
        point = os.path.join(self.path, name)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.mkdir(point, 0o700)
        else:
            os.close(os.open(point, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        flags = syscalls.MS_BIND | (syscalls.MS_REC if recursive else 0)
        syscalls.mount(f"/proc/self/fd/{fd}", point, None, flags, None)
        return point

    def move(self, directory: str) -> None:
        """Have it at another place, an empty directory; then the root shows again."""
        above = mount_point(directory)
        # What is mounted there is to be seen nowhere else, as it would if that were shared.
        _spread(above, syscalls.MS_SLAVE)
        syscalls.mount(self._root, directory, None, syscalls.MS_MOVE, None)
        self.path = directory
        _spread(self._root, syscalls.MS_PRIVATE)


def open_view(mounts: Sequence[Mount], prepare: Prepare) -> int:
    """As :func:`storagedrivers.linux.mount.open_view`, with more mounted in it.

    Raises:
        MountError: the kernel refused.
        OSError: no permission to mount; or what *prepare* and what it returns raise.
    """

    def opened() -> int:
        attach = prepare()
        with mount.mounted_lazily(mounts, "/sys"):  # any directory does that no mount needs
            return attach("/sys")

    return namespace.in_private_mount_namespace(opened)


def hide(point: str) -> None:
    """Have whoever binds all that is above leave out a mount, and what is mounted in it."""
    if mount_point(point) == os.path.realpath(point):
        _spread(point, syscalls.MS_UNBINDABLE)


def place(point: str, fd: int) -> None:
    """Move a mount onto what is open.

    Raises:
        OSError: ENOTDIR where only one of both is a directory.
    """
    syscalls.mount(point, f"/proc/self/fd/{fd}", None, syscalls.MS_MOVE, None)


def set_propagation(point: str, word: str) -> None:
    """Have a mount spread as one of :data:`PROPAGATIONS` says."""
    _spread(point, PROPAGATIONS[word])


def _spread(point: str, flags: int) -> None:
    syscalls.mount(None, point, None, flags, None)


def set_read_only(point: str, *, recursive: bool) -> bool:
    """Let nothing be written through a mount; False where the kernel cannot do that recursively."""
    if recursive:
        try:
            syscalls.mount_setattr(
                syscalls.AT_FDCWD,
                point,
                syscalls.AT_RECURSIVE,
                attr_set=syscalls.MOUNT_ATTR_RDONLY,
            )
            return True
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
    add_attribute(point, syscalls.MOUNT_ATTR_RDONLY, syscalls.MS_RDONLY)
    return not recursive


def add_attribute(path: str, attribute: int, flag: int) -> None:
    """Give the mount at *path* one more attribute, and not those below it."""
    try:
        syscalls.mount_setattr(syscalls.AT_FDCWD, path, 0, attr_set=attribute)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # before Linux 5.12
            raise
        # Flags that the source has may be locked in a user namespace: leaving one out is EPERM.
        kept = os.statvfs(path).f_flag & (
            syscalls.MS_NODEV | syscalls.MS_NOSUID | syscalls.MS_NOEXEC | syscalls.MS_RDONLY
        )
        flags = syscalls.MS_REMOUNT | syscalls.MS_BIND | flag | kept
        syscalls.mount(None, path, None, flags, None)


def set_no_devices(point: str) -> None:
    """Have no device work in a mount, and in all that is mounted below it."""
    attribute = syscalls.MOUNT_ATTR_NODEV
    try:
        syscalls.mount_setattr(syscalls.AT_FDCWD, point, syscalls.AT_RECURSIVE, attr_set=attribute)
        return
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    for entry in read_mountinfo(_MOUNTINFO):
        if is_below(entry.mountpoint, os.path.realpath(point)):
            add_attribute(entry.mountpoint, attribute, syscalls.MS_NODEV)


def spreads(fd: int) -> frozenset[str]:
    """How the mount that *fd* is on spreads: ``shared``, ``master``, both or nothing."""
    number = tree.mount_id(fd).split()[1]
    for fields in _lines():
        if fields[0] == number:
            return _optional(fields)
    return frozenset()


def _optional(fields: list[str]) -> frozenset[str]:
    return frozenset(one.partition(":")[0] for one in fields[6 : fields.index("-")])


def mount_point(path: str) -> str:
    """Where the mount is mounted that *path* lies on."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        number = int(tree.mount_id(fd).split()[1])
    finally:
        os.close(fd)
    return next(one.mountpoint for one in read_mountinfo(_MOUNTINFO) if one.mount_id == number)


def _lines() -> Iterator[list[str]]:
    with open(_MOUNTINFO, "rb") as file:
        for line in file:
            yield line.decode("ascii", "replace").split(" ")


def let_go(needed: list[str]) -> None:
    """Take out of this namespace what whoever was started in it does not need.

    Else what the host unmounts would be in use as long as it is there. Where the host's unmount
    arrives here too, nothing is done: an unmount here could arrive there.

    Args:
        needed: directories, each with all that is mounted above and below it.
    """
    shared = {fields[0] for fields in _lines() if "shared" in _optional(fields)}
    needed = [os.path.realpath(one) for one in needed if os.path.isabs(one)]
    parents = {fields[0]: fields[1] for fields in _lines()}
    for entry in reversed(read_mountinfo(_MOUNTINFO)):
        point = entry.mountpoint
        if parents.get(str(entry.mount_id)) in shared:
            continue
        if any(is_below(point, one) or is_below(one, point) for one in needed):
            continue
        with suppress(OSError):  # it went with the one above it, or is locked
            # What is below it may be shared, and its unmount would be seen outside.
            _spread(point, syscalls.MS_SLAVE | syscalls.MS_REC)
            syscalls.umount2(point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
