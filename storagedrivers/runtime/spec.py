"""Makes the config.json of an OCI bundle from what a container shall run, as Docker would.

The document is what crun and runc take, and what :mod:`storagedrivers.runtime.inside` reads where
there is neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from storagedrivers.errors import RuntimeFailedError
from storagedrivers.linux import namespace, syscalls
from storagedrivers.runtime import capabilities
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.seccomp import make_filter
from storagedrivers.runtime.users import User, find_user

VERSION = "1.0.2"
"""Of the OCI runtime specification."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_CLOSED = ("nosuid", "noexec", "nodev")
_MOUNTS = (
    ("/proc", "proc", "proc", _CLOSED),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
    ),
    ("/sys", "sysfs", "sysfs", (*_CLOSED, "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", (*_CLOSED, "ro")),
    ("/dev/mqueue", "mqueue", "mqueue", _CLOSED),
    ("/dev/shm", "tmpfs", "shm", (*_CLOSED, "mode=1777", "size=65536k")),
)
_TTY_GROUP = 5


class Place(NamedTuple):
    """Where and under what name a container runs.

    Attributes:
        hostname: its own name.
        taken: where something else is mounted instead of what would be there.
        cgroup: the path of its cgroup, or None where no cgroup can be made.
        size: rows and columns of its terminal, if it gets one and they are known.
    """

    hostname: str
    taken: frozenset[str]
    cgroup: str | None
    size: tuple[int, int] | None = None


def make_spec(
    config: Mapping[str, Any], rootfs: Rootfs, place: Place, *, make_directory: bool = True
) -> dict[str, Any]:
    """The document, with the mounts of the kernel's filesystems.

    What the container needs in its root filesystem and lacks is made: the working directory.

    Args:
        config: with Docker's keys; see :mod:`storagedrivers.stores.containers`.
        rootfs: what it will see as its root, mounted.
        place: where it will run.
        make_directory: have the working directory made.

    Raises:
        RuntimeFailedError: there is no command, no such user, or a value is no good.
    """
    host_network = config.get("Network") == "host"
    process = make_process(
        config,
        rootfs,
        hostname=place.hostname,
        size=place.size,
        make_directory=make_directory,
    )
    process["oomScoreAdj"] = 0
    if not _may_be_killed_as_others():
        del process["oomScoreAdj"]
    if place.cgroup is None:
        # Nothing else keeps a device that the container makes from being the host's disk.
        capabilities.take_away(process["capabilities"], "CAP_MKNOD")
    bounding = process["capabilities"]["bounding"]
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in _namespaces(host_network=host_network)],
        "maskedPaths": [*MASKED],
        "readonlyPaths": [*READ_ONLY],
        "seccomp": make_filter(bounding),
    }
    if not host_network:
        linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0"}
        if not namespace.in_user_namespace():  # where most groups do not exist
            linux["sysctl"]["net.ipv4.ping_group_range"] = "0 2147483647"
    if place.cgroup is not None:
        linux["cgroupsPath"] = place.cgroup
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return {
        "ociVersion": VERSION,
        "process": process,
        "root": {"path": rootfs.path, "readonly": bool(config.get("ReadOnly"))},
        "hostname": place.hostname,
        "mounts": _mounts(config, place),
        "linux": linux,
    }


def make_process(
    config: Mapping[str, Any],
    rootfs: Rootfs,
    *,
    hostname: str,
    size: tuple[int, int] | None = None,
    make_directory: bool = True,
) -> dict[str, Any]:
    """The part named ``process``: for a container, or one more process in it.

    Args:
        config: as for :func:`make_spec`.
        rootfs: the container's root filesystem.
        hostname: for HOSTNAME.
        size: rows and columns of its terminal.
        make_directory: have the working directory made.

    Raises:
        RuntimeFailedError: as :func:`make_spec`.
    """
    user = find_user(rootfs, _text(config, "User"))
    directory = _working_directory(config, rootfs, make=make_directory)
    terminal = {"consoleSize": {"height": size[0], "width": size[1]}} if size else {}
    return {
        **terminal,
        "terminal": bool(config.get("Tty")),
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": [*user.groups]},
        "args": command(config),
        "env": _environment(config, user, hostname),
        "cwd": directory,
        "capabilities": capabilities.default(root=user.uid == 0),
        "noNewPrivileges": bool(config.get("NoNewPrivileges")),
    }


def command(config: Mapping[str, Any]) -> list[str]:
    """The program and its arguments: Entrypoint, then Cmd.

    Raises:
        RuntimeFailedError: there is none.
    """
    words = [*_words(config, "Entrypoint"), *_words(config, "Cmd")]
    if not words:
        raise RuntimeFailedError(
            "no command was given, and the image names none",
            resolution="name one: storagedrivers run IMAGE COMMAND",
        )
    return words


def _environment(config: Mapping[str, Any], user: User, hostname: str) -> list[str]:
    values = {"PATH": PATH, "HOSTNAME": hostname}
    if config.get("Tty"):
        values["TERM"] = "xterm"
    for word in _words(config, "Env"):
        name, sign, value = word.partition("=")
        if sign and not name:
            raise RuntimeFailedError(
                f"the variable {word!r} of the container has no name",
                resolution="give it one: --env NAME=VALUE; the image itself may be damaged",
            )
        if sign:
            values[name] = value
        else:
            values.pop(name, None)  # as Docker: a name alone takes it out
    values.setdefault("HOME", user.home)
    return [f"{name}={value}" for name, value in values.items()]


def _working_directory(config: Mapping[str, Any], rootfs: Rootfs, *, make: bool) -> str:
    path = _text(config, "WorkingDir") or "/"
    if not path.startswith("/"):
        raise RuntimeFailedError(
            f"the working directory {path!r} is not absolute", resolution="begin it with a slash"
        )
    if make:
        try:
            os.close(rootfs.make_directory(path))
        except OSError as error:
            raise RuntimeFailedError(
                f"the working directory {path} cannot be made: {os.strerror(error.errno or 0)}",
                resolution="choose another one: --workdir DIR",
            ) from error
    return f"/{os.path.normpath(path).lstrip('/')}"


def _mounts(config: Mapping[str, Any], place: Place) -> list[dict[str, Any]]:
    host_network = config.get("Network") == "host"
    return [
        _mount(target, kind, source, options, host_network=host_network)
        for target, kind, source, options in _MOUNTS
        # Who mounts another /dev has all that is below it there.
        if target not in place.taken and not (target[:5] == "/dev/" and "/dev" in place.taken)
    ]


def _mount(
    target: str, kind: str, source: str, options: Sequence[str], *, host_network: bool
) -> dict[str, Any]:
    if kind == "sysfs" and host_network and namespace.in_user_namespace():
        # Only who owns the network namespace may mount it: what the host has is shown.
        kind, source, options = "bind", "/sys", ("rbind", "rprivate", *_CLOSED, "ro")
    words = [*options]
    if kind == "devpts" and _is_mapped(_TTY_GROUP):
        words.append(f"gid={_TTY_GROUP}")
    return {"destination": target, "type": kind, "source": source, "options": words}


def _namespaces(*, host_network: bool) -> list[str]:
    kinds = ["mount", "uts", "pid", "ipc"]
    if not host_network:
        kinds.append("network")
    if os.path.exists("/proc/self/ns/cgroup"):  # Linux 4.6
        kinds.append("cgroup")
    return kinds


def _may_be_killed_as_others() -> bool:
    """Whether this process may set oom_score_adj to 0: only a privileged one may lower it."""
    try:
        with open("/proc/self/oom_score_adj") as file:
            return int(file.read()) <= 0 or namespace.has_capability(syscalls.CAP_SYS_RESOURCE)
    except OSError:
        return False


def _is_mapped(group: int) -> bool:
    """Whether the group exists in this user namespace."""
    try:
        with open("/proc/self/gid_map") as file:
            ranges = [[int(word) for word in line.split()] for line in file]
    except OSError:
        return True
    return any(first <= group < first + length for first, _, length in ranges)


def _words(config: Mapping[str, Any], key: str) -> Sequence[str]:
    """A list of texts; an image may hold anything."""
    value = config.get(key)
    if value is None:
        return ()
    if isinstance(value, str):  # as very old images have it
        value = [value]
    if not isinstance(value, list | tuple) or not all(map(_is_text, value)):
        raise _no_good(key)
    return value


def _text(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key) or ""
    if not _is_text(value):
        raise _no_good(key)
    return str(value)


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")  # as arguments that are not UTF-8 come in
    except UnicodeEncodeError:
        return False
    return True


def _no_good(key: str) -> RuntimeFailedError:
    return RuntimeFailedError(
        f"the container's {key} is no text, or has a NUL in it",
        resolution="give another one; the image's own may be damaged",
    )
