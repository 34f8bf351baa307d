"""What is this driver's own, beyond the contracts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from storagedrivers.driver import Capability, HostFacts, Reason
from storagedrivers.errors import InUseError
from storagedrivers.host import read_host
from storagedrivers.linux import mount, namespace
from storagedrivers.testing import Layer, Rig

from storagedrivers_fuse_overlayfs import FuseOverlayfs

HOME = Path("/var/lib/storagedrivers/fuse-overlayfs")


def recorded(*, user_namespace: bool = False) -> HostFacts:
    return HostFacts(
        recorded=True, kernel="4.17.3", filesystems=("fuse",), user_namespace=user_namespace
    )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    if os.geteuid() or not shutil.which("fuse-overlayfs"):
        pytest.skip("this needs root and fuse-overlayfs")
    namespace.make_mounts_private()
    with Rig(FuseOverlayfs, tmp_path) as rig:
        yield rig


def write_links(top: Path) -> None:
    (top / "one").write_bytes(b"lower")
    (top / "two").hardlink_to(top / "one")


def servers(directory: Path) -> list[str]:
    """The processes that were started with *directory* among their words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(directory) in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_a_recorded_host_with_fuse_is_predicted() -> None:
    """Without a trial the answer is yes where the kernel has fuse, and says that it is one."""
    result = FuseOverlayfs.probe(recorded(), HOME)
    assert result.supported
    assert result.predicted
    assert result.capabilities == {Capability.CHEAP_FORK}


def test_an_old_kernel_mounts_no_fuse_in_a_user_namespace() -> None:
    """Linux 4.18 was the first."""
    result = FuseOverlayfs.probe(recorded(user_namespace=True), HOME)
    assert result.reason is Reason.KERNEL_TOO_OLD


def test_a_colon_in_the_path_is_refused() -> None:
    """The program would read it as two directories, and mount what happens to be there."""
    result = FuseOverlayfs.probe(recorded(), Path("/data:1/storagedrivers/fuse-overlayfs"))
    assert result.reason is Reason.UNSUITABLE_PATH
    assert result.remedy


def test_a_kernel_without_fuse_is_refused() -> None:
    """Nothing of fuse in the facts is a no, with what to do."""
    result = FuseOverlayfs.probe(HostFacts(recorded=True, kernel="6.1.0"), HOME)
    assert result.reason is Reason.NO_KERNEL_SUPPORT
    assert result.remedy


def test_a_missing_program_is_named(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host with fuse and without the program is told what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    result = FuseOverlayfs.probe(read_host(tmp_path), rig.home)
    assert result.reason is Reason.NO_PROGRAM
    assert "apt install" in result.remedy


def test_a_probe_leaves_no_server(rig: Rig) -> None:
    """The trial's server has ended when the probe answers."""
    assert FuseOverlayfs.probe(rig.facts, rig.home).supported
    assert not servers(rig.graph_root)


def test_a_sealed_layer_shows_the_same_in_any_order(rig: Rig) -> None:
    """Of a lower hard link that was written to, what a name shows does not depend on the order."""
    base = rig.layer(write_links)
    layer = rig.layer(lambda top: (top / "one").write_bytes(b"upper!"), below=base)
    above = rig.create(layer)
    found = []
    for order in (("one", "two"), ("two", "one")):
        with rig.view(above) as top:
            found.append({name: (top / name).read_bytes() for name in order})
    assert found[0] == found[1]
    # Which of the names kept the change is the program's choice.
    assert sorted(found[0].values()) == [b"lower", b"upper!"]


def test_seal_waits_for_the_server(rig: Rig) -> None:
    """Sealing right after the unmount succeeds, and then no server has the layer open."""
    base = rig.layer(lambda top: (top / "file").touch())
    for _ in range(20):
        layer = rig.layer(lambda top: (top / "file").write_bytes(b"x"), below=base)
        assert not servers(rig.driver.layer_path(layer.id))


def test_a_detached_mount_is_still_in_use(rig: Rig, tmp_path: Path) -> None:
    """After a lazy unmount with an open file the server lives on, and the layer is refused."""
    layer = rig.create(rig.layer(lambda top: (top / "file").touch()))
    mounts = rig.driver.mounts(layer.id, layer.lowers, read_only=False)
    point = tmp_path / "point"
    point.mkdir()
    mount.mount_all(mounts, point)
    with (point / "late").open("wb") as late:
        mount.unmount_all(mounts, point, detach=True)
        with pytest.raises(InUseError, match="still in use") as error:
            rig.driver.seal(layer.id, layer.lowers)
        late.write(b"written after the unmount")
    assert any("fuse-overlayfs" in str(holder) for holder in error.value.holders)
    rig.driver.seal(layer.id, layer.lowers)
    assert rig.tree(Layer(layer.id, layer.lowers))[b"late"].size == len(
        b"written after the unmount"
    )
