"""What a build tells while it runs."""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """One instruction of a build.

    Attributes:
        number: from 1, over all stages that are built, as they stand in the Dockerfile.
        total: how many there are.
        stage: the name of its stage, or its number where it has none.
        source: the instruction, to be shown.
        word: its first word.
        line: where it stands in the Dockerfile, from 1.
    """

    number: int
    total: int
    stage: str
    source: str
    word: str
    line: int


class StepStarted(NamedTuple):
    """A step is looked up in the cache, or done."""

    step: Step


class StepOutput(NamedTuple):
    """What a RUN wrote, as it comes: no whole lines."""

    step: Step
    data: bytes


class StepDone(NamedTuple):
    """A step is done.

    Attributes:
        step: which.
        cached: nothing had to be done: its layer was there, or it only changes the config and all
            before it was there.
        seconds: how long it took.
        layer: the id of the layer that it made or found; None where it made none.
        size: bytes of the contents of that layer.
        why: why the cache had nothing for it, or "" where it was not looked for or found.
    """

    step: Step
    cached: bool
    seconds: float
    layer: str | None
    size: int
    why: str


class StepFailed(NamedTuple):
    """A step failed; the error that follows says why."""

    step: Step
    seconds: float


class Note(NamedTuple):
    """Something that the user should know."""

    text: str


class Built(NamedTuple):
    """The image is there.

    Attributes:
        image: its id.
        names: those that this build gave it.
        seconds: how long the build took.
        size: bytes of the contents of its layers.
    """

    image: str
    names: tuple[str, ...]
    seconds: float
    size: int


Event = StepStarted | StepOutput | StepDone | StepFailed | Note | Built
