"""What a RUN does, as a value: the cache is asked before anything that runs it is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from storagedrivers.build.run_mounts import RunMount


class RunStep(NamedTuple):
    """What a RUN does.

    Attributes:
        parent: the id of the sealed layer that it begins on, or None.
        config: of the image so far; its Env has the arguments of the build, too.
        command: the program and its arguments.
        mounts: what it sees besides.
        network: ``none`` and ``default``: a loopback device; or ``host``.
        script: the name and the text of a program, which is put into ``/dev/pipes``; it is the
            command where there is no other.
    """

    parent: str | None
    config: Mapping[str, Any]
    command: tuple[str, ...]
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    script: tuple[str, str] | None = None
