"""Gives a path of a layer the metadata that the headers kept of its tar say."""

from __future__ import annotations

import os
import stat

from storagedrivers.archive.expect import Node, read_xattrs
from storagedrivers.archive.tolerance import is_foreign
from storagedrivers.archive.verify import Difference, What
from storagedrivers.linux import tree

MENDABLE = frozenset({What.MODE, What.OWNER, What.MTIME, What.XATTR, What.TARGET, What.DEVICE})
"""What :func:`mend` puts right. Contents it cannot, and what is extra is someone's to take away."""


def mend(tree_fd: int, difference: Difference) -> None:
    """Give a path the metadata that the tar says.

    Raises:
        OSError: it cannot be written.
    """
    node = difference.node
    assert node is not None
    assert difference.what in MENDABLE
    directory, _, name = difference.path.rpartition(b"/")
    with tree.opened_below(tree_fd, os.fsdecode(directory)) as fd:
        if difference.what in (What.TARGET, What.DEVICE):
            _make_again(fd, name, node)
        _set_metadata(fd, name or b".", node)


def _make_again(fd: int, name: bytes, node: Node) -> None:
    new = b".storagedrivers-" + os.urandom(8).hex().encode()
    if node.kind == stat.S_IFLNK:
        os.symlink(node.target, new, dir_fd=fd)
    else:
        os.mknod(new, node.kind | 0o600, node.rdev, dir_fd=fd)
    os.rename(new, name, src_dir_fd=fd, dst_dir_fd=fd)


def _set_metadata(fd: int, name: bytes, node: Node) -> None:
    path = b"/proc/self/fd/%d/%s" % (fd, name)
    os.chown(name, node.uid, node.gid, dir_fd=fd, follow_symlinks=False)
    wanted = {one: value for one, value in (node.xattrs or {}).items() if not is_foreign(one)}
    for one in read_xattrs(fd, name):
        if one not in wanted and not is_foreign(one):
            os.removexattr(path, one, follow_symlinks=False)
    if node.kind != stat.S_IFLNK:
        os.chmod(name, node.mode, dir_fd=fd)
    # Capabilities last: the others take them away.
    for one in sorted(wanted, key=lambda one: (one == b"security.capability", one)):
        os.setxattr(path, one, wanted[one], follow_symlinks=False)
    if node.mtime_ns is not None:
        times = (node.mtime_ns, node.mtime_ns)
        os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
