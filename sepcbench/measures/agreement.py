"""How alike two maps are, and the levels of a pyramid among themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sepcbench.ops.pyramid import Pyramid

_ROUNDING = 1e-12  # of float64: what is left of a constant map after its mean is taken away

Matrix = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Agreement:
    """How alike two maps a and b are.

    Attributes:
        correlation: Pearson's, over all channels and cells; None where a map is constant.
        error: |a - b| / sqrt((|a - m|^2 + |b - m|^2) / 2), L2 norms, where m is the mean over both:
            0 for equal maps, about 1.41 for unrelated ones, with or without a ReLU; None where both
            are the same constant.
    """

    correlation: float | None
    error: float | None


@dataclass(frozen=True)
class LevelMatrix:
    """Correlations between the levels of one pyramid (figure 2 of the paper).

    Of the root mean square over channels of every level, resized bilinearly to the finest.
    """

    name: str
    levels: tuple[str, ...]
    values: Matrix


def agreement(a: Tensor, b: Tensor) -> Agreement:
    """Compare two maps of one shape."""
    a, b = a.double().flatten(), b.double().flatten()
    both = torch.stack([a, b])
    spread = float((both - both.mean()).norm()) / 2**0.5
    error = float((a - b).norm()) / spread if spread else None
    return Agreement(_correlation(a, b), error)


def inner(a: Tensor, b: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """Give both maps without `border` cells at each side, or as many as leave some of them."""
    height, width = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    y, x = (min(border, (side - 1) // 2) for side in (height, width))
    rows, columns = slice(y, height - y), slice(x, width - x)
    return a[:, :, rows, columns], b[:, :, rows, columns]


def level_correlations(names: Sequence[str], pyramid: Pyramid) -> tuple[tuple[str, ...], Matrix]:
    """The names and correlations of the levels that have channels."""
    there = [(name, level) for name, level in zip(names, pyramid) if level.shape[1]]
    size = there[0][1].shape[2:]
    flat = []
    for _, level in there:
        strength = level.double().square().mean(dim=1, keepdim=True).sqrt()
        resized = F.interpolate(strength, size=size, mode="bilinear", align_corners=False)
        flat.append(resized.flatten())
    return tuple(name for name, _ in there), tuple(
        tuple(_correlation(a, b) for b in flat) for a in flat
    )


def _correlation(a: Tensor, b: Tensor) -> float | None:
    least = _ROUNDING * float(a.norm()) * float(b.norm())
    a, b = a - a.mean(), b - b.mean()
    size = float(a.norm()) * float(b.norm())
    return float(a @ b) / size if size > least else None
