"""Images in a store: in, seen, named, out as they came, and gone without a trace."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
from capabilities import need
from image_archives import (
    HERE,
    OCI,
    Made,
    compressed,
    descriptor,
    digest,
    docker,
    entry,
    image,
    index,
    layout,
    layout_of,
    read,
    write,
)
from image_archives import (
    tar as archive_of,
)
from stored import DRIVERS, left_on_disk, release, tar

from storagedrivers.archive.compression import zstd_module
from storagedrivers.errors import (
    AlreadyExistsError,
    CorruptStoreError,
    InUseError,
    InvalidReferenceError,
    NotFoundError,
    StoreError,
    UnsupportedImageError,
)
from storagedrivers.storage import Storage
from storagedrivers.stores.images import ImageStore
from storagedrivers.stores.loading import LayerProgress

BOTTOM, TOP = tar(etc_motd="hello\n", bin_sh="#!"), tar(etc_motd="changed\n", new="1")
TWO = image(BOTTOM, TOP)
SQUEEZED = image(BOTTOM, TOP, files=(compressed(BOTTOM), compressed(TOP)))
NAME = "docker.io/library/thing:1"


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with Storage.open(
        root=tmp_path / "root", run_root=tmp_path / "run", driver="vfs-copy"
    ) as opened:
        yield opened
        opened.images.prune(all=True)
        assert opened.images.ls() == []
        assert opened.layers.ls() == []
        assert left(opened) == []
        release(opened.run_root)


@pytest.fixture
def images(storage: Storage) -> ImageStore:
    return storage.images


def left(storage: Storage) -> list[str]:
    """What is on the disk of a store without images."""
    found = left_on_disk(storage)
    for directory in ("tmp", "images/sha256"):
        path = storage.root / directory
        found += [f"{directory}/{name}" for name in (os.listdir(path) if path.exists() else [])]
    return found


def exported(images: ImageStore, reference: str) -> dict[str, bytes]:
    out = io.BytesIO()
    images.export(reference, out.write)
    return read(out.getvalue())


def saved(images: ImageStore, *references: str, form: str = "docker") -> dict[str, bytes]:
    out = io.BytesIO()
    images.save(references, out.write, form=form)
    return read(out.getvalue())


# In


def forms(tmp_path: Path) -> dict[str, tuple[Any, Made]]:
    """The same image in every form that there is."""
    old = docker(TWO, "thing:1")
    linked: dict[str, Any] = {**old, f"{'f' * 64}/layer.tar": f"../{0:064x}/layer.tar"}
    linked["manifest.json"] = old["manifest.json"].replace(
        f"{0:064x}/layer.tar".encode(), f"{'f' * 64}/layer.tar".encode()
    )
    both = {**layout_of(TWO), "manifest.json": docker_of_layout(TWO, "thing:1")}
    return {
        "docker": (write(old, tmp_path / "docker.tar"), TWO),
        "docker, linked": (io.BytesIO(archive_of(linked)), TWO),
        "docker, as a stream": (io.BytesIO(archive_of(dict(old))), TWO),
        "docker, compressed": (io.BytesIO(compressed(archive_of(dict(old)))), TWO),
        "docker 25": (write(both, tmp_path / "both.tar"), TWO),
        "layout": (write(layout_of(SQUEEZED, NAME), tmp_path / "layout"), SQUEEZED),
        "layout in a tar": (write(layout_of(SQUEEZED, NAME), tmp_path / "oci.tar"), SQUEEZED),
        "layout in a stream": (
            io.BytesIO(archive_of(dict(layout_of(SQUEEZED, NAME)))),
            SQUEEZED,
        ),
    }


def docker_of_layout(made: Made, *names: str) -> bytes:
    path = "blobs/sha256/{}".format
    value = {
        "Config": path(made.id[7:]),
        "RepoTags": list(names),
        "Layers": [path(digest(file)[7:]) for file in made.files],
    }
    return json.dumps([value]).encode()


@pytest.mark.parametrize(
    "form",
    [
        *("docker", "docker, linked", "docker, as a stream", "docker, compressed", "docker 25"),
        *("layout", "layout in a tar", "layout in a stream"),
    ],
)
def test_every_form_gives_the_same_image(images: ImageStore, tmp_path: Path, form: str) -> None:
    source, made = forms(tmp_path)[form]
    (loaded,) = images.load(source)
    assert loaded.id == made.id
    assert loaded.names == (NAME,)
    has_manifest = form == "docker 25" or not form.startswith("docker")
    assert loaded.manifest == (digest(made.manifest) if has_manifest else None)
    assert (loaded.source, loaded.parent, loaded.init) == ("load", None, None)
    assert loaded.created == 1706933106.7
    assert images.config(loaded).raw == made.config
    assert [one.diff_id for one in images.layers.image_layers(loaded.layer)] == made.diff_ids
    assert images.size(loaded) == len("hello\n#!changed\n1")
    assert exported(images, "thing:1") == {
        "bin/sh": b"#!", "etc/motd": b"changed\n", "new": b"1",
    }  # fmt: skip
    assert images.get("thing:1") == loaded == images.ls()[0]


@pytest.mark.parametrize("driver", DRIVERS)
def test_with_every_driver(
    on_filesystem: Callable[[str], Path], tmp_path: Path, driver: str
) -> None:
    need("mount")
    root = on_filesystem("btrfs" if driver == "btrfs-snapshot" else "ext4") / "store"
    source = write(layout_of(SQUEEZED, NAME), tmp_path / "layout")
    with Storage.open(root=root, run_root=tmp_path / "run", driver=driver) as storage:
        (loaded,) = storage.images.load(str(source))
        with storage.images.mounted("thing:1") as path:
            assert (path / "etc/motd").read_text() == "changed\n"
            with pytest.raises(InUseError, match="mounted"):
                storage.images.remove("thing:1", force=True)
            with pytest.raises(OSError, match="Read-only"):
                (path / "x").write_text("")
        assert saved(storage.images, loaded.id)["index.json"]
        assert storage.images.remove("thing:1").deleted == (loaded.id,)
        assert storage.layers.ls() == []
        release(storage.run_root)
        assert left(storage) == []


def test_zstd_and_skippable_frames(images: ImageStore) -> None:
    zstd = zstd_module()
    chunked = (
        b"\x50\x2a\x4d\x18\x04\x00\x00\x00toc!".join(
            zstd.compress(BOTTOM[at : at + 4000]) for at in range(0, len(BOTTOM), 4000)
        )
        + b"\x51\x2a\x4d\x18\x00\x00\x00\x00"
    )
    made = image(BOTTOM, files=(chunked,))
    (loaded,) = images.load(io.BytesIO(archive_of(dict(layout_of(made)))))
    assert saved(images, loaded.id)[f"blobs/sha256/{digest(chunked)[7:]}"] == chunked


def test_an_archive_of_the_oldest_kind(images: ImageStore) -> None:
    one, two = "1" * 64, "2" * 64
    step = {"created": "2014-01-01T00:00:00Z", "os": "linux", "architecture": HERE.architecture}
    files = {
        "repositories": json.dumps({"old/thing": {"a": two, "b": two}}).encode(),
        f"{one}/json": json.dumps({"id": one, **step}).encode(),
        f"{one}/layer.tar": BOTTOM,
        f"{two}/json": json.dumps(
            {"id": two, "parent": one, **step, "config": {"Cmd": ["x"]},
             "container_config": {"Cmd": ["/bin/sh", "-c", "make"]}}
        ).encode(),
        f"{two}/layer.tar": TOP,
    }  # fmt: skip
    (loaded,) = images.load(io.BytesIO(archive_of(dict(files))))
    assert loaded.names == ("docker.io/old/thing:a", "docker.io/old/thing:b")
    assert images.config(loaded).config == {"Cmd": ["x"]}
    assert [one.created_by for one in images.history("old/thing:a")] == ["/bin/sh -c make", ""]
    assert list(images.config(loaded).diff_ids) == TWO.diff_ids


def test_an_image_without_layers(images: ImageStore) -> None:
    made = image(history=[{"created_by": "ENV", "empty_layer": True}])
    (loaded,) = images.load(io.BytesIO(archive_of(dict(layout_of(made, NAME)))))
    assert (loaded.layer, images.size(loaded), exported(images, loaded.id)) == (None, 0, {})
    assert images.history(NAME)[0].empty
    with pytest.raises(StoreError, match="no layers"), images.mounted(NAME):
        pass
    again = saved(images, NAME)
    assert again[f"blobs/sha256/{made.id[7:]}"] == made.config


def test_a_layer_that_is_there_is_not_read(images: ImageStore, tmp_path: Path) -> None:
    path = write(docker(TWO, "thing:1"), tmp_path / "one.tar")
    images.load(path)
    other = image(BOTTOM, TOP, config={"Cmd": ["other"]})
    files = docker(other, "thing:2")
    for name in files:
        if name.endswith("layer.tar"):
            files[name] = bytes(len(files[name]))  # whoever reads it notices
    told: list[LayerProgress] = []
    (loaded,) = images.load(write(files, tmp_path / "two.tar"), progress=told.append)
    assert [(one.layer, one.state) for one in told] == [
        (diff_id, "present") for diff_id in TWO.diff_ids
    ]
    assert loaded.layer == images.get("thing:1").layer
    told.clear()
    images.load(path, name="thing:3", progress=told.append)
    assert {one.state for one in told} == {"present"}
    assert images.get("thing:3").id == TWO.id


def test_progress_per_layer(images: ImageStore, tmp_path: Path) -> None:
    told: list[LayerProgress] = []
    images.load(write(docker(TWO), tmp_path / "one.tar"), progress=told.append)
    for diff_id, data in zip(TWO.diff_ids, TWO.layers, strict=True):
        mine = [one for one in told if one.layer == diff_id]
        assert {one.total for one in mine} == {len(data)}
        assert [one.state for one in mine][-1] == "done"
        assert {one.state for one in mine[:-1]} == {"adding"}
        assert mine[-1].done == len(data)


def test_an_interrupted_load_leaves_no_image_and_goes_on(
    storage: Storage, images: ImageStore, tmp_path: Path
) -> None:
    path = write(layout_of(SQUEEZED, NAME), tmp_path / "oci.tar")

    def interrupt(one: LayerProgress) -> None:
        if (one.layer, one.state) == (TWO.diff_ids[1], "adding"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images.load(path, progress=interrupt)
    assert images.ls() == []
    assert os.listdir(storage.root / "tmp") == []
    assert [layer.diff_id for layer in storage.layers.ls()] == TWO.diff_ids[:1]
    told: list[LayerProgress] = []
    images.load(path, progress=told.append)
    assert [one.state for one in told if one.layer == TWO.diff_ids[0]] == ["present"]
    assert saved(images, NAME)[f"blobs/sha256/{digest(SQUEEZED.files[0])[7:]}"]


def test_a_killed_load_goes_on(storage: Storage, tmp_path: Path) -> None:
    path = write(layout_of(SQUEEZED, NAME), tmp_path / "oci.tar")
    code = f"""
import os, signal
from storagedrivers.storage import Storage
def die(one):
    if one.layer == {TWO.diff_ids[1]!r}:
        os.kill(os.getpid(), signal.SIGKILL)
with Storage.open(root={str(storage.root)!r}, run_root={str(storage.run_root)!r}) as storage:
    storage.images.load({str(path)!r}, progress=die)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -SIGKILL
    with Storage.open(root=storage.root, run_root=storage.run_root) as again:
        assert again.images.ls() == []
        assert [layer.diff_id for layer in again.layers.ls()] == TWO.diff_ids[:1]
        again.images.load(path)
        again.gc()


def test_several_images_and_names(images: ImageStore) -> None:
    other = image(BOTTOM, config={})
    entries = [entry(TWO, NAME), entry(TWO, "host:5000/x:y"), entry(other)]
    blobs = (*TWO.blobs, *other.blobs)
    loaded = images.load(io.BytesIO(archive_of(dict(layout(entries, *blobs)))))
    assert [one.id for one in loaded] == [TWO.id, other.id]
    assert loaded[0].names == (NAME, "host:5000/x:y")
    assert loaded[1].names == ()
    assert len(images.layers.ls()) == 2
    with pytest.raises(StoreError, match="2 images"):
        images.load(io.BytesIO(archive_of(dict(layout(entries, *blobs)))), name="x")


@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        ({"org.opencontainers.image.ref.name": "latest"}, ()),
        ({"org.opencontainers.image.ref.name": "thing:1"}, (NAME,)),
        ({"org.opencontainers.image.ref.name": "localhost/x"}, ("localhost/x:latest",)),
        ({"io.containerd.image.name": "thing:1", "org.opencontainers.image.ref.name": "1"},
         (NAME,)),
    ],
)  # fmt: skip
def test_names_in_annotations(
    images: ImageStore, annotations: dict[str, str], names: tuple[str, ...]
) -> None:
    files = layout([{**entry(TWO), "annotations": annotations}], *TWO.blobs)
    (loaded,) = images.load(io.BytesIO(archive_of(dict(files))))
    assert loaded.names == names


def test_the_platform_is_chosen_through_nested_indexes(images: ImageStore) -> None:
    arm = image(TOP, architecture="arm64", variant="v8")
    here = {"os": "linux", "architecture": HERE.architecture}
    inner = index(
        {**entry(TWO, platform={"os": "unknown", "architecture": "unknown"}),
         "annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
        entry(arm, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
        entry(TWO, platform=here),
    )  # fmt: skip
    outer = index(descriptor(f"{OCI}.index.v1+json", inner))
    top = descriptor(f"{OCI}.index.v1+json", outer, annotations={"io.containerd.image.name": NAME})
    source = archive_of(dict(layout([top], outer, inner, *TWO.blobs, *arm.blobs)))
    assert images.load(io.BytesIO(source))[0].id == TWO.id
    assert images.load(io.BytesIO(source), platform="linux/arm64")[0].id == arm.id
    assert images.get("thing:1").id == arm.id
    with pytest.raises(UnsupportedImageError, match="not for linux/s390x") as caught:
        images.load(io.BytesIO(source), platform="linux/s390x")
    assert "--platform" in (caught.value.resolution or "")


def test_entries_of_one_name_are_one_image_for_several_platforms(images: ImageStore) -> None:
    arm = image(TOP, architecture="arm64")
    entries = [
        entry(arm, NAME, platform={"os": "linux", "architecture": "arm64"}),
        entry(TWO, NAME, platform={"os": "linux", "architecture": HERE.architecture}),
    ]
    source = archive_of(dict(layout(entries, *TWO.blobs, *arm.blobs)))
    assert [one.id for one in images.load(io.BytesIO(source))] == [TWO.id]


# Out


@pytest.mark.parametrize("made", [TWO, SQUEEZED], ids=["plain", "compressed"])
@pytest.mark.parametrize("form", ["docker", "oci"])
def test_what_came_in_goes_out(images: ImageStore, made: Made, form: str) -> None:
    images.load(io.BytesIO(archive_of(dict(layout_of(made, NAME)))))
    out = saved(images, "thing:1", form=form)
    for blob in made.blobs:
        assert out[f"blobs/sha256/{digest(blob)[7:]}"] == blob
    (listed,) = json.loads(out["index.json"])["manifests"]
    assert listed["digest"] == digest(made.manifest)
    assert listed["annotations"]["io.containerd.image.name"] == NAME
    assert ("manifest.json" in out) == (form == "docker")
    if form == "docker":
        (old,) = json.loads(out["manifest.json"])
        assert old["RepoTags"] == ["thing:1"]
        assert out[old["Config"]] == made.config
        assert [out[one] for one in old["Layers"]] == list(made.files)


def test_the_same_images_give_the_same_bytes(images: ImageStore) -> None:
    images.load(io.BytesIO(archive_of(dict(docker(TWO, "thing:1")))))
    one, two = io.BytesIO(), io.BytesIO()
    images.save(["thing:1"], one.write)
    images.remove("thing:1")
    images.load(io.BytesIO(one.getvalue()))
    images.save(["thing:1"], two.write)
    assert one.getvalue() == two.getvalue()


def test_what_images_share_is_written_once(images: ImageStore) -> None:
    other = image(BOTTOM, config={})
    for made, name in ((TWO, "a"), (other, "b")):
        images.load(io.BytesIO(archive_of(dict(docker(made, name)))))
    images.tag("a", "c")
    out = io.BytesIO()
    images.save(["a", "b", "c"], out.write)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        names = archive.getnames()
    assert len(names) == len(set(names))
    old = json.loads(read(out.getvalue())["manifest.json"])
    assert [one["RepoTags"] for one in old] == [["a:latest", "c:latest"], ["b:latest"]]


def test_a_layout_as_a_directory(images: ImageStore, tmp_path: Path) -> None:
    images.load(io.BytesIO(archive_of(dict(layout_of(SQUEEZED, NAME)))))
    images.save_layout(["thing:1"], tmp_path / "out")
    images.remove("thing:1")
    assert images.load(tmp_path / "out")[0].manifest == digest(SQUEEZED.manifest)
    with pytest.raises(AlreadyExistsError):
        images.save_layout(["thing:1"], tmp_path / "out")


def test_a_damaged_file_is_noticed_when_it_is_read(images: ImageStore) -> None:
    (loaded,) = images.load(io.BytesIO(archive_of(dict(layout_of(SQUEEZED, NAME)))))
    path = Path(images.blobs.path(digest(SQUEEZED.files[1])))
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptStoreError, match="damaged"):
        saved(images, NAME)
    Path(images.blobs.path(loaded.id)).unlink()
    with pytest.raises(CorruptStoreError, match="gone"):
        images.config(loaded)


def test_an_unknown_form(images: ImageStore) -> None:
    with pytest.raises(StoreError, match="no form"):
        saved(images, form="zip")


# import, history


def test_a_root_filesystem_becomes_an_image(images: ImageStore) -> None:
    made = images.import_(
        io.BytesIO(gzip.compress(BOTTOM)), name="thing:1", changes=['CMD ["sh"]'], message="why"
    )
    config = images.config(made)
    assert (made.source, made.names, made.manifest) == ("import", (NAME,), None)
    assert config.config == {"Cmd": ["sh"]}
    assert config.diff_ids == (digest(BOTTOM),)
    assert config.architecture == HERE.architecture
    (step,) = images.history("thing:1")
    assert (step.id, step.comment, step.size, step.tags) == (made.id, "why", 8, (NAME,))
    assert exported(images, made.id)["bin/sh"] == b"#!"


def test_a_bad_change_is_noticed_before_the_tar_is_read(images: ImageStore) -> None:
    stream = io.BytesIO(BOTTOM)
    with pytest.raises(StoreError, match="no change"):
        images.import_(stream, changes=["NONSENSE"])
    assert stream.tell() == 0


def test_history_is_told_as_docker_tells_it(images: ImageStore) -> None:
    steps = [
        {"created_by": "ADD", "created": "2020-01-01T00:00:00Z"},
        {"created_by": "ENV", "empty_layer": True, "comment": "c"},
        {"created_by": "RUN"},
    ]
    made = image(BOTTOM, TOP, history=steps)
    (loaded,) = images.load(io.BytesIO(archive_of(dict(docker(made, "thing:1")))))
    found = images.history(loaded.id)
    assert [one.created_by for one in found] == ["RUN", "ENV", "ADD"]
    assert [one.id for one in found] == [loaded.id, None, None]
    assert [one.size for one in found] == [9, 0, 8]
    assert [one.empty for one in found] == [False, True, False]
    assert (found[1].comment, found[2].created) == ("c", "2020-01-01T00:00:00Z")


# Names


def test_references(images: ImageStore) -> None:
    (loaded,) = images.load(io.BytesIO(archive_of(dict(layout_of(TWO, NAME)))))
    manifest = digest(TWO.manifest)
    for reference in (
        "thing:1", "docker.io/thing:1", NAME, loaded.id, loaded.id[7:], loaded.id[7:15],
        loaded.id[:15], f"thing@{manifest}", f"thing:1@{manifest}", manifest,
    ):  # fmt: skip
        assert images.get(reference) == loaded
    for reference in ("thing", "thing:2", f"other@{manifest}", "sha256:" + "0" * 64):
        with pytest.raises(NotFoundError, match="there is no image"):
            images.get(reference)
    with pytest.raises(InvalidReferenceError):
        images.get("no image!")


def test_an_ambiguous_prefix_names_the_candidates(images: ImageStore) -> None:
    made: dict[str, Made] = {}
    while True:  # until two ids begin with the same digit: with the 17th at the latest
        one = image(history=[], author=str(len(made)))
        images.load(io.BytesIO(archive_of(dict(layout_of(one)))))
        if other := made.get(one.id[7]):
            break
        made[one.id[7]] = one
    with pytest.raises(NotFoundError) as caught:
        images.get(f"sha256:{one.id[7]}")
    assert one.id in str(caught.value)
    assert other.id in str(caught.value)


def test_a_name_wins_over_a_prefix(images: ImageStore) -> None:
    (first,) = images.load(io.BytesIO(archive_of(dict(docker(TWO)))))
    (second,) = images.load(io.BytesIO(archive_of(dict(docker(image(BOTTOM))))))
    images.tag(second.id, first.id[7:11] + ":latest")
    assert images.get(first.id[7:11]).id == second.id


def test_a_moved_name_leaves_the_old_image_without(images: ImageStore) -> None:
    (first,) = images.load(io.BytesIO(archive_of(dict(docker(TWO, "thing:1")))))
    (second,) = images.load(io.BytesIO(archive_of(dict(docker(image(BOTTOM), "thing:1")))))
    assert images.get(first.id).names == ()
    assert second.names == (NAME,)
    assert images.tag(first.id, "thing:1").names == (NAME,)
    assert images.get(second.id).names == ()
    images.untag("thing:1")
    with pytest.raises(NotFoundError):
        images.untag("thing:1")
    with pytest.raises(InvalidReferenceError, match="digest"):
        images.tag(first.id, f"thing@{digest(b'')}")


def test_the_same_image_with_another_manifest(storage: Storage, images: ImageStore) -> None:
    images.load(io.BytesIO(archive_of(dict(docker(TWO, "thing:1")))))
    assert len(os.listdir(storage.root / "images/sha256")) == 1
    (squeezed,) = images.load(io.BytesIO(archive_of(dict(layout_of(SQUEEZED, "thing:2")))))
    assert squeezed.id == TWO.id
    assert squeezed.names == (NAME, "docker.io/library/thing:2")
    assert squeezed.manifest == digest(SQUEEZED.manifest)
    assert len(os.listdir(storage.root / "images/sha256")) == 4
    (plain,) = images.load(io.BytesIO(archive_of(dict(layout_of(TWO)))))
    assert plain.manifest == digest(TWO.manifest)
    assert len(os.listdir(storage.root / "images/sha256")) == 2


# Removing


def test_a_name_goes_then_the_image_with_the_last_one(images: ImageStore) -> None:
    (loaded,) = images.load(io.BytesIO(archive_of(dict(docker(TWO, "thing:1", "thing:2")))))
    with pytest.raises(InUseError, match="several names: thing:1, thing:2"):
        images.remove(loaded.id)
    assert images.remove("thing:1").untagged == (NAME,)
    removed = images.remove("thing:2")
    assert removed.deleted == (loaded.id,)
    assert len(removed.layers) == 2
    assert removed.size == len("hello\n#!changed\n1")
    images.load(io.BytesIO(archive_of(dict(docker(TWO, "thing:1", "thing:2")))))
    assert len(images.remove(loaded.id, force=True).untagged) == 2
    with pytest.raises(NotFoundError):
        images.remove(loaded.id)


def test_layers_stay_as_long_as_another_image_has_them(
    storage: Storage, images: ImageStore
) -> None:
    for made, name in ((SQUEEZED, "a"), (image(BOTTOM, files=SQUEEZED.files[:1]), "b")):
        images.load(io.BytesIO(archive_of(dict(layout_of(made, f"docker.io/library/{name}:1")))))
    held = storage.layers.add(io.BytesIO(TOP), parent=images.get("b:1").layer)
    assert len(storage.layers.ls()) == 2
    assert images.remove("a:1").layers == ()  # someone added the upper one for its own sake
    assert images.blobs.has(digest(SQUEEZED.files[0]), len(SQUEEZED.files[0]))
    assert not os.path.exists(images.blobs.path(digest(SQUEEZED.files[1])))
    storage.layers.remove(held.id)
    assert exported(images, "b:1")["bin/sh"] == b"#!"


def test_an_image_that_a_container_has_stays(storage: Storage, images: ImageStore) -> None:
    images.load(io.BytesIO(archive_of(dict(docker(TWO, "thing:1")))))
    container = storage.containers.create("thing:1", name="user")
    for reference in ("thing:1", images.get("thing:1").id):
        with pytest.raises(InUseError, match="container user"):
            images.remove(reference)
    assert images.prune(all=True).deleted == ()
    assert images.remove("thing:1", force=True).deleted == (TWO.id,)
    with storage.containers.mounted(container.id) as path:
        assert (path / "etc/motd").read_text() == "changed\n"
    storage.containers.remove("user")


def test_an_image_that_lost_something_is_mended_by_loading_it_again(
    storage: Storage, images: ImageStore
) -> None:
    """With new layers; containers keep the old ones for as long as they live."""
    archive = archive_of(dict(docker(TWO, "thing:1")))
    (image,) = images.load(io.BytesIO(archive))
    storage.containers.create("thing:1", name="user")
    lower, upper = storage.layers.image_layers(image.layer)
    kept = Path(storage.layers.kept_path(lower.id))
    kept.unlink()
    assert [one.finding.code for one in storage.repair()] == ["missing-kept"]
    (again,) = images.load(io.BytesIO(archive))
    assert (again.id, again.names) == (image.id, image.names)
    layers = [one.id for one in storage.layers.image_layers(again.layer)]
    assert not {lower.id, upper.id} & set(layers)
    assert saved(images, "thing:1")[f"blobs/sha256/{TWO.diff_ids[0][7:]}"] == BOTTOM
    storage.containers.remove("user")
    assert [one.id for one in storage.layers.ls()] == layers


def test_prune(images: ImageStore) -> None:
    (named,) = images.load(io.BytesIO(archive_of(dict(docker(TWO, "thing:1")))))
    (nameless,) = images.load(io.BytesIO(archive_of(dict(docker(image(TOP))))))
    assert images.prune(dry_run=True).deleted == (nameless.id,)
    assert len(images.ls()) == 2
    pruned = images.prune()
    assert (pruned.deleted, pruned.size) == ((nameless.id,), 9)
    assert images.prune(all=True).deleted == (named.id,)


def test_steps_of_a_build_go_with_it(images: ImageStore) -> None:
    with images.layers.leased() as lease:
        below = images.layers.add(io.BytesIO(BOTTOM), held=False, lease=lease)
        step = images.add(image(BOTTOM).config, below.id, source="build", lease=lease)
        above = images.layers.add(io.BytesIO(TOP), parent=below.id, held=False, lease=lease)
        done = images.add(
            TWO.config, above.id, source="build", name="thing:1", parent=step.id, lease=lease
        )
    assert images.prune().deleted == ()
    assert [one.id for one in images.history("thing:1")] == [done.id, step.id]
    kept = images.remove("thing:1", prune=False)
    assert kept.deleted == (done.id,)
    assert images.prune().deleted == (step.id,)


def test_an_image_is_not_added_with_other_layers_than_its_config_says(images: ImageStore) -> None:
    layer = images.layers.add(io.BytesIO(BOTTOM))
    with pytest.raises(StoreError, match="DiffIDs"):
        images.add(TWO.config, layer.id, source="commit")
    again = images.add(image(BOTTOM).config, layer.id, source="commit", name="a")
    assert images.add(image(BOTTOM).config, layer.id, source="commit", name="b") == images.get(
        again.id
    )
    images.prune(all=True)
    images.layers.remove(layer.id)
