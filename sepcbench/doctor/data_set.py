"""A data set in COCO format: what `train` and `eval` would stumble over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sepcbench.doctor.finding import Finding
from sepcbench.errors import DataError

if TYPE_CHECKING:
    from sepcbench.data.coco import CocoData

_SAMPLE = 50  # images whose size is read
_SLACK = 1.0  # pixels that a box may reach out: annotators round


def check_data(folder: Path) -> Iterator[Finding]:
    """Check every annotation file of a folder, with its images."""
    files = annotation_files(folder)
    if not files:
        text = (
            f"{folder}: no annotations/*.json in it" if folder.is_dir() else f"{folder}: not there"
        )
        yield Finding("data", "problem", text, "make a set: sepcbench data shapes DIR")
    for file in files:
        yield from _one(folder, file)


def annotation_files(folder: Path) -> list[Path]:
    """The files to check: instances_*.json where there are any (COCO has captions beside them)."""
    found = sorted((folder / "annotations").glob("*.json")) or sorted(folder.glob("*.json"))
    return [path for path in found if path.name.startswith("instances")] or found


def _one(folder: Path, file: Path) -> Iterator[Finding]:
    from sepcbench.data.coco import open_data

    topic = f"data {file.stem}"
    try:  # malformed files, ids that repeat or point nowhere
        data = open_data(folder, annotations=file)
    except DataError as error:
        yield Finding(topic, "problem", str(error), "correct the file or get it again")
        return
    classes, boxes = len(data.categories), len(data.boxes)
    text = f"{len(data.images)} images, {boxes} boxes, {classes} categories"
    yield Finding(topic, "ok" if boxes else "warning", text, "" if boxes else "there is no object")
    yield from images(topic, data)
    yield from objects(topic, data)


def images(topic: str, data: CocoData) -> Iterator[Finding]:
    """The images are there, and those of a sample as large as annotated."""
    repeated = _some(name for name, n in _names(data).items() if n > 1)
    if repeated:
        text = f"several images have one file: {repeated}"
        yield Finding(topic, "warning", text, "list each image once")
    if data.image_folder is None:
        text = "no folder with its images; detections can be scored, nothing can be trained"
        yield Finding(topic, "warning", text, "put the images beside annotations/")
        return
    folder = data.image_folder
    missing = [item.file_name for item in data.images if not (folder / item.file_name).is_file()]
    if missing:
        text = f"{len(missing)} of {len(data.images)} images are missing: {_some(missing)}"
        yield Finding(topic, "problem", text, f"copy them to {folder}")
    else:
        yield Finding(topic, "ok", "all images are there")
    yield from _sizes(topic, data, folder)


def _names(data: CocoData) -> Counter[str]:
    return Counter(item.file_name for item in data.images)


def _sizes(topic: str, data: CocoData, folder: Path) -> Iterator[Finding]:
    from PIL import Image

    step = max(1, len(data.images) // _SAMPLE)
    sample = [i for i in data.images[::step][:_SAMPLE] if (folder / i.file_name).is_file()]
    wrong, broken = [], []
    for item in sample:
        try:
            with Image.open(folder / item.file_name) as image:
                if image.size != (item.width, item.height):
                    wrong.append(f"{item.file_name} ({image.size[0]} by {image.size[1]} pixels)")
        except (OSError, ValueError, Image.DecompressionBombError):
            broken.append(item.file_name)
    if broken:
        text = f"{len(broken)} of {len(sample)} images cannot be read: {_some(broken)}"
        yield Finding(topic, "problem", text, "get them again")
    if wrong:
        text = f"{len(wrong)} of {len(sample)} images have another size than annotated: "
        advice = "boxes are of the annotated size: find out which is right"
        yield Finding(topic, "problem", text + _some(wrong), advice)
    if sample and not broken and not wrong:
        yield Finding(topic, "ok", f"sizes of {len(sample)} images are as annotated")


def objects(topic: str, data: CocoData) -> Iterator[Finding]:
    """Boxes lie inside their images and have a size; how the objects are spread."""
    size = {item.id: (item.width, item.height) for item in data.images}
    outside, flat = [], []
    for box in data.boxes:
        x, y, width, height = box.bbox
        right, bottom = size[box.image_id]
        if width <= 0 or height <= 0:
            flat.append(box.id)
        elif min(x, y) < -_SLACK or x + width > right + _SLACK or y + height > bottom + _SLACK:
            outside.append(box.id)
    if outside:
        text = f"{len(outside)} boxes reach out of their image: annotations {_some(outside)}"
        yield Finding(
            topic, "warning", text, "they are used as they are; check the annotated sizes"
        )
    if flat:
        text = f"{len(flat)} boxes have no width or height: annotations {_some(flat)}"
        yield Finding(topic, "warning", text, "they are left out of training")
    twice = sum(
        n - 1 for n in Counter((b.image_id, b.category_id, b.bbox) for b in data.boxes).values()
    )
    if twice:
        text = f"{twice} boxes are there more than once, of the same category and place"
        yield Finding(topic, "warning", text, "each costs recall: remove them")
    used = {box.category_id for box in data.boxes}
    unused = [name for key, name in data.categories if key not in used]
    if unused:
        text = f"{len(unused)} categories have no object: {_some(unused)}"
        yield Finding(topic, "info", text)
    empty = len(size) - len({box.image_id for box in data.boxes})
    if empty:
        yield Finding(topic, "info", f"{empty} images have no object")


def _some(names: object) -> str:
    """The first three of many."""
    listed = [str(name) for name in names]  # type: ignore[attr-defined]
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
