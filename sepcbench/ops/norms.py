"""Norms of a pyramid tower: how the levels share statistics and affine parameters.

The flavours of figure 7 of the SEPC paper (arXiv 2005.03101): single, independent, integrated,
beside none, GN and fixed statistics. Each takes a pyramid and returns one of the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sepcbench.errors import UsageError
from sepcbench.ops.pyramid import Pyramid, join_cells, split_cells

EPS, MOMENTUM = 1e-5, 0.1


class NoNorm(nn.Module):
    """The pyramid as it is."""

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return pyramid


class IntegratedNorm(nn.BatchNorm1d):
    """iBN: one affine and one set of statistics, gathered over the cells of all levels.

    In training the running statistics move once per call, with the unbiased variance over the
    batch and all levels (SEPC paper, section 3.2).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS, momentum=MOMENTUM)

    def forward(self, pyramid: Pyramid) -> Pyramid:  # type: ignore[override]
        if self.training:
            _check_cells(pyramid, joint=True)
            return split_cells(super().forward(join_cells(pyramid)), pyramid)
        return [_fixed(level, self) for level in pyramid]


class SingleNorm(nn.BatchNorm2d):
    """One affine for all levels, statistics of each level on its own.

    In training the one set of running statistics moves once per level; at test time all levels
    share it, which is where the SEPC paper reports a catastrophic drop.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS, momentum=MOMENTUM)

    def forward(self, pyramid: Pyramid) -> Pyramid:  # type: ignore[override]
        if self.training:
            _check_cells(pyramid)
        return [super(SingleNorm, self).forward(level) for level in pyramid]


class IndependentNorm(nn.Module):
    """A BN of its own, affine and statistics, for every level."""

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM) for _ in range(num_levels)
        )

    def forward(self, pyramid: Pyramid) -> Pyramid:
        if self.training:
            _check_cells(pyramid)
        return [norm(level) for norm, level in zip(self.levels, pyramid, strict=True)]


class GroupNorm(nn.GroupNorm):
    """GN: statistics per image, level and group of channels; one affine for all levels."""

    def __init__(self, channels: int, groups: int) -> None:
        check_groups(channels, groups)
        super().__init__(groups, channels, eps=EPS)

    def forward(self, pyramid: Pyramid) -> Pyramid:  # type: ignore[override]
        return [super(GroupNorm, self).forward(level) for level in pyramid]


class FrozenNorm(nn.Module):
    """A BN that never trains: statistics and affine are buffers, shared by all levels."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps = EPS

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, pyramid: Pyramid) -> Pyramid:
        return [_fixed(level, self) for level in pyramid]


def check_groups(channels: int, groups: int) -> None:
    """Check that `channels` divide into `groups`.

    Raises:
        UsageError: they do not.
    """
    if groups < 1 or channels % groups:
        raise UsageError(
            f"GN: {channels} channels do not divide into {groups} groups; set groups to a divisor"
        )


def _fixed(x: Tensor, norm: IntegratedNorm | FrozenNorm) -> Tensor:
    """Normalise (N, C, H, W) with the running statistics of `norm`."""
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
    )


def _check_cells(pyramid: Pyramid, joint: bool = False) -> None:
    """Batch statistics need more than one value per channel, per level or over all of them."""
    cells = [level.shape[0] * level.shape[2] * level.shape[3] for level in pyramid]
    fewest = sum(cells) if joint else min(cells)
    if fewest == 1:
        raise UsageError(
            "batch norm in a head tower cannot train on one cell (batch 1 and a 1x1 level); "
            "use a larger batch, larger images or norm=integrated"
        )


NORMS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "none": lambda channels, num_levels, groups: NoNorm(),
    "single": lambda channels, num_levels, groups: SingleNorm(channels),
    "independent": lambda channels, num_levels, groups: IndependentNorm(channels, num_levels),
    "integrated": lambda channels, num_levels, groups: IntegratedNorm(channels),
    "gn": lambda channels, num_levels, groups: GroupNorm(channels, groups),
    "frozen": lambda channels, num_levels, groups: FrozenNorm(channels),
}
"""From the name of a norm flavour to its builder `(channels, num_levels, groups) -> module`."""
