"""What volume says of what is wrong, and of what it costs; Docker's other words for its verbs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from contained import clean
from programs import Program, environment
from stored import Place
from volumed import cleaned

from storagedrivers.errors import InUseError, VolumeError
from storagedrivers.linux import tree
from storagedrivers.storage import Storage
from storagedrivers.stores import volume_removal
from storagedrivers.volumes import sizes


@pytest.fixture
def program(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Program]:
    need("mount", "overlay")
    made = Program(on_filesystem("ext4") / "store", tmp_path / "run")
    yield made
    with Storage.open(root=made.root, run_root=made.run_root) as storage:
        for volume in storage.volumes.ls():
            storage.volumes.remove(volume.name, force=True)
        held = storage.root / "locks"
        assert not held.exists() or os.listdir(held) == []
    clean(Storage.open(root=made.root, run_root=made.run_root))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Place]:
    need("root")
    with cleaned(Place(tmp_path / "place")) as made:
        yield made


def missing(program: Program, name: str) -> None:
    """A volume whose device is not there."""
    program("volume", "create", name, "-o", "type=ext4", "-o", "device=/none/disk")


def foreign(program: Program, name: str) -> None:
    """A volume whose driver is not installed any more."""
    program("volume", "create", name)
    with Storage.open(root=program.root, run_root=program.run_root) as storage:
        with storage.database.transaction() as connection:
            connection.execute(
                "UPDATE volumes SET driver = 'gone', options = ? WHERE name = ?",
                (json.dumps({"path": "/disk"}), name),
            )


def test_one_that_cannot_be_seen_does_not_hide_the_others(program: Program) -> None:
    for make, name in ((foreign, "alien"), (missing, "bad")):
        make(program, name)
    program("volume", "create", "db")
    done = program("volume", "usage", code=1)
    rows = done.text.splitlines()
    assert [(row.split()[0], "cannot be seen" in row) for row in rows] == [
        ("VOLUME", False), ("alien", True), ("bad", True), ("db", False),
    ]  # fmt: skip
    assert "volume bad cannot be mounted: ext4 of /none/disk" in done.err
    assert "no volume driver is named 'gone'" in done.err
    assert "→ install the package that has it" in done.err
    found = program.document("volume-usage", "volume", "usage", code=1)["volumes"]
    assert [(one["name"], one["bytes"] is None) for one in found] == [
        ("alien", True), ("bad", True), ("db", False),
    ]  # fmt: skip
    assert "cannot be mounted" in found[1]["error"]
    assert program.document("volume-usage", "volume", "usage", "db")["volumes"] == [found[2]]
    assert "db" in program("df", "-v").text


def test_a_volume_without_its_driver_is_only_forgotten(program: Program) -> None:
    foreign(program, "alien")
    refused = program("volume", "rm", "alien", code=1)
    assert "no volume driver is named 'gone'" in refused.err
    assert program("volume", "ls", "-q").line == "alien"
    done = program("volume", "rm", "-f", "alien")
    assert done.line == "alien"
    assert done.err == (
        "storagedrivers: warning: volume alien is only forgotten: its driver gone is not there to"
        " remove what it keeps outside of the store; its options were path=/disk\n"
    )
    assert program("volume", "ls", "-q").out == b""


def test_inspect_shows_those_that_are_there(program: Program) -> None:
    program("volume", "create", "db")
    done = program("volume", "inspect", "none", "db", code=1)
    assert [one["Name"] for one in json.loads(done.text)] == ["db"]
    assert "there is no volume 'none'" in done.err
    document = program.document("volume-inspect", "volume", "inspect", "db", "none", code=1)
    assert len(document["volumes"]) == 1
    assert program("volume", "inspect", "-f", "{{.Name}}", "db", "none", code=1).line == "db"
    assert json.loads(program("volume", "inspect", "none", code=1).text) == []


def test_labels_in_templates(program: Program) -> None:
    program("volume", "create", "db", "-l", "a=b", "-l", "c=d")
    template = '{{.Labels}} {{.Labels.a}} {{index .Labels "c"}} {{.Options}}'
    line = program("volume", "inspect", "-f", template, "db").line
    assert line == "map[a:b c:d] b d map[]"
    line = program("volume", "ls", "--format", "{{.Labels}} {{.Labels.a}}").line
    assert line == "a=b,c=d b"
    assert "is not closed" in program("volume", "ls", "--format", "{{.Name", code=1).err


def test_dockers_other_words(program: Program) -> None:
    program("volume", "create", "db", "-l", "a=b")
    assert program("volume", "list", "-q", "-f", "label=a").line == "db"
    assert program("volume", "remove", "db").line == "db"
    shown = program("volume", "--help").text
    assert "list " not in shown.replace("list the volumes", "")
    assert program("volume", "prune", "--help").text.count("--filter") == 2  # usage, and itself
    assert "--json" in program("volume", "ls", "--help").text


def test_a_tar_that_is_none(program: Program, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(bytes(range(1, 256)) * 20)
    for words, said, instead in (
        (("db", tmp_path / "noise"), f"{tmp_path}/noise: it is no tar, plain or", "volume export"),
        (("db", tmp_path / "none.tar"), "none.tar: No such file or directory", "name a file"),
        (("db", tmp_path), f"{tmp_path}: Is a directory", "name a file"),
        (("db",), "standard input: it is empty", "should have written it"),
        (("db", "-"), "standard input: it is empty", "should have written it"),
        (("data.tar",), "standard input: it is empty", "volume import VOLUME data.tar"),
    ):
        err = program("volume", "import", *words, code=1).err
        assert said in err, words
        assert instead in err.partition("→")[2], words
    assert program("volume", "ls", "-q").out == b""
    program("volume", "create", "db")
    err = program("volume", "export", "db", "-o", "/nonex/x", code=1).err
    assert err == (
        "storagedrivers: /nonex/x: No such file or directory\n"
        "  → name one in a directory that is there\n"
    )


def test_prune_says_what_it_gives_back(program: Program) -> None:
    name = program("volume", "create").line
    data = Path(program("volume", "inspect", "-f", "{{.Mountpoint}}", name).line)
    (data / "large").write_bytes(os.urandom(3 << 20))
    os.sync()
    size = tree.measure_tree(data.parent).bytes
    document = program.document("volume-prune", "volume", "prune", "-n")
    assert (document["volumes"], document["bytes"]) == ([name], size)
    assert program("volume", "prune").err == "1 were removed, 3.0 MiB\n"
    assert program("volume", "prune").err == "0 were removed, 0 B\n"


def test_df_and_usage_say_the_same(program: Program) -> None:
    need("loop", "ext4", "mkfs.ext4")
    program("volume", "create", "plain")
    program("volume", "create", "limited", "--size", "4m")
    program("volume", "create", "tmp", "-o", "type=tmpfs", "-o", "device=tmpfs")
    used = program.document("volume-usage", "volume", "usage")["volumes"]
    listed = program.document("df", "df", "-v")["volumes"]
    assert [(one["name"], one["bytes"], one["inodes"]) for one in used] == [
        (one["name"], one["bytes"], one["inodes"]) for one in listed
    ]
    assert {one["bytes"] for one in program.document("df", "df")["volumes"]} == {None}


def test_a_size_that_no_file_can_have(program: Program) -> None:
    need("loop", "ext4", "mkfs.ext4")
    err = program("volume", "create", "db", "--size", "100t", code=1).err
    assert f"a volume of {100 << 40} bytes is too large" in err
    assert "→ give it" in err
    assert program("volume", "ls", "-q").out == b""
    assert program.document("check", "check")["findings"] == []


def test_a_reader_that_has_seen_enough(program: Program) -> None:
    program("volume", "create", "db")
    for words in (("volume", "ls", "--json"), ("run", "--dry-run", "--json", "-v", "db:/a", "x")):
        reader, writer = os.pipe()
        os.close(reader)
        command = [*program.command()[:-4], *program.options, *words]
        done = subprocess.run(
            command, stdout=writer, stderr=subprocess.PIPE, check=False, env=environment()
        )
        os.close(writer)
        assert done.returncode != 0
        assert b"Broken pipe" not in done.stderr


def test_a_lock_stays_only_where_something_is_to_be_finished(
    plain: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plain.open() as storage:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def full_from_now_on(*_: object) -> None:
            patch.setattr(tree, "remove_tree", full)
            full()

        with monkeypatch.context() as patch:
            patch.setattr(sizes, "enforce", full)
            with pytest.raises(OSError, match="No space"):
                storage.volumes.create("db", size=2 << 20)
            assert not os.path.exists(storage.volumes.lock_path("db"))
            patch.setattr(sizes, "enforce", full_from_now_on)
            with pytest.raises(OSError, match="No space"):
                storage.volumes.create("db", size=2 << 20)
            assert os.path.exists(storage.volumes.lock_path("db"))
    with plain.open() as storage:
        assert not os.path.exists(storage.volumes.lock_path("db"))
        assert os.listdir(storage.volumes.home) == []


def test_values_that_are_none(plain: Place) -> None:
    with plain.open() as storage:
        volumes = storage.volumes
        db = volumes.create("db")
        attempts: list[tuple[Callable[..., object], tuple[object, ...], dict[str, object], str]] = [
            (volumes.create, ("new",), {"size": "64m"}, "a number of bytes, and not '64m'"),
            (volumes.create, ("new",), {"size": True}, "a number of bytes, and not True"),
            (volumes.create, ("new",), {"labels": {"a": 5}}, "the label 'a' is a text, and not 5"),
            (volumes.create, ("new",), {"labels": {5: "a"}}, "the name of a label is a text"),
            (volumes.create, ("new",), {"options": ["a"]}, "options of a volume are a mapping"),
            (volumes.create, ("new",), {"driver": 3}, "the name of a volume driver is a text"),
            (volumes.create, (3,), {}, "the name of a volume is a text, and not 3"),
            (volumes.get, (db,), {}, "the name of a volume is a text, and not the volume"),
            (volumes.remove, (db,), {}, "and not the volume"),
            (volumes.data, (db,), {}, "and not the volume"),
            (volumes.hold, (db,), {}, "and not the volume"),
            (volumes.clone, ("db", db), {}, "and not the volume"),
            (volumes.import_, (db, None), {}, "and not the volume"),
        ]
        for function, given, named, said in attempts:
            with pytest.raises(VolumeError) as caught:
                function(*given, **named)
            assert said in str(caught.value)
            assert caught.value.resolution
        assert [one.name for one in volumes.ls()] == ["db"]


def test_a_user_is_named_once() -> None:
    with pytest.raises(InUseError) as caught:
        volume_removal.refuse_used("db", ["box", "web"])
    error = caught.value
    assert str(error) == "volume db is in use by containers box, web"
    assert error.holders == ("box", "web")
    assert error.details is None
    assert error.resolution == "remove them first: storagedrivers container rm box web"
