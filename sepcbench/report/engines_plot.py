"""What each engine makes of each row: latency under all conditions, in groups of bars."""

from __future__ import annotations

from typing import Any

from sepcbench.records import Latency, Results
from sepcbench.report.figures import COLOURS, Sheet, panels
from sepcbench.report.timing_tables import Timing, timings

_BAR = 0.8  # of the space of a row


def engines_plot(results: Results, title: str) -> Sheet | None:
    """Draw a panel per dtype and batch and in it, row by row, a bar per engine.

    On a GPU milliseconds per image; else multiples of the first row under the first conditions of
    the batch, with 95 % intervals.

    Returns:
        The figure, or None where a row was timed under one set of conditions only.
    """
    found = timings(results)
    if not any(row.timings for row in results.rows):
        return None
    engines = list(dict.fromkeys(one.record.engine for one in found))
    names = {_panel(one.record): None for one in found}
    rows = [row for row in results.rows if any(one.row is row for one in found)]
    made, by_name = panels(title, list(names), legend=len(engines))
    for name, axes in by_name.items():
        inside = [one for one in found if _panel(one.record) == name]
        for one in inside:
            at = rows.index(one.row) + _offset(engines.index(one.record.engine), len(engines))
            _bar(axes, one, at, _BAR / len(engines), _colour(engines, one.record.engine))
        axes.set_xticks(range(len(rows)), [row.label for row in rows], rotation=60, ha="right")
        axes.grid(axis="x", visible=False)
    on_gpu = all(one.on_gpu for one in found)
    unit = "ms per image" if on_gpu else f"times {rows[0].label}, first conditions"
    made.label("", f"latency, {unit}")
    made.legend(_legend(engines))
    return made


def _panel(record: Latency) -> str:
    return f"{record.dtype}, batch {record.batch}"


def _offset(index: int, count: int) -> float:
    return (index - (count - 1) / 2) * _BAR / count


def _colour(engines: list[str], engine: str) -> str:
    return COLOURS[engines.index(engine) % len(COLOURS)]


def _bar(axes: Any, one: Timing, at: float, width: float, colour: str) -> None:
    record = one.record
    if one.on_gpu:
        scale = 1e3 / record.batch
        value = record.median_s * scale
        ends: tuple[float, float] | None = (record.ci95_s[0] * scale, record.ci95_s[1] * scale)
    else:
        value = record.ratio.median if record.ratio else 1.0
        ends = record.ratio.ci95 if record.ratio else None
    axes.bar(at, value, width=width, color=colour)
    if ends:
        axes.plot([at, at], ends, color="#222222", linewidth=0.9)


def _legend(engines: list[str]) -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(color=_colour(engines, name), label=name) for name in engines]
