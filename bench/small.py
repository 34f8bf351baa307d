"""Tars of one small layer each, for benchmarks of what does not depend on a layer's size."""

from __future__ import annotations

import io
import tarfile


def tar(number: int) -> bytes:
    """A layer of a directory with two files; another one for each number."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        directory = tarfile.TarInfo("etc")
        directory.type = tarfile.DIRTYPE
        directory.mode = 0o755
        archive.addfile(directory)
        for name, content in (("etc/number", b"%d\n" % number), ("etc/same", b"same\n")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()
