"""Logical lines: directives, comments, continued lines, heredocs, and what is no text."""

from __future__ import annotations

import pytest

from storagedrivers.dockerfile.instructions import Heredoc, Instruction
from storagedrivers.dockerfile.parser import parse, parse_instruction
from storagedrivers.errors import DockerfileError


def instructions(text: bytes | str) -> tuple[Instruction, ...]:
    """Those of the last stage."""
    return parse(text).stages[-1].instructions


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("RUN a \\\n  b", "a   b"),
        ("RUN a\\\nb", "ab"),
        ("RUN a \\  \t\nb", "a b"),
        ("RUN a \\\r\nb\r", "a b"),
        ("RUN a \\\n# comment\n  # another\n b", "a  b"),
        ("RUN a \\\n\n  \n b", "a  b"),
        ("RUN a \\\n\\\n\\\nb", "a b"),
        ("RUN a \\", "a"),
        ("RUN a \\\n# comment", "a"),
        ("RUN a # no comment", "a # no comment"),
        ("RUN a\\\\", "a\\\\"),
        ("RUN\\\n a", "a"),
        ("R\\\nUN a", "a"),
        ("\\\nRUN a", "a"),
        ("  \tRUN\t a  ", "a"),
        ("# c\n\n # d\nRUN a\n# e", "a"),
    ],
)
def test_one_instruction(text: str, joined: str) -> None:
    (found,) = instructions(f"FROM x\n{text}")
    assert (found.word, found.text, found.arguments) == ("RUN", joined, (joined,))


def test_lines_are_counted() -> None:
    found = parse("# c\nFROM x\n\nRUN a \\\n# c\n b\nRUN <<E\nx\nE\n\nUSER y")
    first, second, third = found.stages[0].instructions
    assert (found.stages[0].base.line, found.stages[0].base.last_line) == (2, 2)
    assert (first.line, first.last_line) == (4, 6)
    assert (second.line, second.last_line) == (7, 9)
    assert (third.line, third.last_line) == (11, 11)
    assert found.lines[3] == "RUN a \\"


def test_an_empty_line_in_the_middle_is_noted() -> None:
    found = parse("FROM x\nRUN a \\\n\n  b\n")
    assert found.notes == ("line 2: there is an empty line in it; Docker is going to refuse that",)


@pytest.mark.parametrize(
    "start",
    [
        "# escape=`",
        "#escape=`",
        "  #  Escape = `  ",
        "\ufeff# escape=`",
        "# syntax=docker/dockerfile:1\n# escape=`",
        "# check=skip=all\n# escape=`",
        "# escape=`\r",
    ],
)
def test_the_escape_directive(start: str) -> None:
    found = parse(f"{start}\nFROM x\nENV A=b` c `\n D=\\e\n")
    assert found.escape == "`"
    assert found.stages[0].instructions[0].arguments == ("A", "b` c", "D", "\\e")


@pytest.mark.parametrize(
    "start", ["# c\n# escape=`", "\n# escape=`", "# unknown=x\n# escape=`", "#!/x\n# escape=`"]
)
def test_a_directive_that_comes_too_late(start: str) -> None:
    assert parse(f"{start}\nFROM x\n").escape == "\\"


def test_syntax_is_noted() -> None:
    (note,) = parse("# syntax = docker/dockerfile:1\nFROM x").notes
    assert note == "# syntax=docker/dockerfile:1 is ignored: nothing but this program reads it"


@pytest.mark.parametrize(
    ("text", "said", "shown"),
    [
        ("# escape=x\nFROM x", "invalid escape token 'x' does not match ` or \\", " " * 9 + "^"),
        (
            "# escape=`\n# escape=`\nFROM x",
            "only one escape parser directive can be used",
            "^" * 10,
        ),
    ],
)
def test_bad_directives(text: str, said: str, shown: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    assert caught.value.brief.endswith(said)
    assert str(caught.value.details).splitlines()[1] == shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN <<EOF\na\n b\nEOF", [Heredoc("EOF", "a\n b\n")]),
        ("RUN cat <<EOF > /x\n$A\nEOF", [Heredoc("EOF", "$A\n")]),
        ("RUN <<'EOF'\na\nEOF", [Heredoc("EOF", "a\n", expand=False)]),
        ('RUN <<"E F"\na\nE F', [Heredoc("E F", "a\n", expand=False)]),
        ("RUN <<E'O'F\na\nEOF", [Heredoc("EOF", "a\n", expand=False)]),
        ("RUN <<-EOF\n\t\ta\n\tb\n\tEOF", [Heredoc("EOF", "a\nb\n")]),
        ("RUN << EOF\na\nEOF", [Heredoc("EOF", "a\n")]),
        ("RUN 3<<EOF\na\nEOF", [Heredoc("EOF", "a\n")]),
        ("RUN <<A <<B\n1\nA\n2\nB", [Heredoc("A", "1\n"), Heredoc("B", "2\n")]),
        ("RUN <<EOF\n# kept\n\\\nEOF", [Heredoc("EOF", "# kept\n\\\n")]),
        ("RUN <<EOF\nEOF", [Heredoc("EOF", "")]),
        ("RUN <<EOF\n EOF\nEOF\r", [Heredoc("EOF", " EOF\n")]),
        ("RUN <<EOF\r\na\r\nEOF\r\n", [Heredoc("EOF", "a\r\n")]),
        ("RUN a \\\n <<EOF\nb\nEOF", [Heredoc("EOF", "b\n")]),
        ("COPY <<a <<'b' /x/\n1\na\n2\nb", [Heredoc("a", "1\n"), Heredoc("b", "2\n", False)]),
        ("ADD --chown=1 <<a /x\n1\na", [Heredoc("a", "1\n")]),
        ("RUN echo '<<EOF'", []),
        ("RUN echo a<<EOF", []),
        ("RUN echo $((1<<2))", []),
        ("RUN cat <<<a", []),
        ("RUN cat <<'", []),
        ('RUN ["cat", "<<EOF"]', []),
        ("CMD cat <<EOF", []),
        ("ENV A=<<EOF", []),
    ],
)
def test_heredocs(text: str, expected: list[Heredoc]) -> None:
    found, *others = instructions(f"FROM x\n{text}\nUSER y")
    assert list(found.heredocs) == expected
    assert [one.word for one in others] == ["USER"]


def test_sources_that_are_heredocs() -> None:
    (found,) = instructions("FROM x\nCOPY <<-'a b' c <<d /x\n1\na b\n2\nd\n".replace("a b", "ab"))
    assert found.arguments == ("<<ab", "c", "<<d", "/x")


def test_a_trigger_takes_its_heredocs_along() -> None:
    (found,) = instructions("FROM x\nONBUILD RUN <<A cat <<-'B'\n$x\nA\n\ty\n\tB\n")
    assert found.arguments == ("RUN <<A cat <<-'B'\n$x\nA\ny\nB",)
    assert found.text == "RUN <<A cat <<-'B'"
    again = parse_instruction(found.arguments[0])
    assert again.heredocs == (Heredoc("A", "$x\n"), Heredoc("B", "y\n", expand=False))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("FROM x\nRUN a <<EOF\nb\n", 2, "unterminated heredoc: no line is EOF"),
        ("FROM x\nCOPY a <<EOF\nb\nEOF", 2, "COPY cannot accept a heredoc as a destination"),
        ("FROM x\nCOPY <<../a /x\n../a", 2, "../a is no name for a heredoc of COPY"),
        ("FROM x\nADD <<.. /x\n..", 2, ".. is no name for a heredoc of ADD"),
        ("FROM x\nRUN <<E\na\n\0\nE", 4, "a null character is no text"),
        (b"FROM x\nRUN <<E\n\xe9\nE", 3, "byte 0xe9 is no UTF-8"),
        (b"FROM x\nRUN a \\\n b\xff", 3, "byte 0xff is no UTF-8"),
        ("FROM x\nRUN a\0", 2, "a null character is no text"),
        ("FROM x\nRUN a\udc80", 2, "byte 0x80 is no UTF-8"),
        ("FROM x\nRUN " + "a" * 65532, 2, "line greater than max allowed size of 65535"),
        ("FROM x\nRUN \\\n" + "é" * 32768, 3, "line greater than max allowed size of 65535"),
        ("FROM x\n#" + "a" * 65535, 2, "line greater than max allowed size of 65535"),
        (b"\xff\xfeF\0R\0", 1, "this is UTF-16"),
    ],
)
def test_what_is_refused(text: bytes | str, line: int, said: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    assert caught.value.line == line
    assert caught.value.brief.startswith(f"Dockerfile line {line}: ")
    assert said in caught.value.brief
    assert caught.value.resolution


def test_what_is_just_accepted() -> None:
    assert len(instructions("FROM x\nRUN " + "a" * 65531)[0].text) == 65531
    assert parse(b"# \xe9\0\nFROM x").lines[0] == "# \ufffd\ufffd"
    assert instructions("FROM x\r\nRUN a\r\n")[0].text == "a"


def test_lines_for_messages_are_harmless() -> None:
    assert parse("FROM x\nRUN a\x1b[31m\tb").lines[1] == "RUN a\ufffd[31m b"
