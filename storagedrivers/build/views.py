"""What a RUN sees of other layers: as they are, or in layers that go with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from storagedrivers.errors import BuildError, StorageDriversError
from storagedrivers.linux import mount, rooted
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.stores import writable

if TYPE_CHECKING:
    from storagedrivers.model import Mount
    from storagedrivers.stores.layers import LayerStore
    from storagedrivers.stores.leases import Lease


class View(NamedTuple):
    """A tree that is seen.

    Attributes:
        number: tells it from others.
        mounts: how it is seen.
    """

    number: int
    mounts: Sequence[Mount]

    def mounted(self, directory: str) -> str:
        """Mount it below *directory*, in the namespace of whoever calls; its path."""
        path = os.path.join(directory, f"view-{self.number}")
        os.mkdir(path, 0o700)
        mount.mount_all(self.mounts, path)
        return path


class Views:
    """A context manager; what was made for views goes at its end.

    Args:
        layers: the store's.
        lease: keeps what is made until then.
    """

    def __init__(self, layers: LayerStore, lease: Lease) -> None:
        self._layers = layers
        self._lease = lease
        self._made: list[str] = []
        self._number = 0
        self._whole: dict[str, View] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for layer in self._made:
            with suppress(StorageDriversError, OSError):  # then it goes with the lease, or by gc
                self._lease.drop(layer)

    def read_only(self, layer: str) -> View:
        """A layer, with those below it."""
        if layer not in self._whole:
            self._whole[layer] = self._view(layer, read_only=True)
        return self._whole[layer]

    def writable(self, layer: str | None, fill: Callable[[int], object] | None = None) -> View:
        """The same, or an empty tree; what is written to it is lost.

        Args:
            layer: the id of a sealed one.
            fill: puts something into it first; gets its root, open.
        """
        new = self._layers.create(layer, durability="none", held=False, lease=self._lease).id
        self._made.append(new)
        with writable.opened(self._layers, new) as root:
            if fill is not None:
                fill(root)
        return self._view(new, read_only=False)

    def _view(self, layer: str, *, read_only: bool) -> View:
        driver = self._layers.driver_for(self._layers.get(layer).driver)
        mounts = driver.mounts(layer, self._layers.lowers(layer), read_only=read_only)
        self._number += 1
        return View(self._number, mounts)


def opened(view: str, source: str, origin: str) -> int:
    """A descriptor (O_PATH) of a path in a mounted view, which no symlink leads out of.

    Args:
        view: where it is mounted.
        source: the path.
        origin: what it is a view of, for the error.

    Raises:
        BuildError: there is nothing.
    """
    with Rootfs(view) as root:
        try:
            return rooted.open_in(root.fileno(), source.lstrip("/"), os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise BuildError(
                f"{source or '/'} cannot be mounted from {origin}:"
                f" {os.strerror(error.errno or 0).lower()}",
                resolution="name a path that is there: source=PATH",
            ) from error


def opened_directory(view: str, path: str) -> int:
    """The same of a directory, which is made where it is missing."""
    with Rootfs(view) as root:
        return root.make_directory(path)
