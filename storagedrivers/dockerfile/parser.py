"""Reads Dockerfiles: logical lines become instructions, and those become stages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from storagedrivers.dockerfile import flags, heredocs, words
from storagedrivers.dockerfile.arguments import Rest, cut
from storagedrivers.dockerfile.faults import Fault
from storagedrivers.dockerfile.instructions import (
    WORDS,
    Dockerfile,
    Heredoc,
    Instruction,
    Stage,
)
from storagedrivers.dockerfile.lines import BLANKS, SPACES, Line, Lines
from storagedrivers.errors import DockerfileError, did_you_mean

_WORD = re.compile(f"[^{BLANKS}]*")
_REST = re.compile(f"[{BLANKS}]*")
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")
_EXPANDED = (
    *("ADD", "ARG", "COPY", "ENV", "EXPOSE", "FROM", "LABEL"),
    *("STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
)
_NO_TRIGGERS = ("FROM", "MAINTAINER")


def parse(text: bytes | str, name: str = "Dockerfile") -> Dockerfile:
    """What a Dockerfile says.

    Args:
        text: all of it.
        name: of the file, for messages.

    Raises:
        DockerfileError: it cannot be taken; names the line, shows it, says what was expected.
    """
    lines = Lines(_decoded(text, name), name)
    instructions = []
    stages: list[_Stage] = []
    arguments: list[Instruction] = []
    while line := lines.next():
        try:
            instruction = _read(line, lines)
            _sort(instruction, stages, arguments)
        except Fault as fault:
            raise lines.error(fault, line) from None
        instructions.append(instruction)
    if not stages:
        raise _without_stage(name, bool(instructions))
    return Dockerfile(
        tuple(stage.finished(number) for number, stage in enumerate(stages)),
        tuple(arguments),
        lines.escape,
        tuple(lines.notes),
        name,
        lines.shown,
    )


def parse_instruction(text: str, escape: str = "\\") -> Instruction:
    """The one instruction that a text is: a trigger of an image, a change of a config.

    Args:
        text: it; with the texts of its heredocs below it.
        escape: the escape character.

    Raises:
        DockerfileError: it cannot be taken, or is not one.
    """
    lines = Lines(text, "")
    lines.escape = escape
    line = lines.next()
    if line is None:
        raise DockerfileError(
            "there is no instruction", resolution=f"write one: {', '.join(WORDS)}"
        )
    try:
        instruction = _read(line, lines)
    except Fault as fault:
        raise lines.error(fault, line) from None
    other = lines.next()
    if other is not None:
        raise lines.error(
            Fault("there has to be one instruction, and no other", expected="nothing more"), other
        )
    return instruction._replace(line=0, last_line=0)


def _decoded(text: bytes | str, name: str) -> str:
    if not text:
        raise DockerfileError(
            f"the Dockerfile ({name}) cannot be empty",
            resolution="begin it with a FROM: FROM scratch",
        )
    if isinstance(text, str):
        return text
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DockerfileError(
            f"{name} line 1: this is UTF-16", line=1, resolution="save it as UTF-8"
        )
    # What is no UTF-8 does no harm in a comment.
    return text.decode("utf-8", "surrogateescape")


def _without_stage(name: str, has_instructions: bool) -> DockerfileError:
    why = "no stage: it ends before its first FROM" if has_instructions else "no instructions"
    return DockerfileError(
        f"{name}: file with {why}", resolution="begin a stage with a FROM: FROM scratch"
    )


class _Stage(NamedTuple):
    """A stage of which not all has been read."""

    base: Instruction
    name: str
    instructions: list[Instruction]

    def finished(self, number: int) -> Stage:
        platform = dict(self.base.flags).get("platform", "")
        return Stage(number, self.name, self.base, platform, tuple(self.instructions))


def _sort(instruction: Instruction, stages: list[_Stage], arguments: list[Instruction]) -> None:
    """Put an instruction where it belongs."""
    if instruction.word == "FROM":
        name = instruction.arguments[2].lower() if len(instruction.arguments) > 1 else ""
        for number, stage in enumerate(stages):
            if name and stage.name == name:
                raise Fault(
                    f"{name} stage name already used",
                    resolution=f"choose another for one of them; "
                    f"stage {number} has it since line {stage.base.line}",
                )
        stages.append(_Stage(instruction, name, []))
    elif stages:
        stages[-1].instructions.append(instruction)
    elif instruction.word == "ARG":
        arguments.append(instruction)
    else:
        raise Fault(
            "no build stage in current context",
            width=len(instruction.word),
            expected="FROM, or ARG before it",
            resolution=f"put a FROM before the {instruction.word}",
        )


def _read(line: Line, lines: Lines) -> Instruction:
    """The instruction of a line, and the heredocs below it.

    Raises:
        Fault: it cannot be taken; its place is that in the line.
    """
    text = line.text.rstrip(SPACES)
    instruction = _instruction(text, lines.escape, lines.notes)
    bodies = _heredocs(instruction, line, lines)
    if instruction.word == "ONBUILD":
        # With the blanks at its end: Docker keeps those of a trigger.
        trigger = instruction.arguments[0] + line.text[len(text) :]
        parts = (trigger, *(one.content + one.name for one in bodies))
        instruction = instruction._replace(arguments=("\n".join(parts),))
    elif bodies:
        instruction = instruction._replace(heredocs=tuple(bodies))
    return instruction._replace(line=line.first, last_line=lines.last)


def _instruction(text: str, escape: str, notes: list[str], at: int = 0) -> Instruction:
    """The instruction from *at* on."""
    found = _WORD.match(text, at)
    assert found
    word = found[0].upper()
    if word not in WORDS:
        raise Fault(
            f"unknown instruction: {word[:100]}",
            at,
            width=len(found[0]),
            expected=f"one of {', '.join(WORDS)}",
            resolution=did_you_mean(word[:100], WORDS),
        )
    start = found.end()
    start += len(_REST.match(text, start)[0])  # type: ignore[index]
    given, rest = flags.extracted(text, start, escape)
    arguments = cut(word, Rest(text, rest, escape))
    checked = flags.checked(word, given)
    if word in _EXPANDED:
        _check(arguments.words, text, rest, escape)
    if word == "ONBUILD":
        _check_trigger(text, escape, notes, rest)
    if arguments.rest:
        notes.append(f"{word}: what stands behind its JSON is left out: {arguments.rest[:100]}")
    return Instruction(
        word, checked, arguments.words, exec_form=arguments.exec_form, text=text[start:]
    )


def _check(arguments: Sequence[str], text: str, at: int, escape: str) -> None:
    """Find now what could not be expanded later."""
    for one in arguments:
        try:
            words.check(one, escape)
        except Fault as fault:
            raise fault.moved(max(text.find(one, at), at)) from None


def _check_trigger(text: str, escape: str, notes: list[str], at: int) -> None:
    trigger = _instruction(text, escape, notes, at)
    if trigger.word == "ONBUILD":
        raise Fault(
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
            at,
            width=len(trigger.word),
            expected="another instruction",
        )
    if trigger.word in _NO_TRIGGERS:
        raise Fault(
            f"{trigger.word} isn't allowed as an ONBUILD trigger",
            at,
            width=len(trigger.word),
            expected="another instruction",
        )


def _heredocs(instruction: Instruction, line: Line, lines: Lines) -> list[Heredoc]:
    if instruction.word == "ONBUILD":
        instruction = _instruction(instruction.arguments[0], lines.escape, [])
    if instruction.word not in _WITH_HEREDOCS or instruction.exec_form:
        return []
    found = []
    for mark in heredocs.marks(line.text):
        if instruction.word != "RUN" and (mark.name in (".", "..") or "/" in mark.name):
            raise Fault(
                f"{mark.name} is no name for a heredoc of {instruction.word}: it becomes a file's",
                mark.at,
                width=len(mark.name) + 2,
                expected="a word",
            )
        content = lines.body(mark.name, tabs=mark.tabs)
        if content is None:
            raise Fault(
                f"unterminated heredoc: no line is {mark.name}",
                mark.at,
                width=len(mark.name) + 2,
                expected=f"a line with nothing but {mark.name}",
            )
        found.append(Heredoc(mark.name, content, mark.expand))
    return found
