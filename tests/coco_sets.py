"""Small COCO sets and a stand-in detector for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def document(images: int = 3) -> dict[str, Any]:
    """An annotation file's content: `images` images of 60x80, gaps in the category ids."""
    return {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "width": 80, "height": 60}
            for i in range(images)
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 3, "bbox": [5, 6, 20, 30]},
            {"id": 2, "image_id": 10, "category_id": 7, "bbox": [30, 6, 40, 40], "area": 900},
            {"id": 3, "image_id": 11, "category_id": 7, "bbox": [0, 0, 50, 50], "iscrowd": 1},
            {"id": 4, "image_id": 11, "category_id": 3, "bbox": [5, 5, 0, 9]},
        ],
    }


def write(folder: Path, content: Any | None = None, split: str = "val") -> Path:
    """Write a set with its images; returns the annotation file."""
    content = document() if content is None else content
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / split).mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for image in content["images"]:
        pixels = rng.integers(0, 256, (image["height"], image["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / split / image["file_name"])
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
    return path


def with_rectangles(content: dict[str, Any]) -> dict[str, Any]:
    """Give each annotation the polygon of its box for a segmentation."""
    for item in content["annotations"]:
        x, y, width, height = item["bbox"]
        right, bottom = x + width, y + height
        item["segmentation"] = [[x, y, right, y, right, bottom, x, bottom]]
    return content
