"""The choice among probed candidates: pure cases, properties, and every recorded host."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import pytest
from hosts.recorded import host_names, load_host
from hypothesis import assume, given
from hypothesis import strategies as st

from storagedrivers.driver import HostFacts, ProbeResult
from storagedrivers.drivers.vfs_copy import VfsCopy
from storagedrivers.errors import (
    DriverLoadError,
    DriverUnsupportedError,
    NoUsableDriverError,
    PriorDriverError,
)
from storagedrivers.host import GraphRoot, OsRelease
from storagedrivers.model import Capability, Reason
from storagedrivers.policy import Policy, Rule, load_policies
from storagedrivers.registry import Registered, Registry
from storagedrivers.selector import (
    Candidate,
    Fallback,
    Quality,
    copied_bytes,
    prior_drivers,
    probe_all,
    select,
)

HOST = HostFacts(graph_root=GraphRoot(path="/store", probed="/", filesystem="ext4"))
SHARES = frozenset({Capability.CHEAP_FORK})


def works(driver: str, *, shares: bool = True) -> Candidate:
    return Candidate(
        driver, ProbeResult.yes("it works", capabilities=SHARES if shares else frozenset())
    )


def fails(driver: str, remedy: str = "repair it") -> Candidate:
    return Candidate(
        driver, ProbeResult.no(Reason.WRONG_BACKING_FS, f"{driver} is broken", remedy=remedy)
    )


COPIES = works("vfs-copy", shares=False)


def policy(*order: str, rules: Sequence[Rule] = ()) -> Policy:
    return Policy(name="mine", description="", order=order, rules=tuple(rules))


DEFAULT = policy("overlay2", "btrfs-snapshot", "aufs", "*", "vfs-copy")


# Requested


def test_requested_driver_is_taken_though_others_come_first() -> None:
    """What was asked for is chosen, wherever it stands in the order."""
    found = select([works("overlay2"), works("aufs")], policy=DEFAULT, host=HOST, requested="aufs")
    assert (found.chosen, found.refusal, found.warnings) == ("aufs", None, ())
    assert found.require() == "aufs"


def test_requested_driver_that_fails_is_refused_and_never_replaced() -> None:
    """A driver that was asked for and does not work leaves nothing chosen, with its remedy."""
    found = select(
        [works("overlay2"), fails("aufs", "modprobe aufs")],
        policy=DEFAULT,
        host=HOST,
        requested="aufs",
        prior=["overlay2"],
        fallback=Fallback.ALLOW,
    )
    assert found.chosen is None
    assert (found.quality, found.quality.exit_code) == (Quality.NONE, 4)
    assert isinstance(found.refusal, DriverUnsupportedError)
    assert "aufs is broken" in found.refusal.brief
    assert found.refusal.resolution == "modprobe aufs"
    with pytest.raises(DriverUnsupportedError):
        found.require()


def test_requested_driver_without_remedy_still_says_what_to_do() -> None:
    """A refusal always has a resolution."""
    found = select([fails("aufs", "")], policy=DEFAULT, host=HOST, requested="aufs")
    assert found.refusal is not None
    assert found.refusal.resolution


def test_requested_driver_that_is_not_installed_is_refused() -> None:
    """A name without a candidate is refused, not passed over."""
    found = select([works("overlay2")], policy=DEFAULT, host=HOST, requested="zfs")
    assert found.chosen is None
    assert isinstance(found.refusal, DriverUnsupportedError)
    assert "not installed" in found.refusal.brief


def test_requested_driver_beside_other_layers_warns() -> None:
    """Layers of other drivers that stay behind are named."""
    found = select(
        [works("overlay2"), works("aufs")],
        policy=DEFAULT,
        host=HOST,
        requested="overlay2",
        prior=["aufs", "overlay2"],
    )
    assert found.chosen == "overlay2"
    assert len(found.warnings) == 1
    assert "aufs" in found.warnings[0]
    assert "overlay2" not in found.warnings[0]


def test_requested_copying_is_not_refused_by_the_fallback() -> None:
    """Asking for copies is no fallback."""
    found = select(
        [works("overlay2"), COPIES],
        policy=DEFAULT,
        host=HOST,
        requested="vfs-copy",
        fallback=Fallback.REFUSE,
    )
    assert (found.chosen, found.quality) == ("vfs-copy", Quality.COPYING)


# Prior state


def test_prior_driver_beats_the_order() -> None:
    """A graph root that holds layers of one driver goes on with it."""
    found = select([works("overlay2"), works("aufs")], policy=DEFAULT, host=HOST, prior=["aufs"])
    assert (found.chosen, found.prior, found.warnings) == ("aufs", ("aufs",), ())


def test_prior_copies_count_like_any_other() -> None:
    """A store of copies stays one where something better works, whatever the fallback."""
    for fallback in Fallback:
        found = select(
            [works("overlay2"), COPIES],
            policy=DEFAULT,
            host=HOST,
            prior=["vfs-copy"],
            fallback=fallback,
        )
        assert (found.chosen, found.quality) == ("vfs-copy", Quality.COPYING)


def test_prior_driver_that_works_no_more_is_an_error() -> None:
    """A store is never switched silently: the driver, its reason and a way out are told."""
    found = select(
        [works("overlay2"), fails("aufs", "modprobe aufs")],
        policy=DEFAULT,
        host=HOST,
        prior=["aufs"],
    )
    assert found.chosen is None
    assert isinstance(found.refusal, PriorDriverError)
    assert all(word in found.refusal.brief for word in ("/store", "aufs", "aufs is broken"))
    assert "modprobe aufs" in (found.refusal.resolution or "")
    assert "--root" in (found.refusal.resolution or "")
    assert found.quality.exit_code == 4


def test_prior_driver_that_is_not_installed_any_more_is_an_error() -> None:
    """Layers of a plugin that was uninstalled are not replaced by an empty store."""
    found = select([works("overlay2")], policy=DEFAULT, host=HOST, prior=["zfs"])
    assert found.chosen is None
    assert isinstance(found.refusal, PriorDriverError)
    assert "not installed" in found.refusal.brief


def test_several_prior_drivers_are_an_error_that_names_them() -> None:
    """Without a mark of the database nothing says which of two stores is meant."""
    found = select(
        [works("overlay2"), works("aufs")], policy=DEFAULT, host=HOST, prior=["aufs", "overlay2"]
    )
    assert found.chosen is None
    assert isinstance(found.refusal, PriorDriverError)
    assert "aufs, overlay2" in found.refusal.brief
    assert "--driver" in (found.refusal.resolution or "")


def test_current_of_several_prior_drivers_is_taken() -> None:
    """The one that the database marks is used, and the others are listed."""
    found = select(
        [works("overlay2"), works("aufs")],
        policy=DEFAULT,
        host=HOST,
        prior=["aufs", "overlay2"],
        current="aufs",
    )
    assert found.chosen == "aufs"
    assert "overlay2" in found.warnings[0]


def test_current_that_works_no_more_is_an_error() -> None:
    """The other prior driver does not stand in for the current one."""
    found = select(
        [works("overlay2"), fails("aufs")],
        policy=DEFAULT,
        host=HOST,
        prior=["aufs", "overlay2"],
        current="aufs",
    )
    assert found.chosen is None
    assert isinstance(found.refusal, PriorDriverError)


# The order and the fallback


def test_first_that_works_wins() -> None:
    """The policy's order decides, not the order of the candidates."""
    found = select(
        [COPIES, works("aufs"), works("btrfs-snapshot"), fails("overlay2")],
        policy=DEFAULT,
        host=HOST,
    )
    assert (found.chosen, found.quality, found.quality.exit_code) == (
        "btrfs-snapshot",
        Quality.BEST,
        0,
    )
    assert [one.driver for one in found.candidates] == [
        "overlay2",
        "btrfs-snapshot",
        "aufs",
        "vfs-copy",
    ]


def test_star_stands_for_the_others_by_name() -> None:
    """Plugins that an order does not name are tried where ``*`` stands, sorted."""
    found = select(
        [works("zfs"), fails("overlay2"), COPIES, fails("fuse-overlayfs")],
        policy=DEFAULT,
        host=HOST,
    )
    assert [one.driver for one in found.candidates] == [
        "overlay2",
        "fuse-overlayfs",
        "zfs",
        "vfs-copy",
    ]
    assert found.chosen == "zfs"


def test_order_without_star_tries_the_others_last() -> None:
    """Nobody who is installed is left out."""
    found = select([works("a"), works("zfs"), works("b")], policy=policy("zfs"), host=HOST)
    assert [one.driver for one in found.candidates] == ["zfs", "a", "b"]


def test_names_that_are_not_installed_are_passed_over() -> None:
    """An order may name drivers that this host does not have."""
    found = select([COPIES], policy=policy("zfs", "devicemapper", "*", "vfs-copy"), host=HOST)
    assert [one.driver for one in found.candidates] == ["vfs-copy"]
    assert found.chosen == "vfs-copy"


def test_rule_of_the_distribution_gives_the_order_and_is_told() -> None:
    """Where a rule matches, its order counts and its name stands in the reason."""
    rule = Rule(name="Mine", ids=("debian",), order=("aufs", "*"))
    host = HostFacts(os=OsRelease(id="debian"))
    found = select(
        [works("overlay2"), works("aufs")],
        policy=policy("overlay2", "*", rules=[rule]),
        host=host,
    )
    assert found.chosen == "aufs"
    assert "Mine" in found.why
    assert (found.policy, "mine" in found.why) == ("mine", True)


@pytest.mark.parametrize(
    ("fallback", "chosen", "code", "warned"),
    [
        (Fallback.WARN, "vfs-copy", 3, True),
        (Fallback.ALLOW, "vfs-copy", 3, False),
        (Fallback.REFUSE, None, 4, False),
    ],
)
def test_copying_is_never_silent_unless_allowed(
    fallback: Fallback, chosen: str | None, code: int, warned: bool
) -> None:
    """When only copying works it is warned of with its price, refused, or allowed."""
    found = select([fails("overlay2"), COPIES], policy=DEFAULT, host=HOST, fallback=fallback)
    assert (found.chosen, found.quality.exit_code) == (chosen, code)
    assert bool(found.warnings) is warned
    if warned:
        assert "5.5 GB" in found.warnings[0]
    if chosen is None:
        assert isinstance(found.refusal, NoUsableDriverError)
        assert found.refusal.rejected == {"overlay2": "overlay2 is broken"}
        assert found.refusal.resolution == "repair it"


def test_price_of_copying_with_reflinks_is_another() -> None:
    """Where contents are shared by reflink no bytes are predicted."""
    host = HostFacts(graph_root=GraphRoot(reflink=True))
    found = select([COPIES], policy=DEFAULT, host=host)
    assert "reflink" in found.warnings[0]
    assert "GB" not in found.warnings[0]


def test_policy_that_prefers_copying_does_not_say_that_nothing_else_works() -> None:
    """A policy that has copying before a driver that works is no fallback, and not told as one."""
    found = select(
        [works("overlay2"), COPIES],
        policy=policy("vfs-copy", "*"),
        host=HOST,
        fallback=Fallback.WARN,
    )
    assert found.chosen == "vfs-copy"
    assert not any("only copying works" in line for line in found.warnings)


def test_nothing_works() -> None:
    """When every driver is rejected, the refusal carries all of them and a remedy."""
    found = select([fails("overlay2"), fails("vfs-copy")], policy=DEFAULT, host=HOST)
    assert found.chosen is None
    assert isinstance(found.refusal, NoUsableDriverError)
    assert set(found.refusal.rejected) == {"overlay2", "vfs-copy"}
    assert found.refusal.resolution == "repair it"
    with pytest.raises(NoUsableDriverError):
        found.require()


def test_no_candidates_at_all() -> None:
    """An installation without drivers is answered, not a crash."""
    found = select([], policy=DEFAULT, host=HOST)
    assert (found.chosen, found.candidates) == (None, ())
    assert isinstance(found.refusal, NoUsableDriverError)


@pytest.mark.parametrize(
    ("quality", "code"), [(Quality.BEST, 0), (Quality.COPYING, 3), (Quality.NONE, 4)]
)
def test_exit_code_of_a_quality(quality: Quality, code: int) -> None:
    """Scripts tell the qualities apart by the exit code."""
    assert quality.exit_code == code


# Properties

_NAMES = ("aufs", "btrfs-snapshot", "fuse-overlayfs", "overlay2", "vfs-copy", "zfs")


@st.composite
def _candidates(draw: st.DrawFn) -> list[Candidate]:
    names = draw(st.lists(st.sampled_from(_NAMES), unique=True))
    return [
        draw(st.sampled_from([works(name), works(name, shares=False), fails(name)]))
        for name in names
    ]


_orders = st.lists(st.sampled_from((*_NAMES, "*", "devicemapper")), unique=True, min_size=1)


@given(
    candidates=_candidates(),
    order=_orders,
    requested=st.none() | st.sampled_from(_NAMES),
    prior=st.lists(st.sampled_from(_NAMES), unique=True, max_size=3),
    current=st.none() | st.sampled_from(_NAMES),
    fallback=st.sampled_from(Fallback),
)
def test_what_is_chosen_works_and_nobody_is_lost(
    candidates: list[Candidate],
    order: list[str],
    requested: str | None,
    prior: list[str],
    current: str | None,
    fallback: Fallback,
) -> None:
    """Whatever is asked, the choice is supported or refused, and each candidate listed once."""
    found = select(
        candidates,
        policy=policy(*order),
        host=HOST,
        requested=requested,
        prior=prior,
        current=current,
        fallback=fallback,
    )
    supported = {one.driver for one in candidates if one.probe.supported}
    assert sorted(one.driver for one in found.candidates) == sorted(
        one.driver for one in candidates
    )
    assert all(one in found.candidates for one in candidates)
    assert (found.chosen is None) is (found.refusal is not None)
    assert found.chosen is None or found.chosen in supported
    if requested is not None:
        assert found.chosen == (requested if requested in supported else None)
    elif prior:
        kept = current or (prior[0] if len(prior) == 1 else None)
        assert found.chosen == (kept if kept in supported else None)


@given(candidates=_candidates(), order=_orders)
def test_first_supported_in_the_order_is_chosen(
    candidates: list[Candidate], order: list[str]
) -> None:
    """With nothing asked for and nothing there, the first that works in the order is taken."""
    unnamed = sorted({one.driver for one in candidates} - set(order))
    place = order.index("*") if "*" in order else len(order)
    names = [*order[:place], *unnamed, *order[place + 1 :]]
    supported = {one.driver for one in candidates if one.probe.supported}
    expected = next((name for name in names if name in supported), None)
    found = select(candidates, policy=policy(*order), host=HOST, fallback=Fallback.ALLOW)
    assert found.chosen == expected
    installed = {one.driver for one in candidates}
    assert [one.driver for one in found.candidates] == [name for name in names if name in installed]


@given(candidates=_candidates(), order=_orders)
def test_order_of_the_candidates_does_not_matter(
    candidates: list[Candidate], order: list[str]
) -> None:
    """The same candidates in another order give the same selection."""
    one = select(candidates, policy=policy(*order), host=HOST)
    other = select(list(reversed(candidates)), policy=policy(*order), host=HOST)
    assert (one.chosen, one.candidates, one.warnings) == (
        other.chosen,
        other.candidates,
        other.warnings,
    )


@given(candidates=_candidates(), order=_orders)
def test_refusing_the_fallback_never_gives_copies(
    candidates: list[Candidate], order: list[str]
) -> None:
    """With ``refuse`` the choice shares layers, or there is none."""
    assume(candidates)
    found = select(candidates, policy=policy(*order), host=HOST, fallback=Fallback.REFUSE)
    assert found.quality is not Quality.COPYING


@given(st.lists(st.integers(0, 1 << 50), max_size=130))
def test_copies_take_the_sum_of_all_cumulative_sums(sizes: list[int]) -> None:
    """Each layer of an image by copying holds everything below it as well."""
    assert copied_bytes(sizes) == sum(accumulate(sizes))


# Prior state on disk


def _home(root: Path, driver: str, *names: str) -> None:
    for name in names or ("",):
        (root / driver / name).mkdir(parents=True, exist_ok=True)


def test_prior_drivers_have_layers_on_disk(tmp_path: Path) -> None:
    """A driver counts when its home holds a layer, not for its home or its own directories."""
    _home(tmp_path, "overlay2", "0a1b", "l", ".trash")
    _home(tmp_path, "aufs", ".trash", "l", ".storagedrivers-scratch-1-ab")
    _home(tmp_path, "btrfs-snapshot")
    _home(tmp_path, "other", "0a1b")
    (tmp_path / "vfs-copy").write_text("a file of this name")
    names = ("vfs-copy", "overlay2", "zfs", "btrfs-snapshot", "aufs")
    assert prior_drivers(tmp_path, names) == ("overlay2",)
    _home(tmp_path, "aufs", "0a1b")
    assert prior_drivers(tmp_path, names) == ("aufs", "overlay2")


def test_no_graph_root_holds_no_layers(tmp_path: Path) -> None:
    """A graph root that is not there, or is below a file, has no prior driver."""
    assert prior_drivers(tmp_path / "missing", ["overlay2"]) == ()
    (tmp_path / "file").touch()
    assert prior_drivers(tmp_path / "file", ["overlay2"]) == ()


def test_home_that_is_there_and_cannot_be_read_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's layers are not taken for an empty store."""
    _home(tmp_path, "overlay2")
    real = os.listdir

    def listdir(path: os.PathLike[str]) -> list[str]:
        if Path(path) == tmp_path / "overlay2":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)  # root may read everything
    assert prior_drivers(tmp_path, ["overlay2", "aufs"]) == ("overlay2",)


# Probing


class _Buggy(VfsCopy):
    name = "buggy"
    aliases = ()

    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        raise ZeroDivisionError("division by zero")


class _Mute(VfsCopy):
    name = "mute"
    aliases = ()

    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        return None  # type: ignore[return-value]


class _Exiting(VfsCopy):
    name = "exiting"
    aliases = ()

    @classmethod
    def probe(cls, host: HostFacts, home: Path) -> ProbeResult:
        raise SystemExit("enough")


def _registered(*drivers: type[VfsCopy]) -> Registry:
    return Registry([Registered(one.name, f"plugin:{one.__name__}", one) for one in drivers])


@pytest.mark.parametrize("driver", [_Buggy, _Mute, _Exiting])
def test_bug_in_a_probe_takes_no_other_driver_away(driver: type[VfsCopy]) -> None:
    """A plugin whose probe raises, exits or answers nothing is rejected, and named as broken."""
    candidates = probe_all(_registered(driver, VfsCopy), HOST)
    answers = {one.driver: one.probe for one in candidates}
    assert answers[driver.name].reason is Reason.PROBE_FAILED
    assert f"plugin:{driver.__name__}" in answers[driver.name].message
    assert select(candidates, policy=DEFAULT, host=HOST).chosen == "vfs-copy"


def test_driver_that_did_not_load_is_a_candidate_with_its_reason() -> None:
    """A plugin that cannot be imported is listed as rejected, with its remedy."""
    failure = DriverLoadError("it does not import", resolution="repair it")
    registry = Registry([Registered("zfs", "plugin:Zfs", failure=failure)])
    (candidate,) = probe_all(registry, HOST)
    assert (candidate.driver, candidate.source) == ("zfs", "plugin:Zfs")
    assert candidate.probe.reason is Reason.LOAD_FAILED
    assert (candidate.probe.message, candidate.probe.remedy) == ("it does not import", "repair it")


@pytest.mark.parametrize("problem", [Reason.READ_ONLY, Reason.NO_SPACE, Reason.NOT_WRITABLE])
def test_graph_root_that_cannot_be_written_to_rejects_everyone(problem: Reason) -> None:
    """Where nothing can be kept no driver is asked, and copying does not work either."""
    host = HostFacts(graph_root=GraphRoot(path="/store", problem=problem))
    candidates = probe_all(_registered(VfsCopy, _Buggy), host)
    assert {one.probe.reason for one in candidates} == {problem}
    assert all("/store" in one.probe.message and one.probe.remedy for one in candidates)
    assert select(candidates, policy=DEFAULT, host=host).chosen is None


# Every recorded host under every policy

POLICIES = load_policies()


def _own_drivers() -> Registry:
    """Without plugins that happen to be installed."""
    own = "storagedrivers.drivers."
    return Registry([one for one in Registry.discover() if one.source.startswith(own)])


OWN = _own_drivers()


def test_all_four_drivers_are_installed() -> None:
    """The recorded hosts are asked by every driver of the package."""
    assert sorted(OWN.drivers()) == ["aufs", "btrfs-snapshot", "overlay2", "vfs-copy"]


@pytest.mark.parametrize("name", host_names())
@pytest.mark.parametrize("policy_name", POLICIES)
def test_recorded_host_gets_its_driver(name: str, policy_name: str) -> None:
    """On each host each policy chooses what its host.toml expects."""
    host, document = load_host(name)
    found = select(probe_all(OWN, host), policy=POLICIES[policy_name], host=host)
    assert found.chosen == document["expected"][policy_name], found.why


@pytest.mark.parametrize("name", host_names())
def test_recorded_host_rejects_with_the_right_reasons(name: str) -> None:
    """On each host exactly the drivers of its host.toml are rejected, for exactly these reasons."""
    host, document = load_host(name)
    candidates = probe_all(OWN, host)
    rejected = {one.driver: one.probe.reason for one in candidates if not one.probe.supported}
    assert rejected == document["rejected"]
    assert all(one.probe.predicted for one in candidates)
    assert all(one.probe.message for one in candidates)


@pytest.mark.parametrize("name", host_names())
def test_recorded_host_is_the_same_from_json(name: str) -> None:
    """Facts that were written to JSON and read again give the same answers."""
    host, _ = load_host(name)
    again = HostFacts.from_json(host.to_json())
    assert again == host
    assert probe_all(OWN, again) == probe_all(OWN, host)


def test_enough_hosts_are_recorded() -> None:
    """At least 25 hosts are recorded, and under every policy they get at least two drivers."""
    documents = [load_host(name)[1] for name in host_names()]
    assert len(documents) >= 25
    for policy_name in POLICIES:
        assert len({document["expected"][policy_name] for document in documents}) >= 2
