"""image, and the short verbs load, save, images and history, as a user has them."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from image_archives import compressed, digest, docker, image, layout_of, read, write
from image_archives import tar as archive_of
from programs import HEAVY, Program, environment
from stored import clean, release, tar

from storagedrivers.storage import Storage

BOTTOM, TOP = tar(etc_motd="hello\n"), tar(new="1")
MADE = image(
    BOTTOM,
    TOP,
    history=[
        {
            "created_by": "/bin/sh -c #(nop) ADD file:0123456789 in /",
            "created": "2024-01-01T00:00:00Z",
        },
        {"created_by": 'CMD ["sh"]', "empty_layer": True},
        {"created_by": "RUN\tmake", "comment": "why"},
    ],
)  # fmt: skip
NAME = "docker.io/library/thing:1"


@pytest.fixture
def program(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Program]:
    need("mount", "overlay")
    made = Program(on_filesystem("ext4") / "store", tmp_path / "run")
    yield made
    if made.root.exists():
        with Storage.open(root=made.root, run_root=made.run_root) as storage:
            storage.images.prune(all=True)
        clean(Storage.open(root=made.root, run_root=made.run_root))
        release(made.run_root)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write(docker(MADE, "thing:1"), tmp_path / "thing.tar")


def test_load_prints_ids_alone(program: Program, archive: Path, tmp_path: Path) -> None:
    assert program("load", "-i", archive).line == MADE.id
    assert program("image", "load", input=archive.read_bytes()).line == MADE.id
    assert program("load", "-i", "-", input=compressed(archive.read_bytes())).line == MADE.id
    layout = write(layout_of(MADE, "host/x:2"), tmp_path / "layout")
    assert program("load", "-i", layout, "--name", "named").line == MADE.id
    assert program("images", "--format", "{{.Repository}}:{{.Tag}}").text.splitlines() == [
        "named:latest",
        "thing:1",
    ]


def test_load_waits_for_the_disk_unless_told_not_to(program: Program, archive: Path) -> None:
    def durable() -> set[bool]:
        with Storage.open(root=program.root, run_root=program.run_root) as storage:
            return {layer.durable for layer in storage.layers.ls()}

    program("load", "-i", archive, "--durability", "none")
    assert durable() == {False}
    program("load", "-i", archive)
    assert durable() == {True}, "they were there, and had still to reach the disk"


def test_pipes_in_both_directions(program: Program, archive: Path) -> None:
    """A redirected file, a pipe and a pipe of a pipe."""
    with archive.open("rb") as file:
        assert program("load", stdin=file).line == MADE.id
    saving = subprocess.Popen(
        program.command("save", "thing:1"), stdout=subprocess.PIPE, env=environment()
    )
    assert program("load", "--name", "again", stdin=saving.stdout).line == MADE.id
    assert saving.stdout is not None
    saving.stdout.close()
    assert saving.wait() == 0


def test_tables(program: Program, archive: Path) -> None:
    program("load", "-i", archive)
    head, line = program("images").text.splitlines()
    assert re.split("  +", head) == ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    assert re.split("  +", line)[:3] == ["thing", "1", MADE.id[7:19]]
    assert re.split("  +", line)[4] == "7 B"
    assert program("images", "-q").line == MADE.id[7:19]
    assert program("images", "-q", "--no-trunc").line == MADE.id
    head, line = program("image", "ls", "--digests").text.splitlines()
    assert re.split("  +", line)[2] == "<none>"
    program("load", "-i", write(docker(image(TOP)), archive.with_name("nameless.tar")))
    assert re.split("  +", program("images").text.splitlines()[1])[:2] == ["<none>", "<none>"]


def test_filters(program: Program, archive: Path, tmp_path: Path) -> None:
    program("load", "-i", archive)
    program("load", "-i", write(docker(image(TOP)), tmp_path / "nameless.tar"))
    program("image", "tag", "thing:1", "host:5000/some/thing:2")

    def listed(*words: str) -> list[str]:
        text = program("images", "--format", "{{.Repository}}:{{.Tag}}", *words).text
        return text.splitlines()

    everything = ["<none>:<none>", "thing:1", "host:5000/some/thing:2"]
    assert sorted(listed()) == sorted(everything)
    assert listed("-f", "dangling=true") == everything[:1]
    assert sorted(listed("-f", "dangling=false")) == sorted(everything[1:])
    assert listed("-f", "reference=thing") == ["thing:1"]
    assert listed("thi*:1") == ["thing:1"]
    assert listed("-f", "reference=*/*/*:2") == ["host:5000/some/thing:2"]
    assert listed("-f", "reference=*/thing") == []
    done = program("images", "-f", "size=1", code=1)
    assert "dangling=true" in done.err


def test_history(program: Program, archive: Path) -> None:
    program("load", "-i", archive)
    head, *lines = program("history", "thing:1").text.splitlines()
    assert re.split("  +", head) == ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    assert re.split("  +", lines[0])[::2] == [MADE.id[7:19], "RUN make", "why"]
    assert re.split("  +", lines[1])[:3:2] == ["<missing>", 'CMD ["sh"]']
    assert re.split("  +", lines[2])[2:4] == ["/bin/sh -c #(nop) ADD file:0123456789 in /", "6 B"]
    text = program("image", "history", "thing:1", "--format", "{{.ID}} {{.CreatedAt}}").text
    assert text.splitlines()[2] == "<missing> 2024-01-01 00:00:00 +0000"
    assert program("history", "-q", "--no-trunc", "thing:1").text.splitlines() == [
        MADE.id, "<missing>", "<missing>",
    ]  # fmt: skip


def test_documents(program: Program, archive: Path, tmp_path: Path) -> None:
    (loaded,) = program.document("image-load", "load", "-i", archive)["images"]
    assert loaded == {"id": MADE.id, "names": [NAME]}
    (listed,) = program.document("image-ls", "images")["images"]
    assert (listed["id"], listed["size"]) == (MADE.id, 7)
    (one,) = program.document("image-inspect", "image", "inspect", "thing:1")["images"]
    assert one["config"] == {"Cmd": ["/bin/sh"]}
    assert [layer["diff_id"] for layer in one["layers"]] == MADE.diff_ids
    steps = program.document("image-history", "history", "thing:1")["history"]
    assert [step["empty"] for step in steps] == [False, True, False]
    assert program.document("image", "image", "tag", "thing:1", "b")["id"] == MADE.id
    root = tmp_path / "root.tar"
    root.write_bytes(BOTTOM)
    made = program.document("image", "image", "import", root, "rootfs")
    assert made["source"] == "import"
    would = program.document("image-prune", "image", "prune", "-a", "--dry-run")
    assert sorted(would["deleted"]) == sorted([MADE.id, made["id"]])
    removed = program.document("image-rm", "image", "rm", "rootfs", "nothing", code=1)["images"]
    assert removed[0]["deleted"] == [made["id"]]
    assert "no image" in removed[1]["error"]
    assert program.document("image-prune", "image", "prune", "-a")["bytes"] == 7


def test_inspect_for_people(program: Program, archive: Path) -> None:
    program("load", "-i", archive)
    lines = program("image", "inspect", "thing:1").text.splitlines()
    assert f"id: {MADE.id}" in lines
    assert "created: 2024-02-03 04:05:06 +0000" in lines
    assert 'config: {"Cmd": ["/bin/sh"]}' in lines
    assert any(MADE.diff_ids[1] in line for line in lines)


def test_save(program: Program, archive: Path, tmp_path: Path) -> None:
    program("load", "-i", archive)
    out = tmp_path / "out.tar"
    assert program("save", "thing:1", "-o", out).out == b""
    assert json.loads(read(out.read_bytes())["manifest.json"])[0]["RepoTags"] == ["thing:1"]
    assert program("image", "save", "thing:1").out == out.read_bytes()
    assert "manifest.json" not in read(program("save", "--form", "oci", "thing:1").out)
    program("save", "--form", "layout", "-o", tmp_path / "layout", "thing:1")
    assert (tmp_path / "layout/index.json").exists()
    assert "-o DIRECTORY" in program("save", "--form", "layout", "thing:1", code=1).err
    program("save", "thing:1", "nothing", "-o", tmp_path / "none.tar", code=1)
    assert not (tmp_path / "none.tar").exists()


def test_import_and_export(program: Program, tmp_path: Path) -> None:
    root = tmp_path / "root.tar.gz"
    root.write_bytes(compressed(BOTTOM))
    words = ("-c", 'CMD ["a"]', "-m", "why")
    made = program("image", "import", root, "rootfs:1", *words).line
    assert program("image", "import", "-", input=TOP).line != made
    assert program("history", "rootfs:1", "--format", "{{.Comment}}").line == "why"
    with tarfile.open(fileobj=io.BytesIO(program("image", "export", "rootfs:1").out)) as flat:
        assert sorted(flat.getnames()) == [".", "etc", "etc/motd"]
    done = program("image", "import", root, "Bad", code=1)
    assert "no name of an image" in done.err


def test_rm_and_prune_say_what_is_gone(program: Program, archive: Path) -> None:
    program("load", "-i", archive)
    program("image", "tag", "thing:1", "thing:2")
    done = program("image", "rm", MADE.id, code=1)
    assert "several names: thing:1, thing:2" in done.err
    assert "--force" in done.err
    assert program("image", "rm", "thing:2").line == "Untagged: thing:2"
    assert program("image", "rm", "thing:1").text.splitlines() == [
        "Untagged: thing:1",
        f"Deleted: {MADE.id}",
    ]
    program("load", "-i", archive)
    assert program("image", "prune", "-f").out == b""
    assert f"Deleted: {MADE.id}" in program("image", "prune", "-a", "-n").text
    assert program("images", "-a", "-q").line == MADE.id.partition(":")[2][:12]
    done = program("image", "prune", "-a")
    assert f"Deleted: {MADE.id}" in done.text
    assert done.err == "1 were removed, 7 B\n"


def test_errors_say_what_to_do(program: Program, tmp_path: Path) -> None:
    done = program("load", "-i", tmp_path / "nothing", code=1)
    assert done.err.startswith(f"storagedrivers: {tmp_path / 'nothing'}: No such file")
    assert not program.root.exists()
    (tmp_path / "text").write_text("no archive" * 100)
    assert "is it an archive of an image?" in program("load", "-i", tmp_path / "text", code=1).err
    done = program("image", "inspect", "nothing", code=1)
    assert "there is no image 'nothing'" in done.err
    assert "image ls" in done.err
    made = image(BOTTOM, architecture="mips")
    done = program("image", "import", "-", "sha256:abc", input=tar(a="1"), code=1)
    assert "would be read as an id" in done.err
    path = write(docker(made), tmp_path / "mips.tar")
    assert "--platform linux/mips" in program("load", "-i", path, code=1).err
    assert program("load", "-i", path, "--platform", "linux/mips").line == made.id


def test_a_terminal_is_no_archive_and_shows_progress(program: Program, archive: Path) -> None:
    ours, theirs = pty.openpty()
    done = program("load", stdin=theirs, code=1)
    assert "standard input is a terminal" in done.err
    process = subprocess.Popen(
        program.command("load", "-i", archive),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, env=environment(),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.stdout is not None
    assert process.stdout.read().decode().strip() == MADE.id
    process.stdout.close()
    assert process.wait() == 0
    assert b"loading" in shown


def test_listing_imports_little(program: Program, archive: Path) -> None:
    program("load", "-i", archive)
    command = program.command("images")
    command[1:1] = ["-X", "importtime"]
    done = subprocess.run(command, capture_output=True, check=True, env=environment(), text=True)
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")
    }
    assert imported & set(HEAVY) == set()


def test_commands_of_the_manual(program: Program, tmp_path: Path) -> None:
    made = image(BOTTOM, TOP)
    (tmp_path / "debian.tar.gz").write_bytes(
        compressed(archive_of(dict(docker(made, "debian:12"))))
    )
    (tmp_path / "rootfs.tar.gz").write_bytes(compressed(BOTTOM))
    words = " ".join(program.command())
    (tmp_path / "storagedrivers").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (tmp_path / "storagedrivers").chmod(0o755)
    manual = (Path(__file__).parents[2] / "docs/cli.md").read_text("utf-8")
    section = manual.split("\n## image\n")[1].split("\n## ")[0]
    commands = "".join(re.findall(r"^ {4}(.*\n)", section, re.MULTILINE))
    done = subprocess.run(
        ["bash", "-e"],
        cwd=tmp_path, input=commands, capture_output=True, text=True, check=False,
        env={**environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert made.id in done.stdout
    assert (tmp_path / "debian-layout/index.json").exists()
    again = read((tmp_path / "mine.tar").read_bytes())
    assert json.loads(again["manifest.json"])[0]["RepoTags"] == ["mine:1"]


def test_an_id_is_the_digest_of_the_config(program: Program, archive: Path) -> None:
    program("load", "-i", archive)
    out = read(program("save", "thing:1").out)
    assert digest(out[f"blobs/sha256/{MADE.id[7:]}"]) == MADE.id
