"""layer, check, repair, gc, df and owner as a user has them: processes, exit codes, output."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import pytest
from capabilities import need
from programs import HEAVY, Program, environment
from stored import clean, digest, release

from storagedrivers.storage import Storage

TAR = archives.tar(
    archives.directory(b"d/"),
    archives.file(b"d/f", b"content\n"),
    archives.file("d/ü\n\x1b[31m".encode() + b"\xff", b"odd"),
)
ABOVE = archives.tar(archives.file(b"d/.wh.f"), archives.file(b"new", b"new"))


@pytest.fixture
def program(on_filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Program]:
    need("mount", "overlay")
    made = Program(on_filesystem("ext4") / "store", tmp_path / "run")
    yield made
    if made.root.exists():
        clean(Storage.open(root=made.root, run_root=made.run_root))
        release(made.run_root)


# In and out


def test_what_a_script_needs_is_printed_alone(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "layer.tar.gz"
    file.write_bytes(archives.compressed(TAR, "gzip"))
    base = program("layer", "add", file).line
    assert re.fullmatch("[0-9a-z]{26}", base)
    assert program.add(TAR, "--diff-id", digest(TAR)) == base
    above = program.add(ABOVE, "--parent", base[:8])
    assert program("layer", "ls", "-q").text.split() == [base, above]
    path = Path(program("layer", "mount", above).line)
    assert sorted(os.listdir(path)) == ["d", "new"]
    assert program("layer", "unmount", above).line == above
    assert not path.exists()
    assert program("layer", "rm", above, base).text.split() == [above, base]
    assert program("layer", "ls", "-q").out == b""


def test_devices_in_a_user_namespace(tmp_path: Path) -> None:
    """Its root has the capability, and may make none nevertheless: they are left out, and said."""
    need("user-namespace")
    tar = archives.tar(archives.device(b"null", 1, 3), archives.file(b"f", b"content"))
    made = Program(tmp_path / "store", tmp_path / "run")
    words = ["unshare", "-Urm", *made.command("layer", "add", "-")]
    done = subprocess.run(
        words, input=tar, capture_output=True, check=False, env=environment(), timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert b"a device was left out: this process may make none" in done.stderr
    words = ["unshare", "-Urm", *made.command("layer", "export", done.stdout.decode().strip())]
    out = subprocess.run(words, capture_output=True, check=True, env=environment(), timeout=60)
    assert out.stdout == tar


def test_owners_that_a_user_namespace_lacks(tmp_path: Path) -> None:
    """The first thing that a user without root meets: the error says what it is."""
    need("user-namespace")
    tar = archives.tar(archives.file(b"shadow", b"content", gid=42))
    made = Program(tmp_path / "store", tmp_path / "run")
    words = ["unshare", "-Urm", *made.command("layer", "add", "-")]
    done = subprocess.run(
        words, input=tar, capture_output=True, check=False, env=environment(), timeout=60
    )
    assert done.returncode == 1
    assert b"'shadow': its owner 0:42 is not mapped in this user namespace" in done.stderr
    assert b"--map-auto" in done.stderr


def test_a_tar_comes_out_as_it_came_in(program: Program, tmp_path: Path) -> None:
    layer = program.add(archives.compressed(TAR, "zstd"))
    assert program("layer", "export", layer).out == TAR
    file = tmp_path / "out.tar"
    assert program("layer", "export", layer, "-o", file).line == digest(TAR)
    assert file.read_bytes() == TAR
    assert os.listdir(tmp_path) == ["out.tar"] or "run" in os.listdir(tmp_path)
    with file.open("wb") as stream:
        command = program.command("layer", "export", layer)
        subprocess.run(command, stdout=stream, check=True, env=environment())
    assert file.read_bytes() == TAR
    assert program("layer", "export", layer, "-o", "/dev/stdout").out.startswith(TAR)


def test_an_export_that_fails_leaves_the_old_file(program: Program, tmp_path: Path) -> None:
    layer = program.add(TAR)
    (program.root / "overlay2" / layer / "diff/d/f").write_bytes(b"another")
    directory = tmp_path / "out"
    directory.mkdir()
    file = directory / "out.tar"
    file.write_bytes(b"old")
    done = program("layer", "export", layer, "-o", file, code=1)
    assert layer in done.err or "too short" in done.err
    assert done.out == b""
    assert file.read_bytes() == b"old"
    assert os.listdir(directory) == ["out.tar"]
    program("layer", "export", layer, "-o", directory / "no/such", code=1)


def test_an_export_to_the_longest_name(program: Program, tmp_path: Path) -> None:
    layer = program.add(TAR)
    file = tmp_path / ("ж" * 127)
    program("layer", "export", layer, "-o", file)
    assert file.read_bytes() == TAR
    assert os.listdir(tmp_path).count(file.name) == 1


def test_no_tar_goes_to_a_terminal_or_comes_from_one(program: Program) -> None:
    layer = program.add(TAR)
    ours, theirs = pty.openpty()
    command = program.command("layer", "export", layer)
    done = subprocess.run(
        command, stdout=theirs, stderr=subprocess.PIPE, check=False, env=environment()
    )
    assert done.returncode == 1
    assert b"standard output is a terminal" in done.stderr
    assert b"-o FILE" in done.stderr
    done = program("layer", "add", "-", stdin=theirs, code=1)  # type: ignore[assignment]
    assert "standard input is a terminal" in done.err  # type: ignore[operator]
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("data", "words", "says"),
    [
        (TAR[:1024], (), "breaks off"),
        (b"no tar", (), ""),
        (TAR, ("--diff-id", digest(b"another")), "was expected"),
        (TAR, ("--digest", digest(b"another")), "was expected"),
        (TAR, ("--digest", "md5:0"), "no digest"),
        (TAR, ("--parent", "nosuch"), "there is no layer 'nosuch'"),
    ],
)
def test_what_cannot_be_added_leaves_nothing(
    program: Program, data: bytes, words: tuple[str, ...], says: str
) -> None:
    program("layer", "add", "-", input=ABOVE)
    done = program("layer", "add", "-", *words, input=data, code=1)
    assert done.out == b""
    assert done.err.startswith("storagedrivers: ")
    assert says in done.err
    assert len(program("layer", "ls", "-q").text.split()) == 1
    assert program.document("gc", "gc", "--dry-run")["orphans"] == []
    program("layer", "add", "/no/such/file", code=1)


def test_warnings_of_a_tar_go_to_standard_error(program: Program) -> None:
    done = program("layer", "add", "-", input=archives.tar(archives.device(b"null", 0, 0)))
    assert re.fullmatch("[0-9a-z]{26}", done.line)
    assert "warning: 'null': a device 0:0 was left out" in done.err


def test_writable_layers_are_made_mounted_and_sealed(program: Program) -> None:
    base = program.add(TAR)
    layer = program("layer", "create", base).line
    path = Path(program("layer", "mount", "--writable", layer).line)
    (path / "d/made").write_text("made")
    done = program("layer", "seal", layer, code=1)
    assert "is mounted" in done.err
    program("layer", "unmount", layer)
    assert program("layer", "seal", layer).line == layer
    assert "A /d/made" in program("layer", "changes", layer).text.splitlines()
    done = program("layer", "mount", "--writable", layer, code=1)
    assert "is sealed" in done.err


def test_mounts_are_counted(program: Program) -> None:
    layer = program.add(TAR)
    paths = {program("layer", "mount", layer).line for _ in range(3)}
    assert len(paths) == 1
    listed = program.document("layer-ls", "layer", "ls")
    assert listed["layers"][0]["mounts"] == [{"path": paths.pop(), "read_only": True, "times": 3}]
    assert program("layer", "unmount", layer).out == b""
    assert program("layer", "unmount", layer).out == b""
    assert program("layer", "unmount", layer).line == layer
    program("layer", "unmount", layer, code=1)


def test_one_that_fails_does_not_keep_the_others(program: Program) -> None:
    base = program.add(TAR)
    above = program.add(ABOVE, "--parent", base)
    alone = program.add(archives.tar(archives.file(b"alone")))
    done = program("layer", "rm", base, "nosuch", alone, code=1)
    assert done.line == alone
    assert f"layer {base} is needed by layer {above}\n" in done.err
    assert "there is no layer 'nosuch'" in done.err
    document = program.document("layer-done", "layer", "rm", base, above, code=1)
    assert [one["done"] for one in document["layers"]] == [False, True]
    assert program.document("layer-done", "layer", "rm", base)["layers"][0]["error"] is None


# What is shown


def test_ls_and_inspect(program: Program) -> None:
    base = program.add(TAR)
    above = program.add(ABOVE, "--parent", base)
    top = program("layer", "create", above).line
    lines = program("layer", "ls").text.splitlines()
    assert lines[0].split() == ["ID", "PARENT", "DRIVER", "SIZE", "CREATED", "MOUNTED"]
    assert [line.split()[0] for line in lines[1:]] == [base, above, top]
    assert [line.split()[1] for line in lines[1:]] == ["-", base[:12], above[:12]]
    assert "writable" in lines[3]
    shown = program("layer", "inspect", above, digest(TAR)).text
    assert f"lowers: {base}\n" in shown
    assert f"diff id: {digest(TAR)}\n" in shown
    assert f"children: {above}\n" in shown
    program("layer", "inspect", "nosuch", code=1)


def test_changes_show_what_cannot_be_printed(program: Program) -> None:
    base = program.add(TAR)
    above = program.add(ABOVE, "--parent", base)
    lines = program("layer", "changes", base).text.splitlines()
    assert "A /d/ü\\n\\x1b[31m\\xff" in lines
    assert set(program("layer", "changes", above).text.splitlines()) >= {"D /d/f", "A /new"}
    document = program.document("layer-changes", "layer", "changes", base)
    names = {os.fsencode(one["path"]) for one in document["changes"]}
    assert "/d/ü\n\x1b[31m".encode() + b"\xff" in names


def test_documents_are_as_described(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "layer.tar"
    file.write_bytes(TAR)
    base = program.document("layer", "layer", "add", file)["id"]
    top = program.document("layer", "layer", "create", base)["id"]
    program.document("layer-ls", "layer", "ls")
    found = program.document("layer-inspect", "layer", "inspect", base, top)
    assert [one["id"] for one in found["layers"]] == [base, top]
    out = tmp_path / "out.tar"
    found = program.document("layer-export", "layer", "export", base, "-o", out)
    assert found["diff_id"] == digest(TAR)
    program.document("layer-mount", "layer", "mount", base)
    program.document("owner", "owner", program.root / "overlay2" / base / "diff")
    program.document("layer-done", "layer", "unmount", base)
    program.document("layer", "layer", "seal", top)
    program.document("df", "df")
    program.document("df", "df", "--layers")
    program.document("owner", "owner", "/etc", code=1)
    assert program.document("check", "check", "--deep")["findings"] == []
    assert program.document("repair", "repair", "--deep")["repairs"] == []
    assert program.document("gc", "gc")["orphans"] == []


def test_there_is_no_store_yet(program: Program) -> None:
    for words in (("layer", "ls"), ("check",), ("gc", "--dry-run"), ("df",), ("owner", "/x")):
        done = program(*words, code=1)
        assert "holds no store" in done.err
        assert done.out == b""
    assert not program.root.exists()


def test_global_options_before_and_after(program: Program) -> None:
    layer = program.add(TAR)
    before = [sys.executable, "-m", "storagedrivers", *program.options, "layer", "ls", "-q"]
    found = subprocess.run(before, capture_output=True, check=True, env=environment()).stdout
    assert found.split() == [layer.encode()]
    program("layer", code=2)
    program("layer", "no-such-verb", code=2)


# Progress and cost


def test_progress_is_shown_on_a_terminal_alone(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "layer.tar"
    file.write_bytes(archives.tar(archives.file(b"f", os.urandom(3_000_000))))
    shown = on_terminal(program.command("layer", "add", file))
    assert "adding" in shown
    assert "3.0/3.0 MB" in shown
    assert on_terminal(program.command("layer", "ls", "-q")) == ""
    layer = program("layer", "ls", "-q").line
    assert "exporting" in on_terminal(program.command("layer", "export", layer))
    program("layer", "rm", layer)
    shown = on_terminal(program.command("layer", "add", "-"), slowly=file.read_bytes())
    assert re.search(r"\d [kM]B/s", shown)
    assert "checking" in on_terminal(program.command("check", "--deep"))
    program("layer", "rm", program("layer", "ls", "-q").line)
    assert on_terminal(program.command("layer", "add", file, "--json")) == ""


def on_terminal(command: list[str], *, slowly: bytes = b"") -> str:
    """What a command writes to a terminal as its standard error.

    Args:
        slowly: its standard input, in pieces.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment(),
    )
    os.close(theirs)
    assert process.stdin is not None
    for at in range(0, len(slowly), 1_000_000):
        process.stdin.write(slowly[at : at + 1_000_000])
        process.stdin.flush()
        time.sleep(0.2)
    process.stdin.close()
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("verb", ["ls", "mount", "unmount"])
def test_a_command_on_a_store_imports_little(program: Program, verb: str) -> None:
    """It has to be as quick as the shell's own commands."""
    layer = program.add(TAR)
    program("layer", "mount", layer)
    words = [verb] if verb == "ls" else [verb, layer]
    command = program.command("layer", *words)
    command[1:1] = ["-X", "importtime"]
    done = subprocess.run(command, capture_output=True, check=True, env=environment(), text=True)
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")
    }
    assert imported & set(HEAVY) == set()
    if verb != "unmount":
        program("layer", "unmount", layer)
    if verb == "mount":
        program("layer", "unmount", layer)


# The store as a whole


def test_check_repair_and_their_exit_codes(program: Program) -> None:
    layer = program.add(TAR)
    done = program("check")
    assert (done.out, done.err) == (b"", "nothing is wrong\n")
    os.chmod(program.root / "overlay2" / layer / "diff/d/f", 0o600)
    done = program("check", "--deep", code=1)
    assert done.text.splitlines() == [
        f"warning: mode: layer {layer} /d/f: its mode is 0600, and was 0644",
        "  → storagedrivers repair --deep",
    ]
    (finding,) = program.document("check", "check", "--deep", code=1)["findings"]
    assert (finding["code"], finding["layer"], finding["path"]) == ("mode", layer, "/d/f")
    (repaired,) = program.document("repair", "repair", "--deep")["repairs"]
    assert repaired["outcome"] == "done"
    assert program("check", "--deep").out == b""
    (program.root / "overlay2" / layer / "diff/d/f").write_text("damaged")
    assert program("check").out == b""
    done = program("repair", "--deep", code=1)
    assert "quarantined: " in done.text
    again = program.add(TAR)
    assert again != layer
    assert "removed: the layer is removed" in program("repair", "--deep", "--yes").text
    assert program("layer", "ls", "-q").line == again
    assert program("repair", "--deep").err == "nothing is wrong\n"


def test_gc_says_what_it_removes(program: Program) -> None:
    program.add(TAR)
    orphan = program.root / "overlay2" / ("o" * 26)
    (orphan / "diff").mkdir(parents=True)
    (orphan / "diff/file").write_bytes(b"x" * 100_000)
    done = program("gc", "--dry-run")
    header, line = done.text.splitlines()
    assert header.split() == ["KIND", "OWNER", "AGE", "BYTES", "PATH", "REASON"]
    assert line.split()[:2] == ["layer", "o" * 26]
    assert str(orphan) in line
    assert "1 would be removed" in done.err
    assert orphan.exists()
    (found,) = program.document("gc", "gc", "--dry-run")["orphans"]
    assert found["bytes"] >= 100_000
    assert not found["removed"]
    (found,) = program.document("gc", "gc")["orphans"]
    assert found["removed"]
    assert not orphan.exists()
    assert program("gc").text == ""


def test_gc_finishes_what_was_half_made_and_says_so(program: Program) -> None:
    program.add(TAR)
    with Storage.open(root=program.root, run_root=program.run_root) as storage:
        with storage.database.transaction() as connection:
            connection.execute(
                "INSERT INTO layers (id, driver, state, writable, created, depth, durable)"
                " VALUES ('half-made', 'overlay2', 'creating', 0, 0, 1, 0)"
            )
        (program.root / "overlay2/half-made/diff").mkdir(parents=True)
    (found,) = program.document("gc", "gc")["orphans"]
    assert (found["kind"], found["owner"], found["removed"]) == ("row", "half-made", True)
    assert not (program.root / "overlay2/half-made").exists()


def test_df(program: Program) -> None:
    base = program.add(TAR)
    program.add(ABOVE, "--parent", base)
    lines = program("df", "-v").text.splitlines()
    assert lines[1].split()[:4] == ["overlay2", "2", "14", "B"]
    assert [base, "overlay2", "11", "B", "0", "B"] == lines[4].split()[:6]
    assert lines[-1].startswith("free: ")
    assert "inodes" in lines[-1]
    (driver,) = program.document("df", "df")["drivers"]
    assert driver["bytes"] == 14


def test_owner(program: Program) -> None:
    base = program.add(TAR)
    above = program.add(ABOVE, "--parent", base)
    path = Path(program("layer", "mount", above).line)
    lines = program("owner", path / "d").text.splitlines()
    assert f"layer: {above}" in lines
    assert "inside: /d" in lines
    assert f"lowers: {base}" in lines
    done = program("owner", program.root / "overlay2" / ("o" * 26), code=1)
    assert "an orphan" in done.text
    assert "belongs to nothing" in program("owner", "/etc/passwd", code=1).text
    program("layer", "unmount", above)


def test_completion_knows_the_verbs(program: Program) -> None:
    command = [sys.executable, "-m", "storagedrivers", "completion", "bash"]
    script = subprocess.run(command, capture_output=True, check=True, env=environment()).stdout
    assert b"layer_subparsers=(add ls inspect export changes mount unmount rm" in script
    assert b"--dry-run" in script
