from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from sepcbench.data.coco import check_images, open_data
from sepcbench.data.drawing import draw
from sepcbench.data.shapes import CLASSES, generate
from sepcbench.errors import DataError, UsageError


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _many(count: int) -> list[tuple[np.ndarray, list[dict[str, Any]]]]:
    return [draw(np.random.default_rng([5, i]), (128, 128)) for i in range(count)]


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        generate(tmp_path / name, images=4, val_images=2, seed=seed, size=(64, 96))
    assert _files(tmp_path / "a") == _files(tmp_path / "b")
    assert _files(tmp_path / "a") != _files(tmp_path / "c")


def test_the_set_is_read_back_with_its_three_classes(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    generate(
        tmp_path,
        images=5,
        val_images=3,
        seed=0,
        size=(64, 96),
        progress=lambda *call: calls.append(call),
    )
    for split, count in (("train", 5), ("val", 3)):
        data = open_data(tmp_path, split)
        check_images(data)
        assert len(data.images) == count
        assert data.classes == CLASSES
        assert data.categories != tuple(enumerate(CLASSES, start=1)), "ids have gaps"
        assert min(box.id for box in data.boxes) == 1
        for image in data.images:
            with Image.open(data.path(image)) as picture:
                assert picture.size == (image.width, image.height) == (96, 64)
    assert [done for done, _, _ in calls] == list(range(1, 9))
    assert {total for _, total, _ in calls} == {8}


def test_train_and_val_are_different_images(tmp_path: Path) -> None:
    generate(tmp_path, images=3, val_images=3, seed=0, size=(64, 64))
    pictures = [content for name, content in _files(tmp_path).items() if name.endswith(".png")]
    assert len(set(pictures)) == 6


def test_sizes_spread_over_more_than_16x_with_crowds_overlaps_and_empty_images() -> None:
    found = [annotations for _, annotations in _many(150)]
    boxes = [item for annotations in found for item in annotations if not item["iscrowd"]]
    extents = np.array([max(item["bbox"][2:]) for item in boxes])
    assert extents.max() / extents.min() > 16
    assert {item["category_id"] for item in boxes} == {1, 3, 7}
    assert any(not annotations for annotations in found)
    assert any(item["iscrowd"] for annotations in found for item in annotations)
    assert any(_overlap(annotations) > 0 for annotations in found)


def _overlap(annotations: list[dict[str, Any]]) -> float:
    best = 0.0
    for i, one in enumerate(annotations):
        for two in annotations[:i]:
            (ax, ay, aw, ah), (bx, by, bw, bh) = one["bbox"], two["bbox"]
            width = min(ax + aw, bx + bw) - max(ax, bx)
            height = min(ay + ah, by + bh) - max(ay, by)
            best = max(best, max(0, width) * max(0, height))
    return best


def test_boxes_are_inside_and_around_what_was_drawn() -> None:
    for picture, items in _many(20):
        for item in items:
            x, y, width, height = item["bbox"]
            assert min(x, y) >= 0
            assert max(x + width, y + height) <= 128.01
        if len(items) == 1 and not items[0]["iscrowd"]:
            # shapes are more saturated than the background
            saturation = np.ptp(picture.astype(float), axis=2)
            left, top, right, bottom = (
                int(v) for v in (x, y, np.ceil(x + width), np.ceil(y + height))
            )
            inside = saturation[(top + bottom) // 2, (left + right) // 2]
            saturation[top:bottom, left:right] = 0
            assert inside > saturation.max() > 0


def test_areas_and_polygons_agree_with_pycocotools(tmp_path: Path) -> None:
    generate(tmp_path, images=20, val_images=1, seed=1, size=(128, 128))
    coco = COCO(str(tmp_path / "annotations/instances_train.json"))
    shapes = [item for item in coco.anns.values() if item["area"] > 400]
    assert shapes
    for item in shapes:
        assert coco.annToMask(item).sum() == pytest.approx(item["area"], rel=0.15)


def test_a_set_is_replaced_whole_and_other_sets_are_left_alone(tmp_path: Path) -> None:
    generate(tmp_path, images=5, val_images=2, seed=0, size=(64, 64))
    generate(tmp_path, images=2, val_images=2, seed=0, size=(64, 64))
    assert len(list((tmp_path / "train").iterdir())) == 2
    path = tmp_path / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    del content["info"]
    path.write_text(json.dumps(content))
    before = _files(tmp_path)
    with pytest.raises(DataError, match=r"was not made by .* choose another folder"):
        generate(tmp_path, images=2, val_images=2, seed=0, size=(64, 64))
    assert _files(tmp_path) == before


def test_what_cannot_be_made_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 image"):
        generate(tmp_path, images=0, val_images=1, seed=0, size=(64, 64))
    with pytest.raises(UsageError, match="8x64 are too small"):
        generate(tmp_path, images=1, val_images=1, seed=0, size=(8, 64))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write the data set"):
        generate(tmp_path / "file", images=1, val_images=1, seed=0, size=(64, 64))
