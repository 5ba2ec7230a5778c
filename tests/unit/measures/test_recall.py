"""Average recall of proposals: by hand, and against pycocotools on the same files."""

from __future__ import annotations

import contextlib
import io
import json
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
from sepcbench.measures.scoring import read_detections, recall, score, scores
from sepcbench.records import Accuracy, Recall
from sepcbench.variants import variant


def proposal(box: list[float], score: float, image_id: int = 10) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "bbox": box, "score": score}


def small_set(folder: Path, boxes: list[tuple[int, list[float]]]) -> CocoData:
    content = coco_sets.document(1)
    content["annotations"] = [
        {"id": i, "image_id": 10, "category_id": category, "bbox": box}
        for i, (category, box) in enumerate(boxes, start=1)
    ]
    coco_sets.write(folder, content)
    return open_data(folder)


def test_by_hand(tmp_path: Path) -> None:
    """One object is met exactly, one with IoU 0.62: at 3 of the 10 thresholds, 0.5, 0.55, 0.6."""
    data = small_set(tmp_path, [(3, [0, 0, 10, 10]), (7, [40, 0, 10, 10])])
    found = [proposal([0, 0, 10, 10], 0.9), proposal([40, 0, 10, 6.2], 0.8)]
    record = recall(data, found, variant="v", checkpoint="c")
    assert record.ar100 == record.ar1000 == record.ar1000_small == pytest.approx(13 / 20)
    assert record.ar1000_medium is None
    assert record.ar1000_large is None
    assert (record.variant, record.checkpoint) == ("v", "c")
    assert (record.images, record.proposals) == (1, 2)
    assert decode(Recall, json.loads(json.dumps(encode(record), allow_nan=False))) == record


@pytest.mark.parametrize(("before", "ar100", "ar1000"), [(99, 1, 1), (100, 0, 1), (1000, 0, 0)])
def test_only_the_best_100_and_1000_of_an_image_count(
    tmp_path: Path, before: int, ar100: float, ar1000: float
) -> None:
    data = small_set(tmp_path, [(3, [0, 0, 10, 10])])
    wrong = [proposal([60, 40, 5, 5], 0.9) for _ in range(before)]
    record = recall(data, [proposal([0, 0, 10, 10], 0.1), *wrong], variant="v")
    assert (record.ar100, record.ar1000) == (ar100, ar1000)


def test_classes_have_no_say(tmp_path: Path) -> None:
    """Two objects of two classes at one place: a proposal meets one of them, two meet both."""
    data = small_set(tmp_path, [(3, [0, 0, 10, 10]), (7, [0, 0, 10, 10])])
    one = proposal([0, 0, 10, 10], 0.9)
    assert recall(data, [one], variant="v").ar100 == 0.5
    assert recall(data, [one, one], variant="v").ar100 == 1.0
    other = {**one, "category_id": 12345}
    assert recall(data, [other, other], variant="v").ar100 == 1.0


def test_no_proposals_are_recall_0(tmp_path: Path) -> None:
    record = recall(small_set(tmp_path, [(3, [0, 0, 10, 10])]), [], variant="v")
    assert record.ar100 == record.ar1000 == 0.0


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=1, val_images=12, seed=0, size=(192, 192))
    return open_data(folder, "val")


def noisy(data: CocoData) -> list[dict[str, Any]]:
    """Boxes near the objects and the crowds, hidden among many others."""
    rng = np.random.default_rng(0)
    found = []
    for box in data.boxes:
        for _ in range(3):
            moved = np.array(box.bbox) + rng.normal(0, 0.1, 4) * box.bbox[2]
            found.append(proposal(np.maximum(moved, 0.5).tolist(), rng.random(), box.image_id))
    for image in data.images:
        for _ in range(400):
            box = [*rng.uniform(0, 150, 2), *rng.uniform(1, 60, 2)]
            found.append(proposal([float(v) for v in box], float(rng.random()), image.id))
    return found


def test_the_numbers_are_pycocotools_own(shapes: CocoData) -> None:
    found = noisy(shapes)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(shapes.annotations))
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = [1, 100, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    record = recall(shapes, found, variant="v")
    ours = [record.ar100, record.ar1000]
    ours += [record.ar1000_small, record.ar1000_medium, record.ar1000_large]
    # places in `stats` of AR at the second and third of maxDets, and by size at the third
    assert ours == [float(value) for value in evaluation.stats[7:12]]
    assert len(set(ours)) == 5
    assert all(value is not None and 0.05 < value < 0.95 for value in ours)


def test_a_proposals_file_needs_no_categories(shapes: CocoData, tmp_path: Path) -> None:
    found = noisy(shapes)[:50]
    path = tmp_path / "proposals.json"
    path.write_text(json.dumps([{k: v for k, v in p.items() if k != "category_id"} for p in found]))
    read = read_detections(path, shapes, "proposals")
    assert recall(shapes, read, variant="v") == recall(shapes, found, variant="v")


def test_each_variant_is_scored_by_what_it_finds(shapes: CocoData) -> None:
    found = [{**item, "category_id": 3} for item in noisy(shapes)[:50]]
    assert scores(shapes, found, variant("rpn_tiny_fpn")) == {
        "recall": recall(shapes, found, variant="rpn_tiny_fpn")
    }
    assert scores(shapes, found, variant("retinanet_tiny_fpn"), "c") == {
        "accuracy": score(shapes, found, variant="retinanet_tiny_fpn", checkpoint="c")
    }
    both = scores(shapes, found, variant("mask_rcnn_tiny_fpn"))
    assert isinstance(both["accuracy"], Accuracy)
    # no masks were found: the boxes are scored all the same
    assert "detection 0 has no segmentation" in both["masks"].reason  # type: ignore[union-attr]
