"""Where a process's input and output go: to the user's, through a terminal, or into a log."""

from __future__ import annotations

import os
import selectors
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import IO

from storagedrivers.runtime import processes, terminal
from storagedrivers.runtime.logs import Writer
from storagedrivers.runtime.terminal import Child, Terminal

_CHUNK = 65536
_BREATH = 0.05  # seconds between two looks whether it is to end


class Stdio(ABC):
    """Starts an engine, and moves bytes until it has ended; a context manager.

    Attributes:
        size: rows and columns of the terminal that the process gets, if they are known.
        words: options for the engine.
    """

    size: tuple[int, int] | None = None
    words: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Stdio:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abstractmethod
    def start(self, command: Sequence[str]) -> Child:
        """Start the engine, in a process group of its own."""

    @abstractmethod
    def wait(self, child: Child) -> None:
        """Return when it has ended, and everything that it wrote is where it belongs."""


class Attached(Stdio):
    """The user's own standard input, output and error.

    Args:
        interactive: also the input; else there is none.
    """

    def __init__(self, *, interactive: bool) -> None:
        super().__init__()
        self._stdin = None if interactive else subprocess.DEVNULL

    def start(self, command: Sequence[str]) -> Child:
        """Start it."""
        return processes.spawn(command, stdin=self._stdin)

    def wait(self, child: Child) -> None:
        """Nothing is to be moved."""
        child.wait()


class AttachedTerminal(Stdio):
    """A terminal, shown in the user's.

    Args:
        made: the terminal.
        interactive: what is typed goes to it.
    """

    def __init__(self, made: Terminal, *, interactive: bool) -> None:
        super().__init__()
        self._terminal = self._stack.enter_context(made)
        self._interactive = interactive
        self.words = made.words
        self.size = terminal.size()

    def start(self, command: Sequence[str]) -> Child:
        """Start it."""
        return self._terminal.start(command, quiet=False)

    def wait(self, child: Child) -> None:
        """Show what it writes, and give it what is typed."""
        master = self._terminal.master
        if master >= 0:  # else it failed before there was one
            with ExitStack() as stack:
                tell = partial(self._terminal.resized, child)
                stack.enter_context(terminal.same_size(master, tell))
                if self._interactive:
                    stack.enter_context(terminal.raw_input(0))
                terminal.relay(master, stdin=0 if self._interactive else None)
        child.wait()


class Logged(Stdio):
    """A log; nobody types.

    Args:
        path: the log's file.
        keep_input: reading waits for ever, rather than being at the end at once.
    """

    def __init__(self, path: str, *, keep_input: bool) -> None:
        super().__init__()
        self._writer = self._stack.enter_context(Writer(path))
        self._stdin = subprocess.PIPE if keep_input else subprocess.DEVNULL

    def start(self, command: Sequence[str]) -> Child:
        """Start it with a pipe for each stream."""
        pipe = subprocess.PIPE
        return processes.spawn(command, stdin=self._stdin, stdout=pipe, stderr=pipe)

    def wait(self, child: Child) -> None:
        """Write down what comes."""
        streams: dict[IO[bytes], str] = {}
        if child.stdout and child.stderr:
            streams = {child.stdout: "stdout", child.stderr: "stderr"}
        with selectors.DefaultSelector() as selector:
            for stream in streams:
                selector.register(stream, selectors.EVENT_READ)
            while streams:
                for key, _ in selector.select():
                    stream = key.fileobj  # type: ignore[assignment]
                    data = os.read(key.fd, _CHUNK)
                    self._writer.write(streams[stream], data)
                    if not data:
                        selector.unregister(stream)
                        streams.pop(stream)
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()


class Piped(Stdio):
    """One pipe for both streams, handed on as it comes; nobody types.

    Args:
        output: takes what is written.
        check: raises where it is to end before its time; called again and again.
    """

    def __init__(self, output: Callable[[bytes], object], check: Callable[[], object]) -> None:
        super().__init__()
        self._output = output
        self._check = check

    def start(self, command: Sequence[str]) -> Child:
        """Start it."""
        null, pipe, same = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
        child = processes.spawn(command, stdin=null, stdout=pipe, stderr=same)
        assert child.stdout
        self._stack.callback(child.stdout.close)
        return child

    def wait(self, child: Child) -> None:
        """Hand on what comes, until the pipe is closed and the engine has ended."""
        assert child.stdout
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            selector.register(child.stdout, selectors.EVENT_READ)
            with suppress(OSError):  # before Linux 5.3
                ended = os.pidfd_open(child.pid)
                stack.callback(os.close, ended)
                selector.register(ended, selectors.EVENT_READ)
            while selector.get_map():
                self._check()
                for key, _ in selector.select(_BREATH):
                    data = os.read(key.fd, _CHUNK) if key.fileobj is child.stdout else b""
                    if data:
                        self._output(data)
                    else:
                        selector.unregister(key.fileobj)
        while child.poll() is None:
            self._check()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_BREATH)


class LoggedTerminal(Stdio):
    """A terminal that nobody sees; what is written to it goes into a log.

    Args:
        made: the terminal.
        path: the log's file.
    """

    def __init__(self, made: Terminal, path: str) -> None:
        super().__init__()
        self._terminal = self._stack.enter_context(made)
        self._writer = self._stack.enter_context(Writer(path))
        self.words = made.words

    def start(self, command: Sequence[str]) -> Child:
        """Start it."""
        return self._terminal.start(command, quiet=True)

    def wait(self, child: Child) -> None:
        """Write down what comes."""
        while self._terminal.master >= 0 and (data := terminal.read(self._terminal.master)):
            self._writer.write("stdout", data)
        child.wait()
