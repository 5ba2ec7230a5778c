"""Proposals: class-agnostic boxes per image that a second stage works on, from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sepcbench.data.annotations import is_box, is_number, read_json
from sepcbench.data.coco import CocoData
from sepcbench.errors import DataError

HOW = "`sepcbench eval RPN_CHECKPOINT --data DIR --split SPLIT --out proposals.json` makes it"


@dataclass(frozen=True, eq=False)
class Proposals:
    """Proposals of many images.

    `boxes` are, by image id, (r, 4) float32 xyxy in pixels of the image file, best first.
    """

    path: Path
    boxes: Mapping[int, np.ndarray]

    @cached_property
    def digest(self) -> str:
        """Short, of the boxes themselves: two files with the same digest train the same."""
        found = hashlib.sha256()
        for image_id in sorted(self.boxes):
            found.update(str(image_id).encode() + self.boxes[image_id].tobytes())
        return found.hexdigest()[:16]

    def of(self, image_id: int) -> np.ndarray:
        """The proposals of one image, (r, 4) float32; none where the file has none."""
        return self.boxes.get(image_id, np.zeros((0, 4), dtype=np.float32))


def read_proposals(path: Path, data: CocoData) -> Proposals:
    """Read a proposals file: COCO result format, whatever the categories.

    Args:
        path: a JSON list of objects with `image_id`, `bbox` (x, y, width, height) in pixels of the
            image file, and `score`.
        data: the set that it was made on.

    Raises:
        DataError: malformed, or it names images that are not in the set.
    """
    found = read_json(path, "proposals file")
    if not isinstance(found, list):
        raise DataError(f"'{path}' is not in COCO result format: expected a list of proposals")
    rows: dict[int, list[tuple[float, ...]]] = {}
    for index, item in enumerate(found):
        image_id, row = _proposal(item, f"{path}: proposal {index}")
        rows.setdefault(image_id, []).append(row)
    known = {image.id for image in data.images}
    stray = sorted(rows.keys() - known)
    if stray:
        raise DataError(
            f"'{path}' names {len(stray)} images that are not in {data.annotations}, first "
            f"image_id {stray[0]}; proposals belong to the set they were made on"
        )
    return Proposals(path, {image_id: _boxes(values) for image_id, values in rows.items()})


def check_proposals(proposals: Proposals, data: CocoData) -> None:
    """Check that every image of a set has proposals.

    Raises:
        DataError: some have none; the line has their number and the first id.
    """
    missing = [image.id for image in data.images if not len(proposals.of(image.id))]
    if missing:
        raise DataError(
            f"'{proposals.path}' has no proposals for {len(missing)} of {len(data.images)} images "
            f"of {data.annotations}, first image_id {missing[0]}; {HOW}"
        )


def _proposal(item: Any, where: str) -> tuple[int, tuple[float, ...]]:
    """The image id, and (score, x, y, width, height)."""
    if not isinstance(item, dict):
        raise DataError(f"{where} is not an object")
    for key in ("image_id", "bbox", "score"):
        if key not in item:
            raise DataError(f"{where}: missing key '{key}'")
    image_id, bbox = item["image_id"], item["bbox"]
    if type(image_id) is not int:
        raise DataError(f"{where}: 'image_id' is {image_id!r}, not a whole number")
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise DataError(f"{where}: 'bbox' is not four numbers (x, y, width, height)")
    if not (is_box(bbox) and is_number(item["score"])):
        raise DataError(f"{where}: 'bbox' and 'score' are finite numbers")
    if min(bbox[2:]) < 0:
        raise DataError(f"{where}: 'bbox' has a width or height below 0")
    return image_id, (item["score"], *bbox)


def _boxes(rows: list[tuple[float, ...]]) -> np.ndarray:
    """(score, x, y, width, height) rows to (r, 4) xyxy, best first, ties as in the file."""
    table = np.array(rows, dtype=np.float64)
    table = table[np.argsort(-table[:, 0], kind="stable"), 1:]
    return np.concatenate([table[:, :2], table[:, :2] + table[:, 2:]], axis=1).astype(np.float32)
