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

_WORD = re.compile(f"([^{BLANKS}]*)[{BLANKS}]*")
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")
_EXPANDED = (
    *("ADD", "ARG", "COPY", "ENV", "EXPOSE", "FROM", "LABEL"),
    *("STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
)
_NO_TRIGGERS = ("FROM", "MAINTAINER", "ONBUILD")
_LISTS = ("ADD", "COPY", "VOLUME")  # whose words are cut at blanks, quoted ones too
_LONGEST_SHOWN = 100


def parse(text: bytes | str, name: str = "Dockerfile") -> Dockerfile:
    """What a Dockerfile says.

    Args:
        text: all of it.
        name: of the file, for messages.

    Raises:
        DockerfileError: it cannot be taken; names the line, shows it, says what was expected.
    """
    lines = Lines(_decoded(text, name), name)
    stages = _Stages()
    while line := lines.next():
        try:
            stages.add(_Reader(line, lines).read())
        except Fault as fault:
            raise lines.error(fault, line) from None
    if not stages.all:
        raise _without_stage(name, bool(stages.arguments))
    return Dockerfile(
        tuple(stage.finished(number) for number, stage in enumerate(stages.all)),
        tuple(stages.arguments),
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
        instruction = _Reader(line, lines).read()
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


def _meant(word: str) -> str | None:
    """What to do about a word that is no instruction."""
    if any(one.isspace() for one in word):
        return "type the space in it anew: it is not a plain one"
    return did_you_mean(word, WORDS)


class _Stage(NamedTuple):
    """A stage of which not all has been read."""

    base: Instruction
    name: str
    instructions: list[Instruction]

    def finished(self, number: int) -> Stage:
        platform = dict(self.base.flags).get("platform", "")
        return Stage(number, self.name, self.base, platform, tuple(self.instructions))


class _Stages:
    """Puts instructions where they belong."""

    def __init__(self) -> None:
        self.all: list[_Stage] = []
        self.arguments: list[Instruction] = []
        self._lines: dict[str, int] = {}  # of the names

    def add(self, instruction: Instruction) -> None:
        if instruction.word == "FROM":
            self._begin(instruction)
        elif self.all:
            self.all[-1].instructions.append(instruction)
        elif instruction.word == "ARG":
            self.arguments.append(instruction)
        else:
            raise Fault(
                "no build stage in current context",
                width=len(instruction.word),
                expected="FROM, or ARG before it",
                resolution=f"put a FROM before the {instruction.word}",
            )

    def _begin(self, instruction: Instruction) -> None:
        name = instruction.arguments[2].lower() if len(instruction.arguments) > 1 else ""
        if name in self._lines:
            raise Fault(
                f"{name} stage name already used",
                width=len(instruction.source),
                resolution=f"give one of them another: line {self._lines[name]} has it, too",
            )
        if name:
            self._lines[name] = instruction.line
        self.all.append(_Stage(instruction, name, []))


class _Reader:
    """Reads the instruction of a line, and the heredocs below it.

    Args:
        line: the line.
        lines: what it is of.
    """

    def __init__(self, line: Line, lines: Lines) -> None:
        self._line = line
        self._lines = lines
        self._text = line.text.rstrip(SPACES)

    def read(self) -> Instruction:
        """The instruction.

        Raises:
            Fault: it cannot be taken; its place is that in the line.
        """
        word, at = self._word(0)
        instruction = self._instruction(word, at)
        if word == "ONBUILD":
            return self._onbuild(instruction)
        return self._with_heredocs(instruction)

    def _word(self, at: int) -> tuple[str, int]:
        """The word of the instruction that begins at *at*, and where the rest begins."""
        found = _WORD.match(self._text, at)
        assert found
        word = found[1].upper()
        if word not in WORDS or not found[1].isascii():
            raise Fault(
                f"unknown instruction: {word[:_LONGEST_SHOWN] or 'nothing at all'}",
                at,
                width=len(word),
                expected=f"one of {', '.join(WORDS)}",
                resolution=_meant(word[:_LONGEST_SHOWN]),
            )
        return word, found.end()

    def _instruction(self, word: str, at: int) -> Instruction:
        given, rest = flags.extracted(self._text, at, self._lines.escape)
        arguments = cut(word, Rest(self._text, rest, self._lines.escape))
        checked = flags.checked(word, given)
        if word in _EXPANDED:
            self._check(word, arguments.words, rest)
        if arguments.rest:
            self._lines.notes.append(
                f"line {self._line.first}: what stands behind the JSON is ignored: "
                + arguments.rest[:_LONGEST_SHOWN]
            )
        return Instruction(
            word,
            checked,
            arguments.words,
            exec_form=arguments.exec_form,
            text=self._text[at:],
            line=self._line.first,
            last_line=self._lines.last,
        )

    def _check(self, word: str, arguments: Sequence[str], at: int) -> None:
        """Find now what could not be expanded later."""
        for one in arguments:
            try:
                words.check(one, self._lines.escape)
            except Fault as fault:
                if word in _LISTS and "-quote" in fault.message:
                    fault.resolution = f'write names with blanks as JSON: {word} ["a b", "/c"]'
                raise fault.moved(max(self._text.find(one, at), at)) from None

    def _onbuild(self, instruction: Instruction) -> Instruction:
        """With the heredocs of what it puts off, and with the blanks at its end, as Docker."""
        at = len(self._text) - len(instruction.arguments[0])
        word, behind = self._word(at)
        if word in _NO_TRIGGERS:
            chain = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
            raise Fault(
                chain if word == "ONBUILD" else f"{word} isn't allowed as an ONBUILD trigger",
                at,
                width=len(word),
                expected="another instruction",
            )
        trigger = self._with_heredocs(self._instruction(word, behind))
        parts = (self._line.text[at:], *(one.content + one.name for one in trigger.heredocs))
        return instruction._replace(arguments=("\n".join(parts),), last_line=self._lines.last)

    def _with_heredocs(self, instruction: Instruction) -> Instruction:
        word = instruction.word
        if "<<" not in self._text or word not in _WITH_HEREDOCS or instruction.exec_form:
            return instruction
        found = [self._heredoc(word, mark) for mark in heredocs.marks(self._text)]
        return instruction._replace(heredocs=tuple(found), last_line=self._lines.last)

    def _heredoc(self, word: str, mark: heredocs.Mark) -> Heredoc:
        if word != "RUN" and (mark.name in (".", "..") or "/" in mark.name):
            raise Fault(
                f"{mark.name} is no name for a heredoc of {word}: it becomes a file's",
                mark.at,
                width=len(mark.name) + 2,
                expected="a word",
            )
        content = self._lines.body(mark.name, tabs=mark.tabs)
        if content is None:
            raise Fault(
                f"unterminated heredoc: no line is {mark.name}",
                mark.at,
                width=len(mark.name) + 2,
                expected=f"a line with nothing but {mark.name}",
            )
        return Heredoc(mark.name, content, mark.expand)
