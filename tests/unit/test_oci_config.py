"""Configs of images; platforms; manifests; JSON that means harm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from image_archives import HERE, OCI, as_json, descriptor, digest, image, index

from storagedrivers.errors import (
    DigestMismatchError,
    MalformedImageError,
    StoreError,
    UnsupportedImageError,
)
from storagedrivers.oci.config import (
    History,
    make_config,
    parse_config,
    parse_time,
    write_time,
)
from storagedrivers.oci.documents import Fields, check_document, write_document
from storagedrivers.oci.manifest import parse_index, parse_manifest
from storagedrivers.oci.platforms import Platform, choose, parse_platform

DIFF_ID = digest(b"a layer")


# Configs


def test_what_a_config_says() -> None:
    made = image(b"one", b"two", author="me", config={"Env": ["A=b"], "Cmd": "run"}, variant="v8")
    config = parse_config(made.config)
    assert (config.digest, config.raw) == (made.id, made.config)
    assert (config.os, config.architecture, config.variant) == ("linux", HERE.architecture, "v8")
    assert list(config.diff_ids) == made.diff_ids
    assert config.history[1] == History(created_by="step 1")
    assert config.config == {"Env": ["A=b"], "Cmd": ["run"]}
    assert (config.author, config.created) == ("me", "2024-02-03T04:05:06.7Z")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rootfs": {"type": "layers", "diff_ids": []}}, "speaks of 1 layers, and it has 0"),
        ({"rootfs": {"type": "layers", "diff_ids": ["x"]}}, "no digest"),
        ({"rootfs": {"type": "layers", "diff_ids": [1]}}, "list of texts"),
        ({"rootfs": {"type": "other", "diff_ids": []}}, "not 'layers'"),
        ({"rootfs": []}, "no object"),
        ({"history": {}}, "no list"),
        ({"history": [1]}, "no object"),
        ({"history": [{"empty_layer": "yes"}]}, "neither true nor false"),
        ({"config": {"Env": "A=b"}}, "no list"),
        ({"config": {"User": 0}}, "no text"),
        ({"config": {"Labels": []}}, "no object"),
        ({"config": {"Healthcheck": ["CMD", "x"]}}, "no object"),
        ({"created": "yesterday"}, "no time"),
        ({"architecture": ["amd64"]}, "no text"),
    ],
)
def test_a_config_that_is_none(change: dict[str, Any], words: str) -> None:
    with pytest.raises(MalformedImageError, match=words) as caught:
        parse_config(image(b"layer", **change).config, "FILE in ARCHIVE")
    assert str(caught.value).startswith("FILE in ARCHIVE")


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b"1" * 10_000, b'{"os": 1}']
)
def test_bytes_that_are_no_config(raw: bytes) -> None:
    with pytest.raises(MalformedImageError):
        parse_config(raw)


def test_another_digest_algorithm_is_not_called_malformed() -> None:
    made = image(b"x", rootfs={"type": "layers", "diff_ids": ["sha512:" + "0" * 128]})
    with pytest.raises(UnsupportedImageError, match="only sha256"):
        parse_config(made.config)


def test_the_same_arguments_give_the_same_bytes_as_docker_writes_them() -> None:
    arguments: dict[str, Any] = {
        "base": None,
        "diff_ids": [DIFF_ID],
        "history": [History(created=write_time(0), created_by="a && b <c>")],
        "config": {"Env": ["Ä=1"], "Cmd": None},
        "created": write_time(1_500_000_000),
        "architecture": "amd64",
    }
    made = make_config(**arguments)
    assert made == make_config(**arguments)
    assert made.decode() == (
        '{"architecture":"amd64","config":{"Cmd":null,"Env":["Ä=1"]},'
        '"created":"1970-01-01T00:00:01.5Z","history":[{"created":"1970-01-01T00:00:00Z",'
        '"created_by":"a \\u0026\\u0026 b \\u003cc\\u003e"}],"os":"linux",'
        f'"rootfs":{{"diff_ids":["{DIFF_ID}"],"type":"layers"}}}}'
    )
    again = parse_config(made)
    assert again.history[0].created_by == "a && b <c>"


def test_a_config_takes_over_the_platform_of_its_base() -> None:
    base = parse_config(image(architecture="arm", variant="v6", history=[]).config)
    made = make_config(base=base, diff_ids=[], history=[], config={}, created=write_time(0))
    assert json.loads(made)["architecture"] == "arm"
    assert json.loads(made)["variant"] == "v6"


def test_half_a_character_becomes_a_whole_one() -> None:
    assert write_document({"a": "\ud800"}) == '{"a":"\ufffd"}'.encode()
    assert write_document({"a": "\U0001f600"}) == '{"a":"\U0001f600"}'.encode()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("2024-02-03T04:05:06.123456789+02:00", 1706925906.123456),
        ("0001-01-01T00:00:00Z", -62135596800.0),
        ("2024-02-03T04:05:06", None),
        ("", None),
        ("now", None),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds


# Platforms


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64/v2", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/x86_64", ["linux/amd64"], 0),
        ("linux/amd64", ["windows/amd64"], None),
        ("linux/amd64", [], None),
    ],
)
def test_the_best_platform(wanted: str, offered: list[str], chosen: int | None) -> None:
    assert choose(parse_platform(wanted), [Platform(*one.split("/")) for one in offered]) == chosen


def test_what_says_nothing_of_itself_fits_where_nothing_else_does() -> None:
    wanted = Platform("linux", "amd64")
    assert choose(wanted, [None, wanted]) == 1
    assert choose(wanted, [Platform("linux", "arm64"), None]) == 1
    assert choose(wanted, [Platform("", "")]) == 0


@pytest.mark.parametrize("text", ["", "linux", "linux/", "a/b/c/d", "linux/ä", "bla"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(StoreError, match="no platform"):
        parse_platform(text)


# Manifests


def test_a_manifest_and_an_index_are_told_apart() -> None:
    made = image(b"x")
    manifest = parse_manifest(made.manifest, "m")
    assert manifest.digest == digest(made.manifest)
    assert [one.digest for one in manifest.layers] == made.diff_ids
    assert parse_index(made.manifest, "m") is None
    listed = parse_index(index(descriptor(f"{OCI}.manifest.v1+json", made.manifest)), "i")
    assert listed is not None
    assert listed[0].digest == manifest.digest
    assert listed[0].platform is None


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, UnsupportedImageError, "schema 1"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"},
         UnsupportedImageError, "schema 1"),
        ({"schemaVersion": 2}, MalformedImageError, "config is missing"),
        ({"config": descriptor("application/vnd.some.thing", b"")}, UnsupportedImageError,
         "no image's"),
        ({"config": {"digest": "x", "size": 1}}, MalformedImageError, "no digest"),
        ({"config": {"digest": "sha256:../../x", "size": 1}}, MalformedImageError, "no digest"),
        ({"config": {"digest": DIFF_ID, "size": -1}}, MalformedImageError, "is -1"),
        ({"config": {"digest": DIFF_ID, "size": True}}, MalformedImageError, "is True"),
        ({"config": {"digest": DIFF_ID}}, MalformedImageError, "size is missing"),
    ],
)  # fmt: skip
def test_what_is_no_manifest(value: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_manifest(as_json(value), "FILE")


def test_an_index_has_an_end() -> None:
    entries = [descriptor(f"{OCI}.manifest.v1+json", b"")] * 10_001
    with pytest.raises(MalformedImageError, match="10001 things"):
        parse_index(index(*entries), "FILE")


def test_a_document_has_the_digest_that_was_announced() -> None:
    assert check_document(b"x", "f", digest(b"x")) == b"x"
    with pytest.raises(DigestMismatchError, match="f is") as caught:
        check_document(b"x", "f", digest(b"y"))
    assert (caught.value.expected, caught.value.found) == (digest(b"y"), digest(b"x"))


def test_null_counts_as_missing() -> None:
    fields = Fields({"a": None}, "f")
    assert (fields.text("a", "b"), fields.texts("a"), fields.objects("a")) == ("b", [], [])
    assert not fields.flag("a")
