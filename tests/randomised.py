"""Detectors as after training: every norm has statistics and an affine, every offset moves."""

from __future__ import annotations

import torch
from torch import nn

from sepcbench.detectors import Detector, build
from sepcbench.variants import variant


def randomised(name: str, seed: int = 0) -> Detector:
    """A variant in eval mode with random weights everywhere."""
    return randomise(build(variant(name), seed=seed).eval(), seed)  # type: ignore[return-value]


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw kernels, running statistics, affines, biases and offsets of about half a cell."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif tensor.dim() == 4:
            gain = 0.25 if "offset" in name else 2.0
            tensor.normal_(0, (gain / tensor[0].numel()) ** 0.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.2)
    return module
