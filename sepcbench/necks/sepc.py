"""Scale-equalizing pyramid convolution (arXiv 2005.03101, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from sepcbench.necks.pconv import CombinedTower
from sepcbench.specs import SepcSpec


class Sepc(CombinedTower):
    """The combined PConv tower with deformable kernels from level `spec.deform_from` on.

    `full` deforms the PConvs and the two extra convs, `lite` the extra convs only. Pyramid in,
    pyramid pair out.
    """

    def __init__(self, spec: SepcSpec, in_channels: Sequence[int]) -> None:
        deform_blocks = spec.deform_from if spec.deform == "full" else None
        super().__init__(
            spec, in_channels, deform_blocks=deform_blocks, deform_extra=spec.deform_from
        )
