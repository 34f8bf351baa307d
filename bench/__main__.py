"""Runs all benchmarks: ``python bench``. Exit code 1 where a limit is missed.

Each can be run alone: ``python bench/detect.py --help``.
"""

from __future__ import annotations

import sys

import build
import containers
import detect
import images
import layers
import overlay_cycle
import pairwise
import scale
import start_up
import vfs_copy

if __name__ == "__main__":
    benchmarks = [
        *(detect, overlay_cycle, vfs_copy, start_up, layers, scale),
        *(images, containers, build),
    ]
    sys.exit(pairwise.run(benchmarks, __doc__))
