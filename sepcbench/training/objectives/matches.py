"""Which object every cell of the maps learns, and the focal loss that follows from it.

A match is an int64 tensor (N, cells): the index of an object of its image, `NEGATIVE` or `IGNORED`.
Cells are the rows of `cells_first`, of one level or of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from sepcbench.training.objectives.targets import Target

NEGATIVE, IGNORED = -1, -2


class Positives(NamedTuple):
    """The cells with an object: `image` (p,), `cell` (p,), its `boxes` (p, 4) and `labels` (p,)."""

    image: Tensor
    cell: Tensor
    boxes: Tensor
    labels: Tensor


class Focal(Protocol):
    """A head's spec with a focal loss (arXiv 1708.02002)."""

    @property
    def focal_alpha(self) -> float: ...

    @property
    def focal_gamma(self) -> float: ...


def positives(match: Tensor, targets: Sequence[Target]) -> Positives:
    """The positive cells of a match (N, cells), image by image, with their objects."""
    image, cell = (match >= 0).nonzero(as_tuple=True)
    counts = torch.tensor([len(target.boxes) for target in targets], device=match.device)
    which = (counts.cumsum(0) - counts)[image] + match[image, cell]
    boxes = torch.cat([target.boxes for target in targets])
    labels = torch.cat([target.labels for target in targets])
    return Positives(image, cell, boxes[which], labels[which])


def focal_loss(logits: Tensor, match: Tensor, targets: Sequence[Target], spec: Focal) -> Tensor:
    """Summed focal loss of logits (N, cells, K) under a match (N, cells)."""
    found = positives(match, targets)
    wanted = torch.zeros_like(logits)
    wanted[found.image, found.cell, found.labels] = 1
    losses = sigmoid_focal_loss(logits, wanted, spec.focal_alpha, spec.focal_gamma)
    return (losses * (match != IGNORED)[:, :, None]).sum()
