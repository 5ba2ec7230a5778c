"""Batch norms whose statistics are those of all processes.

torch's SyncBatchNorm works between GPUs only and knows no pyramids; this is plain arithmetic that
gradients go through, between any devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sepcbench.errors import UsageError
from sepcbench.ops.norms import IntegratedNorm, SingleNorm
from sepcbench.ops.pyramid import Pyramid, join_cells, split_cells
from sepcbench.processes import all_sum, all_sum_, job


def synced_batch_norm(x: Tensor, norm: nn.modules.batchnorm._BatchNorm) -> Tensor:
    """Normalise (N, C, ...) by the mean and variance over the batches of all processes.

    The running statistics of `norm` move as those of one process with the whole batch do.

    Args:
        x: of this process; sizes may differ from process to process.
        norm: for eps, momentum, affine and running statistics.
    """
    cells = [0, *range(2, x.ndim)]
    shape = [1, -1] + [1] * (x.ndim - 2)
    wide = x.float()
    count = all_sum_(wide.new_tensor([wide.numel() / wide.shape[1]]))
    mean = all_sum(wide.sum(dim=cells)) / count
    away = wide - mean.view(shape)
    variance = all_sum(away.square().sum(dim=cells)) / count
    _move(norm, mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
    scale = torch.rsqrt(variance + norm.eps) * norm.weight
    return (away * scale.view(shape) + norm.bias.view(shape)).to(x.dtype)


def _move(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum or 0.0)
    norm.running_var.lerp_(variance, norm.momentum or 0.0)


class _SyncedBatchNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return synced_batch_norm(x, self) if self.training else super().forward(x)


class _SyncedIntegratedNorm(IntegratedNorm):
    def forward(self, pyramid: Pyramid) -> Pyramid:  # type: ignore[override]
        if not self.training:
            return super().forward(pyramid)
        return split_cells(synced_batch_norm(join_cells(pyramid), self), pyramid)


class _SyncedSingleNorm(SingleNorm):
    def forward(self, pyramid: Pyramid) -> Pyramid:  # type: ignore[override]
        if not self.training:
            return super().forward(pyramid)
        return [synced_batch_norm(level, self) for level in pyramid]


SYNCED: dict[type, type] = {
    nn.BatchNorm2d: _SyncedBatchNorm,
    IntegratedNorm: _SyncedIntegratedNorm,
    SingleNorm: _SyncedSingleNorm,
}
"""From a norm with batch statistics to the same over all processes; `IndependentNorm` has the
first one inside."""


@contextmanager
def synchronised(module: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Let all batch norms inside a module use the statistics of all processes, until the end.

    The modules stay, with their parameters and names: only what they do is another class's.

    Raises:
        UsageError: a norm that trains is of a kind of its own.
    """
    wanted = wanted and job().world > 1
    if wanted:
        _check_known(module)
    changed = [one for one in module.modules() if wanted and type(one) in SYNCED]
    kinds = [type(one) for one in changed]
    for one, kind in zip(changed, kinds):
        one.__class__ = SYNCED[kind]
    try:
        yield
    finally:
        for one, kind in zip(changed, kinds):
            one.__class__ = kind


def _check_known(module: nn.Module) -> None:
    """Norms of other kinds would keep the statistics of their own process, unnoticed."""
    strange = {
        type(one).__name__
        for one in module.modules()
        if isinstance(one, nn.modules.batchnorm._BatchNorm)
        and one.training
        and type(one) not in (*SYNCED, nn.SyncBatchNorm)
    }
    if strange:
        raise UsageError(
            f"sync_norm: norms of kind {', '.join(sorted(strange))} cannot be synchronised; use "
            "nn.BatchNorm2d or --recipe sync_norm=false"
        )
