"""Whiteouts and opaque directories, wherever in the tar they stand."""

from __future__ import annotations

import archives

from torture.parts import (
    OLD,
    a_directory,
    a_file,
    a_symlink,
    case,
    directory,
    file,
    hard_link,
    opaque,
    symlink,
    whiteout,
)


def whiteouts() -> None:
    low = (directory(b"d"), file(b"d/f"), directory(b"d/e"), file(b"d/e/g"))
    was = {
        b"d": a_directory(mtime=OLD),
        b"d/f": a_file(mtime=OLD),
        b"d/e": a_directory(mtime=OLD),
        b"d/e/g": a_file(mtime=OLD),
    }
    new, fresh = {b"d": a_directory(), b"d/n": a_file()}, (directory(b"d"), file(b"d/n"))
    case(
        "whiteout in a directory",
        whiteout(b"d/f"),
        {k: v for k, v in was.items() if k != b"d/f"},
        lower=low,
    )
    case("whiteout of a full directory", whiteout(b"d"), lower=low)
    case(
        "whiteout of a nested directory",
        whiteout(b"d/e"),
        {b"d": was[b"d"], b"d/f": was[b"d/f"]},
        lower=low,
    )
    case("whiteout twice", (whiteout(b"d"), whiteout(b"d")), lower=low)
    case("whiteout of a parent and of its child", (whiteout(b"d/f"), whiteout(b"d")), lower=low)
    case("whiteout of a child after its parent", (whiteout(b"d"), whiteout(b"d/f")), lower=low)
    case(
        "whiteout, then the path",
        (whiteout(b"f"), file(b"f", b"2")),
        {b"f": a_file(b"2")},
        lower=file(b"f"),
    )
    case(
        "the path, then its whiteout",
        (file(b"f", b"2"), whiteout(b"f")),
        {b"f": a_file(b"2")},
        lower=file(b"f"),
    )
    case("a new path, then its whiteout", (file(b"f", b"2"), whiteout(b"f")), {b"f": a_file(b"2")})
    case("directory, child, then its whiteout", (*fresh, whiteout(b"d")), new, lower=low)
    case("whiteout, then the directory", (whiteout(b"d"), *fresh), new, lower=low)
    case("directory, whiteout, child", (fresh[0], whiteout(b"d"), fresh[1]), new, lower=low)
    case(
        "whiteout, then a child without the directory",
        (whiteout(b"d"), file(b"d/n")),
        {**new, b"d": was[b"d"]},  # as where the directory is opaque without an entry
        lower=low,
    )
    case(
        "whiteout of a file, then a directory",
        (whiteout(b"f"), directory(b"f"), file(b"f/g")),
        {b"f": a_directory(), b"f/g": a_file()},
        lower=file(b"f"),
    )
    for at, order in enumerate(("first", "middle", "last")):
        parts = [directory(b"d"), file(b"d/n"), file(b"d/m")]
        parts.insert((0, 2, 3)[at], opaque(b"d"))
        case(f"opaque {order}", tuple(parts), {**new, b"d/m": a_file()}, lower=low)
    case("opaque without an entry of its directory", opaque(b"d"), {b"d": was[b"d"]}, lower=low)
    case(
        "opaque without an entry, and a child",
        (opaque(b"d"), file(b"d/n")),
        {b"d": was[b"d"], b"d/n": a_file()},
        lower=low,
    )
    case(
        "opaque below opaque",
        (directory(b"d"), opaque(b"d"), directory(b"d/e"), opaque(b"d/e"), file(b"d/e/n")),
        {b"d": a_directory(), b"d/e": a_directory(), b"d/e/n": a_file()},
        lower=low,
    )
    case(
        "opaque nested", opaque(b"d/e"), {k: v for k, v in was.items() if k != b"d/e/g"}, lower=low
    )
    case(
        "opaque directory recreated with the same names",
        (directory(b"d"), opaque(b"d"), file(b"d/f", b"2"), directory(b"d/e", mode=0o700)),
        {b"d": a_directory(), b"d/f": a_file(b"2"), b"d/e": a_directory(mode=0o700)},
        lower=low,
    )
    case("opaque in a new directory", (directory(b"d"), opaque(b"d"), file(b"d/n")), new)
    case("opaque in a directory nobody has", opaque(b"nobody"))
    case(
        "opaque over a file of the lower",
        (directory(b"f"), opaque(b"f")),
        {b"f": a_directory()},
        lower=file(b"f"),
    )
    case(
        "opaque and whiteouts",
        (directory(b"d"), whiteout(b"d/f"), opaque(b"d"), whiteout(b"d/e")),
        {b"d": a_directory()},
        lower=low,
    )
    case("opaque case directory", opaque(), lower=low)
    case("opaque case directory, with a child", (opaque(), file(b"n")), {b"n": a_file()}, lower=low)
    case("opaque twice", (opaque(b"d"), opaque(b"d")), {b"d": was[b"d"]}, lower=low)
    case("opaque through a whiteout", (whiteout(b"d"), opaque(b"d")), lower=low)
    case("whiteout of nothing", whiteout(b"nothing"))
    case("whiteout in a directory nobody has", whiteout(b"nobody/x"))
    case(
        "whiteout in a directory of this layer that hides nothing",
        (directory(b"d"), whiteout(b"d/x")),
        {b"d": a_directory()},
    )
    case(
        "whiteout below a file of the lower",
        whiteout(b"f/x"),
        {b"f": a_file(mtime=OLD)},
        lower=file(b"f"),
    )
    link = {
        b"e": a_directory(mtime=OLD),
        b"e/q": a_file(mtime=OLD),
        b"sl": a_symlink(b"e", mtime=OLD),
    }
    linked_low = (directory(b"e"), file(b"e/q"), symlink(b"sl", b"e"))
    case("whiteout below a symlink of the lower", whiteout(b"sl/q"), link, lower=linked_low)
    case(
        "whiteout of a symlink to a directory",
        whiteout(b"sl"),
        {b"e": link[b"e"], b"e/q": link[b"e/q"]},
        lower=linked_low,
    )
    case("opaque below a symlink of the lower", opaque(b"sl"), link, lower=linked_low)
    case("whiteout with a payload", whiteout(b"f", b"payload"), lower=file(b"f"))
    case(
        "whiteout that is a directory",
        lambda p: archives.directory(p.at + b".wh.f/"),
        lower=file(b"f"),
    )
    case(
        "whiteout that is a symlink",
        lambda p: archives.symlink(p.at + b".wh.f", b"/"),
        lower=file(b"f"),
    )
    case("whiteout that is a fifo", lambda p: archives.fifo(p.at + b".wh.f"), lower=file(b"f"))
    case(
        "whiteout that is a device 0:0",
        lambda p: archives.device(p.at + b".wh.f", 0, 0),
        lower=file(b"f"),
    )
    for name in (b".wh..wh.plnk", b".wh..wh.aufs", b".wh..wh.foo"):
        case(f"{name.decode()} is nothing", file(name, b"x"))
        case(f"{name.decode()} makes no parent", file(b"nobody/" + name))
    case(
        ".wh..wh.plnk with something below",
        (directory(b".wh..wh.plnk"), file(b".wh..wh.plnk/1.2", b"x")),
    )
    case("whiteout of a name with 250 bytes", whiteout(b"n" * 250), lower=file(b"n" * 250))
    case("whiteout of a name with 255 bytes", whiteout(b"n" * 255), lower=file(b"n" * 255))
    case("whiteout of a name that is no UTF-8", whiteout(b"\xff\xfe"), lower=file(b"\xff\xfe"))
    case(
        "whiteout of one of two hard links",
        whiteout(b"h1"),
        {b"h2": a_file(b"1", mtime=OLD)},
        lower=(file(b"h1", b"1"), hard_link(b"h2", b"h1")),
    )
    case("whiteout of a name that begins with a dot", whiteout(b".hidden"), lower=file(b".hidden"))
    case("whiteout of three dots", whiteout(b"..."), lower=file(b"..."))
    case(
        "whiteout of a whole chain of directories, and its return",
        (whiteout(b"d"), file(b"d/e/n")),
        {b"d": was[b"d"], b"d/e": was[b"d/e"], b"d/e/n": a_file()},
        lower=low,
    )
