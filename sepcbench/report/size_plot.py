"""AP (or AR) by the size of objects: small, medium and large, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sepcbench.records import Results, Row
from sepcbench.report.columns import COLUMNS
from sepcbench.report.figures import Sheet, colours, sheet
from sepcbench.report.points import QUALITIES, Quality, quality_interval, scored_on
from sepcbench.report.row_axis import row_axis, write_rows

SIZES = ("all", "small", "medium", "large")


def size_plot(results: Results, title: str, quality: str) -> Sheet | None:
    """Draw one column of bars per size; hollow bars are published values.

    Args:
        results: what to draw.
        title: over the picture; "" for none.
        quality: a key of `points.QUALITIES`.

    Returns:
        The figure, or None where no row has a value for a size.
    """
    one = QUALITIES[quality]
    rows = [
        row
        for row in results.rows
        if any(value is not None for size in SIZES for value in _values(row, one, size))
    ]
    if not any(
        value is not None for row in rows for size in SIZES[1:] for value in _values(row, one, size)
    ):
        return None
    axis = row_axis(rows)
    handles = _legend(rows, one)
    made = sheet(title, 0.65 + axis.height, (1, len(SIZES)), len(handles), sharex=True, sharey=True)
    axes = made.axes
    for part, size in zip(axes[0], SIZES):
        _bars(part, results, rows, axis.places, one, size)
        part.set_title(size, fontsize=9)
    write_rows(axes[0, 0], axis)
    for part in axes[0]:
        part.tick_params(axis="y", length=0)
        part.grid(axis="y", visible=False)
    values = (value or 0.0 for row in rows for size in SIZES for value in _values(row, one, size))
    axes[0, 0].set_xlim(0, max(values, default=0.0) * 1.25 or 1.0)
    where = scored_on(results, one)
    made.label(f"{one.name}, % by size of objects, on {where}  (higher is better)")
    made.legend(handles)
    return made


def _values(row: Row, quality: Quality, size: str) -> tuple[float | None, float | None]:
    """Measured and published, in percent."""
    name = quality.column if size == "all" else f"{quality.column}_{size}"
    published = dict(row.published).get(name)
    if name in COLUMNS:
        measured = COLUMNS[name].value(row)
    else:  # mask AP by size is in records, though in no column
        record = getattr(row, quality.record)
        value = getattr(record, f"ap_{size}") if record else None
        measured = None if value is None else 100 * value
    return measured, published.value if published else None


def _bars(
    axes: Any,
    results: Results,
    rows: Sequence[Row],
    places: Sequence[float],
    quality: Quality,
    size: str,
) -> None:
    of_row = colours(results)
    for row, place in zip(rows, places):
        measured, published = _values(row, quality, size)
        interval = quality_interval(row, quality) if size == "all" else None
        ends = [value for value in (measured, published) if value is not None]
        if measured is not None:
            axes.barh(place, measured, height=0.72, color=of_row[row.name], alpha=0.85)
        if published is not None:
            axes.barh(place, published, height=0.72, fill=False, ec="#222222", lw=1.0)
        if interval:
            axes.plot(interval, [place, place], "-", color="#222222", linewidth=1.0)
            ends.append(interval[1])
        if ends:
            axes.annotate(
                f"{measured if measured is not None else published:.1f}",
                (max(ends), place),
                xytext=(2, 0),
                textcoords="offset points",
                fontsize=7,
                va="center",
            )


def _legend(rows: Sequence[Row], quality: Quality) -> list[Any]:
    """Say what hollow bars and lines are, where there are any."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    pairs = [_values(row, quality, size) for row in rows for size in SIZES]
    if any(published is not None for _, published in pairs):
        if any(measured is not None for measured, _ in pairs):
            handles.append(Patch(facecolor="#888888", label="measured"))
        handles.append(Patch(fill=False, ec="#222222", label="published"))
    if any(quality_interval(row, quality) for row in rows):
        handles.append(Line2D([], [], color="#222222", lw=1.0, label="95 % interval"))
    return handles
