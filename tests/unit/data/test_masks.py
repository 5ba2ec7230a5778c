"""Masks of a set: from its annotations, through resizing and flipping, into batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import coco_sets
import numpy as np
import pytest
import torch

from sepcbench.data.coco import CocoData, check_masks, open_data
from sepcbench.data.drawing import _mask, draw
from sepcbench.data.segmentations import Polygons, rasterise, read_segmentation
from sepcbench.data.training_loader import TrainingLoader
from sepcbench.data.transforms import resize_masks
from sepcbench.errors import DataError
from sepcbench.specs import NATIVE

SMALL = replace(NATIVE, short_side=64, long_side=96)


def opened(folder: Path, content: dict[str, Any]) -> CocoData:
    coco_sets.write(folder, content)
    return open_data(folder)


@pytest.fixture
def data(tmp_path: Path) -> CocoData:
    return opened(tmp_path, coco_sets.with_rectangles(coco_sets.document()))


def test_masks_go_with_the_objects_of_an_image(data: CocoData) -> None:
    check_masks(data)
    masks = data.masks(data.images[0])
    wanted = np.zeros((2, 60, 80), dtype=bool)
    wanted[0, 6:36, 5:25] = wanted[1, 6:46, 30:70] = True
    np.testing.assert_array_equal(masks, wanted)
    # a crowd and a box of no size are no objects
    assert data.masks(data.images[1]).shape == (0, 60, 80)


def test_rle_and_polygons_may_stand_side_by_side(tmp_path: Path) -> None:
    content = coco_sets.with_rectangles(coco_sets.document(1))
    content["annotations"] = content["annotations"][:2]
    runs = [60 * 5, 60 * 3, 60 * 72]
    content["annotations"][0]["segmentation"] = {"size": [60, 80], "counts": runs}
    masks = opened(tmp_path, content).masks(opened(tmp_path, content).images[0])
    assert masks[0, :, 5:8].all()
    assert masks.sum(axis=(1, 2)).tolist() == [60 * 3, 40 * 40]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, r"1 of 4 annotations in .* have no segmentation, first annotation id 2"),
        ([], r"1 of 4 annotations in .* have no segmentation, first annotation id 2"),
        ([[1, 2]], r"annotation id 2: its segmentation cannot be used: a polygon is not"),
        (
            {"size": [80, 60], "counts": [80 * 60]},
            r"annotation id 2: its segmentation is of 80x60 pixels .*, its image of 60x80",
        ),
    ],
)
def test_what_masks_lack_is_one_line_and_boxes_do_without(
    tmp_path: Path, value: Any, line: str
) -> None:
    content = coco_sets.with_rectangles(coco_sets.document())
    content["annotations"][1]["segmentation"] = value
    data = opened(tmp_path, content)
    assert len(data.objects(10).boxes) == 2
    with pytest.raises(DataError, match=line) as error:
        check_masks(data)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="annotation id 2"):
        data.masks(data.images[0])


# --- resizing ------------------------------------------------------------------------------


def test_resized_masks_keep_their_edges_where_the_boxes_go() -> None:
    mask = torch.zeros(2, 20, 30, dtype=torch.bool)
    mask[0, 4:10, 6:21] = True
    doubled = resize_masks(mask, (40, 60))
    wanted = torch.zeros(2, 40, 60, dtype=torch.bool)
    wanted[0, 8:20, 12:42] = True
    # bilinear rounds corners: no more than one pixel each
    assert (doubled ^ wanted).sum() <= 4
    halved = resize_masks(mask, (10, 15))
    assert halved[0].sum() == pytest.approx(6 * 15 / 4, abs=4)
    assert halved.dtype == torch.bool
    assert resize_masks(mask, (20, 30)) is mask
    assert resize_masks(mask[:0], (40, 60)).shape == (0, 40, 60)


@pytest.mark.parametrize("size", [(96, 96), (48, 48), (70, 33)])
def test_a_resized_disc_is_the_disc_of_that_size(size: tuple[int, int]) -> None:
    def disc(height: int, width: int) -> torch.Tensor:
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) / height,
            (torch.arange(width) + 0.5) / width,
            indexing="ij",
        )
        return (x - 0.45) ** 2 + (y - 0.55) ** 2 < 0.09

    resized, wanted = resize_masks(disc(64, 64)[None], size)[0], disc(*size)
    assert (resized & wanted).sum() > 0.94 * (resized | wanted).sum()


# --- batches -------------------------------------------------------------------------------


def loader(data: CocoData, **changes: Any) -> TrainingLoader:
    return TrainingLoader(data, SMALL, **{"batch": 3, "flip": 0.0, "seed": 0, **changes})


def around(mask: torch.Tensor) -> list[int]:
    y, x = torch.nonzero(mask, as_tuple=True)
    return [int(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_masks_follow_image_and_boxes(data: CocoData, flip: float) -> None:
    batch = loader(data, flip=flip, masks=True)[0]
    assert batch.masks is not None
    for size, boxes, masks in zip(batch.sizes, batch.boxes, batch.masks, strict=True):
        assert masks.shape == (len(boxes), *size)
        assert masks.dtype == torch.bool
        for box, mask in zip(boxes.tolist(), masks):
            assert around(mask) == pytest.approx(box, abs=1.0)
            area = (box[2] - box[0]) * (box[3] - box[1])
            assert int(mask.sum()) == pytest.approx(area, rel=0.05)


def test_masks_come_only_when_asked_for(tmp_path: Path) -> None:
    plain = opened(tmp_path, coco_sets.document())
    assert loader(plain)[0].masks is None
    with pytest.raises(DataError, match="has no segmentation, which masks need"):
        loader(plain, masks=True)[0]


def test_asking_for_masks_changes_nothing_else(data: CocoData) -> None:
    one, two = loader(data, flip=0.5)[1], loader(data, flip=0.5, masks=True)[1]
    assert torch.equal(one.images, two.images)
    assert all(torch.equal(a, b) for a, b in zip(one.boxes, two.boxes))


def test_an_image_of_another_size_than_annotated_has_its_line(tmp_path: Path) -> None:
    content = coco_sets.with_rectangles(coco_sets.document())
    coco_sets.write(tmp_path, content)
    for image in content["images"]:
        image["width"] = 90
    (tmp_path / "other").mkdir()
    wrong = coco_sets.write(tmp_path / "other", content)
    data = open_data(None, annotations=wrong, images=tmp_path / "val")
    loader(data)[0]
    with pytest.raises(DataError, match=r"is of 60x80 pixels .* annotated as 60x90"):
        loader(data, masks=True)[0]


# --- the generated set ---------------------------------------------------------------------


def test_the_generated_sets_polygons_are_what_was_drawn() -> None:
    """Whole shapes as their boxes and areas are: a part hidden by another shape belongs to it."""
    seen = 0
    for i in range(20):
        _, annotations = draw(np.random.default_rng([5, i]), (128, 128))
        for item in annotations:
            read = read_segmentation(item["segmentation"])
            assert isinstance(read, Polygons)
            mask = rasterise(read, (128, 128))
            if item["iscrowd"]:
                assert mask.sum() == pytest.approx(item["area"], rel=0.1)
                continue
            drawn = _mask(np.array(item["segmentation"][0]).reshape(-1, 2), (128, 128)) >= 0.5
            if item["area"] > 100:
                assert (mask & drawn).sum() > 0.93 * (mask | drawn).sum()
                assert mask.sum() == pytest.approx(item["area"], rel=0.07)
                seen += 1
    assert seen > 20
