"""Plots of a suite's results, from records alone: AP over MACs and latency, and MACs by part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sepcbench.records import Results, Row
from sepcbench.report.columns import COLUMNS, latency_ms, latency_ratio
from sepcbench.report.labels import Point, label_points

# Okabe and Ito's palette: told apart by colour-blind readers and in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
PARTS = ("backbone", "neck", "head")

Reader = Callable[[Row], float | None]


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Draw every plot that the records give something for.

    Returns:
        The PNG files written.
    """
    macs = COLUMNS["macs"].value
    on_gpu = any(latency_ms(row) is not None for row in results.rows)
    # published latencies are of another card: only multiples of the first row stand side by side
    as_ms = on_gpu and not published_ratios(results)
    time_axis = "latency, ms" if as_ms else "latency, times the first row"
    time = latency_ms if as_ms else latency_ratio
    written: list[Path] = []
    if _any(results, macs):
        written.append(_bars(results, folder / "macs.png"))
    if _any_ap(results, macs):
        written.append(_scatter(results, macs, "cost, GMAC", folder / "ap_over_macs.png"))
    if _any_ap(results, time) or published_ratios(results):
        written.append(_scatter(results, time, time_axis, folder / "ap_over_latency.png"))
    return written


def _any(results: Results, x: Reader) -> bool:
    return any(x(row) is not None for row in results.rows)


def _any_ap(results: Results, x: Reader) -> bool:
    return any(x(row) is not None and _ap(row) != (None, None) for row in results.rows)


def published_ratios(results: Results) -> dict[str, float]:
    """Published latency of rows that also have a published AP, in multiples of the first row's."""
    first = dict(results.rows[0].published).get("latency_ms")
    found: dict[str, float] = {}
    for row in results.rows:
        published = dict(row.published)
        if first and "latency_ms" in published and "ap" in published:
            found[row.name] = published["latency_ms"].value / first.value
    return found


def _ap(row: Row) -> tuple[float | None, float | None]:
    """Measured and published AP in %."""
    published = dict(row.published).get("ap")
    return COLUMNS["ap"].value(row), published.value if published else None


def _figure(results: Results, width: float = 7.0, height: float = 4.6) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(f"{results.title}\n{results.machine}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _scatter(results: Results, x: Reader, x_label: str, path: Path) -> Path:
    figure, axes = _figure(results)
    points: list[Point] = []
    lines: dict[str, list[Point]] = {}
    colours = _colours(results)
    elsewhere = published_ratios(results) if x is latency_ratio else {}
    for row in results.rows:
        at, (measured, published) = x(row), _ap(row)
        colour = colours[row.name]
        if row.name in elsewhere and published is not None:
            axes.plot(elsewhere[row.name], published, "s", mfc="none", mec=colour, markersize=7)
            points.append((elsewhere[row.name], published, row.label))
            lines.setdefault(row.group, []).append(points[-1])
        if at is None or measured is published is None:
            continue
        if measured is not None:
            _error_bar(axes, row, x, at, measured, colour)
            axes.plot(at, measured, "o", color=colour, markersize=7)
        if published is not None:
            axes.plot(at, published, "o", mfc="none", mec=colour, markersize=9, mew=1.5)
        if row.name not in elsewhere or measured is not None:
            points.append((at, measured if measured is not None else published or 0.0, row.label))
    _connect(axes, results, lines)
    data = "generated set" if results.generated_data else "COCO"
    axes.set_ylabel(f"AP, % ({data}), higher is better")
    axes.set_xlabel(f"{x_label}, lower is better")
    _legend(axes, results, x)
    label_points(axes, points)
    figure.savefig(path, dpi=150)
    return path


def _colours(results: Results) -> dict[str, str]:
    """A colour per row; rows of one group share theirs."""
    groups = list(dict.fromkeys(row.group or row.name for row in results.rows))
    of_group = {group: COLOURS[i % len(COLOURS)] for i, group in enumerate(groups)}
    return {row.name: of_group[row.group or row.name] for row in results.rows}


def _connect(axes: Any, results: Results, lines: dict[str, list[Point]]) -> None:
    """A thin line through the published points of each group, in the order of its rows."""
    colours = {
        row.group: colour for row in results.rows for colour in [_colours(results)[row.name]]
    }
    for group, points in lines.items():
        if group and len(points) > 1:
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            axes.plot(xs, ys, "-", color=colours[group], linewidth=1, alpha=0.5, zorder=1)


def _legend(axes: Any, results: Results, x: Reader) -> None:
    """Say what hollow points are, where there are any."""
    if not any(_ap(row)[1] is not None for row in results.rows):
        return
    if x is latency_ratio and published_ratios(results):
        axes.plot([], [], "s", mfc="none", mec="#444444", label="published AP, published latency")
    if any(_ap(row)[1] is not None and x(row) is not None for row in results.rows):
        axes.plot([], [], "o", mfc="none", mec="#444444", label="published AP")
    if any(_ap(row)[0] is not None for row in results.rows):
        axes.plot([], [], "o", color="#444444", label="measured AP")
    axes.legend(fontsize=8, loc="best", title="marker", title_fontsize=8)


def _error_bar(axes: Any, row: Row, x: Reader, at: float, ap: float, colour: str) -> None:
    """The 95 % interval of a latency, as a horizontal bar."""
    if row.latency is None or x not in (latency_ms, latency_ratio):
        return
    if x is latency_ms:
        low, high = (1e3 * end for end in row.latency.ci95_s)
    elif row.latency.ratio:
        low, high = row.latency.ratio.ci95
    else:
        return
    axes.plot([low, high], [ap, ap], "-", color=colour, linewidth=1.5, alpha=0.7)


def _bars(results: Results, path: Path) -> Path:
    """MACs of each row by part, stacked."""
    rows = [row for row in results.rows if row.cost]
    figure, axes = _figure(results, height=1.9 + 0.36 * len(rows))
    left = [0.0] * len(rows)
    places = list(range(len(rows)))[::-1]
    for part, colour in zip(PARTS, COLOURS):
        widths = [dict(row.cost.macs)[part] / 1e9 if row.cost else 0.0 for row in rows]
        axes.barh(places, widths, left=left, color=colour, label=part, height=0.7)
        left = [a + b for a, b in zip(left, widths)]
    for place, total in zip(places, left):
        axes.annotate(
            f"{total:,.4g}", (total, place), xytext=(3, -3), textcoords="offset points", fontsize=8
        )
    axes.set_yticks(places, [row.label for row in rows], fontsize=8)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.1)
    axes.set_xlabel("cost, GMAC (one multiply-add = 1), lower is better")
    figure.legend(frameon=False, fontsize=8, ncols=3, loc="outside lower center")
    figure.savefig(path, dpi=150)
    return path
