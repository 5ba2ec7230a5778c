"""RetinaNet's objective (arXiv 1708.02002): max-IoU assignment, focal loss, smooth L1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.detectors import Detector, padded_size
from sepcbench.heads.outputs import LevelOutput, cells_first
from sepcbench.heads.retina import RetinaHead
from sepcbench.ops.boxes import encode, iou
from sepcbench.specs import Conventions, RetinaSpec
from sepcbench.training.objectives.matches import IGNORED, NEGATIVE, focal_loss, positives
from sepcbench.training.objectives.targets import Target


class Thresholds(Protocol):
    """A head's spec with thresholds of IoU."""

    @property
    def positive_iou(self) -> float: ...

    @property
    def negative_iou(self) -> float: ...


class LevelLosses(NamedTuple):
    """Losses of each level, all divided by the number of positives of the batch."""

    cls: list[Tensor]
    box: list[Tensor]


def retina_loss(
    detector: Detector,
    outputs: list[LevelOutput],
    targets: Sequence[Target],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Focal loss `cls` and box regression loss `box` of a batch, summed over levels."""
    head = detector.head
    assert isinstance(head, RetinaHead)
    spec = head.spec
    assert isinstance(spec, RetinaSpec)
    padded = padded_size(image_sizes, head.conventions.pad_divisor)
    grids = head.anchors(outputs, padded)
    losses = level_losses(outputs, grids, targets, spec, head.num_classes, head.conventions)
    return {"cls": torch.stack(losses.cls).sum(), "box": torch.stack(losses.box).sum()}


def level_losses(
    outputs: Sequence[LevelOutput],
    grids: Sequence[Tensor],
    targets: Sequence[Target],
    spec: RetinaSpec,
    num_classes: int,
    how: Conventions,
) -> LevelLosses:
    """Losses per level.

    Args:
        outputs: raw predictions per level.
        grids: anchors per level, (H*W*A, 4).
        targets: one per image.
        spec: of the head, for thresholds, focal loss and box coding.
        num_classes: without background.
        how: for IoU and box coding.
    """
    anchors = torch.cat(list(grids))
    sizes = [len(grid) for grid in grids]
    matches = torch.stack([assign(anchors, target.boxes, spec, how) for target in targets])
    # every image counts at least one positive, as in mmdetection
    count = (matches >= 0).sum(dim=1).clamp(min=1).sum()
    cls, box = [], []
    for output, grid, match in zip(outputs, grids, matches.split(sizes, dim=1)):
        logits = cells_first(output.cls.float(), num_classes)  # (N, a, K)
        deltas = cells_first(output.box.float(), 4)  # (N, a, 4)
        cls.append(focal_loss(logits, match, targets, spec) / count)
        box.append(_box(deltas, grid, match, targets, spec, how) / count)
    return LevelLosses(cls, box)


def assign(anchors: Tensor, boxes: Tensor, spec: Thresholds, how: Conventions) -> Tensor:
    """Assign an object to every anchor by IoU.

    An anchor belongs to the box it overlaps most if that IoU reaches `positive_iou`, is negative
    below `negative_iou` and ignored between. Besides, every box keeps all anchors that reach its
    own highest IoU; where two boxes claim an anchor so, the later one gets it.

    Args:
        anchors: (a, 4).
        boxes: (g, 4).
        spec: of the head, for the thresholds.
        how: for the IoU.

    Returns:
        (a,): index of a box, `NEGATIVE` or `IGNORED`.
    """
    assigned = torch.full((len(anchors),), NEGATIVE, dtype=torch.int64, device=anchors.device)
    if len(boxes) == 0:
        return assigned
    overlaps = iou(boxes, anchors, how.box_offset)  # (g, a)
    best, which = overlaps.max(dim=0)
    assigned[best >= spec.negative_iou] = IGNORED
    assigned = torch.where(best >= spec.positive_iou, which, assigned)
    highest = overlaps.amax(dim=1, keepdim=True)
    claims = (overlaps == highest) & (highest > 0)
    order = torch.arange(1, len(boxes) + 1, device=anchors.device)[:, None]
    latest = (claims * order).amax(dim=0)
    return torch.where(latest > 0, latest - 1, assigned)


def _box(
    deltas: Tensor,
    anchors: Tensor,
    match: Tensor,
    targets: Sequence[Target],
    spec: RetinaSpec,
    how: Conventions,
) -> Tensor:
    """Summed smooth L1 (L1 where beta is 0) of one level: deltas (N, a, 4), anchors (a, 4)."""
    found = positives(match, targets)
    wanted = encode(anchors[found.cell], found.boxes, spec.box_stds, how)
    given = deltas[found.image, found.cell]
    return F.smooth_l1_loss(given, wanted, reduction="sum", beta=spec.smooth_l1_beta)
