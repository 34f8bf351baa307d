"""``--tmpfs TARGET[:OPTIONS]``.

::

    option := [no]exec | [no]suid | [no]dev | ro | rw | [no|rel|strict]atime
            | size=BYTES | nr_blocks=NUMBER | nr_inodes=NUMBER | mode=OCTAL
            | uid=NUMBER | gid=NUMBER
"""

from __future__ import annotations

import re

from storagedrivers.errors import InvalidMountError, did_you_mean
from storagedrivers.mounts.spec import check_target

# What an option replaces: the last one of a group wins.
_GROUPS = (
    {"ro", "rw"},
    {"exec", "noexec"},
    {"suid", "nosuid"},
    {"dev", "nodev"},
    {"atime", "noatime", "relatime", "strictatime"},
)
FLAGS = frozenset().union(*_GROUPS)
"""Options that are flags of mount(2)."""

_DEFAULTS = ("noexec", "nosuid", "nodev")
_DEV = "/dev"
_COUNT = "a number, with k, m or g behind it for 1,024 and its powers"
_VALUES = {
    "size": (r"\d+[kKmMgG%]?", f"{_COUNT}, or % of the memory: size=64m"),
    "nr_blocks": (r"\d+[kKmMgG%]?", f"{_COUNT}: nr_blocks=16k"),
    "nr_inodes": (r"\d+[kKmMgG]?", f"{_COUNT}: nr_inodes=10k"),
    "mode": ("[0-7]{1,4}", "permissions in octal: mode=1777"),
    "uid": (r"\d+", "a number: uid=1000"),
    "gid": (r"\d+", "a number: gid=1000"),
}


def tmpfs_target(text: str) -> str:
    """Where a ``--tmpfs`` is mounted; its options are looked at when it is.

    Raises:
        InvalidMountError: nothing can be mounted there; in Docker's words.
    """
    return check_target(text.partition(":")[0])


def tmpfs_options(text: str) -> list[str]:
    """The options of a ``--tmpfs``, each once, with those that hold where nothing else is said.

    A tmpfs at ``/dev`` may have devices: the container's are made in it.

    Raises:
        InvalidMountError: one is none.
    """
    target, _, words = text.partition(":")
    is_dev = f"/{target.strip('/')}" == _DEV
    options = [one for one in _DEFAULTS if not (is_dev and one == "nodev")]
    for option in filter(None, words.split(",")):
        group = next((group for group in _GROUPS if option in group), None)
        if group is None:
            _check_value(option, text)
            options = [one for one in options if one.split("=")[0] != option.split("=")[0]]
        else:
            options = [one for one in options if one not in group]
        options.append(option)
    return options


def _check_value(option: str, text: str) -> None:
    key, equals, value = option.partition("=")
    if key not in _VALUES:
        known = [*_VALUES, *sorted(FLAGS)]
        raise InvalidMountError(
            f"the tmpfs option {option!r} in {text!r} is unknown",
            resolution=did_you_mean(key, known)
            or f"there are {', '.join(_VALUES)}, and the flags {', '.join(sorted(FLAGS))}",
        )
    pattern, what = _VALUES[key]
    if not re.fullmatch(pattern, value, re.ASCII):
        wrong = f"cannot be {value!r}" if equals else "has no value"
        raise InvalidMountError(
            f"the tmpfs option '{key}' in {text!r} {wrong}", resolution=f"it is {what}"
        )
