"""Which stages are built for a target, and what each of them begins with and reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from storagedrivers.dockerfile import words
from storagedrivers.dockerfile.instructions import Dockerfile, Instruction, Stage
from storagedrivers.dockerfile.variables import Scope
from storagedrivers.errors import DockerfileError, did_you_mean
from storagedrivers.oci.platforms import parse_platform


class PlannedStage(NamedTuple):
    """A stage that is built.

    Attributes:
        stage: it.
        base: the number of the stage that it begins with, or the name of an image.
        platform: what it is for, or "".
        sources: what the origins of its COPYs and mounts mean, by their names: the number of a
            stage, or the name of an image.
    """

    stage: Stage
    base: int | str
    platform: str
    sources: Mapping[str, int | str]


class Plan(NamedTuple):
    """What is built, the target last."""

    stages: tuple[PlannedStage, ...]


def resolve(
    dockerfile: Dockerfile, *, target: str | None = None, build_args: Mapping[str, str] | None = None
) -> Plan:
    """Plan the stages that a target needs.

    Raises:
        DockerfileError: there is no such target; a stage wants what comes after it.
    """
    scope = Scope(dockerfile.arguments, build_args or {}, escape=dockerfile.escape)
    environment = scope.global_environment()
    last = _target(dockerfile.stages, target)
    planned: dict[int, PlannedStage] = {}
    for stage in dockerfile.stages[: last + 1]:
        planned[stage.number] = _planned(dockerfile, stage, environment)
    wanted = {last}
    for number in range(last, -1, -1):
        if number in wanted:
            one = planned[number]
            wanted.update(x for x in (one.base, *one.sources.values()) if isinstance(x, int))
    return Plan(tuple(planned[number] for number in sorted(wanted)))


def _target(stages: Sequence[Stage], target: str | None) -> int:
    if target is None:
        return len(stages) - 1
    for stage in stages:
        if target.lower() == stage.name or target == str(stage.number):
            return stage.number
    names = [stage.name for stage in stages if stage.name]
    raise DockerfileError(
        f"failed to reach build target {target} in Dockerfile",
        resolution=did_you_mean(target, names) or f"its stages are {', '.join(names) or 'unnamed'}",
    )


def _planned(
    dockerfile: Dockerfile, stage: Stage, environment: Mapping[str, str]
) -> PlannedStage:
    name = words.expand(stage.base.arguments[0], environment, escape=dockerfile.escape)
    platform = words.expand(stage.platform, environment, escape=dockerfile.escape)
    if platform:
        parse_platform(platform)
    if not name:
        raise DockerfileError(
            f"{dockerfile.name} line {stage.base.line}: base name ({stage.base.arguments[0]})"
            " should not be blank",
            line=stage.base.line,
            resolution="give the ARG in it a value",
        )
    before = dockerfile.stages[: stage.number]
    named = [one.number for one in before if one.name and one.name == name.lower()]
    sources = {
        origin: _source(dockerfile, stage, instruction, origin)
        for instruction in stage.instructions
        for origin in _origins(instruction)
    }
    return PlannedStage(stage, named[0] if named else name, platform, sources)


def _origins(instruction: Instruction) -> Iterator[str]:
    for name, value in instruction.flags:
        if name == "from":
            yield value
        elif name == "mount":
            for field in value.split(","):
                key, _, origin = field.partition("=")
                if key == "from":
                    yield origin


def _source(
    dockerfile: Dockerfile, stage: Stage, instruction: Instruction, origin: str
) -> int | str:
    for other in dockerfile.stages:
        if origin.lower() == other.name or origin == str(other.number):
            if other.number >= stage.number:
                raise DockerfileError(
                    f"{dockerfile.name} line {instruction.line}: {origin} is a stage that is not"
                    " there yet",
                    line=instruction.line,
                    resolution="copy from a stage above this one",
                )
            return other.number
    return origin
