r"""``--format``: the part of Go's templates that people give to Docker for a line each.

``{{.Name}}`` is a field, ``{{json .Name}}`` and ``{{json .}}`` are JSON, ``\t`` and ``\n`` are
what they are; ``json`` alone is ``{{json .}}``, and ``table`` before a template prints a headline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from storagedrivers.cli import output
from storagedrivers.errors import StoreError, did_you_mean

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FIELD = re.compile(r"(json\s+)?\.(\w*)")
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\\": "\\"}


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
    heads = "".join(
        part if isinstance(part, str) else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part[1]).upper()
        for part in parts
    )
    lines = ["".join(_shown(part, row) for part in parts).split("\t") for row in rows]
    output.table(heads.split("\t"), lines)


def _parts(body: str, fields: Sequence[str]) -> Iterator[str | tuple[bool, str]]:
    """Text as it is, and fields: whether as JSON, and the name."""
    at = 0
    for found in _ACTION.finditer(body):
        yield body[at : found.start()]
        at = found.end()
        field = _FIELD.fullmatch(found[1])
        if field is None or not (field[1] or field[2]):
            raise StoreError(
                f"the template {found[0]} means nothing here",
                resolution="use {{.Field}}, {{json .Field}} or {{json .}}",
            )
        if field[2] and field[2] not in fields:
            raise StoreError(
                f"there is no field {field[2]}",
                resolution=did_you_mean(field[2], fields) or f"there are {', '.join(fields)}",
            )
        yield bool(field[1]), field[2]
    yield body[at:]


def _shown(part: str | tuple[bool, str], row: Mapping[str, Any]) -> str:
    if isinstance(part, str):
        return part
    as_json, name = part
    value = row[name] if name else row
    if as_json:
        import json

        return json.dumps(value)
    return _on_one_line(str(value))


def _on_one_line(text: str) -> str:
    """What comes from images and containers must make neither lines nor columns."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
