"""Finds what a layer changes: from its changeset, or by comparing the trees with and without it.

A changeset is walked alone. In the layers below only what it names is looked up, and listed is only
what an opaque directory hides. Both trees are walked for drivers without changesets.

=============================================  ====================================================
different                                      kind, mode, owner, mtime, device number, target,
                                               attributes, content
copied up, and the same                        no change
a directory above a change                     changed itself, but for the root
the root                                       changed where its metadata is; without layers below
                                               added
another kind of file                           one change
a whiteout of nothing, a socket                as if it were not there
a name that begins with ``.wh.``, device 0:0   like any other; :mod:`~.pack` refuses them
=============================================  ====================================================
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress

from storagedrivers.archive.compare import attributes, same_file, same_status
from storagedrivers.archive.places import join
from storagedrivers.archive.whiteouts import META, OPAQUE, OVERLAY_OPAQUE, PREFIX
from storagedrivers.linux import syscalls, tree
from storagedrivers.model import Change, ChangeKind, WhiteoutFormat

_MAX_OPEN = 100  # levels, of two descriptors each; the usual limit of open files is 1,024
_BENEATH = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH


def changes_of_several(
    upper_fd: int, lower_fd: int | None, changesets: Sequence[int], whiteouts: WhiteoutFormat
) -> Iterator[Change]:
    """What several layers change together; only what they name is looked at.

    Args:
        upper_fd: a tree with all that the topmost of them shows.
        lower_fd: the merged view of the layers below them all, or None where there are none.
        changesets: open directories, one for each layer, in any order.
        whiteouts: their format.

    Raises:
        OSError: what the kernel says.
    """
    walk = _WalkOfSeveral(upper_fd, lower_fd, changesets, whiteouts)
    try:
        for found in walk.all():
            yield Change(found.kind, found.path)
    finally:
        walk.close()


def changes(
    upper_fd: int, lower_fd: int | None, whiteouts: WhiteoutFormat | None
) -> Iterator[Change]:
    """What a layer changes: a directory before what is in it, the names of one in byte order.

    Args:
        upper_fd: an open directory: a changeset where *whiteouts* says its format; else a tree with
            all that the layer shows.
        lower_fd: the merged view of the layers below, or None where there are none.
        whiteouts: the changeset's format.

    Raises:
        OSError: what the kernel says.
    """
    for found in differences(upper_fd, lower_fd, whiteouts):
        yield Change(found.kind, found.path)


class Difference:
    """A change, with what is there now.

    Attributes:
        kind: how it differs.
        path: relative to the root.
        status: what stat(2) says of it; None where it is deleted.
        xattrs: of a directory.
        directory: the directory that holds it, open until the next difference is asked for; -1 for
            a directory or what is deleted.
        name: in that directory.
    """

    __slots__ = ("directory", "kind", "name", "path", "status", "xattrs")

    def __init__(
        self,
        kind: ChangeKind,
        path: bytes,
        status: os.stat_result | None = None,
        xattrs: dict[bytes, bytes] | None = None,
        directory: int = -1,
        name: bytes = b"",
    ) -> None:
        self.kind = kind
        self.path = path
        self.status = status
        self.xattrs = xattrs
        self.directory = directory
        self.name = name


def differences(
    upper_fd: int, lower_fd: int | None, whiteouts: WhiteoutFormat | None
) -> Iterator[Difference]:
    """As :func:`changes`."""
    walk = _Walk(upper_fd, lower_fd, whiteouts)
    try:
        yield from walk.all()
    finally:
        walk.close()


class _Level:
    """A directory on the way down.

    Attributes:
        upper, lower: descriptors; -1 while closed, lower is None where there is none.
        whole: what the upper does not have is deleted.
        names: still to be looked at, the next one last.
        length: of its path.
        pending: what its change would be if something in it has one: status and attributes.
    """

    __slots__ = ("length", "lower", "names", "pending", "upper", "whole")

    def __init__(self, upper: int, lower: int | None, *, whole: bool, length: int) -> None:
        self.upper = upper
        self.lower = lower
        self.whole = whole
        self.length = length
        self.names: list[bytes] = []
        self.pending: tuple[os.stat_result, dict[bytes, bytes]] | None = None


class _Walk:
    def __init__(
        self, upper_fd: int, lower_fd: int | None, whiteouts: WhiteoutFormat | None
    ) -> None:
        self._upper_fd = upper_fd
        self._lower_fd = lower_fd
        self._format = whiteouts
        self._overlay = whiteouts in OVERLAY_OPAQUE
        self._path = b""
        self._stack: list[_Level] = []

    def close(self) -> None:
        """Close what is open."""
        while self._stack:
            self._close(self._stack.pop())

    @staticmethod
    def _close(level: _Level) -> None:
        if level.upper >= 0:
            os.close(level.upper)
        if level.lower is not None and level.lower >= 0:
            os.close(level.lower)
            level.lower = -1
        level.upper = -1

    def all(self) -> Iterator[Difference]:
        yield from self._root()
        while self._stack:
            level = self._stack[-1]
            if not level.names:
                self._close(self._stack.pop())
                if self._stack:
                    self._path = self._path[: self._stack[-1].length]
                continue
            if level.upper < 0:
                self._reopen(level)
            name = level.names.pop()
            now = self._status(level.upper, name, upper=True)
            before = None if level.lower is None else self._status(level.lower, name)
            try:
                yield from self._look_at(level, name, now, before)
            except FileNotFoundError:
                if self._status(level.upper, name, upper=True) is not None:
                    raise
                yield from self._look_at(level, name, None, before)  # gone since: a live layer

    def _look_at(
        self, level: _Level, name: bytes, now: os.stat_result | None, before: os.stat_result | None
    ) -> Iterator[Difference]:
        if now is not None and stat.S_ISDIR(now.st_mode):
            yield from self._enter(level, name, now, before)
        elif now is not None:
            yield from self._file(level, name, now, before)
        elif before is not None:
            yield from self._above()
            yield Difference(ChangeKind.DELETED, join(self._path, name))

    def _root(self) -> Iterator[Difference]:
        upper = _open_directory(self._upper_fd, b".")
        level = _Level(upper, None, whole=self._format is None, length=0)
        self._stack.append(level)
        if self._lower_fd is not None:
            level.lower = _open_directory(self._lower_fd, b".")
        level.names = self._names(level, b"")
        status, xattrs = os.fstat(upper), attributes(upper)
        if level.lower is None:
            yield Difference(ChangeKind.ADDED, b"", status, xattrs)
        elif not _same_directory(status, xattrs, level.lower):
            yield Difference(ChangeKind.CHANGED, b"", status, xattrs)

    def _status(self, fd: int, name: bytes, *, upper: bool = False) -> os.stat_result | None:
        """Of a name; None where there is nothing that a layer can have."""
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return None
            raise
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return None
        if kind == stat.S_IFCHR and upper and self._overlay and status.st_rdev == 0:
            return None
        return status

    def _file(
        self, level: _Level, name: bytes, now: os.stat_result, before: os.stat_result | None
    ) -> Iterator[Difference]:
        if before is None:
            kind = ChangeKind.ADDED
        else:
            assert level.lower is not None
            if same_file((level.upper, name, now), (level.lower, name, before)):
                return
            kind = ChangeKind.CHANGED
        yield from self._above()
        yield Difference(kind, join(self._path, name), now, None, level.upper, name)

    def _enter(
        self, level: _Level, name: bytes, now: os.stat_result, before: os.stat_result | None
    ) -> Iterator[Difference]:
        """Go down into a directory."""
        path = join(self._path, name)
        child = _Level(
            _open_directory(level.upper, name), None, whole=level.whole, length=len(path)
        )
        self._stack.append(child)
        if before is not None and stat.S_ISDIR(before.st_mode):
            assert level.lower is not None
            child.lower = _open_directory(level.lower, name)
        child.names = self._names(child, path)
        xattrs = attributes(child.upper)
        if child.lower is not None and _same_directory(now, xattrs, child.lower):
            child.pending = now, xattrs
        else:
            yield from self._above(without_last=True)
            kind = ChangeKind.ADDED if before is None else ChangeKind.CHANGED
            yield Difference(kind, path, now, xattrs)
        self._path = path
        if len(self._stack) > _MAX_OPEN:
            self._close(self._stack[-_MAX_OPEN])

    def _names(self, level: _Level, path: bytes) -> list[bytes]:
        """The names to look at in a directory, the first one last; finds out whether it is
        opaque.
        """
        names = set(map(os.fsencode, os.listdir(level.upper)))
        if level.lower is not None and not level.whole and len(self._stack) > 1:
            level.whole = _is_opaque(level.upper, names, self._format)
        if self._format is WhiteoutFormat.AUFS:
            names = {_without_prefix(name) for name in names if not name.startswith(META)}
        if level.lower is not None and level.whole:
            names.update(map(os.fsencode, os.listdir(level.lower)))
        return sorted(names, reverse=True)

    def _above(self, *, without_last: bool = False) -> Iterator[Difference]:
        """The directories above a change, those that did not come yet."""
        end = first = len(self._stack) - without_last
        while first and self._stack[first - 1].pending is not None:
            first -= 1
        for level in self._stack[first:end]:
            assert level.pending is not None
            yield Difference(ChangeKind.CHANGED, self._path[: level.length], *level.pending)
            level.pending = None

    def _reopen(self, level: _Level) -> None:
        path = os.fsdecode(self._path)
        level.upper = tree.open_below(self._upper_fd, path)
        if level.lower is not None:
            assert self._lower_fd is not None
            level.lower = tree.open_below(self._lower_fd, path)


class _WalkOfSeveral(_Walk):
    """Compares trees, where at least one of several changesets has something."""

    def __init__(
        self,
        upper_fd: int,
        lower_fd: int | None,
        changesets: Sequence[int],
        whiteouts: WhiteoutFormat,
    ) -> None:
        super().__init__(upper_fd, lower_fd, None)
        self._changesets = changesets
        self._their_format = whiteouts

    def _names(self, level: _Level, path: bytes) -> list[bytes]:
        # The root is whole by the trees' format, and what is below it inherits that.
        if len(self._stack) == 1:
            level.whole = False
        if level.lower is None or level.whole:
            return super()._names(level, path)
        names: set[bytes] = set()
        for changeset in self._changesets:
            try:
                fd = tree.open_below(changeset, os.fsdecode(path))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                if error.errno != errno.ENOENT or self._is_whited_out(changeset, path):
                    # It hid what lay below, and a layer above it has a directory again.
                    level.whole = True
                    return super()._names(level, path)
                continue
            try:
                found = set(map(os.fsencode, os.listdir(fd)))
                if len(self._stack) > 1 and _is_opaque(fd, found, self._their_format):
                    level.whole = True
                    return super()._names(level, path)
            finally:
                os.close(fd)
            if self._their_format is WhiteoutFormat.AUFS:
                found = {_without_prefix(name) for name in found if not name.startswith(META)}
            names |= found
        return sorted(names, reverse=True)

    def _is_whited_out(self, changeset: int, path: bytes) -> bool:
        """Whether a name beside the path says that it is gone, as aufs has it."""
        if self._their_format is not WhiteoutFormat.AUFS:
            return False
        directory, _, name = path.rpartition(b"/")
        with suppress(FileNotFoundError, NotADirectoryError):
            with tree.opened_below(changeset, os.fsdecode(directory)) as fd:
                os.stat(PREFIX + name, dir_fd=fd, follow_symlinks=False)
                return True
        return False


def _is_opaque(fd: int, names: set[bytes], whiteouts: WhiteoutFormat | None) -> bool:
    """Whether a directory hides what lies below; the root cannot."""
    if whiteouts is WhiteoutFormat.AUFS:
        return OPAQUE in names
    assert whiteouts is not None
    try:
        return os.getxattr(fd, OVERLAY_OPAQUE[whiteouts]) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def _without_prefix(name: bytes) -> bytes:
    """What an aufs whiteout hides; other names as they are."""
    return name[len(PREFIX) :] if name.startswith(PREFIX) else name


def _same_directory(now: os.stat_result, xattrs: dict[bytes, bytes], lower: int) -> bool:
    return same_status(now, os.fstat(lower)) and xattrs == attributes(lower)


def _open_directory(parent: int, name: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME
    try:
        return syscalls.openat2(parent, name, flags, resolve=_BENEATH)
    except OSError as error:
        # EPERM: another's directory, or a seccomp filter.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    return tree.open_below(parent, os.fsdecode(name))
