"""``prune`` in 1,000 random states: what must never go never does."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack
from pathlib import Path

import pytest
from stored import release

from storagedrivers.linux import syscalls
from storagedrivers.model import Volume
from storagedrivers.storage import Storage
from storagedrivers.stores import volume_records as records

STATES, CONTAINERS = 1000, ("web", "db")


@pytest.fixture(scope="module")
def seed() -> int:
    chosen = int(os.environ.get("STORAGEDRIVERS_TEST_SEED", "27"))
    print(f"STORAGEDRIVERS_TEST_SEED={chosen}")
    return chosen


class State:
    """Some volumes, each as chance has it, and which of them are used."""

    def __init__(self, storage: Storage, containers: list[str], chance: random.Random) -> None:
        self.storage, self.chance = storage, chance
        self.used: set[str] = set()
        self.held: set[str] = set()
        self.volumes = [self._make(number) for number in range(chance.randrange(7))]
        with storage.database.transaction() as connection:
            for volume in self.volumes:
                records.insert(connection, volume)
                records.set_state(
                    connection, volume.name, chance.choice(("ready", "ready", "filling"))
                )
                for container in containers:
                    if chance.random() < 0.15:
                        records.use(connection, container, [(f"/{volume.name}", volume.name)])
                        self.used.add(volume.name)

    def _make(self, number: int) -> Volume:
        chance = self.chance
        labels = {
            key: chance.choice(("", "1")) for key in ("keep", "a", "kept") if chance.random() < 0.3
        }
        anonymous = chance.random() < 0.5
        name = f"{chance.getrandbits(256):064x}" if anonymous else f"volume-{number}"
        os.makedirs(self.storage.volumes.data(name))
        if chance.random() < 0.15:
            self.held.add(name)
        return Volume(name, "local", float(number), labels, {}, None, anonymous)

    def may_go(self, *, all_of_them: bool) -> set[str]:
        """The rule, in words of its own."""
        return {
            one.name
            for one in self.volumes
            if one.name not in self.used | self.held
            and "keep" not in one.labels
            and (one.anonymous or all_of_them)
        }


def hold(storage: Storage, name: str, stack: ExitStack) -> None:
    """What a running container has of a volume that is mounted."""
    directory = storage.run_root / "volumes"
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory / name, os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, fd)
    syscalls.flock(fd, syscalls.LOCK_SH)


def test_what_must_not_go_never_goes(tmp_path: Path, seed: int) -> None:
    """Never one with a name unless all are asked for, never one with the label ``keep``, never one
    in use; and a dry run says what would happen.
    """
    chance = random.Random(seed)
    gone = kept = 0
    with Storage.open(
        root=tmp_path / "root", run_root=tmp_path / "run", driver="vfs-copy"
    ) as storage:
        storage.run_root.mkdir(mode=0o700, exist_ok=True)
        volumes = storage.volumes
        containers = [storage.containers.create(None, name=name).id for name in CONTAINERS]
        storage.database.rows("PRAGMA synchronous = OFF")  # nothing here has to survive anything
        for number in range(STATES):
            state = State(storage, containers, chance)
            everything, label = chance.random() < 0.5, chance.random() < 0.2
            expected = state.may_go(all_of_them=everything)
            if label:
                expected = {one.name for one in state.volumes if "a" in one.labels} & expected
            filters = ("label=a",) if label else ()
            with ExitStack() as stack:
                for name in state.held:
                    hold(storage, name, stack)
                before = volumes.ls()
                planned = volumes.prune(all=everything, dry_run=True, filters=filters)
                assert volumes.ls() == before, number
                pruned = volumes.prune(all=everything, filters=filters)
            assert {one.name for one in pruned} == expected, number
            assert planned == pruned, number
            left = {one.name for one in volumes.ls()}
            assert left == {one.name for one in state.volumes} - expected, number
            assert left == set(os.listdir(storage.root / "volumes")), number
            gone, kept = gone + len(expected), kept + len(left)
            with storage.database.transaction() as connection:
                connection.execute("DELETE FROM container_volumes")
            for name in left:
                volumes.remove(name)
        release(storage.run_root)
    assert gone > STATES // 2, "chance left nothing to prune"
    assert kept > STATES // 2, "chance left nothing to keep"
