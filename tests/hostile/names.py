"""Names of entries: that climb, that are none, that are too long or too deep."""

from __future__ import annotations

from archives import GNU, directory, file, gnu_long, hard_link, header, padded, pax, symlink, tar

from hostile import Hostile
from storagedrivers.errors import DiffError, MalformedDiffError, UnsafeEntryError

_CLIMBING = (
    b"../escaped",
    b"../../../../../../../tmp/escaped",
    b"dir/../../escaped",
    b"dir/../file",
    b"a/b/../../../escaped",
    b"./../escaped",
    b"/../escaped",
    b"..",
    b"../",
    b"dir/..",
    b"dir/../",
    b"../.",
)


def _climbing() -> list[Hostile]:
    archives = []
    for name in _CLIMBING:
        kind = directory if name.endswith((b"/", b"..", b"/.")) else file
        archives.append(
            Hostile(
                f"climbing name {name.decode()}",
                lambda _, kind=kind, name=name: tar(kind(name)),
                UnsafeEntryError,
                "a file appears outside, or the name is bent to one inside",
                entry=name,
            )
        )
    for how, make in (
        ("PAX path", lambda name: pax({b"path": name}) + file(b"innocent")),
        ("GNU long name", lambda name: gnu_long(name) + file(b"innocent", magic=GNU)),
        ("prefix field", lambda name: file(name[3:], prefix=name[:2])),
        ("symlink", lambda name: symlink(name, b"x")),
        ("whiteout", lambda name: file(b"../.wh.sentinel")),
        ("opaque mark", lambda name: file(b"../.wh..wh..opq")),
        ("name that a second file hides", lambda name: file(name) + file(b"innocent")),
    ):
        archives.append(
            Hostile(
                f"climbing by {how}",
                lambda _, make=make: tar(make(b"../escaped")),
                UnsafeEntryError,
                "a file appears or goes outside",
            )
        )
    return archives


ARCHIVES = [
    *_climbing(),
    Hostile(
        "absolute name",
        lambda outside: tar(file(outside + b"/escaped", b"x")),
        None,
        "the slash in front is obeyed",
    ),
    Hostile(
        "absolute name of a file that is there",
        lambda outside: tar(file(outside + b"/secret", b"overwritten")),
        None,
        "the file outside is overwritten",
    ),
    Hostile(
        "absolute whiteout",
        lambda outside: tar(file(outside + b"/.wh.secret")),
        None,
        "the file outside is removed",
    ),
    Hostile(
        "absolute /proc/self/cwd",
        lambda _: tar(file(b"/proc/self/cwd/escaped", b"x")),
        None,
        "the working directory is written to",
    ),
    Hostile(
        "empty name",
        lambda _: tar(file(b"", b"x")),
        (MalformedDiffError, UnsafeEntryError),
        "the root is replaced by a file",
    ),
    Hostile(
        "empty name of a symlink",
        lambda outside: tar(symlink(b"", outside)),
        (MalformedDiffError, UnsafeEntryError),
        "the root is replaced by a symlink",
    ),
    *(
        Hostile(
            f"file called {name.decode()}",
            lambda outside, name=name: tar(file(name, b"x")),
            (MalformedDiffError, UnsafeEntryError),
            "the root is replaced by a file",
            entry=name,
        )
        # One that ends in a slash is a directory, as V7 had it: no file.
        for name in (b".", b"/.", b"./.", b".//.")
    ),
    *(
        Hostile(
            f"symlink called {name.decode()}",
            lambda outside, name=name: tar(symlink(name, outside), file(b"escaped", b"x")),
            (MalformedDiffError, UnsafeEntryError),
            "the root is replaced by a symlink, and what follows goes through it",
            entry=name,
        )
        for name in (b".", b"/", b"./", b"//", b"./.")
    ),
    Hostile(
        "directory called /",
        lambda _: tar(directory(b"///", mode=0o700)),
        None,
        "the root's own parent gets the metadata",
    ),
    Hostile(
        "name of 256 bytes",
        lambda _: tar(file(b"n" * 256, b"x")),
        DiffError,
        "the name is cut to one that another entry has",
        entry=b"n" * 256,
    ),
    Hostile(
        "directory name of 5000 bytes",
        lambda _: tar(file(b"d/" + b"n" * 5000 + b"/f", b"x")),
        DiffError,
        "the name is cut",
        entry=b"d/" + b"n" * 5000 + b"/f",
    ),
    Hostile(
        "5000 levels",
        lambda _: tar(file(b"d/" * 5000 + b"f", b"x")),
        None,
        "recursion ends in a RecursionError, or a path longer than PATH_MAX in ENAMETOOLONG",
    ),
    Hostile(
        "200 names of 250 bytes below each other",
        lambda _: tar(file((b"n" * 250 + b"/") * 200 + b"f", b"x")),
        None,
        "the path is cut at PATH_MAX",
    ),
    Hostile(
        "1000 levels, again and again",
        lambda _: tar(*(file(b"d/" * 1000 + b"%d" % n, b"x") for n in range(30))),
        None,
        "each entry costs a walk of seconds",
    ),
    Hostile(
        "30000 levels",
        lambda _: tar(file(b"d/" * 30_000 + b"f", b"x")),
        (DiffError, type(None)),  # refused, or made in time
        "the time grows with the square of the depth, or its cube",
    ),
    Hostile(
        "100 hard links to 2000 levels below",
        lambda _: tar(
            file(b"d/" * 2000 + b"f", b"x"),
            *(hard_link(b"h%d" % n, b"d/" * 2000 + b"f") for n in range(100)),
        ),
        (DiffError, type(None)),
        "each link costs the square of the depth",
    ),
    Hostile(
        "100 whiteouts 2000 levels below",
        lambda _: tar(
            file(b"d/" * 2000 + b"f", b"x"),
            *(file(b"d/" * 2000 + b".wh.%d" % n) for n in range(100)),
        ),
        (DiffError, type(None)),
        "each whiteout costs the square of the depth",
    ),
    Hostile(
        "name of nothing but 3000 slashes and a letter",
        lambda _: tar(file(b"/" * 3000 + b"f", b"x")),
        None,
        "each slash costs a level",
    ),
    Hostile(
        "NUL in a PAX path",
        lambda _: tar(pax({b"path": b"file\0/../../escaped"}) + file(b"innocent", b"x")),
        MalformedDiffError,
        "the name is cut at the NUL",
    ),
    Hostile(
        "NUL in a PAX linkpath",
        lambda _: tar(pax({b"linkpath": b"file\0x"}) + symlink(b"s", b"x")),
        MalformedDiffError,
        "the target is cut at the NUL",
    ),
    Hostile(
        "NUL in a GNU long name",
        lambda _: tar(
            header(b"././@LongLink", type=b"L", size=14, magic=GNU)
            + padded(b"good\0/../../e\0")
            + file(b"innocent", b"x", magic=GNU)
        ),
        None,  # a C string: it ends at the NUL, for every reader
        "what comes after the NUL is part of the name",
        without=(b"escaped",),
    ),
    Hostile(
        "PAX path that is empty",
        lambda _: tar(pax({b"path": b""}) + file(b"innocent", b"x")),
        None,
        "the root is replaced by a file",
    ),
    Hostile(
        "global PAX path",
        lambda _: tar(pax({b"path": b"../escaped"}, everywhere=True), file(b"a"), file(b"b")),
        (UnsafeEntryError, MalformedDiffError),
        "every entry is written outside",
    ),
    Hostile(
        "a file, then a file below it",
        lambda _: tar(file(b"x", b"1"), file(b"x/y", b"2")),
        None,
        "an untyped ENOTDIR",
    ),
    Hostile(
        "directories that become files and back, 500 times",
        lambda _: tar(*(file(b"x/y", b"1") + file(b"x", b"2") for _ in range(500))),
        None,
        "a descriptor of the directory that is gone is written to",
    ),
    Hostile(
        "3000 duplicates",
        lambda _: tar(*(file(b"same", b"%d" % n) for n in range(3000))),
        None,
        "anything but the last is there",
    ),
    Hostile(
        "name of another file's temporary",
        lambda _: tar(file(b".tmp", b"1"), file(b"file.tmp", b"2"), file(b"~", b"3")),
        None,
        "an entry meets a temporary name of the unpacking",
    ),
]
