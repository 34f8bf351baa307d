"""What the program prints: tables and colour on a terminal, plain text elsewhere, JSON, errors."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storagedrivers.model import Change


def line(text: str = "") -> None:
    """Print a line of the answer."""
    print(printable(text))


def note(text: str) -> None:
    """Print a line that is not the answer: to standard error."""
    print(printable(text), file=sys.stderr)


def printable(text: str) -> str:
    """The text with control characters made visible: names and facts may come from anywhere."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in text
    )


def prepare() -> None:
    """Have characters that an output cannot show written as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Write out what is buffered.

    Raises:
        OSError: standard output is closed, or its disk is full.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def warning(text: str) -> None:
    """Print a warning, to standard error."""
    note(f"storagedrivers: warning: {text}")


def error(problem: Exception) -> None:
    """Print an error: one sentence with the cause, then details and what to do, to standard
    error. Of a reader that has seen enough nothing is said.
    """
    if isinstance(problem, BrokenPipeError):
        discard()
        return
    if _debugging():
        import traceback

        traceback.print_exception(problem)
    note(f"storagedrivers: {_sentence(problem)}")
    details = getattr(problem, "details", None)
    for detail in details.splitlines() if details else ():
        note(f"  {detail}")
    resolution = getattr(problem, "resolution", None) or _usual_remedy(problem)
    if resolution:
        note(f"  → {resolution}")


def _sentence(problem: Exception) -> str:
    """What the kernel said, without its number where it has words."""
    if type(problem).__str__ is OSError.__str__ and isinstance(problem, OSError):
        name = f"{problem.filename}: " if problem.filename is not None else ""
        return f"{name}{problem.strerror or problem}"
    return str(problem)


def _usual_remedy(problem: Exception) -> str | None:
    number = getattr(problem, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "make room there"
    return "run as root" if number in (errno.EPERM, errno.EACCES) and os.geteuid() else None


def _debugging() -> bool:
    """Whether the log level is debug; without logging it is not."""
    logging = sys.modules.get("logging")
    return logging is not None and logging.getLogger().isEnabledFor(logging.DEBUG)


def document(value: Any) -> None:
    """Print a JSON document."""
    import json

    print(json.dumps(value, indent=2))


def changes(found: Iterable[Change], *, schema: int | None) -> None:
    """Print what is different, a path on each line.

    Args:
        found: the differences.
        schema: print a JSON document with this version instead.
    """
    if schema is None:
        for one in found:
            line(f"{one.kind.value} /{visible(one.path)}")
        return
    documents = [{"kind": one.kind.value, "path": "/" + os.fsdecode(one.path)} for one in found]
    document({"schema": schema, "changes": documents})


def discard() -> None:
    """Send what is still buffered nowhere: standard output takes no more."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


def size(count: int | None) -> str:
    """Bytes for people: three digits and a unit."""
    if count is None:
        return "-"
    value = float(count)
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    return f"{count} B" if unit == "B" else f"{value:.{0 if value >= 100 else 1}f} {unit}"


def duration(seconds: float) -> str:
    """A time for people, in its largest unit."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def visible(path: bytes) -> str:
    """A name of any bytes on one line: what cannot be printed is escaped, as Python does."""
    return "".join(map(_visible, path.decode("utf-8", "surrogateescape")))


def _visible(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


@contextmanager
def progress(
    label: str, total: int | None, *, quiet: bool, counts_bytes: bool = True
) -> Iterator[Callable[..., object] | None]:
    """Show how far something is, on a terminal only.

    Args:
        label: what is done.
        total: how much there is, or None where nobody knows.
        quiet: show nothing.
        counts_bytes: the numbers are bytes; else they are things.

    Yields:
        What takes the number that is done, and that of all where it is known only now; or None
        where nothing is shown.
    """
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (DownloadColumn(), TransferSpeedColumn()) if counts_bytes else (MofNCompleteColumn(),)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *counts,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda done, total=total: bar.update(task, completed=done, total=total)


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, marked: int | None = None
) -> None:
    """Print a table; lines in a cell stay lines.

    Args:
        headers: the columns' names.
        rows: a cell for each column.
        marked: the row that stands out.
    """
    safe = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout is not None and sys.stdout.isatty():
        _rich_table(headers, safe, marked)
    else:
        _plain_table(headers, safe)


def _plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [
        max(len(part) for row in (headers, *rows) for part in row[column].splitlines() or [""])
        for column in range(len(headers))
    ]
    for row in (headers, *rows):
        cells = [cell.splitlines() or [""] for cell in row]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            text = "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))
            print(text.rstrip())


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]], marked: int | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for number, header in enumerate(headers):
        drawn.add_column(header, no_wrap=number < len(headers) - 1, overflow="fold")
    for number, row in enumerate(rows):
        drawn.add_row(*map(Text, row), style="bold green" if number == marked else None)
    Console().print(drawn)
