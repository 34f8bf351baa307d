"""What the display of a build makes of events, and the options of ``build``; without a store."""

from __future__ import annotations

import argparse
import json
import os
import pty
import sys
from collections.abc import Sequence

import pytest

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
from storagedrivers.cli import build_options, progress, progress_terminal
from storagedrivers.cli.main import main
from storagedrivers.errors import StoreError

LAYER = "abcdefghijklmnopqrstuvwxyz"


def step(number: int, source: str = "RUN make", stage: str = "0") -> Step:
    return Step(number, 9, stage, source, source.split()[0], number + 100)


def done(one: Step, *, cached: bool = False, size: int = 0, why: str = "") -> StepDone:
    return StepDone(one, cached, 1.23, LAYER if size else None, size, why)


def told(capsys: pytest.CaptureFixture[str], shown: progress.Display, *events: Event) -> str:
    """What is shown of events; nothing of it goes to standard output."""
    with shown:
        for event in events:
            shown(event)
    out, err = capsys.readouterr()
    assert out == ""
    return err


SIDE_BY_SIDE: Sequence[Event] = (
    StepStarted(step(1)),
    StepOutput(step(1), b"one\ntw"),
    StepStarted(step(5, "RUN other")),
    StepOutput(step(1), b"o\n"),
    StepOutput(step(5), b"five\n"),
    done(step(1), size=2048),
    StepOutput(step(5), b"alone"),
    done(step(5), cached=True, size=1),
)


def test_plain_says_whose_line_it_is_where_steps_run_side_by_side(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told(capsys, progress.Plain(explain=False), *SIDE_BY_SIDE).splitlines() == [
        "Step 1/9 : RUN make",
        "one",
        "Step 5/9 : RUN other",
        "#1 two",
        "#5 five",
        "#1  ---> DONE 1.2s 2.0 KiB abcdefghijkl",
        "alone",
        " ---> CACHED 1 B abcdefghijkl",
    ]


def test_plain_tells_all_of_a_build(capsys: pytest.CaptureFixture[str]) -> None:
    events = (
        Note("what to know"),
        StepStarted(step(1, "RUN a\n  b")),
        done(step(1), why="USER 1 → 2"),
        StepStarted(step(2)),
        StepFailed(step(2), 0.06),
        StepStarted(step(3)),
        StepFailed(step(3), 0.5),
        Built(f"sha256:{'0123456789abcdef' * 4}", ("docker.io/library/a:1", "host:5/b:2"), 3.0, 5),
    )
    lines = [
        "what to know",
        "Step 1/9 : RUN a   b",
        " ---> DONE 1.2s",
        "Step 2/9 : RUN make",
        " ---> FAILED 0.1s",
        "Step 3/9 : RUN make",
        " ---> STOPPED 0.5s",
        "Successfully built 0123456789ab",
        "Successfully tagged a:1",
        "Successfully tagged host:5/b:2",
    ]
    assert told(capsys, progress.Plain(explain=False), *events).splitlines() == lines
    lines.insert(2, " ---> not cached: USER 1 → 2")
    assert told(capsys, progress.Plain(explain=True), *events).splitlines() == lines


def test_quiet_shows_the_end_of_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    written = b"".join(b"line %d\n" % number for number in range(200))
    events = (
        StepStarted(step(1)),
        StepOutput(step(1), b"not shown\n"),
        done(step(1)),
        StepStarted(step(2)),
        StepOutput(step(2), written + b"the end"),
    )
    assert told(capsys, progress.Quiet(), *events) == ""
    shown = told(capsys, progress.Quiet(), *events, StepFailed(step(2), 0.1)).splitlines()
    assert len(shown) == 50
    assert (shown[0], shown[-1]) == ("line 151", "the end")
    both = (StepStarted(step(3)), StepFailed(step(3), 0.1), StepFailed(step(2), 0.1))
    assert told(capsys, progress.Quiet(), *events, *both) == "", "it was only stopped"


def test_json_keeps_every_byte_of_what_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    data = "ö \x1b[31m\r\n".encode() + b"\xff"
    written = [StepOutput(step(1), data[at : at + 1]) for at in range(len(data))]
    shown = told(capsys, progress.Json(), StepStarted(step(1)), *written, done(step(1)))
    found = [json.loads(line) for line in shown.splitlines()]
    text = "".join(one["text"] for one in found if one["event"] == "output")
    assert os.fsencode(text) == data
    assert found[-1]["event"] == "step-done"
    assert "" not in [one.get("text") for one in found]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"plain", "plain"),
        (b"\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "red link"),
        (b"10%\r20%\r30%", "30%"),
        (b"dos line\r", "dos line"),
        (b"a\tb", "a       b"),
        (b"\xff\x00\x01\x1b", "\\xff\\x01\\x1b"),
        ("wörter".encode(), "wörter"),
    ],
)
def test_line_is_shown_without_what_a_terminal_obeys(written: bytes, shown: str) -> None:
    assert progress.shown(written) == shown
    assert shown.isprintable()


def test_line_that_does_not_end_is_shown_in_pieces() -> None:
    lines = progress.Lines()
    pieces = [piece for _ in range(300) for piece in lines.feed(b"x" * 1000)]
    assert len(pieces) == 4
    assert "".join(pieces + lines.begun()) == "x" * 300_000
    assert lines.end() == ["x" * (300_000 - sum(map(len, pieces)))]
    assert lines.end() == []


@pytest.mark.parametrize("byte", [b"x", b"\1", b"\t", "世".encode(), b"\x1b[1m", b"\xff"])
def test_line_of_a_terminal_is_cut_before_anything_is_made_of_it(byte: bytes) -> None:
    """Drawn ten times a second, whole lines would take longer than that."""
    lines = progress.Lines(1000)
    for piece in (*lines.feed(byte * 30_000), *lines.feed(byte * 30_000 + b"\n")):
        assert len(piece) <= 8000
    lines.feed(b"a" * 60_000 + b"\rthe end")
    assert lines.begun() == ["the end"]
    assert progress.shown("世".encode() * 2000, 1000) == "世" * 1000


class Pty:
    """Standard error is a terminal of a size."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
        import termios

        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        monkeypatch.setattr(sys, "stderr", self.stream)

    def read(self) -> str:
        self.stream.close()
        shown = b""
        try:
            while data := os.read(self.ours, 4096):
                shown += data
        except OSError:  # the other end is closed
            pass
        os.close(self.ours)
        return shown.decode()


@pytest.mark.parametrize("columns", [32, 60, 200])
def test_finished_steps_take_one_line_of_a_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_terminal, "_PATIENCE", 100)  # nothing is drawn
    terminal = Pty(monkeypatch, columns)
    one = step(3, f"RUN 世界 {'long ' * 100}", stage="tools")
    with progress_terminal.Terminal(explain=False) as shown:
        shown(StepStarted(one))
        shown(done(one, size=1_500_000))
    (line,) = terminal.read().splitlines()
    assert line.startswith("    1.2s   1.4 MiB  tools 3/9")
    assert line.endswith("…")
    assert len(line) + line.count("世") + line.count("界") < columns


@pytest.mark.parametrize(
    ("kind", "term", "expected"),
    [
        ("auto", "xterm", progress_terminal.Terminal),
        ("auto", "dumb", progress.Plain),
        ("plain", "xterm", progress.Plain),
        ("tty", "dumb", progress_terminal.Terminal),
        ("json", "xterm", progress.Json),
    ],
)
def test_kind_of_display(
    kind: str, term: str, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Pty(monkeypatch, 80)
    monkeypatch.setenv("TERM", term)
    found = progress.display(kind, explain=False, quiet=False)
    terminal.read()
    assert type(found) is expected
    assert type(progress.display("auto", explain=False, quiet=True)) is progress.Quiet


# Options


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    build_options.configure(parser)
    return parser.parse_args(words)


def test_switch_takes_a_value_only_behind_an_equals_sign() -> None:
    """``--no-cache .`` has the context behind it, as with Docker."""
    for words in (("--no-cache", "dir"), ("--no-cache=true", "dir"), ("--no-cache=1", "dir")):
        assert (parsed(*words).no_cache, parsed(*words).context) == (True, "dir")
    assert parsed("--no-cache", "--no-cache=false").no_cache is False
    assert parsed("--rm", "--pull").context == "."


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        ((), []),
        (("--pull=never",), []),
        (("--pull=false",), []),
        (("--pull",), ["--pull: nothing is pulled; the base images are those of the store"]),
        (("--pull=always",), ["--pull: nothing is pulled; the base images are those of the store"]),
        (("-m", "1g"), ["-m: taken and not used; a RUN is not limited"]),
    ],
)
def test_options_that_do_less_are_told(words: tuple[str, ...], notes: list[str]) -> None:
    assert [*build_options.notes_of(parsed(*words))] == notes


def test_build_args_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "value")
    monkeypatch.delenv("NOWHERE", raising=False)
    words = [f"--build-arg={one}" for one in ("A=1", "A=2=3", "B=", "HERE", "NOWHERE")]
    assert build_options.build_args_of(parsed(*words)) == {"A": "2=3", "B": "", "HERE": "value"}
    words = ["--label=a=b=c", "--label=d", "--label=a=e"]
    assert build_options.labels_of(parsed(*words)) == {"a": "e", "d": ""}
    for option in ("--build-arg==x", "--label==x"):
        with pytest.raises(StoreError, match="has no name"):
            build_options.build_args_of(parsed(option)) or build_options.labels_of(parsed(option))


def test_cache_from() -> None:
    words = ("--cache-from=a,b:1", "--cache-from=type=registry,ref=host/c", "--cache-from=")
    assert build_options.cache_from_of(parsed(*words)) == ["a", "b:1", "host/c"]
    for text in ("type=local,src=x", "type=gha"):
        with pytest.raises(StoreError, match="is not taken"):
            build_options.cache_from_of(parsed(f"--cache-from={text}"))


def test_refused_options_name_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--secret", "-o", "--output", "--check", "--provenance"):
        assert main(["build", option, "."]) == 1
        assert f"storagedrivers: {option} is not taken: " in capsys.readouterr().err
