"""Heads over anchor boxes: a conv for the logits and one for the boxes of all anchors of a cell."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sepcbench.heads.dense import DenseHead, prediction, prior_bias
from sepcbench.heads.outputs import LevelOutput
from sepcbench.ops.anchors import cell_anchors, grid_anchors, grid_step, octave_sizes
from sepcbench.specs import AnchorHeadSpec, Conventions


class AnchorHead(DenseHead):
    """`DenseHead` with A anchors per cell: `cls_pred` gives A*K channels, `box_pred` A*4."""

    spec: AnchorHeadSpec

    def __init__(
        self,
        spec: AnchorHeadSpec,
        in_channels: Sequence[int],
        num_classes: int,
        strides: Sequence[int],
        conventions: Conventions,
    ) -> None:
        super().__init__(spec, in_channels, num_classes, strides, conventions)
        self.num_anchors = len(spec.ratios) * spec.scales_per_octave
        classes = self.num_anchors * num_classes
        self.cls_pred = prediction(self.width, classes, prior_bias(spec.prior))
        self.box_pred = prediction(self.width, self.num_anchors * 4)

    def predict(self, level: int, cls: Tensor, box: Tensor) -> LevelOutput:
        return LevelOutput(self.cls_pred(cls), self.box_pred(box))

    def priors(self, outputs: Sequence[LevelOutput], padded: tuple[int, int]) -> list[Tensor]:
        return self.anchors(outputs, padded)

    def anchors(self, outputs: Sequence[LevelOutput], padded: tuple[int, int]) -> list[Tensor]:
        """The anchors of every level, (H*W*A, 4) in the order of `cells_first`.

        The grid follows the size of the maps and starts at 0, also where convs without padding
        have shrunk the maps.

        Args:
            outputs: of the head.
            padded: (height, width) of the padded batch, in pixels.
        """
        how, spec = self.conventions, self.spec
        grids = []
        for output, stride in zip(outputs, self.strides, strict=True):
            size = (output.cls.shape[2], output.cls.shape[3])
            sizes = octave_sizes(stride, spec.base_scale, spec.scales_per_octave, how)
            cell = cell_anchors(stride, sizes, spec.ratios, how).to(output.cls.device)
            grids.append(grid_anchors(cell, size, grid_step(stride, size, padded, how)))
        return grids
