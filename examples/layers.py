"""Two layers, one above the other, in and out again; needs neither root nor network."""

import hashlib
import io
import os
import tarfile
import tempfile

from storagedrivers.storage import Storage


def tar(**files: str) -> io.BytesIO:
    """A tar of files of this user."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.uid, entry.gid = len(text), os.getuid(), os.getgid()
            archive.addfile(entry, io.BytesIO(text.encode()))
    stream.seek(0)
    return stream


with (
    tempfile.TemporaryDirectory() as directory,
    Storage.open(root=f"{directory}/root", run_root=f"{directory}/run") as storage,
):
    layers = storage.layers
    base = layers.add(tar(motd="hello\n", hosts="127.0.0.1 localhost\n"))
    above = tar(**{"motd": "good morning\n", ".wh.hosts": "", "fstab": ""})
    top = layers.add(above, parent=base.id)

    for change in layers.changes(top.id):
        print(change.kind, change.path.decode())

    digest = hashlib.sha256()
    layers.export(top.id, digest.update)  # the bytes that came in
    print(digest.digest() == hashlib.sha256(above.getvalue()).digest())
