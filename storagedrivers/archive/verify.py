"""Compares a layer's tree with the headers kept of its tar: everything but the bytes of files.

The bytes are what :func:`storagedrivers.archive.kept.reassemble` and a digest are for. Changes
nothing; :mod:`storagedrivers.archive.mend` does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import StrEnum
from typing import NamedTuple

from storagedrivers.archive.expect import (
    WHITEOUT,
    Expected,
    Node,
    expect,
    lower_node,
    read_node,
    read_xattrs,
)
from storagedrivers.archive.kept import kept_records
from storagedrivers.archive.places import join
from storagedrivers.archive.tolerance import (
    Tolerance,
    is_foreign,
    is_same_attribute,
    is_same_time,
    mode_with_acl,
)
from storagedrivers.archive.whiteouts import META, OPAQUE, OVERLAY_OPAQUE, PREFIX
from storagedrivers.linux import tree
from storagedrivers.model import WhiteoutFormat

_SECOND = 1_000_000_000


class What(StrEnum):
    """In what a path differs."""

    MISSING = "missing"
    EXTRA = "extra"
    TYPE = "type"
    SIZE = "size"
    CONTENT = "content"
    MODE = "mode"
    OWNER = "owner"
    MTIME = "mtime"
    XATTR = "xattr"
    TARGET = "target"
    DEVICE = "device"
    HARD_LINK = "hard-link"
    OPAQUE = "opaque"


class Difference(NamedTuple):
    """One path that is not what the tar says.

    Attributes:
        path: relative to the layer's root.
        what: in what.
        message: a sentence, without the path.
        node: what should be there, or None.
    """

    path: bytes
    what: What
    message: str
    node: Node | None = None


def verify(
    kept: str,
    tree_fd: int,
    *,
    lower_fd: int | None = None,
    whiteouts: WhiteoutFormat | None = None,
    warnings: Sequence[str] = (),
    touched_since: int | None = None,
) -> Iterator[Difference]:
    """Everything in which a layer's tree is not what its tar made of it.

    Args:
        kept: the file with the headers.
        tree_fd: the changeset directory where *whiteouts* says its format; else the merged view of
            the layer.
        lower_fd: the merged view of the layers below, or None.
        whiteouts: the changeset's format.
        warnings: what could not be kept when the tar came in.
        touched_since: for a merged view: a file that the layer shares with the lower and whose
            inode was changed after this time (ns) has its bytes compared too.

    Raises:
        CorruptStoreError: the headers are missing or damaged.
    """
    expected = expect(kept, lower_fd)
    return _Comparison(
        expected, tree_fd, whiteouts, Tolerance.of(warnings), touched_since
    ).differences()


def touched_files(kept: str, tree_fd: int, *, since: int) -> tuple[list[bytes], int]:
    """The files with payload in the tar whose inodes were changed after *since* (ns), and the
    number of the others.
    """
    touched, others = [], 0
    for record in kept_records(kept):
        if isinstance(record, tuple):
            fd = tree.open_file_below(tree_fd, record[0])
            try:
                if os.fstat(fd).st_ctime_ns > since:
                    touched.append(record[0])
                else:
                    others += 1
            finally:
                os.close(fd)
    return touched, others


class _Comparison:
    def __init__(
        self,
        expected: Expected,
        tree_fd: int,
        whiteouts: WhiteoutFormat | None,
        tolerance: Tolerance,
        touched_since: int | None,
    ) -> None:
        self._nodes = expected.nodes  # what was looked at is taken out
        self._lower = expected.lower
        self._tree_fd = tree_fd
        self._format = whiteouts
        self._tolerance = tolerance
        self._touched_since = touched_since
        self._linked: dict[int, Node] = {}  # by inode, those with several names
        self._lost: set[bytes] = set()  # directories whose content is not looked for

    def differences(self) -> Iterator[Difference]:
        root = self._nodes[b""]
        status = os.fstat(self._tree_fd)
        yield from self._metadata(self._tree_fd, b".", b"", status, root)
        pending: list[tuple[bytes, bool]] = [(b"", bool(self._lower))]
        while pending:
            directory, inherits = pending.pop()
            with tree.opened_below(self._tree_fd, os.fsdecode(directory)) as fd:
                yield from self._directory(fd, directory, inherits, pending)
        del self._nodes[b""]
        yield from self._missing()

    def _directory(
        self, fd: int, directory: bytes, inherits: bool, pending: list[tuple[bytes, bool]]
    ) -> Iterator[Difference]:
        """What is in one directory; those in it that are to be looked at are put on *pending*."""
        inherits = inherits and self._format is None
        below = set(self._lower.names(directory)) if inherits else set()
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            name, whiteout = self._meaning(name, status)
            if not name:
                continue
            path = join(directory, name)
            node = self._nodes.pop(path, None)
            below.discard(name)
            if node is not None:
                is_directory = stat.S_ISDIR(status.st_mode) and not whiteout
                if node.kind == stat.S_IFDIR and not is_directory:
                    self._lost.add(path)
                if whiteout != (node.kind == WHITEOUT):
                    yield _wrong_type(path, node, "a whiteout" if whiteout else _kind(status))
                elif not whiteout:
                    yield from self._own(fd, name, path, status, node)
                    if node.kind == stat.S_IFDIR and is_directory:
                        pending.append((path, inherits and not node.opaque))
            elif inherits and (found := lower_node(self._lower, path)) is not None:
                yield from self._inherited(fd, name, path, status, found)
                if found.kind == stat.S_IFDIR == stat.S_IFMT(status.st_mode):
                    pending.append((path, True))
            else:
                what = "a whiteout" if whiteout else _kind(status)
                yield Difference(path, What.EXTRA, f"{what} that no tar brought is there")
        for name in sorted(below):
            path = join(directory, name)
            gone = self._nodes.get(path)
            if gone is None:
                yield Difference(path, What.MISSING, "it is gone, and the layers below have it")
            elif gone.kind == WHITEOUT:
                del self._nodes[path]

    def _meaning(self, name: bytes, status: os.stat_result) -> tuple[bytes, bool]:
        """The name that an entry of the directory is about, and whether it is a whiteout."""
        if self._format is WhiteoutFormat.AUFS:
            if name.startswith(META):
                return b"", False
            if name.startswith(PREFIX):
                return name[len(PREFIX) :], True
        elif self._format is not None:
            return name, stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
        return name, False

    def _missing(self) -> Iterator[Difference]:
        """What no directory had; of a missing directory itself only."""
        for path, node in self._nodes.items():
            if self._format is None and node.kind == WHITEOUT:
                continue  # carried out
            if self._tolerance.devices and node.kind in (stat.S_IFCHR, stat.S_IFBLK):
                continue
            if node.kind == stat.S_IFDIR:
                self._lost.add(path)
            if path.rpartition(b"/")[0] not in self._lost:
                what = _NAMES[node.kind]
                yield Difference(path, What.MISSING, f"{what} of the tar is missing", node)

    def _own(
        self, fd: int, name: bytes, path: bytes, status: os.stat_result, node: Node
    ) -> Iterator[Difference]:
        if stat.S_IFMT(status.st_mode) != node.kind:
            yield _wrong_type(path, node, _kind(status))
            return
        yield from _kind_differences(fd, name, path, status, node)
        yield from self._metadata(fd, name, path, status, node)
        if node.kind != stat.S_IFDIR:
            yield from self._hard_link(path, status, node)

    def _hard_link(self, path: bytes, status: os.stat_result, node: Node) -> Iterator[Difference]:
        if node.inode and node.inode != status.st_ino:
            message = "it is no longer one file with its other names"
            yield Difference(path, What.HARD_LINK, message, node)
            return
        if status.st_nlink > 1:
            other = self._linked.setdefault(status.st_ino, node)
            if other is not node:
                message = "it is one file with a name that it should not share"
                yield Difference(path, What.HARD_LINK, message, node)
        node.inode = status.st_ino

    def _inherited(
        self, fd: int, name: bytes, path: bytes, status: os.stat_result, node: Node
    ) -> Iterator[Difference]:
        """What a copy of the layers below shares with them."""
        if stat.S_IFMT(status.st_mode) != node.kind:
            yield _wrong_type(path, node, _kind(status))
            return
        wrong = [*_kind_differences(fd, name, path, status, node)]
        wrong += self._metadata(fd, name, path, status, node)
        yield from wrong
        since = self._touched_since
        touched = since is not None and status.st_ctime_ns > since
        if touched and node.kind == stat.S_IFREG and not wrong and not self._same_bytes(path):
            yield Difference(
                path, What.CONTENT, "its bytes are not those of the layers below", node
            )

    def _same_bytes(self, path: bytes) -> bool:
        directory, _, name = path.rpartition(b"/")
        lower = self._lower.open_directory(directory)
        assert lower is not None
        with ExitStack() as stack:
            stack.callback(os.close, lower)
            fds = [tree.open_file_below(self._tree_fd, path), tree.open_file_below(lower, name)]
            for fd in fds:
                stack.callback(os.close, fd)
            while True:
                one, two = (os.read(fd, 1 << 20) for fd in fds)
                if one != two:
                    return False
                if not one:
                    return True

    def _metadata(
        self, fd: int, name: bytes, path: bytes, status: os.stat_result, node: Node
    ) -> Iterator[Difference]:
        xattrs = read_xattrs(fd, name)
        if node.kind != stat.S_IFLNK:
            mode = mode_with_acl(node)
            found = stat.S_IMODE(status.st_mode)
            if found != mode:
                yield Difference(
                    path, What.MODE, f"its mode is {found:04o}, and was {mode:04o}", node
                )
        if (status.st_uid, status.st_gid) != (node.uid, node.gid):
            yield Difference(
                path,
                What.OWNER,
                f"its owner is {status.st_uid}:{status.st_gid}, and was {node.uid}:{node.gid}",
                node,
            )
        if not is_same_time(node.mtime_ns, status.st_mtime_ns):
            yield Difference(
                path,
                What.MTIME,
                f"its time is {_time(status.st_mtime_ns)}, and was {_time(node.mtime_ns or 0)}",
                node,
            )
        yield from self._xattrs(path, node, xattrs)
        if node.kind == stat.S_IFDIR and path and self._format is not None:
            opaque = self._is_opaque(fd, name, xattrs)
            if opaque != node.opaque:
                message = "it hides" if opaque else "it no longer hides"
                yield Difference(
                    path, What.OPAQUE, f"{message} what the layers below have in it", node
                )

    def _is_opaque(self, fd: int, name: bytes, xattrs: Mapping[bytes, bytes]) -> bool:
        if self._format is WhiteoutFormat.AUFS:
            return read_node(fd, name + b"/" + OPAQUE) is not None
        return any(xattrs.get(one.encode()) == b"y" for one in OVERLAY_OPAQUE.values())

    def _xattrs(
        self, path: bytes, node: Node, found: Mapping[bytes, bytes]
    ) -> Iterator[Difference]:
        wanted = {
            name: value for name, value in (node.xattrs or {}).items() if not is_foreign(name)
        }
        for name in sorted(wanted.keys() | found.keys()):
            if is_foreign(name) or is_same_attribute(name, wanted.get(name), found.get(name)):
                continue
            if name not in found and (
                self._tolerance.any_attribute or name in self._tolerance.attributes
            ):
                continue
            shown = name.decode(errors="backslashreplace")
            words = (
                "is missing"
                if name not in found
                else "is new"
                if name not in wanted
                else "has another value"
            )
            yield Difference(path, What.XATTR, f"its attribute {shown} {words}", node)


def _kind_differences(
    fd: int, name: bytes, path: bytes, status: os.stat_result, node: Node
) -> Iterator[Difference]:
    """What only things of one kind have."""
    if node.kind == stat.S_IFREG and status.st_size != node.size:
        message = f"it has {status.st_size} bytes, and had {node.size}"
        yield Difference(path, What.SIZE, message, node)
    elif node.kind == stat.S_IFLNK:
        target = os.readlink(name, dir_fd=fd)
        if target != node.target:
            message = f"it leads to {repr(target)[1:]}, and led to {repr(node.target)[1:]}"
            yield Difference(path, What.TARGET, message, node)
    elif node.kind in (stat.S_IFCHR, stat.S_IFBLK) and status.st_rdev != node.rdev:
        message = f"it is device {_device(status.st_rdev)}, and was {_device(node.rdev)}"
        yield Difference(path, What.DEVICE, message, node)


_NAMES = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symlink",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    WHITEOUT: "a whiteout",
}


def _kind(status: os.stat_result) -> str:
    return _NAMES[stat.S_IFMT(status.st_mode)]


def _wrong_type(path: bytes, node: Node, found: str) -> Difference:
    return Difference(path, What.TYPE, f"it is {found}, and was {_NAMES[node.kind]}", node)


def _device(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"


def _time(mtime_ns: int) -> str:
    seconds, rest = divmod(mtime_ns, _SECOND)
    return f"{seconds}.{rest:09d}"
