"""System calls that Python's ``os`` does not have; the only module with ctypes.

Each wrapper has the name and the argument order of its manual page, converts, calls and raises
``OSError``. No policy here. Numbers are those of asm-generic: calls of Linux 5.2 and later have the
same number on every architecture, and older C libraries (glibc before 2.36, musl) lack their
wrappers.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_DIRSYNC = 0x80
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
MOVE_MOUNT_F_EMPTY_PATH = 4
OPEN_TREE_CLONE = 1

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR__ATIME = 0x70

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

LOCK_SH = 1
LOCK_EX = 2
LOCK_NB = 4

_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442
_NR_QUOTACTL_FD = 443

_CAPABILITY_VERSION = 0x20080522  # the third: sets of 64 bits

CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_MKNOD = 27

StrOrBytesPath = str | bytes | os.PathLike[str]


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    """Half of the three sets: the lower or the upper 32 capabilities."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _function(name: str, *argtypes: Any) -> Callable[..., int]:
    """The C library's function, its arguments converted once for all calls."""
    function = getattr(_libc(), name)
    function.argtypes = argtypes
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


@cache
def _prototype(*argtypes: Any) -> Callable[..., int]:
    """syscall(3) with one fixed shape: it is variadic, so each shape is a function of its own."""
    return ctypes.CFUNCTYPE(ctypes.c_long, *argtypes, use_errno=True)(("syscall", _libc()))


def _check(result: int, filename: str | bytes | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), filename)
    return result


def _path(path: StrOrBytesPath | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


_INT, _LONG, _ULONG = ctypes.c_int, ctypes.c_long, ctypes.c_ulong
_UINT = ctypes.c_uint
_STR, _PTR = ctypes.c_char_p, ctypes.c_void_p


def mount(
    source: StrOrBytesPath | None,
    target: StrOrBytesPath,
    fstype: str | None,
    flags: int,
    data: bytes | None,
) -> None:
    """mount(2). The caller keeps *data* below a page: the kernel cuts it or fails otherwise."""
    call = _function("mount", _STR, _STR, _STR, _ULONG, _STR)
    kind = None if fstype is None else fstype.encode()
    _check(call(_path(source), _path(target), kind, flags, data), os.fsdecode(target))


def umount2(target: StrOrBytesPath, flags: int) -> None:
    """umount2(2)."""
    _check(_function("umount2", _STR, _INT)(_path(target), flags), os.fsdecode(target))


def unshare(flags: int) -> None:
    """unshare(2); what it takes apart is the calling thread's."""
    _check(_function("unshare", _INT)(flags))


def setns(fd: int, kind: int = 0) -> None:
    """setns(2) for the calling thread; *kind* is a CLONE_NEW… that *fd* has to be, or 0."""
    _check(_function("setns", _INT, _INT)(fd, kind))


def prctl(option: int, argument: int) -> None:
    """prctl(2) with one argument, the others 0."""
    call = _function("prctl", _INT, _ULONG, _ULONG, _ULONG, _ULONG)
    _check(call(option, argument, 0, 0, 0))


def capget() -> tuple[int, int, int]:
    """capget(2) for the calling thread: its effective, permitted and inheritable set."""
    header, data = _CapHeader(_CAPABILITY_VERSION, 0), (_CapData * 2)()
    _check(_function("capget", _PTR, _PTR)(ctypes.byref(header), data))
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) for the calling thread."""
    sets = (effective, permitted, inheritable)
    halves = [[one >> shift & 0xFFFFFFFF for one in sets] for shift in (0, 32)]
    header = _CapHeader(_CAPABILITY_VERSION, 0)
    data = (_CapData * 2)(*(_CapData(*half) for half in halves))
    _check(_function("capset", _PTR, _PTR)(ctypes.byref(header), data))


def pivot_root(new_root: StrOrBytesPath, put_old: StrOrBytesPath) -> None:
    """pivot_root(2), which no C library wraps."""
    numbers = {"x86_64": 155, "i686": 217, "s390x": 217, "ppc64le": 203, "armv7l": 218}
    number = numbers.get(os.uname().machine, 41)  # that of asm-generic
    call = _prototype(_LONG, _STR, _STR)
    _check(call(number, _path(new_root), _path(put_old)), os.fsdecode(new_root))


def fsopen(fstype: str, flags: int = FSOPEN_CLOEXEC) -> int:
    """fsopen(2), Linux 5.2: a file descriptor to configure a new superblock with."""
    return _check(_prototype(_LONG, _STR, _UINT)(_NR_FSOPEN, fstype.encode(), flags))


def fsconfig(fd: int, command: int, key: str | None, value: bytes | None, aux: int = 0) -> None:
    """fsconfig(2). A string *value* ends at 255 bytes in the kernel."""
    call = _prototype(_LONG, _INT, _UINT, _STR, _STR, _INT)
    _check(call(_NR_FSCONFIG, fd, command, None if key is None else key.encode(), value, aux))


def fsmount(fd: int, flags: int, attributes: int) -> int:
    """fsmount(2): the configured superblock as a detached mount."""
    return _check(_prototype(_LONG, _INT, _UINT, _UINT)(_NR_FSMOUNT, fd, flags, attributes))


def move_mount(
    from_fd: int, from_path: StrOrBytesPath, to_fd: int, to_path: StrOrBytesPath, flags: int
) -> None:
    """move_mount(2)."""
    call = _prototype(_LONG, _INT, _STR, _INT, _STR, _UINT)
    _check(
        call(_NR_MOVE_MOUNT, from_fd, _path(from_path), to_fd, _path(to_path), flags),
        os.fsdecode(to_path),
    )


def open_tree(dirfd: int, path: StrOrBytesPath, flags: int) -> int:
    """open_tree(2), Linux 5.2."""
    call = _prototype(_LONG, _INT, _STR, _UINT)
    return _check(call(_NR_OPEN_TREE, dirfd, _path(path), flags), os.fsdecode(path))


def mount_setattr(
    dirfd: int, path: StrOrBytesPath, flags: int, *, attr_set: int, attr_clr: int = 0
) -> None:
    """mount_setattr(2), Linux 5.12."""
    attr = _MountAttr(attr_set=attr_set, attr_clr=attr_clr)
    call = _prototype(_LONG, _INT, _STR, _UINT, _PTR, ctypes.c_size_t)
    size = ctypes.sizeof(attr)
    _check(
        call(_NR_MOUNT_SETATTR, dirfd, _path(path), flags, ctypes.byref(attr), size),
        os.fsdecode(path),
    )


def openat2(dirfd: int, path: StrOrBytesPath, flags: int, *, resolve: int) -> int:
    """openat2(2), Linux 5.6."""
    how = _OpenHow(flags=flags | os.O_CLOEXEC, resolve=resolve)
    call = _prototype(_LONG, _INT, _STR, _PTR, ctypes.c_size_t)
    size = ctypes.sizeof(how)
    return _check(call(_NR_OPENAT2, dirfd, _path(path), ctypes.byref(how), size), os.fsdecode(path))


def renameat2(old: StrOrBytesPath, new: StrOrBytesPath, flags: int) -> None:
    """renameat2(2) on two paths; OSError ENOSYS where the C library has no such function."""
    if not hasattr(_libc(), "renameat2"):  # musl before 1.2.6
        import errno

        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    call = _function("renameat2", _INT, _STR, _INT, _STR, _UINT)
    _check(call(AT_FDCWD, _path(old), AT_FDCWD, _path(new), flags), os.fsdecode(old))


def flock(fd: int, operation: int) -> None:
    """flock(2); BlockingIOError where LOCK_NB would have had to wait."""
    _check(_function("flock", _INT, _INT)(fd, operation))


def syncfs(fd: int) -> None:
    """syncfs(2): everything dirty on the filesystem of *fd* reaches the disk."""
    _check(_function("syncfs", _INT)(fd))


def quotactl_fd(fd: int, command: int, number: int, address: bytearray) -> None:
    """quotactl_fd(2), Linux 5.14, for the filesystem of *fd*; *address* is changed in place."""
    call = _prototype(_LONG, _INT, _UINT, _UINT, _PTR)
    buffer = (ctypes.c_char * len(address)).from_buffer(address)
    _check(call(_NR_QUOTACTL_FD, fd, command, number, ctypes.byref(buffer)))


def quotactl(command: int, special: StrOrBytesPath, number: int, address: bytearray) -> None:
    """quotactl(2); *special* is the block device of the filesystem."""
    call = _function("quotactl", _INT, _STR, _INT, _PTR)
    buffer = (ctypes.c_char * len(address)).from_buffer(address)
    _check(call(command, _path(special), number, ctypes.byref(buffer)), os.fsdecode(special))


def statfs_type(path: StrOrBytesPath) -> int:
    """The magic number ``f_type`` of statfs(2)."""
    # struct statfs is 120 bytes on 64-bit Linux; f_type is its first long.
    buffer = (ctypes.c_long * 32)()
    _check(_function("statfs", _STR, _PTR)(_path(path), ctypes.byref(buffer)), os.fsdecode(path))
    return int(buffer[0]) & 0xFFFFFFFF


def readdir_types(path: StrOrBytesPath) -> dict[str, int]:
    """The names in a directory with their ``d_type`` of readdir(3); 0 is DT_UNKNOWN.

    ``os.scandir`` hides a missing d_type behind a stat(2) of its own.
    """
    # struct dirent64, which is dirent on 64 bits (glibc and musl): ino, off, reclen, type, name.
    opendir, closedir = _libc().opendir, _libc().closedir
    readdir = getattr(_libc(), "readdir64", None) or _libc().readdir
    opendir.argtypes, opendir.restype = (_STR,), _PTR
    readdir.argtypes, readdir.restype = (_PTR,), _PTR
    closedir.argtypes = (_PTR,)
    stream = opendir(_path(path))
    if not stream:
        _check(-1, os.fsdecode(path))
    types = {}
    try:
        while entry := readdir(stream):
            name = ctypes.string_at(entry + 19)
            types[os.fsdecode(name)] = ctypes.c_uint8.from_address(entry + 18).value
    finally:
        closedir(stream)
    return types
