"""One script of changes under every driver: the same changes, the same canonical diff."""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from capabilities import need

from storagedrivers.archive.changes import changes
from storagedrivers.archive.pack import pack
from storagedrivers.archive.unpack import unpack
from storagedrivers.driver import Capability, StorageDriver
from storagedrivers.drivers.btrfs_snapshot import BtrfsSnapshot
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.errors import UnrepresentableError
from storagedrivers.linux import copy
from storagedrivers.linux.extents import share_all_extents
from storagedrivers.linux.ioctl import ioctl
from storagedrivers.linux.mount import open_view
from storagedrivers.linux.tree import opened_directory
from storagedrivers.model import WhiteoutFormat
from storagedrivers.testing import scripts
from storagedrivers.testing.rig import Layer, Rig
from storagedrivers.testing.trees import ACL, CAPABILITY, OLD, Tree, differences, populate

DRIVERS: Mapping[str, tuple[type[StorageDriver], str]] = {
    "overlay2 on ext4": (Overlay2, "ext4"),
    "overlay2 on xfs": (Overlay2, "xfs"),
    "btrfs-snapshot": (BtrfsSnapshot, "btrfs"),
    "vfs-copy on ext4": (VfsCopy, "ext4"),
    "vfs-copy on xfs": (VfsCopy, "xfs"),
}
EPOCH = OLD // 10**9 + 100
NOTHING = bytes(1024)

Script = Callable[[Path], object]


class Views(NamedTuple):
    """A layer's content as :func:`pack` takes it."""

    upper: int
    lower: int | None
    whiteouts: WhiteoutFormat | None


class Bench:
    """A driver with a base layer that holds every kind of file."""

    def __init__(self, rig: Rig, model: Path) -> None:
        self.rig = rig
        self.base = rig.layer(lambda path: copy.copy_tree(model, path))

    def view(self, chain: tuple[str, ...]) -> int:
        return open_view(self.rig.driver.mounts(chain[0], chain[1:], read_only=True))

    @contextmanager
    def opened(self, layer: Layer, *, merged: bool = False) -> Iterator[Views]:
        """Args: merged: the whole tree also where there is a changeset."""
        changeset = None if merged else self.rig.driver.changeset(layer.id)
        with ExitStack() as stack:
            lower = None
            if layer.lowers:
                lower = self.view(layer.lowers)
                stack.callback(os.close, lower)
            if changeset is not None:
                upper = stack.enter_context(opened_directory(changeset.path))
            else:
                upper = self.view(layer.chain)
                stack.callback(os.close, upper)
            yield Views(upper, lower, changeset.whiteouts if changeset else None)

    def packed(self, layer: Layer, *, epoch: int | None = EPOCH, merged: bool = False) -> bytes:
        out = io.BytesIO()
        with self.opened(layer, merged=merged) as views:
            pack(*views, out.write, source_date_epoch=epoch)
        return out.getvalue()

    def changes(self, layer: Layer) -> list[str]:
        with self.opened(layer) as views:
            found = list(changes(*views))
        return [f"{change.kind} {os.fsdecode(change.path) or '.'}" for change in found]

    def unpacked(self, data: bytes, below: Layer) -> Layer:
        """A sealed layer of a tar."""
        driver = self.rig.driver
        layer = self.rig.create(below)
        changeset = driver.changeset(layer.id)
        with ExitStack() as stack:
            if changeset is not None:
                target = stack.enter_context(opened_directory(changeset.path))
            else:
                target = open_view(driver.mounts(layer.id, layer.lowers, read_only=False))
                stack.callback(os.close, target)
            lower = self.view(layer.lowers)
            stack.callback(os.close, lower)
            whiteouts = changeset.whiteouts if changeset else None
            unpack(io.BytesIO(data), target, lower_fd=lower, whiteouts=whiteouts)
        driver.seal(layer.id, layer.lowers)
        return layer


@pytest.fixture(scope="module")
def bench(
    made_filesystems: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Bench]]:
    """A bench by its driver's name; each is made once."""
    need("root", "mount", "overlay")
    model = tmp_path_factory.mktemp("model") / "tree"
    model.mkdir()
    populate(model)
    _add_more(model)
    benches: dict[str, Bench] = {}
    with ExitStack() as stack:

        def get(name: str) -> Bench:
            if name not in benches:
                driver, filesystem = DRIVERS[name]
                root = made_filesystems(filesystem) / f"changes-{os.urandom(6).hex()}"
                root.mkdir()
                rig = stack.enter_context(Rig(driver, root))
                benches[name] = Bench(rig, model)
            return benches[name]

        yield get


def _add_more(top: Path) -> None:
    (top / "deep/er/and/deeper").mkdir(parents=True)
    (top / "deep/er/and/deeper/file").write_bytes(b"x" * 5000)
    (top / "deep/er/other").write_bytes(b"other")
    with (top / "holes").open("wb") as file:
        file.truncate(4 << 20)
        file.seek(2 << 20)
        file.write(b"data")
    for path in (
        top / "holes",
        *sorted((top / "deep").rglob("*"), reverse=True),
        top / "deep",
        top,
    ):
        os.utime(path, ns=(OLD, OLD))


@pytest.fixture(params=DRIVERS)
def one(request: pytest.FixtureRequest, bench: Callable[[str], Bench]) -> Bench:
    return bench(request.param)


# Changes beyond those of the conformance kit


@contextmanager
def same_times(*paths: Path) -> Iterator[None]:
    """Afterwards the times of modification are those from before."""
    times = {path: path.lstat().st_mtime_ns for path in paths}
    yield
    for path, time in times.items():
        os.utime(path, ns=(time, time), follow_symlinks=False)


def _everything(top: Path) -> Iterator[Path]:
    yield top
    yield from sorted(top.rglob("*"))


def change_nothing(top: Path) -> None:
    """All that copies a file up without changing it."""
    for path in _everything(top):
        status = path.lstat()
        if path.name in ("setuid", "executable"):
            continue  # a change of owner takes setuid and capabilities away
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(status.st_mode))
        os.utime(path, ns=(OLD, status.st_mtime_ns), follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith(("user.", "trusted.")):
                os.setxattr(path, name, os.getxattr(path, name), follow_symlinks=False)
        if stat.S_ISREG(status.st_mode):
            path.open("r+b").close()


def rewrite_the_same(top: Path) -> None:
    """The same bytes, in the old file and in a new one of its name."""
    for name in ("small", "large", "directory/file"):
        with same_times(top / name):
            (top / name).write_bytes((top / name).read_bytes())
    path = top / "deep/er/other"
    status = path.stat()
    with same_times(path, path.parent):
        path.unlink()
        path.write_bytes(b"other")
        path.chmod(stat.S_IMODE(status.st_mode))


def edit_without_a_trace(top: Path) -> None:
    """Other bytes, the same size, the time of modification put back."""
    for name, at in (("small", 2), ("large", 2 << 20), ("holes", 3 << 20), ("unreadable", 0)):
        with same_times(top / name), (top / name).open("r+b") as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 0xFF]))  # what is there may be random


def edit_in_the_same_second(top: Path) -> None:
    for number in range(20):
        path = top / f"directory/file-{number}"
        path.write_bytes(b"one")
        path.write_bytes(b"two")
    (top / "small").write_bytes(b"SMALL\n")


def replace_directories(top: Path) -> None:
    """Removed and made anew, with some of what was there, and with other things."""
    for name in ("directory", "odd", "empty-directory", "closed"):
        shutil.rmtree(top / name)
        (top / name).mkdir()
    (top / "directory/below/deeper").mkdir(parents=True)
    (top / "directory/below/file").write_bytes(b"further down")
    (top / "directory/below/new").touch()
    (top / "odd/new").touch()
    (top / "closed").rmdir()
    shutil.rmtree(top / "deep/er/and")
    (top / "deep/er/and").write_bytes(b"a file")
    (top / "deep/er/and").unlink()
    (top / "deep/er/and/deeper").mkdir(parents=True)
    (top / "deep/er/and/deeper/other").touch()


def delete_far_down(top: Path) -> None:
    """Nothing above changes but the one directory."""
    (top / "deep/er/and/deeper/file").unlink()
    with same_times(top / "deep/er"):
        (top / "deep/er/other").unlink()
    with same_times(top / "directory"):
        shutil.rmtree(top / "directory/below")


def make_and_delete(top: Path) -> None:
    """What comes and goes leaves its directories' times only."""
    (top / "sticky/file").touch()
    (top / "sticky/file").unlink()
    (top / "deep/er/new").mkdir()
    (top / "deep/er/new").rmdir()
    (top / "empty").unlink()
    (top / "empty").mkdir()
    (top / "empty").rmdir()


def odd_names(top: Path) -> None:
    at = os.fsencode(top)
    for name in (
        b"new\nline",
        b"\xff\xfe",
        b"\xe4/inside",
        b"n" * 255,
        b"-rf",
        b"\x01\x7f",
        b"...",
    ):
        path = os.path.join(at, b"new names", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name)
    os.unlink(os.path.join(at, b"odd/new\nline"))
    os.unlink(os.path.join(at, b"odd", b"n" * 242))


def dig(top: Path) -> None:
    """Deeper than a path can say, and than files may be open."""
    scripts.dig(top, 30, "d" * 200)
    scripts.dig(top / "closed", 300, "l")


def set_attributes(top: Path) -> None:
    os.setxattr(top / "small", "user.comment", b"another")
    os.setxattr(top / "large", "user.long", b"v" * 3000)
    os.removexattr(top / "large", "user.empty")
    os.setxattr(top / "directory/file", "system.posix_acl_access", ACL)
    os.setxattr(top / "directory", "system.posix_acl_default", ACL)
    os.removexattr(top / "closed", "system.posix_acl_default")
    (top / "directory/inherits").touch()
    (top / "directory/inherits too").mkdir()
    os.setxattr(top / "unreadable", "security.capability", CAPABILITY)
    os.setxattr(
        top / "symlink-to-directory", "trusted.note", b"of a symlink", follow_symlinks=False
    )
    os.setxattr(top / "fifo", "trusted.note", b"of a fifo")
    with (top / "executable").open("ab") as file:  # takes the capability away
        file.write(b"more")


def set_what_overlay_uses(top: Path) -> None:
    """Never seen in a diff, whatever the driver lets be set."""
    for name in ("small", "directory"):
        os.setxattr(top / name, "trusted.overlay.opaque", b"y")
        os.setxattr(top / name, "user.overlay.note", b"y")


def link_files(top: Path) -> None:
    """New names of files that had one."""
    for name in ("small", "directory/file", "fifo"):
        (top / f"{name}-a").hardlink_to(top / name)
        (top / f"{name}-b").hardlink_to(top / f"{name}-a")
    (top / "moved").hardlink_to(top / "deep/er/other")
    (top / "deep/er/other").unlink()
    with opened_directory(top) as directory:
        fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640, dir_fd=directory)
        try:
            os.write(fd, b"without a name")
            os.link(f"/proc/self/fd/{fd}", "named", dst_dir_fd=directory)
        finally:
            os.close(fd)


def exchange(top: Path) -> None:
    """Two files, in one step."""
    call = ctypes.CDLL(None, use_errno=True).renameat2
    names = [os.fsencode(top / name) for name in ("small", "directory/below/file")]
    assert call(-100, names[0], -100, names[1], 2) == 0, os.strerror(ctypes.get_errno())


def change_the_root(top: Path) -> None:
    top.chmod(0o1711)
    os.chown(top, 3, 4)
    os.utime(top, ns=(0, 1_000_000_000_987_654_321))
    os.setxattr(top, "user.note", b"of the root")


def make_special_files(top: Path) -> None:
    os.mkfifo(top / "new-fifo", 0o600)
    os.mknod(top / "new-null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top / "new-disk", stat.S_IFBLK | 0o600, os.makedev(259, 200_001))
    for name in ("new-socket", "small"):
        with socket.socket(socket.AF_UNIX) as listener, opened_directory(top) as fd:
            if name == "small":
                (top / name).unlink()
            listener.bind(f"/proc/self/fd/{fd}/{name}")
    (top / "socket").unlink()
    with same_times(top / "symlink-to-directory"):
        os.chown(top / "symlink-to-directory", 7, 8, follow_symlinks=False)


def truncate_and_punch(top: Path) -> None:
    with (top / "large").open("r+b") as file:
        file.truncate(1000)
        file.truncate(2 << 20)
    with (top / "holes").open("r+b") as file:
        file.truncate((4 << 20) + 1)


def mix(top: Path) -> None:
    """One after the other."""
    scripts.edit(top)
    scripts.build(top)
    odd_names(top)
    replace_directories(top)
    make_special_files(top)
    change_the_root(top)


SCRIPTS: tuple[Script, ...] = (
    scripts.replace_kinds,
    scripts.edit,
    scripts.rename_files,
    scripts.build,
    scripts.change_special_files,
    scripts.change_and_look_at_times,
    scripts.make_in_setgid,
    scripts.write_sparse,
    change_nothing,
    rewrite_the_same,
    edit_without_a_trace,
    edit_in_the_same_second,
    replace_directories,
    delete_far_down,
    make_and_delete,
    odd_names,
    dig,
    set_attributes,
    link_files,
    exchange,
    change_the_root,
    make_special_files,
    truncate_and_punch,
    mix,
)


def by_name(script: Script) -> str:
    return script.__name__


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
def test_the_same_diff_under_every_driver(bench: Callable[[str], Bench], script: Script) -> None:
    """The same changes and the same bytes, from a changeset, and by comparing merged trees."""
    model = None
    for name in DRIVERS:
        one = bench(name)
        layer = one.rig.layer(script, below=one.base)
        found = one.changes(layer), one.packed(layer)
        model = model or found
        assert found[0] == model[0], f"other changes under {name}"
        assert found[1] == model[1], f"another diff under {name}: {_listed(found[1])}"
        assert one.packed(layer, merged=True) == model[1], f"the merged trees under {name}"


def _listed(data: bytes) -> str:
    listed = subprocess.run(["tar", "--full-time", "-tvf", "-"], input=data, capture_output=True)
    return listed.stdout.decode(errors="backslashreplace")[:4000]


def test_the_same_base_under_every_driver(bench: Callable[[str], Bench]) -> None:
    """Every kind of file, its root among them."""
    diffs = {bench(name).packed(bench(name).base, epoch=None) for name in DRIVERS}
    assert len(diffs) == 1
    with tarfile.open(fileobj=io.BytesIO(diffs.pop())) as tar:
        names = tar.getnames()
        records = tar.getmember("executable").pax_headers
    assert names[0] == "."
    assert {"directory/below/file", "fifo", "symlink", "null"} <= set(names)
    assert {"SCHILY.xattr.system.posix_acl_access", "SCHILY.xattr.security.capability"} <= set(
        records
    )
    assert "socket" not in names


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
def test_a_diff_makes_the_same_tree(one: Bench, script: Script) -> None:
    """Applied to the layer below, it shows what the layer shows, and packs to the same diff."""
    layer = one.rig.layer(script, below=one.base)
    data = one.packed(layer, epoch=None)
    again = one.unpacked(data, one.base)
    assert one.packed(again, epoch=None) == data
    if script is dig:
        return  # no path leads there
    # A name of a lower file that did not change is no entry, so links to it are not told.
    expected, found = (_without_sockets(one.rig.tree(each)) for each in (layer, again))
    assert not differences(expected, found, ignoring=("links",))


def _without_sockets(tree: Tree) -> Tree:
    return {path: node for path, node in tree.items() if node.kind != "socket"}


@pytest.mark.parametrize("script", [change_nothing, rewrite_the_same], ids=by_name)
def test_what_did_not_change_is_not_in_it(one: Bench, script: Script) -> None:
    """Though overlay copied all of it up."""
    layer = one.rig.layer(script, below=one.base)
    assert one.changes(layer) == []
    assert one.packed(layer) == NOTHING


def test_what_left_no_trace_is_found(one: Bench) -> None:
    """Edits with the old time of modification, and within one second."""
    layer = one.rig.layer(edit_without_a_trace, below=one.base)
    assert one.changes(layer) == ["C holes", "C large", "C small", "C unreadable"]
    layer = one.rig.layer(edit_in_the_same_second, below=one.base)
    data = one.packed(layer)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for number in range(20):
            file = tar.extractfile(f"directory/file-{number}")
            assert file is not None
            assert file.read() == b"two"


def test_one_difference_is_enough(one: Bench) -> None:
    """Each of these changes one thing, and no time of modification."""

    def script(top: Path) -> None:
        names = ("null", "disk", "dangling", "symlink-to-directory", "fifo", "small", "large")
        with same_times(top, *(top / name for name in names)):
            os.setxattr(top / "small", "user.comment", b"?")
            os.setxattr(top / "large", "user.new", b"")
            os.setxattr(top / "fifo", "trusted.note", b"")
            os.setxattr(top / "symlink-to-directory", "trusted.note", b"", follow_symlinks=False)
            os.setxattr(top / "sticky", "user.note", b"")
            (top / "closed").chmod(0o701)
            os.chown(top / "empty", 1, 0)
            os.chown(top / "unreadable", 0, 1)
            (top / "dangling").unlink()
            (top / "dangling").symlink_to("elsewhere")
            for name, device in (("null", (1, 5)), ("disk", (259, 7))):
                status = (top / name).stat()
                (top / name).unlink()
                os.mknod(top / name, status.st_mode, os.makedev(*device))
                (top / name).chmod(stat.S_IMODE(status.st_mode))

    layer = one.rig.layer(script, below=one.base)
    names = ["closed", "dangling", "disk", "empty", "fifo", "large", "null", "small", "sticky"]
    assert one.changes(layer) == [
        f"C {name}" for name in (*names, "symlink-to-directory", "unreadable")
    ]


def test_edits_of_the_same_tick(one: Bench) -> None:
    """A file changed right after the layer was made, again and again."""
    below = one.rig.layer(lambda path: (path / "file").write_bytes(b"0"), below=one.base)
    for number in range(1, 6):

        def write(path: Path, number: int = number) -> None:
            before = (path / "file").stat()
            (path / "file").write_bytes(b"%d" % (number % 10))
            os.utime(path / "file", ns=(before.st_atime_ns, before.st_mtime_ns))

        layer = one.rig.layer(write, below=below)
        assert one.changes(layer) == ["C file"]
        below = layer


def test_replaced_directories_have_a_whiteout_for_each_name(one: Bench) -> None:
    """None of the directory itself, none below one that is gone, no opaque one."""

    def script(top: Path) -> None:
        with same_times(top, top / "deep"):
            shutil.rmtree(top / "deep/er")
            (top / "deep/er/and").mkdir(parents=True)
            shutil.rmtree(top / "directory/below")
            os.utime(top / "directory", ns=(OLD, OLD))

    layer = one.rig.layer(script, below=one.base)
    expected = ["C deep", "C deep/er", "C deep/er/and", "D deep/er/and/deeper", "D deep/er/other"]
    assert one.changes(layer) == [*expected, "C directory", "D directory/below"]
    with tarfile.open(fileobj=io.BytesIO(one.packed(layer))) as tar:
        found = [(one.name, one.type, one.size, one.mode, one.mtime) for one in tar]
    assert ("deep/er/and/.wh.deeper", b"0", 0, 0, 0) in found
    assert [name for name, *_ in found] == [
        *("deep", "deep/er", "deep/er/and", "deep/er/and/.wh.deeper", "deep/er/.wh.other"),
        *("directory", "directory/.wh.below"),
    ]


def test_a_chain_of_layers(one: Bench) -> None:
    """The lower is all that lies below: deleted, made again, deleted again."""
    first = one.rig.layer(lambda path: shutil.rmtree(path / "deep"), below=one.base)
    second = one.rig.layer(lambda path: (path / "deep").mkdir(), below=first)
    third = one.rig.layer(lambda path: (path / "deep").rmdir(), below=second)
    assert [one.changes(layer)[1:] for layer in (first, second, third)] == [
        ["D deep"],
        ["A deep"],
        ["D deep"],
    ]


def test_links_that_lie_in_the_lower(one: Bench) -> None:
    """The exception of docs/canonical-diff.md: overlay changes one name, others change the file."""
    layer = one.rig.layer(lambda path: (path / "hard-link").write_bytes(b"new"), below=one.base)
    names = ["directory/below/hard-link-3", "directory/hard-link-2", "hard-link"]
    with tarfile.open(fileobj=io.BytesIO(one.packed(layer))) as tar:
        found = [(entry.name, entry.linkname) for entry in tar if not entry.isdir()]
    if one.rig.has(Capability.SHARED_LOWER_LINKS):
        assert found == [(names[0], ""), (names[1], names[0]), (names[2], names[0])]
    else:
        assert found == [("hard-link", "")]


def test_overlays_own_attributes_are_not_in_it(one: Bench) -> None:
    layer = one.rig.layer(set_what_overlay_uses, below=one.base)
    assert one.changes(layer) == []
    assert one.packed(layer) == NOTHING
    with one.opened(one.base) as views:
        assert b"overlay" not in b"".join(_pieces(views))


def _pieces(views: Views) -> list[bytes]:
    pieces: list[bytes] = []
    pack(*views, lambda data: pieces.append(bytes(data)))
    return pieces


def test_names_and_devices_that_no_layer_can_hold(one: Bench) -> None:
    """Each is named. Where the driver has none of them, making them fails."""

    def refused(layer: Layer, entry: bytes) -> None:
        with pytest.raises(UnrepresentableError) as caught:
            one.packed(layer)
        assert caught.value.entry == entry

    layer = one.rig.layer(lambda path: (path / "directory/.wh.x").touch(), below=one.base)
    assert "A directory/.wh.x" in one.changes(layer)
    refused(layer, b"directory/.wh.x")
    refused(one.rig.layer(lambda path: (path / "directory/.wh.x").unlink(), below=layer),
            b"directory/.wh.x")  # fmt: skip
    if one.rig.driver.changeset(layer.id) is None:

        def make(path: Path) -> None:
            os.mknod(path / "device", stat.S_IFCHR | 0o600, os.makedev(0, 0))

        refused(one.rig.layer(make, below=one.base), b"device")


def test_whiteouts_that_hide_nothing(bench: Callable[[str], Bench]) -> None:
    """Of names that no lower has, in directories that no lower has, in a root that is opaque."""
    one = bench("overlay2 on ext4")
    layer = one.rig.create(one.base)
    changeset = one.rig.driver.changeset(layer.id)
    assert changeset is not None
    top = changeset.path
    for name in ("nothing", "small", "new/ghost"):
        (top / name).parent.mkdir(exist_ok=True)
        os.mknod(top / name, stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(top, "trusted.overlay.opaque", b"y")  # the kernel ignores it on a root
    assert one.changes(layer)[1:] == ["A new", "D small"]


def test_reading_leaves_no_trace(one: Bench) -> None:
    """Times of access of the layers stay as they were."""

    def script(top: Path) -> None:
        edit_without_a_trace(top)
        os.utime(top / "large", ns=(1, OLD))  # so long ago that reading would change it

    layer = one.rig.layer(script, below=one.base)
    files = [*(one.rig.home / layer.id).rglob("large")]
    files += (one.rig.home / one.base.id).rglob("large")
    assert len(files) == 2
    before = [path.stat().st_atime_ns for path in files]
    assert before[0] == 1
    one.packed(layer)
    assert [path.stat().st_atime_ns for path in files] == before


# What is shared on the disk is not read


@pytest.fixture(params=["btrfs", "xfs"])
def reflinked(request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]) -> Path:
    """A directory with a file of 2 MiB and a reflink of it."""
    need("root", "mount")
    directory = on_filesystem(request.param)
    (directory / "one").write_bytes(os.urandom(2 << 20))
    reflink(directory, "one", "two")
    return directory


def reflink(directory: Path, source: str, target: str) -> None:
    with opened_directory(directory) as fd:
        copy.copy_entry(fd, source, fd, target)


def shared(directory: Path) -> bool:
    with (directory / "one").open("rb") as one, (directory / "two").open("rb") as two:
        size = os.fstat(one.fileno()).st_size
        return share_all_extents(one.fileno(), two.fileno(), size)


def test_a_reflink_is_the_same(reflinked: Path) -> None:
    assert shared(reflinked)
    (reflinked / "two").unlink()
    (reflinked / "two").write_bytes((reflinked / "one").read_bytes())
    assert not shared(reflinked)  # no proof, though the bytes are the same


@pytest.mark.parametrize("offset", [0, 1 << 20, (2 << 20) - 1])
@pytest.mark.parametrize("mapped", [False, True])
def test_an_edit_that_did_not_reach_the_disk(reflinked: Path, offset: int, mapped: bool) -> None:
    """One byte in the page cache."""
    with (reflinked / "two").open("r+b") as file:
        byte = bytes([os.pread(file.fileno(), 1, offset)[0] ^ 1])
        if mapped:
            with mmap.mmap(file.fileno(), 0) as memory:
                memory[offset : offset + 1] = byte
        else:
            os.pwrite(file.fileno(), byte, offset)
        assert not shared(reflinked)


def test_parts_of_a_file_in_another_order(reflinked: Path) -> None:
    """Shared blocks in the wrong place, and one block of two swapped, prove nothing."""
    half = 1 << 20
    path = reflinked / "two"
    path.unlink()
    with (reflinked / "one").open("rb") as source, path.open("wb") as target:
        for start in (half, 0):
            argument = struct.pack("=qQQQ", source.fileno(), start, half, half - start)
            ioctl(target.fileno(), 0x4020940D, bytearray(argument))  # FICLONERANGE
    assert path.stat().st_size == 2 << 20
    assert not shared(reflinked)


def test_a_compressed_file_is_read(on_filesystem: Callable[[str], Path]) -> None:
    """FIEMAP does not say which part of a compressed extent a file has."""
    need("root", "mount", "btrfs")
    directory = on_filesystem("btrfs")
    (directory / "one").touch()
    subprocess.run(
        ["btrfs", "property", "set", directory / "one", "compression", "zstd"], check=True
    )
    (directory / "one").write_bytes(b"content " * (1 << 17))
    os.sync()
    reflink(directory, "one", "two")
    assert not shared(directory)
