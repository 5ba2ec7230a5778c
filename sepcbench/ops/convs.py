"""Convolutions that know the pyramid level they work for, plain or deformable."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.ops.deformable import deformed
from sepcbench.ops.norms import check_groups
from sepcbench.ops.pyramid import Pyramid

_PUBLISHED_STD, _PUBLISHED_CHANNELS = 0.01, 256


class LevelConv(nn.Conv2d):
    """A 3x3 conv that is deformable when it works for level `deform_from` or a coarser one.

    Deformable conv v1: offsets (dy, dx) per tap from a 3x3 conv of the same stride and padding on
    the same input, no modulation; it starts at zero, so the conv starts as a plain one. The
    weights are the same on all levels (SEPC paper, section 3.3).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the conv and of its offset conv.
        padding: of the conv and of its offset conv.
        deform_from: index of the finest level with deformation, 0 for all; None for a plain conv.
        bias: whether the conv has one; its offset conv always has.
    """

    offset: nn.Conv2d | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        padding: int = 1,
        deform_from: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, 3, stride, padding, bias=bias)
        self.deform_from = deform_from
        init_tower_conv(self)
        self.offset = None
        if deform_from is not None:
            self.offset = nn.Conv2d(in_channels, 2 * 3 * 3, 3, stride, padding)
            nn.init.zeros_(self.offset.weight)
            nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        """Convolve (N, C, H, W) for the output level with this index, 0 for the finest."""
        if self.offset is None or self.deform_from is None or level < self.deform_from:
            return super().forward(x)
        return deformed(self, x, self.offset(x))


class SharedConv(LevelConv):
    """One 3x3 conv applied to every level of a pyramid."""

    def forward(self, pyramid: Pyramid) -> Pyramid:  # type: ignore[override]
        return [super(SharedConv, self).forward(x, level) for level, x in enumerate(pyramid)]


class PyramidBlock(nn.Module):
    """A conv over a pyramid, a norm over a pyramid, then ReLU: one layer of a head tower."""

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return [F.relu(level) for level in self.norm(self.conv(pyramid))]


def init_tower_conv(conv: nn.Conv2d, across_levels: bool = False) -> None:
    """Initialise a conv of a head tower, bias 0.

    From 256 channels on normal with std 0.01, as published (arXiv 1708.02002, section 4.1). In
    narrower towers that would make the signal vanish: they get He initialisation instead, and
    their kernels across levels start at zero. So a narrow PConv starts as a plain conv, which a
    few hundred iterations are enough to train; from a random blend of all levels they are not.

    Args:
        conv: the conv.
        across_levels: it reads another level than the one it works for.
    """
    std = _PUBLISHED_STD
    if conv.in_channels < _PUBLISHED_CHANNELS:
        std = 0.0 if across_levels else (2 / conv.weight[0].numel()) ** 0.5
    nn.init.normal_(conv.weight, std=std)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def fusion_conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    norm: Literal["none", "gn", "bn"] = "none",
    groups: int = 32,
) -> nn.Sequential:
    """Build a conv of a fusing neck: xavier-uniform, no activation, a bias if no norm follows."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=norm == "none")
    nn.init.xavier_uniform_(conv.weight)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    elif norm == "bn":
        layers["norm"] = nn.BatchNorm2d(out_channels)
    else:
        check_groups(out_channels, groups)
        layers["norm"] = nn.GroupNorm(groups, out_channels)
    return nn.Sequential(layers)
