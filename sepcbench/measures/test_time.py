"""Test-time options of the SEPC paper's Table 3: several scales and mirroring, boxes merged.

As in mmdetection, the candidates of all passes over an image are mapped back to its file and go
through one NMS together. A scale may give only boxes of a range of sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sepcbench.data.evaluation_loader import EvaluationBatch
from sepcbench.data.transforms import flip_boxes
from sepcbench.detectors import Detections, Detector
from sepcbench.errors import UsageError
from sepcbench.heads.dense import DenseHead, divisor_of, joined, numbered, select
from sepcbench.heads.outputs import Scene
from sepcbench.specs.test_time import ONCE as ONCE
from sepcbench.specs.test_time import ScaleRange as ScaleRange
from sepcbench.specs.test_time import TestTime as TestTime
from sepcbench.specs.test_time import parse_scales as parse_scales

ImageSize = tuple[int, int]


def check_possible(detector: Detector, test_time: TestTime, levels: bool) -> None:
    """Check that a detector can merge passes, or say which level found what.

    Raises:
        UsageError: it cannot: it has two stages or gives proposals.
    """
    if (test_time.merges or levels) and not isinstance(detector.head, DenseHead):
        what = f"test-time options ({test_time})" if test_time.merges else "sizes by level"
        raise UsageError(f"{what} are for one-stage detectors, and {detector.spec.name} is none")


def detect(
    detector: Detector,
    scales: Sequence[EvaluationBatch],
    test_time: TestTime = ONCE,
    *,
    levels: bool = False,
) -> list[Detections]:
    """Detect in the images of one batch.

    Args:
        detector: in eval mode, where the images are.
        scales: the same images at each scale of `test_time`.
        test_time: what is done at each scale.
        levels: bring the level that found each box.

    Returns:
        Per image, boxes in pixels of its file.
    """
    first = scales[0]
    if not test_time.merges and not levels:
        given = {} if first.proposals is None else {"proposals": _moved(first)}
        return detector.detect(first.images, first.sizes, first.scales, **given)
    if not test_time.merges:
        found = _candidates(detector, first.images, first.sizes)
        how = detector.spec.conventions
        return [
            select(numbered(image), size, factor, how)
            for image, size, factor in zip(found, first.sizes, first.scales, strict=True)
        ]
    return _merged(detector, scales, test_time, levels)


def _moved(batch: EvaluationBatch) -> list[Tensor]:
    return [boxes.to(batch.images.device) for boxes in batch.proposals or ()]


@torch.no_grad()
def _candidates(
    detector: Detector, images: Tensor, sizes: Sequence[ImageSize]
) -> list[list[Detections]]:
    padded = (images.shape[2], images.shape[3])
    outputs = detector(images, Scene(padded, sizes))
    return detector.head.candidates(outputs, sizes, padded)  # type: ignore[operator, no-any-return]


def _merged(
    detector: Detector, scales: Sequence[EvaluationBatch], test_time: TestTime, levels: bool
) -> list[Detections]:
    how = detector.spec.conventions
    found: list[list[Detections]] = [[] for _ in scales[0].image_ids]
    for batch, sizes in zip(scales, test_time.ranges(how), strict=True):
        for mirrored in (False, True) if test_time.flip else (False,):
            images = _mirrored(batch) if mirrored else batch.images
            for place, image in enumerate(_candidates(detector, images, batch.sizes)):
                one = joined(numbered(image) if levels else image)
                if mirrored:
                    width = batch.sizes[place][1] - how.box_offset
                    one = one._replace(boxes=flip_boxes(one.boxes, width))
                factor = divisor_of(batch.scales[place], one.boxes)
                one = one._replace(boxes=one.boxes / factor)
                found[place].append(one.at(_inside(one.boxes, sizes)))
    return [
        select(parts, original, 1.0, how)
        for parts, original in zip(found, scales[0].originals, strict=True)
    ]


def _mirrored(batch: EvaluationBatch) -> Tensor:
    """Each image mirrored, its padding left where it is."""
    images = batch.images.clone()
    for slot, (height, width) in zip(images, batch.sizes):
        slot[:, :height, :width] = slot[:, :height, :width].flip(-1)
    return images


def _inside(boxes: Tensor, sizes: ScaleRange) -> Tensor:
    """Which boxes (n, 4) xyxy in pixels of the file are within a range of sizes, (n,) bool."""
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
    return (size >= sizes.low) & (size <= sizes.high)
