"""Which stages are built, and what their names mean."""

from __future__ import annotations

import pytest

from storagedrivers.dockerfile.parser import parse
from storagedrivers.dockerfile.stages import Plan, resolve
from storagedrivers.errors import DockerfileError
from storagedrivers.oci.platforms import Platform


def planned(plan: Plan) -> list[tuple[int, int | str, dict[str, int | str]]]:
    return [(one.stage.number, one.base, dict(one.sources)) for one in plan.stages]


FOUR = """\
FROM a AS one
FROM b AS Two
COPY --from=ONE x /
FROM one AS three
RUN --mount=type=bind,from=two,target=/x --mount=type=cache,target=/y,from=c:1 true
FROM scratch
COPY --from=0 x /
COPY --from=d:2 x /
"""


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, [(0, "a", {}), (3, "scratch", {"0": 0, "d:2": "d:2"})]),
        ("", [(0, "a", {}), (3, "scratch", {"0": 0, "d:2": "d:2"})]),
        ("one", [(0, "a", {})]),
        ("TWO", [(0, "a", {}), (1, "b", {"ONE": 0})]),
        ("three", [(0, "a", {}), (1, "b", {"ONE": 0}), (2, 0, {"two": 1, "c:1": "c:1"})]),
    ],
)
def test_targets(target: str | None, expected: list[object]) -> None:
    plan = resolve(parse(FOUR), target=target)
    assert planned(plan) == expected
    assert all(max(one.needs, default=-1) < one.stage.number for one in plan.stages)


@pytest.mark.parametrize(
    ("target", "resolution"),
    [
        ("tow", "did you mean two?"),
        ("x", "its stages are one, two, three"),
        ("0", "its stages are one, two, three"),
    ],
)
def test_targets_that_are_none(target: str, resolution: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        resolve(parse(FOUR), target=target)
    assert caught.value.brief == f"failed to reach build target {target} in Dockerfile"
    assert caught.value.resolution == resolution
    with pytest.raises(DockerfileError) as caught:
        resolve(parse("FROM x"), target=target)
    assert caught.value.resolution == "none of its stages has a name"


@pytest.mark.parametrize(
    ("text", "given", "base"),
    [
        ("ARG X=a\nFROM $X", {}, "a"),
        ("ARG X=a\nFROM ${X}:1", {"X": "b"}, "b:1"),
        ("ARG X\nFROM ${X:-c}", {}, "c"),
        ('FROM "a"', {}, "a"),
        ("FROM x-$TARGETARCH", {}, "x-arm64"),
        ("FROM 0", {}, "0"),
        ("FROM a AS a", {}, "a"),
        ("FROM a:1 AS a", {}, "a:1"),
        ("FROM b/a AS a", {}, "b/a"),
    ],
)
def test_images(text: str, given: dict[str, str], base: str) -> None:
    plan = resolve(parse(text), build_args=given, platform=Platform("linux", "arm64"))
    assert plan.stages[-1].base == base


def test_stages_by_variables() -> None:
    plan = resolve(parse("ARG X=one\nFROM a AS one\nFROM $X\n"))
    assert planned(plan) == [(0, "a", {}), (1, 0, {})]


def test_platforms() -> None:
    text = "FROM --platform=$BUILDPLATFORM a AS b\nFROM --platform=linux/arm/v7 b"
    first, second = resolve(parse(text)).stages
    assert first.platform.startswith("linux/")
    assert second.platform == "linux/arm/v7"


def test_another_name_for_an_image() -> None:
    plan = resolve(
        parse("FROM a\nCOPY --from=nginx x /\nFROM nginx:1 AS nginx\nFROM 0"), target=None
    )
    assert len(plan.stages) == 1
    plan = resolve(parse("FROM a AS z\nCOPY --from=nginx x /\nFROM nginx AS nginx\nFROM z"))
    assert planned(plan) == [(0, "a", {"nginx": "nginx"}), (2, 0, {})]
    plan = resolve(parse("FROM nginx AS nginx\nCOPY --from=nginx x /"))
    assert planned(plan) == [(0, "nginx", {"nginx": "nginx"})]


def test_triggers_read_stages_too() -> None:
    def triggers(image: str) -> list[str]:
        return ["COPY --from=one x /", "RUN --mount=from=two,target=/x a"] if image == "c" else []

    plan = resolve(parse("FROM a AS one\nFROM b AS two\nFROM c"), triggers=triggers)
    assert [one.stage.number for one in plan.stages] == [0, 1, 2]
    assert plan.stages[-1].sources == {"one": 0, "two": 1}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("FROM $X", 1, "base name ($X) should not be blank"),
        ("FROM ${X:?no}", 1, 'failed to process "${X:?no}": X: no'),
        ("FROM --platform=a/b/c/d x", 1, "failed to parse platform a/b/c/d: 'a/b/c/d' is no"),
        (
            "FROM x\nCOPY --from=0 a /",
            2,
            "invalid from flag value 0: refers to current build stage",
        ),
        ("FROM x\nCOPY --from=1 a /", 2, "invalid from flag value 1: index out of bounds"),
        ("FROM x\nCOPY --from=-1 a /", 2, "invalid from flag value -1: index out of bounds"),
        ("FROM x\nCOPY --from=" + "9" * 5000 + " a /", 2, "index out of bounds"),
        ("FROM x AS y\nCOPY --from=y a /", 2, "stage y cannot read itself"),
        ("FROM x AS y\nRUN --mount=from=y,target=/a b", 2, "stage y cannot read itself"),
        ("FROM a AS b\nCOPY --from=c x /\nFROM d AS c\nFROM b", 2, "stage c comes later"),
        ("FROM b AS a\nFROM a AS b", 1, "stages a and b need each other"),
        ("FROM b\nFROM c AS b\nFROM d AS c\nCOPY --from=0 a /", 1, "stage b comes later"),
        ("FROM c AS a\nFROM a AS b\nFROM b AS c", 1, "stages a and c need each other"),
        (
            "FROM x AS a\nCOPY --from=b y /\nFROM x AS b\nCOPY --from=a y /",
            2,
            "stages a and b need each other",
        ),
    ],
)
def test_what_cannot_be_built(text: str, line: int, said: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        resolve(parse(text, "docker/file"))
    assert caught.value.brief.startswith(f"docker/file line {line}: ")
    assert said in caught.value.brief
    assert caught.value.line == line
    assert caught.value.resolution
    assert str(caught.value.details).splitlines()[1].strip(" ^") == ""


def test_what_is_not_needed_need_not_be_right() -> None:
    assert planned(resolve(parse("FROM $X\nFROM a"))) == [(1, "a", {})]
