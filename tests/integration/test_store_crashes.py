"""A store whose process is killed, whose disk is full or whose power fails, at every step."""

from __future__ import annotations

import io
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from crashes import (
    child_ending,
    killed,
    make_image,
    out_of_space,
    shut_down,
    through_every_step,
)
from processes import forked, succeeded
from stored import clean, digest, left_on_disk, release, tar

from storagedrivers.linux import ioctl
from storagedrivers.linux import mount as mounting
from storagedrivers.linux.loop import loop_device
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.model import Mount
from storagedrivers.storage import Storage
from storagedrivers.stores.check import check


class Place:
    """A store that is opened anew each time, as a process would."""

    def __init__(self, directory: Path, driver: str) -> None:
        self.root, self.run_root, self.driver = directory / "store", directory / "run", driver

    def open(self) -> Storage:
        return Storage.open(root=self.root, run_root=self.run_root, driver=self.driver)


@pytest.fixture
def place(request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]) -> Iterator[Place]:
    need("mount")
    driver = request.param
    filesystem = "btrfs" if driver == "btrfs-snapshot" else "tmpfs"
    place = Place(on_filesystem(filesystem), driver)
    yield place
    clean(place.open())


every_driver = pytest.mark.parametrize(
    "place", ["overlay2", "btrfs-snapshot", "vfs-copy"], indirect=True
)

BASE = tar(a="1", b_c="2")
ABOVE = tar(a="changed", **{".wh.b": ""})


def is_whole(storage: Storage) -> list[str]:
    """Every layer that is shown can be exported as what came in; gives their DiffIDs."""
    assert storage.warnings == ()
    assert [str(finding) for finding in check(storage.layers, deep=True)] == []
    assert storage.database.rows("SELECT id FROM layers WHERE state != 'ready'") == []
    found = []
    for layer in storage.layers.ls():
        if layer.diff_id is not None:
            found.append(storage.layers.export(layer.id, lambda data: None))
            assert layer.diff_id == found[-1]
    rows = {layer.id for layer in storage.layers.ls()}
    on_disk = set(storage.driver_for(storage.driver).layers())
    assert on_disk == rows
    assert {name.partition(".")[0] for name in os.listdir(storage.root / "tars")} <= rows
    assert os.listdir(storage.root / "locks") == []
    return found


@every_driver
@pytest.mark.parametrize("act", [killed, out_of_space])
def test_adding(place: Place, act: Callable[[], None]) -> None:
    """A layer is there as a whole, or not at all and nothing of it."""
    with place.open() as storage:
        base = storage.layers.add(io.BytesIO(BASE)).id

    def add() -> None:
        with place.open() as storage:
            storage.layers.add(io.BytesIO(ABOVE), parent=base)

    def look() -> None:
        with place.open() as storage:
            whole = is_whole(storage)
            assert whole in ([digest(BASE)], [digest(BASE), digest(ABOVE)])
            for layer in storage.layers.ls()[1:]:
                storage.layers.remove(layer.id)

    through_every_step(add, act, look, at_least=15)


@every_driver
@pytest.mark.parametrize("act", [killed, out_of_space])
def test_making_and_sealing(place: Place, act: Callable[[], None]) -> None:
    """A layer that is sealed shows what was written."""
    with place.open() as storage:
        base = storage.layers.add(io.BytesIO(BASE)).id

    def make() -> None:
        with place.open() as storage:
            storage.layers.seal(storage.layers.create(base).id)

    def look() -> None:
        with place.open() as storage:
            is_whole(storage)
            for layer in storage.layers.ls()[1:]:
                if layer.writable:
                    storage.layers.seal(layer.id)
                with storage.layers.mounted(layer.id) as path:
                    assert sorted(os.listdir(path)) == ["a", "b"]
                storage.layers.remove(layer.id)

    through_every_step(make, act, look, at_least=10)


@every_driver
@pytest.mark.parametrize("act", [killed, out_of_space])
def test_removing(place: Place, act: Callable[[], None]) -> None:
    """A layer is there as a whole, or is gone as soon as a store is opened."""

    def remove() -> None:
        with place.open() as storage:
            for layer in reversed(storage.layers.ls()):
                storage.layers.remove(layer.id)

    def look() -> None:
        with place.open() as storage:
            assert is_whole(storage) in ([], [digest(BASE)])
            if not storage.layers.ls():
                assert left_on_disk(storage) == []
            base = storage.layers.add(io.BytesIO(BASE)).id
            if not storage.layers.children(base):
                storage.layers.create(base)
            (layer,) = storage.layers.children(base)
            with storage.layers.mounted(layer, read_only=False) as path:
                (path / "written").touch()

    look()
    through_every_step(remove, act, look, at_least=6)


@every_driver
@pytest.mark.parametrize("act", [killed, out_of_space])
def test_mounting(place: Place, act: Callable[[], None]) -> None:
    """What is mounted is known, and what is known can be unmounted."""
    with place.open() as storage:
        base = storage.layers.add(io.BytesIO(BASE)).id
        layer = storage.layers.add(io.BytesIO(ABOVE), parent=base).id

    def mount() -> None:
        with place.open() as storage:
            storage.layers.mount(layer)
            storage.layers.unmount(layer)

    def look() -> None:
        with place.open() as storage:
            for record in storage.layers.mounts():
                for _ in range(record.times):
                    storage.layers.unmount(record.layer)
            with storage.layers.mounted(layer) as path:
                assert os.listdir(path) == ["a"]
            points = os.path.realpath(place.run_root / "mounts")
            mounted = [one.mountpoint for one in read_mountinfo()]
            assert [one for one in mounted if one.startswith(points + "/")] == []
            assert mounted.count(points) == 1
            assert os.listdir(points) == []
            is_whole(storage)

    through_every_step(mount, act, look, at_least=8)
    release(place.run_root)


@every_driver
def test_a_killed_opening_makes_no_half_store(place: Place) -> None:
    for number in range(1, 1000):
        directory = place.root.parent / f"{number}"
        directory.mkdir()
        other = Place(directory, place.driver)
        code = child_ending(number, lambda other=other: other.open().close(), killed)
        with other.open() as storage:
            assert storage.driver == place.driver
            assert is_whole(storage) == []
        if code == 3:
            break
    assert number > 5


def test_a_process_that_works_is_not_taken_for_dead(
    on_filesystem: Callable[[str], Path],
) -> None:
    """Whoever opens the store while another adds leaves it alone."""
    place = Place(on_filesystem("tmpfs"), "vfs-copy")
    place.open().close()
    there, back = os.pipe()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            os.write(back, b"x")
            while os.path.exists(place.root / "go") is False:
                os.sched_yield()
            return super().read(size)

    def add() -> None:
        with place.open() as storage:
            storage.layers.add(Slow(BASE))

    pid = forked(add)
    os.read(there, 1)
    with place.open() as storage:
        assert storage.layers.ls() == []
        assert len(storage.database.rows("SELECT id FROM layers")) == 1
        (place.root / "go").touch()
        assert succeeded(pid)
        assert is_whole(storage) == [digest(BASE)]
    os.close(there)
    os.close(back)


# Power


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
@pytest.mark.parametrize("driver", ["overlay2", "vfs-copy"])
def test_a_power_loss(tmp_path: Path, filesystem: str, driver: str) -> None:
    """What add() returned is on the disk; what was on its way is finished or gone."""
    image = tmp_path / "image"
    make_image(filesystem, image)
    mountpoint = tmp_path / "mountpoint"
    mountpoint.mkdir()
    data = [tar(**{f"d{number}_f{one}": "x" * 3000 for one in range(200)}) for number in range(3)]
    with loop_device(image) as device:
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            with Storage.open(
                root=mountpoint / "s", run_root=tmp_path / "run", driver=driver
            ) as storage:
                base = storage.layers.add(io.BytesIO(data[0]))
                storage.layers.add(io.BytesIO(data[1]), parent=base.id)
                half = storage.layers.create(base.id)
                storage.layers.add(io.BytesIO(data[2]), durability="none")
                with storage.database.transaction() as connection:
                    connection.execute(
                        "UPDATE layers SET state = 'removing' WHERE id = ?", (half.id,)
                    )
                shut_down(mountpoint)
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            with Storage.open(
                root=mountpoint / "s", run_root=tmp_path / "run", driver=driver
            ) as storage:
                assert storage.warnings == ()
                first, second, fast = storage.layers.ls()
                assert (first.durable, second.durable, fast.durable) == (True, True, False)
                for layer, expected in ((first, data[0]), (second, data[1])):
                    out = io.BytesIO()
                    storage.layers.export(layer.id, out.write)
                    assert out.getvalue() == expected
                assert half.id not in set(storage.driver_for(driver).layers())


def work(place: Place, report: int) -> None:
    """Adds and removes until it is stopped, and says so: after an addition, before a removal."""
    with place.open() as storage:
        for number in range(10_000):
            base = storage.layers.add(io.BytesIO(content(number))).id
            os.write(report, f"+{base}\n".encode())
            above = storage.layers.add(io.BytesIO(content(-number)), parent=base).id
            os.write(report, f"+{above}\n".encode())
            if number % 2:
                os.write(report, f"-{above}\n".encode())
                storage.layers.remove(above)


def content(number: int) -> bytes:
    return tar(**{f"d{number}_f{one}": f"{number}" * 999 for one in range(30)})


def _read_now(report: int) -> bytes:
    """What was written since."""
    try:
        return os.read(report, 1 << 20)
    except BlockingIOError:
        return b""


def read_all(report: int) -> str:
    words = b""
    while data := os.read(report, 1 << 16):
        words += data
    return words.decode()


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
@pytest.mark.parametrize("how", ["shutdown", "reflink"])
def test_the_power_goes_at_any_moment(
    on_filesystem: Callable[[str], Path], tmp_path: Path, filesystem: str, how: str
) -> None:
    """A copy of the disk by reflink is of one point in time, while the writer runs on."""
    directory = on_filesystem("xfs")
    image, copy, mountpoint = directory / "image", directory / "copy", tmp_path / "mountpoint"
    make_image(filesystem, image)
    mountpoint.mkdir()
    place = Place(mountpoint, "overlay2")
    place.run_root = tmp_path / "run"
    report, write = os.pipe()
    with loop_device(image) as device:
        with mounting.mounted([Mount(filesystem, device)], mountpoint):
            place.open().close()
            pid = forked(lambda: work(place, write))
            os.close(write)
            first = os.read(report, 1 << 16)  # however long that takes here
            time.sleep(random.random() / 2)
            os.set_blocking(report, False)
            before = (first + _read_now(report)).decode()
            if how == "shutdown":
                shut_down(mountpoint)
            else:
                copy.touch()
                with image.open("rb") as source, copy.open("r+b") as target:
                    ioctl.clone_file(source.fileno(), target.fileno())
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.set_blocking(report, True)
            after = read_all(report)
            os.close(report)
        if how == "shutdown":
            look_at(place, filesystem, device, before, after)
    if how == "reflink":
        with loop_device(copy) as device:
            look_at(place, filesystem, device, before, after)
        copy.unlink()
    image.unlink()


def look_at(place: Place, filesystem: str, device: str, before: str, after: str) -> None:
    """What was added before, and was not being removed, is there; all that is there is whole."""
    removed = {line[1:] for line in (before + after).splitlines() if line[0] == "-"}
    added = {line[1:] for line in before.splitlines() if line[0] == "+"}
    assert added
    with mounting.mounted([Mount(filesystem, device)], place.root.parent):
        with place.open() as storage:
            is_whole(storage)
            assert added - removed <= {layer.id for layer in storage.layers.ls()}
