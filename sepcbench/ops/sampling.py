"""A deformable convolution by `grid_sample`: the one to train with on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]


def sampled_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    mask: Tensor | None = None,
) -> Tensor:
    """Compute what `torchvision.ops.deform_conv2d` computes, forward and backward.

    torchvision's backward on a CPU is a scalar loop, some ten times slower than this. Values
    outside the map are 0 in both.

    Args:
        x: (N, C, H, W).
        offset: (N, 2 * kh * kw, h, w), (dy, dx) of each tap in cells, taps by row.
        weight: (O, C / groups, kh, kw).
        bias: (O,) or None.
        stride: (y, x).
        padding: (y, x).
        mask: (N, kh * kw, h, w), what each sampled value is multiplied by; None for 1.

    Returns:
        (N, O, h, w).
    """
    batch, channels, height, width = x.shape
    rows, columns = weight.shape[2:]
    out_height, out_width = offset.shape[2:]
    taps = rows * columns
    # where tap (r, c) reads for output cell (i, j): (taps, h, w), then the offsets on top
    y = _places(rows, out_height, stride[0], padding[0], x)[:, None, :, None]
    z = _places(columns, out_width, stride[1], padding[1], x)[None, :, None, :]
    shape = (rows, columns, out_height, out_width)
    moved = offset.reshape(batch, taps, 2, out_height, out_width)
    y = y.expand(shape).flatten(0, 1) + moved[:, :, 0]
    z = z.expand(shape).flatten(0, 1) + moved[:, :, 1]
    # cells to the -1..1 of grid_sample, where -1 is the outer edge of the first cell
    grid = torch.stack([(2 * z + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    values = F.grid_sample(x, grid.flatten(1, 2), align_corners=False)  # (N, C, taps * h, w)
    if mask is not None:
        values = values * mask.reshape(batch, 1, taps * out_height, out_width)
    groups = channels // weight.shape[1]
    # (N, groups, C / groups * taps, h * w), times (groups, O / groups, C / groups * taps)
    inputs = channels // groups * taps
    gathered = values.reshape(batch, groups, inputs, out_height * out_width)
    out = torch.matmul(weight.flatten(1).unflatten(0, (groups, -1)), gathered)
    out = out.reshape(batch, weight.shape[0], out_height, out_width)
    return out if bias is None else out + bias[:, None, None]


def _places(taps: int, cells: int, stride: int, padding: int, like: Tensor) -> Tensor:
    """Where each tap reads for each output cell without offsets, (taps, cells)."""
    first = torch.arange(cells, device=like.device, dtype=like.dtype) * stride - padding
    return first + torch.arange(taps, device=like.device, dtype=like.dtype)[:, None]
