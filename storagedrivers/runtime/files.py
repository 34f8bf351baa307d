"""The files of a container that are mounted over those of its image, as Docker does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from storagedrivers.runtime.status import replace_file

if TYPE_CHECKING:
    from storagedrivers.stores.containers import Container

_SHORT = 12  # characters of an id

_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hostname(container: Container) -> str:
    """What the container calls itself: what was asked for, on the host's network the host's own
    name, or else the beginning of its id.
    """
    usual = container.id[:_SHORT]
    name = container.config.get("Hostname") or usual
    if name == usual and container.config.get("Network") == "host":
        return os.uname().nodename
    return str(name)


def write(directory: str, config: Mapping[str, Any], name: str) -> dict[str, str]:
    """Write the files; from the path in the container to the file that is mounted there."""
    host_network = config.get("Network") == "host"
    contents = {
        "hostname": f"{name}\n",
        "hosts": _of_host("/etc/hosts") if host_network else _HOSTS,
        "resolv.conf": _of_host("/etc/resolv.conf"),
    }
    mounted = {}
    for file, text in contents.items():
        path = os.path.join(directory, file)
        replace_file(path, text.encode("utf-8", "surrogateescape"), mode=0o644)
        mounted[f"/etc/{file}"] = path
    return mounted


def _of_host(path: str) -> str:
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
