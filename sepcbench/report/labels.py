"""Names beside the points of a plot, placed so that they hide neither points nor each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float, str]
Line = tuple[tuple[float, float], tuple[float, float]]

# Where a name may stand: its direction from the marker, nearest rings first. Beside before above.
_DIRECTIONS = ((1, 0.6), (1, -0.6), (-1, 0.6), (-1, -0.6), (1, 0), (-1, 0), (0, 1), (0, -1))
_RINGS = (6.0, 13.0, 21.0, 30.0, 42.0)  # points from the marker
_LEADER = 10.0  # further away than this a thin line leads to the point
_MARKER = 5.0  # half the side of what a marker covers, in points
_SWEEPS = 4  # every name is placed anew this often, given where the others stand


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: Box) -> float:
        """The area that two boxes share, in square pixels."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, frame: Box) -> float:
        """The area of this box that is not in the frame, in square pixels."""
        return (self.x1 - self.x0) * (self.y1 - self.y0) - self.overlap(frame)

    def distance(self, x: float, y: float) -> float:
        """From the nearest place of the box to a point, in pixels."""
        across = max(self.x0 - x, x - self.x1, 0.0)
        down = max(self.y0 - y, y - self.y1, 0.0)
        return math.hypot(across, down)


@dataclass(frozen=True)
class Place:
    """Where a name may stand: its box, how far from the marker (points), and its rank."""

    box: Box
    far: float
    rank: int


def make_room(figure: Any) -> None:
    """Widen the limits of all axes for names, and fix where everything is."""
    for axes in figure.axes:
        axes.margins(x=0.12, y=0.12)
    figure.draw_without_rendering()


def label_points(
    axes: Any, points: Sequence[Point], lines: Sequence[Line] = (), fontsize: float = 8
) -> None:
    """Name points: each where it is free, near its point and nearer to it than to any other.

    Args:
        axes: of matplotlib, after `make_room`.
        points: (x, y, name) in data coordinates.
        lines: to keep clear of where possible, (start, end) in data coordinates; a marker that has
            no name starts where it ends.
        fontsize: in points.
    """
    if not points:
        return
    pixels = axes.figure.dpi / 72  # per point
    centres = [tuple(axes.transData.transform(point[:2])) for point in points]
    markers = [_around(x, y, _MARKER * pixels) for x, y in centres]
    strokes = [box for line in lines for box in _along(axes, line)]
    frame = _box(axes.get_window_extent())
    notes = [axes.text(x, y, name, fontsize=fontsize) for x, y, name in points]
    sizes = [_box(note.get_window_extent()) for note in notes]
    places = [_places(x, y, size, pixels) for (x, y), size in zip(centres, sizes)]
    chosen = [options[0] for options in places]
    for _ in range(_SWEEPS):
        for i, options in enumerate(places):
            others = [place.box for j, place in enumerate(chosen) if j != i]
            chosen[i] = min(
                options,
                key=lambda place: _cost(place, i, [*others, *markers], strokes, centres, frame),
            )
    for note, place, point in zip(notes, chosen, points):
        _settle(axes, note, place, point)


def _cost(
    place: Place,
    own: int,
    taken: Sequence[Box],
    strokes: Sequence[Box],
    centres: Sequence[tuple[float, ...]],
    frame: Box,
) -> float:
    """How bad a place is, in square pixels hidden; small terms settle what is left."""
    hidden = sum(place.box.overlap(other) for other in taken) + 4 * place.box.outside(frame)
    crossed = sum(place.box.overlap(stroke) for stroke in strokes)
    reach = place.box.distance(*centres[own])
    nearest = min(
        (place.box.distance(*at) for i, at in enumerate(centres) if i != own), default=math.inf
    )
    mistaken = max(reach + 3 - nearest, 0.0)
    return 5 * hidden + 2 * crossed + 6 * mistaken + 3 * place.far + 0.2 * place.rank


def _places(x: float, y: float, size: Box, pixels: float) -> list[Place]:
    width, height = size.x1 - size.x0, size.y1 - size.y0
    found: list[Place] = []
    for ring in _RINGS:
        for dx, dy in _DIRECTIONS:
            at_x = x + dx * ring * pixels + (dx - 1) / 2 * width
            at_y = y + dy * ring * pixels + (dy - 1) / 2 * height
            box = Box(at_x, at_y, at_x + width, at_y + height)
            found.append(Place(box, ring, len(found)))
    return found


def _settle(axes: Any, note: Any, place: Place, point: Point) -> None:
    """Move a name to its place, and lead a line to its point if that is far."""
    from matplotlib.patheffects import withStroke

    x, y, _ = point
    pixels = axes.figure.dpi / 72
    at = axes.transData.transform((x, y))
    offset = ((place.box.x0 - at[0]) / pixels, (place.box.y0 - at[1]) / pixels)
    arrow = None
    if place.far > _LEADER:
        arrow = {
            "arrowstyle": "-",
            "color": "#888888",
            "linewidth": 0.5,
            "shrinkA": 1,
            "shrinkB": 3,
            "relpos": (_nearest(at[0], place.box.x0, place.box.x1), 0.5),
        }
    halo = [withStroke(linewidth=2, foreground="white")]  # lines that cross a name stop at it
    axes.annotate(
        note.get_text(),
        (x, y),
        xytext=offset,
        textcoords="offset points",
        fontsize=note.get_fontsize(),
        arrowprops=arrow,
        path_effects=halo,
        zorder=4,
    )
    note.remove()


def _nearest(value: float, low: float, high: float) -> float:
    """Where between two ends the nearest place to a value is, from 0 to 1."""
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _along(axes: Any, line: Line, step: float = 8.0) -> list[Box]:
    """Small boxes along a line, in pixels."""
    (x0, y0), (x1, y1) = (axes.transData.transform(end) for end in line)
    if line[0] == line[1]:
        return [_around(x0, y0, _MARKER)]
    count = max(int(math.hypot(x1 - x0, y1 - y0) / step), 1)
    parts = [i / count for i in range(count + 1)]
    return [_around(x0 + part * (x1 - x0), y0 + part * (y1 - y0), 2.0) for part in parts]


def _around(x: float, y: float, half: float) -> Box:
    return Box(x - half, y - half, x + half, y + half)


def _box(extent: Any) -> Box:
    return Box(extent.x0, extent.y0, extent.x1, extent.y1)
