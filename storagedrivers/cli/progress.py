"""Shows how a build goes, on standard error: lines as ``docker build`` has them, JSON, or a display
on a terminal.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from storagedrivers.build.events import (
    Built,
    Event,
    Note,
    Step,
    StepDone,
    StepFailed,
    StepOutput,
    StepStarted,
)
from storagedrivers.cli import output
from storagedrivers.config import variable
from storagedrivers.oci import reference

if TYPE_CHECKING:
    import codecs

KINDS = ("auto", "plain", "tty", "json")

_SHORT = 12  # characters of an id that are enough for a person
_LONGEST = 64 << 10  # bytes that are shown though their line has not ended
_BYTES = 4  # of a character, at most
_KEPT = 50  # lines of a command that are shown when it fails
_NO_NETWORK = re.compile(rb"(?i)resolv|name resolution|unreachable|bad address|unknown host")
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # colours, cursors
    r"|[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles, links and other strings
    r"|[ -/]*[0-~])"
)


def display(kind: str, *, explain: bool, quiet: bool) -> Display:
    """What is told the events of a build; a context manager that ends the display.

    Args:
        kind: one of :data:`KINDS`.
        explain: also say why the cache had nothing for a step.
        quiet: say nothing, but for what a command wrote that fails.
    """
    if quiet or sys.stderr is None:  # what is printed there would go to standard output
        return Quiet()
    if kind == "json":
        return Json()
    if kind == "tty" or (kind == "auto" and _is_terminal()):
        from storagedrivers.cli.progress_terminal import Terminal

        return Terminal(explain=explain)
    return Plain(explain=explain)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and variable("TERM") != "dumb"


class Display:
    """What is told the events of a build, one at a time.

    Attributes:
        missed_network: a command complained that it did not reach something.
    """

    missed_network = False
    _has_failed = False

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case StepStarted(step):
                self._started(step)
            case StepOutput(step, data):
                self.missed_network |= _NO_NETWORK.search(data) is not None
                self._wrote(step, data)
            case StepDone():
                self._done(event)
            case StepFailed():
                # Those that fail after the first one were stopped.
                self._failed(event, stopped=self._has_failed)
                self._has_failed = True
            case Note(text):
                self._note(text)
            case Built():
                self._built(event)

    def _started(self, step: Step) -> None:
        pass

    def _wrote(self, step: Step, data: bytes) -> None:
        pass

    def _done(self, done: StepDone) -> None:
        pass

    def _failed(self, failed: StepFailed, *, stopped: bool) -> None:
        pass

    def _note(self, text: str) -> None:
        pass

    def _built(self, built: Built) -> None:
        pass

    def error(self, problem: Exception) -> None:
        """Show what the build failed of."""
        output.error(problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class Lines:
    """Cuts what a command writes into lines that can be shown.

    Args:
        width: characters of a line that are enough; None for all of them.
    """

    def __init__(self, width: int | None = None) -> None:
        self._width = width
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that have ended; a very long one is not waited for."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            whole, self._rest = [*whole, self._rest], b""
        return [shown(line, self._width) for line in whole]

    def begun(self) -> list[str]:
        """The line that has not ended yet, if there is one."""
        return [shown(self._rest, self._width)] if self._rest else []

    def end(self) -> list[str]:
        """What is left."""
        rest = self.begun()
        self._rest = b""
        return rest


def shown(line: bytes, width: int | None = None) -> str:
    """A line of a command's as a terminal would have it in the end: what a carriage return writes
    over is gone, and so are NULs, colours and all that moves a cursor.

    Args:
        line: what the command wrote.
        width: characters of it that are enough; None for all of them.
    """
    last = line.rstrip(b"\r").rpartition(b"\r")[2].replace(b"\0", b"")
    if width is not None:  # before anything is made of it that takes long, or longer
        last = last[: width * _BYTES]
    text = _SEQUENCE.sub("", last.decode("utf-8", "backslashreplace"))
    return output.printable(text[:width].expandtabs())


def seconds(count: float) -> str:
    """A time of a step, for people."""
    return f"{count:.1f}s"


def source(step: Step) -> str:
    """The instruction, on one line."""
    return " ".join(output.printable(step.source).split("\n"))


def ended(built: Built) -> list[str]:
    """What people and scripts know a build to end with."""
    return [
        f"Successfully built {built.image.partition(':')[2][:_SHORT]}",
        *(f"Successfully tagged {reference.parse(name).familiar}" for name in built.names),
    ]


class Plain(Display):
    """Lines, as the classic builder of Docker has them.

    What a command writes stands below its step. Where stages run side by side, the number of the
    step stands before what is not of the step that was shown last.
    """

    def __init__(self, *, explain: bool) -> None:
        self._explain = explain
        self._running: dict[int, Lines] = {}
        self._last = 0

    def _say(self, step: Step, text: str) -> None:
        side_by_side = len(self._running) > 1 or step.number != self._last
        output.note(f"#{step.number} {text}" if side_by_side else text)

    def _started(self, step: Step) -> None:
        self._running[step.number] = Lines()
        self._last = step.number
        output.note(f"Step {step.number}/{step.total} : {source(step)}")

    def _wrote(self, step: Step, data: bytes) -> None:
        for line in self._running[step.number].feed(data):
            self._say(step, line)

    def _end(self, step: Step) -> None:
        for line in self._running[step.number].end():
            self._say(step, line)

    def _done(self, done: StepDone) -> None:
        step = done.step
        self._end(step)
        if self._explain and done.why:
            self._say(step, f" ---> not cached: {done.why}")
        words = ["CACHED"] if done.cached else ["DONE", seconds(done.seconds)]
        if done.size:
            words.append(output.size(done.size))
        if done.layer is not None:
            words.append(done.layer[:_SHORT])
        self._say(step, f" ---> {' '.join(words)}")
        del self._running[step.number]

    def _failed(self, failed: StepFailed, *, stopped: bool) -> None:
        self._end(failed.step)
        word = "STOPPED" if stopped else "FAILED"
        self._say(failed.step, f" ---> {word} {seconds(failed.seconds)}")
        del self._running[failed.step.number]

    def _note(self, text: str) -> None:
        output.note(text)

    def _built(self, built: Built) -> None:
        for line in ended(built):
            output.note(line)


class Quiet(Display):
    """Nothing, until a command fails: then the last that it wrote."""

    def __init__(self) -> None:
        self._lines: dict[int, Lines] = {}
        self._kept: dict[int, deque[str]] = {}

    def _started(self, step: Step) -> None:
        self._lines[step.number] = Lines()
        self._kept[step.number] = deque(maxlen=_KEPT)

    def _wrote(self, step: Step, data: bytes) -> None:
        self._kept[step.number] += self._lines[step.number].feed(data)

    def _done(self, done: StepDone) -> None:
        self._forget(done.step)

    def _failed(self, failed: StepFailed, *, stopped: bool) -> None:
        last = self._forget(failed.step)
        for line in () if stopped else last:
            output.note(line)

    def _forget(self, step: Step) -> deque[str]:
        """The last lines of a step that has ended."""
        kept = self._kept.pop(step.number)
        kept += self._lines.pop(step.number).end()
        return kept


class Json(Display):
    """A JSON document for each event, on a line each: ``docs/schemas/build-event.json``."""

    SCHEMA = 1

    def __init__(self) -> None:
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}

    def _tell(self, event: str, **more: Any) -> None:
        import json

        output.note(json.dumps({"schema": self.SCHEMA, "event": event, **more}))

    def _started(self, step: Step) -> None:
        described = step._asdict()
        self._tell("step-started", step=described.pop("number"), **described)

    def _wrote(self, step: Step, data: bytes) -> None:
        import codecs

        # What is no UTF-8 becomes lone surrogates, as in the names of files.
        if step.number not in self._decoders:
            decoder = codecs.getincrementaldecoder("utf-8")
            self._decoders[step.number] = decoder("surrogateescape")
        self._tell_output(step, self._decoders[step.number].decode(data))

    def _tell_output(self, step: Step, text: str) -> None:
        if text:
            self._tell("output", step=step.number, text=text)

    def _end(self, step: Step) -> None:
        if decoder := self._decoders.pop(step.number, None):
            self._tell_output(step, decoder.decode(b"", final=True))

    def _done(self, done: StepDone) -> None:
        self._end(done.step)
        self._tell("step-done", **{**done._asdict(), "step": done.step.number})

    def _failed(self, failed: StepFailed, *, stopped: bool) -> None:
        self._end(failed.step)
        step = failed.step.number
        self._tell("step-failed", step=step, seconds=failed.seconds, stopped=stopped)

    def _note(self, text: str) -> None:
        self._tell("note", text=text)

    def _built(self, built: Built) -> None:
        self._tell("built", **{**built._asdict(), "names": list(built.names)})

    def error(self, problem: Exception) -> None:
        """Show what the build failed of."""
        self._tell(
            "error",
            message=str(problem),
            details=getattr(problem, "details", None),
            resolution=getattr(problem, "resolution", None),
            line=getattr(problem, "line", 0) or None,
            image=getattr(problem, "image", None),
            exit_code=getattr(problem, "exit_code", 1),
        )
