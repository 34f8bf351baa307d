"""The fields of a ``--mount``: one record of comma-separated values.

A field with a comma in it stands in double quotes, with its double quotes doubled:
``type=volume,"volume-opt=o=addr=10.0.0.1,rw",target=/data``.
"""

from __future__ import annotations

from storagedrivers.errors import InvalidMountError

_ADVICE = (
    "put double quotes around the whole field, as in 'type=volume,\"volume-opt=o=uid=1,gid=1\"',"
    " and all of it into single quotes for the shell"
)


def fields(text: str) -> list[str]:
    """The fields of one record.

    Raises:
        InvalidMountError: a quote stands where none can, or there is a second record.
    """
    found = []
    position = 0
    while True:
        read = _quoted if text.startswith('"', position) else _plain
        field, position = read(text, position)
        found.append(field)
        if position == len(text):
            return found
        position += 1  # the comma


def _plain(text: str, start: int) -> tuple[str, int]:
    end = text.find(",", start)
    end = len(text) if end == -1 else end
    for position in range(start, end):
        if text[position] == '"':
            raise _error(text, position, 'bare " in non-quoted-field')
        if text[position] == "\n":
            raise _error(text, position, "a second line")
    return text[start:end], end


def _quoted(text: str, start: int) -> tuple[str, int]:
    position = start + 1
    while True:
        position = text.find('"', position)
        if position == -1:
            raise _error(text, len(text), 'extraneous or missing " in quoted-field')
        if text[position + 1 : position + 2] == '"':
            position += 2
        elif text[position + 1 : position + 2] in ("", ","):
            return text[start + 1 : position].replace('""', '"'), position + 1
        else:
            raise _error(text, position, 'extraneous or missing " in quoted-field')


def _error(text: str, position: int, what: str) -> InvalidMountError:
    before = text[:position].split("\n")
    column = len(before[-1].encode(errors="surrogatepass")) + 1
    record = "" if len(before) == 1 else "record on line 1; "
    return InvalidMountError(
        f"{record}parse error on line {len(before)}, column {column}: {what}", resolution=_ADVICE
    )
