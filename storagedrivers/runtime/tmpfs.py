"""``--tmpfs PATH[:OPTIONS]``, as Docker takes it."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from storagedrivers.errors import RuntimeFailedError
from storagedrivers.runtime.rootfs import Rootfs

# What an option replaces: the last one of a group wins.
_GROUPS = (
    {"ro", "rw"},
    {"exec", "noexec"},
    {"suid", "nosuid"},
    {"dev", "nodev"},
    {"atime", "noatime", "relatime", "strictatime"},
)
_DEFAULTS = ("noexec", "nosuid", "nodev")
_VALUE = re.compile(
    r"(size|nr_blocks)=\d+[kKmMgG%]?|(nr_inodes)=\d+[kKmMgG]?|(mode)=[0-7]{1,4}|(uid|gid)=\d+"
)


def tmpfs_mount(words: str, rootfs: Rootfs) -> dict[str, Any]:
    """The mount of one option, with the mode of the image's directory unless it names one.

    Raises:
        RuntimeFailedError: the path is not absolute or is the root, or an option is unknown.
    """
    path, _, text = words.partition(":")
    target = os.path.normpath(path)
    if not path.startswith("/") or target.strip("/") == "":
        raise RuntimeFailedError(
            f"a tmpfs cannot be mounted at {path!r}",
            resolution="name an absolute path below the root",
        )
    options = _options(words, text)
    if not any(option.startswith("mode=") for option in options):
        status = rootfs.status(target)
        if status is not None and stat.S_ISDIR(status.st_mode):
            options.append(f"mode={stat.S_IMODE(status.st_mode):o}")
    return {
        "destination": f"/{target.lstrip('/')}",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": [*options, "rprivate"],
    }


def _options(words: str, text: str) -> list[str]:
    options = [*_DEFAULTS]
    for option in filter(None, text.split(",")):
        group = next((group for group in _GROUPS if option in group), None)
        if group is None:
            if not _VALUE.fullmatch(option):
                raise RuntimeFailedError(
                    f"the tmpfs option {option!r} in {words!r} is unknown",
                    resolution="there are size, mode, uid, gid, nr_inodes, nr_blocks, and the"
                    " flags ro, exec, suid, dev, noatime with their opposites",
                )
            options = [one for one in options if one.split("=")[0] != option.split("=")[0]]
        else:
            options = [one for one in options if one not in group]
        options.append(option)
    return options
