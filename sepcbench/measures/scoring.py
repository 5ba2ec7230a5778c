"""COCO scores of detections by pycocotools. No torch, no images: annotations and boxes only."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sepcbench.data.annotations import read_json
from sepcbench.data.coco import CocoData
from sepcbench.errors import DataError
from sepcbench.records import Accuracy

# the twelve numbers in the order of `COCOeval.stats`
NUMBERS = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
Detection = dict[str, Any]


def score(
    data: CocoData,
    detections: Sequence[Detection],
    *,
    variant: str,
    checkpoint: str | None = None,
) -> Accuracy:
    """Score detections on every image of a set, also those without annotations.

    Args:
        data: the set.
        detections: COCO result format: `image_id`, `category_id`, `bbox` (x, y, width, height)
            in pixels, `score`. None at all is AP 0.
        variant: what made them.
        checkpoint: the file it was loaded from, for the record.
    """
    # pycocotools prints its progress and table on stdout, which is for data here
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _evaluate(data, detections)
    numbers = {name: _fraction(value) for name, value in zip(NUMBERS, evaluation.stats)}
    return Accuracy(
        variant=variant,
        dataset=data.name,
        images=len(data.images),
        detections=len(detections),
        checkpoint=checkpoint,
        per_class=_per_class(data, evaluation),
        **numbers,
    )


def _evaluate(data: CocoData, detections: Sequence[Detection]) -> Any:
    from pycocotools.cocoeval import COCOeval

    evaluation = COCOeval(_ground_truth(data), _results(data, detections), "bbox")
    evaluation.params.imgIds = sorted(image.id for image in data.images)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def _ground_truth(data: CocoData) -> Any:
    """The annotations as pycocotools holds them, numbered from 1: it takes 0 for unmatched."""
    annotations = [
        {**box._asdict(), "bbox": list(box.bbox), "id": number}
        for number, box in enumerate(data.boxes, start=1)
    ]
    return _coco(data, annotations)


def _results(data: CocoData, detections: Sequence[Detection]) -> Any:
    """As `COCO.loadRes`, which cannot take an empty list."""
    annotations = []
    for number, item in enumerate(detections, start=1):
        x, y, width, height = item["bbox"]
        annotations.append(
            {
                "id": number,
                "image_id": item["image_id"],
                "category_id": item["category_id"],
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": 0,
                "score": item["score"],
            }
        )
    return _coco(data, annotations)


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


def _per_class(data: CocoData, evaluation: Any) -> tuple[tuple[str, float | None], ...]:
    """AP over IoU 0.5 to 0.95 of each class, None where it has no ground truth."""
    names = dict(data.categories)
    # (IoU thresholds, recalls, classes, areas, detections): all areas, most detections
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    scores = []
    for index, key in enumerate(evaluation.params.catIds):
        values = precision[:, :, index]
        known = values[values > -1]
        scores.append((names[key], float(np.mean(known)) if known.size else None))
    return tuple(scores)


def _fraction(value: float) -> float | None:
    """pycocotools writes -1 where there is no ground truth."""
    return None if value < 0 else float(value)


# --- detections on disk --------------------------------------------------------------------


def write_detections(path: Path, detections: Sequence[Detection]) -> None:
    """Write detections in COCO result format; the file appears whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(list(detections), allow_nan=False), encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise DataError(f"cannot write detections to '{path}': {error.strerror}") from None


def read_detections(path: Path, data: CocoData) -> list[Detection]:
    """Read detections in COCO result format and check them against a set.

    Raises:
        DataError: malformed, or of other images or categories than the set's.
    """
    found = read_json(path, "detections file")
    if not isinstance(found, list):
        raise DataError(f"'{path}' is not in COCO result format: expected a list of detections")
    for index, item in enumerate(found):
        _check_detection(item, f"{path}: detection {index}")
    for key, known, what in (
        ("image_id", {image.id for image in data.images}, "images"),
        ("category_id", {key for key, _ in data.categories}, "categories"),
    ):
        stray = {item[key] for item in found} - known
        if stray:
            raise DataError(
                f"'{path}' names {len(stray)} {what} that are not in {data.annotations}, "
                f"first {key} {min(stray)}; score it against the set it was made on"
            )
    return found


def _check_detection(item: Any, where: str) -> None:
    if not isinstance(item, dict):
        raise DataError(f"{where} is not an object")
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in item:
            raise DataError(f"{where}: missing key '{key}'")
    bbox = item["bbox"]
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise DataError(f"{where}: 'bbox' is not four numbers (x, y, width, height)")
    if not all(isinstance(item[key], int) for key in ("image_id", "category_id")):
        raise DataError(f"{where}: 'image_id' and 'category_id' are whole numbers")
    numbers = [*bbox, item["score"]]
    if not all(isinstance(v, (int, float)) and np.isfinite(v) for v in numbers):
        raise DataError(f"{where}: 'bbox' and 'score' are finite numbers")
