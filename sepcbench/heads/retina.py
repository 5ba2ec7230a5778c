"""The head of RetinaNet (Lin et al., arXiv 1708.02002) and of FreeAnchor."""

from __future__ import annotations

from torch import Tensor

from sepcbench.heads.anchor import AnchorHead
from sepcbench.ops.boxes import decode
from sepcbench.specs import FreeAnchorSpec, RetinaSpec


class RetinaHead(AnchorHead):
    """Boxes are deltas of anchors."""

    spec: RetinaSpec | FreeAnchorSpec

    def boxes(self, priors: Tensor, values: Tensor) -> Tensor:
        return decode(priors, values, self.spec.box_stds, self.conventions)
