"""What the history of an image says of an instruction, and what the cache compares of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from storagedrivers.dockerfile import changes, go_text

if TYPE_CHECKING:
    from storagedrivers.dockerfile.instructions import Instruction

# Their comment is one word with the mark before it, and so one blank follows that mark; it is two
# for all others.
_ONE_BLANK = ("ADD", "COPY", "WORKDIR")


def created_by(
    instruction: Instruction,
    config: Mapping[str, Any],
    *,
    arguments: Sequence[str] = (),
    hidden: bool = False,
    source: str = "",
) -> str:
    """What the history says of an instruction, as Docker's own builder of 20.10 writes it.

    Args:
        instruction: with its variables replaced.
        config: how to run the image, after the instruction.
        arguments: of the build, that a RUN sees and that are to be told: ``A=1``.
        hidden: a RUN sees others too, which are not: ``http_proxy``.
        source: what COPY or ADD copies: ``file:`` or ``dir:`` or ``multi:`` and a digest.
    """
    if instruction.word == "RUN":
        seen = (f"|{len(arguments)}", *arguments) if arguments or hidden else ()
        return " ".join((*seen, *_run_command(config, instruction)))
    blanks = " " if instruction.word in _ONE_BLANK else "  "
    shell = " ".join(changes.shell(config))
    return f"{shell} #(nop){blanks}{_comment(instruction, config, source)}"


def normal(instruction: Instruction, config: Mapping[str, Any]) -> str:
    """An instruction as the cache compares it: its form, its case and its continued lines do not
    count, and nor does what a COPY or ADD is called that has the same content.
    """
    if instruction.word == "RUN":
        flags = "".join(f"--{name}={value} " for name, value in instruction.flags)
        return f"RUN {flags}{go_text.quoted_list(_run_command(config, instruction))}"
    return _comment(instruction, config, "")


def _run_command(config: Mapping[str, Any], instruction: Instruction) -> list[str]:
    if not instruction.heredocs:
        return changes.command(config, instruction)
    text = " ".join(instruction.arguments)
    bodies = "".join(f"\n{one.content}{one.name}" for one in instruction.heredocs)
    return [*changes.shell(config), text + bodies]


def _comment(instruction: Instruction, config: Mapping[str, Any], source: str) -> str:
    word = instruction.word
    if word in ("ADD", "COPY"):
        return f"{word} {_owner(instruction)}{source} in {instruction.arguments[-1]} "
    return f"{word} {_written(instruction, config)}"


def _owner(instruction: Instruction) -> str:
    flags = dict(instruction.flags)
    owner = f"--chown={flags['chown']}" if flags.get("chown") else ""
    if flags.get("chmod"):  # which the classic builder does not know, so it may have its blanks
        return f"{owner and owner + ' '}--chmod={flags['chmod']} "
    return owner


def _written(instruction: Instruction, config: Mapping[str, Any]) -> str:
    match instruction.word:
        case "CMD":
            return go_text.quoted_list(changes.command(config, instruction))
        case "ENTRYPOINT":
            return go_text.quoted_list(changes.entrypoint(config, instruction) or ())
        case "ENV" | "LABEL":
            return " ".join(f"{name}={value}" for name, value in changes.pairs(instruction))
        case "HEALTHCHECK":
            from storagedrivers.dockerfile import healthchecks

            return healthchecks.written(healthchecks.parse(instruction))
        case "SHELL":
            return f"[{' '.join(instruction.arguments)}]"
        case "VOLUME":
            return f"[{' '.join(changes.volumes(instruction))}]"
        case "WORKDIR":
            return str(config.get("WorkingDir") or "/")
    return " ".join(instruction.arguments)
