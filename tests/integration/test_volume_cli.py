"""volume as a user has it: processes, exit codes, output; and the options that mount volumes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from capabilities import need
from contained import BASE, clean
from programs import HEAVY, Program, environment

from storagedrivers.storage import Storage

DIGEST = r"sha256:[0-9a-f]{64}"


@pytest.fixture
def program(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Program]:
    need("mount", "overlay")
    made = Program(on_filesystem("ext4") / "store", tmp_path / "run")
    yield made
    with Storage.open(root=made.root, run_root=made.run_root) as storage:
        for container in storage.containers.ls():
            storage.containers.remove(container.id, force=True)
        for volume in storage.volumes.ls():
            storage.volumes.remove(volume.name)
        home = Path(storage.volumes.home)
        assert not home.exists() or os.listdir(home) == []
    clean(Storage.open(root=made.root, run_root=made.run_root))


@pytest.fixture
def with_image(program: Program) -> Program:
    program("image", "import", "-", "base", "-c", 'CMD ["sh"]', input=BASE)
    return program


def data(program: Program, name: str) -> Path:
    return Path(program("volume", "inspect", "-f", "{{.Mountpoint}}", name).line)


def names(program: Program, *words: str) -> list[str]:
    return program("volume", "ls", "-q", *words).text.split()


def create(program: Program, *words: str, code: int = 0) -> str:
    """Make a container of the image; what is printed, to both outputs."""
    given = program.command()[:-4]  # what follows the image is the command's
    command = [*given, *program.options, "container", "create", *words, "base"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.strip() if code == 0 else done.stderr


def test_what_a_script_needs_is_printed_alone(program: Program, tmp_path: Path) -> None:
    assert program("volume", "create", "db").line == "db"
    assert re.fullmatch("[0-9a-f]{64}", program("volume", "create").line)
    assert program("volume", "clone", "db", "copy").line == "copy"
    digest = program("volume", "export", "db", "-o", tmp_path / "db.tar").line
    assert re.fullmatch(DIGEST, digest)
    out = program("volume", "export", "db")
    assert (out.out, out.err.strip()) == ((tmp_path / "db.tar").read_bytes(), digest)
    assert program("volume", "import", "new", tmp_path / "db.tar").line == "new"
    assert program("volume", "import", "new", "--digest", digest, input=out.out).line == "new"
    anonymous = (set(names(program)) - {"db", "copy", "new"}).pop()
    assert program("volume", "prune").text.split() == [anonymous]
    assert program("volume", "rm", "db", "copy").text.split() == ["db", "copy"]
    assert names(program) == ["new"]


def test_lists_as_docker_has_them(program: Program) -> None:
    program("volume", "create", "db", "-l", "kind=a", "--label", "keep")
    program("volume", "create", "-d", "local", "web", "-o", "type=tmpfs", "-o", "device=tmpfs")
    assert program("volume", "ls").text == "DRIVER  VOLUME NAME\nlocal   db\nlocal   web\n"
    for words, found in (
        (("dangling=true",), ["db", "web"]),
        (("dangling=false",), []),
        (("name=e",), ["web"]),
        (("driver=local",), ["db", "web"]),
        (("driver=other",), []),
        (("label=kind",), ["db"]),
        (("label=kind=b",), []),
        (("label!=kind=a",), ["web"]),
        (("label=kind=a", "name=web"), []),
    ):
        filters = [part for word in words for part in ("-f", word)]
        assert names(program, *filters) == found, words
    line = program("volume", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}}")
    assert line.text == "db local local keep=,kind=a\nweb local local \n"
    table = program("volume", "ls", "--format", r"table {{.Name}}\t{{.Links}}").text
    assert table == "NAME  LINKS\ndb    0\nweb   0\n"
    assert "is no filter" in program("volume", "ls", "-f", "size=1", code=1).err


def test_inspect_has_dockers_keys(program: Program) -> None:
    program("volume", "create", "db", "-l", "a=b")
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m")
    program("volume", "create", "web", *options)
    found = json.loads(program("volume", "inspect", "db", "web").text)
    first, second = found
    docker = {"Name", "Driver", "Mountpoint", "CreatedAt", "Labels", "Options", "Scope"}
    assert docker <= first.keys()
    assert first["Mountpoint"] == str(program.root / "volumes/db/_data")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", first["CreatedAt"])
    assert (first["Labels"], first["Options"], first["Scope"]) == ({"a": "b"}, None, "local")
    assert second["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}
    assert second["Labels"] is None
    document = program.document("volume-inspect", "volume", "inspect", "db", "web")
    assert document["volumes"] == found
    assert program("volume", "inspect", "-f", "{{json .Labels}}", "db").line == '{"a": "b"}'
    assert "there is no volume 'none'" in program("volume", "inspect", "none", code=1).err


def test_the_documents(program: Program, tmp_path: Path) -> None:
    made = program.document("volume", "volume", "create", "db", "-l", "a=b", "--size", "2m")
    assert (made["name"], made["size"], made["labels"]) == ("db", 2 << 20, {"a": "b"})
    assert program.document("volume", "volume", "create")["anonymous"] is True
    assert program.document("volume", "volume", "clone", "db", "copy")["name"] == "copy"
    out = tmp_path / "db.tar"
    done = program.document("volume-export", "volume", "export", "db", "-o", out)
    assert program.document("volume", "volume", "import", "new", out)["name"] == "new"
    rows = program.document("volume-ls", "volume", "ls")["volumes"]
    # The name of the anonymous one may lie anywhere between them.
    assert [one["name"] for one in rows if not one["anonymous"]] == ["copy", "db", "new"]
    usage = program.document("volume-usage", "volume", "usage", "db")["volumes"]
    assert [(one["name"], one["limit"]) for one in usage] == [("db", 2 << 20)]
    pruned = program.document("volume-prune", "volume", "prune", "-n")
    assert (pruned["dry_run"], len(pruned["volumes"])) == (True, 1)
    gone = program.document("volume-done", "volume", "rm", "db", "none", code=1)["volumes"]
    assert [(one["volume"], one["done"]) for one in gone] == [("db", True), ("none", False)]
    wrong = f"sha256:{'0' * 64}"
    err = program("volume", "import", "copy", out, "--digest", wrong, code=1).err
    assert done["digest"] in err
    assert {one["name"] for one in program.document("df", "df")["volumes"]} >= {"copy", "new"}


def test_the_options_of_create(program: Program) -> None:
    """--driver is the volume's; the storage driver's stands before the command."""
    err = program("volume", "create", "--driver", "none", "db", code=1).err
    assert "no volume driver is named 'none'" in err
    assert program("volume", "create", "--driver", "local", "db").line == "db"
    before = ("--driver", "overlay2", "volume", "create", "other", "--driver=local")
    assert program(*before).line == "other"
    for words, said in (
        (("-o", "nope=1"), 'invalid option: "nope"'),
        (("-o", "type=tmpfs"), 'missing required option: "device"'),
        (("--size", "much"), "'much' is no size"),
        (("--size", "1k"), "too small"),
        (("-l", "=x"), "has no name"),
        (("x/y",), '"x/y" includes invalid characters for a local volume name'),
        (("x",), "volume name is too short"),
    ):
        err = program("volume", "create", *words, code=1).err
        assert said in err, words
        assert "→" in err, words
    assert names(program) == ["db", "other"]


def test_one_that_is_there_stays_as_it_is_and_that_is_said(program: Program) -> None:
    program("volume", "create", "db", "-l", "a=b")
    assert program("volume", "create", "db").err == ""
    assert program("volume", "create", "db", "-l", "a=b").err == ""
    for words in (("-l", "a=c"), ("-l", "x"), ("--size", "2m"), ("-o", "type=none")):
        given = ("-o", "device=/x") if words[0] == "-o" else ()
        done = program("volume", "create", "db", *words, *given)
        assert (done.line, "stays as it is" in done.err) == ("db", True), words
    assert program.document("volume-ls", "volume", "ls")["volumes"][0]["labels"] == {"a": "b"}


def test_prune_takes_no_named_and_no_kept_one(program: Program) -> None:
    first = program("volume", "create").line
    program("volume", "create", "-l", "keep")
    program("volume", "create", "named")
    shown = program("volume", "prune", "--dry-run")
    assert (shown.line, shown.err) == (first, "1 would be removed, 8.0 KiB\n")
    assert program("volume", "prune", "-a", "-n").text.split() == [first, "named"]
    assert program("volume", "prune", "-f", "--filter", "label=none").out == b""
    assert program("volume", "prune", "-f").line == first
    assert program("volume", "prune", "--all").line == "named"
    assert len(names(program)) == 1


def test_content_goes_out_and_in(program: Program, tmp_path: Path) -> None:
    program("volume", "create", "db")
    (data(program, "db") / "row").write_text("kept")
    tar = program("volume", "export", "db").out
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert "row" in [one.name.removeprefix("./") for one in archive]
    program("volume", "import", "other", "-", input=tar)
    assert (data(program, "other") / "row").read_text() == "kept"
    (data(program, "other") / "row").write_text("newer")
    part = tar[: tar.index(b"kept") + 2]
    err = program("volume", "import", "other", "-", input=part, code=1).err
    assert err.startswith("storagedrivers: ")
    assert (data(program, "other") / "row").read_text() == "newer"
    program("volume", "import", "other", "-", input=tar)
    assert (data(program, "other") / "row").read_text() == "kept"
    copied = program("volume", "clone", "db", "copy")
    assert "are copied" in copied.err  # ext4 shares nothing
    assert (data(program, "copy") / "row").read_text() == "kept"
    assert "there is a volume copy" in program("volume", "clone", "db", "copy", code=1).err
    text = program("volume", "usage").text.splitlines()
    assert [line.split()[0] for line in text] == ["VOLUME", "copy", "db", "other"]


def test_rm_says_who_uses_it(with_image: Program) -> None:
    program = with_image
    create(program, "--name", "box", "-v", "db:/data")
    done = program("volume", "rm", "db", "none", code=1)
    assert "in use by container box" in done.err
    assert "there is no volume 'none'" in done.err
    assert program("volume", "rm", "-f", "none").line == "none"
    assert names(program, "-f", "dangling=false") == ["db"]
    assert program("volume", "prune", "-a").out == b""
    program("container", "rm", "box")
    assert program("volume", "rm", "db").line == "db"


# Containers


def test_mounts_of_a_container(with_image: Program, tmp_path: Path) -> None:
    program = with_image
    (tmp_path / "host").mkdir()
    made = create(
        program,
        *("--name", "box", "-v", "db:/data", "-v", f"{tmp_path}/host:/host:ro", "-v", "/own"),
        *("--mount", "type=tmpfs,target=/scratch,tmpfs-size=1m", "--tmpfs", "/run:size=1m"),
    )  # fmt: skip
    (found,) = program.document("container-inspect", "container", "inspect", "box")["containers"]
    inside = {one["target"]: one for one in found["inside"]}
    assert {path: one["type"] for path, one in inside.items()} == {
        "/data": "volume", "/host": "bind", "/own": "volume", "/scratch": "tmpfs", "/run": "tmpfs",
    }  # fmt: skip
    assert inside["/data"]["source"] == str(program.root / "volumes/db/_data")
    assert (inside["/host"]["source"], inside["/host"]["read_only"]) == (f"{tmp_path}/host", True)
    text = program("container", "inspect", "box").text
    assert f"  /host: bind, {tmp_path}/host, read-only\n" in text
    assert f"  /data: volume, db at {program.root}/volumes/db/_data\n" in text
    assert "  /scratch: tmpfs, at most 1.0 MiB\n" in text
    assert "  /run: tmpfs, at most 1.0 MiB\n" in text
    assert "\nmounted at: -\n" in text
    assert (inside["/run"]["size"], inside["/data"]["size"]) == (1 << 20, None)
    (row,) = program.document("container-ls", "container", "ls")["containers"]
    assert "db" in row["volumes"]
    assert len(row["volumes"]) == 2
    assert program("container", "ls", "-f", "volume=db", "--format", "{{.ID}}").line == made[:12]
    assert program("container", "ls", "-q", "-f", "volume=none").out == b""
    for word in ("/data", "/host", f"{tmp_path}/host", "/own"):
        assert program("container", "ls", "-q", "-f", f"volume={word}").line == made[:12], word
    assert program("container", "ls", "-q", "-f", "volume=/scratch").out == b""
    shown = program("container", "ls", "--format", "{{.Mounts}}").line.split(",")
    assert sorted(shown) == sorted([*row["volumes"], f"{tmp_path}/host"])
    mounts = json.loads(program("container", "inspect", "-f", "{{json .Mounts}}", "box").line)
    assert {one["Destination"]: one["RW"] for one in mounts} == {
        "/data": True, "/host": False, "/own": True, "/scratch": True, "/run": True,
    }  # fmt: skip
    (volume,) = [one for one in mounts if one["Destination"] == "/data"]
    assert (volume["Name"], volume["Source"]) == ("db", inside["/data"]["source"])
    line = program("container", "inspect", "-f", "{{.Name}} {{.State.Status}} {{.Id}}", "box").line
    assert line == f"box created {made}"
    create(program, "--name", "other", "--volumes-from", "box:ro")
    assert program("volume", "ls", "--format", "{{.Links}}").text.split() == ["2", "2"]


def test_anonymous_volumes_go_when_that_is_asked_for(with_image: Program) -> None:
    program = with_image
    create(program, "--name", "one", "-v", "/own", "-v", "db:/data")
    create(program, "--name", "two", "-v", "/own")
    program("container", "rm", "one")
    assert len(names(program)) == 3
    program("rm", "-v", "two")
    assert len(names(program)) == 2
    create(program, "--name", "three", "-v", "/own")
    program("container", "prune", "--volumes")
    assert len(names(program)) == 2
    assert "db" in names(program)


def test_a_malformed_mount_is_refused_in_dockers_words(with_image: Program) -> None:
    program = with_image
    for words, said, instead in (
        (("-v", "/data/mysql:var/lib/mysql"), "mount path must be absolute", "/var/lib/mysql"),
        (("-v", "db:/"), "destination can't be '/'", "below the root"),
        (("-v", "db:/a:ro,rw"), "invalid mode: ro,rw", "choose one"),
        (("--mount", "type=bind,src=/none,dst=/a"), "bind source path does not exist", "-v"),
        (("--mount", "type=volume,src=db"), "field Target must not be empty", "target="),
        (("--mount", "typ=bind"), "unknown option 'typ'", "did you mean"),
        (("-v", "db:/a", "-v", "other:/a"), "Duplicate mount point: /a", "leave one out"),
        (("--volumes-from", "none"), "there is no container 'none'", "container ls"),
    ):
        err = create(program, *words, code=1)
        assert said in err, words
        assert instead in err.partition("→")[2], words
    assert names(program) == []
    assert program("container", "ls", "-q").out == b""


def test_a_dry_run_says_it_all_and_does_nothing(with_image: Program, tmp_path: Path) -> None:
    program = with_image
    words = ("--dry-run", "-v", "db:/etc", "-v", f"{tmp_path}/none:/new", "--tmpfs", "/usr")
    options = (*program.options, "--json")
    command = [*program.command()[:-4], *options, "run", *words, "base"]
    done = subprocess.run(command, capture_output=True, check=True, env=environment())
    plan = json.loads(done.stdout)
    by_target = {one["target"]: one for one in plan["mounts"]}
    assert by_target["/etc"]["creates"] == "volume"
    assert by_target["/new"]["creates"] == "directory"
    assert by_target["/usr"]["hidden"]["entries"] == 3
    _is_as_described(plan, program)
    text = subprocess.run(
        [one for one in command if one != "--json"],
        capture_output=True, text=True, check=True, env=environment(),
    ).stdout  # fmt: skip
    assert "/etc: volume db, writable\n" in text
    assert f"copies {by_target['/etc']['filled']['entries']} entries" in text
    assert "hides 3 entries" in text
    assert names(program) == []
    assert program("container", "ls", "-q").out == b""
    assert not (tmp_path / "none").exists()
    create(program, "-v", "db:/etc")
    assert len(os.listdir(data(program, "db"))) == by_target["/etc"]["filled"]["entries"]


def _is_as_described(plan: object, program: Program) -> None:
    import jsonschema
    from programs import SCHEMAS

    described = json.loads((SCHEMAS / "plan.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(described).validate(plan)


# The short words


def test_short_words_are_those_of_the_nouns(with_image: Program, tmp_path: Path) -> None:
    program = with_image
    (tmp_path / "f").write_text("x")
    given = [*program.command()[:-4], *program.options, "create", "--name", "box", "base"]
    subprocess.run(given, check=True, capture_output=True, env=environment())
    program("cp", tmp_path / "f", "box:/f")
    assert program("diff", "box").text == "A /f\n"
    assert re.fullmatch(DIGEST, program("commit", "box", "made").line)
    program("tag", "made", "again")
    assert "Untagged: again:latest" in program("rmi", "again").text
    assert program("rm", "box").line == "box"
    assert "Deleted: sha256:" in program("rmi", "made").text
    assert "storagedrivers container rm" in program("rm", "--help").text
    assert program("--json", "diff", "box", code=1).err.startswith("storagedrivers: there is no")


def test_a_start_imports_little(with_image: Program) -> None:
    program = with_image
    program("volume", "create", "db")
    create(program, "-v", "db:/data")
    heavy = set(HEAVY) - {"json"}  # labels and options are JSON
    for words in (("volume", "ls"), ("container", "ls"), ("volume", "create", "two")):
        command = program.command(*words)
        command[1:1] = ["-X", "importtime"]
        done = subprocess.run(command, capture_output=True, check=True, env=environment())
        imported = {line.split("|")[-1].strip() for line in done.stderr.decode().splitlines()}
        assert "argparse" in imported
        assert not heavy & imported, (words, heavy & imported)
    assert os.listdir(program.root / "locks") == []
