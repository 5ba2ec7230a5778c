"""Test-time options of the SEPC paper's Table 3: several scales and mirroring, boxes merged.

As in mmdetection, the candidates of all passes over an image are mapped back to its file and go
through one NMS together. A scale may give only boxes of a range of sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from sepcbench.data.evaluation_loader import EvaluationBatch
from sepcbench.data.transforms import flip_boxes
from sepcbench.detectors import Detections, Detector
from sepcbench.errors import UsageError
from sepcbench.heads.dense import DenseHead, divisor_of, joined, numbered, select
from sepcbench.heads.outputs import Scene
from sepcbench.specs import Conventions

ImageSize = tuple[int, int]


@dataclass(frozen=True)
class ScaleRange:
    """One short side, and the sizes (root of the area, in pixels of the file) it gives boxes of."""

    short_side: int
    low: float = 0.0
    high: float = math.inf

    def __str__(self) -> str:
        if self.low == 0 and self.high == math.inf:
            return str(self.short_side)
        return f"{self.short_side}:{self.low:g}-{'' if self.high == math.inf else f'{self.high:g}'}"


@dataclass(frozen=True)
class TestTime:
    """Passes over each image beyond one.

    `scales` are short sides, none for the conventions' own; `max_side` limits the long side, by
    default in the proportion of the conventions; `flip` adds each scale mirrored.
    """

    __test__: ClassVar[bool] = False  # not a test, whatever pytest makes of the name

    scales: tuple[ScaleRange, ...] = ()
    max_side: int | None = None
    flip: bool = False

    def __str__(self) -> str:
        """As records have it; "" for one pass as the conventions say."""
        parts = []
        if self.scales:
            parts.append(f"scales {','.join(map(str, self.scales))}")
        if self.max_side is not None:
            parts.append(f"max side {self.max_side}")
        return ", ".join([*parts, *(["flip"] if self.flip else [])])

    @property
    def merges(self) -> bool:
        """Whether an image has several passes, or not all boxes of the one are kept."""
        return self.flip or len(self.scales) > 1 or any(":" in str(one) for one in self.scales)

    def conventions(self, own: Conventions) -> tuple[Conventions, ...]:
        """The conventions of each scale, from the detector's own."""
        return tuple(_at_scale(own, one.short_side, self.max_side) for one in self._ranges(own))

    def _ranges(self, own: Conventions) -> tuple[ScaleRange, ...]:
        return self.scales or (ScaleRange(own.short_side),)


ONCE = TestTime()


def _at_scale(own: Conventions, short_side: int, max_side: int | None) -> Conventions:
    proportional = round(own.long_side * short_side / own.short_side)
    return replace(own, short_side=short_side, long_side=max_side or proportional)


def parse_scales(text: str) -> tuple[ScaleRange, ...]:
    """Read short sides such as `400,600,1200`, each maybe with a range, `400:96-` or `1200:0-256`.

    Raises:
        UsageError: it is not written so.
    """
    return tuple(_parse_scale(part.strip(), text) for part in text.split(","))


def _parse_scale(part: str, text: str) -> ScaleRange:
    side, colon, sizes = part.partition(":")
    low, _, high = sizes.partition("-")
    try:
        if colon and "-" not in sizes:
            raise ValueError
        made = ScaleRange(int(side), float(low or 0), float(high or math.inf))
    except ValueError:
        made = ScaleRange(0)
    if made.short_side < 1 or not 0 <= made.low < made.high:
        raise UsageError(
            f"scales '{text}': '{part}' is not a short side in pixels, such as 800, nor one with "
            "the sizes of boxes it is for, such as 400:96- or 1200:0-256"
        )
    return made


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
    for batch, sizes in zip(scales, test_time._ranges(how), strict=True):
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
