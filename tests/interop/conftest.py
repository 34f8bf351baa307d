from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stored
from capabilities import need
from interop.daemons import Daemons, started
from interop.making import FILESYSTEMS, Peers

from storagedrivers.storage import Storage

PROGRAMS = (
    *("docker", "dockerd", "containerd", "ctr", "runc"),
    *("skopeo", "umoci", "buildah", "busybox", "ldd"),
)


@pytest.fixture(scope="session")
def peers(made_filesystems: Callable[[str], Path]) -> Iterator[Peers]:
    """The other programs, with daemons that run for the whole session."""
    need("root", "overlay", *PROGRAMS)
    directory = made_filesystems("ext4") / "peers"
    for name in ("daemons", "made"):
        (directory / name).mkdir(parents=True)
    with started(directory / "daemons") as daemons:
        yield Peers(directory / "made", daemons)


@pytest.fixture
def receiver(peers: Peers, on_filesystem: Callable[[str], Path]) -> Iterator[Daemons]:
    """Daemons that have no image yet: what they load they read."""
    with started(on_filesystem("ext4")) as daemons:
        yield daemons


@pytest.fixture
def storage(
    request: pytest.FixtureRequest, on_filesystem: Callable[[str], Path]
) -> Iterator[Storage]:
    """An empty store, with overlay2 where a test asks for no other driver."""
    driver = getattr(request, "param", "overlay2")
    directory = on_filesystem(FILESYSTEMS[driver])
    root, run_root = directory / "root", directory / "run"
    with Storage.open(root=root, run_root=run_root, driver=driver) as storage:
        yield storage
        for container in storage.containers.ls():
            storage.containers.remove(container.id)
        for image in storage.images.ls():
            storage.images.remove(image.id, force=True)
        stored.clean(storage)
