from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coco_sets
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sepcbench.codec import decode, encode
from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.shapes import generate
from sepcbench.errors import DataError
from sepcbench.measures.scoring import NUMBERS, read_detections, score, write_detections
from sepcbench.records import Accuracy


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=1, val_images=30, seed=0, size=(64, 64))
    return open_data(folder, "val")


def _perfect(data: CocoData) -> list[dict[str, Any]]:
    return [
        {
            "image_id": box.image_id,
            "category_id": box.category_id,
            "bbox": list(box.bbox),
            "score": 0.9,
        }
        for box in data.boxes
        if not box.iscrowd
    ]


def _noisy(data: CocoData, seed: int) -> list[dict[str, Any]]:
    """Shifted, relabelled, doubled and invented boxes, with ties among the scores."""
    rng = np.random.default_rng(seed)
    ids = [key for key, _ in data.categories]
    found = []
    for item in _perfect(data) * 2:
        x, y, width, height = item["bbox"]
        moved = np.array([x, y, width, height]) + rng.normal(0, 0.06, 4) * width
        item = {**item, "bbox": np.maximum(moved, 0.5).tolist(), "score": round(rng.random(), 1)}
        if rng.random() < 0.2:
            item["category_id"] = ids[int(rng.integers(len(ids)))]
        found.append(item)
    for image in data.images:
        box = [*rng.uniform(0, 40, 2), *rng.uniform(1, 20, 2)]
        category = ids[int(rng.integers(len(ids)))]
        entry = {"image_id": image.id, "category_id": category, "bbox": box}
        found.append({**entry, "score": float(rng.random())})
    return found


def _by_pycocotools(data: CocoData, detections: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data.annotations))
        evaluation = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


@pytest.mark.parametrize("seed", range(4))
def test_the_twelve_numbers_are_pycocotools_own(shapes: CocoData, seed: int) -> None:
    detections = _noisy(shapes, seed)
    record = score(shapes, detections, variant="noise")
    ours = [getattr(record, name) for name in NUMBERS]
    theirs = [None if value < 0 else value for value in _by_pycocotools(shapes, detections)]
    assert ours == theirs
    assert record.ap is not None
    assert 0.05 < record.ap < 0.95


def test_perfect_detections_are_ap_1(shapes: CocoData) -> None:
    record = score(shapes, _perfect(shapes), variant="perfect")
    assert record.ap == record.ap50 == record.ap75 == 1.0
    assert dict(record.per_class) == dict.fromkeys(("circle", "square", "triangle"), 1.0)
    assert record.images == 30


def test_class_aps_average_to_ap(shapes: CocoData) -> None:
    record = score(shapes, _noisy(shapes, 1), variant="noise")
    values = [value for _, value in record.per_class if value is not None]
    assert np.mean(values) == pytest.approx(record.ap)


def test_no_detections_at_all_are_ap_0(shapes: CocoData) -> None:
    record = score(shapes, [], variant="blind")
    assert record.detections == 0
    assert record.ap == record.ap50 == record.ar100 == 0.0
    assert [value for _, value in record.per_class] == [0.0, 0.0, 0.0]


def test_what_has_no_ground_truth_is_none_and_left_out_of_means(tmp_path: Path) -> None:
    content = coco_sets.document()
    content["categories"].append({"id": 9, "name": "unicorn"})
    content["annotations"] = [content["annotations"][0]]
    coco_sets.write(tmp_path, content)
    data = open_data(tmp_path)
    record = score(data, _perfect(data), variant="x")
    assert dict(record.per_class) == {"cat": pytest.approx(1.0), "dog": None, "unicorn": None}
    assert record.ap == pytest.approx(1.0)
    assert record.ap_large is None
    assert decode(Accuracy, json.loads(json.dumps(encode(record), allow_nan=False))) == record


def test_false_boxes_on_images_without_objects_count(shapes: CocoData) -> None:
    empty = [image.id for image in shapes.images if not len(shapes.objects(image.id).boxes)]
    assert empty
    false = {"image_id": empty[0], "category_id": 1, "bbox": [1, 1, 20, 20], "score": 1.0}
    record = score(shapes, [*_perfect(shapes), false], variant="x")
    assert record.ap is not None
    assert record.ap < 1.0


def test_detections_in_a_crowd_are_neither_right_nor_wrong(shapes: CocoData) -> None:
    crowd = next(box for box in shapes.boxes if box.iscrowd)
    x, y, width, height = crowd.bbox
    inside = {
        "image_id": crowd.image_id,
        "category_id": crowd.category_id,
        "bbox": [x + width / 4, y + height / 4, width / 2, height / 2],
        "score": 1.0,
    }
    assert score(shapes, [*_perfect(shapes), inside], variant="x").ap == 1.0


def test_an_annotation_id_of_0_is_matched_like_any_other(tmp_path: Path) -> None:
    content = coco_sets.document()
    content["annotations"] = [{**content["annotations"][0], "id": 0}]
    coco_sets.write(tmp_path, content)
    data = open_data(tmp_path)
    assert score(data, _perfect(data), variant="x").ap == pytest.approx(1.0)
    # what pycocotools alone would say
    assert _by_pycocotools(_with_areas(data, content), _perfect(data))[0] < 0.5


def _with_areas(data: CocoData, content: dict[str, Any]) -> CocoData:
    for item in content["annotations"]:
        item.update(area=item["bbox"][2] * item["bbox"][3], iscrowd=0)
    data.annotations.write_text(json.dumps(content))
    return data


def test_nothing_is_printed(shapes: CocoData, capsys: pytest.CaptureFixture[str]) -> None:
    score(shapes, _perfect(shapes), variant="x")
    assert capsys.readouterr().out == ""


# --- detections on disk --------------------------------------------------------------------


def test_saved_detections_give_the_same_numbers(shapes: CocoData, tmp_path: Path) -> None:
    detections = _noisy(shapes, 2)
    write_detections(tmp_path / "d.json", detections)
    again = read_detections(tmp_path / "d.json", shapes)
    assert score(shapes, again, variant="x") == score(shapes, detections, variant="x")
    assert [path.name for path in tmp_path.iterdir()] == ["d.json"]


def _set(key: str, value: Any) -> Callable[[list[Any]], Any]:
    return lambda found: found[1].update({key: value})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda found: found[1].pop("score"), "detection 1: missing key 'score'"),
        (lambda found: found.insert(1, 3), "detection 1 is not an object"),
        (_set("bbox", [1, 2, 3]), r"detection 1: 'bbox' is not four numbers"),
        (_set("bbox", [1, 2, 3, "4"]), "detection 1: 'bbox' and 'score' are finite numbers"),
        (_set("score", float("nan")), "detection 1: 'bbox' and 'score' are finite numbers"),
        (_set("category_id", "cat"), "whole numbers"),
        (_set("image_id", 999), "1 images that are not in .* first image_id 999"),
        (_set("category_id", 2), "1 categories that are not in .* first category_id 2"),
    ],
)
def test_detections_that_cannot_be_scored_have_their_line(
    shapes: CocoData, tmp_path: Path, change: Callable[[list[Any]], Any], line: str
) -> None:
    found: list[Any] = _perfect(shapes)
    change(found)
    (tmp_path / "d.json").write_text(json.dumps(found))
    with pytest.raises(DataError, match=line):
        read_detections(tmp_path / "d.json", shapes)


def test_files_that_hold_no_detections_have_their_line(shapes: CocoData, tmp_path: Path) -> None:
    path = tmp_path / "d.json"
    with pytest.raises(DataError, match=r"d\.json' is not there"):
        read_detections(path, shapes)
    path.write_text(json.dumps(_perfect(shapes))[:-30])
    with pytest.raises(DataError, match="is truncated"):
        read_detections(path, shapes)
    path.write_text(shapes.annotations.read_text())
    with pytest.raises(DataError, match="is not in COCO result format"):
        read_detections(path, shapes)
    with pytest.raises(DataError, match="cannot write detections"):
        write_detections(tmp_path / "nowhere" / "d.json", [])
