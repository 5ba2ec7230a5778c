"""Correlations between the levels of pyramids as a picture (figure 2 of arXiv 2005.03101)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sepcbench.errors import StoreError

Named = tuple[str, Sequence[str], Sequence[Sequence[float | None]]]


def write_matrices(path: Path, title: str, matrices: Sequence[Named]) -> None:
    """Draw one square per matrix, side by side on one colour scale from -1 to 1.

    Args:
        path: the PNG file to write.
        title: above all.
        matrices: name, names of the levels, rows of correlations (None where there is none).

    Raises:
        StoreError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = sum(1.1 + 0.5 * len(levels) for _, levels, _ in matrices)
    height = 1.7 + 0.5 * max(len(levels) for _, levels, _ in matrices)
    figure = Figure(figsize=(width + 0.8, height), layout="constrained")
    FigureCanvasAgg(figure)
    squares = figure.subplots(
        1, len(matrices), squeeze=False, width_ratios=[len(levels) for _, levels, _ in matrices]
    )[0]
    for axes, matrix in zip(squares, matrices):
        image = _draw(axes, matrix)
    bar = figure.colorbar(image, ax=list(squares), shrink=0.75)
    bar.set_label("correlation", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10)
    try:
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise StoreError(f"--plot '{path}' cannot be written: {error.strerror}") from None


def _draw(axes: Any, matrix: Named) -> Any:
    name, levels, rows = matrix
    values = [[float("nan") if value is None else value for value in row] for row in rows]
    image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.set_title(name, fontsize=9)
    places = range(len(levels))
    axes.set_xticks(places, levels, fontsize=8)
    axes.set_yticks(places, levels, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            text = "-" if value is None else f"{value:.2f}".replace("-0.00", "0.00")
            dark = value is not None and abs(value) > 0.65
            colour = "white" if dark else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    return image
