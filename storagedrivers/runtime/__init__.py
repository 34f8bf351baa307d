"""Runs processes in the root filesystems of containers: crun or runc where there is one, else
unshare(1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storagedrivers.runtime.runtime import Running, Runtime, State

__all__ = ["Running", "Runtime", "State"]


def __getattr__(name: str) -> Any:
    # What runs inside of a container's namespaces needs none of them, nor what they import.
    if name in __all__:
        from storagedrivers.runtime import runtime

        return getattr(runtime, name)
    raise AttributeError(name)
