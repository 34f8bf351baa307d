"""Keys of steps: what changes them and what does not; and why the cache had nothing, in words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from storagedrivers.build.explaining import explain
from storagedrivers.build.keys import Facts
from storagedrivers.stores.build_cache import COMPARED, CacheStore
from storagedrivers.stores.database import Database
from storagedrivers.stores.layers import LayerStore
from storagedrivers.stores.volumes import VolumeStore

CHAIN = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"

FILES = {
    "app": ("directory", 0o755, 0, 0, 0, ""),
    "app/main.py": ("file", 0o644, 0, 0, 10, "1" * 64),
    "app/now": ("link", 0o777, 0, 0, "main.py", ""),
    "app/run.sh": ("file", 0o644, 0, 0, 20, "2" * 64),
}
COPY = Facts(CHAIN, "COPY app /srv", {"--chown": "", "WORKDIR": "/"}, FILES, "d1")
RUN = Facts(CHAIN, "RUN make all", {"ENV PATH": "/bin:/usr/bin", "argument VERSION": "1"})


@pytest.fixture
def cache(tmp_path: Path) -> CacheStore:
    """A cache without layers: its steps changed nothing."""

    def none(name: str) -> object:
        raise AssertionError(name)

    layers = LayerStore(
        Database(tmp_path, create=True),
        tmp_path,
        none,  # type: ignore[arg-type]
        driver="overlay2",
    )
    return CacheStore(layers, lambda: VolumeStore(layers, none))  # type: ignore[arg-type]


def built(cache: CacheStore, *steps: Facts, driver: str | None = None) -> None:
    for facts in steps:
        cache.add(facts, None, created=time.time(), driver=driver)


def changed(**files: tuple[str, int, int, int, int | str, str] | None) -> Facts:
    """The COPY with other files: ``run_sh`` is app/run.sh; None: it is gone."""
    new = {**FILES, **{f"app/{name.replace('_', '.')}": one for name, one in files.items()}}
    return COPY._replace(
        files={path: one for path, one in new.items() if one is not None}, digest="d2"
    )


# Keys


@pytest.mark.parametrize(
    "other",
    [
        RUN._replace(chain=OTHER),
        RUN._replace(chain=""),
        RUN._replace(instruction="RUN make  all"),
        RUN._replace(digest="d1"),
        RUN._replace(environment={}),
        RUN._replace(environment={**RUN.environment, "argument VERSION": "2"}),
        RUN._replace(environment={**RUN.environment, "argument MORE": ""}),
        RUN._replace(environment={"ENV PATH": "1", "argument VERSION": "/bin:/usr/bin"}),
        RUN._replace(environment={"ENV PATH/bin:/usr/bin": "", "argument VERSION": "1"}),
    ],
)
def test_whatever_counts_changes_the_key(other: Facts) -> None:
    assert other.key() != RUN.key()


def test_no_two_facts_run_into_each_other() -> None:
    """Each text has its length, so that none can end as another begins."""
    keys = {
        Facts("", "ab", {}, None, "c").key(),
        Facts("", "a", {}, None, "bc").key(),
        Facts("a", "b", {}, None, "c").key(),
        Facts("", "a", {"b": "c"}).key(),
        Facts("", "a", {"b": ""}, None, "c").key(),
        Facts("", "a1:b", {}, None, "c").key(),
    }
    assert len(keys) == 6


def test_the_order_of_variables_does_not_count() -> None:
    backwards = dict(reversed(RUN.environment.items()))
    assert [*backwards] != [*RUN.environment]
    assert RUN._replace(environment=backwards).key() == RUN.key()


def test_of_an_instruction_what_docker_compares_counts() -> None:
    """A file that was copied under another name before is the same file."""
    compared = COPY._replace(compared="COPY file: in /srv")
    other = compared._replace(instruction="COPY other /srv")
    assert other.key() == compared.key() != COPY.key()
    assert compared._replace(compared="COPY file: in /opt").key() != compared.key()


def test_files_count_by_their_digest_only() -> None:
    assert COPY._replace(files=None).key() == COPY.key()
    assert COPY._replace(digest="d2").key() != COPY.key()


def test_facts_are_packed_for_comparing() -> None:
    """Bytes of a Dockerfile or of a name that are no UTF-8 are no obstacle."""
    odd = COPY._replace(
        instruction="COPY \udcff /",
        environment={"ENV A\udcff": "ä\udc80"},
        files={"a\udcff": FILES["app/main.py"]},
    )
    for facts in (COPY, RUN, odd, COPY._replace(files={}), RUN._replace(compared="RUN x")):
        found = Facts.unpack(facts.chain, facts.instruction, facts.pack())
        assert found == facts.shown()
    assert len(odd.key()) == 64


def test_ten_thousand_files_are_packed_fast_and_small() -> None:
    files = {f"src/{n:05}": ("file", 0o644, 0, 0, n, f"{n * 7919:064x}") for n in range(10_000)}
    facts = COPY._replace(files=files)
    began = time.process_time()
    packed = facts.pack()
    assert len(Facts.unpack(facts.chain, facts.instruction, packed).files or ()) == 10_000
    assert time.process_time() - began < 0.5  # 40 ms, and others may have the processor's cache
    assert len(packed) < 400_000


# Why there is nothing


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (changed(run_sh=("file", 0o755, 0, 0, 20, "2" * 64)), "mode of app/run.sh 0644 → 0755"),
        (changed(run_sh=("file", 0o644, 7, 8, 20, "2" * 64)), "owner of app/run.sh 0:0 → 7:8"),
        (changed(main_py=("file", 0o644, 0, 0, 10, "3" * 64)), "content of app/main.py changed"),
        (changed(new=("file", 0o644, 0, 0, 1, "4" * 64)), "app/new is new"),
        (changed(run_sh=None), "app/run.sh is gone"),
        (changed(now=("link", 0o777, 0, 0, "run.sh", "")), "app/now main.py → run.sh"),
        (
            changed(now=("file", 0o644, 0, 0, 1, "5" * 64)),
            "app/now was a link, and is a file",
        ),
        (changed(run_sh=None, main_py=None), "app/main.py is gone, and 1 more"),
        (COPY._replace(digest="d2"), "what it reads changed"),
        (
            COPY._replace(environment={"--chown": "7:8", "WORKDIR": "/"}),
            '--chown "" → 7:8',
        ),
        (RUN._replace(environment={**RUN.environment, "argument VERSION": "2"}),
         "argument VERSION 1 → 2"),
        (RUN._replace(environment={**RUN.environment, "USER": "app"}), "USER is new: app"),
        (
            RUN._replace(environment={"argument VERSION": "1"}),
            "ENV PATH is gone: it was /bin:/usr/bin",
        ),
        (RUN._replace(instruction="RUN make some"),
         "the instruction was RUN make all → RUN make some"),
        (RUN._replace(compared="RUN <<EOF\nmake\nEOF"),
         'what it comes to "" → RUN <<EOF\nmake\nEOF'),
        (RUN._replace(instruction="RUN reboot"), "it was never built here"),
        (RUN._replace(instruction="COPY make all"), "it was never built here"),
        (RUN._replace(chain=OTHER), "the layers below it changed"),
        (Facts(OTHER, "RUN ls"), "it was never built here"),
    ],
)  # fmt: skip
def test_the_first_difference_is_named(cache: CacheStore, facts: Facts, why: str) -> None:
    assert explain(facts, cache) == "it was never built here"
    built(cache, COPY, RUN)
    assert cache.find(facts.key()) is None
    assert explain(facts, cache) == why


def test_the_nearest_of_several_is_compared(cache: CacheStore) -> None:
    """Another application with the same instruction on the same layers is none of its history."""
    theirs = {f"app/{name}": FILES["app/main.py"] for name in ("a", "b", "c")}
    built(cache, COPY, COPY._replace(files=theirs, digest="d9"))
    mine = changed(run_sh=("file", 0o755, 0, 0, 20, "2" * 64))
    assert explain(mine, cache) == "mode of app/run.sh 0644 → 0755"


def test_what_many_builds_read_is_not_kept_for_ever(cache: CacheStore) -> None:
    """A large context that changes each time would fill the database."""
    for number in range(COMPARED + 3):
        built(cache, COPY._replace(digest=f"d{number + 10}"))
    sizes = [row[0] for row in cache.database.rows("SELECT LENGTH(facts) FROM build_cache")]
    assert [size > 0 for size in sizes] == [False] * 3 + [True] * COMPARED
    mine = changed(run_sh=("file", 0o755, 0, 0, 20, "2" * 64))
    assert explain(mine, cache) == "mode of app/run.sh 0644 → 0755"


def test_a_long_change_is_cut_to_where_it_is(cache: CacheStore) -> None:
    long = "RUN apt-get update && apt-get install --yes " + " ".join(map(str, range(200)))
    built(cache, RUN._replace(instruction=long))
    why = explain(RUN._replace(instruction=long.replace(" 150 ", " 1500 ")), cache)
    assert len(why) < 200
    assert " 150 151" in why
    assert " 1500 151" in why


def test_what_another_driver_has_is_said(cache: CacheStore) -> None:
    built(cache, RUN, driver="btrfs-snapshot")
    assert cache.find(RUN.key()) is None
    assert "driver btrfs-snapshot" in explain(RUN, cache)
    assert cache.find(RUN.key(), driver="btrfs-snapshot") is not None


def test_an_instruction_in_bytes_that_are_no_utf_8(cache: CacheStore) -> None:
    odd = RUN._replace(instruction="RUN echo \udcff")
    built(cache, odd)
    assert cache.find(odd.key()) is not None
    other = odd._replace(environment={**RUN.environment, "argument VERSION": "2"})
    assert explain(other, cache) == "argument VERSION 1 → 2"
