"""MACs of every row by part, as stacked bars."""

from __future__ import annotations

from typing import Any

from sepcbench.records import Results
from sepcbench.report.columns import COLUMNS, counted_alike, counted_as
from sepcbench.report.figures import COLOURS, Sheet, sheet
from sepcbench.report.row_axis import row_axis, write_rows

PARTS = ("backbone", "neck", "head")


def cost_plot(results: Results, title: str) -> Sheet | None:
    """Draw what is counted, part by part, and around it the published count where there is one.

    Returns:
        The figure, or None where no row was counted and none has a published count.
    """
    rows = [row for row in results.rows if row.cost or "gmacs" in dict(row.published)]
    if not rows:
        return None
    counted = () if counted_alike(results.rows) else [counted_as(row) for row in rows]
    axis = row_axis(rows, counted)
    made = sheet(title, 0.5 + axis.height, legend=len(PARTS) + 1)
    axes = made.axes[0, 0]
    left = [0.0] * len(rows)
    for part, colour in zip(PARTS, COLOURS):
        if any(row.cost for row in rows):
            widths = [dict(row.cost.macs)[part] / 1e9 if row.cost else 0.0 for row in rows]
            axes.barh(axis.places, widths, left=left, color=colour, label=part, height=0.72)
            left = [a + b for a, b in zip(left, widths)]
    published = [dict(row.published).get("gmacs") for row in rows]
    for i, (place, row, given) in enumerate(zip(axis.places, rows, published)):
        if given:
            label = "published" if not any(published[:i]) else None
            outline: dict[str, Any] = {"fill": False, "ec": "#222222", "lw": 1.0, "height": 0.72}
            axes.barh(place, given.value, label=label, **outline)
        total = COLUMNS["macs"].value(row) or (given.value if given else 0.0)
        axes.annotate(
            _four_digits(total),
            (max(left[i], given.value if given else 0.0), place),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7.5,
            va="center",
        )
    write_rows(axes, axis)
    axes.margins(x=0.1)
    made.label("cost, GMAC (one multiply-add = 1)  (lower is better)")
    made.legend(axes.get_legend_handles_labels()[0])
    return made


def _four_digits(total: float) -> str:
    """A count as every bar writes it: 251.0 beside 250.5."""
    return f"{total:,.0f}" if total >= 1000 else f"{total:#.4g}"
