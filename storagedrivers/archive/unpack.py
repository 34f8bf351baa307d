"""Applies a layer's tar to a directory.

What an unusual tar means is decided once, for every driver, as this table has it; ``lower`` is the
merged view of the layers below.

==========================================  =======================================================
a parent that no entry made                 made with the lower's metadata, else 0755 0:0
a parent that is a symlink of the layer     followed, inside of the layer's root
a parent that is a symlink of the lower     replaced by a directory
a path twice                                the last one
a hard link                                 to what the layer has so far, else to the lower's file,
                                            which is copied up and stays a name of it, unless the
                                            layer deletes that
a whiteout, an opaque directory             hide the lower only, wherever in the tar they stand;
                                            those that hide nothing are left out
``..``, ``.wh.``, ``.wh..``, ``.wh...``     refused
a device 0:0, overlay's own attributes      left out, with a warning
==========================================  =======================================================

So whiteouts are collected, and written when everything else is there. For a driver without
changesets a layer above others is made in a staging directory inside of its tree, and moved into
place at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from storagedrivers.archive.header import Entry
from storagedrivers.archive.kept import KeptWriter
from storagedrivers.archive.make import LayerMaker
from storagedrivers.archive.merge import Deletions, merge, write_whiteouts
from storagedrivers.archive.metadata import (
    Metadata,
    Warnings,
    read_metadata,
    set_directory_metadata,
)
from storagedrivers.archive.places import Lower
from storagedrivers.archive.source import Source
from storagedrivers.errors import (
    DigestMismatchError,
    MalformedDiffError,
)
from storagedrivers.linux import tree
from storagedrivers.model import Limits, Unpacked, WhiteoutFormat

_STAGING = b".storagedrivers-unpack-"


def unpack(
    stream: BinaryIO,
    target_fd: int,
    *,
    lower_fd: int | None = None,
    whiteouts: WhiteoutFormat | None = None,
    kept: str | None = None,
    diff_id: str | None = None,
    digest: str | None = None,
    limits: Limits | None = None,
    progress: Callable[[int], object] | None = None,
    maker: Callable[..., LayerMaker] = LayerMaker,
) -> Unpacked:
    """Apply a tar, compressed or not.

    Args:
        stream: anything with ``read``; a pipe too.
        target_fd: an open directory: an empty changeset where *whiteouts* says its format; else a
            tree that shows the layers below, or an empty one.
        lower_fd: the merged view of the layers below, or None where there are none.
        whiteouts: the changeset's format.
        kept: a file to be made with what :func:`reassemble` needs besides the tree.
        diff_id: the digest that the uncompressed tar must have.
        digest: the digest that the bytes of *stream* must have.
        limits: what the tar may hold.
        progress: told the bytes read from *stream* so far.
        maker: what makes the entries.

    Raises:
        DiffError: the tar is damaged, hostile, too big or another one; the entry is named.
        OSError: what the filesystem or the stream says. What was written until then stays, for the
            caller to remove.
    """
    limits = limits or Limits()
    source = Source(stream, max_bytes=limits.bytes, hash_stored=digest is not None)
    writer = None
    whole = False
    try:
        writer = KeptWriter(kept) if kept is not None else None
        with _Target(target_fd, lower_fd, whiteouts) as target:
            layer = maker(
                target.top,
                target.lower,
                _Progress(source, progress),
                kept=writer,
                max_entries=limits.entries,
            )
            layer.make_all()
            digests = _checked_digests(source, diff_id, digest)
            target.finish(layer.deletions, layer.directories, layer.warnings)
            whole = True
        return _unpacked(source, digests, layer)
    finally:
        source.close()
        if writer is not None:
            writer.close(whole=whole)


def _checked_digests(
    source: Source, diff_id: str | None, digest: str | None
) -> tuple[str, str | None]:
    if not source.size:
        raise MalformedDiffError(
            "it is empty", resolution="see whether what should have written it failed"
        )
    found_diff_id, found_digest = source.digests()
    _expect("the uncompressed tar", diff_id, found_diff_id)
    _expect("the tar as it came", digest, found_digest)
    return found_diff_id, found_digest


def _unpacked(source: Source, digests: tuple[str, str | None], layer: LayerMaker) -> Unpacked:
    diff_id, digest = digests
    return Unpacked(
        diff_id=diff_id,
        diff_size=source.size,
        digest=digest,
        stored_size=source.stored_size,
        compression=source.compression,
        size=layer.size,
        inodes=layer.inodes,
        warnings=layer.warnings.all(),
    )


def _expect(what: str, expected: str | None, found: str | None) -> None:
    if expected is not None and expected != found:
        raise DigestMismatchError(
            f"{what} is {found}, and {expected} was expected", expected=expected, found=found or ""
        )


class _Progress:
    """The source's pieces, with word about each to whoever wants it."""

    def __init__(self, source: Source, tell: Callable[[int], object] | None) -> None:
        self._source = source
        self._tell = tell

    def next_piece(self) -> bytes:
        if self._tell is not None:
            self._tell(self._source.stored_size)
        return self._source.next_piece()


class _Target:
    """Where the layer's own entries are made, and how they become part of the target."""

    def __init__(
        self, target_fd: int, lower_fd: int | None, whiteouts: WhiteoutFormat | None
    ) -> None:
        self.lower = Lower(lower_fd)
        self._target_fd = target_fd
        self._format = whiteouts
        self._root = read_metadata(target_fd)
        with suppress(OSError):  # its children would inherit it; it comes back at the end
            os.removexattr(target_fd, "system.posix_acl_default")
        self._staging = b""
        self.top = target_fd
        if whiteouts is None and self.lower:
            self._staging = _STAGING + os.urandom(8).hex().encode()
            os.mkdir(self._staging, 0o700, dir_fd=target_fd)
            self.top = os.open(
                self._staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target_fd
            )

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *_: object) -> None:
        if self._staging:
            os.close(self.top)

    def finish(
        self, deletions: Deletions, directories: dict[bytes, Metadata], warnings: Warnings
    ) -> None:
        """Write or do the deletions, and give directories what they are to have."""
        if b"" not in directories:  # making things in it changed its time
            directories[b""] = self._root
        if self._staging:
            merge(self._target_fd, self.top, self._staging, deletions)
        elif self._format is not None and self.lower:
            write_whiteouts(self.top, self._format, deletions)
        entry = Entry()
        # From the last to the first: a mode may close a directory to its owner.
        with tree.Walker(self._target_fd) as walker:
            for path in sorted(directories, key=_tree_order, reverse=True):
                entry.name = path
                set_directory_metadata(walker.go(path), directories[path], entry, warnings)


def _tree_order(path: bytes) -> bytes:
    """Sorts what is in a directory right behind it."""
    return path.replace(b"/", b"\0")
