"""Several scales and mirroring, merged by one NMS."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.shapes import generate
from sepcbench.detectors import Detector, build
from sepcbench.errors import UsageError
from sepcbench.measures.accuracy import detect_all
from sepcbench.measures.test_time import ScaleRange, TestTime, parse_scales
from sepcbench.variants import variant

LOW = {"short_side": 64, "long_side": 96, "score_threshold": 0.008, "max_detections": 30}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=1, val_images=3, seed=0, size=(64, 64))
    return open_data(folder, "val")


@pytest.fixture(scope="module", params=["retinanet_tiny_fpn", "fcos_tiny_fpn"])
def detector(request: pytest.FixtureRequest) -> Detector:
    return build(variant(request.param, LOW), seed=0)


def found(detector: Detector, data: CocoData, text: str = "", **more: Any) -> list[dict[str, Any]]:
    test_time = TestTime(parse_scales(text) if text else (), **more)
    return detect_all(detector, data, data.classes, test_time=test_time)


def test_a_single_scale_that_is_the_detectors_own_is_plain(
    detector: Detector, shapes: CocoData
) -> None:
    plain = detect_all(detector, shapes, shapes.classes)
    assert len(plain) > 30
    assert found(detector, shapes, "64") == plain


def test_merging_one_pass_is_plain(detector: Detector, shapes: CocoData) -> None:
    """A range that holds every box sends the one pass through the merging."""
    merged = found(detector, shapes, "64:0-5000")
    plain = detect_all(detector, shapes, shapes.classes)
    for one, other in zip(merged, plain, strict=True):
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
        assert {**one, "bbox": 0} == {**other, "bbox": 0}


def _mirrored(data: CocoData, folder: Path) -> CocoData:
    folder.mkdir()
    for image in data.images:
        with Image.open(data.path(image)) as opened:
            ImageOps.mirror(opened).save(folder / image.file_name)
    return replace(data, image_folder=folder)


@pytest.mark.parametrize("scales", ["64", "64,96"])
def test_flipping_finds_the_same_in_a_mirrored_image(
    detector: Detector, shapes: CocoData, tmp_path: Path, scales: str
) -> None:
    one = found(detector, shapes, scales, flip=True)
    other = found(detector, _mirrored(shapes, tmp_path / "mirrored"), scales, flip=True)
    assert len(one) == len(other) > 30
    assert one != detect_all(detector, shapes, shapes.classes)
    left = sorted((a["image_id"], a["category_id"], -a["score"]) for a in one)
    right = sorted((a["image_id"], a["category_id"], -a["score"]) for a in other)
    assert [x[:2] for x in left] == [x[:2] for x in right]
    assert [x[2] for x in left] == pytest.approx([x[2] for x in right], abs=1e-5)
    best = {(a["image_id"], a["category_id"], round(a["score"], 5)): a["bbox"] for a in other}
    near = 0
    for item in one:
        bbox = best.get((item["image_id"], item["category_id"], round(item["score"], 5)))
        if bbox is not None:
            x, y, width, height = bbox
            near += item["bbox"] == pytest.approx([64 - x - width, y, width, height], abs=0.01)
    assert near > 0.8 * len(one)


def test_a_scale_gives_boxes_of_its_range_alone(detector: Detector, shapes: CocoData) -> None:
    small = found(detector, shapes, "64:0-20")
    large = found(detector, shapes, "64:20-")
    both = found(detector, shapes, "96:0-20,64:20-")
    for items, low, high in ((small, 0, 20), (large, 20, 1e9)):
        sizes = [(item["bbox"][2] * item["bbox"][3]) ** 0.5 for item in items]
        assert sizes
        assert all(low - 1e-3 <= size <= high + 1e-3 for size in sizes)
    assert both not in (small, large)


def test_a_batch_changes_nothing(detector: Detector, shapes: CocoData) -> None:
    options = {"test_time": TestTime(parse_scales("64,96"), flip=True), "levels": True}
    one = detect_all(detector, shapes, shapes.classes, batch=1, **options)  # type: ignore[arg-type]
    three = detect_all(detector, shapes, shapes.classes, batch=3, **options)  # type: ignore[arg-type]
    assert len(one) == len(three)
    for a, b in zip(one, three, strict=True):
        assert a["bbox"] == pytest.approx(b["bbox"], abs=1e-2)


def test_levels_come_without_changing_the_boxes(shapes: CocoData) -> None:
    detector = build(variant("retinanet_tiny_fpn", {**LOW, "max_detections": 300}), seed=0)
    plain = detect_all(detector, shapes, shapes.classes)
    numbered = detect_all(detector, shapes, shapes.classes, levels=True)
    assert {item["level"] for item in numbered} <= {3, 4, 5, 6, 7}
    assert len({item["level"] for item in numbered}) > 1
    assert [{k: v for k, v in item.items() if k != "level"} for item in numbered] == plain
    json.dumps(numbered)


def test_levels_are_those_whose_anchors_are_as_large(shapes: CocoData) -> None:
    """An untrained RetinaNet moves its anchors little, so a box tells its level."""
    detector = build(
        variant("retinanet_tiny_fpn", {**LOW, "score_threshold": 0.0, "max_detections": 300}),
        seed=0,
    )
    for parameter in detector.head.box_pred.parameters():  # type: ignore[union-attr]
        torch.nn.init.zeros_(parameter)
    levels = set()
    for item in detect_all(detector, shapes, shapes.classes, levels=True):
        x, y, width, height = item["bbox"]
        inside = x > 0.1 and y > 0.1 and x + width < 63.9 and y + height < 63.9
        if inside:  # not clipped: sizes are 4, 5.04 and 6.35 strides
            assert 3.9 < (width * height) ** 0.5 / 2 ** item["level"] < 6.5
            levels.add(item["level"])
    assert levels >= {3}


def test_options_are_read_and_written() -> None:
    assert parse_scales("400, 600:96-,1200:0-256") == (
        ScaleRange(400),
        ScaleRange(600, 96),
        ScaleRange(1200, 0, 256),
    )
    options = TestTime(parse_scales("400,600:96-"), 2000, True)
    assert str(options) == "scales 400,600:96-, max side 2000, flip"
    assert str(TestTime()) == ""
    own = variant("retinanet_r50_fpn").conventions
    sides = [
        (c.short_side, c.long_side) for c in TestTime(parse_scales("400,800")).conventions(own)
    ]
    assert sides == [(400, round(own.long_side / 2)), (800, own.long_side)]
    assert [c.long_side for c in options.conventions(own)] == [2000, 2000]


@pytest.mark.parametrize("text", ["", "a", "0", "400;600", "400:", "400:9", "400:9-3", "-4"])
def test_scales_written_wrong_have_their_line(text: str) -> None:
    with pytest.raises(UsageError, match="not a short side in pixels"):
        parse_scales(text)


def test_two_stages_do_not_merge(shapes: CocoData) -> None:
    detector = build(variant("faster_rcnn_tiny_fpn", {"short_side": 64, "long_side": 64}), seed=0)
    with pytest.raises(UsageError, match=r"test-time options \(flip\) are for one-stage detectors"):
        found(detector, shapes, flip=True)
    with pytest.raises(UsageError, match="sizes by level are for one-stage detectors"):
        detect_all(detector, shapes, shapes.classes, levels=True)
