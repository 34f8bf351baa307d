"""Containers with mounts in tests: what they see of them, and a place on the host to mount from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from storagedrivers.linux import mount, syscalls
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores.container_mounts import BIND, TMPFS, VOLUME, ContainerMount, as_json
from storagedrivers.stores.containers import Container


class Seen(NamedTuple):
    """A line of a container's mountinfo.

    Attributes:
        spreads: ``shared``, ``master``, both or nothing.
    """

    target: str
    root: str
    options: frozenset[str]
    spreads: frozenset[str]
    filesystem: str
    more: frozenset[str]


class Done(NamedTuple):
    code: int
    out: str
    err: str


def bind(source: Path | str, target: str, **more: Any) -> ContainerMount:
    return ContainerMount(BIND, target, source=str(source), **more)


def volume(name: str, target: str, **more: Any) -> ContainerMount:
    return ContainerMount(VOLUME, target, name=name, **more)


def tmpfs(target: str, **more: Any) -> ContainerMount:
    return ContainerMount(TMPFS, target, **more)


class MountRunner:
    """Makes containers with mounts, and runs them with their output in a log."""

    def __init__(self, storage: Storage, engine: str) -> None:
        self.storage = storage
        self.engine = engine

    def create(self, script: str, *mounts: ContainerMount, **config: Any) -> Container:
        config = {
            "Cmd": ["sh", "-c", script],
            "Runtime": self.engine,
            "Network": "none",
            "Mounts": [as_json(one) for one in mounts],
            **config,
        }
        return self.storage.containers.create("busybox", config=config)

    def run(self, script: str, *mounts: ContainerMount, **config: Any) -> Done:
        container = self.create(script, *mounts, **config)
        self.storage.runtime.start(container.id)
        code = self.storage.runtime.wait(container.id)
        return Done(code, self.log(container, "stdout"), self.log(container, "stderr"))

    def seen(self, *mounts: ContainerMount, **config: Any) -> list[Seen]:
        """What the container itself finds in mountinfo."""
        done = self.run("cat /proc/self/mountinfo", *mounts, **config)
        assert done.code == 0, done.err
        return [parse(line) for line in done.out.splitlines()]

    def log(self, container: Container, stream: str) -> str:
        entries = self.storage.runtime.logs(container.id)
        return "".join(one.text for one in entries if one.stream == stream)


def parse(line: str) -> Seen:
    fields = line.split(" ")
    end = fields.index("-")
    return Seen(
        fields[4],
        fields[3],
        frozenset(fields[5].split(",")),
        frozenset(one.partition(":")[0] for one in fields[6:end]),
        fields[end + 1],
        frozenset(fields[end + 3].split(",")),
    )


def at(seen: list[Seen], target: str) -> Seen:
    """What is on top there."""
    return [one for one in seen if one.target == target][-1]


@contextmanager
def host_tree(directory: Path) -> Iterator[Path]:
    """A directory with a file, a filesystem in it, and one that is shared."""
    for name in ("sub", "shared"):
        (directory / name).mkdir(parents=True)
    (directory / "file").write_text("of the host\n")
    with mounted(directory / "sub"), mounted(directory / "shared"):
        syscalls.mount(None, directory / "shared", None, syscalls.MS_SHARED, None)
        yield directory


@contextmanager
def mounted(point: Path) -> Iterator[Path]:
    """Have a tmpfs there."""
    mount.mount(Mount("tmpfs", "tmpfs"), point)
    try:
        yield point
    finally:
        mount.unmount(point)


@contextmanager
def shared_mount(directory: Path) -> Iterator[None]:
    """Have a directory be a mount of its own that is shared, with what is mounted below it."""
    syscalls.mount(directory, directory, None, syscalls.MS_BIND | syscalls.MS_REC, None)
    try:
        syscalls.mount(None, directory, None, syscalls.MS_SHARED, None)
        yield
    finally:
        mount.unmount(directory, detach=True)
