"""Dockerfiles read as another program reads them: a port of BuildKit's parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dockerfile_samples import SAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from storagedrivers.dockerfile.heredocs import mark
from storagedrivers.dockerfile.instructions import Instruction
from storagedrivers.dockerfile.parser import parse
from storagedrivers.dockerfile.words import expand, split
from storagedrivers.errors import DockerfileError

other = pytest.importorskip("e2b_dockerfile_utils", reason="the other parser is not installed")

_EXAMPLES = Path(__file__).parents[2] / "examples"
_FILES = {str(one.relative_to(_EXAMPLES)): one.read_text() for one in _EXAMPLES.rglob("Dockerfile")}


@pytest.mark.parametrize("text", [*SAMPLES.values(), *_FILES.values()], ids=[*SAMPLES, *_FILES])
def test_the_same_instructions(text: str) -> None:
    assert list(ours(text)) == list(theirs(text))


def ours(text: str) -> Iterator[tuple[Any, ...]]:
    found = parse(text)
    instructions = list(found.arguments)
    for stage in found.stages:
        instructions += (stage.base, *stage.instructions)
    for one in instructions:
        flags = [f"--{name}={value}" for name, value in one.flags]
        yield one.word, _written(one), flags, one.exec_form, one.line, one.last_line, one.heredocs


def _written(one: Instruction) -> list[str]:
    return [*one.arguments] if one.word != "ONBUILD" else [one.text]


def theirs(text: str) -> Iterator[tuple[Any, ...]]:
    for one in other.parse_dockerfile_ast(text).instructions:
        flags = [re.sub(r"^--link(=true)?$", "--link=", flag) for flag in one.flags]
        bodies = [
            (
                body.name,
                other.chomp_heredoc_content(body.content) if body.chomp else body.content,
                body.expand,
            )
            for body in one.heredocs
        ]
        lines = one.start_line, one.end_line
        yield one.name, _arguments(one), flags, one.json, *lines, tuple(bodies)


def _arguments(one: Any) -> list[str]:
    """In our form: no signs between names and values, ports sorted, names of heredocs bare."""
    words = list(one.args)
    if one.name in ("ENV", "LABEL"):
        return [word for number, word in enumerate(words) if number % 3 < 2]
    if one.name == "ONBUILD":
        return [one.original.split(None, 1)[1]]
    if one.name == "EXPOSE":
        return sorted(words)
    if one.name == "HEALTHCHECK":
        return [words[0].upper(), *words[1:]]
    if one.name in ("ADD", "COPY"):
        found = [(mark(word), word) for word in words]
        return [f"<<{heredoc.name}" if heredoc else word for heredoc, word in found]
    return words


_TEXTS = st.lists(
    st.sampled_from(
        [
            *(
                "a",
                "b",
                " ",
                "  ",
                "'",
                '"',
                "\\",
                "`",
                "$",
                "{",
                "}",
                "é",
                "\u00a0",
                "_",
                "1",
                "0",
            ),
            *("${", "$A", "${A}", "$B", "${E:-", "${U-", "${U:+", "${A+", "${A?", "${A:?"),
            *("${L##*/", "${L%.*", "${L/lo", ":", "?", "-", "+", "#", "%", "/", "*", "="),
        ]
    ),
    max_size=14,
).map("".join)
_ENVIRONMENT = {"A": "1", "B": "x y", "E": "", "L": "/usr/local/lib.tar.gz"}


@settings(deadline=None)
@given(_TEXTS)
def test_the_same_words(text: str) -> None:
    lexer = other.ShellLex("\\", env=_ENVIRONMENT, skip_unset_env=False)
    try:
        expected = lexer.process_word(text)
    except ValueError:
        with pytest.raises(DockerfileError):
            expand(text, _ENVIRONMENT)
        return
    assert expand(text, _ENVIRONMENT) == expected
    # It keeps some empty words that Docker does not.
    words = [word for word in lexer.process_words(text) if word]
    assert split(text, _ENVIRONMENT) == words
