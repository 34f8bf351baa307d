"""Writes a layer's canonical diff, as ``docs/canonical-diff.md`` has it to the byte.

The same changes give the same tar under every driver: entries in one order, whiteouts of single
names, PAX headers where ustar does not do. Nothing is held in memory but what names hard links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from typing import NamedTuple

from storagedrivers.archive.changes import Difference, differences
from storagedrivers.archive.compare import attributes, attributes_at, has_holes, open_file
from storagedrivers.archive.entries import KINDS, FirstNames, check_attributes
from storagedrivers.archive.output import Write
from storagedrivers.archive.whiteouts import PREFIX
from storagedrivers.archive.writer import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Header,
    TarWriter,
)
from storagedrivers.errors import UnrepresentableError
from storagedrivers.model import ChangeKind, WhiteoutFormat


class Packed(NamedTuple):
    """What went into a tar: bytes of the contents of regular files, and how many inodes."""

    size: int
    inodes: int


_SECOND = 1_000_000_000
_MAX_DEVICE = 8**7 - 1


def pack(
    upper_fd: int,
    lower_fd: int | None,
    whiteouts: WhiteoutFormat | None,
    write: Write,
    *,
    source_date_epoch: int | None = None,
    unseen: Collection[bytes] = (),
) -> Packed:
    """Write the tar of what a layer changes.

    Args:
        upper_fd: an open directory: a changeset where *whiteouts* says its format; else a tree with
            all that the layer shows.
        lower_fd: the merged view of the layers below, or None where there are none.
        whiteouts: the changeset's format.
        write: takes the tar, in pieces of about a MiB.
        source_date_epoch: later times of modification become this one, in seconds.
        unseen: paths of the lower that are no part of it for whoever gets the tar: to delete one is
            no change.

    Raises:
        UnrepresentableError: a change that no layer's tar can carry; names it.
        DiffError: a file became shorter while it was read.
        OSError: what the kernel says.
    """
    packer = _Packer(TarWriter(write), source_date_epoch)
    for found in differences(upper_fd, lower_fd, whiteouts):
        if found.kind is not ChangeKind.DELETED or found.path not in unseen:
            packer.add(found)
    packer.finish()
    return Packed(packer.size, packer.inodes)


class _Packer:
    def __init__(self, writer: TarWriter, source_date_epoch: int | None) -> None:
        self._writer = writer
        self._latest = None if source_date_epoch is None else source_date_epoch * _SECOND
        self._first_names = FirstNames()
        self.size = 0
        self.inodes = 0

    def finish(self) -> None:
        """Write the end of the tar."""
        self._writer.finish()

    def add(self, found: Difference) -> None:
        """Write one entry."""
        directory, _, name = found.path.rpartition(b"/")
        if name.startswith(PREFIX):
            raise UnrepresentableError(
                "a name that begins with .wh. means a deletion in a layer's tar",
                entry=found.path,
                resolution="rename it in the container",
            )
        status = found.status
        if status is None:
            slash = b"/" if directory else b""
            self._writer.header(Header(directory + slash + PREFIX + name, REGULAR))
        elif stat.S_ISDIR(status.st_mode):
            path = found.path + b"/" if found.path else b"./"
            self._write(path, found, status, found.xattrs or {})
        elif stat.S_ISREG(status.st_mode):
            self._add_file(found, status)
        else:
            xattrs = attributes_at(found.directory, found.name)
            first = self._first_names.of(found.path, status)
            self._write(found.path, found, status, xattrs, first)

    def _add_file(self, found: Difference, status: os.stat_result) -> None:
        fd = open_file(found.directory, found.name)
        try:
            first = self._first_names.of(found.path, status)
            self._write(found.path, found, status, attributes(fd), first)
            if status.st_size and not first:
                self._writer.payload(fd, status.st_size, found.path, holes=has_holes(status))
        finally:
            os.close(fd)

    def _write(
        self,
        path: bytes,
        found: Difference,
        status: os.stat_result,
        xattrs: dict[bytes, bytes],
        first_name: bytes = b"",
    ) -> None:
        """Write a header; a hard link's has all metadata too, since some who read it set them."""
        mode = status.st_mode
        kind, link, major, minor, size = KINDS[stat.S_IFMT(mode)], first_name, 0, 0, 0
        if first_name:
            kind = HARD_LINK
        elif kind == REGULAR:
            size = status.st_size
            self.size += size
        elif kind == SYMLINK:
            link = os.readlink(found.name, dir_fd=found.directory)
        elif kind in (CHARACTER_DEVICE, BLOCK_DEVICE):
            major, minor = _device(found.path, kind, status)
        if xattrs:
            check_attributes(found.path, xattrs, "in the container")
        self.inodes += not first_name
        self._writer.header(
            Header(
                path,
                kind,
                0o777 if stat.S_ISLNK(mode) else stat.S_IMODE(mode),
                status.st_uid,
                status.st_gid,
                size,
                self._mtime(status),
                link,
                major,
                minor,
                xattrs,
            )
        )

    def _mtime(self, status: os.stat_result) -> int:
        if self._latest is None:
            return status.st_mtime_ns
        return min(status.st_mtime_ns, self._latest)


def _device(path: bytes, kind: bytes, status: os.stat_result) -> tuple[int, int]:
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    if kind == CHARACTER_DEVICE and major == minor == 0:
        raise UnrepresentableError(
            "a character device 0:0 means a deletion in a layer",
            entry=path,
            resolution="remove it in the container",
        )
    if max(major, minor) > _MAX_DEVICE:
        raise UnrepresentableError(
            f"a tar cannot say the device number {major}:{minor}",
            entry=path,
            resolution="remove it in the container",
        )
    return major, minor
