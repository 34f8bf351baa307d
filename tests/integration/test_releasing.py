"""Layers that nobody wants for their own sake live as long as something refers to them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from stored import DRIVERS, clean, digest, tar

from storagedrivers.errors import InUseError, NotFoundError
from storagedrivers.storage import Storage
from storagedrivers.stores.gc import Kind

_FILESYSTEM = {"overlay2": "ext4", "btrfs-snapshot": "btrfs", "vfs-copy": "tmpfs"}


@pytest.fixture(params=DRIVERS)
def storage(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path], tmp_path: Path
) -> Iterator[Storage]:
    need("root", "mount")
    root = on_filesystem(_FILESYSTEM[request.param]) / "root"
    store = Storage.open(root=root, run_root=tmp_path / "run", driver=request.param)
    yield store
    clean(store)


def chain(storage: Storage, length: int, *, held: bool = False) -> list[str]:
    """Layers above each other, the lowest first."""
    layers: list[str] = []
    for number in range(length):
        data = tar(**{f"file{number}": "x"})
        layers.append(
            storage.layers.add(io.BytesIO(data), parent=layers[-1] if layers else None).id
        )
    if not held:
        unhold(storage, *layers)
    return layers


def unhold(storage: Storage, *layers: str) -> None:
    """As an image has left them that died before it released them."""
    with storage.database.transaction() as connection:
        for layer in layers:
            connection.execute("UPDATE layers SET held = 0 WHERE id = ?", (layer,))


def there(storage: Storage) -> list[str]:
    return [layer.id for layer in storage.layers.ls()]


def test_releasing_the_top_takes_the_chain_along(storage: Storage) -> None:
    """All that nothing else needs, and their directories too."""
    layers = chain(storage, 3)
    assert storage.layers.release(layers[-1]) == layers[::-1]
    assert there(storage) == []


def test_what_is_shared_stays(storage: Storage) -> None:
    """Down to the first that something else lies on."""
    base, middle, top = chain(storage, 3)
    other = storage.layers.create(middle)
    assert storage.layers.release(top) == [top]
    storage.layers.remove(other.id)
    assert there(storage) == [], "the last user takes along what nobody wants"
    assert base != middle


def test_what_is_held_stays(storage: Storage) -> None:
    layers = chain(storage, 2, held=True)
    assert storage.layers.release(layers[-1]) == []
    assert there(storage) == layers


def test_a_layer_that_is_added_for_its_own_sake_is_held_from_then_on(storage: Storage) -> None:
    data = tar(one="1")
    with storage.layers.leased() as lease:
        first = storage.layers.add(io.BytesIO(data), held=False, lease=lease)
        assert not first.held
        again = storage.layers.add(io.BytesIO(data), diff_id=digest(data))
    assert (again.id, again.held) == (first.id, True)
    assert storage.layers.release(first.id) == []


def test_a_lease_keeps_layers(storage: Storage) -> None:
    with storage.layers.leased() as lease:
        layer = storage.layers.add(io.BytesIO(tar(one="1")), held=False, lease=lease)
        assert storage.layers.release(layer.id) == []
        with pytest.raises(InUseError, match="needed by an operation that is running"):
            storage.layers.remove(layer.id)
        assert storage.gc(dry_run=True) == []
    assert there(storage) == [], "what nothing refers to goes with the lease"
    with pytest.raises(NotFoundError), storage.layers.leased() as lease:
        lease.take(layer.id)


def test_the_lease_of_a_killed_process_ends_with_the_next_opening(storage: Storage) -> None:
    """And garbage collection finds what it had made."""
    program = (
        "import io, os, sys\n"
        "from storagedrivers.storage import Storage\n"
        "storage = Storage.open(root=sys.argv[1], run_root=sys.argv[2])\n"
        "lease = storage.layers.leased().__enter__()\n"
        "layer = storage.layers.add(io.BytesIO(sys.stdin.buffer.read()), held=False, lease=lease)\n"
        "storage.layers.add(io.BytesIO(bytes(1024)), parent=layer.id, held=False, lease=lease)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", program, os.fspath(storage.root), os.fspath(storage.run_root)]
    subprocess.run(command, input=tar(one="1"), check=False)
    assert len(there(storage)) == 2
    with Storage.open(root=storage.root, run_root=storage.run_root) as again:
        planned = again.gc(dry_run=True)
        assert [one.orphan.kind for one in planned] == [Kind.UNUSED, Kind.UNUSED]
        assert [finding.code for finding in again.check()] == ["orphan-unused", "orphan-unused"]
        assert [one.problem for one in again.gc()] == ["", ""]
        assert again.layers.ls() == []


def test_later_the_files_go_in_a_thread(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """For everyone the layer is gone at once, and closing waits."""
    layer = storage.layers.create(held=False)
    driver = storage.driver_for(layer.driver)
    removing, seen = driver.remove, threading.Event()

    def slowly(name: str) -> None:
        assert seen.wait(30)
        removing(name)

    monkeypatch.setattr(driver, "remove", slowly)
    assert storage.layers.release(layer.id, later=True) == [layer.id]
    assert there(storage) == []
    assert driver.layer_path(layer.id).exists()
    assert storage.gc(dry_run=True) == [], "someone is at it"
    threading.Timer(0.1, seen.set).start()
    storage.layers.close()
    assert not driver.layer_path(layer.id).exists()
    assert storage.database.rows("SELECT id FROM layers") == []


def test_a_mounted_layer_is_not_released(storage: Storage) -> None:
    base, top = chain(storage, 2)
    with storage.layers.mounted(top):
        with pytest.raises(InUseError):
            storage.layers.release(top)
    with storage.layers.mounted(base):
        assert storage.layers.release(top) == [top], "the one below is in use"
    assert there(storage) == [base]
    assert storage.layers.release(base) == [base]
