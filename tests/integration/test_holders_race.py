"""Searching for writers while processes and threads come and go."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from capabilities import need

from storagedrivers.linux import holders, mount
from storagedrivers.model import Mount


def test_threads_that_end_hide_no_writer(tmp_path: Path) -> None:
    """A writer is found every time, whatever ends in the same process meanwhile."""
    need("mount")
    layer, point = tmp_path / "layer", tmp_path / "point"
    layer.mkdir()
    point.mkdir()
    mount.mount(Mount("bind", str(layer), options=("bind",)), point)
    fd = os.open(point / "file", os.O_CREAT | os.O_WRONLY)
    mount.unmount(point, detach=True)
    done = threading.Event()

    def come_and_go() -> None:
        while not done.is_set():
            thread = threading.Thread(target=os.getpid)
            thread.start()
            thread.join()

    restless = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in restless:
        thread.start()
    try:
        missed = sum(not holders.find_writers(layer) for _ in range(50))
    finally:
        done.set()
        for thread in restless:
            thread.join()
        os.close(fd)
    assert not missed
    assert holders.find_writers(layer) == []
