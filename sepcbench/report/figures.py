"""What all plots share: colours, sizes, headings, panels, and files that come out the same."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepcbench.records import Results

# Okabe and Ito's palette, its yellow darker: told apart by colour-blind readers and in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#8F8200")
GREY = "#666666"
WIDTH = 7.0  # inches, the text width of most papers
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: journals refuse type 3
    "svg.hashsalt": "sepcbench",  # the same records give the same file
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
# no dates in files, so that drawing again changes nothing
_UNDATED: dict[str, dict[str, None]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
FORMATS = tuple(_UNDATED)
_LETTERS = 88  # of a heading's line at full width


def heading(results: Results) -> str:
    """What stands over a picture: the suite, and the machine or that nothing was measured."""
    place = results.machine if results.environment else "published values only"
    return "\n".join([*textwrap.wrap(results.title, _LETTERS), place])


def colours(results: Results) -> dict[str, str]:
    """A colour per row; rows of one group share theirs, rows outside of all groups are grey."""
    groups = list(dict.fromkeys(row.group for row in results.rows if row.group))
    if not groups:
        return {row.name: COLOURS[i % len(COLOURS)] for i, row in enumerate(results.rows)}
    of_group = {group: COLOURS[i % len(COLOURS)] for i, group in enumerate(groups)}
    return {row.name: of_group.get(row.group, GREY) for row in results.rows}


def short_label(label: str, group: str) -> str:
    """A row's label where its group is named already: "SEPC" of "FCOS, SEPC"."""
    return label.removeprefix(f"{group}, ") or label


@dataclass(frozen=True)
class Sheet:
    """A figure: axes, and a strip below them for the legend, so that neither is in the other's way.

    `axes` is an array of matplotlib's, (rows, columns); `body` is all of them, with the labels
    that they share.
    """

    figure: Any
    body: Any
    axes: Any
    strip: Any

    def label(self, across: str, up: str = "") -> None:
        """Label the horizontal and the vertical axis of all axes together."""
        self.body.supxlabel(across, fontsize=9)
        if up:
            self.body.supylabel(up, fontsize=9)

    def legend(self, handles: Sequence[Any]) -> None:
        """Write the legend into the strip, in as many lines as `legend_lines` says."""
        if handles:
            columns = -(-len(handles) // legend_lines(len(handles)))
            self.strip.legend(handles=handles, loc="center", ncols=columns)


def legend_lines(entries: int) -> int:
    """How many lines a legend takes."""
    return -(-entries // 3) if entries > 4 else min(entries, 1)


def sheet(
    title: str, height: float, shape: tuple[int, int] = (1, 1), legend: int = 1, **grid: Any
) -> Sheet:
    """An empty figure with its axes.

    Args:
        title: over all; "" for none.
        height: in inches, of the axes with all that is written at them.
        shape: rows and columns of axes.
        legend: how many entries it will have.
        grid: passed on to matplotlib's `subplots`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = title.count("\n") + 1 if title else 0
    below = 0.08 + 0.17 * legend_lines(legend)
    made = Figure(figsize=(WIDTH, height + below + 0.18 * lines), layout="constrained")
    FigureCanvasAgg(made)
    if title:
        made.suptitle(title, fontsize=10)
    parts: Any = made.subfigures(2, 1, height_ratios=(height, below), hspace=0)
    body, strip = parts
    return Sheet(made, body, body.subplots(*shape, squeeze=False, **grid), strip)


def panels(
    title: str, names: Sequence[str], legend: int = 1, height: float = 2.1, **grid: Any
) -> tuple[Sheet, dict[str, Any]]:
    """One small axes per name, three beside each other, each of a height in inches.

    Returns:
        The sheet, and its axes by name.
    """
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    made = sheet(title, height * rows + 0.3, (rows, columns), legend, **grid)
    flat = list(made.axes.flat)
    for one, name in zip(flat, names):
        one.set_title(name, loc="left", fontweight="bold", fontsize=8)
        one.tick_params(labelsize=7)
    for one in flat[len(names) :]:
        one.set_axis_off()
    for one in flat[len(names) - columns : len(names)]:  # the lowest of their column
        one.tick_params(labelbottom=True)
    return made, dict(zip(names, flat))


def save(made: Sheet, path: Path, title: str) -> Path:
    """Write a sheet in the format that the file's name ends in."""
    form = path.suffix[1:]
    metadata = {"Title": title.replace("\n", ", "), **_UNDATED[form]}
    made.figure.savefig(path, dpi=150, format=form, metadata=metadata)
    return path
