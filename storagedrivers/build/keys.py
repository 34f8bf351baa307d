"""What a step's result depends on: the key that the cache finds it by, and the facts that say why
another step has another key.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple, Self

_VERSION = "1"
"""Of what a key is made of: another one finds nothing that was made before."""

_SHOWN = 16
"""Characters of a file's digest that are kept, for :mod:`storagedrivers.build.explaining` only."""

_FAST = 1  # 10,000 files in 20 ms; the level above that takes twice as long for a tenth less


class Facts(NamedTuple):
    """All that a step's result depends on; what is not in it may change without a miss.

    Attributes:
        chain: the ChainID of the layers below, or "" where there are none.
        instruction: for people, and to find what it is to be compared with.
        environment: what of the config and the arguments counts, by a name for people, as ``ENV
            PATH``, ``argument VERSION``, ``USER``, ``platform``.
        files: what it reads, by path: kind, mode, uid, gid, size or target, digest. The key has
            *digest* instead.
        digest: of what it reads; "" where that is nothing.
        compared: what of the instruction counts, as Docker's cache compares it; all of it where
            this is "".
    """

    chain: str
    instruction: str
    environment: Mapping[str, str] = {}
    files: Mapping[str, Sequence[str | int]] | None = None
    digest: str = ""
    compared: str = ""

    def key(self) -> str:
        """The digest of all of it; the same on every driver."""
        pairs = [text for name in sorted(self.environment) for text in self._pair(name)]
        hashed = sha256()
        compared = self.compared or self.instruction
        for text in (_VERSION, self.chain, compared, self.digest, *pairs):
            data = text.encode(errors="surrogatepass")
            hashed.update(b"%d:%b" % (len(data), data))
        return hashed.hexdigest()

    def _pair(self, name: str) -> tuple[str, str]:
        return name, self.environment[name]

    def pack(self) -> bytes:
        """What :meth:`unpack` takes, besides the chain and the instruction."""
        import json

        files = self.files and {path: _shown(fields) for path, fields in self.files.items()}
        value = [dict(self.environment), files, self.digest, self.compared]
        return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), _FAST)

    @classmethod
    def unpack(cls, chain: str, instruction: str, packed: bytes) -> Self:
        """The facts that were packed, with as much of the digests as is shown."""
        import json

        environment, files, *texts = json.loads(zlib.decompress(packed))
        return cls(chain, instruction, environment, files and _as_fields(files), *texts)

    def shown(self) -> Self:
        """These as they are after packing, to compare them with others that were packed."""
        files = self.files and {path: _shown(fields) for path, fields in self.files.items()}
        return self._replace(files=files)


def _shown(fields: Sequence[str | int]) -> tuple[str | int, ...]:
    *others, digest = fields
    return (*others, str(digest)[:_SHOWN])


def _as_fields(files: dict[str, list[Any]]) -> dict[str, tuple[str | int, ...]]:
    return {path: tuple(fields) for path, fields in files.items()}
