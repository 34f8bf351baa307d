"""local: a directory of the host, or what is mounted there while the volume is in use.

The options are those of Docker's driver of that name: ``type``, ``device`` and ``o`` are what
mount(8) has as ``-t``, the device and ``-o``; ``size`` limits what the volume may hold.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from storagedrivers.errors import VolumeError
from storagedrivers.model import Mount, Volume
from storagedrivers.volume_driver import LOOP, VolumeDriver

_NEEDED = {"type": ("device",), "device": ("type",), "o": ("device", "type"), "size": ()}
"""Each option, and those without which it means nothing."""

_TYPE = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3")
_PROPAGATION = re.compile(r"r?(private|slave|shared|unbindable)")
_NOTHING = ("defaults", "atime", "diratime", "norelatime", "nostrictatime", "async", "nomand", "")
_OPPOSITES = {"exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro", "async": "sync"}


class Local(VolumeDriver):
    """Volumes whose files lie in ``_data``, or are mounted there."""

    name = "local"

    def check(self, options: Mapping[str, str], size: int | None, directory: Path) -> None:
        """Take Docker's options, and a size where there is something to enforce it."""
        for option in options:
            if option not in _NEEDED:
                raise VolumeError(
                    f'invalid option: "{option}"',
                    resolution=f"the driver local has the options {', '.join(_NEEDED)}",
                )
        for option, others in _NEEDED.items():
            for other in others:
                if option in options and not options.get(other):
                    raise VolumeError(
                        f'missing required option: "{other}"',
                        resolution="a mount needs a type and a device:"
                        " --opt type=tmpfs --opt device=tmpfs",
                    )
        if "type" in options:
            self._check_mount(options, size)
        if size is not None:
            from storagedrivers.volumes import sizes

            sizes.check(size)

    def _check_mount(self, options: Mapping[str, str], size: int | None) -> None:
        kind, device, words = options["type"], options["device"], _words(options)
        if not _TYPE.fullmatch(kind) or kind.startswith("fuse"):
            raise VolumeError(
                f"{kind!r} is no filesystem that the driver local can mount",
                resolution="mount it yourself, and use that directory:"
                " --opt type=none --opt o=bind --opt device=/DIRECTORY",
            )
        for word in words:
            if _PROPAGATION.fullmatch(word):
                raise VolumeError(
                    f"the option {word} belongs to a container's mount, and not to a volume",
                    resolution=f"say so where it is used: --volume NAME:/PATH:{word}",
                )
        if _is_bind(kind, words) and not os.path.isabs(device):
            raise VolumeError(f"the device {device!r} of a bind mount is no absolute path")
        if size is None:
            return
        if kind != "tmpfs":
            raise VolumeError(
                f"nothing can limit to {size} bytes what is mounted from {device}",
                resolution="leave the size out, or the type and the device",
            )
        if any(word.startswith("size=") for word in words):
            raise VolumeError("the size is given twice", resolution="take it out of the option o")

    def size(self, options: Mapping[str, str]) -> int | None:
        """The option ``size``."""
        if "size" not in options:
            return None
        from storagedrivers.mounts.sizes import parse_size

        return parse_size(options["size"])

    def create(self, volume: Volume, directory: Path) -> None:
        """See to it that the size is kept."""
        if volume.size is not None and "type" not in volume.options:
            from storagedrivers.volumes import sizes

            sizes.enforce(volume, directory)

    def beside(self, volume: Volume, directory: Path) -> bool:
        """Another image of the volume's size."""
        if volume.size is None or "type" in volume.options:
            return False
        from storagedrivers.volumes import sizes

        return sizes.make_image(volume.size, directory)

    def mounts(self, volume: Volume, directory: Path) -> tuple[Mount, ...]:
        """What the options say, or the filesystem in the volume's image."""
        if "type" in volume.options:
            return (_mount(volume),)
        image = directory / "image"
        if volume.size is not None and image.exists():
            return (Mount("ext4", os.fspath(image), options=(LOOP,)),)
        return ()

    def limit(self, volume: Volume, data: Path) -> None:
        """A quota on the directory itself, where that is what limits the volume."""
        if volume.size is not None and "type" not in volume.options:
            from storagedrivers.volumes import sizes

            sizes.limit_like(volume, data)

    def unlimit(self, volume: Volume, data: Path) -> None:
        """Give its quota back."""
        if volume.size is not None and "type" not in volume.options:
            from storagedrivers.volumes import sizes

            sizes.release(data)


def _words(options: Mapping[str, str]) -> list[str]:
    return [word for word in options.get("o", "").split(",") if word]


def _is_bind(kind: str, words: list[str]) -> bool:
    return kind == "bind" or bool({"bind", "rbind"} & {*words})


def _mount(volume: Volume) -> Mount:
    """The mount that the options of a volume describe."""
    kind, device, words = volume.options["type"], volume.options["device"], _words(volume.options)
    if _is_bind(kind, words):
        words = words if {"bind", "rbind"} & {*words} else [*words, "bind"]
        return Mount("bind", device, options=_flags(words))
    if kind in _NETWORK:
        device, words = _resolved(volume.name, kind, device, words)
    elif kind == "tmpfs" and volume.size is not None:
        words = [*words, f"size={volume.size}"]
    elif os.path.isfile(device):
        words = [*words, LOOP]
    return Mount(kind, device, options=_flags([word for word in words if word != "bind"]))


def _flags(words: list[str]) -> tuple[str, ...]:
    """The options without those that say what is so anyway; of two opposites the last counts."""
    found: dict[str, None] = {}
    for word in words:
        found.pop(_OPPOSITES.get(word, word), None)
        if word not in _NOTHING and word not in _OPPOSITES:
            found[word] = None
    return tuple(found)


def _resolved(name: str, kind: str, device: str, words: list[str]) -> tuple[str, list[str]]:
    """The source and the options of a network filesystem: the kernel wants addresses, no names."""
    given = next((word for word in words if word.startswith("addr=")), None)
    host = _host(kind, device) if given is None else given.removeprefix("addr=")
    if not host:
        return device, words
    address = f"addr={_address(name, host)}"
    if given is None:
        return device, [*words, address]
    return device, [address if word == given else word for word in words]


def _host(kind: str, device: str) -> str:
    """The host that a device names: ``host:/path``, ``[address]:/path`` or ``//host/share``."""
    if kind.startswith("nfs"):
        found = re.match(r"\[([^]]+)\]:|([^:/]+):", device)
    else:
        found = re.match(r"(?:cifs:|smb:)?//(?:[^@/]*@)?(?:\[([^]]+)\]|([^:/]+))", device)
    return "" if found is None else found[1] or found[2]


def _address(name: str, host: str) -> str:
    import socket

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long
        raise VolumeError(
            f"volume {name} cannot be mounted: the host {host!r} has no address",
            details=str(error),
            resolution="look at the option addr= and at the resolver",
        ) from error
    return str(found[0][4][0])
