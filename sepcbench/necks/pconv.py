"""Pyramid convolution: 3x3 kernels over (scale, height, width) (arXiv 2005.03101, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from sepcbench.errors import UsageError
from sepcbench.ops.convs import LevelConv, PyramidBlock, SharedConv, init_tower_conv
from sepcbench.ops.norms import NORMS
from sepcbench.ops.pyramid import Pyramid, PyramidPair, resize_bilinear
from sepcbench.specs import PconvSpec, SepcSpec


class PyramidConv(nn.Module):
    """One PConv, equation 1: `y[l] = up(x[l+1]) + same(x[l]) + down(x[l-1])`.

    Three 3x3 kernels, shared by all levels, each with a bias. `up` reads the coarser level and is
    resized bilinearly to level l, `down` reads the finer level with stride 2. The finest level
    has no `down` term and the coarsest no `up` term. With `scale_kernel=1` only `same` is left.
    Deformation is decided by the level l that is computed, whichever level a kernel reads.

    Args:
        in_channels: channels of every level in.
        out_channels: channels of every level out.
        scale_kernel: 3 or 1.
        deform_from: index of the finest level with deformable kernels; None for plain kernels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scale_kernel: int = 3,
        deform_from: int | None = None,
    ) -> None:
        super().__init__()
        self.up = self.down = None
        if scale_kernel == 3:
            self.up = LevelConv(in_channels, out_channels, deform_from=deform_from)
        self.same = LevelConv(in_channels, out_channels, deform_from=deform_from)
        if scale_kernel == 3:
            self.down = LevelConv(in_channels, out_channels, stride=2, deform_from=deform_from)
        for kernel in (self.up, self.same, self.down):
            if kernel is not None:
                init_tower_conv(kernel, across_levels=kernel is not self.same)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        outputs = []
        for level, x in enumerate(pyramid):
            y = self.same(x, level)
            if self.down is not None and level > 0:
                y = y + same_size(self.down(pyramid[level - 1], level), y)
            if self.up is not None and level + 1 < len(pyramid):
                y = y + resize_bilinear(self.up(pyramid[level + 1], level), y)
            outputs.append(y)
        return outputs


class CombinedTower(nn.Module):
    """Figure 5b: PConvs shared by both branches, then one extra 3x3 conv per branch.

    Args:
        spec: of the PConv or SEPC neck.
        in_channels: one per level, all equal.
        scale_kernel: 3 or 1.
        deform_blocks: index of the finest level with deformable PConvs; None for plain ones.
        deform_extra: the same for the extra convs.
    """

    def __init__(
        self,
        spec: PconvSpec | SepcSpec,
        in_channels: Sequence[int],
        scale_kernel: int = 3,
        deform_blocks: int | None = None,
        deform_extra: int | None = None,
    ) -> None:
        super().__init__()
        width, levels = spec.channels, len(in_channels)
        self.spec = spec
        self.out_channels = (width,) * levels
        self.blocks = _blocks(spec, in_channels, scale_kernel, deform_blocks)
        self.cls = _extra(spec, levels, deform_extra)
        self.loc = _extra(spec, levels, deform_extra)

    def forward(self, pyramid: Pyramid) -> PyramidPair:
        shared = self.blocks(pyramid)
        if self.spec.extra_padding == 0:
            check_sizes(shared)
        return PyramidPair(self.cls(shared), self.loc(shared))


class SeparateTower(nn.Module):
    """Figure 5a: PConvs of its own for each branch; with `scale_kernel=1`, RetinaNet's tower."""

    def __init__(self, spec: PconvSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.spec = spec
        self.out_channels = (spec.channels,) * len(in_channels)
        self.cls = _blocks(spec, in_channels, spec.scale_kernel)
        self.loc = _blocks(spec, in_channels, spec.scale_kernel)

    def forward(self, pyramid: Pyramid) -> PyramidPair:
        return PyramidPair(self.cls(pyramid), self.loc(pyramid))


class StandAlone(nn.Module):
    """PConvs alone, pyramid in and pyramid out: the neck after FPN of two-stage detectors."""

    def __init__(self, spec: PconvSpec, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.spec = spec
        self.out_channels = (spec.channels,) * len(in_channels)
        self.blocks = _blocks(spec, in_channels, spec.scale_kernel)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return self.blocks(pyramid)  # type: ignore[no-any-return]


def build_pconv(spec: PconvSpec, in_channels: Sequence[int]) -> nn.Module:
    """Build plain PConvs: a tower that gives a pyramid pair, or stand-alone, a pyramid."""
    if spec.branches == "none":
        return StandAlone(spec, in_channels)
    if spec.branches == "separate":
        return SeparateTower(spec, in_channels)
    return CombinedTower(spec, in_channels, spec.scale_kernel)


def _blocks(
    spec: PconvSpec | SepcSpec,
    in_channels: Sequence[int],
    scale_kernel: int,
    deform_from: int | None = None,
) -> nn.Sequential:
    """`spec.depth` times PConv, norm, ReLU."""
    width = spec.channels
    widths = [_equal(spec, in_channels)] + [width] * spec.depth
    return nn.Sequential(
        *(
            PyramidBlock(
                PyramidConv(before, after, scale_kernel, deform_from),
                NORMS[spec.norm](after, len(in_channels), spec.groups),
            )
            for before, after in pairwise(widths)
        )
    )


def _extra(spec: PconvSpec | SepcSpec, levels: int, deform_from: int | None) -> PyramidBlock:
    """The extra conv of one branch, its norm, ReLU."""
    width = spec.channels
    conv = SharedConv(width, width, padding=spec.extra_padding, deform_from=deform_from)
    return PyramidBlock(conv, NORMS[spec.norm](width, levels, spec.groups))


def _equal(spec: PconvSpec | SepcSpec, in_channels: Sequence[int]) -> int:
    """The channels of every level, which the shared kernels need to be the same."""
    if len(set(in_channels)) != 1:
        raise UsageError(
            f"neck '{spec.TYPE}' needs equal channels on all levels, found "
            f"{', '.join(map(str, in_channels))}; put an fpn before it"
        )
    return in_channels[0]


def same_size(down: Tensor, y: Tensor) -> Tensor:
    """What comes from the finer level, which a stride-2 conv halves, rounded up."""
    if down.shape[2:] != y.shape[2:]:
        found, needed = (f"{int(x.shape[2])}x{int(x.shape[3])}" for x in (y, down))
        raise UsageError(
            f"a PConv needs every level half the size of the finer one, rounded up: {needed}, not "
            f"{found}; pad images to a multiple of the coarsest stride (pad_divisor=128 for P7)"
        )
    return down


def check_sizes(pyramid: Pyramid) -> None:
    """A 3x3 conv without padding needs maps of at least 3x3."""
    for x in pyramid:
        height, width = int(x.shape[2]), int(x.shape[3])
        if height < 3 or width < 3:
            raise UsageError(
                f"extra_padding=0 needs every level at least 3x3, but one is {height}x{width}; "
                "use a larger image or extra_padding=1"
            )
