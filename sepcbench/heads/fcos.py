"""FCOS's head (Tian et al., arXiv 1904.01355): a point per cell, distances to the four sides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.heads.dense import DenseHead, prediction, prior_bias
from sepcbench.heads.outputs import LevelOutput
from sepcbench.ops.anchors import pyramid_points
from sepcbench.ops.boxes import decode_distances
from sepcbench.specs import Conventions, FcosSpec


class FcosHead(DenseHead):
    """One prediction per cell: `box` maps are distances (left, top, right, bottom) in pixels.

    Training starts from boxes of two strides. Published is a start from distances of one pixel on
    all levels, which a few hundred iterations are not enough to leave.
    """

    spec: FcosSpec

    def __init__(
        self,
        spec: FcosSpec,
        in_channels: Sequence[int],
        num_classes: int,
        strides: Sequence[int],
        conventions: Conventions,
    ) -> None:
        super().__init__(spec, in_channels, num_classes, strides, conventions)
        self.cls_pred = prediction(self.width, num_classes, prior_bias(spec.prior))
        first = 1.0 if spec.normalise_boxes else math.log(strides[0])
        self.box_pred = prediction(self.width, 4, first)
        self.centerness_pred = prediction(self.width, 1)
        starts = [1.0 if spec.normalise_boxes else math.log(s) / first for s in strides]
        self.scales = level_scales(starts if spec.level_scales else ())

    def predict(self, level: int, cls: Tensor, box: Tensor) -> LevelOutput:
        values = self.box_pred(box)
        if self.spec.level_scales:
            values = values * self.scales[level]
        if self.spec.normalise_boxes:
            distances = F.relu(values) * self.strides[level]
        else:
            distances = values.float().exp()  # in half precision it would overflow at 2^16
        centred = self.centerness_pred(cls if self.spec.centerness_on == "cls" else box)
        return LevelOutput(self.cls_pred(cls), distances, centred)

    def priors(self, outputs: Sequence[LevelOutput], padded: tuple[int, int]) -> list[Tensor]:
        maps = [output.cls for output in outputs]
        return pyramid_points(maps, self.strides, padded, self.conventions)

    def boxes(self, priors: Tensor, values: Tensor) -> Tensor:
        return decode_distances(priors, values)


def level_scales(starts: Sequence[float]) -> nn.ParameterList:
    """Build a learnt factor per level."""
    return nn.ParameterList(nn.Parameter(torch.tensor(start)) for start in starts)
