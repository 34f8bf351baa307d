"""Whiteouts that would remove what they must not."""

from __future__ import annotations

from archives import directory, file, hard_link, symlink, tar

from hostile import Hostile
from storagedrivers.errors import DiffError, UnsafeEntryError


def _wh(name: str, *parts: bytes, never: str, error=None, **more):  # type: ignore[no-untyped-def]
    return Hostile(name, lambda _: tar(*parts), error, never, **more)


ARCHIVES = [
    *(
        Hostile(
            f"whiteout {name.decode()}",
            lambda _, name=name, kind=kind: tar(kind(name)),
            UnsafeEntryError,
            "the directory itself or its parent is removed",
            entry=name,
        )
        for name, kind in (
            (b".wh.", file),
            (b".wh..", file),
            (b".wh...", file),
            (b"dir/.wh.", file),
            (b"dir/.wh..", file),
            (b"dir/.wh...", file),
            (b".wh../", directory),
            (b".wh.../", directory),
        )
    ),
    _wh(
        "whiteouts of everything above",
        file(b".wh.sibling"),
        file(b".wh.lower"),
        file(b".wh.outside"),
        never="a sibling of the layer is removed",
    ),
    _wh(
        "whiteout of a symlinked directory",
        file(b".wh.link-out"),
        never="what the symlink leads to is removed",
        without=(b"link-out/secret",),
    ),
    _wh(
        "whiteout below a symlink out of the lower",
        file(b"link-out/.wh.secret"),
        never="the file outside is removed",
    ),
    _wh(
        "opaque mark below a symlink out of the lower",
        file(b"link-out/.wh..wh..opq"),
        never="the directory outside is emptied",
    ),
    _wh(
        "opaque mark below an absolute symlink of the lower",
        file(b"link-absolute/.wh..wh..opq"),
        never="the directory outside is emptied",
    ),
    _wh(
        "whiteout below a symlink out of this layer",
        symlink(b"sl", b"../outside"),
        file(b"sl/.wh.secret"),
        never="the file outside is removed",
        error=UnsafeEntryError,
        harmless_alone=True,
    ),
    _wh(
        "opaque mark below a symlink out of this layer",
        symlink(b"sl", b"../outside"),
        file(b"sl/.wh..wh..opq"),
        never="the directory outside is emptied",
        error=UnsafeEntryError,
        harmless_alone=True,
    ),
    _wh(
        "whiteout of a directory with a symlink out in it",
        file(b".wh.dir"),
        never="removing goes through the symlink",
        without=(b"dir/file",),
    ),
    _wh(
        "directory with a symlink out replaced by a file",
        file(b"dir", b"x"),
        never="removing goes through the symlink",
        without=(b"dir/file",),
    ),
    _wh(
        "opaque root",
        file(b".wh..wh..opq"),
        never="more than the lower's names is removed",
        without=(b"file", b"dir"),
    ),
    _wh(
        "opaque root, and a way out",
        file(b".wh..wh..opq"),
        symlink(b"sl", b".."),
        file(b"sl/.wh..wh..opq"),
        never="the directory above is emptied",
        error=UnsafeEntryError,
        harmless_alone=True,
    ),
    _wh("whiteout of a whiteout", file(b".wh..wh.file"), never="a whiteout is made of one"),
    _wh(
        "whiteout as a parent",
        file(b".wh.dir/x", b"x"),
        never="a name that begins with .wh. appears",
        error=(DiffError, type(None)),
    ),
    _wh(
        "opaque mark as a parent",
        file(b".wh..wh..opq/x", b"x"),
        never="a name that begins with .wh. appears",
        error=(DiffError, type(None)),
    ),
    _wh(
        "hard link to a whiteout",
        file(b".wh.file"),
        hard_link(b"h", b".wh.file"),
        never="a whiteout device appears under another name",
        error=DiffError,
    ),
    _wh(
        "hard link called as a whiteout",
        file(b"f", b"x"),
        hard_link(b".wh.file", b"f"),
        never="a name that begins with .wh. appears",
    ),
    _wh(
        "whiteout with 70 kB of content",
        file(b".wh.file", b"x" * 70_000),
        never="its content is written",
    ),
    _wh(
        "whiteouts of 10000 names that nobody has",
        *(file(b".wh.%d" % n) for n in range(10_000)),
        never="a whiteout is made that hides nothing",
    ),
]
