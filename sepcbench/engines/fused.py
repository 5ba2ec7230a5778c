"""Fast twins of the pyramid modules: the same outputs in fewer and cheaper steps.

Which steps a device takes is a table, `STEPS`; what was predicted and measured of each is in
docs/performance.md. Nothing here waits for a device or depends on values, so that a CUDA graph can
record it, and maps may be contiguous or channels last.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from sepcbench.engines.canvas import rectified
from sepcbench.engines.folding import FoldedBlock
from sepcbench.engines.reading import Reading, Steps
from sepcbench.heads.rep_points import PointConv
from sepcbench.necks.pconv import CombinedTower, PyramidConv, check_sizes, same_size
from sepcbench.necks.sepc import Sepc
from sepcbench.ops.convs import PyramidBlock, SharedConv
from sepcbench.ops.deformable import DeformableConv
from sepcbench.ops.fast_deformable import fast_deform_conv2d
from sepcbench.ops.pyramid import Pyramid, PyramidPair, resize_bilinear

STEPS: dict[str, Steps] = {
    "cpu": Steps(join=False, pack=False),
    "cuda": Steps(join=True, pack=True),  # not measured yet
}
"""From the type of a device to the steps that pay on it."""


def fuse(detector: nn.Module, steps: Steps | None = None) -> nn.Module:
    """Replace, in place, the pyramid modules and deformable convs of a detector by fast twins.

    Args:
        detector: in eval mode. Of its norms those that folding left as `NoNorm` cost nothing; any
            other is kept.
        steps: which to take; by default those of `STEPS` for its device.

    Returns:
        The same detector. Its outputs are right for inference only.
    """
    if steps is None:
        steps = STEPS.get(next(detector.parameters()).device.type, STEPS["cuda"])
    for name, child in detector.named_children():
        make = TWINS.get(type(child))
        if make is None:
            fuse(child, steps)
        else:
            setattr(detector, name, make(child, steps).eval())
    return detector


class FastPyramidConv(nn.Module):
    """`PyramidConv`: all kernels that read a level at once, sums in place."""

    def __init__(self, plain: PyramidConv, steps: Steps) -> None:
        super().__init__()
        kernels = [plain.same] if plain.up is None else [plain.same, plain.up]
        self.read = Reading(kernels, range(len(kernels)), steps)
        self.halve = None if plain.down is None else Reading([plain.down], [-1], steps)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        outputs, *coarser = self.read(pyramid)
        if self.halve is not None:
            for y, finer in zip(outputs[1:], self.halve(pyramid)[0]):
                y += same_size(finer, y)
        for up in coarser:
            for y, x in zip(outputs, up):
                y += resize_bilinear(x, y)
        return outputs


class FastSharedConv(nn.Module):
    """`SharedConv`."""

    def __init__(self, plain: SharedConv, steps: Steps) -> None:
        super().__init__()
        self.read = Reading([plain], [0], steps)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return self.read(pyramid)[0]


class FastPyramidBlock(nn.Module):
    """`PyramidBlock` of a conv that has a twin: ReLU in place, on a canvas in one step."""

    def __init__(self, plain: PyramidBlock, steps: Steps) -> None:
        super().__init__()
        self.conv = TWINS[type(plain.conv)](plain.conv, steps)
        self.norm = plain.norm

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return rectified(self.norm(self.conv(pyramid)))


class FastCombinedTower(nn.Module):
    """`CombinedTower`: the extra convs of both branches at once."""

    def __init__(self, plain: CombinedTower, steps: Steps) -> None:
        super().__init__()
        self.spec, self.out_channels = plain.spec, plain.out_channels
        self.blocks = fuse(plain.blocks, steps)
        branches = [plain.cls, plain.loc]
        self.read = Reading([branch.conv for branch in branches], [0, 0], steps)  # type: ignore
        self.norms = nn.ModuleList(branch.norm for branch in branches)

    def forward(self, pyramid: Pyramid) -> PyramidPair:
        shared = self.blocks(pyramid)
        if self.spec.extra_padding == 0:
            check_sizes(shared)
        pair = zip(self.norms, self.read(shared))
        return PyramidPair(*(rectified(norm(maps)) for norm, maps in pair))


class FastDeformableConv(nn.Module):
    """`DeformableConv`, v1 or v2."""

    def __init__(self, plain: DeformableConv) -> None:
        super().__init__()
        self.conv = plain

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        read = conv.offset(x)
        moves = 2 * conv.kernel_size[0] * conv.kernel_size[1]
        mask = read[:, moves:].sigmoid() if read.shape[1] > moves else None
        return _deformed(conv, x, read[:, :moves], mask)


class FastPointConv(nn.Module):
    """`PointConv`."""

    def __init__(self, plain: PointConv) -> None:
        super().__init__()
        self.conv = plain

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return _deformed(self.conv, x, offset)


def _deformed(conv: nn.Conv2d, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
    sides = conv.stride, conv.padding
    return fast_deform_conv2d(x, offset, conv.weight, conv.bias, *sides, mask)  # type: ignore


def _fast_block(plain: nn.Module, steps: Steps) -> nn.Module:
    """Only of convs with a twin, whose outputs may be overwritten."""
    if isinstance(plain, PyramidBlock) and type(plain.conv) in (PyramidConv, SharedConv):
        return FastPyramidBlock(plain, steps)
    return fuse(plain, steps)


def _fast_tower(plain: nn.Module, steps: Steps) -> nn.Module:
    """Not of towers whose extra convs have been exchanged."""
    branches = (plain.cls, plain.loc)
    if all(type(branch.conv) is SharedConv for branch in branches):  # type: ignore[union-attr]
        return FastCombinedTower(plain, steps)  # type: ignore[arg-type]
    return fuse(plain, steps)


TWINS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    CombinedTower: _fast_tower,
    Sepc: _fast_tower,
    PyramidBlock: _fast_block,
    FoldedBlock: _fast_block,
    PyramidConv: FastPyramidConv,
    SharedConv: FastSharedConv,
    DeformableConv: lambda plain, steps: FastDeformableConv(plain),
    PointConv: lambda plain, steps: FastPointConv(plain),
}
"""From a module's type to the builder `(module, steps) -> twin`."""
