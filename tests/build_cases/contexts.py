"""What lies in a build context, written to a directory; and what a case is."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import archives

TIME = 1_500_000_000
"""When everything in a context was changed last."""


class Entry(NamedTuple):
    """A file, of whatever type, that is not merely a text.

    Attributes:
        kind: ``file``, ``directory``, ``symlink``, ``hard link`` or ``fifo``.
        content: of a file.
        target: of a link; that of a hard link is relative to the context.
        mode: its permissions.
        owner: user and group.
        xattrs: extended attributes.
    """

    kind: str
    content: bytes = b""
    target: str = ""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = {}


Files = Mapping[str, str | bytes | Entry]


class Case(NamedTuple):
    """A Dockerfile, with what it is built of.

    Attributes:
        name: what it is about.
        dockerfile: what it says; ``FROM base`` is the image that is there. None writes none.
        files: the context.
        build_args: values of ARGs.
        labels: for the image.
        target: the stage to build.
        file: where the Dockerfile lies in the context.
        tree: lines of what it adds to the base, where nobody else can say; as :func:`listing`.
        empty: lines of the history, counted from 0, that stand for no layer with us: they copy
            nothing into a directory, which Docker touches.
    """

    name: str
    dockerfile: str | bytes | None
    files: Files = MappingProxyType({})
    build_args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    target: str | None = None
    file: str = "Dockerfile"
    tree: str = ""
    empty: tuple[int, ...] = ()


def file(content: str | bytes = b"", mode: int = 0o644, **more: object) -> Entry:
    """A regular file."""
    data = content.encode() if isinstance(content, str) else content
    return Entry("file", data, mode=mode, **more)  # type: ignore[arg-type]


def program(content: str, **more: object) -> Entry:
    """A file that can be run."""
    return file(content, 0o755, **more)


def directory(mode: int = 0o755, **more: object) -> Entry:
    """A directory; those of other entries need none."""
    return Entry("directory", mode=mode, **more)  # type: ignore[arg-type]


def symlink(target: str, **more: object) -> Entry:
    """A symbolic link."""
    return Entry("symlink", target=target, **more)  # type: ignore[arg-type]


def hard_link(target: str) -> Entry:
    """One more name of a file that comes before it."""
    return Entry("hard link", target=target)


def fifo(mode: int = 0o644) -> Entry:
    """A named pipe."""
    return Entry("fifo", mode=mode)


def tar(*entries: bytes, compression: str = "") -> bytes:
    """A tar of what :mod:`archives` makes."""
    data = archives.tar(*entries)
    if compression == "gz":
        return gzip.compress(data, mtime=0)
    if compression == "bz2":
        return bz2.compress(data)
    return lzma.compress(data) if compression == "xz" else data


def tar_of(compression: str = "", /, **files: str) -> bytes:
    """A tar of texts; two underscores in a name stand for a slash."""
    entries = (
        archives.file(name.replace("__", "/").encode(), text.encode(), mtime=TIME)
        for name, text in files.items()
    )
    return tar(*entries, compression=compression)


def write_context(case: Case, top: Path) -> None:
    """Write the context of a case into *top*, which is made."""
    top.mkdir()
    dockerfile = {} if case.dockerfile is None else {case.file: case.dockerfile}
    for name, what in {**dockerfile, **case.files}.items():
        entry = what if isinstance(what, Entry) else file(what)
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        _write(top, name, entry)
    for at, names, files in os.walk(os.fsencode(top), topdown=False):
        for each in (*names, *files):
            os.utime(os.path.join(at, each), (TIME, TIME), follow_symlinks=False)


def _write(top: Path, name: str, entry: Entry) -> None:
    path = top / name
    if entry.kind == "hard link":
        path.hardlink_to(top / entry.target)
        return
    if entry.kind == "symlink":
        path.symlink_to(entry.target)
    elif entry.kind == "directory":
        path.mkdir(exist_ok=True)
    elif entry.kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(entry.content)
    os.chown(path, *entry.owner, follow_symlinks=False)
    if entry.kind != "symlink":
        path.chmod(entry.mode)  # which chown(2) takes setuid from
    for key, value in entry.xattrs.items():
        os.setxattr(path, key, value, follow_symlinks=False)


def listing(top: Path) -> list[str]:
    """A tree as lines: type and mode, owner, path, and the text or the target."""
    lines = []
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        line = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
        line += f" /{path.relative_to(top)}"
        if path.is_symlink():
            line += f" -> {path.readlink()}"
        elif path.is_file():
            line += f" {path.read_bytes().decode('utf-8', 'backslashreplace')!r}"
        lines.append(line)
    return lines
