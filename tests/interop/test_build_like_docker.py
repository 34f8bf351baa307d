"""Docker's classic builder and we make the same of the same Dockerfile and context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stored
from build_cases import CASES, FAILING, NEWER, Case, listing, write_base, write_context
from interop.building import build_by_docker, build_by_us, expected, seen_in_docker, seen_in_ours
from interop.daemons import Daemons
from interop.making import Peers
from running import usable

from storagedrivers.errors import StorageDriversError
from storagedrivers.storage import Storage
from storagedrivers.testing.trees import differences


def _by_name(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture(scope="module")
def archive(made_filesystems: Callable[[str], Path]) -> Iterator[tuple[Storage, bytes]]:
    """A store with the base of all cases, for all of them; and the base as an archive."""
    directory = made_filesystems("ext4") / "building"
    with (
        usable("crun"),
        Storage.open(
            root=directory / "root", run_root=directory / "run", driver="overlay2"
        ) as storage,
    ):
        data = write_base(storage)
        with storage.images.mounted("base"):  # where mounts lie is mounted itself from now on
            pass
        yield storage, data
        storage.build_cache.prune(all=True)
        for image in storage.images.ls():
            storage.images.remove(image.id, force=True)
        stored.clean(storage)


@pytest.fixture
def ours(archive: tuple[Storage, bytes]) -> Storage:
    """A store with the base."""
    return archive[0]


@pytest.fixture(scope="module")
def dockers(archive: tuple[Storage, bytes], peers: Peers) -> Daemons:
    """Docker with the same base."""
    peers.daemons.docker("load", data=archive[1])
    return peers.daemons


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Where a context may be written."""
    return tmp_path / "context"


@_by_name(CASES)
def test_the_same_image(case: Case, ours: Storage, dockers: Daemons, context: Path) -> None:
    write_context(case, context)
    theirs = seen_in_docker(dockers, build_by_docker(dockers, case, context))
    image = build_by_us(ours, case, context)
    mine = seen_in_ours(ours, image)
    theirs = expected(theirs, mine, case)
    assert differences(theirs.tree, mine.tree) == []
    assert mine._replace(tree={}) == theirs._replace(tree={})
    assert build_by_us(ours, case, context).id == image.id


@_by_name(FAILING)
def test_neither_builds_it(case: Case, ours: Storage, dockers: Daemons, context: Path) -> None:
    write_context(case, context)
    with pytest.raises(RuntimeError):
        build_by_docker(dockers, case, context)
    with pytest.raises(StorageDriversError):
        build_by_us(ours, case, context)


@_by_name(NEWER)
def test_what_the_classic_builder_does_not_know(case: Case, ours: Storage, context: Path) -> None:
    write_context(case, context)
    image = build_by_us(ours, case, context)
    with ours.images.mounted("base") as top:
        before = listing(top)
    with ours.images.mounted(image.id) as top:
        after = listing(top)
    assert [line for line in after if line not in before] == case.tree.splitlines()
    assert [line for line in before if line not in after] == []
