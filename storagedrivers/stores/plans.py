"""What the mounts of a container will do, as values; see :mod:`storagedrivers.stores.planning`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.mounts.spec import MountSpec, MountType

if TYPE_CHECKING:
    from storagedrivers.stores.volume_content import Filled


class Owner(NamedTuple):
    """Whose a file or directory is, and who may do what with it."""

    uid: int
    gid: int
    mode: int

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}, mode {self.mode:04o}"


class User(NamedTuple):
    """As whom a container runs.

    Attributes:
        words: how it was said.
        uid: its number; None where the image does not know it.
        groups: all of them.
        problem: why there is no number.
    """

    words: str
    uid: int | None
    groups: tuple[int, ...] = ()
    problem: str = ""

    def can_write(self, owner: Owner) -> bool | None:
        """Whether the mode lets it write to a file, or make one in a directory."""
        if self.uid is None:
            return None
        if self.uid == 0:  # it has CAP_DAC_OVERRIDE
            return True
        shift = 6 if self.uid == owner.uid else 3 if owner.gid in self.groups else 0
        return bool(owner.mode >> shift & 0o2)


class PlannedMount(NamedTuple):
    """One mount, and what comes with it.

    Attributes:
        spec: what was asked for.
        volume: the volume's name; empty for none, and for one that gets a name by chance.
        creates: ``volume``; ``directory`` of the host, when the container starts; or nothing.
        fills: what the image has at the target is copied into the volume.
        image: what the image has there, as far as it was counted: it is copied, or else hidden.
        owner: of the directory that is mounted, once it is; None where only the start tells.
        writable: whether the container's user can write to it, as far as owner and mode say; None
            where only the start tells.
        warnings: what the user may not expect, a sentence each.
        problems: why the container will not start, a sentence each with what to do.
    """

    spec: MountSpec
    volume: str = ""
    creates: str = ""
    fills: bool = False
    image: Filled | None = None
    owner: Owner | None = None
    writable: bool | None = None
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``volume``, ``bind`` or ``tmpfs``."""
        return str(self.spec.type)

    @property
    def source(self) -> str:
        """The volume's name, or the path of the host; empty for a tmpfs."""
        return self.spec.source if self.spec.type is MountType.BIND else self.volume

    @property
    def target(self) -> str:
        """The path in the container."""
        return self.spec.target

    @property
    def read_only(self) -> bool:
        """Whether the container cannot write through it."""
        return self.spec.read_only

    @property
    def filled(self) -> Filled | None:
        """What is copied into the volume; None where nothing is."""
        return self.image if self.fills else None

    @property
    def hidden(self) -> Filled | None:
        """What of the image is not to be seen any more; None where there is nothing."""
        return None if self.fills or self.image is None or not self.image.entries else self.image

    def lines(self) -> Iterator[str]:
        """The mount for people: a line that begins with its target, and others below it."""
        yield f"{self.target}: {self._what()}, {'read-only' if self.read_only else 'writable'}"
        if self.creates == "volume":
            yield f"  makes the volume {self.volume}" if self.volume else "  makes a new volume"
        elif self.creates:
            yield f"  makes the directory {self.source} when it starts"
        if self.filled is not None:
            yield f"  copies {_counted(self.filled)} of the image into it"
        if self.hidden is not None:
            yield f"  hides {_counted(self.hidden)} of the image"
        if self.owner is not None:
            yield f"  belongs to {self.owner}"
        for warning in self.warnings:
            yield f"  warning: {warning}"
        for problem in self.problems:
            yield f"  problem: {problem}"

    def _what(self) -> str:
        if self.spec.type is MountType.TMPFS:
            return "a tmpfs"
        if self.spec.type is MountType.BIND:
            return f"{self.source} of the host"
        name = f"volume {self.volume}" if self.volume else "an anonymous volume"
        return f"{self.spec.subpath} of {name}" if self.spec.subpath else name


class Plan(NamedTuple):
    """What to make and to start a container will do about its mounts.

    Attributes:
        image: the id of its image; None for an empty root.
        mounts: in the order in which they are mounted.
        warnings: what concerns none of them.
        problems: likewise; why the container will not start.
    """

    image: str | None
    mounts: tuple[PlannedMount, ...]
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def can_start(self) -> bool:
        """Whether nothing is known that keeps the container from starting."""
        return not self.problems and not any(one.problems for one in self.mounts)

    def lines(self) -> Iterator[str]:
        """The plan for people."""
        if not self.mounts:
            yield "nothing is mounted"
        for one in self.mounts:
            yield from one.lines()
        for warning in self.warnings:
            yield f"warning: {warning}"
        for problem in self.problems:
            yield f"problem: {problem}"


def _counted(content: Filled) -> str:
    entries = "1 entry" if content.entries == 1 else f"{content.entries} entries"
    return f"{entries} ({content.bytes} bytes)"
