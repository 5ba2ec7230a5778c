"""ATSS's objective (arXiv 1912.02424): adaptive assignment, focal, GIoU and centerness losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sepcbench.detectors import Detector, padded_size
from sepcbench.heads.atss import AtssHead
from sepcbench.heads.outputs import LevelOutput
from sepcbench.ops.boxes import aligned_giou, centres_and_sizes, decode, encode_distances, iou
from sepcbench.processes import mean_over_processes
from sepcbench.specs import AtssSpec, Conventions
from sepcbench.training.objectives.fcos import centerness, centerness_loss, join_levels
from sepcbench.training.objectives.matches import NEGATIVE, focal_loss, positives
from sepcbench.training.objectives.targets import Target

_MIN_DISTANCE = 0.01  # of an anchor's centre to the sides of its object, in pixels


def atss_loss(
    detector: Detector,
    outputs: list[LevelOutput],
    targets: Sequence[Target],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Focal loss `cls`, GIoU loss `box` weighted by centerness, and `centerness` of a batch."""
    head = detector.head
    assert isinstance(head, AtssHead)
    grids = head.priors(outputs, padded_size(image_sizes, head.conventions.pad_divisor))
    return losses(outputs, grids, targets, head.spec, head.num_classes, head.conventions)


def losses(
    outputs: Sequence[LevelOutput],
    grids: Sequence[Tensor],
    targets: Sequence[Target],
    spec: AtssSpec,
    num_classes: int,
    how: Conventions,
) -> dict[str, Tensor]:
    """The losses of raw predictions, as `atss_loss` gives them.

    Args:
        outputs: per level.
        grids: anchors per level, (H*W*A, 4).
        targets: one per image.
        spec: of the head.
        num_classes: without background.
        how: for IoU and box coding.
    """
    logits, values, quality = join_levels(outputs, num_classes)
    match = torch.stack([assign(grids, target.boxes, spec, how) for target in targets])
    found = positives(match, targets)
    # every image counts at least one positive; of several processes the mean, as in mmdetection
    count = mean_over_processes((match >= 0).sum(dim=1).clamp(min=1).sum(), logits)
    anchors = torch.cat(list(grids))[found.cell]
    centres, _ = centres_and_sizes(anchors, 0)
    wanted = centerness(encode_distances(centres, found.boxes))
    given = decode(anchors, values[found.image, found.cell], spec.box_stds, how)
    box = (1 - aligned_giou(given, found.boxes, how.box_offset)) * wanted
    return {
        "cls": focal_loss(logits, match, targets, spec) / count,
        "box": spec.box_weight * box.sum() / mean_over_processes(wanted.sum(), logits).clamp(min=1),
        "centerness": centerness_loss(quality[found.image, found.cell], wanted) / count,
    }


def assign(grids: Sequence[Tensor], boxes: Tensor, spec: AtssSpec, how: Conventions) -> Tensor:
    """Assign an object to every anchor by the statistics of the overlaps around each object.

    Candidates of an object are the `spec.candidates` anchors per level nearest to its centre.
    Those whose IoU reaches the mean plus the standard deviation of the candidates' and whose centre
    lies in the object are its positives; one wanted by several objects goes to the highest IoU.

    Args:
        grids: anchors per level, (a, 4) each.
        boxes: (g, 4).
        spec: of the head.
        how: for the IoU.

    Returns:
        (anchors of all levels,): index of a box or `NEGATIVE`.
    """
    anchors = torch.cat(list(grids))
    if len(boxes) == 0:
        return torch.full((len(anchors),), NEGATIVE, device=anchors.device)
    overlaps = iou(anchors, boxes, how.box_offset)  # (a, g)
    rows = _nearest(grids, boxes, spec.candidates)  # (c, g)
    near = overlaps.gather(0, rows)
    # a single candidate has no deviation: torch says NaN, which nothing reaches
    deviation = near.std(dim=0) if len(near) > 1 else 0
    fits = near >= near.mean(dim=0) + deviation
    centres, _ = centres_and_sizes(anchors, 0)
    fits &= encode_distances(centres[rows], boxes[None]).amin(dim=2) > _MIN_DISTANCE
    claims = torch.zeros_like(overlaps, dtype=torch.bool).scatter_(0, rows, fits)
    best, which = overlaps.masked_fill(~claims, -1).max(dim=1)
    return which.masked_fill(best < 0, NEGATIVE)


def _nearest(grids: Sequence[Tensor], boxes: Tensor, limit: int) -> Tensor:
    """Rows, among the anchors of all levels, of the `limit` of each level nearest to each box."""
    centres, _ = centres_and_sizes(boxes, 0)
    rows, start = [], 0
    for grid in grids:
        middles, _ = centres_and_sizes(grid, 0)
        away = (middles[:, None] - centres[None]).square().sum(dim=2).sqrt()  # (a, g)
        rows.append(away.topk(min(limit, len(grid)), dim=0, largest=False).indices + start)
        start += len(grid)
    return torch.cat(rows)
