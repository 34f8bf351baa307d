"""Types that change, and paths that come twice."""

from __future__ import annotations

from collections.abc import Callable

from archives import TIME

from storagedrivers.testing.trees import ACL, Node
from torture.parts import (
    OLD,
    Part,
    a_device,
    a_directory,
    a_fifo,
    a_file,
    a_symlink,
    case,
    device,
    directory,
    fifo,
    file,
    hard_link,
    linked,
    symlink,
    whiteout,
    with_xattrs,
)

KINDS: dict[str, tuple[Callable[[bytes], Part], Callable[[int], Node]]] = {
    "file": (lambda name: file(name, b"content"), lambda time: a_file(b"content", mtime=time)),
    "directory": (directory, lambda time: a_directory(mtime=time)),
    "symlink": (
        lambda name: symlink(name, b"some/where"),
        lambda time: a_symlink(b"some/where", mtime=time),
    ),
    "fifo": (fifo, lambda time: a_fifo(mtime=time)),
    "device": (lambda name: device(name, 1, 3), lambda time: a_device(1, 3, mtime=time)),
    "block device": (
        lambda name: device(name, 259, 70_000, type=b"4"),
        lambda time: a_device(259, 70_000, mtime=time, kind="block device"),
    ),
}


def types() -> None:
    for below, (make_below, show_below) in KINDS.items():
        case(f"{below} of the lower stays", (), {b"x": show_below(OLD)}, lower=make_below(b"x"))
        case(f"{below} of the lower goes", whiteout(b"x"), lower=make_below(b"x"))
        for above, (make, show) in KINDS.items():
            case(
                f"{above} over {below}",
                make(b"x"),
                {b"x": show(TIME)},
                lower=make_below(b"x"),
            )
            case(
                f"{below} then {above} at one path",
                (make_below(b"x"), make(b"x")),
                {b"x": show(TIME)},
            )
    for above, (make, show) in KINDS.items():
        if above != "directory":
            full = (directory(b"x"), file(b"x/f"), directory(b"x/d"), file(b"x/d/g"))
            case(f"{above} over a full directory", make(b"x"), {b"x": show(TIME)}, lower=full)
            case(f"full directory then {above}", (*full, make(b"x")), {b"x": show(TIME)})
    case(
        "file replaced by a directory and filled",
        (directory(b"x"), file(b"x/f", b"1")),
        {b"x": a_directory(), b"x/f": a_file(b"1")},
        lower=file(b"x"),
    )
    case(
        "symlink to a directory replaced by a directory",
        (directory(b"sl"), file(b"sl/f")),
        {
            b"e": a_directory(mtime=OLD),
            b"e/q": a_file(mtime=OLD),
            b"sl": a_directory(),
            b"sl/f": a_file(),
        },
        lower=(directory(b"e"), file(b"e/q"), symlink(b"sl", b"e")),
    )
    case(
        "directory of the lower replaced by a symlink to its neighbour",
        symlink(b"d", b"e"),
        {b"d": a_symlink(b"e"), b"e": a_directory(mtime=OLD), b"e/q": a_file(mtime=OLD)},
        lower=(directory(b"d"), file(b"d/f"), directory(b"e"), file(b"e/q")),
    )
    case(
        "file then file below it",
        (file(b"x", b"1"), file(b"x/f", b"2")),
        {b"x": a_directory(), b"x/f": a_file(b"2")},
    )


def duplicates() -> None:
    case(
        "three files at one path",
        (file(b"f", b"1"), file(b"f", b"22", mode=0o600), file(b"f", b"333", uid=7)),
        {b"f": a_file(b"333", uid=7)},
    )
    case(
        "directory twice, the children stay",
        (directory(b"d"), file(b"d/f"), directory(b"d", mode=0o711)),
        {b"d": a_directory(mode=0o711), b"d/f": a_file()},
    )
    case(
        "directory twice, with attributes only once",
        (with_xattrs(directory(b"d"), {b"user.a": b"1"}), directory(b"d")),
        {b"d": a_directory()},
    )
    case(
        "an empty file over a longer one",
        (file(b"f", b"long"), file(b"f")),
        {b"f": a_file()},
    )
    case(
        "directory over the lower's, whose attributes go",
        directory(b"d"),
        {b"d": a_directory(), b"d/f": a_file(mtime=OLD)},
        lower=(
            with_xattrs(
                directory(b"d", mode=0o2700, uid=9),
                {b"user.a": b"1", b"system.posix_acl_default": ACL},
            ),
            file(b"d/f"),
        ),
    )
    case(
        "file over the lower's, whose attributes go",
        file(b"f", b"new"),
        {b"f": a_file(b"new")},
        lower=with_xattrs(file(b"f", b"old", mode=0o4755), {b"user.a": b"1"}),
    )
    case(
        "file over one name of the lower's hard links",
        file(b"h1", b"new"),
        {b"h1": a_file(b"new"), b"h2": a_file(b"old", mtime=OLD)},
        lower=(file(b"h1", b"old"), hard_link(b"h2", b"h1")),
    )
    case(
        "file again after a hard link to it",
        (file(b"f", b"1"), hard_link(b"h", b"f"), file(b"f", b"2")),
        {b"f": a_file(b"2"), b"h": a_file(b"1")},
    )
    case(
        "hard link over a file",
        (file(b"f", b"1"), file(b"h", b"2"), hard_link(b"h", b"f")),
        linked(a_file(b"1"), b"f", b"h"),
    )
    case(
        "hard link twice",
        (file(b"f", b"1"), hard_link(b"h", b"f"), hard_link(b"h", b"f")),
        linked(a_file(b"1"), b"f", b"h"),
    )
    case(
        "hard link over a directory of the lower",
        (file(b"f", b"1"), hard_link(b"h", b"f")),
        linked(a_file(b"1"), b"f", b"h"),
        lower=(directory(b"h"), file(b"h/x")),
    )
