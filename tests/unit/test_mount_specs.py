"""Mounts as people write them: what each means, what is wrong with it, what to write instead."""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mount_cases import CASES, COMBINATIONS, DIRECTORY, Case, Combination

from storagedrivers.errors import InvalidMountError, StoreError, VolumeError
from storagedrivers.mounts.merge import image_volumes, merge
from storagedrivers.mounts.mount_flag import parse_mount
from storagedrivers.mounts.names import check_subpath, check_volume_name
from storagedrivers.mounts.record import fields
from storagedrivers.mounts.sizes import parse_size
from storagedrivers.mounts.spec import PROPAGATIONS, MountSpec, MountType, checked
from storagedrivers.mounts.tmpfs_flag import tmpfs_options, tmpfs_target
from storagedrivers.mounts.volume_flag import VolumesFrom, parse_volume, parse_volumes_from


def _tmpfs(text: str) -> MountSpec:
    return MountSpec(MountType.TMPFS, tmpfs_target(text))


def _volume(text: str) -> MountSpec:
    return parse_volume(text, directory=DIRECTORY)


def _mount(text: str) -> MountSpec:
    return parse_mount(text, directory=DIRECTORY)


PARSERS: dict[str, Callable[[str], MountSpec | VolumesFrom]] = {
    "-v": _volume,
    "--mount": _mount,
    "--tmpfs": _tmpfs,
    "--volumes-from": parse_volumes_from,
}


def _of(kind: str, *, target: str = "/c", **fields: Any) -> MountSpec:
    """As a program may make one, with a plain text for the type."""
    return MountSpec(kind, target, **fields)  # type: ignore[arg-type]


def _name(case: Case) -> str:
    return f"{case.form} {case.text!r}"


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_each_spec_means_what_the_table_says(case: Case) -> None:
    """A good spec has its meaning; a bad one has the sentence of the table and some advice."""
    if not isinstance(case.expected, str):
        assert PARSERS[case.form](case.text) == case.expected
        return
    with pytest.raises(InvalidMountError) as caught:
        PARSERS[case.form](case.text)
    assert caught.value.brief == case.expected
    assert caught.value.resolution


BAD_VOLUMES = [case for case in CASES if case.form == "-v" and isinstance(case.expected, str)]


@pytest.mark.parametrize("case", BAD_VOLUMES, ids=_name)
def test_what_is_proposed_is_good(case: Case) -> None:
    """Where the advice to a bad ``-v`` is another spec, that one has a meaning."""
    with pytest.raises(InvalidMountError) as caught:
        _volume(case.text)
    for proposed in re.findall(r"'([^']*:[^']*)'", caught.value.resolution or ""):
        assert isinstance(_volume(proposed), MountSpec)


def test_table_is_large_and_has_nothing_twice() -> None:
    """There are at least 120 specs, every one once, of every form, good and bad."""
    assert len({(case.form, case.text) for case in CASES}) == len(CASES) >= 120
    for form in PARSERS:
        results = {isinstance(case.expected, str) for case in CASES if case.form == form}
        assert results == {True, False}


ADVICE = [
    ("-v", "/data/mysql:var/lib/mysql", "write '/data/mysql:/var/lib/mysql'"),
    ("-v", "/data/mysql:var/lib/mysql:ro,Z", "write '/data/mysql:/var/lib/mysql:ro,Z'"),
    ("-v", "vol:data/x", "write 'vol:/data/x'"),
    ("-v", "/srv:db", "write '/srv:/db'; 'db:/srv' for a volume"),
    ("-v", "db", "write 'NAME:/PATH' to mount the volume NAME, or '/db' for an anonymous one"),
    ("-v", "vol:", "write 'vol:/PATH'"),
    ("-v", "vol::ro", "write 'vol:/PATH:ro'"),
    ("-v", ":/c", "write '/c'"),
    ("-v", "/c:", "write '/c'"),
    ("-v", "::", "write [SOURCE:]TARGET[:MODE]"),
    ("-v", "::ro", "write [SOURCE:]TARGET[:MODE]"),
    ("-v", "vol:/c:", "write 'vol:/c'"),
    ("-v", "/c:ro", "write 'NAME:/c:ro'"),
    ("-v", "/c:rslave", "write '/PATH:/c:rslave'"),
    ("-v", "vol:ro", "write 'vol:/PATH:ro'"),
    ("-v", "vol:/c:ro:z", "write 'vol:/c:ro,z'"),
    ("-v", "/a:b:/c:ro", "--mount type=bind"),
    ("-v", "vol:/c:ro,ro", "write 'ro' once"),
    ("-v", "vol:/c:ro,rw", "choose one of 'ro' and 'rw'"),
    ("-v", "/a:/c:shared,rslave", "choose one of 'shared' and 'rslave'"),
    ("-v", "vol:/c:readonly", "write 'ro'"),
    ("-v", "vol:/c:volume-nocopy", "write 'nocopy'"),
    ("-v", "vol:/c:no-copy", "did you mean nocopy?"),
    ("-v", "vol:/c:ro,", "take out the comma"),
    ("-v", "vol:/c:quick", "there are ro, rw, z, Z,"),
    ("-v", "C:/x:/c", "write SOURCE:TARGET:MODE"),
    ("-v", "/etc:/c:nocopy", "leave 'nocopy' out"),
    ("-v", "vol:/c:rshared", "leave 'rshared' out"),
    ("-v", "vol:/", "name a directory below the root"),
    ("-v", "data/mysql:/c", "write '/data/mysql:/c' for a directory of the host, './data"),
    ("--mount", "source=data/mysql,target=/c", "write '/data/mysql' for a directory of the host"),
    ("-v", "~/data:/c", "only a shell knows"),
    ("-v", "my data:/c", "write 'my-data'"),
    ("-v", "_vol:/c", "write 'vol'"),
    ("-v", "?:/c", "choose a longer name"),
    ("-v", "é?:/c", "use letters and digits"),
    ("-v", f"{'x' * 241}:/c", "at most 240 characters"),
    ("--mount", "source=vol,target=var/lib", "write '/var/lib'"),
    ("--mount", "source=vol,target=/c,rw", "a mount is writable unless it is readonly"),
    ("--mount", "source=vol,target=/c,nocopy", "write 'volume-nocopy'"),
    ("--mount", "bind,source=/a,target=/c", "write 'type=bind'"),
    ("--mount", "type=bind,/a,target=/c", "write 'target=/a' or 'source=/a'"),
    ("--mount", "type=bind,src,target=/c", "write 'source=VALUE'"),
    ("--mount", "target=/c,volume-opt=o=a,b", "double quotes around the whole field"),
    ("--mount", "target=/c,readnly", "did you mean readonly?"),
    ("--mount", "target=/c,sorrce=vol", "did you mean source?"),
    ("--mount", "target=/c,x=y", "there are type, source, target"),
    ("--mount", 'target=/c,a"b', "double quotes around the whole field"),
    ("--mount", "target=/c, source=vol", "write 'source=vol', without blanks"),
    ("--mount", "target=/c,source= vol", "write 'source=vol', without blanks"),
    ("--mount", "target=/c,source=", "leave 'source' out"),
    ("--mount", "target=/c,source=vol,ro=yes", "write 'ro', or leave it out"),
    ("--mount", "type=bnd,target=/c", "did you mean bind?"),
    ("--mount", "type=image,target=/c", "there are bind, volume, tmpfs"),
    ("--mount", "target=/c,readonly", "name the volume: source=NAME"),
    ("--mount", "source=vol,readonly", "target=/path"),
    ("--mount", "source=/etc,target=/c", "type=bind"),
    ("--mount", "type=bind,target=/c", "source=/path"),
    ("--mount", "type=bind,source=data,target=/c", "write './data' for a directory"),
    ("--mount", "type=bind,source=a/b,target=/c", "write '/a/b', or './a/b'"),
    ("--mount", "type=bind,source=/a,target=/c,bind-recursive=read", "did you mean readonly?"),
    ("--mount", "type=bind,source=~/b,target=/c", "only a shell knows"),
    ("--mount", "type=tmpfs,source=x,target=/c", "leave the source out"),
    ("--mount", "source=vol,target=/c,tmpfs-size=1m", "or write 'type=tmpfs'"),
    ("--mount", "type=bind,source=/a,target=/c,bind-propagation=rshare", "did you mean rshared?"),
    ("--mount", "type=bind,source=/a,target=/c,bind-propagation=x", "there are private, rprivate"),
    ("--mount", "source=vol,target=/c,volume-subpath=/a/b", "write volume-subpath=a/b"),
    ("--mount", "source=vol,target=/c,volume-subpath=../b", "write volume-subpath=b"),
    ("--mount", "source=vol,target=/c,volume-subpath=..", "leave volume-subpath out"),
    ("--mount", "type=tmpfs,target=/c,tmpfs-size=1x", "write a number and a unit"),
    ("--mount", "type=tmpfs,target=/c,tmpfs-mode=rw", "octal"),
    ("--mount", "data:/mnt", "write -v 'data:/mnt', or 'source=data,target=/mnt' here"),
    ("--mount", "/mnt", "write 'target=/mnt' or 'source=/mnt'"),
    ("--mount", "/a:/mnt:ro", "or 'type=bind,source=/a,target=/mnt,readonly' here"),
    ("--mount", "type:bind,target:/y", "write '=' for ':', as in 'type=bind'"),
    ("--mount", "type=bind,dst:/y", "write '=' for ':', as in 'dst=/y'"),
    ("--mount", "da:ta", "double quotes around the whole field"),
    ("--mount", "target=/c,volume-opt=o=a,b:/c", "double quotes around the whole field"),
    ("--mount", "type=bind,source=/a,target=/c,image-subpath=z", "leave 'image-subpath' out"),
    ("--tmpfs", "run/lock", "write '/run/lock'"),
    ("--volumes-from", "other:nocopy", "leave 'nocopy' out"),
    ("--volumes-from", ":ro", "NAME:ro"),
]


@pytest.mark.parametrize(("form", "text", "advice"), ADVICE)
def test_advice_says_what_to_write(form: str, text: str, advice: str) -> None:
    """Each mistake whose meaning is clear has an advice of its own."""
    with pytest.raises(InvalidMountError) as caught:
        PARSERS[form](text)
    assert advice in (caught.value.resolution or "")


def test_no_advice_leads_to_images() -> None:
    """There is no type ``image`` here, so nothing of it is proposed."""
    for text in ("type=bind,source=/a,target=/c,image-subpath=z", "x=y", "imagesubpath=z", "ima"):
        with pytest.raises(InvalidMountError) as caught:
            _mount(text)
        advice = caught.value.resolution or ""
        assert "type=image" not in advice
        assert "image-" not in advice.replace("'image-subpath' out", "")


@pytest.mark.parametrize(
    ("text", "said", "advice"),
    [
        ("/t:size=big", "option 'size' in '/t:size=big' cannot be 'big'", "size=64m"),
        ("/t:size=64MB", "cannot be '64MB'", "a number, with k, m or g behind it"),
        ("/t:size", "option 'size' in '/t:size' has no value", "size=64m"),
        ("/t:mode=rwx", "option 'mode' in '/t:mode=rwx' cannot be 'rwx'", "octal: mode=1777"),
        ("/t:mode=0888", "cannot be '0888'", "octal"),
        ("/t:uid=root", "option 'uid' in '/t:uid=root' cannot be 'root'", "a number: uid=1000"),
        ("/t:nr_inodes=5%", "cannot be '5%'", "nr_inodes=10k"),
        ("/t:size=١", "cannot be", "size=64m"),
        ("/t:noexce", "option 'noexce' in '/t:noexce' is unknown", "did you mean noexec?"),
        ("/t:ro,zzz=1", "option 'zzz=1' in", "there are size, nr_blocks, nr_inodes, mode, uid"),
    ],
)
def test_what_is_no_option_of_a_tmpfs(text: str, said: str, advice: str) -> None:
    """An option is not called unknown where only its value is no good."""
    with pytest.raises(InvalidMountError) as caught:
        tmpfs_options(text)
    assert said in caught.value.brief
    assert advice in (caught.value.resolution or "")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("/t", ["noexec", "nosuid", "nodev"]),
        ("/t:", ["noexec", "nosuid", "nodev"]),
        ("/t:exec,size=1m,size=50%", ["nosuid", "nodev", "exec", "size=50%"]),
        ("/t:rw,ro,,uid=7", ["noexec", "nosuid", "nodev", "ro", "uid=7"]),
        ("/dev", ["noexec", "nosuid"]),
        ("/dev/:nodev", ["noexec", "nosuid", "nodev"]),
        ("/dev/x", ["noexec", "nosuid", "nodev"]),
    ],
)
def test_options_of_a_tmpfs(text: str, options: list[str]) -> None:
    """The last one of a kind holds; a new /dev may have devices."""
    assert tmpfs_options(text) == options


_texts = st.text(st.sampled_from('ab/.:,="\\ \n\0éroz~-_'), max_size=14) | st.text(max_size=8)
_options = st.lists(
    st.tuples(
        st.sampled_from(
            (
                "type",
                "source",
                "target",
                "ro",
                "volume-opt",
                "volume-subpath",
                "bind-recursive",
                "tmpfs-size",
                "tmpfs-mode",
                "bind-propagation",
                "volume-nocopy",
            )
        ),
        st.sampled_from(("bind", "volume", "tmpfs", "/a", "vol", "true", "1", "rprivate")) | _texts,
    ),
    max_size=5,
).map(lambda pairs: ",".join("=".join(pair) for pair in pairs))


def _read(form: str, text: str) -> MountSpec | VolumesFrom | InvalidMountError:
    try:
        return PARSERS[form](text)
    except InvalidMountError as error:
        return error


@given(st.sampled_from(list(PARSERS)), _texts | _options)
def test_whatever_is_written_is_a_mount_or_an_error(form: str, text: str) -> None:
    """No text breaks a parser, and what has a meaning is safe to use."""
    found = _read(form, text)
    if isinstance(found, InvalidMountError):
        assert found.brief
        assert found.resolution
        return
    if isinstance(found, VolumesFrom):
        assert found.container
        return
    assert found.target.startswith("/")
    assert found.target == posixpath.normpath(found.target) != "/"
    assert "\0" not in found.target + found.source + found.subpath
    if found.type is MountType.BIND:
        assert found.source.startswith("/")
        assert found.propagation in ("", *PROPAGATIONS)
    elif found.source:
        assert check_volume_name(found.source) == found.source
    assert not found.subpath.startswith(("/", "../"))
    assert found.subpath not in ("..", ".")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (_of("bind", source="/a", no_copy=True), "field VolumeOptions must not be specified"),
        (_of("bind", source="/a", labels=(("a", "b"),)), "field VolumeOptions must"),
        (_of("bind", source="/a", tmpfs_size=1), "field TmpfsOptions must not be specified"),
        (_of("bind", source="/a", recursive="x"), "invalid recursive mode: x"),
        (_of("bind", source="/a", recursive="readonly"), "readonly is for a read-only mount"),
        (_of("bind", source="/a\0"), "mount path must be absolute"),
        (_of("volume", source="ab", create_source=True), "field BindOptions must not be"),
        (_of("volume", source="ab", subpath="../x"), "subpath must be a relative path"),
        (_of("tmpfs", driver="local"), "field VolumeOptions must not be specified"),
        (_of("tmpfs", propagation="shared"), "field BindOptions must not be specified"),
        (_of("disk", source="ab"), 'type "disk": mount type unknown'),
        (_of("tmpfs", target="/a\0"), "null character"),
    ],
)
def test_values_are_checked_as_texts_are(spec: MountSpec, said: str) -> None:
    """A value that a program made is refused for what it says that does not go together."""
    with pytest.raises(InvalidMountError) as caught:
        checked(spec)
    assert said in caught.value.brief
    assert caught.value.resolution


def test_values_are_cleaned_as_texts_are() -> None:
    """A type may be a plain text; paths come out clean."""
    spec = checked(_of("bind", target="//c/.", source="/a/../b", read_only=True))
    assert spec == MountSpec(MountType.BIND, "/c", "/b", read_only=True)
    assert spec.type is MountType.BIND


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\0")), min_size=2, max_size=5))
def test_fields_read_what_others_write(values: list[str]) -> None:
    """Fields that the standard library writes as one record come out as they went in."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    assert fields(text.getvalue()) == values


def test_source_with_a_dot_is_below_the_working_directory(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no directory is named, a relative source is seen from the working directory."""
    monkeypatch.chdir(tmp_path)
    assert parse_volume("./a/../b:/c").source == f"{tmp_path}/b"
    assert parse_mount("type=bind,source=.,target=/c").source == str(tmp_path)
    assert parse_volume("./b:/c", directory="/x/y").source == "/x/y/b"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("10b", 10),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        ("64kb", 64 << 10),
        ("64KiB", 64 << 10),
        ("1.5m", 3 << 19),
        (".5 g", 1 << 29),
        ("2T", 2 << 40),
        ("1p", 1 << 50),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Numbers with and without a unit; units are powers of 1,024."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "-1",
        "1e3",
        "1 ",
        " 1",
        "1  m",
        "1mm",
        "1ki",
        "1ib",
        "1.2.3",
        "0x10",
        "inf",
        "١",
        "9223372036854775808",
        "9999999p",
        "10%",
    ],
)
def test_what_is_no_size(text: str) -> None:
    """Everything else is refused, sizes beyond 63 bits too."""
    with pytest.raises(StoreError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize("name", ["ab", "0-", "A.b_c-d", "x" * 240])
def test_names_of_volumes(name: str) -> None:
    """A good name comes back as it is."""
    assert check_volume_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a", ".", "..", "a/b", "/a", ".a", "ab\n", "a\0b", "a b", "äb", "-a", "x" * 241]
)
def test_what_is_no_name_of_a_volume(name: str) -> None:
    """A name that would leave its directory, or is none for Docker, is refused."""
    with pytest.raises(VolumeError, match=r"^create ") as caught:
        check_volume_name(name)
    assert caught.value.resolution


@pytest.mark.parametrize(
    ("path", "cleaned"), [("a", "a"), ("a//b/", "a/b"), ("./a", "a"), ("a/..", ""), ("..a", "..a")]
)
def test_subpaths(path: str, cleaned: str) -> None:
    """A path in a volume loses what it does not need."""
    assert check_subpath(path) == cleaned


def _parse(options: tuple[tuple[str, str], ...], form: str) -> list[Any]:
    return [PARSERS[form](text) for key, text in options if key == form]


OTHER = [_volume("vol:/from"), _volume("/usr:/of")]


def _merged(combination: Combination) -> list[MountSpec]:
    options = combination.options
    return merge(
        [*_parse(options, "-v"), *_parse(options, "--mount")],
        inherited=[one.of(spec) for one in _parse(options, "--volumes-from") for spec in OTHER],
        image=image_volumes({"/image": {}}),
        tmpfs=[text for form, text in options if form == "--tmpfs"],
    )


def _shown(spec: MountSpec) -> tuple[str, str]:
    return ("tmpfs" if spec.type is MountType.TMPFS else spec.source, spec.target)


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda one: str(one.options))
def test_each_combination_gives_what_the_table_says(combination: Combination) -> None:
    """On each target is what the table says, or the options contradict each other."""
    if isinstance(combination.expected, str):
        with pytest.raises(InvalidMountError) as caught:
            _merged(combination)
        assert caught.value.brief == combination.expected
        assert (caught.value.resolution or "").startswith("leave one out: there is ")
        return
    assert sorted(map(_shown, _merged(combination))) == sorted(combination.expected)


def test_what_lies_deeper_is_mounted_later() -> None:
    """The order is by depth, and as given among those of one depth."""
    texts = ["/z/a/b", "v1:/z", "v2:/a/b", "/usr:/b", "v3:/a"]
    merged = merge([*map(_volume, texts)], image=image_volumes({"/z/a": {}}))
    assert [spec.target for spec in merged] == ["/z", "/b", "/a", "/z/a", "/a/b", "/z/a/b"]


def test_the_later_of_two_containers_wins() -> None:
    """Of two inherited mounts of one target the one that was named last is taken."""
    first, second = _volume("one:/c"), _volume("two:/c")
    assert merge([], inherited=[first, second]) == [second]


def test_volumes_from_makes_nothing_writable() -> None:
    """What was read-only stays so; what was not is as the option says; nothing is filled."""
    read_only, writable = _volume("vol:/c:ro"), _volume("/usr:/d:rshared")
    plain, closed = parse_volumes_from("x:rw"), parse_volumes_from("x:ro")
    assert plain.of(read_only).read_only
    assert not plain.of(writable).read_only
    assert closed.of(writable).read_only
    assert plain.of(writable).propagation == "rshared"
    assert plain.of(_volume("vol:/c")).no_copy
    assert checked(plain.of(writable)) == plain.of(writable)


def test_volumes_of_an_image() -> None:
    """They are anonymous, each once, below the root wherever they point."""
    found = image_volumes({"/a/": {}, "data": {}, "/a": {}, "../x": {}})
    assert [spec.target for spec in found] == ["/a", "/data", "/x"]
    assert all(spec.is_anonymous for spec in found)
    assert image_volumes(None) == []


@pytest.mark.parametrize("path", ["/", ".", "/a/..", "", "/a\0"])
def test_image_with_a_volume_that_cannot_be(path: str) -> None:
    """The root, or what is no path, cannot be a volume of an image."""
    with pytest.raises(InvalidMountError):
        image_volumes({path: {}})


def test_duplicate_with_a_tmpfs_says_what_to_take_away() -> None:
    with pytest.raises(InvalidMountError, match=r"^Duplicate mount point: /c$") as caught:
        merge([_mount("source=vol,target=/c")], tmpfs=["/c:size=1m"])
    assert caught.value.resolution == ("leave one out: there is volume 'vol', and '--tmpfs /c'")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("vol:/c", "two:/c", "leave one out: there is volume 'vol', and volume 'two'"),
        ("vol:/c", "vol:/c:ro", "there is volume 'vol', and the same with other options"),
        ("/etc:/c", "vol:/c", "there is '/etc', and volume 'vol'"),
    ],
)
def test_duplicate_says_what_is_there_twice(first: str, second: str, said: str) -> None:
    """The advice names both mounts."""
    with pytest.raises(InvalidMountError, match=r"^Duplicate mount point: /c$") as caught:
        merge([_volume(first), _volume(second)])
    assert said in (caught.value.resolution or "")
