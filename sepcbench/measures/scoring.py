"""COCO scores of detections. No torch, no images: annotations and results only.

The matcher is our own; with `referee` pycocotools scores too, and any difference is an error. AP
comes with draws of the images, by which it has an interval and compares with another's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sepcbench.data.annotations import is_box, is_number, read_json
from sepcbench.data.coco import CocoData
from sepcbench.errors import DataError
from sepcbench.measures.bootstrap import RESAMPLES, draw
from sepcbench.measures.coco_arrays import Arrays, Detection, Task, arrays
from sepcbench.measures.coco_curves import (
    ALL,
    LARGE,
    MEDIUM,
    SMALL,
    Curves,
    average,
    curves,
    twelve,
)
from sepcbench.measures.coco_matching import PROPOSALS, Matched
from sepcbench.measures.level_shares import level_shares
from sepcbench.measures.scale_wise import bands
from sepcbench.records import Accuracy, Failure, Recall, SizeBand
from sepcbench.specs import VariantSpec
from sepcbench.stats import centred
from sepcbench.whole_files import write_whole

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
FileTask = Literal["bbox", "segm", "proposals"]
# Draws of fewer images say nothing.
MIN_DRAWN = 10
DIGITS = 6  # of a draw; the spread of AP is thousands of times wider


def scores(
    data: CocoData,
    found: Sequence[Detection],
    spec: VariantSpec,
    checkpoint: str | None = None,
    *,
    referee: bool = False,
    test_time: str = "",
) -> dict[str, Accuracy | Recall | Failure]:
    """All that the findings of a variant are scored by, by kind of record.

    An RPN's by `recall`, all others by `accuracy` of the boxes, and of the `masks` too if it has a
    mask head: a failure where the set has no masks. With `referee` pycocotools scores them too;
    `test_time` are the options beyond one pass per image, for the record.

    Raises:
        DataError: the referee differs.
    """
    about: dict[str, Any] = {
        "variant": spec.name,
        "checkpoint": checkpoint,
        "referee": referee,
    }
    if spec.head.gives_proposals:
        return {"recall": recall(data, found, **about)}
    about["test_time"] = test_time
    made: dict[str, Accuracy | Recall | Failure] = {"accuracy": score(data, found, **about)}
    if "masks" in spec.head.needs:
        try:
            made["masks"] = score(data, found, task="segm", **about)
        except DataError as error:
            made["masks"] = Failure(spec.name, "masks", str(error))
    return made


def score(
    data: CocoData,
    detections: Sequence[Detection],
    *,
    variant: str,
    checkpoint: str | None = None,
    task: Task = "bbox",
    referee: bool = False,
    resamples: int = RESAMPLES,
    test_time: str = "",
    finer: bool = True,
) -> Accuracy:
    """Score detections on every image of a set, also those without annotations.

    Args:
        data: the set.
        detections: COCO result format: `image_id`, `category_id`, `bbox` (x, y, width, height)
            in pixels, `score`; `segmentation` (RLE) for masks; maybe the `level` that found it,
            with which the record says which level found what. None at all is AP 0.
        variant: what made them.
        checkpoint: the file it was loaded from, for the record.
        task: what is compared, boxes or masks. A mask is small, medium or large by its own area.
        referee: score with pycocotools too, and compare.
        resamples: how many draws of the images AP is taken on; 0 for none.
        test_time: options beyond one pass per image, for the record.
        finer: score finer sizes of objects too.

    Raises:
        DataError: masks are to be compared, and the set or a detection has none; or the referee
            differs.
    """
    lined_up = arrays(data, detections, task)
    matched = lined_up.match()
    drawn = _curves(data, detections, task, matched, referee)
    numbers: dict[str, Any] = {
        name: _fraction(value) for name, value in zip(NUMBERS, twelve(drawn))
    }
    return Accuracy(
        variant=variant,
        dataset=data.name,
        images=len(data.images),
        detections=len(detections),
        checkpoint=checkpoint,
        per_class=_per_class(data, drawn),
        task=task,
        bands=_bands(data, lined_up) if finer else (),
        levels=level_shares(lined_up, detections),
        test_time=test_time,
        refereed=referee,
        **numbers,
        **_draws(matched, "ap", numbers["ap"], resamples),
    )


def recall(
    data: CocoData,
    proposals: Sequence[Detection],
    *,
    variant: str,
    checkpoint: str | None = None,
    referee: bool = False,
    resamples: int = RESAMPLES,
) -> Recall:
    """Average recall of class-agnostic proposals (FPN paper, Table 1): COCO's AR without classes.

    Args:
        data: the set; all its objects count, whatever their category.
        proposals: COCO result format; categories have no say.
        variant: what made them.
        checkpoint: the file it was loaded from, for the record.
        referee: score with pycocotools too, and compare.
        resamples: how many draws of the images AR at 1000 is taken on; 0 for none.

    Raises:
        DataError: the referee differs.
    """
    matched = arrays(data, proposals, "bbox", PROPOSALS.agnostic).match(PROPOSALS)
    drawn = _curves(data, proposals, "bbox", matched, referee)
    found = drawn.recall
    ar1000 = _fraction(average(found, ALL, 1))
    return Recall(
        variant=variant,
        dataset=data.name,
        images=len(data.images),
        proposals=len(proposals),
        checkpoint=checkpoint,
        ar100=_fraction(average(found, ALL, 0)),
        ar1000=ar1000,
        ar1000_small=_fraction(average(found, SMALL, 1)),
        ar1000_medium=_fraction(average(found, MEDIUM, 1)),
        ar1000_large=_fraction(average(found, LARGE, 1)),
        refereed=referee,
        # AR at the most detections of the rules, which here are 1000
        **_draws(matched, "ar100", ar1000, resamples),
    )


def _curves(
    data: CocoData, detections: Sequence[Detection], task: Task, matched: Matched, referee: bool
) -> Curves:
    drawn = curves(matched)
    if referee:
        from sepcbench.measures.coco_referee import check

        check(drawn, data, detections, task)
    return drawn


def _bands(data: CocoData, lined_up: Arrays) -> tuple[SizeBand, ...]:
    """Nothing where no size is to be had: an image annotated without one, or no objects."""
    if not data.boxes or not (lined_up.image_areas > 0).all():
        return ()
    return bands(lined_up)


def _draws(matched: Matched, number: str, value: float | None, resamples: int) -> dict[str, Any]:
    """The fields of a record that come from draws of the images; empty where they say nothing.

    Args:
        matched: the detections.
        number: what is taken on each draw, by its name in `NUMBERS` of `weighted_scores`.
        value: the same on the whole set.
        resamples: how many draws.
    """
    if resamples < 1 or value is None or matched.images < MIN_DRAWN:
        return {}
    made = draw(matched, resamples=resamples, names=(number,))
    drawn = made.drawn[number]
    if np.isnan(drawn).any():  # a draw without any object: too few images have some
        return {}
    count, mark = made.objects
    return {
        "ap_ci95": centred(drawn, value),
        "draws": tuple(float(round(x, DIGITS)) for x in drawn),
        "drawn_from": f"{made.images} images, {count} objects, mark {mark}, seed {made.seed}",
    }


def _per_class(data: CocoData, drawn: Curves) -> tuple[tuple[str, float | None], ...]:
    """AP over IoU 0.5 to 0.95 of each class, None where it has no ground truth."""
    return tuple(
        (name, _fraction(average(drawn.precision[:, :, label], ALL, -1)))
        for label, (_, name) in enumerate(sorted(data.categories))
    )


def _fraction(value: float) -> float | None:
    """COCO has -1 where there is no ground truth."""
    return None if value < 0 else float(value)


# --- detections on disk --------------------------------------------------------------------


def write_detections(path: Path, detections: Sequence[Detection]) -> None:
    """Write detections in COCO result format; the file appears whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_whole(path, json.dumps(list(detections), allow_nan=False))
    except OSError as error:
        raise DataError(f"cannot write detections to '{path}': {error.strerror}") from None


def read_detections(path: Path, data: CocoData, task: FileTask = "bbox") -> list[Detection]:
    """Read detections in COCO result format and check them against a set.

    Args:
        path: the file.
        data: the set.
        task: what is to be scored; the categories of proposals have no say, masks need a
            `segmentation` each.

    Raises:
        DataError: malformed, or of other images or categories than the set's.
    """
    found = read_json(path, "detections file")
    if not isinstance(found, list):
        raise DataError(f"'{path}' is not in COCO result format: expected a list of detections")
    for index, item in enumerate(found):
        if task == "proposals" and isinstance(item, dict):
            item["category_id"] = 1
        _check_detection(item, f"{path}: detection {index}")
    _check_known(found, "image_id", {image.id for image in data.images}, path, data)
    if task != "proposals":
        _check_known(found, "category_id", {key for key, _ in data.categories}, path, data)
    return found


def _check_known(
    found: list[Detection], key: str, known: set[int], path: Path, data: CocoData
) -> None:
    stray = {item[key] for item in found} - known
    if stray:
        what = {"image_id": "images", "category_id": "categories"}[key]
        raise DataError(
            f"'{path}' names {len(stray)} {what} that are not in {data.annotations}, "
            f"first {key} {min(stray)}; score it against the set it was made on"
        )


def _check_detection(item: Any, where: str) -> None:
    if not isinstance(item, dict):
        raise DataError(f"{where} is not an object")
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in item:
            raise DataError(f"{where}: missing key '{key}'")
    bbox = item["bbox"]
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise DataError(f"{where}: 'bbox' is not four numbers (x, y, width, height)")
    if not all(type(item[key]) is int for key in ("image_id", "category_id")):
        raise DataError(f"{where}: 'image_id' and 'category_id' are whole numbers")
    if not (is_box(bbox) and is_number(item["score"])):
        raise DataError(f"{where}: 'bbox' and 'score' are finite numbers")
