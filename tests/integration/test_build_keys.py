"""What differs is never found in the cache for each other; what does not count is."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from running import rootfs_tar
from stored import clean

from storagedrivers.build.events import StepDone
from storagedrivers.storage import Storage

STAGE = "FROM base AS one\nRUN echo {} > /file\nFROM base\n"


@pytest.fixture
def storage(on_filesystem: Callable[[str], Path]) -> Iterator[Storage]:
    need("root", "overlay", "busybox")
    directory = on_filesystem("ext4")
    with Storage.open(
        root=directory / "root", run_root=directory / "run", driver="overlay2"
    ) as opened:
        opened.images.import_(io.BytesIO(rootfs_tar()), name="base")
        yield opened
        for image in opened.images.ls():
            opened.images.remove(image.id, force=True)
        clean(opened)


def last_is_cached(storage: Storage, context: Path, dockerfile: str) -> bool:
    """Build, and say whether the last step that can make a layer was found."""
    done = []
    storage.build(context, dockerfile=dockerfile.encode(), on_event=done.append)
    steps = [one for one in done if isinstance(one, StepDone)]
    return [one.cached for one in steps if one.step.word in ("RUN", "COPY", "ADD")][-1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ENV A=1 B=2\nRUN env > /e", "ENV B=2 A=1\nRUN env > /e"),
        ('VOLUME ["/a /b"]\nRUN echo > /x', 'VOLUME ["/a", "/b"]\nRUN echo > /x'),
        ("RUN <<EOF\n#!/bin/sh\necho\nEOF", 'RUN ["echo", "EOF", "#!/bin/sh\\necho\\n"]'),
        (
            "RUN --mount=type=tmpfs,target=/m --mount=type=bind,target=/m ls /m > /x",
            "RUN --mount=type=bind,target=/m --mount=type=tmpfs,target=/m ls /m > /x",
        ),
        ("USER 1\nRUN id > /tmp/x", "USER 2\nRUN id > /tmp/x"),
        ("WORKDIR /tmp\nRUN pwd > x", "RUN pwd > x"),
        ('SHELL ["/bin/sh", "-e", "-c"]\nRUN false; true', "RUN false; true"),
        ("ARG A=1\nRUN echo $A > /x", "ARG A=2\nRUN echo $A > /x"),
        ("COPY --chmod=700 file /x", "COPY --chmod=755 file /x"),
        ("COPY --chown=1 file /x", "COPY --chown=2 file /x"),
        ("COPY file /x", "COPY file /y"),
        ("COPY linked /x/", "COPY apart /x/"),
    ],
)
def test_what_differs_is_built(storage: Storage, tmp_path: Path, one: str, other: str) -> None:
    (tmp_path / "file").write_text("text")
    for name in ("linked", "apart"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("text")
    os.link(tmp_path / "linked/a", tmp_path / "linked/b")
    (tmp_path / "apart/b").write_text("text")
    if "SHELL" in one:
        one, other = other, one.replace("false; true", "false || true")
    last_is_cached(storage, tmp_path, f"FROM base\n{one}\n")
    assert not last_is_cached(storage, tmp_path, f"FROM base\n{other}\n")
    assert last_is_cached(storage, tmp_path, f"FROM base\n{other}\n")


@pytest.mark.parametrize("kind", ["cache", "bind"])
def test_what_a_mount_shows_counts(storage: Storage, tmp_path: Path, kind: str) -> None:
    """Of another stage, also where it only fills a cache."""
    run = f"RUN --mount=type={kind},from=one,target=/m cat /m/file > /x\n"
    last_is_cached(storage, tmp_path, STAGE.format(1) + run)
    assert not last_is_cached(storage, tmp_path, STAGE.format(2) + run)
    assert last_is_cached(storage, tmp_path, STAGE.format(2) + run)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("LABEL a=1\nRUN echo > /x", "RUN echo > /x\nLABEL a=2"),
        ("RUN echo \\\n  > /x", "run echo   > /x"),
        ("COPY file /x", "EXPOSE 1\nCMD x\nCOPY --link file /x"),
    ],
)
def test_what_does_not_count_is_found(
    storage: Storage, tmp_path: Path, one: str, other: str
) -> None:
    (tmp_path / "file").write_text("text")
    last_is_cached(storage, tmp_path, f"FROM base\n{one}\n")
    assert last_is_cached(storage, tmp_path, f"FROM base\n{other}\n")
