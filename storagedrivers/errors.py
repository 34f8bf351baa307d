"""Every error that storagedrivers raises on purpose.

An error has a *brief* (one sentence: what failed and why), *details* (what the kernel or a file
said) and a *resolution* (what the user can do). A bug stays an ``AssertionError`` or ``TypeError``
with its traceback; a failed system call that no one translated stays an ``OSError``.

::

    StorageDriversError
    ├── ConfigError                 a facts, policy or configuration file, or a value in it
    ├── GraphRootError              the graph root cannot hold a store
    ├── UnsafePathError             an id that would leave its directory if it became a path
    ├── DriverError
    │   ├── DriverNotFoundError     no such name; carries the nearest
    │   ├── DriverLoadError         a plugin that does not import or is no driver
    │   │   └── DriverConflictError two plugins claim one name
    │   ├── DriverUnsupportedError  a driver that was asked for does not work here
    │   ├── PriorDriverError        layers of a driver that works no longer, or of several
    │   └── NoUsableDriverError     nothing is left; carries every rejected candidate
    ├── PolicyNotFoundError         no such policy; carries the nearest
    ├── DiffError                   a layer's tar; carries the entry at fault
    │   ├── MalformedDiffError      it is no tar, or breaks off, or contradicts itself
    │   ├── UnsafeEntryError        an entry that would reach outside the layer
    │   ├── DiffLimitError          more entries or bytes than the limits let in
    │   ├── DigestMismatchError     it is not the tar that was asked for
    │   └── UnrepresentableError    a change that no layer's tar can carry
    ├── StoreError
    │   ├── NotFoundError
    │   ├── AlreadyExistsError
    │   ├── InUseError              something still has it open or mounted; carries the holders
    │   │   └── ContainerRunningError   it has to be stopped and unmounted first
    │   ├── InvalidReferenceError   no name of an image
    │   ├── InvalidMountError       a mount that was asked for and is none, in Docker's words
    │   ├── VolumeError             a volume cannot be made or mounted as it was asked for
    │   ├── DockerfileError         a line of a Dockerfile that cannot be taken; says which and why
    │   ├── BuildError              a step of a build failed
    │   │   └── RunFailedError      a RUN's command failed; carries its exit code
    │   ├── ImageError
    │   │   ├── MalformedImageError     an archive, a manifest or a config that is no good
    │   │   └── UnsupportedImageError   sound, and not for this program or this host
    │   ├── ContainerError
    │   │   └── RuntimeFailedError      a process could not be started; exit code 125
    │   ├── ReadOnlyError           a sealed layer was asked to be writable
    │   ├── DepthExceededError      more layers than the driver can stack
    │   ├── CorruptStoreError       the database and the disk contradict each other
    │   └── LockTimeoutError        another process works on it for too long; names that process
    ├── MountError    (an OSError)
    └── UnmountError  (an OSError)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

_LONGEST_SHOWN = 300  # bytes of an entry's name in a sentence


class StorageDriversError(Exception):
    """Base of all errors of this package.

    Attributes:
        brief: one sentence, without a full stop.
        details: more lines for who wants them (kernel messages, the file at fault), or None.
        resolution: what to do about it, or None.
        exit_code: what the command line exits with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, brief: str, *, details: str | None = None, resolution: str | None = None
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        return self.brief

    def __reduce__(self) -> tuple[Any, ...]:
        # For processes that hand errors to each other: arguments by name are not in ``args``.
        state = (
            {**self.__dict__, "errno": self.errno} if isinstance(self, OSError) else self.__dict__
        )
        return _rebuild, (type(self), self.args, state)


def _rebuild(
    kind: type[StorageDriversError], args: tuple[Any, ...], state: dict[str, Any]
) -> StorageDriversError:
    error = kind.__new__(kind, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A resolution for a name that is none: the nearest that is, or None."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else None


class ConfigError(StorageDriversError):
    """A file that the program reads is malformed; names the file, the line and the key."""

    def __init__(
        self,
        brief: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        resolution: str | None = None,
    ) -> None:
        place = ", ".join(
            part
            for part in (
                file,
                f"line {line}" if line is not None else None,
                f"key {key!r}" if key is not None else None,
            )
            if part
        )
        super().__init__(f"{place}: {brief}" if place else brief, resolution=resolution)
        self.file = file
        self.line = line
        self.key = key


class GraphRootError(StorageDriversError):
    """The graph root is not a directory, or cannot be made one."""


class UnsafePathError(StorageDriversError):
    """A name from outside that must not become a path."""


class DriverError(StorageDriversError):
    """Base of what goes wrong with drivers as such."""


class DriverNotFoundError(DriverError):
    """No installed driver has this name or alias."""


class DriverLoadError(DriverError):
    """A plugin's entry point did not yield a usable driver class."""


class DriverConflictError(DriverLoadError):
    """Two installed plugins claim the same name."""


class DriverUnsupportedError(DriverError):
    """The driver, or what was asked of it, does not work on this host."""


class PriorDriverError(DriverError):
    """The graph root belongs to a driver that no longer works, or to several drivers."""


class NoUsableDriverError(DriverError):
    """Every candidate was rejected; ``rejected`` maps each driver's name to its sentence."""

    exit_code = 4

    def __init__(
        self, brief: str, *, rejected: dict[str, str], resolution: str | None = None
    ) -> None:
        details = "\n".join(f"{name}: {why}" for name, why in rejected.items())
        super().__init__(brief, details=details, resolution=resolution)
        self.rejected = rejected


class PolicyNotFoundError(StorageDriversError):
    """No policy has this name."""


class DiffError(StorageDriversError):
    """Base of what goes wrong with a layer's tar; ``entry`` is the name at fault, or None."""

    def __init__(
        self,
        brief: str,
        *,
        entry: bytes | None = None,
        details: str | None = None,
        resolution: str | None = None,
    ) -> None:
        if entry is not None:
            brief = f"{_shown(entry)}: {brief}"
        super().__init__(brief, details=details, resolution=resolution)
        self.entry = entry


def _shown(entry: bytes) -> str:
    """A name of any bytes and any length, for a sentence."""
    if len(entry) > _LONGEST_SHOWN:
        entry = entry[: _LONGEST_SHOWN // 2] + b"..." + entry[-_LONGEST_SHOWN // 2 :]
    return repr(entry)[1:]  # without the b of b'…'


class MalformedDiffError(DiffError):
    """It is no tar, breaks off, or contradicts itself."""


class UnsafeEntryError(DiffError):
    """An entry that would reach outside the layer."""


class DiffLimitError(DiffError):
    """More entries or bytes than the limits let in."""


class DigestMismatchError(DiffError):
    """The bytes do not have the digest that was expected."""

    def __init__(
        self,
        brief: str,
        *,
        expected: str = "",
        found: str = "",
        details: str | None = None,
        resolution: str | None = "get it again: it was damaged or exchanged on its way",
    ) -> None:
        super().__init__(brief, details=details, resolution=resolution)
        self.expected = expected
        self.found = found


class UnrepresentableError(DiffError):
    """A change that no layer's tar can carry: a name that begins with ``.wh.``, a device 0:0."""


class StoreError(StorageDriversError):
    """Base of what goes wrong with things in a store."""


class NotFoundError(StoreError):
    """The thing is not there."""


class AlreadyExistsError(StoreError):
    """The name or id is taken."""


class InUseError(StoreError):
    """Something still uses it; ``holders`` says who, as far as /proc can tell."""

    def __init__(
        self,
        brief: str,
        *,
        holders: Sequence[object] = (),
        resolution: str | None = None,
    ) -> None:
        details = "\n".join(map(str, holders)) or None
        super().__init__(brief, details=details, resolution=resolution)
        self.holders = tuple(holders)


class InvalidReferenceError(StoreError):
    """A text that is no name of an image."""


class InvalidMountError(StoreError):
    """A mount that was asked for is none; the sentence is the one that Docker gives."""


class VolumeError(StoreError):
    """A volume cannot be made or mounted as it was asked for."""


class DockerfileError(StoreError):
    """A line of a Dockerfile that cannot be taken.

    Attributes:
        line: its number in the Dockerfile, from 1; 0 where it is of no file.
    """

    def __init__(
        self,
        brief: str,
        *,
        line: int = 0,
        details: str | None = None,
        resolution: str | None = None,
    ) -> None:
        super().__init__(brief, details=details, resolution=resolution)
        self.line = line


class BuildError(StoreError):
    """A step of a build failed.

    Attributes:
        line: the line of its instruction in the Dockerfile, from 1; 0 where it is not known yet.
        image: the id of the last good image before it, or None.
    """

    line: int = 0
    image: str | None = None


class RunFailedError(BuildError):
    """The command of a RUN failed.

    Attributes:
        exit_code: the command's own; 128 and the signal that ended it.
    """

    def __init__(
        self,
        brief: str,
        *,
        exit_code: int = 1,
        details: str | None = None,
        resolution: str | None = None,
    ) -> None:
        super().__init__(brief, details=details, resolution=resolution)
        self.exit_code = exit_code  # type: ignore[misc]


class ImageError(StoreError):
    """Base of what is wrong with images that come from outside."""


class MalformedImageError(ImageError):
    """An archive, a manifest or a config that is no good; names the file."""


class UnsupportedImageError(ImageError):
    """A sound image that cannot be used: schema 1, another platform only, layers elsewhere."""


class ContainerError(StoreError):
    """Base of what goes wrong with containers."""


class ContainerRunningError(InUseError):
    """What was asked for needs a container that does not run, and is mounted nowhere."""


class RuntimeFailedError(ContainerError):
    """A process of a container could not be started."""

    exit_code = 125


class ReadOnlyError(StoreError):
    """A sealed layer cannot be mounted writable."""


class DepthExceededError(StoreError):
    """The chain has more layers than the driver can stack."""


class CorruptStoreError(StoreError):
    """The database and the disk contradict each other; ``check`` says where."""


class LockTimeoutError(StoreError):
    """Another process works on the same thing for longer than the caller waits."""

    def __init__(
        self,
        brief: str,
        *,
        holder: int | None = None,
        details: str | None = None,
        resolution: str | None = None,
    ) -> None:
        super().__init__(brief, details=details, resolution=resolution)
        self.holder = holder


class _SystemCallError(StorageDriversError, OSError):
    def __init__(
        self,
        brief: str,
        *,
        errno: int,
        details: str | None = None,
        resolution: str | None = None,
    ) -> None:
        super().__init__(brief, details=details, resolution=resolution)
        self.errno = errno


class MountError(_SystemCallError):
    """A mount failed. Also an ``OSError``: ``errno`` is the kernel's."""


class UnmountError(_SystemCallError):
    """An unmount failed. Also an ``OSError``: ``errno`` is the kernel's."""
