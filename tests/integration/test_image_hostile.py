"""Archives of images that are damaged or mean harm: a typed error, and nothing is left."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from capabilities import need
from image_archives import (
    OCI,
    as_json,
    compressed,
    descriptor,
    digest,
    docker,
    entry,
    image,
    index,
    layout,
    layout_of,
    write,
)
from image_archives import (
    tar as archive_of,
)
from stored import left_on_disk, tar

from storagedrivers.errors import (
    DepthExceededError,
    DiffError,
    DigestMismatchError,
    MalformedImageError,
    StorageDriversError,
    UnsupportedImageError,
)
from storagedrivers.oci.files import ArchiveFiles
from storagedrivers.storage import Storage

BOTTOM, TOP = tar(a_b="below", c="1"), tar(a_b="above")
MADE = image(BOTTOM, TOP, files=(compressed(BOTTOM), TOP))
NAME = "docker.io/library/thing:1"


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with Storage.open(
        root=tmp_path / "root", run_root=tmp_path / "run", driver="vfs-copy"
    ) as opened:
        yield opened


def refused(
    storage: Storage,
    source: Any,
    error: type[Exception] | tuple[type[Exception], ...] = MalformedImageError,
    words: str | None = None,
    **arguments: Any,
) -> StorageDriversError:
    """Loading it fails with *error*, and the store is as it was: empty."""
    if isinstance(source, dict):
        source = archive_of(source)
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    with pytest.raises(error, match=words) as caught:
        storage.images.load(source, **arguments)
    nothing_left(storage)
    assert isinstance(caught.value, StorageDriversError)
    return caught.value


def nothing_left(storage: Storage) -> None:
    assert storage.images.ls() == []
    assert storage.layers.ls() == []
    assert storage.database.rows("SELECT * FROM leases") == []
    assert left_on_disk(storage) == []
    assert os.listdir(storage.root / "tmp") == []
    kept = storage.root / "images/sha256"
    assert not kept.exists() or os.listdir(kept) == []


def blob(data: bytes) -> str:
    return f"blobs/sha256/{digest(data)[7:]}"


# Damage


def test_an_archive_that_breaks_off_anywhere(storage: Storage, tmp_path: Path) -> None:
    for files in (docker(MADE, "a"), layout_of(MADE, NAME)):
        whole = archive_of(dict(files))
        end = len(whole.rstrip(b"\0")) - 1
        for length in {0, 1, 511, 512, 513, *range(1000, end, 1777), end}:
            path = tmp_path / "short.tar"
            path.write_bytes(whole[:length])
            refused(storage, path, (MalformedImageError, DiffError))


def test_a_compressed_archive_that_breaks_off(storage: Storage) -> None:
    whole = compressed(archive_of(dict(docker(MADE))))
    refused(storage, whole[: len(whole) // 2], words="breaks off")


def test_changed_bytes_are_an_error_or_do_not_matter(storage: Storage) -> None:
    chance = random.Random(4)
    whole = archive_of(dict(layout_of(MADE, NAME)))
    errors = 0
    for _ in range(300):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            (loaded,) = storage.images.load(io.BytesIO(bytes(data)))
        except StorageDriversError:
            errors += 1
        else:
            assert loaded.id == MADE.id
            assert [one.diff_id for one in storage.layers.image_layers(loaded.layer)] == list(
                MADE.diff_ids
            )
            storage.images.remove(loaded.id, force=True)
        nothing_left(storage)
    assert errors > 30


@pytest.mark.parametrize("number", range(4), ids=["config", "manifest", "gzip", "plain"])
@pytest.mark.parametrize("missing", [True, False])
def test_a_blob_that_is_missing_or_another(storage: Storage, number: int, missing: bool) -> None:
    victim = MADE.blobs[number]
    files = layout_of(MADE, NAME)
    if missing:
        del files[blob(victim)]
        refused(storage, files, words=blob(victim))
        return
    changed = bytearray(victim)
    changed[len(changed) // 2] ^= 1
    files[blob(victim)] = bytes(changed)
    error = refused(storage, files, DiffError)
    assert digest(victim)[7:] in str(error)
    files[blob(victim)] = victim + b"\0"
    refused(storage, files, words="are announced")


def test_a_compressed_layer_with_another_content_than_the_config_says(storage: Storage) -> None:
    made = image(BOTTOM, TOP, files=(compressed(BOTTOM), compressed(BOTTOM)))
    error = refused(storage, layout_of(made), DigestMismatchError)
    assert blob(made.files[1]) in str(error)


def test_another_compressed_file_for_a_layer_that_is_there(storage: Storage) -> None:
    """The file is kept, so it is checked though its layer need not be unpacked."""
    good = image(BOTTOM)
    storage.images.load(io.BytesIO(archive_of(dict(docker(good, "a")))))
    made = image(BOTTOM, files=(compressed(BOTTOM),), config={})
    files = layout_of(made)
    files[blob(made.files[0])] = made.files[0][:-1] + b"?"
    with pytest.raises(DigestMismatchError, match="blobs/sha256"):
        storage.images.load(io.BytesIO(archive_of(dict(files))))
    assert [one.id for one in storage.images.ls()] == [good.id]
    assert os.listdir(storage.root / "tmp") == []


def test_a_config_named_by_a_digest_that_it_has_not(storage: Storage) -> None:
    files = docker(MADE, "a")
    files[f"{MADE.id[7:]}.json"] = MADE.config + b" "
    refused(storage, files, DigestMismatchError, MADE.id[7:20])


def test_the_second_image_is_no_good(storage: Storage) -> None:
    bad = image(TOP, config={})
    files = layout([entry(MADE, NAME), entry(bad)], *MADE.blobs, *bad.blobs)
    files[blob(TOP)] = b"x" * len(TOP)
    refused(storage, files, DiffError)


def test_an_error_leaves_what_was_there(storage: Storage) -> None:
    storage.images.load(io.BytesIO(archive_of(dict(docker(image(BOTTOM), "good")))))
    files = docker(MADE, "good")
    files[f"{1:064x}/layer.tar"] = b"damaged"
    with pytest.raises(DiffError, match=f"{1:064x}/layer.tar"):
        storage.images.load(io.BytesIO(archive_of(dict(files))))
    assert storage.images.get("good").id == image(BOTTOM).id
    assert len(storage.layers.ls()) == 1
    storage.images.prune(all=True)
    nothing_left(storage)


# What is no image


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "holds no image"),
        (b"no tar at all" * 100, "no sound tar"),
        (tar(etc_passwd="root"), "image import"),
        ({"manifest.json": b"{}"}, "no list"),
        ({"manifest.json": b"[]"}, "lists no image"),
        ({"manifest.json": b"[1]"}, "no object"),
        ({"manifest.json": b"[{}]"}, "Config is missing"),
        ({"manifest.json": b'[{"Config": "x.json", "Layers": []}]'}, "holds no x.json"),
        ({"manifest.json": b"\0"}, "no JSON"),
        ({"index.json": b"{}"}, "no index"),
        ({"index.json": index()}, "lists no image"),
        ({"index.json": b'{"manifests": [{}]}'}, "digest is missing"),
        ({"repositories": b"{}"}, "lists no image"),
        ({"repositories": b'{"a": {"b": "../x"}}'}, "no id"),
    ],
)
def test_no_image(storage: Storage, source: Any, words: str) -> None:
    error = refused(storage, source)
    assert words in f"{error} {error.resolution}"


def test_an_empty_directory_and_no_directory(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(storage, tmp_path / "empty", words="holds no image")
    with pytest.raises(FileNotFoundError):
        storage.images.load(tmp_path / "nothing")


def test_what_the_manifest_and_the_config_say_of_layers_differs(storage: Storage) -> None:
    files = docker(MADE)
    (listed,) = json.loads(files["manifest.json"])
    listed["Layers"].pop()
    refused(storage, {**files, "manifest.json": as_json([listed])}, words="lists 1 layers")
    one_less = MADE._replace(files=MADE.files[:1])
    refused(storage, layout_of(one_less), words="lists 1 layers")


def test_more_steps_than_layers(storage: Storage) -> None:
    made = image(BOTTOM, history=[{"created_by": "a"}, {"created_by": "b"}])
    refused(storage, docker(made), words="speaks of 2 layers")


def test_schema_1(storage: Storage) -> None:
    old = as_json({"schemaVersion": 1, "name": "x", "fsLayers": [], "history": []})
    files = layout([descriptor("application/vnd.docker.distribution.manifest.v1+json", old)], old)
    error = refused(storage, files, UnsupportedImageError, "schema 1")
    assert "skopeo" in (error.resolution or "")


@pytest.mark.parametrize("form", [docker, layout_of])
def test_another_platform_only(storage: Storage, form: Callable[..., dict[str, bytes]]) -> None:
    made = image(BOTTOM, architecture="mips")
    error = refused(storage, form(made), UnsupportedImageError, "for linux/mips and not for")
    assert error.resolution == "name one that is there: --platform linux/mips"


def test_layers_that_are_elsewhere_or_encrypted(storage: Storage) -> None:
    for kind, words in (
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "elsewhere"),
        (f"{OCI}.layer.v1.tar+gzip+encrypted", "encrypted"),
    ):
        manifest = as_json(
            {
                "config": descriptor(f"{OCI}.config.v1+json", MADE.config),
                "layers": [descriptor(kind, b"x"), descriptor(kind, b"y")],
            }
        )
        files = layout([descriptor(f"{OCI}.manifest.v1+json", manifest)], MADE.config, manifest)
        refused(storage, files, UnsupportedImageError, words)


def test_an_artifact_that_is_no_image(storage: Storage) -> None:
    manifest = as_json({"config": descriptor("application/vnd.cncf.helm.config.v1+json", b"{}")})
    files = layout([descriptor(f"{OCI}.manifest.v1+json", manifest)], b"{}", manifest)
    refused(storage, files, UnsupportedImageError, "helm")


@pytest.mark.parametrize("name", ["Thing:1", "a:b:c", "../x", "a@sha256:12", "x" * 300])
def test_names_that_are_none(storage: Storage, name: str) -> None:
    refused(storage, docker(MADE, name), words="manifest.json in .*no name of an image")
    refused(storage, layout_of(MADE, name), words="index.json in .*no name of an image")


# Ways out


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../etc/passwd", "a/../../b", "..", "/", "", "x\0y", "\ud800", "x" * 5000],
)
@pytest.mark.parametrize("key", ["Config", "Layers"])
def test_paths_that_lead_out_of_the_archive(
    storage: Storage, tmp_path: Path, path: str, key: str
) -> None:
    files = docker(MADE)
    (listed,) = json.loads(files["manifest.json"])
    listed[key] = path if key == "Config" else [path, path]
    files["manifest.json"] = as_json([listed])
    refused(storage, files, words="speaks of a file|is missing")
    error = refused(storage, write(files, tmp_path / "directory"), words="speaks of|is missing")
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../../etc/passwd", "nothing", "layer.tar", "../loop/layer.tar", ".."]
)
def test_links_that_lead_out_of_the_archive_or_nowhere(storage: Storage, target: str) -> None:
    files: dict[str, Any] = dict(docker(MADE))
    files[f"{0:064x}/layer.tar"] = target
    files["loop/layer.tar"] = f"../{0:064x}/layer.tar"
    refused(storage, files, words="speaks of a file|leads to none")


def test_what_is_no_regular_file(storage: Storage) -> None:
    for kind in (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        files = docker(MADE)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in files.items():
                one = tarfile.TarInfo(name)
                if name.endswith("layer.tar"):
                    one.type = kind
                else:
                    one.size = len(data)
                archive.addfile(one, io.BytesIO(data))
        refused(storage, buffer.getvalue(), words="no regular file")


def test_a_layout_whose_files_lead_elsewhere(storage: Storage, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_bytes(MADE.config)
    directory = write(layout_of(MADE, NAME), tmp_path / "layout")
    victim = directory / blob(MADE.config)
    victim.unlink()
    victim.symlink_to(outside)
    refused(storage, directory, words="leads out of it")
    victim.unlink()
    os.mkfifo(victim)
    refused(storage, directory, words="no regular file")


def test_entries_with_names_outside_are_only_names(storage: Storage, tmp_path: Path) -> None:
    files = {"../../left-the-archive": b"x", "/left-the-archive": b"x", **docker(MADE, "a")}
    storage.images.load(io.BytesIO(archive_of(files)))
    assert storage.images.get("a").id == MADE.id
    assert not list(tmp_path.rglob("left-the-archive"))
    assert not (tmp_path.parent / "left-the-archive").exists()
    assert not Path("/left-the-archive").exists()


# Too much


def test_a_document_without_end_is_not_read(storage: Storage, tmp_path: Path) -> None:
    for name in ("manifest.json", "index.json", "repositories"):
        directory = tmp_path / name
        directory.mkdir()
        with (directory / name).open("wb") as file:
            file.truncate(1 << 30)
        refused(storage, directory, words="are let in")
    made = image(BOTTOM, author="x" * (5 << 20))
    refused(storage, layout_of(made), words="are let in")


def test_indexes_in_indexes_have_an_end(storage: Storage) -> None:
    blobs = [MADE.manifest]
    kind = f"{OCI}.manifest.v1+json"
    for _ in range(20):
        blobs.append(index(descriptor(kind, blobs[-1])))
        kind = f"{OCI}.index.v1+json"
    files = layout([descriptor(kind, blobs[-1])], *MADE.blobs, *blobs)
    refused(storage, files, words="more than 8")


def test_more_layers_than_a_chain_may_have(storage: Storage) -> None:
    made = image(*[BOTTOM] * 129)
    refused(storage, layout_of(made), DepthExceededError, "129 layers")


def test_more_files_than_an_image_has(storage: Storage, tmp_path: Path) -> None:
    header = tarfile.TarInfo("x").tobuf()
    path = tmp_path / "many.tar"
    path.write_bytes(header * 100_001)
    refused(storage, path, words="more than 100000 files")


def test_sizes_beyond_the_file(tmp_path: Path) -> None:
    one = tarfile.TarInfo("x")
    one.size = 1 << 40
    path = tmp_path / "lies.tar"
    path.write_bytes(one.tobuf() + bytes(1024))
    with path.open("rb") as file, pytest.raises(MalformedImageError, match="breaks off"):
        ArchiveFiles(file.fileno(), "lies.tar")


def test_a_full_disk(on_filesystem: Callable[[str], Path], tmp_path: Path) -> None:
    need("mount", "tmpfs")
    directory = on_filesystem("tmpfs")
    with Storage.open(
        root=directory / "root", run_root=tmp_path / "run", driver="vfs-copy"
    ) as storage:
        large = os.urandom(1 << 20)
        made = image(BOTTOM, tar(large=large), files=(compressed(BOTTOM), tar(large=large)))
        path = write(layout_of(made, NAME), tmp_path / "large.tar")
        free = os.statvfs(directory)
        filler = directory / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (free.f_bavail * free.f_frsize) - (1 << 19))
        with pytest.raises(OSError, match="No space"):
            storage.images.load(path)
        filler.unlink()
        nothing_left(storage)
        assert storage.images.load(path)[0].id == made.id
