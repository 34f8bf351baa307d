"""Docker's classic builder and we make the same of the same Dockerfile and context."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import archives
import pytest
import stored
from build_cases import CASES, FAILING, NEWER, Case, listing, write_base, write_context
from build_cases.contexts import TIME, program, tar, tar_of
from interop.building import build_by_docker, build_by_us, expected, seen_in_docker, seen_in_ours
from interop.daemons import Daemons
from interop.making import Peers
from running import usable

from storagedrivers.errors import StorageDriversError
from storagedrivers.storage import Storage
from storagedrivers.stores.images import Image
from storagedrivers.testing.trees import differences


def _by_name(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


@pytest.fixture(scope="module")
def archive(made_filesystems: Callable[[str], Path]) -> Iterator[tuple[Storage, bytes]]:
    """A store with the base of all cases, for all of them; and the base as an archive."""
    directory = made_filesystems("ext4") / "building"
    with (
        usable("crun"),
        Storage.open(
            root=directory / "root", run_root=directory / "run", driver="overlay2"
        ) as storage,
    ):
        data = write_base(storage)
        with storage.images.mounted("base"):  # where mounts lie is mounted itself from now on
            pass
        yield storage, data
        storage.build_cache.prune(all=True)
        for image in storage.images.ls():
            storage.images.remove(image.id, force=True)
        stored.clean(storage)


@pytest.fixture
def ours(archive: tuple[Storage, bytes]) -> Storage:
    """A store with the base."""
    return archive[0]


@pytest.fixture(scope="module")
def dockers(archive: tuple[Storage, bytes], peers: Peers) -> Daemons:
    """Docker with the same base."""
    peers.daemons.docker("load", data=archive[1])
    return peers.daemons


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Where a context may be written."""
    return tmp_path / "context"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        pass


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """Have a directory served; its address."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=directory)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@_by_name(CASES)
def test_the_same_image(case: Case, ours: Storage, dockers: Daemons, context: Path) -> None:
    write_context(case, context)
    image = build_by_us(ours, case, context)
    _compare(ours, image, dockers, build_by_docker(dockers, case, context), case.empty)
    assert build_by_us(ours, case, context).id == image.id


def _compare(
    storage: Storage, image: Image, daemons: Daemons, other: str, empty: tuple[int, ...] = ()
) -> None:
    theirs, mine = seen_in_docker(daemons, other), seen_in_ours(storage, image)
    theirs = expected(theirs, mine, empty)
    assert differences(theirs.tree, mine.tree) == []
    assert mine.history == theirs.history
    assert mine._replace(tree={}) == theirs._replace(tree={})


@pytest.mark.parametrize("compression", ["", "gz"])
def test_a_context_on_standard_input(compression: str, ours: Storage, dockers: Daemons) -> None:
    """A tar is not filtered by what is in it, and keeps what it is."""
    text = b"FROM base\nCOPY . /all/\nCOPY --chown=svc sub/f /f\n"
    data = tar(
        archives.file(b"Dockerfile", text, mtime=TIME),
        archives.file(b".dockerignore", b"sub\n", mtime=TIME),
        archives.directory(b"sub/", mode=0o2711, uid=5, mtime=TIME),
        archives.file(b"sub/f", b"f", mode=0o4750, uid=6, gid=7, mtime=TIME),
        archives.hard_link(b"sub/g", b"sub/f", mode=0o4750, mtime=TIME),
        archives.symlink(b"sub/link", b"../../..", mtime=TIME),
        compression=compression,
    )
    theirs = dockers.docker("build", "--quiet", "-", data=data).decode().strip()
    _compare(ours, ours.build(io.BytesIO(data)), dockers, theirs)


def test_a_dockerfile_on_standard_input(ours: Storage, dockers: Daemons, context: Path) -> None:
    ignored = "no*\n.dockerignore\n"
    files = {".dockerignore": ignored, "yes": "", "no": "", "Dockerfile": "FROM nowhere\n"}
    write_context(Case("", None, files), context)
    text = b"FROM base\nCOPY . /all/\n"
    theirs = dockers.docker("build", "--quiet", "--file", "-", context, data=text)
    mine = ours.build(context, dockerfile=text)
    _compare(ours, mine, dockers, theirs.decode().strip())


def test_what_is_downloaded(ours: Storage, dockers: Daemons, context: Path, tmp_path: Path) -> None:
    served = {"file": "file\n", "some/archive.tar": tar_of(x="x\n"), "run.sh": program("#!\n")}
    write_context(Case("", None, served), tmp_path / "served")
    with serving(tmp_path / "served") as address:
        text = f"""\
FROM base
ADD {address}/file /x/
ADD {address}/some/archive.tar {address}/run.sh /many/
ADD --chown=svc {address}/file?query=1 /renamed
ARG WHERE={address}
ADD $WHERE/run.sh .
"""
        case = Case("", text)
        write_context(case, context)
        theirs = build_by_docker(dockers, case, context)
        _compare(ours, build_by_us(ours, case, context), dockers, theirs)


@_by_name(FAILING)
def test_neither_builds_it(case: Case, ours: Storage, dockers: Daemons, context: Path) -> None:
    write_context(case, context)
    with pytest.raises(RuntimeError):
        build_by_docker(dockers, case, context)
    with pytest.raises(StorageDriversError):
        build_by_us(ours, case, context)


@_by_name(NEWER)
def test_what_the_classic_builder_does_not_know(case: Case, ours: Storage, context: Path) -> None:
    write_context(case, context)
    image = build_by_us(ours, case, context)
    with ours.images.mounted("base") as top:
        before = listing(top)
    with ours.images.mounted(image.id) as top:
        after = listing(top)
    assert [line for line in after if line not in before] == case.tree.splitlines()
    assert [line for line in before if line not in after] == []
