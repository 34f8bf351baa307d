"""Hard links within the layer, to the lower, and across whiteouts."""

from __future__ import annotations

import archives
from archives import GNU

from storagedrivers.testing.trees import CAPABILITY
from torture.parts import (
    OLD,
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
    opaque,
    symlink,
    whiteout,
    with_xattrs,
)


def hard_links() -> None:
    both = linked(a_file(b"1"), b"f", b"h")
    was = linked(a_file(b"1", mtime=OLD), b"f", b"h")
    low = file(b"f", b"1")
    case("hard link", (file(b"f", b"1"), hard_link(b"h", b"f")), both)
    case(
        "hard link of a hard link",
        (file(b"f", b"1"), hard_link(b"h", b"f"), hard_link(b"i", b"h")),
        linked(a_file(b"1"), b"f", b"h", b"i"),
    )
    case(
        "hard link in another directory, with its parents missing",
        (file(b"a/f", b"1"), hard_link(b"b/h", b"a/f")),
        {
            b"a": a_directory(),
            b"b": a_directory(),
            **linked(a_file(b"1"), b"a/f", b"b/h"),
        },
    )
    case("hard link to a file of the lower", hard_link(b"h", b"f"), was, lower=low)
    case(
        "hard link to a file of the lower, in a directory of the lower",
        hard_link(b"e/h", b"d/f"),
        {
            b"d": a_directory(mode=0o711, mtime=OLD),
            b"e": a_directory(mode=0o700, mtime=OLD),
            **linked(a_file(b"1", mtime=OLD), b"d/f", b"e/h"),
        },
        lower=(
            directory(b"d", mode=0o711),
            file(b"d/f", b"1"),
            directory(b"e", mode=0o700),
        ),
    )
    case(
        "hard link to a file of the lower with everything",
        hard_link(b"h", b"f"),
        linked(
            a_file(
                b"1",
                mtime=OLD,
                uid=4,
                gid=5,
                mode=0o4755,
                xattrs=(("security.capability", CAPABILITY), ("user.a", b"b")),
            ),
            b"f",
            b"h",
        ),
        lower=with_xattrs(
            file(b"f", b"1", uid=4, gid=5, mode=0o4755),
            {b"security.capability": CAPABILITY, b"user.a": b"b"},
        ),
    )
    case(
        "hard link to an empty file of the lower",
        hard_link(b"h", b"f"),
        linked(a_file(mtime=OLD), b"f", b"h"),
        lower=file(b"f"),
    )
    case(
        "hard link through a symlink of the lower to a directory",
        hard_link(b"h", b"sl/f"),
        {
            b"d": a_directory(mtime=OLD),
            b"sl": a_symlink(b"d", mtime=OLD),
            **linked(a_file(b"1", mtime=OLD), b"d/f", b"h"),
        },
        lower=(directory(b"d"), file(b"d/f", b"1"), symlink(b"sl", b"d")),
    )
    case(
        "hard link through a symlink of this layer",
        (directory(b"d"), file(b"d/f", b"1"), symlink(b"sl", b"d"), hard_link(b"h", b"sl/f")),
        {
            b"d": a_directory(),
            b"sl": a_symlink(b"d"),
            **linked(a_file(b"1"), b"d/f", b"h"),
        },
    )
    case(
        "hard link to a symlink of this layer",
        (symlink(b"f", b"x"), hard_link(b"h", b"f")),
        linked(a_symlink(b"x"), b"f", b"h"),
    )
    case(
        "hard link to a symlink of the lower",
        hard_link(b"h", b"f"),
        linked(a_symlink(b"x", mtime=OLD), b"f", b"h"),
        lower=symlink(b"f", b"x"),
    )
    case(
        "hard link to a fifo",
        (fifo(b"f"), hard_link(b"h", b"f")),
        linked(a_fifo(), b"f", b"h"),
    )
    case(
        "hard link to a fifo of the lower",
        hard_link(b"h", b"f"),
        linked(a_fifo(mtime=OLD), b"f", b"h"),
        lower=fifo(b"f"),
    )
    case(
        "hard link to a device",
        (device(b"f", 1, 5), hard_link(b"h", b"f")),
        linked(a_device(1, 5), b"f", b"h"),
    )
    case(
        "hard link to a device of the lower",
        hard_link(b"h", b"f"),
        linked(a_device(1, 5, mtime=OLD), b"f", b"h"),
        lower=device(b"f", 1, 5),
    )
    case(
        "whiteout, then a hard link to what it hides",
        (whiteout(b"f"), hard_link(b"h", b"f")),
        {b"h": a_file(b"1", mtime=OLD)},
        lower=low,
    )
    case(
        "hard link, then a whiteout of its target",
        (hard_link(b"h", b"f"), whiteout(b"f")),
        {b"h": a_file(b"1", mtime=OLD)},
        lower=low,
    )
    case(
        "whiteout of a directory, then a hard link into it",
        (whiteout(b"d"), hard_link(b"h", b"d/f")),
        {b"h": a_file(b"1", mtime=OLD)},
        lower=(directory(b"d"), file(b"d/f", b"1")),
    )
    case(
        "opaque directory, then a hard link into it",
        (directory(b"d"), opaque(b"d"), hard_link(b"h", b"d/f")),
        {b"d": a_directory(), b"h": a_file(b"1", mtime=OLD)},
        lower=(directory(b"d"), file(b"d/f", b"1")),
    )
    case(
        "hard link out of a directory that becomes opaque afterwards",
        (hard_link(b"h", b"d/f"), directory(b"d"), opaque(b"d")),
        {b"d": a_directory(), b"h": a_file(b"1", mtime=OLD)},
        lower=(directory(b"d"), file(b"d/f", b"1")),
    )
    case(
        "whiteout, a new file, and a hard link to the new one",
        (whiteout(b"f"), file(b"f", b"2"), hard_link(b"h", b"f")),
        linked(a_file(b"2"), b"f", b"h"),
        lower=low,
    )
    case(
        "two hard links to what a whiteout hides",
        (whiteout(b"f"), hard_link(b"h", b"f"), hard_link(b"i", b"f")),
        linked(a_file(b"1", mtime=OLD), b"h", b"i"),
        lower=low,
    )
    case(
        "hard link within this layer across a whiteout",
        (file(b"f", b"2"), whiteout(b"f"), hard_link(b"h", b"f")),
        linked(a_file(b"2"), b"f", b"h"),
        lower=low,
    )
    case(
        "hard link with a mode and owner of its own in the header",
        (file(b"f", b"1", mode=0o600, uid=3), hard_link(b"h", b"f", mode=0o600, uid=3)),
        linked(a_file(b"1", mode=0o600, uid=3), b"f", b"h"),
    )
    case(
        "hard link with a slash and dots in front of its target",
        (file(b"f", b"1"), lambda p: archives.hard_link(p.at + b"h", b"/./" + p.at + b"f")),
        both,
    )
    case(
        "hard link to a target longer than 100 bytes",
        (file(b"n" * 200, b"1"), hard_link(b"h", b"n" * 200)),
        linked(a_file(b"1"), b"n" * 200, b"h"),
    )
    case(
        "hard link with a GNU long target",
        (
            file(b"n" * 200, b"1"),
            lambda p: (
                archives.gnu_long(p.at + b"n" * 200, link=True)
                + archives.header(p.at + b"h", type=b"1", link=(p.at + b"n" * 200)[:100], magic=GNU)
            ),
        ),
        linked(a_file(b"1"), b"n" * 200, b"h"),
    )
