"""Greedy matching of detections to objects, cell by cell: a cell is one class of one image.

Cells do not touch each other, so the best detection of every cell is matched at once, then the
second of every cell, and so on; all IoU thresholds and all area ranges go together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sepcbench.measures.coco_overlaps import PairOverlaps, place_in_group

# how many pairs have their IoU taken at once
CHUNK = 1 << 17
# above all places in a cell: an object that counts is preferred whatever its IoU
PREFERRED = 1 << 24


class Pairs(NamedTuple):
    """Detection and object of each pair, as places among those sorted by cell, and IoU: (p,)."""

    detection: np.ndarray
    object: np.ndarray
    iou: np.ndarray


def candidates(
    cell: np.ndarray,
    object_cell: np.ndarray,
    kept: np.ndarray,
    order: np.ndarray,
    overlaps: PairOverlaps,
    lowest: float,
) -> Pairs:
    """All pairs within cells that pass the lowest threshold, by detection.

    Args:
        cell: (n,) cell of each detection, sorted.
        object_cell: (m,) cell of each object, sorted.
        kept: (n,) which of the detections given each is.
        order: (m,) which of the objects given each is.
        overlaps: IoU of pairs of those given.
        lowest: the threshold.
    """
    first = np.searchsorted(object_cell, cell, side="left")
    count = np.searchsorted(object_cell, cell, side="right") - first
    parts = []
    for some in _chunks(count):
        number = count[some]
        detection = np.repeat(some, number)
        skipped = np.repeat(np.cumsum(number) - number, number)
        thing = np.arange(len(detection)) - skipped + np.repeat(first[some], number)
        iou = overlaps(kept[detection], order[thing])
        passed = iou >= lowest
        parts.append(Pairs(detection[passed], thing[passed], iou[passed]))
    if not parts:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    return Pairs(*(np.concatenate(column) for column in zip(*parts)))


def _chunks(count: np.ndarray) -> Iterator[np.ndarray]:
    """Detections that have a pair, about `CHUNK` pairs at a time."""
    some = np.flatnonzero(count)
    chunk = np.cumsum(count[some]) // CHUNK
    yield from (part for part in np.split(some, np.flatnonzero(np.diff(chunk)) + 1) if part.size)


def greedy(
    pairs: Pairs, cell: np.ndarray, counts: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match cell by cell, best score first, one detection of every cell at a time.

    A detection takes the free object of the largest IoU, the last of equals; one that does not
    count only if there is none that does. A crowd stays free.

    Args:
        pairs: the candidates.
        cell: (n,) cell of each detection.
        counts: (A, m) whether an object counts.
        crowd: (m,) whether an object is a crowd.
        thresholds: (T,) of IoU.

    Returns:
        The detections with a candidate (h,), and whether each is matched to an object that
        counts and to one that does not, (T, A, h) each.
    """
    hits, member = np.unique(pairs.detection, return_inverse=True)
    turn = place_in_group(cell[hits])
    order = np.lexsort((pairs.object, pairs.iou, member, turn[member]))
    member, thing = member[order], pairs.object[order]
    starts = np.flatnonzero(np.diff(member, prepend=-1))  # where each detection's pairs begin
    # what a detection takes, the more the better: (A, p)
    place = (np.arange(len(member)) - np.repeat(starts, np.diff(starts, append=len(member)))) + 1
    worth = (place + PREFERRED * counts[:, thing]).astype(np.int32)
    passed = pairs.iou[order] >= thresholds[:, None]  # (T, p)

    shape = (len(passed), len(worth))
    free = np.ones((*shape, counts.shape[1]), dtype=bool)
    taken = np.zeros((*shape, len(hits)), dtype=np.int32)
    turns = np.searchsorted(turn[member[starts]], np.arange(turn.max(initial=-1) + 2))
    ends = np.append(starts, len(member))
    for begin, end in itertools.pairwise(turns):
        span = slice(ends[begin], ends[end])
        open_ = free[:, :, thing[span]] & passed[:, None, span]
        best = np.maximum.reduceat(open_ * worth[:, span], starts[begin:end] - span.start, axis=2)
        taken[:, :, member[starts[begin:end]]] = best
        t, a, d = np.nonzero(best)
        pick = starts[begin:end][d] + best[t, a, d] % PREFERRED - 1
        free[t, a, thing[pick]] = crowd[thing[pick]]
    return hits, taken > PREFERRED, (taken > 0) & (taken < PREFERRED)
