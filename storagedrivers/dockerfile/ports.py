"""Ports as EXPOSE takes them: ``80``, ``53/udp``, ``8000-8010``."""

from __future__ import annotations

from collections.abc import Iterator

_PROTOCOLS = ("tcp", "udp", "sctp")
_END = 1 << 16


def exposed(text: str) -> Iterator[str]:
    """Each port that *text* says, with its protocol: ``80/tcp``.

    An address and a port of the host before it, ``127.0.0.1:8080:80``, mean nothing here.

    Raises:
        ValueError: it is no port.
    """
    host, _, own = text.rpartition(":")
    numbers, _, protocol = own.partition("/")
    protocol = protocol.partition("/")[0] or "tcp"
    if not numbers:
        raise ValueError(f"No port specified: {text}<empty>")
    try:
        first, last = _range(numbers)
    except ValueError:
        raise ValueError(f"Invalid containerPort: {numbers}") from None
    _check_host(host, numbers, last - first)
    if protocol.lower() not in _PROTOCOLS:
        raise ValueError(f"Invalid proto: {protocol}")
    for number in range(first, last + 1):
        yield f"{number}/{protocol.lower()}"


def _check_host(text: str, numbers: str, length: int) -> None:
    address, _, port = text.rpartition(":")
    if port:
        try:
            first, last = _range(port)
        except ValueError:
            raise ValueError(f"Invalid hostPort: {port}") from None
        if length not in (0, last - first):
            raise ValueError(
                f"Invalid ranges specified for container and host Ports: {numbers} and {port}"
            )
    if address and not _is_address(address):
        raise ValueError(f"Invalid ip address: {address}")


def _is_address(text: str) -> bool:
    import ipaddress

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return (ipaddress.ip_address(bare).version == 6) == (bare != text)
    except ValueError:
        return False


def _range(text: str) -> tuple[int, int]:
    parts = text.split("-")
    first, last = _number(parts[0]), _number(parts[1] if len(parts) > 1 else parts[0])
    if last < first:
        raise ValueError
    return first, last


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < _END):
        raise ValueError
    return int(text)
