"""What the methods of a driver promise: ids, errors, idempotence, listings."""

from __future__ import annotations

import os
import threading
from functools import partial

from storagedrivers.driver import Capability, Mount, ProbeResult, Reason
from storagedrivers.errors import (
    AlreadyExistsError,
    DepthExceededError,
    DriverUnsupportedError,
    NotFoundError,
    UnsafePathError,
)
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.testing.rig import Layer, Rig, expect, expect_error, expect_same
from storagedrivers.testing.trees import read_tree

UNSAFE_IDS = ("", ".", "..", "../layer", "a/b", "/etc", "layer\0", "Layer", ".trash", "x" * 129)

MEGABYTE = 1 << 20


class InterfaceContracts:
    """Methods, errors, listings."""

    def test_probe_leaves_no_trace(self, rig: Rig) -> None:
        """A probe changes nothing below the graph root and leaves nothing mounted."""
        before, mounts = read_tree(rig.graph_root).keys(), read_mountinfo()
        result = type(rig.driver).probe(rig.facts, rig.home)
        expect(
            read_tree(rig.graph_root).keys() == before, "the probe left something in the graph root"
        )
        expect(read_mountinfo() == mounts, "the probe left something mounted")
        expect(result.supported, f"the driver does not work here: {result.message}")

    def test_probe_answers_in_full(self, rig: Rig) -> None:
        """A probe's answer has a sentence, and the reason is ok exactly when it is yes."""
        result = rig.result
        expect(isinstance(result, ProbeResult), "the probe gave no ProbeResult")
        expect(bool(result.message), "the probe gave no sentence")
        expect(result.supported == (result.reason is Reason.OK), "reason and answer disagree")

    def test_new_layer_is_empty(self, rig: Rig) -> None:
        """A new layer without lowers shows an empty directory, 0755 and owned by the user."""
        layer = rig.create()
        tree = rig.tree(layer)
        expect(tree.keys() == {b"."}, f"a new layer holds {sorted(tree)}")
        expect(tree[b"."].mode == 0o755, f"its root has mode {tree[b'.'].mode:o}")
        expect(
            (tree[b"."].uid, tree[b"."].gid) == (os.geteuid(), os.getegid()),
            "its root is another's",
        )

    def test_layers_lists_what_is_there(self, rig: Rig) -> None:
        """layers() names every layer on disk, and only those."""
        expect(list(rig.driver.layers()) == [], "an empty home has layers")
        layers = [rig.layer(), rig.layer()]
        found = sorted(rig.driver.layers())
        expect(found == sorted(one.id for one in layers), f"layers() gives {found}")

    def test_taken_id_is_refused(self, rig: Rig) -> None:
        """create() refuses an id that is taken and leaves that layer as it was."""
        layer = rig.layer(lambda path: (path / "file").write_bytes(b"kept"))
        before = rig.tree(layer)
        expect_error(
            AlreadyExistsError, lambda: rig.driver.create(layer.id, ()), "the id was taken"
        )
        expect_same(before, rig.tree(layer), "the layer that has the id changed")

    def test_missing_lower_is_refused(self, rig: Rig) -> None:
        """create() and mounts() refuse a lower that is not there, and create() leaves nothing."""
        absent = ("absent",)
        expect_error(
            NotFoundError, lambda: rig.driver.create("orphan", absent), "the lower is missing"
        )
        expect("orphan" not in rig.driver.layers(), "a layer without its lower was left")
        layer = rig.create()
        expect_error(
            NotFoundError,
            lambda: rig.driver.mounts(layer.id, absent, read_only=True),
            "the lower is missing",
        )

    def test_missing_layer_is_refused(self, rig: Rig) -> None:
        """mounts(), seal(), usage() and changeset() refuse a layer that is not there."""
        driver = rig.driver
        what = "the layer is missing"
        expect_error(NotFoundError, lambda: driver.mounts("absent", (), read_only=True), what)
        expect_error(NotFoundError, lambda: driver.mounts("absent", (), read_only=False), what)
        expect_error(NotFoundError, lambda: driver.seal("absent", ()), what)
        expect_error(NotFoundError, lambda: driver.usage("absent"), what)
        if rig.has(Capability.CHANGESET):
            expect_error(NotFoundError, lambda: driver.changeset("absent"), what)

    def test_unsafe_ids_are_refused(self, rig: Rig) -> None:
        """No method takes an id that could leave the home if it became a path."""
        driver = rig.driver
        for unsafe in UNSAFE_IDS:
            what = f"{unsafe!r} is no layer id"
            expect_error(UnsafePathError, partial(driver.create, unsafe, ()), what)
            expect_error(UnsafePathError, partial(driver.create, "fine", (unsafe,)), what)
            expect_error(
                UnsafePathError,
                partial(driver.mounts, unsafe, (), read_only=True),
                what,
            )
            expect_error(UnsafePathError, partial(driver.seal, unsafe, ()), what)
            expect_error(UnsafePathError, partial(driver.remove, unsafe), what)
            expect_error(UnsafePathError, partial(driver.usage, unsafe), what)

    def test_mounts_are_values(self, rig: Rig) -> None:
        """mounts() gives the same values each time, and changes nothing on disk or in the mount
        table.
        """
        layer = rig.create(rig.layer(lambda path: (path / "file").touch()))
        table, disk = read_mountinfo(), rig.on_disk()
        for read_only in (False, True):
            first = rig.driver.mounts(layer.id, layer.lowers, read_only=read_only)
            second = rig.driver.mounts(layer.id, layer.lowers, read_only=read_only)
            expect(first == second, "two calls gave different mounts")
            expect(
                first and all(isinstance(one, Mount) for one in first),
                "mounts() gave no Mount values",
            )
        expect(read_mountinfo() == table, "mounts() mounted something")
        expect(rig.on_disk() == disk, "mounts() changed the disk")

    def test_nothing_stays_mounted(self, rig: Rig) -> None:
        """Creating, seeing, sealing and removing layers leaves nothing mounted."""
        table = read_mountinfo()
        base = rig.layer()
        layer = rig.create(base)
        for read_only in (False, True):
            with rig.view(layer, read_only=read_only):
                pass
        rig.driver.seal(layer.id, layer.lowers)
        rig.driver.remove(layer.id)
        rig.driver.remove(base.id)
        more = {entry.mountpoint for entry in read_mountinfo()} - {
            entry.mountpoint for entry in table
        }
        expect(not more, f"still mounted: {sorted(more)}")

    def test_remove_leaves_nothing(self, rig: Rig) -> None:
        """A removed layer leaves no file behind, and its id is free."""
        keep = rig.layer(lambda path: (path / "file").write_bytes(b"base"))
        before = rig.on_disk()
        layer = rig.layer(lambda path: (path / "other").write_bytes(b"x"), below=keep)
        rig.driver.remove(layer.id)
        left = rig.on_disk() - before
        expect(not left, f"remove() left {sorted(left)[:5]}")
        expect(sorted(rig.driver.layers()) == [keep.id], "layers() still names it")
        rig.driver.create(layer.id, keep.chain)
        expect(
            b"other" not in rig.tree(layer), "the new layer of this id shows files of the old one"
        )

    def test_remove_is_idempotent(self, rig: Rig) -> None:
        """Removing a layer twice, or one that never was, is no error."""
        layer = rig.layer()
        rig.driver.remove(layer.id)
        rig.driver.remove(layer.id)
        rig.driver.remove("never-was")

    def test_unsealed_layer_can_be_removed(self, rig: Rig) -> None:
        """A layer can be removed without having been sealed, also when it was written to."""
        layer = rig.create(rig.layer(lambda path: (path / "file").touch()))
        with rig.view(layer, read_only=False) as path:
            (path / "file").unlink()
            (path / "new").write_bytes(b"x")
        rig.driver.remove(layer.id)
        expect(layer.id not in rig.driver.layers(), "it is still there")

    def test_usage_grows_with_content(self, rig: Rig) -> None:
        """usage() counts what the layer's own files take, each hard link once."""
        base = rig.layer(lambda path: (path / "base").write_bytes(os.urandom(MEGABYTE)))
        layer = rig.create(base)
        empty = rig.driver.usage(layer.id)
        with rig.view(layer, read_only=False) as path:
            (path / "own").write_bytes(os.urandom(2 * MEGABYTE))
            (path / "link").hardlink_to(path / "own")
        os.sync()  # delayed allocation: blocks are counted when they are written
        full = rig.driver.usage(layer.id)
        grown = full.bytes - empty.bytes
        expect(2 * MEGABYTE <= grown < 3 * MEGABYTE, f"2 MiB of files count as {grown} bytes")
        expect(
            full.inodes == empty.inodes + 1, f"one new inode counts as {full.inodes - empty.inodes}"
        )
        if rig.has(Capability.CHANGESET):
            expect(
                empty.bytes < MEGABYTE // 2, f"an empty layer above 1 MiB takes {empty.bytes} bytes"
            )

    def test_size_is_enforced_or_refused(self, rig: Rig) -> None:
        """A limit of size is enforced where that is declared, and refused elsewhere, leaving
        nothing.
        """
        if not rig.has(Capability.SIZE_LIMIT):
            expect_error(
                DriverUnsupportedError,
                lambda: rig.driver.create("limited", (), size=8 * MEGABYTE),
                "a limit was asked for that nothing enforces",
            )
            expect("limited" not in rig.driver.layers(), "a layer was left")
            return
        layer = Layer("limited")
        rig.driver.create(layer.id, (), size=8 * MEGABYTE)
        with rig.view(layer, read_only=False) as path:
            expect_error(OSError, lambda: _fill(str(path), 32 * MEGABYTE), "32 MiB fit into 8 MiB")

    def test_deep_chain(self, rig: Rig) -> None:
        """A chain of 127 layers, or of as many as the driver declares, shows the files of every
        layer.
        """
        depth = min(127, (rig.driver.max_lowers or 127) + 1)
        layer = rig.layer(lambda path: (path / "file000").touch())
        for number in range(1, depth):
            layer = rig.layer(lambda path: (path / f"file{number:03d}").touch(), below=layer)  # noqa: B023
        with rig.view(layer) as path:
            found = len(os.listdir(path))
        expect(found == depth, f"{found} of {depth} layers show")

    def test_too_deep_is_refused(self, rig: Rig) -> None:
        """More lowers than the driver declares are refused, before anything is made."""
        limit = rig.driver.max_lowers
        if limit is None:
            return
        base = rig.layer()
        lowers = (base.id,) * (limit + 1)
        expect_error(
            DepthExceededError,
            lambda: rig.driver.create("deep", lowers),
            f"{limit + 1} lowers were given",
        )
        expect("deep" not in rig.driver.layers(), "a layer was left")

    def test_many_at_once(self, rig: Rig) -> None:
        """Threads that create, seal and remove layers at once do not disturb each other."""
        base = rig.layer(lambda path: (path / "file").write_bytes(b"x" * 1000))
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(5):
                    layer = f"thread{number}-{turn}"
                    rig.driver.create(layer, base.chain)
                    rig.driver.seal(layer, base.chain)
                    rig.driver.remove(layer)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(not failures, f"a thread failed: {failures[:1]!r}")
        expect(list(rig.driver.layers()) == [base.id], "a thread's layer is left")

    def test_objects_share_a_home(self, rig: Rig) -> None:
        """What one driver object made, another with the same home uses."""
        layer = rig.layer(lambda path: (path / "file").write_bytes(b"seen"))
        other = type(rig.driver)(rig.home)
        expect(list(other.layers()) == [layer.id], "another object does not see the layer")
        expect(
            other.mounts(layer.id, (), read_only=True)
            == rig.driver.mounts(layer.id, (), read_only=True),
            "another object mounts it differently",
        )


def _fill(directory: str, size: int) -> None:
    with open(os.path.join(directory, "fill"), "wb") as file:
        for _ in range(size // MEGABYTE):
            file.write(os.urandom(MEGABYTE))
        file.flush()
        os.fsync(file.fileno())
