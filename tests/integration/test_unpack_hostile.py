"""Archives from :mod:`hostile`, unpacked as root in every way that there is, among sentinels.

Each archive is applied to an empty changeset above a lower layer, to a whole tree that shows the
lower, and to an empty tree. Around the layer lie files and directories that it could reach by
``..``, by its parent's names, by absolute paths and from the working directory: nothing of them may
change, in content, metadata or existence; nothing of the lower either.
"""

from __future__ import annotations

import hashlib
import io
import os
import resource
import signal
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import archives
import pytest
from capabilities import need
from hostile import Hostile, all_archives

from storagedrivers.archive.unpack import unpack
from storagedrivers.errors import DiffError, DiffLimitError, DigestMismatchError
from storagedrivers.linux import copy, tree
from storagedrivers.linux.tree import opened_below, opened_directory
from storagedrivers.model import Limits, WhiteoutFormat
from storagedrivers.testing.trees import Node, Tree, differences, read_tree

SENTINELS = ("secret", "sentinel", "file", "x")
MODES = ("changeset", "tree", "base")
SECONDS = 10  # of the processor, for an archive; those of normal size take a hundredth
MEGABYTES = 120  # what memory may grow by, whatever the archive says

ARCHIVES = all_archives()


class Place(NamedTuple):
    """One layer among its sentinels."""

    top: Path
    layer: Path
    lower: Path

    @property
    def outside(self) -> Path:
        return self.top / "outside"


@pytest.fixture(scope="module")
def disk(made_filesystems: Callable[[str], Path]) -> Path:
    need("root")
    return made_filesystems("ext4")


@pytest.fixture
def place(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    top = disk / f"hostile-{os.urandom(6).hex()}"
    for directory in (
        "outside/dir",
        "store/sibling",
        "store/lower",
        "store/layer",
        "cwd/dir",
        "kept",
    ):
        (top / directory).mkdir(parents=True)
    for directory in ("", "outside", "outside/dir", "store", "store/sibling", "cwd", "cwd/dir"):
        for name in SENTINELS:
            (top / directory / name).write_bytes(b"untouched")
    _fill_lower(top / "store/lower", top / "outside")
    monkeypatch.chdir(top / "cwd")
    yield Place(top, top / "store/layer", top / "store/lower")
    monkeypatch.undo()
    with opened_directory(disk) as fd:
        tree.remove_tree(fd, top.name)


def _fill_lower(lower: Path, outside: Path) -> None:
    (lower / "dir/sub").mkdir(parents=True)
    (lower / "dir/file").write_bytes(b"in the lower")
    (lower / "dir/sub/file").write_bytes(b"in the lower")
    (lower / "file").write_bytes(b"in the lower")
    (lower / "dir/out").symlink_to("../../../outside")
    (lower / "link-out").symlink_to("../../outside")
    (lower / "link-up").symlink_to("..")
    (lower / "link-absolute").symlink_to(outside)
    (lower / "link-to-secret").symlink_to("../../outside/secret")
    (lower / "link-in").symlink_to("dir")


def _surroundings(place: Place) -> Tree:
    """Everything but what is in the layer, and the file with its headers."""
    found = {}
    for directory in ("outside", "cwd", "store/sibling", "store/lower"):
        for path, node in read_tree(place.top / directory).items():
            found[os.path.join(directory.encode(), path)] = node
    for directory in (place.top, place.top / "store"):
        for path in (directory, *(directory / name for name in SENTINELS)):
            found[os.fsencode(path)] = _node(path)
    return found


def _node(path: Path) -> Node:
    """A directory with the names in it, or a file with its content."""
    status = os.lstat(path)
    is_directory = stat.S_ISDIR(status.st_mode)
    return Node(
        kind="directory" if is_directory else "file",
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        content=" ".join(sorted(os.listdir(path))) if is_directory else path.read_text(),
        xattrs=tuple((name, os.getxattr(path, name)) for name in os.listxattr(path)),
    )


def _open_files() -> Counter[str]:
    found: Counter[str] = Counter()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found[os.readlink(f"/proc/self/fd/{name}")] += 1
    return found


@contextmanager
def _nothing_open() -> Iterator[None]:
    """No descriptor and no thread is there afterwards that was not before."""
    descriptors = _open_files()
    threads = set(threading.enumerate())
    yield
    # Fewer is well: what an earlier test forgot may be collected meanwhile.
    assert not _open_files() - descriptors, "descriptors are left open"
    assert set(threading.enumerate()) == threads, "threads are left"


@contextmanager
def _soon() -> Iterator[None]:
    """What takes more than ``SECONDS`` of the processor's time is interrupted, and fails."""

    def interrupt(*_: object) -> None:
        raise AssertionError(f"it takes more than {SECONDS} seconds")

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _unpack(place: Place, mode: str, stream: Any, limits: Limits, kept: bool = True) -> Any:
    if mode == "tree":
        copy.copy_tree(place.lower, place.layer)
    with opened_directory(place.layer) as layer, opened_directory(place.lower) as lower:
        return unpack(
            stream,
            layer,
            lower_fd=None if mode == "base" else lower,
            whiteouts=WhiteoutFormat.OVERLAY if mode == "changeset" else None,
            kept=str(place.top / "kept/headers") if kept else None,
            limits=limits,
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda archive: archive.name)
def test_nothing_happens_outside(place: Place, archive: Hostile, mode: str) -> None:
    """No archive reaches outside; it ends in its typed error, soon, and leaves nothing open."""
    made = archive.make(os.fsencode(place.outside))
    stream = io.BytesIO(made) if isinstance(made, bytes) else made
    before = _surroundings(place)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error: DiffError | None = None
    with _nothing_open(), _soon():
        try:
            _unpack(place, mode, stream, archive.limits)
        except DiffError as raised:
            error = raised
            raised.__traceback__ = None  # it holds the frames, and so what they opened
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) >> 10
    assert grown < MEGABYTES, f"{grown} MB of memory taken"
    assert differences(before, _surroundings(place)) == [], archive.never
    _check_error(archive, error, mode)
    _check_layer(place, mode)
    if error is None:
        for path in archive.without:
            assert not os.path.lexists(os.path.join(os.fsencode(place.layer), path)) or (
                mode == "changeset"
                and _is_whiteout(os.lstat(os.path.join(os.fsencode(place.layer), path)))
            ), archive.never


def _check_error(archive: Hostile, error: DiffError | None, mode: str) -> None:
    if mode == "base" and archive.harmless_alone:
        assert error is None
        return
    allowed = archive.error if isinstance(archive.error, tuple) else (archive.error or type(None),)
    assert isinstance(error, allowed), f"{error!r}: {archive.never}"
    if error is not None and archive.entry is not None:
        assert error.entry == archive.entry
        assert repr(archive.entry[:100])[1:-1] in str(error)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _check_layer(place: Place, mode: str) -> None:
    """Whatever an archive says: whiteouts and overlay's attributes are ours alone."""
    with ExitStack() as stack:
        top = stack.enter_context(opened_directory(place.layer))
        pending = [stack.enter_context(opened_below(top, ""))]
        seen = 0
        while pending and seen < 300:  # those that have more have more of the same
            fd = pending.pop()
            for name in os.listdir(fd)[:100]:
                seen += 1
                assert not name.startswith(".wh."), name
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(stack.enter_context(opened_below(fd, name)))
                    _check_attributes(pending[-1], mode)
                elif _is_whiteout(status):
                    assert mode == "changeset", f"a whiteout {name} in a whole tree"
                    assert os.path.lexists(_at(place.lower, fd, place.layer) / name), name
                elif stat.S_ISREG(status.st_mode):
                    _check_attributes(f"/proc/self/fd/{fd}/{name}", mode)


def _at(lower: Path, fd: int, layer: Path) -> Path:
    """The directory of the lower that *fd* lies over."""
    return lower / os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), layer)


def _check_attributes(file: int | str, mode: str) -> None:
    for name in os.listxattr(file):
        prefix, _, own = name.partition(".overlay.")
        if own and prefix in ("trusted", "user"):
            assert (mode, name) == ("changeset", "trusted.overlay.opaque")
            assert os.getxattr(file, name) == b"y"


def test_an_unlimited_stream_is_not_read_on(place: Place) -> None:
    """When the limit is reached, no more is read than what was on its way."""
    endless = archives.Lazy(archives.file(b"f%d" % n) for n in range(1 << 40))
    with pytest.raises(DiffLimitError):
        _unpack(place, "base", endless, Limits(entries=5000))
    assert endless.taken < 5000 * archives.BLOCK + (32 << 20)


def test_many_entries_take_no_memory(place: Place) -> None:
    """Memory does not grow with the number of entries that are one file after the other."""
    block = archives.file(b"same", b"")
    stream = archives.Lazy(block * 1000 for _ in range(50))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _unpack(place, "base", stream, Limits())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_that_fails(place: Place, mode: str) -> None:
    """An error of the stream itself comes through as it is."""

    def pieces() -> Iterator[bytes]:
        yield archives.file(b"f", b"x")
        raise ConnectionResetError(104, "Connection reset by peer")

    with _nothing_open():
        try:
            _unpack(place, mode, archives.Lazy(pieces()), Limits())
        except ConnectionResetError as error:
            error.__traceback__ = None
        else:
            pytest.fail("the error is swallowed")


def test_a_digest_that_is_another(place: Place) -> None:
    """A tar that is not the expected one is told so, with both digests."""
    data = archives.tar(archives.file(b"f", b"x"))
    wrong = "sha256:" + "0" * 64
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    with opened_directory(place.layer) as layer:
        with pytest.raises(DigestMismatchError) as caught:
            unpack(io.BytesIO(data), layer, diff_id=wrong)
    assert (caught.value.expected, caught.value.found) == (wrong, found)


def test_sentinels_are_seen(place: Place) -> None:
    """These tests notice a file outside that is added, changed, touched or removed."""
    for harm in (
        lambda: (place.outside / "escaped").touch(),
        lambda: (place.outside / "secret").write_bytes(b"overwritten"),
        lambda: (place.outside / "dir").chmod(0o700),
        lambda: (place.top / "store/sibling/secret").unlink(),
        lambda: os.setxattr(place.lower / "file", "user.a", b"1"),
        lambda: os.utime(place.top / "secret", (1, 1)),
    ):
        before = _surroundings(place)
        harm()
        assert differences(before, _surroundings(place)) != []


def test_families_are_all_there() -> None:
    """At least 60 archives, each under a name of its own."""
    names = [archive.name for archive in ARCHIVES]
    assert len(names) == len(set(names)) >= 60
