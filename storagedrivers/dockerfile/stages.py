"""Which stages are built for a target, and what each of them begins with and reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from storagedrivers.dockerfile import mount_fields
from storagedrivers.dockerfile.faults import Fault, error_of
from storagedrivers.dockerfile.instructions import Dockerfile, Instruction, Stage
from storagedrivers.dockerfile.parser import parse_instruction
from storagedrivers.dockerfile.variables import Scope, expand_instruction
from storagedrivers.errors import DockerfileError, StoreError, did_you_mean
from storagedrivers.oci.platforms import Platform, parse_platform


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
        name, platform = self._base(stage)
        number = self._numbers.get(name.lower(), len(self._dockerfile.stages))
        if number < stage.number:
            base: int | str = number
            instructions: Iterable[Instruction] = stage.instructions
        else:
            self._check_later(stage, stage.base, name, "FROM")
            base = name
            instructions = (*map(parse_instruction, self._triggers(name)), *stage.instructions)
        sources = {
            source: self._source(stage, instruction, source)
            for instruction in instructions
            for source in _sources(instruction)
        }
        return PlannedStage(stage, base, platform, sources)

    def _base(self, stage: Stage) -> tuple[str, str]:
        """The image and the platform of a FROM."""
        base = self._expanded(stage.base)
        name = base.arguments[0]
        if not name:
            raise self._error(
                stage.base,
                f"base name ({stage.base.arguments[0]}) should not be blank",
                stage.base.arguments[0],
                "give the variable a default: put ARG NAME=IMAGE before the first FROM",
            )
        platform = dict(base.flags).get("platform", "")
        if platform:
            try:
                parse_platform(platform)
            except StoreError as error:
                why = f"failed to parse platform {platform}: {error}"
                raise self._error(
                    stage.base, why, stage.platform, error.resolution or ""
                ) from error
        return name, platform

    def _expanded(self, base: Instruction) -> Instruction:
        # The name of the stage is taken as it is.
        image = base._replace(arguments=base.arguments[:1])
        try:
            return expand_instruction(image, self._environment, self._dockerfile.escape)
        except DockerfileError as error:
            error.brief = f"{self._dockerfile.name} {error.brief}"
            raise

    def _source(self, stage: Stage, instruction: Instruction, source: str) -> int | str:
        number = self._numbers.get(source.lower())
        if number is None and source.lstrip("+-").isdecimal() and source.isascii():
            number = _number(source)
            if number == stage.number:
                raise self._refused(instruction, source, "refers to current build stage")
            if not 0 <= number < stage.number:
                raise self._refused(instruction, source, "index out of bounds")
        if number is not None and number < stage.number:
            return number
        self._check_later(stage, instruction, source, "--from")
        return source

    def _refused(self, instruction: Instruction, source: str, why: str) -> DockerfileError:
        return self._error(
            instruction,
            f"invalid from flag value {source}: {why}",
            source,
            "name an earlier stage, or number it from 0",
        )

    def _check_later(self, stage: Stage, instruction: Instruction, name: str, where: str) -> None:
        """Refuse what names this stage or a later one; but ``FROM nginx AS nginx`` is another
        name for an image, and that image may be meant before it.
        """
        number = self._numbers.get(name.lower())
        if number is None:
            return
        other = self._dockerfile.stages[number]
        image = other.base.arguments[0].rpartition("/")[2]
        if _last_name(image) == name.lower() or (where == "FROM" and number == stage.number):
            return
        what = "is this stage itself" if number == stage.number else "comes later"
        raise self._error(
            instruction,
            f"{where} {name}: stage {name} {what}",
            name,
            f"put stage {name} before this one, or give it another name if an image is meant",
        )

    def _error(
        self, instruction: Instruction, message: str, text: str, resolution: str
    ) -> DockerfileError:
        source = instruction.source
        at = max(source.find(text), 0)
        fault = Fault(message, at, width=len(text), resolution=resolution)
        return error_of(fault, self._dockerfile.name, instruction.line, source, at)


def _last_name(image: str) -> str:
    """The last name of an image, without tag and digest."""
    return image.partition("@")[0].partition(":")[0].lower()


def _number(text: str) -> int:
    return int(text) if len(text) < 10 else -1


def _sources(instruction: Instruction) -> Iterator[str]:
    """What ``--from`` and ``from=`` of an instruction say."""
    for name, value in instruction.flags:
        if name == "from":
            yield value
        elif name == "mount":
            for field in mount_fields.split(value):
                key, _, source = field.partition("=")
                if key.strip().lower() == "from" and source:
                    yield source
