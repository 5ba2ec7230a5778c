"""FPN and RetinaNet against torchvision, with copied weights."""

from __future__ import annotations

import re
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from sepcbench.detectors import build
from sepcbench.necks.fpn import Fpn
from sepcbench.specs import CONVENTIONS, FpnSpec, ResNetSpec, RetinaSpec, VariantSpec

CHANNELS = (16, 24, 32, 40)

FPN_NAMES = (
    (r"inner_blocks\.(\d+)\.0\.", r"laterals.\1.conv."),
    (r"layer_blocks\.(\d+)\.0\.", r"outputs.\1.conv."),
    (r"extra_blocks\.p6\.", "extras.convs.0.conv."),
    (r"extra_blocks\.p7\.", "extras.convs.1.conv."),
)
DETECTOR_NAMES = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.", "necks.0."),
    (r"^head\.classification_head\.conv\.(\d+)\.0\.", r"head.cls_tower.\1.conv."),
    (r"^head\.regression_head\.conv\.(\d+)\.0\.", r"head.box_tower.\1.conv."),
    (r"^head\.classification_head\.cls_logits\.", "head.cls_pred."),
    (r"^head\.regression_head\.bbox_reg\.", "head.box_pred."),
    *FPN_NAMES,
)


def renamed(state: dict, names: tuple[tuple[str, str], ...]) -> dict:
    result = {}
    for key, value in state.items():
        for pattern, replacement in names:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    return result


@pytest.mark.parametrize(
    ("extra", "theirs"),
    [
        ("pool", LastLevelMaxPool()),
        ("conv_c5", LastLevelP6P7(CHANNELS[-1], 20)),
        ("conv_p5", LastLevelP6P7(20, 20)),
    ],
)
def test_fpn(extra: str, theirs: nn.Module) -> None:
    first, last = (2, 6) if extra == "pool" else (3, 7)
    reference = FeaturePyramidNetwork(list(CHANNELS[first - 2 :]), 20, theirs)
    spec = FpnSpec(20, first, last, extra=extra, relu_between=True)
    ours = Fpn(spec, CHANNELS)
    ours.load_state_dict(renamed(reference.state_dict(), FPN_NAMES))
    torch.manual_seed(0)
    sizes = ((50, 67), (25, 34), (13, 17), (7, 9))
    maps = [torch.randn(2, c, *size) for c, size in zip(CHANNELS, sizes)]
    used = OrderedDict((str(i), x) for i, x in enumerate(maps[first - 2 :]))
    wanted = list(reference(used).values())
    for a, b in zip(ours(maps), wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture(scope="module")
def retinanet() -> RetinaNet:
    """torchvision's RetinaNet v1 on a ResNet-18, with scores above the threshold."""
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = RetinaNet(backbone, num_classes=5, min_size=200, max_size=300).eval()
    head = model.head
    for branch in (head.classification_head, head.regression_head):
        for module in branch.conv.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    nn.init.normal_(head.classification_head.cls_logits.weight, std=0.02)
    nn.init.constant_(head.classification_head.cls_logits.bias, -4.0)
    nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.005)
    return model


def test_retinanet(retinanet: RetinaNet) -> None:
    """From images to boxes: anchors, coding, selection, NMS, rescaling."""
    spec = VariantSpec(
        "torchvision",
        ResNetSpec(18),
        (FpnSpec(extra="conv_p5", relu_between=True),),
        RetinaSpec(),
        num_classes=5,
        conventions=CONVENTIONS["torchvision"],
    )
    ours = build(spec).eval()
    ours.load_state_dict(renamed(retinanet.state_dict(), DETECTOR_NAMES))
    images = [torch.rand(3, 150, 190), torch.rand(3, 220, 170)]
    with torch.no_grad():
        wanted = retinanet(images)
        batch, _ = retinanet.transform(images)
        factors = [
            (size[1] / image.shape[2], size[0] / image.shape[1])
            for image, size in zip(images, batch.image_sizes)
        ]
        got = ours.detect(batch.tensors, batch.image_sizes, factors)
    for mine, theirs in zip(got, wanted, strict=True):
        assert len(theirs["boxes"]) > 50
        torch.testing.assert_close(mine.scores, theirs["scores"], atol=1e-5, rtol=1e-4)
        assert torch.equal(mine.labels, theirs["labels"])
        torch.testing.assert_close(mine.boxes, theirs["boxes"], atol=1e-2, rtol=1e-4)
