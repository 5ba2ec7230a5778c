"""pycocotools as the referee of the matcher: the same set and detections, the same bits."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from sepcbench.data.coco import CocoData
from sepcbench.data.segmentations import mask_area
from sepcbench.errors import DataError
from sepcbench.measures.coco_arrays import Detection, Task, found_masks, object_masks
from sepcbench.measures.coco_curves import Curves, twelve


def check(
    drawn: Curves, data: CocoData, detections: Sequence[Detection], task: Task = "bbox"
) -> None:
    """Score with pycocotools too, and compare precision, recall, scores and the twelve numbers.

    Args:
        drawn: the curves by the matcher, by the rules that pycocotools is to follow.
        data: the set.
        detections: COCO result format.
        task: what is compared, boxes or masks.

    Raises:
        DataError: a value differs, by as little as one bit.
    """
    evaluation = evaluate(data, detections, task, drawn)
    pairs = [
        (name, getattr(drawn, name), evaluation.eval[name])
        for name in ("precision", "recall", "scores")
    ]
    if len(evaluation.stats):
        pairs.append(("the twelve numbers", twelve(drawn), evaluation.stats))
    for name, ours, theirs in pairs:
        _check_same(name, ours, theirs)


def _check_same(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    if ours.shape != theirs.shape:
        raise DataError(f"the referee disagrees on {name}: shape {ours.shape}, not {theirs.shape}")
    if not np.array_equal(ours, theirs):
        different = ours != theirs
        first = tuple(int(i[0]) for i in np.nonzero(different))
        raise DataError(
            f"the referee disagrees on {name}: {different.sum()} of {ours.size} values differ, "
            f"first at {list(first)}: {float(ours[first])!r} here, {float(theirs[first])!r} by "
            "pycocotools; trust neither, and report it with the detections"
        )


def evaluate(data: CocoData, detections: Sequence[Detection], task: Task, like: Curves) -> Any:
    """Run `COCOeval` by the rules of some curves; `stats` only if they are of classes."""
    from pycocotools.cocoeval import COCOeval

    rules = like.rules
    if rules.agnostic:
        # pycocotools puts the classes it knows together and drops what is of another
        detections = [{**item, "category_id": data.categories[0][0]} for item in detections]
    known = {image.id for image in data.images}
    detections = [item for item in detections if item["image_id"] in known]
    truth, results = _ground_truth(data, task), _results(data, detections, task)
    # pycocotools prints its progress and table on stdout, which is for data here
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(data, truth), _coco(data, results), task)
        evaluation.params.imgIds = sorted(known)
        evaluation.params.useCats = int(not rules.agnostic)
        evaluation.params.maxDets = list(rules.max_detections)
        evaluation.params.areaRng = [list(area) for area in rules.areas]
        evaluation.params.iouThrs = np.array(rules.thresholds)
        evaluation.params.recThrs = np.array(rules.recalls)
        evaluation.evaluate()
        evaluation.accumulate()
        if not rules.agnostic:
            evaluation.summarize()
    return evaluation


def _ground_truth(data: CocoData, task: Task) -> list[dict[str, Any]]:
    """The annotations as pycocotools holds them, numbered from 1: it takes 0 for unmatched."""
    annotations = []
    for number, box in enumerate(data.boxes, start=1):
        entry = {**box._asdict(), "bbox": list(box.bbox), "id": number}
        del entry["segmentation"]
        annotations.append(entry)
    if task == "segm":
        for entry, mask in zip(annotations, object_masks(data)):
            entry["segmentation"] = mask
    return annotations


def _results(data: CocoData, detections: Sequence[Detection], task: Task) -> list[dict[str, Any]]:
    """As `COCO.loadRes`, which cannot take an empty list and gives a mask the area of its box."""
    annotations = []
    for number, item in enumerate(detections, start=1):
        x, y, width, height = item["bbox"]
        entry = {
            "id": number,
            "image_id": item["image_id"],
            "category_id": item["category_id"],
            "bbox": [x, y, width, height],
            "area": width * height,
            "iscrowd": 0,
            "score": item["score"],
        }
        annotations.append(entry)
    if task == "segm":
        masks = found_masks(data, detections, range(len(detections)))
        for entry, mask in zip(annotations, masks):
            entry.update(segmentation=mask, area=mask_area(mask))
    return annotations


def _coco(data: CocoData, annotations: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [image._asdict() for image in data.images],
        "categories": [{"id": key, "name": name} for key, name in data.categories],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
