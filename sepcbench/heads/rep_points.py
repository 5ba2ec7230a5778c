"""RepPoints' head (Yang et al., arXiv 1904.11490): objects as points, predicted in two steps.

Maps of points have the channels of deformable offsets: (y, x) of each point in turn, in cells from
the cell they belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.heads.dense import DenseHead, prior_bias
from sepcbench.heads.outputs import Detections, LevelOutput
from sepcbench.ops.anchors import pyramid_points
from sepcbench.ops.convs import init_tower_conv
from sepcbench.ops.deformable import deformed
from sepcbench.specs import Conventions, RepPointsSpec

_PUBLISHED_CHANNELS = 256
_GRADIENT = 0.1  # share of the gradient that deformable convs pass to the points


class RepPointsHead(DenseHead):
    """First points from the box branch; both branches are then read where those points lie.

    `box` maps are the refined points, `points` maps the first ones. With `transform` "moment",
    `moments` are the learnt exponents of the width and height of boxes.

    Training starts from a grid `base_scale` cells wide, which the published code has as an option.
    Its default starts with all points in the cell's centre, which a few hundred iterations are not
    enough to leave.
    """

    spec: RepPointsSpec

    def __init__(
        self,
        spec: RepPointsSpec,
        in_channels: Sequence[int],
        num_classes: int,
        strides: Sequence[int],
        conventions: Conventions,
    ) -> None:
        super().__init__(spec, in_channels, num_classes, strides, conventions)
        width, hidden, sides = self.width, spec.point_channels, isqrt(spec.points)
        self.init_conv = nn.Conv2d(width, hidden, 3, padding=1)
        init_tower_conv(self.init_conv)
        self.cls_conv = PointConv(width, hidden, sides)
        self.refine_conv = PointConv(width, hidden, sides)
        self.init_pred = _prediction(hidden, 2 * spec.points)
        self.refine_pred = _prediction(hidden, 2 * spec.points)
        # as published, but for narrow heads, whose few inputs would take too long from there
        std = 0.01 if hidden >= _PUBLISHED_CHANNELS else hidden**-0.5
        self.cls_pred = _prediction(hidden, num_classes, prior_bias(spec.prior), std)
        self.moments = nn.Parameter(torch.zeros(2)) if spec.transform == "moment" else None
        start = kernel_taps(sides, self.init_pred.weight) * spec.base_scale / 2
        self.init_pred.bias = nn.Parameter(start)

    def predict(self, level: int, cls: Tensor, box: Tensor) -> LevelOutput:
        first = self.init_pred(F.relu(self.init_conv(box)))
        taps = kernel_taps(isqrt(self.spec.points), first)
        offset = scale_gradient(first, _GRADIENT) - taps[:, None, None]
        logits = self.cls_pred(F.relu(self.cls_conv(cls, offset)))
        shift = self.refine_pred(F.relu(self.refine_conv(box, offset)))
        return LevelOutput(logits, shift + first.detach(), points=first)

    def priors(self, outputs: Sequence[LevelOutput], padded: tuple[int, int]) -> list[Tensor]:
        """The points (H*W, 2) of the cells: as anchors, the first one is at 0."""
        how = replace(self.conventions, point_offset="zero")
        return pyramid_points([output.cls for output in outputs], self.strides, padded, how)

    def point_boxes(self, points: Tensor, level: int) -> Tensor:
        """Boxes (N, 4, H, W) in pixels from the priors, of points (N, 2 * points, H, W)."""
        return points_to_boxes(points.float(), self._moments()) * self.strides[level]

    def boxes(self, priors: Tensor, values: Tensor) -> Tensor:
        return priors.repeat(1, 2) + values

    def candidates(
        self,
        outputs: Sequence[LevelOutput],
        image_sizes: Sequence[tuple[int, int]],
        padded: tuple[int, int],
    ) -> list[list[Detections]]:
        """As `DenseHead.candidates`, of the boxes of the refined points."""
        boxes = [
            LevelOutput(output.cls, self.point_boxes(output.box, level))
            for level, output in enumerate(outputs)
        ]
        return super().candidates(boxes, image_sizes, padded)

    def _moments(self) -> Tensor | None:
        if self.moments is None:
            return None
        return scale_gradient(self.moments.float(), self.spec.moment_lr)


class PointConv(nn.Conv2d):
    """A deformable conv of `side` x `side` taps, without bias, whose offsets are given."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        super().__init__(in_channels, out_channels, side, padding=side // 2, bias=False)
        init_tower_conv(self)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve (N, C, H, W) with offsets (N, 2 * side * side, H, W) of the taps."""
        return deformed(self, x, offset)


def points_to_boxes(points: Tensor, moments: Tensor | None) -> Tensor:
    """The boxes that points stand for (section 3.2 of the paper).

    Args:
        points: (N, 2 * points, H, W).
        moments: (2,), by which a box has mean +- std * exp(moments), of x and y; without, it is
            the smallest box around the points.

    Returns:
        (N, 4, H, W), xyxy in the unit of the points.
    """
    pairs = points.unflatten(1, (-1, 2)).flip(2)  # (N, points, (x, y), H, W)
    if moments is None:
        return torch.cat([pairs.amin(dim=1), pairs.amax(dim=1)], dim=1)
    mean = pairs.mean(dim=1)
    spread = pairs.std(dim=1) if pairs.numel() else mean  # std warns of nothing to take it of
    half = spread * moments.exp()[:, None, None]
    return torch.cat([mean - half, mean + half], dim=1)


def kernel_taps(side: int, like: Tensor) -> Tensor:
    """Where the taps of a plain conv are, (2 * side * side,): (y, x) of each by row."""
    places = torch.arange(side, device=like.device, dtype=like.dtype) - side // 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    return torch.stack([y, x], dim=-1).flatten()


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """The same values, through which only `factor` of the gradient flows back."""
    return (1 - factor) * x.detach() + factor * x


def _prediction(
    in_channels: int, out_channels: int, bias: float = 0.0, std: float = 0.01
) -> nn.Conv2d:
    """Build a 1x1 conv that predicts a map, starting near `bias`."""
    conv = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.normal_(conv.weight, std=std)
    nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]
    return conv
