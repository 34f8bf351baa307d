"""The interface of a storage driver; the one module that a plugin must import.

A driver knows how one kind of host stacks layers. It is told each time which layers lie below, so
it keeps no graph, no counts and no locks: those are the store's. It mounts nothing: it says how, as
values, and :mod:`storagedrivers.linux.mount` applies them.

On disk a driver owns ``<graph root>/<driver name>``, its *home*::

    <home>/<layer id>/…     one directory for each layer, drawn in the driver's own module
    <home>/.trash/…         layers on their way out: renamed here first, then deleted
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from storagedrivers.errors import (
    AlreadyExistsError,
    DepthExceededError,
    DriverUnsupportedError,
    InUseError,
    NotFoundError,
    ReadOnlyError,
    StorageDriversError,
)
from storagedrivers.linux import copy, tree
from storagedrivers.model import (
    Capability,
    Changeset,
    Flaw,
    FlawKind,
    Mount,
    ProbeResult,
    Reason,
    Usage,
    WhiteoutFormat,
    check_layer_id,
    is_layer_id,
)
from storagedrivers.probing import failed_trial, kernel_obstacle, try_mount

if TYPE_CHECKING:
    from storagedrivers.host import HostFacts

__all__ = [
    "Capability",
    "Changeset",
    "Flaw",
    "FlawKind",
    "HostFacts",
    "Mount",
    "ProbeResult",
    "Reason",
    "StorageDriver",
    "Usage",
    "WhiteoutFormat",
    "bind",
    "failed_trial",
    "kernel_obstacle",
    "try_mount",
]

TRASH = ".trash"
"""The directory in a home for what is being removed."""


def __getattr__(name: str) -> Any:
    if name == "HostFacts":  # reading facts takes more than a driver does, and only probes need it
        from storagedrivers.host import HostFacts

        return HostFacts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def is_home(directory: str | os.PathLike[str]) -> bool:
    """Whether *directory* is a driver's home: each has a trash."""
    return os.path.isdir(os.path.join(directory, TRASH))


class StorageDriver(ABC):
    """One way of stacking layers, in one home.

    Methods take layer ids and never paths. ``lowers`` are the layers below, the nearest first; they
    are sealed, and the caller sees to it that they stay. A driver object is cheap, holds nothing
    open and may be used by several threads; two of them, also in two processes, may share a home.

    Class attributes:
        name: the entry point's name and the directory's.
        aliases: other names that users know it by.
        max_lowers: how many layers it can stack below one, or None.
        exceptions: contracts of the conformance kit that it may not keep, by method name, with what
            happens instead.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    max_lowers: ClassVar[int | None] = None
    exceptions: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init__(self, home: str | os.PathLike[str]) -> None:
        """Use *home*, an absolute path; it is made by the first :meth:`create`."""
        self.home = Path(home)

    # What a driver must say

    @classmethod
    @abstractmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        """Whether the driver works on *host* with *home*, which need not exist.

        Cheap facts first; where nothing there says no, the thing itself is tried on the filesystem
        of the graph root (``host.graph_root.probed`` is a directory that exists). Facts of another
        host (``host.recorded``) allow no trial: then the answer is predicted. Leaves no trace, and
        never raises for "no".
        """

    @abstractmethod
    def create(self, layer: str, lowers: Sequence[str], *, size: int | None = None) -> None:
        """Make a new, empty, writable layer above *lowers*.

        Args:
            size: a limit in bytes for what is written to the layer.

        Raises:
            AlreadyExistsError: the id is taken.
            NotFoundError: a lower is not there.
            DepthExceededError: more lowers than ``max_lowers``.
            DriverUnsupportedError: *size* cannot be enforced here.
        """

    @abstractmethod
    def mounts(
        self, layer: str, lowers: Sequence[str], *, read_only: bool, scratch: bool = False
    ) -> tuple[Mount, ...]:
        """How to see the layer above its lowers: mounts to be applied in order. Mounts nothing.

        Args:
            read_only: nothing can be written through the mounts.
            scratch: nobody will miss what is written after a crash, so syncs may be left out. A
                layer that was mounted so is mounted so again, or removed.

        Raises:
            NotFoundError: the layer or a lower is not there.
            ReadOnlyError: the layer is sealed and *read_only* is false.
            DepthExceededError: more lowers than ``max_lowers``.
        """

    # What most drivers inherit

    def seal(self, layer: str, lowers: Sequence[str]) -> None:  # noqa: B027
        """Make the layer read-only for good. Idempotent.

        The caller has unmounted it. A driver proves that nothing still writes to it, as far as the
        kernel lets it: what was unmounted lazily, or lives on in another mount namespace, would
        change it later.

        Raises:
            NotFoundError: it is not there.
            InUseError: something may still write to it.
        """

    def seal_new(self, layer: str, lowers: Sequence[str]) -> None:
        """As :meth:`seal`, for a layer that no one but the caller has ever seen: it was never
        mounted where others could look. So a driver may leave the proof out.
        """
        self.seal(layer, lowers)

    def remove(self, layer: str) -> None:
        """Remove the layer and everything of it. Idempotent: a layer that is not there is no error.

        It is renamed to the trash first, so it is gone at once; what a killed removal left there,
        of this layer or another, is deleted too. The caller has unmounted it and knows of no layer
        above it.

        Raises:
            OSError: something in it cannot be deleted; the rest stays in the trash for the next
                call. What others left there and cannot be deleted is no error here.
        """
        path = os.fspath(self.layer_path(layer))
        trash = f"{self.home}/{TRASH}"
        # A layer of this id may lie there already, from a removal that was killed.
        discarded = f"{trash}/{layer}.{os.urandom(6).hex()}"
        try:
            os.rename(path, discarded)
        except FileNotFoundError:
            if os.path.lexists(path):  # so it is the trash that is missing
                os.makedirs(trash, mode=0o700, exist_ok=True)
                with suppress(FileNotFoundError):  # another process was faster
                    os.rename(path, discarded)
        self._empty_trash(trash, first=os.path.basename(discarded))

    def layers(self) -> Iterator[str]:
        """The ids of the layers on disk, in no order."""
        try:
            names = os.listdir(self.home)
        except FileNotFoundError:
            return
        for name in names:
            if is_layer_id(name):
                yield name

    def changeset(self, layer: str) -> Changeset | None:
        """The directory with only this layer's changes, for drivers that keep one.

        Raises:
            NotFoundError: the layer is not there.
        """
        return None

    def usage(self, layer: str) -> Usage:
        """What the layer itself takes on disk; the default walks its directory.

        Raises:
            NotFoundError: the layer is not there.
        """
        self.require(layer)
        return tree.measure_tree(self.layer_path(layer))

    def status(self) -> Mapping[str, str]:
        """What a person who debugs this driver wants to see of the home: names to short values."""
        return {}

    def flaws(self, layer: str, *, writable: bool) -> Iterator[Flaw]:
        """What is wrong with how the layer lies on the disk; looks at names only, and changes
        nothing.

        The default asks :meth:`mounts` whether the layer is there, and sealed or not.

        Args:
            writable: whether it should be.
        """
        try:
            self.mounts(layer, (), read_only=False)
        except NotFoundError:
            there = self.layer_path(layer).is_dir()
            part = "a part of " if there else ""
            yield Flaw(FlawKind.LOST, "missing-directory", f"{part}its directory is missing")
        except ReadOnlyError:
            if writable:
                message = "it is sealed on the disk, and its row says writable"
                yield Flaw(FlawKind.SEALED, "sealed", message)
        except StorageDriversError:
            return  # whether it can be mounted here is no question of its files
        else:
            if not writable:
                message = "it is writable on the disk, and its row says sealed"
                yield Flaw(FlawKind.WRITABLE, "not-sealed", message)

    def mend(self, layer: str) -> None:  # noqa: B027
        """Put right what :meth:`flaws` calls small. Idempotent."""

    def strays(self) -> Iterator[str]:
        """Names in the home, relative to it, that only served a layer that is gone.

        Not its directories: those are :meth:`layers`, and the trash is the framework's.
        """
        return iter(())

    # Tools for drivers

    def layer_path(self, layer: str) -> Path:
        """The layer's directory, whether it is there or not.

        Raises:
            UnsafePathError: *layer* is not a layer id.
        """
        return self.home / check_layer_id(layer)

    def require(self, *layers: str) -> None:
        """Check that every one of *layers* is there.

        Raises:
            NotFoundError: one is not.
        """
        for layer in layers:
            if not self.layer_path(layer).is_dir():
                raise NotFoundError(f"{self.name} has no layer {layer}")

    def directory_in(self, layer: str, name: str) -> str:
        """The directory *name* of a layer.

        Raises:
            NotFoundError: the layer has none, so it is not there, or not whole.
        """
        # A string: pathlib costs more than the system calls of a mount with 100 lowers.
        path = f"{self.home}/{check_layer_id(layer)}/{name}"
        if not os.path.isdir(path):
            raise NotFoundError(f"{self.name} has no layer {layer}")
        return path

    @contextmanager
    def new_layer(self, layer: str) -> Iterator[Path]:
        """Make the layer's directory (0710), and take it away again if the block fails.

        Raises:
            AlreadyExistsError: it is there.
        """
        path = self.layer_path(layer)
        try:
            try:
                path.mkdir(mode=0o710)
            except FileNotFoundError:
                # The trash at once: on a full disk there would be no room for it.
                (self.home / TRASH).mkdir(mode=0o700, parents=True, exist_ok=True)
                self.home.chmod(0o710)
                path.mkdir(mode=0o710)
        except FileExistsError as error:
            raise AlreadyExistsError(f"{self.name} has a layer {layer} already") from error
        try:
            yield path
        except BaseException:
            with suppress(OSError):  # the failure on its way is the one that counts
                self.remove(layer)
            raise

    @staticmethod
    def make_root(directory: str, *, below: str | None) -> None:
        """Make the root directory of a layer that holds its changes alone.

        Args:
            directory: the new one.
            below: that of the nearest lower. A union shows the metadata of its topmost directory,
                so the new one begins with the same.
        """
        os.mkdir(directory)
        if below is None:
            os.chmod(directory, 0o755)  # whatever the umask
        else:
            copy.copy_root_metadata(below, directory)

    def refuse_if_used(self, layer: str, users: Sequence[object]) -> None:
        """For :meth:`seal`.

        Raises:
            InUseError: there are *users*.
        """
        if users:
            raise InUseError(
                f"layer {layer} is still in use",
                holders=users,
                resolution="unmount it everywhere and end the processes that use it",
            )

    def check_depth(self, directories: Sequence[str]) -> None:
        """Check that the driver can stack as many lower directories as it would have to.

        Raises:
            DepthExceededError: more than ``max_lowers``.
        """
        if self.max_lowers is not None and len(directories) > self.max_lowers:
            raise DepthExceededError(
                f"{self.name} stacks {self.max_lowers} layers below one, and these are"
                f" {len(directories)}",
                resolution="merge layers, or rebuild the image with fewer",
            )

    def refuse_size(self, size: int | None) -> None:
        """For drivers without limits.

        Raises:
            DriverUnsupportedError: a limit was asked for.
        """
        if size is not None:
            raise DriverUnsupportedError(
                f"{self.name} cannot limit the size of a layer",
                resolution="leave it out, or use btrfs-snapshot on a btrfs with quotas enabled",
            )

    def delete(self, parent_fd: int, name: str) -> None:
        """Delete one directory of the trash; for drivers whose layers are no plain trees."""
        tree.remove_tree(parent_fd, name)

    def delete_discarded(self, trash_fd: int, name: str) -> None:
        """Delete what a layer was, or the link to one that another store has."""
        try:
            os.readlink(name, dir_fd=trash_fd)
        except OSError:
            self.delete(trash_fd, name)
        else:
            os.unlink(name, dir_fd=trash_fd)

    def _empty_trash(self, trash: str, *, first: str) -> None:
        try:
            fd = os.open(trash, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            self.delete_discarded(fd, first)
            for name in os.listdir(fd):
                with suppress(OSError):  # the removal of that one said so
                    self.delete_discarded(fd, name)
        finally:
            os.close(fd)


def bind(directory: str | os.PathLike[str], *, read_only: bool) -> Mount:
    """A bind mount of *directory*: how a layer is seen that is whole in one place."""
    options = ("bind", "ro" if read_only else "rw")
    return Mount("bind", os.fspath(directory), options=options)
