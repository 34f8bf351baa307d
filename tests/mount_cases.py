"""Mounts as people write them, what each means, and what Docker says to it.

One table for two tests: the unit test asks the parsers, the interop test asks Docker's own client
and daemon. An error is Docker's sentence; where the newest Docker has other words than the one that
Debian has (20.10), ours are the newest's, and ``debian`` is what 20.10 says.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from storagedrivers.mounts.spec import MountSpec, MountType
from storagedrivers.mounts.volume_flag import VolumesFrom

DIRECTORY = "/"
"""What a source that begins with a dot is seen from."""

ACCEPTED = ""
"""Of ``debian``: no error, and no meaning that is compared."""


class Case(NamedTuple):
    """One option.

    Attributes:
        form: the option.
        text: what follows it.
        expected: its meaning, or the sentence of the error.
        debian: what Docker 20.10 says, where it is something else.
        why: the difference; where ``debian`` is None, one from the newest.
    """

    form: str
    text: str
    expected: MountSpec | VolumesFrom | str
    debian: str | None = None
    why: str = ""


class Combination(NamedTuple):
    """Several options of one container, whose image has ``VOLUME /image``.

    Attributes:
        options: pairs of an option and what follows it.
        expected: source and target of each mount, in any order, or the sentence of the error; the
            source of an anonymous volume is empty, that of a tmpfs ``tmpfs``.
        debian: what Docker 20.10 says, where it is something else.
        why: the difference; empty where there is none.
    """

    options: tuple[tuple[str, str], ...]
    expected: tuple[tuple[str, str], ...] | str
    debian: str | None = None
    why: str = ""


NEWER_WORDS = "newer words"
"""Both refuse it."""

NEWER = "newer Docker"
"""The newest takes what 20.10 refuses, or the other way round; the newest's documentation and its
tests say so.
"""


def _volume(target: str = "/c", source: str = "vol", **fields: Any) -> MountSpec:
    return MountSpec(MountType.VOLUME, target, source, **fields)


def _bind(target: str = "/c", source: str = "/etc", **fields: Any) -> MountSpec:
    return MountSpec(MountType.BIND, target, source, **fields)


def _tmpfs(target: str = "/c", **fields: Any) -> MountSpec:
    return MountSpec(MountType.TMPFS, target, **fields)


def _v_bind(target: str = "/c", source: str = "/etc", **fields: Any) -> MountSpec:
    return _bind(target, source, create_source=True, **fields)


def _v_mode(mode: str, **fields: Any) -> Case:
    return Case("-v", f"vol:/c:{mode}", _volume(mode=mode, **fields))


def _v_propagation(mode: str) -> Case:
    return Case("-v", f"/etc:/c:{mode}", _v_bind(mode=mode, propagation=mode))


def _bad_mode(mode: str, source: str = "vol") -> Case:
    return Case("-v", f"{source}:/c:{mode}", f"invalid mode: {mode}")


def _bad_spec(text: str, kind: str, cause: str, debian: str | None = None, why: str = "") -> Case:
    wrapped = f'invalid mount config for type "{kind}": {cause}'
    return Case("-v", text, f"invalid volume specification: '{text}': {wrapped}", debian, why)


def _bad_v_name(name: str) -> Case:
    return Case("-v", f"{name}:/c", _bad_name(name))


def _bad_name(name: str) -> str:
    return (
        f'create {name}: "{name}" includes invalid characters for a local volume name, only'
        ' "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed.'
        " If you intended to pass a host directory, use absolute path"
    )


def _empty_section(text: str, debian: str = ACCEPTED) -> Case:
    sentence = f"invalid spec: {text}: empty section between colons"
    return Case("-v", text, sentence, debian, NEWER)


def _no_flag(key: str, value: str) -> str:
    return (
        f"invalid value for '{key}': invalid boolean value (\"{value}\"):"
        ' must be one of "true", "1", "false", or "0" (default "true")'
    )


def _bad_config(text: str, kind: str, cause: str, debian: str | None = None, why: str = "") -> Case:
    return Case("--mount", text, f'invalid mount config for type "{kind}": {cause}', debian, why)


def _absolute(path: str) -> str:
    return f"invalid mount path: '{path}' mount path must be absolute"


_ROOT = "invalid specification: destination can't be '/'"
_NO_BIND_OPTIONS = "field BindOptions must not be specified"
_NO_VOLUME_OPTIONS = "field VolumeOptions must not be specified"
_TOO_SHORT = "volume name is too short, names should be at least two alphanumeric characters"
_SUBPATH = "subpath must be a relative path within the volume"
_TARGETLESS = "target is required"
_ANONYMOUS = (
    "Docker's client takes it for an anonymous volume with that text as its target, below the root:"
    " who means the volume of that name loses what is written"
)
_NONRECURSIVE = "the newest refuses the old word; it is clear what it means"


VOLUME_CASES = [
    Case("-v", "/c", _volume(source="")),
    Case("-v", "/c/", _volume(source="")),
    Case("-v", "//c//d/./e/../f", _volume("/c/d/f", "")),
    Case("-v", "vol:/c", _volume()),
    Case("-v", "vol:/c/", _volume()),
    Case("-v", "vol:/c/../d", _volume("/d")),
    Case("-v", "vol:/with space", _volume("/with space")),
    Case("-v", "vol:/ünï", _volume("/ünï")),
    Case("-v", "vol:/a=b,c", _volume("/a=b,c")),
    Case("-v", "v1:/c", _volume(source="v1")),
    Case("-v", "V_o.l-1:/c", _volume(source="V_o.l-1")),
    Case("-v", "0.:/c", _volume(source="0.")),
    Case("-v", "/etc:/c", _v_bind()),
    Case("-v", "/etc/:/c", _v_bind()),
    Case("-v", "/etc/../usr//lib:/c", _v_bind(source="/usr/lib")),
    Case("-v", "/etc/hostname:/c/file", _v_bind("/c/file", "/etc/hostname")),
    Case("-v", "/does not/exist:/c", _v_bind(source="/does not/exist")),
    Case("-v", "./etc:/c", _v_bind(), _bad_name("./etc"), NEWER),
    Case("-v", "../usr:/c", _v_bind(source="/usr"), _bad_name("../usr"), NEWER),
    Case("-v", ".hidden:/c", _v_bind(source="/.hidden"), _bad_name(".hidden"), NEWER),
    _v_mode("rw"),
    _v_mode("ro", read_only=True),
    _v_mode("z"),
    _v_mode("Z"),
    _v_mode("ro,Z", read_only=True),
    _v_mode("z,rw"),
    _v_mode("nocopy", no_copy=True),
    _v_mode("nocopy,ro", no_copy=True, read_only=True),
    _v_mode("cached"),
    _v_mode("consistent"),
    _v_mode("delegated,ro,nocopy,z", no_copy=True, read_only=True),
    *map(_v_propagation, ("private", "rprivate", "slave", "rslave", "shared", "rshared")),
    Case("-v", "/etc:/c:ro", _v_bind(mode="ro", read_only=True)),
    Case(
        "-v",
        "/etc:/c:Z,rslave,ro,cached",
        _v_bind(mode="Z,rslave,ro,cached", propagation="rslave", read_only=True),
    ),
    Case("-v", "", "invalid empty volume spec", ACCEPTED, NEWER),
    _empty_section(":/c"),
    _empty_section("vol:", "invalid volume specification: 'vol:'"),
    _empty_section("vol:/c:"),
    _empty_section("::/c"),
    _empty_section("vol:/c::", "invalid volume specification: 'vol:/c::'"),
    _empty_section(
        "vol::ro",
        "invalid volume specification: 'vol::ro': invalid mount config for"
        ' type "volume": field Target must not be empty',
    ),
    Case("-v", "::", "invalid spec: ::: empty section between colons", ACCEPTED, _ANONYMOUS),
    Case("-v", ":", "invalid spec: :: empty section between colons", ACCEPTED, _ANONYMOUS),
    Case(
        "-v",
        "vol:/c:ro:z",
        "invalid spec: vol:/c:ro:z: too many colons",
        "invalid volume specification: 'vol:/c:ro:z'",
        NEWER_WORDS,
    ),
    Case(
        "-v",
        "/a:b:/c:ro:",
        "invalid spec: /a:b:/c:ro:: too many colons",
        "invalid volume specification: '/a:b:/c:ro:'",
        NEWER_WORDS,
    ),
    Case("-v", "/c:ro", "invalid volume specification: '/c:ro'"),
    Case("-v", "vol:ro", "invalid volume specification: 'vol:ro'"),
    Case("-v", "/c:z,rshared", "invalid volume specification: '/c:z,rshared'"),
    _bad_spec("c", "volume", _absolute("c"), ACCEPTED, _ANONYMOUS),
    _bad_spec("some/where", "volume", _absolute("some/where"), ACCEPTED, _ANONYMOUS),
    _bad_spec("/", "volume", _ROOT, ACCEPTED, "it never starts"),
    _bad_spec("/a/..", "volume", _ROOT, ACCEPTED, "it never starts"),
    _bad_spec("vol:/", "volume", _ROOT),
    _bad_spec("/etc:/", "bind", _ROOT),
    _bad_spec("/etc:/c/../..", "bind", _ROOT),
    _bad_spec("/data/mysql:var/lib/mysql", "bind", _absolute("var/lib/mysql")),
    _bad_spec("vol:var/lib", "volume", _absolute("var/lib")),
    _bad_spec("/etc:vol", "bind", _absolute("vol")),
    _bad_spec("/etc:./c:ro", "bind", _absolute("./c")),
    _bad_spec("vol:..", "volume", _absolute("..")),
    _bad_spec(
        "vol:\\c",
        "volume",
        _absolute("\\c"),
        ACCEPTED,
        "Docker takes the backslash for a slash here, and not when it mounts",
    ),
    _bad_spec("vol:/c:shared", "volume", _NO_BIND_OPTIONS),
    _bad_spec("vol:/c:ro,rslave", "volume", _NO_BIND_OPTIONS),
    _bad_spec("vol:/c:nocopy,rshared", "volume", _NO_BIND_OPTIONS),
    _bad_spec("/etc:/c:nocopy", "bind", _NO_VOLUME_OPTIONS),
    _bad_spec("/etc:/c:ro,nocopy", "bind", _NO_VOLUME_OPTIONS),
    *map(
        _bad_mode,
        (
            *("ro,ro", "ro,rw", "z,Z", "z,z", "nocopy,nocopy", "cached,delegated", "ro,", ",ro"),
            *(",", "RO", "readonly", "copy", "foo", "r o", "/d", "ro;z", "volume-nocopy", "rro"),
        ),
    ),
    _bad_mode("shared,rshared", "/etc"),
    _bad_mode("private,ro,slave", "/etc"),
    _bad_v_name("data/mysql"),
    _bad_v_name("~/data"),
    _bad_v_name("-vol"),
    _bad_v_name("_vol"),
    _bad_v_name("a b"),
    _bad_v_name("völ"),
    _bad_v_name("vol$"),
    Case("-v", "a:/c:ro", f"create a: {_TOO_SHORT}"),
    Case(
        "-v",
        "a:/c",
        f"create a: {_TOO_SHORT}",
        ACCEPTED,
        f"one letter is taken for a drive of Windows. {_ANONYMOUS}",
    ),
    Case("-v", "1:/c", f"create 1: {_TOO_SHORT}"),
]
"""``-v``."""

MOUNT_CASES = [
    Case("--mount", "type=volume,source=vol,target=/c", _volume()),
    Case("--mount", "source=vol,target=/c", _volume()),
    Case("--mount", "src=vol,dst=/c", _volume()),
    Case("--mount", "destination=/c,source=vol", _volume()),
    Case("--mount", "target=/c", _volume(source="")),
    Case("--mount", "TYPE=Volume,Source=vol,TARGET=/c", _volume()),
    Case("--mount", "type=volume,source=vol,target=/c/./d/..", _volume()),
    Case("--mount", "source=one,source=vol,target=/a,target=/c", _volume()),
    Case("--mount", "source=vol,target=/c,readonly", _volume(read_only=True)),
    Case("--mount", "source=vol,target=/c,ro", _volume(read_only=True)),
    Case("--mount", "source=vol,target=/c,readonly=true", _volume(read_only=True)),
    Case("--mount", "source=vol,target=/c,ro=1", _volume(read_only=True)),
    Case("--mount", "source=vol,target=/c,readonly=false", _volume()),
    Case("--mount", "source=vol,target=/c,ro,readonly=0", _volume()),
    Case("--mount", "source=vol,target=/c,volume-nocopy", _volume(no_copy=True)),
    Case("--mount", "source=vol,target=/c,volume-nocopy=1", _volume(no_copy=True)),
    Case("--mount", "source=vol,target=/c,volume-nocopy=false", _volume()),
    Case("--mount", "target=/c,volume-nocopy", _volume(source="", no_copy=True)),
    Case("--mount", "source=vol,target=/c,volume-driver=local", _volume(driver="local")),
    Case(
        "--mount",
        "source=vol,target=/c,volume-label=a=b,volume-label=c,volume-label=a=d=e",
        _volume(labels=(("a", "d=e"), ("c", ""))),
    ),
    Case(
        "--mount",
        "source=vol,target=/c,volume-opt=type=tmpfs,volume-opt=device=tmpfs",
        _volume(options=(("type", "tmpfs"), ("device", "tmpfs"))),
    ),
    Case(
        "--mount",
        'source=vol,target=/c,volume-opt=type=tmpfs,volume-opt=device=x,"volume-opt=o=uid=1,gid=2"',
        _volume(options=(("type", "tmpfs"), ("device", "x"), ("o", "uid=1,gid=2"))),
    ),
    Case("--mount", '"source=vol","target=/a""b"', _volume('/a"b')),
    Case("--mount", 'source=vol,"target=/a,b"', _volume("/a,b")),
    Case("--mount", "source=vol,target=/a:b=c", _volume("/a:b=c")),
    Case("--mount", "source=vol,target=/c,consistency=foo", _volume()),
    Case("--mount", "type=bind,source=/etc,target=/c", _bind()),
    Case("--mount", "type=bind,src=/etc/../usr/,dst=/c", _bind(source="/usr")),
    *(
        Case(
            "--mount",
            f"type=bind,source={source},target=/c",
            _bind(source=meant),
            f'invalid mount config for type "bind": {_absolute(source)}',
            NEWER,
        )
        for source, meant in (("./etc", "/etc"), (".", "/"), ("../usr/", "/usr"))
    ),
    Case(
        "--mount",
        "type=bind,source=/etc/hostname,target=/c,readonly",
        _bind(source="/etc/hostname", read_only=True),
    ),
    Case("--mount", "type=bind,source=/etc,target=/c,consistency=delegated", _bind()),
    *(
        Case(
            "--mount",
            f"type=bind,source=/etc,target=/c,bind-propagation={word}",
            _bind(propagation=word.lower()),
        )
        for word in ("private", "rprivate", "slave", "rslave", "shared", "RShared")
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,bind-nonrecursive",
        _bind(recursive="disabled"),
        why=_NONRECURSIVE,
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,bind-nonrecursive=true",
        _bind(recursive="disabled"),
        why=_NONRECURSIVE,
    ),
    Case(
        "--mount", "type=bind,source=/etc,target=/c,bind-nonrecursive=0", _bind(), why=_NONRECURSIVE
    ),
    Case("--mount", "type=tmpfs,target=/c", _tmpfs()),
    Case("--mount", "type=tmpfs,dst=/c,readonly", _tmpfs(read_only=True)),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=1048576", _tmpfs(tmpfs_size=1 << 20)),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=64m", _tmpfs(tmpfs_size=64 << 20)),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=64MiB", _tmpfs(tmpfs_size=64 << 20)),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=1.5kB", _tmpfs(tmpfs_size=1536)),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=2 g", _tmpfs(tmpfs_size=2 << 30)),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=0", _tmpfs()),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-mode=1770", _tmpfs(tmpfs_mode=0o1770)),
    Case(
        "--mount",
        "type=tmpfs,target=/c,tmpfs-mode=0700,tmpfs-size=1k",
        _tmpfs(tmpfs_mode=0o700, tmpfs_size=1024),
    ),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-mode=17777", _tmpfs(tmpfs_mode=0o17777)),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-mode=0", _tmpfs()),
    # What 20.10 does not know.
    Case(
        "--mount",
        "source=vol,target=/c,volume-subpath=a/b",
        _volume(subpath="a/b"),
        "unexpected key 'volume-subpath' in 'volume-subpath=a/b'",
        NEWER,
    ),
    Case(
        "--mount",
        "source=vol,target=/c,volume-subpath=a/../b/",
        _volume(subpath="b"),
        "unexpected key 'volume-subpath' in 'volume-subpath=a/../b/'",
        NEWER,
    ),
    Case(
        "--mount",
        "source=vol,target=/c,volume-subpath=.",
        _volume(),
        "unexpected key 'volume-subpath' in 'volume-subpath=.'",
        NEWER,
    ),
    *(
        Case(
            "--mount",
            f"type=bind,source=/etc,target=/c,bind-recursive={word}{more}",
            _bind(recursive=word, **fields),
            f"unexpected key 'bind-recursive' in 'bind-recursive={word}'",
            NEWER,
        )
        for word, more, fields in (
            ("enabled", "", {}),
            ("disabled", "", {}),
            ("writable", ",ro", {"read_only": True}),
            (
                "readonly",
                ",ro,bind-propagation=rprivate",
                {"read_only": True, "propagation": "rprivate"},
            ),
        )
    ),
    Case(
        "--mount",
        "type=bind,source=/none,target=/c,bind-create-src",
        _bind(source="/none", create_source=True),
        "invalid field 'bind-create-src' must be a key=value pair",
        NEWER,
    ),
    Case(
        "--mount",
        "type=bind,source=/none,target=/c,bind-create-src=1",
        _bind(source="/none", create_source=True),
        "unexpected key 'bind-create-src' in 'bind-create-src=1'",
        NEWER,
    ),
    Case(
        "--mount",
        " source=vol,target=/c ",
        _volume(),
        "unexpected key ' source' in ' source=vol'",
        NEWER,
    ),
    Case("--mount", "source=vol,target=/c,volume-label==x", _volume(), ACCEPTED, NEWER),
    # What is wrong.
    Case("--mount", "", "value is empty", "EOF", NEWER_WORDS),
    Case(
        "--mount",
        "  ",
        "value is empty",
        "invalid field '  ' must be a key=value pair",
        NEWER_WORDS,
    ),
    Case("--mount", ",", "invalid field '' must be a key=value pair"),
    Case("--mount", "source=vol,,target=/c", "invalid field '' must be a key=value pair"),
    Case("--mount", "vol:/c", "invalid field 'vol:/c' must be a key=value pair"),
    Case("--mount", "/c", "invalid field '/c' must be a key=value pair"),
    Case("--mount", "type,target=/c", "invalid field 'type' must be a key=value pair"),
    Case("--mount", "source=vol,target=/c,rw", "invalid field 'rw' must be a key=value pair"),
    Case(
        "--mount", "source=vol,target=/c,nocopy", "invalid field 'nocopy' must be a key=value pair"
    ),
    Case("--mount", "target=/c,volume-opt=o=a,b", "invalid field 'b' must be a key=value pair"),
    Case("--mount", "volume,target=/c", "invalid field 'volume' must be a key=value pair"),
    Case(
        "--mount",
        'source=a"b,target=/c',
        'parse error on line 1, column 9: bare " in non-quoted-field',
    ),
    Case("--mount", 'ü"b', 'parse error on line 1, column 3: bare " in non-quoted-field'),
    Case(
        "--mount",
        'source=vol,"target=/c',
        'parse error on line 1, column 22: extraneous or missing " in quoted-field',
    ),
    Case(
        "--mount",
        '"source=vol"x,target=/c',
        'parse error on line 1, column 12: extraneous or missing " in quoted-field',
    ),
    Case(
        "--mount",
        '"source=vol",target=/c,"a\n"b',
        "record on line 1; parse error on line 2, column 1:"
        ' extraneous or missing " in quoted-field',
    ),
    Case(
        "--mount",
        "source=vol,target=/c\ntarget=/d",
        "parse error on line 1, column 21: a second line",
        ACCEPTED,
        "Docker forgets the second line and says nothing",
    ),
    Case(
        "--mount",
        "target=/c,foo=bar",
        "unknown option 'foo' in 'foo=bar'",
        "unexpected key 'foo' in 'foo=bar'",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "target=/c,Sorrce=vol",
        "unknown option 'sorrce' in 'Sorrce=vol'",
        "unexpected key 'sorrce' in 'Sorrce=vol'",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "target=/c,=vol",
        "unknown option '' in '=vol'",
        "unexpected key '' in '=vol'",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "type=tmpfs,target=/c,size=1m",
        "unknown option 'size' in 'size=1m'",
        "unexpected key 'size' in 'size=1m'",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "target=/c, source=vol",
        "invalid option 'source' in ' source=vol': option should not have whitespace",
        "unexpected key ' source' in ' source=vol'",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "type=volume ,target=/c",
        "invalid value for 'type' in 'type=volume ': value should not have whitespace",
        'invalid mount config for type "volume ": mount type unknown',
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "type=,target=/c",
        "invalid value for 'type': value is empty",
        "type is required",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "target=,source=vol",
        "invalid value for 'target': value is empty",
        _TARGETLESS,
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "source=,target=/c",
        "invalid value for 'source': value is empty",
        ACCEPTED,
        NEWER,
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,bind-propagation=",
        "invalid value for 'bind-propagation': value is empty",
        ACCEPTED,
        NEWER,
    ),
    Case(
        "--mount",
        "source=vol,target=/c,readonly=yes",
        _no_flag("readonly", "yes"),
        "invalid value for readonly: yes",
        NEWER_WORDS,
    ),
    Case("--mount", "source=vol,target=/c,ro=TRUE", _no_flag("ro", "TRUE"), ACCEPTED, NEWER),
    Case(
        "--mount",
        "source=vol,target=/c,volume-nocopy=2",
        _no_flag("volume-nocopy", "2"),
        "invalid value for volume-nocopy: 2",
        NEWER_WORDS,
    ),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=foo", "invalid value for tmpfs-size: foo"),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=-1", "invalid value for tmpfs-size: -1"),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=10q", "invalid value for tmpfs-size: 10q"),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-size=50%", "invalid value for tmpfs-size: 50%"),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-mode=rwx", "invalid value for tmpfs-mode: rwx"),
    Case("--mount", "type=tmpfs,target=/c,tmpfs-mode=789", "invalid value for tmpfs-mode: 789"),
    Case(
        "--mount",
        "type=tmpfs,target=/c,tmpfs-mode=77777777777",
        "invalid value for tmpfs-mode: 77777777777",
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,bind-recursive=off",
        "invalid value for bind-recursive: off"
        ' (must be "enabled", "disabled", "writable", or "readonly")',
        "unexpected key 'bind-recursive' in 'bind-recursive=off'",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,bind-recursive=writable",
        "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
        "unexpected key 'bind-recursive' in 'bind-recursive=writable'",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,bind-recursive=readonly",
        "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
        "unexpected key 'bind-recursive' in 'bind-recursive=readonly'",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,ro,bind-recursive=readonly",
        "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified"
        " in conjunction",
        "unexpected key 'bind-recursive' in 'bind-recursive=readonly'",
        NEWER_WORDS,
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,volume-nocopy",
        "cannot mix 'volume-*' options with mount type 'bind'",
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,volume-driver=local",
        "cannot mix 'volume-*' options with mount type 'bind'",
    ),
    Case(
        "--mount",
        "type=bind,source=/etc,target=/c,tmpfs-size=1m",
        "cannot mix 'tmpfs-*' options with mount type 'bind'",
    ),
    Case(
        "--mount",
        "type=volume,source=vol,target=/c,bind-propagation=shared",
        "cannot mix 'bind-*' options with mount type 'volume'",
    ),
    Case(
        "--mount",
        "source=vol,target=/c,tmpfs-mode=700",
        "cannot mix 'tmpfs-*' options with mount type 'volume'",
    ),
    Case(
        "--mount",
        "type=tmpfs,target=/c,volume-label=a=b",
        "cannot mix 'volume-*' options with mount type 'tmpfs'",
    ),
    Case(
        "--mount",
        "type=tmpfs,target=/c,bind-nonrecursive",
        "cannot mix 'bind-*' options with mount type 'tmpfs'",
    ),
    Case(
        "--mount",
        "source=vol,target=/c,image-subpath=a",
        "cannot mix 'image-*' options with mount type 'volume'",
        "unexpected key 'image-subpath' in 'image-subpath=a'",
        NEWER_WORDS,
    ),
    _bad_config("type=foo,target=/c", "foo", "mount type unknown"),
    _bad_config("type=bnd,source=/etc,target=/c", "bnd", "mount type unknown"),
    _bad_config("type=npipe,source=/etc,target=/c", "npipe", "mount type unknown"),
    _bad_config("source=vol", "volume", "field Target must not be empty", _TARGETLESS, NEWER_WORDS),
    _bad_config("type=tmpfs", "tmpfs", "field Target must not be empty", _TARGETLESS, NEWER_WORDS),
    _bad_config(
        "source=vol,readonly", "volume", "field Target must not be empty", _TARGETLESS, NEWER_WORDS
    ),
    _bad_config("source=vol,target=/", "volume", _ROOT),
    _bad_config("type=bind,source=/etc,target=/c/..", "bind", _ROOT),
    _bad_config("type=tmpfs,target=/", "tmpfs", _ROOT),
    _bad_config("source=vol,target=var/lib", "volume", _absolute("var/lib")),
    _bad_config("type=bind,source=/etc,target=c", "bind", _absolute("c")),
    _bad_config("type=tmpfs,target=./c", "tmpfs", _absolute("./c")),
    _bad_config("type=bind,target=/c", "bind", "field Source must not be empty"),
    _bad_config("type=bind,source=etc,target=/c", "bind", _absolute("etc")),
    _bad_config("type=bind,source=~/x,target=/c", "bind", _absolute("~/x")),
    _bad_config(
        "type=bind,source=/etc,target=/c,bind-propagation=foo",
        "bind",
        "invalid propagation mode: foo",
    ),
    _bad_config(
        "type=bind,source=/etc,target=/c,bind-propagation=rshare",
        "bind",
        "invalid propagation mode: rshare",
    ),
    _bad_config("type=tmpfs,source=/etc,target=/c", "tmpfs", "field Source must not be specified"),
    _bad_config(
        "target=/c,readonly", "volume", "must not set ReadOnly mode when using anonymous volumes"
    ),
    _bad_config(
        "target=/c,volume-subpath=a",
        "volume",
        "must not set Subpath when using anonymous volumes",
        "unexpected key 'volume-subpath' in 'volume-subpath=a'",
        NEWER_WORDS,
    ),
    *(
        _bad_config(
            f"source=vol,target=/c,volume-subpath={path}",
            "volume",
            _SUBPATH,
            f"unexpected key 'volume-subpath' in 'volume-subpath={path}'",
            NEWER_WORDS,
        )
        for path in ("/a", "..", "../a", "a/../../b")
    ),
    Case("--mount", "source=/etc,target=/c", _bad_name("/etc")),
    Case("--mount", "source=a/b,target=/c", _bad_name("a/b")),
    Case("--mount", "source=a,target=/c", f"create a: {_TOO_SHORT}"),
]
"""``--mount``."""

OTHER_CASES = [
    Case("--tmpfs", "/c", _tmpfs()),
    Case("--tmpfs", "/c:size=1m,mode=700", _tmpfs()),
    Case("--tmpfs", "/c:", _tmpfs()),
    Case("--tmpfs", "/c:nonsense", _tmpfs()),
    Case("--tmpfs", "c", _absolute("c")),
    Case("--tmpfs", "run/lock:size=1m", _absolute("run/lock")),
    Case("--tmpfs", "", _absolute("")),
    Case("--tmpfs", "/", _ROOT),
    Case("--tmpfs", "/c/..:ro", _ROOT),
    Case("--volumes-from", "other", VolumesFrom("other")),
    Case("--volumes-from", "other:", VolumesFrom("other")),
    Case("--volumes-from", "other:ro", VolumesFrom("other", read_only=True, mode="ro")),
    Case("--volumes-from", "other:rw", VolumesFrom("other", mode="rw")),
    Case("--volumes-from", "other:z", VolumesFrom("other", mode="z")),
    Case("--volumes-from", "other:ro,Z", VolumesFrom("other", read_only=True, mode="ro,Z")),
    Case("--volumes-from", "", "volumes-from specification cannot be an empty string"),
    Case("--volumes-from", ":ro", 'invalid name or ID supplied: ""'),
    Case("--volumes-from", "other:foo", "invalid mode: foo"),
    Case("--volumes-from", "other:ro,rw", "invalid mode: ro,rw"),
    Case("--volumes-from", "other:ro:z", "invalid mode: ro:z"),
    Case("--volumes-from", "other:nocopy", "invalid mode: nocopy"),
    Case("--volumes-from", "other:rshared", "invalid mode: rshared"),
    Case("--volumes-from", "other:ro,slave", "invalid mode: ro,slave"),
]
"""``--tmpfs``, of which the target is compared, and ``--volumes-from``."""

CASES = [*VOLUME_CASES, *MOUNT_CASES, *OTHER_CASES]

_IMAGE = ("", "/image")
_DUPLICATE = "Duplicate mount point: /c"
_LOST = "the tmpfs hides it, and what is written there is gone"

COMBINATIONS = [
    Combination((), (_IMAGE,)),
    Combination((("-v", "vol:/c"), ("-v", "vol:/c")), (("vol", "/c"), _IMAGE)),
    Combination((("-v", "vol:/c"), ("-v", "vol:/d")), (("vol", "/c"), ("vol", "/d"), _IMAGE)),
    Combination((("-v", "vol:/c"), ("-v", "two:/c")), _DUPLICATE),
    Combination((("-v", "vol:/c"), ("-v", "vol:/c:ro")), _DUPLICATE),
    Combination((("-v", "vol:/c"), ("-v", "/etc:/c/")), _DUPLICATE),
    Combination((("-v", "vol:/c"), ("--mount", "source=two,target=/c")), _DUPLICATE),
    Combination((("-v", "/etc:/c"), ("--mount", "type=tmpfs,target=/c")), _DUPLICATE),
    Combination(
        (("--mount", "source=vol,target=/c"), ("--mount", "source=vol,target=/c,ro")), _DUPLICATE
    ),
    Combination(
        (("-v", "vol:/c"), ("--mount", "source=vol,target=/c")),
        (("vol", "/c"), _IMAGE),
        _DUPLICATE,
        "they are the same",
    ),
    Combination(
        (("-v", "vol:/c"), ("-v", "vol:/c/")),
        (("vol", "/c"), _IMAGE),
        _DUPLICATE,
        "they are the same",
    ),
    Combination((("-v", "/c"), ("-v", "vol:/c")), (("vol", "/c"), _IMAGE)),
    Combination((("-v", "/etc:/c"), ("-v", "/c")), (("/etc", "/c"), _IMAGE)),
    Combination((("-v", "/c"), ("--mount", "type=tmpfs,target=/c")), (("tmpfs", "/c"), _IMAGE)),
    Combination((("-v", "/c"), ("-v", "/c/")), (("", "/c"), _IMAGE)),
    Combination((("--mount", "target=/c,volume-nocopy"), ("-v", "vol:/c")), _DUPLICATE),
    Combination((("-v", "vol:/image"),), (("vol", "/image"),)),
    Combination((("-v", "/image"),), (_IMAGE,)),
    Combination((("--mount", "type=bind,source=/etc,target=/image/"),), (("/etc", "/image"),)),
    Combination((("--mount", "type=tmpfs,target=/image"),), (("tmpfs", "/image"),)),
    Combination(
        (("-v", "vol:/image/a/b"), ("-v", "/etc:/image/a"), ("-v", "two:/z")),
        (_IMAGE, ("two", "/z"), ("/etc", "/image/a"), ("vol", "/image/a/b")),
    ),
    Combination((("-v", "vol:/c"), ("--tmpfs", "/c")), _DUPLICATE),
    Combination(
        (("-v", "vol:/c"), ("--tmpfs", "/c/")),
        _DUPLICATE,
        ACCEPTED,
        f"Docker compares the texts. {_LOST}",
    ),
    Combination(
        (("--mount", "type=bind,source=/etc,target=/c"), ("--tmpfs", "/c")),
        _DUPLICATE,
        ACCEPTED,
        _LOST,
    ),
    Combination(
        (("--mount", "source=vol,target=/c"), ("--tmpfs", "/c")), _DUPLICATE, ACCEPTED, _LOST
    ),
    Combination(
        (("--mount", "type=tmpfs,target=/c"), ("--tmpfs", "/c")), (("tmpfs", "/c"), _IMAGE)
    ),
    Combination((("--tmpfs", "/d"),), (_IMAGE,)),
    Combination(
        (("--tmpfs", "/image"),), (), ACCEPTED, "Docker makes a volume too that nobody sees"
    ),
    Combination(
        (("--volumes-from", "other"),),
        (("vol", "/from"), ("/usr", "/of"), _IMAGE),
    ),
    Combination(
        (("--volumes-from", "other"), ("-v", "two:/from")),
        (("two", "/from"), ("/usr", "/of"), _IMAGE),
    ),
    Combination(
        (("--volumes-from", "other"), ("-v", "two:/from"), ("-v", "/etc:/of")),
        (("two", "/from"), ("/etc", "/of"), _IMAGE),
    ),
    Combination(
        (("--volumes-from", "other"), ("-v", "/from")),
        (("vol", "/from"), ("/usr", "/of"), _IMAGE),
    ),
    Combination(
        (("--volumes-from", "other"), ("--tmpfs", "/from")),
        (("/usr", "/of"), _IMAGE),
        ACCEPTED,
        "what the tmpfs hides is not mounted",
    ),
    Combination(
        (("--volumes-from", "other:ro"), ("--mount", "type=tmpfs,target=/of")),
        (("vol", "/from"), ("tmpfs", "/of"), _IMAGE),
    ),
]
"""Several at once. ``other`` has ``-v vol:/from -v /usr:/of``."""
