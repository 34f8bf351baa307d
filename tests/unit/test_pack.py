"""What differs between trees, and the tar of it, byte for byte; no root, no mounts."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from capabilities import lack
from hypothesis import given
from hypothesis import strategies as st

from storagedrivers.archive.changes import changes
from storagedrivers.archive.pack import pack
from storagedrivers.archive.reader import Reader
from storagedrivers.archive.source import Source
from storagedrivers.archive.writer import Header, TarWriter, encode, split_name
from storagedrivers.errors import DiffError, UnrepresentableError
from storagedrivers.linux import copy
from storagedrivers.linux.tree import opened_directory, remove_tree
from storagedrivers.model import WhiteoutFormat

TIME = 1_500_000_000
END = bytes(1024)


def need_gnu_tar() -> None:
    program = shutil.which("tar")
    version = subprocess.run([program, "--version"], capture_output=True) if program else None
    if version is None or b"GNU" not in version.stdout:
        lack("tar", "there is no GNU tar")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before


class Trees:
    """A tree and what lies below it."""

    def __init__(self, directory: Path) -> None:
        self.upper, self.lower = directory / "upper", directory / "lower"
        self.upper.mkdir()
        self.lower.mkdir()

    def copy(self) -> None:
        """Make the upper a copy of the lower, times of directories included."""
        copy.copy_tree(self.lower, self.upper)

    def changes(self, whiteouts: WhiteoutFormat | None = None) -> list[str]:
        with opened_directory(self.upper) as upper, opened_directory(self.lower) as lower:
            found = list(changes(upper, lower, whiteouts))
        return [f"{change.kind} {os.fsdecode(change.path) or '.'}" for change in found]

    def pack(
        self,
        whiteouts: WhiteoutFormat | None = None,
        *,
        base: bool = False,
        epoch: int | None = None,
    ) -> bytes:
        out = io.BytesIO()
        with opened_directory(self.upper) as upper, opened_directory(self.lower) as lower:
            pack(upper, None if base else lower, whiteouts, out.write, source_date_epoch=epoch)
        return out.getvalue()


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[Trees]:
    yield Trees(tmp_path)
    fd = os.open(tmp_path, os.O_RDONLY)
    for name in ("upper", "lower"):  # deeper than pytest can remove
        remove_tree(fd, name)
    os.close(fd)


def block(
    name: bytes, mode: int, size: int, kind: bytes, link: bytes = b"", *, mtime: int = TIME,
    owners: tuple[int, int] | None = None, prefix: bytes = b"",
) -> bytes:  # fmt: skip
    """One header, from the table of docs/canonical-diff.md."""
    uid, gid = (os.geteuid(), os.getegid()) if owners is None else owners
    fields = bytearray(512)
    for at, value in (
        (0, name),
        (100, b"%07o" % mode),
        (108, b"%07o" % uid),
        (116, b"%07o" % gid),
        (124, b"%011o" % size),
        (136, b"%011o" % mtime),
        (148, b"        "),
        (156, kind),
        (157, link),
        (257, b"ustar\x0000"),
        (329, b"0000000"),
        (337, b"0000000"),
        (345, prefix),
    ):
        fields[at : at + len(value)] = value
    fields[148:156] = b"%06o\0 " % sum(fields)
    return bytes(fields)


def pax(*records: bytes) -> bytes:
    data = b"".join(records)
    head = block(b"././@PaxHeader", 0, len(data), b"x", mtime=0, owners=(0, 0))
    return head + data.ljust(-(-len(data) // 512) * 512, b"\0")


def set_times(top: Path, seconds: float = TIME) -> None:
    for path in [*sorted(top.rglob("*"), reverse=True), top]:
        os.utime(path, ns=(0, int(seconds * 10**9)), follow_symlinks=False)


@contextmanager
def same_time(path: Path) -> Iterator[None]:
    """Afterwards the time of modification is that from before."""
    status = path.stat()
    yield
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# The tar


def test_a_small_tree_to_the_byte(trees: Trees) -> None:
    """Sorted, hard links to the first name, whiteouts, fractions of seconds, padding, the end."""
    lower, upper = trees.lower, trees.upper
    for top in (lower, upper):
        (top / "d").mkdir()
        (top / "d/same").write_bytes(b"same")
        top.chmod(0o755)
        set_times(top, TIME - 9)
    (lower / "gone").mkdir()
    (lower / "gone/too").touch()
    (lower / "d/gone").touch()
    set_times(lower, TIME - 9)
    (upper / "d/b").write_bytes(b"content")
    (upper / "d/b").chmod(0o4711)
    (upper / "d/a").hardlink_to(upper / "d/b")
    (upper / "d.a").symlink_to("target")
    (upper / "d").chmod(0o750)
    for name in ("d/b", "d.a", "d", "."):
        os.utime(upper / name, ns=(0, TIME * 10**9), follow_symlinks=False)
    os.utime(upper / "d.a", ns=(0, TIME * 10**9 + 120_000_000), follow_symlinks=False)
    assert trees.changes() == ["C .", "C d", "A d/a", "A d/b", "D d/gone", "A d.a", "D gone"]
    expected = (
        block(b"./", 0o755, 0, b"5"),
        block(b"d/", 0o750, 0, b"5"),
        block(b"d/a", 0o4711, 7, b"0"),
        b"content".ljust(512, b"\0"),
        block(b"d/b", 0o4711, 0, b"1", b"d/a"),
        block(b"d/.wh.gone", 0, 0, b"0", mtime=0, owners=(0, 0)),
        pax(b"23 mtime=1500000000.12\n"),
        block(b"d.a", 0o777, 0, b"2", b"target"),
        block(b".wh.gone", 0, 0, b"0", mtime=0, owners=(0, 0)),
        END,
    )
    assert trees.pack() == b"".join(expected)


def test_later_times_become_the_epoch(trees: Trees) -> None:
    (trees.upper / "old").touch()
    (trees.upper / "new").touch()
    set_times(trees.upper, TIME + 0.5)
    os.utime(trees.upper / "old", ns=(0, (TIME - 5) * 10**9))
    with tarfile.open(fileobj=io.BytesIO(trees.pack(base=True, epoch=TIME))) as tar:
        assert {one.name: one.mtime for one in tar} == {".": TIME, "new": TIME, "old": TIME - 5}


def test_a_base_layer_without_anything_is_its_root(trees: Trees) -> None:
    trees.upper.chmod(0o1777)
    set_times(trees.upper)
    assert trees.pack(base=True) == block(b"./", 0o1777, 0, b"5") + END


def test_equal_trees_give_an_empty_tar(trees: Trees) -> None:
    (trees.lower / "file").write_bytes(b"content")
    trees.copy()
    assert trees.pack() == END


LONG_NAMES = [  # path, prefix, name, and whether a PAX record says the path
    (b"n" * 100, b"", b"n" * 100, False),
    (b"n" * 101, b"", b"n" * 100, True),
    (b"p" * 155 + b"/" + b"n" * 100, b"p" * 155, b"n" * 100, False),
    (b"p" * 156 + b"/" + b"n", b"", (b"p" * 156)[:100], True),
    (b"p" * 9 + b"/" + b"n" * 101, b"", b"p" * 9 + b"/" + b"n" * 90, True),
    (b"a/" * 60 + b"n" * 40, b"a/" * 59 + b"a", b"n" * 40, False),
    (b"a/" * 100 + b"n" * 9, (b"a/" * 78)[:155], b"a/" * 22 + b"n" * 9, False),
    (b"d" * 120 + b"/", b"", b"d" * 100, True),  # a directory: its own slash is no place to cut
    (b"d" * 80 + b"/" + b"e" * 80 + b"/", b"d" * 80, b"e" * 80 + b"/", False),
    (b"/" + b"n" * 100, b"", b"/" + b"n" * 99, True),
    (b"\xff\xe4" * 50, b"", b"\xff\xe4" * 50, False),
]


@pytest.mark.parametrize(("path", "prefix", "name", "has_record"), LONG_NAMES)
def test_long_paths(path: bytes, prefix: bytes, name: bytes, has_record: bool) -> None:
    kind = b"5" if path.endswith(b"/") else b"0"
    expected = block(name, 0, 0, kind, mtime=0, owners=(0, 0), prefix=prefix)
    front = pax(b"%d path=%b\n" % (len(path) + 10, path)) if has_record else b""
    assert encode(Header(path, kind)) == front + expected


def test_the_prefix_is_as_long_as_can_be() -> None:
    path = b"/".join([b"ab"] * 60)
    assert split_name(path) == (path[:155], path[156:])


@pytest.mark.parametrize(
    ("nanoseconds", "record", "field"),
    [
        (0, b"", 0),
        (1, b"21 mtime=0.000000001\n", 0),
        (-1, b"22 mtime=-0.000000001\n", 0),
        (-1_500_000_000, b"14 mtime=-1.5\n", 0),
        (-(10**9), b"12 mtime=-1\n", 0),
        (8**11 * 10**9 - 10**9, b"", 8**11 - 1),
        (8**11 * 10**9, b"20 mtime=8589934592\n", 8**11 - 1),
        (TIME * 10**9 + 100_000_000, b"22 mtime=1500000000.1\n", TIME),
    ],
)
def test_times(nanoseconds: int, record: bytes, field: int) -> None:
    expected = block(b"f", 0, 0, b"0", mtime=field, owners=(0, 0))
    front = pax(record) if record else b""
    assert encode(Header(b"f", b"0", mtime_ns=nanoseconds)) == front + expected


def test_numbers_and_targets_that_do_not_fit() -> None:
    header = Header(
        b"f", b"2", uid=8**7, gid=8**7 - 1, size=8**11, link=b"t" * 101, xattrs={b"user.a": b"\0"}
    )
    records = (
        b"25 SCHILY.xattr.user.a=\0\n",
        b"115 linkpath=" + b"t" * 101 + b"\n",
        b"19 size=8589934592\n",
        b"15 uid=2097152\n",
    )
    expected = block(b"f", 0, 0, b"2", b"t" * 100, mtime=0, owners=(0, 8**7 - 1))
    assert encode(header) == pax(*records) + expected


def test_the_checksum_of_the_largest_bytes() -> None:
    path, link = b"\xff" * 155 + b"/" + b"\xff" * 100, b"\xff" * 100
    expected = block(path[156:], 0, 0, b"2", link, mtime=0, owners=(0, 0), prefix=path[:155])
    assert encode(Header(path, b"2", link=link)) == expected


def test_the_length_of_a_record_counts_its_own_digits() -> None:
    """Around the lengths where there is one digit more."""
    for length in range(60, 1100):
        header = Header(b"f", b"0", xattrs={b"user.a": b"x" * length})
        record = encode(header)[512:].split(b" ", 1)
        size = int(record[0])
        assert len(record[0]) + 1 + len(b"SCHILY.xattr.user.a=") + length + 1 == size


NAMES = st.binary(min_size=1, max_size=300).filter(
    lambda name: b"\0" not in name and not name.startswith(b"/") and not name.endswith(b"/")
)


@given(
    NAMES,
    st.binary(min_size=1, max_size=200).filter(lambda link: b"\0" not in link),
    st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2), st.integers(0, 0o7777)),
    st.integers(-(2**40) * 10**9, 2**40 * 10**9),
    st.dictionaries(
        st.binary(min_size=1, max_size=20).filter(lambda key: not {0, 61} & set(key)),
        st.binary(max_size=50),
        max_size=3,
    ),
)
def test_what_is_written_is_what_is_read(
    name: bytes,
    link: bytes,
    numbers: tuple[int, int, int],
    mtime_ns: int,
    xattrs: dict[bytes, bytes],
) -> None:
    """The reader gives back every field, whatever it takes to say it."""
    uid, gid, mode = numbers
    header = Header(name, b"2", mode, uid, gid, 0, mtime_ns, link, 0, 0, xattrs)
    (entry,) = read(encode(header) + END)
    found = (entry.mode, entry.uid, entry.gid, entry.size, entry.mtime_ns)
    assert (entry.name, entry.type, *found, entry.link) == (name, *header[1:7], link)
    assert (entry.xattrs or {}) == xattrs


def read(data: bytes) -> list:
    source = Source(io.BytesIO(data), max_bytes=1 << 30)
    try:
        return list(Reader(source, literal=lambda data: None, max_entries=10).entries())
    finally:
        source.close()


def test_others_read_it(trees: Trees) -> None:
    """Python's tarfile and GNU tar, with names of any length and any bytes."""
    need_gnu_tar()
    top = os.fsencode(trees.upper)
    names = [b"new\nline", b"\xff not UTF-8", b"n" * 255, b"-rf", b"back\\slash", b" "]
    for name in names:
        with open(os.path.join(top, name), "wb") as file:
            file.write(name)
    deep = os.path.join(top, *[b"d" * 200] * 9)
    os.makedirs(deep)
    os.symlink(b"t" * 300, os.path.join(deep, b"link"))
    os.link(os.path.join(top, b"-rf"), os.path.join(deep, b"name"))
    data = trees.pack(base=True)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        found = {os.fsencode(one.name): one for one in tar.getmembers()}
        for name in names:
            file = tar.extractfile(found[name])
            assert file is not None
            assert file.read() == name
    below = b"/".join([b"d" * 200] * 9)
    assert found[below + b"/link"].linkname == "t" * 300
    assert found[below + b"/name"].linkname == "-rf"
    assert found[below + b"/name"].islnk()
    listed = subprocess.run(["tar", "-tvf", "-"], input=data, capture_output=True, check=True)
    assert listed.stderr == b""
    assert len(listed.stdout.splitlines()) == len(found) == 1 + len(names) + 9 + 2


def test_gnu_tar_makes_the_same_tree(trees: Trees, tmp_path: Path) -> None:
    need_gnu_tar()
    top = trees.upper
    (top / "d").mkdir()
    (top / "d/file").write_bytes(os.urandom(3 << 20))
    (top / "exact").write_bytes(b"x" * 1024)
    (top / "empty").touch()
    (top / "link").hardlink_to(top / "d/file")
    (top / "symlink").symlink_to("d")
    os.mkfifo(top / "fifo", 0o640)
    set_times(top, TIME + 0.25)
    shutil.rmtree(trees.lower)
    trees.lower.mkdir()
    extract = ["tar", "-xp", "-C", trees.lower]
    subprocess.run([*extract, "--delay-directory-restore"], input=trees.pack(base=True), check=True)
    assert trees.changes() == []
    assert (trees.lower / "link").stat().st_nlink == 2


def test_holes_become_zeros_without_being_read(trees: Trees) -> None:
    """A file of 256 MiB with a little data takes no time to speak of."""
    path = trees.upper / "sparse"
    with path.open("wb") as file:
        file.truncate(256 << 20)
        for at in (0, 100 << 20, (256 << 20) - 3):
            file.seek(at)
            file.write(b"abc")
    if path.stat().st_blocks > 1000:
        lack("holes", "the temporary directory has no holes")
    digest, expected = hashlib.sha256(), hashlib.sha256()
    size = 0

    def write(data: bytes | memoryview) -> None:
        nonlocal size
        digest.update(data)
        size += len(data)
        assert len(data) <= 1 << 20

    with opened_directory(trees.upper) as fd:
        pack(fd, None, None, write, source_date_epoch=0)
    piece = bytes(1 << 20)
    expected.update(block(b"./", stat.S_IMODE(trees.upper.stat().st_mode), 0, b"5", mtime=0))
    expected.update(block(b"sparse", stat.S_IMODE(path.stat().st_mode), 256 << 20, b"0", mtime=0))
    for at in range(256):
        data = b"abc" + piece[3:] if at in (0, 100) else piece
        expected.update(data if at < 255 else piece[:-3] + b"abc")
    expected.update(END)
    assert size == (256 << 20) + 2 * 512 + 1024
    assert digest.hexdigest() == expected.hexdigest()


def test_a_file_that_shrinks_while_it_is_read(trees: Trees) -> None:
    path = trees.upper / "file"
    path.write_bytes(bytes(3 << 20))

    def write(data: bytes | memoryview) -> None:
        path.write_bytes(b"short")

    with opened_directory(trees.upper) as fd, pytest.raises(DiffError, match="shorter") as caught:
        pack(fd, None, None, write)
    assert caught.value.entry == b"file"


def test_a_sparse_file_that_shrinks_while_it_is_read(trees: Trees) -> None:
    """It does not become a hole."""
    path = trees.upper / "file"
    path.write_bytes(bytes(10))
    writer = TarWriter(lambda data: None)
    with path.open("rb") as file, pytest.raises(DiffError, match="shorter"):
        writer.payload(file.fileno(), 100, b"file", holes=True)


# What no tar can say


@pytest.mark.parametrize("name", [".wh.x", ".wh..wh..opq", ".wh."])
def test_names_that_would_be_whiteouts(trees: Trees, name: str) -> None:
    (trees.upper / "d" / name).mkdir(parents=True)
    set_root_time(trees)
    assert trees.changes() == ["A d", f"A d/{name}"]
    with pytest.raises(UnrepresentableError) as caught:
        trees.pack()
    assert caught.value.entry == f"d/{name}".encode()


def test_a_whiteout_of_such_a_name(trees: Trees) -> None:
    (trees.lower / ".wh.x").touch()
    with pytest.raises(UnrepresentableError):
        trees.pack()


def test_such_a_name_that_did_not_change_is_no_matter(trees: Trees) -> None:
    (trees.lower / ".wh.x").touch()
    trees.copy()
    (trees.upper / "new").touch()
    os.utime(trees.upper, ns=(0, trees.lower.stat().st_mtime_ns))
    assert trees.changes() == ["A new"]
    assert trees.pack()


def test_an_attribute_with_an_equals_sign(trees: Trees) -> None:
    (trees.upper / "file").touch()
    try:
        os.setxattr(trees.upper / "file", "user.a=b", b"c")
    except OSError:
        lack("user-xattrs", "the temporary directory has no extended attributes")
    with pytest.raises(UnrepresentableError, match=r"user\.a=b"):
        trees.pack()


# What differs


def test_edits_that_leave_no_trace_in_the_metadata(trees: Trees) -> None:
    """The same size and time of modification: one byte of small and of large files, and of sparse
    ones.
    """
    with (trees.lower / "punched").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(20 << 20)
        file.write(b"data")
    for name, size in (("small", 10), ("large", 3 << 20), ("same", 2 << 20)):
        (trees.lower / name).write_bytes(bytes(size - 1) + b"x")
    for name in ("sparse", "hole"):
        with (trees.lower / name).open("wb") as file:
            file.truncate(64 << 20)
            file.seek(20 << 20)
            file.write(b"data" * (name == "sparse"))
    trees.copy()
    for name, at in (("small", 9), ("large", (2 << 20) + 5), ("sparse", 40 << 20), ("hole", 0)):
        path = trees.upper / name
        with same_time(path), path.open("r+b") as file:
            file.seek(at)
            file.write(b"y")
    with same_time(trees.upper / "punched"), (trees.upper / "punched").open("wb") as file:
        file.truncate(64 << 20)
    assert trees.changes() == ["C hole", "C large", "C punched", "C small", "C sparse"]


def test_holes_that_were_filled_with_zeros_are_no_change(trees: Trees) -> None:
    with (trees.lower / "file").open("wb") as file:
        file.truncate(8 << 20)
    trees.copy()
    with (trees.upper / "file").open("r+b") as file:
        file.write(bytes(8 << 20))
    shutil.copystat(trees.lower / "file", trees.upper / "file")
    assert trees.changes() == []


def test_one_nanosecond(trees: Trees) -> None:
    (trees.lower / "file").touch()
    os.utime(trees.lower / "file", ns=(0, TIME * 10**9 + 100))
    trees.copy()
    os.utime(trees.upper / "file", ns=(0, TIME * 10**9 + 101))
    assert trees.changes() == ["C file"]


def test_a_directory_comes_before_what_is_in_it(trees: Trees) -> None:
    """And only where something is to be said below it."""
    for path in ("a/b/c/file", "a/b/d/file", "a-b/file", "quiet/sub/file"):
        (trees.lower / path).parent.mkdir(parents=True, exist_ok=True)
        (trees.lower / path).touch()
    trees.copy()
    (trees.upper / "a/b/c/file").write_bytes(b"changed")
    (trees.upper / "a-b/file").write_bytes(b"changed")
    assert trees.changes() == ["C a", "C a/b", "C a/b/c", "C a/b/c/file", "C a-b", "C a-b/file"]


def test_names_go_by_their_bytes(trees: Trees) -> None:
    """Also those that are no text, between those that are."""
    names = [b"a", b"a\n", b"\xc3\xa4", b"\xe4", b"\xee\x80\x80", b"\xf0\x9f\x98\x80", b"\xff"]
    for name in names:
        os.mkdir(os.path.join(os.fsencode(trees.upper), name))
    set_root_time(trees)
    with opened_directory(trees.upper) as upper:
        assert [change.path for change in changes(upper, None, None)] == [b"", *names]


def test_reading_leaves_no_trace(trees: Trees) -> None:
    """Times of access of directories and files stay as they were."""
    (trees.lower / "d").mkdir()
    (trees.lower / "d/file").write_bytes(b"content")
    trees.copy()
    (trees.upper / "d/new").write_bytes(b"content")
    paths = [
        top / name for top in (trees.upper, trees.lower) for name in ("d/new", "d/file", "d", ".")
    ]
    paths = [path for path in paths if path.exists()]
    for path in paths:
        os.utime(path, ns=(1, TIME * 10**9))  # so long ago that reading would change it
    assert trees.pack() != END
    assert [path.stat().st_atime_ns for path in paths] == [1] * 7


def test_other_kinds_and_deletions(trees: Trees) -> None:
    """Another kind is one change; what was in a directory that is gone is none."""
    for name in ("to-file", "gone", "to-link"):
        (trees.lower / name).mkdir()
        (trees.lower / name / "inside").touch()
    (trees.lower / "to-directory").touch()
    (trees.lower / "link").symlink_to("a")
    trees.copy()
    for name in ("to-file", "gone", "to-link"):
        shutil.rmtree(trees.upper / name)
    (trees.upper / "to-file").touch()
    (trees.upper / "to-link").symlink_to("to-file")
    (trees.upper / "to-directory").unlink()
    (trees.upper / "to-directory/new").mkdir(parents=True)
    (trees.upper / "link").unlink()
    (trees.upper / "link").symlink_to("b")
    os.utime(
        trees.upper / "link",
        ns=(0, (trees.lower / "link").lstat().st_mtime_ns),
        follow_symlinks=False,
    )
    set_root_time(trees)
    expected = ["D gone", "C link", "C to-directory", "A to-directory/new", "C to-file"]
    assert trees.changes() == [*expected, "C to-link"]


def set_root_time(trees: Trees) -> None:
    status = trees.lower.stat()
    os.utime(trees.upper, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_sockets_are_not_there(trees: Trees) -> None:
    """Neither as additions nor as deletions; what one replaced is gone."""
    (trees.lower / "replaced").touch()
    make_socket(trees.lower / "old")
    make_socket(trees.lower / "was")
    make_socket(trees.upper / "new")
    make_socket(trees.upper / "replaced")
    (trees.upper / "was").touch()
    set_root_time(trees)
    assert trees.changes() == ["D replaced", "A was"]


def test_what_goes_away_while_it_is_looked_at(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a live layer: it is gone then."""
    for name in ("directory", "file"):
        (trees.lower / name).mkdir() if name == "directory" else (trees.lower / name).touch()
    trees.copy()
    (trees.upper / "new").mkdir()
    set_root_time(trees)

    def open_directory(parent: int, name: bytes) -> int:
        if name in (b"directory", b"new"):
            os.rmdir(name, dir_fd=parent)
        return os.open(name, os.O_RDONLY, dir_fd=parent)

    def open_file(parent: int, name: bytes) -> int:
        os.unlink(name, dir_fd=parent)
        return os.open(name, os.O_RDONLY, dir_fd=parent)

    monkeypatch.setattr("storagedrivers.archive.changes._open_directory", open_directory)
    monkeypatch.setattr("storagedrivers.archive.compare.open_file", open_file)
    assert trees.changes() == ["D directory", "D file"]


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, opened_directory(path.parent) as fd:
        listener.bind(f"/proc/self/fd/{fd}/{path.name}")  # its address ends at 107 bytes


def test_links_to_what_did_not_change(trees: Trees) -> None:
    """A new name of an unchanged file has content of its own."""
    (trees.lower / "a").write_bytes(b"content")
    trees.copy()
    for name in ("b", "c"):
        (trees.upper / name).hardlink_to(trees.upper / "a")
    set_root_time(trees)
    with tarfile.open(fileobj=io.BytesIO(trees.pack())) as tar:
        assert [(one.name, one.type, one.size, one.linkname) for one in tar] == [
            ("b", b"0", 7, ""),
            ("c", b"1", 0, "b"),
        ]


def test_links_of_symlinks_and_fifos(trees: Trees) -> None:
    os.mkfifo(trees.upper / "fifo")
    (trees.upper / "fifo2").hardlink_to(trees.upper / "fifo")
    (trees.upper / "link").symlink_to("nowhere")
    os.link(trees.upper / "link", trees.upper / "link2", follow_symlinks=False)
    with tarfile.open(fileobj=io.BytesIO(trees.pack(base=True))) as tar:
        assert [(one.name, one.type, one.linkname) for one in tar][1:] == [
            ("fifo", b"6", ""),
            ("fifo2", b"1", "fifo"),
            ("link", b"2", "nowhere"),
            ("link2", b"1", "link"),
        ]


def dig(top: Path, names: list[bytes]) -> None:
    """Directories in each other, with a file before and after the way down in each."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for name in names:
        for file in (b"a", b"z"):
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        os.mkdir(name, dir_fd=fd)
        child = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(fd)


@contextmanager
def few_open_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 250, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "names", [[b"n" * 255] * 40, [b"m"] * 400], ids=["over PATH_MAX", "400 levels"]
)
def test_deep_trees(trees: Trees, names: list[bytes]) -> None:
    """More levels than files may be open, and on the way up the rest of each."""
    dig(trees.upper, names)
    dig(trees.lower, names[:-1])
    with (
        opened_directory(trees.upper) as upper,
        opened_directory(trees.lower) as lower,
        few_open_files(),
    ):
        base = [change.path for change in changes(upper, None, None)]
        assert len(base) == 1 + 3 * len(names)
        assert base[-1] == b"z"
        assert b"/".join(names) in base
        found = {change.path for change in changes(upper, lower, None)}
        assert b"/".join(names) in found
        pieces: list[int] = []
        pack(upper, None, None, lambda data: pieces.append(len(data)))
    assert sum(pieces) > len(base) * 512


def test_a_search_that_is_broken_off_leaves_nothing_open(trees: Trees) -> None:
    dig(trees.upper, [b"d"] * 5)
    before = open_files()
    with opened_directory(trees.upper) as upper:
        found = changes(upper, None, None)
        for _ in range(8):
            next(found)
        assert open_files() > before + 1
        found.close()  # type: ignore[attr-defined]
        assert open_files() == before + 1


# The changesets of aufs, which are made of plain files


def test_an_aufs_changeset(trees: Trees) -> None:
    """Whiteouts that hide something, an opaque directory, and none of aufs's own files."""
    for path in ("d/a", "d/b", "d/sub/x", "d/sub/y", "keep/file", "gone"):
        (trees.lower / path).parent.mkdir(parents=True, exist_ok=True)
        (trees.lower / path).write_bytes(b"content")
    (trees.upper / "keep").mkdir()
    copy.copy_tree(trees.lower / "keep", trees.upper / "keep")
    (trees.upper / "d/sub").mkdir(parents=True)
    for path in (
        ".wh..wh.aufs", ".wh.gone", ".wh.never", "d/.wh..wh..opq", "d/.wh.b", "d/sub/x",
        "keep/.wh.no",
    ):  # fmt: skip
        (trees.upper / path).touch()
    (trees.upper / ".wh..wh.plnk").mkdir()
    shutil.copystat(trees.lower / "keep", trees.upper / "keep")
    set_root_time(trees)
    expected = ["C d", "D d/a", "D d/b", "C d/sub", "C d/sub/x", "D d/sub/y", "D gone"]
    assert trees.changes(WhiteoutFormat.AUFS) == expected
    with tarfile.open(fileobj=io.BytesIO(trees.pack(WhiteoutFormat.AUFS))) as tar:
        names = ["d", "d/.wh.a", "d/.wh.b", "d/sub", "d/sub/x", "d/sub/.wh.y", ".wh.gone"]
        assert tar.getnames() == names


def test_a_file_over_a_whiteout_of_its_name(trees: Trees) -> None:
    """The file is there."""
    (trees.lower / "file").touch()
    (trees.upper / ".wh.file").touch()
    (trees.upper / "file").write_bytes(b"new")
    set_root_time(trees)
    assert trees.changes(WhiteoutFormat.AUFS) == ["C file"]
