"""Measures what a filesystem can do, by doing it in a scratch directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from storagedrivers.linux import ioctl, syscalls
from storagedrivers.linux.scratch import scratch_directory
from storagedrivers.model import Reason

_PROBLEMS = {
    errno.EROFS: Reason.READ_ONLY,
    errno.EACCES: Reason.NOT_WRITABLE,
    errno.EPERM: Reason.NOT_WRITABLE,
    errno.ENOENT: Reason.NOT_WRITABLE,  # /proc, where nothing can be made
    errno.ENOSPC: Reason.NO_SPACE,
    errno.EDQUOT: Reason.NO_SPACE,
}

_REFUSALS = (
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.EISDIR,  # O_TMPFILE, where the filesystem does not know it
    errno.ENOENT,
    errno.ENOSYS,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EACCES,
)


def measure(directory: str) -> tuple[str, dict[str, bool | None]]:
    """Try the features of the filesystem that *directory* lies on.

    Returns:
        A reason code why nothing can be written there (or an empty string), and the features by the
        names of :class:`~storagedrivers.host.GraphRoot`; None for what could not be tried.

    Raises:
        OSError: the scratch directory failed in a way that says nothing about the filesystem.
    """
    try:
        with scratch_directory(directory) as scratch:
            return "", _features(scratch)
    except OSError as error:
        problem = _PROBLEMS.get(error.errno or 0)
        if problem is None:
            raise
        return problem.value, {}


def _features(scratch: Path) -> dict[str, bool | None]:
    file = scratch / "file"
    file.write_bytes(b"x")
    return {
        "d_type": _works(lambda: _has_d_type(scratch)),
        "trusted_xattr": _works(lambda: os.setxattr(file, "trusted.storagedrivers", b"1")),
        "user_xattr": _works(lambda: os.setxattr(file, "user.storagedrivers", b"1")),
        "reflink": _works(lambda: _clone(file, scratch / "clone")),
        "o_tmpfile": _works(lambda: os.close(os.open(scratch, os.O_TMPFILE | os.O_RDWR, 0o600))),
        "rename_whiteout": _works(lambda: _leaves_whiteout(file, scratch / "moved")),
    }


def _works(action: Callable[[], object]) -> bool | None:
    """True, False where the filesystem refuses, None where the user may not (EPERM)."""
    try:
        return action() is not False
    except OSError as error:
        if error.errno == errno.EPERM:
            return None
        if error.errno in _REFUSALS:
            return False
        raise


def _has_d_type(scratch: Path) -> bool:
    return syscalls.readdir_types(scratch).get("file") == stat.S_IFREG >> 12


def _clone(source: Path, target: Path) -> None:
    with open(source, "rb") as reader, open(target, "wb") as writer:
        ioctl.clone_file(reader.fileno(), writer.fileno())


def _leaves_whiteout(source: Path, target: Path) -> bool:
    syscalls.renameat2(source, target, syscalls.RENAME_WHITEOUT)
    with suppress(FileNotFoundError):
        return stat.S_ISCHR(source.lstat().st_mode)
    return False
