"""Masks and proposals by the command line, against pycocotools on the files it read and wrote."""

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
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sepcbench.checkpoints.native import save
from sepcbench.cli.app import run
from sepcbench.detectors import build
from sepcbench.measures.scoring import NUMBERS
from sepcbench.variants import variant

CATEGORIES = {2: "cat", 40: "dog"}  # an RPN's category, 1, is none of them
IMAGES = (3, 7, 11, 100)
SIZE = (64, 96)
RECALLS = ("ar100", "ar1000", "ar1000_small", "ar1000_medium", "ar1000_large")


class Whole(NamedTuple):
    """The annotation file, and of Mask R-CNN and RPN what was printed and written."""

    annotations: Path
    masks: dict[str, Any]
    found: Path
    recall: dict[str, Any]
    proposals: Path


def evaluated(folder: Path, name: str, sets: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """`eval` of random weights: what it printed, and the file it wrote."""
    torch.manual_seed(0)
    detector = build(variant(name, {"short_side": 64, "long_side": 96, "num_classes": 2, **sets}))
    if "mask" in name:
        for layer in (detector.head.box_head, detector.head.mask_head):
            for weight in layer.parameters():
                torch.nn.init.normal_(weight, std=0.1)
    checkpoint, out = folder / f"{name}.safetensors", folder / f"{name}.json"
    save(checkpoint, detector, ("dog", "cat"), None)
    call = ["eval", str(checkpoint), "--data", str(folder), "--out", str(out), "--format", "json"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run(call) in (0, 1)
    return json.loads(printed.getvalue())[0], out


def write_annotations(folder: Path, annotations: list[dict[str, Any]]) -> Path:
    height, width = SIZE
    document = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": width, "height": height} for i in IMAGES
        ],
        "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
        "annotations": annotations,
    }
    path = folder / "annotations" / "instances_val.json"
    path.write_text(json.dumps(document))
    return path


def objects_near(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Objects like some of the masks, moved; in all the ways that COCO writes segmentations."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    for item in found:
        mask = coco_mask.decode(item["segmentation"])
        moved = np.roll(mask, int(rng.integers(0, 3)), axis=1)
        moved[:, : int(rng.integers(0, 20))] = 0
        if rng.random() < 0.4 or moved.sum() < 30:
            continue
        kind = len(annotations) % 3
        rle = coco_mask.encode(np.asfortranarray(moved))
        x, y, width, height = (float(v) for v in coco_mask.toBbox(rle))
        if kind == 0:
            segmentation: Any = {"size": rle["size"], "counts": rle["counts"].decode()}
        elif kind == 1:
            segmentation = {"size": rle["size"], "counts": runs(moved)}
        else:
            segmentation = [[x, y, x + width, y, x + width, y + height, x + 1, y + height]]
        entry = {"image_id": item["image_id"], "category_id": item["category_id"]}
        entry |= {"bbox": [x, y, width, height], "area": float(moved.sum())}
        entry |= {"segmentation": segmentation, "iscrowd": int(kind == 1)}
        annotations.append({"id": len(annotations) + 1, **entry})
    return annotations


def runs(mask: np.ndarray) -> list[int]:
    """Uncompressed RLE: lengths of runs down the columns, zeros first."""
    flat = np.concatenate([[0], mask.T.ravel(), [2]])
    edges = np.flatnonzero(np.diff(flat)).tolist()
    return np.diff([0, *edges]).tolist()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "annotations").mkdir()
    (folder / "val").mkdir()
    rng = np.random.default_rng(0)
    for i in IMAGES:
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"val/{i}.png")
    sets = {"score_threshold": 0.0, "max_detections": 60}
    write_annotations(folder, [])
    _, found = evaluated(folder, "mask_rcnn_tiny_fpn", sets)
    annotations = write_annotations(folder, objects_near(json.loads(found.read_text())))
    masks, found = evaluated(folder, "mask_rcnn_tiny_fpn", sets)
    recall, proposals = evaluated(folder, "rpn_tiny_fpn", {})
    return Whole(annotations, masks, found, recall, proposals)


def by_pycocotools(
    annotations: Path, found: list[dict[str, Any]], task: str, best: list[int] | None = None
) -> list[float | None]:
    """The twelve numbers; without classes, at these `maxDets`, if `best` is given."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(found), task)
        if best is not None:
            evaluation.params.useCats, evaluation.params.maxDets = 0, best
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value < 0 else float(value) for value in evaluation.stats]


def test_the_set_has_what_makes_scoring_hard(whole: Whole) -> None:
    truth = json.loads(whole.annotations.read_text())["annotations"]
    assert len(truth) > 20
    assert {item["iscrowd"] for item in truth} == {0, 1}
    assert {item["category_id"] for item in truth} == set(CATEGORIES)
    assert {item["category_id"] for item in json.loads(whole.proposals.read_text())} == {1}


def test_mask_ap(whole: Whole) -> None:
    found = json.loads(whole.found.read_text())
    for item in found:
        del item["bbox"]  # pycocotools would take its area for the mask's
    wanted = by_pycocotools(whole.annotations, found, "segm")
    assert 0.02 < wanted[0] < 0.95  # type: ignore[operator]
    assert [whole.masks["masks"][name] for name in NUMBERS] == pytest.approx(wanted)


def test_box_ap_beside_it(whole: Whole) -> None:
    wanted = by_pycocotools(whole.annotations, json.loads(whole.found.read_text()), "bbox")
    assert [whole.masks[name] for name in NUMBERS] == pytest.approx(wanted)


def test_recall_of_proposals(whole: Whole) -> None:
    """pycocotools drops proposals of a category that is not in the set, so they are given one."""
    found = [{**item, "category_id": 40} for item in json.loads(whole.proposals.read_text())]
    wanted = by_pycocotools(whole.annotations, found, "bbox", [1, 100, 1000])[7:]
    assert wanted[1] > 0.1  # type: ignore[operator]
    assert [whole.recall[name] for name in RECALLS] == pytest.approx(wanted)
