"""Filters of volumes, as Docker's ``volume ls --filter`` has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from storagedrivers.errors import VolumeError
from storagedrivers.model import Volume

Filter = Callable[[Volume], bool]

_KEYS = ("dangling", "name", "driver", "label", "label!")
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def parse(filters: Sequence[str], used: set[str]) -> Filter:
    """What lets a volume through that all filters let through.

    Args:
        filters: ``key=value`` each.
        used: the names of the volumes that containers use.

    Raises:
        VolumeError: one that is no filter.
    """
    values: dict[str, list[str]] = {}
    for text in filters:
        key, value = _split(text)
        values.setdefault(key, []).append(value)
    tests = [_test(key, found, used) for key, found in values.items()]
    return lambda volume: all(test(volume) for test in tests)


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if key not in _KEYS or not equals:
        raise VolumeError(
            f"{text!r} is no filter of volumes",
            resolution=f"write {', '.join(f'{one}=…' for one in _KEYS)}",
        )
    if key == "dangling" and value.lower() not in _TRUTHS:
        raise VolumeError(f"{text!r} is no filter of volumes", resolution="it is true or false")
    return key, value


def _test(key: str, values: list[str], used: set[str]) -> Filter:
    if key == "dangling":
        wanted = {_TRUTHS[value.lower()] for value in values}
        return lambda volume: (volume.name not in used) in wanted
    if key == "name":
        return lambda volume: any(value in volume.name for value in values)
    if key == "driver":
        return lambda volume: volume.driver in values
    if key == "label":
        return lambda volume: all(_has(volume, value) for value in values)
    return lambda volume: not any(_has(volume, value) for value in values)


def _has(volume: Volume, label: str) -> bool:
    key, equals, value = label.partition("=")
    return key in volume.labels and (not equals or volume.labels[key] == value)
