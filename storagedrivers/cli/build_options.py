"""The options of ``build``: those of Docker's users and their scripts.

What means nothing here and does no harm is taken; what would make another image than the user
expects is refused, with the reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from storagedrivers.cli import progress
from storagedrivers.config import variable
from storagedrivers.errors import StoreError

_TAKEN = ("--rm", "--force-rm", "--compress", "--stream", "--disable-content-trust", "--load")
_TAKEN_WITH_VALUE = ("--isolation", "--builder")

_LIMITS = (
    *("-m/--memory", "--memory-swap", "-c/--cpu-shares", "--cpu-period", "--cpu-quota"),
    *("--cpuset-cpus", "--cpuset-mems", "--cgroup-parent", "--shm-size", "--ulimit"),
)
"""They only say how much a RUN may take."""

_NO_VALUES = ("false", "0", "")

_REFUSED: Mapping[str, tuple[str, str]] = {
    "--secret": (
        "there are no secrets here",
        "RUN --mount=type=bind shows a file of the context, and leaves it in no layer",
    ),
    "--ssh": ("no agent is forwarded", "fetch what it is for before the build, and COPY it"),
    "--squash": (
        "each instruction keeps its layer, so that others share it",
        "join RUNs with &&, or copy out of a stage: COPY --from",
    ),
    "-o/--output": (
        "an image goes to the store",
        "then write it: storagedrivers save, or storagedrivers image export for its files",
    ),
    "--push": ("nothing is sent to a registry", "storagedrivers save NAME, and push the archive"),
    "--cache-to": ("the cache is the store's own", "save the image, and name it in --cache-from"),
    "--add-host": ("RUN has the store's own /etc/hosts", "leave it out, or use --network host"),
    "--build-context": ("a build has one context", "use COPY --from with an image or a stage"),
    "--metadata-file": ("no metadata is written", "--iidfile has the id, --json all of the image"),
    "--security-opt": ("RUN is confined as it is", "leave it out"),
    "--allow": ("RUN is confined as it is", "for the network: --network host"),
    "--annotation": ("manifests have no annotations", "use --label"),
    "--no-cache-filter": ("stages cannot be left out of the cache", "use --no-cache"),
    "--call": ("only images are made", "leave it out"),
    "--check": ("only images are made", "leave it out"),
}

_ATTESTATIONS = ("--attest", "--provenance", "--sbom")
"""Refused, but for ``false``."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add them all, and the context."""
    add = parser.add_argument
    add("-f", "--file", metavar="FILE", help="the Dockerfile; -: standard input")
    add("-t", "--tag", metavar="NAME", action="append", default=[], help="a name for the image")
    add(
        "--build-arg",
        metavar="A=B",
        action="append",
        default=[],
        help="the value of an ARG; A alone: as it is here",
    )
    add("--target", metavar="STAGE", help="build this stage; default: the last one")
    add("--label", metavar="A=B", action="append", default=[], help="a label for the image")
    add(
        "--network",
        choices=("default", "none", "host"),
        default="default",
        help="of RUNs: default and none, a loopback device; host, the host's",
    )
    add("--platform", metavar="OS/ARCH", help="of the image; default: the base's")
    add(
        "--cache-from",
        metavar="IMAGE",
        action="append",
        default=[],
        help="also take layers of this image, where its history says the same",
    )
    _add_flag(parser, "--no-cache", help="build every step, and remember those instead")
    _add_flag(parser, "--explain", help="say why the cache has nothing for a step")
    _add_flag(parser, "-q", "--quiet", help="print nothing but the id")
    add("--iidfile", metavar="FILE", help="write the id there, too")
    add("--progress", choices=progress.KINDS, default="auto", help="default: tty on a terminal")
    _add_flag(
        parser, "--pull", values=("never", "missing", "always", "newer"), help="nothing is pulled"
    )
    _configure_others(parser)
    add(
        "context",
        metavar="PATH",
        nargs="?",
        default=".",
        help="the directory with the files; -: a tar, or a Dockerfile alone, on standard input",
    )


def _add_flag(
    parser: argparse.ArgumentParser, *names: str, values: Sequence[str] = (), **more: Any
) -> None:
    """Add an option that is alone or has ``=true`` or another value; what stands behind it is the
    next argument, as Docker has it.
    """
    name = names[-1]
    kept: dict[str, Any] = {"dest": name[2:].replace("-", "_"), "action": "store_const"}
    parser.add_argument(*names, **kept, const=True, default=False, **more)
    truths = {"true": True, "1": True, "false": False, "0": False}
    for text, value in (*truths.items(), *((one, one) for one in values)):
        parser.add_argument(f"{name}={text}", **kept, const=value, help=argparse.SUPPRESS)


def _configure_others(parser: argparse.ArgumentParser) -> None:
    hidden: dict[str, Any] = {"help": argparse.SUPPRESS}
    for name in _TAKEN:
        _add_flag(parser, name, **hidden)
    for name in _TAKEN_WITH_VALUE:
        parser.add_argument(name, **hidden)
    for names in _LIMITS:
        parser.add_argument(*names.split("/"), dest="limits", action=_Limit, **hidden)
    for names in _REFUSED:
        parser.add_argument(*names.split("/"), action=_Refused, nargs="?", const="", **hidden)
    for name in _ATTESTATIONS:
        parser.add_argument(name, action=_Attestation, nargs="?", const="true", **hidden)


class _Limit(argparse.Action):
    """Remembers the option's name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        """Called by argparse."""
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or ()), option])


class _Refused(argparse.Action):
    """Says why there is no such option here."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        """Called by argparse."""
        refuse(*_REFUSED["/".join(self.option_strings)], option=str(option))


class _Attestation(argparse.Action):
    """Likewise, but for one that is not wanted."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        """Called by argparse."""
        if values not in _NO_VALUES:
            refuse("images get no attestations", "leave it out", option=str(option))


def refuse(why: str, resolution: str, *, option: str) -> NoReturn:
    """Refuse an option.

    Raises:
        StoreError: always.
    """
    raise StoreError(f"{option} is not taken: {why}", resolution=resolution)


def notes_of(arguments: argparse.Namespace) -> Iterator[str]:
    """What the user should know of options that do less than elsewhere."""
    if arguments.pull not in (False, "never", "missing"):
        yield "--pull: nothing is pulled; the base images are those of the store"
    for option in arguments.limits or ():
        yield f"{option}: taken and not used; a RUN is not limited"


def build_args_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Values of ARGs; what is not set here either is left out, as if it were not there."""
    found = {}
    for text in arguments.build_arg:
        name, equals, value = text.partition("=")
        if not name:
            raise StoreError(f"--build-arg: {text!r} has no name", resolution="write NAME=VALUE")
        here = value if equals else variable(name)
        if here is not None:
            found[name] = here
    return found


def labels_of(arguments: argparse.Namespace) -> dict[str, str]:
    """The labels."""
    found = {}
    for text in arguments.label:
        name, _, value = text.partition("=")
        if not name:
            raise StoreError(f"--label: {text!r} has no name", resolution="write NAME=VALUE")
        found[name] = value
    return found


def cache_from_of(arguments: argparse.Namespace) -> list[str]:
    """The images; several in one option, and those that buildx writes as ``type=registry,ref=``."""
    found = []
    for text in arguments.cache_from:
        fields = text.split(",")
        if not any("=" in one for one in fields):
            found += [one for one in fields if one]
            continue
        keys = dict(one.partition("=")[::2] for one in fields)
        if keys.get("type", "registry") != "registry" or "ref" not in keys:
            refuse(
                "a cache is an image of the store", "name one: --cache-from IMAGE",
                option=f"--cache-from {text}",
            )  # fmt: skip
        found.append(keys["ref"])
    return found
