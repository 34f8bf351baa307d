"""Applies :class:`~storagedrivers.model.Mount` values, and takes them away again.

Overlay goes through fsopen(2) and ``lowerdir+`` where the kernel has it: 500 lowers of any path
length. Older kernels get mount(2), whose options must fit into a page; then the paths are made
relative to their common directory. Bind mounts get their attributes before they are visible, where
the kernel can.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from storagedrivers.errors import MountError, UnmountError
from storagedrivers.linux import namespace, syscalls
from storagedrivers.model import Mount

StrPath = str | os.PathLike[str]

MAX_OPTIONS = 4095
"""Bytes of options that mount(2) takes: a page with its NUL."""

_MAX_STRING = 255  # bytes of one fsconfig(2) string

_LOOK = 0.5  # seconds that a look at a mount through /proc may take, where processors are few

_FLAGS = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "noatime": syscalls.MS_NOATIME,
    "nodiratime": syscalls.MS_NODIRATIME,
    "relatime": syscalls.MS_RELATIME,
    "strictatime": syscalls.MS_STRICTATIME,
    "sync": syscalls.MS_SYNCHRONOUS,
    "dirsync": syscalls.MS_DIRSYNC,
    "remount": syscalls.MS_REMOUNT,
    "bind": syscalls.MS_BIND,
    "rbind": syscalls.MS_BIND | syscalls.MS_REC,
    "rw": 0,
}

_ATTRIBUTES = {
    syscalls.MS_RDONLY: syscalls.MOUNT_ATTR_RDONLY,
    syscalls.MS_NOSUID: syscalls.MOUNT_ATTR_NOSUID,
    syscalls.MS_NODEV: syscalls.MOUNT_ATTR_NODEV,
    syscalls.MS_NOEXEC: syscalls.MOUNT_ATTR_NOEXEC,
    syscalls.MS_NOATIME: syscalls.MOUNT_ATTR_NOATIME,
    syscalls.MS_NODIRATIME: syscalls.MOUNT_ATTR_NODIRATIME,
    syscalls.MS_STRICTATIME: syscalls.MOUNT_ATTR_STRICTATIME,
}


def mount(value: Mount, mountpoint: StrPath) -> None:
    """Apply one mount below *mountpoint*, an existing directory.

    Raises:
        MountError: the kernel, or the program of a fuse mount, refused; ``details`` has its words.
    """
    with _opened_target(value, mountpoint) as target:
        _mount_at(value, target)


@contextmanager
def _opened_target(value: Mount, mountpoint: StrPath) -> Iterator[StrPath]:
    """The path of a mount's target, through which no symlink in the tree leads out of it."""
    if not value.target:
        yield mountpoint
        return
    from storagedrivers.linux import rooted

    with ExitStack() as stack:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            top = os.open(mountpoint, flags)
            stack.callback(os.close, top)
            fd = rooted.open_in(top, value.target.lstrip("/"), flags)
            stack.callback(os.close, fd)
        except OSError as error:
            raise _mount_error(value, os.path.join(mountpoint, value.target), error) from error
        yield f"/proc/self/fd/{fd}"


def _mount_at(value: Mount, target: StrPath) -> None:
    flags, options = _split_flags(value.options)
    try:
        if value.type == "bind" or flags & syscalls.MS_BIND:
            if options:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), ",".join(options))
            _bind(value.source, target, flags | syscalls.MS_BIND)
        elif value.type == "overlay" and not flags & syscalls.MS_REMOUNT:
            mount_overlay(value, target)
        elif value.type.startswith(("fuse.", "fuse3.")):
            _run_fuse_program(value, target)
        else:
            data = os.fsencode(",".join(options))
            _classic_mount(value.source, target, value.type, flags, data)
    except MountError:
        raise
    except OSError as error:
        raise _mount_error(value, target, error) from error


def mount_all(mounts: Sequence[Mount], mountpoint: StrPath) -> None:
    """Apply *mounts* in order; when one fails, those before it are undone.

    Raises:
        MountError: as :func:`mount` does.
    """
    for done, value in enumerate(mounts):
        try:
            mount(value, mountpoint)
        except MountError:
            unmount_all(mounts[:done], mountpoint)
            raise


def unmount(mountpoint: StrPath, *, detach: bool = False) -> None:
    """Unmount what is on top at *mountpoint*.

    Args:
        detach: take it out of the tree at once, whoever uses it (MNT_DETACH). What still has it
            open goes on writing, so the layer may then neither be sealed nor removed unchecked.

    Raises:
        UnmountError: EBUSY while something uses it, EINVAL where nothing is mounted.
    """
    flags = syscalls.UMOUNT_NOFOLLOW | (syscalls.MNT_DETACH if detach else 0)
    try:
        _unless_looked_at(mountpoint, lambda: syscalls.umount2(mountpoint, flags))
    except OSError as error:
        number = error.errno or 0
        raise UnmountError(
            f"cannot unmount {os.fspath(mountpoint)}: {os.strerror(number)}",
            errno=number,
            resolution="end what uses it: fuser -vm PATH lists processes"
            if number == errno.EBUSY
            else None,
        ) from error


def _unless_looked_at(mountpoint: StrPath, action: Callable[[], object]) -> None:
    """Do it again as long as it is EBUSY for no one's sake.

    Whoever asks /proc where a descriptor leads, as a seal of any layer does, holds its mount for
    this moment, though it may have been closed meanwhile.
    """
    end = time.monotonic() + _LOOK
    while True:
        try:
            action()
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end or _is_used(mountpoint):
                raise
        time.sleep(_LOOK / 100)


def _is_used(mountpoint: StrPath) -> bool:
    from storagedrivers.linux import busy

    return bool(busy.find_users(os.path.realpath(mountpoint)))


def unmount_all(mounts: Sequence[Mount], mountpoint: StrPath, *, detach: bool = False) -> None:
    """Undo :func:`mount_all`, last mount first.

    Raises:
        UnmountError: as :func:`unmount` does.
    """
    for value in reversed(mounts):
        if "remount" not in value.options:
            with _opened_target(value, mountpoint) as opened:
                # An open descriptor would keep it busy: only its path is used.
                target = os.readlink(opened) if value.target else opened
            unmount(target, detach=detach)


@contextmanager
def mounted(mounts: Sequence[Mount], mountpoint: StrPath) -> Iterator[StrPath]:
    """Have *mounts* at *mountpoint* for the length of a ``with`` block."""
    mount_all(mounts, mountpoint)
    try:
        yield mountpoint
    finally:
        unmount_all(mounts, mountpoint)


def open_view(mounts: Sequence[Mount]) -> int:
    """Open what *mounts* show, as a directory that is mounted nowhere; the caller closes it.

    A bind mount's directory is simply opened. Others are mounted in a mount namespace that is gone
    when this returns, so nothing is left of a process that is killed. What a mount has as its own
    ``target`` below the first is not seen.

    Raises:
        MountError: as :func:`mount` does.
        OSError: no permission to mount.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if len(mounts) == 1 and mounts[0].type == "bind":
        return os.open(mounts[0].source, flags)

    def opened() -> int:
        # Any directory does that no mount needs; it is hidden from this thread alone.
        with mounted_lazily(mounts, "/sys"):
            return os.open("/sys", flags)

    return namespace.in_private_mount_namespace(opened)


@contextmanager
def mounted_lazily(mounts: Sequence[Mount], mountpoint: StrPath) -> Iterator[None]:
    """As :func:`mounted`; what is still open at the end keeps what it has."""
    mount_all(mounts, mountpoint)
    try:
        yield
    finally:
        unmount_all(mounts, mountpoint, detach=True)


def is_known(filesystem: str) -> bool:
    """Whether the kernel has *filesystem*, or a module for it; False where it does not tell."""
    try:
        os.close(syscalls.fsopen(filesystem))
    except OSError:  # ENODEV; EPERM without privilege; ENOSYS before Linux 5.2
        return False
    return True


# Overlay


def mount_overlay(value: Mount, target: StrPath) -> None:
    """Mount an overlay by the newest interface that this kernel has.

    Raises:
        MountError: refused.
        OSError: refused, without words of the kernel's.
    """
    _forget_last_volatile_mount(value)
    if not mount_overlay_by_fsconfig(value, target):
        mount_overlay_by_options(value, target)


def _forget_last_volatile_mount(value: Mount) -> None:
    """A volatile mount leaves a mark in its work directory that forbids the next one.

    Who asks for a volatile mount again does not mind what may be missing since.
    """
    if "volatile" not in value.options:
        return
    for option in value.options:
        if option.startswith("workdir="):
            mark = os.path.join(unescape(option.partition("=")[2]), "work/incompat/volatile")
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(mark, "dirty"))
            with suppress(FileNotFoundError):
                os.rmdir(mark)


def mount_overlay_by_fsconfig(value: Mount, target: StrPath) -> bool:
    """Mount an overlay through fsopen(2); False where the kernel has no ``lowerdir+`` (before 6.8).

    Raises:
        MountError: refused, with the kernel's words.
    """
    flags, options = _split_flags(value.options)
    with ExitStack() as stack:
        try:
            context = _Context(stack)
        except OSError as error:
            # EPERM is also what seccomp filters of old container engines say.
            if error.errno in (errno.ENOSYS, errno.EPERM):
                return False
            raise
        try:
            if not all(map(context.set_option, options)):
                return False
            tree = context.create(_mount_attributes(flags))
        except OSError as error:
            raise _mount_error(value, target, error, context.words()) from error
        syscalls.move_mount(tree, "", syscalls.AT_FDCWD, target, syscalls.MOVE_MOUNT_F_EMPTY_PATH)
    return True


class _Context:
    """An overlay that is being configured, fsopen(2); what it opens is the stack's to close."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._fd = self._opened(syscalls.fsopen("overlay"))
        self._words: list[str] = []

    def set_option(self, option: str) -> bool:
        """Set one option of mount(2); False where the kernel does not know it in this form."""
        key, _, argument = option.partition("=")
        if key == "lowerdir":
            return all(self._set_path("lowerdir+", lower) for lower in split_lowers(argument))
        if key in ("upperdir", "workdir"):
            return self._set_path(key, unescape(argument))
        if argument:
            self._set(syscalls.FSCONFIG_SET_STRING, key, os.fsencode(argument))
        else:
            self._set(syscalls.FSCONFIG_SET_FLAG, key, None)
        return True

    def _set_path(self, key: str, path: str) -> bool:
        """Set a path by descriptor (Linux 6.15), else by name (6.8)."""
        fd = self._opened(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            self._set(syscalls.FSCONFIG_SET_FD, key, None, fd)
            return True
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # before 6.5: a context of the old kind
                return False
            # EBADF: Linux before 6.15 takes no O_PATH descriptors.
            if error.errno != errno.EBADF and not self._is_unknown(error):
                raise
        name = os.fsencode(path)
        if len(name) > _MAX_STRING or b"\\" in name:
            name = b"/proc/self/fd/%d" % fd
        try:
            self._set(syscalls.FSCONFIG_SET_STRING, key, name)
        except OSError as error:
            if not self._is_unknown(error):
                raise
            return False
        return True

    def _is_unknown(self, error: OSError) -> bool:
        """Whether the kernel does not take such an option, rather than its value."""
        if error.errno != errno.EINVAL:
            return False
        words = self.words()
        return not words or "Unknown parameter" in words or "Bad value" in words

    def _set(self, command: int, key: str, value: bytes | None, aux: int = 0) -> None:
        syscalls.fsconfig(self._fd, command, key, value, aux)

    def create(self, attributes: int) -> int:
        """Make the superblock; a detached mount of it."""
        syscalls.fsconfig(self._fd, syscalls.FSCONFIG_CMD_CREATE, None, None)
        return self._opened(syscalls.fsmount(self._fd, syscalls.FSMOUNT_CLOEXEC, attributes))

    def words(self) -> str:
        """What the kernel has had to say: lines such as ``e overlay: …``."""
        while True:
            try:
                self._words.append(os.read(self._fd, 8192).decode(errors="replace").strip())
            except OSError:  # ENODATA: no more
                return "\n".join(self._words)

    def _opened(self, fd: int) -> int:
        self._stack.callback(os.close, fd)
        return fd


def mount_overlay_by_options(value: Mount, target: StrPath) -> None:
    """Mount an overlay by mount(2), from the common directory of its paths where it must be short.

    Raises:
        MountError: the options do not fit into a page even so.
        OSError: the kernel refused.
    """
    flags, options = _split_flags(value.options)
    data = os.fsencode(",".join(options))
    if len(data) <= MAX_OPTIONS:
        syscalls.mount(value.source, target, "overlay", flags, data)
        return
    base, relative = _relative_to_common_directory(options)
    data = os.fsencode(",".join(relative))
    absolute_target = os.path.abspath(target)
    namespace.in_directory(
        base, lambda: _classic_mount(value.source, absolute_target, "overlay", flags, data)
    )


def _relative_to_common_directory(options: Sequence[str]) -> tuple[str, list[str]]:
    """Rewrite the path options relative to the longest directory that they share."""
    paths = []
    for option in options:
        key, _, argument = option.partition("=")
        if key == "lowerdir":
            paths += split_lowers(argument)
        elif key in ("upperdir", "workdir"):
            paths.append(unescape(argument))
    base = os.path.commonpath([os.path.dirname(path) for path in paths])

    def relative(path: str) -> str:
        return escape(os.path.relpath(path, base))

    rewritten = []
    for option in options:
        key, _, argument = option.partition("=")
        if key == "lowerdir":
            option = "lowerdir=" + ":".join(map(relative, split_lowers(argument)))
        elif key in ("upperdir", "workdir"):
            option = f"{key}={relative(unescape(argument))}"
        rewritten.append(option)
    return base, rewritten


def escape(path: str) -> str:
    r"""Escape a path for overlay's options of mount(2): ``\``, ``:`` and ``,`` each with ``\``."""
    return re.sub(r"([\\:,])", r"\\\1", path)


def unescape(path: str) -> str:
    """Undo :func:`escape`."""
    return re.sub(r"\\(.)", r"\1", path, flags=re.DOTALL)


def split_lowers(lowerdir: str) -> list[str]:
    """The paths of a ``lowerdir=`` value, topmost first, without escapes."""
    return [unescape(part) for part in re.findall(r"(?:[^\\:]|\\.)+", lowerdir, flags=re.DOTALL)]


# Bind mounts, programs, everything else


def _bind(source: str, target: StrPath, flags: int) -> None:
    attributes = _mount_attributes(flags)
    plain = flags & (syscalls.MS_BIND | syscalls.MS_REC)
    if not attributes:
        syscalls.mount(source, target, None, plain, None)
        return
    recursive = syscalls.AT_RECURSIVE if flags & syscalls.MS_REC else 0
    with ExitStack() as stack:
        try:
            clone = syscalls.OPEN_TREE_CLONE | os.O_CLOEXEC | recursive
            tree = syscalls.open_tree(syscalls.AT_FDCWD, source, clone)
            stack.callback(os.close, tree)
            # How access times are kept is one choice: the old one has to be cleared.
            times = syscalls.MOUNT_ATTR__ATIME if attributes & syscalls.MOUNT_ATTR__ATIME else 0
            where = syscalls.AT_EMPTY_PATH | recursive
            syscalls.mount_setattr(tree, "", where, attr_set=attributes, attr_clr=times)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):  # EPERM: also seccomp filters
                raise
        else:
            syscalls.move_mount(
                tree, "", syscalls.AT_FDCWD, target, syscalls.MOVE_MOUNT_F_EMPTY_PATH
            )
            return
    _bind_then_remount(source, target, flags, plain)


def _bind_then_remount(source: str, target: StrPath, flags: int, plain: int) -> None:
    """Before Linux 5.12: a bind mount takes its flags only when mounted again."""
    syscalls.mount(source, target, None, plain, None)
    # Flags that the source has may be locked in a user namespace: leaving one out is EPERM.
    kept = os.statvfs(target).f_flag & (
        syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC | syscalls.MS_RDONLY
    )
    try:
        syscalls.mount(None, target, None, flags | kept | syscalls.MS_REMOUNT, None)
    except OSError:
        syscalls.umount2(target, syscalls.MNT_DETACH)
        raise


def _classic_mount(source: str, target: StrPath, fstype: str, flags: int, data: bytes) -> None:
    if len(data) > MAX_OPTIONS:
        raise MountError(
            f"the {fstype} options for {os.fspath(target)} take {len(data)} bytes,"
            f" and mount(2) takes {MAX_OPTIONS}",
            errno=errno.E2BIG,
            resolution="use fewer layers or a shorter graph root",
        )
    syscalls.mount(source, target, fstype, flags, data or None)


def _run_fuse_program(value: Mount, target: StrPath) -> None:
    import subprocess  # which would be a tenth of what mounting a layer takes as a process

    program = value.type.partition(".")[2]
    command = [program, "-o", ",".join(value.options), os.fspath(target)]
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise MountError(
            f"cannot mount {os.fspath(target)}: the program {program} is not installed",
            errno=errno.ENOENT,
            resolution=f"install {program}",
        ) from error
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip()
        refused = "not permitted" in words or "denied" in words
        raise MountError(
            f"{program} could not mount {os.fspath(target)} (exit status {result.returncode})",
            errno=errno.EPERM if refused else errno.EIO,
            details=words or None,
        )


def _split_flags(options: Sequence[str]) -> tuple[int, list[str]]:
    flags = 0
    rest = []
    for option in options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        else:
            rest.append(option)
    return flags, rest


def _mount_attributes(flags: int) -> int:
    return sum(attribute for flag, attribute in _ATTRIBUTES.items() if flags & flag)


def _mount_error(value: Mount, target: StrPath, error: OSError, words: str = "") -> MountError:
    number = error.errno or 0
    return MountError(
        f"cannot mount {value.type} on {os.fspath(target)}: {os.strerror(number)}",
        errno=number,
        details=words or (f"at {error.filename}" if error.filename else None),
        resolution="see the kernel's log (dmesg) for its reason" if not words else None,
    )
