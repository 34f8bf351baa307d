"""Containers: a chain of layers with a writable one on top, and what is to be run in it.

::

    writable layer                       what the container writes
    sealed layers                        of its checkpoints, commits and forks
    init layer                           one for each image, see :mod:`storagedrivers.stores.init`
    the image's layers                   shared by all of its containers

    <graph root>/containers/<id>/        what its runs leave: bundle, hostname, hosts, log, status
    <run root>/containers/<id>/          what dies with the boot
    <run root>/containers/<id>/monitor   locked by whoever runs it, as long as it runs

To go back, to go two ways and to keep a state only seals, lays and drops layers: it costs the same
whatever was written. A container that is mounted or runs is left alone: its layer is in use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from storagedrivers.stores import container_records as records
from storagedrivers.stores import locks
from storagedrivers.stores.container_base import ContainerBase
from storagedrivers.stores.container_records import Checkpoint, Container

if TYPE_CHECKING:
    from storagedrivers.archive.output import Write
    from storagedrivers.model import Change
    from storagedrivers.mounts.spec import MountSpec
    from storagedrivers.stores.images import Image
    from storagedrivers.stores.plans import Plan

__all__ = ["Checkpoint", "Container", "ContainerStore"]


class ContainerStore(ContainerBase):
    """The containers of one store.

    A reference to a container is its name, its id, or the beginning of that.

    Args:
        layers: the store's layers.
        images: its images.
        volumes: its volumes.
        paused: has a running container stand still for the length of a ``with`` block.
        kill: ends a running container at once.
        find_user: the user, and its groups, whom a text means in an image; gets that one's root
            directory, open.
    """

    # Finding

    def ls(self) -> list[Container]:
        """All of them, the oldest first."""
        return records.find(self.database, "WHERE state = 'ready' ORDER BY number")

    def image_is_gone(self, container: Container) -> bool:
        """Whether its image was removed, by force: it lives on with the layers."""
        query = "SELECT 1 FROM images WHERE id = ?"
        return container.image is not None and not self.database.row(query, container.image)

    # Making

    def create(
        self,
        image: str | None,
        *,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        mounts: Sequence[MountSpec | str] = (),
        tmpfs: Sequence[str] = (),
        volumes_from: Sequence[str] = (),
        size: int | None = None,
        durability: str | None = None,
    ) -> Container:
        """Make a container.

        Volumes that it needs and that are not there are made, and those that are empty get what the
        image has in their place; :meth:`plan` tells what that will be. If it cannot be made, none
        of them stays.

        Args:
            image: reference to an image; None for an empty root.
            name: by default two words that chance chooses.
            config: what is to be different from the image's config.
            mounts: what is mounted in it: specs, or texts as they follow Docker's ``-v`` or
                ``--mount``; those of the latter begin with a word and ``=`` or ``,``.
            tmpfs: texts as they follow ``--tmpfs``.
            volumes_from: containers whose mounts it gets too, as they follow ``--volumes-from``.
            size: a limit in bytes for what is written to it.
            durability: ``layer`` or ``none``, instead of the store's.

        Raises:
            NotFoundError: there is no such image, or container to have volumes from.
            AlreadyExistsError: the name is taken.
            DepthExceededError: the image has too many layers.
            InvalidMountError: what was asked for is no mount; a path of the host is missing.
            VolumeError: a volume cannot be made or filled.
        """
        from storagedrivers.stores import container_making

        wish = container_making.Wish(image, config or {}, mounts, tmpfs, volumes_from)
        return container_making.create(self, wish, name=name, size=size, durability=durability)

    def plan(
        self,
        image: str | None,
        *,
        config: Mapping[str, Any] | None = None,
        mounts: Sequence[MountSpec | str] = (),
        tmpfs: Sequence[str] = (),
        volumes_from: Sequence[str] = (),
    ) -> Plan:
        """Tell what :meth:`create` and the first start would do about mounts, and do nothing.

        Args:
            image, config, mounts, tmpfs, volumes_from: as for :meth:`create`.

        Raises:
            NotFoundError, AlreadyExistsError, InvalidMountError, VolumeError: as :meth:`create`.
        """
        from storagedrivers.stores import container_making

        wish = container_making.Wish(image, config or {}, mounts, tmpfs, volumes_from)
        return container_making.plan(self, wish)

    def rename(self, reference: str, name: str) -> Container:
        """Give it another name.

        Raises:
            AlreadyExistsError: the name is taken.
        """
        container, name = self.get(reference), records.checked_name(name)
        with self.database.transaction() as connection:
            if name != container.name:
                records.refuse_taken(connection, name)
            records.require_ready(connection, container)
            connection.execute("UPDATE containers SET name = ? WHERE id = ?", (name, container.id))
        return container._replace(name=name)

    # Mounting

    def mount(self, reference: str, *, read_only: bool = False) -> Path:
        """Mount it; what is mounted already is counted once more.

        Raises:
            InUseError: it is mounted in another way.
            MountError: the kernel refused.
        """
        with self.settled(reference) as container:
            return self.layers.mount(container.layer, read_only=read_only)

    def unmount(self, reference: str) -> bool:
        """Take one mount back; says whether that was the last.

        Raises:
            NotFoundError: it is not mounted.
            InUseError: something uses the mount; names it.
        """
        return self.layers.unmount(self.get(reference).layer)

    @contextmanager
    def mounted(self, reference: str, *, read_only: bool = False) -> Iterator[Path]:
        """Have it mounted for the length of a ``with`` block."""
        container = self.get(reference).id
        path = self.mount(container, read_only=read_only)
        try:
            yield path
        finally:
            self.unmount(container)

    def opened(
        self, reference: str, *, writable: bool = False, whole: bool = False
    ) -> AbstractContextManager[int]:
        """Have its root directory open, also where it is mounted nowhere.

        Args:
            writable: to write to it. Whoever wants to mount or start it waits meanwhile.
            whole: with its volumes and what it has of the host.

        Raises:
            ContainerError: it was unmounted by force in this moment.
            InvalidMountError, VolumeError: what it has is not there.
        """
        from storagedrivers.stores import container_view

        return container_view.opened(self, self.get(reference), write=writable, whole=whole)

    # Content

    def diff(self, reference: str) -> Iterator[Change]:
        """What is different in it from its image; a directory before what is in it.

        Raises:
            InUseError: it is in use, and changed meanwhile.
        """
        return self._diff(self.get(reference))

    def _diff(self, container: Container) -> Iterator[Change]:
        from storagedrivers.stores import comparing

        with self._while_it_changes(container):
            yield from comparing.diff(self.layers, container)

    @contextmanager
    def _while_it_changes(self, container: Container) -> Iterator[None]:
        """Tell what becomes of a walk through a tree that others change from other failures."""
        from storagedrivers.stores import copying

        in_use = self.is_in_use(container)
        try:
            yield
        except OSError as error:
            if not (in_use or self.is_running(container)):
                raise
            copying.refuse_changed(error, f"container {container.name}")
            raise

    def export(self, reference: str, write: Write) -> None:
        """Write everything that it shows as one tar."""
        from storagedrivers.archive.pack import pack

        with self._while_it_changes(self.get(reference)), self.opened(reference) as fd:
            pack(fd, None, None, write)

    def copy_in(
        self,
        reference: str,
        source: str | os.PathLike[str] | BinaryIO,
        path: str,
        *,
        archive: bool = False,
        follow_link: bool = False,
    ) -> tuple[str, ...]:
        """Copy into it, as ``docker cp`` does; see :mod:`storagedrivers.stores.cp`.

        Args:
            source: a path of the host, or a stream with a tar.
            path: a path in the container; of a directory for a tar.
            archive: keep owners, which else become root's.
            follow_link: copy what the source leads to, if it is a symlink.

        Returns:
            What of a tar could not be kept, a sentence each.

        Raises:
            NotFoundError: the source is not there, or the directory above the destination.
            ContainerError: a file and a directory are in each other's way.
            InUseError: it is in use, and changed meanwhile.
        """
        from storagedrivers.stores import container_view, cp

        container = self.get(reference)
        forgetting = container_view.forgetting(self, container)
        with (
            self._while_it_changes(container),
            self.opened(container.id, writable=True, whole=True) as root,
        ):
            container_view.refuse_tmpfs(self, container, root, path, write=True, follow=True)
            container_view.refuse_forgetting(container, forgetting, root, path)
            if isinstance(source, str | os.PathLike):
                path_ = os.fspath(source)
                cp.copy_in(root, path_, path, archive=archive, follow_link=follow_link)
                return ()
            return cp.extract(root, source, path, archive=archive)

    def copy_out(
        self,
        reference: str,
        path: str,
        target: str | os.PathLike[str] | Write,
        *,
        archive: bool = False,
        follow_link: bool = False,
    ) -> None:
        """Copy out of it, as ``docker cp`` does; see :mod:`storagedrivers.stores.cp`.

        Args:
            path: a path in the container.
            target: a path of the host, or what takes a tar.
            archive: keep owners, which else become the user's.
            follow_link: copy what *path* leads to, if it is a symlink.

        Raises:
            NotFoundError: the source is not there, or the directory above the destination.
            ContainerError: a file and a directory are in each other's way.
            InUseError: it is in use, and changed meanwhile.
        """
        from storagedrivers.stores import container_view, cp

        container = self.get(reference)
        with (
            self._while_it_changes(container),
            self.opened(container.id, whole=True) as root,
        ):
            container_view.refuse_tmpfs(
                self, container, root, path, write=False, follow=follow_link
            )
            if isinstance(target, str | os.PathLike):
                path_ = os.fspath(target)
                cp.copy_out(root, path, path_, archive=archive, follow_link=follow_link)
            else:
                cp.pack(root, path, target, follow_link=follow_link)

    def commit(
        self,
        reference: str,
        name: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: tuple[str, ...] = (),
        pause: bool = True,
        source_date_epoch: int | None = None,
    ) -> Image:
        """Make an image of it.

        What was written is sealed where it lies, and the container goes on above it. Of one that is
        mounted or runs it is copied.

        Args:
            name: for the image.
            author: who made it.
            message: what there is to say about it.
            changes: lines as in a Dockerfile: ``CMD ["sh"]``.
            pause: a container that runs stands still meanwhile.
            source_date_epoch: later times become this one, in seconds.

        Raises:
            StoreError: a line of *changes* is none.
            DepthExceededError: the chain is too long.
            UnrepresentableError: a change that no layer's tar can carry; names it.
        """
        from storagedrivers.stores.committing import Commit

        what = Commit(name, author, message, changes, pause, source_date_epoch)
        return what.run(self, self.get(reference))

    # Back and forth

    def checkpoint(self, reference: str, label: str | None = None) -> Checkpoint:
        """Keep its state, to go back to; by default it gets a number.

        Raises:
            ContainerRunningError: it is mounted or runs, and its driver cannot do it then.
            AlreadyExistsError: the label is taken.
            DepthExceededError: the chain is too long.
        """
        from storagedrivers.stores import moves

        return moves.checkpoint(self, reference, label)

    def checkpoints(self, reference: str) -> list[Checkpoint]:
        """Its checkpoints, the oldest first."""
        return records.checkpoints(self.database, self.get(reference).id)

    def rollback(self, reference: str, label: str) -> Container:
        """Go back to a checkpoint; what was written since then is gone.

        Raises:
            NotFoundError: there is no such checkpoint.
            ContainerRunningError: it is mounted or runs.
        """
        from storagedrivers.stores import moves

        container = self.get(reference)
        there = records.checkpoint(self.database, container, label)
        return moves.go_to(self, container.id, there.layer)

    def reset(self, reference: str) -> Container:
        """Go back to its image; what was written is gone.

        Raises:
            ContainerRunningError: it is mounted or runs.
        """
        from storagedrivers.stores import moves

        container = self.get(reference)
        return moves.go_to(self, container.id, container.base)

    def drop(self, reference: str, label: str) -> None:
        """Forget a checkpoint.

        Raises:
            NotFoundError: there is no such checkpoint.
        """
        container = self.get(reference)
        with self.locked(container):
            there = records.checkpoint(self.database, container, label)
            with self.database.transaction() as connection:
                connection.execute(
                    "DELETE FROM checkpoints WHERE container = ? AND label = ?",
                    (container.id, label),
                )
            self.let_go([there.layer])

    def fork(self, reference: str, name: str | None = None) -> Container:
        """Make another container that goes on from its state.

        Both share the volumes that have names; anonymous ones are cloned, and what is written to
        them meanwhile may be in the clone or not.

        Raises:
            ContainerRunningError: it is mounted or runs, and its driver cannot do it then.
            AlreadyExistsError: the name is taken.
            DepthExceededError: the chain is too long.
        """
        from storagedrivers.stores import moves

        return moves.fork(self, reference, name)

    def predicted_cost(self, reference: str) -> int:
        """How many bytes a checkpoint, a rollback, a reset or a fork copies; 0 where the driver
        shares them.
        """
        from storagedrivers.stores import writable

        layer = self.layers.get(self.get(reference).layer)
        driver = self.layers.driver_for(layer.driver)
        if writable.is_cheap(self.layers, driver, layer.id):
            return 0
        return driver.usage(layer.id).bytes

    # Removing

    def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> Container:
        """Remove it, with its checkpoints.

        Args:
            force: kill it where it runs, and unmount it where it is mounted.
            volumes: its anonymous volumes go too, unless another container uses them. Those of a
                container that removes itself (``AutoRemove``) go in any case.

        Raises:
            ContainerRunningError: it runs or is mounted.
        """
        from storagedrivers.stores import container_removal

        return container_removal.remove(self, self.get(reference), force=force, volumes=volumes)

    def prune(self, *, dry_run: bool = False, volumes: bool = False) -> list[Container]:
        """Remove all that neither run nor are mounted.

        Args:
            dry_run: only say which.
            volumes: as for :meth:`remove`.
        """
        from storagedrivers.stores import container_removal

        return container_removal.prune(self, dry_run=dry_run, volumes=volumes)

    # Looking after

    def recover(self) -> None:
        """Finish what processes that were killed have begun."""
        rows = self.database.rows("SELECT id FROM containers WHERE state != 'ready'")
        names = [str(row[0]) for row in rows]
        with suppress(FileNotFoundError):
            for name in os.listdir(self.layers.lock_path("")):
                if name.startswith(locks.CONTAINER):
                    names.append(name.removeprefix(locks.CONTAINER))
        from storagedrivers.stores import container_removal

        for name in dict.fromkeys(names):
            container_removal.finish(self, name)
        container_removal.let_go_of_abandoned(self)
