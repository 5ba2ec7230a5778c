"""Several levels on one map with zeros between them, so that one conv works for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.ops.held import hand_out
from sepcbench.ops.pyramid import Pyramid

Size = tuple[int, int]


class Layout(NamedTuple):
    """Where levels lie: the first at the left, the others below each other at its right.

    Corners are even and every level has a row and a column of zeros behind it, or the edge. So
    3x3 convs of stride 1 and 2 with padding 1 see what they see of each level alone.

    Attributes:
        corners: (top, left) of each level.
        sizes: (height, width) of each level.
        size: (height, width) of the canvas.
    """

    corners: tuple[Size, ...]
    sizes: tuple[Size, ...]
    size: Size

    def after(self, stride: int, padding: int) -> Layout:
        """Where the outputs of a 3x3 conv over the canvas lie."""

        def out(sides: Size) -> Size:
            height, width = ((side + 2 * padding - 3) // stride + 1 for side in sides)
            return height, width

        corners = tuple((top // stride, left // stride) for top, left in self.corners)
        return Layout(corners, tuple(map(out, self.sizes)), out(self.size))


class PackedPyramid(list[Tensor]):
    """A pyramid whose levels but the finest lie on a canvas.

    Attributes:
        canvas: (N, C, H, W).
        layout: of the canvas.
        clean: whether the canvas is 0 between the levels, as convs over it need.
    """

    def __init__(self, finest: Tensor, canvas: Tensor, layout: Layout, clean: bool) -> None:
        super().__init__([finest, *cut(canvas, layout)])
        self.canvas, self.layout, self.clean = canvas, layout, clean


@lru_cache(maxsize=64)
def lay_out(sizes: tuple[Size, ...]) -> Layout:
    """Lay out levels, finest first."""
    (height, width), *others = sizes
    corners, top, left, right = [(0, 0)], 0, _even(width + 1), width
    for rows, columns in others:
        corners.append((top, left))
        height, right = max(height, top + rows), max(right, left + columns)
        top = _even(top + rows + 1)
    return Layout(tuple(corners), sizes, (height, right))


def pack(levels: Sequence[Tensor]) -> tuple[Tensor, Layout]:
    """Copy levels (N, C, H, W) to a canvas in the memory format of the first."""
    layout = lay_out(tuple((int(x.shape[2]), int(x.shape[3])) for x in levels))
    first = levels[0]
    canvas = torch.empty(
        (*first.shape[:2], *layout.size),
        dtype=first.dtype,
        device=first.device,
        memory_format=torch.contiguous_format if first.is_contiguous() else torch.channels_last,
    ).zero_()
    for place, level in zip(cut(canvas, layout), levels):
        place.copy_(level)
    return canvas, layout


def cut(canvas: Tensor, layout: Layout) -> Pyramid:
    """The levels on a canvas, as views of it."""
    return [
        canvas[:, :, top : top + height, left : left + width]
        for (top, left), (height, width) in zip(layout.corners, layout.sizes)
    ]


def rectified(pyramid: Pyramid) -> Pyramid:
    """ReLU, in place where that leaves no gaps in memory; cleans a canvas in the same step."""
    if not isinstance(pyramid, PackedPyramid):
        return [_relu(level) for level in pyramid]
    canvas = pyramid.canvas
    limits = _limits(pyramid.layout, canvas.dtype, canvas.device)
    hand_out(*limits)
    canvas = canvas.clamp(*limits)
    return PackedPyramid(_relu(pyramid[0]), canvas, pyramid.layout, clean=True)


def _relu(x: Tensor) -> Tensor:
    """What is a slice of a conv's channels is copied, as the next conv would do otherwise."""
    dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return F.relu_(x) if dense else F.relu(x)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _limits(layout: Layout, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Limits of the values of a canvas, (1) and (1, 1, H, W): 0 to infinity, 0 between levels."""
    high = torch.zeros(1, 1, *layout.size, dtype=dtype, device=device)
    for level in cut(high, layout):
        level.fill_(float("inf"))
    return torch.zeros(1, dtype=dtype, device=device), high


def _even(n: int) -> int:
    return n + n % 2
