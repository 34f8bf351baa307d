"""One overlay2 cycle (create, mount, unmount, remove), against the same calls through ctypes.

The peer is what a careful C programmer would call, one call after another, with every result
checked: the calls that strace(1) shows of our cycle, without those that only our way of writing it
needs. It knows what lies in the layer that it removes, where we have to look at each name. Needs
root, glibc 2.36 (for fsopen) and Linux 6.15 (for FSCONFIG_SET_FD of a layer).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pairwise

from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.linux import mount, namespace

LIMIT = 2.0

LOWERS = ("upper-lower", "base")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--cycles", type=int, default=500, help="pairs of cycles (%(default)s)")


def measure(options: argparse.Namespace) -> list[pairwise.Comparison]:
    """Run the two cycles in turns, each in a home of its own on one filesystem."""
    pairwise.require_root()
    namespace.make_mounts_private()
    with pairwise.working_directory(options.dir) as directory:
        ours = _library_cycle(directory / "ours")
        peer = _raw_cycle(directory / "peer")
        gc.disable()
        try:
            times = pairwise.take_turns(
                {"ours": ours, "peer": peer}, rounds=options.cycles, warm_up=20
            )
        finally:
            gc.enable()
    return [
        pairwise.Comparison(
            name="overlay2 cycle",
            peer_name="the same system calls through ctypes",
            ours=times["ours"],
            peer=times["peer"],
            limit=LIMIT,
        )
    ]


def _library_cycle(directory: Path) -> Callable[[int], None]:
    driver, mountpoint = _prepared(directory)

    def cycle(number: int) -> None:
        layer = f"layer-{number}"
        driver.create(layer, LOWERS)
        mounts = driver.mounts(layer, LOWERS, read_only=False)
        mount.mount_all(mounts, mountpoint)
        mount.unmount_all(mounts, mountpoint)
        driver.remove(layer)

    return cycle


def _prepared(directory: Path) -> tuple[Overlay2, str]:
    """A driver with two sealed layers in its home, and a mountpoint."""
    driver = Overlay2(directory / "overlay2")
    mountpoint = directory / "merged"
    mountpoint.mkdir(parents=True)
    for place in reversed(range(len(LOWERS))):
        layer, below = LOWERS[place], LOWERS[place + 1 :]
        driver.create(layer, below)
        Path(driver.home, layer, "diff", f"file-of-{layer}").write_text(layer)
        driver.seal(layer, below)
    return driver, str(mountpoint)


# The peer


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _declare(**functions: tuple[Any, ...]) -> ctypes.CDLL:
    """The C library, with the types of the arguments of *functions*; each raises where it fails."""
    library = ctypes.CDLL(None, use_errno=True)
    for name, argtypes in functions.items():
        function = getattr(library, name)
        function.argtypes = argtypes
        function.restype = _checked
    return library


_INT, _UINT, _STR, _PTR = ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_void_p

_AT_FDCWD = -100
_AT_REMOVEDIR = 0x200
_SET_STRING, _SET_FD, _CMD_CREATE = 1, 5, 6
_UMOUNT_NOFOLLOW = 8
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_STAT_BYTES = 256  # struct stat takes 144 at most on 64-bit Linux
_ATIME = 72  # st_atim is there, and st_mtim behind it
_BUFFER_BYTES = 32768


def _raw_cycle(directory: Path) -> Callable[[int], None]:  # one straight script, on purpose
    """The peer's cycle, over layers that the library made."""
    driver, merged_path = _prepared(directory)
    libc = _declare(
        stat=(_STR, _PTR),
        fstat=(_INT, _PTR),
        mkdir=(_STR, _UINT),
        open=(_STR, _INT),
        openat=(_INT, _STR, _INT),
        close=(_INT,),
        fchmod=(_INT, _UINT),
        flistxattr=(_INT, _PTR, ctypes.c_size_t),
        futimens=(_INT, _PTR),
        symlink=(_STR, _STR),
        unlink=(_STR,),
        rename=(_STR, _STR),
        unlinkat=(_INT, _STR, _INT),
        getdents64=(_INT, _PTR, ctypes.c_size_t),
        fsopen=(_STR, _UINT),
        fsconfig=(_INT, _UINT, _STR, _STR, _INT),
        fsmount=(_INT, _UINT, _UINT),
        move_mount=(_INT, _STR, _INT, _STR, _UINT),
        umount2=(_STR, _INT),
    )
    status = ctypes.create_string_buffer(_STAT_BYTES)
    buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
    times = ctypes.byref(status, _ATIME)
    home = os.fsencode(driver.home)
    merged = os.fsencode(merged_path)
    top, base = (b"%s/%s/diff" % (home, name.encode()) for name in LOWERS)
    trash = home + b"/.trash"

    def create(path: bytes, link: bytes, target: bytes) -> None:
        libc.stat(top, status)
        libc.stat(base, status)
        libc.mkdir(path, 0o710)
        libc.mkdir(path + b"/diff", 0o777)
        libc.mkdir(path + b"/work", 0o700)
        source = libc.open(top, _DIRECTORY)
        diff = libc.open(path + b"/diff", _DIRECTORY)
        libc.fstat(diff, status)
        libc.fstat(source, status)
        libc.fchmod(diff, 0o755)
        libc.flistxattr(source, buffer, 256)
        libc.futimens(diff, times)
        libc.close(diff)
        libc.close(source)
        libc.symlink(target, link)

    def mount_and_unmount(path: bytes) -> None:
        context = libc.fsopen(b"overlay", 1)
        first = libc.open(top, _PATH)
        libc.fsconfig(context, _SET_FD, b"lowerdir+", None, first)
        second = libc.open(base, _PATH)
        libc.fsconfig(context, _SET_FD, b"lowerdir+", None, second)
        upper = libc.open(path + b"/diff", _PATH)
        libc.fsconfig(context, _SET_FD, b"upperdir", None, upper)
        work = libc.open(path + b"/work", _PATH)
        libc.fsconfig(context, _SET_FD, b"workdir", None, work)
        libc.fsconfig(context, _SET_STRING, b"index", b"off", 0)
        libc.fsconfig(context, _SET_STRING, b"redirect_dir", b"nofollow", 0)
        libc.fsconfig(context, _SET_STRING, b"metacopy", b"off", 0)
        libc.fsconfig(context, _CMD_CREATE, None, None, 0)
        tree = libc.fsmount(context, 1, 0)
        libc.move_mount(tree, b"", _AT_FDCWD, merged, 4)
        for fd in (tree, work, upper, second, first, context):
            libc.close(fd)
        libc.umount2(merged, _UMOUNT_NOFOLLOW)

    def emptied(parent: int, name: bytes, *children: bytes) -> None:
        """Remove one directory, whose *children* are directories without any."""
        fd = libc.openat(parent, name, _DIRECTORY | os.O_NOFOLLOW)
        while libc.getdents64(fd, buffer, _BUFFER_BYTES):
            pass
        for child in children:
            emptied(fd, child)
        libc.close(fd)
        libc.unlinkat(parent, name, _AT_REMOVEDIR)

    def remove(path: bytes, link: bytes, name: bytes) -> None:
        libc.unlink(link)
        libc.rename(path, b"%s/%s" % (trash, name))
        lost = libc.open(trash, _DIRECTORY)
        while libc.getdents64(lost, buffer, _BUFFER_BYTES):
            pass
        layer = libc.openat(lost, name, _DIRECTORY | os.O_NOFOLLOW)
        while libc.getdents64(layer, buffer, _BUFFER_BYTES):
            pass
        emptied(layer, b"diff")
        emptied(layer, b"work", b"work")
        libc.close(layer)
        libc.unlinkat(lost, name, _AT_REMOVEDIR)
        libc.close(lost)

    def cycle(number: int) -> None:
        name = b"layer-%d" % number
        path = b"%s/%s" % (home, name)
        link = b"%s/l/%016x" % (home, number)
        create(path, link, b"../%s/diff" % name)
        mount_and_unmount(path)
        remove(path, link, name)

    return cycle


if __name__ == "__main__":
    sys.exit(pairwise.run([sys.modules[__name__]], __doc__))
