"""TOML files that people write: read whole, checked key by key, errors with file, line and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any, TypeVar

from storagedrivers.errors import ConfigError

T = TypeVar("T")


class TomlTable:
    """One table of a file; knows its place for messages."""

    def __init__(
        self, values: dict[str, Any], *, file: str, text: str, path: tuple[str, ...] = ()
    ) -> None:
        self.values = values
        self._file = file
        self._text = text
        self._path = path

    @classmethod
    def parse(cls, text: str, *, file: str) -> TomlTable:
        """Parse a file's text.

        Raises:
            ConfigError: it is no TOML; with the line.
        """
        try:
            return cls(tomllib.loads(text), file=file, text=text)
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"line (\d+)", str(error))
            line = int(place[1]) if place else text.count("\n") + 1
            brief = re.sub(r" \(at .*\)$", "", str(error))
            raise ConfigError(f"not valid TOML: {brief}", file=file, line=line) from error

    def only(self, known: Iterable[str]) -> None:
        """Refuse keys that are none of *known*.

        Raises:
            ConfigError: naming the first.
        """
        known = tuple(known)
        for key in self.values:
            if key not in known:
                raise self.error(key, f"unknown key; known are {', '.join(known)}")

    def get(self, key: str, kind: type[T], default: T | None = None) -> T | None:
        """The value of *key*, or *default*.

        Raises:
            ConfigError: it is of another type.
        """
        value = self.values.get(key, default)
        if value is not None and (
            not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool)
        ):
            raise self.error(key, f"must be a {_KINDS[kind]}")
        return value

    def strings(self, key: str) -> tuple[str, ...] | None:
        """A list of strings, or None.

        Raises:
            ConfigError: something else.
        """
        value = self.get(key, list)
        if value is not None and not all(isinstance(item, str) for item in value):
            raise self.error(key, "must be a list of strings")
        return None if value is None else tuple(value)

    def numbers(self, key: str) -> tuple[int, ...] | None:
        """A list of integers, or None.

        Raises:
            ConfigError: something else.
        """
        value = self.get(key, list)
        if value is not None and not all(type(item) is int for item in value):
            raise self.error(key, "must be a list of integers")
        return None if value is None else tuple(value)

    def tables(self, key: str) -> list[TomlTable]:
        """An array of tables; none where the key is missing.

        Raises:
            ConfigError: something else.
        """
        value = self.get(key, list) or []
        if not all(isinstance(item, dict) for item in value):
            raise self.error(key, "must be an array of tables")
        return [self._child(key, item) for item in value]

    def table(self, key: str) -> TomlTable:
        """A table.

        Raises:
            ConfigError: something else.
        """
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.error(key, "must be a table")
        return self._child(key, value)

    def _child(self, key: str, values: dict[str, Any]) -> TomlTable:
        return TomlTable(values, file=self._file, text=self._text, path=(*self._path, key))

    def error(self, key: str, brief: str) -> ConfigError:
        """A ConfigError about *key* of this table."""
        path = (*self._path, key)
        return ConfigError(brief, file=self._file, line=self._line(path), key=".".join(path))

    def _line(self, path: tuple[str, ...]) -> int | None:
        """The line of a key: its table's header stands before it; of several alike, the first that
        fits.
        """
        lines = self._text.splitlines()
        start = 0
        parent = ".".join(path[:-1])
        headers = [
            number
            for number, line in enumerate(lines)
            if line.strip().strip("[]").replace('"', "").replace(" ", "") == parent and "[" in line
        ]
        pattern = re.compile(
            rf"\s*\[*\s*(?:[\w.\"-]+\.)?[\"']?{re.escape(path[-1])}[\"']?\s*(=|\]|\.)"
        )
        for start in headers or [0]:
            for number in range(start, len(lines)):
                if pattern.match(lines[number]):
                    return number + 1
        return headers[0] + 1 if headers else None


_KINDS: dict[type, str] = {
    str: "string",
    int: "integer",
    list: "list",
    bool: "boolean",
    dict: "table",
}
