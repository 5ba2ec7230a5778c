"""Non-maximum suppression: boxes that overlap a better one by more than a threshold go."""

from __future__ import annotations

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
