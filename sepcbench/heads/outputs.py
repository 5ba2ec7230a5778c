"""What heads give: raw maps per level, and boxes per image."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LevelOutput(NamedTuple):
    """Raw predictions of one level.

    `cls` (N, A*K, H, W) are logits, channel = anchor * classes + class; `box` (N, A*4, H, W) are
    deltas, channel = anchor * 4 + coordinate.
    """

    cls: Tensor
    box: Tensor


class Detections(NamedTuple):
    """Detections of one image: `boxes` (n, 4) xyxy, `scores` (n,), `labels` (n,) 0-based."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def cells_first(maps: Tensor, size: int) -> Tensor:
    """Bring a map's predictions into anchor order: (N, A*size, H, W) -> (N, H*W*A, size)."""
    split = maps.unflatten(1, (-1, size))  # (N, A, size, H, W)
    return split.permute(0, 3, 4, 1, 2).flatten(1, 3)
