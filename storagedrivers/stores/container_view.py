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
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from storagedrivers.errors import ContainerError
from storagedrivers.linux import namespace, stage, syscalls
from storagedrivers.linux.mountinfo import is_below
from storagedrivers.linux.rooted import Root
from storagedrivers.mounts.spec import clean
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


def refuse_tmpfs(
    store: ContainerStore, container: Container, root: int, path: str, *, write: bool, follow: bool
) -> None:
    """Check that what is to be copied is not in a tmpfs: what lies there below it is something
    else.

    Args:
        root: the container's root directory, open.
        path: what is copied, or where to.
        write: whether it is copied to there; else what the image has there can be had as long as
            the container does not run.
        follow: the last name, too, where it is a symlink.

    Raises:
        ContainerError: it is.
    """
    hiding = _tmpfs_targets(container)
    is_running = store.is_running(container)
    if not (hiding and (write or is_running)):
        return
    targets = [*hiding, *(one.target for one in mounts_of(container) if one.target not in hiding)]
    with Root(f"/proc/self/fd/{root}") as view, suppress(OSError):  # who copies says what is wrong
        what = _innermost(view, targets, path, follow=follow)
        if what not in hiding:
            return
        tar = (
            f"-i {container.name} tar -x -C {what}" if write else f"{container.name} tar -c {path}"
        )
        raise ContainerError(
            f"{path} is in the tmpfs at {what}, which only the processes of container"
            f" {container.name} see",
            resolution=f"have one do it: storagedrivers exec {tar}"
            if is_running
            else "copy to another place: a tmpfs is empty whenever the container starts",
        )


def _tmpfs_targets(container: Container) -> list[str]:
    texts = container.config.get("Tmpfs") or ()
    return [
        *(one.target for one in mounts_of(container) if one.type == TMPFS),
        *(clean(text.partition(":")[0]) for text in texts),
    ]


def forgetting(store: ContainerStore, container: Container) -> Mapping[str, str]:
    """The volumes of a container that are kept in memory and that nobody uses, by their targets:
    what is copied there would be gone when the copy is done.
    """
    from storagedrivers.stores import volume_mounting

    volumes, found = store.volumes, {}
    for one in mounts_of(container):
        if (
            one.name
            and volume_mounting.forgets(volumes, volumes.get(one.name))
            and not volume_mounting.is_held(store.layers.run_root, one.name)
            and not volume_mounting.running(volumes, one.name)
        ):
            found[one.target] = one.name
    return found


def refuse_forgetting(
    container: Container, forgetting: Mapping[str, str], root: int, path: str
) -> None:
    """Check that what is to be copied into a container will stay.

    Args:
        forgetting: what :func:`forgetting` had said before they were mounted for the copy.
        root: the container's root directory, open.
        path: where to.

    Raises:
        ContainerError: it will not.
    """
    if not forgetting:
        return
    targets = [one.target for one in mounts_of(container)]
    with Root(f"/proc/self/fd/{root}") as view, suppress(OSError):  # who copies says what is wrong
        name = forgetting.get(_innermost(view, targets, path, follow=True))
        if name is not None:
            raise ContainerError(
                f"{path} is in volume {name}, which is kept in memory, and only while a container"
                " that uses it runs",
                resolution=f"start it first: storagedrivers start {container.name}",
            )


def _innermost(view: Root, targets: Sequence[str], path: str, *, follow: bool) -> str:
    """The one of the targets that a path lies in."""
    place = _resolved(view, path, follow=follow)
    found = {view.resolve(one): one for one in targets}
    return found.get(max((one for one in found if is_below(place, one)), key=len, default=""), "")


def _resolved(view: Root, path: str, *, follow: bool) -> str:
    """Where a path leads in a container."""
    directory, name = os.path.split(path)
    if follow or name in ("", ".", ".."):
        return view.resolve(path)
    return os.path.join(view.resolve(directory), name)


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
