"""Heads over anchor boxes: a conv for the logits and one for the boxes of all anchors of a cell."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sepcbench.heads.dense import DenseHead, prediction, prior_bias
from sepcbench.heads.outputs import LevelOutput
from sepcbench.ops.anchors import octave_sizes, pyramid_anchors
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
        sizes = [
            octave_sizes(stride, spec.base_scale, spec.scales_per_octave, how)
            for stride in self.strides
        ]
        maps = [output.cls for output in outputs]
        return pyramid_anchors(maps, self.strides, sizes, spec.ratios, padded, how)
