"""Policies: in which order drivers are tried. Values, and the reader of ``policies.toml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from storagedrivers.errors import ConfigError, PolicyNotFoundError, did_you_mean
from storagedrivers.host import OsRelease
from storagedrivers.toml import TomlTable

DEFAULT = "os"


class Rule(NamedTuple):
    """An order for some distributions.

    Attributes:
        name: for people.
        ids: os-release ids that it is for; distributions that are like one of them follow.
        majors: the major versions it is for, or empty for all. Versions are compared only where the
            id is the distribution's own: a derivative counts its versions differently.
        up_to: the last major version that it is for, or None.
        order: names of drivers, ``*`` for the others.
        because: a sentence.
    """

    name: str
    ids: tuple[str, ...]
    order: tuple[str, ...]
    majors: tuple[int, ...] = ()
    up_to: int | None = None
    because: str = ""

    def matches(self, release: OsRelease, distribution: str) -> bool:
        """Whether the rule is for *distribution*, the id of *release* or one that it is like."""
        if distribution not in self.ids:
            return False
        if not self.majors and self.up_to is None:
            return True
        major = release.version.partition(".")[0]
        if distribution != release.id or not major.isdigit():
            return False
        return int(major) in self.majors or (self.up_to is not None and int(major) <= self.up_to)


class Policy(NamedTuple):
    """An order, with others for certain distributions."""

    name: str
    description: str
    order: tuple[str, ...]
    rules: tuple[Rule, ...] = ()

    def rule_for(self, release: OsRelease) -> Rule | None:
        """The rule for a distribution; its own id counts before those that it is like."""
        for distribution in (release.id, *release.id_like):
            for rule in self.rules:
                if rule.matches(release, distribution):
                    return rule
        return None

    def order_for(self, release: OsRelease) -> tuple[str, ...]:
        """The order for a distribution."""
        rule = self.rule_for(release)
        return rule.order if rule else self.order


def load_policies(file: str | Path | None = None) -> dict[str, Policy]:
    """The policies of the package, and those of *file*, which may replace them.

    Raises:
        ConfigError: the file is malformed or cannot be read.
    """
    builtin = Path(__file__).with_name("policies.toml").read_text("utf-8")
    policies = parse_policies(builtin, file="policies.toml")
    if file is not None:
        try:
            text = Path(file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot be read: {error}", file=str(file)) from error
        policies.update(parse_policies(text, file=str(file)))
    return policies


def find_policy(policies: Mapping[str, Policy], name: str) -> Policy:
    """The policy with this name.

    Raises:
        PolicyNotFoundError: there is none; says which there are, and the nearest.
    """
    if name in policies:
        return policies[name]
    raise PolicyNotFoundError(
        f"no policy is named {name!r}; there are {', '.join(policies)}",
        resolution=did_you_mean(name, policies),
    )


def parse_policies(text: str, *, file: str) -> dict[str, Policy]:
    """Parse policies, a table each.

    Raises:
        ConfigError: with file, line and key.
    """
    document = TomlTable.parse(text, file=file)
    return {name: _policy(name, document.table(name)) for name in document.values}


def _policy(name: str, table: TomlTable) -> Policy:
    table.only(("description", "order", "rules"))
    return Policy(
        name=name,
        description=table.get("description", str) or "",
        order=_order(table),
        rules=tuple(map(_rule, table.tables("rules"))),
    )


def _rule(table: TomlTable) -> Rule:
    table.only(("name", "ids", "order", "majors", "up_to", "because"))
    ids = table.items("ids", str)
    if not ids:
        raise table.error("ids", "a rule needs at least one os-release id")
    return Rule(
        name=table.get("name", str) or ids[0],
        ids=ids,
        order=_order(table),
        majors=table.items("majors", int) or (),
        up_to=table.get("up_to", int),
        because=table.get("because", str) or "",
    )


def _order(table: TomlTable) -> tuple[str, ...]:
    order = table.items("order", str)
    if not order:
        raise table.error("order", "needs at least one name of a driver")
    if len(set(order)) != len(order):
        raise table.error("order", "names a driver twice")
    return order
