"""Carries out the steps of one stage, one after another."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from storagedrivers.build.events import Event, Step, StepDone, StepFailed, StepStarted
from storagedrivers.build.explaining import explain
from storagedrivers.build.state import State, time_of
from storagedrivers.dockerfile import changes
from storagedrivers.dockerfile.created_by import created_by
from storagedrivers.dockerfile.parser import parse_instruction
from storagedrivers.dockerfile.variables import expand_instruction
from storagedrivers.errors import BuildError, NotFoundError
from storagedrivers.linux.rooted import Root
from storagedrivers.oci.platforms import parse_platform
from storagedrivers.stores import content

if TYPE_CHECKING:
    import threading

    from storagedrivers.build.borrowed import Borrowed, Sources
    from storagedrivers.build.context import Context
    from storagedrivers.build.keys import Facts
    from storagedrivers.build.request import Parts, Request
    from storagedrivers.dockerfile.instructions import Instruction
    from storagedrivers.dockerfile.stages import PlannedStage
    from storagedrivers.dockerfile.variables import Scope
    from storagedrivers.stores.build_cache import Entry
    from storagedrivers.stores.image_records import Image
    from storagedrivers.stores.leases import Lease
    from storagedrivers.stores.records import Layer


class Site(NamedTuple):
    """What all stages of a build share.

    Attributes:
        parts: of the store.
        request: what was asked for.
        context: the files to build with.
        lease: keeps the layers until the image has them.
        escape: the Dockerfile's escape character.
        stop: set when the build is over, whatever still runs.
        tell: takes an event, from any thread.
        stage: the state of another stage, by its number; waits for it.
        sources: images that were named to take layers from.
        used: takes the entries of the cache that were of use.
    """

    parts: Parts
    request: Request
    context: Context
    lease: Lease
    escape: str
    stop: threading.Event
    tell: Callable[[Event], object]
    stage: Callable[[int], State]
    sources: Sources
    used: list[Entry]


class Made(NamedTuple):
    """What a step came to.

    Attributes:
        created_by: what the history says of it.
        layer: the one that it made or found; None where it changed no file.
        cached: it was there already; None for a step that changes no file.
        why: why the cache had nothing for it.
    """

    created_by: str
    layer: Layer | None = None
    created: float = 0.0
    cached: bool | None = None
    why: str = ""


class Executor:
    """Carries out the steps of a stage.

    Args:
        site: what it shares with other stages.
        scope: the variables that its instructions see.
        planned: the stage.

    Attributes:
        state: what it has come to.
    """

    def __init__(self, site: Site, scope: Scope, planned: PlannedStage) -> None:
        self.site = site
        self.planned = planned
        never = time_of(0, site.request.source_date_epoch)
        self.state = State(scope, changes.base_config(None), time=never)

    def begin(self, step: Step) -> None:
        """Carry out FROM.

        Raises:
            NotFoundError: there is no such image.
        """
        began = time.monotonic()
        self.site.tell(StepStarted(step))
        try:
            triggers = self._take_base()
        except BaseException:
            self.site.tell(StepFailed(step, time.monotonic() - began))
            raise
        cached = not self.state.fresh
        self.site.tell(StepDone(step, cached, time.monotonic() - began, self.state.layer, 0, ""))
        for text in triggers:
            instruction = parse_instruction(text)
            self.run(step._replace(source=f"ONBUILD {instruction.source}"), instruction)

    def _take_base(self) -> tuple[str, ...]:
        """Begin where the stage begins; the base's ONBUILD triggers."""
        base, state, parts = self.planned.base, self.state, self.site.parts
        if isinstance(base, int):
            other = self.site.stage(base)
            config: Mapping[str, Any] = other.config
            state.begin_with_stage(other)
        elif base == "scratch":
            wanted = self.planned.platform or self.site.request.platform
            state.platform = parse_platform(wanted) if wanted else None
            return ()
        else:
            image = self._image(base)
            found = parts.images.config(image)
            config = found.config
            layer = None if image.layer is None else self._known(image.layer)
            state.begin_with(found, layer)
        state.config = changes.base_config(config)
        return changes.triggers(config)

    def origin(self, name: str) -> str | None:
        """The layer of the stage or image that a COPY or a mount names; None where it has none.

        Raises:
            BuildError: there is no such image.
        """
        source = self.planned.sources.get(name, name)
        if isinstance(source, int):
            return self.site.stage(source).layer
        layer = self._image(source).layer
        return None if layer is None else self._known(layer).id

    def _image(self, name: str) -> Image:
        try:
            return self.site.parts.images.get(name)
        except NotFoundError as error:
            raise BuildError(
                f"there is no image {name}, and no stage of that name",
                resolution="load it: storagedrivers load -i FILE; nothing is pulled",
            ) from error

    def _known(self, layer: str) -> Layer:
        """A layer of an image, kept until the build is over, with its ChainID known."""
        layers = self.site.parts.layers
        self.site.lease.take(layer)
        for one in layers.image_layers(layer):
            layers.compute_diff_id(one.id)
        return layers.get(layer)

    def run(self, step: Step, instruction: Instruction) -> None:
        """Carry out one step.

        Raises:
            BuildError: it failed, or another stage did meanwhile.
            StorageDriversError, OSError: it failed.
        """
        began = time.monotonic()
        if self.site.stop.is_set():
            raise BuildError("the build was stopped", resolution="see what failed before it")
        self.site.tell(StepStarted(step))
        try:
            made = self._made(step, instruction)
        except BaseException:
            self.site.tell(StepFailed(step, time.monotonic() - began))
            raise
        self._note(made)
        layer = made.layer
        self.site.tell(
            StepDone(
                step,
                not self.state.fresh if made.cached is None else made.cached,
                time.monotonic() - began,
                None if layer is None else layer.id,
                0 if layer is None else layer.size or 0,
                made.why,
            )
        )

    def _note(self, made: Made) -> None:
        self.state.fresh |= made.cached is False
        if made.layer is None:
            self.state.add(made.created_by)
        else:
            created = time_of(made.created, self.site.request.source_date_epoch)
            self.state.add_layer(made.layer, made.created_by, created)

    def _made(self, step: Step, instruction: Instruction) -> Made:
        word, state = instruction.word, self.state
        env = state.config.get("Env") or ()
        environment = state.scope.environment(env)
        instruction = expand_instruction(instruction, environment, self.site.escape)
        if word == "RUN":
            from storagedrivers.build import run_steps

            return run_steps.make(self, step, instruction)
        if word in ("COPY", "ADD"):
            from storagedrivers.build import copy_steps

            return copy_steps.make(self, instruction)
        if word == "ARG":
            state.scope.declare(instruction, env)
        elif word == "MAINTAINER":
            state.author = instruction.text
        else:
            changes.apply(state.config, instruction)
        if word == "VOLUME":
            self._refuse_files(changes.volumes(instruction))
        text = created_by(instruction, state.config)
        if word == "WORKDIR":
            from storagedrivers.build import workdir_steps

            return workdir_steps.make(self, text)
        return Made(text)

    def _refuse_files(self, volumes: Iterable[str]) -> None:
        """Refuse volumes where no directory can be, as Docker does."""
        if self.state.layer is None:
            return
        with (
            content.view(self.site.parts.layers, self.state.layer) as fd,
            Root(f"/proc/self/fd/{fd}") as root,
        ):
            for path in volumes:
                status = root.status(path)
                if status is not None and not stat.S_ISDIR(status.st_mode):
                    raise BuildError(
                        f"cannot mount volume over existing file, file exists {path}",
                        resolution="name a directory, or a path where nothing is",
                    )

    def layer(self, created_by: str, facts: Facts, make: Callable[[], Layer | None]) -> Made:
        """What the cache has for a step, or else what *make* makes; that is remembered.

        Args:
            created_by: what the history is to say.
            facts: what the result depends on.
            make: gives the sealed layer, or None where it changed nothing.
        """
        cache, lease, why = self.site.parts.cache, self.site.lease, ""
        if not self.site.request.no_cache:
            found = cache.find(facts.key(), driver=self._driver(), lease=lease)
            if found is not None:
                self.site.used.append(found)
                return Made(created_by, self._layer_of(found), found.created, cached=True)
            borrowed = self._borrowed(created_by)
            if borrowed is not None:
                return Made(created_by, borrowed.layer, borrowed.created, cached=True)
            why = explain(facts, cache, driver=self._driver())
        layer = make()
        entry = cache.add(
            facts,
            None if layer is None else layer.id,
            created=time.time(),
            driver=self._driver(),
            lease=lease,
            replace=self.site.request.no_cache,
        )
        return Made(created_by, self._layer_of(entry), entry.created, cached=False, why=why)

    def _borrowed(self, created_by: str) -> Borrowed | None:
        state = self.state
        return self.site.sources.find(
            state.history, state.chain, created_by, driver=self._driver(), lease=self.site.lease
        )

    def _driver(self) -> str:
        """The driver of the layers of this stage."""
        layers = self.site.parts.layers
        return layers.driver if self.state.layer is None else layers.get(self.state.layer).driver

    def _layer_of(self, entry: Entry) -> Layer | None:
        return None if entry.layer is None else self.site.parts.layers.get(entry.layer)
