"""Counts that others published, or that follow from a formula, re-derived from built modules."""

import functools

import pytest
import torch
import torchvision
from torch import nn

from sepcbench import detectors
from sepcbench.measures.cost import cost, count, count_dispatched
from sepcbench.variants import variant


def on_cpu_without_weights(build):
    with torch.device("meta"):
        module = build()
    return module.to_empty(device="cpu")


@functools.cache
def counted(name, shape, convention="mac", **overrides):
    detector = detectors.build(variant(name, overrides), init=False)
    return cost(detector, shape, convention=convention)


def macs(name, shape, convention="mac", **overrides):
    return dict(counted(name, shape, convention, **overrides).macs)


# --- torchvision ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        (torchvision.models.ResNet18_Weights.IMAGENET1K_V1, "resnet18"),
        (torchvision.models.ResNet34_Weights.IMAGENET1K_V1, "resnet34"),
        (torchvision.models.ResNet50_Weights.IMAGENET1K_V1, "resnet50"),
        (torchvision.models.ResNet101_Weights.IMAGENET1K_V1, "resnet101"),
        (torchvision.models.ResNeXt50_32X4D_Weights.IMAGENET1K_V1, "resnext50_32x4d"),
        (torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1, "mobilenet_v2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_torchvision_classifiers(weights, name):
    """Their metadata has the published numbers; G with three decimals."""
    module = on_cpu_without_weights(getattr(torchvision.models, name))
    assert count(module, (224, 224)).total / 1e9 == pytest.approx(weights.meta["_ops"], abs=6e-4)
    assert sum(p.numel() for p in module.parameters()) == weights.meta["num_params"]


def test_resnet50_by_number():
    module = on_cpu_without_weights(torchvision.models.resnet50)
    assert round(count(module, (224, 224)).total / 1e9, 3) == 4.089
    assert sum(p.numel() for p in module.parameters()) == 25_557_032


class WithoutTransform(nn.Module):
    """torchvision's detector from the padded batch to the raw maps."""

    def __init__(self, detector):
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images):
        return self.head(list(self.backbone(images).values()))


@pytest.fixture(scope="module")
def torchvision_retinanet():
    build = torchvision.models.detection.retinanet_resnet50_fpn
    detector = on_cpu_without_weights(lambda: build(weights=None, weights_backbone=None))
    # zeros, because whatever is in memory may be slow denormals
    for tensor in (*detector.parameters(), *detector.buffers()):
        tensor.detach().zero_()
    return detector


RETINANET = torchvision.models.detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta


def test_torchvision_retinanet(torchvision_retinanet):
    total = count_dispatched(WithoutTransform(torchvision_retinanet), (800, 800))
    assert total / 1e9 == pytest.approx(151.540, abs=5e-4)
    assert total / 1e9 == pytest.approx(RETINANET["_ops"], abs=5e-4)
    # the published weights come with frozen BN, whose affine is no parameter
    learned = [m for m in torchvision_retinanet.modules() if not isinstance(m, nn.BatchNorm2d)]
    parameters = [p for m in learned for p in m.parameters(recurse=False)]
    assert sum(p.numel() for p in parameters) == RETINANET["num_params"] == 34_014_999


@pytest.mark.slow
def test_torchvision_retinanet_by_a_real_image(torchvision_retinanet):
    """Its head reshapes to (N, -1, classes), which an empty batch does not allow."""
    total = count(WithoutTransform(torchvision_retinanet), (800, 800), exact=True).total
    assert total == count_dispatched(WithoutTransform(torchvision_retinanet), (800, 800))


# --- mmdetection ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(800, 1280), (1280, 800)])
def test_mmdet_retinanet(shape):
    """239.32 G as mmdetection prints it, and its terms."""
    plain = counted("retinanet_r50_fpn", shape)
    assert round(dict(plain.macs)["total"] / 1e9, 3) == 238.536
    assert (plain.params, plain.trainable_params) == (37_968_692, 37_743_348)
    mmdet = counted("retinanet_r50_fpn", shape, "mmdet")
    assert round(dict(mmdet.macs)["total"] / 1e9, 2) == 239.32
    assert {op: round(n / 1e9, 4) for op, n in mmdet.by_op} == {
        "conv": 238.5361,
        "batch_norm": 0.4536,
        "relu": 0.2398,
        "conv_bias": 0.0706,
        "max_pool": 0.0164,
    }


@pytest.mark.parametrize(
    ("name", "trainable"),
    [("faster_rcnn_r101_fpn", 60_519_840), ("faster_rcnn_x101_64x4d_fpn", 99_248_544)],
)
def test_mmdet_faster_rcnn(name, trainable):
    """60.52 M and 99.25 M in Res2Net-mmdetection's table: mmdetection prints trainable ones."""
    module = on_cpu_without_weights(lambda: detectors.Detector(variant(name)))
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == trainable


def test_detectron2_faster_rcnn():
    """41,699,936 there: without the affine of frozen BN."""
    module = on_cpu_without_weights(lambda: detectors.Detector(variant("faster_rcnn_r50_fpn")))
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    affine = sum(p.numel() for m in norms for p in m.parameters())
    assert sum(p.numel() for p in module.parameters()) - affine == 41_699_936


# --- closed formulas at 800x1280 -----------------------------------------------------------

SHAPE = (800, 1280)
CELLS = 21_330  # P3..P7
DEFORMED = 5_330  # P4..P7
COARSER = 1_330  # P5..P7
CONV = 9 * 256**2
OFFSET = 9 * 256 * 18
HEAD = 8 * CELLS * CONV
PCONV = (4 * (CELLS + 2 * DEFORMED) + 2 * CELLS) * CONV
LITE = PCONV + 2 * DEFORMED * OFFSET
FULL = LITE + 4 * (2 * DEFORMED + COARSER) * OFFSET
# 3x3 kernels and biases
KERNEL = CONV + 256
OFFSETS = OFFSET + 18
IBN = 6 * 2 * 256

TOWERS = {
    "retinanet_r50_fpn": (HEAD, 100.647567, 8 * KERNEL),
    "retinanet_r50_pconv": (PCONV, 100.635771, 14 * KERNEL),
    "retinanet_r50_pconv_ibn": (PCONV, 100.635771, 14 * KERNEL + IBN),
    "retinanet_r50_sepc_lite": (LITE, 101.077862, 14 * KERNEL + 2 * OFFSETS + IBN),
    "retinanet_r50_sepc": (FULL, 103.066860, 14 * KERNEL + 14 * OFFSETS + IBN),
}


@pytest.mark.parametrize("name", TOWERS)
def test_towers(name):
    formula, gmacs, params = TOWERS[name]
    detector = detectors.build(variant(name), init=False)
    parts = dict(cost(detector, SHAPE).macs)
    assert parts["tower"] == formula
    assert parts["tower"] / 1e9 == pytest.approx(gmacs, abs=5e-7)
    assert round(parts["backbone"] / 1e9, 3) == 83.411
    predictions = parts["total"] - parts["backbone"] - parts["tower"] - 17_324_441_600  # FPN
    assert predictions == CELLS * 9 * 256 * 9 * (80 + 4) == 37_153_105_920
    prefixes = detector.parts()["tower"]
    assert params == sum(
        p.numel()
        for path, p in detector.named_parameters()
        if any(path.startswith(f"{prefix}.") for prefix in prefixes)
    )


def test_sepc_with_padding_0():
    """The extra convs and their offset convs lose a border; the PConvs do not."""
    sizes = [(100, 160), (50, 80), (25, 40), (13, 20), (7, 10)]
    inner = [(h - 2) * (w - 2) for h, w in sizes]
    extra = 2 * sum(inner) * CONV + 2 * sum(inner[1:]) * OFFSET
    blocks = FULL - 2 * CELLS * CONV - 2 * DEFORMED * OFFSET
    tower = macs("retinanet_r50_sepc", SHAPE, extra_padding=0)["tower"]
    assert tower == blocks + extra
    assert round(tower / 1e9, 4) == 101.8597


def test_fpn():
    parts = macs("retinanet_r50_fpn", SHAPE)
    assert parts["neck"] == 17_324_441_600
    assert parts["neck"] + parts["head"] - parts["tower"] == 17_324_441_600 + 37_153_105_920


def test_scale_kernel_1_is_the_head_tower():
    overrides = {"branches": "separate", "scale_kernel": 1}
    assert macs("retinanet_r50_pconv", SHAPE, **overrides)["tower"] == HEAD


def test_sampling_is_8_per_sampled_value():
    lite, full = (counted(f"retinanet_r50_{name}", SHAPE) for name in ("sepc_lite", "sepc"))
    assert lite.sampling_macs == 8 * 256 * 9 * 2 * DEFORMED
    assert full.sampling_macs == 8 * 256 * 9 * (2 * DEFORMED + 4 * (2 * DEFORMED + COARSER))
    paper = counted("retinanet_r50_sepc", SHAPE, "paper")
    assert dict(paper.macs)["tower"] == FULL + full.sampling_macs


# --- SEPC paper, Appendix 1 ----------------------------------------------------------------

SQUARE = (1280, 1280)


@pytest.fixture(scope="module")
def head_tower():
    return macs("retinanet_r50_fpn", SQUARE)["tower"]


def test_appendix_pconvs_over_convs(head_tower):
    pconvs = macs("retinanet_r50_pconv", SQUARE, branches="separate")["tower"]
    assert round(pconvs / head_tower, 4) == 1.4985


def test_appendix_combined_head(head_tower):
    """The paper's 0.99925 is 1.4985 / 2 + 1/4, from the rounded 1.4985."""
    combined = macs("retinanet_r50_pconv", SQUARE)["tower"]
    assert combined / head_tower == pytest.approx(0.99925, abs=2.5e-5)


def test_appendix_deformable_conv(head_tower):
    """One conv deformable on P4..P7, its sampling counted, adds 0.025 of a conv."""
    lite = macs("retinanet_r50_sepc_lite", SQUARE, "paper")["tower"]
    combined = macs("retinanet_r50_pconv", SQUARE)["tower"]
    assert round((lite - combined) / 2 / (head_tower / 8), 3) == 0.025


def test_combined_head_is_cheaper_by_little():
    """Less than the original head while P4..P7 have under a quarter of the cells: 0.012 %."""
    saved = 1 - PCONV / HEAD
    assert saved == pytest.approx(0.00012, abs=5e-6)
    assert macs("retinanet_r50_pconv", SHAPE)["tower"] == pytest.approx((1 - saved) * HEAD)
