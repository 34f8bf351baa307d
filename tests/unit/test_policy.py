"""Policies: the package's own, which rule is for whom, and how a malformed file is told."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storagedrivers.errors import ConfigError, PolicyNotFoundError
from storagedrivers.host import OsRelease
from storagedrivers.policy import (
    DEFAULT,
    Policy,
    Rule,
    find_policy,
    load_policies,
    parse_policies,
)

POLICIES = load_policies()


def test_package_has_the_orders_of_every_docker() -> None:
    """Beside the default there is an order for each generation of Docker."""
    assert list(POLICIES) == [
        DEFAULT,
        "docker-1.12",
        "docker-17.05",
        "docker-19.03",
        "docker-20.10",
        "docker-23",
        "docker-29",
    ]
    assert all(one.name == name and one.description for name, one in POLICIES.items())


@pytest.mark.parametrize(
    ("name", "order"),
    [
        *((name, one.order) for name, one in POLICIES.items()),
        *((rule.name, rule.order) for one in POLICIES.values() for rule in one.rules),
    ],
)
def test_order_of_the_package_leaves_nobody_out(name: str, order: tuple[str, ...]) -> None:
    """Every order of the package ends with copying, names it once, and has a place for plugins."""
    assert order[-1] == "vfs-copy"
    assert order.index("*") == len(order) - 2
    assert len(set(order)) == len(order)


@pytest.mark.parametrize("rule", POLICIES[DEFAULT].rules, ids=lambda rule: rule.name)
def test_rule_of_the_package_says_why(rule: Rule) -> None:
    """Every rule of the default policy has a name and a sentence."""
    assert rule.name
    assert rule.because


@pytest.mark.parametrize(
    ("release", "first"),
    [
        (OsRelease(id="ubuntu", version="14.04"), "aufs"),
        (OsRelease(id="ubuntu", version="24.04"), "aufs"),
        (OsRelease(id="linuxmint", id_like=("ubuntu", "debian"), version="21"), "aufs"),
        (OsRelease(id="pop", id_like=("debian", "ubuntu"), version="8"), "aufs"),
        (OsRelease(id="debian", version="7"), "aufs"),
        (OsRelease(id="debian", version="8.11"), "aufs"),
        (OsRelease(id="debian", version="9"), "overlay2"),
        (OsRelease(id="debian", version="12"), "overlay2"),
        (OsRelease(id="debian", version=""), "overlay2"),
        (OsRelease(id="raspbian", id_like=("debian",), version="8"), "overlay2"),
        (OsRelease(id="sles", version="12.5"), "btrfs-snapshot"),
        (OsRelease(id="sles", version="15.4"), "overlay2"),
        (
            OsRelease(id="opensuse-leap", id_like=("suse", "opensuse"), version="15"),
            "btrfs-snapshot",
        ),
        (OsRelease(id="opensuse-tumbleweed", version="20240101"), "btrfs-snapshot"),
        (OsRelease(id="ol", version="7.9"), "btrfs-snapshot"),
        (OsRelease(id="ol", version="8.9"), "overlay2"),
        (OsRelease(id="rhel", version="7.9"), "overlay2"),
        (OsRelease(id="fedora", version="40"), "overlay2"),
        (OsRelease(id="arch"), "overlay2"),
        (OsRelease(), "overlay2"),
    ],
    ids=lambda value: f"{value.id}-{value.version}" if isinstance(value, OsRelease) else value,
)
def test_default_policy_knows_the_distributions(release: OsRelease, first: str) -> None:
    """The default policy tries first what each distribution's kernels are built for."""
    assert POLICIES[DEFAULT].order_for(release)[0] == first


@given(
    major=st.integers(0, 40),
    minor=st.sampled_from(["", ".04", ".1.2", "."]),
    majors=st.lists(st.integers(0, 40), max_size=4),
    up_to=st.none() | st.integers(0, 40),
    ids=st.lists(st.sampled_from(["debian", "ubuntu", "sles"]), min_size=1),
    own=st.sampled_from(["debian", "ubuntu", "sles", "other"]),
)
def test_rule_with_versions_is_for_those_of_its_own_distribution(
    major: int, minor: str, majors: list[int], up_to: int | None, ids: list[str], own: str
) -> None:
    """A rule matches its ids in the versions it names, and all versions where it names none."""
    rule = Rule(name="r", ids=tuple(ids), order=("x",), majors=tuple(majors), up_to=up_to)
    limited = bool(majors) or up_to is not None
    fits = major in majors or (up_to is not None and major <= up_to) or not limited
    assert rule.matches(OsRelease(id=own, version=f"{major}{minor}"), own) is (own in ids and fits)
    assert rule.matches(OsRelease(id="derived", version=f"{major}{minor}"), own) is (
        own in ids and not limited
    )
    assert rule.matches(OsRelease(id=own, version="rolling"), own) is (own in ids and not limited)


_ids = st.sampled_from("abcdef")
_rules = st.lists(
    st.builds(
        Rule,
        name=st.text(min_size=1),
        ids=st.lists(_ids, min_size=1).map(tuple),
        order=st.just(("x",)),
        majors=st.just(()),
        up_to=st.none(),
        because=st.just(""),
    )
)


@given(rules=_rules, own=_ids, like=st.lists(_ids).map(tuple))
def test_own_id_beats_those_it_is_like(rules: list[Rule], own: str, like: tuple[str, ...]) -> None:
    """The rule is the first for the own id, else for the nearest relative, else there is none."""
    policy = Policy(name="p", description="", order=("general",), rules=tuple(rules))
    release = OsRelease(id=own, id_like=like)
    wanted = [rule for one in (own, *like) for rule in rules if one in rule.ids]
    assert policy.rule_for(release) is (wanted[0] if wanted else None)
    assert policy.order_for(release) == (wanted[0].order if wanted else ("general",))


def test_file_adds_and_replaces(tmp_path: Path) -> None:
    """A policy of a file stands beside the package's, or in the place of one with its name."""
    file = tmp_path / "more.toml"
    file.write_text('[mine]\norder = ["aufs"]\n[os]\norder = ["vfs-copy", "*"]\n')
    policies = load_policies(file)
    assert policies["mine"] == Policy(name="mine", description="", order=("aufs",))
    assert policies["os"].order == ("vfs-copy", "*")
    assert policies["os"].rules == ()
    assert policies["docker-23"] == POLICIES["docker-23"]


_BAD = {
    "no TOML": ('[p]\norder = ["a"\n', 3, None),
    "no TOML in the middle": ('[p]\norder = ["a"]\n\n[q\norder = ["a"]\n', 4, None),
    "a value at the top": ("# p\np = 5\n", 2, "p"),
    "order missing": ('[p]\ndescription = "x"\n', 1, "p.order"),
    "order missing before another table": (
        '[p]\ndescription = "x"\n\n[q]\norder = ["a"]\n',
        1,
        "p.order",
    ),
    "order empty": ("[p]\norder = []\n", 2, "p.order"),
    "order no list": ('[p]\ndescription = "x"\norder = "a"\n', 3, "p.order"),
    "order of numbers": ("[p]\norder = [1]\n", 2, "p.order"),
    "order over lines": ('[p]\n\norder = [\n  "a",\n  "b",\n  5,\n]\n', 3, "p.order"),
    "order twice the same": ('[p]\norder = ["a", "*", "a"]\n', 2, "p.order"),
    "order in the second table": (
        '[p]\norder = ["a"]\n\n[q]\ndescription = "x"\norder = [1]\n',
        6,
        "q.order",
    ),
    "order with a comment before": ('[p]\n# order = ["a"]\norder = 5\n', 3, "p.order"),
    "description a number": ('[p]\norder = ["a"]\ndescription = 5\n', 3, "p.description"),
    "unknown key": ('[p]\norder = ["a"]\nodrer = ["b"]\n', 3, "p.odrer"),
    "unknown quoted key": ('[p]\norder = ["a"]\n"od rer" = ["b"]\n', 3, "p.od rer"),
    "quoted table": ('["docker-9.9"]\norder = 5\n', 2, "docker-9.9.order"),
    "quoted table with single quotes": ("['docker-9.9']\norder = 5\n", 2, "docker-9.9.order"),
    "dotted key": ('p.description = "x"\np.order = 5\n', 2, "p.order"),
    "indented": ('[p]\n  order = ["a"]\n  majors = [1]\n', 3, "p.majors"),
    "header with a comment": ('[q]\norder = ["a"]\n[p] # mine\norder = 5\n', 4, "p.order"),
    "rules no list": ('[p]\norder = ["a"]\nrules = 5\n', 3, "p.rules"),
    "rules of numbers": ('[p]\norder = ["a"]\nrules = [1]\n', 3, "p.rules"),
    "rule without ids": ('[p]\norder = ["a"]\n[[p.rules]]\norder = ["b"]\n', 3, "p.rules.ids"),
    "rule with empty ids": (
        '[p]\norder = ["a"]\n[[p.rules]]\nids = []\norder = ["b"]\n',
        4,
        "p.rules.ids",
    ),
    "rule without order": ('[p]\norder = ["a"]\n[[p.rules]]\nids = ["x"]\n', 3, "p.rules.order"),
    "majors of texts": (
        '[p]\norder = ["a"]\n[[p.rules]]\nids = ["x"]\norder = ["b"]\nmajors = ["12"]\n',
        6,
        "p.rules.majors",
    ),
    "majors of booleans": (
        '[p]\norder = ["a"]\n[[p.rules]]\nids = ["x"]\norder = ["b"]\nmajors = [true]\n',
        6,
        "p.rules.majors",
    ),
    "up_to a boolean": (
        '[p]\norder = ["a"]\n[[p.rules]]\nids = ["x"]\norder = ["b"]\nup_to = true\n',
        6,
        "p.rules.up_to",
    ),
    "second rule": (
        '[p]\norder = ["a"]\n[[p.rules]]\nids = ["x"]\norder = ["b"]\n'
        '[[p.rules]]\nids = ["y"]\norder = ["b", "b"]\n',
        8,
        "p.rules.order",
    ),
    "second rule without order": (
        '[p]\norder = ["a"]\n[[p.rules]]\nids = ["x"]\norder = ["b"]\n[[p.rules]]\nids = ["y"]\n',
        6,
        "p.rules.order",
    ),
    "rule of the second policy": (
        '[p]\norder = ["a"]\n[[p.rules]]\nids = ["x"]\norder = ["b"]\n'
        '[q]\norder = ["a"]\n[[q.rules]]\nids = ["x"]\norder = 5\n',
        10,
        "q.rules.order",
    ),
}


@pytest.mark.parametrize(("text", "line", "key"), _BAD.values(), ids=_BAD)
def test_malformed_policy_is_told_by_file_line_and_key(
    text: str, line: int, key: str | None
) -> None:
    """The error of a malformed policy has the file, the exact line and the key."""
    with pytest.raises(ConfigError) as caught:
        parse_policies(text, file="mine.toml")
    found = caught.value
    assert (found.file, found.line, found.key) == ("mine.toml", line, key)


def _parsed(text: str) -> dict[str, Policy] | ConfigError:
    try:
        return parse_policies(text, file="mine.toml")
    except ConfigError as error:
        return error


@given(st.text())
def test_any_text_is_policies_or_a_config_error(text: str) -> None:
    """No text makes the parser fail in another way."""
    found = _parsed(text)
    if isinstance(found, ConfigError):
        assert found.file == "mine.toml"
    else:
        assert all(one.order for one in found.values())


_values = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text("ab*", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["order", "ids", "rules", "name", "majors", "up_to", "x", "a.b"]),
            inner,
            max_size=3,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["p", "q", "docker-9.9"]), _values, max_size=2))
def test_any_toml_is_policies_or_an_error_with_a_line_of_the_file(document: object) -> None:
    """Whatever is wrong in a valid TOML file, the line that is told exists."""
    text = _toml(document)
    found = _parsed(text)
    if isinstance(found, ConfigError):
        assert found.line is not None
        assert 1 <= found.line <= len(text.splitlines())
        assert found.key


def _toml(document: object) -> str:
    assert isinstance(document, dict)
    return "".join(f'"{key}" = {_inline(value)}\n' for key, value in document.items())


def _inline(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{chr(34)}{k}{chr(34)} = {_inline(v)}' for k, v in value.items())}}}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A policy file that is not there, or is no text, is an error that names it."""
    for file in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            load_policies(file)
        assert caught.value.file == str(file)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policies(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("docker-20.01", "docker-20.10"), ("dokcer-23", "docker-23"), ("Docker-29", "docker-29")],
)
def test_unknown_policy_names_those_there_are_and_the_nearest(name: str, nearest: str) -> None:
    """A typing mistake is answered with the name that was meant, and all others."""
    with pytest.raises(PolicyNotFoundError) as caught:
        find_policy(POLICIES, name)
    assert all(one in str(caught.value) for one in (name, *POLICIES))
    assert nearest in (caught.value.resolution or "")


def test_unknown_policy_like_no_other_has_no_suggestion() -> None:
    """Nothing is suggested where nothing is near."""
    with pytest.raises(PolicyNotFoundError) as caught:
        find_policy(POLICIES, "zzzzzzzz")
    assert caught.value.resolution is None


def test_policies_ship_with_the_package() -> None:
    """The file that the package reads is the one that a user can look at."""
    text = resources.files("storagedrivers").joinpath("policies.toml").read_text("utf-8")
    assert parse_policies(text, file="policies.toml") == POLICIES
