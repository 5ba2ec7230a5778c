"""Latency of every row, part by part: what the neck takes beside the rest."""

from __future__ import annotations

from typing import Any

from sepcbench.records import Results
from sepcbench.report.figures import COLOURS, Sheet, sheet
from sepcbench.report.row_axis import row_axis, write_rows
from sepcbench.report.timing_tables import part_names, split_rows


def parts_plot(results: Results, title: str) -> Sheet | None:
    """Draw stacked bars, the whole call as a line; on a GPU in ms, else in the first row's wholes.

    Returns:
        The figure, or None where no parts were timed.
    """
    rows = split_rows(results)
    if not rows:
        return None
    on_gpu = all(record.device.startswith("cuda") for _, record in rows)
    first = rows[0][1].split
    scale = 1e3 if on_gpu or first is None else 1 / first.whole_s
    names = part_names(record.split for _, record in rows if record.split)
    axis = row_axis([row for row, _ in rows])
    made = sheet(title, 0.5 + axis.height, legend=len(names) + 1)
    axes = made.axes[0, 0]
    for (_, record), place in zip(rows, axis.places):
        if record.split is None:
            continue
        left = 0.0
        for part in record.split.parts:
            colour = _colour(names.index(part.name))
            width = part.median_s * scale
            axes.barh(place, width, left=left, height=0.7, color=colour)
            left += width
        whole = record.split.whole_s * scale
        axes.plot([whole, whole], [place - 0.42, place + 0.42], color="#222222", linewidth=1.4)
    write_rows(axes, axis)
    unit = "ms" if on_gpu else f"times {rows[0][0].label}"
    made.label(f"latency of the parts, {unit}  (lower is better)")
    made.legend(_legend(names))
    return made


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _legend(names: list[str]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=_colour(i), label=name) for i, name in enumerate(names)]
    upright: dict[str, Any] = {"ls": "", "marker": "|", "ms": 9, "mew": 1.4}
    return [*handles, Line2D([], [], color="#222222", label="whole call", **upright)]
