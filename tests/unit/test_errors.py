"""The exception tree: what every error carries, and that its drawing is true."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

from storagedrivers import errors
from storagedrivers.errors import (
    ConfigError,
    InUseError,
    MountError,
    NoUsableDriverError,
    RuntimeFailedError,
    StorageDriversError,
    UnmountError,
)

_LINE = re.compile(r"^(?P<indent>[\s│]*)(?:[├└]── )?(?P<name>\w+Error)\b", re.MULTILINE)


def _classes() -> list[type[StorageDriversError]]:
    return [
        one
        for name, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, StorageDriversError) and not name.startswith("_")
    ]


def _more_arguments(kind: type[StorageDriversError]) -> dict[str, Any]:
    """What a class demands beside its sentence."""
    if issubclass(kind, OSError):
        return {"errno": errno.EBUSY}
    return {"rejected": {}} if kind is NoUsableDriverError else {}


def _make(kind: type[StorageDriversError]) -> StorageDriversError:
    return kind("something failed", resolution="do this", **_more_arguments(kind))


def _drawn() -> Iterator[tuple[str, str | None]]:
    """The names in the drawing, each with the name that it hangs below."""
    above: list[tuple[int, str]] = []
    drawing = (errors.__doc__ or "").partition("::\n")[2]
    for found in _LINE.finditer(drawing):
        depth = found.start("name") - drawing.rindex("\n", 0, found.start("name"))
        while above and above[-1][0] >= depth:
            above.pop()
        yield found["name"], above[-1][1] if above else None
        above.append((depth, found["name"]))


def _public_parent(kind: type) -> str | None:
    names = {one.__name__ for one in _classes()}
    return next((one.__name__ for one in kind.__mro__[1:] if one.__name__ in names), None)


def test_drawing_names_every_class_below_its_base() -> None:
    """The tree in the module's docstring is the tree of the classes that exist."""
    assert dict(_drawn()) == {one.__name__: _public_parent(one) for one in _classes()}


@pytest.mark.parametrize("kind", _classes())
def test_error_keeps_its_sentence_and_remedy(kind: type[StorageDriversError]) -> None:
    """Every error tells its brief as its text, and keeps the resolution."""
    error = _make(kind)
    assert (error.brief, str(error), error.resolution) == (
        "something failed",
        error.brief,
        "do this",
    )


@pytest.mark.parametrize("kind", _classes())
def test_error_has_an_exit_code_that_is_no_success(kind: type[StorageDriversError]) -> None:
    """Only two have codes of their own: no driver is usable, and Docker's for a failed start."""
    special = {NoUsableDriverError: 4, RuntimeFailedError: 125}
    assert _make(kind).exit_code == special.get(kind, 1)


@pytest.mark.parametrize("kind", _classes())
def test_error_survives_pickling_and_copying(kind: type[StorageDriversError]) -> None:
    """An error of a worker process arrives in the parent as it was raised."""
    error = _make(kind)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert (str(other), vars(other)) == (str(error), vars(error))


@pytest.mark.parametrize(
    "kind",
    [
        one
        for one in _classes()
        if not issubclass(one, (ConfigError, InUseError, NoUsableDriverError))
    ],
)
def test_error_keeps_details(kind: type[StorageDriversError]) -> None:
    """Lines for who wants more stay apart from the sentence."""
    error = kind("brief", details="one\ntwo", **_more_arguments(kind))
    assert (error.details, str(error)) == ("one\ntwo", "brief")


@pytest.mark.parametrize("kind", _classes())
def test_error_can_be_caught_as_one(kind: type[StorageDriversError]) -> None:
    """Whoever catches StorageDriversError misses none, and gets no bug with it."""
    with pytest.raises(StorageDriversError):
        raise _make(kind)
    assert not issubclass(kind, (AssertionError, TypeError, ValueError))


@pytest.mark.parametrize("kind", [MountError, UnmountError])
def test_failed_mounts_are_system_errors(kind: type[MountError]) -> None:
    """MountError and UnmountError are an OSError with the kernel's number."""
    with pytest.raises(OSError, match=r"^brief$") as caught:
        raise kind("brief", errno=errno.EPERM, details="e overlay: words", resolution="be root")
    assert caught.value.errno == errno.EPERM
    assert isinstance(caught.value, kind)
    assert (caught.value.details, caught.value.resolution) == ("e overlay: words", "be root")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "wrong"),
        ({"file": "a.toml"}, "a.toml: wrong"),
        ({"file": "a.toml", "line": 3}, "a.toml, line 3: wrong"),
        ({"file": "a.toml", "line": 3, "key": "os.order"}, "a.toml, line 3, key 'os.order': wrong"),
        ({"file": "a.toml", "line": 0}, "a.toml, line 0: wrong"),
    ],
)
def test_config_error_names_the_place(place: dict[str, Any], text: str) -> None:
    """File, line and key stand before the sentence, as far as they are known."""
    error = ConfigError("wrong", **place)
    assert str(error) == text
    assert {"file": error.file, "line": error.line, "key": error.key} == {
        "file": None,
        "line": None,
        "key": None,
        **place,
    }


def test_rejected_candidates_are_details() -> None:
    """When nothing is usable, each driver has a line with its reason."""
    error = NoUsableDriverError(
        "nothing works", rejected={"aufs": "no module", "zfs": "no program"}
    )
    assert error.details == "aufs: no module\nzfs: no program"
    assert error.rejected == {"aufs": "no module", "zfs": "no program"}


def test_holders_are_details() -> None:
    """Who still uses a thing is told line by line, and nothing is told where no one is known."""
    assert (
        InUseError("in use", holders=["process 1", "process 2"]).details == "process 1\nprocess 2"
    )
    assert InUseError("in use", holders=["process 1"]).holders == ("process 1",)
    assert InUseError("in use").details is None
