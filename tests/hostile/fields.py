"""Numbers and records that lie."""

from __future__ import annotations

import archives
from archives import (
    GNU,
    base256,
    device,
    directory,
    file,
    gnu_long,
    hard_link,
    header,
    octal,
    padded,
    pax,
    pax_record,
    symlink,
    tar,
    xattrs,
)

from hostile import Hostile
from storagedrivers.errors import DiffError, MalformedDiffError

_F = b"the-file"
_EXABYTE = 1 << 60


def _bad(name: str, data: bytes, *, never: str, error=MalformedDiffError, entry=None, **more):  # type: ignore[no-untyped-def]
    return Hostile(name, lambda _: data, error, never, entry=entry, **more)


def _sizes() -> list[Hostile]:
    rest = "memory for the size is taken, or what follows is read as content"
    lies = {
        "bigger than the rest": octal(1 << 20, 12),
        "of 8 GiB": octal((1 << 33) - 1, 12),
        "of an exabyte": base256(_EXABYTE, 12),
        "of 2^87": base256((1 << 87) - 1, 12),
        "that is negative": base256(-1, 12),
        "that is very negative": base256(-(1 << 90), 12),
        "with a minus sign": b"-0000000001\0",
        "with digits that are not octal": b"00000000089\0",
        "that is hexadecimal": b"0x000000010\0",
        "in letters": b"many bytes..",
        "with a blank between digits": b"000 0000001\0",
        "with an underscore between digits": b"00_00000001\0",
        "in digits of another script": "٣٣٣".encode().ljust(12, b"\0"),
    }
    found = [
        _bad(f"size {how}", tar(file(_F, size=field)), never=rest, entry=_F)
        for how, field in lies.items()
    ]
    found += [
        _bad(
            "size that hides the next entry",
            tar(file(_F, b"x", size=1024), file(b"next", b"y")),
            never="half of an entry is taken for one",
            error=(MalformedDiffError, DiffError),
        ),
        _bad(
            "size smaller than the content",
            tar(file(_F, b"x" * 2000, size=100)),
            never="content is taken for a header",
        ),
        _bad(
            "content that is a header",
            tar(file(_F, file(b"../escaped", b"x"))),
            never="content is taken for a header",
            error=None,
        ),
    ]
    for kind, make in (
        ("symlink", lambda size: symlink(_F, b"x", size=size)),
        ("directory", lambda size: directory(_F + b"/", size=size)),
        ("hard link", lambda size: file(b"f", b"x") + hard_link(_F, b"f", size=size)),
        ("fifo", lambda size: archives.fifo(_F, size=size)),
    ):
        found.append(
            _bad(
                f"{kind} with a size of an exabyte",
                tar(make(base256(_EXABYTE, 12))),
                never=rest,
                error=None,  # these have no content, whatever it says
            )
        )
    return found


def _pax_sizes() -> list[Hostile]:
    found = []
    for how, value, size in (
        ("negative", b"-1", 0),
        ("of an exabyte", b"%d" % _EXABYTE, 0),
        ("of 10^4000", b"1" + b"0" * 4000, 0),
        ("no number", b"big", 0),
        ("with a plus sign", b"+1", 1),
        ("with a blank", b" 1", 1),
        ("hexadecimal", b"0x10", 16),
        ("a fraction", b"1.5", 1),
        ("with a NUL", b"1\x002", 1),
        ("with an underscore", b"1_0", 10),
        ("smaller than the content", b"1", 2000),
        ("bigger than the rest", b"100000", 5),
    ):
        content = b"x" * size
        found.append(
            _bad(
                f"PAX size {how}",
                tar(pax({b"size": value}) + file(_F, content)),
                never="memory for the size is taken, or what follows is read as content",
            )
        )
    for key in (b"uid", b"gid", b"mtime"):
        for value in (b"x", b"1_0", b"1" + b"0" * 5000, b"nan", b"1e99", "٣".encode(), b"--1"):
            found.append(
                _bad(
                    f"PAX {key.decode()} {value[:8]!r} of {len(value)} bytes",
                    tar(pax({key: value}) + file(_F, b"x")),
                    never="an untyped ValueError, or a number that was cut",
                    error=DiffError,
                )
            )
    return found


def _records() -> list[Hostile]:
    good = pax_record(b"comment", b"x")
    lies = {
        "without a length": b"path=../escaped\n",
        "with a length of 0": b"0 path=escaped\n",
        "with a length that is too short": b"9 path=escaped\n",
        "with a length that is too long": b"99 path=escaped\n",
        "with a length of 10^30": b"1" + b"0" * 30 + b" path=escaped\n",
        "with a length of 5000 digits": b"9" * 5000 + b" path=escaped\n",
        "with a negative length": b"-16 path=escaped\n",
        "with a zero in front of its length": b"016 path=escaped\n",
        "without an equals sign": b"16 path.escaped\n",
        "without a newline": b"16 path=escaped.",
        "without a key": b"12 =escaped\n",
        "without a blank": b"16path=escaped.\n",
        "of a length and nothing": b"2\n",
        "of a length and a blank": b"3 \n",
        "that ends in the middle": good[:-4],
        "of NULs": bytes(600),
        "that is followed by garbage": good + b"garbage",
    }
    never = "a record is guessed, or the reading never ends"
    found = [
        _bad(f"PAX record {how}", tar(pax(data) + file(_F, b"x")), never=never)
        for how, data in lies.items()
    ]
    found += [
        _bad(
            f"global PAX record {how}",
            tar(pax(lies[how], everywhere=True), file(_F, b"x")),
            never=never,
        )
        for how in ("with a length of 0", "with a length that is too long", "without a newline")
    ]
    huge = {"size": base256(_EXABYTE, 12)}
    found += [
        _bad("PAX header of an exabyte", tar(pax(good, **huge)), never="memory for it is taken"),
        _bad(
            "global PAX header of an exabyte",
            tar(pax(good, everywhere=True, **huge)),
            never="memory for it is taken",
        ),
        _bad(
            "PAX header of 200 MB",
            tar(pax(pax_record(b"comment", b"x" * 200_000_000)) + file(_F)),
            never="memory for it is taken",
            error=DiffError,
        ),
        _bad("PAX header at the end", tar(pax(good)), never="it is passed over"),
        _bad(
            "PAX header before another",
            tar(pax({b"mtime": b"1"}) + pax({b"mtime": b"2"}) + file(_F)),
            never="one of them counts for an entry that it is not of",
            error=None,
        ),
        _bad(
            "50000 PAX headers in a row",
            tar(pax(good) * 50_000 + file(_F)),
            never="each takes memory, or a level of recursion",
            error=None,
        ),
        _bad(
            "30000 global PAX headers with keys of their own",
            tar(*(pax({b"key%d" % n: b"v" * 400}, everywhere=True) for n in range(30_000))),
            never="each takes memory for good",
            error=None,
        ),
        _bad(
            "PAX header of 30000 attributes",
            tar(xattrs({b"user.%d" % n: b"v" for n in range(30_000)}) + file(_F)),
            never="an untyped ENOSPC",
            error=DiffError,
        ),
    ]
    for link in (False, True):
        what = "target" if link else "name"
        huge = {"size": base256(_EXABYTE, 12)}
        found += [
            _bad(
                f"GNU long {what} with a size of an exabyte",
                tar(gnu_long(b"n", link=link, **huge)),
                never="memory for it is taken",
            ),
            _bad(
                f"GNU long {what} with a size beyond the end",
                tar(gnu_long(b"n", link=link, size=60_000) + file(_F, magic=GNU)),
                never="what follows is part of the name",
            ),
            _bad(
                f"GNU long {what} with a negative size",
                tar(gnu_long(b"n", link=link, size=base256(-5, 12)) + file(_F, magic=GNU)),
                never="an untyped ValueError",
            ),
            _bad(
                f"GNU long {what} at the end",
                tar(gnu_long(b"n", link=link)),
                never="it is passed over",
            ),
        ]
    found.append(
        _bad(
            "GNU long name of nothing",
            tar(gnu_long(b"", size=0) + file(_F, magic=GNU)),
            never="the root is replaced",
            error=DiffError,
        )
    )
    return found


def _numbers() -> list[Hostile]:
    found = []
    for how, field in (
        ("2^32", base256(1 << 32, 8)),
        ("2^32-1, which means nobody", base256((1 << 32) - 1, 8)),
        ("2^55", base256(1 << 55, 8)),
        ("negative", base256(-1, 8)),
        ("in letters", b"nobody\0\0"),
        ("not octal", b"0000009\0"),
    ):
        found.append(
            _bad(
                f"owner that is {how}",
                tar(file(_F, b"x", uid=field)),
                never="an untyped OverflowError, or an owner of 0",
                error=DiffError,
                entry=_F,
            )
        )
    for how, major, minor in (
        ("negative major", base256(-1, 8), 0),
        ("negative minor", 1, base256(-1, 8)),
        ("major of 4096", 4096, 0),
        ("minor of 2^20", 1, 1 << 20),
        ("major of 2^31", base256(1 << 31, 8), 0),
        ("minor of 2^31", 1, base256(1 << 31, 8)),
        ("major of 2^55", base256(1 << 55, 8), 0),
        ("major of 2^32, which would be 0:0", base256(1 << 32, 8), 0),
        ("major in letters", b"disk\0\0\0\0", 0),
    ):
        for kind in (b"3", b"4"):
            found.append(
                _bad(
                    f"{'character' if kind == b'3' else 'block'} device with a {how}",
                    tar(device(_F, major, minor, type=kind)),
                    never="an untyped OverflowError, or another device",
                    error=DiffError,
                    entry=_F,
                )
            )
    for how, field in (
        ("of 2^60", base256(1 << 60, 12)),
        ("of -2^60", base256(-(1 << 60), 12)),
        ("of 2^90", base256(1 << 90, 12)),
    ):
        found.append(
            _bad(
                f"time {how}",
                tar(file(_F, b"x", mtime=field)),
                never="an untyped OverflowError",
                error=(DiffError, type(None)),  # filesystems clamp
            )
        )
    found += [
        _bad(
            "mode of 2^60",
            tar(file(_F, b"x", mode=base256(1 << 55, 8))),
            never="an untyped OverflowError",
            error=None,
        ),
        _bad(
            "mode in letters",
            tar(file(_F, b"x", mode=b"rw-r--r-")),
            never="an untyped ValueError",
            entry=_F,
        ),
    ]
    for flag in (b"8", b"9", b"M", b"N", b"A", b"I", b"\xff", b"?", b"\n"):
        found.append(
            _bad(
                f"type {flag!r}",
                tar(file(_F, b"x", type=flag)),
                never="an entry is passed over without a word",
                error=DiffError,
            )
        )
    return found


def _attributes() -> list[Hostile]:
    found = []
    for how, key, value, error in (
        ("without a name", b"", b"v", DiffError),
        ("with a NUL in its name", b"user.a\0b", b"v", DiffError),
        ("with a name of 300 bytes", b"user." + b"n" * 300, b"v", DiffError),
        ("with a name of 60000 bytes", b"user." + b"n" * 60_000, b"v", DiffError),
        ("of 100000 bytes", b"user.a", b"v" * 100_000, DiffError),
        ("beyond what the filesystem can hold", b"user.a", b"v" * 60_000, DiffError),
        ("of no namespace", b"nothing", b"v", None),
        ("of a namespace nobody knows", b"elsewhere.a", b"v", None),
        ("that is an ACL which is none", b"system.posix_acl_access", b"garbage", None),
        ("that is a capability which is none", b"security.capability", b"garbage", DiffError),
        ("of the kernel's own", b"system.nfs4_acl", b"v", None),
    ):
        found.append(
            _bad(
                f"attribute {how}",
                tar(xattrs({key: value}) + file(_F, b"x")),
                never="an untyped OSError, or the word that the disk is full",
                error=error,
            )
        )
    for prefix in (b"trusted.overlay.", b"user.overlay."):
        for name, value in (
            (b"opaque", b"y"),
            (b"opaque", b"x"),
            (b"redirect", b"/link-out"),
            (b"redirect", b"../../outside"),
            (b"metacopy", b""),
            (b"whiteout", b"y"),
        ):
            found.append(
                _bad(
                    f"attribute {(prefix + name).decode()}={value.decode()}",
                    tar(
                        xattrs({prefix + name: value}) + directory(b"dir/"),
                        xattrs({prefix + name: value}) + file(b"file", b""),
                        xattrs({prefix + name: value}) + directory(b"./"),
                    ),
                    never="overlay obeys it",
                    error=None,
                )
            )
    return found


def _checksums() -> list[Hostile]:
    block = header(_F)
    found = [
        _bad(f"checksum {how}", tar(header(_F, checksum=field)), never="the header is believed")
        for how, field in (
            ("wrong", b"000001\0 "),
            ("wrong by 65521", b"%06o\0 " % (65521 + int(block[148:154], 8))),
            ("empty", bytes(8)),
            ("in letters", b"checksum"),
            ("negative", base256(-1, 8)),
            ("huge", base256(1 << 55, 8)),
        )
    ]
    found += [
        _bad("block of 0xff", tar(b"\xff" * 512), never="it is taken for a header"),
        _bad("block of blanks", tar(b" " * 512), never="it is taken for a header"),
        _bad(
            "one bad block between good entries",
            tar(file(b"a", b"x"), b"\1" * 512, file(b"b", b"x")),
            never="it is passed over",
        ),
        _bad(
            "end mark in the middle",
            tar(file(b"a", b"x"), bytes(1024), file(b"../escaped", b"x")),
            never="what comes after the end is unpacked",
            error=None,
            without=(b"escaped",),
        ),
        _bad(
            "one zero block in the middle",
            tar(file(b"a", b"x"), bytes(512), padded(b"garbage")),
            never="garbage is taken for a header",
            error=(MalformedDiffError, DiffError),
        ),
    ]
    return found


ARCHIVES = [
    *_sizes(),
    *_pax_sizes(),
    *_records(),
    *_numbers(),
    *_attributes(),
    *_checksums(),
]
