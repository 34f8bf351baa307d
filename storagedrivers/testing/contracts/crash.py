"""A driver that was killed at any step leaves nothing that its next call does not put right."""

from __future__ import annotations

from pathlib import Path

from storagedrivers.testing.rig import Layer, Rig, expect, expect_same


def _write(path: Path) -> None:
    (path / "directory/below").mkdir(parents=True)
    (path / "directory/below/file").write_bytes(b"content")
    (path / "file").write_bytes(b"content")
    (path / "link").symlink_to("file")


class CrashContracts:
    """Killed between any two changes to the disk."""

    def test_killed_create_can_be_removed(self, rig: Rig) -> None:
        """After create() was killed at any step, remove() leaves nothing and the id can be used
        again.
        """
        base = rig.layer(_write)
        before = rig.on_disk()
        layer = Layer("victim", base.chain)

        def put_right() -> None:
            rig.driver.remove(layer.id)
            left = rig.on_disk() - before
            expect(not left, f"remove() after a killed create() left {sorted(left)[:5]}")

        killed = rig.killed_at_every_step(
            lambda: rig.driver.create(layer.id, layer.lowers), put_right
        )
        expect(killed, "create() changes nothing on disk")
        expect_same(rig.tree(base), rig.tree(layer), "the layer made at last is not whole")

    def test_killed_remove_is_finished_by_the_next(self, rig: Rig) -> None:
        """After remove() was killed at any step, the next remove() leaves nothing."""
        base = rig.layer(_write)
        before = rig.on_disk()

        def make() -> Layer:
            layer = Layer("victim", base.chain)
            rig.driver.create(layer.id, layer.lowers)
            with rig.view(layer, read_only=False) as path:
                (path / "file").unlink()
                (path / "new/below").mkdir(parents=True)
                (path / "new/below/file").touch()
            return layer

        layer = make()

        def put_right() -> None:
            rig.driver.remove(layer.id)
            left = rig.on_disk() - before
            expect(not left, f"the next remove() left {sorted(left)[:5]}")
            expect(list(rig.driver.layers()) == [base.id], "layers() still names it")
            make()

        killed = rig.killed_at_every_step(lambda: rig.driver.remove(layer.id), put_right)
        expect(killed, "remove() changes nothing on disk")

    def test_killed_seal_can_be_repeated(self, rig: Rig) -> None:
        """After seal() was killed at any step, the layer shows the same and can be sealed again."""
        base = rig.layer(_write)
        count = 0
        layer = Layer("none")

        def make() -> None:
            nonlocal layer, count
            count += 1
            layer = Layer(f"victim{count}", base.chain)
            rig.driver.create(layer.id, layer.lowers)
            with rig.view(layer, read_only=False) as path:
                (path / "file").write_bytes(b"changed")

        def put_right() -> None:
            before = rig.tree(layer)
            rig.driver.seal(layer.id, layer.lowers)
            expect_same(before, rig.tree(layer), "a repeated seal() changed the layer")
            expect(before[b"file"].size == len(b"changed"), "a killed seal() lost a change")
            rig.driver.remove(layer.id)
            make()

        make()
        rig.killed_at_every_step(lambda: rig.driver.seal(layer.id, layer.lowers), put_right)
        expect(rig.tree(layer)[b"file"].size == len(b"changed"), "the sealed layer lost a change")
