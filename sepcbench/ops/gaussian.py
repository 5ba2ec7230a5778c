"""Gaussian pyramids: blur and take every second pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.ops.pyramid import Pyramid

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # close to a Gaussian of sigma 1


def shrink(x: Tensor) -> Tensor:
    """Halve both sides, rounded up: (N, C, H, W) blurred, then rows and columns 0, 2, 4, ...

    Pixel i of the result is at pixel 2i, as output cell i of a 3x3 conv with stride 2 and padding 1
    is: a level of the shrunk image lies on the next coarser level of the whole one. The border is
    mirrored.
    """
    channels = x.shape[1]
    kernel = torch.tensor(_BINOMIAL, dtype=x.dtype, device=x.device)
    x = _padded(x, (0, 0, 2, 2))
    x = F.conv2d(x, kernel.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)
    x = _padded(x, (2, 2, 0, 0))
    x = F.conv2d(x, kernel.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
    return x[:, :, ::2, ::2]


def gaussian_pyramid(x: Tensor, levels: int) -> Pyramid:
    """`x` and `levels` - 1 times `shrink` of it."""
    pyramid = [x]
    while len(pyramid) < levels:
        pyramid.append(shrink(pyramid[-1]))
    return pyramid


def _padded(x: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
    """Mirrored, or repeated where there is nothing to mirror."""
    height, width = int(x.shape[2]), int(x.shape[3])
    small = (sides[2] and height < 3) or (sides[0] and width < 3)
    return F.pad(x, sides, mode="replicate" if small else "reflect")
