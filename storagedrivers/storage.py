"""Storage: a store on the disk, opened. A driver, a database, layers, images, containers, volumes.

::

    <graph root>/                 0710
      storagedrivers.db           see :mod:`storagedrivers.stores.database`
      <driver>/                   a driver's home; several drivers may have layers in one store
      tars/ locks/                see :mod:`storagedrivers.stores.layers`
      images/sha256/<hex>         configs and manifests, see :mod:`storagedrivers.stores.images`
      containers/<id>/            see :mod:`storagedrivers.stores.containers`
      volumes/<name>/_data        see :mod:`storagedrivers.stores.volumes`
      tmp/                        staging
    <run root>/                   0700, see :mod:`storagedrivers.stores.mounts`

Opening a store that is there probes nothing and costs the same whatever it holds. The driver is
chosen once, when the store is made; it is a fact of the store from then on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Self

from storagedrivers import opening
from storagedrivers.stores.layers import LayerStore

if TYPE_CHECKING:
    from storagedrivers.build.events import Event
    from storagedrivers.config import StorageConfig
    from storagedrivers.driver import StorageDriver
    from storagedrivers.runtime import Runtime
    from storagedrivers.stores.build_cache import CacheStore
    from storagedrivers.stores.check import Finding
    from storagedrivers.stores.containers import ContainerStore
    from storagedrivers.stores.database import Database
    from storagedrivers.stores.gc import Collected
    from storagedrivers.stores.image_records import Image
    from storagedrivers.stores.images import ImageStore
    from storagedrivers.stores.owner import Owner
    from storagedrivers.stores.repair import Repaired
    from storagedrivers.stores.usage import (
        CacheUsage,
        DriverUsage,
        Filesystem,
        ImageUsage,
        LayerUsage,
        VolumeUsage,
    )
    from storagedrivers.stores.volumes import VolumeStore


class StorageUsage(NamedTuple):
    """What a store takes, as counted when its layers were made.

    Attributes:
        filesystem: that of the graph root.
        drivers: the sums for each driver.
        layers: each layer, the oldest first.
        images: each image, likewise.
        volumes: each volume, by name; what it takes is not counted.
        cache: the build cache.
    """

    filesystem: Filesystem
    drivers: list[DriverUsage]
    layers: list[LayerUsage]
    images: list[ImageUsage]
    volumes: list[VolumeUsage]
    cache: CacheUsage


def _find_user(root: int, words: str) -> tuple[int, tuple[int, ...]]:
    """The user whom *words* mean in an image, and its groups."""
    from storagedrivers.runtime.rootfs import Rootfs
    from storagedrivers.runtime.users import find_user

    with Rootfs(f"/proc/self/fd/{root}") as rootfs:
        user = find_user(rootfs, words)
    return user.uid, user.groups


class Storage:
    """An open store; a context manager that closes it.

    Example:
        >>> import io, tarfile, tempfile
        >>> tar = io.BytesIO()
        >>> tarfile.open(fileobj=tar, mode="w").close()  # a tar with nothing in it
        >>> directory = tempfile.TemporaryDirectory()
        >>> root, run_root = f"{directory.name}/root", f"{directory.name}/run"
        >>> with Storage.open(root=root, run_root=run_root) as storage:
        ...     layer = storage.layers.add(io.BytesIO(tar.getvalue()))
        ...     [one.id == layer.id for one in storage.layers.ls()]
        [True]
        >>> directory.cleanup()

    Attributes:
        root: the graph root.
        run_root: where layers are mounted.
        database: the rows of everything.
        driver: the name of the driver that new layers get.
        layers: the layers.
        images: the images, each a stack of layers.
        containers: the containers, each a writable layer on an image.
        volumes: the volumes, which outlive containers.
        build_cache: what the steps of builds have made.
        runtime: what runs them.
        warnings: what the choice of the driver has to say, and what could not be finished of an
            operation that was killed.
    """

    def __init__(
        self,
        database: Database,
        run_root: str,
        *,
        driver: str,
        pinned: bool = False,
        warnings: tuple[str, ...] = (),
        additional: Sequence[str] = (),
    ) -> None:
        self.root = Path(database.root)
        self.run_root = Path(run_root)
        self.database = database
        self.driver = driver
        self._drivers: dict[str, StorageDriver] = {}
        self.layers = LayerStore(database, run_root, self.driver_for, driver=driver, pinned=pinned)
        self._warnings = warnings
        self._additional = tuple(additional)
        self._images: ImageStore | None = None
        self._containers: ContainerStore | None = None
        self._volumes: VolumeStore | None = None
        self._build_cache: CacheStore | None = None
        self._runtime: Runtime | None = None

    @property
    def images(self) -> ImageStore:
        """The images."""
        if self._images is None:
            from storagedrivers.stores.images import ImageStore

            self._images = ImageStore(self.layers, additional=self._additional)
        return self._images

    @property
    def containers(self) -> ContainerStore:
        """The containers."""
        if self._containers is None:
            from storagedrivers.stores.containers import ContainerStore

            self._containers = ContainerStore(
                self.layers,
                self.images,
                self.volumes,
                paused=lambda container: self.runtime.paused(container),
                kill=lambda container: self.runtime.end(container),
                find_user=_find_user,
            )
        return self._containers

    @property
    def volumes(self) -> VolumeStore:
        """The volumes."""
        if self._volumes is None:
            from storagedrivers.stores.volumes import VolumeStore
            from storagedrivers.volume_registry import volume_driver

            self._volumes = VolumeStore(self.layers, volume_driver)
        return self._volumes

    @property
    def build_cache(self) -> CacheStore:
        """What the steps of builds have made."""
        if self._build_cache is None:
            from storagedrivers.stores.build_cache import CacheStore

            self._build_cache = CacheStore(self.layers, lambda: self.volumes)
        return self._build_cache

    @property
    def runtime(self) -> Runtime:
        """What runs containers."""
        if self._runtime is None:
            from storagedrivers.runtime import Runtime

            self._runtime = Runtime(self.containers)
        return self._runtime

    @classmethod
    def open(
        cls,
        config: StorageConfig | None = None,
        *,
        root: str | os.PathLike[str] | None = None,
        run_root: str | os.PathLike[str] | None = None,
        driver: str | None = None,
        additional_stores: Sequence[str | os.PathLike[str]] | None = None,
        read_only: bool = False,
    ) -> Self:
        """Open the store at the graph root; where there is none, choose a driver and make one.

        What processes that were killed have left half done is finished, unless *read_only*.

        Example:
            >>> with Storage.open(root=root, read_only=True) as storage:
            ...     for layer in storage.layers.ls():
            ...         print(layer.parent, layer.size, layer.inodes)
            None 6 3

        Args:
            config: the settings; by default those of the environment and the usual files.
            root: the graph root, instead of the settings'.
            run_root: where layers are mounted, instead of the settings'.
            driver: what new layers are made with, instead of the settings'. Layers of other drivers
                stay what they are.
            additional_stores: graph roots of others, instead of the settings': their images can be
                used, and their files are only read.
            read_only: change nothing.

        Raises:
            NotFoundError: there is no store, and *read_only* forbids to make one.
            GraphRootError: the graph root cannot hold a store.
            StorageDriversError: no driver works, or the one that was asked for does not.
        """
        config = opening.settings(
            config,
            root=root,
            run_root=run_root,
            driver=driver,
            additional_stores=None
            if additional_stores is None
            else os.pathsep.join(os.path.abspath(one) for one in additional_stores),
        )
        assert config.root.value is not None
        assert config.run_root.value is not None
        database, warnings = opening.opened(config, read_only=read_only)
        try:
            current = database.meta("driver")
            assert current is not None
            requested = None if read_only else opening.requested_driver(config, database)
            storage = cls(
                database,
                config.run_root.value,
                driver=requested or current,
                pinned=requested is not None,
                warnings=warnings,
                additional=config.additional_roots,
            )
            if not read_only and storage.layers.recover():
                storage.containers.recover()
                storage.volumes.recover()
        except BaseException:
            database.close()
            raise
        return storage

    @classmethod
    @contextmanager
    def temporary(
        cls,
        config: StorageConfig | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
        driver: str | None = None,
    ) -> Iterator[Self]:
        """A store of its own for the length of a ``with`` block, removed with all that is in it.

        Example:
            >>> with Storage.temporary(driver="vfs-copy") as scratch:
            ...     _ = scratch.layers.create()
            ...     kept = scratch.root
            >>> kept.exists()
            False

        Args:
            config: the settings; by default those of the environment and the usual files.
            directory: where to make it; by default where temporary files are made.
            driver: what its layers are made with, instead of the settings'.
        """
        import tempfile

        top = tempfile.mkdtemp(prefix="storagedrivers-", dir=directory)
        root, run_root = os.path.join(top, "root"), os.path.join(top, "run")
        try:
            with cls.open(config, root=root, run_root=run_root, driver=driver) as storage:
                yield storage
        finally:
            opening.remove_store(top)

    def driver_for(self, name: str) -> StorageDriver:
        """The driver object with its home in this store.

        Raises:
            DriverNotFoundError, DriverLoadError: it is not installed any more.
        """
        if name not in self._drivers:
            from storagedrivers.registry import driver_class

            self._drivers[name] = driver_class(name)(self.root / name)
        return self._drivers[name]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know though the store is open."""
        return (*self._warnings, *self.layers.problems)

    def build(
        self,
        context: str | os.PathLike[str] | BinaryIO,
        *,
        dockerfile: str | bytes | None = None,
        tags: Sequence[str] = (),
        build_args: Mapping[str, str] | None = None,
        target: str | None = None,
        no_cache: bool = False,
        labels: Mapping[str, str] | None = None,
        network: str = "default",
        platform: str | None = None,
        cache_from: Sequence[str] = (),
        source_date_epoch: int | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> Image:
        """Build an image: a layer for each step that changes files, and none that is there already.

        Args:
            context: the directory with the files that are copied, or a stream with a tar of it.
            dockerfile: its path in the context, or what it says; by default ``Dockerfile``.
            tags: names for the image.
            build_args: values of its ARGs.
            target: the stage to build, by its name; by default the last one.
            no_cache: carry out every step, and remember what comes of it instead.
            labels: for the image.
            network: of its RUNs: ``default``, ``none`` or ``host``.
            platform: that an image is for that begins with nothing; by default this host's.
            cache_from: images whose layers are taken where their history says the same.
            source_date_epoch: later times, of files too, become this one, in seconds: the same
                inputs give the same image.
            on_event: is told what happens, see :mod:`storagedrivers.build.events`; one event at a
                time, from any thread.

        Raises:
            DockerfileError: a line of the Dockerfile cannot be taken.
            BuildError: a step failed; :class:`RunFailedError` for a command, with its exit code.
        """
        from storagedrivers.build.building import build
        from storagedrivers.build.request import Parts, Request

        parts = Parts(self.layers, self.images, self.containers, self.build_cache)
        request = Request(
            dockerfile,
            tags,
            build_args or {},
            target,
            no_cache,
            labels or {},
            network,
            platform,
            cache_from,
            source_date_epoch,
            on_event,
        )
        return build(parts, context, request)

    def sync(self) -> None:
        """Bring the layers that were added with durability ``none`` to the disk."""
        self.layers.sync()

    def check(self, *, deep: bool = False) -> Iterator[Finding]:
        """What is wrong with the store, as it is found; changes nothing.

        Example:
            >>> [*storage.check(deep=True)]
            []
            >>> os.unlink(storage.layers.kept_path(layer.id))
            >>> [finding.code for finding in storage.check()]
            ['missing-kept']

        Args:
            deep: also read every layer that came in as a tar, and compare it with that.
        """
        from storagedrivers.stores.check import check

        return check(self.layers, deep=deep)

    def repair(self, *, deep: bool = False, yes: bool = False) -> list[Repaired]:
        """Put right what :meth:`check` finds, and touch nothing else.

        Example:
            >>> os.unlink(storage.layers.kept_path(layer.id))
            >>> [(str(one.finding.code), str(one.outcome)) for one in storage.repair()]
            [('missing-kept', 'quarantined')]

        Args:
            deep: look for everything that a deep check finds.
            yes: remove layers that lost something, with those above them, and files that no tar
                brought; make empty directories for volumes that lost theirs.
        """
        from storagedrivers.stores.repair import repair

        return [*repair(self.layers, [*self.check(deep=deep)], self.volumes, yes=yes)]

    def gc(self, *, dry_run: bool = False) -> list[Collected]:
        """Remove what lies in the graph root and in the run root and belongs to nothing.

        Example:
            >>> orphan = storage.root / "tars" / "gone"
            >>> _ = orphan.write_bytes(b"")
            >>> [(str(one.orphan.kind), one.problem) for one in storage.gc(dry_run=True)]
            [('tar', '')]
            >>> _ = storage.gc()
            >>> orphan.exists()
            False

        Args:
            dry_run: only say what would be removed.

        Returns:
            Each orphan, with the problem where it is still there for another reason than *dry_run*.
        """
        from storagedrivers.stores.gc import collect, find_orphans, planned

        orphans = find_orphans(self.layers)
        if dry_run:
            return [*map(planned, orphans)]
        return [*collect(self.layers, orphans, self.volumes)]

    def df(self) -> StorageUsage:
        """What the store takes; nothing is walked.

        Example:
            >>> [(one.unique, one.shared, one.inodes) for one in storage.df().layers]
            [(6, 0, 3)]
        """
        from storagedrivers.stores.usage import (
            cache_usage,
            driver_usage,
            filesystem,
            image_usage,
            layer_usage,
            volume_usage,
        )

        return StorageUsage(
            filesystem(self.layers),
            driver_usage(self.layers),
            layer_usage(self.layers),
            image_usage(self.layers),
            volume_usage(self.layers),
            cache_usage(self.build_cache),
        )

    def owner(self, path: str | os.PathLike[str]) -> Owner | None:
        """To what a path in the graph root or the run root belongs; None where it is not the
        store's.

        Example:
            >>> owner = storage.owner(storage.root / layer.driver / layer.id)
            >>> owner.kind, owner.layer == layer.id, owner.children
            ('layer', True, ())
        """
        from storagedrivers.stores.owner import find_owner

        return find_owner(self.layers, os.fspath(path))

    def close(self) -> None:
        """Wait for what is being deleted, and close the database. What is mounted stays mounted."""
        self.layers.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
