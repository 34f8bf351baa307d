"""Writes what was measured into ``docs/``: a table between two marks of the page, and a chart.

The marks are the lines ``<!-- NAME -->`` and ``<!-- /NAME -->`` of ``docs/performance.md``.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from html import escape
from math import isfinite
from statistics import median

import pairwise
from pairwise import Comparison

_DOCS = pairwise.PROJECT / "docs"
_PAGE = _DOCS / "performance.md"


def write_table(
    section: str,
    comparisons: Sequence[Comparison],
    *,
    chart: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Replace a section of the page by a table of what was measured.

    Args:
        section: the name in the marks.
        comparisons: those with one name make one row.
        chart: the file of a chart to show below, in the same directory.
        notes: paragraphs below the table.
    """
    _write_section(section, _table(comparisons), comparisons, chart, notes)


def write_pairs(
    section: str,
    comparisons: Sequence[Comparison],
    *,
    chart: str | None = None,
    notes: Sequence[str] = (),
) -> None:
    """As :func:`write_table`, with a row for each comparison, where the peers are many."""
    _write_section(section, _pairs(comparisons), comparisons, chart, notes)


def _write_section(
    section: str,
    table: Iterator[str],
    comparisons: Sequence[Comparison],
    chart: str | None,
    notes: Sequence[str],
) -> None:
    lines = list(table)
    for paragraph in (*notes, _circumstances(comparisons)):
        lines += ["", paragraph]
    if chart:
        lines += ["", f"![The same as a chart]({chart})"]
    page = _PAGE.read_text()
    start, end = f"<!-- {section} -->\n", f"<!-- /{section} -->\n"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        sys.exit(f"{_PAGE} has no section {start.strip()}")
    new = start + "\n".join(lines) + "\n" + end
    _PAGE.write_text(pattern.sub(lambda _: new, page))


def _table(comparisons: Sequence[Comparison]) -> Iterator[str]:
    peers = list(dict.fromkeys(one.peer_name for one in comparisons))
    heads = ["what", "ours", *(head for peer in peers for head in (_code(peer), "ratio"))]
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for name in dict.fromkeys(one.name for one in comparisons):
        row = {one.peer_name: one for one in comparisons if one.name == name}
        cells = [name, pairwise.duration(median(next(iter(row.values())).ours))]
        for peer in peers:
            cells += _cells(row[peer]) if peer in row else ["", ""]
        yield f"| {' | '.join(cells)} |"


def _pairs(comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield "| what | ours | beside | its time | ratio |"
    yield f"|{' --- |' * 5}"
    for one in comparisons:
        cells = [one.name, pairwise.duration(median(one.ours)), _code(one.peer_name), *_cells(one)]
        yield f"| {' | '.join(cells)} |"


def _cells(one: Comparison) -> list[str]:
    low, high = map(pairwise.number, one.quartiles)
    ratio = f"{pairwise.number(one.ratio)} ({low}–{high})"
    if isfinite(one.limit):
        limit = pairwise.limit_text(one.limit)
        ratio += f", limit {limit}" + ("" if one.passed else ": **missed**")
    return [pairwise.duration(median(one.peer)), ratio]


def _code(peer: str) -> str:
    return f"`{peer}`" if " -" in peer else peer


def _circumstances(comparisons: Sequence[Comparison]) -> str:
    rounds = sorted({len(one.ours) for one in comparisons})
    return (
        f"{' or '.join(map(str, rounds))} rounds, {os.cpu_count()} processors, "
        f"CPython {platform.python_version()}, Linux {os.uname().release.split('-')[0]}."
    )


# The chart

_WIDTH = 760
_LABELS = 190  # of pixels, left of the bars
_VALUES = 110  # right of them
_BAR = 13
_GAP = 12
_TOP = 62
_COLOURS = ("#2f6fde", "#d9822b", "#7a8794")


def write_chart(file: str, title: str, comparisons: Sequence[Comparison]) -> None:
    """Draw a bar for each of those who did a piece of work; shorter is better."""
    (_DOCS / file).write_text("\n".join(_chart(title, comparisons)) + "\n")


def _chart(title: str, comparisons: Sequence[Comparison]) -> Iterator[str]:
    groups = {
        name: _bars([one for one in comparisons if one.name == name])
        for name in dict.fromkeys(one.name for one in comparisons)
    }
    sides = list(dict.fromkeys(side for bars in groups.values() for side in bars))
    longest = max(seconds for bars in groups.values() for seconds in bars.values())
    height = _TOP + sum(_GAP + _BAR * len(bars) for bars in groups.values()) + _GAP
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
    yield '     font-family="sans-serif" font-size="12" role="img">'
    yield f"<title>{escape(title)}</title>"
    yield f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    yield _text(_GAP, 22, f"{title}: seconds, shorter is better", 'font-size="15"')
    for place, side in enumerate(sides):
        left = _LABELS + place * 170
        yield f'<rect x="{left}" y="36" width="12" height="12" fill="{_COLOURS[place]}"/>'
        yield _text(left + 18, 46, side)
    top = _TOP
    for name, bars in groups.items():
        yield _text(_LABELS - 10, top + _BAR * len(bars) / 2 + 4, name, 'text-anchor="end"')
        for side, seconds in bars.items():
            length = max(1.0, (_WIDTH - _LABELS - _VALUES) * seconds / longest)
            colour = _COLOURS[sides.index(side)]
            yield (
                f'<rect x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR - 2}" '
                f'fill="{colour}"/>'
            )
            yield _text(_LABELS + length + 6, top + _BAR - 3, pairwise.duration(seconds))
            top += _BAR
        top += _GAP
    yield "</svg>"


def _bars(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Seconds of all who did one piece of work."""
    ours = {"storagedrivers": median(comparisons[0].ours)}
    return ours | {one.peer_name: median(one.peer) for one in comparisons}


def _text(x: float, y: float, text: str, more: str = "") -> str:
    attributes = f'x="{x:.0f}" y="{y:.0f}" fill="#1b1f24" {more}'.rstrip()
    return f"<text {attributes}>{escape(text)}</text>"
