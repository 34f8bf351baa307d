"""ADD."""

from __future__ import annotations

import gzip

import archives

from build_cases.contexts import TIME, Case, directory, file, tar, tar_of
from storagedrivers.testing.trees import CAPABILITY

_KINDS = tar(
    archives.directory(b"k/", mode=0o711, uid=3, gid=4, mtime=TIME),
    archives.file(b"k/setuid", b"s", mode=0o4755, uid=1, gid=2, mtime=TIME),
    archives.pax({b"SCHILY.xattr.security.capability": CAPABILITY}),
    archives.file(b"k/able", b"a", mode=0o755, mtime=TIME),
    archives.file(b"k/first", b"linked", mode=0o640, mtime=TIME),
    archives.hard_link(b"k/second", b"k/first", mode=0o640, mtime=TIME),
    archives.symlink(b"k/link", b"first", uid=5, gid=6, mtime=TIME),
    archives.symlink(b"k/out", b"../../../etc/passwd", mtime=TIME),
    archives.entry(b"k/fifo", type=b"6", mode=0o600, mtime=TIME),
    archives.entry(b"k/null", type=b"3", major=1, minor=3, mode=0o666, mtime=TIME),
    archives.directory(b"k/sticky/", mode=0o1777, mtime=TIME),
    archives.directory(b"k/setgid/", mode=0o2750, uid=12, gid=34, mtime=TIME),
    archives.file(b"k/without/parents", b"p", mtime=TIME),
)

CASES = [
    Case(
        "archives are unpacked",
        """\
FROM base
ADD plain.tar /plain/
ADD gzip.tar.gz /gzip
ADD bzip2.tbz2 /bzip2/
ADD xz.bin /xz/
ADD plain.tar gzip.tar.gz file /many/
ADD gz*.gz /globbed/
ADD plain.tar .
ADD file.gz /file/
ADD file /file/
ADD tree /tree/
COPY plain.tar /copied/
""",
        {
            "plain.tar": tar_of(plain="1\n", sub__x="x\n"),
            "gzip.tar.gz": tar_of("gz", gzip="2\n", sub__y="y\n"),
            "bzip2.tbz2": tar_of("bz2", bzip2="3\n"),
            "xz.bin": tar_of("xz", xz="4\n"),
            "file.gz": gzip.compress(b"no tar\n", mtime=0),
            "file": "file\n",
            "tree/inside.tar": tar_of(inside="5\n"),
        },
    ),
    Case(
        "kinds in an archive",
        """\
FROM base
ADD kinds.tar /
ADD kinds.tar /again/
ADD --chown=svc:svc kinds.tar /chowned/
""",
        {"kinds.tar": _KINDS},
    ),
    Case(
        "an archive over what is there",
        """\
FROM base
RUN mkdir -m 700 /have /have/dir /have/real && touch /have/dir/old /have/gone /have/file \\
    && ln -s real /have/through && ln -s real /have/entry && ln -s file /have/filelink \\
    && chown -R svc /have
ADD over.tar /have/
""",
        {
            "over.tar": tar(
                archives.directory(b"dir/", mode=0o751, uid=3, gid=4, mtime=TIME),
                archives.file(b"dir/new", b"n", mtime=TIME),
                archives.file(b"through/below", b"b", mtime=TIME),
                archives.directory(b"entry/", mtime=TIME),
                archives.file(b"entry/inside", b"i", mtime=TIME),
                archives.file(b"filelink", b"f", mtime=TIME),
                archives.directory(b"file/", mtime=TIME),
                archives.file(b".wh.gone", b"", mtime=TIME),
            )
        },
    ),
    Case(
        "an archive that wants to climb",
        "FROM base\nADD climbs.tar /w/\n",
        {
            "climbs.tar": tar(
                archives.file(b"../../above", b"a", mtime=TIME),
                archives.file(b"/absolute", b"b", mtime=TIME),
                archives.file(b"x/../../y", b"c", mtime=TIME),
                archives.file(b"./dot", b"d", mtime=TIME),
            )
        },
    ),
    Case(
        "what looks like an archive",
        """\
FROM base
ADD empty.tar /empty/
ADD no.tar.gz /no/
ADD nothing /nothing/
ADD broken.gz /broken/
""",
        {
            "empty.tar": tar(),
            "no.tar.gz": "only called so\n",
            "nothing": "",
            "broken.gz": gzip.compress(b"x" * 100, mtime=0)[:15],
        },
    ),
    Case(
        "files are added as they are copied",
        """\
FROM base
WORKDIR /srv
ADD . all/
ADD top /top
ADD --chown=svc:other top /chowned
ADD ["with space", "top/setuid", "/json/"]
ADD top/* ./globbed/
""",
        {
            "top": directory(0o750, owner=(5, 6)),
            "top/setuid": file("s", 0o4755, owner=(1, 2)),
            "with space": "x",
        },
    ),
    Case(
        "a root filesystem from nothing",
        """\
FROM scratch
ADD rootfs.tar.xz /
ADD config.tar.gz /etc/
CMD ["/bin/sh"]
""",
        {
            "rootfs.tar.xz": tar(
                archives.directory(b"./", mode=0o755, mtime=TIME),
                archives.directory(b"./bin/", mtime=TIME),
                archives.file(b"./bin/sh", b"#!\n", mode=0o755, mtime=TIME),
                archives.hard_link(b"./bin/ash", b"./bin/sh", mode=0o755, mtime=TIME),
                archives.directory(b"./etc/", mtime=TIME),
                archives.file(b"./etc/passwd", b"root:x:0:0::/:/bin/sh\n", mtime=TIME),
                archives.symlink(b"./etc/mtab", b"/proc/mounts", mtime=TIME),
                archives.directory(b"./tmp/", mode=0o1777, mtime=TIME),
                archives.directory(b"./proc/", mode=0o555, mtime=TIME),
                compression="xz",
            ),
            "config.tar.gz": tar_of("gz", app__conf="a=b\n"),
        },
    ),
]
