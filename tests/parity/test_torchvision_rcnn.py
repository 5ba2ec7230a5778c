"""Faster and Mask R-CNN against torchvision's: every stage, losses, files, published counts."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from parity.test_torchvision import spread_body
from torch import Tensor, nn
from torchvision.models.detection import (
    FasterRCNN,
    FasterRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
    fasterrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
)
from torchvision.models.detection.image_list import ImageList

import sepcbench
from sepcbench import detectors
from sepcbench.detectors import Detector
from sepcbench.heads import Detections, LevelOutput, Scene
from sepcbench.measures.cost import cost
from sepcbench.training.objectives import Target, rcnn, rpn
from sepcbench.variants import variant

MODELS = {
    "torchvision_faster_rcnn_r50": (fasterrcnn_resnet50_fpn, FasterRCNN_ResNet50_FPN_Weights),
    "torchvision_mask_rcnn_r50": (maskrcnn_resnet50_fpn, MaskRCNN_ResNet50_FPN_Weights),
}
SIZES, PADDED = [(150, 190), (160, 170)], (160, 192)


class Pair(NamedTuple):
    """The same weights in torchvision's model and in ours, which was loaded from a file."""

    theirs: FasterRCNN
    ours: Detector


def spread(model: FasterRCNN) -> FasterRCNN:
    """Weights that give proposals of all sizes, and scores above the threshold."""
    spread_body(model)
    model.eval()
    rpn, roi = model.rpn.head, model.roi_heads
    with torch.no_grad():
        model.backbone.body.bn1.weight.mul_(0.01)
        features = model.backbone(torch.randn(1, 3, *PADDED))
        logits, deltas = rpn(list(features.values()))
        rpn.cls_logits.weight.mul_(1.5 / logits[0].std())
        rpn.bbox_pred.weight.mul_(0.3 / deltas[0].std())
        boxes = [torch.tensor([[10.0, 10, 100, 90], [40, 20, 70, 60], [0, 0, 190, 150]])]
        x = roi.box_head(roi.box_roi_pool(features, boxes, [PADDED]))
        cls, box = roi.box_predictor(x)
        roi.box_predictor.cls_score.weight.mul_(2.5 / cls.std())
        roi.box_predictor.bbox_pred.weight.mul_(1.0 / box.std())
    return model


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """No variant and no conventions are named: the file says both."""
    make, _ = MODELS[request.param]
    torch.manual_seed(0)
    theirs = spread(make(weights=None, weights_backbone=None, min_size=160, max_size=224))
    path = tmp_path_factory.mktemp("rcnn") / "model.pth"
    torch.save(theirs.state_dict(), path)
    ours = sepcbench.load(path)
    path.unlink()
    # they freeze BN only with published weights
    wanted = variant(request.param, {"backbone.bn_eps": 1e-5})
    assert ours.spec == wanted
    return Pair(theirs.eval(), ours)


@torch.no_grad()
def test_stage_by_stage(pair: Pair) -> None:
    """RPN maps, proposals from them, then box and mask head on the very same proposals."""
    theirs, ours = pair
    torch.manual_seed(1)
    batch = ImageList(torch.randn(2, 3, *PADDED), SIZES)
    features = theirs.backbone(batch.tensors)
    logits, deltas = theirs.rpn.head(list(features.values()))
    outputs = ours(batch.tensors, Scene(PADDED, SIZES))
    same = [LevelOutput(*maps) for maps in zip(logits, deltas)]
    for mine, wanted in zip(outputs.rpn, same, strict=True):
        close(mine.cls, wanted.cls)
        close(mine.box, wanted.box)
    proposals, _ = theirs.rpn(batch, features)
    for mine, wanted in zip(ours.head.rpn.propose(same, Scene(PADDED, SIZES)), proposals):
        assert len(mine.boxes) == len(wanted) > 300
        apart = torch.cdist(mine.boxes, wanted, p=torch.inf)  # equal scores may swap places
        assert (apart.diagonal() < 1e-4).float().mean() > 0.98
        assert apart.amin(dim=0).max() < 1e-4
        assert apart.amin(dim=1).max() < 1e-4
    pooled = theirs.roi_heads.box_roi_pool(features, proposals, SIZES)
    close(ours.head.pool(outputs.pyramid, proposals, 7), pooled)
    found = ours.detect(batch.tensors, SIZES, proposals=proposals)
    check(found, theirs.roi_heads(features, proposals, SIZES)[0], atol=1e-3)


@pytest.mark.parametrize("pair", ["torchvision_faster_rcnn_r50"], indirect=True)
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


@torch.no_grad()
def test_losses(pair: Pair) -> None:
    """On the same maps and proposals, with all anchors and all RoIs sampled."""
    theirs, ours = pair
    torch.manual_seed(3)
    batch = ImageList(torch.randn(2, 3, *PADDED), SIZES)
    features = theirs.backbone(batch.tensors)
    boxes = [
        torch.tensor([[10.0, 10, 70, 90], [100, 20, 150, 60]]),
        torch.tensor([[30.0, 40, 120, 150]]),
    ]
    labels = [torch.tensor([3, 17]), torch.tensor([89])]
    masks = [torch.zeros(len(b), *PADDED, dtype=torch.uint8) for b in boxes]
    given = [
        dict(zip(("boxes", "labels", "masks"), target)) for target in zip(boxes, labels, masks)
    ]
    for part in (theirs.rpn, theirs.roi_heads):
        part.fg_bg_sampler.batch_size_per_image, part.fg_bg_sampler.positive_fraction = 10**6, 1.0
        part.train()
    proposals, wanted = theirs.rpn(batch, features, given)
    _, more = theirs.roi_heads(features, proposals, SIZES, given)
    wanted |= more
    theirs.eval()
    targets = [Target(b, k - 1) for b, k in zip(boxes, labels)]
    head, pyramid = ours.head, list(features.values())
    old, old_rpn = head.spec, head.rpn.spec
    all_of_them = {"samples": 10**6, "positive_share": 1.0}
    head.spec, head.rpn.spec = replace(old, **all_of_them), replace(old_rpn, **all_of_them)
    mine = rpn.losses(head.rpn, head.rpn(pyramid), targets, PADDED)
    rois = [rcnn.sample_rois(p, target, head) for p, target in zip(proposals, targets)]
    mine |= rcnn.box_losses(head, pyramid, rois, targets)
    head.spec, head.rpn.spec = old, old_rpn
    names = {
        "rpn_cls": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "cls": "loss_classifier",
        "box": "loss_box_reg",
    }
    for name, published in names.items():
        assert float(wanted[published]) > 0
        close(mine[name], wanted[published])


def close(mine: Tensor, theirs: Tensor, atol: float = 2e-4) -> None:
    torch.testing.assert_close(mine, theirs, atol=atol, rtol=1e-4)


def check(found: list[Detections], wanted: list[dict[str, Tensor]], atol: float) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert len(theirs["boxes"]) == 100
        close(mine.scores, theirs["scores"])
        assert torch.equal(mine.labels + 1, theirs["labels"])
        close(mine.boxes, theirs["boxes"], atol=atol)
        if mine.masks is not None:
            close(mine.masks, theirs["masks"].squeeze(1))


@pytest.mark.parametrize(("name", "wanted"), zip(MODELS, (41_755_286, 44_401_393)))
def test_published_counts(name: str, wanted: int) -> None:
    """At 800x800 with 1000 RoIs; the affine of their frozen BN is no parameter.

    Their number for Mask R-CNN is that of Faster R-CNN: nothing was found, so no mask was made.
    """
    published = MODELS[name][1].COCO_V1.meta
    ours = detectors.build(variant(name), init=False)
    norms = [m for m in ours.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    frozen = sum(p.numel() for m in norms for p in m.parameters())
    params = sum(p.numel() for p in ours.parameters()) - frozen
    assert params == published["num_params"] == wanted
    counted = cost(ours, (800, 800))
    assert counted.rois == 1000
    modules = dict(counted.by_module)
    total = dict(counted.macs)["total"] - modules.get("head.mask_head", 0)
    assert total / 1e9 == pytest.approx(published["_ops"], abs=5e-4)
    assert published["_ops"] == 134.38
