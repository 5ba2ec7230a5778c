"""Latency of every row with its interval."""

from __future__ import annotations

from typing import Any

from sepcbench.records import Results
from sepcbench.report.columns import latency_ms, latency_ratio
from sepcbench.report.figures import Sheet, colours, sheet
from sepcbench.report.points import Price, latency_price
from sepcbench.report.row_axis import row_axis, write_rows


def latency_plot(results: Results, title: str) -> Sheet | None:
    """Draw medians and their 95 % intervals; on a GPU in ms with the range of single calls.

    Returns:
        The figure, or None where nothing was timed, or rows under different conditions.
    """
    price = latency_price(results)
    if price is None or not any(price.value(row) is not None for row in results.rows):
        return None
    rows = [
        row for row in results.rows if price.value(row) is not None or row.name in price.elsewhere
    ]
    axis, of_row = row_axis(rows), colours(results)
    handles = _legend(price)
    made = sheet(title, 0.5 + axis.height, legend=len(handles))
    axes = made.axes[0, 0]
    if price.value is latency_ratio:
        axes.axvline(1.0, color="#888888", linewidth=0.8)
    for row, place in zip(rows, axis.places):
        value, interval = price.value(row), price.interval(row)
        colour = of_row[row.name]
        if price.value is latency_ms and row.latency:
            ends = [1e3 * row.latency.p10_s, 1e3 * row.latency.p90_s]
            axes.plot(ends, [place, place], "-", color=colour, linewidth=0.8)
        if interval:
            axes.plot(interval, [place, place], "-", color=colour, linewidth=3, alpha=0.6)
        if value is not None:
            axes.plot(value, place, "o", color=colour, markersize=5)
        if row.name in price.elsewhere:
            elsewhere = price.elsewhere[row.name]
            axes.plot(elsewhere, place, "s", mfc="none", mec=colour, markersize=6)
    write_rows(axes, axis)
    made.label(f"{price.label}  (lower is better)")
    made.legend(handles)
    return made


def _legend(price: Price) -> list[Any]:
    from matplotlib.lines import Line2D

    grey = "#444444"
    handles = [
        Line2D([], [], ls="", marker="o", color=grey, ms=5, label="median"),
        Line2D([], [], color=grey, lw=3, alpha=0.6, label="95 % interval"),
    ]
    if price.value is latency_ms:
        handles.append(Line2D([], [], color=grey, lw=0.8, label="10 % to 90 % of single calls"))
    if price.elsewhere:
        handles.append(Line2D([], [], ls="", marker="s", mfc="none", mec=grey, label="published"))
    return handles
