"""What is special to overlay2: options, marks on disk, links, seals, user namespaces."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from capabilities import need
from processes import child, forked, succeeded

from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.errors import (
    DepthExceededError,
    InUseError,
    NotFoundError,
    ReadOnlyError,
    StoreError,
)
from storagedrivers.linux import holders, mount, tree
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.model import Mount, WhiteoutFormat
from storagedrivers.testing import scripts
from storagedrivers.testing.trees import differences, populate, read_tree

FILESYSTEMS = ("ext4", "xfs", "btrfs", "tmpfs")
MODULE = Path("/sys/module/overlay/parameters")
SWITCHES = {"index": "off", "redirect_dir": "nofollow", "metacopy": "off"}

OnFilesystem = Callable[[str], Path]


@pytest.fixture
def driver(on_filesystem: OnFilesystem) -> Overlay2:
    """A driver on ext4."""
    need("root", "mount", "overlay")
    return Overlay2(on_filesystem("ext4") / "overlay2")


@pytest.fixture(params=FILESYSTEMS)
def everywhere(request: pytest.FixtureRequest, on_filesystem: OnFilesystem) -> Overlay2:
    """A driver on each filesystem."""
    need("root", "mount", "overlay")
    return Overlay2(on_filesystem(request.param) / "overlay2")


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """A mountpoint."""
    directory = tmp_path / "point"
    directory.mkdir()
    return directory


@pytest.fixture
def everything_on() -> Iterator[None]:
    """Overlay's module with the defaults of a distribution that switches its features on."""
    need("root", "overlay")
    before = {name: (MODULE / name).read_text() for name in SWITCHES if (MODULE / name).exists()}
    if not before or not all(os.access(MODULE / name, os.W_OK) for name in before):
        pytest.skip("the module's parameters cannot be written")
    try:
        for name in before:
            (MODULE / name).write_text("Y")
        yield
    finally:
        for name, value in before.items():
            (MODULE / name).write_text(value)


@contextmanager
def view(
    driver: Overlay2, point: Path, layer: str, lowers: Sequence[str], **how: bool
) -> Iterator[Path]:
    how.setdefault("read_only", False)
    with mount.mounted(driver.mounts(layer, lowers, **how), point):
        yield point


def diff_of(driver: Overlay2, layer: str) -> Path:
    return driver.changeset(layer).path


def make_base(driver: Overlay2, write: Callable[[Path], object], *, name: str = "base") -> str:
    driver.create(name, ())
    write(diff_of(driver, name))
    driver.seal(name, ())
    return name


def marks(top: Path) -> set[str]:
    """Overlay's attributes on anything in a directory, by their last word."""
    found = set()
    for path in (top, *top.rglob("*")):
        for name in os.listxattr(path, follow_symlinks=False):
            prefix, _, word = name.partition(".overlay.")
            if word and prefix in ("trusted", "user"):
                found.add(word)
    return found


# Options, whatever the module's defaults


def _shown(point: Path) -> tuple[str, ...]:
    (entry,) = [entry for entry in read_mountinfo() if entry.mountpoint == str(point)]
    assert entry.filesystem == "overlay"
    return entry.options


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
def test_every_overlay_says_its_options(driver: Overlay2, point: Path, read_only: bool) -> None:
    """What the module's defaults could change is said in each mount, and shows in mountinfo."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    for scratch in (False, True):
        (value,) = driver.mounts("top", (base,), read_only=read_only, scratch=scratch)
        assert {f"{name}={value}" for name, value in SWITCHES.items()} <= set(value.options)
    with view(driver, point, "top", (base,), read_only=read_only):
        assert "redirect_dir=nofollow" in _shown(point)  # others are not shown when default
        assert not {"index=on", "metacopy=on", "redirect_dir=on"} & set(_shown(point))


@pytest.mark.usefixtures("everything_on")
def test_options_win_over_the_modules_defaults(driver: Overlay2, point: Path) -> None:
    """Where the module would switch features on, mountinfo shows each of them off."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    for read_only in (False, True):
        with view(driver, point, "top", (base,), read_only=read_only):
            assert "redirect_dir=nofollow" in _shown(point)
            if (MODULE / "metacopy").exists():
                assert "metacopy=off" in _shown(point)
            # a mount without an upper has no index, whatever is asked for
            assert read_only or "index=off" in _shown(point)


def _churn(top: Path) -> None:
    """Renames, modes, owners and links by which overlay's features would leave marks."""
    (top / "large").rename(top / "renamed")
    (top / "executable").chmod(0o700)
    os.chown(top / "small", 11, 12)
    (top / "directory/linked-again").hardlink_to(top / "hard-link")
    (top / "hard-link").write_bytes(b"changed")
    (top / "own/below").mkdir(parents=True)
    (top / "own/below/file").write_bytes(b"own")
    (top / "own").rename(top / "own-renamed")
    with pytest.raises(OSError, match="cross-device") as caught:
        (top / "directory").rename(top / "directory-renamed")
    assert caught.value.errno == errno.EXDEV


@pytest.mark.usefixtures("everything_on")
def test_upper_is_a_whole_diff_whatever_the_module_says(everywhere: Overlay2, point: Path) -> None:
    """With index, redirects and metacopy as defaults a layer still means something by itself."""
    base = make_base(everywhere, populate)
    everywhere.create("top", (base,))
    with view(everywhere, point, "top", (base,)) as top:
        sizes = {name: (top / name).stat().st_size for name in ("large", "executable", "small")}
        _churn(top)
        before = read_tree(top)
    diff = diff_of(everywhere, "top")
    assert not marks(diff) & {"redirect", "metacopy", "nlink"}
    assert not (everywhere.layer_path("top") / "work/index").exists()
    assert (diff / "own-renamed/below/file").read_bytes() == b"own"
    lower = diff_of(everywhere, base)
    for name, new in (("large", "renamed"), ("executable", "executable"), ("small", "small")):
        assert (diff / new).stat().st_size == sizes[name]
        assert (diff / new).read_bytes() == (lower / name).read_bytes()
    everywhere.seal("top", (base,))
    everywhere.create("above", ("top", base))
    with view(everywhere, point, "above", ("top", base)) as top:
        assert differences(before, read_tree(top)) == []


# Hostile images


SECRET = b"of another directory"


def _shows_the_secret(top: Path) -> list[str]:
    """The paths outside of ``closed`` through which the secret can be read or listed."""
    found = []
    pending = [top]
    while pending:
        directory = pending.pop()
        with suppress(OSError):
            for entry in os.scandir(directory):
                path = Path(entry.path)
                if path == top / "closed":
                    continue
                if entry.name == "key":
                    found.append(entry.path)
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(path)
                    elif entry.is_file(follow_symlinks=False) and SECRET in path.read_bytes():
                        found.append(entry.path)
    return found


def _planted(top: Path) -> None:
    """What a hostile tar would make of an upper when nobody stripped it."""

    def mark(path: Path, **attributes: bytes) -> None:
        for name, value in attributes.items():
            os.setxattr(path, f"trusted.overlay.{name}", value)

    for name in ("evil", "new", "relative", "deep/below"):
        (top / name).mkdir(parents=True)
    mark(top / "evil", redirect=b"/closed")
    mark(top / "new", redirect=b"/closed")
    mark(top / "relative", redirect=b"closed")
    mark(top / "deep/below", redirect=b"/closed")
    for name, attributes in {
        "file": {"redirect": b"/closed/key", "metacopy": b""},
        "metacopy": {"metacopy": b""},
        "sized": {"redirect": b"/closed/key", "metacopy": b"\0\4\0\0"},
        "opaque": {"opaque": b"y"},
        "whiteout": {"whiteout": b"y"},
    }.items():
        (top / name).touch()
        mark(top / name, **attributes)
    os.truncate(top / "sized", len(SECRET))
    (top / "directory").mkdir()
    mark(top / "directory", metacopy=b"", opaque=b"x")
    mark(top, opaque=b"y", redirect=b"/closed", metacopy=b"")


@pytest.mark.parametrize("defaults", ["module's defaults", "everything on"])
def test_planted_marks_show_no_other_directory(
    defaults: str, everywhere: Overlay2, point: Path, request: pytest.FixtureRequest
) -> None:
    """Attributes that would redirect, in a layer that was unpacked without care, lead nowhere."""
    if defaults == "everything on":
        request.getfixturevalue("everything_on")

    def write(top: Path) -> None:
        (top / "closed").mkdir(0o700)
        (top / "closed/key").write_bytes(SECRET)
        (top / "evil").mkdir()
        (top / "evil/own").touch()
        (top / "directory").mkdir()
        (top / "directory/lower").touch()

    base = make_base(everywhere, write)
    everywhere.create("hostile", (base,))
    _planted(diff_of(everywhere, "hostile"))
    everywhere.seal("hostile", (base,))
    everywhere.create("top", ("hostile", base))
    for layer, lowers, read_only in (
        ("hostile", (base,), True),
        ("top", ("hostile", base), True),
        ("top", ("hostile", base), False),
    ):
        with view(everywhere, point, layer, lowers, read_only=read_only) as top:
            assert _shows_the_secret(top) == []
            assert (top / "closed/key").read_bytes() == SECRET  # what lies beside is as it was


def test_devices_0_0_of_a_base_layer_hide_nothing(everywhere: Overlay2, point: Path) -> None:
    """Whiteouts that an image plants where nothing lies below are no files, and can be replaced.

    The kernel lists such a name in a directory that only one layer has; nothing is there.
    """

    def write(top: Path) -> None:
        (top / "directory").mkdir()
        (top / "directory/kept").touch()
        for name in ("zero", "directory/zero"):
            os.mknod(top / name, 0o666 | stat.S_IFCHR, os.makedev(0, 0))

    base = make_base(everywhere, write)
    everywhere.create("top", (base,))
    with view(everywhere, point, "top", (base,)) as top:
        assert sorted(os.listdir(top)) == ["directory"]
        assert (top / "directory/kept").exists()
        assert not os.path.lexists(top / "directory/zero")
        (top / "zero").write_text("mine")
        (top / "directory/zero").mkdir()
    everywhere.seal("top", (base,))
    with view(everywhere, point, "top", (base,), read_only=True) as top:
        assert (top / "zero").read_text() == "mine"
        assert os.listdir(top / "directory/zero") == []


# Scratch layers


def test_scratch_is_volatile(everywhere: Overlay2, point: Path) -> None:
    """A layer whose writes need not survive is mounted with volatile; others are not."""
    base = make_base(everywhere, populate)
    everywhere.create("top", (base,))
    assert "volatile" not in everywhere.mounts("top", (base,), read_only=False)[0].options
    (value,) = everywhere.mounts("top", (base,), read_only=False, scratch=True)
    assert "volatile" in value.options
    with mount.mounted((value,), point):
        assert {"volatile", "fsync=volatile"} & set(_shown(point))
        with (point / "file").open("wb") as file:
            file.write(b"x")
            os.fsync(file.fileno())
    (read_only,) = everywhere.mounts("top", (base,), read_only=True, scratch=True)
    assert "volatile" not in read_only.options
    assert "volatile" not in everywhere.mounts(base, (), read_only=True, scratch=True)[0].options


def test_scratch_stays_scratch(everywhere: Overlay2, point: Path) -> None:
    """A layer that was mounted as scratch is mounted so again, and never as one that is safe."""
    base = make_base(everywhere, populate)
    everywhere.create("top", (base,))
    for name in ("one", "two", "three"):
        with view(everywhere, point, "top", (base,), scratch=True) as top:
            (top / name).touch()
        with pytest.raises(StoreError, match="scratch") as caught:
            everywhere.mounts("top", (base,), read_only=False)
        assert caught.value.resolution
    with view(everywhere, point, "top", (base,), read_only=True) as top:
        assert {"one", "two", "three"} <= set(os.listdir(top))


def test_asking_for_scratch_mounts_changes_nothing(driver: Overlay2, point: Path) -> None:
    """Who only asks how to mount a scratch layer does not make it pass for a safe one."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    with view(driver, point, "top", (base,), scratch=True):
        driver.mounts("top", (base,), read_only=False, scratch=True)
    driver.mounts("top", (base,), read_only=False, scratch=True)
    with pytest.raises(StoreError, match="scratch"):
        driver.mounts("top", (base,), read_only=False)


def test_scratch_layer_can_be_sealed(everywhere: Overlay2, point: Path) -> None:
    """A scratch layer that was unmounted is sealed like another, and nothing of the mark stays."""
    base = make_base(everywhere, populate)
    everywhere.create("top", (base,))
    with view(everywhere, point, "top", (base,), scratch=True) as top:
        (top / "new").write_text("new")
        with pytest.raises(InUseError):
            everywhere.seal("top", (base,))
    everywhere.seal("top", (base,))
    assert sorted(os.listdir(everywhere.layer_path("top"))) == ["diff"]
    with pytest.raises(ReadOnlyError):
        everywhere.mounts("top", (base,), read_only=False, scratch=True)
    everywhere.create("above", ("top", base))
    with view(everywhere, point, "above", ("top", base)) as top:
        assert (top / "new").read_text() == "new"


# Short links


def _links(driver: Overlay2) -> dict[str, str]:
    directory = driver.home / "l"
    return {name: os.readlink(directory / name) for name in os.listdir(directory)}


def test_link_is_relative_and_goes_with_its_layer(driver: Overlay2) -> None:
    """Each layer has one link, which no path of the host is part of, until it is removed."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    assert sorted(_links(driver).values()) == ["../base/diff", "../top/diff"]
    driver.remove("top")
    assert sorted(_links(driver).values()) == ["../base/diff"]
    driver.remove(base)
    assert _links(driver) == {}


@pytest.mark.parametrize("damage", ["lost", "dangling", "directory lost"])
def test_lost_link_is_made_again(damage: str, driver: Overlay2, point: Path) -> None:
    """mounts() puts right what a crash or a copy of the store without links left."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    before = _links(driver)
    if damage == "directory lost":
        shutil.rmtree(driver.home / "l")
    else:
        for name in before:
            (driver.home / "l" / name).unlink()
            if damage == "dangling":
                (driver.home / "l" / name).symlink_to("../gone/diff")
    with view(driver, point, "top", (base,), read_only=True) as top:
        assert "directory" in os.listdir(top)
    assert _links(driver) == before


def test_stray_link_is_replaced(driver: Overlay2, point: Path) -> None:
    """A link that leads to another layer does not put that one into the stack."""
    base = make_base(driver, lambda top: (top / "right").touch())
    (name,) = _links(driver)
    make_base(driver, lambda top: (top / "wrong").touch(), name="other")
    (driver.home / "l" / name).unlink()
    (driver.home / "l" / name).symlink_to("../other/diff")
    driver.create("top", (base,))
    with view(driver, point, "top", (base,)) as top:
        assert os.listdir(top) == ["right"]


def test_link_without_its_layer_is_no_layer(driver: Overlay2) -> None:
    """A link that outlived its layer does not make it exist."""
    base = make_base(driver, populate)
    shutil.rmtree(driver.layer_path(base))
    with pytest.raises(NotFoundError):
        driver.mounts("any", (base,), read_only=True)
    with pytest.raises(NotFoundError):
        driver.create("top", (base,))
    assert list(driver.layers()) == []
    driver.create(base, ())  # the stray link is not in the way
    driver.remove(base)
    assert _links(driver) == {}


# Depth


def test_500_directories_at_most(driver: Overlay2, point: Path) -> None:
    """As many lowers as the kernel stacks are mounted, the layer's own directory counted where it
    is one.
    """
    lowers: list[str] = []
    for number in range(501):
        layer = f"layer{number:03}"
        driver.create(layer, lowers[:1])
        (diff_of(driver, layer) / f"file{number:03}").touch()
        lowers.insert(0, layer)
    driver.create("top", lowers[:500])
    with view(driver, point, "top", lowers[:500]) as top:
        assert len(os.listdir(top)) == 500
        (top / "file500").unlink()
        (top / "own").touch()
    with view(driver, point, "top", lowers[:499], read_only=True) as top:
        assert len(os.listdir(top)) == 499  # one deleted, one made
    for refused in (
        lambda: driver.mounts("top", lowers[:500], read_only=True),
        lambda: driver.mounts("top", lowers, read_only=False),
        lambda: driver.create("deeper", lowers),
    ):
        with pytest.raises(DepthExceededError, match="500") as caught:
            refused()
        assert caught.value.resolution
    assert "deeper" not in driver.layers()


# Where the home is


HOMES = (
    "with space",
    "a,b",
    "a:b",
    "back\\slash",
    "\\:,\\",
    "no UTF-8 \udcff\udc80",
    "new\nline",
    "carriage\rreturn",
    "tab\t",
    "☃",
    "#hash",
    "%20\\040",
    "x" * 250,
)


@pytest.mark.parametrize("name", HOMES, ids=ascii)
def test_home_of_any_name(name: str, tmp_path: Path, point: Path) -> None:
    """Whatever the graph root is called: layers are seen, sealed, refused while used, removed."""
    need("root", "mount", "overlay")
    driver = Overlay2(tmp_path / name / "overlay2")
    base = make_base(driver, populate)
    driver.create("top", (base,))
    with view(driver, point, "top", (base,)) as top:
        before = read_tree(top)
        (top / "small").unlink()
        (top / "new").touch()
        with pytest.raises(InUseError):
            driver.seal("top", (base,))
    driver.seal("top", (base,))
    with view(driver, point, "top", (base,), read_only=True) as top:
        after = set(read_tree(top))
    assert after == set(before) - {b"small"} | {b"new"}
    driver.create("next-base", ())
    with view(driver, point, "next-base", ()) as top:
        (top / "file").touch()
        with pytest.raises(InUseError):
            driver.seal("next-base", ())
    driver.seal("next-base", ())
    for layer in list(driver.layers()):
        driver.remove(layer)
    assert sorted(os.listdir(driver.home)) == [".trash", "l"]


def test_layers_survive_a_move_of_the_graph_root(driver: Overlay2, point: Path) -> None:
    """A store that was moved shows what it showed, writable layers too."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    with view(driver, point, "top", (base,)) as top:
        scripts.edit(top)
        before = read_tree(top)
    moved = Overlay2(driver.home.parent / "moved" / "overlay2")
    moved.home.parent.mkdir()
    driver.home.rename(moved.home)
    with view(moved, point, "top", (base,)) as top:
        assert differences(before, read_tree(top)) == []
        (top / "after").touch()
    moved.seal("top", (base,))


# Who keeps a layer from being sealed


_MOUNT_IN_ANOTHER_NAMESPACE = """
import sys
from storagedrivers.linux import mount, namespace
from storagedrivers.model import Mount
namespace.make_mounts_private()
mount.mount(Mount("overlay", "overlay", options=tuple(sys.argv[2:])), sys.argv[1])
"""


def _mounted(value: Mount, point: Path, stack: ExitStack) -> int:
    stack.enter_context(mount.mounted((value,), point))
    return os.getpid()


def _in_another_namespace(value: Mount, point: Path, stack: ExitStack) -> int:
    return stack.enter_context(child(_MOUNT_IN_ANOTHER_NAMESPACE, point, *value.options))


def _file_after_lazy_unmount(value: Mount, point: Path, stack: ExitStack) -> int:
    mount.mount(value, point)
    stack.enter_context((point / "small").open("r+b"))
    mount.unmount(point, detach=True)
    return os.getpid()


def _directory_after_lazy_unmount(value: Mount, point: Path, stack: ExitStack) -> int:
    mount.mount(value, point)
    stack.callback(os.close, os.open(point / "directory", os.O_RDONLY))
    mount.unmount(point, detach=True)
    return os.getpid()


def _cwd_after_lazy_unmount(value: Mount, point: Path, stack: ExitStack) -> int:
    mount.mount(value, point)
    pid = stack.enter_context(child("import os, sys; os.chdir(sys.argv[1])", point))
    mount.unmount(point, detach=True)
    return pid


def _bind_left_over(value: Mount, point: Path, stack: ExitStack) -> int:
    other = point.with_name("other")
    other.mkdir()
    mount.mount(value, point)
    source = str(point / "directory")
    stack.enter_context(mount.mounted((Mount("bind", source),), other))
    mount.unmount(point)
    return os.getpid()


HOLDERS = (
    _mounted,
    _in_another_namespace,
    _file_after_lazy_unmount,
    _directory_after_lazy_unmount,
    _cwd_after_lazy_unmount,
    _bind_left_over,
)


@pytest.mark.parametrize("hold", HOLDERS, ids=lambda hold: hold.__name__.strip("_"))
def test_seal_is_refused_while_an_overlay_lives(
    hold: Callable[[Mount, Path, ExitStack], int], everywhere: Overlay2, point: Path
) -> None:
    """As long as anything anywhere could write through an overlay of the layer it is not sealed."""
    base = make_base(everywhere, populate)
    everywhere.create("top", (base,))
    (value,) = everywhere.mounts("top", (base,), read_only=False)
    with ExitStack() as stack:
        hold(value, point, stack)
        with pytest.raises(InUseError) as caught:
            everywhere.seal("top", (base,))
        assert caught.value.resolution
        everywhere.mounts("top", (base,), read_only=False)  # it is as it was
    everywhere.seal("top", (base,))
    assert sorted(os.listdir(everywhere.home)) == [".trash", "base", "l", "top"]


@pytest.mark.parametrize("hold", HOLDERS, ids=lambda hold: hold.__name__.strip("_"))
def test_refused_seal_names_who_uses_the_layer(
    hold: Callable[[Mount, Path, ExitStack], int], driver: Overlay2, point: Path
) -> None:
    """The process that has the overlay mounted, or something in it open, is told with its pid."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    (value,) = driver.mounts("top", (base,), read_only=False)
    with ExitStack() as stack:
        pid = hold(value, point, stack)
        with pytest.raises(InUseError) as caught:
            driver.seal("top", (base,))
    assert any(f"process {pid} " in str(line) for line in caught.value.holders), (
        caught.value.holders
    )


def test_seal_of_a_base_layer_is_refused_while_a_file_is_open(
    everywhere: Overlay2, point: Path
) -> None:
    """A file that is open for writing through a bind mount that was lazily unmounted counts."""
    everywhere.create("base", ())
    with view(everywhere, point, "base", ()) as top:
        populate(top)
    mounts = everywhere.mounts("base", (), read_only=False)
    mount.mount_all(mounts, point)
    with (point / "directory/below/file").open("r+b"):
        mount.unmount_all(mounts, point, detach=True)
        with pytest.raises(InUseError) as caught:
            everywhere.seal("base", ())
        assert any(f"process {os.getpid()} " in str(line) for line in caught.value.holders)
    everywhere.seal("base", ())
    assert holders.find_writers(diff_of(everywhere, "base")) == []


def test_seal_of_a_base_layer_ignores_who_mounts_it_as_a_lower(
    driver: Overlay2, point: Path
) -> None:
    """Containers above a layer do not write to it."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    with view(driver, point, "top", (base,)):
        driver.seal(base, ())


# Removal


def test_two_processes_remove_one_layer(everywhere: Overlay2) -> None:
    """Both succeed whoever comes first, and nothing is left, the first removal of a home too."""
    for turn in range(15):
        driver = Overlay2(everywhere.home / f"home{turn}")
        base = make_base(driver, populate)
        reader, writer = os.pipe()

        def action(
            driver: Overlay2 = driver, base: str = base, reader: int = reader, writer: int = writer
        ) -> None:
            os.close(writer)
            os.read(reader, 1)
            driver.remove(base)

        children = [forked(action) for _ in range(2)]
        os.close(reader)
        os.close(writer)  # the start
        assert [succeeded(pid) for pid in children] == [True, True]
        assert os.listdir(driver.home / ".trash") == []
        assert list(driver.layers()) == []


def test_removal_that_another_finishes_first_is_no_error(
    driver: Overlay2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that vanishes while its removal makes the trash directory is simply gone."""
    base = make_base(driver, populate)
    makedirs = os.makedirs

    def overtaken(*arguments: object, **how: object) -> None:
        monkeypatch.undo()
        Overlay2(driver.home).remove(base)
        makedirs(*arguments, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "makedirs", overtaken)
    driver.remove(base)
    assert list(driver.layers()) == []


@pytest.mark.parametrize("place", ["point", "a/b/point", "."])
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_removal_stops_at_a_foreign_mount(
    kind: str, place: str, everywhere: Overlay2, tmp_path: Path
) -> None:
    """What someone mounted inside of a layer's directory survives, and the next call finishes."""
    everywhere.create("layer", ())
    target = diff_of(everywhere, "layer") / place
    target.mkdir(parents=True, exist_ok=True)
    source = tmp_path / "source"
    source.mkdir()
    mount.mount(Mount(kind, str(source) if kind == "bind" else kind), target)
    (target / "deep").mkdir()
    (target / "deep/precious").write_text("kept")
    with pytest.raises(OSError, match=r"cross-device|busy"):
        everywhere.remove("layer")
    (entry,) = [one for one in read_mountinfo() if str(everywhere.home) in one.mountpoint]
    try:
        assert Path(entry.mountpoint, "deep/precious").read_text() == "kept"
    finally:
        mount.unmount(entry.mountpoint)
    everywhere.remove("layer")
    assert list(everywhere.layers()) == []
    assert os.listdir(everywhere.home / ".trash") == []


# User namespaces


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    """A directory that belongs to the user who is root in the namespace."""
    need("user-namespace", "overlay")
    directory = tmp_path / "owned"
    directory.mkdir()
    return directory


def in_user_namespace(code: str, *arguments: object) -> str:
    """Run Python code in a new user and mount namespace; gives what it printed."""
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_ROOTLESS = """
import os, stat, sys
from pathlib import Path
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.errors import ReadOnlyError
from storagedrivers.linux import mount
from storagedrivers.model import WhiteoutFormat

home, point = Path(sys.argv[1], "overlay2"), Path(sys.argv[1], "point")
point.mkdir()
driver = Overlay2(home)

def write(layer, lowers, action, **how):
    mounts = driver.mounts(layer, lowers, read_only=False, **how)
    assert not lowers or "userxattr" in mounts[0].options, mounts
    with mount.mounted(mounts, point):
        action()

def base():
    for name in ("kept", "gone", "replaced", "full/a", "full/b"):
        (point / name).mkdir(parents=True)
        (point / name / "file").write_text(name)
    (point / "plain").write_text("plain")

def change():
    (point / "plain").unlink()
    for name in ("gone", "replaced"):
        (point / name / "file").unlink()
        (point / name).rmdir()
    (point / "replaced").mkdir()
    (point / "kept/file").write_text("changed")
    (point / "new").write_text("new")

driver.create("base", ())
write("base", (), base)
driver.seal("base", ())
driver.create("top", ("base",))
write("top", ("base",), change, scratch=len(sys.argv) > 2)
driver.seal("top", ("base",))
try:
    driver.mounts("top", ("base",), read_only=False)
except ReadOnlyError:
    pass
else:
    raise AssertionError("it is not sealed")

changeset = driver.changeset("top")
assert changeset.whiteouts is WhiteoutFormat.OVERLAY_USER
for name in ("plain", "gone"):
    status = (changeset.path / name).lstat()
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0, name
assert os.getxattr(changeset.path / "replaced", "user.overlay.opaque") == b"y"

driver.create("child", ("top", "base"))
with mount.mounted(driver.mounts("child", ("top", "base"), read_only=False), point):
    assert sorted(os.listdir(point)) == ["full", "kept", "new", "replaced"]
    assert os.listdir(point / "replaced") == []
    assert (point / "kept/file").read_text() == "changed"
    (point / "replaced/again").touch()
with mount.mounted(driver.mounts("child", ("top", "base"), read_only=True), point):
    assert os.listdir(point / "replaced") == ["again"]
for layer in ("child", "top", "base"):
    driver.remove(layer)
assert sorted(os.listdir(home)) == [".trash", "l"]
"""


@pytest.mark.parametrize("scratch", [False, True], ids=["safe", "scratch"])
def test_whole_cycle_in_a_user_namespace(scratch: bool, owned: Path) -> None:
    """Without privilege on the host layers are made, changed, sealed, stacked and removed."""
    in_user_namespace(_ROOTLESS, owned, *(["scratch"] if scratch else []))


_ROOTLESS_SEAL = """
import os, sys
from pathlib import Path
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.errors import InUseError
from storagedrivers.linux import mount

driver, point = Overlay2(Path(sys.argv[1], "overlay2")), Path(sys.argv[1], "point")
point.mkdir()
driver.create("base", ())
driver.seal("base", ())
driver.create("top", ("base",))
mounts = driver.mounts("top", ("base",), read_only=False)
mount.mount_all(mounts, point)
kept = open(point / "file", "w")
if sys.argv[2] == "detached":
    mount.unmount(point, detach=True)
try:
    driver.seal("top", ("base",))
except InUseError as error:
    assert any(f"process {os.getpid()} " in str(line) for line in error.holders), error.holders
else:
    kept.write("after the seal")
    kept.flush()
    sys.exit(f"it was sealed, and holds {(driver.changeset('top').path / 'file').read_text()!r}")
"""


@pytest.mark.parametrize("how", ["mounted", "detached"])
def test_seal_in_a_user_namespace_is_refused_while_the_overlay_lives(how: str, owned: Path) -> None:
    """Where the kernel gives no verdict the mounts and the open files in /proc do."""
    in_user_namespace(_ROOTLESS_SEAL, owned, how)


_KIT = """
import json, sys
from pathlib import Path
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.testing import run_contracts
broken = {
    result.name: result.message
    for result in run_contracts(Overlay2, Path(sys.argv[1]))
    if result.outcome == "broken"
}
print(json.dumps(broken))
"""


def test_contracts_are_kept_in_a_user_namespace(owned: Path) -> None:
    """The kit finds nothing broken."""
    assert json.loads(in_user_namespace(_KIT, owned).splitlines()[-1]) == {}


_PLANTED_BY_A_USER = """
import os, sys
from pathlib import Path
from storagedrivers.drivers.overlay2 import Overlay2
from storagedrivers.linux import mount

driver, point = Overlay2(Path(sys.argv[1], "overlay2")), Path(sys.argv[1], "point")
point.mkdir()
driver.create("base", ())
base = driver.changeset("base").path
(base / "closed").mkdir()
(base / "closed/key").write_text("secret")
driver.seal("base", ())
driver.create("hostile", ("base",))
top = driver.changeset("hostile").path
(top / "evil").mkdir()
os.setxattr(top / "evil", "user.overlay.redirect", b"/closed")
(top / "file").touch()
os.setxattr(top / "file", "user.overlay.redirect", b"/closed/key")
os.setxattr(top / "file", "user.overlay.metacopy", b"")
driver.seal("hostile", ("base",))
with mount.mounted(driver.mounts("hostile", ("base",), read_only=True), point):
    for action in (lambda: os.listdir(point / "evil"), lambda: (point / "file").read_text()):
        try:
            found = action()
        except OSError:
            continue
        assert not found, found
"""


def test_planted_user_marks_show_no_other_directory(owned: Path) -> None:
    """With userxattr a redirect that an image carries leads nowhere either."""
    in_user_namespace(_PLANTED_BY_A_USER, owned)


def test_changeset_format_outside_of_a_user_namespace(driver: Overlay2) -> None:
    """The initial namespace keeps opaque directories by trusted attributes."""
    base = make_base(driver, populate)
    assert driver.changeset(base).whiteouts is WhiteoutFormat.OVERLAY


def test_work_directory_of_a_killed_seal_goes_with_the_next(driver: Overlay2, point: Path) -> None:
    """A seal that ended while it deleted the work directory is taken up again."""
    base = make_base(driver, populate)
    driver.create("top", (base,))
    with view(driver, point, "top", (base,)) as top:
        (top / "new").touch()
    fd = os.open(driver.layer_path("top") / "work", os.O_RDONLY)
    tree.remove_tree(fd, "work")  # the kernel's directory in it is gone, ours is still there
    os.close(fd)
    driver.seal("top", (base,))
    assert sorted(os.listdir(driver.layer_path("top"))) == ["diff"]
