"""Docker and containerd as peers: daemons in directories of their own, and the image they measure.

The daemons are those of ``tests/interop``; the image is the root filesystem of ``fixtures.py``, as
Docker imports and saves it.
"""

from __future__ import annotations

import http.client
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fixtures
import pairwise

# One way to start them serves the tests and the benchmarks.
sys.path.append(str(pairwise.PROJECT / "tests"))

from interop.daemons import PATH, Daemons, started

__all__ = ["Daemons", "create_by_http", "daemons", "require", "saved_image"]

IMAGE = "bench/debian:latest"
"""What the image is called, by Docker's short rule."""


def require() -> None:
    """End the program where a daemon is not installed."""
    for program in ("docker", "dockerd", "containerd", "ctr", "runc"):
        if shutil.which(program, path=PATH) is None:
            sys.exit(f"this benchmark measures beside {program}, which is not installed")


@contextmanager
def daemons(directory: Path) -> Iterator[Daemons]:
    """Both daemons, with nothing in them; *directory* is made."""
    directory.mkdir(parents=True)
    with started(directory) as running:
        yield running


def saved_image(cache: Path, directory: Path) -> Path:
    """An archive of the image, as ``docker save`` writes it below *directory*."""
    layer = fixtures.fixture("debian", cache)
    path = directory / "debian.tar"
    with daemons(directory / "saving") as running:
        running.docker("import", "--change", 'CMD ["sh"]', layer.plain, IMAGE)
        running.docker("save", "--output", path, IMAGE)
    shutil.rmtree(directory / "saving")
    return path


def create_by_http(connection: http.client.HTTPConnection, image: str) -> str:
    """Have dockerd create a container, without its command line; the container's id."""
    body = json.dumps({"Image": image, "HostConfig": {"NetworkMode": "none"}})
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1.41/containers/create", body, headers)
    with connection.getresponse() as response:
        answer = json.load(response)
    if response.status != 201:
        sys.exit(f"dockerd created no container: {answer.get('message')}")
    return str(answer["Id"])
