"""The options that say what a container runs and how: of ``container create`` and ``run``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from storagedrivers.config import variable
from storagedrivers.errors import StoreError

if TYPE_CHECKING:
    from storagedrivers.mounts.spec import MountSpec


def configure(parser: argparse.ArgumentParser) -> None:
    """Add them, the image and the command."""
    add = parser.add_argument
    add("--name", metavar="NAME", help="default: two words that chance chooses")
    add("-e", "--env", metavar="A=B", action="append", help="a variable; A alone: as it is here")
    add("--env-file", metavar="FILE", action="append", help="variables, a line each")
    add("-u", "--user", metavar="USER[:GROUP]", help="names or numbers")
    add("-w", "--workdir", metavar="DIR", help="working directory")
    add("--entrypoint", metavar="PROGRAM", help="instead of the image's; empty for none")
    add("--hostname", metavar="NAME", help="default: the beginning of the id")
    add("-i", "--interactive", action="store_true", help="keep standard input open")
    add("-t", "--tty", action="store_true", help="give it a terminal")
    add("--read-only", action="store_true", help="it cannot write to its root filesystem")
    add(
        "--network",
        "--net",
        choices=("host", "none"),
        default="none",
        help="none, the default: nothing but a loopback device of its own; host: the host's",
    )
    _configure_mounts(parser)
    add("-l", "--label", metavar="A=B", action="append", help="a label")
    add("--stop-signal", metavar="SIGNAL", help="what stop sends first")
    add("--rm", action="store_true", help="remove it when it has ended")
    add("--size", metavar="BYTES", help="how much may be written to it, at most: 10g")
    add("image", metavar="IMAGE", help="a name, an id, or the beginning of one")
    add("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="with its arguments")


def _configure_mounts(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-v",
        "--volume",
        dest="mounts",
        type=lambda text: ("-v", text),
        metavar="[SOURCE:]PATH[:OPTIONS]",
        action="append",
        help="a volume, by its name, or a path of the host, which begins with /; without either a"
        " volume of its own. Options: ro, nocopy, z, rshared, …",
    )
    add(
        "--mount",
        dest="mounts",
        type=lambda text: ("--mount", text),
        metavar="type=TYPE,source=…,target=PATH",
        action="append",
        help="volume, bind or tmpfs; also readonly, volume-subpath=, bind-propagation=, …",
    )
    add("--tmpfs", metavar="PATH[:OPTIONS]", action="append", help="a tmpfs, mounted at PATH")
    add(
        "--volumes-from",
        metavar="CONTAINER[:ro]",
        action="append",
        help="what is mounted in another container, at the same places",
    )


def mounts_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is to be mounted, as :meth:`ContainerStore.create` takes it; nothing but what was given.

    Raises:
        InvalidMountError: an option is no mount; in Docker's words.
    """
    found = {
        "mounts": [_mount(option, text) for option, text in arguments.mounts or ()],
        "tmpfs": arguments.tmpfs,
        "volumes_from": arguments.volumes_from,
    }
    return {key: value for key, value in found.items() if value}


def _mount(option: str, text: str) -> MountSpec:
    if option == "-v":
        from storagedrivers.mounts.volume_flag import parse_volume

        return parse_volume(text)
    from storagedrivers.mounts.mount_flag import parse_mount

    return parse_mount(text)


def config_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is to be different from the image's config."""
    config: dict[str, Any] = {
        "Cmd": arguments.command or None,
        "Env": [*environment(arguments)] or None,
        "User": arguments.user,
        "WorkingDir": arguments.workdir,
        "Entrypoint": None if arguments.entrypoint is None else [arguments.entrypoint],
        "Hostname": arguments.hostname,
        "OpenStdin": arguments.interactive,
        "Tty": arguments.tty,
        "ReadOnly": arguments.read_only,
        "Network": arguments.network,
        "Labels": dict(map(_label, arguments.label or ())) or None,
        "StopSignal": _signal(arguments.stop_signal),
        "AutoRemove": arguments.rm,
    }
    return {key: value for key, value in config.items() if value is not None}


def _label(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name.strip():
        raise StoreError(f"--label: {text!r} has no name", resolution="write NAME=VALUE")
    return name, value


def _signal(name: str | None) -> str | None:
    """It is only needed at the end of a container, when it is late to hear that there is none."""
    if name is not None:
        from storagedrivers.runtime.signals import signal_number

        signal_number(name)
    return name


def size_of(arguments: argparse.Namespace) -> int | None:
    """The limit in bytes, or None."""
    if arguments.size is None:
        return None
    from storagedrivers.mounts.sizes import parse_size

    return parse_size(arguments.size)


def environment(arguments: argparse.Namespace) -> Iterator[str]:
    """Variables; one without a value is as the program's own environment has it."""
    for file in arguments.env_file or ():
        with open(file, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                text = line.lstrip().rstrip("\r\n")
                if text and not text.startswith("#"):
                    yield from _variable(text, file)
    for text in arguments.env or ():
        yield from _variable(text, "--env")


def _variable(text: str, source: str) -> Iterator[str]:
    name, equals, _ = text.partition("=")
    if not name or name != name.strip() or any(one.isspace() for one in name):
        raise StoreError(f"{source}: {text!r} is no variable", resolution="write NAME=VALUE")
    if equals:
        yield text
    elif (value := variable(name)) is not None:
        yield f"{name}={value}"
