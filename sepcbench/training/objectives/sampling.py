"""A few of many candidates to learn from: positives up to a share, negatives for the rest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sepcbench.training.objectives.matches import NEGATIVE


class Sampled(NamedTuple):
    """Rows of the candidates of an image: `positives` (p,) and `negatives` (n,)."""

    positives: Tensor
    negatives: Tensor


def sample(match: Tensor, count: int, positive_share: float) -> Sampled:
    """Draw candidates of one image at random, from torch's global CPU generator.

    Args:
        match: (candidates,) index of an object, `NEGATIVE`, or anything else to be left out.
        count: how many at most; fewer if there are not enough.
        positive_share: of the count at most; negatives fill the rest.
    """
    positives = _some((match >= 0).nonzero().squeeze(1), int(count * positive_share))
    negatives = _some((match == NEGATIVE).nonzero().squeeze(1), count - len(positives))
    return Sampled(positives, negatives)


def _some(rows: Tensor, limit: int) -> Tensor:
    if len(rows) <= limit:
        return rows
    return rows[torch.randperm(len(rows), device="cpu")[:limit].to(rows.device)]
