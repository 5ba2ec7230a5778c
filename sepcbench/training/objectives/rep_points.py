"""RepPoints' objective (arXiv 1904.11490): first points by object centre, refined ones by IoU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.detectors import Detector, padded_size
from sepcbench.heads.outputs import LevelOutput, cells_first
from sepcbench.heads.rep_points import RepPointsHead
from sepcbench.ops.boxes import centres_and_sizes
from sepcbench.specs import RepPointsSpec
from sepcbench.training.objectives.matches import NEGATIVE, focal_loss, positives
from sepcbench.training.objectives.retina import assign
from sepcbench.training.objectives.targets import Target


def rep_points_loss(
    detector: Detector,
    outputs: list[LevelOutput],
    targets: Sequence[Target],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Focal loss `cls`, and losses of the boxes of first points `init` and of refined ones `box`.

    First boxes learn by the centres of objects (`assign_centres`), refined boxes and classes by
    the IoU of the first boxes with objects.
    """
    head = detector.head
    assert isinstance(head, RepPointsHead)
    spec, how = head.spec, head.conventions
    grids = head.priors(outputs, padded_size(image_sizes, how.pad_divisor))
    cells, strides = torch.cat(grids), _strides(grids, head.strides)
    first = _boxes(head, cells, [o.points for o in outputs if o.points is not None])
    refined = _boxes(head, cells, [o.box for o in outputs])
    logits = torch.cat([cells_first(o.cls.float(), head.num_classes) for o in outputs], dim=1)

    by_centre = [assign_centres(cells, strides, t.boxes, spec.base_scale) for t in targets]
    by_iou = [
        assign(boxes, target.boxes, spec, how) for boxes, target in zip(first.detach(), targets)
    ]
    matches = torch.stack(by_iou)
    cls = focal_loss(logits, matches, targets, spec) / _count(matches)
    init = box_loss(first, torch.stack(by_centre), strides, targets, spec)
    box = box_loss(refined, matches, strides, targets, spec)
    return {"cls": cls, "init": spec.init_weight * init, "box": spec.refine_weight * box}


def assign_centres(cells: Tensor, strides: Tensor, boxes: Tensor, base_scale: float) -> Tensor:
    """Assign every object to one cell: the nearest to its centre on the level of its size.

    That level has the largest power of two as a stride that `base_scale` times is no larger than
    the root of the object's area; objects beyond the pyramid go to its ends. Distances count in
    sides of the object; of several objects the nearest gets the cell.

    Args:
        cells: points of the cells of all levels, (p, 2).
        strides: of the level of each, (p,).
        boxes: (g, 4).
        base_scale: strides per object.

    Returns:
        (p,): index of a box or `NEGATIVE`.
    """
    if len(boxes) == 0:
        return torch.full((len(cells),), NEGATIVE, device=cells.device)
    centres, sizes = centres_and_sizes(boxes, 0)
    sizes = sizes.clamp(min=1e-6)
    levels = strides.log2().int()
    wanted = (sizes / base_scale).log2().mean(dim=1).int()
    wanted = wanted.clamp(int(levels.min()), int(levels.max()))
    away = ((cells[:, None] - centres) / sizes).norm(dim=2)  # (p, g)
    away = away.masked_fill(levels[:, None] != wanted, torch.inf)
    nearest = away.argmin(dim=0)
    claims = torch.full_like(away, torch.inf)
    one_each = torch.arange(len(boxes), device=boxes.device)
    claims[nearest, one_each] = away[nearest, one_each]
    distance, which = claims.min(dim=1)
    return which.masked_fill(distance == torch.inf, NEGATIVE)


def box_loss(
    boxes: Tensor,
    matches: Tensor,
    strides: Tensor,
    targets: Sequence[Target],
    spec: RepPointsSpec,
) -> Tensor:
    """Smooth L1 between boxes, in `base_scale` strides of their level, per positive.

    Args:
        boxes: predicted, (N, p, 4).
        matches: (N, p).
        strides: (p,).
        targets: one per image.
        spec: of the head.
    """
    found = positives(matches, targets)
    unit = spec.base_scale * strides[found.cell, None]
    given, wanted = boxes[found.image, found.cell] / unit, found.boxes / unit
    loss = F.smooth_l1_loss(given, wanted, reduction="sum", beta=spec.smooth_l1_beta)
    return loss / _count(matches)


def _count(matches: Tensor) -> Tensor:
    """Positives of the batch; every image counts at least one, as in mmdetection."""
    return (matches >= 0).sum(dim=1).clamp(min=1).sum()


def _strides(grids: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """The stride of the level of every cell, (p,)."""
    parts = [grid.new_full((len(grid),), stride) for grid, stride in zip(grids, strides)]
    return torch.cat(parts)


def _boxes(head: RepPointsHead, cells: Tensor, points: Sequence[Tensor]) -> Tensor:
    """The boxes of the points of all levels, (N, p, 4) in pixels."""
    levels = [cells_first(head.point_boxes(p, level), 4) for level, p in enumerate(points)]
    return cells.repeat(1, 2) + torch.cat(levels, dim=1)
