"""Parents that are missing, only in the lower, or symlinks."""

from __future__ import annotations

from dataclasses import replace

from archives import TIME

from storagedrivers.testing.trees import ACL
from torture.parts import (
    OLD,
    a_directory,
    a_file,
    a_symlink,
    case,
    directory,
    fifo,
    file,
    symlink,
    whiteout,
    with_xattrs,
)


def parents() -> None:
    f = file(b"a/b/f", b"x")
    new = {b"a": a_directory(), b"a/b": a_directory(), b"a/b/f": a_file(b"x")}
    case("missing parents", f, new)
    case(
        "missing parents take the time of the first entry below",
        (file(b"a/f", mtime=TIME - 5), file(b"a/g")),
        {b"a": a_directory(mtime=TIME - 5), b"a/f": a_file(mtime=TIME - 5), b"a/g": a_file()},
    )
    case(
        "a parent after its child",
        (file(b"a/f"), directory(b"a", mode=0o700, uid=5)),
        {b"a": a_directory(mode=0o700, uid=5), b"a/f": a_file()},
    )
    odd = directory(b"d", mode=0o2711, uid=3, gid=4)
    kept = a_directory(mode=0o2711, uid=3, gid=4, mtime=OLD)
    case(
        "a parent that only the lower has",
        file(b"d/f"),
        {b"d": kept, b"d/f": a_file(), b"d/was": a_file(mtime=OLD)},
        lower=(odd, file(b"d/was")),
    )
    case(
        "a parent that only the lower has, with attributes",
        file(b"d/f"),
        {
            b"d": replace(kept, xattrs=(("trusted.t", b"1"), ("user.u", b"2"))),
            b"d/f": a_file(),
        },
        lower=with_xattrs(odd, {b"user.u": b"2", b"trusted.t": b"1"}),
    )
    case(
        "two parents that only the lower has",
        file(b"d/e/f"),
        {b"d": kept, b"d/e": a_directory(mode=0o700, mtime=OLD), b"d/e/f": a_file()},
        lower=(odd, directory(b"d/e", mode=0o700)),
    )
    case(
        "a parent with a default ACL leaks it to no child",
        (file(b"d/f"), directory(b"d/e")),
        {
            b"d": a_directory(mtime=OLD, xattrs=(("system.posix_acl_default", ACL),)),
            b"d/f": a_file(),
            b"d/e": a_directory(),
        },
        lower=with_xattrs(directory(b"d"), {b"system.posix_acl_default": ACL}),
    )
    case(
        "a setgid parent leaks its group to no child",
        (file(b"d/f"), directory(b"d/e"), symlink(b"d/l", b"f"), file(b"d/new/f")),
        {
            b"d": kept,
            b"d/f": a_file(),
            b"d/e": a_directory(),
            b"d/l": a_symlink(b"f"),
            b"d/new": a_directory(),
            b"d/new/f": a_file(),
        },
        lower=odd,
    )
    case(
        "a read-only parent",
        (directory(b"d", mode=0), file(b"d/f")),
        {b"d": a_directory(mode=0), b"d/f": a_file()},
    )
    case(
        "a parent's time stays",
        (directory(b"d", mtime=TIME - 100), file(b"d/f"), whiteout(b"d/was")),
        {b"d": a_directory(mtime=TIME - 100), b"d/f": a_file()},
        lower=(directory(b"d"), file(b"d/was")),
    )
    case(
        "file below a file of the lower",
        file(b"f/g"),
        {b"f": a_directory(), b"f/g": a_file()},
        lower=file(b"f", b"a file"),
    )
    case(
        "file far below a file of the lower",
        file(b"f/g/h"),
        {b"f": a_directory(), b"f/g": a_directory(), b"f/g/h": a_file()},
        lower=file(b"f", b"a file"),
    )
    case(
        "file below a fifo of the lower",
        file(b"f/g"),
        {b"f": a_directory(), b"f/g": a_file()},
        lower=fifo(b"f"),
    )
    for target, how in ((b"e", "relative"), (b"@e", "absolute"), (b"nowhere", "dangling")):
        case(
            f"parent is a symlink of the lower, {how}",
            file(b"sl/f"),
            {
                b"e": a_directory(mtime=OLD),
                b"e/q": a_file(mtime=OLD),
                b"sl": a_directory(),
                b"sl/f": a_file(),
            },
            lower=(directory(b"e"), file(b"e/q"), symlink(b"sl", target)),
        )
    for target, how in ((b"e", "relative"), (b"@e", "absolute"), (b"x/../e", "with dots")):
        link = b"/%s" + target[1:] if target.startswith(b"@") else target
        case(
            f"parent is a symlink of this layer, {how}",
            (directory(b"x"), directory(b"e"), symlink(b"sl", target), file(b"sl/f")),
            {
                b"x": a_directory(),
                b"e": a_directory(),
                b"e/f": a_file(),
                b"sl": a_symlink(link),
            },
        )
    case(
        "parent is a symlink of this layer to one of its own",
        (
            directory(b"e"),
            symlink(b"one", b"e"),
            symlink(b"two", b"one"),
            file(b"two/f"),
            file(b"two/d/g"),
        ),
        {
            b"e": a_directory(),
            b"e/f": a_file(),
            b"e/d": a_directory(),
            b"e/d/g": a_file(),
            b"one": a_symlink(b"e"),
            b"two": a_symlink(b"one"),
        },
    )
    case(
        "a directory entry over a symlink of this layer",
        (directory(b"e"), symlink(b"sl", b"e"), directory(b"sl"), file(b"sl/f")),
        {b"e": a_directory(), b"sl": a_directory(), b"sl/f": a_file()},
    )
