"""Names of images: Docker's grammar and normalisation. Pure.

::

    reference := name [ ":" tag ] [ "@" digest ]
    name      := [ domain "/" ] component { "/" component }

``ubuntu`` stands for ``docker.io/library/ubuntu:latest``. What is before the first slash is a
domain where it holds a dot, a colon or a capital letter, or is ``localhost``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from storagedrivers.errors import InvalidReferenceError

_DOMAIN = "docker.io"
_OLD_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_TAG = "latest"

_LONGEST = 255  # characters of a name
_SHOWN = 100  # characters in a sentence

_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_PART}(?:\.{_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_DOMAINS = re.compile(_HOST)
_TAGS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGESTS = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")
_ID = re.compile(r"[0-9a-f]{64}")


class Reference(NamedTuple):
    """A name in its parts; as text, its canonical form.

    Attributes:
        domain: of the registry, ``docker.io`` where none was said.
        path: of the repository there.
        tag: None only where there is a digest.
        digest: of a manifest, or None.
    """

    domain: str
    path: str
    tag: str | None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """``docker.io/library/ubuntu``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """``ubuntu``."""
        if self.domain == _DOMAIN:
            for short in (self.path.removeprefix(_OFFICIAL), self.path):
                if _split_domain(short) == (_DOMAIN, self.path):
                    return short
        return self.repository

    @property
    def familiar(self) -> str:
        """``ubuntu:latest``."""
        return self.familiar_repository + self._rest()

    def _rest(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{tag}@{self.digest}" if self.digest is not None else tag

    def __str__(self) -> str:
        return self.repository + self._rest()


def parse(text: str) -> Reference:
    """The name that *text* is, normalised.

    Raises:
        InvalidReferenceError: it is none; says why.
    """
    rest, at, digest = text.partition("@")
    if at:
        _check_digest(text, digest)
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # a colon before a slash is a port's
        name, tag = rest, ""
    elif not _TAGS.fullmatch(tag):
        raise _invalid(text, f"{_shown(tag)} is no tag", _TAG_RULE)
    if _ID.fullmatch(name):
        raise _invalid(text, "64 hexadecimal digits are an id", "choose another name")
    domain, path = _split_domain(name)
    if not (_DOMAINS.fullmatch(domain) and _PATH.fullmatch(path)):
        if path != path.lower():
            raise _invalid(text, "a repository has no capital letters", f"write {text.lower()!r}")
        raise _invalid(text, f"{_shown(name)} is no repository", _NAME_RULE)
    if len(path) > _LONGEST:
        raise _invalid(text, f"it is longer than {_LONGEST} characters", "choose a shorter name")
    return Reference(domain, path, tag or (None if digest else _TAG), digest or None)


_TAG_RULE = "a tag has at most 128 letters, digits, '_', '.' and '-', the last two not in front"
_NAME_RULE = "a name is [DOMAIN/]NAME[:TAG]: a-z and 0-9, with '.', '_', '__' or '-' in between"


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or first != first.lower() or set(first) & set(".:")):
        domain, path = first, rest
    else:
        domain, path = _DOMAIN, name
    if domain == _OLD_DOMAIN:
        domain = _DOMAIN
    if domain == _DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _check_digest(text: str, digest: str) -> None:
    algorithm, _, digits = digest.partition(":")
    if _DIGESTS.get(algorithm) != len(digits) or not _HEX.fullmatch(digits):
        raise _invalid(
            text,
            f"{_shown(digest)} is no digest",
            "a digest is sha256: and 64 hexadecimal digits",
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _invalid(text: str, why: str, resolution: str) -> InvalidReferenceError:
    return InvalidReferenceError(
        f"{_shown(text)} is no name of an image: {why}", resolution=resolution
    )
