"""Batch norms with fixed statistics, folded into the convs before them.

A batch norm at test time is `scale * x + shift` per channel, and a conv is linear in its weights
and bias: the conv can do both. Sums are made in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized
from torchvision.ops import FrozenBatchNorm2d

from sepcbench.engines.recognition import watching
from sepcbench.errors import EngineError
from sepcbench.necks.pconv import PyramidConv
from sepcbench.ops.convs import LevelConv, PyramidBlock, SharedConv
from sepcbench.ops.deformable import DeformableConv
from sepcbench.ops.norms import FrozenNorm, IndependentNorm, IntegratedNorm, NoNorm, SingleNorm
from sepcbench.ops.pyramid import Pyramid

# Images to watch the modules on: P7 is 1x1; 3x3, which convs without padding need; what networks
# that take one size take most often.
_SIDES = (128, 384, 224)
_LINEAR = (nn.Conv2d.forward, DeformableConv.forward)  # forwards that are linear in the weights
_PYRAMID_NORMS = (IntegratedNorm, SingleNorm, FrozenNorm)


class Affine(NamedTuple):
    """`scale * x + shift` per channel, (C,) in float64."""

    scale: Tensor
    shift: Tensor


class FoldedBlock(PyramidBlock):
    """A block whose ReLU overwrites what its conv has made."""

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return [F.relu_(level) for level in self.norm(self.conv(pyramid))]


def fold(detector: nn.Module) -> nn.Module:
    """Fold all batch norms of a detector in eval mode that can be, in place.

    Of backbone, fusing necks and box head: those that alone read a conv's output. Of pyramid
    blocks: iBN, single BN and fixed statistics. Independent BN, whose convs are shared by levels
    with different scales, and GN, whose statistics are of the input, stay.

    Raises:
        EngineError: the detector is in training mode, or cannot run on images.
    """
    if detector.training:
        raise EngineError("only a detector in eval mode can be folded; call .eval() first")
    with torch.no_grad():
        for conv, norm in conv_norm_pairs(detector):
            fold_into(conv, affine_of(norm))
            _replace(detector, norm, _after(norm))
        for block in [part for part in detector.modules() if type(part) is PyramidBlock]:
            _replace(detector, block, folded_block(block))
    return detector


def conv_norm_pairs(detector: nn.Module) -> list[tuple[nn.Conv2d, nn.Module]]:
    """Convs and the batch norms that alone read them, seen while the detector runs on zeros."""
    if not any(_is_norm(part) for part in _outside_pyramid_norms(detector)):
        return []
    like = next(detector.parameters())
    reasons = []
    for side in _SIDES:
        try:
            with watching(detector, _is_conv, _is_norm) as watch:
                watch.given_out(detector(like.new_zeros(1, 3, side, side)))
            return watch.pairs()  # type: ignore[return-value]
        except Exception as error:  # of a user's own module it can be any
            reasons.append(" ".join(str(error).split())[:200] or type(error).__name__)
    raise EngineError(
        f"cannot fold what does not run on {_SIDES[0]}x{_SIDES[0]} images: {reasons[0]}"
    )


def affine_of(norm: Any) -> Affine:
    """What a batch norm does with its running statistics."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return Affine(scale, shift)


def fold_into(conv: nn.Conv2d, affine: Affine, shift: bool = True) -> None:
    """Make a conv give what the norm gave after it.

    Args:
        conv: changed in place.
        affine: of the norm, one scale and shift per output channel.
        shift: False where several convs are added up, and another one has the shift.
    """
    weight, bias = conv.weight, conv.bias
    scaled = weight.double() * affine.scale[:, None, None, None]
    conv.weight = _parameter(scaled, weight)
    if bias is None and not shift:
        return
    moved = torch.zeros_like(affine.scale) if bias is None else bias.double() * affine.scale
    conv.bias = _parameter(moved + affine.shift if shift else moved, weight)


def folded_block(block: PyramidBlock) -> FoldedBlock:
    """The block with its norm in its conv where it can be, and its ReLU in place."""
    kernels = _kernels(block.conv)
    if kernels and isinstance(block.norm, _PYRAMID_NORMS):
        affine = affine_of(block.norm)
        for kernel, shift in kernels:
            fold_into(kernel, affine, shift)
        return FoldedBlock(block.conv, NoNorm()).eval()
    return FoldedBlock(block.conv, block.norm).eval()


def _kernels(conv: nn.Module) -> list[tuple[LevelConv, bool]]:
    """The kernels of a conv over a pyramid, and whether the shift of a norm goes into each.

    Every level has the term of `same`; at the ends those of `up` or `down` are missing. Scaling
    commutes with the bilinear resize of `up`.
    """
    if isinstance(conv, SharedConv):
        return [(conv, True)]
    if isinstance(conv, PyramidConv):
        return [
            (kernel, kernel is conv.same)
            for kernel in (conv.up, conv.same, conv.down)
            if kernel is not None
        ]
    return []


def _is_conv(part: nn.Module) -> bool:
    plain = isinstance(part, nn.Conv2d) and type(part).forward in _LINEAR
    return plain and not is_parametrized(part) and not part._forward_pre_hooks


def _is_norm(part: nn.Module) -> bool:
    if isinstance(part, FrozenBatchNorm2d):
        return True
    fixed = isinstance(part, _BatchNorm) and not part.training and part.running_var is not None
    return fixed and not isinstance(part, _PYRAMID_NORMS)


def _outside_pyramid_norms(part: nn.Module) -> Iterator[nn.Module]:
    """All modules inside, but for the batch norms of single levels."""
    yield part
    for child in part.children() if not isinstance(part, IndependentNorm) else ():
        yield from _outside_pyramid_norms(child)


def _after(norm: nn.Module) -> nn.Module:
    """What is left of a batch norm: nothing, or the activation that timm puts into it."""
    rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    for part in rest:
        if isinstance(part, nn.ReLU):
            part.inplace = True
    return nn.Sequential(*rest).eval() if rest else nn.Identity().eval()


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in root.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.dtype), requires_grad=False)
