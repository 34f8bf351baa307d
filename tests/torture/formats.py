"""Names, headers and sparse maps as tars have them; special files."""

from __future__ import annotations

import archives
from archives import GNU, TIME, V7

from torture.parts import (
    OLD,
    Part,
    Place,
    a_device,
    a_directory,
    a_file,
    a_symlink,
    case,
    device,
    directory,
    file,
    symlink,
    with_pax,
    with_xattrs,
)


def names() -> None:
    for name in (
        b"\xff\xfe not UTF-8",
        b"new\nline",
        b" leading blank",
        b"trailing blank ",
        b"-rf",
        b"back\\slash",
        b"tab\there",
        b"\x01\x7f",
        b"\xe2\x98\x83",
        b"...",
        b"..a",
        b".wh",
        b".who",
        b"wh.x",
        b"*?[]{}$",
        b"'\"",
        b"%s%n",
        b"n" * 100,
        b"n" * 101,
        b"n" * 255,
        b"\xe9" * 255,
    ):
        shown = name.decode("latin-1").encode("unicode_escape").decode()[:24].replace("/", "+")
        case(f"file called {len(name)} {shown}", file(name, name), {name: a_file(name)})
    case("symlink to what is no UTF-8", symlink(b"l", b"\xff\xfe"), {b"l": a_symlink(b"\xff\xfe")})
    case("symlink to 1000 bytes", symlink(b"l", b"t/" * 500), {b"l": a_symlink(b"t/" * 500)})
    case(
        "symlink to outside is just a symlink",
        symlink(b"l", b"../../../../etc"),
        {b"l": a_symlink(b"../../../../etc")},
    )
    case("symlink to itself", symlink(b"l", b"l"), {b"l": a_symlink(b"l")})
    deep = b"/".join([b"d"] * 60)
    levels = {deep[: 2 * n + 1]: a_directory() for n in range(60)}
    case("60 levels", file(deep + b"/f", b"x"), {**levels, deep + b"/f": a_file(b"x")})
    case("a dot in front", lambda p: archives.file(b"./" + p.at + b"f"), {b"f": a_file()})
    case("a slash in front", lambda p: archives.file(b"/" + p.at + b"f"), {b"f": a_file()})
    case(
        "slashes and dots in front and between",
        lambda p: archives.file(b"//./" + p.at + b".//a/./f"),
        {b"a": a_directory(), b"a/f": a_file()},
    )
    case(
        "directory without a slash",
        lambda p: archives.directory(p.at + b"d"),
        {b"d": a_directory()},
    )
    case(
        "directory with many slashes",
        lambda p: archives.directory(p.at + b"d///"),
        {b"d": a_directory()},
    )
    case(
        "directory with a dot behind",
        lambda p: archives.directory(p.at + b"d/."),
        {b"d": a_directory()},
    )


def formats() -> None:
    case(
        "file called with a slash behind in V7 is a directory",
        lambda p: archives.header(p.at + b"d/", type=b"\0", magic=V7, mode=0o700),
        {b"d": a_directory(mode=0o700)},
    )
    case(
        "V7 header",
        lambda p: archives.file(p.at + b"f", b"x", type=b"\0", magic=V7),
        {b"f": a_file(b"x")},
    )
    case(
        "V7 symlink",
        lambda p: archives.symlink(p.at + b"l", b"x", magic=V7),
        {b"l": a_symlink(b"x")},
    )
    case("GNU header", lambda p: archives.file(p.at + b"f", b"x", magic=GNU), {b"f": a_file(b"x")})
    case("contiguous file", file(b"f", b"x" * 600, type=b"7"), {b"f": a_file(b"x" * 600)})
    for size in (0, 1, 511, 512, 513, 1024, 70_000, 3 << 20):
        content = bytes(range(256)) * (size // 256 + 1)
        case(f"file of {size} bytes", file(b"f", content[:size]), {b"f": a_file(content[:size])})
    case(
        "numbers with blanks around",
        file(b"f", b"x", mode=b"  644 ", uid=b"   5 \0", gid=b" 6\0"),
        {b"f": a_file(b"x", uid=5, gid=6)},
    )
    case(
        "numbers that are empty",
        file(b"f", b"", mode=b"644", uid=b"", gid=b" ", size=b""),
        {b"f": a_file()},
    )
    case(
        "numbers in base 256 that would fit",
        file(
            b"f",
            b"xy",
            uid=archives.base256(5, 8),
            gid=archives.base256(6, 8),
            size=archives.base256(2, 12),
            mtime=archives.base256(TIME, 12),
        ),
        {b"f": a_file(b"xy", uid=5, gid=6)},
    )
    case(
        "octal numbers that fill their field",
        file(b"f", b"x", size=b"000000000001", mtime=b"13132027400 "),
        {b"f": a_file(b"x", mtime=0o13132027400)},
    )
    signed = b"\xff" * 3

    def summed_signed(p: Place) -> bytes:
        block = archives.header(p.at + signed)
        total = sum(
            byte - 256 if byte > 127 else byte for byte in archives.with_checksum(block, b" " * 8)
        )
        return archives.with_checksum(block, b"%06o\0 " % total)

    case("checksum of signed bytes", summed_signed, {signed: a_file()})
    case(
        "checksum with blanks",
        lambda p: archives.with_checksum(
            h := archives.header(p.at + b"f"), b"%6o \0" % sum(archives.with_checksum(h, b" " * 8))
        ),
        {b"f": a_file()},
    )
    case(
        "name in prefix and name",
        lambda p: archives.file(b"b/f", b"x", prefix=p.at + b"a"),
        {b"a": a_directory(), b"a/b": a_directory(), b"a/b/f": a_file(b"x")},
    )
    case(
        "long prefix and name",
        lambda p: archives.file(b"n" * 100, b"x", prefix=p.at + b"p" * 100),
        {b"p" * 100: a_directory(), b"p" * 100 + b"/" + b"n" * 100: a_file(b"x")},
    )
    case(
        "GNU long name",
        lambda p: (
            archives.gnu_long(p.at + b"n" * 200)
            + archives.file((p.at + b"n" * 200)[:100], b"x", magic=GNU)
        ),
        {b"n" * 200: a_file(b"x")},
    )
    case(
        "GNU long name and long target",
        lambda p: (
            archives.gnu_long(b"t" * 300, link=True)
            + archives.gnu_long(p.at + b"n" * 200)
            + archives.header(
                (p.at + b"n" * 200)[:100], type=b"2", mode=0o777, link=b"t" * 100, magic=GNU
            )
        ),
        {b"n" * 200: a_symlink(b"t" * 300)},
    )
    case(
        "GNU long name of a directory",
        lambda p: (
            archives.gnu_long(p.at + b"n" * 200 + b"/")
            + archives.directory((p.at + b"n" * 200)[:100], magic=GNU)
        ),
        {b"n" * 200: a_directory()},
    )
    case(
        "PAX path",
        lambda p: archives.pax({b"path": p.at + b"f"}) + archives.file(b"other", b"x"),
        {b"f": a_file(b"x")},
    )
    case(
        "PAX linkpath",
        lambda p: archives.pax({b"linkpath": b"there"}) + archives.symlink(p.at + b"l", b"here"),
        {b"l": a_symlink(b"there")},
    )
    case(
        "PAX path twice, the last counts",
        lambda p: (
            archives.pax([(b"path", p.at + b"e"), (b"path", p.at + b"f")])
            + archives.file(b"other", b"x")
        ),
        {b"f": a_file(b"x")},
    )
    case(
        "PAX path with an empty value is none",
        with_pax(file(b"f"), {b"path": b""}),
        {b"f": a_file()},
    )
    case(
        "PAX size over a header of none",
        with_pax(file(b"f", b"12345", size=0), {b"size": b"5"}),
        {b"f": a_file(b"12345")},
    )
    case(
        "PAX records nobody knows",
        with_pax(
            file(b"f"), {b"comment": b"x", b"VENDOR.key": b"\0\xff", b"hdrcharset": b"BINARY"}
        ),
        {b"f": a_file()},
    )
    case(
        "PAX owner names that are wrong here",
        with_pax(file(b"f", uid=3, gid=4), {b"uname": b"nobody", b"gname": b"nobody"}),
        {b"f": a_file(uid=3, gid=4)},
    )
    case(
        "PAX header and GNU long name",
        lambda p: (
            archives.pax({b"mtime": b"5"})
            + archives.gnu_long(p.at + b"n" * 150)
            + archives.file(b"short", b"x", magic=GNU)
        ),
        {b"n" * 150: a_file(b"x", mtime=5)},
    )
    case(
        "PAX header without records",
        lambda p: archives.pax({}) + archives.file(p.at + b"f"),
        {b"f": a_file()},
    )
    case(
        "symlink with a size in the header",
        lambda p: archives.symlink(p.at + b"l", b"x", size=0, mode=0o120777),
        {b"l": a_symlink(b"x")},
    )
    case(
        "whole header in PAX",
        with_pax(
            file(b"f", b"x"),
            {
                b"uid": b"7",
                b"gid": b"8",
                b"mtime": b"9.5",
                b"size": b"1",
                b"SCHILY.xattr.user.a": b"b",
            },
        ),
        {b"f": a_file(b"x", uid=7, gid=8, mtime_ns=9_500_000_000, xattrs=(("user.a", b"b"),))},
    )


def sparse() -> None:
    def sparse(parts: list[tuple[int, int]], size: int) -> tuple[bytes, bytes]:
        """Payload in the tar, and content on disk."""
        content = bytearray(size)
        payload = b""
        for offset, length in parts:
            data = (b"%08d" % offset * (length // 8 + 1))[:length]
            content[offset : offset + length] = data
            payload += data
        return payload, bytes(content)

    many = [(n * 8192, 512) for n in range(60)]
    for name, parts, size in (
        ("one part", [(4096, 512)], 1 << 20),
        ("data at both ends", [(0, 512), (1048064, 512)], 1 << 20),
        ("odd lengths", [(512, 100), (8192, 1)], 8193),
        ("a hole at the end", [(0, 512)], 65536),
        ("nothing but a hole", [], 65536),
        ("an empty part at the end", [(0, 512), (65536, 0)], 65536),
        ("60 parts", many, 1 << 19),
        ("no hole at all", [(0, 1000)], 1000),
    ):
        payload, content = sparse(parts, size)
        for form, make in (
            ("old GNU", archives.old_gnu_sparse),
            ("PAX 0.0", archives.pax_sparse_00),
            ("PAX 0.1", archives.pax_sparse_01),
            ("PAX 1.0", archives.pax_sparse_10),
        ):
            case(
                f"sparse {form} with {name}",
                lambda p, make=make, parts=parts, payload=payload, size=size: make(
                    p.at + b"f", parts, payload, size
                ),
                {b"f": a_file(content)},
            )


def specials() -> None:
    null = {"major": 1, "minor": 3}
    case("device 0:0 is skipped", lambda p: archives.device(p.at + b"c", 0, 0), {})
    case(
        "device 0:0 hides nothing",
        lambda p: archives.device(p.at + b"c", 0, 0),
        {b"c": a_file(b"x", mtime=OLD)},
        lower=file(b"c", b"x"),
    )
    for major, minor in ((1, 3), (511, 262_143), (0, 1), (1, 0), (259, 70_000)):
        case(f"device {major}:{minor}", device(b"c", major, minor), {b"c": a_device(major, minor)})
    case("device numbers on a file mean nothing", file(b"f", b"x", **null), {b"f": a_file(b"x")})
    case(
        "an unchanged copy of what lies below",
        file(b"f", b"x", mtime=OLD),
        {b"f": a_file(b"x", mtime=OLD)},
        lower=file(b"f", b"x"),
    )
    case(
        "only the mode changed",
        file(b"f", b"x", mtime=OLD, mode=0o600),
        {b"f": a_file(b"x", mtime=OLD, mode=0o600)},
        lower=file(b"f", b"x"),
    )
    case(
        "only the content changed",
        file(b"f", b"y", mtime=OLD),
        {b"f": a_file(b"y", mtime=OLD)},
        lower=file(b"f", b"x"),
    )
    case(
        "only an attribute changed",
        with_xattrs(file(b"f", b"x", mtime=OLD), {b"user.a": b"2"}),
        {b"f": a_file(b"x", mtime=OLD, xattrs=(("user.a", b"2"),))},
        lower=with_xattrs(file(b"f", b"x"), {b"user.a": b"1"}),
    )
    case(
        "only a directory's time changed",
        directory(b"d"),
        {b"d": a_directory(), b"d/f": a_file(mtime=OLD)},
        lower=(directory(b"d"), file(b"d/f")),
    )
    case(
        "only a symlink's owner changed",
        symlink(b"l", b"x", mtime=OLD, uid=9),
        {b"l": a_symlink(b"x", mtime=OLD, uid=9)},
        lower=symlink(b"l", b"x"),
    )
    case("nothing at all")
    case(
        "200 files in one directory",
        tuple(file(b"%d" % n, b"%d" % n) for n in range(200)),
        {b"%d" % n: a_file(b"%d" % n) for n in range(200)},
    )


def everywhere() -> None:
    """Global PAX headers hold for all that follows: these come last, and take themselves back."""

    def everywhere(records: dict[bytes, bytes]) -> Part:
        return lambda _: archives.pax(records, everywhere=True)

    case(
        "global PAX comment of git archive",
        (everywhere({b"comment": b"0" * 40}), file(b"f")),
        {b"f": a_file()},
    )
    back = everywhere({b"mtime": b""})
    case(
        "global PAX time",
        (everywhere({b"mtime": b"77.5"}), file(b"f"), file(b"g"), back, file(b"h")),
        {
            b"f": a_file(mtime_ns=77_500_000_000),
            b"g": a_file(mtime_ns=77_500_000_000),
            b"h": a_file(),
        },
    )
    case(
        "global PAX time, and one of the entry's own",
        (everywhere({b"mtime": b"77"}), with_pax(file(b"f"), {b"mtime": b"88"}), file(b"g"), back),
        {b"f": a_file(mtime=88), b"g": a_file(mtime=77)},
    )
    case(
        "global PAX owner",
        (
            everywhere({b"uid": b"5", b"gid": b"6"}),
            file(b"f"),
            directory(b"d"),
            everywhere({b"uid": b"", b"gid": b""}),
        ),
        {b"f": a_file(uid=5, gid=6), b"d": a_directory(uid=5, gid=6)},
    )
