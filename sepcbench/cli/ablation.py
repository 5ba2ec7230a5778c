"""The table of `sepcbench eval --ablate-conventions`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sepcbench.cli import options
from sepcbench.cli.score import percent
from sepcbench.codec import encode
from sepcbench.report.table import Table

if TYPE_CHECKING:
    from sepcbench.data.coco import CocoData
    from sepcbench.detectors import Detector
    from sepcbench.measures.ablation import Ablated

HEADERS = ("conventions", "AP %", "AP50 %", "change", "AP % complete", "change complete")
NOTES = (
    "held fixed: weights, images, and fields changed by --set or by the checkpoint's settings",
    "AP, AP50, change: one set of raw outputs, from the pre-processing of the first row, decoded, "
    "suppressed and exported as each set says",
    "complete: images resized, normalised and padded as the set says, too",
)


def ablate(
    path: Path,
    detector: Detector,
    classes: Sequence[str],
    data: CocoData,
    device: str,
    batch: int,
    fmt: str,
) -> None:
    """Score one checkpoint under every named set of conventions and write the table."""
    from sepcbench.checkpoints.native import digest
    from sepcbench.measures.ablation import ablate as measure

    with options.progress_bar(f"ablate {path.name}") as progress:
        rows = measure(
            detector,
            data,
            classes,
            device=device,
            batch=batch,
            checkpoint=digest(path),
            progress=progress,
        )
    about = {"file": str(path), "variant": detector.spec.name}
    value = [{**about, **encode(row), "notes": list(NOTES)} for row in rows]
    options.emit(fmt, [table(path.name, rows)], value)


def table(name: str, rows: Sequence[Ablated]) -> Table:
    """One row per set, the checkpoint's own first; changes are from it, in points of AP."""
    own = rows[0].same_outputs.ap
    about = f"{rows[0].same_outputs.images} images of {rows[0].same_outputs.dataset}"
    differing = [
        f"{row.conventions} differs in {', '.join(row.differing) or 'nothing'}" for row in rows[1:]
    ]
    return Table(
        f"{name}: box AP under each set of conventions, %, higher is better",
        HEADERS,
        tuple(_row(row, own) for row in rows),
        (about, *NOTES, *differing),
    )


def _row(row: Ablated, own: float | None) -> tuple[str, ...]:
    same, complete = row.same_outputs, row.complete
    return (
        row.conventions + (" (used)" if row.used else ""),
        percent(same.ap),
        percent(same.ap50),
        "" if row.used else _change(same.ap, own),
        percent(complete.ap),
        "" if row.used else _change(complete.ap, own),
    )


def _change(ap: float | None, own: float | None) -> str:
    return "-" if ap is None or own is None else f"{100 * (ap - own):+z.2f}"
