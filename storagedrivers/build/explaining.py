"""Says why the cache had nothing for a step: the first thing that differs from the nearest of what
was built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from storagedrivers.build.keys import Facts
from storagedrivers.stores.build_cache import COMPARED, stored

if TYPE_CHECKING:
    from storagedrivers.stores.build_cache import CacheStore, Entry

_LONG = 60
"""Characters of a value that are shown."""

_SIMILAR = 0.4
"""How much of two instructions has to be the same for one to be a change of the other."""

_KIND, _MODE, _UID, _GID, _SIZE, _DIGEST = range(6)

Fields = Sequence[str | int]


def explain(facts: Facts, store: CacheStore, *, driver: str | None = None) -> str:
    """Why the cache had nothing for a step, in a few words that stand by themselves.

    Args:
        facts: what its result depends on.
        store: the cache.
        driver: whose layers those below are; by default the one of new layers.
    """
    near = store.of_chain(facts.chain)
    key, instruction = facts.key(), stored(facts.instruction)
    for entry, usable in near:
        if entry.key == key:
            return _not_usable(entry, driver or store.layers.driver, usable=usable)
    same = (entry for entry, _ in near if entry.instruction == instruction)
    if differences := _fewest(facts, islice(same, COMPARED), store):
        more = len(differences) - 1
        return differences[0] + (f", and {more} more" if more else "")
    if other := _most_similar(instruction, [entry.instruction for entry, _ in near]):
        return f"the instruction was {_change(other, instruction)}"
    if store.knows(instruction):
        return "the layers below it changed"
    return "it was never built here"


def _not_usable(entry: Entry, driver: str, *, usable: bool) -> str:
    if entry.driver != driver:
        return f"it was built with the driver {entry.driver}, and this is {driver}"
    if usable:
        return "it has just been built by another build"
    return "what was built had not reached the disk before a restart, or is damaged"


def _fewest(facts: Facts, entries: Iterator[Entry], store: CacheStore) -> list[str]:
    """The differences from the entry that has the fewest of them."""
    best: list[str] = []
    shown = facts.shown()
    for entry in entries:
        if (packed := store.facts(entry)) is None:
            continue
        found = [*differences(Facts.unpack(entry.chain, entry.instruction, packed), shown)]
        if not best or len(found) < len(best):
            best = found
    return best


def differences(old: Facts, new: Facts) -> Iterator[str]:
    """What differs between two steps with the same instruction on the same layers."""
    yield from _of_environment(old.environment, new.environment)
    if old.compared != new.compared:
        yield f"what it comes to {_change(old.compared, new.compared)}"
    if old.digest != new.digest:
        found = [*_of_files(old.files or {}, new.files or {})]
        yield from found or ["what it reads changed"]


def _of_environment(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in [*new, *(name for name in old if name not in new)]:
        if name not in old:
            yield f"{name} is new: {_short(new[name])}"
        elif name not in new:
            yield f"{name} is gone: it was {_short(old[name])}"
        elif old[name] != new[name]:
            yield f"{name} {_change(old[name], new[name])}"


def _of_files(old: Mapping[str, Fields], new: Mapping[str, Fields]) -> Iterator[str]:
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path), new.get(path)
        if before is None:
            yield f"{path} is new"
        elif after is None:
            yield f"{path} is gone"
        elif tuple(before) != tuple(after):
            yield _of_file(path, before, after)


def _of_file(path: str, old: Fields, new: Fields) -> str:
    if old[_KIND] != new[_KIND]:
        return f"{path} was a {old[_KIND]}, and is a {new[_KIND]}"
    if old[_MODE] != new[_MODE]:
        return f"mode of {path} {_mode(old)} → {_mode(new)}"
    if (old[_UID], old[_GID]) != (new[_UID], new[_GID]):
        return f"owner of {path} {old[_UID]}:{old[_GID]} → {new[_UID]}:{new[_GID]}"
    if old[_DIGEST] == new[_DIGEST] and old[_SIZE] != new[_SIZE]:
        return f"{path} {_change(str(old[_SIZE]), str(new[_SIZE]))}"
    return f"content of {path} changed"


def _mode(fields: Fields) -> str:
    mode = fields[_MODE]
    return f"{mode:04o}" if isinstance(mode, int) else mode


def _most_similar(instruction: str, others: Sequence[str]) -> str:
    """The other instruction with the same first word that this is most likely a change of."""
    word = instruction.split(" ", 1)[0]
    best, most = "", _SIMILAR
    for other in others:
        if other != instruction and other.split(" ", 1)[0] == word:
            alike = _alike(other[len(word) :], instruction[len(word) :])
            if alike > most:
                best, most = other, alike
    return best


def _alike(one: str, other: str) -> float:
    """How much of the longer of two texts is the same at the beginning and at the end of both."""
    head, tail = _common(one, other)
    return (head + tail) / max(len(one), len(other), 1)


def _common(one: str, other: str) -> tuple[int, int]:
    """How many characters two texts begin and end with alike."""
    head = _same(one, other)
    return head, _same(one[head:][::-1], other[head:][::-1])


def _same(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _change(old: str, new: str) -> str:
    """Two texts, cut to where they differ if they are long."""
    head, _ = _common(old, new)
    start = max(0, head - _LONG // 3) if max(len(old), len(new)) > _LONG else 0
    return f"{_short(old, start)} → {_short(new, start)}"


def _short(text: str, start: int = 0) -> str:
    cut = text[start : start + _LONG]
    before, after = "…" if start else "", "…" if len(text) > start + _LONG else ""
    return f"{before}{cut}{after}" if text else '""'
