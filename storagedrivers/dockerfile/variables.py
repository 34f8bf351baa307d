"""Variables: what an instruction sees of ARG, ENV and the build's own arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from storagedrivers.dockerfile import words
from storagedrivers.dockerfile.instructions import Heredoc, Instruction
from storagedrivers.oci.platforms import Platform, host_platform

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PREDEFINED = frozenset((*_PROXIES, *map(str.lower, _PROXIES)))
"""Arguments that need no ARG, and are told to no history."""


def platform_arguments(target: Platform | None = None) -> dict[str, str]:
    """The arguments that say what is built for, and on what; for those that declare them."""
    found = {}
    for prefix, platform in (("TARGET", target or host_platform()), ("BUILD", host_platform())):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant or ""
    return found


class Scope:
    """The arguments of one stage.

    Args:
        arguments: the ARGs before the first FROM.
        given: values from outside.
        escape: the escape character.
        platform: that is built for; by default the host's.
    """

    def __init__(
        self,
        arguments: Sequence[Instruction],
        given: Mapping[str, str],
        *,
        escape: str = "\\",
        platform: Platform | None = None,
    ) -> None:
        self._given = dict(given)
        self._escape = escape
        self._platform = platform_arguments(platform)
        self._global: dict[str, str | None] = {}
        self._declared: dict[str, str | None] = {}
        for one in arguments:
            for name, default in self._parsed(one, self._values(self._global)):
                self._global[name] = self._given.get(name, default)

    def _parsed(
        self, instruction: Instruction, environment: Mapping[str, str]
    ) -> Iterator[tuple[str, str | None]]:
        for word in instruction.arguments:
            name, equals, default = word.partition("=")
            name = words.expand(name, {}, escape=self._escape)
            value = words.expand(default, environment, escape=self._escape) if equals else None
            yield name, value if equals else self._platform.get(name)

    @staticmethod
    def _values(found: Mapping[str, str | None]) -> dict[str, str]:
        return {name: value for name, value in found.items() if value is not None}

    def global_environment(self) -> dict[str, str]:
        """What a FROM sees."""
        return {**self._platform, **self._values(self._global)}

    def declare(self, instruction: Instruction, env: Sequence[str] = ()) -> None:
        """Take an ARG of the stage."""
        for name, default in self._parsed(instruction, self.environment(env)):
            if default is None:
                default = self._global.get(name)
            self._declared[name] = self._given.get(name, default)

    def environment(self, env: Sequence[str]) -> dict[str, str]:
        """What an instruction sees: what ENV says wins."""
        predefined = {name: self._given[name] for name in self._given if name in PREDEFINED}
        of_image = dict(one.partition("=")[::2] for one in env)
        return {**predefined, **self._values(self._declared), **of_image}

    def run_arguments(self, env: Sequence[str] = ()) -> list[str]:
        """The arguments that a RUN sees and that are told: those that were declared and have a
        value, but for those that ENV sets.
        """
        of_image = {one.partition("=")[0] for one in env}
        found = self._values(self._declared)
        return [f"{name}={found[name]}" for name in sorted(found) if name not in of_image]

    def hidden_arguments(self) -> list[str]:
        """Those that a RUN sees and that are not told, as a proxy may have a password in it."""
        names = (name for name in sorted(self._given) if name in PREDEFINED)
        return [f"{name}={self._given[name]}" for name in names if name not in self._declared]


_EXPANDED = frozenset(("ENV", "LABEL", "USER", "WORKDIR", "STOPSIGNAL", "ADD", "COPY"))
_SPLIT = frozenset(("EXPOSE", "VOLUME"))


def expand_instruction(
    instruction: Instruction, environment: Mapping[str, str], escape: str = "\\"
) -> Instruction:
    """An instruction with its variables replaced, where its kind has that, and its quotes gone."""
    word = instruction.word

    def expanded(text: str) -> str:
        return words.expand(text, environment, escape=escape)

    if word in _SPLIT and not instruction.exec_form:
        found = [
            piece
            for one in instruction.arguments
            for piece in words.split(one, environment, escape=escape)
        ]
        return instruction._replace(arguments=tuple(found))
    if word not in _EXPANDED and word not in _SPLIT:
        return instruction
    arguments = tuple(
        one if word in ("ADD", "COPY") and one.startswith("<<") else expanded(one)
        for one in instruction.arguments
    )
    flags = tuple((name, expanded(value)) for name, value in instruction.flags)
    heredocs = tuple(_expanded(one, environment, escape) for one in instruction.heredocs)
    return instruction._replace(arguments=arguments, flags=flags, heredocs=heredocs)


def _expanded(heredoc: Heredoc, environment: Mapping[str, str], escape: str) -> Heredoc:
    """Its variables replaced; quotes mean nothing in it."""
    if not heredoc.expand:
        return heredoc
    content = heredoc.content.replace('"', f'{escape}"').replace("'", f"{escape}'")
    return heredoc._replace(content=words.expand(content, environment, escape=escape))
