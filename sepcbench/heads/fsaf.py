"""FSAF's head (Zhu et al., arXiv 1903.00621): the anchor-free branch alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.heads.anchor import AnchorHead
from sepcbench.heads.outputs import LevelOutput
from sepcbench.ops.boxes import decode_sides
from sepcbench.specs import Conventions, FsafSpec


class FsafHead(AnchorHead):
    """One square of a stride per cell; boxes are distances from its centre to the four sides.

    Training starts from boxes of two strides, where the ReLU passes gradients.
    """

    spec: FsafSpec

    def __init__(
        self,
        spec: FsafSpec,
        in_channels: Sequence[int],
        num_classes: int,
        strides: Sequence[int],
        conventions: Conventions,
    ) -> None:
        super().__init__(spec, in_channels, num_classes, strides, conventions)
        nn.init.constant_(self.box_pred.bias, 1 / conventions.side_unit)  # type: ignore[arg-type]

    def predict(self, level: int, cls: Tensor, box: Tensor) -> LevelOutput:
        """Distances are not negative."""
        output = super().predict(level, cls, box)
        return output._replace(box=F.relu(output.box))

    def boxes(self, priors: Tensor, values: Tensor) -> Tensor:
        return decode_sides(priors, values, self.conventions)
