"""A set and the detections on it as the arrays that are matched. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sepcbench.data.coco import CocoData, check_masks
from sepcbench.data.segmentations import Rle, Unusable, as_rle, mask_area, read_segmentation
from sepcbench.errors import DataError
from sepcbench.measures.coco_matching import COCO, Found, Matched, Objects, Rules, match
from sepcbench.measures.coco_overlaps import PairOverlaps, mask_overlaps

Detection = dict[str, Any]
Task = Literal["bbox", "segm"]


@dataclass(frozen=True)
class Arrays:
    """What `match` takes; images and classes are numbered in the order of their ids.

    `image_areas` (images,) are in square pixels, as annotated. `overlaps` is None for boxes; `kept`
    (n,) says which of the detections given are in `found`.
    """

    found: Found
    objects: Objects
    images: int
    classes: int
    image_areas: np.ndarray
    overlaps: PairOverlaps | None = None
    kept: np.ndarray | None = None

    def match(self, rules: Rules = COCO) -> Matched:
        """Match them."""
        return match(
            self.found,
            self.objects,
            images=self.images,
            classes=self.classes,
            rules=rules,
            overlaps=self.overlaps,
        )


def arrays(
    data: CocoData, detections: Sequence[Detection], task: Task = "bbox", agnostic: bool = False
) -> Arrays:
    """Line up a set and the detections on it.

    As pycocotools, leave out detections on images that are not in the set, and of categories that
    are not, unless categories have no say.

    Args:
        data: the set.
        detections: COCO result format.
        task: what is compared, boxes or masks.
        agnostic: whether the categories of detections are passed over.

    Raises:
        DataError: masks are to be compared, and the set or a detection has none.
    """
    images = sorted(data.images, key=lambda image: image.id)
    number = {image.id: i for i, image in enumerate(images)}
    label = {key: i for i, (key, _) in enumerate(sorted(data.categories))}
    places = [
        (i, number[item["image_id"]], 0 if agnostic else label[item["category_id"]])
        for i, item in enumerate(detections)
        if item["image_id"] in number and (agnostic or item["category_id"] in label)
    ]
    kept, of_image, of_label = np.array(places, dtype=np.int64).reshape(-1, 3).T
    box = _boxes([detections[i]["bbox"] for i in kept])
    score = np.array([detections[i]["score"] for i in kept], dtype=float)
    objects = Objects(
        image=np.array([number[o.image_id] for o in data.boxes], dtype=np.int64),
        label=np.array([label[o.category_id] for o in data.boxes], dtype=np.int64),
        box=_boxes([o.bbox for o in data.boxes]),
        area=np.array([o.area for o in data.boxes], dtype=float),
        crowd=np.array([o.iscrowd for o in data.boxes], dtype=bool),
    )
    area, overlaps = None, None
    if task == "segm":
        truth = object_masks(data)
        masks = found_masks(data, detections, kept.tolist())
        area = np.array([mask_area(mask) for mask in masks], dtype=float)
        overlaps = mask_overlaps(of_image, masks, objects.image, truth, objects.crowd)
    return Arrays(
        found=Found(of_image, of_label, box, score, area),
        objects=objects,
        images=len(images),
        classes=len(label),
        image_areas=np.array([image.width * image.height for image in images], dtype=float),
        overlaps=overlaps,
        kept=kept,
    )


def _boxes(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array(boxes, dtype=float).reshape(-1, 4)


def object_masks(data: CocoData) -> list[dict[str, Any]]:
    """The mask of each object of a set, as pycocotools holds it.

    Raises:
        DataError: one has none, or none that can be used.
    """
    check_masks(data)
    sizes = {image.id: (image.height, image.width) for image in data.images}
    return [as_rle(data.segmentation(box), sizes[box.image_id]) for box in data.boxes]


def found_masks(
    data: CocoData, detections: Sequence[Detection], which: Sequence[int]
) -> list[dict[str, Any]]:
    """The masks of some of the detections, as pycocotools holds them.

    Raises:
        DataError: one has none, none that can be used, or one of another size than its image.
    """
    sizes = {image.id: (image.height, image.width) for image in data.images}
    return [
        _mask_of(detections[i], sizes[detections[i]["image_id"]], f"detection {i}") for i in which
    ]


def _mask_of(item: Detection, size: tuple[int, int], where: str) -> dict[str, Any]:
    """The mask of a detection on an image of `size` (h, w)."""
    found = read_segmentation(item.get("segmentation"))
    if found is None:
        raise DataError(f"{where} has no segmentation: only its box can be scored (task bbox)")
    if isinstance(found, Unusable):
        raise DataError(f"{where}: its segmentation cannot be used: {found.reason}")
    if isinstance(found, Rle) and found.size != size:
        raise DataError(
            f"{where}: its segmentation is of {found.size[0]}x{found.size[1]} pixels (height x "
            f"width), its image of {size[0]}x{size[1]}"
        )
    return as_rle(found, size)
