"""FCOS's objective (arXiv 1904.01355): smallest object around a point, focal, IoU, centerness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.detectors import Detector, padded_size
from sepcbench.errors import UsageError
from sepcbench.heads.fcos import FcosHead
from sepcbench.heads.outputs import LevelOutput, cells_first
from sepcbench.ops.boxes import (
    aligned_giou,
    aligned_iou,
    areas,
    centres_and_sizes,
    decode_distances,
    encode_distances,
)
from sepcbench.processes import mean_over_processes
from sepcbench.specs import Conventions, FcosSpec
from sepcbench.training.objectives.matches import NEGATIVE, focal_loss, positives
from sepcbench.training.objectives.targets import Target

_MIN_IOU = 1e-6  # of which a logarithm is taken


class Points(NamedTuple):
    """The points of all levels.

    `xy` (p, 2), the `stride` (p,) of each, and the distances in pixels to the farthest side of an
    object that it learns, from `low` (p,) to `high` (p,).
    """

    xy: Tensor
    stride: Tensor
    low: Tensor
    high: Tensor


def fcos_loss(
    detector: Detector,
    outputs: list[LevelOutput],
    targets: Sequence[Target],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Focal loss `cls`, IoU loss `box` weighted by centerness, and `centerness` of a batch."""
    head = detector.head
    assert isinstance(head, FcosHead)
    padded = padded_size(image_sizes, head.conventions.pad_divisor)
    points = lay_points(head.priors(outputs, padded), head.strides, head.spec)
    return losses(outputs, points, targets, head.spec, head.num_classes, head.conventions)


def losses(
    outputs: Sequence[LevelOutput],
    points: Points,
    targets: Sequence[Target],
    spec: FcosSpec,
    num_classes: int,
    how: Conventions,
) -> dict[str, Tensor]:
    """The losses of raw predictions, as `fcos_loss` gives them.

    Args:
        outputs: per level, `box` as distances in pixels.
        points: of all levels.
        targets: one per image.
        spec: of the head.
        num_classes: without background.
        how: fields `box_offset` and `focal_divisor`.
    """
    logits, values, quality = join_levels(outputs, num_classes)
    match = torch.stack([assign(points, target.boxes, spec, how) for target in targets])
    found = positives(match, targets)
    # of several processes the mean, as in mmdetection 2
    positive = mean_over_processes(len(found.cell), logits)
    count = max(positive, 1)
    images = len(targets) if how.focal_divisor == "positives_and_images" else 0
    divisor = positive + images if images else count
    xy = points.xy[found.cell]
    wanted = centerness(encode_distances(xy, found.boxes))
    given = decode_distances(xy, values[found.image, found.cell])
    box = box_losses(given, found.boxes, spec, how) * wanted
    return {
        "cls": focal_loss(logits, match, targets, spec) / divisor,
        "box": box.sum() / mean_over_processes(wanted.sum(), logits).clamp(min=1e-6),
        "centerness": centerness_loss(quality[found.image, found.cell], wanted) / count,
    }


def join_levels(outputs: Sequence[LevelOutput], num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, cells, K), box values (N, cells, 4), centerness (N, cells) of all levels."""
    logits = [cells_first(output.cls.float(), num_classes) for output in outputs]
    values = [cells_first(output.box.float(), 4) for output in outputs]
    quality = [
        cells_first(output.centerness.float(), 1)
        for output in outputs
        if output.centerness is not None
    ]
    return torch.cat(logits, 1), torch.cat(values, 1), torch.cat(quality, 1).squeeze(2)


def lay_points(grids: Sequence[Tensor], strides: Sequence[int], spec: FcosSpec) -> Points:
    """Give the points of every level, (H*W, 2) each, their strides and ranges.

    Raises:
        UsageError: as many ranges as levels, less one, are needed.
    """
    if len(spec.ranges) != len(grids) - 1:
        raise UsageError(
            f"head 'fcos' has {len(spec.ranges)} ranges for {len(grids)} levels; give one end per "
            "level but the last"
        )
    ends = [-1.0, *spec.ranges, float("inf")]
    rows = torch.tensor([*zip(map(float, strides), ends, ends[1:])], device=grids[0].device)
    counts = torch.tensor([len(grid) for grid in grids], device=grids[0].device)
    stride, low, high = rows.repeat_interleave(counts, dim=0).unbind(1)
    return Points(torch.cat(list(grids)), stride, low, high)


def assign(points: Points, boxes: Tensor, spec: FcosSpec, how: Conventions) -> Tensor:
    """Assign to every point the smallest object that it lies in and whose size its level learns.

    Args:
        points: of all levels, p of them.
        boxes: (g, 4).
        spec: of the head, for `centre_radius`.
        how: for areas.

    Returns:
        (p,): index of a box or `NEGATIVE`.
    """
    if len(boxes) == 0:
        return torch.full((len(points.xy),), NEGATIVE, device=points.xy.device)
    distances = encode_distances(points.xy[:, None], boxes[None])  # (p, g, 4)
    farthest = distances.amax(dim=2)
    fits = distances.amin(dim=2) > 0
    fits &= (farthest >= points.low[:, None]) & (farthest <= points.high[:, None])
    if spec.centre_radius > 0:
        centres, _ = centres_and_sizes(boxes, 0)
        away = (points.xy[:, None] - centres[None]).abs().amax(dim=2)
        fits &= away < spec.centre_radius * points.stride[:, None]
    sizes = areas(boxes, how.box_offset).expand(len(points.xy), -1)
    smallest, which = sizes.masked_fill(~fits, torch.inf).min(dim=1)
    return which.masked_fill(smallest == torch.inf, NEGATIVE)


def centerness(distances: Tensor) -> Tensor:
    """How central points are in objects, 0..1, from distances (..., 4) to the sides: (...)."""
    sides = distances.unflatten(-1, (2, 2))  # (..., low or high, x or y)
    ratios = sides.amin(dim=-2) / sides.amax(dim=-2)
    return ratios.prod(dim=-1).clamp(min=0).sqrt()


def centerness_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Summed binary cross entropy of centerness (p,)."""
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")


def box_losses(given: Tensor, wanted: Tensor, spec: FcosSpec, how: Conventions) -> Tensor:
    """-log(IoU), or 1 - GIoU, of boxes (p, 4) and (p, 4): (p,)."""
    if spec.box_loss == "giou":
        return 1 - aligned_giou(given, wanted, how.box_offset)
    return -aligned_iou(given, wanted, how.box_offset).clamp(min=_MIN_IOU).log()
