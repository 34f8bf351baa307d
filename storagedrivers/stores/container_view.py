"""The root directory of a container, open where nothing else is: for what looks into it and copies.

A view is mounted in a namespace of its own, so nothing is left of a process that is killed. With
its volumes and what it has of the host it is a copy of the mounts, as a tree that is mounted
nowhere; a tmpfs of a container is seen by its processes alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from storagedrivers.errors import ContainerError
from storagedrivers.linux import namespace, stage, syscalls
from storagedrivers.linux.rooted import Root
from storagedrivers.stores import content, sources, writable
from storagedrivers.stores.container_mounts import TMPFS, ContainerMount, mounts_of

if TYPE_CHECKING:
    from storagedrivers.linux.stage import Prepare
    from storagedrivers.stores.containers import Container, ContainerStore

_SPARE = "/dev"
"""A directory that is everywhere, and that nobody needs who only copies."""


@contextmanager
def opened(
    store: ContainerStore, container: Container, *, write: bool, whole: bool
) -> Iterator[int]:
    """See :meth:`ContainerStore.opened`."""
    mounts = [one for one in mounts_of(container) if one.type != TMPFS] if whole else []
    if not mounts:
        with _opened(store, container, write=write) as fd:
            yield fd
        return
    sources.make_missing(mounts)
    with ExitStack() as stack:
        paths = stack.enter_context(sources.held(store.volumes, mounts))
        prepare = _Whole(mounts, paths)
        try:
            fd = stack.enter_context(_opened(store, container, write=write, prepare=prepare))
        except _TargetMissingError:
            # It was never started, which would have made them.
            with _opened(store, container, write=True, prepare=prepare):
                pass
            fd = stack.enter_context(_opened(store, container, write=False, prepare=prepare))
        yield fd


@contextmanager
def _opened(
    store: ContainerStore, container: Container, *, write: bool, prepare: Prepare | None = None
) -> Iterator[int]:
    if write:
        with _opened_at_rest(store, container, prepare) as fd:
            if fd is not None:
                yield fd
                return
    if write or store.mounts(container):
        with _opened_mounted(store, container, prepare) as fd:
            yield fd
        return
    with content.view(store.layers, container.layer, prepare=prepare) as fd:
        yield fd


@contextmanager
def _opened_at_rest(
    store: ContainerStore, container: Container, prepare: Prepare | None
) -> Iterator[int | None]:
    """The root directory of one that neither runs nor is mounted; None of another."""
    with ExitStack() as stack:
        container = stack.enter_context(store.settled(container.id))
        stack.enter_context(store.layers.locked(container.layer))
        if not store.is_in_use(container):
            yield stack.enter_context(writable.opened(store.layers, container.layer, prepare))
            return
    yield None


@contextmanager
def _opened_mounted(
    store: ContainerStore, container: Container, prepare: Prepare | None
) -> Iterator[int]:
    """The root directory, mounted once more as it is mounted."""
    found = store.mounts(container)
    path = store.mount(container.id, read_only=bool(found) and found[0].read_only)
    fd = store.layers.mount_table.open(path)  # else the count is gone with the mount
    try:
        if prepare is None:
            yield fd
            return
        view = namespace.in_private_mount_namespace(lambda: prepare()(os.fspath(path)))
        try:
            yield view
        finally:
            os.close(view)
    finally:
        os.close(fd)
        store.unmount(container.id)


class _TargetMissingError(ContainerError):
    """Where something is to be seen there is nothing, and nothing can be made."""


class _Whole:
    """Mounts what a container has mounted into a view of its root.

    Args:
        mounts: what, in their order.
        paths: where the files of volumes are.
    """

    def __init__(self, mounts: Sequence[ContainerMount], paths: Mapping[str, str]) -> None:
        self._mounts = mounts
        self._paths = paths

    def __call__(self) -> stage.Attach:
        """Open the sources; what is to be called once the root is mounted."""
        stack = ExitStack()
        with stack:
            opened = []
            for one in self._mounts:
                fd = sources.opened(one, self._paths)
                stack.callback(os.close, fd)
                opened.append(fd)
            stack = stack.pop_all()

        def attach(point: str) -> int:
            with stack:
                return self._attached(point, opened)

        return attach

    def _attached(self, point: str, opened: Sequence[int]) -> int:
        staged = stage.Stage(point)
        for number, (one, fd) in enumerate(zip(self._mounts, opened, strict=True)):
            made = staged.bind(fd, str(number), recursive=one.recursive != "disabled")
            if one.read_only:
                stage.set_read_only(made, recursive=one.recursive not in ("disabled", "writable"))
        staged.move(_SPARE)
        with Root(point) as root:
            for number, one in enumerate(self._mounts):
                self._place(root, one, os.path.join(_SPARE, str(number)))
        clone = syscalls.OPEN_TREE_CLONE | os.O_CLOEXEC | syscalls.AT_RECURSIVE
        return syscalls.open_tree(syscalls.AT_FDCWD, point, clone)

    @staticmethod
    def _place(root: Root, one: ContainerMount, staged: str) -> None:
        try:
            if stat.S_ISDIR(os.stat(staged).st_mode):
                fd = root.make_directory(one.target)
            else:
                fd = root.make_file(one.target)
            try:
                stage.place(staged, fd)
            finally:
                os.close(fd)
        except OSError as error:
            kind = _TargetMissingError if error.errno == errno.EROFS else ContainerError
            raise kind(
                f"what is mounted at {one.target} in the container cannot be shown:"
                f" {os.strerror(error.errno or 0)}"
            ) from error
