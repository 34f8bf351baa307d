"""Chooses the driver: requested, else prior, else by policy. Pure, from probed candidates to a
Selection.

1. A driver that was asked for is taken or refused; it never falls back. 2. A graph root that holds
layers of one driver goes on with it. If it does not work any more, that is an error with a remedy,
never a silent switch. Of several, the current one of the store's database is taken. 3. The policy's
order; the first that works. 4. Copying is the last resort and is said: the setting ``fallback`` may
warn, refuse or allow.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from storagedrivers.driver import is_home
from storagedrivers.errors import (
    DriverUnsupportedError,
    NoUsableDriverError,
    PriorDriverError,
    StorageDriversError,
)
from storagedrivers.host import HostFacts
from storagedrivers.model import (
    Capability,
    ProbeResult,
    Reason,
    check_probe_result,
    is_layer_id,
)
from storagedrivers.policy import Policy
from storagedrivers.registry import Registered, Registry


class Fallback(StrEnum):
    """What to do when only copying works."""

    WARN = "warn"
    REFUSE = "refuse"
    ALLOW = "allow"


class Quality(StrEnum):
    """How good the choice is: layers are shared, layers are copied, or nothing works."""

    BEST = "best"
    COPYING = "copying"
    NONE = "none"

    @property
    def exit_code(self) -> int:
        """What ``storagedrivers detect`` exits with."""
        return {Quality.BEST: 0, Quality.COPYING: 3, Quality.NONE: 4}[self]


class Candidate(NamedTuple):
    """An installed driver with its answer. ``source`` is the object its entry point names."""

    driver: str
    probe: ProbeResult
    source: str = ""


class Selection(NamedTuple):
    """The choice and why.

    Attributes:
        chosen: the driver's name, or None.
        why: one sentence.
        policy: the policy's name.
        prior: drivers that have layers under the graph root.
        candidates: every installed driver, in the order tried.
        warnings: what the user should know though something was chosen.
        refusal: the error that stands for "none", or None.
    """

    chosen: str | None
    why: str
    policy: str
    prior: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    warnings: tuple[str, ...] = ()
    refusal: StorageDriversError | None = None

    @property
    def quality(self) -> Quality:
        """``best`` for a driver that shares what lies below, ``copying`` for one that does not."""
        probe = next((one.probe for one in self.candidates if one.driver == self.chosen), None)
        if probe is None:
            return Quality.NONE
        return Quality.BEST if _shares(probe) else Quality.COPYING

    def require(self) -> str:
        """The chosen driver's name.

        Raises:
            StorageDriversError: nothing was chosen: the refusal.
        """
        if self.chosen is None:
            raise self.refusal or NoUsableDriverError(self.why, rejected={})
        return self.chosen


def probe_all(registry: Registry, host: HostFacts) -> list[Candidate]:
    """Ask every installed driver. None is asked where nothing can be written to the graph root."""
    return [
        Candidate(entry.name, probe_entry(entry, host), entry.source)
        for entry in sorted(registry, key=lambda entry: entry.name)
    ]


def probe_entry(entry: Registered, host: HostFacts) -> ProbeResult:
    """The answer of one driver; for one that did not load, why."""
    if entry.driver is None:
        failure = entry.failure
        assert failure is not None
        return ProbeResult.no(entry.reason, failure.brief, remedy=failure.resolution or "")
    if host.graph_root.problem:
        return _nothing_can_be_written(host)
    try:
        answer = entry.driver.probe(host, Path(host.graph_root.path) / entry.name)
        check_probe_result(answer)
        return answer
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:
        # A plugin's bug must not take the other drivers away; it is named as one.
        return ProbeResult.no(
            Reason.PROBE_FAILED,
            f"the probe of {entry.source} has a bug: {type(error).__name__}: {error}",
            remedy="report it to the driver's authors",
        )


def _nothing_can_be_written(host: HostFacts) -> ProbeResult:
    root = host.graph_root
    reason = Reason(root.problem)
    message, remedy = {
        Reason.READ_ONLY: ("is on a read-only filesystem", "mount it read-write"),
        Reason.NO_SPACE: ("is on a filesystem that is full", "make room there"),
        Reason.NOT_WRITABLE: ("cannot be written to", "" if host.uid == 0 else "run as root"),
    }[reason]
    return ProbeResult.no(
        reason,
        f"the graph root {root.path} {message}, so nothing was tried",
        remedy=", or ".join(filter(None, (remedy, "choose another graph root with --root DIR"))),
        predicted=host.recorded,
    )


def prior_drivers(graph_root: str | os.PathLike[str], names: Iterable[str]) -> tuple[str, ...]:
    """The drivers that have layers under the graph root: of *names*, and of none that is installed.

    A home is known by its trash too, so the layers of a plugin that is gone are not passed over. A
    directory that cannot be read counts.
    """
    root = Path(graph_root)
    known = {name for name in names if _has_layers(root / name)}
    try:
        others = {entry.name for entry in os.scandir(root) if entry.is_dir()} - known
    except OSError:
        others = set()
    foreign = {name for name in others if is_home(root / name) and _has_layers(root / name)}
    return tuple(sorted(known | foreign))


def _has_layers(home: Path) -> bool:
    try:
        return any(map(is_layer_id, os.listdir(home)))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return os.path.lexists(home)  # not so where the graph root itself is closed


def select(
    candidates: Sequence[Candidate],
    *,
    policy: Policy,
    host: HostFacts,
    requested: str | None = None,
    prior: Sequence[str] = (),
    current: str | None = None,
    fallback: Fallback = Fallback.WARN,
) -> Selection:
    """Choose among probed candidates. Never raises for "none": the selection carries the refusal.

    Args:
        requested: a driver's name that was asked for.
        prior: drivers with layers under the graph root.
        current: the one of them that the store's database marks as current.
    """
    ordered = _in_order(candidates, policy.order_for(host.os))
    found = _Findings(ordered, policy, host, tuple(prior))
    if requested is not None:
        return found.requested(requested)
    if prior:
        return found.prior_state(current)
    return found.by_policy(fallback)


def _in_order(candidates: Sequence[Candidate], order: Sequence[str]) -> tuple[Candidate, ...]:
    """Candidates in the policy's order; what it does not name stands where ``*`` does, or last."""
    unnamed = sorted({one.driver for one in candidates} - set(order))
    names = [one for name in order for one in (unnamed if name == "*" else (name,))]
    names += [name for name in unnamed if name not in names]
    # Of two with one name, the one that was refused for it comes second.
    return tuple(
        one
        for name in names
        for one in sorted(candidates, key=lambda one: not one.probe.supported)
        if one.driver == name
    )


class _Findings(NamedTuple):
    candidates: tuple[Candidate, ...]
    policy: Policy
    host: HostFacts
    prior: tuple[str, ...]

    def requested(self, name: str) -> Selection:
        probe = self._probe(name)
        if probe is not None and probe.supported:
            return self._chosen(name, "it was asked for", self._about_other_layers(name))
        return self._refused(
            DriverUnsupportedError(
                f"{name} was asked for and does not work here: {_words(probe)}",
                resolution=probe.remedy
                if probe and probe.remedy
                else "ask for another driver or for none",
            )
        )

    def prior_state(self, current: str | None) -> Selection:
        if current is None and len(self.prior) > 1:
            return self._refused(
                PriorDriverError(
                    f"{self.host.graph_root.path} holds layers of several drivers:"
                    f" {', '.join(self.prior)}",
                    resolution="say which one to use: --driver NAME",
                )
            )
        name = current or self.prior[0]
        probe = self._probe(name)
        if probe is not None and probe.supported:
            why = "the graph root holds its layers"
            return self._chosen(name, why, self._about_other_layers(name))
        return self._refused(
            PriorDriverError(
                f"{self.host.graph_root.path} holds layers of {name}, which does not work here any"
                f" more: {_words(probe)}",
                resolution=(f"{probe.remedy}; or " if probe and probe.remedy else "")
                + "start an empty store beside it: --root DIR",
            )
        )

    def by_policy(self, fallback: Fallback) -> Selection:
        working = [one for one in self.candidates if one.probe.supported]
        sharing = [one for one in working if _shares(one.probe)]
        if not working:
            return self._refused(self._nothing("no driver works here"))
        candidate = sharing[0] if fallback is Fallback.REFUSE and sharing else working[0]
        rule = self.policy.rule_for(self.host.os)
        where = f" for {rule.name}" if rule else ""
        why = f"the first that works in the order of policy {self.policy.name}{where}"
        if sharing or fallback is Fallback.ALLOW:
            return self._chosen(candidate.driver, why)  # if it copies, the policy prefers that
        if fallback is Fallback.REFUSE:
            return self._refused(
                self._nothing("only copying works here, and the fallback to it is refused")
            )
        return self._chosen(candidate.driver, why, (_price(self.host),))

    def _nothing(self, brief: str) -> NoUsableDriverError:
        rejected = {
            one.driver: one.probe.message for one in self.candidates if not one.probe.supported
        }
        remedy = next((one.probe.remedy for one in self.candidates if one.probe.remedy), None)
        return NoUsableDriverError(brief, rejected=rejected, resolution=remedy)

    def _about_other_layers(self, name: str) -> tuple[str, ...]:
        others = [one for one in self.prior if one != name]
        if not others:
            return ()
        names = ", ".join(others)
        return (f"the graph root also holds layers of {names}, which stay as they are",)

    def _probe(self, name: str) -> ProbeResult | None:
        return next((one.probe for one in self.candidates if one.driver == name), None)

    def _chosen(self, name: str, why: str, warnings: tuple[str, ...] = ()) -> Selection:
        return Selection(
            chosen=name,
            why=why,
            policy=self.policy.name,
            prior=self.prior,
            candidates=self.candidates,
            warnings=warnings,
        )

    def _refused(self, refusal: StorageDriversError) -> Selection:
        return Selection(
            chosen=None,
            why=refusal.brief,
            policy=self.policy.name,
            prior=self.prior,
            candidates=self.candidates,
            refusal=refusal,
        )


def _shares(probe: ProbeResult) -> bool:
    return probe.supported and Capability.CHEAP_FORK in probe.capabilities


def _words(probe: ProbeResult | None) -> str:
    return probe.message if probe else "it is not installed"


def copied_bytes(layer_sizes: Sequence[int]) -> int:
    """What an image takes by copying: every layer is written again for each layer above it.

    Args:
        layer_sizes: bytes of each layer's own files, base first.
    """
    return sum(size * (len(layer_sizes) - place) for place, size in enumerate(layer_sizes))


def _price(host: HostFacts) -> str:
    if host.graph_root.reflink:
        return "only copying works; contents are shared by reflink: layers cost time and inodes"
    gigabyte = 1000**3
    example = copied_bytes([gigabyte // 10] * 10) / gigabyte
    return (
        "only copying works: every layer holds all layers below it, so 1 GB of image in 10 equal"
        f" layers takes {example:.1f} GB, and each container of it another 1 GB"
    )
