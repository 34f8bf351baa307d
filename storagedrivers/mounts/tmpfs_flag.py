"""``--tmpfs TARGET[:OPTIONS]``."""

from __future__ import annotations

from storagedrivers.mounts.spec import check_target


def tmpfs_target(text: str) -> str:
    """Where a ``--tmpfs`` is mounted; its options are looked at when it is.

    Raises:
        InvalidMountError: nothing can be mounted there; in Docker's words.
    """
    return check_target(text.partition(":")[0])
