"""One map of the backbone as it is: the C4 and C5 baselines (arXiv 1612.03144, Table 1 a, b)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sepcbench.errors import UsageError
from sepcbench.ops.pyramid import Pyramid
from sepcbench.specs import SingleLevelSpec


class SingleLevel(nn.Module):
    """Picks one of C2..C5: a pyramid of one level, without parameters.

    Attributes:
        out_channels: of that level.
    """

    def __init__(self, spec: SingleLevelSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.index = spec.level - 2  # in C2..C5
        if self.index >= len(in_channels) or not in_channels[self.index]:
            raise UsageError(f"neck 'single_level': the backbone gives no C{spec.level}")
        self.out_channels = (in_channels[self.index],)

    def forward(self, features: Pyramid) -> Pyramid:
        """Pick the level from C2..C5."""
        return [features[self.index]]
