"""Pictures of what a network does: where its kernels read, what its cells see, what they score."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sepcbench.errors import StoreError
from sepcbench.report.figures import COLOURS

_MAPS = "magma"
# what shows of the surroundings where kernels read outside the image, in parts of its sides
_MOST_OUTSIDE = 0.5
_CELL = 2.1  # the longer side of a panel, in inches


class Picture(NamedTuple):
    """An image as drawn under everything.

    `pixels` (H, W, 3) uint8 of the file; `size` (h, w) of what the network sees of it, without
    padding, in whose pixels everything is placed.
    """

    pixels: np.ndarray
    size: tuple[int, int]


class Panel(NamedTuple):
    """The place of one panel, by its row and its column, and what stands above it."""

    row: str
    column: str
    title: str


class Taps(NamedTuple):
    """Of one point (x, y): where a kernel would read without offsets, and where it does, (9, 2)."""

    point: tuple[float, float]
    plain: np.ndarray
    taps: np.ndarray


class Field(NamedTuple):
    """Weights (H, W) of the pixels around a cell that lies at `centre` (x, y), the largest 1."""

    weights: np.ndarray
    centre: tuple[float, float]


class Scores(NamedTuple):
    """A map (h, w) of scores, `stride` pixels per cell, the first around `first` (x, y)."""

    values: np.ndarray
    stride: int
    first: tuple[float, float]


def write_taps(
    path: Path, title: str, picture: Picture, panels: Sequence[tuple[Panel, Sequence[Taps]]]
) -> None:
    """Draw where kernels read: hollow without offsets, filled with them; a cross at each point.

    Points that share a cell have their kernel drawn once, in the colour of the first.

    Args:
        path: the PNG file to write.
        title: above all.
        picture: the image under every panel.
        panels: per kernel and level, the taps of the same points.

    Raises:
        StoreError: the file cannot be written.
    """
    reach = _reach([np.concatenate([t.plain, t.taps]) for _, taps in panels for t in taps], picture)
    shown = (round(reach[3] - reach[1]), round(reach[2] - reach[0]))
    figure, places = _grid(title, [panel for panel, _ in panels], shown)
    for panel, points in panels:
        axes = places[panel.row, panel.column]
        _show(axes, picture, 0.55)
        drawn: list[np.ndarray] = []
        for taps, colour in zip(points, COLOURS):
            if not any(np.array_equal(taps.plain, other) for other in drawn):
                _draw_taps(axes, taps, colour)
            drawn.append(taps.plain)
            axes.plot(*taps.point, "+", color=colour, markersize=8, mew=1.6)
        axes.set_xlim(reach[0], reach[2])
        axes.set_ylim(reach[3], reach[1])
    _save(figure, path)


def _draw_taps(axes: Any, taps: Taps, colour: str) -> None:
    for (x, y), (to_x, to_y) in zip(taps.plain, taps.taps):
        axes.plot([x, to_x], [y, to_y], "-", color=colour, linewidth=0.6, alpha=0.7)
    x, y = taps.plain.T
    axes.plot(x, y, "o", mfc="none", mec="#222222", markersize=5, mew=0.6)
    x, y = taps.taps.T
    axes.plot(x, y, "o", color=colour, mec="white", markersize=3.6, mew=0.4)


def _reach(places: Sequence[np.ndarray], picture: Picture) -> tuple[float, float, float, float]:
    """What to show, (left, top, right, bottom): the image and, in bounds, what is read around."""
    height, width = picture.size
    points = np.concatenate([*places, [[0, 0], [width, height]]])
    beyond = _MOST_OUTSIDE * np.array([width, height])
    margin = 0.03 * max(height, width)
    low = np.maximum(points.min(axis=0) - margin, -beyond)
    high = np.minimum(points.max(axis=0) + margin, np.array([width, height]) + beyond)
    return (*low.tolist(), *high.tolist())


def write_fields(path: Path, title: str, panels: Sequence[tuple[Panel, Field]]) -> None:
    """Draw effective receptive fields, each on its own scale.

    Args:
        path: the PNG file to write.
        title: above all.
        panels: one per stage and level.

    Raises:
        StoreError: the file cannot be written.
    """
    height, width = panels[0][1].weights.shape
    figure, places = _grid(title, [panel for panel, _ in panels], (height, width))
    for panel, field in panels:
        axes = places[panel.row, panel.column]
        image = axes.imshow(
            _pooled(field.weights), cmap=_MAPS, vmin=0, vmax=1, extent=(0, width, height, 0)
        )
        axes.plot(*field.centre, "+", color="#56B4E9", markersize=8, mew=1.0)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
    _bar(figure, image, list(places.values()), "square root of the weight; the largest is 1")
    _save(figure, path)


def _pooled(weights: np.ndarray) -> np.ndarray:
    """Square roots of the weights, the largest of each block where there are many pixels.

    What is seen only by strided convs are dots, which a small picture would lose.
    """
    block = max(1, round(max(weights.shape) / 256))
    height, width = (side // block * block for side in weights.shape)
    blocks = weights[:height, :width].reshape(height // block, block, width // block, block)
    pooled: np.ndarray = np.sqrt(blocks.max(axis=(1, 3)))
    return pooled


def write_scores(
    path: Path, title: str, picture: Picture, panels: Sequence[tuple[Panel, Scores]]
) -> None:
    """Draw maps of scores over the image, all on one scale from 0 to the largest.

    Args:
        path: the PNG file to write.
        title: above all.
        picture: the image under every panel.
        panels: one per class and level.

    Raises:
        StoreError: the file cannot be written.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, places = _grid(title, [panel for panel, _ in panels], picture.size)
    top = max(float(scores.values.max()) for _, scores in panels)
    for panel, scores in panels:
        axes = places[panel.row, panel.column]
        _show(axes, picture, 0.8, grey=True)
        _draw_scores(axes, scores, top or 1.0)
        _frame(axes, picture)
    scale = ScalarMappable(Normalize(0, top or 1.0), _MAPS)
    _bar(figure, scale, list(places.values()), "score")
    _save(figure, path)


def _draw_scores(axes: Any, scores: Scores, top: float) -> None:
    rows, columns = scores.values.shape
    left, above = (middle - scores.stride / 2 for middle in scores.first)
    axes.imshow(
        scores.values,
        cmap=_MAPS,
        vmin=0,
        vmax=top,
        alpha=0.9 * (scores.values / top).clip(0, 1) ** 0.7,
        interpolation="nearest",
        extent=(left, left + columns * scores.stride, above + rows * scores.stride, above),
    )


# --- what they share -------------------------------------------------------------------------


def _grid(
    title: str, panels: Sequence[Panel], size: tuple[int, int]
) -> tuple[Any, dict[tuple[str, str], Any]]:
    """A figure, and its axes by row and column; places without a panel stay empty."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(panel.row for panel in panels))
    columns = list(dict.fromkeys(panel.column for panel in panels))
    height, width = (_CELL * side / max(size) for side in size)
    across = len(columns) * (width + 0.1) + 1.2
    title = "\n".join(wrap for line in title.split("\n") for wrap in _wrapped(line, across))
    down = len(rows) * (height + 0.3) + 0.35 + 0.18 * title.count("\n")
    figure = Figure(figsize=(across, down), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=8)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    wanted = {(panel.row, panel.column): panel for panel in panels}
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            _prepare(axes[i, j], wanted.get((row, column)), column if i == 0 else "")
            if (row, column) not in wanted:
                axes[i, j].set_box_aspect(height / width)
        axes[i, 0].set_ylabel(row, fontsize=9)
    return figure, {
        (row, column): axes[rows.index(row), columns.index(column)] for row, column in wanted
    }


def _wrapped(line: str, across: float) -> list[str]:
    """A line of a title in pieces that fit `across` inches."""
    return textwrap.wrap(line, max(30, int(across / 0.066)))


def _prepare(axes: Any, panel: Panel | None, column: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(panel is not None)
    axes.spines[:].set_color("#999999")
    axes.set_facecolor("none")
    above = [text for text in (column, panel.title if panel else "") if text]
    axes.set_title("\n".join(above), fontsize=8)


def _show(axes: Any, picture: Picture, alpha: float, grey: bool = False) -> None:
    """The image, pale or in grey, under what is drawn."""
    height, width = picture.size
    pixels = picture.pixels
    if grey:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    axes.imshow(pixels, alpha=alpha, extent=(0, width, height, 0), interpolation="bilinear")


def _frame(axes: Any, picture: Picture) -> None:
    height, width = picture.size
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)


def _bar(figure: Any, image: Any, axes: list[Any], label: str) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, pad=0.01)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise StoreError(f"'{path}' cannot be written: {error.strerror}") from None
