"""What Docker, containerd, skopeo, umoci and buildah write loads, and is the same image."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from interop.making import (
    COMMITTED,
    FILESYSTEMS,
    MAKERS,
    NAME,
    Peers,
    config_of,
    tree_differences,
    unpacked,
    without_init,
)

from storagedrivers.storage import Storage
from storagedrivers.testing.trees import read_tree

_TARGETS = 1200
"""Bytes that the targets of all symlinks in a layer take, at most."""


@pytest.mark.parametrize("maker", MAKERS)
def test_an_archive_loads_as_the_image_that_it_holds(
    maker: str, peers: Peers, storage: Storage, tmp_path: Path
) -> None:
    made = peers.made(maker)
    loaded = storage.images.load(str(made.path))
    (image,) = [one for one in loaded if one.id == made.id]
    config = storage.images.config(image)
    assert config.diff_ids == made.diff_ids
    assert json.loads(config.raw) == config_of(made, peers)
    assert set(made.names) <= set(image.names)
    if made.manifest:
        assert image.manifest == made.manifest
    with storage.images.mounted(image.id) as root:
        assert tree_differences(peers.tree(made.seen, tmp_path), read_tree(root)) == []


@pytest.mark.parametrize("storage", FILESYSTEMS, indirect=True)
def test_the_tree_is_the_one_that_docker_exports(
    peers: Peers, storage: Storage, tmp_path: Path
) -> None:
    storage.images.load(str(peers.made("docker save").path))
    with storage.images.mounted(NAME) as root:
        ours = without_init(read_tree(root))
    theirs = without_init(peers.docker_tree(NAME, tmp_path / "exported"))
    assert len(theirs) > 60
    assert tree_differences(theirs, ours) == []


def test_images_of_one_archive_share_their_layers(peers: Peers, storage: Storage) -> None:
    made = peers.made("docker save, two images")
    loaded = storage.images.load(str(made.path))
    assert {name for image in loaded for name in image.names} == {NAME, COMMITTED}
    assert len(storage.layers.ls()) == len(made.diff_ids)
    again = storage.images.load(str(peers.made("docker save").path))
    assert [image.id for image in again] == [storage.images.get(NAME).id]
    assert len(storage.layers.ls()) == len(made.diff_ids)


@pytest.mark.parametrize("options", [(), ("-z",), ("--use-compress-program=zstd",)])
def test_a_layout_loads_as_a_tar_too(
    options: tuple[str, ...], peers: Peers, storage: Storage, tmp_path: Path
) -> None:
    made = peers.made("skopeo, OCI layout, zstd")
    tar = tmp_path / "layout.tar"
    subprocess.run(["tar", *options, "-C", made.path, "-cf", tar, "."], check=True)
    (image,) = storage.images.load(str(tar))
    assert (image.id, image.manifest) == (made.id, made.manifest)


def test_history_is_told_as_docker_tells_it(peers: Peers, storage: Storage) -> None:
    storage.images.load(str(peers.made("docker save, two images").path))
    words = ("history", "--no-trunc", "--human=false", "--format", "{{json .}}", COMMITTED)
    theirs = [json.loads(line) for line in peers.daemons.docker(*words).splitlines()]
    ours = storage.images.history(COMMITTED)
    assert [(one.created_by, one.comment) for one in ours] == [
        (one["CreatedBy"], one["Comment"]) for one in theirs
    ]
    # Docker's overlay2 counts the targets of symlinks too, its other drivers do not.
    assert [one.size for one in ours] == [
        pytest.approx(int(one["Size"]), abs=_TARGETS) for one in theirs
    ]


def test_docker_can_be_piped_into_the_program(peers: Peers, storage: Storage) -> None:
    made = peers.made("docker save")
    places = ("--root", str(storage.root), "--run-root", str(storage.run_root))
    saving = subprocess.Popen(peers.daemons.docker_command("save", NAME), stdout=subprocess.PIPE)
    done = subprocess.run(
        [sys.executable, "-m", "storagedrivers", *places, "image", "load"],
        stdin=saving.stdout,
        capture_output=True,
        text=True,
    )
    assert saving.stdout
    saving.stdout.close()
    status = saving.wait()
    assert (done.returncode, done.stdout) == (0, f"{made.id}\n"), done.stderr
    assert status == 0


def test_what_docker_exports_is_imported(peers: Peers, storage: Storage, tmp_path: Path) -> None:
    peers.made("docker save")
    container = peers.daemons.docker("create", NAME).decode().strip()
    tar = peers.daemons.docker("export", container)
    peers.daemons.docker("rm", container)
    changes = ('CMD ["sh"]', "ENV A=b", "LABEL c=d", "WORKDIR /kinds")
    image = storage.images.import_(io.BytesIO(tar), name="flat", changes=changes)
    with storage.images.mounted("flat") as root:
        assert tree_differences(unpacked(tar, tmp_path / "theirs"), read_tree(root)) == []
    words = [word for change in changes for word in ("--change", change)]
    theirs = peers.daemons.docker("import", *words, "-", "flat", data=tar).decode().strip()
    known = peers.daemons.docker_inspect(theirs)
    peers.daemons.docker("rmi", theirs)
    config = storage.images.config(image)
    assert list(config.diff_ids) == known["RootFS"]["Layers"]
    for key, value in config.config.items():
        assert value == known["Config"][key]
