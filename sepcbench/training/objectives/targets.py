"""What an image should be detected as."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Target(NamedTuple):
    """Objects of one image: `boxes` (g, 4) xyxy in resized pixels, `labels` (g,) 0-based."""

    boxes: Tensor
    labels: Tensor
