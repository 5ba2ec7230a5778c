"""Mask AP against pycocotools on the same files, and what it lacks in one line."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.segmentations import encode_mask
from sepcbench.data.shapes import generate
from sepcbench.errors import DataError
from sepcbench.measures.scoring import NUMBERS, read_detections, score, write_detections

SIZE = (112, 112)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=1, val_images=25, seed=0, size=SIZE)
    return open_data(folder, "val")


def detections(data: CocoData, noise: float) -> list[dict[str, Any]]:
    """The objects' masks shifted, with ragged edges, some relabelled, in boxes far too large."""
    rng = np.random.default_rng(0)
    found = []
    for image in data.images:
        labels = data.objects(image.id).labels
        for label, mask in zip(labels, data.masks(image)):
            for _ in range(1 + (noise > 0)):
                shift = np.rint(rng.normal(0, noise, 2)).astype(int)
                moved = np.roll(mask, shift.tolist(), axis=(0, 1))
                moved &= rng.random(SIZE) >= noise / 20
                wrong = int(rng.random() < noise / 20)
                found.append(
                    {
                        "image_id": image.id,
                        "category_id": data.categories[(label + wrong) % 3][0],
                        "bbox": [0.0, 0.0, 112.0, 112.0],
                        "segmentation": encode_mask(moved),
                        "score": round(float(rng.random()), 1),
                    }
                )
    return found


def by_pycocotools(data: CocoData, found: list[dict[str, Any]]) -> list[float | None]:
    """Without boxes: pycocotools would take their areas for those of the masks."""
    only_masks = [{k: v for k, v in item.items() if k != "bbox"} for item in found]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data.annotations))
        evaluation = COCOeval(truth, truth.loadRes(only_masks), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value < 0 else float(value) for value in evaluation.stats]


def test_the_twelve_numbers_are_pycocotools_own(shapes: CocoData) -> None:
    found = detections(shapes, 2.0)
    record = score(shapes, found, variant="noise", task="segm")
    assert [getattr(record, name) for name in NUMBERS] == by_pycocotools(shapes, found)
    assert record.task == "segm"
    assert record.ap is not None
    assert 0.05 < record.ap < 0.95
    # the boxes are of the whole image: what was compared are masks
    assert score(shapes, found, variant="noise").ap50 < 0.2  # type: ignore[operator]


def test_the_objects_own_masks_are_ap_1(shapes: CocoData) -> None:
    record = score(shapes, detections(shapes, 0.0), variant="perfect", task="segm")
    assert record.ap == record.ap75 == 1.0
    assert score(shapes, [], variant="blind", task="segm").ap == 0.0


def test_polygons_may_be_scored_too(shapes: CocoData) -> None:
    truth = json.loads(shapes.annotations.read_text())["annotations"]
    found = [{**item, "score": 1.0} for item in truth if not item["iscrowd"]]
    assert score(shapes, found, variant="x", task="segm").ap == 1.0


def test_saved_masks_give_the_same_numbers(shapes: CocoData, tmp_path: Path) -> None:
    found = detections(shapes, 2.0)
    write_detections(tmp_path / "d.json", found)
    again = read_detections(tmp_path / "d.json", shapes, "segm")
    assert score(shapes, again, variant="x", task="segm") == score(
        shapes, found, variant="x", task="segm"
    )


def test_what_cannot_be_scored_has_its_line(shapes: CocoData) -> None:
    def line(change: dict[str, Any], data: CocoData = shapes) -> str:
        found = detections(shapes, 0.0)[:3]
        found[1].update(change)
        with pytest.raises(DataError) as error:
            score(data, found, variant="x", task="segm")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "detection 1 has no segmentation" in line({"segmentation": None})
    assert "detection 1: its segmentation cannot be used" in line({"segmentation": "x"})
    small = encode_mask(np.ones((5, 6), dtype=bool))
    assert "is of 5x6 pixels (height x width), its image of 112x112" in line(
        {"segmentation": small}
    )
    bare = replace(shapes, boxes=tuple(box._replace(segmentation=None) for box in shapes.boxes))
    assert "have no segmentation" in line({}, bare)
    assert score(bare, detections(shapes, 0.0), variant="x").ap is not None
