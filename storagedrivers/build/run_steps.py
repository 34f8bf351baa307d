"""RUN: what its command is, what it depends on, and the layer that comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from storagedrivers.build import layering, reading, run_mounts
from storagedrivers.build.events import Step, StepOutput
from storagedrivers.build.keys import Facts
from storagedrivers.build.run_mounts import RunMount
from storagedrivers.build.run_step import RunStep
from storagedrivers.dockerfile import changes, words
from storagedrivers.dockerfile.created_by import created_by
from storagedrivers.dockerfile.instructions import Heredoc, Instruction
from storagedrivers.errors import BuildError

if TYPE_CHECKING:
    from storagedrivers.build.executor import Executor, Made
    from storagedrivers.stores.records import Layer


def make(executor: Executor, step: Step, instruction: Instruction) -> Made:
    """Carry out a RUN.

    Raises:
        RunFailedError: its command failed.
    """
    state, site = executor.state, executor.site
    env = state.config.get("Env") or []
    arguments, hidden = state.scope.run_arguments(env), state.scope.hidden_arguments(env)
    command, script = command_of(instruction, changes.shell(state.config))
    with ExitStack() as stack:
        mounts = [_resolved(executor, one, stack) for one in _mounts(executor, instruction)]
        what = RunStep(
            state.layer,
            {**state.config, "Env": [*arguments, *hidden, *env]},
            command,
            tuple(one.mount for one in mounts),
            _network(instruction, site.request.network),
            script,
        )

        def layer() -> Layer | None:
            from storagedrivers.build.running import run

            made = run(
                site.parts,
                what,
                site.lease,
                lambda data: site.tell(StepOutput(step, data)),
                stop=site.stop,
            )
            epoch = site.request.source_date_epoch
            return layering.sealed(site.parts.layers, made, site.lease, epoch=epoch)

        text = created_by(instruction, state.config, arguments=arguments, hidden=bool(hidden))
        facts = _facts(executor, instruction, what, arguments, mounts)
        return executor.layer(text, facts, layer)


def _network(instruction: Instruction, allowed: str) -> str:
    """The network of a RUN: who wrote the Dockerfile cannot take the host's unasked."""
    asked = dict(instruction.flags).get("network") or allowed
    if asked == "host" and allowed != "host":
        raise BuildError(
            "RUN --network=host is not allowed unless the build is asked for it",
            resolution="if you trust the Dockerfile: build --network host",
        )
    return asked


class _Resolved(NamedTuple):
    """A mount whose origin was looked up.

    Attributes:
        mount: it.
        text: how it was asked for.
        digest: of what it shows at first; "" where that is nothing, or what a cache holds.
    """

    mount: RunMount
    text: str
    digest: str = ""


def _mounts(executor: Executor, instruction: Instruction) -> Iterator[tuple[str, RunMount]]:
    state = executor.state
    environment = state.scope.environment(state.config.get("Env") or ())

    def expanded(text: str) -> str:
        return words.expand(text, environment, escape=executor.site.escape)

    for name, value in instruction.flags:
        if name == "mount":
            yield value, run_mounts.parse(value, expanded)


def _resolved(executor: Executor, asked: tuple[str, RunMount], stack: ExitStack) -> _Resolved:
    text, mount = asked
    if mount.origin and mount.type != run_mounts.TMPFS:
        # All of it, since what is mounted has links, attributes and times that no copy has.
        layers, layer = executor.site.parts.layers, executor.origin(mount.origin)
        chain = "" if layer is None else str(layers.get(layer).chain_id)
        return _Resolved(mount._replace(layer=layer), text, chain)
    if mount.type != run_mounts.BIND:
        return _Resolved(mount, text)
    source = mount.source.strip("/") or "."
    what = Instruction("COPY", arguments=(source, f"/{source}".removesuffix(".")))
    prepared = stack.enter_context(
        reading.prepared(
            what, context=executor.site.context, stage_root=None, base_root=None, workdir="/"
        )
    )
    return _Resolved(mount._replace(fill=prepared.apply), text, prepared.digest)


def command_of(
    instruction: Instruction, shell: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, str] | None]:
    """The command of a RUN, and the script that it is, if it is one: a name and a text.

    A heredoc alone is what the shell runs, or a program of its own if it begins with ``#!``. After
    a command it is the shell's to read, as BuildKit has it.
    """
    if instruction.exec_form:
        return instruction.arguments, None
    if not instruction.heredocs:
        return (*shell, *instruction.arguments[:1]), None  # without any the shell complains
    text = instruction.arguments[0] if instruction.arguments else ""
    first = instruction.heredocs[0]
    if len(instruction.heredocs) == 1 and _is_alone(text, first):
        if first.content.startswith("#!"):
            return (), (first.name, first.content)
        return (*shell, first.content), None
    bodies = "".join(f"\n{one.content}{one.name}" for one in instruction.heredocs)
    return (*shell, text + bodies), None


def _is_alone(text: str, heredoc: Heredoc) -> bool:
    word = text.strip().removeprefix("<<").removeprefix("-").strip()
    return word.strip("\"'") == heredoc.name


def _facts(
    executor: Executor,
    instruction: Instruction,
    what: RunStep,
    arguments: list[str],
    mounts: list[_Resolved],
) -> Facts:
    """What the result depends on."""
    config, epoch = executor.state.config, executor.site.request.source_date_epoch
    environment = {}
    # Not what is hidden: a proxy changes how something is fetched, not what.
    for kind, values in (("argument", arguments), ("ENV", config.get("Env") or ())):
        for one in values:
            name, _, value = one.partition("=")
            environment[f"{kind} {name}"] = value
    environment["USER"] = config.get("User") or ""
    environment["WORKDIR"] = config.get("WorkingDir") or "/"
    # Names in their order, which a command can see; and whether there is a value at all.
    environment["order of ENV"] = " ".join(
        "".join(one.partition("=")[:2]) for one in config.get("Env") or ()
    )
    environment["VOLUME"] = repr(sorted(config.get("Volumes") or ()))
    environment["--network"] = what.network
    if epoch is not None:
        environment["SOURCE_DATE_EPOCH"] = str(epoch)
    for number, mount in enumerate(mounts, 1):
        environment[f"--mount {number}, {mount.text}"] = mount.digest
    compared = f"RUN {what.command!r} {what.script!r}"
    return Facts(executor.state.chain, instruction.source, environment, compared=compared)
