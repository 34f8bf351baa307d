"""The cache of builds: what is found in it, what it keeps, and how that goes again."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from capabilities import need
from processes import forked
from programs import Program
from stored import Place, clean, tar

from storagedrivers.build.borrowed import Sources
from storagedrivers.build.explaining import explain
from storagedrivers.build.keys import Facts
from storagedrivers.errors import InUseError
from storagedrivers.oci.config import History, make_config
from storagedrivers.storage import Storage
from storagedrivers.stores import build_cache, cache_volumes, mounts
from storagedrivers.stores.build_cache import CacheStore, Entry
from storagedrivers.stores.images import Image
from storagedrivers.stores.layers import Layer

SIZE = 1000


class Step(NamedTuple):
    facts: Facts
    layer: Layer
    entry: Entry


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    with made.open() as storage:
        for image in storage.images.ls():
            storage.images.remove(image.id, force=True)
    clean(made.open())


@pytest.fixture
def storage(place: Place) -> Iterator[Storage]:
    with place.open() as opened:
        yield opened


def build(
    storage: Storage, *instructions: str, durability: str = "none", size: int = SIZE
) -> list[Step]:
    """What a build does that makes a layer for each instruction, and is killed before its image."""
    made: list[Step] = []
    with storage.layers.leased() as lease:
        for number, instruction in enumerate(instructions):
            below = made[-1].layer if made else None
            layer = storage.layers.add(
                io.BytesIO(tar(**{f"{instruction}-{number}": "x" * size})),
                parent=below and below.id,
                held=False,
                lease=lease,
                durability=durability,
            )
            facts = Facts((below and below.chain_id) or "", instruction)
            entry = storage.build_cache.add(facts, layer.id, created=1.5, lease=lease)
            made.append(Step(facts, layer, entry))
    return made


def image_of(
    storage: Storage, layer: Layer | None, *history: str, name: str = "built", source: str = "build"
) -> Image:
    """An image; ``-`` before a line of its history says that it made no layer."""
    lines = [
        History("2024-01-02T03:04:05Z", text.removeprefix("-"), empty_layer=text.startswith("-"))
        for text in history
    ]
    layers = storage.layers.image_layers(layer and layer.id)
    config = make_config(
        base=None,
        diff_ids=[str(one.diff_id) for one in layers],
        history=lines,
        config={},
        created="2024-01-02T03:04:05Z",
    )
    return storage.images.add(config, layer and layer.id, source=source, name=name)


def keys(entries: Iterable[Entry]) -> list[str]:
    return [entry.key for entry in entries]


def there(storage: Storage) -> list[str]:
    return [layer.id for layer in storage.layers.ls()]


def ago(storage: Storage, seconds: float, *entries: Entry) -> None:
    """The entries were used so long ago."""
    with storage.database.transaction() as connection:
        for entry in entries:
            connection.execute(
                "UPDATE build_cache SET used = ? WHERE number = ?",
                (time.time() - seconds, entry.number),
            )


def in_boot(monkeypatch: pytest.MonkeyPatch, boot: str) -> None:
    for module in (build_cache, mounts):
        monkeypatch.setattr(module, "boot_id", lambda: boot)


def after_restart(monkeypatch: pytest.MonkeyPatch, storage: Storage) -> CacheStore:
    """The cache as another boot finds it."""
    in_boot(monkeypatch, "another boot")
    return CacheStore(storage.layers, lambda: storage.volumes)


# What is found


def test_a_step_is_found_by_all_that_it_depends_on(storage: Storage) -> None:
    one, two = build(storage, "one", "two")
    assert storage.build_cache.find(one.facts.key()) == one.entry
    assert storage.build_cache.find(two.facts.key()) == two.entry
    assert storage.build_cache.find(two.facts._replace(chain="").key()) is None
    assert (one.entry.layer, one.entry.created, one.entry.uses) == (one.layer.id, 1.5, 0)
    storage.build_cache.use([one.entry])
    found = storage.build_cache.find(one.facts.key())
    assert found is not None
    assert (found.uses, found.used > one.entry.used) == (1, True)


def test_a_step_that_changed_nothing_is_found(storage: Storage) -> None:
    facts = Facts("", "RUN true")
    entry = storage.build_cache.add(facts, None, created=2.5)
    assert storage.build_cache.find(facts.key()) == entry
    assert entry.layer is None


def test_of_two_builds_at_once_the_first_one_counts(storage: Storage) -> None:
    """What the second one made goes, and both go on with the same layer."""
    (first,) = build(storage, "same")
    with storage.layers.leased() as lease:
        layer = storage.layers.add(io.BytesIO(tar(other="x")), held=False, lease=lease)
        found = storage.build_cache.add(first.facts, layer.id, created=9.0, lease=lease)
        assert found == first.entry
        storage.layers.close()  # what goes in a thread has gone
        assert there(storage) == [first.layer.id]
        storage.build_cache.prune(all=True)
        assert there(storage) == [first.layer.id]  # which the second build has now
    assert there(storage) == []


def test_threads_of_a_build_agree(storage: Storage) -> None:
    """Stages that have a step in common make it once, or one of them lets go of its own."""
    found: list[str | None] = []
    with storage.layers.leased() as lease:

        def stage(number: int) -> None:
            layer = storage.layers.add(
                io.BytesIO(tar(**{f"file{number}": "x"})), held=False, lease=lease
            )
            entry = storage.build_cache.add(
                Facts("", "RUN same"), layer.id, created=1.0, lease=lease
            )
            found.append(entry.layer)

        threads = [threading.Thread(target=stage, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        storage.layers.close()
        assert len(set(found)) == 1
        assert there(storage) == [found[0]]


def test_the_newest_replaces_what_was_there(storage: Storage) -> None:
    """As after ``--no-cache``; the layer goes that nobody else has."""
    (old,) = build(storage, "step")
    with storage.layers.leased() as lease:
        layer = storage.layers.add(io.BytesIO(tar(new="x")), held=False, lease=lease)
        entry = storage.build_cache.add(old.facts, layer.id, created=2.0, lease=lease, replace=True)
    storage.layers.close()
    assert storage.build_cache.find(old.facts.key()) == entry
    assert entry.layer == layer.id
    assert there(storage) == [layer.id]


def test_layers_of_other_drivers_do_not_count(place: Place, tmp_path: Path) -> None:
    """The key is the same, and what it stands for is there once for each driver."""
    need("mount", "overlay")
    with place.open() as storage:
        (copied,) = build(storage, "step")
    with Storage.open(root=place.root, run_root=place.run_root, driver="overlay2") as storage:
        assert storage.build_cache.find(copied.facts.key()) is None
        assert "driver vfs-copy" in explain(copied.facts, storage.build_cache)
        above = storage.build_cache.find(copied.facts.key(), driver="vfs-copy")
        assert above == copied.entry  # for a build on an image of that driver
        entry = storage.build_cache.add(copied.facts, None, created=1.0)
        assert storage.build_cache.find(copied.facts.key()) == entry
        assert {one.entry.driver for one in storage.build_cache.ls()} == {"vfs-copy", "overlay2"}
    with place.open() as storage:
        assert storage.build_cache.find(copied.facts.key()) == copied.entry


def test_a_build_that_is_killed_leaves_what_it_has_made(place: Place) -> None:
    """The next one goes on from there, and nothing takes it away meanwhile."""

    def killed() -> None:
        with place.open() as storage, storage.layers.leased() as lease:
            layer = storage.layers.add(io.BytesIO(tar(a="x")), held=False, lease=lease)
            storage.build_cache.add(Facts("", "one"), layer.id, created=1.0, lease=lease)
            storage.layers.create(layer.id, held=False, lease=lease)
            os.kill(os.getpid(), 9)

    place.open().close()
    assert os.waitstatus_to_exitcode(os.waitpid(forked(killed), 0)[1]) == -9
    with place.open() as storage:
        entry = storage.build_cache.find(Facts("", "one").key())
        assert entry is not None
        assert there(storage) == [entry.layer]  # without that of its next step
        assert storage.gc() == []
        assert [*storage.check(deep=True)] == []


# After a restart


def test_what_may_not_have_reached_the_disk_counts_until_a_restart(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (step,) = build(storage, "step")
    assert not step.layer.durable
    later = after_restart(monkeypatch, storage)
    assert later.find(step.facts.key()) is None
    assert "had not reached the disk" in explain(step.facts, later)
    assert [one.lost for one in later.ls()] == [True]
    # Bringing others to the disk does not bring back what was lost; nobody finds it again.
    storage.sync()
    assert later.find(step.facts.key()) is None
    assert later.ls() == []
    assert storage.layers.get(step.layer.id).chain_id is None
    assert [one.orphan.owner for one in storage.gc()] == [step.layer.id]


def test_what_has_reached_the_disk_counts_after_a_restart(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = build(storage, "one", "two")
    storage.sync()
    later = after_restart(monkeypatch, storage)
    assert [later.find(one.facts.key()) for one in steps] == [one.entry for one in steps]
    (new,) = build(storage, "new", durability="layer")  # which syncs as well
    assert [one.entry.key for one in later.ls()][-1] == new.facts.key()
    assert not any(one.lost for one in later.ls())


def test_a_step_that_was_lost_is_made_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = build(storage, "step")
    later = after_restart(monkeypatch, storage)
    with storage.layers.leased() as lease:
        layer = storage.layers.add(
            io.BytesIO(tar(new="x")), held=False, lease=lease, durability="none"
        )
        entry = later.add(old.facts, layer.id, created=2.0, lease=lease)
    assert later.find(old.facts.key()) == entry
    storage.layers.close()
    assert there(storage) == [layer.id]


def test_pruning_takes_what_was_lost(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    (step,) = build(storage, "step")
    later = after_restart(monkeypatch, storage)
    assert later.prune(max_size=1 << 40, unused_for=1e6).layers == (step.layer.id,)
    assert there(storage) == []


def test_without_a_boot_id_only_the_disk_counts(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no /proc."""
    in_boot(monkeypatch, "")
    (step,) = build(storage, "step")
    assert storage.build_cache.find(step.facts.key()) is None
    storage.sync()
    assert storage.build_cache.find(step.facts.key()) is not None


# What it keeps


def test_the_cache_keeps_layers_of_images_that_are_gone(storage: Storage) -> None:
    """As Docker's build cache does: ``df`` says how much that is, and ``prune`` frees it."""
    one, two = build(storage, "one", "two")
    image = image_of(storage, two.layer, "one", "two")
    assert storage.df().cache == (2, 2, 2 * SIZE, 0)
    assert [listed.shared for listed in storage.build_cache.ls()] == [True, True]
    removed = storage.images.remove("built")
    assert (removed.deleted, removed.layers) == ((image.id,), ())
    assert storage.gc() == []
    assert there(storage) == [one.layer.id, two.layer.id]
    assert storage.df().cache == (2, 2, 2 * SIZE, 2 * SIZE)
    assert [listed.shared for listed in storage.build_cache.ls()] == [False, False]

    pruned = storage.build_cache.prune()
    assert [entry.key for entry in pruned.entries] == [two.facts.key(), one.facts.key()]
    assert (pruned.layers, pruned.size) == ((two.layer.id, one.layer.id), 2 * SIZE)
    assert there(storage) == []
    assert storage.df().cache == (0, 0, 0, 0)


def test_a_cached_layer_cannot_be_removed(storage: Storage) -> None:
    one, two = build(storage, "one", "two")
    with pytest.raises(InUseError, match="is needed by the build cache") as caught:
        storage.layers.remove(two.layer.id)
    assert "storagedrivers cache prune" in str(caught.value.resolution)
    assert storage.layers.release(two.layer.id) == []
    with pytest.raises(InUseError, match=f"layer {two.layer.id}, the build cache"):
        storage.layers.remove(one.layer.id)
    owner = storage.owner(storage.root / "vfs-copy" / two.layer.id)
    assert owner is not None
    assert owner.steps == ("two",)


def test_a_damaged_layer_is_no_source(storage: Storage) -> None:
    """What is in quarantine, or lies on it, is built anew; ``repair --yes`` removes it."""
    one, two, three = build(storage, "one", "two", "three")
    shutil.rmtree(storage.root / "vfs-copy" / two.layer.id)
    (repaired,) = storage.repair()
    assert str(repaired.outcome) == "quarantined"
    assert storage.build_cache.find(one.facts.key()) == one.entry
    for step in (two, three):
        assert storage.build_cache.find(step.facts.key()) is None
    storage.repair(yes=True)
    assert there(storage) == [one.layer.id]


def test_repair_removes_a_cached_layer_at_once(storage: Storage) -> None:
    one, two = build(storage, "one", "two")
    shutil.rmtree(storage.root / "vfs-copy" / one.layer.id)
    assert [str(done.outcome) for done in storage.repair(yes=True)] == ["removed"]
    assert there(storage) == []
    assert storage.build_cache.ls() == []
    assert two.entry.layer not in os.listdir(storage.root / "vfs-copy")


# Pruning


def test_pruning_leaves_what_others_have(storage: Storage) -> None:
    """With *all* the cache forgets it, and it stays."""
    one, two = build(storage, "one", "two")
    image_of(storage, one.layer, "one")
    pruned = storage.build_cache.prune()
    assert (pruned.entries, pruned.layers) == ((two.entry,), (two.layer.id,))
    assert storage.build_cache.prune() == ((), (), (), 0)
    assert storage.build_cache.find(one.facts.key()) == one.entry
    assert storage.build_cache.prune(all=True).entries == (one.entry,)
    assert there(storage) == [one.layer.id]
    storage.images.remove("built")
    assert there(storage) == []


def test_pruning_to_a_size_takes_what_was_used_longest_ago(storage: Storage) -> None:
    """A step is as fresh as what lies on it, and goes after that."""
    old = build(storage, "a", "b", "c")
    new = build(storage, "d", "e")
    ago(storage, 500, *(step.entry for step in old))
    ago(storage, 900, new[0].entry)  # which is below one that was just used

    def pruned(max_size: int, *, unused_for: float | None = None, dry_run: bool = False) -> str:
        cache = storage.build_cache
        found = cache.prune(max_size=max_size, unused_for=unused_for, dry_run=dry_run)
        assert found.size == SIZE * len(found.layers) == SIZE * len(found.entries)
        return "".join(entry.instruction for entry in found.entries)

    assert pruned(5 * SIZE) == ""
    assert pruned(4 * SIZE, dry_run=True) == "c"
    assert pruned(4 * SIZE - 1) == "cb"
    assert pruned(SIZE, unused_for=100) == "a"
    assert there(storage) == [step.layer.id for step in new]
    assert pruned(0) == "ed"


def test_pruning_by_age(storage: Storage) -> None:
    (old,) = build(storage, "old")
    (new,) = build(storage, "new")
    ago(storage, 100, old.entry)
    assert storage.build_cache.prune(unused_for=1000).entries == ()
    assert keys(storage.build_cache.prune(unused_for=50, all=True).entries) == [old.entry.key]
    assert there(storage) == [new.layer.id]


def test_what_changed_nothing_goes_with_what_it_lay_on(storage: Storage) -> None:
    (step,) = build(storage, "step")
    assert step.layer.chain_id is not None
    empty = [
        storage.build_cache.add(Facts(step.layer.chain_id, f"RUN {word}"), None, created=1.0)
        for word in ("true", ":")
    ]
    first = storage.build_cache.add(Facts("", "WORKDIR /"), None, created=1.0)
    assert set(storage.build_cache.prune().entries) == {step.entry, *empty}
    assert [one.entry for one in storage.build_cache.ls()] == [first]
    assert storage.build_cache.prune(all=True).entries == (first,)


def test_what_a_running_build_has_is_not_pruned(storage: Storage) -> None:
    one, two = build(storage, "one", "two")
    with storage.layers.leased() as lease:
        assert storage.build_cache.find(one.facts.key(), lease=lease) == one.entry
        assert storage.build_cache.prune().entries == (two.entry,)
        assert there(storage) == [one.layer.id]
        # Even if it is forgotten: the build goes on with what it has found.
        assert storage.build_cache.prune(all=True).entries == (one.entry,)
        image_of(storage, one.layer, "one")
    assert there(storage) == [one.layer.id]


def test_what_is_mounted_stays_until_it_is_not(storage: Storage) -> None:
    (step,) = build(storage, "step")
    need("mount")
    with storage.layers.mounted(step.layer.id):
        assert storage.build_cache.prune(all=True).layers == ()
    assert [one.orphan.owner for one in storage.gc()] == [step.layer.id]


# What RUNs keep


def cache_volume(storage: Storage, name: str, *, size: int, age: float) -> None:
    volume = storage.volumes.create(
        f"{cache_volumes.PREFIX}{name}", labels={cache_volumes.LABEL: f"/root/{name}"}
    )
    with storage.volumes.used(volume.name) as path:
        (path / "file").write_bytes(os.urandom(size))
    used = time.time() - age
    os.utime(storage.volumes.directory(volume.name), (used, used))


def test_what_runs_keep_is_listed_and_pruned(storage: Storage) -> None:
    (step,) = build(storage, "step")
    ago(storage, 200, step.entry)
    cache_volume(storage, "old", size=100_000, age=300)
    cache_volume(storage, "new", size=200_000, age=100)
    mine = storage.volumes.create(f"{cache_volumes.PREFIX}mine")
    labelled = storage.volumes.create("mine", labels={cache_volumes.LABEL: "x"})
    cache = storage.build_cache
    new, old = cache.volumes()
    assert (new.name, new.id, new.busy) == ("build-cache-new", "/root/new", False)
    assert 100_000 <= old.size < 200_000 <= new.size
    assert cache.prune(unused_for=250, dry_run=True).volumes == (old,)
    with storage.volumes.used(old.name):
        assert [one.busy for one in cache.volumes()] == [False, True]
        assert cache.prune(unused_for=250).volumes == ()
    pruned = cache.prune(max_size=new.size + SIZE)
    assert (pruned.volumes, pruned.entries, pruned.size) == ((old,), (), old.size)
    pruned = cache.prune(max_size=new.size)
    assert (pruned.volumes, keys(pruned.entries)) == ((), [step.entry.key])
    assert cache.prune().volumes == (new,)
    assert cache.volumes() == []
    assert {one.name for one in storage.volumes.ls()} == {mine.name, labelled.name}


# Images as a source


def test_a_poisoned_image_is_a_source_only_if_it_is_named(storage: Storage, tmp_path: Path) -> None:
    """It claims the base and the history of what a Dockerfile does, and holds something else."""
    need("root", "mount")
    base = storage.images.import_(io.BytesIO(tar(base="x")), name="base")
    (tmp_path / "Dockerfile").write_text("FROM base\nWORKDIR /srv\n")
    good = storage.build(tmp_path)
    said = storage.images.config(good).history
    storage.images.remove(good.id)
    storage.build_cache.prune(all=True)

    evil = storage.layers.add(io.BytesIO(tar(srv_evil="x")), parent=base.layer, held=False)
    lines = [f"{'-' if one.empty_layer else ''}{one.created_by}" for one in said]
    poisoned = image_of(storage, evil, *lines, name="poisoned", source="load")
    with storage.database.transaction() as connection:
        connection.execute("UPDATE images SET parent = ? WHERE id = ?", (base.id, poisoned.id))
    found = storage.build(tmp_path)
    assert storage.images.layers.image_layers(found.layer)[-1].id != evil.id
    assert found.layer == storage.build_cache.ls()[0].entry.layer

    named = storage.build(tmp_path, cache_from=["poisoned"], no_cache=True)
    assert named.layer != evil.id
    storage.build_cache.prune(all=True)
    assert storage.build(tmp_path, cache_from=["poisoned"]).layer == evil.id
    assert storage.build_cache.ls() == []  # a build that does not name it never has it
    assert storage.build(tmp_path).layer != evil.id


def borrowed(storage: Storage, names: list[str], said: list[str], chain: str, step: str) -> object:
    """What images have for a step: its layer, or ``nothing`` where it made none; None: no hit."""
    history = [
        History("2020-01-01T00:00:00Z", text.removeprefix("-"), empty_layer=text.startswith("-"))
        for text in said
    ]
    sources = Sources(storage.images, names)
    with storage.layers.leased() as lease:
        found = sources.find(history, chain, step, driver="vfs-copy", lease=lease)
        if found is None:
            return None
        assert found.created == 1704164645.0
        if found.layer is None:
            return "nothing"
        query = "SELECT 1 FROM leases WHERE layer = ?"
        assert storage.database.row(query, found.layer.id) is not None
    return found.layer.id


def test_a_named_image_is_a_source_as_far_as_its_history_says_the_same(storage: Storage) -> None:
    layers: list[Layer] = []
    for name in ("base", "made", "more"):
        below = layers[-1].id if layers else None
        added = storage.layers.add(io.BytesIO(tar(**{name: "x"})), parent=below, held=False)
        layers.append(added)
    history = ["ADD base", "-ENV A=1", "RUN make", "-RUN true", "RUN more"]
    image_of(storage, layers[-1], *history, name="other", source="load")
    base, made, more = (str(layer.chain_id) for layer in layers)

    def found(said: list[str], chain: str, step: str) -> object:
        return borrowed(storage, ["nothere", "other"], said, chain, step)

    assert found([], "", "ADD base") == layers[0].id
    assert found(history[:2], base, "RUN make") == layers[1].id
    assert found(history[:3], made, "RUN true") == "nothing"
    assert found(history[:4], made, "RUN more") == layers[2].id
    assert found(history, more, "RUN most") is None
    assert found(history[:2], base, "RUN makes") is None
    assert found(history[:1], base, "RUN make") is None  # without the ENV
    assert found(["ADD base", "-ENV A=2"], base, "RUN make") is None
    assert found(["ADD base", "ENV A=1"], base, "RUN make") is None
    assert found(history[:2], made, "RUN make") is None  # on other layers
    assert found(history[:3], "sha256:" + "0" * 64, "RUN true") is None
    assert borrowed(storage, [], history[:2], base, "RUN make") is None
    assert Sources(storage.images, ["nothere", "BAD!", "other"]).missing == ["nothere", "BAD!"]
    with storage.layers.leased() as lease:
        sources = Sources(storage.images, ["other"])
        assert sources.find([], "", "ADD base", driver="overlay2", lease=lease) is None
    # Nothing of it gets into the cache.
    assert storage.build_cache.ls() == []


def test_an_image_with_layers_that_its_history_does_not_know(storage: Storage) -> None:
    base = storage.layers.add(io.BytesIO(tar(base="x")), held=False)
    made = storage.layers.add(io.BytesIO(tar(made="x")), parent=base.id, held=False)
    image_of(storage, made, "RUN make", name="other")
    assert borrowed(storage, ["other"], [], str(base.chain_id), "RUN make") == made.id
    assert borrowed(storage, ["other"], [], str(made.chain_id), "RUN make") is None


# The program


@pytest.fixture
def program(place: Place) -> Program:
    place.open().close()
    return Program(place.root, place.run_root)


def test_the_program_lists(program: Program, place: Place) -> None:
    with place.open() as storage:
        one, two = build(storage, "COPY a /a", f"RUN  make\n {'x' * 100}")
        cache_volume(storage, "pip", size=100, age=10)
    text = program("cache", "ls").text
    assert text.splitlines()[0].split()[:3] == ["CACHE", "ID", "STEP"]
    assert text.splitlines()[1].split()[:4] == [one.facts.key()[:12], "COPY", "a", "/a"]
    assert f"RUN make {'x' * 50}…" in text
    assert "RUN --mount=type=cache,id=/root/pip" in text
    ids = [one.facts.key(), two.facts.key(), "build-cache-pip"]
    assert program("cache", "ls", "-q", "--no-trunc").text.split() == ids
    assert program("cache", "ls", "-q").text.split() == [ids[0][:12], ids[1][:12], ids[2]]
    words = ("cache", "ls", "--format", "{{.Step}}|{{.Size}}|{{.UsageCount}}|{{.Reclaimable}}")
    assert program(*words).text.splitlines()[0] == "COPY a /a|1000 B|0|true"
    document = program.document("cache-ls", "cache", "ls")
    assert [entry["key"] for entry in document["entries"]] == ids[:2]
    assert [entry["layer"] for entry in document["entries"]] == [one.layer.id, two.layer.id]
    assert [volume["name"] for volume in document["volumes"]] == ["build-cache-pip"]
    df = program.document("df", "df")["build_cache"]
    assert df == {"entries": 2, "layers": 2, "bytes": 2000, "reclaimable": 2000}
    assert "2 steps" in program("df").text
    owner = program.document("owner", "owner", place.root / "vfs-copy" / one.layer.id)["owner"]
    assert owner["steps"] == ["COPY a /a"]
    assert "build cache: COPY a /a" in program("owner", place.root / "vfs-copy" / one.layer.id).text


def test_the_program_prunes(program: Program, place: Place) -> None:
    with place.open() as storage:
        one, two = build(storage, "COPY a /a", "RUN make")
        ago(storage, 7200, one.entry, two.entry)
    done = program("cache", "prune", "-n")
    assert done.text.splitlines() == [
        f"{two.facts.key()[:12]}  RUN make",
        f"{one.facts.key()[:12]}  COPY a /a",
    ]
    assert done.err == "2 would be removed, 2.0 KiB\n"
    for words in (("--unused-for", "3h"), ("--filter", "until=121m"), ("--max-size", "2k")):
        assert program.document("cache-prune", "cache", "prune", *words)["entries"] == []
    found = program.document("cache-prune", "cache", "prune", "-f", "--keep-storage", "1500")
    assert (found["layers"], found["bytes"]) == ([two.layer.id], 1000)
    found = program.document("cache-prune", "cache", "prune", "--filter", "until=1h59m")
    assert (found["entries"], found["dry_run"]) == ([one.facts.key()], False)
    assert json.loads(program("cache", "ls", "--json").out)["entries"] == []


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--unused-for", "7"), "'7' is no duration"),
        (("--unused-for", "1h 3m"), "'1h 3m' is no duration"),
        (("--unused-for", ""), "'' is no duration"),
        (("--filter", "label=x"), "'label=x' is no filter"),
        (("--max-size", "much"), "'much' is no size"),
    ],
)
def test_wrong_words_are_named(program: Program, words: tuple[str, ...], what: str) -> None:
    assert what in program("cache", "prune", *words, code=1).err


def test_a_store_that_is_open_for_reading_lists(place: Place) -> None:
    with place.open() as storage:
        build(storage, "step")
    with Storage.open(root=place.root, run_root=place.run_root, read_only=True) as storage:
        assert len(storage.build_cache.ls()) == 1
        assert storage.df().cache.entries == 1
        assert storage.build_cache.prune(dry_run=True).size == SIZE
