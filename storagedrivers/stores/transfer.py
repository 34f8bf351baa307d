"""Copies between two trees of which one may be changed meanwhile, by descriptors alone.

A container that runs may exchange a directory for a symlink, or a file for a device, at any moment.
So a name is opened without following it, looked at, and used as what was opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import BinaryIO

from storagedrivers.archive.compare import attributes, attributes_at, has_holes
from storagedrivers.archive.entries import KINDS
from storagedrivers.archive.faults import fault_of
from storagedrivers.archive.header import Entry
from storagedrivers.archive.metadata import (
    Metadata,
    Warnings,
    check_ids,
    read_metadata,
    set_directory_metadata,
    set_file_metadata,
    set_special_metadata,
)
from storagedrivers.archive.output import Write
from storagedrivers.archive.places import components, join
from storagedrivers.archive.reader import Reader
from storagedrivers.archive.source import Source
from storagedrivers.archive.writer import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Header,
    TarWriter,
)
from storagedrivers.errors import ContainerError, DiffError, MalformedDiffError
from storagedrivers.linux import copy, rooted, tree
from storagedrivers.model import Limits

Owner = tuple[int, int]

_NODES = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}


def open_in_root(root: int, path: str | bytes, flags: int | None = None) -> int:
    """Open *path* as if *root* were the root directory: no symlink and no ``..`` leads out.

    Args:
        root: an open directory.
        path: what to open.
        flags: those of openat2(2); by default for a directory.

    Raises:
        OSError: what the kernel says.
    """
    if flags is None:
        flags = os.O_RDONLY | os.O_DIRECTORY
    return rooted.open_in(root, path, flags)


@contextmanager
def opened_file(directory: int, name: str) -> Iterator[int]:
    """Have the regular file *name* open for reading.

    Raises:
        ContainerError: it is none any more.
    """
    fd = tree.open_regular(directory, name)
    if fd is None:
        raise ContainerError(
            f"{name!r} became something else while it was copied",
            resolution="stop the container, and try again",
        )
    try:
        yield fd
    finally:
        os.close(fd)


def _opened(top: int, path: str) -> AbstractContextManager[int]:
    """A directory of a tree in which more may be mounted."""
    return tree.opened_below(top, path, mounts=True)


def make_directory(parent: int, name: str | bytes) -> None:
    """Make a directory, unless there is one.

    Raises:
        ContainerError: something else is there.
    """
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        return
    if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        raise ContainerError(
            f"a directory cannot replace {os.fsdecode(name)!r}, which is none",
            resolution="remove it first, or copy to another place",
        )


def _refuse_directory(parent: int, name: str | bytes) -> bool:
    """Whether there is something of that name, which may be replaced by a file.

    Raises:
        ContainerError: a directory.
    """
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(status.st_mode):
        raise ContainerError(
            f"the directory {os.fsdecode(name)!r} cannot be replaced by what is none",
            resolution="remove it first, or copy to another place",
        )
    return True


class TreeCopy:
    """One copy of a tree or a file into another tree.

    Args:
        owner: of everything that is made; None where owners are kept.
    """

    def __init__(self, owner: Owner | None) -> None:
        self._owner = owner
        # By device and inode of the source: the directory that was being filled, and the path.
        self._links: dict[tuple[int, int], str] = {}

    def file(self, source: int, name: str, goal: int, new_name: str) -> None:
        """Copy what is no directory; what is there is replaced in one step."""
        exists = _refuse_directory(goal, new_name)
        made = f".storagedrivers-{os.urandom(8).hex()}" if exists else new_name
        try:
            self._copy(source, name, goal, made)
            if exists:
                os.rename(made, new_name, src_dir_fd=goal, dst_dir_fd=goal)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(made, dir_fd=goal)
            raise

    def _copy(self, source: int, name: str, goal: int, made: str) -> None:
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            with opened_file(source, name) as fd:
                copy.copy_opened(fd, goal, made)
        else:
            copy.copy_entry(source, name, goal, made)
        new = os.stat(made, dir_fd=goal, follow_symlinks=False)  # the source may be another by now
        if self._owner is not None and self._owner != (new.st_uid, new.st_gid):
            os.chown(made, *self._owner, dir_fd=goal, follow_symlinks=False)
            if not stat.S_ISLNK(new.st_mode):  # chown(2) took setuid away
                tree.set_mode(goal, made, stat.S_IMODE(new.st_mode))

    def tree(self, source: int, goal: int, *, new: bool) -> None:
        """Copy what is in the directory *source* into the directory *goal*.

        Args:
            new: the goal was made for it, and gets its metadata.
        """
        todo, done = [""], []
        while todo:
            path = todo.pop()
            done.append(path)
            with _opened(source, path) as here, _opened(goal, path) as there:
                for name in sorted(os.listdir(here)):
                    child = f"{path}/{name}" if path else name
                    if self._child(here, name, goal, there, child):
                        todo.append(child)
        for path in reversed(done):
            if path or new:
                with _opened(source, path) as here, _opened(goal, path) as there:
                    self._set_metadata(there, read_metadata(here))

    def _child(self, here: int, name: str, goal: int, there: int, path: str) -> bool:
        """Copy one name; whether it is a directory, whose content is still to come."""
        try:
            status = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            return False  # gone since it was listed
        if stat.S_ISDIR(status.st_mode):
            make_directory(there, name)
            return True
        if stat.S_ISSOCK(status.st_mode):
            return False  # of a process; nobody listens at a copy
        key = (status.st_dev, status.st_ino)
        first = self._links.get(key) if status.st_nlink > 1 else None
        if first is not None and self._link(goal, first, there, name):
            return False
        with suppress(FileNotFoundError):
            self.file(here, name, there, name)
            self._links[key] = path
        return False

    @staticmethod
    def _link(goal: int, first: str, there: int, name: str) -> bool:
        """Whether it could be made: not where something else is mounted."""
        directory, _, first_name = first.rpartition("/")
        if _refuse_directory(there, name):
            os.unlink(name, dir_fd=there)
        try:
            with _opened(goal, directory) as fd:
                os.link(first_name, name, src_dir_fd=fd, dst_dir_fd=there, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
        return True

    def _set_metadata(self, fd: int, metadata: Metadata) -> None:
        if self._owner is not None:
            metadata = metadata._replace(uid=self._owner[0], gid=self._owner[1])
        set_directory_metadata(fd, metadata, Entry(), Warnings())


# A tar that comes in


class Extraction:
    """The entries of a tar on their way into a directory of a container.

    Symlinks on the way are followed as the container would, those that the tar brings too.

    Args:
        root: the container's root directory, open.
        directory: a path in it.
        owner: of everything that is made; None where owners are the tar's.
    """

    def __init__(self, root: int, directory: bytes, owner: Owner | None) -> None:
        self._root = root
        self._directory = directory
        self._owner = owner
        self._directories: dict[bytes, Metadata] = {}
        self._warnings = Warnings()

    def run(self, stream: BinaryIO) -> tuple[str, ...]:
        """Make everything; returns warnings.

        Raises:
            DiffError: the tar is damaged, hostile or too big; the entry is named.
            ContainerError: a file is in the way of a directory, or the other way round.
        """
        limits = Limits()
        source = Source(stream, max_bytes=limits.bytes, hash_stored=False)
        try:
            reader = Reader(source, literal=_ignore, max_entries=limits.entries)
            for entry in reader.entries():
                try:
                    self._make(entry, reader)
                except (DiffError, ValueError, OverflowError, OSError) as error:
                    if (fault := fault_of(entry, error)) is None:
                        raise
                    raise fault from error
        finally:
            source.close()
        for path in sorted(self._directories, reverse=True):
            try:
                fd = open_in_root(self._root, self._path(path))
            except (FileNotFoundError, NotADirectoryError):
                continue  # it is none any more
            try:
                set_directory_metadata(fd, self._directories[path], Entry(), self._warnings)
            finally:
                os.close(fd)
        return self._warnings.all()

    def _path(self, path: bytes) -> bytes:
        return join(self._directory, path) if path else self._directory

    def _make(self, entry: Entry, reader: Reader) -> None:
        if entry.type == b"V":  # a volume's label
            return
        parts = self._parts(entry.name)
        if self._owner is not None:
            entry.uid, entry.gid = self._owner
        check_ids(entry)
        if entry.type == b"5":
            fd = self._made_directory(parts)
            os.close(fd)
            metadata = Metadata(entry.mode, entry.uid, entry.gid, entry.mtime_ns, entry.xattrs)
            self._directories[b"/".join(parts)] = metadata
            return
        if not parts:
            raise MalformedDiffError("it has no name", entry=entry.name)
        name = parts[-1]
        parent = self._opened_directory(parts[:-1])
        try:
            self._clear(parent, name)
            self._make_file(entry, reader, parent, name)
        finally:
            os.close(parent)

    # What another kind of extraction does otherwise

    def _parts(self, name: bytes) -> list[bytes]:
        """The names in a path of the tar."""
        return components(name)

    def _made_directory(self, parts: list[bytes]) -> int:
        """The directory of an entry."""
        return self._opened_directory(parts)

    def _clear(self, parent: int, name: bytes) -> None:
        """Make way for a file."""
        if _refuse_directory(parent, name):
            os.unlink(name, dir_fd=parent)

    def _make_file(self, entry: Entry, reader: Reader, parent: int, name: bytes) -> None:
        if entry.type == b"1":
            self._link(entry, parent, name)
        elif entry.type == b"2":
            os.symlink(entry.link, name, dir_fd=parent)
            set_special_metadata(parent, name, entry, self._warnings)
        elif entry.type in _NODES:
            device = os.makedev(entry.major, entry.minor) if entry.type != b"6" else 0
            os.mknod(name, _NODES[entry.type] | 0o600, device, dir_fd=parent)
            set_special_metadata(parent, name, entry, self._warnings)
        elif entry.type in b"07\0S":
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=parent)
            try:
                reader.copy_payload(fd)
                set_file_metadata(fd, entry, self._warnings)
            finally:
                os.close(fd)
        else:
            raise MalformedDiffError(f"its type is {entry.type!r}", entry=entry.name)

    def _link(self, entry: Entry, parent: int, name: bytes) -> None:
        target = self._parts(entry.link)
        if not target:
            raise MalformedDiffError("a hard link to the directory itself", entry=entry.name)
        try:
            fd = open_in_root(self._root, self._path(b"/".join(target[:-1])))
        except FileNotFoundError as error:
            raise MalformedDiffError("a hard link to nothing", entry=entry.name) from error
        try:
            os.link(target[-1], name, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError as error:
            raise MalformedDiffError("a hard link to nothing", entry=entry.name) from error
        finally:
            os.close(fd)

    def _opened_directory(self, parts: list[bytes]) -> int:
        """A directory, made where it is missing."""
        there, fd = len(parts), self._opened_if_there(parts)
        while fd is None:
            there -= 1
            fd = self._opened_if_there(parts[:there])
        for name in parts[there:]:
            there += 1
            try:
                with suppress(FileExistsError):  # a symlink that leads nowhere: opening it says so
                    os.mkdir(name, 0o755, dir_fd=fd)
            finally:
                os.close(fd)
            fd = open_in_root(self._root, self._path(b"/".join(parts[:there])))
        return fd

    def _opened_if_there(self, parts: list[bytes]) -> int | None:
        path = self._path(b"/".join(parts))
        try:
            return open_in_root(self._root, path)
        except FileNotFoundError:
            if not parts:
                raise
            return None
        except NotADirectoryError as error:
            raise ContainerError(
                f"{os.fsdecode(path)!r} is no directory, and the tar has something in it",
                resolution="remove it first, or unpack the tar elsewhere",
            ) from error


def _ignore(data: bytes) -> None:
    return None


# A tar that goes out


class TarCopy:
    """A tree or a file as a tar, with its owners."""

    def __init__(self, write: Write) -> None:
        self._writer = TarWriter(write)
        self._links: dict[tuple[int, int], bytes] = {}

    def file(self, source: int, name: str, path: bytes) -> None:
        """What is no directory, as *path*."""
        try:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            return
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:  # a socket
            return
        header = _header(path, kind, status)
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._links:
            self._writer.header(header._replace(type=HARD_LINK, link=self._links[key]))
            return
        self._links[key] = path
        if kind == REGULAR:
            with opened_file(source, name) as fd:
                opened = os.fstat(fd)
                header = _header(path, kind, opened)
                self._writer.header(header._replace(size=opened.st_size, xattrs=attributes(fd)))
                self._writer.payload(fd, opened.st_size, path, holes=has_holes(opened))
            return
        xattrs = attributes_at(source, os.fsencode(name))
        link = os.fsencode(os.readlink(name, dir_fd=source)) if kind == SYMLINK else b""
        self._writer.header(header._replace(xattrs=xattrs, link=link))

    def tree(self, source: int, path: bytes) -> None:
        """The directory *source* and what is in it, below *path*."""
        todo = [b""]
        while todo:
            below = todo.pop()
            with _opened(source, os.fsdecode(below)) as here:
                name = join(path, below) if below else path
                header = _header(name + b"/", DIRECTORY, os.fstat(here))
                self._writer.header(header._replace(xattrs=attributes(here)))
                directories = []
                for child in sorted(map(os.fsencode, os.listdir(here))):
                    if _is_directory(here, child):
                        directories.append(join(below, child))
                    else:
                        self.file(here, os.fsdecode(child), join(name, child))
                todo += reversed(directories)

    def finish(self) -> None:
        """Write the end."""
        self._writer.finish()


def _header(path: bytes, kind: bytes, status: os.stat_result) -> Header:
    device = kind in (CHARACTER_DEVICE, BLOCK_DEVICE)
    return Header(
        path,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        mtime_ns=status.st_mtime_ns,
        major=os.major(status.st_rdev) if device else 0,
        minor=os.minor(status.st_rdev) if device else 0,
    )


def _is_directory(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
