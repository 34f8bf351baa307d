"""What a Dockerfile says, as values."""

from __future__ import annotations

from typing import NamedTuple

WORDS = (
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
)
"""Of all instructions."""


class Heredoc(NamedTuple):
    """A text that stands below its instruction.

    Attributes:
        name: the word that ends it.
        content: its lines, with their ends; without leading tabs where ``<<-`` took them away.
        expand: whether variables are put in; not where the word was quoted.
    """

    name: str
    content: str
    expand: bool = True


class Instruction(NamedTuple):
    """One instruction.

    Attributes:
        word: in upper case: ``RUN``.
        flags: ``--name=value``, in their order; the value of a switch that is on is empty, and one
            that is off is left out.
        arguments: of RUN, CMD, ENTRYPOINT and SHELL the words of the JSON form, or one text for the
            shell, or none; of COPY and ADD sources and the destination, a heredoc as ``<<NAME``;
            of ENV and LABEL name, value, name, value, …; of ARG ``NAME`` and ``NAME=default``; of
            HEALTHCHECK the type and then as CMD; of ONBUILD one text, the trigger. As written,
            with quotes and variables, until ``variables.expand_instruction`` has seen to them.
        exec_form: the arguments were JSON.
        heredocs: that belong to it.
        text: what stands after the word, flags too, with continued lines joined, without comments
            and heredocs.
        line: where it begins, from 1; 0 where it is of no file.
        last_line: where it ends.
        expanded: nothing is left to be expanded.
    """

    word: str
    flags: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    exec_form: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    text: str = ""
    line: int = 0
    last_line: int = 0
    expanded: bool = False

    @property
    def source(self) -> str:
        """As it is shown."""
        return f"{self.word} {self.text}" if self.text else self.word


class Stage(NamedTuple):
    """A FROM and what follows it.

    Attributes:
        number: from 0.
        name: in lower case; empty where it has none.
        base: the FROM; its first argument is the image, not expanded.
        platform: of the FROM, not expanded; empty where it has none.
        instructions: the others.
    """

    number: int
    name: str
    base: Instruction
    platform: str
    instructions: tuple[Instruction, ...]


class Dockerfile(NamedTuple):
    """A Dockerfile.

    Attributes:
        stages: at least one.
        arguments: the ARGs before the first FROM.
        escape: the character that continues lines and takes meaning away from others.
        notes: what the user should know.
        name: its name, for messages.
        lines: all of it, for messages: without what a terminal would obey.
    """

    stages: tuple[Stage, ...]
    arguments: tuple[Instruction, ...]
    escape: str
    notes: tuple[str, ...]
    name: str
    lines: tuple[str, ...]
