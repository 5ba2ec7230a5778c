"""Path aggregation FPN (Liu et al., PANet, arXiv 1803.01534, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sepcbench.necks.fpn import Extras, backbone_channels, top_down
from sepcbench.ops.convs import fusion_conv
from sepcbench.ops.pyramid import Pyramid
from sepcbench.specs import PafpnSpec


class Pafpn(nn.Module):
    """FPN, then a bottom-up path: stride-2 convs that add every level to the one above it.

    The bottom-up path starts from FPN's outputs (after its 3x3 convs), and every level above the
    finest gets one more 3x3 conv. The extra levels come last, as in FPN.

    Attributes:
        out_channels: one per level given.
    """

    def __init__(self, spec: PafpnSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        used = backbone_channels(spec, in_channels, spec.first_level)
        width, steps = spec.channels, len(used) - 1
        self.spec = spec
        self.laterals = nn.ModuleList(fusion_conv(channels, width, 1) for channels in used)
        self.outputs = nn.ModuleList(fusion_conv(width, width, 3) for _ in used)
        self.downs = nn.ModuleList(fusion_conv(width, width, 3, stride=2) for _ in range(steps))
        self.bottom_up = nn.ModuleList(fusion_conv(width, width, 3) for _ in range(steps))
        self.extras = Extras(spec, used[-1])
        self.out_channels = (width,) * (len(used) + self.extras.count)

    def forward(self, features: Pyramid) -> Pyramid:
        """Fuse the levels C2..C5."""
        used = features[self.spec.first_level - 2 :]
        merged = top_down([conv(level) for conv, level in zip(self.laterals, used)])
        paths = [conv(level) for conv, level in zip(self.outputs, merged)]
        for i, down in enumerate(self.downs):
            paths[i + 1] = paths[i + 1] + down(paths[i])
        outputs = paths[:1] + [conv(level) for conv, level in zip(self.bottom_up, paths[1:])]
        return self.extras(outputs, used[-1])  # type: ignore[no-any-return]
