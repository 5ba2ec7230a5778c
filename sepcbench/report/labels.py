"""Names beside the points of a plot, placed so that they hide neither points nor each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Point = tuple[float, float, str]

# where a name may stand, in points from its marker: beside it first, then further away
_PLACES = tuple(
    (dx * far, dy * far, "left" if dx > 0 else "right")
    for far in (1.0, 1.8, 2.8, 4.0)
    for dx, dy in ((7, 5), (7, -11), (-7, 5), (-7, -11), (9, -3), (-9, -3))
)
_MARKER = 5.0  # half the side of what a marker covers, in pixels at 100 dpi


def label_points(axes: Any, points: Sequence[Point]) -> None:
    """Name points: each at the first place that is free and inside the figure.

    Args:
        axes: of matplotlib, its limits and markers final.
        points: (x, y, name) in data coordinates.
    """
    from matplotlib.transforms import Bbox

    if not points:
        return
    axes.margins(x=0.12, y=0.12)
    figure = axes.figure
    figure.draw_without_rendering()
    taken = [_marker(axes, x, y) for x, y, _ in points]
    legend = axes.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent())
    inside = axes.get_window_extent()
    for x, y, name in sorted(points, key=lambda point: point[1]):
        note = axes.annotate(name, (x, y), xytext=(7, 5), textcoords="offset points", fontsize=8)
        best, hidden = _PLACES[0], float("inf")
        for place in _PLACES:
            _move(note, place)
            box = note.get_window_extent()
            covered = sum(_overlap(box, other) for other in taken) + _outside(box, inside)
            if covered < hidden:
                best, hidden = place, covered
            if covered == 0:
                break
        _move(note, best)
        taken.append(Bbox(note.get_window_extent().get_points()))
        if abs(best[0]) > 2 * abs(_PLACES[0][0]):
            axes.annotate(
                "",
                (x, y),
                xytext=best[:2],
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.5},
            )


def _move(note: Any, place: tuple[float, float, str]) -> None:
    note.set_position(place[:2])
    note.set_horizontalalignment(place[2])


def _marker(axes: Any, x: float, y: float) -> Any:
    """What the marker of a point covers, in pixels."""
    from matplotlib.transforms import Bbox

    across, down = axes.transData.transform((x, y))
    return Bbox.from_extents(across - _MARKER, down - _MARKER, across + _MARKER, down + _MARKER)


def _overlap(a: Any, b: Any) -> float:
    """The area that two boxes share, in square pixels."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(max(width, 0.0) * max(height, 0.0))


def _outside(box: Any, frame: Any) -> float:
    """The area of a box that is not in the frame, in square pixels."""
    return float(box.width * box.height) - _overlap(box, frame)
