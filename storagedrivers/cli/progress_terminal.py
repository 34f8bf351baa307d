"""The display of a build on a terminal: finished steps stay, a line each; below them are those that
run, with what they wrote last.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Self

from storagedrivers.build.events import Built, Step, StepDone, StepFailed
from storagedrivers.cli import output
from storagedrivers.cli.progress import Display, Lines, ended, seconds, source

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

_PATIENCE = 0.2  # seconds until what runs is shown; a build from the cache has ended by then
_INTERVAL = 0.1  # seconds
_LAST = 4  # lines of a step that are shown while it runs
_KEPT = 50  # and when it fails
_ENOUGH = 1000  # characters of a line
_USUAL_WIDTH = 80
_MARGIN = 20 * " "  # below the time and the size


class _Running:
    def __init__(self, step: Step) -> None:
        self.step = step
        self.since = time.monotonic()
        self.lines = Lines(_ENOUGH)
        self.last: deque[str] = deque(maxlen=_KEPT)


class Terminal(Display):
    """The display; a thread of its own draws what runs, after a while.

    Only then ``rich`` is imported, which takes longer than a build where all is cached.
    """

    def __init__(self, *, explain: bool) -> None:
        self._explain = explain
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="display", daemon=True)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()

    # What runs

    def _draw(self) -> None:
        if self._stop.wait(_PATIENCE):
            return
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(stderr=True, highlight=False),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )
        with self._lock:
            live.start()
            self._live = live
        while not self._stop.wait(_INTERVAL):
            with self._lock:
                self._refresh(live)

    def _refresh(self, live: Live) -> None:
        from rich.console import Group

        live.update(Group(*self._texts()), refresh=True)

    def _texts(self) -> list[Text]:
        from rich.text import Text

        now = time.monotonic()
        found = []
        for one in self._running.values():
            passed = f"{now - one.since:.0f}s"
            found.append(_line(Text(f"{passed:>8} {'':>9}  {_place(one.step)}", style="bold")))
            last = [*one.last, *one.lines.begun()][-_LAST:]
            found += [_line(Text(f"{_MARGIN}{text}", style="dim")) for text in last]
        return found

    # What has happened

    def _say(self, *lines: str) -> None:
        """Print lines that stay."""
        if self._live is None:
            for line in lines:
                output.note(line)
            return
        from rich.text import Text

        with self._live.console:  # which then writes once
            self._refresh(self._live)
            self._live.console.print(*map(Text, lines), sep="\n")

    def _started(self, step: Step) -> None:
        with self._lock:
            self._running[step.number] = _Running(step)

    def _wrote(self, step: Step, data: bytes) -> None:
        with self._lock:
            running = self._running[step.number]
            running.last += running.lines.feed(data)

    def _done(self, done: StepDone) -> None:
        with self._lock:
            del self._running[done.step.number]
            state = "CACHED" if done.cached else seconds(done.seconds)
            lines = [_finished(state, done.step, done.size)]
            if self._explain and done.why:
                lines.append(f"{_MARGIN}not cached: {done.why}")
            self._say(*lines)

    def _failed(self, failed: StepFailed, *, stopped: bool) -> None:
        with self._lock:
            running = self._running.pop(failed.step.number)
            last = () if stopped else (*running.last, *running.lines.end())
            self._say(_finished("STOPPED" if stopped else "FAILED", failed.step), *last)

    def _note(self, text: str) -> None:
        with self._lock:
            self._say(*output.printable(text).split("\n"))

    def _built(self, built: Built) -> None:
        with self._lock:
            self._say(*ended(built), f"in {seconds(built.seconds)}, {output.size(built.size)}")


def _line(text: Text) -> Text:
    """A text that is cut at the end of its line."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _place(step: Step) -> str:
    stage = "" if step.stage.isdigit() else f"{step.stage} "
    return f"{stage}{step.number}/{step.total} {source(step)}"


def _finished(state: str, step: Step, size: int = 0) -> str:
    shown = output.size(size) if size else ""
    return _cut(f"{state:>8} {shown:>9}  {_place(step)}", _width())


def _width() -> int:
    """Columns of the terminal."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_WIDTH
    except (OSError, ValueError):
        return _USUAL_WIDTH


def _cut(text: str, width: int) -> str:
    """As much of a text as a line of a terminal has room for."""
    used = 0
    for at, character in enumerate(text):
        used += _columns(character)
        if used > width - 1:  # the last column makes some terminals begin a new line
            return f"{text[: max(at - 1, 0)]}…"
    return text


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
