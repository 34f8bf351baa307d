"""Instructions: how each is cut, and what is said of one that cannot be taken.

Where Docker has a sentence for it, it is Docker's: all of these were given to docker.io 20.10.
"""

from __future__ import annotations

import pytest

from storagedrivers.dockerfile.instructions import Instruction
from storagedrivers.dockerfile.parser import parse, parse_instruction
from storagedrivers.errors import DockerfileError

SHELL_FORM = [
    ("CMD echo  hi ", ("echo  hi",)),
    ("CMD", ()),
    ("RUN", ()),
    ("CMD ['a']", ("['a']",)),
    ('CMD ["a",]', ('["a",]',)),
    ('CMD ["a" "b"]', ('["a" "b"]',)),
    ("CMD [NaN]", ("[NaN]",)),
    ("CMD -- --help", ("--help",)),
    ('CMD "--help"', ('"--help"',)),
    ("ENTRYPOINT [", ("[",)),
    ("RUN " + "[" * 5000, ("[" * 5000,)),
    ("COPY a b /c", ("a", "b", "/c")),
    ("COPY 'a' $b/\"c\"", ("'a'", '$b/"c"')),
    ("ADD a\u00a0b /c", ("a\u00a0b", "/c")),
    ("ENV A=b  'C d'=\"e f\" G=", ("A", "b", "'C d'", '"e f"', "G", "")),
    ("ENV A b  c ", ("A", "b  c")),
    ("ENV A  b", ("A", "b")),
    ("ENV A == b", ("A", "== b")),
    ("ENV A=b=c", ("A", "b=c")),
    (r"ENV A=b\ c D=e", ("A", r"b\ c", "D", "e")),
    ("LABEL a.b=c", ("a.b", "c")),
    ("LABEL 'a' b c", ("'a'", "b c")),
    ("ARG A B=c 'D'=\"e f\"", ("A", "B=c", "'D'=\"e f\"")),
    ("EXPOSE 80 443/udp $X", ("$X", "443/udp", "80")),
    ("VOLUME /a  /b", ("/a", "/b")),
    ("USER a b", ("a b",)),
    ('WORKDIR "/a b"', ('"/a b"',)),
    ("STOPSIGNAL $X", ("$X",)),
    ("MAINTAINER A <a@b>", ("A <a@b>",)),
    ("HEALTHCHECK none", ("NONE",)),
    ("HEALTHCHECK NONE []", ("NONE",)),
    ("HEALTHCHECK --retries=2 cmd curl x", ("CMD", "curl x")),
    ("ONBUILD  RUN a  ", ("RUN a  ",)),
    ("onbuild env A=1", ("env A=1",)),
]

EXEC_FORM = [
    ('CMD ["a", "b c"]', ("a", "b c")),
    ('RUN [ "a" ]', ("a",)),
    ("CMD []", ()),
    ("RUN []", ()),
    (r'CMD ["\u0041\ud83d\ude00\ud800", "\"\\"]', ("A\U0001f600\ufffd", '"\\')),
    ('COPY ["a b", "/c"]', ("a b", "/c")),
    ('VOLUME ["/a b", " /c "]', ("/a b", "/c")),
    ('SHELL ["/bin/bash", "-c"]', ("/bin/bash", "-c")),
    ('HEALTHCHECK CMD ["a", "b"]', ("CMD", "a", "b")),
]


@pytest.mark.parametrize(
    ("text", "arguments", "exec_form"),
    [(*case, False) for case in SHELL_FORM] + [(*case, True) for case in EXEC_FORM],
)
def test_arguments(text: str, arguments: tuple[str, ...], exec_form: bool) -> None:
    found = parse_instruction(text)
    if text != "HEALTHCHECK NONE []":
        assert found.exec_form is exec_form
    assert found.arguments == arguments
    assert found.word == text.split()[0].upper()
    assert (found.line, found.last_line, found.expanded) == (0, 0, False)


def test_what_stands_behind_json_is_ignored_and_noted() -> None:
    found = parse('FROM x\nCMD ["a"] && b')
    assert found.stages[0].instructions[0].arguments == ("a",)
    assert found.notes == ("line 2: what stands behind the JSON is ignored: && b",)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (
            "COPY --from=a --chown=1:2 --chmod=755 a /",
            (("from", "a"), ("chown", "1:2"), ("chmod", "755")),
        ),
        ("COPY --chown='a b' a /", (("chown", "a b"),)),
        (r"COPY --chown=a\ b --from=\"x a /", (("chown", "a b"), ("from", '"x'))),
        ("COPY --chown=$U a /", (("chown", "$U"),)),
        ("COPY --chown= a /", (("chown", ""),)),
        ("COPY --link a /", (("link", ""),)),
        ("COPY --link=True a /", (("link", ""),)),
        ("COPY --link=false a /", ()),
        ("ADD --link --chmod=1 a /", (("link", ""), ("chmod", "1"))),
        ("FROM --platform=linux/amd64 a", (("platform", "linux/amd64"),)),
        (
            "RUN --mount=type=cache,target=/x --mount=target=/y --network=none a",
            (("mount", "type=cache,target=/x"), ("mount", "target=/y"), ("network", "none")),
        ),
        ("RUN a --mount=x", ()),
        ("RUN -- --mount=x", ()),
        ("HEALTHCHECK --interval=5s --timeout=1s NONE", (("interval", "5s"), ("timeout", "1s"))),
        (
            "HEALTHCHECK --start-period=1s --start-interval=2s CMD a",
            (("start-period", "1s"), ("start-interval", "2s")),
        ),
    ],
)
def test_flags(text: str, flags: tuple[tuple[str, str], ...]) -> None:
    found = parse_instruction(text)
    assert found.flags == flags
    assert found.text == text.split(None, 1)[1]


def test_flags_with_another_escape_character() -> None:
    assert parse_instruction("COPY --chown=a`\\b a /", "`").flags == (("chown", "a\\b"),)


def test_what_is_shown() -> None:
    assert parse_instruction("run  --network=none  a  b").source == "RUN --network=none  a  b"
    assert parse_instruction("cmd").source == "CMD"


REFUSED = [
    # (line, what is said, what the caret stands below, part of what was expected or to do)
    ("RUNX a", "unknown instruction: RUNX", "RUNX", "did you mean RUN?"),
    ("FROMX a", "unknown instruction: FROMX", "FROMX", "did you mean FROM?"),
    ("x", "unknown instruction: X", "x", "one of ADD, ARG, CMD"),
    ("add\u00a0a b", "unknown instruction: ADD A", "add\u00a0a", "type the space in it anew"),
    ("maıntainer a", "unknown instruction: MAINTAINER", "maıntainer", "MAINTAINER"),
    ("CMD [1]", "arrays must be comprised of strings only", "[1]", "strings in quotes"),
    ('RUN ["a", null]', "arrays must be comprised of strings only", '["a", null]', "strings"),
    ('COPY ["a", ["/"]]', "arrays must be comprised of strings only", '["a", ["/"]]', "strings"),
    ("CMD [" + "1" * 5000 + "]", "arrays must be comprised of strings only", "[1", "strings"),
    ("ENV A", "ENV must have two arguments", "", "A=VALUE"),
    ("LABEL a", "LABEL must have two arguments", "", "a=VALUE"),
    ("ENV A\u00a0b", "ENV must have two arguments", "", "VALUE"),
    ("ENV", "ENV requires at least one argument", "", "NAME=VALUE"),
    ("LABEL", "LABEL requires at least one argument", "", "NAME=VALUE"),
    ("ENV =b", "ENV names can not be blank", "=", "a name before the ="),
    ("LABEL a=b =c", "LABEL names can not be blank", "=", "a name"),
    ("ARG", "ARG requires at least one argument", "", "NAME=DEFAULT"),
    ("ARG A =b", "ARG names can not be blank", "=", "a name"),
    (
        "ENV A=b c D=e",
        'Syntax error - can\'t find = in "c". Must be of the form: name=value',
        "c",
        "put the value in quotes",
    ),
    ("EXPOSE", "EXPOSE requires at least one argument", "", "80"),
    ("VOLUME", "VOLUME requires at least one argument", "", "a path"),
    ("VOLUME []", "VOLUME requires at least one argument", "[", "a path"),
    ('VOLUME ["/a", " "]', "VOLUME specified can not be an empty string", '["/a", " "]', "a path"),
    ("WORKDIR", "WORKDIR requires exactly one argument", "", "a path"),
    ("USER", "USER requires exactly one argument", "", "1000:1000"),
    ("STOPSIGNAL", "STOPSIGNAL requires exactly one argument", "", "SIGTERM"),
    ("MAINTAINER", "MAINTAINER requires exactly one argument", "", "a name"),
    ("SHELL", "SHELL requires at least one argument", "", "/bin/sh"),
    ("SHELL []", "SHELL requires at least one argument", "[", "/bin/sh"),
    ("SHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form", "/bin/sh -c", "-c"),
    ("HEALTHCHECK", "HEALTHCHECK requires at least one argument", "", "NONE, or CMD"),
    ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD", "", "a command"),
    ("HEALTHCHECK CMD []", "Missing command after HEALTHCHECK CMD", "", "a command"),
    ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments", "x", "nothing more"),
    ("HEALTHCHECK curl x", 'Unknown type "CURL" in HEALTHCHECK (try CMD)', "curl", "CMD curl x"),
    ("COPY a", "Destination could not be determined", "", "a source and a destination"),
    ("ADD", "ADD requires at least two arguments, but only one was provided", "", "a source"),
    ('COPY ["a"]', "COPY requires at least two arguments", "", "a source"),
    ("COPY --frm=x a /", "Unknown flag: frm", "--frm", "did you mean --from?"),
    ("COPY --parents a /", "COPY --parents is not supported", "--parents", "to its place"),
    ("RUN --security=insecure a", "RUN --security is not supported", "--security", "a container"),
    ("CMD --help", "Unknown flag: help", "--help", "no flag: CMD has none"),
    ("ONBUILD --x RUN a", "Unknown flag: x", "--x", "no flag"),
    ("FROM --platform a", "Missing a value on flag: platform", "--platform", "--platform=VALUE"),
    ("COPY --link= a /", "Missing a value on flag: link", "--link=", "--link=true"),
    ("COPY --link=x a /", "Expecting boolean value for flag link, not: x", "--link=x", "true"),
    ("ADD --chown=1 --chown=2 a /", "Duplicate flag specified: chown", "--chown=2", "once"),
    ("RUN --network=x a", 'invalid network mode "x"', "--network=x", "default, none, host"),
    ("COPY --from=$X a /", "'from' doesn't support variable expansion", "--from=$X", "FROM $X AS"),
    ("RUN --mount=from=$X,target=/ a", "define alias stage instead", "--mount=from=$X", "FROM $X"),
    ("FROM", "FROM requires either one or three arguments", "", "IMAGE AS NAME"),
    ("FROM a b", "FROM requires either one or three arguments", "b", "IMAGE AS NAME"),
    ("FROM a b c", "FROM requires either one or three arguments", "b", "IMAGE AS NAME"),
    ("FROM a AS", "FROM requires either one or three arguments", "AS", "IMAGE AS NAME"),
    (
        "FROM a AS 1x",
        'invalid name for build stage: "1x", name can\'t start with a number or contain symbols',
        "1x",
        "a letter",
    ),
    ("FROM a AS b$X", 'invalid name for build stage: "b$X"', "b$X", "a letter"),
    ("ONBUILD", "ONBUILD requires at least one argument", "", "an instruction"),
    (
        "ONBUILD onbuild RUN a",
        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        "onbuild",
        "",
    ),
    ("ONBUILD " * 8000, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", "ONBUILD", ""),
    ("ONBUILD FROM a", "FROM isn't allowed as an ONBUILD trigger", "FROM", "another"),
    ("ONBUILD maintainer a", "MAINTAINER isn't allowed as an ONBUILD trigger", "maintainer", ""),
    ("ONBUILD RUNX a", "unknown instruction: RUNX", "RUNX", "did you mean RUN?"),
    ("ONBUILD COPY a", "COPY requires at least two arguments", "", "a source"),
    ("ENV A=1 B='x", "looking for matching single-quote", "'", "another '"),
    ('COPY "a b" /c', "looking for matching double-quote", '"a', 'as JSON: COPY ["a b", "/c"]'),
    ("LABEL 'a b' c", "looking for matching single-quote", "'a", "another '"),
    ("WORKDIR /${A", "syntax error: missing '}'", "", "'}'"),
    ("ARG A=${B:=c}", "unsupported modifier (:=) in substitution", ":", ":-"),
]


@pytest.mark.parametrize(("text", "said", "below", "help_"), REFUSED, ids=lambda one: one[:40])
def test_what_is_refused(text: str, said: str, below: str, help_: str) -> None:
    prefix = "" if text.upper().startswith("FROM") else "FROM x\n"
    with pytest.raises(DockerfileError) as caught:
        parse(f"# a comment\n{prefix}{text}\n", "build/Dockerfile")
    error = caught.value
    line = 3 if prefix else 2
    assert error.line == line
    assert error.brief.startswith(f"build/Dockerfile line {line}: ")
    assert said in error.brief
    assert error.resolution
    assert help_ in f"{error.details}\n{error.resolution}"
    shown, carets = str(error.details).splitlines()[:2]
    column = carets.index("^")
    assert set(carets.strip()) == {"^"}
    if len(text) < 100:
        assert shown == text.replace("\u00a0", " ")
        assert shown[column:].startswith(below.replace("\u00a0", " "))
        if below == "":
            assert column >= len(text.split()[0])
    assert len(shown) <= 100


def test_the_caret_stands_in_the_right_line() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM x\nENV A=1 \\\n  # c\n    B=日本 \\\n  C='x\n")
    assert caught.value.brief.startswith("Dockerfile line 5: ")
    assert caught.value.details == ("  C='x\n    ^\nexpected: another '")
    with pytest.raises(DockerfileError) as caught:
        parse("FROM x\nLABEL a=日本 b")
    assert str(caught.value.details).splitlines()[1] == " " * 13 + "^"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        ("\n# c\n", "Dockerfile: file with no instructions"),
        ("ARG A\n", "Dockerfile: file with no stage"),
        ("ARG A\nRUN a\n", "Dockerfile line 2: no build stage in current context"),
        ("\\\n", "Dockerfile line 1: unknown instruction: nothing at all"),
        (
            "FROM a AS b\nFROM c AS B\n",
            "Dockerfile line 2: b stage name already used",
        ),
    ],
)
def test_files_that_are_none(text: str, said: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text.encode())
    assert caught.value.brief.startswith(said)
    assert caught.value.resolution


def test_stages() -> None:
    found = parse("ARG A=1\nARG B\nFROM --platform=$P a:1 as Build\nRUN b\nFROM scratch\nUSER c")
    first, second = found.stages
    assert [one.arguments for one in found.arguments] == [("A=1",), ("B",)]
    assert (first.number, first.name, first.platform) == (0, "build", "$P")
    assert (second.number, second.name, second.platform) == (1, "", "")
    assert first.base.arguments == ("a:1", "as", "Build")
    assert [one.word for one in (*first.instructions, *second.instructions)] == ["RUN", "USER"]


@pytest.mark.parametrize("text", ["", "\n", "# c", "RUN a\nRUN b", "RUN a <<E\nE\nx"])
def test_what_is_not_one_instruction(text: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_instruction(text)
    assert caught.value.resolution
    assert caught.value.line == 0


def test_one_instruction_that_is_bad() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_instruction("ENV A")
    assert caught.value.brief == "ENV must have two arguments"
    assert caught.value.details == "ENV A\n     ^\nexpected: A=VALUE"


def test_values_are_as_others_build_on_them() -> None:
    assert Instruction("RUN") == ("RUN", (), (), False, (), "", 0, 0, False)
