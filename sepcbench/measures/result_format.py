"""What a detector found in an image as entries of COCO result format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sepcbench.data.segmentations import encode_mask
from sepcbench.detectors import Detections
from sepcbench.measures.pasting import paste
from sepcbench.specs import VariantSpec

Entries = list[dict[str, Any]]


def image_entries(
    image_id: int,
    result: Detections,
    ids: Sequence[int | None],
    size: tuple[int, int],
    spec: VariantSpec,
) -> Entries:
    """All that was found in one image, with masks and levels where the result has them.

    Args:
        image_id: of the image.
        result: boxes in pixels of its file.
        ids: the category id of each label; None for a label without a class, which is left out.
        size: (h, w) of the file.
        spec: what found it.
    """
    entries = coco_entries(image_id, result, ids, spec.conventions.export_offset)
    if result.masks is None and result.levels is None:
        return entries
    named = torch.tensor([key is not None for key in ids], device=result.labels.device)
    kept = result.at(named[result.labels])
    _add_masks(entries, kept, size, spec.head.mask_threshold)
    if kept.levels is not None:
        for entry, level in zip(entries, kept.levels.tolist(), strict=True):
            entry["level"] = round(math.log2(spec.strides[level]))
    return entries


def _add_masks(
    entries: Entries, result: Detections, size: tuple[int, int], threshold: float | None
) -> None:
    """Add the pasted mask of each detection to the entries of an image of `size` (h, w)."""
    if result.masks is None or threshold is None:
        return
    masks, boxes = result.masks.detach().float().cpu(), result.boxes.detach().cpu()
    for entry, mask, box in zip(entries, masks, boxes, strict=True):
        entry["segmentation"] = encode_mask(paste(mask, box, size, threshold).numpy())


def coco_entries(
    image_id: int, result: Detections, ids: Sequence[int | None], offset: int
) -> Entries:
    """Detections of one image in COCO result format, boxes alone.

    Args:
        image_id: of the image.
        result: boxes in pixels of its file.
        ids: the category id of each label; None for a label without a class, which is left out.
        offset: a width is x2 - x1 + offset.
    """
    boxes = _as_xywh(result.boxes.detach().cpu(), offset)
    return [
        {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score}
        for box, score, label in zip(
            boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True
        )
        if ids[label] is not None
    ]


def _as_xywh(boxes: Tensor, offset: int) -> Tensor:
    """(n, 4) xyxy -> xywh; a width is x2 - x1 + offset."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + offset], dim=1)
