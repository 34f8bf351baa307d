"""``RUN --mount``: what is taken, and what is said of what is not."""

from __future__ import annotations

import pytest

from storagedrivers.build.run_mounts import RunMount, parse
from storagedrivers.errors import DockerfileError


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/x", RunMount("/x")),
        ("type=bind,source=a/b,from=build,dst=/x", RunMount("/x", "bind", "a/b", "build")),
        ("type=bind,src=a,destination=x,rw", RunMount("x", source="a", read_only=False)),
        ("TARGET=/x,readonly=false", RunMount("/x", read_only=False)),
        ("target=/x,rw=0", RunMount("/x")),
        ("target=/x,rw,ro", RunMount("/x")),
        ("target=/a,target=/x", RunMount("/x")),
        ('target=/x,"source=a,b"', RunMount("/x", source="a,b")),
        ("type=cache,target=/x//y/", RunMount("/x//y/", "cache", read_only=False, id="/x/y")),
        ("type=cache,target=/x,ro,id=k", RunMount("/x", "cache", id="k")),
        (
            "type=cache,target=/x,id=k,sharing=LOCKED,mode=1777,uid=1,gid=2,from=f,source=/s",
            RunMount("/x", "cache", "/s", "f", False, "k", "locked", 0o1777, 1, 2),
        ),
        ("type=tmpfs,target=/x", RunMount("/x", "tmpfs", read_only=False)),
        ("type=tmpfs,target=/x,size=64m", RunMount("/x", "tmpfs", read_only=False, size=64 << 20)),
    ],
)
def test_taken(text: str, mount: RunMount) -> None:
    """Each key and its other names; what holds where nothing is said."""
    assert parse(text) == mount


@pytest.mark.parametrize(
    ("text", "brief", "resolution"),
    [
        ("", "invalid field '' must be a key=value pair", "write"),
        ("target", "invalid field 'target' must be a key=value pair", "target=VALUE"),
        ("type=bind", 'invalid mount target ""', "target=/path"),
        ("target=/", 'invalid mount target "/"', "target=/path"),
        ("type=bnd,target=/x", 'unsupported mount type "bnd"', "did you mean bind?"),
        ("type=secret,id=k", 'mounts of type "secret" are not supported', "stage"),
        ("type=ssh", 'mounts of type "ssh" are not supported', "stage"),
        ("targt=/x", "unexpected key 'targt' in 'targt=/x'", "did you mean target?"),
        ("target=/x,sharing=locked", "invalid cache sharing set for bind mount", "source"),
        ("type=cache,target=/x,sharing=lock", 'unsupported sharing value "lock"', "locked?"),
        ("target=/x,mode=700", 'mode not allowed for "bind" type mounts', "readwrite"),
        ("type=tmpfs,target=/x,uid=1", 'uid not allowed for "tmpfs" type mounts', "size"),
        ("target=/x,size=1m", "unexpected key 'size' for mount type 'bind'", "source"),
        ("target=/x,size=1m,type=cache", "unexpected key 'size' for mount type 'cache'", "mode"),
        ("type=tmpfs,target=/x,from=a", "unexpected key 'from' for mount type 'tmpfs'", "size"),
        ("type=tmpfs,target=/x,size=big", "invalid value for size: big", "500m"),
        ("target=/x,ro=maybe", "invalid value for ro: maybe", "ro=false"),
        ("type=cache,target=/x,mode=888", "invalid value 888 for mode", "0755"),
        ("type=cache,target=/x,mode=77777", "invalid value 77777 for mode", "0755"),
        ("type=cache,target=/x,gid=-1", "invalid value -1 for gid", "gid=0"),
        ("type=cache,target=/x,uid=4294967295", "invalid value 4294967295 for uid", "uid=0"),
        ('target=/x,source="a', "failed to parse csv mounts: ", "quotes"),
        ("target=/x\0", "a NUL is in '/x\\x00'", "leave it out"),
    ],
)
def test_refused(text: str, brief: str, resolution: str) -> None:
    """In BuildKit's words where it has some, with a way out."""
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    assert caught.value.brief.startswith(brief)
    assert resolution in (caught.value.resolution or "")


def test_variables() -> None:
    """They are replaced in every value, and in no key."""
    mount = parse("type=cache,target=$A,id=$A-1", lambda text: text.replace("$A", "/v"))
    assert (mount.target, mount.id) == ("/v", "/v-1")


@pytest.mark.parametrize(
    ("target", "workdir", "place"),
    [
        ("/x/../y/", "/w", "/y"),
        ("x", "/w", "/w/x"),
        ("x", "w", "/w/x"),
        ("../../../x", "/w", "/x"),
        ("//x", "/", "/x"),
    ],
)
def test_place(target: str, workdir: str, place: str) -> None:
    """It begins in the working directory, and never leaves the root."""
    assert RunMount(target).place(workdir) == place


def test_place_that_is_the_root() -> None:
    """Nothing can be mounted there."""
    with pytest.raises(DockerfileError, match=r'invalid mount target "\.\."'):
        RunMount("..").place("/w")
