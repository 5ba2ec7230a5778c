"""Polygons and run-length encodings: what is read, and that pixels come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sepcbench.data.segmentations import (
    Polygons,
    Rle,
    Unusable,
    encode_mask,
    mask_area,
    rasterise,
    read_segmentation,
)

# columns 0, 0 | 1, 0 | 1, 1: two zeros, a one, a zero, two ones
PICTURE = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
RUNS = [2, 1, 1, 2]


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """From specks to large blocks; also all or none."""
    cells = rng.random(rng.integers(1, 12, 2)) < rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    return np.kron(cells, np.ones(rng.integers(1, 9, 2))) > 0


def test_uncompressed_runs_go_down_the_columns() -> None:
    read = read_segmentation({"size": [2, 3], "counts": RUNS})
    assert isinstance(read, Rle)
    np.testing.assert_array_equal(rasterise(read, (2, 3)), PICTURE)


@pytest.mark.parametrize("seed", range(20))
def test_masks_come_back_from_compressed_runs(seed: int) -> None:
    mask = random_mask(np.random.default_rng(seed))
    written = encode_mask(mask)
    assert isinstance(written["counts"], str)
    read = read_segmentation(written)
    assert isinstance(read, Rle)
    np.testing.assert_array_equal(rasterise(read, mask.shape), mask)
    as_pycocotools = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert read.counts == as_pycocotools["counts"]
    assert mask_area(as_pycocotools) == mask.sum()


@pytest.mark.parametrize("seed", range(20))
def test_runs_that_are_cut_short_or_of_another_size_are_found(seed: int) -> None:
    """pycocotools would write beyond the picture, or leave it half empty."""
    written = encode_mask(random_mask(np.random.default_rng(seed)))
    height, width = written["size"]
    for changed in (
        {**written, "counts": written["counts"][:-1]},
        {**written, "counts": written["counts"] + "1"},
        {**written, "size": [height, width + 1]},
    ):
        assert isinstance(read_segmentation(changed), Unusable)


def test_polygons_are_the_union_of_their_parts() -> None:
    left, right = [1, 1, 4, 1, 4, 5, 1, 5], [6.0, 2.0, 9.0, 2.0, 9.0, 4.0, 6.0, 4.0]
    read = read_segmentation([left, right])
    assert isinstance(read, Polygons)
    wanted = np.zeros((8, 10), dtype=bool)
    wanted[1:5, 1:4] = wanted[2:4, 6:9] = True
    np.testing.assert_array_equal(rasterise(read, (8, 10)), wanted)


@pytest.mark.parametrize("nothing", [None, []])
def test_none_and_an_empty_list_are_no_segmentation(nothing: Any) -> None:
    assert read_segmentation(nothing) is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("text", "neither a list of polygons nor an RLE object"),
        ([[1, 2, 3, 4]], "three or more corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "three or more corners"),
        ([1, 2, 3, 4, 5, 6], "three or more corners"),
        ([[1, 2, 3, 4, 5, None]], "not a number"),
        ([[1, 2, 3, 4, 5, float("nan")]], "not a number"),
        ({"counts": RUNS}, "'size'"),
        ({"size": [2], "counts": RUNS}, "'size'"),
        ({"size": [0, 3], "counts": RUNS}, "'size'"),
        ({"size": [2, 3], "counts": [2, 1, 1]}, "do not add up to 2 x 3"),
        ({"size": [2, 3], "counts": [2, 1, -1, 4]}, "do not add up to 2 x 3"),
        ({"size": [2, 3]}, "'counts'"),
        ({"size": [2, 3], "counts": "é"}, "'counts'"),
        ({"size": [2, 3], "counts": ""}, "'counts'"),
    ],
)
def test_what_cannot_be_used_says_why(value: Any, reason: str) -> None:
    read = read_segmentation(value)
    assert isinstance(read, Unusable)
    assert reason in read.reason


def test_a_polygon_that_reaches_far_beyond_any_image_is_not_filled() -> None:
    """Filling takes memory by its length: a corner at 1e12 would take terabytes."""
    for far in (1e12, -1e12, 1e308, float("inf"), float("nan"), 10**400):
        found = read_segmentation([[0, 0, far, 0, 5, 5]])
        assert found == Unusable("a polygon has a corner that is not a number, or far outside")
