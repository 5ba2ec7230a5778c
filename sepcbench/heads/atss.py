"""ATSS's head (Zhang et al., arXiv 1912.02424): RetinaNet's with one anchor and centerness."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sepcbench.heads.anchor import AnchorHead
from sepcbench.heads.dense import prediction
from sepcbench.heads.fcos import level_scales
from sepcbench.heads.outputs import LevelOutput
from sepcbench.ops.boxes import decode
from sepcbench.specs import AtssSpec, Conventions


class AtssHead(AnchorHead):
    """Boxes are deltas of anchors, scaled per level; centerness comes from the box branch."""

    spec: AtssSpec

    def __init__(
        self,
        spec: AtssSpec,
        in_channels: Sequence[int],
        num_classes: int,
        strides: Sequence[int],
        conventions: Conventions,
    ) -> None:
        super().__init__(spec, in_channels, num_classes, strides, conventions)
        self.centerness_pred = prediction(self.width, self.num_anchors)
        self.scales = level_scales([1.0] * len(strides))

    def predict(self, level: int, cls: Tensor, box: Tensor) -> LevelOutput:
        deltas = self.box_pred(box) * self.scales[level]
        return LevelOutput(self.cls_pred(cls), deltas, self.centerness_pred(box))

    def boxes(self, priors: Tensor, values: Tensor) -> Tensor:
        return decode(priors, values, self.spec.box_stds, self.conventions)
