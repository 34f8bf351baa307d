"""A sealed layer never changes."""

from __future__ import annotations

import os
from functools import partial

from storagedrivers.driver import Capability
from storagedrivers.errors import InUseError, ReadOnlyError
from storagedrivers.linux import mount
from storagedrivers.testing.rig import Rig, expect, expect_error, expect_same
from storagedrivers.testing.trees import populate


class SealingContracts:
    """seal()."""

    def test_seal_keeps_content(self, rig: Rig) -> None:
        """Sealing changes nothing of what a layer shows."""
        for below in (None, rig.layer(populate)):
            layer = rig.create(below)
            with rig.view(layer, read_only=False) as path:
                (path / "new").write_bytes(b"new")
            before = rig.tree(layer)
            rig.driver.seal(layer.id, layer.lowers)
            expect_same(before, rig.tree(layer), "sealing changed the layer")

    def test_seal_is_idempotent(self, rig: Rig) -> None:
        """Sealing a sealed layer is no error and changes nothing."""
        layer = rig.layer(populate)
        before = rig.tree(layer)
        rig.driver.seal(layer.id, layer.lowers)
        expect_same(before, rig.tree(layer), "sealing again changed the layer")

    def test_sealed_layer_is_not_writable(self, rig: Rig) -> None:
        """A sealed layer cannot be mounted writable."""
        base = rig.layer(populate)
        for layer in (base, rig.layer(below=base)):
            expect_error(
                ReadOnlyError,
                partial(rig.driver.mounts, layer.id, layer.lowers, read_only=False),
                "writable mounts of a sealed layer were given",
            )

    def test_unsealed_layer_is_writable_again(self, rig: Rig) -> None:
        """A layer that was unmounted and not sealed can be mounted and written to again."""
        layer = rig.create(rig.layer(populate))
        for name in ("one", "two"):
            with rig.view(layer, read_only=False) as path:
                (path / name).touch()
        expect({b"one", b"two"} <= rig.tree(layer).keys(), "what was written is gone")

    def test_mounted_layer_is_not_sealed(self, rig: Rig) -> None:
        """A layer that is mounted writable is not sealed, unless sealing live is declared."""
        rig.needs_mounts()
        for below in (None, rig.layer(populate)):
            layer = rig.create(below)
            with rig.view(layer, read_only=False) as path:
                if rig.has(Capability.LIVE_SEAL):
                    rig.driver.seal(layer.id, layer.lowers)
                else:
                    expect_error(
                        InUseError,
                        partial(rig.driver.seal, layer.id, layer.lowers),
                        "a mounted layer was sealed",
                    )
                    (path / "still-writable").touch()

    def test_late_writers_change_nothing(self, rig: Rig) -> None:
        """What is still open after a lazy unmount is refused by seal(), or cannot change the sealed
        layer.
        """
        rig.needs_mounts()
        for below in (None, rig.layer(populate)):
            layer = rig.create(below)
            point = rig.graph_root / f"late-{layer.id}"
            point.mkdir()
            mounts = rig.driver.mounts(layer.id, layer.lowers, read_only=False)
            mount.mount_all(mounts, point)
            fd = os.open(point / "late", os.O_CREAT | os.O_RDWR, 0o644)
            try:
                os.write(fd, b"early")
                mount.unmount_all(mounts, point, detach=True)
                try:
                    rig.driver.seal(layer.id, layer.lowers)
                except InUseError:
                    continue
                os.pwrite(fd, b"WRITTEN AFTER THE SEAL", 0)
            finally:
                os.close(fd)
                point.rmdir()
            with rig.view(layer) as path:
                found = (path / "late").read_bytes()
            expect(found == b"early", f"the sealed layer shows {found!r}")

    def test_seal_after_the_last_writer_is_gone(self, rig: Rig) -> None:
        """A layer that was refused because it was in use can be sealed when it is not any more."""
        rig.needs_mounts()
        layer = rig.create(rig.layer(populate))
        with rig.view(layer, read_only=False) as path:
            (path / "file").write_bytes(b"x")
            if not rig.has(Capability.LIVE_SEAL):
                expect_error(
                    InUseError, lambda: rig.driver.seal(layer.id, layer.lowers), "it was sealed"
                )
        rig.driver.seal(layer.id, layer.lowers)
        expect(b"file" in rig.tree(layer), "its content is gone")
