"""An image, a container of it, its changes, and an image of those; needs no network, and no root
where copies do.
"""

import io
import os
import tarfile
import tempfile

from storagedrivers.storage import Storage


def root_filesystem(motd: bytes) -> io.BytesIO:
    """A tar with two directories and a file of this user."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in (".", "etc", "etc/motd"):
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid = os.getuid(), os.getgid()
            if name == "etc/motd":
                entry.size = len(motd)
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry, io.BytesIO(motd))
    stream.seek(0)
    return stream


def main(archive: str) -> None:
    """Make an archive of an image in one store, and work with it in another."""
    with Storage.temporary() as storage:
        storage.images.import_(root_filesystem(b"hello\n"), name="small")
        with open(archive, "wb") as file:
            storage.images.save(["small"], file.write)

    with Storage.temporary() as storage:
        (image,) = storage.images.load(archive)
        with storage.images.mounted(image.id) as path:
            print((path / "etc/motd").read_text(), end="")
        box = storage.containers.create(image.id, name="box")
        with storage.containers.mounted("box") as path:
            (path / "etc/motd").write_text("good morning\n")
        for change in storage.containers.diff(box.id):
            print(change.kind, change.path.decode())
        changed = storage.containers.commit("box", "changed")
        print(len(storage.images.config(changed).diff_ids), "layers")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(f"{directory}/image.tar")
