"""COCO annotation files: reading them, strictly, into plain tuples."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from sepcbench.codec import shown
from sepcbench.data.segmentations import Segmentation, read_segmentation
from sepcbench.errors import DataError

FAR = 1e15
"""No coordinate of a box is further out than this, in pixels: a float32 can still hold an area."""


_LONGEST_SIDE = 2**17  # pixels; JPEG has 2**16 at most


class ImageEntry(NamedTuple):
    """One image of the set; width and height in pixels, as annotated."""

    id: int
    file_name: str
    width: int
    height: int


class Annotation(NamedTuple):
    """One object or crowd region; `bbox` is (x, y, width, height) in pixels.

    A malformed `segmentation` is kept as `Unusable`: boxes can be used without it.
    """

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int
    segmentation: Segmentation | None = None


class Content(NamedTuple):
    """What an annotation file holds; `categories` are (id, name) in the order of ids."""

    categories: tuple[tuple[int, str], ...]
    images: tuple[ImageEntry, ...]
    boxes: tuple[Annotation, ...]


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        what: what it should be, such as "annotation file", for the error.

    Raises:
        DataError: it is not there, cannot be read, or is malformed or truncated.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{what} '{path}' is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise DataError(f"{what} '{path}' cannot be read: {reason}") from None
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError(f"{what} '{path}' is not of COCO format: it is nested too deep") from None
    except json.JSONDecodeError as error:
        json_like = text.lstrip().startswith(("{", "["))
        cut = json_like and not text.rstrip().endswith(("}", "]"))
        cut = cut or (json_like and error.pos >= len(text.rstrip()))
        how = "is truncated" if cut else "is not valid JSON"
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise DataError(f"{what} '{path}' {how} ({place}); get or make it again") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{what} '{path}' cannot be used: {error}") from None


def read_annotations(path: Path, segmentations: bool = True) -> Content:
    """Read and check an annotation file.

    An `area` that is not given is width times height; an `iscrowd` that is not given is 0.

    Args:
        path: the file.
        segmentations: whether to read them; without, no annotation has one.

    Raises:
        DataError: malformed, a key is missing, ids repeat or point nowhere.
    """
    raw = read_json(path, "annotation file")
    if not isinstance(raw, dict):
        raise DataError(f"'{path}' is not a COCO annotation file: expected an object of lists")
    for key in ("images", "annotations", "categories"):
        if not isinstance(raw.get(key), list):
            raise DataError(f"'{path}' is not a COCO annotation file: it has no list '{key}'")
    images = tuple(_image(item, f"{path}: images[{i}]") for i, item in enumerate(raw["images"]))
    categories = sorted(
        _category(item, f"{path}: categories[{i}]") for i, item in enumerate(raw["categories"])
    )
    boxes = tuple(
        _annotation(item, f"{path}: annotations[{i}]", segmentations)
        for i, item in enumerate(raw["annotations"])
    )
    content = Content(tuple(categories), images, boxes)
    _check_ids(content, path)
    return content


def _image(item: Any, where: str) -> ImageEntry:
    width, height = _integer(item, "width", where), _integer(item, "height", where)
    if min(width, height) < 1 or max(width, height) > _LONGEST_SIDE:
        raise DataError(f"{where}: an image of {width} by {height} pixels")
    name = _value(item, "file_name", where)
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: 'file_name' is not a name")
    return ImageEntry(_integer(item, "id", where), name, width, height)


def _category(item: Any, where: str) -> tuple[int, str]:
    return _integer(item, "id", where), str(_value(item, "name", where))


def _annotation(item: Any, where: str, segmentations: bool) -> Annotation:
    bbox = _value(item, "bbox", where)
    if not is_box(bbox):
        raise DataError(f"{where}: 'bbox' is not four numbers (x, y, width, height)")
    x, y, width, height = (float(value) for value in bbox)
    area = item.get("area", width * height)
    if not is_number(area):
        raise DataError(f"{where}: 'area' is not a number")
    crowd = item.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DataError(f"{where}: 'iscrowd' is {crowd!r}, neither 0 nor 1")
    # taken out, so that the lists of a large file go as their compact form comes
    segmentation = item.pop("segmentation", None)
    return Annotation(
        id=_integer(item, "id", where),
        image_id=_integer(item, "image_id", where),
        category_id=_integer(item, "category_id", where),
        bbox=(x, y, width, height),
        area=float(area),
        iscrowd=int(crowd),
        segmentation=read_segmentation(segmentation) if segmentations else None,
    )


def _value(item: Any, key: str, where: str) -> Any:
    if not isinstance(item, dict):
        raise DataError(f"{where} is not an object")
    if key not in item:
        raise DataError(f"{where}: missing key '{key}'")
    return item[key]


def _integer(item: Any, key: str, where: str) -> int:
    value = _value(item, key, where)
    if not is_number(value, 2**63 - 1) or int(value) != value:
        raise DataError(f"{where}: '{key}' is {shown(value)}, not a whole number")
    return int(value)


def is_number(value: Any, largest: float = sys.float_info.max) -> bool:
    """Whether a value of JSON is a number, finite and not beyond `largest` on either side."""
    # a comparison never overflows, however many digits the number has, and is false for NaN
    return isinstance(value, (int, float)) and type(value) is not bool and abs(value) <= largest


def is_box(value: Any) -> bool:
    """Whether a value of JSON is four numbers (x, y, width, height) of which areas can be taken."""
    return isinstance(value, list) and len(value) == 4 and all(is_number(v, FAR) for v in value)


def _check_ids(content: Content, path: Path) -> None:
    """Ids and class names are unique, and every annotation points to an image and a category.

    An annotation id of 0 is let through: scoring numbers the annotations anew, because
    pycocotools takes 0 for "not matched".
    """
    if not content.images:
        raise DataError(f"{path}: it lists no images")
    if not content.categories:
        raise DataError(f"{path}: it lists no categories")
    for what, values in (
        ("image id", [image.id for image in content.images]),
        ("annotation id", [box.id for box in content.boxes]),
        ("category id", [key for key, _ in content.categories]),
        ("category name", [name for _, name in content.categories]),
    ):
        repeated = _repeated(values)
        if repeated is not None:
            raise DataError(f"{path}: {what} {repeated!r} is there more than once")
    images = {image.id for image in content.images}
    categories = {key for key, _ in content.categories}
    for what, named, known in (
        ("image", {box.image_id for box in content.boxes}, images),
        ("category", {box.category_id for box in content.boxes}, categories),
    ):
        stray = sorted(named - known)
        if stray:
            raise DataError(
                f"{path}: annotations name {len(stray)} {what} ids that are not "
                f"listed, first {stray[0]}"
            )


def _repeated(values: Iterable[Any]) -> Any | None:
    value, count = max(Counter(values).items(), key=lambda pair: pair[1], default=(None, 0))
    return value if count > 1 else None
