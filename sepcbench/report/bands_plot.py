"""AP by finer sizes of objects than small, medium and large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sepcbench.records import Accuracy, Results, Row, SizeBand
from sepcbench.report.figures import COLOURS, Sheet, panels, sheet, short_label

_UNITS = {"pixels": "root of the area, pixels", "relative": "root of the area over the image's, %"}
_UP = "AP, %  (higher is better)"
OTHERS = "others"
_UNSEEN = 1e-3  # of AP: a tenth of a point


def bands_plot(results: Results, title: str) -> Sheet | None:
    """Draw AP over the size of objects, a line per row; one panel for pixels, one relative.

    Where all images are of one size both say the same, and pixels stand alone. A grouped suite has
    a panel per group, in pixels: lines of all rows would hide each other.

    Returns:
        The figure, or None where no row was scored by finer sizes.
    """
    rows = [row for row in results.rows if row.accuracy and row.accuracy.bands]
    if not rows:
        return None
    kinds = list(dict.fromkeys(band.kind for row in rows for band in _record(row).bands))
    groups = list(dict.fromkeys(row.group or OTHERS for row in rows))
    if len(groups) > 1:
        return _by_group(title, groups, rows, kinds[0])
    if all(_same_twice(row, kinds) for row in rows):
        kinds = kinds[:1]
    made = sheet(title, 3.2, (1, len(kinds)), legend=len(rows), sharey=True)
    handles: list[Any] = []
    for axes, kind in zip(made.axes[0], kinds):
        handles = _lines(axes, rows, [row.label for row in rows], kind)
        axes.set_xlabel(_across(kind), fontsize=8)
    made.axes[0, 0].set_ylabel(_UP)
    made.legend(handles)
    return made


def _by_group(title: str, groups: list[str], rows: Sequence[Row], kind: str) -> Sheet:
    made, by_group = panels(title, groups, legend=0, sharey=True)
    for group, axes in by_group.items():
        inside = [row for row in rows if (row.group or OTHERS) == group]
        labels = [short_label(row.label, group) for row in inside]
        handles = _lines(axes, inside, labels, kind)
        axes.legend(
            handles=handles, fontsize=6, loc="upper left", handlelength=1.4, labelspacing=0.2
        )
    made.label(_across(kind), _UP)
    return made


def _across(kind: str) -> str:
    return f"{_UNITS.get(kind, kind)}; objects below"


def _same_twice(row: Row, kinds: Sequence[str]) -> bool:
    """Whether all kinds part the objects of a row alike, and so give one curve.

    They may differ in detections that match nothing, by less than is seen.
    """
    first, *rest = [_filled(row, kind) for kind in kinds]
    return all(
        len(one) == len(first) and all(_alike(a, b) for a, b in zip(one, first)) for one in rest
    )


def _alike(one: SizeBand, other: SizeBand) -> bool:
    return one.objects == other.objects and abs((one.ap or 0.0) - (other.ap or 0.0)) < _UNSEEN


def _filled(row: Row, kind: str) -> list[SizeBand]:
    """The bands that have objects."""
    return [band for band in _record(row).bands if band.kind == kind and band.objects]


def _lines(axes: Any, rows: Sequence[Row], labels: Sequence[str], kind: str) -> list[Any]:
    """Draw a line per row; gives them."""
    handles: list[Any] = []
    for i, (row, label) in enumerate(zip(rows, labels)):
        bands = _filled(row, kind)
        places = range(len(bands))
        values = [None if band.ap is None else 100 * band.ap for band in bands]
        style = ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
        (line,) = axes.plot(
            places, values, style, marker="o", ms=3, color=COLOURS[i % len(COLOURS)],
            linewidth=1.2, label=label,
        )  # fmt: skip
        scale = 100 if kind == "relative" else 1
        axes.set_xticks(places, [f"{scale * b.low:.3g}+\n{b.objects}" for b in bands])
        handles.append(line)
    return handles


def _record(row: Row) -> Accuracy:
    assert row.accuracy is not None  # of rows that were chosen for having one
    return row.accuracy
