"""Fetches what an ADD names by a URL."""

from __future__ import annotations

import hashlib
import posixpath
from contextlib import closing
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING

from storagedrivers.build.items import Part, Rules, made_part
from storagedrivers.errors import BuildError

if TYPE_CHECKING:
    from email.message import Message

_TIMEOUT = 60.0  # seconds that a server may say nothing
_CHUNK = 1 << 20  # bytes
_LARGEST = 1 << 36  # bytes
_MODE = 0o600


def fetched(url: str, fd: int, rules: Rules) -> Part:
    """What is at a URL, written to the empty file *fd*.

    It is called as the path of the URL ends, or as the server says where that has no name.

    Raises:
        BuildError: it is not there, or too large.
    """
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with closing(urlopen(url, timeout=_TIMEOUT)) as answer:
            digest, size = _received(url, answer, fd)
            headers = answer.headers
    except HTTPError as error:
        with error:
            raise BuildError(
                f"ADD failed: failed to GET {url} with status {error.code} {error.reason}",
                resolution="see whether the URL is right",
            ) from error
    except (URLError, OSError, HTTPException, ValueError) as error:
        raise BuildError(
            f"ADD failed: {url} cannot be fetched: {getattr(error, 'reason', error)}",
            resolution="look at the URL and the network, or put the file into the build context",
        ) from error
    part = made_part(_name(url, headers), _MODE, _modified(headers), rules, opened=fd)
    (item,) = part.tree.items
    item.digest, item.size = digest, size
    return part


def _received(url: str, answer: HTTPResponse, fd: int) -> tuple[str, int]:
    """Write what comes; its digest and its size."""
    hashed, size = hashlib.sha256(), 0
    with open(fd, "wb", closefd=False) as file:
        while data := answer.read(_CHUNK):
            hashed.update(data)
            size += file.write(data)
            if size > _LARGEST:
                raise BuildError(f"ADD failed: {url} has more than {_LARGEST} bytes")
    if answer.length:
        raise HTTPException(f"{answer.length} bytes are missing at its end")
    return hashed.hexdigest(), size


def _name(url: str, headers: Message) -> str:
    from urllib.parse import unquote, urlsplit

    for name in (posixpath.basename(unquote(urlsplit(url).path)), headers.get_filename() or ""):
        if name not in ("", ".", "..") and not {"/", "\0"} & {*name}:
            return name
    return ""


def _modified(headers: Message) -> float:
    """When it was changed last; 0 where the server does not say."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(headers["Last-Modified"] or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0
