"""Words: quotes, escapes, variables; as Docker's lexer has them."""

from __future__ import annotations

import pytest

from storagedrivers.dockerfile.words import expand, raw_words, split
from storagedrivers.errors import DockerfileError

ENVIRONMENT = {
    "PWD": "/home",
    "NULL": "",
    "TWO": "abc  def",
    "AROUND": " ab c ",
    "PATHS": "/usr/local/lib/x.tar.gz",
    "ŝ": "letter",
}

EXPANDED = [
    ("hello", "hello"),
    ("", ""),
    ("he'll'o", "hello"),
    (r"he\'llo", "he'llo"),
    (r"abc\tdef", "abctdef"),
    (r'"abc\tdef"', r"abc\tdef"),
    (r"'abc\tdef'", r"abc\tdef"),
    ("hello\\", "hello"),
    (r"hello\\", "hello\\"),
    (r"'hello\'", "hello\\"),
    ('"it\'s"', "it's"),
    (r'"a\"b\$PWD\\c"', r'a"b$PWD\c'),
    ("\"''\"", "''"),
    ("$.", "$."),
    ("he$1x", "hex"),
    ("he${12}x", "hex"),
    ("$", "$"),
    ("a$", "a$"),
    ("$$PWD", "PWD"),  # $$ is a name, and never set
    ("$@@", "@"),
    ("he$pwd.", "he."),
    ("he$PWD", "he/home"),
    (r"he\$PWD", "he$PWD"),
    (r"he\\$PWD", r"he\/home"),
    ("'$PWD'", "$PWD"),
    ('"$PWD"', "/home"),
    ("\"'$PWD'\"", "'/home'"),
    (r"\${}", "${}"),
    ("he${PWD}xx", "he/homexx"),
    ("${PWD}}", "/home}"),
    ("$ŝ.", "letter."),
    ("$PWDx", ""),
    ("$TWO", "abc  def"),
    ("${X:-000}", "000"),
    ("${NULL:-000}", "000"),
    ("${NULL-000}", ""),
    ("${X-000}", "000"),
    ("${X:-}", ""),
    ("${PWD:-000}", "/home"),
    ("${X:-$PWD}", "/home"),
    ("${X:-${Y:-z}}", "z"),
    ("${X:-${PWD}}", "/home"),
    ("${X:+000}", ""),
    ("${NULL:+000}", ""),
    ("${NULL+000}", "000"),
    ("${PWD:+${X}}", ""),
    ("${PWD:+${PWD}:}", "/home:"),
    ("${X+1}", ""),
    ("${PWD:?no}", "/home"),
    ("${NULL?no}", ""),
    (r"${X:-\$PWD:}", "$PWD:"),
    (r"${X:-a\}b}", "a}b"),
    ("${X:-'a}b'}", "a}b"),
    ('${X:-"a b"}', "a b"),
    ("${X:-bbb {foo}", "bbb {foo"),
    ("${1:+b}${2:-c}", "c"),
    ("${#}${?}${-:-d}", "d"),
    ("${PATHS##*/}", "x.tar.gz"),
    ("${PATHS#*/}", "usr/local/lib/x.tar.gz"),
    ("${PATHS%.*}", "/usr/local/lib/x.tar"),
    ("${PATHS%%.*}", "/usr/local/lib/x"),
    ("${PATHS%/*}", "/usr/local/lib"),
    ("${PATHS%%*}", ""),
    ("${PATHS#x}", "/usr/local/lib/x.tar.gz"),
    ("${PATHS#?usr}", "/local/lib/x.tar.gz"),
    (r"${PATHS#\*}", "/usr/local/lib/x.tar.gz"),
    ("${PATHS/l/L}", "/usr/Local/lib/x.tar.gz"),
    ("${PATHS//l/L}", "/usr/LocaL/Lib/x.tar.gz"),
    (r"${PATHS//\//-}", "-usr-local-lib-x.tar.gz"),
    ("${PATHS/u*b/X}", "/X/x.tar.gz"),
    ("${PATHS//o*b*./}", "/usr/lgz"),
    ("${X/a/b}", ""),
    ("안녕'하'$PWD", "안녕하/home"),
]


@pytest.mark.parametrize(("text", "expected"), EXPANDED)
def test_expanded(text: str, expected: str) -> None:
    assert expand(text, ENVIRONMENT) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a`$PWD\\b", "a$PWD\\b"), ('"`"\\"', '"\\'), ("a`", "a"), ("`\\$PWD", "\\/home")],
)
def test_another_escape_character(text: str, expected: str) -> None:
    assert expand(text, ENVIRONMENT, escape="`") == expected


@pytest.mark.parametrize(
    ("text", "said", "column"),
    [
        ("he'llo", "unexpected end of statement while looking for matching single-quote", 2),
        ('a "b', "unexpected end of statement while looking for matching double-quote", 2),
        (r'"hello\"', "unexpected end of statement while looking for matching double-quote", 0),
        ("a${}", "syntax error: bad substitution", 3),
        ("${{aaa}", "syntax error: bad substitution", 2),
        ("${:-b}", "syntax error: bad substitution", 2),
        ("${PWD", "syntax error: missing '}'", 5),
        ("${", "syntax error: missing '}'", 2),
        ("${PWD:", "syntax error: missing '}'", 6),
        ("${X:-a ${Y}", "syntax error: missing '}'", 11),
        ("${X/a}", "syntax error: missing '/'", 6),
        ("${.}", "unsupported modifier (.) in substitution", 2),
        ("${X:=a}", "unsupported modifier (:=) in substitution", 3),
        ("a${X?}", "X: is not allowed to be unset", 1),
        ("a${X:?}", "X: is not allowed to be unset", 1),
        ("a${NULL:?}", "NULL: is not allowed to be empty", 1),
        ("a${X:?say $PWD}", "X: say /home", 1),
        (r"${PWD#a\bc}", r"invalid pattern (a\bc) in substitution: invalid escape '\b'", 6),
        ("${X:-" * 60, "variables are nested too deeply", 250),
        ("${PWD#" + "a" * 300 + "}", "it has more than 256 characters", 6),
    ],
)
def test_what_cannot_be_expanded(text: str, said: str, column: int) -> None:
    with pytest.raises(DockerfileError) as caught:
        expand(text, ENVIRONMENT)
    assert caught.value.brief.startswith("failed to process ")
    assert caught.value.brief.endswith(said)
    assert caught.value.resolution
    line, caret = str(caught.value.details).splitlines()[:2]
    if len(text) < 100:
        assert (line, caret) == (text, " " * column + "^")


def test_a_text_that_grows_and_grows() -> None:
    with pytest.raises(DockerfileError, match="longer than 1,048,576 characters"):
        expand("$A$A$A", {"A": "a" * (1 << 19)})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello there", ["hello", "there"]),
        ("  a\t\u00a0b  ", ["a", "b"]),
        ("", []),
        (r"hello\ there", ["hello there"]),
        ('hello" there  "', ["hello there  "]),
        ("a$TWO.b", ["aabc", "def.b"]),
        ('a"$TWO"b', ["aabc  defb"]),
        ("x$AROUND", ["x", "ab", "c"]),
        ("x${AROUND}y", ["x", "ab", "c", "y"]),
        ('x"$AROUND" y', ["x ab c ", "y"]),
        ("x${Y:-a b}z", ["xa", "bz"]),
        ("'' a", ["a"]),
        ("$X", []),
    ],
)
def test_split(text: str, expected: list[str]) -> None:
    assert split(text, ENVIRONMENT) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b  c='d e'", ["a=b", "c='d e'"]),
        (r"a\ b c", [r"a\ b", "c"]),
        (r'"a \" b"c', [r'"a \" b"c']),
        (r"'a\' b", [r"'a\'", "b"]),
        ("a 'b c", ["a", "'b c"]),
        ('a "b c', ["a", '"b c']),
        ("a b\\", ["a", "b"]),
        ("a \\", ["a"]),
        ('a "b\\', ["a", '"b']),
        ("\u00a0a\u2003b", ["a", "b"]),
    ],
)
def test_words_as_written(text: str, expected: list[str]) -> None:
    assert [word.text for word in raw_words(text, 0, "\\")] == expected


def test_quotes_are_not_special_in_heredocs() -> None:
    assert expand('it\'s "$PWD" \\$PWD', ENVIRONMENT, quotes=False) == 'it\'s "/home" $PWD'
