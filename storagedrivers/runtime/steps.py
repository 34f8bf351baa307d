"""Runs one command of a build in a layer, which nobody else sees mounted.

::

    thread with a mount namespace: layer ─▶ what is missing ─▶ mounts ─▶ the engine ─▶ … ─▶ what was
    missing goes

Nothing outside of that namespace is mounted. So nothing is left of it when its processes have
ended, whoever was killed. ``status.json`` says which engine has them, for who finds them then.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.errors import RuntimeFailedError
from storagedrivers.linux import mount, namespace
from storagedrivers.runtime import engines
from storagedrivers.runtime.launching import Launch
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.status import Status, write_status
from storagedrivers.runtime.traces import Traces

if TYPE_CHECKING:
    from storagedrivers.model import Mount
    from storagedrivers.runtime.engines import Bundle
    from storagedrivers.runtime.mounts import Wanted
    from storagedrivers.runtime.stdio import Stdio
    from storagedrivers.stores.containers import Container


class Root(NamedTuple):
    """What is run in.

    Attributes:
        mounts: how it is seen.
        roots: the directories of the store.
        more: called in the namespace, gives what is mounted in it; gets a directory to mount in.
            What it opens is the stack's to close.
        kept: where volumes are mounted: directories that are made where they are missing, and stay.
    """

    mounts: Sequence[Mount]
    roots: Sequence[str]
    more: Callable[[str, ExitStack], Sequence[Wanted]]
    kept: Sequence[str] = ()


def run(container: Container, bundle: Bundle, root: Root, stdio: Stdio) -> int:
    """Run it until it ends; its exit code. No process and no mount is left.

    Raises:
        RuntimeFailedError: it cannot be started.
    """
    engine = engines.choose()
    launch = Launch(container, bundle, engine, root.roots)
    write_status(bundle.directory, Status(started=time.time(), engine=engine.name))
    path = bundle.rootfs
    os.mkdir(path, 0o700)
    with ExitStack() as stack:

        def start() -> subprocess.Popen[bytes]:
            os.chdir("/")  # of this thread alone
            namespace.keep_mounts_in()
            mount.mount_all(root.mounts, path)
            _make(path, root.kept)
            traces = stack.enter_context(Traces(path))
            stack.callback(traces.remove)
            traces.make_usual()

            def ready() -> None:
                traces.settle()
                with suppress(OSError), Rootfs(path) as rootfs:  # as the engine will say
                    os.close(rootfs.make_directory(container.config.get("WorkingDir") or "/"))

            with ExitStack() as opened:
                more = root.more(bundle.run, opened)
                return launch.prepared(path, {}, stdio, more=more, notes=traces, ready=ready)()

        try:
            return launch.run(start, stdio, forward=False)
        finally:
            launch.forget()


def _make(path: str, directories: Sequence[str]) -> None:
    with Rootfs(path) as rootfs:
        for one in directories:
            try:
                os.close(rootfs.make_directory(one))
            except NotADirectoryError as error:
                raise RuntimeFailedError(
                    f"cannot mount volume over existing file, file exists {one}",
                    resolution="name a directory in VOLUME, or one that is not there yet",
                ) from error
