"""Published sizes of the rival necks and backbones, re-derived from built modules."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from sepcbench import detectors
from sepcbench.backbones import BACKBONES
from sepcbench.measures.cost import count
from sepcbench.necks.bifpn import Bifpn, Resample
from sepcbench.records import Cost
from sepcbench.specs import BifpnSpec, TimmSpec
from sepcbench.variants import variant


@functools.cache
def counted(name: str, shape: tuple[int, int], **overrides: object) -> Cost:
    from sepcbench.measures.cost import cost

    return cost(detectors.build(variant(name, overrides), init=False), shape)


def params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_retinanet_nas_fpn_of_the_tpu_repository() -> None:
    """60.3 M and 140.6 G at 640x640, seven cells, 91 classes (github.com/tensorflow/tpu).

    Theirs has BN in the head and makes P6 from C5, not from P5: 0.3 % of either.
    """
    cost = counted("retinanet_r50_nas_fpn", (640, 640), num_classes=91)
    assert cost.params / 1e6 == pytest.approx(60.3, rel=0.003)
    assert dict(cost.macs)["total"] / 1e9 == pytest.approx(140.6, rel=0.003)


@pytest.mark.parametrize(
    ("backbone", "millions", "giga"), [("hrnet_w18", 17.5, 180.3), ("hrnet_w32", 37.3, 273.3)]
)
def test_fcos_on_hrnet(backbone: str, millions: float, giga: float) -> None:
    """5-level rows of github.com/HRNet/HRNet-FCOS; image size and convention are not stated there.

    At 800x1216 the multiply-adds of convs are within 1 %.
    """
    pytest.importorskip("timm")
    cost = counted(f"fcos_{backbone}_hrfpn", (800, 1216))
    assert cost.params / 1e6 == pytest.approx(millions, abs=0.05)
    assert dict(cost.macs)["total"] / 1e9 == pytest.approx(giga, rel=0.01)


# --- EfficientDet-D0: 64 channels, three layers, 512x512 (arXiv 1911.09070) -----------------

WIDTH = 64
CELLS = [(512 // 2**k) ** 2 for k in range(3, 8)]
SEPARABLE = 9 * WIDTH + WIDTH * WIDTH  # depthwise 3x3 and 1x1


class D0Features(nn.Module):
    """EfficientNet-B0 and the BiFPN."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = BACKBONES[TimmSpec](TimmSpec("efficientnet_b0"))
        self.neck = Bifpn(BifpnSpec(channels=WIDTH, stack=3), self.backbone.channels)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.neck(self.backbone(images))


def test_bifpn_of_d0_by_formula() -> None:
    neck = Bifpn(BifpnSpec(channels=WIDTH, stack=3), (24, 40, 112, 320))
    node = SEPARABLE + WIDTH + 2 * WIDTH  # bias, BN
    weights = 3 * 2 + 2 + 3 * 3 + 2  # P6, P5, P4; P3; P4, P5, P6; P7
    # C3 and P6 are read through one 1x1 conv with BN, C4 and C5 through two
    entries = sum(c * WIDTH + 3 * WIDTH for c in (40, 112, 112, 320, 320, 320))
    assert params(neck) == 3 * (8 * node + weights) + entries
    assert len([m for m in neck.modules() if isinstance(m, Resample) and len(m)]) == 6


def test_efficientdet_d0() -> None:
    """3.9 M parameters and 2.54 G multiply-adds (github.com/google/automl)."""
    pytest.importorskip("timm")
    body = D0Features().eval()
    anchors, classes = 9, 90
    outputs = anchors * (classes + 4)
    # two towers of three separable convs shared by the levels, BN of its own for each level
    towers = 2 * 3 * (SEPARABLE + WIDTH + 5 * 2 * WIDTH)
    predictions = 2 * 9 * WIDTH + outputs * (WIDTH + 1)
    total = params(body) + towers + predictions
    assert total / 1e6 == pytest.approx(3.9, abs=0.05)
    head = sum(CELLS) * (2 * 3 * SEPARABLE + 2 * 9 * WIDTH + outputs * WIDTH)
    macs = count(body, (512, 512)).total + head
    assert macs / 1e9 == pytest.approx(2.54, rel=0.03)
