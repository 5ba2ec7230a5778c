"""Class scores as maps: what a head says in every cell of every level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sepcbench.detectors import Detector
from sepcbench.errors import UsageError
from sepcbench.heads import LevelOutput, RoiOutput
from sepcbench.heads.dense import DenseHead
from sepcbench.heads.rpn import RpnHead
from sepcbench.specs import Conventions


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """The scores of one level.

    Attributes:
        level: 3 for P3.
        stride: pixels per cell.
        first: (x, y), where the first cell's anchors or points lie; the others follow in steps of
            `stride`.
        scores: (K, h, w), of each class the best anchor's, times centerness where there is one.
    """

    level: int
    stride: int
    first: tuple[float, float]
    scores: np.ndarray


@torch.no_grad()
def score_maps(detector: Detector, image: Tensor, *, device: str = "cpu") -> tuple[ScoreMap, ...]:
    """Score every cell of an image, level by level, fine to coarse.

    Of two stages, the objectness of the RPN, as one class.

    Args:
        detector: put in eval mode and moved to `device`.
        image: (1, 3, H, W), normalised and padded.
        device: where to run.

    Raises:
        UsageError: a second stage without an RPN has no maps of scores.
    """
    detector.to(device).eval()
    outputs = detector(image.to(device))
    classes = detector.spec.num_classes
    if isinstance(outputs, RoiOutput):
        if outputs.rpn is None:
            raise UsageError(
                f"variant '{detector.spec.name}' scores given proposals and no maps; try a "
                "one-stage detector or one with an RPN"
            )
        outputs, classes = outputs.rpn, 1
    elif detector.spec.head.gives_proposals:
        classes = 1
    how = detector.spec.conventions
    places = _first_priors(detector, outputs, (image.shape[2], image.shape[3]))
    return tuple(
        ScoreMap(level, stride, place, _scores(output, classes, how))
        for level, stride, place, output in zip(
            detector.spec.levels, detector.spec.strides, places, outputs
        )
    )


def _first_priors(
    detector: Detector, outputs: list[LevelOutput], padded: tuple[int, int]
) -> list[tuple[float, float]]:
    """On every level, the middle of the first anchor, or the first point."""
    head: Any = detector.head
    if isinstance(head, DenseHead):
        grids = head.priors(outputs, padded)
    else:
        rpn = head if isinstance(head, RpnHead) else head.rpn
        grids = rpn.anchors(outputs, padded, detector.spec.conventions)
    firsts = (grid[0].view(-1, 2).mean(dim=0).tolist() for grid in grids)
    return [(first[0], first[1]) for first in firsts]


def _scores(output: LevelOutput, classes: int, how: Conventions) -> np.ndarray:
    """Logits (1, A*K, h, w) to scores (K, h, w)."""
    scores = output.cls[0].float().sigmoid().unflatten(0, (-1, classes))  # (A, K, h, w)
    if output.centerness is not None:
        scores = scores * output.centerness[0].float().sigmoid()[:, None]
        scores = scores.sqrt() if how.quality == "sqrt" else scores
    best: np.ndarray = scores.amax(dim=0).cpu().numpy()
    return best
