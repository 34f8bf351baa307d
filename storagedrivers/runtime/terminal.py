"""A terminal of its own for a container's process, and what goes between it and the user's.

The engine always gets a terminal that was made here: so it does not matter whether the user has
one, and the user's own is never the container's.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import termios
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Self

_CHUNK = 65536
_PAUSE = 0.05  # seconds
_LONGEST_NAME = 4096  # of a terminal, which comes with its descriptor

Child = subprocess.Popen[bytes]


class Terminal(ABC):
    """A pseudoterminal; a context manager that closes it.

    Attributes:
        master: our end; below 0 as long as there is none.
        words: options for the engine.
    """

    master = -1
    words: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.master >= 0:
            os.close(self.master)

    @abstractmethod
    def start(self, command: Sequence[str], *, quiet: bool) -> Child:
        """Start the engine, in a process group of its own.

        Args:
            command: what to run.
            quiet: nobody sees what the engine itself has to say.
        """

    @abstractmethod
    def resized(self, child: Child) -> None:
        """To be called when the size of our end has changed."""


class Pair(Terminal):
    """For an engine that has another terminal behind this one, in the container: it changes nothing
    of what goes through.
    """

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)

    def __exit__(self, *_: object) -> None:
        self._close_slave()
        super().__exit__()

    def _close_slave(self) -> None:
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1

    def start(self, command: Sequence[str], *, quiet: bool) -> Child:
        """Start it at the other end."""
        end = self._slave
        child = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, process_group=0)
        self._close_slave()  # when the engine's is closed, that is the end
        return child

    def resized(self, child: Child) -> None:
        """It looks at the size when it gets the signal."""
        child.send_signal(signal.SIGWINCH)


class Console(Terminal):
    """For an engine that hands over the container's own terminal, through a socket.

    Args:
        directory: where the socket can be; its path may be longer than one of a socket.
    """

    def __init__(self, directory: str) -> None:
        self._name = os.path.join(directory, f"console-{os.urandom(8).hex()}")
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX)
        path = f"/proc/{os.getpid()}/fd/{self._directory}/{os.path.basename(self._name)}"
        self.words = ("--console-socket", path)
        self._listener.bind(path)
        self._listener.listen(1)
        self._listener.settimeout(_PAUSE)

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        os.close(self._directory)
        with suppress(FileNotFoundError):
            os.unlink(self._name)
        super().__exit__()

    def start(self, command: Sequence[str], *, quiet: bool) -> Child:
        """Start it, and wait for the terminal, or for its end."""
        out = subprocess.DEVNULL if quiet else None
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0
        )
        while self.master < 0 and child.poll() is None:
            with suppress(TimeoutError):
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(None)
                    _, fds, _, _ = socket.recv_fds(connection, _LONGEST_NAME, 1)
                self.master = fds[0]
        return child

    def resized(self, child: Child) -> None:
        """The kernel tells the container's processes."""


def read(master: int) -> bytes:
    """What was written to a terminal; nothing at its end."""
    try:
        return os.read(master, _CHUNK)
    except OSError:  # EIO: nobody has the other end any more
        return b""


def size() -> tuple[int, int] | None:
    """Rows and columns of the user's terminal, if there is one."""
    fd = _users()
    return None if fd is None else termios.tcgetwinsize(fd)


def _users() -> int | None:
    return next((one for one in (0, 1, 2) if os.isatty(one)), None)


@contextmanager
def raw_input(fd: int) -> Iterator[None]:
    """Have what is typed handed on as it comes; nothing where *fd* is no terminal."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)  # what was typed already is meant for the process
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def same_size(master: int, tell: Callable[[], object]) -> Iterator[None]:
    """Keep a terminal as large as the user's.

    Args:
        master: our end of it.
        tell: is called when the size has changed.
    """
    fd = _users()
    if fd is None:
        yield
        return

    def resize(*_: Any) -> None:
        with suppress(OSError, termios.error):
            termios.tcsetwinsize(master, termios.tcgetwinsize(fd))
            tell()

    resize()
    try:
        before = signal.signal(signal.SIGWINCH, resize)
    except ValueError:  # not the main thread: it stays as large as it is
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def relay(master: int, *, stdin: int | None) -> None:
    """Copy what comes from a terminal to standard output, and *stdin* to it, until its end."""
    sys.stdout.flush()
    with selectors.DefaultSelector() as selector:
        selector.register(master, selectors.EVENT_READ)
        if stdin is not None:
            with suppress(PermissionError):  # a file is always readable, and no selector takes it
                selector.register(stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == master:
                    data = read(master)
                    if not data:
                        return
                    write_all(1, data)
                elif typed := os.read(key.fd, _CHUNK):
                    write_all(master, typed)
                else:
                    selector.unregister(key.fd)


def write_all(fd: int, data: bytes) -> None:
    """Write everything."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
