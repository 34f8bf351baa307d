"""Proves that two files have the same bytes, because they are the same bytes on the disk.

Of a btrfs snapshot and of a reflinked copy nearly all is shared with the source; telling that takes
microseconds, however large a file is. Whatever is no proof counts as none.
"""

from __future__ import annotations

import os
import struct

from storagedrivers.linux.ioctl import ioctl

_FS_IOC_FIEMAP = 0xC020660B
_BTRFS_IOC_FS_INFO = 0x8400941F
_FLAG_SYNC = 0x1
_EXTENT_LAST = 0x1
_EXTENT_MERGED = 0x1000  # says how they were found, nothing about them
_EXTENT_SHARED = 0x2000
# <linux/fiemap.h>: struct fiemap, and struct fiemap_extent without its reserved end.
_HEAD = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_MANY = 200  # extents in one call


def share_all_extents(one: int, two: int, size: int) -> bool:
    """Whether the open files *one* and *two*, both of *size* bytes, are known to share them all.

    What is dirty of files that share something is written to the disk.
    """
    try:
        if not _share_first(one) or not _on_same_filesystem(one, two):
            return False
        at = 0
        while at < size:
            end = _common_end(_extents(one, at), _extents(two, at))
            if end is None:
                return False
            at = end
        return True
    except OSError:  # no FIEMAP here (tmpfs), or for these files
        return False


def _on_same_filesystem(one: int, two: int) -> bool:
    if os.fstat(one).st_dev == os.fstat(two).st_dev:
        return True
    return _btrfs_id(one) == _btrfs_id(two)  # each subvolume has a device number of its own


def _btrfs_id(fd: int) -> bytes:
    info = bytearray(1024)
    ioctl(fd, _BTRFS_IOC_FS_INFO, info)
    return bytes(info[16:32])


def _share_first(fd: int) -> bool:
    """Whether the first extent is shared with anything; nothing is flushed to find out."""
    found = _fiemap(fd, 0, 0, 1)
    return bool(found) and bool(found[0][3] & _EXTENT_SHARED)


def _extents(fd: int, start: int) -> list[tuple[int, int, int, int]]:
    # Without the flag, what is dirty above an extent would not be seen.
    return _fiemap(fd, start, _FLAG_SYNC, _MANY)


def _fiemap(fd: int, start: int, flags: int, count: int) -> list[tuple[int, int, int, int]]:
    """Logical and physical offset, length and flags of the extents from *start* on."""
    buffer = bytearray(_HEAD.size + count * _EXTENT.size)
    _HEAD.pack_into(buffer, 0, start, (1 << 63) - 1 - start, flags, 0, count, 0)
    ioctl(fd, _FS_IOC_FIEMAP, buffer)
    mapped = _HEAD.unpack_from(buffer)[3]
    return [
        _EXTENT.unpack_from(buffer, _HEAD.size + number * _EXTENT.size) for number in range(mapped)
    ]


def _common_end(
    one: list[tuple[int, int, int, int]], two: list[tuple[int, int, int, int]]
) -> int | None:
    """Until where the two are the same; None where they differ, or could.

    Compressed extents are never the same: FIEMAP does not say which part of one a file has. Inline
    and not yet written ones are not shared.
    """
    if not one or one != two:
        return None
    wanted = _EXTENT_SHARED
    if any(flags & ~(_EXTENT_LAST | _EXTENT_MERGED) != wanted for *_, flags in one):
        return None
    logical, _, length, flags = one[-1]
    return 1 << 63 if flags & _EXTENT_LAST else logical + length
