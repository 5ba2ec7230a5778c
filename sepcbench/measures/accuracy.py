"""Detections of a whole data set, in COCO result format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sepcbench.data.coco import CocoData, category_ids, check_images
from sepcbench.data.loading import EvaluationBatch, evaluation_batches
from sepcbench.data.needs import check_given
from sepcbench.data.proposals import Proposals
from sepcbench.data.segmentations import encode_mask
from sepcbench.detectors import Detections, Detector
from sepcbench.measures.pasting import paste
from sepcbench.specs import VariantSpec

Progress = Callable[[int, int, str], None]
# what a proposals file has for a category
PROPOSAL_CATEGORY = 1


def detect_all(
    detector: Detector,
    data: CocoData,
    classes: Sequence[str],
    *,
    device: str = "cpu",
    batch: int = 1,
    proposals: Proposals | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run a detector over every image of a set once.

    Args:
        detector: moved to `device` and put in eval mode; its mode is restored.
        data: the set.
        classes: the detector's class names, label 0 first; matched to categories by name. An RPN
            has no use for them.
        device: where to run.
        batch: images per call; only images of the same padded shape share one.
        proposals: of every image, for a detector that needs them.
        progress: called with (done, total, label).

    Returns:
        One entry per detection: `image_id`, `category_id`, `bbox` (x, y, width, height) in
        pixels of the image file, `score`; from a mask head also `segmentation`, an RLE at the
        file's size. An RPN's proposals are all of `PROPOSAL_CATEGORY`.

    Raises:
        DataError: an image is missing or corrupt, or the classes differ.
        UsageError: proposals are needed and not given, or given and not needed.
    """
    check_images(data)
    check_given(detector.spec, data, proposals)
    agnostic = detector.spec.head.gives_proposals
    ids = (PROPOSAL_CATEGORY,) if agnostic else category_ids(data, classes)
    conventions = detector.spec.conventions
    was_training = detector.training
    detector.to(device).eval()
    found: list[dict[str, Any]] = []
    done = 0
    try:
        for item in evaluation_batches(data, conventions, batch, proposals):
            results = _detect(detector, item, device)
            for image_id, size, result in zip(item.image_ids, item.originals, results):
                entries = coco_entries(image_id, result, ids, conventions.export_offset)
                _add_masks(entries, result, ids, size, detector.spec)
                found += entries
            done += len(item.image_ids)
            if progress:
                progress(done, len(data.images), f"{len(found)} boxes")
    finally:
        detector.train(was_training)
    return found


def _detect(detector: Detector, item: EvaluationBatch, device: str) -> list[Detections]:
    given: dict[str, Any] = {}
    if item.proposals is not None:
        given["proposals"] = [boxes.to(device) for boxes in item.proposals]
    return detector.detect(item.images.to(device), item.sizes, item.scales, **given)


def _add_masks(
    entries: list[dict[str, Any]],
    result: Detections,
    ids: Sequence[int | None],
    size: tuple[int, int],
    spec: VariantSpec,
) -> None:
    """Add the pasted mask of each detection to the entries of an image of `size` (h, w)."""
    threshold = spec.head.mask_threshold
    if result.masks is None or threshold is None:
        return
    kept = [i for i, label in enumerate(result.labels.tolist()) if ids[label] is not None]
    masks, boxes = result.masks.detach().float().cpu(), result.boxes.detach().cpu()
    for entry, i in zip(entries, kept, strict=True):
        pasted = paste(masks[i], boxes[i], size, threshold)
        entry["segmentation"] = encode_mask(pasted.numpy())


def coco_entries(
    image_id: int, result: Detections, ids: Sequence[int | None], offset: int
) -> list[dict[str, Any]]:
    """Detections of one image in COCO result format.

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
