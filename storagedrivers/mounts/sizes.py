"""Sizes as people write them."""

from __future__ import annotations

import re

from storagedrivers.errors import StoreError

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?: ?(?:([kmgtp])(?:i?b)?|b))?", re.ASCII)
_EXPONENTS = {None: 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_LARGEST = 2**63 - 1


def parse_size(text: str) -> int:
    """Bytes: of ``64m``, ``64MiB``, ``1.5 g``. The units are powers of 1,024.

    Raises:
        StoreError: it is no size, or larger than any.
    """
    found = _SIZE.fullmatch(text.lower())
    if found is not None:
        number, unit = found[1], 1 << (10 * _EXPONENTS[found[2]])
        size = int(number) * unit if number.isdecimal() else int(float(number) * unit)
        if size <= _LARGEST:
            return size
    raise StoreError(f"{text!r} is no size", resolution="write a number and a unit: 500m, 10g")
