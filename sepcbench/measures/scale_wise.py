"""AP by the size of objects, finer than COCO's small, medium and large.

A size is the square root of an area: that of the annotation for objects, of the box for
detections (unless given). As with COCO's areas, an object whose size is an edge counts on both
sides of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sepcbench.errors import DataError
from sepcbench.measures.coco_arrays import Arrays
from sepcbench.measures.coco_curves import Curves, curves, positives
from sepcbench.measures.coco_matching import COCO, Found, Objects, Rules, match
from sepcbench.measures.coco_overlaps import PairOverlaps
from sepcbench.records import SizeBand

# pixels: octaves, as the levels of a pyramid are; objects of more than 1024 are in none
ABSOLUTE = (0, 8, 16, 32, 64, 128, 256, 512, 1024)
# part of the image's own size, which does not change when images are resized: octaves from all of
# it down, 1/64 being 8 pixels at 512x512
RELATIVE = (0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)


@dataclass(frozen=True)
class SizeRange:
    """Scores of the objects of one range of sizes, as fractions of 1; None if there are none.

    `low` and `high` are in pixels, or parts of the image's size; `objects` are those that count;
    `recall` is AR over the IoU thresholds, at 100 detections per image and class.
    """

    low: float
    high: float
    objects: int
    ap: float | None
    ap50: float | None
    recall: float | None


def scale_wise(
    found: Found,
    objects: Objects,
    *,
    images: int,
    classes: int,
    edges: Sequence[float] = ABSOLUTE,
    image_areas: np.ndarray | None = None,
    overlaps: PairOverlaps | None = None,
) -> tuple[SizeRange, ...]:
    """Score each range of sizes.

    Args:
        found: the detections.
        objects: the ground truth.
        images: how many images there are.
        classes: how many classes there are.
        edges: of the ranges, increasing; in pixels, or with `image_areas` in parts of the image's
            size: `ABSOLUTE`, `RELATIVE`.
        image_areas: (images,) in square pixels, for sizes relative to the image.
        overlaps: IoU of pairs; that of the boxes if not given.

    Raises:
        DataError: the edges do not increase, or an image has no area.
    """
    if len(edges) < 2 or any(high <= low for low, high in itertools.pairwise(edges)):
        raise DataError(f"edges of sizes must increase, two of them at least; got {tuple(edges)}")
    if image_areas is not None:
        found, objects = _relative(found, objects, image_areas)
    areas = tuple((low**2, high**2) for low, high in itertools.pairwise(edges))
    rules = Rules(areas=areas, max_detections=(max(COCO.max_detections),))
    matched = match(found, objects, images=images, classes=classes, rules=rules, overlaps=overlaps)
    made, counts = curves(matched), positives(matched).sum(axis=1)
    return tuple(
        _size_range(made, index, edges[index : index + 2], int(count))
        for index, count in enumerate(counts)
    )


def bands(lined_up: Arrays) -> tuple[SizeBand, ...]:
    """AP of the objects of each octave of sizes, in pixels and relative to the image."""
    made = [
        SizeBand(kind, part.low, part.high, part.objects, part.ap)
        for kind, edges, image_areas in (
            ("pixels", ABSOLUTE, None),
            ("relative", RELATIVE, lined_up.image_areas),
        )
        for part in scale_wise(
            lined_up.found,
            lined_up.objects,
            images=lined_up.images,
            classes=lined_up.classes,
            edges=edges,
            image_areas=image_areas,
            overlaps=lined_up.overlaps,
        )
    ]
    return tuple(made)


def _relative(found: Found, objects: Objects, image_areas: np.ndarray) -> tuple[Found, Objects]:
    """With areas as parts of the image's."""
    if not (image_areas > 0).all():
        image = int(np.flatnonzero(~(image_areas > 0))[0])
        raise DataError(f"image {image} has no area to take sizes relative to")
    area = found.box[:, 2] * found.box[:, 3] if found.area is None else found.area
    return (
        replace(found, area=area / image_areas[found.image]),
        replace(objects, area=objects.area / image_areas[objects.image]),
    )


def _size_range(made: Curves, index: int, edges: Sequence[float], objects: int) -> SizeRange:
    half = made.rules.thresholds.index(0.5)
    precision = made.precision[:, :, :, index, -1]  # (T, R, K)
    return SizeRange(
        low=float(edges[0]),
        high=float(edges[1]),
        objects=objects,
        ap=_mean(precision),
        ap50=_mean(precision[half]),
        recall=_mean(made.recall[:, :, index, -1]),
    )


def _mean(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else None
