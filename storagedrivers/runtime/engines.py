"""The programs that start a container's process: crun, runc, and unshare(1) where neither works.

An engine only says which command does what; :mod:`storagedrivers.runtime.supervise` runs it.
"""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple

from storagedrivers.errors import RuntimeFailedError, did_you_mean
from storagedrivers.runtime import processes
from storagedrivers.runtime.cgroups import Cgroups, read_cgroups
from storagedrivers.runtime.cgroups import remove as remove_cgroup
from storagedrivers.runtime.terminal import Console, Pair, Terminal

_MODULE = "storagedrivers.runtime.inside"
_MORE_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")


class Bundle(NamedTuple):
    """Where a container's files are.

    Attributes:
        id: the container's.
        directory: what stays: config.json, log.json, status.json.
        run: what dies with the boot: the lock, the engine's own state.
    """

    id: str
    directory: str
    run: str

    @property
    def config(self) -> str:
        """The document that the engine reads."""
        return os.path.join(self.directory, "config.json")

    @property
    def stage(self) -> str:
        """Where its mounts are made ready; empty but for the engine."""
        return os.path.join(self.run, "mounts")

    @property
    def rootfs(self) -> str:
        """Where the root filesystem of a build's container is mounted, in the engine's namespace
        alone. Other containers have none.
        """
        return os.path.join(self.run, "rootfs")

    @property
    def pid_file(self) -> str:
        """Where the engine writes the id of the container's first process."""
        return os.path.join(self.run, "pid")

    @property
    def birth(self) -> str:
        """When that process was started, by which it is told from later ones."""
        return os.path.join(self.run, "birth")

    @property
    def errors(self) -> str:
        """Where the engine says why it failed: a JSON document on each line."""
        return os.path.join(self.run, "errors.json")


class Engine(ABC):
    """One of the programs.

    Attributes:
        name: as ``--runtime`` takes it.
        warning: what it does not isolate, for the user; empty where nothing is to say.
        keeps_propagation: what is mounted in the root filesystem when it starts goes on spreading.
        program: its path.
    """

    name: ClassVar[str]
    warning: ClassVar[str] = ""
    keeps_propagation: ClassVar[bool] = True

    def __init__(self, program: str) -> None:
        self.program = program

    @abstractmethod
    def cgroup(self, bundle: Bundle) -> str | None:
        """The path of the container's cgroup, or None where it gets none."""

    @abstractmethod
    def run(self, bundle: Bundle, words: Sequence[str]) -> list[str]:
        """What runs the container in the foreground and exits as its first process does.

        Args:
            bundle: the container's files.
            words: options of :meth:`terminal`'s.
        """

    @abstractmethod
    def exec(
        self, bundle: Bundle, process: str, words: Sequence[str], *, errors: str, detach: bool
    ) -> list[str]:
        """What runs one more process, described in the file *process*."""

    def terminal(self, bundle: Bundle) -> Terminal:
        """A terminal for a process."""
        return Pair()

    @abstractmethod
    def kill(self, bundle: Bundle, number: int) -> None:
        """Send a signal to the first process; nothing where it has ended."""

    @abstractmethod
    def delete(self, bundle: Bundle) -> None:
        """End what is left of a run, and forget it; idempotent."""

    @abstractmethod
    def running(self, bundle: Bundle) -> list[int]:
        """The processes of the engine that run, or are about to run, the container."""

    def hooks(self, bundle: Bundle, rootfs: str) -> dict[str, Any]:
        """The part of config.json of that name."""
        return {}

    def freeze(self, bundle: Bundle) -> None:
        """Stop all processes of the container where they are.

        Raises:
            RuntimeFailedError: they cannot be stopped.
        """
        processes.stop_all(read_pid(bundle))

    def thaw(self, bundle: Bundle) -> None:
        """Let them go on; idempotent."""
        processes.continue_all(read_pid(bundle))


class OciEngine(Engine):
    """crun or runc: both take the same words."""

    def __init__(self, program: str, cgroups: Cgroups) -> None:
        super().__init__(program)
        self._cgroups = cgroups

    def cgroup(self, bundle: Bundle) -> str | None:
        """Beside those of the host, as Docker's with its own driver."""
        return f"/storagedrivers-{bundle.id}" if self._cgroups.usable else None

    def run(self, bundle: Bundle, words: Sequence[str]) -> list[str]:
        """``run``, which stays until the container ends."""
        options = ("--bundle", bundle.directory, "--pid-file", bundle.pid_file, *words)
        return self._command(bundle, "run", *options, bundle.id, errors=bundle.errors)

    def exec(
        self, bundle: Bundle, process: str, words: Sequence[str], *, errors: str, detach: bool
    ) -> list[str]:
        """``exec``, with a document as its process."""
        options = ["--process", process, *words, *(["--detach"] if detach else [])]
        return self._command(bundle, "exec", *options, bundle.id, errors=errors)

    def kill(self, bundle: Bundle, number: int) -> None:
        """``kill``."""
        processes.run(self._command(bundle, "kill", bundle.id, str(number)))

    def delete(self, bundle: Bundle) -> None:
        """``delete --force``, where there is a state."""
        waiting = 0
        with suppress(RuntimeFailedError):
            waiting = processes.parent_with(read_pid(bundle), self.program)
        if os.path.exists(os.path.join(self._root(bundle), bundle.id)):
            processes.run(self._command(bundle, "delete", "--force", bundle.id))
        if waiting:  # it has the container's mounts, too, in a namespace of its own
            processes.await_end(waiting)
        if path := self.cgroup(bundle):  # of an engine that was killed before it had a state
            remove_cgroup(path)
        with suppress(OSError):
            os.rmdir(self._root(bundle))

    def running(self, bundle: Bundle) -> list[int]:
        """Those with a state of its own."""
        return processes.started_with(self._root(bundle), bundle.directory)

    def hooks(self, bundle: Bundle, rootfs: str) -> dict[str, Any]:
        """Without a cgroup that limits them, devices of the image cannot be opened."""
        if self.cgroup(bundle) is not None:
            return {}
        # Only inside: crun takes all attributes off the mount of the root filesystem.
        words = _inside("close-devices", rootfs)
        return {"createContainer": [{"path": words[0], "args": words}]}

    def freeze(self, bundle: Bundle) -> None:
        """By the cgroup, where it has one."""
        if self.cgroup(bundle) is None:
            super().freeze(bundle)
        elif words := processes.run(self._command(bundle, "pause", bundle.id)):
            raise RuntimeFailedError(
                f"{self.name} could not pause container {bundle.id[:12]}", details=words
            )

    def thaw(self, bundle: Bundle) -> None:
        """By the cgroup, where it has one."""
        if self.cgroup(bundle) is None:
            super().thaw(bundle)
        else:
            processes.run(self._command(bundle, "resume", bundle.id))

    def _root(self, bundle: Bundle) -> str:
        return os.path.join(bundle.run, self.name)

    def _command(self, bundle: Bundle, *words: str, errors: str = "") -> list[str]:
        logging = ["--log", errors, "--log-format", "json"] if errors else []
        return [self.program, "--root", self._root(bundle), *logging, *self._options(), *words]

    def _options(self) -> Sequence[str]:
        return ()


class Crun(OciEngine):
    """crun: small, in C, and able to do without cgroups."""

    name = "crun"
    keeps_propagation = False

    def terminal(self, bundle: Bundle) -> Terminal:
        """The container's own: one in between crun would never tell of a change of its size."""
        return Console(bundle.run)

    def _options(self) -> Sequence[str]:
        return ("--cgroup-manager", "cgroupfs" if self._cgroups.usable else "disabled")


class Runc(OciEngine):
    """runc: what Docker uses."""

    name = "runc"


class Unshare(Engine):
    """unshare(1), and :mod:`storagedrivers.runtime.inside` within."""

    name = "unshare"
    warning = (
        "neither seccomp nor cgroups isolate this container, since unshare(1) runs it: its"
        " system calls are not filtered, and it may use all memory and processors"
    )

    def cgroup(self, bundle: Bundle) -> str | None:
        """None."""
        return None

    def run(self, bundle: Bundle, words: Sequence[str]) -> list[str]:
        """unshare(1) with the namespaces that config.json names."""
        with open(bundle.config) as file:
            linux = json.load(file)["linux"]
        kinds = [one["type"] for one in linux["namespaces"]]
        options = {"mount": "--mount", "uts": "--uts", "ipc": "--ipc", "network": "--net"}
        options |= {"pid": "--pid", "cgroup": "--cgroup"}
        return [
            self.program,
            *(options[kind] for kind in kinds),
            # Else it makes all mounts private.
            *(["--propagation", "unchanged"] if "rootfsPropagation" in linux else []),
            "--",
            *_inside("run", bundle.config, bundle.errors, bundle.pid_file),
        ]

    def exec(
        self, bundle: Bundle, process: str, words: Sequence[str], *, errors: str, detach: bool
    ) -> list[str]:
        """The same program enters the namespaces of the first process."""
        verb = "exec-detached" if detach else "exec"
        return _inside(verb, process, errors, str(read_pid(bundle)))

    def kill(self, bundle: Bundle, number: int) -> None:
        """kill(2), from outside."""
        with suppress(ProcessLookupError):
            os.kill(read_pid(bundle), number)

    def delete(self, bundle: Bundle) -> None:
        """The end of the first process is that of its namespace."""
        with suppress(RuntimeFailedError):
            pid = read_pid(bundle)
            if processes.is_first_of_namespace(pid):
                # Who waits for it is in the container's mount namespace, too.
                processes.end(pid, processes.parent(pid))

    def running(self, bundle: Bundle) -> list[int]:
        """Those that read its config.json."""
        return processes.started_with(_MODULE, bundle.config)


def _inside(*words: str) -> list[str]:
    # -P: no module comes from the working directory.
    return [sys.executable, "-P", "-m", _MODULE, *words]


def read_pid(bundle: Bundle) -> int:
    """The id of the container's first process.

    Raises:
        RuntimeFailedError: it has none.
    """
    try:
        with open(bundle.pid_file) as file:
            pid = int(file.read())
        with open(bundle.birth) as file:
            # The number may be another process's by now.
            if file.read() != processes.birth(pid):
                raise ProcessLookupError
        return pid
    except (OSError, ValueError) as error:
        raise RuntimeFailedError(
            f"container {bundle.id[:12]} has no process", resolution="start it"
        ) from error


ENGINES = ("crun", "runc", "unshare")
"""In the order in which they are tried."""


def choose(name: str | None = None) -> Engine:
    """The engine of this name, or the first that works here.

    Raises:
        RuntimeFailedError: there is none, or it does not work here.
    """
    cgroups = read_cgroups()
    if name is None:
        found = next((one for one in ENGINES if not _obstacle(one, cgroups)), None)
        if found is None:
            reasons = "\n".join(_obstacle(one, cgroups) for one in ENGINES)
            raise RuntimeFailedError(
                "no program on this host can run a container",
                details=reasons,
                resolution="install crun or runc",
            )
        return _engine(found, cgroups)
    if name not in ENGINES:
        raise RuntimeFailedError(
            f"no runtime is named {name!r}; there are {', '.join(ENGINES)}",
            resolution=did_you_mean(name, ENGINES),
        )
    if obstacle := _obstacle(name, cgroups):
        raise RuntimeFailedError(obstacle, resolution="leave --runtime out for one that works")
    return _engine(name, cgroups)


def _engine(name: str, cgroups: Cgroups) -> Engine:
    program = _which(name)
    assert program is not None
    if name == "unshare":
        return Unshare(program)
    return Crun(program, cgroups) if name == "crun" else Runc(program, cgroups)


def _obstacle(name: str, cgroups: Cgroups) -> str:
    """Why an engine does not work here, or nothing."""
    if _which(name) is None:
        return f"{name} is not installed"
    if name == "crun" and cgroups.mixed:
        return "crun refuses to work where controllers are split between cgroup versions 1 and 2"
    if name == "runc" and not cgroups.usable:
        return "runc needs cgroups that it can write to"
    return ""


def _which(name: str) -> str | None:
    import shutil

    return shutil.which(name) or shutil.which(name, path=":".join(_MORE_DIRECTORIES))
