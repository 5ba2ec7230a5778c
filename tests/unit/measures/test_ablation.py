from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import coco_sets
import pytest
import torch
from torch import Tensor

from sepcbench.conventions import CONVENTIONS
from sepcbench.data.coco import CocoData, open_data
from sepcbench.detectors import Detector, build
from sepcbench.heads import LevelOutput
from sepcbench.measures.ablation import Ablated, ablate, conventions_to_try
from sepcbench.measures.accuracy import detect_all
from sepcbench.ops.boxes import encode, iou
from sepcbench.specs import VariantSpec
from sepcbench.variants import variant

SIZE = (60, 80)
# small and apart, so that half a pixel shows and nothing is suppressed
BOXES = ((2, 3, 9, 8), (20, 4, 11, 17), (50, 2, 8, 8), (4, 30, 16, 12), (40, 36, 40, 24))


def content(images: int = 3) -> dict[str, Any]:
    document = coco_sets.document(images)
    document["annotations"] = [
        {
            "id": 10 * i + j + 1,
            "image_id": 10 + i,
            "category_id": (3, 7)[(i + j) % 2],
            "bbox": list(box),
        }
        for i in range(images)
        for j, box in enumerate(BOXES)
    ]
    return document


def spec(name: str, **overrides: Any) -> VariantSpec:
    fields = {"short_side": SIZE[0], "long_side": SIZE[1], "num_classes": 2, **overrides}
    return variant("retinanet_tiny_fpn", {"conventions": name, **fields})


class Knowing(Detector):
    """Raw outputs that are the annotated boxes of the images in turn, under its own conventions."""

    def __init__(self, of: VariantSpec, data: CocoData) -> None:
        super().__init__(of)
        self.data, self.calls = data, 0

    def forward(self, images: Tensor) -> list[LevelOutput]:
        outputs = super().forward(images)
        grids = self.head.anchors(outputs, (images.shape[2], images.shape[3]))
        anchors = torch.cat(grids)
        cls, box = torch.full((len(anchors), 2), -9.0), torch.zeros(len(anchors), 4)
        entry = self.data.images[self.calls % len(self.data.images)]
        self.calls += 1
        how, objects = self.spec.conventions, self.data.objects(entry.id)
        for wanted, label in zip(torch.from_numpy(objects.boxes), objects.labels):
            # the last pixel instead of the edge, where widths count whole pixels
            wanted = wanted - torch.tensor([0, 0, how.export_offset, how.export_offset])
            best = int(iou(anchors, wanted[None], how.box_offset).argmax())
            cls[best, label] = 5.0
            box[best] = encode(anchors[best], wanted, self.spec.head.box_stds, how)
        counts = [len(grid) for grid in grids]
        return [
            LevelOutput(_as_map(c, output.cls), _as_map(b, output.box))
            for c, b, output in zip(cls.split(counts), box.split(counts), outputs)
        ]


def _as_map(values: Tensor, like: Tensor) -> Tensor:
    """(H*W*A, K) -> (1, A*K, H, W)."""
    height, width = like.shape[-2:]
    return values.unflatten(0, (height, width, -1)).permute(2, 3, 0, 1).flatten(0, 1)[None]


def by_name(rows: tuple[Ablated, ...]) -> dict[str, Ablated]:
    return {row.conventions: row for row in rows}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_outputs_score_best_under_the_conventions_they_are_made_for(
    tmp_path: Path, name: str
) -> None:
    coco_sets.write(tmp_path, content())
    data = open_data(tmp_path)
    detector = Knowing(spec(name), data)
    rows = ablate(detector, data, data.classes)
    assert rows[0].used
    assert rows[0].conventions == name
    assert rows[0].same_outputs == rows[0].complete
    assert rows[0].same_outputs.ap == pytest.approx(1.0)
    scores = {row.conventions: row.same_outputs.ap for row in rows}
    assert set(scores) == set(CONVENTIONS)
    if name == "mmdet1":
        assert all(scores[other] < 0.95 for other in scores if other != "mmdet1")
    else:
        assert scores["mmdet1"] < 0.95
    assert scores["mmdet2"] == scores["native"]


@pytest.mark.parametrize("name", CONVENTIONS)
def test_complete_sets_are_evaluations_under_them(tmp_path: Path, name: str) -> None:
    """The annotations are what the detector finds when it is evaluated under the set."""
    document = coco_sets.document(3)
    coco_sets.write(tmp_path, document)
    torch.manual_seed(0)
    by_hand = {"score_threshold": 0.0, "max_detections": 15, "short_side": 96, "long_side": 160}
    detector = build(spec("native", **by_hand))
    # boxes are the anchors; the inputs of detectron2's std of 1 are 60 times as large
    torch.nn.init.zeros_(detector.head.box_pred.weight)
    torch.nn.init.normal_(detector.head.cls_pred.weight, std=0.005 if name == "detectron2" else 0.3)
    how = replace(
        CONVENTIONS[name], **{key: value for key, value in by_hand.items() if "side" not in key}
    )
    data = open_data(tmp_path)
    under = detector.under(replace(how, short_side=96, long_side=160))
    found = detect_all(under, data, data.classes)
    document["annotations"] = [
        {**item, "id": i, "area": item["bbox"][2] * item["bbox"][3]}
        for i, item in enumerate(found, start=1)
    ]
    coco_sets.write(tmp_path, document)
    rows = by_name(ablate(detector, open_data(tmp_path), data.classes))
    assert len(found) == 45
    assert rows[name].complete.detections == 45, "fields changed by hand hold for every set"
    assert rows[name].complete.ap == pytest.approx(1.0)
    if name == "detectron2":
        assert rows[name].same_outputs.ap < 0.95
        assert rows["native"].complete.ap < 0.95


def test_the_network_runs_once_per_pre_processing(tmp_path: Path) -> None:
    coco_sets.write(tmp_path, content())
    data = open_data(tmp_path)
    detector = Knowing(spec("native"), data).train()
    steps: list[tuple[int, int]] = []
    ablate(
        detector, data, data.classes, progress=lambda done, total, _: steps.append((done, total))
    )
    assert detector.calls == 3 * len(data.images), "mmdetection's, torchvision's and detectron2's"
    assert steps[-1] == (9, 9)
    assert detector.training, "its mode is restored"


def test_sets_keep_the_size_and_what_was_changed_by_hand() -> None:
    detector = build(spec("mmdet2", score_threshold=0.3, nms_iou=0.6))
    for how in conventions_to_try(detector):
        assert (how.short_side, how.long_side) == SIZE
        assert (how.score_threshold, how.nms_iou) == (0.3, 0.6)
        published = replace(how, score_threshold=0.05, nms_iou=0.5, short_side=800, long_side=1333)
        assert published == CONVENTIONS[how.name]


def test_a_detector_under_other_conventions_shares_its_weights() -> None:
    detector = build(spec("native"))
    other = detector.under(CONVENTIONS["mmdet1"])
    assert other.spec.conventions == other.head.conventions == CONVENTIONS["mmdet1"]
    assert detector.spec.conventions == detector.head.conventions != CONVENTIONS["mmdet1"]
    assert all(a is b for a, b in zip(detector.parameters(), other.parameters(), strict=True))
