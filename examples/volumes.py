"""Data that outlives its container: a volume, filled from an image, exported and cloned; needs no
network, and no root where copies do.
"""

import io
import os
import tarfile
import tempfile

from storagedrivers.storage import Storage


def root_filesystem() -> io.BytesIO:
    """A tar of this user's files: a program's data, as its image brings it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in ((".", None), ("data", None), ("data/schema", b"version 1\n")):
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid = os.getuid(), os.getgid()
            if text is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            else:
                entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text or b""))
    stream.seek(0)
    return stream


def main(archive: str) -> None:
    """Keep data in a volume, and the volume in an archive."""
    with Storage.temporary() as storage:
        storage.images.import_(root_filesystem(), name="service")
        for line in storage.containers.plan("service", mounts=["db:/data"]).lines():
            print(line)

        storage.containers.create("service", name="first", mounts=["db:/data"])
        with storage.volumes.used("db") as path:  # as a container sees it at /data
            print(*(one.name for one in path.iterdir()))
            (path / "row").write_text("kept\n")
        print("used by", *storage.volumes.users("db"))

        storage.containers.remove("first")
        storage.containers.create("service", name="second", mounts=["type=volume,src=db,dst=/data"])
        with storage.volumes.used("db") as path:
            print((path / "row").read_text(), end="")

        with open(archive, "wb") as file:
            digest = storage.volumes.export("db", file.write)
        with open(archive, "rb") as file:
            storage.volumes.import_("restored", file, digest=digest)
        storage.volumes.clone("db", "copy")
        storage.containers.remove("second")
        print(*(one.name for one in storage.volumes.ls()))
        print(*(one.name for one in storage.volumes.prune(all=True, filters=["name=copy"])))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(f"{directory}/db.tar")
