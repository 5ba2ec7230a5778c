"""What each engine makes of each row: latency under all conditions, in groups of bars."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any, get_args

from sepcbench.records import Latency, Results
from sepcbench.report.figures import COLOURS, Sheet, panels
from sepcbench.report.timing_tables import Timing, timings
from sepcbench.specs import EngineName

_BAR = 0.8  # of the space of a row
_HEIGHT = 2.6  # inches of a panel, with the rows' names below
_LETTERS = 34  # of a line of the vertical axis' name


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
    engines = _in_order(one.record.engine for one in found)
    names = {_panel(one.record): None for one in found}
    rows = [row for row in results.rows if any(one.row is row for one in found)]
    made, by_name = panels(title, list(names), legend=len(engines), height=_HEIGHT)
    turned = 25 if len(names) == 1 else 60
    for name, axes in by_name.items():
        inside = [one for one in found if _panel(one.record) == name]
        for one in inside:
            at = rows.index(one.row) + _offset(engines.index(one.record.engine), len(engines))
            _bar(axes, one, at, _BAR / len(engines), _colour(engines, one.record.engine))
        axes.set_xticks(range(len(rows)), [row.label for row in rows], rotation=turned, ha="right",
                        rotation_mode="anchor")  # fmt: skip
        axes.grid(axis="x", visible=False)
    on_gpu = all(one.on_gpu for one in found)
    unit = "ms per image" if on_gpu else f"times {rows[0].label}"
    of = "" if on_gpu else f"{found[0].record.engine}; "
    made.label("", textwrap.fill(f"latency, {unit}", _LETTERS) + f"\n({of}lower is better)")
    made.legend(_legend(engines))
    return made


def _in_order(engines: Iterable[str]) -> list[str]:
    """Engines in the order in which `specs` names them, then any others."""
    names = list(dict.fromkeys(engines))
    known = [name for name in get_args(EngineName) if name in names]
    return known + [name for name in names if name not in known]


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
