"""Feature pyramid network (Lin et al., arXiv 1612.03144, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.errors import UsageError
from sepcbench.ops.convs import fusion_conv
from sepcbench.ops.pyramid import Pyramid, resize_nearest
from sepcbench.specs import FpnSpec, NeckSpec, PafpnSpec

_BACKBONE_LEVELS = 4  # C2..C5


class Fpn(nn.Module):
    """C2..C5 in, P2 or P3 up to P5..P8 out, all with `spec.channels` channels.

    1x1 lateral convs, a top-down path of nearest upsampling and sums, a 3x3 conv on every level,
    no non-linearities. The switches of the spec give the paper's ablations: without the top-down
    path (Table 1 d), without lateral connections (e), only the finest level (f).

    Attributes:
        out_channels: one per level given.
    """

    def __init__(self, spec: FpnSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        used = backbone_channels(spec, in_channels, spec.first_level)
        self.spec = spec
        lateral_from = used if spec.lateral else used[-1:]
        levels = 1 if spec.finest_only else len(used)
        self.laterals = nn.ModuleList(
            fusion_conv(channels, spec.channels, 1, norm=spec.conv_norm, groups=spec.groups)
            for channels in lateral_from
        )
        self.outputs = nn.ModuleList(
            fusion_conv(spec.channels, spec.channels, 3, norm=spec.conv_norm, groups=spec.groups)
            for _ in range(levels)
        )
        self.extras = None if spec.finest_only else Extras(spec, used[-1])
        self.out_channels = (spec.channels,) * (levels + (self.extras.count if self.extras else 0))

    def forward(self, features: Pyramid) -> Pyramid:
        """Fuse the levels C2..C5."""
        used = features[self.spec.first_level - 2 :]
        merged = self._merge(used)
        # with finest_only there is one output conv, so that zip keeps only the finest level
        outputs = [conv(level) for conv, level in zip(self.outputs, merged)]
        return outputs if self.extras is None else self.extras(outputs, used[-1])

    def _merge(self, used: Pyramid) -> Pyramid:
        if not self.spec.lateral:
            return upsample_chain(self.laterals[0](used[-1]), used)
        laterals = [conv(level) for conv, level in zip(self.laterals, used)]
        return top_down(laterals) if self.spec.top_down else laterals


class Extras(nn.Module):
    """The levels above P5: pooled from P5, or by stride-2 3x3 convs from C5 or P5.

    Attributes:
        count: how many levels.
    """

    def __init__(self, spec: FpnSpec | PafpnSpec, c5_channels: int) -> None:
        super().__init__()
        self.count = spec.last_level - 5
        self.source = spec.extra
        self.relu_between = spec.relu_between
        first = c5_channels if spec.extra == "conv_c5" else spec.channels
        sizes = [first] + [spec.channels] * (self.count - 1)
        self.convs = nn.ModuleList()
        if spec.extra != "pool":
            make = _conv_builder(spec)
            self.convs.extend(make(channels) for channels in sizes[: self.count])

    def forward(self, outputs: Pyramid, c5: Tensor) -> Pyramid:
        """Append the extra levels to P2 or P3..P5."""
        if self.source == "pool":
            for _ in range(self.count):
                outputs = [*outputs, F.max_pool2d(outputs[-1], kernel_size=1, stride=2)]
            return outputs
        x = c5 if self.source == "conv_c5" else outputs[-1]
        for i, conv in enumerate(self.convs):
            x = conv(F.relu(x) if self.relu_between and i > 0 else x)
            outputs = [*outputs, x]
        return outputs


def _conv_builder(spec: FpnSpec | PafpnSpec) -> Callable[[int], nn.Module]:
    """Extra convs have the norm of the other convs of their neck."""
    if isinstance(spec, FpnSpec):
        return lambda channels: fusion_conv(
            channels, spec.channels, 3, stride=2, norm=spec.conv_norm, groups=spec.groups
        )
    return lambda channels: fusion_conv(channels, spec.channels, 3, stride=2)


def backbone_channels(
    spec: NeckSpec, in_channels: Sequence[int], first_level: int
) -> tuple[int, ...]:
    """The channels of C2 or C3 up to C5, whichever the neck starts from.

    Args:
        spec: of the neck, for its name.
        in_channels: of C2..C5; 0 where the backbone has no such map.
        first_level: the finest level that the neck reads, 2 or 3.

    Raises:
        UsageError: the neck does not get the maps it reads.
    """
    if len(in_channels) != _BACKBONE_LEVELS:
        raise UsageError(
            f"neck '{spec.TYPE}' reads C2..C5 of a backbone, not {len(in_channels)} levels; "
            "put it first in the chain"
        )
    used = tuple(in_channels[first_level - 2 :])
    if 0 in used:
        raise UsageError(
            f"neck '{spec.TYPE}' reads C{first_level}, which this backbone does not give; "
            "use another backbone or a neck that starts at P3"
        )
    return used


def top_down(laterals: Pyramid) -> Pyramid:
    """Add to every level the sum of the levels above it, upsampled to its exact size."""
    merged = [laterals[-1]]
    for lateral in reversed(laterals[:-1]):
        merged.insert(0, lateral + resize_nearest(merged[0], lateral))
    return merged


def upsample_chain(top: Tensor, like: Pyramid) -> Pyramid:
    """The top-down path alone: the top map upsampled step by step to the sizes of `like`."""
    merged = [top]
    for level in reversed(like[:-1]):
        merged.insert(0, resize_nearest(merged[0], level))
    return merged
