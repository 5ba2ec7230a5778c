"""A generated data set in COCO format: coloured shapes over textured backgrounds.

It is small enough to learn in seconds and has what makes a pyramid matter and scoring hard: sizes
spread over more than 16x, overlaps, crowd regions, images without objects, category ids with gaps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sepcbench.data.drawing import CATEGORY_IDS, CLASSES, Size, draw
from sepcbench.errors import DataError, UsageError
from sepcbench.whole_files import write_whole

Progress = Callable[[int, int, str], None]
MAKER = "sepcbench data shapes"


def generate(
    folder: Path,
    *,
    images: int,
    val_images: int,
    seed: int,
    size: Size,
    progress: Progress | None = None,
) -> None:
    """Write a data set: `train/`, `val/` and `annotations/instances_{train,val}.json`.

    The same arguments give the same pixels and annotations. A set made here before is replaced;
    the annotation files are written last, so that a set cut short is not taken for a whole one.

    Args:
        folder: made if it is not there.
        images: number of training images.
        val_images: number of validation images.
        seed: of everything random.
        size: (height, width) of the images in pixels.
        progress: called with (done, total, label) after each image.

    Raises:
        UsageError: no images asked for, or too small ones.
        DataError: the folder has other annotations, or cannot be written.
    """
    if images < 1 or val_images < 1:
        raise UsageError("the generated set needs at least 1 image for training and 1 for val")
    if min(size) < 32:
        raise UsageError(f"images of {size[0]}x{size[1]} are too small; 32x32 is the least")
    info = {
        "description": MAKER,
        "images": images,
        "val_images": val_images,
        "seed": seed,
        "size": list(size),
    }
    counts = {"train": images, "val": val_images}

    def show(split: str, done: int) -> None:
        if progress:
            progress(done + (images if split == "val" else 0), images + val_images, split)

    try:
        _clear(folder)
        documents = {
            split: {"info": info, **_write_images(folder / split, [seed, part], count, size, show)}
            for part, (split, count) in enumerate(counts.items())
        }
        (folder / "annotations").mkdir(exist_ok=True)
        for split, document in documents.items():
            _write_json(_annotation_file(folder, split), document)
    except OSError as error:
        raise DataError(f"cannot write the data set to '{folder}': {error.strerror}") from None


def _write_images(
    folder: Path, seed: list[int], count: int, size: Size, show: Callable[[str, int], None]
) -> dict[str, Any]:
    """Draw and write the images of one split; returns the lists of its annotation file."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        picture, annotations = draw(np.random.default_rng([*seed, number]), size)
        name = _name(number)
        Image.fromarray(picture).save(folder / name, compress_level=1)
        entries.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        for item in annotations:
            objects.append({"id": len(objects) + 1, "image_id": number, **item})
        show(folder.name, number)
    categories = [{"id": key, "name": name} for key, name in zip(CATEGORY_IDS, CLASSES)]
    return {"images": entries, "annotations": objects, "categories": categories}


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _write_json(path: Path, document: dict[str, Any]) -> None:
    write_whole(path, json.dumps(document))


def _annotation_file(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"instances_{split}.json"


def _clear(folder: Path) -> None:
    """Remove a set made here before; leave anything else alone."""
    for path in sorted((folder / "annotations").glob("*.json")):
        if _maker(path) != MAKER:
            raise DataError(f"'{path}' was not made by `{MAKER}`; choose another folder")
    for split in ("train", "val"):
        path = _annotation_file(folder, split)
        if path.is_file():
            for number in range(1, 1 + len(list((folder / split).glob("*.png")))):
                (folder / split / _name(number)).unlink(missing_ok=True)
            path.unlink()


def _maker(path: Path) -> str | None:
    """What an annotation file says it was made by."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["info"]["description"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
