"""EfficientDet's BiFPN: weighted fusion, top-down and bottom-up (Tan et al., arXiv 1911.09070)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.necks.fpn import backbone_channels
from sepcbench.ops.pyramid import Pyramid, resize_nearest
from sepcbench.specs import BifpnSpec

_BN_EPS = 1e-3  # EfficientDet's
_FUSION_EPS = 1e-4  # equation of section 3.3


class Bifpn(nn.Module):
    """C3..C5 in, P3..P7 out, by `spec.stack` layers.

    P6 is a 1x1 conv of C5 with BN and max pooling, P7 pooling of P6. The first layer reads the
    backbone through a 1x1 conv with BN per connection, where the channels differ: C4 and C5 are
    read twice.

    Attributes:
        out_channels: one per level given.
    """

    def __init__(self, spec: BifpnSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        used = backbone_channels(spec, in_channels, first_level=3)
        width = spec.channels
        self.p6 = Resample(used[-1], spec)
        self.layers = nn.ModuleList()
        for _ in range(spec.stack):
            self.layers.append(Layer(spec, used))
            used = (width,) * 3
        self.out_channels = (width,) * 5

    def forward(self, features: Pyramid) -> Pyramid:
        """Fuse the levels C2..C5; C2 is not used."""
        p6 = _halve(self.p6(features[-1]))
        pyramid = [*features[1:], p6, _halve(p6)]
        for layer in self.layers:
            pyramid = layer(pyramid)
        return pyramid


class Layer(nn.Module):
    """One BiFPN layer: a top-down path from P7 to P3, then a bottom-up path back to P7.

    Args:
        spec: of the neck.
        in_channels: of the levels 3 to 5 that come in; P6 and P7 have the neck's channels.
    """

    def __init__(self, spec: BifpnSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        # what enters the top-down path (P3..P5), and once more the bottom-up path (P4, P5)
        self.entries = nn.ModuleList(Resample(c, spec) for c in in_channels)
        self.shortcuts = nn.ModuleList(Resample(c, spec) for c in in_channels[1:])
        # P6, P5, P4, P3
        self.top_down = nn.ModuleList(Node(spec, 2) for _ in range(4))
        # P4, P5, P6 read the input, the top-down map and the level below; P7 has no top-down map
        self.bottom_up = nn.ModuleList(Node(spec, inputs) for inputs in (3, 3, 3, 2))

    def forward(self, pyramid: Pyramid) -> Pyramid:
        *fine, p6, p7 = pyramid
        entries = [*(entry(x) for entry, x in zip(self.entries, fine)), p6, p7]
        shortcuts = [*(cut(x) for cut, x in zip(self.shortcuts, fine[1:])), p6]
        down = [p7]
        for node, entry in zip(self.top_down, entries[-2::-1]):
            down.insert(0, node([entry, resize_nearest(down[0], entry)]))
        outputs = down[:1]
        for node, shortcut, middle in zip(self.bottom_up, shortcuts, down[1:-1]):
            outputs.append(node([shortcut, middle, _halve(outputs[-1])]))
        return [*outputs, self.bottom_up[-1]([p7, _halve(outputs[-1])])]


class Node(nn.Module):
    """A weighted sum of maps of one size, then SiLU, a depthwise and a 1x1 conv, BN.

    `fast`: weights max(w, 0) / (sum of them + 1e-4); `softmax`: softmax(w); `sum`: all 1.
    """

    weights: Tensor | None

    def __init__(self, spec: BifpnSpec, inputs: int) -> None:
        super().__init__()
        width = spec.channels
        self.fusion = spec.fusion
        self.weights = None if spec.fusion == "sum" else nn.Parameter(torch.ones(inputs))
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width, eps=_BN_EPS, momentum=spec.bn_momentum)
        nn.init.zeros_(self.pointwise.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        fused = self._fuse(maps)
        return self.norm(self.pointwise(self.depthwise(F.silu(fused))))  # type: ignore

    def _fuse(self, maps: Sequence[Tensor]) -> Tensor:
        if self.weights is None:
            return sum(maps[1:], maps[0])
        if self.fusion == "softmax":
            shares = self.weights.softmax(dim=0)
        else:
            positive = self.weights.relu()
            shares = positive / (positive.sum() + _FUSION_EPS)
        return sum((s * x for s, x in zip(shares[1:], maps[1:])), shares[0] * maps[0])


class Resample(nn.Sequential):
    """A 1x1 conv with a bias and BN to the neck's channels; nothing if they are these already."""

    def __init__(self, in_channels: int, spec: BifpnSpec) -> None:
        if in_channels == spec.channels:
            super().__init__()
            return
        conv = nn.Conv2d(in_channels, spec.channels, 1)
        nn.init.xavier_uniform_(conv.weight)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        norm = nn.BatchNorm2d(spec.channels, eps=_BN_EPS, momentum=spec.bn_momentum)
        super().__init__(conv, norm)


def _halve(x: Tensor) -> Tensor:
    """3x3 max pooling with stride 2 to half the size, rounded up.

    As TensorFlow's padding SAME: an even side has its one cell of padding at the end.
    """
    padding = (int(x.shape[2]) % 2, int(x.shape[3]) % 2)
    return F.max_pool2d(x, 3, stride=2, padding=padding, ceil_mode=True)
