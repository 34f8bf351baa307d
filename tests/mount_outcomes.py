"""What comes of a mount: one table for what a plan says, what happens, and what Docker does.

The image has ``/full`` (of 12:34, mode 0750) with three entries below it, ``/bare`` (the same, mode
0700) with none, ``/file``, and ``/link``, which leads to ``/full``; it has neither ``/new`` nor
``/other``. ``HOST`` is a path of the host. The source, a volume or that path, is before:

===========  ===================================================
missing      not there
empty        a directory without entries, of 0:0, mode 0755
full         the same with an entry of its own
owned        a directory without entries, of 7:8, mode 0700
taken        the same with an entry of its own
file         a file, of 0:0, mode 0644
===========  ===================================================
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

from running import rootfs_tar

# The mount; the source before; the user; what is made; how many entries are copied from the image;
# how many are hidden; owner and mode of what is mounted; whether the user can write to it.
_TABLE = """
-v data:/full                                   missing  root  volume     3  -  12:34 750   yes
-v data:/full                                   missing  svc   volume     3  -  12:34 750   yes
-v data:/full                                   missing  1000  volume     3  -  12:34 750   no
-v data:/full:ro                                missing  root  volume     3  -  12:34 750   no
-v data:/full:nocopy                            missing  root  volume     -  3  0:0 755     yes
-v data:/full:nocopy                            missing  svc   volume     -  3  0:0 755     no
-v data:/full:ro,nocopy                         missing  root  volume     -  3  0:0 755     no
-v data:/bare                                   missing  svc   volume     0  -  12:34 700   yes
-v data:/bare                                   missing  1000  volume     0  -  12:34 700   no
-v data:/bare:nocopy                            missing  svc   volume     -  -  0:0 755     no
-v data:/link                                   missing  root  volume     3  -  12:34 750   yes
-v data:/new                                    missing  root  volume     -  -  0:0 755     yes
-v data:/new                                    missing  1000  volume     -  -  0:0 755     no
-v data:/new:ro                                 missing  root  volume     -  -  0:0 755     no
-v data:/full                                   empty    root  -          3  -  12:34 750   yes
-v data:/full                                   empty    1000  -          3  -  12:34 750   no
-v data:/full:ro                                empty    root  -          3  -  12:34 750   no
-v data:/full:nocopy                            empty    root  -          -  3  0:0 755     yes
-v data:/new                                    empty    root  -          -  -  0:0 755     yes
-v data:/full                                   owned    root  -          3  -  12:34 750   yes
-v data:/full:nocopy                            owned    svc   -          -  3  7:8 700     no
-v data:/bare                                   owned    svc   -          0  -  12:34 700   yes
-v data:/new                                    owned    root  -          -  -  7:8 700     yes
-v data:/new                                    owned    7     -          -  -  7:8 700     yes
-v data:/new                                    owned    svc   -          -  -  7:8 700     no
-v data:/full                                   full     root  -          -  3  0:0 755     yes
-v data:/full                                   full     svc   -          -  3  0:0 755     no
-v data:/full:ro                                full     root  -          -  3  0:0 755     no
-v data:/new                                    full     root  -          -  -  0:0 755     yes
-v data:/full                                   taken    7     -          -  3  7:8 700     yes
-v data:/full:nocopy                            taken    7:8   -          -  3  7:8 700     yes
--mount source=data,target=/full                missing  root  volume     3  -  12:34 750   yes
--mount source=data,target=/full,readonly       missing  svc   volume     3  -  12:34 750   no
--mount source=data,target=/full,volume-nocopy  missing  root  volume     -  3  0:0 755     yes
--mount source=data,target=/full                owned    svc   -          3  -  12:34 750   yes
--mount source=data,target=/full                full     root  -          -  3  0:0 755     yes
--mount source=data,target=/new                 missing  1000  volume     -  -  0:0 755     no
-v /full                                        missing  root  volume     3  -  12:34 750   yes
-v /full                                        missing  1000  volume     3  -  12:34 750   no
-v /new                                         missing  root  volume     -  -  0:0 755     yes
--mount target=/full                            missing  svc   volume     3  -  12:34 750   yes
--mount target=/full,volume-nocopy              missing  root  volume     -  3  0:0 755     yes
--mount target=/bare                            missing  svc   volume     0  -  12:34 700   yes
VOLUME /full                                    missing  svc   volume     3  -  12:34 750   yes
VOLUME /bare                                    missing  1000  volume     0  -  12:34 700   no
VOLUME /new                                     missing  1000  volume     -  -  0:0 755     no
-v HOST:/full                                   missing  root  directory  -  3  0:0 755     yes
-v HOST:/full                                   missing  svc   directory  -  3  0:0 755     no
-v HOST:/full:ro                                missing  root  directory  -  3  0:0 755     no
-v HOST:/new                                    missing  root  directory  -  -  0:0 755     yes
-v HOST:/full                                   empty    root  -          -  3  0:0 755     yes
-v HOST:/full                                   empty    svc   -          -  3  0:0 755     no
-v HOST:/bare                                   owned    svc   -          -  -  7:8 700     no
-v HOST:/new                                    owned    7     -          -  -  7:8 700     yes
-v HOST:/full                                   full     root  -          -  3  0:0 755     yes
-v HOST:/full:ro                                taken    7     -          -  3  7:8 700     no
-v HOST:/file                                   file     root  -          -  1  0:0 644     yes
-v HOST:/other                                  file     svc   -          -  -  0:0 644     no
--mount type=bind,source=HOST,target=/full      empty    root  -          -  3  0:0 755     yes
--mount type=bind,source=HOST,target=/full      taken    7     -          -  3  7:8 700     yes
--mount type=bind,source=HOST,target=/full,ro   full     root  -          -  3  0:0 755     no
--mount type=bind,source=HOST,target=/new       owned    svc   -          -  -  7:8 700     no
--tmpfs /full                                   missing  root  -          -  3  0:0 750     yes
--tmpfs /full                                   missing  svc   -          -  3  0:0 750     no
--tmpfs /full:ro                                missing  root  -          -  3  0:0 750     no
--tmpfs /new                                    missing  1000  -          -  -  0:0 1777    yes
--tmpfs /new:mode=700                           missing  1000  -          -  -  0:0 700     no
--mount type=tmpfs,target=/full                 missing  root  -          -  3  0:0 750     yes
--mount type=tmpfs,target=/new                  missing  1000  -          -  -  0:0 1777    yes
--mount type=tmpfs,target=/new,tmpfs-mode=0700  missing  svc   -          -  -  0:0 700     no
"""


class Outcome(NamedTuple):
    """What comes of a mount.

    Attributes:
        creates: ``volume``, ``directory`` of the host, or nothing.
        copies: how many entries; None where the volume is not filled.
        hides: how many entries of the image.
        owner: ``UID:GID MODE`` of what is mounted.
        writes: whether the user can write to it.
    """

    creates: str
    copies: int | None
    hides: int
    owner: str
    writes: bool


class Case(NamedTuple):
    """A line of the table.

    Attributes:
        option: ``-v``, ``--mount``, ``--tmpfs``, or ``VOLUME`` of the image.
        text: what follows it.
        before: what the source is.
        user: as whom the container runs.
        outcome: what comes of it.
    """

    option: str
    text: str
    before: str
    user: str
    outcome: Outcome

    def __str__(self) -> str:
        return f"{self.option} {self.text} {self.before} {self.user}"

    @property
    def names_volume(self) -> bool:
        """Whether the source is the volume ``data``."""
        return "data" in self.text

    @property
    def target(self) -> str:
        """The path in the container."""
        return "/" + self.text.partition("/")[2].partition(":")[0].partition(",")[0].lstrip("/")


def _number(word: str) -> int | None:
    return None if word == "-" else int(word)


def _case(line: str) -> Case:
    option, text, before, user, creates, copies, hides, owner, mode, writes = line.split()
    outcome = Outcome(
        creates.strip("-"), _number(copies), _number(hides) or 0, f"{owner} {mode}", writes == "yes"
    )
    return Case(option, text, before, user, outcome)


CASES = [*map(_case, _TABLE.strip().splitlines())]

FILLED = 3  # entries below /full


def image_tar() -> bytes:
    """The image's only layer."""
    buffer = io.BytesIO(rootfs_tar())
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for name, kind, mode, content in (
            ("full", tarfile.DIRTYPE, 0o750, b""),
            ("full/a", tarfile.REGTYPE, 0o644, b"1"),
            ("full/sub", tarfile.DIRTYPE, 0o755, b""),
            ("full/sub/b", tarfile.REGTYPE, 0o644, b"22"),
            ("bare", tarfile.DIRTYPE, 0o700, b""),
            ("file", tarfile.REGTYPE, 0o644, b"333"),
            ("link", tarfile.SYMTYPE, 0o777, b""),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size = kind, mode, len(content)
            entry.linkname = "full" if kind == tarfile.SYMTYPE else ""
            entry.uid, entry.gid = 12, 34
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def prepare(path: Path, before: str) -> None:
    """Have a directory, or a file, be what the table says; of a volume, it is there already."""
    if before == "file":
        path.write_bytes(b"")
        path.chmod(0o644)
    elif before != "missing":
        path.mkdir(exist_ok=True)
        if before in ("full", "taken"):
            (path / "own").write_bytes(b"")
        path.chmod(0o700 if before in ("owned", "taken") else 0o755)
        if before in ("owned", "taken"):
            os.chown(path, 7, 8)


def script(target: str) -> str:
    """For a shell in the container: owner and mode, whether it can write, and what it sees."""
    return (
        f"stat -L -c '%u:%g %a' {target}; "
        f"if [ -d {target} ]; then touch {target}/probe; else echo >> {target}; fi 2>/dev/null"
        " && echo yes || echo no; "
        f"ls -A {target} 2>/dev/null; true"
    )


class Seen(NamedTuple):
    """What a container printed.

    Attributes:
        owner: as in :class:`Outcome`.
        writes: likewise.
        entries: what the user sees in the directory; nothing where it may not look.
    """

    owner: str
    writes: bool
    entries: frozenset[str]


def seen(printed: str) -> Seen:
    """What :func:`script` found."""
    owner, writes, *entries = printed.splitlines()
    return Seen(owner, writes == "yes", frozenset(entries) - {"probe"})


def count(path: Path) -> int:
    """How many entries there are below a directory, but for those of the tests."""
    return sum(one.name not in ("own", "probe") for one in path.rglob("*"))


def check_entries(case: Case, found: Seen) -> None:
    """What the container sees is the image's where that was copied, and else the source's own."""
    if case.before == "file" or not found.entries:
        return
    copied = {"a", "sub"} if case.outcome.copies else set()
    own = {"own"} if case.before in ("full", "taken") else set()
    assert found.entries == copied | own
