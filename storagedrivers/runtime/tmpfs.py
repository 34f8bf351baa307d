"""``--tmpfs PATH[:OPTIONS]``, as Docker takes it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

from storagedrivers.errors import InvalidMountError, RuntimeFailedError
from storagedrivers.linux import syscalls
from storagedrivers.linux.rooted import Root
from storagedrivers.mounts.tmpfs_flag import FLAGS, tmpfs_options

_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "noexec": syscalls.MS_NOEXEC,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noatime": syscalls.MS_NOATIME,
    "relatime": syscalls.MS_RELATIME,
    "strictatime": syscalls.MS_STRICTATIME,
}
_WORDS = {*FLAGS, "rprivate"}


def tmpfs_target(words: str) -> str:
    """Where it is to be mounted.

    Raises:
        RuntimeFailedError: the path is not absolute or is the root.
    """
    path = words.partition(":")[0]
    target = os.path.normpath(path)
    if not path.startswith("/") or target.strip("/") == "":
        raise RuntimeFailedError(
            f"a tmpfs cannot be mounted at {path!r}",
            resolution="name an absolute path below the root",
        )
    return f"/{target.lstrip('/')}"


def tmpfs_mount(words: str, root: Root | None = None, at: str = "") -> dict[str, Any]:
    """The mount of one option, with the mode of the directory that it covers unless it names one.

    Args:
        words: the option.
        root: what it will be mounted in, if a directory there is covered.
        at: where in there.

    Raises:
        RuntimeFailedError: its target is none, or an option is none.
    """
    target = tmpfs_target(words)
    options = _options(words)
    if root is not None and not any(option.startswith("mode=") for option in options):
        status = root.status(at)
        if status is not None and stat.S_ISDIR(status.st_mode):
            options.append(f"mode={stat.S_IMODE(status.st_mode):o}")
    return {
        "destination": target,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": [*options, "rprivate"],
    }


def tmpfs_flags(options: Sequence[str]) -> tuple[int, bytes]:
    """The same options as mount(2) takes them: flags, and the rest."""
    flags = sum(_FLAGS.get(option, 0) for option in options)
    return flags, os.fsencode(",".join(option for option in options if option not in _WORDS))


def _options(words: str) -> list[str]:
    try:
        return tmpfs_options(words)
    except InvalidMountError as error:
        raise RuntimeFailedError(error.brief, resolution=error.resolution) from None
