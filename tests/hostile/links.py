"""Symlinks as parents, and hard links out of the layer."""

from __future__ import annotations

from archives import TIME, device, directory, fifo, file, hard_link, pax, symlink, tar

from hostile import Hostile
from storagedrivers.errors import DiffError, UnsafeEntryError


def _through(name: str, *parts, never: str = "a file appears outside", error=UnsafeEntryError):  # type: ignore[no-untyped-def]
    """Parts are bytes, or functions of the directory outside."""
    return Hostile(
        name,
        lambda outside: tar(*(part(outside) if callable(part) else part for part in parts)),
        error,
        never,
    )


_OUT = b"../" * 40

ARCHIVES = [
    # Inside a root, an absolute target begins at that root, as a process in the container sees it;
    # what is missing on the way is made there.
    _through(
        "absolute symlink as parent",
        lambda outside: symlink(b"sl", outside),
        file(b"sl/escaped", b"x"),
        error=None,
    ),
    _through(
        "absolute symlink to / as parent",
        symlink(b"sl", b"/"),
        file(b"sl/inside", b"x"),
        error=None,
        never="the host's root is written to",
    ),
    _through(
        "absolute symlink as parent, to what is in the layer too",
        lambda outside: directory(outside),
        lambda outside: symlink(b"sl", outside),
        file(b"sl/escaped", b"x"),
        error=None,
    ),
    _through("relative symlink out as parent", symlink(b"sl", b"../outside"), file(b"sl/escaped")),
    _through("far relative symlink out as parent", symlink(b"sl", _OUT + b"tmp"), file(b"sl/e")),
    _through("symlink to .. as parent", symlink(b"sl", b".."), file(b"sl/escaped", b"x")),
    _through(
        "symlink out at depth",
        directory(b"a/b/"),
        symlink(b"a/b/sl", b"../../../outside"),
        file(b"a/b/sl/escaped", b"x"),
    ),
    _through(
        "symlink out in the middle of a name",
        symlink(b"sl", b"../outside"),
        file(b"sl/dir/escaped", b"x"),
    ),
    _through(
        "directory through a symlink out",
        symlink(b"sl", b"../outside"),
        directory(b"sl/escaped/"),
        never="a directory appears outside",
    ),
    _through(
        "symlink through a symlink out",
        symlink(b"sl", b"../outside"),
        symlink(b"sl/escaped", b"x"),
    ),
    _through(
        "hard link through a symlink out",
        file(b"f", b"x"),
        symlink(b"sl", b"../outside"),
        hard_link(b"sl/escaped", b"f"),
    ),
    _through("device through a symlink out", symlink(b"sl", b"../outside"), device(b"sl/n", 1, 3)),
    _through("fifo through a symlink out", symlink(b"sl", b"../outside"), fifo(b"sl/p")),
    _through(
        "overwriting through a symlink out",
        symlink(b"sl", b"../outside"),
        file(b"sl/secret", b"overwritten"),
        never="the file outside is overwritten",
    ),
    _through(
        "chain of symlinks out",
        symlink(b"one", b"two"),
        symlink(b"two", b"three"),
        symlink(b"three", b"../outside"),
        file(b"one/escaped", b"x"),
    ),
    _through(
        "chain of symlinks that climbs a level each",
        directory(b"a/b/c/"),
        symlink(b"a/b/c/up", b".."),
        symlink(b"a/b/up", b"c/up/.."),
        symlink(b"a/up", b"b/up/../.."),
        symlink(b"up", b"a/up/../outside"),
        file(b"up/escaped", b"x"),
    ),
    _through(
        "chain of absolute and relative symlinks",
        symlink(b"one", b"/two"),
        symlink(b"two", b"../outside"),
        file(b"one/escaped", b"x"),
    ),
    _through(
        "loop of one symlink",
        symlink(b"loop", b"loop"),
        file(b"loop/x", b"x"),
        never="the walk never ends, or ends in an untyped ELOOP",
        error=DiffError,
    ),
    _through(
        "loop of two symlinks",
        symlink(b"a", b"b"),
        symlink(b"b", b"a"),
        file(b"a/x", b"x"),
        never="the walk never ends, or ends in an untyped ELOOP",
        error=DiffError,
    ),
    _through(
        "chain of 300 symlinks",
        *(symlink(b"s%d" % n, b"s%d" % (n + 1)) for n in range(300)),
        directory(b"s300/"),
        file(b"s0/x", b"x"),
        never="the walk ends in an untyped ELOOP",
        error=DiffError,
    ),
    _through(
        "symlinks that double at each level",
        directory(b"d/"),
        symlink(b"s0", b"d"),
        *(symlink(b"s%d" % n, b"s%d/../s%d" % (n - 1, n - 1)) for n in range(1, 30)),
        file(b"s29/x", b"x"),
        never="2^30 steps are taken",
        error=DiffError,
    ),
    _through(
        "dangling symlink as parent",
        symlink(b"sl", b"nowhere"),
        file(b"sl/x", b"x"),
        never="an untyped ENOENT",
        error=None,
    ),
    _through(
        "symlink to a file as parent",
        file(b"f", b"x"),
        symlink(b"sl", b"f"),
        file(b"sl/x", b"x"),
        never="an untyped ENOTDIR",
        error=None,
    ),
    _through(
        "directory swapped for a symlink out",
        directory(b"d/"),
        file(b"d/one", b"1"),
        symlink(b"d", b"../outside"),
        file(b"d/escaped", b"x"),
        never="a descriptor or a name of the directory that was there is used",
    ),
    _through(
        "directory of the lower swapped for a symlink out",
        symlink(b"dir", b"../outside"),
        file(b"dir/escaped", b"x"),
    ),
    _through(
        "parent of the parent swapped for a symlink out",
        file(b"a/b/c/one", b"1"),
        symlink(b"a", b"../outside"),
        file(b"a/b/c/escaped", b"x"),
        error=DiffError,
    ),
    _through(
        "symlink out swapped for a directory",
        symlink(b"d", b"../outside"),
        directory(b"d/"),
        file(b"d/inside", b"x"),
        error=None,
        never="the old symlink is followed",
    ),
    _through(
        "symlink out in the lower as parent",
        file(b"link-out/escaped", b"x"),
        file(b"link-up/escaped", b"x"),
        file(b"link-absolute/escaped", b"x"),
        error=None,
    ),
    _through(
        "metadata of a directory through a symlink out",
        symlink(b"sl", b"../outside"),
        directory(b"sl/", mode=0o777, uid=1),
        error=None,
        never="the directory outside gets the metadata",
    ),
    _through(
        "metadata of a file through a symlink out",
        symlink(b"sl", b"../outside/secret", mode=0o777, uid=7, mtime=TIME - 7),
        pax({b"SCHILY.xattr.user.a": b"1"}) + symlink(b"sl2", b"../outside/secret", uid=9),
        error=None,
        never="chmod, chown, utime or setxattr follow the symlink",
    ),
    _through(
        "content written through a symlink out",
        symlink(b"sl", b"../outside/secret"),
        file(b"sl", b"overwritten"),
        error=None,
        never="open() follows the symlink that is there",
    ),
    _through(
        "content written through a symlink out of the lower",
        file(b"link-to-secret", b"overwritten"),
        error=None,
        never="open() follows the symlink that is there",
    ),
    _through(
        "content written through a dangling symlink",
        lambda outside: symlink(b"sl", outside + b"/escaped"),
        file(b"sl", b"x"),
        error=None,
    ),
    _through(
        "content written through a fifo and a device",
        fifo(b"p"),
        file(b"p", b"x"),
        device(b"n", 1, 1),
        file(b"n", b"x"),
        error=None,
        never="the unpacking waits for a reader, or writes to memory",
    ),
    _through(
        "content written through a hard link to the lower",
        hard_link(b"h", b"file"),
        file(b"h", b"overwritten"),
        error=(DiffError, type(None)),  # a base layer has nothing below
        never="the lower's file changes",
    ),
    _through(
        "hard link to a symlink out, then a file in its place",
        symlink(b"sl", b"../outside/secret"),
        hard_link(b"h", b"sl"),
        file(b"h", b"overwritten"),
        error=None,
        never="the file outside is overwritten",
    ),
    _through(
        "hard link to ..",
        hard_link(b"h", b"../outside/secret"),
        never="a name inside leads to the file outside",
    ),
    _through(
        "hard link far out",
        hard_link(b"h", _OUT + b"etc/passwd"),
        never="a name inside leads to the file outside",
    ),
    _through(
        "absolute hard link",
        lambda outside: hard_link(b"h", outside + b"/secret"),
        never="a name inside leads to the file outside",
        error=DiffError,
    ),
    _through(
        "hard link through a symlink out to a file",
        symlink(b"sl", b"../outside"),
        hard_link(b"h", b"sl/secret"),
        never="a name inside leads to the file outside",
    ),
    _through(
        "hard link through a symlink out of the lower",
        hard_link(b"h", b"link-out/secret"),
        never="a name inside leads to the file outside",
        error=DiffError,
    ),
    _through(
        "hard link to a directory",
        directory(b"d/"),
        hard_link(b"h", b"d"),
        never="an untyped EPERM",
        error=DiffError,
    ),
    _through(
        "hard link to a directory of the lower",
        hard_link(b"h", b"dir"),
        never="an untyped EPERM",
        error=DiffError,
    ),
    _through("hard link to the root", hard_link(b"h", b"."), never="an EPERM", error=DiffError),
    _through("hard link without target", hard_link(b"h", b""), never="an ENOENT", error=DiffError),
    _through(
        "hard link to what comes later",
        hard_link(b"h", b"later"),
        file(b"later", b"x"),
        never="an untyped ENOENT",
        error=DiffError,
    ),
    _through(
        "hard link to itself", hard_link(b"h", b"h"), never="an untyped EEXIST", error=DiffError
    ),
    _through(
        "hard link to itself, which is there",
        file(b"h", b"x"),
        hard_link(b"h", b"h"),
        never="the file is removed to make room for the link to it",
        error=DiffError,
    ),
    _through(
        "hard link below its own target",
        file(b"f", b"x"),
        hard_link(b"f/h", b"f"),
        never="an untyped ENOENT",
        error=DiffError,
    ),
    _through(
        "hard link in the place of its target's directory",
        file(b"d/f", b"x"),
        hard_link(b"d", b"d/f"),
        never="the target is removed before it is linked",
        error=DiffError,
    ),
    _through(
        "hard link as the root",
        file(b"f", b"x"),
        hard_link(b".", b"f"),
        never="the root is replaced",
        error=DiffError,
    ),
    _through(
        "66000 hard links to one file",
        file(b"f", b"x"),
        *(hard_link(b"h%d" % n, b"f") for n in range(66_000)),
        never="an untyped EMLINK",
        error=DiffError,
    ),
    _through(
        "symlink without target", symlink(b"sl", b""), never="an untyped ENOENT", error=DiffError
    ),
    _through(
        "symlink with a target of 70000 bytes",
        symlink(b"sl", b"t" * 70_000),
        never="an untyped ENAMETOOLONG",
        error=DiffError,
    ),
]
