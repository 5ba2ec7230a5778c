"""Segmentations of objects: polygons and run-length encodings (RLE), as COCO writes them."""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import numpy as np

_FAR = 2.0**20  # pixels; a polygon is filled in memory that grows with its length


class Polygons(NamedTuple):
    """The parts of one object: each (x1, y1, x2, y2, ...) in pixels of the image file."""

    parts: tuple[array[float], ...]


class Rle(NamedTuple):
    """Runs of background and object, column by column: `size` (h, w), compressed `counts`."""

    size: tuple[int, int]
    counts: bytes


class Unusable(NamedTuple):
    """What is wrong with a segmentation; it matters only to those who need masks."""

    reason: str


Segmentation = Polygons | Rle | Unusable


def read_segmentation(value: Any) -> Segmentation | None:
    """Read the `segmentation` of an annotation or a detection.

    Args:
        value: a list of polygons, an RLE object (counts as a text or as a list), or None.

    Returns:
        None where there is none (also an empty list); `Unusable` where it is malformed.
    """
    if value is None or value == []:
        return None
    if isinstance(value, list):
        return _polygons(value)
    if isinstance(value, dict):
        return _rle(value)
    return Unusable("it is neither a list of polygons nor an RLE object")


def _polygons(value: list[Any]) -> Segmentation:
    parts = []
    for part in value:
        if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
            return Unusable("a polygon is not a list of three or more corners x, y")
        if not all(_is_number(v) for v in part):
            return Unusable("a polygon has a corner that is not a number, or far outside")
        parts.append(array("d", part))
    return Polygons(tuple(parts))


def _rle(value: dict[str, Any]) -> Segmentation:
    size: Any = value.get("size")
    counts: Any = value.get("counts")
    if not _whole_numbers(size) or len(size) != 2 or min(size) < 1:
        return Unusable("'size' of its RLE is not (height, width)")
    height, width = int(size[0]), int(size[1])
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    elif _whole_numbers(counts):
        if sum(counts) != height * width or min(counts) < 0:
            return Unusable(f"the runs of its RLE do not add up to {height} x {width} pixels")
        counts = _mask().frPyObjects({"size": size, "counts": counts}, height, width)["counts"]
    if not isinstance(counts, bytes) or not _complete(counts, height * width):
        return Unusable(f"'counts' of its RLE are not runs of {height} x {width} pixels")
    return Rle((height, width), counts)


def _complete(counts: bytes, pixels: int) -> bool:
    """Whether compressed runs add up to all pixels; pycocotools does not check.

    Runs are written in groups of 5 bits from the lowest, each plus 48 as a character, the sixth bit
    set where more follow; from the fourth run on as the difference to the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        group = byte - 48
        if not 0 <= group < 64:
            return False
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        value -= (1 << shift) if group & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return False
        value = shift = 0
    return shift == 0 and sum(runs) == pixels


def as_rle(segmentation: Polygons | Rle, size: tuple[int, int]) -> dict[str, Any]:
    """A segmentation on an image of `size` (h, w) as pycocotools holds it; an RLE has its own."""
    if isinstance(segmentation, Rle):
        size = segmentation.size
        return {"size": list(size), "counts": segmentation.counts}
    mask = _mask()
    parts = mask.frPyObjects([part.tolist() for part in segmentation.parts], *size)
    return mask.merge(parts)  # type: ignore[no-any-return]


def rasterise(segmentation: Polygons | Rle, size: tuple[int, int]) -> np.ndarray:
    """The pixels of an object on an image of `size` (h, w): (h, w) bool."""
    return _mask().decode(as_rle(segmentation, size)).astype(bool)  # type: ignore[no-any-return]


def mask_area(rle: dict[str, Any]) -> float:
    """The pixels of an object as pycocotools holds it."""
    return float(_mask().area(rle))


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Pixels (h, w) bool as a compressed RLE that can be written as JSON."""
    rle = _mask().encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _mask() -> Any:
    from pycocotools import mask

    return mask


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) <= _FAR


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(v) is int for v in value)
