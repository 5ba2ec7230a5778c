"""Regions of interest: which level of a pyramid a box is read from, and its features there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from sepcbench.ops.boxes import centres_and_sizes
from sepcbench.ops.pyramid import Pyramid
from sepcbench.specs import Conventions

_CANONICAL_LEVEL = 4  # of a box as large as canonical_size (arXiv 1612.03144, equation 1)
_FINEST = 2
# so that sizes of exactly a power of two of the canonical size belong to the coarser level
_EPS = 1e-6


def roi_levels(
    boxes: Tensor, canonical_size: float, levels: Sequence[int], how: Conventions
) -> Tensor:
    """The level of each box: floor(4 + log2(sqrt(wh) / canonical_size)) (arXiv 1612.03144, eq. 1).

    Args:
        boxes: (r, 4).
        canonical_size: what belongs to level 4, in pixels.
        levels: those there are, such as (2, 3, 4, 5); boxes beyond go to the nearest.
        how: field `box_offset`.

    Returns:
        (r,) int64 indices into `levels`.
    """
    _, sizes = centres_and_sizes(boxes, how.box_offset)
    side = sizes.prod(dim=1).clamp(min=0).sqrt()
    smallest = canonical_size / 2 ** (_CANONICAL_LEVEL - _FINEST)
    level = _FINEST + torch.log2(side / smallest + _EPS).floor()
    return level.clamp(levels[0], levels[-1]).long() - levels[0]


def pool_rois(x: Tensor, boxes: Tensor, stride: int, size: int, how: Conventions) -> Tensor:
    """RoIAlign on one level (arXiv 1703.06870, section 3).

    Args:
        x: (N, C, H, W).
        boxes: (r, 5): index of the image, then xyxy in pixels.
        stride: of the level, in pixels.
        size: bins per side.
        how: fields `roi_aligned`, `roi_samples`, `roi_min_cells`, `box_offset`.

    Returns:
        (r, C, size, size).
    """
    if how.box_offset:
        # x2, y2 are whole pixels that belong to the box
        boxes = boxes + boxes.new_tensor([0, 0, 0, how.box_offset, how.box_offset])
    aligned = how.roi_aligned
    if not aligned and not how.roi_min_cells:
        # torchvision widens what is not aligned; the same cells without that are half a cell on
        half = stride / 2
        boxes, aligned = boxes + boxes.new_tensor([0, half, half, half, half]), True
    half_precision = x.dtype in (torch.float16, torch.bfloat16)
    maps = x.float() if half_precision else x
    samples = how.roi_samples or -1
    rois = boxes.to(maps.device, maps.dtype)
    return roi_align(maps, rois, size, 1 / stride, samples, aligned).to(x.dtype)


def pool_pyramid(
    pyramid: Pyramid,
    boxes: Tensor,
    strides: Sequence[int],
    size: int,
    canonical_size: float,
    how: Conventions,
) -> Tensor:
    """RoIAlign of every box on the level of its size.

    Args:
        pyramid: levels (N, C, H, W), those that RoIs are read from.
        boxes: (r, 5): index of the image, then xyxy in pixels.
        strides: of the levels, in pixels.
        size: bins per side.
        canonical_size: as in `roi_levels`.
        how: as in `roi_levels` and `pool_rois`.

    Returns:
        (r, C, size, size), in the order of the boxes.
    """
    numbers = [stride.bit_length() - 1 for stride in strides]
    index = roi_levels(boxes[:, 1:], canonical_size, numbers, how)
    rows = [(index == i).nonzero().squeeze(1) for i in range(len(pyramid))]
    pooled = [
        pool_rois(level, boxes[chosen], stride, size, how)
        for level, chosen, stride in zip(pyramid, rows, strides, strict=True)
    ]
    back = torch.cat(rows).argsort().to(pyramid[0].device)
    return torch.cat(pooled)[back]


def join_images(boxes: Sequence[Tensor], like: Tensor) -> Tensor:
    """Boxes of several images in one tensor: per image (r_i, 4) -> (r, 5), image index first.

    Args:
        boxes: per image.
        like: for dtype and device where there is no image.
    """
    rows = [torch.cat([b.new_full((len(b), 1), i), b], dim=1) for i, b in enumerate(boxes)]
    return torch.cat(rows) if rows else like.new_zeros(0, 5)
