"""A plain conv backbone for tests and the demo."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from sepcbench.ops.deformable import DeformableConv
from sepcbench.ops.pyramid import Pyramid
from sepcbench.specs import TinySpec
from sepcbench.specs.backbones import Deform


class Tiny(nn.Module):
    """A plain backbone of about 0.4 M parameters: 3x3 convs, BN that trains, ReLU.

    With `deform`, all convs of the stages that give C3, C4, C5 are deformable.

    Attributes:
        channels: of C2, C3, C4, C5.
    """

    def __init__(self, spec: TinySpec) -> None:
        super().__init__()
        self.channels = spec.channels[: spec.last_stage - 1]
        stem = max(8, 2 * spec.channels[0] // 3)
        self.stem = _conv_bn_relu(3, stem, stride=2)
        widths = (stem, *self.channels)
        kinds: tuple[Deform, ...] = ("none", spec.deform, spec.deform, spec.deform)
        self.stages = nn.ModuleList(
            nn.Sequential(
                _conv_bn_relu(before, after, stride=2, deform=kind),
                _conv_bn_relu(after, after, deform=kind),
            )
            for (before, after), kind in zip(pairwise(widths), kinds)
        )

    def forward(self, images: Tensor) -> Pyramid:
        """Compute C2..C5 of normalised images (N, 3, H, W)."""
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _conv_bn_relu(
    in_channels: int, out_channels: int, stride: int = 1, deform: Deform = "none"
) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if deform != "none":
        conv = DeformableConv.like(conv, deform)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
