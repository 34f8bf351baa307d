"""Runs the contracts without pytest, each on a graph root of its own below a directory."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from storagedrivers.driver import StorageDriver
from storagedrivers.linux.scratch import scratch_directory
from storagedrivers.testing.contracts import Contracts
from storagedrivers.testing.rig import NotApplicable, Rig


class Outcome(StrEnum):
    """How a contract came out; ``excepted`` is broken as the driver says that it may be."""

    KEPT = "kept"
    BROKEN = "broken"
    EXCEPTED = "excepted"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True, slots=True)
class Result:
    """One contract's outcome: its name, its sentence, and what was wrong."""

    name: str
    sentence: str
    outcome: Outcome
    message: str = ""


def contract_names() -> list[str]:
    """The contracts, in the order of their definition."""
    return [name for name in dir(Contracts) if name.startswith("test_")]


def run_contracts(
    driver: type[StorageDriver], directory: Path, *, names: Iterable[str] | None = None
) -> Iterator[Result]:
    """Run contracts of *driver* on the filesystem of *directory*, yielding each result as it comes.

    Args:
        driver: the class.
        directory: an existing directory; what is made below it is removed.
        names: which contracts; all by default.
    """
    contracts = Contracts()
    for name in contract_names() if names is None else names:
        method = getattr(contracts, name)
        sentence = " ".join((inspect.getdoc(method) or name).partition("\n\n")[0].split())
        try:
            with scratch_directory(directory) as root, Rig(driver, root) as rig:
                method(rig)
        except NotApplicable as reason:
            yield Result(name, sentence, Outcome.NOT_APPLICABLE, str(reason))
        except Exception as error:  # a driver under test may raise anything
            message = (
                str(error)
                if isinstance(error, AssertionError)
                else f"{type(error).__name__}: {error}"
            )
            known = driver.exceptions.get(name)
            if known and isinstance(error, AssertionError | OSError):
                yield Result(name, sentence, Outcome.EXCEPTED, known)
            else:
                yield Result(name, sentence, Outcome.BROKEN, message)
        else:
            yield Result(name, sentence, Outcome.KEPT)
