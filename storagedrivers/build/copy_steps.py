"""COPY and ADD: what they read, where it comes from, and the layer that comes of it."""

from __future__ import annotations

import posixpath
from contextlib import ExitStack
from typing import TYPE_CHECKING

from storagedrivers.build import layering, reading
from storagedrivers.build.keys import Facts
from storagedrivers.dockerfile.created_by import created_by, normal
from storagedrivers.stores import content

if TYPE_CHECKING:
    from storagedrivers.build.executor import Executor, Made
    from storagedrivers.dockerfile.instructions import Instruction
    from storagedrivers.stores.records import Layer


def make(executor: Executor, instruction: Instruction) -> Made:
    """Carry out a COPY or an ADD.

    Raises:
        BuildError: what it is to copy is not there, or cannot be put there.
    """
    state, site = executor.state, executor.site
    layers, flags = site.parts.layers, dict(instruction.flags)
    workdir = state.config.get("WorkingDir") or "/"
    with ExitStack() as stack:

        def view(layer: str | None) -> int | None:
            return None if layer is None else stack.enter_context(content.view(layers, layer))

        origin = executor.origin(flags["from"]) if flags.get("from") else None
        prepared = stack.enter_context(
            reading.prepared(
                instruction,
                context=site.context,
                stage_root=None if origin is None else view(origin),
                base_root=view(state.layer) if _has_names(flags.get("chown", "")) else None,
                workdir=workdir,
            )
        )

        def layer() -> Layer | None:
            epoch = site.request.source_date_epoch
            return layering.filled(layers, state.layer, site.lease, prepared.apply, epoch=epoch)

        text = created_by(instruction, state.config, source=prepared.source)
        facts = Facts(
            state.chain,
            instruction.source,
            _environment(executor, instruction, workdir),
            prepared.facts,
            prepared.digest,
            normal(instruction, state.config),
        )
        return executor.layer(text, facts, layer)


def _has_names(owner: str) -> bool:
    """Whether a ``--chown`` has to be looked up in the tree."""
    return not all(one.isdecimal() for one in owner.split(":") if one)


def _environment(executor: Executor, instruction: Instruction, workdir: str) -> dict[str, str]:
    """What of the config and the flags the result depends on."""
    target = instruction.arguments[-1]
    found = {f"--{name}": value for name, value in instruction.flags if name in ("chown", "chmod")}
    if not posixpath.isabs(target):
        found["WORKDIR"] = workdir
    epoch = executor.site.request.source_date_epoch
    if epoch is not None:
        found["SOURCE_DATE_EPOCH"] = str(epoch)
    return found
