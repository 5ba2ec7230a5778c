"""The objective of two-stage heads: the RPN's, and that of sampled RoIs (arXiv 1504.08083, 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from sepcbench.detectors import Detector, padded_size
from sepcbench.errors import UsageError
from sepcbench.heads.box_head import without_background
from sepcbench.heads.outputs import Scene
from sepcbench.heads.rcnn import RcnnHead, RoiOutput
from sepcbench.ops.boxes import encode, iou
from sepcbench.ops.pyramid import Pyramid
from sepcbench.training.objectives.matches import NEGATIVE
from sepcbench.training.objectives.rpn import losses as rpn_losses
from sepcbench.training.objectives.sampling import sample
from sepcbench.training.objectives.targets import Target


class Rois(NamedTuple):
    """Sampled RoIs of one image: `boxes` (r, 4), the objects (p,) of the first p, the positives."""

    boxes: Tensor
    objects: Tensor


def rcnn_loss(
    detector: Detector,
    outputs: RoiOutput,
    targets: Sequence[Target],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Losses `cls` and `box` of sampled RoIs, with an RPN its losses, with a mask head `mask`.

    Without an RPN the RoIs are drawn from the proposals of the targets.
    """
    head = detector.head
    assert isinstance(head, RcnnHead)
    padded = padded_size(image_sizes, head.conventions.pad_divisor)
    losses: dict[str, Tensor] = {}
    if head.rpn is not None and outputs.rpn is not None:
        losses |= rpn_losses(head.rpn, outputs.rpn, targets, padded)
    scene = Scene(padded, image_sizes, _given(head, targets))
    proposals = head.proposals(outputs.rpn, scene, outputs.pyramid[0].device)
    rois = [sample_rois(boxes, target, head) for boxes, target in zip(proposals, targets)]
    losses |= box_losses(head, outputs.pyramid, rois, targets)
    if head.mask_head is not None:
        losses["mask"] = mask_loss(head, outputs.pyramid, rois, targets)
    return losses


def _given(head: RcnnHead, targets: Sequence[Target]) -> list[Tensor] | None:
    if head.rpn is not None:
        return None
    given = [target.proposals for target in targets if target.proposals is not None]
    if len(given) != len(targets):
        raise UsageError(
            "a head without an RPN is trained on proposals, and these targets have none"
        )
    return given


def sample_rois(proposals: Tensor, target: Target, head: RcnnHead) -> Rois:
    """Draw RoIs from the proposals (r, 4) and the objects of one image.

    A RoI is positive where its IoU with an object reaches `positive_iou`, negative elsewhere.
    """
    spec = head.spec
    boxes = torch.cat([target.boxes.to(proposals.dtype), proposals])
    match = torch.full((len(boxes),), NEGATIVE, dtype=torch.int64, device=boxes.device)
    if len(target.boxes):
        best, which = iou(boxes, target.boxes, head.conventions.box_offset).max(dim=1)
        match = torch.where(best >= spec.positive_iou, which, match)
    rows = sample(match, spec.samples, spec.positive_share)
    return Rois(boxes[torch.cat(rows)], match[rows.positives])


def box_losses(
    head: RcnnHead, pyramid: Pyramid, rois: Sequence[Rois], targets: Sequence[Target]
) -> dict[str, Tensor]:
    """Cross-entropy of all RoIs, smooth L1 of the positives, both divided by the RoIs' number."""
    spec = head.spec
    cls, box = head.box_head(head.pool(pyramid, [roi.boxes for roi in rois], spec.pool_size))
    labels = torch.cat([_columns(roi, target, head) for roi, target in zip(rois, targets)])
    losses = F.cross_entropy(cls.float(), labels, reduction="sum")
    rows, classes = _positives(rois, targets)
    deltas = without_background(box.float().unflatten(1, (-1, 4)), spec)[rows, classes]
    matched = torch.cat([target.boxes[roi.objects] for roi, target in zip(rois, targets)])
    positive = torch.cat([roi.boxes[: len(roi.objects)] for roi in rois])
    wanted = encode(positive, matched, spec.box_stds, head.conventions)
    loss = F.smooth_l1_loss(deltas, wanted, reduction="sum", beta=spec.smooth_l1_beta)
    count = max(len(labels), 1)
    return {"cls": losses / count, "box": loss / count}


def mask_loss(
    head: RcnnHead, pyramid: Pyramid, rois: Sequence[Rois], targets: Sequence[Target]
) -> Tensor:
    """Mean binary cross-entropy of the masks of positive RoIs, each for its object's class.

    What is wanted are the objects' masks in the RoIs, as RoIAlign reads them (arXiv 1703.06870,
    section 3).
    """
    boxes = [roi.boxes[: len(roi.objects)] for roi in rois]
    logits = head.masks(pyramid, boxes).float()
    _, classes = _positives(rois, targets)
    given = logits[torch.arange(len(classes), device=classes.device), classes]
    wanted = [
        mask_targets(target, box, roi.objects, logits.shape[-1])
        for target, box, roi in zip(targets, boxes, rois)
    ]
    loss = F.binary_cross_entropy_with_logits(given, torch.cat(wanted), reduction="sum")
    return loss / max(given.numel(), 1)


def mask_targets(target: Target, boxes: Tensor, objects: Tensor, size: int) -> Tensor:
    """How much of each of size x size cells of boxes (p, 4) their objects (p,) cover: (p, m, m).

    Cells of objects are read at the size of the image and rounded to 0 or 1.
    """
    if target.masks is None:
        raise UsageError("a mask head is trained on masks, and these targets have none")
    if not len(boxes):
        return boxes.new_zeros(0, size, size)
    # a mask of the image per object, not per box: RoIAlign takes objects for images
    masks = target.masks[:, None].to(boxes.dtype)  # (g, 1, H, W)
    rois = torch.cat([objects[:, None].to(boxes.dtype), boxes], dim=1)
    cells = roi_align(masks, rois, size, aligned=True)[:, 0]
    return (cells >= 0.5).to(boxes.dtype)


def _columns(roi: Rois, target: Target, head: RcnnHead) -> Tensor:
    """The column of the class logits that each RoI (r,) should have, background for negatives."""
    first = head.spec.background == "first"
    columns = target.labels.new_full((len(roi.boxes),), 0 if first else head.num_classes)
    columns[: len(roi.objects)] = target.labels[roi.objects] + int(first)
    return columns


def _positives(rois: Sequence[Rois], targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
    """Rows among the RoIs of all images, and classes, of the positives, two tensors (p,)."""
    starts = [0]
    for roi in rois:
        starts.append(starts[-1] + len(roi.boxes))
    rows = [
        start + torch.arange(len(roi.objects), device=roi.boxes.device)
        for start, roi in zip(starts, rois)
    ]
    classes = [target.labels[roi.objects] for roi, target in zip(rois, targets)]
    return torch.cat(rows), torch.cat(classes)
