"""Gives files and directories the owner, mode, attributes and times that an entry says.

The order matters (see :mod:`storagedrivers.linux.copy`): contents, owner, attributes, mode, ACLs,
capabilities, times.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import NamedTuple

from storagedrivers.archive.header import Entry
from storagedrivers.archive.whiteouts import OVERLAYS_OWN
from storagedrivers.errors import MalformedDiffError
from storagedrivers.linux import tree

_LATE = (b"system.posix_acl_", b"security.capability")
_LOST = (errno.EPERM, errno.EOPNOTSUPP, errno.EACCES)
_MOST_OF_XATTRS = 1 << 20  # bytes; no filesystem takes more in all attributes of a file
_MAX_WARNINGS = 100
_MAX_ID = 2**32 - 2  # 2^32 - 1 is chown(2)'s "leave it"


class Metadata(NamedTuple):
    """What a directory gets at the end, when nothing is made in it any more."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: Mapping[bytes, bytes] | None = None


class Warnings:
    """Sentences about what could not be kept: the first hundred, and how many more there were."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._more = 0

    def add(self, entry: Entry, sentence: str) -> None:
        """Remember *sentence* about *entry*."""
        if len(self._sentences) < _MAX_WARNINGS:
            self._sentences.append(f"{repr(entry.name)[1:]}: {sentence}")
        else:
            self._more += 1

    def all(self) -> tuple[str, ...]:
        """Everything that was remembered."""
        more = (f"… and {self._more} more warnings",) if self._more else ()
        return (*self._sentences, *more)


def check_ids(entry: Entry) -> None:
    """Check that its owners can be.

    Raises:
        MalformedDiffError: they cannot.
    """
    if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
        raise MalformedDiffError(
            f"its owner is {entry.uid}:{entry.gid}, which no file can have", entry=entry.name
        )


def wanted_xattrs(entry: Entry, warnings: Warnings) -> Mapping[bytes, bytes] | None:
    """The attributes that a layer may carry: not overlay's own, which tell of a place in a
    stack.
    """
    if not entry.xattrs:
        return None
    wanted = {}
    for name, value in entry.xattrs.items():
        if name.startswith(OVERLAYS_OWN):
            warnings.add(entry, f"the attribute {name.decode(errors='replace')} was dropped")
        else:
            wanted[name] = value
    return wanted or None


def set_file_metadata(fd: int, entry: Entry, warnings: Warnings) -> None:
    """Give the new file *fd* what *entry* says."""
    os.fchown(fd, entry.uid, entry.gid)  # also 0:0: a setgid directory passes its group on
    if entry.xattrs:
        _set_around_mode(fd, entry, wanted_xattrs(entry, warnings), warnings)
    else:
        os.fchmod(fd, entry.mode)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))


def _set_around_mode(
    fd: int, entry: Entry, xattrs: Mapping[bytes, bytes] | None, warnings: Warnings
) -> None:
    names = sorted(xattrs or (), reverse=True)  # system.… before security.capability
    for name in names:
        if not name.startswith(_LATE):
            set_xattr(fd, name, entry, warnings)
    os.fchmod(fd, entry.mode)
    for name in names:
        if name.startswith(_LATE):
            set_xattr(fd, name, entry, warnings)


def set_special_metadata(parent_fd: int, name: bytes, entry: Entry, warnings: Warnings) -> None:
    """Give the new symlink, device or fifo *name* what *entry* says."""
    os.chown(name, entry.uid, entry.gid, dir_fd=parent_fd, follow_symlinks=False)
    if entry.type != b"2":
        tree.set_mode(parent_fd, name, entry.mode)  # mknod applied the umask
    for attribute in wanted_xattrs(entry, warnings) or ():
        # No xattr call takes a directory and a name; through /proc it stays the opened one.
        set_xattr(b"/proc/self/fd/%d/%s" % (parent_fd, name), attribute, entry, warnings)
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)


def set_xattr(path: int | bytes, name: bytes, entry: Entry, warnings: Warnings) -> None:
    """Give an open file, or what a path means without following it, one attribute of *entry*.

    Raises:
        MalformedDiffError: it has no room, or cannot be.
    """
    assert entry.xattrs is not None
    value = entry.xattrs[name]
    try:
        if isinstance(path, int):
            os.setxattr(path, name, value)
        else:
            os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        shown = name.decode(errors="backslashreplace")
        if error.errno in _LOST:
            warnings.add(entry, f"the attribute {shown} was lost: {error.strerror}")
            return
        # A full disk says ENOSPC too; that is for the caller, who may make room.
        if error.errno == errno.ENOSPC and not _has_room(path):
            raise
        raise MalformedDiffError(
            f"its attribute {shown} of {len(value)} bytes cannot be set on this filesystem:"
            f" {error.strerror}",
            entry=entry.name,
        ) from error


def _has_room(path: int | bytes) -> bool:
    space = os.statvfs(path if isinstance(path, int) else os.path.dirname(path))
    return space.f_bavail * space.f_frsize > _MOST_OF_XATTRS


def set_directory_metadata(fd: int, wanted: Metadata, entry: Entry, warnings: Warnings) -> None:
    """Give the directory *fd* exactly what is *wanted*: attributes of another origin go.

    Args:
        entry: for messages.
    """
    os.fchown(fd, wanted.uid, wanted.gid)
    for name in _xattr_names(fd):
        raw = os.fsencode(name)
        # The whiteout format's own mark stays: it was just set.
        if raw not in (wanted.xattrs or ()) and not raw.startswith(OVERLAYS_OWN):
            _remove_xattr(fd, name)
    if wanted.xattrs:
        entry.xattrs = dict(wanted.xattrs)
        entry.mode = wanted.mode
        _set_around_mode(fd, entry, wanted.xattrs, warnings)
    else:
        os.fchmod(fd, wanted.mode)
    os.utime(fd, ns=(wanted.mtime_ns, wanted.mtime_ns))


def _remove_xattr(fd: int, name: str) -> None:
    try:
        os.removexattr(fd, name)
    except OSError as error:
        # Some show attributes that are no one's to remove (security.selinux, xfs's ACL twins).
        if error.errno not in (*_LOST, errno.ENODATA, errno.EINVAL):
            raise


def _xattr_names(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []


def read_metadata(fd: int) -> Metadata:
    """What the directory *fd* has."""
    status = os.fstat(fd)
    xattrs = {
        os.fsencode(name): os.getxattr(fd, name)
        for name in _xattr_names(fd)
        if not os.fsencode(name).startswith((*OVERLAYS_OWN, b"trusted.SGI_ACL_"))
    }
    mode = status.st_mode & 0o7777
    return Metadata(mode, status.st_uid, status.st_gid, status.st_mtime_ns, xattrs or None)
