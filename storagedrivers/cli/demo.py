"""Show on this machine what layers, images, containers and volumes are: two images that share a
layer, a container of each, a file that is changed in one of them, one that outlives them, and two
builds that share what is the same. Works in a directory of its own, and removes it. Each step
prints the command that does the same.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from storagedrivers.build.events import StepDone
from storagedrivers.cli import output
from storagedrivers.opening import remove_store, select_driver
from storagedrivers.storage import Storage

if TYPE_CHECKING:
    from storagedrivers.build.events import Event
    from storagedrivers.config import StorageConfig
    from storagedrivers.stores.containers import Container

_BASE = {
    "etc/os-release": 'NAME="Demo"\n',
    "etc/motd": "hello\n",
    "srv/page": "as the image brings it\n",
    "usr/lib/libdemo.so": "shared code\n" * 20_000,
}
_APPS = ("red", "blue")
_BUILT = ("hello", "clock")

_INSIDE = "--in-user-namespace"
"""For the process that is started there: it does not try again."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--dir", metavar="DIR", help="make the directory there; default: the system's temporary one"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the directory, for commands of your own"
    )
    parser.add_argument(_INSIDE, dest="inside", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace, config: StorageConfig) -> int:
    """Run the command."""
    if arguments.inside:
        output.note("You are not root: this runs in a user namespace, under unshare(1).")
    elif os.geteuid() != 0:
        code = _in_user_namespace()
        if code is not None:
            return code
        output.note(
            "This host lets users make no user namespace of their own, so nothing can be mounted:"
            " the layers are copies, and are looked at where they lie."
        )
    top = tempfile.mkdtemp(prefix="storagedrivers-demo-", dir=arguments.dir)
    try:
        _Demo(top, config).tell()
    finally:
        if arguments.keep:
            output.line(f"The store stays: storagedrivers --root {top}/root --run-root {top}/run …")
        else:
            remove_store(top)
    return 0


def _in_user_namespace() -> int | None:
    """Run the same command as root of a user namespace; None where there is none to be had."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    command = [unshare, "--user", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        return None
    program = [sys.executable, "-m", "storagedrivers", *sys.argv[1:], _INSIDE]
    return subprocess.run([*command, *program], check=False).returncode


class _Demo:
    def __init__(self, top: str, config: StorageConfig) -> None:
        self._context = Path(top, "context")
        self._root = os.path.join(top, "root")
        self._run_root = os.path.join(top, "run")
        self._config = config
        self._steps = 0

    def tell(self) -> None:
        """The whole story."""
        self._choose_driver()
        with Storage.open(self._config, root=self._root, run_root=self._run_root) as storage:
            self._make_images(storage)
            boxes = [self._make_container(storage, name) for name in _APPS]
            self._write(storage, *boxes)
            self._show_layer(storage, boxes[0])
            self._remove(storage, boxes)
            self._keep(storage)
            self._build(storage)

    def _step(self, title: str, *commands: str) -> None:
        self._steps += 1
        output.line(f"{'' if self._steps == 1 else chr(10)}{self._steps}. {title}")
        for command in commands:
            output.line(f"   $ {command}")

    @staticmethod
    def _say(text: str) -> None:
        for line in text.splitlines():
            output.line(f"   {line}")

    # The steps

    def _choose_driver(self) -> None:
        self._step("The driver: the best way to stack layers here", "storagedrivers detect")
        selection = select_driver(self._config, self._root)
        for candidate in selection.candidates:
            mark = "→" if candidate.driver == selection.chosen else " "
            self._say(f"{mark} {candidate.driver}: {candidate.probe.message}")

    def _make_images(self, storage: Storage) -> None:
        self._step(
            "Two images that share a layer",
            "storagedrivers image import base.tar base",
            "storagedrivers container create --name work base",
            "echo red > $(storagedrivers container mount work)/etc/colour",
            "storagedrivers container unmount work && storagedrivers container commit work red",
        )
        storage.images.import_(io.BytesIO(_tar(_BASE)), name="base", changes=['CMD ["sh"]'])
        for name in _APPS:
            work = storage.containers.create("base", name=f"{name}-work")
            with storage.containers.mounted(work.id) as root:
                (root / "etc/colour").write_text(f"{name}\n")
            storage.containers.commit(work.id, name)
            storage.containers.remove(work.id)
        shared = storage.images.get("base").layer
        for name in ("base", *_APPS):
            for layer in storage.layers.image_layers(storage.images.get(name).layer):
                mark = "  ← the same for all three, once on the disk" if layer.id == shared else ""
                self._say(f"{name:<5} {layer.id}  {output.size(layer.size)}{mark}")

    def _make_container(self, storage: Storage, image: str) -> Container:
        name = f"{image}-box"
        if image == _APPS[0]:
            self._step(
                "A container of each: an empty writable layer on top",
                *(f"storagedrivers container create --name {one}-box {one}" for one in _APPS),
            )
        container = storage.containers.create(image, name=name)
        self._say(f"{name}: layer {container.layer}, on the layers of {image}")
        return container

    def _write(self, storage: Storage, box: Container, other: Container) -> None:
        self._step(
            "A file is changed in one container",
            f"echo changed > $(storagedrivers container mount {box.name})/etc/motd",
            f"storagedrivers container diff {box.name}",
        )
        with storage.containers.mounted(box.id) as root:
            (root / "etc/motd").write_text("changed\n")
        for change in storage.containers.diff(box.id):
            self._say(f"{change.kind} /{output.visible(change.path)}")
        self._say(f"{box.name}: {_motd(storage, box)}")
        self._say(f"{other.name}: {_motd(storage, other)}")
        fresh = storage.containers.create(_APPS[0], name="fresh")
        self._say(f"the image, in a new container: {_motd(storage, fresh)}")
        storage.containers.remove(fresh.id)

    def _show_layer(self, storage: Storage, box: Container) -> None:
        directory = _directory(storage, box)
        self._step("The writable layer on the disk", f"find {directory} -type f")
        changeset = storage.driver_for(storage.driver).changeset(box.layer)
        files = sorted(path for path in directory.rglob("*") if path.is_file())
        for path in files[:8]:
            self._say(str(path))
        if changeset is None:
            self._say(f"{storage.driver} keeps a whole tree for each layer, not only what changed")

    def _remove(self, storage: Storage, boxes: list[Container]) -> None:
        directory = _directory(storage, boxes[0])
        self._step(
            "A container dies, and its layer with it",
            f"storagedrivers container rm {' '.join(box.name for box in boxes)}",
        )
        for box in boxes:
            storage.containers.remove(box.id)
        self._say(f"{directory}: {'still there' if directory.exists() else 'gone'}")
        names = ", ".join(sorted(name for image in storage.images.ls() for name in image.names))
        self._say(f"images: {names}")

    def _keep(self, storage: Storage) -> None:
        first, second = (
            f"storagedrivers container create --name {name} -v data:/srv {_APPS[0]}"
            for name in ("first", "second")
        )
        directory = storage.volumes.data("data")
        self._step(
            "Data that must live: a volume",
            first,
            f"echo kept > {directory}/page",
            "storagedrivers container rm first",
            second,
        )
        box = storage.containers.create(_APPS[0], name="first", mounts=["data:/srv"])
        with storage.volumes.used("data") as path:
            names = " ".join(sorted(one.name for one in path.iterdir()))
            self._say(f"data was empty, and got what the image has in /srv: {names}")
            (path / "page").write_text("kept\n")
        storage.containers.remove(box.id)
        box = storage.containers.create(_APPS[0], name="second", mounts=["data:/srv"])
        with storage.volumes.used("data") as path:
            self._say(f"first is gone; /srv/page of second: {(path / 'page').read_text().strip()}")
        storage.containers.remove(box.id)
        self._say(f"volumes: {' '.join(volume.name for volume in storage.volumes.ls())}")

    def _build(self, storage: Storage) -> None:
        # Who is not root can give no files to others.
        owner = "" if os.geteuid() == 0 else f"--chown={os.geteuid()}:{os.getegid()} "
        self._step(
            "Images of Dockerfiles: what is there already is not built again",
            f"cd {self._context}",
            *(f"storagedrivers build -t {name} -f {name}.Dockerfile ." for name in _BUILT),
        )
        self._context.mkdir()
        (self._context / "library").write_text("shared code\n" * 20_000)
        for name in _BUILT:
            (self._context / name).write_text(f"the code of {name}\n")
            file = self._context / f"{name}.Dockerfile"
            file.write_text(f"FROM base\nCOPY {owner}library /srv/\nCOPY {owner}{name} /srv/\n")
            storage.build(self._context, dockerfile=file.name, tags=[name], on_event=self._tell)

    def _tell(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step.word == "COPY":
            state = "CACHED" if event.cached else "built"
            self._say(
                f"{state:<6} {event.layer}  {output.size(event.size):>7}  {event.step.source}"
            )


def _tar(files: dict[str, str]) -> bytes:
    """A tar of files that are the user's own: only root may give files away."""
    buffer = io.BytesIO()
    directories = {os.fspath(one) for name in files for one in Path(name).parents}
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in sorted({*directories, *files}):
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid = os.geteuid(), os.getegid()
            content = files.get(name, "").encode()
            entry.size = len(content)
            if name in directories:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _directory(storage: Storage, container: Container) -> Path:
    driver = storage.driver_for(storage.driver)
    changeset = driver.changeset(container.layer)
    if changeset is not None:
        return changeset.path
    lowers = storage.layers.lowers(container.layer)
    return Path(driver.mounts(container.layer, lowers, read_only=True)[0].source)


def _motd(storage: Storage, container: Container) -> str:
    with storage.containers.mounted(container.id) as root:
        return (root / "etc/motd").read_text().strip()
