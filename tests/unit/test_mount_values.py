"""Mount options as text: escapes, lists of lowers, flags, paths made short. Nothing is mounted."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storagedrivers.linux import mount, syscalls
from storagedrivers.linux.mount import (
    _mount_attributes,
    _relative_to_common_directory,
    _split_flags,
    escape,
    split_lowers,
    unescape,
)

# Any bytes but NUL and the slash, as Python has them: what is no UTF-8 becomes surrogates.
_names = (
    st.binary(min_size=1, max_size=20)
    .map(lambda raw: raw.replace(b"\0", b"\\").replace(b"/", b":"))
    .map(os.fsdecode)
    .filter(lambda name: name not in (".", ".."))
) | st.text(st.sampled_from("\\:,\n =ab\udcff"), min_size=1, max_size=12)
_paths = st.lists(_names, min_size=1, max_size=5).map(lambda names: "/" + "/".join(names))


@given(_paths)
def test_unescape_undoes_escape(path: str) -> None:
    """A path comes out of its escapes as it went in, whatever bytes it has."""
    assert unescape(escape(path)) == path


@given(_paths)
def test_escaped_path_has_no_bare_separator(path: str) -> None:
    """The kernel sees no end of a path, of a list or of an option inside of an escaped path."""
    bare = escape(path).replace("\\\\", "").replace("\\:", "").replace("\\,", "")
    assert not set(bare) & {":", ",", "\\"}


@given(st.lists(_paths, min_size=1, max_size=130))
def test_lowers_come_out_as_they_went_in(paths: list[str]) -> None:
    """A list of lowers is split where its colons are not escaped, and nowhere else."""
    assert split_lowers(":".join(map(escape, paths))) == paths


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("/a", ["/a"]),
        ("/a:/b", ["/a", "/b"]),
        (r"/a\:b:/c", ["/a:b", "/c"]),
        (r"/a\\:/b", ["/a\\", "/b"]),
        (r"/a\\\:b:/c", ["/a\\:b", "/c"]),
        (r"/a\,b:/c d", ["/a,b", "/c d"]),
        ("/a\n:/b", ["/a\n", "/b"]),
        ("/a\\\nb:/c", ["/a\nb", "/c"]),
        ("/\udcff:/b", ["/\udcff", "/b"]),
    ],
)
def test_lowers_by_example(value: str, paths: list[str]) -> None:
    """A backslash takes the meaning from the character after it, be it a backslash itself."""
    assert split_lowers(value) == paths


_OTHERS = ("index=off", "metacopy=off", "volatile", "userxattr", "xino=auto")


@given(
    base=_paths,
    lowers=st.lists(_paths, min_size=1, max_size=10),
    upper=st.none() | st.tuples(_paths, _paths),
    others=st.lists(st.sampled_from(_OTHERS), unique=True),
)
def test_short_paths_mean_the_same_directories(
    base: str, lowers: list[str], upper: tuple[str, str] | None, others: list[str]
) -> None:
    """Seen from the common directory every path is the one it was, in its place; the rest stays."""
    lowers = [base + path for path in lowers]
    options = [f"lowerdir={':'.join(map(escape, lowers))}", *others]
    if upper:
        options[1:1] = [f"upperdir={escape(base + upper[0])}", f"workdir={escape(upper[1])}"]
    directory, rewritten = _relative_to_common_directory(options)
    assert _meant(rewritten, directory) == _meant(options, "/")
    assert os.path.isabs(directory)
    assert len(",".join(rewritten)) <= len(",".join(options))


def _meant(options: Sequence[str], directory: str) -> list[tuple[str, list[str]]]:
    """Each option with the absolute paths that it names, or its text."""
    meanings = []
    for option in options:
        key, _, value = option.partition("=")
        if key == "lowerdir":
            paths = split_lowers(value)
        elif key in ("upperdir", "workdir"):
            paths = [unescape(value)]
        else:
            meanings.append((option, []))
            continue
        meanings.append((key, [os.path.normpath(os.path.join(directory, one)) for one in paths]))
    return meanings


def test_short_links_of_a_home_become_short() -> None:
    """What overlay2 writes for a long graph root loses the graph root in every path."""
    root = "/" + "x" * 3000
    options = [
        f"lowerdir={root}/l/aa:{root}/l/bb",
        f"upperdir={root}/layer/diff",
        f"workdir={root}/layer/work",
        "index=off",
    ]
    assert _relative_to_common_directory(options) == (
        root,
        ["lowerdir=l/aa:l/bb", "upperdir=layer/diff", "workdir=layer/work", "index=off"],
    )


_flag_names = tuple(mount._FLAGS)
_data = st.text(min_size=1).filter(lambda text: text not in _flag_names)


@given(st.lists(st.sampled_from(_flag_names) | _data))
def test_flags_and_data_are_told_apart(options: list[str]) -> None:
    """Words that are flags of mount(2) become flags; all others stay, in their order."""
    flags, rest = _split_flags(options)
    assert rest == [one for one in options if one not in _flag_names]
    expected = 0
    for one in options:
        expected |= mount._FLAGS.get(one, 0)
    assert flags == expected


@pytest.mark.parametrize(
    ("options", "flags", "rest"),
    [
        (("bind", "ro"), syscalls.MS_BIND | syscalls.MS_RDONLY, []),
        (("rbind", "rw"), syscalls.MS_BIND | syscalls.MS_REC, []),
        (
            ("nosuid", "nodev", "noexec", "size=1m", "mode=755"),
            syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC,
            ["size=1m", "mode=755"],
        ),
        (("ro=x", "RO", "remount"), syscalls.MS_REMOUNT, ["ro=x", "RO"]),
        ((), 0, []),
    ],
)
def test_flags_by_example(options: tuple[str, ...], flags: int, rest: list[str]) -> None:
    """Only the exact words of mount(8) are flags."""
    assert _split_flags(options) == (flags, rest)


def test_every_attribute_of_a_mount_comes_from_its_flag() -> None:
    """Attributes of mount_setattr(2) follow the flags of mount(2), whose bits partly differ."""
    assert _mount_attributes(0) == 0
    assert _mount_attributes(syscalls.MS_RDONLY) == syscalls.MOUNT_ATTR_RDONLY
    assert _mount_attributes(syscalls.MS_STRICTATIME) == syscalls.MOUNT_ATTR_STRICTATIME
    assert _mount_attributes(syscalls.MS_BIND | syscalls.MS_REC) == 0
    assert (
        _mount_attributes(syscalls.MS_NODIRATIME | syscalls.MS_NOEXEC)
        == syscalls.MOUNT_ATTR_NODIRATIME | syscalls.MOUNT_ATTR_NOEXEC
    )
