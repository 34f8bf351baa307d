"""Containers in tests: a root filesystem with busybox, an image of it, and engines that work."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from capabilities import lack, need
from stored import clean

from storagedrivers.errors import RuntimeFailedError
from storagedrivers.linux import mount
from storagedrivers.model import Mount
from storagedrivers.runtime import engines
from storagedrivers.runtime.cgroups import ROOT, read_cgroups
from storagedrivers.storage import Storage
from storagedrivers.stores.images import Image

PATIENCE = 30.0
"""Seconds until a test gives up waiting."""

APPLETS = (
    *("sh", "id", "env", "cat", "echo", "true", "false", "sleep", "grep", "ls", "ps", "kill"),
    *("hostname", "pwd", "touch", "mknod", "mount", "test", "tty", "stty", "head", "wc", "unshare"),
    *("chroot", "dd", "seq", "readlink", "stat", "ping", "date"),
)

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
svc:x:12:34:a service:/srv:/bin/sh
homeless:x:13:34:::
"""
GROUP = """\
root:x:0:
svc:x:34:
more:x:56:svc,homeless
other:x:57:homeless
"""


@contextmanager
def usable(engine: str) -> Iterator[None]:
    """Skip the test where an engine does not work, whatever is done for it."""
    need("root", "mount", *([engine] if engine in ("crun", "runc") else []))
    with cgroups_for(engine):
        try:
            engines.choose(engine)
        except RuntimeFailedError as error:
            lack(engine, str(error))
        yield


@contextmanager
def cgroups_for(engine: str) -> Iterator[None]:
    """A mixture of cgroup versions is no place for crun; the tests have a mount namespace of their
    own, in which it can be taken apart.
    """
    unified = os.path.join(ROOT, "unified")
    if engine != "crun" or not read_cgroups().mixed:
        yield
        return
    mount.unmount(unified)
    try:
        yield
    finally:
        mount.mount(Mount("cgroup2", "cgroup2"), unified)


@cache
def rootfs_tar() -> bytes:
    """A root filesystem with busybox, a file that is no program, and users."""
    need("busybox")
    busybox = shutil.which("busybox")
    assert busybox
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "tmp", "root", "srv"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        _add(archive, "bin/busybox", Path(busybox).read_bytes(), 0o755)
        # A static one needs no libraries, and makes ldd fail.
        words = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", words):
            _add(archive, library[1:], Path(library).read_bytes(), 0o755)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
        _add(archive, "etc/passwd", PASSWD.encode(), 0o644)
        _add(archive, "etc/group", GROUP.encode(), 0o644)
        _add(archive, "bin/plain", b"no program\n", 0o644)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def busybox_image(storage: Storage, *changes: str) -> Image:
    """An image of it, which is called ``busybox``."""
    return storage.images.import_(io.BytesIO(rootfs_tar()), name="busybox", changes=changes)


def command_line(storage: Storage) -> list[str]:
    """The words with which the program works on a store."""
    return [
        sys.executable,
        "-m",
        "storagedrivers",
        "--root",
        os.fspath(storage.root),
        "--run-root",
        os.fspath(storage.run_root),
    ]


@contextmanager
def container_store(directory: Path) -> Iterator[Storage]:
    """A store on overlay2; in the end everything in it goes."""
    with Storage.open(
        root=directory / "root", run_root=directory / "run", driver="overlay2"
    ) as storage:
        yield storage
        remove_containers(storage)
        for volume in storage.volumes.ls():
            storage.volumes.remove(volume.name)
        clean(storage)


def remove_containers(storage: Storage) -> None:
    """Remove containers and images, and wait until the monitors have closed the store, too."""
    for container in storage.containers.ls():
        storage.runtime.end(container)
        storage.containers.remove(container.id)
    deadline = time.monotonic() + PATIENCE
    while any(map(_is_monitor_of(storage), filter(str.isdigit, os.listdir("/proc")))):
        assert time.monotonic() < deadline, "a monitor does not end"
        time.sleep(0.01)
    for image in storage.images.ls():
        storage.images.remove(image.id)


def _is_monitor_of(storage: Storage) -> Callable[[str], bool]:
    words = [b"storagedrivers.cli.monitor", os.fsencode(storage.root)]

    def is_one(pid: str) -> bool:
        try:
            found = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return False
        return all(word in found for word in words)

    return is_one
