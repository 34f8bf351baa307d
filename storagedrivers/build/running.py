"""Carries out a RUN: its command in a container that is there for it only; what it wrote stays."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from storagedrivers.build import cache_mounts
from storagedrivers.build.run_mounts import BIND, CACHE, TMPFS
from storagedrivers.build.run_step import RunStep
from storagedrivers.build.views import Views, opened, opened_directory
from storagedrivers.errors import BuildError, RunFailedError
from storagedrivers.runtime import steps
from storagedrivers.runtime.mounts import Wanted
from storagedrivers.runtime.processes import await_spawning
from storagedrivers.runtime.status import replace_file
from storagedrivers.runtime.stdio import Piped
from storagedrivers.runtime.supervise import bundle_of
from storagedrivers.stores import build_steps

if TYPE_CHECKING:
    import threading

    from storagedrivers.build.request import Parts
    from storagedrivers.build.run_mounts import RunMount
    from storagedrivers.build.views import View
    from storagedrivers.runtime.stdio import Stdio
    from storagedrivers.stores.containers import Container
    from storagedrivers.stores.leases import Lease

_PRIVATE = "rprivate"
_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,99}")

HOSTNAME = "build"
"""What a container of a build calls itself: the same each time, as its layer may hold it."""


def run(
    parts: Parts,
    step: RunStep,
    lease: Lease,
    output: Callable[[bytes], object],
    *,
    stop: threading.Event | None = None,
) -> str:
    """Run the command; the id of a writable layer with what it wrote.

    Args:
        parts: of the store.
        step: what to run.
        lease: gets the layer.
        output: takes what the command writes to its standard output and error, as it comes.
        stop: once it is set, the command is killed.

    Raises:
        RunFailedError: the command failed.
        BuildError: it was stopped.
        RuntimeFailedError: it could not be started; its ``exit_code`` is 125, 126 or 127.
    """

    def check() -> None:
        if stop is not None and stop.is_set():
            raise BuildError("the build was stopped", resolution="see what failed before it")

    check()
    store = parts.containers
    caches = [one for one in step.mounts if one.type == CACHE]
    with ExitStack() as stack:
        paths = stack.enter_context(cache_mounts.held(store.volumes, caches, check))
        views = stack.enter_context(Views(parts.layers, lease))
        running = _Running(parts, step, views, paths)
        with build_steps.step(store, step.parent, _config(step), lease) as container:
            try:
                with Piped(output, check) as stdio:
                    code = running.run(container, stdio)
            finally:
                await_spawning()  # nobody has the layer open who knows nothing of it
            if code:
                raise _failure(step, code)
            return container.layer


class _Running:
    """One command in one container.

    Args:
        parts: of the store.
        step: what to run.
        views: what it sees of other layers.
        caches: where the files of its caches are.
    """

    def __init__(
        self, parts: Parts, step: RunStep, views: Views, caches: Mapping[RunMount, str]
    ) -> None:
        self._parts = parts
        self._step = step
        self._caches = caches
        self._volumes = _volumes(step.config)
        self._script = ""
        self._seen: list[tuple[RunMount, View]] = []
        self._scratch = views.writable(step.parent) if self._volumes else None
        for one in step.mounts:
            if one.type == BIND:
                whole = one.read_only and one.fill is None and one.layer is not None
                view = (
                    views.read_only(str(one.layer))
                    if whole
                    else views.writable(one.layer, one.fill)
                )
                self._seen.append((one, view))

    def run(self, container: Container, stdio: Stdio) -> int:
        """Run it until it ends; its exit code."""
        layers, bundle = self._parts.layers, bundle_of(self._parts.containers, container)
        if self._step.script is not None:
            self._script = os.path.join(bundle.directory, "script")
            text = self._step.script[1].encode("utf-8", "surrogateescape")
            replace_file(self._script, text, mode=0o755)
        driver = layers.driver_for(layers.get(container.layer).driver)
        root = steps.Root(
            driver.mounts(container.layer, layers.lowers(container.layer), read_only=False),
            (layers.root, layers.run_root),
            self._wanted,
            self._volumes,
        )
        return steps.run(container, bundle, root, stdio)

    def _wanted(self, directory: str, stack: ExitStack) -> list[Wanted]:
        """Everything that is mounted; called where the container's mounts are made."""
        found = []
        if self._scratch is not None:
            view = self._scratch.mounted(directory)
            for path in self._volumes:
                fd = opened_directory(view, path)
                found.append(_of_descriptor(fd, path, stack))
        paths: dict[int, str] = {}
        for one, seen in self._seen:
            if seen.number not in paths:
                paths[seen.number] = seen.mounted(directory)
            fd = opened(paths[seen.number], one.source, one.origin or "the context")
            found.append(_of_descriptor(fd, self._place(one), stack, read_only=one.read_only))
        for one, path in self._caches.items():
            found.append(Wanted(self._place(one), _PRIVATE, file=path, read_only=one.read_only))
        found += [self._tmpfs(one) for one in self._step.mounts if one.type == TMPFS]
        if self._step.script is not None:
            target = _script_path(self._step.script)
            found.append(Wanted(target, _PRIVATE, file=self._script, read_only=True))
        return found

    def _place(self, one: RunMount) -> str:
        return one.place(str(self._step.config.get("WorkingDir") or "/"))

    def _tmpfs(self, one: RunMount) -> Wanted:
        options = ["exec", *(["ro"] if one.read_only else [])]
        options += [] if one.size is None else [f"size={one.size}"]
        target = self._place(one)
        return Wanted(target, _PRIVATE, tmpfs=f"/tmpfs:{','.join(options)}")


def _of_descriptor(fd: int, target: str, stack: ExitStack, *, read_only: bool = False) -> Wanted:
    stack.callback(os.close, fd)
    return Wanted(target, _PRIVATE, file=f"/proc/self/fd/{fd}", read_only=read_only)


def _volumes(config: Mapping[str, Any]) -> list[str]:
    """Where the image has VOLUMEs, those above first."""
    paths = {posixpath.normpath(f"/{one}") for one in config.get("Volumes") or ()}
    return sorted(f"/{one.lstrip('/')}" for one in paths if one.strip("/"))


def _script_path(script: tuple[str, str]) -> str:
    name = script[0] if _NAME.fullmatch(script[0]) else "script"
    return f"/dev/pipes/{name}"


def _words(step: RunStep) -> list[str]:
    if step.command or step.script is None:
        return [*step.command]
    return [_script_path(step.script)]


def _config(step: RunStep) -> dict[str, Any]:
    config = {
        key: step.config[key] for key in ("Env", "User", "WorkingDir") if step.config.get(key)
    }
    network = "host" if step.network == "host" else "none"
    return {**config, "Cmd": _words(step), "Hostname": HOSTNAME, "Network": network}


def _failure(step: RunStep, code: int) -> RunFailedError:
    return RunFailedError(
        f"the command {' '.join(_words(step))!r} returned a non-zero code: {code}",
        exit_code=code,
    )
