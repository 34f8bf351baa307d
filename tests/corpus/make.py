"""Writes the seeds of the fuzzing beside this file: ``python tests/corpus/make.py``.

Small archives of every family: those of :mod:`hostile` that are short, a few of each, and entries
of the torture layer in small groups. A failure that fuzzing finds is added as a file of its own.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

MOST = 4096  # bytes of a seed
OUTSIDE = b"/tmp/outside"


def seeds() -> dict[str, bytes]:
    """By the name of the file."""
    import archives
    import torture
    from hostile import fields, links, names, sparse, streams, whiteouts

    found = {}
    for module in (fields, links, names, sparse, streams, whiteouts):
        short = []
        for one in module.ARCHIVES:
            data = one.make(OUTSIDE)
            if isinstance(data, bytes) and len(data) <= MOST:
                short.append((one.name, data))
        family = module.__name__.rpartition(".")[2]
        # Evenly over the family, so that each kind of lie is there.
        for name, data in short[:: max(1, len(short) // 12)][:14]:
            found[_file_name(f"{family} {name}", data)] = data
    for number in range(0, len(torture.CASES), 20):
        place = torture.Place(b"d/", archives.TIME)
        data = archives.tar(*(part(place) for part in torture.CASES[number].layer[:4]))
        if len(data) <= MOST:
            found[_file_name(f"torture {torture.CASES[number].name}", data)] = data
    return found


def _file_name(name: str, data: bytes) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48]
    return f"{words}-{hashlib.sha256(data).hexdigest()[:8]}.seed"


def main() -> None:
    """Write what is missing; nothing is removed, so that findings stay."""
    for name, data in seeds().items():
        if not (HERE / name).exists():
            (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
