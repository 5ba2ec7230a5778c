"""Batch norms that keep their statistics while the rest of a network trains."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def hold_statistics(parts: Iterable[nn.Module]) -> None:
    """Put every batch norm inside these modules in eval mode."""
    for part in parts:
        for module in part.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def has_training_norm(parts: Iterable[nn.Module]) -> bool:
    """Whether a batch norm inside these modules, in the mode they are in, moves its statistics."""
    modules = (module for part in parts for module in part.modules())
    return any(isinstance(module, _BatchNorm) and module.training for module in modules)
