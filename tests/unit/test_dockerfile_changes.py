"""What instructions do to a config, and what the history says of them: as Docker has it."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from docker_answers import BASES, MADE, REFUSED, Made

from storagedrivers.dockerfile import changes, go_text, healthchecks
from storagedrivers.dockerfile.created_by import created_by, normal
from storagedrivers.dockerfile.instructions import Heredoc, Instruction
from storagedrivers.dockerfile.parser import parse, parse_instruction
from storagedrivers.dockerfile.ports import exposed
from storagedrivers.dockerfile.variables import Scope, expand_instruction
from storagedrivers.errors import DockerfileError, StoreError

PATH = f"PATH={changes.DEFAULT_PATH}"


def built(text: str, base: str, given: dict[str, str]) -> tuple[dict[str, Any], list[str], str]:
    """The config, the history and the author that a Dockerfile comes to."""
    dockerfile = parse(f"FROM {base}\n{text}\n")
    scope = Scope(dockerfile.arguments, given)
    config, history, author = changes.base_config(BASES[base]), [], ""
    sources = re.findall(r"(?:file|dir|multi):[0-9a-f]{4}", _history_of(text, base))
    for raw in dockerfile.stages[0].instructions:
        env = config.get("Env") or ()
        one = expand_instruction(raw, scope.environment(env))
        if one.word == "ARG":
            scope.declare(raw, env)
        elif one.word == "MAINTAINER":
            author = one.text
        elif one.word not in ("RUN", "COPY", "ADD"):
            changes.apply(config, one)
        told = scope.run_arguments(env) if one.word == "RUN" else ()
        source = sources.pop(0) if one.word in ("COPY", "ADD") else ""
        hidden = bool(scope.hidden_arguments(env))
        history.append(created_by(one, config, arguments=told, hidden=hidden, source=source))
    return config, history, author


def _history_of(text: str, base: str) -> str:
    return " ".join(" ".join(one.history) for one in MADE if (one.lines, one.base) == (text, base))


@pytest.mark.parametrize("made", MADE, ids=lambda made: f"{made.base}: {made.lines}")
def test_as_docker_has_it(made: Made) -> None:
    config, history, author = built(made.lines, made.base, dict(made.arguments))
    assert config == {**made.config, "Env": _env(made)}
    assert history == [re.sub(r"^#\(nop\)", "/bin/sh -c #(nop)", one) for one in made.history]
    assert author == made.author


def _env(made: Made) -> list[str]:
    """With the default PATH, which the table leaves out or shortens."""
    env = made.config.get("Env", [])
    if made.base != "pathless":
        env = [PATH if one == "PATH" else one for one in env]
    return env if any(one.startswith("PATH") for one in env) else [PATH, *env]


@pytest.mark.parametrize(("line", "said"), REFUSED)
def test_what_docker_refuses(line: str, said: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        built(line, "scratch", {})
    assert caught.value.resolution
    assert IN_OTHER_WORDS.get(line, said) in str(caught.value)


IN_OTHER_WORDS = {
    "EXPOSE ::1:1:80": "Invalid ip address: ::1",
    "HEALTHCHECK --retries=x CMD x": '--retries wants a number, not "x"',
    "HEALTHCHECK --retries=2147483648 CMD x": "--retries wants a number",
}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("HEALTHCHECK --often NONE", "Unknown flag: often"),
        ("ONBUILD NONSENSE x", "unknown instruction: NONSENSE"),  # 20.10 waits until it is used
    ],
)
def test_what_docker_takes_and_we_refuse(line: str, said: str) -> None:
    with pytest.raises(DockerfileError, match=said):
        built(line, "scratch", {})


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", '""'),
        ("a'b", '"a\'b"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("\x00\x1f\x7f\x85", r'"\x00\x1f\x7f\u0085"'),
        ("\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        ("é😀\u200b\u00a0\ue000\U000f0000", r'"é😀\u200b\u00a0\ue000\U000f0000"'),
        ("\udc80\udcff", r'"\x80\xff"'),
    ],
)
def test_quotes(text: str, written: str) -> None:
    assert go_text.quoted(text) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [(0, r"'\x00'"), (3, r"'\x03'"), (39, r"'\''"), (34, "'\"'"), (0xD800, "'\ufffd'"),
     (0x110000, "'\ufffd'"), (0x1F600, "'😀'")],
)  # fmt: skip
def test_a_number_in_quotes_is_a_character(number: int, written: str) -> None:
    assert go_text.quoted_number(number) == written


@pytest.mark.parametrize(
    ("text", "nanoseconds", "written"),
    [
        ("0", 0, "0s"),
        ("1ns", 1, "1ns"),
        ("1500ns", 1500, "1.5µs"),
        ("2us", 2000, "2µs"),
        ("2µs", 2000, "2µs"),
        ("999999999ns", 999_999_999, "999.999999ms"),
        ("60s", 60 * 10**9, "1m0s"),
        ("1m1.5s", 61_500_000_000, "1m1.5s"),
        ("100h", 360_000 * 10**9, "100h0m0s"),
        ("-1s", -(10**9), None),
        ("2540400h10m10.0000000009s", (2540400 * 3600 + 610) * 10**9, "2540400h10m10s"),
    ],
)
def test_lengths_of_time(text: str, nanoseconds: int, written: str | None) -> None:
    assert go_text.parse_duration(text) == nanoseconds
    if written is not None:
        assert go_text.duration(nanoseconds) == written


@pytest.mark.parametrize(
    "text", ["", "+", "-", "s", "1", "1 s", "1S", "٣s", "1s2", "9" * 5000 + "s"]
)
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"^time: "):
        go_text.parse_duration(text)


@pytest.mark.parametrize("text", ["", "1-", "-1", "٣", "1" * 5000, "80/tcp/", "[1.2.3.4]:1:80"])
def test_what_is_no_port(text: str) -> None:
    if text == "80/tcp/":  # what follows the protocol is not looked at
        assert [*exposed(text)] == ["80/tcp"]
        return
    with pytest.raises(ValueError, match=r"Invalid|No port"):
        [*exposed(text)]


def test_an_error_shows_what_it_is_about() -> None:
    with pytest.raises(DockerfileError) as caught:
        built("# a comment\nEXPOSE 80 \\\n  x\x1b", "scratch", {})
    assert caught.value.line == 3
    assert str(caught.value) == "line 3: Invalid containerPort: x\ufffd"
    assert caught.value.details is not None
    assert caught.value.details.splitlines() == ["EXPOSE 80   x\ufffd", "       " + "^" * 7]


# Bases


def test_nothing_of_the_base_is_changed() -> None:
    base = copy.deepcopy(BASES["rich"])
    assert base is not None
    base["OnBuild"] = ["RUN x"]
    kept = copy.deepcopy(base)
    config = changes.base_config(base)
    for line in ("ENV A=2", "LABEL l=2", "VOLUME /q", "EXPOSE 9", "ONBUILD RUN y", "SHELL [\"s\"]",
                 "HEALTHCHECK NONE", "CMD x", "ENTRYPOINT y"):  # fmt: skip
        changes.apply(config, parse_instruction(line))
    assert base == kept
    assert config["OnBuild"] == ["RUN y"]


def test_triggers() -> None:
    assert changes.triggers({"OnBuild": ["RUN a", "RUN b"]}) == ("RUN a", "RUN b")
    assert changes.triggers({"OnBuild": None}) == changes.triggers(None) == ()


def test_a_stage_made_of_a_stage_forgets_who_said_cmd() -> None:
    config = changes.base_config(None)
    changes.apply(config, parse_instruction('CMD ["a"]'))
    following = changes.base_config(config)
    changes.apply(following, parse_instruction('ENTRYPOINT ["b"]'))
    assert "Cmd" not in following
    assert config["Cmd"] == ["a"]


def test_labels_from_outside_are_steps_in_their_order_and_are_not_replaced() -> None:
    steps = changes.label_steps({"b": "$PATH", "a": "x y"})
    config = changes.base_config(None)
    for one in steps:
        changes.apply(config, expand_instruction(one, {"PATH": "replaced"}))
    assert config["Labels"] == {"a": "x y", "b": "$PATH"}
    assert [created_by(one, config) for one in steps] == [
        "/bin/sh -c #(nop)  LABEL a=x y",
        "/bin/sh -c #(nop)  LABEL b=$PATH",
    ]


# What Docker's own builder does not know


def test_a_start_interval() -> None:
    check = healthchecks.parse(parse_instruction("HEALTHCHECK --start-interval=2s CMD x"))
    assert check == {"Test": ["CMD-SHELL", "x"], "StartInterval": 2_000_000_000}
    assert healthchecks.written(check) == r"""&{["CMD-SHELL" "x"] "0s" "0s" "0s" "2s" '\x00'}"""


def test_a_mode_and_a_heredoc_in_the_history() -> None:
    one = Instruction("COPY", (("chown", "1"), ("chmod", "755")), ("a", "/b"))
    assert created_by(one, {}, source="file:0") == (
        "/bin/sh -c #(nop) COPY --chown=1 --chmod=755 file:0 in /b "
    )
    run = Instruction("RUN", (), ("sh <<E",), heredocs=(Heredoc("E", "a\nb\n"),))
    assert created_by(run, {}) == "/bin/sh -c sh <<E\na\nb\nE"


# What the cache compares


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("RUN x", "run x", True),
        ("RUN x \\\n y", "RUN x  y", True),
        ("RUN x  y", "RUN x y", False),
        ('RUN ["/bin/sh","-c","x"]', "RUN x", True),
        ('RUN ["a b"]', 'RUN ["a","b"]', False),
        ("RUN --mount=type=tmpfs,target=/t x", "RUN x", False),
        ("RUN <<E\na\nE", "RUN <<E\nb\nE", False),
        ("COPY a /x", "COPY b /x", True),
        ("COPY --from=one a /x", "COPY --from=two a /x", True),
        ("COPY a /x", "COPY a /y", False),
        ("COPY a /x", "ADD a /x", False),
        ("COPY --chown=1 a /x", "COPY a /x", False),
        ("COPY --chmod=755 a /x", "COPY a /x", False),
        ("WORKDIR /a", "WORKDIR /b", False),
    ],
)
def test_what_the_cache_compares(one: str, other: str, same: bool) -> None:
    compared = {normal(parse_instruction(text), {"WorkingDir": text[-2:]}) for text in (one, other)}
    assert (len(compared) == 1) is same


# --change of commit and import


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('CMD ["a", "b"]', {"Cmd": ["a", "b"]}),
        ("cmd a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ('ENTRYPOINT ["x"]', {"Entrypoint": ["x"]}),
        ("ENV A=b C='d e' D=\"$OLD f\"", {"Env": ["OLD=o", "A=b", "C=d e", "D=o f"]}),
        ("ENV A b  c", {"Env": ["OLD=o", "A=b  c"]}),
        ("ENV OLD=${OLD}:n", {"Env": ["OLD=o:n"]}),
        ("ENV A=${NONE:-x} B=${OLD:+y} C='$OLD' D=\\$OLD",
         {"Env": ["OLD=o", "A=x", "B=y", "C=$OLD", "D=$OLD"]}),
        ("EXPOSE 80 53/UDP 8000-8001", {"ExposedPorts": {
            "80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}}}),
        ('LABEL a=1 "b c"=2', {"Labels": {"a": "1", "b c": "2"}}),
        ("USER $OLD:1", {"User": "o:1"}),
        ("WORKDIR a/../b", {"WorkingDir": "/b"}),
        ("WORKDIR c", {"WorkingDir": "/c"}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        ("HEALTHCHECK --interval=1m30s --retries=2 CMD a b", {"Healthcheck": {
            "Interval": 90_000_000_000, "Retries": 2, "Test": ["CMD-SHELL", "a b"]}}),
    ],
)  # fmt: skip
def test_a_change(line: str, expected: dict[str, Any]) -> None:
    config: dict[str, Any] = {"Env": ["OLD=o"]}
    changes.apply_change(config, line)
    assert config == {"Env": ["OLD=o"], **expected}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no word"),
        ("RUN x", "no RUN"),
        ('SHELL ["x"]', "no SHELL"),
        ("# CMD x", "no #"),
        ("CMD", "wants something"),
        ("ENV A", "two arguments"),
        ("ENV A=b C", "find = in"),
        ("ENV A='a", "quote"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("ONBUILD FROM x", "FROM isn't allowed"),
        ("HEALTHCHECK --interval=soon CMD x", 'invalid duration "soon"'),
        ("WORKDIR $NOBODY", "cannot normalize nothing"),
    ],
)
def test_what_is_no_change(line: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        changes.apply_change({}, line)
    assert caught.value.resolution


def test_an_entrypoint_takes_the_old_command_away_but_no_new_one() -> None:
    config: dict[str, Any] = {"Cmd": ["old"]}
    changes.apply_changes(config, ['ENTRYPOINT ["x"]'])
    assert "Cmd" not in config
    changes.apply_changes(config, ['CMD ["new"]', 'ENTRYPOINT ["y"]'])
    assert config == {"Cmd": ["new"], "Entrypoint": ["y"]}


def test_a_healthcheck_takes_over_what_was_there_before_the_lines() -> None:
    config: dict[str, Any] = {"Healthcheck": {"Test": ["CMD", "a"], "Retries": 4}}
    lines = ["HEALTHCHECK --interval=1s CMD b", "HEALTHCHECK --timeout=2s CMD c"]
    changes.apply_changes(config, lines)
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "c"], "Retries": 4, "Timeout": 2 * 10**9}


def test_nothing_is_changed_where_one_line_is_no_change() -> None:
    config: dict[str, Any] = {"User": "a"}
    with pytest.raises(StoreError):
        changes.apply_changes(config, ["USER b", "NONSENSE"])
    assert config == {"User": "a"}
