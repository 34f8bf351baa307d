r"""``--format``: the part of Go's templates that people give to Docker for a line each.

``{{.Name}}`` is a field, ``{{.Labels.a}}`` and ``{{index .Labels "a"}}`` are one of what it has,
``{{json .Name}}`` and ``{{json .}}`` are JSON, ``\t`` and ``\n`` are what they are; ``json`` alone
is ``{{json .}}``, and ``table`` before a template prints a headline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from storagedrivers.cli import output
from storagedrivers.errors import StoreError, did_you_mean

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FIELD = re.compile(r"(json\s+)?\.((?:\w+(?:\.\w+)*)?)")
_INDEX = re.compile(r'(?:index\s+\.(\w+(?:\.\w+)*)|\.Label)\s+"([^"]*)"')
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\\": "\\"}
_PAIRS = ("Labels", "Options")  # fields that are pairs, also where there are none


class Pairs(str):
    """Pairs as the one text that lists show: ``a=b,c=d``; a template can ask for one of them."""

    __slots__ = ("pairs",)

    def __new__(cls, pairs: Mapping[str, str]) -> Pairs:
        """The text of *pairs*."""
        made = super().__new__(cls, ",".join(f"{key}={one}" for key, one in sorted(pairs.items())))
        made.pairs = pairs
        return made

    pairs: Mapping[str, str]


class _Value(NamedTuple):
    """What a part of a template asks for: the names that lead to it; none for all there is."""

    path: tuple[str, ...]
    as_json: bool = False

    @property
    def head(self) -> str:
        return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.path[-1] if self.path else "").upper()


def print_all(template: str, rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> None:
    """Print a line for each of *rows*.

    Args:
        template: what the user gave.
        rows: values by the name of their field.
        fields: the names that there are, also where there are no rows.

    Raises:
        StoreError: the template names another, or does what no one understands here.
    """
    if template == "json":
        template = "{{json .}}"
    word, _, rest = template.partition(" ")
    table = word == "table"
    body = re.sub(r"\\[tn\\]", lambda found: _ESCAPES[found[0]], rest if table else template)
    parts = [*_parts(body, fields)]
    if not table:
        for row in rows:
            output.line("".join(_shown(part, row) for part in parts))
        return
    heads = "".join(part if isinstance(part, str) else part.head for part in parts)
    lines = ["".join(_shown(part, row) for part in parts).split("\t") for row in rows]
    output.table(heads.split("\t"), lines)


def _parts(body: str, fields: Sequence[str]) -> Iterator[str | _Value]:
    """Text as it is, and what stands in braces."""
    at = 0
    for found in _ACTION.finditer(body):
        yield _closed(body[at : found.start()])
        at = found.end()
        value = _value(found[0], found[1])
        if value.path and value.path[0] not in fields:
            raise StoreError(
                f"there is no field {value.path[0]}",
                resolution=did_you_mean(value.path[0], fields) or f"there are {', '.join(fields)}",
            )
        yield value
    yield _closed(body[at:])


def _closed(text: str) -> str:
    if "{{" in text:
        raise StoreError(
            f"the template {text[text.index('{{') :]} is not closed",
            resolution="write }} behind it",
        )
    return text


def _value(action: str, inside: str) -> _Value:
    if field := _FIELD.fullmatch(inside):
        path = tuple(field[2].split(".")) if field[2] else ()
        if path or field[1]:
            return _Value(path, bool(field[1]))
    elif index := _INDEX.fullmatch(inside):
        return _Value((*(index[1] or "Labels").split("."), index[2]))
    raise StoreError(
        f"the template {action} means nothing here",
        resolution='use {{.Field}}, {{.Labels.a}}, {{index .Labels "a"}}, {{json .Field}} or'
        " {{json .}}",
    )


def _shown(part: str | _Value, row: Mapping[str, Any]) -> str:
    if isinstance(part, str):
        return part
    value = _found(part.path, row)
    if part.as_json:
        import json

        return json.dumps(value)
    if value is None and part.path[-1] in _PAIRS:
        value = {}
    return _on_one_line(_text(value))


def _found(path: tuple[str, ...], row: Mapping[str, Any]) -> Any:
    """What the names lead to; what a mapping lacks is empty."""
    value: Any = row
    for depth, name in enumerate(path):
        if isinstance(value, Pairs):
            value = value.pairs
        if value is None and path[depth - 1] in _PAIRS:
            return ""
        if not isinstance(value, Mapping):
            raise StoreError(
                f"the field {'.'.join(path[:depth])} has no parts",
                resolution=f"write {{{{.{'.'.join(path[:depth])}}}}}",
            )
        value = value.get(name, "")
    return value


def _text(value: Any) -> str:
    """A value as Go prints it."""
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{_text(one)}' for key, one in sorted(value.items()))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(_text, value))}]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _on_one_line(text: str) -> str:
    """What comes from images and containers must make neither lines nor columns."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
