"""HRNet's fusion, HRNetV2p (Sun et al., arXiv 1904.04514, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.necks.fpn import backbone_channels
from sepcbench.ops.convs import fusion_conv
from sepcbench.ops.pyramid import Pyramid
from sepcbench.specs import HrfpnSpec

_POOLS: dict[str, Callable[..., Tensor]] = {"avg": F.avg_pool2d, "max": F.max_pool2d}


class Hrfpn(nn.Module):
    """C2..C5 in, a pyramid of maps pooled from one high-resolution map out.

    C3..C5 are upsampled bilinearly to C2's size and put beside it; a 1x1 conv reduces the
    channels; level i is pooled by 2^i, cutting off a rest; a 3x3 conv follows on each. From P3 on
    (FCOS on HRNet) these convs have stride 2.

    Attributes:
        out_channels: one per level given.
    """

    def __init__(self, spec: HrfpnSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        used = backbone_channels(spec, in_channels, first_level=2)
        levels, stride = len(spec.levels), 2 ** (spec.first_level - 2)
        self.pool = _POOLS[spec.pooling]
        self.reduce = fusion_conv(sum(used), spec.channels, 1)
        self.outputs = nn.ModuleList(
            fusion_conv(spec.channels, spec.channels, 3, stride=stride) for _ in range(levels)
        )
        self.out_channels = (spec.channels,) * levels

    def forward(self, features: Pyramid) -> Pyramid:
        """Fuse the levels C2..C5."""
        finest = self.reduce(_side_by_side(features))
        maps = [self._pooled(finest, 2**i) for i in range(len(self.outputs))]
        return [conv(level) for conv, level in zip(self.outputs, maps)]

    def _pooled(self, x: Tensor, factor: int) -> Tensor:
        if factor == 1:
            return x
        # a map smaller than the window is one cell
        small = bool(min(x.shape[2:]) < factor)
        return self.pool(x, factor, stride=factor, ceil_mode=small)


def _side_by_side(features: Pyramid) -> Tensor:
    """Upsample level i by exactly 2^i, cut to the size of level 0, and join the channels."""
    height, width = features[0].shape[2:]
    maps = [features[0]]
    for i, level in enumerate(features[1:], start=1):
        large = F.interpolate(level, scale_factor=2**i, mode="bilinear", align_corners=False)
        maps.append(large[:, :, :height, :width])
    return torch.cat(maps, dim=1)
