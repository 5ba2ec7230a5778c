"""OpenCV's bilinear resizing of bytes, to the bit: what mmdetection's pipelines were trained on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_ONE = 2048  # weights have 11 bits after the point


class _Taps(NamedTuple):
    """The two pixels that each output pixel lies between, and their weights: four tensors (n,)."""

    first: Tensor
    second: Tensor
    first_weight: Tensor
    second_weight: Tensor


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize as `cv2.resize` with INTER_LINEAR: fixed point, no antialiasing, half-pixel centres.

    Results are about an eighth of a grey level below exact ones, as OpenCV cuts bits off.

    Args:
        image: (C, H, W) uint8.
        size: (h, w).
    """
    down = _taps(image.shape[1], size[0])
    along = _taps(image.shape[2], size[1], whole_borders=True)
    pixels = image.int()
    rows = pixels[:, :, along.first] * along.first_weight
    rows += pixels[:, :, along.second] * along.second_weight
    rows >>= 4
    above = (rows[:, down.first] * down.first_weight[:, None]) >> 16
    below = (rows[:, down.second] * down.second_weight[:, None]) >> 16
    return ((above + below + 2) >> 2).to(torch.uint8)


def _taps(inner: int, outer: int, whole_borders: bool = False) -> _Taps:
    """Beyond the border both pixels are the last; only along rows that is one pixel, weighed 1."""
    position = ((torch.arange(outer, dtype=torch.float64) + 0.5) * (inner / outer) - 0.5).float()
    first = position.floor()
    share = position - first
    if whole_borders:
        share[(first < 0) | (first >= inner - 1)] = 0
    weights = ((1 - share) * _ONE).round().int(), (share * _ONE).round().int()
    first = first.long()
    return _Taps(first.clamp(0, inner - 1), (first + 1).clamp(0, inner - 1), *weights)
