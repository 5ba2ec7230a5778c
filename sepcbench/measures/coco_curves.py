"""From matched detections to COCO's precision and recall, to the bit as pycocotools.

Precision can only rise at a hit, so curves are drawn through the hits alone; the other detections
come in as counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sepcbench.measures.coco_matching import Matched, Rules

EPS = np.spacing(1)  # what pycocotools adds to the number of detections
ALL, SMALL, MEDIUM, LARGE = range(4)


@dataclass(frozen=True)
class Curves:
    """T thresholds, R recalls, K classes, A areas, M most detections; -1 without ground truth.

    `precision` and `scores` (the score at which a recall is reached) are (T, R, K, A, M),
    `recall` (T, K, A, M): the arrays of `COCOeval.eval`.
    """

    rules: Rules
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


def curves(matched: Matched) -> Curves:
    """Draw precision over recall for each class, threshold, area and number of detections."""
    rules = matched.rules
    t, k, a = len(rules.thresholds), matched.classes, len(rules.areas)
    r, m = len(rules.recalls), len(rules.max_detections)
    made = Curves(
        rules,
        precision=-np.ones((t, r, k, a, m)),
        recall=-np.ones((t, k, a, m)),
        scores=-np.ones((t, r, k, a, m)),
    )
    counts = positives(matched)
    for label in range(k):
        if counts[:, label].any():
            for index, most in enumerate(sorted(rules.max_detections)):
                _draw(matched, counts[:, label], label, index, most, made)
    return made


def positives(matched: Matched) -> np.ndarray:
    """How many objects of each area and class count, (A, K)."""
    return np.array(
        [
            np.bincount(matched.object_label[counts], minlength=matched.classes)
            for counts in matched.object_counts
        ]
    )


def class_hits(matched: Matched, label: int) -> slice:
    """Which of `matched.hits` are of a class."""
    begin, end = np.searchsorted(matched.hits, matched.starts[label : label + 2])
    return slice(begin, end)


def _draw(
    matched: Matched, count: np.ndarray, label: int, index: int, most: int, made: Curves
) -> None:
    """Fill in one class and number of detections; `count` (A,) are its objects."""
    rows = slice(matched.starts[label], matched.starts[label + 1])
    among = matched.rank[rows] < most
    span = class_hits(matched, label)
    hits = matched.hits[span] - rows.start
    chosen = among[hits]
    counted = matched.counted[:, :, span][:, :, chosen]  # (T, A, h)
    ignored = matched.ignored[:, :, span][:, :, chosen]
    inside = matched.inside[:, rows]  # (A, n)
    # detections that are not ignored: the unmatched ones if of the right size, and the hits
    seen = np.cumsum(inside & among, axis=1)[:, hits[chosen]]  # (A, h), as if none were matched
    own = inside[:, hits[chosen]]
    kept = counted | (own & ~ignored)
    tp = np.cumsum(counted, axis=2).astype(float)
    fp = seen + np.cumsum(kept.astype(np.int8) - own, axis=2, dtype=np.int64) - tp
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = tp / count[:, None]
    precision = tp / (fp + tp + EPS)
    precision = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
    score = matched.score[rows][hits[chosen]]
    best = matched.score[rows][:1]
    for a in np.flatnonzero(count):
        for t in range(len(made.rules.thresholds)):
            _read(recall[t, a], precision[t, a], score, best, made, (t, label, int(a), index))


def _read(
    recall: np.ndarray,
    precision: np.ndarray,
    score: np.ndarray,
    best: np.ndarray,
    made: Curves,
    where: tuple[int, int, int, int],
) -> None:
    """Read precision and score off one curve, (h,) each, at the recalls asked for."""
    t, label, a, index = where
    wanted = np.asarray(made.rules.recalls)
    at = np.searchsorted(recall, wanted, side="left")
    reached = at < len(recall)
    values, scores = np.zeros(len(wanted)), np.zeros(len(wanted))
    values[reached] = precision[at[reached]]
    scores[reached] = score[at[reached]]
    scores[wanted <= 0] = best if best.size else 0.0  # a recall of 0 is had from the start
    made.recall[t, label, a, index] = recall[-1] if recall.size else 0.0
    made.precision[t, :, label, a, index] = values
    made.scores[t, :, label, a, index] = scores


def twelve(curves: Curves) -> np.ndarray:
    """`COCOeval.stats`, (12,): of rules with COCO's four areas and three numbers of detections."""
    return np.array(
        [
            average(curves.precision, ALL, 2),
            *(average(curves.precision[_at(curves, t)], ALL, 2) for t in (0.5, 0.75)),
            *(average(curves.precision, area, 2) for area in (SMALL, MEDIUM, LARGE)),
            *(average(curves.recall, ALL, most) for most in range(3)),
            *(average(curves.recall, area, 2) for area in (SMALL, MEDIUM, LARGE)),
        ]
    )


def _at(curves: Curves, threshold: float) -> np.ndarray:
    return np.flatnonzero(np.asarray(curves.rules.thresholds) == threshold)


def average(values: np.ndarray, area: int, most: int) -> float:
    """Mean of (..., A, M) at one area and number of detections; -1 without ground truth."""
    chosen = values[..., area, most]
    known = chosen[chosen > -1]
    return float(np.mean(known)) if known.size else -1.0
