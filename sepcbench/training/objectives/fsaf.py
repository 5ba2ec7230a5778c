"""FSAF's objective (Zhu et al., arXiv 1903.00621): objects choose the level that fits them best.

Every level assigns every object; then only the level with the smallest loss learns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from sepcbench.detectors import Detector, padded_size
from sepcbench.heads.fsaf import FsafHead
from sepcbench.heads.outputs import LevelOutput, cells_first
from sepcbench.ops.boxes import aligned_iou, areas, centres_and_sizes, decode_sides
from sepcbench.specs import Conventions, FsafSpec
from sepcbench.training.objectives.matches import NEGATIVE
from sepcbench.training.objectives.targets import Target

_MIN_COVERED = 0.01  # share of a cell's square that a central region has to cover
_MIN_IOU = 1e-6


class Assignment(NamedTuple):
    """What cells of one image stand for.

    `objects` (a,) are indices of boxes or `NEGATIVE`; `ignored` (a, K) marks the classes of a cell
    that are left out of its classification loss.
    """

    objects: Tensor
    ignored: Tensor


class LevelLosses(NamedTuple):
    """Losses of each level, all divided by the number of chosen positives of the batch."""

    cls: list[Tensor]
    box: list[Tensor]


def fsaf_loss(
    detector: Detector,
    outputs: list[LevelOutput],
    targets: Sequence[Target],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Focal loss `cls` and IoU loss `box` of a batch, summed over levels."""
    head = detector.head
    assert isinstance(head, FsafHead)
    padded = padded_size(image_sizes, head.conventions.pad_divisor)
    grids = head.anchors(outputs, padded)
    losses = level_losses(outputs, grids, targets, head.spec, head.num_classes, head.conventions)
    return {"cls": torch.stack(losses.cls).sum(), "box": torch.stack(losses.box).sum()}


def level_losses(
    outputs: Sequence[LevelOutput],
    grids: Sequence[Tensor],
    targets: Sequence[Target],
    spec: FsafSpec,
    num_classes: int,
    how: Conventions,
) -> LevelLosses:
    """Losses per level.

    Args:
        outputs: raw predictions per level.
        grids: squares of the cells per level, (H*W, 4).
        targets: one per image.
        spec: of the head.
        num_classes: K, without background.
        how: for IoU, box coding and the rank of objects that overlap.
    """
    squares = torch.cat(list(grids))
    sizes = [len(grid) for grid in grids]
    labels = torch.cat([target.labels for target in targets])
    assignment = _assign_batch(squares, targets, spec, num_classes, how)
    image, cell = (assignment.objects >= 0).nonzero(as_tuple=True)  # the positives, (p,)
    of = assignment.objects[image, cell]
    cls = _focal(outputs, assignment, labels, spec)  # (N, a, K)
    sides = torch.cat([cells_first(o.box.float(), 4) for o in outputs], dim=1)  # (N, a, 4)
    boxes = torch.cat([target.boxes for target in targets])
    found = decode_sides(squares[cell], sides[image, cell], how)
    box = -aligned_iou(found, boxes[of], how.box_offset).clamp(min=_MIN_IOU).log()  # (p,)

    level = _levels(sizes, cell.device)[cell]
    both = (cls[image, cell].sum(dim=1) + box).detach()
    chosen = level == choose_levels(both, of, level, len(boxes), len(sizes))[of]
    # elsewhere the object is not learnt: its class is left out, all others stay negative
    lost = image[~chosen], cell[~chosen], labels[of[~chosen]]
    cls = cls.index_put(lost, cls.new_zeros(()))
    # without positives, all the negatives
    divisor = int(chosen.sum()) or assignment.objects.numel()
    return LevelLosses(
        [part.sum() / divisor for part in cls.split(sizes, dim=1)],
        [box[chosen & (level == i)].sum() / divisor for i in range(len(sizes))],
    )


def choose_levels(
    losses: Tensor, objects: Tensor, levels: Tensor, num_objects: int, num_levels: int
) -> Tensor:
    """The level where the mean loss of an object's positive cells is smallest (equation 3).

    Args:
        losses: of every positive cell, (p,).
        objects: index of the object of each, (p,).
        levels: level of each, (p,).
        num_objects: g.
        num_levels: of the pyramid.

    Returns:
        (g,); level 0 for an object without a positive cell.
    """
    place = objects * num_levels + levels
    means = losses.new_full((num_objects * num_levels,), torch.inf)
    means = means.scatter_reduce(0, place, losses, "mean", include_self=False)
    return means.unflatten(0, (num_objects, num_levels)).argmin(dim=1)


def assign(
    squares: Tensor, target: Target, spec: FsafSpec, num_classes: int, how: Conventions
) -> Assignment:
    """Assign the cells of all levels of one image to its objects.

    A cell is positive for an object if its centre lies in the box and the central region of the
    box (`positive_area` of its sides) covers a hundredth of its square or more. Of several objects
    the smallest gets it, and the classes of the others are ignored there. So is the class of an
    object whose wider region (`ignored_area`) covers the square of a cell that is not positive
    for it; mmdetection 1.1 ignores all classes of such a cell, and none where an object is beaten.

    Args:
        squares: one per cell, (a, 4).
        target: the objects.
        spec: of the head, for the areas.
        num_classes: K.
        how: for box sizes, and fields `overlap_rank`, `ignored_classes`.
    """
    boxes, labels = target.boxes, target.labels
    ignored = torch.zeros(len(squares), num_classes, dtype=torch.bool, device=squares.device)
    if len(boxes) == 0:
        return Assignment(labels.new_full((len(squares),), NEGATIVE), ignored)
    centres = centres_and_sizes(squares, how.box_offset)[0] + 0.5 * how.box_offset  # (a, 2)
    beyond = torch.cat([centres[:, None] - boxes[:, :2], boxes[:, 2:] - centres[:, None]], dim=2)
    positive = (beyond > 0).all(dim=2) & _covers(boxes, spec.positive_area, squares, how)  # (a, g)
    around = _covers(boxes, spec.ignored_area, squares, how) & ~positive

    rank = _ranks(boxes, how)
    claims = torch.where(positive, rank, NEGATIVE)
    objects = torch.where(positive.any(dim=1), claims.argmax(dim=1), NEGATIVE)
    if how.ignored_classes == "all":
        ignored |= (around.any(dim=1) & (objects < 0))[:, None]
        return Assignment(objects, ignored)
    beaten = positive & (torch.arange(len(boxes), device=boxes.device) != objects[:, None])
    cell, loser = (around | beaten).nonzero(as_tuple=True)
    ignored[cell, labels[loser]] = True
    own = (objects >= 0).nonzero(as_tuple=True)[0]
    ignored[own, labels[objects[own]]] = False
    return Assignment(objects, ignored)


def _assign_batch(
    squares: Tensor, targets: Sequence[Target], spec: FsafSpec, num_classes: int, how: Conventions
) -> Assignment:
    """`assign` of every image, (N, a) and (N, a, K); objects are numbered through the batch."""
    objects, ignored, before = [], [], 0
    for target in targets:
        one = assign(squares, target, spec, num_classes, how)
        objects.append(torch.where(one.objects >= 0, one.objects + before, NEGATIVE))
        ignored.append(one.ignored)
        before += len(target.boxes)
    return Assignment(torch.stack(objects), torch.stack(ignored))


def _focal(
    outputs: Sequence[LevelOutput], assignment: Assignment, labels: Tensor, spec: FsafSpec
) -> Tensor:
    """Focal loss (N, a, K) of the logits of all levels, 0 where ignored."""
    num_classes = assignment.ignored.shape[2]
    logits = torch.cat([cells_first(o.cls.float(), num_classes) for o in outputs], dim=1)
    image, cell = (assignment.objects >= 0).nonzero(as_tuple=True)
    wanted = torch.zeros_like(logits)
    wanted[image, cell, labels[assignment.objects[image, cell]]] = 1
    losses = sigmoid_focal_loss(logits, wanted, spec.focal_alpha, spec.focal_gamma)
    return losses * ~assignment.ignored


def _covers(boxes: Tensor, share: float, squares: Tensor, how: Conventions) -> Tensor:
    """Whether the middle `share` of the sides of each box covers enough of each square, (a, g)."""
    centre, size = centres_and_sizes(boxes, how.box_offset)
    half = (size * share - how.box_offset) / 2
    low = torch.maximum(squares[:, None, :2], centre - half)
    high = torch.minimum(squares[:, None, 2:], centre + half)
    covered = (high - low + how.box_offset).clamp(min=0).prod(dim=2)
    return covered / areas(squares, how.box_offset)[:, None] > _MIN_COVERED


def _ranks(boxes: Tensor, how: Conventions) -> Tensor:
    """Who gets a cell that several objects claim, (g,): the highest, which is the smallest box.

    mmdetection 1.1 takes the order of the areas for their ranks.
    """
    order = areas(boxes, 0).argsort(descending=True)
    return order.argsort() if how.overlap_rank == "area" else order


def _levels(sizes: Sequence[int], device: torch.device) -> Tensor:
    """The level of every cell of a pyramid."""
    counts = torch.tensor(sizes, device=device)
    return torch.arange(len(sizes), device=device).repeat_interleave(counts)
