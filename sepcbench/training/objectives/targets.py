"""What an image should be detected as."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Target(NamedTuple):
    """Objects of one image: `boxes` (g, 4) xyxy in resized pixels, `labels` (g,) 0-based.

    `masks` (g, h, w) bool at the size of the resized image, where the data has them and the
    detector learns them; `proposals` (r, 4) xyxy in resized pixels, where they are fixed.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None
    proposals: Tensor | None = None
