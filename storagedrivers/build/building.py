"""Builds an image: plans the stages, carries them out side by side, gives the last a row."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from storagedrivers.build import context as contexts
from storagedrivers.build.borrowed import Sources
from storagedrivers.build.events import Built, Event, Note, Step
from storagedrivers.build.executor import Executor, Site
from storagedrivers.dockerfile import changes
from storagedrivers.dockerfile.parser import parse
from storagedrivers.dockerfile.stages import resolve
from storagedrivers.dockerfile.variables import Scope, unused
from storagedrivers.errors import (
    InvalidReferenceError,
    NotFoundError,
    RunFailedError,
    StorageDriversError,
)
from storagedrivers.oci.platforms import parse_platform
from storagedrivers.stores.images import checked_name

if TYPE_CHECKING:
    import os
    from concurrent.futures import Future

    from storagedrivers.build.request import Parts, Request
    from storagedrivers.build.state import State
    from storagedrivers.dockerfile.instructions import Dockerfile, Instruction
    from storagedrivers.dockerfile.stages import Plan, PlannedStage
    from storagedrivers.oci.platforms import Platform
    from storagedrivers.stores.images import Image, ImageStore


def build(parts: Parts, context: str | os.PathLike[str] | BinaryIO, request: Request) -> Image:
    """See :meth:`storagedrivers.storage.Storage.build`."""
    began = time.monotonic()
    for name in request.tags:
        checked_name(name)  # before anything is built
    tell = _Telling(request.on_event)
    with contexts.opened(context, parts.layers) as opened, parts.layers.leased() as lease:
        dockerfile = _dockerfile(opened, request)
        for text in dockerfile.notes:
            tell(Note(text))
        platform = parse_platform(request.platform) if request.platform else None
        plan = resolve(
            dockerfile,
            target=request.target,
            build_args=request.build_args,
            platform=platform,
            triggers=lambda name: _triggers(parts.images, name),
        )
        futures: dict[int, Future[State]] = {}
        site = Site(
            parts,
            request,
            opened,
            lease,
            dockerfile.escape,
            threading.Event(),
            tell,
            lambda number: futures[number].result(),
            Sources(parts.images, request.cache_from),
            [],
        )
        for name in site.sources.missing:
            tell(Note(f"there is no image {name} to take layers from"))
        building = _Building(site, dockerfile, plan, futures, platform)
        try:
            state = building.run()
        finally:
            parts.cache.use(site.used)
        for name in building.unused():
            tell(Note(f"the build argument {name} was not used: no ARG declares it"))
        image = _registered(site, state, request.tags)
    names = tuple(str(checked_name(name)) for name in request.tags)
    tell(Built(image.id, names, time.monotonic() - began, parts.images.size(image)))
    return image


def _dockerfile(context: contexts.Context, request: Request) -> Dockerfile:
    if isinstance(request.dockerfile, bytes):
        context.ignoring("Dockerfile")
        return parse(request.dockerfile)
    name = request.dockerfile or "Dockerfile"
    context.ignoring(name)
    return parse(context.dockerfile(name), name)


def _triggers(images: ImageStore, name: str) -> tuple[str, ...]:
    """The ONBUILDs of an image; what is not there says so when it is needed."""
    try:
        return changes.triggers(images.config(images.get(name)).config)
    except (NotFoundError, InvalidReferenceError):
        return ()


def _registered(site: Site, state: State, names: Sequence[str] = ()) -> Image:
    """Give what a stage has come to the row of an image, when its layers have reached the disk."""
    layers, images = site.parts.layers, site.parts.images
    layers.sync()
    if state.untouched is not None:
        image = images.get(state.untouched)
    else:
        config = state.image(layers)
        image = images.add(config, state.layer, source="build", lease=site.lease)
    for name in names:
        images.tag(image.id, name)
    return images.get(image.id)


class _Telling:
    """Hands on events, one at a time whichever thread they come from."""

    def __init__(self, on_event: Callable[[Event], object] | None) -> None:
        self._on_event = on_event
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        if self._on_event is not None:
            with self._lock:
                self._on_event(event)


class _Building:
    """The stages of one build: each in a thread, which waits for others where it needs them."""

    def __init__(
        self,
        site: Site,
        dockerfile: Dockerfile,
        plan: Plan,
        futures: dict[int, Future[State]],
        platform: Platform | None,
    ) -> None:
        self._site = site
        self._dockerfile = dockerfile
        self._plan = plan
        self._futures = futures
        self._platform = platform
        self._scopes: list[Scope] = []
        self._failures: list[BaseException] = []

    def run(self) -> State:
        """Carry out what the target needs; the state of that.

        Raises:
            BuildError: a step failed.
        """
        *others, last = self._works()
        if not others:
            return self._run_stage(last)
        from concurrent.futures import Future, ThreadPoolExecutor

        for work in others:
            self._futures[work.planned.stage.number] = Future()
        # Who waits for another stage waits for an earlier one, which has a thread already.
        with ThreadPoolExecutor(max_workers=len(others)) as pool:
            for work in others:
                pool.submit(self._run_into, self._futures[work.planned.stage.number], work)
            try:
                return self._run_stage(last)
            except BaseException as error:
                self._fail(error)
                raise self._failures[0] from None

    def _works(self) -> list[_Work]:
        """What is to be done for each stage; the steps are numbered through."""
        works, number = [], 0
        for planned in self._plan.stages:
            instructions = list(planned.stage.instructions)
            if planned is self._plan.stages[-1]:
                instructions += changes.label_steps(self._site.request.labels)
            works.append(_Work(planned, number + 1, tuple(instructions)))
            number += 1 + len(instructions)
        return [work._replace(total=number) for work in works]

    def _fail(self, error: BaseException) -> None:
        """Note a failure, and stop all stages; the first one is what the build failed of."""
        self._failures.append(error)
        self._site.stop.set()

    def _run_into(self, future: Future[State], work: _Work) -> None:
        try:
            state = self._run_stage(work)
        except BaseException as error:
            self._fail(error)
            future.set_exception(error)
        else:
            future.set_result(state)

    def _run_stage(self, work: _Work) -> State:
        executor = Executor(self._site, self._scope(), work.planned)
        with self._located(work.planned.stage.base):
            executor.begin(work.step(0, work.planned.stage.base))
        for number, instruction in enumerate(work.instructions, 1):
            with self._located(instruction):
                try:
                    executor.run(work.step(number, instruction), instruction)
                except RunFailedError as error:
                    with suppress(StorageDriversError, OSError):  # what failed is what counts
                        error.image = _registered(self._site, executor.state).id
                    raise
        return executor.state

    @contextmanager
    def _located(self, instruction: Instruction) -> Iterator[None]:
        """Have an error say which instruction failed."""
        try:
            yield
        except StorageDriversError as error:
            from storagedrivers.build.failing import locate

            locate(error, self._dockerfile, instruction)
            raise
        except OSError as error:
            from storagedrivers.build.failing import failure, locate

            told = failure(error)
            locate(told, self._dockerfile, instruction)
            raise told from error

    def _scope(self) -> Scope:
        scope = Scope(
            self._dockerfile.arguments,
            self._site.request.build_args,
            escape=self._dockerfile.escape,
            platform=self._platform,
        )
        self._scopes.append(scope)
        return scope

    def unused(self) -> tuple[str, ...]:
        """The build arguments that nothing declares."""
        return unused(self._scopes)


class _Work(NamedTuple):
    """What is to be done for one stage.

    Attributes:
        planned: the stage.
        first: the number of its FROM among all steps.
        instructions: what follows.
        total: how many steps all stages have.
    """

    planned: PlannedStage
    first: int
    instructions: tuple[Instruction, ...]
    total: int = 0

    def step(self, number: int, instruction: Instruction) -> Step:
        """Of an instruction, counted from the FROM."""
        stage = self.planned.stage
        return Step(
            self.first + number,
            self.total,
            stage.name or str(stage.number),
            instruction.source,
            instruction.word,
            instruction.line,
        )
