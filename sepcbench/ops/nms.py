"""Non-maximum suppression: boxes that overlap a better one by more than a threshold go."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0) -> Tensor:
    """Greedy suppression of IoU > threshold.

    Args:
        boxes: (n, 4).
        scores: (n,).
        threshold: of IoU.
        offset: added to widths and heights; 1 where boxes hold whole pixels.

    Returns:
        Indices of the kept boxes, best score first.
    """
    if offset:
        # a box that is `offset` longer at its far corner has exactly the offset areas
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores, threshold)


def batched_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, offset: int = 0
) -> Tensor:
    """`nms` of every class on its own; indices of all kept boxes, best score first.

    On a CPU class by class; on a GPU in one call, with the classes moved apart in float64, where
    the sum loses nothing that float32 boxes have.
    """
    if boxes.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    batched = _in_one_call if boxes.is_cuda else _class_by_class
    return batched(boxes, scores, labels, threshold, offset)


def _in_one_call(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, offset: int
) -> Tensor:
    wide = boxes.double()
    apart = labels.double() * (wide.max() - wide.min() + 1 + offset)
    return nms(wide + apart[:, None], scores.double(), threshold, offset)


def _class_by_class(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, offset: int
) -> Tensor:
    kept = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        kept[members[nms(boxes[members], scores[members], threshold, offset)]] = True
    survivors = kept.nonzero().squeeze(1)
    return survivors[scores[survivors].argsort(descending=True, stable=True)]


class Kept(NamedTuple):
    """What `parallel_nms` keeps, in tensors whose sizes do not depend on values.

    `indices` (limit,) of the kept boxes, best score first, 0 where there is none; `valid` (limit,)
    whether there is one; `total` () of all kept boxes, also beyond the limit; `settled` () whether
    the steps were enough for the exact result.
    """

    indices: Tensor
    valid: Tensor
    total: Tensor
    settled: Tensor


def parallel_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    threshold: float,
    offset: int = 0,
    limit: int = 100,
    *,
    real: Tensor | None = None,
    steps: int | None = None,
) -> Kept:
    """Keep what `batched_nms` keeps, without a wait for the device: for CUDA graphs.

    Greedy suppression is the one solution of "kept is what no better kept box overlaps". It is
    found by repeating that from "all are kept": after step t all boxes are right whose chain of
    suppressors is no longer than t. IoUs are in the boxes' dtype, as in torchvision on a CPU.

    Args:
        boxes: (n, 4).
        scores: (n,).
        labels: (n,).
        threshold: of IoU.
        offset: added to widths and heights; 1 where boxes hold whole pixels.
        limit: how many indices are given.
        real: (n,), False for boxes that are only there to fill up; None for all True.
        steps: how often to repeat; None for n, which is always enough.
    """
    given = torch.ones_like(labels, dtype=torch.bool) if real is None else real
    # what fills up comes last, whatever its score
    order = scores.masked_fill(~given, -torch.inf).argsort(descending=True, stable=True)
    kept, settled = greedy_kept(boxes[order], labels[order], given[order], threshold, offset, steps)
    places, valid = first_true(kept, limit)
    if order.shape[0] == 0:
        return Kept(places, valid, kept.sum(-1), settled)
    return Kept(order[places].masked_fill(~valid, 0), valid, kept.sum(-1), settled)


def greedy_kept(
    boxes: Tensor,
    labels: Tensor,
    real: Tensor,
    threshold: float,
    offset: int = 0,
    steps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Which boxes of sorted ones greedy suppression keeps; any number of images at once.

    Args:
        boxes: (..., n, 4), best first.
        labels: (..., n).
        real: (..., n), False for boxes that are only there to fill up.
        threshold, offset, steps: as in `parallel_nms`.

    Returns:
        (..., n) which are kept, and (...) whether the steps were enough.
    """
    count = boxes.shape[-2]
    over = _overlaps(boxes, threshold, offset) & (labels[..., None] == labels[..., None, :])
    over = over.triu(1) & real[..., None]  # row: the better one, column: the worse one
    # a matrix product counts suppressors: exact up to 2048 in half precision, and only 0 matters
    matrix = over.to(torch.float16 if boxes.is_cuda else torch.float32)
    kept, before = real, real
    for _ in range(count if steps is None else min(steps, count)):
        before = kept
        hits = torch.matmul(kept.to(matrix.dtype)[..., None, :], matrix).squeeze(-2)
        kept = real & (hits == 0)
    return kept, _settled(kept, before, count, steps)


def first_true(flags: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Places of the first `limit` True of (..., n), 0 for none, and whether there is one."""
    rank = flags.cumsum(-1) - 1
    slot = rank.masked_fill(~flags | (rank >= limit), limit)  # the rest share one slot too many
    places = torch.arange(flags.shape[-1], device=flags.device).expand_as(slot)
    found = slot.new_zeros((*flags.shape[:-1], limit + 1)).scatter_(-1, slot, places)[..., :limit]
    valid = torch.arange(limit, device=flags.device) < flags.sum(-1, keepdim=True)
    return found.masked_fill(~valid, 0), valid


def _settled(kept: Tensor, before: Tensor, count: int, steps: int | None) -> Tensor:
    """One more step would change nothing, or there were as many as boxes."""
    if steps is None or steps >= count:
        return kept.new_ones(kept.shape[:-1])
    return (kept == before).all(-1)


def _overlaps(boxes: Tensor, threshold: float, offset: int) -> Tensor:
    """Whether IoU > threshold of every two of (..., n, 4): (..., n, n), as torchvision sums it."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    x2, y2 = x2 + offset, y2 + offset
    areas = (x2 - x1) * (y2 - y1)
    shared = _shared(x1, x2) * _shared(y1, y2)
    found = shared / (areas[..., :, None] + areas[..., None, :] - shared)
    return found > _rounded_down(threshold, boxes.dtype)


def _shared(low: Tensor, high: Tensor) -> Tensor:
    """The length that every two of n intervals have in common: (..., n, n)."""
    left = torch.maximum(low[..., :, None], low[..., None, :])
    return (torch.minimum(high[..., :, None], high[..., None, :]) - left).clamp(min=0)


def _rounded_down(threshold: float, dtype: torch.dtype) -> float:
    """The largest number of `dtype` not above `threshold`: torchvision compares in float64."""
    if dtype == torch.float64:
        return threshold
    near = np.float32(threshold)
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf)))
