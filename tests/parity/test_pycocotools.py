"""From image files to the twelve numbers by the command line, against pycocotools on the files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sepcbench.checkpoints.native import save
from sepcbench.cli.app import run
from sepcbench.detectors import build
from sepcbench.measures.scoring import NUMBERS
from sepcbench.variants import variant

CATEGORIES = {2: "cat", 40: "dog", 41: "no object has it", 90: "fox"}
# ids have gaps; the detector finds the third, of which there is none
BLANK, EMPTY = 7, 11  # nothing is found in the one, nothing is in the other
IMAGES = (3, BLANK, EMPTY, 100, 500, 501)


class Whole(NamedTuple):
    """What `eval` printed, and the files it read and wrote."""

    record: dict[str, Any]
    annotations: Path
    detections: Path


def write_annotations(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 96, "height": 64} for i in IMAGES],
        "categories": [{"id": key, "name": name} for key, name in reversed(CATEGORIES.items())],
        "annotations": annotations,
    }
    path = folder / "annotations" / "instances_val.json"
    path.write_text(json.dumps(document))
    return path


def objects_near(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Objects close to some of the detections, some crowds, some doubled, none in `EMPTY`."""
    rng = np.random.default_rng(0)
    annotations = []
    for item in found:
        if item["image_id"] == EMPTY or item["category_id"] == 41 or rng.random() < 0.6:
            continue
        x, y, width, height = np.array(item["bbox"]) + rng.normal(0, 0.8, 4)
        box = [float(v) for v in (x, y, max(width, 1), max(height, 1))]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": item["image_id"],
                "category_id": item["category_id"],
                "bbox": box,
                "area": box[2] * box[3] * float(rng.uniform(0.5, 1)),
                "iscrowd": int(rng.random() < 0.1),
            }
        )
    blank = {"image_id": BLANK, "category_id": 2, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
    return [*annotations, {**blank, "id": len(annotations) + 1}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "annotations").mkdir()
    (folder / "val").mkdir()
    rng = np.random.default_rng(0)
    for i in IMAGES:
        pixels = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels if i != BLANK else pixels * 0 + 120).save(folder / f"val/{i}.png")
    torch.manual_seed(0)
    settings = {"score_threshold": 0.1, "max_detections": 150, "num_classes": 4}
    detector = build(variant("retinanet_tiny_fpn", {**settings, "short_side": 64}))
    torch.nn.init.normal_(detector.head.cls_pred.weight, std=1.0)
    checkpoint = folder / "tiny.safetensors"
    save(checkpoint, detector, ("fox", "no object has it", "cat", "dog"), None)
    out = folder / "detections.json"
    call = ["eval", str(checkpoint), "--data", str(folder), "--save-detections", str(out)]
    write_annotations(folder, [])
    assert run(call) == 0
    annotations = write_annotations(folder, objects_near(json.loads(out.read_text())))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run([*call, "--format", "json"]) == 0
    return Whole(json.loads(printed.getvalue())[0], annotations, out)


def by_pycocotools(whole: Whole, category: int | None = None) -> list[float | None]:
    """The twelve numbers, of one category or all; None for its -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(whole.annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(whole.detections)), "bbox")
        if category is not None:
            evaluation.params.catIds = [category]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value < 0 else float(value) for value in evaluation.stats]


def test_the_set_has_what_makes_scoring_hard(whole: Whole) -> None:
    truth = json.loads(whole.annotations.read_text())["annotations"]
    found = json.loads(whole.detections.read_text())
    counts = {i: sum(item["image_id"] == i for item in found) for i in IMAGES}
    assert counts[BLANK] == 0
    assert max(counts.values()) > 100
    assert {item["category_id"] for item in found} == set(CATEGORIES)
    assert {item["category_id"] for item in truth} == set(CATEGORIES) - {41}
    assert EMPTY not in {item["image_id"] for item in truth}
    assert counts[EMPTY] > 0
    assert sum(item["iscrowd"] for item in truth) >= 5


def test_the_twelve_numbers(whole: Whole) -> None:
    wanted = by_pycocotools(whole)
    assert 0.05 < wanted[0] < 0.95
    assert [whole.record[name] for name in NUMBERS] == pytest.approx(wanted)


def test_ap_of_each_class(whole: Whole) -> None:
    wanted = {name: by_pycocotools(whole, key)[0] for key, name in CATEGORIES.items()}
    assert wanted["no object has it"] is None
    assert whole.record["per_class"] == pytest.approx(wanted)


def test_a_size_without_objects_is_null(whole: Whole) -> None:
    """Images of 64x96 pixels hold no object of more than 96x96."""
    assert by_pycocotools(whole)[NUMBERS.index("ap_large")] is None
    assert whole.record["ap_large"] is None
