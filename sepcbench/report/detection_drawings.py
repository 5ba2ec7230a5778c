"""Pictures of detections: what was found over an image, and what is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sepcbench.errors import StoreError
from sepcbench.report.figures import COLOURS

# the long side of a picture is at least this, in pixels; small images are enlarged
_LEAST = 720
_DPI = 100
_STRIP = 26  # height of the line below, in pixels


class Box(NamedTuple):
    """One object, found or true.

    `corners` (x1, y1, x2, y2) in pixels of the image; `label` counts classes from 0 and decides
    the colour; `name` and `score` (None for a true one) stand beside it; `mask` (H, W) bool.
    """

    corners: tuple[float, float, float, float]
    label: int
    name: str
    score: float | None = None
    mask: np.ndarray | None = None


def write_detections(
    path: Path, pixels: np.ndarray, found: Sequence[Box], truth: Sequence[Box], note: str = ""
) -> None:
    """Draw what was found, solid and in the colour of its class, and what is there, thin and white.

    Args:
        path: the PNG file to write.
        pixels: (H, W, 3) uint8.
        found: detections; the best are drawn last.
        truth: annotated objects.
        note: the line below the image.

    Raises:
        StoreError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = pixels.shape[:2]
    scale = max(1.0, _LEAST / max(height, width))
    across, down = width * scale, height * scale + _STRIP
    figure = Figure(figsize=(across / _DPI, down / _DPI))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, _STRIP / down, 1, 1 - _STRIP / down))
    axes.set_axis_off()
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="bilinear")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    for box in sorted(found, key=lambda box: box.score or 0.0):
        _draw_found(axes, box, (height, width))
    for box in truth:
        _draw_true(axes, box)
    figure.text(0.01, 0.3 * _STRIP / down, note, fontsize=9)
    try:
        figure.savefig(path, dpi=_DPI, format="png")
    except OSError as error:
        raise StoreError(f"'{path}' cannot be written: {error.strerror}") from None


def _draw_found(axes: Any, box: Box, size: tuple[int, int]) -> None:
    colour = COLOURS[box.label % len(COLOURS)]
    height, width = size
    if box.mask is not None:
        extent = (0, width, height, 0)
        axes.imshow(_tint(box.mask, colour), extent=extent, interpolation="nearest")
        if box.mask.any() and not box.mask.all():
            places = np.arange(width) + 0.5, np.arange(height) + 0.5
            axes.contour(*places, box.mask, levels=[0.5], colors=[colour], linewidths=1.2)
    axes.add_patch(_rectangle(box, edgecolor=colour, linewidth=2))
    x, y = max(box.corners[0], 0.0), max(box.corners[1], 0.0)
    text = box.name if box.score is None else f"{box.name} {box.score:.2f}".strip()
    inside = y < 0.05 * height  # no room above the box
    axes.annotate(
        text,
        (x, y),
        xytext=(2, -2 if inside else 2),
        textcoords="offset points",
        va="top" if inside else "bottom",
        fontsize=8,
        color="white" if _is_dark(colour) else "black",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2, "alpha": 0.9},
    )


def _draw_true(axes: Any, box: Box) -> None:
    for colour, width, style in (("black", 1.8, "-"), ("white", 1.0, (0, (4, 3)))):
        axes.add_patch(_rectangle(box, edgecolor=colour, linewidth=width, linestyle=style))


def _rectangle(box: Box, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    x1, y1, x2, y2 = box.corners
    return Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, **style)


def _tint(mask: np.ndarray, colour: str) -> np.ndarray:
    """A mask (H, W) as a layer (H, W, 4) to lay over the image."""
    from matplotlib.colors import to_rgba

    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(colour, 0.25)
    return layer


def _is_dark(colour: str) -> bool:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
