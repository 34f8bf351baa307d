"""COPY and ADD: what they find, read and write; Docker was asked for what the tables say."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import http.server
import io
import lzma
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import archives
import pytest
from build_cases.contexts import (
    TIME,
    Case,
    Entry,
    directory,
    fifo,
    file,
    hard_link,
    listing,
    program,
    symlink,
    tar,
    write_context,
)
from capabilities import need
from hostile import Hostile, all_archives
from stored import Place

from storagedrivers.build import context as contexts
from storagedrivers.build import reading, walking
from storagedrivers.build.context import Context
from storagedrivers.build.reading import Prepared
from storagedrivers.dockerfile.parser import parse_instruction
from storagedrivers.dockerfile.variables import expand_instruction
from storagedrivers.errors import (
    BuildError,
    DiffError,
    MalformedDiffError,
    NotFoundError,
    StorageDriversError,
)
from storagedrivers.linux.tree import opened_directory, remove_tree
from storagedrivers.storage import Storage
from storagedrivers.testing.trees import Node, Tree, differences, populate, read_tree

Files = Mapping[str, str | bytes | Entry]

NAMES = {
    "etc/passwd": "root:x:0:0::/:\nsvc:x:12:99::/:\n77:x:7:7::/:\nlone:x:8:8::/:\n",
    "etc/group": "root:x:0:\nsvc:x:34:\nother:x:56:\n77:x:8:\n",
}


class Building:
    """A store, a context and a tree that is copied into."""

    def __init__(self, storage: Storage, directory: Path) -> None:
        self.layers = storage.layers
        self.path = directory / "context"
        self.goal = directory / "goal"
        self._stack = ExitStack()
        self.goal.mkdir()

    def close(self) -> None:
        self._stack.close()

    def write(self, files: Files) -> None:
        """Write the context."""
        write_context(Case("", None, files), self.path)

    def write_goal(self, files: Files) -> None:
        """Write the tree that is there."""
        self.goal.rmdir()
        write_context(Case("", None, files), self.goal)

    def opened(self) -> Context:
        """The context, until the end of the test."""
        context = self._stack.enter_context(contexts.opened(self.path, self.layers))
        context.ignoring("Dockerfile")
        return context

    def prepare(
        self,
        text: str,
        *,
        context: Context | None = None,
        stage: Path | None = None,
        workdir: str = "/",
    ) -> Prepared:
        """What an instruction reads, until the end of the test."""
        instruction = expand_instruction(parse_instruction(text), {}, "\\")
        return self._stack.enter_context(
            reading.prepared(
                instruction,
                context=context or self.opened(),
                stage_root=None if stage is None else self.open(stage),
                base_root=self.open(self.goal),
                workdir=workdir,
            )
        )

    def open(self, path: Path) -> int:
        """A directory, open until the end of the test."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stack.callback(os.close, fd)
        return fd

    def apply(self, prepared: Prepared) -> list[str]:
        """Copy; the tree as lines, without its kind of beginning."""
        prepared.apply(self.open(self.goal))
        return listing(self.goal)

    def copy(self, *texts: str, workdir: str = "/") -> list[str]:
        """What instructions make of the tree."""
        return [*map(self.apply, (self.prepare(text, workdir=workdir) for text in texts))][-1]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    need("root")
    with Place(tmp_path_factory.mktemp("copying")).open() as opened:
        yield opened


@pytest.fixture
def building(storage: Storage, tmp_path: Path) -> Iterator[Building]:
    made = Building(storage, tmp_path)
    try:
        yield made
    finally:
        made.close()
    assert [*storage.root.glob(".storagedrivers-*"), *storage.root.glob("tmp/*")] == []


D, F, L = "drwxr-xr-x 0:0 ", "-rw-r--r-- 0:0 ", "lrwxrwxrwx 0:0 "
SIMPLE = {"a": "1", "b": "2", "d/c": "3", "d/e/f": "4"}
LINKS = {**SIMPLE, "l": symlink("a"), "m": symlink("d"), "up": symlink("../../a")}
ODD = {**SIMPLE, "abs": symlink("/d/c"), "none": symlink("/etc/hostname"), "loop": symlink("loop")}


@pytest.mark.parametrize(
    ("text", "files", "made"),
    [
        ("COPY a /x", SIMPLE, [f"{F}/x '1'"]),
        ("COPY a /x/", SIMPLE, [f"{D}/x", f"{F}/x/a '1'"]),
        ("COPY a/ /x/", SIMPLE, [f"{D}/x", f"{F}/x/a '1'"]),
        ("COPY a x/y/../z", SIMPLE, [f"{D}/w", f"{D}/w/x", f"{F}/w/x/z '1'"]),
        ("COPY a .", SIMPLE, [f"{D}/w", f"{F}/w/a '1'"]),
        ("COPY a ./", SIMPLE, [f"{D}/w", f"{F}/w/a '1'"]),
        ("COPY a /x/.", SIMPLE, [f"{F}/x '1'"]),
        ("COPY a ../../../up", SIMPLE, [f"{F}/up '1'"]),
        ("COPY a b /", SIMPLE, [f"{F}/a '1'", f"{F}/b '2'"]),
        ("COPY a d/e /x/", SIMPLE, [f"{D}/x", f"{F}/x/a '1'", f"{F}/x/f '4'"]),
        ("COPY d/. x", SIMPLE, [f"{D}/w", f"{D}/w/x", f"{F}/w/x/c '3'", f"{D}/w/x/e"]),
        ("COPY d//e/ /", SIMPLE, [f"{F}/f '4'"]),
        ("COPY d/../d/./e /x", SIMPLE, [f"{D}/x", f"{F}/x/f '4'"]),
        ("COPY /d/e /x", SIMPLE, [f"{D}/x", f"{F}/x/f '4'"]),
        ("COPY l /x/", LINKS, [f"{D}/x", f"{F}/x/l '1'"]),
        ("COPY m /x/", LINKS, [f"{D}/x", f"{F}/x/c '3'", f"{D}/x/e"]),
        ("COPY m/e/f /x/", LINKS, [f"{D}/x", f"{F}/x/f '4'"]),
        ("COPY up /x", LINKS, [f"{F}/x '1'"]),
        ("COPY abs /x", ODD, [f"{F}/x '3'"]),
        (
            "COPY d /x",
            {"d/l": symlink("/no"), "d/k": ""},
            [f"{D}/x", f"{F}/x/k ''", f"{L}/x/l -> /no"],
        ),
        (
            "COPY ? /x/",
            SIMPLE,
            [f"{D}/x", f"{F}/x/a '1'", f"{F}/x/b '2'", f"{F}/x/c '3'", f"{D}/x/e"],
        ),
        ("COPY [^a] /x/", SIMPLE, [f"{D}/x", f"{F}/x/b '2'", f"{F}/x/c '3'", f"{D}/x/e"]),
        ("COPY ./a* /x", SIMPLE, [f"{F}/x '1'"]),
        ("COPY no* a /x/", SIMPLE, [f"{D}/x", f"{F}/x/a '1'"]),
        ("COPY */* /x/", SIMPLE, [f"{D}/x", f"{F}/x/c '3'", f"{F}/x/f '4'"]),
        ("COPY empty /x", {"empty": directory(0o700)}, [f"{D}/x"]),
        ("COPY p /x/", {"p/q": fifo(0o640)}, [f"{D}/x", "prw-r----- 0:0 /x/q"]),
        ("COPY p/q /x/", {"p/q": fifo(0o640)}, [f"{D}/x", "prw-r----- 0:0 /x/q"]),
        ("COPY --chown=svc a /x/y", SIMPLE, ["drwxr-xr-x 12:34 /x", "-rw-r--r-- 12:34 /x/y '1'"]),
        ("COPY --chown=svc:other a /y", SIMPLE, ["-rw-r--r-- 12:56 /y '1'"]),
        ("COPY --chown=77 a /y", SIMPLE, ["-rw-r--r-- 77:77 /y '1'"]),
        (
            "COPY --chown=5:svc d/e /x/y",
            SIMPLE,
            [f"{D}/x", "drwxr-xr-x 5:34 /x/y", "-rw-r--r-- 5:34 /x/y/f '4'"],
        ),
        ("COPY --chmod=4750 a /x", SIMPLE, ["-rwsr-x--- 0:0 /x '1'"]),
        (
            "COPY --chmod=700 d /x",
            SIMPLE,
            [f"{D}/x", "-rwx------ 0:0 /x/c '3'", "drwx------ 0:0 /x/e"],
        ),
        (
            "COPY d /x",
            {"d/s": file("", 0o6755), "d/t": file("", 0o2644)},
            [f"{D}/x", "-rwxr-xr-x 0:0 /x/s ''", "-rw-r-Sr-- 0:0 /x/t ''"],
        ),
        ("COPY d /x", {"d/s": directory(0o3770, owner=(1, 2))}, [f"{D}/x", "drwxrws--T 0:0 /x/s"]),
        (
            'COPY ["a", "b", "/with space/"]',
            SIMPLE,
            [f"{D}/with space", f"{F}/with space/a '1'", f"{F}/with space/b '2'"],
        ),
        (
            "COPY <<X <<Y a /x/\none\nX\ntwo\nY",
            SIMPLE,
            [f"{D}/x", f"{F}/x/X 'one\\n'", f"{F}/x/Y 'two\\n'", f"{F}/x/a '1'"],
        ),
        ("COPY --chmod=755 --chown=1 <<X /x\n#!\nX", SIMPLE, ["-rwxr-xr-x 1:1 /x '#!\\n'"]),
    ],
)
def test_what_is_copied(building: Building, text: str, files: Files, made: list[str]) -> None:
    building.write(files)
    building.write_goal(NAMES)
    before = listing(building.goal)
    after = building.copy(text, workdir="/w")
    added = [line for line in after if line not in before]
    assert [line for line in added if "/e/f" not in line or line in made] == made
    assert [line for line in before if line not in after] == []


THERE = {
    **NAMES,
    "real/dir/old": "old",
    "real/file": "file",
    "link": symlink("real"),
    "absolute": symlink("/real/dir"),
    "climbing": symlink("../../../real"),
    "dangling": symlink("/new/place"),
    "filelink": symlink("real/file"),
    "closed": directory(0o700, owner=(5, 6)),
    "closed/sub": directory(0o711, owner=(5, 6)),
    "setgid": directory(0o2775, owner=(5, 6)),
}


@pytest.mark.parametrize(
    ("text", "files", "gone", "made"),
    [
        ("COPY n /link/", {"n": "n"}, [], [f"{F}/real/n 'n'"]),
        ("COPY n /link", {"n": "n"}, [], [f"{F}/real/n 'n'"]),
        ("COPY n /absolute/x/", {"n": "n"}, [], [f"{D}/real/dir/x", f"{F}/real/dir/x/n 'n'"]),
        ("COPY n /absolute/../x", {"n": "n"}, [], [f"{F}/x 'n'"]),
        ("COPY n /climbing", {"n": "n"}, [], [f"{F}/real/n 'n'"]),
        ("COPY n /dangling", {"n": "n"}, [], [f"{D}/new", f"{F}/new/place 'n'"]),
        ("COPY n /filelink", {"n": "n"}, [f"{F}/real/file 'file'"], [f"{F}/real/file 'n'"]),
        (
            "COPY d /dangling",
            {"d/n": "n"},
            [],
            [f"{D}/new", f"{D}/new/place", f"{F}/new/place/n 'n'"],
        ),
        ("COPY d /", {"d/link/n": "n"}, [f"{L}/link -> real"], [f"{D}/link", f"{F}/link/n 'n'"]),
        (
            "COPY d /",
            {"d/real": "n"},
            [f"{D}/real", f"{D}/real/dir", f"{F}/real/dir/old 'old'", f"{F}/real/file 'file'"],
            [f"{F}/real 'n'"],
        ),
        (
            "COPY real /",
            {"real": "n"},
            [f"{D}/real", f"{D}/real/dir", f"{F}/real/dir/old 'old'", f"{F}/real/file 'file'"],
            [f"{F}/real 'n'"],
        ),
        (
            "COPY d /real",
            {"d/file/n": "n"},
            [f"{F}/real/file 'file'"],
            [f"{D}/real/file", f"{F}/real/file/n 'n'"],
        ),
        ("COPY d /", {"d/filelink": "n"}, [f"{L}/filelink -> real/file"], [f"{F}/filelink 'n'"]),
        (
            "COPY d /closed",
            {"d/n": "n", "d/sub": directory(0o750)},
            ["drwx--x--x 5:6 /closed/sub"],
            [f"{F}/closed/n 'n'", "drwxr-x--- 0:0 /closed/sub"],
        ),
        (
            "COPY n /setgid/x/y/",
            {"n": "n"},
            [],
            ["drwxr-sr-x 0:0 /setgid/x", "drwxr-sr-x 0:0 /setgid/x/y", f"{F}/setgid/x/y/n 'n'"],
        ),
        ("COPY d /setgid", {"d/x/n": "n"}, [], [f"{D}/setgid/x", f"{F}/setgid/x/n 'n'"]),
        (
            "COPY d /real",
            {"d/.wh.file": "", "d/n": "n"},
            [f"{F}/real/file 'file'"],
            [f"{F}/real/n 'n'"],
        ),
        (
            "COPY d/.wh.dir /real/",
            {"d/.wh.dir": ""},
            [f"{D}/real/dir", f"{F}/real/dir/old 'old'"],
            [],
        ),
        (
            "COPY d /real",
            {"d/dir/.wh..wh..opq": "", "d/dir/n": "n"},
            [f"{F}/real/dir/old 'old'"],
            [f"{F}/real/dir/n 'n'"],
        ),
        ("COPY d /none", {"d/dir/.wh.x": ""}, [], [f"{D}/none", f"{D}/none/dir"]),
    ],
)
def test_what_gives_way(
    building: Building, text: str, files: Files, gone: list[str], made: list[str]
) -> None:
    building.write(files)
    building.write_goal(THERE)
    before = listing(building.goal)
    after = building.copy(text)
    assert [line for line in before if line not in after] == gone
    assert [line for line in after if line not in before] == made


@pytest.mark.parametrize(
    ("text", "error", "resolution"),
    [
        ("COPY x /x", "file not found in build context .*: stat x: file does not exist", None),
        ("COPY d/cc /x", "stat d/cc: file does not exist", "did you mean c?"),
        ("COPY secret /x", "stat secret: file does not exist", ".dockerignore leaves it out"),
        ("COPY hidden/y /x", "stat hidden/y: file does not exist", ".dockerignore leaves it out"),
        ("COPY tosecret /x", "stat tosecret: file does not exist", ".dockerignore leaves it out"),
        ("COPY none /x", "stat none: file does not exist", "is a symlink to /etc/hostname"),
        ("COPY none/x /x", "stat none/x: file does not exist", "is a symlink to /etc/hostname"),
        ("COPY loop /x", "loop: Too many levels of symbolic links", None),
        ("COPY a/b /x", "stat a/b: file does not exist", None),
        ("COPY ../a /x", "forbidden path outside the build context: ../a", None),
        ("COPY d/../../a /x", "forbidden path outside the build context", None),
        ("COPY ../* /x", "forbidden path outside the build context", None),
        ("COPY nx* none?? /x", r"no source files were specified: nothing matches nx\*", None),
        ("COPY secre* /x", "no source files were specified", None),
        ('COPY ["[a", "/x"]', "syntax error in pattern", None),
        ("COPY a b /x", "with more than one source file, the destination must be", "write /x/"),
        ("COPY d/* /x", "with more than one source file, the destination must be", None),
        ("COPY a /etc/passwd/x", "/etc/passwd/x, or what is above it, is no directory", None),
        ("COPY a /etc/passwd/", "/etc/passwd/, or what is above it, is no directory", None),
        ("COPY d /etc/passwd", "/etc/passwd, or what is above it, is no directory", None),
        ("COPY --chown=lone a /x", "can't find gid for group lone: no such group", None),
        ("COPY --chown=who a /x", "can't find uid for user who: no such user: who", None),
        ("COPY --chown=:svc a /x", "no such user", None),
        ("COPY --chown=svc: a /x", "no such group", None),
        ("COPY --chown=a:b:c a /x", "invalid chown string format: a:b:c", None),
        ("COPY --chown=4294967295 a /x", "4294967295 is out of range", None),
        ("COPY --chmod=u+x a /x", r"invalid chmod parameter: 'u\+x'", "--chmod=755"),
        ("COPY --chmod=17777 a /x", "invalid chmod parameter", None),
        ("COPY http://localhost/a /x", "source can't be a URL for COPY", "ADD http"),
        ("ADD https://localhost/a.git /x", "is a git repository", "clone it"),
        ("ADD git@localhost:a.git /x", "is a git repository", "clone it"),
        ("COPY odd/.wh. /x/", "the name of a whiteout that hides nothing", None),
        ("COPY odd/.wh... /x/", "the name of a whiteout that hides nothing", None),
    ],
)
def test_what_is_refused(building: Building, text: str, error: str, resolution: str | None) -> None:
    building.write(
        {
            **ODD,
            ".dockerignore": "secret\nhidden\n",
            "secret": "",
            "hidden/y": "",
            "tosecret": symlink("secret"),
            "odd/.wh.": "",
            "odd/.wh...": "",
        }
    )
    building.write_goal(NAMES)
    before = listing(building.goal)
    with pytest.raises(BuildError, match=error) as caught:
        building.copy(text)
    assert resolution is None or resolution in str(caught.value.resolution)
    assert [line for line in listing(building.goal) if not line.endswith(" /x")] == before


def test_every_kind_of_file(building: Building, tmp_path: Path) -> None:
    """All of a stage's tree but what Docker's copies do not have: sockets, attributes other than
    capabilities, and fractions of seconds.
    """
    stage = tmp_path / "stage"
    (stage / "top").mkdir(parents=True)
    populate(stage / "top")
    (stage / "top/sparse").unlink()  # it takes long to be read
    building.write({})
    building.apply(building.prepare("COPY --from=x /top /copy", stage=stage))
    found = read_tree(building.goal / "copy")
    expected = _as_docker_keeps(read_tree(stage / "top")) | {b".": found[b"."]}
    assert differences(expected, found) == []
    # A file that is copied alone loses its capabilities, and so does what gets an owner.
    for text in ("/top/executable /", "--chown=7 /top/ /owned"):
        building.apply(building.prepare(f"COPY --from=x {text}", stage=stage))
    assert os.listxattr(building.goal / "executable") == []
    assert os.listxattr(building.goal / "owned/executable") == []
    assert (building.goal / "owned/setuid").stat().st_mode & 0o7777 == 0o755
    assert {node.uid for node in read_tree(building.goal / "owned").values()} == {7}


def _as_docker_keeps(tree: Tree) -> dict[bytes, Node]:
    def kept(node: Node) -> Node:
        attributes = tuple(one for one in node.xattrs if one[0] == "security.capability")
        seconds = node.mtime_ns // 1_000_000_000 * 1_000_000_000
        return replace(node, xattrs=attributes, mtime_ns=seconds)

    return {path: kept(node) for path, node in tree.items() if node.kind != "socket"}


# The digest


CONTEXT: Files = {
    "top/a": "a\n",
    "top/run.sh": program("#!\n"),
    "top/large": file("x" * 200_000),
    "top/link": symlink("a"),
    "top/sub/b": "b\n",
    "top/empty": directory(),
}


def _digest(building: Building, files: Files, text: str = "COPY top /x") -> str:
    if building.path.exists():
        shutil.rmtree(building.path)
    building.write(files)
    return building.prepare(text).digest


@pytest.mark.parametrize(
    "change",
    [
        {"top/a": "b\n"},
        {"top/a": "a\n\n"},
        {"top/large": file("x" * 199_999 + "y")},
        {"top/run.sh": "#!\n"},
        {"top/a": program("a\n")},
        {"top/new": ""},
        {"top/sub/new": directory()},
        {"top/link": symlink("b")},
        {"top/link": "a"},
        {"top/empty": ""},
        {"top/empty": directory(0o1777)},
        {"top/a": fifo(0o644)},
    ],
)
def test_what_makes_another_digest(building: Building, change: Files) -> None:
    before = _digest(building, CONTEXT)
    assert _digest(building, {**CONTEXT, **change}) != before
    assert _digest(building, CONTEXT) == before


@pytest.mark.parametrize(
    "change",
    [
        {"top/a": file("a\n", owner=(5, 6))},
        {"top/empty": directory(owner=(5, 6))},
        {"top": directory(0o700)},
        {"top/run.sh": file("#!\n", 0o4755)},
        {"top/a": file("a\n", xattrs={"user.x": b"y"})},
        {"other": "not copied"},
        {".dockerignore": "other\n"},
        {".dockerignore": "top/ignored\n", "top/ignored": ""},
    ],
)
def test_what_makes_no_other_digest(building: Building, change: Files) -> None:
    before = _digest(building, CONTEXT)
    assert _digest(building, {**change, **CONTEXT, **change}) == before
    for path in building.path.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert building.prepare("COPY top /x").digest == before


def test_a_digest_has_the_names_of_files_and_owners(building: Building) -> None:
    files = {"a": "x", "b": "x", "d/a": "x"}
    one = [_digest(building, files, text) for text in ("COPY a /x/", "COPY d/a /x/")]
    assert one[0] == one[1]
    others = ("COPY b /x/", "COPY d /x/", "COPY a b /x/", "COPY --chown=svc a /x/", "ADD a b d /x/")
    building.write_goal(NAMES)
    digests = {_digest(building, files, text) for text in (*others, "COPY --chmod=600 a /x/")}
    assert len({one[0], *digests}) == 7


def test_hard_links_count(building: Building) -> None:
    linked: Files = {"top/a": "x", "top/b": hard_link("top/a"), "top/sub/c": hard_link("top/a")}
    apart: Files = {"top/a": "x", "top/b": "x", "top/sub/c": "x"}
    assert _digest(building, apart) != _digest(building, linked)
    building.copy("COPY top /x", "COPY top/a top/b /y/")
    paths = [building.goal / path for path in ("x/a", "x/b", "x/sub/c", "y/a", "y/b")]
    assert [path.stat().st_nlink for path in paths] == [3, 3, 3, 1, 1]


def test_the_facts(building: Building) -> None:
    building.write(CONTEXT)
    prepared = building.prepare("COPY top top/run.sh /x/")
    of_text = hashlib.sha256(b"a\n").hexdigest()
    assert prepared.facts["top/a"] == ("file", 0o644, 0, 0, 2, of_text)
    assert prepared.facts["top/link"] == ("symlink", 0o777, 0, 0, "a", "")
    assert prepared.facts["top/empty"] == ("directory", 0o755, 0, 0, 0, "")
    assert len(prepared.facts) == 7
    assert prepared.source == f"multi:{prepared.digest}"
    assert building.prepare("COPY top /x").source.startswith("dir:")
    assert building.prepare("COPY to? /x").source.startswith("dir:")
    assert building.prepare("ADD top/a /x").source.startswith("file:")


# Contents and times


@pytest.mark.parametrize("kept", [32 << 20, 0])
def test_contents(building: Building, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Whether they are kept in memory or read again, by one thread or by two."""
    monkeypatch.setattr(walking, "_KEPT", kept)
    sizes = (0, 1, 65_535, 65_536, 65_537, 1 << 20, *[(1 << 20) + 1] * 6)
    contents = [os.urandom(size) for size in sizes]
    building.write({f"top/{number}": file(data) for number, data in enumerate(contents)})
    with open(building.path / "top/sparse", "wb") as sparse:
        sparse.truncate(8 << 20)
        sparse.seek(4 << 20)
        sparse.write(b"in the middle")
    context = building.opened()
    first = building.prepare("COPY top /x", context=context)
    building.apply(first)
    copies = [(building.goal / f"x/{number}").read_bytes() for number in range(len(sizes))]
    assert copies == contents
    assert (building.goal / "x/sparse").stat().st_blocks < 1024
    digests = [first.facts[f"top/{number}"][-1] for number in range(len(sizes))]
    assert digests == [hashlib.sha256(data).hexdigest() for data in contents]
    assert building.prepare("COPY top /x", context=context).digest == first.digest


def test_times(building: Building) -> None:
    """A copy has that of its source, in whole seconds; what is only a place is not touched."""
    building.write({"d/a": "a", "d/sub/b": "b", "d/empty": directory(), "e": directory()})
    building.write_goal({"have/sub/old": "", "have/empty": directory(), "e": directory()})
    os.utime(building.path / "d/a", ns=(1_234_567_890_999_999_999,) * 2)
    building.copy("COPY d /have", "COPY e /e", "COPY d/a /e2/")
    times = {
        path: (building.goal / path).stat().st_mtime_ns
        for path in ("have/a", "have/sub", "have/sub/b", "have/empty", "e", "e2/a")
    }
    assert {*times.values()} == {TIME * 1_000_000_000, 1_234_567_890_000_000_000}
    assert times["have/a"] == times["e2/a"] == 1_234_567_890_000_000_000


def test_what_is_there_already_is_not_touched(building: Building) -> None:
    building.write({"d/sub": directory(0o711), "d/other": directory()})
    building.write_goal({"d/sub": directory(0o711), "d/other": directory(0o700)})
    before = {name: (building.goal / "d" / name).stat().st_ctime_ns for name in ("sub", "other")}
    building.copy("COPY d /d")
    after = {name: (building.goal / "d" / name).stat().st_ctime_ns for name in ("sub", "other")}
    assert [before[name] == after[name] for name in ("sub", "other")] == [True, False]


# A context that others change


@pytest.mark.parametrize("path", ["top/large", "top/sub/larger"])
@pytest.mark.parametrize("how", ["written", "replaced", "symlink", "gone", "cut", "directory"])
def test_a_file_that_changes_before_it_is_copied(building: Building, path: str, how: str) -> None:
    building.write({"top/large": "x" * 100_000, "top/sub/larger": "y" * 2_000_000})
    prepared = building.prepare("COPY top /x")
    file = building.path / path
    if how == "written":
        with file.open("r+b") as opened:
            opened.write(b"z")
    elif how == "cut":
        os.truncate(file, 5)
    else:
        file.rename(building.path / "old")
    if how == "replaced":
        file.write_text((building.path / "old").read_text())
    elif how == "symlink":
        file.symlink_to(building.path / "old")
    elif how == "directory":
        file.mkdir()
    with pytest.raises(BuildError, match=f"{path} changed while it was read or copied"):
        building.apply(prepared)


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_file_that_is_written_while_it_is_read(
    building: Building, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    building.write({"top/sub/file": "x" * size})

    def fstat(fd: int) -> os.stat_result:
        status = fstat_before(fd)
        if stat.S_ISREG(status.st_mode):
            with (building.path / "top/sub/file").open("ab") as opened:
                opened.write(b"more")
        return status

    fstat_before = os.fstat
    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(BuildError, match="top/sub/file changed while it was read"):
        building.prepare("COPY top /x")


def test_a_symlink_that_comes_while_the_context_is_read(building: Building, tmp_path: Path) -> None:
    """A directory and a file, exchanged for symlinks to other ones and back, again and again."""
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("file", "large"):
        (secret / name).write_text("secret")
    building.write({"top/dir/file": "mine", "top/dir/large": "m" * 100_000, "top/file": "mine"})
    top = building.path / "top"
    (top / "dir-link").symlink_to(secret)
    (top / "file-link").symlink_to(secret / "file")
    done = threading.Event()

    def exchange() -> None:
        while not done.is_set():
            for name in ("dir", "file"):
                paths = [os.fspath(top / one) for one in (name, f"{name}-old", f"{name}-link")]
                os.rename(paths[0], paths[1])
                os.rename(paths[2], paths[0])
                os.rename(paths[0], paths[2])
                os.rename(paths[1], paths[0])

    thread = threading.Thread(target=exchange)
    thread.start()
    outcomes = set()
    try:
        for _ in range(150):
            for text in ("COPY top /x", "COPY top/dir /x", "COPY top/file /y"):
                outcomes.add(_tried(building, text))
    finally:
        done.set()
        thread.join()
    assert outcomes == {"copied", "refused"}


def _tried(building: Building, text: str) -> str:
    try:
        for line in building.copy(text):
            assert "secret" not in line.partition("'")[2]
    except BuildError:
        return "refused"
    return "copied"


# A context that is a tar


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_as_the_context(building: Building, compress: Callable[[bytes], bytes]) -> None:
    data = tar(
        archives.file(b"Dockerfile", b"FROM scratch", mtime=TIME),
        archives.file(b"[D]ockerfile", b"FROM scratch", mtime=TIME),
        archives.file(b".dockerignore", b"*", mtime=TIME),
        archives.file(b"d/setuid", b"s", mode=0o4755, uid=7, gid=8, mtime=TIME),
        archives.symlink(b"d/out", b"/etc/passwd", mtime=TIME),
    )
    stream = io.BytesIO(compress(data))
    with contexts.opened(stream, building.layers) as context:
        context.ignoring("[D]ockerfile")
        assert context.dockerfile("[D]ockerfile") == b"FROM scratch"
        lines = building.apply(building.prepare("COPY . /x", context=context))
        with pytest.raises(NotFoundError, match=r"no file Dockerfil in .* standard input"):
            context.dockerfile("Dockerfil")
    in_it = [f"{L}/x/d/out -> /etc/passwd", "-rwxr-xr-x 0:0 /x/d/setuid 's'"]
    assert lines == [f"{D}/x", f"{F}/x/Dockerfile 'FROM scratch'", f"{D}/x/d", *in_it]


@pytest.mark.parametrize("data", [b"no tar", b"no tar" * 200, gzip.compress(b"no tar" * 200)])
def test_what_is_no_tar(building: Building, data: bytes) -> None:
    with pytest.raises(DiffError), contexts.opened(io.BytesIO(data), building.layers):
        pytest.fail("it is none")


def test_dockerfiles(building: Building, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    building.write(
        {
            "Dockerfile": "FROM a",
            "dir/other.Dockerfile": "FROM b",
            "inside": symlink("/dir/other.Dockerfile"),
            "out": symlink("../outside"),
            "pipe": fifo(),
            "long": file(b"x" * ((8 << 20) + 1)),
            ".dockerignore": "Dockerfile\n",
            "dir/other.Dockerfile.dockerignore": "\ufeffdir\n",
        }
    )
    context = building.opened()
    assert context.dockerfile("Dockerfile") == b"FROM a"
    assert context.dockerfile("dir/../inside") == context.dockerfile("/dir/other.Dockerfile")
    for name in ("out", "pipe", "dir", "none", "Dockerfile/x", "../outside"):
        with pytest.raises(NotFoundError, match=f"there is no file {name} in the build context"):
            context.dockerfile(name)
    with pytest.raises(BuildError, match="long of the build context is longer than"):
        context.dockerfile("long")
    assert [context.ignore.hides(name) for name in ("Dockerfile", "dir")] == [True, False]
    context.ignoring("dir/other.Dockerfile")
    assert [context.ignore.hides(name) for name in ("Dockerfile", "dir")] == [False, True]
    with pytest.raises(NotFoundError, match="there is no directory"):
        with contexts.opened(tmp_path / "nowhere", building.layers):
            pytest.fail("there is none")


# ADD


def test_directories_that_are_ignored_and_entered(building: Building) -> None:
    """They are made for what is let in again, and are root's with mode 0755."""
    building.write(
        {
            ".dockerignore": "d\n!d/a\n!d/deep/er/x\n!none/x\nnone\n",
            "d": directory(0o700, owner=(5, 6)),
            "d/a": "1",
            "d/b": "2",
            "d/deep/er/y": "",
            "none/y": "",
        }
    )
    made = [f"{D}/x", f"{F}/x/.dockerignore", f"{D}/x/d", f"{F}/x/d/a '1'"]
    lines = building.copy("COPY . /x")
    assert [line.partition(" 'd\\n")[0] for line in lines] == made


_MEMBERS = (
    archives.file(b"a", b"1", mtime=TIME),
    archives.directory(b"d/", mode=0o711, uid=3, gid=4, mtime=TIME),
    archives.file(b"d/b", b"2", mode=0o4755, uid=1, gid=2, mtime=TIME),
)
_MADE = ["-rw-r--r-- 0:0 /x/a '1'", "drwx--x--x 3:4 /x/d", "-rwsr-xr-x 1:2 /x/d/b '2'"]


@pytest.mark.parametrize("compression", ["", "gzip", "bzip2", "xz", "zstd"])
def test_archives_are_unpacked(building: Building, compression: str) -> None:
    data = tar(*_MEMBERS)
    building.write({"t": file(archives.compressed(data, compression) if compression else data)})
    assert building.copy("ADD --chown=9 t /x") == [f"{D}/x", *_MADE]


@pytest.mark.parametrize("kept", [32 << 20, 0])
def test_a_large_archive(building: Building, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(walking, "_KEPT", kept)
    data = tar(*_MEMBERS, archives.file(b"large", b"x" * 300_000, mtime=TIME))
    building.write({"t": file(data), "s": file(tar(*_MEMBERS))})
    prepared = building.prepare("ADD t s /x/")
    assert building.apply(prepared)[:3] == [f"{D}/x", *_MADE[:2]]
    (building.path / "t").write_bytes(data)
    with pytest.raises(BuildError, match="t changed while it was read or copied"):
        building.apply(prepared)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no tar",
        b"a" * 1024,
        bytes(1024),
        gzip.compress(b"no tar"),
        gzip.compress(tar(*_MEMBERS))[:15],
        b"BZh91AY&SY",
        b"\x28\xb5\x2f\xfd",
        b"\xfd7zXZ\x00",
        b"PK\3\4" + bytes(600),
    ],
)
def test_what_is_no_archive_is_copied(building: Building, data: bytes) -> None:
    building.write({"t": file(data)})
    building.copy("ADD t /x/")
    assert (building.goal / "x/t").read_bytes() == data


@pytest.mark.parametrize(
    ("members", "gone", "made"),
    [
        ([archives.file(b"link/n", b"n", mtime=TIME)], [], [f"{F}/real/n 'n'"]),
        (
            [archives.directory(b"link/", mtime=TIME), archives.file(b"link/n", b"n", mtime=TIME)],
            [f"{L}/link -> real"],
            [f"{D}/link", f"{F}/link/n 'n'"],
        ),
        ([archives.file(b"absolute/n", b"", mtime=TIME)], [], [f"{F}/real/dir/n ''"]),
        ([archives.file(b"../../up", b"", mtime=TIME)], [], [f"{F}/up ''"]),
        ([archives.file(b"/x/../y", b"", mtime=TIME)], [], [f"{F}/y ''"]),
        ([archives.directory(b"./", mode=0o700, mtime=TIME)], [], []),
        (
            [archives.file(b"real/dir", b"n", mtime=TIME)],
            [f"{D}/real/dir", f"{F}/real/dir/old 'old'"],
            [f"{F}/real/dir 'n'"],
        ),
        (
            [archives.directory(b"real/file", mtime=TIME)],
            [f"{F}/real/file 'file'"],
            [f"{D}/real/file"],
        ),
        (
            [archives.file(b"real/.wh.file"), archives.file(b"real/dir/.wh..wh..opq")],
            [f"{F}/real/dir/old 'old'", f"{F}/real/file 'file'"],
            [],
        ),
        (
            [
                archives.file(b"real/dir/new/x", b"", mtime=TIME),
                archives.file(b"real/dir/.wh..wh..opq"),
                archives.file(b"real/dir/.wh.new"),
                archives.file(b"none/.wh.x"),
            ],
            [f"{F}/real/dir/old 'old'"],
            [f"{D}/real/dir/new", f"{F}/real/dir/new/x ''"],
        ),
        ([archives.hard_link(b"h", b"real/file", mtime=TIME)], [], [f"{F}/h 'file'"]),
        (
            [archives.symlink(b"real", b"closed", mtime=TIME), archives.file(b"real/n", b"n")],
            [f"{D}/real", f"{D}/real/dir", f"{F}/real/dir/old 'old'", f"{F}/real/file 'file'"],
            [f"{F}/closed/n 'n'", f"{L}/real -> closed"],
        ),
    ],
)
def test_archives_over_what_is_there(
    building: Building, members: list[bytes], gone: list[str], made: list[str]
) -> None:
    building.write({"t": file(tar(*members))})
    building.write_goal(THERE)
    before = listing(building.goal)
    after = building.copy("ADD t /")
    assert [line for line in before if line not in after] == gone
    assert [line for line in after if line not in before] == made


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ([archives.file(b"absolute/n", b"x" * 600)], "absolute/n.*No such file or directory"),
        ([archives.file(b"loop/n", b"")], "loop/n.*symbolic links"),
        ([archives.hard_link(b"h", b"../top/a")], "h.*a hard link to nothing"),
        ([archives.hard_link(b"h", b"none")], "h.*a hard link to nothing"),
        ([archives.entry(b"h", type=b"9")], "its type is b'9'"),
        ([archives.file(b"a", b""), archives.file(b".wh.", b"")], "a whiteout that names no file"),
        ([archives.file(b"n" * 300, b"")], "File name too long"),
        ([archives.file(b"a/b", b"x" * 600)[:700]], "the tar breaks off"),
    ],
)
def test_archives_that_cannot_be_unpacked(
    building: Building, members: list[bytes], error: str
) -> None:
    """The destination is the root of all that they name."""
    files = {"absolute": symlink("/top"), "loop": symlink("loop")}
    building.write({"t": file(tar(*members))})
    building.write_goal({"top/a": "", **{f"w/{name}": what for name, what in files.items()}})
    with pytest.raises(MalformedDiffError if "whiteout" not in error else DiffError, match=error):
        building.copy("ADD t /w")


def _light(hostile: Hostile) -> bool:
    """Whether it does without much time."""
    return not any(word in hostile.name for word in ("000", "MB", "levels"))


def test_hostile_archives(building: Building, tmp_path: Path) -> None:
    """Nothing outside of the tree is changed, whatever comes of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    before = read_tree(outside)
    building.write({})
    building.goal.rmdir()
    for hostile in filter(_light, all_archives()):
        data = hostile.make(os.fsencode(outside))
        (building.path / "t").write_bytes(data if isinstance(data, bytes) else data.read(1 << 20))
        links = {"w/out": symlink(os.fspath(outside)), "w/up": symlink("../../outside")}
        write_context(Case("", None, links), building.goal)
        with suppress(StorageDriversError):
            building.prepare("ADD t /w").apply(building.open(building.goal))
        assert differences(before, read_tree(outside)) == [], hostile.name
        with opened_directory(tmp_path) as fd:
            remove_tree(fd, "goal")
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "context"}
    building.goal.mkdir()


# URLs


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
        elif path == "/none":
            self.send_response(404)
        else:
            data = tar(*_MEMBERS) if path.endswith(".tar") else b"hello"
            self.send_response(200)
            self.send_header("Content-Length", str(len(data) + (query == "short")))
            if query == "named":
                self.send_header("Content-Disposition", 'attachment; filename="said.txt"')
            if query != "timeless":
                self.send_header("Last-Modified", "Fri, 14 Jul 2017 02:40:00 GMT")
            self.end_headers()
            self.wfile.write(data)
            return
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "target", "made", "time"),
    [
        ("/f.txt", "/x/", "-rw------- 0:0 /x/f.txt 'hello'", TIME),
        ("/f.txt", "/x", "-rw------- 0:0 /x 'hello'", TIME),
        ("/f.txt", "/", "-rw------- 0:0 /f.txt 'hello'", TIME),
        ("/a%20b?timeless", "/x/", "-rw------- 0:0 /x/a b 'hello'", 0),
        ("/moved", "/x/", "-rw------- 0:0 /x/moved 'hello'", TIME),
        ("/?named", "/x/", "-rw------- 0:0 /x/said.txt 'hello'", TIME),
        ("/", "/x", "-rw------- 0:0 /x 'hello'", TIME),
    ],
)
def test_a_url(building: Building, url: str, path: str, target: str, made: str, time: int) -> None:
    building.write({})
    prepared = building.prepare(f"ADD {url}{path} {target}")
    assert prepared.source == prepared.digest
    assert building.apply(prepared)[-1] == made
    found = building.goal / made.partition("/")[2].partition(" '")[0]
    assert found.stat().st_mtime == time


def test_what_a_url_has_besides(building: Building, url: str) -> None:
    """An archive stays one; a file of the context may go with it."""
    building.write({"a": "1"})
    lines = building.copy(f"ADD --chown=4:5 --chmod=640 {url}/x.tar a /x/")
    assert lines[:2] == ["drwxr-xr-x 4:5 /x", "-rw-r----- 4:5 /x/a '1'"]
    assert (building.goal / "x/x.tar").read_bytes() == tar(*_MEMBERS)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("{}/none", "failed to GET .*/none with status 404 Not Found"),
        ("{}/f?short", "cannot be fetched"),
        ("http://127.0.0.1:1/x", "cannot be fetched: .*Connection refused"),
        ("http://[/x", "cannot be fetched"),
        ("{}/", "cannot determine filename"),
        ("{}/..%2f", "cannot determine filename"),
    ],
)
def test_a_url_that_gives_nothing(building: Building, url: str, source: str, error: str) -> None:
    building.write({})
    with pytest.raises(BuildError, match=error):
        building.copy(f'ADD ["{source.format(url)}", "/x/"]')
