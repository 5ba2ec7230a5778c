"""IoU of detections with objects, pair by pair, with pycocotools' arithmetic.

A threshold is passed or missed by one bit, so the order of operations is that of pycocotools.
numpy only; pycocotools itself is needed for masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# (detections (p,), objects (p,)) -> IoU (p,); both are indices into the arrays as they were given
PairOverlaps = Callable[[np.ndarray, np.ndarray], np.ndarray]


def box_overlaps(found: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> PairOverlaps:
    """IoU of boxes; with a crowd, the part of the detection that lies in it.

    Args:
        found: (n, 4) boxes of detections as x, y, width, height.
        objects: (m, 4) boxes of objects.
        crowd: (m,) whether an object is a crowd.
    """
    ours, theirs = found.T.copy(), objects.T.copy()
    our_ends, their_ends = ours[2:] + ours[:2], theirs[2:] + theirs[:2]
    our_area, their_area = ours[2] * ours[3], theirs[2] * theirs[3]

    def shared(axis: int, d: np.ndarray, g: np.ndarray) -> np.ndarray:
        ends = np.minimum(our_ends[axis][d], their_ends[axis][g])
        return np.asarray(ends - np.maximum(ours[axis][d], theirs[axis][g]))

    def overlaps(d: np.ndarray, g: np.ndarray) -> np.ndarray:
        width, height = shared(0, d, g), shared(1, d, g)
        common = np.where((width > 0) & (height > 0), width * height, 0.0)
        union = np.where(crowd[g], our_area[d], our_area[d] + their_area[g] - common)
        return np.divide(common, union, out=np.zeros_like(common), where=common > 0)

    return overlaps


def matrix_overlaps(
    found_image: np.ndarray, object_image: np.ndarray, matrices: Sequence[np.ndarray]
) -> PairOverlaps:
    """IoU looked up in one matrix per image.

    Args:
        found_image: (n,) index of each detection's image.
        object_image: (m,) index of each object's image.
        matrices: per image (its detections, its objects), both in the order they are given in;
            anything empty where it has none of either.
    """
    row = _place_in_image(found_image)
    column = _place_in_image(object_image)
    columns = np.bincount(object_image, minlength=len(matrices))
    flat = [np.asarray(matrix, dtype=float).ravel() for matrix in matrices]
    starts = np.cumsum([0, *(values.size for values in flat)])
    values = np.concatenate(flat) if flat else np.empty(0)

    def overlaps(d: np.ndarray, g: np.ndarray) -> np.ndarray:
        image = found_image[d]
        return np.asarray(values[starts[image] + row[d] * columns[image] + column[g]])

    return overlaps


def mask_overlaps(
    found_image: np.ndarray,
    found_masks: Sequence[dict[str, Any]],
    object_image: np.ndarray,
    object_masks: Sequence[dict[str, Any]],
    crowd: np.ndarray,
) -> PairOverlaps:
    """IoU of masks, computed by pycocotools image by image.

    Args:
        found_image: (n,) index of each detection's image.
        found_masks: the run-length encoding of each detection.
        object_image: (m,) index of each object's image.
        object_masks: the run-length encoding of each object.
        crowd: (m,) whether an object is a crowd.
    """
    from pycocotools import mask

    images = 1 + int(max(found_image.max(initial=-1), object_image.max(initial=-1)))
    found, objects = _by_image(found_image, images), _by_image(object_image, images)
    matrices = []
    for ours, theirs in zip(found, objects):
        matrices.append(
            mask.iou(
                [found_masks[i] for i in ours],
                [object_masks[i] for i in theirs],
                [int(crowd[i]) for i in theirs],
            )
        )
    return matrix_overlaps(found_image, object_image, matrices)


def _by_image(image: np.ndarray, images: int) -> list[np.ndarray]:
    """The members of each image, in the order they are given in."""
    order = np.argsort(image, kind="stable")
    return np.split(order, np.cumsum(np.bincount(image, minlength=images))[:-1])


def _place_in_image(image: np.ndarray) -> np.ndarray:
    """How many members of the same image come before each."""
    place = np.empty(len(image), dtype=np.int64)
    order = np.argsort(image, kind="stable")
    place[order] = place_in_group(image[order])
    return place


def place_in_group(group: np.ndarray) -> np.ndarray:
    """How many equal values come before each, of values that are sorted, (n,)."""
    first = np.flatnonzero(np.diff(group, prepend=group[:1] - 1))
    return np.arange(len(group)) - np.repeat(first, np.diff(first, append=len(group)))
