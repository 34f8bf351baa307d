"""Works out what the tree of a layer should be, from the headers kept of its tar.

By the very rules that made it: :class:`LayerMaker` with a table of paths in the place of a
filesystem. That takes some 400 bytes for each entry of the tar, and none for contents.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, cast

from storagedrivers.archive.header import Entry
from storagedrivers.archive.kept import kept_records
from storagedrivers.archive.make import LayerMaker
from storagedrivers.archive.metadata import Metadata, check_ids, wanted_xattrs
from storagedrivers.archive.places import Cursor, Lower, Places, components, join
from storagedrivers.errors import CorruptStoreError, DiffError, MalformedDiffError

WHITEOUT = -1
"""The kind of a :class:`Node` that hides what the lower has."""

_ZEROS = bytes(1 << 20)
_KINDS = {b"2": stat.S_IFLNK, b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}
_NO_LIMIT = 1 << 62


class Node:
    """What should be at one path, or at several that are hard links of each other.

    Attributes:
        kind: as ``stat.S_IFMT`` has it, or :data:`WHITEOUT`.
        mode, uid, gid: nothing for a whiteout.
        mtime_ns: None where the tar does not say it.
        xattrs: by name, or None.
        size: of a regular file.
        target: of a symlink.
        rdev: of a device.
        opaque: a directory that shows nothing of the lower.
        inode: of the first of its paths that was looked at; 0 before.
        origin: the path in the layers below that it is taken from; None where the tar says it.
    """

    __slots__ = (
        "gid",
        "inode",
        "kind",
        "mode",
        "mtime_ns",
        "opaque",
        "origin",
        "rdev",
        "size",
        "target",
        "uid",
        "xattrs",
    )

    mtime_ns: int | None
    origin: bytes | None

    def __init__(self, kind: int, metadata: Metadata | None = None) -> None:
        self.kind = kind
        self.size = self.rdev = self.inode = 0
        self.target = b""
        self.opaque = False
        self.origin = None
        self.set(metadata or Metadata(0, 0, 0, 0))

    def set(self, metadata: Metadata) -> None:
        """Take over *metadata*."""
        self.mode, self.uid, self.gid, self.mtime_ns, self.xattrs = metadata


class Expected(NamedTuple):
    """What a layer's own tree should be.

    Attributes:
        nodes: by path; ``b""`` is the root. Directories come before what is in them.
        lower: what lies below the layer.
    """

    nodes: dict[bytes, Node]
    lower: Lower


def expect(kept: str, lower_fd: int | None) -> Expected:
    """Work it out.

    Args:
        kept: the file with the headers.
        lower_fd: the merged view of the layers below, or None.

    Raises:
        CorruptStoreError: the file is missing or damaged.
    """
    lower = Lower(lower_fd)
    maker = _Maker(lower, _Pieces(kept))
    try:
        return Expected(maker.nodes(), lower)
    except DiffError as error:
        raise CorruptStoreError(
            f"the tar headers kept in {kept} are damaged: {error}",
            resolution="the layer itself can still be used; to export it as it came in, add it"
            " again",
        ) from error


class _Pieces:
    """The tar, with zeros in the place of every payload."""

    def __init__(self, kept: str) -> None:
        self._pieces = _zeroed(kept)

    def next_piece(self) -> bytes:
        return next(self._pieces, b"")


def _zeroed(kept: str) -> Iterator[bytes]:
    for record in kept_records(kept):
        if isinstance(record, tuple):
            left = sum(length for _, length in record[1])
            while left:
                piece = _ZEROS[:left]  # the same object where all of it is wanted
                left -= len(piece)
                yield piece
        elif record:
            yield bytes(record)


class _Status(NamedTuple):
    """What the rules ask of a stat_result."""

    st_mode: int
    st_ino: int
    st_dev: int = 0


class _Table(Places):
    """Paths and nodes, in the place of directories."""

    def __init__(
        self,
        lower: Lower,
        *,
        make: Callable[[int, bytes, bytes], None],
        discard: Callable[[int, bytes, bytes], None],
    ) -> None:
        super().__init__(-1, lower, make=make, discard=discard)
        self.nodes: dict[bytes, Node] = {b"": Node(stat.S_IFDIR)}
        self._below: dict[bytes, set[bytes]] | None = None  # names, by directory

    def put(self, path: bytes, node: Node) -> None:
        """Have *node* at *path*, where nothing is."""
        self.nodes[path] = node
        if self._below is not None:
            directory, _, name = path.rpartition(b"/")
            self._below.setdefault(directory, set()).add(name)

    def take(self, path: bytes) -> Iterator[tuple[bytes, Node]]:
        """Take away *path* and what is below it."""
        if self.nodes[path].kind == stat.S_IFDIR and self._below is None:
            self._below = {}  # from now on: few tars replace a directory
            for one in self.nodes:
                directory, _, name = one.rpartition(b"/")
                self._below.setdefault(directory, set()).add(name)
        directory, _, name = path.rpartition(b"/")
        if self._below is not None:
            self._below[directory].discard(name)
        pending = [path]
        while pending:
            one = pending.pop()
            if self._below is not None:
                pending += [join(one, name) for name in self._below.pop(one, ())]
            yield one, self.nodes.pop(one)

    def forget(self) -> None:
        self._open.clear()  # nothing is open
        self._known.clear()

    def status(self, path: bytes) -> os.stat_result | None:
        node = self.nodes.get(path)
        if node is None:
            return None
        return cast(os.stat_result, _Status(max(node.kind, 0), id(node)))

    def _enter(self, fd: int, name: bytes, child: bytes) -> int | bytes:
        node = self.nodes.get(child)
        if node is not None and node.kind == stat.S_IFLNK:
            return node.target
        if node is None or node.kind != stat.S_IFDIR:
            if node is not None:
                self._discard(fd, name, child)
            self._make(fd, name, child)
        self._open[child] = 0
        return 0

    def _reopen(self, path: bytes) -> int:
        return 0

    def _cursor(self) -> Cursor:
        return _TableCursor(self)


class _TableCursor(Cursor):
    """A place in the table."""

    def __init__(self, table: _Table) -> None:
        super().__init__(None)
        self._table = table
        self._path: list[bytes] = []

    def reset(self) -> None:
        self._path = []

    def status(self, name: bytes) -> os.stat_result | None:
        return self._table.status(b"/".join([*self._path, name]))

    def readlink(self, name: bytes) -> bytes:
        return self._table.nodes[b"/".join([*self._path, name])].target

    def down(self, name: bytes) -> None:
        self._path.append(name)

    def up(self) -> None:
        self._path.pop()


class _Maker(LayerMaker):
    """Makes nodes where its base makes files."""

    def __init__(self, lower: Lower, pieces: _Pieces) -> None:
        super().__init__(-1, lower, pieces, kept=None, max_entries=_NO_LIMIT)

    def _new_places(self, top: int, lower: Lower) -> Places:
        self._table = _Table(lower, make=self._make_implied, discard=self._discard)
        return self._table

    def nodes(self) -> dict[bytes, Node]:
        self.make_all()
        nodes = self._table.nodes
        if self._lower:
            for path, opaque in self.deletions.settled():
                if opaque:
                    self.deletions.make(path)
                    nodes[path].opaque = True
                else:
                    self.deletions.make_parent(path)
                    nodes[path] = Node(WHITEOUT)
        for path, metadata in self.directories.items():
            nodes[path].set(metadata)
        if b"" not in self.directories:
            self._set_root(nodes[b""])
        return nodes

    def _set_root(self, root: Node) -> None:
        """The tar says nothing of it: it begins as the root below."""
        metadata = self._lower.metadata(b"")
        if metadata is not None:
            root.set(metadata)
            root.origin = b""
        else:
            root.set(Metadata(0o755, os.geteuid(), os.getegid(), 0))
            root.mtime_ns = None

    def _node(self, entry: Entry, kind: int) -> Node:
        check_ids(entry)
        xattrs = wanted_xattrs(entry, self.warnings)
        return Node(kind, Metadata(entry.mode, entry.uid, entry.gid, entry.mtime_ns, xattrs))

    def _put(self, entry: Entry, node: Node) -> None:
        _, directory, name = self._place(entry)
        path = join(directory, name)
        if path in self._table.nodes:
            self._clear(entry, directory, name)
        self._table.put(path, node)

    def _make_file(self, entry: Entry) -> None:
        node = self._node(entry, stat.S_IFREG)
        node.size = entry.real_size
        self._put(entry, node)

    def _make_special(self, entry: Entry) -> None:
        if entry.type in b"34" and entry.major == entry.minor == 0 and entry.type == b"3":
            return
        node = self._node(entry, _KINDS[entry.type])
        if entry.type == b"2":
            node.target = entry.link
        elif entry.type != b"6":
            node.rdev = os.makedev(entry.major, entry.minor)
        self._put(entry, node)

    def _make_directory(self, entry: Entry) -> None:
        node = self._node(entry, stat.S_IFDIR)
        _, directory, name = self._places.parent(entry.name.rstrip(b"/") or b".")
        path = join(directory, name) if name else directory
        if name and path not in self.directories:
            if path in self._table.nodes:
                self._clear(entry, directory, name)
            self._table.put(path, node)
        self._table.nodes[path].origin = None
        self._note_directory(
            path, Metadata(node.mode, node.uid, node.gid, entry.mtime_ns, node.xattrs)
        )

    def _make_implied(self, parent: int, name: bytes, path: bytes) -> None:
        self._note_directory(path, self._implied_metadata(path))
        node = Node(stat.S_IFDIR)
        node.origin = path
        self._table.put(path, node)

    def _discard(self, parent: int, name: bytes, path: bytes) -> None:
        if self._table.nodes[path].kind == stat.S_IFDIR:
            self._table.forget()
        else:
            self._table.forget_symlinks()
        for one, node in self._table.take(path):
            self._borrowed.discard(id(node), one)
            self._without_payload.discard(one)
            self.directories.pop(one, None)

    def _link(self, entry: Entry, target: bytes, path: bytes) -> None:
        directory, _, _ = path.rpartition(b"/")
        self._places.directory(components(directory))
        node = self._table.nodes.get(target)
        if node is None:
            raise MalformedDiffError("a hard link to what it replaces", entry=entry.name)
        self._table.put(path, node)

    def _borrow(self, target: bytes, path: bytes) -> None:
        directory, _, _ = path.rpartition(b"/")
        self._places.directory(components(directory))
        node = lower_node(self._lower, target)
        if node is None:
            raise MalformedDiffError("a hard link to what the layers below lost", entry=target)
        self._table.put(path, node)
        self._borrowed.add(target, id(node), path)


def lower_node(lower: Lower, path: bytes) -> Node | None:
    """What the layers below have at *path*."""
    directory, _, name = path.rpartition(b"/")
    fd = lower.open_directory(directory)
    if fd is None:
        return None
    try:
        node = read_node(fd, name)
        if node is not None:
            node.origin = path
        return node
    finally:
        os.close(fd)


def read_node(parent_fd: int, name: bytes) -> Node | None:
    """What is there, as it is; None where nothing is."""
    try:
        status = os.stat(name or b".", dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    xattrs = read_xattrs(parent_fd, name or b".")
    node = Node(
        stat.S_IFMT(status.st_mode),
        Metadata(
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            xattrs or None,
        ),
    )
    node.size, node.rdev = status.st_size, status.st_rdev
    if node.kind == stat.S_IFLNK:
        node.target = os.readlink(name, dir_fd=parent_fd)
    return node


def read_xattrs(parent_fd: int, name: bytes) -> Mapping[bytes, bytes]:
    """The extended attributes of *name*, itself, in the directory *parent_fd*."""
    # No xattr call takes a directory and a name; through /proc it stays the opened one.
    path = b"/proc/self/fd/%d/%s" % (parent_fd, name)
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
            return {}
        raise
    found = {}
    for one in names:
        try:
            found[os.fsencode(one)] = os.getxattr(path, one, follow_symlinks=False)
        except OSError as error:  # some are listed and cannot be read
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
                raise
    return found
