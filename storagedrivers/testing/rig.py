"""A driver on a graph root, with what a contract needs to use it: layers, views of them, checks."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import SkipTest

from storagedrivers.driver import Capability, StorageDriver
from storagedrivers.host import read_host
from storagedrivers.linux import copy, mount
from storagedrivers.linux.mountinfo import read_mountinfo
from storagedrivers.testing.trees import Tree, differences, populate, read_tree


class NotApplicable(SkipTest):
    """This user cannot try it. pytest and unittest take it as a skip."""


def expect(condition: object, message: str) -> None:
    """Fail with *message* unless *condition* holds; works where ``assert`` is compiled away."""
    if not condition:
        raise AssertionError(message)


def expect_same(expected: Tree, found: Tree, what: str, *, ignoring: tuple[str, ...] = ()) -> None:
    """Fail unless two trees are the same, saying what differs."""
    lines = differences(expected, found, ignoring=ignoring)
    more = f"\n  … and {len(lines) - 20} more" if len(lines) > 20 else ""
    expect(not lines, f"{what}:\n  " + "\n  ".join(lines[:20]) + more)


def expect_error(
    kind: type[BaseException], action: Callable[[], object], what: str
) -> BaseException:
    """Fail unless *action* raises *kind*; returns the error."""
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"{what}, and no {kind.__name__} was raised")


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with what lies below it, nearest first."""

    id: str
    lowers: tuple[str, ...] = ()

    @property
    def chain(self) -> tuple[str, ...]:
        """What a layer above this one has as lowers."""
        return (self.id, *self.lowers)


class Rig:
    """One driver, one graph root, for one test.

    Leaving the ``with`` block unmounts and removes what the test left.
    """

    def __init__(self, driver: type[StorageDriver], graph_root: Path) -> None:
        self.graph_root = graph_root
        self.home = graph_root / driver.name
        self.facts = read_host(graph_root, inventory=False)
        self.result = driver.probe(self.facts, self.home)
        self.driver = driver(self.home)
        self._count = 0
        self._points = Path(tempfile.mkdtemp(prefix="storagedrivers-kit-"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for mountpoint in reversed(
            self.mounted_below(self._points) + self.mounted_below(self.home)
        ):
            mount.unmount(mountpoint, detach=True)
        shutil.rmtree(self._points)
        for layer in list(StorageDriver.layers(self.driver)):
            StorageDriver.remove(self.driver, layer)

    def has(self, capability: Capability) -> bool:
        """Whether the driver declares *capability* here."""
        return capability in self.result.capabilities

    @property
    def can_mount(self) -> bool:
        """Whether this process may mount; otherwise views of layers are their directories."""
        return self.facts.can_mount

    def needs_mounts(self) -> None:
        """Skip a contract that a bare directory cannot keep."""
        if not self.can_mount:
            raise NotApplicable("this process may not mount")

    def new_id(self) -> str:
        """An id that no layer of the test has."""
        self._count += 1
        return f"layer{self._count:04d}"

    def create(self, below: Layer | None = None) -> Layer:
        """A new writable layer."""
        layer = Layer(self.new_id(), below.chain if below else ())
        self.driver.create(layer.id, layer.lowers)
        return layer

    def layer(
        self, write: Callable[[Path], object] | None = None, *, below: Layer | None = None
    ) -> Layer:
        """A new layer, written to through its mounts, and sealed."""
        layer = self.create(below)
        if write is not None:
            with self.view(layer, read_only=False) as path:
                write(path)
        self.driver.seal(layer.id, layer.lowers)
        return layer

    @contextmanager
    def view(self, layer: Layer, *, read_only: bool = True) -> Iterator[Path]:
        """The layer's tree for the length of a ``with`` block."""
        mounts = self.driver.mounts(layer.id, layer.lowers, read_only=read_only)
        if not self.can_mount:
            expect(
                len(mounts) == 1 and mounts[0].type == "bind",
                "a driver that works without permission to mount gives one bind mount",
            )
            yield Path(mounts[0].source)
            return
        point = Path(tempfile.mkdtemp(dir=self._points))
        with mount.mounted(mounts, point):
            yield point
        point.rmdir()

    def tree(self, layer: Layer) -> Tree:
        """What the layer shows."""
        with self.view(layer) as path:
            return read_tree(path)

    def acts_like_a_plain_directory(self, script: Callable[[Path], object]) -> None:
        """Fail unless *script* does the same to a layer above a populated one as to a copy of
        that.
        """
        base = self.layer(populate)
        model = self._points / "model"
        model.mkdir()
        with self.view(base) as path:
            copy.copy_tree(path, model)
        script(model)
        layer = self.layer(script, below=base)
        expect_same(
            _without_clock(read_tree(model)),
            _without_clock(self.tree(layer)),
            "the layer differs from a plain directory after the same changes",
        )

    def on_disk(self) -> set[str]:
        """Every path below the home, but for directories that are the driver's own and hold no
        layer.
        """
        found = set()
        for directory, names, files in os.walk(self.home):
            for name in (*names, *files):
                path = os.path.relpath(os.path.join(directory, name), self.home)
                if os.sep in path or self.driver_owns(path):
                    found.add(path)
        return found

    def driver_owns(self, name: str) -> bool:
        """Whether *name* in the home is a layer's directory."""
        return len(name) > 1 and not name.startswith(".")

    @staticmethod
    def mounted_below(path: Path) -> list[str]:
        """The mountpoints below *path*, in the order they were mounted."""
        prefix = os.path.realpath(path)
        return [
            entry.mountpoint for entry in read_mountinfo() if entry.mountpoint.startswith(prefix)
        ]

    def killed_at_every_step(
        self, action: Callable[[], object], afterwards: Callable[[], object]
    ) -> int:
        """Run *action* in child processes that die at its 1st, 2nd, … change to the disk.

        Args:
            action: runs in a child; must be repeatable after *afterwards*.
            afterwards: runs in this process after each death, and prepares the next round.

        Returns:
            How often it was killed before a child came through.
        """
        for step in range(1, 1000):
            if not _dies_at(step, action):
                return step - 1
            afterwards()
        raise AssertionError("the action makes 1,000 changes to the disk")


def _without_clock(tree: Tree) -> Tree:
    """Times that a test did not set, but the clock, become one value."""
    recent = time.time_ns() - 10**9 * 3600
    return {
        path: replace(node, mtime_ns=1) if node.mtime_ns > recent else node
        for path, node in tree.items()
    }


_CHANGES = frozenset(
    {
        *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"),
        *("os.setxattr", "os.symlink", "os.truncate", "os.utime", "fcntl.ioctl"),
    }
)


def _dies_at(step: int, action: Callable[[], object]) -> bool:
    """Whether a child that runs *action* reached its change number *step*, and was killed before
    it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a test runner may have threads; the child uses none of theirs
        pid = os.fork()
    if pid == 0:
        _run_and_die(step, action)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    expect(os.WEXITSTATUS(status) == 0, "the action failed in a child process")
    return False


def _run_and_die(step: int, action: Callable[[], object]) -> None:
    import signal
    import sys

    left = step

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        creates = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if event in _CHANGES or creates:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(count)
        action()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)
