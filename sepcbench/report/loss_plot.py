"""Training curves: the loss of every row that was trained here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from sepcbench.records import Results, Row
from sepcbench.report.figures import COLOURS, Sheet, panels, sheet, short_label

_STYLES = ("-", "--", ":", "-.")
_UP = "total loss  (lower is better)"
OTHERS = "others"


def loss_plot(results: Results, title: str) -> Sheet | None:
    """Draw total loss over iterations: running means, the raw losses pale behind them.

    Losses of different detectors are sums of different terms and do not compare: each group of a
    grouped suite has its own axes.

    Returns:
        The figure, or None where no row has losses.
    """
    rows = [row for row in results.rows if row.training and row.training.losses]
    if not rows:
        return None
    groups = list(dict.fromkeys(row.group or OTHERS for row in rows))
    if len(groups) == 1:
        made = sheet(title, 3.4, legend=len(rows))
        handles = _curves(made.axes[0, 0], rows, [row.label for row in rows])
        made.axes[0, 0].set_xlabel("iteration")
        made.axes[0, 0].set_ylabel(_UP)
        made.legend(handles)
        return made
    made, by_group = panels(title, groups, legend=0)
    for group, axes in by_group.items():
        inside = [row for row in rows if (row.group or OTHERS) == group]
        labels = [short_label(row.label, group) for row in inside]
        handles = _curves(axes, inside, labels)
        axes.legend(
            handles=handles, fontsize=6, loc="upper right", handlelength=1.4, labelspacing=0.2
        )
    made.label("iteration", _UP)
    return made


def _curves(axes: Any, rows: Sequence[Row], labels: Sequence[str]) -> list[Any]:
    """Curves of rows.

    Returns:
        Their lines, from the highest last loss to the lowest.
    """
    lines: list[tuple[float, int, Any]] = []
    positive = True
    for i, (row, label) in enumerate(zip(rows, labels)):
        losses = row.training.losses if row.training else ()
        steps, raw = [step for step, _ in losses], [loss for _, loss in losses]
        smooth = _running_mean(raw)
        colour, style = COLOURS[i % len(COLOURS)], _STYLES[i // len(COLOURS) % len(_STYLES)]
        sign = "o" if len(steps) == 1 else ""
        axes.plot(steps, raw, color=colour, linewidth=0.5, alpha=0.2)
        (line,) = axes.plot(
            steps, smooth, style, marker=sign, color=colour, linewidth=1.3, label=label
        )
        lines.append((smooth[-1], i, line))
        positive = positive and min(raw) > 0
    if positive:
        _logarithmic(axes)
    return [line for _, _, line in sorted(lines, key=lambda item: (-item[0], item[1]))]


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis with numbers as they are written, such as 0.5 and 2."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _running_mean(values: Sequence[float]) -> list[float]:
    """The mean around each value, over a tenth of all; less of it at the ends."""
    half = len(values) // 20
    return [statistics.fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
