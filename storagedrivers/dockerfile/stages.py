"""Which stages are built for a target, and what each of them begins with and reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from storagedrivers.dockerfile import mount_fields
from storagedrivers.dockerfile.faults import Fault, error_of
from storagedrivers.dockerfile.instructions import Dockerfile, Instruction, Stage
from storagedrivers.dockerfile.parser import parse_instruction
from storagedrivers.dockerfile.variables import Scope
from storagedrivers.dockerfile.words import Lexer
from storagedrivers.errors import DockerfileError, StoreError, did_you_mean
from storagedrivers.oci.platforms import Platform, parse_platform

_NUMBER = re.compile(r"[+-]?[0-9]+")
_DIGITS = 10  # more would be no number of a stage either


class PlannedStage(NamedTuple):
    """A stage that is built.

    Attributes:
        stage: it.
        base: the number of the stage that it begins with, or the name of an image.
        platform: what it is for; empty where it does not say.
        sources: what ``--from`` of a COPY and ``from=`` of a mount mean, by how they are written:
            the number of a stage, or the name of an image.
    """

    stage: Stage
    base: int | str
    platform: str
    sources: Mapping[str, int | str]

    @property
    def needs(self) -> frozenset[int]:
        """The stages that have to be built before it."""
        return frozenset(one for one in (self.base, *self.sources.values()) if isinstance(one, int))


class Plan(NamedTuple):
    """What is built.

    Attributes:
        stages: in their order in the Dockerfile, so that each comes after those it needs; the
            target is the last.
    """

    stages: tuple[PlannedStage, ...]


def resolve(
    dockerfile: Dockerfile,
    *,
    target: str | None = None,
    build_args: Mapping[str, str] | None = None,
    platform: Platform | None = None,
    triggers: Callable[[str], Iterable[str]] = lambda image: (),
) -> Plan:
    """What has to be built for a target.

    Args:
        dockerfile: the Dockerfile.
        target: the name of a stage; the last one where it is None.
        build_args: values from outside.
        platform: what is built for; this host's where it is None.
        triggers: the ONBUILDs of an image, which may read stages, too.

    Raises:
        DockerfileError: there is no such stage; a stage begins with or reads itself or a later one;
            the name of an image is empty.
    """
    scope = Scope(
        dockerfile.arguments, build_args or {}, escape=dockerfile.escape, platform=platform
    )
    resolver = _Resolver(dockerfile, scope.global_environment(), triggers)
    found: dict[int, PlannedStage] = {}
    wanted = [_target(dockerfile, target)]
    while wanted:
        number = wanted.pop()
        if number not in found:
            found[number] = resolver.planned(dockerfile.stages[number])
            wanted += found[number].needs
    return Plan(tuple(found[number] for number in sorted(found)))


def _target(dockerfile: Dockerfile, target: str | None) -> int:
    if not target:
        return len(dockerfile.stages) - 1
    names = {stage.name: stage.number for stage in dockerfile.stages if stage.name}
    if target.lower() in names:
        return names[target.lower()]
    known = f"its stages are {', '.join(names)}" if names else "none of its stages has a name"
    raise DockerfileError(
        f"failed to reach build target {target} in {dockerfile.name}",
        resolution=did_you_mean(target.lower(), names) or known,
    )


class _Resolver:
    """Finds out what the names in stages mean."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        environment: Mapping[str, str],
        triggers: Callable[[str], Iterable[str]],
    ) -> None:
        self._dockerfile = dockerfile
        self._environment = environment
        self._triggers = triggers
        self._numbers = {stage.name: stage.number for stage in dockerfile.stages if stage.name}

    def planned(self, stage: Stage) -> PlannedStage:
        """What a stage begins with and reads.

        Raises:
            DockerfileError: it begins with or reads what is not there before it.
        """
        name, platform = self._image(stage), self._platform(stage)
        number = self._numbers.get(name.lower(), stage.number)
        if number < stage.number:
            base: int | str = number
            instructions: Iterable[Instruction] = stage.instructions
        else:
            if number > stage.number:  # FROM nginx AS nginx takes the image
                self._check_later(stage, stage.base, name)
            base = name
            instructions = (*map(parse_instruction, self._triggers(name)), *stage.instructions)
        sources = {
            source: self._source(stage, instruction, source)
            for instruction in instructions
            for source in _sources(instruction)
        }
        return PlannedStage(stage, base, platform, sources)

    def _image(self, stage: Stage) -> str:
        written = stage.base.arguments[0]
        name = self._expanded(stage.base, written)
        if name:
            return name
        raise self._error(
            stage.base,
            f"base name ({written}) should not be blank",
            written,
            "give the variable a default: put ARG NAME=IMAGE before the first FROM",
        )

    def _platform(self, stage: Stage) -> str:
        platform = self._expanded(stage.base, stage.platform)
        if platform:
            try:
                parse_platform(platform)
            except StoreError as error:
                raise self._error(
                    stage.base,
                    f"failed to parse platform {platform}: {error}",
                    stage.platform,
                    error.resolution or "",
                ) from error
        return platform

    def _expanded(self, base: Instruction, text: str) -> str:
        try:
            return Lexer(text, self._environment, self._dockerfile.escape).whole()
        except Fault as fault:
            raise self._error(base, fault.message, text, fault.resolution or "") from None

    def _source(self, stage: Stage, instruction: Instruction, source: str) -> int | str:
        number = self._numbers.get(source.lower())
        if number is None and _NUMBER.fullmatch(source):
            number = int(source) if len(source) <= _DIGITS else -1
            if not 0 <= number < stage.number:
                itself = number == stage.number
                why = "refers to current build stage" if itself else "index out of bounds"
                raise self._error(
                    instruction,
                    f"invalid from flag value {source}: {why}",
                    source,
                    "name an earlier stage, or count the stages before this one from 0",
                )
        if number is not None and number < stage.number:
            return number
        self._check_later(stage, instruction, source)
        return source

    def _check_later(self, stage: Stage, instruction: Instruction, name: str) -> None:
        """Refuse to take an image for a stage that is not there yet.

        But ``FROM nginx AS nginx`` is another name for an image, and before that stage the image
        itself is meant.
        """
        number = self._numbers.get(name.lower())
        if number is None:
            return
        other = self._dockerfile.stages[number]
        if _last_name(other.base.arguments[0]) == other.name:
            return
        if number == stage.number:
            what = f"stage {name} cannot read itself"
        elif self._reaches(number, stage.number):
            what = f"stages {stage.name or stage.number} and {name} need each other"
        else:
            what = f"stage {name} comes later"
        raise self._error(
            instruction,
            what,
            name,
            f"read a stage above this one; if an image is meant, give stage {name} another name",
        )

    def _reaches(self, start: int, goal: int) -> bool:
        """Whether a stage needs another one, whatever their order."""
        seen, left = {start}, [start]
        while left:
            stage = self._dockerfile.stages[left.pop()]
            named = {source for one in stage.instructions for source in _sources(one)}
            named.add(self._expanded(stage.base, stage.base.arguments[0]))
            numbers = {self._numbers.get(name.lower()) for name in named}
            found = {one for one in numbers if one is not None} - seen
            seen |= found
            left += found
        return goal in seen

    def _error(
        self, instruction: Instruction, message: str, text: str, resolution: str
    ) -> DockerfileError:
        source = instruction.source
        at = max(source.find(text), 0)
        fault = Fault(message, width=len(text), resolution=resolution or None)
        return error_of(fault, self._dockerfile.name, instruction.line, source, at)


def _last_name(image: str) -> str:
    """The last name of an image, without its tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()


def _sources(instruction: Instruction) -> Iterator[str]:
    """What ``--from`` and ``from=`` of an instruction say."""
    for name, value in instruction.flags:
        if name == "from":
            yield value
        elif name == "mount":
            for field in mount_fields.split(value):
                key, _, source = field.partition("=")
                if key.lower() == "from" and source:
                    yield source
