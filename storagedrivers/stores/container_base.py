"""What all that is done with containers shares: finding one, its lock, its files, who uses it."""

from __future__ import annotations

import os
from _thread import get_ident  # of threading, which costs a start more than a millisecond
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, NoReturn

from storagedrivers.errors import ContainerRunningError, InUseError, NotFoundError
from storagedrivers.stores import container_records as records
from storagedrivers.stores import locks
from storagedrivers.stores.container_records import Container

if TYPE_CHECKING:
    from storagedrivers.stores.images import ImageStore
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.mounts import MountRecord
    from storagedrivers.stores.volumes import VolumeStore


def _cannot_kill(container: Container) -> NoReturn:
    raise ContainerRunningError(
        f"container {container.name} is running",
        resolution=f"stop it: storagedrivers stop {container.name}",
    )


def _cannot_find(root: int, words: str) -> NoReturn:
    raise NotFoundError(f"nobody can tell who the user {words!r} is")


class ContainerBase:
    """The base of :class:`~storagedrivers.stores.containers.ContainerStore`."""

    def __init__(
        self,
        layers: LayerStore,
        images: ImageStore,
        volumes: VolumeStore,
        *,
        paused: Callable[[Container], AbstractContextManager[object]] = nullcontext,
        kill: Callable[[Container], object] = _cannot_kill,
        find_user: Callable[[int, str], tuple[int, tuple[int, ...]]] = _cannot_find,
    ) -> None:
        self.layers = layers
        self.images = images
        self.volumes = volumes
        self.database = layers.database
        self.paused = paused
        self.kill = kill
        self.find_user = find_user
        self._held: set[tuple[int, str]] = set()

    def get(self, reference: str) -> Container:
        """The container that *reference* means.

        Raises:
            NotFoundError: none, or several; then they are named.
        """
        return records.get(self.database, reference)

    def directory(self, container: Container) -> str:
        """Where its files lie."""
        return os.path.join(self.layers.root, "containers", container.id)

    def run_directory(self, container: Container) -> str:
        """Where its files lie that die with the boot; it may not be there."""
        return os.path.join(self.layers.run_root, "containers", container.id)

    def is_running(self, container: Container) -> bool:
        """Whether someone runs it."""
        return locks.is_locked(os.path.join(self.run_directory(container), "monitor"))

    def mounts(self, container: Container) -> list[MountRecord]:
        """Its mounts, each looked at."""
        if not self.database.row("SELECT 1 FROM mounts WHERE layer = ?", container.layer):
            return []
        return self.layers.mounts(container.layer)

    def make_directory(self, container: str) -> None:
        """Make the directory for the files of the container with this id."""
        os.makedirs(os.path.join(self.layers.root, "containers", container), 0o700, exist_ok=True)

    @contextmanager
    def new_directory(self, container: str) -> Iterator[None]:
        """Make it for a container that is made in the block; if that fails, it goes.

        As long as there is no row, the container's lock says that it belongs to someone.
        """
        with self.layers.locked(f"{locks.CONTAINER}{container}", what="a new container"):
            self.make_directory(container)
            try:
                yield
            except BaseException:
                row = self.database.row("SELECT 1 FROM containers WHERE id = ?", container)
                with suppress(OSError):
                    if row is None:  # it was not made, rather than interrupted afterwards
                        os.rmdir(os.path.join(self.layers.root, "containers", container))
                raise

    @contextmanager
    def locked(self, container: Container) -> Iterator[None]:
        """Hold its lock; who holds it already goes on."""
        if (get_ident(), container.id) in self._held:
            yield
            return
        with self.layers.locked(
            f"{locks.CONTAINER}{container.id}", what=f"container {container.name}"
        ):
            with self.holding(container):
                yield

    @contextmanager
    def holding(self, container: Container) -> Iterator[None]:
        """Within the block this thread has the container's lock, however it got it."""
        key = (get_ident(), container.id)
        self._held.add(key)
        try:
            yield
        finally:
            self._held.discard(key)

    @contextmanager
    def settled(self, reference: str) -> Iterator[Container]:
        """Hold its lock; it has all that it should, also where a process was killed between its
        row and its directory, or between sealing its layer and laying the next.
        """
        container = self.get(reference)
        with self.locked(container):
            container = self.get(container.id)
            self.make_directory(container.id)
            if not self.layers.get(container.layer).writable:
                from storagedrivers.stores import moves

                container = moves.lay_above(self, container, container.layer)
            yield container

    def refuse_in_use(self, container: Container, *, wanted: str = "") -> None:
        """Check that it neither runs nor is mounted.

        Args:
            wanted: what cannot be done, for the error.

        Raises:
            ContainerRunningError: it does; says what to do.
        """
        if self.is_running(container):
            raise ContainerRunningError(
                f"container {container.name} is running{wanted}",
                resolution=f"stop it: storagedrivers stop {container.name}",
            )
        if found := self.mounts(container):
            places = ", ".join(one.path for one in found)
            raise ContainerRunningError(
                f"container {container.name} is mounted at {places}{wanted}",
                resolution=f"unmount it: storagedrivers container unmount {container.name}",
            )

    def is_in_use(self, container: Container) -> bool:
        """Whether it runs or is mounted."""
        return self.is_running(container) or bool(self.mounts(container))

    def let_go(self, layers: list[str], *, later: bool = False) -> None:
        """Release layers; what cannot go now goes with the next ``gc``."""
        for layer in layers:
            try:
                self.layers.release(layer, later=later)
            except (InUseError, OSError) as error:
                self.layers.problems.append(f"layer {layer} could not be removed yet: {error}")
