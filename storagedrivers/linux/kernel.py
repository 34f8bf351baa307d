"""The kernel's version, for what has no other mark."""

from __future__ import annotations

import os


def version(release: str | None = None) -> tuple[int, int]:
    """Major and minor number of a release, by default this kernel's; ``(0, 0)`` if it has none."""
    parts = (os.uname().release if release is None else release).split(".")
    try:
        return int(parts[0]), int(_leading_digits(parts[1]))
    except (IndexError, ValueError):
        return 0, 0


def _leading_digits(text: str) -> str:
    return text[: len(text) - len(text.lstrip("0123456789"))]
