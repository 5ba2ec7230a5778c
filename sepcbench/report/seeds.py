"""Scores over seeds: what training again with other weights and another order makes of a row."""

from __future__ import annotations

from typing import Any

from sepcbench.differences import KINDS, scored_value
from sepcbench.records import Results, Row
from sepcbench.report.columns import BLANK
from sepcbench.report.figures import Sheet, colours, sheet
from sepcbench.report.points import QUALITIES
from sepcbench.report.row_axis import row_axis, write_rows
from sepcbench.report.table import Table
from sepcbench.report.trainings import trained_unlike
from sepcbench.stats import Interval, SeedDifference, over_seeds, seed_difference

_NAMES = {one.record: one.name for one in QUALITIES.values()}


def scores_by_seed(row: Row, kind: str) -> dict[int, float]:
    """AP (AR at 1000 of proposals) by seed, as fractions of 1; empty where there is one seed.

    Seeds are counted from the recipe's own, which is 0.


    Args:
        row: of results.
        kind: "accuracy", "masks" or "recall".
    """
    first = getattr(row, kind)
    more = {one.seed: one.record for one in row.seeds if one.kind == kind}
    if not more:
        return {}
    records = ({0: first} if first else {}) | more
    values = {seed: scored_value(record) for seed, record in records.items()}  # type: ignore[arg-type]
    return {seed: value for seed, value in sorted(values.items()) if value is not None}


def seeds_table(results: Results) -> Table | None:
    """Mean, interval and range over seeds, and the paired difference to the first row.

    None where no row was trained with several seeds.
    """
    lines: list[tuple[str, ...]] = []
    for kind in KINDS:
        scores = {row.name: scores_by_seed(row, kind) for row in results.rows}
        first = next((found for found in scores.values() if found), None)
        for row in results.rows:
            if first and scores[row.name]:
                lines.append((row.label, *_cells(scores[row.name], first, _NAMES[kind])))
    if not lines:
        return None
    headers = (
        "row",
        "score",
        "seeds",
        "mean, % (higher is better)",
        "95 % interval, %",
        "lowest to highest, %",
        "difference to the first row, points",
    )
    notes = (
        "Each seed is a training of its own: other weights, another order, other flips.",
        "[95 % interval] by Student's t over seeds; differences are paired, seed by seed; ~ where "
        "the interval includes 0.",
        *trained_unlike(row for row in results.rows if row.seeds),
    )
    return Table(f"Over seeds ({results.machine})", headers, tuple(lines), notes)


def _cells(ours: dict[int, float], first: dict[int, float], name: str) -> tuple[str, ...]:
    found = over_seeds(ours)
    values = list(ours.values())
    span = f"{100 * min(values):.1f} to {100 * max(values):.1f}"
    difference = BLANK
    if ours is not first and ours.keys() & first.keys():
        difference = _difference(seed_difference(ours, first))
    return name, str(found.seeds), f"{100 * found.mean:.1f}", _ends(found.ci95), span, difference


def _ends(ci95: Interval | None) -> str:
    return "[{:z.1f}, {:z.1f}]".format(*(100 * end for end in ci95)) if ci95 else BLANK


def _difference(found: SeedDifference) -> str:
    text = f"{100 * found.delta:+z.2f}"
    if found.ci95 is None:
        return text
    low, high = (100 * end for end in found.ci95)
    return f"{text} [{low:+z.2f}, {high:+z.2f}]{'' if found.resolved else ' ~'}"


def seeds_plot(results: Results, title: str, kind: str) -> Sheet | None:
    """Draw a ring per seed, the mean and its 95 % interval, row by row.

    Args:
        results: what to draw.
        title: over the picture; "" for none.
        kind: "accuracy", "masks" or "recall".

    Returns:
        The figure, or None where no row was trained with several seeds.
    """
    scores = {row.name: scores_by_seed(row, kind) for row in results.rows}
    rows = [row for row in results.rows if scores[row.name]]
    if not rows:
        return None
    axis = row_axis(rows)
    of_row = colours(results)
    handles = _legend()
    made = sheet(title, 0.5 + axis.height, legend=len(handles))
    axes = made.axes[0, 0]
    for row, place in zip(rows, axis.places):
        found = over_seeds(scores[row.name])
        colour = of_row[row.name]
        values = [100 * value for value in scores[row.name].values()]
        axes.plot(values, [place] * len(values), "o", mfc="none", mec=colour, markersize=4)
        if found.ci95:
            ends = [100 * end for end in found.ci95]
            axes.plot(ends, [place, place], "-", color=colour, linewidth=3, alpha=0.35)
        axes.plot(100 * found.mean, place, "|", color=colour, markersize=11, mew=2)
    write_rows(axes, axis)
    made.label(f"{_NAMES[kind]}, %  (higher is better)")
    made.legend(handles)
    return made


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D

    grey = "#444444"
    return [
        Line2D([], [], ls="", marker="o", mfc="none", mec=grey, ms=4, label="one seed"),
        Line2D([], [], ls="", marker="|", color=grey, ms=11, mew=2, label="mean"),
        Line2D([], [], color=grey, lw=3, alpha=0.35, label="95 % interval of the mean"),
    ]
