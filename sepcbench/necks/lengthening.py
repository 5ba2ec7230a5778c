"""The same necks on a longer pyramid, whose ends are further from the levels in the middle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sepcbench.errors import UsageError
from sepcbench.necks import NECKS
from sepcbench.specs import NeckSpec


def lengthened(
    specs: Sequence[NeckSpec],
    necks: Iterable[nn.Module],
    channels: tuple[int, ...],
    seed: int | None = None,
) -> nn.ModuleList:
    """Build a chain of necks for another number of levels, in eval mode on the CPU.

    Args:
        specs: of the necks.
        necks: the ones whose parameters are copied.
        channels: of the levels that go in, as many as there are to be.
        seed: draw kernels instead of copying parameters.

    Raises:
        UsageError: there is nothing to copy for the levels that are new.
    """
    longer = nn.ModuleList()
    for spec, given in zip(specs, necks, strict=True):
        neck = NECKS[type(spec)](spec, channels)
        channels = neck.out_channels  # type: ignore[assignment]
        if seed is None:
            _copy(given.state_dict(), neck, spec.TYPE)
        else:
            _draw(neck, seed)
        longer.append(neck.eval())
    return longer


def _copy(state: Mapping[str, Tensor], neck: nn.Module, name: str) -> None:
    if set(state) != set(neck.state_dict()):
        raise UsageError(
            f"neck '{name}' has parameters for each level, which a longer pyramid has more of; "
            "leave out --checkpoint"
        )
    neck.load_state_dict(state)


def _draw(neck: nn.Module, seed: int) -> None:
    """Random kernels, also where training starts with zeros; offsets of about a cell."""
    generator = torch.Generator().manual_seed(seed)
    for module in neck.modules():
        if isinstance(module, nn.Conv2d):
            std = module.weight[0].numel() ** -0.5
            nn.init.normal_(module.weight, std=std, generator=generator)
