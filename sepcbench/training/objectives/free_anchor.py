"""FreeAnchor's objective (Zhang et al., arXiv 1909.02466): objects choose among bags of anchors.

Equation numbers are those of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.detectors import Detector, padded_size
from sepcbench.heads.outputs import LevelOutput, cells_first
from sepcbench.heads.retina import RetinaHead
from sepcbench.ops.boxes import decode, encode, iou
from sepcbench.specs import Conventions, FreeAnchorSpec
from sepcbench.training.objectives.targets import Target

_TINY = 1e-12


class BagLosses(NamedTuple):
    """Of the bags of all objects, and of all anchors as background: two scalars."""

    positive: Tensor
    negative: Tensor


def free_anchor_loss(
    detector: Detector,
    outputs: list[LevelOutput],
    targets: Sequence[Target],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Losses `positive` and `negative` of a batch."""
    head = detector.head
    assert isinstance(head, RetinaHead)
    spec = head.spec
    assert isinstance(spec, FreeAnchorSpec)
    padded = padded_size(image_sizes, head.conventions.pad_divisor)
    anchors = torch.cat(head.anchors(outputs, padded))
    cls = [cells_first(output.cls.float(), head.num_classes) for output in outputs]
    box = [cells_first(output.box.float(), 4) for output in outputs]
    return bag_losses(
        torch.cat(cls, dim=1), torch.cat(box, dim=1), anchors, targets, spec, head.conventions
    )._asdict()


def bag_losses(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    targets: Sequence[Target],
    spec: FreeAnchorSpec,
    how: Conventions,
) -> BagLosses:
    """Losses of a batch.

    Args:
        logits: (N, a, K) of all levels.
        deltas: (N, a, 4).
        anchors: (a, 4).
        targets: one per image.
        spec: of the head.
        how: for IoU and box coding.
    """
    scores = logits.sigmoid()
    objects = sum(len(target.boxes) for target in targets)
    positive = _positive(scores, deltas, anchors, targets, spec, how).sum()
    with torch.no_grad():
        boxes = decode(anchors, deltas, spec.box_stds, how)  # (N, a, 4)
        matched = match_probabilities(boxes, targets, scores.shape[2], spec.bag_iou, how)
    # FL((1 - P(a is in a bag)) * P(a shows an object)), equation 7
    foreground = (scores * (1 - matched)).clamp(_TINY, 1 - _TINY)
    background = _cross_entropy(foreground, 0.0)
    negative = (1 - spec.focal_alpha) * (foreground**spec.focal_gamma * background).sum()
    bags = max(1, objects * min(spec.bag_anchors, len(anchors)))
    return BagLosses(positive / max(1, objects), negative / bags)


def match_probabilities(
    boxes: Tensor, targets: Sequence[Target], num_classes: int, threshold: float, how: Conventions
) -> Tensor:
    """How sure it is that an anchor localises an object of a class, P(a in A+) of equation 6.

    For every object the IoU with a predicted box, saturated so that `threshold` is 0 and the best
    prediction for the object is 1; for every class the best of its objects.

    Args:
        boxes: predicted, (N, a, 4).
        targets: one per image.
        num_classes: K.
        threshold: IoU that does not count yet.
        how: for the IoU.

    Returns:
        (N, a, K).
    """
    batch, count = boxes.shape[:2]
    matched = boxes.new_zeros(batch, num_classes, count)
    for image, target in enumerate(targets):
        if len(target.boxes) == 0:
            continue
        overlaps = iou(target.boxes, boxes[image], how.box_offset)  # (g, a)
        best = overlaps.amax(dim=1, keepdim=True)
        sure = ((overlaps - threshold) / (best - threshold).clamp(min=_TINY)).clamp(0, 1)
        rows = target.labels[:, None].expand_as(sure)
        matched[image].scatter_reduce_(0, rows, sure, "amax")
    return matched.transpose(1, 2)


def bag_probability(probabilities: Tensor) -> Tensor:
    """Mean-max of each bag (o, bag) -> (o,): the mean early in training, the best one later.

    Equation 5: weights 1 / (1 - p), normalised.
    """
    weights = 1 / (1 - probabilities).clamp(min=_TINY)
    weights = weights / weights.sum(dim=1, keepdim=True)
    # a bag of certain anchors may come out a rounding error above 1
    return (weights * probabilities).sum(dim=1).clamp(max=1)


def _positive(
    scores: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    targets: Sequence[Target],
    spec: FreeAnchorSpec,
    how: Conventions,
) -> Tensor:
    """-alpha log Mean-max(P_cls P_loc) of the bag of every object of the batch: (o,)."""
    boxes = torch.cat([target.boxes for target in targets])
    labels = torch.cat([target.labels for target in targets])
    counts = torch.tensor([len(target.boxes) for target in targets], device=boxes.device)
    image = torch.arange(len(targets), device=boxes.device).repeat_interleave(counts)[:, None]
    if len(boxes) == 0:
        return scores.sum()[None] * 0
    size = min(spec.bag_anchors, len(anchors))
    bag = iou(boxes, anchors, how.box_offset).topk(size, dim=1, sorted=False).indices  # (o, size)
    chosen = anchors[bag]
    wanted = encode(chosen, boxes[:, None].expand_as(chosen), spec.box_stds, how)
    distance = F.smooth_l1_loss(
        deltas[image, bag], wanted, reduction="none", beta=spec.smooth_l1_beta
    )
    located = torch.exp(-spec.box_weight * distance.sum(dim=2))
    likely = bag_probability(scores[image, bag, labels[:, None]] * located)
    return spec.focal_alpha * _cross_entropy(likely, 1.0)


def _cross_entropy(probabilities: Tensor, wanted: float) -> Tensor:
    """Binary cross entropy of each; NaN of NaN, on which torch's own ends the process on a GPU."""
    known = probabilities.nan_to_num(nan=0.5)
    losses = F.binary_cross_entropy(known, torch.full_like(known, wanted), reduction="none")
    return torch.where(known == probabilities, losses, probabilities.detach())
