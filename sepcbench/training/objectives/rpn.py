"""The objective of a region proposal network (arXiv 1506.01497, section 3.1.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.detectors import Detector, padded_size
from sepcbench.heads.outputs import LevelOutput, cells_first
from sepcbench.heads.rpn import BOX_STDS, RpnHead
from sepcbench.ops.boxes import encode
from sepcbench.training.objectives.retina import assign
from sepcbench.training.objectives.sampling import sample
from sepcbench.training.objectives.targets import Target


def rpn_loss(
    detector: Detector,
    outputs: list[LevelOutput],
    targets: Sequence[Target],
    image_sizes: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """Losses `rpn_cls` and `rpn_box` of a batch."""
    head = detector.head
    assert isinstance(head, RpnHead)
    return losses(head, outputs, targets, padded_size(image_sizes, head.conventions.pad_divisor))


def losses(
    head: RpnHead,
    outputs: Sequence[LevelOutput],
    targets: Sequence[Target],
    padded: tuple[int, int],
) -> dict[str, Tensor]:
    """Binary cross-entropy of sampled anchors, smooth L1 of the positives among them.

    Both are divided by the number of sampled anchors of the batch. Anchors across the border of
    the image take part (arXiv 1612.03144, section 4.1).

    Args:
        head: for anchors, thresholds and box coding.
        outputs: raw predictions per level.
        targets: one per image; labels do not matter.
        padded: (height, width) of the batch.
    """
    spec, how = head.spec, head.conventions
    anchors = torch.cat(head.anchors(outputs, padded, how))
    logits = torch.cat([cells_first(output.cls.float(), 1).squeeze(2) for output in outputs], dim=1)
    deltas = torch.cat([cells_first(output.box.float(), 4) for output in outputs], dim=1)
    cls, box, count = logits.sum() * 0, deltas.sum() * 0, 0
    for i, target in enumerate(targets):
        match = assign(anchors, target.boxes, spec, how)
        rows = sample(match, spec.samples, spec.positive_share)
        wanted = encode(anchors[rows.positives], target.boxes[match[rows.positives]], BOX_STDS, how)
        given = deltas[i, rows.positives]
        box = box + F.smooth_l1_loss(given, wanted, reduction="sum", beta=spec.smooth_l1_beta)
        # -log(p) = softplus(-x), -log(1 - p) = softplus(x)
        cls = cls + F.softplus(-logits[i, rows.positives]).sum()
        cls = cls + F.softplus(logits[i, rows.negatives]).sum()
        count += len(rows.positives) + len(rows.negatives)
    return {"rpn_cls": cls / max(count, 1), "rpn_box": box / max(count, 1)}
