"""Rows of a suite down the left of a plot, with a gap and a heading before each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sepcbench.records import Row
from sepcbench.report.figures import short_label

_STEP = 0.19  # inches from one row to the next


@dataclass(frozen=True)
class RowAxis:
    """Where rows and headings stand, from the top down; all places are negative or 0."""

    places: tuple[float, ...]
    labels: tuple[str, ...]
    headings: tuple[tuple[float, str], ...]

    @property
    def height(self) -> float:
        """What all rows take, in inches."""
        return _STEP * (1.2 - min(self.places))


def row_axis(rows: Sequence[Row], extra: Sequence[str] = ()) -> RowAxis:
    """Put rows below each other in their order, under the name of their group where they have one.

    Args:
        rows: at least one.
        extra: what to add to each label, such as how it was counted.
    """
    places: list[float] = []
    headings: list[tuple[float, str]] = []
    at, group = 1.0, ""
    for row in rows:
        if row.group != group:
            at -= 0.4 if places else 0.0
            if row.group:
                at -= 1.0
                headings.append((at, row.group))
            group = row.group
        at -= 1.0
        places.append(at)
    labels = [short_label(row.label, row.group) for row in rows]
    if extra:
        labels = [f"{label} ({more})" if more else label for label, more in zip(labels, extra)]
    return RowAxis(tuple(places), tuple(labels), tuple(headings))


def write_rows(axes: Any, rows: RowAxis) -> None:
    """Label the vertical axis with the rows and the headings of groups."""
    marks = sorted([*zip(rows.places, rows.labels), *rows.headings], reverse=True)
    axes.set_yticks([place for place, _ in marks], [text for _, text in marks], fontsize=8)
    heads = {place for place, _ in rows.headings}
    for tick, (place, _) in zip(axes.yaxis.get_major_ticks(), marks):
        if place in heads:
            tick.label1.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(min(rows.places) - 0.6, max([*rows.places, *heads]) + 0.6)
