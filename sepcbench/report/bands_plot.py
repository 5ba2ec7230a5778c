"""AP by finer sizes of objects than small, medium and large."""

from __future__ import annotations

from typing import Any

from sepcbench.records import Accuracy, Results, Row
from sepcbench.report.figures import COLOURS, Sheet, sheet

_UNITS = {"pixels": "root of the area, pixels", "relative": "root of the area over the image's, %"}


def bands_plot(results: Results, title: str) -> Sheet | None:
    """Draw AP over the size of objects, a line per row; one panel for pixels, one relative.

    Returns:
        The figure, or None where no row was scored by finer sizes.
    """
    rows = [row for row in results.rows if row.accuracy and row.accuracy.bands]
    if not rows:
        return None
    kinds = list(dict.fromkeys(band.kind for row in rows for band in _record(row).bands))
    made = sheet(title, 3.2, (1, len(kinds)), legend=len(rows), sharey=True)
    handles: list[Any] = []
    for axes, kind in zip(made.axes[0], kinds):
        handles = []
        for i, row in enumerate(rows):
            bands = [b for b in _record(row).bands if b.kind == kind and b.objects]
            places = range(len(bands))
            values = [None if band.ap is None else 100 * band.ap for band in bands]
            style = ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
            (line,) = axes.plot(
                places, values, style, marker="o", ms=3, color=COLOURS[i % len(COLOURS)],
                linewidth=1.2, label=row.label,
            )  # fmt: skip
            scale = 100 if kind == "relative" else 1
            axes.set_xticks(places, [f"{scale * b.low:.3g}+\n{b.objects}" for b in bands])
            handles.append(line)
        axes.set_xlabel(f"{_UNITS.get(kind, kind)}; objects below", fontsize=8)
    made.axes[0, 0].set_ylabel("AP, %  (higher is better)")
    made.legend(handles)
    return made


def _record(row: Row) -> Accuracy:
    assert row.accuracy is not None  # of rows that were chosen for having one
    return row.accuracy
