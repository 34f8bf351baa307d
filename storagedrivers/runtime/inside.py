"""Runs in the namespaces of a container that unshare(1) made, where no OCI runtime is: mounts what
config.json says, gives up privileges, and becomes the container's program.

::

    python -m storagedrivers.runtime.inside run CONFIG ERRORS PID_FILE
    python -m storagedrivers.runtime.inside close-devices ROOTFS
    python -m storagedrivers.runtime.inside exec|exec-detached PROCESS ERRORS PID

As with crun and runc, a failure is a JSON document in the file ERRORS, and the exit code is 1. The
second form is a hook of crun's, where it works without cgroups.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import sys
import termios
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NoReturn

from storagedrivers.linux import ioctl, mount, namespace, stage, syscalls
from storagedrivers.model import Mount
from storagedrivers.runtime import capabilities, processes, terminal
from storagedrivers.runtime.outcome import PROGRAM
from storagedrivers.runtime.rootfs import Rootfs
from storagedrivers.runtime.tmpfs import tmpfs_flags

_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
_DEVICES |= {"tty": (5, 0)}
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1"}
_LINKS |= {"stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}

_NAMESPACES = ("cgroup", "ipc", "uts", "net", "pid", "mnt")  # mnt last: it changes what /proc is

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def main(verb: str, document: str, errors: str, last: str) -> int:
    """Do what the words of the command say."""
    with open(document) as file:
        spec = json.load(file)
    # Open before the root changes.
    log = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = spec["process"] if verb == "run" else spec
        # From the change of the root on, a module would come from the container.
        sys.meta_path.clear()
        if verb == "run":
            return _in_child(lambda parent: _run(spec, last, parent), process, log)
        _enter(int(last))
        return _in_child(lambda _: int, process, log, detach=verb == "exec-detached")
    except (OSError, ValueError) as error:
        return _failed(log, error)


class _ProgramError(OSError):
    """The program itself cannot be executed: all else was well."""


def _failed(log: int, error: BaseException, words: str = "") -> int:
    words = words or str(error)
    if isinstance(error, OSError) and error.strerror:  # the kernel's own words
        what = PROGRAM if isinstance(error, _ProgramError) else ""
        words = f"{what}{error.filename}: {error.strerror}" if error.filename else error.strerror
    line = {"level": "error", "msg": words}
    os.write(log, json.dumps(line).encode() + b"\n")
    return 1


def _in_child(
    prepare: Callable[[socket.socket], Callable[[], object]],
    process: Mapping[str, Any],
    log: int,
    *,
    detach: bool = False,
) -> int:
    """Start the process in a child, since a process namespace is entered by children only.

    unshare(1) could do that too, and some versions lose the signal that ended the child.

    Args:
        prepare: is called first in the child, and gives what is to be called last; gets a socket,
            which is at its end when the parent is.
        process: what the child becomes.
        log: for errors.
        detach: do not wait for it.

    Returns:
        Its exit code.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        try:
            ours.close()
            before = prepare(theirs)
            if process["terminal"]:
                _make_terminal(process, theirs)
            else:
                os.setsid()
            _become(process, before)
        except (OSError, ValueError) as error:  # ValueError: what Python gives to no call
            os._exit(_failed(log, error))
        except BaseException as error:
            os._exit(_failed(log, error, traceback.format_exc()))
    theirs.close()
    if detach:
        return 0
    with processes.forwarded(partial(os.kill, child)):
        if process["terminal"]:
            _show_terminal(ours)
        return processes.exit_code(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _make_terminal(process: Mapping[str, Any], to_parent: socket.socket) -> None:
    """Have a terminal of the container's own, of which the parent gets the other end."""
    master, slave = os.openpty()
    if size := process.get("consoleSize"):
        termios.tcsetwinsize(slave, (size["height"], size["width"]))
    socket.send_fds(to_parent, [b"x"], [master])
    os.fchown(slave, process["user"]["uid"], -1)
    os.close(master)
    os.login_tty(slave)


def _show_terminal(from_child: socket.socket) -> None:
    _, fds, _, _ = socket.recv_fds(from_child, 1, 1)
    for master in fds:  # none where the child failed before
        with terminal.same_size(master, int):
            terminal.relay(master, stdin=0)


# A container's first process


def _run(spec: Mapping[str, Any], pid_file: str, parent: socket.socket) -> Callable[[], object]:
    _end_with(parent)
    with Rootfs(spec["root"]["path"]) as given:
        # A mount of its own, which pivot_root(2) asks for.
        mount.mount(Mount("bind", given.path, options=("rbind",)), given.path)
    with Rootfs(spec["root"]["path"]) as rootfs:
        for one in spec["mounts"]:
            if one["type"] != "cgroup":
                _mount(rootfs, one)
        _hide(rootfs, spec["linux"])
        close_devices(rootfs.path)
        if spec["root"]["readonly"]:
            stage.add_attribute(rootfs.path, syscalls.MOUNT_ATTR_RDONLY, syscalls.MS_RDONLY)
    socket.sethostname(spec["hostname"])
    if any(one["type"] == "network" for one in spec["linux"]["namespaces"]):
        _bring_up("lo")
        _set_sysctls(spec["linux"].get("sysctl", {}))
    own = os.open(pid_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    pid = os.readlink("/proc/self").encode()  # as the host counts: its /proc is still there
    _pivot(spec["root"]["path"])

    def before() -> None:
        _end_with(parent)  # once more: a change of privileges takes it off
        os.write(own, pid)

    return before


def _end_with(parent: socket.socket) -> None:
    """Who started it ends: so does it, as a container's first process takes all others along."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    with suppress(BlockingIOError):
        if not parent.recv(1, socket.MSG_DONTWAIT):  # it had ended before
            os._exit(1)


def _mount(rootfs: Rootfs, one: Mapping[str, Any]) -> None:
    target = one["destination"]
    source = one["source"]
    if target in ("/proc", "/sys") and rootfs.is_symlink(target[1:]):
        # What is mounted and masked there would not be where programs look for it.
        raise NotADirectoryError(errno.ENOTDIR, "it is a symlink in the image", target)
    is_file = one["type"] == "bind" and not os.path.isdir(source)
    fd = rootfs.make_file(target) if is_file else rootfs.make_directory(target)
    try:
        _mount_at(f"/proc/self/fd/{fd}", one)
    finally:
        os.close(fd)
    if target == "/dev" and one["type"] != "bind":
        _fill_dev(rootfs)


def _mount_at(point: str, one: Mapping[str, Any]) -> None:
    if one["type"] == "tmpfs":
        flags, options = tmpfs_flags(one["options"])
        syscalls.mount("tmpfs", point, "tmpfs", flags, options)
        return
    words = tuple(word for word in one["options"] if word not in stage.PROPAGATIONS)
    if one["type"] == "bind" and one["source"] != one["destination"]:
        words = words[:1]  # what was made ready has its attributes
    mount.mount(Mount(one["type"], one["source"], options=words), point)


def _fill_dev(rootfs: Rootfs) -> None:
    fd = rootfs.open("/dev")
    try:
        for name, numbers in _DEVICES.items():
            _make_device(fd, name, os.makedev(*numbers))
        for name, target in _LINKS.items():
            os.symlink(target, name, dir_fd=fd)
    finally:
        os.close(fd)


def _make_device(directory: int, name: str, number: int) -> None:
    try:
        os.mknod(name, 0o666 | stat.S_IFCHR, number, dir_fd=directory)
        os.chmod(name, 0o666, dir_fd=directory)  # whatever the umask is
    except PermissionError:  # in a user namespace: the host's own
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=directory))
        point = f"{_path_of(directory)}/{name}"
        mount.mount(Mount("bind", f"/dev/{name}", options=("bind",)), point)


def _hide(rootfs: Rootfs, linux: Mapping[str, Any]) -> None:
    for path in linux["readonlyPaths"]:
        _over(rootfs, path, lambda point, _: Mount("bind", point, options=("rbind", "ro")))
    for path in linux["maskedPaths"]:
        _over(rootfs, path, _mask)


def _mask(_: str, mode: int) -> Mount:
    if stat.S_ISDIR(mode):
        return Mount("tmpfs", "tmpfs", options=("ro", "nosuid", "nodev", "noexec", "size=0"))
    return Mount("bind", "/dev/null", options=("bind",))


def _over(rootfs: Rootfs, path: str, make: Callable[[str, int], Mount]) -> None:
    """Mount over what the kernel has at *path*, if it has it."""
    try:
        fd = rootfs.open(path)
    except OSError:
        return
    try:
        point = _path_of(fd)
        mount.mount(make(point, os.fstat(fd).st_mode), point)
    finally:
        os.close(fd)


def _path_of(fd: int) -> str:
    """Where something is: a path without symlinks, which holds since nothing of the container runs
    yet.
    """
    return os.readlink(f"/proc/self/fd/{fd}")


def close_devices(path: str) -> None:
    """Have no device of the image's opened: no cgroup keeps it from being the host's disk."""
    stage.add_attribute(path, syscalls.MOUNT_ATTR_NODEV, syscalls.MS_NODEV)


def _bring_up(interface: str) -> None:
    """As ``ip link set … up`` does; netdevice(7)."""
    request = bytearray(interface.encode().ljust(40, b"\0"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as anything:
        ioctl.ioctl(anything.fileno(), SIOCGIFFLAGS, request)
        flags = int.from_bytes(request[16:18], sys.byteorder) | IFF_UP
        request[16:18] = flags.to_bytes(2, sys.byteorder)
        ioctl.ioctl(anything.fileno(), SIOCSIFFLAGS, request)


def _set_sysctls(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        with suppress(OSError):  # newer than this kernel
            with open(f"/proc/sys/{name.replace('.', '/')}", "w") as file:
                file.write(value)


def _pivot(path: str) -> None:
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(path)
    syscalls.pivot_root(".", ".")  # puts the old root over the new one
    os.fchdir(old)
    # What the host shares would be unmounted there, too.
    syscalls.mount(None, ".", None, syscalls.MS_REC | syscalls.MS_SLAVE, None)
    syscalls.umount2(".", syscalls.MNT_DETACH)
    os.close(old)
    os.chdir("/")


# One more process


def _enter(pid: int) -> None:
    """Enter the namespaces of *pid*, and its root."""
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    namespaces = [_namespace(pid, name) for name in _NAMESPACES]
    for fd in namespaces:
        if fd is not None:
            syscalls.setns(fd)
    os.fchdir(root)
    os.chroot(".")


def _namespace(pid: int, name: str) -> int | None:
    """A descriptor of a namespace; None where it is the same as this process's."""
    path = f"/proc/{pid}/ns/{name}"
    if not os.path.exists(path) or os.path.samefile(path, f"/proc/self/ns/{name}"):
        return None
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


# Both


def _become(process: Mapping[str, Any], before: Callable[[], object]) -> NoReturn:
    """Give up what the process shall not have, and become its program.

    Raises:
        OSError: the working directory cannot be entered.
        _ProgramError: the program is not there, or cannot be executed.
        ValueError: an argument or a variable is none that a program can have.
    """
    os.umask(0o022)
    _drop_privileges(process)
    _enter_directory(process["cwd"])
    environment = dict(one.partition("=")[::2] for one in process["env"])
    name = process["args"][0]
    with _executing(name):
        program = _find(name, environment.get("PATH", ""))
    before()
    with _executing(name):
        os.execve(program, process["args"], environment)
    raise AssertionError  # execve(2) does not return


@contextmanager
def _executing(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _ProgramError(error.errno, error.strerror, error.filename or name) from error


def _enter_directory(path: str) -> None:
    """chdir(2), but not to a directory of the host's that somebody has left open."""
    os.chdir(path)
    try:
        found = os.getcwd()
    except FileNotFoundError:  # as some C libraries have it; and where it was removed
        found = ""
    if not found.startswith("/"):  # "(unreachable)"
        raise OSError(errno.ENOENT, "it is no directory of the container", path)


def _drop_privileges(process: Mapping[str, Any]) -> None:
    bounding = process["capabilities"]["bounding"]
    kept = {capabilities.NUMBERS[name] for name in bounding}
    for number in range(capabilities.last() + 1):
        if number not in kept:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    # A program of root's gets the inheritable ones in addition to those of the bounding set.
    effective, permitted, _ = syscalls.capget()
    syscalls.capset(effective, permitted, 0)
    with suppress(OSError):  # before Linux 4.3, which has none
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    user = process["user"]
    try:
        os.setgroups(user["additionalGids"])
    except PermissionError:
        # In a user namespace that a user made, nobody may change them: user_namespaces(7).
        if not namespace.in_user_namespace():
            raise
    os.setresgid(user["gid"], user["gid"], user["gid"])
    os.setresuid(user["uid"], user["uid"], user["uid"])
    if process["noNewPrivileges"]:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def _find(name: str, path: str) -> str:
    """The program's path, found as a shell would."""
    if "/" in name:
        _check(name)
        return name
    refused: OSError | None = None
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        try:
            _check(candidate)
            return candidate
        except PermissionError as error:
            refused = error
        except OSError:
            continue
    raise refused or FileNotFoundError(errno.ENOENT, "executable file not found in $PATH", name)


def _check(path: str) -> None:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode) or not os.access(path, os.X_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


if __name__ == "__main__":
    if sys.argv[1] == "close-devices":
        close_devices(sys.argv[2])
    else:
        sys.exit(main(*sys.argv[1:]))
