"""Fetches what an ADD names by a URL."""

from __future__ import annotations

import hashlib
import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from storagedrivers.errors import BuildError

_TIMEOUT = 60.0  # seconds that a server may say nothing
_CHUNK = 1 << 20
_LARGEST = 1 << 36  # bytes


class Fetched(NamedTuple):
    """A file that was fetched.

    Attributes:
        fd: it, open, without a name.
        name: the last part of the URL's path.
        size: bytes.
        digest: sha256 of its content.
        modified: when, as the server says; None where it does not.
    """

    fd: int
    name: str
    size: int
    digest: str
    modified: float | None


@contextmanager
def fetched(url: str) -> Iterator[Fetched]:
    """Have a file of the network.

    Raises:
        BuildError: it is not there.
    """
    import urllib.error
    import urllib.parse
    import urllib.request
    from email.utils import parsedate_to_datetime

    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if name in (".", "..") or "/" in name or "\0" in name:
        name = ""
    hashed, size = hashlib.sha256(), 0
    with tempfile.TemporaryFile() as file:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
                said = answer.headers.get("Last-Modified")
                while data := answer.read(_CHUNK):
                    hashed.update(data)
                    size += file.write(data)
                    if size > _LARGEST:
                        raise BuildError(f"ADD failed: {url} does not end")
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise BuildError(
                f"ADD failed: {url} cannot be fetched: {error}",
                resolution="look at the URL and the network, or put the file into the context",
            ) from error
        file.flush()
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        modified = None
        try:
            modified = parsedate_to_datetime(said).timestamp() if said else None
        except (TypeError, ValueError):
            pass
        yield Fetched(file.fileno(), name, size, hashed.hexdigest(), modified)
