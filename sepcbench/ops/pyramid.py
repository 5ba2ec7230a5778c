"""Feature pyramids: lists of maps of one image batch, finest first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Pyramid = list[Tensor]


class PyramidPair(NamedTuple):
    """One pyramid for classification and one for localisation, level by level of equal size."""

    cls: Pyramid
    loc: Pyramid


def as_pair(pyramid: Pyramid | PyramidPair) -> PyramidPair:
    """Use one pyramid for both branches, or a pair as it is."""
    return pyramid if isinstance(pyramid, PyramidPair) else PyramidPair(pyramid, pyramid)


def join_cells(pyramid: Pyramid) -> Tensor:
    """Put the cells of all levels side by side: levels (N, C, H, W) -> (N, C, sum of H*W)."""
    return torch.cat([level.flatten(2) for level in pyramid], dim=2)


def split_cells(cells: Tensor, like: Pyramid) -> Pyramid:
    """Undo `join_cells`: (N, C, sum of H*W) -> levels of the sizes of `like`."""
    parts = cells.split([level.shape[2] * level.shape[3] for level in like], dim=2)
    return [part.unflatten(2, level.shape[2:]) for part, level in zip(parts, like)]


def resize_nearest(x: Tensor, like: Tensor) -> Tensor:
    """Upsample by nearest neighbour to the exact size of `like`, as FPN does."""
    return F.interpolate(x, size=like.shape[2:], mode="nearest")


def resize_bilinear(x: Tensor, like: Tensor) -> Tensor:
    """Upsample bilinearly with aligned corners to the exact size of `like`, as PConv does."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)
