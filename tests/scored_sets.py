"""Random ground truth and detections, and pycocotools' scores of them, for the tests of scoring."""

from __future__ import annotations

import contextlib
import io
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sepcbench.measures.coco_matching import Found, Objects


class Case(NamedTuple):
    """Detections and objects of a set; image and class ids have gaps."""

    found: Found
    objects: Objects
    images: int
    classes: int

    @property
    def sizes(self) -> dict[str, int]:
        return {"images": self.images, "classes": self.classes}


def fuzzed(seed: int) -> Case:
    """A small set with all that makes scoring hard.

    Boxes on a coarse grid, so that IoUs tie and hit thresholds exactly; few different scores;
    doubled boxes; boxes without width or height; crowds; images and classes with nothing; areas
    that are not those of the boxes.
    """
    rng = np.random.default_rng(seed)
    images, classes = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    objects, found = int(rng.integers(0, 25)), int(rng.integers(0, 120))
    grid = float(rng.choice([1, 4, 10, 16]))
    spread = int(rng.choice([3, 8]))

    def boxes(number: int) -> np.ndarray:
        corner = rng.integers(0, spread, (number, 2)) * grid
        size = rng.integers(0 if rng.random() < 0.5 else 1, spread + 3, (number, 2)) * grid
        return np.hstack([corner, size])

    truth = boxes(objects)
    if objects > 4:
        truth[: objects // 4] = truth[objects // 4 : 2 * (objects // 4)]
    box = boxes(found)
    if objects and found:
        near = rng.random(found) < 0.6
        box[near] = truth[rng.integers(0, objects, near.sum())]
        moved = rng.random(found) < 0.4
        box[moved] += rng.normal(0, 0.1 * grid, (moved.sum(), 4)) * (box[moved] != 0)
        box[:, 2:] = np.abs(box[:, 2:])
    area = truth[:, 2] * truth[:, 3] * rng.choice([1.0, 0.6], objects)
    area[rng.random(objects) < 0.1] = 32.0**2  # on the edge of two sizes
    score = rng.random(found)
    if rng.random() < 0.7:
        score = np.round(score, 1)
    return Case(
        Found(
            image=rng.integers(0, images, found),
            label=rng.integers(0, classes, found),
            box=box,
            score=score,
        ),
        Objects(
            image=rng.integers(0, images, objects),
            label=rng.integers(0, classes, objects),
            box=truth,
            area=area,
            crowd=rng.random(objects) < rng.choice([0.0, 0.2]),
        ),
        images,
        classes,
    )


def realistic(images: int, classes: int = 80, seed: int = 0) -> Case:
    """A set like COCO's validation images: 6.8 objects and 100 detections per image.

    Sizes from 8 to 512 pixels, a third of the objects of one class, 1 % crowds. Two fifths of the
    detections lie around objects, several to each, the better the surer; the others anywhere.
    """
    rng = np.random.default_rng(seed)
    number, found = round(6.817 * images), 100 * images
    frequency = 1 / np.arange(3, classes + 3) ** 1.1
    frequency /= frequency.sum()
    frequency = np.where(np.arange(classes) == 0, 0.32, 0.68 * frequency)

    def boxes(count: int) -> np.ndarray:
        size = np.exp(
            rng.uniform(np.log(8), np.log(400), (count, 1)) + rng.normal(0, 0.3, (count, 2))
        )
        return np.hstack([rng.uniform(0, 1, (count, 2)) * (640 - np.minimum(size, 600)), size])

    labels = frequency / frequency.sum()
    # objects of an image are of few classes
    image = np.sort(rng.integers(0, images, number))
    usual = rng.choice(classes, (images, 2), p=labels)
    label = usual[image, rng.integers(0, 2, number)]
    truth = boxes(number)
    around = int(0.4 * found)
    source = rng.integers(0, number, around)
    noise = rng.gamma(1.5, 0.05, (around, 1))
    box = boxes(found)
    size = truth[source, 2:]
    shift = rng.normal(0, 1, (around, 4)) * noise
    box[:around, :2] = truth[source, :2] + shift[:, :2] * size
    box[:around, 2:] = size * np.exp(shift[:, 2:])
    score = rng.beta(1, 6, found)
    score[:around] = np.clip(0.9 - 3 * noise[:, 0] + rng.normal(0, 0.15, around), 0.01, 1)
    of_image = rng.integers(0, images, found)
    of_image[:around] = image[source]
    of_label = rng.choice(classes, found, p=labels)
    right = rng.random(around) < 0.85
    of_label[:around] = np.where(right, label[source], of_label[:around])
    mixed = rng.permutation(found)
    return Case(
        Found(of_image[mixed], of_label[mixed], box[mixed], np.round(score, 3)[mixed]),
        Objects(
            image=image,
            label=label,
            box=truth,
            area=truth[:, 2] * truth[:, 3] * rng.uniform(0.4, 1, number),
            crowd=rng.random(number) < 0.01,
        ),
        images,
        classes,
    )


def pycocotools_evaluation(case: Case, task: str = "bbox", **extra: list[Any]) -> COCOeval:
    """An evaluation by pycocotools that is ready to run; ids are numbers with gaps.

    `extra` are fields of the detections (`found_...`) and objects (`object_...`), one value each.
    """
    found, objects = case.found, case.objects
    area = found.box[:, 2] * found.box[:, 3] if found.area is None else found.area
    truth = [
        {
            "id": 3 * i + 1,
            "image_id": 7 * int(objects.image[i]) + 5,
            "category_id": 2 * int(objects.label[i]) + 1,
            "bbox": objects.box[i].tolist(),
            "area": float(objects.area[i]),
            "iscrowd": int(objects.crowd[i]),
            **{key[7:]: values[i] for key, values in extra.items() if key.startswith("object_")},
        }
        for i in range(len(objects.image))
    ]
    results = [
        {
            "id": i + 1,
            "image_id": 7 * int(found.image[i]) + 5,
            "category_id": 2 * int(found.label[i]) + 1,
            "bbox": found.box[i].tolist(),
            "area": float(area[i]),
            "iscrowd": 0,
            "score": float(found.score[i]),
            **{key[6:]: values[i] for key, values in extra.items() if key.startswith("found_")},
        }
        for i in range(len(found.image))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(case, truth), _coco(case, results), task)
    return evaluation


def _coco(case: Case, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 7 * i + 5, "width": 640, "height": 640} for i in range(case.images)],
        "categories": [{"id": 2 * k + 1, "name": str(k)} for k in range(case.classes)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def evaluate(evaluation: COCOeval, summarize: bool = True) -> COCOeval:
    """Run it without its printing."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        if summarize:
            evaluation.summarize()
    return evaluation
