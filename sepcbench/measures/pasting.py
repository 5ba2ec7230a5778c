"""Masks of boxes, as a mask head gives them, into masks of whole images."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def paste(mask: Tensor, box: Tensor, size: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Paste one mask into an image: bilinear between the centres of its cells, zeros around them.

    As mmdetection and detectron2 do: boxes keep their fractions (torchvision rounds them).

    Args:
        mask: (m, m) probabilities in the m x m cells of the box.
        box: (4,) xyxy in pixels of the image.
        size: (h, w) of the image.
        threshold: pixels whose centre has at least this probability belong to the object.

    Returns:
        (h, w) bool.
    """
    canvas = torch.zeros(size, dtype=torch.bool)
    rows, down = _positions(box[1], box[3], mask.shape[0], size[0])
    columns, along = _positions(box[0], box[2], mask.shape[1], size[1])
    if rows.start == rows.stop or columns.start == columns.stop:
        return canvas
    y, x = torch.meshgrid(down, along, indexing="ij")
    grid = torch.stack([x, y], dim=-1)[None].to(mask.dtype)
    soft = F.grid_sample(mask[None, None], grid, align_corners=False)  # zeros beyond the border
    canvas[rows, columns] = soft[0, 0] >= threshold
    return canvas


def _positions(low: Tensor, high: Tensor, cells: int, pixels: int) -> tuple[slice, Tensor]:
    """Along one axis: the pixels that the mask reaches, and where their centres are in the box.

    -1 is the box's low side and 1 its high one. The mask reaches half a cell beyond both.
    """
    first, extent = float(low), float(high - low)
    if not extent > 0:
        return slice(0, 0), low.new_zeros(0)
    reach = extent / cells / 2
    start = min(max(math.floor(first - reach), 0), pixels)
    stop = max(min(math.ceil(first + extent + reach), pixels), start)
    centres = torch.arange(start, stop, dtype=torch.float64) + 0.5
    return slice(start, stop), (centres - first) / extent * 2 - 1
