"""What is mounted into containers, opened once: volumes, and directories and files of the host.

Whatever is done with the paths afterwards, what was opened is what is mounted.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from storagedrivers.errors import InvalidMountError
from storagedrivers.linux import syscalls

if TYPE_CHECKING:
    from storagedrivers.stores.container_mounts import ContainerMount
    from storagedrivers.stores.volumes import VolumeStore

SPREADING = ("slave", "rslave", "shared", "rshared")
"""How mounts spread that do."""

_TRIES = 100


def _handle() -> int:
    """Flags that open what can be mounted; systems that have none of them import this, too."""
    return os.O_PATH | os.O_CLOEXEC


def make_missing(
    mounts: Sequence[ContainerMount], warn: Callable[[str], object] | None = None
) -> None:
    """Make what is to be mounted from the host and is missing, where that was asked for.

    Args:
        mounts: those of a container.
        warn: is told what was made.

    Raises:
        InvalidMountError: it is missing, and was not to be made, or cannot be made.
    """
    for mount in mounts:
        if mount.name or not mount.source or os.path.exists(mount.source):
            continue
        if not mount.create_source:
            raise _no_source(mount)
        _make(mount.source)
        if warn is not None:
            warn(
                f"{mount.source} was not there: it was made as an empty directory of root's, and is"
                f" mounted at {mount.target}"
            )


def _make(path: str) -> None:
    above = os.path.dirname(path.rstrip("/"))
    try:
        if not os.path.isdir(above):
            _make(above)
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)  # whatever the umask is
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InvalidMountError(
            f"error while creating mount source path '{path}': mkdir {path}: {reason}",
            resolution="make the directory, or name another one",
        ) from error


@contextmanager
def held(volumes: VolumeStore, mounts: Sequence[ContainerMount]) -> Iterator[Mapping[str, str]]:
    """Have all volumes of a container held; from their names to where their files are.

    Raises:
        NotFoundError: there is none of that name.
        VolumeError: one cannot be mounted.
    """
    with ExitStack() as stack:
        names = dict.fromkeys(one.name for one in mounts if one.name)
        yield {name: stack.enter_context(volumes.hold(name)).path for name in names}


def opened(mount: ContainerMount, paths: Mapping[str, str]) -> int:
    """A descriptor (O_PATH) of what a mount shows; the caller closes it.

    Args:
        mount: one of a volume or of the host.
        paths: where the files of volumes are.

    Raises:
        InvalidMountError: it is not there, or lies outside of the volume.
    """
    if not mount.name:
        return _opened_on_host(mount)
    volume = os.open(paths[mount.name], _handle() | os.O_DIRECTORY | os.O_NOFOLLOW)
    if not mount.subpath:
        return volume
    try:
        return _opened_below(volume, mount.name, mount.subpath)
    finally:
        os.close(volume)


def _opened_on_host(mount: ContainerMount) -> int:
    path = mount.source
    try:
        try:
            return os.open(path, _handle() | os.O_DIRECTORY)  # by which autofs mounts it
        except NotADirectoryError:
            return os.open(path, _handle())
    except FileNotFoundError as error:
        raise _no_source(mount) from error
    except OSError as error:
        raise InvalidMountError(
            f"the bind source path {path} cannot be opened: {os.strerror(error.errno or 0)}"
        ) from error


def _no_source(mount: ContainerMount) -> InvalidMountError:
    """The error for a path of the host that is not there."""
    short = f"-v {mount.source}:{mount.target}{':ro' if mount.read_only else ''}"
    return InvalidMountError(
        f'invalid mount config for type "bind": bind source path does not exist: {mount.source}',
        resolution=f"make it first, or have it made: {short}, or bind-create-src with --mount",
    )


def check_spreading(mount: ContainerMount, fd: int) -> None:
    """Refuse a mount that cannot spread as it should, in Docker's words.

    Args:
        mount: one of the host.
        fd: its source, open.

    Raises:
        InvalidMountError: what the source lies on does not spread.
    """
    from storagedrivers.linux import stage

    if mount.propagation not in SPREADING:
        return
    found = stage.spreads(fd)
    if "shared" in mount.propagation and "shared" not in found:
        kind = "shared"
    elif "slave" in mount.propagation and not found & {"shared", "master"}:
        kind = "shared or slave"
    else:
        return
    point = stage.mount_point(os.readlink(f"/proc/self/fd/{fd}"))
    raise InvalidMountError(
        f"path {mount.source} is mounted on {point} but it is not a {kind} mount",
        resolution=f"make it one: mount --make-shared {point}",
    )


def _opened_below(volume: int, name: str, subpath: str) -> int:
    try:
        return _retried(lambda: _beneath(volume, subpath))
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise InvalidMountError(
                f"the subpath {subpath!r} leads out of volume {name}",
                resolution="name a path below the volume, without a symlink that leaves it",
            ) from error
        raise InvalidMountError(
            f"the subpath {subpath!r} of volume {name} cannot be opened:"
            f" {os.strerror(error.errno or 0)}",
            resolution="make it in the volume first",
        ) from error


def _retried(action: Callable[[], int]) -> int:
    for _ in range(_TRIES - 1):
        try:
            return action()
        except BlockingIOError:  # EAGAIN: something on the way was renamed meanwhile
            continue
    return action()


def _beneath(volume: int, subpath: str) -> int:
    try:
        return syscalls.openat2(volume, subpath, _handle(), resolve=syscalls.RESOLVE_BENEATH)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # before Linux 5.6
            raise
    return _without_symlinks(volume, subpath)


def _without_symlinks(volume: int, subpath: str) -> int:
    here = os.dup(volume)
    for name in subpath.split("/"):
        try:
            # A symlink that was opened as one is no directory to go on from.
            there = os.open(name or ".", _handle() | os.O_NOFOLLOW, dir_fd=here)
        finally:
            os.close(here)
        here = there
        if name == ".." or subpath.startswith("/") or stat.S_ISLNK(os.fstat(here).st_mode):
            os.close(here)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), subpath)
    return here
