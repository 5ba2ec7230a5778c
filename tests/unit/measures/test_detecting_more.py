"""`detect_all` beyond boxes of classes: masks, proposals to be used, proposals found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.proposals import Proposals
from sepcbench.data.shapes import generate
from sepcbench.detectors import Detections
from sepcbench.errors import DataError, UsageError
from sepcbench.measures.accuracy import detect_all
from sepcbench.measures.scoring import score, scores
from sepcbench.variants import variant


class Knowing(nn.Module):
    """Finds every object, images coming in order, with masks of 28 x 28 cells if asked for."""

    def __init__(self, data: CocoData, name: str, masks: bool = False) -> None:
        super().__init__()
        self.spec = variant(name, {"short_side": 96, "long_side": 96})
        self.data, self.masks, self.done = data, masks, 0
        self.given: list[Tensor] = []

    def detect(self, images: Tensor, sizes: Any, scales: Any, **more: Any) -> list[Detections]:
        found = []
        self.given += more.get("proposals", [])
        for entry in self.data.images[self.done :][: len(images)]:
            objects = self.data.objects(entry.id)
            boxes, labels = torch.from_numpy(objects.boxes), torch.from_numpy(objects.labels)
            masks = None
            if self.masks:
                masks = in_cells(torch.from_numpy(self.data.masks(entry)).float(), boxes)
            found.append(Detections(boxes, torch.ones(len(boxes)), labels, masks))
        self.done += len(images)
        return found


def in_cells(masks: Tensor, boxes: Tensor) -> Tensor:
    """What a perfect mask head gives: (g, H, W) sampled at the centres of 28 x 28 cells."""
    centres = (torch.arange(28) + 0.5) / 28
    cells = []
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist()):
        x = (x1 + centres * (x2 - x1)) / mask.shape[1] * 2 - 1
        y = (y1 + centres * (y2 - y1)) / mask.shape[0] * 2 - 1
        grid = torch.stack([x[None].expand(28, 28), y[:, None].expand(28, 28)], dim=-1)
        cells.append(F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0])
    return torch.stack(cells) if cells else torch.zeros(0, 28, 28)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=1, val_images=9, seed=0, size=(160, 192))
    return open_data(folder, "val")


@pytest.mark.parametrize("batch", [1, 4])
def test_masks_are_pasted_at_the_files_size(shapes: CocoData, batch: int) -> None:
    detector = Knowing(shapes, "mask_rcnn_tiny_fpn", masks=True)
    found = detect_all(detector, shapes, shapes.classes, batch=batch)  # type: ignore[arg-type]
    assert {tuple(item["segmentation"]["size"]) for item in found} == {(160, 192)}
    assert all(isinstance(item["segmentation"]["counts"], str) for item in found)
    both = scores(shapes, found, detector.spec)
    assert both["accuracy"].ap == 1.0  # type: ignore[union-attr]
    # cells blur the smallest shapes' edges
    assert both["masks"].ap50 > 0.95  # type: ignore[union-attr]
    assert both["masks"].ap_large > 0.9  # type: ignore[union-attr]


def test_a_label_without_a_class_takes_its_mask_along(shapes: CocoData) -> None:
    """Published class lists have gaps; masks must not shift against the boxes."""
    classes = ("N/A", *shapes.classes)

    class Shifted(Knowing):
        def detect(self, *args: Any, **more: Any) -> list[Detections]:
            found = super().detect(*args, **more)
            return [self.with_nothing_first(item) for item in found]

        def with_nothing_first(self, item: Detections) -> Detections:
            assert item.masks is not None
            one = Detections(*(torch.ones_like(part[:1]) for part in item[:4]))  # type: ignore[index]
            parts = [torch.cat([a, b]) for a, b in zip(one[:4], item[:4])]  # type: ignore[arg-type]
            labels = torch.cat([one.labels * 0, item.labels + 1])
            return Detections(parts[0], parts[1], labels, parts[3])

    plain = Knowing(shapes, "mask_rcnn_tiny_fpn", masks=True)
    wanted = detect_all(plain, shapes, shapes.classes)  # type: ignore[arg-type]
    shifted = Shifted(shapes, "mask_rcnn_tiny_fpn", masks=True)
    assert detect_all(shifted, shapes, classes) == wanted  # type: ignore[arg-type]


def test_proposals_reach_the_detector_in_resized_pixels(shapes: CocoData, tmp_path: Path) -> None:
    boxes = {
        image.id: np.array([[0, 0, 192, 160], [image.id, 2, 30, 40]], dtype=np.float32)
        for image in shapes.images
    }
    given = Proposals(tmp_path / "p.json", boxes)
    detector = Knowing(shapes, "fast_rcnn_tiny_fpn")
    found = detect_all(
        detector,  # type: ignore[arg-type]
        shapes,
        shapes.classes,
        batch=2,
        proposals=given,
    )
    assert score(shapes, found, variant="x").ap == 1.0
    assert len(detector.given) == 9
    for image, boxes_given in zip(shapes.images, detector.given, strict=True):
        # 160 x 192 pixels become 80 x 96
        wanted = torch.tensor([[0, 0, 96, 80], [image.id / 2, 1, 15, 20]])
        torch.testing.assert_close(boxes_given, wanted)


def test_an_rpn_gives_proposals_whatever_the_classes(shapes: CocoData) -> None:
    class Rpn(Knowing):
        def detect(self, *args: Any, **more: Any) -> list[Detections]:
            return [item._replace(labels=item.labels * 0) for item in super().detect(*args, **more)]

    detector = Rpn(shapes, "rpn_tiny_fpn")
    found = detect_all(detector, shapes, ("anything",))  # type: ignore[arg-type]
    assert {item["category_id"] for item in found} == {1}
    record = scores(shapes, found, detector.spec)["recall"]
    assert record.ar100 == record.ar1000 == 1.0  # type: ignore[union-attr]


def test_what_is_missing_or_too_much_has_its_line(shapes: CocoData, tmp_path: Path) -> None:
    fast = Knowing(shapes, "fast_rcnn_tiny_fpn")
    with pytest.raises(UsageError, match="works on given proposals: add --proposals FILE"):
        detect_all(fast, shapes, shapes.classes)  # type: ignore[arg-type]
    nothing = Proposals(tmp_path / "p.json", {})
    with pytest.raises(DataError, match="no proposals for 9 of 9 images"):
        detect_all(fast, shapes, shapes.classes, proposals=nothing)  # type: ignore[arg-type]
    other = Knowing(shapes, "faster_rcnn_tiny_fpn")
    with pytest.raises(UsageError, match="leave out --proposals"):
        detect_all(other, shapes, shapes.classes, proposals=nothing)  # type: ignore[arg-type]
