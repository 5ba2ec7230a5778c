"""The fastest deformable conv there is here for a device and a dtype, forward alone.

Which one computes (`way`), and why:

=======  ===================================  ============================================
device   case                                 way
=======  ===================================  ============================================
any      groups, several offset groups, or    torchvision: nothing else has them, nor a
         gradients are wanted                 backward
CUDA     triton is there, fp32, fp16 or       triton: no columns, all levels in one launch
         bf16, an NVIDIA card of capability
         8.0 or newer
CPU      fp32, fp16, bf16                     gathered: a gather of rows and one product for
                                              all levels
=======  ===================================  ============================================

torchvision where no line fits, in float32 where it has not the dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from sepcbench.ops import triton_deformable
from sepcbench.ops.gathered import gathered_levels

Pair = tuple[int, int]
Way = Literal["triton", "gathered", "torchvision"]
_TENSOR_CORES = (8, 0)  # the oldest capability that triton multiplies float32 and bfloat16 on


def fast_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    mask: Tensor | None = None,
    *,
    relu: bool = False,
) -> Tensor:
    """Compute what `torchvision.ops.deform_conv2d` computes, by `way`.

    Args:
        x: (N, C, H, W).
        offset: (N, 2 * kh * kw, h, w), (dy, dx) of each tap in cells, taps by row.
        weight: (O, C / groups, kh, kw).
        bias: (O,) or None.
        stride: (y, x).
        padding: (y, x).
        mask: (N, kh * kw, h, w), what each sampled value is multiplied by; None for 1.
        relu: whether the output is cut off at 0.

    Returns:
        (N, O, h, w).
    """
    masks = None if mask is None else [mask]
    return fast_deform_levels([x], [offset], weight, bias, stride, padding, masks, relu=relu)[0]


def fast_deform_levels(
    xs: Sequence[Tensor],
    offsets: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    masks: Sequence[Tensor] | None = None,
    *,
    relu: bool = False,
) -> list[Tensor]:
    """Convolve several levels (N, C, H, W) with the same weights; with triton in one launch.

    Args:
        xs: (N, C, H, W) of each level.
        offsets: of each level, as are the `masks`; all else as in `fast_deform_conv2d`.
    """
    if not xs:
        return []
    chosen = way(xs[0], offsets[0], weight)
    if chosen == "triton":
        return triton_deformable.triton_deform_levels(
            xs, offsets, weight, bias, stride, padding, masks, relu=relu
        )
    if chosen == "gathered":
        found = gathered_levels(xs, offsets, weight, bias, stride, padding, masks)
    else:
        given: Sequence[Tensor | None] = masks or [None] * len(xs)
        found = [
            _torchvision(x, offset, weight, bias, stride, padding, mask)
            for x, offset, mask in zip(xs, offsets, given, strict=True)
        ]
    return [F.relu_(out) for out in found] if relu else found


def way(x: Tensor, offset: Tensor, weight: Tensor) -> Way:
    """Which function computes it: the table above."""
    taps = weight.shape[2] * weight.shape[3]
    plain = weight.shape[1] == x.shape[1] and offset.shape[1] == 2 * taps
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (x, offset, weight))
    if not plain or training:
        return "torchvision"
    if x.dtype not in triton_deformable.DTYPES:
        return "torchvision"
    if x.device.type == "cpu":
        return "gathered"
    return "triton" if _has_triton(x.device) else "torchvision"


@cache
def _has_triton(device: torch.device) -> bool:
    nvidia = device.type == "cuda" and torch.version.hip is None
    if not nvidia or not triton_deformable.available():
        return False
    return torch.cuda.get_device_capability(device) >= _TENSOR_CORES


def _torchvision(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    mask: Tensor | None,
) -> Tensor:
    """torchvision has no bfloat16."""
    tensors = [x, offset, weight, bias, mask]
    if x.dtype == torch.bfloat16:
        tensors = [None if one is None else one.float() for one in tensors]
    x_, offset_, weight_, bias_, mask_ = tensors
    found = deform_conv2d(x_, offset_, weight_, bias_, stride, padding, mask=mask_)  # type: ignore
    return found.to(x.dtype)
