"""AP (or AR) over a price, with intervals and the Pareto front; by group where rows are many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from sepcbench.records import Results
from sepcbench.report.figures import Sheet, colours, panels, sheet, short_label
from sepcbench.report.labels import Line, label_points, make_room
from sepcbench.report.points import (
    KINDS,
    PRICES,
    QUALITIES,
    Kind,
    Mark,
    front,
    marks,
    named,
    ranked,
    scored_on,
)

MOST_NAMES = 15  # more names than this hide each other in one picture
OTHERS = "others"
_BACKGROUND = "#c8c8c8"
_FRONT: dict[str, Any] = {"color": "#444444", "linewidth": 1.0, "linestyle": "--"}
# per kind: matplotlib's marker, size, and whether it is filled
_MARKERS: dict[Kind, tuple[str, float, bool]] = {
    "measured": ("o", 6.5, True),
    "elsewhere": ("s", 6.5, False),
    "published": ("o", 8.5, False),
}


def price_plot(results: Results, title: str, quality: str, price: str) -> Sheet | None:
    """Draw a quality over a price.

    Rows of one group are joined in the order of their price. Where there are more rows than can
    be named in one picture, every group has its own, with all other rows in grey behind it.

    Args:
        results: what to draw.
        title: over the picture; "" for none.
        quality: a key of `points.QUALITIES`.
        price: a key of `points.PRICES`.

    Returns:
        The figure, or None where no row has both.
    """
    paid = PRICES[price](results)
    found = marks(results, QUALITIES[quality], paid) if paid else []
    if paid is None or not found:
        return None
    groups = list(dict.fromkeys(mark.row.group or OTHERS for mark in found))
    split = len(groups) > 1 and len(named(found)) > MOST_NAMES
    draw = _by_group if split else _together
    bought = QUALITIES[quality]
    up = f"{bought.name}, % on {scored_on(results, bought)}  (higher is better)"
    return draw(results, title, found, f"{paid.label}  (lower is better)", up)


def _together(results: Results, title: str, found: Sequence[Mark], across: str, up: str) -> Sheet:
    handles = _legend(found)
    made = sheet(title, 4.0, legend=len(handles))
    one = made.axes[0, 0]
    _draw_front(one, found)
    _draw_marks(one, results, found)
    one.set_xlabel(across)
    one.set_ylabel(up)
    made.legend(handles)
    make_room(made.figure)
    names = [(mark.x, mark.y, mark.row.label) for mark in named(found)]
    label_points(one, names, _lines(found, _stairs(found)))
    return made


def _by_group(results: Results, title: str, found: Sequence[Mark], across: str, up: str) -> Sheet:
    groups = list(dict.fromkeys(mark.row.group or OTHERS for mark in found))
    handles = _legend(found)
    made, axes = panels(title, groups, len(handles), sharex=True, sharey=True)
    made.label(across, up)
    for group, one in axes.items():
        inside = [mark for mark in found if (mark.row.group or OTHERS) == group]
        for mark in ranked(found):
            one.plot(mark.x, mark.y, "o", color=_BACKGROUND, markersize=3.5, zorder=1)
        _draw_front(one, found)
        _draw_marks(one, results, inside)
    made.legend(handles)
    make_room(made.figure)
    for group, one in axes.items():
        inside = [mark for mark in found if (mark.row.group or OTHERS) == group]
        names = [(mark.x, mark.y, short_label(mark.row.label, group)) for mark in named(inside)]
        label_points(one, names, _lines(inside, _stairs(found)), fontsize=7)
    return made


def _stairs(found: Sequence[Mark]) -> list[tuple[float, float]]:
    """Corners of the Pareto front: what the rows reach at every price, up to the dearest."""
    rows = ranked(found)
    steps = front(rows)
    if not steps or steps[0].x == max(mark.x for mark in rows):
        return []
    corners = [(steps[0].x, steps[0].y)]
    for one, other in pairwise(steps):
        corners += [(other.x, one.y), (other.x, other.y)]
    return [*corners, (max(mark.x for mark in rows), steps[-1].y)]


def _draw_front(axes: Any, found: Sequence[Mark]) -> None:
    corners = _stairs(found)
    axes.plot([x for x, _ in corners], [y for _, y in corners], zorder=1.5, **_FRONT)


def _draw_marks(axes: Any, results: Results, found: Sequence[Mark]) -> None:
    of_row = colours(results)
    for inside in _joined(found):
        xs, ys = [mark.x for mark in inside], [mark.y for mark in inside]
        colour = of_row[inside[0].row.name]
        axes.plot(xs, ys, "-", color=colour, linewidth=1, alpha=0.5, zorder=1.6)
    for mark in found:
        _draw_mark(axes, mark, of_row[mark.row.name])
    for one, other in _pairs(found):
        colour = of_row[one.row.name]
        axes.plot([one.x, other.x], [one.y, other.y], ":", color=colour, linewidth=0.8, zorder=1.6)


def _joined(found: Sequence[Mark]) -> list[list[Mark]]:
    """The points of each group in the order of their price: a line goes through them."""
    groups: dict[str, list[Mark]] = {}
    for mark in sorted(ranked(found), key=lambda mark: mark.x):
        if mark.row.group:
            groups.setdefault(mark.row.group, []).append(mark)
    return list(groups.values())


def _draw_mark(axes: Any, mark: Mark, colour: str) -> None:
    sign, size, filled = _MARKERS[mark.kind]
    bar: dict[str, Any] = {"color": colour, "linewidth": 1.2, "alpha": 0.8, "zorder": 2}
    if mark.x_interval:
        axes.plot(mark.x_interval, [mark.y, mark.y], "-", **bar)
    if mark.y_interval:
        axes.plot([mark.x, mark.x], mark.y_interval, "-", **bar)
    face = colour if filled else "none"
    axes.plot(mark.x, mark.y, sign, mfc=face, mec=colour, mew=1.3, markersize=size, zorder=3)


def _pairs(found: Sequence[Mark]) -> list[tuple[Mark, Mark]]:
    """Points of one row, two by two: the same network, published and measured."""
    return [(a, b) for a, b in pairwise(found) if a.row.name == b.row.name]


def _legend(found: Sequence[Mark]) -> list[Any]:
    """What markers and lines are."""
    from matplotlib.lines import Line2D

    handles = []
    for kind, text in KINDS.items():
        if any(mark.kind == kind for mark in found):
            sign, size, filled = _MARKERS[kind]
            face = "#444444" if filled else "none"
            handles.append(
                Line2D([], [], ls="", marker=sign, ms=size - 1, mfc=face, mec="#444444", label=text)
            )
    if any(mark.x_interval or mark.y_interval for mark in found):
        handles.append(Line2D([], [], color="#444444", lw=1.2, label="95 % interval"))
    if _stairs(found):
        handles.append(Line2D([], [], label="Pareto front", **_FRONT))
    return handles


def _lines(found: Sequence[Mark], stairs: Sequence[tuple[float, float]]) -> list[Line]:
    """The markers, bars and lines that names should keep clear of."""
    markers = [((m.x, m.y), (m.x, m.y)) for m in found if m not in named(found)]
    across = [((m.x_interval[0], m.y), (m.x_interval[1], m.y)) for m in found if m.x_interval]
    up = [((m.x, m.y_interval[0]), (m.x, m.y_interval[1])) for m in found if m.y_interval]
    joined = [((a.x, a.y), (b.x, b.y)) for marks in _joined(found) for a, b in pairwise(marks)]
    return [*markers, *up, *across, *joined, *pairwise(stairs)]
