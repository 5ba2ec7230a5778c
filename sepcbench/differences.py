"""How far one row's AP is above another's, on the same draws of images; from records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sepcbench.records import Accuracy, Recall, Row, ScoreDifference
from sepcbench.stats import MIN_IMAGES, centred

Scored = Accuracy | Recall
KINDS = ("accuracy", "masks", "recall")


def scored_value(record: Scored) -> float | None:
    """What the draws of a record are of: AP, or AR at 1000 of proposals."""
    return record.ar1000 if isinstance(record, Recall) else record.ap


def same_set(ours: Scored, reference: Scored) -> bool:
    """Whether two were scored on the same images: by their draws, else by the set's name."""
    if ours.drawn_from and reference.drawn_from:
        return ours.drawn_from == reference.drawn_from
    return (ours.dataset, ours.images) == (reference.dataset, reference.images)


def difference(ours: Scored, reference: Scored, to: str) -> ScoreDifference | None:
    """The difference of two scores of the same kind on the same set.

    Args:
        ours: of the one.
        reference: of the other.
        to: the other's name.

    Returns:
        Without an interval where a record has no draws; None where a score is missing.
    """
    ap, other = scored_value(ours), scored_value(reference)
    if ap is None or other is None:
        return None
    delta = ap - other
    if not ours.draws or not paired(ours, reference):
        return ScoreDifference(to, delta, None, False)
    ci95 = centred(np.subtract(ours.draws, reference.draws), delta)
    resolved = ci95 is not None and ours.images >= MIN_IMAGES and not ci95[0] <= 0 <= ci95[1]
    return ScoreDifference(to, delta, ci95, resolved)


def paired(ours: Scored, reference: Scored) -> bool:
    """Whether the same images are in the same draw of both."""
    return same_set(ours, reference) and len(ours.draws) == len(reference.draws)


def against_first(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows with their differences to the first one that was scored, by kind of record.

    Only where both were drawn from the same images.
    """
    first = {kind: next((row for row in rows if _drawn(row, kind)), None) for kind in KINDS}
    return tuple(replace(row, differences=_differences(row, first)) for row in rows)


def _drawn(row: Row, kind: str) -> bool:
    record: Scored | None = getattr(row, kind)
    return record is not None and bool(record.draws)


def _differences(row: Row, first: dict[str, Row | None]) -> tuple[tuple[str, ScoreDifference], ...]:
    found = []
    for kind, other in first.items():
        if other is None or other.name == row.name or not _drawn(row, kind):
            continue
        ours, reference = getattr(row, kind), getattr(other, kind)
        if paired(ours, reference) and (made := difference(ours, reference, other.name)):
            found.append((kind, made))
    return tuple(found)
