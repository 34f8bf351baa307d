"""The image that the cases begin with."""

from __future__ import annotations

import io
import os
import tarfile

import running

from build_cases.contexts import TIME
from storagedrivers.storage import Storage
from storagedrivers.testing.trees import CAPABILITY

NAME = "base"

_APPLETS = (
    *("awk", "basename", "chgrp", "chmod", "chown", "cmp", "cp", "cut"),
    *("dirname", "du", "expr", "find", "gunzip", "gzip", "ln", "md5sum", "mkdir"),
    *("mkfifo", "mktemp", "mv", "od", "printf", "realpath", "rm", "rmdir", "sed", "sha256sum"),
    *("sort", "tail", "tar", "tr", "uname", "uniq", "whoami", "xargs"),
)

_OWNER = {"uid": 12, "gid": 34}


def _tar() -> bytes:
    """The root filesystem of other tests, and below ``/kinds`` what is no plain file."""
    data = running.rootfs_tar()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = {*archive.getnames()}
    buffer = io.BytesIO(data)
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.PAX_FORMAT) as archive:

        def add(
            name: str, kind: bytes = tarfile.DIRTYPE, content: bytes = b"", **more: object
        ) -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.mtime = kind, len(content), TIME - 1000
            entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            for key, value in more.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(content))

        for applet in _APPLETS:
            add(f"bin/{applet}", tarfile.SYMTYPE, linkname="busybox")
        for name in sorted({"lib", *map(os.path.dirname, names)} - names - {""}):
            add(name)
        for name in ("home", "opt", "usr", "usr/bin", "usr/lib", "usr/local", "usr/local/bin"):
            add(name)
        for name in ("var", "var/cache", "var/lib", "var/log", "var/www"):
            add(name)
        add("home/svc", mode=0o2750, **_OWNER)
        add("usr/lib/one", tarfile.REGTYPE, b"one\n")
        add("lib/modules", tarfile.SYMTYPE, linkname="../usr/lib")
        add("kinds", mode=0o711)
        add("kinds/setuid", tarfile.REGTYPE, b"setuid\n", mode=0o4755, **_OWNER)
        attribute = {"SCHILY.xattr.security.capability": CAPABILITY.decode()}
        add("kinds/capable", tarfile.REGTYPE, b"able\n", mode=0o755, pax_headers=attribute)
        add("kinds/first", tarfile.REGTYPE, b"linked\n", uid=7)
        add("kinds/second", tarfile.LNKTYPE, linkname="kinds/first", uid=7)
        add("kinds/link", tarfile.SYMTYPE, linkname="setuid", gid=8)
        add("var/pipe", tarfile.FIFOTYPE, mode=0o600)  # which Docker copies nowhere
        add("kinds/sticky", mode=0o1777)
        add("kinds/setgid", mode=0o2750, **_OWNER)
        add("kinds/setgid/below", tarfile.REGTYPE, b"below\n", mode=0o640, **_OWNER)
    return buffer.getvalue()


def write_base(storage: Storage) -> bytes:
    """Put the image into a store; the archive with it."""
    changes = ('CMD ["sh"]', "ENV FROM_BASE=yes", "LABEL from=base")
    storage.images.import_(io.BytesIO(_tar()), name=NAME, changes=changes)
    archive = io.BytesIO()
    storage.images.save([NAME], archive.write)
    return archive.getvalue()
