"""Applies a layer's tar to a directory.

What an unusual tar means is decided once, for every driver, as this table has it; ``lower`` is the
merged view of the layers below.

==========================================  =======================================================
a parent that no entry made                 made with the lower's metadata, else 0755 0:0
a parent that is a symlink of the layer     followed, inside of the layer's root
a parent that is a symlink of the lower     replaced by a directory
a path twice                                the last one
a hard link                                 to what the layer has so far, else to the lower's file,
                                            which is copied up; whiteouts do not matter
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

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from storagedrivers.archive.header import Entry
from storagedrivers.archive.kept import KeptWriter
from storagedrivers.archive.merge import Deletions, merge, write_whiteouts
from storagedrivers.archive.metadata import (
    Metadata,
    Warnings,
    check_ids,
    read_metadata,
    set_directory_metadata,
    set_file_metadata,
    set_special_metadata,
    wanted_xattrs,
)
from storagedrivers.archive.places import DISTRUST, Lower, Places, components, join
from storagedrivers.archive.reader import Reader
from storagedrivers.archive.source import Source
from storagedrivers.errors import (
    DiffError,
    DigestMismatchError,
    MalformedDiffError,
    UnsafeEntryError,
)
from storagedrivers.linux import copy, namespace, syscalls, tree
from storagedrivers.model import Limits, Unpacked, WhiteoutFormat

_STAGING = b".storagedrivers-unpack-"
_WHITEOUT = b".wh."
_META = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1  # of mknod(2) on Linux
_REGULAR = b"07\0S"
_IGNORED = b"V"  # a volume's label
_ENTRYS_FAULT = (errno.EINVAL, errno.ENAMETOOLONG, errno.EOVERFLOW, errno.ERANGE, errno.EMLINK)


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

    Raises:
        DiffError: the tar is damaged, hostile, too big or another one; the entry is named.
        OSError: what the filesystem or the stream says. What was written until then stays, for the
            caller to remove.
    """
    limits = limits or Limits()
    source = Source(stream, max_bytes=limits.bytes)
    writer = None
    whole = False
    try:
        writer = KeptWriter(kept) if kept is not None else None
        with _Target(target_fd, lower_fd, whiteouts) as target:
            layer = _Layer(target, _Progress(source, progress), writer, limits.entries)
            layer.unpack()
            found_diff_id, found_digest = source.digests()
            _expect("the uncompressed tar", diff_id, found_diff_id)
            _expect("the tar as it came", digest, found_digest)
            target.finish(layer.deletions, layer.directories, layer.warnings)
            whole = True
        return Unpacked(
            diff_id=found_diff_id,
            diff_size=source.size,
            digest=found_digest,
            stored_size=source.stored_size,
            compression=source.compression,
            size=layer.size,
            inodes=layer.inodes,
            warnings=layer.warnings.all(),
        )
    finally:
        source.close()
        if writer is not None:
            writer.close(whole=whole)


def _expect(what: str, expected: str | None, found: str) -> None:
    if expected is not None and expected != found:
        raise DigestMismatchError(what, expected=expected, found=found)


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
        for path in reversed(directories):
            entry.name = path
            with tree.opened_below(self._target_fd, os.fsdecode(path)) as fd:
                set_directory_metadata(fd, directories[path], entry, warnings)


class _Layer:
    """The entries of one tar on their way into one directory."""

    def __init__(
        self, target: _Target, pieces: _Progress, kept: KeptWriter | None, max_entries: int
    ) -> None:
        self._lower = target.lower
        self._kept = kept
        self._reader = Reader(
            pieces, literal=kept.literal if kept else _ignore, max_entries=max_entries
        )
        self._places = Places(
            target.top, target.lower, make=self._make_implied, discard=self._discard
        )
        self._top = target.top
        self._without_payload: set[bytes] = set()  # files whose bytes came with another name
        self._entry = Entry()
        self.deletions = Deletions(self._places, target.lower)
        self.directories: dict[bytes, Metadata] = {}
        self.warnings = Warnings()
        self.size = 0
        self.inodes = 1  # the root

    def unpack(self) -> None:
        """Make everything but the deletions and the directories' metadata."""
        try:
            for entry in self._reader.entries():
                self._entry = entry
                try:
                    self._apply(entry)
                except DiffError as error:
                    if error.entry is not None:
                        raise
                    raise type(error)(
                        error.brief, entry=entry.name, resolution=error.resolution
                    ) from error
                except (ValueError, OverflowError) as error:
                    raise MalformedDiffError(str(error), entry=entry.name) from error
                except OSError as error:
                    if (fault := self._fault(entry, error)) is None:
                        raise
                    raise fault from error
        finally:
            self._places.close()

    @staticmethod
    def _fault(entry: Entry, error: OSError) -> DiffError | None:
        """What the entry asks for that cannot be; None where it is not the entry's fault."""
        if error.errno in _ENTRYS_FAULT:
            return MalformedDiffError(f"it cannot be made: {error.strerror}", entry=entry.name)
        if error.errno == errno.EPERM and os.geteuid() != 0:
            return DiffError(
                f"this user may not make it with owner {entry.uid}:{entry.gid}",
                entry=entry.name,
                resolution="run as root, or in a user namespace that maps the owners of the layer",
            )
        return None

    def _apply(self, entry: Entry) -> None:
        kind = entry.type
        base = entry.name.rstrip(b"/").rpartition(b"/")[2]
        if base.startswith(_WHITEOUT):
            self._note_whiteout(entry.name, base)
            return
        if kind in _REGULAR and not (kind == b"\0" and entry.name.endswith(b"/")):
            self._make_file(entry)
        elif kind in (b"5", b"D", b"\0"):
            self._make_directory(entry)
        elif kind == b"1":
            self._make_link(entry)
        elif kind in b"2346":
            self._make_special(entry)
        elif kind not in _IGNORED:
            raise MalformedDiffError(f"its type {repr(kind)[1:]} is unknown", entry=entry.name)

    # Files

    def _make_file(self, entry: Entry) -> None:
        check_ids(entry)
        parent, directory, name = self._place(entry)
        try:
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(entry, directory, name)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            if entry.size:
                if self._kept is not None:
                    parts = [(0, entry.size)] if entry.sparse is None else entry.sparse
                    self._kept.payload(join(directory, name), parts)
                self._reader.copy_payload(fd)
            elif entry.real_size:  # nothing but a hole
                os.ftruncate(fd, entry.real_size)
            set_file_metadata(fd, entry, self.warnings)
        finally:
            os.close(fd)
        self.size += entry.real_size
        self.inodes += 1

    def _place(self, entry: Entry) -> tuple[int, bytes, bytes]:
        """Where an entry is made that cannot be the root."""
        parent, directory, name = self._places.parent(entry.name.rstrip(b"/") or b".")
        if not name:
            raise UnsafeEntryError(
                "it would replace the layer's root", entry=entry.name, resolution=DISTRUST
            )
        return parent, directory, name

    def _clear(self, entry: Entry, directory: bytes, name: bytes) -> int:
        """Take away what an earlier entry made at the same place; the parent, opened anew."""
        parent, _ = self._places.directory(components(directory))
        self._discard(parent, name, join(directory, name))
        return self._places.directory(components(directory))[0]

    def _make_special(self, entry: Entry) -> None:
        check_ids(entry)
        if entry.type in b"34" and not self._can_be_made(entry):
            return
        parent, directory, name = self._place(entry)
        try:
            self._make_node(entry, parent, name)
        except FileExistsError:
            parent = self._clear(entry, directory, name)
            self._make_node(entry, parent, name)
        set_special_metadata(parent, name, entry, self.warnings)
        self.inodes += 1

    def _can_be_made(self, entry: Entry) -> bool:
        if not (0 <= entry.major <= _MAX_MAJOR and 0 <= entry.minor <= _MAX_MINOR):
            raise MalformedDiffError(
                f"its device number {entry.major}:{entry.minor} is out of range", entry=entry.name
            )
        if entry.type == b"3" and entry.major == entry.minor == 0:
            self.warnings.add(entry, "a device 0:0 was left out: it would be a whiteout")
            return False
        if not namespace.has_capability(syscalls.CAP_MKNOD):
            self.warnings.add(entry, "a device was left out: this process may make none")
            return False
        return True

    @staticmethod
    def _make_node(entry: Entry, parent: int, name: bytes) -> None:
        if entry.type == b"2":
            if not entry.link:
                raise MalformedDiffError("a symlink without a target", entry=entry.name)
            os.symlink(entry.link, name, dir_fd=parent)
            return
        kind = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}[entry.type]
        device = os.makedev(entry.major, entry.minor) if entry.type != b"6" else 0
        os.mknod(name, kind | 0o600, device, dir_fd=parent)

    # Directories

    def _make_directory(self, entry: Entry) -> None:
        check_ids(entry)
        metadata = Metadata(
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns,
            wanted_xattrs(entry, self.warnings),
        )
        parent, directory, name = self._places.parent(entry.name.rstrip(b"/") or b".")
        path = join(directory, name) if name else directory
        if name and path not in self.directories:
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                parent = self._clear(entry, directory, name)
                os.mkdir(name, 0o700, dir_fd=parent)
            self.inodes += 1
        self.directories[path] = metadata

    def _make_implied(self, parent: int, name: bytes, path: bytes) -> None:
        """Make a directory that has no entry, or none yet."""
        metadata = self._lower.metadata(path)
        if metadata is None:
            metadata = Metadata(0o755, 0, 0, self._entry.mtime_ns)
        os.mkdir(name, 0o700, dir_fd=parent)
        self.directories[path] = metadata
        self.inodes += 1

    def _discard(self, parent: int, name: bytes, path: bytes) -> None:
        """Remove what an earlier entry made, keeping payloads that the tar must give back."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            parent = os.dup(parent)
            try:
                self._places.forget()
                with tree.opened_directory(os.fsdecode(name), dir_fd=parent) as fd:
                    self._keep_payloads_below(fd, path)
                tree.remove_tree(parent, os.fsdecode(name))
            finally:
                os.close(parent)
            prefix = path + b"/"
            for one in [one for one in self.directories if one == path or one.startswith(prefix)]:
                del self.directories[one]
            return
        if stat.S_ISLNK(status.st_mode):
            self._places.forget_symlinks()
        self._keep_payload(parent, name, path, status)
        os.unlink(name, dir_fd=parent)

    def _keep_payloads_below(self, top: int, path: bytes) -> None:
        pending = [b""]
        while pending:
            directory = pending.pop()
            with tree.opened_below(top, os.fsdecode(directory)) as fd:
                for name in map(os.fsencode, os.listdir(fd)):
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    below = join(directory, name)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(below)
                        self.inodes -= 1
                    else:
                        self._keep_payload(fd, name, join(path, below), status)
        self.inodes -= 1

    def _keep_payload(self, parent: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        if status.st_nlink == 1:
            self.inodes -= 1
            if stat.S_ISREG(status.st_mode):
                self.size -= status.st_size
        if path in self._without_payload:
            self._without_payload.discard(path)
        elif self._kept is not None and stat.S_ISREG(status.st_mode) and status.st_size:
            with _opened_file(parent, name) as fd:
                self._kept.replaced(path, fd)

    # Hard links

    def _make_link(self, entry: Entry) -> None:
        if not entry.link:
            raise MalformedDiffError("a hard link without a target", entry=entry.name)
        parts = components(entry.link)
        _, directory, name = self._place(entry)
        path = join(directory, name)
        target = self._places.find(parts, through_lower_symlinks=True) if parts else None
        if target == path:
            raise MalformedDiffError("a hard link to itself", entry=entry.name)
        status = self._places.status(target) if target is not None else None
        if target is not None and status is None:
            status = self._copy_up(target)
        if target is None or status is None:
            raise MalformedDiffError(
                f"a hard link to {repr(entry.link)[1:]}, which is not there yet", entry=entry.name
            )
        if stat.S_ISDIR(status.st_mode):
            raise MalformedDiffError(
                f"a hard link to the directory {repr(entry.link)[1:]}", entry=entry.name
            )
        self._link(entry, target, status, directory, name)

    def _link(
        self, entry: Entry, target: bytes, status: os.stat_result, directory: bytes, name: bytes
    ) -> None:
        path = join(directory, name)
        there = self._places.status(path)
        if there is not None:
            if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
                return  # said twice
            self._clear(entry, directory, name)
        parent, _ = self._places.directory(components(directory))
        source_directory, _, source = target.rpartition(b"/")
        try:
            with tree.opened_below(self._top, os.fsdecode(source_directory)) as fd:
                os.link(source, name, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:  # clearing the place took it away
            raise MalformedDiffError(
                f"a hard link to {repr(entry.link)[1:]}, which it replaces", entry=entry.name
            ) from error
        self._without_payload.add(path)

    def _copy_up(self, path: bytes) -> os.stat_result | None:
        """Copy a file of the lower into the layer; None where there is none."""
        status = self._lower.status(path)
        if status is None or stat.S_ISDIR(status.st_mode):
            return status
        directory, _, name = path.rpartition(b"/")
        parent, _ = self._places.directory(components(directory))
        lower = self._lower.open_directory(directory)
        assert lower is not None
        try:
            copy.copy_entry(lower, parent, os.fsdecode(name))
        finally:
            os.close(lower)
        self._without_payload.add(path)
        self.inodes += 1
        if stat.S_ISREG(status.st_mode):
            self.size += status.st_size
        return self._places.status(path)

    # Whiteouts

    def _note_whiteout(self, name: bytes, base: bytes) -> None:
        hidden = base[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise UnsafeEntryError("a whiteout that names no file", resolution=DISTRUST)
        parts = components(name)
        parts.pop()
        if base == _OPAQUE:
            self.deletions.add_opaque(parts)
        elif not base.startswith(_META):  # those are aufs's own, and mean nothing elsewhere
            self.deletions.add(parts, hidden)


class _opened_file:  # noqa: N801 - used as a function
    """A file of the layer for the length of a ``with`` block."""

    def __init__(self, parent: int, name: bytes) -> None:
        self._fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.close(self._fd)


def _ignore(data: bytes) -> None:
    """Nothing of the tar is kept."""
