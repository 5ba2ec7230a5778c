"""A training between two iterations: all that an iteration changes, and the record of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from sepcbench.data.coco import CocoData
from sepcbench.data.proposals import Proposals
from sepcbench.detectors import Detector
from sepcbench.processes import Job
from sepcbench.records import Training
from sepcbench.specs import Recipe
from sepcbench.training.meter import Meter

# how many losses a training record keeps at most
_KEPT_LOSSES = 200


@dataclass
class Session:
    """A training run between two iterations.

    Attributes:
        model: the detector with its objective (`training.step.Learner`), or that in a
            DistributedDataParallel.
        scaler: of the gradients, in float16.
        iteration: how many are done.
        losses: (iteration, total loss).
        scores: (iteration, score) of the evaluations on the way.
        kept: the iteration whose state is on disk, 0 for none.
        skipped: iterations in a row without a step, for gradients beyond float16.
        weights: digest of the file that the backbone started from; None where there is no file.
    """

    detector: Detector
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Any
    recipe: Recipe
    data: CocoData
    proposals: Proposals | None
    device: str
    job: Job
    iteration: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    scores: list[tuple[int, float]] = field(default_factory=list)
    kept: int = 0
    skipped: int = 0
    weights: str | None = None
    meter: Meter = field(default_factory=Meter)

    @property
    def best(self) -> float | None:
        """The highest score so far."""
        return max((score for _, score in self.scores), default=None)

    def record(self) -> Training:
        """What a checkpoint says of its training: all but how fast it was."""
        step = -(-self.recipe.iterations // _KEPT_LOSSES)
        last = len(self.losses) - 1
        kept = (pair for i, pair in enumerate(self.losses) if i % step == 0 or i == last)
        return Training(
            variant=self.detector.spec.name,
            dataset=self.data.name,
            images=len(self.data.images),
            iterations=self.iteration,
            batch=self.recipe.batch,
            seed=self.recipe.seed,
            optimizer=self.recipe.optimizer,
            learning_rate=self.recipe.peak_rate,
            losses=tuple(kept),
            scores=tuple(self.scores),
            processes=self.job.world,
            amp=self.recipe.amp,
            pretrained=self.recipe.pretrained,
        )
