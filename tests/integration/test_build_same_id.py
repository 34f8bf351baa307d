"""The same Dockerfile gives the same image id under every driver, with SOURCE_DATE_EPOCH."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import archives
import contained
import pytest
from build_cases import CASES, Case, write_base, write_context
from build_cases.contexts import TIME, directory, file, hard_link, program, symlink, tar
from capabilities import need
from running import usable

from storagedrivers.storage import Storage
from storagedrivers.testing.trees import CAPABILITY

DRIVERS = {"overlay2": "ext4", "btrfs-snapshot": "btrfs", "vfs-copy": "xfs"}
EPOCH = 1_600_000_000

ODD = Case(
    "everything that is odd",
    """\
FROM base AS other
ADD kinds.tar /kinds/
RUN ln /kinds/able /kinds/again && chmod 2711 /kinds && mkfifo /kinds/pipe
RUN rm -r /var/lib && mkdir /var/lib && touch /var/lib/x && mv /usr/lib/one /usr/lib/two
FROM base
ARG WHEN=now
WORKDIR /w/deep
COPY tree /w
COPY --chown=svc:more --chmod=4751 tree/run /w/own
COPY --from=other /kinds /w/kinds
COPY --from=other --chown=5:6 /kinds /w/owned
RUN --mount=type=cache,target=/cache echo $WHEN >/w/ran && date >/cache/now && ls / >/dev/null
RUN true
RUN ln /w/one /w/four && rm /w/two && setuid=1 && chmod 6711 /w/run && touch -d @1500000001 /w/ran
LABEL a=b
COPY <<EOF /w/heredoc
text
EOF
VOLUME /w/volume
CMD ["x"]
""",
    {
        "tree/one": file("one\n", 0o604),
        "tree/two": hard_link("tree/one"),
        "tree/below/three": hard_link("tree/one"),
        "tree/run": program("#!/bin/sh\n", xattrs={"user.a": b"b"}),
        "tree/private": directory(0o1731, xattrs={"user.c": b"d"}),
        "tree/private/closed": file("c", 0, owner=(7, 8)),
        "tree/link": symlink("/no/where"),
        "kinds.tar": tar(
            archives.xattrs({b"security.capability": CAPABILITY, b"user.x": b"y"}),
            archives.file(b"able", b"a", mode=0o755, mtime=TIME),
            archives.file(b"late", b"l", mtime=2_000_000_000),
            archives.file(b"setuid", b"s", mode=0o6755, uid=1, gid=2, mtime=TIME),
            archives.device(b"null", 1, 3, mode=0o666, mtime=TIME),
            archives.symlink(b"link", b"able", uid=3, gid=4, mtime=TIME),
        ),
    },
)

CHOSEN = (
    ODD,
    *(one for one in CASES if one.name in ("from a stage", "RUN changes every kind of file")),
)


@pytest.fixture(scope="module")
def archive(made_filesystems: Callable[[str], Path]) -> bytes:
    """The image that all begin with."""
    place = made_filesystems("ext4") / "base-of-builds"
    with Storage.open(root=place / "root", run_root=place / "run", driver="overlay2") as storage:
        data = write_base(storage)
        contained.clean(storage)
    return data


@contextmanager
def _store(place: Path, driver: str, archive: bytes) -> Iterator[Storage]:
    with Storage.open(root=place / "root", run_root=place / "run", driver=driver) as storage:
        storage.images.load(io.BytesIO(archive))
        yield storage
        storage.build_cache.prune(all=True)
        for volume in storage.volumes.ls():
            storage.volumes.remove(volume.name)
        contained.clean(storage)


def _build(storage: Storage, case: Case, context: Path, **more: object) -> str:
    options = {"source_date_epoch": EPOCH, "network": "none", "dockerfile": case.file, **more}
    image = storage.build(context, **options)  # type: ignore[arg-type]
    for layer in storage.layers.image_layers(image.layer):
        # What is exported later is what was hashed.
        assert storage.layers.export(layer.id, lambda data: None) == layer.diff_id
    return str(image.id)


def test_every_driver_gives_the_same(
    on_filesystem: Callable[[str], Path], tmp_path: Path, archive: bytes
) -> None:
    """And so does a second store of one driver, and a build that reuses nothing."""
    need("mount", "overlay")
    for number, case in enumerate(CHOSEN):
        write_context(case, tmp_path / str(number))
    ids = []
    with usable("crun"):
        for driver in DRIVERS:
            with _store(on_filesystem(DRIVERS[driver]), driver, archive) as storage:
                ids.append(
                    [
                        _build(storage, case, tmp_path / str(number))
                        for number, case in enumerate(CHOSEN)
                    ]
                )
            assert ids[-1] == ids[0], driver
        with _store(on_filesystem("ext4"), "overlay2", archive) as storage:
            for no_cache in (False, False, True):
                assert _build(storage, ODD, tmp_path / "0", no_cache=no_cache) == ids[0][0]
    assert len(set(ids[0])) == len(CHOSEN)


def test_what_differs_gives_another(
    on_filesystem: Callable[[str], Path], tmp_path: Path, archive: bytes
) -> None:
    """The test above would see one bit of a mode, and another time."""
    need("mount", "overlay")
    write_context(ODD, tmp_path / "same")
    changed = {**ODD.files, "tree/one": file("one\n", 0o605)}
    write_context(ODD._replace(files=changed), tmp_path / "changed")
    with usable("crun"), _store(on_filesystem("ext4"), "overlay2", archive) as storage:
        first = _build(storage, ODD, tmp_path / "same")
        assert _build(storage, ODD, tmp_path / "changed") != first
        assert _build(storage, ODD, tmp_path / "same", source_date_epoch=EPOCH + 1) != first
        assert _build(storage, ODD, tmp_path / "same") == first
