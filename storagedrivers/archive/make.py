"""Makes the entries of a layer's tar, one after the other, in one directory.

The rules are those of :mod:`storagedrivers.archive.unpack`.
"""

from __future__ import annotations

import os
import stat

from storagedrivers.archive.borrowed import Borrowed
from storagedrivers.archive.faults import fault_of
from storagedrivers.archive.header import Entry
from storagedrivers.archive.kept import KeptWriter
from storagedrivers.archive.merge import Deletions
from storagedrivers.archive.metadata import (
    Metadata,
    Warnings,
    check_ids,
    set_file_metadata,
    set_special_metadata,
    wanted_xattrs,
)
from storagedrivers.archive.places import DISTRUST, Lower, Places, components, join
from storagedrivers.archive.reader import Pieces, Reader
from storagedrivers.archive.whiteouts import META, OPAQUE, PREFIX
from storagedrivers.errors import (
    DiffError,
    DiffLimitError,
    MalformedDiffError,
    UnsafeEntryError,
)
from storagedrivers.linux import copy, namespace, syscalls, tree

_MAX_MAJOR, _MAX_MINOR = (1 << 12) - 1, (1 << 20) - 1  # of mknod(2) on Linux
_MAX_DIRECTORIES = 128 << 20  # bytes; a million directories with paths of 128
_REGULAR = b"07\0S"
_NO_DEVICES = "a device was left out: this process may make none"
_IGNORED = b"V"  # a volume's label


class LayerMaker:
    """The entries of one tar on their way into one directory.

    A subclass that makes something else (:mod:`storagedrivers.archive.expect`) replaces all that
    writes: ``_new_places``, ``_make_file``, ``_make_special``, ``_make_directory``,
    ``_make_implied``, ``_discard``, ``_link`` and ``_borrow``.

    Args:
        top: the empty directory, open.
        lower: what lies below the layer.
        pieces: the tar.
        kept: takes what the directory cannot give back.
        max_entries: how many headers are let in.

    Attributes:
        deletions: what the whiteouts said.
        directories: what each directory is to have, once nothing is made in it any more.
        warnings: what could not be kept.
        size: bytes of the contents of regular files.
        inodes: how many were made, the root among them.
    """

    def __init__(
        self, top: int, lower: Lower, pieces: Pieces, *, kept: KeptWriter | None, max_entries: int
    ) -> None:
        self._lower = lower
        self._kept = kept
        self._reader = Reader(
            pieces, literal=kept.literal if kept else _ignore, max_entries=max_entries
        )
        self._places = self._new_places(top, lower)
        self._top = top
        self._new_file = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._without_payload: set[bytes] = set()  # files whose bytes came with another name
        self._borrowed = Borrowed()
        self._directories_size = 0
        self._entry = Entry()
        self.deletions = Deletions(self._places, lower)
        self.directories: dict[bytes, Metadata] = {}
        self.warnings = Warnings()
        self.size = 0
        self.inodes = 1  # the root

    def _new_places(self, top: int, lower: Lower) -> Places:
        return Places(top, lower, make=self._make_implied, discard=self._discard)

    def make_all(self) -> None:
        """Make everything but the deletions and the directories' metadata."""
        try:
            for entry in self._reader.entries():
                self._entry = entry
                try:
                    self._apply(entry)
                except (DiffError, ValueError, OverflowError, OSError) as error:
                    if (fault := fault_of(entry, error)) is None:
                        raise
                    raise fault from error
            self._give_back()
        finally:
            self._places.close()

    def _apply(self, entry: Entry) -> None:
        kind = entry.type
        if PREFIX in entry.name and self._is_mark(entry.name):
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

    def _is_mark(self, name: bytes) -> bool:
        """Whether an entry is a whiteout, or lies in a directory of aufs's own, which means nothing
        elsewhere.
        """
        base = name.rstrip(b"/").rpartition(b"/")[2]
        if base.startswith(PREFIX):
            self._note_whiteout(name, base)
            return True
        parts = components(name)
        if any(part.startswith(META) for part in parts):
            return True
        if any(part.startswith(PREFIX) for part in parts):
            raise UnsafeEntryError("it lies in a directory with a whiteout's name")
        return False

    # Files

    def _make_file(self, entry: Entry) -> None:
        check_ids(entry)
        parent, directory, name = self._place(entry)
        try:
            fd = os.open(name, self._new_file, 0o600, dir_fd=parent)
        except FileExistsError:
            parent = self._clear(entry, directory, name)
            fd = os.open(name, self._new_file, 0o600, dir_fd=parent)
        try:
            if entry.size:
                if self._kept is not None:
                    parts = [(0, entry.size)] if entry.sparse is None else entry.sparse
                    self._reader.tell()
                    self._kept.payload(join(directory, name), parts)
                self._reader.copy_payload(fd)
            elif entry.real_size:  # nothing but a hole
                os.ftruncate(fd, entry.real_size)
                self._without_payload.add(join(directory, name))
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
            try:
                self._make_node(entry, parent, name)
            except FileExistsError:
                parent = self._clear(entry, directory, name)
                self._make_node(entry, parent, name)
        except PermissionError:
            if entry.type not in b"34":
                raise
            # The root of a user namespace has CAP_MKNOD, and mknod(2) asks for that of the first.
            self.warnings.add(entry, _NO_DEVICES)
            return
        set_special_metadata(parent, name, entry, self.warnings)
        self.inodes += 1

    def _can_be_made(self, entry: Entry) -> bool:
        if not (0 <= entry.major <= _MAX_MAJOR and 0 <= entry.minor <= _MAX_MINOR):
            raise MalformedDiffError(
                f"its device number {entry.major}:{entry.minor} is out of range", entry=entry.name
            )
        if self._is_whiteout(entry):
            self.warnings.add(entry, "a device 0:0 was left out: it would be a whiteout")
            return False
        if not namespace.has_capability(syscalls.CAP_MKNOD):
            self.warnings.add(entry, _NO_DEVICES)
            return False
        return True

    def _is_whiteout(self, entry: Entry) -> bool:
        """Whether overlay would take a device for one."""
        return entry.type == b"3" and entry.major == entry.minor == 0

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
        self._note_directory(path, metadata)

    def _make_implied(self, parent: int, name: bytes, path: bytes) -> None:
        """Make a directory that has no entry, or none yet."""
        self._note_directory(path, self._implied_metadata(path))
        os.mkdir(name, 0o700, dir_fd=parent)
        self.inodes += 1

    def _implied_metadata(self, path: bytes) -> Metadata:
        return self._lower.metadata(path) or Metadata(0o755, 0, 0, self._entry.mtime_ns)

    def _note_directory(self, path: bytes, metadata: Metadata) -> None:
        """Remember what a directory is to have, within what memory there is for it."""
        self._directories_size += len(path)
        if metadata.xattrs:
            self._directories_size += sum(map(len, metadata.xattrs.values()))
        if self._directories_size > _MAX_DIRECTORIES:
            raise DiffLimitError(
                f"paths and attributes of its directories take more than {_MAX_DIRECTORIES} bytes",
                resolution=DISTRUST,
            )
        self.directories[path] = metadata

    def _discard(self, parent: int, name: bytes, path: bytes) -> None:
        """Remove what an earlier entry made, keeping payloads that the tar must give back."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            parent = os.dup(parent)
            try:
                self._places.forget()
                with tree.opened_directory(os.fsdecode(name), dir_fd=parent) as fd:
                    self._forget_below(fd, path)
                tree.remove_tree(parent, os.fsdecode(name))
            finally:
                os.close(parent)
            return
        if stat.S_ISLNK(status.st_mode):
            self._places.forget_symlinks()
        self._keep_payload(parent, name, path, status)
        os.unlink(name, dir_fd=parent)

    def _forget_below(self, top: int, path: bytes) -> None:
        pending = [b""]
        while pending:
            directory = pending.pop()
            self.directories.pop(join(path, directory) if directory else path, None)
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
        self._borrowed.discard(status.st_ino, path)
        if path in self._without_payload:
            self._without_payload.discard(path)
        elif self._kept is not None and stat.S_ISREG(status.st_mode) and status.st_size:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self._kept.replaced(path, fd)
            finally:
                os.close(fd)

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
        own = self._places.status(target) if target is not None else None
        if target is not None and own is None:
            target, own = self._borrowed_name(target) or (target, None)
        status = own or (self._lower.status(target) if target is not None else None)
        if target is None or status is None:
            raise MalformedDiffError(
                f"a hard link to {repr(entry.link)[1:]}, which is not there yet", entry=entry.name
            )
        if stat.S_ISDIR(status.st_mode):
            raise MalformedDiffError(
                f"a hard link to the directory {repr(entry.link)[1:]}", entry=entry.name
            )
        there = self._places.status(path)
        if there is not None:
            if own is not None and os.path.samestat(there, own):
                return  # said twice
            self._clear(entry, directory, name)
        if own is not None:
            self._link(entry, target, path)
            self._borrowed.link(own.st_ino, path)
        else:
            self._borrow(target, path)
        self._without_payload.add(path)

    def _link(self, entry: Entry, target: bytes, path: bytes) -> None:
        directory, _, name = path.rpartition(b"/")
        parent, _ = self._places.directory(components(directory))
        source_directory, _, source = target.rpartition(b"/")
        try:
            with tree.opened_below(self._top, os.fsdecode(source_directory)) as fd:
                os.link(source, name, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:  # clearing the place took it away
            raise MalformedDiffError(
                f"a hard link to {repr(entry.link)[1:]}, which it replaces", entry=entry.name
            ) from error

    def _borrowed_name(self, target: bytes) -> tuple[bytes, os.stat_result] | None:
        """A name that a copy of the lower's file *target* has in the layer."""
        name = self._borrowed.name(target)
        status = self._places.status(name) if name is not None else None
        return (name, status) if name is not None and status is not None else None

    def _borrow(self, target: bytes, path: bytes) -> None:
        """Copy the lower's file *target* to *path*.

        Whether the target itself becomes a name of the copy is seen at the end, when it is known
        what the layer deletes.
        """
        directory, _, name = path.rpartition(b"/")
        parent, _ = self._places.directory(components(directory))
        lower_directory, _, lower_name = target.rpartition(b"/")
        lower = self._lower.open_directory(lower_directory)
        assert lower is not None
        try:
            copy.copy_entry(lower, os.fsdecode(lower_name), parent, os.fsdecode(name))
        finally:
            os.close(lower)
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        self._borrowed.add(target, status.st_ino, path)
        self.inodes += 1
        if stat.S_ISREG(status.st_mode):
            self.size += status.st_size

    def _give_back(self) -> None:
        """Where the target of a borrowed file is still there, make it a name of the same file."""
        for target in self._borrowed.targets():
            name = self._borrowed.name(target)
            if (
                name is not None
                and self._places.status(target) is None
                and not self.deletions.hides(target)
            ):
                self._link(self._entry, name, target)

    # Whiteouts

    def _note_whiteout(self, name: bytes, base: bytes) -> None:
        hidden = base[len(PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise UnsafeEntryError("a whiteout that names no file", resolution=DISTRUST)
        parts = components(name)
        parts.pop()
        if base == OPAQUE:
            self.deletions.add_opaque(parts)
        elif not base.startswith(META):  # those are aufs's own, and mean nothing elsewhere
            self.deletions.add(parts, hidden)


def _ignore(data: bytes) -> None:
    """Nothing of the tar is kept."""
