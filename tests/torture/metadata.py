"""Modes, owners, times and extended attributes."""

from __future__ import annotations

import os
import struct
from dataclasses import replace

from storagedrivers.testing.trees import ACL, CAPABILITY
from torture.kinds import KINDS
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
    symlink,
    with_pax,
    with_xattrs,
)


def metadata() -> None:
    for mode in (0, 0o111, 0o600, 0o777, 0o1644, 0o2644, 0o4644, 0o4755, 0o6755, 0o7777):
        case(
            f"file with mode {mode:o}", file(b"f", b"x", mode=mode), {b"f": a_file(b"x", mode=mode)}
        )
    for mode in (0, 0o700, 0o1777, 0o2755, 0o3777, 0o7777):
        case(
            f"directory with mode {mode:o}",
            directory(b"d", mode=mode),
            {b"d": a_directory(mode=mode)},
        )
    case("mode with a file's type bits", file(b"f", mode=0o100640), {b"f": a_file(mode=0o640)})
    case(
        "setuid of another owner",
        file(b"f", uid=33, gid=44, mode=0o6755),
        {b"f": a_file(uid=33, gid=44, mode=0o6755)},
    )
    case(
        "fifo with a mode and an owner",
        fifo(b"f", mode=0o620, uid=1, gid=2),
        {b"f": a_fifo(mode=0o620, uid=1, gid=2)},
    )
    case(
        "symlink with an owner",
        symlink(b"l", b"x", uid=1, gid=2),
        {b"l": a_symlink(b"x", uid=1, gid=2)},
    )
    case(
        "device with a mode and an owner",
        device(b"c", 5, 1, mode=0o620, gid=5),
        {b"c": a_device(5, 1, mode=0o620, gid=5)},
    )
    for uid, gid in (
        (2_097_151, 1),
        (2_097_152, 3_000_000),
        (2**31, 2**31 + 1),
        (2**32 - 2, 2**32 - 2),
    ):
        case(
            f"owner {uid}:{gid} in the header",
            file(b"f", uid=uid, gid=gid),
            {b"f": a_file(uid=uid, gid=gid)},
        )
        records = {b"uid": b"%d" % uid, b"gid": b"%d" % gid}
        case(
            f"owner {uid}:{gid} in PAX",
            with_pax(file(b"f"), records),
            {b"f": a_file(uid=uid, gid=gid)},
        )
    for text, time_ns in (
        ("1500000000.123456789", 1_500_000_000_123_456_789),
        ("1500000000.5", 1_500_000_000_500_000_000),
        ("1500000000.", 1_500_000_000_000_000_000),
        ("1500000000.1234567891", 1_500_000_000_123_456_789),
        ("0", 0),
        ("0.000000001", 1),
        ("-1", -1_000_000_000),
        ("-1.5", -1_500_000_000),
        ("-0.25", -250_000_000),
        ("-2000000000.75", -2_000_000_000_750_000_000),
        ("8000000000", 8_000_000_000_000_000_000),
    ):
        part = with_pax(file(b"f"), {b"mtime": text.encode()})
        case(f"time {text} in PAX", part, {b"f": a_file(mtime_ns=time_ns)})
    for time in (0, 1, -1, -2_000_000_000, 8_000_000_000, 2**33 - 1):
        case(f"time {time} in the header", file(b"f", mtime=time), {b"f": a_file(mtime=time)})
    for kind in ("directory", "symlink", "fifo", "device"):
        make, show = KINDS[kind]
        part = with_pax(make(b"x"), {b"mtime": b"-5.25"})
        case(
            f"{kind} with a time before 1970",
            part,
            {b"x": replace(show(0), mtime_ns=-5_250_000_000)},
        )
    case(
        "an atime and a ctime that nobody asked for",
        with_pax(file(b"f"), {b"atime": b"1", b"ctime": b"2"}),
        {b"f": a_file()},
    )


def attributes() -> None:
    def on_file(name: str, values: dict[bytes, bytes], **fields: object) -> None:
        shown = tuple(sorted((os.fsdecode(key), value) for key, value in values.items()))
        part = with_xattrs(file(b"f", b"x", **fields), values)
        case(name, part, {b"f": a_file(b"x", xattrs=shown, **fields)})  # type: ignore[arg-type]

    on_file("security.capability", {b"security.capability": CAPABILITY})
    on_file("security.capability with an owner", {b"security.capability": CAPABILITY}, uid=5, gid=6)
    rooted = struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, 1000)
    on_file("security.capability of a namespace", {b"security.capability": rooted})
    on_file("capability and setuid", {b"security.capability": CAPABILITY}, mode=0o4755)
    on_file("user attribute", {b"user.name": b"value"})
    on_file("user attribute that is empty", {b"user.name": b""})
    on_file("user attribute with a NUL and a newline", {b"user.name": b"\0\n=\xff" * 9})
    on_file("user attribute with an equals sign in its value", {b"user.name": b"a=b=c"})
    on_file("user attribute with an odd name", {b"user.\xc3\xa9 \xe2\x98\x83": b"1"})
    on_file("user attribute with a long name", {b"user." + b"n" * 250: b"1"})
    on_file("user attribute of 3000 bytes", {b"user.big": b"v" * 3000})
    on_file("many user attributes", {b"user.%d" % one: b"v" for one in range(40)})
    on_file("trusted attribute", {b"trusted.note": b"kept"})
    on_file("trusted attribute that nearly is overlay's", {b"trusted.overlayish": b"kept"})
    on_file("security attribute of nobody", {b"security.nobody": b"1"})
    access = {b"system.posix_acl_access": ACL}
    shown = (("system.posix_acl_access", ACL),)
    case(
        "access ACL",
        with_xattrs(file(b"f", mode=0o640), access),
        {b"f": a_file(mode=0o640, xattrs=shown)},
    )
    default = {b"system.posix_acl_default": ACL}
    case(
        "access and default ACL",
        (
            with_xattrs(directory(b"d", mode=0o640), {**access, **default}),
            file(b"d/f"),
            file(b"d/e/f"),
        ),
        {
            b"d": a_directory(mode=0o640, xattrs=(*shown, ("system.posix_acl_default", ACL))),
            b"d/f": a_file(),
            b"d/e": a_directory(),
            b"d/e/f": a_file(),
        },
    )
    case(
        "trusted attribute on a symlink",
        with_xattrs(symlink(b"l", b"x"), {b"trusted.t": b"1"}),
        {b"l": a_symlink(b"x", xattrs=(("trusted.t", b"1"),))},
    )
    case(
        "trusted attribute on a fifo",
        with_xattrs(fifo(b"p"), {b"trusted.t": b"1"}),
        {b"p": a_fifo(xattrs=(("trusted.t", b"1"),))},
    )
    case(
        "user attribute on a directory",
        (with_xattrs(directory(b"d"), {b"user.a": b"1"}), file(b"d/f")),
        {b"d": a_directory(xattrs=(("user.a", b"1"),)), b"d/f": a_file()},
    )
    case(
        "user attribute on a symlink, which cannot have one",
        with_xattrs(symlink(b"l", b"x"), {b"user.a": b"1"}),
        {b"l": a_symlink(b"x")},
    )
    for prefix in (b"trusted.overlay.", b"user.overlay."):
        for name, value in (
            (b"opaque", b"y"),
            (b"redirect", b"/elsewhere"),
            (b"metacopy", b""),
            (b"origin", b"x"),
            (b"whiteout", b""),
            (b"overlay.opaque", b"y"),
        ):
            full = prefix + name
            case(
                f"{full.decode()} is dropped",
                (
                    with_xattrs(directory(b"d"), {full: value, b"user.a": b"1"}),
                    with_xattrs(file(b"f", b"x"), {full: value}),
                ),
                {
                    b"d": a_directory(xattrs=(("user.a", b"1"),)),
                    b"d/q": a_file(mtime=OLD),
                    b"f": a_file(b"x"),
                },
                lower=(directory(b"d"), file(b"d/q")),
            )
