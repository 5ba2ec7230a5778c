"""Anchor boxes (xyxy) and points, in pixels of the resized image, as several codebases lay them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sepcbench.specs import Conventions


def octave_sizes(stride: int, base_scale: float, per_octave: int, how: Conventions) -> list[float]:
    """The anchor sizes of one level: `base_scale * stride * 2^(i / per_octave)` pixels."""
    sizes = [base_scale * stride * 2 ** (i / per_octave) for i in range(per_octave)]
    return [float(int(size)) for size in sizes] if how.anchor_sizes == "truncated" else sizes


def cell_anchors(
    stride: int, sizes: Sequence[float], ratios: Sequence[float], how: Conventions
) -> Tensor:
    """The anchors of the first cell of a level.

    Args:
        stride: of the level, in pixels.
        sizes: square roots of the anchors' areas, in pixels.
        ratios: height / width.
        how: fields `anchor_centre` and `anchor_rounding`.

    Returns:
        (ratios * sizes, 4) float32, ratios outer, sizes inner.
    """
    shapes = [
        (size / math.sqrt(ratio), size * math.sqrt(ratio)) for ratio in ratios for size in sizes
    ]
    wh = torch.tensor(shapes, dtype=torch.float64, device="cpu")
    if how.anchor_centre == "pixel":
        centre, half = 0.5 * (stride - 1), 0.5 * (wh - 1)
    else:
        centre, half = 0.0, 0.5 * wh
    anchors = torch.cat([centre - half, centre + half], dim=1)
    if how.anchor_rounding == "corners":
        anchors = anchors.round()  # halves to even
    return anchors.float()


def grid_anchors(cell: Tensor, size: tuple[int, int], step: tuple[int, int]) -> Tensor:
    """Lay the anchors of one cell over a map.

    Args:
        cell: (A, 4).
        size: (height, width) of the map, in cells.
        step: (vertical, horizontal) step of the grid, in pixels.

    Returns:
        (height * width * A, 4): by row, column, anchor. The first cell is at 0.
    """
    y = torch.arange(size[0], device=cell.device, dtype=cell.dtype) * step[0]
    x = torch.arange(size[1], device=cell.device, dtype=cell.dtype) * step[1]
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1)  # (H, W, 4)
    return (shifts[:, :, None] + cell).flatten(0, 2)


def grid_points(
    stride: int,
    size: tuple[int, int],
    step: tuple[int, int],
    how: Conventions,
    device: torch.device | None = None,
) -> Tensor:
    """Lay one point per cell over a map.

    Args:
        stride: of the level, in pixels.
        size: (height, width) of the map, in cells.
        step: (vertical, horizontal) step of the grid, in pixels.
        how: field `point_offset`.
        device: of the points; by default torch's own.

    Returns:
        (height * width, 2) as (x, y), by row and column.
    """
    offset = {"half": stride / 2, "half_floor": stride // 2, "zero": 0}[how.point_offset]
    y = torch.arange(size[0], dtype=torch.float32, device=device) * step[0] + offset
    x = torch.arange(size[1], dtype=torch.float32, device=device) * step[1] + offset
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def grid_step(
    stride: int, size: tuple[int, int], padded: tuple[int, int], how: Conventions
) -> tuple[int, int]:
    """The step of a level's grid: its stride, or the padded image size // the map size."""
    if how.anchor_step == "stride":
        return stride, stride
    return padded[0] // size[0], padded[1] // size[1]


def pyramid_anchors(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    sizes: Sequence[Sequence[float]],
    ratios: Sequence[float],
    padded: tuple[int, int],
    how: Conventions,
) -> list[Tensor]:
    """Lay anchors over every level of a pyramid.

    Args:
        maps: (N, C, H, W) of each level, for its size and device.
        strides: of the levels, in pixels.
        sizes: of the anchors of each level, in pixels, as in `cell_anchors`.
        ratios: height / width.
        padded: (height, width) of the padded batch, in pixels.
        how: as in `cell_anchors` and `grid_step`.

    Returns:
        (H * W * ratios * sizes, 4) of each level, in the order of `grid_anchors`.
    """
    grids = []
    for x, stride, of_level in zip(maps, strides, sizes, strict=True):
        size = (x.shape[2], x.shape[3])
        cell = cell_anchors(stride, of_level, ratios, how).to(x.device)
        grids.append(grid_anchors(cell, size, grid_step(stride, size, padded, how)))
    return grids


def pyramid_points(
    maps: Sequence[Tensor], strides: Sequence[int], padded: tuple[int, int], how: Conventions
) -> list[Tensor]:
    """Lay one point per cell over every level of a pyramid.

    Args:
        maps: (N, C, H, W) of each level, for its size and device.
        strides: of the levels, in pixels.
        padded: (height, width) of the padded batch, in pixels.
        how: as in `grid_points` and `grid_step`.

    Returns:
        (H * W, 2) of each level, in the order of `grid_points`.
    """
    grids = []
    for x, stride in zip(maps, strides, strict=True):
        size = (x.shape[2], x.shape[3])
        step = grid_step(stride, size, padded, how)
        grids.append(grid_points(stride, size, step, how, x.device))
    return grids
