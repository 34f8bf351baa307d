"""container as a user has it: processes, exit codes, output."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from contained import BASE, clean
from programs import HEAVY, Program, environment

from storagedrivers.storage import Storage


class OptionsFirst(Program):
    """What follows the image is the command's: global options have to come before."""

    def command(self, *words: object) -> list[str]:
        given = [*map(str, words)]
        if given[-1] == "--json":
            given = ["--json", *given[:-1]]
        return [sys.executable, "-m", "storagedrivers", *self.options, *given]


@pytest.fixture
def program(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Program]:
    need("mount", "overlay")
    made = OptionsFirst(on_filesystem("ext4") / "store", tmp_path / "run")
    made("image", "import", "-", "base", "-c", 'CMD ["sh"]', input=BASE)
    yield made
    clean(Storage.open(root=made.root, run_root=made.run_root))


def create(program: Program, name: str, *words: str) -> str:
    return program("container", "create", "--name", name, *words, "base").line


def write(program: Program, name: str, file: str, content: str) -> None:
    path = Path(program("container", "mount", name).line)
    (path / file).write_text(content)
    program("container", "unmount", name)


def test_what_a_script_needs_is_printed_alone(program: Program, tmp_path: Path) -> None:
    identity = create(program, "one")
    assert re.fullmatch("[0-9a-f]{64}", identity)
    write(program, "one", "new", "x")
    assert program("container", "diff", identity[:8]).text == "A /new\n"
    assert re.fullmatch("sha256:[0-9a-f]{64}", program("container", "commit", "one", "done").line)
    assert program("container", "checkpoint", "one").line == "1"
    assert program("container", "checkpoint", "one", "two").line == "two"
    assert program("container", "checkpoint", "one", "--ls").text.split() == ["1", "two"]
    assert program("container", "rollback", "one", "1").line == identity
    assert program("container", "checkpoint", "one", "two", "--drop").line == "two"
    fork = program("container", "fork", "one", "--name", "other").line
    assert program("container", "reset", "one").line == identity
    assert program("container", "diff", "one").out == b""
    assert program("container", "diff", "other").text == "A /new\n"
    assert program("container", "rename", "one", "first").line == identity
    assert program("container", "ls", "-q", "--no-trunc").text.split() == [identity, fork]
    assert program("container", "rm", "first", fork).text.split() == ["first", fork]
    assert program("container", "ls", "-q").out == b""


def test_the_documents(program: Program) -> None:
    made = program.document("container", "container", "create", "base")
    name = made["name"]
    assert program.document("container-mount", "container", "mount", name)["path"]
    (row,) = program.document("container-ls", "container", "ls")["containers"]
    assert (row["id"], row["status"], row["command"]) == (made["id"], "created", ["sh"])
    assert [one["times"] for one in row["mounts"]] == [1]
    done = program.document("container-done", "container", "rm", name, "none", code=1)
    assert [one["done"] for one in done["containers"]] == [False, False]
    assert "is mounted at" in done["containers"][0]["error"]
    (Path(row["mounts"][0]["path"]) / "f").write_text("x")
    program.document("container-done", "container", "unmount", name)
    changes = program.document("container-diff", "container", "diff", name)["changes"]
    assert changes == [{"kind": "A", "path": "/f"}]
    point = program.document("container-checkpoint", "container", "checkpoint", name, "a")
    assert point == {"schema": 1, "container": made["id"], "label": "a"}
    listed = program.document("container-checkpoints", "container", "checkpoint", name, "--ls")
    assert [one["label"] for one in listed["checkpoints"]] == ["a"]
    program.document("container", "container", "rollback", name, "a")
    program.document("container", "container", "reset", name)
    program.document("container", "container", "fork", name)
    program.document("container", "container", "rename", name, "other")
    image = program.document("container-commit", "container", "commit", "other", "done")
    assert image["names"] == ["docker.io/library/done:latest"]
    (found,) = program.document("container-inspect", "container", "inspect", "other")["containers"]
    assert found["image_is_gone"] is False
    assert found["config"]["Cmd"] == ["sh"]
    assert len(program.document("container-prune", "container", "prune", "-n")["containers"]) == 2
    assert len(program.document("container-prune", "container", "prune")["containers"]) == 2


def test_lists_for_people_and_for_scripts(program: Program) -> None:
    first = create(program, "first", "-l", "kind=a", "-e", "A=1")
    create(program, "second", "-l", "kind=b")
    lines = program("container", "ls").text.splitlines()
    assert lines[0].split() == ["ID", "NAME", "IMAGE", "COMMAND", "CREATED", "STATUS", "MOUNTED"]
    assert lines[1].split()[:4] == [first[:12], "first", "base", "sh"]
    for words, names in (
        (("name=fir",), ["first"]),
        ((f"id={first[:5]}",), ["first"]),
        (("label=kind",), ["first", "second"]),
        (("label=kind=b",), ["second"]),
        (("label=kind=a", "label=kind=b"), ["first", "second"]),
        (("label=kind=a", "name=second"), []),
        (("status=created", "ancestor=base"), ["first", "second"]),
        (("status=running",), []),
        (("ancestor=other",), []),
    ):
        filters = [part for word in words for part in ("-f", word)]
        found = program("container", "ls", "--format", "{{.Name}}", *filters).text.split()
        assert found == names, words
    assert program("container", "ls", "--format", r"table {{.Names}}\t{{.Image}}").text == (
        "NAMES   IMAGE\nfirst   base\nsecond  base\n"
    )
    assert '"Name": "first"' in program("container", "ls", "--format", "json").text
    wrong = program("container", "ls", "--format", "{{.Nam}}", code=1)
    assert "there is no field Nam" in wrong.err
    assert "is no filter" in program("container", "ls", "-f", "x=y", code=1).err
    assert "image: sha256:" in program("container", "inspect", "first").text


def test_files_go_in_and_out(program: Program, tmp_path: Path) -> None:
    create(program, "one")
    (tmp_path / "f").write_text("content")
    assert program("container", "cp", tmp_path / "f", "one:/etc/f").out == b""
    program("container", "cp", "one:/etc/f", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content"
    out = program("container", "cp", "one:/etc", "-").out
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert "etc/f" in archive.getnames()
    program("container", "cp", "-", "one:/usr", input=out)
    program("container", "cp", "one:/usr/etc/f", tmp_path / "again")
    assert (tmp_path / "again").read_text() == "content"
    assert "there is no /none" in program("container", "cp", "one:/none", tmp_path, code=1).err
    exported = program("container", "export", "one").out
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        assert {"etc/f", "usr/a", ".dockerenv"} <= set(archive.getnames())
    assert program("container", "export", "one", "-o", tmp_path / "out.tar").out == b""
    assert (tmp_path / "out.tar").read_bytes() == exported


def test_commits_of_one_epoch_are_the_same(program: Program) -> None:
    ids = []
    for name in ("one", "two"):
        create(program, name)
        write(program, name, "f", "x")
        command = program.command("container", "commit", name, "-m", "m", "-c", "ENV A=1")
        own = {**environment(), "SOURCE_DATE_EPOCH": "1000000000"}
        done = subprocess.run(command, capture_output=True, check=True, env=own)
        ids.append(done.stdout)
    assert ids[0] == ids[1]
    own = {**environment(), "SOURCE_DATE_EPOCH": "soon"}
    done = subprocess.run(
        program.command("container", "commit", "one"), capture_output=True, check=False, env=own
    )
    assert done.returncode == 1
    assert b"SOURCE_DATE_EPOCH is 'soon'" in done.stderr


def test_the_options_of_create(program: Program, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\nB=2\n\n  C=3\n")
    words = ("-e", "A=1", "--env-file", str(tmp_path / "env"), "-u", "me", "-w", "/w", "--rm")
    made = program("container", "create", *words, "base", "ls", "--json", "-l").line
    (found,) = program.document("container-inspect", "container", "inspect", made)["containers"]
    config = found["config"]
    assert config["Cmd"] == ["ls", "--json", "-l"]
    assert sorted(config["Env"]) == ["A=1", "B=2", "C=3"]
    assert (config["User"], config["WorkingDir"], config["AutoRemove"]) == ("me", "/w", True)
    assert "is no variable" in program("container", "create", "-e", "A B=1", "base", code=1).err
    assert "is no size" in program("container", "create", "--size", "much", "base", code=1).err


def test_global_options_of_create(program: Program) -> None:
    """Before the image they are the program's, after it the command's."""
    words = ("container", "create", "--json", "--name", "one", "base", "ls", "--json", "-l")
    assert json.loads(program(*words).text)["name"] == "one"
    (found,) = program.document("container-inspect", "container", "inspect", "one")["containers"]
    assert found["config"]["Cmd"] == ["ls", "--json", "-l"]


def test_errors_say_what_to_do(program: Program, tmp_path: Path) -> None:
    create(program, "one")
    taken = program("container", "create", "--name", "one", "base", code=1).err
    assert "the name one is taken" in taken
    assert "→" in taken
    none = program("container", "diff", "none", code=1).err
    assert "there is no container 'none'" in none
    assert "container ls" in none
    both = program("container", "cp", "one:/a", "one:/b", code=1).err
    assert "both paths are in containers" in both
    assert "neither 'a' nor 'b'" in program("container", "cp", "a", "b", code=1).err
    assert "'soon' is no status" in program("container", "ls", "-f", "status=soon", code=1).err
    nowhere = tmp_path / "none/file"
    done = program("container", "export", "one", "-o", nowhere, code=1)
    assert done.err.startswith(f"storagedrivers: {nowhere}: No such file")
    assert "there is no image" in program("container", "create", "none", code=1).err
    program("container", "mount", "one")
    assert "container unmount one" in program("container", "reset", "one", code=1).err
    assert program("container", "rm", "-f", "one").line == "one"


def test_a_start_imports_little(program: Program) -> None:
    create(program, "one")
    for words in (("ls", "-q"), ("mount", "one"), ("unmount", "one")):
        command = program.command("container", *words)
        command.insert(1, "-X")
        command.insert(2, "importtime")
        done = subprocess.run(command, capture_output=True, check=True, env=environment())
        names = {line.split("|")[-1].strip() for line in done.stderr.decode().splitlines()}
        assert "argparse" in names
        # The configs of containers are JSON.
        assert not (set(HEAVY) - {"json"}) & names, words
    assert os.listdir(program.root / "locks") == []
