"""What a plan says of a mount is what happens: a table of every combination that matters."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from mount_outcomes import (
    CASES,
    Case,
    Outcome,
    check_entries,
    count,
    image_tar,
    prepare,
    script,
    seen,
)
from running import container_store

from storagedrivers.storage import Storage
from storagedrivers.stores.containers import Container
from storagedrivers.stores.plans import Plan, PlannedMount


@pytest.fixture
def storage(on_filesystem: Callable[[str], Path]) -> Iterator[Storage]:
    need("root", "mount", "overlay", "busybox")
    with container_store(on_filesystem("ext4")) as storage:
        yield storage


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A path of the host."""
    return tmp_path / "host"


Made = Callable[[Case], tuple[Plan, Container]]


@pytest.fixture
def made(storage: Storage, host: Path) -> Made:
    """Makes the source, plans, and makes the container; gives the plan and that."""

    def make(case: Case) -> tuple[Plan, Container]:
        changes = (f"VOLUME {case.text}",) if case.option == "VOLUME" else ()
        storage.images.import_(io.BytesIO(image_tar()), name="image", changes=changes)
        if case.names_volume:
            if case.before != "missing":
                storage.volumes.create("data")
                prepare(Path(storage.volumes.data("data")), case.before)
        else:
            prepare(host, case.before)
        text = case.text.replace("HOST", str(host))
        wish = {
            "config": {"User": case.user, "Cmd": ["sh", "-c", script(case.target)]},
            "mounts": [text] if case.option in ("-v", "--mount") else [],
            "tmpfs": [text] if case.option == "--tmpfs" else [],
        }
        plan = storage.containers.plan("image", **wish)
        return plan, storage.containers.create("image", **wish)

    return make


def planned(mount: PlannedMount) -> Outcome:
    """What a plan says, as the table has it."""
    assert mount.owner is not None
    assert mount.writable is not None
    return Outcome(
        mount.creates,
        None if mount.filled is None else mount.filled.entries,
        0 if mount.hidden is None else mount.hidden.entries,
        f"{mount.owner.uid}:{mount.owner.gid} {mount.owner.mode:o}",
        mount.writable,
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_happens_as_planned(
    storage: Storage, made: Made, host: Path, capfd: pytest.CaptureFixture[str], case: Case
) -> None:
    """What is made, copied, hidden; whose it is; who can write to it."""
    plan, container = made(case)
    (mount,) = plan.mounts
    assert planned(mount) == case.outcome

    volumes = storage.volumes.ls()
    assert len(volumes) == (case.outcome.creates == "volume" or case.names_volume)
    copied = sum(count(Path(storage.volumes.data(one.name))) for one in volumes)
    assert copied == (case.outcome.copies or 0)
    for one in volumes:
        filled = None if case.outcome.copies is None else container.image
        assert (one.seed, one.anonymous) == (filled, one.name != "data")
    assert host.exists() == (not case.names_volume and case.before != "missing")

    assert storage.runtime.run(container.id) == 0
    found = seen(capfd.readouterr().out)
    assert (found.owner, found.writes) == (case.outcome.owner, case.outcome.writes)
    check_entries(case, found)
    if case.outcome.creates == "directory":
        assert (os.stat(host).st_uid, os.stat(host).st_mode & 0o7777) == (0, 0o755)


def test_the_plan_changes_nothing(storage: Storage, host: Path) -> None:
    storage.images.import_(io.BytesIO(image_tar()), name="image", changes=("VOLUME /full",))
    storage.containers.plan("image", mounts=["data:/new", f"{host}:/other"])
    assert storage.volumes.ls() == []
    assert storage.containers.ls() == []
    assert not host.exists()
    assert os.listdir(storage.root / "locks") == []
