from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from storagedrivers.runtime.logs import Writer, read_log


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "log.json")


def _texts(path: str, **options: int | float | None) -> list[str]:
    return [one.text for one in read_log(path, **options)]  # type: ignore[arg-type]


def test_lines(path: str) -> None:
    """A line is a document; what has no end yet is written with what ends it, or at the end."""
    with Writer(path) as writer:
        writer.write("stdout", b"one\ntw")
        writer.write("stderr", b"error\n")
        writer.write("stdout", b"o\nthree")
    documents = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert [(one["stream"], one["log"]) for one in documents] == [
        ("stdout", "one\n"),
        ("stderr", "error\n"),
        ("stdout", "two\n"),
        ("stdout", "three"),
    ]
    assert all(set(one) == {"log", "stream", "time"} for one in documents)
    assert all(one["time"].endswith("Z") and "." in one["time"] for one in documents)


def test_characters_cut_in_two(path: str) -> None:
    """A character whose bytes come in two pieces is whole; a byte that is none is replaced."""
    euro = "€".encode()
    with Writer(path) as writer:
        writer.write("stdout", euro[:1])
        writer.write("stdout", euro[1:] + b"\xff\n")
    assert _texts(path) == ["€\ufffd\n"]


def test_long_lines(path: str) -> None:
    """A long line is several documents, and comes out as it went in; nothing is kept for ever."""
    with Writer(path) as writer:
        writer.write("stdout", b"x" * 40000)
        assert len(_texts(path)) == 2
        writer.write("stdout", b"\ny\n")
    texts = _texts(path)
    assert "".join(texts) == "x" * 40000 + "\ny\n"
    assert max(map(len, texts)) <= 16384


@pytest.mark.parametrize("tail", [0, 1, 3, 9, 10, 11, None])
def test_tail(path: str, tail: int | None) -> None:
    """The last lines, or all where there are fewer."""
    lines = [f"{number}\n" for number in range(10)]
    with Writer(path) as writer:
        writer.write("stdout", "".join(lines).encode())
    assert _texts(path, tail=tail) == (
        lines if tail is None else lines[10 - tail if tail < 10 else 0 :]
    )


def test_tail_of_a_long_log(path: str) -> None:
    """The end is found without reading what comes before, also across the pieces that are read."""
    with Writer(path) as writer:
        for number in range(3000):
            writer.write("stdout", b"%d %s\n" % (number, b"x" * 100))
    assert [one.split()[0] for one in _texts(path, tail=1500)] == [*map(str, range(1500, 3000))]


def test_since(path: str) -> None:
    """Only what was written at that moment or later."""
    times = ["2024-05-01T12:00:00.5Z", "2024-05-01T12:00:01.000000001Z", "2024-05-01T12:00:02Z"]
    Path(path).write_text(
        "".join(
            json.dumps({"log": f"{one}\n", "stream": "stdout", "time": one}) + "\n" for one in times
        )
    )
    assert _texts(path, since=1714564801.0) == [f"{one}\n" for one in times[1:]]


def test_damage(path: str) -> None:
    """Half a line that a crash left, and what is no document, are passed over."""
    with Writer(path) as writer:
        writer.write("stdout", b"one\n")
    with open(path, "a") as file:
        file.write('{"log": "half\n[1]\n"text"\n')
    with Writer(path) as writer:
        writer.write("stdout", b"two\n")
    with open(path, "a") as file:
        file.write('{"log": "unfinished')
    assert _texts(path) == ["one\n", "two\n"]


def test_no_log(path: str) -> None:
    """A container that never ran has an empty log."""
    assert _texts(path) == []


def test_follow(path: str) -> None:
    """What is written before the end is not lost, however late it comes."""
    with Writer(path) as writer:
        writer.write("stdout", b"first\n")

        def goes_on() -> Iterator[bool]:
            yield True
            writer.write("stdout", b"second\n")
            yield True
            writer.write("stdout", b"last\n")
            yield False

        answers = goes_on()
        entries = read_log(path, tail=0, follow=lambda: next(answers))
        assert [one.text for one in entries] == ["second\n", "last\n"]
