"""What a ``.dockerignore`` leaves out, and what a pattern matches; Docker was asked all of it."""

from __future__ import annotations

import pytest

from storagedrivers.build import patterns
from storagedrivers.build.ignore import Ignore
from storagedrivers.errors import BuildError


@pytest.mark.parametrize(
    ("lines", "hidden", "seen"),
    [
        ("", [], ["a", ".dockerignore", "Dockerfile"]),
        ("# a\n #b\n\n  ", ["#b"], ["a", "b", " "]),
        ("a", ["a", "a/b", "a/b/c"], ["b", "b/a", "ab", "aa"]),
        ("a/\n/b/.\n  c  \n./d", ["a/x", "b/x", "c", "d"], ["x/a", "x/b"]),
        ("a\r\nb\r", ["a", "b"], ["a\r"]),
        ("../c\nx/../d", ["d"], ["c", "x"]),
        (".\n/", [], ["a", "a/b"]),
        ("*", ["a", "a/b", ".c"], []),
        ("*.txt", ["a.txt", ".txt"], ["a/b.txt", "a.txt.gz"]),
        ("*/*.txt", ["a/b.txt"], ["b.txt", "a/b/c.txt"]),
        ("?.c", ["a.c", "é.c"], ["ab.c", ".c", "/.c"]),
        ("[a-c][^x]", ["ay", "cc"], ["ax", "dy", "a"]),
        ("[!a]", ["!", "a"], ["b"]),
        ("[z-a]\nq", ["q"], ["z", "a", "b"]),
        ("\\*\n\\\\x", ["*", "\\x"], ["a", "x"]),
        ("**", ["a", "a/b"], []),
        ("**/x", ["x", "a/x", "a/b/x", "a/b/x/y"], ["ax", "a/bx"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a**", ["a", "a/b", "ab", "ab/c/d"], ["b", "b/a"]),
        ("a/**/c", ["a/c", "a/b/c", "a/b/b/c"], ["a", "a/b", "ac", "c"]),
        ("a+b\nc(d)\ne.f\ng{1}|h$^", ["a+b", "c(d)", "e.f", "g{1}|h$^"], ["aab", "cd", "exf"]),
        ("a\n!a/x", ["a/y"], ["a/x"]),
        ("!a/x\na", ["a/x", "a/y"], []),
        ("a/*\n!a/b\na/b/y", ["a/z", "a/b/y"], ["a", "a/b", "a/b/x"]),
        ("a\n!a/b", ["a/c"], ["a/b", "a/b/x/y"]),
        ("*\n!**/a", ["d/a", "d/e/a"], ["a"]),
        ("**/foo\n!a/b/foo/keep", ["a/b/foo/x", "foo/keep"], ["a/b/foo/keep"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["x.md", "README-secret.md"], ["README.md"]),
        ("n\udcffn", ["n\udcffn"], ["nn"]),
    ],
)
def test_what_is_left_out(lines: str, hidden: list[str], seen: list[str]) -> None:
    ignore = Ignore(lines.split("\n"))
    assert [path for path in hidden if not ignore.hides(path)] == []
    assert [path for path in seen if ignore.hides(path)] == []


@pytest.mark.parametrize(
    ("lines", "entered", "skipped"),
    [
        ("a\n!a/b/c", ["a", "a/b"], ["a/x", "b", "ab"]),
        ("*\n!**/a", [], ["b", "a"]),
        ("*\n!x*/a", [], ["xy"]),
        ("a", [], ["a"]),
    ],
)
def test_directories_that_are_entered_all_the_same(
    lines: str, entered: list[str], skipped: list[str]
) -> None:
    """What is let in again is looked for only where its line begins with the directory."""
    ignore = Ignore(lines.split("\n"))
    assert [path for path in entered if not ignore.enters(path)] == []
    assert [path for path in skipped if ignore.enters(path)] == []


@pytest.mark.parametrize(
    "line", ["!", " ! ", "[", "[a", "[]", "[a-]", "[-a]", "[^]", "a\\", "x/[a/b", "[a-\\"]
)
def test_lines_that_are_no_pattern(line: str) -> None:
    with pytest.raises(BuildError, match=r"syntax error in pattern|illegal exclusion pattern"):
        Ignore([line])


def test_many_directories_are_not_remembered() -> None:
    ignore = Ignore(["d*/x", "!d7/x"])
    hidden = [number for number in range(10_000) if ignore.hides(f"d{number}/x")]
    assert hidden == [number for number in range(10_000) if number != 7]


@pytest.mark.parametrize(
    ("text", "special"),
    [("a", False), ("a*", True), ("a\\*", False), ("a\\", False), ("\\\\?", True), ("[a]", True)],
)
def test_what_is_a_pattern(text: str, special: bool) -> None:
    assert patterns.has_special(text) is special


@pytest.mark.parametrize("name", ["a", "*", "[a]", "\\", "a?b\\*[^]", "é"])
def test_a_name_as_a_pattern(name: str) -> None:
    assert patterns.compiled(patterns.escaped(name)).fullmatch(name)
    assert not patterns.has_special(patterns.escaped(name))


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("**", ["", "a"], ["a/b"]),
        ("*a*", ["a", "bab", "\na\n"], ["b"]),
        ("[[]x", ["[x"], ["x", "[[]x"]),
        ("[\\]a]*", ["]", "a1"], ["b"]),
        ("[\\^-\\-]", [], ["^", "-"]),
        ("[^\\]]", ["a", "^"], ["]"]),
        (".", ["."], ["a"]),
    ],
)
def test_patterns_of_sources(pattern: str, matching: list[str], others: list[str]) -> None:
    """Two stars are one where no directories are meant."""
    compiled = patterns.compiled(pattern)
    assert [name for name in matching if compiled.fullmatch(name) is None] == []
    assert [name for name in others if compiled.fullmatch(name) is not None] == []
