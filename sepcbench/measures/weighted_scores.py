"""AP and AR of a set in which each image counts so many times: once, twice, or not at all.

Matching does not depend on which other images there are, so it is done once; the weights of images
only change how far the curves of each class move at each detection.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sepcbench.measures.coco_curves import ALL, EPS, LARGE, MEDIUM, SMALL, class_hits
from sepcbench.measures.coco_matching import Matched

# name: (kind, area, IoU threshold or all of them), at the most detections
NUMBERS: dict[str, tuple[str, int, float | None]] = {
    "ap": ("ap", ALL, None),
    "ap50": ("ap", ALL, 0.5),
    "ap75": ("ap", ALL, 0.75),
    "ap_small": ("ap", SMALL, None),
    "ap_medium": ("ap", MEDIUM, None),
    "ap_large": ("ap", LARGE, None),
    "ar100": ("ar", ALL, None),
    "ar_small": ("ar", SMALL, None),
    "ar_medium": ("ar", MEDIUM, None),
    "ar_large": ("ar", LARGE, None),
}


def weighted(matched: Matched, weights: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The numbers of a set in which each image is there so many times.

    Args:
        matched: detections and objects.
        weights: (B, images) whole numbers.
        names: which of `NUMBERS`.

    Returns:
        (B,) for each name; NaN where there is no ground truth.
    """
    wanted = {name: NUMBERS[name] for name in names}
    thresholds = np.asarray(matched.rules.thresholds)
    of_area: dict[int, list[int]] = {}
    for _, area, threshold in wanted.values():
        chosen = np.arange(len(thresholds)) if threshold is None else _at(thresholds, threshold)
        of_area[area] = sorted({*of_area.get(area, []), *chosen.tolist()})
    shape = (len(matched.rules.areas), len(thresholds), matched.classes, len(weights))
    scored = {"ap": np.full(shape, np.nan), "ar": np.full(shape, np.nan)}
    for label in range(matched.classes):
        for area, chosen_thresholds in of_area.items():
            _score(matched, weights, label, area, chosen_thresholds, scored)
    return {
        name: _mean(scored[kind][area, _at(thresholds, threshold)])
        for name, (kind, area, threshold) in wanted.items()
    }


def _at(thresholds: np.ndarray, threshold: float | None) -> np.ndarray:
    if threshold is None:
        return np.arange(len(thresholds))
    return np.flatnonzero(thresholds == threshold)


def _mean(values: np.ndarray) -> np.ndarray:
    """(T, K, B) -> (B,): the mean of those that are known."""
    known = ~np.isnan(values)
    count = known.sum(axis=(0, 1))
    total = np.where(known, values, 0.0).sum(axis=(0, 1))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _score(
    matched: Matched,
    weights: np.ndarray,
    label: int,
    area: int,
    thresholds: Sequence[int],
    scored: dict[str, np.ndarray],
) -> None:
    """Fill in AP and AR of one class and area, (T, B) each."""
    mine = matched.object_counts[area] & (matched.object_label == label)
    if not mine.any():
        return
    positives = weights[:, matched.object_image[mine]].sum(axis=1)  # (B,)
    rows = slice(matched.starts[label], matched.starts[label + 1])
    span = class_hits(matched, label)
    image, hits = matched.image[rows], matched.hits[span] - rows.start
    sized = np.flatnonzero(matched.inside[area, rows])
    # detections of the right size up to each hit, as if none were matched: (B, h)
    seen = _running(weights[:, image[sized]])[:, np.searchsorted(sized, hits, side="right")]
    own = matched.inside[area, rows][hits]
    levels = _recalls_reached(positives, matched.rules.recalls)
    there = positives > 0
    for t in thresholds:
        counted = matched.counted[t, area, span]
        at = np.flatnonzero(counted)
        tp = np.cumsum(weights[:, image[hits[at]]], axis=1, dtype=np.int32)
        among = seen[:, at]
        kept = counted | (own & ~matched.ignored[t, area, span])
        change = kept.astype(np.int32) - own
        moved = np.flatnonzero(change)
        if moved.size:
            steps = _running(weights[:, image[hits[moved]]] * change[moved])
            among = among + steps[:, np.searchsorted(moved, at, side="right")]
        found = tp[:, -1] if at.size else np.zeros(len(weights))
        ap = _average_precision(tp, among, levels, len(matched.rules.recalls))
        scored["ap"][area, t, label, there] = ap[there]
        scored["ar"][area, t, label, there] = found[there] / positives[there]


def _running(values: np.ndarray) -> np.ndarray:
    """(B, n) -> (B, n + 1): sums of the first 0, 1, ... n."""
    sums = np.zeros((len(values), values.shape[1] + 1), dtype=np.int32)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums


def _recalls_reached(positives: np.ndarray, recalls: Sequence[float]) -> np.ndarray:
    """How many of the recalls are reached with 0, 1, 2, ... hits, (B, most positives + 1)."""
    hits = np.arange(positives.max(initial=0) + 1)
    recall = hits / np.maximum(positives, 1)[:, None]
    return np.searchsorted(recalls, recall, side="right").astype(np.float64)


def _average_precision(
    tp: np.ndarray, among: np.ndarray, levels: np.ndarray, recalls: int
) -> np.ndarray:
    """Mean precision over the recalls, (B,), from hits and detections so far, (B, h) each.

    The precision at a recall is that of the hit which reaches it, or of a later one if higher: each
    hit counts for as many recalls as it newly reaches.
    """
    if tp.shape[1] == 0:
        return np.zeros(len(tp))
    precision = tp / (among + EPS)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.take_along_axis(levels, tp, axis=1)
    reached[:, 1:] -= reached[:, :-1].copy()
    return np.asarray(np.einsum("bh,bh->b", precision, reached) / recalls)
