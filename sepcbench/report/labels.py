"""Names beside the points of a plot, placed so that they hide neither points nor each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float, str]
Line = tuple[tuple[float, float], tuple[float, float]]

# Where a name may stand: its direction from the marker, nearest rings first. Beside before above.
_DIRECTIONS = (
    (1, 0.6), (1, -0.6), (-1, 0.6), (-1, -0.6), (1, 0), (-1, 0), (0, 1), (0, -1),
    (0.5, 1), (0.5, -1), (-0.5, 1), (-0.5, -1),
)  # fmt: skip
_RINGS = (6.0, 13.0, 21.0, 30.0, 42.0, 56.0)  # points from the marker
_LEADER = 10.0  # further away than this a thin line leads to the point
_MARKER = 5.0  # half the side of what a marker covers, in points
_SWEEPS = 4  # every name is placed anew this often, given where the others stand
_AT_AN_END = 12.0  # how much further off, in points, the end of a point's own bar counts as
_HALO = 3.0  # points of white around letters: a line that still crosses a name stops at it


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
    """Where a name may stand: its box, from where how far off (pixels, points), and its rank."""

    box: Box
    anchor: tuple[float, float]
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

    A name stands beside the marker, or above or below an upright line through it, such as its
    interval.

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
    bodies = [_body(axes, point, lines) for point in points]
    markers = [_around(*body[0], _MARKER * pixels) for body in bodies]
    strokes = [box for line in lines for box in _along(axes, line)]
    frame = _box(axes.get_window_extent())
    notes = [axes.text(x, y, name, fontsize=fontsize) for x, y, name in points]
    sizes = [_box(note.get_window_extent()) for note in notes]
    # what of a place does not hang on the other names is reckoned once
    places = [
        [(place, _fixed_cost(place, i, markers, strokes, bodies, frame)) for place in options]
        for i, options in enumerate(_places(*one, pixels) for one in zip(bodies, sizes))
    ]
    chosen = [options[0][0] for options in places]
    for _ in range(_SWEEPS):
        for i, options in enumerate(places):
            others = [place.box for j, place in enumerate(chosen) if j != i]
            chosen[i] = min(options, key=lambda one: one[1] + _HIDDEN * _shared(one[0], others))[0]
    for note, place in zip(notes, chosen):
        _settle(axes, note, place)


Body = tuple[tuple[float, float], ...]

# What a square pixel costs: of a name or marker that is hidden, of a line that is crossed.
_HIDDEN, _CROSSED = 30, 8


def _body(axes: Any, point: Point, lines: Sequence[Line]) -> Body:
    """Where a point is, and the ends of upright lines through it, in pixels."""
    x, y, _ = point
    through = [
        (line[0], line[1])
        for line in lines
        if line[0][0] == line[1][0] == x and min(line[0][1], line[1][1]) < y
        and y < max(line[0][1], line[1][1])
    ]  # fmt: skip
    ends = [end for line in through[:1] for end in line]
    return tuple(tuple(axes.transData.transform(at)) for at in ((x, y), *ends))


def _shared(place: Place, others: Sequence[Box]) -> float:
    return sum(place.box.overlap(other) for other in others)


def _fixed_cost(
    place: Place,
    own: int,
    markers: Sequence[Box],
    strokes: Sequence[Box],
    bodies: Sequence[Body],
    frame: Box,
) -> float:
    """How bad a place is, in square pixels hidden; small terms settle what is left."""
    hidden = _HIDDEN * _shared(place, markers) + 20 * place.box.outside(frame)
    reach = place.box.distance(*place.anchor)
    nearest = min(
        (place.box.distance(*at) for i, body in enumerate(bodies) if i != own for at in body),
        default=math.inf,
    )
    mistaken = max(reach + 6 - nearest, 0.0)
    settled = 10 * mistaken + 3 * place.far + 0.2 * place.rank
    return hidden + _CROSSED * _shared(place, strokes) + settled


def _places(body: Body, size: Box, pixels: float) -> list[Place]:
    width, height = size.x1 - size.x0, size.y1 - size.y0
    found: list[Place] = []
    for anchor in body:
        away = anchor[1] - body[0][1]  # 0 at the marker itself
        for ring in _RINGS if away == 0 else _RINGS[:2]:
            for dx, dy in _DIRECTIONS:
                if away * dy < 0 or (away and not dy):
                    continue  # back along its own bar
                at_x = anchor[0] + dx * ring * pixels + (dx - 1) / 2 * width
                at_y = anchor[1] + dy * ring * pixels + (dy - 1) / 2 * height
                box = Box(at_x, at_y, at_x + width, at_y + height)
                far = ring + (_AT_AN_END + 4 * abs(dx) if away else 0.0)
                found.append(Place(box, anchor, far, len(found)))
    return found


def _settle(axes: Any, note: Any, place: Place) -> None:
    """Move a name to its place, and lead a line to its point if that is far."""
    from matplotlib.patheffects import withStroke

    pixels = axes.figure.dpi / 72
    at = place.anchor
    offset = ((place.box.x0 - at[0]) / pixels, (place.box.y0 - at[1]) / pixels)
    arrow = None
    if place.box.distance(*at) > _LEADER * pixels:
        arrow = {
            "arrowstyle": "-",
            "color": "#888888",
            "linewidth": 0.5,
            "shrinkA": 1,
            "shrinkB": 3,
            "relpos": (_nearest(at[0], place.box.x0, place.box.x1), 0.5),
        }
    halo = [withStroke(linewidth=_HALO, foreground="white")]
    axes.annotate(
        note.get_text(),
        axes.transData.inverted().transform(at),
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


def _along(axes: Any, line: Line, step: float = 4.0) -> list[Box]:
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
