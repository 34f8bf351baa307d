"""Dockerfiles with their contexts, of every instruction and flag, and of shapes that people have.

All begin with the image ``base`` or with nothing, and need no network.
"""

from __future__ import annotations

from build_cases import adding, buildkit, copying, failing, real, runs, settings
from build_cases.base import write_base
from build_cases.contexts import Case, listing, write_context

__all__ = ["CASES", "FAILING", "NEWER", "Case", "listing", "write_base", "write_context"]

CASES = (*copying.CASES, *adding.CASES, *settings.CASES, *runs.CASES, *real.CASES)
"""What Docker's classic builder builds, too."""

NEWER = tuple(buildkit.CASES)
"""What it does not know."""

FAILING = tuple(failing.CASES)
"""What cannot be built."""
