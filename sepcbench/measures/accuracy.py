"""Detections of a whole data set, in COCO result format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sepcbench.data.coco import CocoData, category_ids, check_images
from sepcbench.data.loading import evaluation_batches
from sepcbench.detectors import Detections, Detector

Progress = Callable[[int, int, str], None]


def detect_all(
    detector: Detector,
    data: CocoData,
    classes: Sequence[str],
    *,
    device: str = "cpu",
    batch: int = 1,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run a detector over every image of a set once.

    Args:
        detector: moved to `device` and put in eval mode; its mode is restored.
        data: the set.
        classes: the detector's class names, label 0 first; matched to categories by name.
        device: where to run.
        batch: images per call; only images of the same padded shape share one.
        progress: called with (done, total, label).

    Returns:
        One entry per detection: `image_id`, `category_id`, `bbox` (x, y, width, height) in
        pixels of the image file, `score`.

    Raises:
        DataError: an image is missing or corrupt, or the classes differ.
    """
    check_images(data)
    ids = category_ids(data, classes)
    conventions = detector.spec.conventions
    was_training = detector.training
    detector.to(device).eval()
    found: list[dict[str, Any]] = []
    done = 0
    try:
        for item in evaluation_batches(data, conventions, batch):
            results = detector.detect(item.images.to(device), item.sizes, item.scales)
            for image_id, result in zip(item.image_ids, results):
                found += coco_entries(image_id, result, ids, conventions.export_offset)
            done += len(item.image_ids)
            if progress:
                progress(done, len(data.images), f"{len(found)} boxes")
    finally:
        detector.train(was_training)
    return found


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
