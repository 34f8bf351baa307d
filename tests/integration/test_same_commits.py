"""One script gives one diff under every driver, and with SOURCE_DATE_EPOCH one committed DiffID."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import archives
from capabilities import need
from contained import base_image, clean, shown

from storagedrivers.storage import Storage

DRIVERS = {"overlay2": "ext4", "btrfs-snapshot": "btrfs", "vfs-copy": "xfs"}
EPOCH = 1_700_000_000
OLD = 1_600_000_000

BASE = archives.tar(
    *(archives.directory(b"d%d/" % one, mtime=OLD) for one in range(4)),
    *(
        archives.file(b"d%d/f%d" % (one, two), b"%d" % two, mtime=OLD)
        for one in range(4)
        for two in range(5)
    ),
    archives.directory(b"etc/", mtime=OLD),
    archives.symlink(b"link", b"d0/f0", mtime=OLD),
)


def script(root: Path) -> None:
    """Writes, deletes, renames, chmods and hard links."""
    (root / "d0/f0").write_text("changed")
    (root / "d0/f1").unlink()
    (root / "d0/f2").chmod(0o4711)
    os.chown(root / "d0/f3", 12, 34)
    (root / "d1/f0").rename(root / "d1/moved")
    (root / "new").mkdir()
    (root / "new/one").write_bytes(bytes(range(256)) * 100)
    os.link(root / "new/one", root / "new/two")
    os.link(root / "new/one", root / "d1/three")
    for name in ("f0", "f1", "f2", "f3", "f4"):
        (root / "d2" / name).unlink()
    (root / "d2").rmdir()
    (root / "d2").write_text("a file now")
    for name in os.listdir(root / "d3"):
        (root / "d3" / name).unlink()
    (root / "d3").rmdir()
    (root / "d3").mkdir()
    (root / "d3/other").write_text("anew")
    (root / "link").unlink()
    os.symlink("new/one", root / "link")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "new/two", "user.a", b"b")
    (root / "etc/hosts").write_text("own")
    (root / "etc/hostname").unlink()
    (root / ".dockerenv").unlink()
    (root / "dev/null").touch()


def more(root: Path) -> None:
    """What comes after a checkpoint."""
    (root / "new/two").unlink()
    (root / "d3/other").rename(root / "d3/again")
    (root / "d1/moved").write_text("once more")
    (root / "etc/hosts").unlink()
    (root / "d0/f1").write_text("back")


def committed(storage: Storage, *, mounted: bool) -> list[tuple[str, ...]]:
    """Diffs and DiffIDs at every stop."""
    base_image(storage, BASE)
    storage.containers.create("base", name="one")
    found: list[tuple[str, ...]] = []

    def commit() -> None:
        image = storage.containers.commit("one", source_date_epoch=EPOCH)
        config = storage.images.config(image)
        found.append(tuple(shown(storage.containers.diff("one"))))
        found.append(config.diff_ids)
        top = storage.layers.image_layers(image.layer)[-1]
        # What is exported later is what was hashed, whatever the time is then.
        assert storage.layers.export(top.id, lambda data: None) == config.diff_ids[-1]

    with storage.containers.mounted("one") as path:
        script(path)
        if mounted:
            commit()
    commit()
    storage.containers.fork("one", "two")
    with storage.containers.mounted("one") as path:
        more(path)
    storage.containers.checkpoint("one", "a")
    commit()
    found.append(tuple(shown(storage.containers.diff("two"))))
    return found


def test_every_driver_gives_the_same(on_filesystem: Callable[[str], Path]) -> None:
    need("mount", "overlay")
    results = {}
    with ExitStack() as stack:
        for driver, filesystem in DRIVERS.items():
            directory = on_filesystem(filesystem)
            storage = Storage.open(
                root=directory / "store", run_root=directory / "run", driver=driver
            )
            stack.callback(clean, storage)
            results[driver] = committed(storage, mounted=True)
    first = results["overlay2"]
    for driver, found in results.items():
        assert found == first, driver
    live, live_ids, rest, rest_ids, last, last_ids, fork = first
    assert live == rest == fork
    assert live_ids == rest_ids
    assert len(last_ids) == len(rest_ids) + 1
    assert last_ids[:-1] == rest_ids
    assert {"D /d0/f1", "C /d0/f2", "A /d1/moved", "D /d1/f0", "C /d2", "D /d3/f0"} <= set(live)
    assert not [one for one in live if one.endswith(("hostname", ".dockerenv"))]
    assert {"C /d0/f1", "A /d3/again", "C /etc"} <= set(last)
    assert not [one for one in last if one.endswith(("two", "hosts", "other"))]


def test_a_different_script_gives_another(on_filesystem: Callable[[str], Path]) -> None:
    """The test above would see a byte that is different."""
    need("mount", "overlay")
    ids = []
    for content in ("x", "y", "x"):
        directory = on_filesystem("ext4")
        storage = Storage.open(
            root=directory / "store", run_root=directory / "run", driver="overlay2"
        )
        base_image(storage, BASE)
        storage.containers.create("base", name="one")
        with storage.containers.mounted("one") as path:
            (path / "f").write_text(content)
        image = storage.containers.commit("one", source_date_epoch=EPOCH)
        ids.append(storage.images.config(image).diff_ids)
        clean(storage)
    assert ids[0] == ids[2] != ids[1]
