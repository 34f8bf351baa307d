"""Digests of the files of contexts, from build to build: what did not change is not read again.

::

    <graph root>/contexts/<hex>     of one context: the digest of what follows, then a record a file

A file counts as unchanged while its device, inode, size and times are the same. Nobody but the
kernel sets the time of its last change (ctime). One that changed shortly before it was read is not
remembered: it could change once more in the same tick of that clock, as git has it too.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from storagedrivers.build.items import Stamp

_RECORD = struct.Struct("<QQQqq32s")
_HEAD = 32  # bytes of the digest of all records
_SETTLED = 2_000_000_000  # nanoseconds after a change; FAT counts in steps of two seconds
_MOST = 200_000  # files of a context
_CONTEXTS = 32  # that are remembered: the ones built last


@contextmanager
def digests(root: str, context_fd: int) -> Iterator[dict[Stamp, str]]:
    """Have the digests of a context's files; what is added to them is remembered.

    Args:
        root: the graph root.
        context_fd: the context's directory, open.
    """
    began = time.time_ns()
    status = os.fstat(context_fd)
    directory = os.path.join(root, "contexts")
    name = hashlib.sha256(b"%d:%d" % (status.st_dev, status.st_ino)).hexdigest()
    path = os.path.join(directory, name)
    known = dict(_read(path))
    found = dict(known)
    yield found
    settled = {
        stamp: digest
        for stamp, digest in found.items()
        if stamp[0] == status.st_dev and max(stamp[3:]) < began - _SETTLED
    }
    if settled.keys() - known.keys() and len(settled) <= _MOST:
        with suppress(OSError):  # then the files are read once more
            _write(directory, path, settled)


def _read(path: str) -> Iterator[tuple[Stamp, str]]:
    try:
        with open(path, "rb") as file:
            data = file.read(_HEAD + _MOST * _RECORD.size)
    except OSError:
        return
    head, records = data[:_HEAD], data[_HEAD:]
    if len(records) % _RECORD.size or hashlib.sha256(records).digest() != head:
        return  # a power loss
    for *stamp, digest in _RECORD.iter_unpack(records):
        device, inode, size, modified, changed = stamp
        yield (device, inode, size, modified, changed), digest.hex()


def _write(directory: str, path: str, settled: dict[Stamp, str]) -> None:
    records = b"".join(_packed(settled.items()))
    os.makedirs(directory, mode=0o700, exist_ok=True)
    staged = os.path.join(directory, f".{os.urandom(8).hex()}")
    try:
        with open(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(hashlib.sha256(records).digest() + records)
        os.rename(staged, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(staged)
        raise
    _forget_oldest(directory)


def _packed(digests: Iterable[tuple[Stamp, str]]) -> Iterator[bytes]:
    for stamp, digest in digests:
        yield _RECORD.pack(*stamp, bytes.fromhex(digest))


def _forget_oldest(directory: str) -> None:
    """Remove all but the contexts that were written last; and what a killed build left."""
    with os.scandir(directory) as entries:
        found = sorted((entry.stat().st_mtime, entry.path) for entry in entries)
    for _, path in found[:-_CONTEXTS]:
        with suppress(FileNotFoundError):
            os.unlink(path)
