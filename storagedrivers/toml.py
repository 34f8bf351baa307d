"""TOML files that people write: read whole, checked key by key, errors with file, line and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any, TypeVar

from storagedrivers.errors import ConfigError

T = TypeVar("T")

KeyPath = tuple[str | int, ...]
"""Keys, and places in arrays of tables, from the document to a value."""


class TomlTable:
    """One table of a file; knows its place for messages."""

    def __init__(
        self,
        values: dict[str, Any],
        *,
        file: str,
        lines: dict[KeyPath, int],
        path: KeyPath = (),
    ) -> None:
        self.values = values
        self._file = file
        self._lines = lines
        self._path = path

    @classmethod
    def parse(cls, text: str, *, file: str) -> TomlTable:
        """Parse a file's text.

        Raises:
            ConfigError: it is no TOML; with the line.
        """
        try:
            return cls(tomllib.loads(text), file=file, lines=_LazyLines(text))
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"line (\d+)", str(error))
            line = int(place[1]) if place else text.count("\n") + 1
            brief = re.sub(r" \(at .*\)$", "", str(error))
            raise ConfigError(f"not valid TOML: {brief}", file=file, line=line) from error
        except (ValueError, RecursionError) as error:  # a number or a nesting beyond all limits
            raise ConfigError(f"not valid TOML: {error}", file=file, line=1) from error

    def only(self, known: Iterable[str]) -> None:
        """Refuse keys that are none of *known*.

        Raises:
            ConfigError: naming the first.
        """
        known = tuple(known)
        for key in self.values:
            if key not in known:
                raise self.error(key, f"unknown key; known are {', '.join(known)}")

    def get(self, key: str, kind: type[T]) -> T | None:
        """The value of *key*, or None.

        Raises:
            ConfigError: it is of another type.
        """
        value = self.values.get(key)
        if value is not None and type(value) is not kind:
            raise self.error(key, f"must be a {_KINDS[kind]}")
        return value

    def items(self, key: str, kind: type[T]) -> tuple[T, ...] | None:
        """A list of values of one type, or None.

        Raises:
            ConfigError: something else.
        """
        value = self.get(key, list)
        if value is not None and not all(type(item) is kind for item in value):
            raise self.error(key, f"must be a list of {_KINDS[kind]}s")
        return None if value is None else tuple(value)

    def tables(self, key: str) -> list[TomlTable]:
        """An array of tables; none where the key is missing.

        Raises:
            ConfigError: something else.
        """
        found = self.items(key, dict) or ()
        return [self._child(item, key, place) for place, item in enumerate(found)]

    def table(self, key: str) -> TomlTable:
        """A table.

        Raises:
            ConfigError: something else.
        """
        value = self.get(key, dict)
        if value is None:
            raise self.error(key, "must be a table")
        return self._child(value, key)

    def _child(self, values: dict[str, Any], *path: str | int) -> TomlTable:
        return TomlTable(values, file=self._file, lines=self._lines, path=(*self._path, *path))

    def error(self, key: str, brief: str) -> ConfigError:
        """A ConfigError about *key* of this table; of a missing one, with the line of the table."""
        path = (*self._path, key)
        ends = range(len(path), 0, -1)
        line = next((self._lines[path[:end]] for end in ends if path[:end] in self._lines), 1)
        name = ".".join(part for part in path if isinstance(part, str))
        return ConfigError(brief, file=self._file, line=line, key=name)


_KINDS: dict[type, str] = {
    str: "string",
    int: "integer",
    list: "list",
    bool: "boolean",
    dict: "table",
}


class _LazyLines(dict[KeyPath, int]):
    """The lines of tables and of keys that begin a line; found when the first is asked for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text: str | None = text

    def __contains__(self, path: object) -> bool:
        if self._text is not None:
            self.update(_lines_of_keys(self._text))
            self._text = None
        return super().__contains__(path)


def _lines_of_keys(text: str) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    part = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[\w-]+)"""
    dotted = rf"({part}(?:\s*\.\s*{part})*)"
    for number, line in enumerate(_without_long_strings(text).splitlines(), 1):
        if header := re.match(rf"\s*(\[\[?)\s*{dotted}\s*\]", line):
            table = _resolve([_unquote(one) for one in re.findall(part, header[2])], counts)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif key := re.match(rf"\s*{dotted}\s*=", line):
            path = table
            for one in re.findall(part, key[1]):
                path = (*path, _unquote(one))
                lines.setdefault(path, number)
    return lines


def _resolve(key: list[str], counts: dict[KeyPath, int]) -> KeyPath:
    """The path of a header: of an array of tables on the way, the last table is meant."""
    path: KeyPath = ()
    for part in key[:-1]:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path])
    return (*path, key[-1])


def _unquote(part: str) -> str:
    if part[0] == '"':
        return str(tomllib.loads(f"x = {part}")["x"])
    return part.strip("'")


def _without_long_strings(text: str) -> str:
    """The text with strings of several lines emptied, but for their line ends."""
    long_string = r'"{3}(?:[^\\]|\\.)*?"{3,5}' + r"|'{3}.*?'{3,5}"
    return re.sub(
        long_string, lambda match: '""' + "\n" * match[0].count("\n"), text, flags=re.DOTALL
    )
