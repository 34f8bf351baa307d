from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from capabilities import has, need

from storagedrivers.linux import namespace, tree
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.testing.filesystems import FILESYSTEMS, loop_filesystem

PATIENCE = 10.0
"""Seconds until what goes away by itself must be gone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs daemons comes first: where several processes share the tests, the first of them
    begins there, and what it gives to the others is from the end.
    """
    items.sort(key=lambda item: not item.nodeid.startswith("tests/interop/"))


@pytest.fixture(scope="session", autouse=True)
def private_mounts() -> None:
    """Nothing that a test mounts is seen outside of the test process and its children."""
    if has("mount"):
        namespace.make_mounts_private()


@pytest.fixture(scope="session")
def mounted_for_session() -> set[str]:
    """The mountpoints that fixtures of the session keep."""
    return set()


def _left_behind(temporary: str) -> dict[str, set[str]]:
    files = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it went away meanwhile
            files.append(path.read_text())
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return {
        "mounts": {entry.mountpoint for entry in read_mountinfo()},
        "loop devices": {file for file in files if file.startswith(f"{temporary}/")},
        "processes": set(children.read_text().split()) if children.exists() else set(),
    }


@pytest.fixture(autouse=True)
def nothing_left(
    mounted_for_session: set[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """A test leaves no mount, loop device or process behind, but for fixtures of the session."""
    temporary = str(tmp_path_factory.getbasetemp())
    before = _left_behind(temporary)
    yield
    end = time.monotonic() + PATIENCE
    while True:
        after = _left_behind(temporary)
        after["mounts"] -= mounted_for_session
        after["loop devices"] = {
            file
            for file in after["loop devices"]
            if f"{file.strip()[:-4]}.mount" not in mounted_for_session
        }
        new = {kind: sorted(names - before[kind]) for kind, names in after.items()}
        # The kernel keeps a loop device while any process looks at it: so may another one's tests.
        if not new["loop devices"] or time.monotonic() > end:
            break
        time.sleep(0.01)
    for kind, names in new.items():
        assert not names, f"{kind} left behind: {names}"


@pytest.fixture(scope="session")
def made_filesystems(
    tmp_path_factory: pytest.TempPathFactory, mounted_for_session: set[str]
) -> Iterator[Callable[[str], Path]]:
    """Gives the mountpoint of a filesystem by its name; each is made once, and used in
    subdirectories.
    """
    mounted: dict[str, Path] = {}
    with ExitStack() as stack:

        def get(name: str) -> Path:
            if name not in mounted:
                need("mount", name, *(("loop", FILESYSTEMS[name][0]) if FILESYSTEMS[name] else ()))
                directory = tmp_path_factory.mktemp(name)
                mounted[name] = stack.enter_context(loop_filesystem(name, directory, size=1 << 30))
                mounted_for_session.add(str(mounted[name]))
            return mounted[name]

        yield get
    assert not mounted_for_session & {entry.mountpoint for entry in read_mountinfo()}


@pytest.fixture
def on_filesystem(made_filesystems: Callable[[str], Path]) -> Iterator[Callable[[str], Path]]:
    """Gives an empty directory on a filesystem by its name; it goes with the test, so that those
    of a session do not fill the filesystem.
    """
    made: list[Path] = []

    def get(name: str) -> Path:
        directory = made_filesystems(name) / f"test-{os.urandom(8).hex()}"
        directory.mkdir()
        if name != "btrfs":  # where layers that are sealed are read-only subvolumes
            made.append(directory)
        return directory

    yield get
    for directory in made:
        with tree.opened_directory(directory.parent) as parent:
            tree.remove_tree(parent, directory.name)
