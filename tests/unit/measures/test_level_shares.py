"""Which pyramid level found what, and AP by finer sizes, in the record of a score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coco_sets
import pytest

from sepcbench.codec import decode, encode
from sepcbench.data.coco import CocoData, open_data
from sepcbench.measures.scoring import score
from sepcbench.records import Accuracy, LevelShare

# boxes of 20, 50 and 200 pixels: one small, one medium and one large object
BOXES = ([5, 5, 20, 20], [40, 5, 50, 50], [100, 5, 200, 200])


@pytest.fixture
def data(tmp_path: Path) -> CocoData:
    content = coco_sets.document(1)
    content["images"][0].update(width=400, height=400)
    category = min(entry["id"] for entry in content["categories"])
    content["annotations"] = [
        {
            "id": number,
            "image_id": content["images"][0]["id"],
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, box in enumerate(BOXES, start=1)
    ]
    return open_data(None, annotations=coco_sets.write(tmp_path, content))


def entry(data: CocoData, box: list[float], score: float, level: int | None) -> dict[str, Any]:
    about: dict[str, Any] = {
        "image_id": data.images[0].id,
        "category_id": data.categories[0][0],
        "bbox": list(box),
        "score": score,
    }
    return about if level is None else {**about, "level": level}


def test_an_object_is_found_by_the_level_of_the_best_detection(data: CocoData) -> None:
    found = [
        entry(data, BOXES[0], 0.5, 4),
        entry(data, BOXES[0], 0.9, 3),  # better, so the one above is none
        entry(data, BOXES[1], 0.8, 5),
        entry(data, [300, 300, 20, 20], 0.7, 5),  # nothing is there
        entry(data, BOXES[2], 0.1, 7),
    ]
    record = score(data, found, variant="x")
    assert record.levels == (
        LevelShare(3, 1, 1, 0, 0),
        LevelShare(4, 1, 0, 0, 0),
        LevelShare(5, 2, 0, 1, 0),
        LevelShare(7, 1, 0, 0, 1),
    )
    assert decode(Accuracy, encode(record)) == record


def test_without_levels_there_are_none(data: CocoData) -> None:
    assert score(data, [], variant="x").levels == ()
    found = [entry(data, BOXES[0], 0.9, 3), entry(data, BOXES[1], 0.8, None)]
    assert score(data, found, variant="x").levels == ()


def test_bands_are_octaves_in_pixels_and_of_the_image(data: CocoData) -> None:
    found = [entry(data, BOXES[0], 0.9, None), entry(data, BOXES[2], 0.8, None)]
    bands = score(data, found, variant="x").bands
    by_size = {
        (band.kind, band.low): (band.high, band.objects, band.ap and round(band.ap, 9))
        for band in bands
    }
    assert by_size["pixels", 0] == (8, 0, None)
    assert by_size["pixels", 16] == (32, 1, 1.0)
    assert by_size["pixels", 32] == (64, 1, 0.0)
    assert by_size["pixels", 128] == (256, 1, 1.0)
    # 20, 50 and 200 of 400 pixels; half the image is on an edge, and counts on both sides of it
    assert by_size["relative", 1 / 32] == (1 / 16, 1, 1.0)
    assert by_size["relative", 1 / 8] == (1 / 4, 1, 0.0)
    assert by_size["relative", 1 / 4] == (1 / 2, 1, 1.0)
    assert by_size["relative", 1 / 2] == (1, 1, 1.0)
    assert sum(band.objects for band in bands if band.kind == "pixels") == 3
    assert score(data, found, variant="x", finer=False).bands == ()


def test_older_records_without_them_are_read(data: CocoData) -> None:
    encoded = encode(score(data, [], variant="x"))
    for name in ("bands", "levels", "test_time"):
        encoded.pop(name, None)
    record = decode(Accuracy, encoded)
    assert (record.bands, record.levels, record.test_time) == ((), (), "")
