"""Reads a tree that is copied, and knows by a digest whether it is one that was copied before.

Every file is opened once, but for those that an earlier build knows, see
:mod:`storagedrivers.build.remembered`: a small one is kept in memory until it is written, a large
one is hashed beside the walk, in a second thread. Whatever has become another thing since its name
was read is not followed, opened as what it was, or taken: it is an error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from storagedrivers.archive.compare import open_file
from storagedrivers.build.items import KINDS, Item, Rules, Stamp, Tree, changed, stamp_of
from storagedrivers.errors import BuildError
from storagedrivers.linux import copy, tree

if TYPE_CHECKING:
    from storagedrivers.build.ignore import Ignore

_SMALL = 64 << 10  # bytes that are read in one go and kept
_KEPT = 32 << 20  # bytes that are kept of all files
_CHUNK = 1 << 20  # bytes
_CAPABILITY = "security.capability"
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE)
_PREFIX = ".wh."


class Walk:
    """Reads what is copied from one origin.

    Args:
        root: its root, open.
        ignore: what is left out of it.
        rules: what copies get.
        digests: of files that were read before; those that are read now are added.
    """

    def __init__(
        self, root: int, ignore: Ignore | None, rules: Rules, digests: dict[Stamp, str]
    ) -> None:
        self._root = root
        self._ignore = ignore
        self._rules = rules
        self._digests = digests
        self._kept = 0
        self._links: dict[tuple[int, int], str] = {}
        self._helper: copy.Helper | None = None

    def finish(self) -> None:
        """Wait for the digests of large files; to be called in any case."""
        if self._helper is not None:
            helper, self._helper = self._helper, None
            helper.finish()

    def file(self, fd: int, path: str) -> Tree:
        """Read one thing that is no directory, and no symlink.

        Args:
            fd: the directory that it is in, open.
            path: from the root on.
        """
        above, _, name = path.rpartition("/")
        self._links = {}
        items: list[Item] = []
        marks = [name] if name.startswith(_PREFIX) else []
        with _Unchanged(path):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind in (stat.S_IFDIR, stat.S_IFLNK):
                raise changed(path)
            if kind not in KINDS:
                raise BuildError(
                    f"{path} is a socket, which no image can have", resolution="leave it out"
                )
            if not marks:
                item = self._entry(fd, name, name, path, kind == stat.S_IFREG)
                item.capability = b""  # which Docker does not keep, where it copies no directory
                items.append(item)
        return Tree(fd, above, items, marks)

    def directory(self, fd: int, top: str) -> Tree:
        """Read what is in a directory.

        Args:
            fd: it, open.
            top: its path from the root on.
        """
        self._links = {}
        items: list[Item] = []
        marks: list[str] = []
        implied: set[str] = set()
        todo = [""]
        while todo:
            path = todo.pop()
            with _Unchanged(_join(top, path)), tree.opened_below(fd, path, mounts=True) as here:
                if path:
                    items.append(self._directory(here, path, implied))
                todo += reversed(self._list(here, path, top, items, marks, implied))
        return Tree(fd, top, _without_empty(items, implied) if implied else items, marks)

    def _directory(self, fd: int, path: str, implied: set[str]) -> Item:
        if path in implied:  # Docker makes it for what is in it
            status = os.stat_result((stat.S_IFDIR | 0o755, *(0,) * 7, int(time.time()), 0))
        else:
            status = os.fstat(fd)
        return Item(path, status, self._rules)

    def _list(
        self,
        here: int,
        path: str,
        top: str,
        items: list[Item],
        marks: list[str],
        implied: set[str],
    ) -> list[str]:
        """Read what is in one directory but for the directories; the paths of those."""
        with os.scandir(here) as entries:
            found = sorted((entry.name, entry) for entry in entries)
        directories = []
        ignore = self._ignore
        for name, entry in found:
            child = f"{path}/{name}" if path else name
            is_directory = entry.is_dir(follow_symlinks=False)
            if ignore is not None and ignore.excludes(whole := _join(top, child)):
                if not (is_directory and ignore.enters(whole)):
                    continue
                implied.add(child)
            if is_directory:
                directories.append(child)
            elif name.startswith(_PREFIX):
                marks.append(child)
            else:
                whole = _join(top, child)
                is_file = entry.is_file(follow_symlinks=False)
                if is_file or not _is_socket(here, name):
                    with _Unchanged(whole):
                        items.append(self._entry(here, name, child, whole, is_file))
        return directories

    def _entry(self, here: int, name: str, path: str, whole: str, is_file: bool) -> Item:
        """Read what is no directory."""
        if is_file:
            return self._file(here, name, path, whole)
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
        item = Item(path, status, self._rules)
        if item.kind == stat.S_IFLNK:
            item.link = os.readlink(name, dir_fd=here)
        elif item.kind not in KINDS or item.kind in (stat.S_IFREG, stat.S_IFDIR):
            raise changed(whole)
        elif item.kind == stat.S_IFCHR and not status.st_rdev:
            raise BuildError(
                f"{whole} is a device 0:0, which a layer can only have to hide something",
                resolution="remove it, or leave it out",
            )
        if status.st_nlink > 1:
            self._note_link(item, status)
        return item

    def _note_link(self, item: Item, status: os.stat_result) -> None:
        first = self._links.setdefault((status.st_dev, status.st_ino), item.path)
        if first != item.path:
            item.first = first

    def _known(self, here: int, name: str, path: str) -> Item | None:
        """A file that was read before, and did not change since; it is not opened."""
        if self._rules.owner is None:
            return None
        status = os.stat(name, dir_fd=here, follow_symlinks=False)
        stamp = stamp_of(status)
        digest = self._digests.get(stamp)
        if digest is None or not stat.S_ISREG(status.st_mode):
            return None
        item = Item(path, status, self._rules)
        item.size, item.stamp, item.digest = status.st_size, stamp, digest
        if status.st_nlink > 1:
            self._note_link(item, status)
        return item

    def _file(self, here: int, name: str, path: str, whole: str) -> Item:
        if self._digests and (known := self._known(here, name, path)) is not None:
            return known
        fd = open_file(here, name)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise changed(whole)
            item = Item(path, status, self._rules)
            item.size = size = status.st_size
            item.stamp = stamp_of(status)
            if status.st_nlink > 1:
                self._note_link(item, status)
            if self._rules.owner is None:
                item.capability = _capability(fd)
            if size <= _SMALL:
                self._read(fd, item, whole)
            elif (digest := self._digests.get(item.stamp)) is not None:
                item.digest = digest
            else:
                job, fd = self._hashing(fd, item, whole), -1
                self._do(job)
            return item
        finally:
            if fd >= 0:
                os.close(fd)

    def _read(self, fd: int, item: Item, whole: str) -> None:
        data = os.read(fd, item.size + 1) if item.size else b""
        if len(data) != item.size:
            raise changed(whole)
        assert item.stamp is not None
        item.digest = self._digests[item.stamp] = hashlib.sha256(data).hexdigest()
        self._kept += item.size
        if self._kept <= _KEPT:
            item.data = data

    def _hashing(self, fd: int, item: Item, whole: str) -> Callable[[], None]:
        """What hashes a large file, and closes it."""

        def job() -> None:
            with open(fd, "rb", buffering=0) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if stamp_of(os.fstat(fd)) != item.stamp:
                    raise changed(whole)
            assert item.stamp is not None
            item.digest = self._digests[item.stamp] = digest

        return job

    def _do(self, job: Callable[[], None]) -> None:
        """Have it done beside the walk, or by it where the other thread has enough to do."""
        if self._helper is None:
            self._helper = copy.Helper(room=2)
        if not self._helper.offer(job):
            job()


def _join(top: str, path: str) -> str:
    return f"{top}/{path}" if top and path else top or path


def _is_socket(directory: int, name: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False  # whoever reads it says so


def _capability(fd: int) -> bytes:
    with suppress(OSError):
        if _CAPABILITY in os.listxattr(fd):
            return os.getxattr(fd, _CAPABILITY)
    return b""


def _without_empty(items: list[Item], implied: set[str]) -> list[Item]:
    """The items without directories that were only entered, and have nothing in them."""
    kept: list[Item] = []
    for item in reversed(items):
        if item.path in implied and not (kept and kept[-1].path.startswith(f"{item.path}/")):
            continue
        kept.append(item)
    return kept[::-1]


class _Unchanged:
    """Says what changed, where a system call finds another thing than was there before."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError) and error.errno in _GONE:
            raise changed(self._path or "the build context") from error
        if isinstance(error, PermissionError):
            raise BuildError(
                f"{self._path} cannot be read: {error.strerror}",
                resolution="build as a user who may read it, or leave it out by a .dockerignore",
            ) from error
