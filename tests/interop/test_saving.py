"""What we save loads in the other programs, is the same image there, and runs."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from interop.daemons import Daemons
from interop.making import NAME, PRINTED, Made, Peers, tree_differences, without_init

from storagedrivers.storage import Storage
from storagedrivers.testing.trees import read_tree

OURS = "docker.io/library/ours:latest"

SKOPEO = {"docker": "docker-archive", "oci": "oci-archive"}

SEEN = {"docker": "docker.io/library/again:tag", "oci": "tag"}
"""How skopeo finds the image again:tag; containerd and Docker, too, give a layout its tag only."""


def save(storage: Storage, name: str, form: str, directory: Path) -> Path:
    path = directory / f"{form}.tar"
    with path.open("wb") as file:
        storage.images.save([name], file.write, form=form)
    return path


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def commit(storage: Storage, made: Made) -> str:
    """An image of ours above one that was loaded; its id."""
    storage.images.load(str(made.path))
    container = storage.containers.create(made.id, name="changed")
    with storage.containers.mounted("changed") as root:
        (root / "kinds/again").write_text("committed\n")
        (root / "kinds/second").hardlink_to(root / "kinds/again")
        (root / "kinds/new/second").unlink()
        for path in sorted((root / "kinds/odd").iterdir()):
            path.unlink()
        (root / "kinds/odd").rmdir()
        (root / "kinds/odd").write_text("a file now")
        (root / "kinds/setuid").chmod(0o6755)
    changes = ('CMD ["cat", "/kinds/second"]', 'ENV WITH="a space"', "USER 0")
    image = storage.containers.commit(container.id, OURS, author="A. U. Thor", changes=changes)
    return str(image.id)


@pytest.mark.parametrize("form", ["docker", "oci"])
@pytest.mark.parametrize(
    "maker", ["docker save", "skopeo, OCI layout, zstd", "umoci", "buildah, OCI archive"]
)
def test_what_was_loaded_is_saved_as_the_same_image(
    maker: str, form: str, peers: Peers, storage: Storage, tmp_path: Path
) -> None:
    made = peers.made(maker)
    storage.images.load(str(made.path))
    storage.images.tag(made.id, "again:tag")
    path = save(storage, "again:tag", form, tmp_path)
    seen = f"{SKOPEO[form]}:{path}:{SEEN[form]}"
    found = peers.looked_at(path, seen)
    assert (found.id, found.diff_ids) == (made.id, made.diff_ids)
    if form == "oci" and made.manifest:
        assert found.manifest == made.manifest
    expected = peers.tree(made.seen, tmp_path / "expected")
    assert tree_differences(expected, peers.tree(seen, tmp_path / "found")) == []


@pytest.mark.parametrize("maker", ["docker save", "skopeo, OCI layout, zstd", "umoci"])
def test_a_saved_layout_is_one_for_the_tools(
    maker: str, peers: Peers, storage: Storage, tmp_path: Path
) -> None:
    made = peers.made(maker)
    storage.images.load(str(made.path))
    storage.images.tag(made.id, "again:tag")
    layout = tmp_path / "layout"
    storage.images.save_layout(["again:tag"], str(layout))
    (tag,) = peers.umoci("ls", "--layout", layout).decode().splitlines()
    found = peers.looked_at(layout, f"oci:{layout}:{tag}")
    assert found.id == made.id
    if made.manifest:
        assert found.manifest == made.manifest


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_a_saved_image_runs_in_containerd(
    form: str, peers: Peers, receiver: Daemons, storage: Storage, tmp_path: Path
) -> None:
    commit(storage, peers.made("skopeo, OCI layout"))
    for name, printed in ((NAME, PRINTED), (OURS, "committed\n")):
        path = save(storage, name, form, tmp_path)
        receiver.ctr("image", "import", "-", data=path.read_bytes())
        assert receiver.ctr_run(name) == printed
    line = next(one for one in receiver.ctr("image", "ls").decode().splitlines() if NAME in one)
    if form == "oci":
        assert peers.made("skopeo, OCI layout").manifest in line.split()


@pytest.mark.parametrize("maker", ["docker save", "skopeo, OCI layout, zstd"])
def test_a_saved_image_runs_in_docker(
    maker: str, peers: Peers, receiver: Daemons, storage: Storage, tmp_path: Path
) -> None:
    made = peers.made(maker)
    ours = commit(storage, made)
    for name, image, printed in ((NAME, made.id, PRINTED), (OURS, ours, "committed\n")):
        receiver.docker("load", "--input", save(storage, name, "docker", tmp_path))
        known = receiver.docker_inspect(name)
        assert known["Id"] == image
        config = storage.images.config(storage.images.get(name))
        assert tuple(known["RootFS"]["Layers"]) == config.diff_ids
        assert receiver.docker_run(name) == printed
    assert receiver.docker_inspect(OURS)["Author"] == "A. U. Thor"


def test_a_committed_image_has_the_tree_of_its_container_everywhere(
    peers: Peers, receiver: Daemons, storage: Storage, tmp_path: Path
) -> None:
    commit(storage, peers.made("docker save"))
    with storage.images.mounted(OURS) as root:
        ours = without_init(read_tree(root))
    path = save(storage, OURS, "oci", tmp_path)
    theirs = peers.tree(f"oci-archive:{path}", tmp_path / "theirs")
    assert tree_differences(ours, without_init(theirs)) == []
    assert not theirs.keys() & {b".dockerenv", b"etc/hosts"}


def test_the_program_can_be_piped_into_docker(
    peers: Peers, receiver: Daemons, storage: Storage
) -> None:
    made = peers.made("skopeo, OCI archive")
    storage.images.load(str(made.path))
    places = ("--root", str(storage.root), "--run-root", str(storage.run_root))
    command = [sys.executable, "-m", "storagedrivers", *places, "image", "save", NAME]
    saved = subprocess.run(command, capture_output=True, check=True)
    receiver.docker("load", data=saved.stdout)
    assert receiver.docker_inspect(NAME)["Id"] == made.id


def test_several_images_in_one_archive(peers: Peers, receiver: Daemons, storage: Storage) -> None:
    made = peers.made("docker save, two images")
    storage.images.load(str(made.path))
    names = sorted(name for image in storage.images.ls() for name in image.names)
    tar = io.BytesIO()
    storage.images.save(names, tar.write)
    receiver.docker("load", data=tar.getvalue())
    lines = receiver.docker("images", "--no-trunc", "--format", "{{json .}}").splitlines()
    found = {(one["Repository"], one["Tag"], one["ID"]) for one in map(json.loads, lines)}
    assert found == {
        ("demo", name.rpartition(":")[2], storage.images.get(name).id) for name in names
    }


def test_what_we_export_is_imported_by_docker(
    peers: Peers, receiver: Daemons, storage: Storage
) -> None:
    storage.images.load(str(peers.made("docker save").path))
    tar = io.BytesIO()
    storage.images.export(NAME, tar.write)
    image = receiver.docker("import", "-", data=tar.getvalue()).decode().strip()
    assert receiver.docker_inspect(image)["RootFS"]["Layers"] == [digest(tar.getvalue())]
    assert receiver.docker_run(image, "cat", "/kinds/new/second") == PRINTED
