"""Data sets in COCO format: finding the files, objects per image, classes by name.

No torch and no image reading here: scoring saved detections needs only the annotations.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sepcbench.data.annotations import Annotation, ImageEntry, read_annotations
from sepcbench.data.segmentations import Polygons, Rle, Unusable, rasterise
from sepcbench.errors import DataError, nearest


class Objects(NamedTuple):
    """The objects of one image that can be learnt from, crowds and boxes of no size left out.

    `boxes` (g, 4) float32 xyxy in pixels of the image; `labels` (g,) int64, index into
    `CocoData.categories`.
    """

    boxes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class CocoData:
    """An annotation file that was read and checked, and where its images lie.

    `categories` are (id, name) in the order of ids; ids may have gaps. `image_folder` is None
    where none was found: scoring works without images.
    """

    name: str
    annotations: Path
    image_folder: Path | None
    categories: tuple[tuple[int, str], ...]
    images: tuple[ImageEntry, ...]
    boxes: tuple[Annotation, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The category names, in the order of their ids."""
        return tuple(name for _, name in self.categories)

    @cached_property
    def _by_image(self) -> dict[int, list[Annotation]]:
        found: dict[int, list[Annotation]] = {image.id: [] for image in self.images}
        for box in self.boxes:
            found[box.image_id].append(box)
        return found

    @cached_property
    def _image_of(self) -> dict[int, ImageEntry]:
        return {image.id: image for image in self.images}

    @cached_property
    def _label_of(self) -> dict[int, int]:
        return {key: label for label, (key, _) in enumerate(self.categories)}

    def objects(self, image_id: int) -> Objects:
        """The objects of one image to train on."""
        kept = self._learnable(image_id)
        xywh = np.array([box.bbox for box in kept], dtype=np.float32).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        labels = np.array([self._label_of[box.category_id] for box in kept], dtype=np.int64)
        return Objects(boxes, labels)

    def masks(self, image: ImageEntry) -> np.ndarray:
        """The pixels of each of `objects` of an image, (g, H, W) bool at its annotated size.

        Raises:
            DataError: an object has no segmentation, or one that cannot be used.
        """
        size = (image.height, image.width)
        kept = self._learnable(image.id)
        masks = np.zeros((len(kept), *size), dtype=bool)
        for slot, box in zip(masks, kept):
            slot[:] = rasterise(self.segmentation(box), size)
        return masks

    def segmentation(self, box: Annotation) -> Polygons | Rle:
        """The segmentation of one object.

        Raises:
            DataError: it has none, or one that cannot be used.
        """
        where = f"{self.annotations}: annotation id {box.id}"
        if box.segmentation is None:
            raise DataError(f"{where} has no segmentation, which masks need")
        if isinstance(box.segmentation, Unusable):
            raise DataError(f"{where}: its segmentation cannot be used: {box.segmentation.reason}")
        image = self._image_of[box.image_id]
        size = (image.height, image.width)
        if isinstance(box.segmentation, Rle) and box.segmentation.size != size:
            raise DataError(
                f"{where}: its segmentation is of {_size(box.segmentation.size)} pixels (height x "
                f"width), its image of {_size(size)}"
            )
        return box.segmentation

    def _learnable(self, image_id: int) -> list[Annotation]:
        return [
            box
            for box in self._by_image[image_id]
            if not box.iscrowd and box.bbox[2] > 0 and box.bbox[3] > 0
        ]

    def path(self, image: ImageEntry) -> Path:
        """Where the image file should be.

        Raises:
            DataError: there is no image folder.
        """
        if self.image_folder is None:
            raise DataError(
                f"{self.annotations}: no image folder found beside it; name it with --images"
            )
        return self.image_folder / image.file_name

    def first(self, count: int) -> CocoData:
        """The same set with only its first `count` images."""
        return self._of(self.images[:count])

    def with_objects(self) -> CocoData:
        """The same set without the images that have no object to learn."""
        images = tuple(image for image in self.images if self._learnable(image.id))
        return self if len(images) == len(self.images) else self._of(images)

    def _of(self, images: tuple[ImageEntry, ...]) -> CocoData:
        kept = {image.id for image in images}
        boxes = tuple(box for box in self.boxes if box.image_id in kept)
        return replace(self, images=images, boxes=boxes)

    @cached_property
    def digest(self) -> str:
        """Of images, categories and boxes; files and segmentations have no say."""
        found = hashlib.sha256(repr((self.categories, self.images)).encode())
        ids = [(box.id, box.image_id, box.category_id, box.iscrowd) for box in self.boxes]
        found.update(np.array(ids, dtype=np.int64).tobytes())
        found.update(np.array([box.bbox for box in self.boxes], dtype=np.float64).tobytes())
        return found.hexdigest()[:16]


# --- finding the files ---------------------------------------------------------------------


def open_data(
    folder: Path | None,
    split: str | None = None,
    annotations: Path | None = None,
    images: Path | None = None,
    *,
    segmentations: bool = True,
) -> CocoData:
    """Find, read and check a data set.

    Args:
        folder: holds `annotations/*.json` and the image folders; not needed when
            `annotations` is given.
        split: the end of the annotation file's name, such as `val` (also finds `val2017`);
            None takes the only annotation file, or `val` where there are several.
        annotations: the annotation file, instead of looking for it.
        images: the image folder, instead of looking for it.
        segmentations: whether to keep them; those of COCO's training set take over 1 GB.

    Raises:
        DataError: nothing or more than one file found, or the file is malformed.
    """
    if folder is None and annotations is None:
        raise DataError("no data set given; name a folder with --data or a file with --annotations")
    if folder is not None and not folder.is_dir():
        raise DataError(f"data folder '{folder}' is not there; make one: sepcbench data shapes DIR")
    if images is not None and not images.is_dir():
        raise DataError(f"image folder '{images}' is not there (--images)")
    if annotations is None:
        assert folder is not None
        annotations = _find_annotations(folder, split)
    root = folder or annotations.resolve().parent.parent
    content = read_annotations(annotations, segmentations)
    return CocoData(
        name=f"{root.resolve().name}/{annotations.stem}",
        annotations=annotations,
        image_folder=images or _find_images(root, annotations.stem, content.images),
        categories=content.categories,
        images=content.images,
        boxes=content.boxes,
    )


def _find_annotations(folder: Path, split: str | None) -> Path:
    found = sorted((folder / "annotations").glob("*.json")) or sorted(folder.glob("*.json"))
    if not found:
        raise DataError(f"no annotations in '{folder}': expected annotations/*.json in COCO format")
    if split is None and len(found) == 1:
        return found[0]
    wanted = split or "val"
    matching = [path for path in found if _split_of(path.stem, wanted)]
    # COCO's own folder also has captions_ and person_keypoints_ files
    instances = [path for path in matching if path.stem.startswith("instances")]
    chosen = instances if len(matching) > 1 and instances else matching
    if len(chosen) == 1:
        return chosen[0]
    what = f"several annotation files of split '{wanted}'" if chosen else f"no split '{wanted}'"
    names = ", ".join(path.name for path in (chosen or found)[:8])
    raise DataError(f"{what} in '{folder}' (found {names}); choose with --split or --annotations")


def _split_of(stem: str, split: str) -> str | None:
    """The end of a file name that names the split, such as `val2017` for `val`."""
    match = re.search(rf"(?:^|[_.-])({re.escape(split)}(?:\d{{4}})?)$", stem)
    return match[1] if match else None


def _find_images(root: Path, stem: str, images: Sequence[ImageEntry]) -> Path | None:
    """The first usual folder that holds the first image, or else the first that exists."""
    end = re.split(r"[_.-]", stem)[-1]
    ends = dict.fromkeys((end, re.sub(r"\d{4}$", "", end)))
    usual = [root / name for name in ends] + [root / "images" / name for name in ends]
    there = [path for path in [*usual, root / "images", root] if path.is_dir()]
    if images:
        for path in there:
            if (path / images[0].file_name).is_file():
                return path
    return there[0] if there and there[0] != root else None


def check_images(data: CocoData) -> None:
    """Check that every image of the set has a file.

    Raises:
        DataError: some have none; the line has their number and the first name.
    """
    missing = [image for image in data.images if not data.path(image).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(data.images)} images are missing in '{data.image_folder}', "
            f"first '{missing[0].file_name}'; name the right folder with --images"
        )


def check_masks(data: CocoData) -> None:
    """Check that every object and crowd region of the set has a segmentation that can be used.

    Raises:
        DataError: some have none (the line has their number), or one is malformed.
    """
    missing = [box for box in data.boxes if box.segmentation is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(data.boxes)} annotations in '{data.annotations}' have no "
            f"segmentation, first annotation id {missing[0].id}; masks need one for each, without "
            "them only boxes can be learnt and scored"
        )
    for box in data.boxes:
        data.segmentation(box)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


NOT_A_CLASS = ("__background__", "N/A")
"""Names that published class lists give to labels without a class."""


def category_ids(data: CocoData, classes: Sequence[str]) -> tuple[int | None, ...]:
    """The category id of each class of a model, found by exact name; None for `NOT_A_CLASS`.

    Raises:
        DataError: the model and the data do not have the same classes; the line lists them.
    """
    ids = {name: key for key, name in data.categories}
    unknown = [name for name in classes if name not in ids and name not in NOT_A_CLASS]
    unlearnt = [name for name in ids if name not in classes]
    if not unknown and not unlearnt:
        return tuple(ids.get(name) for name in classes)
    parts = []
    if unknown:
        parts.append(f"not in the data: {_shorten(unknown, ids)}")
    if unlearnt:
        parts.append(f"not in the checkpoint: {_shorten(unlearnt, classes)}")
    raise DataError(
        f"classes of the checkpoint and of {data.annotations} differ; {'; '.join(parts)}"
    )


def _shorten(names: Sequence[str], others: Iterable[str], most: int = 5) -> str:
    """The first few names, each with its nearest counterpart."""
    others = list(others)
    near = ((name, nearest(name, others)) for name in names[:most])
    text = ", ".join(f"'{name}'" + (f" (nearest '{to}')" if to else "") for name, to in near)
    return text + (f" and {len(names) - most} more" if len(names) > most else "")
