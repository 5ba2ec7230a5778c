"""Which pyramid level found the objects of which size."""

from __future__ import annotations

from collections.abc import Sequence

from sepcbench.records import Accuracy, LevelShare, Results
from sepcbench.report.columns import BLANK
from sepcbench.report.table import Table

_NOTE = "Of the objects that are matched at IoU 0.5, which level's detection matched them."


def levels_table(results: Results) -> Table | None:
    """Which level found what in each row; None where that was not asked for."""
    scored = [(row.label, row.accuracy) for row in results.rows if row.accuracy]
    return level_shares(scored, f"Which pyramid level found what ({results.machine})")


def level_shares(scored: Sequence[tuple[str, Accuracy]], title: str) -> Table | None:
    """What each pyramid level found of small, medium and large objects.

    Args:
        scored: the name and record of each score; those without levels are left out.
        title: of the table.

    Returns:
        A table with three rows per record, or None where no record has levels.
    """
    shown = [(name, record) for name, record in scored if record.levels]
    if not shown:
        return None
    levels = sorted({share.level for _, record in shown for share in record.levels})
    headers = ("row", "objects", *(f"P{level}, % of those found" for level in levels))
    lines: list[tuple[str, ...]] = []
    for name, record in shown:
        for size in ("small", "medium", "large"):
            found = {share.level: _found(share, size) for share in record.levels}
            lines.append((name, size, *_cells([found.get(level, 0) for level in levels])))
    return Table(title, headers, tuple(lines), (_NOTE,))


def _cells(counts: Sequence[int]) -> list[str]:
    """The share of each level, %."""
    total = sum(counts)
    return [f"{100 * count / total:.0f}" if total else BLANK for count in counts]


def _found(share: LevelShare, size: str) -> int:
    return int(getattr(share, f"found_{size}"))
