"""Layers that share a lower one do not see each other, and nothing changes what lies below."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from storagedrivers.testing import scripts
from storagedrivers.testing.rig import Rig, expect, expect_error, expect_same
from storagedrivers.testing.trees import populate


class IsolationContracts:
    """Who sees whose changes."""

    def test_parent_is_never_changed(self, rig: Rig) -> None:
        """Whatever a layer does, the one below shows what it showed before."""
        base = rig.layer(populate)
        before = rig.tree(base)
        for script in (scripts.edit, scripts.replace_kinds, scripts.rename_files, scripts.build):
            rig.layer(script, below=base)
            expect_same(before, rig.tree(base), f"the layer below changed by: {script.__doc__}")

    def test_parents_root_is_never_changed(self, rig: Rig) -> None:
        """Changing the root directory's mode, owner, times and attributes stays in the layer."""
        base = rig.layer(populate)
        before = rig.tree(base)

        def change(path: Path) -> None:
            path.chmod(0o700)
            os.utime(path, ns=(1, 1))
            with suppress(OSError):  # who may give nothing away, or a namespace without this id
                os.chown(path, 9, 9)

        layer = rig.layer(change, below=base)
        expect(rig.tree(layer)[b"."].mode == 0o700, "the layer lost its own root's mode")
        expect_same(before, rig.tree(base), "the layer below changed")

    def test_siblings_do_not_see_each_other(self, rig: Rig) -> None:
        """Two layers on one lower, mounted at once, each show their own changes only."""
        base = rig.layer(populate)
        one, two = rig.create(base), rig.create(base)
        with rig.view(one, read_only=False) as first, rig.view(two, read_only=False) as second:
            (first / "small").write_bytes(b"first")
            (second / "small").write_bytes(b"second")
            shutil.rmtree(first / "odd")
            (second / "odd/new").touch()
            expect(
                (first / "small").read_bytes() == b"first", "the second's write shows in the first"
            )
            expect((second / "odd/new").exists(), "the first's deletion shows in the second")
        tree = rig.tree(two)
        expect(
            b"odd/new" in tree and b"odd/.hidden" in tree,
            "the first's deletion shows in the second",
        )

    def test_removing_a_layer_leaves_its_siblings(self, rig: Rig) -> None:
        """Removing a layer changes neither the one below nor another one above that."""
        base = rig.layer(populate)
        keep = rig.layer(scripts.edit, below=base)
        gone = rig.layer(scripts.edit, below=base)
        below, beside = rig.tree(base), rig.tree(keep)
        rig.driver.remove(gone.id)
        expect_same(below, rig.tree(base), "the layer below changed")
        expect_same(beside, rig.tree(keep), "the layer beside changed")

    def test_read_only_views_refuse_writes(self, rig: Rig) -> None:
        """Nothing can be written through a read-only view, of a sealed layer or of one that is
        not.
        """
        rig.needs_mounts()
        base = rig.layer(populate)
        for layer in (base, rig.layer(scripts.edit, below=base), rig.create(base), rig.create()):
            with rig.view(layer) as path:
                error = expect_error(OSError, (path / "new").touch, "a file was made")
                expect(getattr(error, "errno", 0) == errno.EROFS, f"the error is {error}")

    def test_order_of_layers(self, rig: Rig) -> None:
        """Of several layers that have a name, the nearest one's is seen."""
        layer = rig.layer(lambda path: (path / "name").write_bytes(b"0"))
        for number in (b"1", b"2", b"3"):
            layer = rig.layer(lambda path: (path / "name").write_bytes(number), below=layer)  # noqa: B023
        top = rig.create(layer)
        with rig.view(top) as path:
            found = (path / "name").read_bytes()
        expect(found == b"3", f"layer {found!r} is seen")

    def test_empty_layers_between(self, rig: Rig) -> None:
        """A layer without changes shows what is below it, also through several such."""
        base = rig.layer(populate)
        top = base
        for _ in range(3):
            top = rig.layer(below=top)
        expect_same(rig.tree(base), rig.tree(top), "empty layers change what is seen")
