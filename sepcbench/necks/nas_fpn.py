"""NAS-FPN: a searched cell of merging steps, stacked (Ghiasi et al., arXiv 1904.07392)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.necks.fpn import backbone_channels
from sepcbench.ops.convs import fusion_conv
from sepcbench.ops.pyramid import Pyramid, resize_nearest
from sepcbench.specs import NasFpnSpec


class NasFpn(nn.Module):
    """C3..C5 in, P3..P7 out: `spec.stack` times the cell found by the search.

    C3..C5 pass a 1x1 conv; P6 is a 1x1 conv of P5 and 2x2 max pooling, P7 the same of P6. Pooling
    drops an odd last row or column, as published (mmdetection 2.25).

    Attributes:
        out_channels: one per level given.
    """

    def __init__(self, spec: NasFpnSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        width, norm = spec.channels, spec.norm
        used = backbone_channels(spec, in_channels, first_level=3)
        self.laterals = nn.ModuleList(fusion_conv(c, width, 1, norm=norm) for c in used)
        self.extras = nn.ModuleList(fusion_conv(width, width, 1, norm=norm) for _ in range(2))
        self.cells = nn.ModuleList(Cell(width, norm) for _ in range(spec.stack))
        self.out_channels = (width,) * 5

    def forward(self, features: Pyramid) -> Pyramid:
        """Fuse the levels C2..C5; C2 is not used."""
        pyramid = [conv(level) for conv, level in zip(self.laterals, features[1:])]
        for conv in self.extras:
            pyramid.append(_halve(conv(pyramid[-1])))
        for cell in self.cells:
            pyramid = cell(pyramid)
        return pyramid


class Cell(nn.Module):
    """Seven merging steps of P3..P7 (figure 6 of the paper).

    A step is named as in mmdetection: how it merges (`sum`, or `gp` with global-pooling
    attention), the two levels it reads, the level it makes. Each ends with ReLU, 3x3 conv, norm;
    two more `gp` on the way have no conv.
    """

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        steps = ("gp_64_4", "sum_44_4", "sum_43_3", "sum_34_4", "sum_55_5", "sum_77_7", "gp_75_6")
        self.steps = nn.ModuleDict({name: Step(channels, norm) for name in steps})

    def forward(self, pyramid: Pyramid) -> Pyramid:
        p3, p4, p5, p6, p7 = pyramid
        steps = self.steps
        middle = steps["gp_64_4"](_attend(p6, p4, like=p4))
        middle = steps["sum_44_4"](_sum(middle, p4, like=p4))
        p3 = steps["sum_43_3"](_sum(middle, p3, like=p3))
        p4 = steps["sum_34_4"](_sum(p3, middle, like=p4))
        p5 = steps["sum_55_5"](_sum(p5, _attend(p4, p3, like=p5), like=p5))
        p7 = steps["sum_77_7"](_sum(p7, _attend(p5, middle, like=p7), like=p7))
        p6 = steps["gp_75_6"](_attend(p7, p5, like=p6))
        return [p3, p4, p5, p6, p7]


class Step(nn.Module):
    """ReLU, 3x3 conv with a bias, norm."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.conv = fusion_conv(channels, channels, 3)[0]
        self.norm = nn.BatchNorm2d(channels) if norm == "bn" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.relu(x)))  # type: ignore[no-any-return]


def _sum(x: Tensor, y: Tensor, like: Tensor) -> Tensor:
    """Both maps resized to the size of `like`, and added."""
    return _resize(x, like) + _resize(y, like)


def _attend(x: Tensor, y: Tensor, like: Tensor) -> Tensor:
    """`y + sigmoid(mean of y) * x`, per channel, after resizing both to the size of `like`."""
    x, y = _resize(x, like), _resize(y, like)
    return y + F.adaptive_avg_pool2d(y, 1).sigmoid() * x


def _resize(x: Tensor, like: Tensor) -> Tensor:
    """Nearest upsampling, or max pooling of the map padded with zeros to a multiple of the size."""
    size, target = (int(x.shape[2]), int(x.shape[3])), (int(like.shape[2]), int(like.shape[3]))
    if size == target:
        return x
    if size < target:
        return resize_nearest(x, like)
    kernel = [math.ceil(have / want) for have, want in zip(size, target)]
    rows, columns = (k * want - have for k, have, want in zip(kernel, size, target))
    if rows or columns:
        around = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        x = F.pad(x, around)
    return F.max_pool2d(x, kernel, stride=kernel)


def _halve(x: Tensor) -> Tensor:
    """2x2 max pooling; a map of one row or column keeps it."""
    return F.max_pool2d(x, 2, stride=2, ceil_mode=bool(min(x.shape[2:]) < 2))
