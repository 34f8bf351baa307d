"""Images of a store of another owner, which is only read."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from stored import clean, release, tar

from storagedrivers.config import StorageConfig
from storagedrivers.errors import ConfigError, NotFoundError
from storagedrivers.linux import mount
from storagedrivers.model import Mount
from storagedrivers.storage import Storage

FILESYSTEM = {"overlay2": "ext4", "vfs-copy": "tmpfs", "btrfs-snapshot": "btrfs"}


class Pair:
    """A store with one image, and one that borrows of it."""

    def __init__(self, top: Path, run: Path, driver: str) -> None:
        self.top, self.run, self.driver = top, run, driver
        with Storage.open(root=top / "other", run_root=run / "other", driver=driver) as other:
            data = tar(etc_motd="hello\n", etc_other="x")
            self.image = other.images.import_(io.BytesIO(data), name="shared:1")
            release(other.run_root)

    def opened(self) -> Storage:
        return Storage.open(
            root=self.top / "own",
            run_root=self.run / "own",
            driver=self.driver,
            additional_stores=[self.top / "other", self.top / "nosuch"],
        )


@pytest.fixture(params=FILESYSTEM)
def pair(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path], tmp_path: Path
) -> Iterator[Pair]:
    need("root", "mount")
    top = on_filesystem(FILESYSTEM[request.param])
    pair = Pair(top, tmp_path, request.param)
    yield pair
    release(tmp_path / "own")


def contents(top: Path) -> dict[str, bytes]:
    """Every file of a store but the database's own, which readers may touch."""
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_file() and not path.name.startswith("storagedrivers.db")
    }


def test_an_image_of_the_other_store_is_used_and_that_store_stays(pair: Pair) -> None:
    """A container of it writes here, and nothing there changes."""
    before = contents(pair.top / "other")
    with pair.opened() as storage:
        image = storage.images.get("shared:1")
        assert (image.id, image.names) == (pair.image.id, pair.image.names)
        container = storage.containers.create("shared:1", name="box")
        with storage.containers.mounted("box") as path:
            assert (path / "etc/motd").read_text() == "hello\n"
            (path / "etc/motd").write_text("changed\n")
        assert [
            f"{one.kind} {os.fsdecode(one.path)}" for one in storage.containers.diff("box")
        ] == [
            "C etc",
            "C etc/motd",
        ]
        with storage.images.mounted("shared:1") as path:
            assert (path / "etc/motd").read_text() == "hello\n"
        assert [*storage.check(deep=True)] == []
        assert storage.gc(dry_run=True) == []
        out: list[bytes] = []
        (layer,) = storage.layers.image_layers(image.layer)
        assert (
            storage.layers.export(layer.id, lambda data: out.append(bytes(data))) == layer.diff_id
        )
        storage.containers.remove(container.id)
        storage.images.remove("shared:1")
        assert storage.layers.ls() == []
    assert contents(pair.top / "other") == before


def test_only_what_is_asked_for_is_borrowed(pair: Pair) -> None:
    with pair.opened() as storage:
        assert storage.images.ls() == []
        with pytest.raises(NotFoundError):
            storage.images.get("nosuch:1")
        assert storage.layers.ls() == []
        assert {image.names: size for image, size in storage.images.available().items()} == {
            pair.image.names: 7
        }
        clean(storage)


def test_a_read_only_filesystem_is_no_obstacle(pair: Pair) -> None:
    """As a share of another host is mounted."""
    other = os.fspath(pair.top / "other")
    mount.mount_all([Mount("bind", other, options=("bind", "ro"))], other)
    try:
        with pair.opened() as storage:
            storage.images.get("shared:1")
            with storage.images.mounted("shared:1") as path:
                assert (path / "etc/motd").read_text() == "hello\n"
            storage.images.remove("shared:1")
    finally:
        mount.unmount(other)


def test_the_setting_is_a_list_in_the_file_and_has_colons_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "storagedrivers.toml"
    file.write_text('additional_stores = ["beside", "/abs"]\n')
    config = StorageConfig.load(environment={}, file=str(file))
    assert config.additional_stores == (f"{tmp_path}/beside:/abs", str(file))
    variable = {"STORAGEDRIVERS_ADDITIONAL_STORES": "/a::/b"}
    config = StorageConfig.load(environment=variable, file=str(file))
    assert config.additional_stores.value == "/a:/b"
    file.write_text('additional_stores = "/abs"\n')
    with pytest.raises(ConfigError, match="must be a list"):
        StorageConfig.load(environment={}, file=str(file))
