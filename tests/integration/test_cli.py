"""The program as a user has it: a process, its exit code, what it prints and what it leaves."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from capabilities import lack, need

from storagedrivers.linux import mount
from storagedrivers.model import Capability, Mount, Reason
from storagedrivers.policy import load_policies
from storagedrivers.selector import Quality
from storagedrivers.testing.filesystems import loop_filesystem

OnFilesystem = Callable[[str], Path]

PROGRAM = (sys.executable, "-m", "storagedrivers")
SCHEMAS = Path(__file__).parents[2] / "docs/schemas"
NOBODY = 65534
KERNEL_DRIVERS = ("aufs", "btrfs-snapshot", "overlay2")


@dataclass(frozen=True)
class Done:
    """How a run of the program ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def candidate(self, driver: str) -> dict[str, Any]:
        (found,) = [one for one in self.document["candidates"] if one["driver"] == driver]
        return dict(found)


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    """The test's own, without settings that it may have for itself."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("STORAGEDRIVERS_", "XDG_", "PYTHON", "COLUMNS", "LINES"))
    }
    return {**clean, "HOME": "/nonexistent", "STORAGEDRIVERS_CONFIG": os.devnull, **(more or {})}


def run(
    *words: object,
    prefix: Sequence[str] = (),
    program: Sequence[str] = PROGRAM,
    env: dict[str, str] | None = None,
    **more: Any,
) -> Done:
    """Run the program; it never shows a traceback, whatever happens."""
    command = [*prefix, *program, *map(str, words)]
    done = subprocess.run(
        command,
        env=_environment(env),
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
        **{"stdin": subprocess.DEVNULL, **more} if "input" not in more else more,
    )
    for text in (done.stdout, done.stderr):
        assert "Traceback" not in text, text
        assert "Exception ignored" not in text, text
    return Done(done.returncode, done.stdout, done.stderr)


_AS_NOBODY = """
import contextlib, ctypes, importlib, io, os, pkgutil, queue, sys, tempfile
import storagedrivers
for module in pkgutil.walk_packages(storagedrivers.__path__, "storagedrivers."):
    if module.name not in ("storagedrivers.__main__", "storagedrivers.testing.conformance"):
        importlib.import_module(module.name)
from storagedrivers.linux import syscalls
from storagedrivers.cli.main import main
with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
    main(["facts", "--root", root])
    main(["detect", "--explain", "--driver", "vfs", "--root", root])
place, uid = sys.argv[1], 65534
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
if place == "namespace":
    child = os.fork()  # only a process with one thread may take a user namespace
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is the user's again
    syscalls.unshare(0x10000000 | syscalls.CLONE_NEWNS)  # CLONE_NEWUSER
    for file, text in (("setgroups", "deny"), ("uid_map", "0 65534 1"), ("gid_map", "0 65534 1")):
        with open(f"/proc/self/{file}", "w") as stream:
            stream.write(text)
sys.argv[1:2] = []
sys.exit(main())
"""


def as_nobody(*words: object, place: str = "host", **more: Any) -> Done:
    """Run the program as a user without any privilege, or in a namespace of that user.

    The user need not reach the interpreter: everything is imported before root is left.
    """
    need("root")
    command = (sys.executable, "-c", _AS_NOBODY, place)
    listed = run("driver", "ls", program=(*command[:-1], "host"))
    if "overlay2" not in listed.out:
        lack("readable", "user 65534 cannot read this installation")
    return run(*words, program=command, **more)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user reaches and may write to."""
    directory = Path(tempfile.mkdtemp(prefix="storagedrivers-test-"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def ext4(on_filesystem: OnFilesystem) -> Path:
    """A graph root on ext4, where everything works for root."""
    need("root", "overlay")
    return on_filesystem("ext4")


def everything_below(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*")}


# detect on real filesystems


def overlay_really_works(directory: Path) -> bool:
    """Mount one with mount(8), delete in it, and look whether what was deleted is gone."""
    trial = Path(tempfile.mkdtemp(dir=directory))
    for name in ("lower/gone", "upper", "work", "merged"):
        (trial / name).mkdir(parents=True)
    (trial / "lower/gone/file").touch()
    options = f"lowerdir={trial}/lower,upperdir={trial}/upper,workdir={trial}/work"
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(trial / "merged")]
    try:
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        try:
            (trial / "merged/gone/file").unlink()
            (trial / "merged/gone").rmdir()
            return os.listdir(trial / "merged") == []
        except OSError:
            return False
        finally:
            subprocess.run(["umount", str(trial / "merged")], check=True)
    finally:
        shutil.rmtree(trial)


def snapshots_really_work(directory: Path) -> bool:
    """Make and delete a subvolume with btrfs(8)."""
    need("btrfs")
    path = str(directory / "trial")
    made = subprocess.run(["btrfs", "subvolume", "create", path], capture_output=True, check=False)
    if made.returncode == 0:
        subprocess.run(["btrfs", "subvolume", "delete", path], check=True, capture_output=True)
    return made.returncode == 0


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_detect_says_what_mounting_really_gives(kind: str, on_filesystem: OnFilesystem) -> None:
    """On each filesystem the answers for the kernel's drivers are those of a real trial."""
    need("root", "overlay")
    root = on_filesystem(kind)
    done = run("detect", "--json", "--root", root)
    assert done.candidate("overlay2")["supported"] is overlay_really_works(root)
    assert done.candidate("btrfs-snapshot")["supported"] is snapshots_really_work(root)
    assert (done.document["chosen"], done.document["quality"], done.code) == ("overlay2", "best", 0)
    assert done.document["filesystem"] == kind
    assert not any(one["predicted"] for one in done.document["candidates"] if one["supported"])
    rejected = [one for one in done.document["candidates"] if not one["supported"]]
    assert all(one["message"] and one["reason"] != "ok" for one in rejected)


def test_docker_policy_chooses_snapshots_on_btrfs(on_filesystem: OnFilesystem) -> None:
    """With the order of Docker 20.10 a graph root on btrfs gets btrfs-snapshot."""
    need("root")
    done = run("--root", on_filesystem("btrfs"), "detect", "--policy", "docker-20.10", "--json")
    assert (done.code, done.document["chosen"]) == (0, "btrfs-snapshot")
    assert done.document["policy"] == "docker-20.10"


def test_overlay_is_not_chosen_on_an_overlay(ext4: Path, tmp_path: Path) -> None:
    """Where the graph root itself is an overlay, as in a container, overlay2 says why not."""
    for name in ("lower", "upper", "work"):
        (ext4 / name).mkdir()
    options = tuple(f"{name}dir={ext4 / name}" for name in ("lower", "upper", "work"))
    with mount.mounted([Mount("overlay", "overlay", options=options)], tmp_path):
        done = run("detect", "--json", "--root", tmp_path / "store")
        text = run("detect", "--root", tmp_path / "store")
    assert done.candidate("overlay2")["reason"] == "overlay-on-overlay"
    assert done.candidate("overlay2")["remedy"]
    assert (done.document["chosen"], done.document["quality"], done.code) == (
        "vfs-copy",
        "copying",
        3,
    )
    assert "overlay-on-overlay" in text.out


@pytest.fixture(scope="module")
def without_d_type(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ext4 whose directories do not tell the types of entries."""
    need("root", "loop", "mkfs.ext4")
    directory = tmp_path_factory.mktemp("without-d-type")
    with loop_filesystem("ext4", directory, options=("-O", "^filetype"), size=64 << 20) as path:
        yield path


@pytest.fixture
def copying(without_d_type: Path, mounted_for_session: set[str]) -> Path:
    """A graph root where only copying works."""
    mounted_for_session.add(str(without_d_type))
    return without_d_type


def test_filesystem_without_d_type_is_rejected(copying: Path) -> None:
    """An overlay mounts there and shows deleted files, so it is not chosen."""
    done = run("detect", "--json", "--root", copying)
    assert done.candidate("overlay2")["reason"] == "no-d-type"
    assert "filetype" in done.candidate("overlay2")["remedy"]
    assert overlay_really_works(copying) is False


@pytest.mark.parametrize(
    ("words", "code", "chosen", "quality", "warned"),
    [
        ((), 3, "vfs-copy", "copying", True),
        (("--fallback", "warn"), 3, "vfs-copy", "copying", True),
        (("--fallback", "allow"), 3, "vfs-copy", "copying", False),
        (("--fallback", "refuse"), 4, None, "none", False),
        (("--driver", "vfs-copy", "--fallback", "refuse"), 3, "vfs-copy", "copying", False),
        (("--driver", "vfs"), 3, "vfs-copy", "copying", False),
        (("--driver", "overlay2"), 4, None, "none", False),
    ],
)
def test_exit_code_where_only_copying_works(
    words: tuple[str, ...], code: int, chosen: str | None, quality: str, warned: bool, copying: Path
) -> None:
    """Copying is 3 and warned of unless allowed or asked for; refused it is 4."""
    done = run("detect", "--json", "--root", copying, *words)
    assert (done.code, done.document["chosen"], done.document["quality"]) == (code, chosen, quality)
    assert bool(done.document["warnings"]) is warned
    assert ("warning" in done.err) is warned
    assert ("→" in done.err) is (code == 4)
    plain = run("detect", "--root", copying, *words)
    assert plain.code == code
    assert "overlay2" in plain.out


def test_driver_that_was_asked_for_is_refused_and_not_replaced(ext4: Path) -> None:
    """A driver that does not work here leaves nothing chosen, though others would work."""
    done = run("detect", "--json", "--root", ext4, "--driver", "btrfs-snapshot")
    assert (done.code, done.document["chosen"], done.document["quality"]) == (4, None, "none")
    assert done.candidate("overlay2")["supported"]
    assert "btrfs-snapshot was asked for" in done.err
    assert "→" in done.err


def test_driver_that_was_asked_for_by_its_alias_is_taken(ext4: Path) -> None:
    """Docker's name for a driver works as an argument and as a variable."""
    for words, env in ((("--driver", "overlay"), {}), ((), {"STORAGEDRIVERS_DRIVER": "overlay"})):
        done = run("detect", "--json", "--root", ext4, *words, env=env)
        assert (done.code, done.document["chosen"]) == (0, "overlay2")


def test_detect_leaves_nothing_on_disk(on_filesystem: OnFilesystem) -> None:
    """Neither in the graph root, nor beside it where it is not there yet."""
    need("root")
    for kind in ("ext4", "btrfs"):
        root = on_filesystem(kind)
        (root / "store").mkdir()
        before = (everything_below(root), root.stat().st_mtime_ns)
        assert run("detect", "--root", root / "store").code == 0
        assert run("detect", "--root", root / "not/there/yet").code == 0
        assert run("facts", "--root", root / "store").code == 0
        assert everything_below(root) == before[0]


def test_prior_layers_decide(ext4: Path) -> None:
    """A store that holds layers goes on with its driver; with two, the driver must be said."""
    (ext4 / "vfs-copy/0a1b").mkdir(parents=True)
    done = run("detect", "--json", "--root", ext4)
    assert (done.document["chosen"], done.document["prior"], done.code) == (
        "vfs-copy",
        ["vfs-copy"],
        3,
    )
    (ext4 / "overlay2/0a1b").mkdir(parents=True)
    done = run("detect", "--json", "--root", ext4)
    assert (done.document["chosen"], done.code) == (None, 4)
    assert done.document["prior"] == ["overlay2", "vfs-copy"]
    assert "several drivers" in done.err
    done = run("detect", "--json", "--root", ext4, "--driver", "overlay2")
    assert (done.document["chosen"], done.code) == ("overlay2", 0)
    assert "vfs-copy" in done.document["warnings"][0]


def test_prior_driver_that_does_not_work_is_an_error(ext4: Path) -> None:
    """Layers of a driver that this host has not are never passed over for another."""
    (ext4 / "aufs/0a1b").mkdir(parents=True)
    done = run("detect", "--json", "--root", ext4)
    if done.candidate("aufs")["supported"]:
        pytest.skip("this kernel has aufs")
    assert (done.document["chosen"], done.document["prior"], done.code) == (None, ["aufs"], 4)
    assert "aufs" in done.err


# Graph roots that are none


def test_graph_root_that_is_missing_is_looked_at_from_above(ext4: Path) -> None:
    """The nearest ancestor that exists is tried, and said."""
    done = run("detect", "--root", ext4 / "not/there")
    assert done.code == 0
    assert str(ext4) in done.out
    assert "not there yet" in done.out


@pytest.mark.parametrize("command", ["detect", "facts", "verify"])
@pytest.mark.parametrize("below", ["", "store", "a/b/c"])
def test_graph_root_that_is_a_file_or_below_one_is_refused(
    command: str, below: str, tmp_path: Path
) -> None:
    """A file in the way is named, with what to do, and stays."""
    (tmp_path / "file").write_text("kept")
    done = run(command, "--root", tmp_path / "file" / below)
    assert (done.code, done.out) == (1, "")
    assert f"{tmp_path}/file is a file" in done.err
    assert "→" in done.err
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("target", ["loop", "nowhere/at/all"])
def test_graph_root_that_is_a_symlink_to_nowhere(target: str, tmp_path: Path) -> None:
    """A symlink that loops is refused; one that dangles leads to what is not there yet."""
    (tmp_path / "loop").symlink_to(target)
    done = run("detect", "--json", "--root", tmp_path / "loop")
    if target == "loop":
        assert done.code == 1
        assert str(tmp_path / "loop") in done.err
    else:
        assert done.code in (0, 3)
        assert everything_below(tmp_path) == {"loop"}


@pytest.fixture
def read_only(ext4: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory on a read-only filesystem."""
    with mount.mounted([Mount("bind", str(ext4), options=("bind", "ro"))], tmp_path):
        yield tmp_path


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A directory on a filesystem without a free byte."""
    need("root", "mount", "tmpfs")
    with mount.mounted([Mount("tmpfs", "tmpfs", options=("size=64k",))], tmp_path):
        with (tmp_path / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        yield tmp_path


@pytest.fixture
def without_inodes(tmp_path: Path) -> Iterator[Path]:
    """A directory on a filesystem without a free inode."""
    need("root", "mount", "tmpfs")
    with mount.mounted([Mount("tmpfs", "tmpfs", options=("nr_inodes=2",))], tmp_path):
        (tmp_path / "filler").touch()
        yield tmp_path


@pytest.mark.parametrize(
    ("fixture", "reason"),
    [("read_only", "read-only"), ("full", "no-space"), ("without_inodes", "no-space")],
)
def test_graph_root_where_nothing_can_be_kept(
    fixture: str, reason: str, request: pytest.FixtureRequest
) -> None:
    """On a read-only or full filesystem every driver is rejected for just that; the code is 4."""
    root = request.getfixturevalue(fixture)
    before = everything_below(root)
    done = run("detect", "--json", "--root", root)
    assert (done.code, done.document["chosen"]) == (4, None)
    assert {one["reason"] for one in done.document["candidates"]} == {reason}
    assert all(one["remedy"] for one in done.document["candidates"])
    assert str(root) in done.err
    assert everything_below(root) == before


@pytest.mark.parametrize("path", ["/proc/store", "/sys/store"])
def test_graph_root_in_a_filesystem_of_the_kernel_is_rejected(path: str) -> None:
    """Where no directory can be made at all, that is the answer, as for any other host."""
    need("root")
    done = run("detect", "--json", "--root", path)
    assert done.code == 4
    reasons = {one["reason"] for one in done.document["candidates"]}
    assert reasons in ({"not-writable"}, {"read-only"})  # /sys is read-only in containers
    assert "run as root" not in done.out + done.err, "it does run as root"


def test_graph_root_of_another_user_is_not_writable(public: Path) -> None:
    """A user is told that the directory is not theirs; no driver is said to have layers there."""
    need("root")
    for mode in (0o755, 0o710, 0o700):
        root = public / f"store-{mode:o}"
        (root / "overlay2/0a1b").mkdir(parents=True)
        root.chmod(mode)
        done = as_nobody("detect", "--json", "--root", root)
        assert (done.code, done.document["chosen"]) == (4, None)
        assert {one["reason"] for one in done.document["candidates"]} == {"not-writable"}
        assert set(done.document["prior"]) <= {"overlay2"}, oct(mode)
        below = as_nobody("detect", "--json", "--root", root / "below")
        assert {one["reason"] for one in below.document["candidates"]} == {"not-writable"}


# Who may not mount


def test_user_gets_copying_and_the_reason(public: Path) -> None:
    """Without privilege the kernel's drivers are not tried, which is said, and copying remains."""
    done = as_nobody("detect", "--json", "--root", public)
    assert (done.code, done.document["chosen"]) == (3, "vfs-copy")
    overlay = done.candidate("overlay2")
    assert (overlay["reason"], overlay["predicted"]) == ("no-permission", True)
    assert "unshare" in overlay["remedy"]
    plain = as_nobody("detect", "--root", public)
    assert "not tried" in plain.out
    assert os.listdir(public) == []


def test_user_without_a_home_is_answered() -> None:
    """The default graph root of a user who has none is told, not a crash."""
    done = as_nobody("detect", "--json", env={"HOME": "/nonexistent"})
    assert done.code == 4
    assert {one["reason"] for one in done.document["candidates"]} == {"not-writable"}


def test_user_namespace_gets_overlay(public: Path) -> None:
    """In a user namespace of its own, an unprivileged process gets overlay2 by a real trial."""
    need("user-namespace", "overlay")
    done = as_nobody("detect", "--json", "--root", public, place="namespace")
    assert (done.code, done.document["chosen"]) == (0, "overlay2")
    assert done.candidate("overlay2")["predicted"] is False
    assert os.listdir(public) == []


def test_container_without_privilege_is_answered(public: Path) -> None:
    """Root without CAP_SYS_ADMIN, as in a plain container, is told no-permission."""
    need("root", "setpriv")
    dropped = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    done = run("detect", "--json", "--root", public, prefix=dropped)
    assert (done.code, done.document["chosen"]) == (3, "vfs-copy")
    assert done.candidate("overlay2")["reason"] == "no-permission"


# The JSON documents


def _schema(name: str) -> Any:
    schema = json.loads((SCHEMAS / name).read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from _objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _objects(value)


def _enums(schema: Any) -> Iterator[set[Any]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("enum"), list):
            yield set(schema["enum"])
        for value in schema.values():
            yield from _enums(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _enums(value)


@pytest.mark.parametrize("name", ["detect.json", "facts.json"])
def test_schema_is_strict(name: str) -> None:
    """A schema of ours allows no key that it does not describe."""
    schema = _schema(name)
    assert "2020-12" in schema["$schema"]
    for one in _objects(schema):
        assert one.get("additionalProperties") not in (None, True)


def test_schema_of_detect_lists_the_codes() -> None:
    """Reasons, qualities and capabilities of the schema are those of the program."""
    enums = list(_enums(_schema("detect.json")))
    for codes in (Reason, Quality, Capability):
        assert {str(one) for one in codes} in enums


def test_detect_document_is_as_described(
    ext4: Path, copying: Path, public: Path, full: Path
) -> None:
    """Whatever the answer, the document of detect validates."""
    validator = jsonschema.Draft202012Validator(_schema("detect.json"))
    (ext4 / "aufs/0a1b").mkdir(parents=True)
    answers = [
        run("detect", "--json", "--root", public),
        run("detect", "--json", "--root", ext4),
        run("detect", "--json", "--root", copying, "--fallback", "refuse"),
        run("detect", "--json", "--root", full),
        run("detect", "--json", "--explain", "--driver", "aufs", "--root", public),
        run("detect", "--json", "--facts", "-", input=run("facts", "--root", public).out),
        run("detect", "--json", "--facts", "-", input='{"schema": 1}'),
        as_nobody("detect", "--json", "--root", public),
    ]
    for one in answers:
        validator.validate(one.document)
    document = answers[0].document
    for key in list(document):
        assert not validator.is_valid({k: v for k, v in document.items() if k != key}), key


def test_facts_document_is_as_described(public: Path, full: Path) -> None:
    """The document of facts validates, and a key that nobody knows does not."""
    validator = jsonschema.Draft202012Validator(_schema("facts.json"))
    for root in (public, full, public / "not/there"):
        document = run("facts", "--root", root).document
        validator.validate(document)
        assert not validator.is_valid({**document, "more": 1})
        assert not validator.is_valid({**document, "graph_root": {"more": 1}})


# Facts of another host


def test_facts_of_one_host_are_asked_on_another(ext4: Path) -> None:
    """``facts | detect --facts -`` gives the same choice, predicted."""
    facts = run("facts", "--root", ext4)
    live = run("detect", "--json", "--root", ext4)
    done = run("detect", "--json", "--facts", "-", input=facts.out)
    assert (done.code, done.document["chosen"]) == (live.code, live.document["chosen"])
    assert all(one["predicted"] for one in done.document["candidates"])
    assert [one["reason"] for one in done.document["candidates"]] == [
        one["reason"] for one in live.document["candidates"]
    ]
    assert "predicted" in run("detect", "--facts", "-", input=facts.out).out


def test_facts_come_from_a_file_a_pipe_or_a_socket(tmp_path: Path, public: Path) -> None:
    """Standard input may be anything: ssh and some service managers give a socket."""
    text = run("facts", "--root", public).out
    file = tmp_path / "host.json"
    file.write_text(text)
    expected = run("detect", "--json", "--facts", file)
    with file.open() as stream:
        assert run("detect", "--json", "--facts", "-", stdin=stream) == expected
    assert run("detect", "--json", "--facts", "-", input=text) == expected
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(text.encode())
        ours.shutdown(socket.SHUT_WR)
        assert run("detect", "--json", "--facts", "-", stdin=theirs) == expected


def test_user_pipes_facts_of_root(public: Path) -> None:
    """A user reads facts from a file descriptor that root has opened."""
    need("root")
    file = public / "host.json"
    file.write_text(run("facts", "--root", public).out)
    file.chmod(0o600)
    with file.open() as stream:
        assert as_nobody("detect", "--json", "--facts", "-", stdin=stream).code in (0, 3)


_FACTS = """{
  "schema": 1,
  "os": {
    "id": "kernel"
  },
  "kernel": "6.1.0",
  "disks": [
    {"device": "a", "mountpoint": "/", "filesystem": "ext4", "total_bytes": 1, "free_bytes": 1},
    {
      "device": "b",
      "mountpoint": "/b",
      "filesystem": "ext4",
      "total_bytes": 1,
      "free_bytes": 1
    }
  ],
  "graph_root": {
    "filesystem": "ext4",
    "problem": ""
  }
}
"""


def _line_of(text: str) -> int:
    return _FACTS[: _FACTS.index(text)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"schema": 1', '"schema": 2', "schema"),
        ('"schema": 1', '"schema": true', "schema"),
        ('"schema": 1', '"schema": null', "schema"),
        ('"kernel": "6.1.0"', '"kernel": 6', "kernel"),
        ('"kernel": "6.1.0"', '"kernels": "6"', "kernels"),
        ('"kernel": "6.1.0"', '"recorded": true', "recorded"),
        ('"kernel": "6.1.0"', '"uid": true', "uid"),
        ('"kernel": "6.1.0"', '"uid": 1.5', "uid"),
        ('"kernel": "6.1.0"', '"filesystems": "ext4"', "filesystems"),
        ('"kernel": "6.1.0"', '"filesystems": [1]', "filesystems.0"),
        ('"kernel": "6.1.0"', '"memory_bytes": "1"', "memory_bytes"),
        ('"id": "kernel"', '"id": ["debian"]', "os.id"),
        ('"id": "kernel"', '"ids": "debian"', "os.ids"),
        ('"problem": ""', '"problem": "nonsense"', "graph_root.problem"),
        ('"problem": ""', '"problem": "ok"', "graph_root.problem"),
        ('"problem": ""', '"d_type": "yes"', "graph_root.d_type"),
        ('"device": "b"', '"device": 5', "disks.1.device"),
        ('"device": "b"', '"devices": "b"', "disks.1.devices"),
    ],
)
def test_malformed_facts_are_told_by_file_line_and_key(
    old: str, new: str, key: str, tmp_path: Path
) -> None:
    """A wrong value in facts has the file, the exact line and the key, and nothing is printed."""
    file = tmp_path / "host.json"
    file.write_text(_FACTS.replace(old, new))
    done = run("detect", "--facts", file)
    assert (done.code, done.out) == (1, "")
    assert f"{file}, line {_line_of(old)}, key '{key}'" in done.err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("{", 1),
        ('{\n"schema": 1\n"uid": 0\n}', 3),
        ("[]", 1),
        ("5", 1),
        ("null", 1),
        ("\ufeff{}", 1),
        ("not JSON", 1),
    ],
)
def test_facts_that_are_no_json_object_are_refused(text: str, line: int) -> None:
    """What is no JSON, or no object, is an error with the line."""
    done = run("detect", "--facts", "-", input=text)
    assert (done.code, done.out) == (1, "")
    assert f"-, line {line}: not" in done.err


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"schema": 1, "uid": ' + "9" * 5000 + "}", "{}", '{"os": []}'],
    ids=["deep", "long number", "empty", "no schema"],
)
def test_facts_beyond_all_limits_are_refused(text: str) -> None:
    """Facts from a stranger end in one sentence, whatever they hold."""
    done = run("detect", "--facts", "-", input=text)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("storagedrivers: -")


def test_facts_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    """A missing file, a directory and bytes that are no text are errors that name the file."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        for command in (("detect",), ("driver", "inspect", "overlay2"), ("policy", "show", "os")):
            done = run(*command, "--facts", path)
            assert (done.code, done.out) == (1, "")
            assert f"{path}: cannot be read" in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("root = \n", "line 1: not valid TOML"),
        ('policy = "os"\nrots = "/x"\n', "line 2, key 'rots': unknown key"),
        ('policy = "os"\ndriver = 5\n', "line 2, key 'driver': must be a string"),
        ('fallback = "never"\n', "line 1, key 'fallback': "),
        ('driver = "overly2"\n', "did you mean overlay2"),
        ('policy = "dokcer-23"\n', "did you mean docker-23"),
        ('policy_file = "/no/such/file.toml"\n', "/no/such/file.toml: cannot be read"),
        ('root = "a\\u0000b"\n', "line 1, key 'root'"),
        ('policy_file = "a\\u0000b"\n', "line 1, key 'policy_file'"),
        (f"root = {'9' * 5000}\n", "storagedrivers.toml"),
    ],
)
def test_malformed_configuration_is_told(text: str, words: str, tmp_path: Path) -> None:
    """A wrong configuration file is one sentence with its place, and nothing is tried."""
    file = tmp_path / "storagedrivers.toml"
    file.write_text(text)
    for done in (
        run("detect", "--config", file),
        run("detect", env={"STORAGEDRIVERS_CONFIG": str(file)}),
    ):
        assert (done.code, done.out) == (1, "")
        assert words in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[mine]\norder = 5\n", "line 2, key 'mine.order': must be a list"),
        ('[mine]\nordre = ["aufs"]\n', "line 2, key 'mine.ordre': unknown key"),
        ("[mine\n", "line 1: not valid TOML"),
        ("[mine]\n", "line 1, key 'mine.order'"),
    ],
)
def test_malformed_policy_file_is_told(text: str, words: str, tmp_path: Path) -> None:
    """A wrong policy file is one sentence with its place, for every command that reads it."""
    file = tmp_path / "policies.toml"
    file.write_text(text)
    for command in (("detect",), ("policy", "ls"), ("policy", "show", "os"), ("verify",)):
        done = run(*command, "--policy-file", file)
        assert (done.code, done.out) == (1, "")
        assert f"{file}, {words}" in done.err


def test_policy_of_a_file_is_followed_and_explained(ext4: Path, tmp_path: Path) -> None:
    """A policy of one's own decides, and --explain tells order, settings and their sources."""
    file = tmp_path / "policies.toml"
    file.write_text('[mine]\ndescription = "as I like it"\norder = ["aufs", "vfs-copy", "*"]\n')
    config = tmp_path / "config.toml"
    config.write_text(f'policy_file = "{file}"\npolicy = "mine"\n')
    done = run("detect", "--explain", "--root", ext4, "--config", config)
    assert done.code == 3
    for words in (
        "vfs-copy: the first that works in the order of policy mine",
        "policy mine: as I like it",
        "order aufs, vfs-copy, *",
        f"policy_file = {file} ({config})",
        f"root = {ext4} (argument)",
        "fallback = warn (default)",
    ):
        assert words in done.out


# Options and commands


def test_global_options_are_taken_before_and_after_the_command(ext4: Path) -> None:
    """The place of a global option does not matter, nor its form."""
    root = str(ext4)
    wanted = run("detect", "--json", "--root", root, "--policy", "docker-23")
    assert wanted.code == 0
    for words in (
        ("--json", "--root", root, "--policy", "docker-23", "detect"),
        ("--root", root, "detect", "--policy", "docker-23", "--json"),
        (f"--root={root}", "--json", "detect", "--policy=docker-23"),
    ):
        assert run(*words) == wanted
    listed = run("--json", "driver", "ls")
    assert listed.code == 0
    assert listed == run("driver", "--json", "ls") == run("driver", "ls", "--json")


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("detct",), "detect"),
        (("--json", "polcy", "ls"), "policy"),
        (("Detect",), "detect"),
    ],
)
def test_unknown_command_is_answered_with_the_nearest(words: tuple[str, ...], near: str) -> None:
    """A command that is none is wrong usage, with those that there are."""
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert f"did you mean {near}" in done.err
    assert "verify" in done.err


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--json",),
        ("--no-such-option",),
        ("detect", "--no-such-option"),
        ("detect", "too", "much"),
        ("--root",),
        ("driver",),
        ("driver", "lss"),
        ("driver", "inspect"),
        ("policy", "show"),
        ("completion", "powershell"),
        ("detect", "--pol", "os"),
    ],
)
def test_wrong_usage_is_2(words: tuple[str, ...]) -> None:
    """What cannot be understood is told on standard error, with the code 2."""
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert "usage" in done.err


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("detect", "--help"), ("-h", "policy")])
def test_help_is_the_answer(words: tuple[str, ...]) -> None:
    """Help that was asked for is printed to standard output, with all global options."""
    done = run(*words)
    assert (done.code, done.err) == (0, "")
    assert "--root" in done.out
    assert "--policy" in done.out


def test_version_is_the_packages() -> None:
    """--version prints the name and the version."""
    from storagedrivers import __version__

    assert run("--version").out == f"storagedrivers {__version__}\n"


def test_installed_script_is_the_same_program() -> None:
    """The console script that an installer makes does what the module does."""
    script = Path(sys.executable).with_name("storagedrivers")
    if not script.exists():
        lack("script", "the package is not installed with its script")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == run("--version").out


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("detect", "--driver", "ovrlay2"), "overlay2"),
        (("detect", "--driver", "bttrfs"), "btrfs"),
        (("driver", "inspect", "ovrlay2"), "overlay2"),
        (("verify", "vsf-copy"), "vfs-copy"),
        (("detect", "--policy", "docker-2"), "docker-2"),
        (("policy", "show", "dokcer-29"), "docker-29"),
    ],
)
def test_unknown_name_is_answered_with_the_nearest(words: tuple[str, ...], near: str) -> None:
    """A driver or policy that there is not is refused with what was meant."""
    done = run(*words)
    assert (done.code, done.out) == (1, "")
    assert f"did you mean {near}" in done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_is_a_script(shell: str) -> None:
    """A completion script is printed for each shell and knows the commands and options."""
    done = run("completion", shell)
    assert (done.code, done.err) == (0, "")
    for word in ("detect", "policy", "--root", "--facts"):
        assert word in done.out or word.lstrip("-") in done.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("de",), "detect"),
        (("detect", "--fa"), "--facts"),
        (("--ro",), "--root"),
        (("detect", "--ro"), "--root"),
        (("policy", "s"), "show"),
    ],
    ids=" ".join,
)
def test_completion_for_bash_is_valid_and_completes(
    words: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    """A shell takes the script, and completes commands, and global options after a command too."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    script = tmp_path / "completion.bash"
    script.write_text(run("completion", "bash").out)
    subprocess.run(["bash", "-n", str(script)], check=True)
    program = """
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        function compopt { :; }
        "$(complete -p storagedrivers | sed 's/.*-F *\\([^ ]*\\).*/\\1/')" storagedrivers "${@: -1}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """

    command = ["bash", "-c", program, "bash", str(script), "storagedrivers", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert expected in done.stdout.split()


# driver, policy, verify


def test_drivers_are_listed() -> None:
    """``driver ls`` names every installed driver, its aliases and where it comes from."""
    rows = {one["driver"]: one for one in run("driver", "ls", "--json").document["drivers"]}
    assert {"aufs", "btrfs-snapshot", "overlay2", "vfs-copy"} <= set(rows)
    assert rows["overlay2"]["aliases"] == ["overlay"]
    assert rows["overlay2"]["source"] == "storagedrivers.drivers.overlay2:Overlay2"
    assert all(one["loaded"] and one["message"] for one in rows.values())
    lines = run("driver", "ls").out.splitlines()
    assert lines[0].split() == ["DRIVER", "ALIASES", "SOURCE", "ABOUT"]
    assert [line.split()[0] for line in lines[1:]] == sorted(rows)
    assert not any(line.endswith(" ") for line in lines)


@pytest.mark.parametrize("name", ["overlay2", "overlay", "vfs", "btrfs-snapshot", "aufs"])
def test_driver_is_inspected(name: str, ext4: Path) -> None:
    """``driver inspect`` tells what a driver is, and its answer for this host."""
    done = run("driver", "inspect", name, "--json", "--root", ext4)
    document = done.document
    assert done.code == 0
    detected = run("detect", "--json", "--root", ext4).candidate(document["driver"])
    for key in (
        "supported",
        "reason",
        "message",
        "remedy",
        "capabilities",
        "evidence",
        "predicted",
    ):
        assert document[key] == detected[key], key
    assert document["home"] == f"{ext4}/{document['driver']}"
    plain = run("driver", "inspect", name, "--root", ext4).out
    assert f"driver: {document['driver']}\n" in plain
    assert f"reason: {document['reason']}\n" in plain


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        (("driver", "ls"), "driver-ls.json"),
        (("driver", "inspect", "overlay2"), "driver-inspect.json"),
        (("driver", "inspect", "vfs"), "driver-inspect.json"),
        (("policy", "ls"), "policy-ls.json"),
        (("policy", "show", "os"), "policy-show.json"),
        (("policy", "show", "docker-23"), "policy-show.json"),
        (("verify", "vfs-copy"), "verify.json"),
    ],
)
def test_every_document_is_as_described(words: tuple[str, ...], schema: str, public: Path) -> None:
    """What a command prints as JSON is what its schema says."""
    jsonschema.validate(run(*words, "--json", "--root", public).document, _schema(schema))


def test_policies_are_listed_and_shown(public: Path) -> None:
    """``policy ls`` names every policy with its order, ``policy show`` what one means here."""
    policies = run("policy", "ls", "--json").document["policies"]
    listed = {one["name"]: one["order"] for one in policies}
    assert listed == {name: list(one.order) for name, one in load_policies().items()}
    plain = run("policy", "ls").out
    assert all(f"\n{name} " in plain for name in listed)
    shown = run("policy", "show", "os", "--json").document
    assert shown["name"] == "os"
    assert set(shown["here"]) >= {"overlay2", "vfs-copy"}
    facts = '{"schema": 1, "os": {"id": "sles", "version": "12.5", "name": "SLES 12 SP5"}}'
    there = run("policy", "show", "os", "--json", "--facts", "-", input=facts).document
    assert there["here"][0] == "btrfs-snapshot"
    assert "on SLES 12 SP5: SLES 12" in run("policy", "show", "os", "--facts", "-", input=facts).out


def test_verify_keeps_all_contracts_and_leaves_nothing(ext4: Path) -> None:
    """``verify`` runs the kit where the store would be, says so, and leaves no trace."""
    done = run("verify", "vfs-copy", "--root", ext4 / "not/there", "--json")
    assert done.code == 0
    assert done.document["driver"] == "vfs-copy"
    assert {one["outcome"] for one in done.document["contracts"]} <= {"kept", "not-applicable"}
    assert everything_below(ext4) == set()


def test_verify_chooses_as_detect_does(ext4: Path) -> None:
    """Without a name the driver that detect chooses is verified."""
    done = run("verify", "--root", ext4)
    assert done.code == 0
    assert "overlay2 in" in done.err
    assert re.search(r"^\d+ kept, 0 broken", done.out, re.MULTILINE)
    assert everything_below(ext4) == set()


def test_verify_refuses_what_does_not_work_here(ext4: Path) -> None:
    """A driver that does not work here is not verified, and told why."""
    done = run("verify", "btrfs-snapshot", "--root", ext4)
    assert (done.code, done.out) == (1, "")
    assert "btrfs-snapshot does not work here" in done.err
    assert everything_below(ext4) == set()


@pytest.mark.parametrize(
    ("words", "driver"),
    [((), "vfs-copy"), (("--driver", "overlay"), "overlay2")],
    ids=["of the layers", "that was asked for"],
)
def test_verify_takes_the_driver_of_the_store(
    words: tuple[str, ...], driver: str, ext4: Path
) -> None:
    """In a store that holds layers it is their driver that is verified, or the one asked for."""
    (ext4 / "vfs-copy/0a1b/fs").mkdir(parents=True)
    done = run("verify", "--json", "--root", ext4, *words)
    assert (done.code, done.document["driver"]) == (0, driver)
    assert everything_below(ext4) == {"vfs-copy", "vfs-copy/0a1b", "vfs-copy/0a1b/fs"}


def test_verify_as_a_user_tries_what_it_can(public: Path) -> None:
    """Without privilege the contracts that need none are tried, and the others named."""
    done = as_nobody("verify", "--json", "--root", public, env={"TMPDIR": str(public)})
    assert (done.code, done.document["driver"]) == (0, "vfs-copy")
    outcomes = [one["outcome"] for one in done.document["contracts"]]
    assert outcomes.count("kept") >= 20
    assert "broken" not in outcomes
    assert os.listdir(public) == []


# Plugins

_PLUGINS = {
    "raises": "raise RuntimeError('no libzfs here')",
    "lacks": "from storagedrivers.driver import StorageDriver\n"
    "class Driver(StorageDriver):\n    name = 'lacks'",
    "overlay2": "from storagedrivers.drivers.vfs_copy import VfsCopy\n"
    "class Driver(VfsCopy):\n    name = 'overlay2'\n    aliases = ()",
    "buggy": "from storagedrivers.drivers.vfs_copy import VfsCopy\n"
    "class Driver(VfsCopy):\n    name = 'buggy'\n    aliases = ()\n"
    "    @classmethod\n    def probe(cls, host, home):\n        return 1 / 0",
}


_PRINTING = """
print("hello from a plugin")
from storagedrivers.drivers.vfs_copy import VfsCopy

class Driver(VfsCopy):
    name = "prints"
    aliases = ()
"""


def _install(tmp_path: Path, plugins: dict[str, str]) -> dict[str, str]:
    for name, code in plugins.items():
        (tmp_path / f"plugin_{name}.py").write_text(code)
        info = tmp_path / f"plugin_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: plugin-{name}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(
            f"[storagedrivers.drivers]\n{name} = plugin_{name}:Driver\n"
        )
    return {"PYTHONPATH": str(tmp_path)}


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, str]:
    """An environment with bad plugins installed."""
    return _install(tmp_path, _PLUGINS)


def test_plugin_that_prints_does_not_spoil_the_document(tmp_path: Path, ext4: Path) -> None:
    """What a plugin says while it is imported does not get into the answer of a script."""
    done = run("detect", "--json", "--root", ext4, env=_install(tmp_path, {"prints": _PRINTING}))
    assert (done.code, done.document["chosen"]) == (0, "overlay2")
    assert done.candidate("prints")["supported"]


def test_bad_plugins_are_listed_and_everything_else_works(
    plugins: dict[str, str], ext4: Path
) -> None:
    """Plugins that raise, lack a method, claim a taken name or have a bug are rejected by name."""
    done = run("detect", "--json", "--root", ext4, env=plugins)
    assert (done.code, done.document["chosen"]) == (0, "overlay2")
    jsonschema.validate(done.document, _schema("detect.json"))
    reasons = {
        one["source"]: one["reason"]
        for one in done.document["candidates"]
        if one["source"].startswith("plugin_")
    }
    assert reasons == {
        "plugin_raises:Driver": "load-failed",
        "plugin_lacks:Driver": "load-failed",
        "plugin_overlay2:Driver": "name-conflict",
        "plugin_buggy:Driver": "probe-failed",
    }
    rows = run("driver", "ls", env=plugins)
    assert rows.code == 0
    assert "no libzfs here" in rows.out


def test_plugin_that_did_not_load_is_refused_by_name(plugins: dict[str, str], ext4: Path) -> None:
    """Asking for a plugin that cannot be imported says why."""
    for words in (("detect", "--driver", "raises"), ("driver", "inspect", "raises")):
        done = run(*words, "--root", ext4, env=plugins)
        assert done.code in (1, 4)
        assert "no libzfs here" in done.err


# What it prints where


def test_closed_pipe_is_no_error_message() -> None:
    """A reader that has seen enough, such as head(1), ends the program in silence."""
    for words in (("detect",), ("facts",), ("policy", "ls", "--json"), ("completion", "bash")):
        with subprocess.Popen(
            [*PROGRAM, *words],
            env=_environment(None),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode in (0, 1, 3, 141)


@pytest.mark.parametrize("words", [("detect",), ("facts",), ("policy", "ls"), ("detect", "--json")])
def test_no_standard_output_at_all(words: tuple[str, ...]) -> None:
    """With standard output closed, as by ``>&-``, there is no traceback."""
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, *words]
    done = subprocess.run(
        command, env=_environment(None), stderr=subprocess.PIPE, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("words", [("detect",), ("facts",), ("policy", "ls", "--json")])
def test_full_disk_behind_standard_output_is_told(words: tuple[str, ...]) -> None:
    """An answer that could not be written is a failure with one sentence."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, *words],
            env=_environment(None),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("storagedrivers: ")
    assert "No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 2  # the sentence, and what to do


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8:strict"])
def test_terminal_that_lacks_a_character_gets_the_answer(encoding: str, public: Path) -> None:
    """In a locale without arrows, or with a graph root that is no text, the answer is printed."""
    root = public / "no UTF-8 \udcff\udc80 ☃"
    for words in (("detect",), ("detect", "--json"), ("facts",), ("detect", "--driver", "aufs")):
        done = run(*words, "--root", root, env={"PYTHONIOENCODING": encoding})
        assert done.code in (0, 3, 4)
        assert "overlay2" in done.out or words == ("facts",)


def test_graph_root_with_an_odd_name_survives_json(public: Path) -> None:
    """A path that is no text comes through facts and detect as valid JSON."""
    root = public / "new\nline \udcff ☃"
    root.mkdir()
    facts = run("facts", "--root", root, env={"PYTHONIOENCODING": "utf-8:strict"})
    assert facts.document["graph_root"]["path"] == str(root)
    done = run("detect", "--json", "--facts", "-", input=facts.out)
    assert done.code in (0, 3)
    live = run("detect", "--json", "--root", root, env={"PYTHONIOENCODING": "utf-8:strict"})
    assert live.document["root"] == str(root)
    root.rmdir()


@contextmanager
def _terminal(columns: int) -> Iterator[tuple[int, int]]:
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        yield ours, theirs
    finally:
        os.close(ours)


def _on_terminal(*words: object, columns: int, env: dict[str, str]) -> str:
    with _terminal(columns) as (ours, theirs):
        process = subprocess.Popen(
            [*PROGRAM, *map(str, words)], env=_environment(env), stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        text = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not part:
                break
            text += part
        process.wait()
    assert b"Traceback" not in text
    return text.decode()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_terminal_gets_a_table_in_its_width(columns: int, public: Path) -> None:
    """On a terminal the answer is a coloured table that loses no reason, however narrow it is."""
    text = _on_terminal("detect", "--root", public, columns=columns, env={"TERM": "xterm-256color"})
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    for word in ("overlay2", "btrfs-snapshot", "vfs-copy", "REASON"):
        assert word in plain
    table = plain[plain.index("DRIVER") - 3 :].splitlines()
    assert max(map(len, table)) <= columns


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_terminal_that_wants_no_colour_gets_none(env: dict[str, str], public: Path) -> None:
    """NO_COLOR and a dumb terminal are respected: no colour is sent."""
    text = _on_terminal("detect", "--root", public, columns=100, env=env)
    assert not re.search(r"\x1b\[(?:[0-9]*;)*3[0-9]", text)
    assert "overlay2" in text


def test_facts_cannot_write_to_the_terminal() -> None:
    """Control characters in facts of a stranger are not sent as they are."""
    facts = json.dumps({"schema": 1, "kernel": "6.1\x1b]0;owned\x07", "os": {"name": "x\x1b[31m"}})
    done = run("detect", "--facts", "-", input=facts)
    assert "\x1b" not in done.out + done.err


# What it imports


_MODULES = """
import sys
from storagedrivers.cli.main import main
code = main()
print("", *sys.modules, sep="\\n", file=sys.stderr)
sys.exit(code)
"""


def test_detect_imports_nothing_that_it_does_not_use() -> None:
    """``detect --json`` starts without tables, databases, archives, completion or the kit."""
    done = run("detect", "--json", program=(sys.executable, "-c", _MODULES))
    assert done.code in (0, 3, 4)
    imported = done.err.splitlines()
    assert "storagedrivers.cli.detect" in imported
    unused = (
        "rich",
        "sqlite3",
        "shtab",
        "storagedrivers.archive",
        "storagedrivers.testing",
        "pytest",
    )
    for name in imported:
        assert not any(name == one or name.startswith(f"{one}.") for one in unused), name


# A system that is not Linux

_NOT_LINUX = """
import argparse, builtins, ctypes, importlib, os, pkgutil, platform, subprocess, sys, tempfile
try:
    import pytest
except ImportError:
    pass
import stevedore, distro
for name in [one for one in sys.modules if one.startswith("storagedrivers") or one == "fcntl"]:
    del sys.modules[name]
sys.platform = "darwin"
platform.system = lambda: "Darwin"
platform.release = lambda: "23.4.0"
platform.machine = lambda: "arm64"
platform.platform = lambda *more, **options: "macOS-14.4-arm64"
for name in (
    "O_PATH O_TMPFILE O_NOATIME O_DIRECT O_LARGEFILE O_RSYNC setxattr getxattr listxattr"
    " removexattr copy_file_range memfd_create posix_fadvise posix_fallocate sched_getaffinity"
    " eventfd splice pidfd_open unshare setns XATTR_CREATE XATTR_REPLACE SEEK_DATA SEEK_HOLE"
    " O_CLOEXEC O_DIRECTORY O_NOFOLLOW"
).split():
    if hasattr(os, name):
        delattr(os, name)
real_import = builtins.__import__

def no_fcntl(name, *arguments, **options):
    if name in ("fcntl", "psutil"):
        raise ImportError(f"no module named {name}")
    return real_import(name, *arguments, **options)

builtins.__import__ = no_fcntl
real_open = builtins.open

def no_proc(file, *arguments, **options):
    if isinstance(file, str) and file.startswith(("/proc", "/sys")):
        raise FileNotFoundError(2, "No such file or directory", file)
    return real_open(file, *arguments, **options)

builtins.open = no_proc
import storagedrivers
for module in pkgutil.walk_packages(storagedrivers.__path__, "storagedrivers."):
    if module.name != "storagedrivers.__main__":
        importlib.import_module(module.name)
for name in storagedrivers.__all__:
    getattr(storagedrivers, name)
from storagedrivers.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def _not_linux(*words: object) -> Done:
    done = subprocess.run(
        [sys.executable, "-c", _NOT_LINUX, *map(str, words)],
        env=_environment(None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def test_other_system_is_answered(tmp_path: Path) -> None:
    """Not on Linux everything imports, the kernel's drivers say so, and copying remains."""
    done = _not_linux("detect", "--json", "--root", tmp_path)
    assert (done.code, done.document["chosen"]) == (3, "vfs-copy")
    for driver in KERNEL_DRIVERS:
        assert done.candidate(driver)["reason"] == "not-linux"
        assert "Darwin" in done.candidate(driver)["message"]
    jsonschema.validate(done.document, _schema("detect.json"))
    plain = _not_linux("detect", "--explain", "--root", tmp_path / "not/there")
    assert plain.code == 3
    assert "not-linux" in plain.out


def test_other_system_refuses_a_kernel_driver_that_was_asked_for(tmp_path: Path) -> None:
    """Asking for overlay2 elsewhere is refused as anywhere."""
    done = _not_linux("detect", "--json", "--driver", "overlay2", "--root", tmp_path)
    assert (done.code, done.document["chosen"]) == (4, None)


def test_other_system_gives_facts_and_lists(tmp_path: Path) -> None:
    """facts, driver and policy work there too, and the facts can be asked on Linux."""
    facts = _not_linux("facts", "--root", tmp_path)
    assert (facts.code, facts.document["system"]) == (0, "Darwin")
    jsonschema.validate(facts.document, _schema("facts.json"))
    done = run("detect", "--json", "--facts", "-", input=facts.out)
    assert (done.code, done.candidate("overlay2")["reason"]) == (3, "not-linux")
    assert _not_linux("driver", "ls").code == 0
    assert _not_linux("policy", "show", "os", "--root", tmp_path).code == 0


def test_facts_of_linux_are_asked_on_another_system(public: Path, tmp_path: Path) -> None:
    """A recorded Linux host is answered as what it is, wherever it is asked."""
    file = tmp_path / "host.json"
    facts = {"schema": 1, "kernel": "6.1.0", "filesystems": ["ext4", "overlay"]}
    file.write_text(json.dumps({**facts, "graph_root": {"filesystem": "ext4", "d_type": True}}))
    done = _not_linux("detect", "--json", "--facts", file)
    assert (done.code, done.document["chosen"]) == (0, "overlay2")
    assert done.candidate("overlay2")["predicted"]
