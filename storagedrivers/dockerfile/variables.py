"""Variables: what an instruction sees of ENV, ARG and the build's own arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from storagedrivers.dockerfile.faults import Fault, error_of
from storagedrivers.dockerfile.instructions import Heredoc, Instruction
from storagedrivers.dockerfile.words import Lexer
from storagedrivers.oci.platforms import Platform, host_platform

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PREDEFINED = frozenset((*_PROXIES, *map(str.lower, _PROXIES)))
"""Arguments that need no ARG, and that no history tells: a proxy may have a password in it."""


def platform_arguments(target: Platform | None = None) -> dict[str, str]:
    """The arguments that say what is built for, and on what; a FROM sees them, others declare them.

    Args:
        target: what is built for; this host's platform where it is None.
    """
    host = host_platform()
    found = {}
    for prefix, platform in (("TARGET", target or host), ("BUILD", host)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


class Scope:
    """The arguments of one stage.

    Args:
        arguments: the ARGs before the first FROM.
        given: values from outside: ``--build-arg``.
        escape: the Dockerfile's escape character.
        platform: what is built for; this host's where it is None.

    Raises:
        DockerfileError: a default cannot be expanded.
    """

    def __init__(
        self,
        arguments: Iterable[Instruction],
        given: Mapping[str, str],
        *,
        escape: str = "\\",
        platform: Platform | None = None,
    ) -> None:
        self._given = dict(given)
        self._escape = escape
        self._platform = platform_arguments(platform)
        self._global: dict[str, str] = {}  # defaults of those that have one
        self._names: set[str] = set()
        self._declared: dict[str, str | None] = {}
        for one in arguments:
            environment = self.global_environment()
            for name, default in self._defaults(one, environment):
                self._names.add(name)
                self._global.pop(name, None)
                if default is not None:
                    self._global[name] = default
        self._seen = set(self._names)

    def _defaults(
        self, instruction: Instruction, environment: Mapping[str, str]
    ) -> list[tuple[str, str | None]]:
        """Names and defaults of an ARG; all of them see what was there before it."""
        found = expand_instruction(instruction, environment, self._escape)
        pairs = (word.partition("=") for word in found.arguments)
        return [(name, default if equals else None) for name, equals, default in pairs]

    def global_environment(self) -> dict[str, str]:
        """What a FROM sees."""
        given = {name: value for name, value in self._given.items() if self._is_global(name)}
        return {**self._platform, **self._global, **given}

    def _is_global(self, name: str) -> bool:
        return name in self._names or name in PREDEFINED or name in self._platform

    def declare(self, instruction: Instruction, env: Sequence[str] = ()) -> None:
        """Take an ARG of the stage.

        Args:
            instruction: it, expanded or not.
            env: of the image.

        Raises:
            DockerfileError: a default cannot be expanded.
        """
        for name, default in self._defaults(instruction, self.environment(env)):
            self._seen.add(name)
            self._declared[name] = default

    def _value(self, name: str) -> str | None:
        """Of an argument: the given one, its own default, the one before the first FROM."""
        if name in self._given:
            return self._given[name]
        default = self._declared.get(name)
        if default is not None:
            return default
        return self._global.get(name, self._platform.get(name))

    def _values(self, env: Sequence[str]) -> dict[str, str]:
        """Of all arguments that are seen and have a value, but for those that ENV sets."""
        of_image = {one.partition("=")[0] for one in env}
        predefined = (name for name in self._given if name in PREDEFINED)
        names = sorted({*self._declared, *predefined} - of_image)
        found = ((name, self._value(name)) for name in names)
        return {name: value for name, value in found if value is not None}

    def environment(self, env: Sequence[str]) -> dict[str, str]:
        """What an instruction sees: ENV before ARG.

        Args:
            env: of the image: ``A=b``.
        """
        return {**self._values(env), **dict(one.partition("=")[::2] for one in env)}

    def run_arguments(self, env: Sequence[str] = ()) -> list[str]:
        """The arguments that a RUN sees and its history tells: ``A=b``, sorted."""
        found = self._values(env).items()
        # As whole texts, as Docker does it: A=1 comes after A0=1.
        return sorted(f"{name}={value}" for name, value in found if self._is_told(name))

    def hidden_arguments(self, env: Sequence[str] = ()) -> list[str]:
        """The arguments that a RUN sees and its history does not tell."""
        found = self._values(env).items()
        return sorted(f"{name}={value}" for name, value in found if not self._is_told(name))

    def _is_told(self, name: str) -> bool:
        return name in self._declared or name not in PREDEFINED

    def unused(self) -> tuple[str, ...]:
        """The arguments that were given and that no ARG up to now declares."""
        return tuple(sorted(set(self._given) - self._seen - PREDEFINED))


def unused(scopes: Iterable[Scope]) -> tuple[str, ...]:
    """The arguments that were given and that no stage declares; Docker warns of those."""
    found = [set(scope.unused()) for scope in scopes]
    return tuple(sorted(set.intersection(*found))) if found else ()


_WORD_BY_WORD = ("ENV", "FROM", "LABEL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
_FLAGS = ("checksum", "chmod", "chown", "platform")


def expand_instruction(
    instruction: Instruction, environment: Mapping[str, str], escape: str = "\\"
) -> Instruction:
    """The instruction with its variables put in and its quotes taken away, where Docker does that.

    Args:
        instruction: as it was written.
        environment: what it sees, see :meth:`Scope.environment`.
        escape: the Dockerfile's escape character.

    Raises:
        DockerfileError: a quote or a brace has no end, or a variable has to be set and is not.
    """
    if instruction.expanded:
        return instruction
    expander = _Expander(instruction, environment, escape)
    word = instruction.word
    if word in _WORD_BY_WORD:
        arguments = expander.each(expander.word)
    elif word == "ARG":
        arguments = expander.each(expander.argument)
    elif word in ("ADD", "COPY"):
        arguments = expander.each(expander.path)
    elif word == "EXPOSE":
        lists = [expander.ports(one) for one in instruction.arguments]
        arguments = tuple(port for ports in lists for port in ports)
    else:
        arguments = instruction.arguments
    return instruction._replace(
        arguments=arguments,
        flags=tuple((name, expander.flag(name, value)) for name, value in instruction.flags),
        heredocs=tuple(map(expander.heredoc, instruction.heredocs)),
        expanded=True,
    )


class _Expander:
    """Expands the parts of one instruction."""

    def __init__(
        self, instruction: Instruction, environment: Mapping[str, str], escape: str
    ) -> None:
        self._instruction = instruction
        self._environment = environment
        self._escape = escape

    def each(self, expanded: Callable[[str], str]) -> tuple[str, ...]:
        return tuple(map(expanded, self._instruction.arguments))

    def word(self, text: str) -> str:
        if not text.isalnum():  # or else there is nothing in it
            try:
                return Lexer(text, self._environment, self._escape).whole()
            except Fault as fault:
                raise self._error(fault, text) from None
        return text

    def argument(self, text: str) -> str:
        name, equals, default = text.partition("=")
        return f"{self.word(name)}{equals}{self.word(default)}"

    def path(self, text: str) -> str:
        is_heredoc = any(text == f"<<{one.name}" for one in self._instruction.heredocs)
        return text if is_heredoc else self.word(text)

    def ports(self, text: str) -> list[str]:
        try:
            return Lexer(text, self._environment, self._escape).words()
        except Fault as fault:
            raise self._error(fault, text) from None

    def flag(self, name: str, value: str) -> str:
        if name == "mount" and "$" in value:
            return self._mount(value)
        return self.word(value) if name in _FLAGS else value

    def _mount(self, text: str) -> str:
        """A mount's fields one by one: a comma of a value does not begin another."""
        from storagedrivers.dockerfile.mount_fields import joined, split

        fields = []
        for field in split(text):
            key, equals, value = field.partition("=")
            fields.append(f"{key}{equals}{self.word(value)}")
        return joined(fields)

    def heredoc(self, heredoc: Heredoc) -> Heredoc:
        # Of a RUN, variables are the shell's to put in.
        if not heredoc.expand or self._instruction.word == "RUN":
            return heredoc
        lexer = Lexer(heredoc.content, self._environment, "\\", quotes=False)
        try:
            return heredoc._replace(content=lexer.whole(), expand=False)
        except Fault as fault:
            raise self._error(fault, "") from None

    def _error(self, fault: Fault, text: str) -> Exception:
        source = self._instruction.source
        place = max(source.find(text), 0) if text else 0
        return error_of(fault, "", self._instruction.line, source, place + fault.at)
