"""Images made by Docker, containerd, skopeo, umoci and buildah: in archives, and as they see them.

All begin with one root filesystem: busybox, and every kind of file below ``/kinds``. Above it lies
a layer that deletes, replaces, links and changes what is there, and steps that are no layer.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from interop.daemons import PATH, Daemons, run

from storagedrivers.testing.trees import Node, Tree, differences, populate, read_tree

NAME = "docker.io/library/demo:one"
COMMITTED = "docker.io/library/demo:committed"

PRINTED = "deep\n"
"""What a container of such an image prints."""

FILESYSTEMS = {"overlay2": "ext4", "btrfs-snapshot": "btrfs", "vfs-copy": "xfs"}
"""Where each driver of ours is tried."""

INIT = (
    *(".dockerenv", "dev", "dev/console", "dev/pts", "dev/shm", "etc/hostname", "etc/hosts"),
    *("etc/mtab", "etc/resolv.conf", "proc", "sys"),
)
"""What Docker, and we, put into a container besides the image."""

_APPLETS = (
    *("cat", "chmod", "chown", "cut", "echo", "env", "grep", "hostname", "id", "kill", "ln", "ls"),
    *("mkdir", "mv", "pwd", "rm", "rmdir", "sh", "sleep", "sort", "stat", "touch", "true"),
)

_COMMAND = ["/bin/sh", "-c", "cat /kinds/new/deep/file"]

_CHANGES = """
set -e
cd /kinds
rm small unreadable odd/-rf
rm -r directory/below
rm -r closed && mkdir -m 750 closed && echo new >closed/new
rm executable && mkdir executable && echo in >executable/in
rm -r setgid && echo file >setgid
rm symlink-to-directory && mkdir symlink-to-directory
ln hard-link another-name
chmod 4711 setuid && chown 12:34 fifo && chmod 1770 sticky
mkdir -p new/deep && echo deep >new/deep/file
ln new/deep/file new/second && ln -s ../.. new/up
mv empty new/moved
echo more >>large
"""

_DOCKERFILE = f"""\
FROM scratch
ADD rootfs.tar /
LABEL between=layers
COPY changes /changes
RUN sh -x /changes
ENV A=b C="d e"
WORKDIR /kinds
USER 12:34
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
LABEL last="with \\"quotes\\" & <more>"
CMD {json.dumps(_COMMAND)}
"""

_POLICY = {"default": [{"type": "insecureAcceptAnything"}]}


class Made(NamedTuple):
    """An image in an archive or a layout.

    Attributes:
        path: the file or the directory.
        seen: how skopeo calls the image in it.
        names: what the archive calls it, in full.
        id: the digest of its config.
        diff_ids: of its layers.
        manifest: the digest of its manifest, if it has one.
    """

    path: Path
    seen: str
    names: tuple[str, ...]
    id: str
    diff_ids: tuple[str, ...]
    manifest: str | None


class Peers:
    """The programs, with directories of their own; what they made is made once.

    Args:
        directory: an empty one, where root can make every kind of file.
        daemons: Docker's and containerd's.
    """

    def __init__(self, directory: Path, daemons: Daemons) -> None:
        self.daemons = daemons
        self._directory = directory
        self._made: dict[str, Made] = {}
        (directory / "home").mkdir()
        self._policy = directory / "policy.json"
        self._policy.write_text(json.dumps(_POLICY))
        self.rootfs = directory / "rootfs.tar"
        _write_rootfs(directory / "rootfs", self.rootfs)

    def made(self, maker: str) -> Made:
        """What one of :data:`MAKERS` makes."""
        if maker not in self._made:
            self._made[maker] = MAKERS[maker](self)
        return self._made[maker]

    def skopeo(self, *words: str | Path) -> bytes:
        """Run skopeo; what it printed."""
        command = ("skopeo", "--policy", self._policy, *words)
        return run([*map(str, command)], self._directory)

    def umoci(self, *words: str | Path) -> bytes:
        """Run umoci; what it printed."""
        return run(["umoci", *map(str, words)], self._directory)

    def buildah(self, verb: str, *words: str | Path) -> str:
        """Run buildah with a store of its own; what it printed."""
        own = ("--root", self.place("buildah"), "--runroot", self.place("buildah.run"))
        command = ("buildah", *own, "--storage-driver", "vfs", verb, *words)
        return run([*map(str, command)], self._directory).decode().strip()

    def place(self, name: str) -> Path:
        """Where something may be put."""
        return self._directory / name

    def looked_at(self, path: Path, seen: str, *names: str, manifest: bool = True) -> Made:
        """What skopeo sees in an archive."""
        config = self.skopeo("inspect", "--config", "--raw", seen)
        layers = json.loads(config)["rootfs"]["diff_ids"]
        digest = _digest(self.skopeo("inspect", "--raw", seen)) if manifest else None
        return Made(path, seen, names, _digest(config), tuple(layers), digest)

    def tree(self, seen: str, directory: Path) -> dict[bytes, Node]:
        """The root filesystem of an image, as umoci unpacks it below *directory*."""
        directory.mkdir(exist_ok=True)
        layout = directory / "layout"
        # umoci 0.4 knows no zstd.
        self.skopeo("copy", "--dest-compress-format", "gzip", seen, f"oci:{layout}:it")
        self.umoci("unpack", "--image", f"{layout}:it", directory / "bundle")
        return read_tree(directory / "bundle/rootfs")

    def docker_tree(self, image: str, directory: Path) -> dict[bytes, Node]:
        """The root filesystem of an image of Docker's, as Docker exports it and tar unpacks it."""
        container = self.daemons.docker("create", image, "true").decode().strip()
        tar = self.daemons.docker("export", container)
        self.daemons.docker("rm", container)
        return unpacked(tar, directory)


def tree_differences(expected: Tree, found: Tree) -> list[str]:
    """What differs but the time of the root, of which many archives say nothing."""
    timeless = [{**tree, b".": replace(tree[b"."], mtime_ns=0)} for tree in (expected, found)]
    return differences(*timeless)


def without_init(tree: Tree) -> dict[bytes, Node]:
    """What is no file of :data:`INIT`, nor ``etc``, whose time tells of them."""
    hidden = {name.encode() for name in (*INIT, "etc")}
    return {path: node for path, node in tree.items() if path not in hidden}


def unpacked(tar: bytes, directory: Path) -> dict[bytes, Node]:
    """The tree that GNU tar makes in *directory*, which is made."""
    directory.mkdir()
    owners = ("--numeric-owner", "--same-owner", "--xattrs", "--xattrs-include=*")
    command = ["tar", "-xp", *owners, "--delay-directory-restore", "-C", str(directory)]
    subprocess.run(command, input=tar, check=True)
    return read_tree(directory)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# The root filesystem


def _write_rootfs(root: Path, tar: Path) -> None:
    (root / "bin").mkdir(parents=True)
    for directory in ("etc", "data", "dev", "proc", "sys", "tmp"):
        (root / directory).mkdir()
    _copy_busybox(root)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nsvc:x:12:34::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nsvc:x:34:\nmore:x:56:svc\n")
    (root / "kinds").mkdir()
    populate(root / "kinds")
    (root / "kinds/socket").unlink()  # no tar holds one
    (root / "kinds/sparse").unlink()  # Docker writes its holes
    names = ("tar", "--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=*")
    subprocess.run([*names, "--sort=name", "-C", root, "-cf", tar, "."], check=True)


def _copy_busybox(root: Path) -> None:
    busybox = shutil.which("busybox", path=PATH)
    assert busybox
    shutil.copy2(busybox, root / "bin/busybox")
    # A static one needs no libraries, and makes ldd fail.
    libraries = subprocess.run(["ldd", busybox], capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+) \(0x", libraries):
        target = root / library[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library, target)
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")


# The images


def _docker_saved(peers: Peers) -> Made:
    context = peers.place("context")
    context.mkdir()
    os.link(peers.rootfs, context / "rootfs.tar")
    (context / "changes").write_text(_CHANGES)
    (context / "Dockerfile").write_text(_DOCKERFILE)
    peers.daemons.docker("build", "--network", "none", "--tag", NAME, context)
    path = peers.place("docker.tar")
    peers.daemons.docker("save", "--output", path, NAME)
    return peers.looked_at(path, f"docker-archive:{path}:{NAME}", NAME, manifest=False)


def _docker_committed(peers: Peers) -> Made:
    """An archive with two images that share layers."""
    peers.made("docker save")
    path = peers.place("docker-committed.tar")
    daemons = peers.daemons
    words = ("rm -r new odd; echo deep >again; ln again third",)
    container = daemons.docker(
        "create", "--user", "0", "--network", "none", NAME, "sh", "-c", *words
    )
    name = container.decode().strip()
    daemons.docker("start", "--attach", name)
    changes = ("--change", 'CMD ["cat", "/kinds/again"]', "--change", "USER svc")
    daemons.docker("commit", "--author", "A. U. Thor", *changes, name, COMMITTED)
    daemons.docker("rm", name)
    daemons.docker("save", "--output", path, NAME, COMMITTED)
    return peers.looked_at(path, f"docker-archive:{path}:{COMMITTED}", COMMITTED, manifest=False)


def _copied(*options: str, form: str) -> Callable[[Peers], Made]:
    """By skopeo, from what Docker saved."""

    def make(peers: Peers) -> Made:
        path = peers.place("-".join(("skopeo", form, *options)))
        seen = f"{form}:{path}:{NAME}"
        peers.skopeo("copy", *options, peers.made("docker save").seen, seen)
        return peers.looked_at(path, seen, NAME, manifest=form != "docker-archive")

    return make


def _containerd_exported(peers: Peers) -> Made:
    data = peers.made("docker save").path.read_bytes()
    peers.daemons.ctr("image", "import", "--all-platforms", "-", data=data)
    path = peers.place("containerd.tar")
    path.write_bytes(peers.daemons.ctr("image", "export", "-", NAME))
    return peers.looked_at(path, f"oci-archive:{path}", NAME)


def _umoci_layout(peers: Peers) -> Made:
    """Step by step: an empty image, files, whiteouts, an opaque directory, and settings."""
    layout, bundle, more = peers.place("umoci"), peers.place("bundle"), peers.place("more")
    image = f"{layout}:one"
    peers.umoci("init", "--layout", layout)
    peers.umoci("new", "--image", image)
    peers.umoci("unpack", "--image", image, bundle)
    subprocess.run(["cp", "-a", f"{peers.place('rootfs')}/.", bundle / "rootfs"], check=True)
    peers.umoci("repack", "--image", image, bundle)
    (more / "new").mkdir(parents=True)
    (more / "new/file").write_text(PRINTED)
    peers.umoci("insert", "--image", image, more, "/kinds/inserted")
    peers.umoci("insert", "--image", image, "--whiteout", "/kinds/small")
    peers.umoci("insert", "--image", image, "--opaque", more / "new", "/kinds/directory")
    command = [word for one in ("cat", "/kinds/directory/file") for word in ("--config.cmd", one)]
    peers.umoci("config", "--image", image, *command, "--config.env", "A=b")
    return peers.looked_at(layout, f"oci:{image}")


def _buildah(form: str, *options: str) -> Callable[[Peers], Made]:
    """From nothing, in two steps with a layer each."""

    def make(peers: Peers) -> Made:
        policy = ("--signature-policy", peers.place("policy.json"))
        below = peers.buildah("from", "scratch")
        peers.buildah("add", below, peers.rootfs, "/")
        peers.buildah("commit", *policy, "--rm", below, "below")
        container = peers.buildah("from", *policy, "--pull-never", "below")
        # Without a runtime, and so without cgroups.
        peers.buildah("run", "--isolation", "chroot", container, "sh", "-c", _CHANGES)
        settings = ("--cmd", "cat /kinds/new/second", "--env", "A=b", "--user", "svc")
        peers.buildah("config", *settings, container)
        path = peers.place(f"buildah-{form}.tar")
        name = "docker.io/library/demo:buildah"
        target = f"{form}:{path}:{name}"
        peers.buildah("commit", *policy, "--rm", *options, container, target)
        return peers.looked_at(path, target, name, manifest=form != "docker-archive")

    return make


MAKERS: dict[str, Callable[[Peers], Made]] = {
    "docker save": _docker_saved,
    "docker save, two images": _docker_committed,
    "skopeo, OCI layout": _copied(form="oci"),
    "skopeo, OCI layout, zstd": _copied(
        "--dest-compress", "--dest-compress-format", "zstd", form="oci"
    ),
    "skopeo, OCI archive": _copied(form="oci-archive"),
    "skopeo, Docker archive": _copied(form="docker-archive"),
    "ctr image export": _containerd_exported,
    "umoci": _umoci_layout,
    "buildah, OCI archive": _buildah("oci-archive"),
    "buildah, Docker archive": _buildah("docker-archive", "--format", "docker"),
}


def config_of(made: Made, peers: Peers) -> dict[str, Any]:
    """The config, as skopeo reads it."""
    return dict(json.loads(peers.skopeo("inspect", "--config", "--raw", made.seen)))
