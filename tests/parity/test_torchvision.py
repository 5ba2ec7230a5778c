"""FPN and RetinaNet against torchvision, with copied weights."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    RetinaNet,
    RetinaNet_ResNet50_FPN_V2_Weights,
    RetinaNet_ResNet50_FPN_Weights,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from sepcbench.detectors import Detector, build
from sepcbench.heads import Detections, LevelOutput
from sepcbench.necks.fpn import Fpn
from sepcbench.specs import FpnSpec
from sepcbench.variants import variant

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
    (r"^head\.classification_head\.conv\.(\d+)\.1\.", r"head.cls_tower.\1.norm."),
    (r"^head\.regression_head\.conv\.(\d+)\.1\.", r"head.box_tower.\1.norm."),
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


# --- RetinaNet v1 and v2 -------------------------------------------------------------------


def spread_body(model: nn.Module) -> None:
    """Draw weights and statistics that let signals through."""
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            # so small in the stem that an eps of 1e-5 would show
            low = 1e-4 if name == "backbone.body.bn1.running_var" else 0.5
            value.uniform_(low, 2 * low)
        elif name.endswith("running_mean"):
            value.normal_(std=0.01)
        elif value.dim() == 1 and name.endswith("weight"):  # norms, the last of a block small
            value.uniform_(0.1, 0.3) if ".bn3." in name else value.uniform_(0.5, 1.5)
        elif value.dim() == 1 and name.endswith("bias"):
            value.normal_(std=0.05)
        elif value.dim() == 4:
            value.normal_(std=(2 / value[0].numel()) ** 0.5)


def spread(model: RetinaNet) -> RetinaNet:
    """Draw weights and statistics that let signals through and give scores above the threshold."""
    spread_body(model)
    cls, box = model.head.classification_head.cls_logits, model.head.regression_head.bbox_reg
    with torch.no_grad():
        model.backbone.body.bn1.weight.mul_(0.01)
        raw = model.eval().head(list(model.backbone(torch.randn(1, 3, 96, 96)).values()))
        cls.weight.mul_(1.5 / raw["cls_logits"].std())
        box.weight.mul_(0.3 / raw["bbox_regression"].std())
        cls.bias.sub_(6)
    return model


def published_v1(**sizes: int) -> RetinaNet:
    """As with the published weights: frozen BN, its eps set to 0 after loading."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = RetinaNet(backbone, num_classes=91, **sizes)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    return model


def fresh_v1(**sizes: int) -> RetinaNet:
    """Without weights torchvision builds it with an ordinary BN."""
    return retinanet_resnet50_fpn(weights=None, weights_backbone=None, **sizes)


def fresh_v2(**sizes: int) -> RetinaNet:
    return retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, **sizes)


MODELS = {
    "published_v1": (published_v1, "torchvision_retinanet_r50", {}),
    "fresh_v1": (fresh_v1, "torchvision_retinanet_r50", {"backbone.bn_eps": 1e-5}),
    "fresh_v2": (fresh_v2, "torchvision_retinanet_r50_v2", {}),
}


class Pair(NamedTuple):
    """The same weights in torchvision's model and in ours."""

    theirs: RetinaNet
    ours: Detector


@pytest.fixture(scope="module", params=MODELS)
def retinanets(request: pytest.FixtureRequest) -> Pair:
    make, name, overrides = MODELS[request.param]
    torch.manual_seed(0)
    theirs = spread(make(min_size=160, max_size=224))
    ours = build(variant(name, overrides), init=False).eval()
    missing, unexpected = ours.load_state_dict(
        renamed(theirs.state_dict(), DETECTOR_NAMES), strict=False
    )
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return Pair(theirs, ours)


def as_maps(values: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """(N, cells of all levels, K) -> per level (N, A*K, H, W), A = 9."""
    levels = values.split([9 * h * w for h, w in sizes], dim=1)
    return [
        level.unflatten(1, (h, w, 9)).permute(0, 3, 4, 1, 2).flatten(1, 2)
        for level, (h, w) in zip(levels, sizes)
    ]


@torch.no_grad()
def test_retinanet_maps_and_decoding(retinanets: Pair) -> None:
    """Raw maps, then both decodings of the very same maps."""
    theirs, ours = retinanets
    torch.manual_seed(1)
    batch = ImageList(torch.randn(2, 3, 160, 192), [(150, 190), (160, 170)])
    features = list(theirs.backbone(batch.tensors).values())
    raw, anchors = theirs.head(features), theirs.anchor_generator(batch, features)
    sizes = [tuple(x.shape[-2:]) for x in features]
    cls, box = (as_maps(raw[key], sizes) for key in ("cls_logits", "bbox_regression"))
    for mine, c, b in zip(ours(batch.tensors), cls, box, strict=True):
        torch.testing.assert_close(mine.cls, c, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(mine.box, b, atol=2e-4, rtol=1e-4)
    counts = [9 * h * w for h, w in sizes]
    split = {key: list(value.split(counts, dim=1)) for key, value in raw.items()}
    wanted = theirs.postprocess_detections(
        split, [list(a.split(counts)) for a in anchors], batch.image_sizes
    )
    outputs = [LevelOutput(*pair) for pair in zip(cls, box)]
    found = ours.decode(outputs, batch.image_sizes, padded=(160, 192))
    check(found, wanted, atol=1e-4)


@torch.no_grad()
def test_retinanet_images_to_boxes(retinanets: Pair) -> None:
    theirs, ours = retinanets
    torch.manual_seed(2)
    images = [torch.rand(3, 150, 190), torch.rand(3, 220, 170)]
    batch, _ = theirs.transform(images)
    factors = [
        (size[1] / image.shape[2], size[0] / image.shape[1])
        for image, size in zip(images, batch.image_sizes)
    ]
    check(ours.detect(batch.tensors, batch.image_sizes, factors), theirs(images), atol=1e-2)


def check(found: list[Detections], wanted: list[dict[str, Tensor]], atol: float) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        assert len(theirs["boxes"]) == 300
        torch.testing.assert_close(mine.scores, theirs["scores"], atol=1e-4, rtol=1e-4)
        assert torch.equal(mine.labels, theirs["labels"])
        torch.testing.assert_close(mine.boxes, theirs["boxes"], atol=atol, rtol=1e-4)


def test_published_v1_has_no_eps() -> None:
    """The weights' statistics were frozen; torchvision sets eps to 0 when it loads them."""
    ours = build(variant("torchvision_retinanet_r50"), init=False)
    assert {m.eps for m in ours.backbone.modules() if isinstance(m, nn.BatchNorm2d)} == {0.0}


def test_parameter_counts() -> None:
    """Published with the weights; v1's affine of frozen BN is no parameter there."""
    v1 = build(variant("torchvision_retinanet_r50"), init=False)
    norms = [m for m in v1.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    frozen = sum(p.numel() for m in norms for p in m.parameters())
    v2 = build(variant("torchvision_retinanet_r50_v2"), init=False)
    counts = [sum(p.numel() for p in detector.parameters()) for detector in (v1, v2)]
    assert counts[0] - frozen == RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
    assert counts[1] == RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1.meta["num_params"]
