"""Names of images: Docker's grammar, and what it makes of short ones."""

from __future__ import annotations

import pytest

from storagedrivers.errors import InvalidReferenceError
from storagedrivers.oci.reference import Reference, parse

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("ubuntu:22.04", "docker.io/library/ubuntu:22.04", "ubuntu:22.04"),
        ("someone/thing", "docker.io/someone/thing:latest", "someone/thing:latest"),
        ("docker.io/ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("index.docker.io/library/ubuntu:a", "docker.io/library/ubuntu:a", "ubuntu:a"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
        ("host:5000/x", "host:5000/x:latest", "host:5000/x:latest"),
        ("Host/x", "Host/x:latest", "Host/x:latest"),
        ("[fd00::1]:5000/x", "[fd00::1]:5000/x:latest", "[fd00::1]:5000/x:latest"),
        ("a.b/c/d/e:1", "a.b/c/d/e:1", "a.b/c/d/e:1"),
        ("a__b--c/d.e", "docker.io/a__b--c/d.e:latest", "a__b--c/d.e:latest"),
        (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}", f"x@{DIGEST}"),
        (f"x:t@{DIGEST}", f"docker.io/library/x:t@{DIGEST}", f"x:t@{DIGEST}"),
        ("x:" + "T" * 128, "docker.io/library/x:" + "T" * 128, "x:" + "T" * 128),
        ("docker.io/library/localhost/x", "docker.io/library/localhost/x:latest",
         "library/localhost/x:latest"),
    ],
)  # fmt: skip
def test_what_a_name_stands_for(text: str, canonical: str, familiar: str) -> None:
    found = parse(text)
    assert (str(found), found.familiar) == (canonical, familiar)
    assert parse(canonical) == parse(familiar) == found


def test_the_parts_of_a_name() -> None:
    assert parse("x:5/a/b:t") == Reference("x:5", "a/b", "t", None)
    assert parse(f"b@{DIGEST}") == Reference("docker.io", "library/b", None, DIGEST)
    assert parse("b").repository == "docker.io/library/b"
    assert parse("b:1").familiar_repository == "b"


@pytest.mark.parametrize(
    ("text", "resolution"),
    [
        ("", "a name is"),
        (":x", "a name is"),
        ("a:b:c", "a name is"),
        ("a//b", "a name is"),
        ("a/", "a name is"),
        ("/a", "a name is"),
        ("-a", "a name is"),
        ("a..b", "a name is"),
        ("a___b", "a name is"),
        ("a\n", "a name is"),
        ("ä", "a name is"),
        ("../../etc/passwd", "a name is"),
        ("a_b.c:5/x/y", "a name is"),
        ("a__b.c/x", "a name is"),
        ("user/Thing", "'user/thing'"),
        ("Thing:1", "'thing:1'"),
        ("a:", "a tag has"),
        ("a:.x", "a tag has"),
        ("a:-x", "a tag has"),
        ("a:" + "t" * 129, "a tag has"),
        ("a" * 256, "shorter"),
        ("0a" * 32, "another name"),
        ("a@", "a digest is"),
        ("a@sha256:12", "a digest is"),
        ("a@" + DIGEST.upper(), "a digest is"),
        ("a@md5:" + "0" * 32, "a digest is"),
    ],
)
def test_what_is_no_name_says_what_would_be_one(text: str, resolution: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse(text)
    assert "is no name of an image" in str(caught.value)
    assert resolution in (caught.value.resolution or "")


def test_a_long_text_is_cut_in_the_sentence() -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse("?" * 10_000)
    assert len(str(caught.value)) < 500
