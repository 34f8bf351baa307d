"""What the mounts of a container will do, told before anything is done.

:meth:`ContainerStore.create` carries out what :meth:`ContainerStore.plan` shows: one function makes
the plan of both, so they cannot differ. ``create`` makes it under the locks of the volumes, where
nobody else makes, fills or removes them, and does not count what it copies.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import (
    AlreadyExistsError,
    InvalidMountError,
    NotFoundError,
    StorageDriversError,
)
from storagedrivers.model import Volume
from storagedrivers.mounts.spec import MountSpec, MountType
from storagedrivers.mounts.tmpfs_flag import tmpfs_options, tmpfs_target
from storagedrivers.stores import image_records, mount_problems, mount_warnings, sources
from storagedrivers.stores.container_mounts import ContainerMount, from_spec
from storagedrivers.stores.known_volumes import NEW, KnownVolume
from storagedrivers.stores.mount_problems import Shown
from storagedrivers.stores.plans import Owner, Plan, PlannedMount, User
from storagedrivers.stores.volume_content import Filled, measure

if TYPE_CHECKING:
    from storagedrivers.stores.container_base import ContainerBase
    from storagedrivers.stores.images import Image
    from storagedrivers.stores.mount_requests import Request

__all__ = ["Owner", "Plan", "PlannedMount", "Planner"]

_TMPFS = 0o1777  # of a tmpfs at a place that the image does not have, as Docker mounts it
# Also of symlinks that lead nowhere.
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


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


class _Source(NamedTuple):
    """What of a volume will be mounted.

    Attributes:
        owner: whose it is; None where only the start tells.
        shown: what it is.
        problems: why there is nothing.
    """

    owner: Owner | None
    shown: Shown
    problems: tuple[str, ...] = ()


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
        self._volumes: dict[str, KnownVolume] = {}
        self._targets: set[str] = set()
        self._shown: dict[str, Shown] = {}  # what each mount shows, by target

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
        self._targets = {spec.target for spec in request.specs}
        self._targets |= {tmpfs_target(text) for text in request.tmpfs}
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
        if self._base is not None:
            told = [*mount_warnings.with_hidden(told, self._opened(self._base))]
        problems = (user.problem,) if user.problem else ()
        return Plan(image, tuple(self._with_nested(told)), request.warnings, problems)

    def _user(self) -> User:
        """As whom the container will run."""
        if self._base is None:  # there is no /etc/passwd
            return User(self._words or "root", None if self._words else 0)
        try:
            uid, groups = self._store.find_user(self._opened(self._base), self._words)
        except StorageDriversError as error:
            return User(self._words, None, problem=mount_problems.told(error))
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
                return self._of_host(spec, there)
            return self._of_tmpfs(spec, spec.tmpfs_mode, there)

    def _with_problems(self, planned: PlannedMount, there: There, shown: Shown) -> PlannedMount:
        """The same mount, and why it cannot be mounted on what the image or the kernel has."""
        if not self._measured:
            return planned
        target = planned.target
        self._shown[target] = shown
        if any(target.startswith(f"{one}/") for one in self._targets):
            return planned  # on what that one shows
        if there.blocked:
            found: StorageDriversError | None = mount_problems.file_above(target)
        elif mount_problems.is_kernels(target):
            found = mount_problems.at_kernels(target, shown)
        else:
            found = _misfit(target, there, shown)
        return planned if found is None else _with_problem(planned, found)

    def _with_nested(self, planned: Sequence[PlannedMount]) -> Iterator[PlannedMount]:
        """The same mounts, and what is to be said of those that lie in others.

        Args:
            planned: in the order in which they are mounted.
        """
        for number, one in enumerate(planned):
            above = [
                other for other in planned[:number] if one.target.startswith(f"{other.target}/")
            ]
            if not above:
                yield one
                continue
            outer = above[-1]
            said = mount_warnings.nested(one.target, outer)
            inner = (one.target, self._shown[one.target])
            problem = mount_problems.nested(inner, outer, self._shown[outer.target])
            yield one._replace(
                warnings=(*one.warnings, *([said] if said else [])),
                problems=(*one.problems, *([problem] if problem else [])),
            )

    # Volumes

    def _of_volume(self, spec: MountSpec, inherited: bool) -> PlannedMount:
        known = self._known(spec, inherited)
        new = known.volume is None and not known.planned
        known.planned = True
        with self.at(spec.target) as there:
            _refuse_file(spec, there)
            fills = self._fills(spec, known, there)
            source = self._source_in(spec, known, there if fills else There())
            planned = PlannedMount(
                spec,
                spec.source,
                creates="volume" if new else "",
                fills=fills,
                image=self._content(there),
                owner=source.owner,
                problems=source.problems,
            )
            planned = self._with_problems(planned, there, source.shown)
        if fills:  # what was looked at is the image's
            self._shown[spec.target] = Shown()
        warnings = mount_warnings.of_volume(planned, known.volume, *self._images(known.volume))
        return planned._replace(warnings=tuple(warnings))

    def _images(self, volume: Volume | None) -> tuple[str, str]:
        """How the image is called that filled a volume, if it is another one, and the container's;
        both are only of interest to who reads the plan.
        """
        image, seed = self._image, volume and volume.seed
        if not self._measured or image is None or not seed or seed == image.id:
            return "", ""
        found = image_records.find(self._store.database, "WHERE id = ?", seed)
        return _called(seed, found[0].names if found else ()), _called(image.id, image.names)

    def _known(self, spec: MountSpec, inherited: bool) -> KnownVolume:
        """What there will be of a volume when this mount's turn comes."""
        if spec.is_anonymous:
            return KnownVolume(self._store.volumes, spec, None)
        if spec.source not in self._volumes:
            found = None
            try:
                found = self._store.volumes.get(spec.source)
            except NotFoundError:
                if inherited:
                    raise
            self._volumes[spec.source] = KnownVolume(self._store.volumes, spec, found)
        known = self._volumes[spec.source]
        if spec.driver not in ("", known.driver):
            raise AlreadyExistsError(
                f"there is a volume {spec.source} of the driver {known.driver} already",
                resolution=f"leave the driver {spec.driver} out, or choose another name",
            )
        return known

    def _fills(self, spec: MountSpec, known: KnownVolume, there: There) -> bool:
        if there.fd is None or spec.no_copy or spec.subpath or not known.keeps or known.is_full():
            return False
        known.full = _has_entries(there.fd)
        return True

    def _source_in(self, spec: MountSpec, known: KnownVolume, filled: There) -> _Source:
        """What of a volume will be mounted.

        Args:
            filled: with what it is filled.
        """
        if known.mounts:
            owner = None if known.is_the_hosts or not known.keeps else filled.owner
            return _Source(owner, Shown(None if spec.subpath else True))
        if filled.owner is not None:
            known.owner, known.path = filled.owner, None
            path = f"/proc/self/fd/{filled.fd}"
            return _Source(filled.owner, Shown(path=path, read_only=spec.read_only))
        if known.volume is None and spec.subpath:
            return _Source(None, Shown(None), (mount_problems.no_subpath(spec),))
        if known.owner is not None and not spec.subpath:
            return _Source(known.owner, Shown(path=known.path, read_only=spec.read_only))
        data = self._store.volumes.data(spec.source)
        try:
            status, _ = self._status(spec, {spec.source: data})
        except InvalidMountError as error:
            return _Source(None, Shown(None), (mount_problems.told(error),))
        shown = Shown(
            stat.S_ISDIR(status.st_mode),
            None if spec.subpath else data,  # a symlink may have led there
            read_only=spec.read_only,
        )
        return _Source(_owner(status), shown)

    def _status(
        self, spec: MountSpec, paths: Mapping[str, str]
    ) -> tuple[os.stat_result, tuple[str, ...]]:
        """What is to be mounted, and why it cannot spread as it should."""
        mount = from_spec(spec, spec.source if paths else "")
        fd = sources.opened(mount, paths)
        try:
            return os.fstat(fd), self._spreading(mount, fd)
        finally:
            os.close(fd)

    def _spreading(self, mount: ContainerMount, fd: int) -> tuple[str, ...]:
        if self._measured:
            try:
                sources.check_spreading(mount, fd)
            except InvalidMountError as error:
                return (mount_problems.told(error),)
        return ()

    # Others

    def _of_host(self, spec: MountSpec, there: There) -> PlannedMount:
        status = None
        if spec.create_source and not os.path.lexists(spec.source):
            owner, creates = Owner(os.geteuid(), os.getegid(), NEW), "directory"
            problems = self._made_in(spec)
        else:
            status, problems = self._status(spec, {})
            owner, creates = _owner(status), ""
        warnings = mount_warnings.of_host(spec, status, self._store.layers.root)
        planned = PlannedMount(
            spec,
            creates=creates,
            image=self._content(there),
            owner=owner,
            warnings=tuple(warnings),
            problems=problems,
        )
        is_directory = status is None or stat.S_ISDIR(status.st_mode)
        path = "" if status is None else spec.source
        return self._with_problems(
            planned, there, Shown(is_directory, path, read_only=spec.read_only)
        )

    def _made_in(self, spec: MountSpec) -> tuple[str, ...]:
        """What is wrong with the directory in which that of the host will be made."""
        above = spec.source
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        if not self._measured:
            return ()
        if not os.path.isdir(above):
            return (f"{spec.source} cannot be made, {above} is no directory: name another path",)
        return self._status(spec._replace(source=above), {})[1]

    def _of_tmpfs(self, spec: MountSpec, mode: int | None, there: There) -> PlannedMount:
        if mode is None:
            mode = _TMPFS if there.fd is None or there.owner is None else there.owner.mode
        planned = PlannedMount(spec, image=self._content(there), owner=Owner(0, 0, mode))
        shown = Shown(path="", is_tmpfs=True, read_only=spec.read_only)
        return self._with_problems(planned, there, shown)

    def _planned_tmpfs(self, text: str) -> PlannedMount:
        problem: StorageDriversError | None = None
        options: list[str] = []
        try:
            options = tmpfs_options(text)
        except InvalidMountError as error:
            problem = error
        modes = [one for one in options if one.startswith("mode=")]
        words = text.partition(":")[2]
        spec = MountSpec(MountType.TMPFS, tmpfs_target(text), read_only="ro" in options, mode=words)
        with self._seen_at(spec.target) as there:
            mode = int(modes[0].removeprefix("mode="), 8) if modes else None
            planned = self._of_tmpfs(spec, mode, there)
            return planned if problem is None else _with_problem(planned, problem)

    def _content(self, there: There) -> Filled | None:
        if not self._measured or there.status is None:
            return None
        if there.fd is not None:
            return measure(there.fd)
        return Filled(1, there.status.st_size if stat.S_ISREG(there.status.st_mode) else 0)


def _misfit(target: str, there: There, shown: Shown) -> StorageDriversError | None:
    if there.status is None or shown.is_directory in (None, stat.S_ISDIR(there.status.st_mode)):
        return None
    return mount_problems.misfit(target, is_directory=bool(shown.is_directory))


def _with_problem(planned: PlannedMount, error: StorageDriversError) -> PlannedMount:
    return planned._replace(problems=(*planned.problems, mount_problems.told(error)))


def _called(image: str, names: Sequence[str]) -> str:
    """An image by its first name as people write it, or the beginning of its id."""
    from storagedrivers.oci import reference

    return reference.parse(names[0]).familiar if names else image[7:19]


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


def _has_entries(fd: int) -> bool:
    with os.scandir(fd) as entries:
        return next(entries, None) is not None
