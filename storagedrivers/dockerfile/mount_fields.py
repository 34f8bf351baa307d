"""Fields of ``RUN --mount=``, which are a line of a CSV file."""

from __future__ import annotations


def split(text: str) -> list[str]:
    """``type=bind,source=x`` as fields; in quotes a comma is part of one."""
    if '"' not in text:
        return text.split(",")
    import csv

    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error:
        return [text]  # it is refused where it is read


def joined(fields: list[str]) -> str:
    """The fields as one text."""
    return ",".join(map(_quoted, fields))


def _quoted(field: str) -> str:
    if "," not in field and '"' not in field:
        return field
    doubled = field.replace('"', '""')
    return f'"{doubled}"'
