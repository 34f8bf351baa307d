"""WORKDIR: makes the directory where it is missing."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from storagedrivers.build import layering
from storagedrivers.build.keys import Facts
from storagedrivers.errors import BuildError
from storagedrivers.linux.rooted import Root

if TYPE_CHECKING:
    from storagedrivers.build.executor import Executor, Made
    from storagedrivers.stores.records import Layer


def make(executor: Executor, created_by: str) -> Made:
    """Make the working directory of the config: root's whoever the user is, as Docker does.

    Raises:
        BuildError: something else is in its place.
    """
    state, site = executor.state, executor.site
    path = posixpath.normpath(state.config["WorkingDir"])

    def layer() -> Layer | None:
        return layering.filled(
            site.parts.layers,
            state.layer,
            site.lease,
            lambda root: _make_directory(root, path),
            epoch=site.request.source_date_epoch,
        )

    epoch = site.request.source_date_epoch
    environment = {} if epoch is None else {"SOURCE_DATE_EPOCH": str(epoch)}
    return executor.layer(created_by, Facts(state.chain, f"WORKDIR {path}", environment), layer)


def _make_directory(root: int, path: str) -> None:
    try:
        with Root(f"/proc/self/fd/{root}") as top:
            os.close(top.make_directory(path))
    except NotADirectoryError as error:
        raise BuildError(
            f"{path} cannot be the working directory: it, or what is above it, is no directory",
            resolution="choose another path, or remove what is there in a step before",
        ) from error
