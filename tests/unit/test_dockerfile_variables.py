"""What an instruction sees of ENV, ARG and --build-arg, and what becomes of it."""

from __future__ import annotations

import pytest

from storagedrivers.dockerfile.instructions import Heredoc, Instruction
from storagedrivers.dockerfile.parser import parse, parse_instruction
from storagedrivers.dockerfile.variables import Scope, expand_instruction, unused
from storagedrivers.errors import DockerfileError
from storagedrivers.oci.platforms import Platform, host_platform


def scope_of(text: str, given: dict[str, str], *, platform: Platform | None = None) -> Scope:
    """After the ARGs of the last stage."""
    found = parse(text)
    scope = Scope(found.arguments, given, escape=found.escape, platform=platform)
    for one in found.stages[-1].instructions:
        if one.word == "ARG":
            scope.declare(one)
    return scope


@pytest.mark.parametrize(
    ("text", "given", "seen"),
    [
        ("FROM x\nARG X", {}, {}),
        ("FROM x\nARG X=1", {}, {"X": "1"}),
        ("FROM x\nARG X=1", {"X": "2"}, {"X": "2"}),
        ("FROM x\nARG X", {"X": ""}, {"X": ""}),
        ("FROM x", {"X": "1"}, {}),
        ("ARG X=1\nFROM x", {"X": "2"}, {}),
        ("ARG X=1\nFROM x\nARG X", {}, {"X": "1"}),
        ("ARG X=1\nFROM x\nARG X", {"X": "2"}, {"X": "2"}),
        ("ARG X=1\nFROM x\nARG X=3", {}, {"X": "3"}),
        ("ARG X\nFROM x\nARG X", {"X": "2"}, {"X": "2"}),
        ("ARG X=1\nFROM x\nARG X=3\nARG X", {}, {"X": "1"}),
        ("ARG X=1\nARG X\nFROM x\nARG X", {}, {}),
        ("ARG X=1\nARG Y=${X}2\nFROM x\nARG Y", {}, {"Y": "12"}),
        ("ARG X=1\nARG Y=${X}2\nFROM x\nARG Y", {"X": "3"}, {"Y": "32"}),
        ("ARG X=1 Y=${X}2\nFROM x\nARG Y", {}, {"Y": "2"}),
        ("ARG Y=${X:-2}\nFROM x\nARG Y", {"X": "3"}, {"Y": "2"}),
        ("FROM x\nARG X=1\nARG Y=$X Z", {}, {"X": "1", "Y": "1"}),
        ("FROM x\nARG X='a b' \"Y\"=\\$X", {}, {"X": "a b", "Y": "$X"}),
        ("FROM x", {"HTTP_PROXY": "1", "no_proxy": "2"}, {"HTTP_PROXY": "1", "no_proxy": "2"}),
        ("FROM x\nARG HTTP_PROXY=3", {}, {"HTTP_PROXY": "3"}),
        ("# escape=`\nARG X=a`$b\nFROM x\nARG X", {}, {"X": "a$b"}),
    ],
)
def test_arguments(text: str, given: dict[str, str], seen: dict[str, str]) -> None:
    assert scope_of(text, given).environment([]) == seen


def test_env_wins() -> None:
    scope = scope_of("FROM x\nARG X=1\nARG Y=2", {"X": "3", "HTTP_PROXY": "4"})
    env = ["X=env", "HTTP_PROXY=own", "WITHOUT"]
    assert scope.environment(env) == {
        "X": "env",
        "Y": "2",
        "HTTP_PROXY": "own",
        "WITHOUT": "",
    }
    assert scope.run_arguments(env) == ["Y=2"]
    assert scope.hidden_arguments(env) == []


def test_what_a_run_is_told() -> None:
    given = {"B": "1", "http_proxy": "p", "FTP_PROXY": "f", "OTHER": "x"}
    scope = scope_of("FROM x\nARG b=1 B A0=1\nARG A=1\nARG NONE\nARG FTP_PROXY", given)
    # Sorted as whole texts: 0 comes before =.
    assert scope.run_arguments() == ["A0=1", "A=1", "B=1", "FTP_PROXY=f", "b=1"]
    assert scope.hidden_arguments() == ["http_proxy=p"]


def test_platforms() -> None:
    declared = (
        "FROM x\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDARCH"
    )
    scope = scope_of(declared, {}, platform=Platform("linux", "arm", "v7"))
    host = host_platform()
    assert scope.environment([]) == {
        "TARGETPLATFORM": "linux/arm/v7",
        "TARGETOS": "linux",
        "TARGETARCH": "arm",
        "TARGETVARIANT": "v7",
        "BUILDPLATFORM": str(host),
        "BUILDARCH": host.architecture,
    }
    assert scope_of("FROM x", {}).environment([]) == {}
    assert scope_of("FROM x", {}).global_environment()["TARGETPLATFORM"] == str(host)
    assert scope_of("FROM x\nARG TARGETOS=a", {}).environment([]) == {"TARGETOS": "a"}
    assert scope_of("FROM x\nARG TARGETOS", {"TARGETOS": "b"}).environment([]) == {"TARGETOS": "b"}


def test_what_a_from_sees() -> None:
    scope = scope_of("ARG X=1\nARG Y\nFROM x\nARG Z=3", {"Y": "2", "W": "4", "NO_PROXY": "5"})
    seen = scope.global_environment()
    assert (seen["X"], seen["Y"], seen["NO_PROXY"]) == ("1", "2", "5")
    assert not {"Z", "W"} & seen.keys()


def test_arguments_that_nothing_declares() -> None:
    given = {"A": "", "B": "", "C": "", "D": "", "HTTP_PROXY": ""}
    found = parse("ARG A\nFROM x\nARG B\nFROM y\nARG C\nENV D=1")
    scopes = []
    for stage in found.stages:
        scope = Scope(found.arguments, given)
        for one in stage.instructions:
            if one.word == "ARG":
                scope.declare(one)
        scopes.append(scope)
    assert [scope.unused() for scope in scopes] == [("C", "D"), ("B", "D")]
    assert unused(scopes) == ("D",)
    assert unused([]) == ()


ENVIRONMENT = {"X": "1", "TWO": "80 443", "PATHS": "a b"}


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("ENV A=$X B='$X' C=\"$X 2\" $X=d", ("A", "1", "B", "$X", "C", "1 2", "1", "d")),
        ('ENV A b "$X"', ("A", "b 1")),
        ('LABEL "a b"=$X', ("a b", "1")),
        ("ARG A=$X B '$X'", ("A=1", "B", "$X")),
        ("COPY $PATHS /$X", ("a b", "/1")),
        ('COPY ["$PATHS", "\'$X\'"]', ("a b", "$X")),
        ("VOLUME /$X $PATHS", ("/1", "a b")),
        ("EXPOSE $TWO 1", ("80", "443", "1")),
        ("USER ${U:-root}:$X", ("root:1",)),
        ('WORKDIR "/a b"/$X', ("/a b/1",)),
        ("STOPSIGNAL $X", ("1",)),
        ("FROM $X AS b", ("1", "AS", "b")),
        ("RUN echo $X '$X'", ("echo $X '$X'",)),
        ('CMD ["$X"]', ("$X",)),
        ("ENTRYPOINT $X", ("$X",)),
        ('SHELL ["$X"]', ("$X",)),
        ("MAINTAINER $X", ("$X",)),
        ("HEALTHCHECK CMD $X", ("CMD", "$X")),
        ("ONBUILD ENV A=$X", ("ENV A=$X",)),
    ],
)
def test_instructions(text: str, arguments: tuple[str, ...]) -> None:
    found = expand_instruction(parse_instruction(text), ENVIRONMENT)
    assert found.arguments == arguments
    assert found.expanded
    assert found.text == parse_instruction(text).text
    assert expand_instruction(found, ENVIRONMENT) is found


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("COPY --chown=$X:'$X' --chmod=$X a /", (("chown", "1:1"), ("chmod", "1"))),
        ("FROM --platform=linux/$X a", (("platform", "linux/1"),)),
        (
            "RUN --mount=type=cache,target=/$X,id=$PATHS a",
            (("mount", "type=cache,target=/1,id=a b"),),
        ),
        ("RUN --mount='type=cache,\"target=/a,$X\"' a", (("mount", 'type=cache,"target=/a,1"'),)),
        ("RUN --mount=type=cache,target=/a a", (("mount", "type=cache,target=/a"),)),
        ("HEALTHCHECK --interval=$X CMD a", (("interval", "$X"),)),
    ],
)
def test_flags(text: str, flags: tuple[tuple[str, str], ...]) -> None:
    assert expand_instruction(parse_instruction(text), ENVIRONMENT).flags == flags


def test_heredocs() -> None:
    text = "COPY <<a <<'b' /$X\nit's \"$X\" \\$X\na\n$X\nb\n"
    found = expand_instruction(parse_instruction(text), ENVIRONMENT)
    assert found.arguments == ("<<a", "<<b", "/1")
    assert found.heredocs == (
        Heredoc("a", 'it\'s "1" $X\n', expand=False),
        Heredoc("b", "$X\n", expand=False),
    )
    run = parse_instruction("RUN <<a\n$X\na")
    assert expand_instruction(run, ENVIRONMENT).heredocs == run.heredocs


def test_what_is_expanded_already_stays() -> None:
    label = Instruction("LABEL", arguments=("a", "'$X'"), expanded=True)
    assert expand_instruction(label, ENVIRONMENT) is label


def test_a_variable_that_has_to_be_set() -> None:
    (instruction,) = parse("FROM x\n\nENV A=1 B=${Y:?no}").stages[0].instructions
    with pytest.raises(DockerfileError) as caught:
        expand_instruction(instruction, ENVIRONMENT)
    assert caught.value.line == 3
    assert caught.value.brief == 'line 3: failed to process "${Y:?no}": Y: no'
    assert caught.value.details == "ENV A=1 B=${Y:?no}\n          ^"
    assert "--build-arg Y=VALUE" in str(caught.value.resolution)


def test_a_default_that_has_to_be_set() -> None:
    found = parse("ARG A=${B:?}\nFROM x")
    with pytest.raises(DockerfileError, match="B: is not allowed to be unset"):
        Scope(found.arguments, {})
