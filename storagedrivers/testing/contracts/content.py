"""What a layer keeps: every kind of file, every change to what lies below."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from storagedrivers.driver import Capability
from storagedrivers.linux import ioctl
from storagedrivers.linux import tree as linux_tree
from storagedrivers.testing import changesets, scripts
from storagedrivers.testing.rig import Rig, expect, expect_same
from storagedrivers.testing.trees import can_make_devices, populate, read_tree


class ContentContracts:
    """Fidelity."""

    def test_every_kind_of_file_survives(self, rig: Rig) -> None:
        """A layer shows after sealing what was written to it: contents, owners, modes, times,
        links, attributes.
        """
        written = {}

        def write(path: Path) -> None:
            populate(path)
            written.update(read_tree(path))

        layer = rig.layer(write)
        expect_same(written, rig.tree(layer), "a sealed layer differs from what was written")

    def test_child_starts_as_its_parent(self, rig: Rig) -> None:
        """A new layer shows exactly what lies below it, the root directory's own metadata
        included.
        """

        def write(path: Path) -> None:
            populate(path)
            path.chmod(0o1750)
            with suppress(OSError):  # who may give nothing away, or a namespace without this id
                os.chown(path, 0, 7)
            os.utime(path, ns=(0, 1_111_111_111_222_222_222))

        parent = rig.layer(write)
        child = rig.create(parent)
        expect_same(rig.tree(parent), rig.tree(child), "a new layer differs from the one below")

    def test_content_passes_through_layers(self, rig: Rig) -> None:
        """What the lowest of four layers holds is seen in the top one, byte for byte."""
        base = rig.layer(populate)
        top = base
        for name in ("one", "two", "three"):
            top = rig.layer(lambda path: (path / name).write_text(name), below=top)  # noqa: B023
        expected, found = dict(rig.tree(base)), dict(rig.tree(top))
        for added in (b"one", b"two", b"three"):
            expect(added in found, f"{added!r} is missing")
            del found[added]
        del expected[b"."], found[b"."]  # its time changed with each new name
        expect_same(expected, found, "the lowest layer's files changed on the way up")

    def test_holes_stay_holes(self, rig: Rig) -> None:
        """A sparse file of a lower layer takes no more than its data, where the filesystem has
        holes.
        """
        base = rig.layer(scripts.write_sparse)
        child = rig.create(base)
        with rig.view(base) as path:
            before = (path / "sparse").stat().st_blocks
        with rig.view(child, read_only=False) as path:
            (path / "sparse").chmod(0o600)  # a change, so that a driver that copies on write copies
            after = (path / "sparse").stat().st_blocks
            expect((path / "sparse").stat().st_size == 64 << 20, "its size changed")
        # One copied megabyte around the data is a filesystem's own affair.
        expect(after <= before + 4096, f"{before} blocks became {after}")

    def test_deletions(self, rig: Rig) -> None:
        """What a layer deletes is gone in it and above it, and still there below."""
        base = rig.layer(populate)

        def delete(path: Path) -> None:
            (path / "small").unlink()
            (path / "symlink").unlink()
            (path / "fifo").unlink()
            (path / "directory/file").unlink()
            shutil.rmtree(path / "odd")

        layer = rig.layer(delete, below=base)
        above = rig.create(layer)
        for one in (layer, above):
            found = rig.tree(one)
            for gone in (b"small", b"symlink", b"fifo", b"directory/file", b"odd"):
                expect(gone not in found, f"{gone!r} is back")
            expect(b"directory/below/file" in found, "its neighbour is gone too")
        expect(b"odd" in rig.tree(base), "it is gone below")

    def test_deleted_directory_comes_back_empty(self, rig: Rig) -> None:
        """A directory that was deleted and made again shows nothing of the lower one."""
        base = rig.layer(populate)

        def replace(path: Path) -> None:
            shutil.rmtree(path / "directory")
            (path / "directory").mkdir()
            (path / "directory/new").touch()

        layer = rig.layer(replace, below=base)
        above = rig.create(layer)
        for one in (layer, above):
            found = sorted(path for path in rig.tree(one) if path.startswith(b"directory/"))
            expect(found == [b"directory/new"], f"the directory shows {found}")

    def test_kinds_replace_each_other(self, rig: Rig) -> None:
        """A file replaces a directory, a directory a file, and a symlink either."""
        rig.acts_like_a_plain_directory(scripts.replace_kinds)

    def test_edits(self, rig: Rig) -> None:
        """Writing, appending, truncating, and changes of mode, owner, times and attributes act as
        on a plain tree.
        """
        rig.acts_like_a_plain_directory(scripts.edit)

    def test_renames(self, rig: Rig) -> None:
        """Files of a lower layer can be renamed, over each other and between directories."""
        rig.acts_like_a_plain_directory(scripts.rename_files)

    def test_new_trees(self, rig: Rig) -> None:
        """New trees, links between new files, and renames of new directories act as on a plain
        tree.
        """
        rig.acts_like_a_plain_directory(scripts.build)

    def test_special_files(self, rig: Rig) -> None:
        """Fifos, sockets and devices of a lower layer can be changed, renamed and deleted."""
        rig.acts_like_a_plain_directory(scripts.change_special_files)

    def test_times_of_what_is_not_changed(self, rig: Rig) -> None:
        """Changing a file leaves the times of directories above it, a rename those of the file."""
        rig.acts_like_a_plain_directory(scripts.change_and_look_at_times)

    def test_setgid_directories(self, rig: Rig) -> None:
        """A lower directory passes its group on to what is made in it, and keeps setgid."""
        rig.acts_like_a_plain_directory(scripts.make_in_setgid)

    def test_lower_directories_rename_as_declared(self, rig: Rig) -> None:
        """Renaming a directory of a lower layer works where declared, and is EXDEV elsewhere."""
        base = rig.layer(populate)
        layer = rig.create(base)
        with rig.view(layer, read_only=False) as path:
            try:
                (path / "directory").rename(path / "renamed")
            except OSError as error:
                expect(error.errno == errno.EXDEV, f"rename failed with {error}")
                expect(
                    not rig.has(Capability.RENAME_LOWER_DIRECTORY), "it is declared and gives EXDEV"
                )
                return
        expect(rig.has(Capability.RENAME_LOWER_DIRECTORY), "it works and is not declared")
        found = rig.tree(layer)
        expect(b"renamed/below/file" in found, "the directory's content did not come along")
        expect(b"directory" not in found, "the old name is still there")

    def test_lower_hard_links_act_as_declared(self, rig: Rig) -> None:
        """Writing to one name of a lower hard link shows in the others exactly where declared."""
        base = rig.layer(populate)
        layer = rig.create(base)
        with rig.view(layer, read_only=False) as path:
            (path / "hard-link").write_bytes(b"changed")
            other = (path / "directory/hard-link-2").read_bytes()
        shared = other == b"changed"
        expect(
            shared == rig.has(Capability.SHARED_LOWER_LINKS),
            f"the other name {'changed' if shared else 'stayed'}, and it is declared otherwise",
        )

    def test_changeset_is_the_diff(self, rig: Rig) -> None:
        """The changeset directory, laid over what is below, gives what the layer shows."""
        base = rig.layer(populate)

        def change(path: Path) -> None:
            scripts.replace_kinds(path)
            scripts.build(path)
            (path / "executable").unlink()
            (path / "sticky").chmod(0o700)

        layer = rig.layer(change, below=base)
        changeset = rig.driver.changeset(layer.id)
        if not rig.has(Capability.CHANGESET):
            expect(changeset is None, "there is a changeset, and it is not declared")
            return
        expect(changeset is not None, "a changeset is declared, and there is none")
        assert changeset is not None
        laid = changesets.lay_over(rig.tree(base), changeset)
        expect_same(laid, rig.tree(layer), "the changeset does not say what the layer shows")

    def test_deep_trees(self, rig: Rig) -> None:
        """Trees deeper than PATH_MAX are kept and removed."""
        layer = rig.layer(lambda path: scripts.dig(path, 40, "d" * 200))
        child = rig.create(layer)
        with rig.view(child) as path:
            usage = linux_tree.measure_tree(path)
        expect(usage.inodes >= 41, f"{usage.inodes} of 41 directories are there")
        rig.driver.remove(child.id)
        rig.driver.remove(layer.id)
        expect(not list(rig.driver.layers()), "they could not be removed")

    def test_overlays_own_names_mean_nothing(self, rig: Rig) -> None:
        """Attributes and devices by which overlay marks things, made in a container, hide nothing
        above.
        """
        base = rig.layer(populate)

        def mark(path: Path) -> None:
            (path / "directory").chmod(0o755)
            for key, value in (("opaque", b"y"), ("redirect", b"/closed"), ("metacopy", b"")):
                for namespace in ("trusted", "user"):
                    with suppress(OSError):  # the filesystem or the driver may refuse
                        os.setxattr(path / "directory", f"{namespace}.overlay.{key}", value)
            if can_make_devices():
                with suppress(OSError):
                    os.mknod(path / "directory/zero", 0o20666, os.makedev(0, 0))

        layer = rig.layer(mark, below=base)
        above = rig.create(layer)
        found = rig.tree(above)
        for name in (b"directory/file", b"directory/below/file"):
            expect(name in found, f"{name!r} is hidden")

    def test_protected_files_can_be_removed(self, rig: Rig) -> None:
        """Immutable and unreadable files do not stop a removal."""

        def write(path: Path) -> None:
            (path / "closed").mkdir()
            (path / "closed/file").touch()
            (path / "closed").chmod(0)
            (path / "immutable").touch()
            with (
                (path / "immutable").open("rb") as file,
                suppress(OSError),
            ):  # not on every filesystem
                ioctl.protect(file.fileno())

        layer = rig.layer(write)
        rig.driver.remove(layer.id)
        expect(not rig.on_disk(), f"left are {sorted(rig.on_disk())[:5]}")
