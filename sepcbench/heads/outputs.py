"""What heads give: raw maps per level, and boxes per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class LevelOutput(NamedTuple):
    """Raw predictions of one level.

    `cls` (N, A*K, H, W) are logits, channel = anchor * classes + class; `box` (N, A*4, H, W) are
    deltas, channel = anchor * 4 + coordinate. `centerness` (N, A, H, W) are logits (FCOS, ATSS).
    `points` (N, 2 * points, H, W) are the points that `box` was refined from (RepPoints).
    """

    cls: Tensor
    box: Tensor
    centerness: Tensor | None = None
    points: Tensor | None = None


class Scene(NamedTuple):
    """What a second stage has to know of the images.

    `padded` (h, w) of the batch, `sizes` (h, w) of each resized image without padding, and
    `proposals`, per image boxes (r, 4) xyxy in resized pixels, where they do not come from an RPN.
    """

    padded: tuple[int, int]
    sizes: Sequence[tuple[int, int]]
    proposals: Sequence[Tensor] | None = None


class Detections(NamedTuple):
    """Detections of one image: `boxes` (n, 4) xyxy, `scores` (n,), `labels` (n,) 0-based.

    `masks` (n, m, m) are the probabilities of the object in m x m cells of its box, where the
    detector has a mask head. `levels` (n,) say which pyramid level found each, 0 the finest, where
    that was asked for.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    levels: Tensor | None = None

    def at(self, rows: Tensor) -> Detections:
        """Some of the detections, by index or mask."""
        return Detections(*(None if part is None else part[rows] for part in self))  # type: ignore


def cells_first(maps: Tensor, size: int) -> Tensor:
    """Bring a map's predictions into anchor order: (N, A*size, H, W) -> (N, H*W*A, size)."""
    split = maps.unflatten(1, (-1, size))  # (N, A, size, H, W)
    return split.permute(0, 3, 4, 1, 2).flatten(1, 3)
