"""Pictures of what `sepcbench eval` found, from detections in COCO result format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepcbench.cli import options
from sepcbench.errors import StoreError

if TYPE_CHECKING:
    from sepcbench.data.annotations import ImageEntry
    from sepcbench.data.coco import CocoData
    from sepcbench.report.detection_drawings import Box

# of one image, the best; more hide it
_MOST_BOXES = 50


def make_folder(folder: Path, option: str) -> None:
    """Make the folder that pictures go to, before anything is computed.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{option} '{folder}' cannot be made: {error.strerror}") from None


@dataclass(frozen=True)
class Drawing:
    """Which detections are drawn, and into which folder those of each checkpoint."""

    folders: dict[Path, Path]
    count: int
    threshold: float

    def draw(
        self, checkpoint: Path, data: CocoData, found: Sequence[dict[str, Any]], agnostic: bool
    ) -> None:
        """Draw what one checkpoint found; `agnostic` if it has no class: an RPN's."""
        folder = self.folders[checkpoint]
        with options.progress_bar(f"draw {checkpoint.name}") as progress:
            files = draw_detections(
                data,
                found,
                folder,
                count=self.count,
                threshold=self.threshold,
                agnostic=agnostic,
                progress=progress,
            )
        options.say_written(folder, files)


def draw_detections(
    data: CocoData,
    found: Sequence[dict[str, Any]],
    folder: Path,
    *,
    count: int,
    threshold: float,
    agnostic: bool = False,
    progress: Any = None,
) -> list[Path]:
    """Draw the detections of the first images of a set, with its objects thin over them.

    Args:
        data: the set, with images.
        found: detections in COCO result format.
        folder: where the pictures go, one PNG file per image.
        count: how many images.
        threshold: the lowest score that is drawn.
        agnostic: detections have no class: an RPN's.
        progress: called with (done, total, label).

    Returns:
        The files written.
    """
    from sepcbench.data.transforms import read_rgb
    from sepcbench.report.detection_drawings import write_detections

    shown = data.images[:count]
    of_image: dict[int, list[dict[str, Any]]] = {image.id: [] for image in shown}
    for entry in found:
        if entry["image_id"] in of_image and entry["score"] >= threshold:
            of_image[entry["image_id"]].append(entry)
    written = []
    for done, image in enumerate(shown, start=1):
        best = sorted(of_image[image.id], key=lambda entry: -entry["score"])[:_MOST_BOXES]
        boxes = [_found(data, entry, agnostic) for entry in best]
        truth = _truth(data, image)
        path = folder / f"{image.id:06d}_{Path(image.file_name).stem}.png"
        note = (
            f"{image.file_name}: {len(boxes)} found with a score of {threshold:g} or more; dashed: "
            f"the {len(truth)} annotated"
        )
        write_detections(path, read_rgb(data.path(image)), boxes, truth, note)
        written.append(path)
        if progress:
            progress(done, len(shown), "")
    return written


def _found(data: CocoData, entry: dict[str, Any], agnostic: bool) -> Box:
    from sepcbench.data.segmentations import Polygons, Rle, rasterise, read_segmentation
    from sepcbench.report.detection_drawings import Box

    label, name = (0, "") if agnostic else _class(data, entry["category_id"])
    segmentation, mask = read_segmentation(entry.get("segmentation")), None
    if isinstance(segmentation, Rle | Polygons):
        size = segmentation.size if isinstance(segmentation, Rle) else (0, 0)
        mask = rasterise(segmentation, size)
    return Box(_corners(entry["bbox"]), label, name, entry["score"], mask)


def _truth(data: CocoData, image: ImageEntry) -> list[Box]:
    from sepcbench.report.detection_drawings import Box

    return [
        Box(_corners(box.bbox), *_class(data, box.category_id))
        for box in data.boxes
        if box.image_id == image.id
    ]


def _class(data: CocoData, category: int) -> tuple[int, str]:
    """The label and the name of a category."""
    label = [key for key, _ in data.categories].index(category)
    return label, data.classes[label]


def _corners(xywh: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = xywh
    return x, y, x + width, y + height
