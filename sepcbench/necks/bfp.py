"""Balanced feature pyramid (Pang et al., Libra R-CNN, arXiv 1904.02701, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.errors import UsageError
from sepcbench.ops.convs import fusion_conv
from sepcbench.ops.pyramid import Pyramid, resize_nearest
from sepcbench.specs import BfpSpec


class Bfp(nn.Module):
    """A pyramid in, the same sizes out, each level with the balanced map added to it.

    All levels are brought to the size of level `spec.refine_level` (max pooling from finer ones,
    nearest upsampling from coarser ones) and averaged; the refined mean goes back the same way.

    Attributes:
        out_channels: one per level given.
    """

    def __init__(self, spec: BfpSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        if set(in_channels) != {spec.channels}:
            raise UsageError(
                f"neck 'bfp' has channels={spec.channels} but gets levels with "
                f"{', '.join(map(str, in_channels))}; put an fpn of as many channels before it"
            )
        if spec.refine_level >= len(in_channels):
            raise UsageError(
                f"neck 'bfp': refine_level={spec.refine_level}, but there are only levels 0 to "
                f"{len(in_channels) - 1}"
            )
        self.level = spec.refine_level
        self.refine = _refinement(spec)
        self.out_channels = tuple(in_channels)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        gathered = [_resize(level, pyramid[self.level]) for level in pyramid]
        balanced = self.refine(sum(gathered[1:], gathered[0]) / len(gathered))
        return [level + _resize(balanced, level) for level in pyramid]


class NonLocal(nn.Module):
    """Embedded-gaussian non-local block without scaling (arXiv 1711.07971, equation 4).

    `x + out(softmax(theta(x)^T phi(x)) g(x))`: every cell reads every cell. All four are 1x1
    convs to as many channels; `out` starts at zero, so the block starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta, self.phi, self.g, self.out = (nn.Conv2d(channels, channels, 1) for _ in "1234")
        for conv in (self.theta, self.phi, self.g, self.out):
            nn.init.normal_(conv.weight, std=0.0 if conv is self.out else 0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        queries = self.theta(x).flatten(2).transpose(1, 2)  # (N, H*W, C)
        keys = self.phi(x).flatten(2)  # (N, C, H*W)
        values = self.g(x).flatten(2).transpose(1, 2)  # (N, H*W, C)
        read = torch.matmul(torch.matmul(queries, keys).softmax(dim=-1), values)
        return x + self.out(read.transpose(1, 2).unflatten(2, x.shape[2:]))  # type: ignore


def _refinement(spec: BfpSpec) -> nn.Module:
    if spec.refine == "non_local":
        return NonLocal(spec.channels)
    if spec.refine == "conv":
        return nn.Sequential(fusion_conv(spec.channels, spec.channels, 3), nn.ReLU())
    return nn.Identity()


def _resize(x: Tensor, like: Tensor) -> Tensor:
    """Nearest upsampling, or adaptive max pooling, to the size of `like`."""
    if x.shape[2] < like.shape[2] or x.shape[3] < like.shape[3]:
        return resize_nearest(x, like)
    return F.adaptive_max_pool2d(x, (like.shape[2], like.shape[3]))
