"""What is taken for the cgroup of a container that has ended."""

from __future__ import annotations

import os
from pathlib import Path

from storagedrivers.runtime import cgroups


def test_only_cgroups(tmp_path: Path) -> None:
    """A directory that only looks like one is left alone, and so are the processes that it names:
    where no cgroup is mounted an engine may have made it.
    """
    for hierarchy in (tmp_path, tmp_path / "unified"):
        directory = hierarchy / "storagedrivers-x"
        directory.mkdir(parents=True)
        (directory / "cgroup.procs").write_text(f"{os.getpid()}\n")
    cgroups.remove("/storagedrivers-x", str(tmp_path))
    cgroups.remove("/storagedrivers-y", str(tmp_path / "missing"))
    assert (tmp_path / "storagedrivers-x/cgroup.procs").exists()
