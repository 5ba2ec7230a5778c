from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sepcbench.data.coco import CocoData, open_data
from sepcbench.data.shapes import generate
from sepcbench.detectors import Detections, build
from sepcbench.errors import DataError
from sepcbench.measures.accuracy import detect_all
from sepcbench.measures.scoring import score
from sepcbench.specs import VariantSpec
from sepcbench.variants import variant


class Oracle(nn.Module):
    """Knows the boxes of every image, in the order they come, and checks what it is given."""

    def __init__(self, data: CocoData, spec: VariantSpec) -> None:
        super().__init__()
        self.spec, self.data = spec, data
        self.by_first_pixel: dict[float, int] = {}
        self.calls = 0

    def detect(self, images: Tensor, sizes: Any, scales: Any) -> list[Detections]:
        assert not self.training
        self.calls += 1
        found = []
        for entry in self.data.images[len(self.by_first_pixel) :][: len(images)]:
            self.by_first_pixel[float(entry.id)] = entry.id
            objects = self.data.objects(entry.id)
            offset = self.spec.conventions.export_offset
            boxes = torch.from_numpy(objects.boxes) - torch.tensor([0, 0, offset, offset])
            labels = 2 - torch.from_numpy(objects.labels)  # its classes are in reverse order
            found.append(Detections(boxes, torch.ones(len(boxes)), labels))
        assert [tuple(size) for size in sizes] == [(64, 64)] * len(images)
        return found


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> CocoData:
    folder = tmp_path_factory.mktemp("shapes")
    generate(folder, images=1, val_images=10, seed=0, size=(32, 32))
    return open_data(folder, "val")


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("export_offset", [0, 1])
def test_perfect_boxes_come_out_as_ap_1(shapes: CocoData, batch: int, export_offset: int) -> None:
    spec = variant("retinanet_tiny_fpn", {"short_side": 64, "long_side": 64})
    conventions = replace(spec.conventions, export_offset=export_offset)
    oracle = Oracle(shapes, replace(spec, conventions=conventions)).train()
    calls: list[tuple[int, int]] = []
    found = detect_all(
        oracle,  # type: ignore[arg-type]
        shapes,
        tuple(reversed(shapes.classes)),
        batch=batch,
        progress=lambda done, total, label: calls.append((done, total)),
    )
    assert score(shapes, found, variant="oracle").ap == 1.0
    assert oracle.training, "its mode is restored"
    assert oracle.calls == -(-10 // batch)
    assert calls[-1] == (10, 10)


def test_a_detector_is_run_and_exported_in_pixels_of_the_file(shapes: CocoData) -> None:
    torch.manual_seed(0)
    detector = build(variant("retinanet_tiny_fpn", {"score_threshold": 0.0}))
    found = detect_all(detector, shapes.first(2), shapes.classes)
    assert {item["image_id"] for item in found} == {1, 2}
    assert {item["category_id"] for item in found} <= {1, 3, 7}
    for item in found:
        x, y, width, height = item["bbox"]
        assert min(x, y, width, height) >= 0
        assert max(x + width, y + height) <= 32.01, "images of 32 pixels, resized to 128"


def test_data_and_classes_are_checked_first(shapes: CocoData, tmp_path: Path) -> None:
    detector = build(variant("retinanet_tiny_fpn"))
    with pytest.raises(DataError, match="not in the data: 'dog'"):
        detect_all(detector, shapes, ("circle", "square", "dog"))
    with pytest.raises(DataError, match="10 of 10 images are missing"):
        detect_all(detector, replace(shapes, image_folder=tmp_path), shapes.classes)
