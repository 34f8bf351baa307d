"""Whatever a Dockerfile says, it is read at once, or refused with a sentence."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagedrivers.dockerfile.instructions import WORDS
from storagedrivers.dockerfile.parser import parse, parse_instruction
from storagedrivers.dockerfile.stages import resolve
from storagedrivers.dockerfile.variables import Scope, expand_instruction
from storagedrivers.dockerfile.words import expand, raw_words, split
from storagedrivers.errors import DockerfileError

_PIECES = st.sampled_from(
    [
        *WORDS,
        *("a", "b", "$", "{", "}", "${", "$A", "${A:-", "${A#", "${A/", ":", "?", "-", "*", "="),
        *(" ", "  ", "\t", "\n", "\r\n", "\\", "\\\n", "`", "'", '"', "#", "# escape=`\n", "\0"),
        *("--", "--from=", "--mount=", "--link ", "[", "]", '["a"]', ",", "1", "null", "<<", "<<-"),
        *("\nEOF\n", "EOF", "\tEOF\n", "\u00a0", "é", "😀", "\ufeff", "\udc80", "/", "..", "0"),
    ]
)
_TEXTS = st.lists(_PIECES, max_size=30).map("".join)


def check(error: DockerfileError) -> None:
    assert error.brief
    assert error.resolution
    assert str(error.details).replace("\n", "").isprintable()


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), _TEXTS, _TEXTS.map(lambda text: f"FROM x\n{text}")))
def test_any_text(text: bytes | str) -> None:
    try:
        found = parse(text)
        plan = resolve(found, build_args={"A": "a$A"})
        scope = Scope(found.arguments, {"A": "1"}, escape=found.escape)
        for one in plan.stages[-1].stage.instructions:
            expand_instruction(one, scope.environment(["B=$"]), found.escape)
    except DockerfileError as error:
        check(error)
    else:
        for stage in found.stages:
            for one in stage.instructions:
                assert 0 < one.line <= one.last_line <= len(found.lines)
                assert one.word in WORDS


@settings(deadline=None)
@given(_TEXTS)
def test_any_one_instruction(text: str) -> None:
    try:
        found = parse_instruction(text)
    except DockerfileError as error:
        check(error)
    else:
        assert found.line == found.last_line == 0


@settings(deadline=None)
@given(_TEXTS, st.sampled_from("\\`"))
def test_any_word(text: str, escape: str) -> None:
    environment = {"A": "x y", "a": ""}
    try:
        whole = expand(text, environment, escape=escape)
        words = split(text, environment, escape=escape)
    except DockerfileError as error:
        check(error)
    else:
        assert "".join("".join(words).split()) == "".join(whole.split())


@settings(deadline=None)
@given(_TEXTS, st.sampled_from("\\`"))
def test_words_as_written_are_of_the_text(text: str, escape: str) -> None:
    for word, at in raw_words(text, 0, escape):
        assert text.startswith(word, at)


_MEGABYTE = 1 << 20
_LINE = 60_000


def _long(word: str, piece: str) -> str:
    """An instruction of about a megabyte, over several lines."""
    line = piece * (_LINE // len(piece.encode()))
    return f"FROM x\n{word} " + "\\\n".join([line] * (_MEGABYTE // _LINE))


_HOSTILE = {
    **{
        f"{word} {piece}": _long(word, piece)
        for word, pieces in {
            "RUN": ("<<a ", "--mount=x ", "["),
            "ENV A=": ('"$', "${a:-x}", "é"),
            "ENV": ("a ",),
            "COPY": ("a ", '"', "--a "),
            "LABEL A=": ("${a:-", "${a/*b/"),
            "CMD": ('["a",',),
            "EXPOSE": ("$a",),
            "HEALTHCHECK": ("CMD ",),
            "ONBUILD": ("ONBUILD ", "RUN <<a "),
        }.items()
        for piece in pieces
    },
    "continued lines": "FROM x\nRUN " + "\\\n" * (_MEGABYTE // 2),
    "empty lines": "FROM x\nRUN a\\\n" + "\n" * _MEGABYTE,
    "blanks": "FROM x\n" + (" " * _LINE + "\n") * 16,
    "a directive": "# escape=" + " " * _LINE + "x",
    "comments": "#\n" * (_MEGABYTE // 2) + "FROM x",
    "stages": "".join(f"FROM x AS a{number}\n" for number in range(20_000)),
    "heredocs": "FROM x\n" + "RUN <<a\na\n" * 20_000,
    "a heredoc": "FROM x\nRUN <<a\n" + "b\n" * (_MEGABYTE // 2),
}


@pytest.mark.parametrize("text", _HOSTILE.values(), ids=_HOSTILE)
def test_a_megabyte_takes_no_time(text: str) -> None:
    began = time.process_time()
    try:
        parse(text)
    except DockerfileError as error:
        check(error)
    assert time.process_time() - began < 2


def test_stages_that_need_each_other_take_no_time() -> None:
    text = "".join(f"FROM a{number + 1} AS a{number}\n" for number in range(2_000))
    began = time.process_time()
    with pytest.raises(DockerfileError):
        resolve(parse(text + "FROM a0"))
    text = "FROM x AS a0\n" + "".join(f"FROM a{one} AS a{one + 1}\n" for one in range(2_000))
    assert len(resolve(parse(text)).stages) == 2_001
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "text",
    ["${A##*a*a*a*a*a*b}", "${A%%*a*a*a*a*b?}", "${A//a*a*a*b/c}", "${A#*a*a*a*a*a*a*c}"],
)
def test_patterns_take_no_time(text: str) -> None:
    value = "a" * 100_000
    began = time.process_time()
    assert expand(text, {"A": value}) == value
    assert time.process_time() - began < 2
