"""JSON of images, from outside: bounded, checked value by value; and as Docker writes it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from storagedrivers.errors import DigestMismatchError, MalformedImageError, UnsupportedImageError

MAX_DOCUMENT = 4 << 20
"""Bytes of a manifest, an index or a config; registries let in as many."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOST = 10_000  # objects in a list
_DEEPEST = 100  # lists and objects in each other; JSON is written with a fuller stack than read
_LONGEST_SHOWN = 100  # characters of a value in a sentence

_ESCAPES = str.maketrans({one: f"\\u{ord(one):04x}" for one in "<>&\u2028\u2029"})


def shown(text: str) -> str:
    """A text of any length, for a sentence."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def digest_of(data: bytes) -> str:
    """``sha256:`` and hex."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check_document(data: bytes, file: str, digest: str) -> bytes:
    """Return *data* if it has the digest.

    Raises:
        DigestMismatchError: it has another one.
    """
    found = digest_of(data)
    if found != digest:
        raise DigestMismatchError(
            f"{file} is {found}, and {digest} was expected", expected=digest, found=found
        )
    return data


def parse_document(data: bytes, file: str) -> Fields:
    """A JSON object.

    Raises:
        MalformedImageError: it is none.
    """
    return Fields(_parse(data, file), file)


def parse_list(data: bytes, file: str) -> list[Fields]:
    """A JSON list of objects.

    Raises:
        MalformedImageError: it is none.
    """
    value = _parse(data, file)
    if not isinstance(value, list):
        raise MalformedImageError(f"{file} is no list")
    if len(value) > _MOST:
        raise MalformedImageError(f"{file} lists {len(value)} things, and {_MOST} are let in")
    return [Fields(one, file) for one in value]


def _parse(data: bytes, file: str) -> object:
    try:
        found: object = json.loads(data, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise MalformedImageError(
            f"{file} is no JSON: {error}", resolution="get it again: it is damaged"
        ) from error
    _check_depth(data, found, file)
    return found


def _no_number(text: str) -> float:
    """Python's own words, which no other program reads."""
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    found = float(text)
    return found if math.isfinite(found) else _no_number(text[:_LONGEST_SHOWN])


def _check_depth(data: bytes, value: object, file: str) -> None:
    if data.count(b"[") + data.count(b"{") <= _DEEPEST:
        return
    level = [value]
    for _ in range(_DEEPEST + 1):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        level = [one for one in inner if isinstance(one, (dict, list))]
        if not level:
            return
    raise MalformedImageError(f"{file} is nested more than {_DEEPEST} deep")


class Fields:
    """The fields of a JSON object, each asked for with its type; null counts as missing.

    Raises:
        MalformedImageError: from the methods, a field of another type.
    """

    def __init__(self, value: object, file: str, where: str = "") -> None:
        if not isinstance(value, dict):
            raise MalformedImageError(f"{file}: {where or 'it'} is no object")
        self.value: dict[str, Any] = value
        self._file = file
        self._where = f"{where}." if where else ""

    def text(self, key: str, default: str = "") -> str:
        """A text."""
        return self._of(key, str, "no text") if self.has(key) else default

    def number(self, key: str) -> int:
        """A whole number that is not negative."""
        found: int = self._of(key, int, "no number")
        if found < 0 or isinstance(found, bool):
            raise self.malformed(key, f"is {found}")
        return found

    def flag(self, key: str) -> bool:
        """True or false; missing is false."""
        return self._of(key, bool, "neither true nor false") if self.has(key) else False

    def digest(self, key: str) -> str:
        """A sha256 digest."""
        return self._checked(key, self._of(key, str, "no digest"))

    def texts(self, key: str) -> list[str]:
        """A list of texts; missing is empty."""
        found = self._of(key, list, "no list") if self.has(key) else []
        if not all(isinstance(one, str) for one in found):
            raise self.malformed(key, "is no list of texts")
        return found

    def digests(self, key: str) -> tuple[str, ...]:
        """A list of sha256 digests; missing is empty."""
        return tuple(self._checked(key, one) for one in self.texts(key))

    def object(self, key: str) -> Fields:
        """An object; missing is an empty one."""
        return Fields(self.value[key] if self.has(key) else {}, self._file, self._where + key)

    def objects(self, key: str) -> list[Fields]:
        """A list of objects; missing is empty."""
        found = self._of(key, list, "no list") if self.has(key) else []
        if len(found) > _MOST:
            raise self.malformed(key, f"lists {len(found)} things, and {_MOST} are let in")
        return [Fields(one, self._file, f"{self._where}{key}[]") for one in found]

    def has(self, key: str) -> bool:
        """Whether it is there."""
        return self.value.get(key) is not None

    def malformed(self, key: str, why: str) -> MalformedImageError:
        """The error for a field."""
        return MalformedImageError(f"{self._file}: {shown(self._where + key)} {why}")

    def _of(self, key: str, kind: type, otherwise: str) -> Any:
        found = self.value.get(key)
        if not isinstance(found, kind):
            raise self.malformed(key, f"is {otherwise}" if self.has(key) else "is missing")
        return found

    def _checked(self, key: str, digest: str) -> str:
        if _DIGEST.fullmatch(digest):
            return digest
        what = shown(repr(digest))
        if re.fullmatch(r"sha(384|512):[0-9a-f]{96,128}", digest):
            raise UnsupportedImageError(
                f"{self._file}: {self._where}{key} is {what}, and only sha256 is known",
                resolution="have it made with sha256 digests",
            )
        raise self.malformed(key, f"is {what}, which is no digest")


def write_document(value: Mapping[str, Any] | list[Any]) -> bytes:
    """JSON as Docker writes it: keys in order, no blanks, escapes where HTML has a meaning."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A lone half of a pair is no character; it may have come in as an escape.
    units = text.translate(_ESCAPES).encode("utf-16", "surrogatepass")
    return units.decode("utf-16", "replace").encode()
