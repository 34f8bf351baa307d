"""Tar ⇄ tree: a layer's tar becomes a directory of a driver, and the same tar again.

::

    bytes ─▶ source (decompress, hash) ─▶ reader (entries) ─▶ unpack ─▶ changeset or tree   in
                                                         └─▶ kept (headers)
    kept + tree ─▶ reassemble ─▶ the same bytes                                             out
    changeset or tree ─▶ changes ─▶ pack ─▶ a canonical diff                                out

Nothing here knows drivers or stores: directories come as open descriptors. The reading side meets
hostile input as root: every path of an archive is walked by this package, name by name, in the
directory that it was given.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storagedrivers.archive.changes import changes
    from storagedrivers.archive.kept import reassemble
    from storagedrivers.archive.pack import pack
    from storagedrivers.archive.unpack import unpack

_HOMES = {"changes": "changes", "pack": "pack", "reassemble": "kept", "unpack": "unpack"}

__all__ = ["changes", "pack", "reassemble", "unpack"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"storagedrivers.archive.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'storagedrivers.archive' has no attribute {name!r}")
