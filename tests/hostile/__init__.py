"""Archives that want to reach outside of the layer, or to wear out who reads them.

Each is data: a name, what makes the bytes, how unpacking ends, and what must not happen. What holds
for all of them needs no word: nothing outside the layer is written, followed, changed or removed,
no descriptor and no thread stays, and an error names the entry where there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from storagedrivers.errors import DiffError
from storagedrivers.model import Limits


class Hostile(NamedTuple):
    """One archive.

    Attributes:
        name: what it tries.
        make: its bytes, or a stream of them, from the absolute path of a directory outside.
        error: what unpacking raises, or None where the archive does no harm.
        never: what must not happen.
        entry: the name that the error must carry, or None.
        limits: what the caller lets in.
        without: paths that the layer must not have afterwards.
        harmless_alone: a layer with nothing below takes it without an error.
    """

    name: str
    make: Callable[[bytes], bytes | BinaryIO]
    error: type[DiffError] | tuple[type[DiffError], ...] | None
    never: str
    entry: bytes | None = None
    limits: Limits = Limits()
    without: tuple[bytes, ...] = ()
    harmless_alone: bool = False


def all_archives() -> list[Hostile]:
    """Every archive, by family."""
    from hostile import fields, links, names, sparse, streams, whiteouts

    return [
        *names.ARCHIVES,
        *links.ARCHIVES,
        *whiteouts.ARCHIVES,
        *fields.ARCHIVES,
        *sparse.ARCHIVES,
        *streams.ARCHIVES,
    ]
