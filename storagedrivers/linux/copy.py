"""Copies directory trees with everything that a layer can hold.

Kept: contents with holes, owners, modes, nanosecond times of modification, extended attributes with
ACLs and file capabilities, hard links within the tree, symlinks, devices, fifos, sockets, names in
any bytes, any depth. Contents are shared where the filesystem can (FICLONE), else copied inside the
kernel.

The order for each file matters: contents, owner (it clears setuid and capabilities), attributes
(user ones need the right to write), mode, ACLs (they rewrite the group bits), capabilities, times.
Directories get theirs last, the deepest first: a mode could close them to their owner, and a
default ACL would pass on to children made later.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from storagedrivers.linux import ioctl, tree

if TYPE_CHECKING:
    from queue import SimpleQueue

_LARGE = 256 << 10  # bytes; measured: below, the second thread costs more than it does

_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)
_CANNOT_COPY_RANGE = (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_NO_XATTRS = (errno.EOPNOTSUPP, errno.ENOSYS)

_SECOND_NAMES = ("trusted.SGI_ACL_",)  # under which xfs shows its ACLs once more
OVERLAYS_OWN = ("trusted.overlay.", "user.overlay.")
"""What the attributes begin with that overlay keeps for itself."""


def copy_tree(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, lossy: bool = False
) -> bool:
    """Copy what is in the directory *source*, and its own metadata, to the empty directory
    *target*.

    Args:
        lossy: attributes that the target's filesystem has no place for stay behind, and so do
            overlay's own, which tell of the source's place in a stack.

    Returns:
        Whether all contents are shared with the source (reflinks) rather than copied.

    Raises:
        OSError: the first failure (EXDEV: something is mounted inside the source); what was copied
            until then stays, for the caller to remove.
    """
    with _both(source, target) as (source_fd, target_fd):
        for name in _ACLS:  # what the target inherited would pass on to its children
            with suppress(OSError):
                os.removexattr(target_fd, name)
        copier = _TreeCopier(source_fd, target_fd, lossy=lossy)
        copier.run()
        return copier.cloning


def copy_entry(source_fd: int, name: str, target_fd: int, new_name: str) -> None:
    """Copy *name*, which is no directory, from the directory *source_fd* to *target_fd*.

    Raises:
        OSError: EEXIST: the target has one already; what the kernel says.
    """
    copier = _TreeCopier(source_fd, target_fd)
    try:
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        copier.copy_entry(source_fd, name, target_fd, new_name, status)
    finally:
        copier.finish()


def copy_opened(source: int, target_fd: int, new_name: str) -> None:
    """Copy the regular file that is open as *source* to a new one in the directory *target_fd*.

    Raises:
        OSError: EEXIST: the target has one already; what the kernel says.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    target = os.open(new_name, flags, 0o600, dir_fd=target_fd)
    _TreeCopier(-1, target_fd).fill(os.dup(source), target, os.fstat(source))


@contextmanager
def _both(
    source: str | os.PathLike[str], target: str | os.PathLike[str]
) -> Iterator[tuple[int, int]]:
    with (
        tree.opened_directory(source, follow_symlinks=True) as source_fd,
        tree.opened_directory(target, follow_symlinks=True) as target_fd,
    ):
        yield source_fd, target_fd


class Contents:
    """Copies what files hold, in the best way that the two filesystems have.

    Attributes:
        cloning: contents are shared with the source so far.
    """

    def __init__(self) -> None:
        self.cloning = True
        self._copy_range = True

    def copy(self, source: int, target: int, status: os.stat_result) -> None:
        """Give the empty file *target* what *source* holds; *status* is that one's.

        Raises:
            OSError: what the kernel says.
        """
        if self.cloning:
            try:
                ioctl.clone_file(source, target)
                return
            except OSError as error:
                if error.errno not in _CANNOT_CLONE:
                    raise
                self.cloning = False
        size = status.st_size
        if status.st_blocks * 512 >= size:
            self._copy_range_of(source, target, 0, size)
            return
        os.ftruncate(target, size)
        for start, end in data_segments(source, size):
            self._copy_range_of(source, target, start, end)

    def _copy_range_of(self, source: int, target: int, start: int, end: int) -> None:
        while self._copy_range and start < end:
            try:
                count = os.copy_file_range(source, target, end - start, start, start)
            except OSError as error:
                if error.errno not in _CANNOT_COPY_RANGE:
                    raise
                self._copy_range = False
                break
            if count == 0:
                break  # the file was cut meanwhile, or is of /proc's kind: reading tells
            start += count
        while start < end:
            data = os.pread(source, min(end - start, 1 << 20), start)
            if not data:
                return
            start += _write_all(target, data, start)


class _TreeCopier:
    """One copy of one tree. Directories are opened by their path from the top, two at a time."""

    def __init__(self, source_fd: int, target_fd: int, *, lossy: bool = False) -> None:
        self._source_fd = source_fd
        self._target_fd = target_fd
        self._lossy = lossy
        self._contents = Contents()
        self._todo = [""]
        self._directories: list[tuple[str, os.stat_result]] = []
        self._links: dict[tuple[int, int], tuple[str, str]] = {}
        self._helper: Helper | None = None

    @property
    def cloning(self) -> bool:
        """Whether contents are shared with the source so far."""
        return self._contents.cloning

    def run(self) -> None:
        try:
            while self._todo:
                self._copy_directory(self._todo.pop())
            for path, status in reversed(self._directories):
                with self._pair(path) as (source_fd, target_fd):
                    _copy_metadata(source_fd, target_fd, status, lossy=self._lossy)
        finally:
            self.finish()

    def finish(self) -> None:
        """Wait for what a second thread does."""
        if self._helper is not None:
            self._helper.finish()

    @contextmanager
    def _pair(self, path: str) -> Iterator[tuple[int, int]]:
        """A directory of the source and its copy."""
        with (
            tree.opened_below(self._source_fd, path) as source_fd,
            tree.opened_below(self._target_fd, path) as target_fd,
        ):
            yield source_fd, target_fd

    def _copy_directory(self, path: str) -> None:
        with self._pair(path) as (source_fd, target_fd):
            self._directories.append((path, os.fstat(source_fd)))
            with os.scandir(source_fd) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        os.mkdir(entry.name, 0o700, dir_fd=target_fd)
                        self._todo.append(f"{path}/{entry.name}" if path else entry.name)
                    else:
                        self._copy_or_link(path, source_fd, target_fd, entry.name)

    def _copy_or_link(self, path: str, source_fd: int, target_fd: int, name: str) -> None:
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            if key in self._links:
                self._link(target_fd, name, *self._links[key])
                return
            self._links[key] = (path, name)
        self.copy_entry(source_fd, name, target_fd, name, status)

    def copy_entry(
        self, source_fd: int, name: str, target_fd: int, new_name: str, status: os.stat_result
    ) -> None:
        """Copy what is no directory."""
        if stat.S_ISREG(status.st_mode):
            self._copy_file(source_fd, name, target_fd, new_name, status)
        else:
            _copy_special(source_fd, name, target_fd, new_name, status, lossy=self._lossy)

    def _link(self, target_fd: int, name: str, first_path: str, first_name: str) -> None:
        with tree.opened_below(self._target_fd, first_path) as first_fd:
            os.link(
                first_name, name, src_dir_fd=first_fd, dst_dir_fd=target_fd, follow_symlinks=False
            )

    def _copy_file(
        self, source_fd: int, name: str, target_fd: int, new_name: str, status: os.stat_result
    ) -> None:
        # A tree that is live may have a fifo there by now, at which one would wait for ever.
        reading = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        source = os.open(name, reading, dir_fd=source_fd)
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise OSError(errno.ESTALE, "it became something else while it was copied", name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(new_name, flags, 0o600, dir_fd=target_fd)
        except BaseException:
            os.close(source)
            raise
        if status.st_size < _LARGE or self.cloning:
            self.fill(source, target, status)
            return
        if self._helper is None:
            self._helper = Helper()
        self._helper.submit(lambda: self.fill(source, target, status))

    def fill(self, source: int, target: int, status: os.stat_result) -> None:
        """Give an empty file its contents and metadata; closes both."""
        try:
            if status.st_size:
                self._contents.copy(source, target, status)
            _copy_metadata(source, target, status, lossy=self._lossy)
        finally:
            os.close(target)
            os.close(source)


class Helper:
    """A second thread for large files, whose contents are one long call into the kernel.

    Small files are a dozen short calls each: two threads would only hand each other the
    interpreter's lock.

    Args:
        room: how many jobs may be under way; each holds two open files.
    """

    def __init__(self, room: int = 16) -> None:
        from queue import SimpleQueue

        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._room = threading.Semaphore(room)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="storagedrivers-copy")
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Have *job* done."""
        self._room.acquire()
        self._jobs.put(job)

    def offer(self, job: Callable[[], None]) -> bool:
        """Have *job* done, if there is room for one more; whether there was."""
        if not self._room.acquire(blocking=False):
            return False
        self._jobs.put(job)
        return True

    def finish(self) -> None:
        """Wait for all jobs.

        Raises:
            BaseException: the first failure of one.
        """
        self._jobs.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()  # all of them, also after a failure: each closes its files
            except BaseException as error:  # raised by finish(), in the caller's thread
                self._failure = self._failure or error
            finally:
                self._room.release()


def _write_all(fd: int, data: bytes, offset: int) -> int:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset + done)
    return done


def data_segments(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of a file's parts that are no holes: lseek(2), SEEK_DATA and SEEK_HOLE.

    Of a file that became shorter than *size* the rest counts as one, so that reading it tells.
    """
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            # A hole until the end, or no such place.
            if os.fstat(fd).st_size < size:
                yield at, size
            return
        if start >= size:
            return
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, at


def _copy_special(
    source_fd: int,
    name: str,
    target_fd: int,
    new_name: str,
    status: os.stat_result,
    *,
    lossy: bool,
) -> None:
    is_link = stat.S_ISLNK(status.st_mode)
    if is_link:
        os.symlink(os.readlink(name, dir_fd=source_fd), new_name, dir_fd=target_fd)
    else:
        os.mknod(new_name, status.st_mode, status.st_rdev, dir_fd=target_fd)
    os.chown(new_name, status.st_uid, status.st_gid, dir_fd=target_fd, follow_symlinks=False)
    if not is_link:  # mknod applied the umask
        tree.set_mode(target_fd, new_name, stat.S_IMODE(status.st_mode))
    # No xattr call takes a directory and a name; through /proc the directory stays the opened one.
    source_path = f"/proc/self/fd/{source_fd}/{name}"
    target_path = f"/proc/self/fd/{target_fd}/{new_name}"
    names = _xattr_names(source_path, follow_symlinks=False)
    if lossy:
        names = [name for name in names if not name.startswith(OVERLAYS_OWN)]
    _set_xattrs(source_path, target_path, names, follow_symlinks=False, lossy=lossy)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(new_name, ns=times, dir_fd=target_fd, follow_symlinks=False)


def copy_root_metadata(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give the directory *target* the owner, mode, attributes and times of the directory *source*.

    Overlay's own attributes stay behind: they tell of the source's place in a stack.

    Raises:
        OSError: EPERM where the owner may not be given away.
    """
    with _both(source, target) as (source_fd, target_fd):
        _copy_metadata(source_fd, target_fd, os.fstat(source_fd), leaving_out=OVERLAYS_OWN)


def _copy_metadata(
    source: int,
    target: int,
    status: os.stat_result,
    *,
    leaving_out: tuple[str, ...] = (),
    lossy: bool = False,
) -> None:
    created = os.fstat(target)
    if (created.st_uid, created.st_gid) != (status.st_uid, status.st_gid):
        os.chown(target, status.st_uid, status.st_gid)
    if names := _xattr_names(source):
        leaving_out = OVERLAYS_OWN if lossy else leaving_out
        names = [name for name in names if not name.startswith(leaving_out)]
        late = [name for name in names if name in _ACLS or name == "security.capability"]
        _set_xattrs(source, target, [name for name in names if name not in late], lossy=lossy)
        os.chmod(target, stat.S_IMODE(status.st_mode))
        late.sort(reverse=True)  # system.… before security.…
        _set_xattrs(source, target, late, lossy=lossy)
    else:
        os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _xattr_names(path: int | str, *, follow_symlinks: bool = True) -> list[str]:
    try:
        names = os.listxattr(path, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return []
        raise
    return [name for name in names if not name.startswith(_SECOND_NAMES)]


def _set_xattrs(
    source: int | str,
    target: int | str,
    names: list[str],
    *,
    follow_symlinks: bool = True,
    lossy: bool = False,
) -> None:
    for name in names:
        value = os.getxattr(source, name, follow_symlinks=follow_symlinks)
        try:
            os.setxattr(target, name, value, follow_symlinks=follow_symlinks)
        except OSError as error:
            if not (lossy and error.errno in _NO_XATTRS):
                raise
