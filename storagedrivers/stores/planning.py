"""What the mounts of a container will do, told before anything is done.

:meth:`ContainerStore.create` carries out what :meth:`ContainerStore.plan` shows: one function makes
the plan of both, so they cannot differ. ``create`` makes it under the locks of the volumes, where
nobody else makes, fills or removes them, and does not count what it copies.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import (
    AlreadyExistsError,
    InvalidMountError,
    NotFoundError,
    StorageDriversError,
)
from storagedrivers.model import Volume
from storagedrivers.mounts.spec import MountSpec, MountType
from storagedrivers.stores import mount_warnings, sources, volume_mounting
from storagedrivers.stores.container_mounts import from_spec
from storagedrivers.stores.plans import Owner, Plan, PlannedMount, User
from storagedrivers.stores.volume_content import Filled, measure

if TYPE_CHECKING:
    from storagedrivers.stores.container_base import ContainerBase
    from storagedrivers.stores.images import Image
    from storagedrivers.stores.mount_requests import Request
    from storagedrivers.stores.volumes import VolumeStore

__all__ = ["Owner", "Plan", "PlannedMount", "Planner", "volume_of"]

_NEW = 0o755  # the mode of a data directory, and of a directory of the host that is made
_TMPFS = 0o1777  # of a tmpfs at a place that the image does not have, as Docker mounts it
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # also of symlinks that lead nowhere
_MODE = re.compile(r"(?:^|,)mode=([0-7]{1,4})(?=,|$)")


class There(NamedTuple):
    """What the image has at a target.

    Attributes:
        fd: of a directory, open.
        status: None where nothing is.
        blocked: nothing can be there, since the image has a file on the way.
    """

    fd: int | None = None
    status: os.stat_result | None = None
    blocked: bool = False

    @property
    def owner(self) -> Owner | None:
        """Whose it is."""
        return None if self.status is None else _owner(self.status)


def _owner(status: os.stat_result) -> Owner:
    return Owner(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


class Planner:
    """Makes one plan; a context manager that has the image's files open meanwhile.

    Args:
        store: the containers.
        image: the image, or None for an empty root.
        base: the layer on which the container begins.
        user: as whom it runs, if the plan is to be read: what is copied or hidden is counted, and
            whether the user can write.
    """

    def __init__(
        self, store: ContainerBase, image: Image | None, base: str | None, user: str | None = None
    ) -> None:
        self._store = store
        self._image = image
        self._base = base
        self._measured = user is not None
        self._words = user or ""
        self._stack = ExitStack()
        self._root: int | None = None
        self._volumes: dict[str, _Known] = {}

    def __enter__(self) -> Planner:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def plan(self, request: Request) -> Plan:
        """What will be done, in order.

        Raises:
            InvalidMountError: a source is missing, or the image has a file where a volume is to be.
            NotFoundError: a volume of another container was removed.
            AlreadyExistsError: a volume is of another driver than was asked for.
        """
        planned = [self._planned(spec, spec in request.inherited) for spec in request.specs]
        there = {one.target for one in planned}
        texts = [self._planned_tmpfs(text) for text in request.tmpfs]
        planned += [one for one in texts if one.target not in there]
        planned.sort(key=lambda one: one.target.count("/"))
        image = None if self._image is None else self._image.id
        if not self._measured:
            return Plan(image, tuple(planned), request.warnings)
        user = self._user()
        told = [mount_warnings.with_user(_with_access(one, user), user) for one in planned]
        warnings = (*request.warnings, *([user.problem] if user.problem else []))
        return Plan(image, tuple(mount_warnings.with_nested(told)), warnings)

    def _user(self) -> User:
        """As whom the container will run."""
        if self._base is None:  # there is no /etc/passwd
            return User(self._words or "root", None if self._words else 0)
        try:
            uid, groups = self._store.find_user(self._opened(self._base), self._words)
        except StorageDriversError as error:
            return User(self._words, None, problem=f"{error.brief}: it will not start like that")
        return User(self._words or "root", uid, groups)

    @contextmanager
    def at(self, target: str) -> Iterator[There]:
        """What the image has at a path, open; symlinks are followed inside of it."""
        from storagedrivers.stores.transfer import open_in_root

        if self._base is None:
            yield There()
            return
        root = self._opened(self._base)
        try:
            handle = open_in_root(root, target, os.O_PATH)
        except OSError as error:
            if error.errno not in _NOTHING:
                raise
            yield There(blocked=error.errno == errno.ENOTDIR)
            return
        try:
            status = os.fstat(handle)
            if not stat.S_ISDIR(status.st_mode):
                yield There(None, status)
                return
            fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield There(fd, status)
            finally:
                os.close(fd)
        finally:
            os.close(handle)

    def _seen_at(self, target: str) -> AbstractContextManager[There]:
        """The same, where it only matters to who reads the plan."""
        return self.at(target) if self._measured else nullcontext(There())

    def _opened(self, base: str) -> int:
        from storagedrivers.stores import content

        if self._root is None:
            self._root = self._stack.enter_context(content.view(self._store.layers, base))
        return self._root

    def _planned(self, spec: MountSpec, inherited: bool) -> PlannedMount:
        if spec.type is MountType.VOLUME:
            return self._of_volume(spec, inherited)
        with self._seen_at(spec.target) as there:
            if spec.type is MountType.BIND:
                return _with_target(self._of_host(spec, there), there)
            return _with_target(self._of_tmpfs(spec, spec.tmpfs_mode, there), there)

    # Volumes

    def _of_volume(self, spec: MountSpec, inherited: bool) -> PlannedMount:
        known = self._known(spec, inherited)
        new = known.volume is None and not known.planned
        known.planned = True
        with self.at(spec.target) as there:
            _refuse_file(spec, there)
            fills = self._fills(spec, known, there)
            owner, warnings = self._owner_in(spec, known, there if fills else There())
            planned = PlannedMount(
                spec,
                spec.source,
                creates="volume" if new else "",
                fills=fills,
                image=self._content(there),
                owner=owner,
            )
        warnings += mount_warnings.of_volume(planned, known.volume, self._image)
        return planned._replace(warnings=tuple(warnings))

    def _known(self, spec: MountSpec, inherited: bool) -> _Known:
        """What there will be of a volume when this mount's turn comes."""
        if spec.is_anonymous:
            return _Known(self._store.volumes, spec, None)
        if spec.source not in self._volumes:
            found = None
            try:
                found = self._store.volumes.get(spec.source)
            except NotFoundError:
                if inherited:
                    raise
            self._volumes[spec.source] = _Known(self._store.volumes, spec, found)
        known = self._volumes[spec.source]
        if spec.driver not in ("", known.driver):
            raise AlreadyExistsError(
                f"there is a volume {spec.source} of the driver {known.driver} already",
                resolution=f"leave the driver {spec.driver} out, or choose another name",
            )
        return known

    def _fills(self, spec: MountSpec, known: _Known, there: There) -> bool:
        if there.fd is None or spec.no_copy or spec.subpath or not known.keeps or known.is_full():
            return False
        known.full = _has_entries(there.fd)
        return True

    def _owner_in(
        self, spec: MountSpec, known: _Known, source: There
    ) -> tuple[Owner | None, list[str]]:
        """The owner of what will be mounted, and what is to be said if there is nothing.

        Args:
            source: what it is filled with.
        """
        if known.mounts:
            return None if known.is_the_hosts or not known.keeps else source.owner, []
        if source.owner is not None:
            known.owner = source.owner
        if known.volume is None and not spec.subpath:
            return known.owner, []
        if known.volume is None:
            return None, [mount_warnings.no_subpath(spec)]
        if known.owner is not None and not spec.subpath:
            return known.owner, []
        try:
            status = self._status(spec, {spec.source: self._store.volumes.data(spec.source)})
        except InvalidMountError as error:
            return None, [f"{error.brief}: it will not start like that"]
        return _owner(status), []

    @staticmethod
    def _status(spec: MountSpec, paths: Mapping[str, str]) -> os.stat_result:
        fd = sources.opened(from_spec(spec, spec.source if paths else ""), paths)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    # Others

    def _of_host(self, spec: MountSpec, there: There) -> PlannedMount:
        if spec.create_source and not os.path.lexists(spec.source):
            owner, creates, status = Owner(os.geteuid(), os.getegid(), _NEW), "directory", None
        else:
            status = self._status(spec, {})
            owner, creates = _owner(status), ""
        planned = PlannedMount(spec, creates=creates, image=self._content(there), owner=owner)
        warnings = mount_warnings.of_host(planned, status, there.status, self._store.layers.root)
        return planned._replace(warnings=tuple(warnings))

    def _of_tmpfs(self, spec: MountSpec, mode: int | None, there: There) -> PlannedMount:
        if mode is None:
            mode = _TMPFS if there.fd is None or there.owner is None else there.owner.mode
        return PlannedMount(spec, image=self._content(there), owner=Owner(0, 0, mode))

    def _planned_tmpfs(self, text: str) -> PlannedMount:
        from storagedrivers.mounts.tmpfs_flag import tmpfs_target

        words = text.partition(":")[2]
        found = _MODE.findall(words)
        read_only = "ro" in words.split(",")
        spec = MountSpec(MountType.TMPFS, tmpfs_target(text), read_only=read_only, mode=words)
        with self._seen_at(spec.target) as there:
            planned = self._of_tmpfs(spec, int(found[-1], 8) if found else None, there)
            return _with_target(planned, there)

    def _content(self, there: There) -> Filled | None:
        if not self._measured or there.status is None:
            return None
        if there.fd is not None:
            return measure(there.fd)
        return Filled(1, there.status.st_size if stat.S_ISREG(there.status.st_mode) else 0)


def _with_target(planned: PlannedMount, there: There) -> PlannedMount:
    if not there.blocked:
        return planned
    said = f"the image has a file above {planned.target}: it will not start like that"
    return planned._replace(warnings=(*planned.warnings, said))


def _with_access(planned: PlannedMount, user: User) -> PlannedMount:
    if planned.read_only:
        return planned._replace(writable=False)
    return planned._replace(
        writable=None if planned.owner is None else user.can_write(planned.owner)
    )


def _refuse_file(spec: MountSpec, there: There) -> None:
    if there.blocked:
        raise InvalidMountError(
            f"cannot mount volume at {spec.target}: the image has a file above it",
            resolution="choose another target",
        )
    if there.status is not None and there.fd is None and not spec.subpath:
        raise InvalidMountError(
            f"cannot mount volume over existing file, file exists {spec.target}",
            resolution="choose a directory as the target, or bind a file of the host",
        )


class _Known:
    """A volume as it will be when the next mount's turn comes.

    Attributes:
        volume: as it is now; None where it has to be made.
        planned: it was part of a mount before.
        full: whether it will hold something; None where nobody has looked.
        owner: of its data directory, where the plan gives it one.
    """

    def __init__(self, store: VolumeStore, spec: MountSpec, volume: Volume | None) -> None:
        self._store = store
        self.volume = volume
        self.planned = False
        self.full: bool | None = None
        self.owner = None if volume is not None else Owner(os.geteuid(), os.getegid(), _NEW)
        described = volume or volume_of(spec, spec.source or "anonymous")
        self.driver = described.driver
        if volume is None:
            _check(store, described)
        self.mounts = volume_mounting.mounts_of(store, described)

    @property
    def keeps(self) -> bool:
        """Whether what is copied into it is there the next time that it is mounted."""
        return not self.mounts or any(one.type != "tmpfs" for one in self.mounts)

    @property
    def is_the_hosts(self) -> bool:
        """Whether it shows a directory of the host, which keeps its owner and mode."""
        return any({one.type, *one.options} & {"bind", "rbind"} for one in self.mounts)

    def is_full(self) -> bool:
        """Whether it holds something."""
        if self.full is None:
            if self.volume is not None:
                self.full = not self._store.is_empty(self.volume.name)
            elif self.is_the_hosts:
                self.full = _is_full(self.mounts[0].source)
            else:
                self.full = False
        return self.full


def volume_of(spec: MountSpec, name: str) -> Volume:
    """The volume that is made for a mount."""
    driver = spec.driver or "local"
    labels, options = dict(spec.labels), dict(spec.options)
    return Volume(name, driver, time.time(), labels, options, anonymous=spec.is_anonymous)


def _check(store: VolumeStore, new: Volume) -> None:
    """Have its driver refuse what it would refuse when the volume is made."""
    driver = store.driver_for(new.driver)
    home = store.home if os.path.isdir(store.home) else store.layers.root
    driver.check(new.options, driver.size(new.options), Path(home))


def _has_entries(fd: int) -> bool:
    with os.scandir(fd) as entries:
        return next(entries, None) is not None


def _is_full(path: str) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:  # whoever mounts it says what is wrong
        return True
