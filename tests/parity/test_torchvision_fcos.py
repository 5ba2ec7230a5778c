"""FCOS against torchvision's, with copied weights: maps, boxes, files and published counts."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from parity.test_torchvision import spread
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FCOS_ResNet50_FPN_Weights, fcos_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

import sepcbench
from sepcbench import detectors
from sepcbench.detectors import Detector
from sepcbench.heads import Detections, LevelOutput
from sepcbench.heads.outputs import cells_first
from sepcbench.measures.cost import cost
from sepcbench.training.objectives import Target, loss
from sepcbench.variants import variant

STRIDES = (8, 16, 32, 64, 128)
PUBLISHED = FCOS_ResNet50_FPN_Weights.COCO_V1.meta


class Pair(NamedTuple):
    """The same weights in torchvision's model and in ours, which was loaded from a file."""

    theirs: FCOS
    ours: Detector


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """No variant and no conventions are named: the file says both."""
    torch.manual_seed(0)
    make = fcos_resnet50_fpn
    theirs = spread(make(weights=None, weights_backbone=None, min_size=160, max_size=224))
    with torch.no_grad():
        theirs.head.regression_head.bbox_reg.weight.mul_(5)  # distances of a stride or so
        theirs.head.classification_head.cls_logits.bias.add_(2)
    path = tmp_path_factory.mktemp("fcos") / "model.pth"
    torch.save(theirs.state_dict(), path)
    ours = sepcbench.load(path)
    path.unlink()
    return Pair(theirs.eval(), ours)


def test_the_file_says_what_it_is(pair: Pair) -> None:
    wanted = variant("torchvision_fcos_r50")
    assert pair.ours.spec == wanted
    assert wanted.conventions.name == "torchvision"


@torch.no_grad()
def test_maps_and_decoding(pair: Pair) -> None:
    """Raw maps, then both decodings of the very same maps."""
    theirs, ours = pair
    torch.manual_seed(1)
    batch = ImageList(torch.randn(2, 3, 160, 192), [(150, 190), (160, 170)])
    features = list(theirs.backbone(batch.tensors).values())
    raw, points = theirs.head(features), theirs.anchor_generator(batch, features)
    outputs = ours(batch.tensors)
    counts = [x.shape[2] * x.shape[3] for x in features]
    split = {key: list(value.split(counts, dim=1)) for key, value in raw.items()}
    for level, stride in enumerate(STRIDES):
        cls, box, quality = (
            split[key][level] for key in ("cls_logits", "bbox_regression", "bbox_ctrness")
        )
        close(cells_first(outputs[level].cls, 91), cls)
        close(cells_first(outputs[level].box, 4), box * stride)
        close(cells_first(outputs[level].centerness, 1), quality)
    wanted = theirs.postprocess_detections(
        split, [list(p.split(counts)) for p in points], batch.image_sizes
    )
    sizes = [x.shape[2:] for x in features]
    same = [as_maps(split, level, size) for level, size in enumerate(sizes)]
    check(ours.decode(same, batch.image_sizes, padded=(160, 192)), wanted, atol=1e-4)


def as_maps(split: dict[str, list[Tensor]], level: int, size: tuple[int, int]) -> LevelOutput:
    """(N, cells, K) -> (N, K, H, W) of a level; distances in pixels."""
    cls, box, quality = (
        split[key][level].unflatten(1, tuple(size)).permute(0, 3, 1, 2)
        for key in ("cls_logits", "bbox_regression", "bbox_ctrness")
    )
    return LevelOutput(cls, box * STRIDES[level], quality)


@torch.no_grad()
def test_assignment_and_losses(pair: Pair) -> None:
    """Their box loss is not weighted by centerness; the other two are ours."""
    theirs, ours = pair
    torch.manual_seed(3)
    batch = ImageList(torch.randn(2, 3, 160, 192), [(160, 192)] * 2)
    features = list(theirs.backbone(batch.tensors).values())
    raw, points = theirs.head(features), theirs.anchor_generator(batch, features)
    corners = torch.rand(2, 6, 2) * 100
    boxes = torch.cat([corners, corners + 10 + torch.rand(2, 6, 2) * 80], dim=2)
    labels = torch.arange(12).reshape(2, 6) + 1
    counts = [x.shape[2] * x.shape[3] for x in features]
    truth = [{"boxes": b, "labels": c} for b, c in zip(boxes, labels)]
    wanted = theirs.compute_loss(truth, raw, points, counts)
    targets = [Target(b, c) for b, c in zip(boxes, labels)]
    found = loss(ours, ours(batch.tensors), targets, batch.image_sizes)
    torch.testing.assert_close(found["cls"], wanted["classification"], atol=0, rtol=1e-3)
    torch.testing.assert_close(found["centerness"], wanted["bbox_ctrness"], atol=0, rtol=1e-3)


@torch.no_grad()
def test_images_to_boxes(pair: Pair) -> None:
    theirs, ours = pair
    torch.manual_seed(2)
    images = [torch.rand(3, 150, 190), torch.rand(3, 220, 170)]
    batch, _ = theirs.transform(images)
    factors = [
        (size[1] / image.shape[2], size[0] / image.shape[1])
        for image, size in zip(images, batch.image_sizes)
    ]
    check(ours.detect(batch.tensors, batch.image_sizes, factors), theirs(images), atol=1e-2)


def close(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def check(found: list[Detections], wanted: list[dict[str, Tensor]], atol: float) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert len(theirs["boxes"]) == 100
        torch.testing.assert_close(mine.scores, theirs["scores"], atol=1e-4, rtol=1e-4)
        assert torch.equal(mine.labels, theirs["labels"])
        torch.testing.assert_close(mine.boxes, theirs["boxes"], atol=atol, rtol=1e-4)


def test_published_counts() -> None:
    """At 800x800; the affine of their frozen BN is no parameter."""
    ours = detectors.build(variant("torchvision_fcos_r50"), init=False)
    norms = [m for m in ours.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    frozen = sum(p.numel() for m in norms for p in m.parameters())
    params = sum(p.numel() for p in ours.parameters()) - frozen
    assert params == PUBLISHED["num_params"] == 32_269_600
    total = dict(cost(ours, (800, 800)).macs)["total"]
    assert total / 1e9 == pytest.approx(128.207, abs=5e-4)
    assert PUBLISHED["_ops"] == 128.207
