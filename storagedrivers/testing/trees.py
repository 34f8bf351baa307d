"""Trees with every kind of file, and their comparison. Works on bytes: names need not be text."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from storagedrivers.linux import namespace, syscalls

Tree = Mapping[bytes, "Node"]

OLD = 1_234_567_890_123_456_789
"""A time of modification, in nanoseconds, that no clock gives by chance."""

# security.capability of VFS_CAP_REVISION_2 with cap_net_raw permitted and effective:
# capabilities(7).
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)

# system.posix_acl_access: version 2; user::rw-, user:4321:r--, group::r--, mask::r--, other::---.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, number)
    for tag, rights, number in (
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, 4321),
        (0x04, 4, 0xFFFFFFFF),
        (0x10, 4, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    )
)

_PRIVATE = ("trusted.overlay.", "user.overlay.", "trusted.SGI_ACL_", "security.selinux")


@dataclass(frozen=True, slots=True)
class Node:
    """Everything of one file that a layer must keep."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    content: str = ""
    target: bytes = b""
    device: int = 0
    xattrs: tuple[tuple[str, bytes], ...] = ()
    links: tuple[bytes, ...] = ()


def read_tree(top: Path) -> dict[bytes, Node]:
    """The tree at *top*: nodes by relative path, the top itself as ``.``."""
    root = os.fsencode(top)
    nodes: dict[bytes, Node] = {b".": _read_node(root)}
    inodes: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in os.listdir(os.path.join(root, directory)):
            path = os.path.join(directory, name)
            status = os.lstat(os.path.join(root, path))
            nodes[path] = _read_node(os.path.join(root, path))
            if stat.S_ISDIR(status.st_mode):
                pending.append(path)
            else:
                inodes[status.st_dev, status.st_ino].append(path)
    for paths in inodes.values():
        if len(paths) > 1:
            for path in paths:
                nodes[path] = replace(nodes[path], links=tuple(sorted(paths)))
    return nodes


def _read_node(path: bytes) -> Node:
    status = os.lstat(path)
    kind = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symlink",
        stat.S_IFIFO: "fifo",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
        stat.S_IFSOCK: "socket",
    }[stat.S_IFMT(status.st_mode)]
    content = ""
    if kind == "file":
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    return Node(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=status.st_size if kind == "file" else 0,
        content=content,
        target=os.readlink(path) if kind == "symlink" else b"",
        device=status.st_rdev if kind.endswith("device") else 0,
        xattrs=_xattrs(path),
    )


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return ()
        raise
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(names)
        if not name.startswith(_PRIVATE)
    )


def differences(expected: Tree, found: Tree, *, ignoring: tuple[str, ...] = ()) -> list[str]:
    """What differs, a line each: missing and unexpected paths, and fields of nodes.

    Args:
        expected: how it should be.
        found: how it is.
        ignoring: fields of :class:`Node` that do not count.
    """
    lines = [f"{_show(path)} is missing" for path in sorted(expected.keys() - found.keys())]
    lines += [
        f"{_show(path)} should not be there" for path in sorted(found.keys() - expected.keys())
    ]
    for path in sorted(expected.keys() & found.keys()):
        for field in Node.__slots__:
            wanted, got = getattr(expected[path], field), getattr(found[path], field)
            if field not in ignoring and wanted != got:
                lines.append(f"{_show(path)}: {field} is {got!r}, should be {wanted!r}")
    return lines


def _show(path: bytes) -> str:
    text = os.fsdecode(path).encode("unicode_escape", "backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:57]}…"


def populate(top: Path) -> None:
    """Fill *top* with every kind of file that this user may make on this filesystem."""
    _regular_files(top)
    _directories(top)
    _odd_names(top)
    _links(top)
    _special_files(top)
    _attributes(top)
    if os.geteuid() == 0:
        _owners(top)
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(OLD, OLD + len(path.name)), follow_symlinks=False)


def _regular_files(top: Path) -> None:
    (top / "empty").touch()
    (top / "small").write_bytes(b"small\n")
    (top / "large").write_bytes(os.urandom(3 << 20))
    (top / "executable").write_bytes(b"#!/bin/sh\n")
    (top / "executable").chmod(0o755)
    (top / "setuid").touch()
    (top / "setuid").chmod(0o4755)
    (top / "unreadable").write_bytes(b"secret")
    (top / "unreadable").chmod(0 if os.geteuid() == 0 else 0o400)  # the test has to read it
    with (top / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"in the middle")


def _directories(top: Path) -> None:
    (top / "directory/below/deeper").mkdir(parents=True)
    (top / "directory/file").write_bytes(b"in a directory")
    (top / "directory/below/file").write_bytes(b"further down")
    for name, mode in (
        ("sticky", 0o1777),
        ("setgid", 0o2755),
        ("closed", 0o700),
        ("empty-directory", 0o755),
    ):
        (top / name).mkdir()
        (top / name).chmod(mode)


ODD_NAMES = (
    b"\xff\xfe not UTF-8",
    b"new\nline",
    b" leading space",
    b"-rf",
    b"back\\slash",
    b"comma,colon:equals=",
    b"'quotes\"",
    b"\xe2\x98\x83",
    b".hidden",
    b"...",
)


def _odd_names(top: Path) -> None:
    directory = os.fsencode(top / "odd")
    os.mkdir(directory)
    for name in (*ODD_NAMES, b"n" * 242):
        with open(os.path.join(directory, name), "wb") as file:
            file.write(name)


def _links(top: Path) -> None:
    (top / "hard-link").write_bytes(b"one inode")
    (top / "directory/hard-link-2").hardlink_to(top / "hard-link")
    (top / "directory/below/hard-link-3").hardlink_to(top / "hard-link")
    (top / "symlink").symlink_to("small")
    (top / "dangling").symlink_to("/nowhere/" + "x" * 900)
    (top / "symlink-to-directory").symlink_to("directory")
    (top / "symlink-linked").hardlink_to(top / "symlink")


def _special_files(top: Path) -> None:
    os.mkfifo(top / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        # A socket's address ends at 107 bytes; through /proc the path is short.
        fd = os.open(top, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)
    if can_make_devices():
        os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(top / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 200_000))


def can_make_devices() -> bool:
    """Whether this process may make device nodes: CAP_MKNOD, and not in a user namespace."""
    return namespace.has_capability(syscalls.CAP_MKNOD) and not namespace.in_user_namespace()


def _attributes(top: Path) -> None:
    attributes: list[tuple[str, str, bytes]] = [
        ("small", "user.comment", b"a comment"),
        ("directory", "user.binary", bytes(range(256))),
        ("large", "user.empty", b""),
        ("executable", "system.posix_acl_access", ACL),
        ("closed", "system.posix_acl_default", ACL),
    ]
    if os.geteuid() == 0:
        attributes.append(("executable", "security.capability", CAPABILITY))
    if can_make_devices():
        attributes.append(("small", "trusted.note", b"kept"))
    for name, key, value in attributes:
        try:
            os.setxattr(top / name, key, value)
        except OSError as error:
            # The filesystem has none of this kind, or the namespace does not map the ACL's user.
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM):
                raise


def _owners(top: Path) -> None:
    for name, uid, gid in (("small", 1, 2), ("symlink", 3, 4), ("sticky", 0, 5), ("fifo", 6, 0)):
        try:
            os.chown(top / name, uid, gid, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EINVAL:  # ids that the user namespace does not map
                raise
